"""What mkdocs does beyond Markdown: mathematics as MathML, examples as pages, the command line's help.

MathML needs no script and no font from elsewhere: browsers draw it themselves.
"""

import ast
import base64
import html
import json
import pathlib
import re
import subprocess
import sys
import textwrap

from latex2mathml.converter import convert
from mkdocs.structure.files import File

HERE = pathlib.Path(__file__).parent
_FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.S)
# Letters of LaTeX that a line of a phone holds.
_LONG = 50
COMMANDS = ("train", "sample", "density", "report", "plot", "reproduce")


def on_page_markdown(markdown, page, config, files):
    """Links to examples, which in a copy of the repository lead to their code, lead to their pages."""
    return re.sub(r"\]\(((?:\.\./)*examples/\w+)\.py\)", r"](\1.md)", markdown)


def on_page_content(content, page, config, files):
    """Formulas become MathML."""

    def mathml(match):
        display = "block" if match[1] == "div" else "inline"
        # A formula is LaTeX, in which the page's escapes are none.
        drawn = convert(html.unescape(match[3]).strip(), display=display)
        drawn = re.sub(r"(<mi>(?:log|sup)</mi>)", r'\1<mspace width="0.17em"/>', drawn)
        # What is wider than a phone scrolls by itself and not with the page.
        if display == "block":
            return f'<div class="formula">{drawn}</div>'
        return f'<span class="formula">{drawn}</span>' if len(match[3]) > _LONG else drawn

    return _en_dashes(_FORMULA.sub(mathml, content))


def _en_dashes(content):
    """`Fokker--Planck` of docstrings, outside of code."""
    parts = re.split(r"(<(?:pre|code)\b.*?</(?:pre|code)>|<[^>]*>)", content, flags=re.S)
    return "".join(
        part if part.startswith("<") else re.sub(r"(?<=\w)--(?=\w)", "–", part) for part in parts
    )


def on_files(files, config):
    """One page per example: its docstring, its figure, its code and what it prints; and a notebook."""
    for path in sorted((HERE / "examples").glob("*.py")):
        files.append(File.generated(config, f"examples/{path.stem}.md", content=_example(path)))
        files.append(
            File.generated(
                config, f"examples/{path.stem}.ipynb", content=json.dumps(notebook(path))
            )
        )
    files.append(File.generated(config, "examples/index.md", content=_gallery()))
    files.append(File.generated(config, "reference/command-line.md", content=_command_line()))
    files.append(File.generated(config, "reference/a-z.md", content=_index()))
    return files


def _index():
    """Every documented name with the page it stands on, by letter."""
    names = {}
    for path in sorted((HERE / "reference").glob("*.md")):
        title = path.read_text().partition("\n")[0].removeprefix("# ")
        for name in re.findall(r"^::: (fpflow\S*)", path.read_text(), re.M):
            names[name] = f"[`{name.removeprefix('fpflow.')}`]({path.name}#{name}) | {title}"
    lines, letter = ["# A–Z", ""], ""
    for name in sorted(names, key=lambda name: name.rpartition(".")[2].lower()):
        first = name.rpartition(".")[2][0].upper()
        if first != letter:
            letter = first
            lines += ["", f"## {letter}", "", "| name | page |", "|---|---|"]
        lines.append(f"| {names[name]} |")
    return "\n".join(lines) + "\n"


def _gallery():
    """All examples, with what they draw, or the first that they print."""
    parts = ["# Gallery", "", "Each page is a runnable script, also available as a notebook.", ""]
    for path in sorted((HERE / "examples").glob("*.py")):
        title, _, rest = ast.get_docstring(ast.parse(path.read_text())).partition("\n")
        first = next(
            p for p in rest.split("\n\n") if p.strip() and not p.strip("\n").startswith("    ")
        )
        title = title.rstrip(".")
        parts += [f"## [{title}]({path.stem}.md)", "", " ".join(first.split()), ""]
        if path.with_suffix(".png").exists():
            parts += [f"[![{title}]({path.stem}.png){{ .thumbnail }}]({path.stem}.md)", ""]
    return "\n".join(parts)


def _example(path):
    code = path.read_text()
    words = ast.get_docstring(ast.parse(code)) or path.stem
    title, _, rest = words.partition("\n")
    figure, printed = path.with_suffix(".png"), path.with_suffix(".txt")
    drawn = f"\n![{title}]({figure.name})\n" if figure.exists() else ""
    after = code.split('"""', 2)[2].lstrip("\n")
    says = f"\nIt prints:\n\n```text\n{printed.read_text()}```\n" if printed.exists() else ""
    book = f"\n[As a notebook]({path.stem}.ipynb){{ download }}\n"
    return f"# {title.rstrip('.')}\n{rest}\n{drawn}{says}{book}\n```python\n{after}```\n"


def notebook(path):
    """An example as a notebook with its outputs: what it says, what it defines, and what it runs."""
    code = path.read_text()
    title, _, rest = (ast.get_docstring(ast.parse(code)) or path.stem).partition("\n")
    defined, _, run = code.split('"""', 2)[2].partition('if __name__ == "__main__":\n')
    # A notebook has no file beside which a figure belongs; it shows it.
    lines = [re.sub(r"\.savefig\(.*\)$", "", line) for line in textwrap.dedent(run).splitlines()]
    outputs = []
    if path.with_suffix(".txt").exists():
        text = path.with_suffix(".txt").read_text()
        outputs.append({"output_type": "stream", "name": "stdout", "text": text})
    if path.with_suffix(".png").exists():
        picture = base64.b64encode(path.with_suffix(".png").read_bytes()).decode()
        outputs.append(
            {"output_type": "display_data", "data": {"image/png": picture}, "metadata": {}}
        )
    cells = [
        {"cell_type": "markdown", "source": f"# {title.rstrip('.')}\n{rest}"},
        {"cell_type": "code", "source": defined.strip(), "execution_count": None, "outputs": []},
        {
            "cell_type": "code",
            "source": "\n".join(lines).strip(),
            "execution_count": None,
            "outputs": outputs,
        },
    ]
    cells = [{"id": f"cell-{k}", "metadata": {}, **cell} for k, cell in enumerate(cells)]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    about = {"kernelspec": kernel, "language_info": {"name": "python"}}
    return {"nbformat": 4, "nbformat_minor": 5, "metadata": about, "cells": cells}


def _command_line():
    parts = [
        "# Command line\n\nEvery option has the text and the default of the Python argument it sets.\n"
    ]
    # In a process of its own: mkdocs must not import jax, nor end when a command shows its help.
    code = f"""
import contextlib
from fpflow._cli import main
for name in {COMMANDS}:
    print("\\x00", end="")
    with contextlib.suppress(SystemExit):
        main([name, "--help"])
"""
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for name, text in zip(COMMANDS, shown.stdout.split("\x00")[1:], strict=True):
        parts.append(f"## fpflow {name}\n\n```text\n{text}```\n")
    return "\n".join(parts)
