"""The paper's three tables and figures from networks trained on the spot.

    fpflow reproduce --preset quick

Numbers are saved as they come, one pair of files per model; tables and figures are drawn from the saved
numbers alone, so `--resume` computes nothing twice and an interruption loses one model at most.
"""

import argparse
import dataclasses
import pathlib
import time
import zlib
from collections.abc import Callable

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

import fpflow

from .. import paper
from .data import PROCESS, WINDOW, cells_of, counted, label, law_of, setting_of, settings_with_data
from .experiments import EXPERIMENTS, Setting, run_experiment
from .figures import draw_figures
from .options import parse_arguments
from .saved import save, saved
from .tables import insert_tables, write_tables

# Samples of a score network that are drawn beside its curl.
_DRAWN = 4000
# Batches of fewer points are for trying the commands.
_FEW = 32


def compare(arguments: argparse.Namespace, say: Callable[[str], None]) -> None:
    """The experiment that was asked for."""
    dataset = (arguments.dataset or ["mixture"])[0]
    out = arguments.out or pathlib.Path("results") / "experiments" / arguments.experiment
    run_experiment(
        EXPERIMENTS[arguments.experiment],
        Setting(law_of(dataset), arguments.scale),
        str(settings_with_data({"dataset": dataset}, dataset)),
        range(arguments.seed, arguments.seed + arguments.seeds),
        out,
        arguments.resume,
        say,
    )


def _is_whole(run: pathlib.Path) -> bool:
    """Whether the arrays are those that the figures are drawn from; older runs lack the data's."""
    with np.load(run / "numbers.npz") as arrays:
        return "data" in arrays


def layers_of(model) -> dict:
    network = model.network
    weights = {f"w{k}": w for k, w in enumerate(network.weights)}
    return weights | {f"b{k}": b for k, b in enumerate(network.biases)}


def network_in(run: pathlib.Path, dataset: str, preset: paper.Preset) -> fpflow.PotentialMLP:
    """The trained network of a run."""
    with np.load(run / "network.npz") as arrays:
        count = sum(name[0] == "w" and name[1:].isdigit() for name in arrays)
        layers = [(arrays[f"w{k}"], arrays[f"b{k}"]) for k in range(count)]
    own = setting_of(dataset)
    precision = PROCESS.prior.std**-2 if own in preset.on_prior else 0.0
    return fpflow.PotentialMLP.from_layers(layers, beta=preset.betas[own], precision=precision)


def prior_of(dataset: str, preset: paper.Preset) -> fpflow.IsotropicGaussian | None:
    """What the layers correct."""
    return PROCESS.prior if setting_of(dataset) in preset.on_prior else None


def distances(laws: dict) -> dict:
    """The three W2^2, each with its bracket and how far the unextrapolated masses move it."""
    result = {}
    for name in paper.COMPARISONS:
        a, b = (laws[side] for side in name.split("-"))
        best = fpflow.w2_grid(a, b)
        plain_a, plain_b = (
            d.mass if d.unextrapolated is None else d.unextrapolated for d in (a, b)
        )
        result[name] = {
            "value": best.value,
            "lower": best.lower,
            "upper": best.upper,
            "floor": abs(best.value - fpflow.w2_grid(plain_a, plain_b, WINDOW).value),
        }
    return result


def measure(model, plain, law, preset, key) -> tuple[dict, dict]:
    """Every number of a trained model, and the masses they come from; `plain` is that at w_R = 0."""
    key_residual, key_loss, key_ode, key_sde = jr.split(key, 4)
    start = time.perf_counter()
    laws = {
        "SDE": fpflow.grid_density_sde(model, PROCESS, WINDOW),
        "ODE": fpflow.grid_density_ode(model, PROCESS, WINDOW),
        "data": cells_of(law, WINDOW),
    }
    middle = time.perf_counter()
    numbers = {
        "w2": distances(laws),
        "outside": {name: density.outside for name, density in laws.items()},
        "density_error": {name: density.error for name, density in laws.items()},
        "residual": fpflow.residual_norm(model, PROCESS, key=key_residual)._asdict(),
        "excess_loss": fpflow.excess_loss(model, PROCESS, law, key=key_loss)._asdict(),
    }
    if plain is not None:
        over = fpflow.excess_loss(model, PROCESS, law, reference=plain, key=key_loss)
        numbers["excess_over_plain"] = over._asdict()
    arrays = {"ode": laws["ODE"].mass, "sde": laws["SDE"].mass, "data": laws["data"].mass}
    if preset.num_samples:
        grid, n = paper.step_grid(), preset.num_samples
        euler = fpflow.ODE(diffrax.Euler(), step_grid=grid)
        ode = fpflow.sample_histogram(euler, model, PROCESS, n, WINDOW, key=key_ode)
        maruyama = fpflow.EulerMaruyama(step_grid=grid, quiet_end=preset.quiet_end)
        sde = fpflow.sample_histogram(maruyama, model, PROCESS, n, WINDOW, key=key_sde)
        numbers["sampled"] = distances({"ODE": ode, "SDE": sde, "data": laws["data"]})
        arrays |= {"ode_sampled": ode.mass, "sde_sampled": sde.mass}
    numbers["seconds_densities"] = middle - start
    numbers["seconds_measuring"] = time.perf_counter() - start
    return numbers, arrays


def run_model(run, dataset, fp_weight, preset, settings, seed, start_run, resume, say) -> None:
    """Trains and measures one network and saves what came of either as soon as it is there."""
    law, known = law_of(dataset), list(paper.DATASETS)
    number = known.index(dataset) if dataset in known else zlib.crc32(dataset.encode())
    key = jr.fold_in(jr.key(seed), number)
    key_model, key_train, key_measure = jr.split(key, 3)
    training = saved(run, "network", settings) if resume else None
    if training is None:
        for stale in run.glob("*.json"):
            stale.unlink()
        if start_run is not None:
            model = network_in(start_run, dataset, preset)
        else:
            model = fpflow.PotentialMLP(
                2,
                prior=prior_of(dataset, preset),
                width=preset.width,
                depth=preset.depth,
                beta=preset.betas[setting_of(dataset)],
                key=key_model,
            )
        start = time.perf_counter()
        key_train = jr.fold_in(key_train, round(1000 * fp_weight))
        result = train(model, law, preset, fp_weight, key_train)
        training = {
            "dataset": label(dataset),
            "fp_weight": fp_weight,
            "seed": seed,
            "parameters": sum(a.size for a in jax.tree.leaves(eqx.filter(model, eqx.is_array))),
            "seconds_training": time.perf_counter() - start,
            "settings": settings,
        }
        done = result.history
        history = {"history_step": done.step, "history_seconds": done.seconds}
        history |= {f"history_{name}": column for name, column in done.terms.items()}
        save(run, "network", training, layers_of(result.model) | history)
    say(f"  trained in {training['seconds_training']:.0f} s")
    if resume and saved(run, "numbers", settings) is not None and _is_whole(run):
        say("  measured before")
        return
    model = network_in(run, dataset, preset)
    plain = run.with_name(f"{label(dataset)}-w0-seed{seed}")
    plain_model = None
    if saved(plain, "network", settings) is not None:
        plain_model = network_in(plain, dataset, preset)
    numbers, arrays = measure(model, plain_model, law, preset, key_measure)
    if (few := counted(dataset)) is not None:
        numbers["counted"] = few
    save(run, "numbers", training | numbers, arrays)
    w2 = ", ".join(f"{name} {numbers['w2'][name]['value']:.5f}" for name in paper.COMPARISONS)
    say(f"  measured in {numbers['seconds_measuring']:.0f} s: W2^2 {w2}")


def train(model, law, preset, fp_weight, key):
    stage = preset.regularised if fp_weight else preset.plain
    return fpflow.train(model, PROCESS, law, key=key, **stage.arguments(fp_weight))


def run_curl(run, potential_run, preset, settings, seed, say) -> None:
    """The curl of a score network on circles at t0, beside that of the potential network, and what its
    SDE draws."""
    law, dataset = paper.DATASETS["circles"](), "circles"
    key_model, key_train = jr.split(jr.fold_in(jr.key(seed), 100))
    model = fpflow.ScoreMLP(
        2,
        prior=prior_of(dataset, preset),
        width=preset.width,
        depth=preset.depth,
        beta=preset.betas[dataset],
        key=key_model,
    )
    stage = dataclasses.replace(preset.plain, num_steps=preset.curl_steps)
    result = fpflow.train(model, PROCESS, law, key=key_train, **stage.arguments())
    potential = network_in(potential_run, dataset, preset)
    axis = jnp.asarray(WINDOW.centres(), jnp.float32)
    nodes = jnp.stack(jnp.meshgrid(axis, axis, indexing="ij"), -1)

    def curl_of(model):
        at_t0 = jax.vmap(jax.vmap(lambda x: fpflow.curl(lambda y: model.score(PROCESS.t0, y), x)))
        return np.asarray(at_t0(nodes))

    arrays = {"score": curl_of(result.model), "potential": curl_of(potential)}
    density = law.cell_probabilities(WINDOW).mass
    rms = {k: float(np.sqrt((density * v**2).sum())) for k, v in arrays.items()}
    drawn = fpflow.sample_sde(
        result.model, PROCESS, _DRAWN, progress=False, key=jr.fold_in(key_train, 1)
    )
    arrays["samples"] = np.asarray(drawn)
    save(run, "numbers", {"rms_curl": rms, "settings": settings}, arrays)
    say(f"  root mean square curl under the data: {rms}")


def predecessor(weight: float, preset: paper.Preset) -> float | None:
    """The weight whose network this one starts from: the next smaller one of the preset."""
    smaller = [w for w in preset.fp_weights if w < weight]
    return max(smaller) if preset.warm_start and smaller else None


def chain_of(weights, preset: paper.Preset) -> list[float]:
    """The weights asked for and all that their networks start from, smallest first."""
    needed = set()
    for weight in weights:
        while weight is not None and weight not in needed:
            needed.add(weight)
            weight = predecessor(weight, preset)
    return sorted(needed)


def main(argv: list[str] | None = None) -> int:
    arguments = parse_arguments(argv)

    def say(line: str) -> None:
        print(line, flush=True)

    if arguments.experiment:
        compare(arguments, say)
        return 0
    preset = paper.PRESETS[arguments.preset].scaled(arguments.scale)
    out = arguments.out or pathlib.Path("results") / arguments.preset
    chosen = arguments.dataset or list(preset.datasets)
    weights = chain_of(arguments.fp_weight or preset.fp_weights, preset)
    (out / "runs").mkdir(parents=True, exist_ok=True)
    settings = {**preset.as_dict(), "seed": arguments.seed}
    del settings["datasets"], settings["fp_weights"], settings["meaning"]  # not how they run
    jobs = [(dataset, weight) for dataset in chosen for weight in weights]
    say(f"{preset.name}: {preset.meaning}; {len(jobs)} models into {out}")
    smallest = min(preset.plain.batch_size, preset.regularised.batch_size)
    if smallest < _FEW:
        say(
            f"note: at --scale {arguments.scale:g} a batch has {smallest} points, from which networks "
            "learn next to nothing: the numbers below only show that the commands run."
        )

    def run_of(name: str) -> pathlib.Path:
        return out / "runs" / f"{name}-seed{arguments.seed}"

    start = time.perf_counter()
    for count, (dataset, weight) in enumerate(jobs, 1):
        say(f"[{count}/{len(jobs)}] {dataset}, w_R = {weight:g}")
        run, before = run_of(f"{label(dataset)}-w{weight:g}"), predecessor(weight, preset)
        start_run = None if before is None else run_of(f"{label(dataset)}-w{before:g}")
        of_run = settings_with_data(settings, dataset)
        run_model(
            run, dataset, weight, preset, of_run, arguments.seed, start_run, arguments.resume, say
        )
    with_curl = bool(preset.curl_steps) and ("circles", 0.0) in jobs
    if with_curl:
        say("curl of a score network, circles")
        if arguments.resume and saved(run_of("curl"), "numbers", settings) is not None:
            say("  already there")
        else:
            run_curl(run_of("curl"), run_of("circles-w0"), preset, settings, arguments.seed, say)
    say(f"computed in {time.perf_counter() - start:.0f} s; now tables and figures")
    runs = [run_of(f"{label(dataset)}-w{weight:g}") for dataset, weight in jobs]
    text = write_tables(out, runs)
    say(text)
    if arguments.page:
        insert_tables(arguments.page, text)
    for figure in draw_figures(out, runs, run_of("curl") if with_curl else None):
        say(f"figure {figure}")
    return 0
