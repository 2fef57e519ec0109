/* GEGLU (Shazeer 2020, arXiv:2002.05202), of 16 values. */
#pragma once
#include "numbers.h"

/* 1 / x of what is finite */
static inline __m512 inverse(__m512 x) {
    const __m512 y = _mm512_rcp14_ps(x);
    return _mm512_mul_ps(y, _mm512_fnmadd_ps(x, y, _mm512_set1_ps(2)));
}

/* The cumulative normal distribution, to 1e-7 (Abramowitz and Stegun 1964, 7.1.26). */
static inline __m512 normal(__m512 x) {
    const __m512 one = _mm512_set1_ps(1), half = _mm512_set1_ps(0.5f);
    const __m512 z = _mm512_mul_ps(_mm512_abs_ps(x), _mm512_set1_ps(0.70710678f));
    const __m512 t = inverse(_mm512_fmadd_ps(z, _mm512_set1_ps(0.3275911f), one));
    __m512 y = _mm512_set1_ps(1.061405429f);
    y = _mm512_fmadd_ps(y, t, _mm512_set1_ps(-1.453152027f));
    y = _mm512_fmadd_ps(y, t, _mm512_set1_ps(1.421413741f));
    y = _mm512_fmadd_ps(y, t, _mm512_set1_ps(-0.284496736f));
    y = _mm512_fmadd_ps(y, t, _mm512_set1_ps(0.254829592f));
    /* Half of what erf lacks of 1: so small values on the left keep their digits. */
    y = _mm512_mul_ps(_mm512_mul_ps(y, _mm512_mul_ps(t, half)),
                      power(_mm512_mul_ps(_mm512_mul_ps(z, z), _mm512_set1_ps(-LOG2_E))));
    return _mm512_mask_sub_ps(y, _mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_GE_OQ), one, y);
}

/* hidden gelu(gate) */
static inline __m512 gated(__m512 hidden, __m512 gate) { return _mm512_mul_ps(hidden, _mm512_mul_ps(gate, normal(gate))); }
