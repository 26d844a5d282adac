// Radial functions as B-splines.
#pragma once

#include <vector>

#include "network.h"

namespace ase {

// The functions exp(-(w (x - c))²) of x = exp(-rate d), with inverse widths w and centers c.
struct RadialFunctions {
    std::vector<double> centers, inverse_widths;
    double cutoff = 0;
    double shortest = 0;  // Å; functions are not evaluated at shorter distances
    static constexpr double rate = 0.375;
};

struct SplineTable {
    int degree = 0, knots = 0;
    double start = 0, spacing = 0;
    std::vector<double> coefficients;
    // Largest error of values and of derivatives with respect to x, in the precision of the table,
    // each relative to the largest value or derivative of the same function.
    double error = 0;
    SplineView view(int n_rbf) const {
        return {degree, knots, n_rbf, RadialFunctions::rate, start, spacing, coefficients.data()};
    }
};

// Return the smallest table that is as precise as rounding allows.
// Throws Error(ASE_STUDENT_UNSUPPORTED) if none is precise enough.
SplineTable tabulate(const RadialFunctions& functions, int degree, bool single);

}  // namespace ase
