// lab list: what this build knows.
#include <nlohmann/json.hpp>

#include "lab/case.h"
#include "lab/cli.h"
#include "lab/device.h"
#include "lab/error.h"
#include "lab/mutants.h"
#include "lab/names.h"
#include "lab/output.h"
#include "lab/parallel.h"
#include "lab/registry.h"
#include "lab/simd_target.h"
#include "lab/table.h"
#include "lab/taps.h"

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
               WhyNotHere(row).empty() ? "built" : WhyNotHere(row)});
  return table;
}

Table ListDevices() {
  Table table({"device", "detail"});
  std::string targets;
  for (const SimdTarget& t : SimdTargets())
    targets += (targets.empty() ? "" : ", ") + t.name + (t.runs_here ? "" : " (not here)");
  table.Add({"cpu", fmt::format("{} threads; SIMD targets {}", DefaultThreads(), targets)});
  table.Add({"cuda", CudaText()});
  const std::vector<CudaDevice>& devices = Cuda().devices;
  for (size_t i = 0; i < devices.size(); ++i) {
    const CudaDevice& d = devices[i];
    table.Add(
        {fmt::format("cuda:{}", i),
         fmt::format("{}, sm_{}{}, {} multiprocessors, {:.1f} of {:.1f} GiB free", d.name, d.major,
                     d.minor, d.multiprocessors, static_cast<double>(d.free) / 0x1p30,
                     static_cast<double>(d.memory) / 0x1p30)});
  }
  return table;
}

Table ListMutants() {
  Table table({"mutant", "kind", "ops", "slip"});
  for (const Mutant& m : Mutants()) {
    std::vector<std::string_view> ops;
    for (size_t op = 0; op < OpCount(); ++op)
      if (m.Wraps(static_cast<Op>(op))) ops.push_back(NameOf(static_cast<Op>(op)));
    table.Add({std::string(m.name),
               m.correct   ? "correct order"
               : m.guarded ? "mistake, check alone"
                           : "mistake",
               fmt::format("{}", fmt::join(ops, " ")), std::string(m.slip)});
  }
  return table;
}

Table ListCases() {
  Table table({"case", "op", "tokens", "weights", "input", "output", "file"});
  for (const std::string& path : FindCaseFiles(CasesFolder("")))
    for (const Case& c : ReadCaseFile(path).cases)
      table.Add(
          {c.name, std::string(NameOf(c.op)), std::to_string(c.tokens),
           c.w.data ? fmt::format("{} {} x {}", InfoOf(c.w.type).name, c.w.rows, c.w.cols) : "-",
           c.input_tap, c.output_tap, path});
  return table;
}

struct List {
  std::string_view name;
  Table (*make)();
};
constexpr List kLists[] = {{"kernels", ListKernels},
                           {"cases", ListCases},
                           {"taps", ListTaps},
                           {"mutants", ListMutants},
                           {"devices", ListDevices}};

}  // namespace

int CmdList(int argc, char** argv) {
  std::string what, format;
  CLI::App app("Lists the kernel rows, cases, taps, mutants or devices of this build.", "lab list");
  std::vector<std::string_view> names;
  for (const List& list : kLists) names.push_back(list.name);
  app.add_option("what", what, "kernels, cases, taps, mutants or devices")
      ->required()
      ->type_name(fmt::format("{}", fmt::join(names, "|")));
  AddTableFormat(app, format);
  app.footer("Example:\n  lab list kernels");
  if (!ParseArgs(app, argc, argv)) return kPass;
  const Table table = kLists[IndexOfName(names, what, "lab list")].make();
  PrintOut(table.To(ParseTableFormat(format)));
  return kPass;
}

}  // namespace lab
