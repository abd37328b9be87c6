"""The command line, as someone with a file of points meets it."""

import argparse
import contextlib
import gc
import gzip
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import unittest.mock

import equinox as eqx
import jax
import numpy as np
import pytest

import fpflow
from fpflow._cli import main
from fpflow._cli.inputs import condition_of, given_model, law_of, names_of
from fpflow._cli.main import _COMMANDS, _parser
from fpflow._cli.options import add_options, defaults_of, words_of
from fpflow._cli.points import read_points, write_points
from fpflow._cli.shared import asked_process, process_of
from fpflow._process import BY_NAME

POINTS = np.random.default_rng(0).normal(size=(300, 2)) * [1.0, 0.6]
SHORT = ["--steps", "300", "--chunk", "50", "--batch-size", "64", "--width", "8", "--depth", "1"]
SHORT += ["--checkpoint-every", "100", "--peak", "0.01"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with points in three formats, a module, and a finished run."""
    path = tmp_path_factory.mktemp("user")
    np.savetxt(path / "points.csv", POINTS, delimiter=",", header="a,b", comments="")
    np.save(path / "points.npy", POINTS)
    np.savez(path / "points.npz", points=POINTS)
    (path / "own.py").write_text(
        "import fpflow\n\ndef score(t, x):\n    return -2 * x\n\n"
        "class Law:\n    def sample(self, key, n):\n"
        "        return fpflow.datasets.gaussian_mixture().sample(key, n)\n\nlaw = Law()\n"
        "process = fpflow.OrnsteinUhlenbeck(t1=5.0)\n"
    )
    with contextlib.chdir(path):
        assert main(["train", "points.csv", "--run-dir", "run", "--fp-weight", "0.1", *SHORT]) == 0
    return path


@pytest.fixture
def here(folder, monkeypatch):
    monkeypatch.chdir(folder)
    return folder


def options_in(name, subcommand):
    saved = json.loads((subcommand / name / "config.json").read_text())
    return saved["command"]["options"]


def test_a_run_is_replayed_from_its_config(here, capsys):
    assert main(["train", "--config", "run/config.json", "--run-dir", "again"]) == 0
    assert "network in again/model.fpflow" in capsys.readouterr().out
    a, b = ((here / name / "model.fpflow").read_bytes() for name in ("run", "again"))
    assert a == b
    # What is written on the line wins.
    main(["train", "--config", "run/config.json", "--run-dir", "other", "--seed", "5"])
    assert (here / "other" / "model.fpflow").read_bytes() != a
    assert options_in("other", here)["seed"] == 5


@pytest.mark.parametrize("data", ["points.npy", "points.npz", "own:law", "circles"])
def test_data_comes_in_many_forms(here, data):
    name = re.sub(r"\W", "-", data)
    few = ["--steps", "2", "--chunk", "2", "--width", "8", "--depth", "1", "--batch-size", "64"]
    assert main(["train", data, "--run-dir", name, "--network", "score", *few]) == 0
    assert isinstance(fpflow.load(here / name / "model.fpflow").model.model, fpflow.ScoreMLP)


@pytest.mark.slow
def test_samples_are_those_of_the_library(here):
    model = fpflow.load("run/model.fpflow").model
    process, settings = fpflow.OrnsteinUhlenbeck(), {"num_steps": 10, "key": jax.random.key(0)}
    for law, out in (("ode", "ode.npy"), ("sde", "sde.csv")):
        command = ["sample", "run", "--law", law, "-n", "50", "--steps", "10", "--out", out]
        assert main(command) == 0
        found = np.load(out) if out.endswith("npy") else read_points(here / out)[1]
        expected = getattr(fpflow, f"sample_{law}")(model, process, 50, **settings)
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert (
        main(["sample", "run", "--eta", "0.5", "-n", "50", "--steps", "10", "--out", "h.npy"]) == 0
    )
    assert main(["sample", "own:score", "--dim", "2", "-n", "50", "--process", "own:process",
                 "--out", "f.npy"]) == 0  # fmt: skip
    # The score of the stationary law: samples of it at any time.
    assert np.load("f.npy").std() == pytest.approx(0.5**0.5, rel=0.2)


@pytest.mark.slow
def test_densities_at_points(here, capsys):
    options = ["-n", "5", "--paths", "8", "--steps", "10", "--out", "p.csv"]
    assert main(["density", "run", *options]) == 0
    lines = (here / "p.csv").read_text().splitlines()
    assert lines[0] == (
        "a,b,log_p_ode,ode_error,log_p_sde,sde_standard_error,sde_minus_ode"
    ) and len(lines) == 6  # fmt: skip
    row = np.array([float(v) for v in lines[1].split(",")])
    np.testing.assert_allclose(row[:2], POINTS[0], rtol=1e-6)
    expected = fpflow.log_prob_ode(*fpflow.load("run/model.fpflow"), POINTS[:1])
    assert row[2] == pytest.approx(float(expected.value[0]), abs=1e-3)
    assert row[6] == pytest.approx(row[4] - row[2], abs=1e-6)
    assert "nats" in capsys.readouterr().out
    assert main(["density", "run", "own:law", *options]) == 0


@pytest.mark.slow
def test_a_report_of_a_run(here, capsys):
    counts = [
        "--num-samples", "200", "--repeats", "2", "--num-points", "4", "--num-paths", "8",
        "--ode-steps", "40", "--sde-steps", "40", "--etas", "0", "1", "--no-theorem",
    ]  # fmt: skip
    np.save("line.npy", POINTS[:, :1])  # one dimension, where a report takes least time
    assert main(["train", "line.npy", "--run-dir", "line", *SHORT]) == 0
    assert main(["report", "line", *counts]) == 0
    assert "Gap between ODE and SDE in dimension 1" in capsys.readouterr().out
    saved = json.loads((here / "line" / "report.json").read_text())
    assert saved["settings"]["etas"] == [0.0, 1.0] and saved["theorem"] is None
    assert (here / "line" / "figures" / "report.png").stat().st_size > 10_000


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", ["losses", "densities", "field", "trajectories", "residual", "curl", "flow"]
)
def test_pictures_of_a_run(here, kind):
    assert main(["plot", "run", "--kind", kind, "--nodes", "16"]) == 0
    ending = "gif" if kind == "flow" else "png"
    assert (here / "run" / "figures" / f"{kind}.{ending}").stat().st_size > 5000


MISTAKES = {
    "train --run-dir new": "DATA is missing; see `fpflow train --help`",
    "train points.csv": "--run-dir is missing",
    "train points.csv --run-dir run": "already holds a run; pass --resume",
    "train points.csv --run-dir new --steps 0": "--num-steps must be a whole number of at least 1",
    "train points.csv --run-dir new --rate -1": "--rate must be positive, got -1.0",
    "train nothing.csv --run-dir new": "there is no file 'nothing.csv'",
    "train words.csv --run-dir new": "words.csv must hold numbers separated by commas, one point per "
    "line, after at most one line of names: line 3, column 1 holds 'x', which is not a number",
    "train semicolons.csv --run-dir new": "line 1 has semicolons",
    "train missing.csv --run-dir new": "line 2, column 2 holds nothing",
    "train empty.csv --run-dir new": "empty.csv holds no points",
    "train names.csv --run-dir new": "names.csv holds no points",
    "train latin.csv --run-dir new": "latin.csv is not UTF-8: line 1 has the byte 0xe4; save it as",
    "train zipped.csv --run-dir new": "zipped.csv is compressed; unpack it with gunzip first",
    "train empty.npy --run-dir new": "empty.npy cannot be read as an array of numbers: No data left",
    "train empty.npz --run-dir new": "empty.npz cannot be read as an array of numbers: No data left",
    "train torn.npz --run-dir new": "torn.npz cannot be read as an array of numbers: ",
    "train huge.npy --run-dir new": "huge.npy cannot be read as an array of numbers: mmap length",
    "train mixtrue --run-dir new": "one of mixture, circles, checkerboard, got 'mixtrue'",
    "train two.npz --run-dir new": "two.npz must hold one array, got ['a', 'b']",
    "train objects.npy --run-dir new": "Array can't be memory-mapped: Python objects in dtype",
    "train points.csv --run-dir new --config words.csv": "words.csv is not a config.json of a command",
    "sample run --out a.npy --config run/config.json": "holds the options of `fpflow train`",
    "sample run --out a.txt": "a.txt must end in .npy or .csv",
    "sample run --out no/a.npy": "the folder of no/a.npy does not exist",
    "sample run --law ode --eta 0.5 --out a.npy": "--eta applies to --law sde",
    "sample empty --out a.npy": "empty is not a run: it has no config.json",
    "sample half --out a.npy": "the run in half has no model yet; let it finish",
    "sample torn --out a.npy": "is not JSON",
    "sample points.csv --out a.npy": "it does not begin like a file written by fpflow",
    "density run/model.fpflow --out p.csv": "DATA is missing: the model has no run that records its",
    "density run --given 1 --out p.csv": "DATA is missing: give a file of points that belong",
    "report run --given 1": "the network takes no condition; make it with `condition_dim=`",
    "sample run --prediction noise --out a.npy": "--prediction applies to a module:function; the",
    "sample run/figures --out a.npy": "figures is not a run: it has no config.json",
    "train points.csv --run-dir new --start points.csv": "it does not begin like a file written by "
    "fpflow",
    "plot run run": "--out is missing: a figure of several runs has no run folder of its own",
    "density run --out p.csv -n 0": "--num-points must be at least 1, got 0",
    "report run/model.fpflow": "DATA is missing: this model has no run that records its data",
    "sample run --out points.csv": "--out is points.csv, an input of this command; choose another file",
    "sample line.npy --out line.npy --dim 1": "--out is line.npy, an input of this command",
    "density run --out points.csv": "--out is points.csv, an input of this command",
    "density run missing.csv --out missing.csv": "is missing.csv, an input of this command",
    "density run --config replay.csv --out replay.csv": "is replay.csv, an input of this command",
    "report run --out run/config.json": "--out is run/config.json, an input of this command",
    "report line.png points.csv --figure line.png": "--figure is line.png, an input of this command",
    "plot line.png --kind residual --out line.png": "--out is line.png, an input of this command",
    "sample own:score --dim 2 --process json:dumps --out a.npy": "`fpflow.Abstract"
    "Process`, got function",
    "sample own:score --dim 2 --process fpflow:OrnsteinUhlenbeck --out a.npy": "got the class "
    "OrnsteinUhlenbeck; make an object of it",
    "sample own:score --dim 2 --process broken:process --out a.npy": "module 'broken' of "
    "'broken:process' cannot be imported: SyntaxError",
    "sample own:score --dim 2 --process stretch:process --rate 3 --out a.npy": "--rate is not a setting "
    "of the process Stretch, which has t0, t1",
    "sample run --seed -1 --out a.npy": "--seed must be a whole number from 0 to 4294967295, got -1",
    "train points.csv --run-dir new --seed 99999999999999999999": "--seed must be a whole number from 0",
    "train points.csv --run-dir new --steps 99999999999999999999": "--num-steps must be at most 2147",
    "train points.csv --run-dir new --batch-size 99999999999999999999": "--batch-size must be at most",
    "train points.csv --run-dir new --fp-weight nan": "--fp-weight must be finite and not",
    "train points.csv --run-dir points.csv": "--run-dir must be a folder, and points.csv is a file",
    "plot spoilt": "spoilt/metrics.jsonl is damaged: line 1 holds 'nonsense'",
    "plot other-rows": "other-rows/metrics.jsonl is damaged: line 1 holds '[1, 2]'",
    "plot run/model.fpflow --kind curl": "--out is missing: the model has no run folder for its figures",
    "plot empty": "empty is not a run: it has no metrics.jsonl",
    "plot begun": "the run in begun has no metrics yet: its first chunk is not finished",
    "plot run run --kind curl": "--kind curl draws one model, got 2",
    "plot line.fpflow --kind curl --out c.png": "--kind curl is for dimension 2, and the model "
    "has dimension 1",
}


@pytest.fixture(scope="module")
def mistakes(folder):
    (folder / "words.csv").write_text("a,b\n1,2\nx,y\n")
    (folder / "semicolons.csv").write_text("1;2\n3;4\n5;6\n")
    (folder / "missing.csv").write_text("1,2\n3,\n")
    (folder / "names.csv").write_text("a,b\n")
    (folder / "latin.csv").write_bytes("Länge,b\n1,2\n3,5\n".encode("latin-1"))
    (folder / "zipped.csv").write_bytes(gzip.compress(b"1,2\n3,5\n"))
    for name in ("empty.csv", "empty.npy", "empty.npz"):
        (folder / name).touch()
    (folder / "torn.npz").write_bytes((folder / "points.npz").read_bytes()[:-99])
    with open(folder / "huge.npy", "wb") as file:
        header = {"descr": "<f8", "fortran_order": False, "shape": (10**11, 2)}
        np.lib.format.write_array_header_1_0(file, header)
    np.savez(folder / "two.npz", a=POINTS, b=POINTS)
    np.save(folder / "objects.npy", np.array([{}, 2], dtype=object))
    for name in ("empty", "half", "strange", "torn", "begun"):
        (folder / name).mkdir()
    (folder / "begun" / "metrics.jsonl").touch()
    config = (folder / "run" / "config.json").read_text()
    (folder / "half" / "config.json").write_text(config)
    (folder / "torn" / "config.json").write_text(config[:99])
    (folder / "strange" / "config.json").write_text(config.replace("OrnsteinUhlenbeck", "Other"))
    for name in ("strange", "torn"):
        model = (folder / "run" / "model.fpflow").read_bytes()
        (folder / name / "model.fpflow").write_bytes(model)
    line = fpflow.PotentialMLP(1, width=4, depth=1, key=jax.random.key(0))
    for name in ("line.fpflow", "line.npy", "line.png"):
        fpflow.save(folder / name, line, fpflow.OrnsteinUhlenbeck())
    replay = {"command": {"name": "density", "options": {}}}
    (folder / "replay.csv").write_text(json.dumps(replay))
    (folder / "broken.py").write_text("process = (\n")
    (folder / "stretch.py").write_text("from known import Stretch\n\nprocess = Stretch()\n")
    for name, row in (("spoilt", "nonsense"), ("other-rows", "[1, 2]")):
        (folder / name).mkdir()
        (folder / name / "metrics.jsonl").write_text(f"{row}\n{row}\n")


WHOLE = json.dumps({"command": {"name": "train", "options": {}}})
CONFIGS = [
    "null",
    "[]",
    '"text"',
    "3",
    '{"command": null}',
    '{"command": "train"}',
    '{"command": [1]}',
    '{"command": {"name": "train"}}',
    '{"command": {"name": ["train"], "options": {}}}',
    *(WHOLE.replace("{}", options) for options in ("null", "[]", '"text"', "[[1, 2]]")),
]
OPTIONS = {
    "nonsense": 1, "num_steps": "many", "batch_size": [64], "chunk": 2.5, "seed": True, "width": None,
    "network": "other", "bare": "yes", "data": 5, "run_dir": {}, "process_rate": "fast", "process": [3],
    "resume": True,
}  # fmt: skip


@pytest.mark.parametrize("text", CONFIGS)
def test_a_config_of_another_shape_is_one_line(here, text, capsys):
    (here / "edited.json").write_text(text)
    assert main(["train", "points.csv", "--config", "edited.json", "--run-dir", "new"]) == 2
    said = capsys.readouterr().err
    assert "edited.json is not a config.json of a command: " in said and said.count("\n") == 1
    if text.startswith('{"command": {"name": "train", "options"'):
        assert "is not a config.json of a command: its options are" in said


@pytest.mark.parametrize("name", OPTIONS)
def test_an_option_of_another_kind_is_one_line(here, name, capsys):
    saved = {"command": {"name": "train", "options": {name: OPTIONS[name]}}}
    (here / "edited.json").write_text(json.dumps(saved))
    assert main(["train", "points.csv", "--config", "edited.json", "--run-dir", "new"]) == 2
    said = capsys.readouterr().err
    unknown = f"has an option {name!r} that `fpflow train` does not know"
    flag = f"--{name.removeprefix('process_').replace('_', '-')}"
    other = f"has {OPTIONS[name]!r} for {flag}, which must be "
    assert (unknown if name in ("nonsense", "resume") else other) in said.replace(
        "`data`", "--data"
    )
    assert said.count("\n") == 1 and not (here / "new").exists()


RUNS = {
    "config.json must be a JSON object": ["null", "[]", '"text"'],
    "'command' must be an object": ['{"command": null}', '{"command": []}'],
    "'options' must be an object": ['{"command": {"options": []}}'],
    "'data' must be text": ['{"command": {"options": {"data": 5}}}'],
}  # fmt: skip


@pytest.mark.parametrize(("words", "text"), [(w, text) for w in RUNS for text in RUNS[w]])
def test_a_run_with_another_config_is_one_line(here, words, text, capsys):
    (here / "edited").mkdir(exist_ok=True)
    shutil.copy(here / "run" / "model.fpflow", here / "edited" / "model.fpflow")
    (here / "edited" / "config.json").write_text(text)
    assert main(["sample", "edited", "--out", "a.npy"]) == 2
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1


def test_options_change_only_what_they_name(here):
    """A run of another process keeps its rate and noise where only the time is given."""
    shutil.copytree(here / "run", here / "rated", dirs_exist_ok=True)
    model, _ = fpflow.load(here / "run" / "model.fpflow")
    rated = fpflow.OrnsteinUhlenbeck(rate=3.0, noise=2.0)
    fpflow.save(here / "rated" / "model.fpflow", model, rated)

    def process(*options):
        arguments = _parser("sample")[0].parse_args(["sample", *options, "--out", "a.npy"])
        return given_model(arguments.model, *asked_process(arguments)).process

    ou = fpflow.OrnsteinUhlenbeck
    assert process("rated") == ou(rate=3.0, noise=2.0)
    assert process("rated", "--t1", "5") == ou(rate=3.0, noise=2.0, t1=5.0)
    assert process("own:score", "--rate", "2") == ou(rate=2.0)
    for other in (("--noise", "1"), ("--process", "own:process"), ("--process", "vp")):
        with pytest.raises(
            ValueError, match="rated was trained with Ornstein.*whose noise it has not"
        ):
            process("rated", *other)
    arguments = _parser("train")[0].parse_args(["train", "--process", "own:process", "--rate", "3"])
    assert process_of(arguments) == ou(rate=3.0, t1=5.0)


def test_a_last_line_that_was_half_written_is_left_out(here):
    """A run that was killed inside a write, or that writes just now."""
    (here / "killed").mkdir()
    whole = (here / "run" / "metrics.jsonl").read_text()
    (here / "killed" / "metrics.jsonl").write_text(whole[:-20])
    assert main(["plot", "killed"]) == 0


def test_samples_of_a_run_whose_data_is_gone(here, capsys):
    """Samples are written; only the comparison with the data is left out."""
    shutil.copytree(here / "run", here / "bereft")
    config = (here / "bereft" / "config.json").read_text()
    for name in ("gone.csv", "line.npy"):
        (here / "bereft" / "config.json").write_text(config.replace("points.csv", name))
        assert main(["sample", "bereft", "-n", "5", "--steps", "5", "--out", f"{name}.npy"]) == 0
        assert np.load(f"{name}.npy").shape == (5, 2)
        assert (
            "note: the samples were not compared with the run's data: " in capsys.readouterr().out
        )


@pytest.mark.parametrize("command", MISTAKES)
def test_mistakes_are_one_line(here, mistakes, command, capsys):
    before = sorted(p.name for p in here.iterdir())
    assert main(command.split()) == 2
    printed = capsys.readouterr()
    assert MISTAKES[command] in printed.err
    assert printed.err.count("\n") == 1 and printed.err.startswith(f"fpflow {command.split()[0]}: ")
    assert sorted(p.name for p in here.iterdir()) == before


def test_the_list_of_commands_says_what_each_says(capsys):
    """The list loads no command, and has its own copy of their first sentences."""
    for name, words in _COMMANDS.items():
        with pytest.raises(SystemExit):
            main([name, "--help"])
        assert f"{words}." in " ".join(capsys.readouterr().out.split())


TABLES = {
    "a,b\n1,2\n3,5\n": 2,
    "# a,b\n\n1,2\n3,5\n": 2,
    "\ufeff1,2\n3,5\n": 2,
    "\ufeffa,b\n1,2\n3,5\n": 2,
    "1,NA\n3,5\n": "line 1, column 2 holds 'NA', which is not a number",
    "1,\n3,5\n": "line 1, column 2 holds nothing",
    "1,2.O\n3,5\n": "line 1, column 2 holds '2.O', which is not a number",
    ",0\n3,5\n": "line 1, column 1 holds nothing",
    "2.O\n3\n5\n": "line 1, column 1 holds '2.O', which is not a number",
    "a,b\n\n1,2 # fine\nx,y\n": "line 4, column 1 holds 'x'",
}


@pytest.mark.parametrize("text", TABLES)
def test_no_row_is_lost_as_a_line_of_names(tmp_path, text):
    path, expected = tmp_path / "table.csv", TABLES[text]
    path.write_text(text, encoding="utf-8")
    if isinstance(expected, str):
        with pytest.raises(ValueError, match=re.escape(expected)):
            read_points(path)
    else:
        np.testing.assert_array_equal(read_points(path)[1], [[1, 2], [3, 5]])


def test_an_index_that_pandas_wrote_gets_a_warning(tmp_path):
    path = tmp_path / "table.csv"
    for names in (",a,b", ",0,1", '"",a,b'):
        path.write_text(f"{names}\n0,1,2\n1,3,5\n")
        with pytest.warns(UserWarning, match="column 0 of .* has no name and counts 0, 1, 2"):
            assert read_points(path)[1].shape == (2, 3)


def test_unknown_options_and_help(capsys):
    for arguments, code in ((["train", "--nonsense"], 2), ([], 2), (["train", "--help"], 0)):
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert stop.value.code == code
    shown = " ".join(capsys.readouterr().out.split())
    assert "sharpness of the softplus 1/beta log(1 + e^beta h)" in shown
    assert "g, in units of x per root of time (ou)" in shown


def test_numbers_that_fail_have_their_own_code(here, capsys, monkeypatch):
    (here / "wild.py").write_text(
        "import jax.numpy as jnp\n\ndef score(t, x):\n    return jnp.where(t > 5, -2 * x, jnp.nan)\n"
    )
    assert main(["sample", "wild:score", "--dim", "2", "--out", "w.npy"]) == 1
    said = capsys.readouterr().err
    assert "an SDE sample is not finite" in said
    # Words of the library become options where the command has them, and only there.
    assert "raise --num-steps" in said and "pass a `stepsize_controller`" in said
    monkeypatch.setenv("FPFLOW_TRACEBACK", "1")
    with pytest.raises(FloatingPointError):
        main(["sample", "wild:score", "--dim", "2", "--out", "w.npy"])


def test_columns_keep_their_names(tmp_path):
    """In the files that are written, without those of the condition; whatever became of the data."""
    path = str(tmp_path / "named.csv")
    write_points(tmp_path / "named.csv", np.arange(6.0).reshape(2, 3), ["height", "age", "dose"])
    names, table = read_points(tmp_path / "named.csv")
    assert names == ["height", "age", "dose"] and table.shape == (2, 3)
    assert names_of(path, None, 3) == names and names_of(path, "dose", 2) == names[:2]
    for other in (None, "own:law", str(tmp_path / "gone.csv")):
        assert names_of(other, None, 3) == []
    assert names_of(path, "nothing", 2) == [] and names_of(path, None, 2) == []
    write_points(tmp_path / "bare.csv", table, [])
    assert names_of(str(tmp_path / "bare.csv"), None, 3) == []


def test_data_of_another_scale_gets_a_word(here, capsys):
    np.save(here / "large.npy", POINTS * [1, 500])
    main(["train", "large.npy", "--run-dir", "large", *SHORT])
    said = capsys.readouterr().out
    assert "column 0 of the data is narrow: its standard deviation is" in said
    assert (
        "while the widest column has a standard deviation of" in said
        and " (a factor of up to 4 is fine). Columns are" in said
    )
    np.save(here / "far.npy", POINTS + np.array([0, 50]))
    main(["train", "far.npy", "--run-dir", "far", *SHORT])
    assert re.search(r"column [01] of the data lies 2\d\.", said := capsys.readouterr().out)
    assert "from the mean of all columns, while the widest column has a standard deviation" in said
    np.save(here / "uneven.npy", POINTS * [1, 15])
    main(["train", "uneven.npy", "--run-dir", "uneven", "--no-standardise", *SHORT])
    assert "Networks train poorly on columns of unequal widths" in capsys.readouterr().out
    main(["train", "large.npy", "--run-dir", "large-bare", "--bare", *SHORT])
    said = capsys.readouterr().out
    assert "column 1 of the data is large" in said and "the network expects 0.71" in said


@pytest.mark.slow
def test_sigterm_saves_and_the_same_command_goes_on(here):
    command = [
        sys.executable, "-m", "fpflow", "train", "points.csv", "--run-dir", "stopped", "--steps",
        "100000", "--chunk", "10", "--batch-size", "16", "--width", "8", "--depth", "1",
    ]  # fmt: skip
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    metrics = here / "stopped" / "metrics.jsonl"
    while not (metrics.exists() and metrics.read_text()):
        assert process.poll() is None
    os.kill(process.pid, signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 143
    assert re.search(r"stopped by SIGTERM after step \d+, saved in .*", said)
    assert "; run the same command with --resume to continue." in said
    assert len(list((here / "stopped" / "checkpoints").iterdir())) == 1


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [(signal.SIGTERM, 143, "stopped by SIGTERM"), (signal.SIGINT, 130, "interrupted")],
    ids=["sigterm", "ctrl-c"],
)
def test_signals_before_the_first_checkpoint_say_so(here, number, code, word, capsys, monkeypatch):
    """The folder is there and its first program not yet compiled; the run then starts anew."""

    def killed(*arguments):
        gc.disable()  # jax's callback of the collector swallows what is raised while it runs
        try:
            signal.raise_signal(number)  # which this thread has seen when it returns
        finally:
            gc.enable()

    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        pytest.skip("Ctrl-C is ignored, as by a shell's job in the background")
    handlers = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)]
    few = ["--steps", "2", "--chunk", "2", "--width", "8", "--depth", "1", "--batch-size", "16"]
    command = ["train", "points.csv", "--run-dir", f"early{code}", *few]
    with monkeypatch.context() as patched:
        patched.setattr(sys.modules["fpflow._train.train"], "init_state", killed)
        assert main(command) == code
    said = capsys.readouterr().err
    assert f"fpflow train: {word}; nothing has been saved yet; the same command " in said
    assert said.count("\n") == 1
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)] == handlers
    assert main([*command, "--resume"]) == 0
    assert "network in" in capsys.readouterr().out


def test_options_say_what_the_docstrings_say():
    """Every option has words and a default, both from the thing that it sets."""
    assert words_of(fpflow.OrnsteinUhlenbeck)["t1"] == "the time T at which data counts as noise"
    assert defaults_of(fpflow.OrnsteinUhlenbeck)["t1"] == 10.0
    assert words_of(fpflow.Window)["low"] == words_of(fpflow.Window)["high"]
    with pytest.raises(KeyError):
        add_options(argparse.ArgumentParser(), fpflow.Window, ("nothing",))


def test_warnings_are_one_line_too(here, capsys):
    command = ["train", "points.npy", "--run-dir", "worn", *SHORT]
    assert main(command) == 0
    newest = here / "worn" / "checkpoints" / "step-000000300.fpflow"
    newest.write_bytes(newest.read_bytes()[:-1])
    assert main([*command, "--resume"]) == 0
    said = capsys.readouterr().err
    assert said.startswith("fpflow train: warning: ") and said.count("\n") == 1
    assert "step-000000300.fpflow cannot be used" in said


def test_samples_that_stray_get_a_word(here, capsys):
    """A far point of the data's own does not count; a hundred widths away does."""
    np.save("near.npy", 1e-3 * POINTS)
    few = ["--steps", "2", "--chunk", "2", "--width", "8", "--depth", "1"]
    main(["train", "near.npy", "--run-dir", "near", *few])
    main(["sample", "near", "-n", "50", "--steps", "10", "--out", "near-out.npy"])
    said = capsys.readouterr().out
    assert "of the samples lie more than half the data's width away from the data" in said


def test_networks_stand_in_the_frame_of_the_process_and_the_data(here):
    """Of the process that was asked for; a bare network corrects nothing."""
    few = ["train", "points.npy", "--steps", "2", "--chunk", "2", "--width", "4", "--depth", "1"]
    assert main([*few, "--run-dir", "wide", "--noise", "2"]) == 0
    assert main([*few, "--run-dir", "bare", "--bare"]) == 0
    model = fpflow.load(here / "wide" / "model.fpflow").model
    assert (model.model.precision, model.frame.process.noise) == (1, 2)
    assert model.frame.scale == pytest.approx(POINTS.std(), rel=0.1)  # of 4096 draws
    assert fpflow.load(here / "bare" / "model.fpflow").model.precision == 0


def test_columns_become_conditions(tmp_path):
    (tmp_path / "d.csv").write_text("a,b,c\n1,2,3\n4,5,7\n")
    np.save(tmp_path / "d.npy", np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 7.0]]))
    for name, columns in (("d.csv", "c,a"), ("d.csv", "2,0"), ("d.npy", "2,0")):
        law = law_of(str(tmp_path / name), columns)
        np.testing.assert_allclose(law.points, [[2.0], [5.0]])
        np.testing.assert_allclose(law.condition, [[3.0, 1.0], [7.0, 4.0]])


@pytest.mark.parametrize(
    ("name", "columns", "words"),
    [
        ("d.csv", "a,b,c", "--condition names every column; leave some for the points"),
        ("d.csv", "d", "--condition must name columns of the data (a, b, c), got 'd'"),
        (
            "d.npy",
            "7",
            "--condition must name columns of the data (numbers starting at 0), got '7'",
        ),
        (
            "circles",
            "0",
            "--condition names columns of a file; a data distribution provides its own conditions",
        ),
    ],
)
def test_columns_that_are_no_conditions_are_refused(tmp_path, monkeypatch, name, columns, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "d.csv").write_text("a,b,c\n1,2,3\n4,5,7\n")
    np.save(tmp_path / "d.npy", np.eye(3))
    with pytest.raises(ValueError, match=re.escape(words)):
        law_of(name, columns)
    with pytest.raises(ValueError, match="--given must be numbers separated by commas, got 'x'"):
        condition_of(
            "x", fpflow.ScoreMLP(2, width=2, depth=1, condition_dim=1, key=jax.random.key(0))
        )


def test_every_process_has_a_name_and_its_settings(here):
    def process(*options):
        arguments = _parser("sample")[0].parse_args(["sample", *options, "--out", "a.npy"])
        return given_model(arguments.model, *asked_process(arguments)).process

    for name, make in BY_NAME.items():
        assert process("own:score", "--process", name) == make()
    vp = process("own:score", "--process", "vp", "--beta-max", "15", "--t1", "0.9")
    assert vp == fpflow.VariancePreserving(fpflow.LinearSchedule(beta_max=15.0), t1=0.9)
    with pytest.raises(
        ValueError, match="--beta-max is not a setting of the process OrnsteinUhlenbeck, which"
    ):
        process("own:score", "--beta-max", "15")
    with pytest.raises(
        ValueError, match="--process must be one of ou, vp, .* or module:name, got 'vq'"
    ):
        process("own:score", "--process", "vq")


def test_what_a_function_predicts_is_an_option(here):
    """Its noise, made a score by the adapter, and not taken for a score."""
    (here / "noise.py").write_text("def noise(t, x):\n    return 0.5 * x\n")
    command = ["sample", "noise:noise", "--prediction", "noise", "--dim", "2", "-n", "20"]
    assert main([*command, "--steps", "5", "--law", "ode", "--out", "noise.npy"]) == 0
    process = fpflow.OrnsteinUhlenbeck()
    model = fpflow.from_noise_prediction(lambda t, x: 0.5 * x, process, dim=2)
    expected = fpflow.sample_ode(model, process, 20, num_steps=5, key=jax.random.key(0))
    np.testing.assert_allclose(np.load("noise.npy"), expected, rtol=1e-6)


def test_a_network_is_trained_on(here):
    few = ["--steps", "2", "--chunk", "2", "--batch-size", "64", "--peak", "1e-9"]
    assert main(["train", "points.npy", "--start", "run", "--run-dir", "on", *few]) == 0
    before, after = (fpflow.load(here / run / "model.fpflow") for run in ("run", "on"))
    assert before.process == after.process
    a, b = (jax.tree.leaves(eqx.filter(m.model, eqx.is_inexact_array)) for m in (before, after))
    np.testing.assert_allclose(a[0], b[0], atol=1e-6)  # a step of Soap is no longer than its rate
    assert (np.asarray(a[0]) != b[0]).any()


def test_a_conditional_network_from_the_command_line(here, capsys, monkeypatch):
    table = np.random.default_rng(0).normal(size=(200, 3))
    np.savetxt("table.csv", table, delimiter=",", header="a,b,c", comments="")
    few = ["--steps", "4", "--chunk", "2", "--width", "8", "--depth", "1", "--batch-size", "64"]
    assert main(["train", "table.csv", "--condition", "b", "--run-dir", "cond", *few]) == 0
    assert "next: fpflow sample cond --given=0.0175 --law sde" in capsys.readouterr().out
    assert main(["sample", "cond", "--given", "0.3", "-n", "5", "--out", "c.npy"]) == 0
    assert np.load("c.npy").shape == (5, 2)
    assert main(["sample", "cond", "-n", "5", "--out", "c.npy"]) == 2
    assert "needs a condition of shape (1,)" in capsys.readouterr().err
    # The run's points have other conditions; a report of one needs none.
    asked = unittest.mock.MagicMock()
    monkeypatch.setattr("fpflow._cli.report.gap_report", asked)
    assert main(["report", "cond", "--given", "0.3"]) == 0
    assert asked.call_args.args[2] is None
    np.save("own.npy", table[:, :2])
    assert main(["report", "cond", "own.npy", "--given", "0.3"]) == 0
    assert asked.call_args.args[2].points.shape == (200, 2)
