"""The benchmark's command: its table, its arguments, and the operations it counts."""

import json

import jax
import jax.random as jr
import pytest

import benchmark
import benchmark_rows
import fpflow


def test_rows_are_saved_and_put_into_the_page(tmp_path, monkeypatch, capsys):
    def quick(repeats):
        return [
            benchmark_rows.Row("a", 1.2345, "s", "2", True, f"of {repeats}"),
            benchmark_rows.Row("b", 3.0, "times", "4", False),
        ]

    monkeypatch.setattr(benchmark_rows, "ROWS", {"quick": quick})
    monkeypatch.setattr(benchmark, "force_devices", lambda count: None)  # jax has started
    page, out = tmp_path / "page.md", tmp_path / "rows.json"
    page.write_text(f"before\n{benchmark.BEGIN}\nold\n{benchmark.END}\nafter\n")
    arguments = ["--repeats", "3", "--out", str(out), "--page", str(page), "--machine", "here"]
    assert benchmark.main(arguments) == 0
    text = page.read_text()
    assert "| a | 1.23 s | 2 | reached | of 3 |" in text and "old" not in text
    assert "| b | 3 times | 4 | **not reached** |  |" in text and "here, 1 jax devices" in text
    assert text.startswith("before\n") and text.endswith("after\n")
    assert json.loads(out.read_text())["rows"]["quick"][0]["value"] == 1.2345
    assert benchmark.main(["--rows", "nothing"]) == 2
    assert "no such rows: ['nothing']; there are quick" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        benchmark.main(["--repeats", "0"])


def test_operations_are_those_the_compiler_counts():
    """Matrix products outweigh the rest of a network of width 80 by ten."""
    model, n = fpflow.PotentialMLP(2, key=jr.key(0)), 512
    x = jr.normal(jr.key(1), (n, 2))
    compiled = jax.jit(lambda x: model.score(0.3, x)).lower(x).compile()
    counted = compiled.cost_analysis()["flops"] / n
    assert 0.95 < counted / benchmark_rows.score_operations() < 1.15
