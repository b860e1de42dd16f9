// SPDX-License-Identifier: Apache-2.0
// Private to this room: Beast's parser, fed from our streams, without Beast's I/O.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "net/http.h"
#include "net/stream.h"

namespace flock::net {

// Bytes read from a stream and not used yet.
struct InputBuffer {
  std::string data;
  std::size_t start = 0;
  std::size_t block = 2048;  // of one read; a peer that fills it gets a larger one

  std::string_view view() const { return std::string_view(data).substr(start); }
  void consume(std::size_t count) {
    start += count;
    if (start == data.size()) {
      data.clear();
      start = 0;
    }
  }
  // False at the end of the stream.
  Task<bool> fill(Stream& stream);
};

// One message. `Error{kProtocol}` for what is malformed, `kTooLarge` past a limit (message "header"
// or "body").
class MessageParser {
 public:
  struct Limits {
    std::size_t header_bytes, body_bytes;
  };
  static std::unique_ptr<MessageParser> request(Limits limits);
  // `head`: the answer to HEAD has no body.
  static std::unique_ptr<MessageParser> response(Limits limits, bool head);
  virtual ~MessageParser() = default;

  // Uses up some of `input`; returns how much. 0 means: more bytes are needed.
  virtual std::size_t put(std::string_view input) = 0;
  // The stream ended; a body without length ends with it. Throws when the message is not complete.
  virtual void put_end() = 0;
  virtual bool header_done() const = 0;
  virtual bool done() const = 0;
  virtual bool started() const = 0;
  virtual bool keep_alive() const = 0;
  virtual bool expects_continue() const = 0;
  virtual int status() const = 0;  // of a response whose headers are done
  virtual Request take_request() = 0;
  virtual Response take_response() = 0;
  // What arrived of the body since the last call: for streams.
  virtual std::string take_body() = 0;
};

}  // namespace flock::net
