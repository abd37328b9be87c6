r"""Where the Kullback--Leibler divergences of both laws come from."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from .._likelihood import flow_score
from .._metrics import Estimate
from .._model import check_counts, check_score
from .._noising import moved
from .._process import AbstractProcess
from .._shown import shown_fields
from .._types import PRNGKey, ScoreModel


@dataclasses.dataclass(frozen=True)
class KLAccount:
    r"""The terms of both decompositions, in nats, each with its standard error.

    $$KL(p_0\|p_\text{SDE}) \le KL(p_T\|\pi) + \tfrac12\int g^2 E\|\nabla\log p - s\|^2 dt,$$
    $$KL(p_0\|p_\text{ODE}) = KL(p_T\|\pi) + \tfrac12\int g^2 E\|\nabla\log p - s\|^2 dt
    + \tfrac12\int g^2 E(\nabla\log p - s)\cdot(s - \nabla\log p_\text{ODE})\,dt.$$

    **Attributes:**

    - `prior`: $KL(p_T\|\pi)$.
    - `score_matching`: the second term of both.
    - `difference`: the third term of the equality; it can have either sign.
    - `bound_sde`: the right side of the inequality.
    - `kl_ode`: the right side of the equality.
    """

    prior: Estimate
    score_matching: Estimate
    difference: Estimate
    bound_sde: Estimate
    kl_ode: Estimate

    __repr__ = shown_fields


@eqx.filter_jit
def _terms(model, process, data, marginal, num_points, num_steps, key):
    """Per point: log p_T - log pi, and the integrands of both integrals with their weights."""
    key_data, key_time, key_order, key_noise, key_end = jr.split(key, 5)
    x0 = data.sample(key_data, num_points)
    # Graded, because the score's error grows towards t0.
    v = (jnp.arange(num_points) + jr.uniform(key_time, (num_points,))) / num_points
    t, weight = jax.vmap(lambda v: jax.jvp(process.graded_time, (v,), (jnp.ones_like(v),)))(v)
    t = t.astype(x0.dtype)

    def at_point(t, weight, x0, z, z_end):
        x = moved(process, t, x0, z)
        score, flow = model.score(t, x), flow_score(model, process, t, x, num_steps)
        error = marginal.score(t, x) - score
        half_g2 = process.diffusion(t) ** 2 / 2
        end = moved(process, jnp.asarray(process.t1, x0.dtype), x0, z_end)
        prior = marginal.potential(process.t1, end) - process.prior.log_prob(end)
        return prior, weight * half_g2 * error @ error, weight * half_g2 * error @ (score - flow)

    noise, end_noise = (jr.normal(k, x0.shape, x0.dtype) for k in (key_noise, key_end))
    shuffled = jr.permutation(key_order, num_points)  # so that times and data are independent
    rows = (t[shuffled], weight[shuffled], x0, noise, end_noise)
    return jax.lax.map(lambda row: at_point(*row), rows, batch_size=min(num_points, 2048))


def kl_account(
    model: ScoreModel,
    process: AbstractProcess,
    data,
    *,
    num_points: int = 2048,
    num_steps: int = 40,
    key: PRNGKey,
) -> KLAccount:
    r"""The bound on $KL(p_0\|p_\text{SDE})$ and both terms of the equality for $KL(p_0\|p_\text{ODE})$.

    This needs the exact score of the data's marginals, which `data` provides as `marginal(process)`, as
    `GaussianMixture` does. $\nabla\log p_\text{ODE}$ at $(t, x)$ is the gradient of the log density of
    the flow from $t$ to $t_1$.

    **Arguments:**

    - `model`: has `score(t, x)`.
    - `process`: gives $f$, $g$, the transition and the prior.
    - `data`: has `sample(key, n)` and `marginal(process)` with `score` and `potential`.
    - `num_points`: number of points $(t, x_t)$, one per stratum of time.
    - `num_steps`: number of steps of the flow from each point.
    - `key`: a `jax.random.key`.

    **Returns:** a `KLAccount`.

    **Raises:** `ValueError` if `data` has no exact marginals or the score does not fit.

    ??? cite "Reference"
        Song et al., *Maximum likelihood training of score-based diffusion models*, NeurIPS 2021, arXiv
        2101.09258; Lu et al., *Maximum likelihood training for score-based diffusion ODEs by high-order
        denoising score matching*, ICML 2022, arXiv 2206.08265.
    """
    check_counts(num_points=num_points, num_steps=num_steps)
    if not callable(getattr(data, "marginal", None)):
        raise ValueError(
            "`data` must offer `marginal(process)`, the exact distribution at every time, as "
            f"`GaussianMixture` does; got {type(data).__name__}."
        )
    check_score(model, process, eqx.filter_eval_shape(data.sample, jr.key(0), 1).shape[1])
    columns = _terms(model, process, data, data.marginal(process), num_points, num_steps, key)
    prior, matching, difference = (np.asarray(column, float) for column in columns)
    if not np.isfinite(matching + difference).all():
        raise FloatingPointError("the score or its flow is not finite at some of the points.")

    def estimate(terms):
        return Estimate(float(terms.mean()), float(terms.std(ddof=1) / len(terms) ** 0.5))

    return KLAccount(
        estimate(prior),
        estimate(matching),
        estimate(difference),
        estimate(prior + matching),
        estimate(prior + matching + difference),
    )
