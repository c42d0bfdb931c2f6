/* module.c - a backend that is not there, does not load, is of another version, and one that works: words
 * each time, and the process goes on. Files called libpivot-cuda.so come and go beside this program. */
#define _GNU_SOURCE
#include "tests/test.h"

#include <pthread.h>
#include <unistd.h>

static const char place[] = FAKES "/libpivot-cuda.so";

static void refused(const char *words)
{
    pv_backend *be = (pv_backend *)&be;
    CHECK_STATUS(pv_backend_open("cuda", NULL, &be), PV_E_UNAVAILABLE);
    CHECK_TEXT(words);
    CHECK(be == NULL);
    int n = 0;
    CHECK_STATUS(pv_devices("cuda", NULL, &n), PV_E_UNAVAILABLE);
    CHECK_TEXT(words);
}

static void put(const char *fake)
{
    unlink(place);
    CHECK(!symlink(fake, place));
}

static void quiet(void *user, pv_log_level level, const char *text)
{
    (void)user, (void)level, (void)text;
}

static void *ask(void *count)
{
    pv_backend *be = NULL;
    for (int i = 0; i < 100; i++) {
        int n = 0;
        if (!pv_devices("cuda", NULL, &n) && n == 7 &&
            pv_backend_open("cuda", NULL, &be) == PV_E_UNAVAILABLE &&
            !strcmp(pv_error_text(), "fake: device 9 of 100%"))
            ++*(int *)count;
    }
    return NULL;
}

static void hear(void *user, pv_log_level level, const char *text)
{
    if (level == PV_LOG_WARN && !strcmp(text, "seven"))
        ++*(int *)user;
}

static void works(void)
{
    enum { THREADS = 4 };
    pthread_t thread[THREADS];
    int count[THREADS] = {0}, heard = 0, n = 0;
    put(FAKES "/fake_good.so");
    pv_set_log(quiet, NULL, PV_LOG_WARN);
    for (int i = 0; i < THREADS; i++)
        CHECK(!pthread_create(&thread[i], NULL, ask, &count[i]));
    for (int i = 0; i < THREADS; i++) {
        pthread_join(thread[i], NULL);
        CHECK(count[i] == 100);
    }
    pv_set_log(hear, &heard, PV_LOG_WARN);
    unlink(place); /* once it works, it stays */
    CHECK_OK(pv_devices("cuda", NULL, &n));
    CHECK(n == 7 && heard == 1);
    pv_set_log(NULL, NULL, PV_LOG_WARN);
}

static void remember(void *user, pv_log_level level, const char *text)
{
    if (level == PV_LOG_DEBUG)
        snprintf(user, 64, "%s", text);
}

/* Where a backend is told to keep things: what the caller says, or what the environment does. */
static void cache_folder(void)
{
    static const struct {
        const char *given, *own, *xdg, *home, *want;
    } cases[] = {
        {"/given", "/own", "/xdg", "/home/me", "/given"},
        {"", "/own", "/xdg", "/home/me", ""},
        {NULL, "/own", "/xdg", "/home/me", "/own"},
        {NULL, "", "/xdg", "/home/me", ""},
        {NULL, NULL, "/xdg", "/home/me", "/xdg/pivot"},
        {NULL, NULL, "not/absolute", "/home/me", "/home/me/.cache/pivot"},
        {NULL, NULL, NULL, "/home/me", "/home/me/.cache/pivot"},
        {NULL, NULL, NULL, NULL, ""},
    };
    char came[64];
    pv_set_log(remember, came, PV_LOG_DEBUG);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *const names[] = {"PIVOT_CACHE", "XDG_CACHE_HOME", "HOME"};
        const char *const values[] = {cases[i].own, cases[i].xdg, cases[i].home};
        for (int k = 0; k < 3; k++)
            values[k] ? setenv(names[k], values[k], 1) : unsetenv(names[k]);
        pv_backend *be = NULL;
        strcpy(came, "nothing");
        CHECK_STATUS(pv_backend_open("cuda", &(pv_backend_params){.cache = cases[i].given}, &be), PV_E_UNAVAILABLE);
        CHECK(!strcmp(came, cases[i].want));
    }
    pv_set_log(NULL, NULL, PV_LOG_WARN);
}

int main(void)
{
    bool listed = false;
    for (int i = 0; pv_backend_list(i); i++)
        listed |= !strcmp(pv_backend_list(i), "cuda");
    CHECK(listed);

    unlink(place);
    pv_backend *be = NULL;
    if (!pv_backend_open("cuda", NULL, &be) || !strstr(pv_error_text(), "is not installed")) {
        printf("skipped: the loader finds a libpivot-cuda.so on this machine\n"); /* before those put here
                                                                                     would be met */
        pv_backend_close(&be);
        return 77;
    }
    refused("libpivot-cuda.so");
    put(FAKES "/fake_empty.so");
    refused("it has no function pv_backend_module");
    put(FAKES "/fake_old.so");
    refused("libpivot-cuda.so: made for another version");
    put(PV_SOURCE_DIR "/LICENSE");
    refused("backend 'cuda' cannot be loaded");
    unlink(place);
    refused("backend 'cuda' is not installed");
    works();
    cache_folder();

    be = NULL;
    CHECK_OK(pv_backend_open("cpu", NULL, &be)); /* and nothing else is the worse for it */
    pv_backend_close(&be);
    return test_done();
}
