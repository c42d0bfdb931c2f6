/* robot.c - robots by name or file, and what they say about themselves. */
#include "robot.h"
#include "base/memory.h"
#include "base/params.h"
#include "io/file.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

static pv_status load_folder(const char *folder, pv_robot **out)
{
    pv_processors *p = NULL;
    if (!pv_processors_in(folder))
        return pv_fail(PV_E_FILE,
                       "robot '%s': a folder without " PV_PROCESSORS_PRE
                       ", in which lerobot says what its robot is",
                       folder);
    pv_status st = pv_processors_read(folder, &p);
    if (!st)
        st = pv_robot_from_processors(p, folder, out);
    pv_processors_free(&p);
    return st;
}

const char *pv_robot_list(int i)
{
    for (int k = 0; i >= 0 && pv_robot_texts[k].name; k++)
        if (k == i)
            return pv_robot_texts[k].name;
    return NULL;
}

pv_status pv_robot_load(const char *name_or_path, pv_robot **out)
{
    if (!name_or_path || !out)
        return pv_fail(PV_E_ARG, "pv_robot_load: name_or_path and out must be given");
    *out = NULL;
    char names[128] = "";
    for (const pv_robot_text *t = pv_robot_texts; t->name; t++) {
        if (!strcmp(t->name, name_or_path))
            return pv_robot_parse(t->json, strlen(t->json), t->name, t->name, out);
        snprintf(names + strlen(names), sizeof names - strlen(names), *names ? ", %s" : "%s", t->name);
    }
    struct stat s;
    if (!stat(name_or_path, &s) && S_ISDIR(s.st_mode))
        return load_folder(name_or_path, out);
    char *json;
    size_t n;
    pv_status st = pv_file_read(name_or_path, PV_ROBOT_MAX_BYTES, &json, &n);
    if (st)
        return pv_fail_in(st, "robot '%s': neither built in (%s) nor a JSON file that can be read", name_or_path, names);
    st = pv_robot_parse(json, n, name_or_path, name_or_path, out);
    pv_free(json);
    return st;
}

void pv_robot_free(pv_robot **robot)
{
    if (!robot || !*robot)
        return;
    pv_arena_free(&(*robot)->arena);
    pv_free(*robot);
    *robot = NULL;
}

pv_status pv_robot_describe(const pv_robot *b, pv_robot_info *out)
{
    if (!b || !out)
        return pv_fail(PV_E_ARG, "pv_robot_describe: robot and out must be given");
    pv_robot_info info = {.name = b->name,
                          .about = b->about,
                          .n_cameras = b->n_cameras,
                          .n_state_keys = b->n_state_keys,
                          .state_dim = b->state_dim,
                          .prompt_key = b->prompt_key,
                          .default_prompt = b->default_prompt,
                          .action_dim = b->action_dim,
                          .delta = b->relative,
                          .json = b->json};
    for (int i = 0; i < b->n_cameras; i++) {
        info.slot[i] = b->camera[i].slot;
        info.key[i] = b->camera[i].key;
        info.optional[i] = b->camera[i].optional;
    }
    for (int i = 0; i < b->n_state_keys; i++) {
        info.state_key[i] = b->state_key[i];
        info.state_key_dim[i] = b->state_key_dim[i];
    }
    return pv_give_info("pv_robot_describe", out, &info, sizeof info);
}
