// The network on chunks of atoms: energies, forces and virials, written out by hand.
//
// This file is compiled once for every instruction set and precision, into ASE_NAMESPACE. It
// computes what ase_student/networks/painn.py computes; the formulas and their names are explained
// there. The differences are:
//
// - Radial functions and filters are read from tables of B-splines in x = exp(-rate d). The
//   envelope is not in the tables but in the weights of the splines, which are computed once for
//   each pair and kept in its record together with those of the slope.
// - In the first interaction, where senders are elements without an environment, moments are summed
//   for each element that occurs, and the element channels are multiplied into the weights of the
//   layers that follow.
// - Every row writes what its own atom contributes to a pair's gradient, four numbers, and the last
//   phase adds the two directions. No atom writes to another atom's numbers, except to forces on
//   ghosts, which one thread adds up: results have the same bits in whatever order threads work.
#include "network.h"

#include "geometry.h"
#include "interactions.h"

namespace ASE_NAMESPACE {

// --- forces --------------------------------------------------------------------------------------

// Add both directions of every pair: dE/dr = (a − u·t) u + t, where a is the derivative with
// respect to the distance, and t is the derivative with respect to the direction u, divided by the
// distance. The two atoms of a pair get exactly opposite forces.
void Workspace::forces(const ListView& list, State& state, int64_t group, int64_t first, int n) {
    const int64_t first_ghost = list.n_atoms - list.n_ghosts, start = list.rows[group];
    const Real* gradients = state.gradients.p;
    // The other direction of a pair is in the neighbor's row, which may not be in the cache.
    auto reverse_gradient = [&](int64_t row, const Real* pair) {
        const int64_t place = as_integer(pair + PLACE) >> BIN_BITS;
        const int64_t j = group + as_integer(pair + NEIGHBOR);
        return gradients + 4 * (list.rows[j] - start + list.reverse[row + place]);
    };
    for (int a = 0; a < n; a++) {
        const int64_t i = first + a, row = list.rows[i];
        const Real* records = state.pairs.p + (row - start) * RECORD;
        const Real* own = gradients + (row - start) * 4;
        const int n_pairs = state.counts[i - group];
        // The next atom's gradients are fetched while this atom is computed.
        const int64_t next = a + 1 < n ? i + 1 : i, next_row = list.rows[next];
        const Real* next_records = state.pairs.p + (next_row - start) * RECORD;
        const int n_next = a + 1 < n ? state.counts[next - group] : 0;
        D4 force{}, columns[3] = {};
        for (int k = 0; k < n_pairs; k++) {
            if (k < n_next)
                __builtin_prefetch(reverse_gradient(next_row, next_records + (int64_t)k * RECORD));
            const Real* pair = records + (int64_t)k * RECORD;
            const int64_t place = as_integer(pair + PLACE) >> BIN_BITS;
            const int64_t j = group + as_integer(pair + NEIGHBOR);
            const Real* p = own + 4 * place;
            Real radial = p[0], t[3] = {p[1], p[2], p[3]};
            if (j < first_ghost) {
                const Real* q = reverse_gradient(row, pair);
                radial += q[0], t[0] -= q[1], t[1] -= q[2], t[2] -= q[3];
            }
            const Real x = pair[DIRECTION], y = pair[DIRECTION + 1], z = pair[DIRECTION + 2];
            const Real inverse = pair[DIRECTION + 3];
            const Real tx = t[0] * inverse, ty = t[1] * inverse, tz = t[2] * inverse;
            const Real along = radial - (x * tx + y * ty + z * tz);
            const D4 f{(double)(x * along + tx), (double)(y * along + ty),
                       (double)(z * along + tz), 0};
            const double half = 0.5 / (double)inverse;
            const double r[3] = {x * half, y * half, z * half};
            force += f;
            for (int e = 0; e < 3; e++) columns[e] += f * r[e];
            if (j < first_ghost) continue;
            // The neighbor is a ghost: its owner adds the other direction, and this caller gives
            // the reaction to this direction back to the owner.
            for (int c = 0; c < 3; c++) {
                list.forces[3 * j + c] -= f[c];
                for (int e = 0; e < 3; e++) list.virials[9 * j + 3 * c + e] += f[c] * r[e];
            }
        }
        for (int c = 0; c < 3; c++) {
            list.forces[3 * i + c] = force[c];
            for (int e = 0; e < 3; e++) list.virials[9 * i + 3 * c + e] = columns[e][c];
        }
        const double squared = force[0] * force[0] + force[1] * force[1] + force[2] * force[2];
        if (list.largest_force_squared && squared > list.largest_force_squared[list.species[i]])
            list.outside[i] |= ase::LARGE_FORCE;
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

static void run(void* pointer, const ListView* list, int state_index, int thread, int phase,
                int64_t group, int64_t first, int n) {
    Workspace& workspace = *(Workspace*)pointer;
    State& state = workspace.states[state_index];
    Scratch& scratch = workspace.scratches[thread];
    const Network& net = workspace.net;
    const int64_t at = first - group;
    if (phase == 0) {
        workspace.first_forward(*list, state, scratch, group, first, n);
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
        workspace.forces(*list, state, group, first, n);
    }
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
