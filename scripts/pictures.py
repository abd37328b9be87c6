"""A picture for each entry of the reference page of figures.

    python scripts/pictures.py [--out docs/reference/figures]

Two minutes on two cores.
"""

import argparse
import pathlib

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

import fpflow

PROCESS = fpflow.OrnsteinUhlenbeck()
DATA = fpflow.datasets.gaussian_mixture()
EXACT = DATA.marginal(PROCESS)
WINDOW = fpflow.Window(nodes=48)


class Steeper(eqx.Module):
    """The exact potential times a factor: a known error."""

    factor: float
    dim: int = 2

    def potential(self, t, x):
        """Of the noised mixture, times the factor."""
        return self.factor * EXACT.potential(t, x)

    def score(self, t, x):
        """Its gradient."""
        return self.factor * EXACT.score(t, x)


def whirl(x):
    """A score with a curl that falls with the distance from the origin."""
    return EXACT.score(PROCESS.t0, x) + jnp.exp(-(x @ x) / 2) * jnp.stack([-x[1], x[0]])


def trained(fp_weight):
    """The history of a short training."""
    model = fpflow.PotentialMLP(dim=2, key=jr.key(0))
    asked = {"num_steps": 1000, "batch_size": 512, "chunk": 20, "key": jr.key(1)}
    return fpflow.train(model, PROCESS, DATA, fp_weight=fp_weight, **asked).history


def laws_of(model):
    """The densities of both samplers."""
    return {
        "ODE": fpflow.grid_density_ode(model, PROCESS, WINDOW),
        "SDE": fpflow.grid_density_sde(model, PROCESS, WINDOW),
    }


def by_factor(factors):
    """The residual and the gap of steeper and steeper potentials."""
    models = [Steeper(f) for f in factors]
    norms = [fpflow.residual_norm(m, PROCESS, key=jr.key(0)).value for m in models]
    laws = [laws_of(m) for m in models]
    gaps = [fpflow.w2_grid(law["ODE"], law["SDE"]) for law in laws]
    return (
        {"mixture": [float(v) for v in norms]},
        {"mixture": [g.value for g in gaps]},
        {"mixture": [f"{f:g} u" for f in factors]},
    )


def curl_at_nodes():
    """Of the whirl, at the nodes of the window."""
    axis = jnp.asarray(WINDOW.centres())
    nodes = jnp.stack(jnp.meshgrid(axis, axis, indexing="ij"), -1)
    return np.asarray(jax.vmap(jax.vmap(lambda x: fpflow.curl(whirl, x)))(nodes))


def main():
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("docs/reference/figures"))
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    wrong = Steeper(1.1)
    laws = {"data": DATA.cell_probabilities(WINDOW), **laws_of(wrong)}
    paths = fpflow.ode_trajectories(EXACT, PROCESS, 40, key=jr.key(2))
    many = fpflow.ode_trajectories(EXACT, PROCESS, 20_000, num_times=25, key=jr.key(2))
    histories = {f"$w_R$ = {w:g}": trained(w) for w in (0.0, 1.0)}
    plot = fpflow.plot
    draw = {
        "score_field": lambda: plot.score_field(EXACT, 0.3, WINDOW),
        "residual_map": lambda: plot.residual_map(wrong, PROCESS),
        "trajectories": lambda: plot.trajectories(paths),
        "against_residual": lambda: plot.against_residual(
            *by_factor((1.02, 1.05, 1.1)), ylabel="gap: $W_2^2$(ODE, SDE)"
        ),
        "curl": lambda: plot.curl(curl_at_nodes(), WINDOW),
        "densities": lambda: plot.densities(laws),
        "density": lambda: plot.density(np.asarray(laws["SDE"].mass), WINDOW),
        "difference": lambda: plot.difference(
            np.asarray(laws["SDE"].mass - laws["ODE"].mass), WINDOW
        ),
        "loss_curves": lambda: plot.loss_curves(histories),
    }
    for name, picture in draw.items():
        picture()
        plt.savefig(out / f"{name}.png", dpi=90)
        plt.close("all")
    flow = plot.density_flow(many, WINDOW, num_frames=25, fps=10)
    flow.save(out / "density_flow.gif", writer="pillow", dpi=60)


if __name__ == "__main__":
    main()
