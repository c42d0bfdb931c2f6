/* choose.c - which device is meant: by index, name, UUID, a part of a name; and when nobody says. */
#include "plan/backend.h"
#include "tests/test.h"

static const pv_device_info machine[] = {
    {.backend = "x",
     .name = "llvmpipe (LLVM 15)",
     .uuid = "00000000-0000-0000-0000-0000000000aa",
     .software = true},
    {.backend = "x", .name = "NVIDIA H200", .uuid = "GPU-11111111-2222-3333-4444-555555555555"},
    {.backend = "x", .name = "NVIDIA H200", .uuid = "GPU-11111111-2222-3333-4444-666666666666"},
    {.backend = "x", .name = "AMD Radeon 5", .uuid = "7"},
    {.backend = "x", .name = "5"},
};
#define N ((int)(sizeof machine / sizeof *machine))

static void meant(const char *wanted, int index)
{
    int came = -1;
    if (!CHECK_OK(pv_choose_device(machine, N, wanted, &came)) || !CHECK(came == index))
        printf("    '%s': device %d, expected %d\n", wanted ? wanted : "(none)", came, index);
}

static void refused(const char *wanted, int n, const char *words)
{
    int came;
    if (!CHECK_STATUS(pv_choose_device(machine, n, wanted, &came), PV_E_UNAVAILABLE) || !CHECK_TEXT(words))
        printf("    '%s'\n", wanted ? wanted : "(none)");
}

int main(void)
{
    meant(NULL, 1);
    meant("0", 0);
    meant("2", 2);
    meant("4", 4);
    meant("5", 4); /* no index: there a name */
    meant("7", 3); /* a UUID */
    meant("nvidia h200", 1);
    meant("gpu-11111111-2222-3333-4444-666666666666", 2);
    meant("11111111-2222-3333-4444-666666666666", 2);
    meant("GPU-00000000-0000-0000-0000-0000000000AA", 0);
    meant("LLVMpipe", 0);
    meant("h200", 1); /* of equal names the first */
    meant("radeon", 3);
    refused("rad eon", N,
            "device 'rad eon': there are 0 (llvmpipe (LLVM 15), 00000000-0000-0000-0000-0000000000aa), 1 "
            "(NVIDIA H200, GPU-");
    refused("am", N, "there are");
    refused("d", N, "there are");
    refused("", N, "there are");
    refused("GPU-", N, "there are");
    refused("-1", N, "there are");
    refused("01", N, "there are");
    refused(NULL, 1, "x has nothing but software here (0 (llvmpipe");
    refused(NULL, 0, "there is no device");
    refused("0", 0, "there is no device");

    pv_device_info two[] = {{.name = "NVIDIA H200"}, {.name = "NVIDIA A2"}};
    int came;
    CHECK_STATUS(pv_choose_device(two, 2, "nvidia", &came), PV_E_UNAVAILABLE);
    CHECK_TEXT("device 'nvidia' may be any of several: there are 0 (NVIDIA H200), 1 (NVIDIA A2)");
    CHECK_OK(pv_choose_device(two, 2, "nvidia a2", &came));
    CHECK(came == 1);
    return test_done();
}
