"""One short recipe for every process: how well the same network learns under each.

    python scripts/processes.py

trains `in_frame(PotentialMLP(...))` on the paper's mixture by score matching under every process of the
command line and prints a Markdown table of squared Wasserstein distances between the exact laws of both
samplers and the data, on a grid. No sampling noise is in them. With --bare, networks see points and
times as they come.
"""

import argparse
import sys

import jax.random as jr

import fpflow
from fpflow._process import BY_NAME

LAW = fpflow.datasets.gaussian_mixture()
PAIRS = (("ODE", "data"), ("SDE", "data"), ("ODE", "SDE"))


def distances(process, bare: bool, num_steps: int, batch_size: int, seed: int) -> list[float]:
    """Of one network, in the order of `PAIRS`."""
    key_network, key_train = jr.split(jr.key(seed))
    prior = process.prior if bare else fpflow.IsotropicGaussian()
    model = fpflow.PotentialMLP(2, width=64, prior=prior, key=key_network)
    model = model if bare else fpflow.in_frame(model, process)
    model = fpflow.train(
        model, process, LAW, num_steps=num_steps, batch_size=batch_size, key=key_train
    ).model
    window = fpflow.Window(nodes=64)
    laws = {
        "ODE": fpflow.grid_density_ode(model, process, window),
        "SDE": fpflow.grid_density_sde(model, process, window),
        "data": LAW.cell_probabilities(window),
    }
    return [float(fpflow.w2_grid(laws[a], laws[b], window).value) for a, b in PAIRS]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=list(BY_NAME), help="processes")
    parser.add_argument("--bare", action="store_true", help="networks of t and x as they come")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args(argv)
    print(f"| process | {' | '.join(f'W2²({a}, {b})' for a, b in PAIRS)} |\n|---|---|---|---|")
    for name in asked.names:
        found = distances(BY_NAME[name](), asked.bare, asked.steps, asked.batch_size, asked.seed)
        print(f"| `{name}` | {' | '.join(f'{value:.2g}' for value in found)} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
