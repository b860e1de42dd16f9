add_executable(bench_faults faults/main.cpp faults/stack.cpp faults/device.cpp faults/fleet.cpp faults/ledger.cpp faults/suite.cpp
  faults/outages.cpp faults/bad_input.cpp)
target_link_libraries(bench_faults PRIVATE flock_api_stores flock_agent_link flock_mqtt flock_net flock_testing)
target_include_directories(bench_faults PRIVATE "${CMAKE_CURRENT_SOURCE_DIR}" "${CMAKE_SOURCE_DIR}/flock-api/src")
target_compile_definitions(bench_faults PRIVATE FLOCK_API_PROGRAM="$<TARGET_FILE:flock-api>")
add_dependencies(bench_faults flock-api)

# The same program with faults of two seconds.
add_test(NAME fault_suite COMMAND bench_faults 2)
set_tests_properties(fault_suite PROPERTIES TIMEOUT 400 LABELS integration SKIP_RETURN_CODE 77)

add_executable(bench_rollout_faults rollout_faults/main.cpp rollout_faults/site.cpp faults/stack.cpp)
target_link_libraries(bench_rollout_faults PRIVATE flock_api_services flock_agent_sim flock_mqtt flock_net flock_testing)
target_include_directories(bench_rollout_faults PRIVATE "${CMAKE_CURRENT_SOURCE_DIR}" "${CMAKE_SOURCE_DIR}/flock-api/src")
target_compile_definitions(bench_rollout_faults PRIVATE FLOCK_API_PROGRAM="$<TARGET_FILE:flock-api>")
add_dependencies(bench_rollout_faults flock-api)

# The same program with fewer devices.
add_test(NAME rollout_fault_suite COMMAND bench_rollout_faults 60)
set_tests_properties(rollout_fault_suite PROPERTIES TIMEOUT 300 LABELS integration SKIP_RETURN_CODE 77)
