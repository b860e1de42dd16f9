// SPDX-License-Identifier: Apache-2.0
#include "targets/events_gateway/subjects.h"

#include "stores/postgres/event_statements.h"

namespace flock::targets::events_gateway {
namespace {

namespace sql = postgres::sql;
using About = domain::InternalEvent::About;

domain::EventSubject subject_of(About about, const postgres::Row& row) {
  domain::EventSubject subject;
  subject.fleet_id = row.optional_text("fleet_id").value_or("");
  subject.fleet_slug = row.optional_text("fleet_slug").value_or("");
  if (about == About::kDevice) {
    subject.device_name = row.text("name");
    subject.device_labels = row.text("labels");
  } else {
    subject.deployment_id = row.text("deployment_id");
    subject.release_id = row.optional_text("release_id").value_or("");
    subject.release_version = row.optional_text("release_version").value_or("");
  }
  return subject;
}

}  // namespace

Task<Subjects> find_subjects(postgres::Database& db,
                             const std::vector<domain::InternalEvent>& events) {
  static constexpr std::pair<About, const char*> kQuestions[] = {
      {About::kDevice, sql::kSubjectDevices},
      {About::kRollout, sql::kSubjectRollouts},
      {About::kDeployment, sql::kSubjectDeployments}};
  Subjects out;
  for (const auto& [about, statement] : kQuestions) {
    std::vector<std::string> orgs, ids;
    for (const domain::InternalEvent& event : events) {
      if (event.about != about) continue;
      orgs.push_back(event.org);
      ids.push_back(event.subject);
    }
    if (ids.empty()) continue;
    const postgres::Rows rows = co_await db.query(postgres::Scope::system(), statement,
                                                  postgres::Params().texts(orgs).texts(ids));
    for (const postgres::Row& row : rows.rows)
      out.try_emplace({row.text("org_id"), row.text("id")}, subject_of(about, row));
  }
  co_return out;
}

}  // namespace flock::targets::events_gateway
