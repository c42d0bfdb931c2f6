/* power_mode.c - what the file may hold. */
#include "tools/power_mode.h"
#include "test.h"

static int of(const char *text)
{
    FILE *f = fopen("power_mode.txt", "w");
    if (!CHECK(f != NULL))
        return -2;
    fputs(text, f);
    fclose(f);
    int mode = power_mode("power_mode.txt");
    remove("power_mode.txt");
    return mode;
}

int main(void)
{
    CHECK(of("pmode:0002\n") == 2 && of("pmode:0000 fmode:quiet\n") == 0 && of("pmode:0010") == 10);
    CHECK(of("") == -1 && of("pmode:") == -1 && of("pmode:-002\n") == -1 && of("mode:0002\n") == -1);
    CHECK(of("pmode:99999999999999999999\n") == 9999); /* four digits are read */
    CHECK(power_mode("no/such/file") == -1);
    return test_done();
}
