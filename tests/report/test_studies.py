"""The report of each kind of study: its answer, its tables, and the page in a browser."""

import json
from functools import cache

import numpy as np
import pytest
import xarray as xr
from tests.report.test_report import texts
from tests.studies.test_frequency_regulation import BASE as REGULATION
from tests.support.chromium import open_tab

from evgrid.errors import ResultError
from evgrid.report import page_of, write_report
from evgrid.report.page import html_of
from evgrid.report.studies import Aim, Part, _ranked, _too_few
from evgrid.results import save_dataset
from evgrid.studies.comparison import run_here
from evgrid.studies.frequency_regulation import FrequencyRegulation
from evgrid.studies.growth import first_years
from evgrid.studies.hosting_capacity import load_study as load_hosting
from evgrid.studies.hosting_capacity import run_study as run_hosting
from evgrid.studies.managed_charging import ManagedCharging
from evgrid.studies.reading import load_study
from evgrid.studies.resilience import Resilience
from evgrid.studies.resilience import run_study as run_resilience
from evgrid.studies.voltage_support import VoltageSupport

STREET = """
name: street
time: {start: 2026-07-01T16:00, duration: 24h, step: 30min}
ensemble: {members: 2, seed: 3}
feeder: {network: cigre_lv, base_load: {source: net}}
fleet: {count: 20, charger: {phases: 3, power_kw: 11}}
communication: {telemetry: 30min}
tariff: pge_ev2a
"""
VARIANTS = {"uncontrolled": {}, "tou": {"aggregators.main": {"strategy": "tou"}}}
SITES = """
name: sites
time: {start: 2026-03-30T00:00, duration: 48h, step: 1h}
feeder: {network: cigre_lv, base_load: {source: none}}
sites:
  homes:
    connections: [Load R15]
    load: {kw: 2}
    critical: {kw: 1}
    battery: {capacity_kwh: 10, charge_kw: 5}
"""


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A folder with the scenarios."""
    folder = tmp_path_factory.mktemp("studies")
    for name, text in {"street": STREET, "sites": SITES, "regulation": REGULATION}.items():
        (folder / f"{name}.yaml").write_text(text)
    return folder


@pytest.fixture(scope="module")
def folder_of(base, request):
    """The folder of a small study of a kind, run when it is first asked for."""

    def compared(schema, kind, scenario, *variants, **changes):
        study = load_study(base / scenario, schema, kind, **changes)
        return run_here(study, *variants)

    def run(kind):
        if kind == "managed-charging":
            return compared(ManagedCharging, kind, "street.yaml", variants=VARIANTS)
        if kind == "voltage-support":
            return compared(VoltageSupport, kind, "street.yaml", variants=VARIANTS)
        if kind == "frequency-regulation":
            given = {"members": 1, "limits": ["ratings"]}
            return compared(FrequencyRegulation, kind, "regulation.yaml", "uncontrolled", "v1g", **given)
        if kind == "resilience":
            return run_resilience(load_study(base / "sites.yaml", Resilience, kind, durations=[3600, 7200]))
        study = load_hosting(base / "street.yaml", members=2, levels=None, evs=[0, 40], limits=LIMITS)
        return run_hosting(study, base / kind, scheduler=request.getfixturevalue("scheduler"))

    @cache
    def made(kind):
        result = run(kind)
        (base / kind).mkdir(exist_ok=True)
        save_dataset(result, base / kind / "study.nc")
        return base / kind

    return made


KINDS = (
    "managed-charging", "voltage-support", "resilience",
    *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("hosting-capacity", "frequency-regulation")),
)  # fmt: skip
LIMITS = ["en_50160", "vuf"]


@pytest.fixture(scope="module")
def tab():
    with open_tab() as opened:
        yield opened


@pytest.mark.parametrize("kind", KINDS)
def test_each_study_has_a_page_without_errors_or_requests(kind, folder_of, tab):
    path = write_report([folder_of(kind)])
    assert path == folder_of(kind) / "report.html"
    tab.messages.clear()
    tab.requests.clear()
    charts = path.read_text().count('<div class="chart">')
    assert charts >= 1
    tab.open(path.as_uri())
    assert [url for url in tab.requests if not url.startswith(("data:", "blob:"))] == [path.as_uri()]
    assert tab.messages == []
    assert tab.run("document.querySelectorAll('.answer p').length") >= 1
    assert tab.run(
        """[...document.querySelectorAll('figure')].every(f => f.getBoundingClientRect().height > 200)"""
    )


def test_the_answer_of_ways_of_charging_names_the_cheapest_and_what_it_saves(folder_of):
    page = page_of([folder_of("managed-charging")])
    with xr.open_dataset(folder_of("managed-charging") / "study.nc") as study:
        cost = study["cost"].median("member").to_series().drop("oracle")
    assert cost.idxmin() == "tou"
    assert page.answer[0] == (
        f"Cost, wear included: lowest by tou, {cost['tou']:,.2f} USD, against {cost['uncontrolled']:,.2f} "
        "USD of uncontrolled."
    )
    said = texts(page)
    assert "aggregators.main: strategy: tou" in said
    assert "2 members were run." in said


@pytest.mark.slow
def test_the_answer_of_hosting_capacity_is_that_of_its_table(folder_of):
    page = page_of([folder_of("hosting-capacity")])
    with xr.open_dataset(folder_of("hosting-capacity") / "study.nc") as study:
        capacity = study["capacity"].sel(criterion="any").item()
    text = "at least 40 EVs" if capacity == 40 else "0 EVs" if capacity == 0 else "none"
    assert page.answer[0].startswith(f"Hosting capacity, uncontrolled: {text} at a risk of 5%")
    said = texts(page)
    assert "Not checked: unbalance (EN 50160): the result has no voltage_unbalance." in said


def test_limits_that_no_variant_breaks_are_said_to_be_kept(folder_of):
    page = page_of([folder_of("voltage-support")])
    with xr.open_dataset(folder_of("voltage-support") / "study.nc") as study:
        broken = bool(study["violates_en_50160_always"].any())
    sentence = next(s for s in page.answer if s.startswith("EN 50160 (always)"))
    assert broken != sentence.endswith("kept in all members by all variants.")


def test_survival_is_that_of_the_study(folder_of):
    page = page_of([folder_of("resilience")])
    with xr.open_dataset(folder_of("resilience") / "study.nc") as study:
        share = 100 * float(study["probability"].sel(group="all", duration=1).isel(variant=0))
    assert (
        f"An outage of 1 h that starts at any time is survived with a probability of {share:.1f} %"
        in page.answer[0]
    )


def test_variants_are_ranked_both_ways_without_bounds_and_unknown_ones():
    result = xr.Dataset(
        {"cost": (("variant", "member"), [[3.0, 3.0], [1.0, 2.0], [0.5, 0.5], [float("nan")] * 2])},
        {"variant": ["uncontrolled", "tou", "oracle", "failed"]},
    )
    part = Part(None, result, {})
    assert _ranked(part, Aim("cost")) == ["tou", "uncontrolled"]
    assert _ranked(part, Aim("cost", most=True)) == ["uncontrolled", "tou"]
    assert _ranked(part, Aim("other")) == []


def test_a_study_without_a_page_of_its_own_has_its_tables(tmp_path):
    folder = tmp_path / "new"
    folder.mkdir()
    attrs = {"format": "evgrid-something-1", "name": "new", "study": json.dumps({"name": "<b>new</b>"})}
    save_dataset(xr.Dataset({"a": ("x", [1.0])}, attrs=attrs), folder / "study.nc")
    (folder / "costs.csv").write_text("what,EUR\n<b>cable</b>,12.5\n")
    page = page_of([folder])
    assert "<b>cable</b>\n12.5" in texts(page)
    assert "<b>" not in html_of(page)
    with pytest.raises(ResultError, match=r"a report is of one study, or of results of runs"):
        page_of([folder, folder])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ResultError, match=r"empty holds no study: there is no study\.nc"):
        page_of([tmp_path / "empty"])


def said_of(part_of, tmp_path, **attrs):
    """The page of a Dataset as the study in a folder, checked to be drawn."""
    limits = {"limits": ["en_50160"], "risk": 0.05}
    given = {"name": "case", "remarks": "{}", "not_checked": '{"vuf": "vuf: the result has no such thing"}'}
    study = limits | attrs.pop("study", {})
    save_dataset(part_of.assign_attrs(given | attrs, study=json.dumps(study)), tmp_path / "study.nc")
    page = page_of([tmp_path])
    assert '<div class="chart">' in html_of(page)
    return page


def test_growth_says_from_which_year_a_limit_is_passed_and_where(tmp_path):
    over = xr.DataArray(
        [[[0, 0], [0, 0]], [[1, 0], [1, 0]], [[1, 1], [1, 0]]],
        {"year": [2026, 2030, 2035], "member": [0, 1], "place": ["line L1", "trafo <T>"]},
        ("year", "member", "place"),
    ).astype(bool)
    grown = xr.DataArray([[0, 5, 9.0]], {"quantity": ["EVs"], "year": over["year"]}, ("quantity", "year"))
    page = said_of(first_years(over, 0.05).assign(grown=grown), tmp_path, format="evgrid-growth-1")
    assert page.answer[0].startswith("Some limit of the feeder is passed from 2030")
    assert page.answer[1] == "The earliest is line L1, from 2030 on."
    assert "Not checked: unbalance (EN 50160): the result has no such thing." in texts(page)


def test_reinforcement_says_the_least_present_value_and_each_way(tmp_path):
    dims = ("control", "member")
    one = {
        "violated_before": True,
        "violated_after": False,
        "unserved_kwh": 0.0,
        "evs": 10.0,
        "member_cost": 900.0,
    }
    costs = {"control_cost": [0.0, 200.0], "set_cost": [1000.0, 300.0], "total_cost": [1000.0, 500.0],
             "least_bound": [1000.0, 300.0], "upper_cost": [1000.0, 300.0], "sets_examined": [3, 2],
             "by_voltage": [False, False], "measures": ["bigger trafo", "cable"],
             "upper_measures": ["", ""]}  # fmt: skip
    study = {"prices": {"name": "list", "source": "a book"}, "horizon_years": 30, "discount_rate": 0.05}
    data = {name: (dims, [[value] * 2] * 2) for name, value in one.items()}
    data |= {name: ("control", values) for name, values in costs.items()}
    result = xr.Dataset(data, {"control": ["uncontrolled", "V1G"], "member": [0, 1]})
    attrs = {
        "currency": "EUR",
        "candidates": "[{}]",
        "sections_left_out": 0,
        "format": "evgrid-reinforcement-1",
    }
    page = said_of(result, tmp_path, study=study, **attrs)
    assert (
        page.answer[0] == "The limits are restored at the least present value by V1G with cable: 500.00 EUR."
    )
    assert page.answer[1].startswith("uncontrolled: 1,000 EUR")


def test_present_values_that_are_0_or_bounds_are_not_said_to_be_unknown(tmp_path):
    names = ["as now", "V1G", "capped", "none"]
    nan, inf = np.nan, np.inf
    costs = {"control_cost": [0.0, 200.0, 50.0, 0.0], "set_cost": [1000.0, 0.0, nan, nan],
             "total_cost": [1000.0, 200.0, nan, nan], "least_bound": [1000.0, 0.0, 300.0, inf],
             "upper_cost": [nan, nan, 700.0, inf], "sets_examined": [3, 1, 9, 9], "by_voltage": [False] * 4,
             "measures": ["cable", "", "", ""], "upper_measures": ["", "", "cable; trafo", ""]}  # fmt: skip
    data = {name: ("control", values) for name, values in costs.items()}
    for name, value in {"violated_before": True, "violated_after": False, "unserved_kwh": 0.0,
                        "evs": 10.0, "member_cost": inf}.items():  # fmt: skip
        data[name] = (("control", "member"), [[value] * 2] * 4)
    result = xr.Dataset(data, {"control": names, "member": [0, 1]})
    study = {"prices": {"name": "list", "source": "a book"}, "horizon_years": 30, "discount_rate": 0.05}
    attrs = {
        "currency": "EUR",
        "candidates": "[{}]",
        "sections_left_out": 0,
        "format": "evgrid-reinforcement-1",
    }
    page = said_of(result, tmp_path, study=study, **attrs)
    assert page.answer[0].endswith("by V1G with no replacements: 200.00 EUR.")
    blocks = next(s for s in page.sections if s.title == "Present values side by side").blocks
    caption = next(block.caption for block in blocks if block.kind == "chart")
    assert "V1G: no replacements are needed." in caption
    assert "capped: the least set of replacements is not known" in caption
    assert "none: no set of replacements is known that restores the limits." in caption
    assert "as now" not in caption
    costs = next(block for block in blocks if block.kind == "table" and block.columns)
    assert costs.columns == ["", *names]
    assert not any("inf" in text.split() for row in costs.rows for text in row)


def test_too_few_deployments_are_said_and_how_many_are_enough():
    def said(members, risk=0.05):
        result = xr.Dataset(coords={"member": range(members)})
        return _too_few(Part(None, result, {"risk": risk, "confidence": 0.95}))

    (sentence,) = said(10)
    assert "even 0 of 10 with a violation may be up to 28 % of all" in sentence
    enough = int(sentence.rstrip(".").rsplit(" ", 1)[1])
    assert said(enough) == []
    assert said(enough - 1)
    assert said(10, 0.5) == []
