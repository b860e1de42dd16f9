// SPDX-License-Identifier: Apache-2.0
#include "workload/compose.h"

#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <charconv>
#include <functional>
#include <set>

#include "base/json.h"
#include "base/yaml.h"
#include "workload/compose_reader.h"

namespace flock::workload {
namespace {

using Keys =
    std::map<std::string, std::function<void(const YAML::Node&, const std::string& pointer)>,
             std::less<>>;

// What people write most often and Flock does not do, with the way out.
const std::map<std::string, std::string, std::less<>> kAdvice = {
    {"build", "Flock does not build images; push the image to a registry and name it with `image`"},
    {"container_name", "Flock names containers itself; address them by service name"},
    {"env_file", "put the variables under `environment`"},
    {"secrets", "put the value under `environment`"},
    {"configs", "put the file into the image or a volume"},
    {"profiles", "make one release for each profile"},
    {"extends", "write the service out; a release is closed"},
    {"links", "services of one release reach each other by name already"},
    {"scale", "a device runs one container for each service"},
    {"platform", "the device's own platform is chosen"},
    {"pull_policy", "images are pulled by digest when they are missing"},
    {"include", "send one file"},
    {"<<", "YAML merge keys are not read; write the keys out"},
};

class ComposeParser {
 public:
  ComposeResult parse(const YAML::Node& root) {
    if (!root.IsMap()) {
      in_.problem("", "wrong_type", "a compose file is a map with `services`");
      return std::move(result_);
    }
    const auto note = [this](const char* text) {
      return [this, text](const YAML::Node&, const std::string& at) {
        result_.notes.push_back({at, "ignored", text});
      };
    };
    each(root, "",
         Keys{
             {"name", note("is ignored: releases have a version")},
             {"version", note("is obsolete and ignored")},
             {"services", [this](const YAML::Node& n, const std::string& at) { services(n, at); }},
             {"volumes", [this](const YAML::Node& n, const std::string& at) { volumes(n, at); }},
             {"networks", [this](const YAML::Node& n, const std::string& at) { networks(n, at); }},
         });
    if (!root["services"]) in_.problem("/services", "required", "is required");
    check_references();
    return std::move(result_);
  }
  std::vector<Problem>& problems() { return in_.problems; }

 private:
  // Hands each key to its reader; an unknown one is a problem with advice. "x-..." is anybody's
  // (compose-spec, 11).
  void each(const YAML::Node& map, const std::string& pointer, const Keys& keys) {
    in_.unique_keys(map, pointer);
    for (const auto& item : map) {
      if (!item.first.IsScalar()) {
        in_.problem(pointer, "wrong_type", "a key is not text");
        continue;
      }
      const std::string key = item.first.Scalar(), at = pointer + "/" + escape(key);
      if (key.starts_with("x-")) continue;
      if (const auto found = keys.find(key); found != keys.end()) {
        found->second(item.second, at);
        continue;
      }
      const auto advice = kAdvice.find(key);
      in_.problem(at, "unsupported",
                  "`" + key + "` is not supported" +
                      (advice == kAdvice.end() ? "" : ": " + advice->second));
    }
  }

  bool map_or_problem(const YAML::Node& node, const std::string& at) {
    if (node.IsMap()) return true;
    in_.problem(at, "wrong_type", "must be a map");
    return false;
  }

  void services(const YAML::Node& node, const std::string& at) {
    if (!map_or_problem(node, at)) return;
    if (node.size() == 0) in_.problem(at, "too_few", "needs at least one service");
    if (node.size() > 100) return in_.problem(at, "too_many", "at most 100 services");
    in_.unique_keys(node, at);
    for (const auto& item : node) {
      const std::string name = item.first.IsScalar() ? item.first.Scalar() : "";
      const std::string here = at + "/" + escape(name);
      if (!is_name(name)) {
        in_.problem(here, "invalid",
                    "a service name has 1 to 63 of a-z, A-Z, 0-9, '.', '_', '-' and begins with a "
                    "letter or digit");
        continue;
      }
      if (!map_or_problem(item.second, here)) continue;
      Service service;
      service.name = name;
      read_service(item.second, here, service);
      if (service.image.empty() && !item.second["image"])
        in_.problem(here + "/image", "required", "is required");
      result_.workload.services.push_back(std::move(service));
    }
    std::sort(result_.workload.services.begin(), result_.workload.services.end(),
              [](const auto& a, const auto& b) { return a.name < b.name; });
  }

  void read_service(const YAML::Node& node, const std::string& pointer, Service& s) {
    const auto text = [this](std::string& out) {
      return [this, &out](const YAML::Node& n, const std::string& at) { out = in_.text(n, at); };
    };
    const auto flag = [this](bool& out) {
      return [this, &out](const YAML::Node& n, const std::string& at) { out = in_.boolean(n, at); };
    };
    const auto bytes = [this](std::int64_t& out) {
      return [this, &out](const YAML::Node& n, const std::string& at) { out = in_.bytes(n, at); };
    };
    const auto list = [this](std::vector<std::string>& out) {
      return [this, &out](const YAML::Node& n, const std::string& at) { out = in_.list(n, at); };
    };
    each(
        node, pointer,
        Keys{
            {"image", text(s.image)},
            {"command",
             [&](const YAML::Node& n, const std::string& at) {
               if (!n.IsNull()) s.command = in_.words(n, at);
             }},
            {"entrypoint",
             [&](const YAML::Node& n, const std::string& at) {
               if (!n.IsNull()) s.entrypoint = in_.words(n, at);
             }},
            {"environment",
             [&](const YAML::Node& n, const std::string& at) { s.environment = in_.pairs(n, at); }},
            {"labels",
             [&](const YAML::Node& n, const std::string& at) {
               s.labels = in_.pairs(n, at);
               reserved_labels(s, at);
             }},
            {"ports",
             [&](const YAML::Node& n, const std::string& at) { s.ports = in_.ports(n, at); }},
            {"volumes",
             [&](const YAML::Node& n, const std::string& at) { in_.mounts(n, at, s.mounts); }},
            {"tmpfs",
             [&](const YAML::Node& n, const std::string& at) { in_.tmpfs(n, at, s.mounts); }},
            {"restart", [&](const YAML::Node& n, const std::string& at) { restart(n, at, s); }},
            {"healthcheck",
             [&](const YAML::Node& n, const std::string& at) { healthcheck(n, at, s); }},
            {"depends_on",
             [&](const YAML::Node& n, const std::string& at) { depends_on(n, at, s); }},
            {"network_mode", text(s.network_mode)},
            {"networks",
             [&](const YAML::Node& n, const std::string& at) { service_networks(n, at, s); }},
            {"cap_add", list(s.cap_add)},
            {"cap_drop", list(s.cap_drop)},
            {"devices", [&](const YAML::Node& n, const std::string& at) { devices(n, at, s); }},
            {"privileged", flag(s.privileged)},
            {"read_only", flag(s.read_only)},
            {"init", flag(s.init)},
            {"mem_limit", bytes(s.memory_bytes)},
            {"mem_reservation", bytes(s.memory_reservation_bytes)},
            {"cpus", [&](const YAML::Node& n,
                         const std::string& at) { s.cpus = in_.number(n, at, 0.01, 1024); }},
            {"pids_limit", [&](const YAML::Node& n,
                               const std::string& at) { s.pids = in_.whole(n, at, 1, 4'000'000); }},
            {"deploy", [&](const YAML::Node& n, const std::string& at) { deploy(n, at, s); }},
            {"stop_grace_period",
             [&](const YAML::Node& n, const std::string& at) {
               s.stop_grace = in_.duration(n, at);
             }},
            {"stop_signal", text(s.stop_signal)},
            {"user", text(s.user)},
            {"working_dir", text(s.working_dir)},
            {"hostname", text(s.hostname)},
            {"extra_hosts",
             [&](const YAML::Node& n, const std::string& at) { extra_hosts(n, at, s); }},
            {"logging",
             [&](const YAML::Node&, const std::string& at) {
               result_.notes.push_back(
                   {at, "ignored", "is ignored: Flock collects what a container prints"});
             }},
        });
    const bool known_mode = s.network_mode.empty() || s.network_mode == "bridge" ||
                            s.network_mode == "host" || s.network_mode == "none" ||
                            s.network_mode.starts_with("service:");
    if (!known_mode)
      in_.problem(pointer + "/network_mode", "invalid",
                  "must be bridge, host, none or service:NAME");
    if (!s.network_mode.empty() && !s.networks.empty())
      in_.problem(pointer + "/networks", "conflict", "cannot stand beside `network_mode`");
    if (!s.ports.empty() && s.network_mode != "" && s.network_mode != "bridge")
      in_.problem(pointer + "/ports", "conflict", "ports need the bridge network");
  }

  void reserved_labels(const Service& s, const std::string& at) {
    for (const auto& [key, value] : s.labels) {
      if (key.starts_with("io.flock."))
        in_.problem(at + "/" + escape(key), "reserved",
                    "labels that begin with io.flock. belong to Flock");
    }
  }

  void restart(const YAML::Node& n, const std::string& at, Service& s) {
    const std::string text = in_.text(n, at);
    if (text == "no" || text == "false") {
      s.restart = RestartPolicy::kNo;
      return;
    }
    if (text == "always") {
      s.restart = RestartPolicy::kAlways;
      return;
    }
    if (text == "unless-stopped") {
      s.restart = RestartPolicy::kUnlessStopped;
      return;
    }
    if (text == "on-failure" || text.starts_with("on-failure:")) {
      s.restart = RestartPolicy::kOnFailure;
      if (text == "on-failure") return;
      const char* end = text.data() + text.size();
      const auto [stop, error] = std::from_chars(text.data() + 11, end, s.max_retries);
      if (error == std::errc() && stop == end && s.max_retries > 0) return;
    }
    in_.problem(at, "invalid",
                "must be no, always, unless-stopped, on-failure or on-failure:COUNT");
  }

  void healthcheck(const YAML::Node& node, const std::string& pointer, Service& s) {
    if (!map_or_problem(node, pointer)) return;
    HealthCheck check;
    bool disabled = false;
    each(node, pointer,
         Keys{
             {"test",
              [&](const YAML::Node& n, const std::string& at) {
                if (n.IsScalar()) {
                  check.test = {"CMD-SHELL", in_.text(n, at)};
                  return;
                }
                check.test = in_.list(n, at);
                const std::string kind = check.test.empty() ? "" : check.test[0];
                const std::size_t words = check.test.size();
                if (!(kind == "CMD" && words > 1) && !(kind == "CMD-SHELL" && words == 2) &&
                    !(kind == "NONE" && words == 1))
                  in_.problem(at, "invalid",
                              "a list is [CMD, program, ...], [CMD-SHELL, line] or [NONE]");
              }},
             {"interval", [&](const YAML::Node& n,
                              const std::string& at) { check.interval = in_.duration(n, at); }},
             {"timeout", [&](const YAML::Node& n,
                             const std::string& at) { check.timeout = in_.duration(n, at); }},
             {"start_period",
              [&](const YAML::Node& n, const std::string& at) {
                check.start_period = in_.duration(n, at);
              }},
             {"retries",
              [&](const YAML::Node& n, const std::string& at) {
                check.retries = static_cast<int>(in_.whole(n, at, 1, 1000));
              }},
             {"disable",
              [&](const YAML::Node& n, const std::string& at) { disabled = in_.boolean(n, at); }},
         });
    if (disabled) check.test = {"NONE"};
    if (check.test.empty()) in_.problem(pointer + "/test", "required", "is required");
    if (check.interval < Duration(1000))
      in_.problem(pointer + "/interval", "out_of_range", "must be at least 1s");
    s.healthcheck = std::move(check);
  }

  void depends_on(const YAML::Node& node, const std::string& pointer, Service& s) {
    if (node.IsSequence()) {
      for (const std::string& name : in_.list(node, pointer))
        s.depends_on.push_back({name, Condition::kStarted, true});
      return;
    }
    if (!map_or_problem(node, pointer)) return;
    in_.unique_keys(node, pointer);
    for (const auto& item : node) {
      Dependency dependency;
      dependency.service = item.first.Scalar();
      const std::string here = pointer + "/" + escape(dependency.service);
      if (!map_or_problem(item.second, here)) continue;
      each(item.second, here,
           Keys{
               {"condition",
                [&](const YAML::Node& n, const std::string& at) {
                  const std::string text = in_.text(n, at);
                  if (text == "service_started")
                    dependency.condition = Condition::kStarted;
                  else if (text == "service_healthy")
                    dependency.condition = Condition::kHealthy;
                  else if (text == "service_completed_successfully")
                    dependency.condition = Condition::kCompleted;
                  else
                    in_.problem(at, "invalid",
                                "must be service_started, service_healthy or "
                                "service_completed_successfully");
                }},
               {"required",
                [&](const YAML::Node& n, const std::string& at) {
                  dependency.required = in_.boolean(n, at);
                }},
           });
      s.depends_on.push_back(std::move(dependency));
    }
  }

  void service_networks(const YAML::Node& node, const std::string& pointer, Service& s) {
    if (node.IsSequence()) {
      s.networks = in_.list(node, pointer);
      return;
    }
    if (!map_or_problem(node, pointer)) return;
    in_.unique_keys(node, pointer);
    for (const auto& item : node) {
      if (!item.second.IsNull())
        in_.problem(pointer + "/" + escape(item.first.Scalar()), "unsupported",
                    "options of a network are not supported; list its name only");
      s.networks.push_back(item.first.Scalar());
    }
  }

  void devices(const YAML::Node& node, const std::string& pointer, Service& s) {
    const auto items = in_.list(node, pointer);
    for (std::size_t i = 0; i < items.size(); ++i) {
      DeviceNode device;
      const std::size_t first = items[i].find(':'),
                        second = first == std::string::npos ? first : items[i].find(':', first + 1);
      device.host_path = items[i].substr(0, first);
      device.container_path =
          first == std::string::npos
              ? device.host_path
              : items[i].substr(first + 1,
                                second == std::string::npos ? second : second - first - 1);
      if (second != std::string::npos) device.permissions = items[i].substr(second + 1);
      if (!device.host_path.starts_with('/') || !device.container_path.starts_with('/') ||
          device.permissions.empty() ||
          device.permissions.find_first_not_of("rwm") != std::string::npos) {
        in_.problem(pointer + "/" + std::to_string(i), "invalid",
                    "write it like /dev/ttyUSB0:/dev/ttyUSB0:rw");
      }
      s.devices.push_back(std::move(device));
    }
  }

  void deploy(const YAML::Node& node, const std::string& pointer, Service& s) {
    if (!map_or_problem(node, pointer)) return;
    const auto amounts = [&](std::int64_t& memory, bool limits) {
      return [&, limits](const YAML::Node& n, const std::string& at) {
        if (!map_or_problem(n, at)) return;
        Keys keys{{"memory", [&](const YAML::Node& m, const std::string& here) {
                     memory = in_.bytes(m, here);
                   }}};
        if (limits) {
          keys["cpus"] = [&](const YAML::Node& m, const std::string& here) {
            s.cpus = in_.number(m, here, 0.01, 1024);
          };
          keys["pids"] = [&](const YAML::Node& m, const std::string& here) {
            s.pids = in_.whole(m, here, 1, 4'000'000);
          };
        }
        each(n, at, keys);
      };
    };
    each(node, pointer,
         Keys{{"resources", [&](const YAML::Node& n, const std::string& at) {
                 if (!map_or_problem(n, at)) return;
                 each(n, at,
                      Keys{{"limits", amounts(s.memory_bytes, true)},
                           {"reservations", amounts(s.memory_reservation_bytes, false)}});
               }}});
  }

  void extra_hosts(const YAML::Node& node, const std::string& pointer, Service& s) {
    if (node.IsMap()) {
      for (const auto& [name, address] : in_.pairs(node, pointer))
        s.extra_hosts.push_back(name + ":" + address);
      return;
    }
    for (std::string item : in_.list(node, pointer)) {
      if (const std::size_t equals = item.find('='); equals != std::string::npos)
        item[equals] = ':';
      if (item.find(':') == std::string::npos)
        in_.problem(pointer, "invalid", "write it like name:address");
      s.extra_hosts.push_back(std::move(item));
    }
  }

  void volumes(const YAML::Node& node, const std::string& pointer) {
    if (!map_or_problem(node, pointer)) return;
    in_.unique_keys(node, pointer);
    for (const auto& item : node) {
      const std::string name = item.first.Scalar(), at = pointer + "/" + escape(name);
      if (!is_name(name))
        in_.problem(at, "invalid", "a volume name has 1 to 63 of a-z, A-Z, 0-9, '.', '_', '-'");
      if (!item.second.IsNull() && !(item.second.IsMap() && item.second.size() == 0))
        in_.problem(at, "unsupported", "options of a volume are not supported; leave it empty");
      result_.workload.volumes.push_back(name);
    }
    std::sort(result_.workload.volumes.begin(), result_.workload.volumes.end());
  }

  void networks(const YAML::Node& node, const std::string& pointer) {
    if (!map_or_problem(node, pointer)) return;
    in_.unique_keys(node, pointer);
    for (const auto& item : node) {
      Network network{item.first.Scalar(), false};
      const std::string here = pointer + "/" + escape(network.name);
      if (!is_name(network.name))
        in_.problem(here, "invalid", "a network name has 1 to 63 of a-z, A-Z, 0-9, '.', '_', '-'");
      if (item.second.IsMap()) {
        each(
            item.second, here,
            Keys{
                {"internal", [&](const YAML::Node& n,
                                 const std::string& at) { network.internal = in_.boolean(n, at); }},
                {"driver",
                 [&](const YAML::Node& n, const std::string& at) {
                   if (in_.text(n, at) != "bridge")
                     in_.problem(at, "unsupported", "only the bridge driver is supported");
                 }},
            });
      }
      if (!item.second.IsNull() && !item.second.IsMap())
        in_.problem(here, "wrong_type", "must be a map, or empty");
      result_.workload.networks.push_back(std::move(network));
    }
  }

  // Names that one part of the file uses and another declares.
  void check_references() {
    const Workload& w = result_.workload;
    const auto known_service = [&](const std::string& name) {
      return std::any_of(w.services.begin(), w.services.end(),
                         [&](const Service& s) { return s.name == name; });
    };
    for (const Service& s : w.services) {
      const std::string at = "/services/" + escape(s.name);
      for (const Dependency& d : s.depends_on) {
        if (!known_service(d.service))
          in_.problem(at + "/depends_on", "unknown_service",
                      "there is no service `" + d.service + "`");
      }
      if (s.network_mode.starts_with("service:") && !known_service(s.network_mode.substr(8)))
        in_.problem(at + "/network_mode", "unknown_service", "there is no such service");
      for (const Mount& m : s.mounts) {
        if (m.kind == MountKind::kVolume && !m.source.empty() &&
            !std::binary_search(w.volumes.begin(), w.volumes.end(), m.source))
          in_.problem(at + "/volumes", "unknown_volume",
                      "declare `" + m.source + "` under the top-level `volumes`");
      }
      for (const std::string& name : s.networks) {
        if (name != "default" && std::none_of(w.networks.begin(), w.networks.end(),
                                              [&](const Network& n) { return n.name == name; }))
          in_.problem(at + "/networks", "unknown_network",
                      "declare `" + name + "` under the top-level `networks`");
      }
      std::set<std::string> visiting;
      if (reaches(s.name, s.name, visiting))
        in_.problem(at + "/depends_on", "cycle", "the service depends on itself");
    }
  }

  bool reaches(const std::string& from, const std::string& target, std::set<std::string>& seen) {
    for (const Service& s : result_.workload.services) {
      if (s.name != from) continue;
      for (const Dependency& d : s.depends_on) {
        if (d.service == target ||
            (seen.insert(d.service).second && reaches(d.service, target, seen)))
          return true;
      }
    }
    return false;
  }

  ComposeReader in_;
  ComposeResult result_;
};

// Aliases can make a small text a huge tree; this counts what a reader would visit.
bool within(const YAML::Node& node, std::size_t& budget, int depth) {
  if (budget == 0 || depth > 32) return false;
  --budget;
  if (node.IsSequence()) {
    for (const auto& item : node) {
      if (!within(item, budget, depth + 1)) return false;
    }
  } else if (node.IsMap()) {
    for (const auto& item : node) {
      if (!within(item.first, budget, depth + 1) || !within(item.second, budget, depth + 1))
        return false;
    }
  }
  return true;
}

// yaml-cpp's parser recurses: brackets and indentation are bounded before it sees the text.
void check_nesting(std::string_view yaml) {
  int open = 0;
  std::size_t indent = 0;
  bool line_start = true;
  for (const char c : yaml) {
    if (c == '\n') {
      line_start = true;
      indent = 0;
      continue;
    }
    if (line_start && (c == ' ' || c == '-' || c == '?'))
      ++indent;
    else
      line_start = false;
    if (c == '[' || c == '{') ++open;
    if ((c == ']' || c == '}') && open > 0) --open;
    if (open > 64 || indent > 256)
      throw Error(Code::kTooLarge, "the compose file is nested too deeply");
  }
}

}  // namespace

ComposeResult parse_compose(std::string_view yaml) {
  if (yaml.size() > 256 * 1024) throw Error(Code::kTooLarge, "a compose file has at most 256 kB");
  if (!json::is_utf8(yaml))
    throw Error(Code::kInvalidArgument, "the compose file is not UTF-8 text");
  check_nesting(yaml);
  YAML::Node root;
  try {
    root = YAML::Load(std::string(yaml));
    if (holds_more_documents(yaml))
      throw Error(Code::kInvalidArgument, "the compose file cannot become a release")
          .problems({{"", "too_many", "holds more than one YAML document; send one"}});
    std::size_t budget = 20'000;
    if (!within(root, budget, 0))
      throw Error(Code::kTooLarge,
                  "the compose file is too large or too deep once its aliases are followed");
  } catch (const YAML::Exception& error) {
    throw Error(Code::kInvalidArgument, "the compose file is not valid YAML")
        .problems({{"", "invalid_yaml",
                    error.msg + " (line " + std::to_string(error.mark.line + 1) + ", column " +
                        std::to_string(error.mark.column + 1) + ")"}});
  }
  ComposeParser parser;
  ComposeResult result;
  try {
    result = parser.parse(root);
  } catch (const YAML::Exception& error) {
    parser.problems().push_back({"", "invalid_yaml", error.msg});
  }
  if (!parser.problems().empty()) {
    throw Error(Code::kInvalidArgument, "the compose file cannot become a release")
        .problems(std::move(parser.problems()));
  }
  return result;
}

}  // namespace flock::workload
