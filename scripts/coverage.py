"""How often the truth lies within the stated errors, for every estimator that states one.

    python scripts/coverage.py [--runs 200] [--only WORD] [--out docs/reliability.md]

Each runs 200 times with keys or cases of its own whose truth is known: Gaussians mostly, which linear
scores that are wrong lead to. Prints a table and writes the page.
"""

import argparse
import dataclasses
import pathlib
import warnings
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.scipy.stats import multivariate_normal

import fpflow
from fpflow._importance import summed_up
from fpflow._report.pointwise import in_nats, pointwise_gaps
from fpflow._report.split import split_on_grid
from fpflow.datasets import histogram_density

PROCESS = fpflow.OrnsteinUhlenbeck(t1=3.0)
DIM, STEPS = 4, 20


class Wrong(eqx.Module):
    """The potential of a linear score that is no law of data."""

    matrix: jax.Array

    @property
    def dim(self):
        """The dimension of a point."""
        return len(self.matrix)

    def potential(self, t, x):
        """Half the quadratic form."""
        del t
        return x @ self.matrix @ x / 2

    def score(self, t, x):
        """Its gradient."""
        del t
        return self.matrix @ x


class ScoreAlone(eqx.Module):
    """The same without its potential."""

    model: Wrong

    @property
    def dim(self):
        """The dimension of a point."""
        return self.model.dim

    def score(self, t, x):
        """That of the model."""
        return self.model.score(t, x)


def wrong(spread, dim=DIM):
    """Precisions from 2 - spread to 2 + spread: 2 is the stationary law, which no path doubts."""
    return Wrong(jnp.diag(-2.0 + spread * jnp.linspace(-1, 1, dim)))


def chain_law(chain, model):
    """The covariance of a chain, kernel by kernel from the prior."""
    kernels = chain.kernels(PROCESS, np.float64)
    values = np.diag(np.asarray(model.matrix))
    variance = np.full(len(values), PROCESS.prior.std**2)
    for ratio, pull, noise in zip(kernels.ratio, kernels.pull, kernels.noise, strict=True):
        variance = (ratio + pull * values) ** 2 * variance + np.asarray(noise) ** 2
    return variance


def exact_laws(model):
    """Variances of the SDE's and the ODE's law at t0, in closed form for dx = -x dt + dW."""
    a, span = np.diag(np.asarray(model.matrix)), PROCESS.t1 - PROCESS.t0
    start = PROCESS.prior.std**2
    laws = []
    for share, noise in ((1.0, 1.0), (0.5, 0.0)):
        rate = 1 + share * a  # dx = rate x ds backwards
        grown = np.exp(2 * rate * span)
        added = np.where(abs(rate) > 1e-9, (grown - 1) / np.where(rate == 0, 1, 2 * rate), span)
        laws.append(grown * start + noise * added)
    return laws


def log_normal(x, variance):
    return multivariate_normal.logpdf(x, jnp.zeros(x.shape[-1]), jnp.diag(jnp.asarray(variance)))


def at_one_point(call, model, variance, runs):
    """Of a log density, all runs in one call: each row has a key of its own."""
    x = 0.7 * jnp.sqrt(jnp.asarray(variance))
    found = call(model, jnp.broadcast_to(x, (runs, len(x))))
    miss = np.asarray(found.value - log_normal(x, variance))
    return miss, np.asarray(found.standard_error), np.asarray(found.reliable)


def by_residual(model, x):
    return fpflow.log_prob_sde(
        model, PROCESS, x, num_paths=512, num_steps=64, progress=False, key=jr.key(1)
    )


def by_score(model, x):
    return fpflow.log_prob_sde(
        ScoreAlone(model), PROCESS, x, num_paths=512, num_steps=200, progress=False, key=jr.key(2)
    )


def by_filter(model, x):
    # So many steps that their error is no part of what is asked.
    method = fpflow.TwistedFilter(chain=fpflow.GaussianChain(0.3, 200), num_paths=128)
    return fpflow.log_prob_sde(
        model, PROCESS, x, num_paths=1024, method=method, progress=False, key=jr.key(3)
    )


def by_chain(model, x):
    chain = fpflow.GaussianChain(0.3, STEPS)
    return fpflow.log_prob_chain(
        chain, ScoreAlone(model), PROCESS, x, num_paths=512, progress=False, key=jr.key(4)
    )


def by_twisted_chain(model, x):
    chain = fpflow.GaussianChain(0.3, STEPS)
    return fpflow.log_prob_chain(
        chain, model, PROCESS, x, num_paths=2048, progress=False, key=jr.key(5)
    )


def by_target(model, x):
    # Filters that grow: eight at first, then as many as these ask for, or larger ones.
    chain = fpflow.GaussianChain(0.3, STEPS)
    asked = {"target_error": 0.05, "num_paths": 2**15, "progress": False, "key": jr.key(5)}
    return fpflow.log_prob_chain(chain, model, PROCESS, x, **asked)


def sde_law(model):
    return exact_laws(model)[0]


def gaussian_chain_law(model):
    return chain_law(fpflow.GaussianChain(0.3, STEPS), model)


DENSITIES = {
    "log_prob_sde, residual": (by_residual, sde_law, (0.5, 0.9, 1.5)),
    "log_prob_sde, score alone": (by_score, sde_law, (0.5, 0.9, 1.5)),
    "log_prob_sde, filter": (by_filter, sde_law, (0.6, 1.0, 1.5)),
    "log_prob_chain": (by_chain, gaussian_chain_law, (0.45, 0.8, 1.2)),
    "log_prob_chain, twisted": (by_twisted_chain, gaussian_chain_law, (0.45, 0.8, 1.2)),
    "log_prob_chain, to a target": (by_target, gaussian_chain_law, (0.45, 0.8, 1.2)),
}


def evidence(sampler, density_law, width, runs, num=200):
    """Of log Z = 0: a normal target narrower than the sampler's law. All runs are drawn in one call."""
    model = wrong(0.3, 2)
    variance = jnp.asarray(width * density_law(model))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        drawn = fpflow.importance_sample(
            model, PROCESS, lambda x: jnp.asarray(log_normal(x, variance)), runs * num,
            sampler=sampler, key=jr.key(8),
        )  # fmt: skip
    misses, errors, shares, believed = [], [], [], []
    for rows in np.split(np.arange(runs * num), runs):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = summed_up(drawn.x[rows], drawn.log_weights[rows], biased=False)
        misses.append(found.log_z.value)
        errors.append(found.log_z.error)
        shares.append(found.effective_sample_size / num)
        believed.append(not any("too uneven" in str(w.message) for w in caught))
    return np.array(misses), np.array(errors), np.array(believed), float(np.mean(shares))


EVIDENCE = {
    "log Z by a chain": (fpflow.GaussianChain(0.3, STEPS), gaussian_chain_law),
    "log Z by the ODE": (fpflow.ODE(), lambda model: exact_laws(model)[1]),
    "log Z by the SDE": (fpflow.SDE(), sde_law),
}
WIDTHS = (0.3, 0.11, 0.026)


def nats(spread, runs, points=64):
    """Of KL(SDE | ODE) and its reverse from 64 points each, all points in one call."""
    model = wrong(spread, 2)
    laws = dict(zip(("SDE", "ODE"), exact_laws(model), strict=True))
    sets = {
        name: np.asarray(jr.normal(jr.fold_in(jr.key(6), k), (runs * points, 2)) * np.sqrt(v))
        for k, (name, v) in enumerate(laws.items())
    }
    gaps = pointwise_gaps(model, PROCESS, sets, 256, False, jr.key(7))

    def part(gap, run):
        rows = slice(run * points, (run + 1) * points)
        fields = {f.name: getattr(gap, f.name) for f in dataclasses.fields(gap)}
        cut = {
            name: value[rows] if isinstance(value, np.ndarray) else value
            for name, value in fields.items()
        }
        return type(gap)(**cut)

    def kl(p, q):
        return float((p / q - 1 - np.log(p / q)).sum() / 2)

    found = [
        in_nats({name: part(gap, run) for name, gap in gaps.items()}, None) for run in range(runs)
    ]
    for name, exact in (
        ("kl_sde_ode", kl(laws["SDE"], laws["ODE"])),
        ("kl_ode_sde", kl(laws["ODE"], laws["SDE"])),
    ):
        values = [getattr(f, name) for f in found]
        miss = np.array([v.value for v in values]) - exact
        yield Row(
            f"gap in nats, {name}", f"KL {exact:.2g}", miss, np.array([v.error for v in values])
        )


def share_of(call, model, variance):
    """The effective share of one path: of filters, that of one filter; of those to a target, that of
    as many as others have."""
    call = by_twisted_chain if call is by_target else call
    x = 0.7 * jnp.sqrt(jnp.asarray(variance))
    found = call(model, jnp.broadcast_to(x, (50, len(x))))
    paths = {by_twisted_chain: 2048, by_filter: 1024}.get(call, 512)
    return float(np.median(np.asarray(found.effective_sample_size))) / paths


def densities(runs):
    """Log densities of samplers by paths, at effective shares of about 0.5, 0.2 and 0.05."""
    for name, (call, law, spreads) in DENSITIES.items():
        for spread in spreads:
            model = wrong(spread)
            found = at_one_point(call, model, law(model), runs)
            yield Row(name, f"share {share_of(call, model, law(model)):.2f}", *found)


def far_points(runs):
    """Filters grown to a target, in random directions as far out as so many deviations in each of six
    coordinates, where hardly any samples lie and the twist is poor; twenty runs at each point."""
    chain, model, rng = fpflow.GaussianChain(0.1, 10), wrong(0.6, 6), np.random.default_rng(4)
    variance, num = chain_law(chain, model), max(runs // 20, 1)
    for far in (2.0, 2.8, 3.5, 4.0):
        x = rng.normal(size=(num, 6))
        x *= far * np.sqrt(6 * variance) / np.linalg.norm(x, axis=1, keepdims=True)
        x = jnp.asarray(np.repeat(x, 20, axis=0))
        found = fpflow.log_prob_chain(
            chain, model, PROCESS, x,
            target_error=0.1, num_paths=2**16, progress=False, key=jr.key(9),
        )  # fmt: skip
        miss = np.asarray(found.value - log_normal(x, variance))
        stated, reliable = np.asarray(found.standard_error), np.asarray(found.reliable)
        where = f"{far:g} deviations"
        yield Row("log_prob_chain, far out", where, miss, stated, reliable, points=num)


def evidences(runs):
    """Of the evidence, at the same shares."""
    for name, (sampler, law) in EVIDENCE.items():
        for width in WIDTHS:
            miss, error, believed, share = evidence(sampler, law, width, runs)
            yield Row(name, f"share {share:.2f}", miss, error, believed)


def gaps_in_nats(runs):
    """Kullback--Leibler divergences between both laws."""
    for spread in (0.1, 0.3, 0.6):
        yield from nats(spread, runs)


def histograms(runs):
    """Divergences of a histogram from the law it was drawn from, less their floor."""
    rng = np.random.default_rng(0)
    kinds = (fpflow.total_variation, fpflow.hellinger, fpflow.kl_divergence)
    for dim, num in ((1, 300), (1, 3000), (2, 1000), (2, 10_000)):
        window = fpflow.Window(-3.0, 3.0, 64 if dim == 1 else 32, dim)
        law = fpflow.datasets.GaussianMixture([[-1.0] * dim, [1.0] * dim], 0.25)
        exact = law.cell_probabilities(window)
        drawn = [
            histogram_density(
                rng.multinomial(num, np.ravel(exact.mass)).reshape(window.shape), num, window
            )
            for _ in range(runs)
        ]
        for kind in kinds:
            found = [kind(counted, exact) for counted in drawn]
            miss = np.array([f.value - f.floor for f in found])
            error = np.array([f.error for f in found])
            yield Row(f"{kind.__name__} of a histogram", f"d = {dim}, {num} points", miss, error)


def sample_distances(runs):
    """Squared distances of samples less their floor: of one law, and of two apart."""
    rng = np.random.default_rng(0)
    for dim in (1, 2, 5, 20):
        for shift in (0.0, 0.2, 0.5):
            pairs = [rng.normal(size=(2, 400, dim)) for _ in range(runs)]
            for kind in (fpflow.sliced_w2, fpflow.w2_moments, fpflow.w2_samples):
                found = [kind(x + shift * np.eye(dim)[0], y) for x, y in pairs]
                miss = np.array([f.value - f.floor for f in found]) - shift**2
                error = np.array([f.standard_error if shift else f.floor_error for f in found])
                where = f"laws {shift} apart" if shift else "equal laws"
                yield Row(f"{kind.__name__}, {where}", f"d = {dim}", miss, error)


def probes(runs):
    """Hutchinson's estimates of log p_ODE, all runs as points of one call."""
    for dim, num in ((5, 4), (20, 4), (20, 16)):
        matrix = np.random.default_rng(0).normal(size=(dim, dim)) / dim**0.5
        model = Wrong(jnp.asarray(-2 * np.eye(dim) + 0.4 * (matrix + matrix.T)))
        x = jnp.broadcast_to(0.3 * jnp.ones(dim), (runs, dim))
        exact = fpflow.log_prob_ode(model, PROCESS, x[:1]).value
        found = fpflow.log_prob_ode(
            model, PROCESS, x, divergence=fpflow.Hutchinson(num), progress=False, key=jr.key(1)
        )
        miss = np.asarray(found.value - exact)
        yield Row(
            "log_prob_ode, Hutchinson",
            f"d = {dim}, {num} probes",
            miss,
            np.asarray(found.standard_error),
        )


def solvers(runs):
    """What a solver states of log p_ODE against what it misses: a size."""
    law = fpflow.datasets.gaussian_mixture()
    wrong_law = fpflow.datasets.GaussianMixture(np.asarray(law.means) * 1.1, 0.2)
    model = wrong_law.marginal(PROCESS)
    x = law.sample(jr.key(6), runs)
    exact = fpflow.log_prob_ode(model, PROCESS, x, tolerance=1e-10, progress=False).value
    for tolerance in (1e-2, 1e-3, 1e-5):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # says of the first that it is loose
            found = fpflow.log_prob_ode(model, PROCESS, x, tolerance=tolerance, progress=False)
        miss = np.asarray(found.value - exact)
        yield Row(
            "log_prob_ode, solver_error",
            f"tolerance {tolerance:g}",
            miss,
            np.asarray(found.solver_error),
            kind="size",
        )


def accounts(runs):
    """Both right sides of the account, for data that is the prior and a wrong linear score."""
    model = wrong(0.3, 2)
    data = fpflow.datasets.GaussianMixture(np.zeros((1, 2)), 0.5)
    _, variance = exact_laws(model)
    ratio = 0.5 / np.asarray(variance)
    kl_ode = float((ratio - 1 - np.log(ratio)).sum() / 2)
    slopes = np.diag(np.asarray(model.matrix))
    matching = (PROCESS.t1 - PROCESS.t0) / 2 * float(((slopes + 2) ** 2 / 2).sum())
    for points in (64, 1024):
        found = [
            fpflow.kl_account(
                model,
                PROCESS,
                data,
                num_points=points,
                num_steps=20,
                key=jr.fold_in(jr.key(7), run),
            )
            for run in range(runs)
        ]
        for name, exact in (("kl_ode", kl_ode), ("score_matching", matching)):
            parts = [getattr(f, name) for f in found]
            miss = np.array([part.value for part in parts]) - exact
            error = np.array([part.error for part in parts])
            yield Row(f"kl_account, {name}", f"{points} points", miss, error)


def bounds(runs):
    """Evidence bounds of few groups, against that of very many."""
    model = wrong(0.6)
    x = jnp.broadcast_to(0.5 * jnp.ones(DIM), (runs, DIM))
    options = {"num_steps": 40, "progress": False}
    long = fpflow.evidence_bound(model, PROCESS, x[:1], num_groups=2**16, key=jr.key(2), **options)
    for groups in (2, 4, 16):
        found = fpflow.evidence_bound(
            model, PROCESS, x, num_groups=groups, key=jr.key(3), **options
        )
        miss = np.asarray(found.value - long.value)
        yield Row("evidence_bound", f"{groups} groups", miss, np.asarray(found.standard_error))


def residuals(runs):
    """The mean square of the residual in a bin of few times, against that of very many."""
    model = wrong(0.6, 2)
    data = fpflow.datasets.GaussianMixture([[0.0, 0.0]], 0.5)
    options = {"data": data, "edges": [0.5, 1.0], "points_per_time": 16}
    long = fpflow.residual_profile(
        model, PROCESS, times_per_bin=2**15, key=jr.key(4), **options
    ).value[0]
    for times in (4, 8, 16):
        found = [
            fpflow.residual_profile(
                model, PROCESS, times_per_bin=times, key=jr.fold_in(jr.key(5), run), **options
            )
            for run in range(runs)
        ]
        miss = np.array([f.value[0] for f in found]) - long
        error = np.array([f.standard_error[0] for f in found])
        yield Row("residual_profile", f"{times} times in a bin", miss, error)


def splits(runs):
    """The sum of the parts of a gap against the observed one, for samples of the exact laws."""
    rng = np.random.default_rng(1)
    window = fpflow.Window(-4.0, 4.0, 64, dim=1)
    for shift in (0.0, 0.3):
        laws = [
            fpflow.datasets.GaussianMixture([[m]], 0.5).cell_probabilities(window)
            for m in (0.0, shift)
        ]
        found = []
        for _ in range(runs):
            drawn = [
                rng.choice(window.centres(), 2000, p=np.ravel(law.mass))[:, None] for law in laws
            ]
            found.append(split_on_grid(drawn[0], drawn[1], laws[0], laws[1], 4, rng))
        # Samplers without steps have none of their own.
        for name in ("unexplained", "discretisation"):
            parts = [getattr(f, name) for f in found]
            miss, error = (np.array([getattr(p, k) for p in parts]) for k in ("value", "error"))
            yield Row(f"GapSplit, {name}", f"shift {shift}", miss, error)


def without_cells(runs):
    """Distances between Gaussians by their cells; a bracket."""
    rng = np.random.default_rng(2)
    for nodes, dim in ((33, 1), (64, 1), (33, 2), (64, 2)):
        window, found = fpflow.Window(-4.0, 4.0, nodes, dim), []
        for _ in range(runs if dim == 1 else runs // 8):
            shift, width = 0.1 * rng.normal(size=dim), 0.5 * np.exp(0.1 * rng.normal())
            a = fpflow.datasets.GaussianMixture([[0.0] * dim], 0.5)
            b = fpflow.datasets.GaussianMixture([list(shift)], width)
            cells = (a.cell_probabilities(window), b.cell_probabilities(window))
            exact = (shift**2).sum() + dim * (width**0.5 - 0.5**0.5) ** 2
            estimate = fpflow.w2_continuous(cells[0], cells[1])
            found.append((estimate.value - exact, estimate.error))
        yield Row(
            "w2_continuous", f"d = {dim}, {nodes} nodes", *np.array(found).T, kind="loose bracket"
        )


def grids(runs):
    """Densities on a line against finer ones: total variation, an upper bound."""
    window = fpflow.Window(-3.0, 3.0, 48, dim=1)
    ode, sde = fpflow.grid_density_ode, fpflow.grid_density_sde
    cases: list[Any] = [
        (ode, {"tolerance": t}, {"refine": 8, "tolerance": 1e-9}) for t in (1e-2, 1e-3, 1e-4)
    ]
    cases += [(sde, {"num_steps": n}, {"refine": 8, "num_steps": 960}) for n in (30, 120)]
    rng = np.random.default_rng(3)
    for density, asked, finer in cases:
        found = []
        for _ in range(max(runs // 10, 4)):
            place, width = rng.normal(size=2), 0.3 + 0.3 * rng.uniform()
            score = fpflow.datasets.GaussianMixture(place[:, None], width).marginal(PROCESS)
            estimate, exact = (density(score, PROCESS, window, **how) for how in (asked, finer))
            apart = np.abs(np.asarray(estimate.mass) - np.asarray(exact.mass)).sum() / 2
            found.append((apart, estimate.error))
        case = ", ".join(f"{name} {value:g}" for name, value in asked.items())
        yield Row(density.__name__, case, *np.array(found).T, kind="bound")


GROUPS = (
    densities, far_points, evidences, gaps_in_nats, histograms, sample_distances, probes, solvers,
    accounts, bounds, residuals, splits, without_cells, grids,
)  # fmt: skip
HEADER = (
    "estimator", "case", "reliable", "one error", "two errors", "the others", "rms z", "bias",
    "stated / true",
)  # fmt: skip


@dataclasses.dataclass
class Row:
    """What the runs of one estimator in one case missed the truth by, and what they stated."""

    name: str
    case: str
    miss: np.ndarray
    error: np.ndarray
    reliable: np.ndarray | None = None
    kind: str = "standard error"
    points: int = 1  # one after another, with as many runs each

    def held(self, errors: float, where: np.ndarray | None = None) -> float:
        """The share of runs whose truth lies within so many errors."""
        inside = np.abs(self.miss) <= errors * np.asarray(self.error) + 1e-14
        return float(inside.mean() if where is None else inside[where].mean())

    @property
    def believed(self) -> np.ndarray:
        """Which runs call themselves reliable."""
        return np.ones(len(self.miss), bool) if self.reliable is None else np.asarray(self.reliable)

    @property
    def tightness(self) -> float:
        """The stated error over the true one, at the middle point; of bounds and brackets, over what was
        missed."""
        stated, missed = (np.where(self.believed, v, np.nan) for v in (self.error, self.miss))
        if self.kind == "standard error":
            stated, missed = stated.reshape(self.points, -1), missed.reshape(self.points, -1)
            return float(np.nanmedian(np.nanmedian(stated, axis=1) / np.nanstd(missed, axis=1)))
        return float(np.nanmedian(stated / np.maximum(np.abs(missed), 1e-300)))

    def cells(self) -> tuple[str, ...]:
        """A line of the table."""
        own = self.believed
        share = f"{own.mean():.1%}" if 0 < own.mean() < 0.01 else f"{own.mean():.0%}"
        parts = [self.name, self.case, share]
        if not own.any():
            return (*parts, "–", "–", f"{self.held(2, ~own):.3f}", "–", "–", "–")
        others = f"{self.held(2, ~own):.3f}" if not own.all() else "–"
        once = f"{self.held(1, own):.3f}"
        if self.kind != "standard error":
            return (*parts, once, "–", others, "–", "–", f"{self.tightness:.2g}")
        z = np.asarray(self.miss)[own] / np.asarray(self.error)[own]
        rms, bias = f"{np.sqrt((z**2).mean()):.2f}", f"{z.mean():+.2f}"
        return (
            *parts,
            once,
            f"{self.held(2, own):.3f}",
            others,
            rms,
            bias,
            f"{self.tightness:.2f}",
        )


def main():
    """Prints the rows and writes them to the page, in the place of those of the same estimators."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--only", default="", help="groups whose name holds this word")
    parser.add_argument("--out", type=pathlib.Path, help="the page, such as docs/reliability.md")
    arguments = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    head = [f"| {' | '.join(HEADER)} |", "|---" * len(HEADER) + "|"]
    print("\n".join(head))
    fresh = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the table counts who calls himself unreliable
        for group in GROUPS:
            for row in group(arguments.runs) if arguments.only in group.__name__ else ():
                fresh.append(f"| {' | '.join(row.cells())} |")
                print(fresh[-1], flush=True)
    if arguments.out:
        text = arguments.out.read_text()
        top, _, below = text.partition(head[0])
        names = {line.split("|")[1] for line in fresh}
        kept = [k for k in below.split("\n") if k.startswith("| ") and k.split("|")[1] not in names]
        arguments.out.write_text(top + "\n".join([*head, *fresh, *kept]) + "\n")


if __name__ == "__main__":
    main()
