// The network of painn.py on a CPU: energies, their gradients by positions and by all weights.
//
// Every pair of atoms is visited once and counts in both directions. Structures do not interact, so
// a batch is computed in chunks of whole structures, whose activations stay in the cache: forward,
// backward, and products of both for the weights. Rows of features are padded to multiples of 16.
// The architecture is given when this file is compiled (see build.py). One thread.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <vector>

#include "matrix.h"
#include "soap.h"

using matrix::add_to;
using matrix::all;
using matrix::load;
using matrix::padded;
using matrix::store;
using matrix::Vector;
using Index = std::int64_t;

namespace {

constexpr int W = matrix::WIDTH;
constexpr int E = ELEMENTS, F = FEATURES, H = HIDDEN, R = RADIAL, C = ELEMENT_CHANNELS;
constexpr int M = MESSAGES, T = TENSORS, BLOCKS = N_BLOCKS, O = F / 2;
constexpr int FP = padded(F), HP = padded(H), RP = padded(R), MP = padded(M), TP = padded(T);
constexpr int OP = padded(O);
// Moments of an atom: channel c and function r at c R + r. Rows are written in steps of R by whole
// vectors, whose last lanes are zero, in ascending order.
constexpr int N_MOMENTS = C * R, NP = padded(N_MOMENTS);
// Components of a direction: 1, the direction, and with tensor channels half its quadrics.
constexpr int A = T ? 9 : 4;
constexpr int TABLE = 3;

// Aligned memory, initialized with zeros.
class Array {
public:
    float* resize(std::size_t size) {
        if (size > size_) {
            std::free(data_);
            const std::size_t bytes = (size * sizeof(float) + 127) / 64 * 64;
            data_ = static_cast<float*>(std::aligned_alloc(64, bytes));
            if (data_ == nullptr) throw std::bad_alloc();
            std::memset(data_, 0, bytes);
            size_ = size;
        }
        return data_;
    }
    Array() = default;
    Array(const Array&) = delete;
    Array& operator=(const Array&) = delete;
    ~Array() { std::free(data_); }
    operator float*() { return data_; }

private:
    float* data_ = nullptr;
    std::size_t size_ = 0;
};

// Layout of an axis of a weight in memory: parts of `size`, each padded.
struct Axis {
    int size, parts = 1;
    int total() const { return size * parts; }
    int stored() const { return padded(size) * parts; }
    // Number of rows that a product runs over.
    int used() const { return parts == 1 ? size : stored(); }
    int place(int index) const { return index / size * padded(size) + index % size; }
};

// A weight (out, in) with its packed copies and the sum of its gradient.
struct Weight {
    Axis out, in;
    bool is_of_moments;  // columns are r C + c in the parameter, c R + r here
    Array forward, backward, gradient;

    Weight(Axis out_axis, Axis in_axis, bool of_moments = false)
        : out(out_axis), in(in_axis), is_of_moments(of_moments) {}

    int column(int index) const {
        return is_of_moments ? index % C * R + index / C : in.place(index);
    }

    void pack(const float* values) {
        const int n_out = out.stored(), n_in = in.stored();
        float* ahead = forward.resize(std::size_t(n_in) * n_out);
        float* back = backward.resize(std::size_t(n_out) * n_in);
        for (int o = 0; o < out.total(); ++o) {
            const float* row = values + std::size_t(o) * in.total();
            float* to = back + std::size_t(out.place(o)) * n_in;
            for (int i = 0; i < in.total(); ++i) to[column(i)] = row[i];
        }
        for (int first = 0; first < n_in; first += W)
            for (int o = 0; o < n_out; ++o)
                for (int i = first; i < first + W; ++i)
                    ahead[std::size_t(i) * n_out + o] = back[std::size_t(o) * n_in + i];
    }

    void clear() {
        const std::size_t size = std::size_t(out.stored()) * in.stored();
        std::fill_n(gradient.resize(size), size, 0.0f);
    }

    void unpack(float* to) {
        for (int o = 0; o < out.total(); ++o) {
            const float* row = gradient + std::size_t(out.place(o)) * in.stored();
            for (int i = 0; i < in.total(); ++i) *to++ = row[column(i)];
        }
    }

    // y = start + x Wᵀ
    void apply(int rows, const float* x, int x_row, float* y, int y_row, const float* start = nullptr,
               int start_row = 0) {
        matrix::multiply(rows, out.stored(), in.used(), {x, x_row, 1}, forward, out.stored(), y,
                         y_row, start, start_row);
    }

    // by_x = start + by_y W
    void apply_back(int rows, const float* by_y, int y_row, float* by_x, int x_row,
                    const float* start = nullptr, int start_row = 0) {
        matrix::multiply(rows, in.stored(), out.used(), {by_y, y_row, 1}, backward, in.stored(),
                         by_x, x_row, start, start_row);
    }

    // gradient += by_yᵀ x
    void learn(int rows, const float* by_y, int y_row, const float* x, int x_row) {
        matrix::multiply(out.used(), in.stored(), rows, {by_y, 1, y_row}, x, x_row, gradient,
                         in.stored(), gradient, in.stored());
    }
};

// A padded vector with its gradient: biases.
struct Bias {
    Axis axis;
    Array values, gradient;

    explicit Bias(Axis one) : axis(one) {}

    void pack(const float* from) {
        values.resize(axis.stored());
        for (int i = 0; i < axis.total(); ++i) values[axis.place(i)] = from[i];
    }
    void clear() { std::fill_n(gradient.resize(axis.stored()), axis.stored(), 0.0f); }
    void unpack(float* to) {
        for (int i = 0; i < axis.total(); ++i) *to++ = gradient[axis.place(i)];
    }
    void learn(int rows, const float* by_y) {
        const int n = axis.stored();
        for (int i = 0; i < n; i += W) {
            Vector total{};
            for (int a = 0; a < rows; ++a) total += load(by_y + std::size_t(a) * n + i);
            add_to(gradient + i, total);
        }
    }
};

// Two layers with SiLU between them; the cache of one call.
struct Perceptron {
    Weight first, second;
    Bias first_bias, second_bias;
    Array gate, active, by_active;

    Perceptron(Axis in, Axis hidden, Axis out)
        : first{hidden, in}, second{out, hidden}, first_bias{hidden}, second_bias{out} {}

    void resize(std::size_t n) {
        for (Array* array : {&gate, &active, &by_active}) array->resize(n * first.out.stored());
    }

    // Writes silu(x Wᵀ + b) to `active`.
    void apply_first(int n, const float* x, int x_row) {
        const int width = first.out.stored();
        first.apply(n, x, x_row, active, width, first_bias.values);
        for (std::size_t i = 0; i < std::size_t(n) * width; i += W) {
            const Vector hidden = load(active + i);
            const Vector sigmoid = 1.0f / (1.0f + matrix::exponential(-hidden));
            store(gate + i, sigmoid);
            store(active + i, hidden * sigmoid);
        }
    }

    void apply(int n, const float* x, int x_row, float* y) {
        apply_first(n, x, x_row);
        second.apply(n, active, first.out.stored(), y, second.out.stored(), second_bias.values);
    }

    // Starts from the gradient by `active`, in `by_active`.
    void back_first(int n, const float* x, int x_row, float* by_x, int by_row, const float* start,
                    bool is_learning) {
        const int width = first.out.stored();
        for (std::size_t i = 0; i < std::size_t(n) * width; i += W) {
            const Vector g = load(gate + i);
            store(by_active + i, load(by_active + i) * (g + load(active + i) * (1.0f - g)));
        }
        first.apply_back(n, by_active, width, by_x, by_row, start, by_row);
        if (!is_learning) return;
        first.learn(n, by_active, width, x, x_row);
        first_bias.learn(n, by_active);
    }

    void back(int n, const float* by_y, const float* x, int x_row, float* by_x, int by_row,
              const float* start, bool is_learning) {
        const int width = first.out.stored();
        second.apply_back(n, by_y, second.out.stored(), by_active, width);
        if (is_learning) {
            second.learn(n, by_y, second.out.stored(), active, width);
            second_bias.learn(n, by_y);
        }
        back_first(n, x, x_row, by_x, by_row, start, is_learning);
    }
};

// The atoms and pairs of a chunk, numbered from zero, and the geometry of every pair.
struct Pairs {
    int n_atoms, n_pairs;
    const std::int32_t *first, *second;  // numbered as in the batch, from `offset`
    int offset;
    Array directions;            // (P, 4): u and 1 / d
    Array stretched;             // (P,): exp(-rate d)
    Array radial, slopes;        // (P, RP)
    Array by_radial;             // (P, RP)
    Array by_directions;         // (P, 3, W), to be summed over lanes
    Array repulsion_slopes;      // (P,), times the mean of both atoms' seeds

    int i(int p) const { return first[p] - offset; }
    int j(int p) const { return second[p] - offset; }
};

// Half the quadrics of a direction, xy, yz, xz, x² - z², y² - z², after 1 and itself.
struct Components {
    float a[9];
    explicit Components(const float* u) {
        const float x = u[0], y = u[1], z = u[2];
        a[0] = 1, a[1] = x, a[2] = y, a[3] = z;
        a[4] = x * y, a[5] = y * z, a[6] = x * z;
        a[7] = (x - z) * (x + z), a[8] = (y - z) * (y + z);
    }
};

// A symmetric traceless matrix, given by the derivatives by quadrics, times a vector.
inline void contracted(const Vector* t, const Vector* v, Vector* product) {
    product[0] = t[0] * v[1] + t[2] * v[2] + 2.0f * (t[3] * v[0]);
    product[1] = t[0] * v[0] + t[1] * v[2] + 2.0f * (t[4] * v[1]);
    product[2] = t[1] * v[1] + t[2] * v[0] - 2.0f * ((t[3] + t[4]) * v[2]);
}

// Half the derivatives of the norm of second moments by them.
inline void as_matrices(const Vector* t, Vector* matrices) {
    for (int a = 0; a < 3; ++a) matrices[a] = 3.0f * t[a];
    matrices[3] = t[3] - 0.5f * t[4];
    matrices[4] = t[4] - 0.5f * t[3];
}

struct FirstBlock {
    Array embedding, channels;                     // (E, F), (E, C), as the parameters are
    Array embedding_gradient, channel_gradient;    // (E, FP), (E, C, RP)
    Weight scalars{{F}, {N_MOMENTS}, true}, vectors{{F}, {N_MOMENTS}, true};
    Weight mixes{{T ? T : 1}, {N_MOMENTS}, true}, vector_mixes{{T ? T : 1}, {F}};
    Weight norm_scalars{{F}, {T ? T : 1}}, product_vectors{{F}, {T ? T : 1}};
    Array by_element;                              // (N, E, A, RP)
    std::vector<std::uint8_t> is_near;             // (N, E)
    Array zeroth, firsts, seconds;                 // moments (N, NP), (N, 3, NP), (N, 5, NP)
    Array plain_vectors, matrices, norms, turned, products;
    Array by_norms, by_products;

    void resize(std::size_t n) {
        by_element.resize(n * E * A * RP);
        is_near.resize(std::max(is_near.size(), n * E));
        zeroth.resize(n * NP + RP);
        firsts.resize(3 * n * NP + RP);
        if (!T) return;
        seconds.resize(5 * n * NP + RP);
        plain_vectors.resize(3 * n * FP);
        matrices.resize(5 * n * TP);
        for (Array* array : {&norms, &by_norms}) array->resize(n * TP);
        for (Array* array : {&turned, &products, &by_products}) array->resize(3 * n * TP);
    }

    // Row of moments of component a of an atom.
    float* moments(int atom, int a) {
        if (a == 0) return zeroth + std::size_t(atom) * NP;
        if (a < 4) return firsts + (std::size_t(atom) * 3 + a - 1) * NP;
        return seconds + (std::size_t(atom) * 5 + a - 4) * NP;
    }

    void gather(Pairs& pairs, const std::int32_t* species) {
        const int n = pairs.n_atoms;
        std::fill_n(static_cast<float*>(by_element), std::size_t(n) * E * A * RP, 0.0f);
        std::fill_n(is_near.begin(), std::size_t(n) * E, 0);
        for (int p = 0; p < pairs.n_pairs; ++p) {
            const int i = pairs.i(p), j = pairs.j(p);
            const Components y(pairs.directions + 4 * p);
            const std::size_t of_i = std::size_t(i) * E + species[j];
            const std::size_t of_j = std::size_t(j) * E + species[i];
            is_near[of_i] = is_near[of_j] = 1;
            float *to_i = by_element + of_i * A * RP, *to_j = by_element + of_j * A * RP;
            for (int r = 0; r < RP; r += W) {
                const Vector g = load(pairs.radial + std::size_t(p) * RP + r);
                for (int a = 0; a < A; ++a) {
                    const Vector term = y.a[a] * g;
                    add_to(to_i + a * RP + r, term);
                    add_to(to_j + a * RP + r, a >= 1 && a < 4 ? -term : term);
                }
            }
        }
        for (int i = 0; i < n; ++i)
            for (int a = 0; a < A; ++a) mix_elements(i, a);
    }

    void mix_elements(int i, int a) {
        constexpr int VECTORS = RP / W;
        float* row = moments(i, a);
        Vector sums[C][VECTORS] = {};
        for (int e = 0; e < E; ++e) {
            if (!is_near[std::size_t(i) * E + e]) continue;
            const float* one = by_element + ((std::size_t(i) * E + e) * A + a) * RP;
            for (int c = 0; c < C; ++c)
                for (int k = 0; k < VECTORS; ++k) sums[c][k] += channels[e * C + c] * load(one + k * W);
        }
        for (int c = 0; c < C; ++c)
            for (int k = 0; k < VECTORS; ++k) store(row + c * R + k * W, sums[c][k]);
    }

    // Scalars are written with rows of `row`.
    void forward(Pairs& pairs, const std::int32_t* species, float* s, int row, float* v) {
        const int n = pairs.n_atoms;
        gather(pairs, species);
        for (int i = 0; i < n; ++i)
            std::copy_n(embedding + std::size_t(species[i]) * F, F, s + std::size_t(i) * row);
        scalars.apply(n, zeroth, NP, s, row, s, row);
        if (!T) {
            vectors.apply(3 * n, firsts, NP, v, FP);
            return;
        }
        vectors.apply(3 * n, firsts, NP, plain_vectors, FP);
        mixes.apply(5 * n, seconds, NP, matrices, TP);
        vector_mixes.apply(3 * n, plain_vectors, FP, turned, TP);
        for (int i = 0; i < n; ++i)
            for (int c = 0; c < TP; c += W) {
                Vector mixed[5], halves[5], vector[3], product[3];
                float *t = matrices + std::size_t(i) * 5 * TP + c;
                for (int a = 0; a < 5; ++a) mixed[a] = load(t + a * TP);
                as_matrices(mixed, halves);
                Vector norm = all(1.0f);
                for (int a = 0; a < 5; ++a) norm += mixed[a] * halves[a];
                for (int a = 0; a < 5; ++a) store(t + a * TP, halves[a]);
                store(norms + std::size_t(i) * TP + c, matrix::square_root(norm));
                const std::size_t at = std::size_t(i) * 3 * TP + c;
                for (int a = 0; a < 3; ++a) vector[a] = load(turned + at + a * TP);
                contracted(halves, vector, product);
                for (int a = 0; a < 3; ++a) store(products + at + a * TP, product[a]);
            }
        norm_scalars.apply(n, norms, TP, s, row, s, row);
        product_vectors.apply(3 * n, products, TP, v, FP, plain_vectors, FP);
    }

    // Gradients by moments replace the moments.
    void backward(Pairs& pairs, const std::int32_t* species, const float* by_s, float* by_v,
                  bool is_learning, bool is_moving) {
        const int n = pairs.n_atoms;
        if (T) back_seconds(n, by_s, by_v, is_learning);
        if (is_learning) {
            scalars.learn(n, by_s, FP, zeroth, NP);
            vectors.learn(3 * n, by_v, FP, firsts, NP);
            for (int i = 0; i < n; ++i)
                for (int f = 0; f < FP; f += W)
                    add_to(embedding_gradient + species[i] * FP + f,
                           load(by_s + std::size_t(i) * FP + f));
        }
        scalars.apply_back(n, by_s, FP, zeroth, NP);
        vectors.apply_back(3 * n, by_v, FP, firsts, NP);
        for (int i = 0; i < n; ++i) back_elements(i, is_learning);
        if (is_moving) back_pairs<true>(pairs, species);
        else back_pairs<false>(pairs, species);
    }

    void back_seconds(int n, const float* by_s, float* by_v, bool is_learning) {
        if (is_learning) {
            norm_scalars.learn(n, by_s, FP, norms, TP);
            product_vectors.learn(3 * n, by_v, FP, products, TP);
        }
        norm_scalars.apply_back(n, by_s, FP, by_norms, TP);
        product_vectors.apply_back(3 * n, by_v, FP, by_products, TP);
        for (int i = 0; i < n; ++i)
            for (int c = 0; c < TP; c += W) {
                Vector halves[5], q[5], by_mixed[5], v[3], by_product[3], by_turned[3];
                float* t = matrices + std::size_t(i) * 5 * TP + c;
                const std::size_t at = std::size_t(i) * 3 * TP + c;
                for (int a = 0; a < 5; ++a) halves[a] = load(t + a * TP);
                for (int a = 0; a < 3; ++a) {
                    v[a] = load(turned + at + a * TP);
                    by_product[a] = load(by_products + at + a * TP);
                }
                const Vector zz = v[2] * by_product[2];
                q[0] = v[0] * by_product[1] + v[1] * by_product[0];
                q[1] = v[1] * by_product[2] + v[2] * by_product[1];
                q[2] = v[0] * by_product[2] + v[2] * by_product[0];
                q[3] = 2.0f * (v[0] * by_product[0] - zz);
                q[4] = 2.0f * (v[1] * by_product[1] - zz);
                as_matrices(q, by_mixed);
                const std::size_t of_norm = std::size_t(i) * TP + c;
                const Vector ratio = load(by_norms + of_norm) / load(norms + of_norm);
                contracted(halves, by_product, by_turned);
                for (int a = 0; a < 5; ++a) store(t + a * TP, by_mixed[a] + halves[a] * ratio);
                for (int a = 0; a < 3; ++a) store(by_products + at + a * TP, by_turned[a]);
            }
        // `matrices` now holds gradients by the mixed moments, `by_products` those by `turned`.
        if (is_learning) {
            mixes.learn(5 * n, matrices, TP, seconds, NP);
            vector_mixes.learn(3 * n, by_products, TP, plain_vectors, FP);
        }
        vector_mixes.apply_back(3 * n, by_products, TP, by_v, FP, by_v, FP);
        mixes.apply_back(5 * n, matrices, TP, seconds, NP);
    }

    // Gradients by the sums over neighbors of one element replace the sums.
    void back_elements(int i, bool is_learning) {
        for (int e = 0; e < E; ++e) {
            if (!is_near[std::size_t(i) * E + e]) continue;
            const float* h = channels + e * C;
            float* sums = by_element + (std::size_t(i) * E + e) * A * RP;
            for (int r = 0; r < RP; r += W) {
                Vector by_channels[C] = {};
                for (int a = 0; a < A; ++a) {
                    const float* by_moments = moments(i, a) + r;
                    const Vector old = load(sums + a * RP + r);
                    Vector by_sum{};
                    for (int c = 0; c < C; ++c) {
                        const Vector by = load(by_moments + c * R);
                        by_sum += h[c] * by;
                        by_channels[c] += old * by;
                    }
                    store(sums + a * RP + r, by_sum);
                }
                if (!is_learning) continue;
                for (int c = 0; c < C; ++c)
                    add_to(channel_gradient + (e * C + c) * RP + r, by_channels[c]);
            }
        }
    }

    template <bool MOVING>
    void back_pairs(Pairs& pairs, const std::int32_t* species) {
        for (int p = 0; p < pairs.n_pairs; ++p) {
            const int i = pairs.i(p), j = pairs.j(p);
            const float* u = pairs.directions + 4 * p;
            const Components y(u);
            const float* to_i = by_element + (std::size_t(i) * E + species[j]) * A * RP;
            const float* to_j = by_element + (std::size_t(j) * E + species[i]) * A * RP;
            for (int r = 0; r < RP; r += W) {
                Vector by[A], by_radial{};
                for (int a = 0; a < A; ++a) {
                    const Vector of_i = load(to_i + a * RP + r), of_j = load(to_j + a * RP + r);
                    by[a] = a >= 1 && a < 4 ? of_i - of_j : of_i + of_j;
                    by_radial += y.a[a] * by[a];
                }
                add_to(pairs.by_radial + std::size_t(p) * RP + r, by_radial);
                if constexpr (MOVING) {
                    const Vector g = load(pairs.radial + std::size_t(p) * RP + r);
                    Vector by_u[3] = {by[1], by[2], by[3]}, product[3];
                    if constexpr (A == 9) {
                        const Vector v[3] = {all(u[0]), all(u[1]), all(u[2])};
                        contracted(by + 4, v, product);
                        for (int x = 0; x < 3; ++x) by_u[x] += product[x];
                    }
                    for (int x = 0; x < 3; ++x)
                        add_to(pairs.by_directions + (std::size_t(p) * 3 + x) * W, g * by_u[x]);
                }
            }
        }
    }
};

struct Update {
    bool is_last;
    int n_gates;
    Weight mixes{{F, 2}, {F}};
    Perceptron perceptron;
    Array inputs, vectors;             // (N, 2 FP): scalars, norms; (N, 3, FP)
    Array mixed, dots, gates;          // (N, 3, 2 FP), (N, FP), (N, 2 or 3 FP)
    Array by_gates, by_inputs, by_mixed;

    explicit Update(bool is_last_one)
        : is_last(is_last_one),
          n_gates(is_last_one ? 2 : 3),
          perceptron({F, 2}, {H}, {F, n_gates}) {}

    void resize(std::size_t n) {
        perceptron.resize(n);
        for (Array* array : {&inputs, &by_inputs}) array->resize(n * 2 * FP);
        vectors.resize(n * 3 * FP);
        for (Array* array : {&mixed, &by_mixed}) array->resize(n * 6 * FP);
        dots.resize(n * FP);
        for (Array* array : {&gates, &by_gates}) array->resize(n * n_gates * FP);
    }

    // Inputs are in `inputs` and `vectors`.
    void forward(int n, float* s, float* v) {
        mixes.apply(3 * n, vectors, FP, mixed, 2 * FP);
        for (int i = 0; i < n; ++i)
            for (int f = 0; f < FP; f += W) {
                const float* mix = mixed + std::size_t(i) * 6 * FP + f;
                Vector square = all(1.0f), dot{};
                for (int x = 0; x < 3; ++x) {
                    const Vector a = load(mix + x * 2 * FP), b = load(mix + x * 2 * FP + FP);
                    square += b * b;
                    dot += a * b;
                }
                store(inputs + std::size_t(i) * 2 * FP + FP + f, matrix::square_root(square));
                store(dots + std::size_t(i) * FP + f, dot);
            }
        perceptron.apply(n, inputs, 2 * FP, gates);
        for (int i = 0; i < n; ++i)
            for (int f = 0; f < FP; f += W) {
                const float* gate = gates + std::size_t(i) * n_gates * FP + f;
                const std::size_t at = std::size_t(i) * FP + f;
                store(s + at, load(inputs + std::size_t(i) * 2 * FP + f) + load(gate) +
                                  load(gate + FP) * load(dots + at));
                if (is_last) continue;
                const Vector by_vectors = load(gate + 2 * FP);
                for (int x = 0; x < 3; ++x) {
                    const std::size_t row = std::size_t(i) * 3 + x;
                    store(v + row * FP + f, load(vectors + row * FP + f) +
                                                by_vectors * load(mixed + row * 2 * FP + f));
                }
            }
    }

    // Turns gradients by outputs into those by inputs; the last block only sets `by_v`.
    void backward(int n, float* by_s, float* by_v, bool is_learning) {
        for (int i = 0; i < n; ++i)
            for (int f = 0; f < FP; f += W) {
                const std::size_t at = std::size_t(i) * FP + f;
                const float* gate = gates + std::size_t(i) * n_gates * FP + f;
                float* by_gate = by_gates + std::size_t(i) * n_gates * FP + f;
                const Vector by = load(by_s + at), into_dots = by * load(gate + FP);
                store(by_gate, by);
                store(by_gate + FP, by * load(dots + at));
                Vector along{};
                for (int x = 0; x < 3; ++x) {
                    const std::size_t row = std::size_t(i) * 3 + x;
                    const Vector u = load(mixed + row * 2 * FP + f);
                    const Vector v = load(mixed + row * 2 * FP + FP + f);
                    Vector by_u = into_dots * v;
                    if (!is_last) {
                        const Vector by_vector = load(by_v + row * FP + f);
                        along += by_vector * u;
                        by_u += by_vector * load(gate + 2 * FP);
                    }
                    store(by_mixed + row * 2 * FP + f, by_u);
                    store(by_mixed + row * 2 * FP + FP + f, into_dots * u);
                }
                if (!is_last) store(by_gate + 2 * FP, along);
            }
        perceptron.back(n, by_gates, inputs, 2 * FP, by_inputs, 2 * FP, nullptr, is_learning);
        for (int i = 0; i < n; ++i)
            for (int f = 0; f < FP; f += W) {
                const std::size_t at = std::size_t(i) * 2 * FP + f;
                add_to(by_s + std::size_t(i) * FP + f, load(by_inputs + at));
                const Vector ratio = load(by_inputs + at + FP) / load(inputs + at + FP);
                for (int x = 0; x < 3; ++x) {
                    const std::size_t of_v = (std::size_t(i) * 3 + x) * 2 * FP + FP + f;
                    add_to(by_mixed + of_v, ratio * load(mixed + of_v));
                }
            }
        if (is_learning) mixes.learn(3 * n, by_mixed, 2 * FP, vectors, FP);
        mixes.apply_back(3 * n, by_mixed, 2 * FP, by_v, FP, is_last ? nullptr : by_v, FP);
    }
};

struct Interaction {
    Array filters_forward, filters_backward, filters_gradient;  // (R, 3 MP), (3 MP, RP), (R, 3 MP)
    Perceptron senders{{F}, {H}, {M, 3}};
    Weight vector_senders{{M}, {F}}, scalars{{F}, {M}}, vectors{{F}, {M}};
    Array inputs, input_vectors;        // (N, FP), (N, 3, FP): the outputs of the last update
    Array gates, carriers, carried;     // (N, 3 MP): plain, gate, directed; (N, 3, MP)
    Array sums, vector_sums;            // (N, MP), (N, 3, MP)
    Array filters, by_filters;          // (P, 3 MP)
    Array by_gates, by_carried, by_sums, by_vector_sums;

    void resize(std::size_t n, std::size_t n_pairs) {
        senders.resize(n);
        inputs.resize(n * FP);
        input_vectors.resize(n * 3 * FP);
        for (Array* array : {&gates, &by_gates}) array->resize(n * 3 * MP);
        for (Array* array : {&carriers, &carried, &by_carried, &vector_sums, &by_vector_sums})
            array->resize(n * 3 * MP);
        for (Array* array : {&sums, &by_sums}) array->resize(n * MP);
        for (Array* array : {&filters, &by_filters}) array->resize(n_pairs * 3 * MP);
    }

    void pack_filters(const float* values) {
        filters_forward.resize(R * 3 * MP);
        filters_backward.resize(3 * MP * RP);
        for (int part = 0; part < 3; ++part)
            for (int r = 0; r < R; ++r)
                for (int m = 0; m < M; ++m) {
                    const float value = values[(part * R + r) * M + m];
                    filters_forward[(r * 3 + part) * MP + m] = value;
                    filters_backward[(part * MP + m) * RP + r] = value;
                }
    }

    void unpack_filters(float* to) {
        for (int part = 0; part < 3; ++part)
            for (int r = 0; r < R; ++r)
                for (int m = 0; m < M; ++m) *to++ = filters_gradient[(r * 3 + part) * MP + m];
    }

    // Scalars are written with rows of `row`.
    void forward(Pairs& pairs, float* s, int row, float* v) {
        const int n = pairs.n_atoms;
        senders.apply(n, inputs, FP, gates);
        vector_senders.apply(3 * n, input_vectors, FP, carriers, MP);
        matrix::multiply(pairs.n_pairs, 3 * MP, R, {pairs.radial, RP, 1}, filters_forward, 3 * MP,
                         filters, 3 * MP, nullptr, 0);
        for (int i = 0; i < n; ++i)
            for (int m = 0; m < MP; m += W) {
                const Vector gate = load(gates + (std::size_t(i) * 3 + 1) * MP + m);
                for (int x = 0; x < 3; ++x) {
                    const std::size_t at = (std::size_t(i) * 3 + x) * MP + m;
                    store(carried + at, gate * load(carriers + at));
                }
            }
        std::fill_n(static_cast<float*>(sums), std::size_t(n) * MP, 0.0f);
        std::fill_n(static_cast<float*>(vector_sums), std::size_t(n) * 3 * MP, 0.0f);
        for (int m = 0; m < MP; m += W) send(pairs, m);
        scalars.apply(n, sums, MP, s, row, inputs, FP);
        vectors.apply(3 * n, vector_sums, MP, v, FP, input_vectors, FP);
    }

    // Messages of 16 channels from m on. Pairs are sorted by their first atoms.
    void send(Pairs& pairs, int m) {
        for (int p = 0; p < pairs.n_pairs;) {
            const int i = pairs.i(p);
            const std::size_t at_i = std::size_t(i) * MP + m, rows_i = std::size_t(i) * 3 * MP + m;
            const Vector plain = load(gates + rows_i), directed = load(gates + rows_i + 2 * MP);
            Vector own[3], total{}, totals[3] = {};
            for (int x = 0; x < 3; ++x) own[x] = load(carried + rows_i + x * MP);
            for (; p < pairs.n_pairs && pairs.i(p) == i; ++p) {
                const int j = pairs.j(p);
                const std::size_t rows_j = std::size_t(j) * 3 * MP + m;
                const float *w = filters + std::size_t(p) * 3 * MP + m, *u = pairs.directions + 4 * p;
                const Vector w1 = load(w), w2 = load(w + MP), w3 = load(w + 2 * MP);
                const Vector to_i = w3 * load(gates + rows_j + 2 * MP), to_j = w3 * directed;
                total += w1 * load(gates + rows_j);
                add_to(sums + std::size_t(j) * MP + m, w1 * plain);
                for (int x = 0; x < 3; ++x) {
                    totals[x] += w2 * load(carried + rows_j + x * MP) + u[x] * to_i;
                    add_to(vector_sums + rows_j + x * MP, w2 * own[x] - u[x] * to_j);
                }
            }
            add_to(sums + at_i, total);
            for (int x = 0; x < 3; ++x) add_to(vector_sums + rows_i + x * MP, totals[x]);
        }
    }

    // Turns gradients by outputs into those by inputs.
    void backward(Pairs& pairs, float* by_s, float* by_v, bool is_learning, bool is_moving) {
        const int n = pairs.n_atoms;
        scalars.apply_back(n, by_s, FP, by_sums, MP);
        vectors.apply_back(3 * n, by_v, FP, by_vector_sums, MP);
        if (is_learning) {
            scalars.learn(n, by_s, FP, sums, MP);
            vectors.learn(3 * n, by_v, FP, vector_sums, MP);
        }
        std::fill_n(static_cast<float*>(by_gates), std::size_t(n) * 3 * MP, 0.0f);
        std::fill_n(static_cast<float*>(by_carried), std::size_t(n) * 3 * MP, 0.0f);
        for (int m = 0; m < MP; m += W)
            if (is_moving) send_back<true>(pairs, m);
            else send_back<false>(pairs, m);
        matrix::multiply(pairs.n_pairs, RP, 3 * MP, {by_filters, 3 * MP, 1}, filters_backward, RP,
                         pairs.by_radial, RP, pairs.by_radial, RP);
        if (is_learning)
            matrix::multiply(R, 3 * MP, pairs.n_pairs, {pairs.radial, 1, RP}, by_filters, 3 * MP,
                             filters_gradient, 3 * MP, filters_gradient, 3 * MP);
        for (int i = 0; i < n; ++i)
            for (int m = 0; m < MP; m += W) {
                const std::size_t rows = std::size_t(i) * 3 * MP + m;
                const Vector gate = load(gates + rows + MP);
                Vector by_gate{};
                for (int x = 0; x < 3; ++x) {
                    const Vector by = load(by_carried + rows + x * MP);
                    by_gate += by * load(carriers + rows + x * MP);
                    store(by_carried + rows + x * MP, by * gate);
                }
                store(by_gates + rows + MP, by_gate);
            }
        // `by_carried` now holds gradients by the carriers.
        if (is_learning) vector_senders.learn(3 * n, by_carried, MP, input_vectors, FP);
        vector_senders.apply_back(3 * n, by_carried, MP, by_v, FP, by_v, FP);
        senders.back(n, by_gates, inputs, FP, by_s, FP, by_s, is_learning);
    }

    template <bool MOVING>
    void send_back(Pairs& pairs, int m) {
        for (int p = 0; p < pairs.n_pairs;) {
            const int i = pairs.i(p);
            const std::size_t at_i = std::size_t(i) * MP + m, rows_i = std::size_t(i) * 3 * MP + m;
            const Vector plain = load(gates + rows_i), directed = load(gates + rows_i + 2 * MP);
            const Vector by_sum = load(by_sums + at_i);
            Vector own[3], by_sums_i[3], by_own[3] = {}, by_plain{}, by_directed{};
            for (int x = 0; x < 3; ++x) {
                own[x] = load(carried + rows_i + x * MP);
                by_sums_i[x] = load(by_vector_sums + rows_i + x * MP);
            }
            for (; p < pairs.n_pairs && pairs.i(p) == i; ++p) {
                const int j = pairs.j(p);
                const std::size_t at_j = std::size_t(j) * MP + m, rows_j = std::size_t(j) * 3 * MP + m;
                const float *w = filters + std::size_t(p) * 3 * MP + m, *u = pairs.directions + 4 * p;
                const Vector w1 = load(w), w2 = load(w + MP), w3 = load(w + 2 * MP);
                const Vector by_sum_j = load(by_sums + at_j);
                const Vector directed_j = load(gates + rows_j + 2 * MP);
                Vector by_sums_j[3], by_w2{}, along_i{}, along_j{};
                for (int x = 0; x < 3; ++x) {
                    by_sums_j[x] = load(by_vector_sums + rows_j + x * MP);
                    by_w2 += by_sums_i[x] * load(carried + rows_j + x * MP) + by_sums_j[x] * own[x];
                    along_i += u[x] * by_sums_i[x];
                    along_j -= u[x] * by_sums_j[x];
                    by_own[x] += w2 * by_sums_j[x];
                    add_to(by_carried + rows_j + x * MP, w2 * by_sums_i[x]);
                }
                by_plain += w1 * by_sum_j;
                by_directed += w3 * along_j;
                float* by_w = by_filters + std::size_t(p) * 3 * MP + m;
                store(by_w, by_sum * load(gates + rows_j) + by_sum_j * plain);
                store(by_w + MP, by_w2);
                store(by_w + 2 * MP, along_i * directed_j + along_j * directed);
                add_to(by_gates + rows_j, w1 * by_sum);
                add_to(by_gates + rows_j + 2 * MP, w3 * along_i);
                if constexpr (MOVING) {
                    const Vector to_i = w3 * directed_j, to_j = w3 * directed;
                    for (int x = 0; x < 3; ++x)
                        add_to(pairs.by_directions + (std::size_t(p) * 3 + x) * W,
                               to_i * by_sums_i[x] - to_j * by_sums_j[x]);
                }
            }
            add_to(by_gates + rows_i, by_plain);
            add_to(by_gates + rows_i + 2 * MP, by_directed);
            for (int x = 0; x < 3; ++x) add_to(by_carried + rows_i + x * MP, by_own[x]);
        }
    }
};

// (1 - (d / cutoff)²)³ and its slope; see geometry.py.
inline void envelope(float d, float cutoff, float& value, float& slope) {
    const float ratio = d / cutoff, inside = std::max(0.0f, 1.0f - ratio * ratio);
    const float square = inside * inside;
    value = square * inside;
    slope = square * d * (-6.0f / (cutoff * cutoff));
}

// The same, but also zero up to `nearest`.
inline void envelope_between(float d, float nearest, float cutoff, float& value, float& slope) {
    const float ratio = d / cutoff, inside = std::max(0.0f, 1.0f - ratio * ratio);
    const float rate = 5.0f / nearest;
    const float w = std::min(1.0f, std::max(0.0f, 6.0f - d * rate)), square = w * w;
    const float seen = 1.0f - square * w, product = seen * inside;
    const float steepness = inside * square * rate * 9.0f + seen * d * (-6.0f / (cutoff * cutoff));
    value = product * product * product;
    slope = product * product * steepness;
}

// Screened nuclear repulsion of a pair and its slope; see repulsion.py.
struct Repulsion {
    const float* table;  // (E, 3): charge, screening, covalent radius
    const float *weights, *rates;

    bool reaches(int a, int b, float d) const {
        return d < table[TABLE * a + 2] + table[TABLE * b + 2];
    }

    void evaluate(int a, int b, float d, float& energy, float& slope) const {
        const float *first = table + TABLE * a, *second = table + TABLE * b;
        const float inverse_length = first[1] + second[1];
        float sum = 0, sloped = 0, fade, fade_slope;
        for (int k = 0; k < 4; ++k) {
            const float term = weights[k] * std::exp(-rates[k] * (d * inverse_length));
            sum += term;
            sloped += rates[k] * term;
        }
        const float coulomb = first[0] * second[0] / d, screened = coulomb * sum;
        envelope(d, first[2] + second[2], fade, fade_slope);
        energy = screened * fade;
        slope = (-coulomb * inverse_length * sloped - screened / d) * fade + screened * fade_slope;
    }
};

struct Outputs {
    double* energies;        // (N,)
    double* forces;          // (N, 3) or null
    double* virials;         // (N, 9) or null
};

struct Batch {
    Index n_structures;
    const Index *atom_splits, *pair_splits;
    const std::int32_t *species, *first, *second;
    const double *positions, *shifts;  // (N, 3), (P, 3) or null
    const double* seeds;               // (N,) or null for ones
};

class Network {
public:
    Network(float cutoff, float inner_cutoff, float rate, Repulsion repulsion, int chunk)
        : cutoff_(cutoff), inner_(inner_cutoff), rate_(rate), chunk_(chunk), repulsion_(repulsion) {
        for (int b = 0; b < BLOCKS; ++b) updates_.push_back(std::make_unique<Update>(b == BLOCKS - 1));
        for (int b = 1; b < BLOCKS; ++b) interactions_.push_back(std::make_unique<Interaction>());
    }

    // Reads the parameters in the order of the torch module.
    void set_weights(const float* const* values) {
        copy(centers_, *values++, R, RP);
        copy(inverse_widths_, *values++, R, RP);
        copy(first_.embedding, *values++, E * F, E * F);
        copy(first_.channels, *values++, E * C, E * C);
        visit_weights([&](Weight& weight) { weight.pack(*values++); },
                      [&](Bias& bias) { bias.pack(*values++); },
                      [&](Interaction& block) { block.pack_filters(*values++); });
    }

    // Writes the gradients of the last call, joined in the order of the parameters.
    void gradients(float* to) {
        std::copy_n(static_cast<float*>(center_gradient_), R, to);
        std::copy_n(static_cast<float*>(width_gradient_), R, to + R);
        to += 2 * R;
        for (int e = 0; e < E; ++e, to += F)
            std::copy_n(first_.embedding_gradient + e * FP, F, to);
        for (int k = 0; k < E * C; ++k) {
            float total = 0;
            for (int r = 0; r < R; ++r) total += first_.channel_gradient[k * RP + r];
            *to++ = total;
        }
        visit_weights(
            [&](Weight& weight) {
                weight.unpack(to);
                to += weight.out.total() * weight.in.total();
            },
            [&](Bias& bias) {
                bias.unpack(to);
                to += bias.axis.total();
            },
            [&](Interaction& block) {
                block.unpack_filters(to);
                to += 3 * R * M;
            });
    }

    void evaluate(const Batch& batch, const Outputs& outputs, bool is_learning) {
        if (is_learning) clear();
        for (Index s = 0; s < batch.n_structures;) {
            Index end = s + 1;
            const Index atoms = batch.atom_splits[s];
            while (end < batch.n_structures && batch.atom_splits[end + 1] - atoms <= chunk_) ++end;
            run(batch, outputs, s, end, is_learning);
            s = end;
        }
    }

private:
    float cutoff_, inner_, rate_;
    int chunk_;
    Repulsion repulsion_;
    FirstBlock first_;
    std::vector<std::unique_ptr<Update>> updates_;
    std::vector<std::unique_ptr<Interaction>> interactions_;
    Perceptron readout_{{F}, {O}, {1}};
    Array centers_, inverse_widths_, center_gradient_, width_gradient_;
    Array scalars_, by_scalars_, by_vectors_, seeds_;
    Pairs pairs_;
    std::size_t atoms_ = 0, n_pairs_ = 0;

    static void copy(Array& to, const float* from, int n, int size) {
        std::copy_n(from, n, to.resize(size));
    }

    template <class OfWeight, class OfBias, class OfFilters>
    void visit_weights(OfWeight weight, OfBias bias, OfFilters filters) {
        const auto both = [&](Perceptron& perceptron) {
            weight(perceptron.first);
            bias(perceptron.first_bias);
            weight(perceptron.second);
            bias(perceptron.second_bias);
        };
        weight(first_.scalars);
        weight(first_.vectors);
        if (T)
            for (Weight* one : {&first_.mixes, &first_.vector_mixes, &first_.norm_scalars,
                                &first_.product_vectors})
                weight(*one);
        for (auto& block : interactions_) {
            filters(*block);
            both(block->senders);
            weight(block->vector_senders);
            weight(block->scalars);
            weight(block->vectors);
        }
        for (auto& block : updates_) {
            weight(block->mixes);
            both(block->perceptron);
        }
        both(readout_);
    }

    void clear() {
        std::fill_n(center_gradient_.resize(RP), RP, 0.0f);
        std::fill_n(width_gradient_.resize(RP), RP, 0.0f);
        std::fill_n(first_.embedding_gradient.resize(E * FP), E * FP, 0.0f);
        std::fill_n(first_.channel_gradient.resize(E * C * RP), E * C * RP, 0.0f);
        visit_weights([](Weight& weight) { weight.clear(); }, [](Bias& bias) { bias.clear(); },
                      [](Interaction& block) {
                          std::fill_n(block.filters_gradient.resize(R * 3 * MP), R * 3 * MP, 0.0f);
                      });
    }

    void resize(std::size_t n, std::size_t n_pairs) {
        if (n > atoms_) {
            atoms_ = n + n / 4;
            first_.resize(atoms_);
            for (auto& block : updates_) block->resize(atoms_);
            readout_.resize(atoms_);
            scalars_.resize(atoms_ * FP);
            by_scalars_.resize(atoms_ * FP);
            by_vectors_.resize(atoms_ * 3 * FP);
            seeds_.resize(atoms_);
        }
        if (n_pairs > n_pairs_) {
            n_pairs_ = n_pairs + n_pairs / 4;
            pairs_.directions.resize(4 * n_pairs_ + W);
            pairs_.stretched.resize(n_pairs_);
            pairs_.repulsion_slopes.resize(n_pairs_);
            for (Array* array : {&pairs_.radial, &pairs_.slopes, &pairs_.by_radial})
                array->resize(n_pairs_ * RP);
            pairs_.by_directions.resize(n_pairs_ * 3 * W);
        }
        for (auto& block : interactions_) block->resize(atoms_, n_pairs_);
    }

    void run(const Batch& batch, const Outputs& outputs, Index begin, Index end, bool is_learning) {
        const Index atom = batch.atom_splits[begin], pair = batch.pair_splits[begin];
        const int n = int(batch.atom_splits[end] - atom);
        const std::int32_t* species = batch.species + atom;
        const bool is_moving = outputs.forces != nullptr;
        pairs_.n_atoms = n;
        pairs_.n_pairs = int(batch.pair_splits[end] - pair);
        pairs_.first = batch.first + pair;
        pairs_.second = batch.second + pair;
        pairs_.offset = int(atom);
        resize(n, pairs_.n_pairs);
        for (int i = 0; i < n; ++i)
            seeds_[i] = batch.seeds == nullptr ? 1.0f : float(batch.seeds[atom + i]);
        const double* shifts = batch.shifts == nullptr ? nullptr : batch.shifts + 3 * pair;
        double* energies = outputs.energies + atom;
        std::fill_n(energies, n, 0.0);
        measure(batch.positions + 3 * atom, shifts, species, energies);
        forward(species, energies);
        if (!is_learning && !is_moving) return;
        const std::size_t P = pairs_.n_pairs;
        std::fill_n(static_cast<float*>(pairs_.by_radial), P * RP, 0.0f);
        if (is_moving) std::fill_n(static_cast<float*>(pairs_.by_directions), P * 3 * W, 0.0f);
        backward(species, is_learning, is_moving);
        if (is_learning) learn_basis();
        if (is_moving)
            push(batch.positions + 3 * atom, shifts, outputs.forces + 3 * atom,
                 outputs.virials == nullptr ? nullptr : outputs.virials + 9 * atom);
    }

    void vector_of(const double* positions, const double* shifts, int p, float* r) const {
        const double *from = positions + 3 * pairs_.i(p), *to = positions + 3 * pairs_.j(p);
        for (int x = 0; x < 3; ++x)
            r[x] = float(to[x] - from[x] + (shifts == nullptr ? 0.0 : shifts[3 * p + x]));
    }

    // Distances, directions and radial functions with slopes, and the repulsion.
    void measure(const double* positions, const double* shifts, const std::int32_t* species,
                 double* energies) {
        for (int p = 0; p < pairs_.n_pairs; ++p) {
            float r[3], smooth, smooth_slope;
            vector_of(positions, shifts, p, r);
            const float d = std::sqrt(r[0] * r[0] + r[1] * r[1] + r[2] * r[2]);
            float* u = pairs_.directions + 4 * p;
            for (int x = 0; x < 3; ++x) u[x] = r[x] / d;
            u[3] = 1.0f / d;
            const int i = pairs_.i(p), j = pairs_.j(p), a = species[i], b = species[j];
            pairs_.repulsion_slopes[p] = 0.0f;
            if (repulsion_.reaches(a, b, d)) {
                float energy, slope;
                repulsion_.evaluate(a, b, d, energy, slope);
                // Half of a pair's repulsion belongs to each of its atoms.
                energies[i] += 0.5 * energy;
                energies[j] += 0.5 * energy;
                pairs_.repulsion_slopes[p] = slope * 0.5f * (seeds_[i] + seeds_[j]);
            }
            if (inner_ > 0.0f)
                envelope_between(
                    d, inner_ * (repulsion_.table[TABLE * a + 2] + repulsion_.table[TABLE * b + 2]),
                    cutoff_, smooth, smooth_slope);
            else
                envelope(d, cutoff_, smooth, smooth_slope);
            const float stretched = std::exp(-rate_ * d);
            pairs_.stretched[p] = stretched;
            for (int k = 0; k < RP; k += W) {
                const Vector width = load(inverse_widths_ + k);
                const Vector reduced = (stretched - load(centers_ + k)) * width;
                Vector gaussian = matrix::exponential(-reduced * reduced);
                for (int lane = 0; lane < W; ++lane)
                    if (k + lane >= R) gaussian[lane] = 0.0f;
                const Vector value = gaussian * smooth;
                store(pairs_.radial + std::size_t(p) * RP + k, value);
                store(pairs_.slopes + std::size_t(p) * RP + k,
                      gaussian * smooth_slope + value * reduced * (2.0f * rate_ * stretched * width));
            }
        }
    }

    void forward(const std::int32_t* species, double* energies) {
        const int n = pairs_.n_atoms;
        first_.forward(pairs_, species, updates_[0]->inputs, 2 * FP, updates_[0]->vectors);
        for (int b = 0; b < BLOCKS; ++b) {
            if (b > 0)
                interactions_[b - 1]->forward(pairs_, updates_[b]->inputs, 2 * FP,
                                              updates_[b]->vectors);
            const bool is_last = b == BLOCKS - 1;
            updates_[b]->forward(n, is_last ? scalars_ : interactions_[b]->inputs,
                                 is_last ? nullptr : static_cast<float*>(interactions_[b]->input_vectors));
        }
        readout_.apply_first(n, scalars_, FP);
        const float bias = readout_.second_bias.values[0];
        for (int i = 0; i < n; ++i) {
            Vector total{};
            for (int o = 0; o < OP; o += W)
                total += load(readout_.active + i * OP + o) * load(readout_.second.backward + o);
            energies[i] += double(matrix::sum(total) + bias);
        }
    }

    void backward(const std::int32_t* species, bool is_learning, bool is_moving) {
        const int n = pairs_.n_atoms;
        for (int i = 0; i < n; ++i)
            for (int o = 0; o < OP; o += W) {
                store(readout_.by_active + i * OP + o, seeds_[i] * load(readout_.second.backward + o));
                if (is_learning)
                    add_to(readout_.second.gradient + o,
                           seeds_[i] * load(readout_.active + i * OP + o));
            }
        if (is_learning)
            for (int i = 0; i < n; ++i) readout_.second_bias.gradient[0] += seeds_[i];
        readout_.back_first(n, scalars_, FP, by_scalars_, FP, nullptr, is_learning);
        for (int b = BLOCKS - 1; b >= 0; --b) {
            updates_[b]->backward(n, by_scalars_, by_vectors_, is_learning);
            if (b > 0)
                interactions_[b - 1]->backward(pairs_, by_scalars_, by_vectors_, is_learning,
                                               is_moving);
        }
        first_.backward(pairs_, species, by_scalars_, by_vectors_, is_learning, is_moving);
    }

    // Gradients by centers and widths of g = exp(-(s - c)² w²) times an envelope.
    void learn_basis() {
        for (int k = 0; k < RP; k += W) {
            const Vector center = load(centers_ + k), width = load(inverse_widths_ + k);
            Vector by_center{}, by_width{};
            for (int p = 0; p < pairs_.n_pairs; ++p) {
                const std::size_t at = std::size_t(p) * RP + k;
                const Vector apart = pairs_.stretched[p] - center;
                const Vector common = 2.0f * (apart * width) * load(pairs_.radial + at) *
                                      load(pairs_.by_radial + at);
                by_center += common * width;
                by_width -= common * apart;
            }
            add_to(center_gradient_ + k, by_center);
            add_to(width_gradient_ + k, by_width);
        }
    }

    // Forces and virials from the gradients by radial functions and directions.
    void push(const double* positions, const double* shifts, double* forces, double* virials) {
        std::fill_n(forces, 3 * pairs_.n_atoms, 0.0);
        if (virials != nullptr) std::fill_n(virials, 9 * pairs_.n_atoms, 0.0);
        for (int p = 0; p < pairs_.n_pairs; ++p) {
            const float* u = pairs_.directions + 4 * p;
            Vector along{};
            for (int k = 0; k < RP; k += W)
                along += load(pairs_.slopes + std::size_t(p) * RP + k) *
                         load(pairs_.by_radial + std::size_t(p) * RP + k);
            float turning[3], gradient[3], turned = 0;
            for (int x = 0; x < 3; ++x) {
                turning[x] =
                    matrix::sum(load(pairs_.by_directions + (std::size_t(p) * 3 + x) * W)) * u[3];
                turned += turning[x] * u[x];
            }
            const float slope = matrix::sum(along) + pairs_.repulsion_slopes[p] - turned;
            const int i = pairs_.i(p), j = pairs_.j(p);
            for (int x = 0; x < 3; ++x) {
                gradient[x] = u[x] * slope + turning[x];
                forces[3 * i + x] += gradient[x];
                forces[3 * j + x] -= gradient[x];
            }
            if (virials == nullptr) continue;
            float r[3];
            vector_of(positions, shifts, p, r);
            for (int x = 0; x < 3; ++x)
                for (int y = 0; y < 3; ++y) {
                    const double half = 0.5 * double(gradient[x]) * double(r[y]);
                    virials[9 * i + 3 * x + y] += half;
                    virials[9 * j + 3 * x + y] += half;
                }
        }
    }
};

}  // namespace

extern "C" {

Network* network_new(float cutoff, float inner_cutoff, float rate, const float* repulsion_table,
                     const float* repulsion_weights, const float* repulsion_rates, int chunk) {
    try {
        return new Network(cutoff, inner_cutoff, rate,
                           {repulsion_table, repulsion_weights, repulsion_rates}, chunk);
    } catch (const std::bad_alloc&) {
        return nullptr;
    }
}

void network_delete(Network* network) { delete network; }

int network_set_weights(Network* network, const float* const* parameters) {
    try {
        network->set_weights(parameters);
        return 0;
    } catch (const std::bad_alloc&) {
        return 1;
    }
}

int network_evaluate(Network* network, Index n_structures, const Index* atom_splits,
                     const Index* pair_splits, const std::int32_t* species,
                     const double* positions, const std::int32_t* first,
                     const std::int32_t* second, const double* shifts, const double* seeds,
                     double* energies, double* forces, double* virials, float* gradients) {
    try {
        const Batch batch{n_structures, atom_splits, pair_splits, species, first,
                          second,       positions,   shifts,      seeds};
        network->evaluate(batch, {energies, forces, virials}, gradients != nullptr);
        if (gradients != nullptr) network->gradients(gradients);
        return 0;
    } catch (const std::bad_alloc&) {
        return 1;
    }
}

int soap_step(Index n_weights, const soap::Weight* weights, const soap::Rates* rates) {
    try {
        soap::Step step;
        for (Index k = 0; k < n_weights; ++k) step.run(weights[k], *rates);
        return 0;
    } catch (const std::bad_alloc&) {
        return 1;
    }
}

int soap_project_means(Index n_weights, const soap::Weight* weights) {
    try {
        soap::Step step;
        for (Index k = 0; k < n_weights; ++k) step.project_mean(weights[k]);
        return 0;
    } catch (const std::bad_alloc&) {
        return 1;
    }
}

}  // extern "C"
