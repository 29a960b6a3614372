#!/usr/bin/env bash
# One machine, all of its devices:
#   launch/local.sh configs/dpo.py:size=tiny runs/dpo [--config.KEY=VALUE ...]
# Several processes on one machine, to try what a cluster does:
#   PROCESSES=2 JAX_PLATFORMS=cpu launch/local.sh configs/sft.py:size=tiny runs/sft
set -euo pipefail
config=$1 workdir=$2
shift 2
processes=${PROCESSES:-1}
# Several words: ALIGNAX='apptainer exec alignax.sif alignax'.
read -ra alignax <<<"${ALIGNAX:-alignax}"
if [ "$processes" -eq 1 ]; then
  exec "${alignax[@]}" train --config="$config" --workdir="$workdir" "$@"
fi
export JAX_COORDINATOR_ADDRESS=${JAX_COORDINATOR_ADDRESS:-localhost:12355}
export ALIGNAX_NUM_PROCESSES=$processes
pids=()
trap 'kill "${pids[@]}" 2>/dev/null || true' EXIT
for ((i = 0; i < processes; i++)); do
  ALIGNAX_PROCESS_ID=$i "${alignax[@]}" train --distributed \
    --config="$config" --workdir="$workdir" "$@" &
  pids+=($!)
done
# One that fails leaves the others waiting for it: they are ended with it.
for _ in "${pids[@]}"; do wait -n; done
