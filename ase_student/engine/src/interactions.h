// Later interactions: messages in the forward pass, and their gradients in the backward pass.
#pragma once

#include "first_interaction.h"
#include "updates.h"

namespace ASE_NAMESPACE {

// Compute what atoms send. For every block of VL channels: plain messages, three components of
// carried messages, and directed messages.
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

// Sum the messages that atoms receive from their neighbors.
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

// From the gradients of what neighbors received from these atoms, compute the gradients with
// respect to what was sent, and add those of the pairs.
void Workspace::gather_back(int l, const ListView& list, State& state, int64_t group,
                            int64_t first, int n, Real* by_plain, Real* by_carried,
                            Real* by_directed) {
    const int Mp = net.Mp, blocks = net.n_channel_blocks;
    const int64_t sent_stride = (int64_t)blocks * 5 * VL;
    const int64_t received_stride = (int64_t)blocks * 4 * VL;
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
                const int64_t neighbor = as_integer(pair + NEIGHBOR);
                const Real* from = received + neighbor * received_stride;
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

// Compute the gradients with respect to what atoms received, in the layout of `send`.
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

// Readout: add the network's energies, and replace the scalars by the energies' gradients with
// respect to them.
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
            store(out + Mp,
                  x * load(carrier) + y * load(carrier + Mp) + z * load(carrier + 2 * Mp));
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

}  // namespace ASE_NAMESPACE
