/* devices.c - `pivot devices`: every backend's devices, by the index, name and UUID that --device takes, and
 * what each supports. A backend that has none here says why. */
#include "base/memory.h"
#include "cli.h"

#include <stdio.h>
#include <string.h>

/* The value of a line "name: value\n" of pv_device_info.supports, NULL behind the last; *line goes on to the
 * next. */
static bool next_line(const char **line, char *name, size_t name_size, char *value, size_t value_size)
{
    const char *colon = strstr(*line, ": "), *end = strchr(*line, '\n');
    if (!colon || !end || colon > end)
        return false;
    snprintf(name, name_size, "%.*s", (int)(colon - *line), *line);
    snprintf(value, value_size, "%.*s", (int)(end - colon - 2), colon + 2);
    *line = end + 1;
    return true;
}

/* ---- for people ---- */

static void print_line(const char *name, const char *value)
{
    printf("    %-26s %s\n", name, value);
}

static void print_device(int index, const pv_device_info *d)
{
    char name[64], value[sizeof d->supports];
    cli_text size;
    printf("  %d: %s%s\n", index, d->name, d->software ? " (software: used only when it is named)" : "");
    if (*d->uuid)
        print_line("UUID", d->uuid);
    if (d->memory_bytes) {
        snprintf(value, sizeof value, "%s%s", cli_bytes(&size, d->memory_bytes),
                 d->unified ? ", the host's" : "");
        print_line("memory", value);
    }
    if (*d->driver)
        print_line("driver", d->driver);
    if (*d->library)
        print_line("computes with", d->library);
    for (const char *line = d->supports; next_line(&line, name, sizeof name, value, sizeof value);)
        print_line(name, value);
    if (*d->unknown)
        print_line("not known", d->unknown);
}

static void print_backend(const char *name, const pv_device_info *devices, int n, const char *why_not)
{
    printf(why_not ? "%s: not available: %s\n" : "%s\n", name, why_not);
    for (int i = 0; i < n; i++)
        print_device(i, &devices[i]);
}

/* ---- JSON ---- */

/* yes and no, whole numbers, words. */
static cJSON *json_value(const char *value)
{
    size_t digits = strspn(value, "0123456789");
    if (!strcmp(value, "yes") || !strcmp(value, "no"))
        return cJSON_CreateBool(*value == 'y');
    return *value && !value[digits] ? cJSON_CreateRaw(value) : cJSON_CreateString(value);
}

static cJSON *json_device(int index, const pv_device_info *d)
{
    char name[64], value[sizeof d->supports];
    cJSON *o = cJSON_CreateObject(), *supports = cJSON_CreateObject();
    cJSON_AddNumberToObject(o, "index", index);
    cJSON_AddStringToObject(o, "name", d->name);
    cJSON_AddStringToObject(o, "uuid", d->uuid);
    cJSON_AddItemToObject(o, "memory_bytes", cli_json_u64(d->memory_bytes));
    cJSON_AddBoolToObject(o, "unified", d->unified);
    cJSON_AddBoolToObject(o, "software", d->software);
    cJSON_AddStringToObject(o, "driver", d->driver);
    cJSON_AddStringToObject(o, "library", d->library);
    cJSON_AddStringToObject(o, "unknown", d->unknown);
    for (const char *line = d->supports; next_line(&line, name, sizeof name, value, sizeof value);)
        cJSON_AddItemToObject(supports, name, json_value(value));
    cJSON_AddItemToObject(o, "supports", supports);
    return o;
}

static void json_backend(cJSON *list, const char *name, const pv_device_info *devices, int n,
                         const char *why_not)
{
    cJSON *o = cJSON_CreateObject(), *array = cJSON_CreateArray();
    cJSON_AddStringToObject(o, "name", name);
    cJSON_AddBoolToObject(o, "available", !why_not);
    cJSON_AddStringToObject(o, "why_not", why_not ? why_not : "");
    for (int i = 0; i < n; i++)
        cJSON_AddItemToArray(array, json_device(i, &devices[i]));
    cJSON_AddItemToObject(o, "devices", array);
    cJSON_AddItemToArray(list, o);
}

/* ---- the command ---- */

/* The devices of one backend; pv_free them. */
static pv_status ask(const char *backend, pv_device_info **out, int *n)
{
    *n = 0;
    *out = NULL;
    pv_status st = pv_devices(backend, NULL, n);
    if (!st && *n > 0 && !(*out = pv_alloc_zero(sizeof **out * (size_t)*n)))
        st = PV_E_MEMORY;
    int room = *n;
    if (!st)
        st = pv_devices(backend, *out, n);
    if (st) {
        pv_free(*out);
        *out = NULL;
        *n = 0;
    }
    *n = *n < room ? *n : room; /* one may have come meanwhile */
    return st;
}

int devices_main(int argc, char **argv)
{
    cli_options common;
    const char *only = NULL;
    const cli_option options[] = {
        {"backend", "NAME", "this backend's alone; exit code 4 where it has none", CLI_TEXT, &only}, {NULL}};
    const cli_command command = {
        .name = "devices",
        .purpose = "every backend's devices and what each supports",
        .usage = "[options]",
        .example = "pivot devices\npivot devices --backend vulkan --json",
        .notes = "Each device stands behind its index. --device of the other commands takes an index, a "
                 "name, a UUID, or\n"
                 "a part of a name that belongs to no other device. Without --device the first that is not "
                 "software is used.",
        .options = options,
        .groups = CLI_JSON,
    };
    int code = cli_parse(&command, argc, argv, &common), found = 0;
    if (code != CLI_GO)
        return code;
    cJSON *json = common.json ? cli_json("pivot.devices/1") : NULL,
          *list = json ? cJSON_AddArrayToObject(json, "backends") : NULL;
    code = CLI_OK;
    for (int i = 0; !code && (only ? !i : pv_backend_list(i) != NULL); i++) {
        const char *name = only ? only : pv_backend_list(i);
        pv_device_info *devices;
        int n;
        pv_status st = ask(name, &devices, &n);
        if (st && (only || st != PV_E_UNAVAILABLE))
            code = cli_fail(&common, st);
        else if (common.json)
            json_backend(list, name, devices, n, st ? pv_error_text() : NULL);
        else
            print_backend(name, devices, n, st ? pv_error_text() : NULL);
        found += n;
        pv_free(devices);
    }
    if (!code && only && !found)
        code = cli_fail(&common, pv_fail(PV_E_UNAVAILABLE, "backend '%.64s' has no device here", only));
    if (!code && common.json)
        return cli_json_print(&common, json);
    cJSON_Delete(json);
    return code;
}
