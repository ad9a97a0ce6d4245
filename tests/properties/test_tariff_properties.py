"""What must hold for any tariff: the first window that covers a minute gives its price; means of any span."""

from datetime import date, timedelta

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from evgrid.core.model import Clock
from evgrid.scenario.tariffs import MonthlyPeaks, months_of, prices_of, tariff_from

NAMES = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
MINUTE = st.integers(0, 1439)
PRICE = st.floats(-1.0, 1.0, allow_subnormal=False)
WINDOW = st.tuples(
    st.lists(st.tuples(MINUTE, MINUTE).filter(lambda ends: ends[0] != ends[1]), min_size=1, max_size=3),
    st.lists(st.sampled_from(["all", "weekday", "weekend", *NAMES]), min_size=1, max_size=3),
    PRICE,
)


def clock_text(minute):
    return f"{minute // 60}:{minute % 60:02d}"


def tariff_of(windows, rest, holidays=()):
    periods = [
        {
            "name": "w",
            "hours": [[clock_text(first), clock_text(last)] for first, last in spans],
            "days": days,
            "price_per_kwh": price,
        }
        for spans, days, price in windows
    ]
    periods.append({"name": "rest", "price_per_kwh": rest})
    seasons = [{"name": "all", "months": list(range(1, 13)), "periods": periods}]
    return tariff_from({"name": "t", "seasons": seasons, "holidays": list(holidays)})


def on(day, days, holidays):
    weekday = 6 if day in holidays else day.weekday()
    return not {"all", NAMES[weekday], "weekend" if weekday > 4 else "weekday"}.isdisjoint(days)


def reference(windows, rest, holidays, day, minute):
    """The price of a minute of a day, window by window."""
    for spans, days, price in windows:
        for first, last in spans:
            evening = first <= minute and (minute < last or last < first) and on(day, days, holidays)
            before = last < first and minute < last and on(day - timedelta(1), days, holidays)
            if evening or before:
                return price
    return rest


@settings(max_examples=40, deadline=None)
@given(st.lists(WINDOW, max_size=3), PRICE, st.integers(0, 8), st.integers(0, 600), st.data())
def test_the_first_window_that_covers_a_minute_gives_its_price(windows, rest, holiday, start, data):
    first = date(2026, 1, 14)
    holidays = [first + timedelta(holiday)]
    clock = Clock(np.datetime64(first) + np.timedelta64(start, "m"), 60.0, 4 * 1440)
    drawn, _ = prices_of(tariff_of(windows, rest, holidays), None, clock).means(
        np.arange(clock.ticks + 1) * 60.0
    )
    for tick in data.draw(st.lists(st.integers(0, clock.ticks - 1), min_size=20, max_size=20)):
        day, minute = first + timedelta((start + tick) // 1440), (start + tick) % 1440
        assert drawn[tick] == reference(windows, rest, holidays, day, minute)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(WINDOW, max_size=3), PRICE,
    st.lists(st.floats(1.0, 40000.0), min_size=1, max_size=12),
    st.floats(-2 * 86400.0, 2 * 86400.0),
)  # fmt: skip
def test_means_over_any_spans_add_up_to_the_integral_over_the_minutes(windows, rest, lengths, begin):
    """However a time is cut into ticks, price times length sums up to the same."""
    edges = begin + np.concatenate([[0.0], np.cumsum(lengths)])
    clock = Clock(np.datetime64("2026-03-30T00:00"), 60.0, 1440)
    prices = prices_of(tariff_of(windows, rest), None, clock)
    fine = np.unique(np.concatenate([edges, np.arange(-3 * 1440, 9 * 1440) * 60.0]))
    fine = fine[(fine >= edges[0]) & (fine <= edges[-1])]
    whole = np.diff(fine) @ prices.means(fine)[0]
    np.testing.assert_allclose(np.diff(edges) @ prices.means(edges)[0], whole, rtol=1e-9, atol=1e-6)
    changes = prices.edges(edges[0], edges[-1])
    between = np.concatenate([[edges[0]], changes, [edges[-1]]])
    np.testing.assert_allclose(np.diff(between) @ prices.means(between)[0], whole, rtol=1e-9, atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 48), st.sampled_from([300.0, 900.0, 3600.0]), st.integers(0, 3000), st.integers(1, 12),
    st.lists(st.floats(-50.0, 50.0, allow_subnormal=False), min_size=1, max_size=24),
)  # fmt: skip
def test_a_peak_of_a_meter_depends_on_no_tick_and_no_block(parts, interval_s, start_s, blocks, power):
    """Power steady for 100 s at a time, as one tick each or cut into parts, told in blocks of any length."""
    start = np.datetime64("2026-01-31T23:40:00") + np.timedelta64(start_s, "s")
    power = np.array(power)[:, np.newaxis] * [1.0, -0.5]
    clock = Clock(start, 100.0, len(power))
    seconds = np.repeat(power, 100, axis=0)
    stamps = clock.timestamps(np.arange(len(seconds), dtype=float))
    midnight = np.datetime64("2026-01-31")
    interval = ((stamps - midnight) / np.timedelta64(1, "s") // interval_s).astype(int)
    means = {i: (stamps[interval == i][0], seconds[interval == i].mean(axis=0)) for i in np.unique(interval)}
    # an interval that began before the run has its month, too, which here is the month of the first second
    months = months_of(clock)
    expected = np.full((2, len(months)), np.nan)
    for begin, mean in means.values():
        place = int(np.flatnonzero(months == begin.astype("datetime64[M]"))[0])
        expected[:, place] = np.fmax(expected[:, place], mean)
    peaks = MonthlyPeaks(clock, interval_s, (2,))
    ticks = np.repeat(power, parts, axis=0)
    for block in np.array_split(ticks, min(blocks, len(ticks))):
        peaks.add(100.0 / parts, block)
    np.testing.assert_allclose(peaks.finish(), expected, rtol=1e-9, atol=1e-9)
