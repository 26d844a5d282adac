#!/bin/sh
# Run the engine's tests under sanitizers: tests/sanitize.sh [address|thread] [pytest arguments]
#
# 'address' looks for errors of memory and undefined behavior, 'thread' for data races. Builds a
# library of its own in build/sanitize-*, with the instruction set of this processor, and leaves
# the installed one alone.
set -eu
cd "$(dirname "$0")/.."
kind=${1:-address}
[ $# -gt 0 ] && shift
python=${PYTHON:-python}
case $kind in
    address) flags="-fsanitize=address,undefined -fno-sanitize-recover=undefined"; runtime=libasan.so ;;
    thread) flags="-fsanitize=thread"; runtime=libtsan.so ;;
    *) echo "unknown sanitizer '$kind'; available: address, thread." >&2; exit 2 ;;
esac
compiler=${CXX:-g++}
folder=build/sanitize-$kind
mkdir -p "$folder"
common="-O1 -g -std=c++17 -fPIC -fvisibility=hidden -ffp-contract=fast -fno-math-errno -pthread"
common="$common -Wno-psabi -fno-omit-frame-pointer $flags"
source=ase_student/engine/src
# One instruction set stands for all: they are the same source.
case $(uname -m) in
    x86_64) names="x86_64_v2 x86_64_v3 x86_64_v4" ;;
    *) names=baseline ;;
esac
objects=
for file in engine interface json neighbors pool spline student unusual; do
    $compiler $common -c "$source/$file.cpp" -o "$folder/$file.o"
    objects="$objects $folder/$file.o"
done
for name in $names; do
    case $name in
        x86_64_v4) width=64; march=-march=x86-64-v4 ;;
        x86_64_v3) width=32; march=-march=x86-64-v3 ;;
        x86_64_v2) width=16; march=-march=x86-64-v2 ;;
        *) width=16; march= ;;
    esac
    for real in float double; do
        [ $real = float ] && precision=single || precision=double
        object=$folder/$name-$precision.o
        $compiler $common $march "-DASE_NAMESPACE=${name}_$precision" "-DASE_REAL=$real" \
            "-DASE_VECTOR_BYTES=$width" "-DASE_NAME=\"$(echo $name | tr _ -)\"" \
            -c "$source/network.cpp" -o "$object"
        objects="$objects $object"
    done
done
$compiler -shared $flags $objects -o "$folder/_library.so" -pthread
# Python itself leaks on purpose; torch is no part of this.
export ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1
export TSAN_OPTIONS=report_bugs=1
export ASE_STUDENT_ENGINE_LIBRARY="$PWD/$folder/_library.so" OMP_NUM_THREADS=1
tests="not bundled_students_are_right and not instruction_set and not every_shape"
[ "$kind" = thread ] && tests="threads or phases or many"
# The sanitizer looks for the C++ library when it starts, before Python loads the engine.
LD_PRELOAD="$($compiler -print-file-name=$runtime) $($compiler -print-file-name=libstdc++.so)" \
    "$python" -m pytest -q -p no:cacheprovider tests/test_engine.py -k "$tests" "$@"
