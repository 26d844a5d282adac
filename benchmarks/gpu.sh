#!/bin/sh
# Run everything that needs a GPU, in at most eight minutes, on a machine without a network:
#
#     benchmarks/gpu.sh prepare          # with a network: download wheels into build/gpu-wheels
#     benchmarks/gpu.sh OUTPUT.json      # with a GPU: run benchmarks/gpu.py, then the CUDA tests
#
# The GPU machine must have Python 3.12 and torch 2.11 or newer. Copy the clone to it, including
# build/gpu-wheels. DEVICE=cpu runs everything except the CUDA parts.
set -eu
cd "$(dirname "$0")/.."
wheels=build/gpu-wheels
python=${PYTHON:-python3}
needed="ase numpy onnxruntime safetensors vesin pytest hypothesis"
if [ "${1:-}" = prepare ]; then
    # torch and its dependencies are those of the GPU machine.
    "$python" -m pip download --quiet --dest "$wheels" --only-binary :all: \
        --python-version 3.12 --platform manylinux_2_28_x86_64 $needed
    exit 0
fi
output=${1:?give the file to write, or 'prepare'}
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
    # Tests come last, with a time limit: on a machine with little time, measurements come first.
    timeout 120 "$python" -m pytest -q -p no:cacheprovider tests -k "cuda or gpu" || echo "tests: $?"
fi
