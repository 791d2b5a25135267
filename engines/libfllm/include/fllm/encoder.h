/* libfllm_encoder: turns item texts into item vectors z for fllm_table_search.
 *
 * The rules of fllm.h apply here too: statuses, caller-owned errors, size-prefixed structs, reference-counted handles
 * that may be used from many threads at once. ONNX Runtime runs the model. Its shared library is loaded at run time:
 * nothing is linked to it, and its telemetry is switched off.
 */
#ifndef FLLM_ENCODER_H
#define FLLM_ENCODER_H

#include <fllm/fllm.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Tokenizers: ONNX Runtime is not needed ---- */

typedef struct fllm_tokenizer fllm_tokenizer;

/* Opens the tokenizer and the prompt of a bundle (tokenizer.json, manifest.json). Supported are BERT's WordPiece
 * and byte-level BPE; the token ids equal those of the Python package fllm_export. Any other kind is FLLM_BUNDLE. */
FLLM_API fllm_status fllm_tokenizer_open(const char* bundle, fllm_tokenizer** tokenizer, fllm_error* error);

/* Adds an owner to the handle; returns the handle. */
FLLM_API fllm_tokenizer* fllm_tokenizer_retain(fllm_tokenizer* tokenizer);

/* Removes an owner. NULL is allowed. */
FLLM_API void fllm_tokenizer_release(fllm_tokenizer* tokenizer);

/* The largest number of tokens per item, special tokens included. */
FLLM_API size_t fllm_tokenizer_max_length(const fllm_tokenizer* tokenizer);

/* Token ids of `items` texts, prompt included, without padding.
 *   bytes    [items], lengths of the texts, or NULL if every text ends with a zero byte
 *   ids      [items, stride]; an item with more than `stride` tokens is FLLM_USAGE; fllm_tokenizer_max_length is
 *            always enough
 *   lengths  [items], number of tokens per item */
FLLM_API fllm_status fllm_tokenizer_encode(const fllm_tokenizer* tokenizer, const char* const* texts,
                                           const size_t* bytes, size_t items, size_t stride, int64_t* ids,
                                           size_t* lengths, fllm_error* error);

/* ---- Encoders ---- */

typedef struct fllm_encoder fllm_encoder;

typedef struct fllm_encoder_options {
  size_t size;
  uint32_t threads;        /* threads of one call; 0: FLLM_NUM_THREADS, or one per CPU */
  const char* onnxruntime; /* path of ONNX Runtime's library; NULL: FLLM_ONNXRUNTIME, or libonnxruntime.so.1 */
  const char* provider;    /* "cpu", or "cuda" for ONNX Runtime's CUDA execution provider, whose library must be in the
                            * directory of ONNX Runtime's library; NULL: "cpu" */
  int32_t gpu;             /* for "cuda": the number of the GPU, among those visible to the process */
} fllm_encoder_options;

#define FLLM_ENCODER_OPTIONS_INIT {sizeof(fllm_encoder_options), 0, NULL, NULL, 0}

/* Opens a bundle's encoder; `options` may be NULL. FLLM_HARDWARE: ONNX Runtime's library is missing or too old, or it
 * cannot use the GPU; the message gives its reason. Another provider is never chosen silently. */
FLLM_API fllm_status fllm_encoder_open(const char* bundle, const fllm_encoder_options* options, fllm_encoder** encoder,
                                       fllm_error* error);

FLLM_API fllm_encoder* fllm_encoder_retain(fllm_encoder* encoder);
FLLM_API void fllm_encoder_release(fllm_encoder* encoder);

typedef struct fllm_encoder_info {
  size_t size;
  uint64_t dim;        /* dimension of the item vectors */
  uint64_t max_length; /* the largest number of tokens per item */
  uint32_t threads;
  char onnxruntime[32]; /* the version of ONNX Runtime */
} fllm_encoder_info;

#define FLLM_ENCODER_INFO_INIT {sizeof(fllm_encoder_info), 0, 0, 0, {0}}

FLLM_API fllm_status fllm_encoder_describe(const fllm_encoder* encoder, fllm_encoder_info* info, fllm_error* error);

/* The encoder's tokenizer. It belongs to the encoder and is valid as long as the encoder is: do not release it. */
FLLM_API const fllm_tokenizer* fllm_encoder_tokenizer(const fllm_encoder* encoder);

/* Item vectors z, float32 [items, dim], of token ids in the layout of fllm_tokenizer_encode. Items of similar length
 * are padded and run in one batch. */
FLLM_API fllm_status fllm_encoder_encode(const fllm_encoder* encoder, const int64_t* ids, const size_t* lengths,
                                         size_t items, size_t stride, float* z, fllm_error* error);

/* The same from texts; `texts` and `bytes` are those of fllm_tokenizer_encode. */
FLLM_API fllm_status fllm_encoder_encode_texts(const fllm_encoder* encoder, const char* const* texts,
                                               const size_t* bytes, size_t items, float* z, fllm_error* error);

#ifdef __cplusplus
}
#endif

#endif /* FLLM_ENCODER_H */
