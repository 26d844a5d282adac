#include "cell.h"

#include <algorithm>
#include <string>
#include <vector>

#include "error.h"

namespace ase {
namespace {

// Å, as in ase_student/neighbors.py.
constexpr double SMALLEST_CELL_HEIGHT = 0.1;

Vector cross(const Vector& a, const Vector& b) {
    return {a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]};
}
Vector scaled(const Vector& a, double s) { return {a[0] * s, a[1] * s, a[2] * s}; }
Vector unit(const Vector& a) { return scaled(a, 1.0 / std::sqrt(dot(a, a))); }

}  // namespace

bool inverse(const Matrix& m, Matrix& result) {
    const Vector a = row(m, 0), b = row(m, 1), c = row(m, 2);
    const Vector bc = cross(b, c), ca = cross(c, a), ab = cross(a, b);
    const double volume = dot(a, bc);
    if (!(std::fabs(volume) > 0) || !std::isfinite(1.0 / volume)) return false;
    for (int q = 0; q < 3; q++) {
        result[3 * q] = bc[q] / volume;
        result[3 * q + 1] = ca[q] / volume;
        result[3 * q + 2] = ab[q] / volume;
    }
    return true;
}

Vector heights(const Matrix& inverted) {
    Vector h{};
    for (int a = 0; a < 3; a++) {
        const double x = inverted[a], y = inverted[3 + a], z = inverted[6 + a];
        h[a] = 1.0 / std::sqrt(x * x + y * y + z * z);
    }
    return h;
}

Matrix frame_of(const Matrix& cell, const std::array<bool, 3>& pbc) {
    Matrix frame{};
    std::vector<int> periodic, open;
    for (int a = 0; a < 3; a++) (pbc[a] ? periodic : open).push_back(a);
    auto set = [&](int a, const Vector& v) {
        for (int c = 0; c < 3; c++) frame[3 * a + c] = v[c];
    };
    for (int a : periodic) {
        const Vector v = row(cell, a);
        if (dot(v, v) == 0)
            invalid("axis " + std::to_string(a) + " is periodic but its cell vector is zero");
        set(a, v);
    }
    if (periodic.empty()) {
        for (int a = 0; a < 3; a++) frame[4 * a] = 1;
    } else if (periodic.size() == 1) {
        const Vector v = unit(row(cell, periodic[0]));
        int smallest = 0;
        for (int c = 1; c < 3; c++)
            if (std::fabs(v[c]) < std::fabs(v[smallest])) smallest = c;
        Vector axis{};
        axis[smallest] = 1;
        const Vector first = unit(cross(v, axis));
        set(open[0], first);
        set(open[1], cross(v, first));
    } else if (periodic.size() == 2) {
        const Vector normal = cross(row(cell, periodic[0]), row(cell, periodic[1]));
        if (!(dot(normal, normal) > 0)) invalid("the vectors of the periodic axes are parallel");
        set(open[0], unit(normal));
    }
    Matrix inverted;
    double thickness = 0;
    if (inverse(frame, inverted)) {
        const Vector h = heights(inverted);
        thickness = std::min({h[0], h[1], h[2]});
    }
    if (!periodic.empty() && !(thickness >= SMALLEST_CELL_HEIGHT))
        invalid("the cell vectors of the periodic axes are linearly dependent or nearly so");
    return frame;
}

// By Jacobi rotations of FᵀF, whose eigenvalues are the squares of the singular values.
double smallest_stretch(const Matrix& f) {
    double s[3][3] = {};
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < 3; j++)
            for (int k = 0; k < 3; k++) s[i][j] += f[3 * k + i] * f[3 * k + j];
    for (int sweep = 0; sweep < 30; sweep++) {
        const double off_diagonal =
            std::fabs(s[0][1]) + std::fabs(s[0][2]) + std::fabs(s[1][2]);
        if (off_diagonal < 1e-300) break;
        for (int p = 0; p < 2; p++)
            for (int q = p + 1; q < 3; q++) {
                if (s[p][q] == 0) continue;
                const double theta = (s[q][q] - s[p][p]) / (2 * s[p][q]);
                const double t = (theta >= 0 ? 1.0 : -1.0) /
                                 (std::fabs(theta) + std::sqrt(theta * theta + 1));
                const double c = 1 / std::sqrt(t * t + 1), sine = t * c;
                for (int k = 0; k < 3; k++) {
                    const double kp = s[k][p], kq = s[k][q];
                    s[k][p] = c * kp - sine * kq;
                    s[k][q] = sine * kp + c * kq;
                }
                for (int k = 0; k < 3; k++) {
                    const double pk = s[p][k], qk = s[q][k];
                    s[p][k] = c * pk - sine * qk;
                    s[q][k] = sine * pk + c * qk;
                }
            }
    }
    return std::sqrt(std::max(0.0, std::min({s[0][0], s[1][1], s[2][2]})));
}

}  // namespace ase
