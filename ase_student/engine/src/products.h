// Products of a chunk's rows with packed weights.
#pragma once

#include <stdlib.h>

#include <new>

#include "simd.h"

namespace ASE_NAMESPACE {

// Allocate memory that starts at a cache line and holds zeros; null if there is not enough.
AI Real* aligned_reals(size_t n) {
    const size_t alignment = n * sizeof(Real) >= (size_t(1) << 22) ? size_t(1) << 21 : 64;
    const size_t bytes = (n * sizeof(Real) + alignment - 1) / alignment * alignment + alignment;
    void* p = ase_aligned_alloc(alignment, bytes);
    if (p) memset(p, 0, bytes);
    return (Real*)p;
}

struct Buffer {
    Real* p = nullptr;
    size_t size = 0;
    Buffer() = default;
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;
    ~Buffer() { ase_aligned_free(p); }
    // Reserve memory for n numbers; earlier content is lost. False if there is not enough memory.
    bool reserve(size_t n) {
        if (n <= size && p) return true;
        ase_aligned_free(p);
        // Reserve a little more: a list that is built again may have more pairs. The relative
        // difference is smaller in large lists.
        size = n + n / (n < (size_t(1) << 20) ? 8 : 64) + VL;
        p = aligned_reals(size);
        if (!p) size = 0;
        return p;
    }
};

#if defined(__AVX512F__) && ASE_VECTOR_BYTES == 64
constexpr int TILE_ROWS[3] = {0, 16, 12};
#elif defined(__aarch64__)
constexpr int TILE_ROWS[3] = {0, 12, 8};
#else
constexpr int TILE_ROWS[3] = {0, 12, 6};
#endif

// Weights in the order in which the micro-kernel reads them: panels of two vectors of columns (the
// last panel may have one vector), each panel row by row.
struct Packed {
    int rows = 0, vectors = 0;
    Buffer data;

    template <class At>
    bool pack(int n_rows, int n_columns, At at) {
        rows = n_rows;
        vectors = padded(n_columns) / VL;
        if (!data.reserve((size_t)rows * vectors * VL)) return false;
        Real* out = data.p;
        for (int v = 0; v < vectors; v += 2) {
            const int width = smaller(2, vectors - v) * VL;
            for (int k = 0; k < rows; k++)
                for (int c = 0; c < width; c++) {
                    const int column = v * VL + c;
                    *out++ = column < n_columns ? (Real)at(k, column) : Real(0);
                }
        }
        return true;
    }
};

// What a product is added to.
enum Start { ZERO, PREVIOUS, BIAS };

// The micro-kernel: MR rows times NV vectors of columns, summed in registers.
template <int MR, int NV>
AI void tile(int depth, const Real* __restrict a, long lda, const Real* __restrict b,
             Real* __restrict c, long ldc, Start start, const Real* __restrict bias) {
    V sum[MR][NV];
#pragma GCC unroll 16
    for (int r = 0; r < MR; r++)
#pragma GCC unroll 2
        for (int v = 0; v < NV; v++) sum[r][v] = V{};
    for (int k = 0; k < depth; k++) {
        V columns[NV];
#pragma GCC unroll 2
        for (int v = 0; v < NV; v++) columns[v] = load(b + (long)(k * NV + v) * VL);
#pragma GCC unroll 16
        for (int r = 0; r < MR; r++) {
            const V factor = all(a[r * lda + k]);
#pragma GCC unroll 2
            for (int v = 0; v < NV; v++) sum[r][v] += factor * columns[v];
        }
    }
#pragma GCC unroll 16
    for (int r = 0; r < MR; r++)
#pragma GCC unroll 2
        for (int v = 0; v < NV; v++) {
            Real* out = c + r * ldc + v * VL;
            if (start == PREVIOUS) sum[r][v] += load(out);
            if (start == BIAS) sum[r][v] += load(bias + v * VL);
            store(out, sum[r][v]);
        }
}

template <int MR, int NV>
static void last_tile(int rows, int depth, const Real* a, long lda, const Real* b, Real* c,
                      long ldc, Start start, const Real* bias) {
    if (rows == MR) {
        tile<MR, NV>(depth, a, lda, b, c, ldc, start, bias);
    } else if constexpr (MR > 1) {
        last_tile<MR - 1, NV>(rows, depth, a, lda, b, c, ldc, start, bias);
    }
}

template <int NV>
static void panel(int rows, int depth, const Real* a, long lda, const Real* b, Real* c, long ldc,
                  Start start, const Real* bias) {
    constexpr int MR = TILE_ROWS[NV];
    int r = 0;
    for (; r + MR <= rows; r += MR)
        tile<MR, NV>(depth, a + r * lda, lda, b, c + r * ldc, ldc, start, bias);
    if (r < rows)
        last_tile<MR - 1, NV>(rows - r, depth, a + r * lda, lda, b, c + r * ldc, ldc, start, bias);
}

// c = a · weights, plus the previous c or a bias.
static void multiply(const Packed& weights, int rows, const Real* a, long lda, Real* c, long ldc,
                     Start start = ZERO, const Real* bias = nullptr) {
    const Real* b = weights.data.p;
    for (int v = 0; v < weights.vectors; v += 2) {
        const Real* columns_bias = bias ? bias + v * VL : nullptr;
        Real* out = c + v * VL;
        if (v + 2 <= weights.vectors) {
            panel<2>(rows, weights.rows, a, lda, b, out, ldc, start, columns_bias);
            b += (size_t)weights.rows * 2 * VL;
        } else {
            panel<1>(rows, weights.rows, a, lda, b, out, ldc, start, columns_bias);
        }
    }
}

}  // namespace ASE_NAMESPACE
