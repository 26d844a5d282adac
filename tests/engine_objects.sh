# Read by tests/sanitize.sh and tests/aarch64.sh: compile the engine's sources with one instruction
# set, the compiler's own.
#
#     compile_engine FOLDER NAME COMPILER FLAGS...
#
# leaves the objects in FOLDER, sets $objects to their paths, and compiles only what is older than a
# source or one of the scripts. NAME is what the instruction set is called.
source=ase_student/engine/src
compile_engine() {
    folder=$1 isa=$2
    shift 2
    objects=
    for file in "$source"/*.cpp; do
        name=$(basename "$file" .cpp)
        [ "$name" = network ] || compile_object "$name" "$file" "$@"
    done
    for precision in single:float double:double; do
        compile_object "${precision%:*}" "$source/network.cpp" "$@" "-DASE_REAL=${precision#*:}" \
            "-DASE_NAMESPACE=baseline_${precision%:*}" "-DASE_NAME=\"$isa\"" -DASE_VECTOR_BYTES=16
    done
}
# compile_object NAME SOURCE COMPILER FLAGS...
compile_object() {
    object=$folder/$1.o file=$2
    shift 2
    objects="$objects $object"
    if [ -e "$object" ] && [ -z "$(find "$source" ase_student/engine/ase_student.h tests/*.sh \
        -type f -newer "$object")" ]; then
        return
    fi
    "$@" -c "$file" -o "$object"
}
