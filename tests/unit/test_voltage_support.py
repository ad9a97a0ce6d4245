"""Coordinated voltage support: who is asked for what, worked by hand, and in coupled runs."""

import numpy as np
import pandapower as pp
import pytest

import evgrid
from evgrid.aggregator.strategies.voltage_kernels import hold_voltages
from evgrid.errors import ScenarioError
from evgrid.scenario import scenario_from
from evgrid.scenario.aggregators import STRATEGIES

# Two phases of one place: a kW on one lowers it by 0.002 pu and lifts the other by 0.0005; two EVs that
# are near (half of it) and two that are far, of each phase one. Places: near a, near b, far a, far b.
NEAR, FAR, LIFT = 0.001, 0.002, 0.25
DV_DP = np.array(
    [
        [-NEAR, LIFT * NEAR, -NEAR, LIFT * NEAR],
        [LIFT * NEAR, -NEAR, LIFT * NEAR, -NEAR],
        [-NEAR, LIFT * NEAR, -FAR, LIFT * FAR],
        [LIFT * NEAR, -NEAR, LIFT * FAR, -FAR],
    ]
)


def hold(voltage, power, want, low=0.94, high=1.06, floor=0.0, p_min=0.0, p_max=8.0, wait_s=3600.0):
    """One member with an EV at each place."""
    evs = len(want)
    each = [np.broadcast_to(np.asarray(x, float), evs).copy() for x in (want, floor, p_min, p_max, wait_s)]
    voltage = np.array([voltage])
    setpoint, held = hold_voltages(
        np.array([0, evs]), voltage, np.array([power], float), DV_DP[np.newaxis],
        np.zeros(1, np.int64), np.full_like(voltage, low),
        np.full_like(voltage, high), np.arange(evs), np.ones(evs, np.int64), *each, 60.0,
    )  # fmt: skip
    ahead = voltage[0] + DV_DP @ (setpoint - power)
    return setpoint, held[0], ahead


def test_within_the_limits_nobody_is_asked_for_anything():
    setpoint, held, _ = hold([0.96] * 4, [8] * 4, [8.0] * 4)
    assert setpoint.tolist() == [8] * 4
    assert not held.any()


def test_the_worst_place_is_relieved_by_the_ev_that_does_most_to_it():
    setpoint, held, ahead = hold([0.95, 0.95, 0.936, 0.95], [8] * 4, [8.0] * 4)
    assert setpoint == pytest.approx([8, 8, 8 - 0.004 / FAR, 8])
    assert held.tolist() == [False, False, True, False]
    assert ahead[2] == pytest.approx(0.94)


def test_a_prediction_counts_from_the_power_at_which_the_voltage_was():
    """Now 0.95 without EVs on phase a: all of them at once would be 0.95 - 8 (near + far) = 0.926."""
    setpoint, _, ahead = hold([0.95, 0.96, 0.95, 0.96], [0, 0, 0, 0], [8.0] * 4)
    free = np.array([0.95, 0.96, 0.95, 0.96]) + DV_DP @ np.full(4, 8.0)
    assert free.min() < 0.94
    assert ahead.min() == pytest.approx(0.94, abs=1e-6)
    assert setpoint[2] < 8


def test_who_has_little_time_comes_last():
    """The far EV does twice as much, but can wait less than half as long."""
    setpoint, _, _ = hold([0.95, 0.95, 0.938, 0.95], [8] * 4, [8.0] * 4, wait_s=[7200, 7200, 3000, 7200])
    assert setpoint == pytest.approx([8 - 0.002 / NEAR, 8, 8, 8])
    setpoint, _, _ = hold([0.95, 0.95, 0.938, 0.95], [8] * 4, [8.0] * 4, floor=[0, 0, 8, 0])
    assert setpoint == pytest.approx([8 - 0.002 / NEAR, 8, 8, 8]), "who must charge is not asked"


def test_all_charge_less_before_anybody_discharges():
    setpoint, _, ahead = hold([0.95, 0.95, 0.91, 0.96], [8] * 4, [8.0] * 4, p_min=-8.0)
    # 8 kW near and far lift it by 0.024, the other 0.006 come from discharge at the far end
    assert setpoint == pytest.approx([0, 8, -0.006 / FAR, 8])
    assert ahead[2] == pytest.approx(0.94)
    setpoint, held, ahead = hold([0.95, 0.95, 0.91, 0.96], [8] * 4, [8.0] * 4)
    assert setpoint == pytest.approx([0, 8, 0, 8])
    assert held[2]
    assert ahead[2] == pytest.approx(0.934), "what is left over stays"


def test_cuts_that_lower_the_other_phase_are_made_up_there():
    """Relieving phase a lowers phase b below its limit: both end at it, where the linear equations say."""
    setpoint, held, ahead = hold([1, 1, 0.93, 0.942], [8] * 4, [8.0] * 4)
    assert held[2:].all()
    cut = np.linalg.solve(DV_DP[2:, 2:], [0.01, -0.002])
    assert setpoint[2:] == pytest.approx(8 + cut, abs=1e-3)
    assert ahead[2:] == pytest.approx([0.94, 0.94], abs=1e-6)


def test_high_voltages_are_lowered_by_charging_more_who_needs_it_first():
    setpoint, _, ahead = hold([1.05, 1.05, 1.07, 1.05], [0] * 4, [0.0] * 4)
    assert setpoint == pytest.approx([0, 0, 0.01 / FAR, 0])
    setpoint, _, _ = hold([1.05, 1.05, 1.065, 1.05], [0] * 4, [0.0] * 4, wait_s=[600, 3600, 3600, 3600])
    assert setpoint == pytest.approx([0.005 / NEAR, 0, 0, 0])
    # the far place of phase a may not be lowered below its limit by what lowers the near one
    setpoint, _, ahead = hold([1.07, 1.0, 0.941, 1.0], [0] * 4, [0.0] * 4)
    assert ahead[2] == pytest.approx(0.94)
    assert ahead[0] > 1.06


def test_a_place_without_voltage_is_not_held():
    setpoint, held, _ = hold([0.95, 0.95, 0.0, 0.95], [0, 0, 0, 0], [4.0] * 4)
    assert setpoint.tolist() == [4] * 4
    assert not held.any()


def test_an_ev_upstream_of_the_feeder_is_left_alone():
    each = [np.array([8.0, 8.0]), np.zeros(2), np.zeros(2), np.full(2, 8.0), np.full(2, 3600.0)]
    setpoint, _ = hold_voltages(
        np.array([0, 2]), np.array([[0.95, 0.95, 0.93, 0.95]]), np.array([[0, 0, 8.0, 0]]),
        DV_DP[np.newaxis], np.zeros(1, np.int64),
        np.full((1, 4), 0.94), np.full((1, 4), 1.06), np.array([2, 4]), np.array([1, 0]), *each, 60.0,
    )  # fmt: skip
    assert setpoint == pytest.approx([8 - 0.01 / FAR, 8])


# ---- in a run ------------------------------------------------------------------------------------

STREET = {
    "name": "street",
    "time": {"start": "2026-01-15T16:00", "duration": "8h", "step": "5min"},
    "ensemble": {"members": 2, "seed": 7},
    "feeder": {"network": "european_lv", "base_load": {"source": "net"}},
    "fleet": {"penetration": 1.0, "charger": {"power_kw": 7.4, "phases": 1, "bidirectional": 1.0}},
    "communication": {"telemetry": "5min"},
}
LIMIT = 0.95


def run(*changes):
    overrides = {key: value for change in changes for key, value in change.items()}
    return evgrid.run(scenario_from(STREET, overrides))


def support(**settings):
    return {"aggregators.main": {"strategy": "voltage_support", "v_min_pu": LIMIT, **settings}}


@pytest.fixture(scope="module")
def uncontrolled():
    return run()


@pytest.fixture(scope="module")
def supported():
    return run(support())


def below(result):
    """pu · steps by which the lowest voltage is below the limit."""
    return float(np.maximum(LIMIT - result["voltage_min_pu"], 0).sum())


def unserved(result):
    return result["session_energy_unserved_kwh"].values[result["session_complete"].values]


def test_voltages_are_held_and_every_driver_is_served(uncontrolled, supported):
    assert float(uncontrolled["voltage_min_pu"].min()) < 0.92
    # an EV that has just been plugged in is seen a step later
    low = supported["voltage_min_pu"].transpose("member", "time").values < LIMIT - 1e-4
    assert low.mean() < 0.05
    assert not (low[:, 1:] & low[:, :-1]).any()
    assert below(supported) < 0.05 * below(uncontrolled)
    assert float(supported["voltage_support_reduced_kw"].max()) > 10
    np.testing.assert_allclose(unserved(supported), unserved(uncontrolled), atol=1e-6)


def test_where_charging_less_does_not_suffice_evs_discharge():
    """Without any EV the lowest voltage is 0.9935; charging on one phase alone lifts another to 1.009."""
    high = {"v_min_pu": 1.01, "hysteresis_pu": 0.0005}
    curtailed, discharged = run(support(discharge=False, **high)), run(support(**high))
    assert float(curtailed["session_energy_discharged_kwh"].sum()) == 0
    assert float(discharged["session_energy_discharged_kwh"].sum()) > 30
    late = {"time": slice("2026-01-15T20:00", None)}
    most, least = curtailed["voltage_min_pu"].sel(late).quantile(0.9), discharged["voltage_min_pu"].sel(late)
    assert float(most) < 1.0095 < float(least.quantile(0.1))
    np.testing.assert_allclose(unserved(discharged), unserved(curtailed), atol=1e-6)


def test_a_member_alone_is_the_same(supported):
    alone = run(support(), {"ensemble.members": 1, "ensemble.first": 1})
    for name in ("voltage_min_pu", "fleet_power_kw", "voltage_support_reduced_kw"):
        np.testing.assert_array_equal(alone[name].sel(member=1), supported[name].sel(member=1))


def test_several_aggregators_share_what_there_is_to_do(supported):
    half = {"strategy": "voltage_support", "v_min_pu": LIMIT, "evs": {"share": 0.5}}
    shared = run({"aggregators": {"one": half, "two": half}})
    assert below(shared) < 2 * below(supported) + 0.01
    swings = [float(abs(r["fleet_power_kw"].diff("time")).mean()) for r in (shared, supported)]
    assert swings[0] < 1.2 * swings[1]


def test_a_slower_feeder_and_late_set_points_are_no_reason_to_swing():
    """Set-points are absolute, so what is not yet done is not asked for again."""
    result = run(
        support(discharge=False),
        {"time": {"start": "2026-01-15T16:00", "duration": "5h", "step": "60s"}, "feeder.step": "5min",
         "communication": {"delay": "120s", "telemetry": "60s"}},
    )  # fmt: skip
    reduced = result["voltage_support_reduced_kw"].transpose("member", "time").values[1]
    busy = reduced > 1
    assert busy.mean() > 0.2
    assert np.median(np.abs(np.diff(reduced))[busy[1:] & busy[:-1]]) < 1


def test_surplus_is_charged_where_the_voltage_is_high(tmp_path):
    net = pp.create_empty_network(f_hz=50)
    a, b = pp.create_bus(net, 0.4, name="a"), pp.create_bus(net, 0.4, name="b")
    pp.create_ext_grid(net, a, vm_pu=1.04)
    pp.create_line_from_parameters(net, a, b, 1.0, 0.2, 0.08, 0.0, 0.3)
    pp.create_load(net, b, 0.001, name="house")
    pp.create_sgen(net, b, 0.05)
    pp.to_json(net, str(tmp_path / "pv.json"))
    rows = [f"ev{k},house,300,{3600 * 8},0.2,60,11" for k in range(4)]
    table = ["ev,connection,arrival,departure,soc_arrival,capacity_kwh,charge_kw", *rows]
    (tmp_path / "sessions.csv").write_text("\n".join(table))
    content = {
        "name": "pv",
        "time": {"start": "2026-07-01T10:00", "duration": "2h", "step": "5min"},
        "feeder": {"network": "pv.json", "base_load": {"source": "net"}},
        "fleet": {"sessions": {"file": "sessions.csv"}, "charger": {"phases": 3, "power_kw": 11}},
        "communication": {"telemetry": "5min"},
        "aggregators": {"main": {"strategy": "voltage_support", "pace": "even", "v_max_pu": 1.06}},
    }
    held = evgrid.run(scenario_from(content, folder=tmp_path))
    wide = evgrid.run(scenario_from(content, {"aggregators.main.v_max_pu": 1.2}, folder=tmp_path))
    assert float(wide["voltage_max_pu"].isel(time=-1).item()) > 1.065
    assert held["voltage_max_pu"].isel(time=-1).item() == pytest.approx(1.06, abs=1e-4)
    assert float(held["voltage_support_raised_kw"].max()) > 1


def test_a_band_without_width_is_refused():
    with pytest.raises(
        ScenarioError,
        match=r"aggregators.main: v_min_pu = 1.08 with hysteresis_pu = 0.002: must be below v_max",
    ):
        scenario_from(STREET, support(v_min_pu=1.08))


# ---- in an outage --------------------------------------------------------------------------------


@pytest.fixture
def two_ends(tmp_path):
    """EVs at two ends behind a common cable. That at A has the greater effect on A, where 40 kW are drawn;
    that at B can wait longer, so that it is asked first.
    """
    net = pp.create_empty_network(f_hz=50)
    head, corner, *ends = (pp.create_bus(net, 0.4, name=name) for name in ("head", "corner", "A", "B"))
    pp.create_ext_grid(net, head)
    for name, a, b in (("main", head, corner), ("LA", corner, ends[0]), ("LB", corner, ends[1])):
        pp.create_line_from_parameters(net, a, b, 1.0, 0.1, 0.03, 0.0, 0.3, name=name)
    pp.create_line_from_parameters(net, corner, ends[0], 1.0, 0.1, 0.03, 0.0, 0.3, name="LA2")
    pp.create_load(net, ends[0], 0.04, name="A")
    pp.create_load(net, ends[1], 0.001, name="B")
    pp.to_json(net, str(tmp_path / "ends.json"))
    (tmp_path / "sessions.csv").write_text(
        "ev,connection,arrival,departure,soc_arrival,soc_target,soc_floor,capacity_kwh,charge_kw,discharge_kw\n"
        "a,A,0,28800,0.6,0.7,0.1,100,11,11\nb,B,0,86400,0.6,0.7,0.1,100,11,11\n"
    )

    def run(*out, strategy="voltage_support", **settings):
        content = {
            "name": "ends",
            "time": {"start": "2026-01-15T12:00", "duration": "90min", "step": "1min"},
            "feeder": {"network": "ends.json", "base_load": {"source": "net"}},
            "fleet": {"sessions": {"file": "sessions.csv"}, "charger": {"phases": 3, "bidirectional": 1.0}},
            "communication": {"telemetry": "30min"},
            "aggregators": {"main": {"strategy": strategy, **settings}},
            "outages": [{"start": "31min", "duration": "28min", "out": name} for name in out] or None,
            "record": {"ev": True},
        }
        return evgrid.run(scenario_from(content, folder=tmp_path))

    return run


def test_a_low_place_is_relieved_by_live_evs_though_a_dead_one_could_wait_longer(two_ends):
    """The chargers report at minutes 30 and 60: that B is dead is known from its voltage alone, after one
    tick.
    """
    limit = {"v_min_pu": 0.968, "hysteresis_pu": 0.0}
    plain, result = two_ends(**limit), two_ends("line LB", **limit)
    kw, dead = result["ev_power_kw"].transpose("ev", "time").values, slice(31, 59)
    before = plain["ev_power_kw"].transpose("ev", "time").values
    assert (before[1, 31:59] < -1).all(), "with supply the EV at B discharges"
    assert not kw[1, dead].any()
    volts = result["voltage_pu"].sel(bus="A").values.ravel()
    assert volts[33:59] == pytest.approx(0.968, abs=2e-4)
    assert (kw[0, 33:59] < -1).all()


class Spy(evgrid.Strategy):
    """Charges as fast as it can, and notes the effect of A on itself."""

    uses_voltage = True
    seen: list[float] = []

    def setpoints(self, view):
        """See the base class."""
        found = view.sensitivities[view.network[0]]
        self.seen.append(float(found.dv_dp[0, 0, 0, 0]))
        return np.full(len(view.soc), np.inf)


def test_the_network_is_known_with_the_voltages_and_not_before(two_ends, monkeypatch):
    """One of two parallel cables is out from minute 31 to 59: no voltage is 0. The feeder solves the step of
    minute 31 without it, which is seen at minute 32.
    """
    monkeypatch.setitem(STRATEGIES._found, "spy", Spy)
    Spy.seen = []
    two_ends("line LA2", strategy="spy")
    effect = np.array(Spy.seen)
    assert len(set(effect[:32]) | set(effect[60:])) == 1
    assert len(set(effect[32:60])) == 1
    assert effect[32] < 1.2 * effect[0] < 0
