// A student's weights, packed for the kernels of one instruction set and precision.
#pragma once

#include <string>

#include "network.h"
#include "student.h"

namespace ase {

// Not changed after construction, so that handles in different threads can share it.
class LoadedNetwork {
public:
    // `requested_isa` is the name of an instruction set, or empty for the best of this processor.
    // Throws Error for an invalid file, or a student or instruction set that cannot be run.
    LoadedNetwork(const void* data, size_t size, bool single, const std::string& requested_isa);
    ~LoadedNetwork();
    LoadedNetwork(const LoadedNetwork&) = delete;
    LoadedNetwork& operator=(const LoadedNetwork&) = delete;

    Student student;
    double table_error = 0;
    const NetworkFunctions* functions = nullptr;
    void* weights = nullptr;
    std::string isa;
};

}  // namespace ase
