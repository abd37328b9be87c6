"""The gap report: the split on cases built for each part, adapters, and what it prints, saves, draws."""

import json
import pathlib
import re
import runpy
import threading

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import matplotlib
import numpy as np
import pytest

matplotlib.use("Agg")

import fpflow
from fpflow._cli import main
from fpflow._model import as_model
from fpflow._report import doubts
from fpflow._report.doubts import strays
from fpflow._report.fields import curl_profile, gradient_share
from fpflow._report.lanes import second_lane
from fpflow._report.measure import _kl_of_densities
from known import OU, LinearScore, WithoutPotential, linear_laws, mixture

LAW = fpflow.datasets.GaussianMixture([[-1.0], [0.2], [1.3]], 0.1)
EXACT = LAW.marginal(OU)
LINE = fpflow.Window(-4.0, 4.0, 128, dim=1)
SMALL = {"num_points": 16, "num_paths": 16, "etas": (0.0, 1.0), "theorem": False, "window": LINE}


def report(model, **settings):
    settings = fpflow.ReportSettings(**{**SMALL, **settings})
    return fpflow.gap_report(model, OU, LAW, settings=settings)


def assert_adds_up(split):
    """The sum of the parts is the observed gap within three of the errors stated of the difference."""
    missing = split.observed.value - split.total.value
    np.testing.assert_allclose(split.unexplained.value, missing, atol=1e-12)
    assert abs(missing) < 3 * split.unexplained.error
    assert split.unexplained.error < 0.5 * max(split.observed.value, 4 * split.noise.value)


def largest(split):
    parts = {
        name: getattr(split, name).value for name in ("model", "discretisation", "noise", "binning")
    }
    return max(parts, key=parts.get)


@pytest.mark.slow
def test_coarse_steps_dominate_where_they_are_the_cause():
    found = report(
        EXACT, num_samples=20_000, ode=fpflow.ODE(diffrax.Euler(), num_steps=12),
        sde=fpflow.SDE(num_steps=150),
    ).split  # fmt: skip
    assert_adds_up(found)
    assert largest(found) == "discretisation"
    assert abs(found.model.value) < 1e-4  # an exact score has no gap


@pytest.mark.slow
def test_few_samples_dominate_where_they_are_the_cause():
    found = report(EXACT, num_samples=150, repeats=8, theorem=True)
    assert_adds_up(found.split)
    assert largest(found.split) == "noise"
    assert "Theorem 1 in numbers" in str(found)
    assert found.theorem.distance < 0.01 and found.split.model.value < 1e-5


@pytest.mark.slow
def test_a_wrong_score_dominates_where_it_is_the_cause():
    model = LinearScore(jnp.array([[2.8]]))
    settings = fpflow.ReportSettings(**{**SMALL, "num_samples": 40_000})
    data = fpflow.datasets.GaussianMixture([[0.0]], 0.5)
    process = fpflow.OrnsteinUhlenbeck(t1=1.0)
    found = fpflow.gap_report(model, process, data, settings=settings)
    assert_adds_up(found.split)
    assert largest(found.split) == "model"
    from_moments = gap_of_moments(model, process)
    np.testing.assert_allclose(found.split.model.value**0.5, from_moments, rtol=0.02)
    # The pointwise gap has the mean that the two Gaussians give under the data.
    assert found.curl.rms.max() == 0 and found.kl is not None and found.residual is None


def gap_of_moments(model, process):
    sde_cov, ode_cov = linear_laws(model.matrix, process)
    return abs(np.sqrt(sde_cov[0, 0]) - np.sqrt(ode_cov[0, 0]))


@pytest.mark.slow
def test_split_in_five_dimensions():
    model = LinearScore(jnp.diag(jnp.linspace(1.0, 4.0, 5)))
    data = fpflow.datasets.GaussianMixture(np.zeros((1, 5)), 0.5)
    settings = fpflow.ReportSettings(
        num_samples=4000,
        ode=fpflow.ODE(num_steps=25),
        sde=fpflow.SDE(num_steps=50),
        num_points=16,
        num_paths=16,
        etas=(0.0, 1.0),
    )
    found = fpflow.gap_report(model, fpflow.OrnsteinUhlenbeck(t1=1.0), data, settings=settings)
    assert_adds_up(found.split)
    assert largest(found.split) == "model" and found.split.binning.value == 0
    assert found.grid_distances == {} and found.theorem is None
    assert "sliced W2^2" in str(found)
    found.plot()


@pytest.mark.slow
def test_report_of_a_trained_network_prints_saves_and_draws(tmp_path):
    model = fpflow.load(__file__.replace("test_report.py", "networks/mixture.fpflow")).model
    settings = fpflow.ReportSettings(
        num_samples=1000, repeats=2, num_points=8, num_paths=16, etas=(0.0, 1.0), theorem=False,
        ode=fpflow.ODE(num_steps=20), sde=fpflow.Ancestral(20),
        window=fpflow.Window(-4.0, 4.0, 40),
    )  # fmt: skip
    law = fpflow.datasets.gaussian_mixture()
    found = fpflow.gap_report(model, OU, law, settings=settings, points=jnp.array([[9.0, 9.0]] * 2))
    text = str(found)
    for words in (
        "part of the gap", "observed between samples", "Fokker-Planck residual", "Curl of the score",
        "KL decomposition", "eta", "2 of 2 `points` lie outside the box of the data", "KL(SDE | e^u/Z)",
        "bits per dimension", "e^u-SDE", "point by point",
    ):  # fmt: skip
        assert words in text, words
    assert found.curl.relative.max() < 1e-5  # a gradient by construction
    assert found.not_gradient < 1e-3
    grid = found.grid_distances["data-ODE"]["KL"].value
    assert abs(found.kl.kl_ode.value - grid) < 4 * found.kl.kl_ode.error
    assert found.grid_distances["data-SDE"]["KL"].value < found.kl.bound_sde.value
    found.save(tmp_path / "report.json")
    saved = json.loads((tmp_path / "report.json").read_text())
    assert saved["split"]["observed"]["value"] == found.split.observed.value
    assert saved["settings"]["num_samples"] == 1000
    assert saved["settings"]["ode"]["solver"] == "Heun"
    assert saved["settings"]["sde"] == {
        "kind": "Ancestral", "num_steps": 20, "step_grid": None, "quiet_end": True,
    }  # fmt: skip
    np.testing.assert_array_equal(saved["residual"]["value"], found.residual.value)
    figure = found.plot()
    titles = [ax.get_title() for ax in figure.axes]
    for title in ("data", "ODE", "SDE", "SDE − ODE", "the gap point by point"):
        assert title in titles
    figure.savefig(tmp_path / "page.png")


@pytest.mark.parametrize("kind", ["noise", "data", "v", "velocity"])
def test_adapters_give_the_score_back(kind):
    """Each prediction of the exact law, written by its definition, gives the exact score."""
    law = mixture(2)
    exact, t, x = law.marginal(OU), jnp.array(0.3), jnp.array([0.4, -0.7])
    a, std = jnp.exp(-t), jnp.sqrt(-jnp.expm1(-2 * t) / 2)

    def noise(t, x):
        return -std * exact.score(t, x)

    def x0(t, x):
        return (x - std * noise(t, x)) / a

    predictions = {
        "noise": noise,
        "data": x0,
        "v": lambda t, x: a * noise(t, x) - std * x0(t, x),
        "velocity": lambda t, x: -x - exact.score(t, x) / 2,
    }
    adapt = getattr(fpflow, f"from_{kind}" + ("" if kind == "velocity" else "_prediction"))
    model = adapt(predictions[kind], OU)
    np.testing.assert_allclose(model.score(t, x), exact.score(t, x), rtol=1e-10)
    early = adapt(lambda t, x: jnp.full_like(x, t), OU, t_min=0.1)
    assert jnp.isfinite(early.score(jnp.array(0.0), x)).all()
    with pytest.raises(ValueError, match=r"`t_min` must lie in \[0.0, 10.0\), got 11.0"):
        adapt(predictions[kind], OU, t_min=11.0)
    with pytest.raises(ValueError, match="`prediction` must be a function of"):
        adapt.__wrapped__(3.0, OU)


@pytest.mark.slow
def test_plain_objects_and_functions_are_models():
    settings = fpflow.ReportSettings(**{**SMALL, "num_samples": 500})
    # An object that says nothing of its dimension; functions are judged through the command line too.
    found = fpflow.gap_report(WithoutPotential(EXACT), OU, LAW, settings=settings)
    assert found.residual is None and found.dim == 1
    points = found.pointwise["points"]
    assert abs(points.mean.value) < 0.01 and points.reliable.all()
    function = as_model(lambda t, x: EXACT.score(t, x), 1)
    assert function.score(0.1, jnp.ones(1)) == EXACT.score(0.1, jnp.ones(1))
    with pytest.raises(ValueError, match=r"a model must have a method `score\(t, x\)` or be a"):
        fpflow.gap_report("network", OU, LAW)


class Broken(eqx.Module):
    def score(self, t, x):
        return jnp.where(t > 5, -2 * x, jnp.nan)


def test_bad_input_is_refused():
    with pytest.raises(FloatingPointError, match="the density is not finite: `model.score`"):
        report(Broken(), num_samples=100)
    with pytest.raises(ValueError, match="`model.score` must be finite, got"):
        fpflow.gap_report(lambda t, x: x * jnp.nan, OU, LAW)
    with pytest.raises(ValueError, match=r"`model.score` .* shape \(1,\)"):
        fpflow.gap_report(lambda t, x: jnp.zeros(2), OU, LAW)
    with pytest.raises(ValueError, match="`data` has dimension 1 and the model dimension 2"):
        fpflow.gap_report(fpflow.ScoreMLP(2, key=jr.key(0)), OU, LAW)
    with pytest.raises(ValueError, match="`settings.window` has dimension 2, the data 1"):
        report(EXACT, window=fpflow.Window())
    with pytest.raises(ValueError, match="`key` must be a `jax.random.key`, got 3"):
        fpflow.gap_report.__wrapped__(EXACT, OU, LAW, key=3)
    with pytest.raises(ValueError, match="`sde` must be an `fpflow.AbstractSampler`"):
        settings = fpflow.ReportSettings()
        object.__setattr__(settings, "sde", "ShARK")  # past the checked annotations
        settings.__post_init__()
    with pytest.raises(ValueError, match="`repeats` must be at least 2"):
        fpflow.ReportSettings(repeats=1)


def test_saved_models_come_back_and_damaged_ones_do_not(tmp_path):
    model = fpflow.ScoreMLP(3, width=5, depth=2, beta=7.0, key=jr.key(0))
    path = tmp_path / "model.fpflow"
    fpflow.save(path, model, OU)
    back, process = fpflow.load(path)
    assert process == OU
    t, x = jnp.array(0.4), jnp.array([0.1, 0.2, -0.3])
    np.testing.assert_array_equal(back.score(t, x), model.score(t, x))
    assert type(back) is fpflow.ScoreMLP and [p.name for p in tmp_path.iterdir()] == [
        "model.fpflow"
    ]
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ValueError, match="model.fpflow cannot be used: its SHA-256"):
        fpflow.load(path)
    with pytest.raises(FileNotFoundError):
        fpflow.load(tmp_path / "nothing.npz")


@pytest.mark.slow
def test_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("def noise(t, x):\n    return 1.4 * x * (1 + 0.0 * t)\n")
    points = np.asarray(LAW.sample(jr.key(0), 600))
    np.savetxt("points.csv", points, delimiter=",", header="x", comments="")
    counts = [
        "--num-samples", "300", "--repeats", "2", "--num-points", "8", "--num-paths", "8",
        "--ode-steps", "20", "--sde-steps", "20",
    ]  # fmt: skip
    outputs = ["--out", "report.json", "--figure", "page.png"]
    code = main(["report", "mine:noise", "points.csv", "--prediction", "noise", *counts, *outputs])
    printed = capsys.readouterr()
    assert code == 0, printed.err
    assert "Gap between ODE and SDE in dimension 1" in printed.out
    assert json.loads((tmp_path / "report.json").read_text())["dim"] == 1
    assert (tmp_path / "page.png").stat().st_size > 10_000
    for arguments, words in (
        (["nothing.npz", "points.csv"], "there is no file 'nothing.npz'"),
        (["mine:nothing", "points.csv"], "module 'mine' has no 'nothing'"),
        (["nowhere:score", "points.csv"], "module 'nowhere' of 'nowhere:score' was not found"),
        (["mine:noise", "points.txt"], "data must be a .npy, .npz or .csv file"),
        (
            ["mine:noise", "points.csv", "--out", "no/where.json"],
            "the folder of no/where.json does",
        ),
        (["mine:noise", "points.csv", "--rate", "-1"], "--rate must be positive"),
    ):
        assert main(["report", *arguments]) == 2
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == 1


@pytest.mark.slow
def test_the_example_of_a_score_from_outside_runs():
    """Shortened: a few hundred steps of training, few samples."""
    path = pathlib.Path(__file__).parent.parent / "docs" / "examples" / "score_from_outside.py"
    example = runpy.run_path(str(path))
    settings = fpflow.ReportSettings(
        num_samples=500, repeats=2, num_points=8, num_paths=16, etas=(0.0, 1.0),
        ode=fpflow.ODE(num_steps=20), sde=fpflow.SDE(num_steps=20), window=fpflow.Window(-3.5, 3.5, 32),
    )  # fmt: skip
    with jax.enable_x64(False):
        found = example["main"](num_steps=300, settings=settings)
    assert found.dim == 2 and found.residual is None
    # Three hundred steps of a network that is no gradient by construction, and two moons.
    assert 1e-4 < found.not_gradient < 0.1
    assert found.split.observed.value > 2 * found.split.observed.error


@pytest.mark.parametrize("turn", [0.0, 0.5, 3.0])
def test_what_is_no_gradient_of_a_turning_score(turn):
    """s = -2 x + c R x with R a quarter turn: under N(0, v I) the turn is at right angles to every
    gradient, so that its share is c^2 / (4 + c^2); the curl is 2 c everywhere."""
    model = LinearScore(jnp.array([[2.0, turn], [-turn, 2.0]]))
    law = fpflow.datasets.GaussianMixture([[0.0, 0.0]], 0.5)
    cells = law.cell_probabilities(fpflow.Window(-3.0, 3.0, 48))
    # Differences on the faces are of second order in cells of 1/8.
    share = gradient_share(model, OU, cells)
    np.testing.assert_allclose(share, turn**2 / (4 + turn**2), atol=0.125**2 / 6)
    found = curl_profile(model, OU, law, num_points=8, key=jr.key(0))
    np.testing.assert_allclose(found.rms, 2 * turn, atol=1e-12)
    np.testing.assert_allclose(found.relative, 2 * turn / (8 + 2 * turn**2) ** 0.5, atol=1e-12)
    assert found.error.max() < 1e-12


def test_strays_are_told_with_their_distance_and_their_weight():
    """Two of a thousand points, three widths of the data beyond its box."""
    data = np.random.default_rng(0).uniform(size=(1000, 2))
    data[:2] = [[0, 0], [1, 1]]  # the box exactly
    x = data.copy()
    x[2:4, 1] = [4.0, -3.0]
    (note,) = strays("ODE", x, data)
    assert "0.2% of the ODE samples" in note and "the farthest 3 widths" in note
    found = re.search(r"data is (\S+), without them (\S+):", note)
    whole, rest = float(found[1]), float(found[2])
    assert whole == pytest.approx(float(fpflow.sliced_w2(data, x).value), rel=0.01)  # three digits
    assert rest == pytest.approx(
        float(fpflow.sliced_w2(data, np.delete(x, [2, 3], axis=0)).value), rel=0.01
    )
    assert rest < 0.01 * whole
    assert not strays("ODE", data, data)
    assert strays("SDE", x + 9, data) == [
        "100.0% of the SDE samples lie more than half the data's width away from the data."
    ]


def test_the_divergence_of_densities_counts_what_cells_hide():
    """Of Gaussians on cells half as wide as they are: second order of the width, and in the error."""
    a, b = (fpflow.datasets.GaussianMixture(np.zeros((1, 2)), v) for v in (0.3, 0.5))
    window = fpflow.Window(-3.0, 3.0, 24)
    exact = 0.3 / 0.5 - 1 - np.log(0.3 / 0.5)  # half of it in each dimension
    masses = [law.cell_probabilities(window) for law in (a, b)]
    found, cells = _kl_of_densities(*masses), fpflow.kl_divergence(*masses)
    assert found.value == cells.value
    assert abs(cells.value - exact) > 4 * cells.error
    # What is hidden of the fourth order is a tenth.
    hidden = float(np.sqrt(found.error**2 - cells.error**2))
    np.testing.assert_allclose(hidden, exact - cells.value, rtol=0.2)


def test_the_second_lane_computes_as_its_caller_does():
    def at_work():
        return jnp.ones(1).dtype, jax.config.jax_default_matmul_precision

    double = not jax.config.jax_enable_x64
    with jax.enable_x64(double), jax.default_matmul_precision("highest"):
        here = at_work()
        with second_lane() as aside:
            there = aside(at_work).result()
    assert here == there != at_work()
    ended = []
    with pytest.raises(KeyError, match="first"), second_lane() as aside:
        begun, end = threading.Event(), threading.Event()
        aside(lambda: (begun.set(), end.wait(60), ended.append("first")))
        aside(lambda: ended.append("second"))
        begun.wait(60)
        threading.Timer(0.1, end.set).start()
        raise KeyError("first")
    assert ended == ["first"], "what was under way is finished, what had not begun is dropped"


def test_an_identity_that_does_not_hold_on_the_grid_is_told():
    def theorem(distance, by_identity):
        none = np.zeros(0)
        numbers = *[1.0] * 3, distance, by_identity, *[1.0] * 3
        return fpflow.TheoremOne(*[none] * 5, *numbers, none, none)

    assert doubts._off_identity(theorem(0.2, 0.19)) == [] == doubts._off_identity(None)
    (note,) = doubts._off_identity(theorem(0.171, 0.0))
    assert "D of Theorem 1 is 0.171 from the densities and 0 from an identity" in note
