"""The script end to end on a tiny scale, its tables from made-up numbers, and its figures."""

import copy
import dataclasses
import itertools
import json
import sys
import time

import jax
import jax.random as jr
import matplotlib
import numpy as np
import pytest

matplotlib.use("Agg")

import fpflow
import seeds
from fpflow import paper
from fpflow._reproduce import data as reproduce_data
from fpflow._reproduce import figures as reproduce_figures
from fpflow._reproduce import run as reproduce
from fpflow._reproduce import tables as reproduce_tables
from fpflow._reproduce.saved import saved
from known import OU

TINY = ["--preset", "quick", "--scale", "1e-6", "--dataset", "mixture"]


SMALL = fpflow.Window(nodes=24)


def test_the_script_measures_what_the_paper_measures():
    assert reproduce.PROCESS == OU
    assert reproduce.WINDOW == reproduce_figures.WINDOW == fpflow.Window()


@pytest.fixture(scope="module")
def small_window():
    """A coarse window: the barely trained laws lie far apart, which the simplex takes long over."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reproduce, "WINDOW", SMALL)
        patch.setattr(reproduce_figures, "WINDOW", SMALL)
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory, small_window):
    out = tmp_path_factory.mktemp("run")
    with jax.enable_x64(False):
        assert reproduce.main([*TINY, "--fp-weight", "0.1", "--out", str(out)]) == 0
    return out


@pytest.mark.slow
def test_a_run_leaves_tables_figures_and_numbers(finished):
    rows = json.loads((finished / "tables.json").read_text())
    # The regularised network starts from the plain one, which is therefore there too.
    assert {(r["dataset"], r["fp_weight"]) for r in rows} == {("mixture", 0.0), ("mixture", 0.1)}
    for row in rows:
        assert row["published"] in paper.PUBLISHED["mixture"][row["fp_weight"]]
        numbers = json.loads(
            (
                finished / "runs" / f"mixture-w{row['fp_weight']:g}-seed0" / "numbers.json"
            ).read_text()
        )
        w2 = numbers["w2"][row["comparison"]]
        assert w2["lower"] <= w2["value"] <= w2["upper"]
        assert row["w2_squared"] == w2["value"]
    names = {p.name for p in (finished / "figures").glob("*.png")}
    assert names == {
        "data.png", "densities-mixture.png", "differences-mixture.png", "losses-mixture.png",
        "gap-against-residual.png", "excess-loss-against-residual.png",
    }  # fmt: skip
    assert {p.stem for p in (finished / "figures").glob("*.pdf")} == {n[:-4] for n in names}
    assert "**The paper's claims in this run**" in (finished / "tables.md").read_text()
    assert len((finished / "tables.csv").read_text().splitlines()) == 7


@pytest.mark.slow
def test_saved_masses_give_the_saved_distances(finished):
    run = finished / "runs" / "mixture-w0.1-seed0"
    arrays = np.load(run / "numbers.npz")
    numbers = json.loads((run / "numbers.json").read_text())
    data = fpflow.datasets.gaussian_mixture().cell_probabilities(SMALL)
    # The script knows the data's means in float32, the test in float64: 6e-8 apart.
    for name, a, b in (
        ("ODE-SDE", arrays["ode"], arrays["sde"]),
        ("SDE-data", arrays["sde"], data),
    ):
        np.testing.assert_allclose(
            fpflow.w2_grid(a, b, SMALL).value, numbers["w2"][name]["value"], rtol=1e-5
        )


@pytest.mark.slow
def test_resuming_computes_nothing_twice_and_repairs_what_is_missing(finished, monkeypatch):
    arguments = [*TINY, "--fp-weight", "0.1", "--out", str(finished), "--resume"]

    def never(*_, **__):
        raise AssertionError("computed again")

    with jax.enable_x64(False):
        with monkeypatch.context() as patch:
            patch.setattr(reproduce, "train", never)
            patch.setattr(reproduce, "measure", never)
            reproduce.main(arguments)
        run = finished / "runs" / "mixture-w0.1-seed0"
        before = json.loads((run / "numbers.json").read_text())
        (run / "numbers.json").unlink()
        with monkeypatch.context() as patch:
            patch.setattr(reproduce, "train", never)
            reproduce.main(arguments)
    after = json.loads((run / "numbers.json").read_text())
    assert after["w2"] == before["w2"]
    assert after["residual"] == before["residual"]


@pytest.mark.slow
def test_the_papers_samplers_are_run_where_a_preset_asks_for_samples(small_window):
    """The branch of `published` and `written` at full scale: an exact score, 4000 samples."""
    preset = dataclasses.replace(paper.PRESETS["published"], num_samples=4000)
    law = fpflow.datasets.gaussian_mixture()
    numbers, arrays = reproduce.measure(law.marginal(OU), None, law, preset, jr.key(0))
    # Mass in error moves about a cell, so the exact laws are apart by at most h^2 times the errors;
    # the others by the noise of 4000 samples, which six direct draws of the data show: their mean
    # plus five standard deviations leaves room for the Euler steps of the paper's grid.
    bound = SMALL.cell_width**2 * sum(numbers["density_error"].values())
    draws = [
        fpflow.datasets.Points(law.sample(k, 4000)).cell_probabilities(SMALL)
        for k in jr.split(jr.key(1), 6)
    ]
    exact = law.cell_probabilities(SMALL)
    one_drawn = [fpflow.w2_grid(draw, exact).value for draw in draws]
    both_drawn = [fpflow.w2_grid(draws[i - 1], draws[i]).value for i in range(6)]
    for name in paper.COMPARISONS:
        noise = one_drawn if "data" in name else both_drawn
        most = np.mean(noise) + 5 * np.std(noise, ddof=1)
        assert numbers["w2"][name]["value"] < bound < numbers["sampled"][name]["value"] < most
    # Counts of 4000 have the mean deviation (2 p / (pi n))^1/2 a cell.
    expected = np.sqrt(2 * arrays["ode"] / (np.pi * 4000)).sum() / 2
    assert 0.8 < np.abs(arrays["ode_sampled"] - arrays["ode"]).sum() / 2 / expected < 1.2
    run = {**made_up(0.0, 1.0, 1.0), "sampled": numbers["sampled"], "settings": preset.as_dict()}
    run |= {"dataset": "mixture", "fp_weight": 0.0}
    lines = reproduce_tables.sampled_table({"mixture": {0.0: run}})
    assert (
        f"| mixture | 0 | 4000 | {1e3 * numbers['sampled']['ODE-SDE']['value']:.2f} |" in lines[4]
    )
    assert reproduce_tables.sampled_table({"mixture": {0.0: made_up(0.0, 1.0, 1.0)}}) == []


@pytest.mark.slow
def test_other_settings_are_not_taken_for_these(finished):
    assert saved(finished / "runs" / "mixture-w0-seed0", "network", {"seed": 1}) is None
    assert saved(finished / "runs" / "nowhere", "network", {}) is None


def made_up(w2, residual, excess):
    entry = {"value": w2, "floor": 1e-5, "lower": w2, "upper": w2}
    return {
        "w2": {name: dict(entry) for name in paper.COMPARISONS},
        "residual": {"value": residual},
        "excess_loss": {"value": excess},
    }


def test_claims_are_read_off_the_numbers():
    """A run that follows the paper says yes four times; each claim broken says no, alone."""
    gap, sde, ode = (8e-3, 4e-3, 3e-3, 2e-3), (1e-3, 2e-3, 3e-3, 9e-3), (6e-3, 5e-3, 4e-3, 9e-3)
    table = {"mixture": {}}
    for k, weight in enumerate(paper.FP_WEIGHTS):
        run = made_up(0.0, residual=10.0**-k, excess=-4 + 0.1 * k)
        for name, values in zip(paper.COMPARISONS, (gap, ode, sde), strict=True):
            run["w2"][name]["value"] = values[k]
        table["mixture"][weight] = run
    assert reproduce_tables.claims(table).count("**yes**") == 4
    breaks = {
        "1 the gap": ("w2", "ODE-SDE", "value", 9e-3),
        "2 the SDE": ("w2", "SDE-data", "value", 0.5e-3),
        "3 the ODE": ("w2", "ODE-data", "value", 7e-3),
    }
    for claim, (group, name, field, value) in breaks.items():
        wrong = copy.deepcopy(table)
        wrong["mixture"][1.0][group][name][field] = value
        lines = reproduce_tables.claims(wrong).splitlines()
        assert "**no**" in next(line for line in lines if claim in line)
        assert sum("**no**" in line for line in lines) == 1
    wrong = copy.deepcopy(table)
    for k, weight in enumerate(paper.FP_WEIGHTS):
        wrong["mixture"][weight]["excess_loss"]["value"] = -4 - 0.1 * k
    lines = reproduce_tables.claims(wrong).splitlines()
    assert "**no**" in next(line for line in lines if "4 R̃" in line)
    # One pair exchanged: by chance, orders as good as that come up in eight of twenty-four cases.
    wrong["mixture"] = copy.deepcopy(table["mixture"])
    for weight, excess in zip(paper.FP_WEIGHTS, (-4, -3.8, -3.9, -3.7), strict=True):
        wrong["mixture"][weight]["excess_loss"]["value"] = excess
    lines = reproduce_tables.claims(wrong).splitlines()
    assert "**cannot be said**" in next(line for line in lines if "4 R̃" in line)
    # Within their errors all numbers are level, which neither confirms a claim nor contradicts it.
    turned = {"ODE-SDE": gap[::-1], "SDE-data": sde[::-1], "ODE-data": (6e-3, 7e-3, 8e-3, 5e-3)}
    for k, run in enumerate(wrong["mixture"].values()):
        for name, values in turned.items():
            run["w2"][name] |= {"value": values[k], "floor": 1e-2}
    assert reproduce_tables.claims(wrong).count("**cannot be said**") == 4


def test_entries_above_the_published_ones_are_named():
    table = {"circles": {10.0: made_up(0.0, 1.0, 1.0), 0.0: made_up(0.0, 2.0, 1.0)}}
    table["circles"][10.0]["w2"]["ODE-SDE"]["value"] = 0.001704 + 0.0006
    text = reproduce_tables.claims(table)
    assert "5 of 6 entries" in text
    assert "circles w_R = 10 ODE-SDE is: 2.30 against 1.70" in text


def test_presets_are_the_papers():
    published, written = paper.PRESETS["published"], paper.PRESETS["written"]
    for preset in (published, written):
        assert preset.plain == preset.regularised
        stage = preset.plain
        counts = (stage.num_steps, stage.batch_size, stage.penalty.num_points)
        assert counts == (100_000, 200_000, 50_000)
        assert stage.optimiser.learning_rate.rates == (1e-3, 1e-4, 1e-5)
        np.testing.assert_allclose(
            np.array(stage.optimiser.learning_rate.shares) * 1e5, [25_000, 65_000, 10_000]
        )
        assert stage.ema_decay == 0
    assert (published.plain.matching.factor, written.plain.matching.factor) == (0.5, 1.0)
    assert (set(published.betas.values()), set(written.betas.values())) == ({100.0}, {1.0})
    assert (published.depth, written.depth) == (3, 2)
    scaled = published.scaled(0.01).plain
    counts = (scaled.num_steps, scaled.batch_size, scaled.penalty.num_points)
    assert counts == (56_234, 36, 9)
    with pytest.raises(ValueError, match=r"`scale` must lie in \(0, 1\], got 2.0"):
        published.scaled(2.0)
    json.dumps(published.as_dict())


@pytest.fixture
def own_laws(tmp_path, monkeypatch):
    """A module in the current folder, of points and of what the paper's window does not hold."""
    monkeypatch.chdir(tmp_path)
    lines = [
        "import numpy as np",
        "moons = np.random.default_rng(0).normal(size=(500, 2))",
        "far = np.where(np.arange(500)[:, None] % 2, moons, moons + 9)",
        "line = moons[:, :1]",
    ]
    (tmp_path / "own_laws.py").write_text("\n".join(lines))
    yield tmp_path
    sys.modules.pop("own_laws", None)


def test_counted_data_have_a_floor(small_window):
    """Against the distance of 2000 points to the exact cells, on average over six draws, which vary by a
    fifth each. It is a size and no estimate: 0.76 to 1.27 of the truth for 500 to 8000 points and 16 to
    32 nodes."""
    law = fpflow.datasets.gaussian_mixture()
    exact = law.cell_probabilities(SMALL)
    few = [fpflow.datasets.Points(law.sample(jr.key(k), 2000)) for k in range(6)]
    floors = [reproduce_data.chance_floor(points) for points in few]
    true = [fpflow.w2_grid(points.cell_probabilities(SMALL), exact).value for points in few]
    assert 0.67 < np.mean(floors) / np.mean(true) < 1.4
    assert reproduce_data.counted("mixture") is None


def test_other_data_are_other_settings(own_laws):
    """A run is not resumed with a module whose points have changed since."""
    first = reproduce_data.settings_with_data({"seed": 0}, "own_laws:moons")
    assert first == reproduce_data.settings_with_data({"seed": 0}, "own_laws:moons")
    assert reproduce_data.settings_with_data({"seed": 0}, "circles") == {"seed": 0}
    module = own_laws / "own_laws.py"
    module.write_text(module.read_text().replace("default_rng(0)", "default_rng(10)"))
    del sys.modules["own_laws"]
    assert first != reproduce_data.settings_with_data({"seed": 0}, "own_laws:moons")


@pytest.mark.slow
def test_a_law_of_ones_own_takes_the_place_of_the_papers(own_laws, small_window, capsys):
    arguments = ["--preset", "quick", "--scale", "1e-6", "--dataset", "own_laws:moons"]
    with jax.enable_x64(False):
        assert reproduce.main([*arguments, "--fp-weight", "0", "--out", "out"]) == 0
    assert "note: at --scale 1e-06 a batch has 1 points" in capsys.readouterr().out
    table = (own_laws / "out" / "tables.md").read_text()
    # Nothing was published of a law of one's own: neither a column nor a count of what lies above.
    assert "| w_R | own_laws-moons |\n" in table
    assert "published" not in table and "entries are not above" not in table
    assert (
        "own_laws-moons are 500 points counted in cells, which by chance are up to about" in table
    )
    assert (own_laws / "out" / "figures" / "densities-own_laws-moons.png").stat().st_size > 10_000
    with np.load(own_laws / "out" / "runs" / "own_laws-moons-w0-seed0" / "numbers.npz") as arrays:
        points = reproduce_data.law_of("own_laws:moons").sample(jr.key(3), 100_000)
        drawn = fpflow.datasets.Points(points).cell_probabilities(SMALL)
        # Of 100,000 draws from 500 points.
        assert fpflow.total_variation(drawn.mass, arrays["data"], SMALL).value < 0.05


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--scale", "0"], "--scale must lie in (0, 1], got 0.0"),
        (["--seed", "-1"], "--seed must be a whole number from 0 to 4294967295, got -1"),
        (["--fp-weight", "-1"], "--fp-weight must be finite and not negative"),
        (["--preset", "fast"], "invalid choice: 'fast'"),
        (
            ["--dataset", "moons"],
            "--dataset moons: it is neither a data set of the paper, mixture, circles",
        ),
        (["--dataset", "own_laws:far"], "50% of it lies beyond the paper's window, [-3.5, 3.5]"),
        (["--dataset", "own_laws:line"], "must lie in the plane, got dimension 1"),
    ],
)
def test_bad_options_are_one_line(arguments, words, capsys, own_laws):
    with pytest.raises(SystemExit) as caught:
        reproduce.parse_arguments(arguments)
    assert caught.value.code == 2
    assert words in capsys.readouterr().err


def test_a_law_of_ones_own_is_never_taken_for_the_papers():
    """Nor for that of another module: each has a folder, and the published numbers are the paper's."""
    labels = [reproduce_data.label(name) for name in ("mixture", "mine:mixture", "other:mixture")]
    assert len(set(labels)) == 3 and [label in paper.PUBLISHED for label in labels] == [
        True,
        False,
        False,
    ]


def test_what_the_density_plot_draws():
    """The image is the mass per area, x1 to the right and x2 up."""
    window = fpflow.Window(-1.0, 1.0, 3)
    mass = np.zeros((3, 3))
    mass[2, 0] = 1.0  # x1 = 1, x2 = -1: lower right
    ax = fpflow.plot.density(mass, window)
    image = ax.images[0].get_array()
    assert image.shape == (3, 3)
    assert image[0, 2] == 1.0 / window.cell_width**2  # first row is the lowest
    assert tuple(ax.images[0].get_extent()) == (-1.5, 1.5, -1.5, 1.5)
    with pytest.raises(ValueError, match=r"`mass` must have the window's shape \(64, 64\)"):
        fpflow.plot.density(mass)
    matplotlib.pyplot.close("all")


@pytest.mark.slow
def test_interruption_keeps_the_finished_models(tmp_path, monkeypatch):
    """Stopped in the second model, the first one is there and is not trained again."""
    calls = []
    true_train = reproduce.train

    def stops(*arguments):
        calls.append(time.time())
        if len(calls) == 2:
            raise KeyboardInterrupt
        return true_train(*arguments)

    arguments = [*TINY, "--fp-weight", "0", "0.1", "--out", str(tmp_path)]
    monkeypatch.setattr(reproduce, "train", stops)
    monkeypatch.setattr(
        reproduce, "measure", lambda *_: ({"w2": dummy(), "seconds_measuring": 0}, {})
    )
    with jax.enable_x64(False), pytest.raises(KeyboardInterrupt):
        reproduce.main(arguments)
    assert (tmp_path / "runs" / "mixture-w0-seed0" / "numbers.json").exists()
    monkeypatch.setattr(reproduce, "write_tables", lambda *_: "")
    monkeypatch.setattr(reproduce, "draw_figures", lambda *_: [])
    with jax.enable_x64(False):
        reproduce.main([*arguments, "--resume"])
    assert len(calls) == 3


def dummy():
    return {name: {"value": 0.0} for name in paper.COMPARISONS}


def test_seeds_are_counted_together(tmp_path, capsys):
    """Every distance of seed k is k times a published one less a little: half of them are below."""
    for seed, dataset, weight in itertools.product((1, 2), paper.DATASETS, paper.FP_WEIGHTS):
        published = dict(zip(paper.COMPARISONS, paper.PUBLISHED[dataset][weight], strict=True))
        run = tmp_path / "runs" / f"{dataset}-w{weight:g}-seed{seed}"
        run.mkdir(parents=True)
        w2 = {k: {"value": seed * v - 1e-7, "floor": 0.0} for k, v in published.items()}
        numbers = {
            "dataset": dataset, "fp_weight": weight, "w2": w2,
            "residual": {"value": weight, "spatial": -weight},
            "excess_over_plain": {"value": 0.0, "standard_error": 0.0},
        }  # fmt: skip
        (run / "numbers.json").write_text(json.dumps(numbers))
    assert seeds.main([str(tmp_path), "--csv", str(tmp_path / "seeds.csv")]) == 0
    said = capsys.readouterr().out
    assert "- below their published counterparts: 36 of 72" in said
    assert "| mixture | 0 | 17.40 (11.60–23.20) |" in said
    assert "at once" not in said
    lines = (tmp_path / "seeds.csv").read_text().splitlines()
    assert len(lines) == 73 and lines[1] == "1,mixture,0.0,ODE-SDE,0.0115989,0.0000000"
    (run / "numbers.json").unlink()
    with pytest.raises(SystemExit):
        seeds.main([str(tmp_path)])
    assert "lacks checkerboard at w_R = 10 with seed 2." in capsys.readouterr().err
    with pytest.raises(SystemExit):
        seeds.main([str(tmp_path / "runs")])
    assert "holds no results of scripts/reproduce.py" in capsys.readouterr().err
