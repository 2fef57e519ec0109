/* Linear layers: out = x kernel^T + bias, where `products.h` says how sums are taken.
 *
 * Compiled for this processor by `sd_ops.native`, for bfloat16 on processors whose products of pairs are slower
 * than float32's: numbers are read and rounded at the ends alone. Some outputs' kernels at a time are turned to
 * panels, by all threads; then each thread takes some rows of x through them. In float16 each row of x is scaled,
 * and of each output the DEPTH channels that are multiplied at once. */
#define DEPTH 320
#define CHAIN 32 /* an error of 10e-4, as no transform makes it larger */
#include "gelu.h"
#include "products.h"

/* Rows of a block at most, and their numbers; words of a kernel that are turned. */
enum { MOST_ROWS = 8 * ROWS, MOST_LAID = 1 << 19, MOST_TURNED = 1 << 20 };

/* `gated`: the kernel has twice as many outputs, of which the second half gates the first; `turned`: it is (C, O) in
 * place of (O, C). */
typedef struct { long rows, depth, outputs, gated, turned, threads; } sizes;

/* N outputs of a kernel, from `first` on, as (C words, N), and what scales back the outputs' channels of each step,
 * (steps, N). */
static void turn_panel(word *to, float *backs, const number *kernel, long first, sizes s) {
    const long all = s.gated ? 2 * s.outputs : s.outputs;
    for (long v = 0; v < N; v += LANES) {
        const number *rows = kernel + (first + v) * s.depth, *columns = kernel + first + v;
        for (long start = 0; start < s.depth; start += DEPTH) {
            const long until = least(start + DEPTH, s.depth);
            uint16_t most[LANES];
            scale of[LANES];
            if (s.turned) greatest_of_columns(most, columns + start * all, until - start, all);
            for (int i = 0; i < LANES; i++) {
                if (!s.turned) most[i] = greatest(rows + i * s.depth + start, 1, until - start, 0);
                of[i] = scale_to(MOST_RIGHT, most[i]);
                backs[start / DEPTH * N + v + i] = of[i].back;
            }
            const scales by = scales_of(of);
            for (long k = start; k < until; k += LANES * PER_WORD) {
                const long count = least(LANES, (until - k) / PER_WORD);
                __m512 x[LANES];
                if (s.turned)
                    for (long i = 0; i < count; i++) {
                        const number *channel = columns + (k + i * PER_WORD) * all;
                        x[i] = load_rows(channel, channel + (PER_WORD - 1) * all);
                    }
                else {
                    for (int i = 0; i < LANES; i++) {
                        _mm_prefetch(rows + (LANES + i) * s.depth + k, _MM_HINT_T1); /* the next ones, or another panel's */
                        x[i] = load_words(rows + i * s.depth + k, count);
                    }
                    turn(x);
                }
                for (long i = 0; i < count; i++) store_right(to + (k / PER_WORD + i) * N + v, scaled((__m512i)x[i], by));
            }
        }
    }
}

/* Lay out some rows of x (rows, C) as (steps, rows, `step` words), and say what scales them back. */
static void lay_rows(word *to, float *backs, const number *x, long rows, long depth) {
    const long step = step_of(depth);
    for (long r = 0; r < rows; r++, x += depth) {
        const char *next = (const char *)(x + depth);
        for (long at = 0; at < depth * (long)sizeof(number); at += 64) _mm_prefetch(next + at, _MM_HINT_T0);
        const scale of = scale_to(MOST_LEFT, greatest(x, 1, depth, 0));
        backs[r] = of.back;
        for (long start = 0; start < depth; start += DEPTH) {
            const long width = least(DEPTH, depth - start);
            word *row = to + (start / DEPTH * rows + r) * step;
            for (long k = 0; k < width; k += LANES * PER_WORD) {
                const long count = least(LANES, (width - k) / PER_WORD);
                _mm512_mask_storeu_ps(row + k / PER_WORD, (__mmask16)((1u << count) - 1),
                                      load_factors(x + start + k, count, of));
            }
        }
    }
}

/* What the rows of N outputs are made of, beside their sums: what scales rows back, and what is added. */
typedef struct { const float *backs; const number *bias, *gate_bias, *added; } finish;

static inline __m512 finished(const float *sums, float back, const number *bias) {
    return _mm512_fmadd_ps(_mm512_loadu_ps(sums), _mm512_set1_ps(back), bias ? load(bias) : _mm512_setzero_ps());
}

/* Give some rows of N outputs, for which sums are (rows, N), and where they are gated those of gates behind. */
static void give(number *out, const float *sums, finish of, long rows, sizes s) {
    for (long r = 0; r < rows; r++, sums += N, out += s.outputs, of.added += of.added ? s.outputs : 0)
        for (long v = 0; v < N; v += LANES) {
            __m512 y = finished(sums + v, of.backs[r], of.bias ? of.bias + v : NULL);
            if (s.gated)
                y = gated(y, finished(sums + rows * N + v, of.backs[r], of.gate_bias ? of.gate_bias + v : NULL));
            if (of.added) y = _mm512_add_ps(y, load(of.added + v));
            store(out + v, y);
        }
}

int ready(void) { return 1; }

/* out (M, O) = x (M, C) kernel^T + bias, or gated; and + added (M, O), where that is not null. C is a multiple
 * of LANES and O of N. Returns 0, or 1 for want of memory. */
int linear(number *out, const number *x, const number *kernel, const number *bias, const number *added, sizes s) {
    const long panels = s.outputs / N, words = s.depth / PER_WORD, twice = s.gated ? 2 : 1;
    const long fitting = least(panels, MOST_TURNED * PER_WORD / (twice * N * s.depth) + 1);
    const long groups = (panels + fitting - 1) / fitting;
    const long steps = (s.depth + DEPTH - 1) / DEPTH, step_words = step_of(s.depth);
    const long height = least(MOST_ROWS, up(MOST_LAID / s.depth + 1, ROWS));
    const long blocks = least(s.rows, up((s.rows + height - 1) / height, s.threads));
    const long most = (s.rows + blocks - 1) / blocks;
    float *column_backs = room(fitting * twice * N * (steps * sizeof(float) + words * sizeof(word)));
    word *turned = (word *)(column_backs + fitting * twice * steps * N);
    int failed = !column_backs;
#pragma omp parallel num_threads(s.threads) reduction(| : failed)
    {
        float *sums = room(most * (twice * N * sizeof(float) + steps * step_words * sizeof(word) + sizeof(float)));
        word *laid = (word *)(sums + most * twice * N);
        float *row_backs = (float *)(laid + most * steps * step_words);
        failed |= !sums;
        for (long group = 0; group < groups && column_backs; group++) {
            const long first = panels * group / groups, count = panels * (group + 1) / groups - first;
#pragma omp for schedule(dynamic)
            for (long task = 0; task < count * twice; task++) {
                const long output = (first + task / twice) * N + task % twice * s.outputs;
                turn_panel(turned + task * words * N, column_backs + task * steps * N, kernel, output, s);
            }
#pragma omp for schedule(dynamic)
            for (long block = 0; block < blocks; block++) {
                if (!sums) continue;
                const long start = s.rows * block / blocks, rows = s.rows * (block + 1) / blocks - start;
                lay_rows(laid, row_backs, x + start * s.depth, rows, s.depth);
                for (long panel = 0; panel < count; panel++) {
                    for (long task = panel * twice; task < (panel + 1) * twice; task++)
                        for (long step = 0; step < steps; step++) {
                            const long at = step * step_words;
                            multiply(sums + task % twice * rows * N, rows, laid + at * rows, step_words,
                                     least(step_words, words - at),
                                     turned + (task * words + at) * N, column_backs + (task * steps + step) * N, step);
                        }
                    const long column = (first + panel) * N, place = start * s.outputs + column;
                    const finish of = {.backs = row_backs,
                                       .bias = bias ? bias + column : NULL,
                                       .gate_bias = bias ? bias + s.outputs + column : NULL,
                                       .added = added ? added + place : NULL};
                    give(out + place, sums, of, rows, s);
                }
            }
        }
        free(sums);
    }
    free(column_backs);
    return failed;
}
