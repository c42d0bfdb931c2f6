/* verify_gate.h - a gate: bounds on errors in a JSON file, for a step of CI. docs/ci.md.
 *
 *   {"schema": "pivot.gate/1", "recipe": "bf16", "bounds": {"step.layer0.q": {"own": 1e-6, "from_start":
 * 2e-3}, "vision.*": ...}}
 *
 * A name may have '*' and alternatives with '|'; the name in full wins, then the first pattern that fits.
 * What a gate bounds is judged by that in place of budgets, bounds and equal bytes; what it does not is
 * judged as without it. A gate that bounds what was not compared has not been kept. */
#ifndef PV_TOOLS_VERIFY_GATE_H
#define PV_TOOLS_VERIFY_GATE_H

#include "verify.h"
#include <cjson/cJSON.h>

struct verify_gate {
    cJSON *json;
    const cJSON *bounds;
};

/* Checked in full. `recipe` and `ref_recipe` (NULL: a trace) are those of the run: a gate that names others
 * is refused. */
pv_status verify_gate_read(const char *path, const char *recipe, const char *ref_recipe, verify_gate *out);
void verify_gate_free(verify_gate *g);

/* The first name in the gate that bounds what `r` has not; NULL: none. */
const char *verify_gate_missing(const verify_gate *g, const verify_report *r);

/* A gate of what was measured, with room for twice as much: other processors round elsewhere. */
pv_status verify_gate_write(const char *path, const char *recipe, const char *ref_recipe,
                            const verify_report *r);

#endif
