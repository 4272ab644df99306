"""Makes the golden APR files with tests/gguf2apr.py, which shares no code with lab.

  pip install numpy gguf==0.19.0
  python tests/make_apr_golden.py        # writes into tests/golden
"""
import json, os, struct
import gguf, numpy as np
import gguf2apr as apr

GOLDEN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "golden")
path = lambda name: os.path.join(GOLDEN, name)


def byte_alphabet():
    """GPT-2's printable stand-ins for the 256 bytes."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    extra = iter(range(256, 512))
    return [chr(b) if b in plain else chr(next(extra)) for b in range(256)]


def make_micro():
    """One layer, hidden 8, tied output, F32: the smallest whole model."""
    rng = np.random.default_rng(7)
    w = gguf.GGUFWriter(path("micro.gguf"), "qwen2")
    for key, value in (("block_count", 1), ("context_length", 64), ("embedding_length", 8), ("feed_forward_length", 16),
                       ("attention.head_count", 2), ("attention.head_count_kv", 1)):
        w.add_uint32(f"qwen2.{key}", value)
    w.add_float32("qwen2.rope.freq_base", 1e6)
    w.add_float32("qwen2.attention.layer_norm_rms_epsilon", 1e-6)
    tokens = byte_alphabet() + ["is", "his", "<|im_end|>"]
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre("qwen2")
    w.add_token_list(tokens)
    w.add_token_types([1] * (len(tokens) - 1) + [3])
    w.add_token_merges(["i s", "h is"])
    shapes = {"token_embd.weight": (len(tokens), 8), "output_norm.weight": (8,)}
    for name, shape in (("attn_norm.weight", (8,)), ("ffn_norm.weight", (8,)), ("attn_q.weight", (8, 8)), ("attn_q.bias", (8,)),
                        ("attn_k.weight", (4, 8)), ("attn_k.bias", (4,)), ("attn_v.weight", (4, 8)), ("attn_v.bias", (4,)),
                        ("attn_output.weight", (8, 8)), ("ffn_gate.weight", (16, 8)), ("ffn_up.weight", (16, 8)), ("ffn_down.weight", (8, 16))):
        shapes["blk.0." + name] = shape
    for name, shape in shapes.items():
        w.add_tensor(name, rng.standard_normal(shape).astype(np.float32))
    w.write_header_to_file(); w.write_kv_data_to_file(); w.write_tensors_to_file(); w.close()
    apr.convert(path("micro.gguf"), path("micro.apr"))


def write_safetensors(name, arrays):
    header, data = {}, b""
    for key, a in arrays.items():
        header[key] = {"dtype": "F32", "shape": list(a.shape), "data_offsets": [len(data), len(data) + a.nbytes]}
        data += a.astype("<f4").tobytes()
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path(name), "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + data)


def make_types():
    """APR's own types, rows padded to whole blocks, and codes that two types share; no ggml_types to tell them apart."""
    rng = np.random.default_rng(8)
    x = rng.standard_normal((5, 50)).astype(np.float32)
    q4 = bytearray(apr.pack_apr_q4(x))
    for block, scale in ((0, 0x7e00), (1, 0x7c00), (2, 0x0001), (3, 0x8000)):    # NaN, infinite, subnormal, -0
        q4[18 * block:18 * block + 2] = struct.pack("<H", scale)
    def blocks(rows, per_row, size, d_at):
        b = rng.integers(0, 256, (rows * per_row, size), dtype=np.uint8)
        for at in d_at:
            b[:, at:at + 2] = np.array([0.01], "<f2").view(np.uint8)
        return b.tobytes()
    tensors = {"q4": (128, x.shape, bytes(q4)), "q4_old": (8, x.shape, apr.pack_apr_q4(x)), "q8": (129, x.shape, apr.pack_apr_q8(x)),
               "q8_old": (9, x.shape, apr.pack_apr_q8(x)), "padded": (12, (4, 300), blocks(4, 2, 144, (0, 2))),
               "q5_0": (6, (3, 64), blocks(3, 2, 22, (0,))), "q8_0": (8, (3, 64), blocks(3, 2, 34, (0,))),
               "q4_1": (3, (3, 64), blocks(3, 2, 20, (0, 2))), "i8": (6, (3, 64), x.tobytes()[:192]),
               "bf16": (30, (3, 64), blocks(3, 64, 2, (0,)))}
    apr.write_apr(path("apr_types.apr"), {"model_type": "types"},
                  [(n, code, list(dims), len(b), (lambda b=b: iter([b]))) for n, (code, dims, b) in tensors.items()])
    a = apr.Apr(path("apr_types.apr"))
    write_safetensors("apr_types.safetensors", {n: a.decode(n) for n in tensors if n not in ("q4_1", "i8")})


make_micro()
make_types()
apr.convert(path("every_type.gguf"), path("every_type.apr"), names="gguf")
