"""Single panels: densities, differences, curls, losses and scatters."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullFormatter

from .._terms import HELD_OUT
from .._train import History
from .._window import GridDensity, Window

# Okabe and Ito: told apart by colour-blind readers and in grey print; each with its own marker.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P")


def new_axes(ax: Axes | None) -> Axes:
    """The Axes given, or new ones."""
    return plt.subplots(layout="constrained")[1] if ax is None else ax


def density(
    mass: np.ndarray,
    window: Window | None = None,
    *,
    ax: Axes | None = None,
    vmax: float | None = None,
    title: str = "",
    colorbar: bool = True,
) -> Axes:
    """A mass on a window as a density per unit of area.

    **Arguments:**

    - `mass`: probabilities of the cells, shape `(nodes, nodes)`, indexed `[x1, x2]`.
    - `window`: the window of the mass, `Window()` by default.
    - `vmax`: the top of the colour scale; use the same value for all panels that are compared.
    """
    window = Window() if window is None else window
    mass = np.asarray(mass)
    if mass.shape != window.shape:
        raise ValueError(f"`mass` must have the window's shape {window.shape}, got {mass.shape}.")
    ax, edges = new_axes(ax), window.edges()
    image = ax.imshow(
        mass.T / window.cell_width**2,
        origin="lower",
        extent=(edges[0], edges[-1], edges[0], edges[-1]),
        vmin=0,
        vmax=vmax,
        cmap="viridis",
        interpolation="nearest",
    )
    ax.set(xlabel="$x_1$", ylabel="$x_2$", title=title)
    if colorbar:
        ax.figure.colorbar(image, ax=ax, label="density")
    return ax


def densities(laws: Mapping[str, GridDensity], *, axes: Sequence[Axes] | None = None) -> list[Axes]:
    """Distributions in the plane side by side on one colour scale.

    **Arguments:**

    - `laws`: grid densities on one window, by the name of their distribution.
    - `axes`: one Axes for each of them; a new row by default.

    **Raises:** `ValueError` for distributions on different windows.
    """
    windows = {law.window for law in laws.values()}
    if len(windows) != 1:
        raise ValueError(f"`laws` must share one window, got {len(windows)}.")
    (window,) = windows
    if axes is None:
        width = 3.6 * len(laws) + 0.8
        _, row = plt.subplots(1, len(laws), figsize=(width, 3.4), layout="constrained")
        axes = list(np.atleast_1d(row))
    # The 99.8th percentile keeps single sharp cells from darkening the rest.
    top = max(float(np.quantile(law.mass, 0.998)) for law in laws.values()) / window.cell_width**2
    names = list(laws)
    return [
        density(
            np.asarray(laws[name].mass),
            window,
            ax=ax,
            vmax=top,
            title=name,
            colorbar=name == names[-1],
        )
        for name, ax in zip(names, axes, strict=True)
    ]


def difference(
    mass: np.ndarray,
    window: Window,
    *,
    ax: Axes | None = None,
    vmax: float | None = None,
    title: str = "",
    colorbar: bool = True,
) -> Axes:
    """The difference of two masses on a window as a density, on a scale symmetric about zero.

    **Arguments:**

    - `mass`: the difference of the cell probabilities, shape `(nodes, nodes)`.
    - `window`: the window of both.
    - `vmax`: the end of the scale, so that several differences can share one; by default the 99.8th
      percentile.
    """
    ax, edges = new_axes(ax), window.edges()
    values = np.asarray(mass).T / window.cell_width**2
    top = max(float(np.quantile(np.abs(values), 0.998)), 1e-12) if vmax is None else vmax
    image = ax.imshow(
        values,
        origin="lower",
        extent=(edges[0], edges[-1], edges[0], edges[-1]),
        vmin=-top,
        vmax=top,
        cmap="RdBu_r",
        interpolation="nearest",
    )
    ax.set(xlabel="$x_1$", ylabel="$x_2$", title=title)
    if colorbar:
        ax.figure.colorbar(image, ax=ax, label="difference of densities", extend="both")
    return ax


def curl(
    values: np.ndarray,
    window: Window,
    *,
    ax: Axes | None = None,
    vmax: float | None = None,
    title: str = "",
) -> Axes:
    r"""The size of the curl of a score, $\|\nabla\times s\|$, at the nodes of a window."""
    ax, edges = new_axes(ax), window.edges()
    image = ax.imshow(
        np.abs(values).T,
        origin="lower",
        extent=(edges[0], edges[-1], edges[0], edges[-1]),
        vmin=0,
        vmax=vmax,
        cmap="magma",
    )
    ax.set(xlabel="$x_1$", ylabel="$x_2$", title=title)
    ax.figure.colorbar(image, ax=ax, label=r"$\|\nabla\times s(t_0, x)\|$")
    return ax


_HELD_OUT = (
    (HELD_OUT[0], ":", "fixed noise, training points"),
    (HELD_OUT[1], "--", "fixed noise, held-out points"),
)


def loss_curves(
    histories: Mapping[str, History], *, part: str = "dsm", ax: Axes | None = None
) -> Axes:
    """One term of the loss against the step, with one line per run.

    **Arguments:**

    - `histories`: histories by the name of their run.
    - `part`: the name of a term. Score matching, `"dsm"`, has a linear scale cut to the bulk of the
      values, the others a logarithmic one. Runs without the term are left out. If points were held out,
      the panel of score matching also shows its value with fixed noise on the training points and on the
      held-out points. Otherwise a running mean is drawn over the values of single batches, which are
      noisy.
    """
    ax, seen = new_axes(ax), []
    for (name, history), colour in zip(histories.items(), COLOURS * 9, strict=False):
        values = history.terms.get(part, np.full(1, np.nan))
        if not np.isfinite(values).any():
            continue
        held = part == "dsm" and HELD_OUT[1] in history.terms
        # The noise of the batches hides what their mean, or one noise on the same points, shows.
        width = len(values) // 10 if part == "dsm" and not held else 0
        pale = 0.35 if held or width > 1 else 1
        (line,) = ax.plot(history.step, values, label=name, color=colour, lw=1, alpha=pale)
        if width > 1:
            mean, first = np.convolve(values, np.full(width, 1 / width), "valid"), width // 2
            middle = history.step[first : first + len(mean)]
            ax.plot(middle, mean, color=colour, lw=1.6, label=name)
            line.set_label("_batches")
        seen.append(values[len(values) // 10 :])
        for column, style, words in _HELD_OUT if held else ():
            ax.plot(history.step, history[column], style, label=words, color=colour, lw=1.4)
            seen.append(history[column][len(values) // 10 :])
    if part != "dsm":
        ax.set_yscale("log")
    elif seen:
        low, high = np.quantile(np.concatenate(seen), [0, 0.995])
        ax.set_ylim(low - 0.1 * (high - low), high + 0.3 * (high - low))
    label = {"dsm": r"$L_\mathrm{DSM}$", "fp": r"penalty $E\,r^2$"}.get(part, part)
    ax.set(xlabel="step", ylabel=label)
    ax.locator_params(axis="x", nbins=5)
    if seen:
        ax.legend(frameon=False, fontsize="small")
    return ax


def against_residual(
    residual: Mapping[str, Sequence[float]],
    values: Mapping[str, Sequence[float]],
    labels: Mapping[str, list[str]],
    *,
    errors: Mapping[str, Sequence[float]] | None = None,
    ylabel: str,
    log: bool = True,
    axes: Sequence[Axes] | None = None,
) -> list[Axes]:
    r"""A number against $\tilde R$, with one panel per data set and one marker per label.

    **Arguments:**

    - `residual`, `values`: the coordinates for each data set, joined by a line in their order.
    - `labels`: the name of each point, such as its weight $w_R$; the first panel has the legend.
    - `errors`: half the length of the error bar at each value.
    - `log`: whether the vertical axis is logarithmic; the horizontal one always is.
    - `axes`: one Axes for each data set; a new row by default.
    """
    if axes is None:
        width = 3.4 * len(residual) + 0.4
        _, row = plt.subplots(1, len(residual), figsize=(width, 3.4), layout="constrained")
        axes = list(np.atleast_1d(row))
    names = list(dict.fromkeys(label for of_set in labels.values() for label in of_set))
    looks = dict(zip(names, zip(COLOURS * 9, MARKERS * 9, strict=True), strict=False))
    for name, ax in zip(residual, axes, strict=True):
        ax.plot(residual[name], values[name], ":", color="0.6", lw=1, zorder=1)
        for i, label in enumerate(labels[name]):
            colour, marker = looks[label]
            ax.errorbar(
                residual[name][i],
                values[name][i],
                yerr=None if errors is None else errors[name][i],
                color=colour,
                marker=marker,
                ls="none",
                capsize=3,
                label=label,
            )
        ax.set_xscale("log")
        narrow = max(residual[name]) < 10 * min(residual[name])
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7) if narrow else (1,)))
        ax.xaxis.set_major_formatter("{x:g}")
        ax.xaxis.set_minor_formatter(NullFormatter())
        if log:
            ax.set_yscale("log")
        ax.set(xlabel=r"$\tilde R$ over $\Omega\times[0,T]$", title=name)
        ax.margins(0.15)
    axes[0].set_ylabel(ylabel)
    axes[0].legend(frameon=False, fontsize="small")
    return list(axes)
