/* json.c - strict JSON, and files read and written whole. */
#include "io/json.h"
#include "base/memory.h"
#include "tests/faults.h"
#include "tests/test.h"

#include <dirent.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_BYTES ((size_t)1 << 20)

static char folder[] = "/tmp/pv-json-XXXXXX";

static const char *in_folder(const char *name)
{
    static char path[512];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static int files_in_folder(void)
{
    int n = 0;
    DIR *d = opendir(folder);
    if (!CHECK(d != NULL))
        return -1;
    for (struct dirent *e; (e = readdir(d));)
        n += e->d_name[0] != '.';
    closedir(d);
    return n;
}

/* The text stands in a block of its own size, without a NUL: a byte read too far is found by the sanitizer.
 */
static pv_status parse(const char *text, size_t n, cJSON **out)
{
    char *exact = malloc(n ? n : 1);
    if (n)
        memcpy(exact, text, n);
    pv_status st = pv_json_parse(exact, n, MAX_BYTES, "x.json", out);
    free(exact);
    CHECK((st == PV_OK) == (*out != NULL));
    return st;
}

static void good(void)
{
    static const char *const texts[] = {
        "{}",
        "[]",
        "null",
        "true",
        "false",
        "0",
        "-0",
        "-1.5e-3",
        "1E+2",
        "\"\"",
        " \t\r\n[1 , 2 ]\n",
        "9007199254740992",
        "-9007199254740992",
        "1e300",
        "123456789012345678901234567890.0",
        "\"\\u00e9\\ud83d\\ude00\\n\\\"\\/\"",
        "\"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\xed\x9f\xbf\xf4\x8f\xbf\xbf\"",
        "{\"a\":{\"b\":1},\"b\":{\"b\":2},\"A\":3}",
        "[{\"a\":1},{\"a\":1}]",
        "{\"\":0}",
    };
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        cJSON *v;
        if (!CHECK_OK(parse(texts[i], strlen(texts[i]), &v)))
            printf("    %s\n", texts[i]);
        cJSON_Delete(v);
    }
    cJSON *v;
    CHECK_OK(parse("[9007199254740992,-0.125]", 25, &v));
    CHECK(cJSON_GetArrayItem(v, 0)->valuedouble == 9007199254740992.0);
    CHECK(cJSON_GetArrayItem(v, 1)->valuedouble == -0.125);
    cJSON_Delete(v);
}

static void bad(void)
{
#define Z(text, words)                                                                                       \
    {                                                                                                        \
        text, sizeof(text) - 1, words                                                                        \
    }
    static const struct {
        const char *text;
        size_t n;
        const char *words;
    } cases[] = {
        Z("", "end of the text"),
        Z("  ", "end of the text"),
        Z("{", "end of the text"),
        Z("[", "expected a value"),
        Z("{\"1\":1,", "'\"'"),
        Z("{\"a\"", "':'"),
        Z("{\"a\":", "key 'a'"),
        Z("{\"a\":1", "',' or '}'"),
        Z("[1", "',' or ']'"),
        Z("[1,]", "key '[1]'"),
        Z("[1 2]", "came '2'"),
        Z("{,}", "'\"'"),
        Z("{a:1}", "'\"'"),
        Z("{'a':1}", "'\"'"),
        Z("{\"a\":1,}", "'\"'"),
        Z("{} {}", "nothing more"),
        Z("{}\0", "nothing more"),
        Z("1x", "nothing more"),
        Z("\xef\xbb\xbf{}", "byte 0xef"),
        Z("// no\n{}", "came '/'"),
        Z("nul", "null, true or false"),
        Z("nulL", "came 'L'"),
        Z("True", "expected a value"),
        Z("{\"q\":{\"a\":[0,NaN]}}", "key 'q.a[1]': expected a value (JSON has no NaN"),
        Z("[Infinity]", "no NaN and no Infinity"),
        Z("[-Infinity]", "a number"),
        Z("01", "leading zeros"),
        Z("-", "a number"),
        Z("+1", "expected a value"),
        Z(".5", "expected a value"),
        Z("-.5", "a number"),
        Z("1.", "behind the point"),
        Z("1.e1", "behind the point"),
        Z("1e", "exponent"),
        Z("1e+", "exponent"),
        Z("0x10", "nothing more"),
        Z("{\"n\":9007199254740993}", "key 'n': the integer 9007199254740993 is beyond 2^53"),
        Z("-9007199254740993", "beyond 2^53"),
        Z("18446744073709551616", "beyond 2^53"),
        Z("36893488147419103232", "beyond 2^53"),
        Z("100000000000000000000000000000000000000000000000000", "beyond 2^53"),
        Z("0.00000000000000000000000000000000000000000000000000000000000000000001",
          "more than 63 characters"),
        Z("{\"a\":[1e999]}", "key 'a[0]': the number is too large"),
        Z("-1e309", "too large"),
        Z("\"", "came the end"),
        Z("\"abc", "came the end"),
        Z("\"a\nb\"", "control character"),
        Z("\"a\0b\"", "control character"),
        Z("\"\x1f\"", "control character"),
        Z("\"\\", "backslash"),
        Z("\"\\x\"", "backslash"),
        Z("\"\\\0\"", "backslash"),
        Z("\"\\u12\"", "hexadecimal"),
        Z("\"\\u12g4\"", "hexadecimal"),
        Z("\"\\u0000\"", "no \\u0000"),
        Z("{\"a\\u0000b\":1}", "no \\u0000"),
        Z("\"\\ud800\"", "surrogate"),
        Z("\"\\ud800\\n\"", "surrogate"),
        Z("\"\\ud800\\ud800\"", "surrogate"),
        Z("\"\\ud800\\u0041\"", "surrogate"),
        Z("\"\\udc00\"", "surrogate"),
        Z("\"\x80\"", "UTF-8"),
        Z("\"\xc0\x80\"", "UTF-8"),
        Z("\"\xc1\xbf\"", "UTF-8"),
        Z("\"\xc3\"", "UTF-8"),
        Z("\"\xe0\x9f\xbf\"", "UTF-8"),
        Z("\"\xed\xa0\x80\"", "UTF-8"),
        Z("\"\xe2\x82\"", "UTF-8"),
        Z("\"\xf0\x8f\xbf\xbf\"", "UTF-8"),
        Z("\"\xf4\x90\x80\x80\"", "UTF-8"),
        Z("\"\xf5\x80\x80\x80\"", "UTF-8"),
        Z("\"\xff\"", "UTF-8"),
        Z("{\"a\":1,\"a\":2}", "key 'a' stands more than once"),
        Z("{\"a\":1,\"\\u0061\":2}", "key 'a' stands more than once"),
        Z("{\"x\":[0,{\"b\":1,\"c\":2,\"b\":3}]}", "key 'b' stands more than once in 'x[1]'"),
        Z("{\"\":1,\"\":2}", "more than once"),
    };
#undef Z
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        cJSON *v;
        bool ok = CHECK_STATUS(parse(cases[i].text, cases[i].n, &v), PV_E_FILE);
        ok = CHECK_TEXT(cases[i].words) && ok;
        ok = CHECK_TEXT("x.json: ") && ok;
        if (!ok)
            printf("    case %zu: %s\n", i, cases[i].text);
        cJSON_Delete(v);
    }
}

/* Whatever a valid text is cut to, it is refused: none of its prefixes is a document. */
static void truncated(void)
{
    static const char text[] =
        "{\"a\\n\":[1.5e3,-2,null,true,false,\"\\ud83d\\ude00\xc3\xa9\"],\"b\":{\"c\":{}}}";
    cJSON *v;
    CHECK_OK(parse(text, sizeof text - 1, &v));
    cJSON_Delete(v);
    for (size_t n = 0; n < sizeof text - 1; n++)
        CHECK_STATUS(parse(text, n, &v), PV_E_FILE);
}

static void nested(void)
{
    static const struct {
        char open, close;
    } kinds[] = {{'[', ']'}, {'{', '}'}};
    for (int kind = 0; kind < 2; kind++)
        for (int depth = PV_JSON_MAX_DEPTH; depth <= PV_JSON_MAX_DEPTH + 1; depth++) {
            char text[1024];
            int n = 0;
            for (int i = 0; i < depth; i++)
                n += sprintf(text + n, "%c%s", kinds[kind].open, kind && i < depth - 1 ? "\"key\":" : "");
            for (int i = 0; i < depth; i++)
                text[n++] = kinds[kind].close;
            cJSON *v;
            CHECK_STATUS(parse(text, (size_t)n, &v), depth > PV_JSON_MAX_DEPTH ? PV_E_FILE : PV_OK);
            if (depth > PV_JSON_MAX_DEPTH)
                CHECK_TEXT("nested deeper than 32");
            cJSON_Delete(v);
        }
    char *deep = malloc(MAX_BYTES);
    memset(deep, '[', MAX_BYTES);
    cJSON *v;
    CHECK_STATUS(parse(deep, MAX_BYTES, &v), PV_E_FILE);
    free(deep);
}

static void limits(void)
{
    cJSON *v;
    CHECK_STATUS(pv_json_parse("[1,2]", 5, 4, "small", &v), PV_E_FILE);
    CHECK_TEXT("small: 5 bytes");
    CHECK(v == NULL);
    const size_t n = 2 * (size_t)PV_JSON_MAX_VALUES + 1;
    char *wide = malloc(n);
    for (size_t i = 0; i < n; i++)
        wide[i] = i % 2 ? '0' : ',';
    wide[0] = '[';
    wide[n - 1] = ']'; /* as many elements as values are allowed, and the array itself */
    CHECK_STATUS(pv_json_parse(wide, n, n, "wide", &v), PV_E_FILE);
    CHECK_TEXT("more than 1048576 values");
    wide[n - 3] = ']';
    CHECK_OK(pv_json_parse(wide, n - 2, n, "wide", &v));
    cJSON_Delete(v);
    free(wide);
}

/* Many keys in one object: sorted, not compared each with each. The last one is there twice. */
static void many_keys(void)
{
    enum { KEYS = 60000 };
    char *text = malloc(KEYS * 16 + 32);
    size_t n = (size_t)sprintf(text, "{\"k%d\":0", KEYS - 1);
    for (int i = 0; i < KEYS; i++)
        n += (size_t)sprintf(text + n, ",\"k%d\":0", i);
    text[n++] = '}';
    cJSON *v;
    CHECK_STATUS(parse(text, n, &v), PV_E_FILE);
    CHECK_TEXT("'k59999' stands more than once");
    free(text);
}

static void files(void)
{
    char *data;
    size_t n;
    CHECK_OK(pv_file_write(in_folder("a.json"), "{\"a\": [1]}", 10));
    CHECK_OK(pv_file_read(in_folder("a.json"), 10, &data, &n));
    CHECK(n == 10 && memcmp(data, "{\"a\": [1]}", 11) == 0);
    pv_free(data);
    CHECK_STATUS(pv_file_read(in_folder("a.json"), 9, &data, &n), PV_E_FILE);
    CHECK_TEXT("a.json: 10 bytes, at most 9");
    CHECK(data == NULL);
    cJSON *v;
    CHECK_OK(pv_json_read(in_folder("a.json"), 10, &v));
    CHECK(v && cJSON_IsArray(v->child));
    cJSON_Delete(v);

    CHECK_OK(pv_file_write(in_folder("a.json"), "", 0)); /* replaces it */
    CHECK_OK(pv_file_read(in_folder("a.json"), 9, &data, &n));
    CHECK(n == 0 && data[0] == 0);
    pv_free(data);
    CHECK_STATUS(pv_json_read(in_folder("a.json"), 9, &v), PV_E_FILE);
    CHECK_TEXT("a.json");
    struct stat s;
    const mode_t mask = umask(0);
    umask(mask);
    CHECK(stat(in_folder("a.json"), &s) == 0 && (s.st_mode & 0777) == (0666 & ~mask));
    CHECK(files_in_folder() == 1);

    CHECK_STATUS(pv_file_read(in_folder("none.json"), 9, &data, &n), PV_E_FILE);
    CHECK_TEXT("none.json: cannot be opened: No such file");
    CHECK_STATUS(pv_file_read(folder, 9, &data, &n), PV_E_FILE);
    CHECK_TEXT("a folder");
    CHECK_STATUS(pv_file_read("/dev/zero", 9, &data, &n), PV_E_FILE);
    CHECK_TEXT("regular file");
    CHECK(mkfifo(in_folder("fifo"), 0600) == 0);
    CHECK_STATUS(pv_file_read(in_folder("fifo"), 9, &data, &n),
                 PV_E_FILE); /* and does not wait for a writer */
    CHECK_TEXT("regular file");

    CHECK_STATUS(pv_file_write(in_folder("no/such/folder.json"), "x", 1), PV_E_FILE);
    CHECK_TEXT("cannot be created");
    CHECK(mkdir(in_folder("taken"), 0700) == 0);
    CHECK_STATUS(pv_file_write(in_folder("taken"), "x", 1), PV_E_FILE); /* a folder has the name already */
    CHECK_TEXT("taken: expected a regular file or none, this is a folder");
    CHECK_STATUS(pv_file_write(in_folder("fifo"), "x", 1), PV_E_FILE); /* nor is a device or FIFO replaced */
    CHECK_TEXT("this is something else");
    CHECK(symlink("fifo", in_folder("link")) == 0);
    CHECK_STATUS(pv_file_write(in_folder("link"), "x", 1), PV_E_FILE);
    CHECK_TEXT("this is a symbolic link");
    CHECK(lstat(in_folder("fifo"), &s) == 0 && S_ISFIFO(s.st_mode));
    CHECK(lstat(in_folder("link"), &s) == 0 && S_ISLNK(s.st_mode));
    CHECK_STATUS(pv_file_write("", "x", 1), PV_E_FILE);
    CHECK_TEXT("name of a file");
    CHECK(files_in_folder() == 4);
    CHECK(unlink(in_folder("link")) == 0);
    CHECK(rmdir(in_folder("taken")) == 0);
    CHECK(unlink(in_folder("fifo")) == 0);
}

static pv_status parse_once(void *user)
{
    static const char text[] =
        "{\"a\": [1, \"two\", {\"b\": null, \"c\": true}], \"d\": {\"e\": -0.5, \"f\": \"g\"}}";
    cJSON *v;
    (void)user;
    pv_status st = parse(text, sizeof text - 1, &v);
    cJSON_Delete(v);
    return st;
}

static pv_status write_and_read_once(void *user)
{
    cJSON *v = NULL;
    (void)user;
    pv_status st = pv_file_write(in_folder("b.json"), "{\"a\": 1, \"b\": 2}", 16);
    if (!st)
        st = pv_json_read(in_folder("b.json"), 100, &v);
    cJSON_Delete(v);
    unlink(in_folder("b.json"));
    CHECK(files_in_folder() == 1);
    return st;
}

int main(void)
{
    if (!mkdtemp(folder))
        return 1;
    good();
    bad();
    truncated();
    nested();
    limits();
    many_keys();
    files();
    fault_every(parse_once, NULL, "parse");
    fault_every(write_and_read_once, NULL, "write and read");
    CHECK(unlink(in_folder("a.json")) == 0 && rmdir(folder) == 0);
    CHECK(pv_alloc_live() == 0);
    return test_done();
}
