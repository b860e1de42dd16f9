// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "stores/postgres/database.h"

namespace flock::postgres {

// What sql::kDeploymentInsert takes, by name.
struct DeploymentRow {
  std::string id, org;
  std::optional<std::string> release, host_command;  // one of them, or both; the latter is JSON
  std::optional<std::string> fleet;
  std::optional<std::vector<std::string>> devices;
  std::string filter;  // "": none
  std::string membership = "DYNAMIC";
  std::int64_t priority = 0;
  std::string on_conflict = "TAKE_OVER";
  Duration soak{0}, failure_timeout{600'000};
  double max_failed_ratio = 1;
  std::string strategy = R"({"kind":"immediate"})";
  std::string created_by;

  Params params() const {
    Params out;
    out.text(id).text(org).text(release).text(host_command).text(fleet);
    if (devices)
      out.texts(*devices);
    else
      out.text(std::nullopt);
    out.text(filter).text(membership).integer(priority).text(on_conflict);
    out.integer(soak.count()).integer(failure_timeout.count()).real(max_failed_ratio);
    out.text(strategy).text(created_by);
    return out;
  }
};

}  // namespace flock::postgres
