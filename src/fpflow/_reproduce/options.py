"""The command line of `fpflow reproduce`."""

import argparse
import pathlib

import numpy as np

from .. import paper
from .data import law_of
from .experiments import EXPERIMENTS
from .tables import BEGIN


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="fpflow reproduce",
        description="Train, measure, tabulate and draw the experiment of arXiv 2311.15996.",
        epilog="presets: " + "; ".join(f"{p.name} = {p.meaning}" for p in paper.PRESETS.values()),
    )
    parser.add_argument("--preset", choices=paper.PRESETS, help="(default quick)")
    parser.add_argument(
        "--scale",
        type=float,
        default=1.0,
        help="in (0, 1]: steps shrink by its 1/8th power, batches by its 15/8th power (default 1); with "
        "--experiment, all numbers of steps, points and samples are multiplied by it",
    )
    parser.add_argument(
        "--dataset",
        nargs="+",
        metavar="NAME",
        help=f"one or more of {', '.join(paper.DATASETS)}, or module:name of your own points or data "
        "distribution in the plane (default: those of the preset)",
    )
    parser.add_argument(
        "--fp-weight",
        nargs="+",
        type=float,
        metavar="W",
        help="weights w_R of the Fokker-Planck residual (default: those of the preset); where a preset "
        "starts each network from the next smaller weight, those are trained too",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of networks and noise (default 0)"
    )
    parser.add_argument(
        "--out", type=pathlib.Path, help="folder of the results (default results/<preset>)"
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="keep the models that --out already contains with the same settings",
    )
    parser.add_argument(
        "--experiment",
        choices=EXPERIMENTS,
        help="compare methods on one bench instead of the paper's tables: "
        + "; ".join(f"{e.name} = {e.question}" for e in EXPERIMENTS.values()),
    )
    parser.add_argument(
        "--seeds",
        type=int,
        help="with --experiment: how many seeds, from --seed on (default 3)",
    )
    parser.add_argument(
        "--page",
        type=pathlib.Path,
        help="a Markdown page into which the tables are inserted, between its markers",
    )
    arguments = parser.parse_args(argv)
    if arguments.page and not (arguments.page.exists() and BEGIN in arguments.page.read_text()):
        parser.error(f"--page must be a file with the line {BEGIN}, got {arguments.page}")
    if not 0 < arguments.scale <= 1:
        parser.error(f"--scale must lie in (0, 1], got {arguments.scale}")
    for dataset in arguments.dataset or ():
        try:
            law_of(dataset)
        except ValueError as error:
            parser.error(f"--dataset {dataset}: {error}")
    if not 0 <= arguments.seed < 2**32:
        parser.error(f"--seed must be a whole number from 0 to {2**32 - 1}, got {arguments.seed}")
    if any(not (w >= 0 and np.isfinite(w)) for w in arguments.fp_weight or ()):
        parser.error(f"--fp-weight must be finite and not negative, got {arguments.fp_weight}")
    if arguments.experiment:
        _check_experiment(parser, arguments)
        arguments.seeds = 3 if arguments.seeds is None else arguments.seeds
        if arguments.seeds < 1:
            parser.error(f"--seeds must be at least 1, got {arguments.seeds}")
    elif arguments.seeds is not None:
        parser.error("--seeds is for --experiment; the tables have one --seed")
    arguments.preset = arguments.preset or "quick"
    return arguments


def _check_experiment(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Refuses what an experiment does not take."""
    if arguments.fp_weight or arguments.page or arguments.preset:
        parser.error(
            "--experiment takes none of --preset, --fp-weight and --page: it has settings, variants and "
            "a page of its own"
        )
    chosen = arguments.dataset or []
    if len(chosen) > 1:
        parser.error(f"--experiment takes one --dataset, got {len(chosen)}")
    if chosen and EXPERIMENTS[arguments.experiment].owns_data:
        parser.error(f"--experiment {arguments.experiment} has data of its own, so no --dataset")
