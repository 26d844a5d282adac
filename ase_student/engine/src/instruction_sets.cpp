#include "instruction_sets.h"

// For tests, ASE_ONE_ISA builds the library in seconds, for the compiler's own instruction set.
#if defined(__x86_64__) && !defined(ASE_ONE_ISA)
#define ASE_SEVERAL_ISAS
#endif

#define ASE_DECLARE(isa)                                \
    namespace isa##_single {                            \
    extern const ase::NetworkFunctions functions;       \
    }                                                   \
    namespace isa##_double {                            \
    extern const ase::NetworkFunctions functions;       \
    }
#if defined(ASE_SEVERAL_ISAS)
ASE_DECLARE(x86_64_v4)
ASE_DECLARE(x86_64_v3)
ASE_DECLARE(x86_64_v2)
#else
ASE_DECLARE(baseline)
#endif

namespace ase {

std::vector<InstructionSet> instruction_sets() {
#if defined(ASE_SEVERAL_ISAS)
    __builtin_cpu_init();
    const bool v2 = __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("popcnt");
    const bool v3 = v2 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                    __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
    const bool v4 = v3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                    __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
                    __builtin_cpu_supports("avx512vl");
    return {{"x86-64-v4", v4, &x86_64_v4_single::functions, &x86_64_v4_double::functions},
            {"x86-64-v3", v3, &x86_64_v3_single::functions, &x86_64_v3_double::functions},
            {"x86-64-v2", v2, &x86_64_v2_single::functions, &x86_64_v2_double::functions}};
#else
#if defined(__aarch64__)
    const char* name = "neon";
#else
    const char* name = "baseline";
#endif
    return {{name, true, &baseline_single::functions, &baseline_double::functions}};
#endif
}

std::vector<std::string> available_isas() {
    std::vector<std::string> names;
    for (const InstructionSet& isa : instruction_sets())
        if (isa.is_available) names.push_back(isa.name);
    return names;
}

}  // namespace ase
