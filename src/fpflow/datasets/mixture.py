"""Gaussian mixtures and their exact marginals under a linear process."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import scipy
from jaxtyping import Array, Float

from .._calculus import PotentialJet
from .._process import AbstractProcess, variance
from .._types import ArrayLike, Point, PRNGKey, Scalar, Time
from .._window import GridDensity, Window
from .cells import as_density, check_dim, quadrature


class GaussianMixture(eqx.Module):
    r"""A finite mixture $p = \sum_k w_k\, N(m_k, \Sigma_k)$ of Gaussians in any dimension.

    **Arguments:**

    - `means`: $m_k$, shape `(components, dim)`.
    - `covariances`: $\Sigma_k$ as one number (isotropic), or with shape `(components,)` (isotropic),
      `(components, dim)` (diagonal) or `(components, dim, dim)`.
    - `weights`: $w_k$, shape `(components,)`, positive; equal by default, rescaled to sum to one.

    **Raises:** `ValueError` for shapes that do not fit or covariances that are not positive.
    """

    weights: Float[Array, " components"]
    means: Float[Array, "components dim"]
    variances: Float[Array, "components dim"]
    axes: Float[Array, "components dim dim"]

    def __init__(self, means: ArrayLike, covariances: ArrayLike, weights: ArrayLike | None = None):
        m = np.asarray(means, float)
        if m.ndim != 2 or m.size == 0 or not np.isfinite(m).all():
            raise ValueError(f"`means` must be finite, shape (components, dim), got {m.shape}.")
        count, dim = m.shape
        cov = np.asarray(covariances, float)
        if cov.shape in [(), (count,)]:
            cov = np.broadcast_to(cov[..., None] if cov.ndim else cov, (count, dim))
        if cov.shape == (count, dim):
            variances, axes = cov, np.broadcast_to(np.eye(dim), (count, dim, dim))
        elif cov.shape == (count, dim, dim):
            variances, axes = np.linalg.eigh(cov)
        else:
            raise ValueError(
                "`covariances` must be a number or of shape (components,), (components, dim) or "
                f"(components, dim, dim) for `means` of shape {m.shape}, got {cov.shape}."
            )
        if not (variances > 0).all():
            raise ValueError(f"`covariances` must be positive, got {variances.min()}.")
        w = np.ones(count) if weights is None else np.asarray(weights, float)
        if w.shape != (count,) or not (w > 0).all():
            raise ValueError(f"`weights` must be positive, shape ({count},), got {w}.")
        self.weights, self.means = jnp.asarray(w / w.sum()), jnp.asarray(m)
        self.variances, self.axes = jnp.asarray(variances), jnp.asarray(axes)

    @property
    def dim(self) -> int:
        """The dimension of a point."""
        return self.means.shape[1]

    def sample(self, key: PRNGKey, n: int) -> Float[Array, "n dim"]:
        """`n` independent points."""
        return _draws(self, key, int(n))

    def log_prob(self, x: Point) -> Scalar:
        """The log density at one point, in nats."""
        return _log_mixture(self.weights, self.means, self.variances, self.axes, x)[0]

    def marginal(self, process: AbstractProcess) -> "MixtureMarginal":
        """The exact distribution $p_t$ under a linear process, as a model with potential and score."""
        return MixtureMarginal(self, process)

    def cell_probabilities(self, window: Window) -> GridDensity:
        """The exact probabilities of the cells, from error functions; for axis-aligned mixtures only."""
        check_dim(window, self.dim)
        axes, eye = np.asarray(self.axes), np.eye(self.dim)
        if self.dim > 1 and not np.allclose(axes, eye):
            return quadrature(self.log_prob, window)
        edges = window.edges()[:, None, None]
        z = (edges - np.asarray(self.means, float)) / np.sqrt(np.asarray(self.variances, float))
        sides = np.diff(scipy.special.ndtr(z), axis=0)
        weights, sides = np.asarray(self.weights, float), np.moveaxis(sides, 2, 0)
        letters = "ij"[: self.dim]
        mass = np.einsum(f"k,{','.join(f'{i}k' for i in letters)}->{letters}", weights, *sides)
        return as_density(mass, 1e-15, window)


@eqx.filter_jit
def _draws(law: GaussianMixture, key: PRNGKey, n: int) -> Float[Array, "n dim"]:
    key_component, key_noise = jr.split(key)
    # Inverse distribution function: cheaper than the Gumbel draw of `jr.categorical`.
    uniform = jr.uniform(key_component, (n,), law.means.dtype)
    k = jnp.searchsorted(jnp.cumsum(law.weights)[:-1], uniform)
    noise = jr.normal(key_noise, (n, law.dim), law.means.dtype)
    scaled = jnp.sqrt(law.variances)[k] * noise
    return law.means[k] + jnp.einsum("nij,nj->ni", law.axes[k], scaled)


def _log_mixture(weights, means, variances, axes, x):
    """Log-density, responsibilities and whitened offsets `axes^T (x - mean) / variances`."""
    offsets = jnp.einsum("kij,ki->kj", axes, x - means)
    pull = offsets / variances
    log_parts = jnp.log(weights) - (offsets * pull + jnp.log(2 * jnp.pi * variances)).sum(-1) / 2
    value = jax.nn.logsumexp(log_parts)
    return value, jnp.exp(log_parts - value), offsets, pull


class MixtureMarginal(eqx.Module):
    r"""The exact marginal $p_t$ of a Gaussian mixture under a linear process.

    With $x_t = \alpha x_0 + \sigma z$ the components of $p_t$ are
    $N(\alpha m_k, \alpha^2\Sigma_k + \sigma^2 I)$. This is a model like any other, but with nothing to
    learn: its samplers, densities and residuals have known answers.
    """

    mixture: GaussianMixture
    process: AbstractProcess

    @property
    def dim(self) -> int:
        """The dimension of a point."""
        return self.mixture.dim

    def _parameters(self, t: Time):
        t = jnp.asarray(t, self.mixture.means.dtype)
        alpha, noise = self.process.alpha(t), variance(self.process, t)
        means, variances = alpha * self.mixture.means, alpha**2 * self.mixture.variances + noise
        return means, variances

    def _parts(self, t: Time, x: Point):
        return _log_mixture(self.mixture.weights, *self._parameters(t), self.mixture.axes, x)

    def potential(self, t: Time, x: Point) -> Scalar:
        r"""$\log p_t(x)$ in nats, shape `()`."""
        return self._parts(t, x)[0]

    def score(self, t: Time, x: Point) -> Point:
        r"""$\nabla\log p_t(x) = -\sum_k r_k \Sigma_k^{-1}(x - m_k)$, shape `(dim,)`."""
        _, share, _, pull = self._parts(t, x)
        return -jnp.einsum("k,kij,kj->i", share, self.mixture.axes, pull)

    def time_derivative(self, t: Time, x: Point) -> Scalar:
        r"""$\partial_t \log p_t(x)$, from the motion of each component's mean and variances."""
        t = jnp.asarray(t, x.dtype)
        (means, variances), (d_means, d_variances) = jax.jvp(
            self._parameters, (t,), (jnp.ones_like(t),)
        )
        axes = self.mixture.axes
        _, share, _, pull = _log_mixture(self.mixture.weights, means, variances, axes, x)
        d_offsets = jnp.einsum("kij,ki->kj", axes, d_means)
        rates = pull * d_offsets + (pull**2 - 1 / variances) * d_variances / 2
        return share @ rates.sum(-1)

    def laplacian(self, t: Time, x: Point) -> Scalar:
        r"""$\Delta\log p_t(x) = \sum_k r_k(\|\Sigma_k^{-1}(x-m_k)\|^2 - \mathrm{tr}\Sigma_k^{-1})
        - \|\nabla\log p_t\|^2$."""
        _, variances = self._parameters(t)
        _, share, _, pull = self._parts(t, x)
        return share @ (pull**2 - 1 / variances).sum(-1) - jnp.sum(self.score(t, x) ** 2)

    def jet(self, t: Time, x: Point) -> PotentialJet:
        """All four at once, for the residual."""
        return PotentialJet(
            self.potential(t, x), self.time_derivative(t, x), self.score(t, x), self.laplacian(t, x)
        )


def gaussian_mixture() -> GaussianMixture:
    """The paper's mixture: nine equal components of variance 0.0845 on a diamond lattice."""
    means = [(1.3, 1.3), (1.3, -1.3), (-1.3, 1.3), (-1.3, -1.3), (0, 0)]
    means += [(2.6, 0), (-2.6, 0), (0, 2.6), (0, -2.6)]
    return GaussianMixture(means, 0.2 * 0.65**2)
