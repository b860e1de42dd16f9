// SPDX-License-Identifier: Apache-2.0
#include <boost/url/parse.hpp>
#include <boost/url/url_view.hpp>
#include <charconv>

#include "base/error.h"
#include "net/http.h"
#include "net/stream.h"

namespace flock::net {
namespace {

std::string default_port(std::string_view scheme) {
  if (scheme == "http" || scheme == "ws") return "80";
  if (scheme == "https" || scheme == "wss") return "443";
  if (scheme == "mqtt") return "1883";
  if (scheme == "mqtts") return "8883";
  return "";
}

}  // namespace

Url parse_url(std::string_view text) {
  const auto parsed = boost::urls::parse_uri(boost::core::string_view(text.data(), text.size()));
  if (!parsed || (parsed->encoded_host().empty() && parsed->scheme() != "unix")) {
    throw Error(Code::kInvalidArgument, "not a URL")
        .with("value", std::string(text.substr(0, 200)))
        .hint("write it like https://flock.example:8443");
  }
  const boost::urls::url_view& view = *parsed;
  Url url;
  url.scheme = std::string(view.scheme());
  url.host = std::string(view.host_type() == boost::urls::host_type::ipv6 ? view.host_address()
                                                                          : view.host());
  url.port = std::string(view.port());
  if (url.port.empty()) url.port = default_port(url.scheme);
  if (!view.encoded_path().empty() && !view.encoded_path().starts_with('/')) {
    throw Error(Code::kInvalidArgument, "not a URL")
        .with("value", std::string(text.substr(0, 200)));
  }
  if (url.port.find_first_not_of("0123456789") != std::string::npos || url.port.size() > 5) {
    throw Error(Code::kInvalidArgument, "not a port in a URL").with("port", url.port.substr(0, 20));
  }
  url.path = std::string(view.encoded_path());
  if (url.path.empty()) url.path = "/";
  if (view.has_query()) url.path += "?" + std::string(view.encoded_query());
  url.user = view.user();
  url.password = view.password();
  return url;
}

HostPort parse_host_port(std::string_view text) {
  HostPort out;
  const std::size_t colon = text.rfind(':');
  const auto bad = [&] {
    return Error(Code::kInvalidArgument, "not host:port")
        .with("value", std::string(text.substr(0, 100)));
  };
  if (colon == std::string_view::npos) throw bad();
  std::string_view host = text.substr(0, colon), port = text.substr(colon + 1);
  if (host.starts_with('[') && host.ends_with(']')) {
    host = host.substr(1, host.size() - 2);
  } else if (host.find(':') != std::string_view::npos) {
    throw bad();
  }
  const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), out.port);
  if (error != std::errc() || end != port.data() + port.size() || out.port < 0 || out.port > 65535)
    throw bad();
  out.host = host;
  return out;
}

}  // namespace flock::net
