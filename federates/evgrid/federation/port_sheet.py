"""The port sheet: everything that another program needs to take a federate's place in a run.

In: the models that evgrid would have in the run, the sizes and the elements of the ports' dimensions, the
clock. Out: for each federate its period, offset and ports, as data, and as a configuration file of HELICS
that ``helicsCreateCombinationFederateFromConfig`` takes. All of it follows from the same places
(:func:`.wiring.wire`) as the run itself. No HELICS here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evgrid.core.model import Clock, Model
from evgrid.core.ports import Port, port
from evgrid.federation.wiring import Place, delay_of, wire

Elements = Mapping[str, Mapping[str, Sequence[Any]]]
"""Elements of each dimension in their order, as columns of a table: name, and other static facts."""


@dataclass(frozen=True, slots=True)
class SheetPort:
    """A port of a federate in one run.

    sizes : the number of elements along each dimension of ``port.shape``
    subscribers : the federates of the run that take it
    delay_s : time from sending to arrival; of messages only
    """

    port: Port
    sizes: tuple[int, ...]
    subscribers: tuple[str, ...]
    delay_s: float = 0.0

    @property
    def length(self) -> int:
        """Number of doubles on the wire."""
        return self.port.length(dict(zip(self.port.shape, self.sizes, strict=True)))

    def endpoint(self, federate: str) -> str:
        """Name of the endpoint that a federate registers for it, if it is sent as messages."""
        return self.port.name if federate == self.port.publisher else f"{federate}<-{self.port.name}"

    def as_json(self, federate: str) -> dict[str, Any]:
        """The port as a federate has it."""
        message = self.port.transport == "message"
        return {
            "key": self.port.name,
            **({"endpoint": self.endpoint(federate)} if message else {}),
            "type": "message of little-endian float64" if message else "double_vector",
            "unit": self.port.unit,
            "dimensions": list(self.port.shape),
            "shape": list(self.sizes),
            "length": self.length,
            "first_value": self.port.initial,
            "from": self.port.publisher,
            "to": list(self.subscribers),
            **({"delay_s": self.delay_s} if message else {}),
            "meaning": self.port.text,
        }


@dataclass(frozen=True, slots=True)
class FederateSheet:
    """One federate of a run: it steps at ``k * period_s + offset_s`` for k from 0 to ``steps - 1``.

    start : local time at the run's start
    waits_for : federates that HELICS must let pass before it
    iterates_on : ports whose new values make it repeat its step
    """

    name: str
    start: str
    period_s: float
    offset_s: float
    steps: int
    waits_for: tuple[str, ...]
    iterates_on: tuple[str, ...]
    outputs: tuple[SheetPort, ...]
    inputs: tuple[SheetPort, ...]

    @property
    def times(self) -> tuple[float, float, float]:
        """Simulated times of its first, second and last step, s."""
        steps = (0, min(1, self.steps - 1), self.steps - 1)
        first_s, second_s, last_s = (step * self.period_s + self.offset_s for step in steps)
        return first_s, second_s, last_s

    def as_json(self) -> dict[str, Any]:
        """The federate as a mapping."""
        return {
            "period_s": self.period_s,
            "offset_s": self.offset_s,
            "steps": self.steps,
            "last_step_s": self.times[-1],
            "waits_for": list(self.waits_for),
            "iterates_on": list(self.iterates_on),
            "outputs": [given.as_json(self.name) for given in self.outputs],
            "inputs": [taken.as_json(self.name) for taken in self.inputs],
        }

    def helics_config(self, core_type: str, broker: str) -> dict[str, Any]:
        """Its configuration file for HELICS, with which its program registers all ports.

        ``default`` is the value of an input until the first one arrives. Tags: the number of ``steps`` and
        the local time of the ``start``; of outputs and messages the ``length`` in doubles.
        """
        values = [given for given in self.outputs if given.port.transport == "value"]
        messages = [given for given in self.outputs if given.port.transport == "message"]
        config: dict[str, Any] = {
            "name": self.name,
            "core_type": core_type,
            "core_init_string": f"--broker_address={broker}",
            "period": self.period_s,
            "offset": self.offset_s,
            "uninterruptible": True,
            "terminate_on_error": True,
            "log_level": "error",
            "dependencies": list(self.waits_for),
            "tags": {"steps": str(self.steps), "start": self.start},
            "publications": [
                {
                    "key": given.port.name,
                    "type": "double_vector",
                    "unit": given.port.unit,
                    "global": True,
                    "tags": {"length": str(given.length)},
                }
                for given in values
            ],
            "subscriptions": [
                {
                    "key": taken.port.name,
                    "type": "double_vector",
                    "unit": taken.port.unit,
                    "default": str([taken.port.initial] * taken.length),
                }
                for taken in self.inputs
                if taken.port.transport == "value"
            ],
            "endpoints": [self._endpoint(given) for given in messages],
            "filters": [],
        }
        for taken in self.inputs:
            if taken.port.transport == "value":
                continue
            name = taken.endpoint(self.name)
            config["endpoints"].append(self._endpoint(taken) | {"sourceTargets": [taken.port.name]})
            if taken.delay_s > 0:
                delay = {"name": "delay", "value": taken.delay_s}
                config["filters"].append(
                    {
                        "name": f"{name}/delay",
                        "operation": "delay",
                        "destinationTargets": [name],
                        "properties": [delay],
                    }
                )
        return config

    def _endpoint(self, message: SheetPort) -> dict[str, Any]:
        return {
            "name": message.endpoint(self.name),
            "type": message.port.unit,
            "global": True,
            "targeted": True,
            "tags": {"length": str(message.length)},
        }


@dataclass(frozen=True, slots=True)
class PortSheet:
    """The sheet of a run.

    elements : of the dimensions of its ports
    core_type, broker : HELICS' network type, and the address at which programs join; None: a free port
    external : federates whose place other programs take
    """

    scenario: str
    clock: Clock
    federates: tuple[FederateSheet, ...]
    elements: Elements
    core_type: str
    broker: str | None
    external: tuple[str, ...] = ()

    @property
    def replaceable(self) -> tuple[str, ...]:
        """Federates whose place another program can take: those that do not iterate."""
        return tuple(federate.name for federate in self.federates if not federate.iterates_on)

    def find(self, federate: str) -> FederateSheet:
        """The sheet of one federate; KeyError if the run has none of this name."""
        for sheet in self.federates:
            if sheet.name == federate:
                return sheet
        raise KeyError(federate)

    def elements_of(self, federates: Sequence[FederateSheet]) -> Elements:
        """The elements of the dimensions that the ports of some federates have."""
        dims = {
            dim
            for federate in federates
            for entry in (*federate.outputs, *federate.inputs)
            for dim in entry.port.shape
        }
        return {dim: columns for dim, columns in self.elements.items() if dim in dims}

    def as_json(self, federates: Sequence[FederateSheet]) -> dict[str, Any]:
        """The sheet of some federates as a mapping."""
        return {
            "scenario": self.scenario,
            "start": self.clock.stamp(0.0),
            "tick_s": self.clock.step_s,
            "ticks": self.clock.ticks,
            "core_type": self.core_type,
            "broker": self.broker,
            "external": list(self.external),
            "replaceable": list(self.replaceable),
            "federates": {federate.name: federate.as_json() for federate in federates},
            "elements": {
                dim: {name: list(values) for name, values in columns.items()}
                for dim, columns in self.elements_of(federates).items()
            },
        }


def port_sheets(
    models: Sequence[Model],
    sizes: Mapping[str, int],
    clock: Clock,
    message_delay_s: Mapping[str, float] | float = 0.0,
) -> tuple[FederateSheet, ...]:
    """The sheet of each federate of a run, in causal order.

    Raises WiringError if the models don't fit together.
    """
    places = wire(models, sizes, clock, message_delay_s)
    takers: dict[str, list[str]] = {}
    for place in places:
        for name in place.model.inputs:
            takers.setdefault(name, []).append(place.model.name)

    def entry(name: str) -> SheetPort:
        found = port(name)
        delay_s = delay_of(name, message_delay_s) if found.transport == "message" else 0.0
        return SheetPort(found, found.array_shape(dict(sizes)), tuple(takers.get(name, ())), delay_s)

    def sheet(place: Place) -> FederateSheet:
        model = place.model
        return FederateSheet(
            model.name, clock.stamp(0.0), place.stride * clock.step_s, place.offset_s, place.steps,
            place.waits_for,
            tuple(name for name in model.inputs if name in place.again_on),
            tuple(entry(name) for name in model.outputs), tuple(entry(name) for name in model.inputs),
        )  # fmt: skip

    return tuple(sheet(place) for place in places)
