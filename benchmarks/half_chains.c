/* Sums of float16 products as kernels/fp16_chains.py defines them, on x86 with AVX2, FMA and F16C.
 * A product and its sum are rounded to float32 before float16: a result may be the neighbour of the
 * right one where that rounding made a tie, about once in ten thousand. */
#include <immintrin.h>

enum { LANES = 8, VECTORS = 4, WIDTH = LANES * VECTORS };

static __m256 rounded(__m256 x)
{
    return _mm256_cvtph_ps(_mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
}

/* total[rows][columns] += a[rows][depth] @ w[depth][columns], all float32, of which a and w are
 * float16 numbers; columns: a multiple of 32. `chains`: how many terms each has; `together`: of so
 * many, 2 or 4, the sums are added in float16, in pairs. */
void half_chains(float *total, const float *a, const float *w, int rows, int depth, int columns,
                 const int *chains, int count, int together)
{
    for (int row = 0; row < rows; row++)
        for (int column = 0; column < columns; column += WIDTH) {
            const float *value = a + (long)row * depth, *weight = w + column;
            float *out = total + (long)row * columns + column;
            for (int chain = 0; chain < count;) {
                __m256 pairs[2][VECTORS];
                int member = 0;
                for (; member < together && chain < count; member++, chain++) {
                    __m256 *pair = pairs[member / 2], h[VECTORS];
                    for (int v = 0; v < VECTORS; v++)
                        h[v] = _mm256_setzero_ps();
                    for (int k = 0; k < chains[chain]; k++, value++, weight += columns)
                        for (int v = 0; v < VECTORS; v++)
                            h[v] = rounded(_mm256_fmadd_ps(_mm256_set1_ps(*value),
                                                           _mm256_loadu_ps(weight + v * LANES),
                                                           h[v]));
                    for (int v = 0; v < VECTORS; v++)
                        pair[v] = member % 2 ? rounded(_mm256_add_ps(pair[v], h[v])) : h[v];
                }
                for (int v = 0; v < VECTORS; v++) {
                    __m256 sum = pairs[0][v];
                    if (member > 2)
                        sum = rounded(_mm256_add_ps(sum, pairs[1][v]));
                    float *at = out + v * LANES;
                    _mm256_storeu_ps(at, _mm256_add_ps(_mm256_loadu_ps(at), sum));
                }
            }
        }
}
