#include "lab/times.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "lab/table.h"

namespace lab {
namespace {

struct StepSum {
  std::string_view step;
  size_t calls = 0, bytes = 0;
  double ops = 0, seconds = 0, roof_seconds = 0;
};

struct Phase {
  const char* name;
  PhaseTime time;
  std::vector<StepSum> steps;  // the longest first
  double explained = 0;        // seconds
};

Phase Summarise(const char* name, const PhaseTime& time, const Roofline& roofline,
                std::span<const StepTime> steps) {
  std::map<std::string_view, StepSum> sums;
  Phase phase = {name, time, {}, 0};
  for (const StepTime& s : steps) {
    StepSum& sum = sums[s.step];
    sum.step = s.step;
    ++sum.calls;
    sum.bytes += s.bytes;
    sum.ops += s.ops;
    sum.roof_seconds += roofline.Seconds(static_cast<double>(s.bytes), s.ops, s.contract);
    sum.seconds += s.seconds;
    phase.explained += s.seconds;
  }
  for (const auto& [step, sum] : sums) phase.steps.push_back(sum);
  std::sort(phase.steps.begin(), phase.steps.end(),
            [](const StepSum& a, const StepSum& b) { return a.seconds > b.seconds; });
  return phase;
}

std::vector<Phase> PhasesOf(const RunTimes& times) {
  const std::span<const StepTime> all = times.steps;
  const auto decode = std::find_if(all.begin(), all.end(), [&](const StepTime& s) {
    return s.first_token >= times.prefill.tokens;
  });
  const auto split = static_cast<size_t>(decode - all.begin());
  std::vector<Phase> phases = {
      Summarise("prefill", times.prefill, times.roofline, all.first(split))};
  if (times.decode.tokens > 0)
    phases.push_back(Summarise("decode", times.decode, times.roofline, all.subspan(split)));
  return phases;
}

// Per second; 0 of what took no time.
double Rate(double amount, double seconds) {
  return seconds > 0 ? amount / seconds : 0;
}

}  // namespace

std::string TimesToText(const RunTimes& times) {
  std::string text;
  for (const Phase& phase : PhasesOf(times)) {
    const double wall = phase.time.seconds;
    Table table({"step", "calls", "ms", "%", "MB", "GB/s", "GFLOP/s", "%roof"});
    for (const StepSum& s : phase.steps) {
      const auto bytes = static_cast<double>(s.bytes);
      table.Add(
          {std::string(s.step), fmt::format("{}", s.calls), fmt::format("{:.3f}", s.seconds * 1e3),
           fmt::format("{:.1f}", 100 * Rate(s.seconds, wall)), fmt::format("{:.2f}", bytes * 1e-6),
           fmt::format("{:.2f}", Rate(bytes, s.seconds) * 1e-9),
           fmt::format("{:.1f}", Rate(s.ops, s.seconds) * 1e-9),
           fmt::format("{:.1f}", 100 * Rate(s.roof_seconds, s.seconds))});
    }
    text +=
        fmt::format("\n{}: {} token{} in {:.2f} ms, {:.2f} tok/s; the steps explain {:.1f} %\n{}",
                    phase.name, phase.time.tokens, phase.time.tokens == 1 ? "" : "s", wall * 1e3,
                    Rate(static_cast<double>(phase.time.tokens), wall),
                    100 * Rate(phase.explained, wall), table.ToText());
  }
  return text;
}

std::string TimesToJsonl(const RunTimes& times) {
  std::string lines;
  const auto add = [&](const nlohmann::ordered_json& line) { lines += line.dump() + '\n'; };
  for (const Phase& phase : PhasesOf(times)) {
    for (const StepSum& s : phase.steps)
      add({{"kind", "time"},
           {"phase", phase.name},
           {"step", s.step},
           {"calls", s.calls},
           {"seconds", s.seconds},
           {"bytes", s.bytes},
           {"ops", s.ops},
           {"roof_seconds", s.roof_seconds}});
    add({{"kind", "phase"},
         {"phase", phase.name},
         {"tokens", phase.time.tokens},
         {"seconds", phase.time.seconds},
         {"in_steps", phase.explained}});
  }
  return lines;
}

std::string TimesToChromeTrace(const RunTimes& times) {
  nlohmann::ordered_json events = nlohmann::ordered_json::array();
  for (const StepTime& s : times.steps)
    events.push_back({{"name", s.step},
                      {"ph", "X"},
                      {"ts", (s.begin - times.steps.front().begin) * 1e6},
                      {"dur", s.seconds * 1e6},
                      {"pid", 1},
                      {"tid", 1},
                      {"args",
                       {{"layer", s.layer},
                        {"first_token", s.first_token},
                        {"tokens", s.tokens},
                        {"bytes", s.bytes},
                        {"ops", s.ops}}}});
  return nlohmann::ordered_json{{"traceEvents", events}, {"displayTimeUnit", "ms"}}.dump() + '\n';
}

}  // namespace lab
