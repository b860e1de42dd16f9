// SPDX-License-Identifier: Apache-2.0
#include "logs/positions.h"

#include <boost/json.hpp>

#include "base/bytes.h"
#include "base/error.h"
#include "base/files.h"
#include "base/json.h"
#include "base/log.h"

namespace flock::agent {
namespace {

namespace bj = boost::json;

std::int64_t number_of(const bj::object& object, const char* key) {
  return object.at(key).to_number<std::int64_t>();
}

Position read_position(const bj::object& in) {
  Position out;
  out.epoch = number_of(in, "epoch");
  out.number = number_of(in, "number");
  out.container = std::string(in.at("container").as_string());
  out.inode = static_cast<std::uint64_t>(number_of(in, "inode"));
  out.head = from_hex(std::string(in.at("head").as_string())).value_or("");
  out.offset = number_of(in, "offset");
  out.limit = {number_of(in, "limit_lines"), number_of(in, "limit_bytes"),
               number_of(in, "limit_at")};
  if (out.number < 1 || out.offset < 0) throw Error(Code::kCorrupt, "a number is out of range");
  return out;
}

}  // namespace

Positions load_positions(const std::string& path) {
  try {
    const auto text = read_file(path);
    if (!text) return {};
    const bj::value value = json::parse(*text);
    const bj::object& object = value.as_object();
    Positions out;
    out.boot_id = std::string(object.at("boot_id").as_string());
    out.clean = object.at("clean").as_bool();
    for (const auto& [service, position] : object.at("services").as_object())
      out.services[std::string(service)] = read_position(position.as_object());
    return out;
  } catch (const std::exception& error) {  // Boost.JSON's, too
    log::warn("the positions in the logs cannot be read; numbering begins anew",
              {{"file", path}, {"reason", error.what()}});
    return {};
  }
}

void save_positions(const std::string& path, const Positions& positions) {
  bj::object services;
  for (const auto& [service, position] : positions.services)
    services[service] = bj::object{{"epoch", position.epoch},
                                   {"number", position.number},
                                   {"container", position.container},
                                   {"inode", position.inode},
                                   {"head", to_hex(position.head)},
                                   {"offset", position.offset},
                                   {"limit_lines", position.limit.lines},
                                   {"limit_bytes", position.limit.bytes},
                                   {"limit_at", position.limit.at_ms}};
  write_file_atomic(path, bj::serialize(bj::object{{"boot_id", positions.boot_id},
                                                   {"clean", positions.clean},
                                                   {"services", std::move(services)}}));
}

}  // namespace flock::agent
