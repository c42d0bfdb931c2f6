/* inspect.c - what a checkpoint is and what would become of it. No weight is read. */
#include "cli.h"
#include "planning.h"
#include "base/memory.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

typedef struct inspect {
    cli_options common;
    bool tensors, plan, memory;
    const char *graph, *pass, *robot;
    int views, tokens, steps;
    pv_model *model;
    pv_robot *of_folder; /* NULL: its processors say nothing */
    pv_robot_info about;
    pv_backend *backend;
    planning planning;
} inspect;

/* ---- tensors: of a checkpoint, of the model where it has none, or of any file ---- */

typedef struct line {
    const char *name, *dtype, *fate;
    int n_dims;
    const int64_t *dim;
    uint64_t bytes;
} line;

typedef struct lines {
    line *line;
    int n;
    uint64_t bytes;
} lines;

static line line_of_file(const pv_st_tensor *t, const char *fate)
{
    return (line){t->name, t->dtype_name, fate, t->n_dims, t->dim, t->bytes};
}

static pv_status file_lines(const pv_safetensors *file, lines *out)
{
    int n = pv_safetensors_count(file);
    out->line = pv_alloc(sizeof *out->line * (size_t)(n + 1));
    for (int i = 0; out->line && i < n; i++)
        out->line[out->n++] = line_of_file(pv_safetensors_at(file, i), "");
    return out->line ? PV_OK : PV_E_MEMORY;
}

static pv_status checkpoint_lines(const pv_checkpoint *c, lines *out)
{
    const pv_st_tensor *t;
    int n = 0;
    while (pv_checkpoint_fate(c, n, &t))
        n++;
    out->line = pv_alloc(sizeof *out->line * (size_t)(n + 1));
    for (const char *fate; out->line && (fate = pv_checkpoint_fate(c, out->n, &t));)
        out->line[out->n++] = line_of_file(t, fate);
    return out->line ? PV_OK : PV_E_MEMORY;
}

static pv_status synthetic_lines(const pv_model *m, int64_t table_dim[2], lines *out)
{
    const pv_graph *g = m->wanted;
    pv_dtype dtype = m->source.stored_dtype(m->source.user, PV_EMBEDDING_NAME);
    out->line = pv_alloc(sizeof *out->line * (size_t)(g->n_tensors + 1));
    if (!out->line)
        return PV_E_MEMORY;
    table_dim[0] = m->config.vocab;
    table_dim[1] = m->config.gemma.width;
    out->line[out->n++] =
        (line){PV_EMBEDDING_NAME, pv_dtype_name(dtype),
               "embedding table", 2,
               table_dim,         pv_dtype_bytes(dtype, (size_t)(table_dim[0] * table_dim[1]))};
    for (int i = 0; i < g->n_tensors; i++) {
        const pv_tensor *t = g->tensors[i];
        dtype = m->source.stored_dtype(m->source.user, t->name);
        if (t->usage == PV_WEIGHT)
            out->line[out->n++] = (line){t->name,  pv_dtype_name(dtype),
                                         "weight", t->n_dims,
                                         t->dim,   pv_dtype_bytes(dtype, (size_t)pv_elements(t))};
    }
    return PV_OK;
}

/* "f32 2, bf16 811" */
static void count_dtypes(const lines *l, char *text, size_t size)
{
    text[0] = 0;
    for (int i = 0; i < l->n; i++) {
        int n = 0;
        bool first = true;
        for (int k = 0; k < l->n; k++)
            if (!strcmp(l->line[k].dtype, l->line[i].dtype)) {
                n++;
                first &= k >= i;
            }
        size_t used = strlen(text);
        if (first)
            snprintf(text + used, size - used, "%s%d %s", used ? ", " : "", n, l->line[i].dtype);
    }
}

static void shape_text(const line *l, char *text, size_t size)
{
    size_t used = (size_t)snprintf(text, size, "[");
    for (int i = 0; i < l->n_dims && used < size; i++)
        used += (size_t)snprintf(text + used, size - used, i ? ", %lld" : "%lld", (long long)l->dim[i]);
    if (used < size)
        snprintf(text + used, size - used, "]");
}

static void print_lines(const lines *l)
{
    int name_width = 4, shape_width = 5;
    char shape[200];
    for (int i = 0; i < l->n; i++) {
        int n = (int)strlen(l->line[i].name);
        name_width = n > name_width ? n : name_width;
        shape_text(&l->line[i], shape, sizeof shape);
        n = (int)strlen(shape);
        shape_width = n > shape_width ? n : shape_width;
    }
    printf("\n  %-*s  %-5s %-*s %9s  %s\n", name_width, "tensor", "dtype", shape_width, "shape", "bytes",
           l->n && *l->line[0].fate ? "fate" : "");
    for (int i = 0; i < l->n; i++) {
        cli_text bytes;
        shape_text(&l->line[i], shape, sizeof shape);
        printf("  %-*s  %-5s %-*s %9s%s%s\n", name_width, l->line[i].name, l->line[i].dtype, shape_width,
               shape, cli_bytes(&bytes, l->line[i].bytes), *l->line[i].fate ? "  " : "", l->line[i].fate);
    }
}

static void json_lines(cJSON *json, const lines *l)
{
    cJSON *array = cJSON_AddArrayToObject(json, "tensors");
    for (int i = 0; i < l->n; i++) {
        cJSON *t = cJSON_CreateObject(), *shape;
        cJSON_AddStringToObject(t, "name", l->line[i].name);
        cJSON_AddStringToObject(t, "dtype", l->line[i].dtype);
        shape = cJSON_AddArrayToObject(t, "shape");
        for (int d = 0; d < l->line[i].n_dims; d++)
            cJSON_AddItemToArray(shape, cJSON_CreateNumber((double)l->line[i].dim[d]));
        cJSON_AddItemToObject(t, "bytes", cli_json_u64(l->line[i].bytes));
        if (*l->line[i].fate)
            cJSON_AddStringToObject(t, "fate", l->line[i].fate);
        cJSON_AddItemToArray(array, t);
    }
}

static void sum_bytes(lines *l)
{
    for (int i = 0; i < l->n; i++)
        l->bytes += l->line[i].bytes;
}

/* ---- statistics ---- */

static void print_norm(const char *what, const pv_norm *n)
{
    printf("\n%s, %d dims", what, n->dim);
    if (n->padded_dim > n->dim)
        printf(" (%d in the file; the rest is padding)", n->padded_dim);
    const bool ends = n->mode == PV_NORM_RANGE && n->mode_name && strcmp(n->mode_name, "QUANTILES");
    const double *const columns[] = {ends ? n->low : n->q01, ends ? n->high : n->q99, n->mean, n->std};
    if (n->mode != PV_NORM_OPENPI)
        printf(", %s of lerobot", n->mode_name);
    printf("\n  dim%12s%12s%12s%12s\n", ends ? "at -1" : "q01", ends ? "at 1" : "q99", "mean", "std");
    for (int i = 0; i < n->dim; i++) {
        printf("  %3d", i);
        for (int k = 0; k < 4; k++)
            if (columns[k])
                printf("%12.5g", columns[k][i]);
            else
                printf("%12s", "-");
        putchar('\n');
    }
}

static void json_vector(cJSON *json, const char *name, const double *x, int n)
{
    if (x)
        cJSON_AddItemToObject(json, name, cJSON_CreateDoubleArray(x, n));
}

static void json_norm(cJSON *json, const char *what, const pv_norm *n)
{
    cJSON *o = cJSON_AddObjectToObject(json, what);
    cJSON_AddNumberToObject(o, "dim", n->dim);
    cJSON_AddNumberToObject(o, "padded_dim", n->padded_dim);
    if (n->mode != PV_NORM_OPENPI) {
        cJSON_AddStringToObject(o, "mode", n->mode_name);
        cJSON_AddNumberToObject(o, "eps", (double)n->eps);
        json_vector(o, "low", n->low, n->dim);
        json_vector(o, "high", n->high, n->dim);
    }
    json_vector(o, "q01", n->q01, n->dim);
    json_vector(o, "q99", n->q99, n->dim);
    json_vector(o, "mean", n->mean, n->dim);
    json_vector(o, "std", n->std, n->dim);
}

/* ---- the model ---- */

static const char *rule_name(const pv_model *m)
{
    if (m->stats->state.mode != PV_NORM_OPENPI)
        return "the rules of lerobot";
    return m->rule == PV_NORM_ZSCORE ? "mean and deviation" : "quantiles";
}

static void print_gemma(const char *what, const pv_gemma_config *c)
{
    printf("%-12sGemma of width %d, %d layers, %d heads of %d (%d for K and V), MLP %d\n", what, c->width,
           c->depth, c->heads, c->head_dim, c->kv_heads, c->mlp_dim);
}

static void print_model(const inspect *in, const lines *l)
{
    const pv_model *m = in->model;
    const pv_config *c = &m->config;
    cli_text count, bytes;
    char dtypes[160];
    count_dtypes(l, dtypes, sizeof dtypes);
    printf("model       %s\n", in->common.model);
    printf("layout      %s\n", m->layout);
    printf("parameters  %s\n", cli_count(&count, m->parameters));
    printf("tensors     %d (%s), %s\n", l->n, dtypes, cli_bytes(&bytes, l->bytes));
    printf("vision      SigLIP of width %d, %d layers, %d heads, MLP %d; %d x %d pixels, patches of %d: %d "
           "tokens\n",
           c->vision.width, c->vision.depth, c->vision.heads, c->vision.mlp_dim, c->vision.image,
           c->vision.image, c->vision.patch, pv_image_tokens(c));
    print_gemma("prefix", &c->gemma);
    print_gemma("expert", &c->expert);
    printf("chunk       %d steps of %d dims, by %d steps of denoising\n", c->horizon, c->action_dim,
           c->num_steps);
    printf("cameras     ");
    for (int i = 0; i < c->n_cameras; i++)
        printf("%s%s", i ? ", " : "", c->camera[i]);
    printf("\nprompt      at most %d tokens of %d; the state is %s\n", c->max_tokens, c->vocab,
           c->discrete_state ? "told in it as digits" : "not told");
    if (m->tokenizer)
        printf("tokenizer   %s, %d pieces\n", m->tokenizer_path ? m->tokenizer_path : "embedded",
               pv_tokenizer_vocab(m->tokenizer));
    else
        printf("tokenizer   none: token ids only (--tokens), or give one (--tokenizer FILE)\n");
    if (m->stats)
        printf("statistics  %s, applied by %s\n", m->stats_path ? m->stats_path : "embedded", rule_name(m));
    else
        printf("statistics  none: actions come in model units; give some (--norm-stats FILE)\n");
    if (!m->stats)
        return;
    print_norm("state", &m->stats->state);
    print_norm("actions", &m->stats->actions);
}

static void print_robot(const pv_robot_info *r)
{
    printf("robot       %s%s%s\n", r->name, *r->about ? ": " : "", r->about);
    for (int i = 0; i < r->n_cameras; i++)
        printf("camera      %-18s %s%s\n", r->slot[i], r->key[i] ? r->key[i] : "absent",
               r->optional[i] ? ", may be missing" : "");
    printf("state       %d numbers\n", r->state_dim);
    for (int i = 0; i < r->n_state_keys; i++)
        printf("            %-4d %s\n", r->state_key_dim[i], r->state_key[i]);
    printf("prompt      %s%s%s%s\n", r->prompt_key, r->default_prompt ? ", without it \"" : "",
           r->default_prompt ? r->default_prompt : "", r->default_prompt ? "\"" : "");
    printf("actions     %d numbers%s\n\n%s%s", r->action_dim, r->delta ? ", some relative to the state" : "",
           r->json, r->json[strlen(r->json) - 1] == '\n' ? "" : "\n");
}

static void json_model(cJSON *json, const inspect *in, const lines *l)
{
    const pv_model *m = in->model;
    cJSON_AddStringToObject(json, "layout", m->layout);
    cJSON_AddItemToObject(json, "parameters", cli_json_u64(m->parameters));
    cJSON_AddNumberToObject(json, "tensor_count", l->n);
    if (in->of_folder)
        cJSON_AddItemToObject(json, "robot", cJSON_Parse(in->about.json));
    cJSON_AddItemToObject(json, "tensor_bytes", cli_json_u64(l->bytes));
    char *config = pv_config_text(&m->config);
    cJSON_AddItemToObject(json, "config", config ? cJSON_Parse(config) : NULL);
    pv_free(config);
    if (m->tokenizer) {
        cJSON *t = cJSON_AddObjectToObject(json, "tokenizer");
        cJSON_AddStringToObject(t, "file", m->tokenizer_path ? m->tokenizer_path : "embedded");
        cJSON_AddNumberToObject(t, "pieces", pv_tokenizer_vocab(m->tokenizer));
    }
    if (m->stats) {
        cJSON *s = cJSON_AddObjectToObject(json, "statistics");
        cJSON_AddStringToObject(s, "file", m->stats_path ? m->stats_path : "embedded");
        cJSON_AddStringToObject(s, "rule",
                                m->stats->state.mode != PV_NORM_OPENPI ? "lerobot"
                                : m->rule == PV_NORM_ZSCORE            ? "zscore"
                                                                       : "quantile");
        json_norm(s, "state", &m->stats->state);
        json_norm(s, "actions", &m->stats->actions);
    }
}

/* ---- the plan ---- */

static const struct {
    pv_usage usage;
    const char *name, *words;
} buffers[] = {
    {PV_WEIGHT, "weights", "on the device, shared by sessions"},
    {PV_STATE, "state", ""},
    {PV_SCRATCH, "scratch", "laid out by lifetimes, used again and again"},
    {PV_IO, "io", "pictures, prompt, counts, times"},
    {PV_CONST, "const", "table of positions"},
};
#define N_BUFFERS ((int)(sizeof buffers / sizeof *buffers))

static void print_buffer(const char *name, uint64_t bytes, const char *words)
{
    cli_text exact, about;
    printf("  %-10s%16s%12s%s%s\n", name, cli_count(&exact, bytes), cli_bytes(&about, bytes),
           *words ? "   " : "", words);
}

static void print_memory(const inspect *in)
{
    const planning *p = &in->planning;
    uint64_t sum = p->table_bytes;
    printf("\nmemory of one plan: %d views, %d prompt tokens, tables of %d steps, recipe %s on %s\n",
           in->views, in->tokens, in->steps, in->common.recipe ? in->common.recipe : "f32",
           pv_backend_name(in->backend));
    printf("  %-10s%16s\n", "buffer", "bytes");
    for (int i = 0; i < N_BUFFERS; i++) {
        char words[96];
        cli_text cache;
        snprintf(words, sizeof words, "%s", buffers[i].words);
        if (buffers[i].usage == PV_STATE)
            snprintf(words, sizeof words, "%s of it K and V; tables of the times",
                     cli_bytes(&cache, p->cache_bytes));
        print_buffer(buffers[i].name, p->bytes[buffers[i].usage], words);
        sum += p->bytes[buffers[i].usage];
    }
    print_buffer("embedding", p->table_bytes, "table, on the host, shared by sessions");
    print_buffer("all", sum, "");
}

static void print_changes(const planning_pass *now, const planning_pass *before)
{
    const char *between = "";
    for (int op = 0; before && op < PV_OP_COUNT; op++) {
        int change = now->op_nodes[op] - before->op_nodes[op];
        if (change)
            printf("%s%+d %s", between, change, pv_ops[op].name);
        between = change ? ", " : between;
    }
    if (before && !*between)
        printf("%s", now->weight_bytes != before->weight_bytes ? "dtypes" : "-");
}

static void print_passes(const inspect *in)
{
    const planning *p = &in->planning;
    printf("\nplan: nodes after each pass\n  %-8s%7s", "pass", "nodes");
    for (int s = 0; s < PV_STAGE_COUNT; s++)
        printf("%10s", pv_stage_name((pv_stage)s));
    printf("%12s   changes\n", "weights");
    for (int i = 0; i < p->n_passes; i++) {
        const planning_pass *pass = &p->pass[i];
        cli_text bytes;
        printf("  %-8s%7d", pass->name, pass->nodes);
        for (int s = 0; s < PV_STAGE_COUNT; s++)
            printf("%10d", pass->stage_nodes[s]);
        printf("%12s   ", cli_bytes(&bytes, pass->weight_bytes));
        print_changes(pass, i ? &p->pass[i - 1] : NULL);
        putchar('\n');
    }
}

static void json_plan(cJSON *json, const inspect *in)
{
    const planning *p = &in->planning;
    if (in->plan) {
        cJSON *passes = cJSON_AddArrayToObject(json, "passes");
        for (int i = 0; i < p->n_passes; i++) {
            cJSON *pass = cJSON_CreateObject(), *ops;
            cJSON_AddStringToObject(pass, "pass", p->pass[i].name);
            cJSON_AddNumberToObject(pass, "nodes", p->pass[i].nodes);
            for (int s = 0; s < PV_STAGE_COUNT; s++)
                cJSON_AddNumberToObject(pass, pv_stage_name((pv_stage)s), p->pass[i].stage_nodes[s]);
            cJSON_AddItemToObject(pass, "weight_bytes", cli_json_u64(p->pass[i].weight_bytes));
            ops = cJSON_AddObjectToObject(pass, "ops");
            for (int op = 0; op < PV_OP_COUNT; op++)
                if (p->pass[i].op_nodes[op])
                    cJSON_AddNumberToObject(ops, pv_ops[op].name, p->pass[i].op_nodes[op]);
            cJSON_AddItemToArray(passes, pass);
        }
    }
    if (in->memory) {
        cJSON *memory = cJSON_AddObjectToObject(json, "memory_bytes");
        for (int i = 0; i < N_BUFFERS; i++)
            cJSON_AddItemToObject(memory, buffers[i].name, cli_json_u64(p->bytes[buffers[i].usage]));
        cJSON_AddItemToObject(memory, "host", cli_json_u64(p->table_bytes));
    }
    if (p->text)
        cJSON_AddStringToObject(json, in->graph ? "graph" : "plan", p->text);
}

/* ---- the command ---- */

static bool is_file(const char *path)
{
    struct stat s;
    return !stat(path, &s) && S_ISREG(s.st_mode);
}

/* A file of tensors without a config: a trace, or weights alone. */
static int inspect_file(const inspect *in)
{
    if (in->graph || in->plan || in->memory)
        return cli_usage(&in->common,
                         "%s: a file of tensors does not say its dimensions; give them (--config FILE)",
                         in->common.model);
    pv_safetensors *file = NULL;
    lines l = {NULL};
    pv_status st = pv_safetensors_open(in->common.model, &file);
    if (!st)
        st = file_lines(file, &l);
    int code = st ? cli_fail(&in->common, st) : CLI_OK;
    sum_bytes(&l);
    const char *kind = st ? "" : pv_safetensors_find(file, "in.noise") ? "trace" : "tensors";
    if (!st && in->common.json) {
        cJSON *json = cli_json("pivot.inspect/1");
        cJSON_AddStringToObject(json, "model", in->common.model);
        cJSON_AddStringToObject(json, "layout", kind);
        json_lines(json, &l);
        code = cli_json_print(&in->common, json);
    } else if (!st) {
        cli_text bytes;
        char dtypes[160];
        count_dtypes(&l, dtypes, sizeof dtypes);
        printf("file        %s\nholds       %s\n", in->common.model,
               *kind == 't' && kind[1] == 'r' ? "a trace, for 'pivot verify'"
                                              : "tensors; as a model with --config FILE");
        printf("tensors     %d (%s), %s\n", l.n, dtypes, cli_bytes(&bytes, l.bytes));
        print_lines(&l);
    }
    pv_free(l.line);
    pv_safetensors_close(&file);
    return code;
}

static int print_all(inspect *in, const lines *l)
{
    if (in->common.json) {
        cJSON *json = cli_json("pivot.inspect/1");
        cJSON_AddStringToObject(json, "model", in->common.model);
        json_model(json, in, l);
        if (in->tensors)
            json_lines(json, l);
        json_plan(json, in);
        return cli_json_print(&in->common, json);
    }
    if (in->graph && !in->tensors && !in->plan && !in->memory) { /* alone, so that it can be piped on */
        fputs(in->planning.text, stdout);
        return CLI_OK;
    }
    print_model(in, l);
    if (in->of_folder) {
        putchar('\n');
        print_robot(&in->about);
    }
    if (in->tensors)
        print_lines(l);
    if (in->memory)
        print_memory(in);
    if (in->plan)
        print_passes(in);
    if (in->planning.text)
        printf("\n%s", in->planning.text);
    return CLI_OK;
}

/* Options that only the model can judge. CLI_GO, or the exit code. */
static int settle(inspect *in)
{
    const pv_config *c = &in->model->config;
    in->views = in->views ? in->views : c->n_cameras;
    in->tokens = in->tokens ? in->tokens : c->max_tokens;
    in->steps = in->steps ? in->steps : c->num_steps;
    if (in->views > c->n_cameras)
        return cli_usage(&in->common, "--views: the model has %d cameras, came %d", c->n_cameras, in->views);
    if (in->tokens > c->max_tokens)
        return cli_usage(&in->common, "--prompt-tokens: the model has room for %d, came %d", c->max_tokens,
                         in->tokens);
    return CLI_GO;
}

static int make_plan(inspect *in)
{
    planning_params p = {.shape = {in->views, in->tokens, false},
                         .recipe = in->common.recipe,
                         .steps = in->steps,
                         .text_of = in->pass    ? in->pass
                                    : in->graph ? "build"
                                    : in->plan  ? "place"
                                                : NULL,
                         .dot = in->graph && !strcmp(in->graph, "dot")};
    pv_status st = cli_open_backend(&in->common, &in->backend);
    if (!st)
        st = planning_make(in->model, in->backend, &p, &in->planning);
    if (st)
        return cli_fail(&in->common, st);
    if (!p.text_of || in->planning.text)
        return CLI_GO;
    char names[128] = "";
    for (int i = 0; i < in->planning.n_passes; i++)
        snprintf(names + strlen(names), sizeof names - strlen(names), i ? ", %s" : "%s",
                 in->planning.pass[i].name);
    return cli_usage(&in->common, "--pass '%s': expected one of %s", in->pass, names);
}

static int inspect_model(inspect *in)
{
    lines l = {NULL};
    int64_t table_dim[2];
    pv_status st = cli_open_model(&in->common, &in->model);
    if (!st && cli_folder_robot(&in->common))
        st = pv_robot_load(cli_folder_robot(&in->common), &in->of_folder);
    if (!st && in->of_folder)
        st = pv_robot_describe(in->of_folder, &in->about);
    if (st)
        return cli_fail(&in->common, st);
    int code = settle(in);
    if (code == CLI_GO && (in->graph || in->plan || in->memory))
        code = make_plan(in);
    if (code != CLI_GO)
        return code;
    st = in->model->checkpoint ? checkpoint_lines(in->model->checkpoint, &l)
                               : synthetic_lines(in->model, table_dim, &l);
    sum_bytes(&l);
    code = st ? cli_fail(&in->common, st) : print_all(in, &l);
    pv_free(l.line);
    return code;
}

/* ---- robots ---- */

static int inspect_robot(inspect *in)
{
    pv_robot *robot = NULL;
    pv_robot_info info = {0};
    int code = CLI_OK;
    pv_status st = pv_robot_load(in->robot, &robot);
    if (!st)
        st = pv_robot_describe(robot, &info);
    if (st) {
        code = cli_fail(&in->common, st);
    } else if (in->common.json) {
        cJSON *json = cli_json("pivot.robot/1");
        cJSON_AddStringToObject(json, "robot", info.name);
        cJSON_AddNumberToObject(json, "state_dim", info.state_dim);
        cJSON_AddNumberToObject(json, "action_dim", info.action_dim);
        cJSON_AddItemToObject(json, "description", cJSON_Parse(info.json));
        code = cli_json_print(&in->common, json);
    } else {
        print_robot(&info);
    }
    pv_robot_free(&robot);
    return code;
}

static int parse(inspect *in, int argc, char **argv)
{
    const cli_option options[] = {
        {"tensors", NULL, "every tensor: name, dtype, shape, and what becomes of it", CLI_FLAG, &in->tensors},
        {"graph", "text|dot", "the graph as the model builds it; alone, it is all that is printed", CLI_TEXT,
         &in->graph},
        {"pass", "NAME", "with --graph: the graph after that pass of planning", CLI_TEXT, &in->pass},
        {"plan", NULL, "what each pass of planning does, and the graph after the last", CLI_FLAG, &in->plan},
        {"memory", NULL, "the exact bytes of each buffer of a plan", CLI_FLAG, &in->memory},
        {"views", "N", "plan for so many pictures (default: all cameras)", CLI_INT, &in->views, 1,
         PV_MAX_CAMERAS},
        {"prompt-tokens", "N", "plan for a prompt of so many (default: the longest)", CLI_INT, &in->tokens, 1,
         1 << 20},
        {"steps", "N", "plan with tables of so many steps (default: the model's)", CLI_INT, &in->steps, 1,
         100000},
        {"robot", "NAME|FILE", "a robot in place of a model: libero, droid, aloha, or a JSON file (docs/robots.md)",
         CLI_TEXT, &in->robot},
        {NULL},
    };
    const cli_command command = {
        .name = "inspect",
        .purpose = "what a checkpoint holds, its graph, its plan, its memory",
        .usage = "MODEL [--tensors] [--graph text|dot] [--plan] [--memory] [options] | --robot NAME|FILE",
        .example = "pivot inspect pi05_libero --tensors\n"
                   "pivot inspect synth:tiny --graph dot --pass fuse | dot -Tsvg > graph.svg",
        .notes =
            "No weight is read. A .safetensors file without --config, such as a trace, is listed as it is.",
        .options = options,
        .groups = CLI_MODEL | CLI_DEVICE | CLI_JSON,
        .model_optional = true,
    };
    int code = cli_parse(&command, argc, argv, &in->common);
    if (code != CLI_GO)
        return code;
    if (!in->common.model && !in->robot)
        return cli_usage(&in->common, "expected a model: --model MODEL, or a robot: --robot NAME");
    if (in->common.model && in->robot)
        return cli_usage(&in->common, "expected a model or --robot, came both");
    if (in->graph && strcmp(in->graph, "text") && strcmp(in->graph, "dot"))
        return cli_usage(&in->common, "--graph: expected text or dot, came '%s'", in->graph);
    if (in->pass && !in->graph)
        return cli_usage(&in->common, "--pass needs --graph text or --graph dot");
    return CLI_GO;
}

int inspect_main(int argc, char **argv)
{
    inspect in = {.tensors = false};
    int code = parse(&in, argc, argv);
    if (code == CLI_GO && in.robot)
        code = inspect_robot(&in);
    else if (code == CLI_GO)
        code = !in.common.config && is_file(in.common.model) ? inspect_file(&in) : inspect_model(&in);
    planning_free(&in.planning);
    pv_robot_free(&in.of_folder);
    pv_model_free(&in.model);
    pv_backend_close(&in.backend);
    return code;
}
