#include "loaded_network.h"

#include "error.h"
#include "instruction_sets.h"

namespace ase {

LoadedNetwork::LoadedNetwork(const void* data, size_t size, bool single,
                             const std::string& requested_isa)
    : student(Student::read(data, size)) {
    for (const InstructionSet& candidate : instruction_sets()) {
        const bool is_suitable = requested_isa.empty() || requested_isa == candidate.name;
        if (!candidate.is_available || !is_suitable) continue;
        functions = single ? candidate.in_single : candidate.in_double;
        isa = candidate.name;
        break;
    }
    if (!functions)
        throw Error(ASE_STUDENT_UNSUPPORTED,
                    requested_isa.empty() ? "this processor is too old: x86-64-v2 is needed"
                                          : "this processor cannot run '" + requested_isa + "'");
    const SplineTable table = tabulate(student.functions, functions->degree, single);
    table_error = table.error;
    const NetworkWeights w = student.weights();
    const SplineView spline = table.view(student.n_rbf);
    weights = functions->create(&w, &spline);
    require_memory(weights);
}

LoadedNetwork::~LoadedNetwork() {
    if (weights) functions->destroy(weights);
}

}  // namespace ase
