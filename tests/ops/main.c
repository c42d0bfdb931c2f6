/* main.c - all families of ops, or those named; and whether every op of ops.def was met.
 *   test_ops [--bench] [linear|attention|norm|rope|elementwise|layout|embed|quantize|expert]... */
#include "ops.h"

static const struct {
    const char *name;
    int (*test)(void);
} families[] = {
    {"linear", test_linear}, {"attention", test_attention},     {"norm", test_norm},     {"rope", test_rope},
    {"layout", test_layout}, {"elementwise", test_elementwise}, {"embed", test_embed},
    {"quantize", test_quantize}, {"expert", test_expert},
};

static bool named(int argc, char **argv, const char *name) /* NULL: any */
{
    for (int i = 1; i < argc; i++)
        if (name ? !strcmp(argv[i], name) : argv[i][0] != '-')
            return true;
    return false;
}

int main(int argc, char **argv)
{
    bool all = !named(argc, argv, NULL);
    int failed = 0;
    harness_begin(argc, argv);
    for (size_t f = 0; f < sizeof families / sizeof *families; f++)
        if (all || named(argc, argv, families[f].name)) {
            int bad = families[f].test();
            printf("^ %s\n", families[f].name);
            failed += bad;
        }
    for (int op = 0; all && op < PV_OP_COUNT; op++)
        if (!harness_covered((pv_op)op)) {
            printf("op '%s' has no test: add a CHECK_OP to tests/ops/\n", pv_ops[op].name);
            failed++;
        }
    harness_end();
    return failed != 0;
}
