"""The gap in nats from log densities that are known, its verdict, and how results show themselves."""

import dataclasses
import math
import warnings

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import fpflow
from fpflow._errors import mean_and_error
from fpflow._report.pointwise import PointwiseGap, in_nats, pointwise_gaps
from fpflow._report.text import as_html
from fpflow._report.verdict import verdict
from fpflow._shown import rounded, shown_fields
from known import OU, WithoutPotential, linear_laws, mixture
from test_likelihood import LinearPotential

WIDE, NARROW = 1.0, 0.8  # variances of the two laws on a line


def log_normal(x, variance):
    return -(x**2) / (2 * variance) - math.log(2 * math.pi * variance) / 2


def gap_at(x, noise=0.0, rng=None):
    """With the law of the SDE wide and that of the ODE narrow; the potential is the SDE's, off by 7."""
    sde = log_normal(x, WIDE) + (0 if rng is None else noise * rng.normal(size=len(x)))
    ode = log_normal(x, NARROW)
    flat = np.full(len(x), noise)
    return PointwiseGap(
        x[:, None], ode, sde, log_normal(x, WIDE) + 7, flat, flat, 0 * flat, flat == flat,
        fpflow.Estimate(*mean_and_error(sde - ode)), 0.0,
    )  # fmt: skip


def draws(num, rng):
    return {"SDE": rng.normal(size=num) * WIDE**0.5, "ODE": rng.normal(size=num) * NARROW**0.5}


def kl(p, q):
    return (p / q - 1 - math.log(p / q)) / 2


@pytest.mark.parametrize("noise", [0.0, 0.4])
def test_divergences_between_known_laws(noise):
    """With errors of the log densities and without; four errors each."""
    rng = np.random.default_rng(0)
    x = {"points": rng.normal(size=40_000) * 0.9**0.5, **draws(40_000, rng)}
    found = in_nats({name: gap_at(v, noise, rng if noise else None) for name, v in x.items()}, None)
    for value, exact in (
        (found.kl_sde_ode, kl(WIDE, NARROW)),
        (found.kl_ode_sde, kl(NARROW, WIDE)),
        (found.nll_sde, math.log(2 * math.pi * WIDE) / 2 + 0.9 / (2 * WIDE)),
        (found.nll_ode, math.log(2 * math.pi * NARROW) / 2 + 0.9 / (2 * NARROW)),
        (found.nearer, kl(0.9, NARROW) - kl(0.9, WIDE)),
        # E (p_SDE / p_ODE) of a normal with variance v: a ratio of normalisations.
        (found.mixing_bias, -math.log(WIDE / NARROW * (1 + 0.9 / WIDE - 0.9 / NARROW)) / 2),
        (found.kl_ode_potential, kl(NARROW, WIDE)),
    ):
        assert abs(value.value - exact) < 4 * value.error and value.error < 0.02
    mean, spread = found.potential_sde
    assert abs(mean.value + 7) < 4 * max(mean.error, 1e-12) and abs(spread - noise) < 0.02
    bits = dataclasses.replace(found, dim=3).bits(found.nll_sde)
    assert bits.value == pytest.approx(found.nll_sde.value / math.log(8))


@pytest.mark.slow
def test_the_gap_at_points_of_two_gaussians():
    """Of a wrong linear score on a line: both laws are known, and so is the difference at every point
    and its mean over any."""
    model, process = LinearPotential(jnp.array([[3.0]])), fpflow.OrnsteinUhlenbeck(t1=1.0)
    wide, narrow = (float(cov[0, 0]) for cov in linear_laws(model.matrix, process))
    x = np.linspace(0.5, 1.2, 5)
    found = pointwise_gaps(model, process, {"points": x[:, None]}, 4096, False, jr.key(0))["points"]
    apart = log_normal(x, wide) - log_normal(x, narrow)
    np.testing.assert_allclose(found.log_p_ode, log_normal(x, narrow), atol=1e-6)
    assert (abs(found.log_p_sde - log_normal(x, wide)) < 4 * found.error).all()
    assert abs(found.mean.value - apart.mean()) < 2 * found.error.max()
    assert found.error.max() < 0.2 * abs(apart).max()


def test_errors_of_divergences_hold():
    """Of 400 runs of 64 points, of laws wider and narrower than each other: .95 but for .011."""
    rng = np.random.default_rng(1)
    for name, exact in (("kl_sde_ode", kl(WIDE, NARROW)), ("kl_ode_sde", kl(NARROW, WIDE))):
        found = [
            getattr(in_nats({law: gap_at(v) for law, v in draws(64, rng).items()}, None), name)
            for _ in range(400)
        ]
        inside = [abs(one.value - exact) < 2 * one.error for one in found]
        assert 0.92 < np.mean(inside) < 0.99


def test_data_of_known_density_have_divergences():
    rng = np.random.default_rng(2)
    data = rng.normal(size=20_000) * 0.6**0.5
    gaps = {name: gap_at(v) for name, v in {"points": data, **draws(100, rng)}.items()}
    found = in_nats(gaps, log_normal(data, 0.6))
    for value, exact in (
        (found.kl_data_ode, kl(0.6, NARROW)),
        (found.kl_data_sde, kl(0.6, WIDE)),
        (found.nearer, kl(0.6, NARROW) - kl(0.6, WIDE)),
    ):
        assert abs(value.value - exact) < 4 * value.error and value.error < 4e-3


def split(model, steps, noise):
    parts = [
        fpflow.Estimate(v, 0.01) for v in (model + steps + noise, model, steps, noise, 0.0, 0.0)
    ]
    return fpflow.GapSplit(*parts)


def test_the_verdict_says_what_the_numbers_say():
    rng = np.random.default_rng(3)
    x = {"points": rng.normal(size=4000) * WIDE**0.5, **draws(4000, rng)}
    gaps = {name: gap_at(v) for name, v in x.items()}
    nats = in_nats(gaps, None)
    first, second, third = verdict(split(1.0, 0.2, 0.1), nats, gaps["points"], {})
    assert "nats apart" in first and "the SDE is nearer to the data by" in first
    assert "77% comes from the model; no sampler closes it" in second and "sliced W2^2" in second
    assert third.startswith("For samples of the SDE, quote log p_SDE (NLL 1.")
    assert "nats on average" in third
    # One wild point tells nothing of the others, and hides nothing of what is known.
    wild = dataclasses.replace(gaps["points"], log_p_ode=gaps["points"].log_p_sde - 0.5)
    wild.log_p_ode[7] -= 1e5
    lost = dataclasses.replace(nats, kl_sde_ode=fpflow.Estimate(40.0, 40.0))
    first, _, third = verdict(split(1.0, -0.02, 0.1), lost, wild, {})
    assert (
        "nats apart, KL(ODE | SDE), while" in first
        and "the other direction, 40 ± 40, from" in first
    )
    assert "differs from it by -0.5 nats in the median; a single point makes" in third
    same = dataclasses.replace(
        nats, kl_sde_ode=fpflow.Estimate(1e-4, 1e-4), kl_ode_sde=fpflow.Estimate(0.0, 1e-4)
    )
    grid = {
        "data-ODE": {"KL": fpflow.Estimate(0.001, 1e-5, "floor")},
        "data-SDE": {"KL": fpflow.Estimate(0.004, 1e-5, "floor")},
    }
    first, second, third = verdict(split(0.0, 0.1, 0.2), same, None, grid)
    assert "not told from zero" in first and "the ODE is nearer to the data by 0.003" in first
    assert "67% comes from the finite number of samples" in second
    assert third.startswith("Either likelihood may be quoted")
    # A law that lacks mass of the data has no number of nats; total variation still tells.
    grid = {
        f"data-{name}": {
            "KL": fpflow.Estimate(kl, np.inf, "lower bound"),
            "TV": fpflow.Estimate(tv, 0.01),
        }
        for name, kl, tv in (("ODE", 1.1, 0.4), ("SDE", 0.3, 0.26))
    }
    # Parts within their errors have no shares.
    _, second, _ = verdict(split(0.001, 0.0, 0.015), same, None, {})
    assert second == "The sliced W2^2 between their samples, 0.016 ± 0.010, is not told from zero."
    _, second, _ = verdict(split(0.01, 0.01, 0.015), same, None, {})
    assert ", no part is told from zero; the largest is that of the finite number of" in second
    off = dataclasses.replace(split(1.0, 0.2, 0.1), unexplained=fpflow.Estimate(0.05, 0.01))
    assert verdict(off, None, None, {})[1].endswith(
        "leave 0.050 ± 0.010 unexplained, as the notes say."
    )
    near = grid | {"ODE-SDE": {"KL": fpflow.Estimate(1e-5, 1e-5)}}
    assert "not told apart: KL(ODE | SDE) = (1.0 ± 1.0)e-05" in verdict(off, None, None, near)[0]
    assert "cancelled" not in verdict(split(0.005, -0.015, 0.4), None, None, grid)[1]
    first, second, _ = verdict(split(0.1, -0.2, 0.4), None, None, grid)
    assert "the SDE is nearer to the data (total variation 0.260 ± 0.010, that of the ODE" in first
    assert "of which 0.200 ± 0.010 is cancelled by the steps of the samplers" in second
    first, _, third = verdict(split(0.5, 0.1, 0.2), None, None, {})
    assert (
        first == "The distributions of the SDE and the ODE are sliced W2^2 = 0.500 ± 0.010 apart."
    )
    assert "`log_prob_chain`" in third


LINE = fpflow.Window(-4.0, 4.0, 64, dim=1)


@pytest.mark.slow
def test_a_score_without_derivatives_and_without_data_has_a_report():
    exact = fpflow.datasets.GaussianMixture([[-1.0], [1.0]], 0.1).marginal(OU)
    inside = jax.jit(jax.vmap(exact.score))
    model = fpflow.from_callback(lambda t, x: inside(t, x), 1)
    settings = fpflow.ReportSettings(
        num_samples=300, repeats=2, num_points=4, etas=(0.0, 1.0), window=LINE,
        ode=fpflow.ODE(num_steps=10), sde=fpflow.Ancestral(10),
    )  # fmt: skip
    found = fpflow.gap_report(model, OU, settings=settings)
    assert set(found.densities) == {"ODE", "SDE"} and found.nats is None and found.curl is None
    assert found.grid_distances["ODE-SDE"]["KL"].value < 1e-3
    assert all(row["to_data"] is None for row in found.etas)
    text = str(found)
    assert "the score has no derivatives, so log densities at points" in text
    assert "to the data" not in text and "to the ODE" in text
    assert repr(found).startswith(
        "GapReport in dimension 1\nThe distributions of the SDE and the ODE are "
    )
    assert len(repr(found)) < 1000
    page = as_html(found)
    assert page == found._repr_html_()
    assert (
        page.count("<table>") == page.count("</table>") >= 3 and "<td>model: the two exact" in page
    )
    found.plot()


def test_the_law_of_a_potential_on_a_grid():
    law = mixture(2)
    window = fpflow.Window(-7.0, 7.0, 40)
    found = fpflow.grid_density_potential(law.marginal(OU), OU, window)
    exact = law.cell_probabilities(window)
    # The error that it states is that of a rule with half as many points, four times as large.
    assert abs(found.mass - exact.mass).sum() / 2 < found.error / 2 < 5e-3
    part = fpflow.Window(-1.0, 1.0, 40)
    left = fpflow.grid_density_potential(law.marginal(OU), OU, part)
    assert left.outside > 0.1 and left.mass.sum() == pytest.approx(1)
    with pytest.raises(ValueError, match=r"`model` must have a method `potential\(t, x\)`, got W"):
        fpflow.grid_density_potential.__wrapped__(WithoutPotential(law.marginal(OU)), OU, window)


class Cut:
    """A potential that is not finite on one side."""

    dim = 2

    def potential(self, t, x):
        return jnp.log(x[0]) - x @ x + 0 * t

    def score(self, t, x):
        return -2 * x + 0 * t


def test_a_potential_that_is_not_finite_is_told():
    with pytest.raises(FloatingPointError, match="`model.potential` is not finite at"):
        fpflow.grid_density_potential(Cut(), OU, fpflow.Window(nodes=8))


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (1.23456, 0.0123, "1.235 ± 0.012"),
        (1.23456, 0.056, "1.23 ± 0.06"),
        (0.99, 0.096, "0.99 ± 0.10"),
        (123456.0, 2345.0, "123000 ± 2000"),
        (-0.0123, 0.00019, "-0.01230 ± 0.00019"),
        (1.2e-5, 3e-6, "(1.2 ± 0.3)e-05"),
        (-0.003, 0.02, "0.00 ± 0.02"),
        (-1.166338401, 2e-11, "-1.16634 ± 2e-11"),
        (5.0, 0.0, "5"),
        (2.0, math.nan, "2 ± nan"),
    ],
)
def test_numbers_end_where_their_errors_begin(value, error, text):
    assert rounded(value, error) == text == str(fpflow.Estimate(value, error))


def test_results_show_themselves_in_a_line():
    window = fpflow.Window(nodes=64)
    law = fpflow.GridDensity(np.full((64, 64), 64.0**-2), 0.0, 0.001, window)
    assert repr(law).startswith("GridDensity(mass=<64 x 64: 0.0002441 to 0.0002441>, outside=0, ")
    history = fpflow.History(np.arange(3), np.ones(100), {"dsm": np.ones(100)}, np.ones(100))
    assert "step=[0, 1, 2], loss=<100: 1 to 1>, terms={dsm: <100: 1 to 1>}" in repr(history)
    result = fpflow.TrainResult(fpflow.PotentialMLP(2, key=jr.key(0)), None, history)
    assert repr(result).startswith("TrainResult(model=PotentialMLP, last=None, history=History(")
    inside = jax.eval_shape(lambda: dataclasses.replace(law, mass=jnp.ones((64, 64))))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "GridDensity(" in shown_fields(inside)
