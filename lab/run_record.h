#pragma once
// What is known of a run, whoever made it: lab or another program, statistics or full tensors. What
// a file does not say is absent here, so that "unknown" is never taken for "different".
#include <compare>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lab/composed.h"
#include "lab/name_map.h"
#include "lab/sketch.h"
#include "lab/stats.h"
#include "lab/stored_type.h"
#include "lab/taps.h"
#include "lab/trace.h"

namespace lab {

/// A number as a file gives it: the true one is within value +- rounding, half a unit of the last
/// digit that was written.
struct Figure {
  double value = 0, rounding = 0;
};

/// Which divisor a std has: n (population) or n - 1 (sample).
enum class StdKind { population, sample };
std::string_view NameOf(StdKind kind);

/// The figures of one row of values, or of several pooled; as in lab/stats.h, each known or not.
struct Figures {
  std::optional<uint64_t> n, nan, inf, zeros;
  std::optional<Figure> min, max, mean, std, rms, absmax, l2, sum;
  std::optional<uint64_t> argmax;  ///< channel
};
/// All of them, without rounding.
Figures FiguresOf(const Stats& stats);

/// All values of one token at one tap, in the bytes of a file or of a record's own memory.
struct StoredRow {
  StoredType type = StoredType::f32;
  std::span<const uint8_t> bytes;

  size_t size() const { return bytes.size() / BytesOf(type); }
  double At(size_t i) const;
  std::vector<double> Read() const;
};

/// What is known of one tap of one token.
struct TokenRecord {
  Figures figures;
  std::map<size_t, Figure> values;  ///< single ones, by channel; empty when `row` has them all
  std::optional<StoredRow> row;
  std::optional<Sketch> sketch;
};

/// Positions in rising order. Neighbours are kept as one range, so that what a line of a file says
/// of a million tokens takes no memory for each.
class TokenList {
 public:
  void Add(size_t first, size_t count = 1);
  bool empty() const { return ranges_.empty(); }
  size_t size() const;
  std::vector<size_t> Read() const;
  bool operator==(const TokenList&) const = default;

 private:
  std::vector<std::pair<size_t, size_t>> ranges_;  // first and the one behind the last
};

/// What is known of one tap over several tokens as if they were one row.
struct PooledRecord {
  TokenList tokens;  ///< empty: nobody says which
  Figures figures;
};

struct RunHeader {
  std::string path;    ///< of the file
  std::string format;  ///< the name of its reader
  std::optional<std::string> model, sha256, architecture;
  std::optional<size_t> layers;
  std::optional<size_t> head_dim;
  std::optional<std::vector<int32_t>> ids;  ///< of all tokens that were run, by position from 0
  std::optional<std::vector<TraceStep>> steps;
  std::optional<std::string> contract, kv, backend;
  std::optional<std::string> command, build, machine;  ///< that made the file
  std::optional<StdKind> std_kind;
  /// The type of the arithmetic between the taps; elementwise laws are exact in it.
  std::optional<StoredType> arithmetic;
  /// A narrower type than the stored one that holds every value of the file.
  std::optional<StoredType> rounded_to;
};

/// What a reader made of its file.
struct ImportReport {
  size_t unexplained = 0;                  ///< lines or tensors that it could not read
  std::vector<std::string> first_of_them;  ///< at most five, as "line 12: ..."
  std::vector<std::string> remarks;        ///< "no summary: the file may be cut off"

  void Unexplained(std::string what);
};

struct RunRecord {
  RunHeader header;
  std::map<Place, TokenRecord> tokens;                 ///< in the order of the pass
  std::map<std::pair<int, Tap>, PooledRecord> pooled;  ///< by layer (or kNoLayer) and tap
  std::vector<TopRecord> tops;
  ImportReport report;
  std::vector<std::shared_ptr<const void>> owners;  ///< of the bytes of stored rows

  /// A row of a tensor, and its figures. The bytes must live as long as the record (owners).
  void AddRow(const Place& place, const StoredRow& row);
  bool has_tensors() const;
};

/// The tap of that name ("ffn_swiglu"), if there is one.
std::optional<Tap> FindTap(std::string_view name);

/// Reads a trace or a dump; its content decides which reader of lab/run_readers.def gets it. A file
/// packed with gzip is unpacked into memory, up to 1 GiB. `names`: of the tensors in dumps of other
/// programs. Throws Error that names the file and what is wrong with it, or the formats that lab
/// reads.
RunRecord ReadRun(const std::string& path, const NameMap& names);
RunRecord ReadRun(const std::string& path);  ///< with the built-in names

/// Whether one of the readers knows the file.
bool IsRunFile(const std::string& path);

}  // namespace lab
