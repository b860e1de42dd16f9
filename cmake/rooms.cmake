# flock_room(NAME [ROOT dir] [DEPS rooms...] [VENDORS targets...] [TEST_DEPS rooms...])
#
# One room = one folder = one static library `flock_NAME`, made of every .cpp in the folder (and below) that is not a test
# or a fuzzer. Beside it, where such files exist:
#   *_test.cpp   -> program NAME_test     unit tests: no network beyond loopback sockets they open, 5 s each
#   *_itest.cpp  -> program NAME_itest    against the real servers that libs/testing starts
#   *_fuzz.cpp   -> one libFuzzer program each, run briefly by ctest under the label `fuzz`
# ROOT is the include root: paths in #include are written from there. Default: the folder above the room.
function(flock_room name)
  cmake_parse_arguments(arg "" "ROOT" "DEPS;VENDORS;TEST_DEPS" ${ARGN})
  if(NOT arg_ROOT)
    get_filename_component(arg_ROOT "${CMAKE_CURRENT_SOURCE_DIR}/.." ABSOLUTE)
  endif()

  file(GLOB_RECURSE sources CONFIGURE_DEPENDS "${CMAKE_CURRENT_SOURCE_DIR}/*.cpp")
  set(unit ${sources})
  list(FILTER unit INCLUDE REGEX "_test\\.cpp$")
  set(integration ${sources})
  list(FILTER integration INCLUDE REGEX "_itest\\.cpp$")
  set(fuzzers ${sources})
  list(FILTER fuzzers INCLUDE REGEX "_fuzz\\.cpp$")
  list(FILTER sources EXCLUDE REGEX "(_test|_itest|_fuzz|/main)\\.cpp$")

  list(TRANSFORM arg_DEPS PREPEND "flock_")
  list(TRANSFORM arg_TEST_DEPS PREPEND "flock_")
  if(sources)
    add_library(flock_${name} STATIC ${sources})
    target_include_directories(flock_${name} PUBLIC "${arg_ROOT}")
    target_link_libraries(flock_${name} PUBLIC ${arg_DEPS} PRIVATE ${arg_VENDORS})
  else()
    add_library(flock_${name} INTERFACE)
    target_include_directories(flock_${name} INTERFACE "${arg_ROOT}")
    target_link_libraries(flock_${name} INTERFACE ${arg_DEPS} ${arg_VENDORS})
  endif()

  if(unit)
    flock_test_program(${name}_test 60 ${unit})
    target_link_libraries(${name}_test PRIVATE flock_${name} ${arg_TEST_DEPS} ${arg_VENDORS})
    set_tests_properties(${name}_test PROPERTIES LABELS unit)
  endif()
  if(integration)
    flock_test_program(${name}_itest 300 ${integration})
    target_link_libraries(${name}_itest PRIVATE flock_${name} ${arg_TEST_DEPS} ${arg_VENDORS} flock_testing)
    set_tests_properties(${name}_itest PROPERTIES LABELS integration)
  endif()
  # Without coverage of the room itself libFuzzer would search blindly.
  if(fuzzers AND sources AND FLOCK_SANITIZE MATCHES "address")
    target_compile_options(flock_${name} PRIVATE -fsanitize=fuzzer-no-link)
  endif()
  foreach(fuzzer ${fuzzers})
    get_filename_component(fuzz_name ${fuzzer} NAME_WE)
    flock_fuzzer(${fuzz_name} ${fuzzer} flock_${name} ${arg_VENDORS})
  endforeach()
endfunction()

# A GoogleTest program known to ctest; `seconds` is the limit for the whole program.
function(flock_test_program program seconds)
  add_executable(${program} ${ARGN})
  target_link_libraries(${program} PRIVATE GTest::gtest GTest::gtest_main)
  add_test(NAME ${program} COMMAND ${program})
  set_tests_properties(${program} PROPERTIES TIMEOUT ${seconds})
endfunction()

# libFuzzer needs its own instrumentation, so fuzzers are built in the asan preset only.
function(flock_fuzzer program source)
  if(NOT FLOCK_SANITIZE MATCHES "address")
    return()
  endif()
  add_executable(${program} ${source})
  target_compile_options(${program} PRIVATE -fsanitize=fuzzer)
  target_link_options(${program} PRIVATE -fsanitize=fuzzer)
  target_link_libraries(${program} PRIVATE ${ARGN})
  add_test(NAME ${program} COMMAND ${program} -max_total_time=20 -timeout=5 -rss_limit_mb=2048)
  set_tests_properties(${program} PROPERTIES TIMEOUT 120 LABELS fuzz)
endfunction()
