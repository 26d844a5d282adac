// Whether a neighbor list can be kept while atoms and cells change.
#include <algorithm>
#include <cmath>

#include "neighbors.h"

namespace ase {

// The rule is that of ase_student.neighbors.NeighborList. When the list was built, a pair that it
// lacks had a vector r0 of at least cutoff + skin. The cell has been deformed by F since, and its
// atoms have moved by d_i and d_j beside that: the vector is now r0 F + d_j - d_i, which is longer
// than s (cutoff + skin) - |d_j - d_i|, with s the smallest stretch of F.
bool NeighborList::is_safe(const Box& box, const double* positions, double cutoff) const {
    double stretch = 1.0;
    Matrix deformation{1, 0, 0, 0, 1, 0, 0, 0, 1};
    const bool is_deformed = box.current_frame != box.frame;
    if (is_deformed) {
        Matrix inverted;
        inverse(box.frame, inverted);
        deformation = product(inverted, box.current_frame);
        stretch = smallest_stretch(deformation);
    }
    const double allowed = stretch * (cutoff + skin_) - cutoff;
    if (!(allowed >= 0)) return false;
    const double* built = built_positions_.data() + 3 * box.first_atom;
    const double* now = positions + 3 * box.first_atom;
    auto displacement = [&](int64_t i) -> Vector {
        Vector from{built[3 * i], built[3 * i + 1], built[3 * i + 2]};
        if (is_deformed) from = times(from, deformation);
        return {now[3 * i] - from[0], now[3 * i + 1] - from[1], now[3 * i + 2] - from[2]};
    };
    Vector mean{};
    bool is_near = true;
    for (int64_t i = 0; i < box.n_atoms; i++) {
        const Vector d = displacement(i);
        const double squared = dot(d, d);
        is_near = is_near && 4 * squared <= allowed * allowed;  // false for NaN
        for (int c = 0; c < 3; c++) mean[c] += d[c];
    }
    if (is_near) return true;
    // A translation of all atoms changes no pair: compare again without it, with the two largest
    // displacements. Atoms that were moved too far for exact distances are refused where the list
    // is built.
    double largest = 0, second_largest = 0;
    for (int c = 0; c < 3; c++) mean[c] /= (double)box.n_atoms;
    for (int64_t i = 0; i < box.n_atoms; i++) {
        for (int c = 0; c < 3; c++)
            if (!(std::fabs(now[3 * i + c]) < LARGEST_COORDINATE)) return false;
        const Vector d = displacement(i);
        const Vector own{d[0] - mean[0], d[1] - mean[1], d[2] - mean[2]};
        const double length = std::sqrt(dot(own, own));
        if (!(length <= allowed)) return false;
        if (length > largest) second_largest = largest, largest = length;
        else second_largest = std::max(second_largest, length);
    }
    return largest + second_largest <= allowed;
}

bool NeighborList::update(const StructuresView& structures, double cutoff) {
    if (order_.empty() || structures.n_total != n_atoms() ||
        structures.n_structures != (int64_t)boxes_.size() || !(skin_ > 0))
        return false;
    for (size_t b = 0; b < boxes_.size(); b++)
        if (boxes_[b].n_atoms != structures.n_atoms[b] || boxes_[b].pbc != pbc_of(structures, b))
            return false;
    for (size_t b = 0; b < boxes_.size(); b++) {
        Box& box = boxes_[b];
        const Matrix cell = cell_of(structures, b);
        if (cell != box.cell) {
            Matrix frame = box.frame;
            for (int q = 0; q < 9; q++) {
                if (!box.pbc[q / 3]) continue;
                if (!(std::fabs(cell[q]) < LARGEST_COORDINATE)) return false;
                frame[q] = cell[q];
            }
            box.cell = cell;
            box.current_frame = frame;
            translate_images(box);
        }
        if (!is_safe(box, structures.positions, cutoff)) return false;
    }
    copy_positions(structures);
    return true;
}

}  // namespace ase
