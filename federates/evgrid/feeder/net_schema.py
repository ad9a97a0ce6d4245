"""Schema of the tables of a pandapower net, and all faults of a net at once.

In: tables as they were read, or a whole net. Out: a sentence for each fault, and a net whose columns have
the types that the rest of the package relies on. :data:`RULES` lists the columns that are read, by table:
a number and its range, a whole number, a flag, text, or the index of an element of another table.

References, types and names count for all rows, ranges and empty cells only for those in service. Left
out: checks that need the whole net, such as elements that no source feeds
(:mod:`~evgrid.feeder.topology`), and valid elements that can't be represented (:mod:`~evgrid.feeder.grid`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from evgrid.errors import shortened

MOST_NAME = 200
"""Longest name of an element, characters."""

MOST_INDEX = 2**31 - 1
"""Largest index of an element."""

_EMPTY_TEXTS = ("", "nan", "None")
"""Texts that pandapower writes for an empty cell."""

_TYPES: dict[str, Any] = {"number": np.float64, "flag": np.bool_, "text": object}

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Rule:
    """Allowed values of a column.

    kind : ``number`` and ``whole`` (a whole number), ``flag`` (true or false), ``text``, ``name``, or
        ``reference``
    least, most : range of a number; ``above``: ``least`` itself is outside
    needed : whether an element in service must have a value; a reference always must
    infinite : whether infinity means "none"
    allowed : allowed texts; empty: any
    to : table whose index a reference must be in
    default : value of an empty cell or a missing column; None: none is filled in
    """

    kind: Literal["number", "whole", "flag", "text", "name", "reference"]
    least: float = -1e9
    most: float = 1e9
    above: bool = False
    needed: bool = False
    infinite: bool = False
    allowed: tuple[str, ...] = ()
    to: str = ""
    default: float | bool | None = None

    @property
    def always(self) -> bool:
        """Whether elements out of service must have a value, too, where those in service must."""
        return self.kind not in ("number", "whole")

    @property
    def range(self) -> str:
        """The allowed values, in words."""
        if self.kind == "flag":
            return "must be true or false"
        if self.kind in ("text", "name"):
            free = f"must be text of at most {MOST_NAME} characters"
            return f"must be {', '.join(self.allowed)} or empty" if self.allowed else free
        if self.kind == "reference":
            return f"must be the index of a {self.to}"
        what = "a whole number" if self.kind == "whole" else "a number"
        if self.above:
            return f"must be {what} above {self.least:g}, at most {self.most:g}"
        return f"must be {what} from {self.least:g} to {self.most:g}"


def _number(least: float = -1e9, most: float = 1e9, **more: Any) -> Rule:
    return Rule("number", least, most, **more)


def _positive(most: float, **more: Any) -> Rule:
    return Rule("number", 0.0, most, above=True, **more)


def _whole(least: int, most: int, **more: Any) -> Rule:
    return Rule("whole", least, most, **more)


def _to(table: str) -> Rule:
    return Rule("reference", to=table, needed=True)


_BUS = _to("bus")
_FLAG = Rule("flag", needed=True)
_OPTION = Rule("flag", default=False)
_TEXT = Rule("text")
_POWER = _number(-1e6, 1e6, needed=True)
_SCALING = _number(-1e6, 1e6, default=1.0)
_ANGLE = _number(-3600, 3600, default=0.0)
_SHARE = _number(0, 100, default=0.0)
_PARALLEL = _whole(1, 10_000, default=1)
_KV = _positive(1e4, needed=True)
_ELEMENT = {"name": Rule("name"), "in_service": _FLAG}
_AT_BUS = {**_ELEMENT, "bus": _BUS}
_PER_PHASE = {f"{q}_{phase}_{unit}": _POWER for q, unit in (("p", "mw"), ("q", "mvar")) for phase in "abc"}
_SHARES = {f"const_{kind}_{power}_percent": _SHARE for kind in "zi" for power in "pq"}
_ZERO_OF_LINE = {f"{letter}0_{unit}_per_km": _number(0) for letter, unit in
                 (("r", "ohm"), ("x", "ohm"), ("c", "nf"))}  # fmt: skip


def _taps(prefix: str, *sides: str) -> dict[str, Rule]:
    places = ("pos", "neutral", "min", "max")
    return {
        **{f"{prefix}_{place}": _number(-1e3, 1e3, default=math.nan) for place in places},
        f"{prefix}_step_percent": _number(-100, 100, default=math.nan),
        f"{prefix}_step_degree": _number(-360, 360, default=math.nan),
        f"{prefix}_side": Rule("text", allowed=sides),
        f"{prefix}_changer_type": Rule("text", allowed=("Ratio", "Symmetrical", "Ideal", "Tabular")),
    }


RULES: dict[str, dict[str, Rule]] = {
    "bus": {**_ELEMENT, "vn_kv": _KV},
    "line": {
        **_ELEMENT, "from_bus": _BUS, "to_bus": _BUS, "length_km": _number(0, 1e5, needed=True),
        "r_ohm_per_km": _number(0, needed=True), "x_ohm_per_km": _number(0, needed=True),
        "c_nf_per_km": _number(0, needed=True), "g_us_per_km": _number(0), **_ZERO_OF_LINE,
        "parallel": _PARALLEL, "max_i_ka": _number(0, infinite=True), "df": _positive(1e3),
    },
    "trafo": {
        **_ELEMENT, "hv_bus": _BUS, "lv_bus": _BUS, "sn_mva": _positive(1e6, needed=True), "vn_hv_kv": _KV,
        "vn_lv_kv": _KV, "vk_percent": _number(-1e6, 1e6, needed=True),
        "vkr_percent": _number(-1e6, 1e6, needed=True), "pfe_kw": _number(0, needed=True),
        "i0_percent": _number(-1e6, 1e6, needed=True), "shift_degree": _ANGLE, "parallel": _PARALLEL,
        "df": _positive(1e3), **_taps("tap", "hv", "lv"), "tap_dependency_table": _OPTION,
        "vk0_percent": _number(0, 1e6), "vkr0_percent": _number(0, 1e6), "mag0_percent": _number(0, 1e15),
        "mag0_rx": _number(0), "si0_hv_partial": _number(0, 1), "vector_group": _TEXT, "xn_ohm": _number(),
        "rn_ohm": _number(),
    },
    "trafo3w": {
        **_ELEMENT,
        **{f"{side}_bus": _BUS for side in ("hv", "mv", "lv")},
        **{f"sn_{side}_mva": _positive(1e6, needed=True) for side in ("hv", "mv", "lv")},
        **{f"vn_{side}_kv": _KV for side in ("hv", "mv", "lv")},
        **{f"vk_{side}_percent": _positive(1e6, needed=True) for side in ("hv", "mv", "lv")},
        **{f"vkr_{side}_percent": _number(0, 1e6, needed=True) for side in ("hv", "mv", "lv")},
        "pfe_kw": _number(0, needed=True), "i0_percent": _number(-1e6, 1e6, needed=True),
        "shift_mv_degree": _ANGLE, "shift_lv_degree": _ANGLE, **_taps("tap", "hv", "mv", "lv"),
        "tap_at_star_point": _OPTION, "tap_dependency_table": _OPTION,
    },
    "ext_grid": {**_AT_BUS, "vm_pu": _positive(10, needed=True), "va_degree": _ANGLE},
    "load": {**_AT_BUS, "p_mw": _POWER, "q_mvar": _POWER, "scaling": _SCALING, **_SHARES, "type": _TEXT},
    "asymmetric_load": {**_AT_BUS, **_PER_PHASE, "scaling": _SCALING, **_SHARES, "type": _TEXT},
    "sgen": {
        **_AT_BUS, "p_mw": _POWER, "q_mvar": _POWER, "scaling": _SCALING, "sn_mva": _positive(1e6),
        "type": _TEXT,
    },
    "asymmetric_sgen": {
        **_AT_BUS, **_PER_PHASE, "scaling": _SCALING, "sn_mva": _positive(1e6), "type": _TEXT,
    },
    "gen": {
        **_AT_BUS, "p_mw": _POWER, "vm_pu": _positive(10, needed=True), "scaling": _SCALING,
        "sn_mva": _positive(1e6), "slack": _OPTION,
    },
    "storage": {
        **_AT_BUS, "p_mw": _POWER, "q_mvar": _POWER, "scaling": _SCALING, "sn_mva": _positive(1e6),
        "max_e_mwh": _number(0, 1e9),
    },
    "motor": {
        **_AT_BUS, "pn_mech_mw": _number(0, 1e6, needed=True),
        "loading_percent": _number(0, 1e4, needed=True),
        "efficiency_percent": _positive(100, needed=True), "cos_phi": _positive(1, needed=True),
        "scaling": _SCALING,
    },
    "ward": {**_AT_BUS, "ps_mw": _POWER, "qs_mvar": _POWER, "pz_mw": _POWER, "qz_mvar": _POWER},
    "impedance": {
        **_ELEMENT, "from_bus": _BUS, "to_bus": _BUS, "sn_mva": _positive(1e6, needed=True),
        **{f"{part}{ends}_pu": _number(needed=True) for part in "rx" for ends in ("ft", "tf")},
        **{f"{part}{end}{zero}_pu": _number(default=0.0) for part in "gb" for end in "ft"
           for zero in ("", "0")},
        **{f"{part}{ends}0_pu": _number(default=0.0) for part in "rx" for ends in ("ft", "tf")},
    },
    "shunt": {
        **_AT_BUS, "p_mw": _POWER, "q_mvar": _POWER, "vn_kv": _KV, "step": _whole(0, 1000, default=1),
        "max_step": _whole(0, 1000, default=1), "step_dependency_table": _OPTION,
    },
    "switch": {
        "name": Rule("name"), "bus": _BUS, "element": _whole(0, MOST_INDEX, needed=True),
        "et": Rule("text", allowed=("b", "l", "t", "t3"), needed=True), "closed": _FLAG,
        "z_ohm": _number(0, default=0.0), "in_ka": _number(0, infinite=True),
    },
}  # fmt: skip
"""Columns that are read, by table: the units are pandapower's."""

SWITCHED = {"b": ("bus", ()), "l": ("line", ("from_bus", "to_bus")), "t": ("trafo", ("hv_bus", "lv_bus")),
            "t3": ("trafo3w", ("hv_bus", "mv_bus", "lv_bus"))}  # fmt: skip
"""Type of a switch to the table of the switched element, and the columns of its buses."""

FREQUENCY = Rule("number", 0.0, 1000.0, above=True, needed=True)
"""Rule of the net's ``f_hz``."""


def faults_of(tables: Mapping[str, Any], whole: bool = True) -> list[str]:
    """Every fault of a net's tables, a sentence each; at most 20 rows of one fault.

    Parameters
    ----------
    tables
        pandas tables by name, such as a pandapower net.
    whole
        Whether all required columns must be there; else only existing ones are checked, as in a file of
        an older format, whose columns had other names.

    """
    faults = list[str]()
    cells: dict[str, dict[str, _Cells]] = {}
    sound: dict[str, bool] = {}
    for table, rules in RULES.items():
        rows = tables.get(table)
        if rows is None or not hasattr(rows, "columns"):
            if whole or rows is not None:
                faults.append(f"has no table {table}" if rows is None else f"{table} is no table")
            continue
        found = _index_faults(table, rows)
        sound[table] = not found
        faults += found
        if found:
            continue
        cells[table] = read = {}
        live = np.ones(len(rows), np.bool_)
        if "in_service" in rows.columns and "in_service" in rules:
            read["in_service"] = _read(rows["in_service"], rules["in_service"])
            live = read["in_service"].values != 0
        for column, rule in rules.items():
            if column not in rows.columns:
                asked = np.flatnonzero(live | rule.always)
                if whole and rule.needed and column != "in_service" and len(asked):
                    faults.append(
                        f"{label(table, rows, int(asked[0]))} has no {column}{_nor(len(asked) - 1)}"
                    )
                continue
            read.setdefault(column, _read(rows[column], rule))
            faults += _column_faults(table, rows, column, rule, read[column], live)
    for table, read in cells.items():
        for column, rule in RULES[table].items():
            if rule.kind == "reference" and column in read and sound.get(rule.to):
                faults += _dangling(tables, table, column, rule, read[column])
    for table, read in cells.items():
        faults += _across(table, tables, read)
    if "switch" in cells:
        faults += _switches(tables, cells, sound)
    if whole or "f_hz" in tables:
        faults += [f"f_hz = {shown(tables.get('f_hz'))}: {FREQUENCY.range}"] * (
            not _of_one(tables.get("f_hz"), FREQUENCY)
        )
    if sound.get("bus") and not len(tables["bus"]):
        faults.append("has no buses")
    return faults


def label(table: str, rows: Any, place: int) -> str:
    """Label of a row in messages: its table, index and name."""
    name = rows["name"].iloc[place] if "name" in rows.columns else None
    text = name.strip() if isinstance(name, str) else ""
    return f"{table} {shown(rows.index[place])}" + (f" '{text[:60]}'" if text else "")


def shown(value: Any) -> str:
    """A value in a message, cut short."""
    if isinstance(value, str):
        return f"'{value}'" if len(value) <= 40 else f"'{value[:40]}…'"
    if isinstance(value, Real) and not isinstance(value, bool | np.bool_ | Integral):
        return f"{float(value):.12g}"
    text = " ".join(_written(value).split())
    return text if len(text) <= 40 else f"{text[:40]}…"


def _written(value: Any) -> str:
    try:
        return str(value)
    except (ValueError, RecursionError):  # a whole number of more digits than Python writes
        return "a number of thousands of digits"


def _nor(more: int) -> str:
    return f" (nor have {more} more)" if more else ""


# ---- cells --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Cells:
    """A column, read. ``values``: numbers, NaN where there is none (flags 0 and 1; of text 0);
    ``empty``, ``wrong``: (row,) whether the cell is empty or of another type.
    """

    values: Floats
    empty: Bools
    wrong: Bools


def _read(column: Any, rule: Rule) -> _Cells:
    """A column's cells by their type; ranges are not checked here."""
    if column.ndim != 1:  # a name of several columns
        nothing = np.zeros(len(column), np.bool_)
        return _Cells(np.full(len(column), np.nan), nothing, ~nothing)
    if isinstance(column.dtype, np.dtype) and column.dtype.kind in "iuf":
        numbers = column.to_numpy(np.float64)
        if rule.kind in ("number", "whole", "reference"):
            return _Cells(numbers, np.isnan(numbers), np.zeros(len(numbers), np.bool_))
    values = np.full(len(column), np.nan)
    empty, wrong = (np.zeros(len(column), np.bool_) for _ in range(2))
    for place, cell in enumerate(column.tolist()):
        if _is_empty(cell) or (rule.kind == "text" and cell in _EMPTY_TEXTS):
            empty[place] = True
            continue
        value = _cell(cell, rule)
        if value is None:
            wrong[place] = True
        else:
            values[place] = value
    return _Cells(values, empty, wrong)


def _is_empty(cell: Any) -> bool:
    import pandas as pd

    return cell is None or cell is pd.NA or cell is pd.NaT or (isinstance(cell, float) and math.isnan(cell))


def _cell(cell: Any, rule: Rule) -> float | None:
    """A cell as a number; None if it is of another type."""
    if rule.kind == "text":
        return 0.0 if isinstance(cell, str) and len(cell) <= MOST_NAME else None
    if rule.kind == "name":
        digits = isinstance(cell, Real) and not isinstance(cell, bool | np.bool_)
        return 0.0 if (isinstance(cell, str) or digits) and len(_written(cell)) <= MOST_NAME else None
    if isinstance(cell, bool | np.bool_):
        return float(cell) if rule.kind == "flag" else None
    if not isinstance(cell, Real):
        return None
    try:
        number = float(cell)
    except OverflowError:
        return math.inf
    return None if rule.kind == "flag" and number not in (0.0, 1.0) else number


def _of_one(value: Any, rule: Rule) -> bool:
    """Whether a single value complies with a rule."""
    number = None if _is_empty(value) else _cell(value, rule)
    return number is not None and bool(_inside(np.array([number]), rule)[0])


def _inside(values: Floats, rule: Rule) -> Bools:
    with np.errstate(invalid="ignore"):
        inside = (values > rule.least) if rule.above else (values >= rule.least)
        inside &= (values <= rule.most) | (rule.infinite & (values == np.inf))
        if rule.kind == "whole":
            inside &= values == np.round(values)
    return np.asarray(inside, np.bool_)


# ---- faults -------------------------------------------------------------------------------------


def _index_faults(table: str, rows: Any) -> list[str]:
    import pandas as pd

    names = list(rows.columns)
    if len(set(map(str, names))) < len(names):
        twice = sorted({str(name) for name in names if names.count(name) > 1})
        return [f"{table} has the column {', '.join(twice)} twice"]
    whole = Rule("whole", 0, MOST_INDEX)
    index = pd.Series(rows.index.to_numpy(), dtype=rows.index.dtype)  # as it is: 10**400 stays an object
    read = _read(index, whole)
    wrong = read.wrong | read.empty | ~_inside(read.values, whole)
    faults = shortened(
        f"{table}: the index {shown(rows.index[k])} of row {k + 1} {whole.range}"
        for k in np.flatnonzero(wrong).tolist()
    )
    if not faults and not rows.index.is_unique:
        again = np.flatnonzero(rows.index.duplicated())
        faults = shortened(f"{table}: the index {shown(rows.index[k])} is there twice" for k in again)
    return faults


def _column_faults(
    table: str, rows: Any, column: str, rule: Rule, read: _Cells, live: Bools
) -> Iterable[str]:
    asked: Bools = live | rule.always
    lacking = np.flatnonzero(read.empty & asked) if rule.needed else np.zeros(0, np.int64)
    if len(lacking):
        yield f"{label(table, rows, int(lacking[0]))} has no {column}{_nor(len(lacking) - 1)}"
    wrong = read.wrong.copy()
    if rule.kind in ("number", "whole"):
        wrong |= ~read.empty & ~read.wrong & live & ~_inside(read.values, rule)
    if rule.allowed:
        cells = rows[column].tolist()
        wrong |= np.array(
            [isinstance(c, str) and c not in (*_EMPTY_TEXTS, *rule.allowed) for c in cells], np.bool_
        )
    yield from shortened(
        f"{label(table, rows, k)} has {column} = {shown(rows[column].iloc[k])}: {rule.range}"
        for k in np.flatnonzero(wrong).tolist()
    )


def _dangling(tables: Mapping[str, Any], table: str, column: str, rule: Rule, read: _Cells) -> Sequence[str]:
    rows = tables[table]
    lost = ~np.isin(read.values, tables[rule.to].index.to_numpy(np.float64)) & ~read.empty & ~read.wrong
    return shortened(
        f"{label(table, rows, k)} has {column} = {shown(rows[column].iloc[k])}: there is no such {rule.to}"
        for k in np.flatnonzero(lost).tolist()
    )


def _across(table: str, tables: Mapping[str, Any], read: Mapping[str, _Cells]) -> Iterable[str]:
    """Faults of several cells of a row."""
    rows = tables[table]
    nothing = np.full(len(rows), np.nan)

    def of(column: str) -> Floats:
        return read[column].values if column in read else nothing

    live = of("in_service") != 0
    checks: list[tuple[Bools, Callable[[int], str]]] = []
    ends = next((pair for pair in (("from_bus", "to_bus"), ("hv_bus", "lv_bus")) if pair[0] in read), None)
    if ends is not None and table != "trafo3w":
        a, b = ends
        checks.append((of(a) == of(b), lambda k: f"has {a} and {b} = {shown(of(a)[k])}: must differ"))
    if table in ("trafo", "trafo3w"):
        low, high = of("tap_min"), of("tap_max")
        checks.append(
            (low > high, lambda k: f"has tap_min = {low[k]:g} and tap_max = {high[k]:g}: must be in order")
        )
        with np.errstate(invalid="ignore"):
            factor = 1 + (of("tap_pos") - of("tap_neutral")) * of("tap_step_percent") / 100
        checks.append(
            (
                factor <= 0,
                lambda k: (
                    f"has tap_pos = {of('tap_pos')[k]:g} at {of('tap_step_percent')[k]:g} % a step: "
                    "its rated voltage must stay above 0"
                ),
            )
        )
    if table == "trafo3w":
        for side in ("hv", "mv", "lv"):
            vk, vkr = of(f"vk_{side}_percent"), of(f"vkr_{side}_percent")
            checks.append(
                (
                    vkr > vk,
                    lambda k, side=side, vk=vk, vkr=vkr: (  # type: ignore[misc]
                        f"has vkr_{side}_percent = {vkr[k]:g} and vk_{side}_percent = {vk[k]:g}: "
                        "must be at most that"
                    ),
                )
            )
        buses = [of(f"{side}_bus") for side in ("hv", "mv", "lv")]
        same = (buses[0] == buses[1]) | (buses[1] == buses[2]) | (buses[0] == buses[2])
        checks.append((same, lambda k: "has the same bus at two sides: must differ"))
    for wrong, text in checks:
        yield from shortened(
            f"{label(table, rows, k)} {text(k)}" for k in np.flatnonzero(wrong & live).tolist()
        )


def _switches(
    tables: Mapping[str, Any], cells: Mapping[str, Mapping[str, _Cells]], sound: Mapping[str, bool]
) -> Iterable[str]:
    """Switches of missing elements, or at a bus that is no end of their element."""
    rows, read = tables["switch"], cells["switch"]
    if not {"et", "element", "bus"} <= set(read) or not len(rows):
        return
    element, bus = read["element"].values, read["bus"].values
    kinds = np.array([et if isinstance(et, str) else "" for et in rows["et"].tolist()])
    for kind, (table, ends) in SWITCHED.items():
        chosen = (kinds == kind) & np.isfinite(element)
        if not chosen.any() or not sound.get(table):
            continue
        index = tables[table].index.to_numpy(np.float64)
        lost = chosen & ~np.isin(element, index)
        yield from shortened(
            f"{label('switch', rows, k)} has element = {element[k]:g}: there is no such {table}"
            for k in np.flatnonzero(lost).tolist()
        )
        if not ends:
            same = chosen & (element == bus)
            yield from shortened(
                f"{label('switch', rows, k)} has bus and element = {bus[k]:g}: must differ"
                for k in np.flatnonzero(same).tolist()
            )
            continue
        if not all(end in cells[table] for end in ends):
            continue
        order = np.argsort(index)
        at = order[np.searchsorted(index, element[chosen & ~lost], sorter=order)]
        there = np.zeros(len(rows), np.bool_)
        there[chosen & ~lost] = np.any(
            [cells[table][end].values[at] == bus[chosen & ~lost] for end in ends], axis=0
        )
        yield from shortened(
            f"{label('switch', rows, k)} is at bus {bus[k]:g}: must be at an end of {table} {element[k]:g}"
            for k in np.flatnonzero(chosen & ~lost & ~there).tolist()
        )


# ---- a sound net --------------------------------------------------------------------------------


def tidy(net: Any) -> None:
    """Give the columns of a net without faults their types, names without spaces at their ends, and
    empty cells their defaults. Columns that are not read are dropped, and so are elements out of service
    that have no rules. Changes the net.
    """
    import pandas as pd
    from pandapower import create_empty_network

    usual = create_empty_network(add_stdtypes=False)
    for table, rules in RULES.items():
        rows = net[table]
        columns: dict[str, Any] = {}
        for column, rule in rules.items():
            if column not in rows.columns:
                if column == "in_service":
                    columns[column] = np.ones(len(rows), np.bool_)
                elif rule.default is not None:
                    columns[column] = np.full(len(rows), rule.default)
                elif rule.needed:
                    columns[column] = np.zeros(len(rows), _TYPES.get(rule.kind, np.int64))
                continue
            read = _read(rows[column], rule)
            if rule.kind == "name":
                columns[column] = np.array([_name(cell) for cell in rows[column].tolist()], object)
            elif rule.kind == "flag":
                columns[column] = np.where(read.empty, bool(rule.default), read.values != 0)
            elif rule.kind in ("number", "whole"):
                default = np.nan if rule.default is None else float(rule.default)
                values = np.where(read.empty | read.wrong, default, read.values)
                columns[column] = values.astype(np.int64) if column == "element" else values
            elif rule.kind == "reference":
                columns[column] = read.values.astype(np.int64)
            else:
                cells = rows[column].tolist()
                columns[column] = np.array(
                    [None if read.empty[k] else c for k, c in enumerate(cells)], object
                )
        index = pd.Index(rows.index.to_numpy(np.int64), name=rows.index.name)
        new = {c: pd.Series(v, index=index) for c, v in columns.items()}
        for column in ("geo", *usual[table].columns):
            if column in new:
                continue
            there = column in usual[table].columns
            kind: Any = usual[table][column].dtype if there else np.dtype(object)
            if column in rows.columns and _like(rows[column].dtype, kind):
                new[column] = rows[column].set_axis(index)
            elif there:
                empty = usual[table][column].reindex(index)
                new[column] = empty if kind.kind in "fO" else empty.astype(object)
        net[table] = pd.DataFrame(new, index=index)
    for table, rows in net.items():
        if table in RULES or not isinstance(rows, pd.DataFrame) or table.startswith(("res_", "_")):
            continue
        if "in_service" in rows.columns:
            live = [bool(cell) and not _is_empty(cell) for cell in rows["in_service"].tolist()]
            rows = rows.loc[np.array(live, np.bool_)].copy()
        net[table] = rows if len(rows) or table not in usual else usual[table]


def _like(given: Any, usual: Any) -> bool:
    """Whether a column of one type can replace pandapower's of the other."""
    return bool(given.kind == usual.kind or (given.kind in "iuf" and usual.kind in "iuf"))


def _name(cell: Any) -> str | None:
    """A name as text: whole numbers without a point, without spaces at its ends; None if it is empty."""
    if _is_empty(cell):
        return None
    if isinstance(cell, float | np.floating) and cell.is_integer():
        cell = int(cell)
    return str(cell).strip() or None
