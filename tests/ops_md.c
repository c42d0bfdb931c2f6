/* ops_md.c - docs/ops.md out of the op table and the bodies, so that it cannot lie.
 *   ops_md FILE           fails when FILE is not what would be written
 *   ops_md --write FILE */
#include "base/memory.h"
#include "plan/plan.h"
#include "tests/samples.h"
#include "tests/test.h"

static const struct {
    const char *kind, *text;
} attributes[] = {
    {"none", NULL},
    {"norm", "`eps`"},
    {"attention", "`heads`, `kv_heads` (of which `heads` is a multiple), `batch` (sequences one after the other along the rows), "
                  "`first` (the first key row that takes part), `scale`"},
    {"rope", "`heads`"},
    {"scale", "`factor`"},
    {"range", "`first`, `size`"},
    {"patch", "`size`"},
    {"group", "`n`"},
    {"transpose", "`first`, `second`"},
    {"scale_for", "`dtype`"},
    {"expert", "`eps`, `heads`, `kv_heads` (of which `heads` is a multiple), `store` (the row of the caches that gets row 0), "
               "`first` (the first key row that takes part), `scale`"},
    {"linear_geglu", "`between` (the dtype that both products are rounded to)"},
    {"linear_add_norm", "`eps`, `layer` (a layer_norm, else an rms_norm)"},
    {"linear_rope_cache", "`heads` (of q), `kv_heads`, `first` (row of the states), `between` (dtype that q, k and v are rounded to)"},
    {"rope_cache", "`heads` (of q), `kv_heads`, `first` (row of the states)"},
    {"rope_store", "`heads`, `first` (row of the state)"},
};

static bool claims_all(const pv_backend *be, const pv_node *n)
{
    (void)be, (void)n;
    return true;
}

static const pv_backend_vt mock_vt = {.name = "mock", .claims = claims_all};
static const pv_backend mock = {&mock_vt};

static void put_graph(FILE *f, const pv_graph *g)
{
    char *text = pv_graph_text(g);
    for (char *line = text ? strtok(text, "\n") : NULL; line; line = strtok(NULL, "\n"))
        if (!strncmp(line, "  ", 2)) /* without the count of nodes and the stage */
            fprintf(f, "    %s\n", line + 2);
    pv_free(text);
}

static void put_op(FILE *f, pv_op op)
{
    const pv_op_info *info = &pv_ops[op];
    pv_graph *g = pv_graph_create();
    const pv_node *n = sample(g, op);
    if (!CHECK(n)) {
        printf("    %s: %s\n", info->name, g->error ? g->error : "no sample in tests/samples.h");
        pv_graph_destroy(&g);
        return;
    }
    fprintf(f, "\n### %s\n\n`%s(", info->name, info->name);
    for (int k = 0; k < n->n_in; k++)
        fprintf(f, "%s%s%s", k >= info->min_in ? "[" : "", k ? ", " : "", n->in[k]->name);
    for (int k = info->min_in; k < n->n_in; k++)
        fputs("]", f);
    fprintf(f, ")`: %s.\n", info->meaning);
    const char *text = "";
    for (size_t a = 0; a < sizeof attributes / sizeof *attributes; a++)
        if (!strcmp(attributes[a].kind, info->attr))
            text = attributes[a].text;
    if (!CHECK(!text || *text))
        printf("    attributes '%s' are not described in tests/ops_md.c\n", info->attr);
    if (text)
        fprintf(f, "Attributes: %s.\n", text);
    if (info->flags & PV_OP_ROW_WISE)
        fputs("Row by row.\n", f);
    fputs("\n", f);
    put_graph(f, g);
    if (info->body) {
        pv_lower(g, &mock, 1ull << op);
        CHECK_OK(pv_graph_status(g));
        fputs("\nmeans\n\n", f);
        put_graph(f, g);
    }
    pv_graph_destroy(&g);
}

static void put_page(FILE *f)
{
    fputs("# Ops\n\n"
          "Made from `core/graph/ops.def` and `core/graph/body.c` by the target `ops_md`; a test fails when it is out of date.\n"
          "[plan.md](plan.md) says what becomes of ops, [adding-an-op.md](adding-an-op.md) how to add one.\n\n"
          "A *primitive* is what a backend must have to run graphs that use it. A *composite* means the same as its body and\n"
          "runs as that where a backend has no kernel for it; below, the body is shown for the shapes of the example, one level\n"
          "deep. Inputs in brackets are optional. *Row by row*: row r of the result depends on row r of the first input alone,\n"
          "which is what lets [hoisting](plan.md#hoist) run an op for all denoising steps at once. Where the rows of the first\n"
          "input are counted at run time, so are those of the result. On the CPU every op takes and makes f32, bf16 and f16\n"
          "(counts and positions: i32), computes in f32 and rounds once, on store; other backends claim what they have. `linear` takes and `scale_for`, `quantize`\n"
          "and `dequantize` take and make e4m3 and e2m1 too; a scale may have any of these dtypes but e2m1.\n"
          "\n## Primitives\n", f);
    for (int op = 0; op < PV_OP_COUNT; op++)
        if (!pv_ops[op].body)
            put_op(f, (pv_op)op);
    fputs("\n## Composites\n", f);
    for (int op = 0; op < PV_OP_COUNT; op++)
        if (pv_ops[op].body)
            put_op(f, (pv_op)op);
}

static void compare(const char *path, const char *want)
{
    FILE *f = fopen(path, "r");
    int line = 1;
    bool same = f != NULL;
    for (int c; same && (c = fgetc(f), c != EOF || *want); want++) {
        same = c == (unsigned char)*want;
        line += same && c == '\n';
    }
    if (!CHECK(same))
        printf("    %s, line %d, is not what the op table says: build the target ops_md and look at the difference\n", path, line);
    if (f)
        fclose(f);
}

int main(int argc, char **argv)
{
    if (argc != 2 && !(argc == 3 && !strcmp(argv[1], "--write")))
        return 2;
    char *page = NULL;
    size_t bytes = 0;
    FILE *f = open_memstream(&page, &bytes);
    put_page(f);
    fclose(f);
    if (argc == 2) {
        compare(argv[1], page);
    } else {
        f = fopen(argv[2], "w");
        CHECK(f && fwrite(page, 1, bytes, f) == bytes && !fclose(f));
    }
    free(page);
    return test_done();
}
