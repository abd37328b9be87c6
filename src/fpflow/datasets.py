"""Laws to learn from: the three of the paper, Gaussian mixtures, and points of one's own."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float
from scipy.special import ndtr

from ._calculus import PotentialJet
from ._process import mean_scale, transition_variance
from ._types import ArrayLike, DataLaw, Point, PRNGKey, Process, Scalar, Time
from ._window import GridDensity, Window


class GaussianMixture(eqx.Module):
    r"""A finite mixture $p = \sum_k w_k\, N(m_k, \Sigma_k)$ of Gaussians in any dimension.

    **Arguments:**

    - `means`: $m_k$, shape `(components, dim)`.
    - `covariances`: $\Sigma_k$ as one number (isotropic), or as shape `(components,)` (isotropic),
      `(components, dim)` (diagonal) or `(components, dim, dim)`.
    - `weights`: $w_k$, shape `(components,)`, positive; equal by default, scaled to sum to one.

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
        key_component, key_noise = jr.split(key)
        # Inverse distribution function: cheaper than the Gumbel draw of `jr.categorical`.
        uniform = jr.uniform(key_component, (n,), self.means.dtype)
        k = jnp.searchsorted(jnp.cumsum(self.weights)[:-1], uniform)
        noise = jr.normal(key_noise, (n, self.dim), self.means.dtype)
        scaled = jnp.sqrt(self.variances)[k] * noise
        return self.means[k] + jnp.einsum("nij,nj->ni", self.axes[k], scaled)

    def log_prob(self, x: Point) -> Scalar:
        """The log-density at one point, in nats."""
        return _log_mixture(self.weights, self.means, self.variances, self.axes, x)[0]

    def marginal(self, process: Process) -> "MixtureMarginal":
        """The exact law $p_t$ under a linear process, as a model with potential and score."""
        return MixtureMarginal(self, process)

    def cell_probabilities(self, window: Window) -> GridDensity:
        """The exact probabilities of the cells, by error functions; axis-aligned mixtures only."""
        check_dim(window, self.dim)
        axes, eye = np.asarray(self.axes), np.eye(self.dim)
        if self.dim > 1 and not np.allclose(axes, eye):
            return _quadrature(self.log_prob, window)
        edges = window.edges()[:, None, None]
        z = (edges - np.asarray(self.means, float)) / np.sqrt(np.asarray(self.variances, float))
        sides = np.diff(ndtr(z), axis=0)
        weights, sides = np.asarray(self.weights, float), np.moveaxis(sides, 2, 0)
        letters = "ij"[: self.dim]
        mass = np.einsum(f"k,{','.join(f'{i}k' for i in letters)}->{letters}", weights, *sides)
        return _as_density(mass, 1e-15, window)


def _log_mixture(weights, means, variances, axes, x):
    """Log-density, responsibilities and whitened offsets `axes^T (x - mean) / variances`."""
    offsets = jnp.einsum("kij,ki->kj", axes, x - means)
    pull = offsets / variances
    log_parts = jnp.log(weights) - (offsets * pull + jnp.log(2 * jnp.pi * variances)).sum(-1) / 2
    value = jax.nn.logsumexp(log_parts)
    return value, jnp.exp(log_parts - value), offsets, pull


class MixtureMarginal(eqx.Module):
    r"""The exact marginal $p_t$ of a Gaussian mixture under a linear process.

    With transition mean $a x_0 + b$ and variance $v$ the components of $p_t$ are
    $N(a m_k + b, a^2\Sigma_k + v I)$. It is a model like any other, with nothing to learn: its
    samplers, densities and residuals have known answers.
    """

    mixture: GaussianMixture
    process: Process

    @property
    def dim(self) -> int:
        """The dimension of a point."""
        return self.mixture.dim

    def _parameters(self, t: Time):
        means = jax.vmap(lambda m: self.process.transition(t, m)[0])(self.mixture.means)
        variance = transition_variance(self.process, jnp.asarray(t, self.mixture.means.dtype))
        variances = mean_scale(self.process, t) ** 2 * self.mixture.variances + variance
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


class Circles(eqx.Module):
    r"""Noisy circles about the origin: a radius $\rho \sim N(r_i, \text{width}^2)$, any angle.

    **Arguments:**

    - `radii`: $r_i$, equally likely.
    - `width`: the standard deviation of the radius.
    """

    radii: tuple[float, ...] = (1.3, 2.8)
    width: float = 0.2
    dim: int = eqx.field(default=2, init=False)

    def __check_init__(self):
        if not (len(self.radii) and min(self.radii) > 0 and self.width > 0):
            raise ValueError(f"`radii` and `width` must be positive, got {self}.")

    def sample(self, key: PRNGKey, n: int) -> Float[Array, "n 2"]:
        """`n` independent points."""
        key_circle, key_width, key_angle = jr.split(key, 3)
        circle = jnp.asarray(self.radii)[jr.randint(key_circle, (n,), 0, len(self.radii))]
        radius = circle + self.width * jr.normal(key_width, (n,))
        angle = jr.uniform(key_angle, (n,), maxval=2 * jnp.pi)
        return radius[:, None] * jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=1)

    def log_prob(self, x: Point) -> Scalar:
        """The log-density at one point, in nats; it is infinite at the origin."""
        radius = jnp.linalg.norm(x)
        circles = jnp.asarray(self.radii)
        # A draw with a negative radius lands on the opposite side, hence both signs.
        z = (jnp.stack([radius - circles, radius + circles]) / self.width).ravel()
        log_radial = jax.nn.logsumexp(-(z**2) / 2) - jnp.log(
            len(self.radii) * self.width * jnp.sqrt(2 * jnp.pi)
        )
        return log_radial - jnp.log(2 * jnp.pi * radius)

    def cell_probabilities(self, window: Window) -> GridDensity:
        """The probabilities of the cells by Gauss--Legendre quadrature."""
        check_dim(window, self.dim)
        return _quadrature(self.log_prob, window)


class Checkerboard(eqx.Module):
    """The uniform law on every other square of a board of 4 x 4.

    **Arguments:**

    - `half_width`: the board covers `[-half_width, half_width]` in both directions.
    """

    half_width: float = 3.0
    dim: int = eqx.field(default=2, init=False)

    def __check_init__(self):
        if not self.half_width > 0:
            raise ValueError(f"`half_width` must be positive, got {self.half_width}.")

    def _corners(self) -> np.ndarray:
        squares = [(i, j) for i in range(4) for j in range(4) if (i + j) % 2 == 0]
        return (np.array(squares) / 2 - 1) * self.half_width

    def sample(self, key: PRNGKey, n: int) -> Float[Array, "n 2"]:
        """`n` independent points."""
        key_square, key_place = jr.split(key)
        square = jr.randint(key_square, (n,), 0, 8)
        place = jr.uniform(key_place, (n, 2), maxval=self.half_width / 2)
        return jnp.asarray(self._corners(), place.dtype)[square] + place

    def log_prob(self, x: Point) -> Scalar:
        """The log-density at one point, in nats; minus infinity off the board."""
        corners = jnp.asarray(self._corners(), x.dtype)
        inside = ((x >= corners) & (x < corners + self.half_width / 2)).all(-1).any()
        return jnp.where(inside, -jnp.log(2.0 * self.half_width**2), -jnp.inf)

    def cell_probabilities(self, window: Window) -> GridDensity:
        """The exact probabilities of the cells: overlaps of squares with squares."""
        check_dim(window, self.dim)
        side = self.half_width / 2
        relative = (window.edges()[:, None, None] - self._corners()) / side
        overlap = np.diff(np.clip(relative, 0, 1), axis=0)
        mass = np.einsum("ik,jk->ij", overlap[..., 0], overlap[..., 1]) / 8
        return _as_density(mass, 1e-15, window)


class Points(eqx.Module):
    """The empirical law of given points: every draw is one of them.

    **Arguments:**

    - `points`: an array of shape `(n, dim)`.

    **Raises:** `ValueError` when the array has another shape, is empty, holds NaN or Inf, or is
    constant in a coordinate.
    """

    points: Float[Array, "n dim"]

    def __init__(self, points: ArrayLike):
        x = np.asarray(points)
        if x.ndim != 2:
            raise ValueError(
                f"data must have shape (n, dim), one point a row, got {x.shape}; "
                "reshape a single coordinate with `data[:, None]`."
            )
        if x.size == 0:
            raise ValueError(f"data is empty: it has shape {x.shape}; give at least two points.")
        if not (np.issubdtype(x.dtype, np.floating) or np.issubdtype(x.dtype, np.integer)):
            raise ValueError(f"data must hold real numbers, got dtype {x.dtype}.")
        bad = ~np.isfinite(x)
        if bad.any():
            kind = "NaN" if np.isnan(x).any() else "Inf"
            raise ValueError(
                f"data holds {kind} in {bad.any(1).sum()} of {len(x)} rows, first in row "
                f"{int(bad.any(1).argmax())}; drop those rows."
            )
        constant = np.ptp(x, axis=0) == 0
        if constant.any():
            column = int(constant.argmax())
            raise ValueError(
                f"data is constant in column {column} (every value is {x[0, column]}), so it has "
                "no density; drop the column."
            )
        self.points = jnp.asarray(x, jnp.result_type(float))

    @property
    def dim(self) -> int:
        """The dimension of a point."""
        return self.points.shape[1]

    def sample(self, key: PRNGKey, n: int) -> Float[Array, "n dim"]:
        """`n` draws with replacement."""
        return self.points[jr.randint(key, (n,), 0, self.points.shape[0])]

    def cell_probabilities(self, window: Window) -> GridDensity:
        """The histogram of the points; its error is that of counting them."""
        return histogram_density(
            count_in_cells(np.asarray(self.points), window), len(self.points), window
        )


def check_dim(window: Window, dim: int) -> None:
    """Refuses a window of another dimension than a law's."""
    if window.dim != dim:
        raise ValueError(
            f"the window has dimension {window.dim} and the law dimension {dim}; windows exist in "
            "dimension 1 and 2: `Window(dim=...)`."
        )


def count_in_cells(x: np.ndarray, window: Window) -> np.ndarray:
    """How many of the points, shape `(n, dim)`, lie in each cell; those beyond are left out."""
    check_dim(window, x.shape[1])
    cell = np.floor((x - window.edges()[0]) / window.cell_width).astype(int)
    cell = cell[((cell >= 0) & (cell < window.nodes)).all(1)]
    flat = np.ravel_multi_index(tuple(cell.T), window.shape)
    return np.bincount(flat, minlength=window.nodes**window.dim).reshape(window.shape).astype(float)


def histogram_density(counts: np.ndarray, total: float, window: Window) -> GridDensity:
    r"""A histogram as a density; `error` is its expected total variation, $\tfrac12\sum_i
    \sqrt{2 p_i(1-p_i)/\pi n}$."""
    inside = counts.sum()
    if inside == 0:
        raise ValueError(f"none of {int(total)} points lies in {window}; choose another window.")
    p = counts / inside
    error = float(np.sqrt(2 * p * (1 - p) / (np.pi * inside)).sum() / 2)
    return GridDensity(p, float(1 - inside / total), error, window)


def as_data(data: DataLaw | ArrayLike) -> DataLaw:
    """The law behind `data`: itself where it has `sample(key, n)`, else its points.

    **Raises:** `ValueError` when an array is no set of points, or `sample` returns other shapes.
    """
    if not hasattr(data, "sample"):
        return Points(data)  # pyright: ignore[reportArgumentType]
    shape = eqx.filter_eval_shape(data.sample, jr.key(0), 3).shape  # pyright: ignore
    if len(shape) != 2 or shape[0] != 3:
        raise ValueError(f"`data.sample(key, n)` must return shape (n, dim), got {shape} at n = 3.")
    return data  # pyright: ignore[reportReturnType]


def _as_density(mass: np.ndarray, error: float, window: Window) -> GridDensity:
    inside = mass.sum()
    return GridDensity(mass / inside, float(max(1 - inside, 0.0)), error, window)


def _quadrature(log_prob: Callable[[Point], Scalar], window: Window) -> GridDensity:
    """Cell integrals by Gauss--Legendre of two orders; their difference is the error."""

    def integrate(order: int) -> np.ndarray:
        nodes, weights = np.polynomial.legendre.leggauss(order)
        edges = window.edges()
        axis = (edges[:-1, None] + window.cell_width * (nodes + 1) / 2).ravel()
        with jax.enable_x64(True):
            grid = jnp.stack(jnp.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
            density = np.asarray(jnp.exp(jax.jit(jax.vmap(log_prob))(grid)))
        blocks = density.reshape(window.nodes, order, window.nodes, order)
        return np.einsum("iajb,a,b->ij", blocks, weights, weights) * (window.cell_width / 2) ** 2

    mass = integrate(8)
    return _as_density(mass, float(np.abs(mass - integrate(6)).sum() / 2), window)


def gaussian_mixture() -> GaussianMixture:
    """The paper's mixture: nine equal components of variance 0.0845 on a lattice of diamonds."""
    means = [(1.3, 1.3), (1.3, -1.3), (-1.3, 1.3), (-1.3, -1.3), (0, 0)]
    means += [(2.6, 0), (-2.6, 0), (0, 2.6), (0, -2.6)]
    return GaussianMixture(means, 0.2 * 0.65**2)


def circles() -> Circles:
    """The paper's circles: radii 1.3 and 2.8, each 0.2 wide, half the mass on each."""
    return Circles()


def checkerboard() -> Checkerboard:
    """The paper's checkerboard: uniform on eight squares of side 1.5 in `[-3, 3]^2`."""
    return Checkerboard()
