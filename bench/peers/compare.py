#!/usr/bin/env python3
"""Runs lab and llama.cpp on the same GGUF file, in turns, and prints the ratio of their speeds.

    CMAKE_ARGS=-DGGML_NATIVE=ON pip install --no-binary llama-cpp-python llama-cpp-python
    bench/peers/compare.py --lab build/release/lab --model F.gguf [--threads 2] [--contracts q8,q16]

Shared machines change from one minute to the next, so what is compared lies next to each other in
time, and a ratio is taken of neighbours only. The table gives the medians and, of the ratios, the
quartiles; it is printed anew whenever a phase gains something, so that nothing is lost by stopping.

    load       from opening the file to the logits of an 8-token prompt (for lab the whole process,
               start and end included): llama.cpp, then lab, ROUNDS times
    prefill    of N tokens, the same way
    decode@D   both stand at depth D, lab in a process of its own, which is stopped (SIGSTOP) while
               llama.cpp decodes and goes on while llama.cpp waits, TURN seconds each, until lab
               has decoded its tokens. Lab is the faster one, so its depth grows faster.
"""
import argparse
import ctypes
import json
import mmap
import os
import signal
import statistics
import subprocess
import tempfile
import time


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
        ids = some_ids(n, self.vocab)
        start = time.perf_counter()
        for i in range(0, n, at_once):
            part = ids[i : i + at_once]
            array = (ll.llama_token * len(part))(*part)
            if ll.llama_decode(self.context, ll.llama_batch_get_one(array, len(part))) != 0:
                raise SystemExit("llama_decode failed")
        logits = ll.llama_get_logits_ith(self.context, -1)
        ctypes.c_float.from_address(ctypes.addressof(logits.contents)).value
        return time.perf_counter() - start


def some_ids(n, vocab):
    return [(7919 * i + 11) % vocab for i in range(n)]


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


def forward(a, contract, tokens, *flags):
    """The command that runs lab over a prompt of so many tokens."""
    return [a.lab, "forward", "--model", a.model, "--contract", contract, "--threads",
            str(a.threads), "--tokens", ",".join(map(str, some_ids(tokens, a.vocab))), *flags]


class Loading:
    name = "load"

    def __init__(self, a):
        self.a = a

    def llama(self):
        before_loading(self.a.model)
        start = time.perf_counter()
        llama = Llama(self.a.model, self.a.threads, 64)
        llama.seconds_of(8, 8)
        seconds = time.perf_counter() - start
        llama.close()
        return 1 / seconds

    def lab(self, contract):
        before_loading(self.a.model)
        start = time.perf_counter()
        subprocess.run(forward(self.a, contract, 8), check=True, capture_output=True)
        return 1 / (time.perf_counter() - start)


class Prefill:
    name = "prefill"

    def __init__(self, a, llama):
        self.a, self.peer = a, llama

    def llama(self):
        self.peer.clear()
        return self.a.prefill / self.peer.seconds_of(self.a.prefill, 512)

    def lab(self, contract):
        command = forward(self.a, contract, self.a.prefill, "--time", "--format", "jsonl")
        out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        phases = (json.loads(line) for line in out.splitlines() if '"kind":"phase"' in line)
        phase = next(p for p in phases if p["phase"] == "prefill")
        return phase["tokens"] / phase["seconds"]


def seconds_per_token(path, prompt):
    """Of each token that lab decoded, from the times of its steps."""
    with open(path) as file:
        events = json.load(file)["traceEvents"]
    begins = {}
    for e in events:
        token = e["args"]["first_token"]
        if token >= prompt:
            begins.setdefault(token, e["ts"])
    begins = list(begins.values()) + [events[-1]["ts"] + events[-1]["dur"]]
    return [(after - before) / 1e6 for before, after in zip(begins, begins[1:])]


def decode(a, llama, contract, depth):
    """Rates (llama.cpp's, lab's) of neighbouring turns."""
    depth = max(depth, 8)
    llama.clear()
    llama.seconds_of(depth, 512)
    theirs = []
    with tempfile.TemporaryDirectory() as folder:
        times = os.path.join(folder, "times.json")
        lab = subprocess.Popen(forward(a, contract, depth, "-n", str(a.decode + 1), "--ignore-eos",
                                       f"--time={times}"), stdout=subprocess.PIPE)
        try:
            os.read(lab.stdout.fileno(), 1)  # the text of the first token: the prompt is done
            while True:
                try:
                    lab.communicate(timeout=a.turn)
                    break
                except subprocess.TimeoutExpired:
                    lab.send_signal(signal.SIGSTOP)
                n, start = 0, time.perf_counter()
                while time.perf_counter() - start < a.turn:
                    llama.seconds_of(1, 1)
                    n += 1
                theirs.append(n / (time.perf_counter() - start))
                lab.send_signal(signal.SIGCONT)
        finally:
            lab.kill()
        if lab.returncode != 0:
            raise SystemExit(f"lab failed: {' '.join(lab.args[:7])} ...")
        # A token in which lab was stopped took longer than a turn, and ends a turn.
        turns = [[]]
        for seconds in seconds_per_token(times, depth):
            if seconds > a.turn:
                turns.append([])
            else:
                turns[-1].append(seconds)
    pairs = [(peer, 1 / statistics.median(turn)) for peer, turn in zip(theirs, turns) if turn]
    if not pairs:
        raise SystemExit(f"--decode {a.decode}: lab is done in less than one turn of {a.turn} s")
    return pairs


def print_table(results):
    """results: of every phase and contract the pairs of rates (llama.cpp's, lab's)."""
    print(f"\n{'phase':<13}{'llama.cpp':>10}{'':7}{'contract':<10}{'lab':>8}{'':7}"
          f"{'ratio':>6}  {'quartiles':<14}{'pairs':>5}")
    for (phase, contract), pairs in results.items():
        unit = "1/s" if phase == "load" else "tok/s"
        ratios = [ours / peer for peer, ours in pairs]
        low, _, high = statistics.quantiles(ratios, n=4, method="inclusive") if len(
            ratios) > 1 else ratios * 3
        print(f"{phase:<13}{statistics.median(p for p, _ in pairs):>10.2f} {unit:<6}{contract:<10}"
              f"{statistics.median(o for _, o in pairs):>8.2f} {unit:<6}"
              f"{statistics.median(ratios):>6.2f}  {f'{low:.2f} to {high:.2f}':<14}{len(pairs):>5}",
              flush=True)


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--lab", default="build/release/lab", help="the binary (default: %(default)s)")
    p.add_argument("--model", required=True, help="a GGUF file")
    p.add_argument("--threads", type=int, default=2, help="of both (default: %(default)s)")
    p.add_argument("--contracts", default="q8,q16", help="of lab (default: %(default)s)")
    p.add_argument("--rounds", type=int, default=5,
                   help="of load and prefill (default: %(default)s; 0: none)")
    p.add_argument("--prefill", type=int, default=512, help="tokens (default: %(default)s)")
    p.add_argument("--decode", type=int, default=300, help="tokens of lab (default: %(default)s)")
    p.add_argument("--turn", type=float, default=1, help="seconds (default: %(default)s)")
    p.add_argument("--depths", default="0,4096", help="where to decode (default: %(default)s)")
    a = p.parse_args()
    a.depths = [int(d) for d in a.depths.split(",")] if a.depths else []
    a.contracts = a.contracts.split(",")
    return a


def main():
    silent = ll.llama_log_callback(lambda level, text, data: None)
    ll.llama_log_set(silent, None)
    print(f"llama.cpp: {ll.llama_print_system_info().decode()}")
    results = {}
    llama = Llama(a.model, a.threads, max([a.prefill, *a.depths]) + a.decode + 16)
    a.vocab = llama.vocab
    for phase in Loading(a), Prefill(a, llama):
        for _ in range(a.rounds):
            for contract in a.contracts:
                pair = phase.llama(), phase.lab(contract)
                results.setdefault((phase.name, contract), []).append(pair)
            print_table(results)
    for depth in a.depths:
        for contract in a.contracts:
            results[f"decode@{depth}", contract] = decode(a, llama, contract, depth)
            print_table(results)
    llama.close()


if __name__ == "__main__":
    a = arguments()
    import llama_cpp as ll  # after the arguments: --help works without it

    main()
