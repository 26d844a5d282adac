// Bonds and contacts that were rare in training (ase_student_set_usual).
#pragma once

#include <cstdint>
#include <vector>

#include "../ase_student.h"
#include "network.h"

namespace ase {

// Values of `gaps`, as in ase_student.h.
enum Rarity { USUAL = 0, RARE = 1, RARE_NONBONDED = 2 };

// What was common in training, by the elements of a student, checked.
struct Usual {
    Usual() = default;
    // Throws Error(ASE_STUDENT_INVALID).
    Usual(const ase_student_usual& from, size_t n_elements);

    bool is_known() const { return !environments.empty() || n_bins > 0; }

    size_t n_elements = 0;
    double bonded = 0, reach = 0, decay = 1, bin_width = 1;
    int most_bonds = 0, n_bins = 0;
    std::vector<double> radius_sums, orders, other_orders;
    std::vector<int64_t> atom_keys, bond_keys, environments;
    std::vector<uint8_t> gaps;
};

// The same for the elements of one list, ready to compare its atoms.
class UsualPairs {
public:
    UsualPairs(const Usual& usual, const std::vector<int>& present, double cutoff);

    // Bits of `Outside` of one atom and its pairs. Different threads may call this at the same
    // time.
    uint8_t outside_bits(const ListView& list, int64_t i) const;

private:
    // What applies to the pairs of two elements.
    struct PairKind {
        double radius_sum, farthest_squared;  // pairs that are farther apart are not compared
        int64_t bond_key;
        const uint8_t* gaps;  // (n_bins), null if no distance is rare
    };
    // The bonds of one atom.
    struct Bonds {
        int64_t key;  // its environment
        int count = 0;
        double orders = 0;
        bool is_certain = true;  // false if rounding decides what counts as a bond
    };

    int rarity(const PairKind& kind, double distance) const;
    bool is_certainly_bonded(const PairKind& kind, double squared) const;
    // Whether atom `i` and its neighbor at a place of its row may be more than two bonds apart.
    bool may_be_nonbonded(const ListView& list, int64_t i, int64_t place) const;
    void add(Bonds& bonds, const PairKind& kind, double distance) const;
    bool is_rare(const Bonds& bonds, int element) const;

    const Usual& usual_;
    const std::vector<int>& present_;
    double cutoff_;
    std::vector<PairKind> kinds_;  // (n_present, n_present)
};

}  // namespace ase
