# _cuda is a module of its own: it is built where a CUDA compiler is found and imports without a driver.
if(SLIPSTICK_CUDA STREQUAL "OFF")
  return()
endif()
include(CheckLanguage)
check_language(CUDA)
if(NOT CMAKE_CUDA_COMPILER)
  if(SLIPSTICK_CUDA STREQUAL "ON")
    message(FATAL_ERROR "SLIPSTICK_CUDA=ON, but no working CUDA compiler was found (looked for nvcc on PATH, in "
                        "CUDACXX and in CMAKE_CUDA_COMPILER)")
  endif()
  message(STATUS "slipstick: no CUDA compiler, _cuda is not built")
  return()
endif()
if(NOT SLIPSTICK_PYTHON AND NOT SLIPSTICK_BENCH)
  return()
endif()

# Asked of the compiler, since enabling the language takes the list of devices.
execute_process(COMMAND ${CMAKE_CUDA_COMPILER} --version OUTPUT_VARIABLE nvcc_version)
string(REGEX REPLACE ".*release ([0-9]+\\.[0-9]+).*" "\\1" nvcc_version "${nvcc_version}")
if(NOT nvcc_version VERSION_GREATER_EQUAL 12.4)
  set(refusal "the CUDA module needs nvcc 12.4 or later, got ${CMAKE_CUDA_COMPILER}: ${nvcc_version}")
elseif(CMAKE_VERSION VERSION_LESS 3.26)  # 3.25.1 knows no C++20 of nvcc 12 and later
  set(refusal "the CUDA module needs CMake 3.26 or later, got ${CMAKE_VERSION}")
endif()
if(DEFINED refusal)
  if(SLIPSTICK_CUDA STREQUAL "ON")
    message(FATAL_ERROR "SLIPSTICK_CUDA=ON, but ${refusal}")
  endif()
  message(STATUS "slipstick: ${refusal}; _cuda is not built")
  return()
endif()
# Code for these devices, and what a driver can compile for later ones.
if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES AND NOT DEFINED ENV{CUDAARCHS})
  if(nvcc_version VERSION_GREATER_EQUAL 12.8)
    set(CMAKE_CUDA_ARCHITECTURES 80-real 90-real 100)
  else()
    set(CMAKE_CUDA_ARCHITECTURES 80-real 90)
  endif()
endif()
enable_language(CUDA)
find_package(CUDAToolkit REQUIRED)

set(CMAKE_CUDA_STANDARD 20)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)
set(CMAKE_CUDA_EXTENSIONS OFF)
set(CMAKE_CUDA_VISIBILITY_PRESET hidden)

# Flags that every CUDA file shares.
add_library(slipstick_cuda_flags INTERFACE)
target_include_directories(slipstick_cuda_flags INTERFACE cpp)
target_compile_options(slipstick_cuda_flags INTERFACE
  # As in slipstick_flags: every fused multiply-add is written out.
  --fmad=false -Xcompiler=-ffp-contract=off
  # The definitions that host and device share are constexpr, most of them without a word about CUDA.
  --expt-relaxed-constexpr
  # 445: a lambda that dispatch() calls may have a type parameter and nothing else. 186: what is
  # written for signed and unsigned types compares with zero.
  --diag-suppress=445,186
  -Xcompiler=-Wall,-Wextra
  $<$<BOOL:${SLIPSTICK_WERROR}>:-Xcompiler=-Werror>
  $<$<BOOL:${SLIPSTICK_WERROR}>:-Werror=all-warnings>)

# The instructions of sm_90a are no part of sm_90's, and no later device has them. Which devices
# "native" and "all" are, CMake has found out when it enabled the language.
set(devices ${CMAKE_CUDA_ARCHITECTURES})
list(TRANSFORM devices REPLACE "^native$" "${CMAKE_CUDA_ARCHITECTURES_NATIVE}")
list(TRANSFORM devices REPLACE "^all(-major)?$" "90")
if(devices MATCHES "(^|;)90a?(-real|-virtual)?(;|$)")
  add_library(slipstick_cuda_hopper OBJECT ${hopper_sources})
  set_target_properties(slipstick_cuda_hopper PROPERTIES CUDA_ARCHITECTURES 90a-real)
  target_link_libraries(slipstick_cuda_hopper PRIVATE slipstick_cuda_flags)
  set(hopper_objects $<TARGET_OBJECTS:slipstick_cuda_hopper>)
else()
  list(APPEND cuda_sources ${no_hopper_sources})
endif()
add_library(slipstick_cuda OBJECT ${cuda_sources})
target_link_libraries(slipstick_cuda PRIVATE slipstick_cuda_flags)
if(NOT SLIPSTICK_PYTHON)
  return()
endif()

pybind11_add_module(_cuda MODULE NO_EXTRAS
  cpp/bind/cuda_module.cpp
  cpp/bind/array.cpp
  $<TARGET_OBJECTS:slipstick_common>
  $<TARGET_OBJECTS:slipstick_cuda>
  ${hopper_objects})
# No device code is linked, so the C++ compiler links as for _cpu.
set_target_properties(_cuda PROPERTIES LINKER_LANGUAGE CXX)
target_link_libraries(_cuda PRIVATE slipstick_flags CUDA::cudart_static)
install(TARGETS _cuda DESTINATION slipstick COMPONENT python)
