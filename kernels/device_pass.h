#pragma once
// What a pass keeps on a device. Its buffers on the host are names: each has a twin on the device,
// and a row that is handed a pointer into such a buffer works on the twin and copies nothing. So
// the arguments of the steps are the same on every backend. Contents of buffer and twin differ
// until Upload or Fetch.
#include <functional>
#include <memory>

#include "kernels/block_types.h"
#include "kernels/kv_store.h"
#include "kernels/tap_sums.h"

namespace lab {

/// Every function throws Error where the device fails.
class DevicePass {
 public:
  virtual ~DevicePass() = default;

  /// Buffers that get a twin: constants, which are uploaded once however many passes keep them;
  /// weights, likewise, in the layout of kernels/device_weights.h; and what the pass writes, whose
  /// twin is not initialised. The buffers must outlive the pass. Twins are there after Place.
  virtual void KeepConstant(const void* host, size_t bytes) = 0;
  virtual void KeepWeights(const WeightView& w) = 0;
  virtual void KeepBuffer(const void* host, size_t bytes) = 0;
  /// Error with exit code 125 says what is needed and what is free.
  virtual void Place() = 0;

  /// For rows that are timed alone: runs them, and keeps every buffer that they are handed, with
  /// what is in it; weights in their layout.
  virtual void KeepArguments(const std::function<void()>& rows) = 0;
  /// Copies the buffers that those rows write to.
  virtual void UploadOutputs() = 0;
  virtual void FetchOutputs() = 0;

  /// Copies to the twin, or from it once all work before is done; any part of a kept buffer.
  virtual void Upload(const void* host, size_t bytes) = 0;
  virtual void Fetch(void* host, size_t bytes) = 0;
  /// Returns once all work is done.
  virtual void Wait() = 0;
  virtual void StoreKv(const KvStoreArgs<float>& a) = 0;
  virtual void SumRows(const TapSumsArgs& a) = 0;

  /// Makes a graph of what `steps` would run, in the place of the last one. Steps may run rows on
  /// kept buffers, StoreKv, SumRows and Save.
  virtual void Capture(const std::function<void()>& steps) = 0;
  virtual bool capturing() const = 0;  ///< whether steps run for Capture now
  /// Steps before and after it share no launch.
  virtual void EndLaunch() = 0;
  /// Part of a graph: copies a kept buffer, as it is between two steps, to a place of its own on
  /// the device. Fetch i, counted from the first Save of the graph, copies from there after a
  /// Replay.
  virtual void Save(const void* host, size_t bytes) = 0;
  virtual void FetchSaved(size_t i, void* host) = 0;
  /// Runs the graph: the same kernels on the same twins, which hold what is there by now.
  virtual void Replay() = 0;
};

}  // namespace lab
