"""Gaussian mixtures as priors: score, moments and posteriors in closed form, for tests and benchmarks.

p(z) at a level is sum_k pi_k N(a mu_k, a^2 Sigma_k + b^2 I); for y = A z0 + sigma n the posterior is a mixture again.

Shapes: B points of d numbers, K parts, m measurements; float64.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from generative.methods.stsl.covariance import Guidance, Guided
from generative.methods.stsl.levels import Level, clean, level_of, linear_alphas
from generative.methods.stsl.prior import Prior, discrete_prior
from generative.methods.stsl.problem import Problem


@dataclass(frozen=True)
class Mixture:
    """Weights [K], means [K, d], covariances [K, d, d]."""

    weights: Tensor
    means: Tensor
    covariances: Tensor

    @property
    def mean(self) -> Tensor:
        """[d]."""
        return self.weights @ self.means

    @property
    def covariance(self) -> Tensor:
        """[d, d]."""
        apart = self.means - self.mean
        within = torch.einsum("k,kij->ij", self.weights, self.covariances)
        return within + torch.einsum("k,ki,kj->ij", self.weights, apart, apart)

    def _parts(self, z: Tensor, level: Level) -> tuple[Tensor, Tensor]:
        """(log pi_k N_k(z) [B, K], precision (z - mean) [B, K, d])."""
        a, b = level.signal, level.noise
        covariance = a**2 * self.covariances + b**2 * torch.eye(z.shape[1]).to(z)
        apart = z[:, None] - a * self.means
        turned = torch.einsum("kij,bkj->bki", torch.linalg.inv(covariance), apart)
        size = torch.logdet(2 * torch.pi * covariance)
        return self.weights.log() - 0.5 * ((apart * turned).sum(-1) + size), turned

    def log_density(self, z: Tensor, level: Level) -> Tensor:
        """log p(z) [B]."""
        return self._parts(z, level)[0].logsumexp(1)

    def score(self, z: Tensor, level: Level) -> Tensor:
        """grad log p(z) [B, d]."""
        logs, turned = self._parts(z, level)
        return -(logs.softmax(1)[..., None] * turned).sum(1)

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """[count, d]."""
        parts = torch.multinomial(self.weights, count, replacement=True, generator=generator)
        drawn = torch.randn(count, self.means.shape[1], dtype=self.means.dtype, generator=generator)
        return self.means[parts] + torch.einsum("bij,bj->bi", torch.linalg.cholesky(self.covariances)[parts], drawn)

    def posterior(self, matrix: Tensor, y: Tensor, sigma: float) -> Mixture:
        """p(z0 | y) for y = A z0 + sigma n, y [m]."""
        covariance = matrix @ self.covariances @ matrix.T + sigma**2 * torch.eye(len(y)).to(y)
        gain = self.covariances @ matrix.T @ torch.linalg.inv(covariance)
        apart = y - self.means @ matrix.T
        means = self.means + torch.einsum("kij,kj->ki", gain, apart)
        size = (apart * torch.linalg.solve(covariance, apart[..., None])[..., 0]).sum(1)
        logs = self.weights.log() - 0.5 * (size + torch.logdet(covariance))
        left = self.covariances - gain @ matrix @ self.covariances
        return Mixture(logs.softmax(0), means, (left + left.mT) / 2)

    def given(self, z: Tensor, level: Level) -> list[Mixture]:
        """p(z0 | z) for each point."""
        identity = torch.eye(z.shape[1]).to(z)
        return [self.posterior(level.signal * identity, point, level.noise) for point in z]

    def prior(self, alphas: Tensor | None = None) -> Prior:
        """As a prior whose noise prediction is exact, on a path of linear betas or of given alpha_bar [N]."""
        path = linear_alphas() if alphas is None else alphas

        def network(z: Tensor, times: Tensor) -> Tensor:
            level = level_of(float(path[int(times[0])]), float(times[0]))
            return -level.noise * self.score(z, level)

        return discrete_prior(network, path, (self.means.shape[1],), about="a Gaussian mixture in closed form")


def exact_guidance(mixture: Mixture, matrix: Tensor) -> Guidance:
    """grad log p(y | z) in closed form, for problems whose measurements are all the same."""

    def guide(problem: Problem, z: Tensor, level: Level) -> Guided:
        posterior = mixture.posterior(matrix, problem.y[0], problem.sigma)
        e = problem.noise(z, level)
        z0 = clean(z, e, level)
        score = posterior.score(z, level) - mixture.score(z, level)
        return Guided(score, e, z0, problem.ratio(problem.misfit(z0)))

    return guide
