#!/bin/sh
# Run the engine's tests under sanitizers:
#
#     tests/sanitize.sh [address|thread] [--short] [pytest arguments]
#
# 'address' looks for errors of memory and undefined behavior, 'thread' for data races. Builds a
# library of its own in build/sanitize-*, with one instruction set, the compiler's own, and leaves
# the installed one alone. With --short, a few tests that need neither torch nor long searches.
set -eu
cd "$(dirname "$0")/.."
kind=${1:-address}
[ $# -gt 0 ] && shift
python=${PYTHON:-python}
short=
[ "${1:-}" = --short ] && short=yes && shift
case $kind in
    address)
        flags="-fsanitize=address,undefined -fno-sanitize-recover=undefined"
        runtime=libasan.so
        tests="not bundled_students_are_right and not instruction_set and not every_shape"
        quick="damaged or any_bytes or vesin or matrices or phases or bad_structures or company"
        ;;
    thread)
        flags="-fsanitize=thread"
        runtime=libtsan.so
        tests="threads or phases or many"
        quick="same_bits and molecules or threads_may_share"
        ;;
    *) echo "unknown sanitizer '$kind'; available: address, thread." >&2; exit 2 ;;
esac
[ "$short" ] && tests=$quick
compiler=${CXX:-g++}
folder=build/sanitize-$kind
mkdir -p "$folder"
common="-O1 -g -std=c++17 -fPIC -fvisibility=hidden -ffp-contract=fast -fno-math-errno -pthread"
common="$common -Wno-psabi -fno-omit-frame-pointer -DASE_ONE_ISA $flags"
. tests/engine_objects.sh
# shellcheck disable=SC2086
compile_engine "$folder" baseline $compiler $common
# shellcheck disable=SC2086
$compiler -shared $flags $objects -o "$folder/_library.so" -pthread
# Python itself leaks on purpose; torch is no part of this.
export ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1
export TSAN_OPTIONS=report_bugs=1
export ASE_STUDENT_ENGINE_LIBRARY="$PWD/$folder/_library.so" OMP_NUM_THREADS=1
# The sanitizer looks for the C++ library when it starts, before Python loads the engine.
LD_PRELOAD="$($compiler -print-file-name=$runtime) $($compiler -print-file-name=libstdc++.so)" \
    "$python" -m pytest -q -p no:cacheprovider tests/test_engine.py \
    tests/extrapolation/test_native.py -k "$tests" "$@"
