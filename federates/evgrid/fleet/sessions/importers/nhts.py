"""The US National Household Travel Survey: a vehicle's day, from the trips of its drivers.

Format: the trip file of 2017 (``trippub.csv``) or 2022 (``tripv2pub.csv``), a row a person's trip:
``HOUSEID, PERSONID, VEHID, TRPTRANS`` (by which car, van, SUV and pickup are recognised, :data:`MODES`: the
waves number them differently), ``DRVR_FLG`` (1 drove), ``TRPMILES, STRTTIME, ENDTIME`` (HHMM),
``WHYTO`` (1 is home), ``TDWKND`` (1 weekend, 2 weekday), ``WTTRDFIN`` (trip weight) and, if it is
there, ``WHYFROM``. Negative values are codes for "not known". The survey's day runs from 04:00 to
04:00, so times before four are of the night that ends it.

A vehicle charges at home: from each return home (WHYTO home) until the next departure, the last
stay until the first departure of the next day, which is taken to be the same day again. It asks
for what it used since the last stay: miles x consumption / charging efficiency, at the meter.

Columns besides those of every importer (``evse`` is the household):

charge_efficiency, capacity_kwh : the vehicle's
miles : driven since the last stay at home
weekend : True for days of the weekend, in the survey
weight : WTTRDFIN of the trip that came home

Left out: charging elsewhere, vehicles that were not driven, days between survey days.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from evgrid.errors import ScenarioError
from evgrid.fleet.sessions.importers.imported import Imported, Row, Tally, table_of
from evgrid.fleet.sessions.importers.recorded import ImportedFile
from evgrid.fleet.sessions.importers.rows import Cells, Values, read_rows
from evgrid.readers import Table
from evgrid.readers.times import moment_of
from evgrid.scenario import Scenario
from evgrid.scenario.fields import ExistingFile
from evgrid.scenario.fleet import Vehicle

REQUIRED = (
    "HOUSEID", "PERSONID", "VEHID", "TRPTRANS", "DRVR_FLG", "TRPMILES", "STRTTIME", "ENDTIME", "WHYTO",
    "TDWKND", "WTTRDFIN",
)  # fmt: skip
MODES = {
    2017: {3: "car", 4: "SUV", 5: "van", 6: "pickup"},
    2022: {1: "car", 2: "van", 3: "SUV", 4: "pickup"},
}
"""TRPTRANS of trips in the household's vehicles, by wave."""
COLUMNS_OF = {2017: ("TRACC_WLK", "TREGR_WLK"), 2022: ("VEHCASEID", "SEQ_TRIPID")}
"""Columns that only a wave has."""
NUMBERS = (
    "VEHID", "TRPTRANS", "DRVR_FLG", "TRPMILES", "STRTTIME", "ENDTIME", "WHYTO", "WHYFROM", "TDWKND",
    "WTTRDFIN",
)  # fmt: skip
DAY_MIN = 24 * 60
DAY_STARTS_MIN = 4 * 60
"""When the survey's day starts, min after midnight."""
LONGEST_TRIP_MIN = 12 * 60
"""Longest trip believed where its end lies before its start on the clock, min."""

COLUMNS = {
    "ev": "text", "evse": "text", "arrival": "time", "departure": "time", "energy_kwh": "number",
    "capacity_kwh": "number", "charge_efficiency": "number", "miles": "number", "weekend": "flag",
    "weight": "number",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Trip:
    line: str
    start_min: int  # after the midnight that begins the survey day
    end_min: int
    miles: float
    from_home: bool
    to_home: bool
    weekend: bool
    weight: float


def read_nhts(
    path: str | Path,
    day: str | date,
    vehicle: Vehicle | None = None,
    days: int = 1,
    modes: Sequence[int] | None = None,
    home: Sequence[int] = (1,),
    wave: int | None = None,
) -> Imported:
    """Charging at home that follows from the trips of an NHTS trippub file.

    Parameters
    ----------
    path
        The file.
    day
        Date on which the surveyed day is put; whether it is a weekday is not compared.
    vehicle
        Its consumption, efficiency and capacity.
    days
        Number of times that the day is repeated, from ``day`` on.
    modes
        TRPTRANS of trips in the household's vehicles; left out: those of the wave (:data:`MODES`).
    home
        WHYTO (and WHYFROM) of home; (1,) in 2017 and 2022.
    wave
        Year of the survey, 2017 or 2022; left out: recognised by the columns that only one of them has.

    Dropped are trips by other means, of passengers, and in vehicles of others. A trip of a driver
    with an unknown miles, time or purpose is dropped, and with it the vehicle's other trips of
    that day, whose energy would be wrong; so are days that do not begin and end at home, whose
    trips overlap, or that end after the next has begun. A stay of no length gives its miles to
    the next; energy beyond what the battery holds is taken to be charged on the road and noted.

    Raises
    ------
    ScenarioError
        If the file can't be read or lacks columns, or its columns don't show the wave.

    """
    path, vehicle = Path(path), vehicle or Vehicle()
    if days < 1:
        raise ValueError(f"days = {days}: must be at least 1")
    first = moment_of(str(day))
    if first is None or first.tzinfo is not None or first != datetime.combine(first, time()):
        raise ValueError(f"day = {day}: must be a date, such as 2026-01-15")
    tally = Tally(path, "trips")
    vehicles: dict[str, list[_Trip]] = {}
    broken: set[str] = set()
    houses: dict[str, str] = {}
    has_origin = False
    marks = tuple(name for names in COLUMNS_OF.values() for name in names)
    table, found = read_rows(path, tally, REQUIRED, ("WHYFROM", *marks), numbers=NUMBERS)
    wave, evidence = _wave(table, wave)
    kept = MODES[wave] if modes is None else {mode: MODES[wave].get(mode, "") for mode in modes}
    for place, cells, values in found:
        reason = _not_driven(cells, values, kept)
        if reason:
            tally.drop(reason, place)
            continue
        has_origin = has_origin or bool(cells["WHYFROM"])
        name = f"{cells['HOUSEID']}-{cells['VEHID']}"
        houses[name] = cells["HOUSEID"]
        trip, column = _trip(cells, values, place, home)
        if trip is None:
            broken.add(name)
            tally.drop(f"without a usable {column}", place)
        else:
            vehicles.setdefault(name, []).append(trip)
    rows: list[Row] = []
    for name, trips in vehicles.items():
        trips.sort(key=lambda trip: (trip.start_min, trip.end_min))
        reason = (
            "of a vehicle's day of which another trip was dropped" if name in broken else _unusable(trips)
        )
        if reason:
            for trip in trips:
                tally.drop(reason, trip.line)
            continue
        rows += _stays(name, houses[name], trips, vehicle, first, days, tally)
    tally.assumptions += [
        f"wave {wave}, {evidence}: kept are trips with TRPTRANS "
        + ", ".join(f"{mode} {name}".rstrip() for mode, name in kept.items()),
        f"{vehicle.consumption_kwh_per_mile:g} kWh a mile, charged at an efficiency of "
        f"{vehicle.charge_efficiency:g} into {vehicle.capacity_kwh:g} kWh",
        "the last stay at home lasts until the first departure of the same day, repeated",
        "times before 04:00 are of the night that ends the survey's day",
    ]
    if not has_origin:
        tally.assumptions.append("days begin at home, since there is no column WHYFROM")
    return tally.imported(table_of(rows, COLUMNS))


def _wave(table: Table, stated: int | None) -> tuple[int, str]:
    """The wave, and how it is known."""
    shown = [wave for wave, names in COLUMNS_OF.items() if any(name in table for name in names)]
    if stated is not None and stated not in MODES:
        raise ScenarioError(
            [f"wave = {stated}: must be one of {', '.join(map(str, MODES))}"], str(table.source)
        )
    if stated is not None and shown not in ([], [stated]):
        names = ", ".join(name for wave in shown for name in COLUMNS_OF[wave] if name in table)
        raise ScenarioError([f"wave = {stated}: has columns of another ({names})"], str(table.source))
    if stated is not None:
        return stated, "as stated"
    if len(shown) != 1:
        text = (
            "the columns don't show the survey's wave, by which codes differ: state wave: 2017 or wave: 2022"
        )
        raise ScenarioError([text], str(table.source))
    names = " and ".join(name for name in COLUMNS_OF[shown[0]] if name in table)
    return shown[0], f"recognised by {names}"


def _not_driven(cells: Cells, values: Values, modes: Container[float]) -> str:
    """Why a row is no trip of a household's vehicle, or ""."""
    if values["TRPTRANS"] not in modes:
        return "by other means than car, SUV, van or pickup"
    if values["DRVR_FLG"] != 1:
        return "of a passenger"
    if not values["VEHID"] > 0 or not cells["HOUSEID"]:
        return "in no vehicle of the household"
    return ""


def _trip(cells: Cells, values: Values, line: str, home: Sequence[int]) -> tuple[_Trip | None, str]:
    """A trip and "", or None and the column that can't be used."""
    miles, purpose = values["TRPMILES"], values["WHYTO"]
    start, end = _minutes(values["STRTTIME"]), _minutes(values["ENDTIME"])
    weekend, weight = values["TDWKND"], values["WTTRDFIN"]
    origin = values["WHYFROM"] if cells["WHYFROM"] else float(home[0])
    for column, usable in (
        ("TRPMILES", miles >= 0), ("STRTTIME", start >= 0), ("ENDTIME", end >= 0), ("WHYTO", purpose > 0),
        ("WHYFROM", origin > 0), ("TDWKND", weekend in (1, 2)), ("WTTRDFIN", weight >= 0),
    ):  # fmt: skip
        if not usable:
            return None, column
    if end < start:
        end += DAY_MIN
        if end - start > LONGEST_TRIP_MIN:
            return None, "ENDTIME, which is before STRTTIME"
    return _Trip(line, start, end, miles, origin in home, purpose in home, weekend == 1, weight), ""


def _minutes(value: float) -> int:
    """HHMM as minutes after the midnight that begins the survey day; -1 if it is no time."""
    if not 0 <= value <= 2359 or value != int(value):
        return -1
    hours, minutes = divmod(int(value), 100)
    if hours > 23 or minutes > 59:
        return -1
    total = 60 * hours + minutes
    return total + DAY_MIN if total < DAY_STARTS_MIN else total


def _unusable(trips: Sequence[_Trip]) -> str:
    """Why a vehicle's day gives no sessions, or ""."""
    if any(after.start_min < before.end_min for before, after in pairwise(trips)):
        return "of a vehicle's day whose trips overlap"
    if not trips[-1].to_home:
        return "of a vehicle's day that does not end at home"
    if not trips[0].from_home:
        return "of a vehicle's day that does not begin at home"
    if trips[-1].end_min >= trips[0].start_min + DAY_MIN:
        return "of a vehicle's day that ends after the next has begun"
    return ""


def _stays(
    name: str,
    house: str,
    trips: Sequence[_Trip],
    vehicle: Vehicle,
    midnight: datetime,
    days: int,
    tally: Tally,
) -> list[Row]:
    """The stays at home of a vehicle, on each of the days."""
    most = vehicle.capacity_kwh / vehicle.charge_efficiency
    next_start = [*(trip.start_min for trip in trips[1:]), trips[0].start_min + DAY_MIN]
    stays: list[Row] = []
    miles = 0.0
    for trip, departure in zip(trips, next_start, strict=True):
        miles += trip.miles
        if not trip.to_home:
            continue
        if departure == trip.end_min:
            tally.note("coming home for no time, whose miles count for the next stay", trip.line)
            continue
        energy = miles * vehicle.consumption_kwh_per_mile / vehicle.charge_efficiency
        if energy > most:
            energy = most
            tally.note(
                "coming home after more miles than a battery holds, the rest charged on the road", trip.line
            )
        stays.append(
            {
                "ev": name, "evse": house, "energy_kwh": energy, "capacity_kwh": vehicle.capacity_kwh,
                "charge_efficiency": vehicle.charge_efficiency, "miles": miles, "weekend": trip.weekend,
                "weight": trip.weight, "from": trip.end_min, "to": departure,
            }
        )  # fmt: skip
        miles = 0.0
    return [
        stay
        | {
            key: midnight + timedelta(days=day, minutes=stay[edge])
            for key, edge in (("arrival", "from"), ("departure", "to"))
        }
        for day in range(days)
        for stay in stays
    ]


class NhtsFile(ImportedFile):
    """Charging at home that follows from the trips of the US National Household Travel Survey."""

    nhts: ExistingFile
    """The survey's file of trips, of 2017 (trippub.csv) or 2022 (tripv2pub.csv)."""
    wave: Literal[2017, 2022] | None = None
    """The survey's wave, whose codes differ; left out: recognised by the columns VEHCASEID or SEQ_TRIPID
    (2022) and TRACC_WLK or TREGR_WLK (2017)."""
    day: Annotated[date, Field(ge=date(1900, 1, 1), lt=date(2200, 1, 1))] | None = None
    """Date on which the surveyed day is put first; left out: the day before the run's first."""
    days: Annotated[int, Field(ge=1, le=3660)] | None = None
    """How often the day is repeated; left out: until the end of the run."""

    def read(self, scenario: Scenario) -> Imported:
        """See :class:`evgrid.fleet.sessions.importers.recorded.ImportedFile`."""
        assert scenario.fleet is not None
        first = self.day or scenario.time.start.date() - timedelta(days=1)
        end = scenario.time.start + timedelta(seconds=scenario.clock.duration_s)
        days = self.days or max(1, (end.date() - first).days + 1)
        return read_nhts(self.nhts, first, scenario.fleet.vehicle, days, wave=self.wave)
