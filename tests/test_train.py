"""Training reaches known optima, repeats itself, and fails with its last good model in hand."""

import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import fpflow
from known import OU, LinearScore

GAUSSIAN = fpflow.datasets.GaussianMixture([[0.0, 0.0]], 0.5)
SETTINGS = {"num_steps": 30, "batch_size": 64, "chunk": 10, "key": jr.key(1)}


def arrays(model):
    return jax.tree.leaves(eqx.filter(model, eqx.is_array))


def test_a_linear_score_learns_the_stationary_gaussian():
    """Data from the stationary law N(0, I/2) has the score -2 x at every t: A -> 2 I."""
    model = LinearScore(jnp.array([[1.0, 0.4], [-0.3, 3.0]]))
    result = fpflow.train(
        model, OU, GAUSSIAN, num_steps=1500, batch_size=512,
        optimiser=fpflow.Soap(fpflow.Cosine(peak=2e-2)), ema_decay=0.99, key=jr.key(0),
    )  # fmt: skip
    # The last steps are tiny and averaged over 100 batches of 512: noise of a few parts in 1000.
    np.testing.assert_allclose(result.model.matrix, 2 * np.eye(2), atol=0.03)
    # At the optimum the loss is (1/2) E[d / sigma^2 - tr(A)] over time.
    t = np.geomspace(1e-5, 10, 100_001)
    best = 0.5 * np.trapezoid(2 * (2 / -np.expm1(-2 * t)) - 4, t) / 10
    np.testing.assert_allclose(result.history["dsm"][-1], best, rtol=0.02)
    assert set(result.history.terms) == {"dsm"}
    np.testing.assert_array_equal(result.history.loss, result.history["dsm"])


def test_the_penalty_pulls_the_residual_down_and_reaches_the_gradient():
    """A network trained with a large weight has a much smaller residual than without."""
    model = fpflow.PotentialMLP(2, width=16, depth=2, key=jr.key(0))
    norms = []
    for weight in (0.0, 10.0):
        result = fpflow.train(
            model, OU, GAUSSIAN, fp_weight=weight, **{**SETTINGS, "num_steps": 400}
        )
        norms.append(
            fpflow.residual_norm(
                result.model, OU, num_times=512, points_per_time=8, key=jr.key(2)
            ).value
        )
    # Over keys the ratio is .12 to .23; a penalty whose gradient is lost leaves it at one.
    assert norms[1] < 0.5 * norms[0]
    # What the last batch saw of it, under the noised data and not a box: of the same order.
    assert result.history["fp"][-1] < result.history["fp"][0] / 2


def test_one_key_one_result_whatever_the_chunk():
    """Bit for bit: the same steps are done however many go into one call."""
    model = fpflow.PotentialMLP(2, width=8, depth=2, key=jr.key(0))
    runs = [
        fpflow.train(model, OU, GAUSSIAN, fp_weight=0.1, **{**SETTINGS, "chunk": chunk})
        for chunk in (10, 10, 7)
    ]
    for run in runs[1:]:
        for a, b in zip(arrays(runs[0].model), arrays(run.model), strict=True):
            np.testing.assert_array_equal(a, b)
    assert runs[2].history.step.tolist() == [7, 14, 21, 28, 30]
    other = fpflow.train(model, OU, GAUSSIAN, fp_weight=0.1, **{**SETTINGS, "key": jr.key(9)})
    assert any(
        (a != b).any() for a, b in zip(arrays(runs[0].model), arrays(other.model), strict=True)
    )


def test_average_of_parameters_is_the_one_described():
    """With decay d the average after n steps is the recursion a + (1 - min(d, (1+k)/(10+k)))(p - a)."""
    model = LinearScore(jnp.eye(2))
    settings = {**SETTINGS, "chunk": 1, "ema_decay": 0.9}
    expected = model.matrix
    for n in (1, 2, 3):
        run = fpflow.train(
            model, OU, GAUSSIAN, **{**settings, "num_steps": 3, "optimiser": fpflow.Soap(Stop(n))}
        )
        decay = min(0.9, n / (9 + n))
        expected = expected + (1 - decay) * (run.last.matrix - expected)
    np.testing.assert_allclose(run.model.matrix, expected, rtol=1e-12)
    plain = fpflow.train(model, OU, GAUSSIAN, **{**settings, "ema_decay": 0.0})
    np.testing.assert_array_equal(plain.model.matrix, plain.last.matrix)


class Stop(fpflow.AbstractSchedule):
    """A rate of 1e-2 for the first steps and zero after them."""

    after: int

    def rate(self, step, num_steps):
        return jnp.where(step < self.after, 1e-2, 0.0)

    def renews(self, step, num_steps):
        return step < 0


def test_rates_are_those_described():
    n = jnp.array(1000)
    cosine = fpflow.Cosine(peak=0.1, warmup=100, final=0.01)
    rate = [float(cosine.rate(jnp.array(k), n)) for k in (0, 99, 100, 550, 1000)]
    half = 0.1 * (0.01 + 0.99 / 2)
    np.testing.assert_allclose(rate, [0.1 / 101, 0.1 * 100 / 101, 0.1, half, 1e-3], rtol=1e-6)
    staged = fpflow.Staged()
    steps = [0, 249, 250, 899, 900, 999]
    rate = [float(staged.rate(jnp.array(k), n)) for k in steps]
    np.testing.assert_allclose(rate, [1e-3, 1e-3, 1e-4, 1e-4, 1e-5, 1e-5])
    assert [bool(staged.renews(jnp.array(k), n)) for k in steps] == [
        False,
        False,
        True,
        False,
        True,
        False,
    ]
    with pytest.raises(ValueError, match="`shares` must sum to one"):
        fpflow.Staged(shares=(0.5, 0.1, 0.1))


def test_renewed_adam_forgets():
    """The first step of Adam is its rate in every parameter, and so is the first of a new stage."""
    model = LinearScore(jnp.array([[1.0, 0.4], [-0.3, 3.0]]))
    staged = fpflow.Staged(rates=(1e-2, 1e-3), shares=(0.5, 0.5))
    fifth = fpflow.train(
        model,
        OU,
        GAUSSIAN,
        **{**SETTINGS, "optimiser": fpflow.Adam(Stop(5)), "num_steps": 10, "chunk": 1},
    ).last.matrix
    sixth = fpflow.train(
        model, OU, GAUSSIAN,
        **{**SETTINGS, "optimiser": fpflow.Adam(First(staged, 6)), "num_steps": 10, "chunk": 1},
    ).last.matrix  # fmt: skip
    np.testing.assert_allclose(jnp.abs(sixth - fifth), 1e-3, rtol=1e-5)


class First(fpflow.AbstractSchedule):
    """The first steps of another schedule, then none."""

    schedule: fpflow.Staged
    count: int

    def rate(self, step, num_steps):
        return jnp.where(step < self.count, self.schedule.rate(step, num_steps), 0.0)

    def renews(self, step, num_steps):
        return self.schedule.renews(step, num_steps)


class Explosive(eqx.Module):
    """A score that turns NaN once its parameter has moved far enough."""

    slope: jax.Array

    def score(self, t, x):
        return -jnp.where(jnp.abs(self.slope - 1) > 0.055, jnp.nan, self.slope) * x


def test_a_loss_that_turns_nan_stops_with_the_last_good_model():
    """Adam moves by the rate at each step at first: 0.01 a step crosses 0.055 after six."""
    with pytest.raises(fpflow.TrainingDiverged, match="is no longer finite at step 6") as caught:
        fpflow.train(
            Explosive(jnp.array(1.0)),
            OU,
            GAUSSIAN,
            **{**SETTINGS, "optimiser": fpflow.Soap(Stop(1000)), "batch_size": 512},
        )
    last = caught.value.result.last
    assert caught.value.step == 6
    assert jnp.isfinite(last.slope)
    assert jnp.isfinite(caught.value.result.model.slope)
    np.testing.assert_allclose(jnp.abs(last.slope - 1), 0.06, rtol=0.05)


def test_training_takes_arrays_and_other_peoples_objects():
    points = np.random.default_rng(0).normal(size=(100, 3))

    class Own:
        dim = 3

        def sample(self, key, n):
            return jr.normal(key, (n, 3))

    model = fpflow.ScoreMLP(3, width=8, depth=1, key=jr.key(0))
    for data in (points, points.astype(np.float32), Own()):
        result = fpflow.train(model, OU, data, **SETTINGS)
        assert np.isfinite(result.history["dsm"]).all()


class Frozen:
    """A score with nothing to learn."""

    def score(self, t, x):
        return -x


SCORE = fpflow.ScoreMLP(2, width=8, depth=1, key=jr.key(0))


@pytest.mark.parametrize(
    ("model", "data", "settings", "words"),
    [
        (SCORE, np.full((9, 2), np.nan), {}, "data holds NaN"),
        (
            SCORE,
            GAUSSIAN,
            {"objective": fpflow.Objective({"fp": fpflow.FokkerPlanck()})},
            "`FokkerPlanck` needs a model with `potential",
        ),
        (SCORE, GAUSSIAN, {"optimiser": "adam"}, "`optimiser` must be an `optax.Gradient.*'adam'"),
        (SCORE, GAUSSIAN, {"optimiser": fpflow.Soap}, "`optimiser` must be an `optax.Gradient"),
        (SCORE, GAUSSIAN, {"objective": 3.0}, "`objective` must be an `fpflow.Objective`, got 3.0"),
        (
            SCORE,
            GAUSSIAN,
            {
                "fp_weight": 1.0,
                "objective": fpflow.Objective({"a": fpflow.DenoisingScoreMatching()}),
            },
            "set the weight of a term of `objective` instead, as in `fpflow.FokkerPlanck.weight=1.0",
        ),
        (SCORE, GAUSSIAN, {"fp_weight": -1.0}, "`fp_weight` must be finite and not negative"),
        (SCORE, GAUSSIAN, {"num_steps": 0}, "`num_steps` must be a whole number of at least 1"),
        (SCORE, GAUSSIAN, {"batch_size": 0}, "`batch_size` must be a whole number"),
        (SCORE, GAUSSIAN, {"ema_decay": 1.0}, r"`ema_decay` must lie in \[0, 1\), got 1.0"),
        (
            SCORE,
            np.random.default_rng(0).normal(size=(9, 3)),
            {},
            "`data` has dimension 3 and the model dimension 2",
        ),
        (3.0, GAUSSIAN, {}, "`model` must have a method `score"),
        (Frozen(), GAUSSIAN, {}, "`model` has no arrays to train, got Frozen"),
    ],
)
def test_bad_input_is_refused_before_anything_runs(model, data, settings, words):
    unchecked = fpflow.train.__wrapped__  # the annotations would refuse some of these first
    with pytest.raises(ValueError, match=words):
        unchecked(model, OU, data, **{**SETTINGS, **settings})


def test_a_network_on_another_prior_gets_a_word():
    wide = fpflow.OrnsteinUhlenbeck(noise=2.0)
    settings = {**SETTINGS, "num_steps": 1}
    with pytest.warns(UserWarning, match=
        "corrects a prior of width 0.7071, but the prior of the process has width 1.414; make the "
        "network with `prior=process.prior`"):  # fmt: skip
        fpflow.train(SCORE, wide, GAUSSIAN, **settings)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for prior in (wide.prior, None):
            model = fpflow.ScoreMLP(2, width=8, depth=1, prior=prior, key=jr.key(0))
            fpflow.train(model, wide, GAUSSIAN, **settings)


def test_a_network_of_bare_coordinates_under_a_wide_prior_gets_a_word():
    """Trained in silence, its samples lay at a sliced W2^2 of 67 from the data."""
    wide, settings = fpflow.VarianceExploding(), {**SETTINGS, "num_steps": 1}
    with pytest.warns(UserWarning, match="prior has width 50: it will train poorly"):
        bare = fpflow.ScoreMLP(2, width=8, depth=1, prior=wide.prior, key=jr.key(0))
        fpflow.train(bare, wide, GAUSSIAN, **settings)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prior = fpflow.IsotropicGaussian()
        network = fpflow.ScoreMLP(2, width=8, depth=1, prior=prior, key=jr.key(0))
        fpflow.train(fpflow.in_frame(network, wide), wide, GAUSSIAN, **settings)


def test_another_weight_key_rate_or_number_of_steps_compiles_nothing(compilations):
    model = fpflow.PotentialMLP(2, width=8, depth=2, key=jr.key(0))
    settings = {"batch_size": 64, "chunk": 10}

    def run(weight, steps, peak, seed):
        optimiser = fpflow.Soap(fpflow.Cosine(peak=peak))
        fpflow.train(
            model, OU, GAUSSIAN, fp_weight=weight, num_steps=steps, optimiser=optimiser,
            key=jr.key(seed), **settings,
        )  # fmt: skip

    run(0.1, 20, 1e-3, 0)
    with compilations() as count:
        run(3.0, 50, 2e-2, 1)
    assert count() == 0
    with compilations() as count:  # and the counter can count
        fpflow.train(model, OU, GAUSSIAN, num_steps=3, batch_size=32, chunk=3, key=jr.key(0))
    assert count() > 0
