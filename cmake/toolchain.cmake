# Compiler, flags and the vendors everything builds on (docs/architecture.md, Toolchain).

if(NOT CMAKE_CXX_COMPILER_ID STREQUAL "Clang" OR CMAKE_CXX_COMPILER_VERSION VERSION_LESS 19)
  # g++ 12 miscompiles coroutines; see docs/decisions/0001-clang.md.
  message(FATAL_ERROR "Flock needs clang 19; configure with a preset, or run ./dev setup")
endif()

set(CMAKE_CXX_STANDARD 23)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_CXX_SCAN_FOR_MODULES OFF)

set(FLOCK_SANITIZE "" CACHE STRING "sanitizers, as for -fsanitize=")

find_program(CCACHE ccache)
if(CCACHE)
  set(CMAKE_C_COMPILER_LAUNCHER ${CCACHE})
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CCACHE})
endif()

# -g1 keeps usable stacks at half the cost of full debug information.
set(CMAKE_CXX_FLAGS_DEBUG "-O0 -g1")
set(CMAKE_CXX_FLAGS_RELEASE "-O2 -DNDEBUG -ffunction-sections -fdata-sections")
set(CMAKE_EXE_LINKER_FLAGS_RELEASE "-Wl,--gc-sections -Wl,--icf=all -Wl,-s")
add_link_options(-fuse-ld=lld-19)
add_compile_options(-Wall -Wextra -Wshadow -Wnon-virtual-dtor -Woverloaded-virtual -Wold-style-cast
                    -Wno-sign-conversion -Wno-missing-field-initializers -Werror)
add_compile_options("$<$<COMPILE_LANGUAGE:CXX>:SHELL:-include ${CMAKE_SOURCE_DIR}/cmake/posix_flock.h>")
# C files (the broker plugin's headers, tests of C interfaces) share the warnings but not the C++ ones.
set(CMAKE_C_FLAGS "${CMAKE_C_FLAGS} -Wno-unused-command-line-argument -Wno-unknown-warning-option")

if(FLOCK_SANITIZE)
  add_compile_options(-fsanitize=${FLOCK_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all -O1)
  add_link_options(-fsanitize=${FLOCK_SANITIZE})
endif()

find_package(Threads REQUIRED)
find_package(OpenSSL 3 REQUIRED)
find_package(Boost 1.81 REQUIRED COMPONENTS json url)
find_package(Protobuf REQUIRED)
find_package(PkgConfig REQUIRED)
find_package(GTest REQUIRED)
find_package(date REQUIRED)  # time zones: libstdc++ 12 has none
pkg_check_modules(YAML REQUIRED IMPORTED_TARGET GLOBAL yaml-cpp)

# Asio is compiled once, in libs/async/asio_impl.cpp; the macro must hold for every file (ODR).
add_compile_definitions(BOOST_ASIO_SEPARATE_COMPILATION BOOST_ASIO_NO_DEPRECATED)
