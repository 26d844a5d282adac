// The search for pairs of one structure, by bins of a regular grid.
#include <algorithm>
#include <cmath>
#include <string>

#include "error.h"
#include "neighbors.h"

namespace ase {
namespace {

// Å, as in ase_student/neighbors.py: atoms that are closer are on one spot.
constexpr double SMALLEST_DISTANCE = 1e-6;
constexpr int64_t MOST_IMAGES = 1 << 24;

int64_t floor_divided(int64_t a, int64_t b) { return a >= 0 ? a / b : -((-a + b - 1) / b); }

// Atoms of one structure, wrapped into its cell along periodic axes and sorted by bins. The ranks
// of its atoms, here and in the pairs, start with that of the box's first atom.
class Grid {
public:
    Grid(const Box& box, double radius);

    // Wrap positions into the cell. Writes to `wraps` by how many cells each atom was moved where
    // that is not zero; returns whether there is such an atom.
    bool wrap(const double* positions, double* wraps);
    // Choose bins about as large as the radius, or larger where they would outnumber the atoms.
    void choose_bins();
    // Sort atoms by bins; writes the index of the atom of each rank to `order`.
    void sort(int64_t* order);
    // Append all pairs within the radius, each once.
    void find_pairs(const std::vector<int64_t>& order, std::vector<HalfPair>& pairs) const;

    const std::array<int64_t, 3>& bins() const { return bins_; }
    const std::array<int64_t, 3>& search() const { return search_; }

private:
    bool neighbor_bin(int64_t bin, const int64_t* steps, int64_t& neighbor, int* image) const;
    void find_pairs_of_bins(int64_t bin, int64_t neighbor, const int* image,
                            const std::vector<int64_t>& order,
                            std::vector<HalfPair>& pairs) const;

    const Box& box_;
    const double radius_;
    Matrix inverted_;
    Vector height_;
    // (n, 3): fractions along periodic axes and Å along open ones; and wrapped positions.
    std::vector<double> fractions_, wrapped_;
    Vector low_{HUGE_VAL, HUGE_VAL, HUGE_VAL}, high_{-HUGE_VAL, -HUGE_VAL, -HUGE_VAL};
    // Along each axis: the number of bins, and how many bins away neighbors can be.
    std::array<int64_t, 3> bins_{}, search_{};
    std::vector<std::array<int, 3>> bin_axes_;  // indices of each bin along the axes
    std::vector<int64_t> starts_;               // where each bin starts in `sorted_`, and the end
    std::vector<double> sorted_;                // (n, 3) wrapped positions by rank
};

Grid::Grid(const Box& box, double radius) : box_(box), radius_(radius) {
    inverse(box.frame, inverted_);
    height_ = heights(inverted_);
}

bool Grid::wrap(const double* positions, double* wraps) {
    const int64_t n = box_.n_atoms;
    fractions_.resize(3 * n);
    wrapped_.resize(3 * n);
    bool is_wrapped = false;
    for (int64_t i = 0; i < n; i++) {
        const double* p = positions + 3 * i;
        for (int c = 0; c < 3; c++)
            if (!(std::fabs(p[c]) < LARGEST_COORDINATE))
                invalid("position of atom " + std::to_string(box_.first_atom + i) +
                        " is not finite or beyond 1e8 Å");
        Vector fraction = times({p[0], p[1], p[2]}, inverted_), moved{p[0], p[1], p[2]};
        for (int a = 0; a < 3; a++) {
            if (box_.pbc[a]) {
                const double whole = std::floor(fraction[a]);
                fraction[a] -= whole;
                if (whole != 0) {
                    wraps[3 * i + a] = whole;
                    is_wrapped = true;
                    for (int c = 0; c < 3; c++) moved[c] -= whole * box_.frame[3 * a + c];
                }
            }
            low_[a] = std::min(low_[a], fraction[a]);
            high_[a] = std::max(high_[a], fraction[a]);
            fractions_[3 * i + a] = fraction[a];
        }
        for (int c = 0; c < 3; c++) wrapped_[3 * i + c] = moved[c];
    }
    return is_wrapped;
}

void Grid::choose_bins() {
    double width = radius_;
    for (;;) {
        double total = 1;
        for (int a = 0; a < 3; a++) {
            const double extent = box_.pbc[a] ? height_[a] : high_[a] - low_[a];
            const double wanted = std::max(1.0, std::floor(extent / width));
            bins_[a] = (int64_t)std::min(wanted, 1e6);
            total *= (double)bins_[a];
            search_[a] =
                box_.pbc[a]
                    ? (int64_t)std::ceil(radius_ / (extent / bins_[a]))
                    : (bins_[a] > 1
                           ? (int64_t)std::ceil(radius_ / std::max(extent / bins_[a], width))
                           : 0);
        }
        if (total <= std::max(64.0, 4.0 * (double)box_.n_atoms)) break;
        width *= 1.5;
    }
}

void Grid::sort(int64_t* order) {
    const int64_t n = box_.n_atoms, n_bins = bins_[0] * bins_[1] * bins_[2];
    std::vector<int64_t> bin_of(n);
    starts_.assign(n_bins + 1, 0);
    bin_axes_.resize(n_bins);
    for (int64_t b = 0; b < n_bins; b++)
        bin_axes_[b] = {(int)(b / (bins_[1] * bins_[2])), (int)(b / bins_[2] % bins_[1]),
                        (int)(b % bins_[2])};
    for (int64_t i = 0; i < n; i++) {
        int64_t b = 0;
        for (int a = 0; a < 3; a++) {
            const double extent = box_.pbc[a] ? 1.0 : std::max(high_[a] - low_[a], 1e-300);
            const double from = box_.pbc[a] ? 0.0 : low_[a];
            const double place = (fractions_[3 * i + a] - from) / extent * bins_[a];
            b = b * bins_[a] + std::min(bins_[a] - 1, std::max<int64_t>(0, (int64_t)place));
        }
        bin_of[i] = b;
        starts_[b + 1]++;
    }
    for (int64_t b = 0; b < n_bins; b++) starts_[b + 1] += starts_[b];
    std::vector<int64_t> cursors(starts_.begin(), starts_.end() - 1);
    sorted_.resize(3 * n);
    for (int64_t i = 0; i < n; i++) {
        const int64_t rank = cursors[bin_of[i]]++;
        order[rank] = box_.first_atom + i;
        for (int c = 0; c < 3; c++) sorted_[3 * rank + c] = wrapped_[3 * i + c];
    }
}

void Grid::find_pairs(const std::vector<int64_t>& order, std::vector<HalfPair>& pairs) const {
    const int64_t n_bins = (int64_t)bin_axes_.size();
    for (int64_t bin = 0; bin < n_bins; bin++) {
        if (starts_[bin] == starts_[bin + 1]) continue;
        for (int64_t da = -search_[0]; da <= search_[0]; da++)
            for (int64_t db = -search_[1]; db <= search_[1]; db++)
                for (int64_t dc = -search_[2]; dc <= search_[2]; dc++) {
                    const auto& axes = bin_axes_[bin];
                    const int64_t steps[3] = {axes[0] + da, axes[1] + db, axes[2] + dc};
                    int64_t neighbor;
                    int image[3];
                    if (neighbor_bin(bin, steps, neighbor, image))
                        find_pairs_of_bins(bin, neighbor, image, order, pairs);
                }
    }
}

// Find the bin with these indices along the axes, which may lie in an image of the cell. Returns
// false if there is none, or none of its atoms comes after the first of the given bin: then the
// search from the other side finds these pairs.
bool Grid::neighbor_bin(int64_t bin, const int64_t* steps, int64_t& neighbor, int* image) const {
    bool is_inside = true;
    neighbor = 0;
    for (int a = 0; a < 3; a++) {
        image[a] = (int)floor_divided(steps[a], bins_[a]);
        if (image[a] && !box_.pbc[a]) is_inside = false;
        neighbor = neighbor * bins_[a] + steps[a] - image[a] * bins_[a];
    }
    if (!is_inside || starts_[neighbor] == starts_[neighbor + 1]) return false;
    return starts_[neighbor + 1] - 1 >= starts_[bin];
}

void Grid::find_pairs_of_bins(int64_t bin, int64_t neighbor, const int* image,
                              const std::vector<int64_t>& order,
                              std::vector<HalfPair>& pairs) const {
    const int64_t first = box_.first_atom;
    const double* const sorted = sorted_.data();
    const double squared_radius = radius_ * radius_;
    const double smallest = SMALLEST_DISTANCE * SMALLEST_DISTANCE;
    // An atom and its own images form pairs with one of two opposite images only.
    const bool is_positive = image[0] > 0 || (image[0] == 0 && (image[1] > 0 ||
                                                                (image[1] == 0 && image[2] > 0)));
    double shift[3] = {};
    for (int a = 0; a < 3; a++)
        for (int c = 0; c < 3; c++) shift[c] += image[a] * box_.frame[3 * a + c];
    const int number = box_.image_of(image[0], image[1], image[2]);
    const int64_t begin = starts_[neighbor], end = starts_[neighbor + 1];
    for (int64_t i = starts_[bin]; i < starts_[bin + 1]; i++) {
        const double x = sorted[3 * i] - shift[0], y = sorted[3 * i + 1] - shift[1],
                     z = sorted[3 * i + 2] - shift[2];
        for (int64_t j = std::max(begin, is_positive ? i : i + 1); j < end; j++) {
            const double dx = sorted[3 * j] - x, dy = sorted[3 * j + 1] - y,
                         dz = sorted[3 * j + 2] - z;
            const double squared = dx * dx + dy * dy + dz * dz;
            if (!(squared < squared_radius)) continue;
            if (squared < smallest)
                invalid("atoms " + std::to_string(order[first + i]) + " and " +
                        std::to_string(order[first + j]) + " are on one spot");
            pairs.push_back({(int)(first + i), (int)(first + j), number});
        }
    }
}

}  // namespace

// Give numbers to the images of a box's cell that neighbors can lie in.
void NeighborList::number_images(Box& box, const std::array<int64_t, 3>& bins,
                                 const std::array<int64_t, 3>& search) {
    for (int a = 0; a < 3; a++)
        box.reach[a] = box.pbc[a] ? (int)(search[a] / bins[a] + (search[a] % bins[a] ? 1 : 0)) : 0;
    box.first_image = (int)(translations_.size() / 4);
    double n_images = 1;
    for (int a = 0; a < 3; a++) n_images *= 2.0 * box.reach[a] + 1;
    if (box.first_image + n_images > MOST_IMAGES) invalid("the cells have too many images");
    // All boxes share image 0, which is not translated.
    if (n_images == 1) box.first_image = 0;
    else translations_.resize(translations_.size() + 4 * (size_t)n_images, 0.0);
}

// Find the pairs of one structure within a radius, each once.
void NeighborList::find_pairs(const StructuresView& structures, Box& box, double radius) {
    Grid grid(box, radius);
    if (grid.wrap(structures.positions + 3 * box.first_atom, wraps_.data() + 3 * box.first_atom))
        is_wrapped_ = true;
    grid.choose_bins();
    number_images(box, grid.bins(), grid.search());
    grid.sort(rank_order_.data() + box.first_atom);
    grid.find_pairs(rank_order_, half_pairs_);
}

}  // namespace ase
