#!/usr/bin/env python3
"""Breaks the lab once or more for each test of tests/cli_faults_test.cc, and expects it to fail.

    tests/planted_cli_faults.py [PART OF A TEST'S NAME...]

Builds a copy of what is committed (tests/copy_of_tree.py); exit code 1 when a broken lab passes its
test, or a test has no entry below.
"""
import argparse
import re
import sys

from copy_of_tree import Copy

ONE_TEMPORARY = ["lab/output.cc", "kLetters[random() % kLetters.size()]", "kLetters[random() % 1]",
                 "O_CREAT | O_EXCL |", "O_CREAT |"]
# Test, what goes wrong, and [file, text, what stands in its place].
FAULTS = [
    ("KilledAtAnyMomentLeavesTheOldFileOrTheWholeNewOne", "an old file is written over in place",
     ["lab/output.cc", "if (exists && !S_ISREG(st.st_mode)) {", "if (exists) {"]),
    ("AnInterruptEndsEveryVerbWithin200Milliseconds", "the temporary stays",
     ["lab/output.cc", "  RemoveTemporaries();\n  _exit(128 + signal);", "  _exit(128 + signal);"]),
    ("AnInterruptEndsEveryVerbWithin200Milliseconds", "it takes a quarter of a second",
     ["lab/output.cc", "  _exit(128 + signal);", "  usleep(250000);\n  _exit(128 + signal);"]),
    ("AFileThatMayNotGrowFurther", "SIGXFSZ ends the process",
     ["lab/output.cc", "{SIGPIPE, SIGXFSZ}", "{SIGPIPE}"]),
    ("AFullOrReadOnlyFileSystem", "a failed write is taken for the last one",
     ["lab/output.cc", "if (n < 0) return errno;", "if (n < 0) return 0;"]),
    ("AModelThatBecomesShorter", "nobody handles SIGBUS",
     ["lab/main.cc", "lab::InstallMappingHandler();", ""]),
    # Without the handler alone it passes: no thread of the pool meets the limit there.
    ("TooLittleMemory", "nobody handles bad_alloc",
     ["lab/main.cc", "std::set_new_handler(lab::OutOfMemory);", "(void)lab::OutOfMemory;",
      "    lab::OutOfMemory();\n", "    return lab::kInternal;\n"]),
    ("AFifoGetsTheWholeFileAndStaysAFifo", "a FIFO is replaced like a file",
     ["lab/output.cc", "if (exists && !S_ISREG(st.st_mode)) {", "if (false) {"]),
    ("OfTwoRunsIntoOneTraceOneStays", "both write one temporary", ONE_TEMPORARY),
    ("OfTwoCapturesIntoOnePlaceOneStays", "both write one temporary", ONE_TEMPORARY),
    ("ACapturePutsItsFilesInPlaceUnderALock", "the two files are renamed without a lock",
     ["lab/case.cc", "if (fd_ >= 0) flock(fd_, LOCK_EX);", ""]),
    ("ACaseFileWithTheDataOfAnotherIsRefused", "nobody compares the hash",
     ["lab/case.cc", "if (hash && *hash != Sha256(tensors_->bytes()))",
      "if (hash && hash->empty())"]),
    ("AModelReplacedInPlaceUnderItsOldTimeIsHashedAgain", "the time of the last change is ignored",
     ["lab/sha256.cc", "st.st_ctim", "st.st_mtim", "st.st_ctim", "st.st_mtim"]),
    ("TimesOutsideAllReason", "a time before 1970 is refused",
     ["lab/sha256.cc", "  char real[PATH_MAX];",
      '  if (st.st_mtim.tv_sec < 0) Fail("{}: is older than 1970", file.name());\n'
      "  char real[PATH_MAX];"]),
    ("ProgressFitsANarrowTerminal", "the width is not looked at",
     ["lab/cli.cc", "known ? size.ws_col : 80", "known ? 80 : 80"]),
    ("ProgressFitsANarrowTerminal", "the last line stays",
     ["lab/cli.cc", "void ProgressLine::operator()(std::string_view what) const {\n  if (!on_) return;",
      "void ProgressLine::operator()(std::string_view what) const {\n  if (!on_ || what.empty()) return;"]),
    ("LocalesChangeNoByte", "the locale of the environment is used",
     ["lab/main.cc", "  lab::KeepStandardStreams();",
      '  std::setlocale(LC_ALL, "");\n  lab::KeepStandardStreams();',
      "#include <exception>", "#include <clocale>\n#include <exception>"]),
]


def broken(copy, edits):
    file, *pairs = edits
    text = (copy.tree / file).read_text()
    for before, after in zip(pairs[::2], pairs[1::2]):
        if before not in text:
            sys.exit(f"{file} no longer has: {before}")
        text = text.replace(before, after, 1)
    return {file: text}


def passes(copy, test):
    return copy.run([copy.binaries / "lab_test", f"--gtest_filter=CliFault.{test}"]).returncode == 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("parts", nargs="*", help="only tests with one of these in their names")
    parts = parser.parse_args().parts or [""]
    copy = Copy("broken")
    source = (copy.tree / "tests/cli_faults_test.cc").read_text()
    without = set(re.findall(r"TEST\(CliFault, (\w+)\)", source)) - {test for test, _, _ in FAULTS}
    wrong = [f"{test}: no entry" for test in sorted(without)]
    for test, what, edits in FAULTS:
        if not any(part in test for part in parts):
            continue
        with copy.changed(broken(copy, edits)):
            if not copy.build():
                verdict = "does not build"
            else:
                verdict = "passes" if passes(copy, test) else "noticed"
        print(f"{verdict:14}  {test}: {what}", flush=True)
        if verdict != "noticed":
            wrong.append(f"{test}: {what}: {verdict}")
    sys.exit("\n".join(wrong) or 0)


main()
