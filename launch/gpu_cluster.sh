#!/usr/bin/env bash
#SBATCH --job-name=alignax
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
#
# Slurm, one process a node:
#   sbatch --nodes=4 launch/gpu_cluster.sh configs/dpo.py:size=custom,... \
#       /path/all/nodes/see/runs/dpo --config.mesh.fsdp=32
# Two minutes before its time is up the job is told, saves, and can be queued
# again: the same command goes on. `.venv` needs "jax[cuda13]" beside `make
# setup`; ALIGNAX='apptainer exec alignax.sif alignax' takes another's place.
set -euo pipefail
config=$1 workdir=$2
shift 2
cd "${SLURM_SUBMIT_DIR:-.}"
read -ra alignax <<<"${ALIGNAX:-.venv/bin/alignax}"
# jax reads coordinator, count and number of the processes from Slurm.
srun --kill-on-bad-exit=1 "${alignax[@]}" train --distributed \
  --config="$config" --workdir="$workdir" "$@"
