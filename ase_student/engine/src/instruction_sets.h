// The instruction sets for which this library holds a compiled network.
#pragma once

#include <string>
#include <vector>

#include "network.h"

namespace ase {

struct InstructionSet {
    const char* name;
    bool is_available;  // on this processor
    const NetworkFunctions *in_single, *in_double;
};

// All of them, best first.
std::vector<InstructionSet> instruction_sets();

// Names of those that this processor can run, best first.
std::vector<std::string> available_isas();

}  // namespace ase
