"""OpenDSS files as the commands that describe a network, and nothing else.

In: the path of a .dss file. Out: its commands, those of redirected files in their place, with file and line,
for :mod:`evgrid.feeder.opendss.engine`.

A .dss file is a script of OpenDSS. Only commands that describe a network reach the engine
(:data:`DESCRIBING`). Those that solve, show or export (:data:`REPORTING`) are left out and counted, since
evgrid solves by itself. All others are refused by name: a shell, an editor, other folders for data, code of a
user's that the engine would load. A command may be abbreviated as long as no other one begins like it.
"""

from __future__ import annotations

import re
import stat
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from evgrid.errors import NetworkError

DESCRIBING = frozenset(
    {
        "new", "edit", "more", "m", "~", "select", "open", "close", "enable", "disable", "set", "clear",
        "clearall", "calcvoltagebases", "setkvbase", "buildy", "makebuslist", "batchedit", "redirect",
        "compile", "buscoords", "latlongcoords", "setbusxy", "var", "allocateloads",
    }
)  # fmt: skip
"""Commands that describe a network; redirect and compile are followed here, the engine gets the others."""

REPORTING = frozenset(
    {
        "solve", "show", "plot", "visualize", "export", "summary", "sample", "reset", "interpolate", "help",
        "?", "get", "about", "formedit", "guids", "di_plot", "comparecases", "yearlycurves", "voltages",
        "currents", "powers", "seqvoltages", "seqcurrents", "seqpowers", "losses", "phaselosses",
        "cktlosses", "totals", "closedi", "nodelist", "addbusmarker", "clearbusmarkers", "relcalc",
        "capacity", "cleanup", "fileedit",
    }
)  # fmt: skip
"""Commands that solve, show or export; left out."""

REFUSED = frozenset(
    {
        "shell", "doscmd", "cd", "save", "dump", "uuids", "upgrade", "exit", "cvrtloadshapes", "newactor",
        "clonecircuit", "solveall", "rotate", "reduce", "rephase", "reconductor", "remove", "distribute",
        "estimate", "connect", "disconnect", "variable", "zipopen", "zipredirect",
    }
)  # fmt: skip
"""Commands that do more than describe a network, so that the message can name them."""

REPORT_OPTIONS = (
    "editor", "recorder", "demandinterval", "diverbose", "casename", "showexport", "overloadreport",
    "voltexceptionreport", "voltexcept", "markercode", "nodewidth", "markcapacitors", "markregulators",
)  # fmt: skip
"""Options of ``set`` that only matter to reports; a line with one is left out."""

REFUSED_OPTIONS = ("datapath", "registry", "numactors", "activeactor", "parallel", "cpu")
"""Options of ``set`` that change folders or processes."""

WITH_CODE = frozenset(
    {"generator", "pvsystem", "storage", "capcontrol", "windgen", "indmach012", "vccs", "generic5"}
)
"""Classes of elements that may name a library that the engine would load."""

CODE_PROPERTIES = ("usermodel", "userdata", "shaftmodel", "shaftdata", "dynadll", "dynadata", "dynamiceq",
                   "bp1", "pyscript")  # fmt: skip
"""Properties that name code, or are for it."""

MOST_LINES, MOST_BYTES, MOST_FILES, MOST_DEPTH = 5_000_000, 1_000_000_000, 2_000, 50
"""Largest numbers of lines, bytes, files, and files redirected inside each other, of one network."""

MOST_POINTS = 10_000_000
"""Most points of a load shape: a year at 4 s has 8 million."""

_PROPERTY = re.compile(r"""([\w%.\-]+)\s*=\s*(?:"[^"]*"|'[^']*'|\([^)]*\)|\[[^\]]*\]|\{[^}]*\}|[^\s,]+)?""")
_WORD = re.compile(r"[^\s,=]+")


@dataclass(frozen=True)
class Command:
    """A command for the engine, the first word of which is ``verb`` in full ("" where it edits a property, as
    ``Line.L1.length=3``), and its place in a file.
    """

    text: str
    verb: str
    file: Path
    line: int

    @property
    def place(self) -> str:
        """File and line in messages."""
        return f"{self.file}, line {self.line}"


@dataclass
class Script:
    """A script that is read; ``left_out`` counts the commands that the engine does not get, by verb."""

    left_out: Counter[str] = field(default_factory=Counter)
    _kind: str = ""
    _lines: int = 0
    _bytes: int = 0
    _files: int = 0

    def commands(self, path: Path) -> Iterator[Command]:
        """Commands of a file and of those it redirects to, in order.

        Raises
        ------
        NetworkError
            With file and line, if a file is missing or can't be read, or a command does more than describe a
            network.

        """
        yield from self._file(path.resolve(), (), "")

    def _file(self, path: Path, inside: tuple[Path, ...], place: str) -> Iterator[Command]:
        if path in inside:
            raise NetworkError(f"{place}{path} redirects to itself")
        self._files += 1
        if len(inside) >= MOST_DEPTH or self._files > MOST_FILES:
            raise NetworkError(f"{place}more than {MOST_FILES} files, or {MOST_DEPTH} inside each other")
        folder = path.parent
        for number, text in self._lines_of(path, place):
            command = self._command(text, path, number)
            if command is None:
                continue
            if command.verb not in ("redirect", "compile"):
                yield command
                continue
            target = _file_name(text)
            if not target:
                raise NetworkError(f"{command.place}: {command.verb} names no file")
            below = _found(folder, target)
            yield from self._file(below, (*inside, path), f"{command.place}: ")
            if command.verb == "compile":
                folder = below.parent

    def _lines_of(self, path: Path, place: str) -> Iterator[tuple[int, str]]:
        """Number and text of each line that is no comment."""
        try:
            status = path.stat()
            if not stat.S_ISREG(status.st_mode):
                raise NetworkError(f"{place}{path} is no regular file")
            self._bytes += status.st_size
            if self._bytes > MOST_BYTES:
                raise NetworkError(f"{place}the files together have more than {MOST_BYTES / 1e9:g} GB")
            content = path.read_bytes()
        except FileNotFoundError:
            raise NetworkError(f"{place}there is no file {path}") from None
        except (OSError, ValueError) as error:
            raise NetworkError(f"{place}{path} can't be read: {error}") from None
        wide = content.startswith((b"\xff\xfe", b"\xfe\xff"))
        text = content.decode("utf-16" if wide else "utf-8-sig", errors="replace")
        lines = text.replace("\0", " ").splitlines()
        self._lines += len(lines)
        if self._lines > MOST_LINES:
            raise NetworkError(f"{place}the files together have more than {MOST_LINES} lines")
        in_block = False
        for number, line in enumerate(lines, 1):
            text = line.strip()
            if in_block or text.startswith("/*"):
                in_block = "*/" not in text
                continue
            text = _without_comment(text)
            if text.startswith("~"):
                text = f"~ {text[1:].lstrip()}"
            if text:
                yield number, text

    def _command(self, text: str, path: Path, line: int) -> Command | None:
        """The command of a line; None if it is left out."""
        place = f"{path}, line {line}"
        word = _WORD.match(text)
        if word is None or text[0] in "\"'([{@":
            raise NetworkError(f"{place}: '{_short(text)}' is no command")
        first, rest = word.group().lower(), text[word.end() :].lstrip()
        if rest.startswith("="):  # a property, such as Line.L1.length=3
            self._check_properties(text, first.split(".", 1)[0], place)
            _check_files(text, path.parent, place)
            return Command(text, "", path, line)
        verb = _verb(first)
        if verb in REPORTING:
            self.left_out[verb] += 1
            return None
        if verb not in DESCRIBING:
            what = (
                f"{verb} does more than describe a network"
                if verb in REFUSED
                else f"{_short(first)} is unknown"
            )
            raise NetworkError(f"{place}: the command {what}, and is refused")
        if verb == "set":
            options = [name.lower() for name in _PROPERTY.findall(rest)]
            for option in options:
                if any(refused.startswith(option) and len(option) > 2 for refused in REFUSED_OPTIONS):
                    raise NetworkError(
                        f"{place}: the option {option} is no property of a network, and is refused"
                    )
            if any(
                one.startswith(option) and len(option) > 2 for option in options for one in REPORT_OPTIONS
            ):
                self.left_out[f"set {options[0]}"] += 1
                return None
        if verb in ("new", "edit", "batchedit", "select"):
            self._kind = re.sub(r"^object\s*=\s*", "", rest, flags=re.IGNORECASE).split(".", 1)[0].lower()
        if verb in ("new", "edit", "batchedit", "more", "m", "~"):
            self._check_properties(rest, self._kind.strip("\"'([{ "), place)
        _check_files(text, path.parent, place)
        points = re.search(r"\bnpts\s*=\s*(\d+)", text, re.IGNORECASE)
        if points and int(points.group(1)) > MOST_POINTS:
            raise NetworkError(f"{place}: npts = {points.group(1)}: must be at most {MOST_POINTS}")
        return Command(f"{verb}{text[word.end() :]}", verb, path, line)

    def _check_properties(self, text: str, kind: str, place: str) -> None:
        """An error where a property may name a library that the engine would load."""
        if kind not in WITH_CODE:
            return
        for given in _PROPERTY.findall(text):
            name = given.rsplit(".", 1)[-1].lower()
            if any(code.startswith(name) for code in CODE_PROPERTIES if len(name) > 1):
                raise NetworkError(f"{place}: {name} is for code that OpenDSS would load, and is refused")
        words = _WORD.findall(_PROPERTY.sub(" ", text))
        unnamed = [word for word in words if not word.lower().startswith(f"{kind}.")]
        if unnamed:
            raise NetworkError(
                f"{place}: '{_short(unnamed[0])}': the properties of a {kind} must be given by name"
            )


def _verb(word: str) -> str:
    """The command that a word names, or abbreviates if only one begins like it; else the word."""
    known = DESCRIBING | REPORTING | REFUSED
    if word in known:
        return word
    near = [verb for verb in known if verb.startswith(word)]
    return near[0] if len(near) == 1 else word


def _without_comment(text: str) -> str:
    """A line without the comment at its end, which begins with ! or // outside quotes."""
    quote = ""
    for at, character in enumerate(text):
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        elif character == "!" or text.startswith("//", at):
            return text[:at].strip()
    return text


def _file_name(text: str) -> str:
    """The file that redirect or compile names."""
    rest = re.sub(r"^\S+\s*(?:file\s*=\s*)?", "", text, flags=re.IGNORECASE)
    quoted = re.match(r"""["'(\[{]([^"')\]}]*)""", rest)
    return quoted.group(1).strip() if quoted else (rest.split() or [""])[0]


def _check_files(text: str, folder: Path, place: str) -> None:
    """An error where a command names a device, a pipe or a socket."""
    if "/" not in text and "\\" not in text and "file" not in text.lower():
        return
    for name in re.findall(r"""[^\s,=|"'()\[\]{}]+""", text):
        with suppress(OSError, ValueError):
            mode = (folder / name.replace("\\", "/")).stat().st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                raise NetworkError(f"{place}: {_short(name)} is no regular file")


def _found(folder: Path, given: str) -> Path:
    """A file by its name in a script: with either slash, and in any case, as on Windows."""
    full = folder / given.replace("\\", "/")
    if full.exists():
        return full.resolve()
    here = Path(full.anchor)
    for part in full.parts[1:]:
        if part == "..":
            here = here.parent
            continue
        step = here / part
        if not step.exists() and here.is_dir():
            alike = [one for one in here.iterdir() if one.name.lower() == part.lower()]
            step = alike[0] if len(alike) == 1 else step
        here = step
    return here


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."
