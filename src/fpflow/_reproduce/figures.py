"""The paper's figures from saved numbers alone."""

import pathlib

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import scipy

import fpflow

from .tables import load_numbers

WINDOW = fpflow.Window()


def draw_figures(
    out: pathlib.Path, runs: list[pathlib.Path], curl_run: pathlib.Path | None
) -> list:
    """Draws every figure that the saved numbers allow into `out/figures`; returns the files."""
    folder = out / "figures"
    folder.mkdir(exist_ok=True)
    table = load_numbers(runs)
    where = {
        (numbers["dataset"], numbers["fp_weight"]): run
        for run, numbers in zip(
            runs, (n for by_weight in table.values() for n in by_weight.values()), strict=True
        )
    }
    drawn = []

    def keep(figure, name: str) -> None:
        figure.savefig(folder / f"{name}.png", dpi=150)
        figure.savefig(folder / f"{name}.pdf")  # lines and letters as such, for print
        plt.close(figure)
        drawn.append(folder / f"{name}.png")

    masses = {}
    for dataset, by_weight in table.items():
        arrays = {w: dict(np.load(where[dataset, w] / "numbers.npz")) for w in by_weight}
        masses[dataset] = next(iter(arrays.values()))["data"]
        histories = {w: np.load(where[dataset, w] / "network.npz") for w in by_weight}
        keep(_densities(dataset, by_weight, arrays), f"densities-{dataset}")
        keep(_differences(dataset, by_weight, arrays), f"differences-{dataset}")
        warm = {w for w, numbers in by_weight.items() if _is_warm(numbers)}
        keep(_losses(dataset, histories, warm), f"losses-{dataset}")
    keep(_data_laws(masses), "data")
    if len(where) > 1:
        keep(_gap(table), "gap-against-residual")
        if any(0.0 in by_weight for by_weight in table.values()):
            keep(_excess(table), "excess-loss-against-residual")
    if curl_run is not None:
        keep(_curl(curl_run), "curl-circles")
    return drawn


def _data_laws(masses: dict[str, np.ndarray]):
    names = list(masses)
    figure, axes = plt.subplots(
        1, len(names), figsize=(4.2 * len(names), 3.6), layout="constrained", squeeze=False
    )
    for ax, name in zip(axes[0], names, strict=True):
        fpflow.plot.density(masses[name], WINDOW, ax=ax, title=name)
    return figure


def _densities(dataset: str, by_weight: dict, arrays: dict):
    """Rows SDE and ODE, a column per weight, the data beside them, one colour scale for all."""
    weights = sorted(by_weight)
    data = arrays[weights[0]]["data"]
    vmax = data.max() / WINDOW.cell_width**2
    columns = len(weights) + 1
    figure, axes = plt.subplots(
        2,
        columns,
        figsize=(2.7 * columns + 0.8, 5.6),
        layout="constrained",
        sharex=True,
        sharey=True,
    )
    for row, (law, name) in enumerate((("sde", "SDE"), ("ode", "ODE"))):
        for column, weight in enumerate(weights):
            w2 = by_weight[weight]["w2"]
            gap = f"gap {1e3 * w2['ODE-SDE']['value']:.2f}, " if row == 0 else ""
            fpflow.plot.density(
                arrays[weight][law], WINDOW, ax=axes[row, column], vmax=vmax, colorbar=False
            )
            axes[row, column].set_title(
                f"{name}, $w_R$ = {weight:g}\n{gap}to data {1e3 * w2[f'{name}-data']['value']:.2f}",
                fontsize="medium",
            )
    fpflow.plot.density(data, WINDOW, ax=axes[0, -1], vmax=vmax, colorbar=False)
    axes[0, -1].set_title("data\n", fontsize="medium")
    axes[1, -1].axis("off")
    for ax in axes.flat:
        ax.label_outer()
    axes[0, -1].xaxis.set_tick_params(labelbottom=True)
    axes[0, -1].set_xlabel("$x_1$")
    figure.colorbar(axes[0, 0].images[0], ax=axes, label="density", shrink=0.7, extend="max")
    figure.suptitle(f"{dataset}: both distributions; distances are $W_2^2\\times10^3$")
    return figure


def _differences(dataset: str, by_weight: dict, arrays: dict):
    """What the densities hide: a row per pair of distributions, a column per weight, one scale."""
    pairs = {"SDE-data": ("sde", "data"), "ODE-data": ("ode", "data"), "ODE-SDE": ("ode", "sde")}
    weights = sorted(by_weight)
    apart = {(n, w): arrays[w][a] - arrays[w][b] for n, (a, b) in pairs.items() for w in weights}
    vmax = float(np.quantile(np.abs(np.stack(list(apart.values()))), 0.998))
    vmax /= WINDOW.cell_width**2
    columns = len(weights)
    figure, axes = plt.subplots(
        3,
        columns,
        figsize=(2.5 * columns + 1.2, 7.8),
        layout="constrained",
        sharex=True,
        sharey=True,
        squeeze=False,
    )
    for row, name in enumerate(pairs):
        for column, weight in enumerate(weights):
            ax, w2 = axes[row, column], 1e3 * by_weight[weight]["w2"][name]["value"]
            fpflow.plot.difference(apart[name, weight], WINDOW, ax=ax, vmax=vmax, colorbar=False)
            words = f"{name.replace('-', ' − ')}, $w_R$ = {weight:g}\n$W_2^2$ = {w2:.2f}"
            ax.set_title(f"{words} $\\times 10^{{-3}}$", fontsize="medium")
            ax.label_outer()
    bar = figure.colorbar(axes[0, 0].images[0], ax=axes, shrink=0.6, extend="both")
    bar.set_label("difference of densities")
    figure.suptitle(f"{dataset}: differences of the densities, on one scale")
    return figure


def _is_warm(numbers: dict) -> bool:
    """Whether a network starts from that of the next smaller weight."""
    return numbers["fp_weight"] > 0 and numbers.get("settings", {}).get("warm_start", False)


def _first_steps(arrays: dict, warm: set[float]) -> dict[float, int]:
    """The steps of the networks that each one starts from, where their histories are here."""
    first = {}
    for weight in arrays:
        chain = [w for w in fpflow.paper.FP_WEIGHTS if w < weight] if weight in warm else []
        whole = all(w in arrays for w in chain)
        first[weight] = sum(int(arrays[w]["history_step"][-1]) for w in chain) if whole else 0
    return first


def _losses(dataset: str, arrays: dict, warm: set[float]):
    first = _first_steps(arrays, warm)

    def histories(part: str) -> dict:
        return {
            f"$w_R$ = {w:g}": fpflow.History(
                first[w] + a["history_step"],
                a["history_dsm"],
                {k.removeprefix("history_"): a[k] for k in (f"history_{part}",) if k in a},
                a["history_seconds"],
            )
            for w, a in sorted(arrays.items())
        }

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    fpflow.plot.loss_curves(histories("dsm"), part="dsm", ax=axes[0])
    fpflow.plot.loss_curves(histories("fp"), part="fp", ax=axes[1])
    if not axes[1].lines:
        axes[1].axis("off")
    words = "; each network starts from that of the next smaller weight" if warm else ""
    figure.suptitle(f"{dataset}: loss during training{words}")
    return figure


def _series(table: dict, value, error) -> tuple[dict, dict, dict, dict]:
    parts = ({}, {}, {}, {})
    for dataset, by_weight in table.items():
        runs = [by_weight[w] for w in sorted(by_weight)]
        parts[0][dataset] = [run["residual"]["value"] for run in runs]
        parts[1][dataset] = [value(run, runs[0]) for run in runs]
        parts[2][dataset] = [f"$w_R$ = {w:g}" for w in sorted(by_weight)]
        parts[3][dataset] = [error(run) for run in runs]
    return parts


def _gap(table: dict):
    gap = "ODE-SDE"
    residual, values, labels, floors = _series(
        table, lambda run, _: run["w2"][gap]["value"], lambda run: run["w2"][gap]["floor"]
    )
    axes = fpflow.plot.against_residual(
        residual, values, labels, errors=floors, ylabel="gap: $W_2^2$(ODE, SDE)"
    )
    for name, ax in zip(residual, axes, strict=True):
        if len(values[name]) > 3:
            rank = scipy.stats.spearmanr(residual[name], values[name])[0]
            ax.set_title(f"{name}, Spearman {rank:+.2f}")
    return axes[0].figure


def _excess(table: dict):
    """Differences to the plain network at common noise, with their paired standard errors."""
    table = {name: runs for name, runs in table.items() if 0.0 in runs}
    residual, values, labels, errors = _series(
        table,
        lambda run, _: run["excess_over_plain"]["value"],
        lambda run: 2 * run["excess_over_plain"]["standard_error"],
    )
    axes = fpflow.plot.against_residual(
        residual,
        values,
        labels,
        errors=errors,
        log=False,
        ylabel="excess $L_\\mathrm{DSM}$ over its value at $w_R$ = 0\n(bars: two standard errors)",
    )
    return axes[0].figure


def _curl(run: pathlib.Path):
    arrays = np.load(run / "numbers.npz")
    vmax = float(np.quantile(np.abs(arrays["score"]), 0.99))
    figure, axes = plt.subplots(1, 3, figsize=(12.4, 3.8), layout="constrained")
    axes[0].plot(*arrays["samples"].T, ".", ms=1.5, alpha=0.5)
    edge = (WINDOW.low, WINDOW.high)
    axes[0].set(xlim=edge, ylim=edge, aspect="equal", title="score network, samples of its SDE")
    for ax, name in zip(axes[1:], ("score", "potential"), strict=True):
        largest = np.abs(arrays[name]).max()
        fpflow.plot.curl(
            arrays[name],
            WINDOW,
            ax=ax,
            vmax=vmax,
            title=f"{name} network, largest value {largest:.2g}",
        )
    return figure
