"""The bill of any tariff is a plain sum over intervals, however a run is cut into ticks or months."""

import calendar
from datetime import date, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evgrid.core.model import Clock
from evgrid.fleet.recording import BlockMeter
from evgrid.results.settlement import months_within
from evgrid.scenario.tariffs import DemandCharge, MonthlyPeaks, months_of, prices_of, tariff_from

START = datetime(2026, 1, 30, 0, 0)
DAYS = 4
PRICE = st.floats(-0.5, 0.5).map(lambda price: round(price, 3))
HOUR = st.integers(0, 23)
WINDOW = st.tuples(HOUR, HOUR, st.sampled_from(["all", "weekday", "weekend"])).filter(lambda w: w[0] != w[1])
POWER = st.lists(st.floats(-10.0, 20.0).map(lambda kw: round(kw, 2)), min_size=24 * DAYS, max_size=24 * DAYS)


def inside(window, when):
    """Whether a time is in a window of whole hours; over midnight it is of the day on which it begins."""
    first, last, days = window
    day = when.weekday()
    if last <= first and when.hour < last:
        day = (day - 1) % 7
    elif not (first <= when.hour and (when.hour < last or last <= first)):
        return False
    return days == "all" or (day > 4) == (days == "weekend")


def window_of(window):
    return {"hours": [list(window[:2])], "days": window[2]}


@st.composite
def tariffs(draw):
    """The content of a tariff with any of its parts, and what a plain sum needs to know of it."""
    windows = draw(st.lists(WINDOW, max_size=2))
    prices = [draw(PRICE) for _ in range(len(windows) + 1)]
    credit = draw(st.none() | PRICE)
    edges = sorted(draw(st.sets(st.integers(5, 120), max_size=2)))
    by = draw(st.sampled_from(["month", "period"]))
    other = draw(st.sampled_from([0.0, 20.0])) if by == "month" else 0.0
    blocks = [{e: draw(PRICE) for e in edges} for _ in prices]
    periods = [
        {
            "name": f"p{k}",
            "price_per_kwh": price,
            "blocks": [{"above_kwh": e, "price_per_kwh": p} for e, p in of.items()],
            **(window_of(windows[k]) if k < len(windows) else {}),
        }
        for k, (price, of) in enumerate(zip(prices, blocks, strict=True))
    ]
    content = {
        "name": "t",
        "seasons": [{"name": "all", "months": list(range(1, 13)), "periods": periods}],
        "surcharge_per_kwh": draw(st.sampled_from([0.0, 0.1])),
        "vat_percent": draw(st.sampled_from([0.0, 19.0])),
    }
    if edges:
        content["blocks"] = {"by": by, "other_kwh": other}
    if credit is not None:
        content["export_per_kwh"] = credit
    return content, windows, prices, blocks


def by_hour(content, windows, prices, blocks, power):
    """Cost at the first blocks' prices, and what the blocks add, hour by hour in plain Python."""
    tax = 1 + content["vat_percent"] / 100
    cost, drawn = 0.0, {}
    for k, kw in enumerate(power):
        when = START + timedelta(hours=k)
        period = next((n for n, w in enumerate(windows) if inside(w, when)), len(windows))
        price = (prices[period] + content["surcharge_per_kwh"]) * tax
        cost += kw * (price if kw > 0 else content.get("export_per_kwh", price))
        of_month = drawn.setdefault(when.month, [0.0] * len(prices))
        of_month[period] += max(kw, 0.0)
    added = 0.0
    for energy in drawn.values():
        for n, kwh in enumerate(energy):
            rule = content.get("blocks")
            if rule is None or not kwh:
                continue
            filled = sum(energy) if rule["by"] == "month" else kwh
            low, high = rule["other_kwh"], rule["other_kwh"] + filled
            edges = [0.0, *blocks[n], np.inf]
            at = [prices[n], *blocks[n].values()]
            for price, a, b in zip(at, edges[:-1], edges[1:], strict=True):
                part = max(min(high, b) - max(low, a), 0.0)
                added += (price - prices[n]) * part * kwh / filled * tax
    return cost, added


@settings(max_examples=40, deadline=None)
@given(tariffs(), POWER, st.sampled_from([900, 1200, 3600]))
def test_energy_and_blocks_are_a_sum_over_hours(drawn, power, step_s):
    """At any tick that divides an hour; power of either sign, credit above or below the price."""
    content, windows, prices, blocks = drawn
    tariff = tariff_from(content)
    clock = Clock(np.datetime64(START), float(step_s), len(power) * 3600 // step_s)
    kw = np.repeat(power, 3600 // step_s)
    price, credit = prices_of(tariff, None, clock).means(np.arange(clock.ticks + 1.0) * step_s)
    cost = (np.where(kw > 0, kw * price, kw * credit)).sum() * step_s / 3600
    expected, added = by_hour(content, windows, prices, blocks, power)
    assert cost == pytest.approx(expected, rel=1e-9, abs=1e-9)
    if tariff.has_blocks:
        meter = BlockMeter(tariff, clock, (1,))
        for tick, value in enumerate(kw):
            meter.add(tick, np.maximum([value], 0.0))
        assert tariff.block_charge(meter.energy_kwh)[0] == pytest.approx(added, rel=1e-9, abs=1e-9)
    else:
        assert not added


@settings(max_examples=40, deadline=None)
@given(
    POWER, st.lists(st.tuples(WINDOW, st.floats(0, 9), st.sampled_from([0.0, 4.0])), min_size=1, max_size=2),
    st.floats(0, 9), st.sampled_from([None, 0.5, 1.0]), st.sampled_from([0.0, 15.0]), st.sampled_from([1, 2]),
    st.sampled_from([900, 3600]),
)  # fmt: skip
def test_demand_charges_are_the_highest_hours(power, windows, price, share, before, meter_h, step_s):
    """Of each month, in all hours and in windows, above a power, and at least a share of the month before."""
    ratchet = None if share is None else {"share": share, "before_kw": before, "lookback": 1}
    prices = [{"price_per_kw": price, "ratchet": ratchet}]
    prices += [{"price_per_kw": p, "above_kw": a, "windows": [window_of(w)]} for w, p, a in windows]
    content = {"name": "t", "demand": {"prices": prices, "interval": meter_h * 3600.0}}
    periods = [{"name": "p", "price_per_kwh": 0.1}]
    content["seasons"] = [{"name": "all", "months": list(range(1, 13)), "periods": periods}]
    tariff = tariff_from(content)
    clock = Clock(np.datetime64(START), float(step_s), len(power) * 3600 // step_s)
    peaks = MonthlyPeaks.of(tariff, clock, (1,))
    peaks.add(float(step_s), np.repeat(power, 3600 // step_s)[:, np.newaxis])
    charge = tariff.demand.charge(peaks.finish(), peaks.in_windows, months_of(clock))
    means = [
        (START + timedelta(hours=k), np.mean(power[k : k + meter_h])) for k in range(0, len(power), meter_h)
    ]
    expected, least = 0.0, before * (share or 0.0)
    for month in (1, 2):
        of_month = [(when, mean) for when, mean in means if when.month == month]
        highest = max(0.0, *(mean for _, mean in of_month))
        expected += price * max(highest, least)
        least = highest * (share or 0.0)
        for window, of_window, above in windows:
            inside_kw = [mean for when, mean in of_month if inside(window, when)]
            expected += of_window * max(max(inside_kw, default=0.0) - above, 0.0)
    assert charge[0] == pytest.approx(expected, rel=1e-9, abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(tariffs(), POWER, st.integers(1, 24 * DAYS - 1))
def test_a_run_cut_in_two_costs_the_same(drawn, power, cut):
    """Energy and fixed charges anywhere; blocks and power where the cut is the end of a month."""
    tariff = tariff_from(drawn[0])
    month_end = 48

    def bill(first, last):
        clock = Clock(np.datetime64(START + timedelta(hours=first)), 3600.0, last - first)
        kw = np.array(power[first:last])
        price, credit = prices_of(tariff, None, clock).means(np.arange(clock.ticks + 1.0) * 3600.0)
        blocks = 0.0
        if tariff.has_blocks:
            meter = BlockMeter(tariff, clock, (1,))
            for tick, value in enumerate(kw):
                meter.add(tick, np.maximum([value], 0.0))
            blocks = tariff.block_charge(meter.energy_kwh)[0]
        peaks = MonthlyPeaks(clock, 3600.0, (1,))
        peaks.add(3600.0, kw[:, np.newaxis])
        peak = DemandCharge(prices=({"price_per_kw": 3.0},)).charge(
            peaks.finish(), peaks.in_windows, months_of(clock)
        )[0]
        months = months_within(clock.start, clock.duration_s)
        return np.array([np.where(kw > 0, kw * price, kw * credit).sum(), months, blocks, peak])

    whole = bill(0, len(power))
    np.testing.assert_allclose((bill(0, cut) + bill(cut, len(power)))[:2], whole[:2], rtol=1e-9, atol=1e-9)
    at_end = bill(0, month_end) + bill(month_end, len(power))
    np.testing.assert_allclose(at_end, whole, rtol=1e-9, atol=1e-9)


@given(st.dates(date(2024, 1, 1), date(2026, 12, 1)), st.integers(1, 400))
def test_months_are_by_their_days(day, days):
    """A day is one part in 28 to 31 of its month."""
    parts = [day + timedelta(k) for k in range(days)]
    expected = sum(1 / calendar.monthrange(at.year, at.month)[1] for at in parts)
    assert months_within(np.datetime64(day), days * 86400.0) == pytest.approx(expected)
