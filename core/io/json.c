/* json.c - strict JSON, then cJSON.
 *
 * cJSON forgives much (control characters, numbers like 01, "\u0000" inside a name, bytes that are no UTF-8)
 * and, where it fails, does not say why. So the text is read twice: `value` walks the grammar of RFC 8259 and
 * refuses with the place and the key, without allocating; then cJSON builds the tree from text known to be
 * valid, so that its only way to fail is memory. Duplicate keys are found by sorting: no choice of names
 * makes that slow, as it would a hash. */
#include "json.h"
#include "base/memory.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PATH_BYTES   512
#define NUMBER_BYTES 63 /* what cJSON copies of a number */

/* Where a value lies: a member of the object above by key, or an element of the array above by index. */
typedef struct spot {
    const struct spot *up; /* NULL: the whole text */
    const char *key;       /* NULL: by index */
    size_t key_bytes, index;
} spot;

static void path_text(const spot *s, char out[PATH_BYTES])
{
    const spot *way[PV_JSON_MAX_DEPTH + 2];
    int n = 0;
    for (; s->up; s = s->up)
        way[n++] = s;
    size_t at = 0;
    out[0] = 0;
    while (n-- > 0 && at < PATH_BYTES - 1) {
        const char *dot = at ? "." : "";
        int key_bytes = way[n]->key_bytes < 200 ? (int)way[n]->key_bytes : 200;
        int put = way[n]->key ? snprintf(out + at, PATH_BYTES - at, "%s%.*s", dot, key_bytes, way[n]->key)
                              : snprintf(out + at, PATH_BYTES - at, "[%zu]", way[n]->index);
        if (put < 0)
            return;
        at += (size_t)put;
    }
}

/* ---- The grammar ----------------------------------------------------------------------------------------
 */

typedef struct lint {
    const char *text, *where;
    size_t at, n;
    size_t values, widest; /* values met; members of the largest object */
} lint;

/* The byte at hand, or -1 at the end. */
static int peek(const lint *l)
{
    return l->at < l->n ? (unsigned char)l->text[l->at] : -1;
}

static bool eat(lint *l, int c)
{
    if (peek(l) != c)
        return false;
    l->at++;
    return true;
}

static void skip_space(lint *l)
{
    while (eat(l, ' ') || eat(l, '\n') || eat(l, '\t') || eat(l, '\r'))
        continue;
}

static pv_status refuse(const lint *l, const spot *here, const char *expected)
{
    char path[PATH_BYTES], came[32];
    path_text(here, path);
    int c = peek(l);
    if (c < 0)
        snprintf(came, sizeof came, "the end of the text");
    else if (c > ' ' && c < 127)
        snprintf(came, sizeof came, "'%c'", c);
    else
        snprintf(came, sizeof came, "byte 0x%02x", (unsigned)c);
    return pv_fail(PV_E_FILE, "%s: not valid JSON at byte %zu, key '%s': expected %s, came %s", l->where,
                   l->at, path, expected, came);
}

/* Four hexadecimal digits, or -1. */
static int hex4(lint *l)
{
    int v = 0;
    for (int i = 0; i < 4; i++, l->at++) {
        int c = peek(l), lower = c | 32;
        if (c >= '0' && c <= '9')
            v = v * 16 + c - '0';
        else if (c >= 0 && lower >= 'a' && lower <= 'f')
            v = v * 16 + lower - 'a' + 10;
        else
            return -1;
    }
    return v;
}

static pv_status escape(lint *l, const spot *here)
{
    int c = peek(l);
    if (c <= 0 || !strchr("\"\\/bfnrtu", c))
        return refuse(l, here, "one of \"\\/bfnrtu behind the backslash");
    l->at++;
    if (c != 'u')
        return PV_OK;
    int v = hex4(l);
    if (v < 0)
        return refuse(l, here, "four hexadecimal digits");
    if (v == 0) /* cJSON's strings end there: two names would look the same */
        return refuse(l, here, "no \\u0000 in a string");
    if (v >= 0xD800 && v < 0xDC00) {
        bool escaped = eat(l, '\\') && eat(l, 'u');
        v = escaped ? hex4(l) : -1;
        if (v < 0xDC00 || v > 0xDFFF)
            return refuse(l, here, "the second half of a surrogate pair");
    } else if (v >= 0xDC00 && v < 0xE000) {
        return refuse(l, here, "the first half of a surrogate pair before the second");
    }
    return PV_OK;
}

/* One character of more than one byte, by the table of well-formed sequences (Unicode, table 3-7). */
static pv_status utf8(lint *l, const spot *here)
{
    int c = peek(l), least = 0x80, most = 0xBF, more;
    if (c >= 0xC2 && c <= 0xDF)
        more = 1;
    else if (c >= 0xE0 && c <= 0xEF)
        more = 2;
    else if (c >= 0xF0 && c <= 0xF4)
        more = 3;
    else
        return refuse(l, here, "UTF-8");
    if (c == 0xE0)
        least = 0xA0;
    else if (c == 0xED)
        most = 0x9F;
    else if (c == 0xF0)
        least = 0x90;
    else if (c == 0xF4)
        most = 0x8F;
    l->at++;
    for (; more > 0; more--, least = 0x80, most = 0xBF, l->at++)
        if (peek(l) < least || peek(l) > most)
            return refuse(l, here, "UTF-8");
    return PV_OK;
}

static pv_status string(lint *l, const spot *here)
{
    if (!eat(l, '"'))
        return refuse(l, here, "'\"'");
    pv_status st = PV_OK;
    while (!st && !eat(l, '"')) {
        int c = peek(l);
        if (c < ' ')
            return refuse(l, here, c < 0 ? "'\"'" : "no control character in a string");
        if (eat(l, '\\'))
            st = escape(l, here);
        else if (c >= 0x80)
            st = utf8(l, here);
        else
            l->at++;
    }
    return st;
}

static size_t digits(lint *l)
{
    size_t n = 0;
    for (; peek(l) >= '0' && peek(l) <= '9'; n++)
        l->at++;
    return n;
}

/* An integer is refused when a double cannot be trusted to hold it: the text is compared, since the double of
 * 2^53 + 1 is 2^53. */
static pv_status number(lint *l, const spot *here)
{
    const size_t begin = l->at;
    char path[PATH_BYTES];
    eat(l, '-');
    const char *first = l->text + l->at;
    const bool zero = peek(l) == '0';
    const size_t whole = digits(l);
    if (whole == 0 || (zero && whole > 1))
        return refuse(l, here, "a number without leading zeros");
    bool integer = true;
    if (eat(l, '.')) {
        integer = false;
        if (!digits(l))
            return refuse(l, here, "a digit behind the point");
    }
    if (eat(l, 'e') || eat(l, 'E')) {
        integer = false;
        if (!eat(l, '+'))
            eat(l, '-');
        if (!digits(l))
            return refuse(l, here, "a digit of the exponent");
    }
    const int shown = l->at - begin > NUMBER_BYTES ? NUMBER_BYTES : (int)(l->at - begin);
    if (l->at - begin > NUMBER_BYTES) {
        path_text(here, path);
        return pv_fail(PV_E_FILE, "%s: key '%s': the number %.*s... has more than %d characters", l->where,
                       path, shown, l->text + begin, NUMBER_BYTES);
    }
    uint64_t v = 0;
    for (size_t i = 0; integer && i < whole && v <= (uint64_t)1 << 53; i++)
        v = v * 10 + (uint64_t)(first[i] - '0');
    if (v > (uint64_t)1 << 53) {
        path_text(here, path);
        return pv_fail(PV_E_FILE, "%s: key '%s': the integer %.*s is beyond 2^53", l->where, path, shown,
                       l->text + begin);
    }
    return PV_OK;
}

static pv_status word(lint *l, const spot *here, const char *text)
{
    for (; *text; text++)
        if (!eat(l, *text))
            return refuse(l, here, "null, true or false");
    return PV_OK;
}

static pv_status value(lint *l, const spot *here, int depth);

static pv_status object(lint *l, const spot *here, int depth)
{
    size_t members = 0;
    l->at++;
    skip_space(l);
    if (eat(l, '}'))
        return PV_OK;
    do {
        skip_space(l);
        spot member = {here, l->text + l->at + 1, 0, 0};
        pv_status st = string(l, here);
        if (st)
            return st;
        member.key_bytes = (size_t)(l->text + l->at - 1 - member.key);
        skip_space(l);
        if (!eat(l, ':'))
            return refuse(l, &member, "':'");
        st = value(l, &member, depth);
        if (st)
            return st;
        skip_space(l);
        members++;
    } while (eat(l, ','));
    if (members > l->widest)
        l->widest = members;
    return eat(l, '}') ? PV_OK : refuse(l, here, "',' or '}'");
}

static pv_status array(lint *l, const spot *here, int depth)
{
    spot element = {here, NULL, 0, 0};
    l->at++;
    skip_space(l);
    if (eat(l, ']'))
        return PV_OK;
    do {
        pv_status st = value(l, &element, depth);
        if (st)
            return st;
        skip_space(l);
        element.index++;
    } while (eat(l, ','));
    return eat(l, ']') ? PV_OK : refuse(l, here, "',' or ']'");
}

/* depth: of the arrays and objects around this value. */
static pv_status value(lint *l, const spot *here, int depth)
{
    char path[PATH_BYTES];
    if (++l->values > PV_JSON_MAX_VALUES)
        return pv_fail(PV_E_FILE, "%s: more than %d values", l->where, PV_JSON_MAX_VALUES);
    skip_space(l);
    int c = peek(l);
    if ((c == '{' || c == '[') && depth == PV_JSON_MAX_DEPTH) {
        path_text(here, path);
        return pv_fail(PV_E_FILE, "%s: key '%.100s...': nested deeper than %d", l->where, path,
                       PV_JSON_MAX_DEPTH);
    }
    switch (c) {
    case '{':
        return object(l, here, depth + 1);
    case '[':
        return array(l, here, depth + 1);
    case '"':
        return string(l, here);
    case 'n':
        return word(l, here, "null");
    case 't':
        return word(l, here, "true");
    case 'f':
        return word(l, here, "false");
    case 'N':
    case 'I':
        return refuse(l, here, "a value (JSON has no NaN and no Infinity)");
    default:
        return c == '-' || (c >= '0' && c <= '9') ? number(l, here) : refuse(l, here, "a value");
    }
}

/* ---- The tree -------------------------------------------------------------------------------------------
 */

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* keys: room for the names of the largest object. It is free again before the members are visited. */
static pv_status check(const cJSON *v, const spot *here, const char **keys, const char *where)
{
    char path[PATH_BYTES];
    if (cJSON_IsNumber(v) && !isfinite(v->valuedouble)) {
        path_text(here, path);
        return pv_fail(PV_E_FILE, "%s: key '%s': the number is too large for a double", where, path);
    }
    const cJSON *member;
    if (cJSON_IsObject(v)) {
        size_t n = 0;
        for (member = v->child; member; member = member->next)
            keys[n++] = member->string;
        qsort(keys, n, sizeof *keys, by_text);
        for (size_t i = 1; i < n; i++)
            if (strcmp(keys[i - 1], keys[i]) == 0) {
                path_text(here, path);
                return pv_fail(PV_E_FILE, "%s: key '%.200s' stands more than once in '%s'", where, keys[i],
                               path);
            }
    }
    spot below = {here, NULL, 0, 0};
    for (member = v->child; member; member = member->next, below.index++) {
        below.key = member->string;
        below.key_bytes = member->string ? strlen(member->string) : 0;
        pv_status st = check(member, &below, keys, where);
        if (st)
            return st;
    }
    return PV_OK;
}

pv_status pv_json_parse(const char *text, size_t n, size_t max_bytes, const char *where, cJSON **out)
{
    *out = NULL;
    if (n > max_bytes)
        return pv_fail(PV_E_FILE, "%s: %zu bytes of JSON, at most %zu were expected", where, n, max_bytes);
    lint l = {.text = text, .where = where, .n = n};
    const spot root = {0};
    pv_status st = value(&l, &root, 0);
    if (st)
        return st;
    skip_space(&l);
    if (l.at < n)
        return refuse(&l, &root, "nothing more");
    cJSON *tree = cJSON_ParseWithLengthOpts(text, n, NULL, 0);
    if (!tree)
        return pv_fail(PV_E_MEMORY, "%s: out of memory for %zu values of JSON", where, l.values);
    const char **keys = pv_alloc(pv_mul_size(l.widest, sizeof *keys));
    st = keys ? check(tree, &root, keys, where) : pv_fail_in(PV_E_MEMORY, "%s", where);
    pv_free(keys);
    if (st)
        cJSON_Delete(tree);
    else
        *out = tree;
    return st;
}

pv_status pv_json_read(const char *path, size_t max_bytes, cJSON **out)
{
    *out = NULL;
    char *text;
    size_t n;
    pv_status st = pv_file_read(path, max_bytes, &text, &n);
    if (st)
        return st;
    st = pv_json_parse(text, n, max_bytes, path, out);
    pv_free(text);
    return st;
}
