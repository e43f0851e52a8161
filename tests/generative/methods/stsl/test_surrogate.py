"""T3 - T8: Tweedie's moments, the surrogate loss and its probes, the bound, covariance-aware guidance."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from generative.methods.stsl.covariance import mmps
from generative.methods.stsl.levels import clean, level_of, linear_alphas
from generative.methods.stsl.mixtures import Mixture, exact_guidance
from generative.methods.stsl.operators.base import matrix_operator
from generative.methods.stsl.problem import Problem, StreamDraws
from generative.methods.stsl.sampler import update
from generative.methods.stsl.surrogate import Terms, surrogate
from generative.randomness import Streams
from tests.generative.methods.stsl.golden import PROBLEMS, TIMES, Recorded, Toy

EQ4 = Terms(weight=1.0, data_loss="squared", eta=0.02, probe="unit")
CASES = [(name, time) for name in PROBLEMS for time in TIMES]


def near(found, wanted, tolerance=1e-8) -> None:
    error = (found - wanted).abs().max() / wanted.abs().max().clamp(min=1.0)
    assert error <= tolerance, f"error {error:.2e}"


@pytest.mark.parametrize(("name", "time"), CASES)
def test_moments_and_densities(name, time) -> None:
    """T3, and exact guidance."""
    toy = Toy(name, time)
    x, level = toy.told("x"), toy.level
    mixture = toy.mixture
    near(mixture.score(x, level), toy.told("score"))
    near(mixture.log_density(x, level), toy.told("log_p"))
    z0 = clean(x, toy.mixture.prior().noise(x, level), level)
    near(z0, toy.told("x0_mean"))
    parts = mixture.given(x, level)
    near(torch.stack([part.mean for part in parts]), toy.told("x0_mean"))
    covariance = torch.stack([part.covariance for part in parts])
    near(covariance, toy.told("x0_cov"))
    # tr C = (b^2 / a^2) (d + b^2 tr H)
    size = x.shape[1]
    traces = covariance.diagonal(dim1=1, dim2=2).sum(1)
    near((traces * level.signal**2 / level.noise**2 - size) / level.noise**2, toy.told("trace_hess"), 1e-6)
    jacobian = torch.func.jacrev(lambda z: toy.mixture.prior().noise(z[None], level)[0])
    traces = torch.stack([torch.trace(jacobian(point)) for point in x])
    near(-traces / level.noise, toy.told("trace_hess"))
    near(exact_guidance(mixture, toy.matrix)(toy.problem(), x, level).score, toy.told("guid_exact"), 1e-7)


@pytest.mark.parametrize(("name", "time"), CASES)
def test_loss_and_gradient_of_eq_4(name, time) -> None:
    """T4."""
    toy = Toy(name, time)
    problem = toy.problem(Recorded({"probe": toy.told("eps")}))
    x = toy.told("x")
    z = x.clone().requires_grad_()
    found = surrogate(problem, z, toy.level, EQ4, 0)
    near(found.data, toy.told("stsl_loss_data"))
    near(found.trace, 0.02 / x.shape[1] * toy.told("stsl_probe_term_raw"))
    near(found.loss, toy.told("stsl_loss"))
    moved, _ = update(problem, x, toy.level, EQ4, 0)
    near(x - moved, toy.told("stsl_loss_grad"))


@pytest.mark.parametrize(("name", "time"), CASES)
def test_covariance_aware_guidance(name, time) -> None:
    """T8: exact for Gaussians; elsewhere as recorded, by at most m steps of conjugate gradients."""
    toy = Toy(name, time)
    found = mmps(toy.problem(), toy.told("x"), toy.level, solver_steps=8, tolerance=1e-13)
    near(found.score, toy.told("guid_mmps"), 1e-7)
    if name == "gauss4":
        near(found.score, toy.told("guid_exact"))


@pytest.mark.parametrize(("name", "time"), CASES)
def test_the_bound(name, time) -> None:
    """T7: E log p(y | z0) <= log p(y | z), and the difference is KL(p(z0 | z) || p(z0 | z, y)) >= 0.

    The sides are computed here from the mixture: log p(y | z) as log p(z | y) + log p(y) - log p(z).
    """
    toy = Toy(name, time)
    x, level, sigma = toy.told("x"), toy.level, toy.sigma
    joint = toy.mixture.posterior(toy.matrix, toy.y, sigma)
    measured = Mixture(
        toy.mixture.weights,
        toy.mixture.means @ toy.matrix.T,
        toy.matrix @ toy.mixture.covariances @ toy.matrix.T + sigma**2 * torch.eye(len(toy.y)).double(),
    )
    evidence = measured.log_density(toy.y[None], level_of(1.0, 0))
    exact = joint.log_density(x, level) + evidence - toy.mixture.log_density(x, level)
    near(exact, toy.told("log_py_xt"), 1e-7)
    parts = toy.mixture.given(x, level)
    spread = torch.stack([torch.trace(toy.matrix @ part.covariance @ toy.matrix.T) for part in parts])
    residual = toy.y - torch.stack([part.mean for part in parts]) @ toy.matrix.T
    constant = -0.5 * len(toy.y) * torch.log(torch.tensor(2 * torch.pi * sigma**2))
    bound = constant - (residual.square().sum(1) + spread) / (2 * sigma**2)
    near(bound, toy.told("elbo_exactA"), 1e-6)
    assert bool((bound <= exact + 1e-9).all())
    if name == "gauss4":  # where the divergence has a closed form
        divergences = [_divergence(part, part.posterior(toy.matrix, toy.y, sigma)) for part in parts]
        near(exact - bound, torch.stack(divergences), 1e-7)


def _divergence(a: Mixture, b: Mixture) -> torch.Tensor:
    """KL(a || b) of two Gaussians."""
    inverse = torch.linalg.inv(b.covariances[0])
    apart = b.means[0] - a.means[0]
    spread = torch.trace(inverse @ a.covariances[0]) + apart @ inverse @ apart - len(apart)
    return 0.5 * (spread + torch.logdet(b.covariances[0]) - torch.logdet(a.covariances[0]))


def small_problem(name: str, draws) -> tuple[Toy, Problem]:
    toy = Toy(name, 400)
    return toy, replace(toy.problem(), draws=draws)


@pytest.mark.parametrize("probe", ["unit", "scaled", "central", "jvp"])
def test_probes_are_unbiased_for_the_smoothed_trace(probe) -> None:
    """T5: the mean over 20,000 probes is the mean of tr H(z + h u) (jvp: tr H itself), within 4 standard errors."""
    count = 20000
    toy = Toy("gmm2", 400)
    level, size = toy.level, 2
    x = toy.told("x")[:1].expand(count, -1)
    draws = StreamDraws(Streams(5), torch.arange(count), torch.float64)
    problem = replace(toy.problem(), y=toy.y.expand(count, -1), draws=draws)
    terms = Terms(weight=0.0, data_loss="squared", eta=1.0, probe=probe, probe_size=0.5)
    found = surrogate(problem, x.clone().requires_grad_(), level, terms, 0).trace.detach()
    found = found * size / (1.0 if probe == "unit" else level.noise**2)
    h = {"unit": 1.0, "jvp": 0.0}.get(probe, 0.5 * level.noise)
    other = StreamDraws(Streams(6), torch.arange(count), torch.float64)("u", 0, (2,))
    z = (x + h * other).requires_grad_()
    score = toy.mixture.score(z, level)
    rows = [torch.autograd.grad(score[:, i].sum(), z, retain_graph=True)[0][:, i] for i in range(size)]
    wanted = torch.stack(rows).sum(0)
    error = (found.var() / count + wanted.var() / count).sqrt()
    assert abs(found.mean() - wanted.mean()) < 4 * error + 1e-9
    if probe == "jvp":
        torch.testing.assert_close(wanted[0], toy.told("trace_hess")[0])


def test_forms_agree_as_the_probe_shrinks() -> None:
    """scaled and central tend to jvp; unit at eta b is scaled at c = 1 / b."""
    draws = StreamDraws(Streams(1), torch.arange(6), torch.float64)
    toy, problem = small_problem("gmm8", draws)
    x, level = toy.told("x"), toy.level

    def moved(**how):
        return update(problem, x, level, Terms(weight=0.0, eta=1.0, **how), 3)[0] - x

    exact = moved(probe="jvp")
    near(moved(probe="scaled", probe_size=1e-5), exact, 1e-3)
    near(moved(probe="central", probe_size=1e-4), exact, 1e-5)
    unit = update(problem, x, level, Terms(weight=0.0, eta=1.0, probe="unit"), 3)[0] - x
    near(moved(probe="scaled", probe_size=1 / level.noise) / level.noise**2, unit)


@pytest.mark.parametrize("probe", ["unit", "scaled", "central", "jvp", "measurement"])
def test_gaussian_priors_feel_no_trace(probe) -> None:
    """T6: the Hessian is constant, so its gradient is 0 for every probe."""
    toy, problem = small_problem("gauss4", StreamDraws(Streams(2), torch.arange(6), torch.float64))
    x = toy.told("x")
    moved, _ = update(problem, x, toy.level, Terms(weight=0.0, data_loss="squared", eta=5.0, probe=probe), 0)
    if probe == "measurement":  # its weight is the data term's
        plain, _ = update(problem, x, toy.level, Terms(weight=0.7, data_loss="squared", eta=0.0), 0)
        moved, _ = update(problem, x, toy.level, Terms(weight=0.7, data_loss="squared", eta=5.0, probe=probe), 0)
        near(moved, plain, 1e-8)
    else:
        near(moved, x, 1e-9)


@pytest.mark.parametrize("data_loss", ["squared", "norm"])
def test_probes_in_measurement_space_give_the_bound(data_loss) -> None:
    """m = 1, u = 1: w = A^T, so that the gradient is that of bound (*) itself (guid_elboA), up to the small step."""
    toy, problem = small_problem("gmm2", Recorded({"probe": torch.ones(6, 1, dtype=torch.float64)}))
    x = toy.told("x")
    weight = 1 / (2 * toy.sigma**2)
    terms = Terms(weight=weight, data_loss=data_loss, eta=1.0, probe="measurement", probe_size=1e-5)
    moved, found = update(problem, x, toy.level, terms, 0)
    step = x - moved
    if data_loss == "norm":
        step = step * 2 * found.data.detach()[:, None]
    near(-step, toy.told("guid_elboA"), 1e-3)


def test_probes_where_the_operator_is_flat_change_nothing() -> None:
    """All of an image beyond HDR's range: no direction of measurement space moves z."""
    toy, problem = small_problem("gmm2", StreamDraws(Streams(3), torch.arange(6), torch.float64))
    flat = replace(problem.operator, apply=lambda x: (x @ toy.matrix.T).clamp(-1e-9, 1e-9), adjoint=None)
    terms = Terms(weight=1.0, eta=1.0, probe="measurement")
    x = toy.told("x")
    torch.testing.assert_close(update(replace(problem, operator=flat), x, toy.level, terms, 0)[0], x)


def test_signs_lead_to_smaller_covariance() -> None:
    """A step along the trace term alone lowers tr Cov[z0 | z] on average."""
    toy, problem = small_problem("ring2", StreamDraws(Streams(3), torch.arange(6), torch.float64))
    x, level = toy.told("x"), toy.level
    moved, _ = update(problem, x, level, Terms(weight=0.0, eta=1e-3, probe="jvp", probes=64), 0)
    before, after = (
        torch.stack([torch.trace(part.covariance) for part in toy.mixture.given(at, level)]) for at in (x, moved)
    )
    assert after.mean() < before.mean()


def test_probes_and_their_rows_are_counted() -> None:
    rows = {"unit": 2, "scaled": 2, "central": 3, "jvp": 1, "measurement": 2}
    for probe, wanted in rows.items():
        _, problem = small_problem("gmm2", StreamDraws(Streams(3), torch.arange(6), torch.float64))
        update(problem, Toy("gmm2", 400).told("x"), Toy("gmm2", 400).level, Terms(eta=1.0, probe=probe), 0)
        assert problem.cost.rows == 6 * wanted, probe
        # one product for the trace itself, and one through all of it
        assert problem.cost.vjps == (12 if probe == "jvp" else 6)


def test_other_losses_are_added() -> None:
    """Gluing is 0 for pixels whose measured part is right; an extra loss comes with nu / d."""
    toy, problem = small_problem("gmm8", StreamDraws(Streams(3), torch.arange(6), torch.float64))
    x = toy.told("x").clone().requires_grad_()
    plain = surrogate(problem, x, toy.level, Terms(weight=0.3), 0)
    more = surrogate(problem, x, toy.level, Terms(weight=0.3, extra=lambda v: v.square().sum(1), extra_weight=2.0), 0)
    torch.testing.assert_close(more.loss - plain.loss, plain.z0.square().sum(1) * 2 / 8)
    glued = surrogate(problem, x, toy.level, Terms(weight=0.3, glue_weight=0.5), 0)
    operator = matrix_operator(toy.matrix)
    wanted = operator.pseudo_inverse(problem.y - operator(plain.z0)).norm(dim=1)
    torch.testing.assert_close(glued.loss - plain.loss, 0.5 * wanted)


def test_linear_alphas_are_those_recorded() -> None:
    from tests.generative.methods.stsl.golden import MIXTURES, arrays

    torch.testing.assert_close(linear_alphas(), arrays(MIXTURES)["alphas_cumprod_linear1000"], rtol=1e-12, atol=0)
