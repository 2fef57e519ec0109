/* Linear layers in float32 sums: out = x kernel^T + bias. */
#include "products.h"

#ifndef DEPTH_
#define DEPTH_ 320
#endif
#ifndef MOST_
#define MOST_ 112
#endif
#ifndef PACKED_
#define PACKED_ 1048576
#endif
enum { DEPTH = DEPTH_, MOST = MOST_, PACKED = PACKED_ };

typedef struct { long rows, depth, outputs, threads; } sizes;

/* N rows of a kernel (O, C) as (C, N). */
static void turn_panel(float *to, const number *kernel, long depth, long from, long until) {
    for (long k = from; k < until; k += LANES)
        for (long v = 0; v < N; v += LANES) {
            __m512 turned[LANES];
            turn(turned, kernel + v * depth + k, depth);
            for (int i = 0; i < LANES; i++) _mm512_storeu_ps(to + (k + i) * N + v, turned[i]);
        }
}

/* out (M, O) = x (M, C) kernel (O, C)^T + bias, where C is whole vectors and O whole panels. */
int linear(number *out, const number *x, const number *kernel, const number *bias, sizes s) {
    const long panels = s.outputs / N, at_once = least(panels, PACKED / (N * s.depth) > 0 ? PACKED / (N * s.depth) : 1);
    const long groups = (panels + at_once - 1) / at_once;
    const long per_thread = up((s.rows + MOST - 1) / MOST, s.threads), blocks = least(per_thread, s.rows);
    const long steps = (s.depth + DEPTH - 1) / DEPTH, most = (s.rows + blocks - 1) / blocks;
    float *packed = room(at_once * s.depth * N * sizeof(float));
    int failed = !packed;
#pragma omp parallel num_threads(s.threads) reduction(| : failed)
    {
        float *rows = room((most * (DEPTH + LANES) + most * at_once * N) * sizeof(float)), *sums = rows + most * (DEPTH + LANES);
        failed |= !rows;
        for (long group = 0; group < groups && packed; group++) {
            const long first = panels * group / groups, count = panels * (group + 1) / groups - first;
#pragma omp for schedule(dynamic) collapse(2)
            for (long panel = 0; panel < count; panel++)
                for (long step = 0; step < steps; step++)
                    turn_panel(packed + panel * s.depth * N, kernel + (first + panel) * N * s.depth, s.depth,
                               step * DEPTH, least(s.depth, step * DEPTH + DEPTH));
#pragma omp for schedule(dynamic)
            for (long block = 0; block < blocks; block++) {
                if (!rows) continue;
                const long start = s.rows * block / blocks, number_of = s.rows * (block + 1) / blocks - start;
                for (long k = 0; k < s.depth; k += DEPTH) {
                    const long depth = least(DEPTH, s.depth - k);
                    for (long r = 0; r < number_of; r++)
                        for (long c = 0; c < depth; c += LANES)
                            _mm512_storeu_ps(rows + r * depth + c, load(x + (start + r) * s.depth + k + c));
                    for (long panel = 0; panel < count; panel++)
                        multiply(sums + panel * number_of * N, number_of, rows, depth, depth,
                                 packed + (panel * s.depth + k) * N, k);
                }
                for (long r = 0; r < number_of; r++)
                    for (long o = 0; o < count * N; o += LANES) {
                        const long column = first * N + o;
                        __m512 sum = _mm512_loadu_ps(sums + (o / N * number_of + r) * N + o % N);
                        if (bias) sum = _mm512_add_ps(sum, load(bias + column));
                        store(out + (start + r) * s.outputs + column, sum);
                    }
            }
        }
        free(rows);
    }
    free(packed);
    return failed;
}

int ready(void) { return 1; }
