/* verify_dump.c - what the probe computed, written under the trace's names; masked rows are 0. Whole tensors also where the
 * trace has samples. */
#include "base/memory.h"
#include "verify_trace.h"

#include <string.h>

static pv_status copy_input(const verification *v, pv_st_writer *w, const pv_st_tensor *t)
{
    void *raw = pv_alloc((size_t)t->bytes);
    pv_status st = raw ? pv_safetensors_read(v->trace, t, 0, t->n_elements, raw) : PV_E_MEMORY;
    if (!st)
        st = pv_st_writer_data(w, raw, (size_t)t->bytes);
    pv_free(raw);
    return st;
}

/* Inputs, the times of schedules among them: what was computed belongs to the times of the trace. */
static bool is_input(const verify_entry *e)
{
    return e->whole && (!strncmp(e->name, "in.", 3) ||
                        (e->what.kind == TRACE_SCHEDULE && e->what.part == TRACE_TIMESTEPS));
}

static pv_dtype dumped_dtype(const verify_entry *e)
{
    return e->what.kind == TRACE_PAD_MASK ? PV_U8 : e->ours && e->ours->dtype == PV_I32 ? PV_I32 : PV_F32;
}

static pv_status declare(const verification *v, pv_st_writer *w, const verify_entry *e)
{
    if (is_input(e))
        return pv_st_writer_declare(w, e->name, e->whole->dtype, e->whole->n_dims, e->whole->dim);
    if (e->whole && e->whole->n_elements == e->n_kept)
        return pv_st_writer_declare(w, e->name, dumped_dtype(e), e->whole->n_dims, e->whole->dim);
    int64_t width = verify_width(e, v->c);
    return pv_st_writer_declare(w, e->name, dumped_dtype(e), 2, (int64_t[]){e->n_kept / width, width});
}

static pv_status write_kept(pv_st_writer *w, const verify_entry *e)
{
    pv_dtype dtype = dumped_dtype(e);
    size_t bytes = pv_dtype_bytes(dtype, (size_t)e->n_kept);
    if (dtype == PV_F32)
        return pv_st_writer_data(w, e->kept, bytes);
    void *whole_numbers = pv_alloc(bytes);
    if (!whole_numbers)
        return PV_E_MEMORY;
    for (int64_t i = 0; i < e->n_kept; i++)
        if (dtype == PV_U8)
            ((uint8_t *)whole_numbers)[i] = (uint8_t)e->kept[i];
        else
            ((int32_t *)whole_numbers)[i] = (int32_t)e->kept[i];
    pv_status st = pv_st_writer_data(w, whole_numbers, bytes);
    pv_free(whole_numbers);
    return st;
}

pv_status verify_write_dump(const verification *v, const char *path)
{
    pv_st_writer *w = NULL;
    const verify_report *r = v->report;
    pv_status st = pv_st_writer_begin(path, &w);
    for (int i = 0; !st && i < r->n_entries; i++)
        if (is_input(&r->entries[i]) || r->entries[i].kept)
            st = declare(v, w, &r->entries[i]);
    for (int i = 0; !st && i < r->n_entries; i++) {
        const verify_entry *e = &r->entries[i];
        if (is_input(e))
            st = copy_input(v, w, e->whole);
        else if (e->kept)
            st = write_kept(w, e);
    }
    if (!st)
        return pv_st_writer_end(&w);
    pv_st_writer_abort(&w);
    return st;
}
