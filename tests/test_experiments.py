"""Experiments: what they save, resume and write, and that each of their variants runs."""

import csv
import dataclasses
import json
import pathlib
import re

import jax
import numpy as np
import pytest

import fpflow
from fpflow._reproduce import run as reproduce
from fpflow._reproduce.experiments import EXPERIMENTS, Setting, run_experiment
from fpflow._reproduce.experiments import base as bench
from fpflow._reproduce.experiments.page import BEGIN, END, over_seeds, table_of

RESULTS = pathlib.Path(__file__).parent.parent / "docs" / "results" / "experiments"
LAW = fpflow.datasets.gaussian_mixture()


def counting(calls):
    """An experiment of two variants that say how often they were run."""

    def variant(name, value):
        def run(setting, key):
            calls.append(name)
            return {"value": value + 0.1 * len(calls), "cost": 2.0}

        return run

    variants = {"One, 0.1": variant("one", 1.0), "two ⟨z, N⟩": variant("two", 5.0)}
    return bench.Experiment("toy", "Which is it?", variants, {"value": "value, nats", "cost": "s"})


def run(experiment, out, seeds=2, resume=False):
    lines = []
    run_experiment(experiment, Setting(LAW), "data", range(seeds), out, resume, lines.append)
    return lines


def test_numbers_are_saved_first_and_nothing_is_computed_twice(tmp_path):
    calls = []
    run(counting(calls), tmp_path)
    assert calls == ["one", "two", "one", "two"]  # every variant before the next seed
    saved = json.loads((tmp_path / "runs" / "one-0.1-seed1.json").read_text())
    assert saved["settings"] == {"variant": "One, 0.1", "seed": 1, "data": "data", "scale": 1.0}
    run(counting(calls), tmp_path, seeds=3, resume=True)
    assert calls[4:] == ["one", "two"]
    rows = list(csv.reader((tmp_path / "numbers.csv").open()))
    assert rows[0] == ["variant", "seed", "value", "cost"] and len(rows) == 7
    assert (tmp_path / "figure.png").exists() and (tmp_path / "figure.pdf").exists()


def test_the_page_keeps_its_words(tmp_path):
    run(counting([]), tmp_path)
    page = tmp_path / "index.md"
    page.write_text("# Mine\n\nFound: nothing.\n\n" + page.read_text())
    run(counting([]), tmp_path, seeds=3, resume=True)
    text = page.read_text()
    assert text.startswith("# Mine\n\nFound: nothing.") and text.count(BEGIN) == 1
    assert "Means over 3 seeds" in text and text.count(END) == 1


def test_tables_show_means_and_their_errors():
    """Two errors hold the mean for three seeds too: by Student's factor, not by the deviation alone."""
    mean, error = over_seeds([1.0, 2.0, 3.0])
    assert mean == 2.0 and 2.2 < error / (1 / 3**0.5) < 2.6
    text = table_of(counting([]), {"a": [{"value": 1.0, "cost": 2.0}]})
    assert "| a | 1 | 2 |" in text and "One seed" in text
    timed = dataclasses.replace(counting([]), times=("cost",))
    text = table_of(timed, {"a": [{"value": v, "cost": 2 + v} for v in (1.0, 2.0, 3.0)]})
    assert "| a | 2.0 ± 1.3 | 3 |" in text


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_experiments_have_committed_pages(name):
    """Every variant with its seeds, in the words of the experiment, and findings."""
    experiment, folder = EXPERIMENTS[name], RESULTS / name
    rows = list(csv.DictReader((folder / "numbers.csv").open()))
    assert {row["variant"] for row in rows} == set(experiment.variants)
    assert set(rows[0]) == {"variant", "seed", *experiment.columns}
    text = (folder / "index.md").read_text()
    assert experiment.question in text and BEGIN in text
    assert len(re.sub(f"{BEGIN}.*{END}", "", text, flags=re.S)) > 400  # what was found
    found = {name: [] for name in experiment.variants}
    for row in rows:
        found[row["variant"]].append({c: float(row[c]) for c in experiment.columns})
    assert table_of(experiment, found) in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--fp-weight", "0.1"], "takes none of --preset, --fp-weight and --page"),
        (["--preset", "quick"], "takes none of --preset, --fp-weight and --page"),
        (["--dataset", "circles", "mixture"], "takes one --dataset, got 2"),
        (["--seeds", "0"], "--seeds must be at least 1, got 0"),
    ],
)
def test_what_an_experiment_does_not_take_is_refused(arguments, words, capsys):
    with pytest.raises(SystemExit):
        reproduce.parse_arguments(["--experiment", "samplers", *arguments])
    assert words in capsys.readouterr().err
    with pytest.raises(SystemExit):
        reproduce.parse_arguments(["--experiment", "dimension", "--dataset", "circles"])
    assert "has data of its own" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        reproduce.parse_arguments(["--seeds", "2"])
    assert "--seeds is for --experiment" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_variant_of_every_experiment_runs(name, monkeypatch):
    """The last, on few points: all numbers of the columns are there."""
    experiment = EXPERIMENTS[name]
    monkeypatch.setattr(bench, "WINDOW", fpflow.Window(nodes=16))
    run_last = list(experiment.variants.values())[-1]
    numbers = run_last(Setting(LAW, scale=0.02), jax.random.key(0))
    assert set(numbers) == set(experiment.columns)
    assert all(np.isfinite(v) for k, v in numbers.items() if k != "ms_per_step")
