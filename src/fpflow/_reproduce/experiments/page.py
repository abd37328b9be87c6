"""The table, the figure and the page of an experiment, from its numbers alone."""

import csv
import io
import math
import pathlib

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from ..._errors import mean_and_error
from ..._files import write_whole
from ..._shown import rounded
from .base import Experiment, Numbers

BEGIN = "<!-- table of the experiment begin -->"
END = "<!-- table of the experiment end -->"


def table_of(experiment: Experiment, found: dict[str, list[Numbers]], scale: float = 1.0) -> str:
    """What is told of each variant, a row for each."""
    lines = [
        "| variant | " + " | ".join(experiment.columns.values()) + " |",
        "|---|" + "---|" * len(experiment.columns),
    ]
    means = {
        name: {column: told(experiment, column, rows) for column in experiment.columns}
        for name, rows in found.items()
    }
    for name, row in means.items():
        cells = []
        for mean, error in row.values():
            text = rounded(mean, error) if error > 0 else f"{mean:.3g}"
            cells.append(text if math.isfinite(mean) else "–")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    number = max(len(rows) for rows in found.values())
    words = (
        f"Means over {number} seeds; two of the errors hold the mean over all seeds in 95 % of "
        "cases, with Student's factor for so few. Of times, the smallest."
        if number > 1
        else "One seed: how much of a difference is chance is not known."
    )
    if scale < 1:
        words += f" At --scale {scale:g}: numbers to try the command with, not to quote."
    return "\n".join([*lines, "", words])


def told(experiment: Experiment, column: str, rows: list[Numbers]) -> tuple[float, float]:
    """The mean over seeds and its error; of times the smallest, and no error."""
    values = [row[column] for row in rows]
    return (min(values), 0.0) if column in experiment.times else over_seeds(values)


def over_seeds(values: list[float]) -> tuple[float, float]:
    """The mean and its standard error; with one seed no error is known."""
    if len(values) < 2:
        return values[0], 0.0
    mean, error = mean_and_error(np.asarray(values, float))
    return float(mean), float(error)


def figure_of(experiment: Experiment, found: dict[str, list[Numbers]]):
    """A panel for each number, a row for each variant, a dot for each seed."""
    columns, names = list(experiment.columns), list(found)
    height = 1.2 + 0.24 * len(names)
    figure, axes = plt.subplots(
        1,
        len(columns),
        figsize=(2.2 * len(columns) + 2.6, height),
        sharey=True,
        layout="constrained",
    )
    for column, ax in zip(columns, np.atleast_1d(axes), strict=True):
        for row, name in enumerate(names):
            values = [numbers[column] for numbers in found[name]]
            ax.plot(values, [row] * len(values), "o", ms=4, alpha=0.6, color="C0")
            ax.plot(told(experiment, column, found[name])[0], row, "|", ms=12, color="k")
        shown = [numbers[column] for rows in found.values() for numbers in rows]
        if 0 < 1.5 * min(shown) < max(shown):
            ax.set_xscale("log")
            # Few labels, and plain ones: those of matplotlib overlap within a decade.
            span = max(shown) / min(shown)
            marks = (1, 2, 5) if span < 20 else (1, 3) if span < 1000 else (1,)
            ax.xaxis.set_major_locator(LogLocator(subs=marks))
            ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            ax.xaxis.set_minor_formatter(NullFormatter())
        else:
            ax.xaxis.set_major_locator(MaxNLocator(4))
        ax.set_title(experiment.columns[column].replace(", ", "\n", 1), fontsize=8)
        ax.grid(alpha=0.3, axis="x")
        ax.tick_params(labelsize=7)
    first = np.atleast_1d(axes)[0]
    first.set_yticks(range(len(names)), names, fontsize=7)
    first.invert_yaxis()
    return figure


def write_page(
    experiment: Experiment,
    found: dict[str, list[Numbers]],
    out: pathlib.Path,
    scale: float = 1.0,
) -> str:
    """Writes `numbers.csv`, `figure.png` and `figure.pdf`, and the table into `index.md`, whose other
    words stay. Returns the table."""
    table = table_of(experiment, found, scale)
    content = io.StringIO()
    rows = [(name, k, *row.values()) for name, of in found.items() for k, row in enumerate(of)]
    csv.writer(content).writerows([("variant", "seed", *experiment.columns), *rows])
    write_whole(out / "numbers.csv", content.getvalue().encode())
    figure = figure_of(experiment, found)
    for ending in ("png", "pdf"):
        figure.savefig(out / f"figure.{ending}", dpi=150)
    plt.close(figure)
    page = out / "index.md"
    picture = "![One dot for each seed; a bar at the number of the table](figure.png)"
    block = f"{BEGIN}\n\n{table}\n\n{picture}\n\n{END}"
    if page.exists() and BEGIN in page.read_text():
        text = page.read_text()
        text = text[: text.index(BEGIN)] + block + text[text.index(END) + len(END) :]
    else:
        text = f"# {experiment.name.capitalize()}\n\n{experiment.question}\n\n{block}\n"
    write_whole(page, text.encode())
    return table
