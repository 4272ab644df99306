// lab docs: the man page, and completion for bash and zsh, from the options that --help shows.
#include <algorithm>

#include "lab/cli.h"
#include "lab/names.h"
#include "lab/output.h"
#include "lab/version.h"

namespace lab {
namespace {

using Options = std::vector<const CLI::Option*>;

// `text` with every `from` as `to`.
std::string Replaced(std::string text, std::string_view from, std::string_view to) {
  for (size_t at = 0; (at = text.find(from, at)) != std::string::npos; at += to.size())
    text.replace(at, from.size(), to);
  return text;
}

bool TakesValue(const CLI::Option& option) {
  return option.get_items_expected_max() > 0;
}

// "-o", "--output"; none for a positional.
std::vector<std::string> FlagsOf(const CLI::Option& option) {
  std::vector<std::string> flags;
  for (const std::string& name : option.get_snames()) flags.push_back("-" + name);
  for (const std::string& name : option.get_lnames()) flags.push_back("--" + name);
  return flags;
}

// What its type name says may stand for a value: literal words (text|jsonl), or files.
struct Values {
  std::vector<std::string> words;
  bool files = false, folders = false;
};

Values ValuesOf(const CLI::Option& option) {
  Values values;
  const std::string type = option.get_type_name();
  for (const std::string& part : CLI::detail::split(type, '|')) {
    const bool literal =
        part.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-") == std::string::npos;
    if (literal && part != type)
      values.words.push_back(part);
    else if (part == "DIR")
      values.folders = true;
    else if (part.find("FILE") != std::string::npos || part.starts_with("cases/") ||
             part.ends_with(".safetensors"))
      values.files = true;
  }
  return values;
}

// --- man page ---

std::string Roff(const std::string& text) {
  std::string roff = Replaced(Replaced(text, "\\", "\\e"), "-", "\\-");
  for (const char* control : {".", "'"}) {
    roff = Replaced(roff, fmt::format("\n{}", control), fmt::format("\n\\&{}", control));
    if (roff.starts_with(control)) roff.insert(0, "\\&");
  }
  return roff;
}

// A description; its line breaks are for the width of --help.
std::string Paragraph(const std::string& text) {
  return Roff(Replaced(text, "\n", " ")) + "\n";
}

std::string ManOption(const CLI::Option& option) {
  std::vector<std::string> names;
  for (const std::string& flag : FlagsOf(option)) names.push_back("\\fB" + Roff(flag) + "\\fR");
  if (option.get_positional()) names.push_back("\\fI" + Roff(option.get_single_name()) + "\\fR");
  if (TakesValue(option)) names.push_back("\\fI" + Roff(option.get_type_name()) + "\\fR");
  return fmt::format(".TP\n{}\n{}", fmt::join(names, " "), Paragraph(option.get_description()));
}

std::string ManVerb(const CLI::App& app) {
  std::string text = fmt::format(".SS {}\n{}", app.get_name(), Paragraph(app.get_description()));
  for (const CLI::Option* option : app.get_options()) text += ManOption(*option);
  return text + ".PP\n.nf\n" + Roff(app.get_footer()) + "\n.fi\n";
}

std::string ManPage() {
  std::string text = fmt::format(
      ".TH LAB 1 \"\" \"lab {}\" \"User Commands\"\n.SH NAME\nlab \\- {}\n"
      ".SH SYNOPSIS\n\\fBlab\\fR \\fIVERB\\fR [\\fIFLAGS\\fR]\n.SH DESCRIPTION\n",
      Version(), kTagline);
  for (const Verb& verb : Verbs())
    text += fmt::format(".TP\n\\fB{}\\fR\n{}", verb.name, Paragraph(std::string(verb.help)));
  text += ".SH VERBS\n";
  for (const Verb& verb : Verbs())
    VisitApp(verb, [&](const CLI::App& app) { text += ManVerb(app); });
  text += ".SH EXIT STATUS\n";
  for (const ExitMeaning& e : ExitMeanings())
    text += fmt::format(".TP\n{}\n{}\n", static_cast<int>(e.code), e.meaning);
  return text;
}

// --- bash ---

// The lines of a verb in the `case` of BashCompletion, which looks at VERB:WORD BEFORE:WORD.
std::string BashVerb(const CLI::App& app, std::string_view verb) {
  std::vector<std::string> flags;
  std::string lines, positionals;
  for (const CLI::Option* option : app.get_options()) {
    const Values values = ValuesOf(*option);
    std::string action;
    if (!values.words.empty()) action = fmt::format("words='{}' ", fmt::join(values.words, " "));
    if (values.files) action += "compopt -o default ";
    if (values.folders) action += "compopt -o dirnames ";
    for (const std::string& flag : FlagsOf(*option)) {
      flags.push_back(flag);
      if (TakesValue(*option)) lines += fmt::format("    {}:{}:*) {};;\n", verb, flag, action);
    }
    if (option->get_positional()) positionals = fmt::format("    {}:*) {};;\n", verb, action);
  }
  return fmt::format("    {}:*:-*) words='{}' ;;\n", verb, fmt::join(flags, " ")) + lines +
         positionals;
}

std::string BashCompletion() {
  std::string verbs, lines;
  for (const Verb& verb : Verbs()) {
    verbs.append(verb.name).append(" ");
    VisitApp(verb, [&](const CLI::App& app) { lines += BashVerb(app, verb.name); });
  }
  return fmt::format(R"(# Made by lab docs bash, lab {}.
_lab() {{
  local verb=${{COMP_WORDS[1]}} before=${{COMP_WORDS[COMP_CWORD-1]}} word=${{COMP_WORDS[COMP_CWORD]}} words=
  # --flag=word comes as three words.
  [[ $word == = ]] && word=
  [[ $before == = ]] && before=${{COMP_WORDS[COMP_CWORD-2]}}
  ((COMP_CWORD == 1)) && verb=
  case $verb:$before:$word in
    :*) words='{}--help --version' ;;
{}  esac
  COMPREPLY=($(compgen -W "$words" -- "$word"))
}}
complete -F _lab lab
)",
                     Version(), verbs, lines);
}

// --- zsh ---

// A single-quoted word; `special` get a backslash.
std::string ZshQuoted(const std::string& text, std::string_view special) {
  std::string quoted;
  for (const char c : Replaced(text, "\n", " ")) {
    if (special.find(c) != std::string_view::npos) quoted += '\\';
    quoted += c == '\'' ? "'\\''" : std::string(1, c);
  }
  return quoted;
}

// ":message:action" for _arguments.
std::string ZshValue(const CLI::Option& option) {
  const Values values = ValuesOf(option);
  std::string action = " ";
  if (!values.words.empty()) action = fmt::format("({})", fmt::join(values.words, " "));
  if (values.files) action = "_files";
  if (values.folders) action = "_files -/";
  return fmt::format("{}:{}:{}", option.get_expected_min() == 0 ? ":" : "",
                     ZshQuoted(option.get_type_name(), ":[]"), action);
}

std::string ZshVerb(const CLI::App& app, std::string_view verb) {
  std::string specs;
  for (const CLI::Option* option : app.get_options()) {
    const std::vector<std::string> flags = FlagsOf(*option);
    const std::string value = TakesValue(*option) ? ZshValue(*option) : "";
    const bool again = option->get_multi_option_policy() == CLI::MultiOptionPolicy::TakeAll;
    for (const std::string& flag : flags)
      specs += fmt::format(" \\\n        '{}{}{}[{}]{}'",
                           again ? "*" : fmt::format("({})", fmt::join(flags, " ")), flag,
                           value.empty()            ? ""
                           : flag.starts_with("--") ? "="
                                                    : "+",
                           ZshQuoted(option->get_description(), "[]"), value);
    if (option->get_positional()) specs += fmt::format(" \\\n        '{}'", value);
  }
  return fmt::format("    {}) _arguments{} ;;\n", verb, specs);
}

std::string ZshCompletion() {
  std::string verbs, lines;
  for (const Verb& verb : Verbs()) {
    verbs += fmt::format("    '{}:{}'\n", verb.name, ZshQuoted(std::string(verb.help), ""));
    VisitApp(verb, [&](const CLI::App& app) { lines += ZshVerb(app, verb.name); });
  }
  return fmt::format(R"(#compdef lab
# Made by lab docs zsh, lab {}.
local -a verbs=(
{}    '--help:the verbs and the exit codes'
    '--version:what this binary is'
)
if ((CURRENT == 2)); then
  _describe verb verbs
else
  shift words
  ((CURRENT--))
  case $words[1] in
{}  esac
fi
)",
                     Version(), verbs, lines);
}

struct Kind {
  std::string_view name;
  std::string (*make)();
};
constexpr Kind kKinds[] = {{"man", ManPage}, {"bash", BashCompletion}, {"zsh", ZshCompletion}};

}  // namespace

int CmdDocs(int argc, char** argv) {
  std::string what;
  std::vector<std::string_view> names;
  for (const Kind& kind : kKinds) names.push_back(kind.name);
  CLI::App app("Prints the man page, or completion for a shell, as made from what --help shows.",
               "lab docs");
  app.add_option("what", what, "man: the page lab(1); bash, zsh: completion for that shell")
      ->required()
      ->type_name(fmt::format("{}", fmt::join(names, "|")));
  app.footer("Example:\n  lab docs man | man -l -\n  source <(lab docs bash)");
  if (!ParseArgs(app, argc, argv)) return kPass;
  PrintOut(kKinds[IndexOfName(names, what, "lab docs")].make());
  return kPass;
}

}  // namespace lab
