// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "net/http_client.h"
#include "runtimes/runtime.h"

namespace flock::agent {

// Podman 4 over its REST socket (libpod API). `insecure_hosts`: registries that speak plain HTTP.
std::unique_ptr<Runtime> make_podman(Executor executor, std::string socket,
                                     std::vector<std::string> insecure_hosts);

}  // namespace flock::agent
