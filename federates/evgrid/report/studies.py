"""The report of a study: its question, answer, tables and charts, and runs of it where they were kept.

In: the folder of a study. A study whose kind has no page of its own here is reported by its key figures and
tables.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from evgrid.errors import EvgridError, ResultError
from evgrid.report import charts
from evgrid.report.assumptions import SIZES, assumptions, count
from evgrid.report.cases import Case
from evgrid.report.feeder_map import MapData, Quantity, controls, feeder_map
from evgrid.report.judged import limit_words, words
from evgrid.report.layout import layout
from evgrid.report.page import (
    Bullets,
    Chart,
    Code,
    Page,
    Section,
    Table,
    Text,
    charts_of,
    indexed_table,
    joined,
    table_of,
)
from evgrid.report.runs import MOST_MAPS, page_of_runs, yaml_of
from evgrid.results import FORMAT as RUN
from evgrid.results import open_netcdf, open_results, versions
from evgrid.results.settlement import amount, is_currency
from evgrid.runs.batch import read_index
from evgrid.scenario import load_scenario
from evgrid.studies.comparison import side_by_side
from evgrid.studies.growth_output import summary as growth_summary
from evgrid.studies.growth_output import years_table
from evgrid.studies.hosting_capacity_summary import level_text
from evgrid.studies.hosting_capacity_summary import summary as hosting_summary
from evgrid.studies.hosting_capacity_tables import (
    TOGETHER,
    binding_table,
    capacity_table,
    chosen_limits,
    first_violations_table,
    limits_table,
    unit_of,
)
from evgrid.studies.reinforcement_output import costs_table
from evgrid.studies.reinforcement_output import summary as reinforcement_summary
from evgrid.studies.resilience_output import ALL_SITES, reserve_table, sites_table, variants_table
from evgrid.studies.statistics import wilson
from evgrid.studies.study import STUDIES

if TYPE_CHECKING:
    import xarray as xr

MOST_VARIANTS = 8
"""Variants that a chart shows beside each other."""
_TABLES = 6
"""Tables of a study without a page of its own."""


@dataclass(frozen=True)
class Part:
    """A study's Dataset with its folder; a study may have several parts, each in a folder below."""

    folder: Path
    result: xr.Dataset
    settings: dict[str, Any]

    @property
    def name(self) -> str:
        """Name of the study."""
        return str(self.result.attrs["name"])

    @property
    def format(self) -> str:
        """Format of the study without its version."""
        return str(self.result.attrs["format"]).rsplit("-", 1)[0]

    @property
    def variants(self) -> list[str]:
        """Its variants."""
        return [str(v) for v in self.result["variant"].values] if "variant" in self.result.coords else []


@contextmanager
def open_study(folder: Path) -> Iterator[list[Part]]:
    """The parts of a study in a folder. Raises ResultError if there is none."""
    files = [folder / "study.nc", *sorted(folder.glob("*/study.nc"))]
    files = [file for file in files if file.is_file()]
    if not files:
        raise ResultError(f"{folder} holds no study: there is no study.nc")
    with ExitStack() as stack:
        parts = []
        for file in files:
            result = stack.enter_context(open_results(file))
            parts.append(Part(file.parent, result, json.loads(result.attrs.get("study", "{}"))))
        yield parts


def page_of_study(folder: Path, limits: Sequence[str] = ()) -> Page:
    """The report of the study in a folder."""
    with open_study(folder) as parts:
        answer: list[str] = []
        sections: list[Section] = [_asked(parts)]
        for part in parts:
            said, own = _writer(part)(part)
            several = len(parts) > 1
            answer += [f"{part.name}: {sentence}" if several else sentence for sentence in said]
            for section in own:
                section.title += f" ({part.name})" * several
            sections += own
        sections += _runs(parts[0], limits)
        sections += [_certainty(parts), _settings(parts)]
        return Page(parts[0].name, f"Report of a study: {_kind(parts[0])}", answer, sections)


def _kind(part: Part) -> str:
    kind = str(part.result.attrs.get("kind", ""))
    return (kind or str(part.result.attrs["format"]).removeprefix("evgrid-").rsplit("-", 1)[0]).replace(
        "-", " "
    )


def _asked(parts: Sequence[Part]) -> Section:
    """The question, the scenario, the variants and the limits."""
    section = Section("What was asked and assumed")
    kind = _kind(parts[0]).replace(" ", "-")
    if kind in STUDIES:
        scenario = Path(str(parts[0].settings.get("scenario", "the scenario"))).name
        section.add(Text(str(STUDIES.find(kind).question).replace("SCENARIO", scenario)))
    for part in parts:
        given = part.settings
        rows = [["scenario", Path(str(given.get("scenario", "–"))).name]]
        shared = given.get("overrides") or {}
        if shared:
            rows.append(
                ["settings that differ from it", "; ".join(f"{k}: {_short(v)}" for k, v in shared.items())]
            )
        variants = given.get("variants") if isinstance(given.get("variants"), Mapping) else None
        for variant in part.variants[:20]:
            how = (variants or {}).get(variant)
            text = _short(how) if how else "as the kind of study sets it up"
            rows.append([f"variant {variant}", text])
        rows += _studied(part)
        if "member" in part.result.sizes:
            rows.append(
                [
                    "members",
                    f"{count(part.result.sizes['member'], 'Monte Carlo world')}, the same in all variants",
                ]
            )
        section.add(Table([], rows, part.name if len(parts) > 1 else ""))
        if given.get("limits"):
            try:
                criteria = chosen_limits(given["limits"]).criteria
            except (ValueError, TypeError):
                continue
            section.add(Text("Limits:"), Bullets([limit_words(c) for c in criteria]))
    return section


def _studied(part: Part) -> list[list[str]]:
    """The scenario of a study in words: of its kept runs, else of its file as it is now."""
    scenario, sizes, notes, phases = _scenario(part)
    if scenario is None:
        return [["feeder, EVs and period", "not known: the scenario's file can't be read any more"]]
    time = scenario.get("time") or {}
    start = str(time.get("start", "–")).replace("T", " ")[:16]
    hours = float(time.get("duration", 0)) / 3600
    rows = [
        ["name of the scenario", str(scenario.get("name", "–"))],
        ["period", f"{start} on, {hours:g} h in steps of {time.get('step', 0):g} s"],
    ]
    if "households" in part.result.attrs:
        rows.append(["households", str(part.result.attrs["households"])])
    changed = {"level", "year"} & set(part.result.dims)
    said = "; the study sets the number" if changed and scenario.get("fleet") else ""
    rows += [
        [name, text + said * (name == "EVs")] for name, text in assumptions(scenario, sizes, notes, phases)
    ]
    grown = {key: part.settings.get(key) for key in ("heat_pump", "pv", "pv_kw")}
    texts = {"heat_pump": "heat pumps that are added", "pv": "PV that is added", "pv_kw": "PV of each, kW"}
    rows += [[texts[key], _short(value)] for key, value in grown.items() if value is not None]
    return rows


def _scenario(part: Part) -> tuple[dict[str, Any] | None, dict[str, int], list[str], str]:
    """Settings of the scenario, sizes of the feeder, notes and phases, as far as they are known."""
    sizes = {kind: int(n) for kind, n in part.result.sizes.items() if kind in SIZES}
    for kept in _first_run(part.folder):
        with open_netcdf(kept) as run:
            sizes |= {str(kind): int(n) for kind, n in run.sizes.items() if kind in SIZES}
            if "scenario" in run.attrs:
                notes = json.loads(run.attrs.get("notes", "[]"))
                return json.loads(run.attrs["scenario"]), sizes, notes, str(run.attrs.get("phases", ""))
    file, overrides = str(part.settings.get("scenario", "")), part.settings.get("overrides") or {}
    try:
        return load_scenario(file, overrides).model_dump(mode="json"), sizes, [], ""
    except (EvgridError, OSError):
        return None, sizes, [], ""


def _first_run(folder: Path) -> list[Path]:
    """The file of a kept run of the first case, if there is one."""
    if not (folder / "batch.json").is_file():
        return []
    index = read_index(folder)
    own = index[(index["state"] == "finished") & (index["case"] == 0)].sort_values("first")
    return [file for run in own["id"] if (file := folder / "runs" / f"{run}.nc").is_file()][:1]


def _short(value: Any) -> str:
    if isinstance(value, Mapping):
        return "; ".join(f"{k}: {_short(v)}" for k, v in value.items())
    return "none" if value is None else str(value)


# ---- hosting capacity ---------------------------------------------------------------------------


def _hosting(part: Part) -> tuple[list[str], list[Section]]:
    """How many EVs, what sets the number, P(violation), where."""
    result = part.result
    rows = list(hosting_summary(result))
    answer: list[str] = []
    for at, (name, text) in enumerate(rows):
        if name.startswith("hosting capacity, "):
            own = []
            for label, more in rows[at + 1 :]:
                if not label.startswith("  "):
                    break
                own += [f"set by {more}"] if label.strip() == "set by" else []
            answer.append(
                f"Hosting capacity, {name.removeprefix('hosting capacity, ')}: {'; '.join([text, *own])}."
            )
        elif name in part.variants:
            answer.append(f"Hosting capacity, {name}: {text}.")
    unit = unit_of(result)
    scale, x = (1.0, unit.text) if unit.counted else (100.0, f"{unit.text} (%)")
    answer += _too_few(part)
    levels = result["level"].values * scale
    risk = 100 * float(part.settings.get("risk", 0.05))
    section = Section("Hosting capacity")
    section.add(Table([], [[name, text] for name, text in rows]))
    shown = part.variants[:MOST_VARIANTS]
    plots = []
    for name, title, limits in (
        ("probability", "Deployments that violate a limit at each level", []),
        ("first_share", "Deployments with a violation up to the level (dashed: risk)", [risk]),
    ):
        series = {
            variant: tuple(
                100 * result[f"{name}{end}"].sel(variant=variant, criterion=TOGETHER).values
                for end in ("_low", "", "_high")
            )
            for variant in shown
        }
        plots.append(charts.lines_with_band(title, "%", x, levels, series, limits))
    capacities = result["capacity"].sel(criterion=TOGETHER).values * scale
    caption = "Bands: Wilson intervals of the shares."
    if len(part.variants) > 1:
        labels = [str(v) for v in part.variants[:40]]
        top = (0.0, 1.05 * max(float(levels[-1]), 1e-6))
        plots.append(charts.bars("Hosting capacity", x, labels, {"": capacities[:40].tolist()}, y_range=top))
        flat = {"capacity 0": capacities[:40] == 0, "below the lowest level": np.isnan(capacities[:40])}
        bars = [f"{joined(np.array(labels)[on], 8)}: {why}" for why, on in flat.items() if on.any()]
        caption += f" Without a bar: {'; '.join(bars)}." if bars else ""
    section.add(*charts_of(plots, caption))
    if len(part.variants) > len(shown):
        section.add(Text(f"Curves of the first {len(shown)} of {len(part.variants)} variants.", "muted"))
    binding = Section("What sets the capacity")
    binding.add(
        table_of(_words_in(binding_table(result)), "Violations at the first level past the capacity.")
    )
    binding.add(
        table_of(
            _words_in(first_violations_table(result)), "First violation of each deployment as EVs are added."
        )
    )
    by_limit = Section("Capacity by limit")
    capacity = capacity_table(result)
    for name in ("capacity", "capacity_low", "capacity_high"):
        capacity[name] = [level_text(float(value), result) for value in capacity[name]]
    capacity = capacity.rename(
        columns={"capacity_low": "lower end of the interval", "capacity_high": "upper end of the interval"}
    )
    by_limit.add(table_of(_words_in(capacity), "Capacity if only this limit counted."))
    by_limit.add(table_of(_words_in(limits_table(result)), "The limits, and whether they were checked."))
    return answer, [section, _hosting_map(part), binding, by_limit]


def _too_few(part: Part) -> list[str]:
    """Whether there are too few deployments to show of any level that it meets the risk."""
    members, risk = part.result.sizes["member"], float(part.settings.get("risk", 0.05))
    confidence = float(part.settings.get("confidence", 0.95))
    share = float(wilson(0, members, confidence)[1])
    if share <= risk or risk <= 0:
        return []
    quantile = members * share / (1 - share)  # z^2, as the upper end of 0 of n is z^2 / (n + z^2)
    enough = int(np.ceil(quantile * (1 - risk) / risk))
    return [
        f"With {count(members, 'deployment')} no level can be shown to meet the risk of {100 * risk:g} %: "
        f"even 0 of {members} with a violation may be up to {100 * share:.0f} % of all. Take more members: "
        f"at least {enough:,}."
    ]


def _hosting_map(part: Part) -> Section:
    """Voltages at each level, and the power that can be added at each bus."""
    section, result = Section("Map of the feeder"), part.result
    place = layout(result)
    if place.drawn:
        section.add(Text("No map: the network has no coordinates.", "muted"))
        return section
    levels = result["level"].values
    unit = unit_of(result)
    labels = [f"at {v:g} {unit.noun}" if unit.counted else f"at {100 * v:.0f} % penetration" for v in levels]
    quantities = []
    for variant in part.variants[:MOST_VARIANTS]:
        values = (
            result["bus_voltage_min_pu"]
            .sel(variant=variant)
            .transpose("level", "bus")
            .values.astype(np.float64)
        )
        if np.isfinite(values).any():
            low = min(0.9, float(np.nanmin(values)))
            quantities.append(
                Quantity(
                    f"lowest voltage, {variant}",
                    "pu",
                    {"bus": np.vstack([values[-1:], values])},
                    low,
                    1.0,
                    True,
                    4,
                )
            )
    if "nodal_capacity_kw" in result:
        capacity = result["nodal_capacity_kw"]
        frame = capacity.to_dataframe().groupby("connection_bus")["nodal_capacity_kw"].min()
        kw = np.array([float(frame.get(str(bus), np.nan)) for bus in result["bus"].values])
        if np.isfinite(kw).any():
            values = np.tile(kw, (1 + len(levels), 1))
            quantities.insert(
                0,
                Quantity(
                    "power that can be added", "kW", {"bus": values}, 0.0, float(np.nanmax(kw)), True, 0
                ),
            )
    if not quantities:
        return section
    nothing = {kind: np.empty((0, 2), np.int64) for kind in ("line", "trafo")}
    names = {"bus": result["bus"].values.astype(str)}
    data = MapData(place, names, nothing, quantities, [f"{labels[-1]} (highest)", *labels], {})
    fig, parts = feeder_map(data, "", charts.WIDTH, 520)
    panel = controls([(data, parts)], "level (0: the highest)")
    section.add(Chart(fig, f"Lowest voltage of all deployments. Grey: not known. {place.note}", panel))
    return section


def _words_in(table: Any) -> Any:
    """A table with readable columns and criteria in words."""
    table = table.rename(columns=lambda c: c.replace("binding_", "").replace("first_", "").replace("_", " "))
    if "criterion" in table:
        table["criterion"] = [words(c) for c in table["criterion"]]
    for name in table.columns:
        if str(name).endswith("share") or str(name) == "share":
            table[name] = [f"{100 * v:.0f} %" for v in table[name]]
        elif name == "median hour":
            table[name] = [
                f"{int(v):02d}:{round(60 * (v % 1)) % 60:02d}" if np.isfinite(v) else "–" for v in table[name]
            ]
    return table


def _time_of_day(hour: float) -> str:
    minutes = round(60 * hour) if np.isfinite(hour) else 0
    return f"{minutes // 60:02d}:{minutes % 60:02d}" if np.isfinite(hour) else "–"


# ---- comparisons of variants ----------------------------------------------------------------------


@dataclass(frozen=True)
class Aim:
    """A key figure by which variants are ranked; ``most``: the highest is best."""

    figure: str
    most: bool = False


_AIMS: dict[str, tuple[Aim, ...]] = {
    "managed-charging": (Aim("cost"), Aim("head_peak_kw"), Aim("emissions_kg"), Aim("unserved_kwh")),
    "voltage-support": (Aim("voltage_min_pu", True), Aim("losses_kwh"), Aim("unserved_kwh")),
    "frequency-regulation": (Aim("gain", True), Aim("score", True), Aim("trafo_loading_percent")),
    "generation-loss": (Aim("drop_mhz"), Aim("given_mw", True)),
}
_UNRANKED = ("oracle", "no EVs", "no_evs")
"""Variants that are no way of charging: a bound, and the feeder without EVs."""


def _comparison(part: Part) -> tuple[list[str], list[Section]]:
    """Which variant does best in what, all key figures, and what is over time."""
    result = part.result
    aims = [a for a in _AIMS.get(str(result.attrs["kind"]), ()) if a.figure in result]
    if not aims:
        numeric = [n for n in _key_figures(result) if result[n].dtype.kind == "f"]
        aims = [Aim(name) for name in numeric[:3]]
    answer = [sentence for aim in aims if (sentence := _best(part, aim))]
    answer = [*_kept(part), *answer]
    figures = Section("Key figures")
    many = result.sizes.get("member", 1) > 1
    caption = "Median of the members (5 to 95 %)." if many else ""
    figures.add(indexed_table(side_by_side(result), caption))
    failed = json.loads(result.attrs.get("failed", "{}"))
    figures.add(*[Text(f"Variant {name} has failed: {why}") for name, why in failed.items()])
    plots = []
    for aim in aims:
        values = result[aim.figure].transpose("variant", "member").values.astype(np.float64)
        known = [i for i in range(len(part.variants)) if np.isfinite(values[i]).any()]
        if known and np.nanmax(np.abs(values[known])) > 0:
            unit = result[aim.figure].attrs["units"]
            heights = {"": [float(np.nanmedian(values[i])) for i in known]}
            names = [part.variants[i] for i in known]
            start = {"y_range": (min(0.9, 0.99 * min(heights[""])), 1.0)} if unit == "pu" else {}
            plots.append(charts.bars(_title(result, aim.figure), unit, names, heights, **start))
    if plots:
        figures.add(*charts_of(plots, "Median of the members." if many else ""))
    return answer, [figures, _variants_over(part)]


def _key_figures(result: xr.Dataset) -> list[str]:
    return [str(n) for n in result.data_vars if set(result[n].dims) == {"variant", "member"}]


def _title(result: xr.Dataset, name: str) -> str:
    text = str(result[name].attrs["long_name"]).strip()
    return text[:1].upper() + text[1:]


def _ranked(part: Part, aim: Aim) -> list[str]:
    """Ways of charging from the best in a figure on."""
    if aim.figure not in part.result:
        return []
    values = part.result[aim.figure].median("member").values.astype(np.float64) * (-1 if aim.most else 1)
    order = np.argsort(values, kind="stable")
    return [part.variants[i] for i in order if np.isfinite(values[i]) and part.variants[i] not in _UNRANKED]


def _best(part: Part, aim: Aim) -> str:
    """Which variant is best in a figure, against the first one."""
    values = part.result[aim.figure].median("member").values.astype(np.float64)
    known = [i for i, v in enumerate(part.variants) if np.isfinite(values[i]) and v not in _UNRANKED]
    if len(known) < 2:
        return ""
    unit = part.result[aim.figure].attrs["units"]
    text = str(part.result[aim.figure].attrs["long_name"]).strip()
    best = part.variants.index(_ranked(part, aim)[0])
    first = known[0]
    reached = [part.variants[i] for i in known if np.isclose(values[i], values[best], rtol=1e-6, atol=1e-9)]
    if len(reached) == len(known):
        return f"{_capital(text)} is {_number(values[best], unit)} in all variants."
    against = "" if first == best else f", against {_number(values[first], unit)} of {part.variants[first]}"
    which = "highest" if aim.most else "lowest"
    return f"{_capital(text)}: {which} by {joined(reached)}, {_number(values[best], unit)}{against}."


def _kept(part: Part) -> list[str]:
    """For each limit that a study checked: by which variants it is kept in all members."""
    found = []
    for name in _key_figures(part.result):
        if name.startswith("violates_"):
            broken = part.result[name].any("member")
            keeps = [v for v in part.variants if not bool(broken.sel(variant=v))]
            who = "all variants" if len(keeps) == len(part.variants) else joined(keeps, 8) or "no variant"
            found.append(f"{_capital(words(name.removeprefix('violates_')))}: kept in all members by {who}.")
    return found


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _number(value: float, unit: str) -> str:
    text = amount(value) if is_currency(unit) else f"{value:,.4g}"
    return f"{text} {unit}" if unit not in ("", "1") else text


def _variants_over(part: Part) -> Section:
    """Charts of what the variants have over time, or over another coordinate."""
    section, result, plots = Section("Over time"), part.result, []
    for name in map(str, result.data_vars):
        dims = [str(d) for d in result[name].dims if d not in ("variant", "member")]
        if len(dims) != 1 or result[name].dtype.kind != "f" or result.sizes[dims[0]] < 3:
            continue
        (along,) = dims
        if "variant" not in result[name].dims or result[along].dtype.kind not in "Mfiu":
            continue
        series: dict[str, NDArray[np.float64]] = {}
        for variant in part.variants[:MOST_VARIANTS]:
            values = result[name].sel(variant=variant)
            values = values if "member" in values.dims else values.expand_dims("member")
            found = values.transpose("member", along).values.astype(np.float64)
            if np.isfinite(found).any():
                series[variant] = found
        if not series:
            continue
        unit = str(result[name].attrs.get("units", ""))
        at = result[along].values
        if at.dtype.kind == "M":
            plots.append(charts.over_time(_title(result, name), unit, at, series, height=340))
        else:
            bands = {v: list(charts.band_of(f)) for v, f in series.items()}
            options: dict[str, Any] = {"markers": len(at) < 40, "height": 340}
            title, x = _title(result, name), _readable(along)
            plots.append(charts.lines_with_band(title, unit, x, at.astype(np.float64), bands, **options))
    if plots:
        caption = "Lines: median of the members; bands: 5 to 95 %; a click on the legend hides a line."
        section.add(*charts_of(plots[:6], caption))
    return section


# ---- resilience -------------------------------------------------------------------------------------


def _resilience(part: Part) -> tuple[list[str], list[Section]]:
    """Who is served how long, and what a reserve buys."""
    result = part.result
    whole = result.sel(group=ALL_SITES)
    answer = []
    for duration_h in result["lasting"].values:
        shares = whole["probability"].sel(duration=duration_h, method="bfill").values
        text = joined((f"{100 * s:.1f} % {v}" for v, s in zip(part.variants, shares, strict=True)), 8)
        answer.append(
            f"An outage of {duration_h:g} h that starts at any time is survived with a probability of {text}."
        )
    answer.append(
        "Mean hours survived: "
        + joined(
            (f"{h:.1f} h {v}" for v, h in zip(part.variants, whole["hours_mean"].values, strict=True)), 8
        )
        + "."
    )
    section = Section("Survival of outages")
    section.add(indexed_table(variants_table(result), "All sites."))
    plots = []
    duration = result["duration"].values.astype(np.float64)
    survival = {v: [100 * whole["probability"].sel(variant=v).values] * 3 for v in part.variants}
    title, x = "Probability that the critical load is served", "duration of the outage (h)"
    log: dict[str, Any] = {"x_axis_type": "log", "markers": False}
    plots.append(charts.lines_with_band(title, "%", x, duration, survival, **log))
    for key in ("month", "hour"):
        values = whole[f"hours_mean_by_{key}"]
        known = values.notnull().any("variant").values
        if known.sum() > 1:
            lines = {v: [values.sel(variant=v).values[known]] * 3 for v in part.variants}
            title, at = f"Mean hours survived by {key} of the start", values[key].values[known]
            plots.append(charts.lines_with_band(title, "h", key, at.astype(np.float64), lines))
    groups = [str(g) for g in result["group"].values]
    groups = groups[1:] if len(groups) == 2 else groups
    heights = {v: result["hours_mean"].sel(variant=v, group=groups).values.tolist() for v in part.variants}
    plots.append(charts.bars("Mean hours survived by group of sites", "h", groups, heights))
    section.add(*charts_of(plots))
    sites = Section("By site")
    table = sites_table(result.isel(variant=[0]))
    names = [c for c in table.columns if not str(c).startswith("site_hours")]
    table = table.sort_values("site_hours_mean", kind="stable")[
        [*names, *(c for c in table.columns if c not in names)]
    ]
    sites.add(
        table_of(table.rename(columns=lambda c: str(c).replace("_", " ")), "Hours survived, the least first.")
    )
    reserve = Section("What a reserve costs and buys")
    if "reserve_hours_mean" in result:
        reserve.add(table_of(reserve_table(result).rename(columns=_readable)))
    return answer, [section, sites, reserve]


def _readable(column: str) -> str:
    return str(column).replace("_", " ")


# ---- growth and reinforcement -----------------------------------------------------------------------


def _growth(part: Part) -> tuple[list[str], list[Section]]:
    """From which year the feeder and each element are over a limit."""
    result, rows = part.result, list(growth_summary(part.result))
    table = years_table(result)
    answer = [_first_year(part)]
    if len(table) and np.isfinite(table["first_year"].iloc[0]):
        row = table.iloc[0]
        answer.append(f"The earliest is {_place(row['place'])}, from {row['first_year']:.0f} on.")
    section = Section("First years over a limit")
    section.add(Table([], [[name, text] for name, text in rows]))
    year = result["year"].values.astype(np.float64)
    grown = {str(q): [result["grown"].sel(quantity=q).values] * 3 for q in result["quantity"].values}
    plots = [charts.lines_with_band("What grows", "as the study states it", "year", year, grown)]
    places = [str(place) for place in table["place"].head(MOST_VARIANTS)]
    if places:
        shares = {_place(p): [100 * result["share"].sel(place=p).values] * 3 for p in places}
        title = "Deployments over a limit so far (dashed: risk)"
        risk = [100 * float(part.settings.get("risk", 0.05))]
        plots.append(charts.lines_with_band(title, "%", "year", year, shares, risk))
    section.add(*charts_of(plots, "The earliest elements."))
    table["place"] = [_place(place) for place in table["place"]]
    table["share_by_last_year"] = [f"{100 * share:.0f} %" for share in table["share_by_last_year"]]
    section.add(table_of(table.rename(columns=_YEARS), "First year by element; – : in none of the years."))
    section.add(table_of(_words_in(limits_table(result)), "The limits, and whether they were checked."))
    return answer, [section]


def _place(place: object) -> str:
    """An element with its limit in words."""
    criterion, colon, element = str(place).partition(": ")
    return f"{words(criterion)}: {element}" if colon else str(place)


def _first_year(part: Part) -> str:
    """From which year some limit of the feeder is passed, with the interval."""
    first, low, high = (float(part.result[f"any_first_year{end}"]) for end in ("", "_low", "_high"))
    last, risk = part.result["year"].values[-1], f"at a risk of {100 * part.settings.get('risk', 0.05):g} %"
    ends = [f"{year:.0f}" if np.isfinite(year) else f"after {last}" for year in (low, high)]
    interval = f" (interval: {' to '.join(ends)})" if ends[0] != ends[1] else ""
    if not np.isfinite(first):
        return f"No limit of the feeder is passed up to {last}, {risk}{interval}."
    return f"Some limit of the feeder is passed from {first:.0f} on, {risk}{interval}."


_YEARS = {
    "place": "element",
    "first_year": "first year",
    "first_year_low": "interval from",
    "first_year_high": "interval to",
    "share_by_last_year": "deployments over by the last year",
    "member_low": "first year over the deployments, 5 %",
    "member_median": "median",
    "member_high": "95 %",
}
"""Columns of the table of years in words."""


_COSTS = {
    "control_cost": "cost of control",
    "set_cost": "replacements",
    "total_cost": "control and replacements",
    "least_bound": "replacements, at least",
    "upper_cost": "replacements, at most",
    "measures": "replacements that restore the limits",
    "violated_before_mean": "share of deployments that violate a limit before",
    "violated_after_mean": "share of deployments that violate a limit after",
    "unserved_kwh_mean": "energy unserved, mean (kWh)",
    "evs_mean": "EVs, mean",
    "member_cost_low": "deployments on their own, 5 %",
    "member_cost_median": "deployments on their own, median",
    "member_cost_high": "deployments on their own, 95 %",
}
"""Columns of the table of costs in words."""


def _reinforcement(part: Part) -> tuple[list[str], list[Section]]:
    """What restoring the limits costs, by replacements and by control."""
    result, rows = part.result, list(reinforcement_summary(part.result))
    controls_of = [str(name) for name in result["control"].values]
    total = result["total_cost"].values
    answer = [f"{name}: {text}." for name, text in rows if name in controls_of]
    if np.isfinite(total).any():
        at = int(np.nanargmin(total))
        cost = _number(float(total[at]), str(result.attrs["currency"]))
        measures = str(result["measures"].values[at]) or "no replacements"
        by = f"{controls_of[at]} with {measures}"
        answer.insert(0, f"The limits are restored at the least present value by {by}: {cost}.")
    section = Section("Present values side by side")
    section.add(Table([], [[name, text] for name, text in rows]))
    sets = result["set_cost"].values.astype(np.float64)
    upper = np.where(np.isfinite(sets), np.nan, result["upper_cost"].values)
    upper = np.where(np.isfinite(upper), upper, np.nan)
    series = {
        "control": result["control_cost"].values.tolist(),
        "replacements": sets.tolist(),
        "replacements, at most": upper.tolist(),
    }
    if not np.isfinite(upper).any():
        del series["replacements, at most"]
    bars = charts.bars("Present value", str(result.attrs["currency"]), controls_of, series)
    why = {
        "no replacements are needed": sets == 0,
        "the least set of replacements is not known, only one that restores the limits (at most)":
            np.isfinite(upper),
        "no set of replacements is known that restores the limits": np.isnan(sets) & np.isnan(upper),
    }  # fmt: skip
    notes = [f"{joined(np.array(controls_of)[on], 8)}: {text}." for text, on in why.items() if on.any()]
    section.add(*charts_of([bars], " ".join(notes)))
    costs = costs_table(result).rename(columns=lambda c: _COSTS.get(c, _readable(c))).set_index("control")
    costs.insert(6, "replacements, the cheapest known", result["upper_measures"].values)
    section.add(indexed_table(costs.replace("", "–").T))
    section.add(table_of(_words_in(limits_table(result)), "The limits, and whether they were checked."))
    return answer, [section]


# ---- others -----------------------------------------------------------------------------------------


def _tables(part: Part) -> tuple[list[str], list[Section]]:
    """Key figures and tables of a study without a page of its own."""
    import pandas as pd

    section = Section("Tables")
    for file in sorted(part.folder.glob("*.csv"))[:_TABLES]:
        if file.name != "index.csv":
            section.add(table_of(pd.read_csv(file), file.stem.replace("_", " ")))
    return ["The tables below hold the answer."], [section]


Writer = Callable[[Part], tuple[list[str], list[Section]]]

WRITERS: dict[str, Writer] = {
    "evgrid-hosting-capacity": _hosting,
    "evgrid-comparison": _comparison,
    "evgrid-resilience": _resilience,
    "evgrid-growth": _growth,
    "evgrid-reinforcement": _reinforcement,
}
"""Who writes the answer and the sections of a study, by its format without the version."""


def _writer(part: Part) -> Writer:
    return WRITERS.get(part.format, _tables)


def _runs(part: Part, limits: Sequence[str]) -> list[Section]:
    """Map, curves, and violations of the first runs of a study, where they were kept as results of runs."""
    if not (part.folder / "batch.json").is_file() or not part.variants:
        return []
    index = read_index(part.folder)
    files = {}
    for case, runs in index[index["state"] == "finished"].groupby("case", sort=True):
        file = part.folder / "runs" / f"{runs.sort_values('first')['id'].iloc[0]}.nc"
        if int(str(case)) < len(part.variants):
            files[part.variants[int(str(case))]] = file
    best = [_ranked(part, aim)[:1] for aim in _AIMS.get(str(part.result.attrs.get("kind")), ())]
    first = [v for v in files if v not in _UNRANKED][:1]
    order = dict.fromkeys(v for v in [*first, *(v for found in best for v in found), *files] if v in files)
    chosen = [(variant, files[variant]) for variant in list(order)[:MOST_MAPS]]
    with ExitStack() as stack:
        cases = []
        for label, file in chosen:
            result = stack.enter_context(open_netcdf(file))
            if result.attrs.get("format") != RUN:  # reduced to what the study needs of it
                return []
            cases.append(Case(label, file, result))
        if not cases:
            return []
        page = page_of_runs(cases, limits)
    kept = ("Map of the feeder", "Over time", "Elements nearest to their limits", "Violations of limits")
    sections = [section for section in page.sections if section.title in kept]
    for section in sections:
        section.title += f" of {joined(label for label, _ in chosen)}"
    return sections


def _certainty(parts: Sequence[Part]) -> Section:
    """How sure the answer is, and what was not checked."""
    section = Section("How sure this is")
    for part in parts:
        result, entries = part.result, []
        members = int(result.sizes.get("member", result.attrs.get("members", 1)))
        entries.append(
            f"{members} members were run." if members > 1 else
            "One member was run: how far other drivers, homes and days would differ is not known."
        )  # fmt: skip
        if "confidence" in part.settings:
            entries.append(f"Intervals are those of a confidence of {100 * part.settings['confidence']:g} %.")
        for name, why in json.loads(result.attrs.get("not_checked", "{}")).items():
            entries.append(f"Not checked: {words(name)}: {str(why).removeprefix(f'{name}: ')}.")
        for name, remark in json.loads(result.attrs.get("remarks", "{}")).items():
            if remark:
                entries.append(f"{words(name)}: {remark}.")
        for name, why in json.loads(result.attrs.get("failed", "{}")).items():
            entries.append(f"Variant {name} has failed and is left out: {why}")
        if len(parts) > 1:
            section.add(Text(part.name, "strong"))
        section.add(Bullets(entries))
    return section


def _settings(parts: Sequence[Part]) -> Section:
    section = Section("Settings and versions")
    text = ", ".join(f"{name} {version}" for name, version in versions().items())
    section.add(Text(f"Versions with which the report was made: {text}.", "muted"))
    for part in parts:
        settings_of = dict(part.settings)
        if "scenario" in settings_of:
            settings_of["scenario"] = Path(str(settings_of["scenario"])).name
        section.add(Code(yaml_of(settings_of), f"Study {part.name}"))
    return section
