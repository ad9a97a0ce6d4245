"""ElaadNL open transactions: public charging in the Netherlands, as CSV.

Format: ``TransactionId, ChargePoint, Connector, UTCTransactionStart, UTCTransactionStop,
StartCard, ConnectedTime, ChargeTime, TotalEnergy, MaxPower`` (h, h, kWh, kW), separated by
semicolons or commas, with decimal comma or point, times as dd/mm/yyyy hh:mm or ISO 8601. In spite
of the columns' names the times are reported to be local.

Columns besides those of every importer:

session : TransactionId
charge_kw : MaxPower, the most that was drawn; NaN if not known
charged_h : ChargeTime, h in which energy flowed; NaN if not known
capacity_kwh : only where the energy asks for a larger battery than the vehicle's, so as not to taper
arrival_utc, departure_utc : only with ``times="utc"``
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from evgrid.fleet.importers.imported import (
    Imported,
    Row,
    Tally,
    fit_batteries,
    name_evs,
    note_shared_evses,
    table_of,
)
from evgrid.fleet.importers.rows import Cells, number, read_csv_rows
from evgrid.scenario import Vehicle

REQUIRED = (
    "TransactionId", "ChargePoint", "Connector", "UTCTransactionStart", "UTCTransactionStop", "TotalEnergy",
)  # fmt: skip
OPTIONAL = ("StartCard", "ConnectedTime", "ChargeTime", "MaxPower")
ALIASES = {"chargepointid": "ChargePoint", "connectorid": "Connector"}

CONNECTED_TOLERANCE_H = 0.05
"""Difference between ConnectedTime and stop - start that rounding to minutes explains, h."""

FORMATS = ("%d/%m/%Y %H:%M", "%d/%m/%Y %H:%M:%S", "%d-%m-%Y %H:%M", "%d-%m-%Y %H:%M:%S")
COLUMNS = {
    "session": "text", "ev": "text", "evse": "text", "arrival": "time", "departure": "time",
    "energy_kwh": "number", "charge_kw": "number", "charged_h": "number", "capacity_kwh": "number",
}  # fmt: skip


def read_elaad(
    path: str | Path,
    times: Literal["local", "utc"] = "local",
    zone: str = "Europe/Amsterdam",
    vehicle: Vehicle | None = None,
) -> Imported:
    """Sessions of an ElaadNL transactions file.

    Parameters
    ----------
    path
        The file.
    times
        What the columns UTCTransactionStart and UTCTransactionStop hold: local times (as
        reported), or UTC, as they are named.
    zone
        Zone of the local times.
    vehicle
        Whose capacity, taper and efficiency decide which sessions need a larger battery.

    ``evse`` is ChargePoint and Connector. A card (StartCard) is one EV while its sessions do not
    overlap; a session without one is an EV of its own. Dropped are rows without readable times or
    energy, that end before they begin, or whose TransactionId was seen before. Noted are rows
    whose ConnectedTime disagrees with their times, and local times that the change of the clocks
    makes ambiguous or impossible; many of the latter suggest that the times are UTC after all.

    Raises
    ------
    ScenarioError
        If the file can't be read or lacks columns.

    """
    if times not in ("local", "utc"):
        raise ValueError(f"times = {times}: must be local or utc")
    try:
        clock = ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"zone = {zone}: is no time zone, such as Europe/Amsterdam") from None
    path = Path(path)
    tally = Tally(path)
    rows: list[Row] = []
    seen: set[str] = set()
    for line, cells in read_csv_rows(path, tally, REQUIRED, OPTIONAL, ALIASES):
        identifier = f"{cells['TransactionId']}, line {line}" if cells["TransactionId"] else f"line {line}"
        row, reason = _session(cells, times == "utc", clock)
        if not reason and cells["TransactionId"] in seen:
            reason = "with a TransactionId seen before"
        if reason:
            tally.drop(reason, identifier)
            continue
        seen.add(cells["TransactionId"])
        row |= {"id": cells["TransactionId"], "session": cells["TransactionId"]}
        _remark(row, cells, identifier, clock, tally)
        rows.append(row)
    name_evs(rows, tally)
    note_shared_evses(rows, tally)
    fit_batteries(rows, vehicle or Vehicle(), tally)
    if times == "local":
        tally.assumptions.append(f"the times are local ({zone}), as reported, in spite of the columns' names")
    else:
        tally.assumptions.append(f"the times are UTC, as the columns are named, converted to {zone}")
    tally.assumptions.append("dates are day/month/year, or else ISO 8601")
    extra = {"arrival_utc": "utc", "departure_utc": "utc"} if times == "utc" else {}
    return tally.imported(table_of(rows, COLUMNS | extra))


def _session(cells: Cells, utc: bool, zone: ZoneInfo) -> tuple[Row, str]:
    """A session and "", or nothing and the reason to drop it."""
    if not cells["TransactionId"]:
        return {}, "without a TransactionId"
    if not cells["ChargePoint"]:
        return {}, "without a ChargePoint"
    row: Row = {"evse": "-".join(filter(None, (cells["ChargePoint"], cells["Connector"])))}
    for column, key in (("UTCTransactionStart", "arrival"), ("UTCTransactionStop", "departure")):
        time = _time(cells[column])
        if time is None:
            return {}, f"without a readable {column}"
        if time.tzinfo is not None and not utc:
            return {}, f"with a zone in {column}, where local time is expected"
        if utc:
            time = time.replace(tzinfo=time.tzinfo or UTC).astimezone(UTC)
            row[f"{key}_utc"] = time
            time = time.astimezone(zone).replace(tzinfo=None)
        row[key] = time
    begin, end = ("arrival_utc", "departure_utc") if utc else ("arrival", "departure")
    if row[end] <= row[begin]:
        return {}, "with UTCTransactionStop not after UTCTransactionStart"
    if row["departure"] <= row["arrival"]:
        return {}, "with departure not after arrival on the local clock, put back in between"
    energy = number(cells["TotalEnergy"])
    if math.isnan(energy):
        return {}, "without a readable TotalEnergy"
    if energy <= 0:
        return {}, "with no energy delivered"
    row["energy_kwh"] = energy
    row["person"] = f"card-{cells['StartCard']}" if cells["StartCard"] else None
    return row, ""


def _remark(row: Row, cells: Cells, identifier: str, zone: ZoneInfo, tally: Tally) -> None:
    """Fill the optional columns and note what is doubtful."""
    power, charged = number(cells["MaxPower"]), number(cells["ChargeTime"])
    row["charge_kw"] = power if power > 0 else math.nan
    row["charged_h"] = charged if charged >= 0 else math.nan
    if not power > 0:
        tally.note("without a MaxPower above 0, left to the scenario's charger", identifier)
    utc = "_utc" if "arrival_utc" in row else ""
    hours = (row[f"departure{utc}"] - row[f"arrival{utc}"]).total_seconds() / 3600.0
    connected = number(cells["ConnectedTime"])
    if abs(connected - hours) > CONNECTED_TOLERANCE_H:
        tally.note("with a ConnectedTime other than stop - start, which is used", identifier)
    if utc:
        return
    local = [row["arrival"], row["departure"]]
    if any(_skipped(time, zone) for time in local):
        tally.note("with a local time that the clocks skip in spring", identifier)
    elif any(_offset(time, zone, 0) != _offset(time, zone, 1) for time in local):
        tally.note("with a local time that comes twice in autumn", identifier)


def _offset(time: datetime, zone: ZoneInfo, fold: int) -> object:
    return time.replace(tzinfo=zone, fold=fold).utcoffset()


def _skipped(time: datetime, zone: ZoneInfo) -> bool:
    there = time.replace(tzinfo=zone).astimezone(UTC)
    return there.astimezone(zone).replace(tzinfo=None) != time


def _time(text: str) -> datetime | None:
    """A time, day first or ISO 8601 (which may say a zone); None if it is none."""
    for form in FORMATS:
        try:
            return datetime.strptime(text, form)
        except ValueError:
            continue
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    return time if ":" in text else None
