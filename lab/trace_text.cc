// The trace for eyes. The layer table has the ten columns of the published `apr trace`, which pools
// all tokens; the std of the last token stands under it, so that a pooled figure carried by one
// token shows itself.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <set>

#include "lab/names.h"
#include "lab/trace.h"

namespace lab {
namespace {

constexpr std::array kColumns = {Tap::attn_norm, Tap::qkv,      Tap::attn_out, Tap::ffn_norm,
                                 Tap::ffn_gate,  Tap::ffn_up,   Tap::ffn_silu, Tap::ffn_swiglu,
                                 Tap::ffn_out,   Tap::layer_out};
constexpr int kLabelWidth = 9;

using Groups = std::map<std::pair<int, Tap>, TapGroup>;

struct Style {
  std::string_view bold, dim, red, reset;
};
constexpr Style kPlain = {"", "", "", ""};
constexpr Style kColour = {"\x1b[1m", "\x1b[2m", "\x1b[31m", "\x1b[0m"};

// At most 9 characters.
std::string Figure(double x) {
  if (std::isnan(x)) return "NaN";
  const double magnitude = std::abs(x);
  if (x == 0 || (magnitude >= 5e-4 && magnitude < 9999)) return fmt::format("{:.4f}", x);
  return fmt::format("{:.2e}", x);
}

std::string TokenName(const TraceHeader& header, size_t token) {
  if (token >= header.token_texts.size()) return fmt::format("token {}", token);
  return fmt::format("token {} '{}'", token, Printable(header.token_texts[token], 16));
}

bool AnyMassive(const TapGroup& group) {
  return std::any_of(group.begin(), group.end(),
                     [](const TapRecord* r) { return r->stats.massive(); });
}

std::string HeaderText(const Trace& trace, const Style& style) {
  const TraceHeader& h = trace.header;
  std::string out =
      fmt::format("{}model{}    {} ({})\n", style.bold, style.reset, h.model, h.architecture);
  if (!h.sha256.empty()) out += fmt::format("{}sha256{}   {}\n", style.bold, style.reset, h.sha256);
  out += fmt::format("{}run{}      backend {}, contract {}, KV {}, {} thread{}\n", style.bold,
                     style.reset, h.backend, h.contract, h.kv_type, h.threads,
                     h.threads == 1 ? "" : "s");
  out += fmt::format("{}tokens{}   {}:", style.bold, style.reset, h.ids.size());
  constexpr size_t kShown = 16;
  for (size_t i = 0; i < std::min(h.ids.size(), kShown); ++i) {
    out += fmt::format(" {}", h.ids[i]);
    if (i < h.token_texts.size()) out += fmt::format("'{}'", Printable(h.token_texts[i], 12));
  }
  return out +
         (h.ids.size() > kShown ? fmt::format(" and {} more\n\n", h.ids.size() - kShown) : "\n\n");
}

template <class Cell>
std::string TableRow(const std::string& label, Cell cell) {
  std::string out = fmt::format("{:<{}}", label, kLabelWidth);
  for (const Tap tap : kColumns) out += cell(tap);
  return out.substr(0, out.find_last_not_of(' ') + 1) + "\n";
}

std::string LayerTable(const Trace& trace, const Groups& groups, const Style& style) {
  const size_t tokens = trace.header.ids.size();
  std::string out =
      tokens > 1
          ? fmt::format(
                "mean and std pooled over all {} tokens; below them the std of the last token.\n"
                "* = a massive activation, listed below: 100 or more, and a quarter of a token's "
                "energy\n",
                tokens)
          : std::string("mean and std of the one token; * = a massive activation, listed below\n");
  out += style.bold;
  out += TableRow("layer", [](Tap tap) { return fmt::format("{:>10} ", InfoOf(tap).name); });
  out += style.reset;
  const auto row = [&](int layer, const std::string& label, auto figure) {
    out += TableRow(label, [&](Tap tap) {
      const auto it = groups.find({layer, tap});
      if (it == groups.end()) return fmt::format("{:>10} ", "-");
      const auto [value, mark] = figure(it->second);
      const std::string_view on = std::isfinite(value) ? mark ? style.bold : "" : style.red;
      return fmt::format("{}{:>10}{}{}", on, Figure(value), mark ? "*" : " ",
                         on.empty() ? "" : style.reset);
    });
  };
  for (size_t l = 0; l < trace.header.layers; ++l) {
    const auto layer = static_cast<int>(l);
    const auto in_layer = [&](Tap tap) { return groups.contains({layer, tap}); };
    if (std::none_of(kColumns.begin(), kColumns.end(), in_layer)) continue;
    row(layer, fmt::format("L{:02} mean", l),
        [](const TapGroup& g) { return std::pair(PoolGroup(g).mean, false); });
    row(layer, "    std",
        [](const TapGroup& g) { return std::pair(PoolGroup(g).std, AnyMassive(g)); });
    if (tokens > 1)
      row(layer, "    last", [](const TapGroup& g) {
        return std::pair(g.back()->stats.std, g.back()->stats.massive());
      });
  }
  return out;
}

// One line for each tap and channel, with the tokens and layers it runs through.
std::string MassiveText(const Trace& trace, const Style& style) {
  struct Run {
    std::set<int> layers;
    std::set<size_t> tokens;
    const TapRecord* largest = nullptr;
  };
  std::map<std::pair<Tap, uint64_t>, Run> runs;
  for (const TapRecord& r : trace.taps) {
    if (!r.stats.massive() || std::find(kColumns.begin(), kColumns.end(), r.tap) == kColumns.end())
      continue;
    Run& run = runs[{r.tap, r.stats.argmax}];
    run.layers.insert(r.layer);
    run.tokens.insert(r.token);
    if (!run.largest || r.stats.absmax > run.largest->stats.absmax) run.largest = &r;
  }
  if (runs.empty()) return "";
  std::vector<const Run*> order;
  for (const auto& [key, run] : runs) order.push_back(&run);
  std::stable_sort(order.begin(), order.end(), [](const Run* a, const Run* b) {
    return a->largest->stats.absmax > b->largest->stats.absmax;
  });

  const size_t all = trace.header.ids.size();
  constexpr size_t kShown = 12;
  std::string out =
      fmt::format("\n{}massive activations{}, largest first\n", style.bold, style.reset);
  for (size_t i = 0; i < std::min(order.size(), kShown); ++i) {
    const Run& run = *order[i];
    const TapRecord& r = *run.largest;
    const double value = r.stats.max == r.stats.absmax ? r.stats.max : r.stats.min;
    const std::string layers = run.layers.size() == 1
                                   ? fmt::format("L{:02} alone", r.layer)
                                   : fmt::format("{} layers, L{:02} to L{:02}", run.layers.size(),
                                                 *run.layers.begin(), *run.layers.rbegin());
    const std::string tokens = run.tokens.size() == 1 ? "that token alone"
                               : run.tokens.size() == all
                                   ? fmt::format("all {} tokens", all)
                                   : fmt::format("{} of {} tokens", run.tokens.size(), all);
    out +=
        fmt::format("  {:<10}  channel {:<5} {:>9.2f} at L{:02} {:<20} {:>3.0f}x its rms; {}; {}\n",
                    InfoOf(r.tap).name, r.stats.argmax, value, r.layer,
                    TokenName(trace.header, r.token), r.stats.crest, layers, tokens);
  }
  if (order.size() > kShown) out += fmt::format("  and {} more\n", order.size() - kShown);
  return out;
}

std::string ModelTaps(const Groups& groups, const Style& style) {
  std::string out;
  for (const Tap tap : {Tap::embedding, Tap::final_norm, Tap::lm_head}) {
    const auto it = groups.find({kNoLayer, tap});
    if (it == groups.end()) continue;
    const Stats last = it->second.back()->stats, pooled = PoolGroup(it->second);
    const auto line = [&](const char* what, const Stats& s) {
      out += fmt::format("  {:<11} {:<12} L2 {:>10}  range [{}, {}]  mean {:>8}  std {:>8}\n",
                         InfoOf(tap).name, what, Figure(s.l2), Figure(s.min), Figure(s.max),
                         Figure(s.mean), Figure(s.std));
    };
    if (it->second.size() > 1) line("pooled", pooled);
    line(it->second.size() > 1 ? "last token" : "", last);
  }
  return out.empty() ? out
                     : fmt::format("\n{}outside the layers{}\n{}", style.bold, style.reset, out);
}

std::string TopText(const Trace& trace, const Style& style) {
  if (trace.tops.empty()) return "";
  const TopRecord& top = trace.tops.back();
  std::string out = fmt::format("\n{}top {} after {}{}\n", style.bold, top.ids.size(),
                                TokenName(trace.header, top.token), style.reset);
  for (size_t i = 0; i < top.ids.size(); ++i)
    out += fmt::format(
        "  {}. {:>7}  logit {:>9}  p {:>7.4f}  {}\n", i + 1, top.ids[i], Figure(top.logits[i]),
        top.p[i], i < top.texts.size() ? fmt::format("'{}'", Printable(top.texts[i], 40)) : "");
  return out;
}

}  // namespace

std::string TraceToText(const Trace& trace, bool colour) {
  const Style& style = colour ? kColour : kPlain;
  const Groups groups = GroupTaps(trace);
  std::string out = HeaderText(trace, style);
  if (!trace.taps.empty()) out += LayerTable(trace, groups, style);
  return out + MassiveText(trace, style) + ModelTaps(groups, style) + TopText(trace, style);
}

}  // namespace lab
