"""The coupled run: feeder, fleet and aggregator over HELICS, from one scenario to one Dataset."""

import json
import threading
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from tests.support.street import street

import evgrid
from evgrid.results import audit_of, open_results
from evgrid.scenario import scenario_from

SCENARIOS = Path(__file__).parents[2] / "scenarios"


STRATEGIES = {
    "uncontrolled": {},
    "tou": {},
    "peak_limit": {"limit_kw": 150},
    "v2g_peak_shaving": {"limit_kw": 120},
}


def with_strategy(name, overrides=None):
    return street(overrides, aggregators={"main": {"strategy": name, **STRATEGIES[name]}})


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_balances_and_serves_every_reachable_departure(strategy):
    result = evgrid.run(with_strategy(strategy))
    audit = audit_of(result)
    assert audit["conversion_relative"] <= 1e-9
    assert audit["hand_over_kw"] == 0.0
    assert audit["feeder_relative"] <= 1e-6
    uncontrolled = evgrid.run(with_strategy("uncontrolled"))
    done = result["session_complete"].values
    np.testing.assert_allclose(
        result["session_energy_unserved_kwh"].values[done],
        uncontrolled["session_energy_unserved_kwh"].values[done],
        atol=1e-6,
    )


def test_every_variable_has_unit_and_long_name_and_the_result_can_rebuild_its_run():
    result = evgrid.run(with_strategy("v2g_peak_shaving", {"record.ev": True}))
    for name, variable in result.data_vars.items():
        assert variable.attrs["units"], name
        assert variable.attrs["long_name"], name
    for name in (
        "voltage_pu", "line_loading", "trafo_loading", "losses_kw", "head_power_kw", "fleet_power_kw",
        "fleet_reactive_kvar", "plugged", "session_energy_requested_kwh", "session_energy_delivered_kwh",
        "session_battery_energy_kwh", "session_energy_unserved_kwh", "session_soc_departure", "session_cost",
        "ev_power_kw", "ev_soc",
    ):  # fmt: skip
        assert name in result, name
    assert {"member", "time", "bus", "phase", "line", "trafo", "session"} <= set(result.sizes)
    again = evgrid.run(scenario_from(json.loads(result.attrs["scenario"])))
    xr.testing.assert_identical(again, result)


@pytest.mark.parametrize("strategy", ["tou", "v2g_peak_shaving"])
def test_a_member_alone_equals_the_same_member_inside_an_ensemble(strategy):
    changes = {"communication.loss": 0.2, "record.ev": True, "feeder.base_load": {"source": "standard"}}
    together = evgrid.run(with_strategy(strategy, {**changes, "ensemble.members": 4}))
    alone = evgrid.run(with_strategy(strategy, {**changes, "ensemble.members": 1, "ensemble.first": 2}))
    assert list(alone["member"].values) == [2]
    for name, variable in alone.data_vars.items():
        if "member" in variable.dims:
            expected = together[name].sel(member=[2])
        elif "session" in variable.dims:
            expected = together[name][together["session_member"].values == 2]
        elif "ev" in variable.dims:
            expected = together[name].transpose("ev", ...)[together["ev_member"].values == 2]
            variable = variable.transpose("ev", ...)
        else:
            expected = together[name]
        np.testing.assert_array_equal(variable.values, expected.values, err_msg=str(name))


@pytest.mark.parametrize("strategy", ["uncontrolled", "tou", "v2g_peak_shaving"])
def test_sessions_energies_and_departures_do_not_depend_on_the_tick(strategy):
    changes = {"time.duration": "24h", "fleet.vehicle.soc_target": 0.8}
    results = [
        evgrid.run(with_strategy(strategy, {**changes, "time.step": step, "communication.telemetry": step}))
        for step in ("1min", "5min", "15min")
    ]
    first, *others = results
    for other in others:
        for name in ("session_arrival", "session_departure", "session_energy_requested_kwh"):
            np.testing.assert_array_equal(other[name], first[name])
        done = first["session_complete"].values
        exact = strategy == "uncontrolled"
        for name in ("session_energy_unserved_kwh", "session_soc_departure"):
            np.testing.assert_allclose(other[name].values[done], first[name].values[done], rtol=0, atol=1e-9)
        if exact:
            np.testing.assert_allclose(
                other["session_energy_delivered_kwh"], first["session_energy_delivered_kwh"], rtol=1e-9
            )


def test_the_limit_is_kept_within_a_ticks_ramp():
    limited = evgrid.run(with_strategy("peak_limit", {"feeder.base_load": {"source": "net"}}))
    free = evgrid.run(with_strategy("uncontrolled"))
    assert free["head_power_kw"].max() > limited["head_power_kw"].max()


def test_a_delayed_set_point_arrives_later():
    quick = evgrid.run(with_strategy("v2g_peak_shaving"))
    late = evgrid.run(with_strategy("v2g_peak_shaving", {"communication.delay": "11min"}))
    assert audit_of(late)["hand_over_kw"] == 0.0
    assert not np.array_equal(quick["fleet_power_kw"], late["fleet_power_kw"])


def test_a_file_equals_memory(tmp_path):
    scenario = with_strategy("v2g_peak_shaving", {"record.ev": True})
    path = tmp_path / "r.nc"
    with evgrid.run(scenario, path) as written, open_results(path) as opened:
        xr.testing.assert_identical(written.load(), opened.load())
        xr.testing.assert_identical(opened, evgrid.run(scenario))


def test_a_slower_feeder_and_a_longer_recording_interval():
    result = evgrid.run(with_strategy("v2g_peak_shaving", {"feeder.step": "15min", "record.step": "30min"}))
    assert result.sizes["time"] == 12
    assert audit_of(result)["hand_over_kw"] == 0.0


def test_no_fleet_and_no_evs():
    bare = evgrid.run(street({"fleet": None}))
    assert "fleet_power_kw" not in bare
    none = evgrid.run(with_strategy("tou", {"fleet.count": 0}))
    assert float(none["fleet_power_kw"].max()) == 0.0
    assert none.sizes["session"] == 0
    np.testing.assert_allclose(bare["head_power_kw"], none["head_power_kw"], rtol=1e-12)


def write_strategy(folder, name, body):
    (folder / f"{name}.py").write_text(
        "import numpy as np\nimport evgrid\n\n\nclass Mine(evgrid.Strategy):\n"
        f"    def setpoints(self, view):\n        {body}\n"
    )


def run_mine(tmp_path, module, **overrides):
    content = json.loads(street().model_dump_json(exclude_none=True))
    content["aggregators"] = {"main": {"strategy": f"{module}:Mine"}}
    return evgrid.run(scenario_from(content, overrides, folder=tmp_path), tmp_path / "out" / "r.nc")


@pytest.mark.parametrize(
    ("module", "body", "message"),
    [
        ("raises_at_50", "return {}[1] if view.time_s >= 50 * 300 else view.p_max",
         r"strategy raised KeyError: 1 \(raises_at_50.py, line 7\) at 2026-07-01T20:10:00"),
        ("gives_nan", "return np.where(view.soc > 0, np.nan, 0.0)",
         r"Mine.setpoints returned NaN for \d+ of 60 EVs at .*, first for \S+ of member \d: must be a power"),
        ("gives_few", "return np.zeros(3)", r"returned an array of shape \(3,\) at .*: must be \(60,\)"),
        ("gives_text", "return 'full'", r"Mine.setpoints returned str at .*: must be an array of 60 powers"),
    ],
)  # fmt: skip
def test_a_users_strategy_that_fails_ends_the_run_with_its_cause(tmp_path, module, body, message):
    write_strategy(tmp_path, module, body)
    with pytest.raises(evgrid.EvgridError, match=message):
        run_mine(tmp_path, module)
    assert not (tmp_path / "out").exists()  # nothing half-written


def test_a_users_strategy_runs(tmp_path):
    write_strategy(tmp_path, "half_power", "return 0.5 * view.p_max")
    with run_mine(tmp_path, "half_power") as result:
        assert result.attrs["name"] == "street"


def test_runs_from_another_thread_and_after_a_failure(tmp_path):
    write_strategy(tmp_path, "fails_now", "raise ValueError('no')")
    with pytest.raises(evgrid.EvgridError, match="no"):
        run_mine(tmp_path, "fails_now")
    results = []
    worker = threading.Thread(target=lambda: results.append(evgrid.run(with_strategy("tou"))))
    worker.start()
    worker.join(60)
    assert len(results) == 1


@pytest.mark.parametrize("path", sorted(SCENARIOS.glob("*.yaml")), ids=lambda p: p.stem)
def test_every_shipped_scenario_runs_as_it_stands(path, in_place):
    path = in_place(path)
    given = evgrid.load_scenario(path)
    dated = bool(given.outages and given.outages.schedule) or not given.fleet.sessions.sampled
    shorter = {"time.duration": "10min" if given.time.step < 60 else "2h"}
    voltage = evgrid.run(given if dated else evgrid.load_scenario(path, shorter))["voltage_pu"]
    assert voltage.where(voltage > 0.0).min() > 0.5


@pytest.fixture
def volt_var_street(tmp_path):
    """Runs the European LV feeder with 20 cars charging, whose chargers have a volt-var curve, or none."""
    path = tmp_path / "sessions.csv"
    rows = [f"car{n},LOAD{n},2026-01-15T11:59,2026-01-16T08:00,0.2" for n in range(1, 21)]
    path.write_text("\n".join(["ev,connection,arrival,departure,soc_arrival", *rows]) + "\n")

    def run_street(curve, kva, step="60s", duration="10min"):
        content = {
            "name": "volt-var",
            "time": {"start": "2026-01-15T12:00", "duration": duration, "step": step},
            "feeder": {"network": "european_lv", "base_load": {"source": "net"}},
            "fleet": {
                "sessions": {"file": str(path)},
                "charger": {"power_kw": 7.4, "phases": 1, "apparent_kva": kva,
                            "functions": {"volt_var": curve} if curve else None},
            },
            "communication": {"telemetry": "60s"},
        }  # fmt: skip
        return evgrid.run(scenario_from(content))

    return run_street


def saturated(*points):
    return {"points": [list(point) for point in points], "response_s": "60s"}


INJECTS = saturated((1.2, 44), (1.3, -44))
ABSORBS = saturated((0.7, 44), (0.8, -44))


def test_volt_var_moves_the_voltages_of_a_coupled_run_and_keeps_to_its_room(volt_var_street):
    none = volt_var_street(None, 8.2)
    room = 20 * np.sqrt(8.2**2 - 7.4**2)  # less than 44 % of 8.2 kVA
    for curve, sign in ((INJECTS, -1), (ABSORBS, 1)):
        result = volt_var_street(curve, 8.2)
        audit = audit_of(result)
        assert audit["hand_over_kw"] == 0.0
        assert audit["feeder_relative"] <= 1e-6
        reactive = sign * result["fleet_reactive_kvar"].values
        assert result["fleet_power_kw"].values == pytest.approx(20 * 7.4)
        assert reactive.max() <= room + 1e-9
        assert reactive[:, -1] == pytest.approx(room)
        moved = (result["voltage_pu"].mean("bus") - none["voltage_pu"].mean("bus")).isel(time=-1)
        assert np.all(np.sign(moved.values) == -sign)


@pytest.mark.parametrize("step", [1, 4, 60])
def test_reactive_power_of_a_coupled_run_responds_at_its_time_at_any_tick(volt_var_street, step):
    result = volt_var_street(INJECTS, 10, f"{step}s", "4min")
    mean = -result["fleet_reactive_kvar"].values[0] / (20 * 0.44 * 10)
    # Of 1 - 10^(-t / 60 s), which is 0.9 at 60 s, the mean over the first 60 s is 1 - 0.9 / ln 10.
    assert mean[: 60 // step].mean() == pytest.approx(1 - 0.9 / np.log(10), rel=1e-6)
    if step < 60:  # means over ticks lie on it half a tick earlier
        times = (np.arange(len(mean)) + 0.5) * step
        assert np.interp(60.0, times, mean) == pytest.approx(0.9, abs=1e-3)
