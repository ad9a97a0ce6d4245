"""ACN-Data: workplace charging sessions of Caltech, JPL and an office site, as JSON.

Format (ev.caltech.edu/dataset; Lee, Li and Low 2019, 10.1145/3307772.3328313): an object with the
records in ``_items``, or a list of records. Times are RFC 1123 in GMT, or ISO 8601 with a zone; each record
names its ``timezone``, into whose wall-clock time they are converted. ``kWhDelivered`` is at the meter.

Columns besides those of every importer:

session : sessionID
space : spaceID, the parking space
charge_kw : rating of the EVSE
capacity_kwh : only where the energy asks for a larger battery than the vehicle's, so as not to taper
arrival_utc, departure_utc : connectionTime and disconnectTime
charged : local time at which charging ended (doneChargingTime), NaT if it never did
requested_departure, energy_requested_kwh : the driver's last input, NaT and NaN without one
timezone : zone of the local times
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field

from evgrid.errors import ScenarioError
from evgrid.fleet.sessions.importers.imported import (
    Imported,
    Row,
    Tally,
    fit_batteries,
    name_evs,
    note_shared_evses,
    table_of,
)
from evgrid.fleet.sessions.importers.recorded import ImportedFile
from evgrid.readers import read_json
from evgrid.readers.tables import MOST_CHARACTERS
from evgrid.readers.times import moment_of, utc_of
from evgrid.scenario import Scenario
from evgrid.scenario.fields import ElementName, ExistingFile
from evgrid.scenario.fleet import Vehicle

LEVEL_2_KW = 6.656
"""Rating of a level-2 EVSE of the Caltech site: 32 A at 208 V, line to line."""

COLUMNS = {
    "session": "text", "ev": "text", "evse": "text", "space": "text", "arrival": "time",
    "departure": "time", "energy_kwh": "number", "charge_kw": "number", "capacity_kwh": "number",
    "arrival_utc": "utc", "departure_utc": "utc", "charged": "time", "requested_departure": "time",
    "energy_requested_kwh": "number", "timezone": "text",
}  # fmt: skip


def read_acn(
    path: str | Path,
    charge_kw: float = LEVEL_2_KW,
    ratings: Mapping[str, float] | None = None,
    vehicle: Vehicle | None = None,
) -> Imported:
    """Sessions of an ACN-Data JSON file.

    Parameters
    ----------
    path
        The file.
    charge_kw
        Rating of the EVSEs, kW, which the data does not say.
    ratings
        Ratings of EVSEs that differ, by stationID or spaceID, such as a fast charger's.
    vehicle
        Whose capacity, taper and efficiency decide which sessions need a larger battery.

    ``evse`` is the stationID, else the spaceID. A user (userID) is one EV while the sessions do
    not overlap; a session without one is an EV of its own. Dropped are records without times,
    zone, station or energy, sessions that end before they begin (on the local clock also, which
    happens in the hour when clocks go back), and sessionIDs seen before.

    Raises
    ------
    ScenarioError
        If the file is no JSON, or holds no list of records.

    """
    path = Path(path)
    ratings = dict(ratings or {})
    if not all(math.isfinite(kw) and kw > 0 for kw in (charge_kw, *ratings.values())):
        raise ValueError("the rating of an EVSE must be above 0 kW")
    tally = Tally(path)
    rows: list[Row] = []
    seen: set[str] = set()
    used: set[str] = set()
    for number, record in enumerate(_records(path), start=1):
        tally.read += 1
        identifier = f"record {number}"
        try:
            if isinstance(record, dict):
                identifier = _text(record.get("sessionID")) or _text(record.get("_id")) or identifier
            row = _session(record, identifier, tally)
            if identifier in seen:
                raise _Bad("with a sessionID seen before")
        except _Bad as reason:
            tally.drop(str(reason), identifier)
            continue
        seen.add(identifier)
        own = next((name for name in (row["evse"], row["space"]) if name in ratings), None)
        used.update([own] if own is not None else [])
        row["charge_kw"] = charge_kw if own is None else float(ratings[own])
        rows.append(row)
    name_evs(rows, tally)
    note_shared_evses(rows, tally)
    fit_batteries(rows, vehicle or Vehicle(), tally)
    tally.assumptions.append(f"EVSEs are rated {charge_kw:g} kW, since the data does not say")
    if ratings:
        others = ", ".join(f"{name} {kw:g} kW" for name, kw in ratings.items())
        tally.assumptions.append(f"other ratings are {others}")
    unused = [name for name in ratings if name not in used]
    if unused:
        tally.assumptions.append(f"ratings of {', '.join(unused)} have no session in the file")
    zones = list(dict.fromkeys(row["timezone"] for row in rows))
    if len(zones) > 1:
        tally.assumptions.append(f"local times of several zones stand side by side: {', '.join(zones)}")
    return tally.imported(table_of(rows, COLUMNS))


class _Bad(Exception):
    """A record that is dropped, with the reason."""


def _records(path: Path) -> list[Any]:
    content = read_json(path)
    records = content.get("_items") if isinstance(content, dict) else content
    if not isinstance(records, list):
        raise ScenarioError(["must be an object with a list _items, or a list of records"], str(path))
    return records


def _session(record: Any, identifier: str, tally: Tally) -> Row:
    if not isinstance(record, dict):
        raise _Bad("that are no record")
    arrival, departure = (_utc(record.get(name)) for name in ("connectionTime", "disconnectTime"))
    if arrival is None:
        raise _Bad("without a readable connectionTime")
    if departure is None:
        raise _Bad("without a readable disconnectTime")
    if departure <= arrival:
        raise _Bad("with disconnectTime not after connectionTime")
    energy = _number(record.get("kWhDelivered"))
    if math.isnan(energy):
        raise _Bad("without a readable kWhDelivered")
    if energy <= 0:
        raise _Bad("with no energy delivered")
    zone = _zone(record.get("timezone"))
    if zone is None:
        raise _Bad("without a known timezone")
    space = _text(record.get("spaceID"))
    station = _text(record.get("stationID")) or space
    if not station:
        raise _Bad("without stationID and spaceID")
    begin, end = _local(arrival, zone), _local(departure, zone)
    if end <= begin:
        raise _Bad("with departure not after arrival on the local clock, put back in between")
    if arrival.astimezone(zone).utcoffset() != departure.astimezone(zone).utcoffset():
        tally.note("during which the clocks change: the local stay differs from the true one", identifier)
    charged = _utc(record.get("doneChargingTime"))
    inputs = record.get("userInputs")
    last = inputs[-1] if isinstance(inputs, list) and inputs and isinstance(inputs[-1], dict) else {}
    requested = _utc(last.get("requestedDeparture"))
    user = _text(record.get("userID"))
    return {
        "id": identifier, "session": identifier, "person": f"user-{user}" if user else None,
        "evse": station, "space": space, "arrival": begin, "departure": end, "energy_kwh": energy,
        "arrival_utc": arrival, "departure_utc": departure,
        "charged": None if charged is None else _local(charged, zone),
        "requested_departure": None if requested is None else _local(requested, zone),
        "energy_requested_kwh": _number(last.get("kWhRequested")), "timezone": zone.key,
    }  # fmt: skip


def _text(value: Any) -> str:
    """A name, "" where there is none."""
    text = str(value).strip() if isinstance(value, str | int) and not isinstance(value, bool) else ""
    if len(text) > MOST_CHARACTERS:
        raise _Bad(f"with a name of over {MOST_CHARACTERS} characters")
    return text


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    try:
        number = float(value)
    except OverflowError:
        return math.nan
    return number if math.isfinite(number) else math.nan


def _utc(value: Any) -> datetime | None:
    """A time in RFC 1123, or ISO 8601 with its zone; None if it is none or says no zone."""
    moment = moment_of(value)
    return None if moment is None else utc_of(moment)


def _zone(name: Any) -> ZoneInfo | None:
    try:
        return ZoneInfo(name) if isinstance(name, str) and name else None
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None


def _local(time: datetime, zone: ZoneInfo) -> datetime:
    """Wall-clock time in a zone, naive."""
    return time.astimezone(zone).replace(tzinfo=None)


class AcnFile(ImportedFile):
    """Sessions of ACN-Data."""

    acn: ExistingFile
    """JSON file of ACN-Data."""
    charge_kw: Annotated[float, Field(gt=0)] = 6.656
    """Rating of the EVSEs, kW, which the data does not say: 32 A at 208 V."""
    ratings: dict[ElementName, Annotated[float, Field(gt=0)]] = {}
    """Ratings of EVSEs that differ, kW by stationID or spaceID."""

    def read(self, scenario: Scenario) -> Imported:
        """See :class:`evgrid.fleet.sessions.importers.recorded.ImportedFile`."""
        assert scenario.fleet is not None
        return read_acn(self.acn, self.charge_kw, self.ratings, scenario.fleet.vehicle)
