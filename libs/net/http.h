// SPDX-License-Identifier: Apache-2.0
// HTTP/1.1 messages (RFC 9112) as plain data, shared by server, router and client.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace flock::net {

// Field names compare without case; order and repeats are kept.
class Headers {
 public:
  void add(std::string name, std::string value) {
    items_.emplace_back(std::move(name), std::move(value));
  }
  void set(std::string name, std::string value);  // replaces all of that name
  // The first value; nothing when absent.
  std::optional<std::string_view> get(std::string_view name) const;
  const std::vector<std::pair<std::string, std::string>>& items() const noexcept { return items_; }

 private:
  std::vector<std::pair<std::string, std::string>> items_;
};

struct Request {
  std::string method;
  std::string target;  // as sent: "/v1/devices?page_size=5"
  Headers headers;
  std::string body;
  std::string peer;  // filled by the server

  std::string_view raw_path() const;  // as sent, without the query
  std::string path() const;           // percent-decoded
  // Percent-decoded; the first of that name.
  std::optional<std::string> query(std::string_view name) const;
  std::vector<std::pair<std::string, std::string>> query_items() const;
};

struct Response {
  int status = 200;
  Headers headers;
  std::string body;
};

std::string_view reason_phrase(int status) noexcept;
// A broken escape stays as it is.
std::string percent_decode(std::string_view text);

// Absolute URL: http, https, mqtt(s), ws(s), unix. Throws Error{kInvalidArgument}.
struct Url {
  std::string scheme, host, port,
      path;  // path with query, "/" at least; port filled from the scheme when absent
  std::string user, password;
};
Url parse_url(std::string_view text);

}  // namespace flock::net
