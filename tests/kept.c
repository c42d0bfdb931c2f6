/* kept.c - what is kept from process to process: whole or not at all, under its own key, and never trusted.
 */
#define _GNU_SOURCE
#include "base/kept.h"
#include "base/log.h"
#include "base/memory.h"
#include "tests/faults.h"
#include "tests/test.h"

#include <dirent.h>
#include <sys/stat.h>
#include <unistd.h>

#define MOST ((size_t)1 << 16)

static char base[] = "/tmp/pivot-kept-XXXXXX", folder[64], path[512];
static char said[2048];

static void hear(void *user, pv_log_level level, const char *text)
{
    (void)user, (void)level;
    snprintf(said, sizeof said, "%s", text);
}

/* Files of the folder; the name of the last in `path`. */
static int files(void)
{
    int n = 0;
    DIR *d = opendir(folder);
    for (struct dirent *e; d && (e = readdir(d));)
        if (e->d_name[0] != '.') {
            snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
            n++;
        }
    if (d)
        closedir(d);
    return n;
}

/* NULL: nothing is kept there. */
static bool holds(const char *kind, const char *key, const char *words)
{
    size_t n;
    *said = 0;
    char *bytes = pv_kept_load(folder, kind, key, MOST, &n);
    bool ok = words ? bytes && n == strlen(words) && !memcmp(bytes, words, n) : !bytes && !n;
    pv_free(bytes);
    return ok;
}

static void save(const char *kind, const char *key, const char *words)
{
    *said = 0;
    pv_kept_save(folder, kind, key, words, strlen(words));
}

static void kept(void)
{
    char far[500], long_key[2 * PV_KEPT_KEY];
    CHECK(holds("a", "one", NULL) && !*said);
    save("a", "one", "hello");
    CHECK(!*said && files() == 1 && holds("a", "one", "hello"));
    struct stat s;
    CHECK(!stat(path, &s) && (s.st_mode & 0777) == 0600);
    CHECK(holds("a", "two", NULL) && holds("b", "one", NULL) && !*said);
    save("b", "one", "");
    save("a", "one", "world!");
    CHECK(files() == 2 && holds("a", "one", "world!") && holds("b", "one", ""));
    size_t n;
    CHECK(!pv_kept_load(folder, "a", "one", 5, &n) && strstr(said, "size that it may have"));
    memset(long_key, 'k', sizeof long_key);
    long_key[sizeof long_key - 1] = 0;
    save("a", long_key, "long");
    CHECK(holds("a", long_key, "long"));

    *said = 0;
    for (int i = 0; i < 2; i++) { /* nowhere */
        pv_kept_save(i ? "" : NULL, "a", "one", "x", 1);
        CHECK(!pv_kept_load(i ? "" : NULL, "a", "one", MOST, &n) && !n);
    }
    char farther[3 * sizeof far];
    memset(farther, 'x', sizeof farther);
    farther[sizeof farther - 1] = 0;
    pv_kept_save(farther, "a", "one", "x", 1);
    CHECK(!pv_kept_load(farther, "a", "one", MOST, &n) && !*said);
    pv_kept_save("/dev/null/pivot", "a", "one", "x", 1);
    CHECK(strstr(said, "cannot be written"));
}

static void put(const void *bytes, size_t n)
{
    FILE *f = fopen(path, "wb");
    if (CHECK(f)) {
        CHECK(fwrite(bytes, 1, n, f) == n || !n);
        fclose(f);
    }
}

static void refused(const void *bytes, size_t n, const char *words)
{
    put(bytes, n);
    if (!CHECK(holds("c", "one", NULL)) || !CHECK(strstr(said, words) && strstr(said, "anew")))
        printf("    '%s', expected '%s'\n", said, words);
    save("c", "one", "anew");
    CHECK(holds("c", "one", "anew") && !*said);
}

static void never_trusted(void)
{
    char name[sizeof path], *good, *other;
    const char *wrong;
    size_t n, size;
    snprintf(folder, sizeof folder, "%s/c", base);
    save("c", "two", "of another");
    CHECK(files() == 1);
    other = pv_kept_read(path, MOST, &size, &wrong);
    CHECK(!remove(path));
    save("c", "one", "something");
    CHECK(files() == 1);
    good = pv_kept_read(path, MOST, &n, &wrong);
    if (!CHECK(good && other))
        return;
    refused(other, size, "of another device, driver or version");
    refused(good, n - 1, "a length that does not fit");
    refused(good, 40, "too short");
    for (size_t i = 0; i < n; i++) { /* any byte */
        good[i] ^= 1;
        put(good, n);
        CHECK(holds("c", "one", NULL) && *said);
        good[i] ^= 1;
    }
    put(good, n);
    CHECK(holds("c", "one", "something"));
    for (size_t cut = 0; cut < n; cut++) { /* any length */
        put(good, cut);
        CHECK(holds("c", "one", NULL) && *said);
    }
    refused("", 0, "size that it may have");

    snprintf(name, sizeof name, "%s",
             path); /* a pipe, a folder: nobody waits, nothing half written is left */
    CHECK(!remove(name) && !mkfifo(name, 0600) && holds("c", "one", NULL) && *said);
    CHECK(!remove(name) && !mkdir(name, 0700) && holds("c", "one", NULL) && *said);
    save("c", "one", "x");
    CHECK(strstr(said, "cannot be written") && files() == 1 && !remove(name));
    pv_free(good);
    pv_free(other);
}

static void no_memory(void)
{
    const pv_allocator failing = {sizeof failing, NULL, fault_alloc, fault_release};
    save("c", "one", "there");
    CHECK_OK(pv_set_allocator(&failing));
    fault_countdown = 0;
    CHECK(holds("c", "one", NULL));
    fault_countdown = 0;
    save("c", "one", "new");
    fault_countdown = -1;
    CHECK(strstr(said, "out of memory") && holds("c", "one", "there") && pv_alloc_live() == 0);
    CHECK_OK(pv_set_allocator(NULL));
}

int main(void)
{
    if (!CHECK(mkdtemp(base)))
        return test_done();
    snprintf(folder, sizeof folder, "%s/a/b", base);
    pv_set_log(hear, NULL, PV_LOG_INFO);
    kept();
    never_trusted();
    no_memory();
    CHECK(pv_alloc_live() == 0);
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", base);
    CHECK(system(command) == 0);
    return test_done();
}
