// SPDX-License-Identifier: Apache-2.0
// One request by somebody who was let in: what every route needs, and the one way in which a route
// changes anything.
#pragma once

#include "domain/networks.h"
#include "targets/api/context.h"

namespace flock::targets::api {

// What a change did: for the audit log, and for the caller.
struct Change {
  std::string resource_type, resource_id, resource_name;
  net::Reply reply;
  bj::object detail = {};         // for the audit log: what was asked for; never a secret
  std::optional<OrgId> org = {};  // when it is not the caller's
};

// The entity tag of `resource` without its members in `passing`.
std::string etag_of(const bj::object& resource, std::span<const std::string_view> passing);

class Call {
 public:
  Call(Context& context, const Operation& operation, net::Request request,
       net::Parameters parameters)
      : context(context),
        operation(operation),
        request(std::move(request)),
        parameters(std::move(parameters)),
        id(request_id(this->request)) {}

  // The caller's rows, and no others.
  Scope scope() const;
  const std::string& org() const { return who.org.text(); }
  Task<postgres::Rows> query(const char* statement, Params params) {
    return context.parts.db.query(scope(), statement, std::move(params));
  }
  const std::string& parameter(std::string_view name) const;
  // Where the request came from, behind our proxies (domain::client_address).
  std::optional<domain::Address> client() const;

  // Runs `work` in one transaction, and in this order: an answer that was given for the same
  // Idempotency-Key is given again; the work; with ?validate_only=true its undoing; the audit log,
  // without which nothing is changed; the commit; `after`, for what others must be told. `work` may
  // run more than once.
  using Work = std::function<Task<Change>(postgres::Transaction&)>;
  using After = std::function<Task<void>()>;
  Task<net::Reply> mutate(Work work, After after = {});
  // The same in another scope, for what is not of the caller's organization. A person's answer to
  // an operation that asks for no organization is kept under the person: whether he is in one may
  // change by it.
  Task<net::Reply> mutate_in(Scope scope, Work work, After after = {});
  bool validate_only() const;

  // A reply with one resource and its ETag. `passing` are the members that change by themselves:
  // they are not part of what the tag stands for. Answers 304 to a matching If-None-Match where
  // there are none.
  net::Reply answer(int status, const bj::object& resource,
                    std::span<const std::string_view> passing = {}) const;
  // The same, of what was written before: `body` and `etag` of a resource that changes by itself.
  static net::Reply answer_text(int status, std::string body, std::string etag);
  // Throws kPreconditionFailed when the request's If-Match names another state of `resource`.
  void check_match(const bj::object& resource,
                   std::span<const std::string_view> passing = {}) const;

  Context& context;
  const Operation& operation;
  net::Request request;
  net::Parameters parameters;
  const std::string id;
  Principal who;

 private:
  internal::v1::AuditEvent event_of(const Change& change) const;
  Task<std::optional<net::Reply>> replay(postgres::Transaction& tx, const std::string& key) const;
  Task<void> remember(postgres::Transaction& tx, const std::string& key,
                      const net::Reply& reply) const;
  bool answers_person() const;
  std::string answer_context(const std::string& key) const;
};

}  // namespace flock::targets::api
