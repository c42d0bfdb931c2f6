/* stats.c - normalisation statistics: what is read, what is refused, and openpi's two rules in float64. */
#include "io/stats.h"
#include "io/file.h"
#include "base/memory.h"
#include "tests/faults.h"
#include "tests/test.h"

#include <unistd.h>

static const char good_text[] =
    "{\"norm_stats\": {"
    "\"state\": {\"mean\": [0.5, -1, 0, 0], \"std\": [0.25, 2, 0, 0], \"q01\": [-1, -5, 0, 0], \"q99\": [3, "
    "4.5, 0, 0]},"
    "\"actions\": {\"mean\": [1, 2, 3], \"std\": [0, 1, 0.5], \"q01\": null}, \"other\": 7}, \"more\": []}";

static pv_status parse(const char *text, pv_stats **out)
{
    pv_status st = pv_stats_parse(text, strlen(text), "n.json", out);
    CHECK((st == PV_OK) == (*out != NULL));
    return st;
}

static void reads(void)
{
    pv_stats *s;
    if (!CHECK_OK(parse(good_text, &s)))
        return;
    CHECK(s->state.dim == 2 && s->state.padded_dim == 4);
    CHECK(s->state.mean[1] == -1 && s->state.std[0] == 0.25 && s->state.q01[1] == -5 &&
          s->state.q99[1] == 4.5);
    CHECK(s->actions.dim == 3 && s->actions.padded_dim == 3);
    CHECK(!s->actions.q01 && !s->actions.q99);
    CHECK(s->actions.mean[2] == 3 && s->actions.std[2] == 0.5);
    CHECK_OK(pv_norm_check(&s->state, PV_NORM_QUANTILE, "state"));
    CHECK_OK(pv_norm_check(&s->actions, PV_NORM_ZSCORE, "actions"));
    CHECK_STATUS(pv_norm_check(&s->actions, PV_NORM_QUANTILE, "actions"), PV_E_ARG);
    CHECK_TEXT("actions: ");
    CHECK_TEXT("q01");
    pv_stats_free(&s);
    CHECK(s == NULL);
    pv_stats_free(&s);
}

/* Only what is zero in every vector that is there, and only at the end, is padding. */
static void padding(void)
{
    static const struct {
        const char *mean, *std, *q01, *q99;
        int dim;
    } cases[] = {
        {"1,0,0", "1,0,0", "0,0,0", "1,0,0", 1}, {"1,0,0", "1,0,0", NULL, NULL, 1},
        {"1,0,2", "1,0,1", NULL, NULL, 3},       {"1,0,1e-300", "1,0,0", NULL, NULL, 3},
        {"1,0,0", "1,0,1", NULL, NULL, 3},       {"1,0,0", "1,0,0", "0,0,0", "1,0,0", 1},
        {"0,0,0", "0,1,0", NULL, NULL, 2},       {"1,1,-0.0", "1,1,0", NULL, NULL, 2},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[512], vector[200];
        int n = sprintf(vector, "{\"mean\":[%s],\"std\":[%s]", cases[i].mean, cases[i].std);
        if (cases[i].q01)
            n += sprintf(vector + n, ",\"q01\":[%s],\"q99\":[%s]", cases[i].q01, cases[i].q99);
        sprintf(vector + n, "}");
        sprintf(text, "{\"norm_stats\":{\"state\":%s,\"actions\":%s}}", vector, vector);
        pv_stats *s;
        if (CHECK_OK(parse(text, &s)))
            CHECK(s->state.dim == cases[i].dim && s->actions.dim == cases[i].dim && s->state.padded_dim == 3);
        pv_stats_free(&s);
    }
}

#define OK "{\"mean\":[1,2],\"std\":[1,1],\"q01\":[0,0],\"q99\":[1,1]}"

static void refuses(void)
{
    static const struct {
        const char *state, *words;
    } states[] = {
        {"null", "norm_stats.state: expected an object"},
        {"[]", "norm_stats.state: expected an object"},
        {"{}", "state.mean: expected an array of numbers, it is missing"},
        {"{\"mean\":[1]}", "state.std: expected an array of numbers, it is missing"},
        {"{\"mean\":null,\"std\":[1]}", "state.mean: expected an array"},
        {"{\"mean\":[1],\"std\":null}", "state.std: expected an array"},
        {"{\"mean\":1,\"std\":[1]}", "state.mean: expected an array"},
        {"{\"mean\":{\"0\":1},\"std\":[1]}", "state.mean: expected an array"},
        {"{\"Mean\":[1],\"std\":[1]}", "state.mean"},
        {"{\"mean\":[],\"std\":[]}", "state.mean has 0 numbers, expected 1..1024"},
        {"{\"mean\":[1,2],\"std\":[1]}", "state.std has 1 numbers, mean has 2"},
        {"{\"mean\":[1],\"std\":[1,2]}", "state.std has 2 numbers, mean has 1"},
        {"{\"mean\":[1],\"std\":[1],\"q01\":[0,0],\"q99\":[1]}", "state.q01 has 2 numbers"},
        {"{\"mean\":[1],\"std\":[1],\"q01\":[0],\"q99\":[]}", "state.q99 has 0 numbers"},
        {"{\"mean\":[1],\"std\":[1],\"q01\":[0]}", "q01 is there, q99 is not"},
        {"{\"mean\":[1],\"std\":[1],\"q01\":null,\"q99\":[1]}", "q99 is there, q01 is not"},
        {"{\"mean\":[1],\"std\":[1],\"q01\":0,\"q99\":[1]}", "state.q01: expected an array"},
        {"{\"mean\":[1],\"std\":[1],\"q01\":[0],\"q99\":false}", "state.q99: expected an array"},
        {"{\"mean\":[1,\"2\"],\"std\":[1,1]}", "state.mean[1]: expected a number"},
        {"{\"mean\":[1,null],\"std\":[1,1]}", "state.mean[1]: expected a number"},
        {"{\"mean\":[1,[2]],\"std\":[1,1]}", "state.mean[1]: expected a number"},
        {"{\"mean\":[1,NaN],\"std\":[1,1]}", "norm_stats.state.mean[1]"},
        {"{\"mean\":[1,1e999],\"std\":[1,1]}", "norm_stats.state.mean[1]"},
        {"{\"mean\":[1,-Infinity],\"std\":[1,1]}", "norm_stats.state.mean[1]"},
        {"{\"mean\":[1],\"mean\":[1],\"std\":[1]}", "'mean' stands more than once"},
        {"{\"mean\":[1,2],\"std\":[1,-0.5]}", "state.std[1] is -0.5"},
        {"{\"mean\":[0,0],\"std\":[0,0]}", "state: all 2 dims are zero"},
        {"{\"mean\":[1,2],\"std\":[1,1],\"q01\":[0,3],\"q99\":[1,3]}", "state[1]: q01 is 3 and q99 is 3"},
        {"{\"mean\":[1,2],\"std\":[1,1],\"q01\":[2.5,0],\"q99\":[1,3]}", "state[0]: q01 is 2.5 and q99 is 1"},
        {"{\"mean\":[1,0,2],\"std\":[1,0,1],\"q01\":[0,0,0],\"q99\":[1,0,1]}",
         "state[1]: q01 is 0 and q99 is 0"},
        {"{\"mean\":[1,1],\"std\":[1,0],\"q01\":[0,0],\"q99\":[1,0]}", "state[1]: q01 is 0 and q99 is 0"},
    };
    char text[4096];
    pv_stats *s;
    sprintf(text, "{\"norm_stats\":{\"state\":%s,\"actions\":%s}}", OK, OK);
    CHECK_OK(parse(text, &s));
    pv_stats_free(&s);
    for (size_t i = 0; i < sizeof states / sizeof states[0]; i++)
        for (int actions = 0; actions < 2; actions++) {
            const char *state = actions ? OK : states[i].state, *action = actions ? states[i].state : OK;
            sprintf(text, "{\"norm_stats\":{\"state\":%s,\"actions\":%s}}", state, action);
            bool ok = CHECK_STATUS(parse(text, &s), PV_E_FILE);
            if (!actions)
                ok = CHECK_TEXT(states[i].words) && ok;
            ok = CHECK_TEXT(strstr(states[i].words, "stands more") ? "mean"
                            : actions                              ? "actions"
                                                                   : "state") &&
                 ok;
            ok = CHECK_TEXT("n.json: ") && ok;
            if (!ok)
                printf("    %s\n", text);
        }
    static const struct {
        const char *text, *words;
    } whole[] = {
        {"", "end of the text"},
        {"[]", "'norm_stats'"},
        {"7", "'norm_stats'"},
        {"{}", "'norm_stats'"},
        {"{\"norm_stats\":[]}", "'norm_stats'"},
        {"{\"norm_stats\":{}}", "norm_stats.state: expected an object, it is missing"},
        {"{\"norm_stats\":{\"state\":" OK "}}", "norm_stats.actions: expected an object, it is missing"},
        {"{\"norm_stats\":{\"actions\":" OK "}}", "norm_stats.state: expected an object, it is missing"},
        {"{\"state\":" OK ",\"actions\":" OK "}", "'norm_stats'"},
        {"{\"norm_stats\":{\"state\":" OK ",\"State\":" OK "}}", "norm_stats.actions"},
    };
    for (size_t i = 0; i < sizeof whole / sizeof whole[0]; i++) {
        CHECK_STATUS(parse(whole[i].text, &s), PV_E_FILE);
        CHECK_TEXT(whole[i].words);
    }
}

static void lengths(void)
{
    for (int n = 1024; n <= 1025; n++) {
        static char ones[2 * 1025 + 1], text[6 * sizeof ones];
        for (int i = 0; i < n; i++)
            memcpy(ones + 2 * i, ",1", 3);
        sprintf(text, "{\"norm_stats\":{\"state\":{\"mean\":[%s],\"std\":[%s]},\"actions\":" OK "}}",
                ones + 1, ones + 1);
        pv_stats *s;
        CHECK_STATUS(parse(text, &s), n == 1024 ? PV_OK : PV_E_FILE);
        if (s)
            CHECK(s->state.dim == 1024);
        else
            CHECK_TEXT("state.mean has 1025 numbers, expected 1..1024");
        pv_stats_free(&s);
    }
}

/* The expected numbers were worked out by hand from the formulas; equality up to the last bits of a double.
 */
static bool near(double a, double b)
{
    return fabs(a - b) <= 1e-15 * fmax(1, fabs(b));
}

static void rules(void)
{
    pv_stats *s;
    if (!CHECK_OK(parse(good_text, &s)))
        return;
    const pv_norm *q = &s->state, *z = &s->actions;
    double x[3] = {1, -5, 9}, y[3] = {0};
    pv_normalize(q, PV_NORM_QUANTILE, x, y, 2);
    CHECK(near(y[0], 2 / 4.000001 * 2 - 1));
    CHECK(y[1] == -1);
    CHECK(y[2] == 0);                           /* not touched */
    pv_normalize(q, PV_NORM_QUANTILE, x, x, 1); /* in place, and shorter than the statistics */
    CHECK(x[0] == y[0] && x[1] == -5);

    double a[4] = {-1, 1, 8, -9}, b[4] = {0};
    pv_unnormalize(q, PV_NORM_QUANTILE, a, b, 4);
    CHECK(b[0] == -1);
    CHECK(near(b[1], 9.500001 - 5));
    CHECK(b[2] == 8 && b[3] == -9); /* past the statistics: as they were */
    pv_unnormalize(q, PV_NORM_QUANTILE, a, a, 4);
    CHECK(memcmp(a, b, sizeof a) == 0);

    double m[3] = {1, 4, 3.25}, n[3];
    pv_normalize(z, PV_NORM_ZSCORE, m, n, 3);
    CHECK(n[0] == 0);
    CHECK(near(n[1], 2 / 1.000001));
    CHECK(near(n[2], 0.25 / 0.500001));
    pv_unnormalize(z, PV_NORM_ZSCORE, n, n, 3);
    for (int i = 0; i < 3; i++)
        CHECK(near(n[i], m[i]));
    double far = 1e6, out; /* nothing is clipped */
    pv_normalize(q, PV_NORM_QUANTILE, &far, &out, 1);
    CHECK(out > 4e5);
    pv_stats_free(&s);
}

static void outside(void)
{
    pv_stats *s;
    if (!CHECK_OK(parse(good_text, &s)))
        return;
    const double in[] = {-1, 4.5, 99}, low[] = {-1.0000001, 0, 99}, both[] = {4, NAN, 99};
    CHECK(pv_norm_outside(&s->state, in, 3) == 0); /* the borders are inside; the third has no statistics */
    CHECK(pv_norm_outside(&s->state, low, 3) == 1);
    CHECK(pv_norm_outside(&s->state, both, 3) == 2);
    CHECK(pv_norm_outside(&s->state, both, 1) == 1);
    CHECK(pv_norm_outside(&s->actions, both, 3) == 0);
    pv_stats_free(&s);
}

static void files(void)
{
    char folder[] = "/tmp/pv-stats-XXXXXX", path[64];
    if (!CHECK(mkdtemp(folder) != NULL))
        return;
    sprintf(path, "%s/norm_stats.json", folder);
    pv_stats *s;
    CHECK_STATUS(pv_stats_read(path, &s), PV_E_FILE);
    CHECK_TEXT(path);
    CHECK(s == NULL);
    CHECK_OK(pv_file_write(path, good_text, sizeof good_text - 1));
    if (CHECK_OK(pv_stats_read(path, &s)))
        CHECK(s->state.dim == 2 && s->actions.dim == 3);
    pv_stats_free(&s);
    CHECK_OK(pv_file_write(path, "{\"norm_stats\":{}}", 17));
    CHECK_STATUS(pv_stats_read(path, &s), PV_E_FILE);
    CHECK_TEXT(path);
    CHECK(unlink(path) == 0 && rmdir(folder) == 0);
}

static pv_status parse_once(void *user)
{
    pv_stats *s;
    (void)user;
    pv_status st = parse(good_text, &s);
    pv_stats_free(&s);
    return st;
}

int main(void)
{
    reads();
    padding();
    refuses();
    lengths();
    rules();
    outside();
    files();
    fault_every(parse_once, NULL, "parse");
    CHECK(pv_alloc_live() == 0);
    return test_done();
}
