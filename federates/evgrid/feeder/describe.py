"""Summary of a network for ``evgrid feeder``: its elements, missing data, and refused elements.

In: the feeder's settings. Out: a :class:`NetworkSummary`, in words and numbers.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from evgrid.errors import NetworkError
from evgrid.feeder.base_load import account_of, unprofiled
from evgrid.feeder.equivalents import Prepared
from evgrid.feeder.grid import UNLIMITED, Grid, extract, missing_zero_sequence
from evgrid.feeder.households import customers_notes, customers_of
from evgrid.feeder.networks import Network, find_network, is_three_phase, load_network, prepare_net
from evgrid.feeder.opendss.load_shapes import KINDS
from evgrid.feeder.solvers import SolverName, chosen_solver, faults_of, make_solver
from evgrid.feeder.topology import topology
from evgrid.scenario.feeder import is_opendss

if TYPE_CHECKING:
    from evgrid.scenario.feeder import Feeder

SOLVERS: tuple[SolverName, ...] = ("z-bus", "power-grid-model", "pandapower")


@dataclass(frozen=True)
class NetworkSummary:
    """Summary of a network.

    source : name of the network in messages
    facts : pairs of a quantity and its value; empty where the net can't be read
    notes : replacements and assumptions, a sentence each
    missing : missing data, a sentence each
    refused : by solver, reasons why it can't be solved, a sentence each
    """

    source: str
    facts: list[tuple[str, str]]
    notes: list[str]
    missing: list[str]
    refused: dict[str, list[str]]


def describe_network(settings: Feeder) -> NetworkSummary:
    """Read a network and summarise it.

    Raises
    ------
    NetworkError
        If there is no such network, or it can't be read at all.

    """
    if is_opendss(settings.network):
        return _describe_opendss(settings)
    build, _, source = find_network(settings.network)
    net = build()
    done = prepare_net(net, settings)
    three_phase = is_three_phase(done.net, settings)
    refused: dict[str, list[str]] = {}
    grid: Grid | None = None
    network: Network | None = None
    for solver in SOLVERS:
        try:
            grid = extract(done.net, source, solver, three_phase, done.refused)
            households = customers_of(settings, grid.loads).households
            network = Network(source, grid, topology(grid, source), households, lambda: done.net)
            refused[solver] = faults_of(network, solver)
        except NetworkError as error:
            refused[solver] = [line.strip() for line in str(error).splitlines()[1:]]
    facts = [] if grid is None else _facts(grid)
    if network is not None and not all(refused.values()):
        solver, why = chosen_solver(network)
        note = make_solver(network, unbalance=False).note if solver == "z-bus" else ""
        facts.append(("feeder.solver: auto", f"{solver}: {note or why}"))
    notes = list(done.notes)
    if grid is not None:
        notes += customers_notes(settings, customers_of(settings, grid.loads), grid.loads)
    missing = _missing(done, three_phase) + ([] if network is None else _without_profile(settings, network))
    return NetworkSummary(source, facts, notes, missing, refused)


def _describe_opendss(settings: Feeder) -> NetworkSummary:
    """The summary of an OpenDSS file."""
    network = load_network(settings)
    assert network.opendss is not None
    circuit, grid = network.opendss.circuit, network.grid
    missing = []
    for name, ratings in (("lines", grid.lines.rating_ka), ("transformers", grid.trafos.rating_kva)):
        if np.isnan(ratings).any():
            count = int(np.isnan(ratings).sum())
            missing.append(f"rating of {count} of {len(ratings)} {name}: no loading can be checked")
    if np.isnan(grid.buses.x).any():
        count = int(np.isnan(grid.buses.x).sum())
        missing.append(f"coordinates of {count} of {len(grid.buses.x)} buses")
    at_nodes = Counter(" ".join(filter(None, row)) for row in circuit.port_nodes(circuit.loads).tolist())
    split = int(circuit.split_phase[grid.loads.bus].sum())
    shapes = [kind for kind, of in zip(KINDS, circuit.shapes.of_load, strict=True) if (of >= 0).any()]
    regulated = grid.trafos.name[circuit.regulated].tolist()
    by_name = dict(_facts(grid)) | {"tap changers": f"{len(regulated)} of RegControls{_some(regulated)}"}
    facts = [
        *by_name.items(),
        ("nodes", f"{len(circuit.node)}"),
        ("loads by nodes", ", ".join(f"{count} at {nodes}" for nodes, count in at_nodes.most_common())),
        ("split-phase services", f"{split} loads at {int(circuit.split_phase.sum())} buses"),
        ("load shapes", ", ".join(shapes) or "none"),
    ]  # fmt: skip
    facts.append(("feeder.solver: auto", ": ".join(chosen_solver(network, live_controls=circuit.controls))))
    refused = {"z-bus": [], "opendss": []} if not circuit.controls else {
        "z-bus": ["its controls act in time: choose feeder.controls: false"], "opendss": [],
    }  # fmt: skip
    missing += _without_profile(settings, network)
    return NetworkSummary(network.source, facts, list(network.notes), missing, refused)


def _facts(grid: Grid) -> list[tuple[str, str]]:
    lines, trafos, loads = grid.lines, grid.trafos, grid.loads
    levels = np.unique(grid.buses.nominal_kv, return_counts=True)
    sizes = np.unique(trafos.sn_kva, return_counts=True)
    voltages = ", ".join(f"{n} at {kv:g} kV" for kv, n in reversed(list(zip(*levels, strict=True))))
    ratings = ", ".join(f"{n} × {kva:g} kVA" for kva, n in zip(*sizes, strict=True))
    taps = [
        f"{trafos.name[k]} ({trafos.tap_min[k]} to {trafos.tap_max[k]}, {trafos.tap_step_percent[k]:g} %)"
        for k in np.flatnonzero(trafos.tap_side >= 0)
    ]
    single = f", {int((loads.phase >= 0).sum())} of them on one phase" if grid.three_phase else ""
    if loads.delta.any():
        names = loads.name[loads.delta].tolist()
        single += f", {len(names)} in delta, as are their EVs{_some(names)}"
    delta = grid.fixed.gen_delta
    held = np.flatnonzero(grid.fixed.holds)
    holding = [f"{grid.fixed.gen_name[k]} ({grid.fixed.gen_held_pu[k]:g} pu)" for k in held]
    between = f", {int(delta.sum())} in delta{_some(grid.fixed.gen_name[delta].tolist())}" * bool(delta.any())
    return [
        ("phases", "three, solved separately" if grid.three_phase else "balanced"),
        ("buses", f"{len(grid.buses.name)}: {voltages}"),
        ("lines", f"{len(lines.name)}, {lines.length_km.sum():.2f} km"),
        ("transformers", f"{len(trafos.name)}: {ratings}" if len(trafos.name) else "0"),
        ("tap changers", f"{len(taps)}{_some(taps)}"),
        ("sources", f"{len(grid.sources.bus)}"),
        ("loads", f"{len(loads.name)}, {loads.p_kw.sum():.1f} kW{single}"),
        ("fixed generation", f"{len(grid.fixed.gen_bus)}, {grid.fixed.gen_p_kw.sum():.1f} kW{between}"),
        *[
            (
                "voltage held by",
                f"{len(held)} of them{_some(holding)}; without limits of reactive power"
                + (", three equal powers hold the positive sequence" if grid.three_phase else ""),
            )
        ]
        * bool(len(held)),
        ("shunts", f"{len(grid.fixed.shunt_bus)}" + _some(grid.fixed.shunt_name.tolist())),
        ("frequency", f"{grid.frequency_hz:g} Hz"),
    ]


def _some(names: list[str]) -> str:
    """The first names, after a colon."""
    return ": " + ", ".join(names[:5]) + (", …" if len(names) > 5 else "") if names else ""


def _without_profile(settings: Feeder, network: Network) -> list[str]:
    """Fixed generation of which nothing says when it feeds in."""
    rows, base = unprofiled(settings, network), settings.base_load
    if not len(rows) or base.generation is not None or base.kind in ("net", "simbench"):
        return []
    return [
        f"power over time of {account_of(network, rows)}: a run refuses it without feeder.profiles or "
        "feeder.base_load.generation"
    ]


def _missing(done: Prepared, three_phase: bool) -> list[str]:
    net = done.net
    missing = []
    lacking = list(missing_zero_sequence(net))
    if lacking and not three_phase:
        tables = sorted({text.split()[0] for text in lacking})
        missing.append(
            f"zero-sequence data of {' and '.join(tables)}: it can't be solved in three phases as it is"
        )
    elif lacking:
        missing += lacking
    for table, column in (("line", "max_i_ka"), ("trafo", "sn_mva")):
        if len(net[table]):
            values = net[table].get(column)
            rated = None if values is None else (values > 0) & (values < UNLIMITED)
            number = len(net[table]) if rated is None else int((~rated).sum())
            if number:
                missing.append(
                    f"rating of {number} of {len(net[table])} {table}s ({column}): no loading can be checked"
                )
    geo = net.bus["geo"] if "geo" in net.bus.columns else None
    number = (
        len(net.bus) if geo is None else int(geo.map(lambda one: not isinstance(one, str) or not one).sum())
    )
    if number:
        missing.append(f"coordinates of {number} of {len(net.bus)} buses")
    return missing
