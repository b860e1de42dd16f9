// SPDX-License-Identifier: Apache-2.0
// One organization with a million devices in a private PostgreSQL, for bench/devices.sh. Prints
// what lists cost in the API's database layer beside the same statements through libpq, and what
// letting a caller in costs; then starts flock-api over it and prints how to reach it, until stdin
// ends.
//   bench_devices_page FLOCK_API_PROGRAM [COUNT]
#include <libpq-fe.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <iostream>

#include "async/loop.h"
#include "base/error.h"
#include "base/files.h"
#include "domain/order.h"
#include "net/http.h"
#include "own_cpu.h"
#include "services/credentials.h"
#include "stores/postgres/device_query.h"
#include "stores/postgres/statements.h"
#include "targets/api/principal.h"
#include "testing/servers.h"

using namespace flock;

namespace {

namespace sql = postgres::sql;
using postgres::Params;
using postgres::Scope;
using Clock = std::chrono::steady_clock;

constexpr int kRounds = 400;

double us_since(Clock::time_point start) {
  return std::chrono::duration<double, std::micro>(Clock::now() - start).count();
}

double median(std::vector<double> times) {
  std::sort(times.begin(), times.end());
  return times.at(times.size() / 2);
}

// As the superuser: its triggers and checks are off, so that filling takes a minute and not ten.
std::string fill_script(const std::string& org, const std::string& fleet,
                        const std::string& count) {
  return R"(\c flock
SET session_replication_role = replica;
INSERT INTO devices(id, org_id, fleet_id, name, public_key, architecture, hardware, labels, attributes, online, last_seen_at,
    registered_at)
  SELECT md5('d' || n)::uuid, ')" +
         org + "', '" + fleet + R"(', 'device-' || lpad(n::text, 7, '0'), 'key-' || n, 'arm64',
    '{"architecture": "arm64", "os": "Debian 12", "kernel": "6.1.0", "memory_bytes": 2147483648, "cpus": 4}',
    jsonb_build_object('site', 's' || n % 1000, 'stage', CASE WHEN n % 50 = 0 THEN 'canary' ELSE 'live' END),
    jsonb_build_object('rack', n % 40), n % 10 > 0, now() - n % 100000 * interval '1 second', now() - n * interval '1 second'
  FROM generate_series(1, )" +
         count + R"() n;
INSERT INTO device_labels(org_id, device_id, key, value)
  SELECT d.org_id, d.id, e.key, e.value FROM devices d, jsonb_each_text(d.labels) e;
VACUUM ANALYZE devices;
VACUUM ANALYZE device_labels;
)";
}

// The same statement by libpq alone: prepared, in one pipeline, under the same tenant's wall.
class Plain {
 public:
  Plain(const std::string& url, const std::string& password, const postgres::Statement& statement,
        std::string org)
      : statement_(statement), org_(std::move(org)) {
    const char* keywords[] = {"dbname", "password", nullptr};
    const char* values[] = {url.c_str(), password.c_str(), nullptr};
    connection_ = PQconnectdbParams(keywords, values, 1);
    FLOCK_ASSERT(PQstatus(connection_) == CONNECTION_OK);
    const char* texts[] = {
        "SELECT set_config('flock.org_id', $1, true), set_config('flock.fleets', '*', true)",
        statement_.text.c_str()};
    for (int i = 0; i < 2; ++i) {
      PGresult* result = PQprepare(connection_, std::to_string(i).c_str(), texts[i], 0, nullptr);
      FLOCK_ASSERT(PQresultStatus(result) == PGRES_COMMAND_OK);
      PQclear(result);
    }
    PQenterPipelineMode(connection_);
  }
  ~Plain() { PQfinish(connection_); }

  int run() {
    const char* org = org_.c_str();
    std::vector<const char*> values;
    for (const auto& value : statement_.params.values()) values.push_back(value->c_str());
    send("0", 1, &org);
    send("1", static_cast<int>(values.size()), values.data());
    PQpipelineSync(connection_);
    int rows = 0;
    for (;;) {
      PGresult* result = PQgetResult(connection_);
      if (result == nullptr) continue;
      const ExecStatusType status = PQresultStatus(result);
      rows = std::max(rows, PQntuples(result));
      PQclear(result);
      if (status == PGRES_PIPELINE_SYNC) return rows;
    }
  }

 private:
  void send(const char* name, int count, const char* const* values) {
    PQsendQueryPrepared(connection_, name, count, values, nullptr, nullptr, 0);
  }
  PGconn* connection_;
  postgres::Statement statement_;
  std::string org_;
};

struct Bench {
  testing::Postgres postgres;
  testing::Mosquitto broker;
  testing::Valkey valkey;
  testing::TempDir dir;
  OrgId org = OrgId::fresh();
  std::string fleet = new_uuid(), password, key;

  postgres::Statement page(const std::string& filter, const std::string& order_by,
                           const std::optional<domain::CursorKeys>& after = {}) const {
    const auto& fields = postgres::device_fields();
    return postgres::device_page(
        org,
        {domain::parse_filter(filter, fields), domain::parse_order(order_by, fields), after, 50},
        system_clock().now());
  }

  Task<void> fill(postgres::Database& db, std::string count) {
    co_await db.migrate();
    const services::FreshKey fresh = services::make_key("flk_");
    key = fresh.secret;
    const Scope all = Scope::system();
    co_await db.query(
        all, sql::kOrganizationInsert,
        Params().text(org.text()).text(std::string("Bench")).text(std::string("bench")));
    co_await db.query(all, sql::kApiKeyInsert,
                      Params()
                          .text(new_uuid())
                          .text(org.text())
                          .text(std::string("bench"))
                          .text(fresh.prefix)
                          .bytes(fresh.hash));
    co_await db.query(
        all, sql::kFleetInsert,
        Params().text(fleet).text(org.text()).text(std::string("Edge")).text(std::string("edge")));
    postgres.execute(fill_script(org.text(), fleet, count));
  }

  Task<double> ours(postgres::Database& db, const postgres::Statement& statement) {
    const auto start = Clock::now();
    const auto rows =
        co_await db.query(Scope::tenant(org), statement.text.c_str(), statement.params);
    FLOCK_ASSERT(rows.rows.size() == 50);
    co_return us_since(start);
  }

  // Turn by turn, so that what else the machine does hits both.
  Task<void> compare(postgres::Database& db, const char* what, postgres::Statement statement) {
    Plain plain(postgres.url(), password, statement, org.text());
    std::vector<double> mine, theirs;
    for (int i = 0; i < kRounds; ++i) {
      mine.push_back(co_await ours(db, statement));
      const auto start = Clock::now();
      FLOCK_ASSERT(plain.run() == 50);
      theirs.push_back(us_since(start));
    }
    std::printf(
        "devices page, %s: flock %.0f us, libpq prepared %.0f us, ratio %.2f (promise: at most "
        "1.3)\n",
        what, median(mine), median(theirs), median(mine) / median(theirs));
  }

  Task<void> deep(postgres::Database& db, std::int64_t count) {
    const std::int64_t skip = std::min<std::int64_t>(499'999, count - 100);
    char name[32];
    std::snprintf(name, sizeof name, "device-%07lld", static_cast<long long>(skip));
    const auto id = co_await db.query(Scope::tenant(org),
                                      "SELECT id FROM devices WHERE org_id = $1 AND name = $2",
                                      Params().text(org.text()).text(std::string(name)));
    const domain::CursorKeys keys{std::string(name), id.rows.at(0).text("id")};
    const postgres::Statement first = page("", "name"), far = page("", "name", keys);
    std::vector<double> near_times, far_times;
    for (int i = 0; i < kRounds; ++i) {
      near_times.push_back(co_await ours(db, first));
      far_times.push_back(co_await ours(db, far));
    }
    std::printf("devices page 1: %.0f us, page %lld: %.0f us, ratio %.2f\n", median(near_times),
                static_cast<long long>(skip / 50 + 1), median(far_times),
                median(far_times) / median(near_times));
  }

  Task<void> let_in(postgres::Database& db) {
    targets::api::Principals principals(db, {});
    net::Request request;
    request.headers.add("Authorization", "Bearer " + key);
    co_await principals.authenticate(request);
    constexpr int kRequests = 20'000;
    int allowed = 0;
    const double start = bench::own_cpu();
    for (int i = 0; i < kRequests; ++i) {
      const auto who = co_await principals.authenticate(request);
      principals.admit(who, 1'000'000'000);
      allowed += who.permissions.has(domain::Permission::kDevicesRead);
    }
    FLOCK_ASSERT(allowed == kRequests);
    std::printf("letting a caller in, cached: %.2f us of CPU (promise: at most 60)\n",
                (bench::own_cpu() - start) / kRequests);
  }

  Task<void> run(std::string count) {
    postgres::Options options;
    options.url = postgres.url();
    options.password = Secret(password = read_secret_file(postgres.password_file()));
    postgres::Database db(co_await asio::this_coro::executor, options);
    co_await fill(db, count);
    co_await compare(db, "by label (1 in 1000), sorted by name", page("labels.site = s7", "name"));
    co_await compare(db, "by label (1 in 50) and attribute, last seen first",
                     page("labels.stage = canary AND attributes.rack = 0", "last_seen desc"));
    co_await compare(db, "all, sorted by name", page("", "name"));
    co_await deep(db, std::stoll(count));
    co_await let_in(db);
    db.close();
  }
};

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) return 2;
  Bench bench;
  bench.postgres.start();
  bench.broker.start();
  bench.valkey.start();
  Loop loop;
  loop.run(bench.run(argc > 2 ? argv[2] : "1000000"));
  testing::run_program({argv[1], "generate-keys", bench.dir.file("keys")});
  const int port = testing::free_port();
  const std::string address = "127.0.0.1:" + std::to_string(port);
  testing::Process api;
  api.start(
      {argv[1], "--target=api", "--postgres.url=" + bench.postgres.url(),
       "--postgres.password_file=" + bench.postgres.password_file(),
       "--live_state.address=" + bench.valkey.address(), "--mqtt.url=" + bench.broker.url(),
       "--registry.url=http://127.0.0.1:9", "--keys.directory=" + bench.dir.file("keys"),
       "--api.listen=" + address, "--public_url=http://" + address, "--api.rate_limit=0",
       "--log.level=warn", "--admin.listen=127.0.0.1:" + std::to_string(testing::free_port())},
      bench.dir.file("log"));
  const auto listens_or_ended = [&] { return testing::port_open(port) || !api.running(); };
  testing::wait_until("flock-api listens", listens_or_ended, 300);
  if (!api.running()) {
    std::fprintf(stderr, "flock-api ended; its log:\n%s",
                 read_file(bench.dir.file("log")).value_or("").c_str());
    return 1;
  }
  std::printf("READY %d http://%s %s\n", api.pid(), address.c_str(), bench.key.c_str());
  std::fflush(stdout);
  std::string end;
  while (std::getline(std::cin, end)) {
  }
  return 0;
}
