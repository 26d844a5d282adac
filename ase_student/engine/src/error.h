// The one kind of error inside of the engine. The C interface turns it into a status.
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

}  // namespace ase
