// SPDX-License-Identifier: Apache-2.0
#include "base/json.h"

#include <algorithm>
#include <boost/json.hpp>
#include <cmath>
#include <limits>

namespace flock::json {
namespace bj = boost::json;
namespace {

std::string place(std::string_view text, std::size_t offset) {
  offset = std::min(offset, text.size());
  const std::string_view before = text.substr(0, offset);
  const auto line = 1 + std::count(before.begin(), before.end(), '\n');
  const std::size_t start = before.rfind('\n');
  const std::size_t column = start == std::string_view::npos ? offset + 1 : offset - start;
  return "line " + std::to_string(line) + ", column " + std::to_string(column);
}

// RFC 6901: "~" and "/" are escaped.
std::string escape_pointer(std::string_view key) {
  std::string out;
  for (const char c : key) {
    if (c == '~') {
      out += "~0";
    } else if (c == '/') {
      out += "~1";
    } else {
      out += c;
    }
  }
  return out;
}

// The length of the valid UTF-8 sequence at the start of `text`, or 0 (Unicode 15, table 3-7).
std::size_t utf8_length(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const auto tail = [&](std::size_t i, unsigned char low = 0x80, unsigned char high = 0xbf) {
    return i < text.size() && byte(i) >= low && byte(i) <= high;
  };
  const unsigned char first = byte(0);
  if (first < 0x80) return 1;
  if (first >= 0xc2 && first <= 0xdf) return tail(1) ? 2 : 0;
  if (first >= 0xe0 && first <= 0xef) {
    const unsigned char low = first == 0xe0 ? 0xa0 : 0x80, high = first == 0xed ? 0x9f : 0xbf;
    return tail(1, low, high) && tail(2) ? 3 : 0;
  }
  if (first >= 0xf0 && first <= 0xf4) {
    const unsigned char low = first == 0xf0 ? 0x90 : 0x80, high = first == 0xf4 ? 0x8f : 0xbf;
    return tail(1, low, high) && tail(2) && tail(3) ? 4 : 0;
  }
  return 0;
}

// A number beyond a double became infinity, which nothing can write as JSON again.
bool has_infinity(const bj::value& value) {
  if (const double* number = value.if_double()) return std::isinf(*number);
  if (const bj::array* items = value.if_array())
    return std::any_of(items->begin(), items->end(), has_infinity);
  const bj::object* object = value.if_object();
  return object != nullptr && std::any_of(object->begin(), object->end(), [](const auto& member) {
           return has_infinity(member.value());
         });
}

}  // namespace

bj::value parse(std::string_view text, Limits limits) {
  if (text.size() > limits.bytes) {
    throw Error(Code::kTooLarge, "JSON document is too large")
        .with("bytes", std::to_string(text.size()))
        .with("limit", std::to_string(limits.bytes));
  }
  bj::parse_options options;
  options.max_depth = limits.depth;
  bj::stream_parser parser({}, options);
  boost::system::error_code error;
  const std::size_t consumed = parser.write_some(text.data(), text.size(), error);
  if (!error && consumed < text.size()) error = bj::error::extra_data;
  if (!error) parser.finish(error);
  if (error == bj::error::too_deep) {
    throw Error(Code::kTooLarge, "JSON document is nested too deeply")
        .with("at", place(text, consumed))
        .with("limit", std::to_string(limits.depth));
  }
  if (error) {
    throw Error(Code::kInvalidArgument, "not valid JSON: " + error.message())
        .with("at", place(text, consumed));
  }
  bj::value out = parser.release();
  if (has_infinity(out))
    throw Error(Code::kInvalidArgument, "not valid JSON: a number is too large");
  return out;
}

std::string serialize(const bj::value& value) { return bj::serialize(value); }

bool is_utf8(std::string_view text) noexcept {
  while (!text.empty()) {
    const std::size_t length = utf8_length(text);
    if (length == 0) return false;
    text.remove_prefix(length);
  }
  return true;
}

void append_quoted(std::string& out, std::string_view text) {
  static constexpr char kHex[] = "0123456789abcdef";
  out += '"';
  for (std::size_t i = 0; i < text.size();) {
    const char c = text[i];
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
      ++i;
    } else if (c == '\n') {
      out += "\\n";
      ++i;
    } else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
      out += "\\u00";
      out += kHex[(c >> 4) & 15];
      out += kHex[c & 15];
      ++i;
    } else if (const std::size_t length = utf8_length(text.substr(i)); length > 0) {
      out += text.substr(i, length);
      i += length;
    } else {
      out += "\xef\xbf\xbd";
      ++i;
    }
  }
  out += '"';
}

Reader::Reader(const bj::value& value, std::string pointer) : pointer_(std::move(pointer)) {
  object_ = value.if_object();
  if (object_ == nullptr) problems_->push_back({pointer_, "wrong_type", "must be an object"});
}

Reader::Reader(const bj::value& value, std::string pointer, Reader& parent)
    : object_(value.if_object()), pointer_(std::move(pointer)), problems_(parent.problems_) {
  if (object_ == nullptr) problems_->push_back({pointer_, "wrong_type", "must be an object"});
}

std::string Reader::pointer(std::string_view key) const {
  return pointer_ + "/" + escape_pointer(key);
}

void Reader::problem(std::string_view key, std::string code, std::string detail) {
  problems_->push_back({key.empty() ? pointer_ : pointer(key), std::move(code), std::move(detail)});
}

bool Reader::ok() const { return problems_->empty(); }

const bj::value* Reader::find(std::string_view key) {
  seen_.emplace_back(key);
  if (object_ == nullptr) return nullptr;
  const bj::value* value = object_->if_contains(key);
  return value == nullptr || value->is_null() ? nullptr : value;  // null and absent mean the same
}

std::optional<std::string> Reader::text(std::string_view key, Text limits, bool required) {
  const bj::value* value = find(key);
  if (value == nullptr) {
    if (required && object_ != nullptr) problem(key, "required", "is required");
    return std::nullopt;
  }
  const bj::string* found = value->if_string();
  if (found == nullptr) {
    problem(key, "wrong_type", "must be a string");
    return std::nullopt;
  }
  if (found->size() < limits.min || found->size() > limits.max) {
    problem(
        key, found->size() < limits.min ? "too_short" : "too_long",
        "must have " + std::to_string(limits.min) + " to " + std::to_string(limits.max) + " bytes");
    return std::nullopt;
  }
  if (std::string_view(*found).find('\0') != std::string_view::npos) {
    problem(key, "invalid", "must not contain a NUL character");
    return std::nullopt;
  }
  return std::string(*found);
}

std::string Reader::string(std::string_view key, Text limits) {
  return text(key, limits, true).value_or("");
}

std::optional<std::string> Reader::optional_string(std::string_view key, Text limits) {
  return text(key, limits, false);
}

std::optional<std::int64_t> Reader::optional_integer(std::string_view key, Range range) {
  const bj::value* value = find(key);
  if (value == nullptr) return std::nullopt;
  std::int64_t number = 0;
  if (value->is_int64()) {
    number = value->get_int64();
  } else if (value->is_uint64()) {
    number = std::numeric_limits<std::int64_t>::max();
  } else {
    problem(key, "wrong_type", "must be a whole number");
    return std::nullopt;
  }
  if (number < range.min || number > range.max || value->is_uint64()) {
    problem(key, "out_of_range",
            "must be between " + std::to_string(range.min) + " and " + std::to_string(range.max));
    return std::nullopt;
  }
  return number;
}

std::int64_t Reader::integer(std::string_view key, Range range) {
  if (object_ != nullptr && (object_->if_contains(key) == nullptr || object_->at(key).is_null())) {
    problem(key, "required", "is required");
  }
  return optional_integer(key, range).value_or(range.min);
}

std::optional<bool> Reader::optional_boolean(std::string_view key) {
  const bj::value* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (!value->is_bool()) {
    problem(key, "wrong_type", "must be true or false");
    return std::nullopt;
  }
  return value->get_bool();
}

std::vector<std::string> Reader::optional_strings(std::string_view key, std::size_t max_items,
                                                  Text limits) {
  std::vector<std::string> out;
  const bj::array* array = optional_array(key);
  if (array == nullptr) return out;
  if (array->size() > max_items) {
    problem(key, "too_many", "must have at most " + std::to_string(max_items) + " items");
    return out;
  }
  for (std::size_t i = 0; i < array->size(); ++i) {
    const bj::string* item = (*array)[i].if_string();
    if (item == nullptr || item->size() < limits.min || item->size() > limits.max ||
        item->find('\0') != bj::string::npos) {
      problems_->push_back({pointer(key) + "/" + std::to_string(i), "wrong_type",
                            "must be a string of " + std::to_string(limits.min) + " to " +
                                std::to_string(limits.max) + " bytes without NUL"});
      continue;
    }
    out.emplace_back(*item);
  }
  return out;
}

const bj::object* Reader::optional_object(std::string_view key) {
  const bj::value* value = find(key);
  if (value == nullptr) return nullptr;
  if (!value->is_object()) problem(key, "wrong_type", "must be an object");
  return value->if_object();
}

const bj::array* Reader::optional_array(std::string_view key) {
  const bj::value* value = find(key);
  if (value == nullptr) return nullptr;
  if (!value->is_array()) problem(key, "wrong_type", "must be an array");
  return value->if_array();
}

const bj::value* Reader::optional_value(std::string_view key) { return find(key); }

void Reader::finish() {
  if (object_ != nullptr) {
    for (const auto& item : *object_) {
      if (std::find(seen_.begin(), seen_.end(), std::string_view(item.key())) == seen_.end()) {
        problem(item.key(), "unknown_field", "is not a field of this document");
      }
    }
  }
  if (problems_ == &own_ && !own_.empty()) {
    throw Error(Code::kInvalidArgument, "the request body is not valid").problems(std::move(own_));
  }
}

}  // namespace flock::json
