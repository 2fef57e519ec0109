/* 3x3 convolutions with a quarter of the multiplications (Lavin and Gray 2015, arXiv:1509.09308, section 4.3):
 * F(4x4, 3x3), tiles of 6 x 6 that give 4 x 4 each; in float16 with a third, F(4x2, 3x3), tiles of 6 x 4 that give
 * 4 x 2 each, as the larger ones would add three times bfloat16's own rounding. The polynomials' points are 0, 5/8,
 * -5/8, 3/2, -3/2 and infinity, with which rounding grows less than half as much as with whole numbers (Barabasz et
 * al. 2018, arXiv:1803.10986), or 0, 1, -1 and infinity.
 *
 * Compiled for this processor by `sd_ops.native`. A band of tiles is transformed at once; then each thread takes
 * N outputs for itself, a stretch of DEPTH channels after the other: their kernels are transformed into its nearest
 * cache, multiplied with the band, and forgotten. Bfloat16 is read and rounded at the ends alone. In float16 each
 * tile is scaled, and of each output the DEPTH channels that are multiplied at once. */
#if HALVES
#define DEPTH 320
enum { OUT_WIDTH = 2, MOST_TILES = 256 };
#else
#define DEPTH 64
enum { OUT_WIDTH = 4, MOST_TILES = 128 };
#endif
#include "products.h"

enum { OUT = 4, IN = OUT + 2, IN_WIDTH = OUT_WIDTH + 2, PLACES = IN * IN_WIDTH, TAPS = 9 };
/* Words that tiles of a band are transformed to: more tiles would not make the kernel's share smaller. */
enum { MOST_SEEN = 3 << 20 };
/* What numbers may come to before they are transformed, which makes pixels 11 times as large, and taps twice. */
static const float MOST_PIXEL = MOST_LEFT / 16, MOST_TAP = MOST_RIGHT / 2;

/* `turned`: the kernel is (C, 3, 3, O) in place of (O, 3, 3, C), and turned by 180 degrees. */
typedef struct { long images, height, width, channels, outputs, padding, turned, threads; } sizes;

/* -- Transforms of one dimension ------------------------------------------------------------------ */

#define LINE static inline __attribute__((always_inline)) void
#define VALUE(x) _mm512_set1_ps(x)

static const float P = 5.0f / 8, Q = 3.0f / 2; /* the points */

LINE see_four(__m512 y[IN], const __m512 x[IN]) {
    const __m512 p = VALUE(P), q = VALUE(Q), pp = VALUE(P * P), qq = VALUE(Q * Q);
    const __m512 product = VALUE(P * P * Q * Q), sum = VALUE(P * P + Q * Q);
    const __m512 even = _mm512_fnmadd_ps(qq, x[2], x[4]), odd = _mm512_fnmadd_ps(qq, x[1], x[3]);
    const __m512 far = _mm512_fnmadd_ps(pp, x[2], x[4]), far_odd = _mm512_fnmadd_ps(pp, x[1], x[3]);
    y[0] = _mm512_fmadd_ps(product, x[0], _mm512_fnmadd_ps(sum, x[2], x[4]));
    y[1] = _mm512_fmadd_ps(p, odd, even);
    y[2] = _mm512_fnmadd_ps(p, odd, even);
    y[3] = _mm512_fmadd_ps(q, far_odd, far);
    y[4] = _mm512_fnmadd_ps(q, far_odd, far);
    y[5] = _mm512_fmadd_ps(product, x[1], _mm512_fnmadd_ps(sum, x[3], x[5]));
}

LINE tap_four(packed y[IN], packed a, packed b, packed c) {
    const float of_near = 1 / (2 * P * P * (P * P - Q * Q)), of_far = 1 / (2 * Q * Q * (Q * Q - P * P));
    const packed near = (element)of_near * a + (element)(of_near * P * P) * c;
    const packed far = (element)of_far * a + (element)(of_far * Q * Q) * c;
    y[0] = (element)(1 / (P * P * Q * Q)) * a;
    y[1] = near + (element)(of_near * P) * b;
    y[2] = near - (element)(of_near * P) * b;
    y[3] = far + (element)(of_far * Q) * b;
    y[4] = far - (element)(of_far * Q) * b;
    y[5] = c;
}

LINE give_four(__m512 y[OUT], const __m512 x[IN]) {
    const __m512 near = _mm512_add_ps(x[1], x[2]), near_odd = _mm512_sub_ps(x[1], x[2]);
    const __m512 far = _mm512_add_ps(x[3], x[4]), far_odd = _mm512_sub_ps(x[3], x[4]);
    y[0] = _mm512_add_ps(x[0], _mm512_add_ps(near, far));
    y[1] = _mm512_fmadd_ps(VALUE(Q), far_odd, _mm512_mul_ps(VALUE(P), near_odd));
    y[2] = _mm512_fmadd_ps(VALUE(Q * Q), far, _mm512_mul_ps(VALUE(P * P), near));
    y[3] = _mm512_fmadd_ps(VALUE(Q * Q * Q), far_odd, _mm512_fmadd_ps(VALUE(P * P * P), near_odd, x[5]));
}

#if HALVES

LINE see_wide(__m512 y[IN_WIDTH], const __m512 x[IN_WIDTH]) {
    y[0] = _mm512_sub_ps(x[0], x[2]);
    y[1] = _mm512_add_ps(x[1], x[2]);
    y[2] = _mm512_sub_ps(x[2], x[1]);
    y[3] = _mm512_sub_ps(x[3], x[1]);
}

LINE tap_wide(packed y[IN_WIDTH], packed a, packed b, packed c) {
    const packed ends = (element)0.5f * (a + c);
    y[0] = a;
    y[1] = ends + (element)0.5f * b;
    y[2] = ends - (element)0.5f * b;
    y[3] = c;
}

LINE give_wide(__m512 y[OUT_WIDTH], const __m512 x[IN_WIDTH]) {
    y[0] = _mm512_add_ps(x[0], _mm512_add_ps(x[1], x[2]));
    y[1] = _mm512_add_ps(x[3], _mm512_sub_ps(x[1], x[2]));
}

#else

LINE see_wide(__m512 y[IN], const __m512 x[IN]) { see_four(y, x); }
LINE tap_wide(packed y[IN], packed a, packed b, packed c) { tap_four(y, a, b, c); }
LINE give_wide(__m512 y[OUT], const __m512 x[IN]) { give_four(y, x); }

#endif

/* -- Where things lie ----------------------------------------------------------------------------- */

/* From one of the places to the next: a cache lays what is a power of two apart on top of each other. */
static long apart(long words) { return words + LANES; }

static long height_of(sizes s) { return s.height + 2 * s.padding - 2; }
static long width_of(sizes s) { return s.width + 2 * s.padding - 2; }
static long tiles_of(long side, long out) { return (side + out - 1) / out; }

/* A tile's picture, and its first pixel in the result. */
typedef struct { long image, row, column; } place;

static place place_of(sizes s, long tile) {
    const long rows = tiles_of(height_of(s), OUT), columns = tiles_of(width_of(s), OUT_WIDTH);
    return (place){tile / columns / rows, tile / columns % rows * OUT, tile % columns * OUT_WIDTH};
}

/* Channels from k on of a band that was seen: (places, tiles, `step` words). */
static word *stretch_of(word *seen, long k, long tiles, long step) { return seen + k / DEPTH * PLACES * apart(tiles * step); }

/* -- What is done with them ----------------------------------------------------------------------- */

/* Transform one tile of x (B, H, W, C), all channels, and return what scales it back. */
static float see(word *seen, const number *x, sizes s, place at, long tile, long tiles) {
    const number *pixels[PLACES], *image = x + at.image * s.height * s.width * s.channels;
    const long top = at.row - s.padding, left = at.column - s.padding, first = left < 0 ? 0 : left, start = top < 0 ? 0 : top;
    for (int i = 0; i < PLACES; i++) {
        const long row = top + i / IN_WIDTH, column = left + i % IN_WIDTH;
        const bool within = row >= 0 && row < s.height && column >= 0 && column < s.width;
        pixels[i] = within ? image + (row * s.width + column) * s.channels : NULL;
    }
    const long rows = least(s.height, top + IN) - start, columns = least(s.width, left + IN_WIDTH) - first;
    const scale of = scale_to(MOST_PIXEL, greatest(image + (start * s.width + first) * s.channels, rows,
                                                   columns * s.channels, s.width * s.channels));
    const __m512 there = VALUE(of.there);
    const long step = step_of(s.channels);
    for (long k = 0; k < s.channels; k += LANES) {
        word *to = stretch_of(seen, k, tiles, step) + tile * step + k % DEPTH / PER_WORD;
        __m512 half[IN][IN_WIDTH];
#pragma GCC unroll 6
        for (int j = 0; j < IN_WIDTH; j++) {
            __m512 column[IN], y[IN];
#pragma GCC unroll 6
            for (int i = 0; i < IN; i++) {
                const number *pixel = pixels[i * IN_WIDTH + j];
                column[i] = pixel ? _mm512_mul_ps(load(pixel + k), there) : _mm512_setzero_ps();
            }
            see_four(y, column);
#pragma GCC unroll 6
            for (int i = 0; i < IN; i++) half[i][j] = y[i];
        }
#pragma GCC unroll 6
        for (int i = 0; i < IN; i++) {
            __m512 y[IN_WIDTH];
            see_wide(y, half[i]);
#pragma GCC unroll 6
            for (int j = 0; j < IN_WIDTH; j++) store_left(to + (i * IN_WIDTH + j) * apart(tiles * step), y[j]);
        }
    }
    return of.back;
}

/* What scales channels from k on of a kernel, for LANES outputs from `first` on. */
static scales scale_kernel(float *backs, const number *kernel, sizes s, long first, long k, long depth) {
    uint16_t most[LANES];
    if (s.turned) greatest_of_columns(most, kernel + k * TAPS * s.outputs + first, TAPS * depth, s.outputs);
    else
        for (int i = 0; i < LANES; i++)
            most[i] = greatest(kernel + (first + i) * TAPS * s.channels + k, TAPS, depth, s.channels);
    scale of[LANES];
    for (int i = 0; i < LANES; i++) of[i] = scale_to(MOST_TAP, most[i]), backs[i] = of[i].back;
    return scales_of(of);
}

/* Transform a kernel's channels from k on, for N outputs from `first` on, into (places, words, N), and say what scales
 * these outputs back. */
static void transform_kernel(word *to, float *backs, const number *kernel, sizes s, long first, long k, long depth) {
    for (long v = 0; v < N; v += LANES) {
        const scales by = scale_kernel(backs + v, kernel, s, first + v, k, depth);
        for (long c = 0; c < depth; c += LANES * PER_WORD) {
            const long count = least(LANES, (depth - c) / PER_WORD);
            __m512 x[TAPS][LANES];
            for (int tap = 0; tap < TAPS; tap++) {
                const number *rows = kernel + ((first + v) * TAPS + tap) * s.channels + k + c;
                const number *columns = kernel + ((k + c) * TAPS + TAPS - 1 - tap) * s.outputs + first + v;
                const long next = TAPS * s.outputs;
                for (int i = 0; i < LANES && !s.turned; i++) x[tap][i] = load_words(rows + i * TAPS * s.channels, count);
                for (int i = 0; i < count && s.turned; i++, columns += PER_WORD * next)
                    x[tap][i] = load_rows(columns, columns + (PER_WORD - 1) * next);
                if (!s.turned) turn(x[tap]);
            }
            for (long i = 0; i < count; i++) {
                packed half[IN][3];
#pragma GCC unroll 3
                for (int j = 0; j < 3; j++) {
                    packed taps[3], y[IN];
#pragma GCC unroll 3
                    for (int row = 0; row < 3; row++) taps[row] = scaled((__m512i)x[3 * row + j][i], by);
                    tap_four(y, taps[0], taps[1], taps[2]);
#pragma GCC unroll 6
                    for (int row = 0; row < IN; row++) half[row][j] = y[row];
                }
                word *at = to + (c / PER_WORD + i) * N + v;
#pragma GCC unroll 6
                for (int row = 0; row < IN; row++) {
                    packed y[IN_WIDTH];
                    tap_wide(y, half[row][0], half[row][1], half[row][2]);
#pragma GCC unroll 6
                    for (int j = 0; j < IN_WIDTH; j++)
                        store_right(at + (row * IN_WIDTH + j) * apart(depth / PER_WORD * N), y[j]);
                }
            }
        }
    }
}

/* Ask for one part of the next stretch of a kernel, whose rows are too far apart to be foreseen. */
static void ask_ahead(const number *kernel, sizes s, long first, long k, long part) {
    enum { LINE_OF = 64 / sizeof(number), LINES = DEPTH / LINE_OF };
    for (long at = part; at < TAPS * LINES && !s.turned; at += PLACES) {
        const long line = at % LINES * LINE_OF;
        for (long o = first; k + line < s.channels && o < first + N; o++)
            _mm_prefetch(kernel + (o * TAPS + at / LINES) * s.channels + k + line, _MM_HINT_T1);
    }
}

/* Transform the products (places, tiles, N) of one tile back, into N outputs of its pixels; `added` lies as `out`. */
static void give(number *out, const number *bias, const number *added, const float *products, sizes s, place at,
                 float back, long tile, long tiles) {
    const long rows = least(OUT, height_of(s) - at.row), columns = least(OUT_WIDTH, width_of(s) - at.column);
    const long first = ((at.image * height_of(s) + at.row) * width_of(s) + at.column) * s.outputs;
    for (long v = 0; v < N; v += LANES) {
        const __m512 of_output = bias ? load(bias + v) : _mm512_setzero_ps();
        __m512 half[OUT][IN_WIDTH];
#pragma GCC unroll 6
        for (int j = 0; j < IN_WIDTH; j++) {
            __m512 column[IN], y[OUT];
#pragma GCC unroll 6
            for (int i = 0; i < IN; i++)
                column[i] = _mm512_loadu_ps(products + (i * IN_WIDTH + j) * apart(tiles * N) + tile * N + v);
            give_four(y, column);
#pragma GCC unroll 4
            for (int i = 0; i < OUT; i++) half[i][j] = y[i];
        }
        for (long i = 0; i < rows; i++) {
            __m512 y[OUT_WIDTH];
            give_wide(y, half[i]);
            for (long j = 0; j < columns; j++) {
                const long pixel = first + (i * width_of(s) + j) * s.outputs + v;
                const __m512 sum = _mm512_fmadd_ps(y[j], VALUE(back), of_output);
                store(out + pixel, added ? _mm512_add_ps(sum, load(added + pixel)) : sum);
            }
        }
    }
}

/* -- What Python calls ---------------------------------------------------------------------------- */

int ready(void) { return 1; }

/* out (B, H', W', O) = x (B, H, W, C) convolved with a kernel, with zeros around, + added, which lies as `out`, where
 * that is not null; C is a multiple of LANES, O of N. Returns 0, or 1 for want of memory. */
int convolve(number *out, const number *x, const number *kernel, const number *bias, const number *added, sizes s) {
    const long all = s.images * tiles_of(height_of(s), OUT) * tiles_of(width_of(s), OUT_WIDTH), panels = s.outputs / N;
    const long fitting = least(MOST_TILES, MOST_SEEN * PER_WORD / (PLACES * s.channels) + 1);
    const long bands = (all + fitting - 1) / fitting, most = (all + bands - 1) / bands;
    /* Where there are more threads than panels, some tiles of a band each. */
    const long parts = least(most, (2 * s.threads + panels - 1) / panels);
    const long stretches = (s.channels + DEPTH - 1) / DEPTH, step = step_of(s.channels);
    float *tile_backs = room((up(most, LANES) * sizeof(float) + stretches * PLACES * apart(most * step) * sizeof(word)));
    word *seen = (word *)(tile_backs + up(most, LANES));
    int failed = !tile_backs;
#pragma omp parallel num_threads(s.threads) reduction(| : failed)
    {
        float *products = room(PLACES * (apart(most * N) * sizeof(float) + apart(step * N) * sizeof(word)));
        word *laid = (word *)(products + PLACES * apart(most * N));
        failed |= !products;
        for (long band = 0; band < bands && tile_backs; band++) {
            const long start = all * band / bands, tiles = all * (band + 1) / bands - start;
#pragma omp for schedule(dynamic, 4)
            for (long t = 0; t < tiles; t++) tile_backs[t] = see(seen, x, s, place_of(s, start + t), t, tiles);
#pragma omp for schedule(dynamic)
            for (long task = 0; task < panels * parts; task++) {
                if (!products) continue;
                const long first = task / parts * N, part = task % parts;
                const long from = tiles * part / parts, count = tiles * (part + 1) / parts - from;
                for (long k = 0; k < s.channels; k += DEPTH) {
                    const long depth = least(DEPTH, s.channels - k), words = depth / PER_WORD;
                    float backs[N];
                    transform_kernel(laid, backs, kernel, s, first, k, depth);
                    for (long p = 0; p < PLACES; p++) {
                        ask_ahead(kernel, s, first, k + DEPTH, p);
                        const word *rows = stretch_of(seen, k, tiles, step) + p * apart(tiles * step) + from * step;
                        multiply(products + p * apart(count * N), count, rows, step, words, laid + p * apart(words * N), backs, k);
                    }
                }
                for (long t = 0; t < count; t++)
                    give(out + first, bias ? bias + first : NULL, added ? added + first : NULL, products, s,
                         place_of(s, start + from + t), tile_backs[from + t], t, count);
            }
        }
        free(products);
    }
    free(tile_backs);
    return failed;
}
