// SPDX-License-Identifier: Apache-2.0
#include "host/program.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <optional>

#include "async/loop.h"
#include "async/scope.h"
#include "base/error.h"
#include "testing/process.h"
#include "testing/run_task.h"

namespace flock::agent {
namespace {

namespace ft = flock::testing;

Program shell(const std::string& text) {
  Program program;
  program.words = {"/bin/sh", "-c", text};
  program.environment = {{"PATH", "/usr/bin:/bin"}};
  return program;
}
ProgramEnd run(Program program, ProcessGroup* group = nullptr) {
  std::optional<ProgramEnd> end;
  ft::run_task([&]() -> Task<void> {
    end = co_await run_program(std::move(program), [&](ProcessGroup started) {
      if (group != nullptr) *group = started;
    });
  });
  return end.value_or(ProgramEnd{-1, 0, false, BoundedOutput(0)});
}
bool lives(pid_t group) { return ::kill(-group, 0) == 0; }

TEST(RunProgram, TellsCodeAndBothStreamsInOrder) {
  const ProgramEnd end = run(shell("echo one; echo two >&2; echo three; exit 7"));
  EXPECT_EQ(end.exit_code, 7);
  EXPECT_EQ(end.signal, 0);
  EXPECT_FALSE(end.timed_out);
  EXPECT_EQ(end.output.text(), "one\ntwo\nthree\n");
  EXPECT_EQ(run(shell("kill -9 $$")).signal, SIGKILL);
}

TEST(RunProgram, HasItsOwnEnvironmentFolderAndNoInput) {
  ::setenv("FLOCKD_SECRET", "x", 1);
  Program program = shell("pwd; echo \"$FLOCKD_SECRET$GIVEN\"; cat");
  program.working_directory = "/usr";
  program.environment["GIVEN"] = "given";
  EXPECT_EQ(run(std::move(program)).output.text(), "/usr\ngiven\n");
}

TEST(RunProgram, HandsAScriptOverAsAFileAlsoToAnotherUser) {
  Program program;
  program.words = {"/bin/sh"};
  program.environment = {{"PATH", "/usr/bin:/bin"}};
  program.script = "cat >/dev/null\nid -un\necho \"$HOME\"\n";  // reading input takes none of it
  if (::geteuid() == 0) program.run_as = "nobody";
  const ProgramEnd end = run(program);
  EXPECT_EQ(end.exit_code, 0) << end.output.text();
  if (::geteuid() == 0) EXPECT_EQ(end.output.text(), "nobody\n/nonexistent\n");
}

TEST(RunProgram, EndsWhatTakesTooLongWithAllThatItBegan) {
  Program program = shell("trap '' TERM; sleep 100 & echo begun; sleep 100; sleep 100");
  program.timeout = program.grace = Duration(200);
  ProcessGroup group;
  const SteadyPoint begun = std::chrono::steady_clock::now();
  const ProgramEnd end = run(std::move(program), &group);
  EXPECT_TRUE(end.timed_out);
  EXPECT_EQ(end.output.text(), "begun\n");
  EXPECT_LT(std::chrono::steady_clock::now() - begun, Duration(4'000));
  ft::wait_until("nothing of it is left", [&] { return !lives(group.id); });
}

TEST(RunProgram, DoesNotWaitForWhatIsLeftBehindOnPurpose) {
  ProcessGroup group;
  EXPECT_EQ(run(shell("sleep 100 & echo done"), &group).output.text(), "done\n");
  EXPECT_TRUE(lives(group.id));
  ::kill(-group.id, SIGKILL);
}

TEST(RunProgram, KeepsBeginningAndEndOfAFlood) {
  Program program = shell("echo first; yes | head -c 20000000; echo last");
  program.output_limit = 8 << 10;
  const ProgramEnd end = run(std::move(program));
  EXPECT_EQ(end.exit_code, 0);
  const std::string text = end.output.text();
  EXPECT_LT(text.size(), 9u << 10);
  EXPECT_TRUE(text.starts_with("first\n"));
  EXPECT_TRUE(text.ends_with("last\n"));
  const std::int64_t written = 6 + 20'000'000 + 5;
  EXPECT_EQ(end.output.dropped_bytes(), written - (8 << 10));
  EXPECT_NE(text.find("bytes left out"), std::string::npos);
}

TEST(RunProgram, SaysWhatCannotBeBegun) {
  Program nobody = shell("true");
  nobody.run_as = "no-such-user";
  Program nowhere = shell("true");
  nowhere.working_directory = "/no/such/folder";
  Program nothing;
  nothing.words = {"/no/such/program"};
  for (const auto& [program, said] :
       {std::pair(nobody, "this machine has no user no-such-user"),
        std::pair(nowhere, "cannot run /bin/sh in /no/such/folder: No such file or directory"),
        std::pair(nothing, "cannot run /no/such/program in /: No such file or directory")}) {
    std::string error;
    ft::run_task([&]() -> Task<void> {
      try {
        co_await run_program(program, [](ProcessGroup) {});
      } catch (const Error& caught) {
        error = caught.message();
      }
    });
    EXPECT_EQ(error, said);
  }
}

TEST(RunProgram, ACancelledOneIsKilled) {
  ProcessGroup group;
  ft::run_task([&]() -> Task<void> {
    TaskScope scope(co_await asio::this_coro::executor);
    const auto work = [&]() -> Task<void> {
      co_await run_program(shell("sleep 100"), [&](ProcessGroup started) { group = started; });
    };
    scope.spawn("work", work());
    while (group.id == 0) co_await sleep_for(Duration(5));
    scope.cancel();
    co_await scope.join();
  });
  EXPECT_FALSE(lives(group.id));
}

TEST(KillGroup, KillsTheOneThatWasMeantAndNoOther) {
  ProcessGroup group;
  EXPECT_EQ(run(shell("sleep 100 & true"), &group).exit_code, 0);
  kill_group(group);  // its leader has gone: the number may be another's
  EXPECT_TRUE(lives(group.id));
  ::kill(-group.id, SIGKILL);

  const pid_t child = ::fork();
  if (child == 0) {
    ::setpgid(0, 0);
    for (;;) ::pause();
  }
  ::setpgid(child, child);
  kill_group({child, 1});
  EXPECT_TRUE(lives(child)) << "began at another time";
  kill_group(group_of(child));
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_EQ(WTERMSIG(status), SIGKILL);
}

}  // namespace
}  // namespace flock::agent
