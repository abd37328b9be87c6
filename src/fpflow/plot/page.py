"""A gap report as one page."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .._shown import in_notebook
from .panels import COLOURS, densities, difference


def report_page(report: Any) -> Figure:
    """Draws a report on one page: the distributions at the top; below, the split of the gap, its
    pointwise form, its sources and the family.

    **Arguments:**

    - `report`: a `GapReport`.

    **Returns:** a new Figure, which a notebook shows once, as the value of its cell.
    """
    figure, axes = plt.subplots(2, 4, figsize=(16, 8), layout="constrained")
    (_draw_plane if report.densities and report.dim == 2 else _draw_lines)(report, axes[0])
    _draw_split(report.split, axes[1, 0], "$W_2^2$" if report.densities else "sliced $W_2^2$")
    _draw_pointwise(report.pointwise, axes[1, 1])
    _draw_sources(report, axes[1, 2])
    _draw_family(report, axes[1, 3])
    figure.suptitle(f"ODE–SDE gap report, dimension {report.dim}")
    if in_notebook():
        plt.close(figure)  # pyplot would draw it below the cell once more
    return figure


def _draw_plane(report: Any, axes: np.ndarray) -> None:
    laws = report.densities
    window = laws["SDE"].window
    names = [name for name in ("data", "ODE", "SDE") if name in laws]
    densities({name: laws[name] for name in names}, axes=list(axes[: len(names)]))
    for ax in axes[len(names) : 3]:
        ax.set_axis_off()
    difference(laws["SDE"].mass - laws["ODE"].mass, window, ax=axes[3], title="SDE − ODE")


_STYLES = ("-", "--", ":")


def _draw_lines(report: Any, axes: np.ndarray) -> None:
    """Densities on a line, plain and logarithmic, or histograms of coordinates."""
    if report.densities:
        laws = report.densities
        window = laws["SDE"].window
        for (name, law), colour, style in zip(laws.items(), COLOURS, _STYLES, strict=False):
            height = law.mass / window.cell_width
            axes[0].plot(window.centres(), height, style, color=colour, label=name)
            axes[1].semilogy(
                window.centres(), np.maximum(height, 1e-8), style, color=colour, label=name
            )
        apart = (laws["SDE"].mass - laws["ODE"].mass) / window.cell_width
        axes[2].plot(window.centres(), apart, color=COLOURS[0])
        axes[2].axhline(0, color="black", linewidth=0.8)
        axes[0].set(ylabel="density", title="densities")
        axes[1].set(ylabel="density", title="the same, logarithmic scale", ylim=(1e-6, None))
        axes[2].set(ylabel="difference of densities", title="SDE − ODE")
        for ax in axes[:3]:
            ax.set(xlabel="$x$")
        axes[0].legend(frameon=False)
        axes[3].set_axis_off()
        return
    shown = _furthest_apart(report.samples, len(axes))
    for ax in axes[len(shown) :]:
        ax.set_axis_off()
    for k, ax in zip(shown, axes, strict=False):
        everything = np.concatenate([x[:, k] for x in report.samples.values()])
        low, high = np.quantile(everything, [0.001, 0.999])
        edges = np.linspace(low, high, 41)
        for (name, x), colour, style in zip(report.samples.items(), COLOURS, _STYLES, strict=False):
            height, _ = np.histogram(x[:, k], edges, density=True)
            ax.stairs(height, edges, color=colour, linestyle=style, label=name, linewidth=1.5)
        words = (
            f"$x_{{{k + 1}}}$" if report.dim <= len(axes) else f"$x_{{{k + 1}}}$ of {report.dim}"
        )
        ax.set(xlabel=words, ylabel="density")
        ax.legend(frameon=False)
    if report.dim > len(axes):
        axes[0].set_title("coordinates in which the samplers differ most", loc="left")


def _furthest_apart(samples: dict[str, np.ndarray], num: int) -> list[int]:
    """The coordinates in which quantiles of both samplers are the furthest apart, in widths."""
    levels = np.linspace(0.01, 0.99, 99)
    ode, sde = (np.quantile(samples[name], levels, axis=0) for name in ("ODE", "SDE"))
    apart = np.abs(ode - sde).mean(0) / np.maximum(samples["SDE"].std(0), 1e-12)
    return sorted(np.argsort(-apart, kind="stable")[:num].tolist())


def _draw_split(split: Any, ax: Axes, unit: str) -> None:
    names = ["model", "steps", "samples", "cells", "sum", "observed"]
    parts = [
        split.model,
        split.discretisation,
        split.noise,
        split.binning,
        split.total,
        split.observed,
    ]
    colours = [COLOURS[0]] * 4 + ["0.55", COLOURS[1]]
    ax.barh(
        names[::-1],
        [p.value for p in parts[::-1]],
        xerr=[p.error for p in parts[::-1]],
        color=colours[::-1],
        ecolor="black",
        capsize=3,
    )
    ax.axvline(0, color="black", linewidth=0.8)
    ax.locator_params(axis="x", nbins=4)
    ax.set(xlabel=f"{unit} between ODE and SDE samples", title="where the observed gap comes from")


def _draw_pointwise(gaps: Any, ax: Axes) -> None:
    if not gaps:
        ax.set_axis_off()
        return
    gap = gaps.get("points", gaps["SDE"])
    apart = gap.log_p_sde - gap.log_p_ode
    ax.errorbar(
        gap.log_p_ode,
        apart,
        yerr=gap.error,
        fmt="o",
        markersize=3,
        elinewidth=0.7,
        color=COLOURS[0],
        alpha=0.6,
    )
    if not gap.reliable.all():
        ax.plot(
            gap.log_p_ode[~gap.reliable],
            apart[~gap.reliable],
            "x",
            color=COLOURS[1],
            label="unreliable",
        )
        ax.legend(frameon=False)
    ax.axhline(0, color="black", linewidth=0.8)
    ax.set(
        xlabel=r"$\log p_\mathrm{ODE}$ (nats)",
        ylabel=r"$\log p_\mathrm{SDE} - \log p_\mathrm{ODE}$ (nats)",
        title="the gap point by point",
    )


def _draw_sources(report: Any, ax: Axes) -> None:
    profile = report.residual
    if profile is None:
        curl = report.curl
        if curl is None:
            ax.set_axis_off()
            return
        ax.set(
            xlabel="time $t$",
            ylabel="rms curl of the score",
            title="non-gradient part of the score",
        )
        if curl.relative.max() < 1e-5:
            ax.text(
                0.5, 0.5, "no curl: the score is a gradient", ha="center", transform=ax.transAxes
            )
        else:
            ax.errorbar(
                curl.times[1:], curl.rms[1:], curl.error[1:], fmt="o-", color=COLOURS[0], capsize=3
            )
            ax.set(xscale="log")
            if curl.rms[1:].max() > 10 * curl.rms[1:].min():
                ax.set(yscale="log")
            else:
                ax.set(ylim=(0, 1.2 * curl.rms.max()))
        return
    edges = np.concatenate([[profile.edges[1] / 8], profile.edges[1:]])
    middle = np.sqrt(edges[1:] * edges[:-1])
    ax.stairs(profile.value, edges, color="0.6", label="total", linewidth=1.5)
    ax.stairs(profile.spatial, edges, color=COLOURS[0], label="part in $x$", linewidth=1.5)
    ax.errorbar(
        middle,
        profile.spatial,
        yerr=profile.spatial_standard_error,
        fmt="none",
        ecolor=COLOURS[0],
        capsize=3,
    )
    ax.set(
        xscale="log",
        yscale="log",
        xlabel="time $t$",
        ylabel="mean $r^2$ under $p_t$",
        title="Fokker–Planck residual",
    )
    ax.legend(frameon=False)


def _draw_family(report: Any, ax: Axes) -> None:
    if not report.etas:
        ax.set_axis_off()
        return
    eta = [row["eta"] for row in report.etas]
    for name, label, colour, marker in (
        ("to_data", "to the data", COLOURS[1], "s"),
        ("to_ODE", "to the ODE", COLOURS[0], "o"),
    ):
        found = [row[name] for row in report.etas if row[name] is not None]
        if found:
            values, errors = [e.value for e in found], [e.error for e in found]
            ax.errorbar(eta, values, errors, marker=marker, color=colour, label=label, capsize=3)
    ax.set(
        xlabel=r"$\eta$ (0 = ODE, 1 = SDE)",
        ylabel="$W_2^2$" if report.densities else "sliced $W_2^2$",
        title="the family between ODE and SDE",
    )
    ax.set_ylim(bottom=0)
    ax.legend(frameon=False)
