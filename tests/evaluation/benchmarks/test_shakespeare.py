from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from evaluation.benchmarks import shakespeare as bench
from evaluation.benchmarks.small_runs import load_run
from generative.errors import DataError
from generative.method import DataFacts
from generative.methods.catalogue import METHODS

TINY = bench.Settings(seeds=2, steps=3, blocks=(1, 16), long_steps=5, windows=4, draws=2, infill_windows=2, span=8)


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("".join(f"{i} times {i} makes {i * i}.\n" for i in range(300)))
    return path


@pytest.mark.parametrize(("kind", "parameters"), [("ar", 205_376), ("mdm", 205_440)])
def test_configurations_are_the_small_benchmark_of_the_source(kind, parameters):
    run = load_run(bench.METHODS[kind], [])
    method = METHODS[run.method.name].build(run.method, DataFacts(vocab_size=65, sequence_length=64))
    with torch.device("meta"):
        net = method.networks()["net"].build()
    assert sum(p.numel() for p in net.parameters()) == parameters
    assert method.network.padded_vocab == 65
    assert (run.data.sequence_length, run.data.stride, run.data.tokenizer.name) == (64, 1, "characters")
    optimizer = run.train.optimizer
    assert (run.train.steps, run.train.batch_size, optimizer.lr) == (1500, 16, 3e-3)
    assert (optimizer.betas, optimizer.weight_decay, optimizer.clip_norm) == ((0.9, 0.95), 0.1, 1.0)
    assert (run.train.schedule.warmup_fraction, run.train.schedule.min_ratio) == (0.02, 0.1)


def test_without_the_text_the_built_in_corpus_is_named(capsys):
    overrides = bench.text_overrides(None)
    assert load_run(bench.METHODS["mdm"], overrides).data.name == "builtin"
    assert bench.VARIABLE in capsys.readouterr().err


def test_a_text_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        bench.text_overrides(str(tmp_path / "missing.txt"))


def test_another_text_is_used_but_said_to_differ(text, capsys):
    run = load_run(bench.METHODS["ar"], bench.text_overrides(str(text)))
    assert run.data.path == text
    assert "sha256 differs" in capsys.readouterr().err


def test_figures_of_a_tiny_run(text, tmp_path):
    figures = bench.measure(TINY, [f"data.path={text}"], tmp_path)
    ar, mdm = figures["ar_bits"]["values"], figures["mdm_bits"]["values"]
    assert len(ar) == len(mdm) == TINY.seeds
    assert len({*ar, *mdm}) == 2 * TINY.seeds  # every seed trains a model of its own
    assert figures["ar_bits"]["value"] == pytest.approx(sum(ar) / 2)
    assert figures["mdm_minus_ar_bits"]["value"] == pytest.approx((sum(mdm) - sum(ar)) / 2)
    over = figures["mdm_bits"]["value"] - figures["bigram_bits"]["value"]
    assert figures["mdm_minus_bigram_bits"]["value"] == pytest.approx(over)
    gain = figures["infill_left_only_bits"]["value"] - figures["infill_both_sides_bits"]["value"]
    assert figures["infill_gain_bits"]["value"] == pytest.approx(gain)
    # A few steps lead below the uniform distribution over the characters, but not far.
    uniform = math.log2(len(set(text.read_text())))
    assert all(uniform / 2 < bits < uniform + 1 for bits in ar + mdm)
    assert figures["trigram_bits"]["value"] < figures["bigram_bits"]["value"] < figures["unigram_bits"]["value"]
    # Blocks of one token are an autoregressive model; all that is said of a longer training is of its own steps.
    kinds = ("ar", "mdm", "blocks_1", "blocks_16", "ar_long", "mdm_long")
    assert len({value for kind in kinds for value in figures[f"{kind}_bits"]["values"]}) == len(kinds) * TINY.seeds
    assert "2 seeds, 5 steps" in figures["mdm_long_bits"]["protocol"]
    assert "2 seeds, 3 steps" in figures["blocks_16_bits"]["protocol"]
    # Thresholds and rows of the reference are for its text and its steps; a shorter run has no goal to meet.
    assert figures["ar_bits"]["goal"] is None
    assert figures["reference_bigram_bits"]["value"] == 3.583


def test_trainings_that_are_kept_are_not_trained_again(text, tmp_path, monkeypatch):
    few = replace(TINY, seeds=1, blocks=(), long_steps=0)
    first = bench.measure(few, [f"data.path={text}"], tmp_path)
    monkeypatch.setattr(bench, "train", None)
    assert bench.measure(few, [f"data.path={text}"], tmp_path) == first


def test_figures_of_the_built_in_corpus_say_so(tmp_path):
    overrides = ["data.name=builtin", "data.max_bytes=50000", "data.tokenizer.name=bytes"]
    figures = bench.measure(replace(TINY, seeds=1, steps=1), overrides, tmp_path)
    assert all(name.startswith("builtin_") for name in figures)
