add_executable(bench_traffic traffic.cpp)
target_link_libraries(bench_traffic PRIVATE flock_testing flock_mqtt flock_net flock_crypto flock_proto Boost::json)
