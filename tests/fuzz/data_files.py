"""Mutated data files: load, series, emissions, sessions of every source, mixes, rates, tariffs.

:func:`mutants` yields them, seeded, in every format that evgrid reads; :func:`outcome` writes one, reads it
as a run does and says how that ended. A mutation changes cells, columns, rows, types, structure, separator,
encoding, bytes, or what is at the path. A mutant that only differs in form (``same``) must be read as the
original is, or be refused; whatever is read must keep the rules of its kind.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import xarray as xr

from evgrid.core.model import Clock, Connections
from evgrid.errors import EvgridError, ScenarioError
from evgrid.scenario import Scenario, scenario_from

READ, REFUSED = "read", "refused"
"""How reading a file may end: with values that keep their rules, or with a sentence for each fault."""

MOST_LINES = 20 * 30
"""Lines of a message: twenty rows of each fault, and there are not more faults than these."""

MOST_LENGTH = 2000
"""Characters of a line of a message."""

START = datetime(2026, 1, 15, 12)
HOURS = 24

CELLS: tuple[Any, ...] = (
    "", " ", "nan", "inf", "-inf", "1e999", "-1", "0", "1e308", "1e-308", "1_000", "0x10", "1,5", "1.234",
    "1,234",
    "1.234,5", "1,234.5", "٣", "９", "text", "noon", "now", "None", "NaT", "True", "'",
    "x" * 300, "x" * 140_000,
    "9" * 400, "-0", "2026-02-30", "0001-01-01T00:00", "9999-12-31T23:59", "2026-01-15T24:00",
    "2026-01-15T12:00Z",
    "2026-01-15 18:00:00+01", "2026-01-15T18:00+0100", "2026-10-25T02:30[Europe/Berlin]", "15.01.2026 18:00",
    "1/15/2026 6:00 PM", "20260115", "46037.75", "2026-01-15T18:00:00.123456789", "1e300", "-1e300", "a",
    "abc", "LOAD1",
    "a;b", "a\tb", "é", "\u202e", "Wed, 14 Jul 2021 16:00:00 GMT", "Mon, 01 Jan 0001 00:00:00 GMT",
    "Fri, 31 Dec 9999 23:59:59 -1200",
)  # fmt: skip
"""What cells of text are replaced with."""

VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1.5, math.nan, math.inf, 1e308, 10**400, 2**63, -(2**70), "", "text", "nan",
    "\x00",
    "x" * 300, [], [1, [2]], {}, {"a": 1}, "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00",
    "2026-01-15T18:00", "Mon, 01 Jan 0001 00:00:00 GMT", "Fri, 31 Dec 9999 23:59:59 -1200",
    "America/Los_Angeles",
    "../../etc/passwd", "Mars/Olympus",
)  # fmt: skip
"""What parts of JSON are replaced with."""


@dataclass(frozen=True)
class Mutant:
    """A mutated file.

    name : format, seed and what was done; kind : format, by which it is read; suffix : of its name
    content : its bytes, or what is at its path: "folder", "pipe", "device", "nothing"
    same : it must be read as the original, or refused
    """

    name: str
    kind: str
    suffix: str
    content: bytes | str
    same: bool = False


def mutants(seed: int, count: int) -> Iterator[Mutant]:
    """The first ``count`` mutants of a seed; the same ones whenever it is asked."""
    for number in range(count):
        rng = random.Random(f"{seed}/{number}")
        kind = rng.choice(list(FORMATS))
        original = base(kind)
        if rng.random() < 0.01:
            content = rng.choice(["folder", "pipe", "device", "nothing"])
            yield Mutant(f"{kind} {seed}/{number}: {content}", kind, original.suffix, content)
            continue
        if original.frame is not None:
            done, suffix, content, same = _mutated_table(rng, original.frame)
        else:
            done, suffix, content, same = _mutated_text(rng, original.content, original.suffix)
        if rng.random() < 0.15:
            done, content, same = f"{done}; bytes", _bytes(rng, content), False
        yield Mutant(f"{kind} {seed}/{number}: {done}", kind, suffix, content, same)


def outcome(mutant: Mutant, folder: Path) -> str:
    """Read a mutant in a folder and say how that ended; anything else than a sentence raises."""
    path = folder / f"data{mutant.suffix}"
    _put(mutant.content, path)
    try:
        values = FORMATS[mutant.kind](path)
    except EvgridError as error:
        lines = str(error).splitlines()
        if len(lines) > MOST_LINES or max(map(len, lines)) > MOST_LENGTH:
            raise AssertionError("the message is too long") from error
        return REFUSED
    finally:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    if mutant.same:
        _compare(values, original_values(mutant.kind))
    return READ


def _put(content: bytes | str, path: Path) -> None:
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content == "folder":
        path.mkdir()
    elif content == "pipe":
        os.mkfifo(path)
    elif content == "device":
        path.symlink_to("/dev/zero")


def _compare(values: dict[str, Any], expected: dict[str, Any]) -> None:
    for name, given in expected.items():
        found = values[name]
        if isinstance(given, np.ndarray) and given.dtype.kind == "f":
            np.testing.assert_allclose(found, given, rtol=1e-9, atol=1e-6, err_msg=name)
        else:
            assert np.array_equal(found, given), name


# ---- formats: how each is read, and what must hold of what is read -------------------------------------


def _scenario(**parts: Any) -> Scenario:
    time = {"start": START.isoformat(), "duration": f"{HOURS}h", "step": "15min"}
    return scenario_from({"name": "fuzz", "time": time, "feeder": {"network": "x"}, **parts})


def _connections() -> Connections:
    index = np.arange(3)
    return Connections(
        np.array(["LOAD1", "LOAD2", "LOAD3"]), index, np.full(3, -1, np.int8), index, index, ("abc",)
    )


def _clock() -> Clock:
    return Clock(np.datetime64(START), 900.0, HOURS * 4)


def _load(path: Path) -> dict[str, Any]:
    from evgrid.feeder.base_load import FileLoad

    settings = {"network": "x", "base_load": {"file": str(path)}}
    network = SimpleNamespace(connections=_connections(), three_phase=False)
    load = FileLoad(_scenario(feeder=settings), network)  # type: ignore[arg-type]
    p_kw, _ = load.at(np.arange(0.0, HOURS * 3600.0, 900.0))
    assert np.isfinite(p_kw).all(), "power that is no number"
    return {"p_kw": p_kw}


def _series(path: Path) -> dict[str, Any]:
    from evgrid.readers.series import PRICE, read_series

    found = read_series(path, _clock(), PRICE)
    assert np.isfinite(found.values).all()
    assert (np.diff(found.edges_s) > 0).all()
    assert found.edges_s[0] <= 0 and found.edges_s[-1] >= HOURS * 3600.0  # noqa: PT018
    means = [float(found.mean(k * 900.0, (k + 1) * 900.0)) for k in range(HOURS * 4)]
    return {"means": np.array(means)}


def _emissions(path: Path) -> dict[str, Any]:
    from evgrid.readers.series import read_emissions

    found = read_emissions(path, _clock(), "America/Los_Angeles" if path.suffix == ".json" else None)
    assert (found.values >= 0).all()
    assert np.isfinite(found.values).all()
    return {"means": np.array([float(found.mean(k * 900.0, (k + 1) * 900.0)) for k in range(HOURS * 4)])}


def _sessions(source: Callable[[Path], dict[str, Any]]) -> Callable[[Path], dict[str, Any]]:
    def read(path: Path) -> dict[str, Any]:
        from evgrid.fleet.sessions import fleet_tables

        evs, found = fleet_tables(_scenario(fleet={"sessions": source(path)}), _connections())
        for name in ("arrival_s", "departure_s", "soc_arrival", "soc_target", "capacity_kwh", "charge_kw"):
            assert np.isfinite(getattr(found, name)).all(), name
        assert (found.departure_s > found.arrival_s).all()
        for name in ("soc_arrival", "soc_target", "soc_floor"):
            values = getattr(found, name)
            assert ((values >= -1e-9) & (values <= 1 + 1e-9)).all(), name
        assert (found.capacity_kwh > 0).all()
        return {
            "ev": evs.name, "connection": evs.connection, "arrival_s": found.arrival_s,
            "departure_s": found.departure_s, "soc_arrival": found.soc_arrival,
            "soc_target": found.soc_target,
            "capacity_kwh": found.capacity_kwh, "charge_kw": found.charge_kw,
        }  # fmt: skip

    return read


def _mix(path: Path) -> dict[str, Any]:
    from evgrid.scenario.vehicles import read_mix

    types = read_mix({"file": str(path)}).types
    return {"types": sorted(types), "share": np.array([types[name].share for name in sorted(types)])}


def _plain(path: Path) -> dict[str, Any]:
    from evgrid.fleet.sessions.importers import read_plain

    found = read_plain(path)
    if not found.report.kept:
        raise ScenarioError(["holds no sessions that can be used"], str(path))
    assert found.report.read == found.report.kept + sum(map(len, found.report.dropped.values()))
    return {"ev": found.table["ev"].to_numpy(str), "energy_kwh": found.table["energy_kwh"].to_numpy(float)}


def _rates(path: Path) -> dict[str, Any]:
    from evgrid.results.settlement import read_rates

    return dict(read_rates(path).model_dump())


def _tariff(path: Path) -> dict[str, Any]:
    return {"tariff": str(_scenario(tariff=str(path)).tariff)}


def _weather(path: Path) -> dict[str, Any]:
    from evgrid.scenario.sites import SitePv
    from evgrid.solar.pv import PvPower

    given = {"kwp": 2, "ac_kw": 1.5, "latitude": 45, "longitude": 8, "timezone": "Europe/Rome"}
    if not path.is_file():
        raise ScenarioError(["is no file"])  # as the scenario says before
    power = PvPower(SitePv.model_validate({**given, "weather": path}), _clock()).slots(0.0, HOURS * 3600.0)
    assert ((power.kw >= 0) & (power.kw <= 1.5 + 1e-9)).all()
    return {"kw": power.kw}


FORMATS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "load": _load,
    "load by minutes": _load,
    "series": _series,
    "emissions": _emissions,
    "WattTime": _emissions,
    "sessions": _sessions(lambda path: {"file": str(path)}),
    "sessions in seconds": _sessions(lambda path: {"file": str(path)}),
    "snapshot": _sessions(lambda path: {"file": str(path)}),
    "ACN-Data": _sessions(lambda path: {"acn": str(path)}),
    "ElaadNL": _sessions(lambda path: {"elaad": str(path)}),
    "NHTS": _sessions(lambda path: {"nhts": str(path)}),
    "plain": _plain,
    "mix": _mix,
    "rates": _rates,
    "tariff": _tariff,
    "weather": _weather,
    "EPW": _weather,
    "TMY3": _weather,
    "PVGIS": _weather,
}
"""How a file of each format is read."""


# ---- originals -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Original:
    """A file that is right: a table (``frame``), or text."""

    suffix: str
    frame: pd.DataFrame | None = None
    content: bytes = b""


@lru_cache
def original_values(kind: str) -> dict[str, Any]:
    """What the original of a format is read as."""
    import tempfile

    original = base(kind)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"data{original.suffix}"
        path.write_bytes(
            original.content if original.frame is None else _written(original.frame, original.suffix)
        )
        return FORMATS[kind](path)


@lru_cache
def base(kind: str) -> Original:
    """The original of a format."""
    hours = pd.date_range(START, periods=HOURS + 1, freq="h")
    wave = 20.5 + 5.25 * np.sin(np.arange(len(hours)))
    stamps = hours.strftime("%Y-%m-%dT%H:%M")
    if kind == "load":
        return Original(".csv", pd.DataFrame({"time": stamps, **{f"LOAD{k}": wave + k for k in (1, 2, 3)}}))
    if kind == "load by minutes":
        minutes = np.arange(1, 1441)
        return Original(
            ".csv", pd.DataFrame({"minute": minutes, **{f"LOAD{k}": minutes / 7 for k in (1, 2, 3)}})
        )
    if kind in ("series", "emissions"):
        return Original(".csv", pd.DataFrame({"time": stamps, "value": wave}))
    if kind in ("sessions", "plain"):
        frame = pd.DataFrame(
            {
                "ev": ["a", "b", "a"], "connection": ["LOAD1", "LOAD2", "LOAD1"],
                "arrival": ["2026-01-15T13:00", "2026-01-15T18:30", "2026-01-16T08:00"],
                "departure": ["2026-01-15T17:00", "2026-01-16T07:00", "2026-01-16T11:00"],
                "energy_kwh": [8.25, 19.85, 4.5], "capacity_kwh": [60.5, 75.0, 60.5],
                "charge_kw": [7.4, 11.5, 7.4],
                "chemistry": ["nmc", "lfp", "nmc"],
            }
        )  # fmt: skip
        return Original(".csv", frame)
    if kind == "sessions in seconds":
        frame = pd.DataFrame(
            {"ev": ["a", "b"], "connection": ["LOAD1", "LOAD2"], "arrival": [0.5, 3600.0],
             "departure": [7200.25, 80000.5], "soc_arrival": [0.25, 0.5], "member": [0, 0]}
        )  # fmt: skip
        return Original(".csv", frame)
    if kind == "mix":
        frame = pd.DataFrame(
            {"type": ["tiny", "van"], "share": [0.25, 0.75], "capacity_kwh": [10.5, 80.0],
             "ac_1p_kw": [3.7, 7.4],
             "ac_3p_kw": [0.0, 11.0], "consumption_kwh_per_mile": [0.25, 0.5], "chemistry": ["nmc", "lfp"]}
        )  # fmt: skip
        return Original(".csv", frame)
    if kind == "NHTS":
        names = (
            "HOUSEID PERSONID VEHID SEQ_TRIPID TRPTRANS DRVR_FLG TRPMILES STRTTIME ENDTIME WHYTO TDWKND "
            "WTTRDFIN"
        )
        rows = [
            (house, 1, 1, trip, mode, 1, 20.5, *when, to, 2, 1000.5)
            for house, mode in ((1, 1), (2, 3), (3, 4))
            for trip, when, to in ((1, (730, 800), 3), (2, (1700, 1730), 1))
        ]
        return Original(".csv", pd.DataFrame(rows, columns=names.split()))
    if kind == "ElaadNL":
        frame = pd.DataFrame(
            {"TransactionId": [1, 2], "ChargePoint": ["P1", "P2"], "Connector": [1, 1],
             "UTCTransactionStart": ["15/01/2026 13:15", "15/01/2026 18:45"],
             "UTCTransactionStop": ["15/01/2026 15:15", "16/01/2026 07:45"], "StartCard": ["x", "y"],
             "ConnectedTime": [2.0, 13.0], "ChargeTime": [1.5, 3.25], "TotalEnergy": [7.25, 21.75],
             "MaxPower": [7.4, 11.5]}
        )  # fmt: skip
        return Original(".csv", frame)
    if kind == "snapshot":
        return Original(".parquet", content=_snapshot())
    if kind == "ACN-Data":
        record = {
            "_id": "1", "sessionID": "s1", "stationID": "2-39-1", "spaceID": "CA-1", "userID": "7",
            "connectionTime": "Thu, 15 Jan 2026 21:00:00 GMT",
            "disconnectTime": "Fri, 16 Jan 2026 01:00:00 GMT",
            "doneChargingTime": None, "kWhDelivered": 7.5, "timezone": "America/Los_Angeles",
            "userInputs": [{"kWhRequested": 8.0, "requestedDeparture": "Fri, 16 Jan 2026 00:00:00 GMT"}],
        }  # fmt: skip
        content = {"_items": [record, record | {"sessionID": "s2", "stationID": "2-39-2", "userID": None}]}
        return Original(".json", content=json.dumps(content).encode())
    if kind == "WattTime":
        points = [
            {"point_time": (START + timedelta(hours=8 + k)).isoformat() + "+00:00", "value": 800.0 + k}
            for k in range(HOURS + 1)
        ]
        content = {"data": points, "meta": {"units": "lbs_co2_per_mwh", "region": "CAISO_NORTH"}}
        return Original(".json", content=json.dumps(content).encode())
    if kind == "weather":
        beam = 400.0 + wave
        frame = {"time": stamps, "ghi": beam - 200, "dni": beam, "dhi": wave * 3, "temperature": wave / 2}
        return Original(".csv", pd.DataFrame(frame))
    if kind in ("EPW", "TMY3", "PVGIS"):
        return Original(".epw" if kind == "EPW" else ".csv", content=_weather_file(kind))
    if kind == "rates":
        return Original(".yaml", content=b"demand_charge: 12.5\nwear_per_kwh: 0.05\ndriver_share: 0.25\n")
    return Original(".yaml", content=_TARIFF)


_TARIFF = b"""name: two prices
currency: EUR
seasons:
  - name: year
    months: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]
    periods:
      - {name: day, hours: [[7, 21]], days: weekday, price_per_kwh: 0.35}
      - {name: rest, price_per_kwh: 0.25}
"""


def _weather_file(kind: str) -> bytes:
    import tempfile

    import pvlib
    from tests.support.weather import write_epw, write_pvgis

    if kind == "TMY3":
        return (Path(pvlib.__file__).parent / "data" / "723170TYA.CSV").read_bytes()
    with tempfile.TemporaryDirectory() as folder:
        return (write_epw if kind == "EPW" else write_pvgis)(Path(folder) / "weather").read_bytes()


def _snapshot() -> bytes:
    import tempfile

    from evgrid.fleet.sessions import fleet_tables
    from evgrid.fleet.sessions.snapshot import write_snapshot

    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "sessions.csv"
        table.write_bytes(_written(base("sessions").frame, ".csv"))
        scenario = _scenario(fleet={"sessions": {"file": str(table)}})
        tables = fleet_tables(scenario, _connections())
        path = write_snapshot(Path(folder) / "snapshot.parquet", scenario, _connections(), *tables)
        return path.read_bytes()


# ---- mutations -----------------------------------------------------------------------------------------


def _written(frame: pd.DataFrame | None, suffix: str, **options: Any) -> bytes:
    assert frame is not None
    if suffix == ".csv":
        return frame.to_csv(index=False, lineterminator="\n", **options).encode()
    if suffix == ".parquet":
        stream = io.BytesIO()
        frame.to_parquet(stream, index=False)
        return stream.getvalue()
    index = frame.columns[0]
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.nc"
        dataset = xr.Dataset({name: (index, frame[name].to_numpy()) for name in frame.columns})
        dataset.set_coords(index).to_netcdf(path, engine="netcdf4")
        return path.read_bytes()


def _mutated_table(rng: random.Random, frame: pd.DataFrame) -> tuple[str, str, bytes, bool]:
    """What was done, the suffix and the content, and whether it is the same table."""
    draw = rng.random()
    if draw < 0.25:
        return _dressed(rng, frame)
    if draw < 0.45:
        return _typed(rng, frame)
    rows = [list(frame.columns), *frame.astype(str).replace("nan", "").to_numpy().tolist()]
    done = []
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        change = rng.choice(_OF_ROWS)
        change(rng, rows)
        done.append(change.__name__.strip("_"))
    separator = rng.choice([",", ",", ";", "\t", "|"])
    stream = io.StringIO()
    writer = csv.writer(stream, delimiter=separator, quoting=csv.QUOTE_MINIMAL, lineterminator="\n")
    writer.writerows(rows)
    text = stream.getvalue()
    if rng.random() < 0.15:
        text = text.replace('"', rng.choice(["", "'", '"' * 3]))
        done.append("quotes")
    encoding = rng.choice(["utf-8"] * 6 + ["utf-8-sig", "utf-16", "utf-16-le", "latin-1"])
    return f"{', '.join(done)}, {separator!r} {encoding}", ".csv", text.encode(encoding, "replace"), False


def _dressed(rng: random.Random, frame: pd.DataFrame) -> tuple[str, str, bytes, bool]:
    """The same table in another dress."""
    times = [
        name for name in ("time", "arrival", "departure") if name in frame and frame[name].dtype == object
    ]
    frame = frame.copy()
    form = rng.choice(
        ["%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M:%S", "%Y%m%dT%H%M", "%d.%m.%Y %H:%M", "%m/%d/%Y %H:%M", ""]
    )
    for name in times:
        stamps = pd.to_datetime(frame[name], format="%Y-%m-%dT%H:%M")
        frame[name] = stamps.dt.strftime(form) if form else stamps
    suffix = rng.choice([".csv", ".csv", ".csv", ".parquet", ".nc"])
    if suffix != ".csv":
        return f"{suffix} {form}", suffix, _written(frame, suffix), True
    separator, decimal = rng.choice([",", ";", "\t"]), rng.choice([".", ","])
    content = _written(frame, ".csv", sep=separator, decimal=decimal)
    text = content.decode().replace("\n", rng.choice(["\n", "\r\n", "\r"]))
    encoding = rng.choice(["utf-8", "utf-8-sig", "utf-16"])
    return f"{separator!r} {decimal!r} {form} {encoding}", ".csv", text.encode(encoding), True


def _typed(rng: random.Random, frame: pd.DataFrame) -> tuple[str, str, bytes, bool]:
    """A Parquet or NetCDF table with a column of another type."""
    name, size = rng.choice(list(frame.columns)), len(frame)
    stamps = pd.date_range(START, periods=size, freq="h")
    columns: dict[str, Any] = {
        "bytes": [b"\xff\x00"] * size, "lists": [[1, 2]] * size, "structs": [{"a": 1}] * size,
        "flags": [True] * size,
        "huge": np.full(size, 2**64 - 1, np.uint64), "nothing": [None] * size, "nan": [math.nan] * size,
        "times": stamps, "zoned": stamps.tz_localize("Europe/Berlin"), "dates": [date(1, 1, 1)] * size,
        "far": np.full(size, "9999-12-31", "datetime64[s]"), "clock": [START.time()] * size,
        "spans": pd.to_timedelta(np.arange(size), "h"), "categories": pd.Categorical(["a"] * size),
        "float32": np.arange(size, dtype=np.float32), "float16": np.arange(size, dtype=np.float16),
        "text": ["1,5"] * size, "infinite": [math.inf] * size,
        "decimal": pa.array([1] * size).cast(pa.decimal128(38, 3)),
    }  # fmt: skip
    kind = rng.choice(list(columns))
    table = pa.Table.from_pandas(frame, preserve_index=False)
    new = columns[kind] if isinstance(columns[kind], pa.Array) else pa.array(columns[kind])
    table = table.set_column(table.column_names.index(name), name, new)
    if rng.random() < 0.1:
        table = table.append_column(name, new)
    if rng.random() < 0.3 and kind in ("huge", "nan", "times", "far", "float32", "flags", "infinite"):
        changed = frame.assign(**{name: np.asarray(columns[kind])})
        try:
            return f"{name} of {kind} .nc", ".nc", _written(changed, ".nc"), False
        except Exception:  # xarray can't write some; then it is a Parquet file
            pass
    stream = io.BytesIO()
    pq.write_table(table, stream)
    return f"{name} of {kind} .parquet", ".parquet", stream.getvalue(), False


def _cell(rng: random.Random, rows: list[list[str]]) -> None:
    if len(rows) > 1:
        row = rng.choice(rows[1:])
        if row:
            row[rng.randrange(len(row))] = rng.choice(CELLS)


def _column(rng: random.Random, rows: list[list[str]]) -> None:
    value = rng.choice([cell for cell in CELLS if len(cell) < 1000])
    at = rng.randrange(len(rows[0]) or 1)
    for row in rows[1:]:
        if at < len(row):
            row[at] = value


def _header(rng: random.Random, rows: list[list[str]]) -> None:
    if rows[0]:
        rows[0][rng.randrange(len(rows[0]))] = rng.choice([*CELLS, rows[0][0]])


def _without_column(rng: random.Random, rows: list[list[str]]) -> None:
    at = rng.randrange(len(rows[0]) or 1)
    for row in rows:
        del row[at : at + 1]


def _twice_column(rng: random.Random, rows: list[list[str]]) -> None:
    at = rng.randrange(len(rows[0]) or 1)
    for row in rows:
        row += row[at : at + 1]


def _ragged(rng: random.Random, rows: list[list[str]]) -> None:
    row = rng.choice(rows)
    if rng.random() < 0.5 and row:
        row.pop()
    else:
        row.append(rng.choice(CELLS))


def _rows(rng: random.Random, rows: list[list[str]]) -> None:
    what = rng.choice(["drop", "twice", "shuffle", "header only", "none", "many", "reverse"])
    if what == "drop" and len(rows) > 1:
        del rows[rng.randrange(1, len(rows))]
    elif what == "twice":
        rows.append(list(rng.choice(rows)))
    elif what == "shuffle":
        body = rows[1:]
        rng.shuffle(body)
        rows[1:] = body
    elif what == "header only":
        del rows[1:]
    elif what == "none":
        rows[:] = [[]]
    elif what == "many":
        rows += [list(rng.choice(rows)) for _ in range(3000)]
    else:
        rows[1:] = rows[:0:-1]


_OF_ROWS = (_cell, _cell, _cell, _column, _header, _without_column, _twice_column, _ragged, _rows)


def _mutated_text(rng: random.Random, content: bytes, suffix: str) -> tuple[str, str, bytes, bool]:
    if suffix == ".parquet":
        return _mutated_snapshot(rng, content)
    if suffix == ".json" and rng.random() < 0.85:
        return _mutated_json(rng, content)
    lines = content.decode().split("\n")
    at = rng.randrange(len(lines) if rng.random() < 0.5 else min(len(lines), 25))
    what = rng.choice(["value", "line", "twice", "deep", "anchor", "bytes"])
    if what == "value" and suffix != ".yaml":  # a cell of a weather file
        cells = lines[at].split(",")
        cells[rng.randrange(len(cells))] = str(rng.choice(CELLS))
        lines[at] = ",".join(cells)
    elif what == "value":
        lines[at] = lines[at].partition(":")[0] + ": " + str(rng.choice(CELLS))
    elif what == "line":
        del lines[at]
    elif what == "twice":
        lines.insert(at, lines[at])
    elif what == "deep":
        lines[at] = "[" * rng.choice([100, 100_000])
    elif what == "anchor":
        lines[at] = "<<: &a [*a, *a]"
    text = "\n".join(lines).encode("utf-8", "replace")
    return what, suffix, _bytes(rng, text) if what == "bytes" else text, False


def _mutated_json(rng: random.Random, content: bytes) -> tuple[str, str, bytes, bool]:
    tree = json.loads(content)
    done = []
    for _ in range(rng.choice([1, 1, 2, 3])):
        places = list(_places(tree))
        holder, key = rng.choice(places)
        what = rng.choice(["value", "value", "value", "without", "deep", "many"])
        try:
            if what == "value":
                holder[key] = rng.choice(VALUES)
            elif what == "without":
                del holder[key]
            elif what == "many" and isinstance(holder, list):
                holder += [holder[key]] * 3000
            else:
                holder[key] = {"a": [holder[key]]}
        except (KeyError, IndexError):
            continue
        done.append(f"{what} at {key}")
    text = json.dumps(tree)
    if rng.random() < 0.05:
        text = "[" * 100_000 + text
    return ", ".join(done), ".json", text.encode(), False


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    yield {"": tree}, ""
    keys = tree if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ()
    for key in list(keys):
        yield tree, key
        yield from list(_places(tree[key]))[1:]


def _mutated_snapshot(rng: random.Random, content: bytes) -> tuple[str, str, bytes, bool]:
    table = pq.read_table(pa.BufferReader(content))
    if rng.random() < 0.3:
        about = json.loads(table.schema.metadata[b"evgrid"])
        about[rng.choice([*about, "new"])] = rng.choice(VALUES)
        changed = rng.choice([json.dumps(about).encode(), b"", b"[]", b"\xff", b"[" * 100_000])
        table = table.replace_schema_metadata({b"evgrid": changed})
        done = "metadata"
    else:
        name = rng.choice(table.column_names)
        frame = table.to_pandas()
        _, _, typed, _ = _typed(rng, frame[[name]])
        try:
            column = pq.read_table(pa.BufferReader(typed)).column(0)
        except pa.ArrowException:  # it was written as NetCDF
            column = pa.chunked_array([pa.array([rng.choice([-1.0, 0.0, 1e300, math.nan])] * table.num_rows)])
        at = table.column_names.index(name)
        metadata = table.schema.metadata
        table = table.remove_column(at) if rng.random() < 0.2 else table.set_column(at, name, column)
        if rng.random() < 0.3:
            table = table.take(pa.array(rng.sample(range(table.num_rows), table.num_rows)))
        table = table.replace_schema_metadata({b"evgrid": metadata[b"evgrid"]})
        done = f"column {name}"
    stream = io.BytesIO()
    pq.write_table(table, stream)
    return done, ".parquet", stream.getvalue(), False


def _bytes(rng: random.Random, content: bytes) -> bytes:
    """Some bytes changed, cut, doubled or put in."""
    data = bytearray(content)
    for _ in range(rng.choice([1, 1, 4, 16])):
        at = rng.randrange(len(data) + 1)
        what = rng.choice(["flip", "flip", "cut", "insert", "zero", "double", "quote"])
        if what == "flip" and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif what == "cut":
            del data[at : at + rng.choice([1, 10, len(data)])]
        elif what == "insert":
            data[at:at] = bytes(rng.randrange(256) for _ in range(rng.choice([1, 8])))
        elif what == "zero":
            data[at : at + 4] = b"\0" * 4
        elif what == "double":
            data[at:at] = data[at : at + 200]
        else:
            data[at:at] = rng.choice([b'"', b"\r", b"\n", b"\xef\xbb\xbf", b"#"])
    return bytes(data)
