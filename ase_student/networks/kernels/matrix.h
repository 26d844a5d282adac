// Products of small matrices in float32, on vector registers.
//
// Sizes that run along a row are padded to multiples of 16 by the caller; a register tile then
// never needs a mask along a row, and any number of rows is covered by tiles of fewer rows.

#pragma once

#include <cmath>
#if defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace matrix {

// Length to which rows are padded, and of the vectors of elementwise loops.
constexpr int WIDTH = 16;
constexpr int padded(int size) { return (size + WIDTH - 1) / WIDTH * WIDTH; }

typedef float Vector __attribute__((vector_size(4 * WIDTH)));
typedef int Integers __attribute__((vector_size(4 * WIDTH)));
typedef float VectorInMemory __attribute__((vector_size(4 * WIDTH), aligned(4), may_alias));

inline Vector load(const float* from) { return *reinterpret_cast<const VectorInMemory*>(from); }
inline void store(float* to, Vector value) { *reinterpret_cast<VectorInMemory*>(to) = value; }
inline void add_to(float* to, Vector value) { store(to, load(to) + value); }
inline Vector all(float value) { return value - Vector{}; }

inline float sum(Vector v) {
    typedef float Half __attribute__((vector_size(32)));
    typedef float Quarter __attribute__((vector_size(16)));
    const Half half = __builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7) +
                      __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15);
    const Quarter quarter = __builtin_shufflevector(half, half, 0, 1, 2, 3) +
                            __builtin_shufflevector(half, half, 4, 5, 6, 7);
    return (quarter[0] + quarter[2]) + (quarter[1] + quarter[3]);
}

inline Vector square_root(Vector x) {
#if defined(__AVX512F__)
    return reinterpret_cast<Vector>(_mm512_sqrt_ps(reinterpret_cast<__m512>(x)));
#else
    for (int lane = 0; lane < WIDTH; ++lane) x[lane] = std::sqrt(x[lane]);
    return x;
#endif
}

// exp(x) to 2 ulp by x = n ln 2 + r and a polynomial in r (Cephes library, expf; Moshier 1992).
inline Vector exponential(Vector x) {
    x = x < -87.0f ? all(-87.0f) : x;
    x = x > 88.0f ? all(88.0f) : x;
    // Adding 1.5 * 2^23 rounds to an integer.
    const Vector n = (x * 1.44269504f + 12582912.0f) - 12582912.0f;
    const Vector r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    Vector p = all(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    const Integers power = (__builtin_convertvector(n, Integers) + 127) << 23;
    return p * reinterpret_cast<Vector>(power);
}

// Accumulators of a tile fill three quarters of the registers.
#if defined(__AVX512F__)
constexpr int LANES = 16, MOST_COLUMNS = 4;
constexpr int rows_of(int columns) {
    return columns == 1 ? 16 : columns == 2 ? 12 : columns == 3 ? 8 : 6;
}
#else
constexpr int LANES = 8, MOST_COLUMNS = 2;
constexpr int rows_of(int columns) { return columns == 1 ? 8 : 6; }
#endif
typedef float Lanes __attribute__((vector_size(4 * LANES)));
typedef float LanesInMemory __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

// A matrix in memory: element (i, j) is at data[i * row + j * column].
struct Strided {
    const float* data;
    long row, column;
};

template <int ROWS, int COLUMNS>
void tile(int depth, Strided a, const float* b, long b_row, float* c, long c_row,
          const float* start, long start_row) {
    Lanes sums[ROWS][COLUMNS] = {};
    // Prefetch the values that are added at the end.
    if (start != nullptr)
#pragma GCC unroll 16
        for (int i = 0; i < ROWS; ++i)
#pragma GCC unroll 4
            for (int j = 0; j < COLUMNS; ++j)
                __builtin_prefetch(start + i * start_row + j * LANES, 1);
    for (int k = 0; k < depth; ++k) {
        Lanes row[COLUMNS];
#pragma GCC unroll 4
        for (int j = 0; j < COLUMNS; ++j)
            row[j] = *reinterpret_cast<const LanesInMemory*>(b + k * b_row + j * LANES);
#pragma GCC unroll 16
        for (int i = 0; i < ROWS; ++i) {
            const Lanes factor = a.data[i * a.row + k * a.column] - Lanes{};
#pragma GCC unroll 4
            for (int j = 0; j < COLUMNS; ++j) sums[i][j] += factor * row[j];
        }
    }
    if (start != nullptr)
#pragma GCC unroll 16
        for (int i = 0; i < ROWS; ++i)
#pragma GCC unroll 4
            for (int j = 0; j < COLUMNS; ++j)
                sums[i][j] +=
                    *reinterpret_cast<const LanesInMemory*>(start + i * start_row + j * LANES);
#pragma GCC unroll 16
    for (int i = 0; i < ROWS; ++i)
#pragma GCC unroll 4
        for (int j = 0; j < COLUMNS; ++j)
            *reinterpret_cast<LanesInMemory*>(c + i * c_row + j * LANES) = sums[i][j];
}

template <int COLUMNS, int ROWS>
void last_rows(int rows, int depth, Strided a, const float* b, long b_row, float* c, long c_row,
               const float* start, long start_row) {
    if constexpr (ROWS > 0) {
        if (rows == ROWS)
            tile<ROWS, COLUMNS>(depth, a, b, b_row, c, c_row, start, start_row);
        else
            last_rows<COLUMNS, ROWS - 1>(rows, depth, a, b, b_row, c, c_row, start, start_row);
    }
}

template <int COLUMNS>
void panel(int rows, int depth, Strided a, const float* b, long b_row, float* c, long c_row,
           const float* start, long start_row) {
    constexpr int ROWS = rows_of(COLUMNS);
    int i = 0;
    for (; i + ROWS <= rows; i += ROWS) {
        tile<ROWS, COLUMNS>(depth, a, b, b_row, c, c_row, start, start_row);
        a.data += ROWS * a.row;
        c += ROWS * c_row;
        if (start != nullptr) start += ROWS * start_row;
    }
    last_rows<COLUMNS, ROWS - 1>(rows - i, depth, a, b, b_row, c, c_row, start, start_row);
}

// c = start + a b, for a of (rows, depth) and b of (depth, columns), columns a multiple of WIDTH.
// `start` may be c itself, a single row (start_row = 0), or null for zero.
inline void multiply(int rows, int columns, int depth, Strided a, const float* b, long b_row,
                     float* c, long c_row, const float* start, long start_row) {
    int left = columns / LANES;
    for (int panels = (left + MOST_COLUMNS - 1) / MOST_COLUMNS; panels > 0; --panels) {
        const int taken = (left + panels - 1) / panels;
        switch (taken) {
            case 1: panel<1>(rows, depth, a, b, b_row, c, c_row, start, start_row); break;
            case 2: panel<2>(rows, depth, a, b, b_row, c, c_row, start, start_row); break;
#if defined(__AVX512F__)
            case 3: panel<3>(rows, depth, a, b, b_row, c, c_row, start, start_row); break;
            case 4: panel<4>(rows, depth, a, b, b_row, c, c_row, start, start_row); break;
#endif
        }
        left -= taken;
        b += taken * LANES;
        c += taken * LANES;
        if (start != nullptr) start += taken * LANES;
    }
}

}  // namespace matrix
