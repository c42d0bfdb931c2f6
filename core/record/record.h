/* record.h - an inference in a file (docs/recordings.md): a safetensors file, so that numpy, torch and the
 * shell read it with what they have. Tensors hold what is numbers, __metadata__ what is words:
 *
 *   observation.KEY  a field as it came, its dtype and shape     noise          F32 [horizon, model_dim]
 *   text.KEY         a text as it came, U8 [bytes]               timesteps      F32 [steps + 1]
 *   actions          F64 [horizon, dims], the robot's            tokens         I32 [n], the prompt's
 *   model_actions    F32 [horizon, model_dim]
 *
 * recorder.c writes, recording.c reads. What is read may be anybody's: everything is checked before memory is
 * asked for. */
#ifndef PV_RECORD_RECORD_H
#define PV_RECORD_RECORD_H

#include "base/status.h"

#define PV_RECORD_FORMAT     "pivot.record/1"
#define PV_RECORD_MAX_FIELDS 256
#define PV_RECORD_MAX_BYTES  ((uint64_t)512 << 20) /* of a file */

/* How a field's type is spelled in the file. Text is U8 under another prefix. */
const char *pv_record_dtype(pv_field_type type);

typedef struct pv_recording pv_recording; /* one file, read whole */

/* PV_E_FILE: not a recording, or one that contradicts itself; file and tensor or key are named. */
pv_status pv_recording_open(const char *path, pv_recording **out);
void pv_recording_close(pv_recording **r);

typedef struct pv_recorded {
    const pv_field *fields; /* as they came */
    int n_fields;
    bool robot; /* they are a robot's; else they are those of an observation: pv_recording_plain */
    int horizon, model_dim, action_dim, steps, n_tokens, max_steps;
    const float *noise, *times, *model_actions;
    const double *actions;
    const int32_t *tokens;
    const char *schedule; /* NULL: of no name, the times are the caller's own */
    bool rope_bf16, allow_truncation;
} pv_recorded;

const pv_recorded *pv_recording_look(const pv_recording *r);
const char *pv_recording_text(const pv_recording *r, const char *key); /* of __metadata__; NULL: absent */

/* The observation of a recording without a robot; it points into the recording. */
pv_status pv_recording_plain(pv_recording *r, pv_observation *out);

#endif
