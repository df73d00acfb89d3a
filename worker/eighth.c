/* Baseline JPEGs at an eighth of their size, to the very pixels of libjpeg-turbo (its jidctred.c, jdcolor.c).
 *
 * A pixel at an eighth is the mean of a block of 8 x 8, which is the block's first coefficient. All others of the
 * luminance have no use, and most of a file is theirs: here their codes are stepped over, several with each look into a
 * table. libjpeg-turbo decodes each one, and clears and scales a whole block. Only chrominance of half the size
 * needs more than its means, for two by two pixels of a block.
 *
 * Nothing is repaired: whatever is not a sound baseline file of a usual kind is left to libjpeg-turbo, which knows what to
 * say of it. No byte outside of what the caller hands over is read or written, whatever the file holds.
 *
 * No Python in here, see worker/kernels.py. The terms are those of ITU-T T.81.
 */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__) && defined(__GNUC__)

#define INLINE static inline __attribute__((always_inline))
#define FAST __attribute__((target("avx2,bmi2")))

enum {
    BLOCK = 64,        /* coefficients of a block */
    LONGEST = 16,      /* bits of a code */
    LOOK = 9,          /* bits that find one symbol */
    STRIDE = 12,       /* bits that find as many as they hold */
    END = 2 * BLOCK,   /* what the symbol for "no more in this block" adds to the place in it: beyond any other sum */
    PARTS = 3,         /* components */
    TABLES = 4,
    MOST_BLOCKS = 6,   /* of a minimum coded unit, MCU */
    /* Bytes that an MCU which is not sound may be read beyond its segment: a block has 64 codes of at most 16 + 11 bits. */
    MARGIN = MOST_BLOCKS * BLOCK * 27 / 8 + 64,
    MOST_DC = 11, MOST_AC = 10, /* bits of a coefficient's value, of samples of 8 bits */
    MOST_LEVEL = 2047, /* of a dequantised coefficient that sound encoders write; beyond it the sums here could overflow */
    MOST_SUM = 511,    /* of a pixel before it is clipped: beyond it libjpeg has one result in C and another one in SSE2 */
    MOST_SIDE = 65500, /* of a picture, as libjpeg has it */
};

/* A Huffman table. An entry of `one`: the bits of code and value in 6 bits, of the value alone in 4, then the steps to
 * the coefficient. An entry of `many`, of several codes and values: their bits in 6, then their steps. 0: look on. */
typedef struct {
    int is_made;
    const uint8_t *symbols;
    uint32_t first[LONGEST + 1], count[LONGEST + 1], index[LONGEST + 1]; /* the codes of a length, and their symbols */
    uint32_t one[1 << LOOK];
    uint16_t many[1 << STRIDE];
} Table;

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

/* The next bits of a segment, the first one highest. The low six bits of `left` count those that are sure to be there. */
typedef struct {
    uint64_t bits, left;
    const uint8_t *at;
} Bits;

INLINE uint64_t eight_bytes(const uint8_t *at) {
    uint64_t value;
    memcpy(&value, at, sizeof value);
    return __builtin_bswap64(value);
}

/* At least 56 bits are there then. What is read twice gives the same bits. */
INLINE void refill(Bits *in) {
    in->bits |= eight_bytes(in->at) >> (in->left & 63);
    in->at += (63 - (in->left & 63)) >> 3;
    in->left |= 56;
}

/* Takes as many bits as the low six of an entry say. */
INLINE void drop(Bits *in, uint32_t entry) {
    in->bits <<= entry & 63;
    in->left -= entry;
}

/* An entry for one symbol whose code has `length` bits; 0 where sound files do not have it. */
static uint32_t entry(int length, int symbol, int is_ac) {
    int size = symbol & 15, run = symbol >> 4;
    if (is_ac ? size > MOST_AC || (size == 0 && run != 0 && run != 15) : symbol > MOST_DC) return 0;
    return (uint32_t)(length + size) | (uint32_t)size << 6 | (uint32_t)(symbol ? run + 1 : END) << 10;
}

INLINE int bits_of(uint32_t entry) { return entry & 63; }
INLINE int size_of(uint32_t entry) { return entry >> 6 & 15; }
INLINE int steps_of(uint32_t entry) { return entry >> 10; }

/* The symbol that `bits` begin with, whose code has `length` bits at the least; 0 where there is none. */
static uint32_t look(const Table *table, uint64_t bits, int length, int is_ac) {
    for (; length <= LONGEST; length++) {
        uint32_t number = (uint32_t)(bits >> (64 - length)) - table->first[length];
        if (number < table->count[length]) return entry(length, table->symbols[table->index[length] + number], is_ac);
    }
    return 0;
}

/* T.81, annex C: codes of a length follow each other. `counts`: of the lengths 1 to 16; the symbols are behind them. */
static int make_table(Table *table, const uint8_t *counts, int is_ac) {
    uint32_t code = 0, index = 0;
    table->symbols = counts + LONGEST;
    for (int length = 1; length <= LONGEST; length++, code <<= 1) {
        uint32_t count = counts[length - 1];
        table->first[length] = code;
        table->count[length] = count;
        table->index[length] = index;
        index += count;
        code += count;
        if (code >= 1u << length) return 0; /* no code is all ones */
    }
    for (uint32_t i = 0; i < index; i++)
        if (!is_ac && table->symbols[i] > 15) return 0;
    for (uint64_t bits = 0; bits < 1 << LOOK; bits++) {
        uint32_t found = look(table, bits << (64 - LOOK), 1, is_ac);
        table->one[bits] = bits_of(found) - size_of(found) <= LOOK ? found : 0;
    }
    for (uint64_t bits = 0; is_ac && bits < 1 << STRIDE; bits++) {
        int used = 0, steps = 0;
        while (used < STRIDE && steps < BLOCK) {
            uint64_t rest = bits << (64 - STRIDE + used);
            uint32_t found = table->one[rest >> (64 - LOOK)];
            if (!found) found = look(table, rest, LOOK + 1, is_ac);
            /* only the last value may go on outside of these bits */
            if (!found || used + bits_of(found) - size_of(found) > STRIDE) break;
            if (steps && steps_of(found) != END && steps + steps_of(found) >= BLOCK) break;
            used += bits_of(found);
            steps += steps_of(found);
        }
        table->many[bits] = (uint16_t)(used | steps << 6);
    }
    table->is_made = 1;
    return 1;
}

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

static int read_scan(File *file, const uint8_t *at, const uint8_t *end) {
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
            return read_scan(file, body, end) && (file->parts == 1 || is_ycc(file));
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
    memset(to, 0, MARGIN);
    return to;
}

/* One symbol of a block, off the bits. */
INLINE uint32_t next(Bits *in, const Table *table, int is_ac) {
    uint32_t found = table->one[in->bits >> (64 - LOOK)];
    return __builtin_expect(found != 0, 1) ? found : look(table, in->bits, LOOK + 1, is_ac);
}

/* Two by two pixels of a block are made of its first, second, fourth, sixth and eighth rows and columns alone. `places`:
 * of the coefficients in a square of five by five, in the order of a file (T.81, figure A.6); the last is for all others.
 * `odds`: 1/(sqrt(2) sin(k pi/16)) for the odd frequencies k = 1, 3, 5 and 7, with the signs that their halves have, in
 * 13 bits. */
enum { SQUARE = 5, NOWHERE = SQUARE * SQUARE };
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

/* The value behind a code (T.81, figure F.12), taken off the bits with it. */
INLINE int32_t value(Bits *in, uint32_t found) {
    int size = size_of(found), length = bits_of(found) - size;
    int32_t raw = (int32_t)(in->bits << length >> 1 >> (63 - size));
    int32_t is_negative = (raw - (1 << size >> 1)) >> 31; /* all ones: no branch, for there is no telling which way */
    drop(in, found);
    return raw + (is_negative & (1 - (1 << size)));
}

/* What the blocks of a component have in common, and the mean of the last one. */
typedef struct {
    const Table *dc, *ac;
    int32_t quantiser, last;
    Share shares[BLOCK]; /* of a component of half the size */
    uint8_t *line;       /* the first of those pixels that the MCUs of a row make */
} Lane;

/* The mean of the next block, dequantised; what is no sound one is noted in `doubt`. There are bits for a symbol then. */
INLINE int32_t mean(Bits *in, Lane *lane, int *doubt) {
    refill(in);
    uint32_t found = next(in, lane->dc, 0);
    int32_t sum = (lane->last += value(in, found)) * lane->quantiser;
    *doubt |= (found == 0) | (sum > MOST_LEVEL) | (sum < -MOST_LEVEL);
    return sum;
}

/* A pixel of a sum that was made for -128..127. */
INLINE uint8_t level(int32_t sum) {
    sum += 128;
    return sum < 0 ? 0 : sum > 255 ? 255 : (uint8_t)sum;
}

/* The bits behind the rest of a block, whose symbols are taken one after the other; none where it is not sound. */
FAST static Bits stepped_over(Bits in, const Table *table) {
    int place = 0;
    while (place < BLOCK - 1) {
        refill(&in);
        uint32_t found = next(&in, table, 1);
        if (!found) return (Bits){0};
        drop(&in, found);
        place += steps_of(found);
    }
    return place == BLOCK - 1 || place >= END ? in : (Bits){0};
}

/* As many symbols as one look finds; returns the steps they take. */
INLINE int stride(Bits *in, const Table *table, int *doubt) {
    uint32_t found = table->many[in->bits >> (64 - STRIDE)];
    if (__builtin_expect(found != 0, 1)) {
        drop(in, found);
        return found >> 6;
    }
    found = look(table, in->bits, STRIDE + 1, 1);
    *doubt |= found == 0;
    drop(in, found);
    return found ? steps_of(found) : END;
}

/* Steps over the rest of a block. */
INLINE void skip(Bits *in, const Table *table, int *doubt) {
    Bits before = *in;
    int place = stride(in, table, doubt);
    while (place < BLOCK - 1) {
        refill(in);
        place += stride(in, table, doubt);
        if (place >= BLOCK - 1) break;
        place += stride(in, table, doubt);
    }
    /* the last coefficient needs no end; where it is passed, some of the codes were another block's */
    if (__builtin_expect((place < END && place != BLOCK - 1) || place >= END + BLOCK - 1, 0)) {
        Bits after = stepped_over(before, table);
        if (after.at)
            *in = after;
        else
            *doubt = 1;
    }
}

/* Two by two pixels of a block of chrominance, at `to` and a line below. The sums are unsigned as those of a block that is
 * not sound may overflow, which comes to nothing. */
INLINE void two_by_two(Bits *in, Lane *lane, uint8_t *to, ptrdiff_t stride, int *doubt) {
    int32_t first = mean(in, lane, doubt);
    uint32_t found = next(in, lane->ac, 1);
    int place = steps_of(found);
    if (place == END) {
        drop(in, found);
        memset(to, level((first + 4) >> 3), 2);
        memcpy(to + stride, to, 2);
        return;
    }
    uint32_t sums[2 * SQUARE + 1] = {(uint32_t)first << 15};
    for (;;) {
        if (!found || place >= BLOCK) {
            *doubt = 1;
            return;
        }
        const Share *share = &lane->shares[place];
        int32_t raw = value(in, found);
        *doubt |= (raw > share->most) | (raw < -share->most);
        sums[share->sum] += share->weight * (uint32_t)raw;
        if (place == BLOCK - 1) break;
        refill(in);
        found = next(in, lane->ac, 1);
        place += steps_of(found);
        if (place >= END) {
            drop(in, found);
            break;
        }
    }
    int32_t top[SQUARE], bottom[SQUARE];
    for (int x = 0; x < SQUARE; x++) {
        uint32_t even = sums[x] + (1 << 12), odd = sums[SQUARE + x];
        top[x] = (int32_t)(even + odd) >> 13;
        bottom[x] = (int32_t)(even - odd) >> 13;
    }
    for (int y = 0; y < 2; y++) {
        const int32_t *line = y ? bottom : top;
        uint32_t even = ((uint32_t)line[0] << 15) + (1 << 19), odd = 0;
        for (int x = 1; x < SQUARE; x++) odd += odds[x] * (uint32_t)line[x];
        int32_t left = (int32_t)(even + odd) >> 20, right = (int32_t)(even - odd) >> 20;
        *doubt |= (left > MOST_SUM) | (left < -MOST_SUM) | (right > MOST_SUM) | (right < -MOST_SUM);
        to[y * stride] = level(left);
        to[y * stride + 1] = level(right);
    }
}

/* A line of YCbCr as RGB, with the weights of ITU-R BT.601 in 16 bits. */
FAST static void to_rgb(const uint8_t *y, const uint8_t *blue, const uint8_t *red, uint8_t *to, int width) {
    for (int x = 0; x < width; x++) {
        int32_t luma = y[x], cb = blue[x] - 128, cr = red[x] - 128;
        int32_t r = luma + ((91881 * cr + 32768) >> 16);
        int32_t g = luma + ((-22554 * cb - 46802 * cr + 32768) >> 16);
        int32_t b = luma + ((116130 * cb + 32768) >> 16);
        to[3 * x] = r < 0 ? 0 : r > 255 ? 255 : r;
        to[3 * x + 1] = g < 0 ? 0 : g > 255 ? 255 : g;
        to[3 * x + 2] = b < 0 ? 0 : b > 255 ? 255 : b;
    }
}

/* Whether a segment was read to its end, and nothing but the bits that fill its last byte is left. */
INLINE int is_read(const Bits *in, const uint8_t *end) {
    ptrdiff_t left = (end - in->at) * 8 + (ptrdiff_t)(in->left & 63);
    return left >= 0 && left < 8;
}

/* One MCU, whose pixels begin at `column` of each line. `across` x `down` blocks of luminance stand beside one of each
 * chrominance. */
INLINE void read_mcu(Bits *in, Lane lanes[PARTS], int column, ptrdiff_t stride, int across, int down, int parts, int *doubt) {
#pragma GCC unroll 4
    for (int block = 0; block < across * down; block++) {
        uint8_t *to = lanes[0].line + block / across * stride + column + block % across;
        *to = level((mean(in, &lanes[0], doubt) + 4) >> 3);
        skip(in, lanes[0].ac, doubt);
    }
    for (int i = 1; i < parts; i++) {
        uint8_t *to = lanes[i].line + column;
        if (across == 2 && down == 2) {
            two_by_two(in, &lanes[i], to, stride, doubt);
            continue;
        }
        to[0] = level((mean(in, &lanes[i], doubt) + 4) >> 3);
        if (across == 2) to[1] = to[0];
        if (down == 2) to[stride] = to[0];
        skip(in, lanes[i].ac, doubt);
    }
}

/* All MCUs, a row of them after the other, and in segments between restart markers where there are any. */
INLINE int read_mcus(File *file, uint8_t *result, uint8_t *lines, uint8_t *scratch, int across, int down, int parts) {
    int wide = (file->width + 8 * across - 1) / (8 * across), high = (file->height + 8 * down - 1) / (8 * down);
    int width = (file->width + 7) / 8, height = (file->height + 7) / 8;
    int doubt = 0, in_segment = 0, segments = 0;
    ptrdiff_t stride = (ptrdiff_t)wide * across;
    Lane lanes[PARTS];
    for (int i = 0; i < parts; i++) {
        const Part *part = &file->part[i];
        const uint8_t *quantiser = file->quantisers[part->quantiser];
        lanes[i] = (Lane){part->dc, part->ac, .quantiser = quantiser[0], .line = lines + i * stride * down};
        make_shares(lanes[i].shares, quantiser);
    }
    Bits in = {.at = scratch};
    const uint8_t *end = unstuffed(file, scratch);
    for (int row = 0; row < high; row++) {
        for (int column = 0; column < wide; column++, in_segment++) {
            if (file->interval && in_segment == file->interval) {
                const uint8_t *marker = file->data;
                if (!is_read(&in, end) || file->end - marker < 2 || marker[1] != 0xd0 + segments++ % 8) return 0;
                file->data += 2;
                end = unstuffed(file, scratch);
                in = (Bits){.at = scratch};
                for (int i = 0; i < parts; i++) lanes[i].last = 0;
                in_segment = 0;
            }
            read_mcu(&in, lanes, column * across, stride, across, down, parts, &doubt);
            if (__builtin_expect(doubt || in.at > end + 8, 0)) return 0;
        }
        for (int y = 0; y < down && row * down + y < height; y++) {
            uint8_t *to = result + (ptrdiff_t)(row * down + y) * width * parts;
            const uint8_t *luma = lanes[0].line + y * stride;
            if (parts == 1)
                memcpy(to, luma, width);
            else
                to_rgb(luma, lanes[1].line + y * stride, lanes[2].line + y * stride, to, width);
        }
    }
    return is_read(&in, end) && file->end - file->data >= 2 && two_bytes(file->data) == 0xffd9;
}

FAST static int read_grey(File *file, uint8_t *result, uint8_t *lines, uint8_t *scratch) {
    return read_mcus(file, result, lines, scratch, 1, 1, 1);
}

FAST static int read_444(File *file, uint8_t *result, uint8_t *lines, uint8_t *scratch) {
    return read_mcus(file, result, lines, scratch, 1, 1, PARTS);
}

FAST static int read_422(File *file, uint8_t *result, uint8_t *lines, uint8_t *scratch) {
    return read_mcus(file, result, lines, scratch, 2, 1, PARTS);
}

FAST static int read_440(File *file, uint8_t *result, uint8_t *lines, uint8_t *scratch) {
    return read_mcus(file, result, lines, scratch, 1, 2, PARTS);
}

FAST static int read_420(File *file, uint8_t *result, uint8_t *lines, uint8_t *scratch) {
    return read_mcus(file, result, lines, scratch, 2, 2, PARTS);
}

/* Bytes of `scratch` that a file of `size` bytes may need, whose picture is at most `width` pixels wide. */
ptrdiff_t labelmill_eighth_scratch(ptrdiff_t size, int32_t width) {
    return (ptrdiff_t)sizeof(File) + size + MARGIN + PARTS * 2 * ((ptrdiff_t)width / 8 + 4);
}

/* A picture of `width` x `height` pixels into `result`, an eighth of that each, rounded up, and `parts` bytes a pixel.
 * Returns whether it was: what is not a sound file of this size, its result holds anything. */
int labelmill_eighth(const uint8_t *data, ptrdiff_t size, int32_t width, int32_t height, int32_t parts, uint8_t *result,
                     void *scratch) {
    File *file = scratch;
    memset(file, 0, sizeof *file);
    file->data = data;
    file->end = data + size;
    file->adobe = -1;
    if (!read_header(file) || file->width != width || file->height != height || file->parts != parts) return 0;
    uint8_t *lines = (uint8_t *)(file + 1), *segment = lines + PARTS * 2 * ((ptrdiff_t)width / 8 + 4);
    const Part *first = &file->part[0];
    if (parts == 1) return read_grey(file, result, lines, segment);
    if (first->across == 1) return (first->down == 1 ? read_444 : read_440)(file, result, lines, segment);
    return (first->down == 1 ? read_422 : read_420)(file, result, lines, segment);
}

#endif
