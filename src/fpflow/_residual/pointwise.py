"""How far a potential, a density or a score is from solving its equation at one point."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._calculus import Exact, divergence, potential_jet
from .._process import AbstractProcess
from .._types import Point, PotentialModel, Scalar, ScoreModel, Time


def log_fp_residual(model: PotentialModel, process: AbstractProcess, t: Time, x: Point) -> Scalar:
    r"""How far the potential $u$ is from solving the Fokker--Planck equation at one point.

    With $p = e^u$ and a diffusion $g$ that does not depend on $x$,

    $$r = \partial_t u + \nabla\cdot f + f\cdot\nabla u - \tfrac12 g^2(\Delta u + \|\nabla u\|^2).$$

    An offset $c(t)$ of the potential adds $c'(t)$ to $r$ and affects neither sampler.

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


def gauge_free_residual(
    model: PotentialModel, process: AbstractProcess, t: Time, x: Float[Array, "n dim"]
) -> Float[Array, " n"]:
    r"""$r - \bar r$ at one time: the residual minus its mean over the given points.

    An offset $c(t)$ of the potential changes $r$ by $c'(t)$ everywhere and leaves this difference
    unchanged.

    **Arguments:** as for `log_fp_residual`, except

    - `x`: points that represent the distribution to average over, shape `(n, dim)`.

    **Returns:** the residual at each point, shape `(n,)`.
    """
    r = jax.vmap(lambda x: log_fp_residual(model, process, t, x))(x)
    return r - r.mean()


def fp_residual(model: PotentialModel, process: AbstractProcess, t: Time, x: Point) -> Scalar:
    r"""How far the density $p = e^u$ is from solving the Fokker--Planck equation at one point.

    $$R = \partial_t p + \nabla\cdot(f p) - \tfrac12 g^2\Delta p = e^u r$$

    with the $r$ of `log_fp_residual`. An offset of the potential that is constant in time scales $R$.

    **Arguments:** as for `log_fp_residual`.

    **Returns:** the residual, per unit of time and of volume, shape `()`.
    """
    return jnp.exp(model.potential(t, x)) * log_fp_residual(model, process, t, x)


def score_fp_residual(model: ScoreModel, process: AbstractProcess, t: Time, x: Point) -> Point:
    r"""How far a score is from solving the score equation at one point.

    $$\rho = \partial_t s + \nabla\bigl[\nabla\cdot f + f\cdot s
    - \tfrac12 g^2(\|s\|^2 + \nabla\cdot s)\bigr],$$

    which is $\nabla r$ for $s = \nabla u$. It needs no potential, and an offset of the potential does
    not change it.

    **Arguments:**

    - `model`: has `score(t, x)`.
    - `process`: gives $f$ and $g$.
    - `t`: time, shape `()`.
    - `x`: one point, shape `(dim,)`.

    **Returns:** the residual, shape `(dim,)`; zero for an exact score.

    ??? cite "Reference"
        Lai et al., *FP-Diffusion: improving score-based diffusion models by enforcing the underlying
        score Fokker--Planck equation*, ICML 2023, arXiv 2210.04296.
    """
    t = jnp.asarray(t, x.dtype)
    half_g2 = process.diffusion(t) ** 2 / 2

    def bracket(x):
        score, spread = Exact()(lambda x: model.score(t, x), x, jnp.eye(x.size, dtype=x.dtype))
        spread_drift = divergence(lambda x: process.drift(t, x), x)
        return spread_drift + process.drift(t, x) @ score - half_g2 * (score @ score + spread[0])

    _, motion = jax.jvp(lambda t: model.score(t, x), (t,), (jnp.ones_like(t),))
    return motion + jax.grad(bracket)(x)
