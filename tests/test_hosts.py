"""Two processes over the loopback: what one computes, one folder, one end for both."""

import json
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

import fpflow
from fpflow import _hosts

pytestmark = pytest.mark.slow

# `jax.distributed` comes before everything else of jax, hence processes of their own.
CODE = """
import os, signal, sys
import jax
what, folder, process, number, port = *sys.argv[1:3], *map(int, sys.argv[3:])
if number > 1:
    jax.distributed.initialize(
        f"127.0.0.1:{port}", number, process, heartbeat_timeout_seconds=10
    )
import jax.random as jr, numpy as np
import fpflow

OU = fpflow.OrnsteinUhlenbeck()
law = fpflow.datasets.GaussianMixture([[-1.0, 0.0], [1.0, 0.5]], 0.2)
model = fpflow.PotentialMLP(2, width=8, depth=1, key=jr.key(0))
mesh = jax.make_mesh((number,), ("data",)) if number > 1 else None

def train(name, **settings):
    settings = {"key": jr.key(3), **settings}
    return fpflow.train(
        model, OU, law, num_steps=20, batch_size=64, chunk=5, checkpoint_every=10, mesh=mesh,
        optimiser=fpflow.Adam(), run_dir=f"{folder}/{name}", **settings,
    )

def at(step, number_of_signal, whom):
    def hook(done, metrics):
        if done == step and process == whom:
            os.kill(os.getpid(), number_of_signal)
    return hook

def refused(call, **settings):
    try:
        call(**settings)
    except ValueError as error:
        return str(error)

if what == "all":
    few = {"num_steps": 4, "mesh": mesh, "key": jr.key(1)}
    x = law.sample(jr.key(2), 7)
    trained = train("whole", progress=True)
    found = {
        "ode": fpflow.sample_ode(model, OU, 9000, **few),
        "sde": fpflow.sample_sde(model, OU, 9000, progress=True, **few),
        "log p_ODE": fpflow.log_prob_ode(model, OU, x, mesh=mesh).value,
        "log p_SDE": fpflow.log_prob_sde(model, OU, x, num_paths=8, **few).value,
        "bound": fpflow.evidence_bound(model, OU, x, num_groups=4, **few).value,
        "loss": trained.history["dsm"],
        "weight": trained.model.network.weights[0],
        "score": jax.vmap(lambda x: trained.model.score(0.5, x))(x),  # each process by itself
    }
    try:
        train("stopped", log_fn=at(5, signal.SIGTERM, number - 1))
    except fpflow.TrainingInterrupted as error:
        found["stopped at"] = [error.step, error.signal, error.checkpoint.exists()]
    found["resumed"] = train("stopped", resume=True).model.network.weights[0]
    found["held"] = refused(train, name="whole")
    found["differs"] = refused(train, name="other", key=jr.key(process)) if number > 1 else ""
    np.savez(f"{folder}/found-{process}.npz", **found)
elif what.startswith("kill"):
    train("run", log_fn=at(15, signal.SIGKILL, int(what[4:])))
elif what == "resume":
    np.save(f"{folder}/resumed.npy", train("run", resume=True).model.network.weights[0])
"""


def started(what, folder, number):
    """Processes that run the code together."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return [
        subprocess.Popen(
            [sys.executable, "-c", CODE, what, folder, str(i), str(number), str(port)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for i in range(number)
    ]  # fmt: skip


def ended(processes):
    """What each wrote to the standard error; all must end well."""
    try:
        told = [process.communicate(timeout=600)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, text in zip(processes, told, strict=True):
        assert process.returncode == 0, text[-3000:]
    return told


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folder, findings and words of one process, and of each of two."""
    found = []
    for number in (1, 2):
        folder = tmp_path_factory.mktemp(f"of-{number}")
        told = ended(started("all", folder, number))
        found += [
            (folder, dict(np.load(folder / f"found-{i}.npz")), told[i]) for i in range(number)
        ]
    return found


@pytest.mark.parametrize("law", ["ode", "sde"])
def test_processes_change_no_bit_of_a_sample(runs, law):
    (_, alone, _), *both = runs
    for _, found, _ in both:
        np.testing.assert_array_equal(found[law], alone[law])


@pytest.mark.parametrize("name", ["log p_ODE", "log p_SDE", "bound", "loss", "weight", "score"])
def test_processes_change_other_results_by_round_off(runs, name):
    # Sums over a batch in another order, in single precision.
    (_, alone, _), *both = runs
    for _, found, _ in both:
        np.testing.assert_allclose(found[name], alone[name], rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(found[name], both[0][1][name])


def test_the_first_process_alone_writes_and_draws(runs):
    (one, _, _), (two, _, first), (_, _, second) = runs
    names = {path.relative_to(one) for path in (one / "whole").rglob("*")}
    assert {path.relative_to(two) for path in (two / "whole").rglob("*")} == names
    configs = [json.loads((f / "whole" / "config.json").read_text()) for f in (one, two)]
    assert configs[0] == configs[1]
    assert len((two / "whole" / "metrics.jsonl").read_text().splitlines()) == 4
    for bar in ("train:", "sample SDE:"):
        assert bar in first and bar not in second


def test_a_signal_to_one_process_stops_all_at_one_step(runs):
    for _, found, _ in runs:
        assert found["stopped at"].tolist() == [5, signal.SIGTERM, True]
        np.testing.assert_array_equal(found["resumed"], found["weight"])


def test_what_one_process_refuses_all_refuse(runs):
    for _, found, _ in runs:
        assert "already holds a run; pass `resume=True`" in str(found["held"])
    for _, found, _ in runs[1:]:
        assert "processes 0 and 1 have different `key`: with a mesh" in str(found["differs"])


@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_process_ends_the_other_and_the_run_goes_on(runs, tmp_path, victim):
    processes = started(f"kill{victim}", tmp_path, 2)
    processes[victim].wait(timeout=600)
    since = time.monotonic()
    try:
        text = processes[1 - victim].communicate(timeout=60)[1]
    finally:
        processes[1 - victim].kill()
    assert time.monotonic() - since < 60 and processes[1 - victim].returncode != 0
    assert processes[victim].returncode == -signal.SIGKILL
    way_on = f"step 10 is saved in {tmp_path}/run; start all processes again and continue with"
    # Python hears of it in the collective, or jax aborts the process without Python.
    assert "fpflow.HostLost" in text or "HostLost: process" in text, text
    assert way_on in text
    ended(started("resume", tmp_path, 1))
    resumed = np.load(tmp_path / "resumed.npy")
    np.testing.assert_allclose(resumed, runs[0][1]["weight"], rtol=1e-5, atol=1e-5)


def test_a_process_alone_is_asked_for_nothing():
    tree = {"a": np.ones(2)}
    assert _hosts.gathered(tree, None) is tree and _hosts.replicated(tree, None) is tree
    assert _hosts.agreed(15, None) == 15 and _hosts.agreed(None, None) is None
    with pytest.raises(ZeroDivisionError), _hosts.watched(None, "counting"):
        _hosts.first_does(lambda: 1 / 0, None)
    assert issubclass(fpflow.HostLost, ConnectionError)
