add_executable(bench_scale scale.cpp scale_world.cpp scale_crowd.cpp scale_watch.cpp processes.cpp)
target_link_libraries(bench_scale PRIVATE flock_api_stores flock_agent_sim flock_mqtt flock_testing)
