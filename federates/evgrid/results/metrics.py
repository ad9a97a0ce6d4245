"""Key figures of a result, in the units that a planner reads."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from evgrid.aggregator.excess import KEPT_KW, REASON_TEXTS
from evgrid.errors import ResultError
from evgrid.results.limits import (
    LIMITED_POWER,
    Criterion,
    LimitSet,
    aggregator_limits,
    bank_names,
    no_rating,
    unrated_elements,
    violations,
)
from evgrid.results.phase_names import phase_names
from evgrid.results.recording import unrecorded
from evgrid.results.settlement import amount, charges_beside_energy

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

_KEPT_KWH = 0.05
"""Energy up to which a row, or a part of it, is left out."""
_RAISED = 0.02
"""Share by which a peak must exceed that of uncontrolled charging, without taper, to be reported."""


def summary(result: xr.Dataset) -> list[tuple[str, str]]:
    """Key figures as (name, text) rows; over an ensemble the worst member, with its number.

    Raises ResultError for a result that lacks a variable of every run.
    """
    try:
        return _rows(result)
    except KeyError as error:
        lacking = str(error.args[0]).partition(". Did you")[0].lower()
        raise ResultError(f"the result is incomplete: {lacking}") from error


def _rows(result: xr.Dataset) -> list[tuple[str, str]]:
    hours = _interval_hours(result)
    rows = [
        (
            "run",
            f"{result.sizes['member']} member(s), {_stamp(result['time'].values[0])} on, "
            f"{result.sizes['time'] * hours:g} h in intervals of {hours * 3600:g} s",
        )
    ]
    if result.attrs.get("phases"):
        rows.append(("phases", str(result.attrs["phases"])))
    external = external_federates(result)
    if external:
        rows.append(("other programs", f"{', '.join(external)}: what they compute is not recorded"))
    if "feeder" not in external:
        head = result["head_power_kw"].sum("phase", skipna=False)
        rows.append(("head power, highest", _extreme(head, "max", "kW")))
        if float(head.min()) < 0:
            rows.append(("  reverse, highest", _extreme(-head, "max", "kW")))
        rows.append(("  base load, highest", _extreme(result["base_load_kw"], "max", "kW")))
        rows += _peak_rows(result, head)
        rows += _limit_rows(result, hours)
    if "fleet_power_kw" in result:
        rows += _fleet_rows(result)
    if "stations" in result.attrs:
        rows += _station_rows(result)
    if "feeder" not in external:
        rows += _feeder_rows(result)
    if "sites" not in external:
        rows += _site_rows(result)
    if "feeder" not in external:
        rows += _device_rows(result, hours)
        losses = result["losses_kw"].sum("time", skipna=False) * hours
        rows.append(("losses", _over_members(losses, "kWh")))
    return rows


def external_federates(result: xr.Dataset) -> tuple[str, ...]:
    """The federates of a run in whose place other programs were, whose variables it lacks."""
    scenario = json.loads(result.attrs.get("scenario", "{}"))
    return tuple(scenario.get("federation", {}).get("external", ()))


def _feeder_rows(result: xr.Dataset) -> list[tuple[str, str]]:
    """Voltages, loadings and interruptions."""
    rows = [("voltage, lowest", _extreme(result["voltage_min_pu"], "min", "pu", 4))]
    rows.append(("voltage, highest", _extreme(result["voltage_max_pu"], "max", "pu", 4)))
    for name, text in (("line_loading", "line loading"), ("trafo_loading", "transformer loading")):
        element = name.split("_")[0]
        lacks = unrecorded(result, element)
        if lacks == "not recorded":
            rows.append((f"{text}, highest", lacks))
        elif result.sizes.get(element):
            highest = _loading(result, name, element)
            rows.append((f"{text}, highest", highest + (f" of the {lacks}" if lacks else "")))
    return rows + _interruption_rows(result)


def session_quantiles(result: xr.Dataset, quantiles: Sequence[float] = (0.05, 0.5, 0.95)) -> pd.DataFrame:
    """Quantiles of the outcomes of complete sessions, by type of vehicle.

    A row a type and outcome: ``vehicle``, ``outcome`` (a variable of the result with the dimension session,
    ``session_`` left out), ``unit``, ``sessions`` (how many have a number) and a column for each quantile,
    0 to 1. Members and EVs are taken together; NaN where no session has a number.
    """
    import pandas as pd

    done = result["session_complete"].values
    names = [str(n) for n, v in result.data_vars.items() if v.dims == ("session",) and v.dtype.kind == "f"]
    values = pd.DataFrame({name.removeprefix("session_"): result[name].values[done] for name in names})
    long = values.assign(vehicle=result["session_vehicle"].values[done]).melt("vehicle", var_name="outcome")
    groups = long.groupby(["vehicle", "outcome"])["value"]
    rows = groups.quantile(np.asarray(quantiles)).unstack()
    rows.insert(0, "sessions", groups.count())
    units = {name.removeprefix("session_"): result[name].attrs.get("units", "") for name in names}
    rows.insert(0, "unit", rows.index.get_level_values("outcome").map(units))
    return rows.reset_index()


def _peak_rows(result: xr.Dataset, head: xr.DataArray) -> list[tuple[str, str]]:
    """Peaks above that of uncontrolled charging, if any; the member with the largest excess."""
    if "uncontrolled_peak_kw" not in result:
        return []
    plain = result["uncontrolled_peak_kw"].values
    peak = (head - result["losses_kw"]).max("time").values
    if not np.any(peak > (1.0 + _RAISED) * plain):
        return []
    at = int(np.nanargmax(peak - plain))
    where = f", member {result['member'].values[at]}" if len(plain) > 1 else ""
    return [
        (
            "  higher than uncontrolled",
            f"{peak[at]:.1f} kW without losses, about {plain[at]:.1f} kW if every EV charged at once{where}",
        )
    ]


def _limit_rows(result: xr.Dataset, hours: float) -> list[tuple[str, str]]:
    """Whether each aggregator's limit was met, else excess, duration and reasons, of the worst member."""
    rows = []
    for c in aggregator_limits(result):
        own = c.variable.removeprefix(LIMITED_POWER)
        ways = {"drawn": c.high, "fed back": None if c.low is None else -c.low}
        limit_text = ", ".join(f"{kw:g} kW {way}" for way, kw in ways.items() if kw is not None)
        if c.mean_over:
            limit_text += f", mean of {c.mean_over / 60:g} min"
        excess, dims = result[f"limit_excess_kw{own}"], ("member", "time")
        slack = max(c.slack, KEPT_KW)
        broken = abs(excess) > slack
        name = f"limit of {c.name.removeprefix('limit_of_')}"
        where = _judged(result, c.variable) if "trafo" in excess.dims else ""
        if "trafo" in excess.dims and not where:
            rows.append((name, f"{limit_text}: not recorded"))
            continue
        if not bool(broken.any()):
            rows.append((name, f"{limit_text}: {f'kept at {where}' if where else 'kept'}"))
            continue
        text = [f"{limit_text}: passed"]
        for way, beyond in (("drawn", excess), ("fed back", -excess)):
            if float(beyond.max()) > slack:
                worst = beyond.max([d for d in beyond.dims if d not in dims])
                text.append(f"by {_extreme(worst, 'max', 'kW')} {way}")
        time_h = (broken.sum("time") * hours).rename("h")
        most = np.unravel_index(int(np.argmax(time_h.values)), time_h.shape)
        at = {str(dim): int(row) for dim, row in zip(time_h.dims, most, strict=True)}
        place = ""
        if "trafo" in at and result.sizes["trafo"] > 1:
            place = f" at {bank_names(result)[at['trafo']]}"
        text.append(f"for {float(time_h[at]):.2f} h{place}")
        rows.append((name, " ".join(text)))
        if c.mean_over and hours * 3600 < c.mean_over:
            rows.append(_mean_row(result, c))
        rows += _reason_rows(result, own, at)
    return rows


def _judged(result: xr.Dataset, variable: str) -> str:
    """Names of the transformers and banks that a limit is for, as far as they are recorded."""
    dims = [dim for dim in result[variable].dims if dim != "trafo"]
    names = bank_names(result)[result[variable].notnull().any(dims).values].tolist()
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{', '.join(names[:3])}{more}"


def _mean_row(result: xr.Dataset, c: Criterion) -> tuple[str, str]:
    """Whether the means over its interval meet the limit."""
    found = violations(result, LimitSet(criteria=(c,)))
    if found.empty:
        return "  its means", "kept"
    worst = found.iloc[0]
    return "  its means", f"up to {worst['worst']:.1f} kW, {found['duration_h'].max():g} h in all"


def _reason_rows(result: xr.Dataset, own: str, at: dict[str, int]) -> list[tuple[str, str]]:
    name = f"limit_excess_kwh{own}"
    if name not in result:
        return []
    kwh, time_h = (result[key].isel(at).values for key in (name, f"limit_excess_h{own}"))
    order = [i for i in np.argsort(-kwh) if kwh[i] > 0.005]
    reasons = result["reason"].values
    text = ", ".join(f"{REASON_TEXTS[str(reasons[i])]} {kwh[i]:.2f} kWh in {time_h[i]:.2f} h" for i in order)
    return [("  because of", text)] if order else []


def reliability(result: xr.Dataset) -> xr.Dataset:
    """Indices of the interruptions of supply in a run with outages, by member (IEEE 1366-2022).

    A customer is a household, or a connection point without any. Interruptions are sustained ones, of more
    than 5 min; those that the run cuts off count as one, with the minutes in the run. The indices are of the
    run's period.

    saifi : sum of the customers interrupted at each interruption, per customer served
    saidi_min : sum of the minutes for which customers were interrupted, per customer served
    caidi_min : saidi / saifi, minutes; NaN without an interruption
    maifi : as saifi, of interruptions of at most 5 min
    not_served_kwh : base load that connection points without supply would have drawn, at the meter

    Raises ResultError for a result of a run without outages.
    """
    import xarray as xr

    if "interruptions" not in result:
        raise ResultError("the result has no interruptions: its scenario has no section outages")
    on_feeder = result["connection_bus"] != ""
    customers = result["connection_households"].clip(min=1).where(on_feeder, 0)

    def per_customer(name: str) -> xr.DataArray:
        shares: xr.DataArray = (result[name] * customers).sum("connection") / customers.sum()
        return shares

    saifi, saidi = per_customer("interruptions"), per_customer("interrupted_min")
    return xr.Dataset(
        {
            "saifi": saifi.assign_attrs(units="1"),
            "saidi_min": saidi.assign_attrs(units="min"),
            "caidi_min": (saidi / saifi.where(saifi > 0)).assign_attrs(units="min"),
            "maifi": per_customer("momentary_interruptions").assign_attrs(units="1"),
            "not_served_kwh": result["not_served_kwh"].sum("connection").assign_attrs(units="kWh"),
        }
    )


def _station_rows(result: xr.Dataset) -> list[tuple[str, str]]:
    """Charging stations in the fleet's place, and what their meters do not say."""
    stations = json.loads(result.attrs["stations"])
    of_server = json.loads(result.attrs["csms"])
    came = [each for each in stations.values() if each["connections"]]
    messages = sum(each["received"] + each["sent"] for each in came)
    rows = [
        (
            "charging stations",
            f"{len(came)} of {len(stations)} connected, {messages:,} messages, "
            f"{len(json.loads(result.attrs['transactions']))} transactions",
        ),
        ("  not metered", "energy in the batteries, losses, avoidable energy unserved, reactive power"),
    ]
    if of_server["evs_without_station"]:
        text = f"{of_server['evs_without_station']} EVs of other aggregators: they draw nothing here"
        rows.append(("  without station", text))
    if of_server["speed"] is not None:
        rows.append(("  latest tick", f"{of_server['worst_tick_lateness_s']:.2g} s late"))
    held_kwh = of_server.get("held_without_meter_value_kwh", 0.0)
    if abs(held_kwh) >= 0.05:
        text = f"{held_kwh:.1f} kWh in ticks that no register shows: in the last tick's late energy"
        rows.append(("  held for silent stations", text))
    return rows + [
        (f"  cut off: {name}", each["offence"]) for name, each in stations.items() if each["offence"]
    ]


def _interruption_rows(result: xr.Dataset) -> list[tuple[str, str]]:
    """The mean of the reliability indices over the members, and the energy not served."""
    if "interruptions" not in result:
        return []
    found = reliability(result)
    mean = {str(name): float(values.mean()) for name, values in found.items()}
    caidi = f"{mean['saidi_min'] / mean['saifi']:.1f} min" if mean["saifi"] else "none"
    many = " (means over the members)" if result.sizes["member"] > 1 else ""
    momentary = f"; momentary (MAIFI) {mean['maifi']:.3g}" if mean["maifi"] else ""
    return [
        (
            "interruptions",
            f"SAIFI {mean['saifi']:.3g}, SAIDI {mean['saidi_min']:.1f} min, CAIDI {caidi}{momentary} "
            f"in the run{many}",
        ),
        ("  base load not served", _over_members(found["not_served_kwh"], "kWh")),
    ]


def _site_rows(result: xr.Dataset) -> list[tuple[str, str]]:
    """Energies of each group of sites, means over the members, and interruptions of their critical load."""
    if "site_served_kwh" not in result or not result.sizes["site"]:
        return []
    rows, members = [], result.sizes["member"]
    many = ", means over the members" if members > 1 else ""
    lacks = unrecorded(result, "site")
    if lacks and lacks != "not recorded":
        many += f" ({lacks})"
    for group in dict.fromkeys(result["site_group"].values.tolist()):
        own = result.isel(site=np.flatnonzero(result["site_group"].values == group))
        count = own.sizes["site"] / members

        def total(name: str, own: xr.Dataset = own) -> float:
            return float(own[f"site_{name}_kwh"].sum()) / members

        served = f"{count:g} sites{many}: {total('served'):.1f} kWh served"
        if total("unserved") > _KEPT_KWH:
            served += f", {total('unserved'):.1f} not (critical {total('critical_unserved'):.1f})"
        rows.append((f"sites {group}", served))
        grid = [f"{total('imported'):.1f} kWh drawn, {total('exported'):.1f} given"]
        if total("ev_in") + total("ev_out") > _KEPT_KWH:
            grid.append(f"EVs {total('ev_in'):.1f} and {total('ev_out'):.1f}")
        if total("battery_in") + total("battery_out") > _KEPT_KWH:
            grid.append(f"batteries {total('battery_in'):.1f} and {total('battery_out'):.1f}")
        rows.append(("  from and to the grid", "; ".join(grid)))
        if total("pv") + total("pv_curtailed") > _KEPT_KWH:
            sun = f"{total('pv'):.1f} kWh used, {total('pv_curtailed'):.1f} curtailed"
            rows.append(("  PV", sun))
        if total("generated") > _KEPT_KWH:
            rows.append(("  generators", f"{total('generated'):.1f} kWh"))
        unmet_h = own["site_unmet_h"].values
        if unmet_h.any():
            number = float(own["site_interruptions"].sum()) / members / count
            rows.append(
                (
                    "  critical load not met",
                    f"SAIFI {number:.3g} at the socket; {60 * unmet_h.mean():.1f} min a site in the mean, "
                    f"{60 * unmet_h.max():.1f} min at most ({own['site_name'].values[unmet_h.argmax()]})",
                )
            )
        reasons = ("import", "export", "reserve", "outage")
        cut = {reason: total(f"cut_by_{reason}") for reason in reasons if f"site_cut_by_{reason}_kwh" in own}
        if max(cut.values()) > _KEPT_KWH:
            texts = [f"{reason} {kwh:.1f}" for reason, kwh in cut.items() if kwh > _KEPT_KWH]
            rows.append(("  asked of EVs and cut", f"{', '.join(texts)} kWh"))
    return rows


def _device_rows(result: xr.Dataset, hours: float) -> list[tuple[str, str]]:
    """Operations of tap changers and capacitors, PV inverters, and the transformers' ageing."""
    rows = []
    if "trafo_operations" in result:
        for element, text in (("trafo", "tap changers"), ("shunt", "capacitors")):
            moved = result[f"{element}_operations"]
            if moved.any():
                rows.append((f"operations of {text}", _over_members(moved.sum(element), "in all")))
    if "pv_power_kw" in result:
        curtailed = (result["pv_available_kw"] - result["pv_power_kw"]).sum("time") * hours
        rows.append(("PV curtailed", _over_members(curtailed, "kWh")))
    if "trafo_hot_spot_c" in result and result.sizes["trafo"]:
        unrated, of = unrated_elements(result, "trafo_hot_spot_c")
        lacks = no_rating(unrated, of, "trafo") if unrated else ""
        highest = _extreme(result["trafo_hot_spot_c"].max("trafo"), "max", "°C") if unrated < of else ""
        rows.append(("hot spot, highest", "; ".join(filter(None, (highest, lacks)))))
        rows += _life_rows(result["trafo_life_h"], result["trafo_hot_spot_highest_c"])
    return rows


def _life_rows(life: xr.DataArray, highest_c: xr.DataArray) -> list[tuple[str, str]]:
    """The worst loss of life, and the transformers without one as they got too hot; (member, trafo) both."""
    from evgrid.feeder.transformer_thermal import LAW_UP_TO_C

    rows = []
    outside = (highest_c > LAW_UP_TO_C).any("member").values
    names = [str(name) for name in life["trafo"].values[outside]]
    within = life.isel(trafo=np.flatnonzero(~outside))
    if within.sizes["trafo"]:
        worst = within.isel(trafo=int(within.max("member").fillna(0).argmax("trafo")))
        name = str(worst["trafo"].values)
        rows.append((f"loss of life of {name}", f"{_over_members(worst, 'h', 3)} of normal ageing"))
    if names:
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        rows.append(
            (
                "loss of life not reported",
                f"{', '.join(names[:3])}{more}: hot spot above {LAW_UP_TO_C:g} °C, outside the range of "
                "the ageing equations (IEC 60076-7)",
            )
        )
    return rows


def _point_rows(result: xr.Dataset, per: str) -> list[tuple[str, str]]:
    """Shared charge points: occupied, waiting, left without charging."""
    if "session_wait_h" not in result:
        return []
    members, wait = result.sizes["member"], result["session_wait_h"].values
    waited, left = wait[wait > 0], float(result["left_without_charging"].sum()) / members
    mean = f", {waited.mean():.2f} h on average, {waited.max():.2f} h at most" if len(waited) else ""
    wanted = float(result["left_without_charging_kwh"].sum()) / members
    most = (_extreme(result[f"points_{what}"], "max", "EVs") for what in ("occupied", "waiting"))
    return [
        ("charge points, highest", "{} at them; {} waiting".format(*most)),
        ("  waited", f"{len(waited) / members:g} sessions{per}{mean}"),
        ("  left without charging", f"{left:g} EVs{per}, which wanted {wanted:.1f} kWh"),
    ]


def _fleet_rows(result: xr.Dataset) -> list[tuple[str, str]]:
    members = result.sizes["member"]
    done = result["session_complete"].values
    per = " a member" if members > 1 else ""
    evs, sessions, complete = (n / members for n in (result.sizes["ev"], result.sizes["session"], done.sum()))
    power = result["fleet_power_kw"]
    ended = f"{sessions:g} sessions{per}, {complete:g} of them ended in the run"
    if "stations" in result.attrs:  # whose sessions are transactions
        closed = [one for one in json.loads(result.attrs["transactions"]) if one["end"] is not None]
        ended = f"{sessions:g} sessions planned, {len(closed)} transactions ended in the run"
    rows = [
        ("EVs, sessions", f"{evs:g} EVs, {ended}"),
        ("fleet power", f"{_extreme(power, 'max', 'kW')}, lowest {_extreme(power, 'min', 'kW')}"),
        ("sessions that ended", _energies(result, done, per)),
    ]
    rows += _session_rows(result, done)
    rows += _point_rows(result, per)
    cost = result["session_cost"].values
    if cost.size and not np.isnan(cost).all():
        currency = result.attrs.get("currency", "")
        left = _charges_left_out(result)
        rows.append(("cost of charging", f"{amount(np.nansum(cost) / members)} {currency}{per}{left}"))
    rows += _product_rows(result, per)
    return rows


def _energies(result: xr.Dataset, done: NDArray[np.bool_], per: str) -> str:
    """Energies of the sessions that are done; charging stations may not report all of them."""
    parts, unit = [], " kWh"
    for name, text, digits in (
        ("requested", "asked", 1), ("delivered", "drawn", 1), ("discharged", "given back", 1),
        ("unserved", "unserved", 2),
    ):  # fmt: skip
        values = result[f"session_energy_{name}_kwh"].values[done]
        known = values[~np.isnan(values)]
        if len(values) and not len(known):
            parts.append(f"{text} not reported")
            continue
        of = f" (of {len(known)} of {len(values)} sessions)" if len(known) < len(values) else ""
        parts.append(f"{known.sum() / result.sizes['member']:.{digits}f}{unit} {text}{per}{of}")
        unit = per = ""
    return ", ".join(parts)


def _charges_left_out(result: xr.Dataset) -> str:
    """Charges of the scenario's tariff that the cost of energy does not contain."""
    left = " and ".join(charges_beside_energy(result))
    return f" for energy; without {left} charges (evgrid settle)" if left else ""


def _product_rows(result: xr.Dataset, per: str) -> list[tuple[str, str]]:
    """Capacity, score or delivery, and credit of each aggregator that sells regulation or a reserve."""
    rows = []
    for variable in map(str, result.data_vars):
        product = variable.partition("_")[0]
        if not variable.startswith(("regulation_capacity_kw", "reserve_capacity_kw")):
            continue
        own = variable.removeprefix(f"{product}_capacity_kw")

        def of(name: str, product: str = product, own: str = own) -> NDArray[np.float64]:
            return np.asarray(result[f"{product}_{name}{own}"].values)

        capacity = of("capacity_kw")
        sold = capacity > 0
        name = f"{product} of {own[1:]}" if own else product
        if not sold.any():
            rows.append((name, "no capacity was offered in a whole hour"))
            continue
        text = f"{capacity[sold].mean():.1f} kW in {100 * sold.mean():.0f} % of the hours"
        if product == "regulation":
            score = of("score")[sold]
            text += f"; score {np.nanmean(score):.3f}, lowest {np.nanmin(score):.3f}"
        elif (required := np.nansum(of("required_kwh"))) > 0:
            share = np.nansum(of("delivered_kwh")) / required
            text += f"; {100 * share:.1f} % of the energy asked for delivered"
        credit, currency = np.nansum(of("credit")) / result.sizes["member"], result.attrs.get("currency", "")
        rows.append((name, f"{text}; credit {amount(credit)} {currency or 'currency'}{per}"))
    return rows


def _session_rows(result: xr.Dataset, done: NDArray[np.bool_]) -> list[tuple[str, str]]:
    """Quantiles over the complete sessions of each type of vehicle."""
    rows = []
    vehicle = result["session_vehicle"].values if "session_vehicle" in result.coords else None
    types = np.unique(vehicle[done]).tolist() if vehicle is not None else []
    for name in types:
        mine = done & (vehicle == name)
        soc = result["session_soc_departure"].values[mine]
        unserved = result["session_energy_unserved_kwh"].values[mine]
        soc, unserved = soc[~np.isnan(soc)], unserved[~np.isnan(unserved)]  # charging stations may not say
        text = "SOC at departure not reported"
        if len(soc):
            low, middle = np.quantile(soc, [0.05, 0.5])
            text = f"SOC at departure {low:.2f} (5 %), {middle:.2f} (median)"
        if len(unserved):
            half, most = np.quantile(unserved, [0.5, 0.95])
            text += (
                f"; unserved {half:.2f} kWh (median), {most:.2f} (95 %), "
                f"{100 * np.mean(unserved > 1e-6):.1f} % of {len(unserved)} with energy unserved"
            )
        rows.append((f"sessions of {name}" if name else "sessions", text))
    refused = {
        name.removeprefix("session_discharge_refused_").removesuffix("_kwh"): float(values.sum())
        for name, values in ((str(key), result[key]) for key in result.data_vars)
        if name.startswith("session_discharge_refused_")
    }
    if any(refused.values()):
        text = ", ".join(f"{reason} {kwh:.1f}" for reason, kwh in refused.items() if kwh > 0)
        rows.append(("discharge refused", f"{text} kWh"))
    if "session_degradation_cost" in result and done.any():
        low, middle, high = np.nanquantile(result["session_degradation_cost"].values[done], [0.05, 0.5, 0.95])
        rows.append(("degradation", f"{middle:.3f} a session (median; {low:.3f} to {high:.3f} for 90 %)"))
    return rows


def _interval_hours(result: xr.Dataset) -> float:
    time = result["time"].values
    return float((time[1] - time[0]) / np.timedelta64(1, "h")) if len(time) > 1 else 1.0


def _extreme(series: xr.DataArray, which: str, unit: str, digits: int = 1) -> str:
    """The extreme of a (member, time) series with its time, and its member in an ensemble."""
    values = series.transpose("member", "time").values
    if np.isnan(values).all():
        return "not known"
    flat = np.nanargmax(values) if which == "max" else np.nanargmin(values)
    member, time = np.unravel_index(flat, values.shape)
    where = _stamp(series["time"].values[time])
    if values.shape[0] > 1:
        where += f", member {series['member'].values[member]}"
    return f"{_fixed(values[member, time], digits)} {unit} ({where})"


def _loading(result: xr.Dataset, name: str, element: str) -> str:
    """The highest loading of the elements that have a rating, and how many have none."""
    unrated, of = unrated_elements(result, name)
    if unrated and unrated == of:
        return no_rating(unrated, of, element)
    worst = result[name].max(element)
    highest = _extreme(100 * worst, "max", "%") + _place(result, name, element, worst)
    return f"{highest}; {no_rating(unrated, of, element)}" if unrated else highest


def _place(result: xr.Dataset, name: str, element: str, worst: xr.DataArray) -> str:
    """The element of the highest loading, and its phase where phases are solved separately."""
    if worst.isnull().all():
        return ""
    at = {dim: int(place) for dim, place in worst.argmax(["member", "time"]).items()}
    place = int(result[name].isel(at).argmax(element))
    text = f" of {result[element].values[place]}"
    phases = f"{element}_worst_phase"
    if phases not in result:
        return text
    return f"{text}, phase {phase_names(result, element)[place, int(result[phases][at['member'], place])]}"


def _over_members(values: xr.DataArray, unit: str, digits: int = 2) -> str:
    """Median and 90 % of the members; NaN: not known, of which the number is given."""
    numbers = values.values[np.isfinite(values.values)]
    if not numbers.size:
        return "not known"
    of = f"; {numbers.size} of {values.size} members" if numbers.size < values.size else ""
    if numbers.size == 1:
        return f"{_fixed(numbers[0], digits)} {unit}{of}"
    low, mid, high = np.quantile(numbers, [0.05, 0.5, 0.95])
    most = f"{_fixed(low, digits)} to {_fixed(high, digits)}"
    return f"{_fixed(mid, digits)} {unit} (median; {most} for 90 % of the members{of})"


def _fixed(value: float, digits: int) -> str:
    """A number rounded to ``digits``; 0 has no sign."""
    return f"{round(float(value), digits) + 0.0:.{digits}f}"


def _stamp(time: np.datetime64) -> str:
    return str(time.astype("datetime64[m]")).replace("T", " ")
