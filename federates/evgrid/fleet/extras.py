"""What a scenario asks of the detailed step: its settings as arrays, and what they draw.

None of it where a scenario asks for nothing beyond the basic step: :func:`extras_of` gives None then.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evgrid.battery.laws import DRIVER, INTERCONNECTION, REASONS, VEHICLE, WARRANTY, is_willing
from evgrid.battery.records import Kinds
from evgrid.core.model import ALL_PHASES, Array, Clock, Connections, EVs
from evgrid.core.ports import PORTS
from evgrid.core.random_streams import Purpose, stream
from evgrid.fleet import degradation
from evgrid.fleet.battery import IdleCell, with_losses_by_power
from evgrid.fleet.kernels.lanes import Blocks, blocks_of
from evgrid.fleet.kernels.records import FUNCTIONS, OPTIONS, PHYSICS, Details
from evgrid.fleet.sessions import Sessions
from evgrid.readers.signals import Signals
from evgrid.scenario import Scenario
from evgrid.scenario.fleet import Fleet, Permission
from evgrid.scenario.inverter_functions import Rating, parameters
from evgrid.scenario.system import emissions_of

AGEING_PERIOD_S = 900.0
"""How often the ageing of plugged-in EVs is brought up to date at least; every turn of their SOC, arrival and
departure do so, too."""

PAST_SOC = 0.6
"""State of charge at which batteries stood before the run."""

AWAY_C_RATE = 0.3
"""C-rate of driving, 1/h."""


@dataclass
class Extras:
    """What the detailed step takes besides, and how to look up what changes from tick to tick.

    details : see :class:`evgrid.fleet.kernels.records.Details`
    capable : (ev,) bool, whether the EVSE has the local functions
    outcome : (session, len(REASONS) + 3), see :func:`evgrid.fleet.kernels.one_ev.end_session`
    counts : whether refused discharge is counted
    frequency : whether the EVSEs see the system's frequency
    nominal_hz : the frequency that they see otherwise
    window_h : local hours between which drivers let discharge, or None
    idle_cell : temperature of a car that stands idle, or None: ``constant_c``
    emissions : kg per MWh over a span, or None
    """

    details: Details
    capable: NDArray[np.bool_]
    outcome: Array
    counts: bool
    with_functions: bool
    frequency: bool
    nominal_hz: float
    window_h: tuple[float, float] | None
    idle_cell: IdleCell | None
    constant_c: float
    emissions: Callable[[float, float], Array] | None

    def willing(self, hour: float) -> bool:
        """Whether drivers let discharge at a local hour, 0 to 24."""
        return self.window_h is None or bool(is_willing(hour, *self.window_h))

    def willing_share(self, begin_h: Array, length_h: float) -> Array:
        """Share of each span from a local hour on in which drivers let discharge; ``begin_h``: (span,)."""
        if self.window_h is None:
            return np.ones(len(begin_h))
        open_h = (self.window_h[1] - self.window_h[0]) % 24.0 or 24.0
        edges = np.stack([begin_h, begin_h + length_h]) - self.window_h[0]
        before = np.floor(edges / 24.0) * open_h + np.minimum(edges % 24.0, open_h)
        return np.asarray((before[1] - before[0]) / length_h)

    def idle_c(self, time_s: float) -> float:
        """Cell temperature of a car that stands idle, °C."""
        return self.idle_cell.at(time_s) if self.idle_cell is not None else self.constant_c


def extras_of(
    scenario: Scenario, connections: Connections, evs: EVs, sessions: Sessions, kinds: Kinds,
    state: Blocks, live: Signals | None = None,
) -> Extras | None:  # fmt: skip
    """What the scenario's fleet needs of the detailed step, None if nothing.

    ``state``: the EVs' blocks of STATE. ``live``: signals that come during the run. Raises ScenarioError for
    a file that is at fault.
    """
    fleet, system = scenario.fleet, getattr(scenario, "system", None)
    if fleet is None:
        return None
    charger, vehicle, permission = fleet.charger, fleet.vehicle, fleet.permission
    source = None
    if system is not None and live is not None and "emissions" in live.kinds:
        source = _live_emissions(scenario, live)
    elif system is not None and (rates := emissions_of(system, scenario.clock, scenario.signals)) is not None:
        source = rates.mean
    asked = (
        charger.functions, charger.ramp_kw_per_s, permission, vehicle.temperature, vehicle.degradation,
        fleet.reserve_horizon, fleet.envelope, source, scenario.outages,
    )  # fmt: skip
    if all(part is None for part in asked) and not (
        charger.minimum_current_a or charger.pilot_step_a or vehicle.standby_kw or scenario.sites
    ):
        return None
    wide = on_three_phases(fleet, connections, evs)
    table, table_of = _parameters(fleet, kinds.rows)
    functions = charger.functions
    physics = _physics(scenario, evs, permission, wide)
    return Extras(
        details=Details(
            options=_options(fleet, source is not None),
            physics=blocks_of(PHYSICS, physics, state),
            parameters=table,
            parameters_of=table_of,
            functions=np.zeros(len(evs) if functions is not None else 1, FUNCTIONS),
            ageing=_ageing(fleet, len(evs), sessions),
            laws=degradation.LAWS,
        ),
        capable=physics["capable"] == 1,
        outcome=np.full((len(sessions), len(REASONS) + 3), np.nan),
        counts=permission is not None,
        with_functions=functions is not None,
        frequency=functions is not None and system is not None and "system/frequency" in PORTS,
        nominal_hz=functions.nominal_hz if functions is not None else 60.0,
        window_h=permission.driver.window if permission is not None else None,
        idle_cell=IdleCell(vehicle.temperature, scenario.clock) if vehicle.temperature is not None else None,
        constant_c=vehicle.degradation.temperature_c if vehicle.degradation is not None else 25.0,
        emissions=source,
    )


def on_three_phases(fleet: Fleet, connections: Connections, evs: EVs) -> NDArray[np.bool_]:
    """Whether each EV charges on three phases, (ev,); on a balanced feeder, whether its EVSE has them."""
    if len(connections.phases) == 3:
        return np.asarray(evs.phase == ALL_PHASES)
    return np.full(len(evs), fleet.charger.phases == 3)


def in_force(scenario: Scenario, connections: Connections, evs: EVs, sessions: Sessions) -> Sessions:
    """The sessions with losses by power and with the floors of warranty and driver, where asked for."""
    fleet = scenario.fleet
    if fleet is None:
        return sessions
    if fleet.vehicle.losses == "by_power":
        sessions = with_losses_by_power(sessions, on_three_phases(fleet, connections, evs)[sessions.ev])
    if fleet.permission is not None:
        sessions = replace(sessions, soc_floor=with_floors(sessions.soc_floor, fleet.permission))
    return sessions


def with_floors(sessions_floor: Array, permission: Permission | None) -> Array:
    """The sessions' floors, raised to those of warranty and driver."""
    if permission is None:
        return sessions_floor
    return np.maximum(sessions_floor, max(permission.warranty.soc_floor, permission.driver.soc_floor))


def _live_emissions(scenario: Scenario, live: Signals) -> Callable[[float, float], Array]:
    """Emission rate of a span by what is known at its begin; 0 while there is none."""

    def mean(begin_s: float, end_s: float) -> Array:
        rates = emissions_of(scenario.system, scenario.clock, live.known(begin_s))
        return np.zeros(()) if rates is None else rates.mean(begin_s, end_s)

    return mean


def _options(fleet: Fleet, emissions: bool) -> Any:
    options: Any = np.zeros(1, OPTIONS)[0]
    charger, vehicle = fleet.charger, fleet.vehicle
    warranty = fleet.permission.warranty if fleet.permission is not None else None
    hours = warranty.hours if warranty is not None else None
    energy_kwh = warranty.throughput_kwh if warranty is not None else None
    options["throughput_kws"] = np.inf if energy_kwh is None else 3600.0 * energy_kwh
    options["discharging_s"] = np.inf if hours is None else 3600.0 * hours
    options["warranty_floor"] = warranty.soc_floor if warranty is not None else 0.0
    options["driver_floor"] = fleet.permission.driver.soc_floor if fleet.permission is not None else 0.0
    options["least_a"], options["pilot_a"] = charger.minimum_current_a, charger.pilot_step_a
    options["volt"] = charger.nominal_v
    options["ramp_kw_per_s"] = np.inf if charger.ramp_kw_per_s is None else charger.ramp_kw_per_s
    options["standby_kw"] = vehicle.standby_kw
    options["functions"], options["emissions"] = charger.functions is not None, emissions
    options["away_c_rate"], options["ageing"] = AWAY_C_RATE, vehicle.degradation is not None
    temperature = vehicle.temperature
    if temperature is not None:
        options["thermal"] = 1
        options["heating_k_per_kw"] = temperature.heating_k_per_kw
        options["cooling_per_s"] = 1.0 / temperature.time_constant
        for name in ("freezing_c", "mild_c", "warm_c", "hot_c"):
            options[name] = getattr(temperature, name)
        options["cold_c_rate"], options["mild_c_rate"] = temperature.cold_c_rates
    return options


def _physics(
    scenario: Scenario, evs: EVs, permission: Permission | None, wide: NDArray[np.bool_]
) -> NDArray[np.void]:
    """The EVs' rows, with what each may; row r of a member never changes with their number."""
    rows = np.zeros(len(evs), PHYSICS)
    rows["phases"] = np.where(wide, 3, 1)
    counts = np.diff(np.searchsorted(evs.member, np.arange(len(scenario.members) + 1)))
    drawn = np.concatenate(
        [
            stream(scenario.ensemble.seed, member, Purpose.PERMISSION).random((n, 5))
            for member, n in zip(scenario.members, counts.tolist(), strict=True)
        ]
    )
    assert scenario.fleet is not None
    functions = scenario.fleet.charger.functions
    rows["capable"] = drawn[:, 4] < functions.capable if functions is not None else 0
    if permission is not None:
        refusals = (
            (VEHICLE, permission.vehicle), (INTERCONNECTION, permission.interconnection),
            (WARRANTY, permission.warranty.approved), (DRIVER, permission.driver.willing),
        )  # fmt: skip
        for column, (reason, share) in reversed(list(enumerate(refusals))):
            refused = drawn[:, column] >= share
            rows["refusal"][refused] = reason
            if reason != INTERCONNECTION:
                rows["island_refusal"][refused] = reason
    return rows


@dataclass(frozen=True)
class MayDischarge:
    """What permits EVs to discharge, as others than the fleet have to know it.

    refusal, island_refusal : (ev,) number of the reason for which an EV never may, on the grid and in an
        island; 0 if it may
    throughput_kws, discharging_s : the warranty's caps over the run, inf: none
    window_h : local hours between which drivers let it, None: all day
    """

    refusal: NDArray[np.int8]
    island_refusal: NDArray[np.int8]
    throughput_kws: float
    discharging_s: float
    window_h: tuple[float, float] | None


def may_discharge(scenario: Scenario, connections: Connections, evs: EVs) -> MayDischarge:
    """What permits the EVs of a scenario to discharge."""
    fleet = scenario.fleet
    if fleet is None:
        none = np.zeros(0, np.int8)
        return MayDischarge(none, none, np.inf, np.inf, None)
    rows = _physics(scenario, evs, fleet.permission, on_three_phases(fleet, connections, evs))
    options = _options(fleet, False)
    return MayDischarge(
        rows["refusal"], rows["island_refusal"], float(options["throughput_kws"]),
        float(options["discharging_s"]), fleet.permission.driver.window if fleet.permission else None,
    )  # fmt: skip


def _parameters(fleet: Fleet, kinds: NDArray[np.void]) -> tuple[NDArray[np.void], NDArray[np.int32]]:
    """Parameters of the local functions, and the row of each kind; the last row is without functions."""
    charger = fleet.charger
    if charger.functions is None or not len(kinds):
        return parameters(None, Rating(1.0, 1.0)), np.zeros(len(kinds), np.int32)
    share = (charger.apparent_kva or charger.power_kw) / charger.power_kw
    limits, row_of = np.unique(
        np.column_stack([kinds["charge_kw"], kinds["discharge_kw"]]), axis=0, return_inverse=True
    )
    rows = [
        parameters(charger.functions, Rating(max(draw, give) * share, draw, give))
        for draw, give in limits.tolist()
    ]
    most = float(limits.max()) * share
    return np.concatenate([*rows, parameters(None, Rating(most, most, most))]), row_of.reshape(-1).astype(
        np.int32
    )


def ageing_notes(fleet: Fleet, sessions: Sessions, clock: Clock) -> tuple[str, ...]:
    """Where cell temperatures or C-rates lie outside the tests to which the laws of ageing were fitted."""
    vehicle = fleet.vehicle
    if vehicle.degradation is None or not len(sessions):
        return ()
    cells_c = [vehicle.degradation.temperature_c]
    if vehicle.temperature is not None:  # hourly; what the EVs' own losses heat comes on top
        idle_cell = IdleCell(vehicle.temperature, clock)
        cells_c = [idle_cell.at(s) for s in np.arange(0.0, clock.duration_s, 3600.0).tolist()]
    chemistry = np.where(sessions.chemistry == "", vehicle.chemistry, sessions.chemistry)
    notes = []
    for name, tests in degradation.TESTS.items():
        of = chemistry == name
        if not of.any():
            continue
        beyond = []
        if min(cells_c) < tests.least_c or max(cells_c) > tests.most_c:
            tested = f"{tests.least_c:g} to {tests.most_c:g} °C"
            beyond.append(f"cells at {_span(min(cells_c), max(cells_c))} °C (tests: {tested})")
        for way, kw, most in (
            ("charging", sessions.charge_kw, tests.charge_rate),
            ("discharging", sessions.discharge_kw, tests.discharge_rate),
        ):
            rate = float((kw[of] / sessions.capacity_kwh[of]).max())
            if rate > most:
                beyond.append(f"{way} at up to {rate:.2g} C (tests: {most:g} C)")
        if beyond:
            notes.append(
                f"fleet.vehicle.degradation: the law of {name} is used outside the tests that it was fitted "
                f"to: {', '.join(beyond)}"
            )
    return tuple(notes)


def _span(low: float, high: float) -> str:
    return f"{low:.3g}" if f"{low:.3g}" == f"{high:.3g}" else f"{low:.3g} to {high:.3g}"


def _ageing(fleet: Fleet, count: int, sessions: Sessions) -> NDArray[Any]:
    """The EVs' batteries with their past, (ev,) STATE; each by the chemistry of its type."""
    settings = fleet.vehicle.degradation
    if settings is None:
        return np.zeros(0, degradation.STATE)
    chemistry = np.full(count, fleet.vehicle.chemistry, "U3")
    told = sessions.chemistry != ""
    chemistry[sessions.ev[told]] = sessions.chemistry[told]
    rows = degradation.new_state(chemistry)
    past_k = settings.temperature_c + 273.15
    degradation.add_past(rows, settings.age_years, PAST_SOC, past_k, settings.full_cycles_per_year)
    return rows
