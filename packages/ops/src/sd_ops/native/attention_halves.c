/* Exact attention of bfloat16, forward, multiplied and summed in float16 as `products.h` says, on processors with
 * AVX512_FP16 and without tiles; `attention.c` says how it goes about it, and goes both ways.
 *
 * Scores, too, are float16: a row is a key, a column one of N queries. They are differences to a query's greatest score
 * before they are weights, so that the greatest weights are the most exact. A key's and a value's number lies in a word
 * twice, as float16 are repeated to all lanes at no cost by twos. */
#include "heads.h"
#include <math.h>

typedef uint16_t half;
typedef uint32_t word;
enum { WIDE = 2 * LANES, VECTORS = 2, N = VECTORS * WIDE, ROWS = 8, BLOCK = 128 };
/* Products that are summed at once: of a score, and of a result. */
enum { CHAIN = 10, CHAIN_OF_KEYS = 32 };

/* -- Products ------------------------------------------------------------------------------------- */

/* sums (ROWS, N) = a (count, ROWS)^T b (count, N). */
static inline __attribute__((always_inline)) void multiply(__m512h sums[ROWS][VECTORS], const word *a, long count,
                                                           const half *b) {
#pragma GCC unroll 8
    for (int i = 0; i < ROWS; i++) sums[i][0] = sums[i][1] = _mm512_setzero_ph();
    for (long k = 0; k < count; k++, a += ROWS, b += N) {
        const __m512h columns[VECTORS] = {_mm512_loadu_ph(b), _mm512_loadu_ph(b + WIDE)};
#pragma GCC unroll 8
        for (int i = 0; i < ROWS; i++) {
            const __m512h factor = (__m512h)_mm512_set1_epi32((int)a[i]);
#pragma GCC unroll 2
            for (int v = 0; v < VECTORS; v++) sums[i][v] = _mm512_fmadd_ph(factor, columns[v], sums[i][v]);
        }
    }
}

/* Put sums at (ROWS, N), or add them. */
static inline __attribute__((always_inline)) void put(half *to, __m512h sums[ROWS][VECTORS], bool add) {
#pragma GCC unroll 8
    for (int i = 0; i < ROWS; i++)
#pragma GCC unroll 2
        for (int v = 0; v < VECTORS; v++) {
            half *at = to + i * N + v * WIDE;
            _mm512_storeu_ph(at, add ? _mm512_add_ph(_mm512_loadu_ph(at), sums[i][v]) : sums[i][v]);
        }
}

/* Scores (rows, N) of keys (rows / ROWS, width, ROWS) and a block of queries (width, N). */
static void score(half *scores, const word *keys, long rows, long width, const half *block) {
    const long chains = (width + CHAIN - 1) / CHAIN;
    for (long r = 0; r < rows; r += ROWS)
        for (long c = 0; c < chains; c++) {
            const long start = width * c / chains, count = width * (c + 1) / chains - start;
            __m512h sums[ROWS][VECTORS];
            multiply(sums, keys + r * width + start * ROWS, count, block + start * N);
            put(scores + r * N, sums, c);
        }
}

static inline __m512 low_half(__m512h x) { return _mm512_cvtph_ps(_mm512_castsi512_si256((__m512i)x)); }
static inline __m512 high_half(__m512h x) { return _mm512_cvtph_ps(_mm512_extracti64x4_epi64((__m512i)x, 1)); }

static inline void add_to(float *to, __m512 x) { _mm512_storeu_ps(to, _mm512_add_ps(_mm512_loadu_ps(to), x)); }

/* out (width, N) += values (width / ROWS, BLOCK, ROWS) weights (keys, N), of which there are at most BLOCK. */
static void add_values(float *out, const word *values, long keys, long width, const half *weights) {
    half whole[ROWS * N] __attribute__((aligned(64)));
    for (long d = 0; d < width; d += ROWS) {
        for (long k = 0; k < keys; k += CHAIN_OF_KEYS) {
            __m512h sums[ROWS][VECTORS];
            multiply(sums, values + d * BLOCK + k * ROWS, least(CHAIN_OF_KEYS, keys - k), weights + k * N);
            put(whole, sums, k);
        }
        for (int i = 0; i < ROWS * N; i += WIDE) {
            const __m512h sum = _mm512_load_ph(whole + i);
            add_to(out + d * N + i, low_half(sum));
            add_to(out + d * N + i + LANES, high_half(sum));
        }
    }
}

/* -- Laying out ----------------------------------------------------------------------------------- */

static inline __m256i rounded(__m512 x) { return _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT); }

/* 16 numbers, twice each, ROWS at one place and ROWS at another, or only the first of them. */
static inline void put_twice(word *to, word *behind, __m512 x) {
    const __m512i once = _mm512_cvtepu16_epi32(rounded(x)), twice = _mm512_or_si512(once, _mm512_slli_epi32(once, 16));
    _mm256_storeu_si256((void *)to, _mm512_castsi512_si256(twice));
    if (behind) _mm256_storeu_si256((void *)behind, _mm512_extracti64x4_epi64(twice, 1));
}

/* 16 rows of 16 numbers, or fewer and zeros, as columns. */
static inline void load_turned(__m512 x[LANES], const number *from, long stride, long rows, long width) {
    for (int i = 0; i < LANES; i++)
        x[i] = i < rows && width > 0 ? load_some(from + i * stride, least(LANES, width)) : _mm512_setzero_ps();
    turn(x);
}

/* Keys (rows, width) as (rows / ROWS, width, ROWS), zeros behind; return what scales them back. */
static float lay_keys(word *to, const number *from, long stride, long rows, long width) {
    const scale of = scale_to(1, greatest(from, rows, width, stride));
    for (long r = 0; r < rows; r += LANES, to += LANES * width)
        for (long d = 0; d < width; d += LANES) {
            __m512 x[LANES];
            load_turned(x, from + r * stride + d, stride, rows - r, width - d);
            for (int i = 0; i < least(LANES, width - d); i++) {
                word *at = to + (d + i) * ROWS;
                put_twice(at, rows - r > ROWS ? at + width * ROWS : NULL, _mm512_mul_ps(x[i], _mm512_set1_ps(of.there)));
            }
        }
    return of.back;
}

/* Values (rows, width) as (rows / BLOCK, width / ROWS, BLOCK, ROWS), zeros behind. */
static float lay_values(word *to, const number *from, long stride, long rows, long width) {
    const scale of = scale_to(1, greatest(from, rows, width, stride));
    const long height = up(width, ROWS);
    for (long r = 0; r < up(rows, ROWS); r++)
        for (long d = 0; d < height; d += LANES) {
            const long count = r < rows ? least(LANES, width - d) : 0;
            const __m512 x = count > 0 ? load_some(from + r * stride + d, count) : _mm512_setzero_ps();
            word *at = to + (r / BLOCK * height + d) * BLOCK + r % BLOCK * ROWS;
            put_twice(at, height - d > ROWS ? at + BLOCK * ROWS : NULL, _mm512_mul_ps(x, _mm512_set1_ps(of.there)));
        }
    return of.back;
}

/* N queries (or fewer, and zeros), each times a factor, as (width, N). */
static void lay_block(half *to, const number *from, long stride, long rows, long width, float factor) {
    for (long d = 0; d < width; d += LANES)
        for (long r = 0; r < N; r += LANES) {
            __m512 x[LANES];
            load_turned(x, from + r * stride + d, stride, rows - r, width - d);
            for (int i = 0; i < least(LANES, width - d); i++)
                _mm256_storeu_si256((void *)(to + (d + i) * N + r), rounded(_mm512_mul_ps(x[i], _mm512_set1_ps(factor))));
        }
}

/* -- Softmax -------------------------------------------------------------------------------------- */

static const float NOTHING = -65504; /* the least float16 */

/* 2^x of x <= 0, to 4e-4 of it. */
static inline __m512h power_of(__m512h x) {
    x = _mm512_max_ph(_mm512_set1_ph(-25), x); /* which is nought; what is not a number stays so */
    const __m512h whole = _mm512_roundscale_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const __m512h f = _mm512_sub_ph(x, whole);
    __m512h y = _mm512_fmadd_ph(_mm512_set1_ph(0.0551717f), f, _mm512_set1_ph(0.2426111f));
    y = _mm512_fmadd_ph(y, f, _mm512_set1_ph(0.6932610f));
    y = _mm512_fmadd_ph(y, f, _mm512_set1_ph(0.9999281f));
    return _mm512_scalef_ph(y, whole);
}

/* Raise `top` to the greatest score of (rows, N); return whether any column's was. */
static bool raise(__m512h top[VECTORS], const half *scores, long rows) {
    bool raised = false;
    for (int v = 0; v < VECTORS; v++) {
        __m512h even = top[v], odd = top[v];
        for (long r = 0; r < rows; r += 2) {
            even = _mm512_max_ph(even, _mm512_loadu_ph(scores + r * N + v * WIDE));
            odd = _mm512_max_ph(odd, _mm512_loadu_ph(scores + (r + 1) * N + v * WIDE));
        }
        even = _mm512_max_ph(even, odd);
        raised |= _mm512_cmp_ph_mask(even, top[v], _CMP_GT_OQ) != 0;
        top[v] = even;
    }
    return raised;
}

/* Turn scores (rows, N) into weights 2^(factor (score - top)), in place, and add them to `sum`. */
static void weigh(half *scores, long rows, __m512h factor, const __m512h top[VECTORS], float sum[N]) {
    for (long start = 0; start < rows; start += 2 * ROWS)
        for (int v = 0; v < VECTORS; v++) {
            __m512h even = _mm512_setzero_ph(), odd = even;
            for (long r = start; r < least(rows, start + 2 * ROWS); r += 2) {
                half *at = scores + r * N + v * WIDE;
                const __m512h first = power_of(_mm512_mul_ph(_mm512_sub_ph(_mm512_loadu_ph(at), top[v]), factor));
                const __m512h second = power_of(_mm512_mul_ph(_mm512_sub_ph(_mm512_loadu_ph(at + N), top[v]), factor));
                _mm512_storeu_ph(at, first);
                _mm512_storeu_ph(at + N, second);
                even = _mm512_add_ph(even, first), odd = _mm512_add_ph(odd, second);
            }
            even = _mm512_add_ph(even, odd);
            add_to(sum + v * WIDE, low_half(even));
            add_to(sum + v * WIDE + LANES, high_half(even));
        }
}

/* Attend from a block of N queries: `out` (width, N) is the weighted sum of values, and `sum` that of weights. */
static void attend_block(const half *block, const word *keys, const word *values, long num_keys, long width,
                         float factor, half *scores, float *out, float sum[N]) {
    const long height = up(width, ROWS);
    __m512h top[VECTORS];
    for (int v = 0; v < VECTORS; v++) top[v] = _mm512_set1_ph((_Float16)NOTHING);
    memset(out, 0, height * N * sizeof(float));
    memset(sum, 0, N * sizeof(float));
    for (long start = 0; start < num_keys; start += BLOCK) {
        const long count = least(num_keys - start, BLOCK), whole = up(count, ROWS);
        const __m512h before[VECTORS] = {top[0], top[1]};
        score(scores, keys + start * width, whole, width, block);
        for (long i = count * N; i < whole * N; i += WIDE) _mm512_storeu_ph(scores + i, _mm512_set1_ph((_Float16)NOTHING));
        if (raise(top, scores, whole) && start) {
            __m512 less[N / LANES];
            for (int v = 0; v < VECTORS; v++) {
                less[2 * v] = _mm512_sub_ps(low_half(before[v]), low_half(top[v]));
                less[2 * v + 1] = _mm512_sub_ps(high_half(before[v]), high_half(top[v]));
            }
            for (int v = 0; v < N / LANES; v++) {
                less[v] = power(_mm512_mul_ps(less[v], _mm512_set1_ps(factor)));
                _mm512_storeu_ps(sum + v * LANES, _mm512_mul_ps(_mm512_loadu_ps(sum + v * LANES), less[v]));
            }
            for (long d = 0; d < width; d++)
                for (int v = 0; v < N / LANES; v++) {
                    float *at = out + d * N + v * LANES;
                    _mm512_storeu_ps(at, _mm512_mul_ps(_mm512_loadu_ps(at), less[v]));
                }
        }
        weigh(scores, whole, _mm512_set1_ph((_Float16)factor), top, sum);
        add_values(out, values + start * height, whole, width, scores);
    }
}

/* -- What Python calls ---------------------------------------------------------------------------- */

int ready(void) { return 1; }

/* out = softmax(scale q k^T) v. Returns 0, or 1 for want of memory. `log_sums` must be null: gradients are not taken. */
int attend(tensor out, tensor q, tensor k, tensor v, float *log_sums, sizes s) {
    const long heads = s.batch * s.heads, blocks = (s.num_queries + N - 1) / N, parts = parts_of(s, blocks);
    const long height = up(s.width, ROWS);
    int failed = log_sums != NULL;
#pragma omp parallel num_threads(s.threads) reduction(| : failed)
    {
        const long key_words = up(s.num_keys, ROWS) * s.width, value_words = up(s.num_keys, BLOCK) * height;
        float *sums = room((key_words + value_words + height * N) * sizeof(word) + (s.width + BLOCK) * N * sizeof(half));
        word *keys = (word *)(sums + height * N), *values = keys + key_words;
        half *scores = (half *)(values + value_words), *block = scores + BLOCK * N;
        failed |= !sums;
#pragma omp for schedule(dynamic)
        for (long task = 0; task < heads * parts; task++) {
            if (!sums) continue;
            const long head = task / parts, part = task % parts;
            const number *of_queries = of_head(q, s, head);
            const float of_keys = lay_keys(keys, of_head(k, s, head), k.row, s.num_keys, s.width);
            const float of_values = lay_values(values, of_head(v, s, head), v.row, s.num_keys, s.width);
            for (long b = blocks * part / parts; b < blocks * (part + 1) / parts; b++) {
                const long start = b * N, rows = least(s.num_queries - start, N);
                const scale of = scale_to(1, greatest(of_queries + start * q.row, rows, s.width, q.row));
                /* A power of two that float16 has scales differences of scores, and the queries what is left. */
                int exponent;
                const float rest = frexpf(s.scale * LOG2_E * of_keys * of.back, &exponent);
                const int held = exponent < -10 ? -10 : exponent > 15 ? 15 : exponent;
                lay_block(block, of_queries + start * q.row, q.row, rows, s.width,
                          of.there * ldexpf(rest, exponent < held ? exponent - held : 0));
                float sum[N];
                attend_block(block, keys, values, s.num_keys, s.width, ldexpf(1, held), scores, sums, sum);
                __m512 factors[N / LANES];
                for (int i = 0; i < N / LANES; i++)
                    factors[i] = _mm512_div_ps(_mm512_set1_ps(of_values), _mm512_loadu_ps(sum + i * LANES));
                give_rows(of_head(out, s, head) + start * out.row, out.row, rows, sums, s.width, factors, N / LANES);
            }
        }
        free(sums);
    }
    return failed;
}
