from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from evaluation.benchmarks import masked_generation, small_runs
from evaluation.benchmarks.masked_generation import (
    GenerationSettings,
    Half,
    _figures,
    as_good_as,
    entropy,
    measure_generation,
    points,
    quality,
    ways,
)
from evaluation.benchmarks.masked_generation_picture import draw as draw_picture
from evaluation.benchmarks.masked_generation_picture import short
from evaluation.canvas import rendered
from generative.data.held_out import ArraySource
from generative.method import DataFacts
from generative.methods.masked_diffusion.config import MaskedDiffusionConfig
from generative.methods.masked_diffusion.method import MaskedDiffusion
from generative.methods.masked_diffusion.sampling import draw
from generative.randomness import Streams


def test_quality_of_known_texts():
    tokens = torch.tensor([[1, 2, 1, 2, 1, 2, 1, 2], [1, 2, 3, 4, 5, 6, 7, 8]])
    found = quality(tokens, lambda texts: torch.tensor([7 * math.log(2), 14 * math.log(2)]))
    assert found["judged"].tolist() == pytest.approx([1.0, 2.0])
    assert found["entropy"].tolist() == pytest.approx([1.0, 3.0])
    assert found["distinct"].tolist() == pytest.approx([2 / 5, 1.0])
    assert entropy([5, 5, 5]) == 0


GOOD = {"judged": (2.0, 0.01), "entropy": (4.0, 0.01), "distinct": (0.9, 0.002)}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, True),
        ({"judged": (2.02, 0.01), "entropy": (3.98, 0.01)}, True),
        ({"judged": (1.0, 0.01)}, True),
        ({"judged": (2.05, 0.01)}, False),
        ({"judged": (1.0, 0.01), "entropy": (3.0, 0.01)}, False),
        ({"judged": (1.0, 0.01), "distinct": (0.8, 0.002)}, False),
        ({"entropy": (4.05, 0.01)}, False),
    ],
)
def test_what_repeats_itself_is_not_as_good_though_the_judge_likes_it(changes, expected):
    assert as_good_as(GOOD | changes, GOOD) is expected


def test_the_fastest_way_that_is_good_counts():
    rng = np.random.default_rng(0)
    fine = {name: rng.normal(size=200) for name in GOOD}
    seen = dict.fromkeys(("reference", "slow", "quick", "autoregressive"), fine)
    seen["quickest"] = fine | {"judged": fine["judged"] + 1}
    seconds = {"reference": [4.0] * 9, "slow": [2.0] * 9, "quick": [1.0] * 9, "quickest": [0.5] * 9}
    figures, best = _figures(GenerationSettings(), seen, seconds | {"autoregressive": [0.1] * 9}, "here")
    assert best == "quick"
    assert figures["generation_speedup"]["value"] == 4
    assert figures["generation_speedup"]["protocol"].startswith(
        "400 texts of 64 bytes, 50 at a time, here; fastest of 3"
    )
    assert "2 are as good as the reference: quick;" in figures["generation_speedup"]["protocol"]
    assert points(figures)["quick"].rate == 64
    assert points(figures)["quickest"].quality["judged"][0] == pytest.approx(fine["judged"].mean() + 1)


def test_the_picture_has_every_way_in_each_panel_but_those_that_hardly_vary():
    pytest.importorskip("matplotlib")
    error = {"stderr": 0.01}
    names = ["reference", "random_2_dual", "blocks_entropy_2.0", "autoregressive", "threshold_0.9"]
    figures = {
        f"generation_{name}_{part}": {"value": value + number, **error}
        for number, name in enumerate(names)
        for part, value in {"rate": 100.0, "judged": 2.0, "entropy": 4.0, "distinct": 0.9}.items()
    } | {"generation_threshold_0.9_entropy": {"value": 0.2, **error}}
    drawn = draw_picture(figures | {"generation_speedup": {"value": 4.0, **error}})
    for number, axes in enumerate(drawn.axes):
        texts = [text.get_text() for text in axes.texts]
        assert texts[:2] == ["2", "≤2.0"]
        assert texts[2:] == (["not drawn, texts hardly vary: threshold 0.9"] if number == 1 else [])
        assert len(axes.containers) == 4
    assert rendered(drawn).startswith(b"<?xml")
    assert short("blocks_first_hitting") == "1"


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
    for tokens, expected in {"1.33": 12, "1.6": 10, "2": 8, "4": 4}.items():
        for name in (f"random_{tokens}", f"random_{tokens}_dual", f"blocks_random_{tokens}"):
            assert calls[name] == [expected] * 2


def test_a_tiny_run_gives_all_figures_and_keeps_its_models(tmp_path, shallow, monkeypatch):
    few = ("reference", "random_2_dual", "blocks_threshold_0.9", "blocks_random_2", "blocks_random_4")
    every = ways(8, 16)  # each of the 33 is drawn in the test above
    monkeypatch.setattr(masked_generation, "ways", lambda block, length: {name: every[name] for name in few})
    settings = GenerationSettings(train_steps=2, samples=4, length=16, batch=2, others=(1, 3))
    figures = measure_generation(settings, str(tmp_path), tmp_path)
    monkeypatch.setattr(small_runs, "train", None)  # what is known is not trained again
    again = measure_generation(replace(settings, others=()), str(tmp_path), tmp_path)
    for name in ("reference", "blocks_random_2", "autoregressive"):
        assert again[f"generation_{name}_judged"] == figures[f"generation_{name}_judged"]
    assert figures["generation_speedup"]["goal"] == ">= 4"
    assert {
        "generation_reference_rate",
        "generation_blocks_threshold_0.9_judged",
        "generation_blocks_random_4_distinct",
        "generation_autoregressive_entropy",
        "generation_speedup_batch_3",
    } <= set(figures)
    assert figures["generation_reference_judged"]["n"] == 4
