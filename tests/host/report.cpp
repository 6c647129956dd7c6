// The counters as JSON, and the functions of the library that Python calls.
#include "report.h"

#include <utility>

namespace svmax_host {
namespace {

constexpr std::pair<const char*, int64_t Operations::*> kOperations[] = {
    {"add", &Operations::add},         {"mul", &Operations::mul},         {"fma", &Operations::fma},
    {"div", &Operations::div},         {"sqrt", &Operations::sqrt},       {"other", &Operations::other},
    {"compare", &Operations::compare}, {"convert", &Operations::convert},
};
constexpr std::pair<const char*, int64_t Counters::*> kCounters[] = {
    {"barriers", &Counters::barriers},
    {"syncwarps", &Counters::syncwarps},
    {"shuffles", &Counters::shuffles},
    {"shared_read_bytes", &Counters::shared_read_bytes},
    {"shared_write_bytes", &Counters::shared_write_bytes},
    {"shared_wavefronts", &Counters::shared_wavefronts},
    {"bank_conflicts", &Counters::bank_conflicts},
    {"global_read_bytes", &Counters::global_read_bytes},
    {"global_write_bytes", &Counters::global_write_bytes},
};

int64_t sum(const Operations& operations) {
  int64_t result = 0;
  for (const auto& [name, operation] : kOperations) result += operations.*operation;
  return result;
}

std::string quoted(const std::string& s) { return "\"" + s + "\""; }  // names of C++ need no escapes

template <typename T, size_t kCount>
std::string json(const T& values, const std::pair<const char*, int64_t T::*> (&names)[kCount]) {
  std::string result;
  for (const auto& [name, member] : names)
    result += (result.empty() ? "" : ", ") + quoted(name) + ": " + std::to_string(values.*member);
  return result;
}
std::string json(const Counters& c) {
  return "{" + json(c, kCounters) + ", \"f64\": {" + json(c.f64, kOperations) + "}, \"f32\": {" +
         json(c.f32, kOperations) + "}}";
}
std::string json(const Launch& launch) {
  const Dim3& g = launch.grid;
  return "{\"kernel\": " + quoted(launch.kernel) + ", \"grid\": [" + std::to_string(g.x) + ", " + std::to_string(g.y) +
         ", " + std::to_string(g.z) + "], \"threads\": " + std::to_string(launch.threads) +
         ", \"shared_bytes\": " + std::to_string(launch.shared_bytes) +
         ", \"blocks\": " + std::to_string(launch.blocks) + ", \"block\": " + json(launch.most) +
         ", \"total\": " + json(launch.total) + "}";
}

}  // namespace

void Launch::add(const Counters& block) {
  if (blocks++ == 0 || sum(block.f64) > sum(most.f64)) most = block;
  for (const auto& [name, member] : kCounters) total.*member += block.*member;
  for (const auto type : {&Counters::f64, &Counters::f32})
    for (const auto& [name, member] : kOperations) total.*type.*member += block.*type.*member;
}

}  // namespace svmax_host

extern "C" {

// A JSON list of the launches since the last reset; valid until the next call.
[[gnu::visibility("default")]] const char* svmax_host_report() {
  static std::string report;
  report.clear();
  for (const auto& launch : svmax_host::launches) report += (report.empty() ? "" : ",\n ") + svmax_host::json(launch);
  report = "[" + report + "]";
  return report.c_str();
}
// How many launches there have been since the library was loaded.
[[gnu::visibility("default")]] int64_t svmax_host_launched() { return svmax_host::launched; }
// Launches and wavefronts are kept from here on.
[[gnu::visibility("default")]] void svmax_host_reset() {
  svmax_host::launches.clear();
  svmax_host::counting = true;
}
// Until then, and after svmax_host_count(false), they are not: it takes time and memory that tests of results can
// spare.
[[gnu::visibility("default")]] void svmax_host_count(bool on) { svmax_host::counting = on; }

}  // extern "C"
