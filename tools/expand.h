/* expand.h - the option --expand: composites whose bodies run in place of the backend's kernels. */
#ifndef PV_TOOLS_EXPAND_H
#define PV_TOOLS_EXPAND_H

#include "cli.h"

#define EXPAND_HELP \
    "run the body of a composite op in place of its kernel: to find a wrong\n" \
    "one, or to see what it is worth; \"all\" for every one (docs/ops.md)"

/* OP or OP,OP,... each -> bits 1 << pv_op (pv_plan_params.expand). CLI_GO, or the exit code: the words name what is no
 * composite and list those there are. */
int expand_parse(const cli_options *common, const cli_list *list, uint64_t *bits);

/* "expanded": [their names] */
void expand_json(cJSON *json, uint64_t bits);

#endif
