// Neighbor lists, in the order in which atoms are computed.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "network.h"

namespace ase {

using Matrix = std::array<double, 9>;

// Structures that don't see each other, as ase_student_structures has them, checked.
struct StructuresView {
    int64_t n_structures, n_total;
    const int64_t* n_atoms;
    const double* positions;
    const double* cells;   // or null
    const uint8_t* pbc;    // or null
};

// A list and the structures it was built for. Atoms are sorted: those that see each other are
// neighbors in memory, and separate molecules form groups of a wanted size.
class NeighborList {
public:
    // Build for atoms whose elements are `species`, indices of `n_present` elements.
    // Throws Error(ASE_STUDENT_INVALID).
    void build(const StructuresView& structures, const std::vector<int>& species,
               const std::vector<double>& radii, int n_present, double cutoff, double skin,
               int64_t atoms_per_group);

    // A list from outside; atoms keep their order, and form one group.
    void set(int64_t n_atoms, const std::vector<int>& species, const std::vector<double>& radii,
             int n_present, const int64_t* rows, const int64_t* neighbors, const double* shifts);
    // Translate the images of a list from outside by shifts in another cell.
    void follow_cell(const Matrix& cell);

    // Take new positions of the same atoms. False if some pair that is not in the list may have
    // come within the cutoff: it must be built again.
    bool follow(const StructuresView& structures, double cutoff);
    // Take positions without any check (of a list from outside).
    void take_positions(const double* positions);

    int64_t n_atoms() const { return (int64_t)order_.size(); }
    int64_t n_places() const { return rows_.empty() ? 0 : rows_.back(); }
    // Atom of the structures that stands at each place of the order.
    const std::vector<int64_t>& order() const { return order_; }
    // Where groups start, and the number of atoms at the end.
    const std::vector<int64_t>& groups() const { return groups_; }
    double skin() const { return skin_; }
    // Fill in what a view has of a list.
    void fill(ListView& view) const;

private:
    struct Box {
        Matrix frame{}, cell{};       // when the list was built, and at the last step
        Matrix followed_frame{};
        std::array<bool, 3> pbc{};
        int64_t first_atom = 0, n_atoms = 0;
        int first_image = 0;
        std::array<int, 3> reach{};   // images in each direction
    };
    struct HalfPair { int first, second, image; };

    void find_pairs(const StructuresView& structures, size_t box_index, double radius);
    void sort_atoms(int64_t atoms_per_group);
    void make_rows(int n_present);
    void translate(const Box& box);
    bool is_safe(const Box& box, const double* positions, double cutoff) const;
    void place(const StructuresView& structures);
    int image_of(const Box& box, int a, int b, int c) const;

    double skin_ = 0;
    std::vector<Box> boxes_;
    std::vector<int> box_of_;                  // by place
    std::vector<int64_t> order_, groups_;
    std::vector<double> built_positions_;      // (n, 3) of the structures
    std::vector<double> wraps_;                // (n, 3) cells each atom was moved by, by atom
    bool is_wrapped_ = false;
    std::vector<HalfPair> half_pairs_;
    std::vector<int64_t> rank_order_;          // atoms as the search has sorted them
    std::vector<int> species_;                 // by place
    std::vector<double> radii_;                // by atom
    std::vector<int64_t> rows_;
    std::vector<int> segments_, neighbors_, images_, reverse_;
    std::vector<double> positions_, translations_, shifts_;
    int n_present_ = 0;
    std::vector<int> species_of_atom_;
};

}  // namespace ase
