// SPDX-License-Identifier: Apache-2.0
#include "settings.h"

#include <cstdlib>
#include <filesystem>

#include "base/error.h"
#include "base/files.h"
#include "net/http.h"
#include "parse.h"
#include "toml.h"

namespace flock::cli {
namespace {

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

// The nearest flock.toml. It may come with a project from elsewhere, so it must not say where
// tokens go.
struct Project {
  std::string file, context, organization, fleet;
};
Project load_project() {
  Project out;
  std::error_code error;
  std::filesystem::path folder = std::filesystem::current_path(error);
  while (!error) {
    const std::string file = (folder / "flock.toml").string();
    if (const auto text = read_file(file)) {
      out.file = file;
      for (const toml::Table& table : toml::parse(*text, file)) {
        if (!table.path.empty()) continue;  // other parts of Flock have tables of their own
        for (const toml::Entry& entry : table.entries) {
          if (entry.key == "context") out.context = entry.value;
          if (entry.key == "organization") out.organization = entry.value;
          if (entry.key == "fleet") out.fleet = entry.value;
          if (entry.key == "server")
            throw Error(Code::kInvalidArgument, file + ", line " + std::to_string(entry.line) +
                                                    ": a project file cannot choose the server")
                .hint("name a context: flock contexts lists yours");
        }
      }
      return out;
    }
    if (folder == folder.root_path()) break;
    folder = folder.parent_path();
  }
  return out;
}

using Candidate = std::pair<std::string, std::string>;  // value, origin
Setting first_of(std::initializer_list<Candidate> candidates) {
  for (const auto& [value, origin] : candidates) {
    if (!value.empty()) return {value, origin};
  }
  return {};
}

std::string without_slash(std::string url) {
  while (url.ends_with('/')) url.pop_back();
  return url;
}

void require_context(const Config& config, const Setting& context) {
  if (config.contexts.contains(context.value)) return;
  std::vector<std::string> names;
  for (const auto& [name, item] : config.contexts) names.push_back(name);
  const std::string meant = nearest(context.value, names);
  throw Error(Code::kNotFound, "there is no context `" + context.value + "`")
      .with("named by", context.origin)
      .hint(meant.empty() ? "flock contexts" : "flock --context " + meant);
}

void load_credential(const Config& config, Settings& out) {
  if (const std::string token = variable("FLOCK_TOKEN"); !token.empty()) {
    out.credential.access_token = Secret(token);
    out.credential_origin = "FLOCK_TOKEN";
    return;
  }
  const auto found = config.contexts.find(out.context.value);
  if (found == config.contexts.end() || without_slash(found->second.server) != out.server.value)
    return;
  const Credentials all = load_credentials();
  const auto own = all.find(out.context.value);
  if (own == all.end()) return;
  out.credential = own->second;
  out.credential_origin = "credentials.json";
  out.stored = true;
}

// "flock.example" of https://flock.example:8443/x; the port too when it is not the usual one.
std::string name_for(const Config& config, const std::string& server) {
  if (config.contexts.empty()) return "default";
  const net::Url url = net::parse_url(server);
  const std::string name =
      url.port == "443" || url.port == "80" ? url.host : url.host + "-" + url.port;
  return config.contexts.contains(name) ? name + "-2" : name;
}

}  // namespace

Settings load_settings(const Given& given, bool may_be_new) {
  const Config config = load_config();
  const Project project = load_project();
  Settings out;
  out.context = first_of({{given.context, "--context"},
                          {variable("FLOCK_CONTEXT"), "FLOCK_CONTEXT"},
                          {project.context, project.file},
                          {config.current, "config.toml"}});
  if (out.context.origin != "config.toml" && !out.context.value.empty() && !may_be_new)
    require_context(config, out.context);
  const auto found = config.contexts.find(out.context.value);
  Context context = found == config.contexts.end() ? Context{} : found->second;
  const std::string origin = "context " + out.context.value;
  out.server = first_of({{given.server, "--server"},
                         {variable("FLOCK_SERVER"), "FLOCK_SERVER"},
                         {context.server, origin}});
  out.server.value = without_slash(out.server.value);
  // Without a context chosen by name, a server brings the context that belongs to it.
  if (out.context.origin == "config.toml" && without_slash(context.server) != out.server.value) {
    for (const auto& [name, item] : config.contexts) {
      if (without_slash(item.server) != out.server.value) continue;
      out.context = {name, "the one with this server"};
      context = item;
      break;
    }
  }
  const bool same = without_slash(context.server) == out.server.value;
  const std::string own = "context " + out.context.value;
  out.ca_file =
      first_of({{variable("FLOCK_CA_FILE"), "FLOCK_CA_FILE"}, {same ? context.ca_file : "", own}});
  out.organization = first_of({{given.organization, "--org"},
                               {variable("FLOCK_ORG"), "FLOCK_ORG"},
                               {project.organization, project.file},
                               {same ? context.organization : "", own}});
  out.fleet = first_of({{given.fleet, "--fleet"},
                        {variable("FLOCK_FLEET"), "FLOCK_FLEET"},
                        {project.fleet, project.file},
                        {same ? context.fleet : "", own}});
  load_credential(config, out);
  return out;
}

std::string store_settings(const Settings& settings) {
  Config config = load_config();
  std::string name = settings.context.value;
  const bool chosen =
      settings.context.origin == "--context" || settings.context.origin == "FLOCK_CONTEXT";
  if (!chosen &&
      (name.empty() || without_slash(config.contexts[name].server) != settings.server.value)) {
    if (!name.empty() && config.contexts[name].server.empty()) config.contexts.erase(name);
    name = name_for(config, settings.server.value);
  }
  Context& context = config.contexts[name];
  context.server = settings.server.value;
  context.ca_file = settings.ca_file.value;
  if (!settings.organization.value.empty()) context.organization = settings.organization.value;
  config.current = name;
  change_credentials([&](Credentials& all) { all[name] = settings.credential; });
  save_config(config);
  return name;
}

}  // namespace flock::cli
