#!/bin/sh
# Train all small networks within ten minutes of one GPU, on a machine that has Python and torch, but no network.
#
#     campaign/code/scripts/training/gpu_campaign.sh campaign OUTPUT [flags of run_campaign.py]
#
# `campaign` is the folder of pack_campaign.py. OUTPUT gets weights.tar: weights, model cards and logs.
set -eu
campaign=$(cd "$1" && pwd)
mkdir -p "$2"
output=$(cd "$2" && pwd)
shift 2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python=${PYTHON:-python3}

mkdir "$work/packages"
if [ -d "$campaign/wheels" ]; then
    "$python" -m pip install --quiet --no-index --no-deps --no-compile --target "$work/packages" "$campaign"/wheels/*.whl
fi
export PYTHONPATH="$campaign/code:$campaign/code/packages:$work/packages"
export GOMP_SPINCOUNT=3000

# The teacher of MBNet's flow
"$python" "$campaign/code/scripts/data_preparation/precompute_flow.py" --input "$campaign/data" --preset fine \
    --output "$work/flow.lmdb" 2> "$work/flow.log" || { cat "$work/flow.log" >&2; exit 1; }
status=0
"$python" "$campaign/code/scripts/training/run_campaign.py" --data "$campaign/data" --flow "$work/flow.lmdb" \
    --output "$work/run" "$@" || status=$?
tar -cf "$output/weights.tar" -C "$work/run" weights logs
exit $status
