/* policy.h - a policy at work in a thread of its own, for nodes of any middleware: the latest observation in,
 * chunks out.
 *
 * Of observations that come while one is at work only the last is kept. Whatever goes wrong comes out as
 * words in place of actions, and what is to be done then is the node's business: to stop. Nothing here knows
 * ROS. */
#ifndef PIVOT_ROS2_POLICY_H
#define PIVOT_ROS2_POLICY_H

#include <pivot.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct policy policy;

typedef struct policy_result {
    const char *error; /* NULL: the actions are good */
    uint64_t id;       /* of policy_seen */
    int64_t stamp_ns;  /* of policy_seen */
    int horizon, dims;
    const double *actions; /* [horizon][dims], the robot's; only during the call */
    pv_timing timing;      /* age_ms: of the observation when the chunk was there. All zero with an error */
} policy_result;

typedef struct policy_options {
    const char *model, *robot;                     /* as for pv_model_load and pv_robot_load */
    const char *backend, *device, *recipe;         /* NULL: "cpu", its first device, "f32" */
    const char *tokenizer, *norm_stats, *schedule; /* NULL: as the model's folder has them, openpi's */
    pv_switch discrete_state;
    int steps;         /* 0: the model's */
    double max_age_ms; /* a chunk of an older observation is an error; 0: any age will do */
    void (*done)(void *user, const policy_result *result); /* called by the policy's thread */
    void *user;
} policy_options;

typedef struct policy_seen {
    const pv_field *fields;
    int n_fields;
    uint64_t id;
    int64_t stamp_ns; /* comes back as it is */
    double seen_ms;   /* when it was seen, of pv_clock_ms() */
} policy_seen;

/* Loads everything, which takes as long as the weights take. On failure pv_error_text() says why and *out is
 * NULL. */
pv_status policy_open(const policy_options *options, policy **out);
void policy_close(policy **p); /* waits for the inference at work; `done` is not called after it */

/* Copies the observation and returns. One thread at a time. An observation that waited is forgotten. */
pv_status policy_put(policy *p, const policy_seen *seen);

const pv_robot_info *policy_robot(const policy *p);

#ifdef __cplusplus
}
#endif

#endif
