add_executable(bench_http_server http_server.cpp)
target_link_libraries(bench_http_server PRIVATE flock_net Boost::json)
