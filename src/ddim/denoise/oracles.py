"""Exact denoisers for data whose law is known: a Gaussian, a mixture of Gaussians. The oracles of our tests.

For x0 ~ N(mu, Sigma) the best noise prediction is eps = noise C^-1 (x_t - signal mu) with
C = signal^2 Sigma + noise^2 I; for a mixture the components' answers are weighted by their
responsibilities. All inner work is float64, in the eigenbasis of each Sigma.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ddim.denoise.conditions import NONE, Conditions
from ddim.denoise.protocol import Denoiser
from ddim.process import AnyLevel, Prediction, Process, Time, level_at
from ddim.refused import Refused

Covariance = float | Tensor


class _Gaussian:
    """N(mean, covariance) in the eigenbasis of its covariance: mean (D,), eigenvalues (D,), basis (D, D) or None."""

    def __init__(self, mean: Tensor | float, covariance: Covariance, dim: int) -> None:
        self.mean = torch.as_tensor(mean, dtype=torch.float64).flatten().expand(dim).clone()
        sigma = torch.as_tensor(covariance, dtype=torch.float64)
        self.basis: Tensor | None = None
        if sigma.ndim == 2 and sigma.shape == (dim, dim):
            if not torch.allclose(sigma, sigma.T):
                raise Refused("a covariance matrix must be symmetric")
            self.eigenvalues, self.basis = torch.linalg.eigh(sigma)
        elif sigma.ndim == 0 or (sigma.ndim == 1 and len(sigma) in (1, dim)):
            self.eigenvalues = sigma.expand(dim).clone()
        else:
            raise Refused(f"the covariance must be a number, ({dim},) or ({dim}, {dim}), got {tuple(sigma.shape)}")
        if float(self.eigenvalues.min()) < -1e-10:
            raise Refused(f"a covariance has no negative eigenvalue, got {float(self.eigenvalues.min()):.3g}")

    def rotate(self, y: Tensor) -> Tensor:
        return y if self.basis is None else y @ self.basis

    def rotate_back(self, y: Tensor) -> Tensor:
        return y if self.basis is None else y @ self.basis.T

    def centred(self, x: Tensor, at: AnyLevel) -> Tensor:
        return self.rotate(x - at.signal * self.mean)

    def variance(self, at: AnyLevel) -> Tensor:
        """Eigenvalues of C = signal^2 Sigma + noise^2 I."""
        variance: Tensor = at.signal**2 * self.eigenvalues + at.noise**2
        return variance

    def predict(self, x: Tensor, at: AnyLevel) -> tuple[Tensor, Tensor]:
        whitened = self.centred(x, at) / self.variance(at)
        x0 = self.mean + self.rotate_back(at.signal * self.eigenvalues * whitened)
        return x0, self.rotate_back(at.noise * whitened)

    def log_density(self, x: Tensor, at: AnyLevel) -> Tensor:
        """log N(x; signal mean, C) up to the constant that all components share; (B, 1)."""
        c = self.variance(at).expand(x.shape)
        return -0.5 * (self.centred(x, at).square() / c + c.log()).sum(-1, keepdim=True)


class GaussianDenoiser(Denoiser):
    """The exact denoiser of data N(mean, covariance).

    Args:
        process: the diffusion process.
        mean: a number or a tensor with the elements of one item.
        covariance: a number, one variance an element, or the full (D, D) matrix over flattened items.
    """

    invertible = True

    def __init__(self, process: Process, mean: Tensor | float, covariance: Covariance) -> None:
        self.process = process
        self._mean, self._covariance = mean, covariance
        self._cache: dict[int, _Gaussian] = {}

    def _gaussian(self, dim: int) -> _Gaussian:
        if dim not in self._cache:
            self._cache[dim] = _Gaussian(self._mean, self._covariance, dim)
        return self._cache[dim]

    def __call__(self, x_t: Tensor, t: Time | Tensor, conditions: Conditions = NONE) -> Prediction:
        x = x_t.reshape(len(x_t), -1).double()
        x0, eps = self._gaussian(x.shape[1]).predict(x, level_at(self.process, t, x))
        return Prediction(x0.view_as(x_t).to(x_t.dtype), eps.view_as(x_t).to(x_t.dtype))

    def flow(self, x_t: Tensor, t: Time, s: Time) -> Tensor:
        """The probability flow from t to s in closed form: sqrt(c_s / c_t) on each eigen-direction about the mean."""
        x, at_t, at_s = x_t.reshape(len(x_t), -1).double(), self.process.at(t), self.process.at(s)
        g = self._gaussian(x.shape[1])
        moved = g.centred(x, at_t) * (g.variance(at_s) / g.variance(at_t)).sqrt()
        return (at_s.signal * g.mean + g.rotate_back(moved)).view_as(x_t).to(x_t.dtype)


class MixtureDenoiser(Denoiser):
    """The exact denoiser of a mixture of K Gaussians: components' answers weighted by responsibility.

    Args:
        process: the diffusion process.
        weights: K positive numbers; they are normalised.
        means: K means, each a number or a tensor with the elements of one item.
        covariances: one covariance for all, or K; each as in `GaussianDenoiser`.
    """

    invertible = True

    def __init__(
        self,
        process: Process,
        weights: Sequence[float] | Tensor,
        means: Sequence[Tensor | float] | Tensor,
        covariances: Covariance | Sequence[Covariance],
    ) -> None:
        self.process = process
        w = torch.as_tensor(weights, dtype=torch.float64)
        if w.ndim != 1 or len(w) != len(means) or not bool((w > 0).all()):
            raise Refused(f"{len(means)} means need as many positive weights, got {w.tolist()}")
        self._log_weights = (w / w.sum()).log()
        self._means = list(means)
        self._covariances = list(covariances) if isinstance(covariances, Sequence) else [covariances] * len(w)
        if len(self._covariances) != len(w):
            raise Refused(f"{len(w)} components need one covariance or {len(w)}, got {len(self._covariances)}")
        self._cache: dict[int, list[_Gaussian]] = {}

    def __call__(self, x_t: Tensor, t: Time | Tensor, conditions: Conditions = NONE) -> Prediction:
        x = x_t.reshape(len(x_t), -1).double()
        dim = x.shape[1]
        if dim not in self._cache:
            parts = zip(self._means, self._covariances, strict=True)
            self._cache[dim] = [_Gaussian(m, c, dim) for m, c in parts]
        gaussians, at = self._cache[dim], level_at(self.process, t, x)
        scores = torch.cat([g.log_density(x, at) for g in gaussians], -1) + self._log_weights
        responsibility = torch.softmax(scores, -1)
        x0, eps = torch.zeros_like(x), torch.zeros_like(x)
        for k, g in enumerate(gaussians):
            part_x0, part_eps = g.predict(x, at)
            x0 += responsibility[:, k : k + 1] * part_x0
            eps += responsibility[:, k : k + 1] * part_eps
        return Prediction(x0.view_as(x_t).to(x_t.dtype), eps.view_as(x_t).to(x_t.dtype))
