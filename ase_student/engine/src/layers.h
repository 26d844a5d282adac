// Weights, packed for the forward and the backward pass, and tables of radial functions.
#pragma once

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
// A pair's record: ORDER spline weights of values, ORDER of slopes, direction, inverse distance,
// neighbor, and in one number the place in the row and the bin of the spline.
enum { VALUE = 0, SLOPE = ORDER, DIRECTION = 2 * ORDER, NEIGHBOR = DIRECTION + 4, PLACE };
constexpr int RECORD = (PLACE + 1 + 7) / 8 * 8;
constexpr int BIN_BITS = 13;
constexpr Integer BIN_MASK = (1 << BIN_BITS) - 1;

// Convert an index in an array whose parts are padded to `width` numbers into the index in the
// array whose parts have `size` numbers; -1 for padding.
AI int unpadded(int index, int size, int width) {
    const int part = index / width, rest = index % width;
    return rest < size ? part * size + rest : -1;
}

// A linear layer, for the forward and for the backward pass. Inputs and outputs consist of parts
// (scalars and norms, for example), each of which is padded to whole vectors.
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

// A student's weights in the layout of the kernels. Widths have the letters of the formulas: S
// elements, F features, L blocks, H hidden, R radial functions, C element channels, M message
// channels, T tensor channels; a letter with p is padded to whole vectors.
struct Network {
    int S, F, Fp, L, H, Hp, R, Rp, C, M, Mp, T, Tp, half, halfp, n_channel_blocks;
    double cutoff, envelope_cutoff, inner_cutoff;
    Buffer embedding, radial_table, readout_weights;
    // By element, for Workspace::fold and for the repulsion.
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
        // Rounded to float32, as in the other backends.
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

}  // namespace ASE_NAMESPACE
