# The inner loops: one file an instruction set, each compiled with its own flags and with those alone. Which of them
# run is decided at run time (dispatch.cpp), so the other files must stay free of such flags.
set(scalar_kernels kernels/int8_scalar.cpp kernels/float_scalar.cpp kernels/select_scalar.cpp
  kernels/sketch_scalar.cpp kernels/sketch_dispatch.cpp)
target_sources(fllm_objects PRIVATE kernels/dispatch.cpp ${scalar_kernels})

if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
  # Nothing here throws; without exceptions an object needs no symbol of the C++ runtime.
  set(avx2_flags -fno-exceptions -mavx2 -mfma -mf16c)
  set(avx512_flags ${avx2_flags} -mavx512f -mavx512bw -mavx512vl -mavx512dq)
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    # GCC 12 takes the undefined registers of its own AVX-512 headers for a mistake of their callers (GCC bug 105593).
    list(APPEND avx512_flags -Wno-maybe-uninitialized -Wno-uninitialized)
  endif()
  set(avx2_kernels kernels/int8_avx2.cpp kernels/float_avx2.cpp kernels/select_avx2.cpp kernels/sketch_avx2.cpp)
  set(avx512_kernels
    kernels/int8_avx512.cpp kernels/float_avx512.cpp kernels/select_avx512.cpp kernels/sketch_avx512.cpp)
  set_source_files_properties(${avx2_kernels} PROPERTIES COMPILE_OPTIONS "${avx2_flags}")
  set_source_files_properties(${avx512_kernels} PROPERTIES COMPILE_OPTIONS "${avx512_flags}")
  set_source_files_properties(kernels/int8_avx512_vnni.cpp kernels/sketch_avx512_vnni.cpp PROPERTIES
    COMPILE_OPTIONS "${avx512_flags};-mavx512vnni")
  set_source_files_properties(kernels/int8_amx.cpp PROPERTIES
    COMPILE_OPTIONS "${avx512_flags};-mamx-tile;-mamx-int8")
  target_sources(fllm_objects PRIVATE
    ${avx2_kernels} ${avx512_kernels} kernels/int8_avx512_vnni.cpp kernels/int8_amx.cpp
    kernels/sketch_avx512_vnni.cpp)
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "^(aarch64|arm64)$")
  set_source_files_properties(kernels/int8_neon.cpp kernels/sketch_neon.cpp PROPERTIES
    COMPILE_OPTIONS "-march=armv8.2-a+dotprod")
  target_sources(fllm_objects PRIVATE kernels/int8_neon.cpp kernels/float_neon.cpp kernels/select_neon.cpp
    kernels/sketch_neon.cpp)
endif()
