"""What a score is besides a gradient."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import scipy

from .._model import model_dtype
from .._noising import noised_at
from .._process import AbstractProcess, graded_times
from .._shown import shown_fields
from .._types import DataLaw, PRNGKey, ScoreModel
from .._window import GridDensity, product_grid


@dataclasses.dataclass(frozen=True)
class CurlProfile:
    r"""The antisymmetric part of the score's Jacobian under $p_t$.

    **Attributes:**

    - `times`: shape `(times,)`.
    - `rms`: $(E\sum_{i<j}(\partial_i s_j - \partial_j s_i)^2)^{1/2}$ at each; zero for a gradient.
    - `error`: the standard error of `rms`.
    - `relative`: `rms` over the root mean square of the whole Jacobian.
    """

    times: np.ndarray
    rms: np.ndarray
    error: np.ndarray
    relative: np.ndarray

    __repr__ = shown_fields


@eqx.filter_jit
def _jacobian_squares(model, process, data, times, num_points, key):
    def at_time(t, key):
        key_data, key_noise = jr.split(key)
        x0 = data.sample(key_data, num_points).astype(times.dtype)
        x = noised_at(process, t, x0, key_noise)
        jacobian = jax.vmap(jax.jacfwd(lambda x: model.score(t, x)))(x)
        skew = jacobian - jnp.swapaxes(jacobian, 1, 2)
        square = jnp.sum(skew**2, (1, 2)) / 2
        spread = square.std(ddof=1) / num_points**0.5
        return square.mean(), spread, jnp.sum(jacobian**2) / num_points

    return jax.lax.map(lambda row: at_time(*row), (times, jr.split(key, len(times))))


def curl_profile(
    model: ScoreModel,
    process: AbstractProcess,
    data: DataLaw,
    *,
    num_points: int = 512,
    key: PRNGKey,
) -> CurlProfile:
    """The curl at nine times from t0 on, graded."""
    times = graded_times(process, 8)[::-1].copy()
    columns = _jacobian_squares(
        model, process, data, jnp.asarray(times, model_dtype(model)), num_points, key
    )
    skew, spread, whole = (np.asarray(column, float) for column in columns)
    rms = np.sqrt(skew)
    error = spread / np.maximum(2 * rms, 1e-300)
    return CurlProfile(times, rms, error, rms / np.sqrt(np.maximum(whole, 1e-300)))


@eqx.filter_jit
def _scores(model, t, x):
    return jax.lax.map(lambda x: model.score(t, x), x, batch_size=min(4096, len(x)))


def gradient_share(model: ScoreModel, process: AbstractProcess, law: GridDensity) -> float:
    r"""The share of $E\|s(t_0, x)\|^2$ under a law on a plane window that is no gradient.

    The nearest gradient is that of the $\phi$ with $\nabla\cdot(p(\nabla\phi - s)) = 0$, found on the
    faces between cells. For a gradient the result is the error of the differences, of second order in
    the cell width.
    """
    window = law.window
    dtype = model_dtype(model)
    n, width, centres = window.nodes, window.cell_width, window.centres()
    index = np.arange(n * n).reshape(n, n)
    faces, fields, weights = [], [], []
    for axis in range(2):
        i = np.delete(index, -1, axis).ravel()
        j = np.delete(index, 0, axis).ravel()
        shift = np.eye(2)[axis] * width / 2
        middle = jnp.asarray(product_grid(centres, 2)[i] + shift, dtype)
        t0 = jnp.asarray(process.t0, dtype)
        score = _scores(model, t0, middle)
        faces.append(np.stack([i, j]))
        fields.append(np.asarray(score, float)[:, axis])
        weights.append((law.mass.ravel()[i] + law.mass.ravel()[j]) / 2)
    (i, j), s, p = np.concatenate(faces, 1), np.concatenate(fields), np.concatenate(weights)
    keep = p > 1e-9
    i, j, s, p = i[keep], j[keep], s[keep], p[keep]
    rows = np.arange(len(s))
    data = np.concatenate([np.ones(len(s)), -np.ones(len(s))]) / width
    gradient = scipy.sparse.coo_matrix(
        (data, (np.tile(rows, 2), np.concatenate([j, i]))), shape=(len(s), n * n)
    ).tocsr()
    root = scipy.sparse.diags(np.sqrt(p))
    phi = scipy.sparse.linalg.lsqr(
        root @ gradient, np.sqrt(p) * s, atol=1e-8, btol=1e-8, iter_lim=4000
    )[0]
    return float((p * (gradient @ phi - s) ** 2).sum() / max((p * s**2).sum(), 1e-300))
