/* 3x3 convolutions with a quarter of the multiplications, in float32 sums (Lavin and Gray 2015, arXiv:1509.09308,
 * section 4.3): F(4x4, 3x3), tiles of 6 x 6 that give 4 x 4 each. The polynomials' points are 0, 1, -1, 2, -2 and
 * infinity.
 *
 * Compiled for this processor by `sd_ops.native`. A band of tiles is transformed at once; then each thread takes
 * N outputs for itself, a stretch of DEPTH channels after the other: their kernels are transformed into its nearest
 * cache, multiplied with the band, and forgotten. Bfloat16 is read and rounded at the ends alone. */
#include "products.h"

enum { OUT = 4, IN = 6, PLACES = IN * IN, TAPS = 9, DEPTH = 64 };
/* Tiles of a band, and numbers that they are transformed to: more would not make the kernel's share smaller. */
enum { MOST_TILES = 128, MOST_SEEN = 3 << 20 };

/* `turned`: the kernel is (C, 3, 3, O) in place of (O, 3, 3, C), and turned by 180 degrees. */
typedef struct { long images, height, width, channels, outputs, padding, turned, threads; } sizes;

/* -- Transforms of one dimension ------------------------------------------------------------------ */

static inline __attribute__((always_inline)) void transform_seen(__m512 y[IN], const __m512 x[IN]) {
    const __m512 two = _mm512_set1_ps(2), four = _mm512_set1_ps(4), five = _mm512_set1_ps(5);
    const __m512 even = _mm512_fnmadd_ps(four, x[2], x[4]), odd = _mm512_fnmadd_ps(four, x[1], x[3]);
    const __m512 far = _mm512_sub_ps(x[4], x[2]), far_odd = _mm512_sub_ps(x[3], x[1]);
    y[0] = _mm512_fmadd_ps(four, x[0], _mm512_fnmadd_ps(five, x[2], x[4]));
    y[1] = _mm512_add_ps(even, odd);
    y[2] = _mm512_sub_ps(even, odd);
    y[3] = _mm512_fmadd_ps(two, far_odd, far);
    y[4] = _mm512_fnmadd_ps(two, far_odd, far);
    y[5] = _mm512_fmadd_ps(four, x[1], _mm512_fnmadd_ps(five, x[3], x[5]));
}

static inline __attribute__((always_inline)) void transform_taps(__m512 y[IN], __m512 a, __m512 b, __m512 c) {
    const __m512 less = _mm512_set1_ps(-1.0f / 6), sixth = _mm512_set1_ps(1.0f / 6);
    const __m512 ends = _mm512_mul_ps(less, _mm512_add_ps(a, c)), middle = _mm512_mul_ps(less, b);
    const __m512 twelfth = _mm512_set1_ps(1.0f / 12);
    const __m512 far = _mm512_fmadd_ps(_mm512_set1_ps(1.0f / 24), a, _mm512_mul_ps(sixth, c));
    y[0] = _mm512_mul_ps(_mm512_set1_ps(0.25f), a);
    y[1] = _mm512_add_ps(ends, middle);
    y[2] = _mm512_sub_ps(ends, middle);
    y[3] = _mm512_fmadd_ps(twelfth, b, far);
    y[4] = _mm512_fnmadd_ps(twelfth, b, far);
    y[5] = c;
}

static inline __attribute__((always_inline)) void transform_back(__m512 y[OUT], const __m512 x[IN]) {
    const __m512 two = _mm512_set1_ps(2), four = _mm512_set1_ps(4), eight = _mm512_set1_ps(8);
    const __m512 near = _mm512_add_ps(x[1], x[2]), near_odd = _mm512_sub_ps(x[1], x[2]);
    const __m512 far = _mm512_add_ps(x[3], x[4]), far_odd = _mm512_sub_ps(x[3], x[4]);
    y[0] = _mm512_add_ps(x[0], _mm512_add_ps(near, far));
    y[1] = _mm512_fmadd_ps(two, far_odd, near_odd);
    y[2] = _mm512_fmadd_ps(four, far, near);
    y[3] = _mm512_add_ps(x[5], _mm512_fmadd_ps(eight, far_odd, near_odd));
}

/* -- Where things lie ----------------------------------------------------------------------------- */

/* From one of the 36 places to the next: a cache lays what is a power of two apart on top of each other. */
static long apart(long numbers) { return numbers + LANES; }

static long height_of(sizes s) { return s.height + 2 * s.padding - 2; }
static long width_of(sizes s) { return s.width + 2 * s.padding - 2; }
static long tiles_of(long side) { return (side + OUT - 1) / OUT; }

/* A tile's picture, and its first pixel in the result. */
typedef struct { long image, row, column; } place;

static place place_of(sizes s, long tile) {
    const long rows = tiles_of(height_of(s)), columns = tiles_of(width_of(s));
    return (place){tile / columns / rows, tile / columns % rows * OUT, tile % columns * OUT};
}

/* Channels from k on of a band that was seen: (36, tiles, depth). */
static float *stretch_of(float *seen, long k, long tiles) { return seen + k / DEPTH * PLACES * apart(tiles * DEPTH); }

/* -- What is done with them ----------------------------------------------------------------------- */

/* Transform one tile of x (B, H, W, C), all channels. */
static void see(float *seen, const number *x, sizes s, place at, long tile, long tiles) {
    const number *pixels[PLACES], *image = x + at.image * s.height * s.width * s.channels;
    for (int i = 0; i < PLACES; i++) {
        const long row = at.row + i / IN - s.padding, column = at.column + i % IN - s.padding;
        const bool within = row >= 0 && row < s.height && column >= 0 && column < s.width;
        pixels[i] = within ? image + (row * s.width + column) * s.channels : NULL;
    }
    for (long k = 0; k < s.channels; k += LANES) {
        const long depth = least(DEPTH, s.channels - k / DEPTH * DEPTH);
        float *to = stretch_of(seen, k, tiles) + tile * depth + k % DEPTH;
        __m512 half[IN][IN];
#pragma GCC unroll 6
        for (int j = 0; j < IN; j++) {
            __m512 column[IN], y[IN];
#pragma GCC unroll 6
            for (int i = 0; i < IN; i++)
                column[i] = pixels[i * IN + j] ? load(pixels[i * IN + j] + k) : _mm512_setzero_ps();
            transform_seen(y, column);
#pragma GCC unroll 6
            for (int i = 0; i < IN; i++) half[i][j] = y[i];
        }
#pragma GCC unroll 6
        for (int i = 0; i < IN; i++) {
            __m512 y[IN];
            transform_seen(y, half[i]);
#pragma GCC unroll 6
            for (int j = 0; j < IN; j++) _mm512_storeu_ps(to + (i * IN + j) * apart(tiles * depth), y[j]);
        }
    }
}

/* One channel's nine taps for 16 outputs, to its 36 places. */
static inline __attribute__((always_inline)) void transform_nine(float *to, const __m512 taps[TAPS], long depth) {
    __m512 half[IN][3];
#pragma GCC unroll 3
    for (int j = 0; j < 3; j++) {
        __m512 y[IN];
        transform_taps(y, taps[j], taps[3 + j], taps[6 + j]);
#pragma GCC unroll 6
        for (int i = 0; i < IN; i++) half[i][j] = y[i];
    }
#pragma GCC unroll 6
    for (int i = 0; i < IN; i++) {
        __m512 y[IN];
        transform_taps(y, half[i][0], half[i][1], half[i][2]);
#pragma GCC unroll 6
        for (int j = 0; j < IN; j++) _mm512_storeu_ps(to + (i * IN + j) * apart(depth * N), y[j]);
    }
}

/* Transform a kernel's channels from k on, for N outputs from `first` on, into (36, depth, N). */
static void transform_kernel(float *to, const number *kernel, sizes s, long first, long k, long depth) {
    for (long v = 0; v < N; v += LANES)
        for (long c = 0; c < depth; c += LANES) {
            __m512 taps[LANES][TAPS];
            for (int tap = 0; tap < TAPS; tap++) {
                __m512 columns[LANES];
                for (int i = 0; i < LANES; i++)
                    columns[i] = load(s.turned ? kernel + ((k + c + i) * TAPS + TAPS - 1 - tap) * s.outputs + first + v
                                               : kernel + ((first + v + i) * TAPS + tap) * s.channels + k + c);
                if (!s.turned) turn(columns);
                for (int i = 0; i < LANES; i++) taps[i][tap] = columns[i];
            }
            for (int i = 0; i < LANES; i++) transform_nine(to + (c + i) * N + v, taps[i], depth);
        }
}

/* Ask for one part of 36 of the next stretch of a kernel, whose rows are too far apart to be foreseen. */
static void ask_ahead(const number *kernel, sizes s, long first, long k, long part) {
    const long line = part % OUT * LANES;
    if (k + line >= s.channels || s.turned) return;
    for (long o = first; o < first + N; o++)
        _mm_prefetch(kernel + (o * TAPS + part / OUT) * s.channels + k + line, _MM_HINT_T1);
}

/* Transform the products (36, tiles, N) of one tile back, into N outputs of its pixels. */
static void give(number *out, const number *bias, const float *products, sizes s, place at, long tile, long tiles) {
    const long rows = least(OUT, height_of(s) - at.row), columns = least(OUT, width_of(s) - at.column);
    number *to = out + ((at.image * height_of(s) + at.row) * width_of(s) + at.column) * s.outputs;
    for (long v = 0; v < N; v += LANES) {
        const __m512 added = bias ? load(bias + v) : _mm512_setzero_ps();
        __m512 half[OUT][IN];
#pragma GCC unroll 6
        for (int j = 0; j < IN; j++) {
            __m512 column[IN], y[OUT];
#pragma GCC unroll 6
            for (int i = 0; i < IN; i++)
                column[i] = _mm512_loadu_ps(products + (i * IN + j) * apart(tiles * N) + tile * N + v);
            transform_back(y, column);
#pragma GCC unroll 4
            for (int i = 0; i < OUT; i++) half[i][j] = y[i];
        }
        for (long i = 0; i < rows; i++) {
            __m512 y[OUT];
            transform_back(y, half[i]);
            for (long j = 0; j < columns; j++)
                store(to + (i * width_of(s) + j) * s.outputs + v, _mm512_add_ps(y[j], added));
        }
    }
}

/* -- What Python calls ---------------------------------------------------------------------------- */

int ready(void) { return 1; }

/* out (B, H', W', O) = x (B, H, W, C) convolved with a kernel, with zeros around; C is a multiple of LANES, O of N.
 * Returns 0, or 1 for want of memory. */
int convolve(number *out, const number *x, const number *kernel, const number *bias, sizes s) {
    const long all = s.images * tiles_of(height_of(s)) * tiles_of(width_of(s)), panels = s.outputs / N;
    const long fitting = least(MOST_TILES, MOST_SEEN / (PLACES * s.channels) + 1);
    const long bands = (all + fitting - 1) / fitting, most = (all + bands - 1) / bands;
    /* Where there are more threads than panels, some tiles of a band each. */
    const long parts = least(most, (2 * s.threads + panels - 1) / panels);
    float *seen = room((s.channels + DEPTH - 1) / DEPTH * PLACES * apart(most * DEPTH) * sizeof(float));
    int failed = !seen;
#pragma omp parallel num_threads(s.threads) reduction(| : failed)
    {
        float *laid = room(PLACES * (apart(DEPTH * N) + apart(most * N)) * sizeof(float));
        float *products = laid + PLACES * apart(DEPTH * N);
        failed |= !laid;
        for (long band = 0; band < bands && seen; band++) {
            const long start = all * band / bands, tiles = all * (band + 1) / bands - start;
#pragma omp for schedule(dynamic, 4)
            for (long t = 0; t < tiles; t++) see(seen, x, s, place_of(s, start + t), t, tiles);
#pragma omp for schedule(dynamic)
            for (long task = 0; task < panels * parts; task++) {
                if (!laid) continue;
                const long first = task / parts * N, part = task % parts;
                const long from = tiles * part / parts, count = tiles * (part + 1) / parts - from;
                for (long k = 0; k < s.channels; k += DEPTH) {
                    const long depth = least(DEPTH, s.channels - k);
                    transform_kernel(laid, kernel, s, first, k, depth);
                    for (long p = 0; p < PLACES; p++) {
                        ask_ahead(kernel, s, first, k + DEPTH, p);
                        const float *rows = stretch_of(seen, k, tiles) + p * apart(tiles * depth) + from * depth;
                        multiply(products + p * apart(count * N), count, rows, depth, laid + p * apart(depth * N), k);
                    }
                }
                for (long t = 0; t < count; t++)
                    give(out + first, bias ? bias + first : NULL, products, s, place_of(s, start + from + t), t, count);
            }
        }
        free(laid);
    }
    free(seen);
    return failed;
}
