"""What the method promises beyond the released numbers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from generative.errors import ConfigError
from generative.method import Alone, Context, DataFacts
from generative.methods.mee_gan.config import PRESETS, MeeGanConfig
from generative.methods.mee_gan.entropy import entropy, first_codes, push
from generative.methods.mee_gan.losses import dlle
from generative.methods.mee_gan.memory import CodeMemory
from generative.methods.mee_gan.method import MeeGan
from generative.randomness import Streams
from generative.training.activations import FakeRun
from generative.training.precision import under_autocast

SMALL = {"latent": 4, "code": 3, "buffer_size": 12}
MLP = {"network": {"name": "mlp", "generator": [12, 12], "discriminator": [12]}}
DCGAN = {"network": {"name": "dcgan", "width": 2}}
SHAPE = (1, 8, 8)


def method_of(**settings: Any) -> MeeGan:
    return MeeGan(MeeGanConfig.model_validate(SMALL | MLP | settings), DataFacts(sample_shape=SHAPE))


def nets_of(method: MeeGan) -> dict[str, nn.Module]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return {name: spec.build().double() for name, spec in method.networks().items()}


def batch_of(count: int, valid: int | None = None) -> dict[str, Tensor]:
    ids = torch.arange(count)
    sample = torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 2 - 1
    return {"sample": sample, "sample_id": ids, "position": ids, "valid": ids < (valid or count)}


class Wide(Streams):
    """Noise in float64."""

    def normal(self, name: str, samples: Any, shape: Any = (), dtype: torch.dtype = torch.float64) -> Tensor:
        return super().normal(name, samples, shape, dtype)

    def uniform(self, name: str, samples: Any, shape: Any = (), dtype: torch.dtype = torch.float64) -> Tensor:
        return super().uniform(name, samples, shape, dtype)


def context_of(method: MeeGan, count: int, step: int = 5) -> Context:
    state = {name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in method.state().items()}
    return Context(step, Wide(0, step), count, state, Alone(), Wide(0, step).within("shared"))


def gradients(method: MeeGan, name: str, count: int = 6) -> tuple[dict[str, Tensor], dict[str, float]]:
    nets = nets_of(method)
    update = next(u for u in method.updates() if u.name == name)
    loss = method.loss(update, nets, batch_of(count), context_of(method, count))
    (loss.value / count).backward()
    found = {key: p.grad for key, p in nets[update.trains].named_parameters() if p.grad is not None}
    return found, {key: float(mean.total / mean.count) for key, mean in loss.metrics.items()}


@pytest.mark.parametrize(
    "settings", [{}, {"dlle": {"form": "paper"}}, {"iso": {"weight": 0.0}}, {"dlle": {"weight": 0.0}}]
)
def test_fused_passes_give_the_gradient_of_separate_ones(settings: dict[str, Any]) -> None:
    """Without spectral normalisation, whose iterations are fewer in the fused form."""
    plain = settings | {"spectral_norm": False}
    fused, told = gradients(method_of(**plain), "discriminator")
    separate, told_too = gradients(method_of(**plain, separate_forwards=True), "discriminator")
    assert told == pytest.approx(told_too, rel=1e-9)
    assert fused.keys() == separate.keys()
    for key in fused:
        torch.testing.assert_close(fused[key], separate[key], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["discriminator", "generator"])
@pytest.mark.parametrize("adversarial", ["wasserstein", "non_saturating", "hinge", "relativistic"])
@pytest.mark.parametrize("form", ["log_mean", "mean_log", "cosine"])
def test_the_gradient_is_that_of_the_terms_that_are_told(name: str, adversarial: str, form: str) -> None:
    """Finite differences of adversarial + weighted terms + weight x entropy along a random direction."""
    method = method_of(
        adversarial=adversarial,
        entropy={"form": form, "weight": 0.5, "neighbour": 2, "norm_weight": 0.3},
        spectral_norm=False,
        dlle={"form": "paper", "weight": 0.7},
        iso={"weight": 0.0},
        r1=0.4,
        r2=0.2,
    )
    update = next(u for u in method.updates() if u.name == name)
    nets = nets_of(method)
    parameters = list(nets[update.trains].parameters())
    directions = [torch.randn(p.shape, generator=torch.Generator().manual_seed(3), dtype=p.dtype) for p in parameters]

    def total(step: float) -> float:
        with torch.no_grad():
            for p, d in zip(parameters, directions, strict=True):
                p.add_(d, alpha=step)
        loss = method.loss(update, nets, batch_of(6), context_of(method, 6))
        with torch.no_grad():
            for p, d in zip(parameters, directions, strict=True):
                p.sub_(d, alpha=step)
        told = {key: float(mean.total / mean.count) for key, mean in loss.metrics.items()}
        weights = {"adversarial": 1.0, "dlle": 0.7, "r1": 0.2, "r2": 0.1, "entropy": 0.5}
        return sum(weight * told.get(key, 0.0) for key, weight in weights.items())

    loss = method.loss(update, nets, batch_of(6), context_of(method, 6))
    found = torch.autograd.grad(loss.value / 6, parameters)
    slope = sum(float((g * d).sum()) for g, d in zip(found, directions, strict=True))
    assert slope == pytest.approx((total(1e-6) - total(-1e-6)) / 2e-6, rel=1e-4)


def test_rows_that_do_not_count_change_nothing() -> None:
    method = method_of(spectral_norm=False, entropy={"weight": 0.1})
    for update in method.updates()[:2]:
        results = []
        for count in (6, 8):
            nets = nets_of(method)
            context = context_of(method, 6)
            # Two ranks, of which the other has no rows: then padding is looked for.
            object.__setattr__(context, "global_batch", 7)
            object.__setattr__(context, "collectives", _Other())
            loss = method.loss(update, nets, batch_of(count, valid=6), context)
            grads = torch.autograd.grad(loss.value, [p for p in nets[update.trains].parameters() if p.requires_grad])
            results.append((float(loss.value.detach()), grads, loss.new_state))
        assert results[0][0] == pytest.approx(results[1][0], rel=1e-9)
        for mine, theirs in zip(results[0][1], results[1][1], strict=True):
            torch.testing.assert_close(mine, theirs)
        for key, tensor in (results[0][2] or {}).items():
            torch.testing.assert_close(tensor, (results[1][2] or {})[key])


class _Other(Alone):
    world = 2


def test_the_generator_sees_the_latents_of_the_discriminator() -> None:
    method, seen = method_of(), {}
    nets: dict[str, Any] = nets_of(method)
    generator = nets["generator"]
    for update in method.updates()[:2]:

        def watch(z: Tensor, valid: Tensor | None, name: str = update.name) -> Tensor:
            seen[name] = z
            return generator(z, valid)

        method.loss(update, nets | {"generator": watch}, batch_of(4), context_of(method, 4))
    assert torch.equal(seen["discriminator"], seen["generator"])


def test_order_of_updates_is_the_released_one() -> None:
    updates = method_of(discriminator_updates=3).updates()
    order = [(u.trains, u.batch) for u in updates for _ in range(u.repeats)]
    wanted = [("discriminator", "own"), ("generator", "previous"), ("discriminator", "own"), ("discriminator", "own")]
    assert order == wanted
    assert all(u.coupled for u in updates)
    assert [u.trains for u in method_of(discriminator_updates=1).updates()] == ["discriminator", "generator"]


def test_weight_rises_by_epochs_from_nothing() -> None:
    memory = CodeMemory(
        MeeGanConfig(discriminator_updates=3, entropy={"warmup_batches": 300, "warmup_every": 10}), "real"
    )
    assert [round(memory._warm(step), 6) for step in (0, 3, 4, 50, 99, 100, 1000)] == [
        0,
        0,
        0.033333,
        0.5,
        0.966667,
        1,
        1,
    ]


def test_a_relative_weight_is_a_part_of_the_adversarial_gradient() -> None:
    method = method_of(entropy={"weight": 0.25, "relative": True, "form": "mean_log", "of": "generated"})
    memory = CodeMemory(method.config, "generated")
    codes = torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2)).requires_grad_()
    adversarial = (codes.mean(1) ** 2).sum()
    term = memory.term(codes, adversarial, batch_of(6), context_of(method, 6))
    assert term.value is not None
    norms = [torch.autograd.grad(value, codes, retain_graph=True)[0].norm() for value in (term.value, adversarial)]
    assert float(norms[0] / norms[1]) == pytest.approx(0.25, rel=1e-5)
    assert float(term.state["generated_balance"]) > 0


@given(st.integers(1, 9), st.lists(st.integers(1, 12), min_size=1, max_size=6))
def test_the_queue_holds_the_newest_codes_in_order(size: int, batches: list[int]) -> None:
    buffer, all_codes = first_codes(size, 2), [first_codes(size, 2)]
    for number, count in enumerate(batches):
        codes = torch.full((count, 2), float(number + 2)) + torch.arange(count)[:, None] / 100
        buffer = push(buffer, codes)
        all_codes.append(codes)
    assert torch.equal(buffer, torch.cat(all_codes)[-size:])


def test_a_repeated_batch_gives_finite_entropy() -> None:
    codes = torch.ones(4, 3).requires_grad_()
    for form in ("log_mean", "mean_log", "cosine"):
        found = entropy(codes, torch.ones(5, 3), torch.ones(4, dtype=torch.bool), Alone(), form)  # type: ignore[arg-type]
        (gradient,) = torch.autograd.grad(found.values.sum(), codes)
        assert torch.isfinite(found.term)
        assert torch.isfinite(gradient).all()


def test_samples_do_not_depend_on_their_batch() -> None:
    for settings in (DCGAN, MLP):
        method = method_of(**settings, sampling={"standing_samples": 500})
        nets = {name: net.float().eval() for name, net in nets_of(method).items()}
        before = {key: value.clone() for key, value in nets["generator"].state_dict().items()}
        sampler = method.sampler(nets)
        whole = sampler({"sample_id": torch.arange(7)}, Streams(0))
        parts = [sampler({"sample_id": torch.arange(a, b)}, Streams(0)) for a, b in ((0, 2), (2, 7))]
        torch.testing.assert_close(whole, torch.cat(parts), rtol=1e-5, atol=1e-6)
        assert whole.shape == (7, *SHAPE)
        for key, value in nets["generator"].state_dict().items():
            assert torch.equal(value, before[key]), "drawing changed the network"


def test_standing_statistics_are_those_of_the_samples() -> None:
    """With them in eval mode, hidden units of fresh samples have mean beta and variance gamma^2."""
    method = method_of(sampling={"standing_samples": 4000})
    generator = method.sampler({name: net.float() for name, net in nets_of(method).items()}).generator
    norms = [module for module in generator.modules() if hasattr(module, "running_mean")]
    outputs: list[Tensor] = []
    norms[0].register_forward_hook(lambda module, given, output: outputs.append(output.clone()))
    generator(torch.randn(8000, 4, generator=torch.Generator().manual_seed(5)))
    torch.testing.assert_close(outputs[0].mean(0), norms[0].bias, atol=0.08, rtol=0)
    torch.testing.assert_close(outputs[0].std(0), norms[0].weight.abs(), atol=0.08, rtol=0)


def test_standing_statistics_under_autocast_are_those_without() -> None:
    method = method_of(sampling={"standing_samples": 500})
    found = []
    for precision in ("fp32", "bf16"):
        nets = {name: net.float() for name, net in nets_of(method).items()}
        under_autocast(nets["generator"], precision, torch.device("cpu"))
        found.append(dict(method.sampler(nets).generator.named_buffers()))
    for name, buffer in found[0].items():
        torch.testing.assert_close(buffer, found[1][name], atol=0.02, rtol=0.02)


def test_the_distance_of_equal_codes_has_a_finite_gradient() -> None:
    codes = torch.ones(2, 3, requires_grad=True)
    for form in ("code", "paper"):
        (gradient,) = torch.autograd.grad(dlle(codes, torch.ones(2, 3), form).sum(), codes)  # type: ignore[arg-type]
        assert torch.equal(gradient, torch.zeros(2, 3))


@pytest.mark.parametrize("preset", PRESETS)
def test_fake_weights_tell_the_activations(preset: str) -> None:
    """No loss reads what a network has put out, so that plans know the memory and GPUs are not waited for."""
    method = method_of(preset=preset, buffer_columns=6)
    batch = batch_of(6) | {"sample": torch.zeros(6, *SHAPE)}
    peaks = FakeRun(method).activation_bytes(batch)
    assert peaks.keys() == {update.name for update in method.updates()}
    assert min(peaks.values()) > 0


@pytest.mark.parametrize(
    "settings", [{}, {"iso": {"weight": 0.0}}, {"dlle": {"form": "paper"}}, {"adversarial": "relativistic"}]
)
def test_flops_are_those_that_torch_counts(settings: dict[str, Any]) -> None:
    config = {"network": {"name": "dcgan", "width": 16}, "entropy": {"weight": 0.0}, "discriminator_updates": 2}
    method = MeeGan(MeeGanConfig.model_validate(SMALL | config | settings), DataFacts(sample_shape=(3, 32, 32)))
    nets = {name: net.float() for name, net in nets_of(method).items()}
    batch = batch_of(4) | {"sample": torch.zeros(4, 3, 32, 32)}
    context = Context(0, Streams(0), 4, shared=Streams(1))
    counted = 0
    for update in method.updates():
        for name, net in nets.items():
            net.requires_grad_(name == update.trains)
        with FlopCounterMode(display=False) as counter:
            method.loss(update, nets, batch, context).value.backward()
        counted += counter.get_total_flops() * update.repeats
    # The first layers need no gradient of their input.
    assert method.flops(batch) == pytest.approx(counted, rel=0.1)


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_fill_in_what_is_not_given(preset: str) -> None:
    plain = MeeGanConfig(preset=preset)
    changed = MeeGanConfig(preset=preset, entropy={"weight": 0.125})
    assert changed.entropy.weight == 0.125
    assert changed.entropy.form == plain.entropy.form
    assert MeeGanConfig.model_validate(plain.model_dump()) == plain


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"entropy": {"neighbour": 30}, "buffer_size": 20}, "method.entropy.neighbour"),
        ({"ema": [1.0]}, "method.ema"),
        ({"buffer": "released", "entropy": {"form": "cosine"}}, "method.buffer=fifo"),
        ({"separate_forwards": True, "r1": 1.0}, "separate_forwards"),
        ({"unused_head": True, "reparameterised": False}, "unused_head"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        MeeGanConfig.model_validate(settings)


def test_points_cannot_be_flipped_and_text_has_no_shape() -> None:
    with pytest.raises(ConfigError, match="augmentation=noise"):
        MeeGan(MeeGanConfig(**MLP), DataFacts(sample_shape=(2,)))
    with pytest.raises(ConfigError, match=r"data\.name"):
        MeeGan(MeeGanConfig(), DataFacts(vocab_size=5))


def test_the_released_buffer_wants_its_columns() -> None:
    method = method_of(preset="released", buffer_columns=5)
    with pytest.raises(ConfigError, match="buffer_columns=6"):
        gradients(method, "discriminator", 6)
