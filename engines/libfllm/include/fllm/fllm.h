/* libfllm: the best users for an item, out of a table of up to billions of users, in one pass that is limited
 * by memory bandwidth.
 *
 * Rules that hold for every function:
 *  - It returns a status. If it is not FLLM_OK and `error` is not NULL, `error->message` says what was found, what was
 *    expected and what to do. Errors allocate nothing, and there is no global error state.
 *  - Option and answer structs begin with their own size, so that later versions can append fields. Initialise them
 *    with the FLLM_..._INIT macro.
 *  - All functions may be called from many threads at once on the same handle, including the ..._release functions.
 *    Handles are reference-counted, and their resources live until the last search on them has returned.
 *  - Strings are UTF-8. Arrays are row-major and belong to the caller.
 */
#ifndef FLLM_FLLM_H
#define FLLM_FLLM_H

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#define FLLM_API
#else
#define FLLM_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define FLLM_ABI_VERSION 1

/* The interface version that the library was built with; compare it with FLLM_ABI_VERSION. */
FLLM_API uint32_t fllm_abi_version(void);

/* The library's version, for example "0.1.0"; static storage. */
FLLM_API const char* fllm_version(void);

/* Causes of failure; the values are also the exit codes of the command line. */
typedef enum fllm_status {
  FLLM_OK = 0,
  FLLM_INTERNAL = 1, /* a bug in the library */
  FLLM_USAGE = 2,    /* an argument is invalid */
  FLLM_BUNDLE = 4,   /* a file is missing, damaged or has a newer format */
  FLLM_MEMORY = 5,   /* there is not enough memory or disk space, or another limit of the system is reached */
  FLLM_HARDWARE = 6, /* this machine does not have the requested hardware or library */
  FLLM_CANCELLED = 130
} fllm_status;

typedef struct fllm_error {
  char message[1024]; /* ends with a zero byte; a longer message is truncated */
} fllm_error;

/* ---- Instruction sets ---- */

/* Writes the names of the levels usable on this machine, weakest first, separated by commas, e.g.
 * "scalar,avx2,avx512,avx512_vnni". Returns the length that is needed, without the final zero byte; writes at most
 * `capacity` bytes.
 */
FLLM_API size_t fllm_cpu_levels(char* buffer, size_t capacity);

/* ---- Engines ---- */

typedef struct fllm_engine_info {
  char name[16];      /* the value for fllm_table_options.engine */
  char codecs[64];    /* the codecs of the tables that it serves, separated by commas */
  int32_t takes_plan; /* not 0: it runs a plan; set its path in fllm_table_options.plan */
} fllm_engine_info;

/* Describes the engines of this library, the default one first; writes at most `capacity` entries. Returns the number
 * of engines. Whether an engine can run on this machine is checked only when a table is opened. */
FLLM_API size_t fllm_engines(fllm_engine_info* engines, size_t capacity);

/* ---- Noise ---- */

/* Standard Gumbel noise of (seed, id) for n user ids, bit-identical on every machine. */
FLLM_API fllm_status fllm_gumbel(uint64_t seed, const int64_t* ids, size_t n, double* noise, fllm_error* error);

/* ---- Tables ---- */

typedef struct fllm_table fllm_table;

typedef struct fllm_table_options {
  size_t size;
  uint32_t threads;         /* threads of one search, including the caller's; 0: FLLM_NUM_THREADS, or one per CPU */
  int32_t pin_threads;      /* not 0: each thread of the pool is bound to its own CPU */
  int32_t resident;         /* not 0: read the whole table into memory when it is opened */
  uint32_t batch_window_us; /* microseconds that a search waits to share its pass with later ones; 0: none */
  const char* isa;          /* instruction-set level; NULL: FLLM_ISA, or the best available */
  const char* engine;       /* one of fllm_engines(). "native": the CPU. "cuda": GPUs; needs libfllm_cuda in
                             * libfllm's directory. "tensorrt": one GPU and a head plan; needs libfllm_tensorrt and
                             * libfllm_cuda there. NULL: "native" */
  uint32_t gpus;            /* number of visible GPUs that share the table; 0: one */
  uint64_t gpu_bytes;       /* memory limit per GPU, in bytes; other rows stream from pinned host memory; 0: what is
                             * free */
  const char* plan;         /* path of the bundle's head plan, for "tensorrt" only */
  uint32_t part;            /* number of the part that is opened, from 0 to `parts` - 1 */
  uint32_t parts;           /* contiguous parts of whole shards, of about as many rows each; 0: the whole table */
} fllm_table_options;

#define FLLM_TABLE_OPTIONS_INIT {sizeof(fllm_table_options), 0, 0, 0, 0, NULL, NULL, 0, 0, NULL, 0, 0}

/* Opens the table in `directory`, the directory that contains table.json; `options` may be NULL. The files are mapped
 * and only their headers are read, unless `resident` is set. The caller owns the handle written to *table and must
 * release it. */
FLLM_API fllm_status fllm_table_open(const char* directory, const fllm_table_options* options, fllm_table** table,
                                     fllm_error* error);

/* Opens the directory again, with the options of the first call, and replaces the handle's table by the new one.
 * Searches in progress finish on the old table. On failure the handle keeps the old table. The new table must have the
 * same dim. NULL as `directory` means the same directory as before. */
FLLM_API fllm_status fllm_table_reopen(fllm_table* table, const char* directory, fllm_error* error);

/* Adds an owner to the handle; returns the handle. */
FLLM_API fllm_table* fllm_table_retain(fllm_table* table);

/* Removes an owner; removing the last one closes the table. NULL is allowed. */
FLLM_API void fllm_table_release(fllm_table* table);

typedef struct fllm_table_info {
  size_t size;
  uint64_t rows;
  uint64_t dim; /* of an item vector */
  int64_t generation;
  uint64_t bytes; /* total size of all shards, those of refinement rows included */
  int32_t bias;   /* not 0: rows have a bias */
  int32_t sketch; /* not 0: rows have a sketch */
  uint32_t threads;
  char codec[8];         /* for example "int8" */
  char isa[16];          /* the instruction-set level in use, or the GPU architecture, for example "sm_90" */
  char engine[16];       /* the engine's name */
  char refinement[8];    /* codec of the refinement rows, for example "int8"; empty: there are none */
  uint64_t deleted_rows; /* rows that are stored and marked as deleted; `rows` does not count them */
  int32_t recovered;     /* not 0: table.json cannot be read, and the layout before it was taken */
  int32_t link_exponent; /* g of the link: a probability is proportional to 1 + max(score, 0)^g; 0: to exp(score) */
} fllm_table_info;

#define FLLM_TABLE_INFO_INIT {sizeof(fllm_table_info), 0, 0, 0, 0, 0, 0, 0, {0}, {0}, {0}, {0}, 0, 0, 0}

FLLM_API fllm_status fllm_table_describe(const fllm_table* table, fllm_table_info* info, fllm_error* error);

/* ---- Filters: which users may be returned ---- */

typedef struct fllm_filter fllm_filter;

typedef enum fllm_filter_kind { FLLM_ALLOW = 0, FLLM_DENY = 1 } fllm_filter_kind;

/* A filter that allows only these users, or all users except these. Ids that are not in the table are ignored. A filter
 * takes one bit per row and belongs to the table as it is now: a search after fllm_table_reopen needs a new filter. */
FLLM_API fllm_status fllm_filter_create(const fllm_table* table, const int64_t* user_ids, size_t n,
                                        fllm_filter_kind kind, fllm_filter** filter, fllm_error* error);

/* NULL is allowed. Must not be called while a search uses the filter. */
FLLM_API void fllm_filter_release(fllm_filter* filter);

/* ---- Cancellation ---- */

/* Set `requested` to a value other than 0, from any thread, to end a search early with FLLM_CANCELLED. */
typedef struct fllm_cancel {
  volatile int32_t requested;
} fllm_cancel;

/* ---- Searches ---- */

typedef enum fllm_mode { FLLM_TOPK = 0, FLLM_SAMPLE = 1 } fllm_mode;

/* How log-probabilities are computed: from every row; estimated from a sample of the rows; not at all; or from every
 * row but those of tiles that are proven to change no log-probability by more than 0.001. */
typedef enum fllm_log_probs {
  FLLM_LOG_PROBS_EXACT = 0,
  FLLM_LOG_PROBS_ESTIMATE = 1,
  FLLM_LOG_PROBS_NONE = 2,
  FLLM_LOG_PROBS_CERTIFIED = 3
} fllm_log_probs;

typedef struct fllm_search_options {
  size_t size;
  size_t k;      /* users per item, from 1 to the number of rows of the table */
  int32_t mode;  /* fllm_mode */
  int32_t exact; /* 0: the sketch's statistical bounds may rule rows out; not with FLLM_LOG_PROBS_EXACT or _CERTIFIED */
  int32_t log_probs;     /* fllm_log_probs */
  double budget_ms;      /* milliseconds from the call on, after which no further rows are started; 0 or less: none */
  const uint64_t* seeds; /* [items] for FLLM_SAMPLE; NULL: all 0 */
  const fllm_filter* filter; /* NULL: all users are allowed; probabilities are always over all users of the table */
  const fllm_cancel* cancel; /* NULL: none */
  int32_t refine; /* c: the c * k best users by the rows that are scanned are ranked again by their refinement rows,
                   * whose scores are returned; their log-probabilities are estimates. 0: the rows that are scanned
                   * alone. Negative: FLLM_REFINE_DEFAULT if the table has refinement rows, otherwise 0 */
} fllm_search_options;

#define FLLM_REFINE_DEFAULT 4

#define FLLM_SEARCH_OPTIONS_INIT \
  {sizeof(fllm_search_options), 100, FLLM_TOPK, 1, FLLM_LOG_PROBS_EXACT, 0.0, NULL, NULL, NULL, -1}

/* The answer. The caller owns all arrays; each may be NULL if it is not needed. */
typedef struct fllm_answer {
  size_t size;
  int64_t* user_ids; /* [items, k], sorted by key descending, then by id ascending; -1 where fewer were found */
  float* keys;       /* [items, k], the sort key: the score, or its logit plus noise; -infinity where none */
  float* scores;     /* [items, k]; -infinity where none */
  float* log_probs;  /* [items, k], logit - logsumexp; the logit is what link_exponent makes of the score; NaN for
                      * FLLM_LOG_PROBS_NONE */
  double* logsumexp; /* [items], logsumexp of the logits of all rows or of those scored, or an estimate of it; NaN for
                      * FLLM_LOG_PROBS_NONE */
  uint64_t* rows_scored;    /* [items], rows that were scored or ruled out */
  uint8_t* complete;        /* [items], 1: the answer is the one that an unlimited budget gives */
  uint8_t* log_probs_exact; /* [items], 1: every row was scored, and none was refined */
  int64_t generation;       /* generation of the table that answered */
  uint64_t rows;            /* number of rows of that table */
  float* log_prob_error;    /* [items], the most by which logsumexp, and so each log-probability, is off; NaN where that
                             * is not known: where the budget left rows out of the sum, or there is none */
  uint8_t* log_probs_certified; /* [items], 1: log_prob_error is proven; 0: it holds with a probability of 95% */
  float* refined_scores; /* [items, k], the score of each user by its refinement row, also with `refine` 0, where the
                          * order is that of the rows that are scanned; -infinity where none. With it, an application
                          * merges the candidates of several parts and ranks them again. FLLM_USAGE if it is not NULL
                          * and the table has no refinement rows */
} fllm_answer;

#define FLLM_ANSWER_INIT {sizeof(fllm_answer), NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 0, 0, NULL, NULL, NULL}

/* Finds the best users for the item vectors z, float32 [items, dim], all finite. Blocks until the answer is complete,
 * the budget is used up or the search is cancelled. Concurrent searches share passes over the table. */
FLLM_API fllm_status fllm_table_search(const fllm_table* table, const float* z, size_t items,
                                       const fllm_search_options* options, fllm_answer* answer, fllm_error* error);

/* ---- Changes of a table that readers have open ---- */

typedef struct fllm_change_options {
  size_t size;
  int64_t if_generation; /* refuse the change unless the table is of this generation; 0: of any */
} fllm_change_options;

#define FLLM_CHANGE_OPTIONS_INIT {sizeof(fllm_change_options), 0}

/* What a change has made of a table. */
typedef struct fllm_change {
  size_t size;
  int64_t generation;    /* of the table now */
  uint64_t users;        /* in the table now */
  uint64_t appended;     /* users that are new */
  uint64_t updated;      /* users whose row was replaced */
  uint64_t deleted;      /* users that are gone */
  uint64_t shards;       /* files of rows now */
  uint64_t deleted_rows; /* rows that are still stored, and are marked as deleted */
} fllm_change;

#define FLLM_CHANGE_INIT {sizeof(fllm_change), 0, 0, 0, 0, 0, 0, 0}

/* A change of the table in `directory`, the directory that contains table.json. Readers see all of it or nothing; open
 * handles answer from their generation until fllm_table_reopen. When a function returns FLLM_OK, the change is durable.
 * When it returns anything else, the table is unchanged, unless the message says that the change was made and a power
 * cut may undo it. There is one writer at a time, in all processes of a machine and in Python as well: another one gets
 * FLLM_USAGE, and can repeat the change. `options` and `change` may be NULL.
 *
 * FLLM_USAGE: an argument is invalid, another writer is at work, the generation is not `if_generation`, or the message
 * names what libfllm cannot change: tables that keep the items of their users (histories); and for append and update
 * also tables with refinement rows and those of a bundle that transforms rows. Python changes them. FLLM_BUNDLE: the
 * table is damaged, or the disk fails. FLLM_MEMORY: there is no space on the disk, or too little memory. */

/* Removes n users, at least 1, all of whom the table must have; at least one user must stay. Their rows stay in the
 * files, marked as deleted, until the table is compacted (`fllm-export users compact`). */
FLLM_API fllm_status fllm_users_delete(const char* directory, const int64_t* user_ids, size_t n,
                                       const fllm_change_options* options, fllm_change* change, fllm_error* error);

/* Adds n users, at least 1, that the table does not have. `rows` is float32 [n, dim], `dim` the dimension of the
 * table's rows, `bias` float32 [n], or NULL where the table's rows have none; all of them finite. Rows get the table's
 * codec, the basis of its sketch and its tiles. */
FLLM_API fllm_status fllm_users_append(const char* directory, const float* rows, size_t n, size_t dim,
                                       const float* bias, const int64_t* user_ids, const fllm_change_options* options,
                                       fllm_change* change, fllm_error* error);

/* Replaces the rows of n users that the table has; otherwise as fllm_users_append. */
FLLM_API fllm_status fllm_users_update(const char* directory, const float* rows, size_t n, size_t dim,
                                       const float* bias, const int64_t* user_ids, const fllm_change_options* options,
                                       fllm_change* change, fllm_error* error);

#ifdef __cplusplus
}
#endif

#endif /* FLLM_FLLM_H */
