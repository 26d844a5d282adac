// Radial functions as B-splines.
#pragma once

#include <vector>

#include "network.h"

namespace ase {

// exp(-(w (x - c))²) of x = exp(-rate d), as splines of x.
struct RadialFunctions {
    std::vector<double> centers, inverse_widths;
    double cutoff = 0;
    double shortest = 0;  // Å, up to which no function is asked for
    static constexpr double rate = 0.375;
};

struct SplineTable {
    int degree = 0, knots = 0;
    double start = 0, spacing = 0;
    std::vector<double> coefficients;
    // Largest error of values and slopes by x, in the precision of the table, each divided by the
    // largest value or slope of the same function.
    double error = 0;
    SplineView view(int n_rbf) const {
        return {degree, knots, n_rbf, RadialFunctions::rate, start, spacing, coefficients.data()};
    }
};

// The smallest table that is as exact as rounding lets it be.
// Throws Error(ASE_STUDENT_UNSUPPORTED) if none is exact enough.
SplineTable tabulate(const RadialFunctions& functions, int degree, bool single);

}  // namespace ase
