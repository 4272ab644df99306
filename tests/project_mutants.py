#!/usr/bin/env python3
"""Mutation of the project itself: does the quick test set notice a mistake in one line of it?

    tests/project_mutants.py RESULTS.jsonl [--seed S] [--count N] [--tests REGEX]

What is committed is copied to build/mutants and built there without nvcc; its tests must pass. Then
one line after another of lab/, kernels/ and model/ (.cc .h .cu .cuh) is drawn: each line to which
one of the operators below can be applied is as likely as every other, and so is each way to change
the line. A mutant is built and the tests run on it until one fails. What becomes of it:

    noticed     a test failed, crashed, or ran for more than TIMEOUT seconds
    survived    none did: a gap in the tests, or a mutant that no test can notice (judge it by hand)
    same code   the compiler made the same programs of it: nothing to notice
    no build    the compiler refused it

Only the first two count towards N. RESULTS has a line for each, with file, line, both texts and the
tests that failed; run again with the same seed at the same commit, it is gone on with. The order of
lines depends on commit and seed alone, so a larger N continues a smaller one.
"""
import argparse
import hashlib
import json
import os
import pathlib
import random
import re
import resource
import subprocess
import sys
import time

from copy_of_tree import ROOT, Copy

TIMEOUT = 300  # seconds for each half of the tests, which takes 40 on an idle machine
MEMORY = 16 << 30  # a mutant that asks for more than this address space gets no more

# Text between blanks is an operator in formatted code; what is not (`vector<int>`, `T*`) has none.
SWAPS = {"<": "<=", "<=": "<", ">": ">=", ">=": ">", "==": "!=", "!=": "==", "&&": "||", "||": "&&",
         "+": "-", "-": "+", "*": "/", "/": "*", "%": "/", "<<": ">>", ">>": "<<", "&": "|",
         "|": "&", "+=": "-=", "-=": "+=", "*=": "/=", "/=": "*="}
WORDS = {"true": "false", "false": "true", "min": "max", "max": "min", "break": "continue",
         "continue": "break"}
NOT_CODE = re.compile(r"""//[^\n]*|/\*.*?\*/|R"\((?:.*?)\)"|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])'
                          |^[ ]*\#(?:\\\n|[^\n])*|\bstatic_assert\(.*?\);""",
                      re.DOTALL | re.MULTILINE | re.VERBOSE)
# Not a declaration: before the parenthesis or `=` there is no blank but in brackets.
CALL_OR_ASSIGNMENT = re.compile(r" +(?:[\w:.>*-]|\[[^\]]*\])+(\(.*\)| [+*/|&-]?= .*);$")


def code_of(text):
    """The lines of a file with comments, strings, directives and static_asserts blanked out."""
    return NOT_CODE.sub(lambda m: re.sub(r"[^\n]", " ", m[0]), text).split("\n")


def mutations(code, before):
    """Every (start, end, replacement) for a line; `before` is the line before it."""
    found = []
    for m in re.finditer(r"(?<= )\S+(?= )", code):
        if m[0] in SWAPS:
            found.append((*m.span(), SWAPS[m[0]]))
    for m in re.finditer(r"\b(?:%s)\b" % "|".join(WORDS), code):
        found.append((*m.span(), WORDS[m[0]]))
    for m in re.finditer(r"(?<![\w.])\d+(?![\w.'])", code):
        found += [(*m.span(), str(int(m[0]) + 1)), (*m.span(), f"({m[0]} - 1)")]
    for m in re.finditer(r"\+\+|--", code):
        found.append((*m.span(), "--" if m[0] == "++" else "++"))
    m = re.search(r"\breturn ([^;]+);", code)
    if m and m[1] != "{}":
        found.append((*m.span(1), "{}"))
    # A whole statement, not the tail of one that began further up.
    if CALL_OR_ASSIGNMENT.match(code) and code.count("(") == code.count(")") and (
            re.search(r"[;{})]\s*$", before) or not before.strip()):
        found.append((len(code) - len(code.lstrip()), len(code), ";"))
    return found


def draw(tree, seed):
    """All lines that can be mutated, in the order of the seed, with one mutation each."""
    rng, lines = random.Random(seed), []
    for folder in "lab", "kernels", "model":
        for path in sorted((tree / folder).iterdir()):
            if path.suffix not in (".cc", ".h", ".cu", ".cuh"):
                continue
            text = path.read_text()
            code = code_of(text)
            for i, line in enumerate(text.split("\n")):
                found = mutations(code[i], code[i - 1] if i else "")
                if found:
                    lines.append((str(path.relative_to(tree)), i, line, found))
    rng.shuffle(lines)
    for file, i, line, found in lines:
        start, end, text = rng.choice(found)
        yield file, i, line, line[:start] + text + line[end:]


def programs(copy):
    return [hashlib.sha256((copy.binaries / name).read_bytes()).hexdigest()
            for name in ("lab", "lab_test")]


def failing(copy, tests):
    """What failed of the tests; empty if nothing did."""
    limit = lambda: resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    done = copy.run(["ctest", "--preset", "release", "--tests-regex", tests, "--stop-on-failure",
                     "--parallel", str(os.cpu_count()), "--no-tests=error",
                     "--timeout", str(TIMEOUT)],
                    env=os.environ | {"GTEST_FAIL_FAST": "1"}, preexec_fn=limit)
    if done.returncode == 0:
        return []
    named = re.findall(r"\[  FAILED  \] ([\w/]+\.[\w/]+)", done.stdout)
    # A crash or a timeout: ctest's word for it.
    return sorted(set(named)) or re.findall(r"\*\*\*(\w+.*?) +[\d.]+ sec", done.stdout) or ["?"]


def judge(copy, mutant, original, tests):
    file, i, _, changed = mutant
    lines = (copy.tree / file).read_text().split("\n")
    lines[i] = changed
    with copy.changed({file: "\n".join(lines)}):
        if not copy.build():
            return "no build", []
        if programs(copy) == original:
            return "same code", []
        failed = failing(copy, tests)
        return ("noticed" if failed else "survived"), failed


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("results", type=pathlib.Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--tests", default="^quick_.$",
                        help="which entries of ctest (default: %(default)s)")
    args = parser.parse_args()

    commit = subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=ROOT, text=True).strip()
    head = {"commit": commit, "seed": args.seed, "tests": args.tests}
    done = [head]
    if args.results.exists():
        done = [json.loads(line) for line in args.results.read_text().splitlines()]
    if done[0] != head:
        sys.exit(f"{args.results} is of another run: {done[0]}")

    copy = Copy("mutants")
    original = programs(copy)
    if failed := failing(copy, args.tests):
        sys.exit(f"without a mutant fail: {failed}")

    with args.results.open("a") as out:
        if len(done) == 1:
            print(json.dumps(head), file=out, flush=True)
        counts = {}
        for number, mutant in enumerate(draw(copy.tree, args.seed), 1):
            if counts.get("noticed", 0) + counts.get("survived", 0) >= args.count:
                break
            if number < len(done):
                result = done[number]
            else:
                start = time.monotonic()
                verdict, failed = judge(copy, mutant, original, args.tests)
                file, i, before, after = mutant
                result = {"verdict": verdict, "at": f"{file}:{i + 1}", "before": before.strip(),
                          "after": after.strip(), "failed": failed,
                          "seconds": round(time.monotonic() - start)}
                print(json.dumps(result), file=out, flush=True)
                print(f"{verdict:9}  {result['at']}: {result['before']}  ->  {result['after']}",
                      flush=True)
            counts[result["verdict"]] = counts.get(result["verdict"], 0) + 1
    print(counts)


main()
