"""Does closing the gap cost likelihood in 64 dimensions? Digits given their class, three seeds.

    python scripts/digits_gap.py [--out docs/results/digits_gap]

For each seed a network of 256 units learns 1500 digits by score matching alone and with the
Fokker–Planck term; the log densities of both samplers and of a chain are computed at 30 digits that were
held out, three of each class, once given their class and once given the next one: how often the right
label has the higher density of two is the area under the curve of a test for wrong labels. Rows of a csv
file are written as they come, and a run that was cut off goes on after them.
"""

import argparse
import csv
import pathlib
import warnings
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from sklearn.datasets import load_digits

import fpflow
from digits import GREY, PROCESS

WEIGHTS = (0.0, 0.01)
LAWS = ("ode", "sde", "chain")
NAMES = ("seed", "weight", "held_out_loss", *LAWS, "gap", "reliable", *(f"auc_{n}" for n in LAWS))


class Classed(eqx.Module):
    """Images with noise of one level of grey, and their class as ten numbers."""

    images: jax.Array
    classes: jax.Array

    def sample(self, key, n):
        """Images and classes, shapes `(n, 64)` and `(n, 10)`."""
        key_row, key_noise = jr.split(key)
        row = jr.randint(key_row, (n,), 0, len(self.images))
        x = self.images[row]
        x = x + jr.uniform(key_noise, x.shape, x.dtype, -GREY / 2, GREY / 2)
        return x, jax.nn.one_hot(self.classes[row], 10)


def split():
    """1500 images to train on, the others held out, and three of each class among these."""
    images, classes = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(images))
    images, classes = (images / 8 - 1).astype(np.float32)[order], classes[order]
    noise = np.random.default_rng(1).uniform(-GREY / 2, GREY / 2, images.shape)
    some = np.stack([np.flatnonzero(classes[1500:] == c)[:3] for c in range(10)]) + 1500
    images, classes, x = jnp.asarray(images), jnp.asarray(classes), (images + noise)[some]
    seen, held = Classed(images[:1500], classes[:1500]), Classed(images[1500:], classes[1500:])
    return seen, held, jnp.asarray(x, jnp.float32)


def trained(seen, held, weight, seed, num_steps):
    """The network, in the frame of its data."""
    layers = fpflow.PotentialMLP(
        64, width=256, condition_dim=10, prior=fpflow.IsotropicGaussian(), key=jr.key(seed)
    )
    centre, scale = float(seen.images.mean()), float(seen.images.std())
    model = fpflow.in_frame(layers, PROCESS, centre=centre, scale=scale)
    return fpflow.train(
        model,
        PROCESS,
        seen,
        fp_weight=weight,
        validation=held,
        num_steps=num_steps,
        batch_size=256,
        chunk=50,
        key=jr.key(100 + seed),
    )


def densities(model, x, shift, target):
    """Log densities under the three laws, shape `(3, 10, 3)`, given the class `shift` further on; and
    which of them may be believed."""
    rows, good, chain = [], [], None
    for c, points in enumerate(x):
        at: Any = fpflow.given(model, jax.nn.one_hot((c + shift) % 10, 10))
        if chain is None:
            chain = fpflow.tuned_chain(
                fpflow.GaussianChain(num_steps=100),
                at,
                PROCESS,
                points,
                diagonal=True,
                key=jr.key(2),
            )
        ode = fpflow.log_prob_ode(at, PROCESS, points)
        asked: Any = {"target_error": target, "num_paths": 2048}
        sde = fpflow.log_prob_sde(at, PROCESS, points, target_error=target, key=jr.key(3))
        own = fpflow.log_prob_chain(chain, at, PROCESS, points, **asked, key=jr.key(4))
        rows.append((ode.value, sde.value, own.value))
        good.append(sde.reliable & own.reliable)
    return np.asarray(rows).swapaxes(0, 1), np.asarray(good)


def measured(found, x):
    """A row's numbers, after its seed and weight."""
    right, good = densities(found.model, x, shift=0, target=0.5)
    wrong, _ = densities(found.model, x, shift=1, target=2.0)
    higher = [
        (r.reshape(-1, 1) > w.reshape(1, -1)).mean() for r, w in zip(right, wrong, strict=True)
    ]
    gap = np.abs(right[1] - right[0]).mean()
    return [found.history["held_out"].min(), *-right.mean((1, 2)), gap, good.mean(), *higher]


def table(rows):
    """The rows as Markdown, in bits per dimension of sixteen levels of grey."""
    lines = [
        "| seed | w_R | smallest held-out loss | ODE | SDE | chain of 100 steps | ODE from SDE, nats "
        "| wrong labels found by ODE | SDE | chain |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        bits = [float(row[k]) / (64 * np.log(2)) - np.log2(GREY) for k in LAWS]
        cells = [row["seed"], row["weight"], f"{float(row['held_out_loss']):.2f}"]
        cells += [f"{b:.3f}" for b in bits] + [f"{float(row['gap']):.1f}"]
        cells += [f"{float(row[f'auc_{k}']):.3f}" for k in LAWS]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("docs/results/digits_gap"))
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", UserWarning)  # columns without ink; the rows count `reliable`
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / "rows.csv"
    rows = list(csv.DictReader(path.open())) if path.exists() else []
    done = {(int(row["seed"]), float(row["weight"])) for row in rows}
    seen, held, x = split()
    for seed in range(arguments.seeds):
        for weight in WEIGHTS:
            if (seed, weight) in done:
                continue
            found = trained(seen, held, weight, seed, arguments.steps)
            values = (seed, weight, *measured(found, x))
            rows.append(dict(zip(NAMES, (f"{float(v):.6g}" for v in values), strict=True)))
            with path.open("w", newline="") as file:
                writer = csv.DictWriter(file, NAMES)
                writer.writeheader()
                writer.writerows(rows)
            (arguments.out / "table.md").write_text(table(rows))


if __name__ == "__main__":
    main()
