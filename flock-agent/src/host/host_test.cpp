// SPDX-License-Identifier: Apache-2.0
// What is read of a machine, on trees of files as real kernels show them, and on broken ones.
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "host/container_meter.h"
#include "host/host_meter.h"
#include "host/kernel_files.h"
#include "host/machine.h"
#include "testing/process.h"
#include "testing/run_task.h"

namespace flock::agent {
namespace {

class Kernel : public ::testing::Test {
 protected:
  void write(const std::string& path, const std::string& text) const {
    const std::filesystem::path file = dir.path() + path;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file) << text;
  }
  std::string read(const std::string& path) const {
    return read_kernel_file(dir.path() + path).value_or("");
  }
  void link(const std::string& path, const std::string& target) const {
    const std::filesystem::path file = dir.path() + path;
    std::filesystem::create_directories(file.parent_path());
    std::filesystem::remove(file);
    std::filesystem::create_symlink(target, file);
  }
  void whole_machine() const {
    write("/proc/stat", "cpu  100 0 50 800 50 0 0 0 7 7\ncpu0 100 0 50 800 50 0 0 0 7 7\nintr 1\n");
    write("/proc/meminfo",
          "MemTotal:        1000 kB\nMemFree:          100 kB\nMemAvailable:     400 kB\n"
          "SwapTotal:        200 kB\nSwapFree:         150 kB\n");
    write("/proc/loadavg", "0.42 0.30 0.10 1/100 4711\n");
    write("/proc/uptime", "3600.25 7000.00\n");
    write("/proc/net/dev",
          "Inter-|   Receive                                                |  Transmit\n"
          " face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs "
          "drop fifo colls carrier compressed\n"
          "    lo:  999 1 0 0 0 0 0 0  999 1 0 0 0 0 0 0\n"
          "  eth0: 1000 1 0 0 0 0 0 0 2000 1 0 0 0 0 0 0\n"
          "podman0:  77 1 0 0 0 0 0 0   77 1 0 0 0 0 0 0\n"
          "  ppp0:   10 1 0 0 0 0 0 0   20 1 0 0 0 0 0 0\n");
    write("/sys/class/net/eth0/device/vendor", "0x1\n");
    write("/sys/class/thermal/thermal_zone0/temp", "41500\n");
    write("/sys/class/thermal/cooling_device0/temp", "99000\n");
    write("/sys/class/hwmon/hwmon0/temp1_input", "55250\n");
    write("/sys/class/hwmon/hwmon0/temp2_input", "-273150\n");  // a sensor that is not connected
    write("/sys/devices/platform/soc/soc:firmware/get_throttled", "50005\n");
  }
  testing::TempDir dir;
};

TEST_F(Kernel, TellsOfTheMachine) {
  whole_machine();
  HostMeter meter(dir.path(), dir.path());
  const auto first = meter.sample();
  EXPECT_FALSE(first.has_cpu_ratio()) << "a rate needs two looks";
  EXPECT_EQ(first.memory_total_bytes(), 1000 * 1024);
  EXPECT_EQ(first.memory_used_bytes(), 600 * 1024);
  EXPECT_EQ(first.swap_used_bytes(), 50 * 1024);
  EXPECT_FLOAT_EQ(first.load_1m(), 0.42f);
  EXPECT_EQ(first.uptime_seconds(), 3600);
  EXPECT_EQ(first.network_received_bytes(), 1010) << "hardware and modems only";
  EXPECT_EQ(first.network_sent_bytes(), 2020);
  EXPECT_FLOAT_EQ(first.temperature_celsius(), 55.25f) << "the hottest that is possible";
  EXPECT_TRUE(first.throttled());
  EXPECT_GT(first.disk_total_bytes(), first.disk_used_bytes());
  EXPECT_GT(first.disk_used_bytes(), 0);

  write("/proc/stat", "cpu  150 0 75 850 75 0 0 0 9 9\n");
  EXPECT_FLOAT_EQ(meter.sample().cpu_ratio(), 0.5f);
  write("/proc/stat", "cpu  0 0 0 10 0 0 0 0 0 0\n");
  EXPECT_FALSE(meter.sample().has_cpu_ratio()) << "counters that went back";
}

TEST_F(Kernel, OlderThrottlingIsOver) {
  write("/sys/devices/platform/soc/soc:firmware/get_throttled", "0x50000\n");
  EXPECT_FALSE(HostMeter(dir.path(), dir.path()).sample().throttled());
  std::filesystem::remove_all(dir.path() + "/sys");
  write("/sys/class/hwmon/hwmon3/name", "rpi_volt\n");
  write("/sys/class/hwmon/hwmon3/in0_lcrit_alarm", "1\n");
  EXPECT_TRUE(HostMeter(dir.path(), dir.path()).sample().throttled());
}

TEST_F(Kernel, WhatIsAbsentIsLeftOut) {
  HostMeter meter(dir.path(), dir.file("no such folder"));
  meter.sample();
  EXPECT_EQ(meter.sample().ByteSizeLong(), 0u);
}

TEST_F(Kernel, WhatAppearsLaterIsTold) {
  HostMeter meter(dir.path(), dir.path());
  meter.sample();
  whole_machine();
  EXPECT_TRUE(meter.sample().has_load_1m());
}

TEST_F(Kernel, WhatIsMalformedIsLeftOut) {
  const std::string long_line(200'000, '7');
  for (const std::string& text :
       {std::string(), std::string("\n\n\n"), std::string("cpu"),
        std::string("cpu 1 2 3 4 5 6 x 8\n"), std::string("cpu -1 2 3 4 5 6 7 8\n"),
        std::string("cpu 99999999999999999999 1 1 1 1 1 1 1\n"),
        std::string("eth0: 1 2 3\neth0:\n:\n"), std::string("MemTotal: lots kB\nMemAvailable:\n"),
        std::string("MemTotal: 10 kB\nMemAvailable: 20 kB\nSwapTotal: 1 kB\nSwapFree: 2 kB\n"),
        std::string("nan inf\n"), std::string("-1.5 .\n"), std::string("1.2.3\n"), long_line,
        std::string("\0\xff\xfe", 3)}) {
    for (const char* file :
         {"/proc/stat", "/proc/meminfo", "/proc/loadavg", "/proc/uptime", "/proc/net/dev",
          "/sys/class/thermal/thermal_zone0/temp", "/sys/class/hwmon/hwmon0/temp1_input",
          "/sys/devices/platform/soc/soc:firmware/get_throttled"})
      write(file, text);
    write("/sys/class/net/eth0/device/vendor", "");
    HostMeter meter(dir.path(), dir.file("none"));
    meter.sample();
    const auto sample = meter.sample();
    EXPECT_FALSE(sample.has_cpu_ratio()) << text.substr(0, 40);
    EXPECT_FALSE(sample.has_memory_used_bytes()) << text.substr(0, 40);
    EXPECT_FALSE(sample.has_swap_used_bytes()) << text.substr(0, 40);
    EXPECT_FALSE(sample.has_temperature_celsius()) << text.substr(0, 40);
    EXPECT_FALSE(sample.has_network_sent_bytes()) << text.substr(0, 40);
    EXPECT_FALSE(sample.has_load_1m()) << text.substr(0, 40);
  }
}

TEST_F(Kernel, FilesAreReadToALimitAndAgain) {
  write("/big", std::string(1'000'000, 'x'));
  KernelFile file(dir.file("big"));
  EXPECT_EQ(file.read().value_or("").size(), kKernelFileLimit);
  EXPECT_EQ(file.read(10).value_or(""), std::string(10, 'x'));
  EXPECT_FALSE(KernelFile(dir.path()).read()) << "a folder is no file";
  EXPECT_EQ(value_of("anon 1\ninactive_file 7\n", "inactive_file"), 7);
  EXPECT_EQ(value_of("inactive_file_x 7\n", "inactive_file"), std::nullopt);
  EXPECT_DOUBLE_EQ(decimal_of("12.05").value_or(0), 12.05);
}

// --- Containers

const std::string kId(64, 'a');

Observed container(int pid, const std::string& id = kId) {
  Observed out;
  out.id = id;
  out.service = "web";
  out.run = Run::kRunning;
  out.pid = pid;
  return out;
}

SteadyPoint after(int milliseconds) { return SteadyPoint() + Duration(1'000'000 + milliseconds); }

class Containers : public Kernel {
 protected:
  void v2(const std::string& below = "") const {
    write("/proc/10/cgroup", "0::/machine.slice/libpod-" + kId + ".scope" + below + "\n");
    const std::string group = "/sys/fs/cgroup/machine.slice/libpod-" + kId + ".scope/";
    write(group + "cpu.stat", "usage_usec 1000000\nuser_usec 1\n");
    write(group + "memory.current", "5000\n");
    write(group + "memory.stat", "anon 4000\ninactive_file 1000\n");
    write(group + "memory.max", "max\n");
    write(group + "io.stat", "8:0 rbytes=10 wbytes=20 rios=1\n8:16 rbytes=1 wbytes=2 rios=1\n");
    write(group + "pids.current", "3\n");
    write("/proc/10/net/dev",
          "lo: 5 0 0 0 0 0 0 0 5 0 0 0 0 0 0 0\neth0: 7 0 0 0 0 0 0 0 9 0 0 0 0 0 0 0\n");
    link("/proc/10/ns/net", "net:[2]");
    link("/proc/self/ns/net", "net:[1]");
  }
};

TEST_F(Containers, AreReadFromTheUnifiedHierarchy) {
  for (const char* below : {"", "/container"}) {
    v2(below);
    ContainerMeter meter(dir.path());
    const auto first = meter.sample({container(10)}, after(0));
    ASSERT_EQ(first.size(), 1u);
    EXPECT_EQ(first[0].service(), "web");
    EXPECT_FALSE(first[0].has_cpu_cores());
    EXPECT_EQ(first[0].memory_bytes(), 4000);
    EXPECT_FALSE(first[0].has_memory_limit_bytes());
    EXPECT_EQ(first[0].disk_read_bytes(), 11);
    EXPECT_EQ(first[0].disk_written_bytes(), 22);
    EXPECT_EQ(first[0].pids(), 3u);
    EXPECT_EQ(first[0].network_received_bytes(), 7);
    EXPECT_EQ(first[0].network_sent_bytes(), 9);
    write("/sys/fs/cgroup/machine.slice/libpod-" + kId + ".scope/cpu.stat", "usage_usec 2500000\n");
    write("/sys/fs/cgroup/machine.slice/libpod-" + kId + ".scope/memory.max", "8192\n");
    const auto second = meter.sample({container(10)}, after(1000));
    ASSERT_EQ(second.size(), 1u);
    EXPECT_FLOAT_EQ(second[0].cpu_cores(), 1.5f);
    EXPECT_EQ(second[0].memory_limit_bytes(), 8192);
  }
}

TEST_F(Containers, AreReadFromTheOldHierarchy) {
  write("/proc/10/cgroup", "9:name=systemd:/l/libpod-" + kId + "\n8:pids:/l/libpod-" + kId +
                               "\n4:memory:/l/libpod-" + kId + "\n2:cpu,cpuacct:/l/libpod-" + kId +
                               "\n7:blkio:/l/libpod-" + kId + "\n0::/l/libpod-" + kId + "\n");
  const std::string group = "/l/libpod-" + kId + "/";
  write("/sys/fs/cgroup/cpuacct" + group + "cpuacct.usage", "2000000000\n");
  write("/sys/fs/cgroup/memory" + group + "memory.usage_in_bytes", "5000\n");
  write("/sys/fs/cgroup/memory" + group + "memory.stat",
        "inactive_file 1\ntotal_inactive_file 6000\n");
  write("/sys/fs/cgroup/memory" + group + "memory.limit_in_bytes", "9223372036854771712\n");
  write("/sys/fs/cgroup/blkio" + group + "blkio.throttle.io_service_bytes",
        "8:0 Read 5\n8:0 Write 6\n8:0 Total 11\nTotal 11\n");
  write("/sys/fs/cgroup/pids" + group + "pids.current", "1\n");
  ContainerMeter meter(dir.path());
  meter.sample({container(10)}, after(0));
  write("/sys/fs/cgroup/cpuacct" + group + "cpuacct.usage", "2500000000\n");
  const auto out = meter.sample({container(10)}, after(1000));
  ASSERT_EQ(out.size(), 1u);
  EXPECT_FLOAT_EQ(out[0].cpu_cores(), 0.5f);
  EXPECT_EQ(out[0].memory_bytes(), 0) << "never below nothing";
  EXPECT_FALSE(out[0].has_memory_limit_bytes());
  EXPECT_EQ(out[0].disk_read_bytes(), 5);
  EXPECT_EQ(out[0].disk_written_bytes(), 6);
  EXPECT_EQ(out[0].pids(), 1u);
  EXPECT_FALSE(out[0].has_network_sent_bytes());
}

TEST_F(Containers, TheHostsNetworkIsNotAContainers) {
  v2();
  link("/proc/10/ns/net", "net:[1]");
  const auto out = ContainerMeter(dir.path()).sample({container(10)}, after(0));
  ASSERT_EQ(out.size(), 1u);
  EXPECT_FALSE(out[0].has_network_sent_bytes());
}

TEST_F(Containers, ThatAreNotTheirProcessAreLeftOut) {
  v2();
  Observed exited = container(10);
  exited.run = Run::kExited;
  ContainerMeter meter(dir.path());
  EXPECT_TRUE(meter.sample({exited, container(0), container(-1), container(11)}, after(0)).empty());
  EXPECT_TRUE(meter.sample({container(10, std::string(64, 'b'))}, after(0)).empty())
      << "reused pid";
  write("/proc/10/cgroup", "0::/../../libpod-" + kId + "\nrubbish\n1:\n::\n");
  EXPECT_TRUE(meter.sample({container(10)}, after(0)).empty()) << "a path that leads elsewhere";
}

TEST_F(Containers, RatesBeginAnewWithTheCounters) {
  v2();
  ContainerMeter meter(dir.path());
  meter.sample({container(10)}, after(0));
  write("/sys/fs/cgroup/machine.slice/libpod-" + kId + ".scope/cpu.stat", "usage_usec 5\n");
  EXPECT_FALSE(meter.sample({container(10)}, after(1000)).at(0).has_cpu_cores());
  EXPECT_FALSE(meter.sample({container(10)}, after(1000)).at(0).has_cpu_cores())
      << "no time passed";
  EXPECT_TRUE(meter.sample({}, after(2000)).empty());
  EXPECT_FALSE(meter.sample({container(10)}, after(3000)).at(0).has_cpu_cores());
}

// --- What can be done to the machine

TEST_F(Kernel, ALightIsBlinkedAndPutBack) {
  write("/sys/class/leds/input0::capslock/trigger", "[none] kbd-capslock heartbeat\n");
  write("/sys/class/leds/ACT/trigger", "none [mmc0] timer heartbeat\n");
  const auto light = find_light(dir.path());
  ASSERT_TRUE(light);
  EXPECT_EQ(light->name, "ACT");
  EXPECT_EQ(light->usual_trigger, "mmc0");
  EXPECT_TRUE(light->set("heartbeat"));
  EXPECT_EQ(read("/sys/class/leds/ACT/trigger").substr(0, 9), "heartbeat");
  EXPECT_TRUE(light->set(light->usual_trigger));
  EXPECT_EQ(read("/sys/class/leds/ACT/trigger").substr(0, 4), "mmc0");
}

TEST_F(Kernel, WithoutALightThereIsNone) {
  EXPECT_FALSE(find_light(dir.path()));
  write("/sys/class/leds/ACT/trigger", "[none] timer\n");
  EXPECT_FALSE(find_light(dir.path())) << "it cannot beat";
}

TEST(Programs, EndWithTheirCodeOrAReason) {
  testing::run_task([]() -> Task<void> {
    co_await run_to_the_end({"true"}, Duration(5000));
    const auto reason = [](std::vector<std::string> words, Duration limit) -> Task<std::string> {
      try {
        co_await run_to_the_end(std::move(words), limit);
      } catch (const Error& error) {
        co_return error.message();
      }
      co_return "";
    };
    EXPECT_EQ(co_await reason({"sh", "-c", "exit 3"}, Duration(5000)), "sh ended with code 3");
    EXPECT_EQ(co_await reason({"sh", "-c", "kill -9 $$"}, Duration(5000)),
              "sh was ended by signal 9");
    EXPECT_NE(co_await reason({"/no/such/program"}, Duration(5000)), "");
    EXPECT_EQ(co_await reason({"sleep", "60"}, Duration(200)), "sleep did not end within 200ms");
  });
}

}  // namespace
}  // namespace flock::agent
