/* Exact attention on processors with AVX-512, forward and backward, of float32 or bfloat16.
 *
 * Compiled once for this processor by `sd_ops.native`, which hands it tensors as they lie; with HALF=1 for
 * bfloat16, 0 for float32, and TILES=1 for bfloat16 in tiles. It computes softmax(scale q k^T) v a block of
 * keys at a time (Milakov and Gimelshein 2018, arXiv:1805.02867; Dao et al. 2022, arXiv:2205.14135), all sums
 * in float32.
 *
 * Scores lie transposed: a row is a key, a column one of N queries. The greatest score and the sum of a
 * query's weights are then taken over rows, with no shuffling, and two rows of weights become one row of
 * pairs as bfloat16 products want them: tiles (AMX) where the processor has them, else dot products of
 * pairs (AVX512_BF16). Every product is (rows, words) x (words, N), where a word is one float32, or two
 * bfloat16 that are multiplied and summed together.
 */
#define PAIRED (TILES || PAIRS)
#include "heads.h"
#include <math.h>
#include <sys/syscall.h>
#include <unistd.h>

typedef uint32_t word;
#if TILES
enum { VECTORS = 2, ROWS = 16, BLOCK = 256 };
#else
enum { VECTORS = 3, ROWS = 8, BLOCK = 128 };
#endif
/* N queries (or, backward, keys) at once; ROWS of a product at once; BLOCK rows of scores at once. */
enum { N = VECTORS * LANES, PANEL = 16, PANEL_ROWS = PANEL * PER_WORD };

/* -- Products ------------------------------------------------------------------------------------- */

/* A matrix whose words lie in panels of 16: word w of row r is at from[w / 16 * panel + r * 16 + w % 16]. */
typedef struct { word *from; long panel; } panels;

#if TILES

static bool allowed(void) {
    enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 };
    return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
}

static void begin(void) {
    struct { uint8_t palette, start, zero[14]; uint16_t columns[16]; uint8_t rows[16]; } tiles = {.palette = 1};
    for (int i = 0; i < 8; i++) tiles.columns[i] = 64, tiles.rows[i] = 16;
    _tile_loadconfig(&tiles);
}

static void end(void) { _tile_release(); }

#define A(row) (a.from + p * a.panel + (row) * PANEL)
#define LOAD_A(tile, row) _tile_loadd(tile, A(row), PANEL * 4)
#define LOAD_B(tile, half) _tile_loadd(tile, b + p * PANEL * N + (half) * LANES, N * 4)
#define LOAD_C(tile, row, half) _tile_loadd(tile, c + (row) * N + (half) * LANES, N * 4)
#define STORE_C(tile, row, half) _tile_stored(tile, c + (row) * N + (half) * LANES, N * 4)

/* c (rows, N) = a b, where b's one or two panels stay in tiles: loading takes as long as multiplying. */
static void multiply_kept(float *c, long rows, panels a, long count, const word *b) {
    long p = 0;
    LOAD_B(4, 0); LOAD_B(5, 1);
    p = 1;
    if (count == 2) { LOAD_B(6, 0); LOAD_B(7, 1); }
    for (long r = 0; r < rows; r += 16) {
        p = 0;
        _tile_zero(0); _tile_zero(1);
        LOAD_A(2, r);
        _tile_dpbf16ps(0, 2, 4); _tile_dpbf16ps(1, 2, 5);
        p = 1;
        if (count == 2) {
            LOAD_A(3, r);
            _tile_dpbf16ps(0, 3, 6); _tile_dpbf16ps(1, 3, 7);
        }
        STORE_C(0, r, 0); STORE_C(1, r, 1);
    }
}

static void multiply(float *c, long rows, panels a, long words, const word *b, bool add) {
    long count = (words + PANEL - 1) / PANEL, r = 0;
    if (!add && count <= 2) { multiply_kept(c, rows, a, count, b); return; }
    for (; r + 32 <= rows; r += 32) {
        if (add) { LOAD_C(0, r, 0); LOAD_C(1, r, 1); LOAD_C(2, r + 16, 0); LOAD_C(3, r + 16, 1); }
        else { _tile_zero(0); _tile_zero(1); _tile_zero(2); _tile_zero(3); }
        for (long p = 0; p < count; p++) {
            LOAD_A(4, r);
            LOAD_B(6, 0); _tile_dpbf16ps(0, 4, 6);
            LOAD_B(7, 1); _tile_dpbf16ps(1, 4, 7);
            LOAD_A(5, r + 16);
            _tile_dpbf16ps(2, 5, 6); _tile_dpbf16ps(3, 5, 7);
        }
        STORE_C(0, r, 0); STORE_C(1, r, 1); STORE_C(2, r + 16, 0); STORE_C(3, r + 16, 1);
    }
    if (r < rows) {
        if (add) { LOAD_C(0, r, 0); LOAD_C(1, r, 1); }
        else { _tile_zero(0); _tile_zero(1); }
        for (long p = 0; p < count; p++) {
            LOAD_A(4, r);
            LOAD_B(6, 0); _tile_dpbf16ps(0, 4, 6);
            LOAD_B(7, 1); _tile_dpbf16ps(1, 4, 7);
        }
        STORE_C(0, r, 0); STORE_C(1, r, 1);
    }
}

#else

static bool allowed(void) { return true; }
static void begin(void) {}
static void end(void) {}

static inline __m512 times(__m512 sum, word a, __m512 b) {
#if PAIRED
    return _mm512_dpbf16_ps(sum, (__m512bh)_mm512_set1_epi32((int)a), (__m512bh)b);
#else
    return _mm512_fmadd_ps((__m512)_mm512_set1_epi32((int)a), b, sum);
#endif
}

/* c (rows, N) = a b, or c + a b; rows are a multiple of ROWS, whose sums stay in registers. */
static void multiply(float *c, long rows, panels a, long words, const word *b, bool add) {
    for (long r = 0; r < rows; r += ROWS) {
        __m512 sums[ROWS][VECTORS];
#pragma GCC unroll 8
        for (int i = 0; i < ROWS; i++)
#pragma GCC unroll 4
            for (int v = 0; v < VECTORS; v++)
                sums[i][v] = _mm512_setzero_ps();
        const word *row = b;
        for (long start = 0; start < words; start += PANEL) {
            const word *at = a.from + start / PANEL * a.panel + r * PANEL;
            for (const word *last = at + least(words - start, PANEL); at < last; at++, row += N) {
                __m512 columns[VECTORS];
#pragma GCC unroll 4
                for (int v = 0; v < VECTORS; v++) columns[v] = _mm512_loadu_ps(row + v * LANES);
#pragma GCC unroll 8
                for (int i = 0; i < ROWS; i++)
#pragma GCC unroll 4
                    for (int v = 0; v < VECTORS; v++) sums[i][v] = times(sums[i][v], at[i * PANEL], columns[v]);
            }
        }
#pragma GCC unroll 8
        for (int i = 0; i < ROWS; i++)
#pragma GCC unroll 4
            for (int v = 0; v < VECTORS; v++) {
                float *at = c + (r + i) * N + v * LANES;
                _mm512_storeu_ps(at, add ? _mm512_add_ps(_mm512_loadu_ps(at), sums[i][v]) : sums[i][v]);
            }
    }
}

#endif

/* -- Laying out ----------------------------------------------------------------------------------- */

/* The width is even in bfloat16, so that rows are whole words. */
static long words_of(long width) { return width / PER_WORD; }
static long size_of_rows(long rows, long width) { return up(words_of(width), PANEL) * up(rows, PANEL_ROWS); }
static long size_of_columns(long rows, long width) { return up(rows, PANEL_ROWS) / PER_WORD * up(width, ROWS); }

/* The first values of one row, or in pairs of two, as words; at most 16, zeros behind. */
static inline __m512 join_rows(const number *first, const number *second, long count) {
#if PAIRED
    const __mmask16 some = (__mmask16)((1u << count) - 1);
    const __m512i low = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(some, first));
    if (!second) return (__m512)low;
    const __m512i high = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(some, second));
    return (__m512)_mm512_or_si512(low, _mm512_slli_epi32(high, 16));
#else
    (void)second;
    return load_some(first, count);
#endif
}

/* Rows (rows, width) as they are, their words in panels, zeros behind. */
static panels lay_rows(word *to, const number *from, long stride, long rows, long width) {
    const long words = words_of(width), all = up(rows, PANEL_ROWS);
    panels laid = {to, all * PANEL};
    for (long w = 0; w < words; w += PANEL)
        for (long r = 0; r < all; r++, to += PANEL) {
            const long count = least(words - w, PANEL);
            _mm512_storeu_ps(to, r < rows ? load_words(from + r * stride + w * PER_WORD, count) : _mm512_setzero_ps());
        }
    return laid;
}

/* Their transpose (width, rows), the words of 16 or 32 rows in a panel, zeros behind. */
static panels lay_columns(word *to, const number *from, long stride, long rows, long width) {
    const long height = up(width, ROWS);
    panels laid = {to, height * PANEL};
    for (long r = 0; r < rows; r += PANEL_ROWS, to += laid.panel)
        for (long d = 0; d < height; d += LANES) {
            const long count = least(LANES, width - d);
            __m512 x[LANES];
            for (int i = 0; i < PANEL; i++) {
                const long row = r + i * PER_WORD;
                const number *at = from + row * stride + d;
                x[i] = row < rows ? join_rows(at, row + 1 < rows ? at + stride : NULL, count) : _mm512_setzero_ps();
            }
            turn(x);
            for (int i = 0; i < least(LANES, height - d); i++) _mm512_storeu_ps(to + (d + i) * PANEL, x[i]);
        }
    return laid;
}

static panels from_row(panels a, long row) { return (panels){a.from + row * PANEL, a.panel}; }
static panels from_column(panels a, long row) { return (panels){a.from + row / PANEL_ROWS * a.panel, a.panel}; }

/* N rows (or fewer, and zeros) as the right side of a product: (words, N). */
static void lay_block(word *to, const number *from, long stride, long rows, long width) {
    const long words = words_of(width);
    for (long w = 0; w < words; w += LANES)
        for (long r = 0; r < N; r += LANES) {
            const long count = least(LANES, words - w);
            __m512 x[LANES];
            for (int i = 0; i < LANES; i++)
                x[i] = r + i < rows ? load_words(from + (r + i) * stride + w * PER_WORD, count) : _mm512_setzero_ps();
            turn(x);
            for (int i = 0; i < LANES; i++) _mm512_storeu_ps(to + (w + i) * N + r, x[i]);
        }
}

/* Two rows of N, or where a word is one number one, as a row of words. */
static inline void put_words(word *to, const __m512 first[VECTORS], const __m512 second[VECTORS]) {
#if PAIRED
    const __m512i turns = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7,
                                           22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    for (int v = 0; v < VECTORS; v++)
        _mm512_storeu_si512(to + v * LANES, _mm512_permutexvar_epi16(
                                turns, (__m512i)_mm512_cvtne2ps_pbh(second[v], first[v])));
#else
    (void)second;
    for (int v = 0; v < VECTORS; v++) _mm512_storeu_ps(to + v * LANES, first[v]);
#endif
}

/* -- Softmax -------------------------------------------------------------------------------------- */

static const float NOTHING = -1e30f;

/* Products of `count` rows from `start` on with a block, and `beyond` up to whole panels of rows; return
 * how many rows that makes. */
static long products_of(float *to, panels rows, long start, long count, const word *block, long words, float beyond) {
    const long whole = up(count, PANEL_ROWS);
    multiply(to, up(count, ROWS), from_row(rows, start), words, block, false);
    for (long i = count * N; i < whole * N; i++) to[i] = beyond;
    return whole;
}

/* Turn scores (rows, N) into words of 2^(factor score - shift), in place, and add to `sum`: by way of four
 * sums, as many small weights would be rounded off beside a large one. */
static void weigh(float *scores, long rows, __m512 factor, const __m512 shift[VECTORS], __m512 sum[VECTORS]) {
    word *weights = (word *)scores;
    __m512 sums[4][VECTORS];
    memset(sums, 0, sizeof sums);
    for (long r = 0; r < rows; r += 4) {
        __m512 y[4][VECTORS];
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++)
#pragma GCC unroll 4
            for (int v = 0; v < VECTORS; v++) {
                __m512 x = _mm512_loadu_ps(scores + (r + i) * N + v * LANES);
                y[i][v] = power(_mm512_fmsub_ps(x, factor, shift[v]));
                sums[i][v] = _mm512_add_ps(sums[i][v], y[i][v]);
            }
#pragma GCC unroll 4
        for (int i = 0; i < 4; i += PER_WORD)
            put_words(weights + (r + i) / PER_WORD * N, y[i], y[i + PER_WORD - 1]);
    }
    for (int v = 0; v < VECTORS; v++)
        sum[v] = _mm512_add_ps(sum[v], _mm512_add_ps(_mm512_add_ps(sums[0][v], sums[1][v]),
                                                     _mm512_add_ps(sums[2][v], sums[3][v])));
}

/* Raise `top` to the greatest score of (rows, N); return whether any column's was. */
static bool raise(__m512 top[VECTORS], const float *scores, long rows) {
    bool raised = false;
    for (int v = 0; v < VECTORS; v++) {
        __m512 even = top[v], odd = top[v];
        for (long r = 0; r < rows; r += 2) {
            even = _mm512_max_ps(even, _mm512_loadu_ps(scores + r * N + v * LANES));
            odd = _mm512_max_ps(odd, _mm512_loadu_ps(scores + (r + 1) * N + v * LANES));
        }
        even = _mm512_max_ps(even, odd);
        raised |= _mm512_cmp_ps_mask(even, top[v], _CMP_GT_OQ) != 0;
        top[v] = even;
    }
    return raised;
}

/* Attend from a block of N queries: `out` (width, N) is the weighted sum of values and `sum` that of
 * weights, which are 2^(factor score - shift); the shift is that of the greatest score. */
static void attend_block(const word *block, panels keys, panels values, long num_keys, long width, float scale,
                         float *scores, float *out, __m512 shift[VECTORS], __m512 sum[VECTORS]) {
    const __m512 factor = _mm512_set1_ps(scale * LOG2_E);
    const long rows = up(width, ROWS);
    memset(out, 0, rows * N * sizeof(float));
    __m512 top[VECTORS];
    for (int v = 0; v < VECTORS; v++)
        shift[v] = top[v] = _mm512_set1_ps(NOTHING), sum[v] = _mm512_setzero_ps();
    for (long start = 0; start < num_keys; start += BLOCK) {
        const long count = least(num_keys - start, BLOCK);
        const long whole = products_of(scores, keys, start, count, block, words_of(width), NOTHING);
        if (raise(top, scores, whole)) {
            __m512 less[VECTORS];
            for (int v = 0; v < VECTORS; v++) {
                const __m512 raised = _mm512_mul_ps(top[v], factor);
                less[v] = power(_mm512_sub_ps(shift[v], raised));
                sum[v] = _mm512_mul_ps(sum[v], less[v]);
                shift[v] = raised;
            }
            if (start)
                for (long i = 0; i < rows * VECTORS; i++)
                    _mm512_storeu_ps(out + i * LANES,
                                     _mm512_mul_ps(_mm512_loadu_ps(out + i * LANES), less[i % VECTORS]));
        }
        weigh(scores, whole, factor, shift, sum);
        multiply(out, rows, from_column(values, start), whole / PER_WORD, (const word *)scores, true);
    }
}

/* -- What Python calls ---------------------------------------------------------------------------- */

/* Whether this process may use the products. */
int ready(void) { return allowed(); }

/* out = softmax(scale q k^T) v. Where `log_sums` (B, H, Tq) is given, it gets the binary logarithm of each
 * query's sum of 2^(log2(e) scale q k^T). Returns 0, or 1 for want of memory. */
int attend(tensor out, tensor q, tensor k, tensor v, float *log_sums, sizes s) {
    const long heads = s.batch * s.heads, blocks = (s.num_queries + N - 1) / N, parts = parts_of(s, blocks);
    int failed = 0;
#pragma omp parallel num_threads(s.threads) reduction(| : failed)
    {
        const long row_words = size_of_rows(s.num_keys, s.width), column_words = size_of_columns(s.num_keys, s.width);
        const long block_words = up(words_of(s.width), PANEL) * N;
        word *memory = room((row_words + column_words + block_words + BLOCK * N + up(s.width, ROWS) * N) * sizeof(word));
        failed = !memory;
        begin();
#pragma omp for schedule(dynamic)
        for (long task = 0; task < heads * parts; task++) {
            if (!memory) continue;
            word *block = memory + row_words + column_words;
            float *scores = (float *)(block + block_words), *sums = scores + BLOCK * N;
            const long head = task / parts, part = task % parts;
            panels keys = lay_rows(memory, of_head(k, s, head), k.row, s.num_keys, s.width);
            panels values = lay_columns(memory + row_words, of_head(v, s, head), v.row, s.num_keys, s.width);
            for (long b = blocks * part / parts; b < blocks * (part + 1) / parts; b++) {
                const long start = b * N, rows = least(s.num_queries - start, N);
                __m512 shift[VECTORS], sum[VECTORS];
                lay_block(block, of_head(q, s, head) + start * q.row, q.row, rows, s.width);
                attend_block(block, keys, values, s.num_keys, s.width, s.scale, scores, sums, shift, sum);
                if (log_sums) {
                    const float *of_sum = (const float *)sum, *of_shift = (const float *)shift;
                    for (long r = 0; r < rows; r++)
                        log_sums[head * s.num_queries + start + r] = log2f(of_sum[r]) + of_shift[r];
                }
                for (int i = 0; i < VECTORS; i++) sum[i] = _mm512_div_ps(_mm512_set1_ps(1), sum[i]);
                give_rows(of_head(out, s, head) + start * out.row, out.row, rows, sums, s.width, sum, VECTORS);
            }
        }
        end();
        free(memory);
    }
    return failed;
}

/* out . grad of each query, (num_queries,) */
static void agreements(float *to, const number *out, long out_row, const number *grad, long grad_row, sizes s) {
    for (long r = 0; r < s.num_queries; r++) {
        float sum = 0;
        for (long d = 0; d < s.width; d++) sum += as_float(out[r * out_row + d]) * as_float(grad[r * grad_row + d]);
        to[r] = sum;
    }
}

/* A head's gradients are made in two ways over its scores, which are computed anew each time, so that every
 * sum has one writer. With weights w = 2^(log2(e) scale q k^T - log_sum) and the scores' gradients
 * g = w (grad v^T - out . grad):
 *
 * `learn_queries` sums grad_q = scale g k for N queries over the keys,
 * `learn_keys` sums grad_k = scale g^T q and grad_v = w^T grad for N keys over the queries. */
typedef struct { tensor q, k, v, out, grad, grad_q, grad_k, grad_v; const float *log_sums; } learning;

typedef struct {
    word *first, *second, *third, *fourth; /* what is laid out of the whole head */
    word *left, *right;                    /* a block of N, of two tensors */
    float *scores, *grads, *sums, *more_sums, *agreed;
} workplace;

static void learn_queries(learning t, sizes s, workplace w, long head, long from, long to) {
    const __m512 factor = _mm512_set1_ps(s.scale * LOG2_E), scale = _mm512_set1_ps(s.scale);
    const long words = words_of(s.width), width = up(s.width, ROWS);
    number *q = of_head(t.q, s, head), *k = of_head(t.k, s, head), *grad = of_head(t.grad, s, head);
    panels keys = lay_rows(w.first, k, t.k.row, s.num_keys, s.width);
    panels keys_turned = lay_columns(w.second, k, t.k.row, s.num_keys, s.width);
    panels values = lay_rows(w.third, of_head(t.v, s, head), t.v.row, s.num_keys, s.width);
    agreements(w.agreed, of_head(t.out, s, head), t.out.row, grad, t.grad.row, s);
    const __m512 scales[3] = {scale, scale, scale};
    for (long b = from; b < to; b++) {
        const long start = b * N, rows = least(s.num_queries - start, N);
        lay_block(w.left, q + start * t.q.row, t.q.row, rows, s.width);
        lay_block(w.right, grad + start * t.grad.row, t.grad.row, rows, s.width);
        float of_rows[2][N] = {{0}};
        memcpy(of_rows[0], t.log_sums + head * s.num_queries + start, rows * sizeof(float));
        memcpy(of_rows[1], w.agreed + start, rows * sizeof(float));
        memset(w.sums, 0, width * N * sizeof(float));
        for (long key = 0; key < s.num_keys; key += BLOCK) {
            const long count = least(s.num_keys - key, BLOCK);
            const long whole = products_of(w.scores, keys, key, count, w.left, words, NOTHING);
            products_of(w.grads, values, key, count, w.right, words, 0);
            for (long r = 0; r < whole; r += PER_WORD) {
                __m512 g[2][VECTORS];
                for (int i = 0; i < PER_WORD; i++)
                    for (int v = 0; v < VECTORS; v++) {
                        const long at = (r + i) * N + v * LANES;
                        const __m512 log_sum = _mm512_loadu_ps(of_rows[0] + v * LANES);
                        const __m512 agreed = _mm512_loadu_ps(of_rows[1] + v * LANES);
                        const __m512 weight = power(_mm512_fmsub_ps(_mm512_loadu_ps(w.scores + at), factor, log_sum));
                        g[i][v] = _mm512_mul_ps(weight, _mm512_sub_ps(_mm512_loadu_ps(w.grads + at), agreed));
                    }
                put_words((word *)w.scores + r / PER_WORD * N, g[0], g[1]);
            }
            multiply(w.sums, width, from_column(keys_turned, key), whole / PER_WORD, (word *)w.scores, true);
        }
        give_rows(of_head(t.grad_q, s, head) + start * t.grad_q.row, t.grad_q.row, rows, w.sums, s.width, scales, VECTORS);
    }
}

static void learn_keys(learning t, sizes s, workplace w, long head, long from, long to) {
    const __m512 factor = _mm512_set1_ps(s.scale * LOG2_E), scale = _mm512_set1_ps(s.scale), one = _mm512_set1_ps(1);
    const long words = words_of(s.width), width = up(s.width, ROWS);
    number *q = of_head(t.q, s, head), *grad = of_head(t.grad, s, head);
    panels queries = lay_rows(w.first, q, t.q.row, s.num_queries, s.width);
    panels queries_turned = lay_columns(w.second, q, t.q.row, s.num_queries, s.width);
    panels grads = lay_rows(w.third, grad, t.grad.row, s.num_queries, s.width);
    panels grads_turned = lay_columns(w.fourth, grad, t.grad.row, s.num_queries, s.width);
    agreements(w.agreed, of_head(t.out, s, head), t.out.row, grad, t.grad.row, s);
    const __m512 scales[3] = {scale, scale, scale}, ones[3] = {one, one, one};
    for (long b = from; b < to; b++) {
        const long start = b * N, rows = least(s.num_keys - start, N);
        lay_block(w.left, of_head(t.k, s, head) + start * t.k.row, t.k.row, rows, s.width);
        lay_block(w.right, of_head(t.v, s, head) + start * t.v.row, t.v.row, rows, s.width);
        memset(w.sums, 0, width * N * sizeof(float));
        memset(w.more_sums, 0, width * N * sizeof(float));
        for (long query = 0; query < s.num_queries; query += BLOCK) {
            const long count = least(s.num_queries - query, BLOCK);
            const long whole = products_of(w.scores, queries, query, count, w.left, words, NOTHING);
            products_of(w.grads, grads, query, count, w.right, words, 0);
            for (long r = 0; r < whole; r += PER_WORD) {
                __m512 y[2][VECTORS], g[2][VECTORS];
                for (int i = 0; i < PER_WORD; i++) {
                    const long row = least(query + r + i, s.num_queries - 1);
                    const __m512 log_sum = _mm512_set1_ps(t.log_sums[head * s.num_queries + row]);
                    const __m512 agreed = _mm512_set1_ps(w.agreed[row]);
                    for (int v = 0; v < VECTORS; v++) {
                        const long at = (r + i) * N + v * LANES;
                        y[i][v] = power(_mm512_fmsub_ps(_mm512_loadu_ps(w.scores + at), factor, log_sum));
                        g[i][v] = _mm512_mul_ps(y[i][v], _mm512_sub_ps(_mm512_loadu_ps(w.grads + at), agreed));
                    }
                }
                put_words((word *)w.scores + r / PER_WORD * N, y[0], y[1]);
                put_words((word *)w.grads + r / PER_WORD * N, g[0], g[1]);
            }
            multiply(w.sums, width, from_column(queries_turned, query), whole / PER_WORD, (word *)w.grads, true);
            multiply(w.more_sums, width, from_column(grads_turned, query), whole / PER_WORD, (word *)w.scores, true);
        }
        give_rows(of_head(t.grad_k, s, head) + start * t.grad_k.row, t.grad_k.row, rows, w.sums, s.width, scales, VECTORS);
        give_rows(of_head(t.grad_v, s, head) + start * t.grad_v.row, t.grad_v.row, rows, w.more_sums, s.width, ones, VECTORS);
    }
}

/* The gradients of q, k and v for that of `attend`'s out. Returns 0, or 1 for want of memory. */
int attend_backward(learning t, sizes s) {
    const long heads = s.batch * s.heads;
    const long query_blocks = (s.num_queries + N - 1) / N, key_blocks = (s.num_keys + N - 1) / N;
    const long parts = parts_of(s, least(query_blocks, key_blocks));
    int failed = 0;
#pragma omp parallel num_threads(s.threads) reduction(| : failed)
    {
        const long most = s.num_queries > s.num_keys ? s.num_queries : s.num_keys;
        const long row_words = size_of_rows(most, s.width), column_words = size_of_columns(most, s.width);
        const long block_words = up(words_of(s.width), PANEL) * N, sums = up(s.width, ROWS) * N;
        word *memory = room((2 * (row_words + column_words + block_words + BLOCK * N + sums) + most) * sizeof(word));
        failed = !memory;
        begin();
        workplace w = {.first = memory};
        if (memory) {
            w.third = w.first + row_words;
            w.second = w.third + row_words, w.fourth = w.second + column_words;
            w.left = w.fourth + column_words, w.right = w.left + block_words;
            w.scores = (float *)(w.right + block_words), w.grads = w.scores + BLOCK * N;
            w.sums = w.grads + BLOCK * N, w.more_sums = w.sums + sums, w.agreed = w.more_sums + sums;
        }
#pragma omp for schedule(dynamic)
        for (long task = 0; task < 2 * heads * parts; task++) {
            if (!memory) continue;
            const long head = task / parts / 2, part = task % parts;
            if (task / parts % 2) learn_queries(t, s, w, head, query_blocks * part / parts, query_blocks * (part + 1) / parts);
            else learn_keys(t, s, w, head, key_blocks * part / parts, key_blocks * (part + 1) / parts);
        }
        end();
        free(memory);
    }
    return failed;
}
