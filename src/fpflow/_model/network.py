"""A softplus network of (t, x) with its derivatives written as matrix products.

Everything keeps leading axes and multiplies from the right, so that `jax.vmap` over points runs
as one wide matrix product: as fast as a network written for batches.
"""

import functools
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float

from .._calculus import PotentialJet
from .._process import IsotropicGaussian, OrnsteinUhlenbeck
from .._types import PRNGKey

# What layers correct unless told otherwise: the prior of the process that is used unless told otherwise.
PRIOR = OrnsteinUhlenbeck().prior

# log(1 + e) / e on [0, 1] to 5e-9: a score takes a fifth less time than with jnp.log1p.
_LOG1P = np.polynomial.Chebyshev.interpolate(lambda e: np.log1p(e) / e, 9, domain=[0, 1])
_LOG1P = tuple(_LOG1P.convert(kind=np.polynomial.Polynomial).coef[::-1])


def _log1p(e: Array) -> Array:
    r"""$\log(1 + e)$ for $e \in [0, 1]$, to the last digit but one."""
    if e.dtype == jnp.float32:
        return e * jnp.polyval(jnp.asarray(_LOG1P, e.dtype), e, unroll=len(_LOG1P))
    return jnp.log1p(e)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def softplus_and_slope(beta: float, h: Array) -> tuple[Array, Array]:
    r"""$\tfrac1\beta\log(1 + e^{\beta h})$ and its derivative, the logistic function of $\beta h$.

    One exponential serves both. The slope's own derivative, $\beta s(1 - s)$, is written down so
    that no differentiation goes through the absolute value.
    """
    e = jnp.exp(-jnp.abs(beta * h))
    q = 1 / (1 + e)
    return jnp.maximum(h, 0) + _log1p(e) / beta, jnp.where(h >= 0, q, e * q)


@softplus_and_slope.defjvp
def _softplus_and_slope_jvp(beta, primals, tangents):
    (h,), (dh,) = primals, tangents
    value, slope = softplus_and_slope(beta, h)
    return (value, slope), (slope * dh, beta * slope * (1 - slope) * dh)


class MLP(eqx.Module):
    r"""Affine layers of $(t, x_1, \dots, x_d)$ with softplus between them."""

    weights: tuple[Float[Array, "_ _"], ...]
    biases: tuple[Float[Array, " _"], ...]
    beta: float
    condition_dim: int = eqx.field(default=0, static=True)

    def __check_init__(self):
        if not 0 < self.beta < float("inf"):
            raise ValueError(f"`beta` must be positive and finite, got {self.beta}.")

    @property
    def dim(self) -> int:
        """The dimension of $x$."""
        return self.weights[0].shape[1] - 1 - self.condition_dim

    def _first(self, t, x, condition):
        weight = self.weights[0]
        bias = jnp.asarray(t)[..., None] * weight[:, 0] + self.biases[0]
        if self.condition_dim:
            bias = bias + self._checked(condition) @ weight[:, 1 + self.dim :].T
        elif condition is not None:
            raise ValueError("the network takes no condition; make it with `condition_dim=`.")
        return x @ weight[:, 1 : 1 + self.dim].T + bias

    def _checked(self, condition):
        if condition is None:
            raise ValueError(
                f"the network needs a condition of shape ({self.condition_dim},): give it one with "
                "`fpflow.given(model, condition)`, on the command line with `--given`, or, to train "
                "it, pass data with conditions."
            )
        condition = jnp.asarray(condition, self.biases[0].dtype)
        if condition.shape[-1:] != (self.condition_dim,):
            raise ValueError(
                f"`condition` must have shape ({self.condition_dim},), got {condition.shape}."
            )
        return condition

    def __call__(
        self, t: Any, x: Float[Array, "*batch dim"], condition: Any = None
    ) -> Float[Array, "*batch out"]:
        """The output of the last layer."""
        h = self._first(t, x, condition)
        for weight, bias in zip(self.weights[1:], self.biases[1:], strict=True):
            h = softplus_and_slope(self.beta, h)[0] @ weight.T + bias
        return h

    def gradient(
        self, t: Any, x: Float[Array, "*batch dim"], condition: Any = None
    ) -> Float[Array, "*batch dim"]:
        """The gradient in $x$ of a single output: one pass forward, one back."""
        h, slopes = self._first(t, x, condition), []
        for weight, bias in zip(self.weights[1:], self.biases[1:], strict=True):
            value, slope = softplus_and_slope(self.beta, h)
            slopes.append(slope)
            h = value @ weight.T + bias
        cotangent = self.weights[-1][0]
        for weight, slope in zip(self.weights[-2:0:-1], slopes[:0:-1], strict=True):
            cotangent = (cotangent * slope) @ weight
        return (cotangent * slopes[0]) @ self.weights[0][:, 1 : 1 + self.dim]

    def jet(self, t: Any, x: Float[Array, "*batch dim"], condition: Any = None) -> PotentialJet:
        r"""Value, $\partial_t$, $\nabla$ and $\Delta$ of a single output in one pass forward.

        Through an activation $a$ with slope $s$, $J \mapsto sJ$ and
        $\Delta \mapsto \beta s(1 - s)\|J_x\|^2 + s\Delta$; a layer multiplies all by its weight.
        """
        h = self._first(t, x, condition)
        jacobian = list(self.weights[0].T[: 1 + self.dim])
        curvature = jnp.zeros_like(h)
        for weight, bias in zip(self.weights[1:], self.biases[1:], strict=True):
            value, s = softplus_and_slope(self.beta, h)
            bend = self.beta * s * (1 - s) * sum(j**2 for j in jacobian[1:])
            curvature = (bend + s * curvature) @ weight.T
            jacobian = [(s * j) @ weight.T for j in jacobian]
            h = value @ weight.T + bias
        gradient = jnp.concatenate(jacobian[1:], axis=-1)
        return PotentialJet(h[..., 0], jacobian[0][..., 0], gradient, curvature[..., 0])


def init_mlp(
    dim: int, width: int, depth: int, out: int, beta: float, condition_dim: int, key: PRNGKey
) -> MLP:
    """Uniform weights and biases in $\\pm 1/\\sqrt{\\text{in}}$."""
    for name, size, least in (
        ("dim", dim, 1),
        ("width", width, 1),
        ("depth", depth, 1),
        ("condition_dim", condition_dim, 0),
    ):
        if size < least:
            raise ValueError(f"`{name}` must be at least {least}, got {size}.")
    sizes = [dim + 1 + condition_dim, *[width] * depth, out]
    weights, biases = [], []
    for layer_key, n_in, n_out in zip(
        jr.split(key, len(sizes) - 1), sizes[:-1], sizes[1:], strict=True
    ):
        key_weight, key_bias = jr.split(layer_key)
        bound = n_in**-0.5
        weights.append(jr.uniform(key_weight, (n_out, n_in), minval=-bound, maxval=bound))
        biases.append(jr.uniform(key_bias, (n_out,), minval=-bound, maxval=bound))
    return MLP(tuple(weights), tuple(biases), float(beta), condition_dim)


def mlp_from_layers(layers: Sequence[tuple[Any, Any]], beta: float) -> MLP:
    """A network from `(weight (out, in), bias (out,))` pairs, checked for shape and finiteness."""
    if len(layers) < 2:
        raise ValueError(
            f"`layers` must hold at least two (weight, bias) pairs, got {len(layers)}."
        )
    weights, biases = [], []
    for k, (weight, bias) in enumerate(layers):
        w, b = np.asarray(weight), np.asarray(bias)
        n_in = weights[-1].shape[0] if weights else None
        if w.ndim != 2 or (n_in is not None and w.shape[1] != n_in):
            expected = f"(out, {n_in})" if n_in else "(out, in)"
            raise ValueError(
                f"`layers[{k}]` must have a weight of shape {expected}, got {w.shape}."
            )
        if b.shape != w.shape[:1]:
            raise ValueError(
                f"`layers[{k}]` must have a bias of shape {w.shape[:1]}, got {b.shape}."
            )
        if not (np.isfinite(w).all() and np.isfinite(b).all()):
            raise ValueError(f"`layers[{k}]` holds NaN or Inf.")
        weights.append(jnp.asarray(w, jnp.result_type(float)))
        biases.append(jnp.asarray(b, jnp.result_type(float)))
    if weights[0].shape[1] < 2:
        raise ValueError("`layers[0]` must take (t, x_1, ..., x_d), at least two inputs, got one.")
    return MLP(tuple(weights), tuple(biases), float(beta))


def precision_of(prior: IsotropicGaussian | None) -> float:
    r"""$\kappa = 1/\sigma^2$ of a prior $N(0, \sigma^2 I)$, zero of none."""
    if prior is None:
        return 0.0
    if not isinstance(prior, IsotropicGaussian):
        raise ValueError(
            "`prior` must be an `IsotropicGaussian`, as `process.prior` is, or `None`, got "
            f"{type(prior).__name__}."
        )
    return float(prior.std) ** -2


def with_network(kind: type, network: MLP, precision: float) -> Any:
    """A model of this kind with layers from elsewhere."""
    if not (precision >= 0 and np.isfinite(precision)):
        raise ValueError(f"`precision` must be finite and not negative, got {precision}.")
    blank = kind(network.dim, width=1, depth=1, key=jr.key(0))
    return eqx.tree_at(lambda m: (m.network, m.precision), blank, (network, float(precision)))
