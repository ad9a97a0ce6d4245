"""The fleet model and its kernels. Expected values are worked by hand, beside each test.

The battery of most tests: 60 kWh, 7.2 kW, lossless, taper above 0.8. At full power 0.12 SOC an
hour; along the taper 1 - SOC falls with exp(-0.6 t/h); the taper ends at 0.36 kW and SOC 0.99.
"""

import math

import numpy as np
import pytest
from scipy.integrate import solve_ivp
from tests.support.fleet import HOUR, INF, Run, car, feeder

from evgrid.battery import laws
from evgrid.core.model import ALL_PHASES, MemoryRecorder
from evgrid.errors import StrategyError
from evgrid.fleet.model import FleetModel
from evgrid.fleet.sessions import fleet_tables, no_fleet
from evgrid.scenario import scenario_from


@pytest.mark.parametrize("step", [1.0, 60.0, 900.0])
@pytest.mark.parametrize(("hours", "soc"), [(2.5, 0.8), (3.0, 0.851836)])
def test_two_stage_charging_reference(step, hours, soc):
    run = Run([car()], step=step, hours=hours)
    exact = 0.8 if hours == 2.5 else 1 - 0.2 * math.exp(-0.3)
    assert exact == pytest.approx(soc, abs=5e-7)
    assert run["session_soc_departure"][0] == pytest.approx(exact, abs=1e-9)
    # The power at that moment: 7.2 kW exp(-0.3) = 5.3339 kW; the tick's is the mean over it.
    now = 7.2 if hours == 2.5 else 7.2 * math.exp(-0.3)
    decay = 0.6 / HOUR if hours == 3.0 else 0.0
    mean = now * math.expm1(decay * step) / (decay * step) if decay else now
    assert run.power[-1] == pytest.approx(mean, rel=1e-9)
    if hours == 3.0:
        assert now == pytest.approx(5.3339, abs=5e-5)


@pytest.mark.parametrize("step", [60.0, 900.0])
def test_full_battery_is_reached_in_finite_time_and_charging_stops(step):
    # 2.5 h at full power, ln(20)/0.6 h along the taper, 0.6 kWh at 0.36 kW.
    hours = 2.5 + math.log(20) / 0.6 + 0.6 / 0.36
    assert hours == pytest.approx(9.15955, abs=1e-5)
    run = Run([car()], step=step, hours=12)
    assert run["session_soc_departure"][0] == 1.0
    assert run["session_energy_delivered_kwh"][0] == pytest.approx(30.0, rel=1e-12)
    last = int(hours * HOUR // step)
    assert np.all(run.power[last + 1 :] == 0.0)
    assert run.power[last] == pytest.approx(0.36 * (hours * HOUR / step - last), rel=1e-9)


def test_charging_under_a_set_point_tapers_where_the_limit_falls_below_it():
    # Half of the power is the limit at SOC 0.9, reached after 24 kWh / 3.6 kW = 6.6667 h.
    run = Run([car()], step=900.0, hours=8, setpoint=3.6)
    left = 8 - 24 / 3.6
    assert run["session_soc_departure"][0] == pytest.approx(1 - 0.1 * math.exp(-0.6 * left), abs=1e-12)


def test_set_point_below_the_cut_off_never_tapers():
    run = Run([car(soc=0.95)], step=900.0, hours=10, setpoint=0.3)  # 3 kWh at 0.3 kW: 10 h
    assert run.power == pytest.approx(np.full(40, 0.3))
    assert run["session_soc_departure"][0] == pytest.approx(1.0, abs=1e-12)  # as far as 40 sums are exact


@pytest.mark.parametrize("setpoint", [7.2, 50.0, INF])
def test_set_points_beyond_the_limit_charge_at_it(setpoint):
    assert Run([car()], step=60.0, hours=1, setpoint=setpoint).power == pytest.approx(np.full(60, 7.2))


@pytest.mark.parametrize("setpoint", [3.0, 7.2, INF])
def test_nothing_is_drawn_at_or_above_the_target(setpoint):
    run = Run([car(soc=0.9, target=0.9)], [car(soc=0.95, target=0.9)], step=60.0, hours=1, setpoint=setpoint)
    assert np.all(run.p == 0.0)
    assert list(run["session_soc_departure"]) == [0.9, 0.95]


@pytest.mark.parametrize("step", [1.0, 60.0, 900.0])
def test_guard_starts_at_the_right_second_and_keeps_the_departure(step):
    # From 0.5 to 0.7: 12 kWh at 7.2 kW take 6,000 s; departure at 10,000 s; so it starts at 4,000 s.
    run = Run([car(departure=10_000.0, target=0.7)], step=step, hours=3, setpoint=0.0)
    start, end = 4000.0, 10_000.0
    ticks = np.arange(len(run.power)) * step
    overlap = np.clip(np.minimum(ticks + step, end) - np.maximum(ticks, start), 0, None)
    assert run.power == pytest.approx(7.2 * overlap / step, abs=1e-8)
    assert run["session_soc_departure"][0] == 0.7
    assert run["session_energy_unserved_kwh"][0] == 0.0


@pytest.mark.parametrize("step", [60.0, 300.0, 900.0])
def test_guard_with_a_taper_waits_as_long_as_possible(step):
    # From 0.85 to 0.95: ln(3)/0.6 h.
    needed = math.log(3) / 0.6 * HOUR
    run = Run([car(departure=5 * HOUR, soc=0.85, target=0.95)], step=step, hours=6, setpoint=0.0)
    first = int((5 * HOUR - needed) // step)
    assert np.all(run.power[:first] == 0.0)
    assert run.power[first] > 0.0
    assert run["session_soc_departure"][0] == 0.95


@pytest.mark.parametrize("step", [60.0, 900.0])
def test_discharge_is_stopped_by_the_guard_in_time_to_charge_again(step):
    # Lossless, down and up at 7.2 kW, departure after 5 h with what it came with: 2.5 h down, 2.5 h up.
    run = Run([car(departure=5 * HOUR, soc=0.7, target=0.7, discharge_kw=7.2)], step=step, hours=5,
              setpoint=-INF)  # fmt: skip
    half = round(2.5 * HOUR / step)
    assert run.power == pytest.approx(np.repeat([-7.2, 7.2], half), abs=1e-8)
    assert run["session_soc_departure"][0] == 0.7
    assert run["session_energy_discharged_kwh"][0] == pytest.approx(18.0)


@pytest.mark.parametrize("step", [60.0, 900.0])
def test_discharge_stops_at_the_floor(step):
    # 7.2 kW to the grid at efficiency 0.9 are 8 kW from the battery: 18 kWh last 2.25 h, give 16.2.
    session = car(target=0.3, soc_floor=0.2, discharge_kw=7.2, discharge_loss=(0.0, 0.1, 0.0))
    run = Run([session], step=step, hours=3, setpoint=-10.0)
    assert run["session_soc_departure"][0] == 0.2
    assert run["session_energy_discharged_kwh"][0] == pytest.approx(16.2, rel=1e-12)
    assert run["session_loss_kwh"][0] == pytest.approx(1.8, rel=1e-12)
    assert run["session_battery_energy_kwh"][0] == pytest.approx(-18.0, rel=1e-12)
    assert run.power[0] == pytest.approx(-7.2)
    assert run.power[-1] == 0.0


def test_a_session_that_may_not_discharge_waits():
    run = Run([car(target=0.6)], step=60.0, hours=1, setpoint=-5.0)
    assert np.all(run.p == 0.0)


def test_target_out_of_reach_charges_as_fast_as_possible():
    run = Run([car(departure=HOUR)], step=900.0, hours=2, setpoint=-5.0)
    assert run.power == pytest.approx([7.2] * 4 + [0.0] * 4)
    # Missing: 30 - 7.2 kWh.
    assert run["session_energy_unserved_kwh"][0] == pytest.approx(22.8)
    assert run["session_energy_requested_kwh"][0] == pytest.approx(30.0)


def test_arrival_and_departure_within_a_tick_are_exact():
    run = Run([car(arrival=100.0, departure=1900.5)], step=900.0, hours=1)
    assert run.power == pytest.approx([7.2 * 800 / 900, 7.2, 7.2 * 100.5 / 900, 0.0])
    assert run.recorder.series("plugged")[:, 0] == pytest.approx([800 / 900, 1.0, 100.5 / 900, 0.0])


def test_three_sessions_in_one_tick():
    sessions = [
        car(arrival=t, departure=t + 100.0, soc=soc) for t, soc in ((50, 0.1), (150, 0.2), (400, 0.3))
    ]
    run = Run(sessions, step=900.0, hours=1)
    assert run.power == pytest.approx([7.2 / 3, 0, 0, 0])
    assert run["session_energy_delivered_kwh"] == pytest.approx([0.2, 0.2, 0.2])
    assert run["session_soc_departure"] == pytest.approx(np.array([0.1, 0.2, 0.3]) + 0.2 / 60)


def test_departure_on_a_tick_is_complete_and_one_after_the_end_is_not():
    run = Run([car(departure=HOUR)], [car(departure=HOUR + 0.001)], step=900.0, hours=1)
    unserved = run["session_energy_unserved_kwh"]
    assert unserved[0] == pytest.approx(22.8)
    assert np.isnan(unserved[1])


@pytest.mark.parametrize("loss", [(0.0, 0.1, 0.0), (0.0664, 0.0356, 2.24e-3), (0.1, 0.0, 1e-12)])
@pytest.mark.parametrize("grid_kw", [0.2, 3.7, 11.0])
def test_inverse_of_the_loss(loss, grid_kw):
    a, b, c = loss
    into = laws.battery_kw_drawn(grid_kw, a, b, c)
    assert into + a + b * into + c * into**2 == pytest.approx(grid_kw, rel=1e-14)
    out = laws.battery_kw_given(grid_kw, a, b, c)
    assert out - (a + b * out + c * out**2) == pytest.approx(grid_kw, rel=1e-14)


def test_inverse_of_the_loss_at_its_limits():
    assert laws.battery_kw_drawn(0.05, 0.0664, 0.0, 0.0) == 0.0  # the converter eats it all
    assert laws.battery_kw_given(0.0, 0.0664, 0.0, 0.0) == 0.0
    assert laws.battery_kw_drawn(7.2, 0.0, 0.25, 0.0) == 7.2 / 1.25  # exact without c
    # Pb - 0.05 Pb² has its maximum, 5 kW, at 10 kW.
    assert laws.battery_kw_given(50.0, 0.0, 0.0, 0.05) == pytest.approx(10.0)


def test_energies_with_a_quadratic_loss_match_a_fine_integration():
    loss = (0.0664, 0.0356, 2.24e-3)
    session = car(soc=0.6, charge=11.0, charge_loss=loss)
    run = Run([session], step=900.0, hours=5)
    full = laws.battery_kw_drawn(11.0, *loss)

    def rates(_, state):
        power = full * max(min(1.0, (1 - state[0]) / 0.2), 0.05)
        lost = loss[0] + loss[1] * power + loss[2] * power**2
        return [power / 60, power + lost, lost]

    exact = solve_ivp(rates, (0, 5), [0.6, 0, 0], rtol=1e-10, atol=1e-12, max_step=0.01).y[:, -1]
    names = "session_soc_departure", "session_energy_delivered_kwh", "session_loss_kwh"
    assert 0.99 < exact[0] < 1  # through all three stages
    assert np.array([run[name][0] for name in names]) == pytest.approx(exact, rel=1e-6)


def test_guard_from_a_set_point_in_the_taper_matches_a_root_search():
    # At 1 kW from 0.82; departure such that laxity ends in the taper. Worked with scipy's brentq.
    from scipy.optimize import brentq

    def needed(soc):
        return math.log((1 - soc) / 0.05) / 0.6

    departure = needed(0.82) + 0.4
    start = brentq(lambda t: departure - t - needed(0.82 + t / 60), 0, 3, xtol=1e-14)
    run = Run([car(departure=departure * HOUR, soc=0.82, target=0.95)], step=900.0, hours=3, setpoint=1.0)
    tick = int(start * 4)
    assert run.power[:tick] == pytest.approx(np.ones(tick))
    high = 7.2 / 0.2 * (1 - 0.82 - start / 60)
    rest = (tick + 1) / 4 - start
    energy = (start - tick / 4) * 1.0 + high * -math.expm1(-0.6 * rest) / 0.6
    assert run.power[tick] == pytest.approx(energy * 4, rel=1e-10)
    assert run["session_soc_departure"][0] == 0.95


def test_power_goes_to_the_phases_of_the_charger():
    own, all_three = [car()], [car(charge=9.0)]
    run = Run(own, own, all_three, step=60.0, hours=1, phase=(2, 1, ALL_PHASES),
              connections=feeder(of=(2, 1, ALL_PHASES)))  # fmt: skip
    assert run.p[0, 0] == pytest.approx(np.array([[0, 0, 7.2], [0, 7.2, 0], [3, 3, 3]]))


def test_balanced_feeder_carries_the_sum_in_its_only_slot():
    run = Run([car()], [car(charge=9.0)], step=60.0, hours=1, phase=(ALL_PHASES,) * 2,
              connections=feeder(("abc",), (ALL_PHASES, ALL_PHASES)))  # fmt: skip
    assert run.p.shape == (60, 1, 2, 1)
    assert run.p[0, 0, :, 0] == pytest.approx([7.2, 9.0])


def test_managed_ev_without_a_command_waits_and_an_unmanaged_one_charges():
    assert np.all(Run([car(target=0.6)], step=60.0, hours=1, setpoint=0.0).p == 0.0)
    assert np.all(Run([car(target=0.6)], step=60.0, hours=0.5).power == 7.2)


def test_status_at_the_end_of_the_tick():
    stays = car(departure=10 * HOUR, target=0.9, soc_floor=0.2, discharge_kw=5.0,
                charge_loss=(0.0, 0.25, 0.0))  # fmt: skip
    gone = car(departure=1000.0)
    late = car(arrival=HOUR, departure=2 * HOUR)
    run = Run([stays], [gone], [late], step=900.0, hours=1, setpoint=3.6,
              extra={"communication": {"telemetry": 1800}})  # fmt: skip
    assert len(run.reports) == 2  # at 1800 s and at 3600 s
    report = run.reports[-1]
    # 3.6 kW for an hour, 2.88 of them into the battery: SOC 0.548. To 0.9: 21.12 kWh, 26.4 at the meter.
    soc = 0.5 + 2.88 / 60
    # 5.76 kW into the battery: 0.096 SOC an hour to 0.8, then ln(2) / (0.096 / 0.2) h.
    needed = (0.8 - soc) / 0.096 + math.log(2) / 0.48
    expected = {
        "plugged": 1, "soc": soc, "p_max": 7.2, "p_min": -5.0, "energy_needed": 26.4,
        "time_left": 9 * HOUR, "time_needed": needed * HOUR,
    }  # fmt: skip
    for name, value in expected.items():
        assert report[f"fleet/{name}"] == pytest.approx([value, 0, 0]), name


def test_status_of_a_satisfied_ev_and_of_one_under_guard():
    full = car(soc=0.9, target=0.9, departure=2 * HOUR, discharge_kw=5.0)
    rush = car(departure=2 * HOUR, discharge_kw=5.0)
    report = Run([full], [rush], step=60.0, hours=1, setpoint=0.0).reports[-1]
    assert list(report["fleet/p_max"]) == [0.0, 7.2]
    assert list(report["fleet/p_min"]) == [-5.0, 0.0]
    assert report["fleet/time_needed"][0] == 0.0


def test_session_costs_follow_the_tariff_of_each_tick():
    session = car(arrival=1000.0, departure=4.1 * HOUR, soc=0.3, target=0.4, discharge_kw=3.0)

    def setpoint(time_s):
        return 6.0 if time_s < 2 * HOUR else -3.0

    run = Run([session], step=900.0, hours=5, setpoint=setpoint, extra={"tariff": "pge_ev2a"})
    drawn, given = run.scenario.prices.means(np.arange(21) * 900.0)
    cost = np.sum(np.where(run.power > 0, drawn, given) * run.power * 0.25)
    assert run["session_energy_discharged_kwh"][0] > 1
    assert run["session_cost"][0] == pytest.approx(cost, rel=1e-9)
    assert np.isnan(Run([session], step=900.0, hours=1)["session_cost"][0])


@pytest.mark.parametrize("power_kw", [4.0, -4.0])
@pytest.mark.parametrize("step", [60.0, 420.0, 900.0, 3600.0])
def test_a_cost_is_the_integral_of_price_times_power_at_any_tick(step, power_kw):
    """4 kW for 7 h from midnight: 37 min at 0.10, 4 h 53 min at -0.20, 90 min at 0.40; credits alike."""
    hours = [{"name": "night", "hours": [["00:37", "5:30"]], "price_per_kwh": -0.2},
             {"name": "late", "hours": [["22:00", "00:37"]], "price_per_kwh": 0.1},
             {"name": "day", "price_per_kwh": 0.4}]  # fmt: skip
    tariff = {"name": "t", "seasons": [{"name": "all", "months": list(range(1, 13)), "periods": hours}]}
    session = car(departure=48 * HOUR, capacity=200.0, charge=11.0, discharge_kw=7.0, soc_floor=0.0)
    time = {"start": "2026-07-01T00:00", "duration": 7 * HOUR, "step": step}
    run = Run([session], step=step, hours=7, setpoint=power_kw, extra={"tariff": tariff, "time": time})
    expected = power_kw * (37 / 60 * 0.1 - 293 / 60 * 0.2 + 1.5 * 0.4)
    assert run["session_cost"][0] == pytest.approx(expected, rel=1e-9)


def test_recording_of_every_ev():
    run = Run([car(arrival=1000.0, departure=2000.0)], [car()], step=900.0, hours=1,
              extra={"record": {"ev": True}})  # fmt: skip
    power, soc = run.recorder.series("ev_power_kw"), run.recorder.series("ev_soc")
    assert power[:, 0] == pytest.approx([0, 7.2 * 800 / 900, 7.2 * 200 / 900, 0])
    assert np.isnan(soc[[0, 2, 3], 0]).all()
    assert soc[1, 0] == pytest.approx(0.5 + 0.12 * 800 / 3600)
    assert power.sum(axis=1) == pytest.approx(run.recorder.series("fleet_power_kw")[:, 0])


def test_audit_balances_and_names_what_the_feeder_got():
    v2g = car(soc=0.7, target=0.8, discharge_kw=7.0, charge_loss=(0.05, 0.1, 0.002),
              discharge_loss=(0.05, 0.1, 0.002), departure=9 * HOUR)  # fmt: skip
    run = Run([v2g], [car()], step=300.0, hours=12, members=(0, 1), connections=feeder(of=(0,)),
              setpoint=lambda t: 5.0 if t // HOUR % 2 else -4.0,
              extra={"feeder": {"network": "x", "step": 900}})  # fmt: skip
    audit = run.model.audit()
    gap = audit["grid_energy_kwh"] - audit["battery_energy_kwh"] - audit["loss_kwh"]
    assert gap == pytest.approx(np.zeros(2), abs=1e-10)
    assert audit["loss_kwh"][0] > 1
    assert list(audit["power_given_kw_sum"]) == list(run.p[::3].sum(axis=(2, 3)).sum(axis=0))


def test_nan_set_point_names_ev_and_member():
    with pytest.raises(
        StrategyError, match=r"setpoint is NaN for EV ev1 of member 0 at 0 s \(1 of 2 EVs\): must be a power"
    ):
        Run([car()], [car()], step=60.0, hours=1, setpoint=[0.0, np.nan])


def test_a_fleet_without_evs_runs():
    scenario = scenario_from({"name": "x", "time": {"start": "2026-01-15T12:00", "duration": 3600},
                              "feeder": {"network": "x"}, "fleet": {"count": 0}})  # fmt: skip
    for evs, sessions in (no_fleet(), fleet_tables(scenario, feeder())):
        recorder = MemoryRecorder()
        model = FleetModel(scenario, feeder(), evs, sessions, recorder, managed=False)
        assert np.all(model.step(0.0, {})["fleet/p"] == 0.0)
        model.finish()
        assert recorder.static["session_cost"].shape == (0,)
        assert list(model.audit()["grid_energy_kwh"]) == [0.0]


def test_every_declared_variable_is_recorded_with_its_shape():
    run = Run([car()], step=60.0, hours=1, extra={"record": {"ev": True}})
    for variable in run.model.variables:
        if variable.timed:
            assert run.recorder.series(variable.name).shape == (60, 1)
        else:
            assert run.recorder.static[variable.name].shape == (1,) * len(variable.dims)


def test_cores_do_not_change_a_number(monkeypatch):
    """Parts for threads, in the middle of members and of EVs that arrive, leave and come again."""
    rng = np.random.default_rng(3)
    evs = []
    for _ in range(300):
        times = np.sort(rng.uniform(0, 6 * HOUR, 4))
        evs.append(
            [
                car(begin, end, soc, discharge_kw=7.2, soc_floor=0.1)
                for (begin, end), soc in zip(times.reshape(2, 2), rng.uniform(0.2, 0.9, 2), strict=True)
            ]
        )
    members = np.arange(300) // 100
    asked = rng.uniform(-8.0, 8.0, (24, 300))

    def run():
        return Run(
            *evs, step=900.0, hours=6, setpoint=lambda t: asked[int(t // 900)], connections=feeder(),
            phase=np.tile([0, 1, ALL_PHASES], 100), members=list(members),
        )  # fmt: skip

    alone = run()
    monkeypatch.setattr("evgrid.core.jit._LEAST", 16)
    monkeypatch.setattr("evgrid.core.jit.THREADS", 3)
    parted = run()
    assert np.array_equal(np.array(alone.p), np.array(parted.p))
    for name, values in alone.recorder.static.items():
        assert np.array_equal(values, parted[name], equal_nan=True), name
    assert np.abs(alone.p).max() > 5.0
