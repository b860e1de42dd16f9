add_executable(bench_ingest ingest.cpp)
target_link_libraries(bench_ingest PRIVATE flock_api_targets flock_testing)
target_include_directories(bench_ingest PRIVATE "${CMAKE_SOURCE_DIR}/flock-api/src")
