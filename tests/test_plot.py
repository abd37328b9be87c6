"""Pictures show the numbers they are given."""

import jax
import jax.numpy as jnp
import jax.random as jr
import matplotlib
import numpy as np
import pytest

import fpflow
from fpflow.plot.page import _furthest_apart
from known import OU, LinearScore

matplotlib.use("Agg")
import matplotlib.pyplot as plt

WINDOW = fpflow.Window(nodes=16)
MODEL = fpflow.PotentialMLP(2, width=6, depth=1, key=jr.key(0))


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def laws(*powers):
    """Densities of different heights on one window."""
    r2 = np.add.outer(WINDOW.centres() ** 2, WINDOW.centres() ** 2)
    masses = [np.exp(-power * r2) for power in powers]
    return [fpflow.GridDensity(m / m.sum(), 0.0, 0.0, WINDOW) for m in masses]


def test_densities_share_one_scale():
    wide, narrow = laws(0.2, 2.0)
    axes = fpflow.plot.densities({"wide": wide, "narrow": narrow})
    assert [ax.get_title() for ax in axes] == ["wide", "narrow"]
    (a,), (b,) = axes[0].images, axes[1].images
    assert a.get_clim() == b.get_clim()
    top = np.quantile(narrow.mass, 0.998) / WINDOW.cell_width**2
    assert b.get_clim() == pytest.approx((0, top))
    np.testing.assert_allclose(a.get_array(), wide.mass.T / WINDOW.cell_width**2)
    other = fpflow.GridDensity(np.ones((8, 8)) / 64, 0.0, 0.0, fpflow.Window(nodes=8))
    with pytest.raises(ValueError, match="`laws` must share one window, got 2"):
        fpflow.plot.densities({"a": wide, "b": other})
    with pytest.raises(ValueError, match=r"`mass` must have the window's shape \(16, 16\)"):
        fpflow.plot.density(np.ones((3, 3)), WINDOW)


def test_the_score_field_shows_the_size_of_the_score():
    model = LinearScore(3 * jnp.eye(2))
    ax = fpflow.plot.score_field(model, 0.5, WINDOW)
    x = np.stack(np.meshgrid(WINDOW.centres(), WINDOW.centres()), -1)
    expected = 3 * np.linalg.norm(x, axis=-1)
    shown = np.asarray(ax.images[0].get_array())
    np.testing.assert_allclose(shown, expected, rtol=1e-6)
    assert "0.5" in ax.get_title() and ax.collections
    with pytest.raises(ValueError, match="`window` has dimension 2 and the model dimension 3"):
        fpflow.plot.score_field(fpflow.ScoreMLP(3, width=4, key=jr.key(0)), 0.5)


def test_trajectories_begin_in_noise_and_end_in_samples():
    paths = fpflow.ode_trajectories(MODEL, OU, 40, num_times=11, key=jr.key(1))
    assert paths.x.shape == (11, 40, 2) and paths.times[0] == OU.t1 and paths.times[-1] == OU.t0
    ax = fpflow.plot.trajectories(paths)
    assert len(ax.lines) == 40
    np.testing.assert_allclose(ax.lines[3].get_xdata(), paths.x[:, 3, 0])
    line = fpflow.PotentialMLP(1, width=6, depth=1, key=jr.key(0))
    ax = fpflow.plot.trajectories(fpflow.ode_trajectories(line, OU, 5, key=jr.key(1)))
    assert len(ax.lines) == 5 and ax.get_xlim()[0] > ax.get_xlim()[1]
    with pytest.raises(ValueError, match="`num_times` must be at least 2, for the two ends, got 1"):
        fpflow.ode_trajectories(MODEL, OU, 5, num_times=1, key=jr.key(0))


def test_trajectories_of_a_linear_score_are_exact():
    """The flow of s = -c x is x exp of (-1 + c/2) t: a closed form at every time."""
    model = LinearScore(3 * jnp.eye(2))
    paths = fpflow.ode_trajectories(model, OU, 6, num_times=9, dim=2, key=jr.key(1))
    rate = -1 + 3 / 2
    factor = np.exp(rate * (np.asarray(paths.times) - OU.t1))
    # Tsit5 at tolerance 1e-4 a step.
    expected = factor[:, None, None] * np.asarray(paths.x[0])
    np.testing.assert_allclose(paths.x, expected, rtol=5e-3)


class Steep(LinearScore):
    def score(self, t, x):
        return jnp.where(t > 9, -x, jnp.nan * x)


def test_trajectories_that_break_are_reported():
    with pytest.raises(FloatingPointError, match="an ODE trajectory is not finite"):
        fpflow.ode_trajectories(Steep(3 * jnp.eye(2)), OU, 5, dim=2, key=jr.key(0))


def test_the_residual_map_shows_the_residual_without_its_mean():
    ax = fpflow.plot.residual_map(MODEL, OU, num_times=5, num_points=9)
    shown = np.asarray(ax.collections[0].get_array()).reshape(9, 5)
    times, line = np.geomspace(1e-2, 10, 5), np.linspace(-3.5, 3.5, 9)
    points = jnp.zeros((9, 2)).at[:, 0].set(line)
    r = np.array([
        jax.vmap(lambda x, t=t: fpflow.log_fp_residual(MODEL, OU, jnp.asarray(t), x))(points)
        for t in times
    ])  # fmt: skip
    expected = np.maximum(np.abs(r - r.mean(1, keepdims=True)), 1e-6)
    np.testing.assert_allclose(shown, expected.T, rtol=1e-6)
    with pytest.raises(ValueError, match=r"`model` must have `potential\(t, x\)` for a residual"):
        fpflow.plot.residual_map.__wrapped__(fpflow.ScoreMLP(2, width=4, key=jr.key(0)), OU)


def test_the_flow_is_an_animation_of_histograms(tmp_path):
    paths = fpflow.ode_trajectories(MODEL, OU, 500, num_times=5, key=jr.key(1))
    flow = fpflow.plot.density_flow(paths, WINDOW, num_frames=4)
    flow.save(tmp_path / "flow.gif", writer="pillow")
    assert (tmp_path / "flow.gif").stat().st_size > 5000
    image = flow._fig.axes[0].images[0]
    inside = (np.abs(np.asarray(paths.x[-1])) < 3.5 + WINDOW.cell_width / 2).all(1).mean()
    total = np.asarray(image.get_array()).sum() * WINDOW.cell_width**2
    assert total == pytest.approx(inside)
    line = fpflow.ode_trajectories(
        fpflow.PotentialMLP(1, width=6, depth=1, key=jr.key(0)), OU, 5, key=jr.key(1)
    )
    with pytest.raises(ValueError, match="`paths` must lie in the plane, got dimension 1"):
        fpflow.plot.density_flow(line)


def test_noisy_batches_are_drawn_with_their_running_mean():
    """A straight line is its own running mean."""
    step = np.arange(40)
    history = fpflow.History(step, np.ones(40), {"dsm": 2.0 * step}, step)
    pale, mean = fpflow.plot.loss_curves({"a": history}).lines
    assert (pale.get_label()[0], mean.get_label(), len(mean.get_ydata())) == ("_", "a", 37)
    # The mean over four of them, drawn at the third.
    np.testing.assert_allclose(mean.get_ydata(), 2.0 * mean.get_xdata() - 1)


def test_a_page_shows_the_coordinates_in_which_the_samplers_differ():
    x = np.random.default_rng(0).normal(size=(500, 9))
    moved = x + np.array([0, 0.3, 0, 0, 1, 0, -0.2, 0, 0.6])
    assert _furthest_apart({"ODE": moved, "SDE": x}, 4) == [1, 4, 6, 8]
    assert _furthest_apart({"ODE": x[:, :2], "SDE": x[:, :2]}, 4) == [0, 1]


def test_losses_and_scatter_refuse_what_they_cannot_draw():
    terms = {"dsm": np.ones(3), "fp": np.full(3, np.nan)}
    history = fpflow.History(np.arange(3), np.ones(3), terms, np.arange(3.0))
    ax = fpflow.plot.loss_curves({"a": history})
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), history["dsm"])
    for part in ("fp", "other"):  # nothing to draw: not computed, and not there
        assert not fpflow.plot.loss_curves({"a": history}, part=part).lines
