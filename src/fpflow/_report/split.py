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

    - `observed`: the mean over repeats between `num_samples` samples of each law.
    - `model`: between the exact laws of both equations.
    - `discretisation`: what the steps of the samplers add to it; negative where their errors hide
      part of the gap.
    - `noise`: what the finite number of samples adds.
    - `binning`: what counting in cells adds; zero without cells.
    - `total`: the sum of the four. Its error says how far it may be from `observed`.

    The parts are measured one by one and not as remainders, so `total` against `observed` is a check.
    """

    observed: Estimate
    model: Estimate
    discretisation: Estimate
    noise: Estimate
    binning: Estimate

    __repr__ = shown_fields

    @property
    def total(self) -> Estimate:
        """The sum of the parts; the errors of `model` and `binning` cancel in it."""
        value = self.model.value + self.discretisation.value + self.noise.value + self.binning.value
        return Estimate(value, float(np.hypot(self.discretisation.error, self.noise.error)))


# Draws from the exact laws that the noise is averaged over; each costs one distance.
_DRAWS = 6


def _counted(name: str, points: np.ndarray, window: Window) -> np.ndarray:
    counts = count_in_cells(points, window)
    if counts.sum() == 0:
        raise ValueError(
            f"none of the {len(points)} {name} samples lies in {window}, which holds the data: the "
            "score drives them away, or the process is not the one it was trained with."
        )
    return counts / counts.sum()


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
    pooled_ode, pooled_sde = (
        _counted("ODE", ode_samples, window),
        _counted("SDE", sde_samples, window),
    )
    grouped = [np.array_split(points, repeats) for points in (ode_samples, sde_samples)]
    observed = [
        w2_grid(_counted("ODE", a, window), _counted("SDE", b, window), window).value
        for a, b in zip(*grouped, strict=True)
    ]
    pooled = w2_grid(pooled_ode, pooled_sde, window).value
    exact = w2_grid(ode, sde).value

    def drawn(masses: list[np.ndarray], count: int) -> list[float]:
        """The same distance between draws from two laws."""
        values = []
        for _ in range(_DRAWS):
            a, b = (rng.multinomial(count, mass.ravel()) / count for mass in masses)
            values.append(w2_grid(a.reshape(window.shape), b.reshape(window.shape), window).value)
        return values

    # Noise of the exact laws; and that of the samplers' own, which the steps have moved.
    few = drawn([np.asarray(law.mass) for law in (ode, sde)], len(grouped[0][0]))
    many = drawn([pooled_ode, pooled_sde], len(ode_samples))
    (few_mean, few_error), (many_mean, many_error) = mean_and_error(few), mean_and_error(many)
    observed_mean = float(np.mean(observed))
    # Repeats and draws know the spread of one value together.
    variance = (repeats - 1) * np.var(observed, ddof=1) + (_DRAWS - 1) * np.var(few, ddof=1)
    freedom = repeats + _DRAWS - 2
    observed_error = float((variance / freedom / repeats) ** 0.5 * student(freedom))
    # One pooled value: its spread is that of the groups over the root of their number.
    pooled_error = float(np.std(many, ddof=1))
    # Without cells, unless the laws are so far apart that the first order overshoots.
    model = w2_continuous(ode, sde)
    if model.value > exact:
        model = Estimate(exact, model.value - exact, "bracket")
    return GapSplit(
        Estimate(observed_mean, observed_error),
        model,
        Estimate(2 * pooled - many_mean - exact, float(np.hypot(pooled_error, many_error))),
        Estimate(few_mean - exact, few_error),
        Estimate(exact - model.value, model.error, "bracket"),
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
    steps = mean_and_error([a.value - b.value for a, b in zip(*crossed, strict=True)])
    return GapSplit(
        Estimate(*observed),
        Estimate(exact[0] - noise[0], float(np.hypot(exact[1], noise[1]))),
        Estimate(*steps),
        Estimate(*noise),
        Estimate(0.0, 0.0),
    )
