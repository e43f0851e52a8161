from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from evaluation.benchmarks import masked_diffusion as bench
from evaluation.benchmarks import masked_generation
from evaluation.benchmarks.masked_generation import GenerationSettings, ways
from evaluation.benchmarks.masked_pairs import WORD, PairSettings, measure_pairs, pairs_of_options
from evaluation.benchmarks.masked_step import GPU_STEP, Steps, StepSettings, measure_step
from evaluation.benchmarks.memory import peak_bytes
from generative.data.held_out import ArraySource
from generative.nets.transformer import Transformer
from generative.nets.transformer_config import TransformerConfig

TINY = bench.Settings(pairs=2, vocab=96, width=8, samples=2, length=16, train_steps=3, windows=3, draws=4, repeats=6)


def test_both_heads_compute_the_same_loss_and_gradients():
    heads = bench.Heads(TINY)
    results = []
    for way in (heads.masked_rows, heads.all_positions):
        total = way()
        results.append((total, heads.hidden.grad.clone(), heads.weight.grad.clone()))
    for ours, theirs in zip(*results, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_new_masks_are_drawn_and_hide_about_half():
    heads = bench.Heads(bench.Settings(vocab=4, width=2, length=2048))
    before = heads.masked
    heads.draw()
    assert not torch.equal(before, heads.masked)
    assert abs(len(heads.masked) / 4096 - 0.5) < 0.05


def test_peak_counts_what_lives_at_the_same_time():
    def one_after_the_other() -> None:
        for _ in range(3):
            torch.zeros(2**18)

    def together() -> list[torch.Tensor]:
        return [torch.zeros(2**18) for _ in range(3)]

    assert peak_bytes(one_after_the_other, lambda: None) == pytest.approx(2**20, rel=0.01)
    assert peak_bytes(together, lambda: None) == pytest.approx(3 * 2**20, rel=0.01)


def test_ratio_of_spreads_ignores_the_windows_own_differences():
    noise = np.random.default_rng(0).normal(size=(50, 4))
    between_windows = np.array([0.0, 100.0, -7.0, 3.0])
    ratio = bench.ratio_of_spreads(3.0 * noise + between_windows, noise - between_windows, resamples=200)
    assert ratio.estimate.value == pytest.approx(3.0)
    assert ratio.low < 3.0 < ratio.high


def test_a_tiny_run_gives_all_figures(tmp_path):
    trained, data = bench.small_model(TINY, tmp_path)
    options = PairSettings(windows=4, tokens=16, draws=2, repeats=6)
    figures = bench.measure_head(TINY) | bench.measure_estimators(TINY, trained, data)
    figures |= measure_pairs(trained, data, options)
    assert {key: entry["goal"] for key, entry in figures.items()} == {
        "head_speedup": ">= 1.6",
        "head_memory_ratio": "<= 0.25",
        "elbo_stderr_ratio": ">= 2",
        "elbo_stderr_ratio_spread_times": None,
        "elbo_difference": None,
        "paired_variance_ratio": ">= 4",
        "unrelated_variance_ratio": None,
    }
    assert figures["elbo_stderr_ratio"]["n"] == TINY.repeats
    # Both estimators are unbiased, so their means agree within their errors (noise is fixed by its seed).
    difference = figures["elbo_difference"]
    assert abs(difference["value"]) < 4 * difference["stderr"]
    for context, true, changed, other in pairs_of_options(data, options):
        assert (len(context), len(true), len(other)) == (48, 16, 16)
        places = (true != changed).nonzero()[:, 0]
        assert len(places) > 0
        # What differs lies within one word.
        assert WORD.fullmatch(bytes(changed[places[0] : places[-1] + 1].tolist()) + b"xx")


def test_options_are_of_all_the_text_and_never_the_same_twice():
    texts = [b"a true word here", b"a true word here", b"the other window", b"one word, or two"]
    rows = np.array([[number % 256, *text, 0] for number, text in enumerate(texts * 4)])
    data = SimpleNamespace(validation=ArraySource(rows))
    cases = pairs_of_options(data, PairSettings(windows=8, tokens=16))
    assert [int(context[0]) // 2 for context, *_ in cases] == list(range(8))  # spread over all sixteen windows
    for _, true, changed, other in cases:
        assert not torch.equal(true, changed)
        assert not torch.equal(true, other)


SMALL_STEP = StepSettings(
    pairs=2,
    samples=3,
    length=16,
    network=TransformerConfig(layers=1, heads=2, width=16, ff_width=16, vocab_size=512, max_length=16),
)


def test_what_is_measured_is_kept(tmp_path, shallow, monkeypatch):
    monkeypatch.setenv("GENERATIVE_BENCH", str(tmp_path))
    two = dict(list(ways(8, 16).items())[:2])
    monkeypatch.setattr(masked_generation, "ways", lambda block, length: two)
    tiny = GenerationSettings(train_steps=2, samples=4, length=16, batch=2, others=())
    small = replace(TINY, step=SMALL_STEP, options=PairSettings(windows=3, draws=2, repeats=4), generation=tiny)
    broken = replace(small, generation=replace(tiny, batch=0))
    monkeypatch.setattr(bench, "QUICK", broken)
    with pytest.raises((ValueError, RuntimeError, ZeroDivisionError)):
        bench.run(True)
    monkeypatch.setattr(bench, "QUICK", small)
    monkeypatch.setattr(bench, "small_model", None)  # what stands before what failed is not measured again
    figures = bench.run(True)
    assert {"head_speedup", "step_speedup", "paired_variance_ratio", "generation_speedup"} <= set(figures)
    assert bench.run(True) == figures


@pytest.mark.parametrize(("precision", "rtol"), [("fp32", 1e-4), ("bf16", 2e-2)])
def test_all_ways_to_take_a_step_learn_the_same(precision, rtol):
    steps = Steps(replace(SMALL_STEP, precision=precision))
    for _ in range(3):
        loss = steps.ours()
        torch.testing.assert_close(loss, steps.published(), rtol=rtol, atol=1e-5)
        torch.testing.assert_close(loss, steps.published_with_our_optimizer(), rtol=rtol, atol=1e-5)
    for ours, *others in zip(*(net.parameters() for net in steps.nets), strict=True):
        for theirs in others:
            torch.testing.assert_close(ours, theirs, rtol=1e-2, atol=1e-4 if precision == "fp32" else 1e-3)


def test_the_large_step_is_that_of_the_published_size():
    with torch.device("meta"):
        net = Transformer(GPU_STEP.network, causal=False, mask_row=True)
    assert sum(p.numel() for p in net.parameters()) == 219_050_496


def test_a_small_comparison_of_steps_gives_its_figures():
    figures = measure_step(SMALL_STEP)
    assert set(figures) == {"step_speedup", "step_speedup_same_optimizer", "step_memory_ratio"}
    assert 0 < figures["step_memory_ratio"]["value"] < 1.5
