#include "bench/machine.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <string_view>

namespace lab {
namespace {

// What follows `key` on its line of a "key : value" file, or "".
std::string ValueIn(const char* path, std::string_view key) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with(key)) continue;
    const size_t colon = line.find(':');
    const size_t value = line.find_first_not_of(" \t", colon + 1);
    if (colon != std::string::npos && value != std::string::npos) return line.substr(value);
  }
  return "";
}

// "32768K", as /sys has it; 0 where there is no such file.
size_t CacheSize(int index) {
  std::ifstream file("/sys/devices/system/cpu/cpu0/cache/index" + std::to_string(index) + "/size");
  size_t size = 0;
  char unit = 0;
  file >> size >> unit;
  return size << (unit == 'K' ? 10 : unit == 'M' ? 20 : 0);
}

}  // namespace

std::string CpuModel() {
  const std::string name = ValueIn("/proc/cpuinfo", "model name");
  return name.empty() ? "unknown" : name;
}

size_t LastLevelCache() {
  size_t largest = 0;
  for (int index = 0; index < 5; ++index) largest = std::max(largest, CacheSize(index));
#ifdef _SC_LEVEL3_CACHE_SIZE
  if (largest == 0) largest = static_cast<size_t>(std::max(0L, sysconf(_SC_LEVEL3_CACHE_SIZE)));
#endif
  return largest > 0 ? largest : size_t{32} << 20;
}

size_t HugePagesInUse() {
  return std::strtoull(ValueIn("/proc/self/smaps_rollup", "AnonHugePages").c_str(), nullptr, 10)
         << 10;
}

std::string HugePagePolicy() {
  std::ifstream file("/sys/kernel/mm/transparent_hugepage/enabled");
  for (std::string word; file >> word;)
    if (word.starts_with('[')) return word.substr(1, word.size() - 2);
  return "unknown";
}

double LoadAverage() {
  double load = -1;
  return getloadavg(&load, 1) == 1 ? load : -1;
}

}  // namespace lab
