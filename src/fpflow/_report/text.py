"""The report as text and as HTML: the verdict, then a table for every section."""

import dataclasses
import html
from typing import Any

import numpy as np

from .._shown import rounded


@dataclasses.dataclass(frozen=True)
class Section:
    """One table, or lines where it has no columns."""

    title: str
    header: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    lines: tuple[str, ...] = ()


def as_text(report: Any) -> str:
    """All sections that the report has numbers for."""
    lines = [f"Gap between ODE and SDE in dimension {report.dim}", "", *report.verdict]
    for section in sections(report):
        lines += ["", section.title, *_table(section), *(f"- {line}" for line in section.lines)]
    return "\n".join(lines)


def as_html(report: Any) -> str:
    """The same as tables, for notebooks."""
    parts = [f"<h3>Gap between ODE and SDE in dimension {report.dim}</h3>"]
    parts += [f"<p>{html.escape(sentence)}</p>" for sentence in report.verdict]
    for section in sections(report):
        parts.append(f"<h4>{html.escape(section.title)}</h4>")
        if section.header:
            rows = [_row(section.header, "th"), *(_row(row, "td") for row in section.rows)]
            parts.append(f"<table>{''.join(rows)}</table>")
        if section.lines:
            items = (f"<li>{html.escape(line)}</li>" for line in section.lines)
            parts.append(f"<ul>{''.join(items)}</ul>")
    return "\n".join(parts)


def _row(cells: tuple[str, ...], tag: str) -> str:
    return f"<tr>{''.join(f'<{tag}>{html.escape(cell)}</{tag}>' for cell in cells)}</tr>"


def _table(section: Section) -> list[str]:
    """Aligned columns under a header and a rule."""
    if not section.header:
        return []
    rows = [section.header, *section.rows]
    widths = [max(len(row[k]) for row in rows) for k in range(len(section.header))]

    def line(row: tuple[str, ...]) -> str:
        padded = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        return "  ".join([row[0].ljust(widths[0]), *padded]).rstrip()

    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    return [line(rows[0]), rule, *(line(row) for row in rows[1:])]


def sections(report: Any) -> list[Section]:
    """Those of the report that have something to say."""
    found = (
        _nats(report.nats),
        _split(report),
        _exact_laws(report.grid_distances),
        _between_samples(report.sample_distances),
        _pointwise(report.pointwise),
        _residual(report.residual),
        _curl(report),
        _account(report.kl),
        _theorem(report),
        _family(report),
        Section("Notes", lines=report.notes) if report.notes else None,
    )
    return [section for section in found if section is not None]


def _unit(report: Any) -> str:
    return "W2^2" if report.grid_distances else "sliced W2^2"


def _nats(nats: Any) -> Section | None:
    if nats is None:
        return None
    rows = [
        ("KL(SDE | ODE), at samples of the SDE", str(nats.kl_sde_ode)),
        ("KL(ODE | SDE), at samples of the ODE", str(nats.kl_ode_sde)),
    ]
    for name, nll, kl in (
        ("ODE", nats.nll_ode, nats.kl_data_ode),
        ("SDE", nats.nll_sde, nats.kl_data_sde),
    ):
        if nll is not None:
            bits = nats.bits(nll)
            rows += [(f"negative log-likelihood of the points, {name}", str(nll))]
            rows += [(f"the same in bits per dimension, {name}", str(bits))]
        if kl is not None:
            rows += [(f"KL(data | {name})", str(kl))]
    if nats.nearer is not None:
        rows += [("the SDE is nearer to the data by", str(nats.nearer))]
    rows += [("bias of log Z, samples of the SDE weighted by log p_ODE", str(nats.mixing_bias))]
    for name, apart, kl in (
        ("ODE", nats.potential_ode, nats.kl_ode_potential),
        ("SDE", nats.potential_sde, nats.kl_sde_potential),
    ):
        if apart is not None:
            mean, spread = apart
            rows += [(f"log p_{name} - u at its samples: mean", str(mean))]
            rows += [("its standard deviation", f"{spread:.3g}")]
            rows += [(f"KL({name} | e^u/Z)", str(kl))]
    return Section("The gap in nats, in any dimension", ("", "nats"), tuple(rows))


def _split(report: Any) -> Section:
    split = report.split
    parts = [
        ("model: the two exact distributions", split.model),
        ("steps of the samplers", split.discretisation),
        ("finite number of samples", split.noise),
        ("cells", split.binning),
        ("sum of the four parts", split.total),
        ("observed between samples", split.observed),
        ("observed minus the sum", split.unexplained),
    ]
    rows = tuple((name, str(e), e.kind) for name, e in parts)
    return Section(
        f"Where the observed {_unit(report)} comes from", ("part of the gap", "value", "kind"), rows
    )


def _exact_laws(distances: Any) -> Section | None:
    if not distances:
        return None
    rows = []
    for pair, found in distances.items():
        w2 = f"{found['W2^2'].value:.3g}" if "W2^2" in found else ""
        others = ("W2^2 without cells", "TV", "KL", "Hellinger")
        rows.append((pair, w2, *(str(found.get(name, "")) for name in others)))
    header = ("pair", "W2^2", "without cells", "TV", "KL (nats)", "Hellinger")
    title = "Exact distributions on the window (± floor of the grid; a pair a-b has KL(a | b))"
    return Section(title, header, tuple(rows))


def _between_samples(distances: Any) -> Section:
    rows = [
        (pair, name, rounded(d.value, d.standard_error), rounded(d.floor, d.floor_error))
        for pair, found in distances.items()
        for name, d in found.items()
    ]
    title = "Between samples (a value near its floor only says that they are no further apart than this)"
    return Section(title, ("pair", "distance", "value", "floor"), tuple(rows))


def _pointwise(gaps: Any) -> Section | None:
    if not gaps:
        return None
    names = {"points": "the points", "SDE": "samples of the SDE", "ODE": "samples of the ODE"}
    rows = []
    for name, gap in gaps.items():
        apart = gap.log_p_sde - gap.log_p_ode
        believed = f"{int(gap.reliable.sum())} of {len(gap.x)}"
        numbers = (f"{np.median(apart):.3g}", f"{gap.spread:.3g}", f"{np.median(gap.error):.2g}")
        rows.append((names[name], str(gap.mean), *numbers, believed))
    header = ("at", "mean", "median", "deviation", "error per point", "reliable")
    return Section("log p_SDE - log p_ODE point by point, in nats", header, tuple(rows))


def _residual(r: Any) -> Section | None:
    if r is None:
        return None
    rows = tuple(
        (
            f"{a:.3g} to {b:.3g}",
            rounded(float(r.value[k]), float(r.standard_error[k])),
            rounded(float(r.spatial[k]), float(r.spatial_standard_error[k])),
            f"{float(r.value[k] - r.spatial[k]):.3g}",
        )
        for k, (a, b) in enumerate(zip(r.edges[:-1], r.edges[1:], strict=True))
    )
    title = "Fokker-Planck residual under p_t; the gauge part affects no sampler"
    return Section(title, ("time", "mean r^2", "part in x", "gauge"), rows)


def _curl(report: Any) -> Section | None:
    curl, share = report.curl, report.not_gradient
    lines = ()
    if share is not None:
        lines = (f"share of E|s|^2 at t0 that is not a gradient: {share:.2g}",)
    if curl is None:
        return Section("Curl of the score", lines=lines) if lines else None
    title = "Curl of the score under p_t (zero for a gradient)"
    if curl.relative.max() < 1e-5:
        return Section(title, lines=("none: the score is a gradient", *lines))
    columns = zip(curl.times, curl.rms, curl.error, curl.relative, strict=True)
    rows = tuple((f"{t:.3g}", rounded(float(a), float(e)), f"{b:.2g}") for t, a, e, b in columns)
    return Section(title, ("time", "rms curl", "relative to the Jacobian"), rows, lines)


def _family(report: Any) -> Section | None:
    rows = tuple(
        (f"{row['eta']:g}", *(str(row[name]) for name in ("to_data", "to_ODE") if row[name]))
        for row in report.etas
    )
    if not rows:
        return None
    with_data = report.etas[0]["to_data"] is not None
    header = ("eta (0 = ODE, 1 = SDE)", *(("to the data",) if with_data else ()), "to the ODE")
    cells = ", on the cells" if report.densities else ""
    title = f"The family dx = [f - (1 + eta^2)/2 g^2 s]dt + eta g dW, {_unit(report)}{cells}"
    return Section(title, header, rows)


def _account(kl: Any) -> Section | None:
    if kl is None:
        return None
    parts = (
        ("prior: KL(p_T | pi)", kl.prior),
        ("score matching", kl.score_matching),
        ("difference of the flows", kl.difference),
        ("bound on KL(data | SDE)", kl.bound_sde),
        ("KL(data | ODE) from the equality", kl.kl_ode),
    )
    return Section("KL decomposition", ("", "nats"), tuple((name, str(e)) for name, e in parts))


def _theorem(report: Any) -> Section | None:
    theorem = report.theorem
    if theorem is None:
        return None
    rows = (
        ("measured W2", report.split.model.value**0.5),
        ("G D, D from the densities", theorem.bound_from_densities),
        ("bound from the residual", theorem.bound),
        ("the same by one constant and R~ alone", theorem.bound_by_delta[0]),
        ("growth G of the flow", theorem.growth),
        ("D from the densities", theorem.distance),
        ("D from the identity", theorem.distance_by_identity),
        ("B, of the order of the square root of the residual", theorem.forcing),
        ("KL(pi | p_T), the prior term", theorem.prior_term),
        ("largest Lipschitz constant", theorem.lipschitz.max()),
        ("largest Poincare constant", theorem.poincare.max()),
        ("largest sup of p_SDE / exp(u)", theorem.ratio.max()),
    )
    shown = tuple((name, f"{float(value):.3g}") for name, value in rows)
    return Section("Theorem 1 in numbers", ("", "W2"), shown)
