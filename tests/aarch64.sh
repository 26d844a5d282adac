#!/bin/sh
# Build the engine for aarch64 and compare it with float64 results of this machine:
#
#     apt-get install g++-aarch64-linux-gnu qemu-user
#     tests/aarch64.sh [student ...]
#
# Energies, forces and virials of the bundled students must agree in both precisions, within what
# tests/test_engine.py allows. The compilers and the emulator can be named otherwise: CXX_AARCH64,
# CC_AARCH64 and RUN_AARCH64, which is empty where the processor is aarch64.
set -eu
cd "$(dirname "$0")/.."
cxx=${CXX_AARCH64-aarch64-linux-gnu-g++}
cc=${CC_AARCH64-aarch64-linux-gnu-gcc}
run=${RUN_AARCH64-qemu-aarch64}
python=${PYTHON:-python}
for tool in $cxx $cc $run; do
    command -v "$tool" >/dev/null || {
        echo "'$tool' is missing: apt-get install g++-aarch64-linux-gnu qemu-user" >&2
        exit 2
    }
done
folder=build/aarch64
mkdir -p "$folder"
# As in setup.py.
flags="-O3 -std=c++17 -fvisibility=hidden -ffp-contract=fast -fno-math-errno -fno-trapping-math"
flags="$flags -pthread -Wno-psabi -Wno-maybe-uninitialized"
. tests/engine_objects.sh
# shellcheck disable=SC2086
compile_engine "$folder" aarch64 $cxx $flags
$cc -O2 -std=c11 -Wall -Wextra -Werror -Iase_student/engine -c tests/cross/check.c \
    -o "$folder/check.o"
# shellcheck disable=SC2086
$cxx -static -pthread "$folder/check.o" $objects -o "$folder/check"

[ $# -gt 0 ] || set -- original tiny ultra-tiny
status=0
for student in "$@"; do
    "$python" tests/cross/references.py "$student" > "$folder/$student.txt"
    echo "$student:"
    $run "$folder/check" "ase_student/students/$student/weights.safetensors" \
        "$folder/$student.txt" || status=1
done
exit $status
