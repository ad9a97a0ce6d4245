"""The port sheet of a scenario: of the models that its run would have."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from evgrid.federation.port_sheet import Elements, PortSheet, port_sheets
from evgrid.results import ResultRecorder
from evgrid.runs.simulation import World, build_models, build_world, external_of
from evgrid.scenario import Scenario
from evgrid.scenario.federation import CORE_TYPE


def port_sheet(scenario: Scenario) -> PortSheet:
    """The port sheet of a scenario.

    Raises EvgridError like a run, if the scenario, its network or its files are at fault.
    """
    world = build_world(scenario)
    models = build_models(
        world, ResultRecorder(world.clock, scenario.record_step_s, world.sizes, _Nowhere(), world.selection)
    )
    delays = {p.port("aggregator/setpoint"): scenario.link_of(p.name).delay for p in world.portfolios}
    sheets = port_sheets(models, world.sizes, world.clock, delays)
    federation = scenario.federation
    return PortSheet(
        scenario.name, world.clock, sheets, elements(world), CORE_TYPE, federation.broker,
        tuple(sorted(external_of(scenario, models))),
    )  # fmt: skip


def elements(world: World) -> Elements:
    """Elements of the dimensions of ports, in their order on the wire, with their static facts."""
    network, connections, evs = world.network, world.connections, world.evs
    phases = np.array([*connections.phases, "abc"])
    members = np.array(world.scenario.members)
    kv = np.append(network.grid.buses.nominal_kv, np.nan)[connections.bus]
    of_feeder = {
        name.partition("_")[2]: values
        for name, (dim, values, _) in network.coordinates().items()
        if dim == "connection"
    }
    upstream = len(connections) - len(of_feeder["bus"])
    found: dict[str, dict[str, NDArray[Any]]] = {
        "member": {"name": members},
        "phase": {"name": np.array(connections.phases)},
        "connection": {
            "name": connections.name,
            **{
                name: np.append(values, np.zeros(upstream, values.dtype))
                for name, values in of_feeder.items()
            },
            "nominal_kv": kv,
        },
        "trafo": {"name": network.grid.trafos.name},
        "ev": {
            "name": evs.name,
            "member": members[evs.member],
            "connection": connections.name[evs.connection],
            "phase": phases[evs.phase],
        },
    }
    some = {f"ev.{p.name}": p.rows for p in world.portfolios}
    if world.sites is not None:
        some["site_ev"] = world.sites.ev
    for dim, rows in some.items():
        found[dim] = {name: values[rows] for name, values in found["ev"].items()} | {"ev": rows}
    if world.sites is not None:
        fields = ("EV", "end", "set-point", "supply", "free share", "share at the price of export")
        found["segment_field"] = {"name": np.array(fields)}
        found["segment"] = {"name": np.arange(world.sizes["segment"])}
    envelope = world.scenario.fleet.envelope if world.scenario.fleet is not None else None
    if envelope is not None:
        begin_s = np.arange(envelope.slots) * envelope.slot
        found["lead"] = {"name": np.arange(envelope.slots), "begin_s": begin_s}
    return {
        dim: {name: _listed(values) for name, values in columns.items()} for dim, columns in found.items()
    }


def _listed(values: NDArray[Any]) -> list[Any]:
    """Values as JSON has them: None where there is none."""
    return [None if value != value else value for value in values.tolist()]


class _Nowhere:
    """A store of results that keeps nothing."""

    def create(self, *_: Any) -> None:
        """See :class:`evgrid.results.recorder.Store`."""

    def write(self, *_: Any) -> None:
        """See :class:`evgrid.results.recorder.Store`."""
