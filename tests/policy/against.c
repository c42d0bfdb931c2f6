/* against.c - one backend against another, tensor by tensor: a CPU whose plan is bent at one node is told
 * apart there, in whatever number of rounds; expanding takes a kernel that is not there out of the plan. */
#include "tests/faults.h"
#include "session/session.h"
#include "tools/verify_structure.h"
#include "tools/verify.h"

static pv_backend *cpu, *bent;
static pv_model *model;
static trace_inputs in;

/* What the CPU runs, but for one node: its attribute is another when it is recorded. */
static const char *bent_name;
static pv_op bent_op;

static pv_status bent_record(pv_backend *be, const pv_program *prog, const pv_buffers *bufs,
                             pv_recording **out)
{
    for (int i = 0; bent_name && i < prog->graph->n_nodes; i++) {
        pv_node *n = prog->graph->nodes[i];
        if (strncmp(n->name, bent_name, strlen(bent_name)) || n->op != bent_op)
            continue;
        if (n->op == PV_OP_ATTENTION_SCORES)
            n->attr.attention.scale *= 1.001f;
        else
            n->attr.norm.eps *= 100;
    }
    return pv_cpu_backend.record(be, prog, bufs, out);
}

/* Claims a composite that it cannot run. */
static bool claims_geglu(const pv_backend *be, const pv_node *n)
{
    return n->op == PV_OP_GEGLU || pv_cpu_backend.claims(be, n);
}

static pv_status refuse_geglu(pv_backend *be, const pv_program *prog, const pv_buffers *bufs,
                              pv_recording **out)
{
    for (int i = 0; i < prog->graph->n_nodes; i++)
        if (prog->graph->nodes[i]->op == PV_OP_GEGLU)
            return pv_fail(PV_E_DEVICE, "no kernel for '%s'", prog->graph->nodes[i]->name);
    return pv_cpu_backend.record(be, prog, bufs, out);
}

/* All steps but the last, where there are several in a row. */
static pv_status short_submit(pv_recording *rec, const pv_run *run)
{
    pv_run fewer = *run;
    fewer.n_steps -= fewer.n_steps > 1;
    return pv_cpu_backend.submit(rec, &fewer);
}

static verify_report compared(const against_params *p)
{
    verify_report r = {0};
    CHECK_OK(verify_against(model, bent, cpu, p, NULL, NULL, &r));
    return r;
}

static const verify_entry *entry(const verify_report *r, const char *name)
{
    for (int i = 0; i < r->n_entries; i++)
        if (!strcmp(r->entries[i].name, name))
            return &r->entries[i];
    CHECK(!"an entry of this name");
    printf("    %s\n", name);
    return r->entries;
}

/* Everything before the bent node has the reference's bytes, the node has not. */
static void check_bend(const char *name, pv_op op, const char *first, int first_step, size_t hold)
{
    bent_name = name;
    bent_op = op;
    verify_report r = compared(
        &(against_params){.in = &in, .recipe = "f32", .ref_recipe = "f32", .steps = 3, .hold_bytes = hold});
    CHECK(r.exact && r.n_compared > 150 && r.n_failed > 0);
    CHECK(hold > 1 << 20 ? r.rounds == 1 : r.rounds > 3);
    if (!CHECK(r.first_failed && !strcmp(r.first_failed->name, first) && r.first_step == first_step))
        printf("    %s: named %s in step %d\n", name, r.first_failed ? r.first_failed->name : "nothing",
               r.first_step);
    for (int i = 0; r.first_failed && &r.entries[i] != r.first_failed; i++)
        CHECK(first_step >= 0 || (r.entries[i].same_bytes && r.entries[i].relative_l2 == 0));
    if (r.first_failed)
        CHECK(r.first_failed->relative_l2 > 1e-7 && r.first_failed->relative_l2 < 1e-1 &&
              r.first_failed->worst >= 0);
    CHECK(!entry(&r, "step.x_next")->ok && entry(&r, "vision.layer0.q")->ok);
    CHECK(r.n_compared - r.n_failed == r.n_same);
    verify_free(&r);
    bent_name = NULL;
}

static void rounds_do_not_matter(void)
{
    against_params p = {.in = &in,
                        .recipe = "bf16",
                        .ref_recipe = "f32",
                        .steps = 3,
                        .bound = 1e-3,
                        .hold_bytes = (size_t)1 << 30};
    verify_report one = compared(&p);
    p.hold_bytes = 1; /* a round for each op */
    verify_report many = compared(&p);
    CHECK(one.rounds == 1 && many.rounds == many.n_local && one.n_entries == many.n_entries && !one.exact);
    CHECK(one.n_local == many.n_local && one.n_local > 190 && one.n_local_failed == 0 &&
          many.n_local_failed == 0);
    CHECK(one.first_failed && many.first_failed && !strcmp(one.first_failed->name, many.first_failed->name));
    CHECK(one.n_failed == many.n_failed && one.n_failed < one.n_compared);
    for (int i = 0; i < one.n_entries && i < many.n_entries; i++) {
        const verify_entry *a = &one.entries[i], *b = &many.entries[i];
        if (!CHECK(a->state == b->state && a->relative_l2 == b->relative_l2 && a->worst == b->worst &&
                   a->step == b->step && a->max_abs == b->max_abs &&
                   a->ok == (a->relative_l2 <= 1e-3 || !strcmp(a->op, "constant"))))
            printf("    %s: %g, %g\n", a->name, a->relative_l2, b->relative_l2);
        /* whatever came to an op, by itself it is the CPU's to the bit, in both */
        if (!CHECK(a->local.there == b->local.there &&
                   (!a->local.there ||
                    (a->local.d.same_bytes && b->local.d.same_bytes && a->local.limit == b->local.limit))))
            printf("    %s by itself: %g, %g\n", a->name, a->local.d.relative_l2, b->local.d.relative_l2);
    }
    verify_free(&one);
    verify_free(&many);
}

/* Memory that is full of NaN: what stands behind valid rows and keys, and in rows of the cache that nobody
 * stored. */
static pv_status alloc_nan(pv_backend *be, size_t bytes, pv_usage usage, pv_buffer **out)
{
    pv_status st = pv_cpu_backend.alloc(be, bytes, usage, out);
    void *ones = malloc(bytes);
    memset(ones, 0xff, bytes);
    if (!st)
        st = pv_cpu_backend.write(be, *out, 0, ones, bytes);
    free(ones);
    return st;
}

static void only_what_is_valid(void)
{
    verify_report r = compared(&(against_params){
        .in = &in, .recipe = "f32", .ref_recipe = "f32", .steps = 1, .hold_bytes = (size_t)1 << 30});
    CHECK(r.n_failed == 0 && r.n_compared == r.n_same && r.prompt_tokens == 5 && r.views == 2);
    CHECK(entry(&r, "prefix.layer0.k_cache")->state == VERIFY_COMPARED);
    CHECK(entry(&r, "actions, steps in a row")->same_bytes && entry(&r, "step.ada_final")->same_bytes);
    CHECK(entry(&r, "step.ada_final[step]")->state == VERIFY_NOT_COMPARED);
    CHECK(entry(&r, "prefix.layer0.attn/softmax")->state == VERIFY_COMPARED);
    CHECK(!strcmp(entry(&r, "prompt_len")->op, "input") && entry(&r, "prompt")->same_bytes &&
          entry(&r, "images")->same_bytes);
    for (int i = 0; i < r.n_entries;
         i++) /* NaN came to no op, and every op was run by itself but for what is read in place */
        CHECK(r.entries[i].local.there
                  ? r.entries[i].local.d.same_bytes && r.entries[i].local.d.finite
                  : !r.entries[i].op || r.entries[i].state == VERIFY_NOT_COMPARED || r.entries[i].step < 0);
    verify_free(&r);
}

/* The error of a recipe is apart from that of kernels: the plans are of one recipe, and beside the CPU's f32
 * both are off. */
static void recipe_apart(void)
{
    verify_report r = compared(&(against_params){
        .in = &in, .recipe = "bf16", .ref_recipe = "bf16", .steps = 2, .hold_bytes = (size_t)1 << 30});
    const verify_entry *act = entry(&r, "step.layer1.act"), *end = entry(&r, "step.x_next");
    CHECK(r.has_recipe && r.n_failed == 0 && r.n_same == r.n_compared);
    CHECK(act->recipe.there && act->recipe.d.relative_l2 > 1e-4 && act->recipe.d.relative_l2 < 3e-2 &&
          act->recipe.step >= 0);
    for (int k = 0; k < 2; k++)
        CHECK(end->curve[VERIFY_SUM][k] == 0 && end->curve[VERIFY_LOCAL][k] == 0 &&
              end->curve[VERIFY_RECIPE][k] > 1e-5);
    verify_free(&r);
}

static void steps_in_a_row(void)
{
    verify_report r = compared(&(against_params){
        .in = &in, .recipe = "f32", .ref_recipe = "f32", .steps = 3, .hold_bytes = (size_t)1 << 30});
    CHECK(r.n_failed == 1 && r.first_failed && r.first_failed == entry(&r, "actions, steps in a row") &&
          r.first_step == -1);
    CHECK(entry(&r, "step.x_next")->ok);
    verify_free(&r);
}

static pv_status attempt(bool structure)
{
    against_params p = {
        .in = &in, .recipe = "bf16", .ref_recipe = "bf16", .steps = 1, .hold_bytes = (size_t)1 << 30};
    verify_report r = {0};
    structure_report s;
    pv_status st = structure ? verify_structure(model, bent, &in, "bf16", 0, 1, NULL, NULL, &s)
                             : verify_against(model, bent, cpu, &p, NULL, NULL, &r);
    verify_free(&r);
    return st;
}

/* Many an allocation fails once, all over the run: a status, and nothing is kept. */
static void without_memory(bool structure)
{
    const int64_t before = pv_alloc_live();
    int failed = 0;
    for (long k = 0; k < 1000000; k = k < 40 ? k + 1 : k + 71) {
        fault_countdown = k;
        pv_status st = attempt(structure);
        bool met = fault_countdown < 0;
        fault_countdown = -1;
        if (!CHECK(st == (met ? PV_E_MEMORY : PV_OK)) || !CHECK(pv_alloc_live() == before)) {
            printf("    allocation %ld: %s\n", k, pv_error_text());
            break;
        }
        failed += met;
        if (!met)
            break;
    }
    printf("%d allocations failed\n", failed);
    CHECK(failed > 40);
}

int main(void)
{
    const pv_allocator failing = {sizeof failing, NULL, fault_alloc, fault_release};
    CHECK_OK(pv_set_allocator(&failing));
    CHECK_OK(pv_backend_open("cpu", &(pv_backend_params){.threads = 2}, &cpu));
    CHECK_OK(pv_backend_open("cpu", &(pv_backend_params){.threads = 2}, &bent));
    CHECK_OK(pv_model_load("synth:tiny", NULL, &model));
    if (!cpu || !bent || !model)
        return test_done();
    CHECK_OK(trace_made_up(&model->config, 2, 5, &in));
    pv_backend_vt vt = pv_cpu_backend;
    bent->vt = &vt;

    vt.alloc = alloc_nan;
    only_what_is_valid();
    recipe_apart();
    vt.alloc = pv_cpu_backend.alloc;
    without_memory(false);
    without_memory(true);
    vt.alloc = pv_cpu_backend.alloc;
    vt.record = bent_record;
    for (int big = 0; big < 2; big++) {
        size_t hold = big ? (size_t)1 << 30 : 200000;
        check_bend("prefix.layer1.mlp_norm", PV_OP_RMS_NORM, "prefix.layer1.mlp_norm", -1, hold);
        check_bend("prefix.layer1.attn/", PV_OP_ATTENTION_SCORES, "prefix.layer1.attn/attention_scores", -1,
                   hold);
        check_bend("step.layer1.mlp_norm/", PV_OP_RMS_NORM, "step.layer1.mlp_norm/rms_norm", 0, hold);
    }
    rounds_do_not_matter();
    vt.record = pv_cpu_backend.record;
    vt.submit = short_submit;
    steps_in_a_row();
    vt.submit = pv_cpu_backend.submit;

    vt.record = refuse_geglu;
    vt.claims = claims_geglu;
    against_params p = {
        .in = &in, .recipe = "f32", .ref_recipe = "f32", .steps = 1, .hold_bytes = (size_t)1 << 30};
    verify_report r = {0};
    CHECK_STATUS(verify_against(model, bent, cpu, &p, NULL, NULL, &r), PV_E_DEVICE);
    verify_free(&r);
    p.expand = UINT64_C(1) << PV_OP_GEGLU;
    r = compared(&p);
    CHECK(r.n_failed == 0 && r.n_same == r.n_compared && r.n_compared > 150);
    verify_free(&r);
    pv_session *s = NULL; /* and in a session, as `run` and `bench` have it */
    CHECK_STATUS(pv_session_create(model, bent, NULL, &s), PV_E_DEVICE);
    CHECK_OK(pv_session_create_expanded(model, bent, NULL, p.expand, &s));
    pv_session_destroy(&s);

    bent->vt = &pv_cpu_backend;
    trace_free_inputs(&in);
    pv_model_free(&model);
    pv_backend_close(&bent);
    pv_backend_close(&cpu);
    CHECK_OK(pv_set_allocator(NULL));
    return test_done();
}
