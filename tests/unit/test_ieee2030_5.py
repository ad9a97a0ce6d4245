# ruff: noqa: E501
"""DERControls and DERCurves of IEEE 2030.5: modes, primacy, status, randomisation, curves, faults; and a run."""

import sys
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from py20305.models.sep import sep
from py20305.xml.serialization import from_xml
from tests.support.ieee2030_5 import SEP, control, controls, curve, default, programs, watts
from xsdata_pydantic.bindings import JsonSerializer

import evgrid
from evgrid.core.model import Clock
from evgrid.errors import ScenarioError
from evgrid.readers.ieee2030_5 import DerRules, functions_of, read_controls
from evgrid.scenario import scenario_from
from evgrid.scenario.inverter_functions import LocalFunctions

CLOCK = Clock(np.datetime64("2026-01-15T00:00"), 900.0, 96)


@pytest.fixture
def read(tmp_path):
    """The signals of documents, in UTC."""

    def signals(*documents, **more):
        paths = []
        for number, text in enumerate(documents):
            paths.append(tmp_path / f"{number}.xml")
            paths[-1].write_text(text)
        return read_controls(paths, DerRules(ZoneInfo("UTC"), CLOCK, **more))

    return signals


def hours(winners):
    return [(begin / 3600, end / 3600, block.value) for begin, end, block in winners]


# ---- modes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("base", "found"),
    [
        (watts("opModTargetW", 5), [("power", -5)]),
        (watts("opModTargetW", -5), [("power", 5)]),
        (watts("opModExpLimW", 3), [("export_limit", 3)]),
        (watts("opModGenLimW", 3), [("export_limit", 3)]),
        (watts("opModImpLimW", 4), [("import_limit", 4)]),
        (watts("opModLoadLimW", 0), [("import_limit", 0)]),
        ("<opModFixedW>5000</opModFixedW>", [("power", -10)]),
        ("<opModFixedW>-2500</opModFixedW>", [("power", 10)]),
        ("<opModMaxLimW>7500</opModMaxLimW>", [("export_limit", 15)]),
        ("<opModConnect>false</opModConnect>", [("import_limit", 0), ("export_limit", 0)]),
        ("<opModEnergize>false</opModEnergize>", [("import_limit", 0), ("export_limit", 0)]),
        ("<opModConnect>true</opModConnect>", []),
    ],
)
def test_control_modes(read, base, found):
    signals = read(controls(control("01", "2026-01-15T06:00", 3600, base)), discharge_kw=20, charge_kw=40)
    assert [(b.kind, pytest.approx(b.value), b.begin_s, b.end_s) for b in signals.blocks] == [
        (kind, value, 21600, 25200) for kind, value in found
    ]
    assert signals.notes == ()


def test_modes_that_are_not_followed_are_said(read):
    base = "<opModFixedV>100</opModFixedV>" + watts("opModTargetW", 1)
    assert read(controls(control("01", "2026-01-15T06:00", 3600, base))).notes == (
        "controls of IEEE 2030.5: not used are opModFixedV (1)",
    )


# ---- rules ------------------------------------------------------------------------------------------


def test_the_lowest_primacy_wins_then_the_one_created_last_then_the_default(read):
    low = control("01", "2026-01-15T06:00", 4 * 3600, watts("opModImpLimW", 10), program=0)
    high = control("02", "2026-01-15T07:00", 3600, watts("opModImpLimW", 20), program=1)
    late = control(
        "03", "2026-01-15T09:00", 1800, watts("opModImpLimW", 30), created="2026-01-15T01:00", program=0
    )
    documents = [
        programs(5, 2), controls(low, late), controls(high, program=1), default(watts("opModImpLimW", 99)),
    ]  # fmt: skip
    for order in (documents, documents[::-1]):
        winners = read(*order).known(3600.0).winners("import_limit")
        assert hours(winners)[1:-1] == [(6, 7, 10), (7, 8, 20), (8, 9, 10), (9, 9.5, 30), (9.5, 10, 10)]
        assert winners[0][2].value == winners[-1][2].value == 99


@pytest.mark.parametrize(("status", "end"), [(0, 10), (1, 10), (2, 8), (4, 8), (5, 10)])
def test_a_cancelled_or_superseded_control_ends_at_its_status(read, status, end):
    given = control(
        "01", "2026-01-15T06:00", 4 * 3600, watts("opModImpLimW", 10), status=status, since="2026-01-15T08:00"
    )
    assert hours(read(controls(given)).actual("import_limit")) == [(6, end, 10)]


def test_a_control_is_known_from_its_creation_and_its_last_copy_counts(read):
    base = watts("opModTargetW", 1)
    first = control("01", "2026-01-15T06:00", 4 * 3600, base, created="2026-01-15T05:00")
    then = control(
        "01",
        "2026-01-15T06:00",
        4 * 3600,
        base,
        created="2026-01-15T05:00",
        status=2,
        since="2026-01-15T07:00",
    )
    signals = read(controls(then), controls(first))
    assert signals.known(0.0).blocks == ()
    assert hours(signals.known(5 * 3600.0).winners("power")) == [(6, 10, -1)]
    assert hours(signals.actual("power")) == [(6, 7, -1)]


@settings(max_examples=30)
@given(st.integers(-3600, 3600), st.integers(-3600, 3600), st.integers(0, 2**31))
def test_random_starts_and_durations_lie_in_their_ranges(tmp_path_factory, start, duration, seed):
    path = tmp_path_factory.mktemp("der") / "c.xml"
    more = f"<randomizeDuration>{duration}</randomizeDuration><randomizeStart>{start}</randomizeStart>"
    path.write_text(
        controls(control("01", "2026-01-15T06:00", 4 * 3600, watts("opModTargetW", 1), more=more))
    )
    [block] = read_controls([path], DerRules(ZoneInfo("UTC"), CLOCK, seed)).blocks
    shift, longer = block.begin_s - 6 * 3600, block.end_s - block.begin_s - 4 * 3600
    assert min(0, start) - 1e-3 <= shift <= max(0, start) + 1e-3
    assert min(0, duration) - 1e-3 <= longer <= max(0, duration) + 1e-3


def test_json_is_read_as_xml(read, tmp_path):
    text = controls(control("0A", "2026-01-15T06:00", 3600, watts("opModTargetW", 2)))
    path = tmp_path / "c.json"
    path.write_text(
        f'{{"DERControlList": {JsonSerializer().render(from_xml(text.encode(), sep.DercontrolList))}}}'
    )
    found = read_controls([path], DerRules(ZoneInfo("UTC"), CLOCK))
    assert found.blocks == read(text).blocks


# ---- faults -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("documents", "message"),
    [
        (["<DERControlList"], "is no valid resource of IEEE 2030.5"),
        ([f"<DERControlList {SEP}><foo/></DERControlList>"], "is no valid resource of IEEE 2030.5"),
        ([f"<Tariff {SEP}/>"], "holds Tariff: must hold one of DERProgramList, DERProgram"),
        ([controls(control("01", "2026-01-15T06:00", 1, "<opModFixedW>100</opModFixedW>"))],
         "DERControl 01: opModFixedW is in percent: needs discharge_kw"),
        ([controls(control("01", "2026-01-15T06:00", 1, "<opModFixedW>-100</opModFixedW>"))],
         "DERControl 01: opModFixedW is in percent: needs charge_kw"),
        ([controls(control("01", "2026-01-15T06:00", 1, watts("opModImpLimW", -1)))],
         "DERControl 01: opModImpLimW = -1 kW: must be at least 0"),
        ([programs(1), controls(control("01", "2026-01-15T06:00", 1, "", program=7), program=7)],
         "DERControl 01: href = /derp/7/derc/01: is of none of the programs"),
        ([""], "is no valid resource of IEEE 2030.5: Document is empty"),
        ([controls().replace("urn:ieee:std:2030.5:ns", "urn:ns")],
         "namespace of DERControlList = urn:ns: must be urn:ieee:std"),
        ([controls(control("01", "2026-01-15T06:00", 1, watts("opModTargetW", 1).replace("100", "1.5")))],
         "ActivePowerControlType.value = 1.5: input should be a valid integer"),
        ([controls(control("01", "2026-01-15T06:00", 1,
                           "<opModTargetW><multiplier>99</multiplier><value>-1</value></opModTargetW>"))],
         r"DERControl 01: opModTargetW = -1e\+96 kW: must be at most 1e\+09, of either sign"),
        ([controls(control("01", "2026-01-15T06:00", 1, "<opModFixedW>-10100</opModFixedW>"))],
         "DERControl 01: opModFixedW = -101 %: must be from -100 to 100"),
        ([controls(control("01", "2026-01-15T06:00", 1, "", more="<randomizeStart>3601</randomizeStart>"))],
         "DERControl 01: randomizeStart = 3601 s: must be from -3600 to 3600"),
        ([controls(control("01", "9999-12-31T00:00", 1, ""))],
         r"DERControl 01: interval.start = 2.53402e\+11 s from 1970: must be from 0 to 7e\+09"),
        ([controls(control("01", "2026-01-15T06:00", 1, "", created="9999-12-31T00:00"))],
         r"DERControl 01: creationTime = 2.53402e\+11 s from 1970: must be from 0 to 7e\+09"),
    ],
)  # fmt: skip
def test_faults(read, documents, message):
    with pytest.raises(ScenarioError, match=message):
        read(*documents)


@pytest.mark.parametrize("content", ["null", "5", "[]", '"x"'])
def test_json_that_is_no_object_is_refused(tmp_path, content):
    path = tmp_path / "c.json"
    path.write_text(f'{{"DERControlList": {content}}}')
    with pytest.raises(
        ScenarioError, match="is no valid resource of IEEE 2030.5: DERControlList is no object"
    ):
        read_controls([path], DerRules(ZoneInfo("UTC"), CLOCK))


@pytest.mark.parametrize(
    ("start", "begin_h", "end_h"),
    [
        ("2026-03-29T00:30", 1.5, 3.5),  # 01:30 CET to 03:30 CEST
        ("2026-10-25T00:30", 2.5, 3.0),  # 02:30 CEST to 02:30 CET: the hour that comes twice counts once
        ("2026-10-25T01:30", 3.0, 3.5),
    ],
)
def test_times_pass_the_changes_of_the_clock(tmp_path, start, begin_h, end_h):
    path = tmp_path / "c.xml"
    path.write_text(controls(control("01", start, 3600, watts("opModTargetW", 1))))
    clock = Clock(np.datetime64(f"{start[:10]}T00:00"), 900.0, 96)
    [block] = read_controls([path], DerRules(ZoneInfo("Europe/Berlin"), clock)).blocks
    assert (block.begin_s, block.end_s) == (3600 * begin_h, 3600 * end_h)


def test_a_record_at_fault_is_named(tmp_path):
    path = tmp_path / "came.jsonl"
    path.write_text('{"resources": []}')
    with pytest.raises(ScenarioError, match="line 1: must be an object with receivedDateTime and resources"):
        read_controls([path], DerRules(ZoneInfo("UTC"), CLOCK))


def test_without_the_extra_its_name_is_said(read, monkeypatch):
    monkeypatch.setitem(sys.modules, "py20305.xml.serialization", None)
    with pytest.raises(ScenarioError, match=r"needs the package py20305: pip install 'evgrid\[ieee2030_5\]'"):
        read(programs(1))


# ---- curves -----------------------------------------------------------------------------------------


def functions(tmp_path, *documents, most_var=100.0):
    paths = []
    for number, text in enumerate(documents):
        paths.append(tmp_path / f"{number}.xml")
        paths[-1].write_text(text)
    return functions_of(paths, most_var), paths


def test_the_curve_of_category_b_is_the_shipped_one(tmp_path):
    """Table 8 of IEEE 1547-2018: 44 % of rated apparent power is setMaxVar."""
    points = [(9200, 10000), (9800, 0), (10200, 0), (10800, -10000)]
    text = curve(11, points, reference=2, x_power=-2, y_power=-2, more="<openLoopTms>500</openLoopTms>")
    found, paths = functions(tmp_path, text, most_var=44.0)
    given = LocalFunctions.model_validate({"curves": {"files": [str(p) for p in paths], "most_var": 44}})
    assert found == {"volt_var": {"points": [(0.92, 44), (0.98, 0), (1.02, 0), (1.08, -44)], "response_s": 5}}
    standard = LocalFunctions(volt_var="ieee_1547_b")
    assert given.volt_var is not None
    assert [tuple(p) for p in given.volt_var.points] == [(0.92, 44), (0.98, 0), (1.02, 0), (1.08, -44)]
    assert given.model_copy(update={"volt_var": None}) == standard.model_copy(update={"volt_var": None})


def test_volt_watt_watt_var_and_droop(tmp_path):
    droop = "<opModFreqDroop><dBOF>36</dBOF><dBUF>36</dBUF><kOF>50</kOF><kUF>40</kUF><openLoopTms>500</openLoopTms></opModFreqDroop>"
    found, _ = functions(
        tmp_path,
        curve(12, [(106, 100), (110, 0)], reference=1),
        curve(14, [(-100, 25), (-50, 0), (50, 0), (100, -25)], reference=8),
        default(droop),
    )
    assert found == {
        "volt_watt": {"points": [(1.06, 100), (1.10, 0)]},
        "watt_var": {"points": [(-100, 25), (-50, 0), (50, 0), (100, -25)]},
        "frequency_watt": {"droop_over": 0.05, "droop_under": 0.04, "deadband_hz": 0.036, "response_s": 5.0},
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (curve(5, [(0, 120), (1, 110)], 0), "curveType = 5: must be 11"),
        (curve(11, [(90, 10), (110, -10)], 3), r"yRefType = 3: must be 1 \(%setMaxW\), 2"),
        (curve(12, [(90, 10), (110, 0)], 2), "yRefType = 2: must be 1"),
    ],
)
def test_curves_at_fault(tmp_path, text, message):
    with pytest.raises(ScenarioError, match=message):
        functions(tmp_path, text)


def test_two_deadbands_and_two_curves_of_a_kind_are_refused(tmp_path):
    droop = "<opModFreqDroop><dBOF>36</dBOF><dBUF>20</dBUF><kOF>50</kOF><kUF>40</kUF><openLoopTms>500</openLoopTms></opModFreqDroop>"
    with pytest.raises(ScenarioError, match="dBOF = 36 and dBUF = 20: must be the same"):
        functions(tmp_path, default(droop))
    with pytest.raises(ScenarioError, match="is a second volt_watt: give one"):
        functions(tmp_path, curve(12, [(106, 100), (110, 0)], 1), curve(12, [(105, 100), (110, 0)], 1))


def test_a_function_is_given_once(tmp_path):
    _, paths = functions(tmp_path, curve(12, [(106, 100), (110, 0)], reference=1))
    given = {"curves": {"files": [str(paths[0])]}, "volt_watt": "ieee_1547_b"}
    with pytest.raises(ValueError, match="volt_watt: is given by curves, too: give one"):
        LocalFunctions.model_validate(given)


# ---- in a run ---------------------------------------------------------------------------------------


def test_controls_are_followed_in_a_run(tmp_path):
    """Two EVs of 11 kW that may discharge: import limit 6 kW, then 10 kW given with an export limit of 4 kW."""
    (tmp_path / "s.csv").write_text(
        "ev,connection,arrival,departure,energy_kwh,capacity_kwh,charge_kw,discharge_kw\n"
        "a,Load R11,2026-01-15T17:55,2026-01-16T06:00,11,60,11,11\n"
        "b,Load R15,2026-01-15T17:55,2026-01-16T06:00,22,60,11,11\n"
    )
    (tmp_path / "c.xml").write_text(
        controls(
            control("01", "2026-01-15T18:00", 1800, watts("opModImpLimW", 6)),
            control("02", "2026-01-15T18:30", 3600, watts("opModTargetW", 10)),
            control("03", "2026-01-15T19:00", 1800, "<opModMaxLimW>2000</opModMaxLimW>"),
        )
    )
    content = {
        "name": "der",
        "time": {"start": "2026-01-15T17:30", "duration": "2h", "step": "5min"},
        "feeder": {"network": "cigre_lv", "base_load": {"source": "none"}},
        "fleet": {"sessions": {"file": "s.csv"}, "charger": {"phases": 3, "power_kw": 11}},
        "aggregators": {"main": {"strategy": "scheduled", "emissions_price": 10}},
        "communication": {"telemetry": "5min"},
        "system": {
            "emissions": {"file": "co2.csv"},
            "ieee2030_5": {
                "files": ["c.xml"],
                "timezone": "UTC",
                "discharge_kw": 20,
                "targets": ["main"],
                "limits_of": "evs",
            },
        },
    }
    (tmp_path / "co2.csv").write_text("time,a\n0,100\n3600,100\n")
    power = evgrid.run(scenario_from(content, folder=tmp_path))["fleet_power_kw"].isel(member=0).values
    at = {time: power[round((time - 17.5) * 12)] for time in (18.25, 18.75, 19.25)}
    assert at == pytest.approx({18.25: 6, 18.75: -10, 19.25: -4})
