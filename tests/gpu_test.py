#!/usr/bin/env python3
"""Everything that only a GPU can show.

    tests/gpu_test.py BUILD       packs BUILD/gpu-test, a folder that runs on any machine: lab, its
                                  libraries, the cases, this script; then runs it here
    BUILD/gpu-test/gpu_test.py    runs it; one JSON line for each step

Steps: every row on every case, ten times, the same bits; whole passes of three models against the
CPU's oracles, tap by tap; ten equal runs of a pass; the statistics of a trace against the values
of a dump; compute-sanitizer; speed. Exit codes: 0; 1 (a
step failed); 125 (no GPU: nothing was run).
"""
import argparse
import array
import datetime
import hashlib
import json
import math
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
LIMIT_MIB = 60
BUDGET = 570  # seconds for all steps; what does not fit is recorded as left out
# Of the system, on every Linux: the C library itself.
SYSTEM = re.compile(r"^(linux-vdso|ld-linux|lib(c|m|dl|rt|pthread)\.so)")
CANNOT_RUN = 125


# ---- pack

def libraries_of(binary, **env):
    """{name: path} of the shared libraries that a binary loads, without the system's."""
    text = subprocess.run(["ldd", binary], capture_output=True, text=True, check=True,
                          env=dict(os.environ, **env)).stdout
    found = dict(re.findall(r"^\s*(\S+) => (/\S+|not found)", text, re.M))
    return {name: path for name, path in found.items() if not SYSTEM.match(name)}


def pack(build):
    folder = build / "gpu-test"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "lib").mkdir(parents=True)
    subprocess.run(["strip", "--strip-debug", "-o", folder / "lab", build / "lab"], check=True)
    for name, path in libraries_of(build / "lab").items():
        shutil.copy(path, folder / "lib" / name)
    shutil.copytree(HERE.parent / "cases", folder / "cases")
    shutil.copy(__file__, folder)
    loaded = libraries_of(folder / "lab", LD_LIBRARY_PATH=str((folder / "lib").resolve()))
    foreign = [path for path in loaded.values()
               if pathlib.Path(path).parent != (folder / "lib").resolve()]
    if foreign:
        sys.exit(f"gpu-test: not carried: {', '.join(foreign)}")
    mib = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) / 2**20
    print(f"gpu-test: packed {folder}, {mib:.1f} MiB of at most {LIMIT_MIB}", file=sys.stderr)
    if mib > LIMIT_MIB:
        sys.exit(f"gpu-test: {mib:.1f} MiB are more than {LIMIT_MIB}")
    return folder


# ---- run, in that folder

class Run:
    def __init__(self, out, scratch):
        self.out, self.scratch, self.begin, self.failed = out, scratch, time.monotonic(), 0
        self.env = dict(os.environ, LD_LIBRARY_PATH=str(HERE / "lib"),
                        LAB_CASES=str(HERE / "cases"))

    def record(self, **fields):
        self.out.write(json.dumps(fields) + "\n")
        self.out.flush()

    def lab(self, *arguments, under=()):
        left = BUDGET - (time.monotonic() - self.begin)
        command = [*under, HERE / "lab", *arguments]
        try:
            return subprocess.run(command, env=self.env, cwd=self.scratch, timeout=max(left, 1),
                                  capture_output=True, text=True)
        except subprocess.TimeoutExpired:
            return subprocess.CompletedProcess(command, None, "", "out of time")

    def step(self, name, *arguments, under=(), keep=lambda record: True):
        """One command of lab; its JSON lines that `keep` wants are kept."""
        start = time.monotonic()
        done = self.lab(*arguments, under=under)
        seconds = time.monotonic() - start
        results = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        self.finish(name, done.returncode == 0, seconds, code=done.returncode,
                    command=["lab", *arguments], messages=done.stderr.splitlines()[-5:],
                    results=[r for r in results if keep(r)])

    def finish(self, name, passed, seconds, **fields):
        self.failed += not passed
        self.record(kind="step", step=name, passed=passed, seconds=round(seconds, 1), **fields)
        print(f"gpu-test: {'pass' if passed else 'FAIL'}  {seconds:6.1f} s  {name}",
              file=sys.stderr)

    def same_bits(self, model, tokens, runs=10):
        """The dump of every tap of a pass, prefill and decoding, has one hash."""
        start, hashes = time.monotonic(), set()
        for i in range(runs):
            dump = self.scratch / "dump.safetensors"
            dump.unlink(missing_ok=True)
            self.lab("forward", "--model", model, "--backend", "cuda", "--tokens", tokens, "-n",
                     "8", "--ignore-eos", "--dump", str(dump))
            hashes.add(hashlib.sha256(dump.read_bytes()).hexdigest() if dump.exists() else None)
        self.finish(f"{runs} equal runs of {model}", len(hashes) == 1 and None not in hashes,
                    time.monotonic() - start, hashes=len(hashes))

    def statistics(self, model, tokens, backend="cuda"):
        """What a trace says, summed on the device, against the values of an equal run."""
        start, wrong = time.monotonic(), []
        trace, dump = self.scratch / "trace.jsonl", self.scratch / "dump.safetensors"
        for path, option in [(trace, f"--trace={trace}"), (dump, f"--dump={dump}")]:
            path.unlink(missing_ok=True)
            self.lab("forward", "--model", model, "--backend", backend, "--tokens", tokens, "-n",
                     "4", "--ignore-eos", option)
        rows, compared = rows_of(dump) if dump.exists() else {}, 0
        for tap in map(json.loads, trace.open() if trace.exists() else []):
            if tap["kind"] != "tap":
                continue
            layer = "" if tap["layer"] is None else f"L{tap['layer']:02}."
            values = rows[layer + tap["tap"]][tap["token"]]
            compared += 1
            if not is_statistics_of(tap, values):
                wrong.append(f"{layer}{tap['tap']} token {tap['token']}")
        self.finish(f"statistics of {model}", compared > 0 and not wrong,
                    time.monotonic() - start, compared=compared, wrong=wrong[:10])

    def rows(self, model, tokens, backend="cuda"):
        """The speed of every row on a layer's matrices."""
        start, out = time.monotonic(), self.scratch / "bench.json"
        out.unlink(missing_ok=True)
        done = self.lab("bench", "--model", model, "--backend", backend, "--tokens", tokens,
                        "--benchmark_min_time=0.05", f"--benchmark_out={out}")
        bench = json.loads(out.read_text()) if out.exists() else {"context": {}, "benchmarks": []}
        medians = [{key: row.get(key) for key in
                    ("run_name", "real_time", "time_unit", "bytes", "GB/s", "GFLOP/s", "%roof")}
                   for row in bench["benchmarks"] if row.get("aggregate_name") == "median"]
        self.finish(f"speed of rows of {model}, tokens {tokens}",
                    done.returncode == 0 and bool(medians), time.monotonic() - start,
                    code=done.returncode, messages=done.stderr.splitlines()[-5:],
                    context=bench["context"], rows=medians)


def rows_of(dump):
    """{tap: [row of each token]} of a dump of F32."""
    data = dump.read_bytes()
    begin = 8 + int.from_bytes(data[:8], "little")
    rows = {}
    for name, entry in json.loads(data[8:begin]).items():
        if name == "__metadata__":
            continue
        first, last = entry["data_offsets"]
        values, n = array.array("f", data[begin + first:begin + last]), entry["shape"][1]
        rows[name] = [values[i:i + n] for i in range(0, len(values), n)]
    return rows


def is_statistics_of(tap, x):
    """To the nine digits of a trace; math.fsum rounds once."""
    if not all(map(math.isfinite, x)):
        return False
    n, mean = len(x), math.fsum(x) / len(x)
    squares = math.fsum(v * v for v in x)
    std = math.sqrt(math.fsum((v - mean) ** 2 for v in x) / n)
    rms, absmax = math.sqrt(squares / n), max(map(abs, x))
    expected = {"min": (min(x), absmax), "max": (max(x), absmax), "absmax": (absmax, absmax),
                "mean": (mean, rms), "std": (std, rms), "rms": (rms, rms),
                "l2": (math.sqrt(squares), math.sqrt(squares))}  # and what 1e-8 is relative to
    return (tap["n"] == n and tap["zeros"] == x.count(0) and
            tap["argmax"] == next(i for i, v in enumerate(x) if abs(v) == absmax) and
            all(abs(float(tap[key]) - value) <= 1e-8 * scale
                for key, (value, scale) in expected.items()))


def interesting(record):
    return record.get("kind") == "summary" or record.get("verdict") != "pass"


def run_all(run):
    run.step("rows", "check", "--backend", "cuda", "--require", "cuda", "--repeat", "10",
             "--format", "jsonl", keep=interesting)
    for model, tokens, generate in [("tiny", "72,105,33,300,5,32", "10"),
                                    ("random:1.5b", "3838,374,220,17", "2"),
                                    ("random:7b", "3838", "1")]:
        # Accumulated along the pass under f32; under q8, where integers flip on ties, step by step.
        run.step(f"pass of {model}, f32", "check", "--forward", "--model", model, "--backend",
                 "cuda", "--contract", "f32", "--tokens", tokens, "--generate", generate,
                 "--format", "jsonl", keep=interesting)
        run.step(f"steps of {model}, q8", "bisect", "--model", model, "--backend", "cuda",
                 "--contract", "q8", "--tokens", tokens, "--layers", "0,27", "--format", "jsonl",
                 keep=interesting)
    run.same_bits("tiny", "72,105,33")
    run.same_bits("random:1.5b", "3838,374,220,17")
    run.statistics("tiny", "72,105,33")
    run.statistics("random:1.5b", "3838,374")
    sanitizer = shutil.which("compute-sanitizer")
    if not sanitizer:
        run.record(kind="left_out", step="compute-sanitizer", why="not installed")
    for tool in ["memcheck", "racecheck"] if sanitizer else []:
        under = (sanitizer, "--tool", tool, "--error-exitcode", "99")
        run.step(f"{tool}: rows", "check", "--backend", "cuda", "--case", "L03.*", "--format",
                 "jsonl", under=under, keep=interesting)
        run.step(f"{tool}: a pass", "forward", "--model", "tiny", "--backend", "cuda", "--tokens",
                 "72,105,33", "-n", "3", "--ignore-eos", "--trace", under=under)
    for contract in ["q8", "q16", "f32"]:
        run.step(f"speed of random:7b, {contract}", "bench", "--forward", "--model", "random:7b",
                 "--backend", "cuda", "--contract", contract, "--prefill", "2048", "--depths",
                 "0,4096", "--format", "jsonl")
    for tokens in ["1", "512"]:
        run.rows("random:1.5b", tokens)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", type=pathlib.Path, nargs="?", help="pack this build first")
    parser.add_argument("-o", "--output", type=pathlib.Path, default=HERE / "gpu-test.jsonl",
                        help="the JSON lines (default: beside the script that runs)")
    parser.add_argument("--pack-only", action="store_true")
    args = parser.parse_args()
    if args.build:
        script = pack(args.build) / "gpu_test.py"
        if not args.pack_only:
            os.execv(sys.executable, [sys.executable, script, *sys.argv[2:]])
        return

    with tempfile.TemporaryDirectory() as scratch, open(args.output, "w") as out:
        run = Run(out, pathlib.Path(scratch))
        probe = run.lab("check", "--backend", "cuda", "--require", "cuda", "--op", "silu")
        if probe.returncode == CANNOT_RUN:
            why = probe.stderr.strip().removeprefix("lab: ")
            print(f"gpu-test: cannot run here: {why}", file=sys.stderr)
            run.record(kind="cannot_run", why=why)
            sys.exit(CANNOT_RUN)
        run.record(kind="header", date=datetime.datetime.now(datetime.timezone.utc).isoformat(),
                   version=run.lab("--version").stdout.splitlines(),
                   devices=run.lab("list", "devices").stdout.splitlines())
        run_all(run)
        seconds = time.monotonic() - run.begin
        run.record(kind="summary", failed=run.failed, seconds=round(seconds, 1))
    print(f"gpu-test: {run.failed} steps failed, {seconds:.0f} s; {args.output}", file=sys.stderr)
    sys.exit(1 if run.failed else 0)


if __name__ == "__main__":
    main()
