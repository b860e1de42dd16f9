// SPDX-License-Identifier: Apache-2.0
// Private to this room: TLS over any Stream, so that it works the same on sockets and in tests.
#pragma once

#include <memory>
#include <string>

#include "net/stream.h"

namespace flock::net {

// The handshake happens in handshake(). A null `context` means: trust the system's roots.
StreamPtr tls_client_stream(StreamPtr lower, std::shared_ptr<TlsContext> context,
                            const std::string& host);
StreamPtr tls_server_stream(StreamPtr lower, std::shared_ptr<TlsContext> context);

}  // namespace flock::net
