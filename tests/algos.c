/* algos.c - the file of chosen algorithms: kept from process to process, shared, and never trusted. */
#define _GNU_SOURCE
#include "backends/cuda/algos.h"
#include "base/log.h"
#include "base/memory.h"
#include "tests/faults.h"
#include "tests/test.h"

#include <dirent.h>
#include <sys/stat.h>
#include <unistd.h>

static char folder[64];
static char said[2048];

static void hear(void *user, pv_log_level level, const char *text)
{
    (void)user, (void)level;
    snprintf(said, sizeof said, "%s", text);
}

static void put(algos *a, int i)
{
    int64_t shape[8] = {i, 2 * i, 64};
    uint64_t algo[8] = {(uint64_t)i * 1000003, 7};
    algos_put(a, shape, algo);
}

static bool has(const algos *a, int i)
{
    int64_t shape[8] = {i, 2 * i, 64};
    const uint64_t *algo = algos_find(a, shape);
    return algo && algo[0] == (uint64_t)i * 1000003 && algo[1] == 7 && algo[7] == 0;
}

static algos opened(const char *key)
{
    algos a;
    *said = 0;
    algos_open(&a, folder, key);
    return a;
}

static int files(void)
{
    int n = 0;
    DIR *d = opendir(folder);
    for (struct dirent *e; d && (e = readdir(d));)
        n += e->d_name[0] != '.';
    if (d)
        closedir(d);
    return n;
}

static void from_process_to_process(void)
{
    algos a = opened("one");
    CHECK(!*said && a.n == 0); /* no folder yet is no matter */
    for (int i = 0; i < 40; i++)
        put(&a, i);
    CHECK(a.dirty);
    algos_save(&a);
    CHECK(!*said && !a.dirty && files() == 1);
    algos_close(&a);

    algos b = opened("one"), other = opened("two");
    CHECK(b.n == 40 && !b.dirty && has(&b, 0) && has(&b, 39) && !has(&b, 40));
    CHECK(other.n == 0 && !*said && strcmp(other.path, b.path));
    put(&other, 1);
    algos_save(&other);
    CHECK(files() == 2);
    struct stat before, after;
    CHECK(!stat(b.path, &before));
    algos_save(&b); /* nothing new: the file is left alone */
    CHECK(!stat(b.path, &after) && before.st_ino == after.st_ino);
    CHECK((before.st_mode & 0777) == 0600);

    algos c = opened("one"); /* two at once: each keeps what the other found */
    put(&b, 100);
    put(&c, 200);
    uint64_t better[8] = {9};
    algos_put(&c, (int64_t[8]){5, 10, 64}, better);
    algos_save(&b);
    algos_save(&c);
    algos_close(&b);
    algos_close(&c);
    b = opened("one");
    CHECK(b.n == 42 && has(&b, 100) && has(&b, 200));
    const uint64_t *five = algos_find(&b, (int64_t[8]){5, 10, 64});
    CHECK(five && five[0] == 9);
    algos_close(&b);
    algos_close(&other);
}

static void nowhere(void)
{
    algos a;
    for (int i = 0; i < 2; i++) {
        algos_open(&a, i ? "" : NULL, "one");
        CHECK(!*a.path);
        put(&a, 3);
        algos_save(&a);
        CHECK(has(&a, 3));
        algos_close(&a);
    }
    char far[1200];
    memset(far, 'x', sizeof far);
    far[sizeof far - 1] = 0;
    algos_open(&a, far, "one");
    CHECK(!*a.path);
    algos_close(&a);
    *said = 0;
    algos_open(&a, "/dev/null/pivot", "one"); /* no folder there, nor can one be made */
    put(&a, 3);
    algos_save(&a);
    CHECK(strstr(said, "cannot be written") && has(&a, 3));
    algos_close(&a);
}

static void write_bytes(const char *path, const void *bytes, size_t n)
{
    FILE *f = fopen(path, "wb");
    if (CHECK(f)) {
        CHECK(fwrite(bytes, 1, n, f) == n || !n);
        fclose(f);
    }
}

/* What lies there and is not ours: said, not used, replaced. */
static void refused(const void *bytes, size_t n, const char *words)
{
    algos a = opened("one");
    write_bytes(a.path, bytes, n);
    algos_close(&a);
    a = opened("one");
    CHECK(a.n == 0 && strstr(said, words) && strstr(said, "anew"));
    put(&a, 8);
    algos_save(&a);
    algos_close(&a);
    a = opened("one");
    CHECK(a.n == 1 && has(&a, 8));
    algos_close(&a);
}

static void not_ours(void)
{
    size_t n = 0;
    algos a = opened("two");
    unsigned char *foreign = algos_print(&a, &n);
    CHECK(a.n == 1);
    refused(foreign, n, "of another device, driver or library");
    refused(foreign, n - 1, "a length that does not fit");
    refused(foreign, 100, "too short");
    foreign[n - 9] ^= 1;
    refused(foreign, n, "damaged");
    foreign[0] ^= 1;
    refused(foreign, n, "not a file of this version");
    refused("", 0, "size that it may have");
    char *large = calloc(1, ALGOS_FILE_MOST + 1);
    refused(large, ALGOS_FILE_MOST + 1, "size that it may have");
    free(large);
    pv_free(foreign);
    algos_close(&a);

    a = opened("one"); /* a folder, a pipe: nothing to read, and nobody waits */
    char path[sizeof a.path];
    snprintf(path, sizeof path, "%s", a.path);
    algos_close(&a);
    CHECK(!remove(path) && !mkfifo(path, 0600));
    a = opened("one");
    CHECK(a.n == 0 && *said);
    algos_close(&a);
    CHECK(!remove(path) && !mkdir(path, 0700));
    a = opened("one");
    CHECK(a.n == 0 && *said);
    put(&a, 1);
    algos_save(&a);
    CHECK(strstr(said, "cannot be written"));
    algos_close(&a);
    CHECK(!remove(path) && files() == 1); /* nothing half written is left */
}

/* Any bytes: mostly a good file with some of them changed, and its sum put right again, so that more is looked at. */
static void any_bytes(void)
{
    size_t n = 0;
    algos a = opened("three");
    for (int i = 0; i < 9; i++)
        put(&a, i);
    unsigned char *good = algos_print(&a, &n), *bad = malloc(n);
    int taken = 0, left = 0, odd = 0;
    uint32_t seed = 1;
    for (int round = 0; round < 200000; round++) {
        size_t size = n;
        memcpy(bad, good, n);
        for (int k = 0; k < 1 + round % 4; k++) {
            seed = seed * 1664525u + 1013904223u;
            bad[round % 3 ? (seed >> 8) % n : (seed >> 8) % 24] = (unsigned char)seed;
        }
        if (round % 5 == 0)
            size = (seed >> 5) % (n + 1);
        if (round % 2 && size > 8) {
            uint64_t h = 14695981039346656037u;
            for (size_t i = 0; i < size - 8; i++)
                h = (h ^ bad[i]) * 1099511628211u;
            memcpy(bad + size - 8, &h, sizeof h);
        }
        char *exact = malloc(size + !size); /* so that a sanitizer sees a byte too many */
        memcpy(exact, bad, size);
        algos b;
        algos_open(&b, NULL, "three");
        const char *wrong = algos_parse(&b, exact, size);
        odd += wrong ? b.n != 0 : b.n < 1 || b.n > 9;
        wrong ? left++ : taken++;
        algos_close(&b);
        free(exact);
    }
    printf("%d of 200000 changed files taken (their sum was right), %d left\n", taken, left);
    CHECK(odd == 0 && taken > 1000 && left > 1000);
    free(bad);
    pv_free(good);
    algos_close(&a);
}

static void never_too_many(void)
{
    algos a = opened("many");
    for (int i = 0; i < ALGOS_MOST + 10; i++)
        put(&a, i);
    CHECK(a.n == ALGOS_MOST && has(&a, 10) && has(&a, ALGOS_MOST + 9) &&
          !has(&a, 9)); /* the oldest made room */
    algos_save(&a);
    struct stat s;
    CHECK(!stat(a.path, &s) && (size_t)s.st_size <= ALGOS_FILE_MOST);
    algos_close(&a);
    a = opened("many");
    CHECK(a.n == ALGOS_MOST && !*said && has(&a, 10));
    put(&a, 5);
    algos_save(&a);
    CHECK(a.n == ALGOS_MOST && has(&a, 5) && !has(&a, 10));
    algos_close(&a);
}

/* Without memory it is as if there were no file. */
static void no_memory(void)
{
    const pv_allocator failing = {sizeof failing, NULL, fault_alloc, fault_release};
    CHECK_OK(pv_set_allocator(&failing));
    for (long k = 0; k < 8; k++) {
        fault_countdown = k;
        algos a = opened("one");
        put(&a, 77);
        algos_save(&a);
        algos_close(&a);
        fault_countdown = -1;
        CHECK(pv_alloc_live() == 0);
    }
    CHECK_OK(pv_set_allocator(NULL));
    algos a = opened("one");
    CHECK(!*said && has(&a, 77));
    algos_close(&a);
}

int main(void)
{
    char base[] = "/tmp/pivot-algos-XXXXXX";
    if (!CHECK(mkdtemp(base)))
        return test_done();
    snprintf(folder, sizeof folder, "%s/not/yet", base);
    pv_set_log(hear, NULL, PV_LOG_INFO);
    from_process_to_process();
    nowhere();
    not_ours();
    any_bytes();
    never_too_many();
    no_memory();
    CHECK(pv_alloc_live() == 0);
    char command[128];
    snprintf(command, sizeof command, "rm -r %s", base);
    CHECK(!system(command));
    return test_done();
}
