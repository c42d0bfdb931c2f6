/* test.h - the smallest thing that counts: CHECK in functions called from main, and one closing line for CTest. */
#ifndef PV_TEST_H
#define PV_TEST_H

#include "pivot.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int test_passed, test_failed;

static inline bool test_check(bool ok, const char *what, const char *file, int line)
{
    if (ok) {
        test_passed++;
    } else {
        test_failed++;
        printf("%s:%d: failed: %s\n", file, line, what);
    }
    return ok;
}

static inline bool test_status(pv_status got, pv_status want, const char *what, const char *file, int line)
{
    bool ok = test_check(got == want, what, file, line);
    if (!ok)
        printf("    expected %s, came %s: %s\n", pv_status_name(want), pv_status_name(got), pv_error_text());
    return ok;
}

static inline bool test_text(const char *part, const char *file, int line)
{
    bool ok = test_check(strstr(pv_error_text(), part) != NULL, "the error text holds the words", file, line);
    if (!ok)
        printf("    expected \"%s\" in: %s\n", part, pv_error_text());
    return ok;
}

#define CHECK(cond)               test_check((cond), #cond, __FILE__, __LINE__)
#define CHECK_STATUS(expr, want)  test_status((expr), (want), #expr, __FILE__, __LINE__)
#define CHECK_OK(expr)            CHECK_STATUS(expr, PV_OK)
#define CHECK_TEXT(part)          test_text((part), __FILE__, __LINE__)

static inline int test_done(void)
{
    printf("%d passed, %d failed\n", test_passed, test_failed);
    return test_failed != 0;
}

#endif
