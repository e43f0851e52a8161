"""What strategies trip over: shared and fixed parameters, buffers, sums in bf16, silent ranks; what they refuse."""

from __future__ import annotations

import pathlib
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.groups import run_group

SCRIPT = pathlib.Path(__file__).with_name("train_toy.py")
STRATEGIES = ("ddp", "fsdp", "zero1", "zero2", "zero3")
pytestmark = [pytest.mark.distributed, pytest.mark.timeout(180)]


def job(method, strategy, parallel=None, **arguments):
    return {"method": method, "parallel": {"strategy": strategy, **(parallel or {})}, **arguments}


def run(world, jobs):
    return run_group(SCRIPT, world, {"jobs": jobs}, timeout=150)


def values(records):
    return [value for record in records for value in record.values() if value is not None]


def awkward(strategy, precision="fp32", fixed=False):
    gentle = {"optimizer": {"lr": 0.003, "clip_norm": 0.7}}
    options = {"fixed": fixed}
    return job("awkward", strategy, precision=precision, options=options, train=gentle, weights="ema")


def test_awkward_networks_train_alike():
    """Losses, gradient norms, and what is left: weights, averages and buffers, the complex one among them."""
    ones = run(1, [awkward("none", fixed=fixed) for fixed in (False, True)])[0]
    # Stage 3 has no place for parameters that are not trained, and says so.
    asked = [
        (s, precision, fixed)
        for s in STRATEGIES
        for precision in ("fp32", "bf16")
        for fixed in (False, True)
        if not (fixed and s == "zero3")
    ]
    for case, result in zip(asked, run(2, [awkward(*case) for case in asked])[0], strict=True):
        one, tolerance = ones[case[2]], 5e-3 if case[1] == "bf16" else 1e-5
        assert values(result["losses"]) == pytest.approx(values(one["losses"]), rel=tolerance), case
        assert values(result["norms"]) == pytest.approx(values(one["norms"]), rel=4 * tolerance), case
        assert result["probe"] == pytest.approx(one["probe"], rel=4 * tolerance), case


def test_rates_of_some_parameters_and_their_decay():
    """Five groups, by rate and decay."""
    rates = {"blocks.0.*": 0.25, "head.*": 0.5}
    optimizer = {"lr": 0.01, "weight_decay": 0.3, "rates": rates, "no_decay": ["1d"]}
    asked = {"method": "gpt", "steps": 4, "train": {"optimizer": optimizer}}
    one = run(1, [job(strategy="none", **asked)])[0][0]
    usual = run(1, [job("gpt", "none", steps=4, train={"optimizer": optimizer | {"rates": {}}})])[0][0]
    assert one["probe"] != pytest.approx(usual["probe"], rel=1e-2)
    for strategy, result in zip(STRATEGIES, run(2, [job(strategy=s, **asked) for s in STRATEGIES])[0], strict=True):
        assert values(result["losses"]) == pytest.approx(values(one["losses"]), rel=1e-5), strategy
        assert result["probe"] == pytest.approx(one["probe"], rel=1e-4), strategy


def test_many_micro_batches_are_summed_in_fp32():
    """Gradient norms of 5 micro-batches a rank in bf16 against fp32: sums in bf16 would be off by percents."""
    one = run(1, [job("gpt", "none", steps=3)])[0][0]
    found = run(2, [job("gpt", s, precision="bf16", micro=1, steps=3) for s in STRATEGIES])[0]
    for strategy, result in zip(STRATEGIES, found, strict=True):
        assert values(result["norms"])[:1] == pytest.approx(values(one["norms"])[:1], rel=3e-3), strategy


REFUSED = {
    "an idle parameter": ({"options": {"idle": True}}, "no gradient to idle"),
    "names of metrics that differ": ({"options": {"fickle": True}, "batch_size": 2}, "report different metrics"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_on_every_rank(name):
    special, words = REFUSED[name]
    for results in run(2, [job("awkward", s, refused=True, **special) for s in STRATEGIES]):
        for strategy, result in zip(STRATEGIES, results, strict=True):
            assert words in result.get("error", ""), (strategy, result)


@pytest.fixture(scope="module")
def waited(tmp_path_factory):
    """Two groups that wait, which they do at the same time; a collective may take 3 s. Futures, and the slow disk."""
    store = tmp_path_factory.mktemp("store")
    silent = job("regression", "zero2", parallel={"timeout_seconds": 3}, silent_after=3)
    slow = job("regression", "ddp", parallel={"timeout_seconds": 3}, store=str(store), every=4, slow_disk=4)
    asked = {"silent": [silent], "slow": [job("regression", "ddp"), slow]}
    with ThreadPoolExecutor(len(asked)) as pool:
        return {name: pool.submit(run, 2, jobs) for name, jobs in asked.items()}, store


def test_a_silent_rank_is_given_up_after_the_time_out(waited):
    """DeepSpeed has a process group of its own, whose time-out would be half an hour."""
    with pytest.raises(AssertionError, match=r"(?i)timed? ?out"):
        waited[0]["silent"].result()


def test_a_slow_disk_is_waited_for_beyond_the_time_out(waited):
    """Of the last rank, at every save."""
    calm, found = waited[0]["slow"].result()[0]
    assert found["losses"] == calm["losses"]
    assert {path.name for path in waited[1].glob("step_*")} == {"step_000004", "step_000008"}
