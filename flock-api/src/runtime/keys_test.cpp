// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <sys/stat.h>

#include <cstdlib>
#include <filesystem>

#include "base/files.h"
#include "crypto/seal.h"
#include "runtime/process.h"

namespace flock::runtime {
namespace {

TEST(Keys, AreMadeOnceAndRotateWithoutLosingWhatIsSealed) {
  std::string dir = std::filesystem::temp_directory_path() / "flock-keys-XXXXXX";
  ASSERT_NE(::mkdtemp(dir.data()), nullptr);
  const std::string keys = dir + "/keys", sealing = keys + "/" + kSealingFolder;
  generate_keys(keys);
  const auto jwks = read_file(keys + "/jwks.json");
  const crypto::SealingKeys first = crypto::SealingKeys::load(sealing);
  struct stat info{};
  ASSERT_EQ(::stat((sealing + "/" + first.current_id() + ".key").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
  const std::string sealed = first.seal("value", "place");
  generate_keys(keys);
  EXPECT_EQ(read_file(keys + "/jwks.json"), jwks);
  EXPECT_EQ(crypto::SealingKeys::load(sealing).current_id(), first.current_id());
  for (int i = 0; i < 3; ++i) {
    const std::string id = add_sealing_key(keys);
    const crypto::SealingKeys rotated = crypto::SealingKeys::load(sealing);
    EXPECT_EQ(rotated.current_id(), id);
    EXPECT_EQ(rotated.open(sealed, "place"), "value");
  }
  std::filesystem::remove_all(dir);
}

}  // namespace
}  // namespace flock::runtime
