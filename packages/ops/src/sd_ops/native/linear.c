/* Linear layers in float32 sums: out = x kernel^T + bias.
 *
 * Compiled for this processor by `sd_ops.native`, for bfloat16 on processors whose products of pairs are slower
 * than float32's: numbers are read and rounded at the ends alone. Some outputs' kernels at a time are turned to
 * panels, by all threads; then each thread takes some rows of x through them. */
#include "products.h"

/* Channels of a row that are multiplied at once; rows of a block at most; numbers of a kernel that are turned. */
enum { DEPTH = 320, MOST_ROWS = 112, MOST_TURNED = 1 << 20 };

typedef struct { long rows, depth, outputs, threads; } sizes;

/* Channels `from` to `until` of N rows of a kernel (O, C) as (C, N). */
static void turn_panel(float *to, const number *kernel, long depth, long from, long until) {
    for (long k = from; k < until; k += LANES)
        for (long v = 0; v < N; v += LANES) {
            __m512 columns[LANES];
            for (int i = 0; i < LANES; i++) columns[i] = load(kernel + (v + i) * depth + k);
            turn(columns);
            for (int i = 0; i < LANES; i++) _mm512_storeu_ps(to + (k + i) * N + v, columns[i]);
        }
}

/* sums (panels, rows, N) = x (rows, C) times some turned panels (panels, C, N); `room` is for (rows, DEPTH). */
static void multiply_block(float *sums, float *room, const number *x, long rows, const float *turned, long panels,
                           sizes s) {
    for (long k = 0; k < s.depth; k += DEPTH) {
        const long depth = least(DEPTH, s.depth - k);
        for (long r = 0; r < rows; r++)
            for (long c = 0; c < depth; c += LANES) _mm512_storeu_ps(room + r * depth + c, load(x + r * s.depth + k + c));
        for (long panel = 0; panel < panels; panel++)
            multiply(sums + panel * rows * N, rows, room, depth, turned + (panel * s.depth + k) * N, k);
    }
}

int ready(void) { return 1; }

/* out (M, O) = x (M, C) kernel (O, C)^T + bias, where C is a multiple of LANES and O of N. Returns 0, or 1 for want
 * of memory. */
int linear(number *out, const number *x, const number *kernel, const number *bias, sizes s) {
    const long panels = s.outputs / N, fitting = least(panels, MOST_TURNED / (N * s.depth) + 1);
    const long groups = (panels + fitting - 1) / fitting, steps = (s.depth + DEPTH - 1) / DEPTH;
    const long blocks = least(s.rows, up((s.rows + MOST_ROWS - 1) / MOST_ROWS, s.threads));
    const long most = (s.rows + blocks - 1) / blocks;
    float *turned = room(fitting * s.depth * N * sizeof(float));
    int failed = !turned;
#pragma omp parallel num_threads(s.threads) reduction(| : failed)
    {
        float *rows = room(most * (DEPTH + fitting * N) * sizeof(float)), *sums = rows + most * DEPTH;
        failed |= !rows;
        for (long group = 0; group < groups && turned; group++) {
            const long first = panels * group / groups, count = panels * (group + 1) / groups - first;
#pragma omp for schedule(dynamic)
            for (long task = 0; task < count * steps; task++) {
                const long panel = task / steps, k = task % steps * DEPTH;
                turn_panel(turned + panel * s.depth * N, kernel + (first + panel) * N * s.depth, s.depth, k,
                           least(s.depth, k + DEPTH));
            }
#pragma omp for schedule(dynamic)
            for (long block = 0; block < blocks; block++) {
                if (!rows) continue;
                const long start = s.rows * block / blocks, height = s.rows * (block + 1) / blocks - start;
                multiply_block(sums, rows, x + start * s.depth, height, turned, count, s);
                for (long r = 0; r < height; r++)
                    for (long o = 0; o < count * N; o += LANES) {
                        const long column = first * N + o;
                        const __m512 sum = _mm512_loadu_ps(sums + (o / N * height + r) * N + o % N);
                        store(out + (start + r) * s.outputs + column, bias ? _mm512_add_ps(sum, load(bias + column)) : sum);
                    }
            }
        }
        free(rows);
    }
    free(turned);
    return failed;
}
