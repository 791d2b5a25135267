/* Prints the best users of one item vector: user id, score and log-probability, a line each.
 *
 *   top_users TABLE VECTOR [K]
 *
 * TABLE is a directory with a table.json, such as bundle/users. VECTOR is a file of float32 numbers, or the numbers
 * themselves with commas between them.
 */
#include <errno.h>
#include <fllm/fllm.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

static int fail(fllm_status status, const char* message) {
  fprintf(stderr, "top_users: %s\n", message);
  return (int)status;
}

/* Reads exactly `dim` numbers from a file; 0 where it holds another number of bytes. */
static int read_file(FILE* file, float* vector, size_t dim) {
  return fread(vector, sizeof(float), dim, file) == dim && fgetc(file) == EOF;
}

/* Reads exactly `dim` numbers separated by commas; 0 where the text is anything else. */
static int read_text(const char* text, float* vector, size_t dim) {
  for (size_t i = 0; i < dim; ++i) {
    char* end = NULL;
    vector[i] = strtof(text, &end);
    if (end == text || *end != (i + 1 < dim ? ',' : '\0')) return 0;
    text = end + 1;
  }
  return 1;
}

static int read_vector(const char* argument, float* vector, size_t dim) {
  FILE* const file = fopen(argument, "rb");
  if (file == NULL) return read_text(argument, vector, dim);
  const int complete = read_file(file, vector, dim);
  fclose(file);
  return complete;
}

static int print_users(const fllm_table* table, const float* vector, size_t k) {
  fllm_error error;
  fllm_status status = FLLM_MEMORY;
  fllm_search_options options = FLLM_SEARCH_OPTIONS_INIT;
  fllm_answer answer = FLLM_ANSWER_INIT;
  options.k = k;
  answer.user_ids = malloc(k * sizeof *answer.user_ids);
  answer.scores = malloc(k * sizeof *answer.scores);
  answer.log_probs = malloc(k * sizeof *answer.log_probs);
  snprintf(error.message, sizeof error.message, "memory does not suffice for %zu users", k);
  if (answer.user_ids != NULL && answer.scores != NULL && answer.log_probs != NULL) {
    status = fllm_table_search(table, vector, 1, &options, &answer, &error);
  }
  for (size_t i = 0; status == FLLM_OK && i < k; ++i) {
    printf("%" PRId64 "\t%.9g\t%.9g\n", answer.user_ids[i], (double)answer.scores[i], (double)answer.log_probs[i]);
  }
  free(answer.user_ids);
  free(answer.scores);
  free(answer.log_probs);
  return status == FLLM_OK ? 0 : fail(status, error.message);
}

static int answer_query(const fllm_table* table, const char* argument, const char* k_text) {
  fllm_error error;
  fllm_table_info info = FLLM_TABLE_INFO_INIT;
  const fllm_status status = fllm_table_describe(table, &info, &error);
  if (status != FLLM_OK) return fail(status, error.message);
  char* end = NULL;
  errno = 0;
  const unsigned long long k = strtoull(k_text, &end, 10);
  if (errno != 0 || *end != '\0' || k < 1 || k > info.rows) {
    snprintf(error.message, sizeof error.message, "K is %s; expected an integer from 1 to %" PRIu64 ".", k_text,
             info.rows);
    return fail(FLLM_USAGE, error.message);
  }
  float* const vector = malloc(info.dim * sizeof *vector);
  if (vector == NULL) return fail(FLLM_MEMORY, "memory does not suffice for the vector");
  int code = FLLM_USAGE;
  if (read_vector(argument, vector, info.dim)) {
    code = print_users(table, vector, (size_t)k);
  } else {
    snprintf(error.message, sizeof error.message, "VECTOR does not hold %" PRIu64 " numbers.", info.dim);
    fail(FLLM_USAGE, error.message);
  }
  free(vector);
  return code;
}

int main(int argc, char** argv) {
  if (argc < 3 || argc > 4) return fail(FLLM_USAGE, "usage: top_users TABLE VECTOR [K]");
  fllm_error error;
  fllm_table* table = NULL;
  const fllm_status status = fllm_table_open(argv[1], NULL, &table, &error);
  if (status != FLLM_OK) return fail(status, error.message);
  const int code = answer_query(table, argv[2], argc == 4 ? argv[3] : "10");
  fllm_table_release(table);
  return code;
}
