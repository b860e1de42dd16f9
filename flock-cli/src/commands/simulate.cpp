// SPDX-License-Identifier: Apache-2.0
#include "commands/simulate.h"

#include <sys/wait.h>
#include <unistd.h>

#include <boost/json.hpp>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "base/bytes.h"
#include "input.h"

namespace flock::cli {
namespace {

namespace bj = boost::json;
namespace fs = std::filesystem;

constexpr const char* kLabel = "simulated";

// Beside this program, where both are installed; else on the PATH.
std::string sim_program() {
  if (const char* given = std::getenv("FLOCK_SIM_PROGRAM")) return given;
  std::error_code error;
  const fs::path beside = fs::read_symlink("/proc/self/exe", error).parent_path() / "flock-sim";
  return fs::exists(beside, error) ? beside.string() : "flock-sim";
}

// The key in a file of its own, 0600, for a secret may not stand on a command line. Goes with the
// object.
class KeyFile {
 public:
  explicit KeyFile(const std::string& secret) {
    path_ = (fs::temp_directory_path() / "flock-key.XXXXXX").string();
    const int file = ::mkstemp(path_.data());
    if (file < 0 ||
        ::write(file, secret.data(), secret.size()) != static_cast<ssize_t>(secret.size()))
      throw Error(Code::kUnavailable, std::string("cannot write the key: ") + std::strerror(errno))
          .with("file", path_);
    ::close(file);
  }
  ~KeyFile() { ::unlink(path_.c_str()); }
  KeyFile(const KeyFile&) = delete;
  KeyFile& operator=(const KeyFile&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

volatile std::sig_atomic_t running_child = 0;
void pass_on(int number) { ::kill(running_child, number); }

// Waits for the program, which ends in order when this one is asked to end.
int run_to_its_end(std::vector<std::string> command) {
  std::vector<char*> argv;
  for (std::string& word : command) argv.push_back(word.data());
  argv.push_back(nullptr);
  const pid_t child = ::fork();
  if (child < 0) throw Error(Code::kUnavailable, "cannot start another program");
  if (child == 0) {
    for (const int number : {SIGINT, SIGTERM}) std::signal(number, SIG_DFL);
    ::execvp(argv[0], argv.data());
    ::_exit(127);
  }
  running_child = child;
  const auto interrupt = std::signal(SIGINT, pass_on), end = std::signal(SIGTERM, pass_on);
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  std::signal(SIGINT, interrupt);
  std::signal(SIGTERM, end);
  if (WIFEXITED(status) && WEXITSTATUS(status) == 127)
    throw Error(Code::kNotFound, "the program flock-sim is not installed")
        .with("program", command[0])
        .hint("install it beside flock, or name it: FLOCK_SIM_PROGRAM=/path/to/flock-sim");
  return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

int simulate(Session& s) {
  const Settings& settings = s.client.settings();
  const std::string fleet = settings.fleet.value;
  if (fleet.empty())
    throw Error(Code::kInvalidArgument, "missing: --fleet").hint(s.arguments.usage());
  const std::int64_t count = number("count", s.arguments.value("count", "50"), 1);
  const bj::value key =
      s.client.post("/v1/provisioning-keys", bj::object{{"fleet_id", fleet},
                                                        {"name", "flock devices simulate"},
                                                        {"expires_in", "24h"},
                                                        {"labels", {{kLabel, "true"}}}});
  const std::string id(key.at("id").as_string());
  const KeyFile file{std::string(key.at("secret").as_string())};
  std::vector<std::string> command{sim_program(), "--server=" + settings.server.value,
                                   "--provisioning-key-file=" + file.path(),
                                   "--count=" + std::to_string(count)};
  if (!settings.ca_file.value.empty()) command.push_back("--ca-file=" + settings.ca_file.value);
  for (const auto& [flag, option] :
       {std::pair{"fail-update", "fail-update-percent"}, std::pair{"fail-release", "fail-release"},
        std::pair{"offline-rate", "offline-percent"}, std::pair{"seed", "seed"},
        std::pair{"log-every", "log-every"}, std::pair{"telemetry-every", "telemetry-every"},
        std::pair{"name-prefix", "name-prefix"}})
    if (s.arguments.has(flag))
      command.push_back(std::string("--") + option + "=" + s.arguments.value(flag));
  std::fprintf(stderr,
               "%lld virtual devices for the fleet %s; Ctrl-C ends them. Remove them with: flock "
               "devices rm -l %s=true\n",
               static_cast<long long>(count), printable(fleet).c_str(), kLabel);
  const int status = run_to_its_end(std::move(command));
  s.client.send("DELETE", "/v1/provisioning-keys/" + url_encode(id), "");
  return status;
}

}  // namespace

Verb simulate_verb() {
  return {.name = "simulate",
          .usage = "[-n COUNT] [--fleet FLEET] [--fail-update PERCENT] [--offline-rate PERCENT]",
          .flags = {{"fleet", "FLEET", "the fleet they join", 0, Kind::kFleet},
                    {"count", "COUNT", "how many; default 50", 'n'},
                    {"fail-update", "PERCENT", "share of devices that fail a release"},
                    {"fail-release", "VERSION", "a release that each of them fails"},
                    {"offline-rate", "PERCENT", "share of devices that come and go"},
                    {"log-every", "DURATION", "a line of each service, such as 5s"},
                    {"telemetry-every", "DURATION", "how often figures are sent"},
                    {"seed", "N", "the same seed: the same devices doing the same"},
                    {"name-prefix", "TEXT", "names are TEXT-00000 and so on"}},
          .run = simulate};
}

}  // namespace flock::cli
