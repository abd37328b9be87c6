"""Whether the parts of a process belong together."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._types import shown
from .base import AbstractProcess

# Where a process is looked at, in parts of its time; central differences over _STEP of it are good
# to 1e-6.
_SHARES = np.array([0.1, 0.3, 0.5, 0.7, 0.9])
_STEP = 1e-4
_CLOSE = 1e-3


def check_process(process: Any) -> None:
    r"""Raises an error if the drift, diffusion, transition and prior of a process do not fit together.

    With the mean factor $\alpha$ and the standard deviation $\sigma$ of the transition, it checks at
    five times whether

    $$\frac{d(\alpha x_0)}{dt} = f(t, \alpha x_0), \qquad
    \frac{d\sigma^2}{dt} = 2\,(\log\alpha)'\,\sigma^2 + g^2,$$

    and also whether $\alpha(t_0) = 1$ and $\sigma(t_0) = 0$, and whether the prior has the width of the
    transition at $t_1$. `train`, the samplers, the densities and the report call it; it takes
    milliseconds.

    **Arguments:**

    - `process`: an `AbstractProcess`.

    **Raises:** `ValueError` that says which of these fails, where, and which values were found.

    **Example:**

    ```python
    fpflow.check_process(fpflow.OrnsteinUhlenbeck())
    ```
    """
    if not isinstance(process, AbstractProcess):
        found = shown(process) if isinstance(process, type) else type(process).__name__
        raise ValueError(
            f"`process` must be an `fpflow.AbstractProcess`, got {found}. A process of your own is a "
            "subclass with `t0`, `t1`, `alpha(t)` and `sigma(t)`."
        )
    try:
        _look(process)
    except TypeError as error:
        if isinstance(
            error, jax.errors.ConcretizationTypeError | jax.errors.TracerArrayConversionError
        ):
            raise ValueError(
                f"`alpha` and `sigma` of {type(process).__name__} must be written with `jax.numpy`, "
                "which JAX can trace, instead of `math` or `numpy`."
            ) from error
        _look.__wrapped__(
            process
        )  # one that holds an array has no hash, and is looked at every time


def same_noise(a: AbstractProcess, b: AbstractProcess) -> bool:
    r"""Whether two processes have one $\alpha$ and one $\sigma$ where both have times: a score of one is
    a score of the other."""
    if a is b:
        return True
    t0, t1 = max(a.t0, b.t0), min(a.t1, b.t1)
    with jax.ensure_compile_time_eval(), jax.enable_x64(True):
        t = jnp.asarray(t0 + (t1 - t0) * _SHARES)
        return all(
            np.allclose(jax.vmap(of_a)(t), jax.vmap(of_b)(t), rtol=_CLOSE, atol=0)
            for of_a, of_b in ((a.alpha, b.alpha), (a.sigma, b.sigma))
        )


@functools.lru_cache(maxsize=64)
def _look(process: AbstractProcess) -> None:
    name = type(process).__name__
    span = process.t1 - process.t0
    t = process.t0 + span * _SHARES
    times = np.concatenate([t, t + _STEP * span, t - _STEP * span, [process.t0, process.t1]])

    @jax.jit
    def parts(t):
        mean, std = process.transition(t, jnp.ones(1))
        return mean[0], std, process.drift(t, mean)[0], process.diffusion(t) ** 2

    with jax.ensure_compile_time_eval(), jax.enable_x64(True):
        columns = [np.asarray(c).reshape(-1) for c in jax.vmap(parts)(jnp.asarray(times))]
    a, a_up, a_down, a_end = np.split(columns[0], [5, 10, 15])
    s, s_up, s_down, s_end = np.split(columns[1], [5, 10, 15])
    drift, g2 = columns[2][:5], columns[3][:5]
    for letter, values, fine in (
        ("alpha(t) must be positive", columns[0], columns[0] > 0),
        ("sigma(t) must not be negative", columns[1], columns[1] >= 0),
    ):
        wrong = ~(fine & np.isfinite(values))
        if wrong.any():
            k = int(wrong.argmax())
            raise ValueError(
                f"{letter} and finite from `t0` to `t1`, got {values[k]:.4g} from {name} at t = "
                f"{times[k]:.4g}; a path that ends in pure noise must stop just before, as "
                "`fpflow.LinearPath` does at t1 = 0.999."
            )

    def demand(what: str, found: np.ndarray, expected: np.ndarray, scale: np.ndarray) -> None:
        wrong = ~(np.abs(found - expected) <= _CLOSE * scale)
        if wrong.any():
            k = int(wrong.argmax())
            raise ValueError(
                f"the parts of {name} are inconsistent: at t = {t[k]:.4g}, {what} is {found[k]:.4g} "
                f"and must be {expected[k]:.4g}. Check `alpha`, `sigma`, `drift`, `diffusion` and "
                "`transition` (a variance in place of a standard deviation, or a missing square "
                "root?)."
            )

    rate = (a_up - a_down) / (2 * _STEP * span)
    size = np.abs(rate) + np.abs(a) / span
    demand("the drift f(t, alpha x0) for x0 = 1", drift, rate, size)
    growth = (s_up**2 - s_down**2) / (2 * _STEP * span)
    pull = 2 * rate / a * s**2
    demand("g^2", g2, growth - pull, np.abs(growth) + np.abs(pull) + s**2 / span)
    if not (abs(a_end[0] - 1) < _CLOSE and abs(s_end[0]) <= 1e-3 * s_end[1]):
        raise ValueError(
            f"{name} must start from the data: at `t0` = {process.t0}, alpha must be 1 and sigma 0, got "
            f"{a_end[0]:.4g} and {s_end[0]:.4g}."
        )
    width = float(getattr(process.prior, "std", np.nan))
    if np.isfinite(width) and not abs(width / s_end[1] - 1) < 0.05 + (a_end[1] / s_end[1]) ** 2:
        raise ValueError(
            f"the prior of {name} must have the width of the transition at `t1` = {process.t1}, sigma = "
            f"{s_end[1]:.4g}, got {width:.4g}."
        )
