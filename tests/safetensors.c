/* safetensors.c - tensors in files: round trips, shards, hostile headers, failing disks and failing memory.
 * Files named on the command line must open, and every tensor of theirs must be readable. */
#include "io/safetensors.h"
#include "io/file.h"
#include "base/memory.h"
#include "tests/faults.h"
#include "tests/test.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

/* ---- Faults of the disk: these stand before the C library's ----------------------------------------------
 */

static enum { PLAIN, SHORT, INTERRUPTED, BROKEN, ENDED } reads_are, writes_are, syncs_are;
static int calls_before; /* calls that are plain still; SHORT and INTERRUPTED go on, BROKEN and ENDED stay */

static ssize_t disturb(int how, size_t *n)
{
    if (calls_before > 0) {
        calls_before--;
        return 1;
    }
    switch (how) {
    case SHORT:
        *n = *n > 3 ? 3 : *n;
        return 1;
    case INTERRUPTED:
        calls_before = 1; /* every other call */
        errno = EINTR;
        return -1;
    case BROKEN:
        errno = EIO;
        return -1;
    case ENDED:
        errno = ENOSPC;
        return 0;
    default:
        return 1;
    }
}

ssize_t pread(int fd, void *p, size_t n, off_t at)
{
    ssize_t answer = reads_are ? disturb((int)reads_are, &n) : 1;
    struct iovec part = {p, n};
    return answer == 1 ? preadv(fd, &part, 1, at) : answer;
}

ssize_t write(int fd, const void *p, size_t n)
{
    ssize_t answer = writes_are ? disturb((int)writes_are, &n) : 1;
    struct iovec part = {(void *)(uintptr_t)p, n};
    return answer == 1 ? writev(fd, &part, 1) : answer;
}

int fsync(int fd)
{
    size_t n = 0;
    if (syncs_are && disturb((int)syncs_are, &n) != 1)
        return -1;
    return fdatasync(fd);
}

/* ---- Files ------------------------------------------------------------------------------------------------
 */

static char folder[] = "/tmp/pv-safetensors-XXXXXX";

/* The same pointer for the same name, and it stays. */
static const char *in_folder(const char *name)
{
    static char path[24][256];
    const size_t skip = strlen(folder) + 1;
    int i = 0;
    while (path[i][0] && strcmp(path[i] + skip, name) != 0)
        if (++i == 24)
            abort(); /* more names in the tests than there is room for */
    snprintf(path[i], sizeof path[i], "%s/%.200s", folder, name);
    return path[i];
}

/* Files in the folder; with `clear` they are gone afterwards. */
static int files(bool clear)
{
    int n = 0;
    DIR *d = opendir(folder);
    if (!CHECK(d != NULL))
        return -1;
    for (struct dirent *e; (e = readdir(d));)
        if (e->d_name[0] != '.') {
            n++;
            if (clear)
                CHECK(unlinkat(dirfd(d), e->d_name, 0) == 0);
        }
    closedir(d);
    return n;
}

static void put_file(const char *name, const char *header, size_t n, const char *data, size_t data_bytes)
{
    char *all = malloc(8 + n + data_bytes);
    for (int i = 0; i < 8; i++)
        all[i] = (char)((uint64_t)n >> 8 * i);
    memcpy(all + 8, header, n);
    if (data_bytes)
        memcpy(all + 8 + n, data, data_bytes);
    CHECK_OK(pv_file_write(in_folder(name), all, 8 + n + data_bytes));
    free(all);
}

static const float weights[6] = {1, -2, 3.5f, 0, 1e-30f, 6};
static const uint16_t halves[4] = {0x3f80, 0xbf80, 0, 0x7f7f};
static const int64_t two_three[] = {2, 3}, four[] = {4}, none_of[] = {3, 0, 5};

/* Five tensors: f32 [2,3], bf16 [4], u8 [], f32 [3,0,5], i32 [4]; the data comes in odd pieces. */
static pv_status write_five(const char *path)
{
    static const int32_t ints[4] = {-1, 2, INT32_MAX, INT32_MIN};
    pv_st_writer *w;
    pv_status st = pv_st_writer_begin(path, &w);
    if (st)
        return st;
    st = pv_st_writer_metadata(w, "format", "pt");
    if (!st)
        st = pv_st_writer_declare(w, "weights", PV_F32, 2, two_three);
    if (!st)
        st = pv_st_writer_declare(w, "halves", PV_BF16, 1, four);
    if (!st)
        st = pv_st_writer_declare(w, "scalar", PV_U8, 0, NULL);
    if (!st)
        st = pv_st_writer_metadata(w, "note", "a \"quoted\\ line\n\x01 \xc3\xa9");
    if (!st)
        st = pv_st_writer_declare(w, "empty", PV_F32, 3, none_of);
    if (!st)
        st = pv_st_writer_declare(w, "na\"me\n", PV_I32, 1, four);
    if (!st)
        st = pv_st_writer_data(w, weights, 5);
    if (!st)
        st = pv_st_writer_data(w, (const char *)weights + 5, 19);
    if (!st)
        st = pv_st_writer_data(w, halves, sizeof halves);
    if (!st)
        st = pv_st_writer_data(w, "\x2a", 1);
    if (!st)
        st = pv_st_writer_data(w, "", 0);
    if (!st)
        st = pv_st_writer_data(w, ints, sizeof ints);
    if (st) {
        pv_st_writer_abort(&w);
        return st;
    }
    st = pv_st_writer_end(&w);
    CHECK(w == NULL);
    return st;
}

static void check_five(const pv_safetensors *st)
{
    static const char *const order[] = {"weights", "halves", "scalar", "empty", "na\"me\n"};
    CHECK(pv_safetensors_count(st) == 5);
    for (int i = 0; i < 5; i++) {
        const pv_st_tensor *t = pv_safetensors_at(st, i);
        CHECK(t && strcmp(t->name, order[i]) == 0 && pv_safetensors_find(st, order[i]) == t && t->shard == 0);
    }
    CHECK(!pv_safetensors_at(st, 5) && !pv_safetensors_at(st, -1));
    CHECK(!pv_safetensors_find(st, "weight") && !pv_safetensors_find(st, "") &&
          !pv_safetensors_find(st, "weights2"));
    const pv_st_tensor *t = pv_safetensors_find(st, "weights");
    CHECK(t->dtype == PV_F32 && strcmp(t->dtype_name, "F32") == 0 && t->n_dims == 2 && t->dim[0] == 2 &&
          t->dim[1] == 3);
    CHECK(t->n_elements == 6 && t->bytes == 24 && t->offset % 8 == 0);
    t = pv_safetensors_find(st, "scalar");
    CHECK(t->dtype == PV_U8 && t->n_dims == 0 && t->n_elements == 1 && t->bytes == 1);
    t = pv_safetensors_find(st, "empty");
    CHECK(t->n_dims == 3 && t->dim[1] == 0 && t->n_elements == 0 && t->bytes == 0);
    CHECK(strcmp(pv_safetensors_metadata(st, "format"), "pt") == 0);
    CHECK(strcmp(pv_safetensors_metadata(st, "note"), "a \"quoted\\ line\n\x01 \xc3\xa9") == 0);
    CHECK(!pv_safetensors_metadata(st, "Format"));
}

static void check_data(const pv_safetensors *st)
{
    float f[6] = {0};
    uint16_t h[4];
    int32_t i[4];
    uint8_t u = 0;
    CHECK_OK(pv_safetensors_read(st, pv_safetensors_find(st, "weights"), 0, 6, f));
    CHECK(memcmp(f, weights, sizeof f) == 0);
    CHECK_OK(pv_safetensors_read(st, pv_safetensors_find(st, "weights"), 4, 2, f));
    CHECK(f[0] == weights[4] && f[1] == weights[5] && f[2] == weights[2]);
    CHECK_OK(pv_safetensors_read(st, pv_safetensors_find(st, "halves"), 0, 4, h));
    CHECK(memcmp(h, halves, sizeof h) == 0);
    CHECK_OK(pv_safetensors_read(st, pv_safetensors_find(st, "scalar"), 0, 1, &u));
    CHECK(u == 42);
    CHECK_OK(pv_safetensors_read(st, pv_safetensors_find(st, "na\"me\n"), 2, 2, i));
    CHECK(i[0] == INT32_MAX && i[1] == INT32_MIN);
    CHECK_OK(pv_safetensors_read(st, pv_safetensors_find(st, "empty"), 0, 0, NULL));
    CHECK_OK(pv_safetensors_read(st, pv_safetensors_find(st, "weights"), 6, 0, NULL));
}

static void round_trip(void)
{
    pv_safetensors *st;
    const char *path = in_folder("five.safetensors");
    if (!CHECK_OK(write_five(path)) || !CHECK_OK(pv_safetensors_open(path, &st)))
        return;
    CHECK(strcmp(pv_safetensors_path(st, 0), path) == 0 && !pv_safetensors_path(st, 1) &&
          !pv_safetensors_path(st, -1));
    check_five(st);
    check_data(st);
    static const int64_t wrong[][2] = {{-1, 1}, {0, -1},        {0, 7},        {6, 1},
                                       {7, 0},  {1, INT64_MAX}, {INT64_MAX, 1}};
    float f[8];
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        CHECK_STATUS(pv_safetensors_read(st, pv_safetensors_find(st, "weights"), wrong[i][0], wrong[i][1], f),
                     PV_E_ARG);
        CHECK_TEXT("tensor 'weights' has 6 elements");
    }
    pv_safetensors_close(&st);
    CHECK(st == NULL);
    pv_safetensors_close(&st);

    CHECK_OK(write_five(path)); /* over the file that is there */
    CHECK(files(true) == 1);
}

/* Byte for byte what the format says: length, header padded to a multiple of 8, data. */
static void exact_bytes(void)
{
    static const char want[] = "\x38\0\0\0\0\0\0\0"
                               "{\"a\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[0,3]}}   xyz";
    const int64_t three = 3;
    pv_st_writer *w;
    char *data;
    size_t n;
    const char *path = in_folder("exact");
    CHECK_OK(pv_st_writer_begin(path, &w));
    CHECK_OK(pv_st_writer_declare(w, "a", PV_U8, 1, &three));
    CHECK_OK(pv_st_writer_data(w, "xyz", 3));
    CHECK_OK(pv_st_writer_end(&w));
    CHECK_OK(pv_file_read(path, 1000, &data, &n));
    CHECK(n == sizeof want - 1 && memcmp(data, want, n) == 0);
    pv_free(data);

    CHECK_OK(pv_st_writer_begin(path, &w)); /* nothing in it at all */
    CHECK_OK(pv_st_writer_end(&w));
    CHECK_OK(pv_file_read(path, 1000, &data, &n));
    CHECK(n == 16 && memcmp(data, "\x08\0\0\0\0\0\0\0{}      ", 16) == 0);
    pv_free(data);
    pv_safetensors *st;
    CHECK_OK(pv_safetensors_open(path, &st));
    CHECK(pv_safetensors_count(st) == 0 && !pv_safetensors_find(st, "a"));
    pv_safetensors_close(&st);
    files(true);
}

/* What the caller of the writer can do wrong: PV_E_ARG, repeated until the end, and no file. */
static void writer_refuses(void)
{
    static const int64_t negative[] = {2, -1}, huge[] = {(int64_t)1 << 40, (int64_t)1 << 40}, nine[9] = {1};
    const char *path = in_folder("w.safetensors");
    for (int how = 0; how < 13; how++) {
        pv_st_writer *w;
        pv_status st = PV_OK;
        const char *words = "w.safetensors";
        CHECK_OK(pv_st_writer_begin(path, &w));
        CHECK_OK(pv_st_writer_declare(w, "first", PV_U8, 1, four));
        switch (how) {
        case 0:
            st = pv_st_writer_declare(w, "bad", PV_E4M3, 1, four);
            words = "tensor 'bad': e4m3 cannot be written";
            break;
        case 1:
            st = pv_st_writer_declare(w, "bad", PV_DTYPE_COUNT, 1, four);
            words = "tensor 'bad': unknown dtype";
            break;
        case 2:
            st = pv_st_writer_declare(w, "bad", PV_U8, 9, nine);
            words = "tensor 'bad': 9 dims";
            break;
        case 3:
            st = pv_st_writer_declare(w, "bad", PV_U8, -1, four);
            words = "tensor 'bad': -1 dims";
            break;
        case 4:
            st = pv_st_writer_declare(w, "bad", PV_U8, 2, negative);
            words = "tensor 'bad': dim 1 is -1";
            break;
        case 5:
            st = pv_st_writer_declare(w, "bad", PV_U8, 2, huge);
            words = "tensor 'bad': the data would pass 2^53 bytes";
            break;
        case 6:
            CHECK_OK(pv_st_writer_declare(w, "first", PV_U8, 1, four));
            st = pv_st_writer_data(w, "abcd", 4);
            words = "'first' stands more than once";
            break;
        case 7:
            CHECK_OK(pv_st_writer_declare(w, "\xff", PV_U8, 1, four));
            st = pv_st_writer_data(w, "abcd", 4);
            words = "UTF-8";
            break;
        case 8:
            st = pv_st_writer_data(w, "abcde", 5);
            words = "4 bytes of data were declared, 0 were given and 5 more came";
            break;
        case 9:
            CHECK_OK(pv_st_writer_data(w, "abcd", 4));
            CHECK_OK(pv_st_writer_data(w, "", 0));
            CHECK_STATUS(pv_st_writer_declare(w, "late", PV_U8, 1, four), PV_E_ARG);
            CHECK_TEXT("'late' comes too late");
            CHECK_STATUS(pv_st_writer_metadata(w, "late", "x"), PV_E_ARG);
            st = pv_st_writer_data(w, "e", 1);
            break;
        case 10:
            CHECK_OK(pv_st_writer_data(w, "abc", 3)); /* too little; `end` will tell */
            st = PV_E_ARG;
            words = "4 bytes of data were declared, 3 were given";
            break;
        case 11:
            CHECK_OK(pv_st_writer_metadata(w, "twice", "x"));
            CHECK_OK(pv_st_writer_metadata(w, "twice", "y"));
            st = pv_st_writer_data(w, "abcd", 4);
            words = "'twice' stands more than once";
            break;
        default:
            CHECK_OK(pv_st_writer_declare(w, "__metadata__", PV_U8, 1, four));
            st = pv_st_writer_data(w, "abcd", 4);
            words = "__metadata__";
            break;
        }
        CHECK_STATUS(st, PV_E_ARG);
        if (how != 10) {
            CHECK_TEXT(words);
            CHECK_STATUS(pv_st_writer_data(w, "", 0), PV_E_ARG);
            CHECK_TEXT(words);
        }
        CHECK_STATUS(pv_st_writer_end(&w), PV_E_ARG);
        CHECK_TEXT(words);
        CHECK(w == NULL && files(false) == 0);
    }
    pv_st_writer *w;
    CHECK_OK(pv_st_writer_begin(path, &w));
    CHECK(files(false) == 1);
    pv_st_writer_abort(&w);
    pv_st_writer_abort(&w);
    CHECK(w == NULL && files(false) == 0);
    CHECK_STATUS(pv_st_writer_begin(in_folder("no/folder"), &w), PV_E_FILE);
    CHECK_TEXT("no/folder");
    CHECK(w == NULL);
}

/* ---- Headers
 * ------------------------------------------------------------------------------------------------ */

static int cases;

/* Parses a header from a block of its own size; `data` is how many bytes the file is to have behind it. */
static pv_status parse(const char *header, uint64_t data, pv_safetensors **st)
{
    const size_t n = strlen(header);
    char *exact = malloc(n ? n : 1);
    memcpy(exact, header, n);
    pv_status status = pv_safetensors_parse(exact, n, 8 + n + data, "x.st", st);
    free(exact);
    CHECK((status == PV_OK) == (*st != NULL));
    return status;
}

/* One malformed header: PV_E_FILE, with the file and these words. */
static void refused(const char *header, uint64_t data, const char *words)
{
    pv_safetensors *st;
    bool ok = CHECK_STATUS(parse(header, data, &st), PV_E_FILE);
    ok = CHECK_TEXT("x.st: ") && ok;
    ok = (!words || CHECK_TEXT(words)) && ok;
    if (!ok)
        printf("    %s\n", header);
    pv_safetensors_close(&st);
    cases++;
}

static void accepted(const char *header, uint64_t data)
{
    pv_safetensors *st;
    if (!CHECK_OK(parse(header, data, &st)))
        printf("    %s\n", header);
    pv_safetensors_close(&st);
}

/* A header of three tensors whose every field can be replaced by other JSON. */
enum { DTYPE, DIM, SHAPE, BEGIN, END, RANGE, ENTRY, N_FIELDS };
static const char *const tensor_name[3] = {"net.alpha", "net.beta", "net.gamma"};
static const char *const fields[3][N_FIELDS] = {
    {"\"F32\"", "2", "[2,3]", "0", "24", "[0,24]", NULL},
    {"\"BF16\"", "4", "[4]", "24", "32", "[24,32]", NULL},
    {"\"U8\"", "1", "[1]", "32", "33", "[32,33]", NULL},
};
#define DATA 33

static const char *header_with(int tensor, int field, const char *text)
{
    static char out[4096];
    int n = sprintf(out, "{");
    for (int i = 0; i < 3; i++) {
        const char *f[N_FIELDS];
        char shape[300], range[300];
        memcpy(f, fields[i], sizeof f);
        if (i == tensor) {
            f[field] = text;
            if (field == DIM) {
                sprintf(shape, i == 0 ? "[%s,3]" : "[%s]", text);
                f[SHAPE] = shape;
            } else if (field == BEGIN || field == END) {
                sprintf(range, "[%s,%s]", f[BEGIN], f[END]);
                f[RANGE] = range;
            }
        }
        n += sprintf(out + n, "%s\"%s\":", i ? "," : "", tensor_name[i]);
        if (f[ENTRY])
            n += sprintf(out + n, "%s", f[ENTRY]);
        else
            n += sprintf(out + n, "{\"dtype\":%s,\"shape\":%s,\"data_offsets\":%s}", f[DTYPE], f[SHAPE],
                         f[RANGE]);
    }
    sprintf(out + n, "}");
    return out;
}

static void fields_replaced(void)
{
    static const char *const numbers[] = {"0",
                                          "1",
                                          "2",
                                          "4",
                                          "24",
                                          "33",
                                          "34",
                                          "-1",
                                          "4294967296",
                                          "9007199254740992",
                                          "9007199254740993",
                                          "9223372036854775807",
                                          "9223372036854775808",
                                          "-9223372036854775808",
                                          "18446744073709551615",
                                          "18446744073709551616",
                                          "18446744073709551640",
                                          "1.5",
                                          "1e15",
                                          "1e300",
                                          "1e400",
                                          "\"1\"",
                                          "null",
                                          "true",
                                          "[1]",
                                          "{}"};
    static const char *const types[] = {"\"F33\"", "\"f32\"",   "\"\"",    "\"F32 \"", "\"FLOAT\"",
                                        "\"F64\"", "\"I64\"",   "\"C64\"", "0",        "null",
                                        "true",    "[\"F32\"]", "{}",      "\"F4\""};
    static const char *const shapes[] = {
        "null",
        "6",
        "\"2,3\"",
        "true",
        "{}",
        "{\"0\":2}",
        "[[2,3]]",
        "[2,3,2]",
        "[1,1,1,1,1,1,1,1,1]",                   /* nine dims */
        "[4294967296,4294967296]",               /* the product is 2^64 */
        "[4294967296,4294967296,6]",             /* and wraps to something small */
        "[9007199254740992,1024]",               /* 2^63 */
        "[9007199254740992,512]",                /* 2^62 elements: the bits wrap */
        "[3037000500,3037000500]",               /* just over 2^63 */
        "[0,9007199254740992,9007199254740992]", /* empty, but a product wraps */
        "[6074001000,3037000500,0]"};
    static const char *const ranges[] = {
        "null",    "24",         "\"0,24\"",  "true",     "{}",     "{\"a\":0,\"b\":24}",
        "[]",      "[0]",        "[0,24,24]", "[[0,24]]", "[24,0]", "[33,33]",
        "[34,34]", "[\"0\",24]", "[0,33]",    "[null,24]"};
    static const char *const entries[] = {
        "null",
        "1",
        "\"F32\"",
        "[]",
        "true",
        "{}",
        "{\"shape\":[2,3],\"data_offsets\":[0,24]}",
        "{\"dtype\":\"F32\",\"data_offsets\":[0,24]}",
        "{\"dtype\":\"F32\",\"shape\":[2,3]}",
        "{\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[0,24]}",
        "{\"dtype\":\"F32\",\"shape\":[2,3],\"shape\":[2,3],\"data_offsets\":[0,24]}",
        "{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[0,24],\"data_offsets\":[0,24]}",
        "{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[0,24],\"strides\":[3,1]}",
        "{\"dType\":\"F32\",\"shape\":[2,3],\"data_offsets\":[0,24]}",
    };
#define SET(list) list, sizeof list / sizeof list[0]
    const struct {
        int field;
        const char *const *text;
        size_t n;
    } sets[] = {{DTYPE, SET(types)}, {DIM, SET(numbers)},  {SHAPE, SET(shapes)}, {BEGIN, SET(numbers)},
                {END, SET(numbers)}, {RANGE, SET(ranges)}, {ENTRY, SET(entries)}};
#undef SET
    accepted(header_with(-1, 0, NULL), DATA);
    for (int tensor = 0; tensor < 3; tensor++)
        for (size_t s = 0; s < sizeof sets / sizeof sets[0]; s++)
            for (size_t i = 0; i < sets[s].n; i++) {
                const char *text = sets[s].text[i], *as_is = fields[tensor][sets[s].field];
                if (!as_is || strcmp(text, as_is) != 0)
                    refused(header_with(tensor, sets[s].field, text), DATA, tensor_name[tensor]);
            }
}

#define T(name, dtype, shape, range)                                                                         \
    "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" range "}"

static void whole_headers(void)
{
    static const struct {
        const char *header;
        uint64_t data;
        const char *words;
    } bad[] = {
        {"", 0, "begins with '{'"},
        {" {}", 0, "begins with '{'"},
        {"[]", 0, "begins with '{'"},
        {"null", 0, "begins with '{'"},
        {"{}{}", 0, "nothing more"},
        {"{}x", 0, "nothing more"},
        {"{", 0, "end of the text"},
        {"{}", 1, "1 bytes of data, the tensors end at byte 0"},
        {"{" T("a", "U8", "[4]", "[0,4]") "}", 3,
         "tensor 'a': data_offsets [0, 4) are no range of the 3 bytes"},
        {"{" T("a", "U8", "[4]", "[0,4]") "}", 5,
         "5 bytes of data, the tensors end at byte 4, the last is a"},
        {"{" T("a", "U8", "[4]", "[0,4]") "}", 0, "tensor 'a'"},
        {"{" T("a", "U8", "[4]", "[1,5]") "}", 5, "tensor 'a' begins at byte 1: the 1 bytes before it"},
        {"{" T("a", "U8", "[4]", "[0,4]") "," T("b", "U8", "[4]", "[5,9]") "}", 9,
         "tensor 'b' begins at byte 5"},
        {"{" T("a", "U8", "[4]", "[0,4]") "," T("b", "U8", "[4]", "[3,7]") "}", 7,
         "'b' begins at byte 3, inside tensor 'a'"},
        {"{" T("b", "U8", "[4]", "[3,7]") "," T("a", "U8", "[4]", "[0,4]") "}", 7,
         "'b' begins at byte 3, inside tensor 'a'"},
        {"{" T("a", "U8", "[4]", "[0,4]") "," T("b", "U8", "[4]", "[0,4]") "}", 4,
         "'b' begins at byte 0, inside tensor 'a'"},
        {"{" T("a", "U8", "[4]", "[0,4]") "," T("b", "U8", "[2]", "[1,3]") "}", 4,
         "tensor 'b' begins at byte 1"},
        {"{" T("a", "U8", "[4]", "[0,4]") "," T("b", "U8", "[0]", "[2,2]") "}", 4,
         "tensor 'b' begins at byte 2"},
        {"{" T("a", "U8", "[4]", "[0,4]") "," T("a", "U8", "[4]", "[4,8]") "}", 8,
         "key 'a' stands more than once"},
        {"{" T("a", "U8", "[4]", "[0,4]") "," T("\\u0061", "U8", "[4]", "[4,8]") "}", 8,
         "key 'a' stands more than once"},
        {"{" T("a\\u0000", "U8", "[4]", "[0,4]") "}", 4, "\\u0000"},
        {"{" T("a", "U8", "[4294967296,4294967296]", "[0,0]") "}", 0, "tensor 'a': the number of elements"},
        {"{" T("a", "F32", "[9007199254740992,512]", "[0,0]") "}", 0,
         "tensor 'a': 4611686018427387904 elements of F32"},
        {"{" T("a", "F4", "[3]", "[0,1]") "}", 1, "tensor 'a': 3 elements of F4 do not fill whole bytes"},
        {"{" T("a", "F6_E2M3", "[3]", "[0,2]") "}", 2, "whole bytes"},
        {"{\"__metadata__\":null}", 0, "__metadata__: expected an object"},
        {"{\"__metadata__\":[]}", 0, "__metadata__"},
        {"{\"__metadata__\":\"x\"}", 0, "__metadata__"},
        {"{\"__metadata__\":{\"a\":1}}", 0, "__metadata__: 'a': expected a string"},
        {"{\"__metadata__\":{\"a\":null}}", 0, "__metadata__: 'a'"},
        {"{\"__metadata__\":{\"a\":{}}}", 0, "__metadata__: 'a'"},
        {"{\"__metadata__\":{\"a\":\"x\",\"a\":\"y\"}}", 0, "'a' stands more than once in '__metadata__'"},
        {"{\"__metadata__\":{},\"__metadata__\":{}}", 0, "'__metadata__' stands more than once"},
        {"{\"__Metadata__\":{\"a\":\"x\"}}", 0, "tensor '__Metadata__'"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        refused(bad[i].header, bad[i].data, bad[i].words);

    accepted("{}", 0);
    accepted("{}  \n ", 0);
    accepted("{\"__metadata__\":{}}", 0);
    accepted("{" T("", "U8", "[]", "[0,1]") "}", 1);
    accepted("{" T("b", "U8", "[1]", "[1,2]") "," T("a", "U8", "[1]", "[0,1]") "}", 2);
    accepted("{" T("z", "U8", "[0]", "[0,0]") "," T("a", "U8", "[1]", "[0,1]") "," T("e", "F32", "[0,7]",
                                                                                     "[1,1]") "}",
             1);
    accepted("{" T("a", "U8", "[1,1,1,1,1,1,1,1]", "[0,1]") "}", 1);
    accepted("{" T("a", "F4", "[4]", "[0,2]") "}", 2);
    accepted("{" T("a", "U8", "[9007199254740992]", "[0,9007199254740992]") "}", (uint64_t)1 << 53);

    const char *good = header_with(-1, 0, NULL);
    char cut[4096];
    for (size_t n = 0; n < strlen(good); n++) {
        memcpy(cut, good, n);
        cut[n] = 0;
        refused(cut, DATA, NULL);
    }
    for (uint64_t data = 0; data < DATA + 8; data++)
        if (data != DATA)
            refused(good, data, NULL);
    pv_safetensors *st;
    for (uint64_t bytes = 0; bytes < 8 + strlen(good); bytes++) {
        CHECK_STATUS(pv_safetensors_parse(good, strlen(good), bytes, "x.st", &st), PV_E_FILE);
        CHECK_TEXT("does not fit into a file");
        cases++;
    }
    CHECK_STATUS(pv_safetensors_parse(good, strlen(good), UINT64_MAX, "x.st", &st), PV_E_FILE);
}

static void unreadable_dtypes(void)
{
    static const char *const other[] = {"F64", "I64", "U64",  "C64",     "U32",     "I16",
                                        "U16", "I8",  "BOOL", "F8_E4M3", "F8_E5M2", "F8_E8M0"};
    static const int width[] = {8, 8, 8, 8, 4, 2, 2, 1, 1, 1, 1, 1};
    for (size_t i = 0; i < sizeof other / sizeof other[0]; i++) {
        char header[200], byte[8];
        sprintf(header, "{\"t\":{\"dtype\":\"%s\",\"shape\":[1],\"data_offsets\":[0,%d]}}", other[i],
                width[i]);
        pv_safetensors *st;
        if (!CHECK_OK(parse(header, (uint64_t)width[i], &st)))
            continue;
        const pv_st_tensor *t = pv_safetensors_find(st, "t");
        CHECK(t->dtype == PV_DTYPE_COUNT && strcmp(t->dtype_name, other[i]) == 0 &&
              t->bytes == (uint64_t)width[i]);
        CHECK_STATUS(pv_safetensors_read(st, t, 0, 1, byte), PV_E_SHAPE);
        CHECK_TEXT("tensor 't' is");
        CHECK_TEXT(other[i]);
        pv_safetensors_close(&st);
    }
    pv_safetensors *st;
    char byte;
    CHECK_OK(parse("{" T("t", "U8", "[1]", "[0,1]") "}", 1, &st));
    CHECK_STATUS(pv_safetensors_read(st, pv_safetensors_at(st, 0), 0, 1, &byte), PV_E_ARG);
    CHECK_TEXT("only the header");
    pv_safetensors_close(&st);
}

/* Dtypes that the library does not compute in are written and read as bytes. */
static void any_dtype(void)
{
    static const double f64[2] = {0.1, -1e300};
    static const uint8_t fours[2] = {0x21, 0x43};
    static const int64_t two[] = {2}, four_of[] = {4}, three_of[] = {3}, wide[] = {INT64_MAX};
    const char *path = in_folder("any.safetensors");
    pv_st_writer *w;
    pv_safetensors *st = NULL;
    double back[2] = {0};
    uint8_t bytes[2] = {0};
    CHECK(pv_safetensors_bits("F64") == 64 && pv_safetensors_bits("F4") == 4 && pv_safetensors_bits("f64") == 0);
    CHECK_OK(pv_st_writer_begin(path, &w));
    CHECK_OK(pv_st_writer_declare_as(w, "d", "F64", 1, two));
    CHECK_OK(pv_st_writer_declare_as(w, "one", "BOOL", 0, NULL));
    CHECK_OK(pv_st_writer_declare_as(w, "q", "F4", 1, four_of));
    CHECK_OK(pv_st_writer_data(w, f64, sizeof f64));
    CHECK_OK(pv_st_writer_data(w, "\1", 1));
    CHECK_OK(pv_st_writer_data(w, fours, sizeof fours));
    CHECK_OK(pv_st_writer_end(&w));
    if (CHECK_OK(pv_safetensors_open(path, &st))) {
        CHECK_OK(pv_safetensors_read_all(st, pv_safetensors_find(st, "d"), back));
        CHECK_OK(pv_safetensors_read_all(st, pv_safetensors_find(st, "q"), bytes));
        CHECK(!memcmp(back, f64, sizeof f64) && !memcmp(bytes, fours, sizeof fours));
        CHECK(pv_safetensors_find(st, "one")->bytes == 1);
    }
    pv_safetensors_close(&st);

    static const struct {
        const char *dtype, *words;
        const int64_t *dim;
    } bad[] = {{"F65", "no dtype 'F65'", two}, {"F4", "whole bytes", three_of}, {"F4", "any.safetensors", wide}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        CHECK_OK(pv_st_writer_begin(path, &w));
        pv_st_writer_declare_as(w, "t", bad[i].dtype, 1, bad[i].dim);
        CHECK_STATUS(pv_st_writer_end(&w), PV_E_ARG);
        CHECK_TEXT(bad[i].words);
    }
    CHECK(files(true) == 1);
}

static void limits(void)
{
    char *text = malloc(17 << 20);
    for (int many = 65536; many <= 65537; many++) {
        size_t n = 0;
        for (int i = 0; i < many; i++)
            n += (size_t)sprintf(text + n,
                                 "%c\"tensor.%d\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[%d,%d]}",
                                 i ? ',' : '{', i, i, i + 1);
        text[n++] = '}';
        pv_safetensors *st;
        CHECK_STATUS(pv_safetensors_parse(text, n, 8 + n + (uint64_t)many, "x.st", &st),
                     many == 65536 ? PV_OK : PV_E_FILE);
        if (many == 65537)
            CHECK_TEXT("65537 tensors");
        int wrong = 0;
        for (int i = 0; st && i < many; i++) {
            char name[32];
            sprintf(name, "tensor.%d", i);
            const pv_st_tensor *t = pv_safetensors_find(st, name);
            wrong += !t || t != pv_safetensors_at(st, i) || t->offset != 8 + n + (uint64_t)i;
        }
        CHECK(wrong == 0);
        pv_safetensors_close(&st);
    }
    memset(text, ' ', 17 << 20);
    text[0] = '{';
    text[1] = '}';
    pv_safetensors *st;
    const size_t most = (size_t)16 << 20;
    CHECK_OK(pv_safetensors_parse(text, most, 8 + most, "x.st", &st));
    pv_safetensors_close(&st);
    CHECK_STATUS(pv_safetensors_parse(text, most + 1, 8 + most + 1, "x.st", &st), PV_E_FILE);
    CHECK_TEXT("a header of 16777217 bytes");
    free(text);
}

/* ---- Files that are not what they say ---------------------------------------------------------------------
 */

static void bad_files(void)
{
    static const char header[] =
        "{" T("a", "F32", "[64]", "[0,256]") "," T("b", "U8", "[256]", "[256,512]") "}";
    const size_t n = sizeof header - 1, whole = 8 + n + 512;
    char data[512] = {0};
    const char *path = in_folder("a.safetensors");
    pv_safetensors *st;
    put_file("a.safetensors", header, n, data, sizeof data);
    CHECK_OK(pv_safetensors_open(path, &st));
    pv_safetensors_close(&st);
    for (size_t bytes = 0; bytes < whole; bytes += bytes < 8 + n ? 1 : 64) {
        CHECK(truncate(path, (off_t)bytes) == 0);
        if (!CHECK_STATUS(pv_safetensors_open(path, &st), PV_E_FILE))
            printf("    %zu bytes\n", bytes);
        CHECK_TEXT("a.safetensors: ");
        CHECK(st == NULL);
        put_file("a.safetensors", header, n, data, sizeof data);
        cases++;
    }
    static const unsigned char lengths[][8] = {
        {0},
        {1},
        {57},                                             /* of the 64 there are, 8 tell the length */
        {0, 0, 0, 1},                                     /* 16 MiB, in a small file */
        {1, 0, 0, 1},                                     /* more than 16 MiB */
        {0xff, 0xff, 0xff, 0xff},                         /* 2^32 - 1 */
        {0xf8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, /* 8 + n wraps to 0 */
        {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
        {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f},
    };
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        char bytes[64] = {0};
        memcpy(bytes, lengths[i], 8);
        CHECK_OK(pv_file_write(path, bytes, sizeof bytes));
        CHECK_STATUS(pv_safetensors_open(path, &st), PV_E_FILE);
        CHECK_TEXT(lengths[i][0] < 2 && !lengths[i][3] ? "begins with '{'" : "a header of");
        CHECK_TEXT("a.safetensors: ");
        cases++;
    }
    CHECK_STATUS(pv_safetensors_open(in_folder("none"), &st), PV_E_FILE);
    CHECK_TEXT("none: cannot be opened");
    CHECK_STATUS(pv_safetensors_open(folder, &st), PV_E_FILE);
    CHECK_TEXT("a folder");
    CHECK_STATUS(pv_safetensors_open("/dev/null", &st), PV_E_FILE);
    CHECK_TEXT("regular file");
    CHECK(mkfifo(in_folder("fifo"), 0600) == 0);
    CHECK_STATUS(pv_safetensors_open(in_folder("fifo"), &st), PV_E_FILE);
    CHECK_TEXT("regular file");
    files(true);
}

/* ---- Shards
 * ------------------------------------------------------------------------------------------------ */

static void put_shard(const char *name, const char *const *tensors, int n, char fill)
{
    pv_st_writer *w;
    CHECK_OK(pv_st_writer_begin(in_folder(name), &w));
    for (int i = 0; i < n; i++)
        CHECK_OK(pv_st_writer_declare(w, tensors[i], PV_U8, 1, four));
    CHECK_OK(pv_st_writer_metadata(w, "shard", name));
    for (int i = 0; i < n; i++) {
        const char data[4] = {fill, (char)i, 0, 0};
        CHECK_OK(pv_st_writer_data(w, data, sizeof data));
    }
    CHECK_OK(pv_st_writer_end(&w));
}

static void shards(void)
{
    static const char *const first[] = {"c", "a"}, *const second[] = {"b"};
    const char *index = in_folder("model.safetensors.index.json");
    put_shard("m-2.safetensors", second, 1, 2);
    put_shard("m-1.safetensors", first, 2, 1);
    static const char good[] =
        "{\"metadata\":{\"total_size\":12},\"weight_map\":"
        "{\"b\":\"m-2.safetensors\",\"a\":\"m-1.safetensors\",\"c\":\"m-1.safetensors\"}}";
    pv_safetensors *st;
    CHECK_OK(pv_file_write(index, good, sizeof good - 1));
    if (CHECK_OK(pv_safetensors_open(index, &st))) {
        static const char *const order[] = {"c", "a", "b"}; /* shard by shard, then by offset */
        static const char want[][2] = {{1, 0}, {1, 1}, {2, 0}};
        CHECK(pv_safetensors_count(st) == 3);
        for (int i = 0; i < 3; i++) {
            char data[4] = {9, 9, 9, 9};
            const pv_st_tensor *t = pv_safetensors_at(st, i);
            CHECK(strcmp(t->name, order[i]) == 0 && t->shard == (i == 2) &&
                  pv_safetensors_find(st, order[i]) == t);
            CHECK_OK(pv_safetensors_read(st, t, 0, 4, data));
            CHECK(data[0] == want[i][0] && data[1] == want[i][1]);
        }
        CHECK(strcmp(pv_safetensors_path(st, 0), in_folder("m-1.safetensors")) == 0);
        CHECK(strcmp(pv_safetensors_path(st, 1), in_folder("m-2.safetensors")) == 0 &&
              !pv_safetensors_path(st, 2));
        CHECK(strcmp(pv_safetensors_metadata(st, "shard"), "m-1.safetensors") == 0);
    }
    pv_safetensors_close(&st);

    put_shard("twice.safetensors", first + 1, 1, 3);
    put_file("broken.safetensors", "{]", 2, NULL, 0);
#define MAP(entries) "{\"weight_map\":{" entries "}}"
#define ONE          "\"a\":\"m-1.safetensors\",\"c\":\"m-1.safetensors\""
    static const char *const bad[][2] = {
        {"", "end of the text"},
        {"[]", "'weight_map'"},
        {"{}", "'weight_map'"},
        {"{\"weight_map\":[]}", "'weight_map'"},
        {"{\"Weight_map\":{}}", "'weight_map'"},
        {MAP(""), "it names none"},
        {MAP("\"a\":1"), "tensor 'a': expected the name of a file beside the index, came 'something else'"},
        {MAP("\"a\":null"), "tensor 'a'"},
        {MAP("\"a\":\"\""), "tensor 'a'"},
        {MAP("\"a\":\".\""), "tensor 'a'"},
        {MAP("\"a\":\"..\""), "tensor 'a'"},
        {MAP("\"a\":\"/etc/passwd\""),
         "tensor 'a': expected the name of a file beside the index, came '/etc/passwd'"},
        {MAP("\"a\":\"../m-1.safetensors\""), "tensor 'a'"},
        {MAP("\"a\":\"./m-1.safetensors\""), "tensor 'a'"},
        {MAP("\"a\":\"x\\\\m-1.safetensors\""), "tensor 'a'"},
        {MAP("\"a\":\"m-1.safetensors\",\"a\":\"m-1.safetensors\""), "'a' stands more than once"},
        {MAP("\"a\":\"m-1.safetensors\""), "tensor 'c' of 'm-1.safetensors' is missing in the index"},
        {MAP(ONE ",\"b\":\"m-1.safetensors\""),
         "tensor 'b' is in none of the shards, expected in 'm-1.safetensors'"},
        {MAP("\"a\":\"m-1.safetensors\",\"c\":\"m-2.safetensors\",\"b\":\"m-2.safetensors\""),
         "tensor 'c' is in 'm-1.safetensors', expected in 'm-2.safetensors'"},
        {MAP(ONE ",\"d\":\"twice.safetensors\""), "tensor 'a' is also in"},
        {MAP(ONE ",\"d\":\"none.safetensors\""), "none.safetensors: cannot be opened"},
        {MAP(ONE ",\"d\":\"broken.safetensors\""), "broken.safetensors: not valid JSON"},
        {MAP(ONE ",\"d\":\"model.safetensors.index.json\""), "model.safetensors.index.json: a header of"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        CHECK_OK(pv_file_write(index, bad[i][0], strlen(bad[i][0])));
        bool ok = CHECK_STATUS(pv_safetensors_open(index, &st), PV_E_FILE);
        if (!(CHECK_TEXT(bad[i][1]) && ok))
            printf("    %s\n", bad[i][0]);
        CHECK(st == NULL);
        cases++;
    }
    char *many = malloc(257 * 32 + 100);
    size_t n = (size_t)sprintf(many, "{\"weight_map\":{");
    for (int i = 0; i < 257; i++)
        n += (size_t)sprintf(many + n, "%s\"t%d\":\"f%d\"", i ? "," : "", i, i);
    n += (size_t)sprintf(many + n, "}}");
    CHECK_OK(pv_file_write(index, many, n));
    CHECK_STATUS(pv_safetensors_open(index, &st), PV_E_FILE);
    CHECK_TEXT("expected 1..256 files, it names more");
    free(many);
    files(true);
}

/* ---- Disk, memory, threads
 * ---------------------------------------------------------------------------------- */

static void failing_reads(void)
{
    const char *path = in_folder("five.safetensors");
    pv_safetensors *st;
    CHECK_OK(write_five(path));
    static const int harmless[] = {SHORT, INTERRUPTED};
    for (int i = 0; i < 2; i++) {
        reads_are = harmless[i];
        calls_before = 0;
        if (CHECK_OK(pv_safetensors_open(path, &st))) {
            check_five(st);
            check_data(st);
        }
        pv_safetensors_close(&st);
    }
    /* The k-th read fails, for every k: opening takes two, then each tensor one. */
    for (int how = BROKEN; how <= ENDED; how++)
        for (int k = 0; k < 4; k++) {
            float f[6] = {0};
            reads_are = how;
            calls_before = k;
            pv_status status = pv_safetensors_open(path, &st);
            CHECK_STATUS(status, k < 2 ? PV_E_FILE : PV_OK);
            if (!status) {
                const pv_st_tensor *t = pv_safetensors_find(st, "weights");
                CHECK_STATUS(pv_safetensors_read(st, t, 0, 6, f), k == 2 ? PV_E_FILE : PV_OK);
                if (k == 2)
                    CHECK_TEXT("tensor 'weights': ");
                CHECK_STATUS(pv_safetensors_read(st, t, 0, 6, f), PV_E_FILE);
            }
            CHECK_TEXT(how == BROKEN ? "Input/output error" : "did it shrink?");
            CHECK_TEXT("five.safetensors");
            reads_are = PLAIN;
            pv_safetensors_close(&st);
        }
    /* The file shrinks while it is open: a status, where a mapped file would kill the process. */
    int32_t i[4];
    CHECK_OK(pv_safetensors_open(path, &st));
    const pv_st_tensor *t = pv_safetensors_find(st, "na\"me\n");
    CHECK(truncate(path, (off_t)t->offset + 7) == 0);
    CHECK_STATUS(pv_safetensors_read(st, t, 0, 4, i), PV_E_FILE);
    CHECK_TEXT("9 more were expected (did it shrink?)");
    CHECK_OK(pv_safetensors_read(st, t, 0, 1, i));
    CHECK(i[0] == -1);
    pv_safetensors_close(&st);
    files(true);
}

static void failing_writes(void)
{
    const char *path = in_folder("five.safetensors");
    pv_safetensors *st;
    static const int harmless[] = {SHORT, INTERRUPTED};
    for (int i = 0; i < 2; i++) {
        writes_are = harmless[i];
        calls_before = 0;
        CHECK_OK(write_five(path));
        writes_are = PLAIN;
        if (CHECK_OK(pv_safetensors_open(path, &st)))
            check_data(st);
        pv_safetensors_close(&st);
        CHECK(files(true) == 1);
    }
    int k = 0;
    for (pv_status status = PV_E_FILE; status && k < 20; k++) {
        writes_are = k % 2 ? ENDED : BROKEN;
        calls_before = k / 2;
        status = write_five(path);
        writes_are = PLAIN;
        if (status) {
            CHECK_STATUS(status, PV_E_FILE);
            CHECK_TEXT("five.safetensors: cannot be written");
            CHECK_TEXT(k % 2 ? "No space left" : "Input/output error");
            CHECK(files(false) == 0);
        }
    }
    CHECK(k > 10 &&
          files(true) == 1); /* header length, header, and each piece of data failed, then none did */
    writes_are = BROKEN;
    calls_before = 0;
    CHECK_STATUS(pv_file_write(path, "x", 1), PV_E_FILE);
    writes_are = PLAIN;
    CHECK_TEXT("five.safetensors: cannot be written: Input/output error");
    CHECK(files(false) == 0);
    syncs_are = BROKEN;
    calls_before = 0;
    CHECK_STATUS(write_five(path), PV_E_FILE);
    CHECK_TEXT("cannot be flushed");
    CHECK(files(false) == 0);
    syncs_are = PLAIN;
}

/* A disk that is full at some byte, for the system and not only for the functions above. */
static void full_disk(void)
{
    const char *path = in_folder("five.safetensors");
    struct rlimit before, now;
    CHECK_OK(write_five(path));
    struct stat s;
    CHECK(stat(path, &s) == 0 && getrlimit(RLIMIT_FSIZE, &before) == 0);
    files(true);
    signal(SIGXFSZ, SIG_IGN);
    for (off_t bytes = 0; bytes <= s.st_size; bytes += bytes + 16 < s.st_size ? 16 : 1) {
        now = before;
        now.rlim_cur = (rlim_t)bytes;
        fflush(stdout);
        CHECK(setrlimit(RLIMIT_FSIZE, &now) == 0);
        pv_status status = write_five(path);
        CHECK(setrlimit(RLIMIT_FSIZE, &before) == 0);
        CHECK_STATUS(status, bytes < s.st_size ? PV_E_FILE : PV_OK);
        CHECK(files(false) == (bytes < s.st_size ? 0 : 1));
        if (status)
            CHECK_TEXT("five.safetensors: cannot be written: File too large");
    }
    signal(SIGXFSZ, SIG_DFL);
    files(true);
}

static pv_status write_once(void *user)
{
    (void)user;
    pv_status st = write_five(in_folder("memory.safetensors"));
    CHECK(files(true) == (st ? 0 : 1));
    return st;
}

static pv_status open_once(void *path)
{
    pv_safetensors *st;
    float f[6];
    pv_status status = pv_safetensors_open(path, &st);
    CHECK((status == PV_OK) == (st != NULL));
    if (!status) {
        const int64_t before = pv_alloc_count();
        status = pv_safetensors_read(st, pv_safetensors_at(st, 0), 0, 1, f);
        CHECK(pv_alloc_count() == before); /* reading takes no memory */
    }
    pv_safetensors_close(&st);
    return status;
}

static pv_status parse_once(void *user)
{
    pv_safetensors *st;
    (void)user;
    pv_status status = parse(header_with(-1, 0, NULL), DATA, &st);
    pv_safetensors_close(&st);
    return status;
}

/* Metadata and names that each need a block of memory of their own. */
static pv_status parse_long_names(void *user)
{
    enum { LONG = 70000 };
    static char header[4 * LONG], text[LONG + 1];
    (void)user;
    memset(text, 'x', LONG);
    sprintf(
        header,
        "{\"__metadata__\":{\"%s\":\"%s\"},\"%s\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}",
        text, text, text);
    pv_safetensors *st;
    pv_status status = parse(header, 0, &st);
    pv_safetensors_close(&st);
    return status;
}

static void failing_memory(void)
{
    static const char *const first[] = {"a"}, *const second[] = {"b"};
    static const char index[] = "{\"weight_map\":{\"a\":\"m-1\",\"b\":\"m-2\"}}";
    fault_every(parse_once, NULL, "parse");
    fault_every(parse_long_names, NULL, "parse long names");
    fault_every(write_once, NULL, "write");
    char path[256], sharded[256];
    strcpy(path, in_folder("five.safetensors"));
    strcpy(sharded, in_folder("i.json"));
    CHECK_OK(write_five(path));
    fault_every(open_once, path, "open and read");
    put_shard("m-1", first, 1, 1);
    put_shard("m-2", second, 1, 1);
    CHECK_OK(pv_file_write(sharded, index, sizeof index - 1));
    fault_every(open_once, sharded, "open shards");
    files(true);
}

static void *read_many(void *st)
{
    static int wrong_is_one = 1;
    for (int i = 0; i < 2000; i++) {
        float f[6];
        const pv_st_tensor *t = pv_safetensors_find(st, "weights");
        if (pv_safetensors_read(st, t, i % 6, 6 - i % 6, f) ||
            memcmp(f, weights + i % 6, (size_t)(6 - i % 6) * 4) != 0)
            return &wrong_is_one;
    }
    return NULL;
}

static void threads(void)
{
    pv_safetensors *st;
    pthread_t t[4];
    CHECK_OK(write_five(in_folder("five.safetensors")));
    if (!CHECK_OK(pv_safetensors_open(in_folder("five.safetensors"), &st)))
        return;
    for (int i = 0; i < 4; i++)
        CHECK(pthread_create(&t[i], NULL, read_many, st) == 0);
    for (int i = 0; i < 4; i++) {
        void *wrong;
        CHECK(pthread_join(t[i], &wrong) == 0 && !wrong);
    }
    pv_safetensors_close(&st);
    files(true);
}

static void given_file(const char *path)
{
    pv_safetensors *st;
    uint64_t bytes = 0;
    if (!CHECK_OK(pv_safetensors_open(path, &st)))
        return;
    for (int i = 0; i < pv_safetensors_count(st); i++) {
        const pv_st_tensor *t = pv_safetensors_at(st, i);
        void *data = malloc(t->bytes ? t->bytes : 1);
        CHECK_OK(pv_safetensors_read(st, t, 0, t->n_elements, data));
        CHECK(pv_safetensors_find(st, t->name) == t);
        free(data);
        bytes += t->bytes;
    }
    printf("%s: %d tensors, %llu bytes\n", path, pv_safetensors_count(st), (unsigned long long)bytes);
    pv_safetensors_close(&st);
}

/* The number the next file would get: higher than before when one was left open. */
static int next_fd(void)
{
    int fd = open("/dev/null", O_RDONLY);
    close(fd);
    return fd;
}

int main(int argc, char **argv)
{
    const int fd = next_fd();
    for (int i = 1; i < argc; i++)
        given_file(argv[i]);
    if (!mkdtemp(folder))
        return 1;
    round_trip();
    exact_bytes();
    writer_refuses();
    fields_replaced();
    whole_headers();
    unreadable_dtypes();
    any_dtype();
    limits();
    bad_files();
    shards();
    failing_reads();
    failing_writes();
    full_disk();
    failing_memory();
    threads();
    printf("%d malformed headers, files and indexes\n", cases);
    CHECK(cases >= 300);
    CHECK(next_fd() == fd);
    CHECK(rmdir(folder) == 0);
    CHECK(pv_alloc_live() == 0);
    return test_done();
}
