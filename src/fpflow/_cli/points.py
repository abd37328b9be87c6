"""Points in files: .npy, .npz and .csv."""

import io
import pathlib
import re
import zipfile
import zlib

import numpy as np

from .._files import write_whole
from .._warning import warn


def read_points(path: pathlib.Path) -> tuple[list[str], np.ndarray]:
    """The names of the columns, where a file has them, and its one array.

    **Raises:** `ValueError` for a file that holds no such thing, `OSError` where there is none.
    """
    if path.suffix not in (".npy", ".npz"):
        return _read_table(path)
    try:
        # Mapped first: a short file may claim an array that no memory holds.
        found = np.load(path, mmap_mode="r", allow_pickle=False)
        if isinstance(found, np.ndarray):
            return [], np.array(found)
        with found as arrays:
            names = list(arrays)
            array = arrays[names[0]] if len(names) == 1 else None
    except (ValueError, KeyError, EOFError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(
            f"{path} cannot be read as an array of numbers: {str(error).rstrip('.')}."
        ) from error
    if array is None:
        raise ValueError(f"{path} must hold one array, got {names}.")
    return [], array


def _read_table(path: pathlib.Path) -> tuple[list[str], np.ndarray]:
    """Numbers with commas between them, after at most one line without any number."""
    content = path.read_bytes()
    if content.startswith(b"\x1f\x8b"):
        raise ValueError(f"{path} is compressed; unpack it with gunzip first.")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ValueError(
            f"{path} is not UTF-8: line {line} has the byte {content[error.start]:#x}; save it as UTF-8."
        ) from error
    lines = [line.split("#")[0] for line in text.splitlines()]
    filled = [number for number, line in enumerate(lines) if line.strip()]
    names = lines[filled[0]].split(",") if filled else []
    indexed = len(filled) > 1 and _is_index(names) and lines[filled[1]].startswith("0,")
    # A first line with one number in it is a row with a fault, and not a line of names.
    start = filled[0] + 1 if filled and (indexed or not any(map(_starts_number, names))) else 0
    if not any(line.strip() for line in lines[start:]):
        raise ValueError(f"{path} holds no points.")
    try:
        table = np.loadtxt(lines[start:], delimiter=",", ndmin=2)
    except ValueError as error:
        raise ValueError(
            f"{path} must hold numbers separated by commas, one point per line, after at most one line "
            f"of names: {_first_fault(lines, start) or str(error).rstrip('.')}."
        ) from error
    if indexed and (table[:, 0] == np.arange(len(table))).all():
        warn(
            f"column 0 of {path} has no name and counts 0, 1, 2, ...: this index is read as a "
            "coordinate; write the file without it, in pandas with `index=False`."
        )
    return [name.strip().strip('"') for name in names] if start else [], table


def _is_index(names: list[str]) -> bool:
    """Whether a first line is one of pandas, which leaves the name of the index out and may count the
    columns."""
    first, *others = (name.strip().strip('"') for name in names or ["a"])
    counted = others == [str(k) for k in range(len(others))]
    return not first and bool(others) and (counted or not any(map(_starts_number, others)))


def _starts_number(cell: str) -> bool:
    """Whether a cell is a number or was meant to be one."""
    return re.match(r"\s*[-+]?\.?\d|\s*[-+]?(nan|inf|infinity)\s*$", cell, re.I) is not None


def _first_fault(lines: list[str], start: int) -> str:
    """Where the first cell that is no number stands, as an editor counts."""
    for number, line in enumerate(lines[start:], start + 1):
        for column, cell in enumerate(line.split(",") if line.strip() else [], 1):
            try:
                float(cell)
            except ValueError:
                if ";" in line:
                    return f"line {number} has semicolons"
                what = f"{cell.strip()!r}, which is not a number" if cell.strip() else "nothing"
                return f"line {number}, column {column} holds {what}"
    return ""


def write_points(path: pathlib.Path, points: np.ndarray, names: list[str]) -> None:
    """An array as `.npy` or `.csv`, whole or not at all; a `.csv` begins with the names, if there are
    some."""
    content = io.BytesIO()
    if path.suffix == ".npy":
        np.save(content, points)
    else:
        if names:
            content.write((",".join(names) + "\n").encode())
        np.savetxt(content, points, delimiter=",")
    write_whole(path, content.getvalue())
