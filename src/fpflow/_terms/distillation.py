"""A network that learns another model's score."""

from typing import Any

import jax.numpy as jnp

from .._blocks import block_mean
from .._noising import Noised
from .._process import AbstractProcess
from .._types import PRNGKey, Scalar
from .base import AbstractTerm, Weight, at_points
from .weighting import Weighting, noise_weighting


class Distillation(AbstractTerm):
    r"""$L = E\,\lambda(t)\,\|s(t, x_t) - s_\text{teacher}(t, x_t)\|^2$ over noised data, averaged over
    time.

    Unlike score matching this loss has no noise of its own: it is zero if the scores agree.

    **Arguments:**

    - `teacher`: a model with `score(t, x)`; it is not differentiated.
    - `weight`: the weight of this term in the loss: a number, or a function of the step.
    - `weighting`: $\lambda$, a function `(process, t)`; `noise_weighting` by default.

    ??? cite "Reference"
        Thornton et al., *Composition and control with distilled energy diffusion models and sequential
        Monte Carlo*, AISTATS 2025, arXiv 2502.12786.
    """

    teacher: Any
    weight: Weight = 1.0
    weighting: Weighting = noise_weighting

    def __call__(
        self, model: Any, process: AbstractProcess, noised: Noised, *, key: PRNGKey
    ) -> Scalar:
        del key

        def miss(m, t, x):
            apart = m.score(t, x) - jnp.asarray(self.teacher.score(t, x), x.dtype)
            return self.weighting(process, t) * jnp.sum(apart**2)

        def terms(model, rows):
            return rows.weight * at_points(miss, model, rows.t, rows.x, condition=rows.condition)

        return block_mean(terms, model, noised, size=4096)
