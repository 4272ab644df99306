# The CUDA kernels, kernels/*.cu, twice: compiled by nvcc for the GPU, and by the host compiler
# against the SIMT layer in tests/simt. See notes/cuda.md.
set(LAB_CUDA AUTO CACHE STRING "CUDA kernels: AUTO (where nvcc is found), ON, OFF")
set_property(CACHE LAB_CUDA PROPERTY STRINGS AUTO ON OFF)
option(LAB_CUDA_HOST "Also build the CUDA kernels for the host, as backend cuda-host" ON)
set(LAB_CUDA_ARCHITECTURES "90" CACHE STRING
    "sm numbers to compile for, rising; the last one also as PTX, for newer devices")

file(GLOB LAB_CUDA_SOURCES CONFIGURE_DEPENDS kernels/*.cu)
set(LAB_WITH_CUDA 0)
set(LAB_WITH_CUDA_HOST 0)

if(NOT LAB_CUDA STREQUAL "OFF")
  find_program(LAB_NVCC nvcc HINTS ENV CUDACXX ENV CUDA_PATH PATHS /usr/local/cuda/bin
               PATH_SUFFIXES bin)
  if(LAB_NVCC)
    set(LAB_WITH_CUDA 1)
  elseif(LAB_CUDA STREQUAL "ON")
    message(FATAL_ERROR "LAB_CUDA=ON, but there is no nvcc in PATH, $CUDA_PATH/bin or "
            "/usr/local/cuda/bin. Install the CUDA toolkit, or use LAB_CUDA=AUTO or OFF.")
  endif()
endif()

if(LAB_WITH_CUDA)
  set(CMAKE_CUDA_COMPILER ${LAB_NVCC})
  set(CMAKE_CUDA_ARCHITECTURES ${LAB_CUDA_ARCHITECTURES})
  list(TRANSFORM CMAKE_CUDA_ARCHITECTURES APPEND "-real")
  list(TRANSFORM CMAKE_CUDA_ARCHITECTURES REPLACE "-real$" "" AT -1)  # the last: PTX as well
  enable_language(CUDA)
  find_package(CUDAToolkit REQUIRED)
  add_library(lab_cuda OBJECT ${LAB_CUDA_SOURCES})
  target_include_directories(lab_cuda PRIVATE ${PROJECT_SOURCE_DIR})
  # CMake 3.25 does not know how to ask nvcc for C++20.
  set_target_properties(lab_cuda PROPERTIES CUDA_STANDARD_REQUIRED OFF)
  # No contraction, as for the host. Constexpr functions of the block layouts are used on the device.
  target_compile_options(lab_cuda PRIVATE -std=c++20 -fmad=false --expt-relaxed-constexpr -Werror=all-warnings
                         -Xcompiler=-Wall,-Wextra,-Werror,-ffp-contract=off)
  target_sources(lab_core PRIVATE $<TARGET_OBJECTS:lab_cuda>)
  # Static, and it loads the driver when first called: the binary starts where there is none.
  target_link_libraries(lab_core PRIVATE CUDA::cudart_static)
endif()

# One .cc beside the build for each .cu, which the host compiler takes; their names in `out`. The
# compiler calls tests/simt/access.cc for every load and store in them, as it would call the run-time
# of its thread sanitizer, which is not linked. It cannot do so under AddressSanitizer.
function(lab_cuda_host_sources out)
  set(wrappers)
  foreach(source ${ARGN})
    get_filename_component(name ${source} NAME_WE)
    set(wrapper ${PROJECT_BINARY_DIR}/cuda_host/${name}.cc)
    file(GENERATE OUTPUT ${wrapper} CONTENT "#include \"${source}\"\n")
    list(APPEND wrappers ${wrapper})
  endforeach()
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND NOT CMAKE_CXX_FLAGS MATCHES "-fsanitize")
    set_source_files_properties(${wrappers} PROPERTIES
        COMPILE_OPTIONS "-fsanitize=thread;--param=tsan-instrument-func-entry-exit=0"
        COMPILE_DEFINITIONS LAB_SIMT_CHECKS_ACCESS)
  endif()
  set(${out} ${wrappers} PARENT_SCOPE)
endfunction()

if(LAB_CUDA_HOST)
  set(LAB_WITH_CUDA_HOST 1)
  lab_cuda_host_sources(wrappers ${LAB_CUDA_SOURCES})
  target_sources(lab_core PRIVATE ${wrappers} tests/simt/access.cc tests/simt/engine.cc
                 tests/simt/graph.cc tests/simt/memory.cc tests/simt/mma.cc)
endif()

string(REPLACE ";" "," LAB_CUDA_SM_NUMBERS "${LAB_CUDA_ARCHITECTURES}")
string(REPLACE ";" " sm_" LAB_CUDA_ARCHITECTURES_TEXT "sm_${LAB_CUDA_ARCHITECTURES} + PTX")
set_source_files_properties(lab/registry.cc PROPERTIES COMPILE_DEFINITIONS
    "LAB_WITH_CUDA=${LAB_WITH_CUDA};LAB_WITH_CUDA_HOST=${LAB_WITH_CUDA_HOST}")
set_source_files_properties(lab/device.cc PROPERTIES COMPILE_DEFINITIONS
    "LAB_WITH_CUDA=${LAB_WITH_CUDA};LAB_WITH_CUDA_HOST=${LAB_WITH_CUDA_HOST};LAB_CUDA_SM_NUMBERS=${LAB_CUDA_SM_NUMBERS};LAB_CUDA_ARCHITECTURES=\"${LAB_CUDA_ARCHITECTURES_TEXT}\"")
