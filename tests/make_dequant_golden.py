#!/usr/bin/env python3
"""Make the golden data of the dequantisation tests with the `gguf` Python package.

    pip install gguf==0.19.0 safetensors
    python tests/make_dequant_golden.py --model F.gguf

It writes, into tests/golden (or --out):

every_type.gguf         A small GGUF v3 with one tensor [24 rows, 512 columns] per block type, `t.F32` ... `t.Q6_K`. The bytes are
                        written directly, from a fixed seed, not by a quantiser, so that they hold what quantisers seldom make:
                        zero, negative, subnormal and largest scales, every six-bit scale and min, every int8 scale, quants all
                        zero and all ones. There is no NaN or Inf among the floats and scales.
every_type.safetensors  The same tensors as float32, by gguf.quants.dequantize.
qwen15_dequant.sha256   Only with --model (Qwen2.5-Coder-1.5B-Instruct Q4_K_M): a line `<sha256>  <tensor name>` per tensor, sorted
                        by name; the hash is over the little-endian float32 bytes of gguf's dequantised values, row-major.
"""

import argparse
import hashlib
from pathlib import Path

import gguf
import numpy as np
from gguf.quants import dequantize
from safetensors.numpy import save

ROWS, COLS = 24, 512
COUNT = ROWS * COLS
MODEL_SHA256 = "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046"
TYPES = ["F32", "F16", "BF16", "Q4_0", "Q5_0", "Q8_0", "Q4_K", "Q5_K", "Q6_K"]

# f16 bits: 0, smallest and largest subnormal, smallest normal, 1, largest finite; each with both signs
HALF = [s | b for b in (0x0000, 0x0001, 0x03FF, 0x0400, 0x3C00, 0x7BFF) for s in (0x0000, 0x8000)]


class Random:
    """RandomState, because its stream is frozen: the same bytes with every NumPy."""

    def __init__(self, seed):
        self.state = np.random.RandomState(seed)

    def raw(self, n):
        return np.frombuffer(self.state.bytes(n), np.uint8).copy()

    def floats(self, n, unsigned, exponent):
        """n random bit patterns of a float format, those of Inf and NaN left out."""
        out = np.empty(0, unsigned)
        while out.size < n:
            bits = self.raw(2 * n * np.dtype(unsigned).itemsize).view(unsigned)
            out = np.concatenate([out, bits[(bits & unsigned(exponent)) != unsigned(exponent)]])
        return out[:n]

    def half(self):
        return int(self.floats(1, np.uint16, 0x7C00)[0])


def le16(bits):
    return np.array([bits], "<u2").view(np.uint8)


def plain(rng, name):
    """F32, F16, BF16: the special values, every exponent with both signs, then random bits."""
    if name == "F32":
        unsigned, exponent, mantissa, width = np.uint32, 0x7F800000, 23, 32
    elif name == "F16":
        unsigned, exponent, mantissa, width = np.uint16, 0x7C00, 10, 16
    else:
        unsigned, exponent, mantissa, width = np.uint16, 0x7F80, 7, 16
    top = exponent >> mantissa
    ones = (1 << mantissa) - 1
    bits = [0, 1, ones, 1 << mantissa, exponent - 1, (top // 2) << mantissa]  # the last one is 1.0
    bits += [e << mantissa for e in range(top)] + [(e << mantissa) | ones for e in range(top)]
    if width == 16:
        bits += range(1 << mantissa)  # every subnormal
    bits = [b | s for b in bits for s in (0, 1 << (width - 1))]
    out = np.concatenate([np.array(bits, unsigned), rng.floats(COUNT - len(bits), unsigned, exponent)])
    assert ((out & unsigned(exponent)) != unsigned(exponent)).all()
    return out.astype(out.dtype.newbyteorder("<")).view(np.uint8)


def small(rng, quants):
    """Q4_0, Q5_0, Q8_0: f16 d, then `quants` bytes, 32 values a block."""
    blocks = []
    for d in HALF:
        for q in (rng.raw(quants), np.zeros(quants, np.uint8), np.full(quants, 0xFF, np.uint8),
                  np.full(quants, 0x80, np.uint8), np.full(quants, 0x7F, np.uint8)):
            blocks.append(np.concatenate([le16(d), q]))
    while len(blocks) < COUNT // 32:
        blocks.append(np.concatenate([le16(rng.half()), rng.raw(quants)]))
    return np.concatenate(blocks)


def pack_six_bits(scales, mins):
    """The 12 bytes of eight six-bit scales and mins."""
    out = np.zeros(12, np.uint8)
    for j in range(4):
        out[j] = scales[j] | (scales[j + 4] >> 4) << 6
        out[j + 4] = mins[j] | (mins[j + 4] >> 4) << 6
        out[j + 8] = (scales[j + 4] & 15) | (mins[j + 4] & 15) << 4
    return out


def with_mins(rng, quants):
    """Q4_K, Q5_K: f16 d, f16 dmin, 12 bytes of scales and mins, then `quants` bytes, 256 values a block."""
    zero, full = np.zeros(quants, np.uint8), np.full(quants, 0xFF, np.uint8)
    blocks = []

    def add(d, dmin, scales, q):
        blocks.append(np.concatenate([le16(d), le16(dmin), scales, q]))

    for b in range(16):  # every value 0..63 as scale and as min, in the lower and in the upper four
        low = [4 * b + j for j in range(4)]
        values = low + [63 - v for v in low]
        mins = [(29 * v + 17) % 64 for v in values]
        add(rng.half(), rng.half(), pack_six_bits(values, mins), rng.raw(quants))
    for i, d in enumerate(HALF):
        add(d, HALF[(5 * i + 3) % len(HALF)], rng.raw(12), rng.raw(quants))
    for i, d in enumerate(HALF):
        add(d, HALF[(7 * i + 4) % len(HALF)], rng.raw(12), full if i % 4 < 2 else zero)
    add(0x0000, 0x0000, np.zeros(12, np.uint8), zero)
    add(0x7BFF, 0xFBFF, np.full(12, 0xFF, np.uint8), full)
    add(0xFBFF, 0x7BFF, np.full(12, 0xFF, np.uint8), full)
    add(0x3C00, 0x3C00, np.zeros(12, np.uint8), full)
    while len(blocks) < COUNT // 256:
        add(rng.half(), rng.half(), rng.raw(12), rng.raw(quants))
    return np.concatenate(blocks)


def six_bit(rng):
    """Q6_K: 128 bytes of low bits, 64 of high bits, 16 int8 scales, f16 d, 256 values a block."""
    zero, full = np.zeros(192, np.uint8), np.full(192, 0xFF, np.uint8)
    blocks = []

    def add(q, scales, d):
        blocks.append(np.concatenate([q, scales, le16(d)]))

    for b in range(16):  # every int8 value
        add(rng.raw(192), ((np.arange(16) * 16 + b) % 256).astype(np.uint8), rng.half())
    for d in HALF:
        add(rng.raw(192), rng.raw(16), d)
    for i, d in enumerate(HALF):
        add(full if i % 4 < 2 else zero, rng.raw(16), d)
    add(zero, np.zeros(16, np.uint8), 0x0000)
    add(zero, np.full(16, 0x80, np.uint8), 0x7BFF)
    add(full, np.full(16, 0x7F, np.uint8), 0xFBFF)
    add(rng.raw(192), np.tile(np.array([0x80, 0x7F], np.uint8), 8), 0x3C00)
    while len(blocks) < COUNT // 256:
        add(rng.raw(192), rng.raw(16), rng.half())
    return np.concatenate(blocks)


def tensor_bytes(name):
    rng = Random(20240 + TYPES.index(name))
    if name in ("F32", "F16", "BF16"):
        data = plain(rng, name)
    elif name == "Q6_K":
        data = six_bit(rng)
    elif name in ("Q4_K", "Q5_K"):
        data = with_mins(rng, {"Q4_K": 128, "Q5_K": 160}[name])
    else:
        data = small(rng, {"Q4_0": 16, "Q5_0": 20, "Q8_0": 32}[name])
    return data.reshape(ROWS, -1)


def float32_rows(tensor, first, last):
    """Rows of a read tensor as little-endian float32."""
    data = tensor.data
    rows = np.ascontiguousarray(data.reshape(-1, data.shape[-1])[first:last])
    return dequantize(rows, tensor.tensor_type).astype("<f4", copy=False)


def make_every_type(out):
    path = out / "every_type.gguf"
    writer = gguf.GGUFWriter(path, "qwen2")
    writer.add_description("one tensor per block type, made by tests/make_dequant_golden.py")
    raw = {name: tensor_bytes(name) for name in TYPES}
    for name in TYPES:
        writer.add_tensor(f"t.{name}", raw[name], raw_dtype=gguf.GGMLQuantizationType[name])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    values = {}
    for tensor in gguf.GGUFReader(path).tensors:
        name = tensor.name.removeprefix("t.")
        assert tensor.tensor_type.name == name and list(tensor.shape) == [COLS, ROWS]
        assert tensor.data.tobytes() == raw[name].tobytes()
        values[tensor.name] = float32_rows(tensor, 0, ROWS)
        assert values[tensor.name].shape == (ROWS, COLS) and np.isfinite(values[tensor.name]).all(), name
    assert len(values) == len(TYPES) and path.stat().st_size < 200_000
    (out / "every_type.safetensors").write_bytes(save(values))


def make_model_hashes(model, out, chunk=2048):
    with open(model, "rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != MODEL_SHA256:
            raise SystemExit(f"{model}: not the expected file, its sha256 is not {MODEL_SHA256}")
    lines = []
    for tensor in sorted(gguf.GGUFReader(model).tensors, key=lambda t: t.name):
        rows = tensor.data.size // tensor.data.shape[-1]
        digest, count = hashlib.sha256(), 0
        for first in range(0, rows, chunk):
            part = float32_rows(tensor, first, first + chunk)
            digest.update(part.tobytes())
            count += part.size
        assert count == tensor.n_elements, tensor.name
        lines.append(f"{digest.hexdigest()}  {tensor.name}\n")
    assert len(lines) == 339
    (out / "qwen15_dequant.sha256").write_text("".join(lines), newline="\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="the real model; without it only the every_type files are made")
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent / "golden")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    make_every_type(args.out)
    if args.model:
        make_model_hashes(args.model, args.out)


if __name__ == "__main__":
    main()
