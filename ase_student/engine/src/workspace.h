// Memory for the atoms of a neighbor list and for each thread. The methods of Workspace that
// compute are in geometry.h, first_interaction.h, updates.h, interactions.h and network.cpp.
#pragma once

#include "layers.h"

namespace ASE_NAMESPACE {

// What is kept of a group between phases: its atoms' features and gradients, and its pairs.
struct State {
    int64_t n_atoms = 0, n_places = 0;
    Buffer scalars, vectors, matrices, norms, turned, pairs, gradients;
    int* counts = nullptr;    // pairs within the cutoff
    int* segments = nullptr;  // where elements start among them
    struct UpdateCache { Buffer mixed, norms, gates, slopes; }* updates = nullptr;
    struct MessageCache { Buffer slopes, gates, carriers, sent, received; }* messages = nullptr;
    ~State() {
        free(counts);
        free(segments);
        delete[] updates;
        delete[] messages;
    }

    bool reserve(const Network& net, int64_t atoms, int64_t places, int n_present) {
        const size_t n = atoms;
        // The last records of a row are written as whole vectors.
        if (!pairs.reserve((size_t)(places + VL) * RECORD)) return false;
        if (!gradients.reserve((size_t)(places + VL) * 4)) return false;
        n_places = places;
        free(counts);
        free(segments);
        counts = (int*)calloc(n, sizeof(int));
        segments = (int*)calloc(n * (n_present + 1), sizeof(int));
        if (!counts || !segments) return false;
        if (atoms <= n_atoms) return true;
        n_atoms = 0;
        bool ok = scalars.reserve(n * net.Fp) && vectors.reserve(n * 3 * net.Fp);
        if (net.T)
            ok = ok && matrices.reserve(n * 5 * net.Tp) && norms.reserve(n * net.Tp) &&
                 turned.reserve(n * 3 * net.Tp);
        if (!updates) updates = new (std::nothrow) UpdateCache[net.L];
        if (!messages) messages = new (std::nothrow) MessageCache[net.L];
        ok = ok && updates && messages;
        for (int u = 0; u < net.L - 1 && ok; u++)
            ok = updates[u].mixed.reserve(n * 6 * net.Fp) && updates[u].norms.reserve(n * net.Fp) &&
                 updates[u].gates.reserve(n * 3 * net.Fp) && updates[u].slopes.reserve(n * net.Hp);
        for (int l = 0; l < net.L - 1 && ok; l++)
            ok = messages[l].slopes.reserve(n * net.Hp) && messages[l].gates.reserve(n * net.Mp) &&
                 messages[l].carriers.reserve(n * 3 * net.Mp) &&
                 messages[l].sent.reserve(n * 5 * net.Mp) &&
                 messages[l].received.reserve(n * 4 * net.Mp);
        if (ok) n_atoms = atoms;
        return ok;
    }

    static size_t bytes_per_atom(const Network& net) {
        const size_t first = net.T ? 9 * net.Tp : 0;
        const size_t update = 10 * net.Fp + net.Hp, message = net.Hp + 13 * net.Mp;
        return sizeof(Real) * (4 * net.Fp + first + (net.L - 1) * (update + message));
    }
};

// What one thread needs while it computes one chunk.
struct Scratch {
    Buffer inputs, gates, hidden, by_mixed, sums, vector_sums, directed_sums, by_gates;
    Buffer moments, mixed, products, by_norms, vectors;  // of the first interaction
    State::UpdateCache last;                             // of the last update
    Real* near = nullptr;  // vectors and bond lengths of a row's pairs within the cutoff
    int* near_places = nullptr;
    int* near_neighbors = nullptr;
    int longest = 0;
    ~Scratch() {
        free(near);
        free(near_places);
        free(near_neighbors);
    }

    bool reserve(const Network& net, int moments_width, int longest_row) {
        const size_t n = CHUNK;
        bool ok = inputs.reserve(n * 2 * net.Fp) &&
                  gates.reserve(n * 3 * larger(net.Fp, net.Mp)) &&
                  hidden.reserve(n * larger(net.Hp, net.halfp)) &&
                  by_mixed.reserve(n * 6 * net.Fp) && sums.reserve(n * net.Mp) &&
                  vector_sums.reserve(n * 3 * net.Mp) && directed_sums.reserve(n * net.Mp) &&
                  by_gates.reserve(n * 3 * larger(net.Fp, net.Mp)) &&
                  moments.reserve(n * 9 * moments_width + 4 * VL) &&
                  last.mixed.reserve(n * 6 * net.Fp) && last.norms.reserve(n * net.Fp) &&
                  last.gates.reserve(n * 3 * net.Fp) && last.slopes.reserve(n * net.Hp);
        if (net.T)
            ok = ok && mixed.reserve(n * 5 * net.Tp) && products.reserve(n * 3 * net.Tp) &&
                 by_norms.reserve(n * net.Tp);
        if (longest_row + VL > longest) {
            longest = 0;
            free(near);
            free(near_places);
            free(near_neighbors);
            const size_t places = longest_row + longest_row / 4 + VL;
            near = (Real*)malloc(sizeof(Real) * 4 * places);
            near_places = (int*)calloc(places, sizeof(int));
            near_neighbors = (int*)calloc(places, sizeof(int));
            ok = ok && near && near_places && near_neighbors;
            if (ok) longest = (int)places;
        }
        return ok;
    }
};

struct Workspace {
    const Network& net;
    State* states = nullptr;
    Scratch* scratches = nullptr;
    int n_states = 0, n_scratches = 0;
    // The first interaction's layers for the elements that occur in the list.
    int* present = nullptr;
    int n_present = -1;
    int n_moments = 0, moments_width = 0;
    Linear scalars, vectors, mixes;

    explicit Workspace(const Network& network) : net(network) {}
    ~Workspace() {
        delete[] states;
        delete[] scratches;
        free(present);
    }

    // Reserve memory (see NetworkFunctions); false if there is not enough.
    bool prepare(const ListView& list, int wanted_states, int wanted_scratches, int64_t atoms,
                 int64_t places);
    bool fold(const ListView& list);

    // In all of these, a chunk consists of `n` atoms from `first` on; `group` is the first atom of
    // their group, `at` is first - group, `l` the interaction and `u` the update.

    void row_geometry(const ListView&, State&, Scratch&, int64_t group, int64_t i);
    template <bool TENSORS>
    void row_moments(const ListView&, State&, int64_t group, int64_t i, Real* zeroth, Real* first,
                     Real* second);
    template <bool TENSORS>
    void moment_gradients(const ListView&, State&, int64_t group, int64_t first, int n,
                          const Real* by_moments);
    void first_forward(const ListView&, State&, Scratch&, int64_t group, int64_t first, int n);
    void first_backward(const ListView&, State&, Scratch&, int64_t group, int64_t first, int n);
    void update_forward(int u, State&, Scratch&, int64_t at, int n, Real* s, Real* v);
    void update_backward(int u, State&, Scratch&, int64_t at, int n, Real* s, Real* v);
    void send(int l, State&, Scratch&, int64_t at, int n);
    void gather(int l, const ListView&, State&, int64_t group, int64_t first, int n, Real* sums,
                Real* vector_sums);
    void gather_back(int l, const ListView&, State&, int64_t group, int64_t first, int n,
                     Real* by_plain, Real* by_carried, Real* by_directed);
    void receive(int l, State&, Scratch&, int64_t at, int n);
    void finish(const ListView&, State&, Scratch&, int64_t group, int64_t first, int n);
    void interaction_forward(int l, const ListView&, State&, Scratch&, int64_t group,
                             int64_t first, int n);
    void interaction_backward(int l, const ListView&, State&, Scratch&, int64_t group,
                              int64_t first, int n);
    void forces(const ListView&, State&, int64_t group, int64_t first, int n);
};

bool Workspace::prepare(const ListView& list, int wanted_states, int wanted_scratches,
                        int64_t atoms, int64_t places) {
    if (wanted_states > n_states) {
        delete[] states;
        n_states = 0;
        states = new (std::nothrow) State[wanted_states];
        if (!states) return false;
        n_states = wanted_states;
    }
    if (wanted_scratches > n_scratches) {
        delete[] scratches;
        n_scratches = 0;
        scratches = new (std::nothrow) Scratch[wanted_scratches];
        if (!scratches) return false;
        n_scratches = wanted_scratches;
    }
    if (!fold(list)) return false;
    int64_t longest = 0;
    for (int64_t i = 0; i < list.n_atoms; i++) {
        const int64_t length = list.rows[i + 1] - list.rows[i];
        longest = length > longest ? length : longest;
    }
    for (int q = 0; q < wanted_states; q++)
        if (!states[q].reserve(net, atoms, places, list.n_present)) return false;
    for (int q = 0; q < wanted_scratches; q++)
        if (!scratches[q].reserve(net, moments_width, (int)longest)) return false;
    return true;
}

// Multiply the element channels into the weights of the layers that follow the moments.
bool Workspace::fold(const ListView& list) {
    const int E = list.n_present, R = net.R, C = net.C;
    if (E == n_present && !memcmp(present, list.present, sizeof(int) * E)) return true;
    n_present = -1;
    free(present);
    present = (int*)malloc(sizeof(int) * E);
    if (!present) return false;
    n_moments = E * R;
    const int columns = (E - 1) * R + net.Rp;
    moments_width = padded(columns);
    auto set = [&](Linear& layer, const double* weight, int n_out) {
        auto at = [&](int moment, int o) -> double {
            if (moment >= n_moments || o >= n_out) return 0.0;
            const double* from = weight + ((size_t)o * R + moment % R) * C;
            const double* channels = net.channels + (size_t)list.present[moment / R] * C;
            double sum = 0;
            for (int c = 0; c < C; c++) sum += channels[c] * from[c];
            return sum;
        };
        return layer.forward.pack(n_moments, padded(n_out), at) &&
               layer.backward.pack(n_out, columns,
                                   [&](int o, int moment) { return at(moment, o); });
    };
    if (!set(scalars, net.first_scalars, net.F) || !set(vectors, net.first_vectors, net.F))
        return false;
    if (net.T && !set(mixes, net.moment_mixes, net.T)) return false;
    memcpy(present, list.present, sizeof(int) * E);
    n_present = E;
    return true;
}

}  // namespace ASE_NAMESPACE
