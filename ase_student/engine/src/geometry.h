// Pairs within the cutoff: their records, the repulsion, and comparison with limits of training.
#pragma once

#include "workspace.h"

namespace ASE_NAMESPACE {

// The repulsion of a pair: Coulomb energy of the nuclei with the universal screening function
// (Ziegler, Biersack and Littmark 1985), times an envelope that ends at the sum of covalent radii.
// Half of its energy and half of its slope are each atom's part.
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

// Weights of the B-splines of degree DEGREE that are not zero at position t of a bin, 0 to 1, and
// their derivatives with respect to t (recursion of Cox and de Boor for equidistant knots).
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

// Write the records of one row's pairs within the cutoff, add the repulsion, and compare distances
// and the number of neighbors with the limits of training.
void Workspace::row_geometry(const ListView& list, State& state, Scratch& scratch, int64_t group,
                             int64_t i) {
    const double cutoff_squared = net.cutoff * net.cutoff;
    const int64_t row = list.rows[i];
    const int* segments = list.segments + i * (n_present + 1);
    const int local = (int)(i - group);
    int* near_segments = state.segments + (int64_t)local * (n_present + 1);
    const D4 own = load4d(list.positions + 4 * i) * D4{1, 1, 1, -1};
    Real* near = scratch.near;
    int n = 0, outside = 0;
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
    list.outside[i] = (uint8_t)outside;
    // Fill the last vector with a dummy pair: at the cutoff, where the envelope is zero.
    for (int k = n; k < rounded_up(n, VL); k++) {
        Real* filler = near + 4 * k;
        filler[0] = (Real)net.cutoff, filler[1] = filler[2] = 0, filler[3] = 1;
        scratch.near_places[k] = scratch.near_neighbors[k] = 0;
    }
    const Real inverse_spacing = Real(1.0 / net.spacing);
    const Real inverse_cutoff = Real(1.0 / net.envelope_cutoff);
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

}  // namespace ASE_NAMESPACE
