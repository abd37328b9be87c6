"""Changes of variables: no density may hang on the units of its data."""

import inspect
import types
import warnings

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest

import fpflow
from fpflow._cli import main
from known import OU, ROUND_OFF, LinearScore, mixture, without_mismatch

BOX = fpflow.Logit(low=[-9.0, -jnp.inf], high=[8.0, jnp.inf])
SCALE = fpflow.Standardise([0.3, -200.0], [0.02, 300.0])
WHITE = fpflow.Whiten([1.0, 2.0], [[2.0, 0.0], [-3.0, 0.25]])
TRANSFORMS = {
    "standardise": SCALE,
    "whiten": WHITE,
    "logit": BOX,
    "compose": fpflow.Compose(BOX, SCALE, WHITE),
    "box after": fpflow.Compose(fpflow.Standardise([0.5, 0.0], [3.0, 2.0]), BOX),
}
# Round-off of a width of 300 over one of a fiftieth.
NEAR = 1e4 * ROUND_OFF
SHORT = ["--steps", "4", "--chunk", "4", "--batch-size", "16", "--width", "4", "--depth", "1"]


@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
def test_a_transform_is_inverted_and_knows_its_jacobian(transform):
    x = jnp.array([0.7, -1.3])
    y = transform.forward(x)
    np.testing.assert_allclose(transform.inverse(y), x, rtol=NEAR)
    found = transform.log_det(x)
    jacobian = jax.jacfwd(transform.forward)(x)
    np.testing.assert_allclose(found, jnp.linalg.slogdet(jacobian)[1], rtol=NEAR)
    transform.check(x[None])


def test_data_are_standardised_and_whitened():
    x = jr.normal(jr.key(0), (400, 3)) @ jr.normal(jr.key(1), (3, 3)) + 7
    y = jax.vmap(fpflow.Standardise.of(x).forward)(x)
    np.testing.assert_allclose([y.mean(0), y.std(0)], [[0] * 3, [1] * 3], atol=NEAR)
    np.testing.assert_allclose(
        jnp.cov(jax.vmap(fpflow.Whiten.of(x).forward)(x).T), np.eye(3), atol=NEAR
    )
    # A law by 16,384 draws, to five standard errors of a mean; a constant column keeps its width.
    of_law = fpflow.Standardise.of(fpflow.Dequantised(jnp.array([[0.0, 2.0], [3.0, 2.0]]), [1, 0]))
    assert abs(of_law.shift[0] - 2) < 5 * 1.6 / 128 and of_law.scale[1] == 1


def law_in_units(dim):
    """An exact model of $y$ without a mismatch at the prior, its process and its density."""
    law = mixture(dim)
    process = without_mismatch(OU, law)
    return law.marginal(process), process, law.log_prob


def test_a_density_integrates_to_one_in_the_units_of_the_data():
    """On a line, behind an interval of a hundred units that the law fills unevenly."""
    model, process, _ = law_in_units(1)
    both = fpflow.Compose(fpflow.Logit(-40.0, 60.0), fpflow.Standardise(0.2, 0.5))
    x = jnp.linspace(-39.999, 59.999, 1201)[:, None]
    found = fpflow.log_prob_ode(fpflow.Transformed(model, both), process, x)
    # The trapezoidal rule on twelve cells per unit, and the solver's error of a millionth.
    np.testing.assert_allclose(np.trapezoid(np.exp(found.value), x[:, 0]), 1, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
def test_every_density_is_that_of_the_data(transform):
    """An exact score behind a transform: all densities are that of the law, by the Jacobian's
    determinant from forward derivatives."""
    inner, process, log_prob = law_in_units(2)
    model = fpflow.Transformed(inner, transform)
    y = jnp.array([[0.3, -0.4], [1.0, 0.5]])
    x = jax.vmap(transform.inverse)(y)
    gained = jnp.linalg.slogdet(jax.vmap(jax.jacfwd(transform.forward))(x))[1]
    exact = jax.vmap(log_prob)(y) + gained
    of_ode = fpflow.log_prob_ode(model, process, x)
    np.testing.assert_allclose(
        of_ode.value, exact, atol=1e-5
    )  # the default tolerance of the solver
    of_sde = fpflow.log_prob_sde(model, process, x, key=jr.key(0))
    np.testing.assert_allclose(
        of_sde.value, exact, atol=1e-3
    )  # the default times, as in its own test


@pytest.mark.slow
def test_chains_and_bounds_are_asked_in_the_same_units():
    inner, process, _ = law_in_units(2)
    model, y = fpflow.Transformed(inner, SCALE), jnp.zeros((2, 2))
    x = jax.vmap(SCALE.inverse)(y)
    gained = -float(jnp.log(SCALE.scale).sum())
    for ask in (
        lambda m, x: fpflow.evidence_bound(m, process, x, num_groups=4, num_steps=8, key=jr.key(0)),
        lambda m, x: fpflow.log_prob_chain(
            fpflow.GaussianChain(num_steps=8),
            model=m,
            process=process,
            x=x,
            num_paths=64,
            key=jr.key(0),
        ),
    ):
        np.testing.assert_allclose(ask(model, x).value, ask(inner, y).value + gained, rtol=NEAR)


def test_samples_come_back_in_the_units_of_the_data():
    model = LinearScore(jnp.eye(2))
    for draw in (
        lambda m: fpflow.sample(fpflow.EulerMaruyama(5), m, OU, 7, key=jr.key(0)),
        lambda m: fpflow.sample_ode(m, OU, 7, num_steps=5, key=jr.key(0)),
        lambda m: fpflow.sample_sde(model=m, process=OU, num_samples=7, num_steps=5, key=jr.key(0)),
    ):
        mapped = jax.vmap(SCALE.inverse)(draw(model))
        np.testing.assert_allclose(draw(fpflow.Transformed(model, SCALE)), mapped, rtol=NEAR)


@pytest.mark.slow
def test_the_evidence_of_a_target_does_not_hang_on_units():
    """Samples of the mixture in units of the data, weighed towards three times its density there."""
    law = mixture(2)
    model, log_prob = fpflow.Transformed(law.marginal(OU), WHITE), law.log_prob

    def log_target(x):
        jacobian = jax.jacfwd(WHITE.forward)(x)
        return jnp.log(3.0) + log_prob(WHITE.forward(x)) + jnp.linalg.slogdet(jacobian)[1]

    found = fpflow.importance_sample(model, OU, log_target, 64, sampler=fpflow.ODE(), key=jr.key(0))
    # All weights are three, but for what the prior does not know of the law at t1: exp(-10) of it.
    np.testing.assert_allclose(found.log_weights, np.log(3), atol=1e-3)
    assert abs(found.x[:, 0].mean() - 1) < 2 * 5 * 2 / 8  # in units of x: five standard errors


def conditional():
    return fpflow.PotentialMLP(2, width=4, depth=1, condition_dim=1, key=jr.key(0))


def test_a_condition_is_in_the_units_of_the_data():
    of_condition = fpflow.Standardise(50.0, 10.0)
    model = fpflow.Transformed(conditional(), SCALE, of_condition)
    x = jnp.array([[0.3, -100.0]])
    there = fpflow.given(fpflow.Transformed(conditional(), SCALE), [2.0])
    found = fpflow.log_prob_ode(fpflow.given(model, [70.0]), OU, x).value
    np.testing.assert_allclose(found, fpflow.log_prob_ode(there, OU, x).value, rtol=NEAR)


def test_training_in_units_is_training_on_mapped_points(tmp_path):
    x = jr.normal(jr.key(0), (64, 2)) * SCALE.scale + SCALE.shift
    points = fpflow.datasets.Points(x, 50.0 + 10 * x[:, :1])
    of_condition = fpflow.Standardise(50.0, 10.0)
    outer = fpflow.Transformed(conditional(), SCALE, of_condition)
    # Plain steps: the bases of Soap turn the round-off of mapped conditions into a thousandth.
    asked = {"optimiser": optax.sgd(1e-2), "num_steps": 6, "batch_size": 16, "chunk": 3}
    asked |= {"key": jr.key(1), "progress": False}
    result = fpflow.train(outer, OU, points, run_dir=tmp_path / "run", **asked)
    mapped = fpflow.datasets.Points(jax.vmap(SCALE.forward)(x), x[:, :1])
    by_hand = fpflow.train(conditional(), OU, mapped, **asked)
    for found, wanted in ((result.model, by_hand.model), (result.last, by_hand.last)):
        leaves = jax.tree.leaves((found.model.network.weights, found.transform))
        exact = jax.tree.leaves((wanted.network.weights, SCALE))
        for a, b in zip(leaves, exact, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9)
    saved, _ = fpflow.load(tmp_path / "run" / "model.fpflow")
    assert isinstance(saved, fpflow.Transformed) and saved.condition_transform.scale[0] == 10


@pytest.mark.slow
def test_a_law_is_seen_through_the_same_transform():
    x = jr.normal(jr.key(0), (64, 2)) * SCALE.scale + SCALE.shift
    condition = 50.0 + 10 * x[:, :1]
    outer = fpflow.Transformed(conditional(), SCALE, fpflow.Standardise(50.0, 10.0))

    class Law:
        def sample(self, key, n):
            row = jr.randint(key, (n,), 0, len(x))
            return x[row], condition[row]

    seen = outer.law(Law()).sample(jr.key(1), 8)
    of_points = outer.law(fpflow.datasets.Points(x, condition)).sample(jr.key(1), 8)
    for a, b in zip(seen, of_points, strict=True):
        np.testing.assert_allclose(a, b, rtol=NEAR)


def check(transform, condition_transform):
    """As without checked annotations."""
    fields = {"transform": transform, "condition_transform": condition_transform}
    fpflow.Transformed.__check_init__(types.SimpleNamespace(**fields))  # pyright: ignore


def test_spread_counts_stay_in_their_step():
    counts = jnp.array([[0.0, 5.0], [2.0, 7.0]])
    law = fpflow.Dequantised(counts, step=[1.0, 0.0])
    x = np.asarray(law.sample(jr.key(0), 2000))
    assert set(np.floor(x[:, 0])) == {0.0, 2.0} and set(x[:, 1]) == {5.0, 7.0}
    left = x[:, 0] - np.floor(x[:, 0])
    assert abs(left.mean() - 0.5) < 5 * (1 / 12 / 2000) ** 0.5  # five standard errors
    x, condition = fpflow.Dequantised(fpflow.datasets.Points(counts, counts), 1.0).sample(
        jr.key(0), 5
    )
    assert (np.floor(x) == condition).all()


@pytest.mark.slow
def test_a_report_has_its_likelihoods_in_the_units_of_the_data():
    settings = fpflow.ReportSettings(
        num_samples=200, repeats=2, num_points=4, etas=(), theorem=False
    )
    y = jr.normal(jr.key(0), (200, 1)) * 0.7
    scale = fpflow.Standardise(5.0, 100.0)
    model, x = LinearScore(2 * jnp.eye(1)), jax.vmap(scale.inverse)(y)
    asked = {"settings": settings, "points": x[:4], "key": jr.key(1), "progress": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = fpflow.gap_report(fpflow.Transformed(model, scale), OU, x, **asked)
        inner = fpflow.gap_report(model, OU, y, **{**asked, "points": y[:4]})
    for ours, theirs in (
        (found.nats.nll_ode, inner.nats.nll_ode),
        (found.nats.nll_sde, inner.nats.nll_sde),
    ):
        np.testing.assert_allclose(ours.value, theirs.value + np.log(100), rtol=1e-6)
    np.testing.assert_allclose(found.pointwise["points"].x, x[:4])
    np.testing.assert_allclose(found.nats.kl_ode_sde.value, inner.nats.kl_ode_sde.value, atol=1e-6)
    assert any("in the units of the data" in note for note in found.notes)
    # The points are data: none lies outside of it, in whatever units.
    assert not any("lie outside the box" in note for note in found.notes)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: fpflow.Standardise([0.0, 0.0], [1.0]), "`shift` and `scale` must have the same shape"),
        (lambda: fpflow.Standardise(0.0, 0.0), "`scale` must be finite and positive, `shift` finite"),
        (lambda: fpflow.Whiten([0.0], np.eye(2)), r"`factor` must have shape \(1, 1\) for a `shift`"),
        (lambda: fpflow.Whiten([0.0], [[-1.0]]), "`factor` must be finite with a positive diagonal"),
        (lambda: fpflow.Whiten([0, 0], [[1, 1], [0, 1]]), "`factor` must be lower triangular; use"),
        (
            lambda: fpflow.Whiten.of(np.arange(6.0).reshape(3, 2)),
            "the columns of the data are linearly dependent",
        ),
        (
            lambda: fpflow.Logit(1.0, 0.0),
            "`low` and `high` must have the same shape, .*, and low < high",
        ),
        (lambda: fpflow.Logit(0.0, jnp.inf), "must both be finite or both infinite in each column"),
        (lambda: BOX.check(jnp.array([[8.0, 0.0]])), "1 of 1 points lie on the bounds of the logit or"),
        (lambda: SCALE.check(jnp.zeros((1, 3))), "the transform is for 2 columns, the points have 3"),
        (lambda: fpflow.Compose(), "`transforms` must hold at least one transform"),
        (lambda: fpflow.Compose.__init__.__wrapped__(None, 3), "`transforms` must be transforms such"),
        (lambda: check(3, None), "`transform` must be a transform such as"),
        (lambda: check(SCALE, 3), "`condition_transform` must be a transform"),
        (lambda: fpflow.Dequantised(np.eye(2), -1.0), r"`step` must be a number or have shape \(2,\)"),
    ],
)  # fmt: skip
def test_bad_transforms_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_what_lives_in_the_networks_variables_says_so():
    model = fpflow.Transformed(LinearScore(jnp.eye(2)), SCALE)
    with pytest.raises(
        ValueError, match="this function works in the network's own variables: pass"
    ):
        fpflow.grid_density_ode.__wrapped__(model, OU, fpflow.Window(nodes=4))
    with pytest.raises(
        ValueError, match="this function works in the network's own variables: pass"
    ):
        inspect.unwrap(fpflow.excess_loss)(model, OU, jnp.eye(2), key=jr.key(0))
    with pytest.raises(ValueError, match="give one point as"):
        fpflow.log_prob_ode(model, OU, jnp.zeros(2))


def test_uneven_columns_are_standardised_by_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    x = np.random.default_rng(0).normal(size=(300, 2)) * [1.0, 500.0] + [0.0, 4000.0]
    np.savetxt("data.csv", x, delimiter=",", header="dose,price", comments="")
    main(["train", "data.csv", "--run-dir", "run", *SHORT])
    assert "is fine). Columns are standardised; --no-standardise leaves" in capsys.readouterr().out
    main(["sample", "run", "-n", "400", "--steps", "20", "--out", "x.csv"])
    drawn = np.loadtxt("x.csv", delimiter=",", skiprows=1)
    # After four steps the network is still about the prior, of the width of the data by its frame.
    assert abs(drawn[:, 1].mean() - 4000) < 500 and 200 < drawn[:, 1].std() < 1000


@pytest.mark.slow
def test_what_the_command_line_does_with_columns_and_conditions(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    x = np.random.default_rng(0).normal(size=(300, 2)) * [1.0, 500.0] + [0.0, 4000.0]
    np.savetxt("data.csv", x, delimiter=",", header="dose,price", comments="")
    main(["train", "data.csv", "--run-dir", "run", *SHORT])
    main(["density", "run", "-n", "4", "--paths", "16", "--out", "p.csv"])
    table = np.loadtxt("p.csv", delimiter=",", skiprows=1)
    # About log(500) less than a unit Gaussian's.
    assert (table[:, 2] < -5).all() and (table[:, 2] > -16).all()
    main(["train", "data.csv", "--run-dir", "as-is", "--no-standardise", *SHORT])
    assert "too wide in the narrow ones; use --standardise" in capsys.readouterr().out
    main(["train", "data.csv", "--condition", "price", "--run-dir", "on", *SHORT])
    assert "column 0 of the condition is large" in capsys.readouterr().out
    main(["sample", "on", "--given", "4000", "-n", "5", "--steps", "5", "--out", "c.csv"])
    main(["plot", "run", "--kind", "densities", "--nodes", "8"])
    assert "the figure is in the network's own variables" in capsys.readouterr().out


def test_a_law_beyond_the_bounds_is_refused():
    model = fpflow.Transformed(conditional(), fpflow.Logit([0.0, 0.0], [1.0, 1.0]))
    with pytest.raises(ValueError, match="lie on the bounds of the logit or beyond"):
        model.law(mixture(2))


def test_conditions_far_from_one_get_a_word():
    far = fpflow.datasets.Points(np.eye(2), [[4000.0], [4100.0]])
    with pytest.warns(UserWarning, match="of the conditions has a root mean square of 4051"):
        fpflow.train(
            conditional(),
            OU,
            far,
            num_steps=1,
            batch_size=4,
            chunk=1,
            progress=False,
            key=jr.key(0),
        )
