/* expand.c - see expand.h. */
#include "expand.h"
#include "graph/graph.h"

#include <stdio.h>
#include <string.h>

static int refuse(const cli_options *common, const char *word)
{
    const char *names[PV_OP_COUNT + 2] = {NULL}, *near = NULL;
    char list[1024] = "";
    bool primitive = false;
    for (int op = 0, n = 0; op < PV_OP_COUNT; op++) {
        primitive |= !pv_ops[op].body && !strcmp(word, pv_ops[op].name);
        if (!pv_ops[op].body)
            continue;
        size_t used = strlen(list);
        snprintf(list + used, sizeof list - used, "%s%s", n ? ", " : "", pv_ops[op].name);
        names[n++] = pv_ops[op].name;
    }
    near = primitive ? NULL : cli_nearest(word, names);
    return cli_usage(common, "--expand '%s': %s; expected some of %s, or all%s%s%s", word,
                     primitive ? "a primitive, which has no body" : "no such op", list, near ? "; did you mean " : "",
                     near ? near : "", near ? "?" : "");
}

static bool add(const char *word, uint64_t *bits)
{
    bool all = !strcmp(word, "all"), found = false;
    for (int op = 0; op < PV_OP_COUNT; op++)
        if (pv_ops[op].body && (all || !strcmp(word, pv_ops[op].name))) {
            *bits |= UINT64_C(1) << op;
            found = true;
        }
    return found;
}

int expand_parse(const cli_options *common, const cli_list *list, uint64_t *bits)
{
    _Static_assert(PV_OP_COUNT <= 64, "an op is a bit");
    *bits = 0;
    for (int i = 0; i < list->n; i++)
        for (const char *text = list->item[i];; text++) {
            char word[64];
            size_t n = strcspn(text, ",");
            snprintf(word, sizeof word, "%.*s", (int)(n < sizeof word ? n : sizeof word - 1), text);
            if (!add(word, bits))
                return refuse(common, word);
            text += n;
            if (!*text)
                break;
        }
    return CLI_GO;
}

void expand_json(cJSON *json, uint64_t bits)
{
    cJSON *list = cJSON_AddArrayToObject(json, "expanded");
    for (int op = 0; op < PV_OP_COUNT; op++)
        if (bits >> op & 1)
            cJSON_AddItemToArray(list, cJSON_CreateString(pv_ops[op].name));
}
