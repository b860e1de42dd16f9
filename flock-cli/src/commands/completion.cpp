// SPDX-License-Identifier: Apache-2.0
#include <cstdio>

#include "command.h"
#include "complete.h"

namespace flock::cli {
namespace {

int completion(Session& s) {
  std::fputs(
      completion_script(s.arguments.word(0, "a shell: bash, zsh, fish or powershell")).c_str(),
      stdout);
  return 0;
}

}  // namespace

Command completion_command() {
  return {
      .name = "completion",
      .summary = "the completion script of a shell",
      .verbs = {{.usage = "bash|zsh|fish|powershell", .words = {Kind::kText}, .run = completion}},
      .examples = {"flock completion bash >~/.local/share/bash-completion/completions/flock",
                   "flock completion fish >~/.config/fish/completions/flock.fish",
                   "eval \"$(flock completion zsh)\""}};
}

}  // namespace flock::cli
