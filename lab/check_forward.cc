#include "lab/check_forward.h"

#include <algorithm>
#include <cmath>

#include "lab/error.h"
#include "lab/json.h"
#include "lab/output.h"
#include "lab/table.h"
#include "model/repack.h"
#include "model/tokenizer.h"

namespace lab {
namespace {

std::string Where(const Place& p) {
  return p.layer == kNoLayer ? fmt::format("t{}", p.token)
                             : fmt::format("L{:02} t{}", p.layer, p.token);
}

std::string PathOf(const ContractResult& r, const Place& p) {
  return fmt::format("{} {} token {}", NameOf(r.contract), TapPath(p.tap, p.layer), p.token);
}

bool SmallerRatio(const TapVerdict& a, const TapVerdict& b) {
  return a.ratio() < b.ratio();
}

// The relative squared error of the logits, candidate over baseline.
double RseRatio(const TokenLogits& l) {
  return l.candidate.rse / l.baseline.rse;
}

// How the tokens from the last of the prompt on fared.
struct TokenCounts {
  size_t same = 0, ties = 0, failed = 0;
  size_t positions() const { return same + ties + failed; }
};

TokenCounts CountTokens(const ContractResult& r, size_t prompt_tokens) {
  TokenCounts counts;
  for (size_t t = prompt_tokens - 1; t < r.logits.size(); ++t) {
    const TokenStatus status = r.logits[t].status();
    ++(status == TokenStatus::same  ? counts.same
       : status == TokenStatus::tie ? counts.ties
                                    : counts.failed);
  }
  return counts;
}

struct Totals {
  size_t places = 0, failed_places = 0, elements = 0;
  TokenCounts tokens;
  const TapVerdict* worst = nullptr;
  std::string worst_path, first_failure;  // the earliest in the order of the run
};

Totals Total(const std::vector<ContractResult>& results, size_t prompt_tokens) {
  Totals total;
  for (const ContractResult& r : results) {
    for (const TapVerdict& v : r.taps) {
      ++total.places;
      total.elements += v.compared;
      if (!v.pass() && ++total.failed_places == 1) total.first_failure = PathOf(r, v.place);
      if (total.worst && !SmallerRatio(*total.worst, v)) continue;
      total.worst = &v;
      total.worst_path = PathOf(r, v.place);
    }
    const TokenCounts counts = CountTokens(r, prompt_tokens);
    total.tokens.same += counts.same;
    total.tokens.ties += counts.ties;
    total.tokens.failed += counts.failed;
  }
  return total;
}

// A line for each contract and tap: its worst place.
std::string TapsToText(const std::vector<ContractResult>& results, bool worst_first) {
  struct Line {
    const ContractResult* result;
    const TapVerdict* worst;
  };
  std::vector<Line> lines;
  for (const ContractResult& r : results) {
    std::vector<const TapVerdict*> worst(Taps().size());
    for (const TapVerdict& v : r.taps) {
      const TapVerdict*& w = worst[static_cast<size_t>(v.place.tap)];
      if (!w || SmallerRatio(*w, v)) w = &v;
    }
    for (const TapVerdict* w : worst)
      if (w) lines.push_back({&r, w});
  }
  if (worst_first) {
    std::stable_sort(lines.begin(), lines.end(),
                     [](const Line& a, const Line& b) { return SmallerRatio(*b.worst, *a.worst); });
  }
  Table table(
      {"verdict", "contract", "kv", "tap", "where", "channel", "error", "allowed", "ratio"});
  for (const auto& [r, v] : lines)
    table.Add({v->pass() ? "pass" : "FAIL", std::string(NameOf(r->contract)),
               std::string(NameOf(r->kv)), std::string(InfoOf(v->place.tap).name), Where(v->place),
               fmt::format("{}", v->channel), fmt::format("{:.2e}", v->error),
               fmt::format("{:.2e}", v->allowed), fmt::format("{:.3f}", v->ratio())});
  return table.ToText();
}

// The last token of the prompt, token 0, and of the others the one with the worst ratio.
std::string LogitsToText(const std::vector<ContractResult>& results, size_t prompt_tokens) {
  Table table(
      {"logits", "kv", "token", "rse", "KL", "baseline rse", "baseline KL", "rse/baseline"});
  for (const ContractResult& r : results) {
    const auto add = [&](const std::string& token, size_t t) {
      const TokenLogits& l = r.logits[t];
      table.Add({std::string(NameOf(r.contract)), std::string(NameOf(r.kv)), token,
                 fmt::format("{:.2e}", l.candidate.rse), fmt::format("{:.2e}", l.candidate.kl),
                 fmt::format("{:.2e}", l.baseline.rse), fmt::format("{:.2e}", l.baseline.kl),
                 fmt::format("{:.3f}", RseRatio(l))});
    };
    const size_t last = prompt_tokens - 1;
    add(fmt::format("t{}, last of the prompt", last), last);
    if (last > 0) add("t0", 0);
    size_t worst = 0;
    for (size_t t = 1; t < r.logits.size(); ++t)
      if (t != last && (worst == 0 || !(RseRatio(r.logits[t]) <= RseRatio(r.logits[worst]))))
        worst = t;
    if (worst > 0) add(fmt::format("t{}, worst of the others", worst), worst);
  }
  return table.ToText();
}

std::string TokensToText(const std::vector<ContractResult>& results, size_t prompt_tokens) {
  Table counts({"tokens", "kv", "positions", "same", "ties", "failed"});
  std::string details;
  for (const ContractResult& r : results) {
    const TokenCounts c = CountTokens(r, prompt_tokens);
    counts.Add({std::string(NameOf(r.contract)), std::string(NameOf(r.kv)),
                fmt::format("{}", c.positions()), fmt::format("{}", c.same),
                fmt::format("{}", c.ties), fmt::format("{}", c.failed)});
    for (size_t t = prompt_tokens - 1; t < r.logits.size(); ++t) {
      const TokenLogits& l = r.logits[t];
      if (l.status() == TokenStatus::same) continue;
      details += fmt::format(
          "{} {} after t{}: token {} instead of {}, margin {:.3g}, twice the baseline's largest "
          "difference {:.3g}\n",
          l.status() == TokenStatus::tie ? "tie " : "FAIL", NameOf(r.contract), t,
          l.candidate.argmax, l.oracle.argmax, l.oracle.margin, 2 * l.baseline.largest);
    }
  }
  return counts.ToText() + details;
}

Json ToJson(const LogitFigures& f) {
  return {{"rse", Number(f.rse)},
          {"kl", Number(f.kl)},
          {"largest", Number(f.largest)},
          {"argmax", f.argmax},
          {"margin", Number(f.margin)}};
}

Json RecordOf(const char* kind, const ContractResult& r) {
  return {{"kind", kind}, {"contract", NameOf(r.contract)}, {"kv", NameOf(r.kv)}};
}

Json RecordOf(const ContractResult& r, const TapVerdict& v) {
  Json record = RecordOf("tap", r);
  record.update({{"tap", InfoOf(v.place.tap).name},
                 {"layer", LayerToJson(v.place.layer)},
                 {"token", v.place.token},
                 {"compared", v.compared},
                 {"channel", v.channel},
                 {"error", Number(v.error)},
                 {"allowed", Number(v.allowed)},
                 {"ratio", Number(v.ratio())},
                 {"verdict", v.pass() ? "pass" : "fail"}});
  return record;
}

Json RecordOf(const ContractResult& r, size_t token, bool judged) {
  constexpr const char* kStatus[] = {"same", "tie", "fail"};
  const TokenLogits& l = r.logits[token];
  Json record = RecordOf("logits", r);
  record.update({{"token", token},
                 {"candidate", ToJson(l.candidate)},
                 {"oracle", ToJson(l.oracle)},
                 {"baseline", ToJson(l.baseline)},
                 {"status", judged ? Json(kStatus[static_cast<size_t>(l.status())]) : Json()}});
  return record;
}

std::vector<int32_t> PromptInContext(const ForwardFlags& f, const Qwen2& model) {
  const std::vector<int32_t> ids = PromptIds(f.prompt, model);
  const size_t longest = model.config.context_length;
  if (ids.size() > longest || f.generate > longest - ids.size())
    Fail("{} prompt tokens and {} to generate do not fit the context of {} tokens of this model",
         ids.size(), f.generate, longest);
  return ids;
}

}  // namespace

void AddForwardFlags(CLI::App& app, ForwardFlags& f) {
  auto* forward =
      app.add_flag("--forward", f.on, "judge a whole pass of a model instead of single rows");
  for (const char* single : {"--op", "--case", "--cases", "--layer", "--repeat", "--fresh",
                             "--mutants", "--candidate", "--shard", "--merge"})
    forward->excludes(app.get_option(single));
  auto* prompt = app.add_option("--prompt", f.prompt.text,
                                "with --forward: text to run (default \"What is 2+2?\")");
  auto* file = app.add_option("--prompt-file", f.prompt.file,
                              "with --forward: text from a file; - is standard input")
                   ->type_name("FILE")
                   ->excludes(prompt);
  auto* tokens =
      app.add_option("--tokens", f.prompt.tokens, "with --forward: token ids instead of text")
          ->excludes(prompt, file);
  auto* generate =
      app.add_option(
             "--generate", f.generate,
             "with --forward: tokens that the oracle appends, greedily; all passes then run\n"
             "prompt and continuation (default 0)")
          ->type_name("N")
          ->check(NotNegative);
  auto* kv =
      app.add_option("--kv", f.kv,
                     "with --forward: type of the KV cache, f32 or f16; default f16 under q8, "
                     "else f32")
          ->type_name("f32|f16");
  for (auto* option : {prompt, file, tokens, generate, kv}) option->needs(forward);
}

int CheckForward(const ForwardFlags& f, const SharedFlags& shared) {
  if (shared.format != Format::text && shared.format != Format::jsonl)
    Fail("--format: --forward prints text or jsonl");
  ComposedOptions options;
  options.threads = shared.threads;
  if (!shared.contract.empty()) options.contracts = {ParseContract(shared.contract, "--contract")};
  if (!f.kv.empty()) options.kv = ParseKv(f.kv, "--kv");
  const Backend backend =
      shared.backend.empty() ? Backend::hwy : ParseBackend(shared.backend, "--backend");
  if (backend == Backend::oracle)
    Fail("--backend oracle: it is what a candidate is judged against; give ref or hwy");
  for (const Contract contract : options.contracts) RowSet(backend, contract);  // before computing

  Qwen2 model = OpenModel(ResolveModel(shared.model));
  if (backend == Backend::hwy) Repack(model, shared.threads);
  const std::vector<int32_t> prompt = PromptInContext(f, model);
  std::vector<ContractResult> results;
  {
    const ProgressLine progress;
    options.progress = [&](std::string_view what) { progress(what); };
    const std::vector<int32_t> ids = ContinueGreedily(model, prompt, f.generate, options);
    results = RunComposed(model, ids, options,
                          CandidatesOf(model, backend, shared.threads, shared.use, prompt.size()));
  }
  PrintOut(shared.format == Format::text
               ? ComposedToText(results, prompt.size(), shared.worst)
               : ComposedToJsonl(results, prompt.size(),
                                 DescribeRun(shared.argc, shared.argv, model.name(), {}, {})));
  return ComposedExitCode(results, prompt.size());
}

std::string ComposedToText(const std::vector<ContractResult>& results, size_t prompt_tokens,
                           bool worst_first) {
  const Totals total = Total(results, prompt_tokens);
  const size_t passed = total.places - total.failed_places;
  std::string text = TapsToText(results, worst_first) + "\n" +
                     LogitsToText(results, prompt_tokens) + "\n" +
                     TokensToText(results, prompt_tokens) + "\n";
  if (total.failed_places > 0) text += fmt::format("first failure: {}\n", total.first_failure);
  return text + fmt::format(
                    "{} taps passed, {} failed; {} elements compared, worst {:.3f} of the allowed "
                    "error ({}); {} argmaxes, {} ties, {} failed\n",
                    passed, total.failed_places, total.elements, total.worst->ratio(),
                    total.worst_path, total.tokens.positions(), total.tokens.ties,
                    total.tokens.failed);
}

std::string ComposedToJsonl(const std::vector<ContractResult>& results, size_t prompt_tokens,
                            const MadeBy& made_by) {
  std::string out;
  const auto add = [&](const Json& record) { out += record.dump() + "\n"; };
  for (const ContractResult& r : results) {
    for (const TapVerdict& v : r.taps) add(RecordOf(r, v));
    for (size_t t = 0; t < r.logits.size(); ++t) add(RecordOf(r, t, t + 1 >= prompt_tokens));
    const TokenCounts c = CountTokens(r, prompt_tokens);
    Json record = RecordOf("tokens", r);
    record.update(
        {{"positions", c.positions()}, {"same", c.same}, {"ties", c.ties}, {"failed", c.failed}});
    add(record);
  }
  const Totals total = Total(results, prompt_tokens);
  add({{"kind", "summary"},
       {"passed", total.places - total.failed_places},
       {"failed", total.failed_places},
       {"compared", total.elements},
       {"worst", Number(total.worst->ratio())},
       {"worst_place", total.worst_path},
       {"first_failure", total.first_failure},
       {"positions", total.tokens.positions()},
       {"ties", total.tokens.ties},
       {"tokens_failed", total.tokens.failed},
       {"made_by", ToJson({made_by})}});
  return out;
}

int ComposedExitCode(const std::vector<ContractResult>& results, size_t prompt_tokens) {
  bool finite = true;
  for (const ContractResult& r : results) {
    if (!r.not_finite) continue;
    finite = false;
    PrintErr(fmt::format("lab: first value that is not finite: {} channel {}\n",
                         PathOf(r, r.not_finite->first), r.not_finite->second));
  }
  const Totals total = Total(results, prompt_tokens);
  const bool pass = total.failed_places + total.tokens.failed == 0 && total.elements > 0;
  return !finite ? kNonFinite : pass ? kPass : kNumericFailure;
}

}  // namespace lab
