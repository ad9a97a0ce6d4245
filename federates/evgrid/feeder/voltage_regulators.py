"""Tap changers and switched capacitors: devices with positions that hold a voltage within a band.

In: the solution of a feeder step with the devices at their positions. Out: the mean solution over the
step, with the devices' operations inside it. Loads are constant over a step; a device operates at the
moment at which its voltage has lain on one side of the band for its delay, so a step is split there,
its power flow solved again, and the sub-steps are weighted with their duration. Where loads change only
from step to step, the positions at any time are therefore the same for any step that resolves those
changes. Events at the very end of a step belong to the next one: its load decides.

A device sees the mean voltage magnitude of the phases at its bus; one of three taps (``phases: each``) that
of its own phase, which it moves alone. With line-drop compensation it is
``|V - (R + jX) I|``, with the current I out of its transformer. An operation moves it by one position and
restarts its time; at the end of its range it does not operate. Devices due at the same moment operate
together, as in pandapower's control loop. With a delay of 0 a device does not turn back within the same
moment (it would hunt without end); it may do so in the next step.

Each member has its own devices, whose state depends on no other member.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from evgrid.core.element_names import ElementNames
from evgrid.core.model import ALL_PHASES, Array
from evgrid.errors import PowerFlowError, ScenarioError
from evgrid.feeder.grid import Floats, Ints
from evgrid.feeder.networks import Network
from evgrid.feeder.solvers import Flow, Positions, chosen_solver
from evgrid.scenario.devices import Capacitor, LineDrop, TapChanger

if TYPE_CHECKING:
    from evgrid.scenario.feeder import Feeder

MOST_OPERATIONS = 1000
"""Most moments in a step at which devices of a member operate; more is hunting."""

_SAME_S = 1e-6
"""Moments closer together than this count as one, s."""

Solve = Callable[[Ints, Positions], Flow]
"""Solves some members (their positions along the member axis) with their devices' positions."""


@dataclass(frozen=True)
class Device:
    """A device, resolved to positions in the network.

    element : position of the transformer whose tap changer moves, or of the shunt
    bus : position of the bus whose voltage it holds
    range : least and greatest position
    raises : 1 where a higher position raises the voltage, else -1
    outlet : position of the transformer whose current line-drop compensation uses, -1 without it
    phase : the phase whose tap it moves by the voltage of that phase; -1: all, by their mean
    """

    settings: TapChanger | Capacitor
    element: int
    bus: int
    range: tuple[int, int]
    raises: int
    outlet: int = -1
    phase: int = ALL_PHASES

    @property
    def name(self) -> str:
        """Name of the transformer or shunt."""
        return self.settings.trafo if isinstance(self.settings, TapChanger) else self.settings.shunt


def devices(settings: Feeder, network: Network) -> list[Device]:
    """The regulating devices that a scenario names.

    Raises
    ------
    ScenarioError
        With every fault: devices that do not exist, can't be regulated, or would hunt.

    """
    found, faults = list[Device](), list[str]()
    solver = settings.solver
    if solver == "auto" and settings.tap_changers:
        solver = chosen_solver(network)[0]

    def add(path: str, resolve: Callable[[], Device]) -> None:
        try:
            device = resolve()
            each = isinstance(device.settings, TapChanger) and device.settings.phases == "each"
            found.extend([replace(device, phase=phase) for phase in range(3)] if each else [device])
        except ValueError as error:
            faults.append(f"feeder.{path}.{error}")

    for place, changer in enumerate(settings.tap_changers):
        add(f"tap_changers.{place}", partial(_tap_changer, changer, network, solver))
    for place, capacitor in enumerate(settings.capacitors):
        add(f"capacitors.{place}", partial(_capacitor, capacitor, network))
    moved = [(type(device.settings), device.element) for device in found if device.phase <= 0]
    faults += [
        f"feeder: two regulators move '{device.name}'"
        for device in found
        if moved.count((type(device.settings), device.element)) > 1
    ]
    if faults:
        raise ScenarioError(list(dict.fromkeys(faults)))
    return found


def sets_of_positions(found: Sequence[Device], network: Network) -> int:
    """Number of sets of positions that devices can take; 1 if only z-bus can move one of them."""
    trafos = network.grid.trafos
    at_lv = [isinstance(one.settings, TapChanger) and trafos.tap_side[one.element] == 1 for one in found]
    if (network.three_phase and any(at_lv)) or any(one.phase != ALL_PHASES for one in found):
        return 1
    return math.prod(one.range[1] - one.range[0] + 1 for one in found)


def _place(names: NDArray[np.str_], name: str, key: str, what: str) -> int:
    known = ElementNames(names)
    if (at := known.place(name)) < 0:
        raise ValueError(f"{key} = {name}: the network has no such {what}; {known.hint(name)}")
    return at


def _tap_changer(given: TapChanger, network: Network, solver: str) -> Device:
    trafos = network.grid.trafos
    names = trafos.name
    three = [f"{given.trafo} {side}" for side in ("hv", "mv", "lv")]
    known = ElementNames(names)
    if known.place(given.trafo) < 0 and (known.places(three) >= 0).all():  # see feeder.equivalents
        windings = {name.rsplit(" ", 1)[1]: _place(names, name, "trafo", "transformer") for name in three}
        moving = next((k for k in windings.values() if trafos.tap_side[k] >= 0), windings["hv"])
        if given.side == "hv" or (moving != windings["hv"] and moving != windings[given.side]):
            raise ValueError(f"side = {given.side}: the tap changer of '{given.trafo}' does not act on it")
        outlet = windings[given.side]
    else:
        moving = outlet = _place(names, given.trafo, "trafo", "transformer")
        if given.side == "mv":
            raise ValueError(f"side = mv: '{given.trafo}' has no such winding")
    if trafos.tap_side[moving] < 0:
        raise ValueError(
            f"trafo = {given.trafo}: has no tap changer that can be regulated: the network must give it "
            "tap_side, tap_neutral, tap_min, tap_max, tap_pos and tap_step_percent, without tap_step_degree"
        )
    if network.three_phase and trafos.tap_side[moving] == 1 and solver == "power-grid-model":
        raise ValueError(
            f"trafo = {given.trafo}: its tap changer is at the low voltage, which power-grid-model can't "
            "move in three phases; use solver z-bus or pandapower"
        )
    if given.phases == "each":
        _check_phases(given, moving, network, solver)
    step_pu = abs(trafos.tap_step_percent[moving]) / 100
    if given.deadband_pu < step_pu:
        raise ValueError(
            f"deadband_pu = {given.deadband_pu:g}: must be at least a tap step of '{given.trafo}', "
            f"{step_pu:g}, or it hunts"
        )
    own = trafos.hv_bus[outlet] if given.side == "hv" else trafos.lv_bus[outlet]
    raises = 1 if (trafos.tap_side[moving] == 1) != (given.side == "hv") else -1
    return Device(
        settings=given,
        element=moving,
        bus=_bus(given.bus, int(own), network),
        range=(int(trafos.tap_min[moving]), int(trafos.tap_max[moving])),
        raises=raises * int(np.sign(trafos.tap_step_percent[moving])),
        outlet=outlet if given.line_drop is not None else -1,
    )


def _check_phases(given: TapChanger, moving: int, network: Network, solver: str) -> None:
    """Raises ValueError where a tap changer can't have three taps."""
    if not network.three_phase:
        raise ValueError("phases = each: needs a network solved in three phases (feeder.phases: 3)")
    if solver != "z-bus":
        raise ValueError(f"phases = each: needs the solver z-bus, not {solver}")
    trafos = network.grid.trafos
    group, shift = str(trafos.vector_group[moving]), float(trafos.shift_degree[moving])
    side = "low" if trafos.tap_side[moving] == 1 else "high"
    if not (group.lower() == "ynyn" and shift % 180 == 0) and (group.lower(), side) != ("dyn", "low"):
        raise ValueError(
            f"phases = each: the tap changer of '{given.trafo}' is at the {side} voltage of a transformer "
            f"{group} of {shift:g} degrees; must be on a YNyn of 0 or 180 degrees, or at the low voltage of "
            "a Dyn"
        )


def _capacitor(given: Capacitor, network: Network) -> Device:
    fixed = network.grid.fixed
    place = _place(fixed.shunt_name, given.shunt, "shunt", "shunt")
    if not fixed.shunt_b_s[place]:
        raise ValueError(f"shunt = {given.shunt}: has no reactive power (q_mvar = 0)")
    return Device(
        settings=given,
        element=place,
        bus=_bus(given.bus, int(fixed.shunt_bus[place]), network),
        range=(0, int(fixed.shunt_max_step[place])),
        raises=1 if fixed.shunt_b_s[place] > 0 else -1,
    )


def _bus(name: str | None, own: int, network: Network) -> int:
    bus = own if name is None else _place(network.grid.buses.name, name, "bus", "bus")
    if not network.topology.energised[bus]:
        raise ValueError(
            f"bus = {network.grid.buses.name[bus]}: no source feeds it, so there is nothing to hold"
        )
    return bus


@dataclass(frozen=True)
class RegulatorState:
    """State of all devices of all members.

    tap, shunt : (member, trafo), (member, shunt) positions of all, regulated or not; taps are (member, trafo,
        phase) where a device moves that of one phase
    direction : (member, device) 1 where it waits to raise the voltage, -1 to lower it, 0 else
    due_s : (member, device) time of its next operation, s from the start of the step; inf without one
    tap_operations, shunt_operations : (member, trafo), (member, shunt) since the start
    """

    tap: Ints
    shunt: Ints
    direction: Ints
    due_s: Floats
    tap_operations: Ints
    shunt_operations: Ints


class VoltageRegulators:
    """All devices of all members."""

    def __init__(self, found: Sequence[Device], network: Network, members: int) -> None:
        """Start with the network's positions, and no device waiting."""
        grid = network.grid
        given = [device.settings for device in found]
        self._found = found
        self._tap = np.flatnonzero([isinstance(one, TapChanger) for one in given])
        self._cap = np.flatnonzero([isinstance(one, Capacitor) for one in given])
        self._element = np.array([device.element for device in found], np.int64)
        self._bus = np.array([device.bus for device in found], np.int64)
        self._outlet = np.array([device.outlet for device in found], np.int64)
        self._phase = np.array([device.phase for device in found], np.int64)
        apart = bool((self._phase != ALL_PHASES).any())
        self._drop = np.array([_drop(device, network) for device in found])
        self._low = np.array([one.target_pu - one.deadband_pu / 2 for one in given])
        self._high = np.array([one.target_pu + one.deadband_pu / 2 for one in given])
        self._delay = np.array([one.delay for one in given])
        self._next = np.array([one.delay if one.next_delay is None else one.next_delay for one in given])
        self._range = np.array([device.range for device in found], np.int64).reshape(-1, 2)
        self._raises = np.array([device.raises for device in found], np.int64)

        def each(row: Ints) -> Ints:
            return np.repeat(row[np.newaxis], members, axis=0)

        shape = (members, len(found))
        self.state = RegulatorState(
            tap=each(np.stack([grid.trafos.tap_pos] * 3, axis=1) if apart else grid.trafos.tap_pos),
            shunt=each(grid.fixed.shunt_step),
            direction=np.zeros(shape, np.int64),
            due_s=np.full(shape, np.inf),
            tap_operations=each(np.zeros(len(grid.trafos.name), np.int64)),
            shunt_operations=each(np.zeros(len(grid.fixed.shunt_bus), np.int64)),
        )

    def step(self, solve: Solve, step_s: float) -> tuple[Flow, Mapping[str, Array], RegulatorState]:
        """Solve a step from the present state, which does not change.

        Returns
        -------
        flow
            Means over the step, (member, …).
        positions
            ``tap`` (member, trafo[, phase]) and ``shunt`` (member, shunt), means over the step.
        after
            The state at the end; assign it to :attr:`state` to continue.

        """
        state = RegulatorState(
            **{field.name: getattr(self.state, field.name).copy() for field in fields(RegulatorState)}
        )
        members = len(state.direction)
        total: Flow | None = None
        mean = {"tap": np.zeros(state.tap.shape), "shunt": np.zeros(state.shunt.shape)}
        some, now = np.arange(members), np.zeros(members)
        last_direction = np.zeros(state.direction.shape, np.int64)  # of operations at this moment
        operations = 0
        while len(some):
            if operations > MOST_OPERATIONS:
                self._raise_hunting(state, int(some[0]), step_s)
            operations += 1
            sub_step = solve(some, Positions(state.tap[some], state.shunt[some]))
            self._update_directions(sub_step, state, some, now, last_direction, step_s)
            due = np.maximum(state.due_s[some].min(axis=1, initial=np.inf), now[some])
            until = np.where(due < step_s - _SAME_S, due, step_s)
            share = (until - now[some]) / step_s
            if total is None:
                total = sub_step
                if (share < 1).any():
                    _weigh(total, share)
            else:
                _add(total, some, sub_step, share)
            for name in mean:
                at = getattr(state, name)[some]
                mean[name][some] += at * share.reshape(-1, *[1] * (at.ndim - 1))
            last_direction[some[until > now[some] + _SAME_S]] = 0
            now[some] = until
            some = some[until < step_s]
            self._operate(state, some, now, last_direction)
        assert total is not None
        state.due_s[:] -= step_s
        return total, mean, state

    def _update_directions(
        self, flow: Flow, state: RegulatorState, some: Ints, now: Array, last_direction: Ints, step_s: float
    ) -> None:
        """Update direction and due time of the devices of some members from their voltages."""
        volts = self.measured(flow)
        direction = (volts < self._low).astype(np.int64) - (volts > self._high)  # NaN: none
        move, at = direction * self._raises, self._positions(state)[some]
        direction[(at + move < self._range[:, 0]) | (at + move > self._range[:, 1])] = 0
        fresh = direction != state.direction[some]
        due = np.where(fresh, now[some, np.newaxis] + self._delay, state.due_s[some])
        back = fresh & (direction == -last_direction[some]) & (direction != 0) & (self._delay == 0)
        due[back] = step_s
        state.due_s[some] = np.where(direction == 0, np.inf, due)
        state.direction[some] = direction

    def _operate(self, state: RegulatorState, some: Ints, now: Array, last_direction: Ints) -> None:
        """Move the devices that are due."""
        acts = state.due_s[some] <= now[some, np.newaxis] + _SAME_S
        move = np.where(acts, state.direction[some] * self._raises, 0)
        for which, positions, count in (
            (self._tap, state.tap, state.tap_operations),
            (self._cap, state.shunt, state.shunt_operations),
        ):
            at = np.ix_(some, self._element[which])
            np.add.at(count, at, acts[:, which])
            if positions.ndim == 2:
                positions[at] += move[:, which]
                continue
            for device in which.tolist():
                phase = int(self._phase[device])
                phases = slice(None) if phase == ALL_PHASES else slice(phase, phase + 1)
                positions[some, self._element[device], phases] += move[:, [device]]
        last_direction[some] = np.where(acts, state.direction[some], last_direction[some])
        state.due_s[some] = np.where(acts, now[some, np.newaxis] + self._next, state.due_s[some])

    def _raise_hunting(self, state: RegulatorState, member: int, step_s: float) -> None:
        restless = self._found[int(np.argmin(state.due_s[member]))]
        raise PowerFlowError(
            f"the regulator of '{restless.name}' hunts: more than {MOST_OPERATIONS} operations in a step of "
            f"{step_s:g} s; give it a wider deadband_pu or a longer delay"
        )

    def _positions(self, state: RegulatorState) -> Ints:
        """Positions of the devices, (member, device)."""
        at = np.empty(state.direction.shape, np.int64)
        taps = state.tap[:, self._element[self._tap]]
        if taps.ndim == 3:
            taps = taps[:, np.arange(len(self._tap)), np.maximum(self._phase[self._tap], 0)]
        at[:, self._tap] = taps
        at[:, self._cap] = state.shunt[:, self._element[self._cap]]
        return at

    def measured(self, flow: Flow) -> Array:
        """The voltage that each device sees, (case, device), pu."""
        volts = flow.voltage_pu[:, self._bus]
        power = flow.trafo_lv_p_kw[:, self._outlet] + 1j * flow.trafo_lv_q_kvar[:, self._outlet]
        with np.errstate(invalid="ignore", divide="ignore"):  # where there is no voltage
            drop = self._drop[:, np.newaxis] * np.conj(power) / volts
        seen = np.abs(volts - np.where(self._outlet[:, np.newaxis] < 0, 0.0, drop))
        found = np.asarray(seen.mean(axis=2))
        own = np.flatnonzero(self._phase != ALL_PHASES)
        found[:, own] = seen[:, own, self._phase[own]]
        return found


def _drop(device: Device, network: Network) -> complex:
    """Voltage drop in pu at 1 pu per kVA (of a phase, where phases are solved separately)."""
    line = getattr(device.settings, "line_drop", None) or LineDrop()
    phases, kv = len(network.grid.phases), float(network.grid.buses.nominal_kv[device.bus])
    return phases * complex(line.r_ohm, line.x_ohm) / (kv**2 * 1e3)


def _weigh(flow: Flow, share: Array) -> None:
    """Multiply all numbers of each case by its share."""
    for values in flow.tables().values():
        values *= share.reshape(-1, *[1] * (values.ndim - 1))


def _add(total: Flow, cases: Ints, sub_step: Flow, share: Array) -> None:
    """Add a sub-step to its cases."""
    _weigh(sub_step, share)
    for name, values in sub_step.tables().items():
        getattr(total, name)[cases] += values
