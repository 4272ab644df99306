#!/usr/bin/env python3
"""What nvcc made of the kernels, read from the object files with cuobjdump: no GPU is needed.

    tests/cuda_static.py BUILD            checks the claims below, and the table in notes/cuda.md
    tests/cuda_static.py BUILD --write    writes the table

Claims, for every architecture in the objects: no kernel has a stack or spills to local memory; a
product with quantised weights loads 16 bytes at a time; those of a prefill have mma instructions
from sm_80 on; every kernel waits for the one before from sm_90 on, where Launch lets it begin
early; and the kernels named in HOT and PREFILL are there.
The table is compared where the same nvcc made both. Exit codes: 0, 1 (a claim fails), 125 (no CUDA
objects, or cuobjdump cannot be had; nothing was checked).
"""
import argparse
import os
import pathlib
import re
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
NOTE = ROOT / "notes" / "cuda.md"
BEGIN, END = "<!-- begin: tests/cuda_static.py -->\n", "<!-- end -->\n"
TOOLS = ["nvidia-cuda-cuobjdump", "nvidia-cuda-nvdisasm"]  # on PyPI
QUANTISED = ["Q4_0", "Q5_0", "Q8_0", "Q4_K", "Q5_K", "Q6_K"]
ACTS = ["f32", "q8", "q16"]  # enum Acts of kernels/dot.cuh
# What a pass spends its time in: these with every quantised type, activations and tile of tokens.
HOT = ["MatvecKernel", "GateUpKernel"]
TILES = [1, 4]
# And a prefill: these with every K-quant, integers and tile. Before sm_80 they are stubs.
PREFILL = ["MatvecPrefillKernel", "GateUpPrefillKernel"]
PREFILL_KINDS = [f"{t}, {acts}, {tile}" for t in ["Q4_K", "Q5_K", "Q6_K"] for acts in ["q8", "q16"]
                 for tile in [2, 8]]


def skip(why):
    print(f"cuda_static: skipped: {why}")
    sys.exit(125)


def tool_folder(build):
    """The folder of cuobjdump and nvdisasm: from PATH, else installed beside the build."""
    if shutil.which("cuobjdump") and shutil.which("nvdisasm"):
        return pathlib.Path(shutil.which("cuobjdump")).parent
    place = build / "cuda-tools"
    if not list(place.glob("nvidia/*/bin/nvdisasm")):
        install = [sys.executable, "-m", "pip", "install", "--quiet", "--target", place, *TOOLS]
        try:
            subprocess.run(install, check=True, capture_output=True, text=True, timeout=300)
        except (OSError, subprocess.SubprocessError) as error:
            last = str(getattr(error, "stderr", "") or error).strip().splitlines()[-1]
            skip(f"{' and '.join(TOOLS)} cannot be installed: {last}")
    found = list(place.glob("nvidia/*/bin/cuobjdump"))
    return found[0].parent if found else skip(f"no cuobjdump in {place}")


def block_type_names():
    text = (ROOT / "kernels" / "block_types.h").read_text()
    body = re.search(r"enum class BlockType[^{]*{([^}]*)}", text).group(1)
    return {number: name for name, number in re.findall(r"(\w+) = (\d+)", body)}


def plain_name(mangled_name, types):
    """"MatvecKernel<Q4_K, q8, 1>" of a demangled function."""
    name = mangled_name.replace("(anonymous namespace)::", "").replace("lab::cuda::", "")
    name = re.sub(r"^void ", "", name).split("(lab::MatvecArgs")[0]
    name = re.sub(r"\(lab::BlockType\)(\d+)", lambda m: types[m.group(1)], name)
    name = re.sub(r"\(Acts\)(\d)", lambda m: ACTS[int(m.group(1))], name)
    depth = 0
    for i, c in enumerate(name):  # without the parameters
        depth += (c == "<") - (c == ">")
        if c == "(" and depth == 0:
            return name[:i].replace("lab::", "")
    return name.replace("lab::", "")


def run(folder, *arguments):
    env = dict(os.environ, PATH=f"{folder}:{os.environ['PATH']}")
    dump = subprocess.run([folder / "cuobjdump", *arguments], env=env, capture_output=True,
                          text=True)
    if dump.returncode != 0:
        sys.exit(f"cuda_static: cuobjdump {' '.join(map(str, arguments))}: {dump.stderr.strip()}")
    return subprocess.run(["c++filt"], input=dump.stdout, capture_output=True, text=True,
                          check=True).stdout


def kernels_of(objects, folder):
    """{(architecture, kernel): {"registers", "shared", "stack", "loads16", "mma", "local", "waits"}}"""
    types, kernels = block_type_names(), {}
    for path in objects:
        arch = kernel = None
        for line in run(folder, "-res-usage", path).splitlines():
            if match := re.match(r"arch = (\S+)", line):
                arch = match.group(1)
            elif match := re.match(r"\s*Function (.*):$", line):
                kernel = plain_name(match.group(1), types)
            elif match := re.match(r"\s*REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)", line):
                registers, stack, shared, local = map(int, match.groups())
                kernels[arch, kernel] = {"registers": registers, "shared": shared,
                                         "stack": stack + local, "loads16": 0, "mma": 0, "local": 0,
                                         "waits": 0}
        for line in run(folder, "-sass", path).splitlines():
            if match := re.match(r"arch = (\S+)", line):
                arch = match.group(1)
            elif match := re.match(r"\s*Function : (.*)$", line):
                kernel = plain_name(match.group(1), types)
            elif re.search(r"\bLDG(STS)?\.E[.\w]*\.128", line):
                kernels[arch, kernel]["loads16"] += 1
            elif re.search(r"\bIMMA\.", line):
                kernels[arch, kernel]["mma"] += 1
            elif re.search(r"\bACQBULK\b", line):
                kernels[arch, kernel]["waits"] += 1
            elif re.search(r"\b(LDL|STL)\b", line):
                kernels[arch, kernel]["local"] += 1
    return kernels


def broken_claims(kernels):
    problems = []
    for (arch, name), k in sorted(kernels.items()):
        if k["stack"] or k["local"]:
            problems.append(f"{arch} {name}: a stack of {k['stack']} bytes, {k['local']} loads and "
                            "stores of local memory")
        if int(arch[3:].rstrip("af")) >= 90 and not k["waits"]:
            problems.append(f"{arch} {name}: no WaitForPrevious (ACQBULK)")
    for arch in sorted({arch for arch, _ in kernels}):
        for name in [f"{hot}<{t}, {acts}, {tile}>" for hot in HOT for t in QUANTISED
                     for acts in ACTS for tile in TILES]:
            if (arch, name) not in kernels:
                problems.append(f"{arch}: no kernel {name}")
            elif not kernels[arch, name]["loads16"]:
                problems.append(f"{arch} {name}: no load of 16 bytes (LDG.E.128)")
        for name in [f"{kernel}<{kind}>" for kernel in PREFILL for kind in PREFILL_KINDS]:
            k = kernels.get((arch, name))
            if not k:
                problems.append(f"{arch}: no kernel {name}")
            elif int(arch[3:].rstrip("af")) >= 80 and not (k["mma"] and k["loads16"]):
                problems.append(f"{arch} {name}: {k['mma']} mma (IMMA), {k['loads16']} copies of 16 "
                                "bytes (LDGSTS.E.128)")
    return problems


def group_of(name):
    """Kernels that differ in the type of weights alone share a line of the table."""
    for i, types in enumerate([QUANTISED, ["F32", "F16", "BF16"]]):
        for t in types:
            name = re.sub(rf"\b{t}\b", ["quantised", "float"][i], name)
    return re.sub(r"^ElementwiseKernel<(\w+)Element>", r"\1", name)


def table_of(kernels, arch):
    groups = {}
    for (a, name), k in kernels.items():
        if a == arch:
            groups.setdefault(group_of(name), []).append(k)
    span = lambda values: f"{min(values)}" if min(values) == max(values) \
        else f"{min(values)} to {max(values)}"
    lines = ["| kernel | variants | registers | shared memory | 16-byte loads | mma | spills |",
             "|---|---|---|---|---|---|---|"]
    for name, group in sorted(groups.items()):
        column = lambda key: span([k[key] for k in group])
        lines.append(f"| `{name}` | {len(group)} | {column('registers')} | {column('shared')} | "
                     f"{column('loads16')} | {column('mma')} | {column('local')} |")
    return "\n".join(lines) + "\n"


def nvcc_version(build):
    cache = (build / "CMakeCache.txt").read_text()
    nvcc = re.search(r"^LAB_NVCC:\w+=(.*)$", cache, re.M).group(1)
    text = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=True).stdout
    return re.search(r"V(\d+\.\d+\.\d+)", text).group(1)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", type=pathlib.Path)
    parser.add_argument("--write", action="store_true", help="the table into notes/cuda.md")
    args = parser.parse_args()
    objects = sorted((args.build / "CMakeFiles/lab_cuda.dir/kernels").glob("*.o"))
    if not objects:
        skip(f"no CUDA objects in {args.build}: built without nvcc")
    kernels = kernels_of(objects, tool_folder(args.build))
    problems = broken_claims(kernels)

    arch = "sm_90" if any(a == "sm_90" for a, _ in kernels) else max(a for a, _ in kernels)
    heading = f"{arch}, nvcc {nvcc_version(args.build)}:\n\n"
    table = heading + table_of(kernels, arch)
    note = NOTE.read_text()
    before, rest = note.split(BEGIN)
    old, after = rest.split(END)
    if args.write:
        NOTE.write_text(before + BEGIN + table + END + after)
    elif old.startswith(heading) and old != table:
        problems.append(f"the table in {NOTE.relative_to(ROOT)} is not what these objects give; run"
                        f" {sys.argv[0]} {args.build} --write")
    for problem in problems:
        print(f"cuda_static: {problem}")
    print(f"cuda_static: {len(kernels)} kernels, {len(problems)} problems")
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
