"""Runs an experiment: each variant with each seed, numbers saved first, then table, figure and page.

What is resumed is known by variant, seed, data and scale: after a change of what a variant does, its
files are to be removed.
"""

import pathlib
import re
import time
import zlib
from collections.abc import Callable

import jax.random as jr

from ..saved import save, saved
from .base import Experiment, Numbers, Setting
from .page import write_page


def _file(variant: str, seed: int) -> str:
    return f"{re.sub('[^a-z0-9.]+', '-', variant.lower()).strip('-')}-seed{seed}"


def run_experiment(
    experiment: Experiment,
    setting: Setting,
    data: str,
    seeds: range,
    out: pathlib.Path,
    resume: bool,
    say: Callable[[str], None],
) -> None:
    """Everything that the experiment's page needs, into a folder.

    **Arguments:**

    - `data`: what tells these data from others.
    """
    total = len(experiment.variants) * len(seeds)
    say(f"{experiment.name}: {len(experiment.variants)} variants, {len(seeds)} seeds, into {out}")
    found: dict[str, list[Numbers]] = {name: [] for name in experiment.variants}
    jobs = [(seed, name) for seed in seeds for name in experiment.variants]
    for count, (seed, name) in enumerate(jobs, 1):
        settings = {"variant": name, "seed": seed, "data": data, "scale": setting.scale}
        before = saved(out / "runs", _file(name, seed), settings) if resume else None
        if before is None:
            key = jr.fold_in(jr.key(seed), zlib.crc32(experiment.name.encode()))
            start = time.perf_counter()
            numbers = experiment.variants[name](setting, key)
            before = {"settings": settings, "numbers": numbers}
            save(out / "runs", _file(name, seed), before, {})
            took = f"{time.perf_counter() - start:.0f} s"
        else:
            took = "before"
        found[name].append(before["numbers"])
        shown = ", ".join(f"{k} {v:.3g}" for k, v in before["numbers"].items())
        say(f"[{count}/{total}] {name}, seed {seed}, {took}: {shown}")
    say(write_page(experiment, found, out, setting.scale))
