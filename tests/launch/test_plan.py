"""The plan of a configuration: what it tells of published presets, machines, and runs that do not fit."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from evaluation.quantities import compact
from generative.errors import ConfigError, DataError, ResourceError
from generative.training.activations import FakeRun
from launch import plan_advice, plan_details, plan_json, plan_text
from launch.cli import main
from launch.machines import Machine, load_machine, machine_names
from launch.room import room
from launch.schema import load_run_config

SMALL = ["method.network.layers=1", "method.network.width=256", "method.network.heads=4", "method.network.ff_width=512"]
THIN = "method.network.layers=1"
"""Where depth does not matter."""
TEN_GB = {
    "memory_gb": 10,
    "bf16_tflops": 100,
    "fp32_tflops": 50,
    "within_gb_per_s": 100,
    "between_gb_per_s": 1,
    "gpus_per_node": 4,
}


@pytest.fixture(scope="module", autouse=True)
def _passes_are_shared():
    """Plans that make the same pass with fake weights make it once: machines and workers change nothing in it."""
    found, count, peak = {}, FakeRun.flops, plan_details.Activations._run

    def once(key, make):
        if key not in found:
            found[key] = make()
        return found[key]

    def flops(run, batch):
        return once(repr(("flops", run, _numbers(batch))), lambda: count(run, batch))

    def bytes_kept(activations, spread, size):
        batch = _numbers(activations.fake_batch(size, spread.batch_size))
        how = plan_details.numerics(spread), spread.checkpointing, spread.cuda, spread.batch_size
        return once(repr(("bytes", activations.method, how, batch)), lambda: peak(activations, spread, size))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FakeRun, "flops", flops)
        patch.setattr(plan_details.Activations, "_run", bytes_kept)
        yield


def _numbers(batch):
    return [(name, value.tolist()) for name, value in batch.items()]


def made(name, *overrides):
    return plan_details.make(load_run_config(name, overrides))


def shown(told, remedies=()):
    return plan_text.render(plan_text.lines(told, list(remedies)))


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine described in the user's own folder."""
    monkeypatch.chdir(tmp_path)
    Path("machines").mkdir()

    def write(name="mine", **changes):
        lines = [f"{key}: {value}" for key, value in (TEN_GB | changes).items()]
        (tmp_path / "machines" / f"{name}.yaml").write_text("\n".join(lines))
        return f"plan.machine={name}"

    return write


def test_the_quickstart_is_told_without_data_or_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "none"))
    told, _ = made("masked_diffusion/quickstart")
    assert told.plan.steps == 1200
    assert told.plan.tokens == 1200 * 16 * 128
    assert told.fits
    assert not (tmp_path / "none").exists()
    text = shown(told)
    assert text.startswith("plan              masked_diffusion/quickstart · ddp fp32 · 2 workers on this machine")
    assert f"network net       {compact(told.plan.parameters, ' ')} parameters · trained · 1 average" in text
    assert "(8 a rank)" in text


def test_the_largest_model_of_the_paper_on_sixty_four_gpus():
    """Of 1,142,367,744 parameters: 2 bytes whole, 12 / 64 for the optimizer; the ring within nodes of eight."""
    told, _ = made("masked_diffusion/1.1b", *SMALL_DEPTH, "parallel.strategy=zero2", "plan.machine=h100-80gb")
    states, spread = told.plan.states, told.plan.spread
    assert (spread.workers, spread.share, spread.micro_batches) == (64, 16, 2)
    count = told.plan.parameters
    assert states.parameters == pytest.approx(2 * count, rel=1e-5)
    assert states.optimizer == pytest.approx(12 * count / 64, rel=1e-4)
    assert told.plan.sent_bytes == pytest.approx(2 * count * 3 * 63 / 64, rel=1e-6)
    assert told.sending_seconds == pytest.approx(told.plan.sent_bytes / 50e9)
    assert told.step_seconds == pytest.approx(told.plan.flops / told.plan.steps / (0.4 * 989e12 * 64))
    assert told.cost == pytest.approx(told.seconds / 3600 * 64 * 3.0)
    assert "optimizer" in shown(told)
    assert "(sharded /64)" in shown(told)


SMALL_DEPTH = ["method.network.layers=1"]
"""The width and vocabulary of the preset at a fraction of its depth, for speed."""


def test_counts_of_operations_agree_where_conventions_do():
    """Recomputed activations are executed once more; causal attention is executed as a whole square."""
    plain, _ = made("masked_diffusion/quickstart")
    assert plain.executed == pytest.approx(plain.plan.flops, rel=0.02)  # masks are random
    again, _ = made("masked_diffusion/quickstart", "train.activation_checkpointing=true")
    assert again.plan.flops == plain.plan.flops
    assert again.executed > 1.2 * plain.executed
    causal, _ = made("autoregressive/quickstart")
    assert causal.executed > 1.05 * causal.plan.flops


def test_what_does_not_fit_gets_settings_that_do(machine, monkeypatch):
    monkeypatch.setattr(plan_details, "_executed", lambda plan, found: plan.flops)  # memory alone is asked for
    mine = machine(memory_gb=0.2)
    name, settings = "masked_diffusion/quickstart", [*SMALL, mine, "launch.workers=1", "train.batch_size=64"]
    told, found = made(name, *settings)
    assert not told.fits
    remedies = plan_advice.remedies(told, found)
    assert remedies
    for remedy in remedies:
        words = [f"{key}={value}" for key, value in remedy.settings.items()]
        changed, _ = made(name, *settings, *words)
        assert changed.fits, remedy
        assert changed.device_bytes == remedy.device_bytes
    text = shown(told, remedies)
    assert "does not fit" in text
    assert f"to fix            {remedies[0]}" in text


def test_a_model_that_no_machine_holds_says_so(machine):
    told, found = made("masked_diffusion/quickstart", machine(memory_gb=0.001), "launch.workers=1")
    wide = plan_advice.remedies(told, found)
    # Our own machines are larger, so one of them is named; nothing else helps a network that does not fit by itself.
    assert [list(remedy.settings) for remedy in wide] == [["plan.machine"]]


def test_links_that_are_slower_than_arithmetic_set_the_time(machine):
    slow = machine(between_gb_per_s=0.001, gpus_per_node=1)
    told, _ = made("masked_diffusion/quickstart", THIN, slow)
    assert told.sending_seconds > told.step_seconds
    assert told.seconds == pytest.approx(1200 * told.sending_seconds)
    assert any("sending takes" in text for text in plan_text.warnings(told))
    fast, _ = made("masked_diffusion/quickstart", THIN, machine(gpus_per_node=2))
    assert fast.sending_seconds == pytest.approx(fast.plan.sent_bytes / 100e9)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (["launch.workers=8"], "leaves 2 to each"),
        (["launch.workers=3"], "does not divide over 3 workers"),
        (["launch.workers=2", "train.micro_batch_size=3"], "train.micro_batch_size=2)"),
    ],
)
def test_uneven_and_tiny_shares_are_warned_of(settings, expected):
    told, _ = made("masked_diffusion/quickstart", THIN, *settings)
    assert any(expected in text for text in plan_text.warnings(told))


def test_offloaded_states_are_told_apart(machine):
    offloaded = ("parallel.strategy=zero3", "parallel.cpu_offload=true")
    told, _ = made("masked_diffusion/quickstart", THIN, machine(), *offloaded)
    assert told.plan.states.optimizer == 0
    assert told.plan.states.host > 0
    assert "host memory" in shown(told)


def test_a_vocabulary_that_only_data_know_is_asked_for(tmp_path):
    settings = ["data.name=files", f"data.path={tmp_path}/none.txt", "data.tokenizer.name=characters"]
    with pytest.raises(DataError, match="the size of the vocabulary is not known") as caught:
        made("masked_diffusion/quickstart", *settings)
    assert "method.network.vocab_size" in caught.value.remedy
    told, _ = made("masked_diffusion/quickstart", THIN, *settings, "method.network.vocab_size=65")
    assert told.plan.parameters > 0


def test_prepared_data_tell_their_vocabulary(tmp_path):
    from generative.data.text import open_text

    (tmp_path / "a.txt").write_text("abcdefgh" * 500)
    path = [f"data.path={tmp_path}/a.txt", f"data.cache={tmp_path}/cache"]
    settings = ["data.name=files", *path, "data.tokenizer.name=characters", "method.network.padding_multiple=1"]
    config = load_run_config("masked_diffusion/quickstart", settings)
    open_text(config.data)
    told, _ = plan_details.make(config)
    assert told.plan.networks[0].groups[0][0] == (8 + 1, 64)  # eight characters and the mask


def test_machines_have_sensible_figures():
    for name in machine_names():
        machine = load_machine(name)
        assert machine.bf16_tflops >= machine.fp32_tflops
        assert machine.within_gb_per_s >= machine.between_gb_per_s
    assert load_machine("h100-80gb").peak_flops("bf16") == 989e12


def test_a_machine_of_ones_own_is_found_by_name_and_by_path(machine, tmp_path):
    machine("cluster", memory_gb=20)
    assert load_machine("cluster") == load_machine(str(tmp_path / "machines" / "cluster.yaml"))
    assert load_machine("cluster") == Machine(**(TEN_GB | {"memory_gb": 20}))
    assert "cluster" in machine_names()


@pytest.mark.parametrize(
    ("name", "told"), [("h100-80g", "Did you mean h100-80gb?"), ("none.yaml", "no configuration named 'none.yaml'")]
)
def test_unknown_machines_are_refused(name, told):
    with pytest.raises(ConfigError) as caught:
        load_machine(name)
    assert told in caught.value.problem


def test_a_damaged_machine_is_refused(machine):
    machine("bad", memory_gb="much")
    with pytest.raises(ConfigError, match="memory_gb"):
        load_machine("bad")


def test_gpus_that_are_not_here_need_a_machine():
    with pytest.raises(ConfigError, match=r"launch\.gpus_per_worker=1") as caught:
        made("masked_diffusion/220m")
    assert "plan.machine=" in caught.value.remedy


def test_the_command_writes_json_and_tells_by_its_exit_code_whether_it_fits(machine, capsys, tmp_path):
    file = tmp_path / "plan.json"
    assert main(["plan", "masked_diffusion/quickstart", THIN, "--json", str(file)]) == 0
    assert capsys.readouterr().out.startswith("plan  ")
    written = json.loads(file.read_text())
    assert written["fits"] is True
    assert written["bytes"]["parameters"] == 4 * written["networks"]["net"]["parameters"]
    assert written["samples"] * 128 == written["tokens"]
    assert main(["plan", "masked_diffusion/quickstart", THIN, machine(memory_gb=0.01), "--json", str(file)]) == 3
    assert json.loads(file.read_text())["remedies"]
    assert "to fix" in capsys.readouterr().out


def test_json_has_what_the_text_has():
    told, _ = made("masked_diffusion/quickstart", THIN)
    value = json.loads(json.dumps(plan_json.as_json(told, [])))
    assert value["bytes"]["device"] == told.device_bytes
    assert value["step_seconds"]["arithmetic"] * value["steps"] == pytest.approx(value["seconds"])


def test_training_refuses_states_that_do_not_fit(monkeypatch, tmp_path):
    config = load_run_config("masked_diffusion/quickstart", [])
    assert room(config, 1000, 2).startswith("fits (states ")
    with pytest.raises(ResourceError, match="the states of 2 workers need") as caught:
        room(config, 10**15, 2)
    assert "generative plan" in caught.value.remedy
    assert room(load_run_config("masked_diffusion/quickstart", ["launch.address=auto"]), 10**15, 2) == ""


def test_training_on_gpus_asks_the_driver_for_their_memory(monkeypatch, tmp_path):
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 24576\necho 81920\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    config = load_run_config("masked_diffusion/quickstart", ["launch.gpus_per_worker=1"])
    assert room(config, 20 * 10**9, 2) == "fits (states 20.0 of 25.8 GB)"
    with pytest.raises(ResourceError, match="a GPU has"):
        room(config, 30 * 10**9, 2)
    halves = load_run_config("masked_diffusion/quickstart", ["launch.gpus_per_worker=0.5"])
    with pytest.raises(ResourceError):
        room(halves, 20 * 10**9, 2)
    tool.write_text("#!/bin/sh\nexit 1\n")
    assert room(config, 10**15, 2) == ""
