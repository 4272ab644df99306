#pragma once
// What a reader of traces and dumps gets and does. A new format is one file with two functions and
// one line in run_readers.def.
#include <string>
#include <string_view>

#include "lab/run_record.h"

namespace lab {

/// A file as a reader sees it.
struct RunFile {
  std::string path;
  std::string_view bytes;  ///< all of them
};

/// In what lab's own backends compute the steps between the matvecs, each result stored; absent for
/// others, which may fuse them.
std::optional<StoredType> ArithmeticOf(const std::optional<std::string>& backend);

// bool Is<Name>(const RunFile&): whether the content looks like this format. Never throws.
// RunRecord Read<Name>(const RunFile&): throws Error with path and line or tensor. Fills everything
// but header.path and header.format.
#define READER(format, Name)          \
  bool Is##Name(const RunFile& file); \
  RunRecord Read##Name(const RunFile& file);
#include "lab/run_readers.def"
#undef READER

}  // namespace lab
