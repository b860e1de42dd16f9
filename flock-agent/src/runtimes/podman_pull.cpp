// SPDX-License-Identifier: Apache-2.0
#include "runtimes/podman_pull.h"

#include <algorithm>
#include <boost/json.hpp>

#include "base/error.h"
#include "base/json.h"

namespace flock::agent {
namespace {

namespace bj = boost::json;

constexpr std::size_t kLongestLine = 1 << 20;
constexpr std::size_t kMostLayers = 1000;
constexpr std::int64_t kLargest = std::int64_t{1} << 50;  // of a layer that can be true

std::string text_of(const bj::object& object, std::string_view key) {
  const bj::value* value = object.if_contains(key);
  return value && value->is_string() ? std::string(value->get_string()) : "";
}

std::int64_t bytes_of(const bj::object& object, std::string_view key) {
  const bj::value* value = object.if_contains(key);
  if (value == nullptr || !value->is_int64()) return 0;
  return std::clamp<std::int64_t>(value->get_int64(), 0, kLargest);
}

}  // namespace

void PullAnswer::take(std::string_view chunk) {
  rest_ += chunk;
  std::size_t begin = 0;
  for (std::size_t end; (end = rest_.find('\n', begin)) != std::string::npos; begin = end + 1)
    take_line(std::string_view(rest_).substr(begin, end - begin));
  rest_.erase(0, begin);
  if (rest_.size() > kLongestLine)
    throw Error(Code::kTooLarge, "podman says too much while pulling");
}

void PullAnswer::take_line(std::string_view line) {
  if (line.empty()) return;
  const bj::value value = json::parse(line);
  if (!value.is_object()) throw Error(Code::kProtocol, "podman's answer is not what was expected");
  const bj::object& object = value.get_object();
  for (const char* key : {"error", "cause", "message"}) {
    if (failure_.empty()) failure_ = text_of(object, key);
  }
  done_ = done_ || object.contains("id") || object.contains("images");
  const std::string id = text_of(object, "id");
  if (id.empty() || (layers_.size() >= kMostLayers && !layers_.contains(id))) return;
  Layer& layer = layers_[id];
  const bj::value* detail = object.if_contains("progressDetail");
  if (detail && detail->is_object() && bytes_of(detail->get_object(), "total") > 0) {
    layer.total = bytes_of(detail->get_object(), "total");
    layer.current = std::min(layer.total, bytes_of(detail->get_object(), "current"));
  } else if (text_of(object, "status").ends_with("complete")) {
    layer.current = layer.total;
  }
}

int PullAnswer::percent() const {
  double current = 0, total = 0;
  for (const auto& [id, layer] : layers_) {
    current += static_cast<double>(layer.current);
    total += static_cast<double>(layer.total);
  }
  return total > 0 ? static_cast<int>(99 * current / total) : 0;
}

std::string PullAnswer::end() {
  take("\n");
  return failure_.empty() && !done_ ? "podman did not say that it pulled the image" : failure_;
}

}  // namespace flock::agent
