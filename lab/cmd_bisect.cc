// lab bisect: which step of a candidate's pass is the first wrong one; --blame ranks the steps by
// what they do to the logits, --xray shows the weights that a row effectively uses.
#include <algorithm>
#include <optional>

#include "lab/bisect_report.h"
#include "lab/cli.h"
#include "lab/device.h"
#include "lab/error.h"
#include "lab/names.h"
#include "lab/output.h"
#include "lab/parallel.h"
#include "lab/prompt.h"
#include "lab/reduce.h"
#include "lab/select.h"
#include "lab/sha256.h"
#include "lab/simd_target.h"
#include "model/repack.h"

namespace lab {
namespace {

constexpr size_t kPlaces = 12;

struct Flags : PassFlags {
  std::string model, backend, layers, ops, shard, xray, out, format;
  Prompt prompt;
  int threads = DefaultThreads();
  bool blame = false;
  int argc = 0;  // as they came, for MadeBy
  char** argv = nullptr;
};

bool ParseFlags(int argc, char** argv, Flags& f) {
  CLI::App app(
      "Runs a candidate (a backend, a contract, --use) beside the oracle and names the first wrong "
      "step of its pass:\n"
      "every row gets the oracle's own input of its step and is judged as 'lab check' judges a "
      "case, so nothing\n"
      "that a step has inherited counts against it.",
      "lab bisect");
  AddModel(app, f.model);
  AddPrompt(app, f.prompt);
  app.add_option("--backend", f.backend, "the candidate: ref or hwy (default hwy)")
      ->type_name("ref|hwy");
  AddPassFlags(app, f);
  AddThreads(app, f.threads);
  app.add_option("--layers", f.layers, "only the steps of these layers: 3 or 0-5,9")
      ->type_name("LAYERS");
  app.add_option("--ops", f.ops, "only steps whose name or op matches one of these globs")
      ->type_name("GLOB,...");
  auto* out = app.add_option("-o,--output", f.out,
                             "write the first wrong step as a case, cut down to what still fails")
                  ->type_name("cases/NAME");
  auto* blame = app.add_flag(
      "--blame", f.blame,
      "instead: a clean pass (hwy f32) with one step at a time by the candidate, and the\n"
      "candidate with one step at a time clean, ranked by what that does to the logits");
  app.add_option("--shard", f.shard, "with --blame: only the I-th of N parts of the steps")
      ->type_name("I/N")
      ->needs(blame);
  app.add_option(
         "--xray", f.xray,
         "instead: the weights that matvec rows effectively use, from unit inputs, and the\n"
         "fields that they read wrongly; in --layers (default 3)")
      ->type_name("ROW,...")
      ->excludes(blame, out);
  blame->excludes(out);
  AddFormat(app, f.format);
  app.footer(
      "Example:\n"
      "  lab bisect --backend hwy --use matvec@7=mutant:transposed -o cases/transposed\n"
      "  lab bisect --blame --contract q8 --layers 0-3\n"
      "  lab bisect --xray MatvecHwy --layers 3 --ops q_proj");
  return ParseArgs(app, argc, argv);
}

// What a run is about, checked before anything is computed.
struct Candidate {
  RowSet rows;
  KvType kv;
};
Candidate ParseCandidate(const Flags& f) {
  const Backend backend = f.backend.empty() ? Backend::hwy : ParseBackend(f.backend, "--backend");
  if (backend == Backend::oracle)
    Fail("--backend oracle: it is what a candidate is judged against; give ref or hwy");
  const Contract contract =
      f.contract.empty() ? DefaultContract(backend) : ParseContract(f.contract, "--contract");
  return {RowSet(backend, contract), f.kv.empty() ? DefaultKv(contract) : ParseKv(f.kv, "--kv")};
}

std::vector<std::pair<int, int>> LayersOf(const std::string& text, const Qwen2& model) {
  if (text.empty()) return {};
  return ParseLayers(text, model.config.layers, "--layers");
}

std::vector<int32_t> IdsOf(const Flags& f, const Qwen2& model) {
  const std::vector<int32_t> ids = PromptIds(f.prompt, model);
  // Every tap of every token is kept, 13 MB a token for the 1.5B model; --blame runs one batch.
  const size_t most = std::min(Forward<float>::kBatch, model.config.context_length);
  if (ids.size() > most)
    Fail("{} tokens; bisect runs at most {} on this model: give a shorter prompt", ids.size(),
         most);
  return ids;
}

// The command that judges the case again.
std::string CheckCommand(const Flags& f, const Case& c, const StepVerdict& step) {
  const size_t slash = f.out.rfind('/');
  std::string command =
      fmt::format("lab check --cases {} --case {} --op {} --contract {} --repeat 2",
                  slash == std::string::npos ? "." : f.out.substr(0, std::max<size_t>(slash, 1)),
                  c.name, step.use.row->function, NameOf(step.use.row->contract));
  if (!f.target.empty()) command += " --target " + f.target;
  if (step.use.mutant)
    command += fmt::format(" --use {}=mutant:{}", NameOf(c.op), step.use.mutant->name);
  return command;
}

// Writes the capsule and says how to judge it.
std::string WriteCapsule(const Flags& f, const Qwen2& model, const Bisector& bisector,
                         const std::vector<int32_t>& ids, const StepVerdict& step) {
  const Verdict& v = step.verdict;
  Case c = Reduce(bisector.CaseOf(step), v.token, v.channel, [&](const Case& part) {
    return bisector.Judge(part, step.use).status == Status::fail;
  });
  c.name = fmt::format("{}.{}", f.out.substr(f.out.rfind('/') + 1), step.name);
  CaseFile file;
  file.model = model.name().substr(model.name().rfind('/') + 1);
  file.sha256 = Sha256OfFile(model.source->file());
  if (f.prompt.tokens.empty() && f.prompt.file.empty()) file.prompt = f.prompt.text;
  file.ids = ids;
  file.layer = step.layer == kNoLayer ? 0 : static_cast<size_t>(step.layer);
  file.cases = {c};
  WriteCaseFile(f.out, file);
  PrintErr(fmt::format("lab: {}{} of {} in {}.toml and {}.safetensors, {} KB\n",
                       CountOf(c.tokens, "token"),
                       c.w.data ? fmt::format(" and {} rows", c.w.rows) : "", step.name, f.out,
                       f.out, DataBytes(c) / 1000 + 1));
  return CheckCommand(f, c, step);
}

MadeBy DescribeRun(const Flags& f, const Qwen2& model) {
  return DescribeRun(f.argc, f.argv, model.name(), ParseShard(f.shard), {});
}

std::string NextSteps(const Flags& f, const BisectResult& result, const std::string& check) {
  const StepVerdict* first = result.FirstWrong();
  if (!first)
    return "\nnext: what the contract itself costs: 'lab diff F32.jsonl THIS.jsonl --model M', of "
           "traces by\n      'lab forward --trace'; 'lab check --forward' judges the whole pass, "
           "--blame ranks the\n      steps by what they do to the logits\n";
  std::string text = "\nnext: ";
  text += check.empty() ? "-o cases/NAME writes this step as a small case for 'lab check'\n"
                        : check + "\n";
  if (HasMatrix(first->use.row->op) && first->layer != kNoLayer)
    text += fmt::format(
        "      lab bisect{} --xray {} --layers {} --ops {}{} shows which weights it "
        "reads\n",
        f.model.empty() ? "" : " --model " + f.model, first->use.row->function, first->layer,
        first->name,
        first->use.mutant ? fmt::format(" --use {}=mutant:{}", NameOf(first->use.row->op),
                                        first->use.mutant->name)
                          : "");
  return text;
}

int Bisect(const Flags& f, const Qwen2& model, const Candidate& candidate) {
  const StepFilter filter = {LayersOf(f.layers, model), f.ops};
  const std::vector<int32_t> ids = IdsOf(f, model);
  std::optional<Bisector> bisector;
  BisectResult result;
  {
    const ProgressLine progress;
    bisector.emplace(model, candidate.rows.contract(), candidate.kv, ids, f.threads,
                     [&](std::string_view what) { progress(what); });
    result = bisector->Run(candidate.rows, filter);
  }
  std::string check;
  if (const StepVerdict* first = result.FirstWrong(); first && !f.out.empty())
    check = WriteCapsule(f, model, *bisector, ids, *first);
  if (ParseFormat(f.format) == Format::jsonl)
    PrintOut(BisectToJsonl(result, DescribeRun(f, model)));
  else
    PrintOut(BisectToText(result, kPlaces) + NextSteps(f, result, check));
  return BisectExitCode(result);
}

int Blame(const Flags& f, const Qwen2& model, const Candidate& candidate) {
  StepBlameOptions options;
  options.layers = LayersOf(f.layers, model);
  options.ops = f.ops;
  options.shard = ParseShard(f.shard);
  options.threads = f.threads;
  options.kv = candidate.kv;
  options.log = [](std::string_view what) { PrintErr(fmt::format("lab: {}\n", what)); };
  const std::vector<int32_t> ids = IdsOf(f, model);
  StepBlame blame;
  {
    const ProgressLine progress;
    options.progress = [&](std::string_view what) { progress(what); };
    blame = BlameSteps(model, candidate.rows, ids, options);
  }
  PrintOut(ParseFormat(f.format) == Format::jsonl ? StepBlameToJsonl(blame, DescribeRun(f, model))
                                                  : StepBlameToText(blame));
  return StepBlameExitCode(blame);
}

int RunXray(const Flags& f, const Qwen2& model, const std::vector<UseRule>& rules) {
  const std::vector<const Row*> rows = SelectRows(f.xray, f.backend, f.contract);
  const GlobList ops(f.ops);
  std::vector<Xray> xrays;
  {
    const ProgressLine progress;
    for (const auto& [first, last] : LayersOf(f.layers.empty() ? "3" : f.layers, model))
      for (int layer = first; layer <= last; ++layer)
        for (const Case& step : WeightCases(model, layer)) {
          if (!Chosen(ops, step)) continue;
          for (const Row* row : rows) {
            if (row->op != step.op || !WhyNotHere(*row).empty()) continue;
            RowUse use = {row};
            for (const UseRule& rule : rules)
              if (rule.mutant && rule.Covers(row->op, layer)) use.mutant = rule.mutant;
            progress(fmt::format("{} {}", step.name, NameOf(use)));
            for (Xray& x : XrayStep(step, use, f.threads)) xrays.push_back(std::move(x));
          }
        }
  }
  if (xrays.empty())
    throw Error(kNotComparable,
                "no matrix of a layer and row match --xray, --ops, --backend and --contract; "
                "'lab list kernels' names the rows of matvec, gate_up and down_proj");
  PrintOut(ParseFormat(f.format) == Format::jsonl ? XrayToJsonl(xrays, DescribeRun(f, model))
                                                  : XrayToText(xrays));
  return XrayExitCode(xrays);
}

}  // namespace

int CmdBisect(int argc, char** argv) {
  Flags f;
  f.argc = argc, f.argv = argv;
  if (!ParseFlags(argc, argv, f)) return kPass;
  CheckThreads(f.threads);
  ParseFormat(f.format);
  ParseShard(f.shard);
  Candidate candidate = ParseCandidate(f);
  UseSimdTarget(f.target);
  if (!f.out.empty()) CheckCaseFileWritable(f.out);
  Qwen2 model = OpenModel(ResolveModel(f.model));
  candidate.rows.Use(ParseUse(f.use, candidate.rows.contract(), model.config.layers));
  if (!f.xray.empty()) return RunXray(f, model, candidate.rows.rules());
  if (candidate.rows.backend() == Backend::hwy) Repack(model, f.threads);
  return f.blame ? Blame(f, model, candidate) : Bisect(f, model, candidate);
}

}  // namespace lab
