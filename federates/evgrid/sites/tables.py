"""The sites of all members in one table, as every process derives them from the scenario and the seed.

In: the scenario, the connection points, the EVs, and the base load. Out: :class:`SiteTable`, sorted by
member, then by group in the scenario's order, then by connection point. The connection points of a group
with a share are drawn by member from a stream of their own: a member has the same sites alone and among
others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evgrid.core.element_names import ElementNames
from evgrid.core.model import ALL_PHASES, Array, Clock, Connections, EVs, HeldLoad
from evgrid.core.random_streams import Purpose, stream
from evgrid.errors import ScenarioError
from evgrid.readers.series import Rules, Series, read_series
from evgrid.scenario import Scenario
from evgrid.scenario.sites import CONTROLS, DrawnConnections, OwnLoad, Site
from evgrid.sites.profiles import Constant, Divided, OfBaseLoad, OfSeries, Profile, Profiles
from evgrid.solar.pv import PvPower
from evgrid.solar.weather import weather_format

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

BACKUP = ("none", "critical", "whole")
"""Kinds of backup by their code."""
FORMER = ("auto", "battery", "ev", "generator")
"""What forms an island, by its code."""
CONTROL_NAMES = CONTROLS.names()
"""Controls by their code."""
_MONTH_S = 30 * 86400.0
SITE_LOAD = Rules("load in kW", low=0.0, power=True)


@dataclass(frozen=True, slots=True)
class Rating:
    """Constants of each site, (site,) float64 unless noted otherwise; limits are inf where there is none.

    breaker_kw : most active power of the main breaker, either way
    import_kw, export_kw : most that it draws from and gives to the grid, the breaker included; 0 off grid
    parallel : bool, whether its sources may run in parallel with the grid
    battery_kwh, battery_charge_kw, battery_discharge_kw : 0 without battery
    charge_efficiency, discharge_efficiency, soc_start, soc_min, standby_kw : of the battery
    pv_kw : rated AC power of the PV, 0 without
    generator_kw, fuel_kwh, start_s, minimum_kw : of the generator, 0 without
    power_factor : of the load
    form_kva, load_step_kw : of the island; inf: the rating of what forms it, and any step
    detect_s, black_start_s, return_wait_s, ramp_s : see :class:`evgrid.scenario.sites.Island`
    reserve_soc : state of charge held while the grid is there, without storms
    peak_kw : limit of the control peak; inf where it has none
    former, backup, control : int8, positions in FORMER, BACKUP and CONTROL_NAMES
    ev_first : bool, whether EVs discharge before the battery
    """

    breaker_kw: Array
    import_kw: Array
    export_kw: Array
    parallel: Bools
    battery_kwh: Array
    battery_charge_kw: Array
    battery_discharge_kw: Array
    charge_efficiency: Array
    discharge_efficiency: Array
    soc_start: Array
    soc_min: Array
    standby_kw: Array
    pv_kw: Array
    generator_kw: Array
    fuel_kwh: Array
    start_s: Array
    minimum_kw: Array
    power_factor: Array
    form_kva: Array
    load_step_kw: Array
    detect_s: Array
    black_start_s: Array
    return_wait_s: Array
    ramp_s: Array
    reserve_soc: Array
    peak_kw: Array
    former: NDArray[np.int8]
    backup: NDArray[np.int8]
    control: NDArray[np.int8]
    ev_first: Bools


@dataclass(frozen=True, slots=True)
class SiteTable:
    """All sites of all members, sorted by member, then group, then connection point.

    groups : settings of each group by name, in the order of ``group``
    members : number of members
    member : (site,) position along the run's ``member`` dimension
    group : (site,) position among the groups
    connection : (site,) position along ``connection``; -1 off grid
    name : (site,) str, unique within a member: the connection point's name, or off grid the group's, with its
        number where the group has several
    rating : constants of each site
    ev_first, ev : the EVs of site s are the rows ``ev[ev_first[s]:ev_first[s + 1]]`` of the table of EVs
    circuit_first : the circuits of site s are circuit_first[s] to circuit_first[s + 1], those that are served
        first come first; (site + 1,)
    circuit_name, critical : (circuit,) str and bool
    circuit_row, circuit_share : (circuit,) its row of ``profiles``, and its share of it
    pv_row : (site,) its row of ``profiles``: AC power of its PV, kW; -1 without
    profiles : power over time
    """

    groups: Mapping[str, Site]
    members: int
    member: Ints
    group: Ints
    connection: Ints
    name: NDArray[np.str_]
    rating: Rating
    ev_first: Ints
    ev: Ints
    circuit_first: Ints
    circuit_name: NDArray[np.str_]
    critical: Bools
    circuit_row: Ints
    circuit_share: Array
    pv_row: Ints
    profiles: Profiles

    def __len__(self) -> int:
        return len(self.member)

    def reserve(self, clock: Clock) -> tuple[Array, Array]:
        """State of charge that each site wants to hold over time: moments of change, (n + 1,) s, from 0 to
        infinity, and the values between, (n, site). In a storm it is the greater of the usual one and the
        storm's, from the warning to the end.
        """
        start = clock.start.astype("datetime64[us]")
        spans = [
            (
                number,
                *((np.datetime64(moment) - start) / np.timedelta64(1, "s") for moment in (s.warning, s.end)),
                s.soc,
            )
            for number, site in enumerate(self.groups.values())
            for s in site.control.storms
        ]
        edges = np.unique([0.0, *(t for span in spans for t in span[1:3] if t > 0), np.inf])
        values = np.repeat(self.rating.reserve_soc[np.newaxis], len(edges) - 1, axis=0)
        for number, begin_s, end_s, soc in spans:
            during = (edges[:-1] >= begin_s) & (edges[:-1] < end_s)
            own = np.ix_(during, self.group == number)
            values[own] = np.maximum(values[own], soc)
        return edges, values

    @property
    def notes(self) -> Iterator[str]:
        """Notes on the number of sites and on the weather of their PV, a sentence each."""
        counts = np.zeros((self.members, len(self.groups)), np.int64)
        np.add.at(counts, (self.member, self.group), 1)
        several = [
            f"{name} {low}" if low == high else f"{name} {low} to {high}"
            for name, low, high in zip(self.groups, counts.min(axis=0), counts.max(axis=0), strict=True)
        ]
        yield f"sites: {', '.join(several)} in each member."
        for name, site in self.groups.items():
            file = site.pv.weather if site.pv is not None else None
            if file is not None:
                yield f"sites.{name}.pv: by {file} ({weather_format(file)})."
            elif site.pv is not None:
                yield f"sites.{name}.pv: clear sky throughout, so an upper bound."


def site_table(
    scenario: Scenario, connections: Connections, evs: EVs, base: HeldLoad, discharging: Bools | None = None
) -> SiteTable | None:
    """The sites of a scenario; None where it has none.

    base : the base load of the connection points
    discharging : (ev,) whether each EV may discharge; left out: not known

    Raises
    ------
    ScenarioError
        With every connection point that there isn't, every fault of the files, and every group that is asked
        for what its sites can't do.

    """
    groups = scenario.sites
    if not groups:
        return None
    _refuse_unknown(scenario, connections)
    member, group, connection, name = _places(scenario, connections, evs)
    ev_first, ev = _evs_at(groups, len(scenario.members), member, group, connection, connections, evs)
    loads = _Loads(scenario, connections, base, member, group, connection)
    table = SiteTable(
        groups, len(scenario.members), member, group, connection, name,
        _rating(groups, connections, group, connection, loads.power_factor()),
        ev_first, ev, loads.circuit_first, np.array(loads.names, np.str_), np.array(loads.critical, np.bool_),
        np.array(loads.rows, np.int64), np.array(loads.shares, np.float64), loads.pv_row, loads.profiles,
    )  # fmt: skip
    faults = [*_without_source(table, scenario, discharging), *_overloaded(table, loads.critical_peak_kw)]
    if faults:
        raise ScenarioError(faults)
    return table


# ---- places ---------------------------------------------------------------------------------------


def _refuse_unknown(scenario: Scenario, connections: Connections) -> None:
    known = ElementNames(connections.name[: connections.on_feeder])
    found = [
        f"sites.{group}.connections: the feeder has no connection point {name}; {known.hint(name)}"
        for group, site in scenario.sites.items()
        for name in (site.connections if isinstance(site.connections, tuple) else ())
        if known.place(name) < 0
    ]
    if found:
        raise ScenarioError(found)


def _places(
    scenario: Scenario, connections: Connections, evs: EVs
) -> tuple[Ints, Ints, Ints, NDArray[np.str_]]:
    """Member, group, connection (-1 off grid) and name of each site."""
    own = connections.name[: connections.on_feeder]
    known = ElementNames(own)
    named = {
        group: np.unique(known.places(site.connections))
        for group, site in scenario.sites.items()
        if isinstance(site.connections, tuple)
    }
    taken = np.zeros(len(own), np.bool_)
    taken[np.concatenate([*named.values(), np.zeros(0, np.int64)])] = True
    open_to_draw = ~taken & (connections.households[: len(own)] > 0)
    member, group_of, connection, name = [], [], [], []
    for position, number in enumerate(scenario.members):
        drawn = _drawn(scenario, number, open_to_draw, evs.connection[evs.member == position])
        for at, (group, site) in enumerate(scenario.sites.items()):
            places = named.get(group, drawn.get(group, np.full(site.sites_off_grid, -1)))
            several = site.sites_off_grid > 1
            names = [f"{group}.{k + 1}" if several else group for k in range(site.sites_off_grid)]
            member.append(np.full(len(places), position))
            group_of.append(np.full(len(places), at))
            connection.append(places)
            name.append(np.array(names, np.str_) if site.off_grid else own[places])
    return (
        np.concatenate(member).astype(np.int64), np.concatenate(group_of).astype(np.int64),
        np.concatenate(connection).astype(np.int64), np.concatenate(name),
    )  # fmt: skip


def _drawn(scenario: Scenario, number: int, open_to_draw: Bools, of_evs: Ints) -> dict[str, Ints]:
    """Connection points of each group that is drawn in a member, ascending.

    Each point has a place in an order that is drawn once, and groups take theirs one after the other. A group
    with a greater share has all that it has with a smaller one.
    """
    order = stream(scenario.ensemble.seed, number, Purpose.SITE).permutation(len(open_to_draw))
    total, free = int(open_to_draw.sum()), open_to_draw.copy()
    has_ev = np.zeros(len(free), np.bool_)
    has_ev[of_evs[of_evs < len(free)]] = True
    found, shares = {}, 0.0
    groups = sorted(
        scenario.sites.items(), key=lambda item: not getattr(item[1].connections, "with_ev", False)
    )
    for group, site in groups:
        given = site.connections
        if not (given == "all" or isinstance(given, DrawnConnections)):
            continue
        share = given.share if isinstance(given, DrawnConnections) else 1.0
        count = round((shares + share) * total) - round(shares * total)
        shares += share
        allowed = free & has_ev if isinstance(given, DrawnConnections) and given.with_ev else free
        places = order[allowed[order]][:count]
        free[places] = False
        found[group] = np.sort(places)
    return found


def _evs_at(
    groups: Mapping[str, Site], members: int, member: Ints, group: Ints, connection: Ints,
    connections: Connections, evs: EVs,
) -> tuple[Ints, Ints]:  # fmt: skip
    """First EV of each site and their rows: (site + 1,) and (n,)."""
    size = len(connections) + 1
    site_at = np.full((members, size), -1)
    on_grid = connection >= 0
    site_at[member[on_grid], connection[on_grid]] = np.flatnonzero(on_grid)
    site = site_at[evs.member, evs.connection] if len(evs) else np.zeros(0, np.int64)
    off_grid = np.flatnonzero(~on_grid)
    each = np.array([settings.evs_off_grid for settings in groups.values()])
    for position in range(members):
        mine = off_grid[member[off_grid] == position]
        wanted = np.repeat(mine, each[group[mine]])
        upstream = np.flatnonzero((evs.member == position) & (evs.connection >= connections.on_feeder))
        if len(wanted) > len(upstream):
            raise ScenarioError(
                [
                    f"sites: those off grid need {len(wanted)} EVs in a member, and {len(upstream)} are "
                    "upstream of the feeder: must be as many at least (fleet.upstream, or evs_each)"
                ]
            )
        site[upstream[: len(wanted)]] = wanted
    rows = np.flatnonzero(site >= 0)
    rows = rows[np.argsort(site[rows], kind="stable")]
    first = np.searchsorted(site[rows], np.arange(len(member) + 1))
    return first.astype(np.int64), rows.astype(np.int64)


# ---- constants ------------------------------------------------------------------------------------


def _rating(
    groups: Mapping[str, Site], connections: Connections, group: Ints, connection: Ints, power_factor: Array
) -> Rating:
    """The constants of each site."""
    sites = list(groups.values())

    def of(value: Callable[[Site], Any], dtype: Any = np.float64) -> Any:
        return np.array([value(site) for site in sites], dtype)[group]

    def part(name: str, value: Callable[[Any], float]) -> Array:
        found: Array = of(lambda site: 0.0 if getattr(site, name) is None else value(getattr(site, name)))
        return found

    def most(value: Callable[[Site], float | None]) -> Array:
        found: Array = of(lambda site: np.inf if value(site) is None else value(site))
        return found

    single = (connections.phase[connection] != ALL_PHASES) & (len(connections.phases) == 3)
    volts = of(lambda site: site.nominal_v)
    breaker_kw = most(lambda site: site.breaker_a) * volts * np.where(single, 1.0, 3.0) / 1e3
    exports = of(lambda site: site.interconnection.approval == "export", np.bool_)
    on_grid = connection >= 0
    return Rating(
        breaker_kw=breaker_kw,
        import_kw=np.where(on_grid, np.minimum(most(lambda s: s.interconnection.import_kw), breaker_kw), 0.0),
        export_kw=np.where(
            on_grid & exports, np.minimum(most(lambda s: s.interconnection.export_kw), breaker_kw), 0.0
        ),
        parallel=of(lambda site: site.interconnection.approval != "none", np.bool_) & on_grid,
        battery_kwh=part("battery", lambda b: b.capacity_kwh),
        battery_charge_kw=part("battery", lambda b: b.charge_kw),
        battery_discharge_kw=part("battery", lambda b: b.most_discharge_kw),
        charge_efficiency=of(lambda site: site.battery.charge_efficiency if site.battery else 1.0),
        discharge_efficiency=of(lambda site: site.battery.discharge_efficiency if site.battery else 1.0),
        soc_start=part("battery", lambda b: b.soc_start),
        soc_min=part("battery", lambda b: b.soc_min),
        standby_kw=part("battery", lambda b: b.standby_kw),
        pv_kw=part("pv", lambda pv: pv.most_ac_kw),
        generator_kw=part("generator", lambda g: g.power_kw),
        fuel_kwh=part("generator", lambda g: g.store_kwh),
        start_s=part("generator", lambda g: g.start),
        minimum_kw=part("generator", lambda g: g.minimum_load * g.power_kw),
        power_factor=power_factor,
        form_kva=most(lambda site: site.island.kva),
        load_step_kw=most(lambda site: site.island.load_step_kw),
        detect_s=of(lambda site: site.island.detection),
        black_start_s=of(lambda site: site.black_start_s),
        return_wait_s=of(lambda site: site.island.return_wait),
        ramp_s=of(lambda site: site.island.ramp),
        reserve_soc=of(lambda site: site.control.reserve_soc),
        peak_kw=most(lambda site: getattr(site.control, "limit_kw", None)),
        former=of(lambda site: FORMER.index(site.island.former), np.int8),
        backup=of(lambda site: BACKUP.index(site.backup), np.int8),
        control=of(lambda site: CONTROL_NAMES.index(_kernel_control(site)), np.int8),
        ev_first=of(lambda site: site.discharge_order == "ev_first", np.bool_),
    )


def _kernel_control(site: Site) -> str:
    """Name of the control that a site follows: one of a user's own plans, and is followed as ``cost`` is."""
    return "cost" if site.control.user_classes else site.control.strategy


# ---- loads ----------------------------------------------------------------------------------------


class _Loads:
    """The circuits of all sites and their profiles."""

    def __init__(
        self, scenario: Scenario, connections: Connections, base: HeldLoad, member: Ints, group: Ints,
        connection: Ints,
    ) -> None:  # fmt: skip
        self._scenario, self._base = scenario, base
        self._member, self._group, self._connection = member, group, connection
        self._parts: list[Profile] = []
        self._read: dict[Any, Profile] = {}
        self._faults: list[str] = []
        self.pv_row = np.full(len(member), -1)
        self.critical_peak_kw = np.zeros(len(member))
        """Highest critical load of each site in the run, where it is stated and not drawn; else 0."""
        self.names: list[str] = []
        self.critical: list[bool] = []
        self.rows: list[int] = []
        self.shares: list[float] = []
        layouts = [self._layout(name, at, site) for at, (name, site) in enumerate(scenario.sites.items())]
        if self._faults:
            raise ScenarioError(list(dict.fromkeys(self._faults)))
        self.profiles = Profiles(self._parts)
        counts = np.zeros(len(member), np.int64)
        order = np.zeros(len(member), np.int64)  # number of each site in its group
        for at in range(len(layouts)):
            own = group == at
            order[own] = np.arange(np.count_nonzero(own))
        for row in range(len(member)):
            for name, critical, first, step, share in layouts[group[row]]:
                self.names.append(name)
                self.critical.append(critical)
                self.rows.append(first + step * int(order[row]))
                self.shares.append(share)
                counts[row] += 1
        self.circuit_first = np.append(0, np.cumsum(counts))

    def power_factor(self) -> Array:
        """Power factor of the load of each site; of a base load, that of the run's first step."""
        own = [site.load for site in self._scenario.sites.values()]
        found = np.array([load.power_factor if isinstance(load, OwnLoad) else np.nan for load in own])[
            self._group
        ]
        base = np.isnan(found) & (self._connection >= 0)
        p_kw, q_kvar = (
            power[0].sum(axis=2)[self._member[base] % power.shape[1], self._connection[base]]
            for power in self._base.at(np.zeros(1), np.full(1, self._scenario.feeder_step_s))
        )
        s_kva = np.hypot(p_kw, q_kvar)
        found[base] = np.divide(np.abs(p_kw), s_kva, out=np.ones(len(p_kw)), where=s_kva > 0)
        return np.where(np.isnan(found), self._scenario.feeder.base_load.power_factor, found)

    def _layout(self, name: str, at: int, site: Site) -> list[tuple[str, bool, int, int, float]]:
        """The circuits of a site of a group: name, whether critical, row of the group's first site, rows from
        one site to the next, and share.
        """
        path, parts = f"sites.{name}", site.parts
        self._add_pv(path, at, site)
        own = self._group == at
        kind = "critical" if site.critical is not None else ""
        powers = {
            key: part.share
            if part.share is not None
            else self._power(part, f"{path}.{kind or f'circuits.{key}'}")
            for key, part in parts.items()
        }
        flags = [part.critical for part in parts.values()]
        if site.by_circuits:
            if site.breaker_a is not None:
                circuits = Profiles([power for power in powers.values() if not isinstance(power, float)])
                self.critical_peak_kw[own] = self._peak_kw(circuits, flags)
            return [
                (key, critical, self._add(power), 0, 1.0)
                for (key, power), critical in zip(powers.items(), flags, strict=True)
                if not isinstance(power, float)
            ]
        if isinstance(site.load, OwnLoad):
            load: Profile = self._power(site.load, f"{path}.load")
        else:
            load = OfBaseLoad(self._base, self._member[own], self._connection[own])
        per_site = int(isinstance(load, OfBaseLoad))
        if site.breaker_a is not None and (
            not per_site or self._scenario.feeder.base_load.kind != "standard"
        ):
            divided = Divided(load, list(powers.values()))
            self.critical_peak_kw[own] = self._peak_kw(divided, [*flags, False])
        if all(isinstance(power, float) for power in powers.values()):
            first = self._add(load)
            shares = [float(power) for power in powers.values()]  # type: ignore[arg-type]
            found = [
                (key, critical, first, per_site, share)
                for key, critical, share in zip(parts, flags, shares, strict=True)
            ]
            rest = 1.0 - sum(shares)
            return [*found, ("rest", False, first, per_site, rest)] if rest > 1e-9 else found
        first, step = self._add(Divided(load, list(powers.values()))), per_site * (len(parts) + 1)
        names = zip([*parts, "rest"], [*flags, False], strict=True)
        return [(key, critical, first + k, step, 1.0) for k, (key, critical) in enumerate(names)]

    def _peak_kw(self, circuits: Profile, critical: list[bool]) -> Array:
        """Highest critical load of each site in the run, kW; ``circuits``: len(critical) rows a site."""
        sites = circuits.rows // len(critical)
        duration_s, highest = self._scenario.clock.duration_s, np.zeros(sites)
        for begin_s in np.arange(0.0, duration_s, _MONTH_S).tolist():
            kw = circuits.slots(begin_s, min(begin_s + _MONTH_S, duration_s)).kw
            of_sites = kw.reshape(sites, len(critical), kw.shape[1])[:, np.array(critical, np.bool_)]
            highest = np.maximum(highest, of_sites.sum(axis=1).max(axis=1))
        return highest

    def _add(self, part: Profile) -> int:
        """Number of the first row of a part, which is added if it is new."""
        first = 0
        for there in self._parts:
            if there is part:
                return first
            first += there.rows
        self._parts.append(part)
        return first

    def _add_pv(self, path: str, at: int, site: Site) -> None:
        """Add the row of a group's PV."""
        if site.pv is None:
            return
        try:
            self.pv_row[self._group == at] = self._add(PvPower(site.pv, self._scenario.clock))
        except ScenarioError as error:
            self._faults += [
                f"{path}.pv.{'ambient' if site.pv.weather is None else 'weather'}: {error.source}: {fault}"
                for fault in error.faults
            ]

    def _power(self, given: Any, path: str) -> Profile:
        """A constant power, or a file, which is read once."""
        if given.file is None:
            return Constant(given.kw)
        key = (given.file, given.column, given.reading)
        if key not in self._read:
            try:
                series = read_series(given.file, self._scenario.clock, SITE_LOAD, given.column, given.reading)
            except ScenarioError as error:
                self._faults += [f"{path}.file: {error.source}: {fault}" for fault in error.faults]
                series = Series(np.array([0.0, 1.0]), np.zeros(1))
            self._read[key] = OfSeries(series)
        return self._read[key]


# ---- what can't be -------------------------------------------------------------------------------


def _without_source(table: SiteTable, scenario: Scenario, discharging: Bools | None) -> Iterator[str]:
    """Groups with backup or off grid, but without any source that can form an island."""
    if discharging is None or scenario.fleet is None or scenario.fleet.sessions.sampled:
        return  # what is drawn may differ by member; the settings are checked before
    able = discharging[table.ev]
    of_site = np.repeat(table.group, np.diff(table.ev_first))
    for at, (name, site) in enumerate(table.groups.items()):
        formers = site.battery is not None or site.generator is not None
        if formers or able[of_site == at].any():
            continue
        if site.off_grid:
            yield (
                f"sites.{name}: none of its EVs can discharge: a site off grid needs a battery, a generator, "
                "or such an EV (discharge_kw in the session file)"
            )
        elif site.backup != "none":
            yield (
                f"sites.{name}.backup = {site.backup}: no EV that can discharge charges at its connection "
                "points: needs a battery, a generator, or such an EV (discharge_kw in the session file)"
            )


def _overloaded(table: SiteTable, critical_kw: Array) -> Iterator[str]:
    """Groups with a breaker that the critical load exceeds: the first site of each."""
    over = critical_kw > table.rating.breaker_kw * (1 + 1e-9)
    for at, (name, site) in enumerate(table.groups.items()):
        own = np.flatnonzero(over & (table.group == at))
        if len(own):
            row = own[0]
            yield (
                f"sites.{name}.breaker_a = {site.breaker_a:g}: carries {table.rating.breaker_kw[row]:.4g} kW "
                f"at {table.name[row]}: must carry its critical load, {critical_kw[row]:.4g} kW"
            )
