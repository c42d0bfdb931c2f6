/* mask.c - the attention mask that openpi builds for an observation, and packing in its place: tokens that
 * the mask hides are left out, and a count says how many are there (pi05.c).
 *
 * To hold the two together, openpi's layout runs as well: every camera's slot and every token's, absent ones
 * with whatever stands in them, positions by counting the valid ones, and in every attention the mask, added
 * to the scores. That graph is the model's own, with each attention said in three ops and an addition
 * between. */
#include "policy.h"
#include "base/memory.h"
#include "graph/build.h"
#include "session/schedule.h"
#include "session/session.h"

#include <stdio.h>
#include <string.h>

#define HIDDEN (-2.3819763e38f) /* what openpi adds where a key is not to be seen */

typedef struct block { /* tokens that the mask treats alike */
    const char *name;
    int first, n;
    bool there;
} block;

enum { PACKED, UNMASKED, MASKED, N_WAYS };

typedef struct mask {
    lab *l;
    cli_list absent;
    int tokens;
    int image, prefix, horizon, all; /* tokens of a picture; slots of the prefix; of the actions; of both */
    bool *pad;                       /* [all]: is there a token? */
    int *group, *position;           /* [all]: sums of the flags att; and of pad, less one */
    block blocks[PV_MAX_CAMERAS + 3];
    int n_blocks, kept;
    pv_runner *way[N_WAYS];
    uint8_t *pixels; /* of all cameras, black where none is */
    int32_t *ids;    /* [max_tokens], 0 behind the prompt */
    float *t, *want[N_WAYS], *actions;
    double ms[N_WAYS], error[N_WAYS];
} mask;

/* ---- the mask, by openpi's rule ---- */

static bool camera_there(const mask *m, int camera)
{
    const lab_policy *p = m->l->policy;
    for (int v = 0; v < p->views; v++)
        if (p->camera[v] == camera)
            return true;
    return false;
}

static void add_block(mask *m, const char *name, int n, bool there)
{
    block *b = &m->blocks[m->n_blocks], *before = b - 1;
    *b = (block){name, m->n_blocks ? before->first + before->n : 0, n, there};
    for (int i = 0; i < n; i++)
        m->pad[b->first + i] = there;
    m->n_blocks += n > 0;
}

static pv_status build_mask(mask *m)
{
    lab *l = m->l;
    const pv_config *c = &l->model->config;
    int n = l->policy->n_ids;
    m->image = pv_image_tokens(c);
    m->horizon = c->horizon;
    m->prefix = c->n_cameras * m->image + c->max_tokens;
    m->all = m->prefix + m->horizon;
    m->pad = pv_alloc((size_t)m->all);
    m->group = pv_alloc(sizeof *m->group * (size_t)m->all * 2);
    if (!m->pad || !m->group)
        return PV_E_MEMORY;
    m->position = m->group + m->all;
    for (int k = 0; k < c->n_cameras; k++)
        add_block(m, l->info.camera[k], m->image, camera_there(m, k));
    add_block(m, "prompt", n, true);
    add_block(m, "behind the prompt", c->max_tokens - n, false);
    add_block(m, "actions", m->horizon, true);
    for (int i = 0, att = 0, pads = 0; i < m->all; i++) {
        att += i == m->prefix; /* the first action token's flag is 1, all others are 0 */
        pads += m->pad[i];
        m->group[i] = att;
        m->position[i] = pads - 1;
        m->kept += m->pad[i] && i < m->prefix;
    }
    return PV_OK;
}

static bool sees(const mask *m, int query, int key)
{
    return m->group[key] <= m->group[query] && m->pad[query] && m->pad[key];
}

/* '1': each token of the one block sees each of the other; '.': none does; '/': some. */
static char block_sees(const mask *m, const block *query, const block *key)
{
    int64_t n = 0;
    for (int i = 0; i < query->n; i++)
        for (int j = 0; j < key->n; j++)
            n += sees(m, query->first + i, key->first + j);
    return n == 0 ? '.' : n == (int64_t)query->n * key->n ? '1' : '/';
}

static void tell_mask(mask *m)
{
    lab *l = m->l;
    char letters[2 * PV_MAX_CAMERAS + 16] = "";
    for (int i = 0; i < m->n_blocks; i++)
        snprintf(letters + strlen(letters), sizeof letters - strlen(letters), "%s%c", i ? " " : "sees ",
                 'a' + i);
    const lab_column columns[] = {{"slots", "slots", LAB_COUNT},
                                  {"valid", "valid", LAB_COUNT},
                                  {"first_position", "positions", LAB_COUNT},
                                  {"last_position", "to", LAB_COUNT},
                                  {"sees", lab_text(l, "%s", letters), LAB_WORD},
                                  {NULL}};
    lab_begin_table(
        l, columns,
        "The mask that openpi builds (1: every token of the row sees every one of the column; .: none does)");
    for (int i = 0; i < m->n_blocks; i++) {
        const block *b = &m->blocks[i];
        char word[2 * PV_MAX_CAMERAS + 16] = "";
        for (int k = 0; k < m->n_blocks; k++)
            snprintf(word + strlen(word), sizeof word - strlen(word), "%s%c", k ? " " : "",
                     block_sees(m, b, &m->blocks[k]));
        lab_row *r = lab_add(l, "%c %s", 'a' + i, b->name);
        r->value[0].number = b->n;
        r->value[1].number = b->there ? b->n : 0;
        if (b->there) {
            r->value[2].number = m->position[b->first];
            r->value[3].number = m->position[b->first + b->n - 1];
        }
        r->value[4].word = lab_text(l, "%s", word);
        r->report = b->first < m->prefix ? NULL : "causal; all true";
    }
}

/* ---- the three ways ---- */

/* Every attention of prefix and loop as scores, mask added, softmax, values. */
static void add_masks(void *user, pv_graph *g)
{
    const mask *m = user;
    pv_node **old = g->nodes;
    int n_old = g->n_nodes;
    pv_tensor *added[PV_STAGE_COUNT] = {
        [PV_STAGE_PREFIX] = pv_input(g, "mask.prefix", PV_F32, 2, (int64_t[]){m->prefix, m->prefix}, NULL),
        [PV_STAGE_DENOISE] = pv_input(g, "mask.actions", PV_F32, 2, (int64_t[]){m->horizon, m->all}, NULL)};
    g->nodes = NULL;
    g->n_nodes = g->cap_nodes = 0;
    for (int i = 0; i < n_old && !g->status; i++) {
        pv_node *n = old[i];
        if (n->op == PV_OP_ATTENTION && added[n->stage]) {
            g->stage = n->stage;
            pv_tensor *len = n->in[3];
            pv_tensor *s = pv_attention_scores(g, pv_graph_printf(g, "%s.scores", n->name), n->in[0],
                                               n->in[1], len, n->attr.attention);
            s = pv_add(g, pv_graph_printf(g, "%s.masked", n->name), s, added[n->stage]);
            s = pv_softmax(g, pv_graph_printf(g, "%s.weights", n->name), s, len);
            n->op = PV_OP_ATTENTION_VALUES;
            n->in[1] = n->in[2];
            n->in[2] = len;
            n->in[0] = s;
            n->n_in = 3;
        }
        if (!g->status)
            pv_node_append(g, n);
    }
}

/* Keys stand in the cache with those of the actions first. */
static pv_status write_masks(mask *m, pv_runner *r)
{
    float *row = pv_alloc(sizeof *row * (size_t)m->all);
    pv_status st = row ? PV_OK : PV_E_MEMORY;
    const pv_tensor *prefix = pv_graph_find(r->plan->graph, "mask.prefix");
    const pv_tensor *actions = pv_graph_find(r->plan->graph, "mask.actions");
    for (int i = 0; !st && i < m->all; i++) {
        bool suffix = i >= m->prefix;
        const pv_tensor *t = suffix ? actions : prefix;
        int n = 0;
        for (int j = 0; suffix && j < m->horizon; j++)
            row[n++] = sees(m, i, m->prefix + j) ? 0 : HIDDEN;
        for (int j = 0; j < m->prefix; j++)
            row[n++] = sees(m, i, j) ? 0 : HIDDEN;
        size_t bytes = sizeof *row * (size_t)n;
        st = pv_instance_write(r->inst, t, bytes * (size_t)(suffix ? i - m->prefix : i), row, bytes);
    }
    pv_free(row);
    return st;
}

/* openpi's positions. One before the first valid token is -1 there, and nobody's: 0 here, as the table has
 * none before. */
static pv_status write_positions(mask *m, pv_runner *r)
{
    int32_t *at = pv_alloc(sizeof *at * (size_t)m->all);
    if (!at)
        return PV_E_MEMORY;
    for (int i = 0; i < m->all; i++)
        at[i] = m->position[i] < 0 ? 0 : m->position[i];
    pv_status st = pv_instance_write(r->inst, r->prefix_pos, 0, at, sizeof *at * (size_t)m->prefix);
    if (!st)
        st = pv_instance_write(r->inst, r->suffix_pos, 0, at + m->prefix, sizeof *at * (size_t)m->horizon);
    pv_free(at);
    return st;
}

static pv_status feed(mask *m, int way)
{
    const lab_policy *p = m->l->policy;
    pv_runner *r = m->way[way];
    pv_status st = pv_runner_images(r, way == PACKED ? p->pixels : m->pixels);
    if (!st)
        st = pv_runner_prompt(r, way == PACKED ? p->ids : m->ids,
                              way == PACKED ? p->n_ids : m->l->info.max_tokens);
    if (!st && way != PACKED)
        st = write_positions(m, r);
    return !st && way == MASKED ? write_masks(m, r) : st;
}

static pv_status infer(void *user, int way, double *ms)
{
    mask *m = user;
    pv_runner *r = m->way[way];
    pv_run_timing t = {{0}};
    pv_status st = pv_runner_noise(r, m->l->policy->noise);
    if (!st)
        st = pv_runner_infer(r, m->t, m->t + m->l->steps + 1, m->l->steps, m->actions, &t);
    *ms = t.run_ms;
    return st;
}

static pv_status infer_kept(void *user, int way, double *ms)
{
    mask *m = user;
    pv_status st = infer(m, way, ms);
    memcpy(m->want[way], m->actions, sizeof *m->actions * m->l->policy->chunk);
    return st;
}

static pv_status open_way(mask *m, int way)
{
    lab *l = m->l;
    pv_runner_params params = {.shape = {.views = way == PACKED ? l->policy->views : l->info.n_cameras,
                                         .tokens = l->info.max_tokens}};
    if (way == MASKED) {
        params.change = add_masks;
        params.user = m;
    }
    pv_status st = lab_runner_unfed(l, &params, &m->way[way]);
    return st ? st : feed(m, way);
}

static pv_status ways(mask *m)
{
    static const lab_column columns[] = {
        {"prefix_tokens", "prefix tokens", LAB_COUNT}, {"ratio", "of the first", LAB_RATIO}, {NULL}};
    static const char *const names[N_WAYS] = {"packed, a count and no mask", "every slot, no mask",
                                              "every slot, the mask added to the scores"};
    lab *l = m->l;
    lab_time time[N_WAYS];
    pv_status st = PV_OK;
    for (int way = 0; !st && way < N_WAYS; way++)
        st = open_way(m, way);
    if (!st)
        st = lab_measure_ways(l, "whole inferences", N_WAYS, infer_kept, m, time);
    if (st)
        return st;
    lab_begin_table(l, columns, "Whole inferences; error: of the actions, against packed ones");
    for (int way = 0; way < N_WAYS; way++) {
        lab_row *r = lab_add(l, "%s", names[way]);
        r->time = time[way];
        r->value[0].number = m->way[way]->n_prefix;
        m->ms[way] = r->time.median;
        m->error[way] = r->error = lab_error_f32(m->want[way], m->want[PACKED], l->policy->chunk);
        if (way != PACKED)
            r->value[1].number = m->ms[way] / m->ms[PACKED];
    }
    return PV_OK;
}

/* ---- what is dropped does not count ---- */

static pv_status told(mask *m, int way, const char *what, bool dropped, bool *as_said)
{
    double ignored;
    int changed = 0;
    pv_status st = infer(m, way, &ignored);
    size_t n = m->l->policy->chunk;
    for (size_t i = 0; i < n; i++)
        changed += memcmp(&m->actions[i], &m->want[way][i], sizeof *m->actions) != 0;
    lab_row *r = lab_add(m->l, "%s", what);
    r->value[0].number = changed;
    r->value[1].number = (double)n;
    r->error = lab_error_f32(m->actions, m->want[way], n);
    *as_said &= dropped == (changed == 0);
    return st;
}

static pv_status nan_behind_prompt(mask *m, pv_runner *r)
{
    size_t row = pv_tensor_bytes(r->prompt) / (size_t)r->shape.tokens,
           each = pv_dtype_bytes(r->prompt->dtype, 1);
    char *bytes = pv_alloc(row);
    float nan = NAN;
    pv_status st = bytes ? PV_OK : PV_E_MEMORY;
    for (size_t at = 0; !st && at < row; at += each)
        pv_from_f32(bytes + at, &nan, r->prompt->dtype, 1);
    for (int i = m->l->policy->n_ids; !st && i < r->shape.tokens; i++)
        st = pv_instance_write(r->inst, r->prompt, row * (size_t)i, bytes, row);
    pv_free(bytes);
    return st;
}

static pv_status perturb(mask *m)
{
    static const lab_column columns[] = {
        {"changed", "numbers changed", LAB_COUNT}, {"numbers", "of", LAB_COUNT}, {NULL}};
    lab *l = m->l;
    lab_policy *p = l->policy;
    size_t picture = (size_t)l->info.image_size * (size_t)l->info.image_size * 3;
    bool dropped = false, as_said = true;
    pv_status st = PV_OK;
    lab_begin_table(l, columns, "Something else in a token, and the actions");
    if (p->views < l->info.n_cameras) {
        for (int k = 0; k < l->info.n_cameras; k++)
            for (size_t i = 0; !camera_there(m, k) && i < picture; i++)
                m->pixels[picture * (size_t)k + i] = (uint8_t)(pv_hash(l->seed, i) >> 32);
        st = feed(m, MASKED);
        if (!st)
            st = told(m, MASKED, "mask: noise in the slots of absent cameras", true, &as_said);
        dropped = true;
    }
    if (!st && p->n_ids < l->info.max_tokens) {
        for (int i = p->n_ids; i < l->info.max_tokens; i++)
            m->ids[i] = (i * 7 + 1) % l->model->config.vocab;
        st = feed(m, MASKED);
        if (!st)
            st = told(m, MASKED, "mask: words behind the prompt", true, &as_said);
        if (!st)
            st = nan_behind_prompt(m, m->way[PACKED]);
        if (!st)
            st = told(m, PACKED, "packed: NaN behind the prompt", true, &as_said);
        dropped = true;
    }
    if (!st) {
        p->pixels[picture / 2] ^= 0x80;
        st = pv_runner_images(m->way[PACKED], p->pixels);
        p->pixels[picture / 2] ^= 0x80;
    }
    if (!st)
        st = told(m, PACKED, "packed: one pixel of a camera that is there", false, &as_said);
    if (st)
        return st;
    if (!dropped)
        lab_say(l,
                "All cameras are there and the prompt fills its room: nothing is hidden, nothing dropped.");
    else if (as_said)
        lab_say(l, "What the mask hides can be anything, and not one bit of the actions changes: its weight "
                   "in the softmax is exp(-2.4e38), "
                   "which is 0. So leaving it out is exact up to the order of sums.");
    else
        lab_say(l, "NOT as it should be: a token that is hidden or left out changes the actions, or one that "
                   "counts does not.");
    return PV_OK;
}

/* ---- the experiment ---- */

static pv_status drop_absent(mask *m)
{
    lab_policy *p = m->l->policy;
    size_t picture = (size_t)m->l->info.image_size * (size_t)m->l->info.image_size * 3;
    for (int i = 0; i < m->absent.n; i++) {
        int v = 0;
        while (v < p->views && strcmp(m->l->info.camera[p->camera[v]], m->absent.item[i]))
            v++;
        if (v == p->views)
            return pv_fail(PV_E_ARG, "--absent: the model has no camera '%s', or it is absent already",
                           m->absent.item[i]);
        p->views--;
        memmove(&p->camera[v], &p->camera[v + 1], sizeof *p->camera * (size_t)(p->views - v));
        memmove(p->pixels + picture * (size_t)v, p->pixels + picture * (size_t)(v + 1),
                picture * (size_t)(p->views - v));
    }
    return p->views ? PV_OK : pv_fail(PV_E_ARG, "--absent: one camera at least must be there");
}

static pv_status prepare(mask *m)
{
    lab *l = m->l;
    pv_status st = lab_policy_open(l);
    if (!st)
        st = drop_absent(m);
    if (!st)
        st = build_mask(m);
    if (st)
        return st;
    size_t picture = (size_t)l->info.image_size * (size_t)l->info.image_size * 3, n = l->policy->chunk;
    m->pixels = pv_alloc_zero(picture * (size_t)l->info.n_cameras);
    m->ids = pv_alloc_zero(sizeof *m->ids * (size_t)l->info.max_tokens);
    m->t = pv_alloc(sizeof *m->t * (size_t)(2 * l->steps + 1));
    m->actions = pv_alloc(sizeof *m->actions * n * (N_WAYS + 1));
    if (!m->pixels || !m->ids || !m->t || !m->actions)
        return PV_E_MEMORY;
    for (int i = 0; i < N_WAYS; i++)
        m->want[i] = m->actions + n * (size_t)(i + 1);
    for (int v = 0; v < l->policy->views; v++)
        memcpy(m->pixels + picture * (size_t)l->policy->camera[v], l->policy->pixels + picture * (size_t)v,
               picture);
    memcpy(m->ids, l->policy->ids, sizeof *m->ids * (size_t)l->policy->n_ids);
    return pv_schedule_times(NULL, l->steps, m->t, m->t + l->steps + 1);
}

static pv_status work(mask *m)
{
    lab *l = m->l;
    pv_status st = prepare(m);
    if (st)
        return st;
    tell_mask(m);
    st = ways(m);
    if (!st)
        st = perturb(m);
    if (st)
        return st;
    lab_say(l,
            "Packed, the prefix has %d of %d tokens; an inference takes %.2f ms where every slot takes %.2f, "
            "and %.2f with the mask, "
            "whose attention here is separate ops. The masked run ends %.1e from the packed one.",
            m->kept, m->prefix, m->ms[PACKED], m->ms[UNMASKED], m->ms[MASKED], m->error[MASKED]);
    lab_say(l,
            "The actions see each other in full, both ways: the suffix's flags are one 1 and then zeros, and "
            "what counts is their "
            "sum. So the causal suffix of the one report is wrong and the other is right: but \"all true\" "
            "holds for the actions among "
            "themselves. Without the mask and with every slot in place they end %.1e away. A mask-free "
            "kernel is exact once "
            "the tokens are packed; it turns over as soon as anything is padded.",
            m->error[UNMASKED]);
    return PV_OK;
}

int lab_mask(int argc, char **argv)
{
    lab l;
    mask m = {.l = &l};
    const cli_option options[] = {{"absent", "CAM",
                                   "a camera that has no picture; once for each\n(default: the last one; "
                                   "with --image: those that are not named)",
                                   CLI_LIST, &m.absent},
                                  {"prompt-tokens", "N",
                                   "length of a made-up prompt (default: a fifth of the longest)", CLI_INT,
                                   &m.tokens, 1, 1 << 20},
                                  {NULL}};
    const lab_command command = {
        .name = "mask",
        .claim = "The reports: one gives the actions a causal mask; the other finds the mask all true and "
                 "drops it.\n"
                 "Here: the mask for an observation by openpi's rule, the model run with it, and run packed.",
        .example =
            "pivot lab mask --model synth:tiny --absent left_wrist_0_rgb\n"
            "pivot lab mask --model DIR --image base_0_rgb=front.jpg --prompt \"pick up the red block\"",
        .options = options,
        .uses = LAB_SEES | LAB_SEED | LAB_STEPS};
    int code = lab_begin(&l, &command, argc, argv);
    if (code == CLI_GO && m.tokens > l.info.max_tokens)
        code = cli_usage(&l.common, "--prompt-tokens: the model has room for %d, came %d", l.info.max_tokens,
                         m.tokens);
    if (code == CLI_GO && m.absent.n && l.images.n)
        code = cli_usage(&l.common, "--absent goes without --image: a camera without a picture is absent");
    if (code == CLI_GO) {
        l.tokens = m.tokens ? m.tokens : (l.info.max_tokens + 4) / 5;
        if (!m.absent.n && !l.images.n && l.info.n_cameras > 1)
            m.absent = (cli_list){.item = {l.info.camera[l.info.n_cameras - 1]}, .n = 1};
    }
    pv_status st = code == CLI_GO ? work(&m) : PV_OK;
    for (int i = 0; i < N_WAYS; i++)
        pv_runner_destroy(&m.way[i]);
    code = lab_end(&l, code, st);
    pv_free(m.pad);
    pv_free(m.group);
    pv_free(m.pixels);
    pv_free(m.ids);
    pv_free(m.t);
    pv_free(m.actions);
    return code;
}
