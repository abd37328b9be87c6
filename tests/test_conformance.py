"""Every public question about a model, asked of an exact score, whose answer is known, and of the same
with a function of time in its potential, which no answer may feel. A new question joins the table."""

import inspect

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import fpflow
from known import KINDS, OU, LinearScore
from test_sample import DRAWN

# Symmetric, so that at T = 10 the prior is the law of the noised data to e^-20.
LAW = fpflow.datasets.GaussianMixture([[-0.6], [0.6]], 0.15)
EXACT = LAW.marginal(OU)
X = jnp.array([[-0.9], [0.1], [0.7]])
LOG_P = jax.vmap(LAW.log_prob)(X)
WINDOW = fpflow.Window(-3.0, 3.0, 32, dim=1)
CELLS = LAW.cell_probabilities(WINDOW).mass
T, KEY = jnp.array(0.4), jr.key(0)
N = 4096
# Of N draws of the law: four standard errors of the first two moments.
MOMENTS = [0.0, 0.15 + 0.36]
NEAR = (
    4 * np.array([0.51**0.5, (3 * 0.15**2 + 6 * 0.15 * 0.36 + 0.36**2 - 0.51**2) ** 0.5]) / N**0.5
)


class Gauged(eqx.Module):
    """The exact potential and a function of time."""

    dim: int = eqx.field(default=1, static=True)

    def potential(self, t, x):
        return EXACT.potential(t, x) + 2 * jnp.exp(-3 * t)

    def score(self, t, x):
        return EXACT.score(t, x)


def moments(x):
    return [np.mean(x), np.mean(np.square(x))]


def velocity(m):
    return -X[0] - m.score(T, X[0]) / 2


def jet(m):
    found = fpflow.potential_jet(m, T, X[0])
    return [found.gradient[0], found.laplacian]


def known_jet():
    slope = jax.grad(lambda x: EXACT.potential(T, x))
    return [slope(X[0])[0], jax.jacfwd(slope)(X[0])[0, 0]]


FEW = {"num_times": 16, "points_per_time": 16, "key": KEY}
CHAIN = fpflow.GaussianChain(0.3, 60)
SLOW = pytest.mark.slow

# What is asked, what must come, and how near: round-off where nothing else is said.
QUESTIONS = {
    # Solvers: their own tolerance, and the mismatch of the prior.
    "log_prob_ode": (lambda m: fpflow.log_prob_ode(m, OU, X).value, LOG_P, 1e-6),
    "log_prob_sde": (
        lambda m: fpflow.log_prob_sde(
            m, OU, X, num_paths=16, method=fpflow.ResidualPaths(64), key=KEY
        ).value, LOG_P, 2e-4,  # Simpson's rule for the rate of six at t0
    ),
    # A chain has a law of its own, of first order in its steps: .02 nats at sixty.
    "log_prob_chain": (
        lambda m: fpflow.log_prob_chain(
            CHAIN, m, OU, X, num_paths=1024, twist=m, key=KEY
        ).value, LOG_P, 0.1,
    ),
    # A bound that an exact score reaches: its weights are even.
    "evidence_bound": (
        lambda m: fpflow.evidence_bound(
            m, OU, X, num_importance=8, num_groups=64, num_steps=400, key=KEY
        ).value, LOG_P, 1e-9,
    ),
    "importance_sample": (
        lambda m: fpflow.importance_sample(
            m, OU, LAW.log_prob, 64, sampler=fpflow.ODE(num_steps=100), key=KEY
        ).log_z.value, 0.0, 1e-3,
    ),
    # Second order in cells and steps, extrapolated.
    "grid_density_ode": (lambda m: fpflow.grid_density_ode(m, OU, WINDOW).mass, CELLS, 1e-4),
    "grid_density_sde": (lambda m: fpflow.grid_density_sde(m, OU, WINDOW).mass, CELLS, 1e-4),
    "grid_density_potential": (
        lambda m: fpflow.grid_density_potential(m, OU, WINDOW).mass, CELLS, 1e-4,
    ),
    "gauge_free_residual": (lambda m: fpflow.gauge_free_residual(m, OU, T, X), np.zeros(3), 1e-9),
    "score_fp_residual": (lambda m: fpflow.score_fp_residual(m, OU, T, X[0]), np.zeros(1), 1e-9),
    "flow_velocity": (lambda m: fpflow.flow_velocity(m, OU, T, X[0]), velocity(EXACT), 1e-12),
    "family_drift": (
        lambda m: fpflow.family_drift(m, OU, jnp.array(0.0), T, X[0]), velocity(EXACT), 1e-12,
    ),
    "potential_jet": (jet, known_jet(), 1e-9),
    "kl_account": (
        lambda m: [
            getattr(fpflow.kl_account(m, OU, LAW, num_points=32, num_steps=20, key=KEY), name).value
            for name in ("prior", "score_matching", "difference")
        ], np.zeros(3), 1e-6,
    ),
    "theorem_one": (
        lambda m: fpflow.theorem_one(m, OU, WINDOW, num_times=20, num_steps=100).distance, 0.0, 0.02,
    ),
    "gap_bound": (
        lambda m: fpflow.gap_bound(m, OU, WINDOW, num_times=20, num_steps=100).distance, 0.0, 0.02,
    ),
    "residual_norm": (lambda m: fpflow.residual_norm(m, OU, data=LAW, **FEW).spatial, 0.0, 1e-9),
    "residual_profile": (
        lambda m: fpflow.residual_profile(
            m, OU, data=LAW, times_per_bin=4, points_per_time=16, key=KEY
        ).spatial.max(), 0.0, 1e-9,
    ),
    "excess_loss": (
        lambda m: fpflow.excess_loss(
            m, OU, LAW, reference=EXACT, num_points=64, key=KEY
        ).value, 0.0, 1e-12,
    ),
    "sample": (lambda m: moments(fpflow.sample(fpflow.ODE(), m, OU, N, key=KEY)), MOMENTS, NEAR),
    "sample_ode": (lambda m: moments(fpflow.sample_ode(m, OU, N, key=KEY)), MOMENTS, NEAR),
    "sample_sde": (lambda m: moments(fpflow.sample_sde(m, OU, N, key=KEY)), MOMENTS, NEAR),
    "sample_histogram": (
        lambda m: fpflow.sample_histogram(fpflow.ODE(), m, OU, N, WINDOW, key=KEY).mass,
        CELLS, 5 * np.sqrt(CELLS.max() / N),
    ),
    "ode_trajectories": (
        lambda m: moments(fpflow.ode_trajectories(m, OU, N, num_times=3, key=KEY).x[-1]), MOMENTS, NEAR,
    ),
    "chain_paths": (
        lambda m: moments(fpflow.chain_paths(fpflow.Ancestral(200), m, OU, N, key=KEY).x[-1]),
        MOMENTS, 1.5 * NEAR,  # and the chain's own steps
    ),
    # Which is best for a mixture no formula says; for a Gaussian one test_chain does.
    "tuned_chain": (
        lambda m: fpflow.tuned_chain(
            fpflow.GaussianChain(0.3, 20), m, OU, X, key=KEY
        ).variance, None, 1e-9,
    ),
    "distil_potential": (
        lambda m: fpflow.distil_potential(m, OU, LAW, num_steps=2, key=KEY).score(T, X[0]),
        None, 1e-9,  # untrained; that it learns stands in test_callback
    ),
}  # fmt: skip
SHORT = {
    "flow_velocity", "family_drift", "potential_jet", "score_fp_residual", "excess_loss", "sample_ode",
    "grid_density_potential",
}  # fmt: skip
# These see the gauge, and say so: of a potential's own rate, or of its values.
SEES = {"log_fp_residual", "fp_residual"}
# These train, change or keep a model, or ask the questions above.
OTHERS = {"train", "save", "in_frame", "given", "gap_report", "held_out",
          "guided", "classifier_guided"}  # fmt: skip


def asked(names):
    return [pytest.param(name, marks=() if name in SHORT else SLOW) for name in names]


@pytest.mark.parametrize("name", asked(QUESTIONS))
def test_the_exact_score_gets_the_known_answer_whatever_its_gauge(name):
    ask, answer, near = QUESTIONS[name]
    found, gauged = np.asarray(ask(EXACT), float), np.asarray(ask(Gauged()), float)
    if answer is not None:
        assert (abs(found - np.asarray(answer)) <= near).all(), (found, answer)
    # One key, so that the noise is the same in both.
    assert (abs(gauged - found) <= np.minimum(near, 1e-3)).all(), (found, gauged)


@pytest.mark.parametrize("name", sorted(SEES))
def test_residuals_that_see_the_gauge_see_all_of_it(name):
    ask = getattr(fpflow, name)
    seen = ask(Gauged(), OU, T, X[0]) - ask(EXACT, OU, T, X[0])
    rate = -6 * jnp.exp(-3 * T)
    if name == "fp_residual":  # of the density e^u
        rate = rate * jnp.exp(Gauged().potential(T, X[0]))
    np.testing.assert_allclose(seen, rate, rtol=1e-9)


def asks_a_model(name):
    value = getattr(fpflow, name)
    if inspect.isclass(value) or not callable(value) or name in ("Raveled", "Preconditioned"):
        return False
    return bool({"model", "model_or_score"} & set(list(inspect.signature(value).parameters)[:2]))


def test_every_public_question_is_in_the_table():
    assert {name for name in dir(fpflow) if asks_a_model(name)} == {*QUESTIONS, *SEES, *OTHERS}


def public(base):
    """The classes at the door that a user makes one of."""
    found = (getattr(fpflow, name) for name in dir(fpflow))
    kinds = {kind for kind in found if inspect.isclass(kind) and issubclass(kind, base)}
    return {kind for kind in kinds if not kind.__name__.startswith("Abstract")}


def test_every_public_process_and_sampler_is_in_the_tables():
    """The tables that are drawn from, solved on grids and asked for their densities."""
    assert {type(process) for process in KINDS.values()} == public(fpflow.AbstractProcess)
    inner = {type(part) for process in KINDS.values() for part in vars(process).values()}
    assert public(fpflow.AbstractSignal) | public(fpflow.AbstractNoiseLevel) <= inner
    assert {type(sampler) for sampler, _ in DRAWN} == public(fpflow.AbstractSampler)


@pytest.mark.parametrize(
    ("solver", "order", "constant"), [(diffrax.Euler(), 1, 1 / 2), (diffrax.Heun(), 2, 1 / 6)]
)
def test_the_leading_constant_of_a_solver_is_that_of_its_expansion(solver, order, constant):
    """x' = -l x over a time of one by n equal steps misses e^-l by (-l)^(p+1) e^-l c n^-p."""
    process, n = fpflow.OrnsteinUhlenbeck(t1=1.0), 64
    model, rate = LinearScore(jnp.array([[5.0]])), 5.0 / 2 - 1
    step_grid = np.linspace(1.0, 0.0, n + 1)
    options = {"key": KEY, "dim": 1}
    found = fpflow.sample(fpflow.ODE(solver, step_grid=step_grid), model, process, 8, **options)
    fine = np.linspace(1.0, 0.0, 129)
    exact = fpflow.sample(
        fpflow.ODE(diffrax.Dopri8(), step_grid=fine), model, process, 8, **options
    )
    missed = (np.asarray(found / exact) - 1) / (constant * rate ** (order + 1) * n**-order)
    # The next term is smaller by l / n = .02 times constants below two.
    np.testing.assert_allclose(missed, (-1) ** order, atol=0.06)
