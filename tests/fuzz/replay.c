/* replay.c - feeds every file of the given directories to a fuzz target, for builds without libFuzzer. Each input lies in
 * a block of exactly its size, so that AddressSanitizer sees one byte too many. An empty directory is a failure. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int replay(const char *path)
{
    uint8_t *data = NULL;
    int ok = 0;
    FILE *f = fopen(path, "rb");
    if (f && fseek(f, 0, SEEK_END) == 0) {
        long size = ftell(f);
        rewind(f);
        data = size >= 0 ? malloc((size_t)size) : NULL;
        ok = size >= 0 && (size == 0 || (data && fread(data, 1, (size_t)size, f) == (size_t)size));
        if (ok)
            LLVMFuzzerTestOneInput(data, (size_t)size);
    }
    if (!ok)
        printf("%s: cannot be read\n", path);
    free(data);
    if (f)
        fclose(f);
    return ok;
}

int main(int argc, char **argv)
{
    int passed = 0, failed = argc < 2;
    for (int i = 1; i < argc; i++) {
        int inputs = 0;
        DIR *dir = opendir(argv[i]);
        for (struct dirent *e; dir && (e = readdir(dir));) {
            char path[4096];
            if (e->d_name[0] == '.')
                continue;
            snprintf(path, sizeof path, "%s/%s", argv[i], e->d_name);
            inputs++;
            if (replay(path))
                passed++;
            else
                failed++;
        }
        if (!inputs) {
            printf("%s: no inputs here\n", argv[i]);
            failed++;
        }
        if (dir)
            closedir(dir);
    }
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}
