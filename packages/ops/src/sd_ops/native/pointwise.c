/* What lies between the products of a network, each in as few passes over memory as can be: group norm with
 * SiLU, layer norm, and GEGLU. Compiled for this processor by `sd_ops.native`; sums and functions are float32. */
#include "gelu.h"

int ready(void) { return 1; }

/* x / (1 + e^-x), where the exponential is kept finite */
static inline __m512 silu(__m512 x) {
    const __m512 y = _mm512_min_ps(_mm512_set1_ps(120), _mm512_mul_ps(x, _mm512_set1_ps(-LOG2_E)));
    return _mm512_mul_ps(x, inverse(_mm512_add_ps(power(y), _mm512_set1_ps(1))));
}

/* -- Group norm (Wu and He 2018, arXiv:1803.08494), and SiLU -------------------------------------- */

typedef struct { long images, pixels, channels, groups, silu, threads; float eps; } norm_sizes;

/* Pixels and channels whose sums stay in registers. */
enum { PIXELS = 1024, ACROSS = 4, STRIPE = ACROSS * LANES };
/* Pixels, and rows of a layer norm, that are asked for before they are read. */
enum { PIXELS_AHEAD = 16, ROWS_AHEAD = 2 };

/* Mean and sum of squares about it of `count` pixels of some channels. Numbers are first lessened by the
 * first pixel's, for squares of what is far from nothing would lose what they differ by. */
static void moments(const number *x, long stride, long count, long vectors, float *mean, float *squares) {
    const __m512 share = _mm512_set1_ps(1.0f / (float)count);
    __m512 first[ACROSS], sum[ACROSS][2], square[ACROSS][2];
    memset(sum, 0, sizeof sum);
    memset(square, 0, sizeof square);
    for (int v = 0; v < vectors; v++) first[v] = load(x + v * LANES);
    for (long p = 0; p < count; p++, x += stride)
        for (int v = 0; v < vectors; v++) {
            _mm_prefetch(x + PIXELS_AHEAD * stride + v * LANES, _MM_HINT_T0);
            const __m512 y = _mm512_sub_ps(load(x + v * LANES), first[v]);
            sum[v][p & 1] = _mm512_add_ps(sum[v][p & 1], y);
            square[v][p & 1] = _mm512_fmadd_ps(y, y, square[v][p & 1]);
        }
    for (int v = 0; v < vectors; v++) {
        const __m512 all = _mm512_add_ps(sum[v][0], sum[v][1]), middle = _mm512_mul_ps(all, share);
        _mm512_storeu_ps(mean + v * LANES, _mm512_add_ps(first[v], middle));
        _mm512_storeu_ps(squares + v * LANES, _mm512_fnmadd_ps(all, middle, _mm512_add_ps(square[v][0], square[v][1])));
    }
}

/* Add to the means of an image's parts what each of its channels is more. */
static void shift(float *means, const number *added, long parts, long channels) {
    for (long part = 0; part < parts; part++)
        for (long c = 0; c < channels; c++) means[part * channels + c] += as_float(added[c]);
}

/* What each channel of an image is lessened by, its factor and its summand, out of its parts' moments. */
static void factors(const float *means, const float *squares, long parts, const number *added, const number *weight,
                    const number *bias, norm_sizes s, float *middle, float *factor, float *summand) {
    const long width = s.channels / s.groups;
    for (long g = 0; g < s.groups; g++) {
        double mean = 0, spread = 0;
        for (long part = 0; part < parts; part++)
            for (long c = g * width; c < (g + 1) * width; c++)
                mean += (double)means[part * s.channels + c] * (double)least(s.pixels - part * PIXELS, PIXELS);
        mean /= (double)(s.pixels * width);
        for (long part = 0; part < parts; part++)
            for (long c = g * width; c < (g + 1) * width; c++) {
                const double apart = means[part * s.channels + c] - mean;
                spread += squares[part * s.channels + c] + apart * apart * (double)least(s.pixels - part * PIXELS, PIXELS);
            }
        const double rate = 1 / __builtin_sqrt(spread / (double)(s.pixels * width) + (double)s.eps);
        for (long c = g * width; c < (g + 1) * width; c++) {
            middle[c] = (float)(mean - (added ? (double)as_float(added[c]) : 0));
            factor[c] = (float)(rate * (weight ? (double)as_float(weight[c]) : 1));
            summand[c] = bias ? as_float(bias[c]) : 0;
        }
    }
}

/* out = silu(norm(x)), or norm(x), of (images, pixels, channels), to which `added` (images, channels) is added before
 * where that is not null. Channels are a multiple of 16. Returns 0, or 1 for want of memory. */
int group_norm(number *out, const number *x, const number *added, const number *weight, const number *bias,
               norm_sizes s) {
    const long parts = (s.pixels + PIXELS - 1) / PIXELS, stripes = (s.channels + STRIPE - 1) / STRIPE;
    const long of_image = parts * s.channels;
    float *means = room(s.images * (2 * of_image + 3 * s.channels) * sizeof(float));
    if (!means) return 1;
    float *squares = means + s.images * of_image, *middles = squares + s.images * of_image;
#pragma omp parallel num_threads(s.threads)
    {
#pragma omp for
        for (long task = 0; task < s.images * parts * stripes; task++) {
            const long image = task / stripes / parts, part = task / stripes % parts, c = task % stripes * STRIPE;
            const long first = part * PIXELS, at = (image * parts + part) * s.channels + c;
            moments(x + (image * s.pixels + first) * s.channels + c, s.channels, least(s.pixels - first, PIXELS),
                    least(s.channels - c, STRIPE) / LANES, means + at, squares + at);
        }
#pragma omp for
        for (long image = 0; image < s.images; image++) {
            const number *more = added ? added + image * s.channels : NULL;
            float *mean = means + image * of_image, *middle = middles + image * 3 * s.channels;
            if (more) shift(mean, more, parts, s.channels);
            factors(mean, squares + image * of_image, parts, more, weight, bias, s, middle, middle + s.channels,
                    middle + 2 * s.channels);
        }
#pragma omp for
        for (long pixel = 0; pixel < s.images * s.pixels; pixel++) {
            const float *middle = middles + pixel / s.pixels * 3 * s.channels;
            for (long c = 0; c < s.channels; c += LANES) {
                const __m512 apart = _mm512_sub_ps(load(x + pixel * s.channels + c), _mm512_loadu_ps(middle + c));
                const __m512 y = _mm512_fmadd_ps(apart, _mm512_loadu_ps(middle + s.channels + c),
                                                 _mm512_loadu_ps(middle + 2 * s.channels + c));
                store(out + pixel * s.channels + c, s.silu ? silu(y) : y);
            }
        }
    }
    free(means);
    return 0;
}

/* -- Layer norm (Ba et al. 2016, arXiv:1607.06450) ------------------------------------------------ */

typedef struct { long rows, width, threads; float eps; } row_sizes;

/* Sums of two vectors, which wait for each other's half as long. */
static inline float total(__m512 even, __m512 odd) { return _mm512_reduce_add_ps(_mm512_add_ps(even, odd)); }

/* out = norm(x), each of (rows, width) by itself. The width is a multiple of 16. */
int layer_norm(number *out, const number *x, const number *weight, const number *bias, row_sizes s) {
    const __m512 share = _mm512_set1_ps(1.0f / (float)s.width), one = _mm512_set1_ps(1), nothing = _mm512_setzero_ps();
#pragma omp parallel for num_threads(s.threads)
    for (long r = 0; r < s.rows; r++) {
        const number *row = x + r * s.width;
        for (long c = 0; c < s.width; c += LANES) _mm_prefetch(row + ROWS_AHEAD * s.width + c, _MM_HINT_T0);
        __m512 sums[2] = {nothing, nothing}, squares[2] = {nothing, nothing};
        for (long c = 0; c < s.width; c += LANES)
            sums[c / LANES & 1] = _mm512_add_ps(sums[c / LANES & 1], load(row + c));
        const __m512 mean = _mm512_mul_ps(_mm512_set1_ps(total(sums[0], sums[1])), share);
        for (long c = 0; c < s.width; c += LANES) {
            const __m512 apart = _mm512_sub_ps(load(row + c), mean);
            squares[c / LANES & 1] = _mm512_fmadd_ps(apart, apart, squares[c / LANES & 1]);
        }
        const __m512 variance = _mm512_mul_ps(_mm512_set1_ps(total(squares[0], squares[1])), share);
        const __m512 rate = _mm512_div_ps(one, _mm512_sqrt_ps(_mm512_add_ps(variance, _mm512_set1_ps(s.eps))));
        for (long c = 0; c < s.width; c += LANES) {
            const __m512 y = _mm512_mul_ps(_mm512_sub_ps(load(row + c), mean), rate);
            store(out + r * s.width + c, _mm512_fmadd_ps(y, weight ? load(weight + c) : one, bias ? load(bias + c) : nothing));
        }
    }
    return 0;
}

/* -- GEGLU (Shazeer 2020, arXiv:2002.05202) ------------------------------------------------------- */

typedef struct { long rows, width, threads; } gate_sizes;

/* out (rows, width) = hidden gelu(gate) of (rows, 2 width). The width is a multiple of 16. */
int geglu(number *out, const number *projected, gate_sizes s) {
#pragma omp parallel for num_threads(s.threads)
    for (long r = 0; r < s.rows; r++)
        for (long c = 0; c < s.width; c += LANES) {
            const __m512 hidden = load(projected + r * 2 * s.width + c);
            const __m512 gate = load(projected + r * 2 * s.width + s.width + c);
            store(out + r * s.width + c, gated(hidden, gate));
        }
    return 0;
}
