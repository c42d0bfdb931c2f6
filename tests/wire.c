/* wire.c - openpi's messages: what Python wrote (make_wire_fixtures.py) is read as it was meant, what is
 * broken is refused with words, and replies are written byte for byte as Python writes them. */
#include "test.h"
#include "base/memory.h"
#include "tools/wire.h"

static uint8_t message[1 << 20];
static size_t length;
static wire_request request;

static bool load(const char *name)
{
    char path[256];
    snprintf(path, sizeof path, "data/wire/%s.msgpack", name);
    FILE *f = fopen(path, "rb");
    length = f ? fread(message, 1, sizeof message, f) : 0;
    if (f)
        fclose(f);
    return CHECK(f != NULL && length < sizeof message);
}

static const pv_field *field(const char *key, pv_field_type type, int n_dims, int64_t d0, int64_t d1,
                             int64_t d2)
{
    int64_t want[] = {d0, d1, d2};
    for (int i = 0; i < request.n_fields; i++) {
        const pv_field *f = &request.field[i];
        if (strcmp(f->key, key))
            continue;
        bool ok = f->type == type && f->n_dims == n_dims;
        for (int d = 0; ok && d < n_dims && d < 3; d++)
            ok = f->dim[d] == want[d];
        if (!CHECK(ok))
            printf("    field '%s'\n", key);
        return ok ? f : NULL;
    }
    CHECK(!"there");
    printf("    field '%s'\n", key);
    return NULL;
}

static bool holds(const pv_field *f, const void *bytes, size_t n)
{
    return f && !memcmp(f->data, bytes, n);
}

static void pictures(const char *key, int h, int w, int seed)
{
    const pv_field *f = field(key, PV_FIELD_U8, 3, h, w, 3);
    bool same = f != NULL;
    for (int i = 0; same && i < h * w * 3; i++)
        same = ((const uint8_t *)f->data)[i] == (i * 7 + seed) % 256;
    CHECK(same);
}

static void text(const char *key, const char *want)
{
    CHECK(holds(field(key, PV_FIELD_TEXT, 1, (int64_t)strlen(want), 0, 0), want, strlen(want)));
}

static void f64(const char *key, double want)
{
    const pv_field *f = field(key, PV_FIELD_F64, 0, 0, 0, 0);
    CHECK(holds(f, &want, sizeof want));
}

static void i64(const char *key, int64_t want)
{
    const pv_field *f = field(key, PV_FIELD_I64, 0, 0, 0, 0);
    CHECK(holds(f, &want, sizeof want));
}

static bool read_file(const char *name, int n_fields)
{
    return load(name) && CHECK_OK(wire_read(message, length, &request)) &&
           CHECK(request.n_fields == n_fields);
}

static void robots(void)
{
    read_file("libero", 4);
    pictures("observation/image", 4, 5, 0);
    pictures("observation/wrist_image", 3, 2, 1);
    double state[8];
    for (int i = 0; i < 8; i++)
        state[i] = i / 8.0;
    CHECK(holds(field("observation/state", PV_FIELD_F64, 1, 8, 0, 0), state, sizeof state));
    text("prompt", "put the bowl on the plate");
    wire_request_free(&request);

    read_file("droid", 5);
    pictures("observation/wrist_image_left", 2, 3, 3);
    float joints[] = {0, 1, 2, 3, 4, 5, 6};
    CHECK(holds(field("observation/joint_position", PV_FIELD_F32, 1, 7, 0, 0), joints, sizeof joints));
    f64("observation/gripper_position", 0.25);
    text("prompt", "open the drawer");
    wire_request_free(&request);

    read_file("aloha", 6);
    uint8_t twos[12];
    memset(twos, 2, sizeof twos);
    CHECK(holds(field("images/cam_left_wrist", PV_FIELD_U8, 3, 3, 2, 2), twos, sizeof twos));
    text("prompt", "unzip the bag \xe2\x9d\xa4");
    wire_request_free(&request);
}

static void values(void)
{
    read_file("golden", 1);
    float golden = 1.5f;
    CHECK(holds(field("a", PV_FIELD_F32, 2, 1, 1, 0), &golden, sizeof golden));
    wire_request_free(&request);
    read_file("empty", 0);

    read_file("dtypes", 9);
    uint8_t u1[] = {1, 255}, b1[] = {1, 0};
    int32_t i4 = -5;
    int64_t i8[] = {(int64_t)1 << 40, -1};
    float f4 = 0.1f;
    double f8 = 0.1, columns[] = {0, 1, 2, 3, 4, 5};
    CHECK(holds(field("u1", PV_FIELD_U8, 1, 2, 0, 0), u1, sizeof u1));
    CHECK(holds(field("i4", PV_FIELD_I32, 1, 1, 0, 0), &i4, sizeof i4));
    CHECK(holds(field("i8", PV_FIELD_I64, 2, 1, 2, 0), i8, sizeof i8));
    CHECK(holds(field("f4", PV_FIELD_F32, 1, 1, 0, 0), &f4, sizeof f4));
    CHECK(holds(field("f8", PV_FIELD_F64, 1, 1, 0, 0), &f8, sizeof f8));
    CHECK(holds(field("b1", PV_FIELD_BOOL, 1, 2, 0, 0), b1, sizeof b1));
    f64("point", 2.5);
    field("deep", PV_FIELD_F32, 4, 1, 2, 3);
    CHECK(holds(field("columns", PV_FIELD_F64, 2, 2, 3, 0), columns, sizeof columns));
    wire_request_free(&request);

    read_file("scalars", 13);
    f64("f4", 1.5);
    f64("f8", 0.1);
    i64("i8", -3);
    i64("u1", 200);
    const pv_field *b = field("b1", PV_FIELD_BOOL, 0, 0, 0, 0),
                   *yes = field("true", PV_FIELD_BOOL, 0, 0, 0, 0);
    CHECK(b && *(const uint8_t *)b->data == 1 && yes && *(const uint8_t *)yes->data == 1);
    text("text", "so");
    i64("int", 70000);
    i64("negative", -200);
    i64("large", (int64_t)1 << 40);
    f64("float", 0.5);
    double list[] = {1, 2.5, -3};
    CHECK(holds(field("list", PV_FIELD_F64, 1, 3, 0, 0), list, sizeof list));
    wire_request_free(&request);

    read_file("text_keys", 1);
    float pair[] = {3, 4};
    CHECK(holds(field("a", PV_FIELD_F32, 2, 2, 1, 0), pair, sizeof pair));
    wire_request_free(&request);
    read_file("long", 22);
    field("prompt", PV_FIELD_TEXT, 1, 300, 0, 0);
    field("image", PV_FIELD_U8, 3, 160, 150, 1);
    wire_request_free(&request);
}

/* The message in a block of its size, so that AddressSanitizer sees one byte too many. */
static pv_status read_exactly(size_t n)
{
    uint8_t *copy = malloc(n ? n : 1);
    memcpy(copy, message, n);
    pv_status st = wire_read(copy, n, &request);
    if (!st)
        wire_request_free(&request);
    free(copy);
    return st;
}

static void hostile(void)
{
    static const struct {
        const char *name, *words;
        pv_status status;
    } cases[] = {
        {"no_bytes", "is empty", PV_E_ARG},
        {"no_map", "expected a map, came a list", PV_E_ARG},
        {"twice_over", "1 bytes stand behind its end", PV_E_ARG},
        {"nil", "field 'a': expected an array, a number or text, came nil", PV_E_ARG},
        {"twice", "field 'a': is there twice", PV_E_ARG},
        {"twice_nested", "field 'a/b': is there twice", PV_E_ARG},
        {"number_key", "expected text as key 0", PV_E_ARG},
        {"empty_key", "came no text", PV_E_ARG},
        {"zero_key", "came no text", PV_E_ARG},
        {"long_key", "longer than 128 bytes", PV_E_ARG},
        {"no_utf8", "not UTF-8", PV_E_ARG},
        {"zero_text", "zero byte", PV_E_ARG},
        {"beyond", "beyond int64", PV_E_ARG},
        {"extension", "type 0xd4", PV_E_ARG},
        {"list_huge", "4294967295 elements or bytes, 0 bytes remain", PV_E_ARG},
        {"map_huge", "4294967295 elements or bytes, 0 bytes remain", PV_E_ARG},
        {"list_huge_inside", "4294967295", PV_E_ARG},
        {"bytes_huge", "4294967295", PV_E_ARG},
        {"text_huge", "4294967295", PV_E_ARG},
        {"shape_huge", "4294967295", PV_E_ARG},
        {"deep_maps", "within each other", PV_E_ARG},
        {"deep_lists", "element 0 is a list", PV_E_ARG},
        {"list_of_text", "element 0 is text", PV_E_ARG},
        {"list_empty", "came 0", PV_E_SHAPE},
        {"list_long", "came 4097", PV_E_SHAPE},
        {"fields_many", "more than 64 fields", PV_E_ARG},
        {"big_endian", "came '>f4'", PV_E_SHAPE},
        {"half", "came '<f2'", PV_E_SHAPE},
        {"words", "came '<U2'", PV_E_SHAPE},
        {"objects", "came '|O'", PV_E_SHAPE},
        {"dtype_number", "came '?'", PV_E_SHAPE},
        {"no_data", "without its data, dtype or shape", PV_E_ARG},
        {"mark_false", "expected true", PV_E_ARG},
        {"data_text", "data: expected bytes, came text", PV_E_ARG},
        {"shape_short", "stands for 1 bytes, its data are 2", PV_E_SHAPE},
        {"shape_long", "dim 0 of its shape", PV_E_SHAPE},
        {"shape_zero", "dim 0 of its shape", PV_E_SHAPE},
        {"shape_negative", "dim 0 of its shape", PV_E_SHAPE},
        {"shape_wraps", "dim 0 of its shape", PV_E_SHAPE},
        {"shape_float", "dim 0 of its shape", PV_E_SHAPE},
        {"shape_five", "a list of at most 4 numbers, came a list of 5", PV_E_SHAPE},
        {"shape_number", "came an integer", PV_E_SHAPE},
        {"truth_two", "neither 0 nor 1", PV_E_SHAPE},
        {"mark_twice", "once each", PV_E_ARG},
        {"scalar_shape", "once each", PV_E_ARG},
        {"scalar_nil", "came nil", PV_E_ARG},
        {"scalar_list", "came a list", PV_E_ARG},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char name[64];
        snprintf(name, sizeof name, "bad/%s", cases[i].name);
        int64_t live = pv_alloc_live();
        load(name);
        if (!CHECK_STATUS(read_exactly(length), cases[i].status) || !CHECK_TEXT(cases[i].words))
            printf("    %s\n", name);
        CHECK(pv_alloc_live() == live);
    }
    load("bad/deep_numpy");
    CHECK(read_exactly(length) != PV_OK);
}

/* Every message cut anywhere is refused, and every byte changed to any other is read or refused. */
static void cut_and_changed(void)
{
    const char *names[] = {"libero", "droid", "aloha", "dtypes", "scalars", "text_keys"};
    int64_t live = pv_alloc_live();
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        load(names[i]);
        bool refused = true;
        for (size_t n = 0; n < length; n++)
            refused = refused && read_exactly(n) != PV_OK;
        CHECK(refused);
        for (size_t n = 0; n < length; n++) {
            uint8_t was = message[n];
            for (int v = 0; v < 256; v += 5) {
                message[n] = (uint8_t)v;
                read_exactly(length);
            }
            message[n] = was;
        }
        CHECK_OK(read_exactly(length));
    }
    CHECK(pv_alloc_live() == live);
}

static void same(const char *name, wire_buffer *b)
{
    CHECK_OK(wire_ok(b));
    if (load(name) && !CHECK(b->n == length && !memcmp(b->bytes, message, length)))
        printf("    %s: expected %zu bytes, came %zu\n", name, length, b->n);
    pv_free(b->bytes);
    *b = (wire_buffer){0};
}

static void writing(void)
{
    wire_buffer b = {0};
    double actions[6];
    for (int i = 0; i < 6; i++)
        actions[i] = i / 4.0;
    wire_map(&b, 3);
    wire_text(&b, "actions");
    wire_f64(&b, actions, 2, 3);
    wire_text(&b, "policy_timing");
    wire_map(&b, 1);
    wire_text(&b, "infer_ms");
    wire_number(&b, 1.5);
    wire_text(&b, "server_timing");
    wire_map(&b, 2);
    wire_text(&b, "infer_ms");
    wire_number(&b, 2.5);
    wire_text(&b, "prev_total_ms");
    wire_number(&b, 3.5);
    same("reply", &b);

    float many[400];
    for (int i = 0; i < 400; i++)
        many[i] = (float)i;
    wire_map(&b, 1);
    wire_text(&b, "actions");
    wire_f32(&b, many, 200, 2);
    same("reply_f32", &b);

    wire_map(&b, 0);
    same("empty", &b);

    wire_buffer words = {0}; /* every width of a head */
    static char long_text[70001];
    memset(long_text, 'x', 70000);
    wire_map(&words, 4);
    const char *keys[] = {"a", "b", "c", "d"};
    size_t lengths[] = {31, 255, 65535, 70000};
    for (int i = 0; i < 4; i++) {
        long_text[lengths[i]] = 0;
        wire_text(&words, keys[i]);
        wire_text(&words, long_text);
        long_text[lengths[i]] = 'x';
    }
    CHECK_OK(wire_ok(&words));
    CHECK_OK(wire_read(words.bytes, words.n, &request));
    for (int i = 0; i < 4; i++)
        field(keys[i], PV_FIELD_TEXT, 1, (int64_t)lengths[i], 0, 0);
    wire_request_free(&request);
    pv_free(words.bytes);

    uint64_t numbers[] = {0,        127, 128, 255, 256, 65535, 65536, UINT32_MAX, (uint64_t)UINT32_MAX + 1,
                          INT64_MAX};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        wire_buffer n = {0};
        wire_map(&n, 1);
        wire_text(&n, "n");
        wire_integer(&n, numbers[i]);
        CHECK_OK(wire_read(n.bytes, n.n, &request));
        i64("n", (int64_t)numbers[i]);
        wire_request_free(&request);
        pv_free(n.bytes);
    }
}

int main(void)
{
    robots();
    values();
    hostile();
    cut_and_changed();
    writing();
    return test_done();
}
