#include "lab/candidate.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "lab/blame.h"
#include "lab/error.h"
#include "lab/names.h"
#include "lab/safetensors.h"

namespace lab {
namespace {

// The candidate's outputs of one case, in the order of `expected`. Outputs that the file lacks are
// dropped from `expected` if they are taps inside the op, which not every kernel has.
class CandidateOutputs {
 public:
  CandidateOutputs(const Safetensors& file, const std::string& path, const Case& c, bool bare_names)
      : file_(file), path_(path), c_(c), bare_names_(bare_names) {}

  bool Any(const std::vector<Expected>& expected) const {
    for (const Expected& e : expected)
      if (Find(e.name)) return true;
    return false;
  }

  std::deque<GuardedBuffer<float>> Take(std::vector<Expected>& expected) const {
    std::deque<GuardedBuffer<float>> outputs;
    std::erase_if(expected,
                  [&](const Expected& e) { return e.name == "y_before_bias" && !Find(e.name); });
    for (const Expected& e : expected) {
      const SafetensorsEntry* entry = Find(e.name);
      if (!entry)
        throw Error(kNotComparable,
                    fmt::format("{}: there is no tensor '{}' for case {}", path_, e.name, c_.name));
      CheckShape(*entry, e);
      GuardedBuffer<float>& values = outputs.emplace_back(e.name, e.tokens, e.n);
      for (size_t i = 0; i < values.size(); ++i)
        values.data()[i] = static_cast<float>(entry->At(i));
    }
    return outputs;
  }

 private:
  const SafetensorsEntry* Find(const std::string& output) const {
    const SafetensorsEntry* entry = file_.Find(c_.name + "." + output);
    return entry || !bare_names_ ? entry : file_.Find(output);
  }

  void CheckShape(const SafetensorsEntry& entry, const Expected& e) const {
    const std::vector<size_t> wanted = {e.tokens, e.n};
    const bool flat = e.tokens == 1 && entry.shape == std::vector<size_t>{e.n};
    if (entry.shape != wanted && !flat)
      throw Error(kNotComparable,
                  fmt::format("{}: tensor '{}' has the shape [{}], case {} has "
                              "[{}] (tokens, channels)",
                              path_, Printable(entry.name), fmt::join(entry.shape, ", "), c_.name,
                              fmt::join(wanted, ", ")));
    if (entry.dtype != "F32" && entry.dtype != "F64")
      throw Error(kNotComparable, fmt::format("{}: tensor '{}' is {}; write F32 or F64", path_,
                                              Printable(entry.name), entry.dtype));
  }

  const Safetensors& file_;
  const std::string& path_;
  const Case& c_;
  bool bare_names_;
};

}  // namespace

std::vector<CheckLine> JudgeCandidate(const std::string& path, const std::vector<Case>& cases,
                                      std::optional<Contract> contract) {
  const Safetensors file(path);
  std::vector<CheckLine> lines;
  for (const Case& c : cases) {
    Oracles oracles(c);
    const CandidateOutputs candidate(file, path, c, cases.size() == 1);
    for (const Contract each : {Contract::f32, Contract::q16, Contract::q8}) {
      if (!FindRow(c.op, each, Backend::oracle) || (contract && each != *contract)) continue;
      for (const bool half_kv : {false, true}) {
        const bool attention = c.op == Op::gqa_attention;
        if (half_kv && !attention) continue;
        std::vector<Expected> expected = oracles.Of(each, half_kv);
        if (!candidate.Any(expected)) continue;
        const auto outputs = candidate.Take(expected);
        Verdict v = JudgeOutputs(expected, outputs, true, 1);
        if (v.status == Status::fail) v.blame = BlameSubBlock(c, each, expected, outputs, 1);
        lines.push_back({c.name, "candidate", "-",
                         !attention ? "-"
                         : half_kv  ? "f16"
                                    : "f32",
                         std::string(NameOf(each)), std::move(v), 0});
      }
    }
  }
  if (lines.empty())
    throw Error(kNotComparable,
                fmt::format("{}: no tensor has the name of an output of {}; 'lab capture --export' "
                            "says which are expected",
                            path, cases.size() == 1 ? "case " + cases[0].name : "these cases"));
  return lines;
}

}  // namespace lab
