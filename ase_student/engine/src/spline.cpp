#include "spline.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "error.h"

namespace ase {
namespace {

// For float64 and float32: the error at which no larger table is tried, and the largest error that
// is accepted; the smallest and the largest number of knots.
constexpr double TARGET_ERROR[2] = {1e-12, 2e-6}, LARGEST_ERROR[2] = {1e-10, 2e-5};
constexpr int FEWEST_KNOTS[2] = {256, 64}, MOST_KNOTS[2] = {8000, 1024};

// Values of the B-splines of a degree that are not zero at position t of a bin, 0 to 1, and their
// derivatives with respect to t.
template <class T>
void basis(int degree, T t, T* value, T* slope) {
    value[0] = 1;
    for (int d = 1; d <= degree; d++) {
        if (d == degree) {
            slope[0] = -value[0];
            for (int q = 1; q < degree; q++) slope[q] = value[q - 1] - value[q];
            slope[degree] = value[degree - 1];
        }
        T saved = 0;
        for (int r = 0; r < d; r++) {
            const T part = value[r] * T(1.0 / d);
            value[r] = saved + (T(r + 1) - t) * part;
            saved = (t + T(d - r - 1)) * part;
        }
        value[d] = saved;
    }
}

double gaussian(const RadialFunctions& functions, int n, double x) {
    const double reduced = (x - functions.centers[n]) * functions.inverse_widths[n];
    return std::exp(-reduced * reduced);
}

double gaussian_slope(const RadialFunctions& functions, int n, double x) {
    const double width = functions.inverse_widths[n];
    return -2.0 * width * width * (x - functions.centers[n]) * gaussian(functions, n, x);
}

// Interpolate at knots (odd degrees) or midway between them (even degrees). The system of equations
// reaches far beyond both ends of the table, so that the conditions at its own ends do not matter.
SplineTable interpolate(const RadialFunctions& functions, int degree, int knots) {
    SplineTable table;
    const double last = std::exp(-RadialFunctions::rate * functions.shortest);
    table.degree = degree;
    table.knots = knots;
    table.start = std::exp(-RadialFunctions::rate * functions.cutoff);
    table.spacing = (last - table.start) / knots;
    const int n_functions = (int)functions.centers.size(), half = degree / 2, width = 2 * half + 1;
    const int beyond = 100, rows = knots + degree, size = rows + 2 * beyond;
    const double offset = degree % 2 ? 0.0 : 0.5;
    std::vector<double> weights(degree + 1), slopes(degree + 1);
    basis(degree, offset, weights.data(), slopes.data());
    std::vector<double> bands((size_t)size * width), right((size_t)size * n_functions);
    for (int row = 0; row < size; row++) {
        double* band = &bands[(size_t)row * width];
        const bool at_end = row < half || row >= size - half;
        for (int q = 0; q < width; q++) band[q] = at_end ? q == half : weights[q];
        const double x = table.start + table.spacing * (row - beyond - half + offset);
        for (int n = 0; n < n_functions; n++)
            right[(size_t)row * n_functions + n] = gaussian(functions, n, x);
    }
    // Elimination without pivoting: these matrices are diagonally dominant.
    for (int row = 0; row < size; row++)
        for (int below = row + 1; below <= std::min(row + half, size - 1); below++) {
            double* band = &bands[(size_t)below * width];
            const double* from = &bands[(size_t)row * width];
            const double factor = band[half + row - below] / from[half];
            for (int q = 0; q <= half; q++) band[half + row - below + q] -= factor * from[half + q];
            for (int n = 0; n < n_functions; n++)
                right[(size_t)below * n_functions + n] -=
                    factor * right[(size_t)row * n_functions + n];
        }
    for (int row = size - 1; row >= 0; row--) {
        const double* band = &bands[(size_t)row * width];
        for (int n = 0; n < n_functions; n++) {
            double sum = right[(size_t)row * n_functions + n];
            for (int q = 1; q <= half && row + q < size; q++)
                sum -= band[half + q] * right[(size_t)(row + q) * n_functions + n];
            right[(size_t)row * n_functions + n] = sum / band[half];
        }
    }
    table.coefficients.assign(right.begin() + (size_t)beyond * n_functions,
                              right.begin() + (size_t)(beyond + rows) * n_functions);
    return table;
}

// The error of a table when it is evaluated in a precision; see SplineTable::error.
template <class Real>
double error_of(const SplineTable& table, const RadialFunctions& functions) {
    const int n_functions = (int)functions.centers.size(), order = table.degree + 1;
    const double places[] = {0.07, 0.29, 0.5, 0.73, 0.96};
    std::vector<double> largest(n_functions), steepest(n_functions), wrong(n_functions),
        wrong_slope(n_functions);
    std::vector<Real> value(order), slope(order);
    for (int bin = 0; bin < table.knots; bin++)
        for (double t : places) {
            basis<Real>(table.degree, (Real)t, value.data(), slope.data());
            const double x = table.start + table.spacing * (bin + (double)(Real)t);
            for (int n = 0; n < n_functions; n++) {
                Real sum = 0, slopes = 0;
                for (int q = 0; q < order; q++) {
                    const Real c = (Real)table.coefficients[(size_t)(bin + q) * n_functions + n];
                    sum += value[q] * c;
                    slopes += slope[q] * c;
                }
                const double exact = gaussian(functions, n, x);
                const double exact_slope = gaussian_slope(functions, n, x);
                largest[n] = std::max(largest[n], std::fabs(exact));
                steepest[n] = std::max(steepest[n], std::fabs(exact_slope));
                wrong[n] = std::max(wrong[n], std::fabs(sum - exact));
                wrong_slope[n] =
                    std::max(wrong_slope[n], std::fabs(slopes / table.spacing - exact_slope));
            }
        }
    double error = 0;
    for (int n = 0; n < n_functions; n++) {
        // Functions that are nearly zero everywhere do not need relative precision.
        error = std::max(error, wrong[n] / std::max(largest[n], 1e-3));
        error = std::max(error, wrong_slope[n] / std::max(steepest[n], 1e-2));
    }
    return error;
}

}  // namespace

SplineTable tabulate(const RadialFunctions& functions, int degree, bool single) {
    SplineTable best;
    best.error = HUGE_VAL;
    for (int knots = FEWEST_KNOTS[single]; knots <= MOST_KNOTS[single]; knots += knots / 4) {
        SplineTable table = interpolate(functions, degree, knots);
        table.error =
            single ? error_of<float>(table, functions) : error_of<double>(table, functions);
        // More knots interpolate better, but leave fewer digits for slopes: once the error has
        // passed its minimum, it only grows. Comparisons are false for NaN.
        const bool is_past_minimum =
            best.error <= LARGEST_ERROR[single] && table.error > 1.5 * best.error;
        if (table.error < best.error) best = std::move(table);
        if (is_past_minimum || best.error <= TARGET_ERROR[single]) break;
    }
    if (!(best.error <= LARGEST_ERROR[single])) {
        char text[240];
        snprintf(text, sizeof text,
                 "the radial functions are too narrow for the engine's tables: their error is "
                 "%.0e, and must be at most %.0e; run this student in another backend",
                 best.error, LARGEST_ERROR[single]);
        throw Error(ASE_STUDENT_UNSUPPORTED, text);
    }
    return best;
}

}  // namespace ase
