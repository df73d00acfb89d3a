/* The Huffman codes of a JPEG's scan, read by four cursors at once, for means of blocks; see eighth.c.
 *
 * Where a code begins is known only when the one before it has been read, and a processor waits for that most of the time.
 * So four cursors take turns, each in a part of the scan. All but the first begin somewhere in the middle, at what may be no
 * code at all, and come into step by themselves, mostly within a few MCUs: Huffman codes do (Ferguson and Rabinowitz,
 * "Self-synchronizing Huffman codes", 1984; Klein and Wiseman, "Parallel Huffman decoding with applications to JPEG files",
 * 2003). The cursor in the part before goes on until it stands at the very bit where the next one has begun an MCU. From
 * there on both would read the same, so that nothing is taken on trust.
 *
 * What a step of a cursor does is looked up, by the next bits and by where in an MCU it is. The one branch that depends on
 * the file is for what no table has, and hardly ever taken in a photograph. Coefficients that have no use are stepped over,
 * several at a time.
 */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(begin, size) ((void)0)
#endif

#define INLINE static inline __attribute__((always_inline))
#define FAST __attribute__((target("avx2,bmi2")))

enum {
    BLOCK = 64,                    /* coefficients of a block */
    LONGEST = 16,                  /* bits of a code */
    MOST_DC = 11, MOST_AC = 10,    /* bits of a coefficient's value, of samples of 8 bits */
    LOOK = 11,                     /* bits that a step looks at */
    MOST_STEP = LONGEST + MOST_DC, /* bits that it takes */
    END = 2 * BLOCK,               /* places that "no more in this block" goes on by: beyond any other sum */
    PLACES = 2 * END,              /* that a block's steps may come to */
    PARTS = 3,                     /* components */
    MOST_BLOCKS = 6,               /* of a minimum coded unit, MCU */
    CURSORS = 4,
    STRETCH = 8,                   /* steps of each between two looks at where they are */
    NEAR = 64,                     /* bits that a stretch takes, more or less: from there on a cursor goes alone */
    WORTH = 1 << 14,               /* bits that are worth being shared with a cursor that has nothing to do */
    PATIENCE = 1 << 15,            /* bits that a cursor reads on until the next run is in step */
    SHARED = 64,                   /* times that this is done */
    SLAB = 4096,                   /* tokens that a cursor is given room for */
    /* Tokens of an MCU that is not sound and of a stretch, the one behind a run, and one that stays untouched. */
    MOST_TOKENS = MOST_BLOCKS * (BLOCK + 1) + STRETCH + 2,
    /* Bytes that may be read behind the scan, until such an MCU comes to its end. */
    MARGIN = (MOST_BLOCKS * BLOCK + STRETCH) * MOST_STEP / 8 + 64,
};

/* A symbol: the bits of its code and value, those of the value alone, and the places to the coefficient. No bits: sound
 * files do not have it. */
typedef struct {
    uint8_t bits, size, places;
} Symbol;

/* The codes of a Huffman table. Those of a length follow each other, and so do their symbols. */
typedef struct {
    int is_made, is_ac;
    const uint8_t *symbols;
    uint32_t first[LONGEST + 1], count[LONGEST + 1], index[LONGEST + 1];
    Symbol quick[1 << LOOK]; /* of the codes that these bits begin with */
} Table;

/* One step of a cursor: one symbol, or several. From the lowest bit on: the bits that it takes in 8 bits; the places that
 * it goes on by in 8; the first symbol's value in 12, or, unless it is KNOWN, the bits of that symbol's code and value
 * in 5 and of its value in 4. 0: no table has it. */
typedef uint32_t Step;
#define TOKEN 0x80000000u /* the first symbol's value is of use */
#define FIRST 0x40000000u /* it is a block's first coefficient */
#define BAD 0x20000000u   /* there is no such code */
#define KNOWN 0x10000000u

/* Where a cursor is in an MCU. In the low half its block, in PLACES of them each, and the place in it; in the high one
 * where the table for the next step begins. */
typedef uint32_t State;

/* A step whose value is of use, and the bit of the scan where it begins. */
typedef struct {
    uint32_t at;
    Step step;
} Token;

/* The tokens of MCUs that follow each other. At `end` there is one more, of what follows. */
typedef struct {
    Token *tokens, *end;
    uint32_t from; /* the bit where it begins */
    int next;      /* the run that goes on where this one ends; 0: the segment ends there */
    int is_open;   /* the next run is not in step with it */
} Run;

/* What lies between two markers: the byte of the scan where it begins, and the run that does. */
typedef struct {
    uint32_t from;
    int run;
} Segment;

typedef struct {
    uint64_t at, end;    /* bits: the next one; the end of the segment */
    uint64_t due, limit; /* where the next run begins; where to look whether it is in step, at `end` at the latest */
    State state;
    int run; /* 0: it has nothing to do */
    Token *to, *full;
    Token *met; /* of the next run: what is before it begins no MCU where this cursor will */
    int blocks; /* of that run before `met` */
} Cursor;

typedef struct {
    const uint8_t *data; /* without markers and stuffed bytes, with a MARGIN of zeros */
    int blocks;          /* of an MCU */
    uint8_t part_of[MOST_BLOCKS]; /* the component of each, or an earlier one with the same tables */
    const Table *tables[2 * PARTS]; /* of each component: DC, AC */
    uint8_t is_used[PARTS]; /* whether all coefficients of a component are of use, and not only the first */
    State start;            /* of an MCU */
    Segment *segments;      /* one more than there are, for where the last one ends */
    int segment, segment_count;
    Run *runs;
    int run_count, most_runs;
    Token *slab, *slabs_end; /* room for tokens that no cursor has yet */
    int shared, is_full;
    uint64_t patience;
    Cursor cursors[CURSORS];
    State states[MOST_BLOCKS * PLACES];
    /* One table after the other. In the last one is nothing: what must be looked at more closely leads there. */
    Step steps[(2 * PARTS + 1) << LOOK];
} Scan;

INLINE int bits_of(Step step) { return step & 255; }
INLINE int places_of(Step step) { return step >> 8 & 255; }

INLINE uint64_t eight_bytes(const uint8_t *at) {
    uint64_t value;
    memcpy(&value, at, sizeof value);
    return __builtin_bswap64(value);
}

/* What follows a bit of the scan, the next one highest: 57 bits at the least, enough for two steps. */
INLINE uint64_t bits_from(const uint8_t *data, uint64_t at) { return eight_bytes(data + (at >> 3)) << (at & 7); }

/* The value behind a code (T.81, figure F.12): the last `size` of the `length` bits that `bits` begin with. */
INLINE int32_t extended(uint64_t bits, int length, int size) {
    int32_t raw = (int32_t)(bits << (length - size) >> 1 >> (63 - size));
    int32_t is_negative = (raw - (1 << size >> 1)) >> 31; /* all ones: no branch, for there is no telling which way */
    return raw + (is_negative & (1 - (1 << size)));
}

/* The value of the first symbol of a step that is KNOWN. */
INLINE int32_t known_of(Step step) { return (int32_t)(step << 4) >> 20; }

/* The value of a token's symbol. */
INLINE int32_t value_of(const uint8_t *data, const Token *token) {
    if (__builtin_expect(!!(token->step & KNOWN), 1)) return known_of(token->step);
    return extended(bits_from(data, token->at), token->step >> 16 & 31, token->step >> 21 & 15);
}

static Symbol symbol_of(int length, int symbol, int is_ac) {
    int size = symbol & 15, run = symbol >> 4;
    if (is_ac ? size > MOST_AC || (size == 0 && run != 0 && run != 15) : symbol > MOST_DC) return (Symbol){0};
    return (Symbol){(uint8_t)(length + size), (uint8_t)size, (uint8_t)(!is_ac ? 0 : symbol ? run + 1 : END)};
}

/* The symbol that `bits` begin with. */
static Symbol look(const Table *table, uint64_t bits) {
    Symbol found = table->quick[bits >> (64 - LOOK)];
    for (int length = LOOK + 1; !found.bits && length <= LONGEST; length++) {
        uint32_t number = (uint32_t)(bits >> (64 - length)) - table->first[length];
        if (number < table->count[length])
            return symbol_of(length, table->symbols[table->index[length] + number], table->is_ac);
    }
    return found;
}

/* T.81, annex C. `counts`: of the lengths 1 to 16; the symbols are behind them. */
static int make_table(Table *table, const uint8_t *counts, int is_ac) {
    uint32_t code = 0, index = 0;
    table->is_ac = is_ac;
    table->symbols = counts + LONGEST;
    for (int length = 1; length <= LONGEST; length++, code <<= 1) {
        uint32_t count = counts[length - 1];
        if (code + count >= 1u << length) return 0; /* no code is all ones */
        table->first[length] = code;
        table->count[length] = count;
        table->index[length] = index;
        for (; count--; code++, index++) {
            if (!is_ac && table->symbols[index] > 15) return 0;
            Symbol symbol = symbol_of(length, table->symbols[index], is_ac);
            int free = LOOK - length; /* bits of a look behind the code */
            for (uint32_t i = 0; free >= 0 && i < 1u << free; i++) table->quick[(code << free) + i] = symbol;
        }
    }
    table->is_made = 1;
    return 1;
}

static Step step_of(Symbol symbol, uint32_t flags) {
    return (uint32_t)symbol.bits | (uint32_t)symbol.places << 8 | (uint32_t)symbol.bits << 16 |
           (uint32_t)symbol.size << 21 | flags;
}

/* What is said of a symbol as the first one of a step. */
static uint32_t flags_of(const Scan *scan, int table, Symbol symbol) {
    if (!(table & 1)) return TOKEN | FIRST;
    return scan->is_used[table / 2] && symbol.places != END ? TOKEN : 0;
}

/* The steps of a component's DC or AC symbols, with those behind them that have no use. */
static void make_steps(Scan *scan, int table) {
    const Table *ac = scan->tables[table | 1];
    for (uint64_t i = 0; i < 1 << LOOK; i++) {
        uint64_t bits = i << (64 - LOOK);
        Symbol symbol = scan->tables[table]->quick[i];
        if (!symbol.bits) continue;
        Step step = step_of(symbol, flags_of(scan, table, symbol));
        if (symbol.bits <= LOOK)
            step = (step & 0xf000ffff) | KNOWN | ((uint32_t)extended(bits, symbol.bits, symbol.size) & 0xfff) << 16;
        int used = symbol.bits, place = symbol.places;
        while (used < LOOK && place < BLOCK - 1) {
            Symbol next = ac->quick[bits << used >> (64 - LOOK)];
            /* only the last value may go on outside of these bits */
            if (!next.bits || used + next.bits - next.size > LOOK) break;
            if (next.places != END && (scan->is_used[table / 2] || place + next.places >= BLOCK)) break;
            used += next.bits;
            place += next.places;
        }
        scan->steps[((uint64_t)table << LOOK) + i] = (step & ~0xffffu) | (uint32_t)used | (uint32_t)place << 8;
    }
}

/* What comes after each place in each block. */
static void make_states(Scan *scan) {
    for (int block = 0; block < scan->blocks; block++) {
        int after = (block + 1) % scan->blocks;
        for (int place = 0; place < PLACES; place++) {
            int here = block * PLACES + place, table;
            State *state = &scan->states[here];
            *state = (State)here;
            if (place < BLOCK - 1) {
                table = 2 * scan->part_of[block] + 1;
            } else if (place == BLOCK - 1 || (place >= END && place < END + BLOCK - 1)) {
                table = 2 * scan->part_of[after];
                *state = (State)(after * PLACES);
            } else { /* the last coefficient needs no end: some of the codes were another block's */
                table = 2 * PARTS;
            }
            *state |= (State)table << (LOOK + 16);
        }
    }
    scan->start = (State)(2 * scan->part_of[0]) << (LOOK + 16);
}

typedef struct {
    uint64_t at;
    Step step;
    State state;
} Place;

/* Where a block ends whose last step, the one that begins at `last`, went beyond it. */
static Place end_of_block(const Scan *scan, State state, const Token *last) {
    int beyond = (int)(state & 0xffff), place = beyond % PLACES - places_of(last->step);
    const Table *ac = scan->tables[2 * scan->part_of[beyond / PLACES] + 1];
    uint64_t at = last->at;
    while (place < BLOCK - 1) {
        Symbol symbol = look(ac, bits_from(scan->data, at));
        if (!symbol.bits) break;
        at += symbol.bits;
        place += symbol.places;
    }
    int is_sound = place == BLOCK - 1 || place >= END;
    /* a step that takes no bits, at the end of the block; or one that says that this is none */
    return (Place){at, is_sound ? 1 << 8 : TOKEN | BAD | 1 << 8 | 1, (State)(beyond - beyond % PLACES + BLOCK - 2)};
}

/* The step that is in no table. */
static __attribute__((noinline)) Place look_closely(const Scan *scan, uint64_t at, State state, const Token *to) {
    int table = (int)(state >> (LOOK + 16));
    if (table == 2 * PARTS) {
        /* what the last step has put down is still there, whether it is a token or not */
        int is_token = scan->is_used[scan->part_of[(state & 0xffff) / PLACES]];
        return end_of_block(scan, state, to - is_token);
    }
    Symbol symbol = look(scan->tables[table], bits_from(scan->data, at));
    Step step = step_of(symbol, flags_of(scan, table, symbol));
    if (!symbol.bits) step = TOKEN | BAD | (table & 1 ? 0 : FIRST) | END << 8 | 1;
    return (Place){at, step, state};
}

/* A step of a cursor whose next bits are known. */
INLINE void take_step(const Scan *scan, uint64_t *bits, uint64_t *at, State *state, Token **to) {
    Step step = scan->steps[(*bits >> (64 - LOOK)) + (*state >> 16)];
    if (__builtin_expect(!step, 0)) {
        Place found = look_closely(scan, *at, *state, *to);
        *at = found.at;
        step = found.step;
        *state = found.state;
        *bits = bits_from(scan->data, *at);
    }
    **to = (Token){(uint32_t)*at, step};
    *to += step >> 31;
    *at += bits_of(step);
    *bits <<= bits_of(step);
    *state = scan->states[(*state & 0xffff) + places_of(step)];
}

/* All cursors, until one of them is near its limit or has no more room. */
FAST static void read_together(Scan *scan) {
    const uint8_t *data = scan->data;
    uint64_t at[CURSORS], limit[CURSORS], bits[CURSORS];
    State state[CURSORS];
    Token *to[CURSORS], *full[CURSORS];
#define EACH _Pragma("GCC unroll 4") for (int k = 0; k < CURSORS; k++)
    EACH {
        const Cursor *cursor = &scan->cursors[k];
        at[k] = cursor->at, limit[k] = cursor->limit, state[k] = cursor->state;
        to[k] = cursor->to, full[k] = cursor->full;
    }
    for (int go_on = 1; go_on;) {
#pragma GCC unroll 4
        for (int i = 0; i < STRETCH; i += 2) {
            EACH bits[k] = bits_from(data, at[k]);
            EACH take_step(scan, &bits[k], &at[k], &state[k], &to[k]);
            EACH take_step(scan, &bits[k], &at[k], &state[k], &to[k]);
        }
        EACH go_on &= (at[k] + NEAR < limit[k]) & (to[k] < full[k]);
    }
    EACH {
        Cursor *cursor = &scan->cursors[k];
        cursor->at = at[k], cursor->state = state[k], cursor->to = to[k];
    }
#undef EACH
}

/* Whether a cursor has to go alone: what comes next for it is not only the next step. */
static int is_due(const Cursor *cursor) { return cursor->at + NEAR >= cursor->limit || cursor->to >= cursor->full; }

/* One cursor, to the beginning of the next MCU. */
FAST static void read_mcu(const Scan *scan, Cursor *cursor) {
    uint64_t at = cursor->at;
    State state = cursor->state;
    Token *to = cursor->to;
    do {
        uint64_t bits = bits_from(scan->data, at);
        take_step(scan, &bits, &at, &state, &to);
    } while (state != scan->start);
    cursor->at = at, cursor->state = state, cursor->to = to;
}

/* Begins a run at the beginning of an MCU, where the cursor is. Returns its number; 0: there is no more room. */
static int begin(Scan *scan, Cursor *cursor, int next) {
    if (cursor->to >= cursor->full) {
        if (scan->slabs_end - scan->slab < SLAB) return 0;
        cursor->to = scan->slab;
        scan->slab += SLAB;
        ASAN_POISON_MEMORY_REGION(scan->slab - 1, sizeof *scan->slab);
        cursor->full = scan->slab - MOST_TOKENS;
    }
    if (scan->run_count == scan->most_runs) return 0;
    scan->runs[scan->run_count] = (Run){.tokens = cursor->to, .from = (uint32_t)cursor->at, .next = next};
    return cursor->run = scan->run_count++;
}

static void end(Scan *scan, Cursor *cursor) {
    scan->runs[cursor->run].end = cursor->to;
    *cursor->to++ = (Token){(uint32_t)cursor->at, FIRST};
    cursor->run = 0;
}

/* Has a cursor look out for the beginnings of MCUs in a run; 0: for the end of its segment. */
static void expect(const Scan *scan, Cursor *cursor, int next) {
    cursor->limit = next ? scan->runs[next].from : cursor->end;
    cursor->met = scan->runs[next].tokens;
    cursor->blocks = 0;
}

/* Gives a cursor the next segment, or the second half of what lies before the one with the longest way. */
static void find_work(Scan *scan, Cursor *cursor) {
    cursor->state = scan->start;
    if (scan->segment < scan->segment_count) {
        Segment *segment = &scan->segments[scan->segment++];
        cursor->at = (uint64_t)segment[0].from * 8;
        cursor->due = cursor->end = (uint64_t)segment[1].from * 8;
        segment->run = begin(scan, cursor, 0);
        scan->is_full |= !segment->run;
        expect(scan, cursor, 0);
        return;
    }
    Cursor *other = NULL;
    int64_t most = WORTH - 1;
    for (int k = 0; k < CURSORS; k++) {
        int64_t left = (int64_t)(scan->cursors[k].due - scan->cursors[k].at);
        if (scan->cursors[k].run && left > most) most = left, other = &scan->cursors[k];
    }
    if (!other || scan->shared == SHARED) return;
    Run *run = &scan->runs[other->run];
    int next = run->next;
    cursor->at = (other->at + (uint64_t)most / 2) & ~(uint64_t)7;
    cursor->end = other->end;
    int number = begin(scan, cursor, next);
    if (!number) return;
    scan->shared++;
    run->next = number;
    cursor->due = other->due;
    expect(scan, cursor, next);
    other->due = cursor->at;
    expect(scan, other, number);
}

/* Whether a cursor at the beginning of an MCU has nothing more to read: the next run has begun one there, or the segment
 * has come to its end. */
static int has_arrived(Scan *scan, Cursor *cursor) {
    Run *run = &scan->runs[cursor->run];
    if (cursor->at >= cursor->end) {
        run->next = 0;
        return 1;
    }
    while (run->next && cursor->at >= cursor->limit) {
        Run *next = &scan->runs[run->next];
        Token *stop = next->end;
        for (int k = 0; k < CURSORS; k++)
            if (scan->cursors[k].run == run->next) stop = scan->cursors[k].to;
        for (; cursor->met < stop && cursor->met->at < cursor->at; cursor->met++)
            cursor->blocks += !!(cursor->met->step & FIRST);
        if (cursor->met == stop && next->end) { /* it was never in step: on to what follows it */
            run->next = next->next;
            expect(scan, cursor, run->next);
            continue;
        }
        int is_met = cursor->met < stop && cursor->met->at == cursor->at && cursor->met->step & FIRST;
        if (is_met && cursor->blocks % scan->blocks == 0) {
            next->tokens = cursor->met;
            return 1;
        }
        uint64_t late = cursor->at - cursor->due;
        run->is_open = late > scan->patience;
        /* where both have begun an MCU at the same bit, they do so at all later ones: there is no haste */
        uint64_t then = cursor->at + (late < WORTH ? late / 4 : WORTH / 4);
        cursor->limit = then < cursor->end ? then : cursor->end;
        return run->is_open;
    }
    return 0;
}

/* Reads an MCU, or the rest of one, and sees to what comes then. */
static void settle(Scan *scan, Cursor *cursor) {
    read_mcu(scan, cursor);
    if (cursor->at >= cursor->limit && has_arrived(scan, cursor)) {
        end(scan, cursor);
        find_work(scan, cursor);
    } else if (cursor->to >= cursor->full) {
        Run *run = &scan->runs[cursor->run];
        end(scan, cursor);
        run->next = begin(scan, cursor, run->next);
        scan->is_full |= !run->next;
    }
}

/* Reads on where a run is open, however long it takes: a file in which nothing comes into step takes one cursor. */
static void close_runs(Scan *scan, const Segment *segment) {
    Cursor *cursor = &scan->cursors[0];
    for (int number = segment->run; number && !scan->is_full; number = scan->runs[number].next) {
        Run *run = &scan->runs[number];
        if (!run->is_open) continue;
        cursor->state = scan->start;
        cursor->at = cursor->due = run->end->at;
        cursor->end = (uint64_t)segment[1].from * 8;
        run->next = begin(scan, cursor, run->next);
        scan->is_full |= !run->next;
        expect(scan, cursor, scan->runs[run->next].next);
        while (cursor->run && !scan->is_full) settle(scan, cursor);
    }
}

/* All segments, as runs of tokens. Returns whether there was room for them. */
static int read_scan(Scan *scan) {
    scan->runs[0] = (Run){0};
    scan->run_count = 1;
    scan->patience = PATIENCE;
    for (int k = 0; k < CURSORS; k++) find_work(scan, &scan->cursors[k]);
    for (;;) {
        int busy = 0, due = 0;
        for (int k = 0; k < CURSORS; k++) {
            busy += scan->cursors[k].run != 0;
            due += is_due(&scan->cursors[k]);
        }
        if (!busy) break;
        if (busy == CURSORS && !due) read_together(scan);
        for (int k = 0; k < CURSORS; k++) {
            Cursor *cursor = &scan->cursors[k];
            if (cursor->run && (busy < CURSORS || is_due(cursor))) settle(scan, cursor);
            if (scan->is_full) return 0;
        }
    }
    scan->patience = UINT64_MAX;
    for (int i = 0; i < scan->segment_count; i++) close_runs(scan, &scan->segments[i]);
    return !scan->is_full;
}
