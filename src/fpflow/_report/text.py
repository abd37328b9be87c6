"""The report as text."""

import dataclasses
from typing import Any

from .._metrics import Estimate


def _row(cells: list[str], widths: list[int]) -> str:
    padded = [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)]
    return "  ".join([cells[0].ljust(widths[0]), *padded]).rstrip()


def table(header: list[str], rows: list[list[str]]) -> list[str]:
    """Aligned columns under a header and a rule."""
    widths = [max(len(row[k]) for row in [header, *rows]) for k in range(len(header))]
    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    return [_row(header, widths), rule, *(_row(row, widths) for row in rows)]


def number(value: Any, error: float | None = None) -> str:
    """A number with its error, to the digits the error leaves."""
    return f"{value:.4g}" if error is None else f"{value:.4g} ± {error:.1g}"


def as_text(report: Any) -> str:
    """All sections that the report has numbers for."""
    lines = [f"Gap between ODE and SDE in dimension {report.dim}"]
    for section in (
        _split(report),
        _exact_laws(report.grid_distances),
        _between_samples(report.sample_distances),
        _pointwise(report.pointwise),
        _residual(report.residual),
        _curl(report),
        _account(report.kl),
        _theorem(report),
        _family(report),
        ["Do not overlook:", *(f"- {note}" for note in report.notes)] if report.notes else [],
    ):
        lines += ["", *section] if section else []
    return "\n".join(lines)


def _unit(report: Any) -> str:
    return "W2^2" if report.grid_distances else "sliced W2^2"


def _split(report: Any) -> list[str]:
    split = report.split
    parts = [
        ("model: the two exact laws", split.model),
        ("steps of the samplers", split.discretisation),
        ("finite number of samples", split.noise),
        ("cells", split.binning),
        ("sum of the four", split.total),
        ("observed between samples", split.observed),
    ]
    rows = [[name, number(e.value), f"{e.error:.1g}", e.kind] for name, e in parts]
    return table([f"part of the gap, {_unit(report)}", "value", "error", "kind"], rows)


def _exact_laws(distances: Any) -> list[str]:
    if not distances:
        return []
    rows = []
    for pair, found in distances.items():
        w2 = found["W2^2"]
        shown = [f"{w2.value:.4g} [{w2.lower:.4g}, {w2.upper:.4g}]"]
        others = ("W2^2 without cells", "TV", "KL", "Hellinger")
        rows.append([pair, *shown, *(str(found[name]) for name in others)])
    header = ["pair", "W2^2 [bracket]", "without cells", "TV", "KL (nats)", "Hellinger"]
    title = "Exact laws on the window (± floor of the grid; KL of the first from the second)"
    return [title, *table(header, rows)]


def _between_samples(distances: Any) -> list[str]:
    rows = [
        [pair, name, number(d.value, d.standard_error), f"{d.floor:.2g}"]
        for pair, found in distances.items()
        for name, d in found.items()
    ]
    title = "Between samples (a value near its floor says: not further apart than this)"
    return [title, *table(["pair", "distance", "value", "floor"], rows)]


def _residual(r: Any) -> list[str]:
    if r is None:
        return []
    rows = [
        [
            f"{a:.3g} to {b:.3g}",
            number(r.value[k], r.standard_error[k]),
            number(r.spatial[k], r.spatial_standard_error[k]),
            number(r.value[k] - r.spatial[k]),
        ]
        for k, (a, b) in enumerate(zip(r.edges[:-1], r.edges[1:], strict=True))
    ]
    title = "Fokker-Planck residual under p_t; the gauge part moves no sampler"
    return [title, *table(["time", "mean r^2", "of it in x", "gauge"], rows)]


def _curl(report: Any) -> list[str]:
    rows = [
        [f"{t:.3g}", number(a, e), number(b)]
        for t, a, e, b in zip(*dataclasses.astuple(report.curl), strict=True)
    ]
    lines = ["Curl of the score under p_t (zero for a gradient)"]
    lines += table(["time", "rms curl", "of the Jacobian"], rows)
    if report.not_gradient is not None:
        lines += [f"share of E|s|^2 at t0 that is no gradient: {report.not_gradient:.2g}"]
    return lines


def _family(report: Any) -> list[str]:
    rows = [
        [
            f"{row['eta']:g}",
            *(number(row[name], row[f"{name}_error"]) for name in ("to_data", "to_ODE")),
        ]
        for row in report.etas or []
    ]
    title = f"The family dx = [f - (1 + eta^2)/2 g^2 s]dt + eta g dW, {_unit(report)}"
    header = ["eta (0 = ODE, 1 = SDE)", "to the data", "to the ODE"]
    return [title, *table(header, rows)] if rows else []


def _pointwise(gap: Any) -> list[str]:
    rows = [["mean of log p_SDE - log p_ODE", str(gap.mean)]]
    rows += [["its standard deviation over points, errors taken off", number(gap.spread)]]
    rows += [["median error at a point", number(float(sorted(gap.error)[len(gap.error) // 2]))]]
    rows += [["least share of effective paths", f"{gap.effective_share.min():.0%}"]]
    for name, value in (("ODE", gap.kl_ode), ("SDE", gap.kl_sde)):
        if value is not None:
            rows += [[f"KL of the data from the {name}", str(value)]]
    return table([f"Pointwise at {len(gap.x)} points", "nats"], rows)


def _account(kl: Any) -> list[str]:
    if kl is None:
        return []

    def line(name: str, e: Estimate) -> list[str]:
        return [name, str(e)]

    rows = [
        line("prior: KL(p_T | pi)", kl.prior),
        line("score matching", kl.score_matching),
        line("difference of the flows", kl.difference),
        line("bound of KL(data | SDE)", kl.bound_sde),
        line("KL(data | ODE) by the equality", kl.kl_ode),
    ]
    return table(["KL account", "nats"], rows)


def _theorem(report: Any) -> list[str]:
    theorem = report.theorem
    if theorem is None:
        return []
    measured = report.split.model.value**0.5
    rows = [
        ["measured W2", number(measured)],
        ["G D, D from the densities", number(theorem.bound_from_densities)],
        ["bound by the residual", number(theorem.bound)],
        ["growth G of the flow", number(theorem.growth)],
        ["D from the densities", number(theorem.distance)],
        ["D by the identity", number(theorem.distance_by_identity)],
        ["B, of the order of the root of the residual", number(theorem.forcing)],
        ["KL(pi | p_T), the prior term", number(theorem.prior_term)],
        ["largest Lipschitz constant", number(theorem.lipschitz.max())],
        ["largest Poincare constant", number(theorem.poincare.max())],
        ["largest sup of p_SDE over exp(u)", number(theorem.ratio.max())],
    ]
    return table(["Theorem 1 in numbers", "W2"], rows)
