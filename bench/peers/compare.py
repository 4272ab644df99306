#!/usr/bin/env python3
"""Runs lab and llama.cpp on the same GGUF file, in turns, and prints the ratio of their speeds.

    CMAKE_ARGS=-DGGML_NATIVE=ON pip install --no-binary llama-cpp-python llama-cpp-python
    bench/peers/compare.py --lab build/release/lab --model F.gguf [--threads 2] [--contracts q8,q16]

Every round times, one right after the other: llama.cpp, then lab under each contract. A ratio is
taken within its round, since shared machines change from minute to minute; the table gives the
median over the rounds, and their smallest and largest.
Phases: prefill of N tokens; decoding at each depth; load, from opening the file to the logits of an
8-token prompt (for lab the whole process, start and end included).
The table is printed after every round, over all rounds so far: nothing is lost by stopping.
"""
import argparse
import ctypes
import json
import mmap
import os
import statistics
import subprocess
import time

import llama_cpp as ll


class Llama:
    """A model of llama.cpp with a context; KV in f16 and everything else as by default."""

    def __init__(self, path, threads, capacity):
        params = ll.llama_model_default_params()
        self.model = ll.llama_model_load_from_file(path.encode(), params)
        if not self.model:
            raise SystemExit(f"llama.cpp cannot load {path}")
        params = ll.llama_context_default_params()
        params.n_ctx = capacity
        params.n_batch = params.n_ubatch = 512
        params.n_threads = params.n_threads_batch = threads
        self.context = ll.llama_init_from_model(self.model, params)
        self.vocab = ll.llama_vocab_n_tokens(ll.llama_model_get_vocab(self.model))

    def close(self):
        ll.llama_free(self.context)
        ll.llama_model_free(self.model)

    def clear(self):
        ll.llama_memory_clear(ll.llama_get_memory(self.context), True)

    def seconds_of(self, n, at_once):
        """Time of n more tokens, `at_once` in a batch; the logits of the last are read."""
        ids = [(7919 * i + 11) % self.vocab for i in range(n)]
        start = time.perf_counter()
        for i in range(0, n, at_once):
            part = ids[i : i + at_once]
            array = (ll.llama_token * len(part))(*part)
            if ll.llama_decode(self.context, ll.llama_batch_get_one(array, len(part))) != 0:
                raise SystemExit("llama_decode failed")
        logits = ll.llama_get_logits_ith(self.context, -1)
        ctypes.c_float.from_address(ctypes.addressof(logits.contents)).value
        return time.perf_counter() - start


def before_loading(path):
    """Loading is timed with the file in memory and with free memory to load it to. The system may
    have let go of the one; a virtual machine's host takes the other back while nobody uses it, and
    the process that touches it next pays for it (measured: 0.4 s of loading became 1.3 s)."""
    free = mmap.mmap(-1, 2 * os.path.getsize(path), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    free.madvise(mmap.MADV_HUGEPAGE)
    for page in range(0, len(free), mmap.PAGESIZE):
        free[page] = 1
    free.close()
    with open(path, "rb", buffering=0) as file:
        while file.read(1 << 24):
            pass


def llama_round(a):
    rates = {}
    before_loading(a.model)
    start = time.perf_counter()
    llama = Llama(a.model, a.threads, max(a.prefill, a.depths[-1] + a.decode) + 8)
    llama.seconds_of(8, 8)
    rates["load"] = 1 / (time.perf_counter() - start)
    llama.clear()
    rates["prefill"] = a.prefill / llama.seconds_of(a.prefill, 512)
    llama.clear()
    position = 0
    for depth in a.depths:
        if depth > position:
            llama.seconds_of(depth - position, 512)
            position = depth
        rates[f"decode@{depth}"] = a.decode / llama.seconds_of(a.decode, 1)
        position += a.decode
    llama.close()
    return rates


def lab_round(a, contract):
    common = ["--model", a.model, "--contract", contract, "--threads", str(a.threads)]
    before_loading(a.model)
    start = time.perf_counter()
    subprocess.run([a.lab, "forward", *common, "--tokens", "11,12,13,14,15,16,17,18"],
                   check=True, capture_output=True)
    rates = {"load": 1 / (time.perf_counter() - start)}
    out = subprocess.run(
        [a.lab, "bench", "--forward", *common, "--prefill", str(a.prefill), "--decode",
         str(a.decode), "--depths", ",".join(map(str, a.depths)), "--format", "jsonl"],
        check=True, capture_output=True, text=True).stdout
    for line in out.splitlines():
        record = json.loads(line)
        if record.get("run") == "prefill":
            rates["prefill"] = float(record["tok/s"])
        elif record.get("run") == "decode":
            rates[f"decode@{record['depth']}"] = float(record["tok/s"])
    return rates


def print_table(rounds, contracts):
    print(f"{'phase':<13}{'llama.cpp':>10}{'':7}{'contract':<10}{'lab':>8}{'':7}"
          f"{'ratio':>6}  {'spread':<12}")
    for phase in rounds[0][0]:
        peer = statistics.median(r[0][phase] for r in rounds)
        unit = "1/s" if phase == "load" else "tok/s"
        for c in contracts:
            ours = statistics.median(r[1][c][phase] for r in rounds)
            ratios = [r[1][c][phase] / r[0][phase] for r in rounds]
            print(f"{phase:<13}{peer:>10.2f} {unit:<6}{c:<10}{ours:>8.2f} {unit:<6}"
                  f"{statistics.median(ratios):>6.2f}  {min(ratios):.2f} to {max(ratios):.2f}", flush=True)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--lab", default="build/release/lab", help="the binary (default: %(default)s)")
    p.add_argument("--model", required=True, help="a GGUF file")
    p.add_argument("--threads", type=int, default=2, help="of both (default: %(default)s)")
    p.add_argument("--contracts", default="q8,q16", help="of lab (default: %(default)s)")
    p.add_argument("--rounds", type=int, default=5, help="(default: %(default)s)")
    p.add_argument("--prefill", type=int, default=512, help="tokens (default: %(default)s)")
    p.add_argument("--decode", type=int, default=32, help="tokens (default: %(default)s)")
    p.add_argument("--depths", default="0,4096", help="where to decode (default: %(default)s)")
    a = p.parse_args()
    a.depths = [int(d) for d in a.depths.split(",")]
    contracts = a.contracts.split(",")

    silent = ll.llama_log_callback(lambda level, text, data: None)
    ll.llama_log_set(silent, None)
    print(f"llama.cpp: {ll.llama_print_system_info().decode()}")
    rounds = []
    for i in range(a.rounds):
        rounds.append((llama_round(a), {c: lab_round(a, c) for c in contracts}))
        print(f"\nround {i + 1} of {a.rounds}")
        print_table(rounds, contracts)


if __name__ == "__main__":
    main()
