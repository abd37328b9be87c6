"""Terms that see the Jacobian of a score: implicit matching, matching of higher order, the curl."""

from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array

from .._calculus import divergence
from .._noising import Noised
from .._process import AbstractProcess
from .._types import PRNGKey, Scalar
from .base import AbstractTerm, Weight, mean_over, some_of, weights_over_time
from .weighting import Weighting, likelihood_weighting, no_weighting, noise_weighting


def _directions(num_probes: int | None, key: PRNGKey, x: Array) -> Array:
    r"""Rows $v$ with $\sum_v v v^\top = I$: all axes, or so many random ones, of which it holds on
    average."""
    if num_probes is None:
        return jnp.eye(x.size, dtype=x.dtype)
    return jr.normal(key, (num_probes, x.size), x.dtype) / num_probes**0.5


def _check_probes(num_probes: int | None) -> None:
    if num_probes is not None and num_probes < 1:
        raise ValueError(
            f"`num_probes` must be at least 1, or None for the whole Jacobian, got {num_probes}."
        )


def _mean(
    term: Any, function: Any, model: Any, process: AbstractProcess, noised: Noised, key
) -> Scalar:
    """The weighted mean of `function(model, t, x, z, std, key)` over the points that a term uses."""
    some = some_of(noised, term.num_points)
    weight = weights_over_time(term.weighting, process, some)
    rows = (some.t, some.x, some.noise, some.std, jr.split(key, len(some.t)))
    return mean_over(function, model, rows, weight, some.condition)


def _target(score: Array, noise: Array, std: Array) -> Array:
    r"""$\delta = \sigma s + z$, the score held fixed: each order learns its own derivative."""
    return std * jax.lax.stop_gradient(score) + noise


class ImplicitScoreMatching(AbstractTerm):
    r"""$E\,\lambda(t)\,(\tfrac12\|s\|^2 + \nabla\cdot s)$ over noised data: half the squared error of
    the score, without the constant.

    Its minimum and gradient are on average those of `DenoisingScoreMatching`, but it uses the noised
    points alone and not what noised them. With probes it is sliced score matching, in its form of
    reduced variance.

    **Arguments:**

    - `weight`: a number, or a function of the step.
    - `num_points`: number of points of the batch that are used.
    - `num_probes`: `None` for the exact divergence, `dim` derivatives of the score per point; or the
      number of random directions, which leaves the mean as it is.
    - `weighting`: $\lambda$, a function `(process, t)`.

    **Raises:** `ValueError` for fewer than one probe.

    ??? cite "Reference"
        Hyvärinen, *Estimation of non-normalized statistical models by score matching*, JMLR 6
        (2005) 695; Song et al., *Sliced score matching*, UAI 2019, arXiv 1905.07088.
    """

    weight: Weight = 1.0
    num_points: int = 4096
    num_probes: int | None = None
    weighting: Weighting = likelihood_weighting

    def __check_init__(self):
        _check_probes(self.num_probes)

    def __call__(
        self, model: Any, process: AbstractProcess, noised: Noised, *, key: PRNGKey
    ) -> Scalar:
        def value(m, t, x, noise, std, key):
            del noise, std
            v = _directions(self.num_probes, key, x)
            score, push = jax.linearize(lambda x: m.score(t, x), x)
            return score @ score / 2 + jnp.sum(v * jax.vmap(push)(v))

        return _mean(self, value, model, process, noised, key)


class SecondOrderScoreMatching(AbstractTerm):
    r"""$E\,\lambda(t)\,\|\sigma^2 \nabla s + I - \delta\delta^\top\|_F^2$ with $\delta = \sigma s + z$:
    matches the Jacobian of the score.

    In $\delta$ the score is held fixed. At the exact score,
    $E(\delta\delta^\top \mid x_t) = \sigma^2\nabla s + I$.

    **Arguments:**

    - `weight`: a number, or a function of the step.
    - `num_points`: number of points of the batch that are used.
    - `num_probes`: `None` for the whole Jacobian, `dim` derivatives of the score per point; or the
      number of random directions in which it is compared, which leaves the mean as it is.
    - `weighting`: $\lambda$, a function `(process, t)`.

    **Raises:** `ValueError` for fewer than one probe.

    ??? cite "Reference"
        Lu et al., *Maximum likelihood training for score-based diffusion ODEs by high-order denoising
        score matching*, ICML 2022, arXiv 2206.08265.
    """

    weight: Weight = 1.0
    num_points: int = 256
    num_probes: int | None = None
    weighting: Weighting = no_weighting

    def __check_init__(self):
        _check_probes(self.num_probes)

    def __call__(
        self, model: Any, process: AbstractProcess, noised: Noised, *, key: PRNGKey
    ) -> Scalar:
        def square(m, t, x, noise, std, key):
            v = _directions(self.num_probes, key, x)
            score, push = jax.linearize(lambda x: m.score(t, x), x)
            delta = _target(score, noise, std)
            return jnp.sum((std**2 * jax.vmap(push)(v) + v - jnp.outer(v @ delta, delta)) ** 2)

        return _mean(self, square, model, process, noised, key)


class TraceScoreMatching(AbstractTerm):
    r"""$E\,\lambda(t)\,|\sigma^2\,\nabla\cdot s + d - \|\delta\|^2|^2$ with $\delta = \sigma s + z$:
    matches the divergence of the score.

    In $\delta$ the score is held fixed.

    **Arguments:**

    - `weight`: a number, or a function of the step.
    - `num_points`: number of points of the batch that are used; each needs the exact divergence.
    - `weighting`: $\lambda$, a function `(process, t)`.

    ??? cite "Reference"
        Lu et al., ICML 2022, arXiv 2206.08265.
    """

    weight: Weight = 1.0
    num_points: int = 256
    weighting: Weighting = no_weighting

    def __call__(
        self, model: Any, process: AbstractProcess, noised: Noised, *, key: PRNGKey
    ) -> Scalar:
        def square(m, t, x, noise, std, key):
            del key
            score = lambda x: m.score(t, x)
            delta = _target(score(x), noise, std)
            return (std**2 * divergence(score, x) + x.size - delta @ delta) ** 2

        return _mean(self, square, model, process, noised, key)


class ThirdOrderScoreMatching(AbstractTerm):
    r"""Matches the gradient of the divergence of the score: with $\delta = \sigma s + z$,

    $$E\,\lambda(t)\,\|\sigma^3\,\nabla(\nabla\cdot s) + \|\delta\|^2\delta
    - (\sigma^2\,\nabla\cdot s + d)\,\delta - 2(\sigma^2\nabla s\,\delta + \delta)\|^2.$$

    Everything but $\nabla(\nabla\cdot s)$ is held fixed. The projected form replaces the divergence by
    $v^\top\nabla s\,v$ and has the mean square over normal directions $v$, so that it matches all second
    derivatives of the score and not only their trace.

    **Arguments:**

    - `weight`: a number, or a function of the step.
    - `num_points`: number of points of the batch that are used; each needs second derivatives of the
      score.
    - `num_probes`: `None` for the divergence; or the number of directions of the projected form.
    - `weighting`: $\lambda$, a function `(process, t)`.

    **Raises:** `ValueError` for fewer than one probe.

    ??? cite "Reference"
        Lu et al., ICML 2022, arXiv 2206.08265.
    """

    weight: Weight = 1.0
    num_points: int = 128
    num_probes: int | None = None
    weighting: Weighting = no_weighting

    def __check_init__(self):
        _check_probes(self.num_probes)

    def __call__(
        self, model: Any, process: AbstractProcess, noised: Noised, *, key: PRNGKey
    ) -> Scalar:
        def square(m, t, x, noise, std, key):
            def bent(x, v):
                """The sum of v' (ds/dx) v over directions; the score and its derivatives along them."""
                score, push = jax.linearize(lambda x: m.score(t, x), x)
                pushed = jax.vmap(push)(v)
                return jnp.sum(v * pushed), (score, pushed)

            def missed(v):
                (total, (score, pushed)), slope = jax.value_and_grad(bent, has_aux=True)(x, v)
                delta = _target(score, noise, std)
                along = v @ delta
                lower = (std**2 * total + jnp.sum(v**2)) * delta + 2 * along @ (std**2 * pushed + v)
                known = (along @ along) * delta - jax.lax.stop_gradient(lower)
                return jnp.sum((std**3 * slope + known) ** 2)

            if self.num_probes is None:
                return missed(jnp.eye(x.size, dtype=x.dtype))
            directions = jr.normal(key, (self.num_probes, 1, x.size), x.dtype)
            return jax.vmap(missed)(directions).mean()

        return _mean(self, square, model, process, noised, key)


class CurlPenalty(AbstractTerm):
    r"""$E\,\lambda(t)\,\tfrac12\|\nabla s - \nabla s^\top\|_F^2$ over noised data: zero for a gradient;
    in the plane, the mean square of the curl.

    **Arguments:**

    - `weight`: a number, or a function of the step.
    - `num_points`: number of points of the batch that are used.
    - `num_probes`: `None` for the whole Jacobian; or the number of random directions, which leaves the
      mean as it is.
    - `weighting`: $\lambda$, a function `(process, t)`.

    **Raises:** `ValueError` for fewer than one probe.

    ??? cite "Reference"
        Salimans and Ho, *Should EBMs model the energy or the score?*, ICLR workshop 2021.
    """

    weight: Weight = 1.0
    num_points: int = 256
    num_probes: int | None = None
    weighting: Weighting = noise_weighting

    def __check_init__(self):
        _check_probes(self.num_probes)

    def __call__(
        self, model: Any, process: AbstractProcess, noised: Noised, *, key: PRNGKey
    ) -> Scalar:
        def square(m, t, x, noise, std, key):
            del noise, std
            v = _directions(self.num_probes, key, x)
            _, push = jax.linearize(lambda x: m.score(t, x), x)
            pull = jax.linear_transpose(push, x)
            return jnp.sum((jax.vmap(push)(v) - jax.vmap(lambda v: pull(v)[0])(v)) ** 2) / 2

        return _mean(self, square, model, process, noised, key)
