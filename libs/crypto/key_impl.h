// SPDX-License-Identifier: Apache-2.0
// Private to this room.
#pragma once

#include "crypto/keys.h"
#include "crypto/openssl.h"

namespace flock::crypto {

struct Key::Impl {
  PkeyPtr pkey;
  Kind kind;
  bool has_private;
};

}  // namespace flock::crypto
