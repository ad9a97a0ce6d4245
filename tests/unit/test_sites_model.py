"""Sites behind a meter, by hand: homes, outages, islands, limits, off grid."""

import numpy as np
import pytest
from tests.support.fleet import HOUR, car
from tests.support.sites import INSTANT, SiteRun, home

LOSS = {"discharge_loss": (0.0, 0.1, 0.0)}
TRUCK = {"capacity": 131.0, "charge": 9.6, "discharge_kw": 9.6, "soc_floor": 0.2, "target": 1.0, **LOSS}
SURE = 1e-6


def truck(arrival_h=0.0, departure_h=1000.0, soc=1.0, **rest):
    return [car(arrival_h * HOUR, departure_h * HOUR, soc, **(TRUCK | rest))]


@pytest.mark.parametrize("step", [60.0, 900.0, 3600.0])
def test_a_truck_carries_a_flat_load_as_long_as_its_energy_lasts(step):
    run = SiteRun(
        home(
            [truck()], load=1.25, outages=[(0, 80)], backup="whole", critical={"share": 1.0}, island=INSTANT,
        ),
        step=step, hours=80,
    )  # fmt: skip
    lasts_h = 131.0 * 0.8 * 0.9 / 1.25
    assert lasts_h == pytest.approx(75.456)
    assert run.total("unmet_h") == pytest.approx(80 - lasts_h, abs=SURE)
    assert run.total("served_kwh") == pytest.approx(1.25 * lasts_h, abs=SURE)
    assert run.total("critical_unserved_kwh") == pytest.approx(1.25 * (80 - lasts_h), abs=SURE)
    assert run.session("soc_departure")[0] == pytest.approx(0.2, abs=1e-12)
    assert run.session("energy_discharged_kwh")[0] == pytest.approx(131.0 * 0.8 * 0.9, abs=SURE)
    assert run.total("interruptions") == 1
    assert run.total("dead_kwh") == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("step", [1.0, 60.0, 900.0])
def test_the_sequence_of_an_outage(step):
    begin_h, end_h = 100.0 / 3600, 1900.0 / 3600
    run = SiteRun(
        home(
            [truck(soc=0.6, target=0.6)], load=2.0, outages=[(begin_h, end_h)], backup="whole",
            island={"detection": 2, "black_start": 10, "return_wait": 300, "ramp": 300},
            control="self_consumption",
        ),
        step=step, hours=1,
    )  # fmt: skip
    # the truck feeds the house up to the outage, then in the island to 300 s after the grid's return, and
    # then, as far as the ramp allows (stairs of 0.96 kW at the middle of each tenth of 300 s), the house
    ramp_kws = sum(min(2.0, 9.6 * (k + 0.5) / 10) for k in range(10)) * 30.0
    after_s = 3600.0 - 1900.0 - 300.0 - 300.0
    truck_kws = 2.0 * 100 + 2.0 * (1800 - 12 + 300) + ramp_kws + 2.0 * after_s
    assert run.total("ev_out_kwh") == pytest.approx(truck_kws / 3600, abs=SURE)
    assert run.total("unserved_kwh") == pytest.approx(2.0 * 12 / 3600, abs=SURE)
    assert run.total("imported_kwh") == pytest.approx((600.0 - ramp_kws) / 3600, abs=SURE)
    assert run.total("interruptions") == 0
    assert run.series("island").sum() * step == pytest.approx(1800 - 12 + 300, abs=1e-6)


def test_critical_load_first_then_in_order_and_never_in_parts():
    circuits = {
        "medicine": {"share": 0.2, "critical": True},
        "light": {"share": 0.3, "order": 1},
        "oven": {"share": 0.5, "order": 2},
    }
    for load, served in ((8.0, 8.0), (10.0, 5.0), (16.0, 8.0), (30.0, 6.0), (50.0, 0.0)):
        run = SiteRun(
            home([truck()], load=load, outages=[(0, 1)], backup="whole", circuits=circuits, island=INSTANT),
            step=60.0, hours=1,
        )  # fmt: skip
        assert run.total("served_kwh") == pytest.approx(served), load
        assert run.total("critical_unserved_kwh") == pytest.approx(10.0 if load == 50 else 0.0)


@pytest.mark.parametrize(
    ("limit", "served"), [({"kva": 5.0}, 3.0), ({"load_step_kw": 3.0}, 3.0), ({"kva": 8.0}, 7.0), ({}, 7.0)]
)
def test_what_forms_an_island_limits_it(limit, served):
    circuits = {"light": {"share": 3 / 7, "critical": True}, "oven": {"share": 4 / 7}}
    run = SiteRun(
        home(
            [truck()], load=7.0, outages=[(0, 1)], backup="whole", circuits=circuits, island=INSTANT | limit,
        ),
        step=900.0, hours=1,
    )  # fmt: skip
    # 8 kVA are 7.6 kW at the power factor of the load, 0.95
    assert run.total("served_kwh") == pytest.approx(served)


def test_critical_backup_leaves_the_rest_without_supply():
    run = SiteRun(
        home(
            [truck()], load=4.0, outages=[(0, 1)], backup="critical", critical={"share": 0.25},
            island=INSTANT,
        ),
        step=900.0, hours=1,
    )  # fmt: skip
    assert run.total("served_kwh") == pytest.approx(1.0)
    assert run.total("unserved_kwh") == pytest.approx(3.0)
    assert run.total("unmet_h") == 0.0


def test_without_backup_nothing_flows_and_the_evs_wait_after_the_return():
    run = SiteRun(
        home([truck(soc=0.3, departure_h=4)], load=1.0, outages=[(0, 1)]), step=900.0, hours=2,
    )  # fmt: skip
    assert run.total("served_kwh") == pytest.approx(1.0)
    assert run.total("unserved_kwh") == pytest.approx(1.0)
    # 300 s of waiting, then a ramp of 300 s that gives half, then full power
    assert run.total("ev_in_kwh") == pytest.approx(9.6 * (3600 - 300 - 150) / 3600)
    assert run.total("dead_kwh") == pytest.approx(0.0, abs=1e-12)


def test_pv_battery_generator_and_evs_follow_each_other():
    run = SiteRun(
        home(
            [truck(arrival_h=4.0, departure_h=6.0, soc=0.9, charge_loss=(0.0, 0.0, 0.0))], load=2.0,
            pv=([0, 1, 2], [0.0, 5.0, 0.0]), outages=[(0, 20)], backup="whole", critical={"share": 1.0},
            battery={"capacity_kwh": 10.0, "charge_kw": 2.5, "discharge_kw": 4.0, "soc_start": 0.5,
                     "soc_min": 0.1, "charge_efficiency": 0.8, "discharge_efficiency": 0.5},
            generator={"power_kw": 3.0, "fuel_kwh": 5.0, "start": 10}, island=INSTANT,
        ),
        step=3600.0, hours=20,
    )  # fmt: skip
    # hour 0: 2 kWh from the battery (4 kWh out of it): 5 -> 1 kWh, its floor
    # hour 1: PV 5 kW: 2 to the load, 2.5 to the battery (2 kWh in), 0.5 curtailed
    # hours 2, 3: battery 1 kWh (of 2), then generator 3 kWh up to the 4th hour
    # hours 4, 5: truck 4 kWh; then generator for 1 h (2 kWh left); then nothing
    assert run.total("battery_out_kwh") == pytest.approx(3.0)
    assert run.total("battery_in_kwh") == pytest.approx(2.5)
    assert run.total("pv_kwh") == pytest.approx(4.5)
    assert run.total("pv_curtailed_kwh") == pytest.approx(0.5)
    assert run.total("ev_out_kwh") == pytest.approx(4.0)
    assert run.total("generated_kwh") == pytest.approx(5.0)
    assert run.total("unmet_h") == pytest.approx(13.0)


def test_an_island_starts_again_when_its_truck_comes_home():
    island = {"detection": 2, "black_start": 30, "return_wait": 300, "ramp": 0}
    run = SiteRun(
        home(
            [truck(0.0, 1.0, soc=0.9) + truck(2.0, 3.0, soc=0.8)], load=1.0, outages=[(0, 4)],
            backup="whole", critical={"share": 1.0}, island=island,
        ),
        step=900.0, hours=4,
    )  # fmt: skip
    assert run.total("unmet_h") == pytest.approx((32 + 3600 + 30 + 3600) / 3600)
    assert run.total("interruptions") == 2


@pytest.mark.parametrize(
    ("export", "given"), [({"approval": "export"}, 9.6), ({"approval": "export", "export_kw": 3.0}, 4.5),
                          ({"approval": "non_export"}, 1.5), ({"approval": "none"}, 0.0)],
)  # fmt: skip
def test_a_request_to_discharge_is_granted_within_the_export_limit(export, given):
    run = SiteRun(
        home([truck(soc=0.9, target=0.3)], load=1.5, interconnection=export),
        step=900.0,
        hours=1,
        asked=[-9.6],
    )
    assert run.total("ev_out_kwh") == pytest.approx(given)
    assert run.total("exported_kwh") == pytest.approx(max(given - 1.5, 0.0))
    cut = run.total("cut_by_export_kwh")
    assert cut == pytest.approx(0.0 if export["approval"] == "none" else 9.6 - given)


def test_the_breaker_limits_charging_and_makes_the_battery_help():
    battery = {"capacity_kwh": 10.0, "charge_kw": 4.0, "soc_start": 1.0, "discharge_efficiency": 1.0}
    breaker = {"breaker_a": 20.0, "nominal_v": 230.0}  # 4.6 kW on one phase
    run = SiteRun(
        home([truck(soc=0.3)], load=2.0, **breaker), home([], load=6.0, battery=battery, **breaker),
        home([truck(soc=0.3, departure_h=1.0)], load=2.0, **breaker), step=900.0, hours=1,
    )  # fmt: skip
    for site in (0, 2):  # even for a departure
        assert run.total("imported_kwh", site) == pytest.approx(4.6)
        assert run.total("ev_in_kwh", site) == pytest.approx(2.6)
        assert run.total("cut_by_import_kwh", site) == pytest.approx(7.0)
    assert run.total("imported_kwh", 1) == pytest.approx(4.6)
    assert run.total("battery_out_kwh", 1) == pytest.approx(1.4)


def test_a_reserve_is_kept_on_the_grid_and_used_in_an_outage():
    run = SiteRun(
        home(
            [truck(soc=0.9, target=0.3, departure_h=100)], load=5.0, backup="whole", outages=[(10, 20)],
            control={"strategy": "self_consumption", "reserve_soc": 0.8}, island=INSTANT,
        ),
        step=900.0, hours=20,
    )  # fmt: skip
    on_grid = 131.0 * 0.1 * 0.9
    assert run.total("ev_out_kwh") == pytest.approx(on_grid + 50.0)
    assert run.total("imported_kwh") == pytest.approx(50.0 - on_grid)
    assert run.session("soc_departure")[0] == pytest.approx(0.8 - 50.0 / 0.9 / 131.0)


@pytest.mark.parametrize("step", [60.0, 3600.0])
def test_an_ev_below_the_reserve_charges_up_to_it_and_then_follows_the_control(step):
    run = SiteRun(
        home(
            [truck(soc=0.3, target=0.95, departure_h=1000)], load=1.0, pv=([0, 8, 12], [0.0, 3.0, 0.0]),
            control={"strategy": "self_consumption", "reserve_soc": 0.5},
        ),
        step=step, hours=24,
    )  # fmt: skip
    to_the_reserve = 131.0 * 0.2
    assert run.total("ev_in_kwh") == pytest.approx(to_the_reserve + 4 * 2.0)
    back = 4 * 2.0 * 0.9  # in the 12 h after, at 1 kW: all of it, down to the reserve
    assert run.total("ev_out_kwh") == pytest.approx(back)
    assert run.total("imported_kwh") == pytest.approx(to_the_reserve + 8 * 1.0 + 12 * 1.0 - back)
    assert run.session("soc_departure")[0] == pytest.approx(0.5)


def test_a_storm_warning_has_battery_and_evs_charged():
    storm = {
        "warning": "2026-01-15T02:00",
        "begin": "2026-01-15T08:00",
        "end": "2026-01-15T12:00",
        "soc": 0.9,
    }
    battery = {"capacity_kwh": 10.0, "charge_kw": 5.0, "soc_start": 0.2, "charge_efficiency": 1.0}
    run = SiteRun(
        home(
            [truck(soc=0.5, target=0.95)], load=0.0, battery=battery,
            control={"strategy": "self_consumption", "storms": [storm]},
        ),
        step=900.0, hours=12,
    )  # fmt: skip
    assert run.series("ev_power_kw")[:8] == pytest.approx(np.zeros(8))
    assert run.series("ev_power_kw")[8:12] == pytest.approx(np.full(4, 9.6))
    assert run.total("battery_in_kwh") == pytest.approx(7.0)
    assert run.series("battery_soc")[-1] == pytest.approx(0.9)
    assert run.session("soc_departure")[0] == pytest.approx(0.9)


def test_self_consumption_gives_the_pv_of_the_day_to_the_evening():
    run = SiteRun(
        home(
            [truck(soc=0.5, target=0.5, departure_h=24)], load=1.0, pv=([0, 10, 14], [0.0, 6.0, 0.0]),
            control="self_consumption",
        ),
        step=900.0, hours=24,
    )  # fmt: skip
    assert run.total("pv_kwh") == pytest.approx(24.0)
    # up to 10 h the truck feeds the house, 10 to 14 h it takes 5 kW up to its target of 0.5, and the rest is
    # given to the grid; after that it feeds the house until its departure asks for all back
    taken = 10.0 / 0.9
    assert run.total("exported_kwh") == pytest.approx(20.0 - taken)
    assert run.session("soc_departure")[0] == pytest.approx(0.5)


def test_off_grid_a_van_feeds_a_construction_site_while_it_is_there():
    van = car(8 * HOUR, 16 * HOUR, 0.9, target=0.9, capacity=20.0, discharge_kw=3.6, soc_floor=0.2, **LOSS)
    run = SiteRun(
        home(
            [[van]], load=([0, 9, 15, 18, 19], [0.0, 2.0, 0.0, 2.0, 0.0]), connected=False,
            critical={"share": 1.0}, island={"black_start": 0},
        ),
        step=900.0, hours=24,
    )  # fmt: skip
    assert run.total("served_kwh") == pytest.approx(12.0)
    assert run.total("unserved_kwh") == pytest.approx(2.0)  # after it has left
    assert run.total("unmet_h") == pytest.approx(1.0)
    assert run.session("soc_departure")[0] == pytest.approx(0.9 - 12.0 / 0.9 / 20.0)
    assert run.total("imported_kwh") == run.total("exported_kwh") == 0.0


@pytest.mark.parametrize("step", [60.0, 3600.0])
def test_permission_counts_on_the_grid_and_in_an_island(step):
    cap = {"warranty": {"throughput_kwh": 10.0}}
    one = home([truck(soc=0.9, target=0.3)], load=2.0, control="self_consumption")
    run = SiteRun(one, step=step, hours=12, permission=cap)
    assert run.total("ev_out_kwh") == pytest.approx(9.0)  # 10 kWh out of the battery
    by_time = SiteRun(one, step=step, hours=12, permission={"warranty": {"hours": 1.5}})
    assert by_time.total("ev_out_kwh") == pytest.approx(3.0)
    in_window = SiteRun(one, step=step, hours=12, permission={"driver": {"window": [4.5, 6.0]}})
    assert in_window.total("ev_out_kwh") == pytest.approx(3.0)
    dark = one | {"outages": [(2, 4)], "backup": "whole", "island": INSTANT}
    not_approved = SiteRun(dark, step=step, hours=12, permission={"interconnection": 0.0})
    assert not_approved.total("ev_out_kwh") == pytest.approx(4.0)  # in the island only
    unwilling = SiteRun(
        dark, step=step, hours=12, permission={"interconnection": 0.0, "driver": {"willing": 0.0}}
    )
    assert unwilling.total("ev_out_kwh") == 0.0
    for made in (run, by_time, in_window, not_approved, unwilling):
        assert made.sites.audit()["site_ev_given_kwh"] == pytest.approx(
            made.fleet.audit()["site_ev_given_kwh"]
        )


@pytest.mark.parametrize("step", [180.0, 900.0])
def test_a_trace_of_fuel_is_none(step):
    generator = {"power_kw": 3.0, "fuel_kwh": 1e-300, "start": 10}
    run = SiteRun(
        home(
            [truck(2000.0, 3000.0)], load=1.0, outages=[(0, 1)], backup="whole", generator=generator,
            island=INSTANT,
        ),
        step=step, hours=1,
    )  # fmt: skip
    assert run.total("served_kwh") == 0.0
    assert run.total("unserved_kwh") == pytest.approx(1.0)


def test_a_battery_s_standby_is_a_load_on_the_grid_and_in_an_island():
    battery = {"capacity_kwh": 10.0, "charge_kw": 5.0, "soc_start": 1.0, "standby_kw": 0.1}
    run = SiteRun(
        home([], load=1.0, battery=battery | {"discharge_efficiency": 1.0}, outages=[(2, 4)], backup="whole",
             island=INSTANT),
        step=900.0, hours=6,
    )  # fmt: skip
    assert run.total("imported_kwh") == pytest.approx(4.4)
    assert run.total("battery_out_kwh") == pytest.approx(2.2)
    assert run.total("battery_in_kwh") == pytest.approx(0.6)
    assert abs(run.sites.audit()["site_battery_kwh"][0]) < 1e-9


def test_a_charging_curve_is_followed_by_export_limit_and_meter():
    # a battery of 20 kWh behind 3.7 kW, on its taper: power falls from 3.7 kW at 0.8 in a straight line to 0
    car_ = car(0.0, 10 * HOUR, 0.8, target=1.0, capacity=20.0, charge=3.7, taper_soc=0.8)
    runs = {
        (kw, step): SiteRun(
            home([[car_]], load=0.0, pv=2.0, interconnection={"approval": "export", "export_kw": kw}),
            step=step, hours=4,
        )
        for kw in (0.5, 100.0) for step in (60.0, 3600.0)
    }  # fmt: skip
    # dE/dt = 3.7 (20 - E) / 4: power 3.7 exp(-3.7 t / 4), down to 5 % of 3.7 kW
    rate = 3.7 / 4.0
    meets_h = np.log(3.7 / 2.0) / rate  # the power of the PV
    drawn = 3.7 * (1.0 - np.exp(-rate * meets_h)) / rate - 2.0 * meets_h
    limit_h = np.log(3.7 / 1.5) / rate  # what the limit leaves
    for (kw, _), run in runs.items():
        assert run.total("imported_kwh") == pytest.approx(drawn, rel=1e-9)
        assert run.series("power_kw").min() >= -kw - 1e-9
    for step in (60.0, 3600.0):
        run = runs[0.5, step]
        up_to = 2.0 * (limit_h - meets_h) - 3.7 * (np.exp(-rate * meets_h) - np.exp(-rate * limit_h)) / rate
        assert run.total("exported_kwh") == pytest.approx(up_to + 0.5 * (4.0 - limit_h), rel=1e-9)


@pytest.mark.parametrize("step", [60.0, 900.0, 3600.0])
def test_a_battery_that_was_empty_charges_a_while_before_it_gives_again(step):
    battery = {"capacity_kwh": 10.0, "charge_kw": 5.0, "soc_start": 0.1, "soc_min": 0.1}
    lossless = {"charge_efficiency": 1.0, "discharge_efficiency": 1.0}
    run = SiteRun(
        home([], load=2.0, pv=1.0, battery=battery | lossless, outages=[(0, 6)], backup="whole",
             critical={"share": 1.0}, island=INSTANT),
        step=step, hours=6,
    )  # fmt: skip
    # by turns: 0.5 kWh of the PV's 1 kW in 30 min, then 2 kW from PV and battery for 30 min
    assert run.total("served_kwh") == pytest.approx(6.0)
    assert run.total("unmet_h") == pytest.approx(3.0)
    assert run.total("interruptions") == 6


@pytest.mark.parametrize("step", [60.0, 1800.0])
def test_what_one_ev_gives_to_another_ends_where_its_charging_curve_falls(step):
    full = car(0.0, 20 * HOUR, 0.9, target=0.3, capacity=60.0, charge=3.7, discharge_kw=3.7)
    other = car(0.0, 1.5 * HOUR, 0.6, target=1.0, capacity=20.0, charge=11.0, taper_soc=0.8)
    run = SiteRun(
        home([[full], [other]], load=0.0, interconnection={"approval": "non_export", "import_kw": 9.0}),
        step=step, hours=3, asked=[-11.0, np.inf],
    )  # fmt: skip
    # up to an SOC of 0.8 one gives 3.7 kW to the other, which takes 11 kW; from there on nothing, and 9 kW at
    # most; at last, where the taper has come to its least power, 0.55 kW
    held_h, taper_h = 20.0 * 0.2 * 2.0 / 11.0 / 9.0, 4.0 / 11.0 * np.log(9.0 / 0.55)
    last_h = 1.5 - (4.0 / 11.0 + held_h + taper_h)
    assert run.total("ev_out_kwh") == pytest.approx(3.7 * 4.0 / 11.0 + 0.55 * last_h)
    assert run.series("power_kw").min() >= -1e-9
    assert run.series("power_kw").max() <= 9.0 + 1e-9
    assert run.total("exported_kwh") == 0.0


@pytest.mark.parametrize("step", [60.0, 900.0, 3600.0])
def test_circuits_that_were_without_supply_pick_up_cold(step):
    """Twice the load for as long as a circuit was without supply, at most half an hour; none for what an
    island serves when supply returns.
    """
    cold = {"factor": 2, "duration": 1800}
    battery = {"capacity_kwh": 100.0, "charge_kw": 5.0, "soc_start": 1.0, "discharge_efficiency": 1.0}
    circuits = {"a": {"share": 0.25, "critical": True}}
    lost, short = [(2.0, 3.1)], [(2.0, 2.2), (2.3, 2.35)]
    run = SiteRun(
        home(outages=lost),
        home(outages=short),
        home(outages=lost, backup="critical", circuits=circuits, battery=battery, island=INSTANT),
        home(outages=lost, backup="whole", battery=battery, island=INSTANT),
        home(outages=[(-0.5, 0.2)]),
        step=step, hours=5, cold_load=cold,
    )  # fmt: skip
    served = [run.total("served_kwh", site) for site in range(5)]
    # of the second 0.2 h, of which the next outage leaves 0.1 h, then 0.05 h; of the third the other circuit
    np.testing.assert_allclose(served, [3.9 + 0.5, 4.75 + 0.1 + 0.05, 5 - 0.75 * 1.1 + 0.375, 5, 4.8 + 0.5])
    for site in range(5):
        assert run.total("imported_kwh", site) + run.total("battery_out_kwh", site) == pytest.approx(
            served[site] + run.total("battery_in_kwh", site) + run.total("exported_kwh", site)
        )


def test_without_cold_load_nothing_picks_up():
    run = SiteRun(home(outages=[(2.0, 3.1)]), step=900.0, hours=5)
    assert run.total("served_kwh") == pytest.approx(3.9)


SEASON = {"name": "all", "months": list(range(1, 13)), "periods": [{"name": "all", "price_per_kwh": 0.3}]}
FLAT = {"name": "flat", "seasons": [SEASON], "export_per_kwh": 0.1}


@pytest.mark.parametrize("step", [60.0, 900.0, 3600.0])
def test_what_an_ev_takes_from_its_site_s_own_pv_costs_what_export_would_have_earned(step):
    """6 kW of PV until 0:42, a load of 1 kW, an EV of 7 kW: 5 kW from the PV and 2 kW from the grid."""
    pv = ([0.0, 0.7], [6.0, 0.0])
    for approval, own_price in (("export", 0.1), ("non_export", 0.0)):
        one = home([[car(charge=7.0)]], pv=pv, interconnection={"approval": approval})
        run = SiteRun(one, step=step, hours=2, tariff=FLAT)
        assert run.session("energy_delivered_kwh") == pytest.approx([14.0])
        expected = 0.3 * (2.0 * 0.7 + 7.0 * 1.3) + own_price * 5.0 * 0.7
        assert run.session("cost") == pytest.approx([expected], rel=1e-9)


def test_pv_that_load_and_battery_take_does_not_make_charging_cheaper():
    """The load takes 3 of 5 kW; EVs of 7 and 3 kW share the other 2 kW by what they draw."""
    one = home([[car(charge=7.0)], [car(charge=3.0)]], load=3.0, pv=5.0)
    run = SiteRun(one, step=900.0, hours=1, tariff=FLAT)
    own = 2.0 * np.array([0.7, 0.3])
    assert run.session("cost") == pytest.approx(0.3 * (np.array([7.0, 3.0]) - own) + 0.1 * own, rel=1e-9)
    dark = SiteRun(home([[car(charge=7.0)]], load=3.0, pv=2.0), step=900.0, hours=1, tariff=FLAT)
    assert dark.session("cost") == pytest.approx([0.3 * 7.0], rel=1e-12)
