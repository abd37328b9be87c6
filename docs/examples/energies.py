"""Molecular systems: four densities, free energies and weights.

Boltzmann distributions e^(-E/kT)/Z of two systems whose answers are known; energies are in units of kT.
On the Müller–Brown surface, in the plane, a grid shows all four densities: the target, that of the
network's potential, e^u/Z, and those of the two samplers. No two of them are the same: F, the free
energy of the deepest well, is right to 0.05 in both samplers and wrong by 0.9 in the potential. Four
particles in the plane (DW-4, eight dimensions) have no grid. There the samples are weighted by the
density of the sampler that drew them: the weights remove what lies between the wells, and give log Z
with its error. Ten minutes on two cores.
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
        """Langevin steps with Metropolis's choice; the barriers are two kT high. Small steps come first:
        from far outside, where forces are steep, every large one is refused for ever."""
        value = jax.vmap(jax.value_and_grad(self.log_target))

        def step(x, row):
            key, h = row
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
        rows = jr.split(key, 4000), jnp.where(jnp.arange(4000) < 1000, 0.001, 0.02)
        return jax.jit(lambda x: jax.lax.scan(step, x, rows)[0])(start)


def learnt(system, points, num_steps):
    layers = fpflow.PotentialMLP(
        system.dim, width=128, prior=fpflow.IsotropicGaussian(), key=jr.key(0)
    )
    model = fpflow.in_frame(layers, process, centre=float(points.mean()), scale=float(points.std()))
    return fpflow.train(
        model, process, points, num_steps=num_steps, batch_size=512, key=jr.key(1)
    ).model


def free_energy(inside, log_w=None):
    """Of the well above everything else, -log(p / (1 - p)), from samples with weights."""
    log_w = np.zeros(len(inside)) if log_w is None else np.asarray(log_w, float)
    inside, w = np.asarray(inside), np.exp(log_w - log_w.max())
    ins, out = w[inside].sum(), w[~inside].sum()
    parts = np.where(inside, w / ins, -w / out)
    return fpflow.Estimate(float(np.log(out / ins)), float(np.sqrt((parts**2).sum())))


def weighed(system, model, sampler, num_samples):
    """Samples, the free energy as they are drawn and weighed, and a line that says so."""
    found = fpflow.importance_sample(
        model, process, system.log_target, num_samples, sampler=sampler, key=jr.key(2)
    )
    inside = jax.vmap(system.in_well)(found.x)
    drawn, corrected = free_energy(inside), free_energy(inside, found.log_weights)
    line = (
        f"F {drawn} as drawn, {corrected} with weights; log Z {found.log_z}, "
        f"{found.effective_sample_size / num_samples:.0%} effective, k {found.pareto_k:.2f}"
    )
    return found, corrected, line


def in_the_plane(system, model, window, num_samples, axes):
    """The four densities, how far three of them are from the target, and their free energies."""
    logs = system.cells(window)
    log_z = float(jax.nn.logsumexp(logs))
    target = fpflow.GridDensity(
        np.exp(np.asarray(logs, float) - log_z).reshape(window.shape), 0.0, 0.0, window
    )
    laws = {
        "target": target,
        "e^u/Z": fpflow.grid_density_potential(model, process, window),
        "ODE": fpflow.grid_density_ode(model, process, window),
        "SDE": fpflow.grid_density_sde(model, process, window),
    }
    inside = np.asarray(jax.vmap(system.in_well)(jnp.asarray(window.points()))).reshape(
        window.shape
    )
    fpflow.plot.densities(laws, axes=list(axes[0]))
    rows, apart = [f"{system.name}: log Z {log_z:.3f} on the grid"], {}
    for name, law in laws.items():
        share = law.mass[inside].sum()
        rows.append(f"  {name:6} F {np.log((1 - share) / share):.3f}")
        if name != "target":
            rows[-1] += f", total variation from the target {fpflow.total_variation(law, target)}"
            apart[name] = law.mass - target.mass
    rows.append(f"  SDE and ODE are {fpflow.kl_divergence(laws['SDE'], laws['ODE'])} nats apart")
    top = float(np.quantile(np.abs(np.stack(list(apart.values()))), 0.998)) / window.cell_width**2
    for ax, (name, mass) in zip(axes[1, 1:], apart.items(), strict=True):
        asked = {"vmax": top, "title": f"{name} − target", "colorbar": name == "SDE"}
        fpflow.plot.difference(mass, window, ax=ax, **asked)
    errors = []
    for name, sampler in (("ODE", fpflow.ODE()), ("SDE", fpflow.SDE())):
        found, corrected, line = weighed(system, model, sampler, num_samples)
        rows.append(f"  {name} samples: {line}")
        exact = target.mass[inside].sum()
        errors += [
            (found.log_z.value - log_z) / found.log_z.error,
            (corrected.value - np.log((1 - exact) / exact)) / corrected.error,
        ]
    return rows, errors


def of_particles(system, model, reference, num_samples, ax):
    """The free energy of the wells against that of the simulation, and the pairs' distances."""
    known = free_energy(jax.vmap(system.in_well)(reference))
    rows = [f"{system.name}: F {known} by {len(reference)} walks"]
    edges = np.linspace(1, 8, 71)
    pairs = lambda x: np.asarray(jax.vmap(system.distances)(x))
    ax.hist(pairs(reference).ravel(), edges, density=True, color="0.8", label="simulation")
    errors = []
    for name, sampler in (
        ("ODE", fpflow.ODE()),
        ("chain", fpflow.GaussianChain(num_steps=100)),
    ):
        found, corrected, line = weighed(system, model, sampler, num_samples)
        rows.append(f"  {name} samples: {line}")
        errors.append((corrected.value - known.value) / np.hypot(corrected.error, known.error))
        r = pairs(found.x)
        w = np.repeat(np.exp(found.log_weights - found.log_weights.max()), r.shape[1])
        ax.hist(r.ravel(), edges, density=True, histtype="step", label=f"{name}, as drawn")
        if name == "chain":
            asked = {"density": True, "histtype": "step", "weights": w}
            ax.hist(r.ravel(), edges, **asked, label="chain, with weights")
    ax.set(xlabel="distance of a pair", title=system.name, ylim=(0, 0.9))
    ax.legend(fontsize="small", frameon=False, loc="upper right")
    return rows, errors


def main(
    num_steps=(2000, 8000),
    num_points: int = 20_000,
    num_samples: int = 2000,
    window: fpflow.Window = MullerBrown.window,
):
    figure, axes = plt.subplots(2, 4, figsize=(15, 6.6), layout="constrained")
    plane, particles = MullerBrown(), FourParticles()
    rows, errors = [], []
    points = plane.draw(jr.key(5), num_points)
    model = learnt(plane, points, num_steps[0])
    told = in_the_plane(plane, model, window, num_samples, axes)
    rows, errors = rows + told[0], errors + told[1]
    points = particles.draw(jr.key(5), num_points)
    model = learnt(particles, points, num_steps[1])
    told = of_particles(particles, model, points, num_samples, axes[1, 0])
    return figure, rows + told[0], errors + told[1]


if __name__ == "__main__":
    figure, rows, errors = main()
    print("\n".join(rows))
    figure.savefig(f"{__file__.removesuffix('.py')}.png", dpi=150)
