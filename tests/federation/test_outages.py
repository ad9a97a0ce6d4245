"""What an outage means to aggregators, to the bulk system and to the books, in coupled runs.

Two houses A and B of 1 kW, behind cables of their own, each with an EV of 7 kW that can give 4 kW, plugged in
from 12:00 to 18:00 with half of 100 kWh; it wants 60 kWh.
"""

from __future__ import annotations

import numpy as np
import pandapower as pp
import pytest
from tests.support.nets import two_houses

import evgrid
from evgrid.runs.simulation import run_with_report
from evgrid.scenario import scenario_from
from evgrid.scenario.aggregators import STRATEGIES

KW, GIVES_KW, HOUSE_KW = 7.0, 4.0, 1.0
AT_HOME = {"a": {"connections": ["A"], "backup": "whole", "interconnection": {"approval": "export"}}}
CUT = {"start": "30min", "duration": "1h", "out": "line LA"}
OUT = slice(31, 90)
"""Ticks of a minute throughout which A is dead and, where it has a site, an island."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("outages")
    net = two_houses(HOUSE_KW)
    pp.to_json(net, str(folder / "net.json"))
    (folder / "sessions.csv").write_text(
        "ev,connection,arrival,departure,soc_arrival,soc_target,soc_floor,discharge_kw,capacity_kwh\n"
        + "".join(f"{x},{x},2026-01-15T12:00,2026-01-15T18:00,0.5,0.6,0.2,4,100\n" for x in "AB")
    )
    hours = np.datetime64("2026-01-15T12:00") + np.arange(12) * np.timedelta64(30, "m")
    for name, column, values in (
        ("price", "price", 100.0 + 20.0 * np.arange(12)), ("emissions", "emissions", np.full(12, 400.0)),
    ):  # fmt: skip
        rows = "".join(f"{at},{value}\n" for at, value in zip(hours, values, strict=True))
        (folder / f"{name}.csv").write_text(f"time,{column}\n{rows}")
    return folder


@pytest.fixture(scope="module")
def run(folder):
    def run(outages=(CUT,), step="1min", duration="2h", **sections):
        content = {
            "name": "outages",
            "time": {"start": "2026-01-15T12:00", "duration": duration, "step": step},
            "feeder": {"network": "net.json", "phases": 1, "base_load": {"source": "net"}},
            "fleet": {
                "sessions": {"file": "sessions.csv"},
                "charger": {"power_kw": KW, "phases": 3, "bidirectional": 1.0},
            },
            "record": {"ev": True},
            "outages": list(outages) or None,
            **{name: section for name, section in sections.items() if section is not None},
        }
        return run_with_report(scenario_from(content, folder=folder))[0]

    return run


def of_evs(result):
    """Power of the EVs at A and B, (2, time) kW."""
    return result["ev_power_kw"].transpose("ev", "time").values


# ---- the bulk system ------------------------------------------------------------------------------


def test_the_bulk_system_sees_only_evs_on_the_grid(run):
    """A gives 1 kW to its house in an island, B charges: the area sees 7 kW of B, a hundred times."""
    area = {"frequency": {"source": "lfc", "fleet": {"schedule_kw": 0.0, "stands_for": 100}}}
    result = run(sites=AT_HOME, system=area)
    kw = of_evs(result)
    assert kw[0, OUT] == pytest.approx(-HOUSE_KW)
    assert kw[1, OUT] == pytest.approx(KW)
    assert result["area_fleet_mw"].values[0, 32:90] == pytest.approx(100 * KW / 1e3)
    assert result["fleet_power_kw"].values[0, OUT] == pytest.approx(KW)
    assert result["islanded_power_kw"].values[0, OUT] == pytest.approx(-HOUSE_KW)
    head = result["head_power_kw"].sum("phase").values[0, OUT] - result["losses_kw"].values[0, OUT]
    assert head == pytest.approx(KW + HOUSE_KW, abs=1e-6)
    total = (result["fleet_power_kw"] + result["islanded_power_kw"]).values[0]
    np.testing.assert_allclose(total, kw.sum(axis=0), atol=1e-9)


def test_off_grid_vehicles_are_no_load_of_the_bulk_system(folder):
    (folder / "off.csv").write_text(
        "ev,connection,arrival,departure,soc_arrival,soc_target,soc_floor,discharge_kw,capacity_kwh\n"
        "truck,upstream,2026-01-15T12:00,2026-01-15T18:00,0.9,0.2,0.2,7,100\n"
    )
    content = {
        "name": "off grid",
        "time": {"start": "2026-01-15T12:00", "duration": "30min", "step": "1min"},
        "feeder": {"network": "net.json", "phases": 1, "base_load": {"source": "net"}},
        "fleet": {"sessions": {"file": "off.csv"},
                  "charger": {"power_kw": KW, "phases": 3, "bidirectional": 1.0}},
        "sites": {"works": {"connections": "none", "count": 1, "evs_each": 1, "load": {"kw": 1.25},
                            "critical": {"share": 1.0}}},
        "system": {"frequency": {"source": "lfc", "fleet": {"schedule_kw": 0.0}}},
    }  # fmt: skip
    result = evgrid.run(scenario_from(content, folder=folder))
    assert result["islanded_power_kw"].values[0, 5:] == pytest.approx(-1.25)
    for name in ("fleet_power_kw", "upstream_power_kw", "area_fleet_mw"):
        assert not result[name].values.any(), name


# ---- aggregators ----------------------------------------------------------------------------------


class Watching(evgrid.Strategy):
    """Asks for nothing, and notes what it sees."""

    uses_feeder = True
    uses_system = True
    seen: list[dict[str, float]] = []

    def setpoints(self, view):
        """See the base class."""
        kw = {name: float(getattr(view, name)[0]) for name in ("base_load", "fleet_power", "p_max", "p_min")}
        self.seen.append(kw | {"out": bool(view.out_of_service[0])})
        return np.zeros(len(view.soc))


def test_the_load_beside_the_evs_is_that_of_the_grid(run, monkeypatch):
    """A's house is an island, and its EV's kilowatt no part of the head power that is measured."""
    monkeypatch.setitem(STRATEGIES._found, "watching", Watching)
    for sites in (AT_HOME, None):
        Watching.seen = []
        result = run(sites=sites, aggregators={"main": {"strategy": "watching", "group": "feeder"}})
        head = result["head_power_kw"].sum("phase").values[0]
        for tick in (33, 60, 89):
            assert Watching.seen[tick]["base_load"] == pytest.approx(head[tick - 1], abs=1e-9)
            assert Watching.seen[tick]["fleet_power"] == pytest.approx(0.0, abs=1e-9)
        quiet = [at for at, seen in enumerate(Watching.seen) if seen["out"]]
        last = 90 + (6 if sites else 0)  # a site waits for 5 min, then ramps up
        assert quiet == list(range(30, last)), "reported at the tick's begin"
        assert {seen["p_min"] for seen in Watching.seen[30:last]} == {0.0}


def test_a_plan_gives_the_room_of_a_dead_ev_to_others_and_plans_it_anew_on_its_return(run):
    """The limit has room for one EV. Both want 10 kWh as early as possible: prices rise. While A is dead B is
    planned at full power; back in service A is planned in the rest.
    """
    planned = {"strategy": "scheduled", "group": "feeder", "limit_kw": 2 * HOUSE_KW + KW, "margin": 0.0,
               "discharge": False}  # fmt: skip
    result = run(
        [{"start": "20min", "duration": "100min", "out": "line LA"}],
        "5min", "6h", aggregators={"main": planned}, system={"energy_price": {"file": "price.csv"}},
        communication={"telemetry": "5min"},
    )  # fmt: skip
    kw, head = of_evs(result), result["head_power_kw"].sum("phase").values[0]
    assert not kw[0, 4:24].any()
    assert kw[1, 6:18].min() > 0.85 * KW, "the plan of 12:30 and those after leave A out"
    assert kw[0, 24:28].max() > 0.9 * KW, "A has a plan again within two ticks of its return"
    assert head[26:].max() < 2 * HOUSE_KW + KW + 0.05
    assert result["session_energy_unserved_kwh"].values == pytest.approx([0.0, 0.0], abs=0.05)


def test_no_capacity_is_offered_by_the_dead(run):
    """Hourly offers: at 13:00 A is dead and B alone can move."""
    offered = {
        "aggregators": {"main": {"strategy": "regulation", "reliability": 0.5, "availability": 1.0}},
        "system": {"nominal_hz": 50, "regulation": {"source": "synthetic"}},
        "communication": {"telemetry": "60s"},
    }
    cut = [{"start": "50min", "duration": "30min", "out": "line LA"}]
    whole, half = (
        run(out, "4s", "70min", **offered)["capacity_offered_kw"].values[0, -30] for out in ((), cut)
    )
    assert whole > 2.0
    assert half == pytest.approx(whole / 2, rel=1e-6)


def test_the_envelope_of_the_dead_is_empty(run):
    ahead = {"horizon": "1h", "slot": "15min", "every": "15min"}
    fleet = {
        "sessions": {"file": "sessions.csv"}, "envelope": ahead,
        "charger": {"power_kw": KW, "phases": 3, "bidirectional": 1.0},
    }  # fmt: skip
    for sites in (None, AT_HOME):
        cut = run(step="5min", fleet=fleet, sites=sites)
        only_b = {name: cut[f"envelope_{name}"].values[0, 1:6] for name in ("p_max_kw", "e_max_kwh")}
        both = run((), step="5min", fleet=fleet, sites=sites)
        for name, values in only_b.items():  # 12:30 to 13:15 within the outage, 13:30 at its end
            whole = both[f"envelope_{name}"].values[0, 1:6]
            np.testing.assert_allclose(values[:4], whole[:4] / 2, rtol=1e-5)


# ---- books ----------------------------------------------------------------------------------------


def test_energy_of_an_island_is_neither_bought_nor_sold(run):
    """400 kg a MWh, 0.1 a kWh and more every half hour: only what A draws on the grid counts."""
    result = run(
        sites=AT_HOME, system={"energy_price": {"file": "price.csv"}, "emissions": {"file": "emissions.csv"}}
    )
    kw, island = of_evs(result), result["site_island"].values
    island = island.reshape(-1)
    assert (island[OUT] == 1).all()
    on_grid = kw[0] * (island == 0)
    price = 0.1 + 0.02 * (np.arange(120) // 30)
    assert result["session_emissions_kg"].values[0] == pytest.approx(0.4 * on_grid.sum() / 60, rel=1e-3)
    assert result["session_cost"].values[0] == pytest.approx((on_grid * price).sum() / 60, rel=1e-3)


def test_what_is_unserved_for_an_outage_is_what_full_power_would_have_charged_in_it(run):
    """Both want 10 kWh, which take 1 h 26 min. At A 4 h 50 min of the 6 h are lost: 1 h 10 min at 7 kW
    remain. B loses nothing, though it too lacks something where the charger is too weak.
    """
    cut = [{"start": "0min", "duration": "290min", "out": "line LA"}]
    result = run(cut, "5min", "7h")
    unserved, of_outage = (result[f"session_energy_unserved{name}_kwh"].values for name in ("", "_outage"))
    assert unserved[0] == pytest.approx(10.0 / 0.9 - KW * 70 / 60, rel=0.08)
    assert of_outage == pytest.approx([unserved[0], 0.0], abs=1e-9)
    weak = {"sessions": {"file": "sessions.csv"}, "charger": {"power_kw": 1.4, "phases": 3}}
    result = run([{"start": "60min", "duration": "30min", "out": "line LA"}], "5min", "7h", fleet=weak)
    unserved = result["session_energy_unserved_kwh"].values
    assert unserved[0] == pytest.approx(unserved[1] + 1.4 / 2, abs=1e-6)
    assert result["session_energy_unserved_outage_kwh"].values == pytest.approx([1.4 / 2, 0.0], abs=1e-9)
    plugged = run([{"start": "60min", "duration": "30min", "out": "line LA"}], "5min", "2h")
    assert np.isnan(plugged["session_energy_unserved_outage_kwh"].values).all()
