// lab list: what this build knows.
#include <nlohmann/json.hpp>

#include "lab/cli.h"
#include "lab/error.h"
#include "lab/names.h"
#include "lab/output.h"
#include "lab/parallel.h"
#include "lab/registry.h"
#include "lab/simd_target.h"
#include "lab/table.h"
#include "lab/taps.h"
#include "lab/version.h"

namespace lab {
namespace {

Table ListTaps() {
  Table table({"tap", "scope", "meaning", "llama_cpp", "hf", "apr"});
  for (const TapInfo& t : Taps())
    table.Add({std::string(t.name), t.per_layer ? "layer" : "model", std::string(t.meaning),
               std::string(t.llama_cpp), std::string(t.hf), std::string(t.apr)});
  return table;
}

Table ListKernels() {
  Table table({"op", "contract", "backend", "function", "state"});
  for (const Row& row : Rows())
    table.Add({std::string(NameOf(row.op)), std::string(NameOf(row.contract)),
               std::string(NameOf(row.backend)), std::string(row.function),
               row.run ? "built" : "not built"});
  return table;
}

Table ListDevices() {
  Table table({"device", "detail"});
  std::string targets;
  for (const SimdTarget& t : SimdTargets())
    targets += (targets.empty() ? "" : ", ") + t.name + (t.runs_here ? "" : " (not here)");
  table.Add({"cpu", fmt::format("{} threads; SIMD targets {}", DefaultThreads(), targets)});
  table.Add({"cuda", BuiltWithCuda() ? "built" : "not built"});
  return table;
}

struct List {
  std::string_view name;
  Table (*make)();
};
constexpr List kLists[] = {{"taps", ListTaps}, {"kernels", ListKernels}, {"devices", ListDevices}};

}  // namespace

int CmdList(int argc, char** argv) {
  std::string what, format;
  CLI::App app("Lists the taps, the kernel rows or the devices of this build.", "lab list");
  app.add_option("what", what, "taps, kernels or devices")->required()->type_name("WHAT");
  AddFormat(app, format);
  app.footer("Example:\n  lab list kernels");
  if (!ParseArgs(app, argc, argv)) return kPass;
  std::vector<std::string_view> names;
  for (const List& list : kLists) names.push_back(list.name);
  const Table table = kLists[IndexOfName(names, what, "lab list")].make();
  PrintOut(ParseFormat(format) == Format::jsonl ? table.ToJsonl() : table.ToText());
  return kPass;
}

}  // namespace lab
