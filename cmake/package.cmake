# The CMake package for C++ users, find_package(slipstick): headers, library and target. Install
# component "development"; docs/cpp.md is its manual.
include(CMakePackageConfigHelpers)
include(GNUInstallDirs)

# The API: what a caller includes, and what that includes. Kernels and their tables are not in it.
set(public_headers
  attention/attention.hpp
  attention/results.hpp
  attention/rules.hpp
  core/array_view.hpp
  core/checks.hpp
  core/dtype.hpp
  core/error.hpp
  core/host_device.hpp
  core/isa.hpp
  core/result.hpp
  core/tensor.hpp
  core/threads.hpp
  mitchell/backward.hpp
  mitchell/conv2d.hpp
  mitchell/kind.hpp
  mitchell/method.hpp
  mitchell/mitchell.hpp
  mitchell/names.hpp
  mitchell/parameters.hpp
  mitchell/results.hpp
  projection/csr.hpp
  projection/csr_matrix.hpp
  projection/hadamard.hpp
  projection/hamming.hpp
  projection/law.hpp
  projection/names.hpp
  projection/projection.hpp
  projection/results.hpp
  projection/rotate.hpp)

# A wheel holds the package inside the Python package, which knows where (slipstick.cmake_dir): no
# folder of the system's.
set(package_include ${CMAKE_INSTALL_INCLUDEDIR})
set(package_lib ${CMAKE_INSTALL_LIBDIR})
if(DEFINED SKBUILD)
  set(package_include slipstick/include)
  set(package_lib slipstick/lib)
endif()
set(package_cmake ${package_lib}/cmake/slipstick)

# Here an include names a file below cpp/, "core/tensor.hpp". A user's project may well have a file of
# that name, so in the installed copies the same include says <slipstick/core/tensor.hpp>.
set(installed_headers ${PROJECT_BINARY_DIR}/include/slipstick)
file(REMOVE_RECURSE ${installed_headers})
foreach(header IN LISTS public_headers)
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS cpp/${header})
  file(READ cpp/${header} content)
  string(REGEX MATCHALL "#include \"[^\"]*\"" own_includes "${content}")
  foreach(include IN LISTS own_includes)
    string(REGEX REPLACE "#include \"(.*)\"" "\\1" include "${include}")
    if(NOT include IN_LIST public_headers)
      message(FATAL_ERROR "slipstick: ${header} is installed and includes ${include}, which is not: "
                          "see public_headers in cmake/package.cmake")
    endif()
  endforeach()
  string(REGEX REPLACE "#include \"([^\"]*)\"" "#include <slipstick/\\1>" content "${content}")
  file(WRITE ${installed_headers}/${header} "${content}")
endforeach()
install(DIRECTORY ${installed_headers} DESTINATION ${package_include}
  COMPONENT development)

# A static library, whatever BUILD_SHARED_LIBS says: its names are hidden, so that two versions in one
# process never meet, and while they are 0.x nothing is promised about its binary interface.
set_target_properties(slipstick_cpu PROPERTIES EXPORT_NAME slipstick OUTPUT_NAME slipstick)
target_compile_features(slipstick_cpu PUBLIC cxx_std_20)
target_include_directories(slipstick_cpu INTERFACE $<INSTALL_INTERFACE:${package_include}>)
install(TARGETS slipstick_cpu EXPORT slipstickTargets ARCHIVE DESTINATION ${package_lib}
  COMPONENT development)
install(EXPORT slipstickTargets NAMESPACE slipstick:: DESTINATION ${package_cmake}
  COMPONENT development)

configure_package_config_file(cmake/slipstickConfig.cmake.in slipstickConfig.cmake
  INSTALL_DESTINATION ${package_cmake} NO_SET_AND_CHECK_MACRO)
# While the version is 0.x a new minor version may change the API.
write_basic_package_version_file(slipstickConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES
  ${PROJECT_BINARY_DIR}/slipstickConfig.cmake
  ${PROJECT_BINARY_DIR}/slipstickConfigVersion.cmake
  DESTINATION ${package_cmake} COMPONENT development)
