/* prompt.c - bins, cleaning and both forms of the prompt. Run at the source root, or built with
 * PV_SOURCE_DIR. */
#include "test.h"

#include "base/memory.h"
#include "io/prompt.h"

#ifndef PV_SOURCE_DIR
#define PV_SOURCE_DIR "."
#endif

static int bin_by_counting(double x)
{
    int n = 0;
    for (int i = 0; i < 256; i++)
        n += -1 + i / 128.0 <= x;
    return n - 1;
}

static void bins(void)
{
    CHECK(pv_state_bin(-1) == 0);
    CHECK(pv_state_bin(nextafter(-1, -2)) == -1);
    CHECK(pv_state_bin(-7) == -1);
    CHECK(pv_state_bin(-1e308) == -1);
    CHECK(pv_state_bin(0) == 128 && pv_state_bin(-0.0) == 128);
    CHECK(pv_state_bin(-1e-20) == 127 && pv_state_bin(1e-20) == 128); /* lost when 1 is added */
    CHECK(pv_state_bin(-4.9e-324) == 127);
    CHECK(pv_state_bin(.99) == 254);
    CHECK(pv_state_bin(nextafter(.9921875, 0)) == 254);
    CHECK(pv_state_bin(.9921875) == 255);
    CHECK(pv_state_bin(1) == 255 && pv_state_bin(2) == 255 && pv_state_bin(1e308) == 255);
    int same = 0, edges = 0;
    for (int i = 0; i < 256; i++) {
        double e = -1 + i / 128.0;
        edges += pv_state_bin(e) == i && pv_state_bin(nextafter(e, -9)) == i - 1 &&
                 pv_state_bin(nextafter(e, 9)) == i;
    }
    CHECK(edges == 256);
    uint64_t r = 1;
    for (int i = 0; i < 100000; i++) {
        r = r * 6364136223846793005u + 1442695040888963407u;
        double x = (double)(r >> 11) * 0x1p-53 * 2.6 - 1.3;
        same += pv_state_bin(x) == bin_by_counting(x);
    }
    CHECK(same == 100000);
}

static bool text_is(const char *prompt, const double *state, int n, const char *want)
{
    char *text = NULL;
    bool ok = CHECK_OK(pv_prompt_text(prompt, state, n, &text)) && !strcmp(text, want);
    if (!ok && text)
        printf("    \"%s\"\n", text);
    pv_free(text);
    return ok;
}

static void cleaning(void)
{
    CHECK(text_is("fold the towel", NULL, 0, "fold the towel"));
    CHECK(text_is(" \t\r\n fold \n\v\f", NULL, 0, "fold"));
    CHECK(text_is("pick_up_the\ncup", NULL, 0, "pick up the cup"));
    CHECK(text_is("_fold_", NULL, 0, " fold ")); /* stripped first: these become spaces that stay */
    CHECK(text_is(" _a\n", NULL, 0, " a"));
    CHECK(text_is("a\tb\rc  d", NULL, 0, "a\tb\rc  d")); /* inside, only '_' and newline change */
    CHECK(text_is("Fold The TOWEL.", NULL, 0, "Fold The TOWEL."));
    CHECK(text_is("x", NULL, 7, "x")); /* no state: the number says nothing */
    /* Every white space of str.isspace, before and behind; and what only looks like it. */
    CHECK(text_is("\x1c\x1d\x1e\x1f\xc2\x85\xc2\xa0\xe1\x9a\x80\xe2\x80\x80\xe2\x80\x8a"
                  "a"
                  "\xe2\x80\xa8\xe2\x80\xa9"
                  "\xe2\x80\xaf\xe2\x81\x9f\xe3\x80\x80",
                  NULL, 0, "a"));
    CHECK(text_is("\xe2\x80\x8b"
                  "a"
                  "\xe2\x80\x8b",
                  NULL, 0,
                  "\xe2\x80\x8b"
                  "a"
                  "\xe2\x80\x8b")); /* zero width space */
    CHECK(text_is("\x1b"
                  "a"
                  "\xef\xbb\xbf",
                  NULL, 0,
                  "\x1b"
                  "a"
                  "\xef\xbb\xbf"));
    CHECK(text_is(" \xc3\x96"
                  "ffne \xe6\x8a\x8a \xf0\x9f\xa4\x96 ",
                  NULL, 0,
                  "\xc3\x96"
                  "ffne \xe6\x8a\x8a \xf0\x9f\xa4\x96"));
}

static void with_state(void)
{
    double state[] = {-1, -1.5, 0, .99, .9921875, 1, 2, -0.25};
    CHECK(text_is(" pick_up ", state, 8, "Task: pick up, State: 0 -1 128 254 255 255 255 96;\nAction: "));
    CHECK(text_is("a", state, 1, "Task: a, State: 0;\nAction: "));
    CHECK(text_is("a", state, 0, "Task: a, State: ;\nAction: "));
    double full[1024];
    for (int i = 0; i < 1024; i++)
        full[i] = 1;
    char *text = NULL;
    CHECK_OK(pv_prompt_text("a", full, 1024, &text));
    CHECK(text && strlen(text) == strlen("Task: a, State: ;\nAction: ") + 1024 * 4 - 1);
    pv_free(text);
}

static void refusals(void)
{
    double state[] = {0, NAN, 0};
    char *text = NULL;
    CHECK_STATUS(pv_prompt_text("", NULL, 0, &text), PV_E_ARG);
    CHECK_TEXT("empty");
    CHECK_STATUS(pv_prompt_text(" \n\t\xe3\x80\x80", NULL, 0, &text), PV_E_ARG);
    CHECK_STATUS(pv_prompt_text(" __\n_ ", state, 1, &text), PV_E_ARG);
    CHECK_TEXT("blanks");
    CHECK_STATUS(pv_prompt_text("a", state, 2, &text), PV_E_NOT_FINITE);
    CHECK_TEXT("value 1");
    state[1] = INFINITY;
    CHECK_STATUS(pv_prompt_text("a", state, 3, &text), PV_E_NOT_FINITE);
    CHECK_STATUS(pv_prompt_text("a", state, -1, &text), PV_E_ARG);
    CHECK_STATUS(pv_prompt_text("a", state, 1025, &text), PV_E_ARG);
    static const char *const broken[] = {"a\x80",
                                         "\xc3",
                                         "a\xc3 b",
                                         "\xc0\xaf",
                                         "\xe0\x9f\xbf",
                                         "\xed\xa0\x80",
                                         "\xf0\x8f\xbf\xbf",
                                         "\xf4\x90\x80\x80",
                                         "\xf8\x88\x80\x80\x80",
                                         "\xff",
                                         "\xe2\x82",
                                         "\xf0\x9f\xa4"};
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
        CHECK_STATUS(pv_prompt_text(broken[i], NULL, 0, &text), PV_E_ARG);
        CHECK_TEXT("UTF-8");
    }
    CHECK_STATUS(pv_prompt_text("abc\xff", NULL, 0, &text), PV_E_ARG);
    CHECK_TEXT("0xff at byte 3");
    char *big = malloc(PV_PROMPT_MAX_BYTES + 2);
    memset(big, 'a', PV_PROMPT_MAX_BYTES + 1);
    big[PV_PROMPT_MAX_BYTES] = 0;
    CHECK_OK(pv_prompt_text(big, NULL, 0, &text));
    CHECK(text && strlen(text) == PV_PROMPT_MAX_BYTES);
    pv_free(text);
    big[PV_PROMPT_MAX_BYTES] = 'a';
    big[PV_PROMPT_MAX_BYTES + 1] = 0;
    CHECK_STATUS(pv_prompt_text(big, NULL, 0, &text), PV_E_ARG);
    CHECK_TEXT("65536");
    free(big);
    CHECK(!text);
}

#ifdef PV_HAVE_SENTENCEPIECE

static void tokens(void)
{
    pv_tokenizer *t = NULL;
    if (!CHECK_OK(pv_tokenizer_load(PV_SOURCE_DIR "/core/model/tiny/tokenizer.model", &t)))
        return;
    /* spm_encode: the task with its state, and "fold the towel" and "\n" apart */
    static const int32_t with[] = {2,   390, 484, 393, 283, 262, 324, 343, 280, 285, 291,
                                   284, 262, 306, 490, 392, 484, 460, 488, 489, 489, 460,
                                   491, 460, 487, 488, 496, 498, 14,  449, 484, 460};
    static const int32_t without[] = {2, 445, 262, 332, 14};
    double state[] = {1, -1, 0};
    const char *task = "pick up the red block and put it in the bowl";
    int32_t ids[200];
    int n = 0;
    bool cut = true;
    CHECK_OK(pv_prompt_tokens(t, task, state, 3, 200, false, ids, &n, &cut));
    CHECK(n == 32 && !cut && !memcmp(ids, with, sizeof with));
    CHECK_OK(pv_prompt_tokens(t, "fold_the_towel", NULL, 0, 200, false, ids, &n, &cut));
    CHECK(n == 5 && !cut && !memcmp(ids, without, sizeof without));
    /* exactly full, one short, almost nothing */
    memset(ids, 0, sizeof ids);
    CHECK_OK(pv_prompt_tokens(t, task, state, 3, 32, false, ids, &n, &cut));
    CHECK(n == 32 && !cut && ids[31] == 460);
    memset(ids, 0, sizeof ids);
    CHECK_STATUS(pv_prompt_tokens(t, task, state, 3, 31, false, ids, &n, &cut), PV_E_ARG);
    CHECK_TEXT("32 tokens, at most 31");
    CHECK(n == 0);
    memset(ids, 0, sizeof ids);
    CHECK_OK(pv_prompt_tokens(t, task, state, 3, 31, true, ids, &n, &cut));
    CHECK(n == 31 && cut && !memcmp(ids, with, 31 * sizeof *ids) && ids[31] == 0);
    memset(ids, 0, sizeof ids);
    CHECK_OK(pv_prompt_tokens(t, "fold the towel", NULL, 0, 4, true, ids, &n, &cut)); /* the newline goes */
    CHECK(n == 4 && cut && !memcmp(ids, without, 4 * sizeof *ids) && ids[4] == 0);
    CHECK_OK(pv_prompt_tokens(t, "fold the towel", NULL, 0, 1, true, ids, &n, &cut));
    CHECK(n == 1 && cut && ids[0] == 2);
    CHECK_STATUS(pv_prompt_tokens(t, "fold", NULL, 0, 0, true, ids, &n, &cut), PV_E_ARG);
    CHECK_STATUS(pv_prompt_tokens(t, "\xff", NULL, 0, 200, true, ids, &n, &cut), PV_E_ARG);
    /* what the tiny policy's short prompts must leave room for */
    CHECK_OK(pv_prompt_tokens(t, "Pick up the spoon and place it on the table.", NULL, 0, 23, false, ids, &n,
                              &cut));
    double eight[8] = {.9, .9, .9, .9, .9, .9, .9, .9};
    CHECK_OK(pv_prompt_tokens(t, task, eight, 8, 64, false, ids, &n, &cut));
    pv_tokenizer_free(&t);
}

#endif

int main(void)
{
    bins();
    cleaning();
    with_state();
    refusals();
#ifdef PV_HAVE_SENTENCEPIECE
    tokens();
#endif
    CHECK(!pv_alloc_live());
    return test_done();
}
