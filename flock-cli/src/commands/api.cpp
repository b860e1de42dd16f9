// SPDX-License-Identifier: Apache-2.0
#include <unistd.h>

#include <boost/json.hpp>
#include <cstdio>

#include "base/bytes.h"
#include "base/json.h"
#include "input.h"

namespace flock::cli {
namespace {

namespace bj = boost::json;

// true, false, null, numbers, objects and lists are JSON; @FILE and - are read; the rest is text.
bj::value typed(const std::string& text) {
  if (text.starts_with('@')) return bj::string(read_input(text.substr(1)));
  if (text == "-") return bj::string(read_input("-"));
  try {
    return json::parse(text);
  } catch (const Error&) {
    return bj::string(text);
  }
}

// The fields of -f and -F, in that order.
bj::object fields_of(const Arguments& arguments) {
  bj::object out;
  for (const char* flag : {"raw-field", "field"}) {
    for (const std::string& item : arguments.values(flag)) {
      const std::size_t equals = item.find('=');
      if (equals == std::string::npos || equals == 0)
        throw Error(Code::kInvalidArgument, "a field is key=value, not " + item)
            .hint("flock help api");
      const std::string value = item.substr(equals + 1);
      out[item.substr(0, equals)] =
          std::string(flag) == "field" ? typed(value) : bj::value(bj::string(value));
    }
  }
  return out;
}

std::string with_query(std::string path, const bj::object& fields) {
  for (const auto& item : fields)
    path += (path.find('?') == std::string::npos ? "?" : "&") + url_encode(item.key()) + "=" +
            url_encode(value_at(item.value(), ""));
  return path;
}

// A body in a pipe is passed on to the byte; a terminal is not to be steered by it.
void write_body(const Session& s, const std::string& body) {
  if (!s.output.terminal) {
    std::fwrite(body.data(), 1, body.size(), stdout);
    std::puts("");
    return;
  }
  for (const std::string& line : split(body, '\n')) std::puts(printable(line).c_str());
}

int exit_of(int status) {
  if (status < 400) return 0;
  return status == 404                    ? 3
         : status == 401 || status == 403 ? 4
         : status == 409 || status == 412 ? 5
         : status == 502 || status == 503 ? 6
         : status == 504                  ? 7
                                          : 1;
}

int api(Session& s) {
  std::string path = s.arguments.word(0, "a path such as /v1/fleets");
  if (!path.starts_with('/')) path = "/" + path;
  std::string body = s.arguments.value("data");
  if (body.starts_with('@')) body = read_input(body.substr(1));
  if (body == "-") body = read_input("-");
  const bj::object fields = fields_of(s.arguments);
  if (!body.empty() && !fields.empty())
    throw Error(Code::kInvalidArgument, "-d excludes -f and -F").hint("flock help api");
  const bool sends = !body.empty() || !fields.empty();
  const std::string method =
      s.arguments.value("method", sends && !s.arguments.has("paginate") ? "POST" : "GET");
  if (method == "GET")
    path = with_query(path, fields);
  else if (!fields.empty())
    body = bj::serialize(fields);
  if (s.arguments.has("paginate")) {
    if (method != "GET")
      throw Error(Code::kInvalidArgument, "--paginate is for GET").hint("flock help api");
    write_body(s, json_text(s.client.list(path, 0)));
    return 0;
  }
  const net::Response response = s.client.raw(method, path, body);
  if (s.arguments.has("include")) {
    std::printf("HTTP/1.1 %d %s\n", response.status,
                std::string(net::reason_phrase(response.status)).c_str());
    for (const auto& [name, value] : response.headers.items())
      std::printf("%s: %s\n", printable(name).c_str(), printable(value).c_str());
    std::puts("");
  }
  write_body(s, response.body);
  return exit_of(response.status);
}

}  // namespace

Command api_command() {
  return {
      .name = "api",
      .summary = "call the REST API as it is",
      .verbs = {{.usage = "PATH [-X METHOD] [-d JSON | -f KEY=TEXT | -F KEY=VALUE] [-i] "
                          "[--paginate]",
                 .words = {Kind::kText},
                 .flags = {{"method", "METHOD", "default GET, with data or fields POST", 'X'},
                           {"data", "JSON", "the body; @FILE reads a file, - standard input", 'd'},
                           {"raw-field", "KEY=TEXT",
                            "a field of the body, or of the query of a GET", 'f'},
                           {"field", "KEY=VALUE", "the same with JSON values; @FILE reads a file",
                            'F'},
                           {"include", "", "print status and headers too", 'i'},
                           {"paginate", "", "every page of a list as one"}},
                 .run = api}},
      .examples = {"flock api /v1/fleets", "flock api /v1/fleets -f name=Oslo",
                   "flock api /v1/devices --paginate -f fleet_id=demo"}};
}

}  // namespace flock::cli
