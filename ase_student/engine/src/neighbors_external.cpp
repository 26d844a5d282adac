// Neighbor lists that a caller has built.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>
#include <utility>

#include "error.h"
#include "neighbors.h"

namespace ase {
namespace {

constexpr int64_t MOST_NEIGHBORS = (1 << 18) - 1;

void check_list(int64_t n_atoms, const int64_t* rows, const int64_t* neighbors,
                const double* shifts) {
    if (n_atoms > MOST_ATOMS) invalid("there are too many atoms");
    if (rows[0] != 0) invalid("rows must start at 0");
    for (int64_t i = 0; i < n_atoms; i++) {
        if (rows[i + 1] < rows[i]) invalid("rows must not decrease");
        if (rows[i + 1] - rows[i] > MOST_NEIGHBORS) invalid("an atom has too many neighbors");
    }
    for (int64_t p = 0; p < rows[n_atoms]; p++) {
        if (neighbors[p] < 0 || neighbors[p] >= n_atoms)
            invalid("neighbor " + std::to_string(neighbors[p]) + " is not the index of an atom");
        for (int c = 0; shifts && c < 3; c++)
            if (!std::isfinite(shifts[3 * p + c])) invalid("a shift is not finite");
    }
}

// The distinct shifts of a list, sorted: a shift's index is the number of its image.
class Shifts {
public:
    Shifts(const double* shifts, int64_t n_places) : shifts_(shifts), distinct_{Vector{0, 0, 0}} {
        for (int64_t p = 0; p < n_places; p++) distinct_.push_back(shift(p, 1));
        std::sort(distinct_.begin(), distinct_.end());
        distinct_.erase(std::unique(distinct_.begin(), distinct_.end()), distinct_.end());
    }

    const std::vector<Vector>& distinct() const { return distinct_; }
    int image(int64_t place) const { return index_of(shift(place, 1)); }
    // The image with the opposite shift, -1 if no pair has it.
    int opposite_image(int64_t place) const { return index_of(shift(place, -1)); }

private:
    // Adding 0.0 makes -0.0 the same as 0.0.
    Vector shift(int64_t place, double sign) const {
        if (!shifts_) return {0, 0, 0};
        const double* s = shifts_ + 3 * place;
        return {sign * s[0] + 0.0, sign * s[1] + 0.0, sign * s[2] + 0.0};
    }
    int index_of(const Vector& v) const {
        const auto entry = std::lower_bound(distinct_.begin(), distinct_.end(), v);
        const bool is_known = entry != distinct_.end() && *entry == v;
        return is_known ? (int)(entry - distinct_.begin()) : -1;
    }

    const double* shifts_;  // (n_places, 3), or null
    std::vector<Vector> distinct_;
};

// The entries of a list, those of each row sorted by element, atom and image of the neighbor.
struct SortedList {
    std::vector<int64_t> rows;
    std::vector<int> segments, neighbors, images;
    std::vector<int64_t> given_places;  // place of each entry in the list as it was given
};

SortedList sort_rows(int64_t n_atoms, int n_present, const std::vector<int>& species,
                     const int64_t* rows, const int64_t* neighbors, const Shifts& shifts) {
    const int64_t n_places = rows[n_atoms], width = n_present + 1;
    SortedList list{{rows, rows + n_atoms + 1},
                    std::vector<int>(n_atoms * width),
                    std::vector<int>(n_places),
                    std::vector<int>(n_places),
                    std::vector<int64_t>(n_places)};
    for (int64_t i = 0; i < n_atoms; i++) {
        std::vector<std::array<int64_t, 4>> keys;
        for (int64_t p = rows[i]; p < rows[i + 1]; p++)
            keys.push_back({species[neighbors[p]], neighbors[p], shifts.image(p), p});
        std::sort(keys.begin(), keys.end());
        int* segments = &list.segments[i * width];
        for (size_t q = 0; q < keys.size(); q++) {
            segments[keys[q][0] + 1]++;
            list.neighbors[rows[i] + q] = (int)keys[q][1];
            list.images[rows[i] + q] = (int)keys[q][2];
            list.given_places[rows[i] + q] = keys[q][3];
            if (q && keys[q][1] == keys[q - 1][1] && keys[q][2] == keys[q - 1][2])
                invalid("atom " + std::to_string(i) + " has the same neighbor twice");
        }
        for (int e = 0; e < n_present; e++) segments[e + 1] += segments[e];
    }
    return list;
}

// For every entry, the place of the pair's other direction within the neighbor's row.
std::vector<int> reverse_places(const SortedList& list, int n_present,
                                const std::vector<int>& species, const Shifts& shifts) {
    const int64_t n_atoms = (int64_t)list.rows.size() - 1, width = n_present + 1;
    const std::vector<int64_t>& rows = list.rows;
    std::vector<int> reverse(list.neighbors.size());
    for (int64_t i = 0; i < n_atoms; i++)
        for (int64_t q = rows[i]; q < rows[i + 1]; q++) {
            const int j = list.neighbors[q];
            reverse[q] = 0;
            // A ghost: Engine::set_list refuses other atoms that are neighbors and have none.
            if (rows[j + 1] == rows[j]) continue;
            const int opposite = shifts.opposite_image(list.given_places[q]);
            const auto begin = rows[j] + list.segments[j * width + species[i]];
            const auto end = rows[j] + list.segments[j * width + species[i] + 1];
            // Bisection: entries of one element are sorted by atom and image.
            int64_t low = begin, high = end;
            while (low < high) {
                const int64_t middle = (low + high) / 2;
                if (std::make_pair(list.neighbors[middle], list.images[middle]) <
                    std::make_pair((int)i, opposite))
                    low = middle + 1;
                else
                    high = middle;
            }
            if (low == end || list.neighbors[low] != i || list.images[low] != opposite)
                invalid("atom " + std::to_string(j) + " is a neighbor of atom " +
                        std::to_string(i) + ", but not the other way round");
            reverse[q] = (int)(low - rows[j]);
        }
    return reverse;
}

}  // namespace

void NeighborList::set(int64_t n_atoms, const std::vector<int>& species,
                       const std::vector<double>& radii, int n_present, const int64_t* rows,
                       const int64_t* neighbors, const double* shifts) {
    check_list(n_atoms, rows, neighbors, shifts);
    const Shifts images(shifts, rows[n_atoms]);
    SortedList list = sort_rows(n_atoms, n_present, species, rows, neighbors, images);
    reverse_ = reverse_places(list, n_present, species, images);
    rows_ = std::move(list.rows);
    segments_ = std::move(list.segments);
    neighbors_ = std::move(list.neighbors);
    images_ = std::move(list.images);
    species_ = species;
    species_of_atom_ = species;
    radii_ = radii;
    n_present_ = n_present;
    boxes_.clear();
    order_.resize(n_atoms);
    std::iota(order_.begin(), order_.end(), 0);
    groups_ = {0, n_atoms};
    shifts_.clear();
    for (const Vector& v : images.distinct()) shifts_.insert(shifts_.end(), v.begin(), v.end());
    set_shift_cell({1, 0, 0, 0, 1, 0, 0, 0, 1});
    positions_.assign(4 * n_atoms, 0.0);
}

void NeighborList::set_shift_cell(const Matrix& cell) {
    const size_t n = shifts_.size() / 3;
    translations_.assign(4 * n, 0.0);
    for (size_t q = 0; q < n; q++) {
        const Vector v = times({shifts_[3 * q], shifts_[3 * q + 1], shifts_[3 * q + 2]}, cell);
        for (int c = 0; c < 3; c++) translations_[4 * q + c] = v[c];
    }
}

void NeighborList::take_positions(const double* positions) {
    for (int64_t i = 0; i < n_atoms(); i++) {
        for (int c = 0; c < 3; c++) {
            if (!(std::fabs(positions[3 * i + c]) < LARGEST_COORDINATE))
                invalid("position of atom " + std::to_string(i) +
                        " is not finite or beyond 1e8 Å");
            positions_[4 * i + c] = positions[3 * i + c];
        }
        positions_[4 * i + 3] = radii_[i];
    }
}

}  // namespace ase
