"""The house: imports run downhill, the door is short, the README tells the truth."""

import ast
import pathlib
import re
import subprocess
import sys

import pytest

import fpflow

ROOT = pathlib.Path(__file__).parent.parent
SOURCE = ROOT / "src" / "fpflow"

# From the top of the hill to its foot: a room may import from those before it.
ROOMS = (
    "_types", "_errors", "_warning", "_shown", "_named", "_files", "_devices", "_hosts", "_blocks",
    "_calculus", "_process", "_window", "datasets", "_transform", "_model", "_network", "_dynamics",
    "_times", "_noising",
    "_residual", "_terms", "_excess", "_run", "_train", "_sample", "_likelihood", "_grid", "_metrics",
    "_importance", "_held_out", "_accounting", "plot", "_report", "paper", "_reproduce", "_cli",
    "__main__",
)  # fmt: skip

# A package that only one room may know.
WALLS = {
    "ott": ("_metrics",),
    "ot": ("_metrics",),
    "optax": ("_train",),
    "matplotlib": ("plot", "_reproduce", "_cli"),
}

# Packages that take as long to load as jax, for one method each: imported where they are used.
HEAVY = {"ot", "ott"}


def room_of(path):
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imports_of(path):
    """Every imported module as (room of fpflow or None, top-level package or None)."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((None, alias.name.split(".")[0]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            depth = len(path.relative_to(SOURCE).parts)
            if node.level == 0:
                yield None, (node.module or "").split(".")[0]
            elif node.level == depth:
                names = [node.module] if node.module else [alias.name for alias in node.names]
                yield from ((name.split(".")[0], None) for name in names)


FILES = [p for p in SOURCE.rglob("*.py") if p != SOURCE / "__init__.py"]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_run_downhill(path):
    room = room_of(path)
    for other, package in imports_of(path):
        if other is not None:
            assert ROOMS.index(other) < ROOMS.index(room), f"{room} imports {other}"
        if package in WALLS:
            assert room in WALLS[package], f"{room} imports {package}"


def test_imports_stand_at_the_top():
    """An import inside a function hides a cycle."""
    for path in FILES:
        for function in ast.walk(ast.parse(path.read_text())):
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                inner = [
                    n for n in ast.walk(function) if isinstance(n, ast.Import | ast.ImportFrom)
                ]
                names = [getattr(n, "module", n.names[0].name) or "." for n in inner]
                light = {name.split(".")[0] for name in names} - HEAVY
                assert not light, f"{path.name}: {function.name} imports"


def test_every_public_name_has_a_docstring():
    for name in dir(fpflow):
        words = (getattr(fpflow, name).__doc__ or "").strip()
        # Python writes the signature where a dataclass has none.
        assert words and not words.startswith(f"{name}("), name


def test_a_star_brings_a_short_list_of_what_exists():
    space = {}
    exec("from fpflow import *", space)
    names = [name for name in space if name != "__builtins__"]
    assert names == fpflow.__all__ and len(names) <= 16


def loaded_by(code):
    """The modules that a fresh Python has loaded after some code."""
    shown = "import sys, atexit; atexit.register(lambda: print('\\0', *sys.modules)); "
    result = subprocess.run([sys.executable, "-c", shown + code], capture_output=True, text=True)
    return set(result.stdout.split("\0")[1].split())


@pytest.mark.parametrize("line", ["--help", "--version", "", "nonsense", "--nonsense"])
def test_the_command_line_answers_without_jax(line):
    code = f"import fpflow._cli; fpflow._cli.main({line.split()})"
    assert "jax" not in loaded_by(code)


def test_training_loads_nothing_that_only_other_rooms_need():
    heavy = {"ot", "ott", "matplotlib", "scipy.stats", "scipy.sparse", "scipy.special"}
    every = "import fpflow; [getattr(fpflow, name) for name in dir(fpflow)]"
    for code in ("import fpflow; fpflow.train", every):
        loaded = loaded_by(code)
        assert "fpflow._train.train" in loaded and not loaded & heavy


def test_importing_changes_no_global_setting():
    code = (
        "import jax; before = jax.config.jax_enable_x64; import fpflow; "
        "assert jax.config.jax_enable_x64 == before == False; "
        "assert fpflow.PotentialMLP(2, key=jax.random.key(0)).network.biases[0].dtype == 'float32'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
def test_readme_example_runs(tmp_path):
    """The first Python block of the README, whole; the time is the README's promise, not a tolerance."""
    block = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S).group(1)
    assert len(block.strip().splitlines()) <= 15
    script = tmp_path / "example.py"
    script.write_text(block)
    result = subprocess.run(
        [sys.executable, script], check=True, capture_output=True, text=True, cwd=tmp_path
    )
    assert "W2Result" in result.stdout
    # Round-off differs between machines and training amplifies it, as far as seeds are apart.
    told = re.search(r"```text\n([\d.]+) ± ", (ROOT / "README.md").read_text()).group(1)
    assert 0.5 < float(result.stdout.split()[0]) / float(told) < 2
