// SPDX-License-Identifier: Apache-2.0
#include "app/host_commands.h"

#include <algorithm>
#include <boost/json.hpp>
#include <cstdio>
#include <utility>

#include "async/loop.h"
#include "base/bytes.h"
#include "base/error.h"
#include "base/files.h"
#include "base/json.h"
#include "base/log.h"
#include "crypto/keys.h"
#include "logs/lines.h"

namespace flock::agent {
namespace {

namespace bj = boost::json;
using device::v1::HostCommand;
using device::v1::HostCommandState;
using device::v1::LogLine;

constexpr std::size_t kKept = 8;  // commands that are remembered
constexpr std::size_t kJournalBytes = 1 << 20;
constexpr std::size_t kOutput = 64 << 10;   // when the command does not say
constexpr std::size_t kReported = 4 << 10;  // of the output, in reports
constexpr std::size_t kQuoted = 200;        // of its last line, in a reason
constexpr Duration kTimeout{600'000};       // when the command does not say
constexpr const char* kLogService = "host-command";
constexpr const char* kPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

Program base_program(const HostCommand& command) {
  Program program;
  // Nothing of flockd's own environment, which may hold secrets.
  program.environment = {{"PATH", kPath}, {"FLOCK_DEPLOYMENT_ID", command.id()}};
  for (const auto& [name, value] : command.environment()) program.environment[name] = value;
  if (!command.working_directory().empty()) program.working_directory = command.working_directory();
  program.run_as = command.run_as();
  program.timeout = command.timeout_ms() > 0 ? Duration(command.timeout_ms()) : kTimeout;
  program.output_limit = command.output_limit_bytes() > 0
                             ? static_cast<std::size_t>(command.output_limit_bytes())
                             : kOutput;
  return program;
}

Program shell_program(const HostCommand& command, const std::string& text) {
  Program program = base_program(command);
  program.words = {"/bin/sh", "-c", text};
  return program;
}

Program main_program(const HostCommand& command) {
  if (command.script().empty()) return shell_program(command, command.command());
  Program program = base_program(command);
  program.words = {command.interpreter().empty() ? "/bin/sh" : command.interpreter()};
  program.script = command.script();
  return program;
}

std::string last_line(const std::string& text) {
  const std::size_t end = text.find_last_not_of(" \n\r\t");
  if (end == std::string::npos) return "";
  const std::size_t before = text.rfind('\n', end);
  const std::size_t begin = before == std::string::npos ? 0 : before + 1;
  const std::string line = text.substr(begin, end - begin + 1);
  return clean_text(std::string_view(line).substr(0, kQuoted));
}

// How a program ended, in words: "exit code 100: E: Unable to locate package x".
std::string words_of_end(const ProgramEnd& end, Duration timeout) {
  std::string out = end.timed_out ? "it took longer than " + to_string(timeout) + " and was ended"
                    : end.signal != 0 ? "it was ended by signal " + std::to_string(end.signal)
                                      : "exit code " + std::to_string(end.exit_code);
  const std::string line = last_line(end.output.text());
  return line.empty() ? out : out + ": " + line;
}

bool is_expected(const HostCommand& command, int code) {
  const auto& codes = command.expected_exit_codes();
  return codes.empty() ? code == 0 : std::find(codes.begin(), codes.end(), code) != codes.end();
}

HostCommandState::Step shown(HostStep step) {
  switch (step) {
    case HostStep::kCommand:
      return HostCommandState::RUNNING;
    case HostStep::kReboot:
      return HostCommandState::REBOOTING;
    case HostStep::kVerify:
      return HostCommandState::VERIFYING;
    case HostStep::kRollback:
      return HostCommandState::ROLLING_BACK;
    case HostStep::kDone:
      return HostCommandState::DONE;
    case HostStep::kFailed:
      return HostCommandState::FAILED;
    case HostStep::kUndone:
      return HostCommandState::UNDONE;
    default:
      return HostCommandState::UNDO_FAILED;
  }
}

void add_lines(device::v1::LogStream& stream, std::string_view text, std::int64_t& number,
               std::int64_t at_ms) {
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    LogLine* line = stream.add_lines();
    line->set_number(++number);
    line->set_at_ms(at_ms);
    line->set_source(LogLine::STDOUT);
    line->set_text(clean_text(text.substr(0, end)));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
}

}  // namespace

HostCommands::HostCommands(Executor executor, Options options)
    : options_(std::move(options)),
      path_(options_.data_dir + "/host-commands.json"),
      running_(std::move(executor)) {}

// --- What is remembered

void HostCommands::load() {
  entries_.clear();
  try {
    const auto text = read_file(path_, kJournalBytes);
    if (!text) return;
    const bj::value value = json::parse(*text);
    if (!value.is_array()) throw Error(Code::kCorrupt, "not a list");
    for (const bj::value& item : value.get_array())
      entries_.push_back(read_entry(bj::serialize(item)));
  } catch (const Error& error) {
    log::error("the list of host commands is damaged; it is moved aside", error, {{"file", path_}});
    std::rename(path_.c_str(), (path_ + ".corrupt").c_str());
    entries_.clear();
    lost_ = true;
  }
}

HostCommands::Entry HostCommands::read_entry(const std::string& text) {
  const bj::value value = json::parse(text);
  json::Reader in(value);
  Entry out;
  const auto bytes = from_base64(in.string("command", {.max = kJournalBytes}));
  const std::int64_t step = in.integer("step", {.max = static_cast<int>(HostStep::kUndoFailed)});
  out.record.step = static_cast<HostStep>(step);
  out.record.boot_id = in.string("boot_id", {.min = 0, .max = 100});
  out.record.tries = static_cast<int>(in.integer("tries", {.max = 1000}));
  out.record.undoing = in.optional_boolean("undoing").value_or(false);
  if (const auto code = in.optional_integer("exit_code", {.max = 255}))
    out.record.exit_code = static_cast<int>(*code);
  out.record.failure.code = in.string("code", {.min = 0});
  out.record.failure.error = in.string("error", {.min = 0, .max = 64 << 10});
  out.group.id = static_cast<pid_t>(in.integer("group", {.max = INT32_MAX}));
  out.group.started = in.integer("group_started", {});
  out.output = in.string("output", {.min = 0, .max = 64 << 10});
  out.dropped_bytes = in.integer("dropped_bytes", {});
  out.log_lines = in.integer("log_lines", {});
  out.started_ms = in.integer("started_ms", {});
  out.ended_ms = in.integer("ended_ms", {});
  in.finish();
  if (!bytes || !out.command.ParseFromString(*bytes))
    throw Error(Code::kCorrupt, "an unreadable command");
  return out;
}

std::string HostCommands::write_entry(const Entry& entry) {
  bj::object out{{"command", to_base64(entry.command.SerializeAsString())},
                 {"step", static_cast<int>(entry.record.step)},
                 {"boot_id", entry.record.boot_id},
                 {"tries", entry.record.tries},
                 {"undoing", entry.record.undoing},
                 {"code", entry.record.failure.code},
                 {"error", entry.record.failure.error},
                 {"group", entry.group.id},
                 {"group_started", entry.group.started},
                 {"output", entry.output},
                 {"dropped_bytes", entry.dropped_bytes},
                 {"log_lines", entry.log_lines},
                 {"started_ms", entry.started_ms},
                 {"ended_ms", entry.ended_ms}};
  if (entry.record.exit_code) out["exit_code"] = *entry.record.exit_code;
  return bj::serialize(out);
}

bool HostCommands::save() {
  std::string text = "[";
  for (const Entry& entry : entries_) text += (text.size() > 1 ? "," : "") + write_entry(entry);
  try {
    write_file_atomic(path_, text + "]");
    return true;
  } catch (const Error& error) {
    log::warn("cannot write down how far a host command is", error);
    return false;
  }
}

HostCommands::Entry* HostCommands::find(const std::string& id) {
  const auto found = std::find_if(entries_.begin(), entries_.end(),
                                  [&](const Entry& entry) { return entry.command.id() == id; });
  return found == entries_.end() ? nullptr : &*found;
}
const HostCommands::Entry* HostCommands::find(const std::string& id) const {
  return const_cast<HostCommands*>(this)->find(id);  // NOLINT: changes nothing
}

HostCommands::Standing HostCommands::standing(const std::string& id) const {
  const Entry* entry = find(id);
  if (entry == nullptr) return Standing::kUnknown;
  switch (entry->record.step) {
    case HostStep::kDone:
      return Standing::kDone;
    case HostStep::kFailed:
      return Standing::kFailed;
    case HostStep::kUndone:
      return Standing::kUndone;
    case HostStep::kUndoFailed:
      return Standing::kUndoFailed;
    default:
      return Standing::kBusy;
  }
}

Failure HostCommands::failure(const std::string& id) const {
  const Entry* entry = find(id);
  return entry == nullptr ? Failure() : entry->record.failure;
}

void HostCommands::describe(const std::string& id, ReportedState& report) const {
  const Entry* entry = find(id);
  if (entry == nullptr) return;
  HostCommandState* out = report.mutable_host_command();
  out->set_id(id);
  out->set_step(shown(entry->record.step));
  if (entry->record.exit_code) out->set_exit_code(*entry->record.exit_code);
  out->set_output(entry->output);
  out->set_dropped_bytes(entry->dropped_bytes);
  out->set_error(entry->record.failure.error);
  out->set_started_at_ms(entry->started_ms);
  out->set_ended_at_ms(entry->ended_ms);
}

// --- What is done

bool HostCommands::may_run(const std::string& text) const {
  if (text.empty() || options_.allowed.empty()) return true;
  const std::string digest = "sha256:" + to_hex(crypto::sha256(text));
  return std::any_of(options_.allowed.begin(), options_.allowed.end(),
                     [&](const std::string& one) { return one == text || one == digest; });
}

std::string HostCommands::refusal_of(const HostCommand& command) const {
  if (!options_.enabled) return "this device's configuration switches host commands off";
  const bool reboots =
      command.reboot() == HostCommand::AFTER_SUCCESS || command.reboot() == HostCommand::EXPECTED;
  if (reboots && !options_.may_reboot)
    return "this device's configuration does not let anybody start the machine again";
  for (const auto& [name, text] :
       {std::pair("command", &command.command()), std::pair("script", &command.script()),
        std::pair("verify command", &command.verify_command()),
        std::pair("rollback command", &command.rollback_command())})
    if (!may_run(*text))
      return std::string("its ") + name +
             " is not among those that this device's configuration allows";
  return "";
}

void HostCommands::want(const HostCommand& command, bool undo) {
  const bool busy = std::any_of(entries_.begin(), entries_.end(),
                                [](const Entry& entry) { return !has_ended(entry.record.step); });
  if (busy) return;
  Entry* entry = find(command.id());
  if (entry != nullptr) {
    const HostStep step = entry->record.step;
    if (!undo || (has_ended(step) && step != HostStep::kDone)) return;
    entry->record = agent::undo(entry->record, entry->command);
  } else {
    if (entries_.size() >= kKept) entries_.pop_front();
    Entry fresh;
    fresh.command = command;
    fresh.started_ms = to_unix_ms(system_clock().now());
    if (undo) {  // it never was done here
      fresh.record.step = HostStep::kUndone;
    } else if (const std::string refusal = refusal_of(command); !refusal.empty()) {
      log::warn("a host command is refused", {{"deployment", command.id()}, {"reason", refusal}});
      fresh.record.step = HostStep::kFailed;
      fresh.record.failure = {"host_command_refused", "the host command is refused: " + refusal};
    } else if (std::exchange(lost_, false)) {  // it may have been done
      fresh.record = resume(fresh.record, command, options_.boot_id);
    }
    entry = &entries_.emplace_back(std::move(fresh));
  }
  begin(*entry);
}

void HostCommands::begin(Entry& entry) {
  if (has_ended(entry.record.step)) {
    save();
    options_.on_change();
  } else {
    running_.spawn("host command", carry_out(entry.command.id()));
  }
}

void HostCommands::go_on() {
  for (Entry& entry : entries_) {
    if (has_ended(entry.record.step)) continue;
    // What nobody watches any more does not go on.
    if (entry.record.boot_id == options_.boot_id) kill_group(entry.group);
    entry.record = resume(entry.record, entry.command, options_.boot_id);
    begin(entry);
  }
}

// Entries that have not ended stay where they are, but others may come and go while this waits.
Task<void> HostCommands::carry_out(std::string id) {
  for (Entry* entry = find(id); !has_ended(entry->record.step); entry = find(id)) {
    entry->record.boot_id = options_.boot_id;
    log::info("a step of a host command", {{"deployment", id},
                                           {"step", static_cast<int>(entry->record.step)},
                                           {"try", entry->record.tries + 1}});
    // One that could not be remembered could be run twice.
    if (!save() && entry->record.step == HostStep::kCommand) {
      entry->record.step = HostStep::kFailed;
      entry->record.failure = {"store_failed", "the host command cannot be written down here"};
      break;
    }
    options_.on_change();
    const StepEnd end = co_await perform(id);
    entry = find(id);
    entry->record = after(entry->record, entry->command, end);
    entry->group = {};
  }
  Entry& entry = *find(id);
  entry.ended_ms = to_unix_ms(system_clock().now());
  log::info("a host command ended", {{"deployment", id},
                                     {"step", static_cast<int>(entry.record.step)},
                                     {"error", entry.record.failure.error}});
  save();
  options_.on_change();
}

Task<StepEnd> HostCommands::perform(std::string id) {
  const Entry& entry = *find(id);
  const HostCommand command = entry.command;
  switch (entry.record.step) {
    case HostStep::kReboot:
      co_return co_await restart_machine(id);
    case HostStep::kVerify:
      if (entry.record.tries > 0) co_await sleep_for(options_.verify_pause);
      co_return co_await run(id, "verify", shell_program(command, command.verify_command()));
    case HostStep::kRollback:
      co_return co_await run(id, "rollback", shell_program(command, command.rollback_command()));
    default: {
      StepEnd end = co_await run(id, "command", main_program(command));
      end.good = end.in_time && end.exit_code && is_expected(command, *end.exit_code);
      co_return end;
    }
  }
}

Task<StepEnd> HostCommands::run(std::string id, std::string name, Program program) {
  StepEnd out;
  const Duration timeout = program.timeout;
  const auto on_started = [this, id](ProcessGroup group) {
    find(id)->group = group;
    save();
  };
  try {
    const ProgramEnd end = co_await run_program(std::move(program), on_started);
    out.in_time = !end.timed_out;
    out.exit_code = end.exit_code;
    out.good = out.in_time && end.exit_code == 0;
    out.what = words_of_end(end, timeout);
    keep_output(*find(id), name, end.output,
                end.timed_out ? "it took too long" : "exit code " + std::to_string(end.exit_code));
  } catch (const Error& error) {
    if (error.code() == Code::kCancelled) throw;
    out.ran = false;
    out.what = error.message();
  }
  co_return out;
}

// Returns only when it failed: a machine that started again finds the step in the journal.
Task<StepEnd> HostCommands::restart_machine(std::string id) {
  StepEnd out;
  out.what = "it still runs after " + to_string(options_.goes_down);
  if (find(id)->command.reboot() == HostCommand::EXPECTED) {
    co_await sleep_for(options_.goes_down);
    co_return out;
  }
  try {
    co_await options_.reboot(id);
  } catch (const Error& error) {
    if (error.code() == Code::kCancelled) throw;
    out.what = error.message();
  }
  co_return out;
}

void HostCommands::keep_output(Entry& entry, const std::string& name, const BoundedOutput& output,
                               const std::string& end) {
  const std::int64_t now_ms = to_unix_ms(system_clock().now());
  BoundedOutput shown(kReported);
  shown.append(entry.output);
  if (name != "command") shown.append("[" + name + "]\n");
  shown.append(output.text());
  entry.output = clean_text(shown.text());
  entry.dropped_bytes += output.dropped_bytes() + shown.dropped_bytes();

  device::v1::LogBatch batch;
  device::v1::LogStream* stream = batch.add_streams();
  stream->set_service(kLogService);
  stream->set_epoch(entry.started_ms);
  add_lines(*stream, "[" + name + "] of deployment " + entry.command.id(), entry.log_lines, now_ms);
  add_lines(*stream, output.head(), entry.log_lines, now_ms);
  if (output.dropped_lines() > 0) {
    device::v1::LogGap* gap = stream->add_gaps();
    gap->set_first_number(entry.log_lines + 1);
    gap->set_count(output.dropped_lines());
    gap->set_reason(device::v1::LogGap::RATE_LIMITED);
    gap->set_from_ms(now_ms);
    gap->set_to_ms(now_ms);
    entry.log_lines += output.dropped_lines();
  }
  add_lines(*stream, output.tail(), entry.log_lines, now_ms);
  add_lines(*stream, "[" + name + "] " + end, entry.log_lines, now_ms);
  options_.on_output(std::move(batch));
}

Task<void> HostCommands::stop() {
  running_.cancel();
  co_await running_.join();
}

}  // namespace flock::agent
