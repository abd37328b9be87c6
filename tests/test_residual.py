"""The Fokker--Planck residual: zero where it must be, and the right number where it is not."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import fpflow
from fpflow._residual.square import probed_score_residual
from known import OU, PROCESSES, ROUND_OFF, Stretch, WithoutPotential, mixture


class Plain(eqx.Module):
    """A potential without derivatives of its own, so that jax takes them."""

    function: object

    def potential(self, t, x):
        return self.function(t, x)

    def score(self, t, x):
        return jax.grad(self.function, 1)(t, x)


@pytest.mark.parametrize("dim", [1, 2, 5])
@pytest.mark.parametrize("process", [*PROCESSES.values(), Stretch()], ids=[*PROCESSES, "stretch"])
def test_residual_of_the_exact_potential_vanishes(dim, process):
    """Below 1e-9: terms of order up to 1e3 at t = 0.01, of round-off 1e-16, cancel."""
    exact = mixture(dim).marginal(process)
    t = process.t0 + jnp.array([0.01, 0.1, 1.0, process.t1 - process.t0])
    x = jr.normal(jr.key(0), (4, dim))
    for model in (exact, Plain(exact.potential)):
        r = jax.vmap(lambda t, x, m=model: fpflow.log_fp_residual(m, process, t, x))(t, x)
        assert jnp.abs(r).max() < 1e-9


def test_residual_of_a_wrong_potential_is_the_formula():
    """u = -a |x|^2 / 2 + b t has r = b - d + a |x|^2 - (a^2 |x|^2 - a d) / 2."""
    a, b, d = 1.7, 0.4, 3
    model = Plain(lambda t, x: -a * jnp.sum(x**2) / 2 + b * t)
    x = jr.normal(jr.key(1), (d,))
    r = fpflow.log_fp_residual(model, OU, jnp.array(0.5), x)
    square = jnp.sum(x**2)
    expected = b - d + a * square - (a**2 * square - a * d) / 2
    np.testing.assert_allclose(r, expected, rtol=ROUND_OFF)


def test_an_offset_in_time_adds_its_derivative():
    exact = mixture(2).marginal(OU)
    model = Plain(lambda t, x: exact.potential(t, x) + jnp.sin(3 * t))
    t, x = jnp.array(0.8), jnp.array([0.3, -0.2])
    r = fpflow.log_fp_residual(model, OU, t, x)
    np.testing.assert_allclose(r, 3 * jnp.cos(3 * t), rtol=1e-9)


def test_network_jet_and_automatic_derivatives_give_one_residual():
    model = fpflow.PotentialMLP(2, width=16, beta=4.0, key=jr.key(0))
    t, x = jnp.array(0.2), jnp.array([0.7, 0.1])
    one = fpflow.log_fp_residual(model, OU, t, x)
    other = fpflow.log_fp_residual(Plain(model.potential), OU, t, x)
    np.testing.assert_allclose(one, other, rtol=1e-10)


def test_residual_norm_splits_off_the_part_that_no_sampler_feels():
    """An exact potential plus a sin(b t) leaves R = a^2 b^2 mean(cos^2(b t)) and nothing in x."""
    exact = mixture(2).marginal(OU)
    model = Plain(lambda t, x: exact.potential(t, x) + 0.5 * jnp.sin(3 * t))
    norm = fpflow.residual_norm(model, OU, dim=2, num_times=2048, points_per_time=4, key=jr.key(0))
    # mean of cos^2 over [0, 10] is 1/2 + sin(60) / 120.
    expected = 0.25 * 9 * (0.5 + np.sin(60) / 120)
    assert abs(norm.value - expected) < 5 * norm.standard_error
    assert norm.standard_error < 0.05 * expected
    assert abs(norm.spatial) < 1e-12


def test_residual_norm_is_the_integral():
    """Against Gauss--Legendre in x and the trapezoidal rule in t, for a potential that is wrong."""
    model = Plain(lambda t, x: -jnp.sum(x**2) + 0.1 * x[0] * t)
    norm = fpflow.residual_norm(model, OU, dim=2, low=-2.0, high=2.0, key=jr.key(2))
    t = np.linspace(0, 10, 201)
    nodes, weights = np.polynomial.legendre.leggauss(6)
    grid = np.stack(np.meshgrid(2 * nodes, 2 * nodes, indexing="ij"), -1).reshape(-1, 2)
    w = np.outer(weights, weights).ravel() / 4
    r = jax.vmap(
        lambda t: jax.vmap(lambda x: fpflow.log_fp_residual(model, OU, t, x))(jnp.asarray(grid))
    )(jnp.asarray(t))
    square, mean = np.asarray(r**2) @ w, np.asarray(r) @ w
    value = np.trapezoid(square, t) / 10
    spatial = np.trapezoid(square - mean**2, t) / 10
    assert abs(norm.value - value) < 5 * norm.standard_error + 1e-3 * value
    assert abs(norm.spatial - spatial) < 5 * norm.spatial_standard_error + 1e-3 * spatial
    assert norm.standard_error < 0.05 * value


def test_norms_of_the_density_and_of_the_score():
    """$R$ by weights $e^{2u}$ under the integral, $R^s$ by the gradient of the log residual."""
    model = Plain(lambda t, x: -jnp.sum(x**2) + 0.1 * x[0] * t)
    asked = {"dim": 2, "low": -2.0, "high": 2.0, "num_times": 512, "key": jr.key(2)}
    found = fpflow.residual_norm(model, OU, residual=fpflow.fp_residual, **asked)
    grid = fpflow.Window(-1.95, 1.95, 40).points()

    def square(t, x):
        weight = jnp.exp(2 * model.potential(t, x))
        return weight * fpflow.log_fp_residual(model, OU, t, x) ** 2

    t = np.linspace(0, 10, 201)
    means = jax.vmap(lambda t: jax.vmap(lambda x: square(t, x))(jnp.asarray(grid)).mean())
    expected = np.trapezoid(means(jnp.asarray(t)), t) / 10
    assert abs(found.value - expected) < 5 * found.standard_error + 1e-3 * expected
    assert found.standard_error < 0.1 * expected

    def slope(model, process, t, x):
        return jax.grad(lambda x: fpflow.log_fp_residual(model, process, t, x))(x)

    of_score, of_slope = (
        fpflow.residual_norm(model, OU, residual=r, **asked)
        for r in (fpflow.score_fp_residual, slope)
    )
    np.testing.assert_allclose(of_score, of_slope, rtol=1e-9)
    # Two components: a mean over them instead of a sum would be half of it.
    whole = jax.vmap(lambda x: jnp.sum(slope(model, OU, jnp.array(5.0), x) ** 2))(jnp.asarray(grid))
    profile = fpflow.residual_profile(
        fpflow.ScoreFunction(model.score, dim=2), OU, residual=fpflow.score_fp_residual,
        low=-2.0, high=2.0, edges=[4.99, 5.01], key=jr.key(3),
    )  # fmt: skip
    assert abs(profile.value[0] - whole.mean()) < 5 * profile.standard_error[0]


def test_calculus_on_fields_with_known_derivatives():
    x = jnp.array([0.3, -0.7])
    field = lambda x: jnp.array([x[0] ** 2 * x[1], jnp.sin(x[0]) + x[1]])
    np.testing.assert_allclose(fpflow.divergence(field, x), 2 * x[0] * x[1] + 1, rtol=ROUND_OFF)
    np.testing.assert_allclose(fpflow.curl(field, x), jnp.cos(x[0]) - x[0] ** 2, rtol=ROUND_OFF)
    quartic = lambda x: jnp.sum(x**4)
    np.testing.assert_allclose(fpflow.laplacian(quartic, x), 12 * jnp.sum(x**2), rtol=ROUND_OFF)
    assert abs(fpflow.curl(jax.grad(quartic), x)) < ROUND_OFF
    with pytest.raises(
        ValueError, match=r"must be one point in the plane, shape \(2,\), got \(3,\)"
    ):
        fpflow.curl(field, jnp.ones(3))


class Tilted(eqx.Module):
    """A wrong potential that moves in time and bends in space, with no symmetry to hide behind."""

    def potential(self, t, x):
        return jnp.sin(t + x[0]) * jnp.cos(0.7 * x[1]) - 0.6 * jnp.sum(x**2) + t**2

    def score(self, t, x):
        return jax.grad(self.potential, 1)(t, x)


TILTED, AT, HERE = Tilted(), jnp.array(0.8), jnp.array([0.4, -0.9])


@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
def test_density_residual_is_the_equation_of_the_density(process):
    """d_t p + div(f p) - g^2 lap(p) / 2 with every derivative taken of p itself."""

    def p(t, x):
        return jnp.exp(TILTED.potential(t, x))

    flux = fpflow.divergence(lambda x: process.drift(AT, x) * p(AT, x), HERE)
    spread = process.diffusion(AT) ** 2 / 2 * fpflow.laplacian(lambda x: p(AT, x), HERE)
    expected = jax.grad(p)(AT, HERE) + flux - spread
    np.testing.assert_allclose(
        fpflow.fp_residual(TILTED, process, AT, HERE), expected, rtol=ROUND_OFF
    )


@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
def test_score_residual_is_the_gradient_of_the_log_residual(process):
    expected = jax.grad(lambda x: fpflow.log_fp_residual(TILTED, process, AT, x))(HERE)
    found = fpflow.score_fp_residual(WithoutPotential(TILTED), process, AT, HERE)
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    law = mixture(2).marginal(process)
    exact = fpflow.score_fp_residual(WithoutPotential(law), process, AT, HERE)
    np.testing.assert_allclose(exact, 0, atol=1e-9)


def test_an_offset_in_time_is_gauge():
    class Shifted(Tilted):
        def potential(self, t, x):
            return super().potential(t, x) + jnp.exp(3 * t)

    x = jr.normal(jr.key(0), (20, 2))
    one, other = (fpflow.gauge_free_residual(model, OU, AT, x) for model in (TILTED, Shifted()))
    np.testing.assert_allclose(one, other, atol=1e-10)
    r = jax.vmap(lambda x: fpflow.log_fp_residual(TILTED, OU, AT, x))(x)
    np.testing.assert_allclose(one, r - r.mean(), atol=1e-12)
    assert abs(fpflow.log_fp_residual(Shifted(), OU, AT, x[0]) - r[0]) > 1


def test_squares_by_probes_have_the_means_they_promise():
    r = fpflow.log_fp_residual(TILTED, OU, AT, HERE)
    hessian = jax.hessian(TILTED.potential, 1)(AT, HERE)
    # eps' H eps = tr H + 2 eps1 eps2 H12, and g^2 / 2 = 1 / 2.
    variance = hessian[0, 1] ** 2
    assert fpflow.ExactSquare()(TILTED, OU, AT, HERE, jr.key(0)) == r**2
    keys = jr.split(jr.key(1), 4000)
    for square, expected in (
        (fpflow.HutchinsonSquare(num_probes=2), r**2 + variance / 2),
        (fpflow.TwoProbeSquare(), r**2),
    ):
        values = jax.vmap(lambda key, square=square: square(TILTED, OU, AT, HERE, key))(keys)
        assert abs(values.mean() - expected) < 5 * values.std() / 4000**0.5
        assert values.std() > 0


def test_the_square_of_the_density_has_the_gradient_of_a_fixed_factor():
    """Its value is R^2; a constant in the potential scales it and gets no gradient."""
    density = fpflow.fp_residual(TILTED, OU, AT, HERE)
    found = fpflow.DensitySquare()(TILTED, OU, AT, HERE, jr.key(0))
    np.testing.assert_allclose(found, density**2, rtol=1e-12)
    network = fpflow.PotentialMLP(2, width=8, depth=1, key=jr.key(0))

    def value(square, model):
        return square(model, OU, AT, HERE, jr.key(0))

    of_density, of_u = (
        eqx.filter_grad(functools.partial(value, square))(network)
        for square in (fpflow.DensitySquare(), fpflow.ExactSquare())
    )
    scale = jnp.exp(2 * network.potential(AT, HERE))
    for one, other in zip(jax.tree.leaves(of_density), jax.tree.leaves(of_u), strict=True):
        np.testing.assert_allclose(one, scale * other, rtol=1e-9, atol=1e-12)


def test_the_score_residual_by_probes_and_differences():
    """All four sign vectors of the plane together have the exact divergence; the difference in time is
    of second order. The square of one probe is too large by its variance over them."""
    signs = jnp.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    exact = fpflow.score_fp_residual(TILTED, OU, AT, HERE)
    missed = [
        probed_score_residual(TILTED, OU, AT, HERE, signs, h) - exact for h in (0.02, 0.01, 1e-4)
    ]
    np.testing.assert_allclose(missed[2], 0, atol=1e-6)
    np.testing.assert_allclose(missed[0] / missed[1], 4, rtol=0.01)
    one = jnp.stack([probed_score_residual(TILTED, OU, AT, HERE, v[None], 1e-4) for v in signs])
    expected = jnp.sum(one**2, 1).mean()
    square = fpflow.ProbedScoreSquare(time_step=1e-4)
    keys = jr.split(jr.key(1), 2000)
    values = jax.vmap(lambda key: square(TILTED, OU, AT, HERE, key))(keys)
    # Two values, equally often, and their mean to five standard errors.
    assert abs(values.mean() - expected) <= 5 * values.std() / 2000**0.5 + 1e-9
    assert fpflow.ExactScoreSquare()(TILTED, OU, AT, HERE, jr.key(0)) == jnp.sum(exact**2)


def test_penalties_take_other_squares():
    model = fpflow.PotentialMLP(2, width=8, depth=1, key=jr.key(0))
    batch = fpflow.Noising(pairs=False)(OU, mixture(2), 4096, key=jr.key(1))
    exact, probed = (
        fpflow.FokkerPlanck(1.0, 4096, square, fpflow.no_weighting)(model, OU, batch, key=jr.key(2))
        for square in (fpflow.ExactSquare(), fpflow.TwoProbeSquare())
    )
    # Thousands of points average the probes; a tenth is five of their standard errors.
    np.testing.assert_allclose(probed, exact, rtol=0.1)


@pytest.mark.slow
def test_weak_form_is_the_strong_one_tested():
    """Against the same test functions with the Laplacian left where it was."""
    law, t, n = mixture(2), jnp.array(0.5), 40_000
    weak = fpflow.WeakForm(num_features=8, length=0.8)
    found = weak(TILTED, OU, law, t, num_points=n, key=jr.key(0))
    _, _, key_frequency, key_phase = jr.split(jr.key(0), 4)
    frequency = jr.normal(key_frequency, (8, 2)) / 0.8
    phase = jr.uniform(key_phase, (8,), maxval=2 * jnp.pi)
    x0 = law.sample(jr.key(9), n)
    mean, std = jax.vmap(OU.transition, (None, 0))(t, x0)
    x = mean + std[:, None] * jr.normal(jr.key(10), x0.shape)
    r = jax.vmap(lambda x: fpflow.log_fp_residual(TILTED, OU, t, x))(x)
    strong = 2**0.5 * jnp.cos(x @ frequency.T + phase) * r[:, None]
    error = jnp.hypot(found.standard_error, strong.std(0) / n**0.5)
    assert (abs(found.value - strong.mean(0)) < 4.5 * error).all()
    assert (abs(strong.mean(0)) > 10 * error).any()
    exact = weak(law.marginal(OU), OU, law, t, num_points=n, key=jr.key(3))
    assert (abs(exact.value) < 4.5 * exact.standard_error).all()


def test_profile_sums_to_the_norm_and_knows_the_gauge():
    settings = {"low": -1.0, "high": 1.0, "dim": 2}
    profile = fpflow.residual_profile(
        TILTED, OU, edges=[0.0, 1.0, 4.0, 10.0], times_per_bin=400, key=jr.key(0), **settings
    )
    whole = fpflow.residual_norm(TILTED, OU, key=jr.key(1), **settings)
    width = np.diff(profile.edges) / 10
    error = np.hypot(np.sqrt(((width * profile.standard_error) ** 2).sum()), whole.standard_error)
    assert abs((width * profile.value).sum() - whole.value) < 5 * error
    spatial = np.hypot(
        np.sqrt(((width * profile.spatial_standard_error) ** 2).sum()), whole.spatial_standard_error
    )
    assert abs((width * profile.spatial).sum() - whole.spatial) < 5 * spatial
    # Under p_t of the exact potential nothing is left.
    law = mixture(2)
    exact = fpflow.residual_profile(law.marginal(OU), OU, data=law, key=jr.key(2))
    assert exact.value.max() < 1e-12
    late = fpflow.residual_norm(TILTED, OU, data=law, t_min=9.0, key=jr.key(3))
    assert late.value > (2 * 9.0 - 3) ** 2  # d_t t^2 = 2 t outgrows the rest
    for bad, words in (
        (
            lambda: fpflow.residual_norm(TILTED, OU, dim=2, t_min=10.0, key=jr.key(0)),
            "`t_min` must lie in",
        ),
        (
            lambda: fpflow.residual_profile(TILTED, OU, dim=2, edges=[1.0, 0.0], key=jr.key(0)),
            "`edges` must be increasing",
        ),
        (
            lambda: fpflow.residual_profile(TILTED, OU, dim=2, times_per_bin=3, key=jr.key(0)),
            "`times_per_bin` must be at least 4",
        ),
        (
            lambda: fpflow.residual_profile(TILTED, OU, dim=2, edges=[1.0, 11.0], key=jr.key(0)),
            r"`edges` must lie in \[0.0, 10.0\]",
        ),
        (
            lambda: fpflow.residual_norm.__wrapped__(TILTED, OU, key=0),
            "`key` must be a `jax.random.key`, got 0",
        ),
        (
            lambda: fpflow.residual_profile(
                fpflow.PotentialMLP(5, key=jr.key(0)), OU, data=mixture(2), key=jr.key(0)
            ),
            "`data` has dimension 2 and the model dimension 5",
        ),
        (lambda: fpflow.WeakForm(num_features=0), "`num_features` and `length` must be positive"),
    ):
        with pytest.raises(ValueError, match=words):
            bad()


def test_a_profile_of_few_times_knows_that_squares_are_skew():
    """Of r = x^2 under a stationary law of variance one half, E r^2 = 3/4: two errors of four times with
    sixteen points hold it in 95 % of runs, and in 89 % without an allowance; 400 know this to 1.5 %."""
    law = fpflow.datasets.GaussianMixture([[0.0]], 0.5)

    def square(model, process, t, x):
        return x[0] ** 2

    found = [
        fpflow.residual_profile(
            TILTED, OU, residual=square, data=law, edges=[0.5, 1.0], times_per_bin=4,
            points_per_time=16, key=jr.key(k),
        )
        for k in range(400)
    ]  # fmt: skip
    z = [(f.value[0] - 0.75) / f.standard_error[0] for f in found]
    assert 0.925 < np.mean(np.abs(z) < 2) < 0.98
