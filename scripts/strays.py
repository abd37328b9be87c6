"""What the potential of the prior does for a network: losses, and samples that run away.

    python scripts/strays.py

trains networks with and without it on the points of the getting-started page, in two and ten
dimensions, and prints a Markdown table: the score matching loss over the last thousand steps, the share
of 20,000 samples that lie more than half the data's width outside its box, and the largest coordinate.
"""

import argparse
import itertools
import sys

import jax.random as jr
import numpy as np

import fpflow
from fpflow.datasets import widths_away

PROCESS = fpflow.OrnsteinUhlenbeck()
NUM_SAMPLES = 20_000


def points(dim: int) -> np.ndarray:
    """Five thousand with one curved pair of columns, each column of deviation one."""
    y = np.random.default_rng(0).normal(size=(5000, dim))
    y[:, 1] += y[:, 0] ** 2 / 2
    return y / y.std(0)


def row(dim: int, prior, fp_weight: float, num_steps: int) -> str:
    """One network, both samplers."""
    data = points(dim)
    model = fpflow.PotentialMLP(dim, prior=prior, key=jr.key(0))
    result = fpflow.train(
        model, PROCESS, data, fp_weight=fp_weight, num_steps=num_steps, key=jr.key(1)
    )
    cells = [str(dim), "alone" if prior is None else "on the prior", f"{fp_weight:g}"]
    cells.append(f"{result.history['dsm'][-4:].mean():.3f}")
    for sample in (fpflow.sample_ode, fpflow.sample_sde):
        x = np.asarray(sample(result.model, PROCESS, NUM_SAMPLES, num_steps=200, key=jr.key(2)))
        share = np.mean(widths_away(x, data) > 0.5)
        cells.append(f"{share:.3%}, {np.abs(x).max():.3g}")
    return f"| {' | '.join(cells)} |"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=3000, help="of training (default 3000)")
    num_steps = parser.parse_args(argv).steps
    print("| d | layers | w_R | loss | ODE: strays, largest | SDE: strays, largest |")
    print("|---|---|---|---|---|---|")
    for dim, fp_weight, prior in itertools.product((2, 10), (0, 0.1), (None, PROCESS.prior)):
        print(row(dim, prior, fp_weight, num_steps), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
