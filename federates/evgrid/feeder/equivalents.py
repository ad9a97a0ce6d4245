"""Equivalents of a pandapower net's elements: lines, two-winding transformers and fixed power.

In: any pandapower net. Out: a copy whose elements can all be represented in a
:class:`~evgrid.feeder.grid.Grid`, notes on the replacements, and the reasons why other elements could not
be replaced. The copy gives the same power flow as the net:

============== =================================================================================
element        becomes
============== =================================================================================
trafo3w        three transformers at a star point, as pandapower itself has it
impedance      a line between its buses, if it is symmetrical and joins one voltage level
switch, z_ohm  a line with R/X = 2, as pandapower has it by default
storage        fixed power
motor          fixed power
ward           fixed power and a shunt
============== =================================================================================

A tap changer without a type counts as ``Ratio`` (pandapower would leave its position without
effect). In three phases a vector group loses its clock number (``Dyn5``), which ``shift_degree``
holds, and where the scenario says so, zero-sequence data that the net lacks follows from a recipe:

four_wire
    Lines: r0 = 4 r1, x0 = 4 x1 (the return conductor is like the phases), c0 = c1. Transformers:
    vk0 = vk, vkr0 = vkr, no zero-sequence magnetising current; the vector group is Dyn where the
    phase shift is an odd multiple of 30 degrees, else YNyn; a Yzn transformer, whose zero sequence
    closes over its magnetising impedance in pandapower, has mag0_percent = 100 and
    si0_hv_partial = 0.5. The factors of the lines are settings.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from evgrid.scenario.feeder import ZeroSequence

MAGNETISING_IMPEDANCE_PERCENT = 1e12
"""Zero-sequence magnetising impedance, percent of the short-circuit impedance, that counts as infinite."""

SWITCH_R_PER_X = 2.0
"""R/X of a switch with an impedance, pandapower's default."""

_SIDES = ("hv", "mv", "lv")


@dataclass
class Prepared:
    """A net whose elements can be represented in a Grid.

    net : the pandapower net, a copy
    notes : replacements and assumptions, a sentence each
    refused : why an element that is left can't be replaced, by table and index
    """

    net: Any
    notes: list[str] = field(default_factory=list)
    refused: dict[tuple[str, Any], str] = field(default_factory=dict)


def prepare(net: Any, three_phase: bool, zero_sequence: ZeroSequence | None = None) -> Prepared:
    """Replace elements that can't be represented in a Grid.

    ``zero_sequence`` is the recipe for zero-sequence data that the net lacks; None: none is made.
    """
    done = Prepared(copy.deepcopy(net))
    net = done.net
    done.net.sn_mva = 1.0  # only pandapower's own base; its Yzn model depends on it
    _taps(done)
    _trafos3w(done, three_phase)
    _impedances(done, three_phase)
    _switches(done)
    for table, power in (("storage", _storage_power), ("motor", _motor_power), ("ward", _ward_power)):
        rows = net[table][net[table]["in_service"].astype(bool)] if len(net[table]) else net[table]
        for index, row in rows.iterrows():
            p_mw, q_mvar = power(row)
            rated = {key: row[key] for key in ("sn_mva", "max_e_mwh") if table == "storage" and key in row}
            _fixed_power(net, row.bus, p_mw, q_mvar, _label(table, row, index), table, **rated)
            if table == "ward":
                _shunt(net, row)
        if len(rows):
            done.notes.append(
                f"{_count(len(rows), table)} stand{'s' if len(rows) == 1 else ''} as fixed power"
            )
        net[table] = net[table].iloc[:0].copy()
    if three_phase:
        _vector_groups(net)
        if zero_sequence is not None:
            _fill_zero_sequence(done, zero_sequence)
    return done


def _label(table: str, row: Any, index: Any) -> str:
    name = row.get("name")
    return name if isinstance(name, str) and name else f"{table} {index}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")


def _filled(value: Any) -> float:
    """A cell as a number, 0 where it is empty."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return 0.0
    return 0.0 if np.isnan(number) else number


def _fixed_power(
    net: Any, bus: Any, p_mw: float, q_mvar: float, name: str, table: str, **rated: float
) -> None:
    """Power drawn at a bus as a static generator that gives the opposite, for an element of ``table``."""
    import pandapower

    pandapower.create_sgen(net, bus, -p_mw, -q_mvar, name=name, type="wye", stands_in=table, **rated)


def _storage_power(row: Any) -> tuple[float, float]:
    return row.p_mw * row.scaling, row.q_mvar * row.scaling


def _motor_power(row: Any) -> tuple[float, float]:
    scale = row.loading_percent / 100 * row.scaling
    p_mw = row.pn_mech_mw / row.efficiency_percent * 100 * scale
    return p_mw, float(np.sqrt((p_mw / row.cos_phi) ** 2 - p_mw**2))


def _ward_power(row: Any) -> tuple[float, float]:
    return row.ps_mw, row.qs_mvar


def _shunt(net: Any, row: Any) -> None:
    import pandapower

    if row.pz_mw or row.qz_mvar:
        pandapower.create_shunt(net, row.bus, row.qz_mvar, row.pz_mw, vn_kv=net.bus.at[row.bus, "vn_kv"])


def _taps(done: Prepared) -> None:
    """Give tap changers a type where they have none."""
    for table in ("trafo", "trafo3w"):
        rows = done.net[table]
        if "tap_changer_type" not in rows.columns:
            rows["tap_changer_type"] = None
        rows["tap_changer_type"] = rows["tap_changer_type"].astype(object)
        for index, row in rows.iterrows():
            kind = row["tap_changer_type"]
            steps = _filled(row.get("tap_pos")) - _filled(row.get("tap_neutral"))
            plain = _filled(row.get("tap_step_percent")) and not _filled(row.get("tap_step_degree"))
            if plain and not (isinstance(kind, str) and kind) and not row.get("tap_dependency_table"):
                rows.at[index, "tap_changer_type"] = "Ratio"
                if steps:
                    done.notes.append(
                        f"{table} {index} '{row.get('name')}': the tap changer has no type, counts as Ratio"
                    )


def _trafos3w(done: Prepared, three_phase: bool) -> None:
    """Each three-winding transformer as three with two, from its terminals to a star point.

    Short-circuit voltages are those of pairs of windings, on the smaller of both ratings.
    """
    import pandapower

    net = done.net
    for index, row in list(net.trafo3w.iterrows()):
        if not row.in_service:
            net.trafo3w.drop(index, inplace=True)
            continue
        why = ""
        if three_phase:
            why = "three phases need its zero sequence, which has no model"
        elif row.get("tap_at_star_point") is True and _filled(row.tap_pos) != _filled(row.tap_neutral):
            why = "its tap changer is at the star point"
        elif row.get("tap_dependency_table") is True:
            why = "its tap changer follows a characteristic table"
        elif _filled(row.tap_pos) != _filled(row.tap_neutral) and (
            _filled(row.get("tap_step_degree")) or row.tap_changer_type not in ("Ratio", "Symmetrical")
        ):
            why = f"its tap_changer_type is {row.tap_changer_type}, only Ratio without step_degree is"
        if why:
            done.refused["trafo3w", index] = why
            continue
        label = _label("trafo3w", row, index)
        sn = np.array([row[f"sn_{side}_mva"] for side in _SIDES])
        pairs = np.array([min(sn[0], sn[1]), min(sn[1], sn[2]), min(sn[0], sn[2])])
        vk, vkr = (
            np.array([row[f"{k}_{side}_percent"] for side in _SIDES]) / pairs * sn[0] for k in ("vk", "vkr")
        )
        star_r = _star(vkr, sn)
        star_x = _star(np.sqrt(vk**2 - vkr**2), sn)
        star = pandapower.create_bus(net, net.bus.at[row.hv_bus, "vn_kv"], name=f"star point of {label}")
        for place, side in enumerate(_SIDES):
            taps = {}
            if row.get("tap_side") == side:
                taps = {
                    name: row[name]
                    for name in (
                        "tap_pos",
                        "tap_neutral",
                        "tap_min",
                        "tap_max",
                        "tap_step_percent",
                        "tap_step_degree",
                        "tap_changer_type",
                    )
                    if name in row
                } | {"tap_side": "hv" if side == "hv" else "lv"}
            z = float(np.hypot(star_r[place], star_x[place])) * (1 if star_x[place] >= 0 else -1)
            outer = row[f"{side}_bus"]
            made = pandapower.create_transformer_from_parameters(
                net,
                outer if side == "hv" else star,
                star if side == "hv" else outer,
                sn[place],
                row.vn_hv_kv,
                row[f"vn_{side}_kv"],
                float(star_r[place]),
                z,
                row.pfe_kw if side == "hv" else 0.0,
                row.i0_percent if side == "hv" else 0.0,
                shift_degree=0.0 if side == "hv" else row[f"shift_{side}_degree"],
                name=f"{label} {side}",
                **taps,
            )
            at = (net.switch.et == "t3") & (net.switch.element == index) & (net.switch.bus == outer)
            net.switch.loc[at, "et"], net.switch.loc[at, "element"] = "t", made
        done.notes.append(f"trafo3w {index} '{label}' stands as three transformers at a star point")
        net.trafo3w.drop(index, inplace=True)


def _star(pairs: Any, sn: Any) -> Any:
    """Delta to star: percent between pairs of windings (hv-mv, mv-lv, lv-hv; on the rating of the
    high-voltage side) to percent of each winding on its own rating.
    """
    a, b, c = pairs
    return 0.5 * sn / sn[0] * np.array([a + c - b, b + a - c, c + b - a])


def _impedances(done: Prepared, three_phase: bool) -> None:
    import pandapower

    net = done.net
    for index, row in list(net.impedance.iterrows()):
        if not row.in_service:
            net.impedance.drop(index, inplace=True)
            continue
        kv = net.bus.vn_kv
        shunt = [_filled(row.get(f"{part}{end}_pu")) for end in "ft" for part in "gb"]
        if kv[row.from_bus] != kv[row.to_bus]:
            why = "it joins two voltage levels"
        elif row.rft_pu != row.rtf_pu or row.xft_pu != row.xtf_pu or shunt[:2] != shunt[2:]:
            why = "it is not the same from both ends"
        elif shunt[1] < 0 or (shunt[0] and not shunt[1]):
            why = "its shunt is neither a capacitance nor nothing"
        elif three_phase and not _filled(row.get("rft0_pu")) and not _filled(row.get("xft0_pu")):
            why = "it has no rft0_pu and xft0_pu, needed in three phases"
        else:
            base = kv[row.from_bus] ** 2 / row.sn_mva
            omega = 2 * np.pi * net.f_hz
            pandapower.create_line_from_parameters(
                net, row.from_bus, row.to_bus, 1.0, row.rft_pu * base, row.xft_pu * base,
                2e9 * shunt[1] / base / omega, row.sn_mva / (np.sqrt(3) * kv[row.from_bus]),
                g_us_per_km=2e6 * shunt[0] / base, r0_ohm_per_km=_filled(row.get("rft0_pu")) * base,
                x0_ohm_per_km=_filled(row.get("xft0_pu")) * base,
                c0_nf_per_km=2e9 * _filled(row.get("bf0_pu")) / base / omega,
                name=_label("impedance", row, index),
            )  # fmt: skip
            done.notes.append(f"impedance {index} stands as a line of 1 km")
            net.impedance.drop(index, inplace=True)
            continue
        done.refused["impedance", index] = why


def _switches(done: Prepared) -> None:
    """Closed bus-bus switches with an impedance, as lines."""
    import pandapower

    net = done.net
    if "z_ohm" not in net.switch.columns:
        return
    chosen = net.switch[(net.switch.et == "b") & net.switch.closed.astype(bool) & (net.switch.z_ohm > 0)]
    for index, row in chosen.iterrows():
        x = row.z_ohm / np.sqrt(1 + SWITCH_R_PER_X**2)
        r = SWITCH_R_PER_X * x
        rating = _filled(row.get("in_ka")) or np.inf
        pandapower.create_line_from_parameters(
            net, row.bus, row.element, 1.0, r, x, 0.0, rating, r0_ohm_per_km=r, x0_ohm_per_km=x,
            c0_nf_per_km=0.0, name=_label("switch", row, index),
        )  # fmt: skip
        done.notes.append(f"switch {index} with {row.z_ohm:g} ohm stands as a line of 1 km")
    net.switch.drop(chosen.index, inplace=True)


def _vector_groups(net: Any) -> None:
    if "vector_group" not in net.trafo.columns:
        return
    net.trafo["vector_group"] = [
        group.rstrip("0123456789") if isinstance(group, str) else None for group in net.trafo.vector_group
    ]


def _fill_zero_sequence(done: Prepared, recipe: ZeroSequence) -> None:
    """Fill empty zero-sequence cells; values of the net are kept."""
    line, trafo = done.net.line, done.net.trafo
    filled = dict[str, int]()

    def fill(table: Any, kind: str, column: str, values: Any) -> None:
        if column not in table.columns:
            table[column] = np.nan
        lacking = table[column].isna()
        table.loc[lacking, column] = np.asarray(values)[lacking.to_numpy()]
        if lacking.any():
            filled[kind] = max(filled.get(kind, 0), int(lacking.sum()))

    fill(line, "line", "r0_ohm_per_km", recipe.r0_per_r1 * line.r_ohm_per_km)
    fill(line, "line", "x0_ohm_per_km", recipe.x0_per_x1 * line.x_ohm_per_km)
    fill(line, "line", "c0_nf_per_km", recipe.c0_per_c1 * line.c_nf_per_km)
    if "vector_group" not in trafo.columns:
        trafo["vector_group"] = None
    odd = np.round(trafo.shift_degree.fillna(0.0) / 30).astype(int) % 2 == 1
    guessed = np.where(odd, "Dyn", "YNyn").astype(object)
    lacking = trafo.vector_group.isna()
    trafo["vector_group"] = np.where(lacking, guessed, trafo.vector_group.astype(object))
    zigzag = trafo.vector_group.str.lower() == "yzn"
    fill(trafo, "trafo", "vk0_percent", trafo.vk_percent)
    fill(trafo, "trafo", "vkr0_percent", trafo.vkr_percent)
    fill(trafo, "trafo", "mag0_percent", np.where(zigzag, 100.0, MAGNETISING_IMPEDANCE_PERCENT))
    fill(trafo, "trafo", "mag0_rx", np.zeros(len(trafo)))
    fill(trafo, "trafo", "si0_hv_partial", np.full(len(trafo), 0.5))
    for kind, number in filled.items():
        done.notes.append(f"zero sequence of {_count(number, kind)} by the recipe {recipe.recipe}")
    if lacking.any():
        done.notes.append(
            f"vector group of {_count(int(lacking.sum()), 'trafo')} by the recipe {recipe.recipe}"
        )
