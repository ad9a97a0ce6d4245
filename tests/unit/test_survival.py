"""Hours of an outage that sites survive, worked by hand and against REopt's published rule."""

import numpy as np
import pytest
from tests.oracles.reopt_outage import Plant, hours_served
from tests.support.survival import sites_of, stays_of

from evgrid.sites.survival import survival_hours, with_round_trip_on_charging

TRUCK = {"capacity_kwh": 131, "floor_kwh": 26.2, "discharge_kw": 9.6, "discharge_b": 0.1}


def survive(*args, kwh=((0.0,),), starts=None, **options):
    given = {
        name: options.pop(name)
        for name in ("rule", "pv_forms", "horizon_h", "generator_last")
        if name in options
    }
    starts = None if starts is None else np.array(starts)
    kwh = np.atleast_2d(np.asarray(kwh, float))
    return survival_hours(sites_of(*args, **options), kwh, starts, **given)


@pytest.mark.parametrize(
    ("standby_kw", "loss_kw", "expected"),
    [
        (0.0, 0.0, 75.456),
        (0.066, 0.0, 94.32 / (1.25 + 0.066 * 0.9)),  # at the battery, as the fleet books standby
        (0.0, 0.066, 94.32 / (1.25 + 0.066)),  # constant loss of the converter, at its grid side
    ],
)
def test_a_truck_carries_a_flat_load(standby_kw, loss_kw, expected):
    truck = {**TRUCK, "standby_kw": standby_kw, "discharge_a": loss_kw}
    hours = survive([1.25] * 24, stores=[[[truck]]], kwh=131)
    assert hours.shape == (24, 1)
    np.testing.assert_allclose(hours, expected, rtol=1e-6)


def test_a_loss_that_grows_with_power():
    # 4 kW out of a battery that loses 0.1 + 0.05 Pb + 0.01 Pb**2: 0.95 Pb - 0.01 Pb**2 = 4.1
    battery_kw = (0.95 - np.sqrt(0.95**2 - 4 * 0.01 * 4.1)) / 0.02
    store = {
        "capacity_kwh": 40,
        "discharge_kw": 5,
        "discharge_a": 0.1,
        "discharge_b": 0.05,
        "discharge_c": 0.01,
    }
    np.testing.assert_allclose(
        survive([4.0] * 24, stores=[[[store]]], kwh=40)[0, 0], 40 / battery_kw, rtol=1e-6
    )


def test_nothing_serves_nothing():
    assert (survive([[1.0] * 24]) == 0).all()
    assert (survive([[1.0] * 24], [[3.0] * 24]) == 0).all()  # PV without anything that forms the island
    assert (survive([[1.0] * 24], [[3.0] * 24], pv_forms=True, horizon_h=100) == 100).all()
    assert (survive([[1.0] * 24], stores=[[[{**TRUCK, "discharge_kw": 0.9}]]], kwh=131) == 0).all()
    assert (survive([[0.0] * 24], horizon_h=100) == 100).all()


def test_pv_charges_the_store_for_the_night():
    # 12 h of 2 kW with 4 kW of PV: 2 kW over at 0.9 -> 1.8 kW until 10 kWh are full; then a night of 2 kW
    load, pv = [2.0] * 24, [4.0] * 12 + [0.0] * 12
    store = {"capacity_kwh": 10, "charge_kw": 5, "discharge_kw": 5, "charge_b": 1 / 0.9 - 1}
    hours = survive(load, pv, stores=[[[store]]], kwh=0)
    assert hours[0, 0] == pytest.approx(12 + 5.0)  # full after 5.56 h
    assert hours[8, 0] == pytest.approx(4 + 4 * 1.8 / 2)  # from 8:00 only 7.2 kWh
    assert hours[12, 0] == 0.0  # at night, empty


def test_the_period_repeats():
    hours = survive([1.0] * 23 + [3.0], stores=[[[{"capacity_kwh": 9, "discharge_kw": 5}]]], kwh=9)
    assert hours[22, 0] == pytest.approx(1 + 1 + 5)


def test_an_ev_leaves_and_comes_back_with_less():
    # there until 8:00 and from 17:30; 1 kW; at the start 10 kWh, drives 4 kWh
    stays = [
        {"departure_h": 8.0, "arrival_kwh": 10, "capacity_kwh": 40, "discharge_kw": 3},
        {"arrival_h": 17.5, "departure_h": 48.0, "arrival_kwh": 20, "drive_kwh": 4, "least_kwh": 2,
         "capacity_kwh": 40, "discharge_kw": 3},
    ]  # fmt: skip
    battery = {"capacity_kwh": 100, "discharge_kw": 1.0, "rank": 1}
    alone = survive([1.0] * 48, stores=[[stays]], kwh=np.full((1, 48), 10.0))[:, 0]
    assert alone[0] == pytest.approx(8.0)
    assert alone[9] == 0.0
    assert alone[17] == 0.0
    assert alone[18] == pytest.approx(10.0)
    # 9.5 h from the battery; then the EV with 10 - 8 - 4 < 2: 2 kWh; then the battery's last 3 kWh
    both = survive([1.0] * 48, stores=[[stays, [battery]]], kwh=[[10.0], [12.5]])[:, 0]
    assert both[0] == pytest.approx(8 + 9.5 + 2 + 3)
    # away at the start: arrives as in normal times, with 20 kWh
    assert both[12] == pytest.approx(5.5 + 20 + 7)


def test_what_leaves_first_gives_first_and_is_charged_last():
    early = {"departure_h": 4.0, "capacity_kwh": 10, "charge_kw": 9, "discharge_kw": 9}
    late = {"departure_h": 20.0, "capacity_kwh": 10, "charge_kw": 9, "discharge_kw": 9}
    for stores in ([[early], [late]], [[late], [early]]):
        hours = survive([2.0] * 24, stores=[stores], kwh=[[10.0], [10.0]])
        assert hours[0, 0] == pytest.approx(
            4 + (10 - 0) / 2
        )  # 8 kWh of the early one, then 10 of the late one
    pv = [6.0] * 4 + [0.0] * 20
    hours = survive([2.0] * 24, pv, stores=[[[early], [late]]], kwh=[[0.0], [0.0]])
    assert hours[0, 0] == pytest.approx(4 + 5)  # the late one is full; the rest leaves with the early one


def test_a_generator_runs_for_its_fuel():
    hours_at_full_power = {"kw": 4.0, "fuel": 10.0, "fuel_per_kwh": 0.25}
    assert survive([[2.0] * 24], generators=[hours_at_full_power])[0, 0] == pytest.approx(20)
    assert survive([[5.0] * 24], generators=[hours_at_full_power])[0, 0] == 0.0
    # 5 kW: 1 kW from 8 kWh for 8 h; then not enough
    store = {"capacity_kwh": 8, "discharge_kw": 9}
    assert survive([[5.0] * 24], stores=[[[store]]], generators=[hours_at_full_power], kwh=8)[0, 0] == 8
    # at least 2 kW of 4: 1 kW over charges the store; 0.5 an hour for 20 h, then 8 kWh for 8 h
    half = {**hours_at_full_power, "turndown": 0.5}
    store["charge_kw"] = 9
    assert survive([[1.0] * 24], stores=[[[store]]], generators=[half], kwh=0)[0, 0] == pytest.approx(28)


def test_a_generator_after_the_store():
    generator, store = {"kw": 4.0, "fuel": 10.0, "fuel_per_kwh": 0.25}, {"capacity_kwh": 8, "discharge_kw": 9}
    after = {"stores": [[[store]]], "kwh": 8, "generator_last": True}
    assert survive([[5.0] * 24], generators=[generator], **after)[0, 0] == pytest.approx(8 / 5)
    assert survive([[2.0] * 24], generators=[generator], **after)[0, 0] == pytest.approx(4 + 20)
    # at its least power, 2 kW, of which 1 kW is lost
    half, store["charge_kw"] = {**generator, "turndown": 0.5}, 9
    assert survive([[1.0] * 24], generators=[half], **after)[0, 0] == pytest.approx(8 + 20)


def year(per_hour, seed=5):
    """Load and PV of a year: a household and 4 kWp with clouds."""
    rng = np.random.default_rng(seed)
    slots = 8760 * per_hour
    hour = np.arange(slots) / per_hour % 24
    load = 1.2 * (1 + 0.5 * np.cos(2 * np.pi * (hour - 19) / 24)) * rng.gamma(2, 0.5, slots)
    season = 0.6 - 0.4 * np.cos(2 * np.pi * np.arange(slots) / slots)
    pv = 4 * season * np.maximum(np.sin(np.pi * (hour - 6) / 12), 0) * rng.uniform(0.2, 1, slots)
    return load, pv, rng.uniform(0.2, 1.0, slots)


PLANTS = {
    "battery": Plant(13.5, 5.0),
    "battery and generator": Plant(13.5, 5.0, 0.829, 2.0, 3.0, 0.076, 0.06, 0.3),
    "large": Plant(60.0, 2.2, 0.9, 1.5, 10.0, 0.1, 0.02, 0.0),
}


@pytest.mark.parametrize("name", PLANTS)
def test_reopt_start_by_start(name):
    plant = PLANTS[name]
    load, pv, soc = year(1)
    net = (load - pv).tolist()
    expected = [
        hours_served(start, net, soc[start] * plant.battery_kwh, plant, 1) for start in range(len(net))
    ]
    hours = of_plant(load, pv, soc, plant, 1.0, rule="reopt")
    np.testing.assert_array_equal(hours, np.array(expected, np.float32))
    assert len(set(expected)) > 20  # it says something


def test_reopt_at_quarter_hours():
    load, pv, soc = year(4)
    plant, starts = PLANTS["battery and generator"], range(0, len(load), 97)
    net = (load - pv).tolist()
    expected = [hours_served(start, net, soc[start] * plant.battery_kwh, plant, 4) for start in starts]
    hours = of_plant(load, pv, soc, plant, 0.25, rule="reopt")[starts]
    np.testing.assert_array_equal(hours, np.array(expected, np.float32))


def test_both_rules_agree_up_to_the_slot():
    """With the round trip on charging, one store's energy at the end of a slot is the same in both."""
    load, pv, soc = year(1)
    exact, reopt = (of_plant(load, pv, soc, PLANTS["battery"], 1.0, rule=rule, pv_forms=True)
                    for rule in ("exact", "reopt"))  # fmt: skip
    assert (exact > reopt - 1e-5).all()
    assert (exact < reopt + 1 + 1e-5).all()
    assert (exact > reopt).mean() > 0.5


def of_plant(load, pv, soc, plant, slot_h, **options):
    store = {
        "capacity_kwh": plant.battery_kwh, "charge_kw": plant.battery_kw, "discharge_kw": plant.battery_kw,
        "charge_b": 1 / plant.round_trip - 1,
    }  # fmt: skip
    generator = {
        "kw": plant.generator_kw, "fuel": plant.fuel, "fuel_per_kwh": plant.slope,
        "fuel_per_h": plant.intercept, "turndown": plant.turndown,
    }  # fmt: skip
    sites = sites_of(load, pv, [[[store]]], [generator], slot_h)
    return survival_hours(sites, (soc * plant.battery_kwh)[np.newaxis], **options)[:, 0]


def test_round_trip_on_charging():
    stay = {"charge_kw": 5, "charge_b": 0.25, "discharge_kw": 5, "discharge_b": 0.1, "standby_kw": 0.1}
    bare = {"charge_kw": 0, "discharge_kw": 0}
    booked = with_round_trip_on_charging(stays_of([stay, bare]))
    np.testing.assert_allclose(1 / (1 + booked["charge_b"]), [0.8 * 0.9, 1.0])


def test_what_cannot_be_asked():
    sites = sites_of([[1.0] * 24])
    with pytest.raises(ValueError, match="rule = naive: must be exact or reopt"):
        survival_hours(sites, np.zeros((0, 1)), rule="naive")
    with pytest.raises(ValueError, match="there is no slot"):
        survival_hours(sites_of(np.zeros((1, 0))), np.zeros((0, 1)))


def test_an_outage_may_start_within_a_slot():
    """As with slots of a quarter of the same load and PV, and energies on the lines between the hours'."""
    rng = np.random.default_rng(4)
    stays = [
        {"arrival_h": 1.5, "departure_h": 8.0, "arrival_kwh": 10, "capacity_kwh": 40, "discharge_kw": 3,
         "charge_kw": 3, "drive_kwh": 4.0},
        {"arrival_h": 17.5, "departure_h": 24.0, "arrival_kwh": 9, "capacity_kwh": 40, "discharge_kw": 3,
         "charge_kw": 3, "drive_kwh": 4.0},
    ]  # fmt: skip
    fixed = {"capacity_kwh": 8, "charge_kw": 2, "discharge_kw": 3, "discharge_b": 0.1, "charge_b": 0.1}
    load, pv = rng.uniform(0.2, 1.5, 24), rng.uniform(0, 2, 24) * (np.abs(np.arange(24) - 12) < 5)
    kwh = np.stack([rng.uniform(1, 40, 24), rng.uniform(0, 8, 24)])
    kwh[0, 18] = 9 + (kwh[0, 19] - 9) / 3  # goes on from the arrival at 17:30 in a straight line
    kwh[0, 2] = 10 + (kwh[0, 3] - 10) / 3
    fine = np.array([np.interp(np.arange(96) / 4, np.arange(24), of_store) for of_store in kwh])
    fine[:, 93:] = kwh[:, -1:]
    fine[0, 70:76] = 9 + (kwh[0, 19] - 9) * (np.arange(70, 76) / 4 - 17.5) / 1.5
    fine[0, 6:12] = 10 + (kwh[0, 3] - 10) * (np.arange(6, 12) / 4 - 1.5) / 1.5
    fine[0, 28:32] = kwh[0, 7]  # it leaves at 8:00: no energy is known there
    options = {"stores": [[stays, [fixed]]], "horizon_h": 200}
    whole = survive(load, pv, kwh=kwh, starts=np.arange(96) / 4, **options)
    quarters = survive(np.repeat(load, 4), np.repeat(pv, 4), kwh=fine, slot_h=0.25, **options)
    assert len(np.unique(whole)) > 20
    np.testing.assert_allclose(whole, quarters, rtol=1e-5, atol=1e-5)
    for rule in ("exact", "reopt"):
        at_begin = survive(load, pv, kwh=kwh, starts=np.arange(24), rule=rule, **options)
        np.testing.assert_array_equal(at_begin, survive(load, pv, kwh=kwh, rule=rule, **options))
