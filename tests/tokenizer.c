/* tokenizer.c - ids as SentencePiece itself gives them, and model files from strangers. Run at the source
 * root, or built with PV_SOURCE_DIR. */
#include "test.h"

#include "base/memory.h"
#include "io/tokenizer.h"

#ifndef PV_SOURCE_DIR
#define PV_SOURCE_DIR "."
#endif
#define MODEL    PV_SOURCE_DIR "/core/model/tiny/tokenizer.model"
#define COUNT(a) (sizeof(a) / sizeof(a)[0])

#ifdef PV_HAVE_SENTENCEPIECE

#include "data/tokens.inc"

static void ids(void)
{
    pv_tokenizer *t = NULL;
    if (!CHECK_OK(pv_tokenizer_load(MODEL, &t)))
        return;
    CHECK(pv_tokenizer_vocab(t) == 503);
    CHECK(pv_tokenizer_bos(t) == 2);
    for (size_t i = 0; i < COUNT(texts); i++) {
        int32_t id[128];
        int n = 0;
        CHECK_OK(pv_tokenizer_encode(t, texts[i].text, strlen(texts[i].text), id, 128, &n));
        if (!CHECK(n == texts[i].n && !memcmp(id, texts[i].id, (size_t)n * sizeof *id)))
            printf("    \"%s\"\n", texts[i].text);
    }
    pv_tokenizer_free(&t);
    CHECK(!t);
    pv_tokenizer_free(&t);
}

static void appends_and_counts(void)
{
    pv_tokenizer *t = NULL;
    if (!CHECK_OK(pv_tokenizer_load(MODEL, &t)))
        return;
    int32_t id[4] = {7, 7, 7, 7};
    int n = 1;
    CHECK_OK(pv_tokenizer_encode(t, "fold the towel", 14, id, 3, &n));
    CHECK(n == 4 && id[0] == 7 && id[1] != 7 && id[2] != 7 && id[3] == 7); /* three pieces, room for two */
    CHECK_OK(pv_tokenizer_encode(t, "fold the towel", 14, id, 3, &n));
    CHECK(n == 7 && id[3] == 7);
    n = 0;
    CHECK_OK(pv_tokenizer_encode(t, "", 0, NULL, 0, &n));
    CHECK(n == 0);
    CHECK_OK(pv_tokenizer_encode(t, "a\0b", 3, id, 4, &n)); /* NUL is a byte like others */
    CHECK(n == 3);
    size_t big = (size_t)1 << 20;
    char *text = malloc(big + 1);
    memset(text, 'a', big + 1);
    n = 0;
    CHECK_OK(pv_tokenizer_encode(t, text, big, NULL, 0, &n));
    CHECK(n > 1000);
    CHECK_STATUS(pv_tokenizer_encode(t, text, big + 1, NULL, 0, &n), PV_E_ARG);
    free(text);
    pv_tokenizer_free(&t);
}

/* ---- Models put together by hand: protobuf fields of sentencepiece_model.proto ---- */

typedef struct bytes {
    size_t n;
    uint8_t p[1 << 18];
} bytes;

static void put(bytes *b, const void *p, size_t n)
{
    if (n > sizeof b->p - b->n)
        abort();
    memcpy(b->p + b->n, p, n);
    b->n += n;
}

static void put_varint(bytes *b, uint64_t v)
{
    do {
        uint8_t byte = (uint8_t)(v & 0x7f) | (v > 0x7f ? 0x80 : 0);
        put(b, &byte, 1);
        v >>= 7;
    } while (v);
}

static void put_bytes(bytes *b, int number, const void *p, size_t n)
{
    put_varint(b, (uint64_t)number << 3 | 2);
    put_varint(b, n);
    put(b, p, n);
}

static void put_number(bytes *b, int number, uint64_t v)
{
    put_varint(b, (uint64_t)number << 3);
    put_varint(b, v);
}

enum { NORMAL = 1, UNKNOWN, CONTROL, USER_DEFINED };

static void put_piece_n(bytes *b, const char *piece, size_t n, float score, uint64_t type)
{
    static bytes m;
    m.n = 0;
    put_bytes(&m, 1, piece, n);
    put_varint(&m, 2 << 3 | 5);
    put(&m, &score, 4);
    put_number(&m, 3, type);
    put_bytes(b, 1, m.p, m.n);
}

static void put_piece(bytes *b, const char *piece, float score, uint64_t type)
{
    put_piece_n(b, piece, strlen(piece), score, type);
}

static void put_trainer(bytes *b, uint64_t model_type)
{
    static bytes m;
    m.n = 0;
    put_number(&m, 3, model_type);
    put_bytes(b, 2, m.p, m.n);
}

static void put_base(bytes *b)
{
    b->n = 0;
    put_piece(b, "<unk>", 0, UNKNOWN);
    put_piece(b, "<s>", 0, CONTROL);
    put_piece(b, "a", -1, NORMAL);
    put_piece(b, "b", -2, NORMAL);
    put_piece(b, "ab", -0.5f, NORMAL);
}

static pv_status parse(const bytes *b)
{
    pv_tokenizer *t = NULL;
    uint8_t *exact = malloc(b->n ? b->n : 1); /* so that a sanitizer sees a step behind the end */
    memcpy(exact, b->p, b->n);
    pv_status st = pv_tokenizer_parse(exact, b->n, "hand.model", &t);
    CHECK((st == PV_OK) == (t != NULL));
    if (t) {
        int32_t id[16];
        int n = 0;
        CHECK_OK(pv_tokenizer_encode(t, "ab aaab \xff", 9, id, 16, &n));
        for (int i = 0; i < n && i < 16; i++)
            CHECK(id[i] >= 0 && id[i] < pv_tokenizer_vocab(t));
    }
    pv_tokenizer_free(&t);
    free(exact);
    if (st)
        CHECK_TEXT("hand.model");
    return st;
}

static void nested(bytes *b, int n)
{
    char piece[128];
    put_base(b);
    memset(piece, 'x', sizeof piece);
    for (int i = n; i >= 1; i--) {
        put_piece_n(b, piece, (size_t)i, 0, USER_DEFINED);
        if (i % 7 == 0) { /* some that are no beginning of others, between them when sorted */
            char other[140];
            memcpy(other, piece, (size_t)i);
            memcpy(other + i, "aq", 2);
            put_piece_n(b, other, (size_t)i + 2, 0, USER_DEFINED);
        }
    }
    put_trainer(b, 2);
}

static void strangers(void)
{
    static bytes b;
    put_base(&b);
    put_trainer(&b, 2);
    CHECK_OK(parse(&b));

    b.n = 0;
    CHECK_STATUS(parse(&b), PV_E_FILE);
    CHECK_TEXT("no pieces");
    put(&b, "not a protobuf", 14);
    CHECK_STATUS(parse(&b), PV_E_FILE);
    put_base(&b); /* model_type unsaid is unigram */
    CHECK_STATUS(parse(&b), PV_E_FILE);
    CHECK_TEXT("BPE");
    put_trainer(&b, 1);
    CHECK_STATUS(parse(&b), PV_E_FILE);
    CHECK_TEXT("BPE");
    put_base(&b);
    put_trainer(&b, ((uint64_t)1 << 32) + 2);
    CHECK_STATUS(parse(&b), PV_E_FILE);

    put_base(&b); /* rules, whose trie would be followed anywhere */
    put_trainer(&b, 2);
    put_bytes(&b, 3,
              "\x12\x0c\x04\0\0\0\xff\xff\xff\xff"
              "abcd",
              14);
    CHECK_STATUS(parse(&b), PV_E_FILE);
    CHECK_TEXT("normalisation rules");

    nested(&b, 64);
    CHECK_OK(parse(&b));
    nested(&b, 65);
    CHECK_STATUS(parse(&b), PV_E_FILE);
    CHECK_TEXT("begin with each other");

    static char lengthy[2000];
    memset(lengthy, 'y', sizeof lengthy);
    put_base(&b);
    put_trainer(&b, 2);
    put_piece_n(&b, lengthy, 1024, 0, USER_DEFINED);
    CHECK_OK(parse(&b));
    put_piece_n(&b, lengthy, 1025, 0, NORMAL);
    CHECK_STATUS(parse(&b), PV_E_FILE);
    CHECK_TEXT("1025 bytes");

    put_base(&b);
    put_trainer(&b, 2);
    put_piece_n(&b, "\0", 1, 0, NORMAL);
    CHECK_OK(parse(&b));
    put_piece_n(&b, "c\0d", 3, 0, ((uint64_t)1 << 32) + USER_DEFINED);
    CHECK_STATUS(parse(&b), PV_E_FILE);
    CHECK_TEXT("NUL");

    float bad[] = {NAN, INFINITY, -INFINITY};
    for (int i = 0; i < 3; i++) {
        put_base(&b);
        put_trainer(&b, 2);
        put_piece(&b, "c", bad[i], NORMAL);
        CHECK_STATUS(parse(&b), PV_E_FILE);
        CHECK_TEXT("not finite");
    }

    put_base(&b); /* what the library itself refuses */
    put_trainer(&b, 2);
    put_piece(&b, "ab", 0, NORMAL);
    CHECK_STATUS(parse(&b), PV_E_FILE);
    CHECK_TEXT("already defined");
    put_base(&b);
    put_trainer(&b, 2);
    put_piece(&b, "", 0, NORMAL);
    CHECK_STATUS(parse(&b), PV_E_FILE);

    b.n = 0;
    put_piece(&b, "<unk>", 0, UNKNOWN);
    put_piece(&b, "a", 0, NORMAL);
    put_trainer(&b, 2);
    CHECK_STATUS(parse(&b), PV_E_FILE);
    CHECK_TEXT("BOS");
    put_base(&b);
    put_trainer(&b, 2);
    put(&b, "\x0b\x0c", 2); /* a group */
    CHECK_STATUS(parse(&b), PV_E_FILE);
    put_base(&b);
    put_trainer(&b, 2);
    put(&b, "\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 11); /* a length of 2^64 - 1 */
    CHECK_STATUS(parse(&b), PV_E_FILE);
    put_base(&b);
    put_trainer(&b, 2);
    put_number(&b, 1, 3); /* a piece that is a number */
    CHECK_STATUS(parse(&b), PV_E_FILE);
}

static void too_many(void)
{
    pv_tokenizer *t = NULL;
    size_t n = 2 * (((size_t)1 << 20) + 1);
    uint8_t *model = malloc(n);
    for (size_t i = 0; i < n; i += 2)
        model[i] = 0x0a, model[i + 1] = 0;
    CHECK_STATUS(pv_tokenizer_parse(model, n, "many.model", &t), PV_E_FILE);
    CHECK_TEXT("more than 1048576 pieces");
    free(model);
    n = ((size_t)64 << 20) + 1;
    model = calloc(n, 1);
    CHECK_STATUS(pv_tokenizer_parse(model, n, "big.model", &t), PV_E_FILE);
    CHECK_TEXT("67108865");
    n = ((size_t)1 << 20) + 16; /* a self-test of over 1 MiB */
    memcpy(model, "\x22\x8c\x80\x40", 4);
    CHECK_STATUS(pv_tokenizer_parse(model, n, "test.model", &t), PV_E_FILE);
    CHECK_TEXT("anything but pieces");
    free(model);
}

/* Every beginning of the real file, and the real file with bytes knocked over: any answer but a fault. */
static void torn(void)
{
    FILE *f = fopen(MODEL, "rb");
    if (!CHECK(f != NULL))
        return;
    static bytes b;
    b.n = fread(b.p, 1, sizeof b.p, f);
    fclose(f);
    size_t n = b.n;
    int refused = 0;
    for (b.n = 0; b.n < n; b.n += 61)
        refused += parse(&b) != PV_OK;
    CHECK(refused > 100);
    b.n = n;
    uint32_t r = 1;
    for (int i = 0; i < 300; i++) {
        r = r * 1664525u + 1013904223u;
        uint8_t *at = &b.p[(r >> 8) % n], was = *at;
        *at = (uint8_t)(r >> 24);
        parse(&b);
        *at = was;
    }
    CHECK_OK(parse(&b));
}

static void files(void)
{
    pv_tokenizer *t = NULL;
    CHECK_STATUS(pv_tokenizer_load(PV_SOURCE_DIR "/no/such.model", &t), PV_E_FILE);
    CHECK_TEXT("no/such.model");
    CHECK_STATUS(pv_tokenizer_load(PV_SOURCE_DIR "/tests/test.h", &t), PV_E_FILE);
    CHECK_TEXT("tests/test.h");
    CHECK(!t);
}

int main(void)
{
    ids();
    appends_and_counts();
    strangers();
    too_many();
    torn();
    files();
    CHECK(!pv_alloc_live());
    return test_done();
}

#else

int main(void)
{
    pv_tokenizer *t = NULL;
    CHECK_STATUS(pv_tokenizer_load(MODEL, &t), PV_E_UNSUPPORTED);
    CHECK_TEXT("pass token ids");
    CHECK_STATUS(pv_tokenizer_parse("x", 1, "x.model", &t), PV_E_UNSUPPORTED);
    CHECK(!t);
    pv_tokenizer_free(&t);
    return test_done();
}

#endif
