"""Data of your own: a small table with its own units, and how well a model fits it.

The table has three hundred rows of a dose and a price; one column is three hundred times as wide as
the other. The model is trained on standardised columns, a fifth of the rows is held out, and the
network that does best on them is kept. Samples and both log densities are in the units of the table.
Takes one minute on two cores.
"""

import jax.numpy as jnp
import jax.random as jr
import matplotlib.pyplot as plt

import fpflow

process = fpflow.OrnsteinUhlenbeck()


def table(num_rows: int, key=jr.key(0)):  # noqa: B008
    """A noisy ring: doses about 0, prices about 5000."""
    key_angle, key_noise = jr.split(key)
    angle = jr.uniform(key_angle, (num_rows,), maxval=2 * jnp.pi)
    ring = jnp.stack([jnp.cos(angle), jnp.sin(angle)], 1) + 0.1 * jr.normal(
        key_noise, (num_rows, 2)
    )
    return jnp.array([0.0, 5000.0]) + jnp.array([1.0, 300.0]) * ring


def fitted(data, num_steps: int):
    network = fpflow.PotentialMLP(dim=2, beta=5.0, key=jr.key(1))
    model = fpflow.Transformed(network, fpflow.Standardise.of(data))
    return fpflow.train(
        model, process, data, validation=0.2, num_steps=num_steps, batch_size=512, key=jr.key(2)
    )


def main(num_steps: int = 6000, num_points: int = 64):
    data = table(300)
    result = fitted(data, num_steps)
    seen, held_out = fpflow.datasets.split(data, 0.2)
    asked = {"num_points": num_points, "key": jr.key(3)}
    found = fpflow.held_out(result.model, process, seen, held_out, **asked)
    x = fpflow.sample_sde(result.model, process, 2000, key=jr.key(4))

    figure, (left, right) = plt.subplots(1, 2, figsize=(8.4, 3.4), layout="constrained")
    fpflow.plot.loss_curves({"batches": result.history}, ax=left)
    right.plot(*x.T, ".", ms=2, alpha=0.4, label="samples of the SDE")
    right.plot(*seen.points.T, ".", ms=4, label="rows trained on")
    right.plot(*held_out.points.T, "k+", ms=5, label="rows held out")
    right.set(xlabel="dose", ylabel="price")
    right.legend(fontsize="small", loc="center")
    return figure, found


if __name__ == "__main__":
    figure, found = main()
    print(found)
    figure.savefig(f"{__file__.removesuffix('.py')}.png", dpi=150)
