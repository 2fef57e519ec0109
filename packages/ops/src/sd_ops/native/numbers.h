/* Numbers of the type that a kernel is compiled for (HALF=1: bfloat16, 0: float32), 16 of them as float32; `some`
 * are the first of 16, and zeros in the place of the others. */
#pragma once
#include <immintrin.h>
#include <stdbool.h>
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
static inline __m512 load_some(const number *from, long count) {
    const __m256i numbers = _mm256_maskz_loadu_epi16((__mmask16)((1u << count) - 1), from);
    return (__m512)_mm512_slli_epi32(_mm512_cvtepu16_epi32(numbers), 16);
}
static inline void store_some(number *to, long count, __m512 x) {
    _mm256_mask_storeu_epi16(to, (__mmask16)((1u << count) - 1), (__m256i)_mm512_cvtneps_pbh(x));
}
#else
typedef float number;

static inline float as_float(number x) { return x; }
static inline __m512 load(const number *from) { return _mm512_loadu_ps(from); }
static inline void store(number *to, __m512 x) { _mm512_storeu_ps(to, x); }
static inline __m512 load_some(const number *from, long count) {
    return _mm512_maskz_loadu_ps((__mmask16)((1u << count) - 1), from);
}
static inline void store_some(number *to, long count, __m512 x) {
    _mm512_mask_storeu_ps(to, (__mmask16)((1u << count) - 1), x);
}
#endif

/* Whether a word is two numbers, whose products are summed together, and not one. */
#ifndef PAIRED
#define PAIRED HALVES
#endif
enum { PER_WORD = PAIRED ? 2 : 1 };

/* The first words of a row, at most 16, zeros behind. */
static inline __m512 load_words(const number *from, long count) {
#if HALF && !PAIRED
    return load_some(from, count);
#else
    return _mm512_maskz_loadu_ps((__mmask16)((1u << count) - 1), from);
#endif
}

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

/* Turn 16 rows of 16 values, in place, to columns. */
static inline __attribute__((always_inline)) void turn(__m512 x[LANES]) {
    __m512 y[LANES];
    /* Within each quarter of a row: pairs of rows, then fours. */
#pragma GCC unroll 8
    for (int i = 0; i < LANES; i += 2) {
        y[i] = _mm512_unpacklo_ps(x[i], x[i + 1]);
        y[i + 1] = _mm512_unpackhi_ps(x[i], x[i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < LANES; i += 4)
#pragma GCC unroll 2
        for (int j = 0; j < 2; j++) {
            const __m512d low = (__m512d)y[i + j], high = (__m512d)y[i + 2 + j];
            x[i + 2 * j] = (__m512)_mm512_unpacklo_pd(low, high);
            x[i + 2 * j + 1] = (__m512)_mm512_unpackhi_pd(low, high);
        }
    /* Quarters: even and odd ones of the first and the last eight rows, then of all. */
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++)
#pragma GCC unroll 2
        for (int i = 0; i < LANES; i += 8) {
            y[i + j] = _mm512_shuffle_f32x4(x[i + j], x[i + 4 + j], 0x88);
            y[i + 4 + j] = _mm512_shuffle_f32x4(x[i + j], x[i + 4 + j], 0xdd);
        }
#pragma GCC unroll 8
    for (int j = 0; j < 8; j++) {
        x[j] = _mm512_shuffle_f32x4(y[j], y[8 + j], 0x88);
        x[8 + j] = _mm512_shuffle_f32x4(y[j], y[8 + j], 0xdd);
    }
}

/* -- Numbers as float16, HALVES=1 ----------------------------------------------------------------- */

/* What brings some numbers within a range, and back; where not all are finite, it is one. */
typedef struct { float there, back; bool finite; } scale;

#if HALVES

/* The greatest of (rows, count), in rows that are some numbers apart, as bits without a sign. */
static inline uint16_t greatest(const number *x, long rows, long count, long apart) {
    const __m512i unsigned_bits = _mm512_set1_epi16(0x7fff);
    __m512i most = _mm512_setzero_si512();
    for (long r = 0; r < rows; r++, x += apart) {
        long i = 0;
        for (; i + 2 * LANES <= count; i += 2 * LANES)
            most = _mm512_max_epu16(most, _mm512_and_si512(_mm512_loadu_si512(x + i), unsigned_bits));
        const __mmask32 some = (__mmask32)((1u << (count - i)) - 1);
        most = _mm512_max_epu16(most, _mm512_and_si512(_mm512_maskz_loadu_epi16(some, x + i), unsigned_bits));
    }
    const __m256i half = _mm256_max_epu16(_mm512_castsi512_si256(most), _mm512_extracti64x4_epi64(most, 1));
    const __m128i quarter = _mm_max_epu16(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
    return (uint16_t)~_mm_extract_epi16(_mm_minpos_epu16(_mm_xor_si128(quarter, _mm_set1_epi16(-1))), 0);
}

/* The same of each of LANES columns. */
static inline void greatest_of_columns(uint16_t to[LANES], const number *x, long rows, long apart) {
    const __m256i unsigned_bits = _mm256_set1_epi16(0x7fff);
    __m256i most = _mm256_setzero_si256();
    for (long r = 0; r < rows; r++)
        most = _mm256_max_epu16(most, _mm256_and_si256(_mm256_loadu_si256((const void *)(x + r * apart)), unsigned_bits));
    _mm256_storeu_si256((void *)to, most);
}

/* Bring numbers of which this is the greatest to `most` at most, by a power of two. What is not finite stays so. */
static inline scale scale_to(float most, uint16_t greatest) {
    const uint32_t exponent = greatest >> 7;
    if (exponent == 255) return (scale){1, 1, false};
    /* The least numbers are left smaller, and the greatest larger, so that no scale leaves float32. */
    const uint32_t bits = (253 - (exponent < 32 ? 32 : exponent > 252 ? 252 : exponent)) << 23;
    float power;
    memcpy(&power, &bits, sizeof power);
    return (scale){most * power, 1 / (most * power), true};
}

/* What takes bfloat16's exponent, which counts from 127, and a scale's, too, to float16's, which counts from 15. */
static inline uint16_t less_of(scale of) {
    uint32_t bits;
    memcpy(&bits, &of.there, sizeof bits);
    return (uint16_t)((127 + 127 - 15 - (bits >> 23)) << 7);
}

/* 32 bfloat16 as float16, less by that; of those smaller than float16's normal numbers some is lost. All are finite. */
static inline __m512i as_halves(__m512i x, __m512i less) {
    const __m512i sign = _mm512_set1_epi16((short)0x8000);
    const __m512i size = _mm512_subs_epu16(_mm512_andnot_si512(sign, x), less);
    return _mm512_or_si512(_mm512_and_si512(sign, x), _mm512_slli_epi16(size, 3));
}

/* The words of two rows of values. */
static inline __m512i as_words(__m512 first, __m512 second) {
    const __m512i low = _mm512_cvtepu16_epi32(_mm512_cvtps_ph(first, _MM_FROUND_TO_NEAREST_INT));
    const __m512i high = _mm512_cvtepu16_epi32(_mm512_cvtps_ph(second, _MM_FROUND_TO_NEAREST_INT));
    return _mm512_or_si512(low, _mm512_slli_epi32(high, 16));
}

/* Each word's two float16, summed. */
static inline __m512 sum_of_words(__m512h x) {
    const __m512h sum = _mm512_add_ph(x, (__m512h)_mm512_rol_epi32((__m512i)x, 16));
    return _mm512_cvtph_ps(_mm512_cvtepi32_epi16((__m512i)sum));
}

#endif
