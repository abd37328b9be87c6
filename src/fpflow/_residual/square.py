"""Ways to the squared residual at one point: exact, or with random probes for high dimensions."""

from typing import Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float

from .._calculus import divergence
from .._process import AbstractProcess
from .._types import Point, PotentialModel, PRNGKey, Scalar, ScoreModel, Time
from .pointwise import log_fp_residual, score_fp_residual


@runtime_checkable
class ResidualSquare(Protocol):
    """A way to $r^2$ at one point: `ExactSquare()`, `HutchinsonSquare()`, `TwoProbeSquare()`, or
    `DensitySquare()` for $R^2$."""

    def __call__(self, model, process, t, x, key) -> Array: ...


class ExactSquare(eqx.Module):
    r"""$r^2$ with the exact Laplacian; its cost grows with `dim`."""

    def __call__(
        self, model: PotentialModel, process: AbstractProcess, t: Time, x: Point, key: PRNGKey
    ) -> Scalar:
        """The squared residual, shape `()`."""
        del key
        return log_fp_residual(model, process, t, x) ** 2


def _split_residual(
    model: PotentialModel,
    process: AbstractProcess,
    t: Time,
    x: Point,
    probes: Float[Array, "k dim"],
) -> tuple[Scalar, Float[Array, " k"]]:
    r"""$r = a - b$: the part $a$ without second derivatives, and for each probe an estimate of
    $b = \tfrac12 g^2\Delta u$."""
    t = jnp.asarray(t, x.dtype)
    half_g2 = process.diffusion(t) ** 2 / 2
    _, motion = jax.jvp(lambda t: model.potential(t, x), (t,), (jnp.ones_like(t),))
    score, push = jax.linearize(lambda x: model.score(t, x), x)
    drift = process.drift(t, x)
    spread_drift = divergence(lambda x: process.drift(t, x), x)
    first_order = motion + spread_drift + drift @ score - half_g2 * score @ score
    return first_order, half_g2 * jnp.sum(jax.vmap(push)(probes) * probes, axis=1)


class HutchinsonSquare(eqx.Module):
    r"""$\hat r^2$ with the Laplacian estimated as a mean over Rademacher probes.

    Its expectation is too large by the variance of the probes over `num_probes`, so its gradient is
    biased too. `TwoProbeSquare` is unbiased.

    **Arguments:**

    - `num_probes`: number of probes at each point.
    """

    num_probes: int = 1

    def __call__(
        self, model: PotentialModel, process: AbstractProcess, t: Time, x: Point, key: PRNGKey
    ) -> Scalar:
        """The squared residual, shape `()`."""
        probes = jr.rademacher(key, (self.num_probes, x.size), x.dtype)
        first_order, second_order = _split_residual(model, process, t, x, probes)
        return (first_order - second_order.mean()) ** 2


class TwoProbeSquare(eqx.Module):
    r"""The unbiased estimate $(a - b_1)(a - b_2) = a^2 - a(b_1 + b_2) + b_1 b_2$ of $r^2$ from two
    independent probes. Single values can be negative."""

    def __call__(
        self, model: PotentialModel, process: AbstractProcess, t: Time, x: Point, key: PRNGKey
    ) -> Scalar:
        """The estimate, shape `()`."""
        probes = jr.rademacher(key, (2, x.size), x.dtype)
        first_order, second_order = _split_residual(model, process, t, x, probes)
        return jnp.prod(first_order - second_order)


class DensitySquare(eqx.Module):
    r"""The square of the density's residual, $R^2 = e^{2u} r^2$, which only counts where $e^u$ is large.

    Training holds the factor $e^{2u}$ fixed: otherwise a lower constant in $u$, which changes no score,
    would make the penalty as small as one likes. The scale of a potential that was never normalised is
    part of the penalty's weight.

    **Arguments:**

    - `square`: how $r^2$ is computed.
    """

    square: ResidualSquare = ExactSquare()

    def __call__(
        self, model: PotentialModel, process: AbstractProcess, t: Time, x: Point, key: PRNGKey
    ) -> Scalar:
        """The squared residual of the density, shape `()`."""
        density = jnp.exp(jax.lax.stop_gradient(model.potential(t, x)))
        return density**2 * self.square(model, process, t, x, key)


@runtime_checkable
class ScoreSquare(Protocol):
    r"""A way to $\|\rho\|^2$ at one point: `ExactScoreSquare()` or `ProbedScoreSquare()`."""

    def __call__(self, model, process, t, x, key) -> Array: ...


class ExactScoreSquare(eqx.Module):
    r"""$\|\rho\|^2$ of the score equation with exact derivatives; its cost grows with `dim`."""

    def __call__(
        self, model: ScoreModel, process: AbstractProcess, t: Time, x: Point, key: PRNGKey
    ) -> Scalar:
        """The squared residual, shape `()`."""
        del key
        return jnp.sum(score_fp_residual(model, process, t, x) ** 2)


def probed_score_residual(
    model: ScoreModel,
    process: AbstractProcess,
    t: Time,
    x: Point,
    probes: Float[Array, "k dim"],
    time_step: float,
) -> Point:
    r"""$\rho$ with $\partial_t s$ by a central difference over $t (1 \pm h)$ and the divergence as a
    mean over probes."""
    t = jnp.asarray(t, x.dtype)
    half_g2, h = process.diffusion(t) ** 2 / 2, time_step * t
    motion = (model.score(t + h, x) - model.score(t - h, x)) / (2 * h)

    def bracket(x):
        score, push = jax.linearize(lambda x: model.score(t, x), x)
        spread = jnp.sum(jax.vmap(push)(probes) * probes, axis=1).mean()
        spread_drift = divergence(lambda x: process.drift(t, x), x)
        return spread_drift + process.drift(t, x) @ score - half_g2 * (score @ score + spread)

    return motion + jax.grad(bracket)(x)


class ProbedScoreSquare(eqx.Module):
    r"""$\|\hat\rho\|^2$ with the divergence as a mean over Rademacher probes and the derivative in time
    as a difference: two more scores and one more derivative instead of `dim`.

    Its expectation is too large by the variance of the probes over `num_probes`, which training then
    reduces too: in the plane, a penalty of weight 1 with one probe moved the ODE far from the data.

    **Arguments:**

    - `num_probes`: number of probes at each point.
    - `time_step`: $h$ of the central difference over $t (1 \pm h)$.

    ??? cite "Reference"
        Lai et al., *FP-Diffusion*, ICML 2023, arXiv 2210.04296, Section 5.
    """

    num_probes: int = 1
    time_step: float = 0.01

    def __call__(
        self, model: ScoreModel, process: AbstractProcess, t: Time, x: Point, key: PRNGKey
    ) -> Scalar:
        """The squared residual, shape `()`."""
        probes = jr.rademacher(key, (self.num_probes, x.size), x.dtype)
        found = probed_score_residual(model, process, t, x, probes, self.time_step)
        return jnp.sum(found**2)
