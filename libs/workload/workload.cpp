// SPDX-License-Identifier: Apache-2.0
#include "workload/workload.h"

#include <algorithm>
#include <boost/json.hpp>

#include "base/error.h"
#include "base/json.h"

namespace flock::workload {
namespace bj = boost::json;
namespace {

// One description of each struct serves both directions: `io(key, member)` writes or reads.
class Writer {
 public:
  bj::object out;
  void operator()(const char* key, const std::string& v) {
    if (!v.empty()) out[key] = v;
  }
  void operator()(const char* key, bool v) {
    if (v) out[key] = v;
  }
  void operator()(const char* key, int v) {
    if (v != 0) out[key] = v;
  }
  void operator()(const char* key, std::int64_t v) {
    if (v != 0) out[key] = v;
  }
  void operator()(const char* key, double v) {
    if (v != 0) out[key] = v;
  }
  void operator()(const char* key, Duration v) { out[key] = v.count(); }
  template <class E>
    requires std::is_enum_v<E>
  void operator()(const char* key, E v) {
    out[key] = static_cast<int>(v);
  }
  void operator()(const char* key, const std::map<std::string, std::string>& v) {
    bj::object map;
    for (const auto& [k, value] : v) map[k] = value;
    if (!map.empty()) out[key] = std::move(map);
  }
  template <class T>
  void operator()(const char* key, const std::optional<T>& v) {
    if (v) one(key, *v);
  }
  template <class T>
  void operator()(const char* key, const std::vector<T>& v) {
    if (!v.empty()) one(key, v);
  }

 private:
  template <class T>
  void one(const char* key, const std::vector<T>& v) {
    bj::array list;
    for (const T& item : v) list.push_back(value(item));
    out[key] = std::move(list);
  }
  template <class T>
  void one(const char* key, const T& v) {
    out[key] = value(v);
  }
  static bj::value value(const std::string& v) { return bj::value(v); }
  template <class T>
  static bj::value value(const T& v);
};

class Loader {
 public:
  explicit Loader(const bj::value& v) : in(v.as_object()) {}
  const bj::object& in;
  void operator()(const char* key, std::string& v) {
    if (const auto* f = in.if_contains(key)) v = f->as_string().c_str();
  }
  void operator()(const char* key, bool& v) {
    if (const auto* f = in.if_contains(key)) v = f->as_bool();
  }
  void operator()(const char* key, int& v) {
    if (const auto* f = in.if_contains(key)) v = f->to_number<int>();
  }
  void operator()(const char* key, std::int64_t& v) {
    if (const auto* f = in.if_contains(key)) v = f->to_number<std::int64_t>();
  }
  void operator()(const char* key, double& v) {
    if (const auto* f = in.if_contains(key)) v = f->to_number<double>();
  }
  void operator()(const char* key, Duration& v) {
    if (const auto* f = in.if_contains(key)) v = Duration(f->to_number<std::int64_t>());
  }
  template <class E>
    requires std::is_enum_v<E>
  void operator()(const char* key, E& v) {
    if (const auto* f = in.if_contains(key)) v = static_cast<E>(f->to_number<int>());
  }
  void operator()(const char* key, std::map<std::string, std::string>& v) {
    const auto* f = in.if_contains(key);
    if (f == nullptr) return;
    for (const auto& item : f->as_object())
      v[std::string(item.key())] = item.value().as_string().c_str();
  }
  template <class T>
  void operator()(const char* key, std::optional<T>& v) {
    if (const auto* f = in.if_contains(key)) read(*f, v.emplace());
  }
  template <class T>
  void operator()(const char* key, std::vector<T>& v) {
    if (const auto* f = in.if_contains(key)) read(*f, v);
  }

 private:
  template <class T>
  static void read(const bj::value& f, std::vector<T>& v) {
    for (const bj::value& item : f.as_array()) read(item, v.emplace_back());
  }
  static void read(const bj::value& f, std::string& v) { v = f.as_string().c_str(); }
  template <class T>
  static void read(const bj::value& f, T& v);
};

template <class Io, class T>
void fields(Io& io, T& v)
  requires std::same_as<std::remove_const_t<T>, Port>
{
  io("host_ip", v.host_ip), io("host_port", v.host_port), io("container_port", v.container_port),
      io("protocol", v.protocol);
}
template <class Io, class T>
void fields(Io& io, T& v)
  requires std::same_as<std::remove_const_t<T>, Mount>
{
  io("kind", v.kind), io("source", v.source), io("target", v.target), io("read_only", v.read_only),
      io("size_bytes", v.size_bytes);
}
template <class Io, class T>
void fields(Io& io, T& v)
  requires std::same_as<std::remove_const_t<T>, Dependency>
{
  bool optional = !v.required;
  io("service", v.service), io("condition", v.condition), io("optional", optional);
  if constexpr (!std::is_const_v<T>) v.required = !optional;
}
template <class Io, class T>
void fields(Io& io, T& v)
  requires std::same_as<std::remove_const_t<T>, HealthCheck>
{
  io("test", v.test), io("interval_ms", v.interval), io("timeout_ms", v.timeout),
      io("start_period_ms", v.start_period), io("retries", v.retries);
}
template <class Io, class T>
void fields(Io& io, T& v)
  requires std::same_as<std::remove_const_t<T>, DeviceNode>
{
  io("host_path", v.host_path), io("container_path", v.container_path),
      io("permissions", v.permissions);
}
template <class Io, class T>
void fields(Io& io, T& v)
  requires std::same_as<std::remove_const_t<T>, Network>
{
  io("name", v.name), io("internal", v.internal);
}
template <class Io, class T>
void fields(Io& io, T& v)
  requires std::same_as<std::remove_const_t<T>, Service>
{
  io("name", v.name), io("image", v.image), io("repository", v.repository),
      io("digests", v.digests);
  io("command", v.command), io("entrypoint", v.entrypoint), io("environment", v.environment),
      io("labels", v.labels);
  io("ports", v.ports), io("mounts", v.mounts), io("restart", v.restart),
      io("max_retries", v.max_retries);
  io("healthcheck", v.healthcheck), io("depends_on", v.depends_on),
      io("network_mode", v.network_mode), io("networks", v.networks);
  io("cap_add", v.cap_add), io("cap_drop", v.cap_drop), io("extra_hosts", v.extra_hosts),
      io("devices", v.devices);
  io("privileged", v.privileged), io("read_only", v.read_only), io("init", v.init),
      io("memory_bytes", v.memory_bytes);
  io("memory_reservation_bytes", v.memory_reservation_bytes), io("pids", v.pids),
      io("cpus", v.cpus), io("stop_grace_ms", v.stop_grace);
  io("stop_signal", v.stop_signal), io("user", v.user), io("working_dir", v.working_dir),
      io("hostname", v.hostname);
}
template <class Io, class T>
void fields(Io& io, T& v)
  requires std::same_as<std::remove_const_t<T>, Workload>
{
  io("services", v.services), io("volumes", v.volumes), io("networks", v.networks);
}

template <class T>
bj::value Writer::value(const T& v) {
  Writer writer;
  fields(writer, v);
  return std::move(writer.out);
}
template <class T>
void Loader::read(const bj::value& f, T& v) {
  Loader loader(f);
  fields(loader, v);
}

bj::value sorted(const bj::value& value) {
  if (value.is_array()) {
    bj::array out;
    for (const bj::value& item : value.get_array()) out.push_back(sorted(item));
    return out;
  }
  if (!value.is_object()) return value;
  std::map<std::string, const bj::value*> keys;
  for (const auto& item : value.get_object()) keys.emplace(item.key(), &item.value());
  bj::object out;
  for (const auto& [key, item] : keys) out[key] = sorted(*item);
  return out;
}

}  // namespace

std::string to_json(const Workload& workload) {
  Writer writer;
  fields(writer, workload);
  return bj::serialize(sorted(writer.out));
}

Workload from_json(std::string_view text) {
  try {
    const bj::value document = json::parse(text, {.bytes = 4 << 20, .depth = 16});
    Workload workload;
    Loader loader(document);
    fields(loader, workload);
    return workload;
  } catch (const Error& error) {
    throw Error(Code::kCorrupt, "a stored workload cannot be read").with("reason", error.message());
  } catch (const std::exception& error) {
    throw Error(Code::kCorrupt, "a stored workload cannot be read").with("reason", error.what());
  }
}

}  // namespace flock::workload
