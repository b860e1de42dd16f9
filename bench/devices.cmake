add_executable(bench_devices_page devices_page.cpp)
target_link_libraries(bench_devices_page PRIVATE flock_api_targets flock_testing PkgConfig::PQ)
target_include_directories(bench_devices_page PRIVATE "${CMAKE_SOURCE_DIR}/flock-api/src")
