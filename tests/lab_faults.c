/* lab_faults.c - experiments of `pivot lab` with something that fails, here and there through their whole
 * length: an allocation, on the CPU; or, built with FAKE_CUDA and the runtime in cuda_fake/, a call of CUDA.
 * An exit code and words, and nothing left behind. */
#include "faults.h"
#ifdef FAKE_CUDA
#include "cuda_fake/fake.h"
#endif

#include "tools/lab/lab.h"

#include <fcntl.h>
#include <limits.h>
#include <unistd.h>

#define POINTS 8 /* of each experiment */

typedef struct experiment {
    const char *name;
    int (*main)(int argc, char **argv);
} experiment;

static const experiment experiments[] = {
#define X(name, question, backends) {#name, lab_##name},
    LAB_EXPERIMENTS(X)
#undef X
};

/* What it prints goes nowhere. */
static int quietly(const experiment *e, char *backend)
{
    char *argv[20] = {(char *)e->name, "--model", "synth:tiny", "--runs", "1",     "--warmup", "0",
                      "--threads",     "1",       "--backend",  backend,  "--json"};
    int argc = 12;
    if (!strcmp(e->name, "schedule") || !strcmp(e->name, "steps")) {
        argv[argc++] = "--reference";
        argv[argc++] = "2";
    }
    int out = dup(STDOUT_FILENO), err = dup(STDERR_FILENO), none = open("/dev/null", O_WRONLY);
    fflush(stdout);
    fflush(stderr);
    dup2(none, STDOUT_FILENO);
    dup2(none, STDERR_FILENO);
    int code = e->main(argc, argv);
    fflush(stdout);
    fflush(stderr);
    dup2(out, STDOUT_FILENO);
    dup2(err, STDERR_FILENO);
    close(out);
    close(err);
    close(none);
    return code;
}

/* More of them at the begin, where all is made. */
static long point(long all, int i)
{
    return (long)((double)all * i * i / ((double)POINTS * POINTS));
}

#ifdef FAKE_CUDA

static void one_experiment(const experiment *e)
{
    fake_reset();
    bool ok = CHECK(quietly(e, "cuda") == CLI_OK) && CHECK(!fake.misused && !fake.live && !pv_alloc_live());
    long all = fake.calls;
    for (int i = 0; ok && i < POINTS; i++) {
        fake_reset();
        fake.fail_at = point(all, i) + 1;
        fake.error = cudaErrorInvalidValue;
        int code = quietly(e, "cuda"); /* calls that give something back may fail and nobody be told */
        ok = CHECK(fake.failed) && CHECK(code == CLI_OK || code == CLI_FAILED || code == CLI_UNAVAILABLE) &&
             CHECK(!fake.misused && !fake.live && !pv_alloc_live());
        if (!ok)
            printf("    %s, call %ld of %ld (%s): code %d, %s\n", e->name, fake.fail_at, all,
                   fake.failed ? fake.failed : "none", code, pv_error_text());
    }
}

#else

static void one_experiment(const experiment *e)
{
    fault_countdown = LONG_MAX;
    bool ok = CHECK(quietly(e, "cpu") == CLI_OK) && CHECK(!pv_alloc_live());
    long all = LONG_MAX - fault_countdown;
    for (int i = 0; ok && i < POINTS; i++) {
        fault_countdown = point(all, i);
        int code = quietly(e, "cpu");
        bool met = fault_countdown < 0;
        fault_countdown = -1;
        ok = CHECK(met) && CHECK(code == CLI_FAILED) && CHECK_TEXT("memory") && CHECK(!pv_alloc_live());
        if (!ok)
            printf("    %s, allocation %ld of %ld: code %d, %s\n", e->name, point(all, i), all, code,
                   pv_error_text());
    }
}

#endif

int main(void)
{
    const pv_allocator failing = {sizeof failing, NULL, fault_alloc, fault_release};
    CHECK_OK(pv_set_allocator(&failing));
    for (size_t i = 0; i < sizeof experiments / sizeof *experiments; i++)
        one_experiment(&experiments[i]);
    CHECK_OK(pv_set_allocator(NULL));
    return test_done();
}
