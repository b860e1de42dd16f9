// SPDX-License-Identifier: Apache-2.0
// What the routes share. Included by this folder's .cpp files only.
#pragma once

#include <boost/json.hpp>
#include <initializer_list>
#include <map>
#include <optional>
#include <string>

#include "base/error.h"
#include "base/json.h"
#include "net/http_client.h"
#include "net/router.h"
#include "oci/registry_client.h"
#include "services/credentials.h"
#include "stores/postgres/statements.h"
#include "targets/target.h"

namespace flock::targets::api {

namespace bj = boost::json;
namespace sql = postgres::sql;
using postgres::Params;
using postgres::Row;
using postgres::Scope;

// Who calls. Routes run behind authenticate(); the public ones do not.
struct Principal {
  std::string key_id, name;
  OrgId org;
  std::string org_name, org_slug;
};

class Context {
 public:
  explicit Context(Parts p);

  // Bearer token -> principal, cached for a few seconds. Throws kUnauthenticated.
  Task<Principal> authenticate(const net::Request& request);
  using Route = std::function<Task<net::Reply>(Principal, net::Request, net::Parameters)>;
  void add(std::string method, std::string pattern, Route route);
  void add_public(std::string method, std::string pattern, net::RouteHandler route);
  Task<net::Reply> handle(net::Request request);

  std::string broker_ca() const { return broker_ca_; }
  std::vector<std::string> device_urls() const;
  std::vector<std::string> registry_hosts() const;

  Parts parts;
  net::Router router;
  net::HttpClient http;
  services::DeviceTokens tokens;
  oci::RegistryClient registry;

 private:
  struct Cached {
    Principal principal;
    SteadyPoint until;
  };
  std::map<std::string, Cached> known_;  // by hash
  std::string broker_ca_;
};

// --- Answers
// --------------------------------------------------------------------------------------
net::Reply json_reply(int status, const bj::value& value);
// The members that every problem has, and its headers; `response.status` is set already.
void finish_problem(const net::Request& request, const std::string& id, net::Response& response,
                    bj::object body);
net::Response problem(const net::Request& request, std::exception_ptr failure);

// --- Input
// ----------------------------------------------------------------------------------------
bj::value read_body(const net::Request& request);
// Throws for a query parameter that is not in `names`.
void allow_query(const net::Request& request, std::initializer_list<std::string_view> names);
struct Page {
  std::int64_t size;
  std::string after;  // the key of the last item of the page before
};
Page read_page(const net::Request& request);
// {"items": [...], "next_page_token"}; `items` may hold one more than the page, which says that
// there is another.
net::Reply list_reply(bj::array items, const Page& page, std::string_view key = "id");
std::string slug_of(std::string_view name);

void set_time(bj::object& out, const char* key, const std::optional<TimePoint>& time);

// Finds by id or slug; kNotFound.
Task<Row> find_fleet(Context& context, OrgId org, std::string id_or_slug);

void add_account_routes(Context& context);
void add_fleet_routes(Context& context);
void add_device_routes(Context& context);
void add_provisioning_routes(Context& context);
void add_release_routes(Context& context);
void add_rollout_routes(Context& context);
void add_audit_routes(Context& context);
void add_openapi_route(Context& context);
void add_routes(Context& context);  // all of them

}  // namespace flock::targets::api
