/* pivot.h - the public door of libpivot: robot policy Pi0.5 in, action chunk out.
 *
 * Rules that hold for everything below:
 *   - A function that can fail returns pv_status; the reason in words (what was expected, what came, where)
 *     is pv_error_text(), kept per thread until the thread's next failing call.
 *   - Every handle has one owner and one destroyer. A destroyer takes the handle's address, leaves NULL
 *     behind and welcomes NULL.
 *   - Structs begin with `size`, which the caller sets to sizeof the struct (or leaves 0, which means the
 *     same) before the call, also where the library fills it in; another size than one it knows is PV_E_ARG. All
 *     other zero values of parameters are sensible defaults. A struct need only live during the call.
 *   - Strings are UTF-8. Images are RGB, 8 bit, row by row from the top.
 *   - The library never exits, aborts or prints to stdout. Of the environment it reads where it may keep things
 *     (pv_backend_params.cache), and the CUDA backend which kernels and launches to
 *     avoid (PIVOT_CUDA_PLAIN, PIVOT_CUDA_DEPENDENT: docs/building.md).
 *   - A NaN or an infinity never leaves it: input that is not finite is refused, and a chunk that is not
 *     finite is a status with the caller's buffer untouched.
 *
 * Threads: a pv_model and a pv_backend may be shared by any number of threads. A pv_session belongs to one
 * thread at a time; sessions of one model may run in parallel. pv_set_log and pv_set_allocator are to be
 * called before anything else.
 */
#ifndef PIVOT_H
#define PIVOT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define PV_API __attribute__((visibility("default")))
#else
#define PV_API
#endif

#define PV_VERSION_MAJOR 0
#define PV_VERSION_MINOR 1
#define PV_VERSION_PATCH 0
#define PV_ABI_VERSION   1

/* ---- Status ------------------------------------------------------------------------------------------ */

#define PV_STATUS_LIST(X)                                                                                    \
    X(OK, "ok")                                                                                              \
    X(E_ARG, "bad argument")                                                                                 \
    X(E_SHAPE, "shape or dtype does not fit")                                                                \
    X(E_FILE, "file missing, unreadable or malformed")                                                       \
    X(E_CHECKPOINT, "checkpoint is not a complete Pi0.5 policy")                                             \
    X(E_MEMORY, "out of memory")                                                                             \
    X(E_NOT_FINITE, "a value is NaN or infinite")                                                            \
    X(E_NO_KERNEL, "the backend has no kernel for this op")                                                  \
    X(E_UNAVAILABLE, "backend or device not available")                                                      \
    X(E_DEVICE, "device error")                                                                              \
    X(E_UNSUPPORTED, "not supported by this build")

typedef enum pv_status {
#define X(name, text) PV_##name,
    PV_STATUS_LIST(X)
#undef X
        PV_STATUS_COUNT
} pv_status;

PV_API const char *pv_status_name(pv_status status); /* "E_SHAPE" */
PV_API const char *pv_status_text(pv_status status); /* "shape or dtype does not fit" */

/* Why this thread's last failing call failed, in words. Never NULL; valid until that thread fails again. */
PV_API const char *pv_error_text(void);

PV_API const char *pv_version(void);    /* "0.1.0" */
PV_API uint32_t pv_abi_version(void);   /* PV_ABI_VERSION the library was built with */
PV_API double pv_clock_ms(void);        /* milliseconds of CLOCK_MONOTONIC, by which ages are told */

/* ---- Log and memory: process-wide, set before anything else ------------------------------------------ */

typedef enum pv_log_level { PV_LOG_DEBUG, PV_LOG_INFO, PV_LOG_WARN, PV_LOG_ERROR, PV_LOG_NONE } pv_log_level;
typedef void (*pv_log_fn)(void *user, pv_log_level level, const char *text);

/* Messages of `least` and above go to `fn` (one line, no newline), from whichever thread has them, also from several at once. fn NULL:
 * stderr. Default: stderr, WARN. */
PV_API void pv_set_log(pv_log_fn fn, void *user, pv_log_level least);

typedef struct pv_allocator {
    size_t size;
    void *user;
    void *(*alloc)(void *user, size_t bytes, size_t alignment); /* NULL when it cannot; bytes > 0 */
    void (*release)(void *user, void *memory);                  /* memory is not NULL */
} pv_allocator;

/* All host memory of the library comes from `allocator` from now on. NULL restores the C library's.
 * PV_E_ARG while the library still holds memory of the allocator before. */
PV_API pv_status pv_set_allocator(const pv_allocator *allocator);

/* ---- Backends ---------------------------------------------------------------------------------------- */

typedef struct pv_backend pv_backend; /* an opened device */

typedef struct pv_backend_params {
    size_t size;
    const char *device; /* index, name or UUID as pv_devices tells, or a part of a name that belongs to no other; NULL: the first
                         * that is not software, which is used only when it is named */
    int threads;        /* CPU: worker threads, 0: one for each core this process may use */
    int sms;            /* CUDA: run on so many multiprocessors alone, rounded up to what the device can set apart (Hopper: to
                         * a multiple of 8), as if there were no more; 0: all. PV_E_UNAVAILABLE where that cannot be had */
    const char *cache;  /* folder for what takes time to make and is worth keeping (CUDA: algorithms of products; Vulkan: pipelines).
                         * "": none; NULL: $PIVOT_CACHE, where that is set, else $XDG_CACHE_HOME/pivot, else ~/.cache/pivot, else none */
} pv_backend_params;

/* name: "cpu", "cuda", "vulkan". PV_E_UNAVAILABLE: no such backend, its file or driver is not installed, or no such device on this
 * machine. The CPU backend runs its own threads and sets OpenBLAS to one thread a call; results do not depend on the
 * number of threads. The CUDA backend is libpivot-cuda.so, opened when it is asked for: looked for beside the program or
 * library that holds this code, in ../lib from there, and where the loader looks. The Vulkan backend tests its kernels beside the CPU
 * the first time a device, driver and build meet, which takes seconds, and keeps the outcome in `cache`. */
PV_API pv_status pv_backend_open(const char *name, const pv_backend_params *params, pv_backend **out);
PV_API void pv_backend_close(pv_backend **backend); /* after the sessions that use it */
PV_API const char *pv_backend_name(const pv_backend *backend);

typedef struct pv_device_info {
    size_t size;
    char backend[16];
    char name[128];
    char uuid[48];          /* empty where the device has none */
    char library[128];      /* what computes: "OpenBLAS 0.3.21 SkylakeX" */
    uint64_t memory_bytes;  /* in all */
    bool unified;           /* the device's memory is the host's */
    int sms;                /* multiprocessors that are run on; 0: a device without such */
    char driver[32];        /* version; empty: none, or not known */
    int clock_mhz, memory_clock_mhz, power_limit_watts; /* as they are now; 0: not known */
    char unknown[128];      /* which of them and why; empty: all are known, or the device has none to tell */
    bool software;          /* a GPU's interface on a processor (llvmpipe): used only when it is named */
    char supports[1536];    /* what decides which kernels it can run: lines "name: value\n" */
    char identity[256];     /* device, driver and the kernels of this build in one text: what is kept about it, is kept under that */
} pv_device_info;

PV_API pv_status pv_backend_device(const pv_backend *backend, pv_device_info *out);

/* Devices of a backend: up to *n of them in `out`, *n becomes how many there are. */
PV_API const char *pv_backend_list(int i); /* name of backend i = 0, 1, ... that may be asked for, NULL behind the last */
PV_API pv_status pv_devices(const char *backend, pv_device_info *out, int *n);

/* ---- Model: configuration and weights of one checkpoint ----------------------------------------------- */

typedef struct pv_model pv_model;

/* What loading reports: bytes of weights done and in all. Called on the loading thread. */
typedef void (*pv_progress_fn)(void *user, const char *what, uint64_t done, uint64_t total);

typedef enum pv_switch { PV_AUTO, PV_ON, PV_OFF } pv_switch;

typedef struct pv_model_params {
    size_t size;
    const char *config;      /* JSON file with our keys (docs/config.md); wins over what the folder says */
    const char *tokenizer;   /* SentencePiece model; NULL: looked for in the folder */
    const char *norm_stats;  /* norm_stats.json; NULL: looked for in the folder's assets/ */
    const char *asset_id;    /* which of several assets/ASSET_ID/norm_stats.json; of a synthetic model: "14x12", made-up
                              * statistics of 14 numbers of state and 12 of actions */
    int horizon;             /* action steps in a chunk; 0: as the folder or `config` says (weights do not store it) */
    pv_switch discrete_state; /* is the state told as digits in the prompt? AUTO: as the folder or `config` says */
    pv_switch zscore;        /* ON: mean and standard deviation in place of quantiles. AUTO: as the folder or `config` says */
} pv_model_params;

/* path: a folder as published by openpi's PyTorch exporter or by lerobot; a .safetensors file (params->config then says
 * the dimensions); "synth:full" or "synth:tiny", a deterministic checkpoint made from a hash, for which there is no file.
 * Checks that every tensor is there with its shape and that nothing is left over; weights are read when a session is
 * made. PV_E_FILE, PV_E_CHECKPOINT (pi0, adapter, missing or extra tensors), each with the name. */
PV_API pv_status pv_model_load(const char *path, const pv_model_params *params, pv_model **out);
PV_API void pv_model_free(pv_model **model); /* after the sessions that use it */

#define PV_MAX_CAMERAS 16

typedef struct pv_model_info {
    size_t size;
    int horizon;      /* rows of a chunk */
    int model_dim;    /* columns of a chunk in model units, and of the noise */
    int action_dim;   /* columns of a chunk in robot units: as the statistics say; model_dim without statistics */
    int state_dim;    /* most numbers a state may have: as the statistics say; model_dim without statistics */
    int max_tokens;   /* of the prompt */
    int image_size;   /* side of the picture the model sees */
    int steps;        /* denoising steps unless a call says otherwise */
    int n_cameras;
    const char *camera[PV_MAX_CAMERAS]; /* names, in the model's order; they live as long as the model */
    bool has_stats, has_tokenizer, discrete_state, zscore;
    const char *layout; /* "openpi", "lerobot", "file", "synthetic" */
    uint64_t parameters;
} pv_model_info;

PV_API pv_status pv_model_describe(const pv_model *model, pv_model_info *out);

/* ---- Session: one robot's policy at work --------------------------------------------------------------- */

typedef struct pv_session pv_session;

typedef struct pv_session_params {
    size_t size;
    const char *recipe;  /* "f32" (default): f32 arithmetic on weights as stored; "bf16": bf16 weights and activations;
                          * "openpi", "lerobot": rounds where those do in bf16, to be compared with them (docs/precision.md) */
    int max_steps;       /* steps whose time tables are held at once; 0: the model's. More run in several rounds. A GPU records so
                          * many as one: fewer are submitted one by one, a little slower, so name what is asked for most */
    bool rope_bf16;      /* round RoPE's frequencies to bf16, as openpi's bf16 serving does */
    pv_progress_fn progress;
    void *progress_user;
} pv_session_params;

/* Loads the weights onto the backend (sessions of one model, backend and recipe share them) and plans for all cameras
 * and the whole prompt. Observations with fewer cameras or a much shorter prompt get plans of their own the first time
 * they come, or the first picture of another size; after that pv_session_infer with token ids allocates nothing (the
 * tokenizer works on words). Results do not depend on max_steps, nor on what was asked before. */
PV_API pv_status pv_session_create(pv_model *model, pv_backend *backend, const pv_session_params *params,
                                   pv_session **out);
PV_API void pv_session_destroy(pv_session **session);

typedef struct pv_image {
    const char *camera;    /* one of pv_model_info.camera */
    const uint8_t *pixels; /* RGB, [height][stride] */
    int width, height;     /* 1..8192; resized with black padding to image_size, as openpi does with PIL */
    size_t stride;         /* bytes from row to row; 0: 3 * width */
} pv_image;

typedef struct pv_observation {
    size_t size;
    const pv_image *images; /* at least one; a camera that is not there is absent, as openpi's image mask says */
    int n_images;
    const char *prompt;     /* the task in words ... */
    const int32_t *tokens;  /* ... or, when not NULL, token ids in its place, used as they are */
    int n_tokens;
    const double *state;    /* robot units: as in the statistics; needed when the state is told in the prompt */
    int n_state;
    uint64_t id;            /* the caller's; comes back as pv_timing.observation. 0: the session counts, from 1 */
    double seen_ms;         /* when it was seen, of pv_clock_ms(); pv_timing.age_ms counts from there. 0: from the call */
} pv_observation;

typedef struct pv_infer_params {
    size_t size;
    const float *noise;       /* [horizon][model_dim], or NULL: drawn from `seed` */
    uint64_t seed;
    int steps;                /* 0: the model's */
    const char *schedule;     /* "openpi" (default), "lerobot", "linear", "cosine", "quadratic", "sigmoid" */
    const float *timesteps;   /* [steps + 1] from 1 (noise) down to 0 (actions), in place of `schedule` */
    bool allow_truncation;    /* cut a prompt that is too long at its end; else it is PV_E_ARG */
    float *model_actions;     /* optional: the chunk in model units, [horizon][model_dim] */
    double *actions_f64;      /* optional: the chunk in robot units before rounding to float */
} pv_infer_params;

/* Runs the policy once. Blocks until the actions are there.
 *   actions  [horizon][action_dim], robot units (as in the statistics: radians, metres), model units without statistics
 *   params   NULL: defaults
 * PV_E_ARG, PV_E_SHAPE, PV_E_NOT_FINITE: the observation does not fit; nothing was run. PV_E_NOT_FINITE also when the
 * chunk is not finite. PV_E_DEVICE: a call on the device failed; when the words say that the process has to be started anew,
 * the device is lost to it, and this session and all others on the backend refuse from now on (docs/errors.md). On any
 * failure no caller's buffer was written. One thread a session at a time. */
PV_API pv_status pv_session_infer(pv_session *session, const pv_observation *observation,
                                  const pv_infer_params *params, float *actions);

typedef struct pv_timing {
    size_t size;
    double observe_ms, vision_ms, prefix_ms, schedule_ms, denoise_ms, total_ms; /* of the last inference */
    int prefix_tokens;  /* valid ones */
    int prompt_tokens;
    int steps;
    bool truncated;     /* the prompt was cut */
    int state_outside;  /* numbers of the state outside q01..q99 */
    double run_ms;      /* of total_ms: from the begin of the first stage to the end of the last, as the device's clock has it */
    uint64_t observation; /* which one: pv_observation.id */
    double age_ms;      /* of the observation when its chunk was there, from pv_observation.seen_ms on */
} pv_timing;

PV_API pv_status pv_session_timing(const pv_session *session, pv_timing *out);

typedef struct pv_memory_info {
    size_t size;
    uint64_t weights_bytes; /* on the backend, shared by sessions */
    uint64_t host_bytes;    /* weights kept on the host: the embedding table */
    uint64_t state_bytes, scratch_bytes, io_bytes, const_bytes; /* of all plans this session holds */
    int plans;
} pv_memory_info;

PV_API pv_status pv_session_memory(const pv_session *session, pv_memory_info *out);

/* ---- Robot: a robot's own observations and actions -------------------------------------------------------- */

/* One value of an observation as a robot sends it. Maps in maps are flattened with '/': "images/cam_high". */
typedef enum pv_field_type {
    PV_FIELD_U8, PV_FIELD_I32, PV_FIELD_I64, PV_FIELD_F32, PV_FIELD_F64, PV_FIELD_BOOL, PV_FIELD_TEXT, PV_FIELD_TYPE_COUNT
} pv_field_type;

typedef struct pv_field {
    const char *key;
    pv_field_type type;
    int n_dims;       /* 0 (one number) to 4 */
    int64_t dim[4];
    const void *data; /* C order, of the host's byte order, aligned or not. Text: UTF-8, dim[0] bytes, not terminated */
} pv_field;

/* A robot as data: which keys hold its pictures, state and prompt, what is converted on the way in and out
 * (docs/robots.md). It does not change: any number of threads may share it. */
typedef struct pv_robot pv_robot;

/* "libero", "droid", "aloha" (pv_robot_list), else the path of a JSON file, or a folder of lerobot whose processors say what
 * it is. PV_E_FILE with the key that is wrong; PV_E_UNSUPPORTED: a step of the processors that is not known here. */
PV_API pv_status pv_robot_load(const char *name_or_path, pv_robot **out);
PV_API void pv_robot_free(pv_robot **robot);
PV_API const char *pv_robot_list(int i); /* name of built-in robot i = 0, 1, ..., NULL behind the last */

#define PV_MAX_STATE_KEYS 16

typedef struct pv_robot_info {
    size_t size;
    const char *name, *about;           /* strings live as long as the robot */
    int n_cameras;
    const char *slot[PV_MAX_CAMERAS];   /* the model's camera ... */
    const char *key[PV_MAX_CAMERAS];    /* ... and the key of its picture; NULL: this robot has none, the camera stays absent */
    bool optional[PV_MAX_CAMERAS];      /* the picture may be missing: the camera is then absent */
    int n_state_keys;
    const char *state_key[PV_MAX_STATE_KEYS]; /* one behind the other they are the state */
    int state_key_dim[PV_MAX_STATE_KEYS];
    int state_dim;                      /* numbers of the state */
    const char *prompt_key;
    const char *default_prompt;         /* where no prompt comes; NULL: there must be one */
    int action_dim;                     /* columns of its actions */
    bool delta;                         /* some of the model's actions are relative to the state */
    const char *json;                   /* the whole description */
} pv_robot_info;

PV_API pv_status pv_robot_describe(const pv_robot *robot, pv_robot_info *out);

/* What a robot saw, as the model takes it: pictures RGB u8 row by row, state in the units of the statistics, prompt. A frame
 * holds copies, so fields may go. One thread a frame at a time. */
typedef struct pv_frame pv_frame;

/* Fields to a frame. *frame NULL: a new one; else an earlier frame, whose memory is used again; after a failure it holds no
 * observation. Keys that the robot does not know are passed over, except where it says otherwise. PV_E_ARG, PV_E_SHAPE,
 * PV_E_NOT_FINITE: key, what was expected, what came. */
PV_API pv_status pv_robot_observe(const pv_robot *robot, const pv_field *fields, int n_fields, pv_frame **frame);
PV_API const pv_observation *pv_frame_observation(const pv_frame *frame); /* for pv_session_infer; NULL: it holds none */
PV_API void pv_frame_free(pv_frame **frame);

/* Actions of a session (pv_infer_params.actions_f64, [horizon][dims], dims the model's action_dim) to those of the robot:
 * out [horizon][action_dim of the robot]. frame: the one inferred from, for actions relative to its state. model: the one
 * inferred with; NULL: that state as it came, not as it comes back from the model's statistics. On failure out is untouched. */
PV_API pv_status pv_robot_act(const pv_robot *robot, const pv_model *model, const pv_frame *frame, const double *actions,
                              int horizon, int dims, double *out);

/* ---- Recordings: an inference in a file, to be run again (docs/recordings.md) ------------------------------ */

typedef struct pv_recorder_params {
    size_t size;
    uint64_t limit_bytes; /* of all .safetensors files in the folder, those that were there included; 0: 1 GiB */
    int queue;            /* most recordings that wait for the disk, 1..64; 0: 8 */
} pv_recorder_params;

/* Writes recordings into a folder, in a thread of its own. Any thread may use it. */
typedef struct pv_recorder pv_recorder;

/* folder: made where it is not there. For inferences of `session`, and of others of its model and backend. Reads a sample of
 * the weights, to tell later whether they are the same. */
PV_API pv_status pv_recorder_open(const char *folder, const pv_session *session, const pv_recorder_params *params,
                                  pv_recorder **out);
/* When all that waits is written. Before the model's and the backend's end. */
PV_API void pv_recorder_close(pv_recorder **recorder);
/* Waits until nothing waits for the disk, at most so long; PV_E_UNAVAILABLE: something still does. */
PV_API pv_status pv_recorder_flush(pv_recorder *recorder, double most_ms);

typedef struct pv_stage_time {
    const char *name;
    double ms;
} pv_stage_time;

typedef struct pv_record {
    size_t size;
    const pv_robot *robot;             /* whose fields came ... */
    const pv_field *fields;            /* ... as they came ... */
    int n_fields;
    const double *actions;             /* ... and what pv_robot_act gave, [horizon][action_dim of the robot] */
    const pv_observation *observation; /* without a robot: what pv_session_infer was given */
    const char *source;                /* whose observation it was, in words; may be NULL */
    const pv_stage_time *times;        /* beyond those of pv_timing */
    int n_times;
} pv_record;

/* Records the session's last inference, which `record` says more of; on the session's thread, before its next. Copies and
 * returns, it never waits for the disk. PV_OK also where the recording is dropped, since too many wait or the folder is full:
 * pv_recorder_describe counts these. PV_E_ARG: the last inference failed, or `record` is not whole. */
PV_API pv_status pv_recorder_put(pv_recorder *recorder, pv_session *session, const pv_record *record);

typedef struct pv_recorder_info {
    size_t size;
    uint64_t written;
    uint64_t dropped_queue, dropped_limit, dropped_failed; /* too many waited; folder full; the file could not be written */
    uint64_t bytes;  /* of the folder's .safetensors files, as far as it knows */
    int waiting;     /* for the disk, the one that is being written included */
    char error[256]; /* why the last one could not be written; empty: all could */
} pv_recorder_info;

PV_API pv_status pv_recorder_describe(pv_recorder *recorder, pv_recorder_info *out);

#ifdef __cplusplus
}
#endif

#endif
