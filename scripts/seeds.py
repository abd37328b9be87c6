"""What several seeds of one preset say together.

    python scripts/reproduce.py --preset standard --seed 1   # and 2, and so on
    python scripts/seeds.py results/standard --csv docs/results/standard/seeds.csv

prints, from saved numbers alone, the mean and the range of every distance over the seeds, and how many
of them lie below the published ones; the CSV holds each number with its floor.
"""

import argparse
import csv
import itertools
import pathlib
import sys

import numpy as np

from fpflow import paper
from fpflow._reproduce.tables import load_numbers, rank, rows_of

# Two histograms of the paper's size are 0.4 to 0.5e-3 apart by chance: that for the gap, twice that for
# the distances to the data.
GOAL: dict[str, float] = {"ODE-SDE": 5e-4, "ODE-data": 1e-3, "SDE-data": 1e-3}


def numbers_of(out: pathlib.Path) -> dict[int, dict]:
    """The saved numbers by seed, data set and weight."""
    runs = [path.parent for path in out.glob("runs/*-w*-seed*/numbers.json")]
    seeds = sorted({int(run.name.split("seed")[1]) for run in runs})
    tables = {s: load_numbers([r for r in runs if r.name.endswith(f"-seed{s}")]) for s in seeds}
    return {
        seed: {name: dict(sorted(table[name].items())) for name in paper.DATASETS if name in table}
        for seed, table in tables.items()
    }


def over_seeds(rows: list[dict]) -> list[str]:
    """Mean and range, a row per data set and weight."""
    lines = [
        "| | w_R | gap | ODE–data | SDE–data |",
        "|---|---|---|---|---|",
    ]
    for dataset, weight in itertools.product(paper.DATASETS, paper.FP_WEIGHTS):
        cells = []
        for name in paper.COMPARISONS:
            v = 1e3 * np.array([
                r["w2_squared"] for r in rows
                if (r["dataset"], r["fp_weight"], r["comparison"]) == (dataset, weight, name)
            ])  # fmt: skip
            cells.append(f"{v.mean():.2f} ({v.min():.2f}–{v.max():.2f})")
        lines.append(f"| {dataset} | {weight:g} | {' | '.join(cells)} |")
    return lines


def best_published(dataset: str) -> dict[str, float]:
    """The smallest entry of each published column."""
    columns = zip(*paper.PUBLISHED[dataset].values(), strict=True)
    return {name: min(c) for name, c in zip(paper.COMPARISONS, columns, strict=True)}


def counts(seeds: dict[int, dict], rows: list[dict]) -> list[str]:
    """How often the goals are met."""
    below = sum(row["w2_squared"] < row["published"] for row in rows)
    lines = [f"- below their published counterparts: {below} of {len(rows)}"]
    for dataset, weight in itertools.product(paper.DATASETS, paper.FP_WEIGHTS):
        found = [seed[dataset][weight]["w2"] for seed in seeds.values()]
        for what, limits in (
            ("below all published entries", best_published(dataset)),
            ("gap at the noise floor, data within twice of it", GOAL),
        ):
            met = sum(all(w2[k]["value"] < limits[k] for k in limits) for w2 in found)
            if met:
                lines.append(
                    f"- {what} at once: {dataset}, w_R = {weight:g}, {met} of {len(found)} seeds"
                )
    for dataset, weight in itertools.product(paper.DATASETS, paper.FP_WEIGHTS):
        over = [seed[dataset][weight]["excess_over_plain"] for seed in seeds.values()]
        if weight == max(paper.FP_WEIGHTS):
            lines.append(
                f"- loss over that of w_R = 0, {dataset}, w_R = {weight:g}: "
                + ", ".join(f"{o['value']:+.5f} ± {o['standard_error']:.5f}" for o in over)
            )
    for seed, table in seeds.items():
        runs = [run for by_weight in table.values() for run in by_weight.values()]
        columns = [
            (r["residual"]["value"], r["residual"]["spatial"], r["w2"]["ODE-SDE"]["value"])
            for r in runs
        ]
        residual, spatial, gap = map(list, zip(*columns, strict=True))
        lines.append(
            f"- Spearman of R̃ and the gap, seed {seed}: {rank(residual, gap):+.2f}, of its part in x "
            f"{rank(spatial, gap):+.2f}"
        )
    return lines


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=pathlib.Path, help="folder of the results")
    parser.add_argument("--csv", type=pathlib.Path, help="a file for all numbers")
    arguments = parser.parse_args(argv)
    seeds = numbers_of(arguments.out)
    if not seeds:
        parser.error(f"{arguments.out} holds no results of scripts/reproduce.py.")
    lacking = [
        f"{dataset} at w_R = {weight:g} with seed {seed}"
        for seed, dataset, weight in itertools.product(seeds, paper.DATASETS, paper.FP_WEIGHTS)
        if weight not in seeds[seed].get(dataset, {})
    ]
    if lacking:
        parser.error(f"{arguments.out} lacks {', '.join(lacking)}.")
    rows = [{"seed": seed, **row} for seed, table in seeds.items() for row in rows_of(table)]
    if arguments.csv:
        columns = ("seed", "dataset", "fp_weight", "comparison", "w2_squared", "floor")
        with open(arguments.csv, "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(columns)
            for row in rows:
                numbers = (f"{row[name]:.7f}" for name in columns[4:])
                writer.writerow([*(row[name] for name in columns[:4]), *numbers])
    print("\n".join([*over_seeds(rows), "", *counts(seeds, rows)]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
