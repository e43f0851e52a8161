"""Edits on a tiny Stable Diffusion: inversion, null edits, processors put back, restoration first."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from generative.errors import CheckpointError, ConfigError
from generative.hub.editable import Editable, open_editable
from generative.methods.stsl.attention_control import make_control
from generative.methods.stsl.attention_hooks import attention_changed
from generative.methods.stsl.contrast import patch_contrast
from generative.methods.stsl.editing import Edit, Edited, Texts, edited, inverted
from generative.methods.stsl.operators.catalogue import make_operator
from generative.methods.stsl.problem import Cost, Problem, StreamDraws
from generative.methods.stsl.surrogate import Terms
from generative.randomness import Streams
from tests.support.captions import tiny_pipeline
from tests.support.pipelines import golden_folder

pytest.importorskip("diffusers")
CPU = torch.device("cpu")
BEFORE, AFTER = "a photo of a dog", "a photo of a tree"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Editable:
    return open_editable(tiny_pipeline(tmp_path_factory.mktemp("sd") / "model"), CPU)


def latents(rows: int = 1) -> torch.Tensor:
    return torch.randn(rows, 4, 8, 8, generator=torch.Generator().manual_seed(2)) * 0.5


def problem_of(model: Editable, rows: int = 1) -> Problem:
    prior = model.prior_of(model.embed(""))
    operator = make_operator("superres:factor=4", prior.image)
    y = torch.zeros(rows, *operator.measured)
    return Problem(prior, operator, y, 0.1, StreamDraws(Streams(0), torch.arange(rows)), Cost())


def make(model: Editable, after: str, settings: Edit, measured: bool = False, rows: int = 1) -> tuple[Edited, Cost]:
    problem = problem_of(model, rows)
    control = make_control("refine", model.prompt(BEFORE), model.prompt(after))
    texts = Texts(model.embed(BEFORE), model.embed(""), model.embed(after))
    found = edited(problem, model.prior_of, model.unet, latents(rows), texts, control, settings, measured)
    return found, problem.cost


def test_more_rounds_invert_better(model) -> None:
    """A null edit without guidance comes back to the image: four rounds nearer than DDIM's inversion, many exactly."""
    with torch.no_grad():
        wanted = problem_of(model).decode(latents())
    errors = []
    for rounds in (1, 4, 16):
        found, cost = make(model, BEFORE, Edit(steps=8, rounds=rounds, guidance=1.0))
        torch.testing.assert_close(found.image, found.reconstruction, rtol=1e-4, atol=1e-5)
        errors.append(float((found.reconstruction - wanted).abs().max()))
        assert (cost.rows, cost.vjps) == (8 * rounds + 8 * 3, 0)
    assert errors[1] < 0.2 * errors[0]
    assert errors[2] < 2e-3


def test_an_edit_differs_and_batches_do_not_matter(model) -> None:
    settings = Edit(steps=4, rounds=1, guidance=3.0)
    both, _ = make(model, AFTER, settings, rows=2)
    alone, _ = make(model, AFTER, settings)
    assert (both.image - both.reconstruction).abs().max() > 1e-3
    torch.testing.assert_close(both.image[:1], alone.image, rtol=1e-3, atol=1e-4)
    tokens = range(model.encoder.length)
    torch.testing.assert_close(both.maps.of(tokens), torch.ones(2, 8, 8), rtol=1e-4, atol=1e-4)


def test_maps_in_the_open_are_diffusers_attention(model) -> None:
    """A change that changes nothing gives the network's own output."""
    prior, level = model.prior_of(model.embed(BEFORE)), problem_of(model).prior.levels(4)[1]
    with torch.no_grad():
        wanted = prior.noise(latents(), level)
        with attention_changed(model.unet, lambda maps, text: maps):
            found = prior.noise(latents(), level)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_processors_come_back_after_an_error(model) -> None:
    before = dict(model.unet.attn_processors)

    def broken(maps: torch.Tensor, text: bool) -> torch.Tensor:
        raise RuntimeError("within")

    prior, level = model.prior_of(model.embed(BEFORE)), problem_of(model).prior.levels(4)[1]
    with pytest.raises(RuntimeError, match="within"), attention_changed(model.unet, broken):
        prior.noise(latents(), level)
    after = model.unet.attn_processors
    assert before.keys() == after.keys()
    assert all(before[name] is after[name] for name in before)


def test_other_attention_is_refused(model) -> None:
    before = dict(model.unet.attn_processors)
    try:
        model.unet.set_attn_processor(type("Odd", (), {"__call__": lambda self, *a, **k: a[1]})())
        with pytest.raises(ConfigError, match="of kind Odd"), attention_changed(model.unet, lambda m, t: m):
            pass
    finally:
        model.unet.set_attn_processor(before)


def test_measurement_and_contrast_guide(model) -> None:
    """The first steps descend the measurement's loss, the later ones the contrastive term; all is counted."""
    plain = Edit(steps=4, rounds=1, terms=Terms(weight=0.5, eta=0.0))

    def features(x: torch.Tensor) -> torch.Tensor:
        return x.flatten(2).transpose(1, 2)

    contrast = replace(plain, contrast=lambda source: patch_contrast(features, source), nu=50.0)
    without, _ = make(model, AFTER, plain)
    guided, cost = make(model, AFTER, plain, measured=True)
    both, more = make(model, AFTER, contrast, measured=True)
    assert cost.vjps == 3  # 0.6 of 4 steps, rounded up
    assert more.vjps == cost.vjps + 1 == 4
    assert not torch.equal(without.image, guided.image)
    assert not torch.equal(both.image, guided.image)
    misfit = problem_of(model).misfit
    assert misfit(guided.image).norm() < misfit(without.image).norm()


def test_inversion_of_no_step_is_exact(model) -> None:
    """The last level alone: only its signal is taken."""
    problem = problem_of(model)
    last = problem.prior.levels(4)[-1:]
    torch.testing.assert_close(inverted(problem, latents(), last, 1), last[0].signal * latents())


@pytest.mark.parametrize("told", [{"cross": 1.5}, {"own": -0.1}, {"rounds": 0}, {"steps": 0}])
def test_bad_settings(told) -> None:
    with pytest.raises(ConfigError):
        Edit(**told)


def test_models_without_text_are_refused(tmp_path: Path) -> None:
    from diffusers import DDPMPipeline, DDPMScheduler

    from tests.generative.hub.test_diffusion_priors import small_unet

    DDPMPipeline(small_unet(3), DDPMScheduler()).save_pretrained(tmp_path / "ddpm")
    with pytest.raises(CheckpointError, match="no text encoder"):
        open_editable(tmp_path / "ddpm", CPU)
    with pytest.raises(CheckpointError):
        open_editable(golden_folder(tmp_path / "no_scheduler"), CPU)
