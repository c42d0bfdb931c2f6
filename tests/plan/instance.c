/* instance.c - submitting allocates nothing, failing allocations leave nothing, two plans at work share weights. */
#include "tests/faults.h"
#include "plans.h"

#include <pthread.h>

static void no_allocation(void)
{
    pv_config c;
    pv_graph *wanted = tiny(&c);
    pv_weight_source source = pv_synthetic_source(wanted);
    pv_weights *weights = NULL;
    ready r;
    CHECK_OK(pv_weights_create(cpu(), &source, &weights));
    if (ready_make(&r, tiny(&c), NULL, recipe("bf16"), 4, weights)) {
        ready_fill(&r);
        int64_t before = pv_alloc_count();
        for (int i = 0; i < 3; i++) {
            pv_run_timing timing = {0};
            CHECK_OK(pv_instance_run(r.inst, (pv_run){.stages = 15, .n_steps = 4}, &timing));
            CHECK(timing.stage_ms[PV_STAGE_PREFIX] > 0 && timing.stage_ms[PV_STAGE_DENOISE] > 0);
        }
        CHECK(pv_alloc_count() == before);
    }
    ready_drop(&r);
    pv_weights_destroy(&weights);
    pv_graph_destroy(&wanted);
}

/* A run brings what a read would find; what has no place cannot be brought. */
static void results(void)
{
    pv_config c;
    pv_graph *wanted = tiny(&c);
    pv_weight_source source = pv_synthetic_source(wanted);
    pv_weights *weights = NULL;
    ready r;
    CHECK_OK(pv_weights_create(cpu(), &source, &weights));
    if (ready_make(&r, tiny(&c), NULL, NULL, 4, weights)) {
        float brought[512] = {0}, read[512];
        const pv_tensor *x_t = pv_graph_find(r.plan.graph, "step.x_t");
        size_t bytes = pv_tensor_bytes(x_t);
        ready_fill(&r);
        CHECK(bytes <= sizeof read);
        CHECK_OK(pv_instance_run(r.inst, (pv_run){.stages = 15, .n_steps = 4, .result = x_t, .to = brought}, NULL));
        CHECK_OK(pv_instance_read(r.inst, x_t, 0, read, bytes));
        CHECK(!memcmp(brought, read, bytes) && brought[0] != 0);
        pv_run weight = {.stages = 15, .n_steps = 4, .result = pv_graph_find(r.plan.graph, "action_in_proj.weight"), .to = brought};
        CHECK(weight.result && weight.result->usage == PV_WEIGHT);
        CHECK_STATUS(pv_instance_run(r.inst, weight, NULL), PV_E_SHAPE);
        CHECK_TEXT("has 0 bytes that can be reached");

        const pv_tensor *images = pv_graph_find(r.plan.graph, "images"); /* written from its own place, and from another */
        uint8_t *place = pv_instance_map(r.inst, images), kept[16];
        memset(place, 77, 16);
        CHECK_OK(pv_instance_write(r.inst, images, 0, place, 16));
        CHECK_OK(pv_instance_write(r.inst, images, 4, "abc", 3));
        CHECK_OK(pv_instance_read(r.inst, images, 0, kept, sizeof kept));
        CHECK(kept[3] == 77 && !memcmp(kept + 4, "abc", 3) && kept[7] == 77);
    }
    ready_drop(&r);
    pv_weights_destroy(&weights);
    pv_graph_destroy(&wanted);
}

/* A backend that begins: on the CPU, where what was begun is over at once. */
static uint32_t begun;
static int waited;

static pv_status begin_stages(pv_recording *rec, uint32_t stages)
{
    begun = stages;
    pv_status st = pv_cpu_backend.submit(rec, &(pv_run){.stages = stages});
    return st ? st : pv_cpu_backend.wait(rec, NULL);
}

static pv_status submit_others(pv_recording *rec, const pv_run *run)
{
    pv_run others = *run;
    others.stages &= ~begun;
    begun = 0;
    return pv_cpu_backend.submit(rec, &others);
}

static pv_status wait_for_all(pv_recording *rec, pv_run_timing *timing)
{
    waited++;
    begun = 0;
    return pv_cpu_backend.wait(rec, timing);
}

/* Vision begins with the pictures there are; the prompt comes later and counts; vision does not run again. Given up, it is
 * waited for, and the next run has all its stages. */
static void begins(void)
{
    pv_config c;
    pv_graph *wanted = tiny(&c);
    pv_weight_source source = pv_synthetic_source(wanted);
    pv_weights *weights = NULL;
    ready whole, parts;
    pv_backend *be = cpu();
    const pv_backend_vt *plain = be->vt;
    pv_backend_vt vt = *plain;
    vt.begin = begin_stages;
    vt.submit = submit_others;
    vt.wait = wait_for_all;
    CHECK_OK(pv_weights_create(be, &source, &weights));
    if (ready_make(&whole, tiny(&c), NULL, NULL, 4, weights) && ready_make(&parts, tiny(&c), NULL, NULL, 4, weights)) {
        const pv_tensor *prompt = pv_graph_find(parts.graph, "prompt");
        const uint32_t vision = 1u << PV_STAGE_VISION;
        size_t bytes = pv_tensor_bytes(prompt);
        char *right = malloc(bytes);
        pv_run_timing timing = {0};
        ready_fill(&whole);
        ready_fill(&parts);
        CHECK_OK(pv_instance_begin(whole.inst, vision)); /* cannot, and all of it is in the run */
        ready_run(&whole, 4);
        CHECK_OK(pv_instance_read(parts.inst, prompt, 0, right, bytes));
        be->vt = &vt;
        CHECK_OK(pv_instance_write(parts.inst, prompt, 1, right, bytes - 1));
        CHECK_OK(pv_instance_begin(parts.inst, vision));
        CHECK(begun == vision);
        CHECK_OK(pv_instance_write(parts.inst, prompt, 0, right, bytes));
        CHECK_OK(pv_instance_run(parts.inst, (pv_run){.stages = 15, .n_steps = 4}, &timing));
        CHECK(timing.stage_ms[PV_STAGE_VISION] == 0 && timing.stage_ms[PV_STAGE_PREFIX] > 0 && waited == 1);
        same_bytes(&whole, &parts, "step.x_next");

        CHECK_OK(pv_instance_begin(parts.inst, vision));
        pv_fail(PV_E_ARG, "the prompt is wrong");
        CHECK_STATUS(pv_instance_abandon(parts.inst, PV_E_ARG), PV_E_ARG);
        CHECK_TEXT("the prompt is wrong");
        CHECK(waited == 2);
        CHECK_STATUS(pv_instance_abandon(parts.inst, PV_E_SHAPE), PV_E_SHAPE);
        CHECK(waited == 2);
        ready_fill(&parts);
        CHECK_OK(pv_instance_run(parts.inst, (pv_run){.stages = 15, .n_steps = 4}, &timing));
        CHECK(timing.stage_ms[PV_STAGE_VISION] > 0);
        same_bytes(&whole, &parts, "step.x_next");
        be->vt = plain;
        free(right);
    }
    ready_drop(&whole);
    ready_drop(&parts);
    pv_weights_destroy(&weights);
    pv_graph_destroy(&wanted);
}

static pv_status attempt(void *user)
{
    const char *name = user;
    pv_config c;
    pv_backend *be = NULL;
    pv_graph *wanted = pv_graph_create(), *g = pv_graph_create();
    pv_plan *plan = NULL;
    pv_weights *weights = NULL;
    pv_instance *inst = NULL;
    pv_plan_params p = {.steps = 2};
    pv_status st = wanted && g ? pv_recipe_find(name, &p.recipe) : PV_E_MEMORY;
    pv_config_tiny(&c);
    if (!st) {
        pv_pi05_build(wanted, &c, &(pv_pi05_shape){.views = 1, .tokens = 8});
        st = pv_graph_status(wanted);
    }
    if (!st) {
        pv_pi05_build(g, &c, &(pv_pi05_shape){.views = 1, .tokens = 8});
        /* something to fold: three allocations of plan and instance more */
        if (!g->status)
            keep(pv_add(g, "sum", in(g, "zero", 2, 8), pv_gelu(g, "folded", constant(g, "c", 1, 8))));
        st = pv_graph_status(g);
    }
    if (!st)
        st = pv_backend_open("cpu", &(pv_backend_params){.threads = 1}, &be);
    if (!st)
        st = pv_plan_create(be, &g, &p, &plan);
    pv_weight_source source = {0};
    if (!st) {
        source = pv_synthetic_source(wanted);
        st = pv_weights_create(be, &source, &weights);
    }
    if (!st)
        st = pv_weights_load(weights, plan->graph, NULL, NULL);
    if (!st)
        st = pv_instance_create(plan, weights, &inst);
    pv_instance_destroy(&inst);
    pv_weights_destroy(&weights);
    pv_plan_destroy(&plan);
    pv_backend_close(&be);
    pv_graph_destroy(&g);
    pv_graph_destroy(&wanted);
    return st;
}

static void weights_wanted(void)
{
    pv_config c;
    pv_graph *g = tiny(&c);
    pv_plan *plan = NULL;
    pv_instance *inst = NULL;
    CHECK_OK(pv_plan_create(cpu(), &g, &(pv_plan_params){.steps = 1}, &plan));
    CHECK_STATUS(pv_instance_create(plan, NULL, &inst), PV_E_ARG);
    CHECK_TEXT("' is not loaded");
    CHECK(!inst);
    pv_plan_destroy(&plan);
    g = pv_graph_create();
    CHECK_STATUS(pv_plan_create(cpu(), &g, &(pv_plan_params){.steps = 0}, &plan), PV_E_ARG);
    CHECK_TEXT("steps: expected at least 1, came 0");
    CHECK(!g && !plan);
}

/* Needed, free, and the largest parts, before anything is loaded; where the backend knows. */
static pv_status little_room(pv_backend *be, size_t *available, size_t *total)
{
    (void)be;
    *available = 100;
    *total = 1000;
    return PV_OK;
}

static void room(void)
{
    pv_config c;
    pv_graph *g = tiny(&c);
    pv_plan *plan = NULL;
    char needs[64];
    CHECK_OK(pv_plan_create(cpu(), &g, &(pv_plan_params){.steps = 1}, &plan));
    CHECK_OK(pv_plan_room(plan, NULL));
    mock m;
    plan->backend = mock_claiming(&m, NULL);
    m.vt.room = little_room;
    CHECK_STATUS(pv_plan_room(plan, NULL), PV_E_MEMORY);
    size_t need = plan->weight_bytes;
    for (int u = PV_WEIGHT + 1; u < PV_USAGE_COUNT; u++)
        need += plan->program.bytes[u];
    snprintf(needs, sizeof needs, "the plan needs %zu bytes, 100 of 1000 are free; the largest", need);
    CHECK_TEXT(needs);
    CHECK_TEXT(".weight ");
    CHECK_TEXT(" KiB, ");
    pv_plan_destroy(&plan);
}

/* Two of one plan, each on its own thread, on one backend: the bytes of one alone. */
static void *at_work(void *user)
{
    ready *r = user;
    pv_status st = PV_OK;
    for (int i = 0; !st && i < 5; i++)
        st = pv_instance_run(r->inst, (pv_run){.stages = 15, .n_steps = 4}, NULL);
    return st ? NULL : r;
}

static void two_at_work(void)
{
    pv_config c;
    pv_graph *wanted = tiny(&c);
    pv_weight_source source = pv_synthetic_source(wanted);
    pv_weights *weights = NULL;
    ready one, two;
    CHECK_OK(pv_weights_create(cpu(), &source, &weights));
    if (ready_make(&one, tiny(&c), NULL, NULL, 4, weights)) {
        two = one; /* the plan is shared */
        two.inst = NULL;
        CHECK_OK(pv_instance_create(&two.plan, weights, &two.inst));
        ready_fill(&one);
        ready_fill(&two);
        pthread_t thread;
        void *done = NULL;
        CHECK(!pthread_create(&thread, NULL, at_work, &two));
        CHECK(at_work(&one));
        pthread_join(thread, &done);
        CHECK(done);
        same_bytes(&one, &two, "step.x_next");
        pv_instance_destroy(&two.inst);
    }
    ready_drop(&one);
    pv_weights_destroy(&weights);
    pv_graph_destroy(&wanted);
}

int main(void)
{
    fault_every(attempt, "f32", "plan, weights and instance, f32");
    fault_every(attempt, "bf16", "plan, weights and instance, bf16");
    no_allocation();
    results();
    begins();
    weights_wanted();
    room();
    two_at_work();
    return test_done();
}
