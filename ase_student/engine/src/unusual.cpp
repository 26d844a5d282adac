#include "unusual.h"

#include <algorithm>
#include <cmath>

#include "error.h"

namespace ase {
namespace {

// Å. A distance that differs from a limit by less may be on either side of it.
constexpr double ROUNDING = 1e-6;

struct Vector {
    double x, y, z;
    double squared() const { return x * x + y * y + z * z; }
    Vector operator-(const Vector& other) const { return {x - other.x, y - other.y, z - other.z}; }
};

// From atom `i` to its neighbor at a place of its row.
Vector to_neighbor(const ListView& list, int64_t i, int64_t place) {
    const double* own = list.positions + 4 * i;
    const double* other = list.positions + 4 * (int64_t)list.neighbors[place];
    const double* shift = list.translations + 4 * (int64_t)list.images[place];
    return {other[0] - own[0] + shift[0], other[1] - own[1] + shift[1],
            other[2] - own[2] + shift[2]};
}

}  // namespace

Usual::Usual(const ase_student_usual& from, size_t n) : n_elements(n) {
    const size_t n_pairs = n_elements * n_elements;
    require(from.n_environments >= 0, "n_environments must not be negative");
    if (from.n_environments) {
        require(from.radius_sums && from.atom_keys && from.bond_keys && from.environments &&
                    from.orders && from.other_orders,
                "radius_sums, atom_keys, bond_keys, environments, orders and other_orders must "
                "not be NULL where n_environments is not 0");
        require(from.bonded > 0 && from.reach >= from.bonded && from.decay > 0 &&
                    std::isfinite(from.reach),
                "bonded, reach and decay must be positive, and reach at least bonded");
        require(from.most_bonds >= 0 && from.most_bonds <= 1024, "most_bonds must be 0 to 1024");
        bonded = from.bonded, reach = from.reach, decay = from.decay;
        most_bonds = from.most_bonds;
        radius_sums.assign(from.radius_sums, from.radius_sums + n_pairs);
        for (double sum : radius_sums)
            require(sum >= 0 && std::isfinite(sum),
                    "radius_sums must be finite, and not negative");
        atom_keys.assign(from.atom_keys, from.atom_keys + n_elements);
        bond_keys.assign(from.bond_keys, from.bond_keys + n_elements);
        const size_t n_rows = (size_t)from.n_environments;
        environments.assign(from.environments, from.environments + n_rows);
        require(std::is_sorted(environments.begin(), environments.end()),
                "environments must be ascending");
        orders.assign(from.orders, from.orders + 2 * n_rows);
        const size_t n_others = n_elements * ((size_t)most_bonds + 1);
        other_orders.assign(from.other_orders, from.other_orders + 2 * n_others);
    }
    require(from.n_bins >= 0, "n_bins must not be negative");
    if (from.n_bins) {
        require(from.gaps, "gaps must not be NULL");
        require(from.bin_width > ROUNDING && std::isfinite(from.bin_width),
                "bin_width must be positive");
        n_bins = from.n_bins, bin_width = from.bin_width;
        gaps.assign(from.gaps, from.gaps + n_pairs * (size_t)n_bins);
    }
}

UsualPairs::UsualPairs(const Usual& usual, const std::vector<int>& present, double cutoff)
    : usual_(usual), present_(present), cutoff_(cutoff) {
    for (int own : present)
        for (int other : present) {
            PairKind kind{0, 0, 0, nullptr};
            const size_t pair = (size_t)own * usual.n_elements + (size_t)other;
            double farthest = 0;
            if (!usual.environments.empty()) {
                kind.radius_sum = usual.radius_sums[pair];
                kind.bond_key = usual.bond_keys[(size_t)other];
                farthest = usual.reach * kind.radius_sum;
            }
            if (usual.n_bins) {
                kind.gaps = &usual.gaps[pair * (size_t)usual.n_bins];
                const uint8_t* end = kind.gaps + usual.n_bins;
                if (std::any_of(kind.gaps, end, [](uint8_t gap) { return gap != 0; }))
                    farthest = std::max(farthest, usual.n_bins * usual.bin_width);
                else
                    kind.gaps = nullptr;
            }
            farthest = std::min(farthest, cutoff) + ROUNDING;
            kind.farthest_squared = farthest * farthest;
            kinds_.push_back(kind);
        }
}

int UsualPairs::rarity(const PairKind& kind, double distance) const {
    const double place = distance / usual_.bin_width, width = ROUNDING / usual_.bin_width;
    const int first = (int)std::max(0.0, place - width), last = (int)(place + width);
    const int at_first = first < usual_.n_bins ? kind.gaps[first] : USUAL;
    const int at_last = last < usual_.n_bins ? kind.gaps[last] : USUAL;
    return at_first == RARE || at_last == RARE ? RARE : std::max(at_first, at_last);
}

bool UsualPairs::is_certainly_bonded(const PairKind& kind, double squared) const {
    const double longest = usual_.bonded * kind.radius_sum - ROUNDING;
    return longest > 0 && squared < longest * longest;
}

bool UsualPairs::may_be_nonbonded(const ListView& list, int64_t i, int64_t place) const {
    const int n_present = list.n_present, own = list.species[i];
    const int other = list.species[list.neighbors[place]];
    const Vector pair = to_neighbor(list, i, place);
    if (is_certainly_bonded(kinds_[(size_t)(own * n_present + other)], pair.squared()))
        return false;
    const int* segments = list.segments + i * (n_present + 1);
    for (int e = 0; e < n_present; e++) {
        const PairKind& first = kinds_[(size_t)(own * n_present + e)];
        const PairKind& second = kinds_[(size_t)(e * n_present + other)];
        for (int64_t k = list.rows[i] + segments[e]; k < list.rows[i] + segments[e + 1]; k++) {
            const Vector middle = to_neighbor(list, i, k);
            if (is_certainly_bonded(first, middle.squared()) &&
                is_certainly_bonded(second, (pair - middle).squared()))
                return false;
        }
    }
    return true;
}

void UsualPairs::add(Bonds& bonds, const PairKind& kind, double distance) const {
    const double sum = kind.radius_sum;
    if (distance > std::min(usual_.reach * sum, cutoff_) + ROUNDING) return;
    bonds.orders += std::exp((sum - distance) / usual_.decay);
    const double past = distance - usual_.bonded * sum;
    if (std::fabs(past) < ROUNDING) bonds.is_certain = false;
    if (past < 0) {
        bonds.key += kind.bond_key;
        bonds.count++;
    }
    // A pair's order drops to zero at the farthest distance: close to it, rounding decides.
    const double farthest = std::min(usual_.reach * sum, cutoff_);
    if (std::fabs(distance - farthest) < ROUNDING) bonds.is_certain = false;
}

bool UsualPairs::is_rare(const Bonds& bonds, int element) const {
    if (!bonds.is_certain || bonds.count > usual_.most_bonds) return true;
    const auto& keys = usual_.environments;
    const auto place = std::lower_bound(keys.begin(), keys.end(), bonds.key);
    const double* range =
        place != keys.end() && *place == bonds.key
            ? &usual_.orders[2 * (size_t)(place - keys.begin())]
            : &usual_.other_orders[2 * ((size_t)element * (size_t)(usual_.most_bonds + 1) +
                                        (size_t)bonds.count)];
    const double margin = 2 * bonds.orders * ROUNDING / usual_.decay;
    return !(bonds.orders >= range[0] + margin && bonds.orders <= range[1] - margin);
}

uint8_t UsualPairs::outside_bits(const ListView& list, int64_t i) const {
    const int n_present = list.n_present, own_species = list.species[i];
    const int element = present_[(size_t)own_species];
    const int64_t row = list.rows[i];
    const int* segments = list.segments + i * (n_present + 1);
    const bool has_bonds = !usual_.environments.empty() &&
                           kinds_[(size_t)(own_species * n_present + own_species)].radius_sum > 0;
    Bonds bonds{has_bonds ? usual_.atom_keys[(size_t)element] : 0};
    int outside = 0;
    for (int e = 0; e < n_present; e++) {
        const PairKind& kind = kinds_[(size_t)(own_species * n_present + e)];
        for (int64_t place = row + segments[e]; place < row + segments[e + 1]; place++) {
            const double squared = to_neighbor(list, i, place).squared();
            if (!(squared < kind.farthest_squared)) continue;
            const double distance = std::sqrt(squared);
            if (has_bonds && kind.radius_sum > 0) add(bonds, kind, distance);
            if (!kind.gaps) continue;
            const int rare = rarity(kind, distance);
            if (rare == RARE || (rare == RARE_NONBONDED && may_be_nonbonded(list, i, place)))
                outside |= CONTACT;
        }
    }
    if (has_bonds && is_rare(bonds, element)) outside |= BONDS;
    return (uint8_t)outside;
}

}  // namespace ase
