// SPDX-License-Identifier: Apache-2.0
#include "net/http_parser.h"

#include <ostream>  // Beast 1.81's status.hpp needs it and does not say so

#include <algorithm>
#include <boost/asio/buffer.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <limits>
#include <type_traits>

#include "base/error.h"

namespace flock::net {
namespace {

namespace http = boost::beast::http;

template <bool kIsRequest>
class BeastParser final : public MessageParser {
 public:
  BeastParser(Limits limits, bool skip_body) {
    parser_.header_limit(static_cast<std::uint32_t>(limits.header_bytes));
    parser_.body_limit(limits.body_bytes);
    parser_.eager(true);
    parser_.skip(skip_body);
  }

  std::size_t put(std::string_view input) override {
    started_ = started_ || !input.empty();
    boost::system::error_code error;
    const std::size_t used = parser_.put(boost::asio::buffer(input.data(), input.size()), error);
    if (error == http::error::need_more) return used;
    check(error);
    return used;
  }

  void put_end() override {
    boost::system::error_code error;
    parser_.put_eof(error);
    check(error);
  }

  bool header_done() const override { return parser_.is_header_done(); }
  bool done() const override { return parser_.is_done(); }
  bool started() const override { return started_; }
  bool keep_alive() const override { return parser_.keep_alive(); }
  bool expects_continue() const override {
    const auto& message = parser_.get();
    const auto found = message.find(http::field::expect);
    return found != message.end() && found->value() == "100-continue";
  }

  int status() const override {
    if constexpr (kIsRequest)
      return 0;
    else
      return static_cast<int>(parser_.get().result_int());
  }

  Request take_request() override {
    Request request;
    if constexpr (kIsRequest) {
      auto message = parser_.release();
      request.method = std::string(message.method_string());
      request.target = std::string(message.target());
      copy_headers(message, request.headers);
      request.body = std::move(message.body());
    }
    return request;
  }

  Response take_response() override {
    Response response;
    if constexpr (!kIsRequest) {
      auto& message = parser_.get();
      response.status = static_cast<int>(message.result_int());
      copy_headers(message, response.headers);
      response.body = std::move(message.body());
      message.body().clear();
    }
    return response;
  }

  std::string take_body() override {
    std::string body = std::move(parser_.get().body());
    parser_.get().body().clear();
    return body;
  }

 private:
  template <class Message>
  static void copy_headers(const Message& message, Headers& headers) {
    for (const auto& field : message) {
      headers.add(std::string(field.name_string()), std::string(field.value()));
    }
  }

  static void check(const boost::system::error_code& error) {
    if (!error) return;
    if (error == http::error::header_limit) throw Error(Code::kTooLarge, "header");
    if (error == http::error::body_limit || error == http::error::buffer_overflow) {
      throw Error(Code::kTooLarge, "body");
    }
    throw Error(Code::kProtocol, "malformed HTTP message: " + error.message());
  }

  http::parser<kIsRequest, http::string_body> parser_;
  bool started_ = false;
};

}  // namespace

Task<bool> InputBuffer::fill(Stream& stream) {
  constexpr std::size_t kMostBlock = 64 * 1024;
  if (start > 0) {
    data.erase(0, start);
    start = 0;
  }
  const std::size_t before = data.size();
  data.resize(before + block);
  std::size_t got = 0;
  std::exception_ptr failure;
  try {
    got = co_await stream.read_some(data.data() + before, block);
  } catch (...) {
    failure = std::current_exception();
  }
  data.resize(before + got);
  if (got == block) block = std::min(2 * block, kMostBlock);
  if (failure) std::rethrow_exception(failure);
  co_return got > 0;
}

std::unique_ptr<MessageParser> MessageParser::request(Limits limits) {
  return std::make_unique<BeastParser<true>>(limits, false);
}

std::unique_ptr<MessageParser> MessageParser::response(Limits limits, bool head) {
  return std::make_unique<BeastParser<false>>(limits, head);
}

}  // namespace flock::net
