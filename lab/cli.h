#pragma once
// What the verbs share: parsing, common options, formats.
#include <CLI/CLI.hpp>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lab/error.h"
#include "lab/table.h"

namespace lab {

/// A subcommand. `run` gets argv from the verb's own name on and returns the exit code.
struct Verb {
  std::string_view name, help;
  int (*run)(int argc, char** argv);
};

/// What an exit code tells the caller.
struct ExitMeaning {
  ExitCode code;
  std::string_view meaning;
};

inline constexpr std::string_view kTagline = "a kernel lab with reference oracles for qwen2 models";

std::span<const Verb> Verbs();
std::span<const ExitMeaning> ExitMeanings();
std::string Usage();  ///< what lab --help prints

// One file each: cmd_<verb>.cc.
int CmdForward(int argc, char** argv);
int CmdTokenize(int argc, char** argv);
int CmdInspect(int argc, char** argv);
int CmdList(int argc, char** argv);
int CmdSynth(int argc, char** argv);
int CmdBench(int argc, char** argv);
int CmdCapture(int argc, char** argv);
int CmdCheck(int argc, char** argv);
int CmdBisect(int argc, char** argv);
int CmdDiff(int argc, char** argv);
int CmdReport(int argc, char** argv);
int CmdDocs(int argc, char** argv);

/// Parses argv. False: --help was asked for and has been printed. Throws Error (exit 2) with the
/// nearest spelling for an unknown flag.
bool ParseArgs(CLI::App& app, int argc, char** argv);

/// Calls `visit` with the verb's options, as ParseArgs gets them. Nothing is parsed or run.
void VisitApp(const Verb& verb, const std::function<void(const CLI::App&)>& visit);

/// A check for options that hold an unsigned number: CLI11 takes -1 for the largest one.
std::string NotNegative(const std::string& value);

/// Adds --format text|jsonl.
void AddFormat(CLI::App& app, std::string& format);
Format ParseFormat(const std::string& format);
/// Where a table comes out: also csv and md.
void AddTableFormat(CLI::App& app, std::string& format);
Format ParseTableFormat(const std::string& format);

/// The --model option and what it means when absent (LAB_MODEL, the fetched file, tiny).
void AddModel(CLI::App& app, std::string& model);
/// `model`, or the default with one line about it on stderr.
std::string ResolveModel(const std::string& model);

/// "1,2,3" as numbers in [0, vocab).
std::vector<int32_t> ParseIds(std::string_view text, size_t vocab);

void AddThreads(CLI::App& app, int& threads);
/// Throws Error when --threads is outside 1 to 1024.
void CheckThreads(int threads);

/// Which rows a pass runs, in the verbs that run one.
struct PassFlags {
  std::string contract, kv, target;
  std::vector<std::string> use;
};
void AddPassFlags(CLI::App& app, PassFlags& flags);

/// Which rows run on which cases, in the verbs that run rows on cases.
struct RowFlags {
  std::string ops, contract, cases;
};
void AddRowFlags(CLI::App& app, RowFlags& flags);

/// A line (ASCII) on standard error that tells what is going on, if that is a terminal, cut to its
/// width; gone when it is over.
class ProgressLine {
 public:
  ProgressLine();
  ~ProgressLine();
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;
  void operator()(std::string_view what) const;

 private:
  bool on_;
};

/// The whole file as text; "-" is standard input. Throws Error.
std::string ReadText(const std::string& path);

}  // namespace lab
