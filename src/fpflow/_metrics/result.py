"""What every way of computing a Wasserstein distance returns."""

import dataclasses

import numpy as np

from .._shown import rounded, shown_fields
from .._types import ArrayLike
from .._warning import warn
from .._window import GridDensity, Window


@dataclasses.dataclass(frozen=True)
class Estimate:
    r"""A number with what is known about its error.

    **Attributes:**

    - `value`: the number.
    - `error`: how far the number may be from the truth; `kind` says in what sense.
    - `kind`: `"standard error"` of a Monte-Carlo mean; `"floor"`, how far the masses without
      extrapolation move the number; `"bracket"`, how far it is from another computation,
      and `"loose bracket"` if that is five times the actual error and more; `"lower bound"`, if the
      truth may be anything above it.
    - `floor`: the value that counting alone gives for equal distributions.
    """

    value: float
    error: float
    kind: str = "standard error"
    floor: float = 0.0

    def __str__(self) -> str:
        return rounded(self.value, self.error)


@dataclasses.dataclass(frozen=True)
class W2Result:
    r"""A squared Wasserstein distance $W_2^2$ with certified bounds.

    **Attributes:**

    - `value`: the cost of a plan that moves one mass onto the other, in units of $x^2$.
    - `lower`: the value of a feasible dual; the true distance is not below it.
    - `upper`: the cost of a feasible plan; the true distance is not above it.

    All three treat the mass of a cell as concentrated at its centre.
    """

    value: float
    lower: float
    upper: float

    __repr__ = shown_fields


def check_mass(name: str, mass: ArrayLike | GridDensity, window: Window) -> np.ndarray:
    """A mass as a float64 array, refused where it is no probability on `window`."""
    array = np.asarray(mass.mass if isinstance(mass, GridDensity) else mass, np.float64)
    if array.shape != window.shape:
        raise ValueError(
            f"`{name}` must have the window's shape {window.shape}, got {array.shape}."
        )
    if not np.isfinite(array).all():
        raise ValueError(f"`{name}` holds NaN or Inf in {(~np.isfinite(array)).sum()} cells.")
    if array.min() < 0:
        raise ValueError(f"`{name}` holds negative masses, the lowest is {array.min():.3g}.")
    # Masses kept in float32 sum to one within 4096 round-offs of 6e-8 in the worst case.
    if abs(array.sum() - 1) > 1e-5:
        raise ValueError(f"`{name}` must sum to 1, got {array.sum():.8g}; divide it by its sum.")
    return array / array.sum()


def both_masses(
    a: ArrayLike | GridDensity, b: ArrayLike | GridDensity, window: Window | None
) -> tuple[np.ndarray, np.ndarray, Window]:
    """Two masses checked, on the window that they carry or that is given.

    **Raises:** `ValueError` for bad masses, or for densities on different windows.
    """
    own = [law.window for law in (a, b) if isinstance(law, GridDensity)]
    window = window or next(iter(own), Window())
    if any(other != window for other in own):
        raise ValueError(f"`a`, `b` and `window` must be on the same window, got {[*own, window]}.")
    for name, law in (("a", a), ("b", b)):
        if isinstance(law, GridDensity) and law.outside > 0.01:
            warn(
                f"{law.outside:.1%} of `{name}` lies outside {window}, and distances include only what "
                "is inside; use a wider `fpflow.Window(low, high)`."
            )
    return check_mass("a", a, window), check_mass("b", b, window), window


def centre_costs(window: Window) -> np.ndarray:
    """Squared distances along one axis between centres, shape `(nodes, nodes)`."""
    x = window.centres()
    return (x[:, None] - x) ** 2
