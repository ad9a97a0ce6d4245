"""Ways of charging side by side: usual variants, what a run is judged by, the command and its pictures."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner
from matplotlib.figure import Figure

import evgrid
from evgrid.cli import main
from evgrid.errors import ScenarioError
from evgrid.results.limits import limit_set, violations
from evgrid.scenario import load_scenario
from evgrid.studies import voltage_support
from evgrid.studies.comparison import together
from evgrid.studies.reading import load_study
from evgrid.studies.voltage_support import VoltageSupport

STUDIES = Path(__file__).parents[2] / "scenarios" / "studies"

SCENARIO = """
name: street
time: {start: 2026-01-15T17:00, duration: 2h, step: 60s}
ensemble: {members: 2, seed: 7}
feeder: {network: european_lv, base_load: {source: standard, annual_kwh: 9000}}
fleet:
  count: 110
  charger: {power_kw: 7.4, apparent_kva: 8.2, bidirectional: 1.0}
record: {step: 10min}
"""


def study_of(folder, text=SCENARIO, **changes):
    (folder / "street.yaml").write_text(text)
    return load_study(folder / "street.yaml", VoltageSupport, "voltage-support", **changes)


@pytest.mark.parametrize("path", sorted(STUDIES.glob("*voltage_support*.yaml")))
def test_every_shipped_study_is_valid(path, in_place):
    study = load_study(in_place(path), VoltageSupport, "voltage-support", members=1)
    for changes in study.cases().values():
        load_scenario(study.scenario, {**study.overrides, **changes})


def test_the_usual_variants_differ_in_what_they_are_called_after(tmp_path):
    study = study_of(tmp_path, limit_kw=150, v_min_pu=0.93)
    variants = {name: load_scenario(study.scenario, changes) for name, changes in study.cases().items()}
    assert variants["no EVs"].fleet is None
    strategies = {name: [a.strategy for a in s.aggregators.values()] for name, s in variants.items()}
    assert strategies == {
        "no EVs": [], "uncontrolled": [], "volt-watt": [], "volt-var": [], "V1G, peak limit": ["peak_limit"],
        "V2G, peak shaving + volt-var": ["v2g_peak_shaving"], "coordinated": ["voltage_support"],
        "coordinated + volt-var": ["voltage_support"],
    }  # fmt: skip
    assert variants["V1G, peak limit"].aggregators["main"].limit_kw == 150
    assert variants["coordinated"].aggregators["main"].v_min_pu == 0.93
    for name, scenario in variants.items():
        functions = scenario.fleet.charger.functions if scenario.fleet else None
        assert ("volt-var" in name) == bool(functions and functions.volt_var)
        assert (name == "volt-watt") == bool(functions and functions.charging_limit)


def test_a_scenario_may_bring_functions_an_aggregator_and_a_tariff(tmp_path):
    text = SCENARIO.replace(
        "bidirectional: 1.0", "bidirectional: 1.0, functions: {trips: II, volt_var: ieee_1547_a}"
    )
    own = text + "aggregators: {mine: {strategy: v2g_peak_shaving, limit_kw: 99}}\n"
    study = study_of(tmp_path, own, volt_var="vde_ar_n_4105")
    variants = {name: load_scenario(study.scenario, changes) for name, changes in study.cases().items()}
    assert variants["V1G, peak limit"].aggregators["mine"].limit_kw == 99
    assert variants["uncontrolled"].aggregators == {}
    assert variants["uncontrolled"].fleet.charger.functions.volt_var is None
    assert variants["uncontrolled"].fleet.charger.functions.trips == "II"
    assert variants["volt-var"].fleet.charger.functions.volt_var == "vde_ar_n_4105"
    by_tariff = study_of(tmp_path, text + "tariff: pge_ev2a\n").cases()
    assert by_tariff["V1G, tou"]["aggregators.main"] == {"strategy": "tou"}
    assert by_tariff["V2G, arbitrage + volt-var"]["aggregators.main"] == {"strategy": "arbitrage"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("fleet:", "x:"), "x: unknown key"),
        (
            ("bidirectional: 1.0", "phases: 1"),
            "fleet.charger.bidirectional = 0: must be above 0 for the variants",
        ),
        (
            ("", ""),
            "limit_kw: is required where the scenario has neither an aggregator with a limit_kw nor prices",
        ),
    ],
)
def test_what_a_scenario_lacks_is_said(tmp_path, change, message):
    with pytest.raises(ScenarioError, match=message):
        study_of(tmp_path, SCENARIO.replace(*change)).cases()


def test_a_scenario_without_evs_and_unknown_limits_are_refused(tmp_path):
    empty = SCENARIO[: SCENARIO.index("fleet:")] + "record: {step: 10min}\n"
    with pytest.raises(ScenarioError, match="voltage-support needs EVs: the scenario has no fleet"):
        study_of(tmp_path, empty).cases()
    with pytest.raises(ScenarioError, match="en_50161: must be one of en_50160, ansi_c84_1_a"):
        study_of(tmp_path, limits=["en_50161"])


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """The study's Dataset of four variants, and their results, run here."""
    study = study_of(tmp_path_factory.mktemp("study"), limit_kw=150)
    names = ("no EVs", "uncontrolled", "volt-var", "coordinated")
    results = {name: evgrid.run(load_scenario(study.scenario, study.cases()[name])) for name in names}
    figures = together(study, {name: study.figures(result) for name, result in results.items()})
    return study, results, figures


def test_figures_are_those_of_the_result(compared):
    _, results, figures = compared
    for name, result in results.items():
        mine = figures.sel(variant=name)
        np.testing.assert_allclose(
            mine["voltage_min_pu"], result["voltage_pu"].min(["time", "bus", "phase"]), rtol=1e-6
        )
        np.testing.assert_allclose(mine["losses_kwh"], result["losses_kw"].mean("time") * 2)
        table = violations(result, limit_set("vuf")).groupby("member")["duration_h"]
        for member in (0, 1):
            rows = table.get_group(member) if member in table.groups else []
            assert mine["violates_vuf"].sel(member=member).item() == (len(rows) > 0)
            assert mine["places_vuf"].sel(member=member).item() == len(rows)
            assert mine["hours_vuf"].sel(member=member).item() == pytest.approx(sum(rows))
    charged = results["coordinated"]
    of_member = [
        float(charged["session_energy_delivered_kwh"].where(charged["session_member"] == m).sum())
        for m in (0, 1)
    ]
    np.testing.assert_allclose(figures["drawn_kwh"].sel(variant="coordinated"), of_member, rtol=1e-6)
    power = {name: results[name]["fleet_power_kw"].transpose("member", "time") for name in list(results)[1:]}
    less = np.maximum(power["uncontrolled"].values - power["coordinated"].values, 0).sum(axis=1) / 6
    np.testing.assert_allclose(figures["held_back_kwh"].sel(variant="coordinated"), less)
    assert (less > 1).any()
    q = results["volt-var"]["fleet_reactive_kvar"]
    np.testing.assert_allclose(figures["reactive_kvarh"].sel(variant="volt-var"), abs(q).sum("time") / 6)
    assert figures["drawn_kwh"].sel(variant="no EVs").isnull().all()
    assert figures["held_back_kwh"].sel(variant="no EVs").isnull().all()


def test_a_member_that_was_given_up_has_no_figures(compared):
    study, results, figures = compared
    result = results["uncontrolled"].copy()
    result["member_failed_s"] = result["member_failed_s"].copy(data=[3600.0, np.nan])
    mine = study.figures(result)
    names = [name for name in mine.data_vars if not name.startswith(("violates", "places", "hours"))]
    assert mine[names].sel(member=0).isnull().all().to_array().all()
    for name in names:
        np.testing.assert_array_equal(
            mine[name].sel(member=1), figures[name].sel(variant="uncontrolled", member=1)
        )


def test_support_lifts_the_voltage_and_reactive_power_has_a_price(compared):
    figures = compared[2]
    lowest = figures["voltage_min_pu"]
    assert (lowest.sel(variant="coordinated") > lowest.sel(variant="uncontrolled") + 0.01).all()
    assert (lowest.sel(variant="volt-var") > lowest.sel(variant="uncontrolled")).all()
    assert (figures["reactive_kvarh"].sel(variant="volt-var") > 20).all()
    assert (figures["reactive_kvarh"].sel(variant=["uncontrolled", "coordinated"]) == 0).all()
    unserved = figures["unserved_kwh"]
    np.testing.assert_allclose(
        unserved.sel(variant="coordinated"), unserved.sel(variant="uncontrolled"), atol=1e-6
    )


def test_pictures_show_every_variant(compared):
    study, _, figures = compared
    figure = study.draw(figures)
    assert len(figure.axes) == 4
    ax = Figure().subplots()
    voltage_support.plot_lowest_voltage(figures, ax)
    assert [t.get_text() for t in ax.get_legend().get_texts()] == figures["variant"].values.tolist()
    assert len(voltage_support.plot_voltage_over_time(figures, Figure().subplots()).lines) == 4
    assert len(voltage_support.plot_violating_members(figures, Figure().subplots()).patches) == 5 * 4
    assert len(voltage_support.plot_losses(figures, Figure().subplots()).containers) == 4


def test_the_command_prints_a_table_and_writes_files(tmp_path, scheduler):
    (tmp_path / "street.yaml").write_text(
        "name: street\ntime: {start: 2026-07-01T18:00, duration: 40min, step: 10min}\n"
        "ensemble: {members: 2}\n"
        "feeder: {network: cigre_lv, base_load: {source: net}}\n"
        "fleet: {count: 6, charger: {phases: 3, bidirectional: 1.0}}\ncommunication: {telemetry: 10min}\n"
    )
    (tmp_path / "study.yaml").write_text(
        "name: mine\nscenario: street.yaml\nlimits: [en_50160]\n"
        "variants: {none: {fleet: null}, uncontrolled: {}}\n"
    )
    done = CliRunner().invoke(
        main,
        [
            "study",
            "voltage-support",
            str(tmp_path / "study.yaml"),
            "-o",
            str(tmp_path / "out"),
            "--scheduler",
            scheduler,
        ],
    )
    assert done.exit_code == 0, done.output
    assert "en_50160: members that violate it" in done.output
    assert "of 2" in done.output
    with xr.open_dataset(tmp_path / "out" / "study.nc") as kept:
        assert kept["losses_kwh"].dims == ("variant", "member")
    assert (tmp_path / "out" / "study.png").stat().st_size > 10_000
