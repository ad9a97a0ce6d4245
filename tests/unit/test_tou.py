"""Time of use: the cheapest hours that still meet the departure, against an LP."""

import numpy as np
import pytest
from scipy.optimize import linprog

from evgrid.aggregator.strategies.time_of_use import TimeOfUse
from evgrid.aggregator.strategy import Context, View
from evgrid.core.model import Clock, EVs
from evgrid.scenario.aggregators import StrategySettings
from evgrid.scenario.tariffs import prices_of, read_tariff, tariff_from


def tariff_of(name):
    return tariff_from(read_tariff(name))


def price_of(tariff, start, step_s, duration_s=86400.0):
    """Price of each tick."""
    clock = Clock(np.datetime64(start), step_s, round(duration_s / step_s))
    return prices_of(tariff, None, clock).means(np.arange(clock.ticks + 1) * step_s)[0]


def charge(tariff, start, step_s, arrival_s, departure_s, energy_kwh, power_kw, duration_s=86400.0):
    """Charge EVs of constant power as the strategy asks; energy by tick, (tick, ev) kWh."""
    n = len(energy_kwh)
    clock = Clock(np.datetime64(start), step_s, round(duration_s / step_s))
    evs = EVs(np.zeros(n, int), np.zeros(n, int), np.zeros(n, np.int8), np.arange(n).astype(str))
    strategy = TimeOfUse(
        StrategySettings(strategy="tou"), Context(clock, tariff, evs, 1, np.zeros(n, np.int64))
    )
    left = np.array(energy_kwh, float)
    drawn = np.zeros((clock.ticks, n))
    for tick in range(clock.ticks):
        now = tick * step_s
        here = (arrival_s <= now) & (now < departure_s)
        view = View(
            time_s=now,
            step_s=step_s,
            plugged=here,
            soc=np.full(n, 0.5),
            p_max=np.where(here & (left > 0), power_kw, 0.0),
            p_min=np.zeros(n),
            energy_needed=np.where(here, left, 0.0),
            time_left=np.where(here, departure_s - now, 0.0),
            time_needed=np.where(here, left / power_kw * 3600, 0.0),
            base_load=np.zeros(1),
        )
        power = np.where(here, np.minimum(strategy.setpoints(view), power_kw), 0.0)
        drawn[tick] = np.minimum(power * step_s / 3600, left)
        left = left - drawn[tick]
    return drawn


@pytest.mark.parametrize("step_s", [60.0, 300.0, 900.0])
def test_the_case_of_the_tariff_sheet(step_s):
    # 30 kWh at 7.2 kW, 18:00 to 8:00, summer EV2-A: all of it after midnight at 0.23
    drawn = charge(
        tariff_of("pge_ev2a"), "2026-07-01T12:00", step_s,
        np.array([6 * 3600.0]), np.array([20 * 3600.0]), [30.0], 7.2,
    )  # fmt: skip
    price = price_of(tariff_of("pge_ev2a"), "2026-07-01T12:00", step_s)
    assert drawn.sum() == pytest.approx(30.0, abs=1e-9)
    assert (price @ drawn)[0] == pytest.approx(6.90, abs=1e-9)


@pytest.mark.parametrize("name", ["pge_ev2a", "sce_tou_d_prime"])
@pytest.mark.parametrize("start", ["2026-07-01T12:00", "2026-01-17T09:00"])
def test_cost_equals_the_optimum_of_an_lp(name, start):
    rng = np.random.default_rng(5)
    n, step_s, power_kw = 60, 900.0, 7.2
    arrival = rng.integers(0, 60, n) * step_s
    departure = arrival + rng.integers(4, 36, n) * step_s
    reach = (departure - arrival) / 3600 * power_kw
    energy = reach * rng.uniform(0.05, 1.0, n)
    tariff = tariff_of(name)
    drawn = charge(tariff, start, step_s, arrival, departure, energy, power_kw)
    price = price_of(tariff, start, step_s)
    np.testing.assert_allclose(drawn.sum(axis=0), energy, rtol=1e-9)
    for ev in range(n):
        slots = (np.arange(96) * step_s >= arrival[ev]) & (np.arange(96) * step_s < departure[ev])
        best = linprog(
            price, A_eq=np.ones((1, 96)), b_eq=[energy[ev]],
            bounds=[(0, power_kw * step_s / 3600 * s) for s in slots], method="highs",
        )  # fmt: skip
        assert price @ drawn[:, ev] == pytest.approx(best.fun, rel=1e-9)


def test_of_equal_hours_the_earliest():
    drawn = charge(
        tariff_of("pge_ev2a"),
        "2026-07-01T00:00",
        3600.0,
        np.array([0.0]),
        np.array([12 * 3600.0]),
        [14.4],
        7.2,
    )
    np.testing.assert_allclose(drawn[:4, 0], [7.2, 7.2, 0, 0])
