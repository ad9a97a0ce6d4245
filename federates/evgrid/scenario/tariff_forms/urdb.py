"""A tariff of OpenEI's Utility Rate Database (URDB), as its API gives it in JSON.

In: the JSON of a rate, or the API's answer with several. Out: a tariff of seasons with the same prices, which
a result keeps in place of the file. What a tariff of evgrid can't hold is refused by name, unless
``leave_out`` has it.

Fields by https://openei.org/services/doc/rest/util_rates (versions 3 to 8).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from evgrid.errors import ScenarioError
from evgrid.readers import capped, read_json, shown
from evgrid.scenario.fields import ExistingFile, Settings, faults
from evgrid.scenario.tariff_forms.seasons import SeasonTariff
from evgrid.scenario.tariffs import DemandCharge, Steps, Tariff

_YEAR_DAYS = 365.0
_TEXTS = frozenset(
    [
        "label",
        "eiaid",
        "utility",
        "name",
        "uri",
        "sector",
        "servicetype",
        "description",
        "source",
        "sourceparent",
        "country",
        "approved",
        "is_default",
        "isdefault",
        "revisions",
        "supercedes",
        "supersedes",
        "basicinformationcomments",
        "demandcomments",
        "energycomments",
        "voltageminimum",
        "voltagemaximum",
        "voltagecategory",
        "phasewiring",
        "peakkwcapacitymin",
        "peakkwcapacitymax",
        "peakkwcapacityhistory",
        "peakkwhusagemin",
        "peakkwhusagemax",
        "peakkwhusagehistory",
        "demandunits",
        "fixedchargeeaaddl",
        "latest_update",
    ]
)
"""Fields that describe a rate, and to whom it applies: no part of a bill. ``fixedchargeeaaddl`` is for
further meters of a customer, who has one here."""
_REFUSED = {
    "demandreactivepowercharge": "a charge for reactive power",
    "coincidentratestructure": "a charge for power that coincides with the system's peak",
    "mincharge": "a least bill",
    "minmonthlycharge": "a least bill",
    "annualmincharge": "a least bill",
    "demandattrs": "further attributes",
    "energyattrs": "further attributes",
    "fixedattrs": "further attributes",
    "fixedkeyvals": "further attributes",
    "energykeyvals": "further attributes",
    "demandkeyvals": "further attributes",
}
"""Fields that evgrid can't hold, where they have a value."""
_WITH = {
    "coincidentratestructure": ("coincidentrateschedule", "coincidentrateunit"),
    "mincharge": ("minchargeunits",),
}
_READ = frozenset(
    [
        "startdate",
        "enddate",
        "dgrules",
        "energyratestructure",
        "energyweekdayschedule",
        "energyweekendschedule",
        "fueladjustmentsmonthly",
        "flatdemandstructure",
        "flatdemandmonths",
        "flatdemandunit",
        "demandratestructure",
        "demandweekdayschedule",
        "demandweekendschedule",
        "demandrateunit",
        "demandwindow",
        "demandratchetpercentage",
        "lookbackpercent",
        "lookbackmonths",
        "lookbackrange",
        "fixedchargefirstmeter",
        "fixedchargeunits",
        "fixedmonthlycharge",
        "demandreactivepowercharge",
    ]
)


class UrdbFile(Settings):
    """A rate of OpenEI's Utility Rate Database."""

    file: ExistingFile
    """JSON of the API, of one rate or several."""
    label: str | None = None
    """Label of the rate, of a file that holds several."""
    leave_out: tuple[str, ...] = ()
    """Fields of the rate that are left out, since evgrid can't hold them; a run says so."""
    demand_of: Literal["evs", "transformer", "feeder"] = "evs"
    """The power that its demand charges are for; see demand.of."""
    blocks_by: Literal["month", "period"] | None = None
    """Consumption that fills the tiers of energy; see blocks.by. Required where a rate has tiers and
    several periods."""
    other_kwh: Annotated[float, Field(ge=0)] = 0.0
    """Energy that each customer draws in a month besides the EVs; see blocks.other_kwh."""


class UrdbTariff(Tariff):
    """A rate of OpenEI's Utility Rate Database."""

    named: ClassVar[bool] = False
    has_windows: ClassVar[bool] = True

    urdb: UrdbFile
    """A rate of OpenEI's Utility Rate Database instead of seasons, such as {file: rate.json}."""

    def drawn(self, clock: Any) -> tuple[Steps, float]:
        """See :meth:`evgrid.scenario.tariffs.Tariff.drawn`."""
        return self.resolved().drawn(clock)

    def resolved(self) -> Tariff:
        """The tariff of seasons. Raises a fault (for pydantic) with every fault of the file."""
        path = str(self.urdb.file)
        found: list[str] = []
        try:
            rate = _rate(read_json(self.urdb.file), self.urdb.label, path)
            content = _Reading(rate, self.urdb, found).content()
        except ScenarioError as error:
            raise faults([f"tariff.urdb: {path}: {sentence}" for sentence in error.faults]) from None
        if found:
            raise faults([f"tariff.urdb: {path}: {sentence}" for sentence in capped(found)])
        own = self.model_dump(exclude={"urdb"}, exclude_unset=True)
        if {"export_per_kwh", "export_prices"} & own.keys():
            for season in content["seasons"]:
                for period in season["periods"]:
                    del period["export_per_kwh"]
        return SeasonTariff.model_validate(content | {key: v for key, v in own.items() if v is not None})


def _rate(content: Any, label: str | None, path: str) -> Mapping[str, Any]:
    """The rate of a file. Raises ScenarioError where there is none, or several and no label."""
    items = content.get("items", [content]) if isinstance(content, dict) else content
    rates = [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []
    rates = [{str(key).lower(): value for key, value in rate.items()} for rate in rates]
    rates = [rate for rate in rates if "energyratestructure" in rate or "label" in rate]
    if not rates:
        raise ScenarioError(
            ["holds no rate: must have energyratestructure, or a list of such as items"], path
        )
    labels = [str(rate.get("label")) for rate in rates]
    if label is not None:
        rates = [rate for rate in rates if rate.get("label") == label]
    if len(rates) != 1:
        given = "" if label is None else f" = {shown(label)}"
        raise ScenarioError([f"label{given}: must be one of {', '.join(capped(labels))}"], path)
    return rates[0]


class _Reading:
    """A rate of the database as the content of a tariff of seasons; faults go to ``found``."""

    def __init__(self, rate: Mapping[str, Any], settings: UrdbFile, found: list[str]) -> None:
        left = set(settings.leave_out)
        for key in settings.leave_out:
            left |= set(_WITH.get(key, ()))
            if key not in rate:
                found.append(f"leave_out = {key}: the rate has no such field")
        self._rate = {key: value for key, value in rate.items() if key not in left}
        self._settings, self._found = settings, found

    def content(self) -> dict[str, Any]:
        """The tariff's content."""
        self._refuse()
        rate, settings = self._rate, self._settings
        seasons = self._seasons()
        fixed = self._fixed()
        tiers = any(period.get("blocks") for season in seasons for period in season["periods"])
        blocks = None
        if tiers:
            by = settings.blocks_by
            if by is None and any(len(season["periods"]) > 1 for season in seasons):
                self._found.append(
                    "blocks_by: state month or period, as the rate has tiers of energy and several periods"
                )
            blocks = {"by": by or "month", "other_kwh": settings.other_kwh}
        elif settings.blocks_by is not None or settings.other_kwh:
            self._found.append("blocks_by and other_kwh are for tiers of energy: the rate has none")
        demand = self._demand()
        source = rate.get("uri") or rate.get("source") or ""
        return {
            "name": ", ".join(str(rate[key]) for key in ("utility", "name") if rate.get(key)) or "URDB",
            "currency": "USD",
            "source": str(source),
            "valid_from": self._day("startdate"),
            "valid_until": self._day("enddate"),
            "left_out": settings.leave_out,
            "seasons": seasons,
            "blocks": blocks,
            "demand": demand,
            **fixed,
        }

    def _refuse(self) -> None:
        """Add the fields that a tariff can't hold."""
        ways = "name it in leave_out to go on without it"
        for key, value in self._rate.items():
            what = _REFUSED.get(key)
            if what is not None and _holds(value):
                self._found.append(f"{key}: is {what}, which evgrid has none of; {ways}")
            elif key not in _REFUSED and key not in _TEXTS | _READ | _of_refused() and _holds(value):
                self._found.append(f"{key}: is no field that evgrid knows; {ways}")
        for key, of in (("flatdemandunit", "flatdemandstructure"), ("demandrateunit", "demandratestructure")):
            if self._rate.get(key) not in (None, "", "kW") and _holds(self._rate.get(of)):
                self._found.append(f"{key} = {shown(self._rate[key])}: must be kW; or name {of} in leave_out")

    def _number(self, value: Any, where: str) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            self._found.append(f"{where} = {shown(value)}: must be a number")
            return 0.0
        return float(value)

    def _day(self, key: str) -> date | None:
        given = self._rate.get(key)
        if given is None or given == "":
            return None
        try:
            return datetime.fromtimestamp(self._number(given, key), UTC).date()
        except (OverflowError, ValueError, OSError):
            self._found.append(f"{key} = {shown(given)}: must be seconds since 1970")
            return None

    def _periods_of(self, key: str) -> list[list[dict[str, Any]]]:
        """A structure of rates: tiers of periods."""
        given: Any = self._rate.get(key)
        if not _holds(given):
            return []
        good = isinstance(given, list) and all(
            isinstance(tiers, list) and tiers and all(isinstance(tier, dict) for tier in tiers)
            for tiers in given
        )
        if not good:
            self._found.append(f"{key}: must be a list of periods, each a list of tiers")
            return []
        structure: list[list[dict[str, Any]]] = given
        return structure

    def _schedule(self, key: str, periods: int) -> list[list[int]]:
        """Periods of the hours of each month, (12, 24)."""
        given = self._rate.get(key)
        rows = given if isinstance(given, list) else []
        good = len(rows) == 12 and all(
            isinstance(row, list) and len(row) == 24 and all(_is_index(p, periods) for p in row)
            for row in rows
        )
        if not good:
            self._found.append(
                f"{key}: must be 12 months of 24 hours, each the number of a period from 0 to {periods - 1}"
            )
            return [[0] * 24] * 12
        return [[int(p) for p in row] for row in rows]

    def _seasons(self) -> list[dict[str, Any]]:
        structure = self._periods_of("energyratestructure")
        if not structure:
            if "energyratestructure" not in self._rate:
                self._found.append("energyratestructure: is required")
            return [
                {"name": "all", "months": [*range(1, 13)], "periods": [{"name": "0", "price_per_kwh": 0.0}]}
            ]
        week, weekend = (
            self._schedule(f"energy{days}schedule", len(structure)) for days in ("weekday", "weekend")
        )
        fuel = self._rate.get("fueladjustmentsmonthly") or [0.0] * 12
        if not isinstance(fuel, list) or len(fuel) != 12:
            self._found.append("fueladjustmentsmonthly: must be 12 numbers")
            fuel = [0.0] * 12
        fuel = [self._number(value or 0.0, f"fueladjustmentsmonthly.{m}") for m, value in enumerate(fuel)]
        prices = [self._energy(k, tiers) for k, tiers in enumerate(structure)]
        alike: dict[Any, list[int]] = {}
        for month in range(12):
            alike.setdefault((tuple(week[month]), tuple(weekend[month]), fuel[month]), []).append(month + 1)
        seasons = []
        for (of_week, of_weekend, added), months in alike.items():
            used = sorted({*of_week, *of_weekend}, key=[*of_week * 5, *of_weekend * 2].count)
            entries = []
            for number in used[:-1]:
                for window in _windows(of_week, of_weekend, number):
                    entries.append(_priced(prices[number], added) | {"name": f"period {number}"} | window)
            entries.append(_priced(prices[used[-1]], added) | {"name": f"period {used[-1]}"})
            seasons.append({"name": _months_as_text(months), "months": months, "periods": entries})
        return seasons

    def _energy(self, number: int, tiers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Price, blocks and credit of a period of energy."""
        where = f"energyratestructure.{number}"
        prices, edges = self._tiers(where, tiers, {"sell", "unit"})
        for place, tier in enumerate(tiers):
            if tier.get("unit") not in (None, "", "kWh"):
                self._found.append(f"{where}.{place}.unit = {shown(tier['unit'])}: must be kWh")
        sells = {
            self._number(tier["sell"], f"{where}.sell") for tier in tiers if tier.get("sell") is not None
        }
        if len(sells) > 1:
            self._found.append(f"{where}: sell must be the same in all tiers")
        metered = self._rate.get("dgrules") == "Net Metering"
        credit = prices[0] if metered else sells.pop() if sells else 0.0
        return {
            "price_per_kwh": prices[0],
            "export_per_kwh": credit,
            "net_metering": metered,
            "blocks": [
                {"above_kwh": above, "price_per_kwh": price}
                for above, price in zip(edges, prices[1:], strict=True)
            ],
        }

    def _tiers(
        self, where: str, tiers: Sequence[Mapping[str, Any]], more: set[str]
    ) -> tuple[list[float], list[float]]:
        """Price of each tier, and the limits between them."""
        prices, edges = [], []
        for place, tier in enumerate(tiers):
            at = f"{where}.{place}"
            for key in sorted(set(tier) - {"rate", "adj", "max"} - more):
                self._found.append(f"{at}.{key}: is no field that evgrid knows")
            prices.append(
                sum(self._number(tier[key] or 0.0, f"{at}.{key}") for key in ("rate", "adj") if key in tier)
            )
            if place < len(tiers) - 1:
                edges.append(self._number(tier.get("max"), f"{at}.max"))
        if edges != sorted({edge for edge in edges if edge > 0}):
            self._found.append(f"{where}: max must rise from tier to tier")
        return prices, edges

    def _demand(self) -> dict[str, Any] | None:
        prices: list[dict[str, Any]] = []
        flat = self._periods_of("flatdemandstructure")
        ratchets = self._ratchets()
        if flat:
            of_month = self._rate.get("flatdemandmonths", [0] * 12)
            if not isinstance(of_month, list) or len(of_month) != 12 or not all(
                _is_index(p, len(flat)) for p in of_month
            ):  # fmt: skip
                self._found.append(
                    f"flatdemandmonths: must be 12 numbers of a period from 0 to {len(flat) - 1}"
                )
                of_month = [0] * 12
            for number, tiers in enumerate(flat):
                by_ratchet: dict[Any, list[int]] = {}
                for month in range(12):
                    if of_month[month] == number:
                        by_ratchet.setdefault(ratchets[month], []).append(month + 1)
                for ratchet, months in by_ratchet.items():
                    more: dict[str, Any] = {"months": months}
                    more |= {"ratchet": dict(ratchet)} if ratchet else {}
                    prices += self._power(f"flatdemandstructure.{number}", tiers, more)
        elif any(ratchets):
            self._found.append(
                "demandratchetpercentage: evgrid has ratchets of flatdemandstructure, which the rate lacks; "
                "name it in leave_out to go on without it"
            )
        by_time = self._periods_of("demandratestructure")
        if by_time:
            week, weekend = (
                self._schedule(f"demand{days}schedule", len(by_time)) for days in ("weekday", "weekend")
            )
            alike: dict[Any, list[int]] = {}
            for month in range(12):
                alike.setdefault((tuple(week[month]), tuple(weekend[month])), []).append(month + 1)
            for (of_week, of_weekend), months in alike.items():
                for number, tiers in enumerate(by_time):
                    windows = _windows(of_week, of_weekend, number)
                    if windows:
                        whole = set(of_week) == set(of_weekend) == {number}
                        more = {"months": months}
                        more |= {} if whole else {"windows": windows}
                        prices += self._power(f"demandratestructure.{number}", tiers, more)
        if not prices:
            return None
        minutes = self._number(self._rate.get("demandwindow") or 15, "demandwindow")
        content = {"prices": prices, "interval": 60.0 * minutes, "of": self._settings.demand_of}
        if minutes <= 0 or 1440 % minutes:
            self._found.append(f"demandwindow = {minutes:g}: must be minutes that divide a day")
            return None
        return DemandCharge.model_validate(content).model_dump()

    def _power(
        self, where: str, tiers: Sequence[Mapping[str, Any]], more: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        """Prices of power of a period: that of the first tier, and what each further one adds."""
        rates, edges = self._tiers(where, tiers, set())
        found = [{"price_per_kw": rates[0], **more}] if rates[0] else []
        for above, before, rate in zip(edges, rates, rates[1:], strict=False):
            if rate != before:
                found.append({"price_per_kw": rate - before, "above_kw": above, **more})
        if rates[0] < 0:
            self._found.append(f"{where}: the price of the first tier must be at least 0")
        return found

    def _ratchets(self) -> list[tuple[tuple[str, Any], ...]]:
        """Ratchet of each month as items of its settings, () for none."""
        rate, none = self._rate, [()] * 12
        shares = rate.get("demandratchetpercentage")
        percent = rate.get("lookbackpercent")
        if not _holds(shares) and not _holds(percent):
            return list(none)
        if _holds(shares) and _holds(percent):
            self._found.append("demandratchetpercentage, lookbackpercent: give one of them")
        if not _holds(shares):
            shares = [percent] * 12
        if not isinstance(shares, list) or len(shares) != 12:
            self._found.append("demandratchetpercentage: must be 12 shares from 0 to 1")
            return list(none)
        shares = [self._number(share or 0.0, "demandratchetpercentage") for share in shares]
        if not all(0.0 <= share <= 1.0 for share in shares):
            self._found.append(f"demandratchetpercentage = {max(shares):g}: must be shares from 0 to 1")
            return list(none)
        more: tuple[tuple[str, Any], ...] = ()
        if _holds(back := rate.get("lookbackrange")):
            more += (("lookback", int(self._number(back, "lookbackrange"))),)
        if _holds(counted := rate.get("lookbackmonths")):
            if not isinstance(counted, list) or len(counted) != 12:
                self._found.append("lookbackmonths: must be 12 flags")
            else:
                more += (("of_months", tuple(m + 1 for m, flag in enumerate(counted) if flag)),)
        return [(("share", share), *more) if share else () for share in shares]

    def _fixed(self) -> dict[str, float]:
        rate = self._rate
        old = rate.get("fixedmonthlycharge")
        amount, unit = rate.get("fixedchargefirstmeter"), rate.get("fixedchargeunits") or "$/month"
        if amount is None:
            amount, unit = old, "$/month"
        if amount is None or amount == "":
            return {}
        value = self._number(amount, "fixedchargefirstmeter")
        per: Mapping[str, Callable[[float], dict[str, float]]] = {
            "$/month": lambda charge: {"fixed_per_month": charge},
            "$/day": lambda charge: {"fixed_per_day": charge},
            "$/year": lambda charge: {"fixed_per_day": charge / _YEAR_DAYS},
        }
        if unit not in per:
            self._found.append(f"fixedchargeunits = {shown(unit)}: must be one of {', '.join(per)}")
            return {}
        if value < 0:
            self._found.append(f"fixedchargefirstmeter = {value:g}: must be at least 0")
            return {}
        return per[unit](value)


def _of_refused() -> frozenset[str]:
    return frozenset(key for keys in _WITH.values() for key in keys)


def _holds(value: Any) -> bool:
    """Whether a field says something: neither nothing nor 0 throughout."""
    if isinstance(value, list | tuple):
        return any(map(_holds, value))
    if isinstance(value, dict):
        return any(_holds(v) for key, v in value.items() if key != "max")
    return value not in (None, "", 0, False)


def _is_index(value: Any, count: int) -> bool:
    whole = isinstance(value, int | float) and not isinstance(value, bool) and value == int(value)
    return whole and 0 <= value < count


def _hours(row: Sequence[int], number: int) -> list[list[int]]:
    """Spans of the hours of a day at which a period holds."""
    inside = [False, *(p == number for p in row), False]
    edges = [hour for hour in range(25) if inside[hour] != inside[hour + 1]]
    return [list(pair) for pair in zip(edges[::2], edges[1::2], strict=True)]


def _windows(week: Sequence[int], weekend: Sequence[int], number: int) -> list[dict[str, Any]]:
    """Windows at which a period holds."""
    both = {"weekday": _hours(week, number), "weekend": _hours(weekend, number)}
    if both["weekday"] == both["weekend"]:
        both = {"all": both["weekday"]}
    return [{"days": days, "hours": hours} for days, hours in both.items() if hours]


def _priced(prices: Mapping[str, Any], added: float) -> dict[str, Any]:
    """Prices of a period with a month's adjustment."""
    own = {"price_per_kwh": prices["price_per_kwh"] + added, "export_per_kwh": prices["export_per_kwh"]}
    if prices["net_metering"]:
        own["export_per_kwh"] += added
    if prices["blocks"]:
        own["blocks"] = [b | {"price_per_kwh": b["price_per_kwh"] + added} for b in prices["blocks"]]
    return own


def _months_as_text(months: Sequence[int]) -> str:
    names = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
    return "all year" if len(months) == 12 else " ".join(names[month - 1] for month in months)
