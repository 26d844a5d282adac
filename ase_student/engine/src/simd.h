// Vectors of the width and precision that a translation unit is compiled for.
//
// Only GCC's and Clang's vector types are used, and a few intrinsics for what they lack. Everything
// is in a separate namespace for each instruction set, and nothing here uses templates of the
// standard library: of several compiled copies of a template the linker keeps one, which may need
// instructions that this processor does not have.
#pragma once

#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(__SSE2__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#define AI static inline __attribute__((always_inline))

namespace ASE_NAMESPACE {

typedef ASE_REAL Real;
constexpr bool SINGLE = sizeof(Real) == 4;
constexpr int VL = ASE_VECTOR_BYTES / (int)sizeof(Real);

template <bool single>
struct IntegerOf { typedef int64_t type; };
template <>
struct IntegerOf<true> { typedef int32_t type; };
// An integer with as many bits as Real.
typedef IntegerOf<SINGLE>::type Integer;

typedef Real V __attribute__((vector_size(ASE_VECTOR_BYTES)));
typedef Integer VI __attribute__((vector_size(ASE_VECTOR_BYTES)));
typedef Real VU __attribute__((vector_size(ASE_VECTOR_BYTES), aligned(sizeof(Real)), may_alias));
typedef Real R4 __attribute__((vector_size(4 * sizeof(Real))));
typedef Real R4U __attribute__((vector_size(4 * sizeof(Real)), aligned(sizeof(Real)), may_alias));
typedef double D4 __attribute__((vector_size(32)));
typedef double D4U __attribute__((vector_size(32), aligned(8), may_alias));
typedef Integer IntegerAlias __attribute__((may_alias));

AI V load(const Real* p) { return *(const VU*)p; }
AI void store(Real* p, V x) { *(VU*)p = x; }
AI R4 load4(const Real* p) { return *(const R4U*)p; }
AI void store4(Real* p, R4 x) { *(R4U*)p = x; }
AI D4 load4d(const double* p) { return *(const D4U*)p; }
AI V all(Real x) { return x - V{}; }
AI int rounded_up(int n, int m) { return (n + m - 1) / m * m; }
AI int padded(int n) { return rounded_up(n, VL); }
AI int smaller(int a, int b) { return a < b ? a : b; }
AI int larger(int a, int b) { return a > b ? a : b; }
AI V vmax(V a, V b) { return a > b ? a : b; }
AI V vmin(V a, V b) { return a < b ? a : b; }
AI Integer as_integer(const Real* p) { return *(const IntegerAlias*)p; }
AI void set_integer(Real* p, Integer x) { *(IntegerAlias*)p = x; }

AI V vsqrt(V x) {
#if defined(__AVX512F__) && ASE_VECTOR_BYTES == 64
    if constexpr (SINGLE) return (V)_mm512_sqrt_ps((__m512)x);
    else return (V)_mm512_sqrt_pd((__m512d)x);
#elif defined(__AVX__) && ASE_VECTOR_BYTES == 32
    if constexpr (SINGLE) return (V)_mm256_sqrt_ps((__m256)x);
    else return (V)_mm256_sqrt_pd((__m256d)x);
#elif defined(__SSE2__) && ASE_VECTOR_BYTES == 16
    if constexpr (SINGLE) return (V)_mm_sqrt_ps((__m128)x);
    else return (V)_mm_sqrt_pd((__m128d)x);
#elif defined(__aarch64__) && ASE_VECTOR_BYTES == 16
    if constexpr (SINGLE) return (V)vsqrtq_f32((float32x4_t)x);
    else return (V)vsqrtq_f64((float64x2_t)x);
#else
    for (int q = 0; q < VL; q++) x[q] = (Real)__builtin_sqrt((double)x[q]);
    return x;
#endif
}

// exp for arguments from -87 to 87: exp(x) = 2^n exp(r), where |r| is at most ln 2 / 2 and exp(r)
// is a Taylor series.
AI V vexp(V x) {
    // Adding this to a number leaves the nearest integer in the lowest bits of the sum.
    constexpr Real SHIFT = SINGLE ? Real(12582912.0) : Real(6755399441055744.0);
    constexpr Real HIGH = SINGLE ? Real(0.693359375) : Real(0x1.62e42fefap-1);
    constexpr Real LOW = SINGLE ? Real(-2.12194440054690583e-4) : Real(0x1.cf79abc9e3b3ap-40);
    constexpr int MANTISSA = SINGLE ? 23 : 52;
    constexpr int BIAS = SINGLE ? 127 : 1023;
    constexpr int TERMS = SINGLE ? 7 : 13;
    x = vmin(vmax(x, all(Real(-87.0))), all(Real(87.0)));
    V shifted = x * Real(1.4426950408889634074) + SHIFT;
    V n = shifted - SHIFT;
    V r = x - n * HIGH;
    r = r - n * LOW;
    double factor = 1.0;
    for (int k = 2; k <= TERMS; k++) factor /= k;
    V p = all((Real)factor);
#pragma GCC unroll 16
    for (int k = TERMS; k > 0; k--) {
        factor *= k;
        p = p * r + (Real)factor;
    }
    VI power = (VI)shifted - (VI)all(SHIFT);
    return p * (V)((power + BIAS) << MANTISSA);
}

AI V sigmoid(V x) { return Real(1.0) / (Real(1.0) + vexp(-x)); }

#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
#define ASE_SHUFFLES 1
#endif
#endif

#if defined(ASE_SHUFFLES)
template <int... I>
struct Sequence {};
template <int N, int... I>
struct Counted : Counted<N - 1, N - 1, I...> {};
template <int... I>
struct Counted<0, I...> { typedef Sequence<I...> type; };

// Index for a shuffle of two vectors, of lane i: every four lanes take numbers a, b, c and d of the
// eight that the two vectors have in these lanes.
constexpr int in_fours(int i, int a, int b, int c, int d) {
    const int chosen = i % 4 == 0 ? a : i % 4 == 1 ? b : i % 4 == 2 ? c : d;
    // The modulo is for vectors of two lanes, for which this is compiled but never called.
    return (i / 4 * 4 + (chosen < 4 ? chosen : VL + chosen - 4)) % (2 * VL);
}
template <int A, int B, int C, int D, int... I>
AI V shuffle_fours(V x, V y, Sequence<I...>) {
    return __builtin_shufflevector(x, y, in_fours(I, A, B, C, D)...);
}
template <int A, int B, int C, int D>
AI V shuffle_fours(V x, V y) {
    return shuffle_fours<A, B, C, D>(x, y, typename Counted<VL>::type());
}
// Transpose the 4 x 4 numbers in every four lanes of four vectors.
AI void transpose_fours(V& a, V& b, V& c, V& d) {
    V low = shuffle_fours<0, 4, 1, 5>(a, b), high = shuffle_fours<2, 6, 3, 7>(a, b);
    V low2 = shuffle_fours<0, 4, 1, 5>(c, d), high2 = shuffle_fours<2, 6, 3, 7>(c, d);
    a = shuffle_fours<0, 1, 4, 5>(low, low2);
    b = shuffle_fours<2, 3, 6, 7>(low, low2);
    c = shuffle_fours<0, 1, 4, 5>(high, high2);
    d = shuffle_fours<2, 3, 6, 7>(high, high2);
}
#endif

// Lanes FIRST to FIRST + 3. A template, because it is then compiled only for widths that have them.
#if defined(ASE_SHUFFLES)
template <int FIRST>
AI R4 four_of(V x) {
    constexpr int AT = FIRST < 0 ? 0 : FIRST % VL;
    return __builtin_shufflevector(x, x, AT, (AT + 1) % VL, (AT + 2) % VL, (AT + 3) % VL);
}
#endif

template <int LANES = VL>
AI R4 fours_summed(V x) {
#if defined(ASE_SHUFFLES)
    if constexpr (LANES == 4) return four_of<LANES - 4>(x);
    else if constexpr (LANES == 8) return four_of<LANES - 8>(x) + four_of<LANES - 4>(x);
    else if constexpr (LANES == 16)
        return (four_of<LANES - 16>(x) + four_of<LANES - 12>(x)) +
               (four_of<LANES - 8>(x) + four_of<LANES - 4>(x));
#endif
    R4 sum{};
    for (int q = 0; q < VL; q++) sum[q % 4] += x[q];
    return sum;
}

// The sums over all lanes of four vectors.
template <int LANES = VL>
AI R4 lanes_summed(V a, V b, V c, V d) {
#if defined(ASE_SHUFFLES)
    if constexpr (LANES >= 4) {
        transpose_fours(a, b, c, d);
        return fours_summed((a + b) + (c + d));
    }
#endif
    R4 sum{};
    for (int q = 0; q < VL; q++) {
        sum[0] += a[q];
        sum[1] += b[q];
        sum[2] += c[q];
        sum[3] += d[q];
    }
    return sum;
}

AI Real lanes_summed(V x) {
    Real sum = 0;
    for (int q = 0; q < VL; q++) sum += x[q];
    return sum;
}

}  // namespace ASE_NAMESPACE
