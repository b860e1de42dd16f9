add_executable(bench_rollouts rollouts.cpp)
target_link_libraries(bench_rollouts PRIVATE flock_api_services flock_testing)
target_include_directories(bench_rollouts PRIVATE "${CMAKE_SOURCE_DIR}/flock-api/src")
