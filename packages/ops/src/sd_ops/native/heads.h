/* Heads of attention: how Python hands them over, and how results go back. */
#pragma once
#include "numbers.h"

/* One of q, k, v, out and their gradients, (B, H, T, D) with strides in numbers; D's is one. */
typedef struct { number *from; long batch, head, row; } tensor;
typedef struct { long batch, heads, num_queries, num_keys, width, threads; float scale; } sizes;

static number *of_head(tensor t, sizes s, long i) { return t.from + i / s.heads * t.batch + i % s.heads * t.head; }

/* Parts of each head, so that no thread is long without one: a part lays out its head's keys anew. */
static long parts_of(sizes s, long blocks) {
    const long heads = s.batch * s.heads;
    return least(blocks, (4 * s.threads + heads - 1) / heads);
}

/* Columns of (width, vectors * LANES), each times its factor, as rows. */
static void give_rows(number *to, long stride, long rows, const float *from, long width, const __m512 *factors,
                      int vectors) {
    for (int v = 0; v < vectors; v++)
        for (long d = 0; d < width; d += LANES) {
            const long count = least(LANES, width - d);
            __m512 x[LANES];
            for (int i = 0; i < LANES; i++)
                x[i] = i < count ? _mm512_mul_ps(_mm512_loadu_ps(from + ((d + i) * vectors + v) * LANES), factors[v])
                                 : _mm512_setzero_ps();
            turn(x);
            for (long i = 0; i < LANES && v * LANES + i < rows; i++)
                store_some(to + (v * LANES + i) * stride + d, count, x[i]);
        }
}
