"""The load of the feeder without EVs.

In: the scenario's ``feeder.base_load`` and the feeder. Out: active and reactive power of every
connection point at any simulated time, as the mean over one step of the feeder, in kW and kvar,
(time, member, connection, phase); the member dimension has length 1 where all members are alike.
A connection point on three phases carries a third on each.

``standard`` is the dynamic household profile of the German utilities (BDEW H0, from demandlib,
without public holidays) with diversity, drawn for each member:

- the yearly energy of a household is lognormal (:data:`ENERGY_SIGMA`) about ``annual_kwh``;
- its profile is shifted by a whole number of quarter-hours, uniform over ± :data:`SHIFT_QUARTERS`;
- each quarter-hour is multiplied by gamma noise of mean 1 and shape :data:`NOISE_SHAPE` (a
  coefficient of variation of 0.82). The noise of n households is the exact distribution of their
  sum, had they the same mean: gamma with n times the shape; unequal ones count as
  (sum w)^2 / sum w^2.

Everything is drawn on a grid of quarter-hours from local midnight, by member and day, and held
over the quarter-hour: so a run at 1 min and one at 15 min, or one that starts later, see the same
load. Left out: weather, holidays, correlation of the noise in time.
"""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from evgrid.core.cache_folder import arrays_file, read_arrays, write_arrays
from evgrid.core.element_names import ElementNames
from evgrid.core.model import ALL_PHASES, SAME_S, Array, Clock
from evgrid.core.random_streams import Purpose, stream
from evgrid.core.units import DAY_S
from evgrid.errors import ScenarioError
from evgrid.feeder.additions import Additions
from evgrid.feeder.grid import Bools, Ints
from evgrid.feeder.networks import Network, simbench_net, simbench_version
from evgrid.feeder.opendss.load_shapes import KINDS, powers
from evgrid.feeder.profiles import (
    Customers,
    Profiled,
    Source,
    counted,
    elements_of,
    profiled,
    source_of,
    standard_year,
)
from evgrid.feeder.quarter_hours import DAY_QUARTERS, QUARTER_S, quarter_hours, rows_of_year
from evgrid.readers import Faults, Table, read_table, shown
from evgrid.readers.tables import AS_SHOWN
from evgrid.readers.time_tables import AS_IT_IS, Reading, bare_name, time_table
from evgrid.scenario.feeder import GenerationFile
from evgrid.scenario.profiles import ElementProfile

if TYPE_CHECKING:
    from evgrid.scenario import Scenario
    from evgrid.scenario.feeder import Feeder

ENERGY_SIGMA = 0.4
"""Standard deviation of the logarithm of a household's yearly energy (assumption)."""

SHIFT_QUARTERS = 4
"""Largest shift of a household's profile either way, quarter-hours (assumption)."""

NOISE_SHAPE = 1.5
"""Shape of a household's gamma noise in a quarter-hour (assumption)."""

SHARE = "share"
"""Column of a generation file that holds for all generators, as a share of their power."""

POWER_RULE = "must be a power in kW"
_SIMBENCH_YEAR = 2016
_SIMBENCH_QUARTERS = 366 * DAY_QUARTERS
_PROFILES_FORMAT = 3
_PROFILES = {"load_p", "load_q", "gen_p", "gen_q"}


class BaseLoad(ABC):
    """The load of the connection points without EVs."""

    @abstractmethod
    def at(self, times_s: Array, until_s: Array | None = None) -> tuple[Array, Array]:
        """Mean from each time to ``until_s``.

        times_s : (n,) s from the run's start
        until_s : (n,) s, later than those; left out: one feeder step later
        returns : active power in kW and reactive power in kvar, (n, member or 1, connection, phase)
        """

    def changes(self, begin_s: float, end_s: float) -> Array:
        """Times at which the load may change, from ``begin_s`` to ``end_s`` and with both, s from the run's
        start; (n + 1,), ascending.
        """
        return np.array([begin_s, end_s])

    @property
    def ends_s(self) -> float:
        """Time up to which the load is known, s from the run's start; infinite where it always is."""
        return math.inf

    def generation(self, times_s: Array, until_s: Array | None = None) -> tuple[Array, Array] | None:
        """Fixed generation, likewise: (n, member or 1, gen, phase), positive into the grid; None: the
        net's own, constant.
        """
        return None


def base_load(scenario: Scenario, network: Network) -> BaseLoad:
    """The base load of a scenario.

    Raises
    ------
    ScenarioError
        With every fault of a load file, each with its column and line; or if the network has generators or
        storages and no profile is given for them.

    """
    parts = profiled(scenario.feeder, network)
    load = _without_profiles(scenario, network)
    classes = _customers(scenario, network)
    if parts or classes:
        load = ProfiledLoad(scenario, network, load, parts, classes)
    return AddedLoad(scenario, network, load) if scenario.feeder.additions else load


def _customers(scenario: Scenario, network: Network) -> list[tuple[Ints, Customers]]:
    """Standard profiles of customers that are no households, with their positions."""
    customers, own_kw = network.customers, network.grid.loads.p_kw.sum(axis=1)
    if customers is None or scenario.feeder.base_load.kind != "standard":
        return []
    found = list[tuple[Ints, Customers]]()
    for code in np.unique(customers.code[customers.others]).tolist():
        if not code:
            continue
        rows = np.flatnonzero(customers.code == code)
        source = Customers(code, scenario.clock, customers.annual_kwh[rows], own_kw[rows])
        found.append((rows, source))
    return found


def _without_profiles(scenario: Scenario, network: Network) -> BaseLoad:
    """The base load of loads, generators and storages without a profile of their own."""
    settings = scenario.feeder.base_load
    if settings.kind == "simbench":
        return SimbenchLoad(scenario, network)
    loads = network.grid.loads
    load: BaseLoad
    if settings.kind == "standard":
        load = StandardLoad(scenario, network)
    elif settings.kind == "file":
        load = FileLoad(scenario, network)
    elif settings.shape is not None:
        load = ShapedLoad(scenario, network)
    elif settings.kind == "net":
        load = ConstantLoad(loads.p_kw, loads.q_kvar)
    else:
        load = ConstantLoad(np.zeros_like(loads.p_kw), np.zeros_like(loads.q_kvar))
    given = _generation(scenario, network)
    return load if given is None else WithGeneration(load, given)


def _generation(scenario: Scenario, network: Network) -> _Generation | None:
    """Power of generators and storages; None: the network's own, constant."""
    settings, fixed = scenario.feeder.base_load, network.grid.fixed
    rows = unprofiled(scenario.feeder, network)
    if not len(rows) or settings.generation == "nameplate":
        return None
    if settings.generation is None:
        if settings.kind == "net":
            return None
        hint = ", or feeder.base_load.source: simbench" * network.source.startswith("simbench:")
        raise ScenarioError(
            [
                f"feeder.base_load.generation is not given: {network.source} has {account_of(network, rows)} "
                "without a profile, which would run day and night; must be none, nameplate or {file: pv.csv}"
                f"{hint}, or give them feeder.profiles"
            ]
        )
    if settings.generation == "none":
        p_kw, q_kvar = fixed.gen_p_kw.copy(), fixed.gen_q_kvar.copy()
        p_kw[rows] = q_kvar[rows] = 0.0
        return ConstantLoad(p_kw, q_kvar)
    return FileGeneration(scenario, network)


def unprofiled(settings: Feeder, network: Network) -> Ints:
    """Positions of the fixed generation with a power other than 0 that is no motor or ward, and has no
    profile.
    """
    fixed = network.grid.fixed
    there = (fixed.gen_p_kw != 0).any(axis=1) | (fixed.gen_q_kvar != 0).any(axis=1)
    for part in profiled(settings, network):
        if part.kind != "load":
            there[part.rows] = False
    return np.flatnonzero(np.isin(fixed.gen_kind, ("sgen", "gen", "storage")) & there)


def profiled_loads(scenario: Scenario, network: Network) -> Bools:
    """Whether each load has a profile of its own, (connection,)."""
    found = np.zeros(len(network.grid.loads.bus), np.bool_)
    for part in profiled(scenario.feeder, network):
        if part.kind == "load":
            found[part.rows] = True
    return found


def account_of(network: Network, rows: Ints) -> str:
    """Number and power of generators and storages: 2 generators of 20 kW and 1 storage of -5 kW."""
    fixed, parts = network.grid.fixed, []
    for kinds, name in ((("sgen", "gen"), "generator"), (("storage",), "storage")):
        mine = rows[np.isin(fixed.gen_kind[rows], kinds)]
        if len(mine):
            many = "s" * (len(mine) > 1)
            parts.append(f"{len(mine)} {name}{many} of {fixed.gen_p_kw[mine].sum():g} kW")
    return " and ".join(parts)


def base_load_notes(scenario: Scenario, network: Network, load: BaseLoad) -> tuple[str, ...]:
    """Notes on how a base load replaces the network's own, a sentence each."""
    settings, grid = scenario.feeder.base_load, network.grid
    with_profile, rows = profiled_loads(scenario, network), unprofiled(scenario.feeder, network)
    own_kw, notes = float(grid.loads.p_kw[~with_profile].sum()), list[str]()
    added = load if isinstance(load, AddedLoad) else None
    load = load if added is None else added.inner
    profiles = load if isinstance(load, ProfiledLoad) else None
    load = load if profiles is None else profiles.inner
    scaled = load.load if isinstance(load, WithGeneration) else load
    if isinstance(scaled, StandardLoad):
        own = ~with_profile
        if network.customers is not None:
            own[network.customers.others] = False
        households, own_kw = network.connections.households[own], float(grid.loads.p_kw[own].sum())
        notes.append(
            f"feeder.base_load: standard profiles of {int(households.sum())} households, "
            f"{scaled.mean_kw:.4g} kW in the mean and {scaled.peak_kw:.4g} kW in the highest quarter-hour of "
            f"the year (before noise), in place of the network's own load of {own_kw:.4g} kW"
            + (", to which they are scaled." if settings.scale == "net" else ".")
        )
        left_out = np.flatnonzero(own & (network.connections.households == 0) & grid.loads.p_kw.any(axis=1))
        if len(left_out):
            named = [f"{grid.loads.name[row]} ({grid.loads.p_kw[row].sum():.4g} kW)" for row in left_out[:10]]
            more = f", … ({len(left_out)} in all)" if len(left_out) > len(named) else ""
            notes.append(
                f"feeder.base_load: without households, and so without a load: {', '.join(named)}{more}; "
                "feeder.customers or feeder.profiles give them one."
            )
    elif isinstance(scaled, FileLoad):
        notes.append(
            f"feeder.base_load: {settings.file}, at most {scaled.highest_kw:.4g} kW, in place of the "
            f"network's own load of {own_kw:.4g} kW."
        )
        notes.append(f"feeder.base_load.file: {scaled.account}.")
    if len(rows) and settings.kind != "simbench":
        account = account_of(network, rows)
        if isinstance(settings.generation, str | None):
            given = settings.generation != "none"
            notes.append(
                f"feeder.base_load: {account} "
                + ("as the network has it, day and night." if given else "in the network, left at 0.")
            )
        else:
            notes.append(f"feeder.base_load: {account} in the network, by {settings.generation.file}.")
            if isinstance(load, WithGeneration) and isinstance(load.given, FileGeneration):
                notes.append(f"feeder.base_load.generation.file: {load.given.account}.")
    rest = np.isin(grid.fixed.gen_kind, ("motor", "ward"))
    if rest.any() and settings.kind not in ("net", "simbench"):
        notes.append(
            f"feeder.base_load: {int(rest.sum())} motors and wards of the network draw "
            f"{-grid.fixed.gen_p_kw[rest].sum():.4g} kW, day and night."
        )
    if profiles is not None:
        if profiles.classes:
            each = ", ".join(f"{one.code.upper()} {one.annual_kwh.sum():.4g}" for one in profiles.classes)
            notes.append(f"feeder.base_load: customers by standard profiles, kWh a year: {each}.")
        notes += profiles.accounts
    return (*notes, *(added.accounts if added is not None else ()))


def load_by_trafo(
    scenario: Scenario,
    network: Network,
    times_s: Array,
    until_s: Array | None = None,
    base: BaseLoad | None = None,
) -> Array:
    """The load less fixed generation by the transformer next upstream, kW, (member, trafo + 1, n).

    ``base``: the base load, where it is made already.

    Means from (n,) times to ``until_s``, s, as the feeder has it, which holds the mean of each of its steps
    over that; left out: over one feeder step from each time. The last row is for connection points without a
    transformer upstream. Losses are left out.
    """
    step_s = scenario.feeder_step_s
    base = base_load(scenario, network) if base is None else base
    if until_s is None:
        return _by_trafo(base, scenario, network, times_s, None)
    begins, ends = times_s / step_s, until_s / step_s
    if max(np.abs(edges - np.round(edges)).max(initial=0.0) for edges in (begins, ends)) < 1e-6:
        return _by_trafo(base, scenario, network, times_s, until_s)
    steps = np.arange(np.floor(begins.min() + 1e-9), np.ceil(ends.max() - 1e-9))
    overlap = np.minimum(ends[:, None], steps + 1.0) - np.maximum(begins[:, None], steps)
    weight = np.maximum(overlap, 0.0) / (ends - begins)[:, None]
    return np.asarray(_by_trafo(base, scenario, network, steps * step_s, None) @ weight.T)


def _by_trafo(
    base: BaseLoad, scenario: Scenario, network: Network, times_s: Array, until_s: Array | None
) -> Array:
    """As :func:`load_by_trafo`, from the times to ``until_s`` as the base load itself has it."""
    grid, trafo = network.grid, network.topology.trafo
    members, rows = len(scenario.members), len(grid.trafos.name) + 1
    total = np.zeros((rows, members, len(times_s)))
    p_kw = base.at(times_s, until_s)[0].sum(axis=3)  # (n, member or 1, connection)
    np.add.at(total, trafo[grid.loads.bus], np.moveaxis(p_kw, 2, 0).swapaxes(1, 2))
    given = base.generation(times_s, until_s)
    given_kw = grid.fixed.gen_p_kw[None, None] if given is None else given[0]
    np.subtract.at(total, trafo[grid.fixed.gen_bus], np.moveaxis(given_kw.sum(axis=3), 2, 0).swapaxes(1, 2))
    return total.swapaxes(0, 1)


def _merged(changes: Sequence[Array], end_s: float) -> Array:
    """Times of several, ascending, those nearer than SAME_S once; the last one is ``end_s``."""
    found = np.sort(np.concatenate(changes))
    found = found[np.append(True, np.diff(found) > SAME_S)]
    found[-1] = end_s
    return np.asarray(found)


class AddedLoad(BaseLoad):
    """A base load with ``feeder.additions``; inner : without them; accounts : a sentence each."""

    def __init__(self, scenario: Scenario, network: Network, inner: BaseLoad) -> None:
        """Raise ScenarioError with every fault of the additions."""
        self.inner, self._step_s = inner, scenario.feeder_step_s
        self._additions = Additions(scenario, network, phase_shares(network))
        self.accounts = self._additions.accounts

    def at(self, times_s: Array, until_s: Array | None = None) -> tuple[Array, Array]:
        """See :meth:`BaseLoad.at`."""
        ends_s = times_s + self._step_s if until_s is None else until_s
        return self._additions.put(self.inner.at(times_s, until_s), times_s, ends_s)

    def changes(self, begin_s: float, end_s: float) -> Array:
        """See :meth:`BaseLoad.changes`."""
        return _merged([self.inner.changes(begin_s, end_s), *self._additions.changes(begin_s, end_s)], end_s)

    @property
    def ends_s(self) -> float:
        """See :attr:`BaseLoad.ends_s`."""
        return self.inner.ends_s

    def generation(self, times_s: Array, until_s: Array | None = None) -> tuple[Array, Array] | None:
        """See :meth:`BaseLoad.generation`."""
        return self.inner.generation(times_s, until_s)


class ConstantLoad(BaseLoad):
    """A constant load."""

    def __init__(self, p_kw: Array, q_kvar: Array) -> None:
        """Take the power of each connection point, (connection, phase)."""
        self._p, self._q = p_kw, q_kvar

    def at(self, times_s: Array, until_s: Array | None = None) -> tuple[Array, Array]:
        """See :meth:`BaseLoad.at`."""
        shape = (len(times_s), 1, *self._p.shape)
        return np.broadcast_to(self._p, shape), np.broadcast_to(self._q, shape)


class ShapedLoad(BaseLoad):
    """The loads of a network from OpenDSS by their load shapes (:mod:`evgrid.feeder.opendss.load_shapes`)."""

    def __init__(self, scenario: Scenario, network: Network) -> None:
        """Raises ScenarioError if no load has a shape."""
        settings = scenario.feeder.base_load
        assert network.opendss is not None
        assert settings.shape is not None
        self._shapes, self._kind = network.opendss.circuit.shapes, settings.shape
        if (self._shapes.of_load[KINDS.index(self._kind)] < 0).all():
            raise ScenarioError(
                [f"feeder.base_load.shape = {self._kind}: no load of {network.source} has such a load shape"]
            )
        loads = network.grid.loads
        self._own = loads.p_kw.sum(axis=1), loads.q_kvar.sum(axis=1)
        self._share, self._step_s = phase_shares(network), scenario.feeder_step_s
        start = scenario.start.astype("datetime64[ms]")
        first = {
            "daily": start.astype("datetime64[D]"),
            "yearly": start.astype("datetime64[Y]"),
            "duty": start,
        }
        since = start - first[self._kind].astype("datetime64[ms]")
        self._first_h = float(since.astype(np.int64)) / 3.6e6

    def at(self, times_s: Array, until_s: Array | None = None) -> tuple[Array, Array]:
        """See :meth:`BaseLoad.at`; the value at the end of each span."""
        ends_s = times_s + self._step_s if until_s is None else until_s
        p, q = powers(self._shapes, self._kind, *self._own, self._first_h + ends_s / 3600)
        return p[:, None, :, None] * self._share, q[:, None, :, None] * self._share

    def changes(self, begin_s: float, end_s: float) -> Array:
        """See :meth:`BaseLoad.changes`."""
        return np.append(np.arange(begin_s, end_s, self._step_s), end_s)


class _Generation(Protocol):
    """Source of the power of the fixed generation."""

    def at(self, times_s: Array, until_s: Array | None = None) -> tuple[Array, Array]:
        """Active and reactive power, (n, member or 1, gen, phase), as :meth:`BaseLoad.at`."""


class WithGeneration(BaseLoad):
    """A load, with fixed generation that replaces the network's own."""

    def __init__(self, load: BaseLoad, given: _Generation) -> None:
        self.load, self.given = load, given

    def at(self, times_s: Array, until_s: Array | None = None) -> tuple[Array, Array]:
        """See :meth:`BaseLoad.at`."""
        return self.load.at(times_s, until_s)

    def changes(self, begin_s: float, end_s: float) -> Array:
        """See :meth:`BaseLoad.changes`."""
        return self.load.changes(begin_s, end_s)

    def generation(self, times_s: Array, until_s: Array | None = None) -> tuple[Array, Array] | None:
        """See :meth:`BaseLoad.generation`."""
        return self.given.at(times_s, until_s)


class ProfiledLoad(BaseLoad):
    """A base load, in which loads, generators and storages with a profile have that in its place.

    inner : the base load of the others; classes : of customers that are no households; accounts : of the
        profiles, a sentence each
    """

    def __init__(
        self, scenario: Scenario, network: Network, inner: BaseLoad, parts: Sequence[Profiled],
        classes: Sequence[tuple[Ints, Customers]] = (),
    ) -> None:  # fmt: skip
        """Raise ScenarioError with every fault of the profiles' files; ``classes``: loads by their class."""
        self.inner, self._network = inner, network
        self._loads: list[tuple[Ints, Source]] = [*classes]
        self._gens, self.classes = list[tuple[Ints, Source]](), [source for _, source in classes]
        self._share, self._step_s = phase_shares(network), scenario.feeder_step_s
        self._q_per_p = math.tan(math.acos(scenario.feeder.base_load.power_factor))
        self._split = generation_split(network)
        self._still = np.concatenate(
            [part.rows for part in parts if part.kind != "load"] or [np.zeros(0, np.int64)]
        )
        accounts, faults = dict[str, str](), list[str]()
        for part in sorted(parts, key=lambda part: part.settings.battery is not None):
            try:
                source, accounts[part.name] = self._source_of(scenario, part)
            except ScenarioError as error:
                of = f"feeder.profiles.{part.name}.file: {error.source}: " if part.settings.file else ""
                faults += [of + fault for fault in error.faults]
                continue
            (self._loads if part.kind == "load" else self._gens).append((part.rows, source))
        if faults:
            raise ScenarioError(faults)
        self.accounts = tuple(accounts[name] for name in scenario.feeder.profiles)

    def _source_of(self, scenario: Scenario, part: Profiled) -> tuple[Source, str]:
        """The power of a profile's elements, and an account of it."""
        file = part.settings.file
        if file is None:
            seen = copy(self)  # with the profiles so far, which are what a battery sees
            seen._loads, seen._gens = [*self._loads], [*self._gens]
            return source_of(scenario, self._network, part, seen)
        names, power_kw = elements_of(self._network, part)
        found = FileProfile(scenario, part.settings, names, part.kind, power_kw)
        return found, f"feeder.profiles.{part.name}: {counted(part)} by {file}: {found.account}."

    def at(self, times_s: Array, until_s: Array | None = None) -> tuple[Array, Array]:
        """See :meth:`BaseLoad.at`."""
        p, q = self.inner.at(times_s, until_s)
        ends_s = times_s + self._step_s if until_s is None else until_s
        for rows, source in self._loads:
            own = source.means(times_s, ends_s)[..., np.newaxis] * self._share[rows]
            p, q = _placed(p, rows, own), _placed(q, rows, own * self._q_per_p)
        return p, q

    def changes(self, begin_s: float, end_s: float) -> Array:
        """See :meth:`BaseLoad.changes`."""
        return _merged(
            [self.inner.changes(begin_s, end_s), *(s.changes(begin_s, end_s) for _, s in self._loads)], end_s
        )

    @property
    def ends_s(self) -> float:
        """See :attr:`BaseLoad.ends_s`."""
        files = [s.ends_s for _, s in (*self._loads, *self._gens) if isinstance(s, FileProfile)]
        return min(self.inner.ends_s, *files, math.inf)

    def generation(self, times_s: Array, until_s: Array | None = None) -> tuple[Array, Array] | None:
        """See :meth:`BaseLoad.generation`."""
        given = self.inner.generation(times_s, until_s)
        if not len(self._still):
            return given
        fixed, ends_s = self._network.grid.fixed, times_s + self._step_s if until_s is None else until_s
        if given is None:
            given = ConstantLoad(fixed.gen_p_kw, fixed.gen_q_kvar).at(times_s)
        nothing = np.zeros((len(times_s), 1, len(self._still), given[0].shape[3]))
        p, q = (_placed(power, self._still, nothing) for power in given)
        for rows, source in self._gens:
            own = source.means(times_s, ends_s)[..., np.newaxis]
            p, q = (
                _placed(power, rows, own * split[rows])
                for power, split in zip((p, q), self._split, strict=True)
            )
        return p, q


def _placed(power: Array, rows: Ints, own: Array) -> Array:
    """Power, (n, member or 1, element, phase), with that of some elements in place of what was there."""
    members = max(power.shape[1], own.shape[1])
    found = np.array(np.broadcast_to(power, (len(power), members, *power.shape[2:])))
    found[:, :, rows] = own
    return found


def generation_split(network: Network) -> tuple[Array, Array]:
    """Active and reactive power of generators and storages on each phase, per active power, (gen, phase): as
    in the network, or, where they have none there, a phase's share and 0.
    """
    fixed = network.grid.fixed
    total = fixed.gen_p_kw.sum(axis=1, keepdims=True)
    phases = np.full_like(fixed.gen_p_kw, 1 / fixed.gen_p_kw.shape[1])
    p, q = (
        np.divide(own, total, out=otherwise, where=total != 0)
        for own, otherwise in ((fixed.gen_p_kw, phases), (fixed.gen_q_kvar, np.zeros_like(fixed.gen_q_kvar)))
    )
    return p, q


class _SplitLoad(BaseLoad):
    """Load known as total active power of each connection point, held over intervals."""

    def __init__(self, scenario: Scenario, network: Network) -> None:
        self._step_s = scenario.feeder_step_s
        self._q_per_p = math.tan(math.acos(scenario.feeder.base_load.power_factor))
        self._share = phase_shares(network)

    @abstractmethod
    def _held(self, begin_s: float, end_s: float) -> tuple[Sequence[Any], Array]:
        """The intervals of the hold that a span overlaps, and how long each does, s."""

    @abstractmethod
    def _row(self, interval: Any) -> Array:
        """Active power in an interval, kW, (member or 1, connection)."""

    def at(self, times_s: Array, until_s: Array | None = None) -> tuple[Array, Array]:
        """See :meth:`BaseLoad.at`."""
        p_kw = self._means(times_s, until_s)[..., np.newaxis] * self._share
        return p_kw, p_kw * self._q_per_p

    def changes(self, begin_s: float, end_s: float) -> Array:
        """See :meth:`BaseLoad.changes`."""
        edges = [np.array([begin_s])]
        while (at := float(edges[-1][-1])) < end_s - 1e-6:  # a file's last day is repeated beyond its end
            edges.append(at + np.cumsum(self._held(at, end_s)[1]))
        return np.concatenate(edges)

    def _means(self, times_s: Array, until_s: Array | None) -> Array:
        """Mean of the active power as :meth:`BaseLoad.at`, kW, (n, member or 1, connection)."""
        rows = []
        until_s = times_s + self._step_s if until_s is None else until_s
        for begin_s, end_s in zip(times_s.tolist(), until_s.tolist(), strict=True):
            intervals, overlap_s = self._held(begin_s, end_s)
            if len(intervals) == 1:
                rows.append(self._row(intervals[0]))
                continue
            total = np.zeros_like(self._row(intervals[0]))
            for interval, weight in zip(intervals, overlap_s / overlap_s.sum(), strict=True):
                total += weight * self._row(interval)
            rows.append(total)
        return np.stack(rows)


def phase_shares(network: Network) -> Array:
    """Share of a connection point's power on each phase, (connection, phase)."""
    phase = network.connections.phase
    if not network.three_phase:
        return np.ones((len(phase), 1))
    if network.opendss is not None:  # loads are not connected as EVs beside them are
        return np.asarray(network.opendss.circuit.loads.share)
    share = np.zeros((len(phase), 3))
    share[phase == ALL_PHASES] = 1 / 3
    single = np.flatnonzero(phase != ALL_PHASES)
    share[single, phase[single]] = 1.0
    return share


# ---- standard profiles --------------------------------------------------------------------------


class StandardLoad(_SplitLoad):
    """Standard household profiles with diversity; see the module."""

    def __init__(self, scenario: Scenario, network: Network) -> None:
        """Draw the households of each member."""
        super().__init__(scenario, network)
        self._seed, self._members = scenario.ensemble.seed, scenario.members
        self._start_s = float(scenario.start.astype("datetime64[ms]").astype(np.int64)) / 1e3
        self._year = scenario.time.start.year
        households = network.connections.households
        shifts = 2 * SHIFT_QUARTERS + 1
        self._weight_kwh = np.empty((len(self._members), shifts, len(households)))
        self._noise_shape = np.empty((len(self._members), len(households)))
        place = np.repeat(np.arange(len(households)), households)
        for at, member in enumerate(self._members):
            rng = stream(self._seed, member, Purpose.BASE_LOAD)
            energy = np.exp(ENERGY_SIGMA * rng.standard_normal(len(place)) - ENERGY_SIGMA**2 / 2)
            energy *= scenario.feeder.base_load.annual_kwh
            shift = rng.integers(0, shifts, len(place))
            by_shift = np.bincount(shift * len(households) + place, energy, shifts * len(households))
            self._weight_kwh[at] = by_shift.reshape(shifts, len(households))
            total = np.bincount(place, energy, len(households))
            squares = np.bincount(place, energy**2, len(households))
            some = total > 0  # those without a household have no load
            self._noise_shape[at] = np.divide(
                NOISE_SHAPE * total**2, squares, out=np.ones(len(total)), where=some
            )
            if scenario.feeder.base_load.scale == "net":
                wanted_kw = network.grid.loads.p_kw.sum(axis=1) / _highest_kw(self._year)
                self._weight_kwh[at] *= np.divide(wanted_kw, total, out=np.zeros(len(total)), where=some)
        self._weight_kwh[:, :, profiled_loads(scenario, network)] = 0.0
        if network.customers is not None:
            self._weight_kwh[:, :, network.customers.others] = 0.0
        annual_kwh = self._weight_kwh.sum() / len(self._members)
        self.mean_kw, self.peak_kw = annual_kwh / 8760, annual_kwh * _highest_kw(self._year)
        """Power of all households, mean over the members: in the mean of a year, and in its highest
        quarter-hour before noise and shifts, kW."""
        self._days: dict[int, Array] = {}

    def _held(self, begin_s: float, end_s: float) -> tuple[Sequence[int], Array]:
        begin_s, end_s = self._start_s + begin_s, self._start_s + end_s
        first = math.floor(begin_s / QUARTER_S + 1e-9)
        last = max(math.ceil(end_s / QUARTER_S - 1e-9), first + 1)
        edges = np.clip(np.arange(first, last + 1) * QUARTER_S, begin_s, end_s)
        return range(first, last), np.diff(edges)

    def _row(self, interval: int) -> Array:
        day, quarter = divmod(interval, DAY_QUARTERS)
        drawn = self._days.get(day)
        if drawn is None:
            drawn = self._draw(day)
            last = list(self._days.items())[-1:]
            self._days = {**dict(last), day: drawn}  # in one step, as several models read it at once
        row: Array = drawn[quarter]
        return row

    def _draw(self, day: int) -> Array:
        """Active power in each quarter-hour of a day (days since 1970), (quarter, member, connection)."""
        around = np.concatenate([_household_day(day + k) for k in (-1, 0, 1)])
        shifted = [
            around[DAY_QUARTERS - k : 2 * DAY_QUARTERS - k]
            for k in range(-SHIFT_QUARTERS, SHIFT_QUARTERS + 1)
        ]
        power = np.empty((DAY_QUARTERS, len(self._members), self._weight_kwh.shape[2]))
        ordinal = date(1970, 1, 1).toordinal() + day
        for at, member in enumerate(self._members):
            mean = np.zeros((DAY_QUARTERS, power.shape[2]))
            for weight, profile in zip(self._weight_kwh[at], shifted, strict=True):
                mean += profile[:, np.newaxis] * weight
            shape = self._noise_shape[at]
            noise = stream(self._seed, member, Purpose.BASE_LOAD, ordinal).standard_gamma(shape, mean.shape)
            power[:, at] = mean * (noise / shape)
        return power


def _household_day(day: int) -> Array:
    """Power of a standard household of 1 kWh a year in each quarter-hour of a day (since 1970), kW."""
    when = date.fromordinal(date(1970, 1, 1).toordinal() + day)
    first = (when - date(when.year, 1, 1)).days * DAY_QUARTERS
    return standard_year(when.year, "h0_dyn")[first : first + DAY_QUARTERS]


def _highest_kw(year: int) -> float:
    """Power of a standard household of 1 kWh a year in the highest quarter-hour of a year, kW."""
    return float(standard_year(year, "h0_dyn").max())


# ---- simbench -----------------------------------------------------------------------------------


class SimbenchLoad(BaseLoad):
    """The profiles of a simbench network: its loads (heat pumps and others among them), its generation
    and its storage, in quarter-hours of the year 2016, taken at the same date and time of day
    (:func:`rows_of_year`). Every member has the same.
    """

    def __init__(self, scenario: Scenario, network: Network) -> None:
        """Read the profiles, from the cache folder where they have been read before."""
        name = scenario.feeder.network
        if not name.startswith("simbench:"):
            raise ScenarioError(
                [f"feeder.base_load.source = simbench: needs a network simbench:CODE, not {name}"]
            )
        profiles = simbench_profiles(name)
        self._values = [profiles[key] for key in ("load_p", "load_q", "gen_p", "gen_q")]
        grid = network.grid
        for values, number in zip(
            self._values[::2], (len(grid.loads.bus), len(grid.fixed.gen_bus)), strict=True
        ):
            if values.shape[1] != number:
                raise ScenarioError([f"{name}: {values.shape[1]} profiles for {number} elements in service"])
        self._share = phase_shares(network)
        phases = len(network.connections.phases)
        self._gen_share = np.full((len(grid.fixed.gen_bus), phases), 1 / phases)
        self._start_s = float(scenario.start.astype("datetime64[ms]").astype(np.int64)) / 1e3
        self._step_s = scenario.feeder_step_s

    def at(self, times_s: Array, until_s: Array | None = None) -> tuple[Array, Array]:
        """See :meth:`BaseLoad.at`."""
        return self._mean(0, times_s, until_s, self._share), self._mean(1, times_s, until_s, self._share)

    def changes(self, begin_s: float, end_s: float) -> Array:
        """See :meth:`BaseLoad.changes`."""
        return quarter_hours(begin_s, end_s, self._start_s)

    def generation(self, times_s: Array, until_s: Array | None = None) -> tuple[Array, Array] | None:
        """See :meth:`BaseLoad.generation`."""
        return self._mean(2, times_s, until_s, self._gen_share), self._mean(
            3, times_s, until_s, self._gen_share
        )

    def _mean(self, which: int, times_s: Array, until_s: Array | None, share: Array) -> Array:
        values, rows = self._values[which], list[Array]()
        until_s = times_s + self._step_s if until_s is None else until_s
        for begin_s, end_s in zip(times_s + self._start_s, until_s + self._start_s, strict=True):
            first = math.floor(begin_s / QUARTER_S + 1e-9)
            last = max(math.ceil(end_s / QUARTER_S - 1e-9), first + 1)
            edges = np.clip(np.arange(first, last + 1) * QUARTER_S, begin_s, end_s)
            weight = np.diff(edges) / (edges[-1] - edges[0])
            at = rows_of_year(np.arange(first, last), _SIMBENCH_YEAR)
            rows.append(weight @ values[at].astype(np.float64))
        return np.stack(rows)[:, np.newaxis, :, np.newaxis] * share


def simbench_profiles(name: str) -> dict[str, Any]:
    """Profiles of a simbench network: load_p, load_q (quarter-hour, load) and gen_p, gen_q (quarter-
    hour, generator, then storage, then generators that hold a voltage; positive into the grid), kW and kvar,
    of elements in service.
    """
    code = name.partition(":")[2]
    path = arrays_file("profiles", (code, simbench_version(), _PROFILES_FORMAT))
    kept = read_arrays(path)
    if kept is not None and set(kept) == _PROFILES:
        return kept
    net = simbench_net(code)
    import simbench

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        absolute = simbench.get_absolute_values(net, profiles_instead_of_study_cases=True)

    def series(table: str, quantity: str) -> Array:
        rows = net[table][net[table].in_service.astype(bool)]
        if not len(rows) or quantity not in rows.columns:
            return np.zeros((_SIMBENCH_QUARTERS, len(rows)))
        values = absolute.get((table, quantity))
        if values is None:  # the table has it constant
            return np.tile(rows[quantity].to_numpy(np.float64) * 1e3, (_SIMBENCH_QUARTERS, 1))
        scaled = values[rows.index].to_numpy(np.float64) * rows.scaling.to_numpy(np.float64)
        return np.asarray(scaled * 1e3)

    found = {
        f"{kind}_{letter}": np.concatenate(parts, axis=1).astype(np.float32)
        for letter, quantity in (("p", "p_mw"), ("q", "q_mvar"))
        for kind, parts in (
            ("load", [series("load", quantity)]),
            ("gen", [series("sgen", quantity), -series("storage", quantity), series("gen", quantity)]),
        )
    }
    write_arrays(path, found)
    return found


# ---- files --------------------------------------------------------------------------------------


class FileLoad(_SplitLoad):
    """Load from a table: a series of kW, or of energy per interval, for each load of the net, named like it.

    Its intervals are those of :mod:`evgrid.readers.time_tables`; or its first column is ``minute`` (row k
    covers minute k - 1 to k of each day, 1 to 1440). Beyond its end, where only plans look, a forecast is the
    same time of the file's last day, or without a whole day its last row. Negative power feeds in.

    account : of what was read, shifted, filled and dropped, in words
    """

    _values: Array

    def __init__(self, scenario: Scenario, network: Network) -> None:
        """Read and check the file."""
        super().__init__(scenario, network)
        settings = scenario.feeder.base_load
        assert settings.file is not None
        rest = np.flatnonzero(~profiled_loads(scenario, network))
        names = [str(name) for name in network.connections.name[rest]]
        self._read(settings.file, settings.reading, scenario, names, "load")
        self.highest_kw = float(self._values.sum(axis=1).max())
        if len(rest) < len(self._share):
            values = np.zeros((len(self._values), len(self._share)))
            values[:, rest] = self._values
            self._values = values

    def _read(
        self,
        path: Path,
        reading: Reading,
        scenario: Scenario,
        names: list[str],
        what: str,
        share: bool = False,
    ) -> None:
        """Read and check a table with a series for each name, or, with ``share``, one of that name."""
        table = read_table(path, form=reading.form)
        faults = Faults(table)
        faults.rows_unlike_header(reading.form.header)
        self._daily = table.names[0] == "minute"
        hint = "" if self._daily else "; if they are called otherwise, state names"
        if not share:
            hint += "; a file of some loads only goes to feeder.profiles.NAME.file, with at and of: load"
        select = _Select(names, what, not (reading.name or reading.names), share, reading.name, hint)
        known = ElementNames(names)
        faults.file(
            *(
                f"names.{shown(name)}: there is no such {what} here; {known.hint(name)}"
                for name, _ in reading.names
                if known.place(name) < 0
            )
        )
        self._is_share = False
        start = scenario.start.astype("datetime64[ms]")
        self._offset_s = (
            float((start - start.astype("datetime64[D]")).astype("timedelta64[ms]").astype(np.int64)) / 1e3
            if self._daily
            else 0.0
        )
        if self._daily:
            _check_minutes(table, reading, faults)
            found = select(table.names[1:], faults)
            columns = [*found.values()]
            series = dict(zip(found, table.numbers(columns, faults, POWER_RULE), strict=True))
            for column in columns:
                faults.cells(table.empty(column), column, POWER_RULE)
            faults.check()
            self.account = "1440 minutes of a day read, which every day repeats; in kW"
        else:
            if reading.time == ("time",) and not reading.name and table.names[0] != "time":
                faults.file(
                    f"first column is '{shown(table.names[0])}': must be 'minute' (1 to 1440) or 'time', or "
                    "named with columns"
                )
                faults.check()
            given = time_table(table, scenario.clock, reading, POWER_RULE, select, faults, power=True)
            if given is not None:
                _check_cover(given.edges_s, scenario.clock, faults)
            faults.check()
            assert given is not None
            series, self._edges_s, self.account = given.values, given.edges_s, given.account.sentence()
        self._is_share = share and list(series) == [SHARE]
        self._values = np.stack([series[name] for name in ([SHARE] if self._is_share else names)], axis=1)

    @property
    def ends_s(self) -> float:
        """See :attr:`BaseLoad.ends_s`."""
        return math.inf if self._daily else float(self._edges_s[-1])

    def _held(self, begin_s: float, end_s: float) -> tuple[Sequence[int], Array]:
        begin_s, end_s = begin_s + self._offset_s, end_s + self._offset_s
        if self._daily:
            first = math.floor(begin_s / 60 + 1e-9)
            last = max(math.ceil(end_s / 60 - 1e-9), first + 1)
            edges = np.arange(first, last + 1) * 60.0
        else:
            beyond_s, span_s = begin_s - self._edges_s[-1] + 1e-6, end_s - begin_s
            if beyond_s > 0:
                back_s = DAY_S * math.ceil(beyond_s / DAY_S)
                begin_s = begin_s - back_s
                if begin_s < self._edges_s[0]:  # there is no whole day: the last row
                    begin_s = float(self._edges_s[-2])
                end_s = begin_s + span_s
            end_s = min(end_s, float(self._edges_s[-1]))
            first = int(np.searchsorted(self._edges_s, begin_s + 1e-6, "right")) - 1
            last = max(int(np.searchsorted(self._edges_s, end_s - 1e-6, "left")), first + 1)
            edges = self._edges_s[first : last + 1]
        return range(first, last), np.diff(np.clip(edges, begin_s, end_s))

    def _row(self, interval: int) -> Array:
        row: Array = self._values[interval % len(self._values) if self._daily else interval]
        return row[np.newaxis]


class FileProfile(FileLoad):
    """Power of some elements with a profile, from a table as in :class:`FileLoad`: a series of kW for each of
    them, or one named share, of the power that they have in the network.
    """

    def __init__(
        self, scenario: Scenario, settings: ElementProfile, names: list[str], what: str, power_kw: Array
    ) -> None:
        """Read and check the file."""
        assert settings.file is not None
        self._step_s = scenario.feeder_step_s
        self._read(settings.file, settings.reading, scenario, names, what, True)
        if self._is_share:
            self._values = self._values * power_kw

    def means(self, begins_s: Array, ends_s: Array) -> Array:
        """See :meth:`evgrid.feeder.profiles.Source.means`."""
        return self._means(begins_s, ends_s)


class FileGeneration(FileLoad):
    """Power of generators and storages, from a wide table as in :class:`FileLoad`: a column of kW into the
    grid for each of them, or one column named share. With share all generators feed in that share of their
    power in the network, and storages nothing. Reactive power is in proportion to the active as in the
    network, and so is the distribution over the phases.
    """

    def __init__(self, scenario: Scenario, network: Network) -> None:
        """Read and check the file."""
        settings = scenario.feeder.base_load.generation
        assert isinstance(settings, GenerationFile)
        self._step_s = scenario.feeder_step_s
        fixed = network.grid.fixed
        self._rows = unprofiled(scenario.feeder, network)
        names = [str(name) for name in fixed.gen_name[self._rows]]
        self._read(settings.file, settings.reading, scenario, names, "generator and storage", True)
        self._p, self._q = fixed.gen_p_kw.copy(), fixed.gen_q_kvar.copy()
        self._p[self._rows] = self._q[self._rows] = 0.0
        own_p, own_q = fixed.gen_p_kw[self._rows], fixed.gen_q_kvar[self._rows]
        if self._is_share:
            generators = (fixed.gen_kind[self._rows] != "storage")[:, np.newaxis]
            own_p, own_q = own_p * generators, own_q * generators
            self._split = own_p, own_q
            return
        p_split, q_split = generation_split(network)
        self._split = p_split[self._rows], q_split[self._rows]

    def at(self, times_s: Array, until_s: Array | None = None) -> tuple[Array, Array]:
        """Active and reactive power, (n, 1, gen, phase), positive into the grid."""
        means = self._means(times_s, until_s)[..., np.newaxis]
        given = []
        for constant, split in zip((self._p, self._q), self._split, strict=True):
            power = np.repeat(constant[np.newaxis, np.newaxis], len(times_s), axis=0)
            power[:, :, self._rows] = means * split
            given.append(power)
        return given[0], given[1]


def _check_minutes(table: Table, reading: Reading, faults: Faults) -> None:
    """Add the faults of a table of the minutes of a day."""
    stated = replace(reading, form=AS_SHOWN)
    if stated.time_format is not None:
        faults.file(f"time_format = {stated.time_format}: the file has minutes of the day; leave it out")
    elif stated != AS_IT_IS:
        faults.file("has minutes of the day: must be local time and kW, named like the elements")
    if len(table) != 1440:
        faults.file(f"column minute has {len(table)} rows: must be 1 to 1440, one a minute")
        return
    minutes = table.parsed(["minute"])[0][0]
    wrong = np.flatnonzero(minutes != np.arange(1, 1441))
    faults.cells(wrong[:1], "minute", f"must be {wrong[0] + 1 if len(wrong) else 1}")


def _check_cover(edges_s: Array, clock: Clock, faults: Faults) -> None:
    """Add the fault of a file that does not cover the run."""
    if edges_s[0] > 0 or edges_s[-1] < clock.duration_s:
        first, last, begin, end = (
            clock.stamp(float(t))[:16] for t in (edges_s[0], edges_s[-1], 0.0, clock.duration_s)
        )
        faults.file(f"column time covers {first} to {last}: must cover the run, {begin} to {end}")


class _Select:
    """Finds the series of elements of the net, called ``what``, by their names.

    closed : whether a series of something else is a fault; share : whether one may be that of all
    within : the column that holds their names, "" where each has a column
    hint : end of the sentence on those that are missing
    """

    def __init__(
        self, names: list[str], what: str, closed: bool, share: bool, within: str, hint: str
    ) -> None:
        self._names, self._what, self._closed, self._share = names, what, closed, share
        self._within, self._hint = within, hint

    def __call__(self, given: list[str], faults: Faults) -> dict[str, str]:
        """The series of each element, by its name; or that of all generators."""
        what, names = self._what, self._names
        if self._share and given == [SHARE]:
            return {SHARE: SHARE}
        known, found = ElementNames(names), dict[int, str]()
        unknown, twice = list[str](), list[tuple[str, str]]()
        for name in given:
            place = known.place(name)
            if place < 0:
                place = known.place(bare_name(name))
            if place < 0:
                unknown.append(name)
            elif place in found:
                twice.append((found[place], name))
            else:
                found[place] = name
        missing = [f"'{shown(name)}'" for place, name in enumerate(names) if place not in found]
        if missing:
            few = ", ".join(missing[:5]) + (f", … ({len(missing)} in all)" if len(missing) > 5 else "")
            if self._within:
                text = f"column {shown(self._within)} has no {few}: must have each {what} of the net"
            else:
                text = f"column {few} is" if len(missing) == 1 else f"columns {few} are"
                text += f" missing: must have one for each {what} of the net"
            faults.file(text + self._hint)
        if self._closed:
            faults.file(
                *(
                    f"column '{shown(name)}': there is no such {what} in the net; {known.hint(name)}"
                    for name in unknown
                )
            )
        faults.file(
            *(f"columns '{shown(a)}' and '{shown(b)}' are of the same {what}; give one" for a, b in twice)
        )
        return {names[place]: found[place] for place in sorted(found)}
