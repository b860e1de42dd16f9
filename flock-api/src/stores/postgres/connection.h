// SPDX-License-Identifier: Apache-2.0
// Private to this room.
#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "stores/postgres/database.h"

namespace flock::postgres {

// The state of an error that the leader's fence raises (migration 0020).
inline constexpr const char* kDeposed = "FL001";

struct Command {
  std::string sql;
  Params params;
};

// One libpq connection in pipeline mode, used by one coroutine at a time.
class Connection {
 public:
  static Task<std::unique_ptr<Connection>> open(Options options);
  ~Connection();

  // Sends all commands and one sync in one flush and reads the answers. The first failed command's
  // error is thrown after the pipeline has been read to its end, so that the connection stays
  // usable. A statement is parsed and planned once for each connection, when it first comes.
  Task<std::vector<Rows>> run(std::vector<Command> commands);
  // Several statements at once, without parameters (migrations). Leaves pipeline mode for it.
  Task<void> run_script(std::string sql);
  bool broken() const noexcept { return broken_; }

 private:
  struct Handles;
  Connection();
  Task<void> wait_readable();
  Task<void> flush();
  // What was sent, in order: a result comes for each.
  struct Sent {
    enum class Kind { kStatement, kPrepare, kForget } kind;
    const std::string* sql;
    std::string name;
  };
  std::vector<Sent> send(const std::vector<Command>& commands);
  Task<void> read_result_set(const std::vector<Sent>& sent, std::vector<Rows>& out,
                             std::optional<Error>& failure);
  Error lost(const char* when);

  std::unique_ptr<Handles> handles_;
  Duration limit_{30'000};
  bool broken_ = false;
  bool outdated_ = false;                                  // its plans are
  std::unordered_map<std::string, std::string> prepared_;  // the names of statements, by text
  std::uint64_t names_ = 0;
};

}  // namespace flock::postgres
