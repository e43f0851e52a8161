"""Every strategy trains to the same losses as one process, and goes on from every other's checkpoint.

Groups of real processes with gloo between them; one group runs a list of trainings, one after the other.
"""

from __future__ import annotations

import functools
import pathlib
import shutil
from typing import Any

import pytest

from tests.support.groups import run_group

SCRIPT = pathlib.Path(__file__).with_name("train_toy.py")
STRATEGIES = ("ddp", "fsdp", "zero1", "zero2", "zero3")
TOLERANCE = {"fp32": 1e-5, "bf16": 5e-3}
GENTLE = {"optimizer": {"lr": 0.003, "clip_norm": 0.7}}
pytestmark = [pytest.mark.distributed, pytest.mark.timeout(300)]


def job(method, strategy, precision="fp32", parallel=None, **arguments):
    if method == "gpt":
        arguments = {"steps": 20, "train": GENTLE, **arguments}
    return {
        "method": method,
        "precision": precision,
        "parallel": {"strategy": strategy, **(parallel or {})},
        **arguments,
    }


def run(world, jobs):
    return run_group(SCRIPT, world, {"jobs": jobs}, timeout=240)[0]


def curve(result):
    return [value for record in result["losses"] for value in record.values() if value is not None]


def validation(result):
    return [loss["value"] for record in result["validation"] for loss in record.values()]


@pytest.fixture(scope="module")
def alone():
    """Losses of one process in fp32 by method."""
    methods = ("gpt", "duel")
    return dict(zip(methods, run(1, [job(m, "none") for m in methods]), strict=True))


@functools.cache
def results(world: int, precision: str) -> dict[tuple[str, str], Any]:
    """What the GPT and the duel come to under each strategy, by (strategy, method); several tests look at it."""
    asked = [(strategy, method) for strategy in STRATEGIES for method in ("gpt", "duel")]
    return dict(zip(asked, run(world, [job(method, s, precision) for s, method in asked]), strict=True))


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """Gives, for a precision, the curves of two workers under each strategy until step 4, and their stores."""

    @functools.cache
    def begin(precision):
        folder = tmp_path_factory.mktemp(precision)
        saves = [job("duel", s, precision, store=str(folder / s), stop_at=4) for s in STRATEGIES]
        return {s: curve(found) for s, found in zip(STRATEGIES, run(2, saves), strict=True)}, folder

    return begin


@pytest.mark.parametrize(("world", "precision"), [(1, "fp32"), (2, "fp32"), (4, "fp32"), (2, "bf16")])
def test_losses_are_those_of_one_process(alone, world, precision):
    """A small GPT for 20 steps, and two networks that train each other beside a frozen third."""
    for asked, found in results(world, precision).items():
        strategy, reference = asked[0], alone[asked[1]]
        assert curve(found) == pytest.approx(curve(reference), rel=TOLERANCE[precision]), asked
        assert validation(found) == pytest.approx(validation(reference), rel=TOLERANCE[precision]), asked
        expected = "none" if strategy == "ddp" and world == 1 else strategy
        trained = {name: engine for name, engine in found["engines"].items() if name != "teacher"}
        assert set(trained.values()) == {expected}


def test_options_change_nothing(alone):
    """Offloading, sharded frozen networks, micro-batches, recomputed activations."""
    sharding = [s for s in STRATEGIES if s != "ddp"]
    jobs = [job("duel", s, parallel={"cpu_offload": True}) for s in sharding]
    jobs += [job("duel", s, parallel={"frozen": "sharded"}) for s in ("fsdp", "zero3")]
    jobs += [job("gpt", s, micro=2, train={**GENTLE, "activation_checkpointing": True}) for s in STRATEGIES]
    for asked, found in zip(jobs, run(2, jobs), strict=True):
        assert curve(found) == pytest.approx(curve(alone[asked["method"]]), rel=1e-5), asked


SPECIAL = {
    "averages": {"method": "duel", "weights": "ema", "train": {"validation": {"every_steps": 2, "weights": "ema"}}},
    "a bad batch left out": {
        "method": "regression",
        "options": {"poison": 23},
        "train": {"anomaly": {"policy": "skip"}},
    },
    "sgd without clipping": {
        "method": "regression",
        "train": {"optimizer": {"name": "sgd", "lr": 0.02, "clip_norm": None}},
    },
}


def test_what_a_step_does_besides():
    """Averages are of the fp32 weights, wherever these lie; a refused step leaves nothing behind in any engine."""
    ones = dict(zip(SPECIAL, run(1, [job(strategy="none", **special) for special in SPECIAL.values()]), strict=True))
    asked = [(name, strategy) for name in SPECIAL for strategy in STRATEGIES]
    found = run(2, [job(strategy=strategy, **SPECIAL[name]) for name, strategy in asked])
    for (name, strategy), result in zip(asked, found, strict=True):
        one = ones[name]
        assert curve(result) == pytest.approx(curve(one), rel=1e-5), (name, strategy)
        assert validation(result) == pytest.approx(validation(one), rel=1e-5, nan_ok=True), (name, strategy)
        assert result["probe"] == pytest.approx(one["probe"], rel=1e-4), (name, strategy)


def test_second_order_where_the_engine_can():
    one = run(1, [job("penalty", "none")])[0]
    for found in run(2, [job("penalty", s) for s in ("ddp", "zero1", "zero2")]):
        assert curve(found) == pytest.approx(curve(one), rel=1e-5), found["engines"]


@pytest.mark.parametrize(
    ("precision", "world", "distances"), [("fp32", 3, (0, 1, 3)), ("fp32", 1, (2, 4)), ("bf16", 1, (1,))]
)
def test_any_checkpoint_goes_on_under_any_strategy(begun, tmp_path, precision, world, distances):
    """Saved by two workers, resumed by three or by one: together all pairs of strategies in fp32."""
    whole = curve(run(1, [job("duel", "none", precision)])[0])
    first, stores = begun(precision)
    asked = [(STRATEGIES[i], STRATEGIES[(i + far) % len(STRATEGIES)]) for i in range(5) for far in distances]
    jobs = []
    for saved, loaded in asked:
        store = tmp_path / f"{saved}-{loaded}"
        shutil.copytree(stores / saved, store)
        jobs.append(job("duel", loaded, precision, store=str(store)))
    for (saved, loaded), found in zip(asked, run(world, jobs), strict=True):
        joined = first[saved] + curve(found)
        assert joined == pytest.approx(whole, rel=TOLERANCE[precision]), (saved, loaded)


def test_resumed_under_the_same_strategy_bit_for_bit(begun, tmp_path):
    first, stores = begun("fp32")
    shutil.copytree(stores, tmp_path / "stores")
    second = run(2, [job("duel", s, store=str(tmp_path / "stores" / s)) for s in STRATEGIES])
    for strategy, ended in zip(STRATEGIES, second, strict=True):
        whole = results(2, "fp32")[strategy, "duel"]
        assert first[strategy] + curve(ended) == curve(whole), whole["engines"]
        assert ended["weights"] == whole["weights"], whole["engines"]


def test_memory_of_a_rank_falls_as_the_strategy_promises():
    """Bytes of weights and optimizer on rank 0 of 1 and 4 workers (padding to whole rows and alignments aside)."""
    for strategy in STRATEGIES:
        before, after = (results(world, "fp32")[strategy, "gpt"]["memory"]["net"] for world in (1, 4))
        share = {part: after[part] / before[part] for part in ("parameters", "optimizer", "ema")}
        sharded_weights = strategy in ("fsdp", "zero3")
        assert share["parameters"] == pytest.approx(0.25 if sharded_weights else 1.0, rel=0.1), strategy
        for part in ("optimizer", "ema"):
            assert share[part] == pytest.approx(1.0 if strategy == "ddp" else 0.25, rel=0.1), (strategy, part)
