"""``coupling: iterated`` through whole runs: fleet, PV inverters and feeder agree inside each tick."""

import json

import numpy as np
import pandapower as pp
import pytest
from scipy.optimize import brentq

import evgrid
from evgrid.results import audit_of
from evgrid.scenario import scenario_from

KV, R_OHM, X_OHM = 0.4, 0.15, 0.25
PV_KVA = 75.0
VOLT_VAR = {"points": [[0.95, 44], [0.99, 0], [1.01, 0], [1.05, -44]], "response_s": 5}


@pytest.fixture
def two_buses(tmp_path):
    """Runs ``grid ==line== house`` with one three-phase charger of 22 kW and 25 kVA, or another scenario.

    ``sessions``: rows of ev, connection, arrival, departure, soc_arrival, capacity_kwh, member, charge_kw.
    """

    def run(coupling="iterated", source_pu=1.0, sessions=None, pv_kw=0.0, changes=None, **over):
        net = pp.create_empty_network()
        head, house = (pp.create_bus(net, KV, name=name) for name in ("head", "house"))
        pp.create_ext_grid(net, head, vm_pu=source_pu)
        pp.create_line_from_parameters(net, head, house, 1.0, R_OHM, X_OHM, 0.0, 1.0)
        pp.create_load(net, house, 0.0, 0.0, name="house")
        if pv_kw:
            pp.create_sgen(net, house, pv_kw / 1e3, 0.0, sn_mva=PV_KVA / 1e3, name="pv")
        pp.to_json(net, str(tmp_path / "net.json"))
        rows = sessions or ["car,house,2026-01-15T11:00,2026-01-16T20:00,0.2,2000,0,22"]
        header = "ev,connection,arrival,departure,soc_arrival,capacity_kwh,member,charge_kw"
        (tmp_path / "sessions.csv").write_text("\n".join([header, *rows]) + "\n")
        content = {
            "name": "two-buses",
            "time": {"start": "2026-01-15T12:00", "duration": "6min", "step": "60s"},
            "feeder": {"network": str(tmp_path / "net.json"), "base_load": {"source": "net"}},
            "fleet": {
                "sessions": {"file": str(tmp_path / "sessions.csv")},
                "charger": {"power_kw": 22.0, "phases": 3, "apparent_kva": 25.0,
                            "functions": {"volt_var": VOLT_VAR, "nominal_hz": 50}},
            },
            "record": {"ev": True},
            "coupling": coupling,
            **over,
        }  # fmt: skip
        return evgrid.run(scenario_from(content, changes))

    return run


def house_pu(source_pu, p_kw, q_kvar):
    """Voltage at the end of the line: v**4 + (2 (R P + X Q) - e**2) v**2 + Z**2 S**2 = 0, per unit."""
    r, x, p, q = R_OHM / KV**2 / 1e3, X_OHM / KV**2 / 1e3, p_kw, q_kvar
    b = 2 * (r * p + x * q) - source_pu**2
    return np.sqrt((-b + np.sqrt(b**2 - 4 * (r**2 + x**2) * (p**2 + q**2))) / 2)


def curve_kvar(voltage_pu, kva, points=VOLT_VAR["points"]):
    """Reactive power drawn, kvar."""
    at, injected = np.array(points).T
    return -np.interp(voltage_pu, at, injected) / 100 * kva


@pytest.mark.parametrize("source_pu", [0.96, 1.0, 1.06])
def test_two_buses_have_an_analytic_fixed_point(two_buses, source_pu):
    result = two_buses(source_pu=source_pu)
    expected = brentq(lambda v: house_pu(source_pu, 22.0, curve_kvar(v, 25.0)) - v, 0.8, 1.2, xtol=1e-14)
    assert result["voltage_min_pu"].values[0, -1] == pytest.approx(expected, abs=2e-6)
    assert result["fleet_reactive_kvar"].values[0, -1] == pytest.approx(curve_kvar(expected, 25), abs=2e-3)
    assert result["fleet_power_kw"].values == pytest.approx(22.0)
    assert result["coupling_residual"].values.max() <= 1e-6
    assert result["coupling_unconverged"].values.tolist() == [0]
    assert audit_of(result)["hand_over_kw"] == 0.0


def test_a_tighter_tolerance_is_kept(two_buses):
    coupling = {"mode": "iterated", "tolerance": 1e-10}
    result = two_buses(coupling)
    expected = brentq(lambda v: house_pu(1.0, 22.0, curve_kvar(v, 25.0)) - v, 0.8, 1.2, xtol=1e-14)
    assert result["voltage_min_pu"].values[0, -1] == pytest.approx(expected, abs=1e-9)
    assert result["coupling_residual"].values.max() <= 1e-10


def test_the_response_is_solved_implicitly(two_buses):
    """A tick as long as the response time: the mean of the lag towards the curve at its own voltage."""
    result = two_buses(changes={"fleet.charger.functions.volt_var.response_s": 60})
    covered = 1 - 0.9 / np.log(10)  # of a step from rest, mean over a tick of the response time
    voltage = brentq(lambda v: house_pu(1.0, 22.0, covered * curve_kvar(v, 25.0)) - v, 0.8, 1.2, xtol=1e-14)
    assert result["voltage_min_pu"].values[0, 0] == pytest.approx(voltage, abs=2e-6)


def test_volt_watt_iterates_active_power(two_buses):
    """Charging limited by voltage; the limit acts on active power, which feeds back on the voltage."""
    limit = {"points": [[0.9, 0], [1.0, 100]], "response_s": 1}
    functions = {"charging_limit": limit, "nominal_hz": 50}
    result = two_buses(
        changes={"fleet.charger.functions": functions, "fleet.charger.functions.volt_var": None}
    )
    voltage = brentq(
        lambda v: house_pu(1.0, 22 * np.interp(v, [0.9, 1], [0, 1]), 0) - v, 0.8, 1.1, xtol=1e-14
    )
    assert result["fleet_power_kw"].values[0, -1] == pytest.approx(22 * (voltage - 0.9) / 0.1, abs=1e-3)
    assert result["fleet_power_kw"].values[0, -1] < 21.0
    assert result["voltage_min_pu"].values[0, -1] == pytest.approx(voltage, abs=2e-6)
    assert audit_of(result)["conversion_relative"] <= 1e-9


def same(one, other, but=()):
    """Whether two results are the same bit for bit, but for variables that only one of them has."""
    names = set(one.data_vars) & set(other.data_vars)
    assert {str(n) for n in set(one.data_vars) ^ set(other.data_vars)} <= set(but)
    for name in names:
        np.testing.assert_array_equal(one[name].values, other[name].values, err_msg=str(name))


COUPLING = {f"coupling_{name}" for name in ("iterations", "residual", "residual_worst", "unconverged")}


def test_without_an_answer_iterated_is_lagged_bit_for_bit(two_buses):
    """The chargers watch the voltage (trips), but nothing happens."""
    functions = {"trips": "II", "nominal_hz": 50, "volt_var": None}
    iterated, lagged = (
        two_buses(mode, changes={"fleet.charger.functions": functions}) for mode in ("iterated", "lagged")
    )
    same(iterated, lagged, COUPLING)
    assert iterated["coupling_iterations"].values.tolist() == [[1.0] * 6]
    assert iterated["coupling_residual"].values.tolist() == [[0.0] * 6]


def test_without_functions_nothing_iterates(two_buses):
    same(*(two_buses(m, changes={"fleet.charger.functions": None}) for m in ("iterated", "lagged")))


def test_one_of_many_that_does_not_converge_is_named_and_the_others_are_kept(two_buses):
    """Of four members the second and the fourth have a car."""
    sessions = [f"car{m},house,2026-01-15T11:00,2026-01-16T20:00,0.2,2000,{m},22" for m in (1, 3)]
    sessions.append("late,house,2026-01-16T11:00,2026-01-16T20:00,0.2,2000,0,22")
    ensemble = {"ensemble": {"members": 4}}
    short = two_buses({"mode": "iterated", "most_iterations": 2}, sessions=sessions, **ensemble)
    whole = two_buses("iterated", sessions=sessions, **ensemble)
    unconverged = json.loads(short.attrs["unconverged_members"])
    assert list(unconverged) == ["1", "3"]
    for number, text in unconverged.items():
        assert text.startswith(f"member {number}: chargers and feeder did not converge in 2 iterations in ")
        assert "first at 2026-01-15 12:00:00 with a residual of " in text
    assert short["coupling_unconverged"].values[[0, 2]].tolist() == [0, 0]
    assert (short["coupling_unconverged"].values[[1, 3]] > 0).all()
    assert (short["coupling_residual_worst"].values > 1e-6).tolist() == [False, True, False, True]
    assert json.loads(whole.attrs["unconverged_members"]) == {}
    same(short.isel(member=[0, 2])[["voltage_pu", "fleet_power_kw"]],
         whole.isel(member=[0, 2])[["voltage_pu", "fleet_power_kw"]])  # fmt: skip
    assert audit_of(short)["hand_over_kw"] == 0.0


def test_power_beyond_what_the_line_can_carry_switches_off_and_is_named(two_buses):
    """No solution is no voltage to the charger: without a car there is one again, so none stands."""

    def row(member, kw):
        return f"car{member},house,2026-01-15T12:02:30,2026-01-16T20:00,0.2,1e6,{member},{kw}"

    changes = {"fleet.charger.power_kw": 1e5, "fleet.charger.apparent_kva": 1.2e5}
    ensemble = {"ensemble": {"members": 3}}
    broken = two_buses(sessions=[row(0, 22), row(1, 1e5), row(2, 11)], changes=changes, **ensemble)
    whole = two_buses(sessions=[row(0, 22), row(1, 22), row(2, 11)], changes=changes, **ensemble)
    assert json.loads(broken.attrs["failed_members"]) == {}
    unconverged = json.loads(broken.attrs["unconverged_members"])
    assert list(unconverged) == ["1"]
    assert "in 1 step, first at 2026-01-15 12:02:00 with a residual of 1 (" in unconverged["1"]
    assert broken["fleet_power_kw"].values[1].tolist() == [0.0] * 6
    names = ["voltage_pu", "fleet_reactive_kvar", "coupling_iterations", "losses_kw"]
    same(broken[names].isel(member=[0, 2]), whole[names].isel(member=[0, 2]))
    assert audit_of(broken)["hand_over_kw"] == 0.0
    assert audit_of(broken)["feeder_relative"] <= 1e-6


def test_the_command_line_names_them(two_buses, tmp_path):
    from click.testing import CliRunner

    from evgrid.cli import main

    scenario = two_buses().attrs["scenario"]  # JSON is YAML
    (tmp_path / "s.yaml").write_text(scenario)
    arguments = ["run", str(tmp_path / "s.yaml"), "-o", str(tmp_path / "r.nc"), "--no-plot"]
    done = CliRunner().invoke(main, [*arguments, "--set", "coupling.most_iterations=2"])
    assert done.exit_code == 0, done.output
    assert "not converged: 1 of 1 members" in done.stdout
    assert "chargers and feeder did not converge in 2 iterations" in " ".join(done.stdout.split())
    assert "not converged" not in CliRunner().invoke(main, arguments).stdout


def test_a_member_alone_equals_the_same_member_inside_an_ensemble(two_buses):
    """Members that take different numbers of iterations: cars come at other times and SOC."""
    sessions = [
        f"car{m},house,2026-01-15T12:0{m}:20,2026-01-15T12:0{m + 2}:50,0.{m + 1},40,{m},{22 - 6 * m}"
        for m in range(4)
    ]
    together = two_buses(sessions=sessions, ensemble={"members": 4}, source_pu=1.04)
    counts = together["coupling_iterations"].values
    assert len(set(counts.sum(axis=1))) > 1
    for m in (0, 2):
        alone = two_buses(sessions=sessions, ensemble={"members": 1, "first": m}, source_pu=1.04)
        for name in ("voltage_pu", "fleet_power_kw", "fleet_reactive_kvar", *COUPLING):
            np.testing.assert_array_equal(alone[name].values, together[name].sel(member=[m]).values)


def test_a_slow_feeder_iterates_when_it_steps(two_buses):
    result = two_buses(changes={"time.step": "20s", "feeder.step": "60s"})
    assert result["coupling_iterations"].values[0, 0] > 1  # mean over three ticks, of which one iterates
    expected = brentq(lambda v: house_pu(1.0, 22.0, curve_kvar(v, 25.0)) - v, 0.8, 1.2, xtol=1e-14)
    assert result["voltage_min_pu"].values[0, -1] == pytest.approx(expected, abs=2e-6)
    assert audit_of(result)["hand_over_kw"] == 0.0


@pytest.mark.parametrize("with_chargers", [False, True])
def test_pv_inverters_see_their_own_step(two_buses, with_chargers):
    changes = {"feeder.pv": {"functions": {"volt_var": VOLT_VAR}}}
    if not with_chargers:
        changes["fleet.charger.functions"] = None
    result = two_buses(pv_kw=60.0, changes=changes)

    def drawn(v):
        return curve_kvar(v, PV_KVA), curve_kvar(v, 25.0) if with_chargers else 0.0

    expected = brentq(lambda v: house_pu(1.0, 22.0 - 60.0, sum(drawn(v))) - v, 0.8, 1.2, xtol=1e-14)
    assert expected > 1.01
    assert result["voltage_max_pu"].values[0, -1] == pytest.approx(expected, abs=2e-6)
    assert result["pv_power_kw"].values == pytest.approx(60.0)
    assert result["pv_reactive_kvar"].values[0, -1] == pytest.approx(drawn(expected)[0], abs=2e-3)
    assert result["pv_coupling_residual"].values.max() <= 1e-6
    assert result["pv_coupling_iterations"].values.max() > 1
    assert json.loads(result.attrs["unconverged_members"]) == {}


def test_pv_inverters_that_do_not_converge_are_named(two_buses):
    changes = {"feeder.pv": {"functions": {"volt_var": VOLT_VAR}}, "fleet.charger.functions": None}
    result = two_buses({"mode": "iterated", "most_iterations": 2}, pv_kw=60.0, changes=changes)
    unconverged = json.loads(result.attrs["unconverged_members"])
    assert unconverged["0"].startswith(
        "member 0: PV inverters and feeder did not converge in 2 iterations in "
    )
    assert result["pv_coupling_residual_worst"].values[0] > 1e-6


def test_taps_and_ageing_are_recorded_once(tmp_path, small_net):
    """What remembers (a tap changer, a transformer's heat) starts each iteration where the tick began."""
    net = small_net(False)
    net.load.loc[0, ["p_mw", "q_mvar"]] = 0.3, 0.1
    pp.to_json(net, str(tmp_path / "net.json"))
    (tmp_path / "sessions.csv").write_text(
        "ev,connection,arrival,departure,soc_arrival,capacity_kwh\n"
        "car,sym,2026-01-15T11:00,2026-01-16T20:00,0.2,2000\n"
    )
    content = {
        "name": "devices",
        "time": {"start": "2026-01-15T12:00", "duration": "20min", "step": "60s"},
        "feeder": {
            "network": str(tmp_path / "net.json"), "base_load": {"source": "net"},
            "tap_changers": [{"trafo": "T1", "target_pu": 1.04, "deadband_pu": 0.03, "delay": "90s"}],
            "transformer_ageing": {"ambient": 20},
        },
        "fleet": {
            "sessions": {"file": str(tmp_path / "sessions.csv")},
            "charger": {"power_kw": 22.0, "phases": 3, "apparent_kva": 25.0, "functions": {"trips": "II"}},
        },
    }  # fmt: skip
    iterated, lagged = (
        evgrid.run(scenario_from({**content, "coupling": mode})) for mode in ("iterated", "lagged")
    )
    assert iterated["trafo_operations"].values.max() > 0
    same(iterated, lagged, COUPLING)
    content["fleet"]["charger"]["functions"] = {"volt_var": "ieee_1547_b"}
    answering = evgrid.run(scenario_from({**content, "coupling": "iterated"}))
    assert answering["coupling_iterations"].values.max() > 2
    assert answering["coupling_residual"].values.max() <= 1e-6
    assert audit_of(answering)["hand_over_kw"] == 0.0
