"""How well a score matches, up to the constant that dwarfs all differences."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from ._model import check_counts, check_has_score, check_key
from ._noising import Noising
from ._process import AbstractProcess
from ._shown import shown_fields
from ._terms import at_points
from ._types import ArrayLike, DataLaw, PRNGKey, ScoreModel
from .datasets import as_data


class ExcessLoss(NamedTuple):
    r"""The part of the score matching loss that depends on the model, with its standard error."""

    value: float
    standard_error: float

    __repr__ = shown_fields


@eqx.filter_jit
def _excess_terms(model, process, data, num_points, key):
    batch = Noising(pairs=False)(process, data, num_points, key=key)
    step = batch.std[:, None] * batch.noise

    def score(x):
        return at_points(
            lambda m, t, x: m.score(t, x), model, batch.t, x, condition=batch.condition
        )

    ahead, behind = score(batch.x), score(batch.x - 2 * step)
    square = (jnp.sum(ahead**2, 1) + jnp.sum(behind**2, 1)) / 2
    cross = jnp.sum((ahead - behind) * batch.noise, axis=1) / batch.std
    return batch.weight * jax.vmap(process.diffusion)(batch.t) ** 2 * (square + cross)


def excess_loss(
    model: ScoreModel,
    process: AbstractProcess,
    data: DataLaw | ArrayLike,
    *,
    reference: ScoreModel | None = None,
    num_points: int = 2**17,
    key: PRNGKey,
) -> ExcessLoss:
    r"""The likelihood-weighted loss up to a constant, $E\,g^2(\|s\|^2 - 2 s\cdot k)$.

    Here $k = \nabla\log p(x_t \mid x_0)$, the mean is over $t$ uniform on $[t_0, t_1]$, and the omitted
    constant, $E g^2\|k\|^2$, is far larger than the differences between models. Noise is taken in pairs
    $\pm z$, which bounds the variance as $t \to t_0$. Most of the standard error is common to all models
    with the same key: to compare two models, give one as the `reference` of the other.

    **Arguments:**

    - `model`: has `score(t, x)`.
    - `process`, `data`: as for `train`.
    - `reference`: a model whose loss is subtracted point by point.
    - `num_points`: number of pairs of noised points.
    - `key`: a `jax.random.key`.

    **Returns:** an `ExcessLoss`.
    """
    data = as_data(data)
    (num_points,) = check_counts(num_points=num_points)
    check_key(key)
    check_has_score(model)
    terms = _excess_terms(model, process, data, num_points, key)
    if reference is not None:
        terms = terms - _excess_terms(reference, process, data, num_points, key)
    return ExcessLoss(float(terms.mean()), float(terms.std(ddof=1) / num_points**0.5))
