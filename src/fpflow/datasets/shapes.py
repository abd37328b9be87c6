"""Two shapes of the plane: circles and a checkerboard."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float

from .._types import Point, PRNGKey, Scalar
from .._window import GridDensity, Window
from .cells import as_density, check_dim, quadrature


class Circles(eqx.Module):
    r"""Noisy circles around the origin: the radius is $\rho \sim N(r_i, \text{width}^2)$, the angle
    uniform.

    **Arguments:**

    - `radii`: $r_i$, all equally likely.
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
        """The log density at one point, in nats; infinite at the origin."""
        radius = jnp.linalg.norm(x)
        circles = jnp.asarray(self.radii)
        # A draw with a negative radius lands on the opposite side, hence both signs.
        z = (jnp.stack([radius - circles, radius + circles]) / self.width).ravel()
        log_radial = jax.nn.logsumexp(-(z**2) / 2) - jnp.log(
            len(self.radii) * self.width * jnp.sqrt(2 * jnp.pi)
        )
        return log_radial - jnp.log(2 * jnp.pi * radius)

    def cell_probabilities(self, window: Window) -> GridDensity:
        """The probabilities of the cells, by Gauss--Legendre quadrature."""
        check_dim(window, self.dim)
        return quadrature(self.log_prob, window)


class Checkerboard(eqx.Module):
    """The uniform distribution on every other square of a 4 x 4 board.

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
        """The log density at one point, in nats; minus infinity off the board."""
        corners = jnp.asarray(self._corners(), x.dtype)
        inside = ((x >= corners) & (x < corners + self.half_width / 2)).all(-1).any()
        return jnp.where(inside, -jnp.log(2.0 * self.half_width**2), -jnp.inf)

    def cell_probabilities(self, window: Window) -> GridDensity:
        """The exact probabilities of the cells, from the overlaps of squares."""
        check_dim(window, self.dim)
        side = self.half_width / 2
        relative = (window.edges()[:, None, None] - self._corners()) / side
        overlap = np.diff(np.clip(relative, 0, 1), axis=0)
        mass = np.einsum("ik,jk->ij", overlap[..., 0], overlap[..., 1]) / 8
        return as_density(mass, 1e-15, window)


def circles() -> Circles:
    """The paper's circles, with radii 1.3 and 2.8, width 0.2 and half of the mass on each."""
    return Circles()


def checkerboard() -> Checkerboard:
    """The paper's checkerboard: uniform on eight squares of side 1.5 in `[-3, 3]^2`."""
    return Checkerboard()
