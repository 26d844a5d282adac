#!/bin/sh
# Everything that needs a GPU, in at most eight minutes, on a machine that cannot reach anything:
#
#     benchmarks/gpu.sh prepare          # here: put the wheels it needs into build/gpu-wheels
#     benchmarks/gpu.sh OUTPUT.json      # there: run the CUDA tests, then benchmarks/gpu.py
#
# The other machine has Python 3.12 and torch 2.11 or newer, which are used as they are. Carry the
# clone with build/gpu-wheels over. DEVICE=cpu runs all but the CUDA parts.
set -eu
cd "$(dirname "$0")/.."
wheels=build/gpu-wheels
python=${PYTHON:-python3}
needed="ase numpy onnxruntime safetensors vesin pytest hypothesis"
if [ "${1:-}" = prepare ]; then
    # torch and what it brings stay those of the other machine.
    "$python" -m pip download --quiet --dest "$wheels" --only-binary :all: \
        --python-version 3.12 --platform manylinux_2_28_x86_64 $needed
    exit 0
fi
output=${1:?give the file to write, or prepare}
device=${DEVICE:-cuda}
minutes=${MINUTES:-5}
if [ -d "$wheels" ]; then
    "$python" -m venv --system-site-packages build/gpu-venv
    python=build/gpu-venv/bin/python
    "$python" -m pip install --quiet --no-index --find-links "$wheels" $needed
fi
export PYTHONPATH="$PWD"
"$python" benchmarks/gpu.py -o "$output" --device "$device" --minutes "$minutes" ${QUICK:+--quick}
if [ "$device" = cuda ]; then
    # Tests last, and cut short: figures of a machine that is lent for minutes come first.
    timeout 120 "$python" -m pytest -q -p no:cacheprovider tests -k "cuda or gpu" || echo "tests: $?"
fi
