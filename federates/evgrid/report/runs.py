"""The report of one run, or of several side by side."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from evgrid.errors import ResultError
from evgrid.report import charts
from evgrid.report.assumptions import assumptions as described
from evgrid.report.assumptions import count
from evgrid.report.cases import Case
from evgrid.report.feeder_map import MapData, controls, feeder_map, frames_that_fit
from evgrid.report.judged import Judged, binding_rows, limit_words, verdict, words
from evgrid.report.key_figures import side_by_side
from evgrid.report.page import (
    Bullets,
    Chart,
    Code,
    Page,
    Section,
    Table,
    Text,
    cell,
    charts_of,
    indexed_table,
    joined,
    table_of,
)
from evgrid.report.setups import difference, setup_of
from evgrid.results import audit_of
from evgrid.results.limits import interval_s
from evgrid.results.metrics import external_federates, summary
from evgrid.results.recording import unrecorded
from evgrid.results.settlement import amount, settle
from evgrid.studies.figures import currency_of
from evgrid.studies.statistics import wilson

if TYPE_CHECKING:
    import xarray as xr

MOST_MAPS = 4
"""Results of which a map is drawn."""
MOST_ROWS = 40
"""Rows of a table of violations; evgrid violations lists all."""
_SPARE = (
    "Spare power is what could be drawn at a bus besides, on three phases, until the first rating on its way "
    "to the head is reached; voltage is not considered."
)
_COSTS = (
    "Energy is that of the EVs' sessions in the run's period, by the scenario's tariff. The households' "
    "energy, reinforcement of the grid and taxes are not calculated."
)
_ALL = 10**9
"""Points of a chart that is not thinned out."""
_LONG_DAYS = 3
"""Days from which on a run is also shown by the time of day."""


def page_of_runs(cases: Sequence[Case], limits: Sequence[str] = ()) -> Page:
    """The report of one result, or of several side by side; ``limits`` are names of presets.

    Raises ValueError for an unknown one.
    """
    frames = frames_that_fit([case.result for case in cases[:MOST_MAPS]])
    return page_of_judged([Judged(case, limits, frames) for case in cases])


def page_of_judged(judged: Sequence[Judged], live: bool = False) -> Page:
    """The report of results that were judged; ``live``: for a Bokeh server, with the whole time axis."""
    first = judged[0]
    title = first.label if len(judged) == 1 else " and ".join(j.label for j in judged[:3])
    if len(judged) > 3:
        title += f" and {len(judged) - 3} more"
    answer = []
    if len(judged) > 1:
        answer += difference([setup_of(j.result, j.limits, j.members) for j in judged])
        answer += changes(judged)
    answer += [sentence for j in judged for sentence in verdict(j, named=len(judged) > 1)]
    return Page(
        title=title,
        subtitle="Report of a run" if len(judged) == 1 else f"Comparison of {len(judged)} runs",
        answer=answer,
        sections=[
            asked(judged), numbers(judged), maps(judged, live), curves(judged, live), binding(judged),
            broken(judged), costs(judged), members(judged), certainty(judged), settings(judged),
        ],
    )  # fmt: skip


def changes(judged: Sequence[Judged]) -> list[str]:
    """What changes from the first result to each other: the figures that a planner asks for."""
    sentences = []
    first = {f.name: f for f in judged[0].figures}
    for other in judged[1:]:
        parts = []
        for f in other.figures:
            if f.name not in ("head_peak_kw", "trafo_loading_percent", "line_loading_percent",
                              "voltage_lowest_pu", "energy_cost", "fixed_charge", "demand_charge", "net_cost",
                              "unserved_kwh"):  # fmt: skip
                continue
            if (
                f.name not in first
                or not np.isfinite(f.values).any()
                or not np.isfinite(first[f.name].values).any()
            ):
                continue
            before, after = (float(np.nanmedian(g.values)) for g in (first[f.name], f))
            if not np.isclose(before, after, rtol=1e-3, atol=1e-6):
                share = (
                    f" ({100 * (after / before - 1):+.0f} %)" if abs(before) > 1e-9 and f.unit != "pu" else ""
                )
                what = f"{f.text} {f.remark}".strip() if f.name == "net_cost" else f.text
                parts.append(f"{what} {before:.4g} to {after:.4g} {f.unit}{share}")
        text = "; ".join(parts) if parts else "no key figure differs by more than 0.1 %"
        many = " (medians of the members)" if max(judged[0].members, other.members) > 1 else ""
        sentences.append(f"From {judged[0].label} to {other.label}{many}: {text}.")
    return sentences


def asked(judged: Sequence[Judged]) -> Section:
    """What was asked and assumed."""
    section = Section("What was asked and assumed")
    rows: dict[str, list[str]] = {}
    for j in judged:
        for name, text in assumptions(j):
            rows.setdefault(name, [""] * len(judged))[judged.index(j)] = text
    columns = ["", *(j.label for j in judged)] if len(judged) > 1 else []
    section.add(Table(columns, [[name, *texts] for name, texts in rows.items()]))
    notes = {j.label: json.loads(j.result.attrs.get("notes", "[]")) for j in judged}
    common = [note for note in notes[judged[0].label] if all(note in own for own in notes.values())]
    if common:
        section.add(Text("Assumptions that the run printed:"), Bullets(common))
    for label, own in notes.items():
        if rest := [note for note in own if note not in common]:
            section.add(Text(f"Assumptions of {label} only:"), Bullets(rest))
    return section


def assumptions(j: Judged) -> list[tuple[str, str]]:
    """The scenario in words, by subject."""
    s, r = j.scenario, j.result
    hours = r.sizes["time"] * interval_s(r) / 3600
    time = s.get("time", {})
    seed = r.attrs.get("seed", "–")
    rows = [
        (
            "period",
            f"{cell(r['time'].values[0])} on, {hours:g} h in steps of {time.get('step', 0):g} s",
        ),
        ("members", f"{count(j.members, 'Monte Carlo world')}, seed {seed}"),
    ]
    shown = s if j.with_feeder else s | {"feeder": None}
    notes = json.loads(r.attrs.get("notes", "[]"))
    rows += described(shown, r.sizes, notes, str(r.attrs.get("phases", "")))
    if j.with_feeder:
        rows.append(("limits", "; ".join(map(limit_words, j.limits.criteria))))
    return rows


def numbers(judged: Sequence[Judged]) -> Section:
    """Key figures: of one result its summary, of several side by side."""
    section = Section("Key figures")
    if len(judged) == 1:
        section.add(Table([], [[name, text] for name, text in summary(judged[0].result)]))
    else:
        many = max(j.members for j in judged) > 1
        caption = "Median of the members (5 to 95 %)." if many else ""
        section.add(indexed_table(side_by_side({j.label: j.figures for j in judged}), caption))
    return section


def maps(judged: Sequence[Judged], live: bool = False) -> Section:
    """Maps of the feeder with their controls."""
    from bokeh.layouts import gridplot

    section = Section("Map of the feeder")
    shown = [j for j in judged if j.map is not None and j.map.quantities][:MOST_MAPS]
    drawn: list[tuple[MapData, dict[str, Any]]] = []
    figures: list[Any] = []
    for j in shown:
        assert j.map is not None
        several = len(shown) > 1
        fig, parts = feeder_map(
            j.map,
            j.label if several else "",
            charts.WIDTH // 2 if several else charts.WIDTH,
            440 if several else 560,
        )
        if figures and _same_places(shown[0].map, j.map):
            fig.x_range, fig.y_range = figures[0].x_range, figures[0].y_range
        figures.append(fig)
        drawn.append((j.map, parts))
    if drawn:
        panel = controls(drawn, results=[j.result for j in shown] if live else ())
        grid = gridplot([figures[i : i + 2] for i in range(0, len(figures), 2)], toolbar_location="right") \
            if len(figures) > 1 else figures[0]  # fmt: skip
        of = ", over all members" if max(j.members for j in shown) > 1 else ""
        section.add(
            Chart(
                grid,
                f"The worst value of each element in the whole run{of}, or in the interval chosen. Grey: not "
                f"known. Squares are transformers. {drawn[0][0].place.note}",
                panel,
            )
        )
        if any(q.title == "spare power" for data, _ in drawn for q in data.quantities):
            section.add(Text(_SPARE, "muted"))
    for j in judged[:MOST_MAPS]:
        if j.map is None:
            section.add(Text(f"{j.label}: the feeder was another program; no map."))
        elif j.map.missing:
            section.add(Text(f"Not in the map{_of(j, judged)}: {'; '.join(j.map.missing)}.", "muted"))
    if len(judged) > MOST_MAPS:
        section.add(Text(f"Maps are drawn of the first {MOST_MAPS} results.", "muted"))
    return section


def _same_places(a: MapData | None, b: MapData | None) -> bool:
    return a is not None and b is not None and np.array_equal(a.place.x, b.place.x, equal_nan=True)


def curves(judged: Sequence[Judged], live: bool = False) -> Section:
    """Power, voltage and loading over time, load duration curves, and days."""
    section = Section("Over time")
    points = _ALL if live else charts.POINTS
    for group in _by_time(judged):
        time = group[0].result["time"].values
        hours = len(time) * interval_s(group[0].result) / 3600
        several = len(judged) > 1
        plots = []

        def label(j: Judged, what: str, several: bool = several) -> str:
            return (f"{j.label}: {what}" if what else j.label) if several else what

        power: dict[str, Any] = {}
        for j in group:
            if j.with_feeder:
                power[label(j, "" if several else "feeder head")] = _series(
                    j.result["head_power_kw"].sum("phase", skipna=False)
                )
        if power and not several:
            power["base load"] = _series(group[0].result["base_load_kw"])
        fleet = {label(j, "" if several else "EVs"): _series(j.result["fleet_power_kw"]) for j in group
                 if "fleet_power_kw" in j.result}  # fmt: skip
        if power:
            plots.append(charts.over_time("Power at the feeder head", "kW", time, power, points=points))
        if fleet:
            plots.append(
                charts.over_time("Power of the EVs (below 0: fed back)", "kW", time, fleet, points=points)
            )
        voltage = {}
        for j in group:
            if j.with_feeder:
                voltage[label(j, "lowest")] = _series(j.result["voltage_min_pu"])
                if not several:
                    voltage[label(j, "highest")] = _series(j.result["voltage_max_pu"])
        if voltage:
            what = "Lowest voltage of all buses" if several else "Voltage band over all buses"
            plots.append(
                charts.over_time(
                    f"{what} (dashed: limits)", "pu", time, voltage, _voltage_limits(group), points=points
                )
            )
        loading = {
            text: {label(j, "" if several else text): 100 * found for j in group
                   if (found := _loading(j, kind)) is not None}
            for kind, text in (("trafo", "transformer"), ("line", "line"))
        }  # fmt: skip
        for text, series in loading.items():
            if series:
                title = f"Loading of the most loaded {text} (dashed: rating)"
                plots.append(charts.over_time(title, "%", time, series, [100.0], points=points))
        if power:
            plots.append(charts.duration_curves("Load duration curve of the feeder head", "kW", hours, power))
        for text, series in loading.items():
            if series:
                title = f"Load duration curve of the most loaded {text} (dashed: rating)"
                plots.append(charts.duration_curves(title, "%", hours, series, [100.0]))
        if hours >= 24 * _LONG_DAYS:
            if power:
                plots.append(charts.over_the_day("Feeder head by time of day", "kW", time, power))
            if fleet:
                plots.append(charts.over_the_day("EVs by time of day", "kW", time, fleet))
        hot = {
            label(j, "" if several else "hottest transformer"): _series(
                j.result["trafo_hot_spot_c"].max("trafo")
            )
            for j in group
            if "trafo_hot_spot_c" in j.result and j.result.sizes["trafo"]
        }
        if hot:
            plots.append(
                charts.over_time("Hot spot of the hottest transformer", "°C", time, hot, points=points)
            )
        if plots:
            caption = "Bands: lowest and highest within each interval drawn." * (len(time) > points)
            if max(j.members for j in group) > 1:
                caption = "Lines: median of the members; bands: 5 to 95 %."
            section.add(*charts_of(plots, caption))
    for j in judged:
        for kind, text in (("trafo", "transformers"), ("line", "lines")):
            if j.with_feeder and j.result.sizes.get(kind) and _loading(j, kind) is None:
                why = unrecorded(j.result, kind) or "no ratings"
                section.add(Text(f"Loading of {text} is not checked{_of(j, judged)}: {why}.", "muted"))
    return section


def _by_time(judged: Sequence[Judged]) -> list[list[Judged]]:
    """Results of the same times together."""
    groups: list[list[Judged]] = []
    for j in judged:
        for group in groups:
            if np.array_equal(group[0].result["time"].values, j.result["time"].values):
                group.append(j)
                break
        else:
            groups.append([j])
    return groups


def _series(values: xr.DataArray) -> NDArray[np.float64]:
    return np.asarray(values.transpose("member", "time").values, np.float64)


def _loading(j: Judged, kind: str) -> NDArray[np.float64] | None:
    """The highest loading per rating over all elements of a kind, (member, time); None if not known."""
    found = j.map.extremes.get(f"{kind}_loading") if j.map is not None else None
    return found.series if found is not None and np.isfinite(found.series).any() else None


def _voltage_limits(judged: Sequence[Judged]) -> list[float]:
    return sorted({bound for j in judged for bound in j.band_pu})


def binding(judged: Sequence[Judged]) -> Section:
    """The elements nearest to their limits, or furthest beyond, of each kind."""
    section = Section("Elements nearest to their limits")
    for j in judged:
        if j.map is None:
            continue
        rows = binding_rows(j)
        if rows:
            columns = [
                "element",
                "quantity",
                "worst value",
                "limit",
                "share of the limit used",
                "phase",
                "when",
                "member",
            ]
            section.add(Table(columns, rows, j.label if len(judged) > 1 else ""))
    section.add(
        Text("Recorded values, before the averaging that a standard allows.", "muted")
        if section.blocks
        else None
    )
    return section


def broken(judged: Sequence[Judged]) -> Section:
    """The table of violations."""
    section = Section("Violations of limits")
    for j in judged:
        if not j.with_feeder:
            section.add(Text(f"Not checked{_of(j, judged)}: the feeder was another program."))
            continue
        table = j.violations
        if table.empty:
            if not j.checked.any():
                section.add(Text(f"Not known{_of(j, judged)}: values are missing."))
                continue
            checked = [words(c) for c, on, _ in j.checks if on]
            section.add(
                Text(
                    f"None of what could be checked{_of(j, judged)}{j.of_checked} "
                    f"({joined(checked, 8) or 'nothing'})."
                )
            )
        else:
            shown = table.drop(columns="severity").rename(columns=lambda c: c.replace("_", " "))
            number = f"{count(len(table), 'violation')}{_of(j, judged)}"
            caption = f"{number}, the most severe first; loading per rating."
            if len(table) > MOST_ROWS:
                caption += f" evgrid violations {j.path.name} -o violations.csv writes all."
            section.add(table_of(shown, caption, MOST_ROWS))
    return section


_PAYERS = (
    ("energy_cost", "energy", "EVs, or whoever pays for them", "supplier"),
    ("block_charge", "energy above the first block", "EVs, or whoever pays for them", "supplier"),
    ("fixed_charge", "fixed charges", "EVs, or whoever pays for them", "supplier"),
    ("demand_charge", "demand charge", "EVs, or whoever pays for them", "grid operator or supplier"),
    ("degradation", "wear of the batteries", "owners of the EVs", "–"),
    ("driver_payment", "payments to drivers", "aggregator", "drivers"),
    ("regulation_credit", "credit for regulation and reserve", "system operator", "aggregator"),
    ("net_cost", "net cost", "EVs and aggregator together", ""),
)
"""Lines of the settlement, who pays and to whom."""


def costs(judged: Sequence[Judged]) -> Section:
    """Costs, and who pays them."""
    section = Section("Costs, and who pays")
    for j in judged:
        if "session_cost" not in j.result:
            section.add(Text(f"Not calculated{_of(j, judged)}: the run has no EVs."))
            continue
        unpriced = np.isnan(j.result["session_cost"].values).all()
        if unpriced:
            section.add(Text(f"Energy is not priced{_of(j, judged)}: the scenario has no tariff."))
        try:
            fleet = settle(j.result).fleet
        except ResultError as error:
            section.add(Text(f"Not calculated{_of(j, judged)}: {error}."))
            continue
        currency, rows = currency_of(j.result), []
        of = ((j.scenario.get("tariff") or {}).get("demand") or {}).get("of", "evs")
        for name, text, payer, payee in _PAYERS:
            values = fleet[name].to_numpy()
            if unpriced and name in ("energy_cost", "net_cost"):
                rows.append([text, "not calculated", payer, payee])
            elif np.any(np.abs(values) > 0.005) or name == "net_cost":
                shown = f"{amount(values.mean())} {currency}"
                if len(values) > 1:
                    low, high = np.quantile(values, [0.05, 0.95])
                    shown += f" ({amount(low)} to {amount(high)})"
                if of != "evs" and name in ("fixed_charge", "demand_charge"):
                    payer = f"customer who is billed for the {of}: EVs and base load"
                rows.append([text, shown, payer, payee])
        many = "; mean of the members (5 to 95 %)" if j.members > 1 else ""
        section.add(Table(["", "in the run", "paid by", "to"], rows, f"{j.label}{many}"))
    section.add(Text(_COSTS, "muted"))
    remarks = dict.fromkeys(
        f"{f.text.capitalize()}: {f.remark}."
        for j in judged
        for f in j.figures
        if f.name in ("demand_charge", "fixed_charge") and f.remark
    )
    section.add(Bullets(list(remarks)) if remarks else None)
    return section


def members(judged: Sequence[Judged]) -> Section:
    """How the key figures differ between the members."""
    section = Section("Spread over the members")
    several = [j for j in judged if j.members > 1]
    if not several:
        section.add(
            Text("One member was run: how far other drivers, homes and days would differ is not known.")
        )
        return section
    rows = []
    for j in several:
        for f in j.figures:
            known = f.values[np.isfinite(f.values)]
            if len(known):
                numbers_of = np.quantile(known, [0, 0.05, 0.5, 0.95, 1])
                case = [j.label] if len(judged) > 1 else []
                rows.append([f.label, *case, *(f"{v:,.4g}" for v in numbers_of)])
    case = ["case"] if len(judged) > 1 else []
    section.add(Table(["", *case, "lowest", "5 %", "median", "95 %", "highest"], rows))
    plots = []
    for name in ("head_peak_kw", "voltage_lowest_pu", "trafo_loading_percent", "net_cost"):
        series = {
            j.label: f.values
            for j in several
            for f in j.figures
            if f.name == name and np.isfinite(f.values).any()
        }
        if series:
            figure = next(f for j in several for f in j.figures if f.name == name)
            plots.append(charts.spread(figure.text.capitalize(), figure.unit, series))
    if plots:
        section.add(*charts_of(plots, "Share of the members with at most the value."))
    return section


def certainty(judged: Sequence[Judged]) -> Section:
    """How sure the answer is, and what was not checked."""
    section = Section("How sure this is")
    for j in judged:
        entries = []
        known = int(j.checked.sum())
        if j.with_feeder and j.coverage["checked"].any() and known:
            low, high = wilson(j.with_violation, known)
            entries.append(
                f"{j.with_violation} of {count(known, 'member')} violate a limit that could be checked: "
                f"of all such worlds {100 * float(low):.0f} to {100 * float(high):.0f} % would (Wilson "
                "interval, 95 %), as far as the scenario describes them."
            )
        entries += [f"Not checked: {entry}." for entry in j.not_checked]
        entries += [f"Checked with a remark: {note}." for note in j.remarks]
        entries += [f"{kind} {unrecorded(j.result, kind)}." for kind in ("bus", "line", "trafo", "site")
                    if unrecorded(j.result, kind)]  # fmt: skip
        for what, name in (("given up", "failed_members"), ("not converged", "unconverged_members")):
            members_of = json.loads(j.result.attrs.get(name, "{}"))
            entries += [f"Member {m} was {what}: {why}" for m, why in members_of.items()]
        outside = external_federates(j.result)
        if outside:
            entries.append(
                f"Other programs were in place of {', '.join(outside)}: what they computed is not recorded."
            )
        audit = ", ".join(
            f"{name.replace('_', ' ')} {value:.1e}" for name, value in audit_of(j.result).items()
        )
        entries.append(f"Energy audit, worst residuals: {audit}.")
        entries.append("Flicker, harmonics, dips, protection and fault levels are not checked.")
        if len(judged) > 1:
            section.add(Text(j.label, "strong"))
        section.add(Bullets(entries))
    return section


def settings(judged: Sequence[Judged]) -> Section:
    """Settings and versions."""
    section = Section("Settings and versions")
    if len(judged) > 1:
        flat = [_flat(j.scenario) for j in judged]
        keys = [
            k for k in dict.fromkeys(k for f in flat for k in f) if len({f.get(k, "–") for f in flat}) > 1
        ]
        if keys:
            differing = [[key, *(f.get(key, "–") for f in flat)] for key in keys]
            section.add(Table(["setting", *(j.label for j in judged)], differing, "Settings that differ."))
    for j in judged:
        versions = json.loads(j.result.attrs.get("versions", "{}"))
        text = ", ".join(f"{name} {version}" for name, version in versions.items())
        solver = j.result.attrs.get("solver", "")
        section.add(
            Text(f"{j.label}: {j.path.name}; {text}{f'; power flow by {solver}' if solver else ''}.", "muted")
        )
        section.add(Code(yaml_of(j.scenario), f"Scenario{_of(j, judged)}, all settings with their defaults"))
    return section


def yaml_of(settings_of: dict[str, Any]) -> str:
    """Settings as YAML."""
    import io

    from ruamel.yaml import YAML

    text, yaml = io.StringIO(), YAML(typ="safe")
    yaml.default_flow_style = None
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.width = 110
    yaml.dump(settings_of, text)
    return text.getvalue()


def _flat(settings_of: Any, path: str = "") -> dict[str, str]:
    if isinstance(settings_of, dict) and settings_of:
        found: dict[str, str] = {}
        for key, value in settings_of.items():
            found |= _flat(value, f"{path}.{key}" if path else str(key))
        return found
    return {path: json.dumps(settings_of, ensure_ascii=False)}


def _of(j: Judged, judged: Sequence[Judged]) -> str:
    return f" of {j.label}" if len(judged) > 1 else ""
