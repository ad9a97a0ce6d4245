"""Limits of the grid, and their violations in a run.

In: a result (Dataset with dimensions member, time and an element: bus and phase, line, trafo) and a
:class:`LimitSet`. Out: :func:`violations`, a table with criterion, element, phase, start, duration
and severity; :func:`violated`, a bool per member and criterion, fast for large
ensembles; :func:`coverage`, the criteria that could be checked.

A :class:`Criterion` is one bound on one variable: a band, an averaging time, and the share of
each week that may lie outside. The standards are presets of it (``PRESETS``); own limits are
criteria with own numbers.

**Means.** Values of a result are means over its recording interval. A criterion's averaging time
must be a multiple of that interval, else there is an error. Where the recording interval is longer
than the averaging time, its values are used as they are, which hides short excursions, and
``notes`` says so. Blocks are counted from the start of the run; a last, incomplete block is left
out, unless it is the only one. A moving mean is checked from its first complete window on; of a run
shorter than the window its mean is checked.

**Share of a week.** ``allowed_share`` of the means of each element and phase may lie outside the
band within each week (EN 50160: 5 % of 1008 means). A run shorter than a week is checked on its
means: on a day of 144 means, 7 may lie outside. That is stricter than for a week of which one
day is run, and right where the day represents all days. A longer run is checked week by week from
its start, and on its last seven days.

**Not energised.** NaN, and a voltage of 0, is an element, phase or time that is not energised: it
counts neither as a violation nor among the means. A value within 1e-6 of its limit (relative, above 1) is
within it, since results are stored in single precision.

Left out: flicker, harmonics, dips and swells; interruptions are in
:func:`evgrid.results.metrics.reliability`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from evgrid.aggregator.excess import KEPT
from evgrid.core.jit import njit
from evgrid.core.units import DAY_S
from evgrid.errors import ResultError
from evgrid.results.phase_names import phase_names
from evgrid.results.recording import KINDS, unrecorded
from evgrid.scenario.fields import Duration, Settings, fault

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

WEEK_S = 7 * DAY_S
TOLERANCE = 1e-6
"""Tolerance within which a value beyond its limit counts as within it: results are in single precision."""

_BLOCK_BYTES = 64 * 2**20

COLUMNS = (
    "member", "criterion", "element", "name", "phase", "first_time", "duration_h", "worst", "limit", "unit",
    "severity",
)  # fmt: skip
"""Columns of :func:`violations`."""


class Criterion(Settings):
    """A bound on one variable of a result."""

    name: Annotated[str, Field(min_length=1)]
    """Name of the criterion."""
    variable: Annotated[str, Field(min_length=1)]
    """Variable of the result, with the dimensions member, time and those of the element."""
    low: float | None = None
    """Least allowed value, in the variable's unit; left out: none."""
    high: float | None = None
    """Greatest allowed value, in the variable's unit; left out: none."""
    mean_over: Annotated[Duration, Field(ge=0)] = 0.0
    """Averaging time; 0: the recording interval."""
    moving: bool = False
    """Whether the mean moves along with every recording interval, instead of block after block."""
    allowed_share: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the means of each week that may lie outside."""
    per: str | None = None
    """Variable without time that holds the rating of each element; the bounds are then per rating."""
    tolerance: Annotated[float, Field(ge=0, lt=1)] = TOLERANCE
    """Tolerance beyond a bound, relative to the bounds (1 at least)."""

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        if self.low is None and self.high is None:
            raise fault("low, high: at least one of them is required")
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise fault(f"low = {self.low:g}: must be less than high = {self.high:g}")
        if self.moving and not self.mean_over:
            raise fault("mean_over: is required where the mean is moving")
        if self.moving and self.allowed_share:
            raise fault("allowed_share: is a share of block means, so moving must be false")
        return self

    @property
    def slack(self) -> float:
        """Tolerance beyond a bound, in the variable's unit."""
        return self.tolerance * max(1.0, abs(self.low or 0.0), abs(self.high or 0.0))

    @property
    def text(self) -> str:
        """The bounds in words: "at most 1.5 of trafo_rating_kva, recorded values"."""
        if self.low is not None and self.high is not None:
            bounds = f"{self.low:g} to {self.high:g}"
        else:
            bounds = f"at most {self.high:g}" if self.low is None else f"at least {self.low:g}"
        if self.per is not None:
            bounds += f" of {self.per}"
        mean = f"{'moving ' if self.moving else ''}means over {self.mean_over:g} s" if self.mean_over else ""
        share = f"{1 - self.allowed_share:.0%} of the " if self.allowed_share else ""
        return f"{self.variable} {bounds}, {share}{mean or 'recorded values'}"

    @property
    def scale(self) -> float:
        """Reference of an excess in ``severity``: half the band, or the only bound."""
        if self.low is None or self.high is None:
            bound = abs(self.high if self.low is None else self.low)  # type: ignore[arg-type]
            return bound or 1.0
        return (self.high - self.low) / 2


class LimitSet(Settings):
    """Criteria that are checked together; sets add up."""

    criteria: Annotated[tuple[Criterion, ...], Field(min_length=1)]
    """The criteria, each with a name of its own."""

    @model_validator(mode="after")
    def _names(self) -> Self:
        names = [criterion.name for criterion in self.criteria]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise fault(f"criteria: {', '.join(twice)} given twice; names must differ")
        return self

    def __add__(self, other: LimitSet) -> LimitSet:
        return LimitSet(criteria=(*self.criteria, *other.criteria))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the criteria."""
        return tuple(criterion.name for criterion in self.criteria)


def en_50160(
    low: float = 0.90, high: float = 1.10, share: float = 0.95, lowest: float = 0.85, highest: float = 1.10
) -> LimitSet:
    """Supply voltage variations in low voltage, EN 50160:2010, clause 4.2.2 (10-minute means, pu).

    ``share`` of the means of each week within ``low`` to ``high``, all within ``lowest`` to ``highest``.
    """
    return LimitSet(
        criteria=(
            Criterion(name="en_50160", variable="voltage_pu", low=low, high=high, mean_over=600.0,
                      allowed_share=round(1 - share, 12)),
            Criterion(name="en_50160_always", variable="voltage_pu", low=lowest, high=highest,
                      mean_over=600.0),
        )
    )  # fmt: skip


def ansi_c84_1_a(low: float = 0.95, high: float = 1.05, mean_over: float = 0.0) -> LimitSet:
    """Service voltage, range A, of ANSI C84.1, Table 1 (120 V to 600 V), pu.

    The standard limits sustained voltages; ``mean_over``, s, is the time taken as sustained.
    """
    return LimitSet(
        criteria=(
            Criterion(name="ansi_c84_1_a", variable="voltage_pu", low=low, high=high, mean_over=mean_over),
        )
    )


def ansi_c84_1_b(low: float = 0.917, high: float = 1.058, mean_over: float = 0.0) -> LimitSet:
    """Service voltage, range B, of ANSI C84.1, Table 1 (120 V to 600 V), pu; see :func:`ansi_c84_1_a`.

    That excursions into range B shall be limited in extent, frequency and duration is not checked.
    """
    return LimitSet(
        criteria=(
            Criterion(name="ansi_c84_1_b", variable="voltage_pu", low=low, high=high, mean_over=mean_over),
        )
    )


def vuf(limit: float = 0.02, share: float = 0.95) -> LimitSet:
    """Voltage unbalance V2/V1, EN 50160:2010, clause 4.2.4: 10-minute means, ``share`` of each week."""
    return LimitSet(
        criteria=(
            Criterion(name="vuf", variable="voltage_unbalance", high=limit, mean_over=600.0,
                      allowed_share=round(1 - share, 12)),
        )
    )  # fmt: skip


def vuf_ansi(limit: float = 0.03, mean_over: float = 0.0) -> LimitSet:
    """Voltage unbalance of 3 %, ANSI C84.1, Annex C.

    The standard takes the largest deviation from the mean of the line voltages per that mean, at no
    load; here it is V2/V1 under load, which is close to it for small unbalance.
    """
    return LimitSet(
        criteria=(Criterion(name="vuf_ansi", variable="voltage_unbalance", high=limit, mean_over=mean_over),)
    )


def ratings(line: float = 1.0, trafo: float = 1.0, mean_over: float = 0.0) -> LimitSet:
    """Rated current of lines and transformers, worst phase, per rating."""
    return LimitSet(
        criteria=(
            Criterion(name="line_rating", variable="line_loading", high=line, mean_over=mean_over),
            Criterion(name="trafo_rating", variable="trafo_loading", high=trafo, mean_over=mean_over),
        )
    )


def thermal_instantaneous(line: float = 1.5, trafo: float = 1.5) -> LimitSet:
    """Highest current, per rating, in any recording interval: as in the DISCO hosting-capacity tool.

    1.5 is also the current limit for normal cyclic loading of IEC 60076-7:2018, Table 3.
    """
    return LimitSet(
        criteria=(
            Criterion(name="line_instantaneous", variable="line_loading", high=line),
            Criterion(name="trafo_instantaneous", variable="trafo_loading", high=trafo),
        )
    )


def thermal_moving_average(
    line: float = 1.2, trafo: float = 1.2, line_window: float = 3600.0, trafo_window: float = 7200.0
) -> LimitSet:
    """Moving mean of the current, per rating: lines over 1 h, transformers over 2 h, as in DISCO."""
    return LimitSet(
        criteria=(
            Criterion(name="line_moving_average", variable="line_loading", high=line, mean_over=line_window,
                      moving=True),
            Criterion(name="trafo_moving_average", variable="trafo_loading", high=trafo,
                      mean_over=trafo_window, moving=True),
        )
    )  # fmt: skip


def neutral_current(limit: float = 1.0, mean_over: float = 0.0) -> LimitSet:
    """Current in the neutral of lines, per rating of the neutral.

    The rating is ``neutral_rated_a`` of the result; without it that of a phase (``line_rated_ka``),
    as for a neutral of the same cross-section.
    """
    return LimitSet(
        criteria=(
            Criterion(name="neutral_current", variable="neutral_current_a", high=limit, per="neutral_rated_a",
                      mean_over=mean_over),
        )
    )  # fmt: skip


def hot_spot(limit: float = 120.0) -> LimitSet:
    """Hot spot of transformers, °C: 120 for normal cyclic loading (IEC 60076-7:2018, Table 3).

    Needs ``trafo_hot_spot_c``, which a run with ``feeder.transformer_ageing`` records and
    :func:`evgrid.feeder.transformer_thermal.transformer_ageing` gives afterwards.
    """
    return LimitSet(criteria=(Criterion(name="hot_spot", variable="trafo_hot_spot_c", high=limit),))


PRESETS: Mapping[str, Callable[[], LimitSet]] = {
    "en_50160": en_50160,
    "ansi_c84_1_a": ansi_c84_1_a,
    "ansi_c84_1_b": ansi_c84_1_b,
    "vuf": vuf,
    "vuf_ansi": vuf_ansi,
    "ratings": ratings,
    "thermal_instantaneous": thermal_instantaneous,
    "thermal_moving_average": thermal_moving_average,
    "neutral_current": neutral_current,
    "hot_spot": hot_spot,
}
"""The standards' limit sets by name, each with its default numbers."""


LIMITED_POWER = "limited_power_kw"
"""Variable of the power that an aggregator's limit is for; of several its name follows."""

AGGREGATORS = "aggregators"
"""Name of the set of the limits of the run's aggregators, see :func:`aggregator_limits`."""


def aggregator_limits(result: xr.Dataset) -> tuple[Criterion, ...]:
    """The limits of the run's aggregators: a criterion each, on the power that it is for."""
    try:
        aggregators = json.loads(result.attrs["scenario"]).get("aggregators") or {}
    except (KeyError, TypeError, ValueError):
        return ()
    found = []
    for name, settings in aggregators.items():
        variable = next((v for v in (f"{LIMITED_POWER}_{name}", LIMITED_POWER) if v in result), None)
        most, least = settings.get("limit_kw"), settings.get("export_limit_kw", settings.get("limit_kw"))
        if variable is None or (most is None and least is None):
            continue
        found.append(
            Criterion(
                name=f"limit_of_{name}",
                variable=variable,
                high=most,
                low=None if least is None else -least,
                mean_over=settings.get("limit_over", 0.0),
                tolerance=KEPT,
            )
        )
    return tuple(found)


def bank_names(result: xr.Dataset) -> NDArray[Any]:
    """Names of the transformers of each one's bank, (trafo,), which is one group of an aggregator."""
    return np.asarray(result["trafo_bank" if "trafo_bank" in result.coords else "trafo"].values.astype(str))


def default_limits(result: xr.Dataset) -> tuple[tuple[str, ...], str]:
    """Names of the sets that fit a result, and why: ANSI C84.1, range A, in a network of 60 Hz, else EN
    50160; ratings; the limits of its aggregators.
    """
    hz = float(result.attrs.get("frequency_hz", 50.0))
    voltage = "ansi_c84_1_a" if round(hz) == 60 else "en_50160"
    return (voltage, "ratings", AGGREGATORS), f"as the network has {hz:g} Hz"


def limit_set(*parts: str | Criterion | LimitSet) -> LimitSet:
    """One set of presets (by name), criteria and sets.

    >>> limit_set("en_50160", "ratings").names
    ('en_50160', 'en_50160_always', 'line_rating', 'trafo_rating')

    Raises
    ------
    ValueError
        For a name that is no preset, naming all of them.

    """
    criteria: list[Criterion] = []
    for part in parts:
        if isinstance(part, Criterion):
            criteria.append(part)
        elif isinstance(part, LimitSet):
            criteria.extend(part.criteria)
        elif part in PRESETS:
            criteria.extend(PRESETS[part]().criteria)
        else:
            raise ValueError(f"limits = {part}: must be one of {', '.join([*PRESETS, AGGREGATORS])}")
    return LimitSet(criteria=tuple(criteria))


def limits_frame(limits: LimitSet) -> pd.DataFrame:
    """The numbers of each criterion: a row each, with the columns ``criterion``, ``variable``, ``low``,
    ``high`` (NaN: none), ``per`` ("": the variable's own unit), ``mean_over_s`` (0: recorded values),
    ``moving`` and ``allowed_share`` of the means of a week.
    """
    import pandas as pd

    rows = [
        (c.name, c.variable, c.low, c.high, c.per or "", c.mean_over, c.moving, c.allowed_share)
        for c in limits.criteria
    ]
    names = ["criterion", "variable", "low", "high", "per", "mean_over_s", "moving", "allowed_share"]
    return pd.DataFrame(rows, columns=names).astype({"low": float, "high": float})


# ---------------------------------------------------------------------------------------- kernels


@njit
def unbalance(a: complex, b: complex, c: complex) -> float:
    """Negative per positive sequence voltage, |V2|/|V1|, of three phase-to-neutral phasors.

    With α = exp(j 120°): 3 V1 = a + α b + α² c, 3 V2 = a + α² b + α c. NaN if a phase is 0 or NaN,
    that is, not energised.
    """
    if not (abs(a) > 0.0 and abs(b) > 0.0 and abs(c) > 0.0):
        return np.nan
    turn = complex(-0.5, math.sqrt(0.75))
    back = complex(-0.5, -math.sqrt(0.75))
    return abs(a + back * b + turn * c) / abs(a + turn * b + back * c)


@njit
def _unbalances(phasors: NDArray[np.complex128], out: NDArray[np.float64]) -> None:
    for i in range(len(out)):
        out[i] = unbalance(phasors[i, 0], phasors[i, 1], phasors[i, 2])


def voltage_unbalance_factor(phasors: NDArray[Any]) -> NDArray[np.float64]:
    """Voltage unbalance factor |V2|/|V1|; see :func:`unbalance`.

    phasors : (..., 3) complex, phase to neutral, any unit; result (...), 0 when balanced

    >>> turn = np.exp(2j * np.pi / 3)
    >>> bool(voltage_unbalance_factor(np.array([1, 1 / turn, turn])) < 1e-15)
    True
    """
    phasors = np.ascontiguousarray(phasors, dtype=np.complex128)
    if phasors.shape[-1:] != (3,):
        raise ValueError(f"phasors have shape {phasors.shape}, must be (..., 3)")
    out = np.empty(phasors.shape[:-1])
    _unbalances(phasors.reshape(-1, 3), out.reshape(-1))
    return out


@njit
def extent(values: NDArray[np.float32], dead: float) -> tuple[float, float]:
    """Least and greatest value above ``dead``, NaN left out; inf and -inf if there is none."""
    least, greatest = np.inf, -np.inf
    for step in range(values.shape[0]):
        for i in range(values.shape[1]):
            value = values[step, i]
            if value > dead:
                least, greatest = min(least, value), max(greatest, value)
    return least, greatest


@njit
def check_series(
    values: NDArray[np.float32],
    dead: float,
    low: float,
    high: float,
    window: int,
    moving: bool,
    share: float,
    week: int,
    stop: bool,
    count: NDArray[np.int64],
    first: NDArray[np.int64],
    worst: NDArray[np.float64],
) -> bool:
    """Check the series of all items of one member against one criterion; whether any item violates it.

    values : (time, item), any float; NaN, and values up to ``dead``, are not energised
    low, high : bounds, tolerance included, -inf and inf for none
    window : intervals a mean goes over; moving : interval after interval, or block after block
    share, week : share of the means of each ``week`` means that may lie outside
    stop : return at the first violation; only for a share of 0
    count : (item,), written: means outside, 0 where the item does not violate the criterion
    first : (item,), written: first interval whose mean lies outside (its block; its moving end), or -1
    worst : (item,), written: mean furthest outside, else NaN
    """
    steps, items = values.shape
    window = min(window, steps)
    count[:] = 0
    first[:] = -1
    worst[:] = np.nan
    total = np.zeros(items)
    there = np.zeros(items, np.int64)
    seen = np.zeros(items, np.int64)  # means in this week
    out = np.zeros(items, np.int64)  # means outside in this week
    seen_last = np.zeros(items, np.int64)  # the same in the last week's worth of means
    out_last = np.zeros(items, np.int64)
    broken = np.zeros(items, np.bool_)
    blocks = steps // window
    from_last = max(blocks - week, 0)
    any_broken = False
    for step in range(steps):
        if not moving and step >= blocks * window:
            break
        for i in range(items):
            value = values[step, i]
            if value > dead:
                total[i] += value
                there[i] += 1
        if moving and step >= window:
            for i in range(items):
                value = values[step - window, i]
                if value > dead:
                    total[i] -= value
                    there[i] -= 1
        if (step < window - 1) if moving else ((step + 1) % window != 0):
            continue
        block = step // window
        for i in range(items):
            if there[i] == 0:
                continue
            mean = total[i] / there[i]
            seen[i] += 1
            seen_last[i] += block >= from_last
            if mean < low or mean > high:
                count[i] += 1
                out[i] += 1
                out_last[i] += block >= from_last
                if first[i] < 0:
                    first[i] = step if moving else block * window
                if math.isnan(worst[i]) or max(low - mean, mean - high) > max(
                    low - worst[i], worst[i] - high
                ):
                    worst[i] = mean
                if share == 0.0:
                    broken[i] = True
                    any_broken = True
                    if stop:
                        return True
        if not moving:
            total[:] = 0.0
            there[:] = 0
            if (block + 1) % week == 0:
                for i in range(items):
                    broken[i] |= out[i] > share * seen[i] + 1e-9
                seen[:] = 0
                out[:] = 0
    if share > 0.0:
        for i in range(items):
            broken[i] |= out_last[i] > share * seen_last[i] + 1e-9
            any_broken |= broken[i]
    for i in range(items):
        if not broken[i]:
            count[i] = 0
            first[i] = -1
            worst[i] = np.nan
    return any_broken


# --------------------------------------------------------------------------------------- checking


@dataclass(frozen=True)
class _Check:
    """Arguments of the kernel for a criterion and a result."""

    criterion: Criterion
    dims: tuple[str, ...]
    window: int  # recording intervals a mean goes over
    week: int  # means a week
    mean_s: float  # time that a counted mean covers
    rating: NDArray[np.float64] | None
    note: str

    def run(
        self, values: NDArray[Any], stop: bool = False
    ) -> tuple[bool, NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
        """See :func:`check_series`; values : (time, item) of one member."""
        c, items = self.criterion, values.shape[1]
        if self.rating is not None:
            values = values / self.rating
        count, first = np.empty(items, np.int64), np.empty(items, np.int64)
        worst = np.empty(items)
        low = -np.inf if c.low is None else c.low - c.slack
        high = np.inf if c.high is None else c.high + c.slack
        dead = 0.0 if c.variable == "voltage_pu" else -np.inf
        least, greatest = extent(values, dead)
        if low <= least and greatest <= high:  # then every mean lies within, too
            return False, np.zeros(items, np.int64), first, worst
        any_broken = check_series(
            values, dead, low, high,
            self.window, c.moving, c.allowed_share, self.week, stop and c.allowed_share == 0,
            count, first, worst,
        )  # fmt: skip
        return bool(any_broken), count, first, worst


def violations(result: xr.Dataset, limits: LimitSet) -> pd.DataFrame:
    """Every violation of the limits: a row for each member, criterion, element and phase.

    Returns
    -------
    pandas.DataFrame
        Sorted by severity, the worst first. Columns: ``member``, ``criterion``, ``element`` (bus,
        line, trafo), ``name``, ``phase`` ("" where there is none; s1 and s2 for the legs of a
        split-phase service; of a line or transformer in three phases that of its highest loading in the
        run), ``first_time`` (start of the first mean outside; of a moving mean: start of the interval that
        completes it), ``duration_h`` (total time of the means outside, not only the longest stretch),
        ``worst`` (the mean furthest outside), ``limit`` (the bound that it crosses), ``unit``, and
        ``severity`` (excess per half the band, or per the only bound, so that voltages and currents
        compare). Without violations the table has the same columns and no rows. ``attrs["not_available"]``
        names the criteria that could not be checked, ``attrs["notes"]`` says how others were.

    Raises
    ------
    ResultError
        If an averaging time is no multiple of the recording interval.

    """
    import pandas as pd

    checks, missing = _checks(result, limits)
    time, members = result["time"].values, _labels(result, "member")
    parts = []
    for variable, group in _by_variable(checks).items():
        kind, names, phases = _items(result, group[0].dims)
        if kind == "trafo" and variable.startswith(LIMITED_POWER):
            names = bank_names(result)
        unit = str(result[variable].attrs.get("units", "1"))
        loaded = _worst_phases(result, variable, kind)
        for m, values in _members(result, variable):
            if loaded is not None:
                phases = loaded[m]
            for check in group:
                any_broken, count, first, worst = check.run(values)
                if not any_broken:
                    continue
                c, at = check.criterion, np.flatnonzero(count)
                below = np.full(len(at), -np.inf) if c.low is None else c.low - worst[at]
                above = np.full(len(at), -np.inf) if c.high is None else worst[at] - c.high
                parts.append(
                    pd.DataFrame(
                        {
                            "member": members[m],
                            "criterion": c.name,
                            "element": kind,
                            "name": names[at],
                            "phase": phases[at],
                            "first_time": time[first[at]],
                            "duration_h": count[at] * check.mean_s / 3600,
                            "worst": worst[at],
                            "limit": np.where(below > above, c.low or 0.0, c.high or 0.0),
                            "unit": "1" if c.per else unit,
                            "severity": np.maximum(below, above) / c.scale,
                        }
                    )
                )
    order = {name: i for i, name in enumerate(limits.names)}
    table = pd.concat(parts, ignore_index=True) if parts else _empty_table()
    table["_order"] = table["criterion"].map(order)
    table = table.sort_values(
        ["severity", "duration_h", "member", "_order"], ascending=[False, False, True, True], kind="stable"
    )
    table = table.drop(columns="_order").reset_index(drop=True)
    partly = [f"{dim}: {unrecorded(result, dim)}" for dim in KINDS if unrecorded(result, dim)]
    table.attrs.update(not_available=[*missing, *partly], notes=_notes(checks, result))
    return table


def violated(result: xr.Dataset, limits: LimitSet) -> xr.Dataset:
    """Whether each member violates each criterion, and any of them.

    Members are read one block after the other, so that the result may be larger than memory, and
    a criterion that allows no excursion is left at the first one.

    Returns
    -------
    xarray.Dataset
        ``violated`` (member, criterion) and ``violated_any`` (member), bool. Criteria that could
        not be checked are not among ``criterion``: ``attrs["not_available"]`` names them with the
        reason, ``attrs["notes"]`` says how others were checked.

    Raises
    ------
    ResultError
        If an averaging time is no multiple of the recording interval.

    """
    import xarray as xr

    checks, missing = _checks(result, limits)
    found = np.zeros((result.sizes["member"], len(checks)), np.bool_)
    place = {id(check): i for i, check in enumerate(checks)}
    for variable, group in _by_variable(checks).items():
        for m, values in _members(result, variable):
            for check in group:
                found[m, place[id(check)]] = check.run(values, stop=True)[0]
    about = {"long_name": "whether the member violates the criterion", "units": "1"}
    together = {"long_name": "whether the member violates any criterion checked", "units": "1"}
    return xr.Dataset(
        {
            "violated": (("member", "criterion"), found, about),
            "violated_any": ("member", found.any(axis=1), together),
        },
        coords={"member": _labels(result, "member"), "criterion": [c.criterion.name for c in checks]},
        attrs={"not_available": "; ".join(missing), "notes": "; ".join(_notes(checks, result))},
    )


def coverage(result: xr.Dataset, limits: LimitSet) -> pd.DataFrame:
    """The criteria that can be checked on this result.

    Returns
    -------
    pandas.DataFrame
        A row a criterion: ``criterion``, ``checked`` (bool), ``remark`` (why not, or how).

    """
    import pandas as pd

    checks, missing = _checks(result, limits)
    notes = {check.criterion.name: check.note for check in checks}
    reasons = dict(entry.split(": ", 1) for entry in missing)
    rows = [(name, name in notes, notes.get(name) or reasons.get(name, "")) for name in limits.names]
    return pd.DataFrame(rows, columns=["criterion", "checked", "remark"])


def interval_s(result: xr.Dataset) -> float:
    """Recording interval of a result, s.

    Raises
    ------
    ResultError
        If the times are not evenly spaced, or there is one interval of unknown length.

    """
    time = result["time"].values
    if len(time) > 1:
        seconds = np.diff(time) / np.timedelta64(1, "s")
        if seconds[0] <= 0 or not np.allclose(seconds, seconds[0], rtol=0, atol=1e-6):
            raise ResultError(
                "the result's times are not evenly spaced, so its recording interval is unknown"
            )
        return float(seconds[0])
    try:
        return float(json.loads(result.attrs["scenario"])["time"]["duration"])
    except (KeyError, TypeError, ValueError):
        raise ResultError("the result has one recording interval, whose length is unknown") from None


def _checks(result: xr.Dataset, limits: LimitSet) -> tuple[list[_Check], list[str]]:
    """Checks that can be made, and those that can't, with the reason."""
    step_s = interval_s(result)
    checks: list[_Check] = []
    missing: list[str] = []
    for c in limits.criteria:
        if c.variable not in result:
            missing.append(f"{c.name}: the result has no {c.variable}")
            continue
        dims = tuple(str(dim) for dim in result[c.variable].dims)
        if not {"member", "time"} <= set(dims):
            missing.append(f"{c.name}: {c.variable} has no dimensions member and time")
            continue
        rating, remark = _rating(result, c)
        if c.per is not None and rating is None:
            missing.append(f"{c.name}: {remark}")
            continue
        unrated, of = _without_rating(result, c, rating)
        if unrated and unrated == of:
            missing.append(f"{c.name}: {no_rating(unrated, of, _kind(dims))}")
            continue
        notes = [remark] if remark else []
        if unrated:
            notes.append(no_rating(unrated, of, _kind(dims)))
        window = c.mean_over / step_s if c.mean_over else 1.0
        if window < 1 - 1e-9:
            notes.append(f"means over {step_s:g} s (recorded) are used for means over {c.mean_over:g} s")
            window = 1.0
        if abs(window - round(window)) > 1e-9:
            raise ResultError(
                f"{c.name}: means over {c.mean_over:g} s can't be formed from a recording interval of "
                f"{step_s:g} s, which must divide it"
            )
        whole, steps = round(window), result.sizes["time"]
        if whole > steps:
            notes.append(f"the run is shorter than {c.mean_over:g} s and is checked on its mean")
        mean_s = step_s if c.moving and whole <= steps else min(whole, steps) * step_s
        if c.allowed_share and steps * step_s < WEEK_S - 1e-6:
            notes.append(f"the share of a week is that of the {steps * step_s / 3600:g} h that were run")
        checks.append(
            _Check(
                c, tuple(dim for dim in dims if dim not in ("member", "time")), whole,
                max(round(WEEK_S / (whole * step_s)), 1), mean_s, rating, "; ".join(notes),
            )
        )  # fmt: skip
    return checks, missing


_RATED_BY = {
    "line_loading": "line_rated_ka",
    "trafo_loading": "trafo_rated_kva",
    "trafo_hot_spot_c": "trafo_rated_kva",
}
"""Variable that holds the rating to which another one is related."""


def no_rating(unrated: int, of: int, kind: str) -> str:
    """Remark on elements whose loading can't be checked."""
    return f"not checked: no rating of {unrated} of {of} {kind}s"


def unrated_elements(result: xr.Dataset, variable: str) -> tuple[int, int]:
    """Number of elements without a rating for a variable, and of all elements."""
    by = _RATED_BY.get(variable)
    if by is None or by not in result:
        return 0, 0
    rated = result[by].values
    return int((~(np.isfinite(rated) & (rated > 0))).sum()), rated.size


def _without_rating(result: xr.Dataset, c: Criterion, rating: NDArray[np.float64] | None) -> tuple[int, int]:
    if rating is not None:
        return int((~(np.isfinite(rating) & (rating > 0))).sum()), rating.size
    return unrated_elements(result, c.variable)


def _kind(dims: Sequence[str]) -> str:
    return next((dim for dim in dims if dim not in ("member", "time", "phase")), "element")


def _worst_phases(result: xr.Dataset, variable: str, kind: str) -> NDArray[Any] | None:
    """Name of the phase of each element's highest loading, (member, element); None if not recorded."""
    name = f"{kind}_worst_phase"
    if not variable.endswith("_loading") or name not in result:
        return None
    names = phase_names(result, kind)
    names = np.concatenate([names, np.full((len(names), 1), "", object)], axis=1)
    at = result[name].transpose("member", kind).values.astype(np.int64)
    return np.asarray(names[np.arange(len(names)), at])


def _rating(result: xr.Dataset, c: Criterion) -> tuple[NDArray[np.float64] | None, str]:
    """Rating of each item, and a remark; None with a reason where there is none."""
    if c.per is None:
        return None, ""
    dims = [dim for dim in result[c.variable].dims if dim not in ("member", "time")]
    if c.per in result:
        rating, remark = result[c.per], ""
    elif c.per == "neutral_rated_a" and "line_rated_ka" in result:
        rating, remark = result["line_rated_ka"] * 1000, "the neutral is taken to be rated as a phase"
    else:
        return None, f"the result has no {c.per}"
    shape = result[c.variable].isel(member=0, time=0, drop=True)
    values = rating.broadcast_like(shape).transpose(*dims).values
    return values.astype(np.float64).reshape(-1), remark


def _notes(checks: Sequence[_Check], result: xr.Dataset) -> list[str]:
    notes = [f"{check.criterion.name}: {check.note}" for check in checks if check.note]
    gave_up = int(result["member_failed_s"].notnull().sum()) if "member_failed_s" in result else 0
    if gave_up:
        notes.append(
            f"the power flow of {gave_up} of {result.sizes['member']} member(s) has no solution from some "
            "time on (member_failed_s), after which no limit is checked"
        )
    dead = int((result["interrupted_min"] > 0).any("member").sum()) if "interrupted_min" in result else 0
    if dead:
        notes.append(
            f"{dead} of {int((result['connection_bus'] != '').sum())} connection points were interrupted "
            "(interruptions, interrupted_min): a time without supply violates no limit of voltage"
        )
    return notes


def _by_variable(checks: Sequence[_Check]) -> dict[str, list[_Check]]:
    grouped: dict[str, list[_Check]] = {}
    for check in checks:
        grouped.setdefault(check.criterion.variable, []).append(check)
    return grouped


def _members(result: xr.Dataset, variable: str) -> Iterator[tuple[int, NDArray[Any]]]:
    """The series of each member, (time, item), read in blocks of members."""
    array = result[variable]
    array = array.transpose("member", "time", *(dim for dim in array.dims if dim not in ("member", "time")))
    members = array.sizes["member"]
    each = max(array.nbytes // max(members, 1), 1)
    size = max(_BLOCK_BYTES // each, 1)
    for start in range(0, members, size):
        block = array.isel(member=slice(start, start + size)).values
        if block.dtype.kind != "f":
            block = block.astype(np.float64)
        for m, values in enumerate(block):
            yield start + m, np.ascontiguousarray(values.reshape(len(values), math.prod(values.shape[1:])))


def _labels(result: xr.Dataset, dim: str) -> NDArray[Any]:
    return np.asarray(result[dim].values if dim in result.coords else np.arange(result.sizes[dim]))


def _items(result: xr.Dataset, dims: Sequence[str]) -> tuple[str, NDArray[Any], NDArray[Any]]:
    """Kind of the elements, and name and phase of each item."""
    shape = tuple(result.sizes[dim] for dim in dims)
    at = dict(zip(dims, np.indices(shape).reshape(len(dims), math.prod(shape)), strict=True))
    none = np.full(math.prod(shape), "", dtype=object)
    kind = next((dim for dim in dims if dim != "phase"), "")
    names = _labels(result, kind).astype(str)[at[kind]] if kind else none
    if "phase" not in at:
        return kind, names, none
    if not kind:
        return kind, names, _labels(result, "phase").astype(str)[at["phase"]]
    return kind, names, phase_names(result, kind)[at[kind], at["phase"]]


def _empty_table() -> pd.DataFrame:
    import pandas as pd

    table = pd.DataFrame({name: np.empty(0, dtype=object) for name in COLUMNS})
    numbers = dict.fromkeys(("duration_h", "worst", "limit", "severity"), "float64")
    return table.astype({"member": "int64", "first_time": "datetime64[ns]", **numbers})
