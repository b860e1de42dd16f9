// SPDX-License-Identifier: Apache-2.0
#include <sys/mount.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "base/error.h"
#include "base/files.h"
#include "testing/servers.h"

namespace flock::testing {
namespace {

// The mounts below `folder`, deepest first.
std::vector<std::string> mounts_below(const std::string& folder) {
  std::vector<std::string> out;
  std::ifstream mounts("/proc/self/mounts");
  for (std::string line; std::getline(mounts, line);) {
    std::istringstream words(line);
    std::string device, path;
    words >> device >> path;
    if (path.starts_with(folder + "/")) out.push_back(path);
  }
  std::sort(out.rbegin(), out.rend());
  return out;
}

}  // namespace

Podman::Podman(std::string store) : store_(store.empty() ? dir_.file("store") : store) {
  std::filesystem::create_directories(dir_.file("net"));
  // Low limits, because a test machine's root may not raise them; the private tmp_dir keeps stores
  // from meeting in /run.
  dir_.write("containers.conf",
             "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=4096:4096\"]\n"
             "log_driver = \"k8s-file\"\n[engine]\ncgroup_manager = \"cgroupfs\"\n"
             "events_logger = \"file\"\nruntime = \"runc\"\ntmp_dir = \"" +
                 dir_.file("tmp") + "\"\nstatic_dir = \"" + store_ + "/libpod\"\nvolume_path = \"" +
                 store_ +
                 "/volumes\"\n[network]\nnetwork_backend = \"netavark\"\nnetwork_config_dir = \"" +
                 dir_.file("net") + "\"\n");
  dir_.write("storage.conf", "[storage]\ndriver = \"overlay\"\ngraphroot = \"" + store_ +
                                 "\"\nrunroot = \"" + dir_.file("run") + "\"\n");
}

Podman::~Podman() {
  for (const char* command : {"rm --all --force --time 0", "network prune --force"}) {
    try {
      std::vector<std::string> arguments;
      std::istringstream words(command);
      for (std::string word; words >> word;) arguments.push_back(word);
      run(arguments);
    } catch (const Error&) {
      // The next lines clear away what is left.
    }
  }
  process_.stop();
  for (const std::string& root : {dir_.path(), store_})
    for (const std::string& mount : mounts_below(root)) ::umount2(mount.c_str(), MNT_DETACH);
}

std::vector<std::string> Podman::environment() const {
  std::vector<std::string> out{"env", "CONTAINERS_CONF=" + dir_.file("containers.conf"),
                               "CONTAINERS_STORAGE_CONF=" + dir_.file("storage.conf")};
  if (own_registries_) out.push_back("CONTAINERS_REGISTRIES_CONF=" + dir_.file("registries.conf"));
  return out;
}

void Podman::know_as_plain(const std::string& host) {
  dir_.write("registries.conf", "[[registry]]\nlocation = \"" + host + "\"\ninsecure = true\n");
  own_registries_ = true;
}

void Podman::start() {
  std::filesystem::remove(socket());
  std::vector<std::string> command = environment();
  // conmon leaves a file "oom" wherever Podman was started.
  command.insert(command.begin() + 1, "--chdir=" + dir_.path());
  for (const std::string& word :
       {std::string("podman"), std::string("system"), std::string("service"),
        std::string("--time=0"), "unix://" + socket()})
    command.push_back(word);
  process_.start(command, log());
  wait_until("Podman listens", [&] { return std::filesystem::exists(socket()); });
}

std::string Podman::run(const std::vector<std::string>& arguments) const {
  const TempDir answers;
  std::vector<std::string> command{"sh", "-c", "out=$1; shift; \"$@\" >\"$out\"", "podman",
                                   answers.file("out")};
  for (const std::string& word : environment()) command.push_back(word);
  command.push_back("podman");
  command.insert(command.end(), arguments.begin(), arguments.end());
  run_program(command);
  std::string text = read_file(answers.file("out")).value_or("");
  while (text.ends_with('\n')) text.pop_back();
  return text;
}

std::string Podman::build(const std::string& name, const std::string& source,
                          const std::string& lines) const {
  const TempDir context;
  const std::string c = context.write("app.c", source), app = context.file("app");
  run_program({find_program({"clang-19", "cc"}), "-static", "-Os", "-s", "-o", app, c});
  const std::string recipe = context.write(
      "Containerfile", "FROM scratch\nCOPY app /app\n" + lines + "\nENTRYPOINT [\"/app\"]\n");
  const std::string tag = "localhost/" + name;
  run({"build", "--quiet", "--format", "docker", "--tag", tag, "-f", recipe, context.path()});
  return tag + "@" + run({"image", "inspect", "--format", "{{.Digest}}", tag});
}

}  // namespace flock::testing
