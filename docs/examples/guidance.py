"""Guidance, exactly: what classifier-free guidance draws, and what it does not.

There are two classes of points with exact scores, and one class is guided against both with weight
three. Guidance is said to sample the powered target p(x | c)^3 p(x)^-2. Densities on a grid, computed
without samples, show that neither the ODE nor the SDE draws it. The two draw from different
distributions, and the ODE's is farther from the target. Importance weights by the SDE's own density
recover the target from its samples. For the ODE, Pareto k rejects the weights, because the ODE hardly
reaches some regions where the target still has mass. Takes two minutes on two cores.
"""

import jax
import jax.numpy as jnp
import jax.random as jr
import matplotlib.pyplot as plt

import fpflow

process = fpflow.OrnsteinUhlenbeck()
window = fpflow.Window(nodes=96)
means = jnp.array([[0.8, 1.0], [0.8, -1.0], [-0.8, 0.0]])
covariances = 0.15 * jnp.eye(2) * jnp.ones((3, 1, 1))
data = fpflow.datasets.GaussianMixture(means, covariances)
one_class = fpflow.datasets.GaussianMixture(means[:2], covariances[:2])


def main(window: fpflow.Window = window, weight: float = 3.0, num_samples: int = 4000):
    model = fpflow.guided(one_class.marginal(process), data.marginal(process), weight)
    laws = {
        "p(x | c)": one_class.cell_probabilities(window),
        "powered target": fpflow.grid_density_potential(model, process, window),
        "its ODE draws": fpflow.grid_density_ode(model, process, window),
        "its SDE draws": fpflow.grid_density_sde(model, process, window),
    }
    figure, axes = plt.subplots(1, 4, figsize=(11, 3), layout="constrained")
    top = float(laws["powered target"].mass.max()) / window.cell_width**2
    for ax, (name, law) in zip(axes, laws.items(), strict=True):
        fpflow.plot.density(law.mass, window, ax=ax, vmax=top, title=name, colorbar=False)
        ax.set(xlabel="", ylabel="", xticks=[], yticks=[])
    _, target, ode, sde = laws.values()
    pairs = {"target, ODE": (target, ode), "target, SDE": (target, sde), "SDE, ODE": (sde, ode)}
    rows = {f"TV({name})": fpflow.total_variation(*pair) for name, pair in pairs.items()}

    def log_target(x):
        return model.potential(jnp.asarray(process.t0, x.dtype), x)

    nodes = jnp.asarray(window.centres())
    cells = jnp.stack(jnp.meshgrid(nodes, nodes, indexing="ij"), -1).reshape(-1, 2)
    exact = jax.nn.logsumexp(jax.vmap(log_target)(cells)) + 2 * jnp.log(window.cell_width)
    rows["log Z on the grid"] = f"{exact:.3f}"
    for name, sampler in (("ODE", fpflow.ODE()), ("SDE", fpflow.SDE())):
        asked = {"sampler": sampler, "key": jr.key(0)}
        found = fpflow.importance_sample(model, process, log_target, num_samples, **asked)
        share = found.effective_sample_size / num_samples
        rows[f"log Z by the {name}"] = f"{found.log_z}, {share:.0%} effective"
    return figure, rows


if __name__ == "__main__":
    figure, rows = main()
    for name, value in rows.items():
        print(f"{name}: {value}")
    figure.savefig(f"{__file__.removesuffix('.py')}.png", dpi=150)
