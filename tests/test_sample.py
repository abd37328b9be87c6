"""Samplers: orders of convergence, exact laws, and independence of batches."""

import inspect
import json
import types

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import fpflow
from fpflow._sample.steps import step_times
from fpflow.datasets import count_in_cells
from known import KINDS, OU, LinearScore, WithoutPotential, linear_laws, mixture

MIXTURE = fpflow.datasets.gaussian_mixture()
EXACT = MIXTURE.marginal(OU)
SHORT = fpflow.OrnsteinUhlenbeck(t1=1.0)
LINEAR = LinearScore(jnp.array([[3.0, 0.5], [0.2, 4.0]]))
WINDOW = fpflow.Window()


def uniform(n):
    return np.linspace(1.0, 0.0, n + 1)


def ode(solver):
    return lambda n: fpflow.ODE(solver, step_grid=uniform(n))


@pytest.mark.parametrize(
    ("sampler", "order"),
    [
        (ode(diffrax.Euler()), 1),
        (ode(diffrax.Heun()), 2),
        (ode(diffrax.Tsit5()), 5),
        (ode(diffrax.Dopri8()), 8),
        (fpflow.DDIM, 1),
        (fpflow.EDMHeun, 2),
    ],
    ids=["Euler", "Heun", "Tsit5", "Dopri8", "DDIM", "EDMHeun"],
)
def test_samplers_of_the_ode_show_their_order(sampler, order):
    """Doubling the steps divides the error by 2^order, on x' = (A/2 - 1) x with a known flow."""
    key, n = jr.key(0), 64
    steps = {1: 32, 2: 32, 5: 8, 8: 1}[order]
    drift = np.asarray(LINEAR.matrix) / 2 - np.eye(2)
    x1 = sample_prior(key, n)
    exact = x1 @ np.asarray(jax.scipy.linalg.expm(-drift)).T
    errors = [
        np.abs(fpflow.sample(sampler(k * steps), LINEAR, SHORT, n, key=key) - exact).max()
        for k in (1, 2)
    ]
    measured = np.log2(errors[0] / errors[1])
    # Half an order is the room for the next term of the expansion at these coarse steps; Dopri8
    # does better than its order on a linear equation.
    assert measured > order - 0.5
    assert measured < order + 0.5 or order == 8


def sample_prior(key, n):
    """What the samplers start from: the prior under the first block's key."""
    return np.asarray(SHORT.prior.sample(jr.split(jr.fold_in(key, 0))[0], (n, 2)))


def sde(solver):
    return lambda n: fpflow.SDE(solver=solver, step_grid=uniform(n))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sampler", "steps", "order"),
    [
        (lambda n: fpflow.EulerMaruyama(step_grid=uniform(n), quiet_end=False), 8, 1),
        (sde(diffrax.ShARK()), 6, 2),
        (sde(diffrax.SRA1()), 6, 2),
        (sde(diffrax.SEA()), 8, 1),
        (fpflow.Ancestral, 16, 1),
    ],
    ids=["Euler-Maruyama", "ShARK", "SRA1", "SEA", "Ancestral"],
)
def test_samplers_of_the_sde_show_their_weak_order(sampler, steps, order):
    """The error of the variance falls by 2^order, within the noise of 1.6 million coordinates."""
    model, n = LinearScore(4.0 * jnp.eye(8)), 200_000
    exact = linear_laws(4.0 * np.eye(1), SHORT)[0][0, 0]
    errors = []
    for k in (1, 2):
        x = fpflow.sample(sampler(k * steps), model, SHORT, n, key=jr.key(k))
        errors.append(float(jnp.mean(x**2)) - exact)
    noise = 4 * exact * (2 / (8 * n)) ** 0.5
    low = (abs(errors[0]) - noise) / (abs(errors[1]) + noise)
    high = (abs(errors[0]) + noise) / max(abs(errors[1]) - noise, 1e-12)
    assert abs(errors[0]) > 3 * noise, "the steps are too fine to see an error"
    assert low < 2 ** (order + 0.5)
    assert high > 2 ** (order - 0.5)


def test_euler_maruyama_adds_the_noise_it_should():
    """For N equal steps the variance of Euler--Maruyama obeys v -> (1 - 3 h)^2 v + h exactly, as a chain
    and as diffrax's Euler steps of the equation."""
    model, n, steps = LinearScore(4.0 * jnp.eye(8)), 20_000, 10
    for last in (True, False):
        v, h = 0.5, 1 / steps
        for k in range(steps):
            v = (1 - 3 * h) ** 2 * v + (h if last or k < steps - 1 else 0)
        samplers = [fpflow.EulerMaruyama(step_grid=uniform(steps), quiet_end=not last)]
        if last:
            samplers.append(fpflow.SDE(solver=diffrax.Euler(), step_grid=uniform(steps)))
        for sampler in samplers:
            x = fpflow.sample(sampler, model, SHORT, n, key=jr.key(1))
            assert abs(float(jnp.mean(x**2)) / v - 1) < 5 * (2 / (8 * n)) ** 0.5


def test_ancestral_sampling_is_ddim_with_all_its_noise():
    ancestral = fpflow.sample(fpflow.Ancestral(5), LINEAR, SHORT, 10, key=jr.key(0))
    ddim = fpflow.sample(fpflow.DDIM(5, eta=1.0), LINEAR, SHORT, 10, key=jr.key(0))
    np.testing.assert_array_equal(ancestral, ddim)


FEW = 4096
LAW = mixture(2)


@pytest.fixture(scope="module")
def drawn():
    """Many direct draws, and the sliced distances between eight pairs of as few as the samples."""
    many = np.asarray(LAW.sample(jr.key(1), 200_000))
    parts = many[: 16 * FEW].reshape(8, 2, FEW, 2)
    return many, [fpflow.sliced_w2(a, b).value for a, b in parts]


CORRECTED = fpflow.PredictorCorrector(100, signal_to_noise=0.05)


DRAWN = [
    *((fpflow.ODE(num_steps=50), kind) for kind in KINDS),
    *((fpflow.SDE(num_steps=100), kind) for kind in KINDS),
    *((fpflow.EulerMaruyama(num_steps=200), kind) for kind in ("subvp", "linear")),
    *((fpflow.Ancestral(200), kind) for kind in ("ve-harmonic", "linear")),
    *((fpflow.DDIM(200), kind) for kind in ("subvp", "trigonometric")),
    *((fpflow.EDMHeun(churn=20.0), kind) for kind in ("ve", "vp")),
    *((CORRECTED, kind) for kind in ("edm", "linear")),
    *((fpflow.GaussianChain(0.3, 200), kind) for kind in ("ou", "edm")),
    (fpflow.PredictorCorrector(signal_to_noise=0.05, predictor=fpflow.DDIM(100)), "vp"),
    *((fpflow.Picard(fpflow.DDIM(200)), kind) for kind in ("ou", "edm")),
]


@pytest.mark.parametrize(
    ("sampler", "kind"),
    [
        pytest.param(
            *case,
            # In a short run two processes stand for all.
            marks=pytest.mark.slow
            if isinstance(case[0], fpflow.SDE) and case[1] not in ("ve", "linear")
            else (),
        )
        for case in DRAWN
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_every_sampler_draws_the_data_of_every_process(sampler, kind, drawn):
    """Moments in standard errors, and the sliced distance to draws of the data beside its floor."""
    process, (many, floors) = KINDS[kind], drawn
    model = LAW.marginal(process)
    x = np.asarray(fpflow.sample(sampler, model, process, FEW, dim=2, key=jr.key(0)))
    z = (many - many.mean(0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(many.T))).T
    y = (x - many.mean(0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(many.T))).T
    products = lambda a: np.concatenate([a, a[:, :1] * a, a[:, 1:] ** 2], axis=1)
    apart = (products(y).mean(0) - products(z).mean(0)) / (products(z).std(0) / FEW**0.5)
    # Four standard errors, and one more for the priors of exploding noise, which have no mean.
    assert (np.abs(apart) < 5).all(), apart
    distance = fpflow.sliced_w2(x, many[-FEW:]).value
    assert distance < np.mean(floors) + 5 * np.std(floors, ddof=1)


class Counted:
    """Says every time that its score is asked for a value."""

    dim = 2

    def __init__(self):
        self.count = 0

    def score(self, t, x):
        jax.debug.callback(self.tick)
        return -3 * x

    def tick(self):
        self.count += 1


@pytest.mark.parametrize(
    ("sampler", "expected"),
    [
        (fpflow.ODE(num_steps=3), 6),
        (fpflow.ODE(diffrax.Tsit5(), num_steps=3), 19),
        (fpflow.ODE(stepsize_controller=diffrax.PIDController(rtol=0.1, atol=0.1)), None),
        (fpflow.SDE(num_steps=3), 6),
        (fpflow.SDE(solver=diffrax.SEA(), num_steps=3), 3),
        (fpflow.EulerMaruyama(num_steps=3), 3),
        (fpflow.PredictorCorrector(3, num_corrections=2), 9),
        (fpflow.Ancestral(3), 3),
        (fpflow.DDIM(3), 3),
        (fpflow.EDMHeun(3), 5),
        (fpflow.PredictorCorrector(predictor=fpflow.DDIM(3)), 6),
    ],
    ids=str,
)
def test_evaluations_are_counted(sampler, expected):
    model = Counted()
    _, info = sampler(model, SHORT, jnp.ones((1, 2)), key=jr.key(0))
    jax.effects_barrier()
    assert info.success and info.num_evaluations == model.count
    assert expected in (None, model.count)


SAMPLERS = [
    fpflow.ODE(num_steps=3),
    fpflow.SDE(num_steps=3),
    fpflow.EulerMaruyama(num_steps=3),
    fpflow.PredictorCorrector(3),
    fpflow.Ancestral(3),
    fpflow.DDIM(3),
    fpflow.EDMHeun(3, churn=1.0),
    fpflow.Picard(fpflow.Ancestral(3)),
]


@pytest.mark.parametrize(
    "sampler",
    [
        pytest.param(s, marks=pytest.mark.slow if isinstance(s, fpflow.SDE | fpflow.ODE) else ())
        for s in SAMPLERS
    ],
    ids=lambda s: type(s).__name__,
)
def test_transformations_go_through(sampler):
    """jit and vmap change nothing beyond round-off; the gradient is a difference quotient."""

    def draw(scale, key):  # the scale is a condition as much as a parameter
        return fpflow.sample(sampler, LinearScore(scale * jnp.eye(2)), SHORT, 5000, key=key)

    one, keys = jnp.array(1.5), jr.split(jr.key(0), 2)
    plain = np.stack([draw(one, key) for key in keys])
    jitted = jax.jit(lambda key: draw(one, key))(keys[0])
    np.testing.assert_allclose(jitted, plain[0], atol=1e-12)
    np.testing.assert_allclose(jax.vmap(lambda key: draw(one, key))(keys), plain, atol=1e-12)
    models = jax.vmap(lambda scale: draw(scale, keys[0]))(jnp.array([0.7, 1.5]))
    np.testing.assert_allclose(models[1], plain[0], atol=1e-12)
    mean = lambda scale: jnp.mean(draw(scale, keys[0]) ** 2)
    # Central differences of a smooth function: h^2 and round-off / h, both below 1e-8.
    quotient = (mean(one + 1e-5) - mean(one - 1e-5)) / 2e-5
    np.testing.assert_allclose(jax.grad(mean)(one), quotient, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("chain", [fpflow.DDIM(128), fpflow.Ancestral(128)], ids=["ODE", "SDE"])
def test_all_steps_at_once_give_the_chain_in_fewer_rounds(chain):
    """The fixed point is the chain's path with its own noise, exact after as many rounds as steps."""
    model, x1 = LAW.marginal(OU), jr.normal(jr.key(1), (50, 2))
    one, info = chain(model, OU, x1, key=jr.key(0))
    for windows, limit in ((1, 64), (4, 96)):
        parallel = fpflow.Picard(chain, tolerance=1e-6, num_windows=windows)
        found, counted = parallel(model, OU, x1, key=jr.key(0))
        # The last change is below the tolerance, and so, where rounds contract, is what is left.
        np.testing.assert_allclose(found, one, atol=1e-5)
        assert 1 < counted.num_rounds < limit < info.num_evaluations
        assert counted.num_evaluations == 128 // windows * counted.num_rounds
    found, counted = fpflow.Picard(chain, tolerance=1e-300)(model, OU, x1, key=jr.key(0))
    np.testing.assert_allclose(found, one, atol=1e-12)
    assert counted.num_rounds <= 128
    with pytest.raises(
        ValueError, match="`num_windows` must be at most the 128 steps of the chain"
    ):
        fpflow.Picard(chain, num_windows=129)(model, OU, x1, key=jr.key(0))


def test_networks_are_differentiated_and_stacked():
    def draw(model):
        return fpflow.sample(fpflow.DDIM(3), model, OU, 10, key=jr.key(1))

    make = lambda key: fpflow.PotentialMLP(2, width=4, depth=1, key=key)
    stacked = eqx.filter_vmap(draw)(eqx.filter_vmap(make)(jr.split(jr.key(0), 2)))
    model = make(jr.split(jr.key(0), 2)[0])
    np.testing.assert_allclose(stacked[0], draw(model), atol=1e-12)
    gradient = eqx.filter_grad(lambda model: jnp.sum(draw(model) ** 2))(model)
    assert float(jnp.abs(gradient.network.weights[0]).max()) > 0


STEPPED = [s for s in SAMPLERS if not isinstance(s, fpflow.Picard)]


@pytest.mark.parametrize("sampler", STEPPED, ids=lambda s: type(s).__name__)
def test_finer_samplers_take_more_steps_of_the_same_kind(sampler):
    finer = sampler.finer(4)
    assert type(finer) is type(sampler) and finer.num_steps == 12
    described = {**sampler.as_dict(), "num_steps": 12}
    assert json.loads(json.dumps(finer.as_dict(), allow_nan=True)) == described


@pytest.mark.parametrize("wrap", [fpflow.Picard, lambda c: fpflow.PredictorCorrector(predictor=c)])
def test_finer_samplers_around_a_chain_have_a_finer_chain(wrap):
    finer = wrap(fpflow.DDIM(3)).finer(4)
    assert finer.as_dict() == wrap(fpflow.DDIM(12)).as_dict()


def test_finer_grids_and_tolerances():
    grid = fpflow.ODE(step_grid=[1.0, 0.5, 0.0]).finer(2)
    assert (grid.num_steps, grid.step_grid) == (4, (1.0, 0.75, 0.5, 0.25, 0.0))
    free = fpflow.SDE(stepsize_controller=diffrax.PIDController(rtol=1e-2, atol=1e-3)).finer(2)
    assert (free.stepsize_controller.rtol, free.stepsize_controller.atol) == (2.5e-3, 2.5e-4)
    assert free.as_dict()["stepsize_controller"]["rtol"] == 2.5e-3
    clipped = diffrax.ClipStepSizeController(diffrax.PIDController(rtol=1e-2, atol=1e-3))
    with pytest.raises(ValueError, match="only a `diffrax.PIDController` can be made finer"):
        fpflow.ODE(stepsize_controller=clipped).finer(2)


ADAPTIVE = diffrax.PIDController(rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: fpflow.ODE(diffrax.ShARK()), "`solver` must be a diffrax solver for ordinary"),
        (lambda: fpflow.SDE(solver=diffrax.Tsit5()), "`solver` must be a diffrax solver for stoch"),
        (
            lambda: fpflow.SDE(solver=diffrax.SEA(), stepsize_controller=ADAPTIVE),
            "a solver with an error estimate",
        ),
        (
            lambda: fpflow.ODE(diffrax.Euler(), stepsize_controller=ADAPTIVE),
            "a solver with an error estimate",
        ),
        (
            lambda: fpflow.ODE(stepsize_controller=diffrax.ConstantStepSize()),
            "must choose steps by their error, .* got ConstantStepSize; to set your own steps",
        ),
        (lambda: fpflow.SDE(num_steps=3, stepsize_controller=ADAPTIVE), "not both"),
        (lambda: fpflow.SDE(eta=-1.0), "`eta` must be finite and not negative, got -1.0"),
        (lambda: fpflow.EulerMaruyama(eta=np.nan), "`eta` must be finite and not negative"),
        (lambda: fpflow.EulerMaruyama(num_steps=0), "`num_steps` must be a whole number"),
        (lambda: fpflow.DDIM(eta=1.5), "`eta` must lie between 0 and 1, got 1.5"),
        (lambda: fpflow.Ancestral(step_grid=[1.0]), "`step_grid` must be finite times"),
        (
            lambda: fpflow.PredictorCorrector(signal_to_noise=0.0),
            "`signal_to_noise` must be positive and finite, got 0.0",
        ),
        (lambda: fpflow.PredictorCorrector(num_corrections=0), "`num_corrections` must be"),
        (
            lambda: fpflow.PredictorCorrector(5, predictor=fpflow.DDIM(5)),
            "those of the default predictor; give them to `predictor` instead",
        ),
        (  # as without the checker of types that the tests have
            lambda: fpflow.Picard.__post_init__(types.SimpleNamespace(chain=fpflow.ODE())),  # pyright: ignore
            "`chain` must be a chain of kernels",
        ),
        (lambda: fpflow.Picard(tolerance=0.0), "`tolerance` must be positive and finite"),
        (lambda: fpflow.EDMHeun(churn=-1.0), "`churn` must be finite and not negative, got -1.0"),
        (lambda: fpflow.EDMHeun(churn_min=2.0, churn_max=1.0), "`churn_max` must be at least"),
        (
            lambda: inspect.unwrap(fpflow.sample)(fpflow.ODE, EXACT, OU, 5, key=jr.key(0)),
            "`sampler` must be an `fpflow.AbstractSampler`",
        ),
        (
            lambda: jax.jit(lambda g: fpflow.ODE(step_grid=g).num_steps)(jnp.array([1.0, 0.0])),
            "`step_grid` must be concrete times",
        ),
    ],
)
def test_settings_that_make_no_sampler_are_refused(make, words):
    with pytest.raises(ValueError, match=words):
        make()


@pytest.mark.slow
@pytest.mark.parametrize("law", ["ode", "sde"])
def test_exact_score_samples_the_data_law_within_the_noise(law):
    """W2^2 of 200,000 samples to the cell probabilities against the same for direct draws."""
    n = 200_000
    sampler = {"ode": fpflow.ODE(num_steps=50), "sde": fpflow.SDE(num_steps=100)}[law]
    histogram = fpflow.sample_histogram(sampler, EXACT, OU, n, WINDOW, key=jr.key(0))
    exact = MIXTURE.cell_probabilities(WINDOW)
    value = fpflow.w2_grid(histogram, exact).value
    floors = []
    for k in range(4):
        counts = count_in_cells(np.asarray(MIXTURE.sample(jr.key(10 + k), n)), WINDOW)
        floors.append(fpflow.w2_grid(counts / counts.sum(), exact, WINDOW).value)
    # Four draws of the floor; their spread, from 0.0012 to 0.0016, bounds what noise alone does.
    assert value < np.mean(floors) + 5 * np.std(floors, ddof=1)


@pytest.mark.slow
def test_batches_and_order_do_not_change_samples():
    model = fpflow.PotentialMLP(2, width=8, depth=1, key=jr.key(0))
    settings = {"num_steps": 4, "key": jr.key(3)}
    for sampler in (fpflow.sample_ode, fpflow.sample_sde):
        whole = sampler(model, OU, 10_000, **settings)
        parts = sampler(model, OU, 10_000, batch_size=8192, **settings)
        np.testing.assert_array_equal(whole, parts)
        assert whole.shape == (10_000, 2)
    assert len(np.unique(np.asarray(whole)[:, 0])) == 10_000
    other = fpflow.sample_sde(model, OU, 10_000, num_steps=4, key=jr.key(4))
    assert (whole != other).all()


def test_histogram_counts_the_samples():
    model, key = LinearScore(3 * jnp.eye(2)), jr.key(3)
    x = np.asarray(fpflow.sample_sde(model, OU, 5000, num_steps=20, key=key))
    sampler = fpflow.SDE(num_steps=20)
    density = fpflow.sample_histogram(sampler, model, OU, 5000, WINDOW, key=key)
    nearest = np.rint((x - WINDOW.low) / WINDOW.cell_width).astype(int)
    counts = np.zeros(WINDOW.shape)
    for i, j in nearest[((nearest >= 0) & (nearest < 64)).all(1)]:
        counts[i, j] += 1
    np.testing.assert_allclose(density.mass, counts / counts.sum(), atol=1e-15)
    np.testing.assert_allclose(density.outside, 1 - counts.sum() / 5000, atol=1e-12)


@pytest.mark.slow
def test_adaptive_steps_agree_with_fixed_ones():
    """To the tolerance asked for, for the ODE; in law, for the SDE."""
    controller = diffrax.PIDController(rtol=1e-8, atol=1e-8)
    settings = {"solver": diffrax.Tsit5(), "key": jr.key(0)}
    free = fpflow.sample_ode(EXACT, OU, 64, stepsize_controller=controller, **settings)
    fixed = fpflow.sample_ode(EXACT, OU, 64, num_steps=200, **settings)
    np.testing.assert_allclose(free, fixed, atol=1e-5)
    exact = linear_laws(np.asarray(LINEAR.matrix), SHORT)[0]
    x = fpflow.sample_sde(
        LINEAR, SHORT, 20_000, solver=diffrax.ShARK(), key=jr.key(1),
        stepsize_controller=diffrax.PIDController(rtol=1e-2, atol=1e-2),
    )  # fmt: skip
    covariance = np.asarray(x).T @ np.asarray(x) / len(x)
    # Five standard errors of a variance plus one per cent for the tolerance of the steps.
    assert (np.abs(covariance - exact) < exact.max() * (5 * (2 / len(x)) ** 0.5 + 0.01)).all()


def test_the_papers_step_grid():
    grid = fpflow.paper.step_grid()
    steps = -np.diff(grid)
    assert (len(steps), grid[0], grid[-1]) == (890, 10.0, 0.0)
    np.testing.assert_allclose(steps[:790], 0.0125)
    np.testing.assert_allclose(steps[790:], 0.00125)
    model = fpflow.PotentialMLP(2, width=4, depth=1, key=jr.key(0))
    x = fpflow.sample(fpflow.EulerMaruyama(step_grid=grid), model, OU, 10, key=jr.key(0))
    assert jnp.isfinite(x).all()


def test_single_precision_keeps_the_smallest_steps():
    """A float32 model follows the graded grid to steps of 1e-7 and stays on the float64 path."""
    model = LinearScore(3 * jnp.eye(2))
    narrow = jax.tree.map(lambda a: a.astype(jnp.float32) if hasattr(a, "astype") else a, model)
    x = fpflow.sample_ode(model, OU, 100, key=jr.key(0))
    y = fpflow.sample_ode(narrow, OU, 100, key=jr.key(0))
    assert y.dtype == jnp.float32
    # A hundred steps add as many round-offs of 6e-8 to values of order one.
    np.testing.assert_allclose(x, y, atol=1e-5)


def test_dimension_is_read_off_the_score():
    class Mixture:
        def score(self, t, x):
            return EXACT.score(t, x)

    assert fpflow.sample_ode(Mixture(), OU, 3, num_steps=2, key=jr.key(0)).shape == (3, 2)

    class Any:
        def score(self, t, x):
            return -2 * x

    with pytest.raises(ValueError, match="cannot be determined from `model.score`.* pass `dim=`"):
        fpflow.sample_ode(Any(), OU, 3, key=jr.key(0))
    assert fpflow.sample_sde(Any(), OU, 3, num_steps=2, dim=5, key=jr.key(0)).shape == (3, 5)


class NaNScore:
    dim = 2

    def score(self, t, x):
        return x * jnp.where(t < 5, jnp.nan, 1.0)


@pytest.mark.parametrize(
    ("model", "settings", "words"),
    [
        (EXACT, {"num_steps": 0}, "`num_steps` must be a whole number of at least 1"),
        (EXACT, {"num_samples": 0}, "`num_samples` must be a whole number of at least 1"),
        (EXACT, {"batch_size": -1}, "`batch_size` must be a whole number"),
        (EXACT, {"num_steps": 5, "step_grid": [10.0, 0.0]}, "either `num_steps` or `step_grid`"),
        (EXACT, {"step_grid": [0.0, 10.0]}, "`step_grid` must decrease strictly"),
        (EXACT, {"step_grid": [9.0, 0.0]}, "`step_grid` must start at `t1` = 10.0"),
        (EXACT, {"step_grid": [10.0, -1.0]}, "end no lower than `t0` = 0.0"),
        (EXACT, {"step_grid": [10.0, np.nan]}, "`step_grid` must be finite times"),
        (
            EXACT,
            {"num_steps": 5, "stepsize_controller": diffrax.PIDController(1e-3, 1e-3)},
            "not both",
        ),
        (EXACT, {"dim": 0}, "`dim` must be a whole number of at least 1, got 0"),
        (EXACT, {"dim": 3}, r"fails at points of shape \(3,\)|must return shape \(3,\)"),
        (WithoutPotential(LinearScore(jnp.eye(2) * jnp.nan)), {}, "`model.score` must be finite"),
    ],
)
def test_bad_arguments_are_refused(model, settings, words):
    with pytest.raises(ValueError, match=words):
        fpflow.sample_ode(model, OU, **{"num_samples": 5, "key": jr.key(0), **settings})


def test_failures_underway_are_reported():
    with pytest.raises(FloatingPointError, match="an ODE sample is not finite"):
        fpflow.sample_ode(NaNScore(), OU, 5, num_steps=5, key=jr.key(0))
    with pytest.raises(FloatingPointError, match="a DDIM sample is not finite .* `num_steps`.$"):
        fpflow.sample(fpflow.DDIM(5), NaNScore(), OU, 5, key=jr.key(0))


def test_another_key_or_number_of_batches_compiles_nothing(compilations):
    model = fpflow.PotentialMLP(2, width=8, depth=1, key=jr.key(0))
    fpflow.sample_sde(model, OU, 8192, num_steps=3, key=jr.key(0))
    with compilations() as count:
        fpflow.sample_sde(model, OU, 8192, num_steps=3, eta=0.5, key=jr.key(1))
    assert count() == 0


def test_steps_too_fine_for_a_precision_are_refused():
    words = "`num_steps` is too large: the steps must decrease strictly from `t1` to `t0`, got .*"
    words += ", which is not the case in float16"
    with pytest.raises(ValueError, match=words):
        step_times(OU, 3000, None, np.float16)
