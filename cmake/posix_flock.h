// SPDX-License-Identifier: Apache-2.0
// <fcntl.h> declares `struct flock` at global scope, which would forbid `namespace flock`.
// Force-included first in every C++ file, this names that struct `posix_flock` instead
// (docs/decisions/0002-namespace.md).
#pragma once
#define flock posix_flock
#include <fcntl.h>
#undef flock
