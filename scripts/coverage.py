"""How often the truth lies within two stated errors, for every estimator of a sampler's law.

    python scripts/coverage.py [--runs 200] [--out docs/coverage.md]

Scores are linear and wrong, so that all laws are Gaussians that are known. Each estimator runs 200 times
with keys of its own in three cases, whose weights have effective shares of about 0.5, 0.2 and 0.05.
Prints a table and writes the page.
"""

import argparse
import dataclasses
import pathlib
import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.scipy.stats import multivariate_normal

import fpflow
from fpflow._importance import summed_up
from fpflow._report.pointwise import in_nats, pointwise_gaps

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
        yield name, miss, np.array([v.error for v in values]), exact


def row(name, share, miss, error, reliable):
    """One line of the table: coverage where the run calls itself reliable, and where not."""
    inside = abs(miss) < 2 * error

    def of(mask):
        return f"{inside[mask].mean():.3f}" if mask.any() else "–"

    return (
        name,
        share,
        f"{reliable.mean():.0%}",
        of(reliable),
        of(~reliable),
        f"{np.median(error):.2g}",
    )


def table(runs, only):
    """All rows of estimators whose name holds the word `only`, as they come."""
    for name, (call, law, spreads) in DENSITIES.items():
        for spread in spreads if only in name else ():
            model = wrong(spread)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = at_one_point(call, model, law(model), runs)
                share = share_of(call, model, law(model))
            yield row(name, f"{share:.2f}", *found)
    for name, (sampler, law) in EVIDENCE.items():
        for width in WIDTHS if only in name else ():
            miss, error, believed, share = evidence(sampler, law, width, runs)
            yield row(name, f"{share:.2f}", miss, error, believed)
    for spread in (0.1, 0.3, 0.6) if only in "gap in nats" else ():
        for name, miss, error, exact in nats(spread, runs):
            yield row(f"gap in nats, {name}", f"KL {exact:.2g}", miss, error, np.ones(runs, bool))


def share_of(call, model, variance):
    """The effective share of one path: of filters, that of one filter."""
    x = 0.7 * jnp.sqrt(jnp.asarray(variance))
    found = call(model, jnp.broadcast_to(x, (50, len(x))))
    paths = {by_twisted_chain: 2048, by_filter: 1024}.get(call, 512)
    return float(np.median(np.asarray(found.effective_sample_size))) / paths


HEADER = ("estimator", "effective share", "reliable", "within two errors", "the others", "error")


def main():
    """Prints the rows and writes them to the page, in the place of those of the same estimators."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--only", default="", help="estimators whose name holds this word")
    parser.add_argument("--out", type=pathlib.Path, help="the page, such as docs/coverage.md")
    arguments = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    head = [f"| {' | '.join(HEADER)} |", "|---" * len(HEADER) + "|"]
    text = arguments.out.read_text() if arguments.out else ""
    top, _, below = text.partition(head[0])
    rows = [line for line in below.split("\n")[2:] if line.startswith("| ")]
    for cells in table(arguments.runs, arguments.only):
        print(f"| {' | '.join(cells)} |", flush=True)
        same = [k for k, line in enumerate(rows) if line.startswith(f"| {cells[0]} |")]
        fresh = [k for k in same if not rows[k].endswith(" new")]
        place = fresh[0] if fresh else (same[-1] + 1 if same else len(rows))
        rows[place : place + bool(fresh)] = [f"| {' | '.join(cells)} | new"]
    if arguments.out:
        lines = [*head, *(line.removesuffix(" new") for line in rows)]
        arguments.out.write_text(top + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
