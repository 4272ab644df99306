#include "model/hf_names.h"

#include <algorithm>

#include "lab/error.h"
#include "lab/names.h"

namespace lab {
namespace {

struct NamePair {
  std::string_view gguf, hf;
};

constexpr NamePair kModel[] = {{"token_embd.weight", "embed_tokens.weight"},
                               {"output_norm.weight", "norm.weight"}};
constexpr std::string_view kOutput = "output.weight", kLmHead = "lm_head.weight";

constexpr NamePair kLayer[] = {
    {"attn_norm", "input_layernorm"},    {"ffn_norm", "post_attention_layernorm"},
    {"attn_q", "self_attn.q_proj"},      {"attn_k", "self_attn.k_proj"},
    {"attn_v", "self_attn.v_proj"},      {"attn_output", "self_attn.o_proj"},
    {"attn_q_norm", "self_attn.q_norm"}, {"attn_k_norm", "self_attn.k_norm"},
    {"ffn_gate", "mlp.gate_proj"},       {"ffn_up", "mlp.up_proj"},
    {"ffn_down", "mlp.down_proj"}};

// Splits "<front>12.<part>.weight" behind `front`; false when the name is not made so.
bool SplitLayerName(std::string_view name, std::string_view front, std::string_view* layer,
                    std::string_view* part, std::string_view* kind) {
  if (!name.starts_with(front)) return false;
  name.remove_prefix(front.size());
  const size_t digits = std::min(name.find_first_not_of("0123456789"), name.size());
  const size_t dot = name.rfind('.');
  if (digits == 0 || digits == name.size() || name[digits] != '.' || dot <= digits) return false;
  *layer = name.substr(0, digits);
  *part = name.substr(digits + 1, dot - digits - 1);
  *kind = name.substr(dot + 1);
  return *kind == "weight" || *kind == "bias";
}

// GGUF's key; APR's and Hugging Face's name; other names in use for the same. Sources: aprender,
// crates/aprender-serve/src/apr/metadata.rs; transformers, configuration_qwen2.py.
struct KeyNames {
  std::string_view gguf, apr, hf;
  std::vector<std::string_view> others;
  enum { kText, kSize, kReal } kind;
};

const std::vector<KeyNames>& Qwen2Keys() {
  static const std::vector<KeyNames> kKeys = {
      {"general.architecture", "architecture", "model_type", {"hf_model_type"}, KeyNames::kText},
      {"qwen2.block_count",
       "num_layers",
       "num_hidden_layers",
       {"n_layers", "n_layer"},
       KeyNames::kSize},
      {"qwen2.context_length",
       "max_position_embeddings",
       "max_position_embeddings",
       {"max_seq_len", "context_length", "n_ctx"},
       KeyNames::kSize},
      {"qwen2.embedding_length",
       "hidden_size",
       "hidden_size",
       {"hidden_dim", "d_model", "n_embd"},
       KeyNames::kSize},
      {"qwen2.feed_forward_length",
       "intermediate_size",
       "intermediate_size",
       {"ffn_dim", "intermediate_dim", "n_inner"},
       KeyNames::kSize},
      {"qwen2.attention.head_count",
       "num_heads",
       "num_attention_heads",
       {"n_heads", "n_head"},
       KeyNames::kSize},
      {"qwen2.attention.head_count_kv",
       "num_kv_heads",
       "num_key_value_heads",
       {"n_kv_heads"},
       KeyNames::kSize},
      {"qwen2.attention.key_length", "head_dim", "head_dim", {}, KeyNames::kSize},
      {"qwen2.rope.freq_base",
       "rope_theta",
       "rope_theta",
       {"rope_parameters.rope_theta"},
       KeyNames::kReal},
      {"qwen2.attention.layer_norm_rms_epsilon",
       "rms_norm_eps",
       "rms_norm_eps",
       {"layer_norm_eps", "norm_eps"},
       KeyNames::kReal},
      {"qwen2.rope.scaling.type",
       "rope_scaling.type",
       "rope_scaling.rope_type",
       {"rope_scaling.type", "rope_parameters.rope_type"},
       KeyNames::kText},
      {"qwen2.vocab_size", "vocab_size", "vocab_size", {"n_vocab"}, KeyNames::kSize},
      {"qwen2.rope.type", "rope_type", "rope_type", {}, KeyNames::kSize},
      {"qwen2.attention.use_sliding_window",
       "use_sliding_window",
       "use_sliding_window",
       {},
       KeyNames::kText},
      {"qwen2.hidden_act", "hidden_act", "hidden_act", {}, KeyNames::kText},
      {"qwen2.tied_output", "tied_embeddings", "tie_word_embeddings", {}, KeyNames::kText},
  };
  return kKeys;
}

MetaKeyValue* FindKey(WeightFileParts& parts, const std::string& key) {
  for (MetaKeyValue& kv : parts.metadata)
    if (kv.key == key) return &kv;
  return nullptr;
}

void MakeReal(MetaValue& value) {
  if (const auto* n = std::get_if<uint64_t>(&value.value)) value.value = static_cast<double>(*n);
  if (const auto* n = std::get_if<int64_t>(&value.value)) value.value = static_cast<double>(*n);
}

void SpellKey(WeightFileParts& parts, const KeyNames& key,
              std::span<const std::string_view> prefixes, bool hf) {
  std::vector<std::string_view> names = {hf ? key.hf : key.apr, hf ? key.apr : key.hf};
  names.insert(names.end(), key.others.begin(), key.others.end());
  MetaKeyValue* first = nullptr;
  for (const std::string_view prefix : prefixes)
    for (const std::string_view name : names) {
      MetaKeyValue* found = FindKey(parts, std::string(prefix) + std::string(name));
      if (!found || found == first) continue;
      if (key.kind == KeyNames::kReal) MakeReal(found->value);
      if (first && key.kind != KeyNames::kText && first->value.ToText() != found->value.ToText())
        Fail("{}: '{}' is {}, but '{}' is {}: two names of one quantity", parts.file.name(),
             first->key, first->value.ToText(), found->key, found->value.ToText());
      if (!first) first = found;
    }
  parts.spelling[std::string(key.gguf)] =
      first ? std::string(first->key) : std::string(prefixes[0]) + std::string(names[0]);
}

}  // namespace

std::string GgufTensorName(std::string_view hf) {
  if (hf == kLmHead) return std::string(kOutput);
  const std::string_view bare = hf.starts_with("model.") ? hf.substr(6) : hf;
  for (const NamePair& pair : kModel)
    if (bare == pair.hf) return std::string(pair.gguf);
  std::string_view layer, part, kind;
  if (SplitLayerName(bare, "layers.", &layer, &part, &kind))
    for (const NamePair& pair : kLayer)
      if (part == pair.hf) return fmt::format("blk.{}.{}.{}", layer, pair.gguf, kind);
  return std::string(hf);
}

std::string HfTensorName(std::string_view gguf) {
  if (gguf == kOutput) return std::string(kLmHead);
  for (const NamePair& pair : kModel)
    if (gguf == pair.gguf) return fmt::format("model.{}", pair.hf);
  std::string_view layer, part, kind;
  if (SplitLayerName(gguf, "blk.", &layer, &part, &kind))
    for (const NamePair& pair : kLayer)
      if (part == pair.gguf) return fmt::format("model.layers.{}.{}.{}", layer, pair.hf, kind);
  return std::string(gguf);
}

void SpellQwen2Keys(WeightFileParts& parts, std::span<const std::string_view> prefixes, bool hf) {
  for (const KeyNames& key : Qwen2Keys()) SpellKey(parts, key, prefixes, hf);
}

}  // namespace lab
