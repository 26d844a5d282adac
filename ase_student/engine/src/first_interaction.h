// The first interaction: senders are elements without an environment; moments up to second order.
#pragma once

#include "workspace.h"

namespace ASE_NAMESPACE {

// The value of a spline for a pair, from the weights in its record.
AI V spline_value(const Real* pair, const Real* table, int stride) {
    V sum = pair[VALUE] * load(table);
#pragma GCC unroll 8
    for (int q = 1; q < ORDER; q++) sum += pair[VALUE + q] * load(table + q * stride);
    return sum;
}

// Compute the moments of one row, by element of the neighbor: they have one, three and five
// components.
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
            // Columns after an element's last are zero here; the next element overwrites them.
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
                              int64_t first, int n) {
    const int Fp = net.Fp, Tp = net.Tp, width = moments_width;
    const int64_t at = first - group;
    Real* s = state.scalars.p + at * Fp;
    Real* v = state.vectors.p + at * 3 * Fp;
    Real* zeroth = scratch.moments.p;
    Real* firsts = zeroth + (int64_t)CHUNK * width;
    Real* seconds = firsts + (int64_t)CHUNK * 3 * width;
    for (int a = 0; a < n; a++) {
        row_geometry(list, state, scratch, group, first + a);
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
        // An atom's nine components are next to each other, each with a product of its own.
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

// Add the contributions of atoms' moments to the gradients of their pairs.
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

}  // namespace ASE_NAMESPACE
