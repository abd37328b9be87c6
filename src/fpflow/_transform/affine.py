r"""Shift and scale: a column by itself, or all together."""

from typing import Any

import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Float

from .._types import ArrayLike, DataLaw, Point, Scalar
from ..datasets import Points, as_data, draw
from .base import AbstractTransform

# Draws of a law by which its mean and width are known to a hundredth.
_DRAWS = 16384


class Standardise(AbstractTransform):
    r"""$y_i = (x_i - m_i) / c_i$ with the mean $m$ and the standard deviation $c$ of each column.

    **Arguments:**

    - `shift`: $m$, shape `(dim,)`, in units of the data.
    - `scale`: $c$, shape `(dim,)`, in units of the data.

    **Raises:** `ValueError` if the two do not fit or a scale is not positive.

    **Example:**

    ```python
    data = jax.random.normal(jax.random.key(0), (500, 2)) * jnp.array([1.0, 300.0])
    network = fpflow.PotentialMLP(dim=2, key=jax.random.key(1))
    model = fpflow.Transformed(network, fpflow.Standardise.of(data))
    ```
    """

    shift: Float[Array, " dim"]
    scale: Float[Array, " dim"]

    def __init__(self, shift: ArrayLike, scale: ArrayLike):
        m, c = (np.atleast_1d(np.asarray(part, float)) for part in (shift, scale))
        if m.ndim != 1 or m.shape != c.shape:
            raise ValueError(
                f"`shift` and `scale` must have the same shape, (dim,), got {m.shape} and {c.shape}."
            )
        if not (np.isfinite(m).all() and np.isfinite(c).all() and (c > 0).all()):
            raise ValueError(f"`scale` must be finite and positive, `shift` finite, got {c}, {m}.")
        self.shift, self.scale = (jnp.asarray(part, jnp.result_type(float)) for part in (m, c))

    @classmethod
    def of(cls, data: DataLaw | ArrayLike) -> "Standardise":
        """Uses the mean and the standard deviation of each column of data, which are points or a
        distribution from which 16,384 are drawn.

        A constant column keeps its width.
        """
        x = points_of(data)
        scale = x.std(0)
        return cls(x.mean(0), np.where(scale > 0, scale, 1.0))

    def forward(self, x: Point) -> Point:
        """$(x - m) / c$."""
        return (x - self.shift) / self.scale

    def inverse(self, y: Point) -> Point:
        """$m + c y$."""
        return self.shift + self.scale * y

    def log_det(self, x: Point) -> Scalar:
        r"""$-\sum_i \log c_i$."""
        del x
        return -jnp.log(self.scale).sum()

    def check(self, x: Float[Array, "n dim"]) -> None:
        """Accepts every point of the right dimension, since all of them have an image."""
        check_columns(x, len(self.shift))


class Whiten(AbstractTransform):
    r"""$y = L^{-1}(x - m)$ with the mean $m$ and the covariance $LL^\top$ of the data.

    **Arguments:**

    - `shift`: $m$, shape `(dim,)`, in units of the data.
    - `factor`: $L$, lower triangular, shape `(dim, dim)`, in units of the data.

    **Raises:** `ValueError` if the two do not fit, or $L$ is not lower triangular with a positive
    diagonal.

    **Example:**

    ```python
    data = jax.random.normal(jax.random.key(0), (500, 2)) @ jnp.array([[1.0, 0.9], [0.0, 0.1]])
    whiten = fpflow.Whiten.of(data)
    y = jax.vmap(whiten.forward)(data)
    ```
    """

    shift: Float[Array, " dim"]
    factor: Float[Array, "dim dim"]

    def __init__(self, shift: ArrayLike, factor: ArrayLike):
        m, lower = np.asarray(shift, float), np.asarray(factor, float)
        if m.ndim != 1 or lower.shape != (*m.shape, *m.shape):
            raise ValueError(
                f"`factor` must have shape ({m.size}, {m.size}) for a `shift` of shape {m.shape}, got "
                f"{lower.shape}."
            )
        if not (np.isfinite(lower).all() and (np.diag(lower) > 0).all()):
            raise ValueError("`factor` must be finite with a positive diagonal.")
        if np.triu(lower, 1).any():
            raise ValueError("`factor` must be lower triangular; use `numpy.linalg.cholesky`.")
        self.shift, self.factor = (jnp.asarray(part, jnp.result_type(float)) for part in (m, lower))

    @classmethod
    def of(cls, data: DataLaw | ArrayLike) -> "Whiten":
        """Uses the mean and the covariance of data.

        **Raises:** `ValueError` if the data lie in a plane of fewer dimensions.
        """
        x = points_of(data)
        covariance = np.atleast_2d(np.cov(x.T))
        width = np.sqrt(np.diag(covariance))
        # In units of the widths: what is degenerate does not hang on them.
        values = np.linalg.eigvalsh(covariance / np.outer(width, width)) if width.all() else [0.0]
        if not values[0] > 1e-6:
            raise ValueError(
                "the columns of the data are linearly dependent, so it has no density in that many "
                "dimensions: drop columns, or use `fpflow.Standardise.of(data)`."
            )
        return cls(x.mean(0), np.linalg.cholesky(covariance))

    def forward(self, x: Point) -> Point:
        """$L^{-1}(x - m)$."""
        return solve_triangular(self.factor, x - self.shift, lower=True)

    def inverse(self, y: Point) -> Point:
        """$m + L y$."""
        return self.shift + self.factor @ y

    def log_det(self, x: Point) -> Scalar:
        r"""$-\sum_i \log L_{ii}$."""
        del x
        return -jnp.log(jnp.diag(self.factor)).sum()

    def check(self, x: Float[Array, "n dim"]) -> None:
        """Accepts every point of the right dimension, since all of them have an image."""
        check_columns(x, len(self.shift))


def points_of(data: Any) -> np.ndarray:
    """All points of a set, draws of another law, in double precision."""
    law = as_data(data)
    x = law.points if isinstance(law, Points) else draw(law, jr.key(0), _DRAWS)[0]
    return np.asarray(x, float)


def check_columns(x: Any, dim: int) -> None:
    """Refuses points of another dimension than a transform."""
    if np.shape(x)[-1] != dim:
        raise ValueError(f"the transform is for {dim} columns, the points have {np.shape(x)[-1]}.")
