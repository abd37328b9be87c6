"""The rows of the benchmark: each a function that times its own work beside that of a peer."""

import dataclasses
import functools
import itertools
import math
import statistics
import time
from collections.abc import Callable
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

import benchmark_peers as peers
import fpflow
from fpflow import paper

try:
    import benchmark_torch as torch_peer
except ImportError:  # PyTorch is optional: `pip install -e ".[bench]"`
    torch_peer = None

SIZES = (3, 80, 80, 80, 1)
PROCESS = fpflow.OrnsteinUhlenbeck()


@functools.cache
def mixture() -> fpflow.datasets.GaussianMixture:
    """Made when asked for: devices are forced before jax computes anything."""
    return fpflow.datasets.gaussian_mixture()


@dataclasses.dataclass(frozen=True)
class Row:
    """One measured line: `value` in `unit`, `reach` the figure aimed at and whether it was reached."""

    work: str
    value: float
    unit: str
    reach: str = ""
    reached: bool | None = None
    note: str = ""


def medians(functions: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median seconds of each, run in turn after one run that compiles."""
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for function in functions.values():
        function()
    for _ in range(repeats):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def matmul_peak() -> float:
    """Floating point operations per second of a single precision matrix product of 2048 x 2048, the
    best of thirty: what others take on a shared machine is no part of a peak."""
    a = jnp.ones((2048, 2048), jnp.float32)
    product = jax.jit(lambda a: a @ a)
    jax.block_until_ready(product(a))
    best = math.inf
    for _ in range(30):
        start = time.perf_counter()
        jax.block_until_ready(product(a))
        best = min(best, time.perf_counter() - start)
    return 2 * 2048**3 / best


def network_operations(num_score: int, num_jet: int) -> float:
    """Operations of one gradient step in the network's matrix products: a score is a pass forward and
    one back, a jet five columns forward; the gradient of either takes twice as many again."""
    once = 2 * sum(n_in * n_out for n_in, n_out in itertools.pairwise(SIZES))
    return 3 * once * (2 * num_score + 5 * num_jet)


def score_operations() -> float:
    """Operations of one evaluation of the score in the network's matrix products."""
    return 4 * sum(n_in * n_out for n_in, n_out in itertools.pairwise(SIZES))


def training_step(repeats: int) -> list[Row]:
    """The authors' step at their CPU batch: 20,000 samples and 5,000 collocation points."""
    samples, points, steps = 20_000, 5_000, 40
    model = fpflow.PotentialMLP(2, beta=100.0, key=jr.key(0))
    objective = fpflow.Objective(
        {
            "dsm": fpflow.DenoisingScoreMatching(),
            "fp": fpflow.UniformFokkerPlanck(weight=0.1, num_points=points),
        },
        fpflow.Noising(fpflow.BetaTime(2.0)),
    )

    def ours(mesh=None):
        def run():
            fpflow.train(
                model, PROCESS, mixture(), objective=objective, batch_size=samples, mesh=mesh,
                num_steps=steps, chunk=steps, progress=False, optimiser=fpflow.Adam(), key=jr.key(1),
            )  # fmt: skip

        return run

    functions: dict[str, Callable[[], Any]] = {"fpflow": ours()}
    if jax.device_count() > 1:
        mesh = jax.make_mesh((jax.device_count(),), ("data",))
        functions["fpflow, one device a core"] = ours(mesh)
    if torch_peer is not None:
        step = torch_peer.training_step(samples, points)
        functions["PyTorch"] = lambda: [step() for _ in range(steps)]
    seconds = {name: value / steps for name, value in medians(functions, repeats).items()}
    best = min(value for name, value in seconds.items() if name.startswith("fpflow"))
    peak, operations = matmul_peak(), network_operations(samples, points)
    rows = [Row(f"training step, {name}", value, "s") for name, value in seconds.items()]
    if "PyTorch" in seconds:
        ratio = seconds["PyTorch"] / best
        rows.append(Row("training step, PyTorch / fpflow", ratio, "times", "5", ratio >= 5))
    share = operations / best / peak
    rows.append(Row("training step, share of the matmul peak", share, "", "0.5", share >= 0.5,
                    f"{operations / 1e9:.2f} GFLOP a step, peak {peak / 1e9:.0f} GFLOP/s"))  # fmt: skip
    return rows


def sampler(repeats: int) -> list[Row]:
    """Score evaluations per second in Euler's methods, ours beside loops by hand and peers."""
    num_samples, num_steps = 32_768, 100
    model = fpflow.PotentialMLP(2, beta=100.0, key=jr.key(0))
    euler = {"num_steps": num_steps, "solver": diffrax.Euler(), "progress": False, "key": jr.key(1)}
    mesh = jax.make_mesh((jax.device_count(),), ("data",)) if jax.device_count() > 1 else None
    rows = []
    peak = matmul_peak() / score_operations()
    rows.append(Row("score evaluations the matmul peak allows", peak / 1e6, "M/s"))
    for law, reach in (("ode", 3.0), ("sde", 2.5)):
        draw = fpflow.sample_ode if law == "ode" else fpflow.sample_sde
        functions: dict[str, Callable[[], Any]] = {
            "fpflow": lambda draw=draw: draw(model, PROCESS, num_samples, mesh=mesh, **euler),
            "scan by hand": peers.scan_sampler(model, num_samples, num_steps, law),
        }
        if law == "ode":
            functions["diffrax, one solve a sample"] = peers.diffrax_sampler(
                model, num_samples, num_steps
            )
            functions["diffrax, one solve a sample, jax.grad"] = peers.diffrax_sampler(
                peers.Automatic(model), num_samples, num_steps
            )
        if torch_peer is not None:
            functions["PyTorch"] = torch_peer.sampler(num_samples, num_steps, law)
        seconds = medians(functions, repeats)
        rate = {name: num_samples * num_steps / value / 1e6 for name, value in seconds.items()}
        name = law.upper()
        rows += [Row(f"{name} sampler, {peer}", value, "M/s") for peer, value in rate.items()]
        best = max(rate["fpflow"], rate["scan by hand"])
        rows[-len(rate)] = Row(
            f"{name} sampler, fpflow", rate["fpflow"], "M/s", f"{reach}", rate["fpflow"] >= reach,
            f"{1e6 * rate['fpflow'] / peak:.0%} of the peak; best path {best:.2f}",
        )  # fmt: skip
        slower = rate["scan by hand"] / rate["fpflow"]
        rows.append(Row(f"{name} sampler, scan by hand / fpflow", slower, "times", "at most 1.3",
                        slower <= 1.3))  # fmt: skip
    return rows


def densities(repeats: int) -> list[Row]:
    """Both grid densities and the three squared distances of one model."""
    del repeats
    model = fpflow.PotentialMLP(2, key=jr.key(0))
    short = fpflow.train(
        model, PROCESS, mixture(), num_steps=2000, progress=False, key=jr.key(1),
    ).model  # fmt: skip
    data = mixture().cell_probabilities(fpflow.Window())

    def distances(ode, sde):
        return [fpflow.w2_grid(a, b) for a, b in ((ode, sde), (ode, data), (sde, data))]

    ode, sde = fpflow.grid_density_ode(short, PROCESS), fpflow.grid_density_sde(short, PROCESS)
    seconds = medians(
        {
            "grid_density_ode": lambda: fpflow.grid_density_ode(short, PROCESS),
            "grid_density_sde": lambda: fpflow.grid_density_sde(short, PROCESS),
            "three times w2_grid": lambda: distances(ode, sde),
        },
        3,
    )
    total = sum(seconds.values())
    rows = [Row(name, value, "s") for name, value in seconds.items()]
    return [*rows, Row("densities and the three W2 of one model", total, "s", "8", total <= 8)]


def quality(repeats: int) -> list[Row]:
    """Seconds until a network at w_R = 0 is below all three published entries of the mixture."""
    del repeats
    published = dict(zip(paper.COMPARISONS, paper.PUBLISHED["mixture"][0.0], strict=True))
    data = mixture().cell_probabilities(fpflow.Window())
    stage = paper.PRESETS["quick"].plain
    start = time.perf_counter()
    model = fpflow.train(
        fpflow.PotentialMLP(2, key=jr.key(0)), PROCESS, mixture(), progress=False, key=jr.key(1),
        **stage.arguments(),
    ).model  # fmt: skip
    seconds = time.perf_counter() - start
    ode, sde = fpflow.grid_density_ode(model, PROCESS), fpflow.grid_density_sde(model, PROCESS)
    laws = {"ODE": ode, "SDE": sde, "data": data}
    found = {}
    for name in published:
        a, b = (laws[side] for side in name.split("-"))
        found[name] = fpflow.w2_grid(a, b).value
    below = all(found[name] < published[name] for name in published)
    note = ", ".join(f"{name} {found[name]:.5f} < {published[name]:.5f}" for name in published)
    rows = [Row("published quality, mixture, w_R = 0", seconds, "s", "60", below and seconds <= 60,
                note + f"; {stage.num_steps} steps, compilation included")]  # fmt: skip
    return rows


def likelihoods(repeats: int) -> list[Row]:
    """Both log densities of one network."""
    model = fpflow.PotentialMLP(2, key=jr.key(0))
    x = mixture().sample(jr.key(1), 10_000)
    mesh = jax.make_mesh((jax.device_count(),), ("data",)) if jax.device_count() > 1 else None
    seconds = medians(
        {
            "log_prob_ode": lambda: fpflow.log_prob_ode(
                model, PROCESS, x, mesh=mesh, progress=False
            ).value.block_until_ready(),
            "log_prob_sde": lambda: fpflow.log_prob_sde(
                model,
                PROCESS,
                x[:1000],
                num_paths=128,
                num_steps=200,
                mesh=mesh,
                progress=False,
                key=jr.key(2),
            ).value.block_until_ready(),
        },
        min(repeats, 3),
    )
    return [
        Row("log p_ODE at 10,000 points", seconds["log_prob_ode"], "s", "20",
            seconds["log_prob_ode"] <= 20),
        Row("log p_SDE at 1000 points, 128 paths of 200 times", seconds["log_prob_sde"], "s", "60",
            seconds["log_prob_sde"] <= 60),
    ]  # fmt: skip


def scaling(repeats: int) -> list[Row]:
    """Time against samples, steps, width, dimension, cells and devices."""
    rows = []

    def timed(work: str, function: Callable[[], Any], per: float, unit: str) -> None:
        seconds = medians({"": function}, min(repeats, 3))[""]
        rows.append(Row(work, seconds / per, unit))

    def ode(model, n, dim, mesh=None):
        return lambda: fpflow.sample_ode(
            model, PROCESS, n, num_steps=50, solver=diffrax.Euler(), dim=dim, mesh=mesh,
            progress=False, key=jr.key(1),
        )  # fmt: skip

    plain = fpflow.PotentialMLP(2, key=jr.key(0))
    for n in (4096, 16_384, 65_536):
        timed(
            f"ODE sampler, 50 Euler steps, {n} samples",
            ode(plain, n, 2),
            n * 50e-6,
            "µs/evaluation",
        )
    for width in (40, 80, 160):
        model = fpflow.PotentialMLP(2, width=width, key=jr.key(0))
        timed(f"ODE sampler, width {width}", ode(model, 16_384, 2), 16_384 * 50e-6, "µs/evaluation")
    for dim in (2, 8, 32, 128):
        model = fpflow.PotentialMLP(dim, key=jr.key(0))
        data = fpflow.datasets.GaussianMixture(np.zeros((1, dim)), 0.5)
        timed(f"ODE sampler, d = {dim}", ode(model, 16_384, dim), 16_384 * 50e-6, "µs/evaluation")
        timed(
            f"training step of 2048, d = {dim}",
            lambda model=model, data=data: fpflow.train(
                model, PROCESS, data, num_steps=20, chunk=20, progress=False, key=jr.key(1)
            ),
            20e-3, "ms",
        )  # fmt: skip
        x = data.sample(jr.key(2), 256)
        timed(
            f"log p_ODE, exact divergence, 256 points, d = {dim}",
            lambda model=model, x=x: fpflow.log_prob_ode(model, PROCESS, x, progress=False),
            256e-3, "ms/point",
        )  # fmt: skip
    for nodes in (32, 64, 128):
        window = fpflow.Window(nodes=nodes)
        timed(
            f"grid_density_sde, {nodes} x {nodes} cells",
            lambda window=window: fpflow.grid_density_sde(plain, PROCESS, window), 1, "s",
        )  # fmt: skip
    for count in (1, 2, 4):
        if count <= jax.device_count():
            mesh = jax.make_mesh((count,), ("data",), devices=jax.devices()[:count])
            timed(
                f"ODE sampler, {count} devices", ode(plain, 65_536, 2, mesh), 65_536 * 50e-6,
                "µs/evaluation",
            )  # fmt: skip
    return rows


ROWS = {
    "step": training_step,
    "sampler": sampler,
    "densities": densities,
    "quality": quality,
    "likelihoods": likelihoods,
    "scaling": scaling,
}
