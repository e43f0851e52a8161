"""T9, T10, T12 and what all samplers promise: rows counted, one image's failure, errors, predictions of all kinds."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from generative.errors import ConfigError, DataError
from generative.methods.stsl.baselines.daps import Daps
from generative.methods.stsl.baselines.dps import Dps
from generative.methods.stsl.baselines.optimise import optimised
from generative.methods.stsl.baselines.p2l_style import P2LStyle, corrected
from generative.methods.stsl.baselines.psld import Psld
from generative.methods.stsl.baselines.resample import Resample, drawn_around
from generative.methods.stsl.covariance import mmps
from generative.methods.stsl.levels import clean, ddim_step, level_of, linear_alphas
from generative.methods.stsl.methods import METHODS, method_named, notes, with_changes
from generative.methods.stsl.operators.base import Operator, matrix_operator
from generative.methods.stsl.operators.catalogue import make_operator
from generative.methods.stsl.operators.noise import with_noise
from generative.methods.stsl.predictions import to_noise
from generative.methods.stsl.prior import Prior, denoiser_prior, discrete_prior, flow_prior
from generative.methods.stsl.problem import Problem, StreamDraws, size_of
from generative.methods.stsl.sampler import PAPER, GuidedSampling, Stsl, guided, stsl
from generative.methods.stsl.surrogate import Terms
from generative.methods.stsl.walk import invert, start
from generative.randomness import Streams
from tests.generative.methods.stsl.golden import Toy

TOY = Toy("gmm8", 400)
SHORT = {
    "stsl": Stsl(steps=4, inner=2),
    "stsl_paper": replace(PAPER, steps=4, inner=2, terms=replace(PAPER.terms, weight=0.05)),
    "first_order": Stsl(Terms(weight=0.3, eta=0.0), steps=4, inner=2),
    "mmps": GuidedSampling(steps=4),
    "dps": Dps(steps=4, clip=False),
    "ldps": Psld(steps=4, gamma=0.0),
    "gml_dps": Psld(steps=4, glue="fixed_point"),
    "psld": Psld(steps=4),
    "resample": Resample(steps=4, every=1, pixel_steps=5, latent_steps=5, ahead=1),
    "daps": Daps(steps=4, flow_steps=2, langevin_steps=3),
    "p2l_style": P2LStyle(steps=4),
}


def problem(count: int = 5, prior: Prior | None = None, ids: Tensor | None = None) -> Problem:
    ids = torch.arange(count) if ids is None else ids
    draws = StreamDraws(Streams(7), ids, torch.float64)
    y = TOY.y.expand(len(ids), -1) + 0.1 * draws("y", 0, (3,))
    return Problem(prior or TOY.mixture.prior(), matrix_operator(TOY.matrix), y, TOY.sigma, draws)


@pytest.mark.parametrize("name", sorted(METHODS))
def test_results_do_not_depend_on_the_batch(name) -> None:
    """T10: an image alone, and in another order, is as in the batch; the bits hold at equal batch."""
    run = partial(METHODS[name].run, settings=SHORT[name])
    whole = run(problem())
    again = run(problem())
    assert torch.equal(whole.image, again.image)
    assert not whole.failed.any()
    assert whole.residual.shape[1] == 5
    for ids in ([3], [4, 1]):
        part = run(problem(ids=torch.tensor(ids)))
        torch.testing.assert_close(part.image, whole.image[ids], rtol=1e-8, atol=1e-10)
    assert len(whole.image.unique(dim=0)) == 5


def test_shards_of_equal_size_give_equal_bits() -> None:
    parts = [stsl(problem(ids=torch.tensor(ids)), SHORT["stsl"]).image for ids in ([0, 1], [2, 3])]
    other = [stsl(problem(ids=torch.tensor(ids)), SHORT["stsl"]).image for ids in ([2, 3], [0, 1])]
    assert torch.equal(parts[0], other[1])
    assert torch.equal(parts[1], other[0])


@pytest.mark.parametrize("data_loss", ["squared", "norm"])
@pytest.mark.parametrize("ddim_eta", [0.0, 1.0])
def test_no_trace_is_the_first_order_sampler(data_loss, ddim_eta) -> None:
    """T9: eta = 0 against a sampler written here; the probes' stream is not touched."""
    told = problem()
    weight = 0.05 if data_loss == "squared" else 0.3
    found = stsl(told, Stsl(Terms(weight, data_loss, eta=0.0), 5, 3, ddim_eta=ddim_eta, early_exit=False))
    levels = told.prior.levels(5)
    z = start(told, levels, "q_sample")
    for i in range(5):
        for _ in range(3):
            z = z.detach().requires_grad_()
            z0 = clean(z, told.prior.noise(z, levels[i]), levels[i])
            loss = size_of(told.y - z0 @ TOY.matrix.T, data_loss).sum()
            z = z - weight * torch.autograd.grad(loss, z)[0]
        z = z.detach()
        e = told.prior.noise(z, levels[i])
        drawn = told.draws("ddim", i, (8,))
        z = ddim_step(clean(z, e, levels[i]), e, levels[i], levels[i + 1], ddim_eta, drawn)
    torch.testing.assert_close(found.image, z, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", sorted(METHODS))
def test_an_identity_decoder_changes_nothing(name) -> None:
    """T9: D = E = identity makes latent and pixel code agree."""
    pixel = TOY.mixture.prior()
    latent = replace(pixel, encode=lambda x: 1 * x, decode=lambda z: 1 * z)
    a, b = (METHODS[name].run(problem(prior=prior), SHORT[name]) for prior in (pixel, latent))
    if name != "daps":  # which clamps gradients of latents
        torch.testing.assert_close(a.image, b.image, rtol=1e-6, atol=1e-6)
    assert a.cost.rows == b.cost.rows
    assert a.cost.vjps == b.cost.vjps
    assert a.cost.decoder_vjps == 0
    assert b.cost.decoder_vjps > 0


def test_costs_are_those_of_the_paper_and_more() -> None:
    """Section 2.4: T (2 K + 1) rows, T more for inversion, T K products; PSLD one of each a step."""
    for settings, more in ((Stsl(steps=5, inner=3, early_exit=False), 0), (replace(PAPER, steps=5, inner=3), 5)):
        cost = stsl(problem(), settings).cost
        assert cost.rows == 5 * (5 * 7 + more)
        assert cost.vjps == 5 * 15
        assert METHODS["stsl"].nfe(settings) == 15
        assert cost.by_image(5)["rows"] == 5 * 7 + more
    cost = METHODS["psld"].run(problem(), SHORT["psld"]).cost
    assert (cost.rows, cost.vjps, cost.calls) == (20, 20, 4)
    cost = METHODS["mmps"].run(problem(), GuidedSampling(steps=4, solver_steps=2)).cost
    assert cost.rows == 20
    assert cost.vjps == 20 * 3
    counted = {"psld": 4, "dps": 4, "mmps": 4, "daps": 8, "first_order": 8, "p2l_style": 4}
    assert {name: METHODS[name].nfe(SHORT[name]) for name in counted} == counted


def test_costs_of_autoencoders_are_counted() -> None:
    """Gluing goes back through the encoder as well; a linearised decoder has a further product, and two a product."""
    pixel = TOY.mixture.prior()
    latent = replace(pixel, encode=lambda x: 1 * x, decode=lambda z: 1 * z)
    costs = {name: METHODS[name].run(problem(prior=latent), SHORT[name]).cost for name in ("psld", "gml_dps", "ldps")}
    assert {name: cost.encoder_vjps for name, cost in costs.items()} == {"psld": 20, "gml_dps": 20, "ldps": 0}
    assert {cost.decoder_vjps for cost in costs.values()} == {20}
    gluing = replace(SHORT["stsl"], terms=Terms(eta=0.0, glue_weight=0.1), early_exit=False)
    glued = stsl(problem(prior=latent), gluing).cost
    assert glued.encoder_vjps == glued.vjps == 5 * 8
    cost = guided(problem(prior=latent), partial(mmps, solver_steps=2), GuidedSampling(steps=4)).cost
    assert cost.decoder_vjps == 20 * (1 + 2 * 2 + 1)
    assert METHODS["psld"].run(problem(prior=pixel), SHORT["psld"]).cost.encoder_vjps == 0


def test_one_images_failure_is_its_own() -> None:
    """A NaN stops that image, and the others are as they would have been."""
    plain = TOY.mixture.prior()
    calls = []

    def noise(z, level):
        found = plain.noise(z, level)
        calls.append(len(z))
        bad = (z - marked[: len(z)]).norm(dim=1) < 1e-9 if len(calls) == 1 else torch.zeros(len(z), dtype=torch.bool)
        return torch.where(bad[:, None], torch.nan, found)

    marked = start(problem(), plain.levels(4), "q_sample")[2:3].expand(10, -1)
    how = Stsl(Terms(weight=0.3, eta=0.0), steps=4, inner=2, early_exit=False)
    found = stsl(problem(prior=replace(plain, noise=noise)), how)
    wanted = stsl(problem(), how)
    assert found.failed.tolist() == [False, False, True, False, False]
    assert found.image[2].isnan().all()
    others = [0, 1, 3, 4]
    torch.testing.assert_close(found.image[others], wanted.image[others], rtol=1e-9, atol=1e-12)
    assert found.residual[1:, 2].isnan().all()
    assert not found.residual[:, others].isnan().any()
    # a stopped image costs nothing more
    assert calls[0] == 5
    assert calls[3:] == [4] * len(calls[3:])


def test_early_exit_saves_rows_once_noise_alone_is_left() -> None:
    how = Stsl(Terms(weight=0.02, data_loss="squared", eta=0.0), steps=12, inner=4)
    plain, less = stsl(problem(), replace(how, early_exit=False)), stsl(problem(), how)
    assert less.cost.rows < plain.cost.rows
    # with noise that explains everything no update is made: DDIM, and one look at each level
    loud = replace(problem(), sigma=1e3)
    found = stsl(loud, how)
    assert found.cost.rows == 5 * 12 * 2
    levels = loud.prior.levels(12)
    z = start(loud, levels, "q_sample")
    for level, target in pairwise(levels):
        e = loud.prior.noise(z, level)
        z = ddim_step(clean(z, e, level), e, level, target, 0.0, None)
    torch.testing.assert_close(found.image, z)


def test_starts() -> None:
    told = problem()
    levels = told.prior.levels(6)
    guess = matrix_operator(TOY.matrix).pseudo_inverse(told.y)
    drawn = told.draws("init", 0, (8,))
    torch.testing.assert_close(start(told, levels, "noise"), levels[0].noise * drawn)
    wanted = levels[0].signal * guess + levels[0].noise * drawn
    torch.testing.assert_close(start(told, levels, "q_sample"), wanted)
    blind = replace(told, operator=replace(told.operator, pseudo_inverse=None))
    torch.testing.assert_close(start(blind, levels, "q_sample"), levels[0].noise * drawn)
    with pytest.raises(ConfigError, match="use init=noise"):
        start(blind, levels, "ddim_inversion")
    with pytest.raises(ConfigError, match="init='q'"):
        start(told, levels, "q")


def test_inversion_is_undone_by_ddim() -> None:
    """With many steps, to which both tend."""
    told = problem()
    levels = told.prior.levels(500)
    clean_z = TOY.mixture.sample(5, torch.Generator().manual_seed(0))
    z = invert(told, clean_z, levels)
    for level, target in pairwise(levels):
        e = told.prior.noise(z, level)
        z = ddim_step(clean(z, e, level), e, level, target, 0.0, None)
    torch.testing.assert_close(z, clean_z, atol=0.05, rtol=0)


def test_collapsing_settings_are_told() -> None:
    """T12: and they do collapse, but for the probes."""
    assert len(notes(PAPER, 4)) == 1
    assert notes(PAPER, 1) == notes(Stsl(), 4) == notes(replace(PAPER, ddim_eta=1.0), 4) == notes(Dps(), 4) == []
    how = replace(PAPER, steps=4, inner=2, terms=replace(PAPER.terms, weight=0.05, eta=0.0))
    told = problem()
    same = replace(told, y=TOY.y.expand(5, -1))
    assert stsl(same, how).image.std(0).max() < 1e-9
    assert stsl(same, replace(how, init="q_sample")).image.std(0).max() > 1e-3


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample", "score", "flow"])
def test_predictions_of_all_kinds_give_the_noise(kind) -> None:
    z0, n = torch.randn(2, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    level = level_of(0.3, 5)
    if kind == "flow":
        level = replace(level, signal=0.6, noise=0.4)
    z = level.signal * z0 + level.noise * n
    output = {
        "epsilon": n,
        "v_prediction": level.signal * n - level.noise * z0,
        "sample": z0,
        "score": -n / level.noise,
        "flow": n - z0,
    }[kind]
    torch.testing.assert_close(to_noise(kind, output, z, level), n)
    if kind in ("flow", "v_prediction"):
        with pytest.raises(ConfigError, match="levels of its own path"):
            to_noise(kind, output, z, replace(level, signal=2.0))
    with pytest.raises(ConfigError, match="Did you mean epsilon"):
        to_noise("epsilo", output, z, level)


def test_denoisers_and_flows_are_priors() -> None:
    """The same mixture as D(x, sigma) and as a flow: one e at every level."""
    mixture = TOY.mixture

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        level = replace(level_of(0.5, 0), signal=1.0, noise=float(sigma[0]))
        return x + level.noise**2 * mixture.score(x, level)

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        level = replace(level_of(0.5, 0), signal=1 - float(t[0]), noise=float(t[0]))
        e = -level.noise * mixture.score(x, level)
        return e - clean(x, e, level)

    x = TOY.told("x")
    wanted = mixture.prior().noise(x, TOY.level)
    for prior in (denoiser_prior(denoise, (8,)), flow_prior(velocity, (8,))):
        torch.testing.assert_close(prior.noise(x, TOY.level), wanted, rtol=1e-4, atol=1e-5)
        levels = prior.levels(25)
        assert len(levels) == 26
        assert levels[0].sigma == pytest.approx(80)
        assert all(a.sigma > b.sigma for a, b in pairwise(levels))
        assert math.isclose(prior.nearest(0.7).sigma, 0.7)
        assert math.isclose(prior.nearest(100).sigma, 80)  # what it was trained for
        assert len(prior.levels(2000)) == 2001
        with pytest.raises(ConfigError, match="0 steps"):
            prior.levels(0)
    nearest = mixture.prior().nearest(0.7)
    assert abs(nearest.sigma - 0.7) < 0.01


def test_operators_that_are_not_linear_are_linearised() -> None:
    """A linear operator without its adjoint, and through a decoder, gives the same guidance."""
    told = problem()
    x = TOY.told("x")[:5]
    wanted = mmps(told, x, TOY.level, 8, 1e-12).score
    blind: Operator = replace(told.operator, adjoint=None)
    found = mmps(replace(told, operator=blind), x, TOY.level, 8, 1e-12).score
    torch.testing.assert_close(found, wanted)
    for weight, init in ((1.0, "noise"), (0.5, "q_sample")):
        settings = GuidedSampling(steps=3, weight=weight, init=init)
        assert guided(told, mmps, settings).image.isfinite().all()


def test_a_jacobian_that_is_no_covariance_gives_bounded_guidance() -> None:
    """dz0/dz = -g I, so that V = (sigma^2 - g b^2 / a) I with next to nothing left: unguarded, steps of |r| / 1e-6."""
    told, level = problem(), TOY.level
    g = (told.sigma**2 - 1e-6) * level.signal / level.noise**2

    def noise(z: Tensor, at: object) -> Tensor:
        return (1 + g * level.signal) / level.noise * z

    eyes = matrix_operator(torch.eye(8, dtype=torch.float64)[:3])
    prior = replace(TOY.mixture.prior(), noise=noise)
    x = TOY.told("x")[:5]
    found = mmps(replace(told, prior=prior, operator=eyes), x, level)
    assert found.score.abs().max() <= g * told.y.norm(dim=1).max() / told.sigma**2 * 1.5


def test_parts_of_baselines() -> None:
    told = problem()
    x = TOY.told("x")[:5]
    found = corrected(told, x, P2LStyle(near=0.5, solver_steps=20))
    identity = torch.eye(8, dtype=torch.float64)
    wanted = torch.linalg.solve(TOY.matrix.T @ TOY.matrix + 0.5 * identity, (told.y @ TOY.matrix + 0.5 * x).T).T
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)
    level, target = level_of(0.3, 1), level_of(0.5, 0)
    zero = torch.zeros_like(x)
    variance = 40 * 0.5 / 0.7 * (1 - 0.3 / 0.5)
    mean = (variance * 0.5**0.5 * x + 0.5 * zero) / (variance + 0.5)
    torch.testing.assert_close(drawn_around(x, zero, level, target, 40.0, zero), mean)
    spread = drawn_around(x, zero, level, target, 40.0, zero + 1) - mean
    torch.testing.assert_close(spread, zero + (variance * 0.5 / (variance + 0.5)) ** 0.5)
    blind = replace(told, operator=replace(told.operator, adjoint=None))
    with pytest.raises(ConfigError, match="a linear operator"):
        METHODS["p2l_style"].run(blind, SHORT["p2l_style"])


def test_resample_draws_around_the_state_after_its_gradient_step() -> None:
    """One consistent step by hand: where the optimisation makes none, z0 is Tweedie's mean after the further steps."""
    told = problem()
    how = Resample(steps=3, every=1, ahead=1, pixel_steps=1, latent_steps=1, enough=1e9)
    levels = told.prior.levels(3)
    z = start(told, levels, "noise")
    for number, (level, target) in enumerate(pairwise(levels)):
        z = z.detach().requires_grad_()
        e = told.prior.noise(z, level)
        z0 = clean(z, e, level)
        loss = size_of(told.y - z0 @ TOY.matrix.T, "norm").sum()
        moved = ddim_step(z0, e, level, target, 0.0, None) - 0.5 * level.alpha_bar * torch.autograd.grad(loss, z)[0]
        z = moved.detach()
        if number < 2:  # indices 2 and 1; of four steps index 3 would be in the first third
            further = clean(z, told.prior.noise(z, target), target)
            z = drawn_around(further, z, level, target, 40.0, told.draws("resample", number, (8,)))
    torch.testing.assert_close(METHODS["resample"].run(told, how).image, z)


def test_optimisation_ends_where_it_was_better_before() -> None:
    """AdamW with a large rate overshoots: a row stays once its loss was lower `patience` iterations ago."""
    told = problem()
    z0 = TOY.mixture.sample(5, torch.Generator().manual_seed(0))
    found = optimised(told, z0, 1.0, 30, 0.0, patience=5)
    losses = torch.stack([told.misfit(optimised(told, z0, 1.0, most, 0.0)).square().mean(1) for most in range(31)])
    for row in range(5):
        worse = [i for i in range(5, 30) if losses[i, row] > losses[i - 5, row]]
        last = worse[0] if worse else 30
        torch.testing.assert_close(found[row], optimised(told, z0, 1.0, last, 0.0)[row])
    assert any(losses[i, 0] > losses[i - 5, 0] for i in range(5, 30))


def test_dps_takes_all_steps_of_a_path_that_ends_at_its_first_level() -> None:
    """Stable Diffusion's schedules: with every time of the training the last step stays at its level."""
    alphas = linear_alphas(count=20, last=0.3)
    prior = discrete_prior(lambda z, times: 0.5 * z, alphas, (8,), final="first")
    for steps in (20, 7):
        assert METHODS["dps"].run(problem(prior=prior), Dps(steps=steps, clip=False)).image.isfinite().all()


def test_the_residual_of_the_truth_is_near_one() -> None:
    """Of masks only what is kept counts, whether or not y holds noise at missing pixels."""
    streams, ids = Streams(3), torch.arange(4)
    x = torch.rand(4, 1, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    image = Prior((1, 32, 32), (1, 32, 32), lambda z, level: z, TOY.mixture.prior().levels, TOY.mixture.prior().nearest)
    for text in ("inpaint:missing=0.75", "superres:factor=2", "hdr"):
        operator = make_operator(text, (1, 32, 32))
        y = with_noise(operator(x), "gaussian", 0.05, ids, streams)
        for given in (y, operator(y)) if operator.masks else (y,):
            told = Problem(image, operator, given, 0.05, StreamDraws(streams, ids))
            assert (told.ratio(told.misfit(x)) - 1).abs().max() < 0.15
    assert make_operator("inpaint:missing=0.75", (3, 32, 32)).size == 3 * 256


def test_an_image_that_is_not_finite_has_failed() -> None:
    calls: list[int] = []

    def decode(z: Tensor) -> Tensor:
        """The third time, after two updates, one image is lost."""
        calls.append(len(z))
        return z.index_fill(0, torch.tensor([1]), math.nan) if len(calls) == 3 else z

    latent = replace(TOY.mixture.prior(), encode=lambda x: x, decode=decode)
    found = stsl(problem(prior=latent), Stsl(Terms(eta=0.0), steps=2, inner=1, init="noise"))
    assert calls == [5, 5, 5]
    assert found.z.isfinite().all()
    assert found.failed.tolist() == [False, True, False, False, False]


def test_mistakes_are_told() -> None:
    told = problem()
    with pytest.raises(ConfigError, match="weigh data by 1 / sigma"):
        replace(told, sigma=0.0)
    with pytest.raises(DataError, match="measurements of shape"):
        replace(told, y=torch.zeros(5, 4))
    image = Prior((1, 4, 4), (1, 4, 4), lambda z, level: z, told.prior.levels, told.prior.nearest)
    seen = [make_operator(text, (1, 4, 4)) for text in ("superres:factor=2,kernel=bicubic", "inpaint", "hdr")]
    for operator in seen:
        y = operator(torch.rand(5, 1, 4, 4, dtype=torch.float64) * 2 - 1)
        Problem(image, operator, y, 0.05, told.draws)
        for wrong in (127.5 * (y + 1), y * torch.nan):
            with pytest.raises(DataError, match=r"of images in \[-1, 1\]"):
                Problem(image, operator, wrong, 0.05, told.draws)
    with pytest.raises(DataError, match="no NaN"):
        replace(told, y=told.y * torch.nan)
    with pytest.raises(DataError, match="as the prior makes them"):
        replace(told, operator=matrix_operator(torch.ones(3, 5, dtype=torch.float64)))
    with pytest.raises(ConfigError, match="Did you mean stsl"):
        method_named("stls")
    changed = with_changes(Stsl(), {"steps": "7", "weight": "0.5", "probe": "unit", "early_exit": "true"})
    assert (changed.steps, changed.terms.weight, changed.terms.probe, changed.early_exit) == (7, 0.5, "unit", True)
    for key, value, said in (
        ("stepps", "7", "Did you mean steps"),
        ("steps", "many", "steps=many"),
        ("probe", "round", "central"),
        ("early_exit", "maybe", "true or false"),
        ("terms", "1", "setting 'terms'"),
        ("init", "q", "q_sample, ddim_inversion, noise"),
        ("extra", "x", "setting 'extra'"),
        ("__doc__", "x", "setting '__doc__'"),
        ("inner", "0", "a whole number, 1 or more"),
        ("probes", "0", "1 or more"),
        ("weight", "nan", "a number, 0 or more"),
        ("weight", "inf", "a number, 0 or more"),
        ("eta", "-1", "0 or more"),
        ("ddim_eta", "2", "0 to 1"),
        ("probe_size", "0", "above 0"),
    ):
        with pytest.raises(ConfigError, match=said):
            with_changes(Stsl(), {key: value})
    for name, key in (("daps", "tau"), ("daps", "flow_steps"), ("resample", "every"), ("p2l_style", "every")):
        with pytest.raises(ConfigError, match=f"setting {key}=0"):
            with_changes(METHODS[name].settings, {key: "0"})
