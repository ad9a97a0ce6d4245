"""The books of a CSMS: energy and cost by hand, and that no order of readings loses energy."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.street import street

from evgrid.fleet.rates import Rates
from evgrid.ocpp.books import METER_KWH, MOST_OF_RATING, Books, Transaction, Untrue

HOUR = 3600.0


def season(*periods):
    return {
        "name": "t",
        "currency": "EUR",
        "seasons": [{"name": "all", "months": list(range(1, 13)), "periods": list(periods)}],
    }


FLAT = street({"time.step": "30min"}, tariff=season({"name": "flat", "price_per_kwh": 0.25}))


def books(scenario=FLAT):
    """Of one EVSE of 10 kW both ways."""
    return Books(scenario.clock, Rates(scenario, None), np.array([10.0]), np.array([10.0]))


def test_first_reading_is_where_the_run_begins():
    found = books()
    found.read(0, 0.0, 1234.5, 67.8, None)
    assert found.drawn_kwh[0] == found.given_kwh[0] == 0.0


def test_readings_from_before_the_run_are_not_of_it():
    found = books()
    for time_s, drawn in ((-7200.0, 100.0), (-3600.0, 107.0), (0.0, 108.0), (HOUR, 109.0)):
        found.read(0, time_s, drawn, 0.0, None)
    assert found.drawn_kwh[0] == 2.0


def test_energy_and_cost_of_a_transaction():
    found, one = books(), Transaction(0, "s", "t", 0.0)
    found.read(0, 0.0, 100.0, 10.0, one)
    found.read(0, HOUR, 104.0, 10.0, one)
    found.read(0, 2 * HOUR, 104.0, 13.0, one)
    assert (one.drawn_kwh, one.given_kwh) == (4.0, 3.0)
    assert one.cost == pytest.approx(4.0 * 0.25 - 3.0 * 0.25)


def test_price_is_that_of_each_tick():
    """Two hours at 0.1, then 0.4 per kWh from 18:00; the run begins at 16:00. 6 kWh from 17:00 to 20:00."""
    high = {"name": "high", "hours": [[18, 24]], "price_per_kwh": 0.4}
    tariff = season(high, {"name": "low", "price_per_kwh": 0.1})
    found = books(street({"time.step": "30min"}, tariff=tariff))
    one = Transaction(0, "s", "t", 0.0)
    found.read(0, HOUR, 0.0, 0.0, one)
    found.read(0, 4 * HOUR, 6.0, 0.0, one)
    assert one.cost == pytest.approx(2.0 * 0.1 + 4.0 * 0.4)


def test_energy_of_the_tick_under_way_is_apart_from_that_of_ticks_before():
    found, one = books(), Transaction(0, "s", "t", 0.0)
    found.read(0, 0.0, 0.0, 0.0, one)
    found.begin_tick(HOUR)
    found.read(0, 2 * HOUR, 8.0, 0.0, one)
    assert found.tick_kwh[0] == pytest.approx(4.0)
    assert found.net_kwh[0] == 8.0


def test_energy_outside_of_transactions_is_booked():
    found = books()
    found.read(0, 0.0, 5.0, 0.0, None)
    found.read(0, HOUR, 5.5, 0.0, None)
    assert found.outside_drawn_kwh[0] == 0.5
    assert found.outside_cost[0] == pytest.approx(0.125)


@pytest.mark.parametrize(
    ("reading", "says"),
    [
        ((2 * HOUR, -1.0, 0.0), "import register reads -1000 Wh"),
        ((2 * HOUR, 50.0, -0.1), "export register reads -100 Wh"),
        ((2 * HOUR, math.nan, 0.0), "import register reads nan Wh"),
        ((2 * HOUR, math.inf, 0.0), "import register reads inf Wh"),
        ((2 * HOUR, 49.0, 0.0), "import register fell from 50000 to 49000 Wh"),
        ((2 * HOUR, 61.0, 0.0), "rose by 11000 Wh in 3600 s: its rating of 10 kW allows 10502 Wh"),
        ((2 * HOUR, 50.0, 11.0), "export register rose"),
        ((HOUR - 60.0, 50.0, 0.0), "came after that of 2026-07-01T17:00:00"),
    ],
)
def test_reading_that_cannot_be_is_refused_and_leaves_the_books(reading, says):
    found, one = books(), Transaction(0, "s", "t", 0.0)
    found.read(0, HOUR, 50.0, 0.0, one)
    with pytest.raises(Untrue, match=says):
        found.read(0, *reading, one)
    assert found.drawn_kwh[0] == found.given_kwh[0] == one.drawn_kwh == one.cost == 0.0
    found.read(0, 2 * HOUR, 55.0, 0.0, one)
    assert one.drawn_kwh == 5.0


@given(
    st.lists(
        st.tuples(st.floats(1.0, 4000.0), st.floats(0.0, 1.0), st.floats(0.0, 1.0), st.booleans()),
        min_size=1, max_size=20,
    )
)  # fmt: skip
def test_registers_are_transactions_and_what_is_outside(parts):
    found, time_s, drawn, given_kwh = books(), 0.0, 3.0, 4.0
    one = Transaction(0, "s", "t", 0.0)
    found.read(0, 0.0, drawn, given_kwh, None)
    ticks = 0.0
    for span_s, charge, discharge, inside in parts:
        found.begin_tick(time_s)
        time_s += span_s
        drawn += charge * 10.0 * span_s / HOUR
        given_kwh += discharge * 10.0 * span_s / HOUR
        found.read(0, time_s, drawn, given_kwh, one if inside else None)
        ticks += found.tick_kwh[0]
    assert found.drawn_kwh[0] == pytest.approx(drawn - 3.0, abs=1e-9)
    assert found.given_kwh[0] == pytest.approx(given_kwh - 4.0, abs=1e-9)
    assert one.drawn_kwh + found.outside_drawn_kwh[0] == pytest.approx(found.drawn_kwh[0], abs=1e-9)
    assert one.given_kwh + found.outside_given_kwh[0] == pytest.approx(found.given_kwh[0], abs=1e-9)
    assert ticks == pytest.approx(found.net_kwh[0], abs=1e-9)
    assert found.register_kwh()[0] == pytest.approx(drawn - 3.0 - (given_kwh - 4.0), abs=1e-9)
    assert sum(found.settle(0)) == pytest.approx(found.net_kwh[0], abs=1e-9)
    assert found.settle(0) == (0.0, 0.0)
    assert one.cost + found.outside_cost[0] == pytest.approx(0.25 * found.net_kwh[0], abs=1e-9)


SPANS_S = st.lists(
    st.one_of(st.just(0.0), st.floats(1e-3, 5.0), st.floats(1.0, 900.0)), min_size=2, max_size=30
)


@given(SPANS_S, st.data())
def test_accepted_energy_is_bounded_over_any_span(spans_s, data):
    """However readings are spread, between any two is at most 1.05 of the rating and one resolution."""
    found, time_s, register_kwh = books(), 0.0, 5.0
    way = data.draw(st.sampled_from(["import", "export"]))
    accepted = []
    for span_s in spans_s:
        time_s += span_s
        register_kwh += data.draw(st.floats(0.0, 1.2 * MOST_OF_RATING * 10.0 * span_s / HOUR + METER_KWH))
        both = (register_kwh, 0.0) if way == "import" else (0.0, register_kwh)
        try:
            found.read(0, time_s, *both, None)
        except Untrue:
            break
        accepted.append((time_s, found.drawn_kwh[0] + found.given_kwh[0]))
    times_s, kwh = np.array(accepted).T
    beyond = kwh - MOST_OF_RATING * 10.0 * times_s / HOUR
    assert np.max(beyond - np.minimum.accumulate(beyond)) <= METER_KWH + 1e-12


@given(st.lists(st.tuples(SPANS_S, st.floats(0.0, 1.0)), min_size=1, max_size=5))
def test_honest_meter_of_whole_watt_hours_is_never_refused(parts):
    """Up to its rating, with timestamps in ms."""
    found, time_s, drawn_kwh = books(), 0.0, 7.0
    found.read(0, 0.0, 7.0, 0.0, None)
    for spans_s, share in parts:
        for span_s in spans_s:
            time_s += span_s
            drawn_kwh += share * 10.0 * span_s / HOUR
            found.read(0, round(time_s, 3), round(drawn_kwh, 3), 0.0, None)
    assert found.drawn_kwh[0] == pytest.approx(drawn_kwh - 7.0, abs=1e-3)


def test_readings_that_each_have_the_slack_are_refused():
    """Each second 1.95 Wh beyond 1.05 of the rating: the second of them is refused."""
    found = books()
    for second in range(2):
        found.read(0, float(second), 4.867e-3 * second, 0.0, None)
    with pytest.raises(Untrue, match=r"rose by 4.867 Wh in 1 s: its rating of 10 kW allows 2.96"):
        found.read(0, 2.0, 2 * 4.867e-3, 0.0, None)
    assert found.drawn_kwh[0] == pytest.approx(4.867e-3)


def test_reading_of_before_the_run_does_not_set_the_register_back():
    found = books()
    found.read(0, 60.0, 5.0, 0.0, None)
    with pytest.raises(Untrue, match="came after"):
        found.read(0, -60.0, 4.9, 0.0, None)
