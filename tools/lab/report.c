/* report.c - rows and notes as they are gathered, and the page and the JSON made of them. */
#include "lab.h"
#include "base/memory.h"

#include <stdio.h>
#include <string.h>

/* ---- gathering ---- */

const char *lab_text(lab *l, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    const char *text = pv_arena_vprintf(&l->arena, fmt, ap);
    va_end(ap);
    l->status = text ? l->status : PV_E_MEMORY;
    return text ? text : "";
}

void lab_begin_table(lab *l, const lab_column *columns, const char *fmt, ...)
{
    lab_table *t = pv_arena_alloc(&l->arena, sizeof *t), **end = &l->tables;
    va_list ap;
    if (!t) {
        l->status = PV_E_MEMORY;
        return;
    }
    va_start(ap, fmt);
    t->title = pv_arena_vprintf(&l->arena, fmt, ap);
    va_end(ap);
    l->status = t->title ? l->status : PV_E_MEMORY;
    for (int i = 0; columns && i < LAB_COLUMNS && columns[i].key; i++)
        t->column[i] = columns[i];
    while (*end)
        end = &(*end)->next;
    *end = l->table = t;
}

lab_row *lab_add(lab *l, const char *fmt, ...)
{
    static _Thread_local lab_row
        spare; /* where there is no memory: l->status tells, and nothing is printed */
    va_list ap;
    lab_row *r = l->table ? pv_arena_alloc(&l->arena, sizeof *r) : NULL;
    va_start(ap, fmt);
    const char *name = r ? pv_arena_vprintf(&l->arena, fmt, ap) : NULL;
    va_end(ap);
    if (!name) {
        l->status = PV_E_MEMORY;
        return &spare;
    }
    r->name = name;
    r->error = NAN;
    for (int i = 0; i < LAB_COLUMNS; i++)
        r->value[i].number = NAN;
    if (l->table->last)
        l->table->last->next = r;
    else
        l->table->first = r;
    l->table->last = r;
    return r;
}

void lab_say(lab *l, const char *fmt, ...)
{
    lab_note *n = pv_arena_alloc(&l->arena, sizeof *n), **end = &l->notes;
    va_list ap;
    va_start(ap, fmt);
    const char *text = pv_arena_vprintf(&l->arena, fmt, ap);
    va_end(ap);
    if (!n || !text) {
        l->status = PV_E_MEMORY;
        return;
    }
    n->text = text;
    while (*end)
        end = &(*end)->next;
    *end = n;
}

/* ---- the page ---- */

#define CELL 96
enum { NAME, TIME, SPREAD, ERROR, OWN, REPORT = OWN + LAB_COLUMNS, N_CELLS };

static void number(char *s, size_t n, lab_form form, double v)
{
    if (isnan(v))
        snprintf(s, n, "%s", "");
    else if (form == LAB_COUNT)
        snprintf(s, n, "%.0f", v);
    else if (form == LAB_MS)
        snprintf(s, n, v < 0.0995 ? "%.4f" : v < 9.95 ? "%.3f" : v < 995 ? "%.2f" : "%.0f", v);
    else if (form == LAB_ERROR)
        snprintf(s, n, v > 0 ? "%.2e" : "%.0f", v);
    else if (form == LAB_PERCENT)
        snprintf(s, n, "%.1f %%", v);
    else if (form == LAB_RATIO)
        snprintf(s, n, "%.2fx", v);
    else
        snprintf(s, n, "%.5g", v);
}

static void cells(const lab_table *t, const lab_row *r, char (*cell)[CELL])
{
    for (int i = 0; i < N_CELLS; i++)
        cell[i][0] = 0;
    snprintf(cell[NAME], CELL, "%s", r->name);
    if (r->time.runs) {
        char low[CELL], high[CELL];
        number(cell[TIME], CELL, LAB_MS, r->time.median);
        number(low, sizeof low, LAB_MS, r->time.low);
        number(high, sizeof high, LAB_MS, r->time.high);
        snprintf(cell[SPREAD], CELL, "%.40s .. %.40s", low, high);
    }
    number(cell[ERROR], CELL, LAB_ERROR, r->error);
    for (int i = 0; i < LAB_COLUMNS && t->column[i].key; i++)
        if (t->column[i].form == LAB_WORD)
            snprintf(cell[OWN + i], CELL, "%s", r->value[i].word ? r->value[i].word : "");
        else
            number(cell[OWN + i], CELL, t->column[i].form, r->value[i].number);
    snprintf(cell[REPORT], CELL, "%s", r->report ? r->report : "");
}

static int columns_of(const char *s) /* of a terminal; UTF-8 */
{
    int n = 0;
    for (; *s; s++)
        n += ((unsigned char)*s >> 6) != 2;
    return n;
}

static void print_table(const lab_table *t)
{
    static const char *const titles[N_CELLS] = {[NAME] = "",
                                                [TIME] = "median ms",
                                                [SPREAD] = "25 % .. 75 %",
                                                [ERROR] = "error",
                                                [REPORT] = "| reports, Thor"};
    char cell[N_CELLS][CELL];
    const char *title[N_CELLS];
    int width[N_CELLS] = {0};
    for (const lab_row *r = t->first; r; r = r->next) {
        cells(t, r, cell);
        for (int i = 0; i < N_CELLS; i++)
            width[i] = columns_of(cell[i]) > width[i] ? columns_of(cell[i]) : width[i];
    }
    printf("\n%s\n", t->title);
    for (int i = 0; i < N_CELLS; i++) {
        title[i] = i >= OWN && i < REPORT ? t->column[i - OWN].title : titles[i];
        if (width[i] && columns_of(title[i]) > width[i]) /* a column with nothing in it is left out */
            width[i] = columns_of(title[i]);
    }
    for (int i = 0; i < N_CELLS; i++)
        if (width[i] && i == NAME)
            printf("  %-*s", width[i], title[i]);
        else if (width[i])
            printf("  %*s%s", width[i] - columns_of(title[i]), "", title[i]);
    putchar('\n');
    for (const lab_row *r = t->first; r; r = r->next) {
        cells(t, r, cell);
        for (int i = 0; i < N_CELLS; i++)
            if (width[i] && i == NAME)
                printf("  %s%*s", cell[i], width[i] - columns_of(cell[i]), "");
            else if (width[i])
                printf("  %*s%s", width[i] - columns_of(cell[i]), "", cell[i]);
        putchar('\n');
    }
}

/* Broken at spaces, 100 letters a line. */
static void print_note(const char *text)
{
    int at = 0;
    while (*text) {
        int n = (int)strcspn(text, " ");
        if (at && at + 1 + n > 100) {
            putchar('\n');
            at = 0;
        }
        at += printf(at ? " %.*s" : "%.*s", n, text);
        text += n + (text[n] == ' ');
    }
    putchar('\n');
}

static void print_page(const lab *l)
{
    const char *recipe = l->common.recipe ? l->common.recipe : "f32";
    printf("lab %s: %s on %s (%s), recipe %s, %s\n\n%s\n", l->command->name, l->common.model, l->device.name,
           l->device.backend, recipe, l->date, l->command->claim);
    for (const lab_table *t = l->tables; t; t = t->next)
        print_table(t);
    for (const lab_note *n = l->notes; n; n = n->next) {
        putchar('\n');
        print_note(n->text);
    }
}

/* ---- JSON ---- */

static void add_number(cJSON *o, const char *key, double v)
{
    if (isfinite(v))
        cJSON_AddNumberToObject(o, key, v);
    else
        cJSON_AddNullToObject(o, key);
}

static cJSON *row_json(const lab_table *t, const lab_row *r)
{
    cJSON *o = cJSON_CreateObject();
    cJSON_AddStringToObject(o, "table", t->title);
    cJSON_AddStringToObject(o, "name", r->name);
    if (r->time.runs) {
        cli_json_add_ms(o, "median_ms", r->time.median);
        cli_json_add_ms(o, "p25_ms", r->time.low);
        cli_json_add_ms(o, "p75_ms", r->time.high);
        cJSON_AddNumberToObject(o, "runs", r->time.runs);
    } else {
        cJSON_AddNullToObject(o, "median_ms");
    }
    add_number(o, "error", r->error);
    for (int i = 0; i < LAB_COLUMNS && t->column[i].key; i++)
        if (t->column[i].form != LAB_WORD)
            add_number(o, t->column[i].key, r->value[i].number);
        else if (r->value[i].word)
            cJSON_AddStringToObject(o, t->column[i].key, r->value[i].word);
        else
            cJSON_AddNullToObject(o, t->column[i].key);
    if (r->report)
        cJSON_AddStringToObject(o, "report_thor", r->report);
    return o;
}

static int print_json(const lab *l)
{
    cJSON *json = cli_json("pivot.lab/1");
    cJSON_AddStringToObject(json, "name", l->command->name);
    cJSON_AddStringToObject(json, "device", l->device.name);
    cJSON_AddStringToObject(json, "backend", l->device.backend);
    cJSON_AddStringToObject(json, "library", l->device.library);
    cJSON_AddStringToObject(json, "driver", l->device.driver);
    cJSON_AddStringToObject(json, "version", pv_version());
    cJSON_AddStringToObject(json, "git", PV_GIT_ID);
    cJSON_AddStringToObject(json, "date", l->date);
    cJSON_AddStringToObject(json, "model", l->common.model);
    cJSON_AddStringToObject(json, "recipe", l->common.recipe ? l->common.recipe : "f32");
    cJSON *rows = cJSON_AddArrayToObject(json, "rows");
    for (const lab_table *t = l->tables; t; t = t->next)
        for (const lab_row *r = t->first; r; r = r->next)
            cJSON_AddItemToArray(rows, row_json(t, r));
    cJSON *notes = cJSON_AddArrayToObject(json, "notes");
    for (const lab_note *n = l->notes; n; n = n->next)
        cJSON_AddItemToArray(notes, cJSON_CreateString(n->text));
    return cli_json_print(&l->common, json);
}

int lab_print(lab *l)
{
    if (!l->common.json)
        print_page(l);
    return l->common.json || l->common.json_file.value ? print_json(l) : CLI_OK;
}
