// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "flock/device/v1/device.pb.h"

namespace flock::agent {

// What this machine is, from uname, /etc/os-release and /proc; unknown facts stay empty.
device::v1::Hardware read_hardware();

}  // namespace flock::agent
