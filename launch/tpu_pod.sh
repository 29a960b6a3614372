#!/usr/bin/env bash
# A TPU pod slice: the same command on all of its hosts, through gcloud.
#   TPU=my-pod ZONE=us-west4-a launch/tpu_pod.sh configs/dpo.py:size=custom,... \
#       /mnt/shared/runs/dpo --config.mesh.fsdp=16
# The repository is copied and set up first; repeat the command to go on after
# a pre-emption. The work directory must be one that every host sees at the same
# path; gs:// is no path. Mount a Filestore share there, or by gcsfuse a bucket
# with a hierarchical namespace, as checkpoints are renamed as directories. Not
# tried on a pod yet: read the script before you rely on it.
set -euo pipefail
: "${TPU:?set TPU to the name of the slice}" "${ZONE:?set ZONE to its zone}"
here=$(cd "$(dirname "$0")/.." && pwd)
on_all() {
  gcloud compute tpus tpu-vm ssh "$TPU" --zone="$ZONE" --worker=all \
    --command="$1"
}
arguments=$(printf ' %q' "--config=$1" "--workdir=$2" "${@:3}")
archive=$(mktemp --suffix=.tar.gz)
trap 'rm -f "$archive"' EXIT
git -C "$here" archive --format=tar.gz -o "$archive" HEAD
gcloud compute tpus tpu-vm scp "$archive" "$TPU:alignax.tar.gz" \
  --zone="$ZONE" --worker=all
on_all 'mkdir -p alignax && tar -xzf alignax.tar.gz -C alignax && cd alignax &&
  make setup && .venv/bin/pip install --quiet "jax[tpu]"'
# jax finds coordinator, count and number of the hosts in the slice's metadata.
on_all "cd alignax && .venv/bin/alignax train --distributed$arguments"
