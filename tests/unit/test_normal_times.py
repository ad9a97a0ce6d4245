"""Energy in stores while the grid is there, worked by hand."""

import numpy as np
import pytest
from tests.support.survival import sites_of

from evgrid.sites.normal_times import SUMS, NormalTimes, energy_in_normal_times

BATTERY = {"capacity_kwh": 10, "charge_kw": 4, "discharge_kw": 3, "arrival_kwh": 4, "floor_kwh": 1}
EV = {"capacity_kwh": 40, "charge_kw": 5, "discharge_kw": 5, "rank": 1}


def follow(
    load, pv, stores, hold=None, active=True, price=None, credit=None, cheap=None, dear=None, target=None
):
    """Energy of the stores of one site, (store, slot), and its sums by name."""
    sites = sites_of([load], [pv], [stores])
    slots, number = len(load), len(stores)
    target = np.array(
        [stay["capacity_kwh"] for store in stores for stay in store] if target is None else target
    )
    prices = (np.array(given or [0.0] * slots, float) for given in (price, credit))
    grid = NormalTimes(
        np.array([load], float), *prices,
        np.array(cheap or [False] * slots), np.array(dear or [True] * slots), target.astype(float),
        np.full(number, 0.0) if hold is None else np.array(hold, float), np.full(number, active),
    )  # fmt: skip
    energy, sums = energy_in_normal_times(sites, grid)
    return energy, dict(zip(SUMS, sums[0], strict=True))


def test_self_consumption_of_a_battery():
    # 3 kW over for two hours, of which 4 kW would be taken; then 5 kW of load, of which it gives 3
    battery = {**BATTERY, "charge_b": 0.25, "discharge_b": 0.2}
    energy, sums = follow([1, 1, 5, 5, 5], [4, 4, 0, 0, 0], [[battery]])
    np.testing.assert_allclose(energy[0], [4, 4 + 2.4, 4 + 4.8, 8.8 - 3.75, 8.8 - 7.5])
    last = (1.3 - 1) * 0.8  # down to the floor
    assert sums["drawn_kwh"] == pytest.approx(2 + 2 + 5 - last)
    assert sums["exported_kwh"] == pytest.approx(0)
    assert sums["from_stores_kwh"] == pytest.approx(6 + last)


def test_a_full_battery_exports_and_money_follows():
    _, sums = follow(
        [0, 0, 2], [4, 4, 0], [[{**BATTERY, "arrival_kwh": 8}]], price=[1, 1, 0.5], credit=[0.1, 0.2, 0.3],
        dear=[True, True, False],
    )  # fmt: skip
    assert sums["exported_kwh"] == pytest.approx(2 + 4)
    assert sums["cost"] == pytest.approx(2 * 0.5 - 2 * 0.1 - 4 * 0.2)


def test_the_reserve_is_held_and_filled():
    energy, sums = follow([2, 2, 2], [0, 0, 0], [[BATTERY]], hold=[7])
    np.testing.assert_allclose(energy[0], [4, 7, 7])
    assert sums["drawn_kwh"] == pytest.approx(3 + 6)


def test_a_battery_that_is_not_active_keeps_what_it_has():
    energy, sums = follow([2, 2, 0], [0, 0, 3], [[BATTERY]], active=False)
    np.testing.assert_allclose(energy[0], 4)
    assert sums["drawn_kwh"] == 4
    assert sums["exported_kwh"] == 3


def test_a_battery_without_pv_charges_in_cheap_slots():
    energy, _ = follow([0, 0, 3], [0, 0, 0], [[BATTERY]], cheap=[False, True, False])
    np.testing.assert_allclose(energy[0], [4, 4, 8])
    energy, _ = follow([0, 0, 3, 0], [0, 0, 0, 1], [[BATTERY]], cheap=[False, True, False, False])
    np.testing.assert_allclose(energy[0], [4, 4, 4, 1])  # with PV it keeps its room


def stays_of_a_night(**more):
    return [{**EV, "arrival_h": 1.5, "departure_h": 6.5, "arrival_kwh": 20, **more}]


def test_an_ev_that_is_not_active_charges_on_arrival():
    energy, sums = follow([0] * 8, [0] * 8, [stays_of_a_night()], active=False, target=[30])
    np.testing.assert_allclose(energy[0, 2:7], [22.5, 27.5, 30, 30, 30])
    assert sums["drawn_kwh"] == pytest.approx(10)


def test_an_ev_serves_the_load_and_is_ready_at_departure():
    energy, sums = follow([2] * 8, [0] * 8, [stays_of_a_night()], target=[30])
    # gives 1 and 2 kWh, then must charge: 5 kW from 3:00 on reach 30 kWh only at 6:00, half an hour early
    assert energy[0, 6] + 5 * 0.5 >= 30 - 1e-9 or energy[0, 6] == pytest.approx(30)
    assert (energy[0, 2:4] < 20).all()
    assert sums["from_stores_kwh"] > 0
    held, _ = follow([2] * 8, [0] * 8, [stays_of_a_night()], target=[30], hold=[40])
    np.testing.assert_allclose(held[0, 2:7], [22.5, 27.5, 30, 30, 30])


def test_what_it_gave_it_lacks_after_the_drive():
    stays = [
        {**EV, "departure_h": 2, "arrival_kwh": 30},
        {**EV, "arrival_h": 3, "departure_h": 8, "arrival_kwh": 25, "drive_kwh": 5, "least_kwh": 2},
    ]
    energy, _ = follow([4] * 8, [0] * 8, [stays], target=[0, 0])
    np.testing.assert_allclose(energy[0, [0, 1, 3, 4]], [30, 26, 22 - 5, 13])
