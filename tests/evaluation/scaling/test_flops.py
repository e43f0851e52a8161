"""Counts of parameters and operations, against torch's own and the published tables."""

from __future__ import annotations

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from evaluation.scaling.flops import CONVENTIONS, DEFAULT, Call, exact, palm, step_flops, training_flops_per_token
from evaluation.scaling.shapes import Shape, parameters, shape_of
from generative.nets.accounting import non_embedding_parameters, total_parameters, training_flops
from generative.nets.transformer import Transformer
from generative.nets.transformer_config import TransformerConfig
from tests.support.scaling import facts

CONFIG = TransformerConfig(layers=2, heads=4, width=32, ff_width=48, kv_groups=2, vocab_size=50, max_length=16)
TINY = Shape(layers=2, width=64, ff_width=256, heads=4, head_width=16, vocab=256, length=128, gated=False)


def counted(causal: bool) -> float:
    net = Transformer(CONFIG, causal=causal, mask_row=not causal)
    tokens = torch.randint(50, (3, 16))
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        net(tokens).sum().backward()
    return counter.get_total_flops() / tokens.numel()


def test_torch_counts_what_exact_says():
    assert counted(causal=False) == exact(shape_of(CONFIG, 16, causal=False))


def test_torch_counts_the_whole_square_of_causal_attention():
    shape = shape_of(CONFIG, 16, causal=True)
    assert counted(causal=True) == palm(shape) > exact(shape)


def test_a_plain_stack_with_explicit_products():
    """Two matrices in the feed-forward, QK^T and AV written out: 884,736 a token."""
    T, d, h, k, ff, V = 128, 64, 4, 16, 256, 256
    attention = [torch.nn.Linear(d, 3 * h * k, bias=False), torch.nn.Linear(h * k, d, bias=False)]
    blocks = [
        (*attention, torch.nn.Linear(d, ff, bias=False), torch.nn.Linear(ff, d, bias=False)) for _ in range(TINY.layers)
    ]
    head = torch.nn.Linear(d, V, bias=False)
    x = torch.randn(1, T, d, requires_grad=True)
    with FlopCounterMode(display=False) as counter:
        y = x
        for qkv, out, up, down in blocks:
            q, key, v = (part.view(T, h, k).transpose(0, 1) for part in qkv(y)[0].chunk(3, dim=-1))
            mixed = torch.softmax(q @ key.transpose(1, 2), dim=-1) @ v
            y = y + out(mixed.transpose(0, 1).reshape(1, T, h * k))
            y = y + down(torch.relu(up(y)))
        head(y).sum().backward()
    assert counter.get_total_flops() / T == exact(TINY) == 884_736


@pytest.mark.parametrize("causal", [False, True])
def test_parameters_are_those_of_the_network(causal):
    net = Transformer(CONFIG, causal=causal, mask_row=not causal)
    told = parameters(shape_of(CONFIG, 16, causal=causal))
    assert told.total == sum(p.numel() for p in net.parameters()) == total_parameters(CONFIG, mask_row=not causal)
    assert told.non_embedding == non_embedding_parameters(CONFIG)
    assert told.embedding == net.embedding.weight.numel()
    assert told.lm_head == net.head.weight.numel()
    assert told.scalar == sum(p.numel() for p in net.parameters() if p.ndim == 1)
    assert sum(told.to_json()[f"params_{name}"] for name in ("embedding", "lm_head", "matmul", "scalar")) == told.total


def test_the_trainer_counts_as_exact_where_the_head_sees_all_rows():
    for causal in (False, True):
        shape = shape_of(CONFIG, 16, causal=causal)
        assert training_flops(CONFIG, 16, head_rows=16, causal=causal) == 16 * exact(shape)


def test_smallest_published_size():
    shape = Shape(layers=18, width=768, ff_width=3072, heads=12, head_width=64, vocab=32000, length=2048)
    assert parameters(shape).non_embedding == 169_897_728


def test_counts_of_the_table():
    for row in facts("flops.json")["configs"]:
        one = row["config"]
        shape = Shape(
            layers=one["L"],
            width=one["d"],
            ff_width=one["ff"],
            heads=one["h"],
            head_width=one["k"],
            vocab=one["V"],
            length=one["T"],
            gated=one.get("glu", False),
            causal=one.get("causal", False),
        )
        told, flops = parameters(shape), training_flops_per_token(shape)
        assert told.matmul == row["N_no_embed"]
        assert (told.embedding, told.lm_head) == (row["embedding"], row["lm_head"])
        assert told.total - told.scalar == row["N_total"]
        assert flops["six_n_nonemb"] == row["train_flops_per_token_6N_no_embed"]
        assert flops["six_n_head"] == row["train_flops_per_token_6N_with_head"]
        assert flops["exact"] == row["train_flops_per_token_with_attention"]
        assert flops["exact"] / 3 == row["forward_flops_per_token_with_attention"]


def test_conventions_differ_as_said():
    flops = training_flops_per_token(TINY)
    told = parameters(TINY)
    assert flops.keys() == CONVENTIONS.keys()
    assert DEFAULT == "six_n_head"
    assert flops["six_n_total"] == 6 * told.total
    assert flops["six_n_smdm"] == 6 * told.non_embedding
    assert flops["exact"] - flops["six_n_head"] == 12 * 2 * 64 * 128
    assert flops["porian_attention"] - flops["six_n_head"] == 6 * 128 * 64 * 2
    softmax, embedding = 3 * 3 * 4 * 128 * 2, 6 * 256 * 64
    assert flops["chinchilla"] == flops["palm"] + softmax + embedding


def test_windows_and_experts():
    near = Shape(2, 64, 256, 4, 16, 256, 128, gated=False, window=32)
    assert exact(TINY) - exact(near) == 12 * 2 * 64 * 96
    mixture = Shape(2, 64, 256, 4, 16, 256, 128, gated=False, experts=8, active=2)
    told = parameters(mixture)
    assert told.matmul - told.active_matmul == 2 * 6 * 2 * 64 * 256
    assert told.active_matmul - parameters(TINY).matmul == 2 * (2 * 64 * 256 + 64 * 8)


def test_a_step_counts_every_network():
    """Distillation: the student learns through a frozen teacher; the critic learns on its own."""
    assert step_flops(Call(10, "trained"), Call(7, "through"), Call(5, "trained", 2), Call(3, "frozen")) == 77
