#include "neighbors.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>

#include "error.h"

namespace ase {
namespace {

// As in ase_student/neighbors.py.
constexpr double SMALLEST_DISTANCE = 1e-6, LARGEST_COORDINATE = 1e8, SMALLEST_CELL_HEIGHT = 0.1;
constexpr int64_t MOST_ATOMS = 1 << 30, MOST_IMAGES = 1 << 24;

[[noreturn]] void invalid(const std::string& reason) { throw Error(ASE_STUDENT_INVALID, reason); }

using Vector = std::array<double, 3>;

Vector row(const Matrix& m, int a) { return {m[3 * a], m[3 * a + 1], m[3 * a + 2]}; }
double dot(const Vector& a, const Vector& b) { return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]; }
Vector cross(const Vector& a, const Vector& b) {
    return {a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]};
}
Vector scaled(const Vector& a, double s) { return {a[0] * s, a[1] * s, a[2] * s}; }
Vector unit(const Vector& a) { return scaled(a, 1.0 / std::sqrt(dot(a, a))); }

// x m, of a row and a matrix.
Vector times(const Vector& x, const Matrix& m) {
    Vector y{};
    for (int a = 0; a < 3; a++)
        for (int c = 0; c < 3; c++) y[c] += x[a] * m[3 * a + c];
    return y;
}

Matrix product(const Matrix& a, const Matrix& b) {
    Matrix c{};
    for (int i = 0; i < 3; i++)
        for (int k = 0; k < 3; k++)
            for (int j = 0; j < 3; j++) c[3 * i + j] += a[3 * i + k] * b[3 * k + j];
    return c;
}

// The inverse, whose columns are normal to the faces; false if there is none.
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

// Distances between opposite faces.
Vector heights(const Matrix& inverted) {
    Vector h{};
    for (int a = 0; a < 3; a++) {
        const double x = inverted[a], y = inverted[3 + a], z = inverted[6 + a];
        h[a] = 1.0 / std::sqrt(x * x + y * y + z * z);
    }
    return h;
}

// The cell with unit vectors orthogonal to the periodic ones along open axes.
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

// The smallest singular value, by Jacobi rotations of FᵀF.
double smallest_stretch(const Matrix& f) {
    double s[3][3] = {};
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < 3; j++)
            for (int k = 0; k < 3; k++) s[i][j] += f[3 * k + i] * f[3 * k + j];
    for (int sweep = 0; sweep < 30; sweep++) {
        const double off = std::fabs(s[0][1]) + std::fabs(s[0][2]) + std::fabs(s[1][2]);
        if (off < 1e-300) break;
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

struct Sets {
    std::vector<int> parents;
    explicit Sets(size_t n) : parents(n) { std::iota(parents.begin(), parents.end(), 0); }
    int find(int q) {
        while (parents[q] != q) q = parents[q] = parents[parents[q]];
        return q;
    }
    // The smaller one represents both, whatever the order.
    void join(int a, int b) {
        a = find(a), b = find(b);
        parents[std::max(a, b)] = std::min(a, b);
    }
};

}  // namespace

// --- building ------------------------------------------------------------------------------------

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
        box.frame = box.followed_frame = frame_of(box.cell, box.pbc);
        find_pairs(structures, s, cutoff + skin);
        first += box.n_atoms;
    }
    built_positions_.assign(structures.positions, structures.positions + 3 * n);
    sort_atoms(atoms_per_group);
    make_rows(n_present);
    for (const Box& box : boxes_) translate(box);
    place(structures);
}

int NeighborList::image_of(const Box& box, int a, int b, int c) const {
    const auto& reach = box.reach;
    return box.first_image +
           ((a + reach[0]) * (2 * reach[1] + 1) + (b + reach[1])) * (2 * reach[2] + 1) + c +
           reach[2];
}

// Pairs of one structure, each once, by cells that are at least about as large as the radius.
void NeighborList::find_pairs(const StructuresView& structures, size_t box_index, double radius) {
    Box& box = boxes_[box_index];
    const int64_t n = box.n_atoms, first = box.first_atom;
    Matrix inverted;
    inverse(box.frame, inverted);
    const Vector height = heights(inverted);
    // Fractions along periodic axes, Å along open ones; wrapped positions.
    std::vector<double> fractions(3 * n), wrapped(3 * n);
    Vector low{HUGE_VAL, HUGE_VAL, HUGE_VAL}, high{-HUGE_VAL, -HUGE_VAL, -HUGE_VAL};
    for (int64_t i = 0; i < n; i++) {
        const double* p = structures.positions + 3 * (first + i);
        for (int c = 0; c < 3; c++)
            if (!(std::fabs(p[c]) < LARGEST_COORDINATE))
                invalid("position of atom " + std::to_string(first + i) +
                        " is not finite or beyond 1e8 Å");
        Vector fraction = times({p[0], p[1], p[2]}, inverted), moved{p[0], p[1], p[2]};
        for (int a = 0; a < 3; a++) {
            if (box.pbc[a]) {
                const double whole = std::floor(fraction[a]);
                fraction[a] -= whole;
                if (whole != 0) {
                    wraps_[3 * (first + i) + a] = whole;
                    is_wrapped_ = true;
                    for (int c = 0; c < 3; c++) moved[c] -= whole * box.frame[3 * a + c];
                }
            }
            low[a] = std::min(low[a], fraction[a]);
            high[a] = std::max(high[a], fraction[a]);
            fractions[3 * i + a] = fraction[a];
            wrapped[3 * i + a] = 0;
        }
        for (int c = 0; c < 3; c++) wrapped[3 * i + c] = moved[c];
    }
    std::array<int64_t, 3> bins{}, search{};
    double width = radius;
    for (;;) {
        double total = 1;
        for (int a = 0; a < 3; a++) {
            const double extent = box.pbc[a] ? height[a] : high[a] - low[a];
            const double wanted = std::max(1.0, std::floor(extent / width));
            bins[a] = (int64_t)std::min(wanted, 1e6);
            total *= (double)bins[a];
            search[a] = box.pbc[a] ? (int64_t)std::ceil(radius / (extent / bins[a]))
                                   : (bins[a] > 1 ? (int64_t)std::ceil(
                                                        radius / std::max(extent / bins[a], width))
                                                  : 0);
        }
        if (total <= std::max(64.0, 4.0 * (double)n)) break;
        width *= 1.5;
    }
    for (int a = 0; a < 3; a++)
        box.reach[a] = box.pbc[a] ? (int)(search[a] / bins[a] + (search[a] % bins[a] ? 1 : 0)) : 0;
    box.first_image = (int)(translations_.size() / 4);
    double n_images = 1;
    for (int a = 0; a < 3; a++) n_images *= 2.0 * box.reach[a] + 1;
    if (box.first_image + n_images > MOST_IMAGES) invalid("the cells have too many images");
    if (n_images == 1) box.first_image = 0;
    else translations_.resize(translations_.size() + 4 * (size_t)n_images, 0.0);

    // Sort atoms by bins.
    const int64_t n_bins = bins[0] * bins[1] * bins[2];
    std::vector<int64_t> starts(n_bins + 1), bin_of(n);
    std::vector<std::array<int, 3>> bin_axes(n_bins);
    for (int64_t b = 0; b < n_bins; b++)
        bin_axes[b] = {(int)(b / (bins[1] * bins[2])), (int)(b / bins[2] % bins[1]),
                       (int)(b % bins[2])};
    for (int64_t i = 0; i < n; i++) {
        int64_t b = 0;
        for (int a = 0; a < 3; a++) {
            const double extent = box.pbc[a] ? 1.0 : std::max(high[a] - low[a], 1e-300);
            const double from = box.pbc[a] ? 0.0 : low[a];
            const double place = (fractions[3 * i + a] - from) / extent * bins[a];
            b = b * bins[a] + std::min(bins[a] - 1, std::max<int64_t>(0, (int64_t)place));
        }
        bin_of[i] = b;
        starts[b + 1]++;
    }
    for (int64_t b = 0; b < n_bins; b++) starts[b + 1] += starts[b];
    std::vector<int64_t> cursor(starts.begin(), starts.end() - 1);
    std::vector<double> sorted(3 * n);
    for (int64_t i = 0; i < n; i++) {
        const int64_t rank = cursor[bin_of[i]]++;
        rank_order_[first + rank] = first + i;
        for (int c = 0; c < 3; c++) sorted[3 * rank + c] = wrapped[3 * i + c];
    }

    const double squared_radius = radius * radius;
    const double smallest = SMALLEST_DISTANCE * SMALLEST_DISTANCE;
    auto floor_divided = [](int64_t a, int64_t b) { return a >= 0 ? a / b : -((-a + b - 1) / b); };
    for (int64_t b = 0; b < n_bins; b++) {
        if (starts[b] == starts[b + 1]) continue;
        const auto& axes = bin_axes[b];
        for (int64_t da = -search[0]; da <= search[0]; da++)
            for (int64_t db = -search[1]; db <= search[1]; db++)
                for (int64_t dc = -search[2]; dc <= search[2]; dc++) {
                    const int64_t steps[3] = {axes[0] + da, axes[1] + db, axes[2] + dc};
                    int64_t other = 0;
                    int image[3];
                    bool is_there = true;
                    for (int a = 0; a < 3; a++) {
                        image[a] = (int)floor_divided(steps[a], bins[a]);
                        if (image[a] && !box.pbc[a]) is_there = false;
                        other = other * bins[a] + steps[a] - image[a] * bins[a];
                    }
                    if (!is_there || starts[other] == starts[other + 1]) continue;
                    // Of an atom and its image, one of the two.
                    const bool positive =
                        image[0] > 0 ||
                        (image[0] == 0 && (image[1] > 0 || (image[1] == 0 && image[2] > 0)));
                    if (starts[other + 1] - 1 < starts[b]) continue;
                    double shift[3] = {};
                    for (int a = 0; a < 3; a++)
                        for (int c = 0; c < 3; c++) shift[c] += image[a] * box.frame[3 * a + c];
                    const int number = image_of(box, image[0], image[1], image[2]);
                    for (int64_t i = starts[b]; i < starts[b + 1]; i++) {
                        const double x = sorted[3 * i] - shift[0], y = sorted[3 * i + 1] - shift[1],
                                     z = sorted[3 * i + 2] - shift[2];
                        for (int64_t j = std::max(starts[other], positive ? i : i + 1);
                             j < starts[other + 1]; j++) {
                            const double dx = sorted[3 * j] - x, dy = sorted[3 * j + 1] - y,
                                         dz = sorted[3 * j + 2] - z;
                            const double squared = dx * dx + dy * dy + dz * dz;
                            if (!(squared < squared_radius)) continue;
                            if (squared < smallest)
                                invalid("atoms " + std::to_string(rank_order_[first + i]) +
                                        " and " + std::to_string(rank_order_[first + j]) +
                                        " are on one spot");
                            half_pairs_.push_back({(int)(first + i), (int)(first + j), number});
                        }
                    }
                }
    }
}

// Atoms in the order of the search; where molecules don't see each other, in groups of them.
void NeighborList::sort_atoms(int64_t atoms_per_group) {
    const int64_t n = (int64_t)rank_order_.size();
    Sets sets(n);
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
    // Within a group, set by set: molecules stay together.
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
        std::vector<int> of_atom(n);
        for (size_t b = 0; b < boxes_.size(); b++)
            std::fill_n(of_atom.begin() + boxes_[b].first_atom, boxes_[b].n_atoms, (int)b);
        for (int64_t p = 0; p < n; p++) box_of_[p] = of_atom[order_[p]];
    }
}

// Both directions of every pair, in rows that are sorted by element.
void NeighborList::make_rows(int n_present) {
    const int64_t n = (int64_t)order_.size(), width = n_present + 1;
    segments_.assign(n * width, 0);
    for (const HalfPair& pair : half_pairs_) {
        segments_[pair.first * width + species_[pair.second] + 1]++;
        segments_[pair.second * width + species_[pair.first] + 1]++;
    }
    rows_.assign(n + 1, 0);
    for (int64_t i = 0; i < n; i++) {
        for (int e = 0; e < n_present; e++) segments_[i * width + e + 1] += segments_[i * width + e];
        rows_[i + 1] = rows_[i] + segments_[i * width + n_present];
    }
    neighbors_.resize(rows_[n]);
    images_.resize(rows_[n]);
    reverse_.resize(rows_[n]);
    std::vector<int> cursors(segments_);
    for (const HalfPair& pair : half_pairs_) {
        const int64_t i = pair.first, j = pair.second;
        const int there = cursors[i * width + species_[j]]++;
        const int back = cursors[j * width + species_[i]]++;
        const Box& box = boxes_[box_of_[i]];
        // Images are numbered such that the opposite one is as far from the end.
        int opposite = 0;
        if (box.reach[0] || box.reach[1] || box.reach[2])
            opposite = 2 * image_of(box, 0, 0, 0) - pair.image;
        neighbors_[rows_[i] + there] = (int)j;
        images_[rows_[i] + there] = pair.image;
        reverse_[rows_[i] + there] = back;
        neighbors_[rows_[j] + back] = (int)i;
        images_[rows_[j] + back] = opposite;
        reverse_[rows_[j] + back] = there;
    }
    half_pairs_ = std::vector<HalfPair>();
}

void NeighborList::translate(const Box& box) {
    if (!box.first_image) return;
    for (int a = -box.reach[0]; a <= box.reach[0]; a++)
        for (int b = -box.reach[1]; b <= box.reach[1]; b++)
            for (int c = -box.reach[2]; c <= box.reach[2]; c++) {
                const Vector shift = times({(double)a, (double)b, (double)c}, box.followed_frame);
                double* to = &translations_[4 * (size_t)image_of(box, a, b, c)];
                for (int q = 0; q < 3; q++) to[q] = shift[q];
            }
}

// --- a list from outside -------------------------------------------------------------------------

void NeighborList::set(int64_t n_atoms, const std::vector<int>& species,
                       const std::vector<double>& radii, int n_present, const int64_t* rows,
                       const int64_t* neighbors, const double* shifts) {
    if (n_atoms > MOST_ATOMS) invalid("there are too many atoms");
    const int64_t n_places = rows[n_atoms], width = n_present + 1;
    if (rows[0] != 0) invalid("rows must start at 0");
    for (int64_t i = 0; i < n_atoms; i++) {
        if (rows[i + 1] < rows[i]) invalid("rows must not decrease");
        if (rows[i + 1] - rows[i] >= 1 << 18) invalid("an atom has too many neighbors");
    }
    for (int64_t p = 0; p < n_places; p++) {
        if (neighbors[p] < 0 || neighbors[p] >= n_atoms)
            invalid("neighbor " + std::to_string(neighbors[p]) + " is no atom");
        for (int c = 0; shifts && c < 3; c++)
            if (!std::isfinite(shifts[3 * p + c])) invalid("a shift is not finite");
    }
    // Distinct shifts, sorted; adding 0.0 makes -0.0 the same as 0.0.
    std::vector<Vector> distinct = {Vector{0, 0, 0}};
    auto shift = [&](int64_t p, double sign) -> Vector {
        if (!shifts) return {0, 0, 0};
        return {sign * shifts[3 * p] + 0.0, sign * shifts[3 * p + 1] + 0.0,
                sign * shifts[3 * p + 2] + 0.0};
    };
    for (int64_t p = 0; p < n_places; p++) distinct.push_back(shift(p, 1));
    std::sort(distinct.begin(), distinct.end());
    distinct.erase(std::unique(distinct.begin(), distinct.end()), distinct.end());
    auto number_of = [&](const Vector& v) -> int {
        const auto place = std::lower_bound(distinct.begin(), distinct.end(), v);
        return place != distinct.end() && *place == v ? (int)(place - distinct.begin()) : -1;
    };

    std::vector<int64_t> new_rows(rows, rows + n_atoms + 1);
    std::vector<int> segments(n_atoms * width), new_neighbors(n_places), images(n_places);
    std::vector<int64_t> places(n_places);
    for (int64_t i = 0; i < n_atoms; i++) {
        // By element, atom and image: a pair's other direction is found by halving.
        std::vector<std::array<int64_t, 4>> keys;
        for (int64_t p = rows[i]; p < rows[i + 1]; p++)
            keys.push_back({species[neighbors[p]], neighbors[p], number_of(shift(p, 1)), p});
        std::sort(keys.begin(), keys.end());
        int* counts = &segments[i * width];
        for (size_t q = 0; q < keys.size(); q++) {
            counts[keys[q][0] + 1]++;
            new_neighbors[rows[i] + q] = (int)keys[q][1];
            images[rows[i] + q] = (int)keys[q][2];
            places[rows[i] + q] = keys[q][3];
            if (q && keys[q][1] == keys[q - 1][1] && keys[q][2] == keys[q - 1][2])
                invalid("atom " + std::to_string(i) + " has one neighbor twice");
        }
        for (int e = 0; e < n_present; e++) counts[e + 1] += counts[e];
    }
    std::vector<int> reverse(n_places);
    for (int64_t i = 0; i < n_atoms; i++)
        for (int64_t q = rows[i]; q < rows[i + 1]; q++) {
            const int j = new_neighbors[q];
            reverse[q] = 0;
            if (rows[j + 1] == rows[j]) continue;  // a ghost, or refused below
            const int opposite = number_of(shift(places[q], -1));
            const auto begin = rows[j] + segments[j * width + species[i]];
            const auto end = rows[j] + segments[j * width + species[i] + 1];
            int64_t low = begin, high = end;
            while (low < high) {
                const int64_t middle = (low + high) / 2;
                if (std::make_pair(new_neighbors[middle], images[middle]) <
                    std::make_pair((int)i, opposite))
                    low = middle + 1;
                else
                    high = middle;
            }
            if (low == end || new_neighbors[low] != i || images[low] != opposite)
                invalid("atom " + std::to_string(j) + " is a neighbor of atom " +
                        std::to_string(i) + ", but not the other way round");
            reverse[q] = (int)(low - rows[j]);
        }
    rows_ = std::move(new_rows);
    segments_ = std::move(segments);
    neighbors_ = std::move(new_neighbors);
    images_ = std::move(images);
    reverse_ = std::move(reverse);
    species_ = species;
    species_of_atom_ = species;
    radii_ = radii;
    n_present_ = n_present;
    boxes_.clear();
    order_.resize(n_atoms);
    std::iota(order_.begin(), order_.end(), 0);
    groups_ = {0, n_atoms};
    shifts_.clear();
    for (const Vector& v : distinct) shifts_.insert(shifts_.end(), v.begin(), v.end());
    follow_cell({1, 0, 0, 0, 1, 0, 0, 0, 1});
    positions_.assign(4 * n_atoms, 0.0);
}

void NeighborList::follow_cell(const Matrix& cell) {
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
                invalid("position of atom " + std::to_string(i) + " is not finite or beyond 1e8 Å");
            positions_[4 * i + c] = positions[3 * i + c];
        }
        positions_[4 * i + 3] = radii_[i];
    }
}

// --- following -----------------------------------------------------------------------------------

// The rule is that of ase_student.neighbors.NeighborList: a pair r0 that was left out has become
// r0 F + d_j - d_i, so it is longer than s (cutoff + skin) - |d_j - d_i|.
bool NeighborList::is_safe(const Box& box, const double* positions, double cutoff) const {
    double stretch = 1.0;
    Matrix deformation{1, 0, 0, 0, 1, 0, 0, 0, 1};
    const bool is_deformed = box.followed_frame != box.frame;
    if (is_deformed) {
        Matrix inverted;
        inverse(box.frame, inverted);
        deformation = product(inverted, box.followed_frame);
        stretch = smallest_stretch(deformation);
    }
    const double allowed = stretch * (cutoff + skin_) - cutoff;
    if (!(allowed >= 0)) return false;
    const double* built = built_positions_.data() + 3 * box.first_atom;
    const double* now = positions + 3 * box.first_atom;
    auto moved = [&](int64_t i) -> Vector {
        Vector from{built[3 * i], built[3 * i + 1], built[3 * i + 2]};
        if (is_deformed) from = times(from, deformation);
        return {now[3 * i] - from[0], now[3 * i + 1] - from[1], now[3 * i + 2] - from[2]};
    };
    double farthest = 0;
    Vector mean{};
    bool is_near = true;
    for (int64_t i = 0; i < box.n_atoms; i++) {
        const Vector d = moved(i);
        const double squared = dot(d, d);
        is_near = is_near && 4 * squared <= allowed * allowed;  // false for NaN
        farthest = std::max(farthest, squared);
        for (int c = 0; c < 3; c++) mean[c] += d[c];
    }
    if (is_near) return true;
    // A translation of all atoms changes no pair: look again without it. One that goes too far takes
    // digits of all distances, and is refused where the list is built.
    double first = 0, second = 0;
    for (int c = 0; c < 3; c++) mean[c] /= (double)box.n_atoms;
    for (int64_t i = 0; i < box.n_atoms; i++) {
        for (int c = 0; c < 3; c++)
            if (!(std::fabs(now[3 * i + c]) < LARGEST_COORDINATE)) return false;
        const Vector d = moved(i);
        const Vector own{d[0] - mean[0], d[1] - mean[1], d[2] - mean[2]};
        const double length = std::sqrt(dot(own, own));
        if (!(length <= allowed)) return false;
        if (length > first) second = first, first = length;
        else second = std::max(second, length);
    }
    return first + second <= allowed;
}

bool NeighborList::follow(const StructuresView& structures, double cutoff) {
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
            box.followed_frame = frame;
            translate(box);
        }
        if (!is_safe(box, structures.positions, cutoff)) return false;
    }
    place(structures);
    return true;
}

// Positions in the order of the list, moved back by the cells that atoms were outside of theirs.
void NeighborList::place(const StructuresView& structures) {
    const int64_t n = n_atoms();
    positions_.resize(4 * n);
    for (int64_t p = 0; p < n; p++) {
        const int64_t i = order_[p];
        const double* from = structures.positions + 3 * i;
        double* to = &positions_[4 * p];
        for (int c = 0; c < 3; c++) to[c] = from[c];
        if (is_wrapped_) {
            const Matrix& frame = boxes_[box_of_[p]].followed_frame;
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
