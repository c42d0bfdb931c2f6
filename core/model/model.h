/* model.h - one checkpoint: configuration, where its weights are, tokenizer, statistics. Const once loaded, but for the
 * embedding table, which the first session brings in. */
#ifndef PV_MODEL_MODEL_H
#define PV_MODEL_MODEL_H

#include "checkpoint.h"
#include "config.h"
#include "io/stats.h"
#include "io/tokenizer.h"
#include "pi05.h"
#include "synthetic.h"

struct pv_model {
    pv_config config;
    const char *layout;         /* "openpi", "lerobot", "file", "synthetic" */
    pv_graph *wanted;           /* built only to know every weight's name and shape */
    pv_checkpoint *checkpoint;  /* NULL: synthetic */
    pv_weight_source source;
    pv_tokenizer *tokenizer;    /* NULL: token ids only */
    pv_stats *stats;            /* NULL: model units */
    pv_norm_rule rule;
    uint64_t parameters;
    char *path;                 /* as it was asked for */
    char *stats_path, *tokenizer_path; /* what was read, for reports; NULL: embedded or none */
    void *embedding;            /* [vocab, width] as stored; guarded by pv_model_embedding */
    pv_dtype embedding_dtype;
};

/* The table in host memory, read once for all sessions. */
pv_status pv_model_embedding(pv_model *m, pv_progress_fn progress, void *user);

/* Rows of the table as stored: ids[n] -> dst [n][width]. PV_E_ARG for an id outside the vocabulary. */
pv_status pv_model_embed(const pv_model *m, const int32_t *ids, int n, void *dst);

/* Of all weights (a sample of each tensor), and of the statistics (0: there are none). Reads some hundred KB of the file. */
typedef struct pv_identity {
    uint64_t weights, stats;
} pv_identity;
pv_status pv_model_identity(const pv_model *m, pv_identity *out);

/* The graph for one shape, with the dtypes in which the weights are stored. */
pv_status pv_model_build(const pv_model *m, const pv_pi05_shape *shape, pv_graph **out);

#endif
