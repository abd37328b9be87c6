"""Which likelihood belongs to the samples: scikit-learn's digits, 64 dimensions.

    python scripts/digits.py [--out docs/results/digits] [--network digits.fpflow]

Trains a potential network of 256 units on 1500 digits by plain score matching, computes log p_ODE,
log p_SDE and the log p of a chain at 64 that were held out, repeats log p_SDE ten times, and writes a
table, the numbers and a figure of both samplers' images. Eleven minutes on two cores.
"""

import argparse
import csv
import pathlib
import time
import warnings
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

import fpflow

PROCESS = fpflow.OrnsteinUhlenbeck()
GREY = 1 / 8  # one of sixteen levels of grey, on a scale from -1 to 1


class Digits(eqx.Module):
    """Images with noise of one level of grey, so that they have a density."""

    images: jax.Array

    def sample(self, key, n):
        """`n` images, shape `(n, 64)`."""
        key_row, key_noise = jr.split(key)
        x = self.images[jr.randint(key_row, (n,), 0, len(self.images))]
        return x + jr.uniform(key_noise, x.shape, x.dtype, -GREY / 2, GREY / 2)


def split():
    """1500 images to train on, and 64 others with their noise."""
    images = load_digits(return_X_y=True)[0] / 8 - 1
    rng = np.random.default_rng(0)
    order = rng.permutation(len(images))
    held = images[order[1500:1564]]
    held = held + rng.uniform(-GREY / 2, GREY / 2, held.shape)
    return jnp.asarray(images[order[:1500]], jnp.float32), jnp.asarray(held, jnp.float32)


def trained(images, num_steps):
    """The network, in the frame of its data."""
    layers = fpflow.PotentialMLP(64, width=256, prior=fpflow.IsotropicGaussian(), key=jr.key(0))
    centre, scale = float(images.mean()), float(images.std())
    model = fpflow.in_frame(layers, PROCESS, centre=centre, scale=scale)
    data = Digits(images)
    return fpflow.train(
        model, PROCESS, data, num_steps=num_steps, batch_size=512, key=jr.key(1)
    ).model


def densities(model, x, repeats):
    """All three log densities at the points, and repeats of that of the SDE."""
    ode = fpflow.log_prob_ode(model, PROCESS, x)
    chain = fpflow.tuned_chain(
        fpflow.GaussianChain(num_steps=100), model, PROCESS, x, diagonal=True, key=jr.key(2)
    )
    own = fpflow.log_prob_chain(chain, model, PROCESS, x, num_paths=1024, key=jr.key(3))
    asked: Any = {"target_error": 0.25, "num_paths": 32_768}
    fpflow.log_prob_sde(model, PROCESS, x, **asked, key=jr.key(4))  # compiles
    runs, seconds = [], []
    for k in range(repeats):
        start = time.perf_counter()
        runs.append(fpflow.log_prob_sde(model, PROCESS, x, **asked, key=jr.key(5 + k)))
        seconds.append((time.perf_counter() - start) / len(x))
    return ode, chain, own, runs, np.array(seconds)


def table(ode, own, runs, seconds):
    """What is told of the numbers, as lines of Markdown."""
    sde = runs[0]
    values = np.array([np.asarray(run.value) for run in runs])
    errors = np.array([np.asarray(run.standard_error) for run in runs])
    apart = np.asarray(sde.value - ode.value)
    spread = np.sqrt(values.var(0, ddof=1).mean())
    claimed = np.sqrt((errors**2).mean())
    reliable = sum(int(np.asarray(run.reliable).sum()) for run in runs)
    lines = [
        "| at 64 held-out digits, nats | mean | median | lowest | highest |",
        "|---|---|---|---|---|",
    ]
    for name, v in (
        ("log p_ODE", np.asarray(ode.value)),
        ("log p_SDE", np.asarray(sde.value)),
        ("log p of the chain of 100 steps", np.asarray(own.value)),
        ("log p_SDE - log p_ODE", apart),
    ):
        lines.append(
            f"| {name} | {v.mean():.1f} | {np.median(v):.1f} | {v.min():.1f} | {v.max():.1f} |"
        )
    lines += [
        "",
        f"- log p_ODE is below log p_SDE at {int((apart > 0).sum())} of {len(apart)}.",
        f"- Stated error of log p_SDE: median {np.median(errors):.2f}, highest {errors.max():.2f} nats; "
        f"step error: median {np.median(np.asarray(sde.step_error)):.2f}.",
        f"- {len(runs)} repeats: they spread by {spread:.3f} nats at a point and claim {claimed:.3f}; "
        f"reliable at {reliable} of {values.size}.",
        f"- {np.median(seconds):.2f} s per point ({seconds.min():.2f} to {seconds.max():.2f}).",
    ]
    return lines


def figure(model, chain, ode, sde, held, path):
    """Images of both samplers and the data, and the densities of those held out."""
    rows = {
        "data": np.asarray(held[:12]),
        "ODE": np.asarray(fpflow.sample_ode(model, PROCESS, 12, key=jr.key(20))),
        "SDE": np.asarray(fpflow.sample_sde(model, PROCESS, 12, key=jr.key(21))),
        "chain": np.asarray(fpflow.sample(chain, model, PROCESS, 12, key=jr.key(22))),
    }
    page = plt.figure(figsize=(11, 3.6), layout="constrained")
    left, right = page.subfigures(1, 2, width_ratios=[2.1, 1])  # pyright: ignore
    axes = left.subplots(4, 12)
    for (name, images), line in zip(rows.items(), axes, strict=True):
        for image, ax in zip(images, line, strict=True):
            ax.imshow(image.reshape(8, 8), cmap="gray_r", vmin=-1, vmax=1)
            ax.set(xticks=[], yticks=[])
        line[0].set_ylabel(name, rotation=0, ha="right", va="center")
    ax = right.subplots()
    a, b = np.asarray(ode.value), np.asarray(sde.value)
    ax.errorbar(a, b, np.asarray(sde.standard_error), fmt="o", markersize=3, color="#0072B2")
    both = np.concatenate([a, b])
    low, high = max(both.min(), np.quantile(both, 0.1) - 40), both.max()
    ax.plot([low, high], [low, high], color="black", linewidth=0.8)
    ax.set(
        xlim=(low - 5, high + 5), xlabel=r"$\log p_\mathrm{ODE}$ (nats)",
        ylabel=r"$\log p_\mathrm{SDE}$ (nats)", title="held-out digits",
    )  # fmt: skip
    page.savefig(path, dpi=130)


def main():
    """Trains, measures, writes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("docs/results/digits"))
    parser.add_argument("--steps", type=int, default=2000, help="of training")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--network", type=pathlib.Path, help="a file to keep the network in")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    images, held = split()
    if arguments.network and arguments.network.exists():
        model, _ = fpflow.load(arguments.network)
    else:
        model = trained(images, arguments.steps)
        if arguments.network:
            fpflow.save(arguments.network, model, PROCESS)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        ode, chain, own, runs, seconds = densities(model, held, arguments.repeats)
    lines = table(ode, own, runs, seconds)
    print("\n".join(lines))
    (arguments.out / "table.md").write_text("\n".join(lines) + "\n")
    with (arguments.out / "points.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["log_p_ode", "log_p_sde", "standard_error", "step_error", "log_p_chain"])
        columns = (ode.value, runs[0].value, runs[0].standard_error, runs[0].step_error, own.value)
        writer.writerows(zip(*(np.asarray(c).round(3).tolist() for c in columns), strict=True))
    figure(model, chain, ode, runs[0], held, arguments.out / "digits.png")


if __name__ == "__main__":
    main()
