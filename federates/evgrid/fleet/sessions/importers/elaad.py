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
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

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
from evgrid.fleet.sessions.importers.rows import Cells, Values, read_rows
from evgrid.readers import Table, shown
from evgrid.readers.times import moment_of, utc_of
from evgrid.scenario import Scenario
from evgrid.scenario.fields import ExistingFile, TimeFormat
from evgrid.scenario.fleet import Vehicle

REQUIRED = (
    "TransactionId", "ChargePoint", "Connector", "UTCTransactionStart", "UTCTransactionStop", "TotalEnergy",
)  # fmt: skip
OPTIONAL = ("StartCard", "ConnectedTime", "ChargeTime", "MaxPower")
ALIASES = {"chargepointid": "ChargePoint", "connectorid": "Connector"}

CONNECTED_TOLERANCE_H = 0.05
"""Difference between ConnectedTime and stop - start that rounding to minutes explains, h."""

NUMBERS = ("ConnectedTime", "ChargeTime", "TotalEnergy", "MaxPower")
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
    time_format: str | None = None,
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
    time_format
        Form of the times, such as ``%m/%d/%Y %H:%M``; left out: day/month/year or ISO 8601.

    ``evse`` is ChargePoint and Connector. A card (StartCard) is one EV while its sessions do not
    overlap; a session without one is an EV of its own. Dropped are rows without readable times or
    energy, that end before they begin, or whose TransactionId was seen before. Noted are rows
    whose ConnectedTime disagrees with their times, and local times that the change of the clocks
    makes ambiguous or impossible; many of the latter suggest that the times are UTC after all.

    Raises
    ------
    ScenarioError
        If the file can't be read or lacks columns, or its dates are month/day/year.

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
    table, found = read_rows(path, tally, REQUIRED, OPTIONAL, ALIASES, NUMBERS)
    forms = FORMATS if time_format is None else (time_format,)
    if time_format is None:
        _refuse_month_first(table)
    for place, cells, values in found:
        identifier = f"{cells['TransactionId']}, {place}" if cells["TransactionId"] else place
        row, reason = _session(cells, values, times == "utc", clock, forms)
        if not reason and cells["TransactionId"] in seen:
            reason = "with a TransactionId seen before"
        if reason:
            tally.drop(reason, identifier)
            continue
        seen.add(cells["TransactionId"])
        row |= {"id": cells["TransactionId"], "session": cells["TransactionId"]}
        _remark(row, values, identifier, clock, tally)
        rows.append(row)
    name_evs(rows, tally)
    note_shared_evses(rows, tally)
    fit_batteries(rows, vehicle or Vehicle(), tally)
    if times == "local":
        tally.assumptions.append(f"the times are local ({zone}), as reported, in spite of the columns' names")
    else:
        tally.assumptions.append(f"the times are UTC, as the columns are named, converted to {zone}")
    stated = (
        "dates are day/month/year, or else ISO 8601" if time_format is None else f"times are {time_format}"
    )
    tally.assumptions.append(stated)
    extra = {"arrival_utc": "utc", "departure_utc": "utc"} if times == "utc" else {}
    return tally.imported(table_of(rows, COLUMNS | extra))


def _session(
    cells: Cells, values: Values, utc: bool, zone: ZoneInfo, forms: Sequence[str]
) -> tuple[Row, str]:
    """A session and "", or nothing and the reason to drop it."""
    if not cells["TransactionId"]:
        return {}, "without a TransactionId"
    if not cells["ChargePoint"]:
        return {}, "without a ChargePoint"
    row: Row = {"evse": "-".join(filter(None, (cells["ChargePoint"], cells["Connector"])))}
    for column, key in (("UTCTransactionStart", "arrival"), ("UTCTransactionStop", "departure")):
        time = moment_of(cells[column], forms) if ":" in cells[column] or forms != FORMATS else None
        if time is None:
            return {}, f"without a readable {column}"
        if time.tzinfo is not None and not utc:
            return {}, f"with a zone in {column}, where local time is expected"
        if utc:
            time = utc_of(time.replace(tzinfo=time.tzinfo or UTC))
            if time is None:
                return {}, f"without a readable {column}"
            row[f"{key}_utc"] = time
            time = time.astimezone(zone).replace(tzinfo=None)
        row[key] = time
    begin, end = ("arrival_utc", "departure_utc") if utc else ("arrival", "departure")
    if row[end] <= row[begin]:
        return {}, "with UTCTransactionStop not after UTCTransactionStart"
    if row["departure"] <= row["arrival"]:
        return {}, "with departure not after arrival on the local clock, put back in between"
    energy = values["TotalEnergy"]
    if math.isnan(energy):
        return {}, "without a readable TotalEnergy"
    if energy <= 0:
        return {}, "with no energy delivered"
    row["energy_kwh"] = energy
    row["person"] = f"card-{cells['StartCard']}" if cells["StartCard"] else None
    return row, ""


def _remark(row: Row, values: Values, identifier: str, zone: ZoneInfo, tally: Tally) -> None:
    """Fill the optional columns and note what is doubtful."""
    power, charged = values["MaxPower"], values["ChargeTime"]
    row["charge_kw"] = power if power > 0 else math.nan
    row["charged_h"] = charged if charged >= 0 else math.nan
    if not power > 0:
        tally.note("without a MaxPower above 0, left to the scenario's charger", identifier)
    utc = "_utc" if "arrival_utc" in row else ""
    hours = (row[f"departure{utc}"] - row[f"arrival{utc}"]).total_seconds() / 3600.0
    connected = values["ConnectedTime"]
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


def _refuse_month_first(table: Table) -> None:
    """Raise ScenarioError if some dates can only be month/day/year, and none only day/month/year."""
    by_day = by_month = ""
    for name in ("UTCTransactionStart", "UTCTransactionStop"):
        for row, cell in enumerate(table.text(name)):
            found = re.match(r"(\d{1,2})[/-](\d{1,2})[/-]\d{4}", cell)
            if found is not None and int(found[1]) > 12 >= int(found[2]):
                by_day = cell
            elif found is not None and int(found[2]) > 12 >= int(found[1]) and not by_month:
                by_month = f"{table.place} {table.line(row)}: {name} = {shown(cell)}"
    if by_month and not by_day:
        text = "is month/day/year; state time_format: '%m/%d/%Y %H:%M', as the format is day/month/year"
        raise ScenarioError([f"{by_month}: {text}"], str(table.source))


class ElaadFile(ImportedFile):
    """Sessions of ElaadNL."""

    elaad: ExistingFile
    """CSV file of ElaadNL transactions."""
    times: Literal["local", "utc"] = "local"
    """Times in the columns named UTC: local, as reported, or UTC."""
    zone: str = "Europe/Amsterdam"
    """Zone of the local times."""
    time_format: TimeFormat | None = None
    """Form of the times, such as '%m/%d/%Y %H:%M'; left out: day/month/year, as documented, or ISO 8601."""

    def read(self, scenario: Scenario) -> Imported:
        """See :class:`evgrid.fleet.sessions.importers.recorded.ImportedFile`."""
        assert scenario.fleet is not None
        try:
            return read_elaad(self.elaad, self.times, self.zone, scenario.fleet.vehicle, self.time_format)
        except ValueError as error:
            raise ScenarioError([f"fleet.sessions.{error}"]) from None
