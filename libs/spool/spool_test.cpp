// SPDX-License-Identifier: Apache-2.0
#include "spool/spool.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <charconv>
#include <random>
#include <set>

#include "base/error.h"
#include "base/files.h"
#include "base/log.h"
#include "spool/test_disk.h"
#include "testing/process.h"
#include "testing/run_task.h"

using namespace flock;

namespace {

// A record says who it is in every part, so that a damaged one is noticed.
std::string record_of(int id) {
  std::string record = std::to_string(id) + ":";
  const std::size_t size = record.size() + static_cast<std::size_t>(id * 37 % 90);
  for (unsigned i = 0; record.size() < size; ++i)
    record += static_cast<char>('a' + (static_cast<unsigned>(id) * 7 + i) % 26);
  return record;
}

int id_of(const std::string& record) {
  int id = -1;
  std::from_chars(record.data(), record.data() + record.size(), id);
  EXPECT_EQ(record, record_of(id)) << "a record was given that nobody appended";
  return id;
}

std::vector<int> ids_of(const std::vector<std::string>& records) {
  std::vector<int> ids;
  for (const std::string& record : records) ids.push_back(id_of(record));
  return ids;
}

std::vector<int> all_in(Spool& spool) { return ids_of(spool.next(SIZE_MAX >> 1)); }

std::vector<int> range(int first, int end) {
  std::vector<int> ids;
  for (int id = first; id < end; ++id) ids.push_back(id);
  return ids;
}

void append(Spool& spool, int first, int end, Spool::Sync sync = Spool::Sync::kNow) {
  for (int id = first; id < end; ++id) spool.append(record_of(id), sync);
}

class SpoolOnDisk : public ::testing::Test {
 protected:
  SpoolOptions options(std::int64_t limit = 1 << 20, std::size_t segment = 1 << 16) const {
    return {.directory = dir_.file("spool"), .limit_bytes = limit, .segment_bytes = segment};
  }
  std::vector<std::string> segments() const { return list_files(dir_.file("spool"), ".spool"); }
  flock::testing::TempDir dir_;
};

// What the world outside the spool knows.
struct World {
  std::set<int> promised;  // appended and on disk
  std::set<int> done;
  std::set<int> dropped;
  std::vector<int> later;  // appended, not synced yet
  int next_id = 0;
};

SpoolOptions small(World& world) {
  return {.directory = "test",
          .limit_bytes = 2000,
          .segment_bytes = 400,
          .on_drop = [&world](std::string_view record) {
            world.dropped.insert(id_of(std::string(record)));
          }};
}

void append_one(Spool& spool, World& world, Spool::Sync sync) {
  const int id = world.next_id++;
  spool.append(record_of(id), sync);
  if (sync == Spool::Sync::kNow)
    world.promised.insert(id);
  else
    world.later.push_back(id);
}

void step(Spool& spool, World& world, TestDisk::Random& random) {
  switch (random() % 8) {
    case 0:
    case 1:
    case 2:
      return append_one(spool, world, Spool::Sync::kNow);
    case 3:
    case 4:
      return append_one(spool, world, Spool::Sync::kLater);
    case 5:
      spool.sync();
      world.promised.insert(world.later.begin(), world.later.end());
      world.later.clear();
      return;
    default: {
      const std::vector<int> ids = ids_of(spool.next(random() % 600));
      const std::size_t count = ids.empty() ? 0 : random() % (ids.size() + 1);
      // Before done(): whoever is told so does not need it again, whatever becomes of the call.
      world.done.insert(ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(count));
      spool.done(count);
    }
  }
}

// The promises, after the power came back.
void check(Spool& spool, const World& world) {
  const std::vector<int> ids = all_in(spool);
  EXPECT_TRUE(std::ranges::is_sorted(ids, std::less_equal{})) << "order, each once";
  EXPECT_EQ(static_cast<std::int64_t>(ids.size()), spool.waiting_records());
  const std::set<int> there(ids.begin(), ids.end());
  std::int64_t gone = 0;
  for (const int id : world.promised) {
    if (there.contains(id) || world.done.contains(id)) continue;
    EXPECT_TRUE(world.dropped.contains(id)) << id << " was acknowledged and is lost";
    ++gone;
  }
  EXPECT_LE(gone, spool.dropped().records) << "dropped, but not counted";
}

// One life until the power fails, or `operations` are done.
void live(TestDisk& disk, World& world, TestDisk::Random& random, int operations) {
  try {
    Spool spool(small(world), disk);
    check(spool, world);
    for (int i = 0; i < operations; ++i) step(spool, world, random);
    disk.lose_power_quietly();
  } catch (const PowerLoss&) {
  }
}

void survive(unsigned seed, int steps, double kept) {
  SCOPED_TRACE("seed " + std::to_string(seed) + ", power loss after step " + std::to_string(steps) +
               ", kept " + std::to_string(kept));
  TestDisk::Random random(seed);
  World world;
  TestDisk disk;
  disk.lose_power_after(steps);
  live(disk, world, random, 60);
  // And again, while it recovers and soon after.
  for (int again = 0; again < 4; ++again) {
    disk = disk.after_power_loss(random, kept);
    world.later.clear();
    disk.lose_power_after(static_cast<int>(random() % 25));
    live(disk, world, random, 30);
  }
  disk = disk.after_power_loss(random, kept);
  Spool spool(small(world), disk);
  check(spool, world);
  append_one(spool, world, Spool::Sync::kNow);
  EXPECT_EQ(all_in(spool).back(), world.next_id - 1);
}

TEST(SpoolPower, LosesNothingAcknowledgedWhereverThePowerFails) {
  log::set_level(log::Level::kOff);
  for (unsigned seed = 1; seed <= 6; ++seed) {
    int steps = 0;
    {
      TestDisk disk;
      World world;
      TestDisk::Random random(seed);
      live(disk, world, random, 60);
      ASSERT_FALSE(disk.power_lost());
      steps = disk.steps();
    }
    ASSERT_GT(steps, 60);
    for (int at = 0; at < steps; ++at) {
      for (const double kept : {0.0, 0.3, 0.7, 1.0}) survive(seed, at, kept);
      if (::testing::Test::HasFailure()) return;
    }
  }
  log::set_level(log::Level::kInfo);
}

TEST(SpoolPower, AFullDiskLeavesNothingHalf) {
  log::set_level(log::Level::kOff);
  for (std::size_t capacity = 0; capacity < 1500; capacity += 7) {
    SCOPED_TRACE("capacity " + std::to_string(capacity));
    TestDisk disk;
    disk.set_capacity(capacity);
    const SpoolOptions options{.directory = "test", .limit_bytes = 100'000, .segment_bytes = 300};
    std::vector<int> taken;
    {
      Spool spool(options, disk);
      for (int id = 0; id < 40; ++id) {
        try {
          spool.append(record_of(id));
          taken.push_back(id);
        } catch (const Error& e) {
          EXPECT_EQ(e.code(), Code::kUnavailable);
        }
      }
      EXPECT_LT(taken.size(), 40U);
      EXPECT_EQ(all_in(spool), taken);
    }
    disk.set_capacity(SIZE_MAX);
    Spool spool(options, disk);
    EXPECT_EQ(all_in(spool), taken);
    EXPECT_EQ(spool.damaged(), 0);
    append(spool, 40, 42);
    taken.insert(taken.end(), {40, 41});
    EXPECT_EQ(all_in(spool), taken);
  }
  log::set_level(log::Level::kInfo);
}

TEST(SpoolPower, SaysSoWhenASyncFails) {
  TestDisk disk;
  Spool spool({.directory = "test"}, disk);
  append(spool, 0, 2, Spool::Sync::kLater);
  disk.fail_syncs(true);
  EXPECT_EQ(flock::testing::code_of([&] { append(spool, 2, 3); }), Code::kUnavailable);
  disk.fail_syncs(false);
  // Records 0 and 1 may be gone with it, so they must not be acknowledged now either.
  EXPECT_EQ(flock::testing::code_of([&] { spool.sync(); }), Code::kUnavailable);
  append(spool, 3, 4);
  spool.sync();
  const std::vector<int> ids = all_in(spool);
  EXPECT_EQ(ids.back(), 3);
  EXPECT_EQ(std::ranges::count(ids, 2), 0) << "it was refused";
}

TEST(SpoolPower, NeverGivesWhatIsDamagedAndGoesOnBehindIt) {
  log::set_level(log::Level::kOff);
  const SpoolOptions options{.directory = "test", .limit_bytes = 100'000, .segment_bytes = 500};
  TestDisk whole;
  {
    Spool spool(options, whole);
    append(spool, 0, 40);
  }
  TestDisk::Random random(7);
  const auto names = whole.list(".spool");
  ASSERT_GT(names.size(), 4U);
  for (int round = 0; round < 3000; ++round) {
    SCOPED_TRACE("round " + std::to_string(round));
    TestDisk disk = whole.after_power_loss(random, 1);
    std::string& bytes = *disk.content(names[random() % names.size()]);
    bytes[random() % bytes.size()] ^= static_cast<char>(1 << random() % 8);
    Spool spool(options, disk);
    const std::vector<int> ids = all_in(spool);
    EXPECT_TRUE(std::ranges::is_sorted(ids, std::less_equal{}));
    EXPECT_LT(ids.size(), 40U);
    EXPECT_GE(ids.size(), 40U - 12U) << "more than a segment is lost";
    append(spool, 40, 41);
    EXPECT_EQ(all_in(spool).back(), 40);
    if (::testing::Test::HasFailure()) return;
  }
  log::set_level(log::Level::kInfo);
}

TEST(SpoolPower, ADamagedRecordAloneIsLost) {
  const SpoolOptions options{.directory = "test"};
  TestDisk disk;
  {
    Spool spool(options, disk);
    append(spool, 0, 10);
  }
  std::string& bytes = *disk.content(disk.list(".spool").front());
  bytes[bytes.find(record_of(4)) + 3] ^= 1;
  Spool spool(options, disk);
  EXPECT_EQ(all_in(spool), (std::vector<int>{0, 1, 2, 3, 5, 6, 7, 8, 9}));
  EXPECT_EQ(spool.damaged(), 1);
}

TEST_F(SpoolOnDisk, GivesRecordsInOrderUntilTheyAreDone) {
  Spool spool(options(1 << 20, 600));
  EXPECT_TRUE(spool.empty());
  EXPECT_TRUE(spool.next(1000).empty());
  append(spool, 0, 50);
  EXPECT_GT(segments().size(), 3U);
  EXPECT_EQ(spool.waiting_records(), 50);
  EXPECT_EQ(ids_of(spool.next(1)), range(0, 1)) << "at least one";
  EXPECT_EQ(all_in(spool), range(0, 50));
  spool.done(20);
  EXPECT_EQ(all_in(spool), range(20, 50));
  EXPECT_EQ(spool.waiting_records(), 30);
  spool.done(30);
  EXPECT_TRUE(spool.empty());
  EXPECT_EQ(spool.waiting_bytes(), 0);
  EXPECT_LE(segments().size(), 1U);
  EXPECT_EQ(spool.dropped().records, 0);
}

TEST_F(SpoolOnDisk, KnowsAfterARestartWhatIsDone) {
  {
    Spool spool(options());
    append(spool, 0, 30);
    EXPECT_EQ(all_in(spool).size(), 30U);
    spool.done(12);
  }
  Spool spool(options());
  EXPECT_EQ(all_in(spool), range(12, 30));
  append(spool, 30, 31);
  EXPECT_EQ(all_in(spool), range(12, 31));
}

TEST_F(SpoolOnDisk, DropsTheOldestSegmentWhenFullAndCounts) {
  std::vector<int> heard;
  SpoolOptions full = options(3000, 500);
  full.on_drop = [&heard](std::string_view r) { heard.push_back(id_of(std::string(r))); };
  std::int64_t dropped = 0;
  {
    Spool spool(full);
    append(spool, 0, 200);
    dropped = spool.dropped().records;
    EXPECT_GT(dropped, 0);
    EXPECT_EQ(heard, range(0, static_cast<int>(dropped)));
    EXPECT_EQ(all_in(spool), range(static_cast<int>(dropped), 200));
    EXPECT_LE(spool.disk_bytes(), 3000);
    EXPECT_GT(spool.disk_bytes(), 2000);
  }
  std::int64_t on_disk = 0;
  for (const std::string& name : segments()) {
    struct stat info{};
    ASSERT_EQ(::stat((dir_.file("spool") + "/" + name).c_str(), &info), 0);
    on_disk += info.st_size;
  }
  EXPECT_LE(on_disk, 3000);
  Spool spool(full);
  EXPECT_EQ(spool.dropped().records, dropped) << "counted over a restart";
  EXPECT_EQ(all_in(spool), range(static_cast<int>(dropped), 200));
}

TEST_F(SpoolOnDisk, DoneAfterADropDoesNotMissTheRest) {
  Spool spool(options(100'000, 500));
  append(spool, 0, 30);
  ASSERT_EQ(all_in(spool).size(), 30U);
  ASSERT_TRUE(spool.drop_oldest());
  const int dropped = static_cast<int>(spool.dropped().records);
  ASSERT_GT(dropped, 0);
  spool.done(20);
  EXPECT_EQ(all_in(spool), range(20, 30));
}

TEST_F(SpoolOnDisk, ATornTailIsCutOffAndItGoesOn) {
  log::set_level(log::Level::kOff);
  {
    Spool spool(options());
    append(spool, 0, 3);
  }
  const std::string path = dir_.file("spool") + "/" + segments().front();
  const std::string bytes = *read_file(path);
  for (std::size_t cut = bytes.size() - 1; cut > 0; --cut) {
    write_file_atomic(path, bytes.substr(0, cut));
    Spool spool(options());
    const auto ids = all_in(spool);
    EXPECT_LT(ids.size(), 3U);
    EXPECT_EQ(ids, range(0, static_cast<int>(ids.size())));
    append(spool, 7, 8);
    EXPECT_EQ(all_in(spool).back(), 7);
    for (const std::string& name : segments()) ::unlink((dir_.file("spool") + "/" + name).c_str());
  }
}

TEST_F(SpoolOnDisk, IsForOneProcess) {
  Spool spool(options());
  EXPECT_EQ(flock::testing::code_of([&] { Spool second(options()); }), Code::kUnavailable);
}

TEST_F(SpoolOnDisk, RefusesWhatIsTooLargeAndTakesWhatIsEmpty) {
  SpoolOptions small = options(1000, 300);
  small.record_bytes = 500;
  Spool spool(small);
  EXPECT_EQ(flock::testing::code_of([&] { spool.append(std::string(501, 'x')); }), Code::kTooLarge);
  spool.append("");
  spool.append(std::string(500, '\0'));
  EXPECT_EQ(spool.next(10000), (std::vector<std::string>{"", std::string(500, '\0')}));
}

TEST_F(SpoolOnDisk, WritesNothingWhileNothingHappens) {
  Spool spool(options());
  append(spool, 0, 5);
  spool.next(100);
  struct stat before{}, after{};
  ASSERT_EQ(::stat(dir_.file("spool").c_str(), &before), 0);
  for (int i = 0; i < 10; ++i) {
    spool.next(100);
    spool.sync();
  }
  ASSERT_EQ(::stat(dir_.file("spool").c_str(), &after), 0);
  EXPECT_EQ(before.st_mtim.tv_nsec, after.st_mtim.tv_nsec);
}

}  // namespace
