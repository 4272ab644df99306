#!/usr/bin/env python3
"""A dump of the built-in model by another program, right and with one wrong op: a float32 forward pass in NumPy that
shares no code with lab.

    pip install numpy gguf==0.19.0 safetensors
    lab synth tiny -o tiny.gguf
    python tests/make_foreign_golden.py tiny.gguf tests/golden/tiny.foreign.safetensors

Names and shapes are those of hooks on HF transformers where it has such a value ([1, token, channel], inputs of a module
as `:input`), else of a program of its own (tests/golden/tiny.foreign.toml). Layer 5 is kept, and what enters it. `gelu/NAME` is
what the tensor NAME becomes with that mistake in layer 5, for the tensors that it changes.
"""
import argparse

import gguf
import numpy as np
from safetensors.numpy import save_file

TOKENS = [87, 300, 63]
KEPT, BROKEN = (5,), 5
F = np.float32


def gelu(x):
    return (0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))).astype(F)


def silu(x):
    return x / (1 + np.exp(-x))


class Model:
    def __init__(self, path):
        reader = gguf.GGUFReader(path)
        self.w = {t.name: gguf.quants.dequantize(t.data, t.tensor_type).astype(F) for t in reader.tensors}
        key = lambda name: reader.fields["qwen2." + name].contents()
        self.heads, self.kv_heads = key("attention.head_count"), key("attention.head_count_kv")
        self.layers, self.base = key("block_count"), float(key("rope.freq_base"))
        self.eps = F(key("attention.layer_norm_rms_epsilon"))
        self.dim = self.w["blk.0.attn_q.weight"].shape[0] // self.heads

    def norm(self, x, weight):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + self.eps) * weight

    def rope(self, x, first_position):
        """x [token, channel] -> [1, head, token, dim]"""
        n, half = len(x), self.dim // 2
        angles = np.outer(first_position + np.arange(n), self.base ** (-np.arange(half) / half))
        c, s = np.cos(angles).astype(F), np.sin(angles).astype(F)
        a, b = np.split(x.reshape(n, -1, self.dim).transpose(1, 0, 2), 2, axis=-1)
        return np.concatenate([a * c - b * s, b * c + a * s], -1)[None]

    def attention(self, q, k, v, wrong):
        n = q.shape[2]
        v = v.reshape(n, self.kv_heads, self.dim)
        out = np.zeros((n, self.heads, self.dim), F)
        for head in range(self.heads):
            kv = head % self.kv_heads if wrong == "head_map" else head // (self.heads // self.kv_heads)
            scores = q[0, head] @ k[0, kv].T / np.sqrt(F(self.dim))
            scores[np.triu_indices(n, 1)] = -np.inf
            e = np.exp(scores - scores.max(-1, keepdims=True))
            out[:, head] = e / e.sum(-1, keepdims=True) @ v[:, kv]
        return out.reshape(n, -1)

    def layer(self, index, x, wrong, keep):
        name = f"model.layers.{index}."
        p = {k.split(".", 2)[2]: v for k, v in self.w.items() if k.startswith(f"blk.{index}.")}
        h = self.norm(x, p["attn_norm.weight"])
        keep(name + "input_layernorm", h[None])
        proj = {}
        for c in "qkv":
            weight, bias = p[f"attn_{c}.weight"], p[f"attn_{c}.bias"]
            if wrong == "transposed" and c == "q":
                weight = weight.T
            before = h @ weight.T
            proj[c] = before if wrong == "bias" and c == "k" else before + bias
            keep(f"my.{index}.{c}_matmul", before.T)  # [channel, token]
            keep(name + f"self_attn.{c}_proj", proj[c][None])
        q, k = self.rope(proj["q"], wrong == "rope"), self.rope(proj["k"], 0)
        keep(f"my.{index}.rope_q", q)
        keep(f"my.{index}.rope_k", k)
        ctx = self.attention(q, k, proj["v"], wrong)
        keep(name + "self_attn.o_proj:input", ctx[None])
        out = ctx @ p["attn_output.weight"].T
        keep(name + "self_attn.o_proj", out[None])
        x = x + out
        keep(name + "post_attention_layernorm:input", x[None])
        h = self.norm(x, p["ffn_norm.weight"])
        keep(name + "post_attention_layernorm", h[None])
        gate, up = h @ p["ffn_gate.weight"].T, h @ p["ffn_up.weight"].T
        act = gelu(gate) if wrong == "gelu" else silu(gate)
        product = act * up
        out = product @ p["ffn_down.weight"].T
        for tap, value in {"gate_proj": gate, "up_proj": up, "act_fn": act, "down_proj:input": product, "down_proj": out}.items():
            keep(name + "mlp." + tap, value[None])
        x = x + out
        keep(f"model.layers.{index}", x[None])
        return x

    def run(self, wrong=None):
        tensors = {"input_ids": np.array([TOKENS], np.int64)}
        keep = lambda name, value: tensors.__setitem__(name, np.ascontiguousarray(value, F))
        drop = lambda name, value: None
        x = self.w["token_embd.weight"][TOKENS]
        keep("model.embed_tokens", x[None])
        for index in range(BROKEN + 1):
            if index == KEPT[0] and index > 0:
                keep(f"model.layers.{index - 1}", x[None])
            x = self.layer(index, x, wrong if index == BROKEN else None, keep if index in KEPT else drop)
        return tensors


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("out")
    args = parser.parse_args()
    model = Model(args.model)
    right = model.run()
    tensors = dict(right)
    for wrong in ("gelu", "transposed", "rope", "head_map", "bias"):
        for name, value in model.run(wrong).items():
            if value.tobytes() != right[name].tobytes():
                tensors[f"{wrong}/{name}"] = value
    save_file(tensors, args.out)


main()
