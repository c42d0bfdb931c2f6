/* reuse.c - denoising begun from a state of the chunk before, as Falcon does to save steps, in place of
 * noise. Steps that are not run are saved; what they would have made of the new observation is lost.
 *
 * The chunk before is denoised whole, its states kept. Then the observation changes, and the new chunk begins
 * at step k with the old state of that step, as it is or moved on by half a chunk, as a robot that has
 * executed these actions would have it; rows that come in at the end stand between noise and the old chunk's
 * last action, where the flow's own line would have them at that time. A chunk after that begins with the
 * same state again: what k steps made of the first observation is never looked at anew. */
#include "policy.h"
#include "base/memory.h"
#include "session/schedule.h"
#include "session/session.h"

#include <string.h>

typedef struct reuse {
    lab *l;
    int change, chunks;
    size_t n, width; /* numbers of a chunk, of its row */
    float *t, *dt;
    float *state; /* [steps + 1][n]: of the first observation, after so many steps */
    float *truth, *last_truth,
        *other; /* [n]: the next chunk and that after `chunks`, denoised whole; the next from other noise */
    float *start, *actions;
    uint8_t *pixels;
    int32_t *ids;
    pv_runner *r; /* of the steps that are left */
    int k;
} reuse;

/* ---- observations ---- */

/* The observation `far` chunks later: each pixel has moved by up to `change` levels a chunk, the last word
 * with the state in it. */
static pv_status see(reuse *u, int far)
{
    lab_policy *p = u->l->policy;
    size_t n = (size_t)u->l->info.image_size * (size_t)u->l->info.image_size * 3 * (size_t)p->views;
    uint64_t key = pv_hash(u->l->seed, 1);
    for (size_t i = 0; i < n; i++) {
        int by = (int)(pv_hash(key, i) >> 40) % (2 * u->change + 1) - u->change, v = p->pixels[i] + by * far;
        u->pixels[i] = (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v);
    }
    memcpy(u->ids, p->ids, sizeof *u->ids * (size_t)p->n_ids);
    u->ids[p->n_ids - 1] = (p->ids[p->n_ids - 1] + far) % u->l->model->config.vocab;
    pv_status st = pv_runner_images(u->r, u->pixels);
    if (!st)
        st = pv_runner_prompt(u->r, u->ids, p->n_ids);
    return st ? st : pv_runner_prefix(u->r, NULL);
}

/* ---- runs ---- */

static pv_status keep_state(void *user, int done)
{
    reuse *u = user;
    return pv_runner_actions(u->r, u->state + (size_t)done * u->n);
}

static pv_status tail(reuse *u, const float *from, float *to, double *ms)
{
    return lab_denoise_at(u->l, u->r, u->t + u->k, u->dt + u->k, u->l->steps - u->k, from, to, ms);
}

static pv_status timed(void *user, double *ms)
{
    reuse *u = user;
    return tail(u, u->state + (size_t)u->k * u->n, u->actions, ms);
}

static pv_status whole_runs(reuse *u)
{
    lab *l = u->l;
    u->k = 0;
    pv_status st = lab_runner(l, &(pv_runner_params){.steps = l->steps}, &u->r);
    if (!st)
        st = pv_runner_noise(u->r, l->policy->noise);
    if (!st)
        st = pv_runner_denoise(u->r, u->t, u->dt, l->steps, NULL, keep_state, u);
    pv_session_noise(l->seed + 1, u->start, u->n);
    if (!st)
        st = see(u, u->chunks);
    if (!st)
        st = tail(u, l->policy->noise, u->last_truth, NULL);
    if (!st)
        st = see(u, 1);
    if (!st)
        st = tail(u, u->start, u->other, NULL);
    if (!st)
        st = tail(u, l->policy->noise, u->truth, NULL);
    pv_runner_destroy(&u->r);
    return st;
}

/* The state of step k moved on by half a chunk. */
static void move_on(reuse *u)
{
    const float *state = u->state + (size_t)u->k * u->n, *old = u->state + (size_t)u->l->steps * u->n;
    size_t rows = u->n / u->width, by = rows / 2;
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < u->width; j++) {
            float t = u->t[u->k], noise = u->l->policy->noise[i * u->width + j],
                  end = old[(rows - 1) * u->width + j];
            u->start[i * u->width + j] =
                i + by < rows ? state[(i + by) * u->width + j] : t * noise + (1 - t) * end;
        }
}

/* ---- the experiment ---- */

static pv_status one_level(reuse *u, double *whole_ms)
{
    lab *l = u->l;
    lab_row *r = lab_add(l, "%d of %d steps", u->k, l->steps);
    const float *from = u->state + (size_t)u->k * u->n, *old = u->state + (size_t)l->steps * u->n;
    pv_status st = lab_runner(l, &(pv_runner_params){.steps = l->steps - u->k}, &u->r);
    if (!st)
        st = see(u, 1);
    if (!st)
        st = lab_measure(l, r->name, timed, u, &r->time);
    if (!st) {
        r->error = lab_error_f32(u->actions, u->truth, u->n);
        r->value[0].number = lab_error_f32(u->actions, old, u->n);
        *whole_ms = u->k ? *whole_ms : r->time.median;
        r->value[3].number = *whole_ms / r->time.median;
        r->report = l->steps >= 2 * (l->steps - u->k) && l->steps <= 4 * (l->steps - u->k)
                        ? "2-4x, accuracy 0 %"
                        : NULL;
    }
    if (!st && u->k) {
        move_on(u);
        st = tail(u, u->start, u->actions, NULL);
        r->value[1].number = lab_error_f32(u->actions, u->truth, u->n);
    }
    if (!st)
        st = see(u, u->chunks);
    if (!st)
        st = tail(u, from, u->actions, NULL);
    r->value[2].number = lab_error_f32(u->actions, u->last_truth, u->n);
    pv_runner_destroy(&u->r);
    return st;
}

static pv_status levels(reuse *u)
{
    lab *l = u->l;
    double whole_ms = 0;
    const lab_column columns[] = {{"from_old", "from the old chunk", LAB_ERROR},
                                  {"moved_error", "moved on", LAB_ERROR},
                                  {"later_error", lab_text(l, "%d chunks later", u->chunks), LAB_ERROR},
                                  {"speed", "loop's speed", LAB_RATIO},
                                  {NULL}};
    lab_begin_table(
        l, columns,
        "Steps taken from the chunk before; error: of the next chunk, against one denoised whole");
    pv_status st = PV_OK;
    for (u->k = 0; !st && u->k < l->steps; u->k++)
        st = one_level(u, &whole_ms);
    return st;
}

static void conclude(reuse *u)
{
    lab *l = u->l;
    const float *old = u->state + (size_t)l->steps * u->n;
    double stale = lab_error_f32(old, u->truth, u->n), late = lab_error_f32(old, u->last_truth, u->n);
    lab_begin_table(l, NULL, "To compare with");
    lab_add(l, "the old chunk itself, in place of the next")->error = stale;
    lab_add(l, "the old chunk itself, %d chunks later", u->chunks)->error = late;
    lab_add(l, "the next chunk from other noise")->error = lab_error_f32(u->other, u->truth, u->n);
    lab_say(
        l,
        "Reusing 0 steps is the plain run, bit for bit. Each step that is reused saves its time, and is one "
        "that the new "
        "observation has no part in: the more, the nearer is the result to the old chunk, which costs "
        "nothing at all. What "
        "would turn this over is an observation that hardly changes, and there the old chunk does as well.");
    lab_say(l, "Moved on by half a chunk, rows stand where other noise was, and those that came in are a "
               "guess: hold that error to the "
               "one from other noise. Pi0.5 has one time for all rows of a chunk (adaRMS), so a state whose "
               "rows are at different "
               "distances from noise is none that it was trained on.");
    lab_say(l,
            "Here each pixel moves by up to %d of 255 levels a chunk, and the last token by one (--change).",
            u->change);
}

static pv_status work(reuse *u)
{
    lab *l = u->l;
    pv_status st = lab_policy_open(l);
    if (st)
        return st;
    size_t steps = (size_t)l->steps;
    u->n = l->policy->chunk;
    u->width = (size_t)l->info.model_dim;
    u->t = pv_alloc(sizeof *u->t * (2 * steps + 1));
    u->state = pv_alloc(sizeof *u->state * u->n * (steps + 1));
    u->truth = pv_alloc(sizeof *u->truth * u->n * 5);
    u->pixels =
        pv_alloc((size_t)l->info.image_size * (size_t)l->info.image_size * 3 * (size_t)l->policy->views + 1);
    u->ids = pv_alloc(sizeof *u->ids * (size_t)l->info.max_tokens);
    if (!u->t || !u->state || !u->truth || !u->pixels || !u->ids)
        return PV_E_MEMORY;
    u->dt = u->t + steps + 1;
    u->last_truth = u->truth + u->n;
    u->other = u->last_truth + u->n;
    u->start = u->other + u->n;
    u->actions = u->start + u->n;
    st = pv_schedule_times(NULL, l->steps, u->t, u->dt);
    if (!st)
        st = whole_runs(u);
    if (!st)
        st = levels(u);
    if (!st)
        conclude(u);
    return st;
}

int lab_reuse(int argc, char **argv)
{
    lab l;
    reuse u = {.l = &l, .change = 8, .chunks = 5};
    const cli_option options[] = {
        {"change", "N", "levels of 255 by which a pixel moves at most from chunk to chunk\n(default: 8)",
         CLI_INT, &u.change, 0, 255},
        {"chunks", "N", "chunks after which the state is looked at again (default: 5)", CLI_INT, &u.chunks, 1,
         1000},
        {NULL}};
    const lab_command command = {.name = "reuse",
                                 .claim = "The reports: Falcon's reuse of states of earlier chunks makes "
                                          "denoising 2-4x faster at 0 % of the\n"
                                          "accuracy. Kept as the negative result that it is: what each "
                                          "reused step saves, and what it costs.",
                                 .example =
                                     "pivot lab reuse --model synth:tiny\n"
                                     "pivot lab reuse --model DIR --backend cuda --recipe bf16 --change 4",
                                 .options = options,
                                 .uses = LAB_POLICY | LAB_STEPS};
    int code = lab_begin(&l, &command, argc, argv);
    code = lab_end(&l, code, code == CLI_GO ? work(&u) : PV_OK);
    pv_free(u.t);
    pv_free(u.state);
    pv_free(u.truth);
    pv_free(u.pixels);
    pv_free(u.ids);
    return code;
}
