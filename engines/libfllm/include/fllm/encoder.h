/* libfllm_encoder: from item texts to item vectors z, as fllm_table_search takes them.
 *
 * The rules of fllm.h hold here too: statuses, caller-owned errors, size-prefixed structs, reference-counted handles
 * that may be used from many threads at once. The model is run by ONNX Runtime, whose shared library is opened at run
 * time: nothing links to it, and its telemetry is switched off.
 */
#ifndef FLLM_ENCODER_H
#define FLLM_ENCODER_H

#include <fllm/fllm.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Tokenizers: need no ONNX Runtime ---- */

typedef struct fllm_tokenizer fllm_tokenizer;

/* Opens the tokenizer and the prompt of a bundle (tokenizer.json, manifest.json). Known are BERT's WordPiece and
 * byte-level BPE; for these the ids are those that fllm_export's Python side finds. Every other kind is FLLM_BUNDLE. */
FLLM_API fllm_status fllm_tokenizer_open(const char* bundle, fllm_tokenizer** tokenizer, fllm_error* error);

/* One more owner of the handle; returns it. */
FLLM_API fllm_tokenizer* fllm_tokenizer_retain(fllm_tokenizer* tokenizer);

/* One owner less. NULL is allowed. */
FLLM_API void fllm_tokenizer_release(fllm_tokenizer* tokenizer);

/* The most tokens that an item can have, special tokens included. */
FLLM_API size_t fllm_tokenizer_max_length(const fllm_tokenizer* tokenizer);

/* Token ids of `items` texts, prompt included, without padding.
 *   bytes    [items], or NULL where the texts end with a zero byte
 *   ids      [items, stride]; an item with more than `stride` tokens is FLLM_USAGE: fllm_tokenizer_max_length suffices
 *   lengths  [items], tokens of each item */
FLLM_API fllm_status fllm_tokenizer_encode(const fllm_tokenizer* tokenizer, const char* const* texts,
                                           const size_t* bytes, size_t items, size_t stride, int64_t* ids,
                                           size_t* lengths, fllm_error* error);

/* ---- Encoders ---- */

typedef struct fllm_encoder fllm_encoder;

typedef struct fllm_encoder_options {
  size_t size;
  uint32_t threads;        /* threads inside one call; 0: FLLM_NUM_THREADS or every CPU */
  const char* onnxruntime; /* path of ONNX Runtime's library; NULL: FLLM_ONNXRUNTIME, or libonnxruntime.so.1 */
  const char* provider; /* what ONNX Runtime runs the model on: "cpu", or "cuda" for its CUDA execution provider, whose
                         * library must lie beside ONNX Runtime's; NULL: cpu */
  int32_t gpu;          /* for "cuda": which of the GPUs that the process sees */
} fllm_encoder_options;

#define FLLM_ENCODER_OPTIONS_INIT {sizeof(fllm_encoder_options), 0, NULL, NULL, 0}

/* Opens a bundle's encoder; `options` may be NULL. FLLM_HARDWARE: ONNX Runtime's library is not there or too old, or it
 * cannot run on the GPU, with its reason; no other provider is chosen. */
FLLM_API fllm_status fllm_encoder_open(const char* bundle, const fllm_encoder_options* options, fllm_encoder** encoder,
                                       fllm_error* error);

FLLM_API fllm_encoder* fllm_encoder_retain(fllm_encoder* encoder);
FLLM_API void fllm_encoder_release(fllm_encoder* encoder);

typedef struct fllm_encoder_info {
  size_t size;
  uint64_t dim;        /* numbers in an item vector */
  uint64_t max_length; /* tokens an item at most */
  uint32_t threads;
  char onnxruntime[32]; /* its version */
} fllm_encoder_info;

#define FLLM_ENCODER_INFO_INIT {sizeof(fllm_encoder_info), 0, 0, 0, {0}}

FLLM_API fllm_status fllm_encoder_describe(const fllm_encoder* encoder, fllm_encoder_info* info, fllm_error* error);

/* The encoder's tokenizer: borrowed, valid as long as the encoder is. */
FLLM_API const fllm_tokenizer* fllm_encoder_tokenizer(const fllm_encoder* encoder);

/* Item vectors z, float32 [items, dim], of token ids laid out as fllm_tokenizer_encode does. Items are padded together,
 * those of similar length in one batch. */
FLLM_API fllm_status fllm_encoder_encode(const fllm_encoder* encoder, const int64_t* ids, const size_t* lengths,
                                         size_t items, size_t stride, float* z, fllm_error* error);

/* The same from texts, as fllm_tokenizer_encode takes them. */
FLLM_API fllm_status fllm_encoder_encode_texts(const fllm_encoder* encoder, const char* const* texts,
                                               const size_t* bytes, size_t items, float* z, fllm_error* error);

#ifdef __cplusplus
}
#endif

#endif /* FLLM_ENCODER_H */
