"""Single numbers: Inception Score, agreement of two sets made from the same seeds."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ddim.metrics.kernel import Estimate
from ddim.metrics.neighbours import diversity
from ddim.refused import Refused


def inception_score(logits: Tensor, splits: int = 10) -> Estimate:
    """exp of the mean KL divergence of p(class | image) from p(class) (Salimans et al., arXiv 1606.03498).

    Args:
        logits: (n, K), in an order that has nothing to do with the classes' (seeds have none).
        splits: parts over which mean and spread are taken, in the given order.

    Raises:
        Refused: fewer images than splits.
    """
    if not 1 <= splits <= len(logits):
        raise Refused(f"{splits} splits need at least as many images, got {len(logits)}")
    log_p = torch.log_softmax(logits.double(), 1)
    scores = []
    for part in log_p.tensor_split(splits):
        marginal = torch.logsumexp(part, 0) - math.log(len(part))
        scores.append((part.exp() * (part - marginal)).sum(1).mean().exp())
    values = torch.stack(scores)
    return Estimate(float(values.mean()), float(values.std(unbiased=False)))


def estrangement(a: Tensor, b: Tensor) -> float:
    """How far apart images of the same seeds are, where unrelated images are at 1: 0 is the same image.

    mean_i |a_i - b_i| / mean_(i != j) |b_i - b_j| over features (n, D), row i of both from seed i (DDIM section 5.2
    states the property; the number is ours).

    Raises:
        Refused: different shapes; fewer than 2 rows; rows of b all alike.
    """
    if a.shape != b.shape:
        raise Refused(f"estrangement compares the same seeds: features {tuple(a.shape)} and {tuple(b.shape)}")
    unrelated = diversity(b)
    if unrelated == 0.0:
        raise Refused("estrangement has no scale: all images of the reference have the same features")
    return float((a.double() - b.double()).norm(dim=1).mean()) / unrelated
