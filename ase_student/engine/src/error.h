// The one exception of the engine; the C interface turns it into a status.
#pragma once

#include <stdexcept>
#include <string>

#include "../ase_student.h"

namespace ase {

class Error : public std::runtime_error {
public:
    Error(ase_student_status status, const std::string& message)
        : std::runtime_error(message), status(status) {}
    ase_student_status status;
};

// Refuse an argument or a structure.
[[noreturn]] inline void invalid(const std::string& reason) {
    throw Error(ASE_STUDENT_INVALID, reason);
}

// Refuse an argument or a structure unless a condition holds.
inline void require(bool is_valid, const char* reason) {
    if (!is_valid) invalid(reason);
}

// Throw unless an allocation succeeded.
inline void require_memory(bool is_enough) {
    if (!is_enough) throw Error(ASE_STUDENT_MEMORY, "there is not enough memory");
}

}  // namespace ase
