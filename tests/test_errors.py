"""Every message of an error or a warning is read by a test: here those that no other test reads."""

import ast
import inspect
import pathlib
import re
import warnings

import diffrax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import fpflow
from fpflow import _files
from fpflow._cli import main
from fpflow._model.network import precision_of
from fpflow._report.split import split_on_grid
from fpflow._reproduce.options import parse_arguments
from fpflow._run import Run, open_run
from known import OU, LinearScore
from test_run import _sealed

TESTS = pathlib.Path(__file__).parent
SOURCE = TESTS.parent / "src" / "fpflow"

# A test reads a message where it holds so many characters of it in a row.
RUN = 12

# What carries a message besides the calls in a `raise`.
CARRIERS = ("refuse", "warn", "parser.error", "super().__init__", "_say")


def pieces_of(node):
    """The constant pieces of a message, in order."""
    if isinstance(node, ast.Constant):
        return [node.value] if isinstance(node.value, str) else []
    inner = node.values if isinstance(node, ast.JoinedStr) else ast.iter_child_nodes(node)
    return [
        piece for part in inner if not isinstance(part, ast.FormattedValue)
        for piece in pieces_of(part)
    ]  # fmt: skip


def hints_in(message, function):
    """Constants that a message may hold by way of a variable."""
    values = [n for n in ast.walk(message) if isinstance(n, ast.FormattedValue)]
    names = {n.id for value in values for n in ast.walk(value) if isinstance(n, ast.Name)}
    for node in ast.walk(function):
        if isinstance(node, ast.Assign) and {ast.unparse(t) for t in node.targets} & names:
            yield from ([piece] for piece in pieces_of(node.value) if len(piece) >= RUN)


def messages_in(scope):
    """The line and the pieces of every message in a function or a file."""
    for node in ast.walk(scope):
        call = node.exc if isinstance(node, ast.Raise) else node
        if not isinstance(call, ast.Call):
            continue
        if call is node and ast.unparse(call.func) not in CARRIERS:
            continue
        for argument in call.args:
            hints = () if isinstance(scope, ast.Module) else hints_in(argument, scope)
            for pieces in (pieces_of(argument), *hints):
                if any(re.search(r"\w", piece) for piece in pieces):
                    yield call.lineno, pieces


def messages():
    """The place and the pieces of every message in the sources."""
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        tree = ast.parse(path.read_text())
        for scope in ast.walk(tree):
            if isinstance(scope, ast.Module | ast.FunctionDef):
                for line, pieces in messages_in(scope):
                    place = f"{path.relative_to(SOURCE.parent.parent)}:{line}"
                    found[place, tuple(pieces)] = None
    return list(found)


def texts():
    """Every string of the tests but the docstrings, without the escapes of patterns."""
    for path in TESTS.glob("*.py"):
        tree = ast.parse(path.read_text())
        bare = {n.value for n in ast.walk(tree) if isinstance(n, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in bare:
                yield re.sub(r"\\(\W)", r"\1", node.value)


def runs_of(pieces):
    """Everything of the length of a run that stands in one of the pieces."""
    return {p[k : k + RUN] for p in pieces for k in range(len(p) - RUN + 1)}


def test_every_message_is_read():
    """A message that shares a run with another is read by what it has alone."""
    found, text = messages(), "\n".join(texts())
    assert len(found) > 150
    runs = [runs_of(pieces) for _, pieces in found]
    unread = []
    for (place, pieces), own in zip(found, runs, strict=True):
        others = (r for r, (_, p) in zip(runs, found, strict=True) if p != pieces)
        alone = own.difference(*others)
        if own:
            read = any(run in text for run in alone or own)
        else:  # all pieces are short: one after the other
            read = re.search(".{1,60}".join(re.escape(p) for p in pieces if p.strip()), text)
        if not read:
            unread.append(f"{place}: {' ... '.join(pieces)}")
    assert not unread, "messages that no test reads:\n" + "\n".join(unread)


LINE = fpflow.datasets.GaussianMixture([[-1.0], [0.1]], 0.1)
LAYERS = [(np.ones((4, 3)), np.zeros(4)), (np.ones((2, 4)), np.zeros(2))]
NETWORK = fpflow.ScoreMLP(2, width=4, depth=1, key=jr.key(0))
X, KEY = np.zeros((3, 2)), jr.key(0)


class Plain:
    """A score made of a function."""

    dim = 2

    def __init__(self, score):
        self.score = score


def blown_up(t, x):
    return x * jnp.where(t < 5, jnp.nan, 1.0)


def whirl(t, x):
    """Rings that turn at different speeds."""
    return -2 * x + 5 * jnp.sin(2 * x @ x) * jnp.stack([-x[1], x[0]])


def trained(**settings):
    return fpflow.train.__wrapped__(NETWORK, OU, np.eye(2), num_steps=1, key=KEY, **settings)


def weighted(log_target):
    return inspect.unwrap(fpflow.importance_sample)(NETWORK, OU, log_target, 5, key=KEY)


TOLD = fpflow.Transformed(
    fpflow.PotentialMLP(2, condition_dim=1, key=KEY),
    fpflow.Standardise.of(np.eye(2)),
    fpflow.Standardise.of(np.arange(4.0)[:, None]),
)

ARGUMENTS = {
    "got ScoreMLP: the residual is defined for a potential.": lambda: (
        fpflow.theorem_one.__wrapped__(NETWORK, OU)
    ),
    "a potential; for a score, pass `residual=fpflow.score_fp_residual`": lambda: (
        fpflow.residual_norm.__wrapped__(NETWORK, OU, key=KEY)
    ),
    "`divergence=ThroughResidual()` needs a model with `potential(t, x)`, got ScoreMLP": lambda: (
        fpflow.log_prob_ode(NETWORK, OU, X, divergence=fpflow.ThroughResidual())
    ),
    "`target_error` must be positive, got -1.0": lambda: (
        fpflow.log_prob_sde(NETWORK, OU, X, target_error=-1.0, key=KEY)
    ),
    "give either `stepsize_controller`, which chooses its own steps, or": lambda: (
        fpflow.sample_ode(
            NETWORK, OU, 5, num_steps=5, key=KEY,
            stepsize_controller=diffrax.PIDController(1e-3, 1e-3),
        )
    ),
    "`model.score` fails at points of shape (3,)": lambda: (
        fpflow.sample_ode(NETWORK, OU, 5, dim=3, key=KEY)
    ),
    "`condition` must be one condition, shape (condition_dim,), got (5, 1)": lambda: (
        fpflow.given(TOLD, np.zeros((5, 1)))
    ),
    "taken as one point: the transform is for 1 columns, the points have 2": lambda: (
        fpflow.given(TOLD, np.zeros(2))
    ),
    "got a tuple of arrays of shapes (9, 2), (9,); pass its first, `data[0]`, or": lambda: (
        fpflow.datasets.as_data((np.zeros((9, 2)), np.zeros(9)))
    ),
    "`log_target` must be written with `jax.numpy`, which JAX can trace, instead of": lambda: (
        weighted(lambda x: -(np.asarray(x) ** 2).sum())
    ),
    "`log_target` fails at one point, shape (2,): ": lambda: weighted(lambda x: x @ jnp.ones(3)),
    "`log_target` must return one number at one point, got shape (2,)": lambda: weighted(jnp.abs),
    "`model.score` must return shape (2,), got ()": lambda: (
        fpflow.sample_ode(Plain(lambda t, x: x.sum()), OU, 5, key=KEY)
    ),
    "which JAX can trace, instead of `numpy`, or pass it through `fpflow.from_callback`.": lambda: (
        fpflow.sample_ode(Plain(lambda t, x: -np.asarray(x)), OU, 5, key=KEY)
    ),
    "got function; wrap a function in `fpflow.ScoreFunction`.": lambda: (
        inspect.unwrap(fpflow.sample)(fpflow.ODE(), whirl, OU, 5, dim=2, key=KEY)
    ),
    "`prior` must be an `IsotropicGaussian`, as `process.prior` is, or `None`, got float": lambda: (
        precision_of.__wrapped__(0.5)
    ),
    "`precision` must be finite and not negative, got -1.0": lambda: (
        fpflow.ScoreMLP.from_layers(LAYERS, precision=-1.0)
    ),
    "`depth` must be at least 1, got 0": lambda: fpflow.PotentialMLP(2, depth=0, key=KEY),
    "`layers` must hold at least two (weight, bias) pairs, got 0": lambda: (
        fpflow.ScoreMLP.from_layers([])
    ),
    "`num_paths` must be at most 2147483647, got": lambda: (
        fpflow.log_prob_sde(NETWORK, OU, X, num_paths=2**40, key=KEY)
    ),
    "`fp_weight` must be finite and not negative, got nan": lambda: trained(fp_weight=np.nan),
    "`num_points` must be at least 2, so that they have a spread": lambda: (
        fpflow.ReportSettings(num_points=1)
    ),
    "`points` must hold at least two points, so that they have a spread, got 1": lambda: (
        fpflow.gap_report(NETWORK, OU, points=jnp.zeros((1, 2)), key=KEY)
    ),
    "`settings.window` is for dimensions one and two, the data has dimension 3": lambda: (
        fpflow.ReportSettings(window=fpflow.Window()).in_dimension(3)
    ),
}  # fmt: skip


@pytest.mark.parametrize("words", ARGUMENTS)
def test_arguments_are_refused(words):
    with pytest.raises(ValueError, match=re.escape(words)):
        ARGUMENTS[words]()


def test_samples_far_from_the_data_are_refused():
    law = fpflow.datasets.circles().cell_probabilities(fpflow.Window(nodes=8))
    with pytest.raises(
        ValueError, match=r"none of the 2 ODE samples lies in Window\(.*, which hold"
    ):
        split_on_grid(X + 9, X, law, law, 2, np.random.default_rng(0))


def test_scores_that_blow_up_are_told():
    model = Plain(blown_up)
    model.dim = 1
    with pytest.raises(FloatingPointError, match="the score or its flow is not finite at some of"):
        fpflow.kl_account(model, OU, LINE, num_points=4, num_steps=2, key=KEY)


def test_transport_that_fails_is_told(monkeypatch):
    mass, window = np.full((4, 4), 1 / 16), fpflow.Window(nodes=4)
    with pytest.raises(
        FloatingPointError, match=r"Sinkhorn failed at `epsilon` = 1e\+308; choose another"
    ):
        fpflow.w2_grid(mass, mass, window, method=fpflow.Sinkhorn(epsilon=1e308))
    failing = lambda *arguments, **settings: (0.0, {"warning": "infeasible"})
    monkeypatch.setattr("ot.emd", failing)
    with pytest.raises(RuntimeError, match="the network simplex found no plan; try `method=Sink"):
        fpflow.w2_grid(mass, mass, window)


def test_data_far_from_one_get_a_warning():
    """Trained as they come; a network in a frame or with a transform sees other numbers."""
    far = 500.0 + np.random.default_rng(0).normal(size=(64, 2))
    plain = fpflow.PotentialMLP(2, width=4, depth=1, key=KEY)
    asked = {"num_steps": 1, "batch_size": 8, "key": KEY}
    with pytest.warns(UserWarning, match="of the data has a root mean square of 500") as told:
        fpflow.train(plain, OU, far, **asked)
    assert "networks expect about one: training will fail or take very long." in str(
        told[0].message
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fpflow.train(fpflow.Transformed(plain, fpflow.Standardise.of(far)), OU, far, **asked)
        on_prior = fpflow.PotentialMLP(
            2, width=4, depth=1, prior=fpflow.IsotropicGaussian(), key=KEY
        )
        fpflow.train(fpflow.in_frame(on_prior, OU, centre=500.0), OU, far, **asked)


def test_doubtful_densities_get_a_warning():
    with pytest.warns(
        UserWarning, match="the density of the ODE on the grid may have an error of .* total"
    ):
        fpflow.grid_density_ode(
            Plain(whirl), fpflow.OrnsteinUhlenbeck(t1=2.0), fpflow.Window(nodes=4)
        )
    model = LinearScore(jnp.array([[2.4]]))
    words = (
        "the standard error stays above 1.5 times `target_error` = 1e-09 at 1 of 1 points, which used "
        "up to 4 paths; raise `num_paths` above 4"
    )
    with pytest.warns(UserWarning, match=words):
        fpflow.log_prob_sde(
            model, OU, jnp.ones((1, 1)), num_paths=4, num_steps=4, target_error=1e-9, key=KEY
        )
    words = "the finite steps of the paths change log p_SDE by more than 2e-09 nats at 1 of 1 points, by"
    with pytest.warns(UserWarning, match=words):
        fpflow.log_prob_sde(
            model, OU, jnp.ones((1, 1)), num_paths=4, num_steps=4, target_error=1e-9, key=KEY
        )


FILES = {
    "it does not begin like a file written by fpflow": b"fpflow" * 20,
    f"its header claims {2**40} bytes": _sealed({}, b"", 2**40),
    "its SHA-256 does not match its content": _sealed({}, b"")[:-1] + b"?",
    "its header is not JSON: ": _sealed({"format": 2}, b"", 3),
    "its header is not a JSON object": _sealed([], b""),
    "it holds 'Other' of format 2, not a model saved by": _sealed(
        {"kind": "Other", "format": 2}, b""
    ),
}  # fmt: skip


@pytest.mark.parametrize("words", FILES)
def test_damaged_models_are_refused(tmp_path, words):
    (tmp_path / "model.fpflow").write_bytes(FILES[words])
    with pytest.raises(fpflow.DamagedFile, match=re.escape(words)):
        fpflow.load(tmp_path / "model.fpflow")


@pytest.mark.parametrize(
    ("array", "shapes", "words"),
    [
        (np.ones(3), [((3,), "float64")] * 2, "it holds 1 arrays, not 2"),
        (np.ones(2000), [((3,), "float64")], r"arr_0\.npy has 16128 bytes"),
        (
            np.ones(3),
            [((2,), "float32")],
            r"array 0 has shape \(3,\) and type float64, not \(2,\) and float32",
        ),
    ],
)
def test_other_arrays_are_refused(tmp_path, array, shapes, words):
    _files.write_arrays(tmp_path / "file", {}, [array])
    with pytest.raises(fpflow.DamagedFile, match=words):
        _files.read_arrays(tmp_path / "file", lambda header: shapes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format": 99}, "it is not a checkpoint of format 1"),
        ({"loss": None}, "its header has None for `loss`"),
        ({"step": 7}, "it holds step 7"),
        ({"tree": "0"}, "its model or optimiser has another architecture"),
        ({"fingerprint": "0"}, "it belongs to a run with other settings"),
    ],
)
def test_checkpoints_of_another_kind_are_refused(tmp_path, changes, words):
    run, state = (
        Run(tmp_path, {}, ("step", "loss", "dsm", "seconds"), keep=2),
        {"weight": jnp.ones(3)},
    )
    run.checkpoints.mkdir()
    run.save(1, state, [(1, 0.5, 0.0, 0.1)], 0.5)
    newest = run.save(2, state, [(1, 0.5, 0.0, 0.1), (2, 0.4, 0.0, 0.2)], 0.4)
    header = {**_files._parts(newest.read_bytes())[0], **changes}
    _files.write_arrays(newest, header, [np.ones(3), np.ones((2, 4))])
    with pytest.raises(fpflow.DamagedFile, match=f"000000002.fpflow cannot be used: {words}."):
        run.read(newest, state)
    with pytest.warns(UserWarning, match=f"{words}. Trying an older one."):
        _, intervals = run.newest(state)
    assert len(intervals) == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [("{", "config.json is not JSON: Expecting"), ("[]", " is not a JSON object.")],
)
def test_runs_without_settings_are_refused(tmp_path, text, words):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(fpflow.DamagedFile, match=words):
        open_run(tmp_path, {}, columns=("step",), resume=True, keep=1)


COMMANDS = {
    "sample math:nothing": (2, "module 'math' has no 'nothing'."),
    "sample torn": (2, "torn/config.json is not JSON: Expecting"),
    "sample tired:score": (130, "interrupted; finished work is kept."),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_end_in_one_line(tmp_path, monkeypatch, command, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "config.json").write_text("{")
    (tmp_path / "tired.py").write_text("def score(t, x):\n    raise KeyboardInterrupt\n")
    code, words = COMMANDS[command]
    assert main([*command.split(), "--dim", "2", "--out", "a.npy"]) == code
    assert words in capsys.readouterr().err


def test_a_page_without_the_markers_is_refused(tmp_path, capsys):
    (tmp_path / "page.md").write_text("# Results\n")
    with pytest.raises(SystemExit):
        parse_arguments(["--page", str(tmp_path / "page.md")])
    assert "--page must be a file with the line <!--" in capsys.readouterr().err
