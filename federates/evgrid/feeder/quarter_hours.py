"""Quarter-hours of the clock, and those of a table of one year that have the same date and time of day."""

from __future__ import annotations

import math

import numpy as np

from evgrid.core.model import Array
from evgrid.feeder.grid import Ints

QUARTER_S = 900.0
DAY_QUARTERS = 96


def quarter_hours(begin_s: float, end_s: float, start_s: float) -> Array:
    """The quarter-hours of the clock between two times, and both, s from the run's start, which is at
    ``start_s`` s since 1970, local time.
    """
    first = math.floor((start_s + begin_s) / QUARTER_S + 1e-9) + 1
    last = math.ceil((start_s + end_s) / QUARTER_S - 1e-9)
    return np.concatenate([[begin_s], np.arange(first, last) * QUARTER_S - start_s, [end_s]])


def rows_of_year(quarters: Ints, year: int) -> Ints:
    """Row of a table of one year's quarter-hours that has the same date and time of day.

    quarters : quarter-hours since 1970, local time
    year : of the table, whose row 0 begins on 1 January at 0:00; where it is no leap year, its
        28 February stands for 29 February too
    returns : the rows; 1 March has the same one in each year
    """
    days, quarter = np.divmod(quarters, DAY_QUARTERS)
    dates = days.astype("datetime64[D]")
    months = dates.astype("datetime64[M]")
    day = (dates - months.astype("datetime64[D]")).astype(np.int64)
    first = np.datetime64(f"{year}-01", "M") + (months.astype(np.int64) % 12)
    begin, end = first.astype("datetime64[D]"), (first + 1).astype("datetime64[D]")
    day = np.minimum(day, (end - begin).astype(np.int64) - 1)
    row: Ints = ((begin - np.datetime64(f"{year}-01-01")).astype(np.int64) + day) * DAY_QUARTERS + quarter
    return row
