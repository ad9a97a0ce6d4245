"""Tap changers and switched capacitors: devices with positions that hold a voltage within a band.

In: the solution of a feeder step with the devices where they stand. Out: the mean solution over the
step, with the devices' operations inside it. Loads are constant over a step; a device operates at the
moment at which its voltage has lain on one side of the band for its delay, so a step is parted there,
its power flow solved again, and the parts are weighted with their duration. Where loads change only
from step to step, the positions at any time are therefore the same for any step that resolves those
changes. Events at the very end of a step belong to the next one: its load decides.

A device sees the mean voltage magnitude of the phases at its bus; with line-drop compensation
``|V - (R + jX) I|``, with the current I out of its transformer. An operation moves it by one position and
restarts its time; it stands still at the end of its range. Devices due at the same moment operate
together, as in pandapower's control loop. With a delay of 0 a device does not turn back within the same
moment (it would hunt for ever in no time); it may do so in the next step.

Each member has its own devices, whose state depends on no other member.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from evgrid.core.model import Array
from evgrid.errors import PowerFlowError, ScenarioError
from evgrid.feeder.grid import Floats, Ints
from evgrid.feeder.networks import Network
from evgrid.feeder.solvers import Flow, Positions
from evgrid.scenario.devices import Capacitor, LineDrop, TapChanger

if TYPE_CHECKING:
    from evgrid.scenario.feeder import Feeder

MOST_OPERATIONS = 1000
"""Most moments in a step at which devices of a member operate; more is hunting."""

_SAME_S = 1e-6
"""Moments that lie so near together are one."""

Solve = Callable[[Ints, Positions], Flow]
"""Solves some members (their places) with their devices' positions."""


@dataclass(frozen=True)
class Device:
    """A device, resolved.

    element : position of the transformer whose tap changer moves, or of the shunt
    bus : position of the bus whose voltage it holds
    range : least and greatest position
    raises : 1 where a higher position raises the voltage, else -1
    outlet : position of the transformer whose current line-drop compensation takes, -1 without it
    """

    settings: TapChanger | Capacitor
    element: int
    bus: int
    range: tuple[int, int]
    raises: int
    outlet: int = -1

    @property
    def name(self) -> str:
        """Of the transformer or shunt."""
        return self.settings.trafo if isinstance(self.settings, TapChanger) else self.settings.shunt


def devices(settings: Feeder, network: Network) -> list[Device]:
    """The regulating devices that a scenario names.

    Raises
    ------
    ScenarioError
        With every fault: what there is not, what can't be regulated, and what would hunt.

    """
    found, faults = list[Device](), list[str]()

    def add(path: str, resolve: Callable[[], Device]) -> None:
        try:
            found.append(resolve())
        except ValueError as error:
            faults.append(f"feeder.{path}.{error}")

    for place, changer in enumerate(settings.tap_changers):
        add(f"tap_changers.{place}", partial(_tap_changer, changer, network, settings.solver))
    for place, capacitor in enumerate(settings.capacitors):
        add(f"capacitors.{place}", partial(_capacitor, capacitor, network))
    moved = [(type(device.settings), device.element) for device in found]
    faults += [
        f"feeder: two regulators move '{device.name}'"
        for device, key in zip(found, moved, strict=True)
        if moved.count(key) > 1
    ]
    if faults:
        raise ScenarioError(list(dict.fromkeys(faults)))
    return found


def _place(names: NDArray[np.str_], name: str, key: str, what: str) -> int:
    at = np.flatnonzero(names == name)
    if not len(at):
        some = ", ".join(names[:8].tolist()) + (", …" if len(names) > 8 else "")
        raise ValueError(f"{key} = {name}: the network has no such {what}; it has {some or 'none'}")
    return int(at[0])


def _tap_changer(given: TapChanger, network: Network, solver: str) -> Device:
    trafos = network.grid.trafos
    names = trafos.name
    three = [f"{given.trafo} {side}" for side in ("hv", "mv", "lv")]
    if given.trafo not in names and all(name in names for name in three):  # see feeder.equivalents
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
            "move in three phases; use solver pandapower"
        )
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
class State:
    """Of all devices of all members.

    tap, shunt : (member, trafo), (member, shunt) positions of all, regulated or not
    wish : (member, device) 1 where it waits to raise the voltage, -1 to lower it, 0 else
    due_s : (member, device) when it operates, from the start of the step, s; inf where it waits for nothing
    tap_operations, shunt_operations : (member, trafo), (member, shunt) since the start
    """

    tap: Ints
    shunt: Ints
    wish: Ints
    due_s: Floats
    tap_operations: Ints
    shunt_operations: Ints


class Regulation:
    """All devices of all members, and their time."""

    def __init__(self, found: Sequence[Device], network: Network, members: int) -> None:
        """Start with every device where the network has it, and every time at 0."""
        grid = network.grid
        given = [device.settings for device in found]
        self._found = found
        self._tap = np.flatnonzero([isinstance(one, TapChanger) for one in given])
        self._cap = np.flatnonzero([isinstance(one, Capacitor) for one in given])
        self._element = np.array([device.element for device in found], np.int64)
        self._bus = np.array([device.bus for device in found], np.int64)
        self._outlet = np.array([device.outlet for device in found], np.int64)
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
        self.state = State(
            tap=each(grid.trafos.tap_pos),
            shunt=each(grid.fixed.shunt_step),
            wish=np.zeros(shape, np.int64),
            due_s=np.full(shape, np.inf),
            tap_operations=each(np.zeros(len(grid.trafos.name), np.int64)),
            shunt_operations=each(np.zeros(len(grid.fixed.shunt_bus), np.int64)),
        )

    def step(self, solve: Solve, step_s: float) -> tuple[Flow, Mapping[str, Array], State]:
        """Go through a step from the state in which the devices are; the state stays as it is.

        Returns
        -------
        flow
            Means over the step, (member, …).
        positions
            ``tap`` (member, trafo) and ``shunt`` (member, shunt), means over the step.
        after
            The state at the end; assign it to :attr:`state` to go on.

        """
        state = State(**{field.name: getattr(self.state, field.name).copy() for field in fields(State)})
        members = len(state.wish)
        total: Flow | None = None
        mean = {"tap": np.zeros(state.tap.shape), "shunt": np.zeros(state.shunt.shape)}
        some, now = np.arange(members), np.zeros(members)
        turned = np.zeros(state.wish.shape, np.int64)  # which way each went at this moment
        operations = 0
        while len(some):
            if operations > MOST_OPERATIONS:
                self._hunts(state, int(some[0]), step_s)
            operations += 1
            part = solve(some, Positions(state.tap[some], state.shunt[some]))
            self._look(part, state, some, now, turned, step_s)
            due = np.maximum(state.due_s[some].min(axis=1, initial=np.inf), now[some])
            until = np.where(due < step_s - _SAME_S, due, step_s)
            share = (until - now[some]) / step_s
            if total is None:
                total = part
                if (share < 1).any():
                    _weigh(total, share)
            else:
                _add(total, some, part, share)
            for name in mean:
                mean[name][some] += getattr(state, name)[some] * share[:, np.newaxis]
            turned[some[until > now[some] + _SAME_S]] = 0
            now[some] = until
            some = some[until < step_s]
            self._operate(state, some, now, turned)
        assert total is not None
        state.due_s[:] -= step_s
        return total, mean, state

    def _look(self, flow: Flow, state: State, some: Ints, now: Array, turned: Ints, step_s: float) -> None:
        """Which way each device of some members wants to go now, and from when on."""
        volts = self.measured(flow)
        wish = (volts < self._low).astype(np.int64) - (volts > self._high)  # NaN wants nothing
        move, at = wish * self._raises, self._positions(state)[some]
        wish[(at + move < self._range[:, 0]) | (at + move > self._range[:, 1])] = 0
        fresh = wish != state.wish[some]
        due = np.where(fresh, now[some, np.newaxis] + self._delay, state.due_s[some])
        back = fresh & (wish == -turned[some]) & (wish != 0) & (self._delay == 0)
        due[back] = step_s
        state.due_s[some] = np.where(wish == 0, np.inf, due)
        state.wish[some] = wish

    def _operate(self, state: State, some: Ints, now: Array, turned: Ints) -> None:
        """Move the devices that are due."""
        acts = state.due_s[some] <= now[some, np.newaxis] + _SAME_S
        move = np.where(acts, state.wish[some] * self._raises, 0)
        for which, positions, count in (
            (self._tap, state.tap, state.tap_operations),
            (self._cap, state.shunt, state.shunt_operations),
        ):
            at = np.ix_(some, self._element[which])
            positions[at] += move[:, which]
            count[at] += acts[:, which]
        turned[some] = np.where(acts, state.wish[some], turned[some])
        state.due_s[some] = np.where(acts, now[some, np.newaxis] + self._next, state.due_s[some])

    def _hunts(self, state: State, member: int, step_s: float) -> None:
        restless = self._found[int(np.argmin(state.due_s[member]))]
        raise PowerFlowError(
            f"the regulator of '{restless.name}' hunts: more than {MOST_OPERATIONS} operations in a step of "
            f"{step_s:g} s; give it a wider deadband_pu or a longer delay"
        )

    def _positions(self, state: State) -> Ints:
        """Positions of the devices, (member, device)."""
        at = np.empty(state.wish.shape, np.int64)
        at[:, self._tap] = state.tap[:, self._element[self._tap]]
        at[:, self._cap] = state.shunt[:, self._element[self._cap]]
        return at

    def measured(self, flow: Flow) -> Array:
        """The voltage that each device sees, (case, device), pu."""
        volts = flow.voltage_pu[:, self._bus]
        power = flow.trafo_lv_p_kw[:, self._outlet] + 1j * flow.trafo_lv_q_kvar[:, self._outlet]
        with np.errstate(invalid="ignore", divide="ignore"):  # where there is no voltage
            drop = self._drop[:, np.newaxis] * np.conj(power) / volts
        return np.asarray(np.abs(volts - np.where(self._outlet[:, np.newaxis] < 0, 0.0, drop)).mean(axis=2))


def _drop(device: Device, network: Network) -> complex:
    """Voltage drop in pu at 1 pu per kVA (of a phase, where phases are told apart)."""
    line = getattr(device.settings, "line_drop", None) or LineDrop()
    phases, kv = len(network.grid.phases), float(network.grid.buses.nominal_kv[device.bus])
    return phases * complex(line.r_ohm, line.x_ohm) / (kv**2 * 1e3)


def _weigh(flow: Flow, share: Array) -> None:
    """Multiply all numbers of each case by its share."""
    for field in fields(flow):
        values = getattr(flow, field.name)
        values *= share.reshape(-1, *[1] * (values.ndim - 1))


def _add(total: Flow, cases: Ints, part: Flow, share: Array) -> None:
    """Add a part to the cases that it is of."""
    _weigh(part, share)
    for field in fields(total):
        getattr(total, field.name)[cases] += getattr(part, field.name)
