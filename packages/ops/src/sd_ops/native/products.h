/* Products of float32 matrices: some rows by a panel of N columns, whose sums stay in registers. */
#include "numbers.h"
#include <stdbool.h>

enum { VECTORS = 2, N = VECTORS * LANES, ROWS = 14 };

/* c (rows, N) = a (rows, depth) b (depth, N), or c + a b; `rows`, at most ROWS, is known where this is inlined.
 *
 * Rows of `a` lie one after the other, and what follows them is asked for ahead: it is what is multiplied next,
 * and 14 rows at once are more streams than a processor follows by itself. */
static inline __attribute__((always_inline)) void multiply_few(const int rows, float *c, const float *a, long depth,
                                                               const float *b, bool add) {
    __m512 sums[ROWS][VECTORS];
#pragma GCC unroll 14
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 2
        for (int v = 0; v < VECTORS; v++) {
            sums[i][v] = _mm512_setzero_ps();
            _mm_prefetch(c + i * N + v * LANES, _MM_HINT_T0);
        }
    for (long k = 0; k < depth; k++, b += N) {
        _mm_prefetch(a + rows * depth + k * LANES, _MM_HINT_T0);
        const __m512 columns[VECTORS] = {_mm512_loadu_ps(b), _mm512_loadu_ps(b + LANES)};
#pragma GCC unroll 14
        for (int i = 0; i < rows; i++) {
            const __m512 factor = _mm512_set1_ps(a[i * depth + k]);
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
}

/* The same for any number of rows. A row's sums do not depend on how many there are. */
static void multiply(float *c, long rows, const float *a, long depth, const float *b, bool add) {
    /* In parts of nearly the same size, as a few rows use the processor badly. */
    const long parts = (rows + ROWS - 1) / ROWS;
    for (long part = 0; part < parts; part++) {
        const long start = rows * part / parts, count = rows * (part + 1) / parts - start;
        switch (count) {
#define OF(few) case few: multiply_few(few, c + start * N, a + start * depth, depth, b, add); break;
            OF(1) OF(2) OF(3) OF(4) OF(5) OF(6) OF(7) OF(8) OF(9) OF(10) OF(11) OF(12) OF(13) OF(14)
#undef OF
        }
    }
}
