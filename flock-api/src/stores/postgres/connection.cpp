// SPDX-License-Identifier: Apache-2.0
#include "stores/postgres/connection.h"

#include <libpq-fe.h>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "async/deadline.h"

namespace flock::postgres {
namespace {

// Lists are put together from what callers filter by: their texts have no end.
constexpr std::size_t kMostPrepared = 200;
constexpr auto kTuple = asio::as_tuple(asio::use_awaitable);

Error translate(const PGresult* result) {
  const auto field = [&](int code) {
    const char* text = PQresultErrorField(result, code);
    return std::string(text ? text : "");
  };
  const std::string state = field(PG_DIAG_SQLSTATE);
  Code code = Code::kInternal;
  // 23505 unique, 23503 foreign key, 40001 serialization, 40P01 deadlock, FL001 our fence, 57014
  // timeout, 53xxx resources, 57P0x shutdown.
  if (state == "23505" || state == "23503" || state == "40001" || state == "40P01" ||
      state == kDeposed)
    code = Code::kConflict;
  if (state == "57014") code = Code::kTimeout;
  if (state.starts_with("53") || state.starts_with("57P") || state.starts_with("08"))
    code = Code::kUnavailable;
  return Error(code, "database: " + field(PG_DIAG_MESSAGE_PRIMARY))
      .with("sqlstate", state)
      .with("constraint", field(PG_DIAG_CONSTRAINT_NAME));
}

Rows copy_rows(const PGresult* result) {
  Rows rows;
  rows.columns = std::make_shared<std::vector<std::string>>();
  const int width = PQnfields(result), count = PQntuples(result);
  for (int c = 0; c < width; ++c) rows.columns->emplace_back(PQfname(result, c));
  for (int r = 0; r < count; ++r) {
    std::vector<std::optional<std::string>> values;
    for (int c = 0; c < width; ++c) {
      if (PQgetisnull(result, r, c)) {
        values.emplace_back();
      } else {
        values.emplace_back(std::string(PQgetvalue(result, r, c),
                                        static_cast<std::size_t>(PQgetlength(result, r, c))));
      }
    }
    rows.rows.emplace_back(rows.columns, std::move(values));
  }
  const std::string affected = PQcmdTuples(const_cast<PGresult*>(result));
  rows.affected = affected.empty() ? 0 : std::stoll(affected);
  return rows;
}

}  // namespace

struct Connection::Handles {
  explicit Handles(const Executor& executor) : descriptor(executor) {}
  ~Handles() {
    if (descriptor.is_open()) descriptor.release();  // libpq owns the descriptor
    PQfinish(connection);
  }
  PGconn* connection = nullptr;
  asio::posix::stream_descriptor descriptor;
};

Connection::Connection() = default;
Connection::~Connection() = default;

Error Connection::lost(const char* when) {
  broken_ = true;
  std::string reason = PQerrorMessage(handles_->connection);
  while (!reason.empty() && reason.back() == '\n') reason.pop_back();
  return Error(Code::kUnavailable, std::string("the database connection failed while ") + when)
      .with("reason", reason);
}

Task<std::unique_ptr<Connection>> Connection::open(Options options) {
  const Executor executor = co_await asio::this_coro::executor;
  std::unique_ptr<Connection> self(new Connection());
  self->limit_ = options.statement_time;
  self->handles_ = std::make_unique<Handles>(executor);
  const char* keywords[] = {"dbname", "password", "application_name", "connect_timeout", nullptr};
  const char* values[] = {options.url.c_str(), options.password.reveal().c_str(), "flock-api", "10",
                          nullptr};
  PGconn* connection = self->handles_->connection = PQconnectStartParams(keywords, values, 1);
  if (connection == nullptr || PQstatus(connection) == CONNECTION_BAD)
    throw self->lost("connecting");
  // The socket can change between polls (several addresses), so the descriptor is assigned anew
  // each time.
  for (PostgresPollingStatusType status = PGRES_POLLING_WRITING; status != PGRES_POLLING_OK;) {
    asio::posix::stream_descriptor& descriptor = self->handles_->descriptor;
    descriptor.assign(PQsocket(connection));
    const auto direction = status == PGRES_POLLING_READING
                               ? asio::posix::stream_descriptor::wait_read
                               : asio::posix::stream_descriptor::wait_write;
    const auto [error] = co_await descriptor.async_wait(direction, kTuple);
    descriptor.release();
    if (error) throw Error(Code::kCancelled, "connecting to the database was cancelled");
    status = PQconnectPoll(connection);
    if (status == PGRES_POLLING_FAILED) throw self->lost("connecting");
  }
  PQsetnonblocking(connection, 1);
  PQenterPipelineMode(connection);
  self->handles_->descriptor.assign(PQsocket(connection));
  co_return self;
}

Task<void> Connection::wait_readable() {
  const auto [error] =
      co_await handles_->descriptor.async_wait(asio::posix::stream_descriptor::wait_read, kTuple);
  if (error) {
    broken_ = true;  // an answer is still on its way: nobody else may read it
    throw Error(Code::kCancelled, "a database statement was cancelled");
  }
  if (PQconsumeInput(handles_->connection) != 1) throw lost("reading an answer");
}

Task<void> Connection::flush() {
  for (;;) {
    const int left = PQflush(handles_->connection);
    if (left == 0) co_return;
    if (left < 0) throw lost("sending a statement");
    const auto [error] = co_await handles_->descriptor.async_wait(
        asio::posix::stream_descriptor::wait_write, kTuple);
    if (error) {
      broken_ = true;
      throw Error(Code::kCancelled, "a database statement was cancelled");
    }
    if (PQconsumeInput(handles_->connection) != 1) throw lost("sending a statement");
  }
}

// Everything up to the sync.
Task<void> Connection::read_result_set(const std::vector<Sent>& sent, std::vector<Rows>& out,
                                       std::optional<Error>& failure) {
  for (std::size_t at = 0;;) {
    while (PQisBusy(handles_->connection)) co_await wait_readable();
    PGresult* result = PQgetResult(handles_->connection);
    if (result == nullptr) {
      if (PQstatus(handles_->connection) != CONNECTION_OK) throw lost("reading an answer");
      continue;  // the end of one command
    }
    const ExecStatusType status = PQresultStatus(result);
    if (status == PGRES_PIPELINE_SYNC) {
      PQclear(result);
      co_return;
    }
    const Sent* command = at < sent.size() ? &sent[at++] : nullptr;
    if (status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK) {
      if (command == nullptr || command->kind == Sent::Kind::kStatement)
        out.push_back(copy_rows(result));
      else if (command->kind == Sent::Kind::kPrepare)
        prepared_[*command->sql] = command->name;
    } else if (status == PGRES_FATAL_ERROR && !failure) {
      failure = translate(result);
      // 0A000: a migration changed what a plan stands on; 26000: a pooler between us forgot it.
      const char* state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
      const std::string_view code = state ? state : "";
      if (code == "0A000" || code == "26000") outdated_ = true;
    }
    PQclear(result);
    if (PQstatus(handles_->connection) != CONNECTION_OK) throw lost("reading an answer");
  }
}

std::vector<Connection::Sent> Connection::send(const std::vector<Command>& commands) {
  PGconn* connection = handles_->connection;
  std::vector<Sent> sent;
  const auto check = [&](int ok) {
    if (ok != 1) throw lost("sending a statement");
  };
  if (prepared_.size() >= kMostPrepared) {
    prepared_.clear();
    check(
        PQsendQueryParams(connection, "DEALLOCATE ALL", 0, nullptr, nullptr, nullptr, nullptr, 0));
    sent.push_back({Sent::Kind::kForget, nullptr, ""});
  }
  for (const Command& command : commands) {
    std::vector<const char*> values;
    for (const auto& value : command.params.values())
      values.push_back(value ? value->c_str() : nullptr);
    const auto known = prepared_.find(command.sql);
    std::string name = known != prepared_.end() ? known->second : "";
    if (name.empty()) {
      name = "s" + std::to_string(++names_);
      check(PQsendPrepare(connection, name.c_str(), command.sql.c_str(), 0, nullptr));
      sent.push_back({Sent::Kind::kPrepare, &command.sql, name});
    }
    check(PQsendQueryPrepared(connection, name.c_str(), static_cast<int>(values.size()),
                              values.data(), nullptr, nullptr, 0));
    sent.push_back({Sent::Kind::kStatement, &command.sql, name});
  }
  return sent;
}

Task<std::vector<Rows>> Connection::run(std::vector<Command> commands) {
  PGconn* connection = handles_->connection;
  const std::vector<Sent> sent = send(commands);
  if (PQpipelineSync(connection) != 1) throw lost("sending a statement");
  // Whatever ends this early, asio's own exceptions included, leaves answers on their way that
  // nobody else may read.
  broken_ = true;
  std::vector<Rows> results;
  std::optional<Error> failure;
  const auto exchange = [&]() -> Task<void> {
    co_await flush();
    co_await read_result_set(sent, results, failure);
  };
  co_await with_deadline(exchange(), limit_, "a database statement");
  broken_ = outdated_;
  if (failure) throw std::move(*failure);
  co_return results;
}

Task<void> Connection::run_script(std::string sql) {
  PGconn* connection = handles_->connection;
  PQexitPipelineMode(connection);
  if (PQsendQuery(connection, sql.c_str()) != 1) throw lost("sending a migration");
  co_await flush();
  std::optional<Error> failure;
  for (;;) {
    while (PQisBusy(connection)) co_await wait_readable();
    PGresult* result = PQgetResult(connection);
    if (result == nullptr) break;
    const ExecStatusType status = PQresultStatus(result);
    if (status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK && !failure)
      failure = translate(result);
    PQclear(result);
  }
  if (PQstatus(connection) != CONNECTION_OK) throw lost("running a migration");
  PQenterPipelineMode(connection);
  if (failure) throw std::move(*failure);
}

}  // namespace flock::postgres
