"""Small models in the layouts of LLaDA and MDLM, and what they compute, written down from their formulas."""

from __future__ import annotations

import torch
from torch.nn import functional as F

D, HEADS, FF, LAYERS = 16, 4, 24, 2
LLADA = {
    "d_model": D, "n_heads": HEADS, "n_kv_heads": 2, "n_layers": LAYERS, "mlp_hidden_size": FF,
    "max_sequence_length": 32, "rope_theta": 500.0, "rms_norm_eps": 1e-3, "mask_token_id": 21,
}  # fmt: skip
MDLM = {"n_heads": HEADS, "model_length": 32, "time_conditioning": False}


def noise(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=GENERATOR) * 0.4


GENERATOR = torch.Generator().manual_seed(0)


def rope(x, base):
    """x[B, heads, T, h], half-split."""
    h = x.shape[-1]
    angles = torch.arange(x.shape[2])[:, None] * base ** (-torch.arange(0, h, 2, dtype=torch.float64) / h)
    one, two = x[..., : h // 2], x[..., h // 2 :]
    return torch.cat([one * angles.cos() - two * angles.sin(), two * angles.cos() + one * angles.sin()], -1)


def attend(q, k, v, base):
    """Each [B, T, heads * h] -> [B, T, D]."""
    h = D // HEADS
    q, k, v = (x.unflatten(2, (-1, h)).transpose(1, 2) for x in (q, k, v))
    k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], 1) for x in (k, v))
    weights = (rope(q, base) @ rope(k, base).transpose(2, 3) / h**0.5).softmax(-1)
    return (weights @ v).transpose(1, 2).flatten(2)


def llada_state(vocab=24):
    rows = {"q_proj": D, "k_proj": D // 2, "v_proj": D // 2, "attn_out": D, "ff_proj": FF, "up_proj": FF}
    state = {"wte.weight": noise(vocab, D), "ln_f.weight": 1 + noise(D), "ff_out.weight": noise(vocab, D)}
    for i in range(LAYERS):
        state |= {f"blocks.{i}.{name}.weight": noise(count, D) for name, count in rows.items()}
        state |= {f"blocks.{i}.{name}.weight": 1 + noise(D) for name in ("attn_norm", "ff_norm")}
        state[f"blocks.{i}.ff_out.weight"] = noise(D, FF)
    return {f"model.transformer.{name}": tensor for name, tensor in state.items()}


def llada_logits(state, ids):
    def w(name):
        return state[f"model.transformer.{name}.weight"]

    def norm(x, name):
        return w(name) * x * (x.square().mean(-1, keepdim=True) + 1e-3).rsqrt()

    x = w("wte")[ids]
    for i in range(LAYERS):
        block = f"blocks.{i}."
        n = norm(x, block + "attn_norm")
        q, k, v = (n @ w(block + name).T for name in ("q_proj", "k_proj", "v_proj"))
        x = x + attend(q, k, v, 500.0) @ w(block + "attn_out").T
        n = norm(x, block + "ff_norm")
        x = x + (F.silu(n @ w(block + "ff_proj").T) * (n @ w(block + "up_proj").T)) @ w(block + "ff_out").T
    return norm(x, "ln_f") @ w("ff_out").T


def mdlm_state(vocab=13, c=10):
    state = {
        "vocab_embed.embedding": noise(vocab, D),
        "sigma_map.mlp.0.weight": noise(c, 256), "sigma_map.mlp.0.bias": noise(c),
        "sigma_map.mlp.2.weight": noise(c, c), "sigma_map.mlp.2.bias": noise(c),
        "rotary_emb.inv_freq": noise(D // HEADS // 2),
        "output_layer.norm_final.weight": 1 + noise(D),
        "output_layer.linear.weight": noise(vocab, D), "output_layer.linear.bias": noise(vocab),
        "output_layer.adaLN_modulation.weight": noise(2 * D, c), "output_layer.adaLN_modulation.bias": noise(2 * D),
    }  # fmt: skip
    for i in range(LAYERS):
        own = {
            "norm1.weight": 1 + noise(D), "norm2.weight": 1 + noise(D),
            "attn_qkv.weight": noise(3 * D, D), "attn_out.weight": noise(D, D),
            "mlp.0.weight": noise(FF, D), "mlp.0.bias": noise(FF), "mlp.2.weight": noise(D, FF), "mlp.2.bias": noise(D),
            "adaLN_modulation.weight": noise(6 * D, c), "adaLN_modulation.bias": noise(6 * D),
        }  # fmt: skip
        state |= {f"blocks.{i}.{name}": tensor for name, tensor in own.items()}
    return {f"backbone.{name}": tensor for name, tensor in state.items()}


def mdlm_logits(state, ids):
    state = {name.removeprefix("backbone."): tensor for name, tensor in state.items()}

    def linear(x, name):
        return F.linear(x, state[name + ".weight"], state.get(name + ".bias"))

    sinusoid = torch.cat([torch.ones(128), torch.zeros(128)]).double()
    c = F.silu(linear(F.silu(linear(sinusoid, "sigma_map.mlp.0")), "sigma_map.mlp.2"))

    def norm(x, name, shift, scale):
        return F.layer_norm(x, (D,), eps=1e-5) * state[name + ".weight"] * (1 + scale) + shift

    x = state["vocab_embed.embedding"][ids]
    for i in range(LAYERS):
        block = f"blocks.{i}."
        shift1, scale1, gate1, shift2, scale2, gate2 = linear(c, block + "adaLN_modulation").chunk(6)
        q, k, v = linear(norm(x, block + "norm1", shift1, scale1), block + "attn_qkv").chunk(3, -1)
        x = x + gate1 * linear(attend(q, k, v, 1e4), block + "attn_out")
        hidden = F.gelu(linear(norm(x, block + "norm2", shift2, scale2), block + "mlp.0"), approximate="tanh")
        x = x + gate2 * linear(hidden, block + "mlp.2")
    return linear(norm(x, "output_layer.norm_final", *linear(c, "output_layer.adaLN_modulation").chunk(2)),
                  "output_layer.linear")  # fmt: skip
