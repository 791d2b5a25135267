/* libfllm: the best users of an item, out of a table of up to billions, in one pass at the speed of memory.
 *
 * Rules that hold for every function:
 *  - It returns a status. Where that is not FLLM_OK and `error` is not NULL, `error->message` says what was found, what
 *    was expected and what to do. Nothing is allocated for an error, and no global state is kept.
 *  - Option and answer structs begin with their own size, so that they can grow: set it by the FLLM_..._INIT macro.
 *  - All functions may be called from many threads at once on the same handle, the ..._release ones included: a handle
 *    is reference-counted, and what it holds lives until the last search on it has returned.
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

/* The version of this interface that the library was built with; compare with FLLM_ABI_VERSION. */
FLLM_API uint32_t fllm_abi_version(void);

/* The library's version, such as "0.1.0"; static storage. */
FLLM_API const char* fllm_version(void);

/* Causes of failure; the numbers are also the exit codes of the command line. */
typedef enum fllm_status {
  FLLM_OK = 0,
  FLLM_INTERNAL = 1, /* a bug of the library */
  FLLM_USAGE = 2,    /* an argument has no meaning */
  FLLM_BUNDLE = 4,   /* a file is missing, damaged or of a newer format */
  FLLM_MEMORY = 5,   /* memory does not suffice */
  FLLM_HARDWARE = 6, /* this machine lacks what was asked for */
  FLLM_CANCELLED = 130
} fllm_status;

typedef struct fllm_error {
  char message[1024]; /* ends with a zero byte; a longer text is cut */
} fllm_error;

/* ---- Instruction sets ---- */

/* Writes the names of the levels usable on this machine, weakest first, separated by commas, e.g.
 * "scalar,avx2,avx512,avx512_vnni". Returns the length needed without the final zero byte; writes at most `capacity`.
 */
FLLM_API size_t fllm_cpu_levels(char* buffer, size_t capacity);

/* ---- Engines ---- */

typedef struct fllm_engine_info {
  char name[16];      /* what fllm_table_options.engine takes */
  char codecs[64];    /* of the tables that it serves, separated by commas */
  int32_t takes_plan; /* not 0: it runs a plan, whose path fllm_table_options.plan gives */
} fllm_engine_info;

/* Describes the engines of this library, the default one first; writes at most `capacity`. Returns how many there are.
 * Whether this machine has what an engine needs is found out when a table is opened. */
FLLM_API size_t fllm_engines(fllm_engine_info* engines, size_t capacity);

/* ---- Noise ---- */

/* Standard Gumbel noise of (seed, id) for n user ids: the same bits on every machine. */
FLLM_API fllm_status fllm_gumbel(uint64_t seed, const int64_t* ids, size_t n, double* noise, fllm_error* error);

/* ---- Tables ---- */

typedef struct fllm_table fllm_table;

typedef struct fllm_table_options {
  size_t size;
  uint32_t threads;         /* threads of one search, the caller's among them; 0: FLLM_NUM_THREADS or every CPU */
  int32_t pin_threads;      /* not 0: each thread of the pool stays on a CPU of its own */
  int32_t resident;         /* not 0: read the whole table at opening and keep it in memory */
  uint32_t batch_window_us; /* how long a search waits to share its pass with later ones; 0: not at all */
  const char* isa;          /* instruction-set level; NULL: FLLM_ISA or the best */
  const char* engine;       /* one of fllm_engines(): "native", the CPU; "cuda", GPUs, by libfllm_cuda beside libfllm;
                             * "tensorrt", a GPU and a head plan, by libfllm_tensorrt and libfllm_cuda; NULL: native */
  uint32_t gpus;            /* how many GPUs share the table, of those that the process sees; 0: one */
  uint64_t gpu_bytes;       /* of each GPU's memory at most; rows beyond stream from pinned memory; 0: what is free */
  const char* plan;         /* path of the bundle's head plan, for "tensorrt" alone */
} fllm_table_options;

#define FLLM_TABLE_OPTIONS_INIT {sizeof(fllm_table_options), 0, 0, 0, 0, NULL, NULL, 0, 0, NULL}

/* Opens the table in `directory` (the one that holds table.json) in place; `options` may be NULL. Only headers are
 * read, unless it shall be resident. The handle written to *table is the caller's, to be released once. */
FLLM_API fllm_status fllm_table_open(const char* directory, const fllm_table_options* options, fllm_table** table,
                                     fllm_error* error);

/* Opens the directory again, with the options of the first time, and puts the result in place of what the handle
 * holds. Searches that are under way end on the old table; on failure the old table stays. The new one must have the
 * same dim. `directory` may be NULL: the same as before. */
FLLM_API fllm_status fllm_table_reopen(fllm_table* table, const char* directory, fllm_error* error);

/* One more owner of the handle; returns it. */
FLLM_API fllm_table* fllm_table_retain(fllm_table* table);

/* One owner less; the last one closes the table. NULL is allowed. */
FLLM_API void fllm_table_release(fllm_table* table);

typedef struct fllm_table_info {
  size_t size;
  uint64_t rows;
  uint64_t dim;
  int64_t generation;
  uint64_t bytes; /* of all shards */
  int32_t bias;   /* not 0: rows have a bias */
  int32_t sketch; /* not 0: rows have a sketch */
  uint32_t threads;
  char codec[8];   /* such as "int8" */
  char isa[16];    /* the level that scans, or the kind of GPU, as "sm_90" */
  char engine[16]; /* its name */
} fllm_table_info;

#define FLLM_TABLE_INFO_INIT {sizeof(fllm_table_info), 0, 0, 0, 0, 0, 0, 0, {0}, {0}, {0}}

FLLM_API fllm_status fllm_table_describe(const fllm_table* table, fllm_table_info* info, fllm_error* error);

/* ---- Filters: which users may be returned ---- */

typedef struct fllm_filter fllm_filter;

typedef enum fllm_filter_kind { FLLM_ALLOW = 0, FLLM_DENY = 1 } fllm_filter_kind;

/* A filter that allows these users only, or all but these. Ids that the table lacks are ignored. Holds one bit a row of
 * the table as it is now; a search after fllm_table_reopen needs a new filter. */
FLLM_API fllm_status fllm_filter_create(const fllm_table* table, const int64_t* user_ids, size_t n,
                                        fllm_filter_kind kind, fllm_filter** filter, fllm_error* error);

/* NULL is allowed. Must not be called while a search uses the filter. */
FLLM_API void fllm_filter_release(fllm_filter* filter);

/* ---- Cancellation ---- */

/* Set to not 0 from any thread to make a search end early with FLLM_CANCELLED. */
typedef struct fllm_cancel {
  volatile int32_t requested;
} fllm_cancel;

/* ---- Searches ---- */

typedef enum fllm_mode { FLLM_TOPK = 0, FLLM_SAMPLE = 1 } fllm_mode;

/* How log-probabilities are found: by a pass over every row, or estimated from what the search reads anyway. */
typedef enum fllm_log_probs {
  FLLM_LOG_PROBS_EXACT = 0,
  FLLM_LOG_PROBS_ESTIMATE = 1,
  FLLM_LOG_PROBS_NONE = 2
} fllm_log_probs;

typedef struct fllm_search_options {
  size_t size;
  size_t k;                  /* users an item, 1 to the table's rows */
  int32_t mode;              /* fllm_mode */
  int32_t exact;             /* 0: the sketch's statistical bounds may decide; needs log_probs other than exact */
  int32_t log_probs;         /* fllm_log_probs */
  double budget_ms;          /* from the call on; no further rows are begun after it; 0 or less: none */
  const uint64_t* seeds;     /* [items] for FLLM_SAMPLE; NULL: all 0 */
  const fllm_filter* filter; /* NULL: all users; probabilities are over all users in any case */
  const fllm_cancel* cancel; /* NULL: none */
} fllm_search_options;

#define FLLM_SEARCH_OPTIONS_INIT \
  {sizeof(fllm_search_options), 100, FLLM_TOPK, 1, FLLM_LOG_PROBS_EXACT, 0.0, NULL, NULL, NULL}

/* Where the answer goes; all arrays are the caller's, and each may be NULL when it is not wanted. */
typedef struct fllm_answer {
  size_t size;
  int64_t* user_ids;        /* [items, k], by key descending, then id ascending; -1 where fewer were found */
  float* keys;              /* [items, k], what the order is by: the score, or score plus noise; -infinity where none */
  float* scores;            /* [items, k]; -infinity where none */
  float* log_probs;         /* [items, k], score - logsumexp; NaN for FLLM_LOG_PROBS_NONE */
  double* logsumexp;        /* [items], over the rows scored; NaN for FLLM_LOG_PROBS_NONE */
  uint64_t* rows_scored;    /* [items], rows scored or proven not to matter */
  uint8_t* complete;        /* [items], 1: what an unlimited budget gives */
  uint8_t* log_probs_exact; /* [items], 1: every row was scored */
  int64_t generation;       /* of the table that answered */
  uint64_t rows;            /* of that table */
} fllm_answer;

#define FLLM_ANSWER_INIT {sizeof(fllm_answer), NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 0, 0}

/* The best users of `items` item vectors z, float32 [items, dim], finite. Blocks until the answer is complete, the
 * budget is spent or the search is cancelled. Searches of several threads share passes over the table. */
FLLM_API fllm_status fllm_table_search(const fllm_table* table, const float* z, size_t items,
                                       const fllm_search_options* options, fllm_answer* answer, fllm_error* error);

#ifdef __cplusplus
}
#endif

#endif /* FLLM_FLLM_H */
