"""Mutated networks: seeded, of several nets, as pandapower JSON and Excel files.

:func:`mutants` yields them, :func:`outcome` reads, describes and solves one and says how that ended. Both
need nothing else of the tests. A mutation changes cells, columns, rows, indices, tables, parameters, the
structure of the file, or its bytes.
"""

from __future__ import annotations

import copy
import io
import json
import math
import random
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

RUNS, REFUSED = "runs", "refused"
"""How reading and solving a network may end: a power flow, or a sentence for each fault."""

MOST_LINES = 20 * 60
"""Lines of a message: 20 rows of each fault, and there are not more faults than columns."""

VALUES: tuple[Any, ...] = (
    None, math.nan, math.inf, -math.inf, 0, -1, 1, 2, 0.5, -0.25, 1e-300, 1e308, -1e308, 10**400, 999999,
    2**31, 2**63, -(2**70), True, False, "", " ", "text", "0,4", "1e5", "nan", "None", "\u0000", "x" * 5000,
    " H/2 ", "é", "b", "l", "t", "t3", "hv", "lv", "Ratio", "Dyn5", "wye", "delta", [], [1], {}, {"a": 1},
    "2026-01-01T00:00", "[1, 2]",
    '{"_module": "os", "_class": "system", "_object": "true"}',
)  # fmt: skip
"""What cells and parts are replaced with."""


@dataclass(frozen=True)
class Mutant:
    """A mutated network. ``name``: net, seed and what was done; ``suffix``: of its file."""

    name: str
    suffix: str
    content: bytes


def mutants(seed: int, count: int) -> Iterator[Mutant]:
    """The first ``count`` mutants of a seed; the same ones whenever it is asked."""
    for number in range(count):
        rng = random.Random(f"{seed}/{number}")
        name = rng.choice(NETS)
        # large ones seldom, they take time
        if name == "european_lv" and rng.random() < 0.8:
            name = "everything"
        done, suffix, content = _mutate(rng, base(name))
        yield Mutant(f"{name} {seed}/{number}: {done}", suffix, content)


def outcome(mutant: Mutant, folder: Path) -> str:
    """Write a mutant in a folder, read, describe and solve it: :data:`RUNS` or :data:`REFUSED`.

    Raises
    ------
    AssertionError
        If a message is no sentence.
    Exception
        Whatever else escapes: what a user would see as a traceback.

    """
    from evgrid.errors import EvgridError
    from evgrid.feeder.describe import describe_network
    from evgrid.feeder.networks import load_network
    from evgrid.feeder.solvers import check_balance, make_solver
    from evgrid.scenario.feeder import Feeder

    path = folder / f"net{mutant.suffix}"
    path.write_bytes(mutant.content)
    ends = {}
    solver = "pandapower" if "cigre" in mutant.name else "power-grid-model"
    if "everything" in mutant.name:
        solver = "auto"
    settings = Feeder.model_validate({"network": str(path), "solver": solver})

    def describe() -> None:
        describe_network(settings)

    def solve() -> None:
        network = load_network(settings)
        loads = network.grid.loads
        p, q = loads.p_kw[np.newaxis], loads.q_kvar[np.newaxis]
        made = make_solver(network, settings.solver)
        check_balance(made.solve(p, q), p, made.balance_tolerance)

    for what in (describe, solve):
        try:
            what()
            ends[what.__name__] = RUNS
        except EvgridError as error:
            ends[what.__name__] = REFUSED
            _is_sentence(str(error), mutant.name)
    return ends["solve"]


def _is_sentence(text: str, name: str) -> None:
    assert text.strip(), f"{name}: an empty message"
    assert "Traceback" not in text, f"{name}: {text}"
    assert text.count("\n") < MOST_LINES, f"{name}: {text.count(chr(10))} lines"
    assert max(map(len, text.splitlines())) < 2000, f"{name}: a line of {max(map(len, text.splitlines()))}"


# ---- nets ---------------------------------------------------------------------------------------


def _everything(three_phase: bool) -> Any:
    """A small net with an element of each kind."""
    import pandapower as pp

    net = pp.create_empty_network(f_hz=50.0, name="everything")
    b = [pp.create_bus(net, 20.0 if i < 2 else 0.4, name=f"B{i}",
                       geodata=(8.0 + i / 100, 47.0)) for i in range(9)]  # fmt: skip
    pp.create_ext_grid(net, b[0], vm_pu=1.02, va_degree=10.0, name="grid")
    zero = {"r0_ohm_per_km": 0.8, "x0_ohm_per_km": 0.3, "c0_nf_per_km": 150.0}
    pp.create_line_from_parameters(net, b[0], b[1], 3.0, 0.2, 0.12, 250.0, 0.3, name="mv", **zero)
    pp.create_transformer_from_parameters(
        net, b[1], b[2], 0.4, 20.0, 0.4, 1.2, 4.0, pfe_kw=1.2, i0_percent=0.3, shift_degree=30,
        vector_group="Dyn", vk0_percent=3.5, vkr0_percent=1.0, mag0_percent=100.0, mag0_rx=0.2,
        si0_hv_partial=0.7, tap_side="hv", tap_neutral=0, tap_pos=1, tap_min=-2, tap_max=2,
        tap_step_percent=2.5, tap_step_degree=0.0, tap_changer_type="Ratio", parallel=2, name="T1",
    )  # fmt: skip
    lines = [
        pp.create_line_from_parameters(net, b[i], b[j], km, 0.3, 0.1, 10.0, 0.2, name=f"L{i}{j}", **zero)
        for i, j, km in ((2, 3, 0.05), (3, 4, 0.04), (4, 5, 0.06), (5, 6, 0.05), (6, 2, 0.2), (5, 7, 0.05))
    ]
    pp.create_switch(net, b[6], lines[4], "l", closed=False, name="S0")
    pp.create_switch(net, b[7], b[8], "b", closed=True, name="S1")
    pp.create_switch(net, b[1], 0, "t", closed=True, name="S2")
    pp.create_load(net, b[5], 0.03, 0.01, type="wye", name="sym")
    pp.create_sgen(net, b[4], 0.009, 0.002, sn_mva=0.01, type="wye", scaling=0.5, name="pv")
    pp.create_storage(net, b[3], 0.002, 0.01, name="battery")
    pp.create_shunt(net, b[6], -0.001, 0.0, step=1, max_step=2, name="cap")
    if three_phase:
        pp.create_asymmetric_load(net, b[8], 0.02, 0.0, 0.005, 0.004, 0.0, 0.001, type="wye", name="asym")
        pp.create_asymmetric_sgen(net, b[4], 0.0, 0.003, 0.0, type="wye", name="pv1")
        pp.create_asymmetric_load(net, b[6], 0.004, 0.0, 0.002, type="delta", name="between")
        pp.create_gen(net, b[3], 0.002, vm_pu=1.01, name="held")
        return net
    pp.create_load(net, b[8], 0.02, 0.005, const_z_p_percent=30, const_i_p_percent=20, name="zip")
    pp.create_motor(net, b[5], 0.003, 0.9, name="motor")
    pp.create_ward(net, b[6], 0.001, 0.0, 0.0005, 0.0, name="ward")
    pp.create_impedance(net, b[4], b[7], 0.05, 0.05, 1.0, name="impedance")
    far = pp.create_bus(net, 10.0, name="far")
    pp.create_transformer3w_from_parameters(
        net, b[0], far, pp.create_bus(net, 0.4, name="near"), 20.0, 10.0, 0.4, 1, 1, 1, 5, 5, 5, 1, 1, 1,
        0, 0, name="T3",
    )  # fmt: skip
    pp.create_load(net, far, 0.1, 0.02, name="far load")
    pp.create_gen(net, b[3], 0.01, name="out", in_service=False)
    pp.create_gen(net, b[6], 0.002, vm_pu=1.01, name="held")
    return net


NETS = ("everything", "everything_3ph", "case33bw", "cigre_lv", "cigre_mv", "european_lv")
"""Nets that are mutated."""


@lru_cache
def base(name: str) -> dict[str, Any]:
    """A net as the content of its JSON file, tables as {columns, index, data}; not to be changed."""
    import pandapower as pp
    import pandapower.networks

    makers: dict[str, Callable[[], Any]] = {
        "everything": lambda: _everything(False),
        "everything_3ph": lambda: _everything(True),
        "case33bw": pandapower.networks.case33bw,
        "cigre_lv": pandapower.networks.create_cigre_network_lv,
        "cigre_mv": lambda: pandapower.networks.create_cigre_network_mv(with_der="all"),
        "european_lv": pandapower.networks.ieee_european_lv_asymmetric,
    }
    content: dict[str, Any] = json.loads(pp.to_json(makers[name]()))
    tables = content["_object"]
    for key, value in list(tables.items()):
        if isinstance(value, dict) and value.get("_class") == "DataFrame":
            if key.startswith("res_") or (
                key not in ("bus", "gen") and value["_object"].endswith('"data":[]}')
            ):
                del tables[key]
            else:
                value["_object"] = json.loads(value["_object"])
    tables.pop("std_types", None)
    return content


# ---- mutations ----------------------------------------------------------------------------------


def _mutate(rng: random.Random, whole: dict[str, Any]) -> tuple[str, str, bytes]:
    content = copy.deepcopy(whole)
    suffix = ".xlsx" if rng.random() < 0.15 else ".json"
    kinds = [*_OF_TABLES] * 6 + ([] if suffix == ".xlsx" else [*_OF_DOCUMENTS])
    done = []
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        kind = rng.choice(kinds)
        if not isinstance(content.get("_object"), dict):
            break
        done.append(f"{kind.__name__[1:]} {kind(rng, content) or ''}".strip())
    written = _excel(content) if suffix == ".xlsx" else _json(rng, content)
    if rng.random() < 0.08:
        change = rng.choice(_OF_BYTES)
        written = change(rng, written)
        done.append(change.__name__[1:])
    return ", ".join(done), suffix, written


def _table(rng: random.Random, content: dict[str, Any]) -> tuple[str, dict[str, Any]] | None:
    """One of the net's tables, large ones no more often than small ones."""
    tables = {
        key: value["_object"]
        for key, value in content["_object"].items()
        if isinstance(value, dict) and isinstance(value.get("_object"), dict) and value["_object"].get("data")
    }
    if not tables:
        return None
    name = rng.choice(sorted(tables))
    return name, tables[name]


def _place(rng: random.Random, table: dict[str, Any]) -> tuple[int, int]:
    return rng.randrange(len(table["data"])), rng.randrange(len(table["columns"]))


def _cell(rng: random.Random, content: dict[str, Any]) -> str | None:
    found = _table(rng, content)
    if found is None or not found[1]["columns"]:
        return None
    row, column = _place(rng, found[1])
    value = found[1]["data"][row][column] = rng.choice(VALUES)
    return f"{found[0]}.{found[1]['columns'][column]}[{row}] = {_short(value)}"


def _short(value: Any) -> str:
    return "10**400" if value == 10**400 else str(value)[:30]


def _column(rng: random.Random, content: dict[str, Any]) -> str | None:
    found = _table(rng, content)
    if found is None or not found[1]["columns"]:
        return None
    name, table = found
    _, column = _place(rng, table)
    said = f"{name}.{table['columns'][column]}"
    action = rng.choice(("set", "drop", "rename", "double", "negate", "scale", "shuffle", "empty"))
    value, factor = rng.choice(VALUES), rng.choice((0, 1e-12, 1e-3, 1e3, 1e12, -1))
    if action == "drop" or action == "double":
        for row in [table["columns"], *table["data"]]:
            if action == "drop":
                del row[column]
            else:
                row.append(row[column])
        return f"{said} {action}"
    if action == "rename":
        table["columns"][column] = rng.choice(("", "x", "bus", "name", "in_service", 5, None))
        return f"{said} renamed"
    cells = [row[column] for row in table["data"]]
    if action == "shuffle":
        rng.shuffle(cells)
    for row, cell in zip(table["data"], cells, strict=True):
        number = isinstance(cell, int | float) and not isinstance(cell, bool)
        if action in ("negate", "scale"):
            row[column] = (-cell if action == "negate" else cell * factor) if number else cell
        else:
            row[column] = {"set": value, "empty": None, "shuffle": cell}[action]
    return f"{said} {action}" + (f" {factor:g}" if action == "scale" else "")


def _row(rng: random.Random, content: dict[str, Any]) -> str | None:
    found = _table(rng, content)
    if found is None:
        return None
    name, table = found
    row = rng.randrange(len(table["data"]))
    action = rng.choice(("drop", "double", "again", "short", "index", "many"))
    if action == "drop":
        del table["data"][row], table["index"][row]
    elif action in ("double", "again"):
        table["data"].append(list(table["data"][row]))
        table["index"].append(max(table["index"], key=str) if action == "double" else 10**5 + row)
    elif action == "short":
        table["data"][row] = table["data"][row][:-1] + rng.choice(([], [1, 2, 3]))
    elif action == "index":
        table["index"][row] = rng.choice(VALUES)
    else:
        table["data"] += [list(table["data"][row]) for _ in range(40)]
        table["index"] += range(10**6, 10**6 + 40)
    return f"{name} row {row} {action}"


def _reference(rng: random.Random, content: dict[str, Any]) -> str | None:
    found = _table(rng, content)
    if found is None:
        return None
    name, table = found
    columns = [k for k, c in enumerate(table["columns"]) if "bus" in str(c) or c in ("element", "et")]
    if not columns:
        return None
    row, column = rng.randrange(len(table["data"])), rng.choice(columns)
    other = [r[column] for r in table["data"]]
    value = table["data"][row][column] = rng.choice((-1, 999999, 2**31, 1.5, None, "b", "t3", *other))
    return f"{name}.{table['columns'][column]}[{row}] = {value}"


def _whole_table(rng: random.Random, content: dict[str, Any]) -> str | None:
    found = _table(rng, content)
    if found is None:
        return None
    name, table = found
    action = rng.choice(("drop", "rows", "all", "swap", "value"))
    if action == "drop":
        del content["_object"][name]
    elif action == "rows":
        table["data"], table["index"] = [], []
    elif action == "all":
        table["columns"], table["data"], table["index"] = [], [], []
    elif action == "swap":
        other = _table(rng, content)
        assert other is not None
        content["_object"][name]["_object"], content["_object"][other[0]]["_object"] = other[1], table
    else:
        content["_object"][name] = rng.choice(VALUES)
    return f"{name} {action}"


def _parameter(rng: random.Random, content: dict[str, Any]) -> str:
    key = rng.choice(
        ("f_hz", "name", "version", "format_version", "sn_mva", "bus", "user_pf_options", "items", "x")
    )
    value = rng.choice((*VALUES, "2.0.0", "1.0", "99.0.0", "3.0.0"))
    content["_object"][key] = value
    return f"{key} = {_short(value)}"


def _out_of_service(rng: random.Random, content: dict[str, Any]) -> str | None:
    found = _table(rng, content)
    if found is None or "in_service" not in found[1]["columns"]:
        return None
    column = found[1]["columns"].index("in_service")
    for row in found[1]["data"]:
        if len(row) > column and rng.random() < 0.7:
            row[column] = False
    return found[0]


_OF_TABLES = (_cell, _cell, _cell, _column, _row, _reference, _whole_table, _parameter, _out_of_service)


def _part(rng: random.Random, content: dict[str, Any]) -> str:
    """Any part of the document, at any level."""
    at: Any = content
    for _ in range(rng.randrange(1, 7)):
        keys = list(at) if isinstance(at, dict) else range(len(at)) if isinstance(at, list) else ()
        if not len(keys):
            break
        key = rng.choice(keys)
        if not isinstance(at[key], dict | list) or not at[key] or rng.random() < 0.3:
            if at is content and key == "_object" and rng.random() < 0.9:
                at = at[key]
                continue
            at[key] = rng.choice(VALUES)
            return str(key)[:30]
        at = at[key]
    return "nothing"


def _types(rng: random.Random, content: dict[str, Any]) -> str | None:
    tables = [
        v for v in content["_object"].values() if isinstance(v, dict) and isinstance(v.get("dtype"), dict)
    ]
    if not tables:
        return None
    table = rng.choice(tables)
    if table["dtype"]:
        column = rng.choice(sorted(table["dtype"]))
        kinds = (
            "bool",
            "uint8",
            "int64",
            "float16",
            "datetime64[ns]",
            "category",
            "float999",
            "object",
            5,
            None,
        )
        table["dtype"][column] = rng.choice(kinds)
    table[rng.choice(("orient", "is_multiindex", "index_name", "storage_options"))] = rng.choice(VALUES)
    return "dtype"


def _code(rng: random.Random, content: dict[str, Any]) -> str:
    module = rng.choice(("os", "subprocess", "builtins", "pandapower.control", "pandas", "evil", "", 5))
    thing: Any = {"_module": module, "_class": rng.choice(("system", "exec", "function", "DataFrame")),
                  "_object": rng.choice(("touch x", {}, [], None))}  # fmt: skip
    for _ in range(rng.randrange(3)):
        thing = json.dumps(thing) if rng.random() < 0.5 else {"a": [thing]}
    content["_object"][rng.choice(("controller", "bus", "x", "name", "line"))] = thing
    return str(module)


def _deep(rng: random.Random, content: dict[str, Any]) -> str:
    content["_object"][rng.choice(("bus", "x", "controller"))] = "@deep@"
    return "nesting"


_OF_DOCUMENTS = (_part, _part, _part, _types, _code, _deep)


def _truncated(rng: random.Random, content: bytes) -> bytes:
    return content[: rng.randrange(len(content))] if content else content


def _flipped(rng: random.Random, content: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice((1, 5, 50))):
        if changed:
            changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)


def _replaced(rng: random.Random, content: bytes) -> bytes:
    return rng.choice(
        (b"", b"null", b"[]", b"{}", b'"text"', b"5", b"\x00" * 100, b"PK\x03\x04", b"\xff\xfe", b"NaN")
    )


def _text(rng: random.Random, content: bytes) -> bytes:
    old, new = rng.choice(((b"true", b"1"), (b"null", b"NaN"), (b":", b"::"), (b"0", b"00"),
                           (b"1", b"9" * 4400), (b'"', b"'"), (b"e", b"\xe9")))  # fmt: skip
    return content.replace(old, new, rng.choice((1, 10)))


_OF_BYTES = (_truncated, _flipped, _replaced, _text)


# ---- writing ------------------------------------------------------------------------------------


def _json(rng: random.Random, content: dict[str, Any]) -> bytes:
    tables = content.get("_object")
    for value in tables.values() if isinstance(tables, dict) else ():
        if isinstance(value, dict) and isinstance(value.get("_object"), dict) and "_class" in value:
            value["_object"] = json.dumps(value["_object"])
    depth = rng.choice((100, 900, 100_000))
    return json.dumps(content).replace('"@deep@"', "[" * depth + "]" * depth).encode()


def _excel(content: dict[str, Any]) -> bytes:
    from openpyxl import Workbook
    from openpyxl.cell import WriteOnlyCell

    book = Workbook(write_only=True)

    def plain(value: Any) -> Any:
        if isinstance(value, list | dict):
            value = json.dumps(value)
        if isinstance(value, float) and not math.isfinite(value):
            return None if math.isnan(value) else str(value)
        if isinstance(value, str):
            return value.replace("\u0000", "")[:2000]
        return value if not isinstance(value, int) or abs(value) < 2**60 else "9" * 100

    parameters = {}
    for name, value in content["_object"].items():
        table = value.get("_object") if isinstance(value, dict) else None
        if isinstance(table, dict) and isinstance(table.get("data"), list):
            sheet = book.create_sheet(str(name)[:31] or "x")
            sheet.append([None, *(plain(column) for column in table["columns"])])
            for index, row in zip(table["index"], table["data"], strict=False):
                sheet.append([WriteOnlyCell(sheet, plain(index)), *(plain(cell) for cell in row)])
        else:
            parameters[name] = value
    sheet = book.create_sheet("parameters")
    sheet.append([None, *parameters])
    sheet.append([0, *(plain(value) for value in parameters.values())])
    written = io.BytesIO()
    book.save(written)
    return written.getvalue()


def bomb(size: int) -> bytes:
    """An Excel file whose sheet says that it is large when it is unpacked."""
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/worksheets/sheet1.xml", b" " * size)
    return written.getvalue()
