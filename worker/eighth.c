/* Baseline JPEGs at an eighth of their size, to the very pixels of libjpeg-turbo (its jidctred.c, jdcolor.c).
 *
 * A pixel at an eighth is the mean of a block of 8 x 8, which is the block's first coefficient. All others of the
 * luminance have no use, and most of a file is theirs: here their codes are stepped over (huffman.h). libjpeg-turbo
 * decodes each one, and clears and scales a whole block. Only chrominance of half the size needs more than its means, for
 * two by two pixels of a block.
 *
 * Nothing is repaired: whatever is not a sound baseline file of a usual kind is left to libjpeg-turbo, which knows what to
 * say of it. No byte outside of what the caller hands over is read or written, whatever the file holds.
 *
 * No Python in here, see worker/kernels.py. The terms are those of ITU-T T.81.
 */
#if defined(__x86_64__) && defined(__GNUC__)

#include <immintrin.h>

#include "huffman.h"

enum {
    BLOCK_SIDE = 8,
    TABLES = 4,
    MOST_LEVEL = 2047,    /* of a dequantised coefficient that sound encoders write; beyond it the sums here could overflow */
    MOST_SUM = 511,       /* of a pixel before it is clipped: beyond it libjpeg has one result in C and another in SSE2 */
    MOST_SIDE = 65500,    /* of a picture, as libjpeg has it */
    MOST_BYTES = 1 << 28, /* of a file: bits of it are counted in 32 bits */
    ALIGNED = 64,
};

typedef struct {
    uint8_t id, across, down, quantiser;
    const Table *dc, *ac;
} Part;

typedef struct {
    const uint8_t *data, *end;
    int width, height, parts, interval;
    int is_jfif, adobe; /* the transform that Adobe's marker names, or -1 */
    Part part[PARTS];
    uint8_t quantisers[TABLES][BLOCK], has_quantiser[TABLES];
    const uint8_t *codes[2][TABLES]; /* of DC and AC: 16 counts, and then the symbols, in the file */
    Table tables[2][TABLES];         /* made of those when a scan needs them: a file may define any number */
} File;

INLINE int two_bytes(const uint8_t *at) { return at[0] << 8 | at[1]; }

static int read_quantisers(File *file, const uint8_t *at, const uint8_t *end) {
    for (; end - at > BLOCK; at += 1 + BLOCK) {
        if (at[0] >= TABLES) return 0; /* the high half: 16 bits each */
        memcpy(file->quantisers[at[0]], at + 1, BLOCK);
        file->has_quantiser[at[0]] = 1;
    }
    return at == end;
}

static int read_codes(File *file, const uint8_t *at, const uint8_t *end) {
    while (end - at > LONGEST) {
        int is_ac = at[0] >> 4, id = at[0] & 15, count = 0;
        for (int i = 1; i <= LONGEST; i++) count += at[i];
        if (is_ac > 1 || id >= TABLES || count > 256 || count > end - at - 1 - LONGEST) return 0;
        file->codes[is_ac][id] = at + 1;
        at += 1 + LONGEST + count;
    }
    return at == end;
}

/* A table that a scan names; NULL where it was not defined, or is not sound. */
static const Table *table_of(File *file, int is_ac, int id) {
    if (id >= TABLES || !file->codes[is_ac][id]) return NULL;
    Table *table = &file->tables[is_ac][id];
    return table->is_made || make_table(table, file->codes[is_ac][id], is_ac) ? table : NULL;
}

static int read_frame(File *file, const uint8_t *at, const uint8_t *end) {
    if (file->parts || end - at < 6 || at[0] != 8) return 0;
    file->height = two_bytes(at + 1);
    file->width = two_bytes(at + 3);
    file->parts = at[5];
    if (!file->width || !file->height || file->width > MOST_SIDE || file->height > MOST_SIDE) return 0;
    if ((file->parts != 1 && file->parts != PARTS) || end - at != 6 + 3 * file->parts) return 0;
    for (int i = 0; i < file->parts; i++) {
        const uint8_t *from = at + 6 + 3 * i;
        file->part[i] = (Part){.id = from[0], .across = from[1] >> 4, .down = from[1] & 15, .quantiser = from[2]};
        if (from[2] >= TABLES) return 0;
        for (int other = 0; other < i; other++)
            if (file->part[other].id == from[0]) return 0;
    }
    Part *first = &file->part[0];
    if (file->parts == 1) /* one component alone is one block after the other, whatever its factors say */
        return first->across >= 1 && first->across <= 4 && first->down >= 1 && first->down <= 4;
    for (int i = 1; i < PARTS; i++)
        if (file->part[i].across != 1 || file->part[i].down != 1) return 0;
    return (first->across == 1 || first->across == 2) && (first->down == 1 || first->down == 2);
}

static int read_scan_header(File *file, const uint8_t *at, const uint8_t *end) {
    int parts = file->parts;
    if (!parts || end - at != 4 + 2 * parts || at[0] != parts) return 0;
    for (int i = 0; i < parts; i++) {
        Part *part = &file->part[i];
        if (at[1 + 2 * i] != part->id) return 0;
        part->dc = table_of(file, 0, at[2 + 2 * i] >> 4);
        part->ac = table_of(file, 1, at[2 + 2 * i] & 15);
        if (!part->dc || !part->ac) return 0;
        if (!file->has_quantiser[part->quantiser] || !file->quantisers[part->quantiser][0]) return 0;
    }
    const uint8_t *rest = at + 1 + 2 * parts;
    return rest[0] == 0 && rest[1] == BLOCK - 1 && rest[2] == 0;
}

/* Whether its three components are YCbCr, by the rules of libjpeg, where they leave no doubt. */
static int is_ycc(const File *file) {
    if (file->is_jfif) return 1;
    if (file->adobe >= 0) return file->adobe == 1;
    return file->part[0].id == 1 && file->part[1].id == 2 && file->part[2].id == 3;
}

/* Everything up to the first byte of the scan, where `data` is then. */
static int read_header(File *file) {
    const uint8_t *at = file->data;
    if (file->end - at < 4 || two_bytes(at) != 0xffd8) return 0;
    for (at += 2;;) {
        if (file->end - at < 4 || at[0] != 0xff) return 0;
        int marker = at[1], length = two_bytes(at + 2);
        if (length < 2 || length > file->end - at - 2) return 0;
        const uint8_t *body = at + 4, *end = at + 2 + length;
        at = end;
        if (marker == 0xda) {
            file->data = end;
            return read_scan_header(file, body, end) && (file->parts == 1 || is_ycc(file));
        }
        if (marker == 0xdb) {
            if (!read_quantisers(file, body, end)) return 0;
        } else if (marker == 0xc4) {
            if (!read_codes(file, body, end)) return 0;
        } else if (marker == 0xc0 || marker == 0xc1) {
            if (!read_frame(file, body, end)) return 0;
        } else if (marker == 0xdd) {
            if (end - body != 2) return 0;
            file->interval = two_bytes(body);
        } else if (marker == 0xe0) {
            file->is_jfif |= end - body >= 14 && !memcmp(body, "JFIF", 5);
        } else if (marker == 0xee) {
            if (end - body >= 12 && !memcmp(body, "Adobe", 5)) file->adobe = body[11];
        } else if (marker != 0xfe && (marker < 0xe0 || marker > 0xef)) {
            return 0;
        }
    }
}

/* The bytes of the scan up to a marker, as they were before 0 was put behind each 0xff. Returns their end. */
static uint8_t *unstuffed(File *file, uint8_t *to) {
    const uint8_t *at = file->data;
    for (;;) {
        const uint8_t *mark = memchr(at, 0xff, file->end - at);
        size_t count = (mark ? mark : file->end) - at;
        memcpy(to, at, count);
        to += count;
        at += count;
        if (!mark || file->end - mark < 2 || mark[1]) break;
        *to++ = 0xff;
        at += 2;
    }
    file->data = at;
    return to;
}

/* Two by two pixels of a block are made of its first, second, fourth, sixth and eighth rows and columns alone. `places`:
 * of the coefficients in a square of five by five, in the order of a file (T.81, figure A.6); the last is for all others.
 * `odds`: 1/(sqrt(2) sin(k pi/16)) for the odd frequencies k = 1, 3, 5 and 7, with the signs that their halves have, in
 * 13 bits. */
enum { SQUARE = 5, SUMS = 2 * SQUARE + 1, NOWHERE = SQUARE * SQUARE };
static const uint8_t places[BLOCK] = {
    0,  1,  5,  25, 6,  25, 2,  25, 25, 10, 25, 11, 25, 7,  25, 3,  25, 25, 25, 25, 15, 25,
    16, 25, 12, 25, 8,  25, 4,  25, 25, 25, 25, 25, 25, 20, 21, 25, 17, 25, 13, 25, 9,  25,
    25, 25, 25, 25, 25, 22, 25, 18, 25, 14, 25, 25, 25, 25, 23, 25, 19, 25, 25, 24,
};
static const int32_t odds[SQUARE] = {0, 29692, -10426, 6967, -5906};

/* What a coefficient of at most `most` in either direction adds to which sum: the even ones of five columns, the odd
 * ones, and one for those that do not count. */
typedef struct {
    int32_t weight;
    int16_t most, sum;
} Share;

static void make_shares(Share shares[BLOCK], const uint8_t quantiser[BLOCK]) {
    for (int i = 0; i < BLOCK; i++) {
        int row = places[i] / SQUARE, column = places[i] % SQUARE, level = quantiser[i];
        if (places[i] == NOWHERE) {
            shares[i] = (Share){0, INT16_MAX, 2 * SQUARE};
            continue;
        }
        shares[i].weight = level * (row ? odds[row] : 1 << 15);
        shares[i].most = level ? MOST_LEVEL / level : 0;
        shares[i].sum = row ? SQUARE + column : column;
    }
}

INLINE int32_t is_beyond(int32_t sum, int32_t most) { return (sum > most) | (sum < -most); }

/* A pixel of a sum that was made for -128..127. */
INLINE uint8_t level(int32_t sum) {
    sum += 128;
    sum = sum < 0 ? 0 : sum;
    return (uint8_t)(sum > 255 ? 255 : sum);
}

/* A row of MCUs of a component. */
typedef struct {
    int32_t quantiser; /* of the means */
    int32_t last;
    int32_t *means;    /* of each block */
    uint32_t *sums;    /* of chrominance of half the size: those that a Share names, `wide` of each */
    uint8_t *pixels;   /* lines */
    Share shares[BLOCK];
} Row;

/* The mean of its next block. */
INLINE int32_t next_mean(Row *row, const uint8_t *data, const Token *token) {
    return row->last += value_of(data, token);
}

/* The part of a picture that is wanted, in MCUs; what is outside is only read, and not drawn. */
typedef struct {
    int left, top, right, bottom;
} Window;

/* An MCU of four blocks of luminance whose means are all KNOWN: the tokens before that of its sixth block, and all of
 * them; 0: it is not such a one, or has more than LOOKED. */
typedef struct {
    uint32_t red, all;
} Shape;
enum { LOOKED = 16 };

FAST INLINE Shape shape_of(const Token *token, const Token *end) {
    if (token + LOOKED > end) return (Shape){0, 0};
    uint32_t first = 0, odd = 0; /* a bit for each token */
#pragma GCC unroll 4
    for (int i = 0; i < LOOKED; i += 4) {
        __m256i four = _mm256_loadu_si256((const __m256i *)(token + i));
        __m256i is_first = _mm256_slli_epi64(four, 1), is_bad = _mm256_slli_epi64(four, 2);
        __m256i is_odd = _mm256_or_si256(is_bad, _mm256_andnot_si256(_mm256_slli_epi64(four, 3), is_first));
        first |= (uint32_t)_mm256_movemask_pd(_mm256_castsi256_pd(is_first)) << i;
        odd |= (uint32_t)_mm256_movemask_pd(_mm256_castsi256_pd(is_odd)) << i;
    }
    /* the seventh block is another one's; before the fifth there are no tokens but first ones, or else bad ones */
    uint32_t after = _pdep_u32(1 << 6, first);
    if (!after || odd & (after - 1)) return (Shape){0, 0};
    return (Shape){(uint32_t)__builtin_ctz(_pdep_u32(1 << 5, first)), (uint32_t)__builtin_ctz(after)};
}

/* Lines of pixels of blocks of which only the means count. Returns whether there is doubt that they are sound. Here and
 * below, products and sums are unsigned: of a block that is not sound they may overflow, which comes to nothing. */
FAST static int draw_means(const int32_t *restrict means, int32_t quantiser, uint8_t *restrict pixels, ptrdiff_t count) {
    int32_t doubt = 0, most = MOST_LEVEL / quantiser;
    for (ptrdiff_t x = 0; x < count; x++) {
        doubt |= is_beyond(means[x], most);
        pixels[x] = level((int32_t)((uint32_t)means[x] * (uint32_t)quantiser + 4) >> 3);
    }
    return doubt;
}

/* Two lines of two by two pixels a block, of `wide`, from one to another one. */
FAST static int draw_quads(const int32_t *restrict means, int32_t quantiser, const uint32_t *restrict sums,
                           uint8_t *restrict above, uint8_t *restrict below, ptrdiff_t wide, ptrdiff_t from,
                           ptrdiff_t to) {
    int32_t doubt = 0, most = MOST_LEVEL / quantiser;
    for (ptrdiff_t x = from; x < to; x++) {
        uint32_t even[2], odd[2] = {0, 0};
        doubt |= is_beyond(means[x], most);
#pragma GCC unroll 5
        for (int i = 0; i < SQUARE; i++) {
            uint32_t evens = sums[i * wide + x] + (1 << 12), others = sums[(SQUARE + i) * wide + x];
            if (!i) evens += (uint32_t)means[x] * (uint32_t)quantiser << 15;
            uint32_t top = (uint32_t)((int32_t)(evens + others) >> 13);
            uint32_t bottom = (uint32_t)((int32_t)(evens - others) >> 13);
            if (i) {
                odd[0] += odds[i] * top;
                odd[1] += odds[i] * bottom;
            } else {
                even[0] = (top << 15) + (1 << 19);
                even[1] = (bottom << 15) + (1 << 19);
            }
        }
        int32_t a = (int32_t)(even[0] + odd[0]) >> 20, b = (int32_t)(even[0] - odd[0]) >> 20;
        int32_t c = (int32_t)(even[1] + odd[1]) >> 20, d = (int32_t)(even[1] - odd[1]) >> 20;
        doubt |= is_beyond(a, MOST_SUM) | is_beyond(b, MOST_SUM) | is_beyond(c, MOST_SUM) | is_beyond(d, MOST_SUM);
        above[2 * x] = level(a);
        above[2 * x + 1] = level(b);
        below[2 * x] = level(c);
        below[2 * x + 1] = level(d);
    }
    return doubt;
}

/* A line of YCbCr as RGB, with the weights of ITU-R BT.601 in 16 bits. */
FAST static void to_rgb(const uint8_t *y, const uint8_t *blue, const uint8_t *red, uint8_t *to, ptrdiff_t width) {
    for (ptrdiff_t x = 0; x < width; x++) {
        int32_t luma = y[x], cb = blue[x] - 128, cr = red[x] - 128;
        int32_t r = luma + ((91881 * cr + 32768) >> 16);
        int32_t g = luma + ((-22554 * cb - 46802 * cr + 32768) >> 16);
        int32_t b = luma + ((116130 * cb + 32768) >> 16);
        to[3 * x] = r < 0 ? 0 : r > 255 ? 255 : r;
        to[3 * x + 1] = g < 0 ? 0 : g > 255 ? 255 : g;
        to[3 * x + 2] = b < 0 ? 0 : b > 255 ? 255 : b;
    }
}

/* A part of the memory that is left, with a gap behind it that nothing may touch. */
INLINE void *taken(uint8_t **memory, size_t size) {
    uint8_t *part = (uint8_t *)(((uintptr_t)*memory + ALIGNED - 1) & ~(uintptr_t)(ALIGNED - 1));
    ASAN_POISON_MEMORY_REGION(part + size, ALIGNED);
    *memory = part + size + ALIGNED;
    return part;
}

INLINE int in_blocks(int pixels, int blocks) { return (pixels + BLOCK_SIDE * blocks - 1) / (BLOCK_SIDE * blocks); }

/* Whether the MCUs before a token end where their segment does, but for the bits that fill its last byte. */
INLINE int is_end(const Segment *segment, const Token *token) {
    int64_t left = (int64_t)segment[1].from * 8 - token->at;
    return left >= 0 && left < 8 && token->step & FIRST; /* else the last code was none */
}

/* The picture, of MCUs of `across` x `down` blocks of luminance beside one of each chrominance. */
FAST INLINE int draw(const File *file, const Scan *scan, Window window, uint8_t *result, uint8_t *memory, int across,
                     int down, int parts) {
    int wide = in_blocks(file->width, across), high = in_blocks(file->height, down);
    int width = in_blocks(file->width, 1), height = in_blocks(file->height, 1);
    int is_quad = across == 2 && down == 2 && parts > 1, luma = across * down;
    ptrdiff_t stride = (ptrdiff_t)wide * across;
    /* of a line, in blocks of luminance, and in pixels */
    ptrdiff_t from = (ptrdiff_t)window.left * across, count = (ptrdiff_t)window.right * across - from;
    ptrdiff_t drawn = width - from < count ? width - from : count;
    const uint8_t *data = scan->data;
    Row rows[PARTS];
    for (int i = 0; i < parts; i++) {
        Row *row = &rows[i];
        const uint8_t *quantiser = file->quantisers[file->part[i].quantiser];
        row->quantiser = quantiser[0];
        row->last = 0;
        row->means = taken(&memory, stride * down * sizeof *row->means);
        row->pixels = taken(&memory, stride * down);
        row->sums = taken(&memory, is_quad && i ? SUMS * wide * sizeof *row->sums : 0);
        make_shares(row->shares, quantiser);
    }
    const Segment *segment = scan->segments;
    const Run *run = &scan->runs[segment->run];
    const Token *token = run->tokens;
    int doubt = 0, left = file->interval;
    for (int line = 0; line < high; line++) {
        int is_drawn = line >= window.top && line < window.bottom;
        for (int i = 1; is_quad && is_drawn && i < parts; i++) memset(rows[i].sums, 0, SUMS * wide * sizeof *rows[i].sums);
        for (int column = 0; column < wide; column++, left--) {
            if (file->interval && !left) {
                if (!is_end(segment, token)) return 0;
                segment++;
                run = &scan->runs[segment->run];
                token = run->tokens;
                left = file->interval;
                for (int i = 0; i < parts; i++) rows[i].last = 0;
            }
            while (token >= run->end) {
                if (!run->next) return 0;
                run = &scan->runs[run->next];
                token = run->tokens;
            }
            if (is_quad && !(is_drawn && column >= window.left && column < window.right)) {
                Shape shape = shape_of(token, run->end);
                if (shape.all) { /* only the means count for those that follow */
                    for (int block = 0; block < 4; block++) rows[0].last += known_of(token[block].step);
                    rows[1].last += known_of(token[4].step);
                    rows[2].last += known_of(token[shape.red].step);
                    token += shape.all;
                    continue;
                }
            }
            Step all = FIRST, any = 0;
            for (int block = 0; block < luma; block++) all &= token[block].step, any |= token[block].step;
            if (!all || any & BAD) return 0;
            for (int block = 0; block < luma; block++) {
                ptrdiff_t place = block / across * stride + column * across + block % across;
                rows[0].means[place] = next_mean(&rows[0], data, token++);
            }
            for (int i = 1; i < parts; i++) {
                Row *row = &rows[i];
                if ((token->step & (FIRST | BAD)) != FIRST) return 0;
                row->means[column] = next_mean(row, data, token++);
                for (int place = 0; is_quad && !(token->step & FIRST); token++) {
                    if (token->step & BAD) return 0;
                    place += places_of(token->step) & (END - 1);
                    const Share *share = &row->shares[place & (BLOCK - 1)];
                    int32_t value = value_of(data, token);
                    doubt |= is_beyond(value, share->most);
                    row->sums[share->sum * wide + column] += share->weight * (uint32_t)value;
                }
            }
        }
        if (!is_drawn) continue;
        for (int y = 0; y < down; y++) {
            ptrdiff_t place = y * stride + from;
            doubt |= draw_means(rows[0].means + place, rows[0].quantiser, rows[0].pixels + place, count);
        }
        for (int i = 1; i < parts; i++) {
            const Row *row = &rows[i];
            uint8_t *pixels = row->pixels;
            if (is_quad) {
                doubt |= draw_quads(row->means, row->quantiser, row->sums, pixels, pixels + stride, wide, window.left,
                                    window.right);
                continue;
            }
            doubt |= draw_means(row->means, row->quantiser, pixels, wide);
            for (int x = across == 2 ? wide : 0; x--;) pixels[2 * x] = pixels[2 * x + 1] = pixels[x];
        }
        if (doubt) return 0;
        for (int y = 0; y < down && line * down + y < height; y++) {
            uint8_t *to = result + ((ptrdiff_t)(line * down + y) * width + from) * parts;
            ptrdiff_t place = y * stride + from, chroma = is_quad ? place : from; /* else one line is for both */
            if (parts == 1)
                memcpy(to, rows[0].pixels + place, drawn);
            else
                to_rgb(rows[0].pixels + place, rows[1].pixels + chroma, rows[2].pixels + chroma, to, drawn);
        }
    }
    return is_end(segment, token);
}

FAST static int draw_grey(const File *file, const Scan *scan, Window window, uint8_t *result, uint8_t *memory) {
    return draw(file, scan, window, result, memory, 1, 1, 1);
}

FAST static int draw_444(const File *file, const Scan *scan, Window window, uint8_t *result, uint8_t *memory) {
    return draw(file, scan, window, result, memory, 1, 1, PARTS);
}

FAST static int draw_422(const File *file, const Scan *scan, Window window, uint8_t *result, uint8_t *memory) {
    return draw(file, scan, window, result, memory, 2, 1, PARTS);
}

FAST static int draw_440(const File *file, const Scan *scan, Window window, uint8_t *result, uint8_t *memory) {
    return draw(file, scan, window, result, memory, 1, 2, PARTS);
}

FAST static int draw_420(const File *file, const Scan *scan, Window window, uint8_t *result, uint8_t *memory) {
    return draw(file, scan, window, result, memory, 2, 2, PARTS);
}

/* What a file of a size may need: blocks of a picture; tokens, one for each block, as many again that are read in vain
 * where segments and parts end, and one for each byte of the file, of which chrominance mostly takes less; and runs. */
typedef struct {
    ptrdiff_t blocks, tokens, runs;
} Needs;

INLINE ptrdiff_t in_slabs(ptrdiff_t tokens) { return (tokens / (SLAB - MOST_TOKENS) + CURSORS + 1) * SLAB; }

static Needs needs_of(ptrdiff_t size, int32_t width, int32_t height, int32_t parts) {
    Needs needs = {.blocks = ((ptrdiff_t)width / BLOCK_SIDE + 2) * ((ptrdiff_t)height / BLOCK_SIDE + 2) * parts};
    needs.tokens = in_slabs(3 * needs.blocks + size);
    needs.runs = needs.blocks + needs.tokens / SLAB + 2 * SHARED + 2;
    return needs;
}

/* The bytes between the markers of the scan. Returns whether these are the ones that belong there. */
static int read_segments(File *file, Scan *scan, uint8_t *to) {
    for (int i = 0; i < scan->segment_count; i++) {
        if (i) {
            if (file->end - file->data < 2 || file->data[1] != 0xd0 + (i - 1) % 8) return 0;
            file->data += 2;
        }
        scan->segments[i].from = (uint32_t)(to - scan->data);
        to = unstuffed(file, to);
    }
    scan->segments[scan->segment_count].from = (uint32_t)(to - scan->data);
    memset(to, 0, MARGIN);
    return file->end - file->data >= 2 && two_bytes(file->data) == 0xffd9;
}

/* The blocks of an MCU, and what is read of each component. */
static void plan_scan(const File *file, Scan *scan, int luma) {
    int same[PARTS] = {0, 1, 2};
    scan->blocks = luma + file->parts - 1;
    for (int i = 0; i < file->parts; i++) {
        const Part *part = &file->part[i];
        scan->tables[2 * i] = part->dc;
        scan->tables[2 * i + 1] = part->ac;
        scan->is_used[i] = i && luma == 4;
    }
    if (scan->tables[2] == scan->tables[4] && scan->tables[3] == scan->tables[5]) same[2] = 1;
    for (int i = 0; i < file->parts; i++)
        if (same[i] == i) make_steps(scan, 2 * i), make_steps(scan, 2 * i + 1);
    for (int block = 0; block < scan->blocks; block++)
        scan->part_of[block] = (uint8_t)same[block < luma ? 0 : block - luma + 1];
    make_states(scan);
}

/* Bytes of `memory` that a file of `size` bytes may need, whose picture has `width` x `height` pixels and `parts` bytes a
 * pixel. Little of it is touched where most of the file is not chrominance. */
ptrdiff_t labelmill_eighth_memory(ptrdiff_t size, int32_t width, int32_t height, int32_t parts) {
    Needs needs = needs_of(size, width, height, parts);
    ptrdiff_t rows = PARTS * ((ptrdiff_t)width / BLOCK_SIDE + 4) * 64;
    return (ptrdiff_t)(sizeof(File) + sizeof(Scan)) + needs.blocks * (ptrdiff_t)sizeof(Segment) +
           needs.runs * (ptrdiff_t)sizeof(Run) + size + MARGIN + needs.tokens * (ptrdiff_t)sizeof(Token) + rows + 40 * ALIGNED;
}

/* A picture of `width` x `height` pixels into `result`, an eighth of that each, rounded up, and `parts` bytes a pixel; of
 * it what lies from `left` and `top` to before `right` and `bottom`, in pixels of the result: the others may hold anything.
 * Returns whether it was: what is not a sound file of this size, its result holds anything. */
int labelmill_eighth(const uint8_t *data, ptrdiff_t size, int32_t width, int32_t height, int32_t parts, int32_t left,
                     int32_t top, int32_t right, int32_t bottom, uint8_t *result, uint8_t *memory) {
    File *file = taken(&memory, sizeof *file);
    Scan *scan = taken(&memory, sizeof *scan);
    memset(file, 0, sizeof *file);
    memset(scan, 0, sizeof *scan);
    file->data = data;
    file->end = data + size;
    file->adobe = -1;
    if (size > MOST_BYTES || !read_header(file)) return 0;
    if (file->width != width || file->height != height || file->parts != parts) return 0;
    const Part *first = &file->part[0];
    int across = parts == 1 ? 1 : first->across, down = parts == 1 ? 1 : first->down;
    int mcus = in_blocks(width, across) * in_blocks(height, down);
    Needs needs = needs_of(size, width, height, parts);
    scan->segment_count = file->interval ? (mcus + file->interval - 1) / file->interval : 1;
    scan->segments = taken(&memory, (size_t)(scan->segment_count + 1) * sizeof *scan->segments);
    scan->most_runs = (int)needs.runs;
    scan->runs = taken(&memory, (size_t)needs.runs * sizeof *scan->runs);
    uint8_t *bytes = taken(&memory, (size_t)size + MARGIN);
    scan->data = bytes;
    if (!read_segments(file, scan, bytes)) return 0;
    plan_scan(file, scan, across * down);
    /* a sound picture has so many blocks and coefficients, however long its file is; as many again may be read in vain, and
     * some behind each segment */
    int of_mcu = scan->blocks + (scan->is_used[1] ? 2 * (BLOCK - 1) : 0);
    ptrdiff_t most = in_slabs(2 * (ptrdiff_t)mcus * of_mcu + (ptrdiff_t)scan->segment_count * (STRETCH + of_mcu));
    scan->slab = taken(&memory, (size_t)needs.tokens * sizeof *scan->slab);
    scan->slabs_end = scan->slab + (most < needs.tokens ? most : needs.tokens);
    if (!read_scan(scan)) return 0;
    Window window = {left / across, top / down, (right + across - 1) / across, (bottom + down - 1) / down};
    if (parts == 1) return draw_grey(file, scan, window, result, memory);
    if (across == 1) return (down == 1 ? draw_444 : draw_440)(file, scan, window, result, memory);
    return (down == 1 ? draw_422 : draw_420)(file, scan, window, result, memory);
}

#endif
