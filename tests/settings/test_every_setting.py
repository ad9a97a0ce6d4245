# ruff: noqa: E501
"""Every setting changes something, or is refused where it can't.

Each setting of the schema (found by walking the pydantic models, strategies, studies, batches and rates) is
registered here: with an example that changes what a small run records, or that is refused; by the test that is about
it, where that needs more than a small run; or as a label that is kept with the result. A setting that is added without
one of these fails the test.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import numpy as np
import pytest

from evgrid.core.model import Variable
from evgrid.errors import ScenarioError
from evgrid.federation import step_in_line
from evgrid.results import ResultRecorder
from evgrid.results.limits import LimitSet
from evgrid.results.settlement import Rates
from evgrid.runs.batch import Batch, members_that_fit
from evgrid.runs.simulation import build_models, build_world
from evgrid.scenario import Scenario, scenario_from
from evgrid.scenario.aggregators import STRATEGIES, StrategySettings
from evgrid.scenario.fields import settings_in
from evgrid.studies.frequency_regulation import FrequencyRegulation
from evgrid.studies.growth import Growth
from evgrid.studies.hosting_capacity import HostingCapacity
from evgrid.studies.managed_charging import ManagedCharging
from evgrid.studies.reinforcement import Reinforcement
from evgrid.studies.resilience import Resilience
from evgrid.studies.voltage_support import VoltageSupport

TESTS = Path(__file__).parents[1]


def _says(item: Any) -> bool:
    """Whether a field says something itself: not a section, whose own fields do, nor a kind's only name."""
    return not settings_in(item.annotation) and not (
        get_origin(item.annotation) is Literal and len(get_args(item.annotation)) == 1
    )


def _walk(schema: type, found: dict[str, type], sections: bool = False) -> None:
    for name, item in schema.model_fields.items():
        owner = next(c for c in schema.__mro__ if name in getattr(c, "__annotations__", {}))
        if sections or _says(item):
            found.setdefault(f"{owner.__name__}.{name}", owner)
        for inner in settings_in(item.annotation):
            if inner is not StrategySettings:
                _walk(inner, found, sections)


def all_settings(sections: bool = False) -> set[str]:
    """``Class.setting`` of all that can be said anywhere; ``strategy.setting`` of strategies; with ``sections``
    also what only holds others, or names a kind.
    """
    found: dict[str, type] = {}
    for schema in (
        Scenario, Batch, Rates, LimitSet, FrequencyRegulation, Growth, HostingCapacity, ManagedCharging, Reinforcement, Resilience,
        VoltageSupport,
    ):  # fmt: skip
        _walk(schema, found, sections)
    names = set(found)
    for strategy in STRATEGIES.names():
        schema = STRATEGIES.find(strategy).Settings
        names |= {f"{strategy}.{name}" for name in schema.model_fields}
        for item in schema.model_fields.values():
            for inner in settings_in(item.annotation):
                more: dict[str, type] = {}
                _walk(inner, more, sections)
                names |= set(more)
    return names


# ---- a small run, without HELICS and without a Dataset ----------------------------------------------


class Arrays:
    """A store of plain arrays."""

    def __init__(self, sizes: dict[str, int]) -> None:
        self.sizes = sizes
        self.found: dict[str, Any] = {}

    def create(self, variable: Variable, dims: tuple[str, ...]) -> None:
        self.found[variable.name] = np.zeros([self.sizes[dim] for dim in dims], variable.dtype)

    def write(self, name: str, key: tuple[slice, ...], values: Any) -> None:
        self.found[name][key] = values


def run_directly(scenario: Scenario) -> dict[str, Any]:
    """Every array that the run records, by name, and its sessions."""
    world = build_world(scenario)
    clock = world.clock
    store = Arrays({**world.sizes, "time": round(clock.duration_s / scenario.record_step_s)})
    recorder = ResultRecorder(clock, scenario.record_step_s, world.sizes, store)
    models = build_models(world, recorder)
    recorder.register(models)
    step_in_line(models, world.sizes, clock)
    recorder.close()
    drawn = {f"sessions {name}": getattr(world.sessions, name) for name in ("ev", "arrival_s", "departure_s")}
    return store.found | drawn | {"owner of EVs": np.concatenate([p.rows for p in world.portfolios] or [[]])}


def differ(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two runs differ in anything that they record."""
    if one.keys() != other.keys():
        return True
    return any(
        one[name].shape != other[name].shape
        or not np.array_equal(one[name], other[name], equal_nan=one[name].dtype.kind == "f")
        for name in one
    )


HOME: dict[str, Any] = {
    "name": "home",
    "time": {"start": "2026-01-15T16:00", "duration": "3h", "step": "15min"},
    "ensemble": {"seed": 3},
    "feeder": {"network": "two.json", "base_load": {"source": "net"}},
    "fleet": {"count": 12, "charger": {"phases": 3, "bidirectional": 1.0}},
    "communication": {"telemetry": "15min"},
    "tariff": "pge_ev2a",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two transformers with two loads each, and files beside the scenario."""
    import pandapower as pp

    folder = tmp_path_factory.mktemp("settings")
    for name, km in (("two", 0.1), ("long", 0.3), ("pv", 0.1), ("cable", 0.3)):
        net = pp.create_empty_network()
        grid = pp.create_bus(net, 20.0, name="grid")
        pp.create_ext_grid(net, grid, vm_pu=1.05 if name == "pv" else 1.0)
        for t in (1, 2):
            head, end = (pp.create_bus(net, 0.4, name=f"{place}{t}") for place in ("head", "end"))
            pp.create_transformer(net, grid, head, "0.25 MVA 20/0.4 kV", name=f"T{t}")
            pp.create_line(net, head, end, km, "NAYY 4x50 SE", name=f"L{t}")
            if name == "pv":
                pp.create_sgen(net, end, 0.05, name=f"PV{t}")
            for k in (1, 2):
                pp.create_load(net, end, 0.006, 0.001, name=f"H{t}{k}")
        pp.to_json(net, str(folder / f"{name}.json"))
    (folder / "hz.csv").write_text(
        "time,a\n" + "".join(f"{4 * k},{50 - 0.1 * (k % 3)}\n" for k in range(1805))
    )
    (folder / "load.csv").write_text("time,H11,H12,H21,H22\n0,1,2,3,4\n20000,1,2,3,4\n")
    (folder / "price.csv").write_text("time,a,b\n0,100,50\n5400,20,80\n90000,1,1\n")
    (folder / "credit.csv").write_text("time,a\n0,0.01\n90000,0.01\n")
    (folder / "co2.csv").write_text("time,a,b\n0,100,500\n5400,400,90\n90000,1,1\n")
    (folder / "cold.csv").write_text("time,a,b\n0,-5,4\n90000,-5,4\n")
    (folder / "signal.csv").write_text(
        "time,a,b\n" + "".join(f"{4 * k},{k % 2},{-(k % 3) / 3:.3f}\n" for k in range(905))
    )
    (folder / "s.csv").write_text(
        "ev,connection,arrival,departure,energy_kwh\na,H11,2026-01-15T16:20,2026-01-15T18:40,6\n"
    )
    return folder


@pytest.fixture(scope="module", autouse=True)
def _one_net():
    """Each network is read once."""
    from evgrid.feeder import networks

    read, kept = networks.load_network, dict[str, Any]()

    def load(feeder, *more, **named):
        key = feeder.model_dump_json() + repr((more, named))
        if key not in kept:
            kept[key] = read(feeder, *more, **named)
        return kept[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(networks, "load_network", load)
        yield


_RUNS: dict[str, dict[str, Any]] = {}


def recorded(folder, overrides):
    """What a run with overrides of HOME records; each is run once."""
    key = repr(sorted(overrides.items(), key=lambda item: item[0]))
    if key not in _RUNS:
        _RUNS[key] = run_directly(scenario_from(HOME, overrides, folder=folder))
    return _RUNS[key]


def permitted(**more):
    return {"fleet.permission": more}


def by(strategy, **more):
    return {"aggregators": {"main": {"strategy": strategy, **more}}}


def local(**more):
    return {"fleet.charger.functions": more}


def windows(*periods, **more):
    rest = {"name": "rest", "price_per_kwh": 0.2}
    seasons = [{"name": "all", "months": list(range(1, 13)), "periods": [*periods, rest]}]
    return {"tariff": {"name": "t", "seasons": seasons, **more}}


def lfc(**more):
    area = {"source": "lfc", "agc_gain": 5, "disturbances": [{"time": "60s", "pu": 0.05}], **more}
    return {"time.duration": "4min", "time.step": "4s", "communication.telemetry": "4s", "fleet": None,
            "tariff": None, "feeder.step": "4min", "system": {"frequency": area}}  # fmt: skip


def fast(strategy="regulation", regulation=None, **more):
    return {"time.duration": "2h", "time.step": "10s", "communication.telemetry": "60s", "feeder.step": "1h",
            "time.start": "2026-01-15T22:00",
            "system": {"regulation": regulation or {"source": "synthetic"}}, **by(strategy, **more)}  # fmt: skip


def changed(given, **paths):
    """Overrides with more, or others; ``__`` in a name stands for a dot."""
    return given | {path.replace("__", "."): value for path, value in paths.items()}


NIGHT = {"name": "night", "hours": [[17, 18]], "price_per_kwh": 0.1}
AGEING = {"fleet.vehicle.degradation": {}}
COLD = {"cold_c_rates": [0.01, 0.1]}
WARM = {"fleet.vehicle.temperature": {"ambient": 3.0, **COLD}}
TARIFF = windows(NIGHT)
DEMAND = {"prices": [{"price_per_kw": 1}], "of": "feeder"}
LINK = {"communication": {"telemetry": "15min", "outages_per_day": 40, "timeout": "15min"}} | by("tou")
SCHEDULE = {"from": "16:30", "until": "18:00", "power_kw": 2}
HEAT = {"name": "e", "start": "2026-01-15T17:00", "duration": "1h"}

EXAMPLES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {}
"""Of each setting the overrides of two runs that differ by it."""


def example(setting, change, given=None):
    assert setting not in EXAMPLES, setting
    EXAMPLES[setting] = (given or {}, {**(given or {}), **change})


for setting, change, given in (
    ("Time.start", {"time.start": "2026-01-15T18:00"}, None),
    ("Time.duration", {"time.duration": "2h"}, None),
    ("Time.step", {"time.step": "5min", "feeder.step": "15min", "record.step": "15min"}, None),
    ("Ensemble.members", {"ensemble.members": 2}, None),
    ("Ensemble.first", {"ensemble.first": 1}, None),
    ("Ensemble.seed", {"ensemble.seed": 4}, None),
    ("BaseLoad.source", {"feeder.base_load.source": "none"}, None),
    ("BaseLoad.file", {"feeder.base_load": {"file": "load.csv"}}, None),
    (
        "BaseLoad.power_factor",
        {"feeder.base_load": {"file": "load.csv", "power_factor": 0.8}},
        {"feeder.base_load": {"file": "load.csv"}},
    ),
    (
        "BaseLoad.annual_kwh",
        {"feeder.base_load": {"source": "standard", "annual_kwh": 9000}},
        {"feeder.base_load": {"source": "standard"}},
    ),
    ("Feeder.network", {"feeder.network": "long.json"}, None),
    ("Feeder.step", {"feeder.step": "30min"}, None),
    ("Feeder.base_load", {"feeder.base_load": {"source": "none"}}, None),
    ("Fleet.penetration", {"fleet.penetration": 1.0}, {"fleet.count": None, "fleet.penetration": 0.25}),
    ("Fleet.count", {"fleet.count": 2}, None),
    ("Fleet.upstream", {"fleet.upstream": 2}, None),
    ("Fleet.sessions", {"fleet.sessions": "public"}, None),
    ("Fleet.vehicle", {"fleet.vehicle": {"capacity_kwh": 30}}, None),
    ("Fleet.mix", {"fleet.mix": "default"}, {"feeder.phases": 1}),
    ("Fleet.charger", {"fleet.charger": {"power_kw": 3}}, None),
    ("Fleet.permission", permitted(vehicle=0.5), None),
    ("Fleet.reserve_horizon", {"fleet.reserve_horizon": "1h"}, None),
    ("Fleet.reserve_group", {"fleet.reserve_group": "transformer"}, {"fleet.reserve_horizon": "1h"}),
    ("Fleet.envelope", {"fleet.envelope": {"horizon": "2h"}}, None),
    (
        "FlexibilityEnvelope.horizon",
        {"fleet.envelope": {"horizon": "1h"}},
        {"fleet.envelope": {"horizon": "2h"}},
    ),
    (
        "FlexibilityEnvelope.slot",
        {"fleet.envelope": {"horizon": "2h", "slot": "30min"}},
        {"fleet.envelope": {"horizon": "2h"}},
    ),
    (
        "FlexibilityEnvelope.every",
        {"fleet.envelope": {"horizon": "2h", "every": "30min"}},
        {"fleet.envelope": {"horizon": "2h"}},
    ),
    (
        "FlexibilityEnvelope.group",
        {"fleet.envelope": {"horizon": "2h", "group": "transformer"}},
        {"fleet.envelope": {"horizon": "2h"}},
    ),
    ("Charger.power_kw", {"fleet.charger.power_kw": 3.7}, None),
    ("Charger.ratings", {"fleet.charger.ratings": {3.7: 0.5, 11: 0.5}}, None),
    ("Charger.current", {"fleet.charger.current": "dc"}, {"fleet.charger.power_kw": 50}),
    ("Charger.bidirectional", {"fleet.charger.bidirectional": 0.5}, by("arbitrage")),
    (
        "Charger.apparent_kva",
        {"fleet.charger.apparent_kva": 20},
        local(power_factor={"value": 0.8, "excitation": "absorbs"}),
    ),
    ("Charger.functions", local(power_factor={"value": 0.9, "excitation": "absorbs"}), None),
    ("Charger.minimum_current_a", {"fleet.charger.minimum_current_a": 6}, by("peak_limit", limit_kw=30)),
    ("Charger.pilot_step_a", {"fleet.charger.pilot_step_a": 3}, by("peak_limit", limit_kw=20)),
    (
        "Charger.nominal_v",
        {"fleet.charger.nominal_v": 120},
        by("peak_limit", limit_kw=20) | {"fleet.charger.pilot_step_a": 3},
    ),
    ("Charger.ramp_kw_per_s", {"fleet.charger.ramp_kw_per_s": 0.002}, by("peak_limit", limit_kw=20)),
    ("Vehicle.capacity_kwh", {"fleet.vehicle.capacity_kwh": 30}, None),
    ("Vehicle.charge_kw", {"fleet.vehicle.charge_kw": 3}, None),
    (
        "Vehicle.dc_kw",
        {"fleet.vehicle.dc_kw": 20},
        {"fleet.charger.power_kw": 50, "fleet.charger.current": "dc"},
    ),
    ("Vehicle.discharge_kw", {"fleet.vehicle.discharge_kw": 2}, by("arbitrage")),
    ("Vehicle.charge_efficiency", {"fleet.vehicle.charge_efficiency": 0.8}, None),
    (
        "Vehicle.discharge_efficiency",
        {"fleet.vehicle.discharge_efficiency": 0.99},
        by("v2g_peak_shaving", limit_kw=8) | {"fleet.vehicle.losses": "constant"},
    ),
    ("Vehicle.taper_soc", {"fleet.vehicle.taper_soc": 0.3}, None),
    (
        "Vehicle.charge_curve",
        {"fleet.vehicle.charge_curve": {"soc": [0.2, 0.8], "kw": [40, 10]}},
        {"fleet.charger.power_kw": 50, "fleet.charger.current": "dc"},
    ),
    ("Vehicle.soc_floor", {"fleet.vehicle.soc_floor": 0.75}, by("v2g_peak_shaving", limit_kw=8)),
    ("Vehicle.soc_target", {"fleet.vehicle.soc_target": 0.85}, None),
    ("Vehicle.consumption_kwh_per_mile", {"fleet.vehicle.consumption_kwh_per_mile": 0.5}, None),
    ("Vehicle.losses", {"fleet.vehicle.losses": "by_power"}, {"fleet.charger.bidirectional": 0.0}),
    ("Vehicle.standby_kw", {"fleet.vehicle.standby_kw": 0.066}, None),
    ("Vehicle.chemistry", {"fleet.vehicle.chemistry": "lfp"}, AGEING),
    ("Vehicle.temperature", WARM, None),
    ("Vehicle.degradation", AGEING, None),
    *(
        (f"Degradation.{name}", {f"fleet.vehicle.degradation.{name}": value}, AGEING)
        for name, value in (
            ("battery_price", 50),
            ("worthless_at", 0.5),
            ("age_years", 9),
            ("full_cycles_per_year", 300),
            ("temperature_c", 40),
        )
    ),
    ("Temperature.ambient", {"fleet.vehicle.temperature.ambient": -3.0}, WARM),
    (
        "Temperature.time_constant",
        {"fleet.vehicle.temperature.time_constant": "10min"},
        {"fleet.vehicle.temperature": {"ambient": 3.0, "heating_k_per_kw": 20, **COLD}},
    ),
    ("Temperature.heating_k_per_kw", {"fleet.vehicle.temperature.heating_k_per_kw": 20}, WARM),
    ("Temperature.freezing_c", {"fleet.vehicle.temperature.freezing_c": 5.0}, WARM),
    (
        "Temperature.mild_c",
        {"fleet.vehicle.temperature.mild_c": 4.0, "fleet.vehicle.temperature.cold_c_rates": [0.05, 0.06]},
        {"fleet.vehicle.temperature": {"ambient": 3.0, "cold_c_rates": [0.05, 0.06], "mild_c": 20.0}},
    ),
    ("Temperature.cold_c_rates", {"fleet.vehicle.temperature.cold_c_rates": [0.02, 0.05]}, WARM),
    (
        "Temperature.warm_c",
        {"fleet.vehicle.temperature.warm_c": 40.0},
        {"fleet.vehicle.temperature": {"ambient": 48.0}},
    ),
    (
        "Temperature.hot_c",
        {"fleet.vehicle.temperature.hot_c": 49.0},
        {"fleet.vehicle.temperature": {"ambient": 48.0}},
    ),
    *(
        (
            f"Sinusoid.{name}",
            {
                "fleet.vehicle.temperature": {
                    "ambient": {"mean_c": 2, "amplitude_c": 4, "warmest_h": 15, name: value},
                    **COLD,
                }
            },
            {
                "fleet.vehicle.temperature": {
                    "ambient": {"mean_c": 2, "amplitude_c": 4, "warmest_h": 15},
                    **COLD,
                }
            },
        )
        for name, value in (("mean_c", 5), ("amplitude_c", 1), ("warmest_h", 5))
    ),
    (
        "TemperatureFile.file",
        {"fleet.vehicle.temperature": {"ambient": {"file": "cold.csv", "column": "b"}, **COLD}},
        WARM,
    ),
    (
        "TemperatureFile.column",
        {"fleet.vehicle.temperature": {"ambient": {"file": "cold.csv", "column": "b"}, **COLD}},
        {"fleet.vehicle.temperature": {"ambient": {"file": "cold.csv", "column": "a"}, **COLD}},
    ),
    *(
        (f"Permission.{name}", permitted(**{name: value}), by("v2g_peak_shaving", limit_kw=8) | permitted())
        for name, value in (
            ("vehicle", 0.3),
            ("interconnection", 0.3),
            ("warranty", {"approved": 0}),
            ("driver", {"willing": 0}),
        )
    ),
    *(
        (
            f"Warranty.{name}",
            permitted(warranty={name: value}),
            by("v2g_peak_shaving", limit_kw=8) | permitted(),
        )
        for name, value in (("approved", 0.3), ("soc_floor", 0.8), ("throughput_kwh", 0.5), ("hours", 0.2))
    ),
    *(
        (f"Driver.{name}", permitted(driver={name: value}), by("v2g_peak_shaving", limit_kw=8) | permitted())
        for name, value in (("willing", 0.3), ("soc_floor", 0.8), ("window", [17, 17.5]))
    ),
    ("Communication.telemetry", {"communication.telemetry": "45min"}, by("peak_limit", limit_kw=30)),
    ("Communication.loss", {"communication.loss": 0.8}, by("peak_limit", limit_kw=30)),
    ("Communication.latency", {"communication.latency": "2h"}, by("peak_limit", limit_kw=30)),
    ("Communication.outages_per_day", {"communication.outages_per_day": 1}, LINK),
    ("Communication.outage_duration", {"communication.outage_duration": "5h"}, LINK),
    ("Communication.timeout", {"communication.timeout": "2h"}, LINK),
    ("Communication.fallback", {"communication.fallback": "stop"}, LINK),
    (
        "Communication.schedule",
        {"communication.fallback": "schedule", "communication.schedule": [SCHEDULE]},
        LINK,
    ),
    *(
        (
            f"ScheduledPower.{name}",
            {"communication.fallback": "schedule", "communication.schedule": [value]},
            LINK | {"communication.fallback": "schedule", "communication.schedule": [SCHEDULE]},
        )
        for name, value in (
            ("begin", {**SCHEDULE, "from": "17:30"}),
            ("until", {**SCHEDULE, "until": "16:45"}),
            ("power_kw", {**SCHEDULE, "power_kw": 4}),
            ("days", {**SCHEDULE, "days": "weekend"}),
            ("share", {"from": "16:30", "until": "18:00", "share": 0.9}),
        )
    ),
    ("Record.connections", {"record.connections": True}, None),
    ("Record.ev", {"record.ev": True}, None),
    ("Record.step", {"record.step": "30min"}, None),
    ("SessionFile.file", {"fleet.count": None, "fleet.sessions": {"file": "s.csv"}}, None),
    ("Tariff.export_per_kwh", windows(NIGHT, export_per_kwh=0.9), by("arbitrage") | TARIFF),
    (
        "Tariff.export_prices",
        windows(NIGHT, export_prices={"file": "credit.csv", "per": "kWh"}),
        by("v2g_peak_shaving", limit_kw=8) | TARIFF,
    ),
    (
        "Tariff.holidays",
        windows({**NIGHT, "days": "weekday"}, holidays=["2026-01-15"]),
        windows({**NIGHT, "days": "weekday"}),
    ),
    ("SeasonTariff.seasons", windows({**NIGHT, "price_per_kwh": 0.3}), TARIFF),
    (
        "SeriesTariff.prices",
        {"tariff": {"name": "t", "prices": {"file": "price.csv", "column": "a", "per": "MWh"}}},
        TARIFF,
    ),
    ("Tariff.demand", windows(NIGHT, demand=DEMAND), TARIFF),
    (
        "DemandCharge.interval",
        windows(NIGHT, demand={**DEMAND, "interval": "1h"}),
        windows(NIGHT, demand=DEMAND),
    ),
    (
        "DemandCharge.of",
        windows(NIGHT, demand={**DEMAND, "of": "transformer"}),
        windows(NIGHT, demand=DEMAND),
    ),
    (
        "PriceFile.per",
        {"tariff": {"name": "t", "prices": {"file": "price.csv", "column": "a", "per": "kWh"}}},
        {"tariff": {"name": "t", "prices": {"file": "price.csv", "column": "a", "per": "MWh"}}},
    ),
    (
        "Season.months",
        {
            "tariff": {
                "name": "t",
                "seasons": [
                    {"name": n, "months": m, "periods": [{"name": "p", "price_per_kwh": p}]}
                    for n, m, p in (("w", [1], 3), ("s", list(range(2, 13)), 1))
                ],
            }
        },
        {
            "tariff": {
                "name": "t",
                "seasons": [
                    {"name": n, "months": m, "periods": [{"name": "p", "price_per_kwh": p}]}
                    for n, m, p in (("w", [2], 3), ("s", [1, *range(3, 13)], 1))
                ],
            }
        },
    ),
    ("Season.periods", windows({**NIGHT, "hours": [[16, 19]]}), TARIFF),
    ("Window.hours", windows({**NIGHT, "hours": [["16:30", "18:15"]]}), TARIFF),
    ("Window.days", windows({**NIGHT, "days": "friday"}), TARIFF),
    ("Period.price_per_kwh", windows({**NIGHT, "price_per_kwh": 0.15}), TARIFF),
    ("System.nominal_hz", {"system": {"nominal_hz": 50}}, {"system": {}}),
    ("System.frequency", {"system": {"frequency": {"source": "lfc"}}}, {"system": {}}),
    ("System.regulation", {"system": {"regulation": {"source": "synthetic"}}}, {"system": {}}),
    (
        "System.energy_price",
        {"system": {"energy_price": {"file": "price.csv", "column": "a"}}},
        {"system": {}},
    ),
    ("System.emissions", {"system": {"emissions": {"file": "co2.csv", "column": "a"}}}, {"system": {}}),
    ("System.events", {"system": {"events": [HEAT]}}, {"system": {}}),
    (
        "EmissionsFile.file",
        {"system": {"emissions": {"file": "price.csv", "column": "a"}}},
        {"system": {"emissions": {"file": "co2.csv", "column": "a"}}},
    ),
    (
        "EmissionsFile.column",
        {"system": {"emissions": {"file": "co2.csv", "column": "b"}}},
        {"system": {"emissions": {"file": "co2.csv", "column": "a"}}},
    ),
    (
        "SeriesFile.file",
        {"system": {"energy_price": {"file": "co2.csv", "column": "a"}}},
        {"system": {"energy_price": {"file": "price.csv", "column": "a"}}},
    ),
    (
        "SeriesFile.column",
        {"system": {"energy_price": {"file": "price.csv", "column": "b"}}},
        {"system": {"energy_price": {"file": "price.csv", "column": "a"}}},
    ),
    (
        "Event.start",
        {"system": {"events": [{**HEAT, "start": "2026-01-15T18:00"}]}},
        {"system": {"events": [HEAT]}},
    ),
    ("Event.duration", {"system": {"events": [{**HEAT, "duration": "2h"}]}}, {"system": {"events": [HEAT]}}),
    ("Event.level", {"system": {"events": [{**HEAT, "level": 3}]}}, {"system": {"events": [HEAT]}}),
    (
        "Event.priority",
        {"system": {"events": [{**HEAT, "priority": 2, "level": 2}, {**HEAT, "priority": 1}]}},
        {"system": {"events": [{**HEAT, "level": 2}, {**HEAT, "priority": 1}]}},
    ),
    *(
        (f"LoadFrequency.{name}", lfc(**{name: value}), lfc())
        for name, value in (
            ("base_mw", 500),
            ("inertia_s", 3),
            ("damping", 0.1),
            ("droop", 0.1),
            ("governor_s", 0.5),
            ("turbine_s", 1.0),
            ("agc_gain", 1),
            ("agc_to_governor", 0.5),
            ("governor_deadband_hz", 0.05),
            ("reserve_up_pu", 0.01),
            ("disturbances", [{"time": "60s", "pu": 0.1}]),
            ("load", {"file": "price.csv", "column": "a"}),
        )
        if name != "base_mw"
    ),
    (
        "LoadFrequency.base_mw",
        lfc(base_mw=500, disturbances=[{"time": "60s", "mw": 20}]),
        lfc(disturbances=[{"time": "60s", "mw": 20}]),
    ),
    (
        "LoadFrequency.reserve_down_pu",
        lfc(reserve_down_pu=0.01, disturbances=[{"time": "60s", "pu": -0.1}]),
        lfc(disturbances=[{"time": "60s", "pu": -0.1}]),
    ),
    (
        "LoadFrequency.agc_full_pu",
        changed(lfc(agc_full_pu=0.1), system__regulation={"source": "agc"}),
        changed(lfc(), system__regulation={"source": "agc"}),
    ),
    ("Disturbance.time", lfc(disturbances=[{"time": "80s", "pu": 0.05}]), lfc()),
    ("Disturbance.pu", lfc(disturbances=[{"time": "60s", "pu": 0.06}]), lfc()),
    ("Disturbance.mw", lfc(disturbances=[{"time": "60s", "mw": 60}]), lfc()),
    ("Disturbance.duration", lfc(disturbances=[{"time": "60s", "pu": 0.05, "duration": "20s"}]), lfc()),
    *(
        (
            f"SyntheticRegulation.{name}",
            {"system": {"regulation": {"source": "synthetic", name: value}}},
            {"system": {"regulation": {"source": "synthetic"}}},
        )
        for name, value in (
            ("kind", "rega"),
            ("fast", "60s"),
            ("slow", "none"),
            ("spread", 0.2),
            ("neutral", "none"),
        )
    ),
    *(
        (
            f"{kind}.{name}",
            {"fleet.sessions": {"source": source, "warm_up_days": 3, name: value}},
            {"fleet.sessions": {"source": source, "warm_up_days": 3}} | more,
        )
        for kind, source, more, settings in (
            ("SampledSessions", "home", {}, (("plug_in", "evi_pro"), ("warm_up_days", 5))),
            (
                "HomeSessions",
                "home",
                {},
                (("departure_h", [9, 1]), ("return_h", [16, 1]), ("log_miles", [4, 0.3])),
            ),
            ("OutAndBack", "home", {}, (("driven_weekday", 0.3), ("shortest_trip_h", 4))),
            (
                "OutAndBack",
                "home",
                {"time.start": "2026-01-17T16:00"},
                (
                    ("weekend_departure_h", [9, 1]),
                    ("weekend_return_h", [16, 1]),
                    ("weekend_log_miles", [4, 0.3]),
                    ("driven_weekend", 0.2),
                ),
            ),
        )
        for name, value in settings
    ),
    (
        "SampledSessions.plug_in_below_soc",
        {"fleet.sessions": {"source": "home", "plug_in": "evi_pro", "plug_in_below_soc": 0.85}},
        {"fleet.sessions": {"source": "home", "plug_in": "evi_pro"}},
    ),
    ("Selection.share", by("tou", evs={"share": 0.5}), by("tou", evs={"share": 0.9})),
    ("Selection.connections", by("tou", evs={"connections": ["H11"]}), by("tou")),
    ("Selection.transformers", by("tou", evs={"transformers": ["T1"]}), by("tou")),
    (
        "OwnCommunication.loss",
        by("peak_limit", limit_kw=30, communication={"loss": 0.8}),
        by("peak_limit", limit_kw=30),
    ),
    (
        "OwnCommunication.telemetry",
        by("peak_limit", limit_kw=30, communication={"telemetry": "45min"}),
        by("peak_limit", limit_kw=30),
    ),
):
    example(setting, change, given)


CO2 = {"system": {"emissions": {"file": "co2.csv", "column": "a"}}}
EVENT = {"system": {"events": [HEAT]}}
DEAR = windows({"name": "dip", "hours": [[17, 18.5]], "price_per_kwh": 0.02})
BY_STRATEGY: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "tou": (DEAR, {}, {}),
    "emissions": (CO2, {}, {}),
    "demand_response": (DEAR | EVENT, {"target_kw": 5}, {
        "notice": "15min", "target_kw": 10, "opt_out": 0.6, "least_level": 2, "smoothing": "4h", "hysteresis": "4h",
        "group": "feeder"}),
    "peak_limit": ({}, {"limit_kw": 18}, {"limit_kw": 20, "group": "feeder", "smoothing": "8h", "hysteresis": "9h"}),
    "v2g_peak_shaving": ({}, {"limit_kw": 18}, {
        "limit_kw": 15, "group": "feeder", "smoothing": "8h", "hysteresis": "9h"}),
    "peak_shaving": ({}, {"limit_kw": 10}, {
        "limit_kw": 15, "group": "feeder", "smoothing": "8h", "hysteresis": "9h", "discharge": False,
        "soc_reserve": 0.8}),
    "pv_self_consumption": ({}, {"discharge": True}, {
        "discharge": False, "soc_reserve": 0.8, "group": "feeder", "smoothing": "8h", "hysteresis": "9h",
        "limit_kw": 5}),
    "scheduled": (DEAR, {}, {
        "period": "30min", "demand_charge": 5.0, "wear_per_kwh": 5.0, "discharge": False, "soc_reserve": 0.85,
        "depth_kwh": 0.5, "price_error": 5.0, "limit_kw": 25, "horizon": "30min"}),
    "arbitrage": (DEAR, {}, {
        "period": "30min", "demand_charge": 5.0, "wear_per_kwh": 5.0, "discharge": False, "soc_reserve": 0.85,
        "depth_kwh": 0.5, "price_error": 5.0, "limit_kw": 25, "horizon": "30min"}),
}  # fmt: skip
"""Of each strategy what it needs, its settings, and others; besides, all have evs and communication."""
BASES = {**BY_STRATEGY, "uncontrolled": ({}, {}, {})}
for strategy, (needs, settings, others) in BASES.items():
    given = needs | by(strategy, **settings)
    example(f"{strategy}.strategy", given, needs)
    more = {} if strategy == "uncontrolled" else {"communication": {"loss": 0.9}}
    for name, value in (others | more | {"evs": {"share": 0.4}}).items():
        EXAMPLES[f"{strategy}.{name}"] = (given, needs | by(strategy, **{**settings, name: value}))
for strategy in ("scheduled", "arbitrage"):
    EXAMPLES[f"{strategy}.emissions_price"] = (
        DEAR | CO2 | by(strategy), DEAR | CO2 | by(strategy, emissions_price=9000.0)
    )  # fmt: skip
    for name, value in (("margin", 0.9), ("base_load_error", 3.0), ("group", "feeder"), ("smoothing", "8h"),
                        ("hysteresis", "9h")):  # fmt: skip
        EXAMPLES[f"{strategy}.{name}"] = (
            DEAR | by(strategy, limit_kw=14), DEAR | by(strategy, limit_kw=14, **{name: value})
        )  # fmt: skip

for kind, source, more, settings in (
    ("DeliveryVanSessions", "delivery_van", {"time.start": "2026-01-18T16:00"}, (("driven_weekend", 1.0),)),
    ("SchoolBusSessions", "school_bus", {}, (("driven_weekday", 0.2), ("school_months", [9, 10]))),
    ("SchoolBusSessions", "school_bus", {"time.start": "2026-01-18T16:00"}, (("driven_weekend", 1.0),)),
    ("RentalSessions", "rental", {}, (("mean_days", 1), ("rented_weekday", 0.05), ("rented_weekend", 0.05))),
):
    for name, value in settings:
        shared = {"fleet.sessions": {"source": source, "warm_up_days": 9}, **more}
        EXAMPLES[f"{kind}.{name}"] = (
            shared,
            shared | {"fleet.sessions": shared["fleet.sessions"] | {name: value}},
        )

for name, pu, before, after in (
    ("FrequencyWatt.droop_under", 0.1, {"frequency_watt": {}}, {"frequency_watt": {"droop_under": 0.01}}),
    ("FrequencyWatt.droop_over", -0.5, {"frequency_watt": {}}, {"frequency_watt": {"droop_over": 0.01}}),
    ("FrequencyWatt.deadband_hz", 0.1, {"frequency_watt": {}}, {"frequency_watt": {"deadband_hz": 0.3}}),
    ("FrequencyWatt.response_s", 0.1, {"frequency_watt": {}}, {"frequency_watt": {"response_s": 60}}),
    ("Trips.under_frequency", 0.3, {"trips": {}}, {"trips": {"under_frequency": [[59.4, 1]]}}),
    ("Trips.over_frequency", -0.3, {"trips": {}}, {"trips": {"over_frequency": [[60.6, 1]]}}),
    ("EnterService.frequency_low_hz", 0.5, *(
        {"trips": {"under_frequency": [[58.4, 0]]},
         "enter_service": {"frequency_low_hz": low, "delay_s": 4, "ramp_s": 0}} for low in (58.5, 59.95))),
    ("EnterService.frequency_high_hz", -0.5, *(
        {"trips": {"over_frequency": [[61.6, 0]]},
         "enter_service": {"frequency_high_hz": high, "delay_s": 4, "ramp_s": 0}} for high in (60.05, 61.5))),
):  # fmt: skip
    shared = {"time.start": "2026-01-15T18:00", "time.duration": "4min", "time.step": "4s", "feeder.step": "4min",
              "communication.telemetry": "4s",
              "system": {"frequency": {"source": "lfc", "disturbances": [{"time": "60s", "pu": pu}]}}}  # fmt: skip
    if "EnterService" in name:  # deep for 20 s, then steady at 59.1 or 60.9 Hz
        falls = [{"time": "60s", "pu": 1.6 * pu, "duration": "20s"}, {"time": "60s", "pu": 0.6 * pu}]
        shared["system"] = {"frequency": {"source": "lfc", "disturbances": falls}}
    shared |= by("peak_limit", limit_kw=13) if name == "FrequencyWatt.droop_over" else {}
    EXAMPLES[name] = (shared | local(**before), shared | local(**after))

for name, value in (("tail", "10min"), ("availability", 0.5), ("reliability", 0.99), ("hysteresis", "5h"),
                    ("smoothing", "5h"), ("soc_reserve", 0.9), ("period", "10min"), ("hold", "1h"),
                    ("band", "5min"), ("discharge", False), ("capability_price", 50), ("performance_price", 50),
                    ("mileage_ratio", 3), ("limit_kw", 30), ("evs", {"share": 0.4}),
                    ("communication", {"loss": 0.9}), ("scorer", "caiso")):  # fmt: skip
    EXAMPLES[f"regulation.{name}"] = (fast(), fast(**{name: value}))
EXAMPLES["regulation.strategy"] = (fast("uncontrolled"), fast())
RESERVE = fast("reserve", product="fcr") | {
    "system": {"nominal_hz": 50, "frequency": {"file": "hz.csv", "column": "a"}}
}
for name, value in (("tail", "10min"), ("availability", 0.5), ("reliability", 0.99), ("soc_reserve", 0.9),
                    ("period", "10min"), ("hold", "1h"), ("band", "5min"), ("discharge", False),
                    ("capacity_price", 50), ("limit_kw", 30), ("evs", {"share": 0.4}), ("product", "fcr_d_up"),
                    ("communication", {"loss": 0.9}), ("smoothing", "5h"), ("hysteresis", "5h")):  # fmt: skip
    EXAMPLES[f"reserve.{name}"] = (RESERVE, RESERVE | by("reserve", **{"product": "fcr", name: value}))
EXAMPLES["reserve.strategy"] = (RESERVE | by("uncontrolled"), RESERVE)
for name, value in (("export_limit_kw", 1), ("group", "feeder")):
    EXAMPLES[f"reserve.{name}"] = (
        RESERVE | by("reserve", product="fcr", limit_kw=20),
        RESERVE | by("reserve", product="fcr", limit_kw=20, **{name: value}),
    )
LOW = {"feeder.network": "long.json"}
for name, value in (("v_min_pu", 0.97), ("hysteresis_pu", 0.05), ("hysteresis", "9h"),
                    ("discharge", False), ("soc_reserve", 0.95), ("pace", "even"), ("strategy", "voltage_support"), ("evs", {"share": 0.4}),
                    ("communication", {"loss": 0.9})):  # fmt: skip
    usual = {"v_min_pu": 0.985, "v_max_pu": 1.1}
    given = LOW if name == "strategy" else LOW | by("voltage_support", **usual)
    EXAMPLES[f"voltage_support.{name}"] = (
        given,
        LOW | by(**{"strategy": "voltage_support", **usual, name: value}),
    )
SUNNY = {"feeder.network": "pv.json", "feeder.base_load": {"source": "net", "generation": "nameplate"},
         "feeder.pv": {"functions": {"volt_var": "ieee_1547_b"}}}  # fmt: skip
example(
    "PvInverters.oversize", {"feeder.pv": {"functions": {"volt_var": "ieee_1547_b"}, "oversize": 2.0}}, SUNNY
)
PHASES = {"feeder.phases": 3, "feeder.zero_sequence": {"recipe": "four_wire"}, "fleet.charger.phases": 1,
          "feeder.network": "cable.json"}  # fmt: skip
for name, value in (("c0_per_c1", 0.1), ("r0_per_r1", 2), ("x0_per_x1", 2)):
    example(f"ZeroSequence.{name}", {"feeder.zero_sequence": {"recipe": "four_wire", name: value}}, PHASES)
OUT = {"start": "30min", "duration": "1h", "out": "line L1"}
NO_EVS = {"fleet": None, "tariff": None}
for name, value in (("start", "40min"), ("duration", "2h"), ("out", "feeder")):
    example(f"ScheduledOutage.{name}", {"outages": [{**OUT, name: value}]}, NO_EVS | {"outages": [OUT]})
CUT = {**OUT, "out": {"connections": ["H11"]}}
example(
    "Meters.connections", {"outages": [{**OUT, "out": {"connections": ["H12"]}}]}, NO_EVS | {"outages": [CUT]}
)
DRAWN = {"saifi": 9000, "caidi": "20min"}
for name, value in (("saifi", 3000), ("caidi", "2min"), ("extent", "connections")):
    example(f"OutageSettings.{name}", {"outages": {**DRAWN, name: value}}, NO_EVS | {"outages": DRAWN})
FAULTS = {"rates": {"line": 40000, "trafo": 12000}, "repair": {"line": "20min", "trafo": "20min"}}
for name in ("line", "trafo"):
    example(
        f"Rates.{name}",
        {"outages": {**FAULTS, "rates": {**FAULTS["rates"], name: 0}}},
        NO_EVS | {"outages": FAULTS},
    )
    example(
        f"Repair.{name}",
        {"outages": {**FAULTS, "repair": {**FAULTS["repair"], name: "3min"}}},
        NO_EVS | {"outages": FAULTS},
    )
for name in ("delay", "random", "ramp"):
    example(
        f"Restoration.{name}",
        {"outages": {"schedule": [OUT], "restoration": {name: "10min"}}},
        {"outages": {"schedule": [OUT]}},
    )
PICKED_UP = {"schedule": [OUT], "cold_load": {"factor": 2}}
for name, value in (("factor", 3), ("duration", "5min")):
    example(
        f"ColdLoad.{name}",
        {"outages": {"schedule": [OUT], "cold_load": {"factor": 2, name: value}}},
        NO_EVS | {"outages": PICKED_UP},
    )
for name, value in (("export_limit_kw", 1), ("group", "feeder")):
    EXAMPLES[f"regulation.{name}"] = (fast(limit_kw=20), fast(limit_kw=20, **{name: value}))

REFUSED = {
    "uncontrolled.group": by("uncontrolled", group="feeder"),
    "tou.group": by("tou", group="feeder"),
    "emissions.group": by("emissions", group="feeder"),
    "uncontrolled.communication": by("uncontrolled", communication={"loss": 0.5}),
}
"""Settings that can't change anything, and what is refused."""

SHOWN = {
    "federation/test_pace.py": """
        Time.speed
    """,
    "unit/test_openadr.py": """
        OpenADR.file OpenADR.timezone OpenADR.programs OpenADR.targets OpenADR.follow OpenADR.limits_of
        OpenADR.currency System.openadr
    """,
    "federation/test_der_server.py": """
        DerControls.server DerServer.url DerServer.programs DerServer.certificate DerServer.key
        DerServer.authority DerServer.every DerServer.record
    """,
    "unit/test_ieee2030_5.py": """
        System.ieee2030_5 DerControls.files DerControls.timezone DerControls.targets DerControls.limits_of
        DerControls.discharge_kw DerControls.charge_kw
        LocalFunctions.curves DerCurves.files DerCurves.most_var
    """,
    "federation/test_openadr_live.py": """
        OpenADR.vtn VTN.url VTN.client_id VTN.secret VTN.token_url VTN.every VTN.record VTN.ven VTN.report
    """,
    "unit/test_opendss_network.py": """
        BaseLoad.shape Feeder.controls
    """,
    "federation/test_recording.py": """
        Record.buses Record.lines Record.trafos
    """,
    "federation/test_sites.py": """
        Record.sites
    """,
    "federation/test_aggregators.py": """
        Selection.vehicles OwnCommunication.delay
    """,
    "federation/test_batch.py": """
        Batch.base Batch.grid Batch.listed Batch.members_per_run Batch.overrides Range.choices Range.high
        Range.integer Range.low Record.compression Sample.seed Sample.size
    """,
    "federation/test_coupling_iterated.py": """
        Coupling.mode Coupling.most_iterations
    """,
    "federation/test_demand_charge.py": """
        PowerPrice.price_per_kw
    """,
    "federation/test_group_limits.py": """
        arbitrage.export_limit_kw arbitrage.limit_over peak_limit.export_limit_kw peak_limit.limit_over
        peak_shaving.export_limit_kw peak_shaving.limit_over pv_self_consumption.export_limit_kw
        pv_self_consumption.limit_over regulation.limit_over reserve.limit_over scheduled.export_limit_kw
        scheduled.limit_over v2g_peak_shaving.export_limit_kw v2g_peak_shaving.limit_over
    """,
    "federation/test_phases.py": """
        Charger.phases
    """,
    "federation/test_scheduled.py": """
        arbitrage.arrivals_known arbitrage.demand_of scheduled.arrivals_known scheduled.demand_of
    """,
    "federation/test_strategies.py": """
        Communication.delay
    """,
    "federation/test_upstream.py": """
        Selection.upstream
    """,
    "properties/test_curves_properties.py": """
        EnterService.delay_s EnterService.ramp_s PowerFactor.excitation
    """,
    "studies/test_comparison.py": """
        Comparison.members Study.scenario Comparison.variants
    """,
    "studies/test_frequency_regulation.py": """
        FrequencyRegulation.limit_kw Loss.area Loss.at Loss.chargers_pu Loss.deadband_hz Loss.full_hz
        Loss.lead Loss.step Loss.watch
    """,
    "studies/test_growth.py": """
        Addition.at Addition.kw Addition.load Addition.penetration Addition.power_factor Area.at Growth.confidence
        Growth.members Growth.pv_kw Growth.risk Growth.years SCurve.midpoint SCurve.rate SCurve.saturation
    """,
    "studies/test_hosting_capacity.py": """
        HostingCapacity.budget HostingCapacity.evs HostingCapacity.levels HostingCapacity.members
        HostingCapacity.chargers HostingCapacity.evs_per_charger HostingCapacity.kw HostingCapacity.nodes
        HostingCapacity.members_per_run HostingCapacity.precision
        HostingCapacity.risk HostingCapacity.variants
    """,
    "studies/test_managed_charging.py": """
        Study.overrides ManagedCharging.limit_kw ManagedCharging.oracle
    """,
    "studies/test_nodal_capacity.py": """
        HostingCapacity.nodal_kw
    """,
    "studies/test_reinforcement.py": """
        CablePrice.c_nf_per_km CablePrice.kv CablePrice.max_i_ka CablePrice.parallel CablePrice.price_per_km
        CablePrice.r0_per_r1 CablePrice.r_ohm_per_km CablePrice.replaces CablePrice.x0_per_x1
        CablePrice.x_ohm_per_km Control.overrides ControlPrice.once ControlPrice.per_ev ControlPrice.per_ev_year
        ControlPrice.per_year RebalancingPrice.price Reinforcement.discount_rate
        Reinforcement.horizon_years Reinforcement.members Reinforcement.most_sections Reinforcement.most_sets
        Reinforcement.risk Reinforcement.unserved_per_kwh Taps.deadband_pu Taps.step_percent Taps.steps
        Taps.target_pu TransformerPrice.hv_kv TransformerPrice.i0_percent TransformerPrice.kva
        TransformerPrice.lv_kv TransformerPrice.pfe_kw TransformerPrice.price TransformerPrice.vk_percent
        TransformerPrice.vkr_percent _Priced.lifetime_years PriceTable.currency
    """,
    "studies/test_resilience.py": """
        Resilience.caidi Resilience.durations Resilience.horizon Resilience.reserves Resilience.result Resilience.rule
        Resilience.saifi Resilience.slot Resilience.variants Resilience.wear_per_kwh
    """,
    "studies/test_voltage_support.py": """
        VoltageSupport.limit_kw VoltageSupport.limits VoltageSupport.v_min_pu
    """,
    "federation/test_deployments.py": """
        FederationSettings.external FederationSettings.broker FederationSettings.wait
    """,
    "unit/test_coupling.py": """
        Coupling.tolerance
    """,
    "unit/test_curves_kernels.py": """
        ChargingLimit.response_s LocalFunctions.priority Product.response_s VoltVar.response_s
        VoltWatt.response_s WattVar.response_s
    """,
    "unit/test_curves_settings.py": """
        ChargingLimit.points EnterService.voltage_high_pu EnterService.voltage_low_pu LocalFunctions.capable
        Trips.over_voltage Trips.under_voltage VoltVar.points VoltWatt.points WattVar.points
        PowerFactor.value
    """,
    "unit/test_envelope.py": """
        arbitrage.envelope scheduled.envelope
    """,
    "unit/test_feeder_equivalents.py": """
        Feeder.phases
    """,
    "unit/test_feeder_generation.py": """
        BaseLoad.scale
    """,
    "unit/test_feeder_model.py": """
        Feeder.on_divergence Feeder.unbalance Households.others
    """,
    "unit/test_feeder_networks.py": """
        Households.by_load Households.kw_each
    """,
    "unit/test_single_phase_regulators.py": "TapChanger.phases",
    "unit/test_feeder_regulation.py": """
        Capacitor.shunt LineDrop.r_ohm LineDrop.x_ohm PvInverters.at TapChanger.side TapChanger.trafo
        _Regulator.bus _Regulator.deadband_pu _Regulator.delay _Regulator.next_delay _Regulator.target_pu
    """,
    "unit/test_feeder_solvers.py": """
        Feeder.reduce Feeder.solver
    """,
    "unit/test_fleet_physics.py": """
        Fleet.at
    """,
    "unit/test_importers.py": """
        AcnFile.acn AcnFile.charge_kw AcnFile.ratings ElaadFile.elaad ElaadFile.time_format ElaadFile.times
        ElaadFile.zone NhtsFile.day NhtsFile.days NhtsFile.wave ImportedFile.connections
    """,
    "unit/test_limits.py": """
        Criterion.allowed_share Criterion.high Criterion.low Criterion.mean_over Criterion.moving
        Criterion.tolerance Criterion.variable
    """,
    "unit/test_readers.py": """
        SessionFile.time_format
    """,
    "unit/test_customers.py": """
        CustomerClass.above_kw CustomerClass.annual_kwh CustomerClass.at CustomerClass.below_kw
        CustomerClass.households CustomerClass.profile CustomerTable.file
    """,
    "unit/test_feeder_profiles.py": """
        Battery.capacity_kwh Battery.efficiency Battery.power_kw Battery.soc_min Battery.soc_start
        BatteryWindow.hours BatteryWindow.kw ElementProfile.at ElementProfile.file ElementProfile.of
        ElementProfile.simbench HeatPump.annual_kwh HeatPump.building HeatPump.building_class
        HeatPump.day_amplitude_c HeatPump.hot_water HeatPump.mean_c HeatPump.sink HeatPump.source
        HeatPump.timezone HeatPump.weather HeatPump.year_amplitude_c NetworkPv.dc_per_ac
    """,
    "unit/test_time_tables.py": """
        Columns.name Columns.offset Columns.time Columns.value PowerSeries.unit PowerTable.names
        TimeSeries.decimal TimeSeries.encoding TimeSeries.gaps TimeSeries.header TimeSeries.label
        TimeSeries.scale TimeSeries.separator TimeSeries.sheets TimeSeries.time_format TimeSeries.times
        TimeSeries.tz TimeSeries.year
    """,
    "unit/test_reserve.py": """
        Product.direction Product.endurance_s Product.nominal_hz Product.signal_step_s
    """,
    "unit/test_scheduled.py": """
        arbitrage.demand_interval scheduled.demand_interval
    """,
    "unit/test_scheduler.py": """
        arbitrage.exact scheduled.exact
    """,
    "unit/test_charging_curves.py": """
        ChargeCurve.kw ChargeCurve.soc VehicleType.charge_curve
    """,
    "unit/test_sessions_home.py": """
        FleetArea.at FleetArea.penetration
        VehicleType.ac_1p_kw VehicleType.ac_3p_kw VehicleType.bidirectional VehicleType.capacity_kwh
        VehicleType.consumption_kwh_per_mile VehicleType.discharge_kw VehicleType.share
    """,
    "unit/test_sessions_sources.py": """
        DcFastSessions.arrival_h DcFastSessions.log_stay_h DcFastSessions.longest_stay_h
        DcFastSessions.plug_in DcFastSessions.visits_weekday DcFastSessions.visits_weekend
        DeliveryVanSessions.departure_h DeliveryVanSessions.log_miles DeliveryVanSessions.return_h
        NhtsFile.nhts PublicSessions.arrival_h PublicSessions.log_stay_h PublicSessions.visits_weekday
        PublicSessions.visits_weekend RentalSessions.log_miles RentalSessions.pick_up_h
        RentalSessions.return_h SchoolBusSessions.afternoon_back_h SchoolBusSessions.afternoon_out_h
        SchoolBusSessions.log_miles SchoolBusSessions.morning_back_h SchoolBusSessions.morning_out_h
        SchoolBusSessions.shortest_trip_h VehicleType.dc_kw WorkplaceSessions.arrival_h
        WorkplaceSessions.departure_h WorkplaceSessions.shortest_stay_h WorkplaceSessions.visits_weekday
        WorkplaceSessions.visits_weekend ShortVisits.longest_stay_h Visits.log_miles VehicleType.chemistry
    """,
    "unit/test_settlement.py": """
        Rates.capability_price Rates.demand_charge Rates.driver_per_kwh Rates.driver_share
        Rates.fixed_per_day Rates.mileage_ratio Rates.performance_price Rates.wear_per_kwh
        Tariff.fixed_per_day
    """,
    "unit/test_share_by_laxity.py": """
        voltage_support.group
    """,
    "unit/test_system_area.py": """
        FleetFeedback.schedule_kw FleetFeedback.stands_for
    """,
    "unit/test_system_products.py": """
        Product.curve Product.driver Product.scorer
    """,
    "unit/test_system_signals.py": """
        EmissionsFile.timezone GenerationFile.file Product.deadband_hz SyntheticRegulation.step
    """,
    "unit/test_entsoe.py": """
        EntsoeFile.area EntsoeFile.file EntsoeFile.sequence EntsoeFile.timezone Tariff.surcharge_per_kwh
        Tariff.vat_percent
    """,
    "unit/test_urdb.py": """
        Block.above_kwh Block.price_per_kwh BlockRule.other_kwh Period.export_per_kwh
        PublicHolidays.country PublicHolidays.subdivision Ratchet.of_months
        Tariff.fixed_per_month Tariff.left_out Tariff.valid_until UrdbFile.blocks_by UrdbFile.demand_of
        UrdbFile.file UrdbFile.label UrdbFile.leave_out UrdbFile.other_kwh
    """,
    "unit/test_charge_points.py": """
        Charger.kinds ChargePoints.each ChargePoints.file ChargePoints.patience ChargePoints.stay
        ChargePoints.waiting ChargerKind.phases ChargerKind.power_kw ChargerKind.share
    """,
    "properties/test_settlement_properties.py": """
        BlockRule.by PowerPrice.above_kw Ratchet.before_kw Ratchet.lookback Ratchet.share
    """,
    "unit/test_tariff.py": """
        EnergyPrice.currency PowerPrice.months Tariff.currency Tariff.valid_from
    """,
    "unit/test_thermal.py": """
        TransformerAgeing.start_load TransformerThermal.winding_time_constant_min
    """,
    "unit/test_voltage_support.py": """
        voltage_support.v_max_pu
    """,
    "validation/test_validation_curves.py": """
        LocalFunctions.nominal_hz
    """,
    "validation/test_validation_thermal.py": """
        TransformerThermal.gradient_k TransformerThermal.k11 TransformerThermal.k21 TransformerThermal.k22
        TransformerThermal.loss_ratio TransformerThermal.oil_exponent
        TransformerThermal.oil_time_constant_min TransformerThermal.paper TransformerThermal.top_oil_rise_k
        TransformerThermal.winding_exponent
    """,
    "unit/test_sites_pv.py": """
        PvSystem.albedo PvSystem.altitude PvSystem.azimuth PvSystem.inverter_efficiency PvSystem.latitude
        PvSystem.longitude PvSystem.losses PvSystem.mounting PvSystem.slot PvSystem.temperature_coefficient
        PvSystem.tilt PvSystem.time_format PvSystem.timezone PvSystem.turbidity PvSystem.weather SitePv.ac_kw
        SitePv.kwp
    """,
    "unit/test_site_plans.py": """
        PlanningControl.slot Planned.every Planned.forecast Planned.horizon
    """,
    "unit/test_sites_settings.py": """
        Circuit.critical Circuit.order Site.nominal_v
    """,
    "unit/test_sites_table.py": """
        DrawnConnections.share DrawnConnections.with_ev Generator.fuel_hours Generator.fuel_kwh
        Generator.minimum_load Generator.power_kw Generator.start Interconnection.approval
        Interconnection.export_kw Interconnection.import_kw Island.black_start Island.detection Island.former
        Island.kva Island.load_step_kw Island.ramp Island.return_wait LoadPart.column LoadPart.file LoadPart.kw
        LoadPart.share OwnLoad.column OwnLoad.file OwnLoad.kw OwnLoad.power_factor
        Peak.limit_kw Site.backup Site.breaker_a Site.count Site.discharge_order
        Site.evs_each SiteBattery.capacity_kwh SiteBattery.charge_efficiency SiteBattery.charge_kw
        SiteBattery.discharge_efficiency SiteBattery.discharge_kw SiteBattery.soc_min SiteBattery.soc_start
        SiteBattery.standby_kw SiteControl.reserve_soc Storm.begin Storm.end Storm.soc Storm.warning
    """,
}
"""Settings that need more than a small run, by the test that is about them."""

LABELS = """
    Scenario.name Event.name Period.name Season.name Tariff.name Tariff.source Mix.name Mix.source
    VehicleType.source Product.name Product.title Product.source Batch.name Study.name
    Criterion.name PriceTable.name PriceTable.source CablePrice.name TransformerPrice.name _Priced.source
"""
"""Names and sources: what they say is kept with the result or printed, and changes no number."""

NOT_SHOWN = {
    "Record.shunts": "as record.lines, for shunts",
    "Batch.time_limit": "ends a process after minutes of wall time",
    "Batch.workers_within": "ends a batch that no worker joins",
    "HostingCapacity.confidence": "sets the width of an interval over many members",
    "Loss.variants": "a choice of the study's own variants",
    "Loss.pu": "the size of the loss that the study looks at",
    "FleetFeedback.schedule": "a time constant of minutes, of a fleet large enough for its area",
    "Criterion.per": "how a violation is counted",
    "Product.response_share": "a product's data for its description",
}
"""Settings for which there is neither an example nor a test of their own yet, and why."""


def _listed(texts: Any) -> set[str]:
    return {name for text in texts for name in text.split()}


def test_every_setting_is_registered_once():
    """One that is added must come with an example (or say why not), and one that is gone must go here, too."""
    parts = [
        set(EXAMPLES),
        set(REFUSED),
        set(STUDIES),
        _listed(SHOWN.values()),
        _listed([LABELS]),
        set(NOT_SHOWN),
    ]
    known = set().union(*parts)
    what_to_do = (
        "add a strategy to BY_STRATEGY, another setting to EXAMPLES (its effect) or REFUSED, or to SHOWN under the "
        "test that is about it"
    )
    assert all_settings() <= known, f"{what_to_do}: {sorted(all_settings() - known)}"
    assert known <= all_settings(sections=True), f"no setting: {sorted(known - all_settings(sections=True))}"
    assert sum(map(len, parts)) == len(known)


@pytest.mark.parametrize("test", SHOWN)
def test_the_test_that_shows_a_setting_names_it(test):
    text = (TESTS / test).read_text()
    for setting in SHOWN[test].split():
        name = {"listed": "list"}.get(setting.partition(".")[2], setting.partition(".")[2])
        assert re.search(rf"\b{name}\b", text), f"{test} says nothing of {setting}"


def _variants(folder, **settings):
    (folder / "base.yaml").write_text(json.dumps({**HOME, **EVENT}))
    return ManagedCharging(name="s", scenario=folder / "base.yaml", **settings).cases()


def _fitting(folder, memory_gb):
    return members_that_fit(scenario_from(HOME, folder=folder), memory_gb)


STUDIES = {
    "ManagedCharging.wear_per_kwh": (lambda f: _variants(f), lambda f: _variants(f, wear_per_kwh=1)),
    "ManagedCharging.event_kw": (lambda f: _variants(f), lambda f: _variants(f, event_kw=3)),
    "Batch.memory_gb": (lambda f: _fitting(f, 2.0), lambda f: _fitting(f, 4.0)),
}


@pytest.mark.parametrize("setting", STUDIES)
def test_a_setting_changes_what_is_run(setting, folder):
    one, other = (of(folder) for of in STUDIES[setting])
    assert one != other


@pytest.mark.parametrize("setting", EXAMPLES)
def test_a_setting_changes_what_is_recorded(setting, folder):
    before, after = EXAMPLES[setting]
    assert differ(recorded(folder, before), recorded(folder, after)), f"{setting} changes nothing"


@pytest.mark.parametrize("setting", REFUSED)
def test_a_setting_without_meaning_is_refused(setting, folder):
    with pytest.raises(
        ScenarioError, match=rf"{setting.partition('.')[2]}: has no meaning with the strategy"
    ):
        scenario_from(HOME, REFUSED[setting], folder=folder)
