#pragma once
// A case: the inputs of one op, captured from a model or made up, and where they are from.
#include <memory>
#include <string>
#include <vector>

#include "kernels/block_types.h"
#include "lab/names.h"
#include "lab/registry.h"

namespace lab {

/// Which fields an op reads is written behind them; all others stay empty.
struct Case {
  std::string name;  ///< "L03.ffn_gate_up"
  Op op = Op::silu;
  std::string input_tap = "-", output_tap = "-";  ///< for people
  size_t tokens = 0;

  WeightView w;               ///< all dot products (gate_up: gate), dequant, embed (table)
  WeightView w_up;            ///< gate_up, gate_up_swiglu
  std::vector<float> x;       ///< [tokens, n]: all but dequant and embed; q for gqa_attention
  std::vector<float> x2;      ///< residual_add, swiglu: the second operand, like x
  std::vector<float> k, v;    ///< gqa_attention: [first_position + tokens, kv_heads, head_dim]
  std::vector<float> vector;  ///< matvec: bias [rows] or empty; rms_norm: weight [n]
  std::vector<int32_t> ids;   ///< embed: [tokens], rows of w
  size_t heads = 0, kv_heads = 0, head_dim = 0;  ///< rope (heads, head_dim), gqa_attention
  size_t first_position = 0;                     ///< rope, gqa_attention
  float rope_base = 0, eps = 0;                  ///< rope; rms_norm
  bool exact =
      false;  ///< nothing is rounded on the way to y, in whatever order: judged by its bits

  std::vector<std::shared_ptr<const std::vector<uint8_t>>>
      owned;  ///< bytes that w and w_up point into

  /// Values of one token of x.
  size_t n() const { return tokens ? x.size() / tokens : 0; }
};

struct CaseFile {
  std::string path;  ///< the .toml
  std::string model, sha256, prompt;
  std::vector<int32_t> ids;
  size_t layer = 0;
  std::vector<Case> cases;
};

/// What a case lacks to be run, "" if nothing.
std::string ShapeProblem(const Case& c);

/// Reads cases/NAME.toml and the safetensors file beside it that it names. Throws Error with file
/// and line, or file and tensor; also when the second is not the one that the first was written
/// with.
CaseFile ReadCaseFile(const std::string& path);

/// Writes STEM.toml and STEM.safetensors, each whole or not at all. Of several processes that write
/// one STEM the last one's pair stays.
void WriteCaseFile(const std::string& stem, const CaseFile& file);
/// Throws Error when WriteCaseFile could not write there.
void CheckCaseFileWritable(const std::string& stem);

/// Leaves the cases that are Chosen ("": all). Throws Error (exit 3) that names `flag` and the
/// nearest name where that is none.
void ChooseCases(std::vector<Case>& cases, const std::string& globs, std::string_view flag);
/// Whether a glob matches the case's name ("L03.q_proj"), what it is called in its layer ("q_proj")
/// or its op.
bool Chosen(const GlobList& globs, const Case& c);

/// Where cases come from: `folder` if it is named, else $LAB_CASES, else ./cases, else the
/// installed ones, beside the program: ../share/lab/cases.
std::string CasesFolder(const std::string& folder);

/// All cases of the files of a folder, in the order of their names.
std::vector<Case> ReadCases(const std::string& folder);

/// The .toml files of a folder by name. Throws Error when there is no such folder.
std::vector<std::string> FindCaseFiles(const std::string& folder);

}  // namespace lab
