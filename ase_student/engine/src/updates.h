// Update blocks: scalars and vectors of each atom are mixed.
#pragma once

#include "workspace.h"

namespace ASE_NAMESPACE {

// Replace hidden values x by SiLU(x) = x σ(x), and compute its slope σ + SiLU (1 − σ).
AI void activate(int n, Real* hidden, Real* slopes) {
    for (int q = 0; q < n; q += VL) {
        const V x = load(hidden + q), gate = sigmoid(x), active = x * gate;
        store(hidden + q, active);
        store(slopes + q, gate + active * (Real(1) - gate));
    }
}

// Multiply gradients by the slopes of the activation.
AI void times_slopes(int n, Real* by, const Real* slopes) {
    for (int q = 0; q < n; q += VL) store(by + q, load(by + q) * load(slopes + q));
}

void Workspace::update_forward(int u, State& state, Scratch& scratch, int64_t at, int n, Real* s,
                               Real* v) {
    const int Fp = net.Fp, Hp = net.Hp;
    const UpdateLayers& layers = net.updates[u];
    const int width = layers.second.out;
    // The backward pass of the last update follows at once: what it keeps stays in the cache.
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

// s and v hold the gradients with respect to the outputs at first, and to the inputs at the end.
// The last update has no gradient with respect to output vectors.
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

}  // namespace ASE_NAMESPACE
