# The inner loops: one file per instruction set, each compiled with its own flags and with those alone. Which of them
# run is decided at run time (dispatch.cpp), so the other files must stay free of such flags.
target_sources(fllm_objects PRIVATE kernels/dispatch.cpp)

# A level's kernels are the files kernels/*_LEVEL.cpp. They look at neither errno nor the flags of floating point, so that
# loops with square roots and choices may become vectors; no result depends on it.
function(add_kernels level)
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/kernels/*_${level}.cpp)
  set_source_files_properties(${sources} PROPERTIES COMPILE_OPTIONS "-fno-math-errno;-fno-trapping-math;${ARGN}")
  target_sources(fllm_objects PRIVATE ${sources})
endfunction()

add_kernels(scalar)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
  # Nothing here throws; without exceptions an object needs no symbol of the C++ runtime.
  set(avx2 -fno-exceptions -mavx2 -mfma -mf16c)
  set(avx512 ${avx2} -mavx512f -mavx512bw -mavx512vl -mavx512dq)
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    # GCC 12 takes the undefined registers of its own AVX-512 headers for a mistake of their callers (GCC bug 105593).
    list(APPEND avx512 -Wno-maybe-uninitialized -Wno-uninitialized)
  endif()
  add_kernels(avx2 ${avx2})
  add_kernels(avx512 ${avx512})
  add_kernels(avx512_vnni ${avx512} -mavx512vnni)
  add_kernels(amx ${avx512} -mamx-tile -mamx-int8)
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "^(aarch64|arm64)$")
  add_kernels(neon -march=armv8.2-a+dotprod)
endif()
