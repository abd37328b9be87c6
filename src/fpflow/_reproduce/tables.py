"""Tables and the paper's four claims from saved numbers alone."""

import csv
import itertools
import json
import pathlib

import numpy as np
import scipy

from .. import paper

BEGIN = "<!-- tables of scripts/reproduce.py begin -->"
END = "<!-- tables of scripts/reproduce.py end -->"


def load_numbers(runs: list[pathlib.Path]) -> dict[str, dict[float, dict]]:
    """The saved numbers by data set and weight."""
    table: dict[str, dict[float, dict]] = {}
    for run in runs:
        numbers = json.loads((run / "numbers.json").read_text())
        table.setdefault(numbers["dataset"], {})[numbers["fp_weight"]] = numbers
    return table


def rows_of(table: dict[str, dict[float, dict]]) -> list[dict]:
    """One row per data set, weight and comparison: ours beside the published number."""
    rows = []
    for dataset, by_weight in table.items():
        for weight, numbers in by_weight.items():
            for k, name in enumerate(paper.COMPARISONS):
                published = paper.PUBLISHED.get(dataset, {}).get(weight)
                row = {
                    "dataset": dataset,
                    "fp_weight": weight,
                    "comparison": name,
                    "w2_squared": numbers["w2"][name]["value"],
                    "floor": numbers["w2"][name]["floor"],
                    "published": published[k] if published else None,
                    "published_floor": paper.PUBLISHED_FLOOR if published else None,
                }
                if "sampled" in numbers:
                    row["w2_squared_sampled"] = numbers["sampled"][name]["value"]
                rows.append(row)
    return rows


def markdown_tables(table: dict[str, dict[float, dict]]) -> str:
    """The three tables, a row per weight and a column per data set, beside the published one."""
    beside = {d: ["published"] if d in paper.PUBLISHED else [] for d in table}
    heads = [word for d in table for word in (d, *beside[d])]
    lines = []
    for k, name in enumerate(paper.COMPARISONS):
        lines += [
            f"**{name}**, W2² (x 10⁻³)",
            "",
            "| w_R | " + " | ".join(heads) + " |",
            "|---|" + "---|" * len(heads),
        ]
        for weight in sorted({w for by_weight in table.values() for w in by_weight}):
            cells = []
            for dataset, by_weight in table.items():
                ours = ""
                published = paper.PUBLISHED.get(dataset, {}).get(weight)
                if weight in by_weight:
                    entry = by_weight[weight]["w2"][name]
                    above = published and entry["value"] > published[k] + paper.PUBLISHED_FLOOR
                    ours = f"{1e3 * entry['value']:.2f} ± {1e3 * entry['floor']:.2f}"
                    ours += " ▲" if above else ""
                cells.append(ours)
                if beside[dataset]:
                    cells.append(f"{1e3 * published[k]:.2f}" if ours and published else "")
            lines.append(f"| {weight:g} | " + " | ".join(cells) + " |")
        lines.append("")
    words = (
        "Ours: exact W2² between grid densities, which have no sampling noise; ± is how much the "
        "number changes if the masses are not extrapolated. Mass sits at the centres of cells, as in "
        "the paper: a shift smaller than a cell costs its size times the cell width, not its square."
    )
    if set(table) & set(paper.PUBLISHED):
        words += (
            " Published: histograms of three million samples, noise floor 0.4 to 0.5. ▲ marks an "
            "entry above its published counterpart by more than that floor."
        )
    for dataset, by_weight in table.items():
        few = next(iter(by_weight.values())).get("counted")
        if few:
            words += (
                f" The data of {dataset} are {few['points']} points counted in cells, which by "
                f"chance are up to about {1e3 * few['floor']:.2f} x 10⁻³ from their own distribution; "
                "so much of every distance to them may be noise."
            )
    lines += [words, ""]
    lines += sampled_table(table)
    lines += [
        "| data set | w_R | R̃ | part in x | excess L_DSM | over w_R = 0 | outside ODE | outside SDE "
        "| parameters | training (s) |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for dataset, by_weight in table.items():
        for weight, n in by_weight.items():
            r, outside = n["residual"], n["outside"]
            over = n.get("excess_over_plain", {"value": 0.0, "standard_error": 0.0})
            lines.append(
                f"| {dataset} | {weight:g} | {r['value']:.3g} ± {r['standard_error']:.1g} | "
                f"{r['spatial']:.3g} | {n['excess_loss']['value']:.4f} | "
                f"{over['value']:+.5f} ± {over['standard_error']:.5f} | "
                f"{outside['ODE']:.1e} | {outside['SDE']:.1e} | {n['parameters']} | "
                f"{n['seconds_training']:.0f} |"
            )
    lines += [
        "",
        "R̃ is the mean square residual over Ω x [0, T] and 'part in x' the part that depends on x, "
        "the only one that affects a sampler. Excess L_DSM is E‖s‖² - 2E[s·k], comparable within a "
        "data set; the column after it is the difference from w_R = 0 with the same noise. Outside is "
        "the mass beyond the window.",
        "",
    ]
    return "\n".join(lines)


def sampled_table(table: dict[str, dict[float, dict]]) -> list[str]:
    """The same distances by the paper's own samplers, where a preset draws samples."""
    runs = [run for by_weight in table.values() for run in by_weight.values() if "sampled" in run]
    if not runs:
        return []
    lines = [
        "From histograms of samples drawn by the paper's samplers, W2² (x 10⁻³), sampling noise "
        "included:",
        "",
        "| data set | w_R | samples | " + " | ".join(paper.COMPARISONS) + " |",
        "|---|---|---|" + "---|" * len(paper.COMPARISONS),
    ]
    for run in runs:
        values = (f"{1e3 * run['sampled'][name]['value']:.2f}" for name in paper.COMPARISONS)
        count = run["settings"]["num_samples"]
        lines.append(
            f"| {run['dataset']} | {run['fp_weight']:g} | {count} | " + " | ".join(values) + " |"
        )
    return [*lines, ""]


def _verdict(holds: bool, fails: bool) -> str:
    """Numbers within their errors of each other decide nothing."""
    return "no" if fails else "yes" if holds else "cannot be said"


def _trend(values: list[float], floors: list[float], rising: bool) -> tuple[str, str]:
    """Whether values move one way at every step, steps within their errors counting as level."""
    sign = 1 if rising else -1
    moves = [
        (sign * (b - a), fa + fb)
        for (a, fa), (b, fb) in itertools.pairwise(zip(values, floors, strict=True))
    ]
    whole = (sign * (values[-1] - values[0]), floors[0] + floors[-1])
    fails = any(move < -error for move, error in (*moves, whole))
    return _verdict(whole[0] > whole[1], fails), " → ".join(f"{1e3 * v:.2f}" for v in values)


def rank(x: list[float], y: list[float]) -> float:
    """Spearman's rank correlation."""
    return float(np.asarray(scipy.stats.spearmanr(x, y))[0])


def chance(x: list[float], y: list[float]) -> float:
    """The share of all orders of `y` whose rank correlation with `x` is at least as strong."""
    if len(y) > 7:
        return float(np.asarray(scipy.stats.spearmanr(x, y))[1])
    observed = abs(rank(x, y)) - 1e-12
    orders = list(itertools.permutations(y))
    return sum(abs(rank(x, list(order))) >= observed for order in orders) / len(orders)


def claims(table: dict[str, dict[float, dict]]) -> str:
    """What this run says of the paper's four claims, with the numbers."""
    lines = [
        "**The paper's claims in this run** (W2² x 10⁻³ along w_R; steps below the ± count as level)",
        "",
    ]

    def say(claim: str, dataset: str, verdict: str, why: str) -> None:
        lines.append(f"- {claim}, {dataset}: **{verdict}**, {why}.")

    for dataset, by_weight in table.items():
        weights = sorted(by_weight)
        if len(weights) < 2:
            lines.append(f"- {dataset}: one weight only, nothing to compare.")
            continue
        runs = [by_weight[w] for w in weights]
        along = "w_R = " + ", ".join(f"{w:g}" for w in weights)

        def column(name: str, runs=runs) -> tuple[list[float], list[float]]:
            entries = [run["w2"][name] for run in runs]
            return [e["value"] for e in entries], [e["floor"] for e in entries]

        verdict, path = _trend(*column("ODE-SDE"), rising=False)
        say("1 the gap falls monotonically", dataset, verdict, f"{path} at {along}")
        verdict, path = _trend(*column("SDE-data"), rising=True)
        say("2 the SDE gets worse monotonically", dataset, verdict, f"{path}")
        ode, floor = column("ODE-data")
        # By how much the ODE goes the way of the claim, and the errors of that.
        moves = [
            ((v - ode[0]) * (1 if w >= 10 else -1), f + floor[0])
            for w, v, f in zip(weights, ode, floor, strict=True)
            if 0 < w <= 1 or w >= 10
        ]
        holds, fails = all(m > e for m, e in moves), any(m < -e for m, e in moves)
        path = " → ".join(f"{1e3 * v:.2f}" for v in ode)
        better = " and ".join(f"{w:g}" for w in weights if 0 < w <= 1)
        parts = [f"better at {better}"] if better else []
        parts += ["worse at 10"] if weights[-1] >= 10 else []
        what = "3 the ODE gets " + " and ".join(parts)
        say(what, dataset, _verdict(holds, fails), path)
        residual = [run["residual"]["value"] for run in runs]
        excess = [run["excess_loss"]["value"] for run in runs]
        if len(runs) > 2:
            up, down = (rank(residual, v) for v in (column("ODE-SDE")[0], excess))
            lucky = max(chance(residual, v) for v in (column("ODE-SDE")[0], excess))
            say(
                "4 R̃ rises with the gap and falls with L_DSM",
                dataset,
                "cannot be said" if lucky > 0.1 else _verdict(up > 0 > down, not up > 0 > down),
                f"Spearman {up:+.2f} and {down:+.2f} over {len(runs)} models; chance alone gives the "
                f"weaker of them in {lucky:.0%} of cases",
            )
        else:
            lines.append(f"- 4 R̃ and the gap, {dataset}: two models give no correlation.")
    return "\n".join([*lines, *_overall(table), ""])


def _overall(table: dict[str, dict[float, dict]]) -> list[str]:
    """What the run says of all its models together."""
    lines = []
    everything = [run for by_weight in table.values() for run in by_weight.values()]
    if len(everything) > 3:
        overall = rank(
            [run["residual"]["value"] for run in everything],
            [run["w2"]["ODE-SDE"]["value"] for run in everything],
        )
        lines.append(
            f"- Spearman of R̃ and the gap over all {len(everything)} models: {overall:+.3f}."
        )
    above = [row for row in rows_of(table) if row["published"] is not None]
    if not above:
        return lines
    worse = [r for r in above if r["w2_squared"] > r["published"] + r["published_floor"]]
    lines.append(
        f"- {len(above) - len(worse)} of {len(above)} entries are not above their published "
        "counterpart by more than its floor"
        + "".join(
            f"; {r['dataset']} w_R = {r['fp_weight']:g} {r['comparison']} is: "
            f"{1e3 * r['w2_squared']:.2f} against {1e3 * r['published']:.2f}"
            for r in worse
        )
        + "."
    )
    return lines


def write_tables(out: pathlib.Path, runs: list[pathlib.Path]) -> str:
    """`tables.md`, `tables.csv` and `tables.json` in `out`; returns the Markdown."""
    table = load_numbers(runs)
    rows = rows_of(table)
    text = markdown_tables(table) + "\n" + claims(table)
    (out / "tables.md").write_text(text)
    (out / "tables.json").write_text(json.dumps(rows, indent=1))
    with open(out / "tables.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return text


def insert_tables(page: pathlib.Path, text: str) -> None:
    """Puts the tables between the two marker lines of a page."""
    before, rest = page.read_text().split(BEGIN, 1)
    after = rest.split(END, 1)[1]
    page.write_text(f"{before}{BEGIN}\n\n{text.strip()}\n\n{END}{after}")
