/* kept.c - see kept.h. The file: head, bytes, and the sum of all that stands before it. */
#define _GNU_SOURCE
#include "kept.h"
#include "log.h"
#include "memory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAGIC                                                                                                \
    0x3174706b76506956u /* and the version of this format; in another byte order it is another number */

typedef struct head {
    uint64_t magic, n;
    char label[PV_KEPT_KEY + 64]; /* kind and key, zeros behind */
} head;

uint64_t pv_kept_sum(const void *bytes, size_t n)
{
    const unsigned char *p = bytes;
    uint64_t h = 14695981039346656037u;
    for (size_t i = 0; i < n; i++)
        h = (h ^ p[i]) * 1099511628211u;
    return h;
}

/* ---- files ---- */

void *pv_kept_read(const char *path, size_t most, size_t *n, const char **wrong)
{
    struct stat s;
    *wrong = NULL;
    *n = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return NULL;
    if (fstat(fd, &s) || !S_ISREG(s.st_mode) || s.st_size < 1 || (uint64_t)s.st_size > most) {
        *wrong = "no file of a size that it may have";
        close(fd);
        return NULL;
    }
    size_t size = (size_t)s.st_size;
    char *bytes = pv_alloc(size);
    while (bytes && *n < size) {
        ssize_t got = read(fd, bytes + *n, size - *n);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            break;
        *n += (size_t)got;
    }
    close(fd);
    return bytes;
}

static void make_folders(const char *path)
{
    char part[PV_KEPT_PATH];
    for (const char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        snprintf(part, sizeof part, "%.*s", (int)(slash - path), path);
        mkdir(part, 0700);
    }
}

static bool write_all(int fd, const char *bytes, size_t n)
{
    while (n) {
        ssize_t put = write(fd, bytes, n);
        if (put < 0 && errno == EINTR)
            continue;
        if (put <= 0)
            return false;
        bytes += put;
        n -= (size_t)put;
    }
    return true;
}

bool pv_kept_replace(const char *path, const void *bytes, size_t n)
{
    char part[PV_KEPT_PATH];
    make_folders(path);
    int length = snprintf(part, sizeof part, "%s.%ld.part", path, (long)getpid());
    if (length < 0 || (size_t)length >= sizeof part) {
        errno = ENAMETOOLONG;
        return false;
    }
    unlink(part); /* of a process that had this number and died */
    int fd = open(part, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return false;
    bool ok = write_all(fd, bytes, n);
    ok = !close(fd) && ok && !rename(part, path);
    if (!ok) {
        int error = errno;
        unlink(part);
        errno = error;
    }
    return ok;
}

/* ---- what is in them ---- */

static bool name_file(const char *folder, const char *kind, const char *key, head *h, char path[PV_KEPT_PATH])
{
    if (!folder || !*folder)
        return false;
    *h = (head){.magic = MAGIC};
    snprintf(h->label, sizeof h->label, "%s: %.*s", kind, PV_KEPT_KEY, key);
    int n = snprintf(path, PV_KEPT_PATH, "%s/%s-%016llx.kept", folder, kind,
                     (unsigned long long)pv_kept_sum(h->label, strlen(h->label)));
    return n > 0 && n < PV_KEPT_PATH - 32;
}

static const char *check(const char *bytes, size_t n, const head *want)
{
    head h;
    uint64_t sum;
    if (n < sizeof h + sizeof sum)
        return "too short";
    memcpy(&h, bytes, sizeof h);
    if (h.magic != want->magic)
        return "not a file of this version";
    if (h.n != n - sizeof h - sizeof sum)
        return "a length that does not fit";
    memcpy(&sum, bytes + n - sizeof sum, sizeof sum);
    if (pv_kept_sum(bytes, n - sizeof sum) != sum)
        return "damaged";
    return memcmp(h.label, want->label, sizeof h.label) ? "of another device, driver or version" : NULL;
}

void *pv_kept_load(const char *folder, const char *kind, const char *key, size_t most, size_t *n)
{
    char path[PV_KEPT_PATH];
    head want;
    const char *wrong;
    *n = 0;
    if (!name_file(folder, kind, key, &want, path))
        return NULL;
    size_t size;
    char *bytes = pv_kept_read(path, most + sizeof want + sizeof(uint64_t), &size, &wrong);
    if (bytes)
        wrong = check(bytes, size, &want);
    if (wrong)
        pv_log(PV_LOG_WARN, "%s: %s; it will be made anew", path, wrong);
    if (wrong || !bytes) {
        pv_free(bytes);
        return NULL;
    }
    *n = size - sizeof want - sizeof(uint64_t);
    memmove(bytes, bytes + sizeof want, *n);
    return bytes;
}

void pv_kept_save(const char *folder, const char *kind, const char *key, const void *bytes, size_t n)
{
    char path[PV_KEPT_PATH];
    head h;
    if (!name_file(folder, kind, key, &h, path))
        return;
    h.n = n;
    char *all = n < SIZE_MAX / 2 ? pv_alloc(sizeof h + n + sizeof(uint64_t)) : NULL;
    if (all) {
        memcpy(all, &h, sizeof h);
        if (n)
            memcpy(all + sizeof h, bytes, n);
        uint64_t sum = pv_kept_sum(all, sizeof h + n);
        memcpy(all + sizeof h + n, &sum, sizeof sum);
    }
    if (!all || !pv_kept_replace(path, all, sizeof h + n + sizeof(uint64_t)))
        pv_log(PV_LOG_INFO, "%s cannot be written: %s; it is made anew in the next process", path,
               all ? strerror(errno) : "out of memory");
    pv_free(all);
}
