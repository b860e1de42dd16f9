add_executable(bench_logs logs_device.cpp)
target_link_libraries(bench_logs PRIVATE flock_agent_domain flock_mqtt flock_net flock_testing Boost::json)
