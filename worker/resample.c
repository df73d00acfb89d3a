/* The two passes of Pillow's resize (src/libImaging/Resample.c of Pillow 13), sixteen values at a time: sums of 32-bit
 * integers, with its weights in 22 bits, its rounding and its clipping, so that every pixel is the very same.
 *
 * No Python in here: worker/kernels.py calls these functions through ctypes, and answers for every size and pointer.
 * x86-64 with AVX2; on other machines the library says that it is of no use, and NumPy does the work.
 */
#include <stddef.h>
#include <stdint.h>

/* An axis of the result: `taps` pixels of the source from `first` on, times their weights, make one pixel. */
typedef struct {
    int32_t length, taps;
    const int32_t *first;   /* length, counted from the first pixel that is read at all */
    const int32_t *weights; /* length x taps */
} Axis;

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>

#define BITS 22
#define LANES 16
#define AVX2 __attribute__((target("avx2")))
#define INLINE static inline __attribute__((always_inline))

int labelmill_is_usable(void) {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2"); /* what the library is compiled for */
}

INLINE __m128i load(const uint8_t *from) { return _mm_loadu_si128((const __m128i *)from); }
INLINE void store(uint8_t *to, __m128i values) { _mm_storeu_si128((__m128i *)to, values); }

/* Transposes 16 x 16 bytes: four times, row i is interleaved with row i + 8. */
INLINE void transpose(__m128i rows[LANES]) {
    __m128i other[LANES];
    for (int twice = 0; twice < 2; twice++) {
        for (int i = 0; i < LANES / 2; i++) {
            other[2 * i] = _mm_unpacklo_epi8(rows[i], rows[i + LANES / 2]);
            other[2 * i + 1] = _mm_unpackhi_epi8(rows[i], rows[i + LANES / 2]);
        }
        for (int i = 0; i < LANES / 2; i++) {
            rows[2 * i] = _mm_unpacklo_epi8(other[i], other[i + LANES / 2]);
            rows[2 * i + 1] = _mm_unpackhi_epi8(other[i], other[i + LANES / 2]);
        }
    }
}

/* Sixteen sums, which begin at a half, so that cutting off the fraction rounds. */
typedef struct {
    __m256i low, high;
} Sums;

AVX2 INLINE Sums begun(void) {
    __m256i half = _mm256_set1_epi32(1 << (BITS - 1));
    return (Sums){half, half};
}

AVX2 INLINE void add(Sums *sums, __m256i weight, const uint8_t *values) {
    __m128i bytes = load(values);
    __m256i low = _mm256_cvtepu8_epi32(bytes), high = _mm256_cvtepu8_epi32(_mm_srli_si128(bytes, 8));
    sums->low = _mm256_add_epi32(sums->low, _mm256_mullo_epi32(weight, low));
    sums->high = _mm256_add_epi32(sums->high, _mm256_mullo_epi32(weight, high));
}

/* Clipped to 0..255. A sum is less than 512 in either direction, so 16 bits hold it between the two steps. */
AVX2 INLINE __m128i ended(Sums sums) {
    __m256i low = _mm256_srai_epi32(sums.low, BITS), high = _mm256_srai_epi32(sums.high, BITS);
    __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(low, high), 0xd8); /* it packs each half for itself */
    return _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
}

/* Rows of the source, `bytes` each, to as many rows of the result. Sixteen rows are transposed, so that the same sum is
 * made for all of them at once. `scratch`: 16 times the bytes of a row of the source, rounded up to 16, and of the result. */
AVX2 void labelmill_across(const uint8_t *source, ptrdiff_t source_stride, int32_t rows, int32_t bytes, int32_t channels,
                           const Axis *axis, uint8_t *result, ptrdiff_t result_stride, uint8_t *scratch) {
    int wide = axis->length * channels;
    uint8_t *in = scratch, *out = scratch + (ptrdiff_t)(bytes + LANES - 1) / LANES * LANES * LANES;
    for (int row = 0; row < rows; row += LANES) {
        int count = rows - row < LANES ? rows - row : LANES;
        const uint8_t *from[LANES];
        __m128i block[LANES];
        for (int lane = 0; lane < LANES; lane++)
            from[lane] = source + (row + (lane < count ? lane : count - 1)) * source_stride;
        int at = 0;
        for (; at + LANES <= bytes; at += LANES) {
            for (int lane = 0; lane < LANES; lane++) block[lane] = load(from[lane] + at);
            transpose(block);
            for (int i = 0; i < LANES; i++) store(in + (ptrdiff_t)(at + i) * LANES, block[i]);
        }
        for (; at < bytes; at++)
            for (int lane = 0; lane < LANES; lane++) in[(ptrdiff_t)at * LANES + lane] = from[lane][at];
        for (int x = 0; x < axis->length; x++) {
            const int32_t *weights = axis->weights + (ptrdiff_t)x * axis->taps;
            const uint8_t *values = in + (ptrdiff_t)axis->first[x] * channels * LANES;
            uint8_t *to = out + (ptrdiff_t)x * channels * LANES;
            if (channels == 3) {
                Sums red = begun(), green = begun(), blue = begun();
                for (int tap = 0; tap < axis->taps; tap++, values += 3 * LANES) {
                    __m256i weight = _mm256_set1_epi32(weights[tap]);
                    add(&red, weight, values);
                    add(&green, weight, values + LANES);
                    add(&blue, weight, values + 2 * LANES);
                }
                store(to, ended(red));
                store(to + LANES, ended(green));
                store(to + 2 * LANES, ended(blue));
            } else {
                Sums grey = begun();
                for (int tap = 0; tap < axis->taps; tap++, values += LANES)
                    add(&grey, _mm256_set1_epi32(weights[tap]), values);
                store(to, ended(grey));
            }
        }
        for (at = 0; at + LANES <= wide; at += LANES) {
            for (int i = 0; i < LANES; i++) block[i] = load(out + (ptrdiff_t)(at + i) * LANES);
            transpose(block);
            for (int lane = 0; lane < count; lane++) store(result + (row + lane) * result_stride + at, block[lane]);
        }
        for (; at < wide; at++)
            for (int lane = 0; lane < count; lane++)
                result[(row + lane) * result_stride + at] = out[(ptrdiff_t)at * LANES + lane];
    }
}

/* Rows of `bytes` bytes to axis->length rows of as many. */
AVX2 void labelmill_down(const uint8_t *source, ptrdiff_t source_stride, int32_t bytes, const Axis *axis, uint8_t *result,
                         ptrdiff_t result_stride) {
    for (int y = 0; y < axis->length; y++) {
        const int32_t *weights = axis->weights + (ptrdiff_t)y * axis->taps;
        const uint8_t *from = source + axis->first[y] * source_stride;
        uint8_t *to = result + y * result_stride;
        int at = 0;
        for (; at + 2 * LANES <= bytes; at += 2 * LANES) {
            Sums left = begun(), right = begun();
            const uint8_t *values = from + at;
            for (int tap = 0; tap < axis->taps; tap++, values += source_stride) {
                __m256i weight = _mm256_set1_epi32(weights[tap]);
                add(&left, weight, values);
                add(&right, weight, values + LANES);
            }
            store(to + at, ended(left));
            store(to + at + LANES, ended(right));
        }
        for (; at < bytes; at++) {
            int32_t sum = 1 << (BITS - 1);
            for (int tap = 0; tap < axis->taps; tap++) sum += weights[tap] * from[tap * source_stride + at];
            sum >>= BITS;
            to[at] = sum < 0 ? 0 : sum > 255 ? 255 : sum;
        }
    }
}

#else

int labelmill_is_usable(void) { return 0; }

#endif
