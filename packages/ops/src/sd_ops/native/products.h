/* Products of matrices: some rows by a panel of N columns, whose sums stay in registers. Before this is included, DEPTH
 * has to say how many channels are multiplied at once.
 *
 * In float32; or with HALVES=1 in float16, twice as many at once, of numbers that powers of two bring within its range.
 * A word is one float32, or the float16 of two channels, whose products are summed apart until the end. A CHAIN of
 * words' products is summed in float16, and so are such sums, up to DEPTH channels; the rest in float32. The
 * error of it is 8e-4 of the result's deviation, where rounding the result to bfloat16 costs 1.7e-3. */
#pragma once
#include "numbers.h"

#if HALVES
typedef uint32_t word;
#ifndef CHAIN
#define CHAIN 16 /* words */
#endif
_Static_assert(DEPTH <= 320, "a sum may leave float16");
/* As float16 goes to 65504: no sum of DEPTH / 2 products of such numbers leaves it. */
static const float MOST_LEFT = 16, MOST_RIGHT = 8;
#else
typedef float word;
static const float MOST_LEFT = 1, MOST_RIGHT = 1; /* which nothing is brought to */
#endif

/* STEP: words that are multiplied at once. */
enum { VECTORS = 2, N = VECTORS * LANES, ROWS = 14, STEP = DEPTH / PER_WORD };

/* -- Factors -------------------------------------------------------------------------------------- */

#if HALVES

/* Words of LANES columns. */
typedef __m512h packed;
typedef _Float16 element;
static inline void store_right(word *to, packed x) { _mm512_storeu_ph(to, x); }

/* LANES channels of a row, which lie side by side. */
static inline void store_left(word *to, __m512 x) {
    _mm256_storeu_si256((void *)to, _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
}

/* What brings each of LANES columns within range. */
typedef struct { __m512i less; __m512 there; bool finite; } scales;
static inline scales scales_of(const scale of[LANES]) {
    uint32_t less[LANES];
    float there[LANES];
    bool finite = true;
    for (int i = 0; i < LANES; i++)
        less[i] = less_of(of[i]) * 0x10001u, there[i] = of[i].there, finite &= of[i].finite;
    return (scales){_mm512_loadu_si512(less), _mm512_loadu_ps(there), finite};
}

static inline packed scaled(__m512i words, scales by) {
    if (by.finite) return (packed)as_halves(words, by.less);
    const __m512i last = _mm512_and_si512(words, _mm512_set1_epi32((int)0xffff0000));
    return (packed)as_words(_mm512_mul_ps(by.there, (__m512)_mm512_slli_epi32(words, 16)),
                            _mm512_mul_ps(by.there, (__m512)last));
}

/* The first words of a row, scaled. */
static inline __m512 load_factors(const number *from, long count, scale of) {
    const scales by = {_mm512_set1_epi16((short)less_of(of)), _mm512_set1_ps(of.there), of.finite};
    return (__m512)scaled((__m512i)load_words(from, count), by);
}

/* Words of LANES columns, of the rows of their channels. */
static inline __m512 load_rows(const number *first, const number *last) {
    const __m512i low = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)first));
    const __m512i high = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)last));
    return (__m512)_mm512_or_si512(low, _mm512_slli_epi32(high, 16));
}

#else

typedef __m512 packed;
typedef float element;
static inline void store_right(word *to, packed x) { _mm512_storeu_ps(to, x); }
static inline void store_left(word *to, __m512 x) { _mm512_storeu_ps(to, x); }
static inline __m512 load_factors(const number *from, long count, scale of) {
    (void)of;
    return load_words(from, count);
}
static inline __m512 load_rows(const number *first, const number *last) {
    (void)last;
    return load(first);
}
/* Nothing has to be brought within a range. */
static inline uint16_t greatest(const number *x, long rows, long count, long apart) {
    (void)x, (void)rows, (void)count, (void)apart;
    return 0;
}
static inline void greatest_of_columns(uint16_t to[LANES], const number *x, long rows, long apart) {
    (void)to, (void)x, (void)rows, (void)apart;
}
static inline scale scale_to(float most, uint16_t greatest) {
    (void)most, (void)greatest;
    return (scale){1, 1, true};
}
typedef bool scales;
static inline scales scales_of(const scale of[LANES]) { return of->finite; }
static inline packed scaled(__m512i words, scales by) {
    (void)by;
    return (packed)words;
}

#endif

/* -- Products ------------------------------------------------------------------------------------- */

/* Words from a row to the next, of rows with so many channels: STEP, for the compiler to know, unless they have less. */
static long step_of(long channels) { return least(STEP, channels / PER_WORD); }

/* c (rows, N) = a (rows, words) b (words, N), each column times its factor, or c + that; `rows`, at most ROWS, are known
 * where this is inlined, and `words`, at most `step`, lie side by side. In float32 all factors are one.
 *
 * What follows the rows of `a`, and b, is asked for ahead: it is what is multiplied next, and 14 rows at once are more
 * streams than a processor follows by itself. */
static inline __attribute__((always_inline)) void multiply_few(const int rows, float *c, const word *a, const long step,
                                                               long words, const word *b, const float *factors,
                                                               bool add) {
#if HALVES
    word chains[ROWS][N] __attribute__((aligned(64)));
    for (long k = 0; k < words;) {
        const bool first = k == 0;
        __m512h sums[ROWS][VECTORS];
#pragma GCC unroll 14
        for (int i = 0; i < rows; i++) sums[i][0] = sums[i][1] = _mm512_setzero_ph();
        for (const long last = least(k + CHAIN, words); k < last; k++, b += N) {
            _mm_prefetch(a + rows * step + k * LANES, _MM_HINT_T0);
            _mm_prefetch(b + words * N, _MM_HINT_T1);
            _mm_prefetch(b + words * N + LANES, _MM_HINT_T1);
            const __m512h columns[VECTORS] = {_mm512_loadu_ph(b), _mm512_loadu_ph(b + LANES)};
#pragma GCC unroll 14
            for (int i = 0; i < rows; i++) {
                const __m512h factor = (__m512h)_mm512_set1_epi32((int)a[i * step + k]);
#pragma GCC unroll 2
                for (int v = 0; v < VECTORS; v++) sums[i][v] = _mm512_fmadd_ph(factor, columns[v], sums[i][v]);
            }
        }
#pragma GCC unroll 14
        for (int i = 0; i < rows; i++)
#pragma GCC unroll 2
            for (int v = 0; v < VECTORS; v++) {
                word *at = chains[i] + v * LANES;
                _mm512_store_ph(at, first ? sums[i][v] : _mm512_add_ph(_mm512_load_ph(at), sums[i][v]));
            }
    }
    for (int v = 0; v < N; v += LANES) {
        const __m512 factor = _mm512_loadu_ps(factors + v);
        for (int i = 0; i < rows; i++) {
            float *at = c + i * N + v;
            const __m512 before = add ? _mm512_loadu_ps(at) : _mm512_setzero_ps();
            _mm512_storeu_ps(at, _mm512_fmadd_ps(sum_of_words(_mm512_load_ph(chains[i] + v)), factor, before));
        }
    }
#else
    (void)factors;
    __m512 sums[ROWS][VECTORS];
#pragma GCC unroll 14
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 2
        for (int v = 0; v < VECTORS; v++) {
            sums[i][v] = _mm512_setzero_ps();
            _mm_prefetch(c + i * N + v * LANES, _MM_HINT_T0);
        }
    for (long k = 0; k < words; k++, b += N) {
        _mm_prefetch(a + rows * step + k * LANES, _MM_HINT_T0);
        const __m512 columns[VECTORS] = {_mm512_loadu_ps(b), _mm512_loadu_ps(b + LANES)};
#pragma GCC unroll 14
        for (int i = 0; i < rows; i++) {
            const __m512 factor = _mm512_set1_ps(a[i * step + k]);
#pragma GCC unroll 2
            for (int v = 0; v < VECTORS; v++) sums[i][v] = _mm512_fmadd_ps(factor, columns[v], sums[i][v]);
        }
    }
#pragma GCC unroll 14
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 2
        for (int v = 0; v < VECTORS; v++) {
            float *at = c + i * N + v * LANES;
            _mm512_storeu_ps(at, add ? _mm512_add_ps(_mm512_loadu_ps(at), sums[i][v]) : sums[i][v]);
        }
#endif
}

/* The same for any number of rows. A row's sums do not depend on how many there are. */
static void multiply(float *c, long rows, const word *a, long step, long words, const word *b, const float *factors,
                     bool add) {
    /* In parts of nearly the same size, as a few rows use the processor badly. */
    const long parts = (rows + ROWS - 1) / ROWS;
    for (long part = 0; part < parts; part++) {
        const long start = rows * part / parts, count = rows * (part + 1) / parts - start;
        float *to = c + start * N;
        const word *from = a + start * step;
        switch (count + (step == STEP) * ROWS) {
#define OF(few)                                                                    \
    case few: multiply_few(few, to, from, step, words, b, factors, add); break;    \
    case few + ROWS: multiply_few(few, to, from, STEP, words, b, factors, add); break;
            OF(1) OF(2) OF(3) OF(4) OF(5) OF(6) OF(7) OF(8) OF(9) OF(10) OF(11) OF(12) OF(13) OF(14)
#undef OF
        }
    }
}
