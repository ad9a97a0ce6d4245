"""The variables that a result can hold: those of the models of small runs with everything switched on."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandapower as pp

from evgrid.core.model import Variable
from evgrid.results.recorder import ResultRecorder
from evgrid.runs.simulation import build_models, build_world
from evgrid.scenario import scenario_from

MODELS = {"feeder": "Feeder", "fleet": "Fleet", "aggregator": "Aggregators", "system": "Bulk system"}
SCENARIO: dict[str, Any] = {
    "name": "everything",
    "time": {"start": "2026-07-01T12:00", "duration": "2h", "step": "10s"},
    "feeder": {
        "base_load": {"source": "net"},
        "phases": 3,
        "zero_sequence": {"recipe": "four_wire"},
        "tap_changers": [{"trafo": "T1", "deadband_pu": 0.03}],
        "capacitors": [{"shunt": "C1", "deadband_pu": 0.04}],
        "pv": {"functions": {"volt_var": "ieee_1547_b"}},
        "transformer_ageing": {"ambient": 20},
    },
    "fleet": {
        "count": 2,
        "charger": {"functions": {"volt_var": "ieee_1547_b"}, "bidirectional": 1},
        "vehicle": {"degradation": {}, "temperature": {}},
        "permission": {},
        "reserve_horizon": "15min",
        "envelope": {"horizon": "2h"},
    },
    "system": {
        "frequency": {"source": "lfc", "fleet": {}},
        "regulation": {"source": "synthetic"},
        "events": [{"name": "event", "start": "2026-07-01T13:00", "duration": "1h"}],
        "emissions": {"file": "series.csv"},
        "energy_price": {"file": "series.csv"},
    },
    "tariff": "pge_ev2a",
    "coupling": "iterated",
    "record": {"connections": True, "ev": True},
}
OTHERS: tuple[dict[str, Any], ...] = (
    {"aggregators.main": {"strategy": "scheduled", "limit_kw": 100}, "time.step": "1min"},
    {"aggregators.main": {"strategy": "pv_self_consumption"}, "tariff": "billed_by_transformer.yaml"},
    {"aggregators.main": {"strategy": "regulation"}, "fleet.upstream": 1, "tariff": "billed_by_feeder.yaml"},
    {"aggregators.main": {"strategy": "reserve", "product": "fcr"}, "system.nominal_hz": 50},
    {"aggregators.main": {"strategy": "voltage_support"}, "fleet.charge_points": {"each": 1}},
    {"feeder.tap_changers": [{"trafo": "T2", "deadband_pu": 0.03, "phases": "each"}]},
    {"outages": [{"start": "1h", "duration": "10min", "out": "feeder"}]},
)
"""Overrides that bring in what one run can't hold together."""


def result_variables() -> dict[str, list[Variable]]:
    """Every variable once, by the model that records it, in the order in which it does."""
    found: dict[str, dict[str, Variable]] = {title: {} for title in MODELS.values()}
    with TemporaryDirectory() as folder:
        _write_files(Path(folder))
        for overrides in OTHERS:
            scenario = scenario_from(SCENARIO, {"feeder.network": "net.json", **overrides}, folder)
            world = build_world(scenario)
            recorder = ResultRecorder(world.clock, scenario.record_step_s, world.sizes, _Nowhere())
            for model in build_models(world, recorder):
                named = found[MODELS[model.name.partition(".")[0]]]
                named.update((v.name, v) for v in model.variables if v.name not in named)
    return {title: list(variables.values()) for title, variables in found.items()}


class _Nowhere:
    """A store that keeps nothing."""

    def create(self, variable: Variable, dims: tuple[str, ...]) -> None:
        """See :class:`evgrid.results.recorder.Store`."""

    def write(self, name: str, key: Any, values: Any) -> None:
        """See :class:`evgrid.results.recorder.Store`."""


def _write_files(folder: Path) -> None:
    """A network of two buses with one of each device, a series, and tariffs with a demand charge."""
    net = pp.create_empty_network()
    head, end = pp.create_bus(net, 20.0, "head"), pp.create_bus(net, 0.4, "end")
    far = pp.create_bus(net, 0.4, "far")
    pp.create_ext_grid(net, head)
    pp.create_transformer(net, head, end, "0.25 MVA 20/0.4 kV", name="T1")
    pp.create_line(net, end, far, 0.1, "NAYY 4x150 SE", name="L1")
    pp.create_load(net, far, 0.01, name="House")
    pp.create_transformer_from_parameters(
        net, far, pp.create_bus(net, 0.4, "regulated"), 0.25, 0.4, 0.4, 0.1, 1.0, 0.0, 0.0,
        vector_group="YNyn", tap_side="lv", tap_neutral=0, tap_pos=0, tap_min=-16, tap_max=16,
        tap_step_percent=0.625, tap_changer_type="Ratio", name="T2",
    )  # fmt: skip
    pp.create_sgen(net, far, 0.005, name="PV")
    pp.create_shunt(net, far, q_mvar=-0.01, name="C1", step=0, max_step=2)
    pp.to_json(net, str(folder / "net.json"))
    hours = "".join(f"{3600 * hour},{100 + hour}\n" for hour in range(72))
    (folder / "series.csv").write_text(f"time,value\n{hours}", encoding="utf-8")
    for of, blocks in (
        ("transformer", ", blocks: [{above_kwh: 300, price_per_kwh: 0.4}]"),
        ("feeder", ""),
    ):
        (folder / f"billed_by_{of}.yaml").write_text(
            f"name: billed\ncurrency: USD\ndemand: {{of: {of}, prices: [{{price_per_kw: 5}}, "
            "{price_per_kw: 9, windows: [{hours: [[16, 21]]}]}]}\n"
            f"{'blocks: {by: month}' if blocks else ''}\nseasons:\n"
            "  - {name: all, months: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12], "
            f"periods: [{{name: all, price_per_kwh: 0.3{blocks}}}]}}\n",
            encoding="utf-8",
        )
