"""The pages: they build without a warning, show what they should, and their code runs."""

import contextlib
import dataclasses
import functools
import html
import http.server
import importlib.util
import inspect
import pathlib
import re
import runpy
import shlex
import shutil
import subprocess
import sys
import threading

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import pytest
import scipy

import double_well
import fpflow
from fpflow._cli import main

matplotlib.use("Agg")
import matplotlib.pyplot as plt

ROOT = pathlib.Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGED = sorted((DOCS / "examples").glob("*.py"))
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built pages."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    assert not re.search("^WARNING", built.stderr, re.M), built.stderr
    return folder


@pytest.mark.slow
def test_pages_build_and_formulas_are_mathematics(site):
    theory = (site / "theory.html").read_text()
    assert theory.count("<math") > 60 and "arithmatex" not in theory
    for page in site.rglob("*.html"):
        text = page.read_text()
        assert "merror" not in text, page
        # What the converter does not know it leaves as it stands.
        for formula in re.findall(r"<math.*?</math>", text, re.S):
            assert "\\" not in formula and "<mi>&amp;" not in formula, (page.name, formula)
        # Everything a page needs comes with it.
        outside = re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="(https?:[^"]+)"', text)
        assert not [url for url in outside if "w3.org" not in url], page
    example = (site / "examples" / "close_the_gap.html").read_text()
    assert "close_the_gap.png" in example and "grid_density_sde" in example
    assert "--fp-weight" in (site / "reference" / "command-line.html").read_text()


@pytest.mark.slow
def test_every_documented_callable_shows_its_signature(site):
    """With the names by which its arguments are passed."""
    shown = {}
    for page in (site / "reference").glob("*.html"):
        parts = re.split(r'<h2 id="(fpflow\.[\w.]+)" class="doc doc-heading">', page.read_text())
        for name, part in zip(parts[1::2], parts[2::2], strict=True):
            first = part.partition("doc-contents")[0]
            shown[name] = html.unescape(re.sub("<[^>]+>", "", first))
    for name, text in shown.items():
        value = functools.reduce(getattr, name.split(".")[1:], fpflow)
        kind = inspect.isclass(value)
        abstract = name.rpartition(".")[2].startswith("Abstract")
        abstract |= getattr(value, "_is_protocol", False)
        if not callable(value) or abstract or (kind and issubclass(value, BaseException)):
            continue
        names = set(inspect.signature(value).parameters) - {"self"}
        assert all(re.search(rf"\b{argument}\b", text) for argument in names), (name, names, text)
    assert len(shown) > 180


@pytest.mark.slow
def test_pages_in_a_browser(site):
    """From localhost, in Chromium: formulas and figures have a size, and nothing is complained of."""
    if not CHROMIUM or importlib.util.find_spec("playwright") is None:
        pytest.skip("needs chromium (`apt install chromium`) and playwright (`.[docs]`)")
    from playwright.sync_api import sync_playwright

    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=site)
    handler.log_message = lambda *_: None
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    here = f"http://127.0.0.1:{server.server_port}"
    complaints = []
    with contextlib.closing(server.socket), sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        page.on("console", lambda m: complaints.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda r: None if r.url.startswith((here, "data:", "blob:"))
                else complaints.append(f"asks for {r.url}"))  # fmt: skip
        page.on("response", lambda r: complaints.append(r.url) if r.status >= 400 else None)
        for path in sorted(site.rglob("*.html")):
            name = path.relative_to(site).as_posix()
            if name == "404.html":
                continue
            # A desk's and a phone's width.
            for width in (1280, 390):
                page.set_viewport_size({"width": width, "height": 800})
                page.goto(f"{here}/{name}")
                wide = page.evaluate("document.documentElement.scrollWidth")
                assert wide <= width, f"{name} scrolls sideways: {wide} of {width} pixels"
        page.set_viewport_size({"width": 1280, "height": 800})
        for name, formulas, figures in (
            ("index", 2, 1), ("theory", 60, 0), ("notation", 20, 0), ("results", 0, 0),
            ("examples/close_the_gap", 0, 1), ("results/standard/tables", 0, 0),
            ("reference/likelihood", 5, 0),
        ):  # fmt: skip
            page.goto(f"{here}/{name}.html")
            page.wait_for_load_state("networkidle")
            boxes = [f.bounding_box() for f in page.locator("article math").all() if f.is_visible()]
            assert len(boxes) >= formulas, name
            assert all(box and box["width"] > 3 and box["height"] > 5 for box in boxes), name
            widths = page.evaluate(
                "[...document.querySelectorAll('article img')].map(i => i.naturalWidth)"
            )
            assert len(widths) >= figures and all(width > 50 for width in widths), name
            # MathML is drawn, not shown as text: a fraction is higher than its numerator.
            if name == "theory":
                assert page.evaluate(
                    "[...document.querySelectorAll('article mfrac')].every(f => "
                    "f.getBoundingClientRect().height > "
                    "1.2 * f.children[0].getBoundingClientRect().height)"
                )
        browser.close()
    server.shutdown()
    assert not complaints


# What these modules hold for the rooms below them.
_INNER = (
    "Figure", "as_data", "count_in_cells", "draw", "histogram_density", "unconditional",
    "widths_away",
)  # fmt: skip


def test_every_public_name_is_on_one_reference_page():
    pages = {path: path.read_text() for path in (DOCS / "reference").glob("*.md")}
    listed = re.findall(r"^::: fpflow\.([\w.]+)$", "\n".join(pages.values()), re.M)
    assert len(listed) == len(set(listed))
    public = {name for name in dir(fpflow) if not name.startswith("_")}
    public -= {"datasets", "plot"}
    for module in ("datasets", "plot"):
        room = getattr(fpflow, module)
        public |= {
            f"{module}.{name}" for name in dir(room)
            if callable(getattr(room, name)) and not name.startswith("_") and name not in _INNER
        }  # fmt: skip
    assert set(listed) == public


def test_every_figure_of_the_reference_has_a_picture():
    page = DOCS / "reference" / "plot.md"
    entries = re.findall(r"^::: fpflow\.plot\.(\w+)\n\n!\[.+\]\((.+)\)\{", page.read_text(), re.M)
    assert {name for name, _ in entries} == set(
        re.findall(r"^::: \S+\.(\w+)", page.read_text(), re.M)
    )
    assert all((page.parent / picture).stat().st_size > 5000 for _, picture in entries)


SHORTER = (
    (r"num_steps=[\d_]+|--steps \d+", lambda m: re.sub(r"\d[\d_]*", "60", m[0])),
    (r"\b(\d+_000|5000)\b", "500"),
    (r", -n \d+", ", -n 50"),
    (r", 200\)", ", 20)"),
)


def shortened(code):
    for pattern, with_ in SHORTER:
        code = re.sub(pattern, with_, code)
    return code


def blocks(path, language):
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(), re.M | re.S)


EXTENDING = DOCS / "extending.md"
# The README's block runs whole, in tests/test_structure.py.
PAGES = sorted(p for p in DOCS.rglob("*.md") if blocks(p, "python") and p != EXTENDING)


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_python_blocks_run(page, tmp_path, monkeypatch):
    """In their order, in one namespace, with fewer steps and samples."""
    monkeypatch.chdir(tmp_path)
    space = {"__name__": "page"}
    with jax.enable_x64(False):
        for block in blocks(page, "python"):
            exec(compile(shortened(block), str(page), "exec"), space)
    plt.close("all")


CONTRACTS = dict(
    re.findall(r"^## (.*?)\n.*?^```python\n(.*?)^```", EXTENDING.read_text(), re.M | re.S)
)


def test_every_contract_has_one_example():
    assert len(CONTRACTS) == len(blocks(EXTENDING, "python")) == 7
    listed = re.findall(r"^\| \[(.*?)\]\(#", EXTENDING.read_text(), re.M)
    assert [name.lower() for name in CONTRACTS] == listed


@pytest.mark.slow
@pytest.mark.parametrize("contract", CONTRACTS)
def test_a_contract_of_ones_own_runs_by_itself(contract, tmp_path, monkeypatch):
    """What the page promises: at most 40 lines, and nothing but public names."""
    monkeypatch.chdir(tmp_path)
    code = CONTRACTS[contract]
    assert len(code.splitlines()) <= 40 and "fpflow._" not in code
    with jax.enable_x64(False):
        exec(compile(shortened(code), contract, "exec"), {"__name__": "page"})


# Commands that set a machine up or take minutes; tests of their own run them in part.
_NOT_RUN = ("make ", "python3 -m venv", ".venv/bin/pip", "source ", ".venv/bin/python scripts/",
            ".venv/bin/python docs/", ".venv/bin/mkdocs")  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [p for p in [ROOT / "README.md", *DOCS.rglob("*.md")] if blocks(p, "sh")],
    ids=lambda p: p.stem,
)  # fmt: skip
def test_shell_blocks_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savetxt("points.csv", np.random.default_rng(0).normal(size=(500, 3)), delimiter=",")
    short = {"train": ["--width", "16", "--chunk", "30"], "density": ["-n", "4", "--paths", "8"],
             "report": ["--num-samples", "300", "--num-points", "4", "--repeats", "2"]}  # fmt: skip
    lines = "\n".join(blocks(page, "sh")).replace("\\\n", " ").splitlines()
    for line in filter(None, (line.split("  #")[0].strip() for line in lines)):
        line = line.removeprefix(".venv/bin/") if "/fpflow " in line else line
        if line.startswith("python -c "):
            subprocess.run([sys.executable, *shlex.split(line)[1:]], check=True)
        elif line.startswith("fpflow "):
            name, *rest = shlex.split(shortened(line))[1:]
            if name == "reproduce" or "--help" in rest:
                continue
            if name == "train" and "--config" in rest:
                rest += ["--steps", "60"]
            assert main([name, *rest, *short.get(name, [])]) == 0, line
        else:
            assert line.startswith(_NOT_RUN), f"{page.name}: nobody runs {line!r}"


EXAMPLES = [name for name in fpflow.__all__ if name not in ("datasets", "plot")]


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow if n == "gap_report" else ()) for n in EXAMPLES],
)
def test_docstrings_have_a_line_that_runs(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = re.findall(r"```python\n(.*?)```", inspect.getdoc(getattr(fpflow, name)) or "", re.S)
    assert len(code) == 1
    with jax.enable_x64(False):
        space = {
            "fpflow": fpflow, "jax": jax, "jnp": jax.numpy,
            "process": fpflow.OrnsteinUhlenbeck(), "data": fpflow.datasets.gaussian_mixture(),
            "model": fpflow.PotentialMLP(2, width=8, depth=1, key=jax.random.key(0)),
        }  # fmt: skip
        exec(compile(code[0], name, "exec"), space)


def test_examples_are_notebooks_too():
    """Their cells are the code of the example, and run as such."""
    spec = importlib.util.spec_from_file_location("hooks", DOCS / "hooks.py")
    spec.loader.exec_module(hooks := importlib.util.module_from_spec(spec))
    for path in PAGED:
        book = hooks.notebook(path)
        words, defined, run = book["cells"]
        assert words["source"].startswith("# ") and defined["source"] in path.read_text()
        compile(defined["source"] + "\n" + run["source"], path, "exec")
        assert "main(" in run["source"] and "savefig" not in run["source"]
        kinds = {output["output_type"] for output in run["outputs"]}
        assert ("display_data" in kinds) == path.with_suffix(".png").exists()


def test_every_example_has_a_test():
    tests = "".join(path.read_text() for path in (ROOT / "tests").glob("*.py"))
    for path in PAGED:
        assert re.search(rf'"{path.name}"|^import {path.stem}$', tests, re.M), path.name


def test_the_exact_posterior_of_the_example_is_a_regression():
    """Of parameters on observations, over a million pairs, whose standard errors are 6e-4."""
    example = runpy.run_path(str(DOCS / "examples" / "posterior.py"))
    x, y = map(np.asarray, example["Simulator"]().sample(jax.random.key(0), 1_000_000))
    slope = np.linalg.lstsq(y, x, rcond=None)[0]
    mean, covariance = example["exact"](np.eye(2))
    np.testing.assert_allclose(slope, mean, atol=4 * 6e-4)
    np.testing.assert_allclose(np.cov((x - y @ slope).T), covariance, atol=4 * 6e-4)


@pytest.mark.slow
def test_the_example_of_a_posterior_runs():
    """A third of the training already brings most posteriors within a tenth of their width."""
    example = runpy.run_path(str(DOCS / "examples" / "posterior.py"))
    with jax.enable_x64(False):
        assert example["main"](1500, 10, 2000) >= 0.8


@pytest.mark.slow
def test_the_example_of_sbi_runs(tmp_path, monkeypatch):
    """Rows for its two samplers, and one for the chain's own density."""
    pytest.importorskip("sbi", reason="the extra `bench` has sbi")
    monkeypatch.chdir(tmp_path)  # sbi writes a log of its training where it is
    sys.path.insert(0, str(DOCS / "examples"))
    example = runpy.run_path(str(DOCS / "examples" / "sbi_posterior.py"))
    rows = example["main"](500, 64, 8)
    assert [len(row[2]) for row in rows] == [64, 64, 8]
    assert all(np.isfinite(row[3]).all() for row in rows)


@pytest.mark.slow
def test_the_example_of_two_laws_runs():
    """Sixty steps of every stage: pictures of networks that have learnt little."""
    example = runpy.run_path(str(DOCS / "examples" / "two_laws.py"))

    def short(preset):
        stages = {
            name: dataclasses.replace(getattr(preset, name), num_steps=60, batch_size=64)
            for name in ("plain", "regularised")
        }
        return dataclasses.replace(preset, **stages)

    presets = [short(fpflow.paper.PRESETS[name]) for name in ("published", "standard")]
    with jax.enable_x64(False):
        figure, gaps = example["main"](*presets, fpflow.Window(nodes=24))
    assert len(figure.axes) == 6 and all(w2.value > 0 for _, w2 in gaps.values())
    plt.close("all")


@pytest.mark.slow
def test_the_example_of_guidance_runs():
    example = runpy.run_path(str(DOCS / "examples" / "guidance.py"))
    with jax.enable_x64(False):
        figure, rows = example["main"](fpflow.Window(nodes=32), num_samples=100)
    assert len(figure.axes) == 4
    # The ODE is the farther one from what guidance is said to draw.
    assert rows["TV(target, ODE)"].value > 2 * rows["TV(target, SDE)"].value
    plt.close("all")


def test_energies_are_those_of_their_sources():
    """The three minima of the surface (Müller and Brown, Theor. Chim. Acta 53, 1979), and the particles
    of the tests, written a second time."""
    example = runpy.run_path(str(DOCS / "examples" / "energies.py"))
    surface, particles = example["MullerBrown"](), example["FourParticles"]()
    for u, v, energy in ((-0.558, 1.442, -146.7), (0.623, 0.028, -108.2), (-0.05, 0.467, -80.8)):
        x = 2 * (jnp.array([u, v]) - jnp.array([-0.35, 0.7]))
        value, slope = jax.value_and_grad(surface.log_target)(x)
        # Places are published to three decimals and energies to one, where the curvature is a thousand.
        assert abs(-20 * value - energy) < 0.05 and jnp.abs(20 * 2 * slope).max() < 2
    x = 2 * jax.random.normal(jax.random.key(0), (20, 8))
    other = jax.vmap(double_well.log_target)(x)
    np.testing.assert_allclose(jax.vmap(particles.log_target)(x), other, rtol=1e-9)
    few = jax.vmap(particles.in_well)(x)
    assert (few == (jax.vmap(double_well.short_pairs)(x) <= 3)).all() and 0 < few.sum() < 20


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_example_of_energies_runs():
    """Sixty steps: weights of networks that have learnt little, and still without bias."""
    example = runpy.run_path(str(DOCS / "examples" / "energies.py"))
    with jax.enable_x64(False):
        asked = {"num_points": 500, "num_samples": 64, "window": fpflow.Window(nodes=24)}
        figure, rows, errors = example["main"]((60, 60), **asked)
    assert len(figure.axes) == 10 and len(rows) == 11 and np.isfinite(errors).all()
    plt.close("all")


@pytest.mark.slow
def test_the_example_of_ones_own_data_runs():
    example = runpy.run_path(str(DOCS / "examples" / "own_data.py"))
    with jax.enable_x64(False):
        figure, found = example["main"](60, 4)
    # A density of a dose and a price: about log(300) less than one of two doses.
    assert len(figure.axes) == 2 and all(nll.value > 5 for nll in found.nll_ode)
    plt.close("all")


@pytest.mark.slow
def test_the_example_closes_the_gap():
    """Shortened; a fifth of the steps already brings the laws together."""
    example = runpy.run_path(str(DOCS / "examples" / "close_the_gap.py"))
    with jax.enable_x64(False):
        figure, (plain, closer) = example["main"](600, fpflow.Window(nodes=32))
    assert len(figure.axes) == 10 and closer.value < plain.value / 2
    plt.close("all")


@pytest.mark.slow
def test_the_example_of_equations_forward_runs():
    """Shortened, in the plane and for the double well: both routes within five per cent and a quarter of
    a nat; after training whole they are within two."""
    example = runpy.run_path(str(DOCS / "examples" / "forward.py"))
    with jax.enable_x64(False):
        for errors in example["linear"](2, 2, 600, 256, jax.random.key(2)):
            assert float(errors.split()[0]) < 5
        for errors in example["double_well"](600, jax.random.key(0)):
            assert float(re.search(r"\((.*) nats", errors)[1]) < 0.25


def test_the_forward_law_of_the_example_solves_its_equation():
    """Its moments by a Runge-Kutta method of the moment equations, m' = -A m and
    S' = -A S - S A^T + B B^T, to the digits of the exponential."""
    example = runpy.run_path(str(DOCS / "examples" / "forward.py"))
    process = example["Linear"](3, 1, jax.random.key(0))
    decay, spread = process.moments(0.7)
    a, b = np.asarray(process.matrix), np.asarray(process.noise)

    def rate(t, y):
        s = y.reshape(3, 3)
        return (-a @ s - s @ a.T + b @ b.T).ravel()

    found = scipy.integrate.solve_ivp(rate, (0, 0.7), np.zeros(9), rtol=1e-10, atol=1e-12).y[:, -1]
    np.testing.assert_allclose(spread, found.reshape(3, 3), rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(decay, scipy.linalg.expm(-0.7 * a), rtol=1e-9)


@pytest.mark.slow
def test_the_example_of_guided_digits_runs():
    """A network that has learnt little, whose powered target the weights say is not drawn exactly."""
    example = runpy.run_path(str(DOCS / "examples" / "digits.py"))
    with jax.enable_x64(False), pytest.warns(UserWarning, match="weights are too few"):
        figure, rows = example["main"](60, (3.0,), 6, 32)
    assert len(figure.axes) == 2 and list(rows) == [3.0]
    assert "log p_chain - log p_ODE, median" in rows[3.0] and "nan nats" not in rows[3.0]


@pytest.mark.slow
def test_the_example_of_starts_given_ends_runs():
    """The SDE's moments within a tenth of the exact deviation; the ODE's start has no spread."""
    example = runpy.run_path(str(DOCS / "examples" / "path_start.py"))
    with jax.enable_x64(False):
        rows = example["main"](1500, 4000)
    for found in rows.values():
        (mean, spread), (drawn, covariance), (_, none) = found.values()
        width = np.sqrt(np.diag(spread))
        assert (np.abs(drawn - mean) < 0.15 * width).all()
        np.testing.assert_allclose(covariance, spread, atol=0.15 * width.max() ** 2)
        assert np.abs(none).max() < 1e-9


def test_every_method_has_a_class_a_test_and_a_page():
    rows = [line.split(" | ") for line in (DOCS / "methods.md").read_text().splitlines()[8:]]
    assert len(rows) > 20
    for reference, equation, name, test, page in rows:
        assert reference.strip("| ") and equation.strip()
        assert hasattr(fpflow, name.strip("`")), name
        file, function = test.strip("`").split("::")
        assert f"def {function}(" in (ROOT / "tests" / file).read_text(), test
        target = DOCS / re.search(r"\((.*)\)", page)[1]
        assert target.exists() or target.with_suffix(".py").exists(), page
