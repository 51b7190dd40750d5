"""Images on their way to latents: what is known of each so far, road after road."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ddim.solve import Implicit
from ddim.uses.certificate import Certificate, Road, compared
from ddim.uses.finer import noised
from ddim.uses.roads import Job, Method, Steps, walked, work


@dataclass(frozen=True, eq=False)
class Trip:
    """B images x_0 and their seeds; latents and what was measured are written into x_T and the certificate."""

    job: Job
    x_0: Tensor
    seeds: Sequence[int]
    steps: Steps
    x_T: Tensor  # noqa: N815 -- the paper's letter
    certificate: Certificate

    @classmethod
    def of(cls, job: Job, x_0: Tensor, seeds: Sequence[int], steps: Steps) -> Trip:
        batch = len(x_0)
        residual, psnr, error = torch.full((3, batch), torch.nan, dtype=torch.float64)
        nfe, road = torch.zeros(batch, dtype=torch.int64), torch.full((batch,), -1)
        return cls(job, x_0, seeds, steps, x_0.clone(), Certificate(residual, psnr, error, nfe, road))

    def solve(self, rows: Tensor, k: int, road: Road, method: Method, solver: Implicit, promised: float) -> Tensor:
        """The latents of these images on the k-th road; with "exact" those that are left come back.

        A solve counts where the residual is within the tolerance and the image comes back at `promised` dB.
        """
        if not len(rows):
            return rows
        self.steps.plan(2 * (len(road.tau) - 1))
        z, residual, nfe = walked(self.job.on(road, rows), method, solver, self._begun(rows, road))
        z, exact = z.to(self.x_0.dtype), method == "exact"
        found = self.certificate
        found.residual[rows] = residual
        found.nfe[rows] += nfe
        kept = torch.nonzero(residual <= solver.tolerance if exact else torch.ones_like(rows)).flatten()
        if not len(kept):
            return rows
        done, z = rows[kept], z[kept.to(z.device)]
        back = self.job.on(road, done).image(work(z), road, self._own(done))
        good = self._measured(done, back) >= (promised if exact else -torch.inf)
        self.x_T[done[good].to(z.device)] = z[good.to(z.device)]
        found.road[done[good]] = k
        return rows[found.road[rows] < 0] if exact else rows[:0]

    def couple(self, rows: Tensor, road: Road, gamma: float) -> Tensor:
        """Both states of these images by the coupled scheme, (K, 2, *)."""
        self.steps.plan(2 * (len(road.tau) - 1))
        part = self.job.on(road, rows)
        states = part.coupled(self._begun(rows, road), gamma)
        self.x_T[rows.to(states.device)] = states[:, 0].to(self.x_T.dtype)
        self._measured(rows, part.coupled_image(states, gamma, road, self._own(rows)))
        self.certificate.nfe[rows] += len(road.tau) - 1
        return states

    def _own(self, rows: Tensor) -> list[int]:
        return [self.seeds[i] for i in rows.tolist()]

    def _begun(self, rows: Tensor, road: Road) -> Tensor:
        return noised(self.job.denoise.process, work(self.x_0[rows.to(self.x_0.device)]), road, self._own(rows))

    def _measured(self, rows: Tensor, back: Tensor) -> Tensor:
        """PSNR and largest error of what these images come back as."""
        found = compared(back.to(self.x_0.dtype), self.x_0[rows.to(back.device)])
        self.certificate.psnr[rows], self.certificate.max_error[rows] = found.unbind(1)
        return found[:, 0]
