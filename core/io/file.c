/* file.c - reading and writing regular files. Rules: file.h. */
#include "file.h"
#include "base/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define CHUNK_BYTES ((size_t)16 << 20) /* of one system call; some systems refuse more than 2 GiB */

pv_status pv_file_open(const char *path, int *fd, uint64_t *bytes)
{
    int f;
    do {
        f = open(path,
                 O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* non-blocking: a FIFO would wait for its writer */
    } while (f < 0 && errno == EINTR);
    if (f < 0)
        return pv_fail(PV_E_FILE, "%s: cannot be opened: %s", path, strerror(errno));
    struct stat s;
    pv_status st = PV_OK;
    if (fstat(f, &s) != 0)
        st = pv_fail(PV_E_FILE, "%s: cannot be examined: %s", path, strerror(errno));
    else if (!S_ISREG(s.st_mode))
        st = pv_fail(PV_E_FILE, "%s: expected a regular file, this is %s", path,
                     S_ISDIR(s.st_mode) ? "a folder" : "something else");
    if (st) {
        close(f);
        return st;
    }
    *fd = f;
    *bytes = (uint64_t)s.st_size;
    return PV_OK;
}

pv_status pv_file_pread(int fd, const char *path, uint64_t offset, void *dst, size_t n)
{
    char *p = dst;
    while (n > 0) {
        ssize_t got = pread(fd, p, n < CHUNK_BYTES ? n : CHUNK_BYTES, (off_t)offset);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return pv_fail(PV_E_FILE, "%s: cannot be read at byte %llu: %s", path, (unsigned long long)offset,
                           strerror(errno));
        if (got == 0)
            return pv_fail(PV_E_FILE, "%s: ends at byte %llu, %zu more were expected (did it shrink?)", path,
                           (unsigned long long)offset, n);
        p += got;
        n -= (size_t)got;
        offset += (uint64_t)got;
    }
    return PV_OK;
}

pv_status pv_file_read(const char *path, size_t max_bytes, char **data, size_t *n)
{
    *data = NULL;
    *n = 0;
    int fd;
    uint64_t bytes;
    pv_status st = pv_file_open(path, &fd, &bytes);
    if (st)
        return st;
    char *p = NULL;
    if (bytes > max_bytes)
        st = pv_fail(PV_E_FILE, "%s: %llu bytes, at most %zu were expected", path, (unsigned long long)bytes,
                     max_bytes);
    else if (!(p = pv_alloc((size_t)bytes + 1)))
        st = pv_fail_in(PV_E_MEMORY, "%s", path);
    else
        st = pv_file_pread(fd, path, 0, p, (size_t)bytes);
    close(fd);
    if (st) {
        pv_free(p);
        return st;
    }
    p[bytes] = 0;
    *data = p;
    *n = (size_t)bytes;
    return PV_OK;
}

/* The rename at the end would take the place of what is there: of a device too, or of a link to one. */
static pv_status may_be_written(const char *path)
{
    struct stat s;
    if (!*path)
        return pv_fail(PV_E_FILE, "expected the name of a file to write, came an empty text");
    if (lstat(path, &s) != 0 || S_ISREG(s.st_mode)) /* not there, or told when it is created */
        return PV_OK;
    return pv_fail(PV_E_FILE, "%s: expected a regular file or none, this is %s", path,
                   S_ISDIR(s.st_mode)   ? "a folder"
                   : S_ISLNK(s.st_mode) ? "a symbolic link"
                                        : "something else");
}

static void forget(pv_file_out *f)
{
    pv_free(f->path);
    pv_free(f->part);
    *f = (pv_file_out){0};
}

pv_status pv_file_out_begin(pv_file_out *f, const char *path)
{
    static atomic_uint count;
    const size_t room = strlen(path) + 48;
    pv_status st = may_be_written(path);
    if (st)
        return st;
    *f = (pv_file_out){.fd = -1, .path = pv_strdup(path), .part = pv_alloc(room)};
    if (!f->path || !f->part) {
        forget(f);
        return pv_fail_in(PV_E_MEMORY, "%s", path);
    }
    do { /* not mkstemp: it would leave the file unreadable for others, whatever the umask says */
        snprintf(f->part, room, "%s.%ld-%u.part", path, (long)getpid(), atomic_fetch_add(&count, 1));
        f->fd = open(f->part, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    } while (f->fd < 0 && (errno == EEXIST || errno == EINTR));
    if (f->fd < 0) {
        st = pv_fail(PV_E_FILE, "%s: cannot be created: %s", f->part, strerror(errno));
        forget(f);
        return st;
    }
    return PV_OK;
}

pv_status pv_file_out_write(pv_file_out *f, const void *data, size_t n)
{
    const char *p = data;
    while (n > 0) {
        ssize_t put = write(f->fd, p, n < CHUNK_BYTES ? n : CHUNK_BYTES);
        if (put < 0 && errno == EINTR)
            continue;
        if (put <= 0)
            return pv_fail(PV_E_FILE, "%s: cannot be written: %s", f->path, strerror(put ? errno : ENOSPC));
        p += put;
        n -= (size_t)put;
    }
    return PV_OK;
}

pv_status pv_file_out_end(pv_file_out *f)
{
    pv_status st = PV_OK;
    if (fsync(f->fd) != 0)
        st = pv_fail(PV_E_FILE, "%s: cannot be flushed to disk: %s", f->path, strerror(errno));
    /* After EINTR the descriptor is gone, and the data is on disk since fsync. */
    if (close(f->fd) != 0 && !st && errno != EINTR)
        st = pv_fail(PV_E_FILE, "%s: cannot be closed: %s", f->path, strerror(errno));
    if (!st && rename(f->part, f->path) != 0)
        st = pv_fail(PV_E_FILE, "%s: cannot be renamed from %s: %s", f->path, f->part, strerror(errno));
    if (st)
        unlink(f->part);
    forget(f);
    return st;
}

void pv_file_out_abort(pv_file_out *f)
{
    close(f->fd);
    unlink(f->part);
    forget(f);
}

pv_status pv_file_write(const char *path, const void *data, size_t n)
{
    pv_file_out f;
    pv_status st = pv_file_out_begin(&f, path);
    if (st)
        return st;
    st = pv_file_out_write(&f, data, n);
    if (!st)
        return pv_file_out_end(&f);
    pv_file_out_abort(&f);
    return st;
}
