"""A result with all that a report says of it: limits, violations, what could be checked, the map's values.

And the sentences and rows in which a planner reads them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from evgrid.report.assumptions import count
from evgrid.report.cases import Case
from evgrid.report.feeder_map import EXTREMES, MapData, map_data
from evgrid.report.key_figures import key_figures, limits_of
from evgrid.report.page import cell, joined
from evgrid.results.limits import Criterion, LimitSet, coverage, violations
from evgrid.results.metrics import external_federates

if TYPE_CHECKING:
    import pandas as pd

ELEMENTS = {"bus": "bus", "line": "line", "trafo": "transformer"}
_WORDS = {
    "en_50160": "EN 50160 (95 % of a week)", "en_50160_always": "EN 50160 (always)",
    "ansi_c84_1_a": "ANSI C84.1 (range A)", "ansi_c84_1_b": "ANSI C84.1 (range B)",
    "vuf": "unbalance (EN 50160)", "vuf_ansi": "unbalance (ANSI C84.1)", "line_rating": "rating of lines",
    "trafo_rating": "rating of transformers", "line_instantaneous": "highest current of lines",
    "trafo_instantaneous": "highest current of transformers",
    "line_moving_average": "moving mean of the current of lines",
    "trafo_moving_average": "moving mean of the current of transformers",
    "neutral_current": "current in the neutral",
    "hot_spot": "hot spot of transformers",
}  # fmt: skip
"""Criteria in words."""
_QUANTITIES = {
    "voltage_pu": "voltage (pu)", "voltage_unbalance": "unbalance V2/V1",
    "line_loading": "current per rating",
    "trafo_loading": "current per rating", "neutral_current_a": "current", "trafo_hot_spot_c": "°C",
}  # fmt: skip


def words(criterion: str) -> str:
    """Name of a criterion in words."""
    if criterion.startswith("limit_of_"):
        return f"limit of aggregator {criterion.removeprefix('limit_of_')}"
    return _WORDS.get(criterion, criterion)


def limit_words(c: Criterion) -> str:
    """A criterion with its numbers in words."""
    quantity = (
        "power (kW)" if c.variable.startswith("limited_power_kw") else _QUANTITIES.get(c.variable, c.variable)
    )
    return f"{words(c.name)}: {quantity} {c.text.removeprefix(c.variable).strip()}"


class Judged:
    """A result with what was found of it: limits, violations, criteria checked, map, key figures."""

    def __init__(self, case: Case, names: Sequence[str], most_frames: int) -> None:
        self.label, self.result = case.label, case.result
        self.path = case.path
        self.scenario: dict[str, Any] = json.loads(self.result.attrs["scenario"])
        self.with_feeder = "feeder" not in external_federates(self.result)
        self.limits: LimitSet = limits_of(self.result, names)
        self.violations: pd.DataFrame = violations(self.result, self.limits)
        self.coverage: pd.DataFrame = coverage(self.result, self.limits)
        self.figures = key_figures(self.result, self.violations)
        checked = next(
            (f.values for f in self.figures if f.name == "violations"), np.full(self.members, np.nan)
        )
        self.checked = np.isfinite(checked)
        self.map: MapData | None = (
            map_data(self.result, most_frames, self.band_pu) if self.with_feeder else None
        )

    @property
    def band_pu(self) -> tuple[float, float]:
        """The narrowest limits of voltage, or those of EN 50160 where none was given."""
        voltage = [c for c in self.limits.criteria if c.variable == "voltage_pu"]
        lows, highs = ([b for c in voltage if (b := getattr(c, end)) is not None] for end in ("low", "high"))
        return max(lows, default=0.9), min(highs, default=1.1)

    @property
    def members(self) -> int:
        """Number of members."""
        return int(self.result.sizes["member"])

    @property
    def with_violation(self) -> int:
        """Members that violate a limit, of those checked in the whole period."""
        checked = self.result["member"].values[self.checked]
        return int(self.violations["member"][self.violations["member"].isin(checked)].nunique())

    @property
    def of_checked(self) -> str:
        """The members checked, after a blank: in all, or in those known in the whole period; "" for one."""
        known = int(self.checked.sum())
        if known < self.members:
            return f" in the {known} of {self.members} members known in the whole period"
        return f" in all {known} members" if known > 1 else ""

    @property
    def unknown_members(self) -> list[str]:
        """Sentences about the members that were given up, and those of which values are not known."""
        failed = (
            self.result["member_failed_s"].values
            if "member_failed_s" in self.result
            else np.full(self.members, np.nan)
        )
        labels = [str(m) for m in self.result["member"].values]
        reasons = json.loads(self.result.attrs.get("failed_members", "{}"))
        start = self.result["time"].values[0]
        given_up, sentences = [], []
        for label, after_s in zip(labels, failed, strict=True):
            if np.isfinite(after_s):
                time = start + np.timedelta64(round(float(after_s) * 1e3), "ms")
                given_up.append(str(reasons.get(label, f"member {label} at {cell(time)}")).rstrip(". "))
        if given_up:
            sentences.append(
                f"{len(given_up)} of {count(self.members, 'member')} were given up, so their figures of the "
                f"whole period are not known: {'; '.join(given_up[:3])}"
                + (f"; and {len(given_up) - 3} more." if len(given_up) > 3 else ".")
            )
        if self.with_feeder:
            gaps = [m for m, ok, s in zip(labels, self.checked, failed, strict=True)
                    if not ok and not np.isfinite(s)]  # fmt: skip
            if gaps:
                sentences.append(
                    f"Values of {len(gaps)} of {count(self.members, 'member')} are missing, so their figures "
                    f"are not known: member{'s' * (len(gaps) > 1)} {joined(gaps, 8)}."
                )
        return sentences

    @property
    def not_checked(self) -> list[str]:
        """What could not be judged, each with the reason."""
        return [f"{words(c)}: {why}" for c, checked, why in self.checks if not checked or _partly(why)]

    @property
    def remarks(self) -> list[str]:
        """How criteria were checked, where that differs from the standard."""
        return [
            f"{words(c)}: {why}" for c, checked, why in self.checks if checked and why and not _partly(why)
        ]

    @property
    def checks(self) -> list[tuple[str, bool, str]]:
        """Criterion, whether it could be checked, and the remark."""
        return [(str(c), bool(on), str(why)) for c, on, why in self.coverage.to_numpy().tolist()]


def _partly(remark: str) -> bool:
    """Whether a remark says that elements could not be checked."""
    return "not checked" in remark


def verdict(j: Judged, named: bool = False) -> list[str]:
    """Whether the limits are kept, and whether the EVs got what they asked for: one sentence each."""
    name = f"{j.label}: " if named else ""
    checked = [words(c) for c, on, _ in j.checks if on and not _own_limit(c)]
    of_grid = j.violations[~j.violations["criterion"].map(_own_limit).astype(bool)]
    own = j.violations[j.violations["criterion"].map(_own_limit).astype(bool)]
    if not j.with_feeder:
        first = f"{name}The feeder was another program, so its limits are not checked."
    elif not checked:
        first = f"{name}No limit of the feeder could be checked."
    elif of_grid.empty and not j.checked.any():
        first = f"{name}Whether the limits of the grid are kept is not known."
    elif of_grid.empty:
        first = (
            f"{name}All limits of the grid that could be checked are kept{j.of_checked} "
            f"({joined(checked, 8)})."
        )
    else:
        of = f" in {of_grid['member'].nunique()} of {j.members} members" if j.members > 1 else ""
        first = f"{name}Limits of the grid are violated{of}: {worst_sentence(of_grid)}"
    if checked and j.checked.any():
        first += _short_week(j)
    sentences = [first, *(f"{name}{sentence}" for sentence in j.unknown_members)]
    if not own.empty:
        of = f" in {own['member'].nunique()} of {j.members} members" if j.members > 1 else ""
        sentences.append(f"{name}An aggregator's own limit is not kept{of}: {worst_sentence(own)}")
    nearest = binding_rows(j, 1) if j.map is not None else []
    if nearest and of_grid.empty:
        what, quantity, value, limit, share = nearest[0][:5]
        sentences.append(
            f"{name}Nearest to a limit is {what}: {quantity} {value}, limit {limit}, of which it uses "
            f"{share}."
        )
    if j.with_feeder and "voltage_pu" not in j.result:
        low, high = float(j.result["voltage_min_pu"].min()), float(j.result["voltage_max_pu"].max())
        if np.isfinite(low):
            sentences.append(
                f"{name}Voltages of single buses were not recorded; those of all buses are between {low:.4f} "
                f"and {high:.4f} pu (limits {j.band_pu[0]:g} and {j.band_pu[1]:g})."
            )
    if j.not_checked:
        sentences.append(f"{name}Not checked: {'; '.join(j.not_checked)}.")
    if "session_energy_requested_kwh" in j.result:
        done = j.result["session_complete"].values
        if not done.any():
            return [*sentences, f"{name}No session of an EV ended in the period."]
        if np.isnan(j.result["session_energy_requested_kwh"].values[done]).all():
            return [*sentences, f"{name}What EVs asked for was not reported by their charging stations."]
        wanted, lacking = (
            float(np.nansum(j.result[f"session_energy_{what}_kwh"].values[done])) / j.members
            for what in ("requested", "unserved")
        )
        if wanted * j.members < 0.01:
            ended = count(int(done.sum()), "session")
            return [*sentences, f"{name}{ended} of EVs ended in the period, none of which asked for energy."]
        per = " a member" if j.members > 1 else ""
        short = int((j.result["session_energy_unserved_kwh"].values[done] > 0.01).sum())
        sentences.append(
            f"{name}EVs asked for {wanted:,.0f} kWh{per} in the sessions that ended; "
            + ("all of it was charged." if lacking < 0.05 else
               f"{lacking:,.1f} kWh of it were not charged, in {short} of {int(done.sum())} sessions.")
        )  # fmt: skip
    return sentences


def _short_week(j: Judged) -> str:
    """A sentence on the period, where a share of a week is judged on less than a week."""
    for _, checked, why in j.checks:
        if checked and (found := re.search("share of a week is that of (the .+? that were run)", why)):
            return f" The share of a week is judged only on {found[1]}."
    return ""


def _own_limit(criterion: str) -> bool:
    """Whether a criterion is the limit of an aggregator, and not of the grid."""
    return criterion.startswith("limit_of_")


def worst_sentence(table: pd.DataFrame) -> str:
    """The most severe violation in words."""
    row = table.iloc[0]
    phase = f", phase {row['phase']}" if row["phase"] else ""
    scale, unit = _shown_unit(str(row["criterion"]), str(row["unit"]))
    kind = ELEMENTS.get(row["element"], row["element"])
    place = f"{kind} {row['name']}".strip() or "the feeder"
    more = f"; {len(table)} such entries in all" if len(table) > 1 else ""
    return (
        f"the most severe is {words(row['criterion'])} at {place}{phase}: "
        f"{scale * row['worst']:.4g} {unit} against a limit of {scale * row['limit']:.4g} {unit}, first at "
        f"{row['first_time']:%Y-%m-%d %H:%M}, for {row['duration_h']:.3g} h{more}."
    )


def _shown_unit(criterion: str, unit: str) -> tuple[float, str]:
    """Factor and unit in which the values of a criterion are shown."""
    if unit != "1":
        return 1.0, unit
    return (1.0, "pu") if criterion.startswith(("en_50160", "ansi")) else (100.0, "%")


def binding_rows(j: Judged, each: int = 5) -> list[list[str]]:
    """Rows of the table of elements nearest to their limits."""
    assert j.map is not None
    rows = []
    for name, worst in j.map.extremes.items():
        variable, kind, high = EXTREMES[name]
        bounds = [
            (float(b), c.name)
            for c in j.limits.criteria
            if c.variable == variable and not c.per and (b := c.high if high else c.low) is not None
        ]
        if not bounds:
            continue
        bound, criterion = min(bounds) if high else max(bounds)
        quantity = name.replace("_", " ") if kind == "bus" else "loading"
        if variable == "voltage_pu":
            quantity = f"{name.removeprefix('voltage_')} voltage"
        middle = 1.0 if variable == "voltage_pu" else 0.0
        used = (worst.worst - middle) / (bound - middle)
        scale, unit = _shown_unit(criterion, str(j.result[variable].attrs.get("units", "1")))
        for place in np.argsort(np.where(np.isfinite(used), -used, np.inf), kind="stable")[:each]:
            if np.isfinite(used[place]):
                rows.append((float(used[place]), [
                    f"{ELEMENTS[kind]} {j.result[kind].values[place]}", quantity,
                    f"{scale * worst.worst[place]:.4g} {unit}",
                    f"{scale * bound:.4g} {unit} ({words(criterion)})",
                    f"{max(100 * used[place], 0):.0f} %", str(worst.phase[place]) or "–",
                    f"{str(worst.time[place])[:16].replace('T', ' ')}", str(worst.member[place]),
                ]))  # fmt: skip
    return [row for _, row in sorted(rows, key=lambda row: -row[0])]
