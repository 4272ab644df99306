#include "lab/weight_diff.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "lab/error.h"
#include "lab/names.h"
#include "lab/output.h"
#include "lab/weight_match.h"
#include "model/apr.h"

namespace lab {
namespace {

using Json = nlohmann::ordered_json;

std::string ShapeText(const WeightTensor* t) {
  if (!t) return "-";
  std::vector<uint64_t> dims(t->dims.begin(), t->dims.begin() + t->n_dims);
  std::reverse(dims.begin(), dims.end());
  return fmt::format("{}", fmt::join(dims, "x"));
}

std::string BothShapes(const TensorMatch& m) {
  const std::string a = ShapeText(m.a), b = ShapeText(m.b);
  if (a == b || !m.b) return a;
  return m.a ? fmt::format("{}, {}", a, b) : b;
}

std::string BytesText(const TensorMatch& m) {
  if (!m.a || !m.b) return "-";
  if (m.identical) return "identical";
  return m.bytes ? fmt::format("{} differ", m.bytes->differing) : "other type";
}

float ValueAt(const WeightTensor& t, uint64_t i) {
  float value;
  DequantFlat(t, i, 1, &value);
  return value;
}

std::string PlaceText(const TensorMatch& m) {
  const uint64_t at = m.values->at, cols = m.a->dims[0];
  return fmt::format("[{}, {}]", at / cols, at % cols);
}

std::string LargestText(const TensorMatch& m) {
  return fmt::format("{} {:.6g} in A, {:.6g} in B", PlaceText(m), ValueAt(*m.a, m.values->at),
                     ValueAt(*m.b, m.values->at));
}

std::string DamageText(const TensorMatch& m) {
  const uint64_t at = m.bytes->first;
  return fmt::format(
      "{} of {} bytes {}, {}at {}: {:#04x} in A (file offset {}), {:#04x} in B (file offset {}); "
      "largest change: {}",
      m.bytes->differing, m.a->bytes, m.bytes->differing == 1 ? "differs" : "differ",
      m.bytes->differing == 1 ? "" : "the first ", DescribeByte(*m.a, at), m.a->data[at],
      m.a->offset + at, m.b->data[at], m.b->offset + at, LargestText(m));
}

// "" when there is nothing to say beyond the figures.
std::string FindingText(const TensorMatch& m) {
  const auto left = [&] { return fmt::format("cosine {:.9g} then", m.explained->Cosine()); };
  switch (m.finding) {
    case Finding::none:
      return "";
    case Finding::only_in_a:
      return "missing in B";
    case Finding::only_in_b:
      return "missing in A";
    case Finding::shape:
      return fmt::format("another shape: {} in A, {} in B", ShapeText(m.a), ShapeText(m.b));
    case Finding::dims:
      return fmt::format("dimensions exchanged ({} in A, {} in B), data in the same order",
                         ShapeText(m.a), ShapeText(m.b));
    case Finding::transposed:
      return fmt::format("transposed in B: {}", left());
    case Finding::another:
      return m.exchanged ? fmt::format("exchanged with {}: {}", Printable(m.other), left())
                         : fmt::format("B holds what A has in {}: {}", Printable(m.other), left());
    case Finding::undecodable:
      return fmt::format("lab cannot decode {} against {}", m.a->type, m.b->type);
    case Finding::few_bytes:
      return DamageText(m);
  }
  return "";
}

std::string_view FindingName(Finding finding) {
  switch (finding) {
    case Finding::none:
      return "none";
    case Finding::only_in_a:
      return "only_in_a";
    case Finding::only_in_b:
      return "only_in_b";
    case Finding::shape:
      return "shape";
    case Finding::dims:
      return "dims_exchanged";
    case Finding::transposed:
      return "transposed";
    case Finding::another:
      return "another_tensor";
    case Finding::undecodable:
      return "undecodable";
    case Finding::few_bytes:
      return "few_bytes";
  }
  return "none";
}

struct Summary {
  size_t matched = 0, identical = 0, wrong = 0, below = 0;
  const TensorMatch* lowest = nullptr;
};

Summary Summarise(const std::vector<TensorMatch>& matches, std::optional<double> min_cos) {
  Summary s;
  for (const TensorMatch& m : matches) {
    s.wrong += m.IsWrong();
    if (!m.a || !m.b) continue;
    ++s.matched;
    s.identical += m.identical;
    s.below += min_cos && !(m.Cosine() >= *min_cos);
    if (!s.lowest || !(m.Cosine() >= s.lowest->Cosine())) s.lowest = &m;
  }
  return s;
}

Table MakeTable(const std::vector<TensorMatch>& matches) {
  Table table({"tensor", "shape", "A", "B", "bytes", "cosine", "max abs", "rms", "largest at"});
  for (const TensorMatch& m : matches) {
    std::vector<std::string> row = {Printable(m.name), BothShapes(m), m.a ? m.a->type : "-",
                                    m.b ? m.b->type : "-", BytesText(m)};
    if (m.identical)
      row.insert(row.end(), {"1", "0", "0", "-"});
    else if (m.values)
      row.insert(row.end(),
                 {fmt::format("{:.9f}", m.Cosine()), fmt::format("{:.3e}", m.values->max_abs),
                  fmt::format("{:.3e}", m.values->Rms()), PlaceText(m)});
    else
      row.insert(row.end(), 4, "-");
    table.Add(std::move(row));
  }
  return table;
}

std::string FileText(char name, const WeightFile& file) {
  return fmt::format("{}  {} ({}, {} tensors){}\n", name, file.file().name(), file.format(),
                     file.tensors().size(),
                     CheckAprFooter(file) == AprFooter::wrong
                         ? "; its checksum is WRONG: bytes have changed since it was written"
                         : "");
}

std::string ToText(const WeightFile& a, const WeightFile& b,
                   const std::vector<TensorMatch>& matches, const Summary& s,
                   const WeightDiffOptions& o) {
  std::string out = FileText('A', a) + FileText('B', b) + "\n" + MakeTable(matches).ToText() + "\n";
  for (const TensorMatch& m : matches)
    if (const std::string finding = FindingText(m); !finding.empty())
      out += fmt::format("{}: {}\n", Printable(m.name), finding);
  out += fmt::format("{} of {} tensors identical", s.identical, matches.size());
  if (s.lowest && !s.lowest->identical)
    out +=
        fmt::format("; lowest cosine {:.9f} ({})", s.lowest->Cosine(), Printable(s.lowest->name));
  if (s.wrong > 0) out += fmt::format("; {} wrong", s.wrong);
  if (o.min_cos) out += fmt::format("; {} below --min-cos {}", s.below, *o.min_cos);
  return out + "\n";
}

Json Figure(double x) {
  if (std::isnan(x)) return "NaN";
  if (std::isinf(x)) return x > 0 ? "Infinity" : "-Infinity";
  return x;
}

Json ShapeJson(const WeightTensor& t) {
  Json shape = Json::array();
  for (uint32_t d = t.n_dims; d-- > 0;) shape.push_back(t.dims[d]);
  return shape;
}

Json ToJson(const TensorMatch& m) {
  Json json = {{"kind", "tensor"}, {"tensor", m.name}};
  for (const auto& [key, t] : {std::pair{"a", m.a}, {"b", m.b}})
    json[key] =
        t ? Json{{"name", t->spelling}, {"type", t->type}, {"shape", ShapeJson(*t)}} : Json();
  json["identical"] = m.identical;
  if (m.bytes) json["bytes_differing"] = m.bytes->differing;
  json["cosine"] = m.identical || m.values ? Figure(m.Cosine()) : Json();
  if (m.values) {
    json["max_abs"] = Figure(m.values->max_abs);
    json["rms"] = Figure(m.values->Rms());
    json["row"] = m.values->at / m.a->dims[0];
    json["column"] = m.values->at % m.a->dims[0];
    json["value_a"] = Figure(ValueAt(*m.a, m.values->at));
    json["value_b"] = Figure(ValueAt(*m.b, m.values->at));
  }
  json["finding"] = FindingName(m.finding);
  if (m.finding == Finding::another) json["other"] = m.other, json["exchanged"] = m.exchanged;
  if (m.explained) json["explained_cosine"] = Figure(m.explained->Cosine());
  if (m.finding == Finding::few_bytes) {
    json["first_byte"] = m.bytes->first;
    json["byte_a"] = m.a->data[m.bytes->first];
    json["byte_b"] = m.b->data[m.bytes->first];
  }
  json["text"] = FindingText(m);
  return json;
}

std::string ToJsonl(const WeightFile& a, const WeightFile& b,
                    const std::vector<TensorMatch>& matches, const Summary& s) {
  const auto line = [](const Json& json) {
    return json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
  };
  std::string out = line({{"kind", "files"},
                          {"a", a.file().name()},
                          {"b", b.file().name()},
                          {"format_a", a.format()},
                          {"format_b", b.format()}});
  for (const TensorMatch& m : matches) out += line(ToJson(m));
  return out + line({{"kind", "summary"},
                     {"tensors", matches.size()},
                     {"matched", s.matched},
                     {"identical", s.identical},
                     {"wrong", s.wrong},
                     {"below_min_cos", s.below},
                     {"lowest_cosine", s.lowest ? Figure(s.lowest->Cosine()) : Json()}});
}

}  // namespace

int DiffWeights(const WeightDiffOptions& o) {
  const WeightFile a = ReadWeightFile(OpenModelBytes(o.a));
  const WeightFile b = ReadWeightFile(OpenModelBytes(o.b));
  const std::vector<TensorMatch> matches = MatchWeights(a, b, o.threads);
  const Summary summary = Summarise(matches, o.min_cos);
  switch (o.format) {
    case Format::text:
      PrintOut(ToText(a, b, matches, summary, o));
      break;
    case Format::jsonl:
      PrintOut(ToJsonl(a, b, matches, summary));
      break;
    case Format::csv:
    case Format::md:
      PrintOut(MakeTable(matches).To(o.format));
      break;
  }
  if (summary.matched == 0)
    throw Error(kNotComparable, fmt::format("{} and {} have no tensor in common", o.a, o.b));
  return summary.wrong > 0 || summary.below > 0 ? kNumericFailure : kPass;
}

}  // namespace lab
