// Sums over pairs of atoms, and their first derivatives, on a CPU.
//
// Every pair of atoms is visited once and counts in both directions: j to i along u, and i to j
// along -u. Rows are contiguous float32. RADIAL, CHANNELS and WIDTH (radial functions, element
// channels, message channels) and COMPONENTS (3: the direction; 8: its quadrics too) are given when
// this file is compiled, so that every loop over them has a constant length and becomes vector
// instructions. Outputs of atoms are added to, those of pairs are set; one thread.

#include <algorithm>
#include <cstdint>

using Index = std::int64_t;
constexpr int R = RADIAL, C = CHANNELS, M = WIDTH, A = COMPONENTS;
static_assert(A == 3 || A == 8);

namespace {

// A direction, and in the networks that read them its quadrics: xy, yz, xz, x² - z², y² - z².
struct Angles {
    float a[A];

    explicit Angles(const float* u) {
        const float x = u[0], y = u[1], z = u[2];
        a[0] = x, a[1] = y, a[2] = z;
        if constexpr (A == 8) {
            a[3] = x * y, a[4] = y * z, a[5] = x * z;
            a[6] = (x - z) * (x + z), a[7] = (y - z) * (y + z);
        }
    }

    // Those of the opposite direction: only the first three change sign.
    Angles back() const {
        Angles other = *this;
        for (int i = 0; i < 3; ++i) other.a[i] = -a[i];
        return other;
    }

    // Adds the gradient by the direction, from that by all components.
    void add_gradient(const float* by, float* __restrict by_u) const {
        const float x = a[0], y = a[1], z = a[2];
        for (int i = 0; i < 3; ++i) by_u[i] += by[i];
        if constexpr (A == 8) {
            by_u[0] += by[3] * y + by[5] * z + 2 * by[6] * x;
            by_u[1] += by[3] * x + by[4] * z + 2 * by[7] * y;
            by_u[2] += by[4] * y + by[5] * x - 2 * (by[6] + by[7]) * z;
        }
    }
};

// Adds the moments of one receiver: g_r h_c, and a g_r h_c for the components a of the direction.
inline void add_moments(const float* g, const Angles& angles, const float* h,
                        float* __restrict scalars, float* __restrict angular) {
    for (int r = 0; r < R; ++r)
        for (int c = 0; c < C; ++c) {
            const float term = g[r] * h[c];
            scalars[r * C + c] += term;
            for (int a = 0; a < A; ++a) angular[(a * R + r) * C + c] += angles.a[a] * term;
        }
}

// The same backwards: gradients by g, components and h from those by one receiver's moments.
inline void add_moment_gradients(const float* g, const Angles& angles, const float* h,
                                 const float* by_scalars, const float* by_angular,
                                 float* __restrict by_g, float* __restrict by_angles,
                                 float* __restrict by_h) {
    for (int r = 0; r < R; ++r) {
        float of_radial = 0, along[A] = {};
        for (int c = 0; c < C; ++c) {
            float term = by_scalars[r * C + c];
            for (int a = 0; a < A; ++a) {
                const float by = by_angular[(a * R + r) * C + c];
                term += angles.a[a] * by;
                along[a] += h[c] * by;
            }
            of_radial += h[c] * term;
            by_h[c] += g[r] * term;
        }
        by_g[r] += of_radial;
        for (int a = 0; a < A; ++a) by_angles[a] += g[r] * along[a];
    }
}

// Adds the message of one sender: W1 plain; W2 carried + u W3 directed.
inline void add_message(const float* w, const float* u, const float* sent, const float* directed,
                        float* __restrict sums) {
    for (int m = 0; m < M; ++m) {
        const float d = w[2 * M + m] * directed[m];
        sums[m] += w[m] * sent[m];
        sums[M + m] += w[M + m] * sent[M + m] + u[0] * d;
        sums[2 * M + m] += w[M + m] * sent[2 * M + m] + u[1] * d;
        sums[3 * M + m] += w[M + m] * sent[3 * M + m] + u[2] * d;
    }
}

// The same backwards; `by_w` is added to as well, since a pair has two messages.
inline void add_message_gradients(const float* w, const float* u, const float* sent,
                                  const float* directed, const float* by_sums, float sign,
                                  float* __restrict by_w, float* __restrict by_u, float* __restrict by_sent, float* __restrict by_directed) {
    float x = 0, y = 0, z = 0;
    for (int m = 0; m < M; ++m) {
        const float s = by_sums[m], a = by_sums[M + m], b = by_sums[2 * M + m],
                    c = by_sums[3 * M + m];
        by_w[m] += s * sent[m];
        by_w[M + m] += a * sent[M + m] + b * sent[2 * M + m] + c * sent[3 * M + m];
        const float along = u[0] * a + u[1] * b + u[2] * c;
        by_w[2 * M + m] += along * directed[m];
        by_sent[m] += w[m] * s;
        by_sent[M + m] += w[M + m] * a;
        by_sent[2 * M + m] += w[M + m] * b;
        by_sent[3 * M + m] += w[M + m] * c;
        by_directed[m] += w[2 * M + m] * along;
        const float d = w[2 * M + m] * directed[m];
        x += d * a;
        y += d * b;
        z += d * c;
    }
    by_u[0] += sign * x;
    by_u[1] += sign * y;
    by_u[2] += sign * z;
}

}  // namespace

extern "C" {

void element_moments(Index n_pairs, const Index* first, const Index* second,
                     const float* radial, const float* directions, const float* senders,
                     float* scalars, float* angular) {
    for (Index p = 0; p < n_pairs; ++p) {
        const Index i = first[p], j = second[p];
        const Angles there(directions + 3 * p), back = there.back();
        add_moments(radial + R * p, there, senders + C * j, scalars + R * C * i,
                    angular + A * R * C * i);
        add_moments(radial + R * p, back, senders + C * i, scalars + R * C * j,
                    angular + A * R * C * j);
    }
}

void element_gradients(Index n_pairs, const Index* first, const Index* second,
                       const float* radial, const float* directions, const float* senders,
                       const float* by_scalars, const float* by_angular, float* by_radial,
                       float* by_directions, float* by_senders) {
    for (Index p = 0; p < n_pairs; ++p) {
        const Index i = first[p], j = second[p];
        const Angles there(directions + 3 * p), back = there.back();
        float by_there[A] = {}, by_back[A] = {};
        std::fill_n(by_radial + R * p, R, 0.0f);
        std::fill_n(by_directions + 3 * p, 3, 0.0f);
        add_moment_gradients(radial + R * p, there, senders + C * j, by_scalars + R * C * i,
                             by_angular + A * R * C * i, by_radial + R * p, by_there,
                             by_senders + C * j);
        add_moment_gradients(radial + R * p, back, senders + C * i, by_scalars + R * C * j,
                             by_angular + A * R * C * j, by_radial + R * p, by_back,
                             by_senders + C * i);
        for (int a = 0; a < A; ++a) by_there[a] += a < 3 ? -by_back[a] : by_back[a];
        there.add_gradient(by_there, by_directions + 3 * p);
    }
}

void messages(Index n_pairs, const Index* first, const Index* second, const float* filters,
              const float* directions, const float* sent, const float* directed, float* sums) {
    for (Index p = 0; p < n_pairs; ++p) {
        const Index i = first[p], j = second[p];
        const float *w = filters + 3 * M * p, *u = directions + 3 * p;
        const float back[3] = {-u[0], -u[1], -u[2]};
        add_message(w, u, sent + 4 * M * j, directed + M * j, sums + 4 * M * i);
        add_message(w, back, sent + 4 * M * i, directed + M * i, sums + 4 * M * j);
    }
}

void message_gradients(Index n_pairs, const Index* first, const Index* second,
                       const float* filters, const float* directions, const float* sent,
                       const float* directed, const float* by_sums, float* by_filters,
                       float* by_directions, float* by_sent, float* by_directed) {
    for (Index p = 0; p < n_pairs; ++p) {
        const Index i = first[p], j = second[p];
        const float *w = filters + 3 * M * p, *u = directions + 3 * p;
        const float back[3] = {-u[0], -u[1], -u[2]};
        std::fill_n(by_filters + 3 * M * p, 3 * M, 0.0f);
        std::fill_n(by_directions + 3 * p, 3, 0.0f);
        add_message_gradients(w, u, sent + 4 * M * j, directed + M * j, by_sums + 4 * M * i, 1.0f,
                              by_filters + 3 * M * p, by_directions + 3 * p, by_sent + 4 * M * j,
                              by_directed + M * j);
        add_message_gradients(w, back, sent + 4 * M * i, directed + M * i, by_sums + 4 * M * j,
                              -1.0f, by_filters + 3 * M * p, by_directions + 3 * p,
                              by_sent + 4 * M * i, by_directed + M * i);
    }
}

}  // extern "C"
