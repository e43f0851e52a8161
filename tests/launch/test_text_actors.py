"""Evaluation and samples by workers are those of one process."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from generative.errors import ConfigError
from generative.randomness import Streams
from launch import runs, text_actors
from launch.cli import main
from launch.ray_map import parts
from launch.results import figures_table
from tests.support.actors import actors_here
from tests.support.text_runs import finished


@pytest.fixture(scope="module", params=["masked_diffusion", "autoregressive"])
def trained(texts, tmp_path_factory, request):
    return finished(
        texts,
        tmp_path_factory.mktemp("run") / "run",
        f"method.name={request.param}",
        "evaluate.windows=20",
        "sample.at_end=false",
    )


@pytest.fixture(scope="module")
def alone(trained):
    """What one process measures."""
    return runs.evaluate_run(trained, windows=7)


@pytest.fixture
def actors(monkeypatch):
    return actors_here(monkeypatch, text_actors)


def close(one, two):
    assert one.keys() == two.keys()
    for name, figure in one.items():
        assert two[name] == figure | {"value": pytest.approx(figure["value"], rel=1e-6), "stderr": two[name]["stderr"]}
        assert two[name]["stderr"] == pytest.approx(figure["stderr"], rel=1e-5)


@pytest.mark.parametrize("workers", [2, 3, 64])
def test_figures_are_those_of_one_process(trained, alone, actors, workers):
    told = []
    spread = runs.evaluate_run(trained, windows=7, workers=workers, progress=lambda *counts: told.append(counts))
    assert sum(stop - start for start, stop in actors.items) == 7
    assert len(actors.items) == min(workers, 7)
    assert told[-1] == (7, 7)
    close(alone["figures"], spread["figures"])
    assert figures_table(alone) == figures_table(spread)
    assert alone.keys() == spread.keys()
    for name, curve in alone.get("loss_by_noise", {}).items():
        assert spread["loss_by_noise"][name] == pytest.approx(curve, rel=1e-5)


def test_in_whole_batches_not_a_bit_differs(trained, actors):
    alone = runs.evaluate_run(trained, overrides=["evaluate.batch_size=4"])
    spread = runs.evaluate_run(trained, overrides=["evaluate.batch_size=4", "launch.workers=2"])
    assert len(actors.items) == 5
    assert alone["figures"] == spread["figures"]


@pytest.mark.parametrize(("workers", "prompt"), [(2, None), (5, "alpha"), (64, None)])
def test_samples_are_those_of_one_process(trained, actors, workers, prompt):
    alone = runs.sample_run(trained, count=7, prompt=prompt)
    spread = runs.sample_run(trained, count=7, prompt=prompt, workers=workers)
    assert len(actors.items) > 1
    assert spread["items"] == alone["items"]
    assert spread | {"time": 0} == alone | {"time": 0}


def test_an_infilling_needs_no_workers(trained, actors):
    if "autoregressive" in (trained / "config.yaml").read_text():
        pytest.skip("writes from left to right")
    assert runs.sample_run(trained, infill="al▁▁a", workers=4) | {"time": 0} == runs.sample_run(
        trained, infill="al▁▁a"
    ) | {"time": 0}
    assert actors.items == []


def test_samplers_and_estimators_are_asked_for_by_overrides(trained):
    """Each setting reaches the sampler: greedy samples are all alike, and those of a cache and blocks are texts too."""
    masked = "masked_diffusion" in (trained / "config.yaml").read_text()
    greedy = runs.sample_run(trained, count=2, overrides=["method.sampling.temperature=0"])["items"]
    assert greedy[0]["text"] == greedy[1]["text"]
    ended = runs.sample_run(
        trained, count=4, overrides=["method.sampling.top_k=50", "method.sampling.stop_at_eos=true"]
    )
    assert len(ended["items"]) == 4
    left_to_right = runs.evaluate_run(trained, windows=3, overrides=["evaluate.estimator=chain_rule"])
    assert left_to_right["estimator"] == "chain_rule"
    assert ("nll_left_to_right" in left_to_right["figures"]) == masked
    if not masked:
        return
    fast = ["name=confidence", "count=threshold", "threshold=0.2", "block_length=4", "cache=dual"]
    drawn = runs.sample_run(trained, count=3, overrides=[f"method.sampling.{each}" for each in fast])["items"]
    assert all(item["states"] for item in drawn)
    with pytest.raises(ConfigError, match="cache=exact"):
        runs.sample_run(trained, count=1, overrides=["method.sampling.cache=exact"])


@pytest.mark.parametrize(("count", "workers", "most"), [(1, 1, 1), (96, 8, 32), (96, 1, 32), (7, 3, 2), (5, 64, 32)])
def test_parts_cover_everything_once_and_leave_no_worker_idle(count, workers, most):
    found = parts(count, workers, most)
    assert [i for start, stop in found for i in range(start, stop)] == list(range(count))
    assert all(0 < stop - start <= most for start, stop in found)
    assert len({stop - start for start, stop in found[:-1]}) <= 1
    assert len(found) >= min(workers, count) / 2


@pytest.mark.distributed
@pytest.mark.timeout(240)
def test_the_command_with_real_workers(trained, capsys):
    pytest.importorskip("ray")
    if "autoregressive" in (trained / "config.yaml").read_text():
        pytest.skip("one method is enough for the way there")

    def figures(shown):
        return [line for line in shown.splitlines() if not line.startswith("evaluate")]

    asked = ["evaluate", str(trained), "--windows", "9"]
    command = [sys.executable, "-m", "launch.cli", *asked, "launch.workers=2"]
    done = subprocess.run(command, env=os.environ, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    capsys.readouterr()
    assert main(asked) == 0
    assert figures(done.stdout) == figures(capsys.readouterr().out) != []


def test_prompts_that_cannot_be_used(trained):
    with pytest.raises(ConfigError, match="an empty prompt"):
        runs.sample_run(trained, count=1, prompt="")
    with pytest.raises(ConfigError, match=r"a prompt of 50 tokens leaves no room in a sample of 32"):
        runs.sample_run(trained, count=1, prompt="a" * 50)
    with pytest.raises(ConfigError, match=r"sample.length=64 is longer than the model's context"):
        runs.sample_run(trained, count=1, length=64)
    if "autoregressive" not in (trained / "config.yaml").read_text():
        with pytest.raises(ConfigError, match=r"64 steps for 31 masked tokens(.|\n)*lower method.sampling.steps to 31"):
            runs.sample_run(trained, count=1, steps=64, overrides=["method.sampling.count=even"])
        return
    with pytest.raises(ConfigError, match=r"guidance: the method 'autoregressive' has no such setting"):
        runs.sample_run(trained, count=1, overrides=["method.sampling.guidance=0.5"])


def test_prompts_with_unknown_tokens(trained):
    run = runs.open_run(trained)
    nets, _ = run.networks("trained")
    ids = torch.arange(1)
    for wrong in (-1, 300):
        prompt = torch.tensor([[97, wrong]])
        condition = {"sample_id": ids, "prompt": prompt}
        if hasattr(run.method, "mask_id"):
            condition = {"sample_id": ids, "canvas": torch.cat([prompt, torch.full((1, 4), run.method.mask_id)], 1)}
        with pytest.raises(ConfigError, match=rf"token id {wrong} (.|\n)*ids from 0 to 256"):
            run.method.sampler(nets)(condition, Streams(0))


@pytest.mark.parametrize("method", ["masked_diffusion", "autoregressive"])
def test_tokens_of_several_letters_are_shown_in_full(texts, tmp_path, method):
    pytest.importorskip("transformers")
    run = finished(
        texts,
        tmp_path / "run",
        f"method.name={method}",
        "data.tokenizer={name: bpe, vocab_size: 300}",
        "evaluate.at_end=false",
        "sample.at_end=false",
    )
    (item,) = runs.sample_run(run, count=1, prompt="alpha beta")["items"]
    assert item["text"].startswith("alpha beta")
    if method == "masked_diffusion":
        (item,) = runs.sample_run(run, count=1, infill="alpha ▁▁ beta")["items"]
        assert item["prompt"] == "alpha ▁▁ beta"
        assert item["text"].startswith("alpha ")
        assert item["text"].endswith(" beta")
