"""Denoising score matching, the times it is taken at, and the Fokker--Planck penalty."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float

from ._blocks import block_mean
from ._devices import shared_out
from ._process import AbstractProcess, variance
from ._residual import ExactSquare, ResidualSquare
from ._types import DataLaw, PRNGKey, Scalar, ScoreModel, Time


def _strata(key: PRNGKey, n: int) -> Float[Array, " n"]:
    """One uniform draw from each of `n` equal parts of the unit interval."""
    # A compiler may divide by multiplying with 1/n, which can round the last draw to above one.
    return jnp.minimum((jnp.arange(n) + jr.uniform(key, (n,))) / n, 1)


@runtime_checkable
class Times(Protocol):
    """Where in time a loss is taken: times and weights, shapes `(n,)`, from a key."""

    def sample(self, process: AbstractProcess, key: PRNGKey, n: int) -> tuple[Array, Array]: ...


@runtime_checkable
class Penalty(Protocol):
    """A mean of squared residuals, shape `()`, from a model and a noised batch."""

    def __call__(self, model: Any, process: AbstractProcess, batch: Any, key: PRNGKey) -> Any: ...


class UniformTime(eqx.Module):
    r"""Times uniform on $[t_0 + \epsilon, t_1]$, stratified.

    **Arguments:**

    - `offset`: $\epsilon$, which keeps $1/\sigma(t)$ finite.
    """

    offset: float = 1e-5

    def sample(self, process: AbstractProcess, key: PRNGKey, n: int):
        """Times and weights, shapes `(n,)`: the mean of `weight * h(t)` estimates that of h."""
        low = process.t0 + self.offset
        return low + (process.t1 - low) * _strata(key, n), jnp.ones(n)


class BetaTime(eqx.Module):
    r"""Times $t_0 + (t_1 - t_0)\,\mathrm{Beta}(1, b) + \epsilon$, with no weight to undo it.

    The density $b(1 - t/T)^{b-1}/T$ favours small times; the published code has $b = 2$.
    """

    b: float = 2.0
    offset: float = 1e-5

    def sample(self, process: AbstractProcess, key: PRNGKey, n: int):
        """Times and weights one, shapes `(n,)`."""
        fraction = 1 - (1 - _strata(key, n)) ** (1 / self.b)
        return process.t0 + (process.t1 - process.t0) * fraction + self.offset, jnp.ones(n)


class NoiseRatioTime(eqx.Module):
    r"""Times with density proportional to $g^2/\sigma^2$, drawn in closed form and stratified.

    $\ell(t) = \log\sigma^2/a^2$ has derivative $g^2/\sigma^2$ for every linear process, so the
    draw is uniform in $\ell$; for $g = 1$ the density is $\propto 1/\sigma^2$. With likelihood
    weighting the loss becomes $\propto E\|\sigma s + z\|^2$, whose variance is bounded.

    **Arguments:**

    - `offset`: times start at $t_0$ + `offset`.
    """

    offset: float = 1e-5

    def sample(self, process: AbstractProcess, key: PRNGKey, n: int):
        """Times and weights, shapes `(n,)`: the mean of `weight * h(t)` estimates that of h."""
        low = process.log_noise_ratio(jnp.asarray(process.t0 + self.offset))
        high = process.log_noise_ratio(jnp.asarray(process.t1))
        ratio = low + (high - low) * _strata(key, n)
        t = jax.vmap(process.time_at_log_noise_ratio)(ratio)
        std = jax.vmap(process.sigma)(t)
        g = jax.vmap(process.diffusion)(t)
        return t, (high - low) / (process.t1 - process.t0) * (std / g) ** 2


class NoisedBatch(NamedTuple):
    r"""Data points $x_0$ moved to times $t$: $x_t = \text{mean} + \sigma z$."""

    t: Float[Array, " n"]
    weight: Float[Array, " n"]
    std: Float[Array, " n"]
    noise: Float[Array, "n dim"]
    x: Float[Array, "n dim"]


def noised_batch(
    times: Times, process: AbstractProcess, data: DataLaw, n: int, key: PRNGKey, pairs: bool = False
) -> NoisedBatch:
    """`n` data points, each at its own time, with the noise that moved it there; as `pairs`, half as
    many points and times, each with some noise and its negative."""
    key_data, key_time, key_noise = jr.split(key, 3)
    drawn = -(-n // 2) if pairs else n
    x0 = data.sample(key_data, drawn)
    t, weight = times.sample(process, key_time, drawn)
    mean, std = jax.vmap(process.transition)(t, x0)
    noise = jr.normal(key_noise, x0.shape, x0.dtype)
    if pairs:
        t, weight, std, mean = (jnp.concatenate([a, a])[:n] for a in (t, weight, std, mean))
        noise = jnp.concatenate([noise, -noise])[:n]
    return NoisedBatch(t, weight, std, noise, mean + std[:, None] * noise)


def likelihood_weighting(process: AbstractProcess, t: Time) -> Scalar:
    r"""$\lambda = g^2$: the weight for which the loss bounds the Kullback--Leibler divergence."""
    return process.diffusion(t) ** 2


def no_weighting(process: AbstractProcess, t: Time) -> Scalar:
    r"""$\lambda = 1$."""
    del process
    return jnp.ones_like(t)


def noise_weighting(process: AbstractProcess, t: Time) -> Scalar:
    r"""$\lambda = \sigma^2(t) / \sigma^2(t_1)$: small times, where a network cannot follow the data's
    edges and the residual is largest, do not outweigh all others."""
    end = jnp.full_like(t, process.t1)
    return variance(process, t) / variance(process, end)


class DenoisingScoreMatching(eqx.Module):
    r"""$L = c\,E\,\lambda(t)\,\|s(t, x_t) - \nabla\log p(x_t \mid x_0)\|^2$, mean over time.

    **Arguments:**

    - `times`: where in time it is taken: `NoiseRatioTime()`, `UniformTime()` or `BetaTime()`.
    - `weighting`: $\lambda$, a function `(process, t)`.
    - `factor`: $c$; one half makes $L$ the loss of the published code in dimension two.
    - `pairs`: whether noise comes in pairs $\pm z$ about one data point: as $t \to t_0$ the error of the
      gradient then is smaller by a factor of the order of $\sigma$.
    """

    times: Times = NoiseRatioTime()
    weighting: Callable[[AbstractProcess, Time], Scalar] = likelihood_weighting
    factor: float = 0.5
    pairs: bool = True

    def __call__(self, model: ScoreModel, process: AbstractProcess, batch: NoisedBatch) -> Scalar:
        """The loss on one batch, shape `()`."""
        weighting = jax.vmap(lambda t: self.weighting(process, t))

        def terms(model, batch):
            score = jax.vmap(model.score)(batch.t, batch.x)
            square = jnp.sum((batch.std[:, None] * score + batch.noise) ** 2, axis=1)
            return batch.weight * weighting(batch.t) / batch.std**2 * square

        return self.factor * block_mean(terms, model, batch, size=4096)


class ExcessLoss(NamedTuple):
    r"""The part of the score matching loss that depends on the model, with its standard error."""

    value: float
    standard_error: float


@eqx.filter_jit
def _excess_terms(model, process, data, num_points, key):
    batch = noised_batch(NoiseRatioTime(), process, data, num_points, key)
    step = batch.std[:, None] * batch.noise

    def score(x):
        return jax.vmap(model.score)(batch.t, x)

    ahead, behind = score(batch.x), score(batch.x - 2 * step)
    square = (jnp.sum(ahead**2, 1) + jnp.sum(behind**2, 1)) / 2
    cross = jnp.sum((ahead - behind) * batch.noise, axis=1) / batch.std
    return batch.weight * jax.vmap(process.diffusion)(batch.t) ** 2 * (square + cross)


def excess_loss(
    model: ScoreModel,
    process: AbstractProcess,
    data: DataLaw,
    *,
    reference: ScoreModel | None = None,
    num_points: int = 2**17,
    key: PRNGKey,
) -> ExcessLoss:
    r"""The likelihood-weighted loss up to its constant, $E\,g^2(\|s\|^2 - 2 s\cdot k)$.

    Here $k = \nabla\log p(x_t \mid x_0)$, the mean is over $t$ uniform on $[t_0, t_1]$, and the
    constant left out, $E g^2\|k\|^2$, dwarfs the differences between models. Noise is taken in
    pairs $\pm z$, which bounds the variance as $t \to t_0$. Most of the standard error is common to
    all models at one key: to compare two, give one as the `reference` of the other.

    **Arguments:**

    - `model`: has `score(t, x)`.
    - `process`, `data`: as for `train`; `data` must have `sample(key, n)`.
    - `reference`: a model whose loss is subtracted point by point.
    - `num_points`: pairs of noised points.
    - `key`: a `jax.random.key`.

    **Returns:** an `ExcessLoss`.
    """
    terms = _excess_terms(model, process, data, num_points, key)
    if reference is not None:
        terms = terms - _excess_terms(reference, process, data, num_points, key)
    return ExcessLoss(float(terms.mean()), float(terms.std(ddof=1) / num_points**0.5))


def _mean_square(square, model, process, t, x, weight, key):
    r"""The mean of $w r^2$ over points."""

    def terms(model, rows):
        t, x, weight, key = rows
        squares = jax.vmap(lambda t, x, key: square(model, process, t, x, key))(t, x, key)
        return weight * squares

    return block_mean(terms, model, (t, x, weight, jr.split(key, len(t))), size=1024)


class UniformPenalty(eqx.Module):
    r"""$\tilde R = E\,r^2$ over $t \sim U(t_0, t_1)$ and $x \sim U(\Omega)$, as in the paper.

    **Arguments:**

    - `num_points`: collocation points drawn at each step.
    - `low`, `high`: $\Omega = [\text{low}, \text{high}]^d$.
    - `square`: the way to $r^2$: `ExactSquare()`, or with probes in high dimensions.
    """

    num_points: int = 5000
    low: float = -3.5
    high: float = 3.5
    square: ResidualSquare = ExactSquare()

    def __call__(self, model, process: AbstractProcess, batch: NoisedBatch, key: PRNGKey) -> Scalar:
        """The penalty at fresh points, shape `()`."""
        key_time, key_place, key_square = jr.split(key, 3)
        t = process.t0 + (process.t1 - process.t0) * _strata(key_time, self.num_points)
        shape = (self.num_points, batch.x.shape[1])
        x = jr.uniform(key_place, shape, batch.x.dtype, self.low, self.high)
        t, x = shared_out((t, x))
        return _mean_square(self.square, model, process, t, x, jnp.ones_like(t), key_square)


class MarginalPenalty(eqx.Module):
    r"""$E\,\lambda(t)\,r^2$ over $t \sim U(t_0, t_1)$ and $x \sim p_t$: the residual where samplers go.

    The points are the noised data of the batch, with its times and weights, so that small times
    are well sampled.

    **Arguments:**

    - `num_points`: how many points of the batch are used.
    - `square`: the way to $r^2$: `ExactSquare()`, or with probes in high dimensions.
    - `weighting`: $\lambda$, a function `(process, t)`: `fpflow.noise_weighting` or
      `fpflow.no_weighting`.
    """

    num_points: int = 1024
    square: ResidualSquare = ExactSquare()
    weighting: Callable[[AbstractProcess, Time], Scalar] = noise_weighting

    def __call__(self, model, process: AbstractProcess, batch: NoisedBatch, key: PRNGKey) -> Scalar:
        """The penalty at points of the batch, shape `()`."""
        # Times are stratified in order, once or, with pairs, twice: a stride keeps them spread.
        stride = max(batch.t.shape[0] // self.num_points, 1)
        t, x, weight = batch.t[::stride], batch.x[::stride], batch.weight[::stride]
        weight = weight * jax.vmap(lambda t: self.weighting(process, t))(t)
        return _mean_square(self.square, model, process, t, x, weight, key)
