"""A line outage on the European LV feeder against pandapower, the network without that part, and by hand."""

from __future__ import annotations

import copy
from collections import deque
from pathlib import Path

import numpy as np
import pandapower as pp
import pytest
from pandapower.toolbox import drop_buses
from ruamel.yaml import YAML

from evgrid.core.random_streams import Purpose, stream
from evgrid.results.metrics import summary
from evgrid.runs.simulation import run_with_report
from evgrid.scenario import scenario_from

CASE = YAML(typ="safe").load((Path(__file__).parent / "european_lv_line_outage" / "case.yaml").read_text())
DEAD = slice(13, 47)
"""Steps of 5 min from 17:00 that lie within 18:00 to 21:00, without the first and the last."""


@pytest.fixture(scope="module")
def net():
    """pandapower's tables of the feeder as evgrid solves it, and the rows of the buses below the line."""
    from evgrid.feeder.networks import load_network

    made = scenario_from(
        {"name": "net", "time": {"start": "2026-01-15T17:00"}, "feeder": {"network": CASE["network"]}}
    )
    whole = copy.deepcopy(load_network(made.feeder).net)
    whole.ext_grid[["s_sc_max_mva", "rx_max", "x0x_max", "r0x0_max"]] = 1e9, 0.1, 1.0, 0.1  # ideal, as ours
    out = whole.line.index[whole.line["name"].astype(str) == CASE["line"]][0]
    beside = {bus: set() for bus in whole.bus.index}
    for table, ends in (("line", ("from_bus", "to_bus")), ("trafo", ("hv_bus", "lv_bus"))):
        for index, row in whole[table].iterrows():
            if table == "line" and index == out:
                continue
            beside[row[ends[0]]].add(row[ends[1]])
            beside[row[ends[1]]].add(row[ends[0]])
    reached, todo = set(whole.ext_grid["bus"]), deque(whole.ext_grid["bus"])
    while todo:
        new = beside[todo.popleft()] - reached
        reached |= new
        todo.extend(new)
    return whole, out, np.array([bus not in reached for bus in whole.bus.index])


@pytest.fixture(scope="module")
def houses(net):
    """Names of the houses below the line, in the order of the tables."""
    whole, _, below = net
    at = dict(zip(whole.bus.index, below, strict=True))
    names = [str(row["name"]) for _, row in whole.asymmetric_load.iterrows() if at[row["bus"]]]
    assert len(names) == CASE["dead"]
    return names


@pytest.fixture(scope="module")
def run(houses, tmp_path_factory):
    folder = tmp_path_factory.mktemp("line_outage")
    head = "ev,connection,arrival,departure,energy_kwh,charge_efficiency\n"
    (folder / "evs.csv").write_text(
        head
        + "".join(
            f"{name},{name},2026-01-15T18:30,2026-01-16T07:00,{CASE['wanted_kwh']},1\n"
            for name in houses[: CASE["evs"]]
        )
    )

    def run(network=CASE["network"], outages=True, evs=True, step=CASE["step"], **restoration):
        schedule = [{"start": f"2026-01-15T{CASE['start']}", "duration": CASE["duration"],
                     "out": f"line {CASE['line']}"}]  # fmt: skip
        content = {
            "name": "line outage",
            "time": {"start": "2026-01-15T17:00", "duration": "7h", "step": step},
            "ensemble": {"seed": 11},
            "feeder": {"network": str(network), "base_load": {"source": "net"}},
            "outages": {"schedule": schedule, "restoration": restoration} if outages else None,
            "record": {"ev": evs},
        }
        if evs:
            content["fleet"] = {"sessions": {"file": "evs.csv"}, "charger": {"power_kw": CASE["charger_kw"]}}
        return run_with_report(scenario_from(content, {}, folder))[0]

    return run


def worst(voltage, table):
    """Largest difference of a step's voltages, (bus, phase), to a result table of runpp_3ph."""
    expected = table[["vm_a_pu", "vm_b_pu", "vm_c_pu"]].to_numpy()
    return np.abs(voltage - expected).max()


def test_downstream_is_dead_and_upstream_as_pandapower_has_it(net, houses, run):
    whole, out, below = net
    result = run(evs=False)
    voltage = result["voltage_pu"].values[0]
    assert (voltage[DEAD][:, below] == 0).all()
    assert (voltage[DEAD][:, ~below] > 0.9).all()
    dead = result["connection"].values[result["interruptions"].values[0] == 1]
    assert sorted(dead) == sorted(houses)
    assert (
        result["interrupted_min"].values[0] == np.where(np.isin(result["connection"], houses), 180, 0)
    ).all()

    out_of_service = copy.deepcopy(whole)
    out_of_service.line.loc[out, "in_service"] = False
    dropped = copy.deepcopy(whole)
    drop_buses(dropped, whole.bus.index[below])
    for table in (out_of_service, dropped):
        pp.runpp_3ph(table, tolerance_mva=1e-9)
        own = table.res_bus_3ph.loc[whole.bus.index[~below]]
        assert worst(voltage[20][~below], own) <= CASE["tolerance_pu"]
    before = copy.deepcopy(whole)
    pp.runpp_3ph(before, tolerance_mva=1e-9)
    assert worst(voltage[5][1:], before.res_bus_3ph.iloc[1:]) <= CASE["tolerance_pu"]


def test_upstream_is_the_network_without_that_part(net, run, tmp_path):
    whole, _, below = net
    dropped = copy.deepcopy(whole)
    drop_buses(dropped, whole.bus.index[below])
    pp.to_json(dropped, str(tmp_path / "upstream.json"))
    result, upstream = run(evs=False), run(tmp_path / "upstream.json", outages=False, evs=False)
    gap = np.abs(result["voltage_pu"].values[0, DEAD][:, ~below] - upstream["voltage_pu"].values[0, DEAD])
    assert gap.max() <= CASE["tolerance_pu"]
    for name in ("head_power_kw", "losses_kw", "base_load_kw"):
        assert result[name].values[0, DEAD] == pytest.approx(upstream[name].values[0, DEAD], rel=1e-6), name


def test_28_evs_return_at_once_and_staggered(houses, run):
    count, kw = CASE["evs"], CASE["charger_kw"]
    at_once, staggered = run(step="1min"), run(step="1min", random=CASE["staggered_over"])
    back = 4 * 60  # 21:00
    for result in (at_once, staggered):
        power = result["fleet_power_kw"].values[0]
        assert (power[:back] == 0).all()
        assert power.sum() / 60 == pytest.approx(count * CASE["wanted_kwh"], rel=1e-6)
    power = at_once["fleet_power_kw"].values[0]
    assert power[back : back + 60] == pytest.approx(count * kw, rel=1e-9)
    # each EV draws for an hour from its own time on, mean over the minutes
    begins = 7200.0 * stream(11, 0, Purpose.RETURN).random(count)
    edges = 60.0 * np.arange(181)
    drawn_s = np.clip(
        np.minimum.outer(edges[1:], begins + 3600) - np.maximum.outer(edges[:-1], begins), 0, None
    )
    expected = kw * drawn_s.sum(axis=1) / 60
    assert staggered["fleet_power_kw"].values[0, back:] == pytest.approx(expected, abs=1e-6)
    assert expected.max() < 0.8 * count * kw
    peaks = [result["head_power_kw"].sum("phase").values[0, back:].max() for result in (at_once, staggered)]
    base = at_once["base_load_kw"].values[0, 0]
    assert peaks[0] > base + count * kw
    assert base + expected.max() < peaks[1] < peaks[0]
    for result, peak in zip((at_once, staggered), peaks, strict=True):
        rows = dict(summary(result))
        assert rows["head power, highest"].startswith(f"{peak:.1f} kW")
        assert rows["fleet power"].startswith(f"{result['fleet_power_kw'].max().item():.1f} kW")
        assert rows["interruptions"].startswith(f"SAIFI {CASE['dead'] / 55:.3g}, ")
