// What fllm_export.table uses to write tables.
#pragma once

#include <nanobind/nanobind.h>

void define_writing(nanobind::module_& module);
