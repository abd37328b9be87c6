"""The two equations that turn noise into data, written in forward time."""

from typing import Any

import numpy as np

from ._process import AbstractProcess
from ._types import Point, Scalar, ScoreModel, Time


def flow_velocity(model: ScoreModel, process: AbstractProcess, t: Time, x: Point) -> Point:
    r"""The velocity $f - \tfrac12 g^2 s$ of the probability-flow ODE."""
    return process.drift(t, x) - process.diffusion(t) ** 2 * model.score(t, x) / 2


def family_drift(
    model: ScoreModel, process: AbstractProcess, eta: Scalar, t: Time, x: Point
) -> Point:
    r"""The drift $f - \tfrac12(1 + \eta^2) g^2 s$ of the family
    $dx = \bigl[f - \tfrac12(1 + \eta^2) g^2 s\bigr]dt + \eta\,g\,d\bar W$.

    All members have the marginals of the data if $s$ is the exact score; $\eta = 0$ is the
    probability-flow ODE and $\eta = 1$ the reverse SDE.
    """
    pull = (1 + eta**2) / 2 * process.diffusion(t) ** 2
    return process.drift(t, x) - pull * model.score(t, x)


def check_eta(eta: Any) -> None:
    """Refuses what is no member of the family."""
    if not (eta >= 0 and np.isfinite(eta)):
        raise ValueError(f"`eta` must be finite and not negative, got {eta}.")
