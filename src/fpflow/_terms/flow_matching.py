"""Flow matching."""

from typing import Any

import jax
import jax.numpy as jnp

from .._blocks import block_mean
from .._dynamics import flow_velocity
from .._noising import Noised
from .._process import AbstractProcess
from .._types import PRNGKey, Scalar
from .base import AbstractTerm, Weight, at_points


class FlowMatching(AbstractTerm):
    r"""$E\,\|v(t, x_t) - (\alpha' x_0 + \sigma' z)\|^2$ with the velocity $v = f - \tfrac12 g^2 s$,
    averaged over time.

    To train a network that predicts the velocity itself, turn it into a model with `from_velocity`.

    **Arguments:**

    - `weight`: the weight of this term in the loss: a number, or a function of the step.

    ??? cite "Reference"
        Lipman et al., *Flow matching for generative modeling*, ICLR 2023, arXiv 2210.02747.
    """

    weight: Weight = 1.0

    def __call__(
        self, model: Any, process: AbstractProcess, noised: Noised, *, key: PRNGKey
    ) -> Scalar:
        del key

        def target(t, x0, z):
            one = jnp.ones_like(t)
            (_, d_alpha), (_, d_sigma) = (
                jax.jvp(part, (t,), (one,)) for part in (process.alpha, process.sigma)
            )
            return d_alpha * x0 + d_sigma * z

        def velocity(m, t, x):
            return flow_velocity(m, process, t, x)

        def terms(model, rows):
            v = at_points(velocity, model, rows.t, rows.x, condition=rows.condition)
            error = v - jax.vmap(target)(rows.t, rows.x0, rows.noise)
            return rows.weight * jnp.sum(error**2, axis=1)

        return block_mean(terms, model, noised, size=4096)
