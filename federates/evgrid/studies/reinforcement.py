"""Reinforcement: the replacements that restore a feeder's limits at least cost, against managed charging.

In: a scenario, limits, a price table, and ways of control (variants with a cost). Out: for each of them the
least-cost set of replacements with which at most a share ``risk`` of the deployments violates a limit, and
the present values of control and set; for the ensemble also that of each deployment on its own.

**Candidates** follow from what is violated as the scenario is: transformers that are overloaded or feed a bus
whose voltage or unbalance is out of its limits (larger ones; regulated ones only for such a bus), the
``most_sections`` sections (:mod:`evgrid.studies.measures`) that carry an overloaded line, then those that
share most in the voltage drop to such buses, and phases.

**Search.** Best-first by cost over all sets of candidates (:mod:`evgrid.studies.least_cost_set`): exact among
the candidates, bounded by ``most_sets``.

**Evaluation.** The powers of the EVs are recorded once for each way of control and solved again on the
changed network, where they do not depend on its voltage. They do with local functions of the voltage and
with strategies that use voltages: then each set is a run of its own, up to the cost of the best known. A
limit that an aggregator keeps stays as it is, and that the losses in its measurement change with the
network is neglected.

**Present values**: :func:`~evgrid.studies.least_cost_set.present_value` of investments and
:func:`~evgrid.studies.least_cost_set.annuity` of yearly costs, at ``discount_rate`` over ``horizon_years``.

Left out: losses and their price, outages, growth (:mod:`evgrid.studies.growth` says when limits are
passed), the drivers' energy unserved, which stands beside the costs unless ``unserved_per_kwh`` prices it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field, model_validator

from evgrid.core.model import Array
from evgrid.errors import ScenarioError
from evgrid.feeder.base_load import base_load
from evgrid.feeder.networks import Network
from evgrid.results.limits import LimitSet, coverage, limit_set, violations
from evgrid.runs.batch import Batch, Run, plan
from evgrid.runs.simulation import World, build_world, run_with_report
from evgrid.runs.worker_process import Reduction
from evgrid.scenario import Scenario
from evgrid.scenario.feeder import is_opendss
from evgrid.scenario.fields import NotNegative, Settings, fault
from evgrid.studies.figures import over_sessions
from evgrid.studies.given_powers import solve_given, violates
from evgrid.studies.least_cost_set import Examined, Search, annuity, present_value, search
from evgrid.studies.limit_check import Limits, check_limits
from evgrid.studies.measures import (
    SHIPPED,
    ControlPrice,
    Measure,
    PriceTable,
    Tree,
    cable_measures,
    moved_power,
    price_table,
    rebalancing_measures,
    sections,
    transformer_measures,
    tree_of,
    with_measures,
)
from evgrid.studies.reduced_runs import reduced_runs
from evgrid.studies.reinforcement_output import save_study, summary
from evgrid.studies.study import Answer, BatchOptions, Option, Progress, Study

if TYPE_CHECKING:
    import xarray as xr

    from evgrid.runs.simulation import RunReport

FORMAT = "evgrid-reinforcement-1"
"""Written into each study's Dataset."""

UNCONTROLLED = "uncontrolled"
"""The scenario as it is, without costs of control."""

YEAR_S = 365 * 86400.0


class Control(Settings):
    """A way of managed charging with its cost."""

    overrides: dict[str, Any]
    """Overrides of the scenario, such as {aggregators.main: {strategy: tou}}."""
    cost: str | ControlPrice | None = None
    """Its cost: a name in the price table's controls, or the keys of one; left out: that of its own name."""


class Reinforcement(Study):
    """Replacements that restore the limits at least cost, against managed charging."""

    kind: ClassVar[str] = "reinforcement"
    question: ClassVar[str] = (
        "The replacements that restore the limits of SCENARIO's feeder at least cost, and what managed "
        "charging costs in their place: present values side by side."
    )
    options: ClassVar[tuple[Option, ...]] = (
        Option("--members", "members", "Members of the ensemble.", int),
        Option("--risk", "risk", "Share of deployments that may violate a limit."),
        Option("--limit", "limits", "Presets of limits to check; may be repeated.", str, multiple=True),
        Option("--prices", "prices", "Price table, a YAML file.", str),
        Option("--rate", "discount_rate", "Discount rate, such as 0.04."),
        Option("--horizon", "horizon_years", "Years of the present values."),
    )

    controls: dict[str, Control] = {}
    """Ways of control by name, each compared with the scenario as it is (uncontrolled)."""
    limits: Limits = ("en_50160", "vuf", "ratings")
    """Limits by the names of their presets, or own criteria."""
    risk: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Share of the deployments that may violate a limit."""
    members: Annotated[int, Field(ge=1)] = 20
    """Members of the ensemble."""
    prices: Annotated[PriceTable, BeforeValidator(price_table, json_schema_input_type=str | PriceTable)] = (
        Field(
            default=SHIPPED  # type: ignore[assignment]
        )
    )
    """Prices of replacements and of control: public_estimates (shipped, for Germany), a YAML file of your
    own, or a table in full."""
    discount_rate: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Discount rate, 1/a, real."""
    horizon_years: Annotated[float, Field(gt=0, le=100)] = 40.0
    """Years of the present values."""
    unserved_per_kwh: NotNegative = 0.0
    """Price of energy that control leaves unserved though it is in reach, per kWh; the run stands for the
    year."""
    most_sections: Annotated[int, Field(ge=0)] = 6
    """Most sections of cable that are candidates."""
    most_sets: Annotated[int, Field(ge=1)] = 400
    """Most sets that are examined for each way of control."""

    @model_validator(mode="after")
    def _costs_are_known(self) -> Reinforcement:
        for name, control in self.controls.items():
            cost = name if control.cost is None else control.cost
            if isinstance(cost, str) and cost not in self.prices.controls:
                known = ", ".join(self.prices.controls) or "none"
                raise fault(
                    f"controls.{name}.cost = {cost}: must be one of the price table's controls ({known}), or "
                    "the keys of one such as {per_ev_year: 50}"
                )
        if UNCONTROLLED in self.controls:
            raise fault(f"controls: {UNCONTROLLED} is the scenario as it is; choose another name")
        return self

    @property
    def limit_set(self) -> LimitSet:
        """The criteria."""
        return limit_set(*self.limits)

    @property
    def allowed(self) -> int:
        """Members that may violate a limit."""
        return math.floor(self.risk * self.members + 1e-9)

    @cached_property
    def cases(self) -> dict[str, dict[str, Any]]:
        """Overrides of the scenario by way of control."""
        return {UNCONTROLLED: {}, **{name: control.overrides for name, control in self.controls.items()}}

    def cost_of(self, control: str) -> ControlPrice:
        """The cost of a way of control."""
        if control == UNCONTROLLED:
            return ControlPrice()
        given = self.controls[control].cost
        return given if isinstance(given, ControlPrice) else self.prices.controls[given or control]

    def batch(self) -> Batch:
        """The runs: a case for each way of control."""
        shared = {
            **self.overrides, "feeder.on_divergence": "keep", "record.connections": True,
            "ensemble.members": self.members,
        }  # fmt: skip
        return Batch.model_validate(
            {"name": self.name, "base": self.scenario, "overrides": shared, "list": list(self.cases.values()),
             "members_per_run": self.members}
        )  # fmt: skip

    def plans(self) -> list[Run]:
        """The runs. Raises ScenarioError with every fault of every one."""
        runs = plan(self.batch())
        for run in runs:
            scenario = run.scenario
            for found, text in (
                (is_opendss(scenario.feeder.network), "feeder.network: a network from OpenDSS"),
                (bool(scenario.sites), "sites"),
                (scenario.outages is not None, "outages"),
                (scenario.fleet is None, "a scenario without fleet"),
                (
                    scenario.record_step_s != scenario.feeder_step_s,
                    "record.step: means over several power flows",
                ),
            ):
                if found:
                    raise ScenarioError(
                        [f"{text}: not in a study of the kind {self.kind}, which solves recorded powers of "
                         "the EVs again on networks of pandapower"],
                        self.name,
                    )  # fmt: skip
        return runs

    def answers(self, folder: Path, progress: Progress, options: BatchOptions) -> Iterator[Answer]:
        """See :meth:`evgrid.studies.study.Study.answers`."""
        result = run_study(self, folder, progress=progress, **options)
        yield Answer(self.name, summary(result), partial(save_study, result, folder))


# ---- the runs -------------------------------------------------------------------------------------


def keep_powers(result: xr.Dataset, report: RunReport) -> xr.Dataset:
    """What a study keeps of a run: the power of the EVs, their number, and the energy unserved."""
    del report
    kept = result[["connection_ev_power_kw", "connection_ev_reactive_kvar"]]
    evs = np.bincount(
        np.searchsorted(result["member"].values, result["ev_member"].values), minlength=result.sizes["member"]
    )
    unserved = over_sessions(
        result,
        result["session_energy_unserved_avoidable_kwh"].values,
        "energy unserved though in reach",
        "kWh",
    )
    return kept.assign(evs=("member", evs), unserved_kwh=unserved.fillna(0.0))


def run_study(
    study: Reinforcement,
    folder: str | Path,
    *,
    resume: bool = False,
    workers: int | None = None,
    scheduler: str | None = None,
    progress: Progress | None = None,
) -> xr.Dataset:
    """Run a reinforcement study in a folder.

    Returns
    -------
    xarray.Dataset
        By way of control: ``control_cost``, ``set_cost`` and ``total_cost`` (present values; NaN where no set
        is found, ``least_bound`` and ``upper_cost`` then say between what it lies), ``measures`` (text),
        ``violated_before`` and ``violated_after`` (control, member), ``member_cost`` (control, member), the
        present value of control and the least-cost set of each member on its own (inf: more than was
        examined), ``unserved_kwh``, ``evs`` (control, member). ``attrs`` hold candidates and sets as JSON.

    Raises
    ------
    EvgridError
        If a scenario is at fault or a run fails.
    KeyboardInterrupt
        On Ctrl-C; finished runs are kept.

    """
    folder = Path(folder)
    runs = study.plans()
    with _shown(progress, study.name) as advance:
        kept = reduced_runs(
            study.name, study.batch(), list(study.cases),
            Reduction("evgrid.studies.reinforcement:keep_powers"), folder, advance,
            {"resume": resume, "workers": workers, "scheduler": scheduler},
        )  # fmt: skip
    cases = [Case(study, run.scenario, powers) for run, powers in zip(runs, kept, strict=True)]
    candidates, left_out = candidates_of(study, cases[0])
    values = [
        present_value(m.investment, m.lifetime_years, study.horizon_years, study.discount_rate)
        for m in candidates
    ]
    searches, dearest = list[Search](), math.inf
    for control, case in zip(study.cases, cases, strict=True):
        own = _control_cost(study, control, case)
        with _shown(progress, f"{study.name}, sets for {control}") as advance:
            count = min(study.most_sets, 2 ** len(candidates))
            found = search(
                [m.element for m in candidates], values, partial(case.evaluate, candidates), study.allowed,
                study.most_sets, dearest - own if case.by_voltage else math.inf,
                None if advance is None else partial(_advance, advance, count),
            )  # fmt: skip
        searches.append(found)
        if found.found is not None:
            dearest = min(dearest, own + found.found.cost)
    return _gathered(study, cases, candidates, values, searches, left_out)


def _advance(advance: Callable[[int, int, int], None], count: int, done: int) -> None:
    advance(done, 0, count)


def _shown(progress: Progress | None, name: str) -> Any:
    from contextlib import nullcontext

    return nullcontext() if progress is None else progress(name)


@dataclass(frozen=True)
class Case:
    """A way of control with its recorded powers."""

    study: Reinforcement
    scenario: Scenario
    kept: xr.Dataset

    @cached_property
    def world(self) -> World:
        """The scenario's world."""
        return build_world(self.scenario)

    @cached_property
    def by_voltage(self) -> bool:
        """Whether the powers of the EVs depend on the network's voltages."""
        fleet = self.scenario.fleet
        functions = fleet.charger.functions if fleet is not None else None
        strategies = (settings.strategy_class for settings in self.scenario.aggregators.values())
        return functions is not None or any(strategy.uses_voltage for strategy in strategies)

    @cached_property
    def power(self) -> tuple[Array, Array]:
        """Power of the EVs, (time, member, connection, phase) kW and kvar."""
        own = len(self.world.network.connections)
        names = ("connection_ev_power_kw", "connection_ev_reactive_kvar")
        p, q = (
            self.kept[name].transpose("time", "member", "connection", "phase").values[:, :, :own]
            for name in names
        )
        return p.astype(np.float64), q.astype(np.float64)

    def solve(self, measures: Sequence[Measure]) -> tuple[xr.Dataset, NDArray[np.bool_]]:
        """The feeder's result on the network with measures, and the members without solution."""
        network, taps = with_measures(self.world.network, measures)
        feeder = self.scenario.feeder
        regulated = {changer.trafo for changer in taps}
        kept = tuple(changer for changer in feeder.tap_changers if changer.trafo not in regulated)
        scenario = self.scenario.model_copy(
            update={"feeder": feeder.model_copy(update={"tap_changers": (*kept, *taps)})}
        )
        if self.by_voltage and measures:
            result, _ = run_with_report(scenario, change=lambda _: network)
            return result, result["member_failed_s"].notnull().values
        base = self.world.base
        if any(measure.phases for measure in measures):
            base = base_load(scenario, network)
        world = replace(
            self.world, scenario=scenario, network=network, connections=network.connections, base=base
        )
        p, q = (moved_power(values, measures, self.world.network) for values in self.power)
        return solve_given(world, lambda step: (p[step], q[step]))

    def evaluate(self, candidates: Sequence[Measure], chosen: tuple[int, ...]) -> NDArray[np.bool_]:
        """Members that violate a limit with some of the candidates, (member,)."""
        return violates(*self.solve([candidates[i] for i in chosen]), self.study.limit_set, self.study.name)


# ---- candidates -----------------------------------------------------------------------------------


def candidates_of(study: Reinforcement, case: Case) -> tuple[list[Measure], int]:
    """The candidates for what a case violates, and the number of relevant sections left out."""
    result, _ = case.solve([])
    result, _ = check_limits(result, study.limit_set)
    found = violations(result, study.limit_set)
    if not len(found):
        return [], 0
    network, tree = case.world.network, tree_of(case.world.network)
    grid, node = network.grid, network.topology.node
    positions = {name: i for i, name in enumerate(grid.buses.name.tolist())}
    buses = [positions[name] for name in set(found.loc[found["element"] == "bus", "name"])]
    broken = {kind: set(found.loc[found["element"] == kind, "name"]) for kind in ("line", "trafo")}
    power_kw = _power_of_connections(case)
    measures = list[Measure]()
    above = _trafos_above(network, tree, {int(node[bus]) for bus in buses})
    for trafo, name in enumerate(grid.trafos.name.tolist()):
        if name in broken["trafo"] or trafo in above:
            measures += transformer_measures(network, trafo, study.prices, regulated=trafo in above)
    ranked = _ranked_sections(network, tree, power_kw, broken["line"], {int(node[bus]) for bus in buses})
    for lines in ranked[: study.most_sections]:
        measures += cable_measures(network, lines, study.prices)
    measures += rebalancing_measures(network, tree, power_kw, study.prices)
    return measures, max(len(ranked) - study.most_sections, 0)


def _power_of_connections(case: Case) -> NDArray[np.float64]:
    """Power of each connection point in the tenth of the times with the highest power of all, (connection,)
    kW: mean over those and members.
    """
    p, _ = case.power
    step_s = case.scenario.feeder_step_s
    times_s = np.arange(len(p), dtype=np.float64) * step_s
    base, _ = case.world.base.at(times_s)
    total = (p + base).sum(axis=3).mean(axis=1)  # (time, connection)
    high = np.argsort(total.sum(axis=1))[-max(len(p) // 10, 1) :]
    mean: NDArray[np.float64] = total[high].mean(axis=0)
    return mean


def _trafos_above(network: Network, tree: Tree, nodes: set[int]) -> set[int]:
    """Transformers on the paths from the sources to some nodes."""
    grid, node = network.grid, network.topology.node
    pairs = dict[tuple[int, int], list[int]]()
    for at, (a, b) in enumerate(zip(node[grid.trafos.hv_bus], node[grid.trafos.lv_bus], strict=True)):
        pairs.setdefault((min(int(a), int(b)), max(int(a), int(b))), []).append(at)
    found = set[int]()
    for start in nodes:
        at = start
        while at >= 0 and tree.parent[at] >= 0:
            parent = int(tree.parent[at])
            if tree.parent_line[at] < 0:
                found |= set(pairs.get((min(at, parent), max(at, parent)), ()))
            at = parent
    return found


def _ranked_sections(
    network: Network, tree: Tree, power_kw: NDArray[np.float64], overloaded: set[str], nodes: set[int]
) -> list[tuple[int, ...]]:
    """Sections with an overloaded line, then those with a part in the voltage drop to some nodes, both by
    the drop: r times the power downstream, times the number of those nodes downstream.
    """
    feeds = {int(line): child for child, line in enumerate(tree.parent_line) if line >= 0}
    behind = np.zeros(len(tree.parent), np.int64)
    for start in nodes:
        at = start
        while at >= 0:
            behind[at] += 1
            at = int(tree.parent[at])
    flow = tree.downstream @ power_kw[: tree.downstream.shape[1]]
    lines, ranked = network.grid.lines, list[tuple[bool, float, int, tuple[int, ...]]]()
    for number, section in enumerate(sections(network, tree)):
        score = sum(
            lines.r1_ohm[line] * flow[feeds[line]] * behind[feeds[line]] for line in section if line in feeds
        )
        over = any(lines.name[line] in overloaded for line in section)
        if over or score > 0:
            ranked.append((not over, -float(score), number, section))
    return [section for *_, section in sorted(ranked)]


# ---- the answer -----------------------------------------------------------------------------------


def _control_cost(study: Reinforcement, control: str, case: Case) -> float:
    """Present value of a way of control, for the mean number of EVs."""
    cost, evs = study.cost_of(control), float(case.kept["evs"].mean())
    once = cost.once + cost.per_ev * evs
    yearly = cost.per_year + cost.per_ev_year * evs
    if study.unserved_per_kwh:
        per_year = YEAR_S / case.scenario.clock.duration_s
        yearly += study.unserved_per_kwh * float(case.kept["unserved_kwh"].mean()) * per_year
    lasting = present_value(once, cost.lifetime_years, study.horizon_years, study.discount_rate)
    return lasting + annuity(yearly, study.horizon_years, study.discount_rate)


def _gathered(
    study: Reinforcement,
    cases: Sequence[Case],
    candidates: Sequence[Measure],
    values: Sequence[float],
    searches: Sequence[Search],
    left_out: int,
) -> xr.Dataset:
    import xarray as xr

    names, currency = list(study.cases), study.prices.currency
    own = np.array([_control_cost(study, name, case) for name, case in zip(names, cases, strict=True)])

    def text(item: Examined | None) -> str:
        return "; ".join(candidates[i].text for i in item.chosen) if item is not None else ""

    def by_control(values: Sequence[float], what: str) -> tuple[Any, ...]:
        return "control", np.array(values, float), {"long_name": what, "units": currency}

    def by_member(values: Sequence[Any], what: str, unit: str = "1") -> tuple[Any, ...]:
        return ("control", "member"), np.array(values), {"long_name": what, "units": unit}

    chosen = [s.found for s in searches]
    spent = [math.nan if item is None else item.cost for item in chosen]
    data = {
        "control_cost": by_control(list(own), "present value of control"),
        "set_cost": by_control(spent, "present value of the least-cost set"),
        "total_cost": by_control(list(own + np.array(spent)), "present value of control and set"),
        "least_bound": by_control([s.bound for s in searches], "lower bound of the least-cost set"),
        "upper_cost": by_control(
            [math.nan if s.upper is None else s.upper.cost for s in searches],
            "present value of a set that restores the limits, where the least-cost one was not found",
        ),
        "measures": ("control", np.array([text(item) for item in chosen], object)),
        "upper_measures": ("control", np.array([text(s.upper) for s in searches], object)),
        "sets_examined": ("control", [len(s.examined) for s in searches]),
        "by_voltage": ("control", [case.by_voltage for case in cases]),
        "member_cost": by_member(
            [cost + s.member_cost for cost, s in zip(own, searches, strict=True)],
            "present value of control and the least-cost set of the deployment on its own", currency,
        ),
        "violated_before": by_member(
            [s.examined[0].violated if s.examined else np.zeros(study.members, bool) for s in searches],
            "whether the deployment violates a limit without replacements",
        ),
        "violated_after": by_member(
            [item.violated if item is not None else np.ones(study.members, bool) for item in chosen],
            "whether it does with the least-cost set",
        ),
        "unserved_kwh": by_member(
            [case.kept["unserved_kwh"].values for case in cases], "energy unserved though in reach", "kWh"
        ),
        "evs": by_member([case.kept["evs"].values for case in cases], "EVs"),
    }  # fmt: skip
    result, _ = cases[0].solve([])
    result, _ = check_limits(result, study.limit_set)
    table = coverage(result, study.limit_set)
    rows = table[~table["checked"]]
    examined = [
        {"control": name, "cost": item.cost, "violating": int(item.violated.sum()), "measures": text(item)}
        for name, s in zip(names, searches, strict=True)
        for item in s.examined
    ]
    options = [
        {"element": m.element, "name": m.name, "kind": m.kind, "investment": m.investment,
         "lifetime_years": m.lifetime_years, "present_value": value,
         "source": m.source}
        for m, value in zip(candidates, values, strict=True)
    ]  # fmt: skip
    return xr.Dataset(
        data, {"control": names, "member": cases[0].kept["member"].values},
        {
            "format": FORMAT, "name": study.name, "study": study.model_dump_json(), "currency": currency,
            "sets": json.dumps(examined), "candidates": json.dumps(options), "sections_left_out": left_out,
            "not_checked": json.dumps(dict(zip(rows["criterion"], rows["remark"], strict=True))),
            "remarks": json.dumps({r.criterion: r.remark for r in table[table["checked"]].itertuples()}),
        },
    )  # fmt: skip
