// Building of neighbor lists; their pairs come from neighbors_search.cpp.
#include "neighbors.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>

#include "error.h"

namespace ase {
namespace {

// Disjoint sets of the indices 0 to n - 1.
class DisjointSets {
public:
    explicit DisjointSets(size_t n) : parents_(n) {
        std::iota(parents_.begin(), parents_.end(), 0);
    }
    // The smallest index of the set that holds an index.
    int find(int q) {
        while (parents_[q] != q) q = parents_[q] = parents_[parents_[q]];
        return q;
    }
    // The smaller index represents both, so that the order of the calls does not matter.
    void join(int a, int b) {
        a = find(a), b = find(b);
        parents_[std::max(a, b)] = std::min(a, b);
    }

private:
    std::vector<int> parents_;
};

}  // namespace

Matrix cell_of(const StructuresView& structures, int64_t s) {
    Matrix cell{};
    if (structures.cells) std::copy_n(structures.cells + 9 * s, 9, cell.begin());
    return cell;
}

std::array<bool, 3> pbc_of(const StructuresView& structures, int64_t s) {
    std::array<bool, 3> pbc{};
    for (int a = 0; a < 3; a++) pbc[a] = structures.pbc && structures.pbc[3 * s + a];
    return pbc;
}

void NeighborList::build(const StructuresView& structures, const std::vector<int>& species,
                         const std::vector<double>& radii, int n_present, double cutoff,
                         double skin, int64_t atoms_per_group) {
    const int64_t n = structures.n_total;
    if (n > MOST_ATOMS) invalid("there are too many atoms");
    order_.clear();
    skin_ = skin;
    n_present_ = n_present;
    species_of_atom_ = species;
    radii_ = radii;
    shifts_.clear();
    wraps_.assign(3 * n, 0.0);
    is_wrapped_ = false;
    boxes_.assign(structures.n_structures, Box());
    half_pairs_.clear();
    rank_order_.resize(n);
    translations_.assign(4, 0.0);
    int64_t first = 0;
    for (int64_t s = 0; s < structures.n_structures; s++) {
        Box& box = boxes_[s];
        box.first_atom = first;
        box.n_atoms = structures.n_atoms[s];
        box.pbc = pbc_of(structures, s);
        box.cell = cell_of(structures, s);
        for (int a = 0; a < 3; a++)
            for (int c = 0; c < 3; c++)
                if (box.pbc[a] && !std::isfinite(box.cell[3 * a + c]))
                    invalid("the cell has components that are not finite");
        box.frame = box.current_frame = frame_of(box.cell, box.pbc);
        find_pairs(structures, box, cutoff + skin);
        first += box.n_atoms;
    }
    built_positions_.assign(structures.positions, structures.positions + 3 * n);
    sort_atoms(atoms_per_group);
    make_rows(n_present);
    for (const Box& box : boxes_) translate_images(box);
    copy_positions(structures);
}

// Sort atoms into groups of molecules that do not interact with other groups; within a group, keep
// molecules together, and their atoms in the order of the search.
void NeighborList::sort_atoms(int64_t atoms_per_group) {
    const int64_t n = (int64_t)rank_order_.size();
    DisjointSets sets(n);
    for (const HalfPair& pair : half_pairs_)
        if (pair.first != pair.second) sets.join(pair.first, pair.second);
    std::vector<int64_t> sizes(n);
    for (int64_t r = 0; r < n; r++) sizes[sets.find((int)r)]++;
    // Groups in the order of their first atoms.
    std::vector<int> group_of_set(n);
    std::vector<int64_t> group_sizes;
    int open = -1;
    for (int64_t r = 0; r < n; r++) {
        if (sets.find((int)r) != r) continue;
        if (open < 0 || group_sizes[open] + sizes[r] > std::max(atoms_per_group, sizes[r])) {
            group_sizes.push_back(0);
            open = (int)group_sizes.size() - 1;
        }
        group_of_set[r] = open;
        group_sizes[open] += sizes[r];
    }
    groups_.assign(1, 0);
    for (int64_t size : group_sizes) groups_.push_back(groups_.back() + size);
    std::vector<int64_t> set_starts(n), cursors(groups_.begin(), groups_.end() - 1);
    for (int64_t r = 0; r < n; r++) {
        if (sets.find((int)r) != r) continue;
        int64_t& cursor = cursors[group_of_set[r]];
        set_starts[r] = cursor;
        cursor += sizes[r];
    }
    std::vector<int> place_of_rank(n);
    order_.resize(n);
    for (int64_t r = 0; r < n; r++) {
        place_of_rank[r] = (int)set_starts[sets.find((int)r)]++;
        order_[place_of_rank[r]] = rank_order_[r];
    }
    for (HalfPair& pair : half_pairs_) {
        pair.first = place_of_rank[pair.first];
        pair.second = place_of_rank[pair.second];
    }
    species_.resize(n);
    for (int64_t p = 0; p < n; p++) species_[p] = species_of_atom_[order_[p]];
    box_of_.assign(n, 0);
    if (boxes_.size() > 1) {
        std::vector<int> box_of_atom(n);
        for (size_t b = 0; b < boxes_.size(); b++)
            std::fill_n(box_of_atom.begin() + boxes_[b].first_atom, boxes_[b].n_atoms, (int)b);
        for (int64_t p = 0; p < n; p++) box_of_[p] = box_of_atom[order_[p]];
    }
}

// Write both directions of every pair into rows, which are sorted by the element of the neighbor.
void NeighborList::make_rows(int n_present) {
    const int64_t n = (int64_t)order_.size(), width = n_present + 1;
    segments_.assign(n * width, 0);
    for (const HalfPair& pair : half_pairs_) {
        segments_[pair.first * width + species_[pair.second] + 1]++;
        segments_[pair.second * width + species_[pair.first] + 1]++;
    }
    rows_.assign(n + 1, 0);
    for (int64_t i = 0; i < n; i++) {
        int* segments = &segments_[i * width];
        for (int e = 0; e < n_present; e++) segments[e + 1] += segments[e];
        rows_[i + 1] = rows_[i] + segments[n_present];
    }
    neighbors_.resize(rows_[n]);
    images_.resize(rows_[n]);
    reverse_.resize(rows_[n]);
    std::vector<int> cursors(segments_);
    for (const HalfPair& pair : half_pairs_) {
        const int64_t i = pair.first, j = pair.second;
        const int place_in_i = cursors[i * width + species_[j]]++;
        const int place_in_j = cursors[j * width + species_[i]]++;
        const Box& box = boxes_[box_of_[i]];
        // Images are numbered symmetrically: the opposite image is as far from the last number as
        // this one is from the first.
        int opposite = 0;
        if (box.reach[0] || box.reach[1] || box.reach[2])
            opposite = 2 * box.image_of(0, 0, 0) - pair.image;
        neighbors_[rows_[i] + place_in_i] = (int)j;
        images_[rows_[i] + place_in_i] = pair.image;
        reverse_[rows_[i] + place_in_i] = place_in_j;
        neighbors_[rows_[j] + place_in_j] = (int)i;
        images_[rows_[j] + place_in_j] = opposite;
        reverse_[rows_[j] + place_in_j] = place_in_i;
    }
    half_pairs_ = std::vector<HalfPair>();
}

// Compute the translations of a box's images from its current frame.
void NeighborList::translate_images(const Box& box) {
    if (!box.first_image) return;
    for (int a = -box.reach[0]; a <= box.reach[0]; a++)
        for (int b = -box.reach[1]; b <= box.reach[1]; b++)
            for (int c = -box.reach[2]; c <= box.reach[2]; c++) {
                const Vector shift = times({(double)a, (double)b, (double)c}, box.current_frame);
                double* to = &translations_[4 * (size_t)box.image_of(a, b, c)];
                for (int q = 0; q < 3; q++) to[q] = shift[q];
            }
}

// Copy positions in the order of the list, moved by the same whole cells as when it was built.
void NeighborList::copy_positions(const StructuresView& structures) {
    const int64_t n = n_atoms();
    positions_.resize(4 * n);
    for (int64_t p = 0; p < n; p++) {
        const int64_t i = order_[p];
        const double* from = structures.positions + 3 * i;
        double* to = &positions_[4 * p];
        for (int c = 0; c < 3; c++) to[c] = from[c];
        if (is_wrapped_) {
            const Matrix& frame = boxes_[box_of_[p]].current_frame;
            for (int a = 0; a < 3; a++)
                if (wraps_[3 * i + a] != 0)
                    for (int c = 0; c < 3; c++) to[c] -= wraps_[3 * i + a] * frame[3 * a + c];
        }
        to[3] = radii_[i];
    }
}

void NeighborList::fill(ListView& view) const {
    view.n_atoms = n_atoms();
    view.n_present = n_present_;
    view.species = species_.data();
    view.rows = rows_.data();
    view.segments = segments_.data();
    view.neighbors = neighbors_.data();
    view.images = images_.data();
    view.reverse = reverse_.data();
    view.positions = positions_.data();
    view.translations = translations_.data();
}

}  // namespace ase
