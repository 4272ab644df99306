#include "lab/export.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <filesystem>

#include "lab/error.h"
#include "lab/expect.h"
#include "lab/names.h"
#include "lab/output.h"
#include "reference/dequant_ref.h"

namespace lab {
namespace {

std::string_view FormulaOf(Op op) {
  switch (op) {
    case Op::q4k_dequant:
    case Op::q6k_dequant:
      return "y[r, c] = weight c of row r, dequantised; bit for bit the `gguf` Python package";
    case Op::embed:
      return "y[t] = dequantised row ids[t] of w, bit for bit";
    case Op::rms_norm:
      return "y[t, i] = x[t, i] / sqrt(mean_j x[t, j]^2 + eps) * vector[i]";
    case Op::quantize:
      return "per block of n: amax = max |x|, r = L / amax, q = rint(x r), scale = amax / L, all "
             "in "
             "float32; L = 127 (q8) or 32512 (q16); sums[t, s] = sum of q over 16 neighbours";
    case Op::matvec:
    case Op::down_proj:
      return "y[t, r] = sum_c w[r, c] x[t, c] + vector[r] (the bias, where there is one); "
             "y_before_bias is optional";
    case Op::gate_up:
      return "gate[t, r] = sum_c w[r, c] x[t, c]; up[t, r] = sum_c w_up[r, c] x[t, c]";
    case Op::gate_up_swiglu:
      return "gate[t, r] = sum_c w[r, c] x[t, c]; up[t, r] = sum_c w_up[r, c] x[t, c]; silu = gate "
             "/ (1 + exp(-gate)); y = silu * up";
    case Op::rope:
      return "a = x[t, h, i], b = x[t, h, i + head_dim/2], angle = (first_position + t) * "
             "rope_base^(-2i/head_dim): y[i] = a cos - b sin, y[i + head_dim/2] = b cos + a sin";
    case Op::gqa_attention:
      return "y[t, h] = softmax_j(x[t, h] . k[j, kv] / sqrt(head_dim)) v[j, kv] over positions j "
             "<= "
             "first_position + t, kv = h / (heads / kv_heads); x are the queries";
    case Op::residual_add:
      return "y[t, i] = x[t, i] + x2[t, i]";
    case Op::silu:
      return "y[t, i] = x[t, i] / (1 + exp(-x[t, i]))";
    case Op::swiglu:
      return "y[t, i] = x[t, i] * x2[t, i]; x is silu(gate), x2 is up";
  }
  return "";
}

// A .npy file of version 1.0 (NEP 1): magic, header padded to 64 bytes, the values in C order.
void WriteNpy(const std::string& path, std::string_view type, const std::vector<size_t>& shape,
              std::string_view bytes) {
  std::string header = fmt::format("{{'descr': '{}', 'fortran_order': False, 'shape': ({},), }}",
                                   type, fmt::join(shape, ", "));
  constexpr size_t kPrefix = 10;
  header.resize((kPrefix + header.size() + 1 + 63) / 64 * 64 - kPrefix, ' ');
  header.back() = '\n';
  OutputFile out(path);
  out.Write({"\x93NUMPY\x01\x00", 8});
  out.Write(
      std::string{static_cast<char>(header.size() & 255), static_cast<char>(header.size() >> 8)});
  out.Write(header);
  out.Write(bytes);
  out.Commit();
}

template <class T>
std::string_view BytesOf(const std::vector<T>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}

class Exporter {
 public:
  Exporter(const Case& c, std::string folder) : c_(c), folder_(std::move(folder)) {}

  void Write() {
    const size_t tokens = c_.tokens, head = c_.head_dim;
    const size_t positions = c_.first_position + tokens;
    Floats("x", c_.x, {tokens, c_.n()}, c_.input_tap);
    Floats("x2", c_.x2, {tokens, c_.n()}, "the second operand");
    Floats("k", c_.k, {positions, c_.kv_heads, head}, "keys after RoPE, all positions");
    Floats("v", c_.v, {positions, c_.kv_heads, head}, "values, all positions");
    Floats("vector", c_.vector, {c_.vector.size()},
           c_.op == Op::rms_norm ? "the weight of the norm" : "the bias");
    if (!c_.ids.empty()) {
      WriteNpy(folder_ + "ids.npy", "<i4", {c_.ids.size()}, BytesOf(c_.ids));
      Row("ids.npy", "int32", fmt::format("[{}]", c_.ids.size()), "rows of w to look up");
    }
    Weights("w", c_.w);
    Weights("w_up", c_.w_up);
    OutputFile readme(folder_ + "README.md");
    readme.Write(Readme());
    readme.Commit();
  }

 private:
  void Row(const std::string& file, std::string_view type, const std::string& shape,
           std::string_view what) {
    rows_ += fmt::format("| `{}` | {} | {} | {} |\n", file, type, shape, what);
  }
  void Floats(const char* name, const std::vector<float>& values, const std::vector<size_t>& shape,
              std::string_view what) {
    if (values.empty()) return;
    WriteNpy(fmt::format("{}{}.npy", folder_, name), "<f4", shape, BytesOf(values));
    Row(fmt::format("{}.npy", name), "float32", fmt::format("[{}]", fmt::join(shape, ", ")), what);
  }
  void Weights(const std::string& name, const WeightView& w) {
    if (!w.data) return;
    OutputFile raw(folder_ + name + ".bin");
    raw.Write({reinterpret_cast<const char*>(w.data), w.bytes()});
    raw.Commit();
    Row(name + ".bin", InfoOf(w.type).name,
        fmt::format("{} rows of {} bytes", w.rows, w.row_bytes()),
        "the blocks as in the GGUF file");
    std::vector<float> values(w.rows * w.cols);
    for (size_t r = 0; r < w.rows; ++r)
      DequantRow(w.type, w.row(r), w.cols, values.data() + r * w.cols);
    WriteNpy(folder_ + name + ".npy", "<f4", {w.rows, w.cols}, BytesOf(values));
    Row(name + ".npy", "float32", fmt::format("[{}, {}]", w.rows, w.cols), "the same, dequantised");
  }

  std::string Readme() const {
    std::string parameters;
    for (const auto& [name, value] : {std::pair("tokens", c_.tokens),
                                      {"first_position", c_.first_position},
                                      {"heads", c_.heads},
                                      {"kv_heads", c_.kv_heads},
                                      {"head_dim", c_.head_dim}})
      if (value) parameters += fmt::format("- {} = {}\n", name, value);
    if (c_.eps != 0) parameters += fmt::format("- eps = {:.9g}\n", c_.eps);
    if (c_.rope_base != 0) parameters += fmt::format("- rope_base = {:.9g}\n", c_.rope_base);
    const Contract contract =
        FindRow(c_.op, Contract::f32, Backend::oracle) ? Contract::f32 : Contract::q8;
    std::string outputs;
    for (const Expected& e : ExpectedOf(c_, contract, false))
      outputs += fmt::format("- `{}` [{}, {}]\n", e.name, e.tokens, e.n);
    return fmt::format(
        "# Case {}, op {}\n\n{}\n\n{}\n| file | type | shape | what |\n|---|---|---|---|\n{}\n"
        "## To have your output judged\n\nWrite a safetensors file with these tensors, float32 "
        "or float64:\n\n{}\nthen run\n\n    lab check --case {} --candidate out.safetensors\n\n"
        "It is compared with the float64 oracle of every contract in turn (f32: activations in "
        "float; q16 and q8: rounded\nto 16 or 8 bits per block); `--contract` names one.\n",
        c_.name, NameOf(c_.op), FormulaOf(c_.op), parameters, rows_, outputs, c_.name);
  }

  const Case& c_;
  std::string folder_, rows_;
};

void MakeFolder(const std::string& path) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (error) Fail("{}: cannot make this folder: {}", path, error.message());
}

}  // namespace

void CheckExportFolder(const std::string& folder) {
  MakeFolder(folder);
  const OutputFile probe(folder + "/README.md");
}

void ExportCase(const Case& c, const std::string& folder) {
  if (c.name.find('/') != std::string::npos || c.name[0] == '.')
    Fail("case '{}': such a name is no name of a folder", Printable(c.name));
  const std::string path = fmt::format("{}/{}/", folder, c.name);
  MakeFolder(path);
  Exporter(c, path).Write();
}

}  // namespace lab
