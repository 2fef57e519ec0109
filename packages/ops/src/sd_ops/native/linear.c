/* Linear layers: out = x kernel^T + bias, where `products.h` says how sums are taken.
 *
 * Compiled for this processor by `sd_ops.native`, for bfloat16 on processors whose products of pairs are slower
 * than float32's: numbers are read and rounded at the ends alone. Some outputs' kernels at a time are turned to
 * panels, by all threads; then each thread takes some rows of x through them. In float16 each row of x is scaled,
 * and of each output the DEPTH channels that are multiplied at once. */
#include "products.h"

/* Channels that are multiplied at once; rows of a block at most, and their numbers; numbers of a kernel that are
 * turned. */
enum { DEPTH = 320, MOST_ROWS = 8 * ROWS, MOST_LAID = 1 << 19, MOST_TURNED = 1 << 20 };

typedef struct { long rows, depth, outputs, threads; } sizes;

/* N rows of a kernel (O, C) as (C words, N), and what scales back the rows' channels of each step, (steps, N). */
static void turn_panel(word *to, float *backs, const number *kernel, long depth) {
    /* Row by row, as memory is read best. */
    for (long v = 0; v < N; v++)
        for (long start = 0; start < depth; start += DEPTH) {
            const uint16_t most = greatest(kernel + v * depth + start, least(DEPTH, depth - start), 0);
            backs[start / DEPTH * N + v] = scale_to(MOST_RIGHT, most).back;
        }
    for (long v = 0; v < N; v += LANES)
        for (long start = 0; start < depth; start += DEPTH) {
            const __m512 there = _mm512_div_ps(_mm512_set1_ps(1), _mm512_loadu_ps(backs + start / DEPTH * N + v));
            for (long k = start; k < least(start + DEPTH, depth); k += LANES * PER_WORD) {
                const long count = least(LANES, (depth - k) / PER_WORD);
                __m512 x[LANES];
                for (int i = 0; i < LANES; i++) x[i] = load_words(kernel + (v + i) * depth + k, count);
                turn(x);
                for (long i = 0; i < count; i++)
                    store_right(to + (k / PER_WORD + i) * N + v, _mm512_mul_ps(channel_of(x[i], 0), there),
                                _mm512_mul_ps(channel_of(x[i], PER_WORD - 1), there));
            }
        }
}

/* Lay out some rows of x (rows, C) as (steps, rows, DEPTH), and say what scales them back. */
static void lay_rows(word *to, float *backs, const number *x, long rows, long depth) {
    for (long r = 0; r < rows; r++, x += depth) {
        for (long k = 0; k < depth; k += 64 / sizeof(number)) _mm_prefetch(x + depth + k, _MM_HINT_T0); /* the next row */
        const scale of = scale_to(MOST_LEFT, greatest(x, depth, 0));
        const __m512 there = _mm512_set1_ps(of.there);
        backs[r] = of.back;
        for (long start = 0; start < depth; start += DEPTH) {
            const long width = least(DEPTH, depth - start);
            word *row = to + (start * rows + r * width) / PER_WORD;
            for (long k = 0; k < width; k += LANES)
                store_left(row + k / PER_WORD, _mm512_mul_ps(load(x + start + k), there));
        }
    }
}

/* Give some rows of N outputs, scaled back. */
static void give(number *out, const number *bias, const float *sums, const float *backs, long rows, long outputs) {
    for (long v = 0; v < N; v += LANES) {
        const __m512 added = bias ? load(bias + v) : _mm512_setzero_ps();
        for (long r = 0; r < rows; r++) {
            const __m512 sum = _mm512_loadu_ps(sums + r * N + v);
            store(out + r * outputs + v, _mm512_fmadd_ps(sum, _mm512_set1_ps(backs[r]), added));
        }
    }
}

int ready(void) { return 1; }

/* out (M, O) = x (M, C) kernel (O, C)^T + bias, where C is a multiple of LANES and O of N. Returns 0, or 1 for want
 * of memory. */
int linear(number *out, const number *x, const number *kernel, const number *bias, sizes s) {
    const long panels = s.outputs / N, words = s.depth / PER_WORD;
    const long fitting = least(panels, MOST_TURNED / (N * s.depth) + 1), groups = (panels + fitting - 1) / fitting;
    const long steps = (s.depth + DEPTH - 1) / DEPTH, step_words = DEPTH / PER_WORD;
    const long height = least(MOST_ROWS, up(MOST_LAID / s.depth + 1, ROWS));
    const long blocks = least(s.rows, up((s.rows + height - 1) / height, s.threads));
    const long most = (s.rows + blocks - 1) / blocks;
    float *column_backs = room(fitting * N * (steps * sizeof(float) + words * sizeof(word)));
    word *turned = (word *)(column_backs + fitting * steps * N);
    int failed = !column_backs;
#pragma omp parallel num_threads(s.threads) reduction(| : failed)
    {
        float *sums = room(most * (N * sizeof(float) + words * sizeof(word) + sizeof(float)));
        word *laid = (word *)(sums + most * N);
        float *row_backs = (float *)(laid + most * words);
        failed |= !sums;
        for (long group = 0; group < groups && column_backs; group++) {
            const long first = panels * group / groups, count = panels * (group + 1) / groups - first;
#pragma omp for schedule(dynamic)
            for (long panel = 0; panel < count; panel++)
                turn_panel(turned + panel * words * N, column_backs + panel * steps * N,
                           kernel + (first + panel) * N * s.depth, s.depth);
#pragma omp for schedule(dynamic)
            for (long block = 0; block < blocks; block++) {
                if (!sums) continue;
                const long start = s.rows * block / blocks, rows = s.rows * (block + 1) / blocks - start;
                lay_rows(laid, row_backs, x + start * s.depth, rows, s.depth);
                for (long panel = 0; panel < count; panel++) {
                    const long column = (first + panel) * N;
                    for (long step = 0; step < steps; step++) {
                        const long at = step * step_words;
                        multiply(sums, rows, laid + at * rows, least(step_words, words - at),
                                 turned + (panel * words + at) * N, column_backs + (panel * steps + step) * N, step);
                    }
                    give(out + start * s.outputs + column, bias ? bias + column : NULL, sums, row_backs, rows, s.outputs);
                }
            }
        }
        free(sums);
    }
    free(column_backs);
    return failed;
}
