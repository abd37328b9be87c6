"""Four particles in the plane whose pairs have two distances to choose from (DW-4), in units of kT.

    python tests/double_well.py tests/networks/double_well.fpflow

draws points by annealing, trains a network on them and writes it; a quarter of an hour on two cores.
"""

import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

import fpflow

PAIRS = np.array([(i, j) for i in range(4) for j in range(i)])
PROCESS = fpflow.OrnsteinUhlenbeck(t1=5.0)
WIDTH = 1.87  # of a coordinate


def distances(x):
    """Of the six pairs, shape `(6,)`."""
    y = x.reshape(4, 2)
    return jnp.sqrt(jnp.sum((y[PAIRS[:, 0]] - y[PAIRS[:, 1]]) ** 2, 1) + 1e-12)


def log_target(x):
    r"""$-\sum_{i<j} (-4 r^2 + 0.9 r^4)/2$ with $r = d_{ij} - 4$, as Köhler, Klein and Noé (ICML 2020,
    arXiv 2006.02425), and a spring on the centre, which is free otherwise."""
    r = distances(x) - 4.0
    return -jnp.sum(-4 * r**2 + 0.9 * r**4) / 2 - 2 * jnp.sum(x.reshape(4, 2).mean(0) ** 2)


def short_pairs(x):
    """How many of the six pairs are in the well of the short distance."""
    return jnp.sum(distances(x) < 4.0)


def annealed(key, num=4000, temperatures=1000, moves=4):
    r"""Points with log weights $\log w$ by annealed importance sampling from a normal law, moved by
    Metropolis-adjusted Langevin steps at each temperature: $E w = Z$ exactly (Neal 2001)."""
    width = 2.0

    def base(x):
        return -jnp.sum(x**2) / (2 * width**2) - 4 * jnp.log(2 * jnp.pi * width**2)

    def at(beta, x):
        return (1 - beta) * base(x) + beta * log_target(x)

    def move(beta, h):
        value = jax.vmap(jax.value_and_grad(lambda x: at(beta, x)))

        def one(carry, key):
            x, accepted = carry
            key_noise, key_choice = jr.split(key)
            u, slope = value(x)
            y = x + h * slope + jnp.sqrt(2 * h) * jr.normal(key_noise, x.shape)
            v, back = value(y)
            there = jnp.sum((y - x - h * slope) ** 2, 1) / (4 * h)
            again = jnp.sum((x - y - h * back) ** 2, 1) / (4 * h)
            taken = jnp.log(jr.uniform(key_choice, u.shape)) < v - u + there - again
            return (jnp.where(taken[:, None], y, x), accepted + taken.mean() / moves), None

        return one

    def step(carry, row):
        x, log_w, h = carry
        cold, warm, key = row
        log_w = log_w + jax.vmap(lambda x: at(warm, x) - at(cold, x))(x)
        (x, accepted), _ = jax.lax.scan(move(warm, h), (x, 0.0), jr.split(key, moves))
        return (x, log_w, h * jnp.exp(0.3 * (accepted - 0.6))), None

    key_start, key = jr.split(key)
    betas = jnp.linspace(0, 1, temperatures + 1) ** 3
    start = (width * jr.normal(key_start, (num, 8)), jnp.zeros(num), jnp.array(0.1))
    rows = (betas[:-1], betas[1:], jr.split(key, temperatures))
    (x, log_w, _), _ = jax.lax.scan(step, start, rows)
    return x, log_w


class Turned(eqx.Module):
    """Given points turned, mirrored and with particles exchanged at random, which the energy does not
    see."""

    points: jax.Array

    def sample(self, key, n):
        key_row, key_turn, key_mirror, key_order = jr.split(key, 4)
        y = self.points[jr.randint(key_row, (n,), 0, len(self.points))].reshape(n, 4, 2)
        angle = 2 * jnp.pi * jr.uniform(key_turn, (n,))
        c, s = jnp.cos(angle), jnp.sin(angle)
        turn = jnp.stack([jnp.stack([c, -s], -1), jnp.stack([s, c], -1)], -2)
        y = jnp.einsum("nij,npj->npi", turn, y)
        mirror = jr.bernoulli(key_mirror, shape=(n, 1, 1))
        y = jnp.where(mirror, jnp.array([-1.0, 1.0]), 1.0) * y
        return jax.vmap(jr.permutation)(jr.split(key_order, n), y).reshape(n, 8)


def main(path):
    """Draws, trains, writes."""
    x, log_w = jax.jit(lambda key: annealed(key, 20_000, 400))(jr.key(5))
    x = x[jr.categorical(jr.key(6), log_w, shape=(20_000,))].astype(jnp.float32)
    layers = fpflow.PotentialMLP(8, width=160, prior=fpflow.IsotropicGaussian(), key=jr.key(0))
    model = fpflow.in_frame(layers, PROCESS, scale=WIDTH)
    found = fpflow.train(
        model, PROCESS, Turned(x), num_steps=16_000, batch_size=1024, key=jr.key(1)
    )
    fpflow.save(path, found.model, PROCESS)


if __name__ == "__main__":
    main(sys.argv[1])
