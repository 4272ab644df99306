#include "model/qwen2.h"

#include <sys/stat.h>

#include <cmath>
#include <cstdlib>
#include <unordered_set>

#include "lab/cache_dir.h"
#include "lab/error.h"
#include "lab/names.h"
#include "reference/dequant_ref.h"

namespace lab {
namespace {

// Looks tensors up and writes down what is wrong instead of stopping at the first thing.
class Loader {
 public:
  explicit Loader(const WeightFile& file) : file_(file) {}

  template <class... A>
  void Problem(fmt::format_string<A...> format, A&&... args) {
    if (++count_ <= kShown) shown_.push_back(fmt::format(format, std::forward<A>(args)...));
  }

  size_t Size(std::string_view key, size_t largest) {
    const auto value = file_.Unsigned(key);
    if (!value) Problem("key '{}' is missing", file_.KeySpelling(key));
    if (value && (*value == 0 || *value > largest))
      Problem("key '{}' is {}; 1 to {} are possible", file_.KeySpelling(key), *value, largest);
    return value && *value <= largest ? *value : 0;
  }

  float Positive(std::string_view key, double fallback) {
    const double value = file_.Number(key).value_or(fallback);
    const auto rounded = static_cast<float>(value);
    if (!(rounded > 0) || !std::isfinite(rounded))
      Problem("key '{}' is {}, not a positive float", file_.KeySpelling(key), value);
    return rounded;
  }

  bool Has(const std::string& name) const { return file_.FindTensor(name) != nullptr; }

  WeightView Matrix(const std::string& name, size_t rows, size_t cols) {
    used_.insert(name);
    const WeightTensor* t = file_.FindTensor(name);
    const std::string spelling = file_.TensorSpelling(name);
    if (!t) {
      Problem("tensor '{}' is missing", spelling);
      return {};
    }
    if (t->packing != Packing::blocks) {
      Problem("tensor '{}' has {}, which lab cannot compute with", spelling, t->type);
      return {};
    }
    if (t->dims[0] != cols || t->dims[1] != rows || t->dims[2] != 1 || t->dims[3] != 1) {
      Problem("tensor '{}' is {} x {}, but {} rows of {} are needed", spelling,
              t->dims[1] * t->dims[2] * t->dims[3], t->dims[0], rows, cols);
      return {};
    }
    return {t->block->type, t->data, rows, cols};
  }

  std::vector<float> Vector(const std::string& name, size_t n) {
    const WeightView row = Matrix(name, 1, n);
    if (!row.data) return {};
    std::vector<float> values(n);
    DequantRow(row.type, row.data, n, values.data());
    return values;
  }

  // A tensor that nobody asked for would be left out of the computation in silence.
  void ReportUnused() {
    for (const WeightTensor& t : file_.tensors())
      if (!used_.contains(t.name))
        Problem("tensor '{}' has no place in a qwen2 forward pass", Printable(t.spelling));
  }

  void ThrowIfProblems() const {
    if (count_ == 0) return;
    if (count_ == 1) Fail("{}: {}", file_.file().name(), shown_[0]);
    std::string text = fmt::format("{}: {} problems", file_.file().name(), count_);
    for (const std::string& problem : shown_) text += "\n  " + problem;
    if (count_ > kShown) text += fmt::format("\n  and {} more", count_ - kShown);
    throw Error(kUsage, text);
  }

 private:
  const WeightFile& file_;
  static constexpr size_t kShown = 20;
  size_t count_ = 0;
  std::vector<std::string> shown_;
  std::unordered_set<std::string> used_;
};

// What a qwen2 file of some format may say and lab does not compute.
void CheckVariants(const WeightFile& file, Loader& load) {
  if (const auto scaling = file.String("qwen2.rope.scaling.type");
      scaling && *scaling != "none" && *scaling != "default")
    load.Problem("RoPE scaling '{}' is not supported", Printable(*scaling));
  // 2: halves rotated; 0: adjacent pairs.
  if (const auto rope = file.Unsigned("qwen2.rope.type"); rope && *rope != 2)
    load.Problem("key '{}' is {}; qwen2 rotates halves, which is 2",
                 file.KeySpelling("qwen2.rope.type"), *rope);
  if (file.Bool("qwen2.attention.use_sliding_window").value_or(false))
    load.Problem("sliding-window attention is not supported");
  if (const auto act = file.String("qwen2.hidden_act"); act && *act != "silu")
    load.Problem("the activation '{}' is not supported; qwen2 has silu", Printable(*act));
  const bool tied = file.Bool("qwen2.tied_output").value_or(true);
  if (!tied && !load.Has("output.weight"))
    load.Problem("tensor '{}' is missing, and '{}' is false", file.TensorSpelling("output.weight"),
                 file.KeySpelling("qwen2.tied_output"));
}

Qwen2Config ReadConfig(const WeightFile& file, Loader& load) {
  constexpr size_t kLargest = 1 << 24;  // far above any model; keeps products inside 64 bits
  Qwen2Config c = {};
  // Each layer has at least one tensor of its own, so a damaged count cannot start a long loop.
  c.layers = load.Size("qwen2.block_count", std::max<size_t>(file.tensors().size(), 1));
  c.context_length = load.Size("qwen2.context_length", kLargest);
  c.hidden = load.Size("qwen2.embedding_length", kLargest);
  c.ffn = load.Size("qwen2.feed_forward_length", kLargest);
  c.heads = load.Size("qwen2.attention.head_count", kLargest);
  c.kv_heads = load.Size("qwen2.attention.head_count_kv", kLargest);
  if (c.heads && c.kv_heads && c.heads % c.kv_heads != 0)
    load.Problem("{} heads cannot share {} KV heads evenly", c.heads, c.kv_heads);
  const auto key_length = file.Unsigned("qwen2.attention.key_length");
  c.head_dim = key_length ? load.Size("qwen2.attention.key_length", kLargest)
                          : c.hidden / std::max<size_t>(c.heads, 1);
  if (c.head_dim % 2 != 0 || c.head_dim == 0)
    load.Problem("head_dim is {}; RoPE needs an even one", c.head_dim);
  c.rope_base = load.Positive("qwen2.rope.freq_base", 10000.0);
  c.rms_eps = load.Positive("qwen2.attention.layer_norm_rms_epsilon", 1e-6);
  CheckVariants(file, load);

  const WeightTensor* embd = file.FindTensor("token_embd.weight");
  c.vocab = embd ? embd->dims[1] : 0;
  if (embd && (c.vocab < 2 || c.vocab > kLargest))
    load.Problem("{} has {} rows", file.TensorSpelling("token_embd.weight"), c.vocab);
  const MetaArray* tokens = file.Strings("tokenizer.ggml.tokens");
  if (tokens && embd && tokens->size != c.vocab)
    load.Problem("{} has {} entries, {} {} rows", file.KeySpelling("tokenizer.ggml.tokens"),
                 tokens->size, file.TensorSpelling("token_embd.weight"), c.vocab);
  c.tied_output = !load.Has("output.weight");
  return c;
}

Qwen2Layer ReadLayer(const Qwen2Config& c, Loader& load, size_t i) {
  const std::string blk = fmt::format("blk.{}.", i);
  Qwen2Layer layer;
  layer.attn_norm = load.Vector(blk + "attn_norm.weight", c.hidden);
  layer.attn_q = load.Matrix(blk + "attn_q.weight", c.q_dim(), c.hidden);
  layer.attn_k = load.Matrix(blk + "attn_k.weight", c.kv_dim(), c.hidden);
  layer.attn_v = load.Matrix(blk + "attn_v.weight", c.kv_dim(), c.hidden);
  layer.q_bias = load.Vector(blk + "attn_q.bias", c.q_dim());
  layer.k_bias = load.Vector(blk + "attn_k.bias", c.kv_dim());
  layer.v_bias = load.Vector(blk + "attn_v.bias", c.kv_dim());
  layer.attn_output = load.Matrix(blk + "attn_output.weight", c.hidden, c.q_dim());
  layer.ffn_norm = load.Vector(blk + "ffn_norm.weight", c.hidden);
  layer.ffn_gate = load.Matrix(blk + "ffn_gate.weight", c.ffn, c.hidden);
  layer.ffn_up = load.Matrix(blk + "ffn_up.weight", c.ffn, c.hidden);
  layer.ffn_down = load.Matrix(blk + "ffn_down.weight", c.hidden, c.ffn);
  return layer;
}

bool IsRegularFile(const std::string& path) {
  struct stat st;
  return stat(path.c_str(), &st) == 0 && S_ISREG(st.st_mode);
}

}  // namespace

uint64_t Qwen2::BytesPerToken() const {
  uint64_t bytes = token_embd.row_bytes() + output.bytes() + config.hidden * sizeof(float);
  for (const Qwen2Layer& l : layers) {
    for (const WeightView& w :
         {l.attn_q, l.attn_k, l.attn_v, l.attn_output, l.ffn_gate, l.ffn_up, l.ffn_down})
      bytes += w.bytes();
    for (const auto* v : {&l.attn_norm, &l.q_bias, &l.k_bias, &l.v_bias, &l.ffn_norm})
      bytes += v->size() * sizeof(float);
  }
  return bytes;
}

Qwen2 LoadQwen2(WeightFile file) {
  const auto architecture = file.String("general.architecture");
  if (!architecture)
    Fail("{}: key '{}' is missing", file.file().name(), file.KeySpelling("general.architecture"));
  if (*architecture != "qwen2")
    Fail("{}: the architecture is '{}'; lab computes qwen2 (Qwen2, Qwen2.5, Qwen2.5-Coder)",
         file.file().name(), Printable(*architecture));

  Qwen2 model;
  model.source = std::make_unique<const WeightFile>(std::move(file));
  Loader load(*model.source);
  const Qwen2Config& c = model.config = ReadConfig(*model.source, load);
  load.ThrowIfProblems();
  model.token_embd = load.Matrix("token_embd.weight", c.vocab, c.hidden);
  for (size_t i = 0; i < c.layers; ++i) model.layers.push_back(ReadLayer(c, load, i));
  model.output_norm = load.Vector("output_norm.weight", c.hidden);
  model.output = c.tied_output ? model.token_embd : load.Matrix("output.weight", c.vocab, c.hidden);
  load.ReportUnused();
  load.ThrowIfProblems();
  return model;
}

std::string DefaultModel(std::string* why) {
  if (const char* env = std::getenv("LAB_MODEL"); env && *env) {
    *why = fmt::format("model {} (from $LAB_MODEL)", env);
    return env;
  }
  const std::string fetched = CacheDir() + "/qwen2.5-coder-1.5b-instruct-q4_k_m.gguf";
  if (IsRegularFile(fetched)) {
    *why = fmt::format("model {}", fetched);
    return fetched;
  }
  *why = "no model found ($LAB_MODEL, " + fetched +
         "); using the built-in 'tiny'; './dev model' fetches the real one";
  return "tiny";
}

}  // namespace lab
