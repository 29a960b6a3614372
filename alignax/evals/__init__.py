"""What is measured on held-out rows, and read by people."""
