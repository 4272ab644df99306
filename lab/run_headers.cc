#include "lab/run_headers.h"

#include <algorithm>

#include "lab/error.h"
#include "lab/facts.h"
#include "lab/names.h"
#include "lab/run_readers.h"

namespace lab {
namespace {

template <class T>
std::string Text(const std::optional<T>& value) {
  return value ? fmt::format("{}", *value) : "unknown";
}

std::string IdsText(const std::optional<std::vector<int32_t>>& ids) {
  if (!ids) return "unknown";
  const auto shown = std::span(*ids).first(std::min<size_t>(ids->size(), 8));
  return fmt::format("{}: {}{}", ids->size(), fmt::join(shown, " "),
                     ids->size() > shown.size() ? " ..." : "");
}

std::string StepsText(const RunHeader& h) {
  if (!h.steps) return "unknown";
  size_t prefill = 0, decode = 0;
  for (const TraceStep& s : *h.steps) (s.prefill ? prefill : decode) += s.tokens;
  return fmt::format("prefill {}, decode {}", prefill, decode);
}

// Of the first `tokens` tokens, whether each was prefilled; steps do not overlap.
std::vector<std::optional<bool>> Prefilled(const RunHeader& h, size_t tokens) {
  std::vector<std::optional<bool>> prefilled(tokens);
  for (const TraceStep& s : *h.steps)
    for (size_t t = s.first_token; t < std::min(tokens, s.first_token + s.tokens); ++t)
      prefilled[t] = s.prefill;
  return prefilled;
}

template <class T>
Agreement Agree(const std::optional<T>& a, const std::optional<T>& b) {
  if (!a || !b) return Agreement::unknown;
  return *a == *b ? Agreement::same : Agreement::different;
}

class HeaderComparer {
 public:
  HeaderComparer(const RunRecord& a, const RunRecord& b, const Transforms& how)
      : a_(a), b_(b), how_(how) {}

  HeaderComparison Run() {
    if (const auto& x = a_.header.ids, &y = b_.header.ids; x && y)
      c_.common_tokens = static_cast<size_t>(
          std::mismatch(x->begin(), x->end(), y->begin(), y->end()).first - x->begin());
    Model();
    Tokens();
    Phases();
    Definitions();
    Only();
    return std::move(c_);
  }

 private:
  template <class... A>
  void Refuse(fmt::format_string<A...> reason, A&&... args) {
    c_.reasons.push_back(fmt::format(reason, std::forward<A>(args)...));
  }
  template <class... A>
  void Remark(fmt::format_string<A...> remark, A&&... args) {
    c_.remarks.push_back(fmt::format(remark, std::forward<A>(args)...));
  }
  template <class T>
  Agreement Field(std::string_view name, const std::optional<T> RunHeader::*member) {
    const auto &a = a_.header.*member, &b = b_.header.*member;
    c_.fields.push_back({name, Text(a), Text(b), Agree(a, b)});
    return c_.fields.back().agreement;
  }

  // Equal rows of the embedding prove equal tokens and one table of embeddings.
  Agreement Embeddings(size_t* first_different) const {
    Agreement all = Agreement::unknown;
    for (const auto& [place, record] : a_.tokens) {
      if (place.tap != Tap::embedding || place.token >= c_.common_tokens) break;
      const auto other = b_.tokens.find(place);
      if (other == b_.tokens.end()) continue;
      const Distance d = DistanceOf(FactsOf(record, a_.header.std_kind),
                                    FactsOf(other->second, b_.header.std_kind));
      if (d.evidence == Evidence::nothing) continue;
      if (!d.same) {
        *first_different = place.token;
        return Agreement::different;
      }
      all = Agreement::same;
    }
    return all;
  }

  void Model() {
    Field("model", &RunHeader::model);
    c_.fields.back().agreement = Agreement::unknown;  // names prove nothing
    size_t token = 0;
    embeddings_ = Embeddings(&token);
    const Agreement hash = Field("sha256", &RunHeader::sha256);
    if (hash == Agreement::different && embeddings_ != Agreement::same)
      Refuse("different model files: sha256 {:.8}... and {:.8}...", *a_.header.sha256,
             *b_.header.sha256);
    if (hash == Agreement::different && embeddings_ == Agreement::same)
      Remark("different model files, but equal embedding rows: taken for one model in two files");
    if (Field("architecture", &RunHeader::architecture) == Agreement::different)
      Refuse("different architectures: {} and {}", *a_.header.architecture,
             *b_.header.architecture);
    if (Field("layers", &RunHeader::layers) == Agreement::different)
      Refuse("different models: {} and {} layers", *a_.header.layers, *b_.header.layers);
    // Where both files name the same tokens, a wrong row is the embedding's fault: a result.
    if (embeddings_ == Agreement::different && hash != Agreement::different &&
        !(a_.header.ids && b_.header.ids))
      Refuse("the embedding rows of token {} differ: other tokens, or another model", token);
  }

  void Tokens() {
    const auto &a = a_.header.ids, &b = b_.header.ids;
    Agreement agreement = Agree(a, b);
    if (agreement == Agreement::unknown && embeddings_ == Agreement::same) {
      agreement = Agreement::same;
      Remark("a file does not name its tokens; equal embedding rows prove that they are the same");
    }
    c_.fields.push_back({"tokens", IdsText(a), IdsText(b), agreement});
    if (!a || !b) return;
    const size_t common = c_.common_tokens;
    if (common == a->size() || common == b->size()) return;  // equal, or one run went on
    if (common == 0 || how_.only.empty() || how_.only == "all" || how_.only == "last")
      Refuse("different tokens: position {} is {} and {}{}", common, (*a)[common], (*b)[common],
             common ? "; --only N compares one position before it" : "");
  }

  void Phases() {
    c_.fields.push_back({"phase", StepsText(a_.header), StepsText(b_.header), Agreement::unknown});
    if (!a_.header.steps || !b_.header.steps) return;
    const size_t tokens = std::min(a_.header.ids ? a_.header.ids->size() : 0,
                                   b_.header.ids ? b_.header.ids->size() : 0);
    const auto a = Prefilled(a_.header, tokens), b = Prefilled(b_.header, tokens);
    for (size_t t = 0; t < tokens; ++t)
      if (Agree(a[t], b[t]) == Agreement::different) c_.excluded.insert(t);
    if (tokens > 0)
      c_.fields.back().agreement = c_.excluded.empty() ? Agreement::same : Agreement::different;
    if (how_.across_phases) c_.excluded.clear();
    if (c_.excluded.empty()) return;
    if (c_.excluded.size() == tokens)
      Refuse("one run prefilled its tokens, the other decoded them; --across-phases compares them");
    else
      Remark(
          "{} tokens were prefilled in one run and decoded in the other; left out "
          "(--across-phases)",
          c_.excluded.size());
  }

  void Definitions() {
    const auto &a = a_.header.std_kind, &b = b_.header.std_kind;
    const auto name = [](const auto& kind) {
      return kind ? std::string(NameOf(*kind)) : std::string("unknown");
    };
    c_.fields.push_back({"std", name(a), name(b), Agree(a, b)});
    if (Agree(a, b) == Agreement::different && !how_.convert_std)
      Refuse("std of the {} in A, of the {} in B; --convert-std converts it", NameOf(*a),
             NameOf(*b));
    Field("contract", &RunHeader::contract);
    Field("KV", &RunHeader::kv);
    Field("backend", &RunHeader::backend);
  }

  void Only() {
    if (how_.only.empty() || how_.only == "all") return;
    size_t token = 0;
    if (how_.only == "last") {
      const auto last = LastToken(a_), last_b = LastToken(b_);
      if (!last || last != last_b) {
        Refuse("--only last: the last tokens are at positions {} and {}", Text(last), Text(last_b));
        return;
      }
      token = *last;
    } else {
      const auto position = ParseCount(how_.only);
      if (!position) Fail("--only: '{}' is neither all, last nor a position", Printable(how_.only));
      token = *position;
    }
    if (token >= c_.common_tokens)
      Refuse("--only {}: the runs share {} tokens", how_.only, c_.common_tokens);
    c_.only = token;
  }

  const RunRecord &a_, &b_;
  const Transforms& how_;
  HeaderComparison c_;
  Agreement embeddings_ = Agreement::unknown;
};

}  // namespace

std::string_view NameOf(Agreement agreement) {
  return agreement == Agreement::same        ? "same"
         : agreement == Agreement::different ? "different"
                                             : "unknown";
}

std::optional<size_t> LastToken(const RunRecord& run) {
  if (run.header.ids && !run.header.ids->empty()) return run.header.ids->size() - 1;
  std::optional<size_t> last;
  for (const auto& [place, record] : run.tokens) last = std::max(last.value_or(0), place.token);
  return last;
}

HeaderComparison CompareHeaders(const RunRecord& a, const RunRecord& b, const Transforms& how) {
  return HeaderComparer(a, b, how).Run();
}

}  // namespace lab
