// Sums over pairs of atoms, and their first derivatives, for training on a CPU.
//
// Every pair of atoms is visited once and counts in both directions: j to i along u, and i to j
// along -u. Rows are contiguous float32. RADIAL, CHANNELS and WIDTH (radial functions, element
// channels, message channels) are given when this file is compiled, so that every loop over them
// has a constant length and becomes vector instructions. Outputs are added to; one thread.

#include <cstdint>

using Index = std::int64_t;
constexpr int R = RADIAL, C = CHANNELS, M = WIDTH;

namespace {

// Adds to `into` moments of one receiver: g_r h_c, and u_a g_r h_c for the three axes.
inline void add_moments(const float* g, const float* u, const float* h, float* __restrict scalars,
                        float* __restrict vectors) {
    for (int r = 0; r < R; ++r)
        for (int c = 0; c < C; ++c) {
            const float term = g[r] * h[c];
            scalars[r * C + c] += term;
            for (int a = 0; a < 3; ++a) vectors[(a * R + r) * C + c] += u[a] * term;
        }
}

// The same backwards: gradients by g, u and h from those by one receiver's moments.
inline void add_moment_gradients(const float* g, const float* u, const float* h,
                                 const float* by_scalars, const float* by_vectors, float sign,
                                 float* __restrict by_g, float* __restrict by_u, float* __restrict by_h) {
    for (int r = 0; r < R; ++r) {
        float of_radial = 0, along[3] = {0, 0, 0};
        for (int c = 0; c < C; ++c) {
            const float x = by_vectors[r * C + c], y = by_vectors[(R + r) * C + c],
                        z = by_vectors[(2 * R + r) * C + c];
            const float term = by_scalars[r * C + c] + u[0] * x + u[1] * y + u[2] * z;
            of_radial += h[c] * term;
            by_h[c] += g[r] * term;
            along[0] += h[c] * x;
            along[1] += h[c] * y;
            along[2] += h[c] * z;
        }
        by_g[r] += of_radial;
        for (int a = 0; a < 3; ++a) by_u[a] += sign * g[r] * along[a];
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
                     float* scalars, float* vectors) {
    for (Index p = 0; p < n_pairs; ++p) {
        const Index i = first[p], j = second[p];
        const float* u = directions + 3 * p;
        const float back[3] = {-u[0], -u[1], -u[2]};
        add_moments(radial + R * p, u, senders + C * j, scalars + R * C * i,
                    vectors + 3 * R * C * i);
        add_moments(radial + R * p, back, senders + C * i, scalars + R * C * j,
                    vectors + 3 * R * C * j);
    }
}

void element_gradients(Index n_pairs, const Index* first, const Index* second,
                       const float* radial, const float* directions, const float* senders,
                       const float* by_scalars, const float* by_vectors, float* by_radial,
                       float* by_directions, float* by_senders) {
    for (Index p = 0; p < n_pairs; ++p) {
        const Index i = first[p], j = second[p];
        const float* u = directions + 3 * p;
        const float back[3] = {-u[0], -u[1], -u[2]};
        add_moment_gradients(radial + R * p, u, senders + C * j, by_scalars + R * C * i,
                             by_vectors + 3 * R * C * i, 1.0f, by_radial + R * p,
                             by_directions + 3 * p, by_senders + C * j);
        add_moment_gradients(radial + R * p, back, senders + C * i, by_scalars + R * C * j,
                             by_vectors + 3 * R * C * j, -1.0f, by_radial + R * p,
                             by_directions + 3 * p, by_senders + C * i);
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
        add_message_gradients(w, u, sent + 4 * M * j, directed + M * j, by_sums + 4 * M * i, 1.0f,
                              by_filters + 3 * M * p, by_directions + 3 * p, by_sent + 4 * M * j,
                              by_directed + M * j);
        add_message_gradients(w, back, sent + 4 * M * i, directed + M * i, by_sums + 4 * M * j,
                              -1.0f, by_filters + 3 * M * p, by_directions + 3 * p,
                              by_sent + 4 * M * i, by_directed + M * i);
    }
}

}  // extern "C"
