"""What fpflow is measured against: samplers written by hand and as diffrax documents them."""

from collections.abc import Callable

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr

import fpflow


class Automatic(eqx.Module):
    """The same network, its score by `jax.grad` of one point."""

    network: fpflow.PotentialMLP

    def score(self, t, x):
        """By reverse differentiation."""
        return jax.grad(lambda x: self.network.potential(t, x))(x)


def diffrax_sampler(model, num_samples: int, num_steps: int) -> Callable[[], jax.Array]:
    """The probability-flow ODE as diffrax's documentation has it: one solve a sample, mapped."""
    process = fpflow.OrnsteinUhlenbeck()

    @eqx.filter_jit
    def sample(model, key):
        def one(key):
            term = diffrax.ODETerm(lambda t, x, _: -x - model.score(t, x) / 2)
            solution = diffrax.diffeqsolve(
                term, diffrax.Euler(), process.t1, process.t0, -process.t1 / num_steps,
                process.prior.sample(key, (2,)), adjoint=diffrax.ForwardMode(),
            )  # fmt: skip
            return solution.ys[-1]  # pyright: ignore

        return jax.vmap(one)(jr.split(key, num_samples))

    return lambda: jax.block_until_ready(sample(model, jr.key(0)))


def scan_sampler(model, num_samples: int, num_steps: int, law: str) -> Callable[[], jax.Array]:
    """A loop by hand: `lax.scan` over Euler steps of all samples, keys folded by step."""
    process = fpflow.OrnsteinUhlenbeck()
    times = jnp.asarray(process.t1 * (1 - jnp.linspace(0, 1, num_steps + 1)) ** 3)

    @eqx.filter_jit
    def sample(model, key):
        x = process.prior.sample(key, (num_samples, 2))

        def step(x, row):
            t, now, index = row
            h, score = t - now, model.score(t, x)
            if law == "ode":
                return x + h * (x + score / 2), None
            noise = jr.normal(jr.fold_in(key, index), x.shape)
            return x + h * (x + score) + jnp.sqrt(h) * noise, None

        return jax.lax.scan(step, x, (times[:-1], times[1:], jnp.arange(num_steps)))[0]

    return lambda: jax.block_until_ready(sample(model, jr.key(0)))
