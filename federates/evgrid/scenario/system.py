"""The section ``system`` of a scenario: the bulk system.

.. code-block:: yaml

    system:
      nominal_hz: 60
      frequency:
        source: lfc
        base_mw: 1000
        agc_gain: 7
        disturbances: [{time: 60s, mw: 200}]
        fleet: {stands_for: 100}
      regulation: {source: synthetic, kind: regd}
      energy_price: {file: lmp.csv}
      emissions: {file: moer.json, timezone: America/Los_Angeles}
      events: [{name: heat wave, start: 2026-07-01T17:00, duration: 2h, level: 2}]
      openadr: {file: events.json, timezone: America/Los_Angeles}
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, get_args
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

import numpy as np
from pydantic import BeforeValidator, Discriminator, Field, Tag, field_validator, model_validator

from evgrid.core.model import Clock
from evgrid.core.units import DAY_S
from evgrid.readers.ieee2030_5 import DER_KINDS, DerRules, read_controls
from evgrid.readers.openadr import KINDS, Rules, payload_types, read_openadr
from evgrid.readers.series import PRICE, Series, read_emissions, read_series
from evgrid.readers.signals import NOTHING, Known, Signals, Winner
from evgrid.readers.times import clock_changes
from evgrid.scenario.fields import (
    Duration,
    ExistingFile,
    LocalTime,
    OutputFile,
    Positive,
    Settings,
    Share,
    TimeZone,
    fault,
    faults,
)
from evgrid.scenario.products import Product, find_product
from evgrid.scenario.time_series import TimeSeries

LONGEST_S = 3600.0
"""Longest time constant: 20 of them lie within the day before."""
MOST_S = 10 * 366 * DAY_S
"""Furthest time from the run's start of an event, s."""


@dataclass(frozen=True, slots=True)
class Shape:
    """Parameters of a synthetic signal; see the module.

    fast_s, slow_s : time constants of the low-pass and the high-pass, s; slow_s None: no high-pass
    spread : standard deviation before the cut
    neutral_s : interval over which energy is zero, s, None: not neutral; divides a day
    step_s : grid, s; divides a day and ``neutral_s``
    """

    fast_s: float
    slow_s: float | None
    spread: float
    neutral_s: float | None
    step_s: float = 2.0


REGD = Shape(120.0, 600.0, 0.6, 900.0)
REGA = Shape(240.0, None, 0.45, None)


class SeriesFile(TimeSeries):
    """Values over time from a file."""

    file: ExistingFile
    """CSV, Excel, Parquet or NetCDF with a column time (local, or seconds from the run's start) and one of
    values, each of which holds until the next row."""
    column: str | None = None
    """Name of the column of values, or of the series in a long table; left out: the only one."""


class EnergyPrice(SeriesFile):
    """Wholesale price over time from a file, currency per MWh."""

    currency: str | None = None
    """Currency of the prices, such as EUR; left out: not known."""


class Disturbance(Settings):
    """A step of generation or load."""

    time: Annotated[Duration, Field(ge=0)]
    """Time of the step, from the run's start."""
    mw: float | None = None
    """Generation lost or load gained, MW; negative: load lost."""
    pu: float | None = None
    """The same per unit of base_mw, instead of mw."""
    duration: Annotated[Duration, Field(gt=0)] | None = None
    """Duration of the step; left out: to the end."""

    @model_validator(mode="after")
    def _one_size(self) -> Disturbance:
        if (self.mw is None) == (self.pu is None):
            raise fault("give either mw or pu")
        return self


class FleetFeedback(Settings):
    """Effect of the fleet's power on the area: its deviation from the scheduled power."""

    stands_for: Annotated[float, Field(ge=0)] = 1.0
    """Number of fleets like this one that act on the area together; 0: none."""
    schedule_kw: float | None = None
    """Scheduled power of one fleet, kW; left out: the moving average of the fleet's own power, as the
    market follows slow changes."""
    schedule: Annotated[Duration, Field(gt=0)] = 900.0
    """Time constant of that moving average."""


class LoadFrequency(Settings):
    """One control area with inertia, governor, turbine and AGC.

    Defaults are those of Saadat, Power System Analysis, example 12.1, and of table 8 of
    10.1186/s41601-020-00169-5.
    """

    source: Literal["lfc"] = "lfc"
    """lfc: the load-frequency model."""
    base_mw: Positive = 1000.0
    """Base power of the area, MW."""
    inertia_s: Positive = 5.0
    """Inertia constant H, s."""
    damping: Annotated[float, Field(ge=0)] = 0.8
    """Load damping D: per unit of power for each per unit of frequency."""
    droop: Positive = 0.05
    """Governor droop R: per unit of frequency for each per unit of power."""
    governor_s: Annotated[Duration, Field(gt=0)] = 0.2
    """Time constant of the governor Tg."""
    turbine_s: Annotated[Duration, Field(gt=0)] = 0.5
    """Time constant of the turbine Tt."""
    agc_gain: Annotated[float, Field(ge=0)] = 0.0
    """Integral gain Ki of the AGC, per unit of power for each per unit of frequency and second; 0: none."""
    agc_to_governor: Share = 1.0
    """Share of the AGC's command that the area's own governor follows; the rest is left to regulation."""
    agc_full_pu: Positive = 0.02
    """Command of the AGC, per unit of base_mw, at which the regulation signal is 1 (source agc)."""
    governor_deadband_hz: Annotated[float, Field(ge=0)] = 0.0
    """Deadband of the governor, Hz; it responds to the deviation beyond it."""
    reserve_up_pu: Annotated[float, Field(ge=0)] | None = None
    """Most that the valve opens above its schedule, per unit; left out: no limit."""
    reserve_down_pu: Annotated[float, Field(ge=0)] | None = None
    """Most that it closes below, per unit; left out: no limit."""
    disturbances: tuple[Disturbance, ...] = ()
    """Steps of generation or load."""
    load: SeriesFile | None = None
    """Deviation of net load from schedule over time, MW."""
    fleet: FleetFeedback = FleetFeedback()
    """Effect of the fleet on the area."""


class ReplayedFrequency(SeriesFile):
    """Frequency from a file, Hz, at up to 10 s."""


class ConstantFrequency(Settings):
    """Nominal frequency throughout."""

    source: Literal["constant"] = "constant"
    """constant: nominal frequency."""


class SyntheticRegulation(Settings):
    """A drawn regulation signal; see evgrid.system.signals."""

    source: Literal["synthetic"] = "synthetic"
    """synthetic: drawn for each member from the scenario's seed."""
    kind: Literal["regd", "rega"] = "regd"
    """regd: fast, energy-neutral over 15 min; rega: slow, not neutral."""
    step: Literal[2, 4] = 2
    """Grid on which it is drawn, s."""
    fast: Annotated[Duration, Field(gt=0, le=LONGEST_S)] | None = None
    """Time constant of both low-pass poles; left out: that of the kind (120 s, 240 s)."""
    slow: Annotated[Duration, Field(gt=0, le=LONGEST_S)] | Literal["none"] | None = None
    """Time constant of the high-pass, or none; left out: that of the kind (600 s, none)."""
    spread: Positive | None = None
    """Standard deviation before the cut to -1 to 1; left out: that of the kind (0.6, 0.45)."""
    neutral: Annotated[Duration, Field(gt=0, le=DAY_S)] | Literal["none"] | None = None
    """Interval over which its energy is zero, from local midnight, or none; left out: that of the
    kind (15 min, none)."""

    @model_validator(mode="after")
    def _fits_the_day(self) -> SyntheticRegulation:
        neutral = self.shape.neutral_s
        if neutral is not None and (
            abs(DAY_S / neutral - round(DAY_S / neutral)) > 1e-9
            or abs(neutral / self.step - round(neutral / self.step)) > 1e-9
        ):
            raise fault(f"neutral = {neutral:g}s: must divide a day and be a multiple of step = {self.step}s")
        return self

    @property
    def shape(self) -> Shape:
        """The kind's parameters, replaced by those that are set."""
        kind = REGD if self.kind == "regd" else REGA
        slow, neutral = self.slow, self.neutral
        return Shape(
            fast_s=kind.fast_s if self.fast is None else self.fast,
            slow_s=kind.slow_s if slow is None else None if slow == "none" else slow,
            spread=kind.spread if self.spread is None else self.spread,
            neutral_s=kind.neutral_s if neutral is None else None if neutral == "none" else neutral,
            step_s=float(self.step),
        )


class ReplayedRegulation(SeriesFile):
    """A regulation signal from a file, -1 to 1, at up to 10 s; positive: upward."""


class AGCRegulation(Settings):
    """The command of the area's AGC, cut to -1 to 1."""

    source: Literal["agc"]
    """agc: -Ki times the integral of the frequency deviation, over agc_full_pu."""


class ProductRegulation(Settings):
    """The activation of a droop product by the system's frequency."""

    source: Literal["product"]
    """product: the activation of a product driven by frequency."""
    product: Annotated[Product, BeforeValidator(find_product, json_schema_input_type=str | Product)]
    """Name of the product, or a product of your own."""

    @model_validator(mode="after")
    def _by_frequency(self) -> ProductRegulation:
        if self.product.driver != "frequency":
            raise fault(f"product = {self.product.name}: must be a product driven by frequency")
        return self


def safe_address(url: str) -> str:
    """An address of a server, of HTTPS, or of HTTP on this machine. Raises a fault (for pydantic)."""
    parts = urlsplit(url)
    local = parts.hostname in ("localhost", "127.0.0.1", "::1")
    if not parts.hostname or not (parts.scheme == "https" or (parts.scheme == "http" and local)):
        raise fault("must begin with https://, or http:// on this machine (127.0.0.1)")
    return url


class DerServer(Settings):
    """A server of IEEE 2030.5 that a run asks for DERControls; see :mod:`evgrid.system.der_client`."""

    url: str
    """Its address, such as https://server.example:443; without TLS only on this machine."""
    programs: str = "/derp"
    """Path of the DERProgramList."""
    certificate: ExistingFile | None = None
    """Certificate of the client (PEM), as IEEE 2030.5 asks for with TLS; with key and authority."""
    key: ExistingFile | None = None
    """Its private key (PEM)."""
    authority: ExistingFile | None = None
    """Certificate of the authority that the server's is checked by (PEM)."""
    every: Annotated[Duration, Field(gt=0)] = 300.0
    """Simulated time between two questions."""
    record: OutputFile | None = None
    """File (.jsonl) into which documents are written as they come, for system.ieee2030_5.files; left out:
    none."""

    @field_validator("url")
    @classmethod
    def _safe(cls, url: str) -> str:
        return safe_address(url)

    @model_validator(mode="after")
    def _with_tls(self) -> DerServer:
        given = [part is not None for part in (self.certificate, self.key, self.authority)]
        if any(given) != all(given) or (self.url.startswith("https://") and not all(given)):
            raise fault("certificate, key and authority: are required together, and with https://")
        return self


class DerControls(Settings):
    """DERControls of IEEE 2030.5; see :mod:`evgrid.readers.ieee2030_5`."""

    files: tuple[ExistingFile, ...] = ()
    """Resources as a server gives them, XML or JSON: DERProgramList, DERControlList, DefaultDERControl; or
    the record (.jsonl) of a run. Or server."""
    server: DerServer | None = None
    """Server that is asked during the run, in place of files."""
    timezone: TimeZone
    """Time zone of the run's local time, into which the controls' times are converted."""
    targets: tuple[str, ...] = ()
    """Aggregators, EVs, connection points or transformers that the controls are for; left out: all."""
    limits_of: Literal["evs", "group"] = "evs"
    """What a limit is of: the EVs that it is for, together; or each of their groups, other load included."""
    discharge_kw: Annotated[float, Field(ge=0)] = 0.0
    """Power of the EVs together that percentages of power given are of (setMaxW), kW."""
    charge_kw: Annotated[float, Field(ge=0)] = 0.0
    """Power that percentages of power drawn are of (setMaxChargeRateW), kW."""

    @model_validator(mode="after")
    def _one_source(self) -> DerControls:
        if bool(self.files) == (self.server is not None):
            raise fault("give either files or server")
        return self

    def rules(self, clock: Clock, seed: int) -> DerRules:
        """How controls become signals in a run."""
        zone = ZoneInfo(self.timezone)
        return DerRules(zone, clock, seed, self.discharge_kw, self.charge_kw, self.targets)


class OpenADRRegulation(Settings):
    """The relative set-points of OpenADR in percent, with the other sign; 0 where none holds."""

    source: Literal["openadr"]
    """openadr: DISPATCH_SETPOINT_RELATIVE in PERCENT, -1 to 1, of system.openadr."""


class NoRegulation(Settings):
    """No regulation: the signal is 0."""

    source: Literal["none"] = "none"
    """none: the signal is 0."""


class EmissionsFile(TimeSeries):
    """Emission rate of the grid over time."""

    file: ExistingFile
    """Table in kg CO2 per MWh, or WattTime's v3 JSON in lb per MWh (converted)."""
    column: str | None = None
    """Name of the column of values in a table, or of the series in a long one; left out: the only one."""
    timezone: TimeZone | None = None
    """Time zone of the run's local time, for WattTime's UTC."""

    def note(self, clock: Clock) -> str:
        """Note on data in UTC where clocks change in a run, a sentence; "" where they don't."""
        if self.timezone is None or self.file.suffix.lower() != ".json":
            return ""
        changes = clock_changes(
            ZoneInfo(self.timezone), clock.start.astype("datetime64[us]").item(), clock.duration_s
        )
        if not changes:
            return ""
        when = ", ".join(f"{change:%Y-%m-%dT%H:%M}" for change in changes)
        return (
            f"clocks change in the run ({self.timezone}, {when}), but not the run's own: of emissions in an "
            "hour that comes twice the first are taken, over an hour that is skipped the last ones hold"
        )


class Event(Settings):
    """A demand-response event."""

    name: str
    """Name of the event."""
    start: LocalTime
    """Local time at which it begins."""
    duration: Annotated[Duration, Field(gt=0)]
    """Duration of the event."""
    level: Annotated[int, Field(ge=0, le=3)] = 1
    """0 normal, 1 moderate, 2 high, 3 special (OpenADR SIMPLE)."""
    priority: Annotated[int, Field(ge=0)] = 0
    """Of events at the same time the one with the lowest number holds."""


def level_at(events: Iterable[Event], clock: Clock, time_s: float) -> int:
    """Level of the event that holds at a simulated time, 0 without one.

    Of several the one of the lowest priority number holds, of equal ones the highest level.
    """
    now: datetime = clock.timestamps(np.array([time_s]))[0].astype("datetime64[us]").item()
    holding = [e for e in events if 0 <= (now - e.start).total_seconds() < e.duration]
    return min(((e.priority, -e.level) for e in holding), default=(0, 0))[1] * -1


Payload = Literal[
    "PRICE", "EXPORT_PRICE", "GHG", "SIMPLE", "ALERT_GRID_EMERGENCY", "ALERT_BLACK_START", "ALERT_FLEX_ALERT",
    "DISPATCH_SETPOINT", "DISPATCH_SETPOINT_RELATIVE", "IMPORT_CAPACITY_LIMIT", "EXPORT_CAPACITY_LIMIT",
    "CHARGE_STATE_SETPOINT",
]  # fmt: skip
"""Payloads of OpenADR that a run can follow."""


@lru_cache(maxsize=64)
def _types_in(file: Path, changed: int) -> frozenset[str]:
    """Types of payloads in a file of events, as of its last change."""
    return payload_types(file)


class VTN(Settings):
    """A server of OpenADR 3 that a run asks for events; see :mod:`evgrid.system.ven`."""

    url: str
    """Its address, such as https://vtn.example/openadr3/3.1.0; without TLS only on this machine."""
    client_id: str | None = None
    """Client id of OAuth 2.0, client credentials; left out: none is asked for."""
    secret: str = "EVGRID_VTN_SECRET"
    """Name of the environment variable that holds the client's secret."""
    token_url: str | None = None
    """Address that gives tokens; left out: as the VTN says at /auth/server."""
    every: Annotated[Duration, Field(gt=0)] = 60.0
    """Simulated time between two questions."""
    record: OutputFile | None = None
    """File (.jsonl) into which events are written as they come, for system.openadr.file; left out: none."""
    ven: str = "evgrid"
    """Name in reports."""
    report: Annotated[Duration, Field(gt=0)] | None = 900.0
    """Interval of the reports to events that ask for them; null: none."""

    @field_validator("url", "token_url")
    @classmethod
    def _safe(cls, url: str | None) -> str | None:
        return None if url is None else safe_address(url)


class OpenADR(Settings):
    """Events of OpenADR 3; see :mod:`evgrid.readers.openadr`."""

    file: ExistingFile | None = None
    """JSON: a list of events as a VTN returns it from /events, or of notifications; or one object a line
    (.jsonl). An event is known from its modificationDateTime on. Or vtn."""
    vtn: VTN | None = None
    """Server that is asked for events during the run, in place of a file; follow then says what may come."""
    timezone: TimeZone
    """Time zone of the run's local time, into which the events' times are converted."""
    programs: tuple[str, ...] = ()
    """Values of programID that count; left out: all."""
    targets: tuple[str, ...] = ()
    """Targets that the run has as a VEN: an event with targets counts if it has one of these, or, but for
    prices, emissions and regulation, the name of an aggregator; a set-point or a limit also for EVs,
    connection points and transformers that it names."""
    follow: Annotated[tuple[Payload, ...], Field(min_length=1)] | None = None
    """Types of payloads that are followed; left out: all that a run can follow."""
    limits_of: Literal["evs", "group"] = "evs"
    """What a capacity limit is of: the EVs that it is for, together; or each of their groups
    (aggregators.NAME.group), EVs and everything else together, as limit_kw is."""
    currency: str | None = None
    """Currency of the prices, such as EUR; left out: not known."""

    @model_validator(mode="after")
    def _one_source(self) -> OpenADR:
        if (self.file is None) == (self.vtn is None):
            raise fault("give either file or vtn")
        if self.vtn is not None and self.follow is None:
            raise fault("follow: is required with vtn, the payloads that may come")
        if self.vtn is not None and "CHARGE_STATE_SETPOINT" in (self.follow or ()):
            raise fault("follow = CHARGE_STATE_SETPOINT: is for files, not for vtn")
        return self

    @property
    def kinds(self) -> frozenset[str]:
        """Kinds of signals that are followed."""
        found = {KINDS[payload] for payload in get_args(Payload) if self.follows(payload)}
        return frozenset({*found, *(["regulation"] if "power_change" in found else [])})

    def rules(self, clock: Clock, seed: int, currency: str) -> Rules:
        """How events become signals in a run."""
        return Rules(
            ZoneInfo(self.timezone), clock, seed, self.programs, tuple(sorted(self.kinds)), currency,
            self.targets,
        )  # fmt: skip

    def follows(self, payload: str) -> bool:
        """Whether the run follows a type of payload."""
        return self.follow is None or payload in self.follow

    @property
    def gives_prices(self) -> bool:
        """Whether there are prices of energy among the events."""
        if not self.follows("PRICE"):
            return False
        return self.file is None or "PRICE" in _types_in(self.file, self.file.stat().st_mtime_ns)


def _kinds(default: str, *sources: str) -> Discriminator:
    """Chooses among settings by their source, or by a file."""

    def kind(value: Any) -> str:
        if isinstance(value, Mapping):
            found = value.get("source", "file" if "file" in value else default)
        else:
            found = getattr(value, "source", "file" if hasattr(value, "file") else default)
        return f"<{found}>"

    allowed = f"source must be one of {', '.join(sources)}; or give a file without a source"
    return Discriminator(kind, custom_error_type="fault", custom_error_message=allowed)


Frequency = Annotated[
    Annotated[LoadFrequency, Tag("<lfc>")]
    | Annotated[ReplayedFrequency, Tag("<file>")]
    | Annotated[ConstantFrequency, Tag("<constant>")],
    _kinds("constant", "lfc", "constant"),
]
Regulation = Annotated[
    Annotated[SyntheticRegulation, Tag("<synthetic>")]
    | Annotated[ReplayedRegulation, Tag("<file>")]
    | Annotated[AGCRegulation, Tag("<agc>")]
    | Annotated[ProductRegulation, Tag("<product>")]
    | Annotated[OpenADRRegulation, Tag("<openadr>")]
    | Annotated[NoRegulation, Tag("<none>")],
    _kinds("none", "synthetic", "agc", "product", "openadr", "none"),
]


class System(Settings):
    """The bulk system."""

    nominal_hz: Positive = 60.0
    """Nominal frequency, Hz."""
    frequency: Frequency = ConstantFrequency()
    """Source of the frequency: {source: lfc}, {file: frequency.csv} or {source: constant}."""
    regulation: Regulation = NoRegulation()
    """Source of the regulation signal: {source: synthetic}, {file: signal.csv}, {source: agc},
    {source: product}, {source: openadr} or {source: none}."""
    energy_price: EnergyPrice | None = None
    """Wholesale price over time, currency per MWh. Where the scenario has no tariff it is the price of
    energy drawn and given back in strategies, costs and settlement."""
    emissions: EmissionsFile | None = None
    """Emission rate over time."""
    events: tuple[Event, ...] = ()
    """Demand-response events."""
    openadr: OpenADR | None = None
    """Events of OpenADR 3: prices, emissions, events, set-points and limits. Where none of its prices or
    emission rates holds, those of energy_price or emissions do, or else the last one holds on."""

    ieee2030_5: DerControls | None = None
    """DERControls of IEEE 2030.5: set-points and limits."""

    @property
    def live(self) -> frozenset[str] | None:
        """Kinds of the signals that may come from a server during the run; None without a server."""
        if self.openadr is not None and self.openadr.vtn is not None:
            return self.openadr.kinds
        if self.ieee2030_5 is not None and self.ieee2030_5.server is not None:
            return DER_KINDS
        return None

    @property
    def limits_of(self) -> str:
        """What limits of signals are of: evs or group."""
        given = (self.openadr, self.ieee2030_5)
        return next((part.limits_of for part in given if part is not None), "evs")

    @property
    def targets(self) -> tuple[str, ...]:
        """Targets of signals that are for the whole run."""
        return self.openadr.targets if self.openadr is not None else ()

    def gives(self, key: str) -> bool:
        """Whether a key of the section is given, by itself or by signals from outside."""
        return bool(getattr(self, key)) or (key in ("events", "emissions") and self.openadr is not None)

    @property
    def gives_prices(self) -> bool:
        """Whether there are wholesale prices."""
        return self.energy_price is not None or (self.openadr is not None and self.openadr.gives_prices)

    @property
    def currency(self) -> str:
        """Currency of the prices, "" where it isn't known."""
        of = (self.energy_price, self.openadr)
        return next((part.currency for part in of if part is not None and part.currency), "")

    @model_validator(mode="after")
    def _fits_together(self) -> System:
        found = []
        if isinstance(self.regulation, AGCRegulation) and not (
            isinstance(self.frequency, LoadFrequency) and self.frequency.agc_gain > 0
        ):
            found.append(
                "system.regulation.source = agc: needs system.frequency.source = lfc and agc_gain above 0"
            )
        if isinstance(self.regulation, OpenADRRegulation) and self.openadr is None:
            found.append("system.regulation.source = openadr: needs system.openadr")
        if (
            self.openadr is not None
            and self.ieee2030_5 is not None
            and self.openadr.limits_of != self.ieee2030_5.limits_of
        ):
            found.append(
                f"system.ieee2030_5.limits_of = {self.ieee2030_5.limits_of}: must be that of system.openadr"
            )
        if self.live is not None and self.openadr is not None and self.ieee2030_5 is not None:
            found.append("system.openadr and system.ieee2030_5: can be given together only from files")
        given = {part.currency for part in (self.energy_price, self.openadr) if part and part.currency}
        if len(given) > 1:
            found.append(
                f"system.openadr.currency = {self.openadr and self.openadr.currency}: must be that of "
                "system.energy_price"
            )
        if isinstance(self.regulation, ProductRegulation):
            product = self.regulation.product
            if product.nominal_hz != self.nominal_hz:
                found.append(
                    f"system.regulation.product = {product.name}: is for {product.nominal_hz:g} Hz, "
                    f"system.nominal_hz is {self.nominal_hz:g}"
                )
        if found:
            raise faults(found)
        return self


def signals_of(system: System | None, clock: Clock, seed: int) -> Signals | None:
    """The signals of files; None without any. Raises ScenarioError for a file that is at fault."""
    if system is None:
        return None
    files = [
        *([system.openadr.file] if system.openadr is not None and system.openadr.file is not None else []),
        *(system.ieee2030_5.files if system.ieee2030_5 is not None else ()),
    ]
    if not files:
        return None
    start = clock.start.astype("datetime64[us]").item()
    changed = tuple(file.stat().st_mtime_ns for file in files)
    given = system.openadr, system.ieee2030_5, system.currency
    return _signals_of(*given, start, clock.step_s, clock.ticks, seed, changed)


@lru_cache(maxsize=8)
def _signals_of(
    openadr: OpenADR | None, controls: DerControls | None, currency: str,
    start: datetime, step_s: float, ticks: int, seed: int, changed: tuple[int, ...],
) -> Signals:  # fmt: skip
    clock, found = Clock(np.datetime64(start), step_s, ticks), Signals()
    if openadr is not None and openadr.file is not None:
        found += read_openadr(openadr.file, openadr.rules(clock, seed, currency))
    if controls is not None:
        found += read_controls(controls.files, controls.rules(clock, seed))
    return found


def emissions_of(system: System | None, clock: Clock, known: Known | Signals | None) -> Series | None:
    """Emission rates: of signals where they hold, else of ``system.emissions``; None without both.

    known : what is known, or signals: then each time by what was known then

    Raises ScenarioError for a file that is at fault.
    """
    source = system.emissions if system is not None else None
    base = None
    if source is not None:
        base = read_emissions(source.file, clock, source.timezone, source.column, source.reading)
    return base if known is None else known.held("emissions", base)


def wholesale_of(
    system: System | None, clock: Clock, known: Known | Signals | None
) -> tuple[Series, Series] | None:
    """Price of energy drawn and credit for energy given, currency per kWh: of signals where they hold, else
    of ``system.energy_price``; the credit is the price where no signal says another. None without any price.

    Raises ScenarioError for a file that is at fault.
    """
    source = system.energy_price if system is not None else None
    base = None
    if source is not None:
        base = read_series(source.file, clock, PRICE, source.column, source.reading)
        base = Series(base.edges_s, base.values / 1000.0)
    price = base if known is None else known.held("price", base)
    if price is None and known is not None and system is not None and system.gives_prices:
        price = NOTHING  # those that there are, are not for this run
    if price is None:
        return None
    given = price if known is None else known.held("export_price", price)
    return price, price if given is None else given


def winners_of(known: Known | Signals | None, kind: str) -> list[Winner]:
    """The signals of a kind that hold for all."""
    if known is None:
        return []
    return known.actual(kind) if isinstance(known, Signals) else known.winners(kind)


def events_of(
    system: System | None, clock: Clock, known: Known | Signals | None, names: Collection[str]
) -> list[Event]:
    """The events of a scenario and of signals, of the latter those that hold for ``names``: one a span in
    which a level above 0 wins.
    """
    found = list(system.events) if system is not None else []
    if known is None:
        return found
    spans = known.actual("level", names) if isinstance(known, Signals) else known.winners("level", names)
    start = clock.start.astype("datetime64[us]").item()
    for begin_s, end_s, block in spans:
        if block.value > 0:
            begin_s, end_s = max(begin_s, -MOST_S), min(end_s, MOST_S)
            found.append(
                Event(
                    name=block.event, start=start + timedelta(seconds=begin_s), duration=end_s - begin_s,
                    level=int(block.value), priority=int(min(block.priority, 1e9)),
                )
            )  # fmt: skip
    return found
