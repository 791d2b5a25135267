// Stands where TensorRT's header would be found.
#pragma once

#include "tensorrt/emulation/runtime.hpp"
