"""How far a potential is from solving the Fokker--Planck equation."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr

from ._calculus import divergence, potential_jet
from ._types import Point, PotentialModel, PRNGKey, Process, Scalar, Time


def log_fp_residual(model: PotentialModel, process: Process, t: Time, x: Point) -> Scalar:
    r"""How far the potential $u$ is from solving the Fokker--Planck equation at one point.

    With $p = e^u$ and a diffusion $g$ that does not depend on $x$,

    $$r = \partial_t u + \nabla\cdot f + f\cdot\nabla u - \tfrac12 g^2(\Delta u + \|\nabla u\|^2).$$

    An offset $c(t)$ of the potential adds $c'(t)$ to $r$ and moves neither sampler.

    **Arguments:**

    - `model`: has `potential(t, x)`.
    - `process`: gives $f$ and $g$.
    - `t`: time, shape `()`.
    - `x`: one point, shape `(dim,)`.

    **Returns:** the residual, per unit of time, shape `()`; zero for an exact solution.

    ??? cite "Reference"
        Deveney, Stanczuk, Kreusser, Budd and Schönlieb, *Closing the ODE--SDE gap in score-based
        diffusion models through the Fokker--Planck equation*, arXiv 2311.15996, Section 3.
    """
    u = potential_jet(model, t, x)
    drift, g = process.drift(t, x), process.diffusion(t)
    div_drift = divergence(lambda x: process.drift(t, x), x)
    transport = div_drift + jnp.dot(drift, u.gradient)
    return u.time_derivative + transport - g**2 / 2 * (u.laplacian + jnp.sum(u.gradient**2))


class ResidualNorm(NamedTuple):
    r"""Mean squares of the residual over $\Omega \times [0, T]$, with their standard errors.

    **Attributes:**

    - `value`: $\tilde R$, the mean of $r^2$.
    - `standard_error`: of `value`.
    - `spatial`: the mean over $t$ of the variance of $r$ over $\Omega$. The rest of `value`
      depends on $t$ alone, and no sampler feels it.
    - `spatial_standard_error`: of `spatial`.
    """

    value: float
    standard_error: float
    spatial: float
    spatial_standard_error: float


@eqx.filter_jit
def _residual_moments(model, process, low, high, dim, num_times, points_per_time, key):
    key_time, key_place = jr.split(key)
    # Cubic grading: most of the variance sits in the first half per cent of the time axis.
    v = (jnp.arange(num_times) + jr.uniform(key_time, (num_times,))) / num_times
    t = process.t0 + (process.t1 - process.t0) * v**3
    x = jr.uniform(key_place, (num_times, points_per_time, dim), minval=low, maxval=high)
    residual = jax.vmap(jax.vmap(log_fp_residual, (None, None, None, 0)), (None, None, 0, 0))
    r = residual(model, process, t, x)
    return 3 * v**2, (r**2).mean(1), r.var(1, ddof=1)


def residual_norm(
    model: PotentialModel,
    process: Process,
    *,
    low: float = -3.5,
    high: float = 3.5,
    dim: int = 2,
    num_times: int = 4096,
    points_per_time: int = 64,
    key: PRNGKey,
) -> ResidualNorm:
    r"""$\tilde R$: the mean of $r^2$ over $t \sim U(t_0, t_1)$ and $x \sim U([\text{low},
    \text{high}]^d)$, stratified in a graded time so that small times are well sampled.

    **Returns:** a `ResidualNorm`; the standard errors are over times and an upper estimate, since
    stratification is not credited.
    """
    moments = _residual_moments(model, process, low, high, dim, num_times, points_per_time, key)
    weight, square, variance = (jnp.asarray(m) for m in moments)

    def mean(h):
        terms = weight * h
        return float(terms.mean()), float(terms.std(ddof=1) / num_times**0.5)

    return ResidualNorm(*mean(square), *mean(variance))
