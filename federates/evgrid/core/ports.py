"""The quantities that the federates exchange.

A port is one vector on the wire, named ``<federate>/<quantity>``. Its shape is given in
dimensions whose sizes follow from the scenario; on the wire the array is flattened in C order.
The documentation's federation picture and the registration of every HELICS federate come from
``PORTS``; nothing else names a publication, an input or an endpoint.

Signs: positive power is drawn from the grid. Time is in seconds from the scenario's start.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import Literal

CAUSAL_ORDER = ("system", "aggregator", "sites", "fleet", "feeder")
"""Federates in the order in which they step inside a tick: each sees the outputs of those before it
of this tick, and of those after it of the last. Several aggregators, each with EVs of its own, are the
federates ``aggregator.NAME``, one after the other."""


@dataclass(frozen=True, slots=True)
class Port:
    """One exchanged quantity.

    ``initial`` is the value before the publisher has sent one. ``transport`` is ``value`` (a
    publication: the last value holds) or ``message`` (sent between targeted endpoints, so that a
    HELICS filter can delay it: the subscriber sees the last message that has arrived).
    """

    name: str
    unit: str
    shape: tuple[str, ...]
    publisher: str
    subscribers: tuple[str, ...]
    text: str
    initial: float = 0.0
    transport: Literal["value", "message"] = "value"

    def array_shape(self, sizes: dict[str, int]) -> tuple[int, ...]:
        """The numbers behind ``shape``, given the size of every dimension."""
        return tuple(sizes[dim] for dim in self.shape)

    def length(self, sizes: dict[str, int]) -> int:
        """Number of doubles on the wire."""
        return prod(self.array_shape(sizes))


_PER_PHASE = ("member", "connection", "phase")
_AHEAD = ("ev", "lead")

PORTS: dict[str, Port] = {
    port.name: port
    for port in (
        Port("system/frequency", "Hz", ("member",), "system", ("aggregator", "fleet"),
             "frequency of the bulk system at the end of the tick", initial=60.0),
        Port("system/regulation", "", ("member",), "system", ("aggregator", "fleet"),
             "regulation signal, -1 to 1; positive: less power is drawn"),
        Port(
            "aggregator/setpoint", "kW", ("ev",), "aggregator", ("sites", "fleet"),
            "set-point of active power of each EV: positive charges, negative discharges, "
            "+inf charges as fast as the EV can",
            transport="message",
        ),
        Port("sites/p", "kW", _PER_PHASE, "sites", ("feeder",),
             "active power at connection points with a site, without EVs, mean over the tick"),
        Port("sites/q", "kVAR", _PER_PHASE, "sites", ("feeder",),
             "reactive power there, mean over the tick; positive is inductive"),
        Port("sites/setpoint", "", ("segment", "segment_field"), "sites", ("fleet",),
             "what EVs at sites do within the tick, a row a segment: EV, end in s, set-point in kW, supply "
             "(0 dead, 1 island, 2 grid), shares of the energy drawn that are the site's own: free, and at "
             "the price of export; EV -1: no segment", initial=-1.0),
        Port("sites/available", "", ("site_ev",), "sites", ("fleet",),
             "share of its power that the site lets each EV use on the grid at the tick's end; 0 without "
             "supply, in an island and until it returns", initial=1.0),
        Port("fleet/p", "kW", _PER_PHASE, "fleet", ("feeder", "aggregator", "system"),
             "active power of the EVs on the grid, mean over the tick: not of those in islands and off grid"),
        Port("fleet/own_p", "kW", _PER_PHASE, "fleet", ("aggregator",),
             "active power of an aggregator's own EVs on the grid, mean of the tick; unless it has all EVs"),
        Port("fleet/q", "kVAR", _PER_PHASE, "fleet", ("feeder",),
             "reactive power of the EVs, mean over the tick; positive is inductive"),
        Port("fleet/site_soc", "", ("site_ev",), "fleet", ("sites",),
             "state of charge of each EV at a site at the end of the tick; -1 while away", initial=-1.0),
        Port("fleet/plugged", "", ("ev",), "fleet", ("aggregator",),
             "1 while the EV is plugged in, else 0"),
        Port("fleet/soc", "", ("ev",), "fleet", ("aggregator",),
             "state of charge, 0 to 1; 0 while away"),
        Port("fleet/p_max", "kW", ("ev",), "fleet", ("aggregator",),
             "most that the EV can draw now; 0 when away, satisfied or without supply"),
        Port("fleet/p_min", "kW", ("ev",), "fleet", ("aggregator",),
             "most that the EV can give back now, as a negative number; 0 when it may not, without supply "
             "and on the return from an outage"),
        Port("fleet/energy_needed", "kWh", ("ev",), "fleet", ("aggregator",),
             "energy from the grid still wanted by departure"),
        Port("fleet/time_left", "s", ("ev",), "fleet", ("aggregator",),
             "time until the EV departs"),
        Port("fleet/time_needed", "s", ("ev",), "fleet", ("aggregator",),
             "time that charging as fast as possible takes to the energy wanted; "
             "laxity = time_left - time_needed"),
        Port("fleet/envelope_p_min", "kW", _AHEAD, "fleet", ("aggregator",),
             "least mean power of the EV in each slot of the horizon"),
        Port("fleet/envelope_p_max", "kW", _AHEAD, "fleet", ("aggregator",),
             "most mean power of the EV in each slot"),
        Port("fleet/envelope_e_min", "kWh", _AHEAD, "fleet", ("aggregator",),
             "least energy at the meter, from the horizon's begin to the end of each slot"),
        Port("fleet/envelope_e_max", "kWh", _AHEAD, "fleet", ("aggregator",),
             "most energy at the meter, likewise"),
        Port("fleet/envelope_round_trip", "", ("ev",), "fleet", ("aggregator",),
             "energy given per energy drawn to recharge it; 1 for an EV that may not discharge"),
        Port("feeder/voltage", "", _PER_PHASE, "feeder", ("fleet", "aggregator"),
             "voltage magnitude at each connection point, per unit of its nominal voltage; "
             "0 on a missing phase, and where it isn't energised", initial=1.0),
        Port("feeder/head_p", "kW", ("member", "phase"), "feeder", ("aggregator",),
             "active power drawn from the grid above the feeder"),
        Port("feeder/trafo_p", "kW", ("member", "trafo"), "feeder", ("aggregator",),
             "active power into each transformer from its high-voltage side"),
    )
}  # fmt: skip


def kind_of(federate: str) -> str:
    """Kind of a federate: ``aggregator`` for ``aggregator.NAME``, else its name."""
    return federate.partition(".")[0]


def port(name: str) -> Port:
    """A port by its name on the wire; KeyError if there is none.

    ``aggregator.NAME/setpoint`` and ``fleet/own_p.NAME`` are those of the aggregator NAME, with the
    dimension ``ev.NAME``, its own EVs, in place of ``ev``.
    """
    if name in PORTS:
        return PORTS[name]
    federate, _, quantity = name.partition("/")
    publisher, _, own = federate.partition(".")
    if own:
        general = PORTS[f"{publisher}/{quantity}"]
        shape = tuple(f"ev.{own}" if dim == "ev" else dim for dim in general.shape)
        return replace(general, name=name, publisher=federate, shape=shape)
    quantity, _, own = quantity.partition(".")
    if not own:
        raise KeyError(name)
    return replace(PORTS[f"{federate}/{quantity}"], name=name, subscribers=(f"aggregator.{own}",))


def ports_published(federate: str) -> tuple[Port, ...]:
    """The ports that a federate publishes, in the order of ``PORTS``."""
    return tuple(port for port in PORTS.values() if port.publisher == federate)


def ports_subscribed(federate: str) -> tuple[Port, ...]:
    """The ports that a federate subscribes to, in the order of ``PORTS``."""
    return tuple(port for port in PORTS.values() if federate in port.subscribers)
