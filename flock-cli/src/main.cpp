// SPDX-License-Identifier: Apache-2.0
#include <csignal>

#include "cli.h"

int main(int argc, char** argv) {
  std::signal(SIGPIPE, SIG_IGN);
  return flock::cli::run({argv + 1, argv + argc});
}
