"""Error bars keep their word: few runs of the rows of `scripts/coverage.py`, with binomial bounds."""

import importlib.util
import pathlib
import warnings

import jax.random as jr
import numpy as np
import pytest
from scipy.stats import binom, norm, t

import fpflow
from fpflow._errors import student

ROOT = pathlib.Path(__file__).parent.parent
spec = importlib.util.spec_from_file_location("coverage_bench", ROOT / "scripts" / "coverage.py")
assert spec is not None and spec.loader is not None
bench = importlib.util.module_from_spec(spec)
spec.loader.exec_module(bench)

RUNS = 80
SHORT = ("splits", "without_cells")


def check(row):
    """Of a promise of 93 %, so few hold by bad luck once in ten thousand rows."""
    own = row.believed
    if not own.any():
        return
    if row.kind == "standard error":
        num, held = own.sum(), row.held(2, own)
        least = binom.ppf(1e-4, num, 0.93) / num
        assert held >= least, (row.name, row.case, held, least)
        if num > RUNS / 2:  # of few it says nothing
            assert 0.6 < row.tightness < 4, (row.name, row.case, row.tightness)
    elif row.kind == "size":  # of the typical miss, neither below it nor far above
        assert row.held(10) > 0.9 and 1 < row.tightness < 20, (row.case, row.tightness)
    else:
        assert row.held(1, own) >= binom.ppf(1e-4, own.sum(), 0.98) / own.sum(), row.case


@pytest.mark.parametrize("name", SHORT)
def test_the_truth_lies_within_the_errors(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for row in getattr(bench, name)(RUNS):
            check(row)


@pytest.mark.slow
@pytest.mark.parametrize("name", [g.__name__ for g in bench.GROUPS if g.__name__ not in SHORT])
def test_the_truth_lies_within_the_errors_of_long_rows(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for row in getattr(bench, name)(RUNS):
            check(row)


def test_an_error_of_half_the_size_is_seen():
    """What `check` is for: the same rows with half and with six times their errors are refused."""
    rng = np.random.default_rng(0)
    honest = bench.Row("mean", "", rng.normal(size=RUNS), np.ones(RUNS))
    check(honest)
    for factor in (0.5, 6.0):
        with pytest.raises(AssertionError):
            check(bench.Row("mean", "", honest.miss, factor * honest.error))


def test_student_is_that_of_the_tables():
    level = norm.cdf(2.0)
    for freedom in (2, 3, 4, 8, 30):
        assert abs(student(freedom) / (t.ppf(level, freedom) / 2) - 1) < 0.01


def test_only_histograms_are_counted():
    """A law whose error is that of a quadrature moves a divergence by what its coarser rule moves it:
    it has no noise, and between equal laws nothing is expected."""
    window = fpflow.Window(-3.0, 3.0, 16)
    model = fpflow.PotentialMLP(2, key=jr.key(0))
    energy = fpflow.grid_density_potential(model, fpflow.OrnsteinUhlenbeck(), window)
    exact = fpflow.datasets.gaussian_mixture().cell_probabilities(window)
    assert energy.error > 1e-9
    for kind in (fpflow.total_variation, fpflow.kl_divergence, fpflow.hellinger):
        found = kind(energy, exact)
        assert found.floor == 0 and found.kind == "floor"
        coarser = kind(energy.unextrapolated, exact)
        assert abs(abs(found.value - coarser.value) - found.error) < 1e-12
