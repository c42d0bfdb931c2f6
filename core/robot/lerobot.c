/* lerobot.c - a checkpoint of lerobot as a robot: what its processors say (io/processors.h), written as a
 * description like any other. */
#include "robot.h"
#include "base/memory.h"
#include "io/processors.h"

#include <string.h>

static bool add_text(cJSON *to, const char *key, const char *text)
{
    return cJSON_AddStringToObject(to, key, text) != NULL;
}

static bool add_cameras(cJSON *root, const pv_processors *p)
{
    cJSON *list = cJSON_AddArrayToObject(root, "cameras");
    bool ok = list != NULL;
    for (int i = 0; ok && i < p->n_cameras; i++) {
        cJSON *camera = cJSON_CreateObject();
        ok =
            cJSON_AddItemToArray(list, camera) && add_text(camera, "slot", p->slot[i]) &&
            (p->camera[i] ? add_text(camera, "key", p->camera[i]) && cJSON_AddTrueToObject(camera, "optional")
                          : cJSON_AddNullToObject(camera, "key") != NULL);
    }
    return ok;
}

/* Any camera may be missing, so a picture under a name that is none of theirs is not passed over. */
static bool add_closed(cJSON *root)
{
    cJSON *list = cJSON_AddArrayToObject(root, "closed"), *name = cJSON_CreateString("observation.image");
    bool ok = cJSON_AddItemToArray(list, name);
    if (!ok)
        cJSON_Delete(name);
    return ok;
}

static bool add_state(cJSON *root, const pv_processors *p)
{
    cJSON *state = cJSON_AddObjectToObject(root, "state"), *fields = cJSON_AddArrayToObject(state, "fields"),
          *field = cJSON_CreateObject();
    if (!cJSON_AddItemToArray(fields, field)) {
        cJSON_Delete(field);
        return false;
    }
    return add_text(field, "key", p->state_key) && cJSON_AddNumberToObject(field, "size", p->state_dim);
}

static bool add_actions(cJSON *root, const pv_processors *p)
{
    cJSON *actions = cJSON_AddObjectToObject(root, "actions");
    bool ok = cJSON_AddNumberToObject(actions, "size", p->action_dim) != NULL;
    cJSON *delta = ok && p->relative ? cJSON_AddArrayToObject(actions, "delta") : NULL;
    for (int d = 0; ok && p->relative && d < p->action_dim; d++)
        if (p->is_relative[d]) {
            cJSON *n = cJSON_CreateNumber(d);
            ok = cJSON_AddItemToArray(delta, n);
            if (!ok)
                cJSON_Delete(n);
        }
    return ok;
}

static char *describe(const pv_processors *p)
{
    cJSON *root = cJSON_CreateObject();
    bool ok = add_text(root, "about", "what the checkpoint's processors say") &&
              add_text(root, "rules", "lerobot") && add_cameras(root, p) && add_closed(root) &&
              add_state(root, p) && add_text(cJSON_AddObjectToObject(root, "prompt"), "key", p->task_key) &&
              add_actions(root, p);
    char *text = ok ? cJSON_Print(root) : NULL;
    cJSON_Delete(root);
    return text;
}

pv_status pv_robot_from_processors(const pv_processors *p, const char *name, pv_robot **out)
{
    char *text = describe(p);
    *out = NULL;
    pv_status st = text ? pv_robot_parse(text, strlen(text), name, name, out)
                        : pv_fail(PV_E_MEMORY, "%s: no memory for its description", name);
    cJSON_free(text);
    return st;
}
