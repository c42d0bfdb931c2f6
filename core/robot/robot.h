/* robot.h - a robot as data (docs/robots.md): read from JSON once, then const.
 *
 * Where it stands, in openpi's order: robot -> normalise -> model -> unnormalise -> relative actions -> robot. What is
 * between the two ends is the session's: a frame holds numbers in the units of the statistics, and actions come from the
 * session in these units. Sources of the built-in three: openpi src/openpi/policies/{libero,droid,aloha}_policy.py,
 * src/openpi/transforms.py (AbsoluteActions). All numbers are float64, as numpy computes them there. */
#ifndef PV_ROBOT_ROBOT_H
#define PV_ROBOT_ROBOT_H

#include "base/arena.h"
#include "io/processors.h"

#define PV_ROBOT_MAX_DIM     256
#define PV_ROBOT_MAX_CONVERT 32
#define PV_ROBOT_MAX_BYTES   ((size_t)1 << 20) /* of a description */

typedef enum pv_layout { PV_LAYOUT_AUTO, PV_LAYOUT_HWC, PV_LAYOUT_CHW } pv_layout;

typedef struct pv_robot_camera {
    const char *slot, *key; /* key NULL: always absent */
    pv_layout layout;
    bool bgr, optional;
    bool is_signed; /* floats are in [-1, 1], else in [0, 1] */
    bool nearest;   /* floats in [0, 1] become the nearest level, else the one below */
} pv_robot_camera;

typedef enum pv_convert_op {
    PV_CONVERT_MULTIPLY,         /* by[i] * x */
    PV_CONVERT_ADD,              /* x + a */
    PV_CONVERT_NORMALIZE,        /* (x - a) / (b - a) */
    PV_CONVERT_UNNORMALIZE,      /* x * (b - a) + a */
    PV_CONVERT_LINEAR_TO_RADIAN, /* asin(clip((b^2 + x^2 - a^2) / (2 b x), -1, 1)): arm a, horn b */
    PV_CONVERT_COUNT
} pv_convert_op;

typedef struct pv_convert {
    pv_convert_op op;
    double a, b;
    int n;
    int *dim;   /* [n] */
    double *by; /* [n]; multiply alone */
} pv_convert;

typedef struct pv_converts {
    int n;
    pv_convert op[PV_ROBOT_MAX_CONVERT];
} pv_converts;

struct pv_robot {
    pv_arena arena; /* of all that is pointed to */
    const char *name, *about, *json;
    bool f32; /* lerobot's rules: float32, and actions are relative to the state as it was sent */
    int n_cameras;
    pv_robot_camera camera[PV_MAX_CAMERAS];
    int n_ignore, n_closed;
    const char **ignore; /* keys that may come and are not used */
    const char **closed; /* beginnings of keys under which only named keys may come */
    int n_state_keys, state_dim;
    const char *state_key[PV_MAX_STATE_KEYS];
    int state_key_dim[PV_MAX_STATE_KEYS];
    pv_converts state_convert;
    const char *prompt_key, *default_prompt;
    int action_dim;
    bool relative; /* any of delta */
    bool delta[PV_ROBOT_MAX_DIM];
    pv_converts action_convert;
};

/* n bytes of JSON; `where` names them in error words. */
pv_status pv_robot_parse(const char *json, size_t n, const char *name, const char *where, pv_robot **out);

/* What a checkpoint of lerobot says, as a description. */
pv_status pv_robot_from_processors(const pv_processors *p, const char *name, pv_robot **out);

/* All conversions over x, in their order. */
void pv_convert_run(const pv_converts *c, double *x);

/* The built-in descriptions, made from the JSON files here. Ends with a name NULL. */
typedef struct pv_robot_text {
    const char *name, *json;
} pv_robot_text;
extern const pv_robot_text pv_robot_texts[];

#endif
