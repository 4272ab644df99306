#pragma once
// What a reader of traces and dumps gets and does. A new format is one file with two functions and
// one line in run_readers.def.
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lab/name_map.h"
#include "lab/run_record.h"

namespace lab {

/// A file as a reader sees it.
struct RunFile {
  std::string path;
  std::string_view bytes;             ///< all of them, unpacked
  std::shared_ptr<const void> owner;  ///< of the bytes
  const NameMap& names;               ///< of the tensors in dumps of other programs
};

/// In what lab's own backends compute the steps between the matvecs, each result stored; absent for
/// others, which may fuse them.
std::optional<StoredType> ArithmeticOf(const std::optional<std::string>& backend);

/// The lines of a text without their line ends.
std::vector<std::string_view> LinesOf(std::string_view text);
/// Whether the content can be the text of a log: its first 4096 bytes hold no zero byte.
bool IsPlainText(const RunFile& file);
/// Without the blanks at both ends.
std::string_view Trim(std::string_view text);
/// The parts between commas, trimmed.
std::vector<std::string_view> SplitAtCommas(std::string_view text);
/// A number as it is printed ("-0.4160", "nan"), with half a unit of its last digit as rounding;
/// absent if `text` is no number.
std::optional<Figure> ParseFigure(std::string_view text);
/// The rest of `text` after `prefix` and blanks, if it begins with it.
std::optional<std::string_view> After(std::string_view text, std::string_view prefix);
/// ParseDigits of the trimmed text.
std::optional<size_t> ParseCount(std::string_view text);
/// Token ids between commas; absent if one is no such number.
std::optional<std::vector<int32_t>> ParseIds(std::string_view text);

// bool Is<Name>(const RunFile&): whether the content looks like this format. Never throws.
// RunRecord Read<Name>(const RunFile&): throws Error with path and line or tensor. Fills everything
// but header.path and header.format.
#define READER(format, Name)          \
  bool Is##Name(const RunFile& file); \
  RunRecord Read##Name(const RunFile& file);
#include "lab/run_readers.def"
#undef READER

}  // namespace lab
