#pragma once
// What the tensors in another program's dump are called: their name -> our tap and layer.
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lab/taps.h"

namespace lab {

/// The dimensions of a tensor of activations. A row of ours is the channels of one token; head and
/// dim together are a channel: head * head_dim + dim.
enum class Axis { token, channel, head, dim };

/// One name, or many by fields: {layer} stands for a number, {tap} for a tap of ours.
struct TensorPattern {
  std::string name;
  std::optional<Tap> tap;  ///< absent: what {tap} matches
  int shift = 0;           ///< added to the number that {layer} matches
  std::vector<Axis> axes;  ///< outermost first; empty: to be told by the shape
  /// What the tensor with the largest number is, where the file has them all from 0 on. (The last
  /// of HF's hidden states is normed.)
  std::optional<Tap> last;
};

/// What a name stands for. layer_out of the layer before the first is the embedding.
struct NamedTap {
  Tap tap;
  int layer;
  const TensorPattern* pattern;
  int number;  ///< what {layer} matched, kNoLayer without it
};

class NameMap {
 public:
  /// lab's own names, and those that lab/taps.def has of HF transformers (modules, `:input` or
  /// `.input` behind them for what goes in; hidden_states.N) and of llama.cpp (`Qcur-3 (ROPE)`;
  /// without the operation where the name is used once).
  static const NameMap& BuiltIn();
  /// A TOML file (notes/formats.md), its names before the built-in ones. Throws Error with its
  /// line.
  static NameMap Read(const std::string& path);

  /// Null where no pattern matches, nor for a name of more than 200 bytes.
  std::optional<NamedTap> Find(std::string_view tensor) const;

  /// Tensors that may hold the token ids.
  const std::vector<std::string>& token_tensors() const { return token_tensors_; }
  /// Shapes are written innermost first, as ggml does.
  bool reversed_shapes() const { return reversed_shapes_; }

 private:
  friend class NameMapReader;
  std::vector<TensorPattern> patterns_;
  std::vector<std::string> token_tensors_;
  bool reversed_shapes_ = false;
};

}  // namespace lab
