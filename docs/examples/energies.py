"""Molecular systems: four densities, free energies and weights.

Boltzmann distributions e^(-E/kT)/Z of two systems whose answers are known. On the Müller–Brown surface,
in the plane, a grid has all four densities: the target, that of the network, e^u/Z, and those of the two
samplers; no two of them are the same. Four particles in the plane (DW-4, eight dimensions) have no grid:
there the samples are weighed by the density of the sampler that drew them, which corrects the free
energy of their wells and says how far to believe it. Energies are in units of kT. Ten minutes on two
cores.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import matplotlib.pyplot as plt
import numpy as np

import fpflow

process = fpflow.OrnsteinUhlenbeck(t1=5.0)


class MullerBrown(eqx.Module):
    """Three wells in a valley, at kT = 20, moved and stretched to coordinates of about one."""

    name, dim = "Müller–Brown", 2
    window = fpflow.Window(nodes=96)

    def log_target(self, x):
        u, v = x / 2 + jnp.array([-0.35, 0.7])
        u, v = u - jnp.array([1, 0, -0.5, -1]), v - jnp.array([0, 0.5, 1.5, 1])
        height = jnp.array([-200, -100, -170, 15])
        a, b, c = jnp.array([[-1, -1, -6.5, 0.7], [0, 0, 11, 0.6], [-10, -10, -6.5, 0.7]])
        return -jnp.sum(height * jnp.exp(a * u**2 + b * u * v + c * v**2)) / 20

    def in_well(self, x):
        """The deepest of the three."""
        return x[1] - 0.7 * x[0] > 0.4

    def cells(self, window):
        """Logarithms of e^(-E/kT) times the area, at the cells of a window."""
        logs = jax.vmap(self.log_target)(jnp.asarray(window.points()))
        return logs + 2 * jnp.log(window.cell_width)

    def draw(self, key, n):
        """Exact but for the width of a cell, a hundredth of the wells' distance."""
        fine = fpflow.Window(nodes=512)
        key_cell, key_place = jr.split(key)
        share = jax.nn.softmax(self.cells(fine))
        centre = jr.choice(key_cell, jnp.asarray(fine.points()), (n,), p=share)
        place = jr.uniform(key_place, (n, 2), minval=-0.5, maxval=0.5) * fine.cell_width
        return centre + place


class FourParticles(eqx.Module):
    """Pairs at one of two distances, with a spring on the centre, which is free otherwise (DW-4; Köhler,
    Klein and Noé, ICML 2020, arXiv 2006.02425)."""

    name, dim = "DW-4", 8

    def distances(self, x):
        i, j = np.triu_indices(4, 1)
        return jnp.linalg.norm(x.reshape(4, 2)[i] - x.reshape(4, 2)[j], axis=1)

    def log_target(self, x):
        r = self.distances(x) - 4.0
        return -jnp.sum(-4 * r**2 + 0.9 * r**4) / 2 - 2 * jnp.sum(x.reshape(4, 2).mean(0) ** 2)

    def in_well(self, x):
        """At most three of the six pairs at the short distance."""
        return jnp.sum(self.distances(x) < 4.0) <= 3

    def draw(self, key, n):
        """Langevin steps with Metropolis's choice; the barriers are two kT high."""
        value = jax.vmap(jax.value_and_grad(self.log_target))

        def step(x, key, h=0.02):
            key_noise, key_choice = jr.split(key)
            u, slope = value(x)
            y = x + h * slope + jnp.sqrt(2 * h) * jr.normal(key_noise, x.shape)
            v, back = value(y)
            there = jnp.sum((y - x - h * slope) ** 2, 1) / (4 * h)
            again = jnp.sum((x - y - h * back) ** 2, 1) / (4 * h)
            taken = jnp.log(jr.uniform(key_choice, u.shape)) < v - u + there - again
            return jnp.where(taken[:, None], y, x), None

        key_start, key = jr.split(key)
        start = 2 * jr.normal(key_start, (n, self.dim))
        return jax.jit(lambda x: jax.lax.scan(step, x, jr.split(key, 3000))[0])(start)


def learnt(system, points, num_steps):
    layers = fpflow.PotentialMLP(
        system.dim, width=128, prior=fpflow.IsotropicGaussian(), key=jr.key(0)
    )
    model = fpflow.in_frame(
        layers, process, centre=float(points.mean()), scale=float(points.std())
    )
    return fpflow.train(
        model, process, points, num_steps=num_steps, batch_size=512, key=jr.key(1)
    ).model
