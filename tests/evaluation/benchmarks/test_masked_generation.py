from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from evaluation.benchmarks.masked_generation import (
    GenerationSettings,
    Half,
    Quality,
    entropy,
    measure_generation,
    quality,
    ways,
)
from generative.data.held_out import ArraySource
from generative.method import DataFacts
from generative.methods.masked_diffusion.config import MaskedDiffusionConfig
from generative.methods.masked_diffusion.method import MaskedDiffusion
from generative.methods.masked_diffusion.sampling import draw
from generative.randomness import Streams


def test_quality_of_known_texts():
    tokens = torch.tensor([[1, 2, 1, 2, 1, 2, 1, 2], [1, 2, 3, 4, 5, 6, 7, 8]])
    found = quality(tokens, lambda texts: torch.tensor([7 * math.log(2), 14 * math.log(2)]))
    assert found.judged.tolist() == pytest.approx([1.0, 2.0])
    assert found.entropy.tolist() == pytest.approx([1.0, 3.0])
    assert found.distinct.tolist() == pytest.approx([2 / 5, 1.0])
    assert entropy([5, 5, 5]) == 0


def test_what_repeats_itself_is_not_as_good_though_the_judge_likes_it():
    rng = np.random.default_rng(0)
    reference, same, cold = (
        Quality(2 + rng.normal(size=200) / 9, 4 + rng.normal(size=200) / 9, rng.uniform(size=200)) for _ in range(3)
    )
    assert same.as_good_as(reference)
    assert not Quality(cold.judged - 1, cold.entropy - 1, cold.distinct).as_good_as(reference)
    assert not Quality(cold.judged + 1, cold.entropy, cold.distinct).as_good_as(reference)


def test_halves_share_nothing():
    source = ArraySource(np.arange(10).reshape(5, 2))
    halves = [Half(source, first) for first in (0, 1)]
    assert [len(half) for half in halves] == [3, 2]
    rows = [half.fetch(np.arange(len(half)))["tokens"][:, 0].tolist() for half in halves]
    assert rows == [[0, 4, 8], [2, 6]]


def test_ways_that_write_several_tokens_a_call_take_so_many_calls_less():
    torch.manual_seed(0)
    sizes = {"layers": 1, "heads": 2, "width": 8, "ff_width": 8, "max_length": 16, "padding_multiple": 1}
    calls = {}
    for name, (kind, sampler) in ways(8, 16).items():
        config = {"network": sizes, "block_size": 8 if kind == "blocks" else None}
        method = MaskedDiffusion(MaskedDiffusionConfig.model_validate(config), DataFacts(11, 16))
        denoiser = method.denoiser({"net": method.networks()["net"].build()})
        canvas = torch.full((2, 16), method.mask_id)
        calls[name] = draw(sampler, denoiser, canvas, torch.arange(2), Streams(0)).calls.tolist()
    assert calls["reference"] == calls["blocks_first_hitting"] == [16, 16]
    for tokens in (2, 4):
        for name in (f"random_{tokens}", f"random_{tokens}_dual", f"blocks_random_{tokens}"):
            assert calls[name] == [16 // tokens] * 2


def test_a_tiny_run_gives_all_figures(tmp_path):
    settings = GenerationSettings(train_steps=2, samples=4, length=16, batch=2)
    figures = measure_generation(settings, str(tmp_path))
    assert figures["generation_speedup"]["goal"] == ">= 4"
    assert {
        "generation_reference_rate",
        "generation_blocks_threshold_0.9_judged",
        "generation_blocks_random_4_distinct",
        "generation_autoregressive_entropy",
    } <= set(figures)
    assert figures["generation_reference_judged"]["n"] == 4
