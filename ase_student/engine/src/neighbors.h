// Neighbor lists, in the order in which atoms are computed.
//
// neighbors.cpp builds a list, with the search for pairs in neighbors_search.cpp;
// neighbors_reuse.cpp decides whether a list can be kept for new positions; and
// neighbors_external.cpp takes lists that a caller has built.
//
// A "place" is the index of an entry of the list, one direction of one pair, or of an atom in the
// list's order; a "rank" is the index of an atom in the order of the search.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "cell.h"
#include "network.h"

namespace ase {

// More atoms than this are refused.
constexpr int64_t MOST_ATOMS = 1 << 30;

// Structures that do not interact, as in ase_student_structures, checked.
struct StructuresView {
    int64_t n_structures, n_total;
    const int64_t* n_atoms;
    const double* positions;
    const double* cells;   // or null
    const uint8_t* pbc;    // or null
};

Matrix cell_of(const StructuresView& structures, int64_t s);
std::array<bool, 3> pbc_of(const StructuresView& structures, int64_t s);

// The cell of one structure, and the images of it that its pairs reach.
struct Box {
    Matrix frame{}, cell{};       // when the list was built, and at the last step
    Matrix current_frame{};       // the frame at the last step
    std::array<bool, 3> pbc{};
    int64_t first_atom = 0, n_atoms = 0;
    int first_image = 0;
    std::array<int, 3> reach{};   // number of images in each direction

    // The number of the image that is translated by these numbers of cell vectors.
    int image_of(int a, int b, int c) const {
        return first_image +
               ((a + reach[0]) * (2 * reach[1] + 1) + (b + reach[1])) * (2 * reach[2] + 1) + c +
               reach[2];
    }
};

// One direction of a pair; `image` is the number of the second atom's image.
struct HalfPair { int first, second, image; };

// A list and the structures that it was built for. Atoms are sorted: neighbors are close to each
// other in memory, and molecules that do not interact form groups of a requested size.
class NeighborList {
public:
    // Build a list; `species` are the atoms' elements, as indices of `n_present` elements.
    // Throws Error(ASE_STUDENT_INVALID).
    void build(const StructuresView& structures, const std::vector<int>& species,
               const std::vector<double>& radii, int n_present, double cutoff, double skin,
               int64_t atoms_per_group);

    // Take an external list; atoms keep their order, and form one group.
    // Throws Error(ASE_STUDENT_INVALID), and keeps the previous list then.
    void set(int64_t n_atoms, const std::vector<int>& species, const std::vector<double>& radii,
             int n_present, const int64_t* rows, const int64_t* neighbors, const double* shifts);
    // Set the cell in which the shifts of an external list are given.
    void set_shift_cell(const Matrix& cell);

    // Take new positions of the same atoms. Returns false if some pair that is not in the list may
    // have come within the cutoff: the list must be built again.
    bool update(const StructuresView& structures, double cutoff);
    // Take positions for an external list, without that check.
    void take_positions(const double* positions);

    int64_t n_atoms() const { return (int64_t)order_.size(); }
    int64_t n_places() const { return rows_.empty() ? 0 : rows_.back(); }
    // Index in the structures of the atom at each place of the order.
    const std::vector<int64_t>& order() const { return order_; }
    // Where groups start, and the number of atoms at the end.
    const std::vector<int64_t>& groups() const { return groups_; }
    double skin() const { return skin_; }
    // Fill in those fields of a view that describe a list.
    void fill(ListView& view) const;

private:
    void find_pairs(const StructuresView& structures, Box& box, double radius);
    void number_images(Box& box, const std::array<int64_t, 3>& bins,
                       const std::array<int64_t, 3>& search);
    void sort_atoms(int64_t atoms_per_group);
    void make_rows(int n_present);
    void translate_images(const Box& box);
    bool is_safe(const Box& box, const double* positions, double cutoff) const;
    void copy_positions(const StructuresView& structures);

    double skin_ = 0;
    std::vector<Box> boxes_;
    std::vector<int> box_of_;                  // by place
    std::vector<int64_t> order_, groups_;
    std::vector<double> built_positions_;      // (n, 3), as given when the list was built
    std::vector<double> wraps_;                // (n, 3) cells each atom was moved by, by atom
    bool is_wrapped_ = false;
    std::vector<HalfPair> half_pairs_;
    std::vector<int64_t> rank_order_;          // atoms in the order of the search
    std::vector<int> species_;                 // by place
    std::vector<double> radii_;                // by atom
    std::vector<int64_t> rows_;
    std::vector<int> segments_, neighbors_, images_, reverse_;
    std::vector<double> positions_, translations_;
    std::vector<double> shifts_;               // (n_images, 3), distinct ones of an external list
    int n_present_ = 0;
    std::vector<int> species_of_atom_;
};

}  // namespace ase
