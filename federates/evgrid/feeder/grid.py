"""The feeder as compact arrays: the tables of a pandapower net, in the units in which it is solved.

:func:`extract` reads the tables of a pandapower net and refuses, by name, whatever is not
represented: nothing is dropped silently. Elements out of service stay in the arrays (so that
results keep their place) with both ends open. The arrays need no pandapower, so that they can be
cached on disk.

Buses stand in the order of the net's table, and a *position* below is a place in that order.
Impedances are those of all parallel systems together. Left out: tables without effect in a
steady state with fixed set-points (controllers, measurements, costs).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evgrid.core.model import ALL_PHASES
from evgrid.errors import NetworkError, shortened
from evgrid.feeder.net_schema import shown

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Names = NDArray[np.str_]

UNLIMITED = 9999.0
"""Ratings from here on, kA or MVA, count as none: networks use such values where they know none."""

FEEDER = 0
"""Number of all sources among the elements that may be out (``evgrid.feeder.outages.Elements``)."""

MOST_TAPS = 127
"""Largest tap position that is regulated (power-grid-model keeps them in 8 bits)."""

ZERO_SEQUENCE_COLUMNS = {
    "line": ("r0_ohm_per_km", "x0_ohm_per_km", "c0_nf_per_km"),
    "trafo": ("vk0_percent", "vkr0_percent", "mag0_percent", "mag0_rx", "si0_hv_partial", "vector_group"),
}
"""Columns that a three-phase net needs."""

_REPRESENTED = {
    "asymmetric_load", "asymmetric_sgen", "bus", "ext_grid", "gen", "line", "load", "sgen", "shunt", "switch",
    "trafo",
}  # fmt: skip
_WITHOUT_EFFECT = {
    "bus_geodata", "controller", "group", "line_geodata", "measurement", "poly_cost", "pwl_cost",
    "q_capability_characteristic", "q_capability_curve_table", "shunt_characteristic_table",
    "trafo_characteristic_table",
}  # fmt: skip
_WHY = {
    "xward": "it holds a voltage, only fixed power and constant impedance are (a ward)",
    "svc": "it regulates, only fixed power is",
    "ssc": "it regulates, only fixed power is",
    "vsc": "it regulates, only fixed power is",
    "tcsc": "it regulates, only fixed power is",
    "dcline": "it is a link of direct current",
}
_BUS_COLUMNS = ("bus", "from_bus", "hv_bus", "bus_dc", "from_bus_dc", "bus_plus", "bus_dc_plus")


@dataclass(frozen=True)
class Buses:
    """Buses. ``name`` is unique; ``x``, ``y`` are NaN where the net has no coordinates."""

    name: Names
    nominal_kv: Floats
    x: Floats
    y: Floats
    in_service: Bools


@dataclass(frozen=True)
class Lines:
    """Lines between bus positions; ``from_closed`` is False at an open switch or out of service, and
    ``rating_ka`` NaN where the net gives none.
    """

    name: Names
    from_bus: Ints
    to_bus: Ints
    from_closed: Bools
    to_closed: Bools
    r1_ohm: Floats
    x1_ohm: Floats
    c1_f: Floats
    g1_s: Floats
    r0_ohm: Floats
    x0_ohm: Floats
    c0_f: Floats
    rating_ka: Floats
    length_km: Floats


@dataclass(frozen=True)
class Trafos:
    """Two-winding transformers. ``ratio_*_kv`` are the rated voltages at the tap position,
    ``rated_*_kv`` those of the nameplate; ``sn_kva`` and ``pfe_kw`` cover all parallel ones, as does
    ``rating_kva``, which is NaN where there is no rating.

    tap_* : of the tap changer, as far as it can be regulated: ``tap_side`` is 0 (high voltage), 1 (low
    voltage) or -1 (there is none); at position n the rated voltage of that side is
    1 + (n - tap_neutral) tap_step_percent / 100 of the nameplate's.
    """

    name: Names
    hv_bus: Ints
    lv_bus: Ints
    hv_closed: Bools
    lv_closed: Bools
    ratio_hv_kv: Floats
    ratio_lv_kv: Floats
    rated_hv_kv: Floats
    rated_lv_kv: Floats
    sn_kva: Floats
    rating_kva: Floats
    vk_percent: Floats
    vkr_percent: Floats
    pfe_kw: Floats
    i0_percent: Floats
    shift_degree: Floats
    vector_group: Names
    vk0_percent: Floats
    vkr0_percent: Floats
    mag0_percent: Floats
    mag0_rx: Floats
    si0_hv_partial: Floats
    tap_side: Ints
    tap_neutral: Ints
    tap_min: Ints
    tap_max: Ints
    tap_pos: Ints
    tap_step_percent: Floats


@dataclass(frozen=True)
class Sources:
    """Ideal voltage sources (external grids)."""

    bus: Ints
    voltage_pu: Floats
    angle_degree: Floats


@dataclass(frozen=True)
class Loads:
    """The loads in service, the feeder's connection points. ``p_kw``, ``q_kvar``: (load, phase).

    ``z_share``, ``i_share`` : (load, 2) share of the load's own active and reactive power that is
    constant impedance or constant current; the rest, and all that EVs draw, is constant power.
    ``delta`` : (load,) bool, whether the load and its EVs lie between the phases a and b, b and c, c and a,
    in place of phases a, b, c and the neutral. Balanced feeders do not tell these apart: False.
    """

    name: Names
    bus: Ints
    phase: NDArray[np.int8]
    p_kw: Floats
    q_kvar: Floats
    z_share: Floats
    i_share: Floats
    delta: Bools

    @property
    def voltage_dependent(self) -> bool:
        """Whether the power of some load depends on the voltage."""
        return bool(self.z_share.any() or self.i_share.any())


@dataclass(frozen=True)
class Fixed:
    """Fixed generation (``gen_p_kw``, ``gen_q_kvar``: (gen, phase), positive into the grid;
    ``gen_sn_kva`` is NaN where the net gives no rating; ``gen_kind`` is sgen, gen, or storage, motor or ward
    where it stands for one; ``gen_delta`` as in :class:`Loads`; ``gen_held_pu`` is the voltage that a gen
    holds at its bus, in place of a reactive power, else NaN) and shunts (conductance and susceptance of
    one step in S per phase; ``shunt_step`` of ``shunt_max_step`` steps are closed).
    """

    gen_name: Names
    gen_bus: Ints
    gen_p_kw: Floats
    gen_q_kvar: Floats
    gen_sn_kva: Floats
    gen_kind: Names
    shunt_name: Names
    shunt_bus: Ints
    shunt_g_s: Floats
    shunt_b_s: Floats
    shunt_step: Ints
    shunt_max_step: Ints
    gen_delta: Bools
    gen_held_pu: Floats
    gen_capacity_kwh: Floats | None = None
    """Capacity of storages, kWh, NaN where the net gives none; None: of none."""

    @property
    def holds(self) -> Bools:
        """Whether a generator holds a voltage, (gen,)."""
        return ~np.isnan(self.gen_held_pu)


@dataclass(frozen=True)
class Grid:
    """A complete feeder. ``joined`` are the pairs of bus positions connected by a closed switch;
    ``asymmetric`` is the number of loads and generators whose power differs between phases.
    """

    three_phase: bool
    frequency_hz: float
    buses: Buses
    lines: Lines
    trafos: Trafos
    sources: Sources
    loads: Loads
    fixed: Fixed
    joined: Ints
    asymmetric: int = 0

    @property
    def phases(self) -> tuple[str, ...]:
        """Labels of the phase dimension."""
        return ("a", "b", "c") if self.three_phase else ("abc",)


def has_asymmetric_power(net: Any) -> bool:
    """Whether loads or generators of the net have phases of their own: then it has three phases
    by default.
    """
    return bool(len(net.asymmetric_load) or len(net.asymmetric_sgen))


def extract(
    net: Any,
    source: str,
    solver: str,
    three_phase: bool | None = None,
    refused: Mapping[tuple[str, Any], str] | None = None,
) -> Grid:
    """Read a pandapower net.

    Parameters
    ----------
    net
        The pandapower net, see :mod:`~evgrid.feeder.equivalents`; not changed.
    source
        Name of the net in messages.
    solver
        Name of the solver, for messages.
    three_phase
        Whether phases are solved separately; left out: where the net has asymmetric loads or generators.
    refused
        Why elements could not be replaced, by table and index, for messages.

    Raises
    ------
    NetworkError
        Naming every element that is not represented, or lacks what it needs.

    """
    if three_phase is None:
        three_phase = has_asymmetric_power(net)
    faults = refusals(net, solver, three_phase, refused)
    if faults:
        raise NetworkError.of(source, faults)
    position = {index: place for place, index in enumerate(net.bus.index)}
    open_ends = {
        (str(et), int(element), int(bus))
        for et, element, bus, closed in zip(
            net.switch.et, net.switch.element, net.switch.bus, net.switch.closed, strict=True
        )
        if et != "b" and not closed
    }
    live = _in_service(net.bus)
    return Grid(
        three_phase=three_phase,
        frequency_hz=float(net.f_hz),
        buses=_buses(net),
        lines=_lines(net, position, live, open_ends, three_phase),
        trafos=_trafos(net, position, live, open_ends, three_phase),
        sources=_sources(net, position, live),
        loads=_loads(net, position, live, three_phase),
        fixed=_fixed(net, position, live, three_phase),
        joined=_joined(net, position, live),
        asymmetric=_asymmetric(net, position, live),
    )


# ---- refusals -----------------------------------------------------------------------------------


def refusals(
    net: Any, solver: str, three_phase: bool, refused: Mapping[tuple[str, Any], str] | None = None
) -> list[str]:
    """All reasons why a net can't be read, a sentence each."""
    faults = [*_unrepresented(net, solver, refused or {})]
    if three_phase:
        faults += missing_zero_sequence(net)
    faults += _unrepresented_loads(net, solver, three_phase)
    faults += [
        _refusal(net, "gen", index, solver, "it is a slack: must be an ext_grid")
        for index in net.gen.index[_in_service(net.gen) & (_column(net.gen, "slack") > 0)]
    ]
    faults += _unrepresented_trafos(net, solver, three_phase)
    live = net.bus.index[_in_service(net.bus)]
    if not net.ext_grid["bus"][_in_service(net.ext_grid)].isin(live).any():
        faults.append("has no ext_grid in service, at a bus in service, from which the feeder is fed")
    faults += [
        f"{_label(net, 'bus', index)} has geo = {shown(geo)}: must be a GeoJSON point, or empty"
        for index, geo in _geo(net)
        if _point(geo) is None
    ]
    return faults


def _label(net: Any, table: str, index: Any) -> str:
    name = net[table].at[index, "name"] if "name" in net[table].columns else None
    return f"{table} {index}" + (f" '{name}'" if isinstance(name, str) and name else "")


def _refusal(net: Any, table: str, index: Any, solver: str, why: str = "") -> str:
    text = f"{_label(net, table, index)} can't be represented with the solver {solver}"
    return f"{text}: {why}" if why else text


def _unrepresented(net: Any, solver: str, refused: Mapping[tuple[str, Any], str]) -> Iterable[str]:
    """Elements of tables that a Grid can't represent, and switches of unknown types."""
    import pandas as pd

    for table, content in net.items():
        if not isinstance(content, pd.DataFrame) or not len(content) or table.startswith(("res_", "_")):
            continue
        if table in _REPRESENTED or table in _WITHOUT_EFFECT:
            continue
        if not any(column in content.columns for column in (*_BUS_COLUMNS, "in_service")):
            continue
        yield from shortened(
            _refusal(net, table, index, solver, refused.get((table, index), _WHY.get(table, "")))
            for index in content.index[_in_service(content)]
        )
    shunts = net.shunt[_in_service(net.shunt)]
    for index in shunts.index[_column(shunts, "step_dependency_table") > 0]:
        yield _refusal(net, "shunt", index, solver, "its steps follow a characteristic table")
    for index, switch in net.switch.iterrows():
        if switch.et not in ("b", "l", "t"):
            yield _refusal(net, "switch", index, solver, f"its type et is '{switch.et}', not b, l or t")


def _unrepresented_loads(net: Any, solver: str, three_phase: bool) -> Iterable[str]:
    live = net.load[_in_service(net.load)]
    for power in ("p", "q"):
        total = _column(live, f"const_z_{power}_percent") + _column(live, f"const_i_{power}_percent")
        for index, percent in zip(live.index, total, strict=True):
            if percent > 100:
                why = f"const_z_{power}_percent + const_i_{power}_percent = {percent:g}, must be at most 100"
                yield _refusal(net, "load", index, solver, why)
    if not three_phase:
        return
    for table in ("asymmetric_load", "asymmetric_sgen"):
        for index in net[table].index[_in_service(net[table]) & ~net[table]["type"].isin(("wye", "delta"))]:
            kind = net[table].at[index, "type"]
            yield _refusal(net, table, index, solver, f"its type is {kind!r}, must be 'wye' or 'delta'")


def _unrepresented_trafos(net: Any, solver: str, three_phase: bool) -> Iterable[str]:
    trafo = net.trafo
    for index in trafo.index[_in_service(trafo)]:
        row = trafo.loc[index]
        if _number(row.get("tap_dependency_table")):
            yield _refusal(net, "trafo", index, solver, "its tap changer follows a characteristic table")
            continue
        for tap in ("tap", "tap2"):
            steps = _number(row.get(f"{tap}_pos")) - _number(row.get(f"{tap}_neutral"))
            percent, degree = _number(row.get(f"{tap}_step_percent")), _number(row.get(f"{tap}_step_degree"))
            if not steps or not (percent or degree):
                continue
            kind = row.get(f"{tap}_changer_type")
            if tap == "tap2" or kind not in ("Ratio", "Symmetrical") or degree:
                why = (
                    f"{tap}_changer_type = {kind} with {tap}_step_degree = {degree:g} at {steps:+g} steps, "
                    "only Ratio without step_degree is"
                )
                yield _refusal(net, "trafo", index, solver, why)
        vk, vkr = abs(_number(row.vk_percent)), abs(_number(row.vkr_percent))
        if not vk or vkr > vk:
            why = f"vk_percent = {vk:g} with vkr_percent = {vkr:g}, must be above 0 and at least vkr_percent"
            yield _refusal(net, "trafo", index, solver, why)
        for column in ("xn_ohm", "rn_ohm"):
            if three_phase and _number(row.get(column)):
                yield _refusal(net, "trafo", index, solver, f"its neutral is earthed over {column}")


def missing_zero_sequence(net: Any) -> Iterable[str]:
    """Data missing to solve a net in three phases, a sentence a column."""
    for table, columns in ZERO_SEQUENCE_COLUMNS.items():
        rows = net[table][_in_service(net[table])]
        for column in columns:
            lacking = rows.index if column not in rows.columns else rows.index[rows[column].isna()]
            if len(lacking):
                yield (
                    f"{_label(net, table, lacking[0])} has no {column}, needed in three phases"
                    + (f" (nor have {len(lacking) - 1} more)" if len(lacking) > 1 else "")
                    + "; give it, or choose feeder.zero_sequence: {recipe: four_wire}"
                )


# ---- tables -------------------------------------------------------------------------------------


def _in_service(table: Any) -> Bools:
    import pandas as pd

    if "in_service" not in table.columns:
        return np.ones(len(table), bool)
    flags = table["in_service"].to_numpy(object)
    return np.where(pd.isna(flags), False, flags).astype(bool)


def _number(value: Any) -> float:
    """A cell as a number; 0 where it is empty."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return 0.0
    return 0.0 if np.isnan(number) else number


def _column(table: Any, name: str, default: float = 0.0) -> Floats:
    if name not in table.columns:
        return np.full(len(table), default)
    import pandas as pd

    values = pd.to_numeric(table[name], errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    return np.where(np.isnan(values), default, values)


def _rated(table: Any, name: str) -> Floats:
    """Ratings of a table's rows; NaN where there is none."""
    values = _column(table, name, np.nan) * np.where(_column(table, "df", 1.0) > 0, 1.0, np.nan)
    return np.where((values > 0) & (values < UNLIMITED), values, np.nan)


def _names(table: Any, kind: str) -> list[str]:
    """Names that are not empty; else the element's table and index."""
    given = table["name"] if "name" in table.columns else [None] * len(table)
    return [
        str(name) if name is not None and name == name and str(name) else f"{kind} {index}"
        for name, index in zip(given, table.index, strict=True)
    ]


def _unique(names: list[str], indices: Iterable[Any]) -> Names:
    """Names, each with its index behind it where several elements share it."""
    repeated = {name for name, times in Counter(names).items() if times > 1}
    return np.array(
        [f"{n} ({i})" if n in repeated else n for n, i in zip(names, indices, strict=True)], dtype=np.str_
    )


def _positions(buses: Any, position: dict[Any, int]) -> Ints:
    return np.array([position[bus] for bus in buses], dtype=np.int64)


def _geo(net: Any) -> Iterable[tuple[Any, str]]:
    """Index and coordinates of the buses that have some."""
    column = net.bus["geo"].items() if "geo" in net.bus.columns else ()
    return [(index, geo) for index, geo in column if isinstance(geo, str) and geo]


def _point(geo: str) -> tuple[float, float] | None:
    """Coordinates of a GeoJSON point; None if it is none."""
    try:
        x, y = json.loads(geo)["coordinates"][:2]
        return float(x), float(y)
    except (KeyError, TypeError, ValueError):
        return None


def _buses(net: Any) -> Buses:
    place = {index: _point(geo) or (np.nan, np.nan) for index, geo in _geo(net)}
    found = np.array([place.get(index, (np.nan, np.nan)) for index in net.bus.index]).reshape(-1, 2)
    return Buses(
        name=_unique(_names(net.bus, "bus"), net.bus.index),
        nominal_kv=_column(net.bus, "vn_kv"),
        x=found[:, 0],
        y=found[:, 1],
        in_service=_in_service(net.bus),
    )


def _lines(
    net: Any, position: dict[Any, int], live: Bools, open_ends: set[tuple[str, int, int]], three_phase: bool
) -> Lines:
    line = net.line
    length, parallel = _column(line, "length_km"), _column(line, "parallel", 1.0)
    ends = {}
    for side in ("from", "to"):
        bus = _positions(line[f"{side}_bus"], position)
        switch = [
            ("l", int(i), int(b)) in open_ends for i, b in zip(line.index, line[f"{side}_bus"], strict=True)
        ]
        ends[side] = bus, _in_service(line) & live[bus] & ~np.array(switch, bool)
    zero = "0" if three_phase else ""
    return Lines(
        name=_unique(_names(line, "line"), line.index),
        from_bus=ends["from"][0],
        to_bus=ends["to"][0],
        from_closed=ends["from"][1],
        to_closed=ends["to"][1],
        r1_ohm=_column(line, "r_ohm_per_km") * length / parallel,
        x1_ohm=_column(line, "x_ohm_per_km") * length / parallel,
        c1_f=_column(line, "c_nf_per_km") * 1e-9 * length * parallel,
        g1_s=_column(line, "g_us_per_km") * 1e-6 * length * parallel,
        r0_ohm=_column(line, f"r{zero}_ohm_per_km") * length / parallel,
        x0_ohm=_column(line, f"x{zero}_ohm_per_km") * length / parallel,
        c0_f=_column(line, f"c{zero}_nf_per_km") * 1e-9 * length * parallel,
        rating_ka=_rated(line, "max_i_ka") * _column(line, "df", 1.0) * parallel,
        length_km=length,
    )


def _trafos(
    net: Any, position: dict[Any, int], live: Bools, open_ends: set[tuple[str, int, int]], three_phase: bool
) -> Trafos:
    trafo = net.trafo
    parallel = _column(trafo, "parallel", 1.0)
    steps = _column(trafo, "tap_pos") - _column(trafo, "tap_neutral")
    factor = 1 + steps * _column(trafo, "tap_step_percent") / 100
    tap_side = trafo["tap_side"].astype(str).to_numpy() if "tap_side" in trafo.columns else np.array([])
    rated = {side: _column(trafo, f"vn_{side}_kv") for side in ("hv", "lv")}
    ratio = {side: np.where(tap_side == side, factor, 1.0) * rated[side] for side in ("hv", "lv")}
    ends = {}
    for side in ("hv", "lv"):
        bus = _positions(trafo[f"{side}_bus"], position)
        switch = [
            ("t", int(i), int(b)) in open_ends for i, b in zip(trafo.index, trafo[f"{side}_bus"], strict=True)
        ]
        ends[side] = bus, _in_service(trafo) & live[bus] & ~np.array(switch, bool)
    vk, vkr = _column(trafo, "vk_percent"), _column(trafo, "vkr_percent")
    vk0, vkr0 = _column(trafo, "vk0_percent"), _column(trafo, "vkr0_percent")
    groups = trafo["vector_group"] if "vector_group" in trafo.columns else [None] * len(trafo)
    sn_kva = _column(trafo, "sn_mva") * 1e3 * parallel
    return Trafos(
        name=_unique(_names(trafo, "trafo"), trafo.index),
        hv_bus=ends["hv"][0],
        lv_bus=ends["lv"][0],
        hv_closed=ends["hv"][1],
        lv_closed=ends["lv"][1],
        ratio_hv_kv=ratio["hv"],
        ratio_lv_kv=ratio["lv"],
        rated_hv_kv=rated["hv"],
        rated_lv_kv=rated["lv"],
        sn_kva=sn_kva,
        rating_kva=_rated(trafo, "sn_mva") * 1e3 * parallel * _column(trafo, "df", 1.0),
        vk_percent=vk,
        vkr_percent=vkr,
        pfe_kw=_column(trafo, "pfe_kw") * parallel,
        i0_percent=_column(trafo, "i0_percent"),
        shift_degree=_column(trafo, "shift_degree"),
        vector_group=np.array([g if isinstance(g, str) else "" for g in groups], dtype=np.str_),
        vk0_percent=np.where(vk0 > 1e-8, vk0, vk) if three_phase else vk,
        vkr0_percent=np.where(vkr0 > 1e-8, vkr0, vkr) if three_phase else vkr,
        mag0_percent=_column(trafo, "mag0_percent"),
        mag0_rx=_column(trafo, "mag0_rx"),
        si0_hv_partial=_column(trafo, "si0_hv_partial"),
        **_taps(trafo),
    )


def _taps(trafo: Any) -> dict[str, Any]:
    """The tap changers that can be regulated: whole positions of a ratio between two ends."""
    whole = {name: _column(trafo, f"tap_{name}", np.nan) for name in ("neutral", "min", "max", "pos")}
    step = _column(trafo, "tap_step_percent")
    kind = trafo["tap_changer_type"] if "tap_changer_type" in trafo.columns else [None] * len(trafo)
    side = trafo["tap_side"] if "tap_side" in trafo.columns else [None] * len(trafo)
    there = np.array([k in ("Ratio", "Symmetrical") for k in kind], bool)
    there &= (step != 0) & (_column(trafo, "tap_step_degree") == 0)
    for values in whole.values():
        there &= (values == np.round(values)) & (np.abs(values) <= MOST_TAPS)
    there &= (whole["min"] < whole["max"]) & (whole["min"] <= whole["pos"]) & (whole["pos"] <= whole["max"])
    sides = np.array([{"hv": 0, "lv": 1}.get(str(s), -1) for s in side], np.int64)
    found: dict[str, Any] = {
        f"tap_{name}": np.where(there, values, 0).astype(np.int64) for name, values in whole.items()
    }
    return found | {
        "tap_side": np.where(there, sides, -1).astype(np.int64),
        "tap_step_percent": np.where(there, step, 0.0),
    }


def _sources(net: Any, position: dict[Any, int], live: Bools) -> Sources:
    grid = net.ext_grid[_in_service(net.ext_grid)]
    grid = grid[live[_positions(grid["bus"], position)]]
    return Sources(
        bus=_positions(grid["bus"], position),
        voltage_pu=_column(grid, "vm_pu", 1.0),
        angle_degree=_column(grid, "va_degree"),
    )


def _power(table: Any, quantity: str, three_phase: bool, asymmetric: bool) -> Floats:
    """Active or reactive power of a table's rows in kW or kvar, (row, phase)."""
    unit, scaling = ("mw" if quantity == "p" else "mvar"), _column(table, "scaling", 1.0)[:, np.newaxis]
    if asymmetric:
        per_phase = np.stack([_column(table, f"{quantity}_{phase}_{unit}") for phase in "abc"], axis=1)
        per_phase *= 1e3 * scaling
        return per_phase if three_phase else per_phase.sum(axis=1, keepdims=True)
    total = _column(table, f"{quantity}_{unit}")[:, np.newaxis] * 1e3 * scaling
    return np.repeat(total / 3, 3, axis=1) if three_phase else total


def _in_delta(rows: Any, three_phase: bool) -> Bools:
    """Whether the loads or sgens of a table's rows lie between the phases; nowhere if balanced."""
    if not three_phase or "vm_pu" in rows.columns or "type" not in rows.columns:
        return np.zeros(len(rows), bool)
    return np.asarray(rows["type"] == "delta", bool)


def serving(net: Any, table: str, position: dict[Any, int], live: Bools) -> Any:
    """The rows of a table in service on a bus in service."""
    rows = net[table][_in_service(net[table])]
    return rows[live[_positions(rows["bus"], position)]] if len(rows) else rows


def _loads(net: Any, position: dict[Any, int], live: Bools, three_phase: bool) -> Loads:
    phases = 3 if three_phase else 1
    names, indices = list[str](), list[Any]()
    buses, p, q = list[Ints](), list[Floats](), list[Floats]()
    shares: dict[str, list[Floats]] = {"z": [], "i": []}
    delta = list[Bools]()
    for table in ("load", "asymmetric_load"):
        rows = serving(net, table, position, live)
        names += _names(rows, table)
        indices += [f"{table} {index}" for index in rows.index]
        buses.append(_positions(rows["bus"], position))
        p.append(_power(rows, "p", three_phase, table != "load").reshape(-1, phases))
        q.append(_power(rows, "q", three_phase, table != "load").reshape(-1, phases))
        delta.append(_in_delta(rows, three_phase))
        for kind, parts in shares.items():
            percent = [_column(rows, f"const_{kind}_{power}_percent") for power in ("p", "q")]
            parts.append(np.stack(percent, axis=1) / 100)
    p_kw, q_kvar = np.concatenate(p), np.concatenate(q)
    phase = np.full(len(names), ALL_PHASES, np.int8)
    if three_phase:
        carries = (p_kw != 0) | (q_kvar != 0)
        single = carries.sum(axis=1) == 1
        phase[single] = carries[single].argmax(axis=1)
    return Loads(
        name=_unique(names, indices),
        bus=np.concatenate(buses),
        phase=phase,
        p_kw=p_kw,
        q_kvar=q_kvar,
        z_share=np.concatenate(shares["z"]),
        i_share=np.concatenate(shares["i"]),
        delta=np.concatenate(delta),
    )


def _asymmetric(net: Any, position: dict[Any, int], live: Bools) -> int:
    """Number of elements in service whose power differs between phases."""
    tables = [serving(net, table, position, live) for table in ("asymmetric_load", "asymmetric_sgen")]
    return sum(
        int(np.any([np.ptp(_power(rows, quantity, True, True), axis=1) for quantity in "pq"], axis=0).sum())
        for rows in tables
        if len(rows)
    )


def _fixed(net: Any, position: dict[Any, int], live: Bools, three_phase: bool) -> Fixed:
    phases = 3 if three_phase else 1
    names, indices = list[str](), list[Any]()
    buses, p, q, sn = list[Ints](), list[Floats](), list[Floats](), list[Floats]()
    kinds, delta, held = list[str](), list[Bools](), list[Floats]()
    capacity = list[Floats]()
    for table in ("sgen", "asymmetric_sgen", "gen"):
        rows = serving(net, table, position, live)
        names += _names(rows, table)
        indices += [f"{table} {index}" for index in rows.index]
        given = rows["stands_in"] if "stands_in" in rows.columns else [None] * len(rows)
        other = "gen" if table == "gen" else "sgen"
        kinds += [kind if isinstance(kind, str) else other for kind in given]
        held.append(_column(rows, "vm_pu", np.nan) if table == "gen" else np.full(len(rows), np.nan))
        sn.append(_column(rows, "sn_mva", np.nan) * 1e3)
        capacity.append(_column(rows, "max_e_mwh", np.nan) * 1e3)
        delta.append(_in_delta(rows, three_phase))
        buses.append(_positions(rows["bus"], position))
        asymmetric = table == "asymmetric_sgen"
        p.append(_power(rows, "p", three_phase, asymmetric).reshape(-1, phases))
        q.append(_power(rows, "q", three_phase, asymmetric).reshape(-1, phases))
    shunt = serving(net, "shunt", position, live)
    bus = _positions(shunt["bus"], position)
    steps = _column(shunt, "step", 1.0).astype(np.int64)
    squared = _column(shunt, "vn_kv") ** 2
    return Fixed(
        gen_name=_unique(names, indices),
        gen_sn_kva=np.concatenate(sn),
        gen_kind=np.array(kinds, dtype=np.str_),
        shunt_name=_unique(_names(shunt, "shunt"), shunt.index),
        shunt_step=steps,
        shunt_max_step=np.maximum(_column(shunt, "max_step", 1.0).astype(np.int64), steps),
        gen_bus=np.concatenate(buses),
        gen_p_kw=np.concatenate(p),
        gen_q_kvar=np.concatenate(q),
        shunt_bus=bus,
        shunt_g_s=_column(shunt, "p_mw") / squared,
        shunt_b_s=-_column(shunt, "q_mvar") / squared,
        gen_delta=np.concatenate(delta),
        gen_held_pu=np.concatenate(held),
        gen_capacity_kwh=np.concatenate(capacity),
    )


def _joined(net: Any, position: dict[Any, int], live: Bools) -> Ints:
    pairs = [
        (position[bus], position[element])
        for bus, element, et, closed in zip(
            net.switch.bus, net.switch.element, net.switch.et, net.switch.closed, strict=True
        )
        if et == "b" and closed and live[position[bus]] and live[position[element]]
    ]
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)
