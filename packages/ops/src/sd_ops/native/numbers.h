/* Numbers of the type that a kernel is compiled for (HALF=1: bfloat16, 0: float32), 16 of them as float32. */
#include <immintrin.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { LANES = 16 };

#if HALF
typedef uint16_t number;

static inline float as_float(number x) {
    const uint32_t bits = (uint32_t)x << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}
static inline __m512 load(const number *from) {
    return (__m512)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)from)), 16);
}
static inline void store(number *to, __m512 x) { _mm256_storeu_si256((void *)to, (__m256i)_mm512_cvtneps_pbh(x)); }
#else
typedef float number;

static inline float as_float(number x) { return x; }
static inline __m512 load(const number *from) { return _mm512_loadu_ps(from); }
static inline void store(number *to, __m512 x) { _mm512_storeu_ps(to, x); }
#endif

static const float LOG2_E = 1.44269504f;

static long up(long size, long to) { return (size + to - 1) / to * to; }
static long least(long a, long b) { return a < b ? a : b; }
static void *room(long bytes) { return aligned_alloc(64, up(bytes, 64)); }

/* 2^x, to 2e-7 of it, in bfloat16 to 5e-6: 2^f of the rest f by a polynomial. */
static inline __m512 power(__m512 x) {
    __m512 whole = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m512 f = _mm512_sub_ps(x, whole);
#if HALF
    __m512 y = _mm512_set1_ps(9.6700e-3f);
#else
    __m512 y = _mm512_set1_ps(1.54035304e-4f);
    y = _mm512_fmadd_ps(y, f, _mm512_set1_ps(1.33335581e-3f));
    y = _mm512_fmadd_ps(y, f, _mm512_set1_ps(9.61812911e-3f));
#endif
    y = _mm512_fmadd_ps(y, f, _mm512_set1_ps(5.55041087e-2f));
    y = _mm512_fmadd_ps(y, f, _mm512_set1_ps(2.40226507e-1f));
    y = _mm512_fmadd_ps(y, f, _mm512_set1_ps(6.93147181e-1f));
    y = _mm512_fmadd_ps(y, f, _mm512_set1_ps(1.0f));
    return _mm512_scalef_ps(y, whole);
}
