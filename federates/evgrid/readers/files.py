"""A file as bytes, text or JSON.

Files are read whole, so their size is bounded; a folder, a pipe or a device is refused before it is
opened. Text is UTF-8, or UTF-16 with a byte order mark; other encodings are refused, since they
can't be distinguished.
"""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

from evgrid.errors import ScenarioError
from evgrid.readers.faults import shown

MOST_BYTES = 512 * 2**20
"""Largest file that is read whole, bytes. Reading takes at most about eight times as much memory."""
MOST_JSON_BYTES = 256 * 2**20
"""Largest JSON file, bytes: its content takes about ten times as much memory."""

_MARKS = ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"))


def check_file(path: Path, most: int = MOST_BYTES) -> None:
    """Raise ScenarioError if there is no regular file of at most ``most`` bytes at a path."""
    try:
        found = path.stat()
    except FileNotFoundError:
        raise ScenarioError(["there is no such file"], str(path)) from None
    except (OSError, ValueError) as error:  # a NUL in the path is a ValueError
        raise ScenarioError([f"can't be read: {_reason(error)}"], str(path)) from None
    if not stat.S_ISREG(found.st_mode):
        kind = "folder" if stat.S_ISDIR(found.st_mode) else "pipe or device"
        raise ScenarioError([f"is a {kind}: must be a file"], str(path))
    if found.st_size > most:
        text = f"has {found.st_size / 2**20:.0f} MiB: must have at most {most / 2**20:.0f} MiB"
        raise ScenarioError([text], str(path))


def read_bytes(path: Path, most: int = MOST_BYTES) -> bytes:
    """The content of a file. Raises ScenarioError if it can't be read or is too large."""
    check_file(path, most)
    try:
        with path.open("rb") as stream:
            content = stream.read(most + 1)
    except OSError as error:
        raise ScenarioError([f"can't be read: {_reason(error)}"], str(path)) from None
    if len(content) > most:
        raise ScenarioError([f"has more than {most / 2**20:.0f} MiB"], str(path))
    return content


def read_text(path: Path, most: int = MOST_BYTES, encoding: str | None = None) -> str:
    """The content of a text file, without its byte order mark.

    ``encoding``: where there is a setting for it, which is named in messages; "": not stated.

    Raises
    ------
    ScenarioError
        If it can't be read, is too large, is neither UTF-8 nor UTF-16, or holds NUL characters.

    """
    content = read_bytes(path, most)
    setting, stated = encoding, encoding or "utf-8"
    mark, encoding = next(((m, e) for m, e in _MARKS if content.startswith(m)), (b"", stated))
    try:
        text = content[len(mark) :].decode(encoding)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, len(mark) + error.start) + 1
        byte = f"byte 0x{content[len(mark) + error.start]:02x} on line {line}"
        other = "" if setting is None else ", or state its encoding, such as encoding: cp1252"
        raise ScenarioError(
            [f"is no text in {encoding.upper()} ({byte}): save it as UTF-8{other}"], str(path)
        ) from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise ScenarioError([f"line {line}: holds a NUL character, which no text does"], str(path))
    return text


def read_json(path: Path) -> Any:
    """The content of a JSON file; a key that is there twice, NaN and infinity are faults.

    Raises ScenarioError.
    """
    text = read_text(path, MOST_JSON_BYTES)
    try:
        return json.loads(text, parse_constant=_refused, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        raise ScenarioError([f"line {error.lineno}: is no JSON: {error.msg}"], str(path)) from None
    except RecursionError:
        raise ScenarioError(["is nested too deeply to be read as JSON"], str(path)) from None
    except ValueError as error:
        raise ScenarioError([f"can't be read as JSON: {error}"], str(path)) from None


def _refused(name: str) -> Any:
    raise ValueError(f"holds {name}, which is no JSON")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        number = {name: position for position, (name, _) in enumerate(pairs)}
        twice = next(name for position, (name, _) in enumerate(pairs) if number[name] != position)
        raise ValueError(f"the key {shown(twice)} is there twice in one object")
    return found


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or " ".join(str(error).split())
