"""Mean squares of the residual over a box or under the data's marginals, whole and by time."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array

from .._errors import mean_and_error
from .._model import check_dims, check_key, model_dim
from .._noising import noised_at
from .._process import AbstractProcess, graded_times
from .._shown import shown_fields
from .._types import ArrayLike, DataLaw, Point, PotentialModel, PRNGKey, ScoreModel, Time
from ..datasets import as_data, unconditional
from .pointwise import fp_residual, log_fp_residual

# Points whose derivatives are held side by side.
_LANES = 2048


class ResidualNorm(NamedTuple):
    r"""Mean squares of the residual over space and time, with standard errors.

    **Attributes:**

    - `value`: the mean of $r^2$; $\tilde R$ over $\Omega \times [0, T]$.
    - `standard_error`: the standard error of `value`.
    - `spatial`: the mean over $t$ of the variance of $r$ in space. The rest of `value` depends on $t$
      alone and affects no sampler.
    - `spatial_standard_error`: the standard error of `spatial`.
    """

    value: float
    standard_error: float
    spatial: float
    spatial_standard_error: float

    __repr__ = shown_fields


class ResidualProfile(NamedTuple):
    r"""Mean squares of the residual in successive bins of time.

    **Attributes:**

    - `edges`: the edges of the bins, shape `(bins + 1,)`.
    - `value`, `standard_error`: the mean of $r^2$ in each bin, shape `(bins,)`.
    - `spatial`, `spatial_standard_error`: the part of it that depends on $x$, shape `(bins,)`. The rest
      is a gauge, the mean over $x$ at each $t$, which affects no sampler.
    """

    edges: np.ndarray
    value: np.ndarray
    standard_error: np.ndarray
    spatial: np.ndarray
    spatial_standard_error: np.ndarray

    __repr__ = shown_fields


# A residual of a model at one point: a number or, of a score, a vector.
Residual = Callable[[Any, AbstractProcess, Time, Point], Array]


@eqx.filter_jit
def _moments(residual, model, process, data, box, dim, t, points_per_time, key):
    r"""Mean of $\|r\|^2$ and variance of $r$ over space at each time, shapes `(times,)`."""
    low, high = box

    def at_time(row):
        t, key = row
        key_place, key_noise = jr.split(key)
        if data is None:
            x = jr.uniform(key_place, (points_per_time, dim), t.dtype, low, high)
        else:
            x0 = data.sample(key_place, points_per_time).astype(t.dtype)
            x = noised_at(process, t, x0, key_noise)
        r = jax.vmap(lambda x: jnp.ravel(residual(model, process, t, x)))(x)
        return jnp.sum(jnp.mean(r**2, 0)), jnp.sum(r.var(0, ddof=1))

    # All times at once would hold every derivative of every point: gigabytes in many dimensions.
    side_by_side = max(_LANES // points_per_time, 1)
    return jax.lax.map(at_time, (t, jr.split(key, len(t))), batch_size=side_by_side)


def _prepared(residual, model, data, dim, key) -> tuple[DataLaw | None, int]:
    """The law and the dimension, with everything refused that cannot work."""
    check_key(key)
    if residual in (log_fp_residual, fp_residual) and not isinstance(model, PotentialModel):
        raise ValueError(
            f"`model` must have `potential(t, x)`, got {type(model).__name__}: the residual is defined "
            "for a potential; for a score, pass `residual=fpflow.score_fp_residual`."
        )
    law = None if data is None else unconditional(as_data(data))
    if law is not None:
        dim = eqx.filter_eval_shape(law.sample, jr.key(0), 1).shape[1]
        check_dims("data", dim, model)
    return law, model_dim(model, dim)


def residual_norm(
    model: ScoreModel,
    process: AbstractProcess,
    *,
    residual: Residual = log_fp_residual,
    data: DataLaw | ArrayLike | None = None,
    low: float = -3.5,
    high: float = 3.5,
    dim: int | None = None,
    t_min: float | None = None,
    num_times: int = 4096,
    points_per_time: int = 64,
    key: PRNGKey,
) -> ResidualNorm:
    r"""The mean of $\|r\|^2$ over $t \sim U(t_\text{min}, t_1)$ and $x$ uniform on a box or under $p_t$.

    Over $\Omega \times [0, T]$ it is the paper's $\tilde R$ for the residual of the log density, $R$ for
    that of the density, and $R^s$ for that of the score. Times are stratified and drawn with density
    $\propto (t - t_\text{min})^{-2/3}$, which the weights undo, because most of the variance lies in
    the first half per cent of the time axis.

    **Arguments:**

    - `model`: has `potential(t, x)`; for the residual of the score, `score(t, x)` is enough.
    - `residual`: $r$, a function `(model, process, t, x)`: `log_fp_residual`; `fp_residual`, which
      scales with $e^c$ if a potential is shifted by $c$; `score_fp_residual`; or your own.
    - `process`: gives $f$ and $g$, and, if `data` is given, the transition.
    - `data`: if given, $x \sim p_t$ is drawn by noising the data.
    - `low`, `high`, `dim`: otherwise $x$ is uniform on $[\text{low}, \text{high}]^d$; `dim` is that of
      the model unless it is given.
    - `t_min`: the first time, $t_0$ by default.
    - `num_times`, `points_per_time`: number of times, and of points at each time, at least two.
    - `key`: a `jax.random.key`.

    **Returns:** a `ResidualNorm`. The standard errors are computed over times and are upper estimates,
    since they take no credit for stratification.
    """
    law, dim = _prepared(residual, model, data, dim, key)
    start = process.t0 if t_min is None else t_min
    if not process.t0 <= start < process.t1:
        raise ValueError(f"`t_min` must lie in [{process.t0}, {process.t1}), got {t_min}.")
    key_time, key_place = jr.split(key)
    v = (jnp.arange(num_times) + jr.uniform(key_time, (num_times,))) / num_times
    t = start + (process.t1 - start) * v**3
    box = jnp.asarray([low, high], t.dtype)
    square, variance = _moments(
        residual, model, process, law, box, dim, t, points_per_time, key_place
    )
    (value, error), (spatial, spatial_error) = (
        mean_and_error(3 * v**2 * m) for m in (square, variance)
    )
    return ResidualNorm(float(value), float(error), float(spatial), float(spatial_error))


# That of r^2 where r is the square of a normal number, rounded. Errors of a mean of n such are too small
# by half of its skewness, as few of them miss the large ones: with 2 to 16 times of 16 points each, two
# errors held the truth in 89 to 91 % of 1000 runs.
_SKEWNESS = 8.5


def residual_profile(
    model: ScoreModel,
    process: AbstractProcess,
    *,
    residual: Residual = log_fp_residual,
    data: DataLaw | ArrayLike | None = None,
    low: float = -3.5,
    high: float = 3.5,
    dim: int | None = None,
    edges: ArrayLike | None = None,
    times_per_bin: int = 64,
    points_per_time: int = 256,
    key: PRNGKey,
) -> ResidualProfile:
    r"""The mean of $r^2$ in bins of time, with the part that depends on $t$ alone given separately.

    **Arguments:** as for `residual_norm`, and

    - `edges`: the edges of the bins, increasing; by default eight bins of `process.graded_time`.
    - `times_per_bin`: number of stratified times in each bin, at least four.

    **Returns:** a `ResidualProfile`.
    """
    law, dim = _prepared(residual, model, data, dim, key)
    cuts = graded_times(process, 8)[::-1].copy() if edges is None else np.asarray(edges)
    if cuts.ndim != 1 or len(cuts) < 2 or not (np.diff(cuts) > 0).all():
        raise ValueError(f"`edges` must be increasing times, shape (bins + 1,), got {cuts}.")
    if cuts[0] < process.t0 or cuts[-1] > process.t1:
        raise ValueError(f"`edges` must lie in [{process.t0}, {process.t1}], got {cuts}.")
    if times_per_bin < 4 or points_per_time < 2:
        raise ValueError(
            f"`times_per_bin` must be at least 4 and `points_per_time` at least 2, because fewer do not "
            f"tell their scatter, got {times_per_bin} and {points_per_time}."
        )
    key_time, key_place = jr.split(key)
    shape = (len(cuts) - 1, times_per_bin)
    fraction = (jnp.arange(times_per_bin) + jr.uniform(key_time, shape)) / times_per_bin
    t = jnp.asarray(cuts[:-1, None]) + np.diff(cuts)[:, None] * fraction
    t = t.astype(jnp.result_type(float))
    box = jnp.asarray([low, high], t.dtype)
    moments = _moments(
        residual, model, process, law, box, dim, t.ravel(), points_per_time, key_place
    )
    square, variance = (np.asarray(m).reshape(shape) for m in moments)
    (mean, error), (spatial, spatial_error) = (mean_and_error(m, 1) for m in (square, variance))
    wide = 1 + _SKEWNESS / (2 * (times_per_bin * points_per_time) ** 0.5)
    return ResidualProfile(cuts, mean, wide * error, spatial, wide * spatial_error)
