"""Kernels of a feeder's results against numpy."""

from __future__ import annotations

import numpy as np
import pytest

from evgrid.feeder import kernels
from evgrid.studies.hosting_capacity import bus_extremes


@pytest.fixture
def loading():
    """(case, element, phase) with ties, an element without a rating, and a case without solution."""
    values = np.random.default_rng(0).integers(0, 6, (24, 5, 3)) / 4.0
    values[:, 2], values[7] = np.nan, np.nan
    return values


@pytest.mark.filterwarnings("ignore:All-NaN")
def test_extremes(loading):
    some, (lowest, highest) = np.array([0, 2, 4]), np.empty((2, 24))
    kernels.extremes(loading, some, lowest, highest)
    np.testing.assert_array_equal(lowest, np.nanmin(loading[:, some], axis=(1, 2)))
    np.testing.assert_array_equal(highest, np.nanmax(loading[:, some], axis=(1, 2)))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_worst_phases(loading, dtype):
    loading[3, 1] = [np.nan, 1.0, 2.0]
    worst = np.empty((24, 5), dtype)
    kernels.worst_phases(loading, worst)
    np.testing.assert_array_equal(worst, loading.max(axis=2).astype(dtype))


@pytest.mark.parametrize("solved", [4, 1])
def test_the_highest_loading_and_its_phase(loading, solved):
    highest, phase = np.zeros((4, 5)), np.full((4, 5), -1)
    for part in (loading[:8], loading[8:]):
        kernels.update_highest(part, solved, highest, phase)
    by_member = (
        np.nan_to_num(loading).reshape(-1, solved, 5, 3).swapaxes(1, 2)
    )  # (step, element, member, phase)
    for member in range(4):
        of_member = by_member[:, :, member if solved > 1 else 0]
        for element in range(5):
            values = of_member[:, element]
            assert highest[member, element] == values.max()
            first = np.unravel_index(values.argmax(), values.shape)[1] if values.any() else -1
            assert phase[member, element] == first


def test_extremes_of_buses_leave_out_what_is_dead():
    voltage = np.random.default_rng(1).uniform(0.9, 1.1, (3, 4, 5, 3)).astype(np.float32)
    voltage[:, 1, 2], voltage[0, 0, 3], voltage[:, :, 4] = 0.0, np.nan, 0.0
    lowest, highest = bus_extremes(voltage)
    there = np.where(voltage > 0, voltage, np.nan)[:, :, :4]
    np.testing.assert_array_equal(lowest[:4], np.nanmin(there, axis=(0, 1, 3)))
    np.testing.assert_array_equal(highest[:4], np.nanmax(there, axis=(0, 1, 3)))
    assert np.isnan([lowest[4], highest[4]]).all()
