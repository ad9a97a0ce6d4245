"""DER controls of a charging station: local functions that the CSMS sets (OCPP 2.1, use cases R04 to R06).

In: SetDERControl, GetDERControl and ClearDERControl. Out: the local functions of the EVSE that are in force
at a time, and the share of its discharge power that it may give. No input or output here.

Of each type the control in force at a time is, of those that are scheduled then, that of the least priority
number, else the default one. Reactive power has one function: of VoltVar, WattVar and FixedVar that of the
least priority number. Without a control the scenario's own functions hold.

====================  =================================================================================
VoltVar               reactive power, PctMaxVar of rated apparent power, positive injected, by voltage in % of
                      nominal; ``vRef`` in % shifts it
VoltWatt              limit to discharge, PctMaxW, by voltage in % of nominal
WattVar               reactive power, PctMaxVar, by active power in % of rated, positive exported
FixedVar              reactive power, PctMaxVar, positive injected
FreqDroop             droops, and where they begin, in Hz
LimitMaxDischarge     ``pctMaxDischargePower``
====================  =================================================================================

Other types are NotSupported: the EVSE's functions don't have them, or, as of FixedPFAbsorb and FixedPFInject,
not for one direction alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from evgrid.inverter_functions.kernels import POINTS
from evgrid.ocpp.charging_profiles import Refusal
from evgrid.ocpp.messages import Times
from evgrid.ocpp.schemas import Payload
from evgrid.scenario.inverter_functions import FrequencyWatt, LocalFunctions, VoltVar, VoltWatt, WattVar

_REACTIVE = ("VoltVar", "WattVar", "FixedVar")
_PLACES = {
    "VoltVar": "curve", "VoltWatt": "curve", "WattVar": "curve", "FixedVar": "fixedVar",
    "FreqDroop": "freqDroop", "LimitMaxDischarge": "limitMaxDischarge",
}  # fmt: skip
_UNITS = {"VoltVar": "PctMaxVar", "WattVar": "PctMaxVar", "VoltWatt": "PctMaxW"}
_EVERYWHERE_PU = (0.01, 2.0)
MOST_CONTROLS = 24
"""Most controls that a station keeps: as many as a report can have of a kind."""


@dataclass(frozen=True, slots=True)
class _Control:
    id: str
    kind: str
    default: bool
    priority: int
    begin_s: float
    end_s: float
    given: Payload
    setting: Any

    def overlaps(self, other: _Control) -> bool:
        """Whether both are of a type and a time."""
        return (
            self.kind == other.kind
            and self.default == other.default
            and self.begin_s < other.end_s
            and other.begin_s < self.end_s
        )


class DerControls:
    """The DER controls of one charging station.

    own : the scenario's functions of its EVSE, None: it has none, and only LimitMaxDischarge is supported
    frequency : whether it measures the grid's frequency
    """

    def __init__(self, own: LocalFunctions | None, times: Times, frequency: bool = False) -> None:
        self.own, self._times, self._frequency = own, times, frequency
        self._controls: list[_Control] = []
        self._started: set[str] = set()

    def set(self, payload: Payload, time_s: float) -> tuple[str, Refusal | None, list[str]]:
        """Set a control, in place of one of the same id: status, why it is refused, ids it supersedes."""
        kind = payload["controlType"]
        if kind not in _PLACES or (self.own is None and kind != "LimitMaxDischarge"):
            return "NotSupported", None, []
        if kind == "FreqDroop" and not self._frequency:
            return "NotSupported", None, []
        kept = [control for control in self._controls if control.id != payload["controlId"]]
        try:
            made = self._made(payload, time_s)
            if len(kept) >= MOST_CONTROLS:
                raise ValueError(f"there are {MOST_CONTROLS} DER controls, the most it keeps")
        except ValidationError as error:
            return "Rejected", Refusal("InvalidValue", f"{kind}: {error.errors()[0]['msg']}"), []
        except (ValueError, KeyError) as error:
            return "Rejected", Refusal("InvalidValue", f"{kind}: {error}"), []
        self._controls = [*kept, made]
        below = [one.id for one in kept if one.overlaps(made) and one.priority >= made.priority]
        return "Accepted", None, below

    def clear(self, payload: Payload) -> str:
        """Clear the control of an id, or all of a type; the status."""
        found = self._matching(payload)
        self._controls = [control for control in self._controls if control not in found]
        return "Accepted" if found else "NotFound"

    def report(self, payload: Payload) -> Payload | None:
        """The content of ReportDERControl, None: there is nothing to report."""
        content: Payload = {}
        for one in self._matching(payload):
            place = _PLACES[one.kind]
            entry: Payload = {
                "id": one.id, "isDefault": one.default, "isSuperseded": self._superseded(one),
                place: one.given[place],
            }  # fmt: skip
            if place == "curve":
                entry["curveType"] = one.kind
            content.setdefault(place, []).append(entry)
        return content or None

    def functions(self, time_s: float) -> LocalFunctions | None:
        """The local functions in force at a time; the same object as long as nothing changes them."""
        if self.own is None:
            return None
        changed: dict[str, Any] = {}
        reactive = [one for kind in _REACTIVE if (one := self._in_force(kind, time_s)) is not None]
        if reactive:
            best = min(reactive, key=lambda one: one.priority)
            changed = {"volt_var": None, "watt_var": None, "power_factor": None}
            changed["watt_var" if best.kind == "WattVar" else "volt_var"] = best.setting
        for kind, name in (("VoltWatt", "volt_watt"), ("FreqDroop", "frequency_watt")):
            if (one := self._in_force(kind, time_s)) is not None:
                changed[name] = one.setting
        return self.own.model_copy(update=changed) if changed else self.own

    def discharge_share(self, time_s: float) -> float:
        """Share of its rated discharge power that it may give at a time, 0 to 1."""
        one = self._in_force("LimitMaxDischarge", time_s)
        return 1.0 if one is None else float(one.setting)

    def __len__(self) -> int:
        return len(self._controls)

    def starts_and_stops(self, time_s: float) -> list[tuple[str, bool]]:
        """Ids of the scheduled controls that have started (True) or stopped since this was last asked."""
        now = {
            one.id for one in self._controls if not one.default and self._in_force(one.kind, time_s) is one
        }
        found = [(name, False) for name in sorted(self._started - now)]
        found += [(name, True) for name in sorted(now - self._started)]
        self._started = now
        return found

    def _in_force(self, kind: str, time_s: float) -> _Control | None:
        """The control of a type at a time."""
        found = None
        for one in self._controls:
            if one.kind != kind or not one.begin_s <= time_s < one.end_s:
                continue
            if found is None or (one.default, one.priority) <= (found.default, found.priority):
                found = one
        return found

    def _superseded(self, control: _Control) -> bool:
        after = self._controls[self._controls.index(control) + 1 :]
        return any(
            one.overlaps(control) and (one.priority, one not in after) < (control.priority, True)
            for one in self._controls
            if one is not control
        )

    def _matching(self, criteria: Payload) -> list[_Control]:
        return [
            one
            for one in self._controls
            if criteria.get("controlId", one.id) == one.id
            and criteria.get("controlType", one.kind) == one.kind
            and criteria.get("isDefault", one.default) == one.default
        ]

    def _made(self, payload: Payload, time_s: float) -> _Control:
        """A control, checked; raises ValueError, KeyError or ValidationError."""
        kind = payload["controlType"]
        place = _PLACES[kind]
        if place not in payload:
            raise ValueError(f"needs {place}")
        given = payload[place]
        default, begin_s, end_s = payload["isDefault"], -math.inf, math.inf
        if default and ("startTime" in given or "duration" in given):
            raise ValueError("a default control has neither startTime nor duration")
        if not default:
            begin_s = self._times.seconds(given["startTime"]) if "startTime" in given else time_s
            end_s = begin_s + given.get("duration", math.inf)
        return _Control(
            payload["controlId"], kind, default, given["priority"], begin_s, end_s, payload,
            self._setting(kind, given),
        )  # fmt: skip

    def _setting(self, kind: str, given: Payload) -> Any:
        if kind == "LimitMaxDischarge":
            if "powerMonitoringMustTrip" in given:
                raise ValueError("powerMonitoringMustTrip is not supported")
            percent = given.get("pctMaxDischargePower", 100.0)
            if not 0 <= percent <= 100:
                raise ValueError(f"pctMaxDischargePower = {percent}: must be from 0 to 100")
            return percent / 100.0
        if kind == "FixedVar":
            if given["unit"] != "PctMaxVar":
                raise ValueError(f"unit = {given['unit']}: must be PctMaxVar")
            return fixed_var(given["setpoint"])
        assert self.own is not None
        if kind == "FreqDroop":
            nominal = float(self.own.nominal_hz)
            above, below = given["overFreq"] - nominal, nominal - given["underFreq"]
            if abs(above - below) > 1e-9:
                over, under = given["overFreq"], given["underFreq"]
                text = f"overFreq = {over} and underFreq = {under}: must be as far from {nominal:g} Hz"
                raise ValueError(text)
            return FrequencyWatt(
                droop_over=given["overDroop"], droop_under=given["underDroop"], deadband_hz=round(above, 9),
                response_s=given["responseTime"],
            )  # fmt: skip
        return _curve(kind, given)


def _curve(kind: str, given: Payload) -> VoltVar | VoltWatt | WattVar:
    """A function by a curve."""
    if given["yUnit"] != _UNITS[kind]:
        raise ValueError(f"yUnit = {given['yUnit']}: must be {_UNITS[kind]}")
    for key in ("hysteresis", "voltageParams"):
        if key in given:
            raise ValueError(f"{key} is not supported")
    reference = given.get("reactivePowerParams", {})
    if reference.get("autonomousVRefEnable"):
        raise ValueError("autonomousVRefEnable is not supported")
    if not 2 <= len(given["curveData"]) <= POINTS:
        raise ValueError(f"{len(given['curveData'])} points: must be from 2 to {POINTS}")
    factor = 1.0 if kind == "WattVar" else reference.get("vRef", 100.0) / 10_000.0
    points = tuple((round(point["x"] * factor, 9), point["y"]) for point in given["curveData"])
    settings: dict[str, Any] = {"points": points}
    if "responseTime" in given:
        settings["response_s"] = given["responseTime"]
    classes: dict[str, Any] = {"VoltVar": VoltVar, "VoltWatt": VoltWatt, "WattVar": WattVar}
    made: VoltVar | VoltWatt | WattVar = classes[kind](**settings)
    return made


def fixed_var(percent: float, response_s: float = 0.0) -> VoltVar:
    """A reactive power, % of rated apparent power, positive injected, at any voltage."""
    low, high = _EVERYWHERE_PU
    return VoltVar(points=((low, percent), (high, percent)), response_s=response_s)
