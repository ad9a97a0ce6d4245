"""What plots draw of a small result."""

import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure

from evgrid.errors import ResultError
from evgrid.results.plots import plot_envelope


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
