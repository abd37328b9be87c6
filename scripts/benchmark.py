"""Times fpflow beside its peers and the machine's own peaks, in one run.

    python scripts/benchmark.py --devices 2

Medians over repeats, peers in turn with our own. Results go to a JSON file and, with `--page`, as a
table into a Markdown page. Rows of a GPU machine come from the same command there.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import platform
import sys

import jax

import benchmark_rows

BEGIN = "<!-- table of scripts/benchmark.py begin -->"
END = "<!-- table of scripts/benchmark.py end -->"


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Time fpflow beside its peers.")
    parser.add_argument("--rows", nargs="+", help="which rows (default: all)")
    parser.add_argument("--repeats", type=int, default=7, help="timed runs of each (default 7)")
    parser.add_argument(
        "--devices", type=int, default=os.cpu_count(),
        help="host devices to force on a machine without a GPU (default: one a core)",
    )  # fmt: skip
    parser.add_argument("--machine", default=platform.machine(), help="its name in the table")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("results/benchmark.json"))
    parser.add_argument("--page", type=pathlib.Path, help="a Markdown page with the marker lines")
    arguments = parser.parse_args(argv)
    if arguments.repeats < 1 or arguments.devices < 1:
        parser.error("--repeats and --devices must be at least 1")
    if arguments.page and not (arguments.page.exists() and BEGIN in arguments.page.read_text()):
        parser.error(f"--page must be a file with the line {BEGIN}, got {arguments.page}")
    return arguments


def as_markdown(saved: dict) -> str:
    """One table of every row."""
    lines = [
        f"{saved['machine']}, {saved['devices']} jax devices ({saved['kind']}), jax {saved['jax']}; "
        f"medians of {saved['repeats']}.",
        "",
        "| work | measured | to reach | | |",
        "|---|---|---|---|---|",
    ]
    for rows in saved["rows"].values():
        for row in rows:
            mark = {None: "", True: "reached", False: "**not reached**"}[row["reached"]]
            value = f"{row['value']:.3g} {row['unit']}"
            lines.append(f"| {row['work']} | {value} | {row['reach']} | {mark} | {row['note']} |")
    return "\n".join(lines)


def force_devices(count: int) -> None:
    """Must be called before jax computes anything."""
    jax.config.update("jax_num_cpu_devices", count)


def main(argv: list[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    force_devices(arguments.devices)
    rows_by_name = benchmark_rows.ROWS
    unknown = set(arguments.rows or ()) - set(rows_by_name)
    if unknown:
        print(
            f"no such rows: {sorted(unknown)}; there are {', '.join(rows_by_name)}", file=sys.stderr
        )
        return 2
    saved = {
        "machine": arguments.machine,
        "devices": jax.device_count(),
        "kind": jax.devices()[0].device_kind,
        "jax": jax.__version__,
        "repeats": arguments.repeats,
        "rows": {},
    }
    if arguments.rows and arguments.out.exists():
        saved["rows"] = json.loads(arguments.out.read_text())["rows"]
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    for name in arguments.rows or rows_by_name:
        rows = rows_by_name[name](arguments.repeats)
        saved["rows"][name] = [dataclasses.asdict(row) for row in rows]
        for row in rows:
            print(f"{row.work}: {row.value:.4g} {row.unit}  {row.reach}  {row.note}", flush=True)
        arguments.out.write_text(json.dumps(saved, indent=1))
    if arguments.page:
        before, rest = arguments.page.read_text().split(BEGIN, 1)
        after = rest.split(END, 1)[1]
        arguments.page.write_text(f"{before}{BEGIN}\n\n{as_markdown(saved)}\n\n{END}{after}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
