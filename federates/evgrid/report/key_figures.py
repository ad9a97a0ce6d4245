"""Key figures of results, for ``evgrid compare`` and the report: a number a member, with text and unit.

In: results of runs. Out: :func:`key_figures` of one, and of several :func:`long_table` (numbers) and
:func:`side_by_side` (texts: of several members the median and, in brackets, 5 to 95 %). Figures of a
member of which a value in the period is not known (:func:`members_known`) are not known either.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from evgrid.core.netcdf import replacing
from evgrid.errors import ResultError
from evgrid.results.limits import (
    LimitSet,
    aggregator_limits,
    default_limits,
    interval_s,
    limit_set,
    unrated_elements,
    violations,
)
from evgrid.results.settlement import amount, charges_beside_energy, is_currency, settle
from evgrid.studies.figures import currency_of

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

SUFFIXES = (".csv", ".xlsx", ".tex")
"""Kinds of file that :func:`write_tables` writes."""

MANY_CASES = 6
"""Cases beyond which a table has a row a case instead of a column."""


@dataclass(frozen=True)
class KeyFigure:
    """A key figure of a result.

    values : (member,), NaN where there is none
    remark : such as why it could not be judged
    """

    name: str
    text: str
    unit: str
    values: NDArray[np.float64]
    remark: str = ""

    @property
    def label(self) -> str:
        """Text with unit."""
        return f"{self.text} ({self.unit})" if self.unit not in ("", "1") else self.text


def limits_of(result: xr.Dataset, names: Sequence[str] = ()) -> LimitSet:
    """The limits by which a result is judged: presets by name, else those that fit it; and those of its
    aggregators.

    Raises ValueError for an unknown name.
    """
    presets = [name for name in names or default_limits(result)[0] if name != "aggregators"]
    return limit_set(*presets, *aggregator_limits(result))


def members_known(result: xr.Dataset) -> NDArray[np.bool_]:
    """Whether the feeder's power and voltages are known in the whole period, (member,): not of members that
    were given up, nor where a value is NaN, other than voltages in an outage.
    """
    members = result.sizes["member"]
    failed = result["member_failed_s"].notnull().values if "member_failed_s" in result else False
    known = ~np.broadcast_to(np.asarray(failed), members)
    names = ["head_power_kw", "losses_kw"]
    if "interrupted_min" not in result:
        names += ["voltage_min_pu", "voltage_max_pu"]
    for name in names:
        if name in result:
            known = known & ~_any_but_member(result[name].isnull())
    return known


def _any_but_member(values: xr.DataArray) -> NDArray[np.bool_]:
    return np.asarray(values.any([dim for dim in values.dims if dim != "member"]).values, np.bool_)


def key_figures(result: xr.Dataset, broken: pd.DataFrame | None = None) -> list[KeyFigure]:
    """Key figures of a run: power, energy, voltage, loading, EVs' energy, costs, and the number of
    violations, of ``broken`` or, left out, of the limits that fit the result.
    """
    from evgrid.results.metrics import external_federates

    hours = interval_s(result) / 3600
    in_outages = "interrupted_min" in result  # there are no voltages without supply
    found: list[KeyFigure] = []

    def add(name: str, text: str, unit: str, values: object, remark: str = "") -> None:
        found.append(KeyFigure(name, text, unit, np.asarray(values, np.float64), remark))

    if "feeder" not in external_federates(result):
        known = members_known(result)
        head = result["head_power_kw"].sum("phase", skipna=False).transpose("member", "time")
        head = head.where(known[:, np.newaxis])
        add("head_peak_kw", "highest power at the head", "kW", head.max("time", skipna=False))
        if float(head.min()) < 0:
            add(
                "head_reverse_kw",
                "highest power fed back",
                "kW",
                -head.min("time", skipna=False).clip(max=0.0),
            )
        add(
            "head_energy_kwh",
            "energy drawn at the head, less fed back",
            "kWh",
            head.sum("time", skipna=False) * hours,
        )
        losses = result["losses_kw"].sum("time", skipna=False).values * hours
        add("losses_kwh", "losses of the feeder", "kWh", np.where(known, losses, np.nan))
        for name, text, voltages in (
            ("voltage_lowest_pu", "lowest voltage", result["voltage_min_pu"].min("time")),
            ("voltage_highest_pu", "highest voltage", result["voltage_max_pu"].max("time")),
        ):
            add(name, text, "pu", np.where(known, voltages.values, np.nan))
        for kind, text in (("trafo", "transformer"), ("line", "line")):
            _add_loading(found, result, kind, text, known)
        for name, text, unit, scale in (
            ("voltage_unbalance", "highest voltage unbalance", "%", 100.0),
            ("trafo_hot_spot_c", "highest hot spot of a transformer", "°C", 1.0),
        ):
            if name in result and result[name].size:
                values = _highest(result[name], not in_outages)
                add(name, text, unit, np.where(known, scale * values, np.nan))
        broken = violations(result, limits_of(result)) if broken is None else broken
        own = broken["criterion"].str.startswith("limit_of_").astype(bool)

        checked = _checked(result, known, found)

        def places(rows: pd.DataFrame) -> pd.Series:
            counted = rows.groupby("member").size().reindex(result["member"].values, fill_value=0)
            return counted.astype(float).where(checked)

        lacks = [entry.partition(":")[0] for entry in broken.attrs["not_available"]]
        remark = f"not checked: {', '.join(lacks)}" if lacks else ""
        add("violations", "limits of the grid violated, at all elements", "1", places(broken[~own]), remark)
        if aggregator_limits(result):
            add("own_violations", "limits of aggregators violated", "1", places(broken[own]))
    if "session_cost" in result:
        fleet = settle(result).fleet.reindex(result["member"].values)
        add(
            "fleet_peak_kw",
            "highest power of the EVs",
            "kW",
            result["fleet_power_kw"].transpose("member", "time").max("time", skipna=False),
        )
        add("drawn_kwh", "energy drawn by EVs", "kWh", fleet["drawn_kwh"])
        add("given_kwh", "energy given back by EVs", "kWh", fleet["given_kwh"])
        add("unserved_kwh", "energy unserved", "kWh", fleet["unserved_kwh"])
        if not np.isnan(result["session_cost"].values).all():
            currency, charges = currency_of(result), charges_of(result)
            energy = fleet["energy_cost"] + fleet["block_charge"]
            add("energy_cost", "cost of the energy charged", currency, energy)
            for name, remark in charges.items():
                add(name, name.replace("_", " "), currency, fleet[name], remark)
            more = f"with {' and '.join(name.replace('_', ' ') for name in charges)}" if charges else ""
            add("net_cost", "cost of charging, net", currency, fleet["net_cost"], more)
    return found


_BILLED = {
    "evs": "power of the EVs alone",
    "transformer": "base load of each transformer included",
    "feeder": "base load of the feeder included",
}
"""Power that a demand charge is for, by ``tariff.demand.of``."""
_CUSTOMERS = {
    "evs": "connection points with an EV",
    "transformer": "transformers",
    "feeder": "the feeder as one customer",
}
"""Customers with a fixed charge, likewise."""


def charges_of(result: xr.Dataset) -> dict[str, str]:
    """Charges that the scenario's tariff has besides energy, by name, with what they cover."""
    charges, found = charges_beside_energy(result), {}
    if "demand" in charges:
        found["demand_charge"] = f"each month billed whole, {_BILLED[charges['demand']]}"
    if "fixed" in charges:
        found["fixed_charge"] = f"of the run's period, for {_CUSTOMERS[charges['fixed']]}"
    return found


def _checked(result: xr.Dataset, known: NDArray[np.bool_], found: Sequence[KeyFigure]) -> NDArray[np.bool_]:
    """Whether a member's limits could be checked in the whole period, (member,)."""
    for figure in found:
        name = figure.name.removesuffix("_percent")
        if name in result and np.isfinite(figure.values).any():
            known = known & np.isfinite(figure.values)
    return known


def _add_loading(
    found: list[KeyFigure], result: xr.Dataset, kind: str, text: str, known: NDArray[np.bool_]
) -> None:
    from evgrid.results.limits import no_rating
    from evgrid.results.recording import unrecorded

    name = f"{kind}_loading"
    remark = unrecorded(result, kind)
    values = np.full(result.sizes["member"], np.nan)
    if name in result and result.sizes.get(kind):
        unrated, of = unrated_elements(result, name)
        remark = no_rating(unrated, of, kind) if unrated else remark
        if unrated < of or not of:
            values = np.where(known, 100 * _highest(result[name], "interrupted_min" not in result), np.nan)
    elif not remark:
        return
    found.append(KeyFigure(f"{name}_percent", f"highest loading of a {text}", "%", values, remark))


def _highest(values: xr.DataArray, whole: bool) -> NDArray[np.float64]:
    """The highest value of each member, (member,), read member by member; ``whole``: NaN where the value of
    an element is not known at some time. Elements without any value, as without a rating, do not count.
    """
    highest, gaps, valued = [], [], []
    for m in range(values.sizes["member"]):
        of_member = values.isel(member=m).transpose("time", ...).values
        unknown = np.isnan(of_member)
        highest.append(np.max(of_member, initial=-np.inf, where=~unknown))
        gaps.append(unknown.any(axis=0))
        valued.append(~unknown.all(axis=0))
    lacking = (np.array(gaps) & np.any(valued, axis=0)).reshape(len(gaps), -1).any(axis=1)
    found = np.array(highest, np.float64)
    return np.where(np.isfinite(found) & ~(lacking & whole), found, np.nan)


def figure_text(figure: KeyFigure) -> str:
    """The figure over its members as text: "not checked: …" where it could not be judged."""
    known = figure.values[np.isfinite(figure.values)]
    if not len(known):
        return figure.remark or "not known"
    text = amount if is_currency(figure.unit) else _number
    middle = text(float(np.median(known)))
    if figure.values.size > 1 and known.min() < known.max():
        low, high = np.quantile(known, [0.05, 0.95])
        middle += f" ({text(float(low))} to {text(float(high))})"
    if len(known) < figure.values.size:
        middle += f", {len(known)} of {figure.values.size} members"
    return f"{middle}; {figure.remark}" if figure.remark else middle


def side_by_side(cases: Mapping[str, Sequence[KeyFigure]]) -> pd.DataFrame:
    """Key figures for reading: a row a figure, a column a case."""
    import pandas as pd

    labels = list(dict.fromkeys(f.label for figures in cases.values() for f in figures))
    columns = {case: {f.label: figure_text(f) for f in figures} for case, figures in cases.items()}
    return pd.DataFrame(
        {case: [texts.get(label, "–") for label in labels] for case, texts in columns.items()}, labels
    )


def long_table(cases: Mapping[str, Sequence[KeyFigure]]) -> pd.DataFrame:
    """Key figures as numbers: a row a case and figure; over the members the median, the 5th and 95th
    percentile, lowest and highest, NaN counted as missing; and a remark.
    """
    import pandas as pd

    rows = []
    for case, figures in cases.items():
        for f in figures:
            known = f.values[np.isfinite(f.values)]
            numbers = np.quantile(known, [0.5, 0.05, 0.95, 0.0, 1.0]) if len(known) else np.full(5, np.nan)
            rows.append((case, f.name, f.text, f.unit, f.values.size, len(known), *numbers, f.remark))
    return pd.DataFrame(rows, columns=["case", "figure", "text", "unit", "members", "known", "median", "low",
                                       "high", "lowest", "highest", "remark"])  # fmt: skip


def check_suffix(path: Path) -> None:
    """Raise ResultError for a kind of file that :func:`write_tables` does not write."""
    if path.suffix not in SUFFIXES:
        raise ResultError(f"the table can't be written to {path}: its name must end in {', '.join(SUFFIXES)}")


def write_tables(cases: Mapping[str, Sequence[KeyFigure]], path: Path) -> Path:
    """Write the key figures: .csv (numbers), .xlsx (both tables) or .tex (for reading); returns the path.

    Raises ResultError for another kind of file, or if it can't be written.
    """
    import pandas as pd

    check_suffix(path)
    shown = readable(cases)
    try:
        with replacing(path) as part:
            if path.suffix == ".csv":
                long_table(cases).to_csv(part, index=False)
            elif path.suffix == ".xlsx":
                with part.open("wb") as file, pd.ExcelWriter(file) as book:
                    shown.to_excel(book, sheet_name="side by side")
                    long_table(cases).to_excel(book, sheet_name="numbers", index=False)
            else:
                part.write_text(_latex(shown), encoding="utf-8")
    except OSError as error:
        raise ResultError(f"the table can't be written to {path}: {error.strerror}") from error
    return path


def _latex(table: pd.DataFrame) -> str:
    """A table for LaTeX (booktabs); raises ResultError without jinja2."""
    try:
        return table.to_latex(escape=True, index=True)
    except ImportError as error:
        raise ResultError("tables for LaTeX need jinja2: pip install evgrid[report]") from error


def readable(cases: Mapping[str, Sequence[KeyFigure]]) -> pd.DataFrame:
    """:func:`side_by_side`, with a row a case where there are many."""
    table = side_by_side(cases)
    return table.T if len(cases) > MANY_CASES else table


def _number(value: float) -> str:
    if abs(value) < 1e-9:
        return "0"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
