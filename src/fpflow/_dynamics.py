"""The two equations that turn noise into data, written in forward time."""

import numpy as np

from ._types import Point, Process, ScoreModel, Time


def reverse_drift(model: ScoreModel, process: Process, t: Time, x: Point) -> Point:
    r"""The drift $f - g^2 s$ of the reverse SDE $dx = (f - g^2 s)\,dt + g\,d\bar W$."""
    return process.drift(t, x) - process.diffusion(t) ** 2 * model.score(t, x)


def flow_velocity(model: ScoreModel, process: Process, t: Time, x: Point) -> Point:
    r"""The velocity $f - \tfrac12 g^2 s$ of the probability-flow ODE."""
    return process.drift(t, x) - process.diffusion(t) ** 2 * model.score(t, x) / 2


def graded_times(t0: float, t1: float, num_steps: int) -> np.ndarray:
    r"""Times from $t_1$ down to $t_0$, $t_i = t_0 + (t_1 - t_0)(1 - i/n)^3$, shape `(n + 1,)`.

    Scores grow like $1/\sigma^2$ towards $t_0$, and so does the density of these times.
    """
    return t0 + (t1 - t0) * (1 - np.linspace(0, 1, num_steps + 1)) ** 3
