"""Outages of drawn networks: a search finds what is dead, and neither tick nor other members matter."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.properties.test_feeder_reduction_properties import grids
from tests.support.fleet import HOUR, car, feeder, table

from evgrid.battery.records import DEAD
from evgrid.core.model import EVs, MemoryRecorder, Outages, Spans
from evgrid.core.random_streams import Purpose, stream
from evgrid.feeder.base_load import ConstantLoad
from evgrid.feeder.model import FeederModel
from evgrid.feeder.networks import Network
from evgrid.feeder.outages import outages_of
from evgrid.feeder.topology import topology
from evgrid.fleet.model import FleetModel
from evgrid.fleet.outages import EvOutages
from evgrid.scenario import scenario_from
from evgrid.scenario.fleet import Fleet
from evgrid.scenario.outages import OutageSettings

RUN_S = 7200.0


@st.composite
def networks(draw):
    """A drawn feeder, radial or with rings, of which every load draws power."""
    grid = draw(grids())
    grid = dataclasses.replace(
        grid, loads=dataclasses.replace(grid.loads, p_kw=np.abs(grid.loads.p_kw) + 0.1)
    )
    households = np.ones(len(grid.loads.bus), np.int64)
    return Network("drawn", grid, topology(grid, "drawn"), households, lambda: None)


@st.composite
def schedules(draw, network):
    """Outages of drawn elements; begins and ends lie anywhere, also on the edges of ticks."""
    names = [f"line {name}" for name in network.grid.lines.name] + ["feeder"]
    meters = [{"connections": [str(name)]} for name in network.grid.loads.name]
    moment = st.one_of(st.integers(0, 115).map(lambda m: 60.0 * m), st.floats(0.0, RUN_S - 1.0))
    one = st.fixed_dictionaries(
        {
            "start": moment, "duration": st.one_of(st.just(900.0), st.floats(1.0, 5000.0)),
            "out": st.sampled_from([*names, *meters]),
        }
    )  # fmt: skip
    return draw(st.lists(one, min_size=1, max_size=4))


def scenario_of(schedule, step, members=1, first=0, **more):
    return scenario_from(
        {
            "name": "drawn",
            "time": {"start": "2026-01-15T12:00", "duration": RUN_S, "step": step},
            "ensemble": {"members": members, "first": first, "seed": 3},
            "feeder": {"network": "european_lv", "base_load": {"source": "net"}},
            "outages": {"schedule": schedule, **more},
        }
    )


def run(network, scenario):
    """What the feeder alone records, and its audit."""
    recorder = MemoryRecorder()
    outages = outages_of(scenario, network, network.connections)
    loads = network.grid.loads
    model = FeederModel(
        scenario, network, recorder, fleet=False, feedback=False, outages=outages,
        base=ConstantLoad(loads.p_kw, loads.q_kvar),
    )  # fmt: skip
    for tick in range(scenario.clock.ticks):
        model.step(tick * scenario.time.step, {})
    model.finish()
    return recorder, model, outages


def fed_buses(grid, out):
    """Buses that a source feeds, by a search of our own from the sources along lines in service."""
    reached = set() if "feeder" in out else set(grid.sources.bus.tolist())
    todo = list(reached)
    while todo:
        at = todo.pop()
        for name, a, b in zip(grid.lines.name, grid.lines.from_bus, grid.lines.to_bus, strict=True):
            for here, there in ((int(a), int(b)), (int(b), int(a))):
                if here == at and f"line {name}" not in out and there not in reached:
                    reached.add(there)
                    todo.append(there)
    return reached


def dead_at(network, schedule, time_s):
    """Names of the connection points that are dead at a time."""
    now = [one["out"] for one in schedule if one["start"] <= time_s < one["start"] + one["duration"]]
    out = {one for one in now if isinstance(one, str)}
    cut = {name for one in now if not isinstance(one, str) for name in one["connections"]}
    fed = fed_buses(network.grid, out)
    return {
        str(name)
        for name, bus in zip(network.grid.loads.name, network.grid.loads.bus.tolist(), strict=True)
        if bus not in fed or name in cut
    }


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_exactly_what_no_path_feeds_is_dead(data):
    network = data.draw(networks())
    schedule = data.draw(schedules(network))
    outages = outages_of(scenario_of(schedule, "1min"), network, network.connections)
    edges = sorted({0.0, RUN_S, *(t for o in schedule for t in (o["start"], o["start"] + o["duration"]))})
    names = network.grid.loads.name
    for begin, end in pairwise(edges):
        if end - begin < 1e-6:
            continue
        middle = (begin + end) / 2
        dead = {
            str(name)
            for row, name in enumerate(names)
            if any(b < middle < e for b, e in zip(*outages.of(row), strict=True))
        }
        assert dead == dead_at(network, schedule, middle)
    for row in range(len(names)):
        begins, ends = outages.of(row)
        assert (ends > begins).all()
        assert (begins[1:] > ends[:-1]).all()


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_energies_are_the_same_at_any_tick(data):
    network = data.draw(networks())
    schedule = data.draw(schedules(network))
    more = {"cold_load": {"factor": 2.5, "duration": 700.0}} if data.draw(st.booleans()) else {}
    energies = []
    for step in (10.0, 60.0, 900.0):
        recorder, model, _ = run(network, scenario_of(schedule, step, **more))
        audit = model.audit()
        assert audit["dead_grid_kwh"].tolist() == [0.0]
        balance = audit["head_energy_kwh"] - audit["base_energy_kwh"] - audit["losses_energy_kwh"]
        assert abs(balance[0]) <= 1e-6 * max(audit["head_energy_kwh"][0], 1e-3)
        energies.append([audit["base_energy_kwh"][0], *recorder.static["not_served_kwh"][0]])
    total = network.grid.loads.p_kw.sum() * RUN_S / 3600
    for other in energies[1:]:
        assert other == pytest.approx(energies[0], rel=1e-6, abs=1e-9)
    if not more:
        assert energies[0][0] + sum(energies[0][1:]) == pytest.approx(total, rel=1e-9)


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_dead_buses_have_neither_voltage_nor_current(data):
    network = data.draw(networks())
    schedule = data.draw(schedules(network))
    recorder, _, outages = run(network, scenario_of(schedule, 300.0))
    voltage, loading = recorder.series("voltage_pu")[:, 0], recorder.series("line_loading")[:, 0]
    unbalance = "neutral_current_a" in recorder.timed
    neutral = recorder.series("neutral_current_a")[:, 0] if unbalance else np.zeros(loading.shape)
    lines = network.grid.lines
    for step in range(len(voltage)):
        begin, end = 300.0 * step, 300.0 * step + 300.0
        out = {
            element: [
                (one["start"], one["start"] + one["duration"]) for one in schedule if one["out"] == element
            ]
            for element in {one["out"] for one in schedule if isinstance(one["out"], str)}
        }
        whole = {name for name, spans in out.items() if _covered(spans, begin, end)}
        fed = np.isin(np.arange(len(network.grid.buses.name)), list(fed_buses(network.grid, whole)))
        assert (voltage[step][~fed] == 0).all()
        assert (voltage[step][fed] > 0).all()
        still = np.array([f"line {name}" in whole for name in lines.name]) | ~fed[lines.from_bus]
        assert (loading[step][still] == 0).all()
        assert (neutral[step][still] == 0).all()
    assert len(outages.element) <= len(schedule)


def _covered(spans, begin, end):
    """Whether spans cover a time."""
    for b, e in sorted(spans):
        if b <= begin + 1e-6:
            begin = max(begin, e)
    return begin >= end - 1e-6


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_a_member_among_others_is_the_same_by_itself(data):
    network = data.draw(networks())
    drawn = {"rates": {"line": 3e5}, "repair": {"line": 600.0}, "saifi": 2000.0, "caidi": 300.0}
    together, _, table = run(network, scenario_of([], 300.0, members=3, **drawn))
    for member in range(3):
        alone, _, own = run(network, scenario_of([], 300.0, first=member, **drawn))
        for row in range(len(network.grid.loads.name)):
            for one, other in zip(
                table.of(member * len(network.connections) + row), own.of(row), strict=True
            ):
                assert np.array_equal(one, other)
        for name in ("voltage_pu", "line_loading", "head_power_kw", "base_load_kw"):
            assert np.array_equal(
                together.series(name)[:, member], alone.series(name)[:, 0], equal_nan=True
            ), name


@st.composite
def ev_outages(draw):
    """Spans without supply of one connection point, and how its EV returns."""
    moments = draw(st.lists(st.floats(1.0, RUN_S), min_size=2, max_size=8, unique=True).map(sorted))
    spans = [(b, e) for b, e in zip(moments[::2], moments[1::2], strict=False) if e - b > 1e-3]
    restoration = {
        name: draw(st.sampled_from([0.0, 30.0, 400.0, 3000.0])) for name in ("delay", "random", "ramp")
    }
    return spans, restoration


@settings(max_examples=60, deadline=None)
@given(ev_outages(), st.booleans(), st.sampled_from([np.inf, 4.0, -3.0, 0.0]))
def test_what_is_asked_of_an_ev_is_the_same_at_any_tick(given_outages, capable, asked_kw):
    """The integral of its set-point over the run, 7 kW standing for as fast as it can."""
    spans, restoration = given_outages
    begin, end = (np.array(values) for values in (zip(*spans, strict=True) if spans else ((), ())))
    none = Spans(np.zeros(1, np.int64), np.zeros(0), np.zeros(0))
    outages = Outages(np.array([0, len(spans)]), begin, end, none, np.zeros(0, np.int64), none)
    settings_of = OutageSettings(saifi=1.0, caidi=60.0, restoration=restoration)
    scenario = scenario_of([], 60.0, saifi=1.0, caidi=60.0).model_copy(update={"outages": settings_of})
    zero = np.zeros(1, np.int64)
    evs = EVs(zero, zero, np.zeros(1, np.int8), np.array(["a"]))
    of_evs = EvOutages(scenario, outages, evs, np.array([capable]), np.array([7.0]))
    late_s = restoration["delay"] + stream(3, 0, Purpose.RETURN).random(1)[0] * restoration["random"]
    late_s, ramp_s = (0.0, 0.0) if capable else (late_s, restoration["ramp"])
    free_kw = min(asked_kw, 7.0)

    def kw_at(time_s):
        before = [(b, e) for b, e in spans if b <= time_s]
        if not before:
            return free_kw
        since = time_s - before[-1][1] - late_s
        if since < 0:
            return 0.0
        if since < ramp_s:
            return min(max(asked_kw, 0.0), 0.7 * (0.5 + int(since / (0.1 * ramp_s))))
        return free_kw

    edges = {0.0, RUN_S} | {t for span in spans for t in span}
    edges |= {e + late_s + ramp_s * k / 10 for _, e in spans for k in range(11)}
    edges = sorted(edge for edge in edges if edge <= RUN_S)
    expected = sum(kw_at((a + b) / 2) * (b - a) for a, b in pairwise(edges))
    for step in (10.0, 60.0, 900.0):
        total = 0.0
        for tick in range(round(RUN_S / step)):
            now = tick * step
            found = of_evs.segments(now, step, np.array([asked_kw]))
            if not len(found.first):
                total += free_kw * step
                continue
            lengths = np.diff(np.concatenate([[now], found.until_s]))
            assert (lengths > 0).all()
            assert found.until_s[-1] == now + step
            total += (np.minimum(found.setpoint_kw, 7.0) * lengths).sum()
            assert (found.setpoint_kw[found.supply == DEAD] == 0).all()
        assert total == pytest.approx(expected, rel=1e-9, abs=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.lists(ev_outages(), min_size=1, max_size=3), st.sampled_from([0.0, 30.0, 400.0, 3000.0]))
def test_chargers_report_what_they_can_do(given_outages, ramp):
    """At each report the sums of the limits are what the EVs draw and give in the tick that follows when all
    is asked of them, unless something changes within it; set-points of the dead move nothing.
    """
    count, step = len(given_outages), 60.0
    restoration = {"delay": 45.0, "random": 200.0, "ramp": ramp}
    parts = [spans for spans, _ in given_outages]
    first = np.concatenate([[0], np.cumsum([len(own) for own in parts])])
    begin, end = (np.array([span[at] for own in parts for span in own]) for at in (0, 1))
    none = Spans(np.zeros(1, np.int64), np.zeros(0), np.zeros(0))
    outages = Outages(first, begin, end, none, np.zeros(0, np.int64), none)
    scenario = scenario_of([], step, saifi=1.0, caidi=60.0).model_copy(
        update={
            "fleet": Fleet.model_validate({"count": count, "charger": {"bidirectional": 1.0}}),
            "outages": OutageSettings(saifi=1.0, caidi=60.0, restoration=restoration),
        }
    )
    evs = EVs(
        np.zeros(count, np.int64), np.arange(count), np.zeros(count, np.int8),
        np.array([f"ev{k}" for k in range(count)]),
    )  # fmt: skip
    cars = table(
        *([car(departure=200 * HOUR, charge=7.0, discharge_kw=4.0, capacity=1000.0)] for _ in range(count))
    )
    late_s = 45.0 + stream(3, 0, Purpose.RETURN).random(count) * 200.0
    edges = {span[0] for own in parts for span in own}
    for own, late in zip(parts, late_s, strict=True):
        edges |= {e + late + ramp * k / 10 for _, e in own for k in range(11)}
    for asked, limit in ((np.inf, "p_max"), (-np.inf, "p_min")):
        model = FleetModel(
            scenario, feeder(of=(0,) * count), evs, cars, MemoryRecorder(), True, outages=outages
        )
        reported = None
        for tick in range(round(RUN_S / step)):
            now = tick * step
            said = model.step(now, {"aggregator/setpoint": np.full(count, asked)})
            drawn = said["fleet/p"].sum()
            if reported is not None and not any(now - 1e-3 < edge < now + step for edge in edges):
                assert drawn == pytest.approx(reported, abs=1e-6)
            reported = float(said[f"fleet/{limit}"].sum())
