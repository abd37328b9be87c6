"""Denoising score matching."""

from typing import Any

import jax
import jax.numpy as jnp

from .._blocks import block_mean
from .._noising import Noised
from .._process import AbstractProcess
from .._types import PRNGKey, Scalar
from .base import AbstractTerm, Weight, at_points
from .weighting import Weighting, likelihood_weighting


class DenoisingScoreMatching(AbstractTerm):
    r"""$L = c\,E\,\lambda(t)\,\|s(t, x_t) - \nabla\log p(x_t \mid x_0)\|^2$, averaged over time.

    What the network predicts is up to the model: `from_noise_prediction` and related functions make
    scores of other predictions, and training differentiates through them. The error of such a prediction
    is a multiple of the error of the score, so to weight by it is a choice of $\lambda$.

    **Arguments:**

    - `weight`: the weight of this term in the loss: a number, or a function of the step.
    - `weighting`: $\lambda$, a function `(process, t)`: `likelihood_weighting`, `no_weighting`,
      `noise_weighting`, `data_weighting`, `v_weighting`, `SNRWeighting()`, `EDMWeighting()`.
    - `factor`: $c$; one half makes $L$ the loss of the published code in dimension two.

    ??? cite "Reference"
        Vincent, *A connection between score matching and denoising autoencoders*, Neural Comput. 23
        (2011) 1661; Song et al., ICLR 2021, arXiv 2011.13456.
    """

    weight: Weight = 1.0
    weighting: Weighting = likelihood_weighting
    factor: float = 0.5

    def __call__(
        self, model: Any, process: AbstractProcess, noised: Noised, *, key: PRNGKey
    ) -> Scalar:
        del key
        weighting = jax.vmap(lambda t: self.weighting(process, t))

        def terms(model, rows):
            score = at_points(
                lambda m, t, x: m.score(t, x), model, rows.t, rows.x, condition=rows.condition
            )
            square = jnp.sum((rows.std[:, None] * score + rows.noise) ** 2, axis=1)
            return rows.weight * weighting(rows.t) / rows.std**2 * square

        return self.factor * block_mean(terms, model, noised, size=4096)
