// Vectors, matrices and cells in three dimensions.
#pragma once

#include <array>
#include <cmath>

namespace ase {

using Vector = std::array<double, 3>;
using Matrix = std::array<double, 9>;  // row by row; the rows of a cell are its vectors

// Å, as in ase_student/neighbors.py: larger coordinates lose digits of the distances.
constexpr double LARGEST_COORDINATE = 1e8;

inline Vector row(const Matrix& m, int a) { return {m[3 * a], m[3 * a + 1], m[3 * a + 2]}; }

inline double dot(const Vector& a, const Vector& b) {
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
}

// x m, the product of a row vector and a matrix.
inline Vector times(const Vector& x, const Matrix& m) {
    Vector y{};
    for (int a = 0; a < 3; a++)
        for (int c = 0; c < 3; c++) y[c] += x[a] * m[3 * a + c];
    return y;
}

inline Matrix product(const Matrix& a, const Matrix& b) {
    Matrix c{};
    for (int i = 0; i < 3; i++)
        for (int k = 0; k < 3; k++)
            for (int j = 0; j < 3; j++) c[3 * i + j] += a[3 * i + k] * b[3 * k + j];
    return c;
}

// Compute the inverse of a cell; its columns are normal to the faces. False if there is none.
bool inverse(const Matrix& m, Matrix& result);

// Distances between opposite faces of a cell, from its inverse.
Vector heights(const Matrix& inverted);

// The cell, with its vectors along open axes replaced by unit vectors that are orthogonal to the
// periodic ones. Throws Error(ASE_STUDENT_INVALID) if the periodic vectors are zero or (nearly)
// linearly dependent.
Matrix frame_of(const Matrix& cell, const std::array<bool, 3>& pbc);

// The smallest singular value of a deformation: the smallest factor by which it changes a length.
double smallest_stretch(const Matrix& deformation);

}  // namespace ase
