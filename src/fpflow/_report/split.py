r"""The observed gap as a sum: what the model, the steps, the samples and the cells add to it."""

import dataclasses

import numpy as np

from .._errors import mean_and_error, student
from .._metrics import Estimate, sliced_w2, w2_continuous, w2_grid
from .._shown import shown_fields
from .._window import GridDensity, Window
from ..datasets import count_in_cells


@dataclasses.dataclass(frozen=True)
class GapSplit:
    r"""Four parts of the observed $W_2^2$ between samples of ODE and SDE, in units of $x^2$.

    **Attributes:**

    - `observed`: the mean over repeats of the distance between `num_samples` samples of each
      distribution.
    - `model`: the distance between the exact distributions of both equations.
    - `discretisation`: what the steps of the samplers add; negative if their errors hide part of the
      gap.
    - `noise`: what the finite number of samples adds.
    - `binning`: what counting in cells adds; zero without cells.
    - `unexplained`: `observed` minus `total`, with its own error, in which samples that move both
      cancel.
    - `total`: the sum of the four parts.

    The parts are measured one by one and not as remainders, so `unexplained` is a check.
    """

    observed: Estimate
    model: Estimate
    discretisation: Estimate
    noise: Estimate
    binning: Estimate
    unexplained: Estimate

    __repr__ = shown_fields

    @property
    def total(self) -> Estimate:
        """The sum of the parts; the errors of `model` and `binning` cancel in it."""
        value = self.model.value + self.discretisation.value + self.noise.value + self.binning.value
        return Estimate(value, float(np.hypot(self.discretisation.error, self.noise.error)))


# Times that all samples are drawn from the exact laws again; each costs a distance a repeat and one.
_DRAWS = 4


def _counted(name: str, points: np.ndarray, window: Window) -> np.ndarray:
    counts = np.asarray(count_in_cells(points, window), float)
    if counts.sum() == 0:
        raise ValueError(
            f"none of the {len(points)} {name} samples lies in {window}, which holds the data: the "
            "score drives them away, or the process is not the one it was trained with."
        )
    return counts


def split_on_grid(
    ode_samples: np.ndarray,
    sde_samples: np.ndarray,
    ode: GridDensity,
    sde: GridDensity,
    repeats: int,
    rng: np.random.Generator,
) -> GapSplit:
    """The split in dimensions one and two.

    **Arguments:**

    - `ode_samples`, `sde_samples`: all samples of all repeats, shape `(repeats * n, dim)`.
    - `ode`, `sde`: the exact laws on the window.
    """
    window = ode.window

    def distance(a: np.ndarray, b: np.ndarray) -> float:
        return w2_grid(a / a.sum(), b / b.sum(), window).value

    def apart(first: list[np.ndarray], second: list[np.ndarray]) -> tuple[list[float], float]:
        """Between counts group by group, and between all of either."""
        each = [distance(a, b) for a, b in zip(first, second, strict=True)]
        return each, distance(np.sum(first, 0), np.sum(second, 0))

    def drawn(law: GridDensity) -> list[np.ndarray]:
        mass, sizes = np.ravel(law.mass), [len(g) for g in np.array_split(ode_samples, repeats)]
        return [rng.multinomial(size, mass).reshape(window.shape).astype(float) for size in sizes]

    groups = [
        [_counted(name, group, window) for group in np.array_split(points, repeats)]
        for name, points in (("ODE", ode_samples), ("SDE", sde_samples))
    ]
    each, pooled = apart(*groups)
    draws = [apart(drawn(ode), drawn(sde)) for _ in range(_DRAWS)]
    exact, observed = w2_grid(ode, sde).value, float(np.mean(each))
    few, many = np.array([np.mean(d[0]) for d in draws]), np.array([d[1] for d in draws])
    factor = student(_DRAWS - 1)

    # What so many times the samples leave of the noise: between what they leave of squares and, where
    # cells are wider than what moves, of absolute values.
    left = (many.mean() - exact) / max(few.mean() - exact, 1e-300)
    left = np.clip(left, 1 / repeats, repeats**-0.5)
    # What is linear in the samples is in both and cancels.
    fall = (few - many) / (1 - left)
    noise, noise_error = mean_and_error(fall)
    # The samplers' laws without noise, from their samples alone.
    steps = pooled - (observed - pooled) * left / (1 - left) - exact
    steps_error = float(np.hypot(many.std(ddof=1), left * fall.std(ddof=1)) * factor)
    # Repeats and draws know the spread of one value together.
    values = [each, *(d[0] for d in draws)]
    observed_error = float((np.var(values, axis=1, ddof=1).mean() / repeats) ** 0.5)
    observed_error *= student(len(values) * (repeats - 1))
    # Without cells, unless the laws are so far apart that the first order overshoots.
    model = w2_continuous(ode, sde)
    if model.value > exact:
        model = Estimate(exact, model.value - exact, "bracket")
    return GapSplit(
        Estimate(observed, observed_error),
        model,
        Estimate(float(steps), steps_error),
        Estimate(noise, noise_error),
        Estimate(exact - model.value, model.error, "bracket"),
        # One more fall, of the same law unless steps and samples interact.
        Estimate(float(observed - exact - steps - noise), noise_error * (_DRAWS + 1) ** 0.5),
    )


def split_sliced(
    ode_samples: np.ndarray,
    sde_samples: np.ndarray,
    fine_ode: np.ndarray,
    fine_sde: np.ndarray,
    repeats: int,
) -> GapSplit:
    """The split in higher dimensions, of the sliced $W_2^2$; the exact laws are those of samplers with
    four times the steps, whose samples are `fine_ode` and `fine_sde`."""

    def groups(a, b):
        pairs = zip(np.array_split(a, repeats), np.array_split(b, repeats), strict=True)
        return [sliced_w2(p, q) for p, q in pairs]

    coarse, fine = groups(ode_samples, sde_samples), groups(fine_ode, fine_sde)
    # Of other pairs, so that the sum of the parts is not the observed one by construction.
    n = len(ode_samples) // repeats
    crossed = (
        groups(np.roll(ode_samples, n, 0), sde_samples),
        groups(np.roll(fine_ode, n, 0), fine_sde),
    )
    observed = mean_and_error([d.value for d in coarse])
    # Between groups of one law; neighbours in a ring, so that each group is used twice.
    floors = []
    for samples in (fine_ode, fine_sde):
        parts = np.array_split(samples, repeats)
        floors.append([sliced_w2(parts[k - 1], parts[k]).value for k in range(repeats)])
    # Each law contributes half of the noise between two of its own groups.
    noise = mean_and_error([(a + b) / 2 for a, b in zip(*floors, strict=True)])
    exact = mean_and_error([d.value for d in fine])
    changes = [a.value - b.value for a, b in zip(*crossed, strict=True)]
    paired = [a.value - b.value for a, b in zip(coarse, fine, strict=True)]
    steps, unexplained = mean_and_error(changes), mean_and_error(np.subtract(paired, changes))
    return GapSplit(
        Estimate(*observed),
        Estimate(exact[0] - noise[0], float(np.hypot(exact[1], noise[1]))),
        Estimate(*steps),
        Estimate(*noise),
        Estimate(0.0, 0.0),
        Estimate(*unexplained),
    )
