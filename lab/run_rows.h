#pragma once
// The whole rows of values that a run holds, as the steps of a model read them.
#include <vector>

#include "lab/capture.h"
#include "lab/run_record.h"

namespace lab {

/// Channels of a tap.
size_t WidthOf(Tap tap, const Qwen2Config& config);

class RunRows {
 public:
  /// `run` must outlive it. Throws Error (exit 3) when the run holds no whole row or does not fit
  /// the model.
  RunRows(const RunRecord& run, const Qwen2Config& config);

  size_t tokens() const { return tokens_; }
  const std::vector<int32_t>& ids() const { return ids_; }  ///< zeros where the run has none
  /// Null where the run has no row.
  const StoredRow* Row(const TapPlace& place, size_t token) const;
  bool HasAny(const TapPlace& place) const;
  /// How the values of a tap may have been rounded. A case holds floats, whatever the file does.
  StoredType TypeOf(const TapPlace& place) const;
  StoredType Narrowest() const;  ///< of all taps

 private:
  void CheckFits(const Qwen2Config& config) const;

  const RunRecord& run_;
  size_t tokens_ = 0;
  std::vector<int32_t> ids_;
};

}  // namespace lab
