r"""Files that are whole or not there: arrays with a JSON header, checked to the last bit.

One file is `fpflow\x00\x01\n`, the length of the header as eight bytes, the header, an npz payload
of plain arrays, and the SHA-256 of everything before it.
"""

import contextlib
import hashlib
import io
import json
import os
import pathlib
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np

MAGIC = b"fpflow\x00\x01\n"
_LARGEST_HEADER = 2**20
_DIGEST = 32

Shapes = list[tuple[tuple[int, ...], str]]


class DamagedFile(ValueError):
    """A file is not what was written: it was cut or altered, or is of another kind."""


def write_whole(path: str | os.PathLike, content: bytes) -> None:
    """Writes a file so that a reader finds the old content or all of the new, also after a crash.

    **Raises:** `OSError` where it cannot be written; nothing is left behind then.
    """
    target = pathlib.Path(path)
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        with open(partial, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, target)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    # The new name is safe only when the folder is on the disk too.
    with contextlib.suppress(OSError):
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def write_json(path: str | os.PathLike, values: Any) -> None:
    """Writes plain values as JSON, whole or not at all."""
    write_whole(path, (json.dumps(values, indent=1, allow_nan=False) + "\n").encode())


def write_arrays(path: str | os.PathLike, header: dict[str, Any], arrays: list[np.ndarray]) -> None:
    """Writes a header of plain values and arrays of plain numbers."""
    payload = io.BytesIO()
    np.savez(payload, *[np.asarray(a) for a in arrays])
    text = json.dumps(header).encode()
    content = MAGIC + len(text).to_bytes(8, "little") + text + payload.getvalue()
    write_whole(path, content + hashlib.sha256(content).digest())


def _parts(content: bytes) -> tuple[dict[str, Any], bytes]:
    """The header and the payload, after checking the frame."""
    start = len(MAGIC) + 8
    if len(content) < start + _DIGEST or not content.startswith(MAGIC):
        raise DamagedFile("it does not begin like a file written by fpflow")
    length = int.from_bytes(content[len(MAGIC) : start], "little")
    if length > min(_LARGEST_HEADER, len(content) - start - _DIGEST):
        raise DamagedFile(f"its header claims {length} bytes")
    body, digest = content[:-_DIGEST], content[-_DIGEST:]
    if hashlib.sha256(body).digest() != digest:
        raise DamagedFile("its SHA-256 does not match its content")
    try:
        header = json.loads(body[start : start + length])
    except ValueError as error:
        raise DamagedFile(f"its header is not JSON: {error}") from error
    if not isinstance(header, dict):
        raise DamagedFile("its header is not a JSON object")
    return header, body[start + length :]


def read_arrays(
    path: str | os.PathLike, shapes_of: Callable[[dict[str, Any]], Shapes]
) -> tuple[dict[str, Any], list[np.ndarray]]:
    """Reads what `write_arrays` wrote.

    **Arguments:**

    - `shapes_of`: the shape and type that each array must have, by the header; it raises
      `DamagedFile` with the reason alone where the header is none of its own.

    **Raises:** `DamagedFile` with the path and the reason, `OSError` where there is no file.
    """
    if pathlib.Path(path).is_dir():
        raise DamagedFile(f"{path} is a folder; the model of a run is the file model.fpflow in it.")
    content = pathlib.Path(path).read_bytes()
    try:
        header, payload = _parts(content)
        return header, _arrays(payload, shapes_of(header))
    except DamagedFile as error:
        raise DamagedFile(f"{path} cannot be used: {error}.") from error


def _arrays(payload: bytes, shapes: Shapes) -> list[np.ndarray]:
    try:
        with zipfile.ZipFile(io.BytesIO(payload)) as archive:
            names = [f"arr_{k}.npy" for k in range(len(shapes))]
            if archive.namelist() != names:
                raise DamagedFile(f"it holds {len(archive.namelist())} arrays, not {len(names)}")
            for info, (shape, dtype) in zip(archive.infolist(), shapes, strict=True):
                expected = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
                # Looked at before anything is unpacked: a small file may claim to be large.
                if info.compress_type != zipfile.ZIP_STORED or info.file_size > expected + 2**12:
                    raise DamagedFile(f"{info.filename} has {info.file_size} bytes")
        with np.load(io.BytesIO(payload), allow_pickle=False) as file:
            arrays = [file[f"arr_{k}"] for k in range(len(shapes))]
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise DamagedFile(str(error).rstrip(".")) from error
    for k, (array, (shape, dtype)) in enumerate(zip(arrays, shapes, strict=True)):
        if array.shape != tuple(shape) or array.dtype != np.dtype(dtype):
            raise DamagedFile(
                f"array {k} has shape {array.shape} and type {array.dtype}, not {tuple(shape)} and "
                f"{np.dtype(dtype)}"
            )
    return arrays
