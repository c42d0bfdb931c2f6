#include "runner.h"
#include "base/memory.h"
#include "schedule.h"

#include <string.h>

static pv_status make_plan(pv_runner *r, pv_backend *be, const pv_runner_params *p)
{
    pv_graph *g = NULL;
    pv_plan_params plan = {.steps = p->steps, .expand = p->expand, .hold = p->hold, .hold_user = p->user};
    pv_status st = pv_recipe_find(p->recipe, &plan.recipe);
    if (!st) {
        r->shape.rope_bf16 |= plan.recipe->rope_bf16;
        st = pv_model_build(r->model, &r->shape, &g);
    }
    if (st)
        return st;
    for (int i = 0; p->keep && i < g->n_tensors; i++)
        g->tensors[i]->output |= p->keep(p->user, g->tensors[i]->name);
    if (p->change)
        p->change(p->user, g);
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
    r->n_prefix = -1;
    r->ids = pv_alloc(sizeof *r->ids * (size_t)s->tokens);
    r->table = pv_alloc(pv_mul_size(sizeof(float) * (size_t)p->steps, (size_t)c->expert.width));
    r->positions = pv_alloc(sizeof *r->positions * (size_t)positions);
    r->filled_t = pv_alloc(sizeof(float) * (size_t)p->steps);
    r->filled_dt = pv_alloc(sizeof(float) * (size_t)p->steps);
    pv_status st = r->ids && r->table && r->positions && r->filled_t && r->filled_dt ? PV_OK : PV_E_MEMORY;
    if (!st)
        st = make_plan(r, be, p);
    if (st)
        pv_runner_destroy(&r);
    *out = r;
    return st;
}

void pv_runner_destroy(pv_runner **runner)
{
    pv_runner *r = *runner;
    if (!r)
        return;
    pv_instance_destroy(&r->inst);
    pv_plan_destroy(&r->plan);
    pv_free(r->ids);
    pv_free(r->table);
    pv_free(r->positions);
    pv_free(r->filled_t);
    pv_free(r->filled_dt);
    pv_free(r);
    *runner = NULL;
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

static void forget_prompt(pv_runner *r)
{
    for (int i = 0; i < r->shape.tokens; i++)
        r->ids[i] = -1;
    r->n_prompt = r->n_prefix = -1;
}

pv_status pv_runner_start(pv_runner *r, const pv_weights *weights)
{
    forget_prompt(r);
    pv_status st = pv_instance_create(r->plan, weights, &r->inst);
    return st ? st : write_positions(r, r->prefix_pos, 0);
}

uint8_t *pv_runner_pictures(pv_runner *r)
{
    return pv_instance_map(r->inst, r->images);
}

pv_status pv_runner_images(pv_runner *r, const uint8_t *hwc)
{
    return r->images ? pv_instance_write(r->inst, r->images, 0, hwc, pv_tensor_bytes(r->images)) : PV_OK;
}

/* The rows from the first that is another than before to the last: mostly the end of the prompt, where the state is. */
static pv_status write_rows(pv_runner *r, const int32_t *ids, int n)
{
    int first = 0, end = n;
    while (first < end && r->ids[first] == ids[first])
        first++;
    while (end > first && r->ids[end - 1] == ids[end - 1])
        end--;
    size_t row = pv_tensor_bytes(r->prompt) / (size_t)r->shape.tokens, at = row * (size_t)first;
    char *place = (char *)pv_instance_map(r->inst, r->prompt) + at;
    pv_status st = pv_model_embed(r->model, ids + first, end - first, place);
    if (!st)
        st = pv_instance_write(r->inst, r->prompt, at, place, row * (size_t)(end - first));
    if (!st && n)
        memcpy(r->ids, ids, sizeof *ids * (size_t)n);
    return st;
}

static pv_status write_lengths(pv_runner *r, int n, int prefix)
{
    pv_status st = write_count(r, r->prompt_len, n);
    if (!st)
        st = write_count(r, r->prefix_len, prefix);
    if (!st)
        st = write_count(r, r->kv_len, prefix + r->model->config.horizon);
    return st ? st : write_positions(r, r->suffix_pos, prefix);
}

pv_status pv_runner_prompt(pv_runner *r, const int32_t *ids, int n)
{
    int prefix = r->shape.views * pv_image_tokens(&r->model->config) + n;
    if (n < 0 || n > r->shape.tokens || prefix < 1)
        return pv_fail(PV_E_ARG, "prompt: expected 1 to %d tokens, came %d", r->shape.tokens, n);
    pv_status st = write_rows(r, ids, n);
    if (!st && prefix != r->n_prefix)
        st = write_lengths(r, n, prefix);
    if (st) {
        forget_prompt(r);
        return st;
    }
    r->n_prompt = n;
    r->n_prefix = prefix;
    return PV_OK;
}

pv_status pv_runner_noise(pv_runner *r, const float *x)
{
    return pv_instance_write(r->inst, r->x_t, 0, x, pv_tensor_bytes(r->x_t));
}

pv_status pv_runner_actions(pv_runner *r, float *x)
{
    return pv_instance_read(r->inst, r->x_t, 0, x, pv_tensor_bytes(r->x_t));
}

static uint32_t prefix_stages(const pv_runner *r)
{
    return 1u << PV_STAGE_PREFIX | (r->shape.views ? 1u << PV_STAGE_VISION : 0);
}

pv_status pv_runner_begin(pv_runner *r)
{
    return r->shape.views ? pv_instance_begin(r->inst, 1u << PV_STAGE_VISION) : PV_OK;
}

pv_status pv_runner_abandon(pv_runner *r, pv_status st)
{
    return pv_instance_abandon(r->inst, st);
}

pv_status pv_runner_prefix(pv_runner *r, pv_run_timing *timing)
{
    return pv_instance_run(r->inst, (pv_run){.stages = prefix_stages(r)}, timing);
}

/* Do the tables hold these times? */
static bool filled(const pv_runner *r, const float *t, const float *dt, int n)
{
    size_t bytes = sizeof(float) * (size_t)n;
    return n <= r->n_filled && !memcmp(r->filled_t, t, bytes) && !memcmp(r->filled_dt, dt, bytes);
}

/* What the stage `schedule` makes them of. They are filled once it has run. */
static pv_status write_times(pv_runner *r, const float *t, const float *dt, int n)
{
    const pv_config *c = &r->model->config;
    size_t rows = (size_t)r->plan->program.steps;
    memset(r->table, 0, sizeof(float) * rows * (size_t)c->expert.width); /* every row is computed: none may be stale */
    for (int i = 0; i < n; i++)
        pv_time_embedding(t[i], c->expert.width, c->time_min_period, c->time_max_period,
                          r->table + (size_t)i * (size_t)c->expert.width);
    r->n_filled = 0;
    pv_status st = pv_instance_write(r->inst, r->time_emb, 0, r->table, pv_tensor_bytes(r->time_emb));
    return st ? st : pv_instance_write(r->inst, r->dt, 0, dt, sizeof *dt * (size_t)n);
}

static void set_filled(pv_runner *r, const float *t, const float *dt, int n)
{
    memcpy(r->filled_t, t, sizeof *t * (size_t)n);
    memcpy(r->filled_dt, dt, sizeof *dt * (size_t)n);
    r->n_filled = n;
}

pv_status pv_runner_tables(pv_runner *r, const float *t, const float *dt, int n, pv_run_timing *timing)
{
    if (filled(r, t, dt, n))
        return PV_OK;
    pv_status st = write_times(r, t, dt, n);
    if (!st)
        st = pv_instance_run(r->inst, (pv_run){.stages = 1u << PV_STAGE_SCHEDULE}, timing);
    if (!st)
        set_filled(r, t, dt, n);
    return st;
}

pv_status pv_runner_infer(pv_runner *r, const float *t, const float *dt, int steps, float *actions, pv_run_timing *timing)
{
    pv_status st = PV_OK;
    if (steps > r->plan->program.steps) {
        st = pv_runner_prefix(r, timing);
        if (!st)
            st = pv_runner_denoise(r, t, dt, steps, timing, NULL, NULL);
        return st ? st : pv_runner_actions(r, actions);
    }
    pv_run run = {.stages = prefix_stages(r) | 1u << PV_STAGE_DENOISE, .n_steps = steps, .result = r->x_t, .to = actions};
    bool stale = !filled(r, t, dt, steps);
    if (stale) {
        st = write_times(r, t, dt, steps);
        run.stages |= 1u << PV_STAGE_SCHEDULE;
    }
    if (!st)
        st = pv_instance_run(r->inst, run, timing);
    if (!st && stale)
        set_filled(r, t, dt, steps);
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
