/* selftest.c - the cases of the self-test themselves, without a device: the CPU in a disguise that has every
 * op as a variant is right in all of them, and each op has some. That wrong variants are found:
 * ../vulkan_selftest.c. */
#include "plan/selftest.h"
#include "base/log.h"
#include "base/memory.h"
#include "tests/test.h"

static pv_variant variants[PV_OP_COUNT];
static pv_backend_vt disguise;
static int said;

static pv_status open_disguised(const pv_backend_params *p, pv_backend **out)
{
    pv_status st = pv_cpu_backend.open(p, out);
    if (!st)
        (*out)->vt = &disguise;
    return st;
}

static pv_status describe(pv_backend *be, pv_device_info *out)
{
    pv_status st = pv_cpu_backend.describe(be, out);
    snprintf(out->identity, sizeof out->identity, "the CPU in disguise");
    return st;
}

/* A composite is claimed when the test asks, and expanded when a plan is made of it: until something is
 * recorded nothing else is. */
static bool planning;

static bool claims(const pv_backend *be, const pv_node *n)
{
    if (planning || !pv_ops[n->op].body)
        return pv_cpu_backend.claims(be, n);
    planning = true;
    return true;
}

static pv_status record(pv_backend *be, const pv_program *prog, const pv_buffers *bufs, pv_recording **out)
{
    planning = false;
    return pv_cpu_backend.record(be, prog, bufs, out);
}

static pv_variant *list(pv_backend *be, int *n)
{
    (void)be;
    *n = PV_OP_COUNT;
    return variants;
}

static void hear(void *user, pv_log_level level, const char *text)
{
    (void)user;
    said += level >= PV_LOG_WARN;
    printf("    %s\n", text);
}

int main(void)
{
    disguise = pv_cpu_backend;
    disguise.open = open_disguised;
    disguise.describe = describe;
    disguise.claims = claims;
    disguise.record = record;
    disguise.variants = list;
    for (int i = 0; i < PV_OP_COUNT; i++)
        variants[i] = (pv_variant){pv_ops[i].name, (pv_op)i, false};
    pv_set_log(hear, NULL, PV_LOG_WARN);

    const pv_backend_params params = {.threads = 1, .cache = ""};
    pv_backend *be = NULL;
    pv_device_info info = {.size = sizeof info};
    CHECK_OK(open_disguised(&params, &be));
    CHECK_OK(describe(be, &info));
    pv_selftest_tell(&info, "");
    CHECK(strstr(info.supports, "self-test: not run yet"));
    CHECK_OK(pv_selftest(&be, &params));
    CHECK(said == 0 && be && be->vt == &disguise);
    CHECK_OK(describe(be, &info));
    pv_selftest_tell(&info, "");
    char words[64];
    snprintf(words, sizeof words, "self-test: %d ways to do an op are right, none is wrong\n",
             PV_OP_COUNT - 8); /* less those that no backend with variants has */
    if (!CHECK(strstr(info.supports, words)) ||
        !CHECK(strstr(info.supports, "not tested, as no case fits: transpose, scale_for, quantize, dequantize, linear_scaled, "
                                     "linear_blocks, geglu_quantize, expert_block\n")))
        printf("    %s\n", info.supports);
    for (int i = 0; i < PV_OP_COUNT; i++)
        CHECK(!variants[i].off);
    pv_backend_close(&be);
    CHECK(pv_alloc_live() == 0);
    return test_done();
}
