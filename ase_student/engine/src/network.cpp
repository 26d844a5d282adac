// The network on chunks of atoms: energies, forces and virials, written out by hand.
//
// This file is compiled once for every instruction set and precision, into ASE_NAMESPACE. It computes
// what ase_student/networks/painn.py computes; the formulas and their names are explained there.
// What is different:
//
// - Radial functions and filters are read from tables of B-splines in x = exp(-rate d). The
//   envelope is no part of the tables but of the weights of the splines, which are made once for a
//   pair and kept in its record together with those of the slope.
// - In the first interaction, whose senders are bare elements, moments are summed for each element
//   that is there, and the element channels are folded into the weights behind.
// - Every row writes what its own atom contributes to a pair's gradient, four numbers, and the last
//   phase adds the two directions. Nothing is scattered: the order of work changes no bit.
#include "network.h"

#include "products.h"

namespace ASE_NAMESPACE {

using ase::CHUNK;
using ase::InteractionWeights;
using ase::ListView;
using ase::NetworkWeights;
using ase::SplineView;
using ase::UpdateWeights;

constexpr int DEGREE = SINGLE ? 4 : 6;
constexpr int ORDER = DEGREE + 1;
// A pair's record: ORDER weights of values, as many of slopes, direction, inverse distance,
// neighbor, and place and bin in one number.
enum { VALUE = 0, SLOPE = ORDER, DIRECTION = 2 * ORDER, NEIGHBOR = DIRECTION + 4, PLACE };
constexpr int RECORD = (PLACE + 1 + 7) / 8 * 8;
constexpr int BIN_BITS = 13;
constexpr Integer BIN_MASK = (1 << BIN_BITS) - 1;

// --- weights -------------------------------------------------------------------------------------

// Index in an array of parts of `size` numbers, given that in one whose parts are padded; or -1.
AI int unpadded(int index, int size, int width) {
    const int part = index / width, rest = index % width;
    return rest < size ? part * size + rest : -1;
}

// A linear layer, for the forward and for the backward pass. Inputs and outputs consist of parts
// (scalars and norms, say), each of which is padded to whole vectors.
struct Linear {
    Packed forward, backward;
    Buffer bias;
    int out = 0;  // width of the padded outputs

    bool set(const double* weight, int parts_out, int size_out, int parts_in, int size_in,
             const double* biases = nullptr) {
        const int width_out = padded(size_out), width_in = padded(size_in);
        const int n_in = parts_in * size_in;
        out = parts_out * width_out;
        auto at = [=](int row_in, int row_out) -> double {
            const int i = unpadded(row_in, size_in, width_in);
            const int o = unpadded(row_out, size_out, width_out);
            return i < 0 || o < 0 ? 0.0 : weight[(size_t)o * n_in + i];
        };
        const int depth_in = (parts_in - 1) * width_in + size_in;
        const int depth_out = (parts_out - 1) * width_out + size_out;
        if (!forward.pack(depth_in, out, at)) return false;
        if (!backward.pack(depth_out, parts_in * width_in,
                           [&](int o, int i) { return at(i, o); }))
            return false;
        if (!biases) return true;
        if (!bias.reserve(out)) return false;
        for (int o = 0; o < out; o++) {
            const int index = unpadded(o, size_out, width_out);
            bias.p[o] = index < 0 ? Real(0) : (Real)biases[index];
        }
        return true;
    }
};

struct UpdateLayers {
    Linear mixes, first, second;
    bool is_last = false;
};

struct InteractionLayers {
    Linear first, second, vector_senders, scalars, vectors;
    Buffer table;  // (n_channel_blocks, knots + degree, 3, VL)
};

struct Network {
    int S, F, Fp, L, H, Hp, R, Rp, C, M, Mp, T, Tp, half, halfp, n_channel_blocks;
    double cutoff, envelope_cutoff, inner_cutoff;
    Buffer embedding, radial_table, readout_weights;
    // By element, for folding and for the repulsion.
    double *channels = nullptr, *first_scalars = nullptr, *first_vectors = nullptr,
           *moment_mixes = nullptr, *elements = nullptr;
    Linear vector_mixes, moment_scalars, moment_vectors, readout;
    Real readout_bias;
    UpdateLayers* updates = nullptr;
    InteractionLayers* interactions = nullptr;
    double rate, start, spacing;
    int knots;

    ~Network() {
        free(channels);
        free(first_scalars);
        free(first_vectors);
        free(moment_mixes);
        free(elements);
        delete[] updates;
        delete[] interactions;
    }

    bool set(const NetworkWeights& w, const SplineView& spline) {
        S = w.n_elements, F = w.features, L = w.blocks, H = w.hidden, R = w.n_rbf;
        C = w.element_channels, M = w.message_channels, T = w.tensor_channels, half = F / 2;
        Fp = padded(F), Hp = padded(H), Rp = padded(R), Mp = padded(M), Tp = padded(T);
        halfp = padded(half), n_channel_blocks = Mp / VL;
        cutoff = w.cutoff, inner_cutoff = w.inner_cutoff;
        // In float32, as the other backends keep it.
        envelope_cutoff = (double)(float)w.cutoff;
        rate = spline.rate, start = spline.start, spacing = spline.spacing, knots = spline.knots;
        const size_t n_moments = (size_t)R * C;
        channels = copied(w.channels, (size_t)S * C);
        first_scalars = copied(w.first_scalars, F * n_moments);
        first_vectors = copied(w.first_vectors, F * n_moments);
        moment_mixes = copied(w.moment_mixes, T * n_moments);
        elements = (double*)malloc(sizeof(double) * 4 * S);
        if (!channels || !first_scalars || !first_vectors || !moment_mixes || !elements)
            return false;
        for (int s = 0; s < S; s++) {
            elements[4 * s] = w.charge[s];
            elements[4 * s + 1] = w.screening[s];
            elements[4 * s + 2] = w.radius[s];
            elements[4 * s + 3] = w.reference[s];
        }
        if (!embedding.reserve((size_t)S * Fp)) return false;
        for (int s = 0; s < S; s++)
            for (int f = 0; f < F; f++) embedding.p[s * Fp + f] = (Real)w.embedding[s * F + f];
        return set_layers(w) && set_tables(w, spline);
    }

    static double* copied(const double* from, size_t n) {
        double* to = (double*)malloc(sizeof(double) * (n + 1));
        if (to && n) memcpy(to, from, sizeof(double) * n);
        return to;
    }

    bool set_layers(const NetworkWeights& w) {
        bool ok = true;
        if (T) {
            ok = ok && vector_mixes.set(w.moment_vector_mixes, 1, T, 1, F);
            ok = ok && moment_scalars.set(w.moment_scalars, 1, F, 1, T);
            ok = ok && moment_vectors.set(w.moment_vectors, 1, F, 1, T);
        }
        updates = new (std::nothrow) UpdateLayers[L];
        interactions = new (std::nothrow) InteractionLayers[L];
        if (!updates || !interactions) return false;
        for (int u = 0; u < L && ok; u++) {
            const UpdateWeights& from = w.updates[u];
            UpdateLayers& to = updates[u];
            to.is_last = u == L - 1;
            ok = ok && to.mixes.set(from.mixes, 2, F, 1, F);
            ok = ok && to.first.set(from.gates_first, 1, H, 2, F, from.gates_first_bias);
            ok = ok && to.second.set(from.gates_second, to.is_last ? 2 : 3, F, 1, H,
                                     from.gates_second_bias);
        }
        for (int l = 0; l < L - 1 && ok; l++) {
            const InteractionWeights& from = w.interactions[l];
            InteractionLayers& to = interactions[l];
            ok = ok && to.first.set(from.senders_first, 1, H, 1, F, from.senders_first_bias);
            ok = ok && to.second.set(from.senders_second, 3, M, 1, H, from.senders_second_bias);
            ok = ok && to.vector_senders.set(from.vector_senders, 1, M, 1, F);
            ok = ok && to.scalars.set(from.scalars, 1, F, 1, M);
            ok = ok && to.vectors.set(from.vectors, 1, F, 1, M);
        }
        ok = ok && readout.set(w.readout_first, 1, half, 1, F, w.readout_first_bias);
        ok = ok && readout_weights.reserve(halfp);
        for (int q = 0; q < half && ok; q++) readout_weights.p[q] = (Real)w.readout_second[q];
        readout_bias = (Real)w.readout_second_bias[0];
        return ok;
    }

    bool set_tables(const NetworkWeights& w, const SplineView& spline) {
        const int rows = knots + DEGREE;
        if (!radial_table.reserve((size_t)rows * Rp)) return false;
        for (int row = 0; row < rows; row++)
            for (int n = 0; n < R; n++)
                radial_table.p[(size_t)row * Rp + n] = (Real)spline.coefficients[row * R + n];
        for (int l = 0; l < L - 1; l++) {
            Buffer& table = interactions[l].table;
            if (!table.reserve((size_t)rows * 3 * Mp)) return false;
            const double* filters = w.interactions[l].filters;
            Real* out = table.p;
            for (int block = 0; block < n_channel_blocks; block++)
                for (int row = 0; row < rows; row++)
                    for (int c = 0; c < 3; c++)
                        for (int q = 0; q < VL; q++) {
                            const int m = block * VL + q;
                            double sum = 0;
                            for (int n = 0; n < R && m < M; n++)
                                sum += spline.coefficients[row * R + n] *
                                       filters[((size_t)c * R + n) * M + m];
                            *out++ = (Real)sum;
                        }
        }
        return true;
    }
};

// --- memory --------------------------------------------------------------------------------------

// What is kept of a group's atoms between phases, and its pairs.
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
        // Rows end with records of whole vectors.
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

// What a thread needs for one chunk.
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
    // The first interaction's layers for the elements that are there.
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

    bool prepare(const ListView& list, int wanted_states, int wanted_scratches, int64_t atoms,
                 int64_t places);
    bool fold(const ListView& list);

    void row_geometry(const ListView&, State&, Scratch&, int64_t group, int64_t i, int& outside);
    template <bool TENSORS>
    void row_moments(const ListView&, State&, int64_t group, int64_t i, Real* zeroth, Real* first,
                     Real* second);
    template <bool TENSORS>
    void moment_gradients(const ListView&, State&, int64_t group, int64_t first, int n,
                          const Real* by_moments);
    void first_forward(const ListView&, State&, Scratch&, int64_t group, int64_t first, int n,
                       int& outside);
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
    void forces(const ListView&, State&, int64_t group, int64_t first, int n, int& outside);
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

// Multiply the element channels into the layers behind the moments.
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
               layer.backward.pack(n_out, columns, [&](int o, int moment) { return at(moment, o); });
    };
    if (!set(scalars, net.first_scalars, net.F) || !set(vectors, net.first_vectors, net.F))
        return false;
    if (net.T && !set(mixes, net.moment_mixes, net.T)) return false;
    memcpy(present, list.present, sizeof(int) * E);
    n_present = E;
    return true;
}

// --- geometry ------------------------------------------------------------------------------------

// Universal screening function (Ziegler, Biersack and Littmark 1985) times the envelope at the sum
// of covalent radii; half the energy, and half the slope, of a pair.
AI void repulsion(const double* own, const double* other, double d, double& energy,
                  double& slope) {
    const double weights[4] = {(double)0.18175f, (double)0.50986f, (double)0.28022f,
                               (double)0.02817f};
    const double rates[4] = {(double)3.19980f, (double)0.94229f, (double)0.40290f,
                             (double)0.20162f};
    const double reach = own[2] + other[2], inverse_length = own[1] + other[1];
    const double coulomb = own[0] * other[0] / d;
    double sum = 0, slopes = 0;
    for (int q = 0; q < 4; q++) {
        const double term = weights[q] * exp(-rates[q] * (d * inverse_length));
        sum += term;
        slopes += rates[q] * term;
    }
    const double inside = 1.0 - (d / reach) * (d / reach), square = inside * inside;
    const double fade = square * inside, fade_slope = square * d * (-6.0 / (reach * reach));
    const double screened = coulomb * sum, screened_slope = -coulomb * inverse_length * slopes;
    energy = 0.5 * screened * fade;
    slope = 0.5 * ((screened_slope - screened / d) * fade + screened * fade_slope);
}

// Weights of the B-splines of degree DEGREE that are not zero at t of a bin, and their slopes by t
// (Cox and de Boor's recursion on whole numbers).
AI void spline_weights(V t, V* value, V* slope) {
    value[0] = all(1);
#pragma GCC unroll 8
    for (int d = 1; d <= DEGREE; d++) {
        if (d == DEGREE) {
            slope[0] = -value[0];
#pragma GCC unroll 8
            for (int q = 1; q < DEGREE; q++) slope[q] = value[q - 1] - value[q];
            slope[DEGREE] = value[DEGREE - 1];
        }
        V saved{};
#pragma GCC unroll 8
        for (int r = 0; r < d; r++) {
            const V part = value[r] * Real(1.0 / d);
            value[r] = saved + (Real(r + 1) - t) * part;
            saved = (t + Real(d - r - 1)) * part;
        }
        value[d] = saved;
    }
}

// Pairs of one row within the cutoff: their records, the repulsion, and what the guard sees.
void Workspace::row_geometry(const ListView& list, State& state, Scratch& scratch, int64_t group,
                             int64_t i, int& outside) {
    const double cutoff_squared = net.cutoff * net.cutoff;
    const int64_t row = list.rows[i];
    const int* segments = list.segments + i * (n_present + 1);
    const int local = (int)(i - group);
    int* near_segments = state.segments + (int64_t)local * (n_present + 1);
    const D4 own = load4d(list.positions + 4 * i) * D4{1, 1, 1, -1};
    Real* near = scratch.near;
    int n = 0;
    near_segments[0] = 0;
    for (int e = 0; e < n_present; e++) {
        const double limit =
            list.nearest_squared ? list.nearest_squared[list.species[i] * n_present + e] : 0.0;
        int too_close = 0;
        for (int place = segments[e]; place < segments[e + 1]; place++) {
            const int j = list.neighbors[row + place];
            const D4 vector = (load4d(list.positions + 4 * (int64_t)j) - own) +
                              load4d(list.translations + 4 * (int64_t)list.images[row + place]);
            const D4 squares = vector * vector;
            const double squared = squares[0] + squares[1] + squares[2];
            if constexpr (SINGLE) store4(near + 4 * n, __builtin_convertvector(vector, R4));
            else for (int c = 0; c < 4; c++) near[4 * n + c] = (Real)vector[c];
            scratch.near_places[n] = place;
            scratch.near_neighbors[n] = j - (int)group;
            n += squared < cutoff_squared;
            too_close |= squared < limit;
        }
        near_segments[e + 1] = n;
        if (too_close) outside |= ase::TOO_CLOSE;
    }
    state.counts[local] = n;
    if (list.neighbor_counts) {
        const int* range = list.neighbor_counts + 2 * list.species[i];
        if (n < range[0] || n > range[1]) outside |= ase::NEIGHBOR_COUNT;
    }
    // The last vector is filled up with copies of a pair that costs nothing.
    for (int k = n; k < rounded_up(n, VL); k++) {
        Real* filler = near + 4 * k;
        filler[0] = (Real)net.cutoff, filler[1] = filler[2] = 0, filler[3] = 1;
        scratch.near_places[k] = scratch.near_neighbors[k] = 0;
    }
    const Real inverse_spacing = Real(1.0 / net.spacing), inverse_cutoff = Real(1.0 / net.envelope_cutoff);
    const Real x_start = (Real)net.start, rate = (Real)net.rate;
    const int64_t offset = row - list.rows[group];
    Real* records = state.pairs.p + offset * RECORD;
    Real* gradients = state.gradients.p + offset * 4;
    double energy = 0;
    for (int k = 0; k < n; k += VL) {
        V x, y, z, bond;
#if defined(ASE_SHUFFLES)
        if constexpr (SINGLE && VL >= 4) {
            V parts[4];
            for (int q = 0; q < 4; q++) {
                Real lanes[VL] __attribute__((aligned(ASE_VECTOR_BYTES)));
                for (int p = 0; p < VL / 4; p++)
                    memcpy(lanes + 4 * p, near + 4 * (k + 4 * p + q), 4 * sizeof(Real));
                parts[q] = load(lanes);
            }
            x = parts[0], y = parts[1], z = parts[2], bond = parts[3];
            transpose_fours(x, y, z, bond);
        } else
#endif
            for (int q = 0; q < VL; q++) {
                const Real* from = near + 4 * (k + q);
                x[q] = from[0], y[q] = from[1], z[q] = from[2], bond[q] = from[3];
            }
        const V d = vsqrt(x * x + y * y + z * z), inverse = Real(1) / d;
        const V reduced = d * inverse_cutoff;
        const V inside = vmax(Real(1) - reduced * reduced, V{});
        const V inside_slope = d * (Real(-6) * inverse_cutoff * inverse_cutoff);
        V envelope, envelope_slope;
        if (net.inner_cutoff > 0) {
            const V fall = Real(5) / (bond * (Real)net.inner_cutoff);
            const V w = vmin(vmax(Real(6) - d * fall, V{}), all(1)), w_squared = w * w;
            const V seen = Real(1) - w_squared * w, product = seen * inside;
            const V product_squared = product * product;
            envelope = product_squared * product;
            envelope_slope =
                product_squared * (inside * w_squared * fall * Real(9) + seen * inside_slope);
        } else {
            const V inside_squared = inside * inside;
            envelope = inside_squared * inside;
            envelope_slope = inside_squared * inside_slope;
        }
        const V stretched = vexp(d * -rate);
        const V place = vmin(vmax((stretched - x_start) * inverse_spacing, V{}),
                             all(Real(net.knots) - Real(0.001)));
        const VI bin = __builtin_convertvector(place, VI);
        V fields[RECORD] = {};
        spline_weights(place - __builtin_convertvector(bin, V), fields + VALUE, fields + SLOPE);
        const V factor = envelope * stretched * (-rate * inverse_spacing);
#pragma GCC unroll 8
        for (int q = 0; q < ORDER; q++) {
            fields[SLOPE + q] = fields[SLOPE + q] * factor + fields[VALUE + q] * envelope_slope;
            fields[VALUE + q] *= envelope;
        }
        VI neighbor, packed;
        for (int q = 0; q < VL; q++) {
            neighbor[q] = scratch.near_neighbors[k + q];
            packed[q] = (Integer)scratch.near_places[k + q] << BIN_BITS;
        }
        fields[DIRECTION] = x * inverse;
        fields[DIRECTION + 1] = y * inverse;
        fields[DIRECTION + 2] = z * inverse;
        fields[DIRECTION + 3] = inverse;
        fields[NEIGHBOR] = (V)neighbor;
        fields[PLACE] = (V)(packed | bin);
        Real* to = records + (int64_t)k * RECORD;
        const int used = smaller(VL, n - k);
#if defined(ASE_SHUFFLES)
        if constexpr (SINGLE && VL >= 4) {
#pragma GCC unroll 8
            for (int four = 0; four < RECORD; four += 4) {
                V* f = fields + four;
                transpose_fours(f[0], f[1], f[2], f[3]);
                for (int q = 0; q < used; q++) {
                    Real* lane = (Real*)&f[q % 4] + q / 4 * 4;
                    memcpy(to + q * RECORD + four, lane, 4 * sizeof(Real));
                }
            }
        } else
#endif
            for (int q = 0; q < used; q++)
                for (int f = 0; f < RECORD; f++) to[q * RECORD + f] = fields[f][q];
        for (int q = 0; q < used; q++) {
            double slope = 0;
            if (d[q] < bond[q]) {
                const int j = scratch.near_neighbors[k + q] + (int)group;
                double half;
                repulsion(net.elements + 4 * (int64_t)present[list.species[i]],
                          net.elements + 4 * (int64_t)present[list.species[j]], (double)d[q], half,
                          slope);
                energy += half;
            }
            Real* gradient = gradients + 4 * (int64_t)scratch.near_places[k + q];
            store4(gradient, R4{(Real)slope, 0, 0, 0});
        }
    }
    list.energies[i] = energy + net.elements[4 * (int64_t)present[list.species[i]] + 3];
}

// --- first interaction ---------------------------------------------------------------------------

AI V spline_value(const Real* pair, const Real* table, int stride) {
    V sum = pair[VALUE] * load(table);
#pragma GCC unroll 8
    for (int q = 1; q < ORDER; q++) sum += pair[VALUE + q] * load(table + q * stride);
    return sum;
}

// Moments of one row, by element of the neighbor: of one, three and five components.
template <bool TENSORS>
void Workspace::row_moments(const ListView& list, State& state, int64_t group, int64_t i,
                            Real* zeroth, Real* first, Real* second) {
    const int Rp = net.Rp, width = moments_width;
    const Real* records = state.pairs.p + (list.rows[i] - list.rows[group]) * RECORD;
    const int* segments = state.segments + (i - group) * (n_present + 1);
    for (int e = 0; e < n_present; e++)
        for (int n = 0; n < Rp; n += VL) {
            V sum{}, sx{}, sy{}, sz{}, sxy{}, syz{}, sxz{}, sxx{}, syy{};
            for (int k = segments[e]; k < segments[e + 1]; k++) {
                const Real* pair = records + (int64_t)k * RECORD;
                const Integer bin = as_integer(pair + PLACE) & BIN_MASK;
                const V g = spline_value(pair, net.radial_table.p + (int64_t)bin * Rp + n, Rp);
                const Real x = pair[DIRECTION], y = pair[DIRECTION + 1], z = pair[DIRECTION + 2];
                const V gx = g * x, gy = g * y, gz = g * z;
                sum += g, sx += gx, sy += gy, sz += gz;
                if constexpr (TENSORS) {
                    const V zz = gz * z;
                    sxy += gx * y, syz += gy * z, sxz += gx * z;
                    sxx += gx * x - zz, syy += gy * y - zz;
                }
            }
            // Columns behind an element's own are zero, and overwritten by the next element.
            const int column = e * net.R + n;
            store(zeroth + column, sum);
            store(first + column, sx);
            store(first + width + column, sy);
            store(first + 2 * width + column, sz);
            if constexpr (TENSORS) {
                store(second + column, sxy);
                store(second + width + column, syz);
                store(second + 2 * width + column, sxz);
                store(second + 3 * width + column, sxx);
                store(second + 4 * width + column, syy);
            }
        }
}

void Workspace::first_forward(const ListView& list, State& state, Scratch& scratch, int64_t group,
                              int64_t first, int n, int& outside) {
    const int Fp = net.Fp, Tp = net.Tp, width = moments_width;
    const int64_t at = first - group;
    Real* s = state.scalars.p + at * Fp;
    Real* v = state.vectors.p + at * 3 * Fp;
    Real* zeroth = scratch.moments.p;
    Real* firsts = zeroth + (int64_t)CHUNK * width;
    Real* seconds = firsts + (int64_t)CHUNK * 3 * width;
    for (int a = 0; a < n; a++) {
        row_geometry(list, state, scratch, group, first + a, outside);
        Real *m0 = zeroth + (int64_t)a * width, *m1 = firsts + (int64_t)a * 3 * width;
        if (net.T)
            row_moments<true>(list, state, group, first + a, m0, m1,
                              seconds + (int64_t)a * 5 * width);
        else
            row_moments<false>(list, state, group, first + a, m0, m1, nullptr);
        memcpy(s + (int64_t)a * Fp,
               net.embedding.p + (int64_t)present[list.species[first + a]] * Fp,
               sizeof(Real) * Fp);
    }
    multiply(scalars.forward, n, zeroth, width, s, Fp, PREVIOUS);
    multiply(vectors.forward, 3 * n, firsts, width, v, Fp);
    if (!net.T) return;
    Real* mixed = scratch.mixed.p;
    Real* products = scratch.products.p;
    Real* turned = state.turned.p + at * 3 * Tp;
    Real* matrices = state.matrices.p + at * 5 * Tp;
    Real* norms = state.norms.p + at * Tp;
    multiply(mixes.forward, 5 * n, seconds, width, mixed, Tp);
    multiply(net.vector_mixes.forward, 3 * n, v, Fp, turned, Tp);
    for (int64_t a = 0; a < n; a++)
        for (int q = 0; q < Tp; q += VL) {
            const Real *x = mixed + a * 5 * Tp + q, *t = turned + a * 3 * Tp + q;
            Real *m = matrices + a * 5 * Tp + q, *p = products + a * 3 * Tp + q;
            const V x0 = load(x), x1 = load(x + Tp), x2 = load(x + 2 * Tp), x3 = load(x + 3 * Tp),
                    x4 = load(x + 4 * Tp);
            const V m0 = Real(3) * x0, m1 = Real(3) * x1, m2 = Real(3) * x2,
                    m3 = x3 - Real(0.5) * x4, m4 = x4 - Real(0.5) * x3;
            store(m, m0), store(m + Tp, m1), store(m + 2 * Tp, m2), store(m + 3 * Tp, m3);
            store(m + 4 * Tp, m4);
            store(norms + a * Tp + q,
                  vsqrt(m0 * x0 + m1 * x1 + m2 * x2 + m3 * x3 + m4 * x4 + Real(1)));
            const V tx = load(t), ty = load(t + Tp), tz = load(t + 2 * Tp);
            store(p, m0 * ty + m2 * tz + Real(2) * (m3 * tx));
            store(p + Tp, m0 * tx + m1 * tz + Real(2) * (m4 * ty));
            store(p + 2 * Tp, m1 * ty + m2 * tx - Real(2) * ((m3 + m4) * tz));
        }
    multiply(net.moment_scalars.forward, n, norms, Tp, s, Fp, PREVIOUS);
    multiply(net.moment_vectors.forward, 3 * n, products, Tp, v, Fp, PREVIOUS);
}

void Workspace::first_backward(const ListView& list, State& state, Scratch& scratch,
                               int64_t group, int64_t first, int n) {
    const int Fp = net.Fp, Tp = net.Tp, width = moments_width;
    const int64_t at = first - group;
    const Real* by_s = state.scalars.p + at * Fp;
    Real* by_v = state.vectors.p + at * 3 * Fp;
    Real* by_moments = scratch.moments.p;
    if (net.T) {
        Real *by_norms = scratch.by_norms.p, *by_products = scratch.products.p;
        Real* by_mixed = scratch.mixed.p;
        const Real* turned = state.turned.p + at * 3 * Tp;
        const Real* matrices = state.matrices.p + at * 5 * Tp;
        const Real* norms = state.norms.p + at * Tp;
        multiply(net.moment_scalars.backward, n, by_s, Fp, by_norms, Tp);
        multiply(net.moment_vectors.backward, 3 * n, by_v, Fp, by_products, Tp);
        for (int64_t a = 0; a < n; a++)
            for (int q = 0; q < Tp; q += VL) {
                const Real *m = matrices + a * 5 * Tp + q, *t = turned + a * 3 * Tp + q;
                Real *p = by_products + a * 3 * Tp + q, *o = by_mixed + a * 5 * Tp + q;
                const V px = load(p), py = load(p + Tp), pz = load(p + 2 * Tp);
                const V tx = load(t), ty = load(t + Tp), tz = load(t + 2 * Tp);
                const V m0 = load(m), m1 = load(m + Tp), m2 = load(m + 2 * Tp),
                        m3 = load(m + 3 * Tp), m4 = load(m + 4 * Tp);
                const V ratio = load(by_norms + a * Tp + q) / load(norms + a * Tp + q);
                const V zz = tz * pz, q0 = tx * py + ty * px, q1 = ty * pz + tz * py,
                        q2 = tx * pz + tz * px, q3 = Real(2) * (tx * px - zz),
                        q4 = Real(2) * (ty * py - zz);
                store(o, m0 * ratio + Real(3) * q0);
                store(o + Tp, m1 * ratio + Real(3) * q1);
                store(o + 2 * Tp, m2 * ratio + Real(3) * q2);
                store(o + 3 * Tp, m3 * ratio + q3 - Real(0.5) * q4);
                store(o + 4 * Tp, m4 * ratio + q4 - Real(0.5) * q3);
                store(p, m0 * py + m2 * pz + Real(2) * (m3 * px));
                store(p + Tp, m0 * px + m1 * pz + Real(2) * (m4 * py));
                store(p + 2 * Tp, m1 * py + m2 * px - Real(2) * ((m3 + m4) * pz));
            }
        multiply(net.vector_mixes.backward, 3 * n, by_products, Tp, by_v, Fp, PREVIOUS);
        // The nine components of an atom lie side by side: each is a product of its own.
        for (int c = 0; c < 5; c++)
            multiply(mixes.backward, n, by_mixed + c * Tp, 5 * Tp, by_moments + (4 + c) * width,
                     9 * width);
    }
    multiply(scalars.backward, n, by_s, Fp, by_moments, 9 * width);
    for (int c = 0; c < 3; c++)
        multiply(vectors.backward, n, by_v + c * Fp, 3 * Fp, by_moments + (1 + c) * width,
                 9 * width);
    if (net.T) moment_gradients<true>(list, state, group, first, n, by_moments);
    else moment_gradients<false>(list, state, group, first, n, by_moments);
}

// Add what an atom's moments contribute to the gradients of its pairs.
template <bool TENSORS>
void Workspace::moment_gradients(const ListView& list, State& state, int64_t group, int64_t first,
                                 int n, const Real* by_moments) {
    const int Rp = net.Rp, width = moments_width;
    for (int a = 0; a < n; a++) {
        const int64_t i = first + a, offset = list.rows[i] - list.rows[group];
        const Real* records = state.pairs.p + offset * RECORD;
        Real* gradients = state.gradients.p + offset * 4;
        const int* segments = state.segments + (i - group) * (n_present + 1);
        const Real* own = by_moments + (int64_t)a * 9 * width;
        for (int e = 0; e < n_present; e++)
            for (int k = segments[e]; k < segments[e + 1]; k++) {
                const Real* pair = records + (int64_t)k * RECORD;
                const Integer packed = as_integer(pair + PLACE);
                const Real x = pair[DIRECTION], y = pair[DIRECTION + 1], z = pair[DIRECTION + 2];
                V by_d{}, by_x{}, by_y{}, by_z{};
                for (int r = 0; r < Rp; r += VL) {
                    const Real* table = net.radial_table.p + (int64_t)(packed & BIN_MASK) * Rp + r;
                    V g = pair[VALUE] * load(table), slope = pair[SLOPE] * load(table);
#pragma GCC unroll 8
                    for (int q = 1; q < ORDER; q++) {
                        const V c = load(table + q * Rp);
                        g += pair[VALUE + q] * c;
                        slope += pair[SLOPE + q] * c;
                    }
                    const Real* by = own + e * net.R + r;
                    auto part = [&](int c) { return load(by + c * width); };
                    const V bx = part(1), by_ = part(2), bz = part(3);
                    if constexpr (TENSORS) {
                        const V xy = part(4), yz = part(5), xz = part(6), xx = part(7),
                                yy = part(8);
                        const V hx = xy * y + xz * z, hy = xy * x + yz * z, hz = yz * y + xz * x;
                        const V sx = xx * x, sy = yy * y, sz = (xx + yy) * z;
                        // y · τ is half the sum of x_c ∂(y · τ) / ∂x_c.
                        by_d += slope * (part(0) + x * (bx + sx + Real(0.5) * hx) +
                                         y * (by_ + sy + Real(0.5) * hy) +
                                         z * (bz - sz + Real(0.5) * hz));
                        by_x += g * (bx + hx + Real(2) * sx);
                        by_y += g * (by_ + hy + Real(2) * sy);
                        by_z += g * (bz + hz - Real(2) * sz);
                    } else {
                        by_d += slope * (part(0) + x * bx + y * by_ + z * bz);
                        by_x += g * bx, by_y += g * by_, by_z += g * bz;
                    }
                }
                Real* gradient = gradients + 4 * (int64_t)(packed >> BIN_BITS);
                store4(gradient, load4(gradient) + lanes_summed(by_d, by_x, by_y, by_z));
            }
    }
}

// --- updates -------------------------------------------------------------------------------------

// SiLU of hidden values, in place, and its slope: σ(x) and x σ(x) give σ + SiLU (1 − σ).
AI void activate(int n, Real* hidden, Real* slopes) {
    for (int q = 0; q < n; q += VL) {
        const V x = load(hidden + q), gate = sigmoid(x), active = x * gate;
        store(hidden + q, active);
        store(slopes + q, gate + active * (Real(1) - gate));
    }
}

AI void times_slopes(int n, Real* by, const Real* slopes) {
    for (int q = 0; q < n; q += VL) store(by + q, load(by + q) * load(slopes + q));
}

struct Mixes {
    const Real *mixed, *norms, *gates, *slopes;
};

void Workspace::update_forward(int u, State& state, Scratch& scratch, int64_t at, int n, Real* s,
                               Real* v) {
    const int Fp = net.Fp, Hp = net.Hp;
    const UpdateLayers& layers = net.updates[u];
    const int width = layers.second.out;
    // The last update is followed by its own backward pass: what it keeps stays in the cache.
    State::UpdateCache& cache = layers.is_last ? scratch.last : state.updates[u];
    const int64_t from = layers.is_last ? 0 : at;
    Real* mixed = cache.mixed.p + from * 6 * Fp;
    Real* norms = cache.norms.p + from * Fp;
    Real* gates = cache.gates.p + from * 3 * Fp;
    Real* slopes = cache.slopes.p + from * Hp;
    Real* inputs = scratch.inputs.p;
    multiply(layers.mixes.forward, 3 * n, v, Fp, mixed, 2 * Fp);
    for (int64_t a = 0; a < n; a++)
        for (int f = 0; f < Fp; f += VL) {
            const Real* m = mixed + a * 6 * Fp + Fp + f;
            const V x = load(m), y = load(m + 2 * Fp), z = load(m + 4 * Fp);
            const V norm = vsqrt(x * x + y * y + z * z + Real(1));
            store(norms + a * Fp + f, norm);
            store(inputs + a * 2 * Fp + Fp + f, norm);
            store(inputs + a * 2 * Fp + f, load(s + a * Fp + f));
        }
    Real* hidden = scratch.hidden.p;
    multiply(layers.first.forward, n, inputs, 2 * Fp, hidden, Hp, BIAS, layers.first.bias.p);
    activate(n * Hp, hidden, slopes);
    multiply(layers.second.forward, n, hidden, Hp, gates, width, BIAS, layers.second.bias.p);
    for (int64_t a = 0; a < n; a++)
        for (int f = 0; f < Fp; f += VL) {
            const Real *m = mixed + a * 6 * Fp + f, *g = gates + a * width + f;
            const V x = load(m), y = load(m + 2 * Fp), z = load(m + 4 * Fp);
            const V dot = x * load(m + Fp) + y * load(m + 3 * Fp) + z * load(m + 5 * Fp);
            Real* own = s + a * Fp + f;
            store(own, load(own) + load(g) + load(g + Fp) * dot);
            if (layers.is_last) continue;
            const V gate = load(g + 2 * Fp);
            Real* vector = v + a * 3 * Fp + f;
            store(vector, load(vector) + gate * x);
            store(vector + Fp, load(vector + Fp) + gate * y);
            store(vector + 2 * Fp, load(vector + 2 * Fp) + gate * z);
        }
}

// s and v hold the gradients by the outputs, and then by the inputs. Of the last update there is
// none by the vectors.
void Workspace::update_backward(int u, State& state, Scratch& scratch, int64_t at, int n, Real* s,
                                Real* v) {
    const int Fp = net.Fp, Hp = net.Hp;
    const UpdateLayers& layers = net.updates[u];
    const int width = layers.second.out;
    const bool is_last = layers.is_last;
    State::UpdateCache& cache = is_last ? scratch.last : state.updates[u];
    const int64_t from = is_last ? 0 : at;
    const Real* mixed = cache.mixed.p + from * 6 * Fp;
    const Real* norms = cache.norms.p + from * Fp;
    const Real* gates = cache.gates.p + from * 3 * Fp;
    const Real* slopes = cache.slopes.p + from * Hp;
    Real *by_gates = scratch.by_gates.p, *by_hidden = scratch.hidden.p;
    Real *by_inputs = scratch.inputs.p, *by_mixed = scratch.by_mixed.p;
    for (int64_t a = 0; a < n; a++)
        for (int f = 0; f < Fp; f += VL) {
            const Real* m = mixed + a * 6 * Fp + f;
            const V x = load(m), y = load(m + 2 * Fp), z = load(m + 4 * Fp);
            const V dot = x * load(m + Fp) + y * load(m + 3 * Fp) + z * load(m + 5 * Fp);
            const V by = load(s + a * Fp + f);
            Real* out = by_gates + a * width + f;
            store(out, by);
            store(out + Fp, by * dot);
            if (is_last) continue;
            const Real* bv = v + a * 3 * Fp + f;
            store(out + 2 * Fp, load(bv) * x + load(bv + Fp) * y + load(bv + 2 * Fp) * z);
        }
    multiply(layers.second.backward, n, by_gates, width, by_hidden, Hp);
    times_slopes(n * Hp, by_hidden, slopes);
    multiply(layers.first.backward, n, by_hidden, Hp, by_inputs, 2 * Fp);
    for (int64_t a = 0; a < n; a++)
        for (int f = 0; f < Fp; f += VL) {
            const Real *m = mixed + a * 6 * Fp + f, *g = gates + a * width + f;
            Real *out = by_mixed + a * 6 * Fp + f, *own = s + a * Fp + f;
            const V by = load(own), into = by * load(g + Fp);
            const V ratio = load(by_inputs + a * 2 * Fp + Fp + f) / load(norms + a * Fp + f);
            store(own, by + load(by_inputs + a * 2 * Fp + f));
            const V gate = is_last ? V{} : load(g + 2 * Fp);
#pragma GCC unroll 3
            for (int c = 0; c < 3; c++) {
                const V u_c = load(m + c * 2 * Fp), v_c = load(m + c * 2 * Fp + Fp);
                V by_u = into * v_c;
                if (!is_last) by_u += load(v + a * 3 * Fp + c * Fp + f) * gate;
                store(out + c * 2 * Fp, by_u);
                store(out + c * 2 * Fp + Fp, into * u_c + ratio * v_c);
            }
        }
    multiply(layers.mixes.backward, 3 * n, by_mixed, 2 * Fp, v, Fp, is_last ? ZERO : PREVIOUS);
}

// --- later interactions --------------------------------------------------------------------------

// What atoms send: by block of VL channels, plain, three carried and directed messages.
void Workspace::send(int l, State& state, Scratch& scratch, int64_t at, int n) {
    const InteractionLayers& layers = net.interactions[l];
    State::MessageCache& cache = state.messages[l];
    const int Fp = net.Fp, Hp = net.Hp, Mp = net.Mp, blocks = net.n_channel_blocks;
    Real *hidden = scratch.hidden.p, *out = scratch.gates.p;
    Real* carriers = cache.carriers.p + at * 3 * Mp;
    Real* gates = cache.gates.p + at * Mp;
    multiply(layers.first.forward, n, state.scalars.p + at * Fp, Fp, hidden, Hp, BIAS,
             layers.first.bias.p);
    activate(n * Hp, hidden, cache.slopes.p + at * Hp);
    multiply(layers.second.forward, n, hidden, Hp, out, 3 * Mp, BIAS, layers.second.bias.p);
    multiply(layers.vector_senders.forward, 3 * n, state.vectors.p + at * 3 * Fp, Fp, carriers, Mp);
    for (int64_t a = 0; a < n; a++)
        for (int b = 0; b < blocks; b++) {
            Real* sent = cache.sent.p + ((at + a) * blocks + b) * 5 * VL;
            const Real* o = out + a * 3 * Mp + b * VL;
            const Real* carrier = carriers + a * 3 * Mp + b * VL;
            const V gate = load(o + Mp);
            store(gates + a * Mp + b * VL, gate);
            store(sent, load(o));
            store(sent + VL, load(carrier) * gate);
            store(sent + 2 * VL, load(carrier + Mp) * gate);
            store(sent + 3 * VL, load(carrier + 2 * Mp) * gate);
            store(sent + 4 * VL, load(o + 2 * Mp));
        }
}

void Workspace::gather(int l, const ListView& list, State& state, int64_t group, int64_t first,
                       int n, Real* sums, Real* vector_sums) {
    const int Mp = net.Mp, blocks = net.n_channel_blocks;
    const int64_t stride = (int64_t)blocks * 5 * VL;
    for (int b = 0; b < blocks; b++) {
        const Real* table =
            net.interactions[l].table.p + (int64_t)b * (net.knots + DEGREE) * 3 * VL;
        const Real* sent = state.messages[l].sent.p + (int64_t)b * 5 * VL;
        for (int a = 0; a < n; a++) {
            const int64_t i = first + a;
            const Real* pair = state.pairs.p + (list.rows[i] - list.rows[group]) * RECORD;
            const Real* end = pair + (int64_t)state.counts[i - group] * RECORD;
            V s{}, x{}, y{}, z{};
            for (; pair < end; pair += RECORD) {
                const Real* t = table + (int64_t)(as_integer(pair + PLACE) & BIN_MASK) * 3 * VL;
                const Real* from = sent + (int64_t)as_integer(pair + NEIGHBOR) * stride;
                const V plain = spline_value(pair, t, 3 * VL);
                const V carried = spline_value(pair, t + VL, 3 * VL);
                const V directed = spline_value(pair, t + 2 * VL, 3 * VL) * load(from + 4 * VL);
                s += plain * load(from);
                x += carried * load(from + VL) + pair[DIRECTION] * directed;
                y += carried * load(from + 2 * VL) + pair[DIRECTION + 1] * directed;
                z += carried * load(from + 3 * VL) + pair[DIRECTION + 2] * directed;
            }
            Real* out = vector_sums + (int64_t)a * 3 * Mp + b * VL;
            store(sums + (int64_t)a * Mp + b * VL, s);
            store(out, x);
            store(out + Mp, y);
            store(out + 2 * Mp, z);
        }
    }
}

// What neighbors received from these atoms: gradients by what was sent, and of the pairs.
void Workspace::gather_back(int l, const ListView& list, State& state, int64_t group,
                            int64_t first, int n, Real* by_plain, Real* by_carried,
                            Real* by_directed) {
    const int Mp = net.Mp, blocks = net.n_channel_blocks;
    const int64_t sent_stride = (int64_t)blocks * 5 * VL, received_stride = (int64_t)blocks * 4 * VL;
    for (int b = 0; b < blocks; b++) {
        const Real* table =
            net.interactions[l].table.p + (int64_t)b * (net.knots + DEGREE) * 3 * VL;
        const Real* sent = state.messages[l].sent.p + (int64_t)b * 5 * VL;
        const Real* received = state.messages[l].received.p + (int64_t)b * 4 * VL;
        for (int a = 0; a < n; a++) {
            const int64_t i = first + a, offset = list.rows[i] - list.rows[group];
            const Real* pair = state.pairs.p + offset * RECORD;
            const Real* end = pair + (int64_t)state.counts[i - group] * RECORD;
            Real* gradients = state.gradients.p + offset * 4;
            const Real* own = sent + (i - group) * sent_stride;
            const V plain = load(own), carried_x = load(own + VL), carried_y = load(own + 2 * VL),
                    carried_z = load(own + 3 * VL), directed = load(own + 4 * VL);
            V by_p{}, by_x{}, by_y{}, by_z{}, by_d{};
            for (; pair < end; pair += RECORD) {
                const Integer packed = as_integer(pair + PLACE);
                const Real* t = table + (int64_t)(packed & BIN_MASK) * 3 * VL;
                const Real* from = received + (int64_t)as_integer(pair + NEIGHBOR) * received_stride;
                const V rs = load(from), rx = load(from + VL), ry = load(from + 2 * VL),
                        rz = load(from + 3 * VL);
                V value[3], slope[3];
#pragma GCC unroll 3
                for (int c = 0; c < 3; c++) {
                    V row = load(t + c * VL);
                    value[c] = pair[VALUE] * row;
                    slope[c] = pair[SLOPE] * row;
#pragma GCC unroll 8
                    for (int q = 1; q < ORDER; q++) {
                        row = load(t + (q * 3 + c) * VL);
                        value[c] += pair[VALUE + q] * row;
                        slope[c] += pair[SLOPE + q] * row;
                    }
                }
                by_p += value[0] * rs;
                by_x += value[1] * rx, by_y += value[1] * ry, by_z += value[1] * rz;
                const V along = pair[DIRECTION] * rx + pair[DIRECTION + 1] * ry +
                                pair[DIRECTION + 2] * rz;
                by_d -= value[2] * along;
                const V radial = slope[0] * (rs * plain) +
                                 slope[1] * (rx * carried_x + ry * carried_y + rz * carried_z) -
                                 slope[2] * (along * directed);
                const V turning = -(value[2] * directed);
                Real* gradient = gradients + 4 * (int64_t)(packed >> BIN_BITS);
                store4(gradient, load4(gradient) + lanes_summed(radial, turning * rx, turning * ry,
                                                                turning * rz));
            }
            Real* out = by_carried + (int64_t)a * 3 * Mp + b * VL;
            store(by_plain + (int64_t)a * Mp + b * VL, by_p);
            store(out, by_x);
            store(out + Mp, by_y);
            store(out + 2 * Mp, by_z);
            store(by_directed + (int64_t)a * Mp + b * VL, by_d);
        }
    }
}

// Gradients by what atoms received, in the layout of `send`.
void Workspace::receive(int l, State& state, Scratch& scratch, int64_t at, int n) {
    const InteractionLayers& layers = net.interactions[l];
    const int Fp = net.Fp, Mp = net.Mp, blocks = net.n_channel_blocks;
    Real *by_s = scratch.sums.p, *by_v = scratch.vector_sums.p;
    multiply(layers.scalars.backward, n, state.scalars.p + at * Fp, Fp, by_s, Mp);
    multiply(layers.vectors.backward, 3 * n, state.vectors.p + at * 3 * Fp, Fp, by_v, Mp);
    for (int64_t a = 0; a < n; a++)
        for (int b = 0; b < blocks; b++) {
            Real* received = state.messages[l].received.p + ((at + a) * blocks + b) * 4 * VL;
            store(received, load(by_s + a * Mp + b * VL));
            for (int c = 0; c < 3; c++)
                store(received + (1 + c) * VL, load(by_v + (a * 3 + c) * Mp + b * VL));
        }
}

// Readout: the network's energies, and their gradients by the scalars instead of these.
void Workspace::finish(const ListView& list, State& state, Scratch& scratch, int64_t group,
                       int64_t first, int n) {
    const int Fp = net.Fp, width = net.halfp;
    Real* s = state.scalars.p + (first - group) * Fp;
    Real* hidden = scratch.hidden.p;
    multiply(net.readout.forward, n, s, Fp, hidden, width, BIAS, net.readout.bias.p);
    for (int64_t a = 0; a < n; a++) {
        V sum{};
        for (int q = 0; q < width; q += VL) {
            const V x = load(hidden + a * width + q), w = load(net.readout_weights.p + q);
            const V gate = sigmoid(x), active = x * gate;
            sum += active * w;
            store(hidden + a * width + q, w * (gate + active * (Real(1) - gate)));
        }
        list.energies[first + a] += (double)(lanes_summed(sum) + net.readout_bias);
    }
    multiply(net.readout.backward, n, hidden, width, s, Fp);
}

void Workspace::interaction_forward(int l, const ListView& list, State& state, Scratch& scratch,
                                    int64_t group, int64_t first, int n) {
    const InteractionLayers& layers = net.interactions[l];
    const int Fp = net.Fp, Mp = net.Mp;
    const int64_t at = first - group;
    Real *s = state.scalars.p + at * Fp, *v = state.vectors.p + at * 3 * Fp;
    gather(l, list, state, group, first, n, scratch.sums.p, scratch.vector_sums.p);
    multiply(layers.scalars.forward, n, scratch.sums.p, Mp, s, Fp, PREVIOUS);
    multiply(layers.vectors.forward, 3 * n, scratch.vector_sums.p, Mp, v, Fp, PREVIOUS);
    update_forward(l + 1, state, scratch, at, n, s, v);
    if (l + 2 < net.L) {
        send(l + 1, state, scratch, at, n);
        return;
    }
    finish(list, state, scratch, group, first, n);
    update_backward(l + 1, state, scratch, at, n, s, v);
    receive(l, state, scratch, at, n);
}

void Workspace::interaction_backward(int l, const ListView& list, State& state, Scratch& scratch,
                                     int64_t group, int64_t first, int n) {
    const InteractionLayers& layers = net.interactions[l];
    State::MessageCache& cache = state.messages[l];
    const int Fp = net.Fp, Hp = net.Hp, Mp = net.Mp;
    const int64_t at = first - group;
    Real *s = state.scalars.p + at * Fp, *v = state.vectors.p + at * 3 * Fp;
    Real *by_plain = scratch.sums.p, *by_carried = scratch.vector_sums.p;
    Real *by_directed = scratch.directed_sums.p, *by_gates = scratch.by_gates.p;
    gather_back(l, list, state, group, first, n, by_plain, by_carried, by_directed);
    for (int64_t a = 0; a < n; a++)
        for (int q = 0; q < Mp; q += VL) {
            const Real* carrier = cache.carriers.p + (at + a) * 3 * Mp + q;
            Real *carried = by_carried + a * 3 * Mp + q, *out = by_gates + a * 3 * Mp + q;
            const V gate = load(cache.gates.p + (at + a) * Mp + q);
            const V x = load(carried), y = load(carried + Mp), z = load(carried + 2 * Mp);
            store(out, load(by_plain + a * Mp + q));
            store(out + Mp, x * load(carrier) + y * load(carrier + Mp) + z * load(carrier + 2 * Mp));
            store(out + 2 * Mp, load(by_directed + a * Mp + q));
            store(carried, x * gate);
            store(carried + Mp, y * gate);
            store(carried + 2 * Mp, z * gate);
        }
    Real* by_hidden = scratch.hidden.p;
    multiply(layers.second.backward, n, by_gates, 3 * Mp, by_hidden, Hp);
    times_slopes(n * Hp, by_hidden, cache.slopes.p + at * Hp);
    multiply(layers.first.backward, n, by_hidden, Hp, s, Fp, PREVIOUS);
    multiply(layers.vector_senders.backward, 3 * n, by_carried, Mp, v, Fp, PREVIOUS);
    update_backward(l, state, scratch, at, n, s, v);
    if (l > 0) receive(l - 1, state, scratch, at, n);
    else first_backward(list, state, scratch, group, first, n);
}

// --- forces --------------------------------------------------------------------------------------

// Add both directions of every pair: dE/dr = (a − u·t) u + t, with a the derivative by the distance
// and t that by the direction over the distance. The two directions give opposite bits.
void Workspace::forces(const ListView& list, State& state, int64_t group, int64_t first, int n,
                       int& outside) {
    const int64_t first_ghost = list.n_atoms - list.n_ghosts, start = list.rows[group];
    for (int a = 0; a < n; a++) {
        const int64_t i = first + a, row = list.rows[i];
        const Real* records = state.pairs.p + (row - start) * RECORD;
        const Real* own = state.gradients.p + (row - start) * 4;
        D4 force{};
        double virial[9] = {};
        for (int k = 0; k < state.counts[i - group]; k++) {
            const Real* pair = records + (int64_t)k * RECORD;
            const int64_t place = as_integer(pair + PLACE) >> BIN_BITS;
            const int64_t j = group + as_integer(pair + NEIGHBOR);
            const Real* p = own + 4 * place;
            Real radial = p[0], t[3] = {p[1], p[2], p[3]};
            if (j < first_ghost) {
                const int64_t back = list.rows[j] - start + list.reverse[row + place];
                const Real* q = state.gradients.p + 4 * back;
                radial += q[0], t[0] -= q[1], t[1] -= q[2], t[2] -= q[3];
            }
            const Real x = pair[DIRECTION], y = pair[DIRECTION + 1], z = pair[DIRECTION + 2];
            const Real inverse = pair[DIRECTION + 3];
            const Real tx = t[0] * inverse, ty = t[1] * inverse, tz = t[2] * inverse;
            const Real along = radial - (x * tx + y * ty + z * tz);
            const double f[3] = {(double)(x * along + tx), (double)(y * along + ty),
                                 (double)(z * along + tz)};
            force += D4{f[0], f[1], f[2], 0};
            // The ghost's owner adds the other direction, and gives back this one's reaction.
            for (int c = 0; c < 3 && j >= first_ghost; c++) list.forces[3 * j + c] -= f[c];
            const double half = 0.5 / (double)inverse;
            const double r[3] = {x * half, y * half, z * half};
            for (int c = 0; c < 3; c++)
                for (int e = 0; e < 3; e++) {
                    virial[3 * c + e] += f[c] * r[e];
                    if (j >= first_ghost) list.virials[9 * j + 3 * c + e] += f[c] * r[e];
                }
        }
        for (int c = 0; c < 3; c++) list.forces[3 * i + c] = force[c];
        for (int c = 0; c < 9; c++) list.virials[9 * i + c] = virial[c];
        const double squared = force[0] * force[0] + force[1] * force[1] + force[2] * force[2];
        if (list.largest_force_squared && squared > list.largest_force_squared[list.species[i]])
            outside |= ase::LARGE_FORCE;
    }
}

// --- functions -----------------------------------------------------------------------------------

static void* create(const NetworkWeights* weights, const SplineView* spline) {
    Network* network = new (std::nothrow) Network;
    if (network && !network->set(*weights, *spline)) {
        delete network;
        network = nullptr;
    }
    return network;
}
static void destroy(void* network) { delete (Network*)network; }
static size_t state_bytes(const void* network) {
    return State::bytes_per_atom(*(const Network*)network);
}
static void* create_workspace(const void* network) {
    return new (std::nothrow) Workspace(*(const Network*)network);
}
static void destroy_workspace(void* workspace) { delete (Workspace*)workspace; }
static bool prepare(void* workspace, const ListView* list, int n_states, int n_threads,
                    int64_t atoms, int64_t places) {
    return ((Workspace*)workspace)->prepare(*list, n_states, n_threads, atoms, places);
}

static int run(void* pointer, const ListView* list, int state_index, int thread, int phase,
               int64_t group, int64_t first, int n) {
    Workspace& workspace = *(Workspace*)pointer;
    State& state = workspace.states[state_index];
    Scratch& scratch = workspace.scratches[thread];
    const Network& net = workspace.net;
    const int64_t at = first - group;
    int outside = 0;
    if (phase == 0) {
        workspace.first_forward(*list, state, scratch, group, first, n, outside);
        Real *s = state.scalars.p + at * net.Fp, *v = state.vectors.p + at * 3 * net.Fp;
        workspace.update_forward(0, state, scratch, at, n, s, v);
        if (net.L > 1) {
            workspace.send(0, state, scratch, at, n);
        } else {
            workspace.finish(*list, state, scratch, group, first, n);
            workspace.update_backward(0, state, scratch, at, n, s, v);
            workspace.first_backward(*list, state, scratch, group, first, n);
        }
    } else if (phase < net.L) {
        workspace.interaction_forward(phase - 1, *list, state, scratch, group, first, n);
    } else if (phase < 2 * net.L - 1) {
        workspace.interaction_backward(2 * net.L - 2 - phase, *list, state, scratch, group, first,
                                       n);
    } else {
        workspace.forces(*list, state, group, first, n, outside);
    }
    return outside;
}

static ase::ExchangeView exchange(void* pointer, int phase) {
    Workspace& workspace = *(Workspace*)pointer;
    const Network& net = workspace.net;
    State& state = workspace.states[0];
    const int64_t width = (int64_t)sizeof(Real) * net.Mp;
    if (phase >= 1 && phase < net.L) return {state.messages[phase - 1].sent.p, 5 * width};
    if (phase >= net.L && phase < 2 * net.L - 1)
        return {state.messages[2 * net.L - 2 - phase].received.p, 4 * width};
    return {nullptr, 0};
}

extern const ase::NetworkFunctions functions;
const ase::NetworkFunctions functions = {
    ASE_NAME, DEGREE, create, destroy, state_bytes, create_workspace, destroy_workspace,
    prepare,  run,    exchange,
};

}  // namespace ASE_NAMESPACE
