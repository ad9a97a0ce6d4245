"""What plots draw of a small result."""

import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure

from evgrid.errors import ResultError
from evgrid.results.plots import plot_duration, plot_envelope, plot_loading, plot_result


def envelope():
    """Two members, two groups, two times, two slots of half an hour; member 1 has most to shift at 13:00."""
    shape = (2, 2, 2, 2)  # member, trafo, envelope_time, lead
    dims = ("member", "trafo", "envelope_time", "lead")
    most = np.arange(16.0).reshape(shape)
    values = {"envelope_e_min_kwh": -most, "envelope_e_max_kwh": most, "envelope_p_min_kw": -2.0 * most,
              "envelope_p_max_kw": 2.0 * most}  # fmt: skip
    times = np.array(["2026-01-15T12:00", "2026-01-15T13:00"], "datetime64[ns]")
    return xr.Dataset(
        {name: (dims, array) for name, array in values.items()},
        {"member": [0, 1], "envelope_time": times, "lead": [0.0, 0.5]},
    )


def drawn(**choice):
    ax = Figure().subplots()
    plot_envelope(envelope(), ax, **choice)
    most, least = (line.get_ydata() for line in ax.lines[:2])
    return ax, most.tolist(), least.tolist()


def test_the_envelope_with_most_to_shift_is_drawn_from_nothing_on_over_all_groups():
    ax, most, least = drawn()
    assert most == [0.0, 10.0 + 14.0, 11.0 + 15.0]
    assert least == [0.0, -24.0, -26.0]
    assert ax.get_title() == "EVs plugged in at 2026-01-15 13:00, member 1"
    assert ax.get_ylabel() == "energy at the meter from then on (kWh)"
    times = ax.lines[0].get_xdata()
    assert [str(t)[11:16] for t in times] == ["13:00", "13:30", "14:00"]


def test_time_and_member_choose_and_power_is_in_steps():
    ax, most, least = drawn(time="2026-01-15T11:50", member=0, power=True)
    assert most == [2.0 * (0.0 + 4.0), 2.0 * (1.0 + 5.0), 2.0 * (1.0 + 5.0)]
    assert least == [-8.0, -12.0, -12.0]
    assert ax.get_title() == "EVs plugged in at 2026-01-15 12:00, member 0"
    assert ax.get_ylabel() == "power (kW, negative: to the grid)"


def test_a_result_without_envelope_is_reported():
    with pytest.raises(ResultError, match="the result has no envelope_p_max_kw, which this plot needs"):
        plot_envelope(envelope().drop_vars("envelope_p_max_kw"), Figure().subplots())


def run_of(days=1, members=2):
    """A run of two lines, of which the second has no rating, and a transformer; loading rises to 1.5."""
    time = np.datetime64("2026-01-01", "ns") + np.arange(24 * days) * np.timedelta64(1, "h")
    rising = np.broadcast_to(np.linspace(0.5, 1.5, len(time)), (members, len(time)))
    lines = np.stack([rising, np.full(rising.shape, np.nan)], axis=2)
    data = {
        "head_power_kw": (("member", "time", "phase"), rising[..., None]),
        "base_load_kw": (("member", "time"), 0.4 * rising),
        "voltage_min_pu": (("member", "time"), 1.0 - 0.1 * rising),
        "voltage_max_pu": (("member", "time"), np.ones(rising.shape)),
        "line_loading": (("member", "time", "line"), lines),
        "line_rated_ka": ("line", [0.2, np.nan]),
        "trafo_loading": (("member", "time", "trafo"), 0.5 * rising[..., None]),
        "trafo_rated_kva": ("trafo", [400.0]),
        "trafo_hot_spot_c": (("member", "time", "trafo"), 60 * rising[..., None]),
    }
    names = {
        "member": np.arange(members),
        "time": time,
        "phase": ["abc"],
        "line": ["L1", "L2"],
        "trafo": ["T1"],
    }
    return xr.Dataset(data, names, {"name": "drawn", "recorded": '{"bus": [0, 5]}'})


def test_loading_is_drawn_with_its_rating_its_element_and_what_is_not_checked():
    ax = plot_loading(run_of(), Figure().subplots())
    by_label = {line.get_label(): line for line in ax.lines}
    assert by_label["lines (highest: L1)"].get_ydata().max() == pytest.approx(150)
    assert by_label["transformers (highest: T1)"].get_ydata().max() == pytest.approx(75)
    assert [line.get_ydata()[0] for line in ax.lines if line.get_linestyle() == "--"] == [100]
    assert [text.get_text() for text in ax.texts] == ["not checked: no rating of 1 of 2 lines"]


def test_a_duration_curve_falls_over_the_hours_of_the_run():
    ax = plot_duration(run_of(), Figure().subplots())
    hours, power = ax.lines[0].get_data()
    assert (np.diff(power) <= 0).all()
    assert (power[0], power[-1]) == pytest.approx((1.5, 0.5))
    assert (hours[0], hours[-1]) == pytest.approx((0.25, 23.75))  # two members: half an hour each


def test_the_overview_has_a_panel_for_what_the_run_has_and_none_that_is_empty():
    titles = [ax.get_title() for ax in plot_result(run_of()).axes]
    assert titles == [
        "Feeder head", "Voltage over all buses and phases (dashed: EN 50160)",
        "Most loaded transformer and line (dashed: rating)",
        "Hottest transformer (dashed: 120 °C, IEC 60076-7)",
    ]  # fmt: skip
    long = plot_result(run_of(days=20))
    assert [ax.get_title() for ax in long.axes][-1] == "Load duration curves"
    head = long.axes[0].lines[1]
    assert len(head.get_xdata()) == 20  # a step a day, in place of its hours
    per_day = np.linspace(0.5, 1.5, 480).reshape(20, 24)
    np.testing.assert_allclose(head.get_ydata(), per_day.mean(axis=1))
    band = long.axes[0].collections[1].get_paths()[0].vertices[:, 1]
    assert (band.min(), band.max()) == pytest.approx((0.5, 1.5))
    assert all(ax.has_data() for ax in long.axes)
