// SPDX-License-Identifier: Apache-2.0
// What the routes share. Included by this folder's .cpp files only.
#pragma once

#include <boost/json.hpp>
#include <initializer_list>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/error.h"
#include "base/json.h"
#include "metrics/metrics.h"
#include "net/http_client.h"
#include "net/router.h"
#include "oci/registry_client.h"
#include "services/audit_trail.h"
#include "services/commands.h"
#include "services/credentials.h"
#include "stores/identity/oidc.h"
#include "stores/postgres/statements.h"
#include "targets/api/device_reads.h"
#include "targets/api/event_hub.h"
#include "targets/api/fields.h"
#include "targets/api/principal.h"
#include "targets/target.h"

namespace flock::targets::api {

namespace bj = boost::json;
namespace sql = postgres::sql;
using domain::Permission;
using postgres::Params;
using postgres::Row;
using postgres::Scope;

// One operation of the API, as the OpenAPI document names it, and who may call it.
struct Operation {
  enum class Access {
    kPublic,      // anybody; the route proves its caller by itself, if at all
    kSignedIn,    // anybody who is known, also without an organization
    kPermission,  // who has `permission` in the organization
  };
  std::string id, method, pattern;
  Access access = Access::kPermission;
  Permission permission = Permission::kCount;
  std::string query = "validate_only";  // the second query parameter that a change takes, if any
  struct Deprecation {
    TimePoint since, sunset;  // it may be gone from `sunset` on
    std::string link;         // where to read what to do instead
  };
  std::optional<Deprecation> deprecation = {};       // the document says `deprecated: true` then
  FieldTree fields = {.members = {}, .open = true};  // what ?fields= may name, by the document
};
Operation allowed(std::string id, std::string method, std::string pattern, Permission permission);
Operation signed_in(std::string id, std::string method, std::string pattern);
Operation open_to_all(std::string id, std::string method, std::string pattern);
Operation deprecated(Operation operation, Operation::Deprecation deprecation);

class Call;

class Context {
 public:
  explicit Context(Parts p);

  using Route = std::function<Task<net::Reply>(Call&)>;
  // Authentication, rate limit and permission come before the route; ETag, `fields` and the common
  // headers after it.
  void add(Operation operation, Route route);
  Task<net::Reply> handle(net::Request request);
  // Who sent the request, when he may do what the operation does; otherwise what serve() answers.
  Task<Principal> admit(const Operation& operation, const net::Request& request);

  std::string broker_ca() const { return broker_ca_; }
  std::vector<std::string> device_urls() const;
  std::vector<std::string> registry_hosts() const;
  const std::vector<std::unique_ptr<Operation>>& operations() const { return operations_; }
  // Takes from the OpenAPI document what ?fields= of each operation may name.
  void learn_fields(const bj::value& document);

  Parts parts;
  net::Router router;
  net::HttpClient http;
  services::DeviceTokens tokens;
  services::AuditTrail audit;
  oci::RegistryClient registry;
  std::unique_ptr<identity::OidcVerifier> people;  // null: no identity provider
  Principals principals;
  DeviceReads devices;
  EventHub events;
  services::CommandDriver commands;
  std::unordered_map<std::string, int> streams;  // open ones, by caller
  metrics::Gauge streams_open{
      "flock_event_streams", "Event streams that are open.", {{"target", "api"}}};

 private:
  // answer(), measured.
  Task<net::Reply> serve(const Operation& operation, const Route& route, net::Request request,
                         net::Parameters parameters);
  Task<net::Reply> answer(const Operation& operation, const Route& route, net::Request request,
                          net::Parameters parameters);
  void measure(const Operation& operation, int status, SteadyPoint began);

  std::vector<std::unique_ptr<Operation>> operations_;
  std::string broker_ca_;
  // By operation and kind of status: 2 for 2xx.
  std::map<std::pair<const Operation*, int>, metrics::Histogram> durations_;
  metrics::Gauge in_flight_{
      "flock_http_requests_in_flight", "Requests that are being answered.", {{"target", "api"}}};
};

// --- Answers
// --------------------------------------------------------------------------------------
net::Reply json_reply(int status, const bj::value& value);
// The members that every problem has, and its headers; `response.status` is set already.
void finish_problem(const net::Request& request, const std::string& id, net::Response& response,
                    bj::object body);
net::Response problem(const net::Request& request, std::exception_ptr failure);
std::string request_id(const net::Request& request);

// --- Input
// ----------------------------------------------------------------------------------------
bj::value read_body(const net::Request& request);
// For a value that the query parameter `name` cannot have.
Error bad_parameter(std::string_view name, std::string detail);
// Throws for a query parameter that is not in `names` (`fields` always is, for reading).
void allow_query(const net::Request& request, std::initializer_list<std::string_view> names);
struct Page {
  std::int64_t size;
  std::string after;  // the key of the last item of the page before
};
Page read_page(const net::Request& request);
std::int64_t read_page_size(const net::Request& request);
// The same key of a list that is numbered; 0 at its beginning. Throws for what no list has given.
std::int64_t number_after(const Page& page);
// {"items": [...], "next_page_token"}; `items` may hold one more than the page, which says that
// there is another.
net::Reply list_reply(bj::array items, const Page& page, std::string_view key = "id");
std::string slug_of(std::string_view name);
// The member `slug`; made of `name` when absent. Faults go to `in`.
std::string read_slug(json::Reader& in, std::string_view name);
// A duration from now, as a point in time; nothing when absent. Faults go to `in`.
std::optional<TimePoint> read_expiry(json::Reader& in, const char* key, Duration most);

// A fault of one item of the list or object at `key`: "/tags/0".
void item_problem(json::Reader& in, const char* key, const std::string& item, std::string detail);

void set_time(bj::object& out, const char* key, const std::optional<TimePoint>& time);

// Finds by id or slug; kNotFound.
Task<Row> find_fleet(Call& call, std::string id_or_slug);
Task<Row> find_fleet_in(postgres::Transaction& tx, const Call& call, std::string id_or_slug);
// The ids of fleets named by id or slug; kNotFound names the first that is not there.
Task<std::vector<std::string>> find_fleets(Call& call, std::vector<std::string> names);

void add_account_routes(Context& context);
void add_organization_routes(Context& context);
void add_member_routes(Context& context);
void add_token_routes(Context& context);
void add_fleet_routes(Context& context);
void add_device_routes(Context& context);
void add_device_live_routes(Context& context);
void add_device_actions(Context& context);
void add_operation_routes(Context& context);
void add_provisioning_routes(Context& context);
void add_provisioning_key_routes(Context& context);
void add_device_request_routes(Context& context);
void add_subscription_routes(Context& context);
void add_release_routes(Context& context);
void add_deployment_routes(Context& context);
void add_deployment_plan_routes(Context& context);
void add_rollout_routes(Context& context);
void add_event_routes(Context& context);
void add_command_routes(Context& context);
void add_metric_routes(Context& context);
void add_log_routes(Context& context);
void add_variable_routes(Context& context);
void add_audit_routes(Context& context);
void add_openapi_route(Context& context);
void add_routes(Context& context);  // all of them

}  // namespace flock::targets::api
