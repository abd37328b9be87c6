"""Held-out points: which they are, what the network that does best on them is, and what they say."""

import inspect

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import fpflow
from fpflow._cli import main
from fpflow._held_out import closer
from fpflow._report.doubts import repeats
from fpflow.datasets import split
from known import OU, mixture

LAW = mixture(2)
POINTS = np.asarray(LAW.sample(jr.key(0), 60))
ASKED = {"batch_size": 32, "chunk": 5, "key": jr.key(1), "progress": False}


def network():
    return fpflow.PotentialMLP(2, width=16, depth=2, beta=5.0, key=jr.key(0))


def test_points_are_split_in_two_with_their_conditions():
    seen, held = split(fpflow.datasets.Points(POINTS, POINTS[:, :1]), 0.25)
    assert (len(seen.points), len(held.points)) == (45, 15)
    both = np.concatenate([seen.points, held.points])
    np.testing.assert_array_equal(np.sort(both, axis=0), np.sort(POINTS, axis=0))
    for part in (seen, held):
        np.testing.assert_array_equal(part.points[:, :1], part.condition)
    np.testing.assert_array_equal(split(POINTS, 0.25)[1].points, held.points)


def loss_by_hand(model, points):
    """Score matching on the points in order, as the noising and the term are documented."""

    class InOrder:
        def sample(self, key, n):
            return jnp.asarray(points)[jnp.arange(n) % len(points)]

    key_noise, key_term = jr.split(jr.key(0))
    noised = fpflow.Noising()(OU, InOrder(), 8192, key=key_noise)
    return float(fpflow.DenoisingScoreMatching()(model, OU, noised, key=key_term))


def test_the_network_that_is_kept_has_the_smallest_loss_on_held_out_points():
    """Twenty points of a narrow law, which a wide network at a large rate soon knows by heart."""
    asked = {**ASKED, "optimiser": fpflow.Soap(3e-2), "num_steps": 60}
    few = POINTS[:20]
    result = fpflow.train(network(), OU, few, validation=0.3, **asked)
    held = result.history["held_out"]
    best = int(held.argmin())
    assert 0 < best < len(held) - 1
    seen_points, held_points = (part.points for part in split(few, 0.3))
    # Both sides are the same sums, compiled differently.
    np.testing.assert_allclose(loss_by_hand(result.model, held_points), held[best], rtol=1e-9)
    np.testing.assert_allclose(
        loss_by_hand(result.model, seen_points), result.history["seen"][best], rtol=1e-9
    )
    # The steps are those without held-out points, on the others.
    plain = fpflow.train(network(), OU, seen_points, **asked)
    np.testing.assert_array_equal(plain.history.loss, result.history.loss)
    stopped = fpflow.train(network(), OU, few, validation=0.3, patience=10, **asked)
    assert stopped.history.step[-1] == result.history.step[best] + 10
    assert eqx.tree_equal(stopped.model, result.model)
    by_points = fpflow.train(network(), OU, seen_points, validation=held_points, **asked)
    np.testing.assert_array_equal(by_points.history["held_out"], held)


@pytest.mark.slow
def test_a_run_goes_on_with_its_best(tmp_path):
    """Stopped after the best and resumed, it keeps the same network and stops at the same step."""
    asked = {**ASKED, "optimiser": fpflow.Soap(3e-2), "num_steps": 60}
    asked |= {"validation": 0.3, "patience": 30, "checkpoint_every": 5}
    few = POINTS[:20]
    whole = fpflow.train(network(), OU, few, run_dir=tmp_path / "whole", **asked)
    best = whole.history.step[whole.history["held_out"].argmin()]

    class Stop(Exception):
        pass

    def stop(step, told):
        if step > best:
            raise Stop

    folder = tmp_path / "parts"
    with pytest.raises(Stop):
        fpflow.train(network(), OU, few, run_dir=folder, log_fn=stop, **asked)
    again = fpflow.train(network(), OU, few, run_dir=folder, resume=True, **asked)
    assert eqx.tree_equal(again.model, whole.model)
    np.testing.assert_array_equal(again.history.step, whole.history.step)
    once_more = fpflow.train(network(), OU, few, run_dir=folder, resume=True, **asked)
    np.testing.assert_array_equal(once_more.history.step, whole.history.step)


@pytest.mark.slow
def test_a_law_may_be_held_out():
    result = fpflow.train(network(), OU, LAW, validation=LAW, num_steps=5, **ASKED)
    # One law, other draws: nothing is learnt by heart, and 8192 noised points of each are as good.
    seen, held = (result.history[name][-1] for name in ("seen", "held_out"))
    assert seen == held


def test_closer_is_the_probability_that_it_says():
    """Uniform distances to one training point: a in [0, 1], b in [0, 2]: P(a < b) = 3/4."""
    a, b = (np.asarray(jr.uniform(jr.key(k), (2000, 1))) for k in (0, 1))
    found = closer(a, np.zeros((1, 1)), 2 * b)
    # Its error is that of equal laws, a little more than that of these.
    assert abs(found.value - 0.75) < 4 * found.error and found.error < 0.01
    assert closer(POINTS, POINTS, POINTS + 1.0).value == 1
    assert closer(POINTS, POINTS, POINTS).value == 0.5  # all are equal
    equal = [closer(*np.split(np.asarray(jr.normal(jr.key(k), (150, 2))), 3)) for k in range(200)]
    z = [(found.value - 0.5) / found.error for found in equal]
    # The variance of 200 normal numbers, to five of its own standard errors.
    assert abs(np.mean(np.square(z)) - 1) < 5 * (2 / 200) ** 0.5


class ByHeart(eqx.Module):
    """The exact score of a little noise about the points of a training set."""

    law: fpflow.datasets.MixtureMarginal
    dim: int = 2

    def score(self, t, x):
        return self.law.score(t, x)

    def potential(self, t, x):
        return self.law.potential(t, x)


@pytest.mark.slow
def test_held_out_points_tell_a_law_from_its_draws():
    seen, held = (np.asarray(part.points) for part in split(LAW.sample(jr.key(0), 200), 0.5))
    asked = {"num_points": 16, "num_samples": 500, "progress": False, "key": jr.key(3)}
    exact = fpflow.held_out(LAW.marginal(OU), OU, seen, held, **asked)
    for part, points in ((0, seen), (1, held)):
        truth = -np.mean(jax.vmap(LAW.log_prob)(jnp.asarray(points[:16])))
        # One set of points on both sides: only the errors of paths and solver are left.
        assert abs(exact.nll_ode[part].value - truth) < 1e-3
        assert abs(exact.nll_sde[part].value - truth) < 0.05
    assert not exact.memorises and "(one half is expected)" in str(exact)
    narrow = jnp.broadcast_to(0.03**2 * jnp.eye(2), (len(seen), 2, 2))
    law = fpflow.datasets.GaussianMixture(jnp.asarray(seen), narrow)
    asked["num_points"] = 2
    by_heart = fpflow.held_out(ByHeart(law.marginal(OU)), OU, seen, held, **asked)
    assert by_heart.memorises and "the model repeats its data" in str(by_heart)
    assert by_heart.nll_ode[1].value > by_heart.nll_ode[0].value


def test_a_report_says_that_a_network_repeats_its_data():
    assert repeats(POINTS[:30], POINTS[30:], np.asarray(LAW.sample(jr.key(9), 60))) == []
    (note,) = repeats(POINTS[:30] + 1e-3, POINTS[:30], POINTS[30:])
    assert "where one half is expected: if the `points` are draws" in note


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: split(LAW, 0.5),
            "`data` must be points, got GaussianMixture, which draws new points each time",
        ),
        (
            lambda: split(POINTS, 1.5),
            "the held-out share must lie between 0 and 1 and leave at least two",
        ),
        (
            lambda: split(POINTS[:5], 0.1),
            "the held-out share must lie between 0 and 1 and leave at least two",
        ),
        (
            lambda: fpflow.train(network(), OU, LAW, validation=0.1, **ASKED),
            "`validation` as a share holds out some of the points, but `data` is a distribution",
        ),
        (
            lambda: fpflow.train(network(), OU, POINTS, validation=POINTS[:, :1], **ASKED),
            "`validation` must hold points and conditions like those of the data",
        ),
        (
            lambda: fpflow.train(network(), OU, POINTS, patience=5, **ASKED),
            "`patience` needs a held-out loss; pass `validation=` too",
        ),
        (
            lambda: fpflow.held_out(network(), OU, POINTS[:1], POINTS, key=jr.key(0)),
            "is the same point|and the sizes of both sets must be at least two",
        ),
        (
            lambda: fpflow.held_out(network(), OU, POINTS, POINTS, num_points=1, key=jr.key(0)),
            "`num_points` and the sizes of both sets must be at least two, so that the means have "
            "error estimates",
        ),
        (
            lambda: inspect.unwrap(fpflow.held_out)(network(), OU, LAW, POINTS, key=jr.key(0)),
            r"`seen` must be points, shape \(n, dim\), got GaussianMixture",
        ),
        (
            lambda: fpflow.held_out(
                network(), OU, fpflow.datasets.Points(POINTS, POINTS), POINTS, key=jr.key(0)
            ),
            "`seen` has conditions: pass the points that belong to one of them, and the model from "
            "`fpflow.given`.",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_held_out_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


SHORT = ["--steps", "8", "--chunk", "4", "--batch-size", "16", "--width", "4", "--depth", "1"]


@pytest.mark.slow
def test_the_command_line_keeps_the_best_and_reports_on_held_out_points(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    np.save("points.npy", POINTS)
    main(
        [
            "train",
            "points.npy",
            "--run-dir",
            "run",
            "--validation",
            "0.2",
            "--patience",
            "4",
            *SHORT,
        ]
    )
    said = capsys.readouterr().out
    assert "kept the network from step" in said and "at held-out points" in said
    main(["plot", "run", "--kind", "losses"])
    quick = ["--num-samples", "60", "--repeats", "2", "--num-points", "4", "--etas", "1.0"]
    main(["report", "run", "--no-theorem", *quick])
    assert "likelihoods are computed at 4 of the 12 held-out points" in capsys.readouterr().out
    few = np.concatenate([POINTS, POINTS[:, :1]], axis=1)
    np.save("pairs.npy", few)
    main(
        ["train", "pairs.npy", "--condition", "2", "--validation", "0.2", "--run-dir", "on", *SHORT]
    )
    assert "kept the network from step" in capsys.readouterr().out
