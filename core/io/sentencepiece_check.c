/* sentencepiece_check.c - a walk over a SentencePiece model file (a protobuf message,
 * sentencepiece_model.proto) that refuses what libsentencepiece up to 0.2.1 cannot bear from a stranger:
 *   - normalisation rules: their trie is followed without bounds (google/sentencepiece issue 1269). The
 * tokenizers of Pi0.5 are trained with "identity" and have none, so rules are refused whole.
 *   - more than 64 user-defined pieces each the beginning of the next: the matches overrun an array on the
 * stack (google/sentencepiece pull request 1267).
 *   - very long pieces: a recursion as deep as the piece is long (issue 1263).
 *   - NUL in user-defined pieces (they are read as C strings), scores that are not finite (they are sorted
 * by).
 *   - sizes that would cost far more memory or time than the file's bytes.
 * Other kinds than BPE, PaliGemma's, are refused because nobody here needs them.
 * What the library checks well itself (duplicates, empty pieces, byte pieces, one unk) is left to it. */
#include "sentencepiece.h"

#include "base/memory.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MAX_PIECES        (1 << 20) /* PaliGemma: 257,152 */
#define MAX_PIECE_BYTES   1024
#define MAX_NESTED        64
#define MAX_TRAINER_BYTES ((size_t)4 << 20)
#define MAX_OTHER_BYTES   ((size_t)1 << 20) /* normaliser, self-test (which is run on loading) */

typedef struct span {
    const uint8_t *p;
    size_t n;
} span;

typedef struct field {
    uint32_t number;
    int wire;       /* 0 varint, 1 fixed64, 2 bytes, 5 fixed32 */
    uint64_t value; /* of varint and fixed32 */
    span bytes;
} field;

enum { VARINT = 0, FIXED64 = 1, BYTES = 2, FIXED32 = 5 };
enum { BPE = 2, USER_DEFINED = 4 };

static bool varint(span *s, uint64_t *v)
{
    *v = 0;
    for (int i = 0; i < 10 && s->n; i++) {
        uint8_t b = *s->p++;
        s->n--;
        *v |= (uint64_t)(b & 0x7f) << (7 * i);
        if (!(b & 0x80))
            return true;
    }
    return false;
}

static bool take(span *s, size_t n, span *out)
{
    if (n > s->n)
        return false;
    *out = (span){s->p, n};
    s->p += n;
    s->n -= n;
    return true;
}

static bool next(span *s, field *f)
{
    uint64_t tag, n;
    if (!varint(s, &tag) || tag > UINT32_MAX || tag < 8)
        return false;
    *f = (field){.number = (uint32_t)tag >> 3, .wire = (int)(tag & 7)};
    switch (f->wire) {
    case VARINT:
        return varint(s, &f->value);
    case FIXED64:
        return take(s, 8, &f->bytes);
    case BYTES:
        return varint(s, &n) && n <= s->n && take(s, (size_t)n, &f->bytes);
    case FIXED32:
        if (!take(s, 4, &f->bytes))
            return false;
        for (int i = 0; i < 4; i++)
            f->value |= (uint64_t)f->bytes.p[i] << (8 * i);
        return true;
    default: /* groups: not in this format */
        return false;
    }
}

typedef struct check {
    const char *where;
    int n_pieces, n_user;
    span *user; /* [n_user], grows */
    size_t trainer, other;
    bool bpe;
} check;

static pv_status malformed(const check *c, const char *part)
{
    return pv_fail(PV_E_FILE, "%s: not a SentencePiece model: %s is malformed", c->where, part);
}

static pv_status keep_user(check *c, span piece)
{
    if (memchr(piece.p, 0, piece.n))
        return pv_fail(PV_E_FILE, "%s: user-defined piece %d holds a NUL", c->where, c->n_pieces);
    if (!(c->n_user & (c->n_user - 1))) { /* a power of two: full */
        size_t room = c->n_user ? (size_t)c->n_user * 2 : 1;
        span *more = pv_alloc(pv_mul_size(room, sizeof *more));
        if (!more)
            return PV_E_MEMORY;
        if (c->n_user)
            memcpy(more, c->user, (size_t)c->n_user * sizeof *more);
        pv_free(c->user);
        c->user = more;
    }
    c->user[c->n_user++] = piece;
    return PV_OK;
}

/* SentencePiece: 1 piece, 2 score (float), 3 type */
static pv_status check_piece(check *c, span s)
{
    span piece = {0};
    int32_t type = 1;
    field f;
    if (c->n_pieces == MAX_PIECES)
        return pv_fail(PV_E_FILE, "%s: more than %d pieces", c->where, MAX_PIECES);
    if (s.n > 2 * MAX_PIECE_BYTES)
        return pv_fail(PV_E_FILE, "%s: piece %d takes %zu bytes, expected at most %d", c->where, c->n_pieces,
                       s.n, 2 * MAX_PIECE_BYTES);
    while (s.n) {
        if (!next(&s, &f) || (f.number == 1 && f.wire != BYTES) || (f.number == 2 && f.wire != FIXED32) ||
            (f.number == 3 && f.wire != VARINT))
            return malformed(c, "a piece");
        if (f.number == 1) {
            piece = f.bytes;
        } else if (f.number == 2) {
            uint32_t bits = (uint32_t)f.value;
            float score;
            memcpy(&score, &bits, sizeof score);
            if (!isfinite(score))
                return pv_fail(PV_E_FILE, "%s: the score of piece %d is not finite", c->where, c->n_pieces);
        } else if (f.number == 3) {
            type = (int32_t)f.value; /* protobuf cuts to 32 bits as well */
        }
    }
    if (piece.n > MAX_PIECE_BYTES)
        return pv_fail(PV_E_FILE, "%s: piece %d is %zu bytes long, expected at most %d", c->where,
                       c->n_pieces, piece.n, MAX_PIECE_BYTES);
    pv_status st = type == USER_DEFINED && piece.n ? keep_user(c, piece) : PV_OK;
    c->n_pieces++;
    return st;
}

/* TrainerSpec: 3 model_type */
static pv_status check_trainer(check *c, span s)
{
    field f;
    while (s.n) {
        if (!next(&s, &f) || (f.number == 3 && f.wire != VARINT))
            return malformed(c, "trainer_spec");
        if (f.number == 3 && f.value != BPE)
            return pv_fail(PV_E_FILE, "%s: expected a BPE model (type %d), came type %llu", c->where, BPE,
                           (unsigned long long)f.value);
        c->bpe |= f.number == 3;
    }
    return PV_OK;
}

/* NormalizerSpec: 2 precompiled_charsmap */
static pv_status check_normalizer(check *c, span s)
{
    field f;
    while (s.n) {
        if (!next(&s, &f) || (f.number == 2 && f.wire != BYTES))
            return malformed(c, "normalizer_spec");
        if (f.number == 2 && f.bytes.n)
            return pv_fail(
                PV_E_FILE,
                "%s: the model has normalisation rules (%zu bytes); expected none, as in PaliGemma's",
                c->where, f.bytes.n);
    }
    return PV_OK;
}

static int by_bytes(const void *a, const void *b)
{
    const span *x = a, *y = b;
    int order = memcmp(x->p, y->p, x->n < y->n ? x->n : y->n);
    return order ? order : (x->n > y->n) - (x->n < y->n);
}

/* Sorted, a piece comes right behind those that begin it: `open` holds the ones the current piece goes on. */
static pv_status check_nesting(check *c)
{
    span open[MAX_NESTED];
    int depth = 0;
    if (c->n_user > 1)
        qsort(c->user, (size_t)c->n_user, sizeof *c->user, by_bytes);
    for (int i = 0; i < c->n_user; i++) {
        span u = c->user[i];
        while (depth && (open[depth - 1].n > u.n || memcmp(open[depth - 1].p, u.p, open[depth - 1].n)))
            depth--;
        if (depth == MAX_NESTED)
            return pv_fail(PV_E_FILE, "%s: more than %d user-defined pieces begin with each other", c->where,
                           MAX_NESTED);
        open[depth++] = u;
    }
    return PV_OK;
}

/* ModelProto: 1 pieces, 2 trainer_spec, 3 normalizer_spec, 4 self_test_data, 5 denormalizer_spec */
static pv_status check_model(check *c, span s)
{
    pv_status st = PV_OK;
    field f;
    while (s.n && !st) {
        if (!next(&s, &f) || (f.number <= 5 && f.wire != BYTES))
            return malformed(c, "the file");
        if (f.number == 2)
            c->trainer += f.bytes.n;
        else if (f.number != 1)
            c->other += f.bytes.n;
        if (c->trainer > MAX_TRAINER_BYTES || c->other > MAX_OTHER_BYTES)
            return pv_fail(PV_E_FILE,
                           "%s: more than %zu bytes of training notes or %zu of anything but pieces",
                           c->where, MAX_TRAINER_BYTES, MAX_OTHER_BYTES);
        if (f.number == 1)
            st = check_piece(c, f.bytes);
        else if (f.number == 2)
            st = check_trainer(c, f.bytes);
        else if (f.number == 3 || f.number == 5)
            st = check_normalizer(c, f.bytes);
    }
    if (!st && !c->n_pieces)
        st = pv_fail(PV_E_FILE, "%s: not a SentencePiece model: there are no pieces", c->where);
    if (!st && !c->bpe) /* unsaid means unigram */
        st = pv_fail(PV_E_FILE, "%s: expected a BPE model, came a unigram model", c->where);
    return st ? st : check_nesting(c);
}

pv_status pv_sp_check(const void *model, size_t n, const char *where)
{
    check c = {.where = where};
    pv_status st = check_model(&c, (span){model, n});
    pv_free(c.user);
    return st;
}
