"""Faults as they are asked for, and how two runs are compared."""

from __future__ import annotations

import json

import pytest
import torch

from generative.errors import ConfigError
from generative.training.checkpoint import CheckpointStore, shares
from launch.chaos import Verdict, chaos
from launch.chaos_bench import QUICK_KILLS, draw, figures
from launch.chaos_compare import compare
from launch.chaos_faults import FAULTS, Fault, needs_nodes, parse
from launch.chaos_run import Damage, News


def test_faults_are_sorted_by_step():
    assert parse("driver@80, worker@50") == [Fault("worker", 50), Fault("driver", 80)]
    assert needs_nodes(parse("worker@1,raylet@2"))
    assert not needs_nodes(parse("worker@1,driver@2"))


@pytest.mark.parametrize(
    "text", ["worker", "worker@", "worker@0", "worker@x", "wroker@5", "worker@5,", "", "worker@-3"]
)
def test_what_is_no_fault_is_refused(text):
    with pytest.raises(ConfigError, match="--kill"):
        parse(text)


def test_a_slip_of_the_pen_is_guessed():
    with pytest.raises(ConfigError, match="Did you mean worker"):
        parse("wroker@5")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["launch.backend=local"], "launch.backend=local"),
        (["launch.address=auto"], "launch.address=auto"),
        (["train.steps=50"], "the run has 50 steps"),
    ],
)
def test_chaos_that_makes_no_sense_is_refused_before_anything_starts(tmp_path, settings, words):
    with pytest.raises(ConfigError, match=words):
        chaos("masked_diffusion/quickstart", [f"run.dir={tmp_path}", *settings], parse("worker@50"), 0, print)
    assert not list(tmp_path.iterdir())


def write_run(folder, losses, weight=1.0):
    folder.mkdir()
    lines = [
        {"kind": "train", "step": step, "time": 0.5, "loss": {"fit": loss}, "samples": 4 * step, "seconds": 0.1}
        for step, loss in losses.items()
    ]
    lines.append({"kind": "validation", "step": 2, "loss": {"fit": {"value": 1.0, "stderr": 0.1, "n": 4}}})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    store = CheckpointStore(folder / "checkpoints")
    store.save(3, shares({"net.w": torch.full((6,), weight)}, 0, 1), {}, asynchronous=False)
    return folder


LOSSES = {1: 3.0, 2: 2.5, 3: 2.25}


@pytest.fixture
def calm(tmp_path):
    return write_run(tmp_path / "calm", LOSSES)


def test_the_same_run_is_equal_bit_for_bit(calm, tmp_path):
    found = compare(calm, write_run(tmp_path / "stormy", LOSSES), exact=True)
    assert found.equal
    assert (found.steps, found.validations, found.difference) == (3, 1, 0.0)
    assert found.sentence().startswith("equal bit for bit: 3 steps, 1 validations, weights ")


@pytest.mark.parametrize(
    ("losses", "weight", "words"),
    [
        (LOSSES | {2: 2.5 + 1e-15}, 1.0, "loss.fit of train step 2 is 2.500000000000001 instead of 2.5"),
        ({1: 3.0, 3: 2.25}, 1.0, "train of step 2 is there less often"),
        (LOSSES | {4: 2.0}, 1.0, "train of step 4 is there more often"),
        (LOSSES | {3: None}, 1.0, "loss.fit of train step 3 is None"),
        (LOSSES, 1.0 + 2e-7, "the final weights differ"),
    ],
)
def test_any_difference_is_found(calm, tmp_path, losses, weight, words):
    found = compare(calm, write_run(tmp_path / "stormy", losses, weight), exact=True)
    assert not found.equal
    assert words in found.sentence()


def test_other_numbers_of_workers_may_round_differently(calm, tmp_path):
    near = write_run(tmp_path / "near", {step: loss * (1 + 5e-6) for step, loss in LOSSES.items()}, 1.1)
    far = write_run(tmp_path / "far", {step: loss * (1 + 5e-5) for step, loss in LOSSES.items()})
    assert compare(calm, near, exact=False).equal
    assert not compare(calm, far, exact=False).equal


def test_news_follow_a_run_that_takes_steps_again(tmp_path):
    news = News(tmp_path)

    def tell(name, **fields):
        with open(tmp_path / f"{name}.jsonl", "a") as file:
            file.write(json.dumps(fields) + "\n")
        news.read()

    for step in (1, 2, 3):
        tell("metrics", kind="train", step=step, seconds=0.1 * step)
    tell("events", kind="restart", time=10.0, message="1 of 3")
    tell("events", kind="start", time=11.0, message="changed since the last start: launch.workers 2 -> 1")
    assert news.restarted(5.0) == 10.0
    assert news.resumed(5.0) is None
    tell("events", kind="resume", time=12.0, step=2, message="goes on from step 2 of 9")
    assert news.resumed(5.0)["step"] == 2
    assert news.resumed(12.5) is None
    assert (news.step, set(news.seconds)) == (3, {1, 2, 3})


def test_the_soak_is_the_same_for_the_same_seed_and_has_all_kinds():
    faults = draw(50, 0)
    assert faults == draw(50, 0) != draw(50, 1)
    assert {fault.kind for fault in faults} == set(FAULTS)
    assert [fault.step for fault in faults] == sorted({fault.step for fault in faults})


def test_a_run_that_did_not_come_back_is_no_success():
    faults = draw(QUICK_KILLS, 0)
    damages = [Damage(fault.kind, fault.step, 3, 0.1, 1.0, 9.0) for fault in faults[:3]]
    verdict = Verdict(faults, damages, None, "the run did not recover", (1.0, 2.0), (2, 2))
    found = figures(verdict)
    assert not verdict.equal
    assert found["recovered_fraction"]["value"] == pytest.approx(0.6)
    assert found["curves_equal"]["value"] == 0.0
    assert "the run did not recover" in verdict.table()
