/* instance.h - a plan at work: its buffers on the device and the recording against them.
 * Created once; after that nothing is allocated. One thread at a time. */
#ifndef PV_PLAN_INSTANCE_H
#define PV_PLAN_INSTANCE_H

#include "plan.h"
#include "weights.h"

typedef struct pv_instance {
    const pv_plan *plan;
    pv_buffers buffers;
    pv_recording *recording;
    bool begun; /* some stages of the next run */
} pv_instance;

/* `weights` must hold what the plan needs (pv_weights_load); NULL for a plan without weights. Both must outlive it. */
pv_status pv_instance_create(const pv_plan *plan, const pv_weights *weights, pv_instance **out);
void pv_instance_destroy(pv_instance **inst);

/* Bytes [at, at + n) of an input, state or output. Between runs only; but see pv_instance_begin. */
pv_status pv_instance_write(pv_instance *inst, const pv_tensor *t, size_t at, const void *src, size_t n);
pv_status pv_instance_read(pv_instance *inst, const pv_tensor *t, size_t at, void *dst, size_t n);

/* Host memory that stands for an input of the program: what was put there counts once pv_instance_write was called with that
 * place as its source, and is not to be touched until the next run is over. */
void *pv_instance_map(pv_instance *inst, const pv_tensor *t);

/* Starts stages of the next run, which has to name them too, where the backend can; inputs that they do not read may still be
 * written. Where that run does not come after all, because of `st`, pv_instance_abandon waits for them; st and its
 * words stay; PV_OK becomes what the wait says. */
pv_status pv_instance_begin(pv_instance *inst, uint32_t stages);
pv_status pv_instance_abandon(pv_instance *inst, pv_status st);

/* Runs stages (bits 1 << pv_stage) and waits. With run.result its bytes are at run.to then. timing may be NULL; its times are added to what is there. */
pv_status pv_instance_run(pv_instance *inst, pv_run run, pv_run_timing *timing);

#endif
