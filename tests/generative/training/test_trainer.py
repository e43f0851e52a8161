"""The training loop against hand-written loops, and what it promises of its numbers."""

from __future__ import annotations

import copy

import pytest
import torch

from generative.errors import AnomalyError, CheckpointError, ConfigError
from generative.randomness import Streams
from generative.training.backend import Backend
from generative.training.checkpoint import CheckpointStore
from generative.training.config import TrainConfig
from generative.training.hooks import Hook
from generative.training.monitor import MonitorHook
from generative.training.runfolder import read_lines
from generative.training.trainer import Trainer
from tests.support.toys import Anchored, Duel, Regression, loaders


class Keep(Hook):
    """Keeps what the trainer reports."""

    def __init__(self):
        self.records, self.events, self.rewinds = [], [], []

    def on_step(self, trainer, record):
        self.records.append(record)

    def on_event(self, trainer, kind, message):
        self.events.append((kind, message))

    def on_rewind(self, trainer, step):
        self.rewinds.append(step)

    def losses(self, update):
        return [record["loss"].get(update) for record in self.records]


def config(steps=6, **changes) -> TrainConfig:
    base = {
        "steps": steps,
        "batch_size": 6,
        "optimizer": {"lr": 0.05, "clip_norm": 0.7, "weight_decay": 0.1},
        "schedule": {"name": "cosine", "warmup_steps": 2},
        "checkpoint": {"every_steps": None, "keep_last": 9},
    }
    return TrainConfig.model_validate(base | changes)


def run(method, settings, store=None, micro=None, stop=None, hook=None, seed=0):
    keep = hook or Keep()
    trainer = Trainer(
        method,
        settings,
        settings.steps,
        loaders(micro=micro, batch_size=settings.batch_size, seed=seed),
        Backend(),
        store,
        [keep],
        stop or (lambda: False),
    )
    return trainer, keep, trainer.train()


def weights(trainer):
    return {f"{n}/{k}": v.clone() for n, m in trainer.networks().items() for k, v in m.state_dict().items()}


def assert_same(a, b, tolerance=0.0):
    assert a.keys() == b.keys()
    for name in a:
        assert torch.allclose(a[name].double(), b[name].double(), rtol=0, atol=tolerance), name


def test_one_network_equals_a_plain_loop():
    """Same losses, learning rates, weights and averages as a loop written out in full."""
    method, settings = Regression(), config(steps=8)
    trainer, keep, _ = run(method, settings)
    fresh = Trainer(method, settings, 8, loaders(), Backend())
    net = fresh.networks()["net"].train()
    average = {n: p.detach().clone() for n, p in net.named_parameters()}
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.05, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1)
    order = loaders()(None)
    for step in range(8):
        batch = next(order).micro_batches[0]
        noise = Streams(0, step, "fit/").normal("input", batch["sample_id"], (3,))
        loss = (net(batch["x"] + 0.1 * noise) - batch["y"]).square().mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 0.7)
        ratio = torch.tensor(torch.pi * max(step - 2, 0) / 6).cos().item()
        lr = 0.05 * step / 2 if step < 2 else 0.005 + 0.5 * (1 + ratio) * 0.045
        optimizer.param_groups[0]["lr"] = lr
        optimizer.step()
        optimizer.zero_grad()
        for name, parameter in net.named_parameters():
            average[name] = 0.9 * average[name] + 0.1 * parameter.detach()
        assert keep.records[step]["loss"]["fit"] == pytest.approx(loss.item(), rel=1e-6)
        assert keep.records[step]["lr"]["fit"] == pytest.approx(lr, rel=1e-6, abs=1e-12)
    for name, parameter in net.named_parameters():
        torch.testing.assert_close(trainer.networks()["net"].get_parameter(name), parameter, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(trainer.engines["net"].emas[0].average[name], average[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("micro", [1, 2, 4])
def test_micro_batches_change_nothing(micro):
    _, a, _ = run(Regression(), config())
    _, b, _ = run(Regression(), config(), micro=micro)
    assert b.losses("fit") == pytest.approx(a.losses("fit"), rel=1e-5)


def test_two_networks_and_a_frozen_third():
    method = Duel(student_every=2)
    trainer, keep, state = run(method, config(steps=4))
    assert state == "complete"
    assert trainer.engines["critic"].updates == 8
    assert trainer.engines["student"].updates == 2
    assert trainer.engines["critic"].planned_updates == 8
    assert trainer.engines["student"].planned_updates == 2
    assert trainer.samples == 4 * 2 * 6  # the student uses the critic's last batch
    fresh = Trainer(method, config(steps=4), 4, loaders(), Backend())
    assert_same(weights_of(fresh, "teacher"), weights_of(trainer, "teacher"))
    # the student starts as a copy of the teacher
    assert_same(weights_of(fresh, "teacher"), weights_of(fresh, "student"))
    assert trainer.state["mean"] != 0.25
    # the mode asked for: the student is in train mode in the critic's updates (its call counter moves)
    assert int(trainer.networks()["student"].calls) == 8 + 2
    assert int(trainer.networks()["teacher"].calls) == 0
    assert int(trainer.networks()["critic"].calls) == 8
    assert [r["loss"].get("student") is not None for r in keep.records] == [True, False, True, False]


def weights_of(trainer, name):
    return {k: v.clone() for k, v in trainer.networks()[name].named_parameters()}


def test_updates_of_a_step_share_a_stream_besides_their_own():
    """A latent drawn from it is the same in both; the next step draws another."""

    class Listening(Duel):
        def loss(self, update, nets, batch, context):
            ids = batch["sample_id"]
            drawn.append((context.step, context.shared.normal("z", ids)[0], context.streams.normal("z", ids)[0]))
            return super().loss(update, nets, batch, context)

    drawn: list = []
    run(Listening(critic_repeats=1), config(steps=2))
    (_, a, x), (_, b, y), (_, c, _), _ = drawn
    assert a == b != c
    assert x != y


def test_only_the_trained_network_changes():
    class Watch(Hook):
        def on_start(self, trainer):
            self.before = weights_of(trainer, "student")

    method = Duel(student_every=100)
    watch = Watch()
    trainer, _, _ = run(method, config(steps=1, schedule={"name": "constant", "warmup_steps": 0}), hook=watch)
    changed = any((watch.before[k] != v).any() for k, v in weights_of(trainer, "student").items())
    assert changed  # step 0 is due for every `every`
    before = weights_of(trainer, "student")
    trainer.steps = 2
    trainer.train()
    assert_same(before, weights_of(trainer, "student"))


def test_learning_rate_of_each_optimizer_counts_its_own_updates():
    settings = config(steps=4, networks={"critic": {"optimizer": {"lr": 0.01}, "schedule": {"name": "constant"}}})
    _, keep, _ = run(Duel(), settings)
    assert [r["lr"]["critic"] for r in keep.records] == [0.01] * 4
    assert [r["lr"]["student"] for r in keep.records][:3] == [0.0, 0.025, 0.05]


def test_unknown_network_section_is_refused():
    with pytest.raises(ConfigError, match="Did you mean student"):
        run(Duel(), config(networks={"studnet": {}}))


# ---------------------------------------------------------------------- resume


def stopping_after(count):
    calls = iter(range(10**6))
    return lambda: next(calls) >= count


@pytest.mark.parametrize("method", [Regression(dropout=0.3), Duel(), Anchored()])
def test_interrupted_and_resumed_is_bit_identical(tmp_path, method):
    straight, a, _ = run(method, config(steps=9), CheckpointStore(tmp_path / "a"))
    first, b, state = run(method, config(steps=9), CheckpointStore(tmp_path / "b"), stop=stopping_after(4))
    assert state == "interrupted"
    assert first.step == 4
    second, c, state = run(method, config(steps=9), CheckpointStore(tmp_path / "b"))
    assert state == "complete"
    assert c.rewinds == [4]
    assert_same(weights(straight), weights(second))
    curve = [r["loss"] for r in a.records]
    assert curve == [r["loss"] for r in b.records + c.records]
    for left, right in zip(straight.engines.values(), second.engines.values(), strict=True):
        for x, y in zip(left.emas, right.emas, strict=True):
            assert_same(x.average, y.average)


def test_training_on_from_a_complete_run_does_nothing(tmp_path):
    store = CheckpointStore(tmp_path)
    first, _, _ = run(Regression(), config(), store)
    again, keep, state = run(Regression(), config(), CheckpointStore(tmp_path))
    assert state == "complete"
    assert keep.records == []
    assert_same(weights(first), weights(again))


def test_another_optimizer_cannot_go_on(tmp_path):
    run(Regression(), config(), CheckpointStore(tmp_path))
    with pytest.raises(CheckpointError, match="state of another optimizer"):
        run(Regression(), config(optimizer={"name": "sgd", "lr": 0.1}), CheckpointStore(tmp_path))


def test_only_damaged_checkpoints_stop_the_run_instead_of_starting_again(tmp_path):
    run(Regression(), config(), CheckpointStore(tmp_path))
    for file in tmp_path.glob("step_*/*.safetensors"):
        file.write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match="all checkpoints"):
        run(Regression(), config(), CheckpointStore(tmp_path))


def test_killed_before_the_first_checkpoint_logs_each_step_once(tmp_path):
    class Die(Hook):
        def on_step(self, trainer, record):
            if trainer.step == 3:
                raise RuntimeError

    def train(*hooks):
        store, backend = CheckpointStore(tmp_path / "checkpoints"), Backend()
        Trainer(Regression(), config(), 6, loaders(), backend, store, [MonitorHook(tmp_path), *hooks]).train()

    with pytest.raises(RuntimeError):
        train(Die())
    train()
    assert [line["step"] for line in read_lines(tmp_path / "metrics.jsonl")] == list(range(1, 7))


def test_a_damaged_newer_checkpoint_does_not_push_out_the_whole_one(tmp_path):
    run(Regression(), config(steps=4, checkpoint={"every_steps": 2}), CheckpointStore(tmp_path, keep_last=2))
    victim = tmp_path / "step_000004" / "rank0000.safetensors"
    victim.write_bytes(victim.read_bytes()[:-1] + b"?")
    settings = config(steps=4, checkpoint={"every_steps": None})
    _, _, state = run(Regression(), settings, CheckpointStore(tmp_path, keep_last=1), stop=stopping_after(1))
    assert state == "interrupted"
    assert CheckpointStore(tmp_path, keep_last=1).newest().step == 3


def test_warm_start_from_another_run(tmp_path):
    first, _, _ = run(Regression(), config(), CheckpointStore(tmp_path / "checkpoints"))
    settings = config(networks={"net": {"init_from": str(tmp_path)}})
    fresh = Trainer(Regression(), settings, 6, loaders(), Backend())
    assert_same(weights(first), weights(fresh))


# ---------------------------------------------------------------------- anomalies


def test_stop_gives_a_diagnosis_and_keeps_the_state_before(tmp_path):
    store = CheckpointStore(tmp_path)
    with pytest.raises(AnomalyError) as caught:
        run(Regression(poison=20), config(), store)
    text = str(caught.value)
    assert "loss is nan" in text
    assert "step 4" in text
    assert "samples 18 to 23" in text
    assert "seed 0" in text
    assert store.complete_steps() == [3]
    with pytest.raises(AnomalyError, match="step 4"):  # the same command again replays exactly this step
        run(Regression(poison=20), config(), CheckpointStore(tmp_path))


def test_skip_leaves_the_step_out():
    settings = config(anomaly={"policy": "skip"})
    trainer, keep, state = run(Regression(poison=20), settings)
    assert state == "complete"
    assert trainer.step == 6
    assert trainer.engines["net"].updates == 5
    assert all(torch.isfinite(p).all() for p in trainer.networks()["net"].parameters())
    assert [kind for kind, _ in keep.events] == ["anomaly"]


def test_rollback_goes_on_with_later_data_and_a_lower_rate(tmp_path):
    settings = config(anomaly={"policy": "rollback"}, checkpoint={"every_steps": 2, "keep_last": 9})
    trainer, keep, state = run(Regression(poison=20), settings, CheckpointStore(tmp_path))
    assert state == "complete"
    assert keep.rewinds == [0, 2]
    assert trainer.lr_factor == 0.5
    assert trainer.samples == 6 * (6 + 2)  # two steps were taken again, with the samples after the bad ones


def test_spike_against_recent_losses():
    from generative.training.anomaly import AnomalyGuard
    from generative.training.config import AnomalyConfig

    guard = AnomalyGuard(AnomalyConfig(spike_sigma=6.0))
    for i in range(128):
        assert guard.verdict("u", 1.0 + 0.1 * (-1) ** i, 1.0) is None
    assert guard.verdict("u", 1.5, 1.0) is None  # 5 sigma
    restored = AnomalyGuard(AnomalyConfig(spike_sigma=6.0))
    restored.load(copy.deepcopy(guard.state()))
    for g in (guard, restored):
        assert "sigma above" in g.verdict("u", 2.0, 1.0)
