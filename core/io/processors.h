/* processors.h - what a checkpoint of lerobot says about its robot: policy_preprocessor.json,
 * policy_postprocessor.json with their files of statistics, and the features of config.json.
 *
 * Each pipeline is a list of steps {registry_name, config, state_file}; the statistics are tensors F32 of the state
 * files, named feature.statistic (observation.state.q01). Sources: lerobot src/lerobot/processor (normalize_processor.py,
 * rename_processor.py, relative_action_processor.py, tokenizer_processor.py) and policies/pi05/processor_pi05.py. Nothing
 * is passed over: a step, a key of a step or an order of steps that is not known is refused by name, since what it would
 * do to the numbers is not known either. */
#ifndef PV_IO_PROCESSORS_H
#define PV_IO_PROCESSORS_H

#include "base/arena.h"
#include "json.h"
#include "stats.h"

#define PV_PROCESSORS_PRE  "policy_preprocessor.json"
#define PV_PROCESSORS_POST "policy_postprocessor.json"
#define PV_PROCESSORS_DIM  256 /* most numbers of a state, and of an action */

typedef struct pv_processors {
    pv_arena arena;                   /* of the text */
    int n_cameras;                    /* in the order of config.json's input_features, which is the model's */
    const char *slot[PV_MAX_CAMERAS]; /* the last part of the feature's name */
    const char
        *camera[PV_MAX_CAMERAS]; /* the key of an observation, before it is renamed; NULL: never there */
    const char *state_key, *task_key;
    int state_dim, action_dim;
    bool relative, is_relative[PV_PROCESSORS_DIM]; /* any, and which actions the state is added to */
    int max_tokens;
    pv_stats *stats; /* with their modes; NULL: the files carry none */
} pv_processors;

/* Has the folder one of the two files? The other is then missed. */
bool pv_processors_in(const char *folder);

/* PV_E_FILE: missing, malformed, not as lerobot writes it; PV_E_UNSUPPORTED: a step, a mode or an order that
 * is not known here. The words name file, step and key. */
pv_status pv_processors_read(const char *folder, pv_processors **out);

/* The same from the three trees; state files are looked for in `folder`. */
pv_status pv_processors_parse(const cJSON *config, const cJSON *pre, const cJSON *post, const char *folder,
                              pv_processors **out);
void pv_processors_free(pv_processors **processors);

#endif
