"""Limits of a group's power: kept both ways, and excesses are reported with their reasons."""

import numpy as np
import pytest
from click.testing import CliRunner

import evgrid
from evgrid.aggregator.excess import Excess
from evgrid.cli import main
from evgrid.results.limits import aggregator_limits, limit_set, violations
from evgrid.results.metrics import summary
from evgrid.scenario import scenario_from

TIME = {"start": "2026-07-01T12:00", "duration": "24h", "step": "5min"}


def run(strategy, count=30, overrides=None, base=None, **sections):
    """Thirty EVs of 7.4 kW that can discharge, on a feeder without other load unless given."""
    content = {
        "name": "street",
        "time": TIME,
        "ensemble": {"seed": 3},
        "feeder": {"network": "cigre_lv", "base_load": base or {"source": "none"}},
        "fleet": {"count": count, "charger": {"power_kw": 7.4, "phases": 3, "bidirectional": 1.0}},
        "tariff": "pge_ev2a",
        "aggregators": {"main": {"group": "feeder", **strategy}},
        "communication": {"telemetry": "5min"},
        **sections,
    }
    return evgrid.run(scenario_from(content, overrides))


def summary_row(result, name):
    return next((text for row, text in summary(result) if row.strip() == name), None)


def test_without_a_limit_all_evs_give_back_at_the_dear_hours_together():
    assert run({"strategy": "scheduled"})["head_power_kw"].sum("phase").min() < -100


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize(
    ("own", "least"), [({"limit_kw": 60}, -60), ({"limit_kw": 60, "export_limit_kw": 20}, -20)]
)
def test_a_plan_keeps_its_limit_both_ways(exact, own, least):
    result = run({"strategy": "scheduled", "exact": exact, **own}, overrides={"time.duration": "18h"})
    head = result["head_power_kw"].sum("phase").values
    # but for the losses' change in a tick
    assert head.max() < 60.5
    assert least - 0.5 < head.min() < 0.7 * least
    assert float(result["session_energy_unserved_avoidable_kwh"].max()) < 1e-6
    assert float(result["session_energy_discharged_kwh"].sum()) > 20
    assert f"{-head.min():.1f} kW" in summary_row(result, "reverse, highest")


def test_an_export_limit_alone_leaves_what_is_drawn_alone():
    result = run({"strategy": "scheduled", "export_limit_kw": 0})
    head = result["head_power_kw"].sum("phase").values
    # what EVs that taper draw less within a tick than was asked, while others give, and the losses' change
    assert head.min() > -0.02 * 7.4
    by_reason = result["limit_excess_kwh"].sel(member=0).to_series()
    assert by_reason.sum() == pytest.approx(-head[0, :-1].clip(None, 0).sum() / 12, abs=1e-5)
    assert by_reason["chargers"] + by_reason["lag"] > 0.99 * by_reason.sum()
    assert head.max() > 100
    assert summary_row(result, "limit of main").startswith("0 kW fed back: ")


def test_what_passes_the_limit_is_recorded_with_its_reason():
    """Too many EVs for the limit: the guard has to pass it; what is recorded is power minus limit."""
    result = run({"strategy": "peak_limit", "limit_kw": 8}, overrides={"time.duration": "30h"})
    power = result["head_power_kw"].sum("phase").values[0]
    np.testing.assert_allclose(result["limited_power_kw"].values[0], power, atol=1e-9)
    excess = result["limit_excess_kw"].values[0]
    np.testing.assert_allclose(excess, np.maximum(power - 8, 0) + np.minimum(power + 8, 0), atol=1e-9)
    assert excess.max() > 5
    by_reason = result["limit_excess_kwh"].sel(member=0).to_series()
    assert by_reason.sum() == pytest.approx(excess[:-1].sum() / 12, rel=1e-4)
    assert by_reason["guard"] > 0.9 * by_reason.sum()
    assert float(result["limit_excess_h"].sum()) == pytest.approx((excess[:-1] > 0.05).sum() / 12)
    worst = int(excess.argmax())
    stamp = str(result["time"].values[worst].astype("datetime64[m]")).replace("T", " ")
    text = summary_row(result, "limit of main")
    assert text.startswith(
        f"8 kW drawn, 8 kW fed back: passed by {excess[worst]:.1f} kW ({stamp}) drawn for "
    )
    assert summary_row(result, "because of").startswith("departure guard ")


def test_hours_of_the_reasons_add_up_to_those_in_which_the_limit_is_passed():
    """0.1 % of 60 kW is kept, and 0.05 kW of 8 kW."""
    for limit_kw, kw, hours in ((60.0, 0.059, 0), (60.0, 0.061, 1), (8.0, 0.049, 0), (8.0, 0.051, 1)):
        for sign in (1, -1):
            excess = Excess(-limit_kw, limit_kw, 0.0, 1)
            nothing, power = np.zeros(1), np.array([sign * (limit_kw + kw)])
            excess.record_request(power, nothing, nothing, nothing)
            excess.record_outcome(3600.0, 3600.0, power, nothing, nothing)
            assert excess.energy_kwh.sum() == pytest.approx(kw)
            assert excess.time_h[0].tolist() == [hours, 0, 0, 0, 0]


@pytest.fixture(scope="module")
def park(tmp_path_factory):
    """A transformer of 400 kVA, and behind it the car park as the only load."""
    import pandapower as pp

    net = pp.create_empty_network()
    mv, lv = pp.create_bus(net, 20.0, name="MV"), pp.create_bus(net, 0.4, name="LV")
    pp.create_ext_grid(net, mv)
    pp.create_transformer(net, mv, lv, "0.4 MVA 20/0.4 kV", name="T")
    pp.create_load(net, lv, 0.0, name="Park")
    path = tmp_path_factory.mktemp("park") / "net.json"
    pp.to_json(net, str(path))
    return path


def parked(park, tmp_path, levels, strategy, step="1min", **sections):
    """The car park from four on, whose base load has the given levels, kW, half an hour each."""
    file = tmp_path / "base.csv"
    start = np.datetime64("2026-07-01T16:00")
    times = start + 30 * np.arange(len(levels)) * np.timedelta64(1, "m")
    rows = [f"{at},{kw}" for at, kw in zip(times, levels, strict=True)]
    file.write_text("\n".join(["time,Park", *rows]))
    content = {
        "name": "park",
        "time": {"start": "2026-07-01T16:00", "duration": f"{len(levels) / 2:g}h", "step": step},
        "ensemble": {"seed": 3},
        "feeder": {"network": str(park), "base_load": {"file": str(file), "power_factor": 1.0}},
        "fleet": {"count": 12, "charger": {"power_kw": 7.4, "phases": 3, "bidirectional": 1.0}},
        "aggregators": {"main": strategy},
        "communication": {"telemetry": step},
        **sections,
    }
    return evgrid.run(scenario_from(content))


LEVELS = [10, 10, 10, 30, 10, 30, 10, 30, 10, 30, 10, 10]


def test_a_base_load_that_rises_within_a_tick_is_the_reason_and_is_made_up_for(park, tmp_path):
    limited = {"strategy": "v2g_peak_shaving", "limit_kw": 35}
    plain = parked(park, tmp_path, LEVELS, limited)
    made_up = parked(park, tmp_path, LEVELS, limited | {"limit_over": "30min"})
    for result in (plain, made_up):
        excess = result["limit_excess_kw"].isel(member=0, trafo=0).values
        assert excess.max() == pytest.approx(
            20, abs=1
        )  # what the base load rises by while EVs take all the room
        by_reason = result["limit_excess_kwh"].isel(member=0, trafo=0).to_series()
        assert by_reason["lag"] > 0.99 * by_reason.sum()
        assert by_reason.sum() == pytest.approx(np.abs(excess[:-1]).sum() / 60, rel=1e-3)
    halves = [
        r["limited_power_kw"].isel(member=0, trafo=0).values.reshape(-1, 30).mean(axis=1)
        for r in (plain, made_up)
    ]
    assert halves[0].max() > 35.3
    assert halves[1].max() < 35.01
    assert summary_row(made_up, "its means") == "kept"
    assert summary_row(made_up, "limit of main").startswith(
        "35 kW drawn, 35 kW fed back, mean of 30 min: passed by "
    )


def test_a_base_load_above_the_limit_is_the_reason_then(park, tmp_path):
    """Nobody may discharge: 40 kW beyond what is allowed, both ways."""
    for level in (75, -75):
        strategy = {"strategy": "peak_limit", "limit_kw": 35}
        result = parked(park, tmp_path, [level] * 6, strategy, fleet={"count": 1, "charger": {"phases": 3}})
        excess = result["limit_excess_kw"].isel(member=0, trafo=0).values
        assert np.sign(level) * np.median(excess) == pytest.approx(40, abs=3)
        by_reason = result["limit_excess_kwh"].isel(member=0, trafo=0).to_series()
        assert by_reason["base_load"] > 0.9 * by_reason.sum()
        way = "drawn" if level > 0 else "fed back"
        assert f"kW ({str(result['time'].values[int(np.abs(excess).argmax())])[:10]}" in summary_row(
            result, "limit of main"
        )
        assert f") {way} for 3.00 h" in summary_row(result, "limit of main")


def test_evs_of_others_are_the_reason_then(park, tmp_path):
    others = {"strategy": "uncontrolled", "evs": {"share": 0.9}}
    strategy = {"strategy": "peak_limit", "limit_kw": 5}
    result = parked(park, tmp_path, [0] * 8, strategy, aggregators={"main": strategy, "free": others})
    by_reason = result["limit_excess_kwh_main"].isel(member=0, trafo=0).to_series()
    assert by_reason.sum() > 20
    assert by_reason["others"] > 0.8 * by_reason.sum()
    assert summary_row(result, "because of").startswith("EVs of others ")


def test_chargers_that_do_not_follow_are_the_reason_then(park, tmp_path):
    """Half of the set-points are lost, so that many charge on when the base load has risen."""
    strategy = {"strategy": "v2g_peak_shaving", "limit_kw": 35}
    lossy = {"telemetry": "1min", "loss": 0.7}
    result = parked(park, tmp_path, LEVELS, strategy, communication=lossy)
    by_reason = result["limit_excess_kwh"].isel(member=0, trafo=0).to_series()
    assert by_reason["chargers"] > 0.2 * by_reason.sum()
    assert by_reason["guard"] < 0.1 * by_reason.sum()


def test_violations_list_the_limits_of_the_run(tmp_path):
    path = tmp_path / "r.nc"
    content = {
        "name": "street", "time": TIME, "feeder": {"network": "cigre_lv", "base_load": {"source": "none"}},
        "fleet": {"count": 30, "charger": {"power_kw": 7.4, "phases": 3}},
        "aggregators": {"main": {"strategy": "peak_limit", "group": "feeder", "limit_kw": 8,
                                 "limit_over": "15min"}},
        "communication": {"telemetry": "5min"},
    }  # fmt: skip
    result = evgrid.run(scenario_from(content), path)
    limits = aggregator_limits(result)
    assert [(c.name, c.high, c.low, c.mean_over) for c in limits] == [("limit_of_main", 8.0, -8.0, 900.0)]
    quarters = result["head_power_kw"].sum("phase").values[0].reshape(-1, 3).mean(axis=1)
    row = violations(result, limit_set(*limits)).iloc[0]
    assert row["worst"] == pytest.approx(quarters.max())
    assert row["duration_h"] == pytest.approx((quarters > 8 * (1 + 1e-3)).sum() / 4)
    printed = CliRunner().invoke(main, ["violations", str(path)])
    assert printed.exit_code == 0
    assert "limit_of_main" in printed.output
    none = CliRunner().invoke(main, ["violations", str(path), "--limits", "aggregator"])
    assert none.exit_code == 2
    assert "must be one of en_50160" in none.output


DAY = [20, 20, 20, 10, 0, -20, -40, -50, -60, -60, -50, -40, -20, 0, 10, 20, 20, 20, 20, 20, 20, 20]


def at_work(park, tmp_path, strategy, count=40, step="5min"):
    """A car park with PV, from seven to six; cars come in the morning, two thirds of them before eight."""
    rng = np.random.default_rng(5)
    begin = np.datetime64("2026-07-01T07:05")
    arrival = begin + rng.integers(0, 150, count) * np.timedelta64(1, "m")
    departure = np.datetime64("2026-07-01T16:00") + rng.integers(0, 90, count) * np.timedelta64(1, "m")
    rows = [f"Park,ev{i},{a},{d},0.2,0.8,40" for i, (a, d) in enumerate(zip(arrival, departure, strict=True))]
    file = tmp_path / "sessions.csv"
    file.write_text("\n".join(["connection,ev,arrival,departure,soc_arrival,soc_target,capacity_kwh", *rows]))
    base = tmp_path / "base.csv"
    times = np.datetime64("2026-07-01T07:00") + 30 * np.arange(len(DAY)) * np.timedelta64(1, "m")
    base.write_text("\n".join(["time,Park", *(f"{t},{kw}" for t, kw in zip(times, DAY, strict=True))]))
    content = {
        "name": "park",
        "time": {"start": "2026-07-01T07:00", "duration": "11h", "step": step},
        "feeder": {"network": str(park), "base_load": {"file": str(base), "power_factor": 1.0}},
        "fleet": {"sessions": {"file": str(file)}, "charger": {"power_kw": 11, "phases": 3}},
        "aggregators": {"main": strategy},
        "communication": {"telemetry": step},
    }
    return evgrid.run(scenario_from(content))


def test_a_peak_higher_than_uncontrolled_is_reported_and_a_limit_prevents_it(park, tmp_path):
    plain = at_work(park, tmp_path, {"strategy": "uncontrolled"})
    peaks = {}
    results = {}
    for name, own in (("free", {}), ("limited", {"limit_kw": 150})):
        result = results[name] = at_work(park, tmp_path, {"strategy": "pv_self_consumption", **own})
        assert float(result["session_energy_unserved_kwh"].max()) < 1e-6
        peaks[name] = float((result["head_power_kw"].sum("phase") - result["losses_kw"]).max())
    uncontrolled = float((plain["head_power_kw"].sum("phase") - plain["losses_kw"]).max())
    free = results["free"]
    assert float(free["uncontrolled_peak_kw"][0]) == pytest.approx(uncontrolled, rel=0.02)
    assert peaks["free"] > 1.1 * uncontrolled
    assert summary_row(free, "higher than uncontrolled").startswith(
        f"{peaks['free']:.1f} kW without losses, about "
    )
    assert peaks["limited"] < 151 < uncontrolled
    assert summary_row(results["limited"], "higher than uncontrolled") is None
    assert float(results["limited"]["limit_excess_kwh"].sel(reason="lag").sum()) < 0.5  # as PV fades
    assert float(results["limited"]["limit_excess_kwh"].sum()) < 0.5
    # and it still takes up more of the surplus than charging at once
    fed_back = {n: float((-r["head_power_kw"].sum("phase")).clip(0).sum()) for n, r in results.items()}
    assert fed_back["limited"] <= float((-plain["head_power_kw"].sum("phase")).clip(0).sum()) + 1e-6


PLATEAU = [26] * 5 + [106] * 2 + [26] * 3
"""kW, half an hour each from 18:00 on: above the limit from 20:30 to 21:30."""


def on_a_plateau(park, tmp_path, step, feeder_step, **strategy):
    """One EV that may give back, and a base load that passes 104 kW for an hour."""
    stamps = np.datetime64("2026-07-01T18:00") + 30 * np.arange(len(PLATEAU)) * np.timedelta64(1, "m")
    rows = [f"{at},{kw}" for at, kw in zip(stamps, PLATEAU, strict=True)]
    (tmp_path / "base.csv").write_text("\n".join(["time,Park", *rows]))
    columns = "ev,connection,arrival,departure,soc_arrival,soc_target,capacity_kwh,charge_kw,discharge_kw"
    stay = "a,Park,2026-07-01T18:10,2026-07-02T06:00,0.9,0.9,60,7.4,7.4"
    (tmp_path / "s.csv").write_text(f"{columns}\n{stay}")
    content = {
        "name": "plateau",
        "time": {"start": "2026-07-01T18:00", "duration": "5h", "step": step},
        "feeder": {"network": str(park), "step": feeder_step,
                   "base_load": {"file": "base.csv", "power_factor": 1.0}},
        "fleet": {"sessions": {"file": "s.csv"}, "charger": {"phases": 3, "bidirectional": True}},
        "tariff": "pge_ev2a",
        "aggregators": {"main": {"strategy": "scheduled", "group": "transformer", **strategy}},
        "communication": {"telemetry": step},
    }  # fmt: skip
    result = evgrid.run(scenario_from(content, folder=tmp_path))
    return {
        name: power.isel(member=0).resample(time="15min").mean().values[:20]
        for name, power in (
            ("head", result["head_power_kw"].sum("phase")),
            ("losses", result["losses_kw"]),
            ("fleet", result["fleet_power_kw"]),
        )
    }


STEPS = [("1min", "1min"), ("5min", "5min"), ("15min", "15min"), ("5min", "15min")]


@pytest.mark.parametrize(("step", "feeder_step"), STEPS)
def test_a_plan_keeps_a_limit_on_a_plateau_of_the_base_load_at_any_tick(park, tmp_path, step, feeder_step):
    """106 kW under a limit of 104: what is above it, and the losses, are given in each quarter hour."""
    strategy = {"limit_kw": 104, "wear_per_kwh": 1.0}  # giving back earns nothing
    quarters = on_a_plateau(park, tmp_path, step, feeder_step, **strategy)
    # the first tick knows the losses of the one before
    rise = quarters["losses"][10] - quarters["losses"][9]
    assert 0.3 < rise < 0.5
    assert quarters["head"][10] < 104 + rise + 0.02
    assert quarters["head"][11:14] == pytest.approx(104.0, abs=0.02)
    assert quarters["fleet"][10:14] == pytest.approx(-2.0 - quarters["losses"][10:14], abs=rise + 0.02)
    # nothing is given before, and after it for a tick, which knows the base load of the one before
    assert quarters["fleet"][:10].min() > -1e-6
    assert quarters["fleet"][14] > -3.8 * int(step.removesuffix("min")) / 15
    assert quarters["fleet"][15:].min() > -1e-6


@pytest.mark.parametrize("step", ["1min", "5min", "15min"])
def test_a_plan_without_a_limit_pays_for_the_same_peak_at_any_tick(park, tmp_path, step):
    """All that one EV can give, 7.4 kW, lowers each quarter hour of the plateau to 98.6 kW."""
    strategy = {"demand_charge": 50.0, "demand_of": "group", "wear_per_kwh": 1.0}
    quarters = on_a_plateau(park, tmp_path, step, step, **strategy)
    assert (quarters["head"] - quarters["losses"])[10:14] == pytest.approx(98.6, abs=0.01)
    assert quarters["head"][14:].max() < 98.6
