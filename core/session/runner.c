#include "runner.h"
#include "base/memory.h"
#include "schedule.h"

#include <string.h>

static pv_status make_plan(pv_runner *r, pv_backend *be, const pv_runner_params *p)
{
    pv_graph *g = NULL;
    pv_plan_params plan = {.steps = p->steps, .expand = p->expand, .hold = p->hold, .hold_user = p->user};
    pv_status st = pv_recipe_find(p->recipe, &plan.recipe);
    if (!st)
        st = pv_model_build(r->model, &p->shape, &g);
    if (st)
        return st;
    for (int i = 0; p->keep && i < g->n_tensors; i++)
        g->tensors[i]->output |= p->keep(p->user, g->tensors[i]->name);
    const pv_tensor **inputs[] = {&r->images,     &r->prompt,     &r->prompt_len, &r->prefix_len, &r->kv_len,
                                  &r->prefix_pos, &r->suffix_pos, &r->time_emb,   &r->dt,         &r->x_t};
    static const char *const names[] = {"images",        "prompt",        "prompt_len",
                                        "prefix_len",    "kv_len",        "prefix.position_ids",
                                        "step.position_ids", "step.time_emb", "step.dt", "step.x_t"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        *inputs[i] = pv_graph_find(g, names[i]);
    return pv_plan_create(be, &g, &plan, &r->plan);
}

pv_status pv_runner_create(pv_model *model, pv_backend *be, const pv_runner_params *p, pv_runner **out)
{
    *out = NULL;
    const pv_config *c = &model->config;
    const pv_pi05_shape *s = &p->shape;
    if (s->views < 0 || s->views > c->n_cameras || s->tokens < 1 || s->tokens > c->max_tokens || p->steps < 1 ||
        p->steps > PV_MAX_STEPS)
        return pv_fail(PV_E_ARG, "a plan for %d of %d cameras, %d of %d tokens, %d steps", s->views, c->n_cameras,
                       s->tokens, c->max_tokens, p->steps);
    pv_runner *r = pv_alloc_zero(sizeof *r);
    if (!r)
        return PV_E_MEMORY;
    r->model = model;
    r->shape = *s;
    int prefix = s->views * pv_image_tokens(c) + s->tokens;
    int positions = prefix > c->horizon ? prefix : c->horizon;
    r->rows = pv_alloc(pv_mul_size(sizeof(float) * (size_t)s->tokens, (size_t)c->gemma.width));
    r->table = pv_alloc(pv_mul_size(sizeof(float) * (size_t)p->steps, (size_t)c->expert.width));
    r->positions = pv_alloc(sizeof *r->positions * (size_t)positions);
    r->filled_t = pv_alloc(sizeof(float) * (size_t)p->steps);
    r->filled_dt = pv_alloc(sizeof(float) * (size_t)p->steps);
    pv_status st = r->rows && r->table && r->positions && r->filled_t && r->filled_dt ? PV_OK : PV_E_MEMORY;
    if (!st)
        st = make_plan(r, be, p);
    if (st)
        pv_runner_destroy(&r);
    *out = r;
    return st;
}

pv_status pv_runner_start(pv_runner *r, const pv_weights *weights)
{
    return pv_instance_create(r->plan, weights, &r->inst);
}

void pv_runner_destroy(pv_runner **runner)
{
    pv_runner *r = *runner;
    if (!r)
        return;
    pv_instance_destroy(&r->inst);
    pv_plan_destroy(&r->plan);
    pv_free(r->rows);
    pv_free(r->table);
    pv_free(r->positions);
    pv_free(r->filled_t);
    pv_free(r->filled_dt);
    pv_free(r);
    *runner = NULL;
}

pv_status pv_runner_image(pv_runner *r, int view, const float *chw)
{
    size_t bytes = r->images ? pv_tensor_bytes(r->images) / (size_t)r->images->dim[0] : 0;
    return pv_instance_write(r->inst, r->images, bytes * (size_t)view, chw, bytes);
}

static pv_status write_count(pv_runner *r, const pv_tensor *t, int value)
{
    int32_t v = value;
    return pv_instance_write(r->inst, t, 0, &v, sizeof v);
}

static pv_status write_positions(pv_runner *r, const pv_tensor *t, int first)
{
    int n = (int)pv_elements(t);
    for (int i = 0; i < n; i++)
        r->positions[i] = first + i;
    return pv_instance_write(r->inst, t, 0, r->positions, sizeof *r->positions * (size_t)n);
}

pv_status pv_runner_prompt(pv_runner *r, const int32_t *ids, int n)
{
    const pv_config *c = &r->model->config;
    int prefix = r->shape.views * pv_image_tokens(c) + n;
    if (n < 0 || n > r->shape.tokens || prefix < 1)
        return pv_fail(PV_E_ARG, "prompt: expected 1 to %d tokens, came %d", r->shape.tokens, n);
    pv_status st = pv_model_embed(r->model, ids, n, r->rows);
    if (!st)
        st = pv_instance_write(r->inst, r->prompt, 0, r->rows, sizeof(float) * (size_t)n * (size_t)c->gemma.width);
    if (!st)
        st = write_count(r, r->prompt_len, n);
    if (!st)
        st = write_count(r, r->prefix_len, prefix);
    if (!st)
        st = write_count(r, r->kv_len, prefix + c->horizon);
    if (!st)
        st = write_positions(r, r->prefix_pos, 0);
    if (!st)
        st = write_positions(r, r->suffix_pos, prefix);
    r->n_prompt = n;
    r->n_prefix = prefix;
    return st;
}

pv_status pv_runner_noise(pv_runner *r, const float *x)
{
    return pv_instance_write(r->inst, r->x_t, 0, x, pv_tensor_bytes(r->x_t));
}

pv_status pv_runner_actions(pv_runner *r, float *x)
{
    return pv_instance_read(r->inst, r->x_t, 0, x, pv_tensor_bytes(r->x_t));
}

pv_status pv_runner_prefix(pv_runner *r, pv_run_timing *timing)
{
    uint32_t stages = 1u << PV_STAGE_PREFIX | (r->shape.views ? 1u << PV_STAGE_VISION : 0);
    return pv_instance_run(r->inst, (pv_run){.stages = stages}, timing);
}

pv_status pv_runner_tables(pv_runner *r, const float *t, const float *dt, int n, pv_run_timing *timing)
{
    const pv_config *c = &r->model->config;
    size_t bytes = sizeof(float) * (size_t)n, rows = (size_t)r->plan->program.steps;
    if (n <= r->n_filled && !memcmp(r->filled_t, t, bytes) && !memcmp(r->filled_dt, dt, bytes))
        return PV_OK;
    memset(r->table, 0, sizeof(float) * rows * (size_t)c->expert.width); /* every row is computed: none may be stale */
    for (int i = 0; i < n; i++)
        pv_time_embedding(t[i], c->expert.width, c->time_min_period, c->time_max_period,
                          r->table + (size_t)i * (size_t)c->expert.width);
    r->n_filled = 0;
    pv_status st = pv_instance_write(r->inst, r->time_emb, 0, r->table, pv_tensor_bytes(r->time_emb));
    if (!st)
        st = pv_instance_write(r->inst, r->dt, 0, dt, bytes);
    if (!st)
        st = pv_instance_run(r->inst, (pv_run){.stages = 1u << PV_STAGE_SCHEDULE}, timing);
    if (!st) {
        memcpy(r->filled_t, t, bytes);
        memcpy(r->filled_dt, dt, bytes);
        r->n_filled = n;
    }
    return st;
}

pv_status pv_runner_denoise(pv_runner *r, const float *t, const float *dt, int steps, pv_run_timing *timing,
                            pv_status (*on_step)(void *user, int done), void *user)
{
    int rows = r->plan->program.steps;
    pv_status st = on_step ? on_step(user, 0) : PV_OK;
    for (int at = 0; !st && at < steps; at += rows) {
        int n = steps - at < rows ? steps - at : rows;
        st = pv_runner_tables(r, t + at, dt + at, n, timing);
        pv_run run = {.stages = 1u << PV_STAGE_DENOISE, .n_steps = on_step ? 1 : n};
        for (; !st && run.first_step < n; run.first_step += run.n_steps) {
            st = pv_instance_run(r->inst, run, timing);
            if (!st && on_step)
                st = on_step(user, at + run.first_step + 1);
        }
    }
    return st;
}
