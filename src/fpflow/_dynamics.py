"""The two equations that turn noise into data, written in forward time."""

from ._process import AbstractProcess
from ._types import Point, ScoreModel, Time


def reverse_drift(model: ScoreModel, process: AbstractProcess, t: Time, x: Point) -> Point:
    r"""The drift $f - g^2 s$ of the reverse SDE $dx = (f - g^2 s)\,dt + g\,d\bar W$."""
    return process.drift(t, x) - process.diffusion(t) ** 2 * model.score(t, x)


def flow_velocity(model: ScoreModel, process: AbstractProcess, t: Time, x: Point) -> Point:
    r"""The velocity $f - \tfrac12 g^2 s$ of the probability-flow ODE."""
    return process.drift(t, x) - process.diffusion(t) ** 2 * model.score(t, x) / 2
