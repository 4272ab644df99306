#!/usr/bin/env python3
"""Golden data for the built-in model: a float64 forward pass in NumPy that shares no code with lab.

    pip install gguf==0.19.0
    lab synth tiny -o tiny.gguf
    python tests/make_tiny_golden.py tiny.gguf > tests/golden/tiny.jsonl

Weights are dequantised to float32 by the gguf package. One line for each tap, layer and token with
mean, std (population), absmax and l2, one "top" line for each token.
"""
import argparse
import json

import gguf
import numpy as np

TOKENS = [87, 104, 97, 116, 32, 105, 300, 50, 43, 511, 0, 63]


def emit(tap, layer, rows):
    for token, x in enumerate(rows):
        figures = {"mean": x.mean(), "std": x.std(), "absmax": np.abs(x).max(), "l2": np.sqrt((x * x).sum())}
        record = {"kind": "tap", "tap": tap, "layer": layer, "token": token}
        print(json.dumps(record | {k: float(f"{v:.9g}") for k, v in figures.items()}))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    reader = gguf.GGUFReader(parser.parse_args().model)
    w = {t.name: gguf.quants.dequantize(t.data, t.tensor_type).astype(np.float64) for t in reader.tensors}
    key = lambda name: reader.fields["qwen2." + name].contents()
    heads, kv_heads, layers = key("attention.head_count"), key("attention.head_count_kv"), key("block_count")
    eps, base = float(np.float32(key("attention.layer_norm_rms_epsilon"))), float(key("rope.freq_base"))
    n = len(TOKENS)
    head_dim = w["blk.0.attn_q.weight"].shape[0] // heads
    angles = np.outer(np.arange(n), base ** (-2.0 * np.arange(head_dim // 2) / head_dim))

    def norm(x, weight):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * weight

    def rope(x, n_heads):
        x = x.reshape(n, n_heads, head_dim)
        a, b = np.split(x, 2, axis=-1)
        c, s = np.cos(angles)[:, None], np.sin(angles)[:, None]
        return np.concatenate([a * c - b * s, b * c + a * s], -1)

    print(json.dumps({"kind": "header", "model": "tiny", "tokens": TOKENS}))
    x = w["token_embd.weight"][TOKENS]
    emit("embedding", None, x)
    for layer in range(layers):
        p = {k.split(".", 2)[2]: v for k, v in w.items() if k.startswith(f"blk.{layer}.")}
        h = norm(x, p["attn_norm.weight"])
        q, k, v = (h @ p[f"attn_{c}.weight"].T + p[f"attn_{c}.bias"] for c in "qkv")
        emit("qkv", layer, np.concatenate([q, k, v], -1))
        q, k, v = rope(q, heads), rope(k, kv_heads), v.reshape(n, kv_heads, head_dim)
        emit("k_rope", layer, k.reshape(n, -1))
        ctx = np.zeros((n, heads, head_dim))
        for i in range(heads):
            j = i // (heads // kv_heads)
            scores = q[:, i] @ k[:, j].T / np.sqrt(head_dim)
            scores[np.triu_indices(n, 1)] = -np.inf
            e = np.exp(scores - scores.max(-1, keepdims=True))
            ctx[:, i] = e / e.sum(-1, keepdims=True) @ v[:, j]
        emit("attn_ctx", layer, ctx.reshape(n, -1))
        x = x + ctx.reshape(n, -1) @ p["attn_output.weight"].T
        h = norm(x, p["ffn_norm.weight"])
        gate, up = h @ p["ffn_gate.weight"].T, h @ p["ffn_up.weight"].T
        swiglu = gate / (1 + np.exp(-gate)) * up
        emit("ffn_swiglu", layer, swiglu)
        x = x + swiglu @ p["ffn_down.weight"].T
        emit("layer_out", layer, x)
    h = norm(x, w["output_norm.weight"])
    logits = h @ w["output.weight" if "output.weight" in w else "token_embd.weight"].T
    emit("lm_head", None, logits)
    for token, row in enumerate(logits):
        ids = np.argsort(-row)[:10]
        print(json.dumps({"kind": "top", "token": token, "ids": ids.tolist(), "logits": [float(f"{row[i]:.9g}") for i in ids]}))


main()
