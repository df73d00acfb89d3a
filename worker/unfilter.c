/* The pixels of a PNG's inflated rows, see worker/plainpng.py. The terms are those of the PNG specification (third edition,
 * section 9): a row begins with the type of its filter, and of each byte is left what that did not foretell from the same
 * channel of the pixel before it (a), of the one above (b), and of the one before that (c).
 *
 * A pixel waits for the one before it, in nearly all rows of a photograph. So four rows are restored at once, each a pixel
 * behind the one above it, which then has what it needs.
 *
 * No Python in here: worker/kernels.py calls it, and answers for every size and pointer.
 */
#if defined(__x86_64__) && defined(__GNUC__)

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#define AVX2 __attribute__((target("avx2")))

enum { NONE, SUB, UP, AVERAGE, PAETH };
enum {
    ROWS = 4,
    LEAST = 2 * ROWS, /* pixels of a row that are worth it; ROWS at the least */
};

INLINE int distance(int one, int other) { return one < other ? other - one : one - other; }

/* Whichever of the three is nearest to a + b - c; of those that are as near, the first. */
INLINE int paeth(int a, int b, int c) {
    int of_a = distance(b, c), of_b = distance(a, c), of_c = distance(a + b, 2 * c);
    return of_a <= of_b && of_a <= of_c ? a : of_b <= of_c ? b : c;
}

/* The bytes from `first` to before `last` of a row. */
INLINE void restore(int filter, int channels, const uint8_t *from, const uint8_t *above, uint8_t *to, int first, int last) {
    for (int at = first; at < last; at++) {
        int a = at < channels ? 0 : to[at - channels], b = above[at], c = at < channels ? 0 : above[at - channels];
        int foretold = 0;
        if (filter == SUB) foretold = a;
        if (filter == UP) foretold = b;
        if (filter == AVERAGE) foretold = (a + b) >> 1;
        if (filter == PAETH) foretold = paeth(a, b, c);
        to[at] = (uint8_t)(from[at] + foretold);
    }
}

/* A row by itself: one loop for each filter. */
INLINE void restore_one(int channels, const uint8_t *filtered, const uint8_t *above, uint8_t *to, int bytes) {
    switch (filtered[0]) {
        case NONE: restore(NONE, channels, filtered + 1, above, to, 0, bytes); break;
        case SUB: restore(SUB, channels, filtered + 1, above, to, 0, bytes); break;
        case UP: restore(UP, channels, filtered + 1, above, to, 0, bytes); break;
        case AVERAGE: restore(AVERAGE, channels, filtered + 1, above, to, 0, bytes); break;
        case PAETH: restore(PAETH, channels, filtered + 1, above, to, 0, bytes); break;
    }
}

INLINE int32_t pixel(const uint8_t *at) {
    int32_t bytes;
    memcpy(&bytes, at, sizeof bytes); /* where it has fewer, these and some of the next pixels */
    return bytes;
}

/* A pixel of each row, 16 bits for each channel. */
AVX2 INLINE __m256i widened(int32_t one, int32_t two, int32_t three, int32_t four) {
    return _mm256_cvtepu8_epi16(_mm_set_epi32(four, three, two, one));
}

/* All ones in the rows that have this filter. */
AVX2 INLINE __m256i rows_of(int filter, const int *filters) {
    int64_t is[ROWS];
    for (int row = 0; row < ROWS; row++) is[row] = -(int64_t)(filters[row] == filter);
    return _mm256_set_epi64x(is[3], is[2], is[1], is[0]);
}

/* ROWS rows of at least LEAST pixels. */
AVX2 INLINE void restore_four(int channels, const uint8_t *filtered, const uint8_t *above, uint8_t *to, int bytes) {
    int filters[ROWS];
    const uint8_t *from[ROWS], *over[ROWS];
    uint8_t *into[ROWS];
    for (int row = 0; row < ROWS; row++) {
        from[row] = filtered + row * (ptrdiff_t)(1 + bytes) + 1;
        into[row] = to + row * (ptrdiff_t)bytes;
        over[row] = row ? into[row - 1] : above;
        filters[row] = from[row][-1];
        restore(filters[row], channels, from[row], over[row], into[row], 0, (ROWS - 1 - row) * channels);
    }
    __m256i sub = rows_of(SUB, filters), up = rows_of(UP, filters), average = rows_of(AVERAGE, filters);
    __m256i by_paeth = rows_of(PAETH, filters), byte = _mm256_set1_epi16(255);
    /* the first row is at its fourth pixel now, and the last one at its first, before which there is none */
    __m256i a = widened(pixel(into[0] + 2 * channels), pixel(into[1] + channels), pixel(into[2]), 0);
    __m256i c = widened(pixel(above + 2 * channels), pixel(into[0] + channels), pixel(into[1]), 0);
    int at = (ROWS - 1) * channels; /* what is written of the next pixels, too, is written once more with those */
    for (; at <= bytes - (int)sizeof(int32_t); at += channels) {
        int at_1 = at - channels, at_2 = at - 2 * channels, at_3 = at - 3 * channels;
        __m256i left = widened(pixel(from[0] + at), pixel(from[1] + at_1), pixel(from[2] + at_2), pixel(from[3] + at_3));
        /* a row's b is what the row above it has just become */
        __m256i b = _mm256_blend_epi32(_mm256_permute4x64_epi64(a, 0x90), widened(pixel(above + at), 0, 0, 0), 3);
        __m256i of_a = _mm256_sub_epi16(b, c), of_b = _mm256_sub_epi16(a, c);
        __m256i of_c = _mm256_abs_epi16(_mm256_add_epi16(of_a, of_b));
        of_a = _mm256_abs_epi16(of_a), of_b = _mm256_abs_epi16(of_b);
        __m256i least = _mm256_min_epi16(_mm256_min_epi16(of_a, of_b), of_c);
        __m256i nearest = _mm256_blendv_epi8(c, b, _mm256_cmpeq_epi16(of_b, least));
        nearest = _mm256_blendv_epi8(nearest, a, _mm256_cmpeq_epi16(of_a, least));
        __m256i mean = _mm256_srli_epi16(_mm256_add_epi16(a, b), 1);
        __m256i others = _mm256_or_si256(_mm256_and_si256(sub, a), _mm256_and_si256(up, b));
        others = _mm256_or_si256(others, _mm256_and_si256(average, mean));
        __m256i foretold = _mm256_or_si256(others, _mm256_and_si256(by_paeth, nearest));
        a = _mm256_and_si256(_mm256_add_epi16(left, foretold), byte);
        c = b;
        __m256i packed = _mm256_packus_epi16(a, a);
        int64_t two = _mm256_extract_epi64(packed, 0), other_two = _mm256_extract_epi64(packed, 2);
        memcpy(into[0] + at, &two, sizeof(int32_t));
        memcpy(into[1] + at_1, (uint8_t *)&two + 4, sizeof(int32_t));
        memcpy(into[2] + at_2, &other_two, sizeof(int32_t));
        memcpy(into[3] + at_3, (uint8_t *)&other_two + 4, sizeof(int32_t));
    }
    for (int row = 0; row < ROWS; row++)
        restore(filters[row], channels, from[row], over[row], into[row], at - row * channels, bytes);
}

AVX2 INLINE void restore_all(int channels, const uint8_t *filtered, int rows, int bytes, uint8_t *above) {
    int many = bytes < LEAST * channels ? 1 : ROWS;
    while (rows) {
        if (rows < many) many = 1;
        if (many == 1)
            restore_one(channels, filtered, above, above + bytes, bytes);
        else
            restore_four(channels, filtered, above, above + bytes, bytes);
        filtered += many * (ptrdiff_t)(1 + bytes), above += many * (ptrdiff_t)bytes, rows -= many;
    }
}

/* `rows` of a byte for the filter and `bytes` of pixels with 1, 3 or 4 channels, to rows of pixels behind the one that lies
 * `above` the first: zeros at the top. Returns whether there are all those filters; if not, what is behind it stays. */
AVX2 int labelmill_unfilter(const uint8_t *filtered, int32_t rows, int32_t bytes, int32_t channels, uint8_t *above) {
    for (int32_t row = 0; row < rows; row++)
        if (filtered[row * (ptrdiff_t)(1 + bytes)] > PAETH) return 0;
    if (channels == 1) restore_all(1, filtered, rows, bytes, above);
    if (channels == 3) restore_all(3, filtered, rows, bytes, above);
    if (channels == 4) restore_all(4, filtered, rows, bytes, above);
    return 1;
}

#endif
