"""Run folders: training goes on bit for bit after any death, and damaged files are refused."""

import functools
import hashlib
import io
import json
import multiprocessing
import os
import pathlib
import pickle
import random
import signal
import subprocess
import sys
import threading
import time
import types
import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest

import fpflow
from fpflow import _files
from fpflow._run import Run, describe
from fpflow._train.step import init_state
from known import OU

POINTS = np.random.default_rng(0).normal(size=(200, 2))
STEPS, CHUNK = 400, 5


def run(folder, *, resume=False, num_steps=STEPS, key=1, width=4, log_fn=None, **settings):
    """A small run with a checkpoint after every chunk."""
    model = fpflow.PotentialMLP(2, width=width, depth=1, key=jr.key(0))
    settings = {"chunk": CHUNK, "checkpoint_every": CHUNK, **settings}
    return fpflow.train(
        model, OU, POINTS, num_steps=num_steps, batch_size=16, fp_weight=0.1, run_dir=folder,
        resume=resume, log_fn=log_fn, progress=False, key=jr.key(key), **settings,
    )  # fmt: skip


def bits(result):
    """Every array of a result, as bytes."""
    leaves = jax.tree.leaves(eqx.filter((result.model, result.last), eqx.is_array))
    return b"".join(np.asarray(leaf).tobytes() for leaf in leaves)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run that nobody interrupts."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    return folder, run(folder)


def test_a_run_leaves_its_folder(whole):
    folder, result = whole
    names = {p.name for p in folder.iterdir()}
    assert names == {
        "config.json", "environment.json", "metrics.jsonl", "checkpoints", "figures", "model.fpflow",
    }  # fmt: skip
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(CHUNK, STEPS + 1, CHUNK))
    np.testing.assert_array_equal([row["dsm"] for row in rows], result.history["dsm"])
    config = json.loads((folder / "config.json").read_text())["training"]
    assert config["num_steps"] == STEPS and config["process"]["kind"] == "OrnsteinUhlenbeck"
    assert config["optimiser"] == {"kind": "Soap", **describe(fpflow.Soap())}
    versions = json.loads((folder / "environment.json").read_text())["versions"]
    assert versions["jax"] == jax.__version__
    saved = fpflow.load(folder / "model.fpflow").model
    x = jnp.array([0.3, -0.2])
    np.testing.assert_array_equal(saved.score(0.5, x), result.model.score(0.5, x))
    plain = run(None)
    assert bits(plain) == bits(result)


def test_the_last_and_the_best_checkpoints_are_kept(whole):
    folder, _ = whole
    steps = sorted(int(p.name[5:14]) for p in (folder / "checkpoints").iterdir())
    assert steps[-3:] == [STEPS - 2 * CHUNK, STEPS - CHUNK, STEPS] and len(steps) <= 4
    losses = {}
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        losses[row["step"]] = row["dsm"] + 0.1 * row["fp"]
    assert min(losses, key=losses.get) in steps


def _child(folder, moment, started, double_precision):
    """A run in a process of its own that may kill itself inside a write."""
    jax.config.update("jax_enable_x64", double_precision)
    # All children run one program; only the first compiles it.
    jax.config.update("jax_compilation_cache_dir", str(folder.parent / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    writes = iter(range(10**9))
    if moment is not None:
        place, count = moment
        real = getattr(os, place)

        def deadly(*arguments):
            if next(writes) == count:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments)

        setattr(_files.os, place, deadly)
    run(folder, log_fn=lambda step, metrics: started.set())


@pytest.mark.slow
def test_every_death_is_survived_bit_for_bit(whole, tmp_path):
    """Kill -9 at twenty moments, eight of them inside the writing of a file."""
    _, expected = whole
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["fpflow"])
    draw = random.Random(0)
    moments = [None] * 12 + [(place, k) for place in ("fsync", "replace") for k in (3, 4, 31, 60)]
    cut, double = 0, jax.config.read("jax_enable_x64")
    for number, moment in enumerate(moments):
        folder, started = tmp_path / f"run{number}", context.Event()
        process = context.Process(target=_child, args=(folder, moment, started, double))
        process.start()
        if moment is None:
            assert started.wait(120)
            time.sleep(draw.uniform(0, 1.0))
            process.kill()
        process.join(120)
        assert process.exitcode in (-signal.SIGKILL, 0)
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # what a death leaves is never damaged
            resumed = run(folder, resume=True)
        cut += process.exitcode != 0
        assert bits(resumed) == bits(expected), f"death {number}, {moment}"
        steps = [
            json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()
        ]
        assert steps == list(range(CHUNK, STEPS + 1, CHUNK))
        assert not list(folder.rglob("*.partial"))
    # Some random moments come after the end of so short a run; most must not.
    assert cut >= 15


def _corrupted(content, other, draw):
    """Ways to spoil a file, by name: content and what it is called."""
    start = len(_files.MAGIC) + 8
    header = int.from_bytes(content[len(_files.MAGIC) : start], "little")
    regions = {
        "magic": (0, len(_files.MAGIC)), "length": (len(_files.MAGIC), start),
        "header": (start, start + header), "payload": (start + header, len(content) - 32),
        "digest": (len(content) - 32, len(content)),
    }  # fmt: skip
    for name, (low, high) in regions.items():
        for _ in range(80):
            spoiled = bytearray(content)
            spoiled[draw.randrange(low, high)] ^= 1 << draw.randrange(8)
            yield f"a bit in the {name}", bytes(spoiled)
    for _ in range(50):
        yield "cut", content[: draw.randrange(len(content))]
    for _ in range(25):
        yield "longer", content + draw.randbytes(draw.randrange(1, 5000))
    for _ in range(10):
        at = draw.randrange(len(content))
        yield "longer inside", content[:at] + draw.randbytes(64) + content[at:]
    yield "the file of another run", other


class _Trap:
    """Makes itself known when a pickle of it is opened."""

    def __reduce__(self):
        return (pathlib.Path("executed").touch, ())


def _sealed(header, payload, length=None):
    """A frame with a right digest about anything."""
    text = json.dumps(header).encode()
    length = len(text) if length is None else length
    content = _files.MAGIC + length.to_bytes(8, "little") + text + payload
    return content + hashlib.sha256(content).digest()


def _forged(header, payload):
    """Files with a right digest whose content is wrong."""
    objects = io.BytesIO()
    np.savez(objects, *[np.array([_Trap()], dtype=object) for _ in range(40)])
    yield "object arrays", _sealed(header, objects.getvalue())
    yield "a bare pickle", _sealed(header, pickle.dumps(_Trap()))
    few = io.BytesIO()
    np.savez(few, np.zeros(3))
    yield "too few arrays", _sealed(header, few.getvalue())
    yield "no payload", _sealed(header, b"")
    yield "an oversized header", _sealed({**header, "padding": "x" * 2**21}, payload)
    for length in (2**63, 2**40, 0, 10**6):
        yield "a header of another length", _sealed(header, payload, length)
    yield "a header that is a list", _sealed([header], payload)
    for name, value in (("step", 7), ("tree", "0" * 64), ("fingerprint", "0" * 64),
                        ("format", 99), ("kind", "PotentialMLP")):  # fmt: skip
        yield f"another {name}", _sealed({**header, name: value}, payload)
    for name in ("step", "tree", "fingerprint", "kind", "intervals", "loss"):
        yield f"no {name}", _sealed({k: v for k, v in header.items() if k != name}, payload)
    for value in (-1, 10**12, "many", None, 3):
        yield "a wrong number of intervals", _sealed({**header, "intervals": value}, payload)


def test_corrupted_checkpoints_are_refused_and_the_one_before_is_used(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run("run", num_steps=20)
    run("other", num_steps=20, key=2)
    folder = tmp_path / "run" / "checkpoints"
    newest, before = folder / "step-000000020.fpflow", folder / "step-000000015.fpflow"
    content = newest.read_bytes()
    model = fpflow.PotentialMLP(2, width=4, depth=1, key=jr.key(0))
    like = init_state(model, fpflow.Soap())
    config = json.loads((tmp_path / "run" / "config.json").read_text())["training"]
    opened = Run(tmp_path / "run", config, ("step", "loss", "dsm", "fp", "seconds"), keep=3)
    good, rows = opened.newest(like)
    assert int(good.step) == 20 and len(rows) == 4
    header, payload = _files._parts(content)
    other = (tmp_path / "other" / "checkpoints" / newest.name).read_bytes()
    draw, refused = random.Random(1), 0
    cases = [*_corrupted(content, other, draw), *_forged(header, payload)]
    cases.append(("swapped with another step", before.read_bytes()))
    for name, spoiled in cases:
        if spoiled == content:
            continue
        newest.write_bytes(spoiled)
        try:
            opened.read(newest, like)
        except fpflow.DamagedFile as error:
            assert f"{newest.name} cannot be used: " in str(error), name
        else:
            pytest.fail(f"{name} was read")
        refused += 1
    assert refused >= 500 and not (tmp_path / "executed").exists()
    # Through the front door: a warning that names the file, and the same end.
    newest.write_bytes(content[:-100])
    with pytest.warns(UserWarning, match=r"step-000000020.fpflow cannot be used: its SHA-256"):
        resumed = run("run", num_steps=20, resume=True)
    assert bits(resumed) == bits(run(None, num_steps=20))
    wide = init_state(fpflow.PotentialMLP(2, width=5, depth=1, key=jr.key(0)), fpflow.Soap())
    with pytest.raises(fpflow.DamagedFile, match="has another architecture"):
        opened.read(newest, wide)


def test_where_no_checkpoint_is_whole_nothing_starts_anew(tmp_path):
    run(tmp_path / "run", num_steps=10)
    for path in (tmp_path / "run" / "checkpoints").iterdir():
        path.write_bytes(b"fpflow" * 9)
    with (
        pytest.warns(UserWarning, match="does not begin like a file written by fpflow"),
        pytest.raises(fpflow.DamagedFile, match="none of the 2 checkpoints in .* can be used"),
    ):
        run(tmp_path / "run", num_steps=10, resume=True)


def test_folders_of_other_runs_are_refused(tmp_path):
    run(tmp_path / "run", num_steps=10)
    with pytest.raises(ValueError, match="already holds a run; pass `resume=True`"):
        run(tmp_path / "run", num_steps=10)
    with pytest.raises(ValueError, match="other settings: num_steps 10, now 20"):
        run(tmp_path / "run", num_steps=20, resume=True)
    with pytest.raises(ValueError, match=r"other settings: model\.network\.weights"):
        run(tmp_path / "run", num_steps=10, width=5, resume=True)
    rates = [optax.chain(optax.clip(1.0), optax.scale(rate)) for rate in (0.1, 0.25)]
    run(tmp_path / "chain", num_steps=10, optimiser=rates[0])
    with pytest.raises(ValueError, match=r"other settings: optimiser.*0\.1.*, now .*0\.25"):
        run(tmp_path / "chain", num_steps=10, optimiser=rates[1], resume=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="`run_dir` must be a folder, and .* is a file"):
        run(tmp_path / "file", num_steps=10)
    with pytest.raises(ValueError, match="`resume=True` needs the `run_dir`"):
        run(None, num_steps=10, resume=True)
    for text, words in (("{", "is not JSON"), ("[]", "is not a JSON object")):
        (tmp_path / "run" / "config.json").write_text(text)
        with pytest.raises(fpflow.DamagedFile, match=words):
            run(tmp_path / "run", num_steps=10, resume=True)
    again = run(tmp_path / "new", num_steps=10, resume=True)
    assert again.history.step[-1] == 10


def test_a_finished_run_is_read_and_not_run_again(tmp_path):
    first = run(tmp_path / "run", num_steps=10)
    seen = []
    second = run(tmp_path / "run", num_steps=10, resume=True, log_fn=lambda *row: seen.append(row))
    assert bits(first) == bits(second) and not seen
    np.testing.assert_array_equal(first.history["dsm"], second.history["dsm"])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
def test_signals_save_and_say_where(tmp_path, number):
    def interrupt(step, metrics):
        if step == 10:
            os.kill(os.getpid(), number)

    handler = signal.getsignal(number)
    with pytest.raises(
        fpflow.TrainingInterrupted, match=r"after step 10, saved in .*step-000000010"
    ):
        run(tmp_path / "run", num_steps=20, checkpoint_every=1000, log_fn=interrupt)
    assert signal.getsignal(number) is handler
    resumed = run(tmp_path / "run", num_steps=20, checkpoint_every=1000, resume=True)
    assert bits(resumed) == bits(run(None, num_steps=20))


def test_threads_and_hooks(tmp_path):
    """Outside the main thread no signal is asked for; the hook sees every chunk."""
    seen = []
    thread = threading.Thread(
        target=lambda: run(
            tmp_path / "run", num_steps=10, log_fn=lambda step, row: seen.append((step, row))
        )
    )
    thread.start()
    thread.join()
    assert [step for step, _ in seen] == [5, 10]
    assert set(seen[0][1]) == {"loss", "dsm", "fp", "rate", "seconds"}
    row = seen[1][1]
    assert row["loss"] == pytest.approx(row["dsm"] + 0.1 * row["fp"])


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    _files.write_whole(path, b"old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(_files.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        _files.write_whole(path, b"new")
    assert path.read_bytes() == b"old" and [p.name for p in tmp_path.iterdir()] == ["file"]


def test_descriptions_tell_runs_apart():
    """Different settings, different words; the same settings, the same."""
    a = describe({"f": fpflow.Cosine(), "x": POINTS, "key": jr.key(3), "w": np.float32(0.5)})
    assert a == json.loads(json.dumps(a))
    assert a["x"]["shape"] == [200, 2] and a["key"] == [0, 3] and a["w"] == 0.5
    assert describe(POINTS) != describe(POINTS + 1e-12)
    assert describe(fpflow.likelihood_weighting).endswith(":likelihood_weighting")
    assert describe(float("nan")) == "nan" and describe(object()) == {"kind": "object"}
    rates = [describe(optax.scale_by_lion(b1=b1)) for b1 in (0.9, 0.9, 0.8)]
    assert rates[0] == rates[1] != rates[2]
    assert describe(threading.local()) == {"kind": "_local"}
    assert describe(functools.partial(np.clip, 0)) != describe(functools.partial(np.clip, 1))
    assert describe({1, 2}) == describe({2, 1}) != describe({1, 3})
    law = types.SimpleNamespace(scale=2.0)
    law.itself = law
    assert describe(law) == {
        "kind": "SimpleNamespace", "scale": 2.0, "itself": {"kind": "SimpleNamespace", "seen": True},
    }  # fmt: skip


def _made(scale):
    return lambda t: scale * t


class _Law:
    def __init__(self, scale):
        self.scale = scale

    def weight(self, t):
        return self.scale * t


PAIRS = {
    "constants": (lambda t: 2 * t, lambda t: 3 * t),
    "operations": (lambda t: 2 * t, lambda t: 2 + t),
    "names": (lambda t: jnp.sin(t), lambda t: jnp.cos(t)),
    "inner functions": (lambda t: (lambda s: s + 1)(t), lambda t: (lambda s: s + 2)(t)),
    "globals": (lambda t: STEPS * t, lambda t: CHUNK * t),
    "sets": (lambda t: t in {"a", "b"}, lambda t: t in {"a", "c"}),
    "defaults": (lambda t, k=1: k * t, lambda t, k=2: k * t),
    "keyword defaults": (lambda t, *, k=1: k * t, lambda t, *, k=2: k * t),
    "closures": (_made(2.0), _made(3.0)),
    "arguments": (functools.partial(pow, 2), functools.partial(pow, 3)),
    "keywords": (functools.partial(pow, exp=2), functools.partial(pow, exp=3)),
    "partial functions": (functools.partial(max, 2), functools.partial(min, 2)),
    "bound methods": (_Law(2.0).weight, _Law(3.0).weight),
}


@pytest.mark.parametrize("name", PAIRS)
def test_descriptions_tell_functions_apart(name):
    first, second = map(describe, PAIRS[name])
    assert first != second and first == json.loads(json.dumps(first))


def test_descriptions_are_those_of_another_process():
    """Neither addresses nor the order of a set, which differ from process to process."""
    code = "import json, test_run; print(json.dumps([*map(test_run.describe, test_run.SOME)]))"
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    printed = subprocess.run(
        [sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True
    )
    assert json.loads(printed.stdout) == [describe(value) for value in SOME]


SOME = [pair[0] for pair in PAIRS.values()] + [optax.scale_by_lion(), {"a", "b", "c"}]


def _hold(folder, held, free):
    jax.config.update("jax_enable_x64", True)

    def wait(step, metrics):
        held.set()
        free.wait(60)

    run(folder, num_steps=5, log_fn=wait)


@pytest.mark.slow
def test_two_processes_do_not_share_a_folder(tmp_path):
    """The second is refused and writes nothing; the lock dies with the first, by whatever death."""
    context = multiprocessing.get_context("forkserver")
    held, free = context.Event(), context.Event()
    process = context.Process(target=_hold, args=(tmp_path / "run", held, free))
    process.start()
    assert held.wait(120)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "run").rglob("*")}
    for resume in (False, True):
        with pytest.raises(
            ValueError, match="another process is training in `run_dir` = .*; wait for it"
        ):
            run(tmp_path / "run", num_steps=5, resume=resume)
    assert before == {p: p.stat().st_mtime_ns for p in (tmp_path / "run").rglob("*")}
    process.kill()
    process.join()
    assert bits(run(tmp_path / "run", num_steps=5, resume=True)) == bits(run(None, num_steps=5))


def test_settings_without_results_block_nothing(tmp_path, monkeypatch):
    """A run that died before its first checkpoint starts anew, with other settings too."""

    def died(*arguments):
        raise MemoryError

    with monkeypatch.context() as patched, pytest.raises(MemoryError):
        patched.setattr(sys.modules["fpflow._train.train"], "run_chunk", died)
        run(tmp_path / "run", num_steps=5)
    again = run(tmp_path / "run", num_steps=10)
    assert again.history.step[-1] == 10
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["training"]["num_steps"] == 10
    # A finished network alone is worth keeping too.
    for path in (tmp_path / "run" / "checkpoints").iterdir():
        path.unlink()
    with pytest.raises(ValueError, match="already holds a run"):
        run(tmp_path / "run", num_steps=10)
