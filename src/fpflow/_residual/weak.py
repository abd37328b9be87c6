"""The residual against test functions, without second derivatives."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float

from .._calculus import divergence
from .._process import AbstractProcess
from .._shown import shown_fields
from .._types import DataLaw, PotentialModel, PRNGKey, Time


class WeakResidual(eqx.Module):
    r"""$E_{p_t}[\varphi_j r]$ for each test function.

    **Attributes:**

    - `value`: shape `(features,)`; zero for an exact potential.
    - `standard_error`: shape `(features,)`.
    """

    value: Float[Array, " features"]
    standard_error: Float[Array, " features"]

    __repr__ = shown_fields


class WeakForm(eqx.Module):
    r"""The residual under $p_t$, tested against $\varphi_j(x) = \sqrt2\cos(\omega_j\cdot x + b_j)$.

    Integration by parts moves the Laplacian onto the test function and the data distribution, whose
    score is replaced by that of the transition, $k = -z/\sigma$:

    $$E[\varphi r] = E\bigl[\varphi(\partial_t u + \nabla\cdot f + f\cdot\nabla u
    - \tfrac12 g^2\|\nabla u\|^2) + \tfrac12 g^2(\nabla\varphi\cdot\nabla u
    + \varphi\,k\cdot\nabla u)\bigr].$$

    **Arguments:**

    - `num_features`: number of test functions, with $\omega_j \sim N(0, I/\text{length}^2)$.
    - `length`: the length scale over which they vary, in units of $x$.
    """

    num_features: int = 16
    length: float = 1.0

    def __check_init__(self):
        if self.num_features < 1 or not self.length > 0:
            raise ValueError(f"`num_features` and `length` must be positive, got {self}.")

    @eqx.filter_jit
    def __call__(
        self,
        model: PotentialModel,
        process: AbstractProcess,
        data: DataLaw,
        t: Time,
        *,
        num_points: int = 8192,
        key: PRNGKey,
    ) -> WeakResidual:
        r"""The residual at time $t > t_0$ against each test function.

        **Arguments:**

        - `model`: has `potential(t, x)`; only its first derivatives are taken.
        - `process`, `data`: as for `train`; `data` must have `sample(key, n)`.
        - `num_points`: noised points.
        - `key`: a `jax.random.key`.

        **Returns:** a `WeakResidual`.
        """
        key_data, key_noise, key_frequency, key_phase = jr.split(key, 4)
        x0 = data.sample(key_data, num_points)
        t = jnp.asarray(t, x0.dtype)
        mean, std = jax.vmap(process.transition, (None, 0))(t, x0)
        noise = jr.normal(key_noise, x0.shape, x0.dtype)
        frequency = jr.normal(key_frequency, (self.num_features, x0.shape[1])) / self.length
        phase = jr.uniform(key_phase, (self.num_features,), maxval=2 * jnp.pi)
        half_g2 = process.diffusion(t) ** 2 / 2

        def tested(x, std, noise):
            angle = frequency @ x + phase
            test, slope = 2**0.5 * jnp.cos(angle), -(2**0.5) * jnp.sin(angle)
            _, motion = jax.jvp(lambda t: model.potential(t, x), (t,), (jnp.ones_like(t),))
            score, drift = model.score(t, x), process.drift(t, x)
            spread_drift = divergence(lambda x: process.drift(t, x), x)
            strong = motion + spread_drift + drift @ score - half_g2 * score @ score
            across = slope * (frequency @ score) - test * (noise @ score) / std
            return test * strong + half_g2 * across

        values = jax.vmap(tested)(mean + std[:, None] * noise, std, noise)
        return WeakResidual(values.mean(0), values.std(0, ddof=1) / num_points**0.5)
