"""Names of elements as a user writes them: in any case, with a hint where there is none."""

import numpy as np
import pytest
from tests.unit.test_opendss_network import SPLIT

import evgrid
from evgrid.core.element_names import ElementNames
from evgrid.errors import ScenarioError
from evgrid.runs.simulation import build_world
from evgrid.scenario import scenario_from


def test_a_name_in_other_capitals_is_found_where_only_one_fits():
    names = ElementNames(["reg1", "Load A", "load a", " xfm "])
    assert [names.place(name) for name in ("REG1", "Load A", "load a", "XFM", "reg2")] == [0, 1, 2, 3, -1]
    assert names.place("LOAD A") == -1  # which of the two?
    assert names.places(["reg1", "nowhere"]).tolist() == [0, -1]


def test_hints():
    assert ElementNames(["reg1", "xfm1"]).hint("Reg_1") == "did you mean reg1?"
    assert ElementNames(["a", "b"]).hint("transformer") == "it has a, b"
    assert ElementNames([]).hint("x") == "it has none"
    assert ElementNames(map(str, range(7))).hint("x") == "it has 0, 1, 2, 3, 4, … (7 in all)"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "net.dss").write_text(SPLIT)
    (tmp_path / "sessions.csv").write_text(
        "ev,connection,arrival,departure,energy_kwh\na,OVEN,600,3600,2\nb,Shop,600,3600,2\n"
    )
    (tmp_path / "load.csv").write_text("time,LEG,Oven,shop,SINGLE\n0,1,2,3,4\n3600,1,2,3,4\n")
    return tmp_path


def scenario(folder, sessions="sessions.csv", **sections):
    content = {
        "name": "names",
        "time": {"start": "2026-07-01T00:00", "duration": "2h", "step": "10min"},
        "feeder": {"network": "net.dss", "base_load": {"source": "net"}},
        "fleet": {"sessions": {"file": sessions}, "charger": {"power_kw": 3.6}},
        "aggregators": {"main": {"strategy": "uncontrolled"}},
    }
    return scenario_from(content | sections, folder=folder)


def feeder(**settings):
    return {"feeder": {"network": "net.dss", "base_load": {"source": "net"}, **settings}}


ANY_CASE = {
    "sessions": {},
    "outages": {"outages": [{"start": "1h", "duration": "10min", "out": "line DROP"},
                            {"start": "1h", "duration": "10min", "out": "trafo T"},
                            {"start": "30min", "duration": "10min", "out": {"connections": ["Leg"]}}]},
    "record": {"record": {"buses": ["HOME"], "lines": ["Main"], "trafos": ["T3"], "shunts": ["CAP"]}},
    "aggregators": {"aggregators": {"main": {"strategy": "uncontrolled", "evs": {
        "connections": ["OVEN", "Shop"], "transformers": ["T", "T3"]}}}},
    "sites": {"sites": {"homes": {"connections": ["OVEN"], "pv": {"kwp": 3, "latitude": 40,
        "longitude": -100, "timezone": "America/Chicago"}}}},
    "households": feeder(households={"by_load": {"SHOP": 0, "Leg": 2}}),
    "base load": feeder(base_load={"file": "load.csv"}),
    "ageing": feeder(transformer_ageing={"ambient": 20, "transformer": {
        "T": {"top_oil_rise_k": 55}, "T3": {"top_oil_rise_k": 50}}}),
}  # fmt: skip


@pytest.mark.parametrize("where", ANY_CASE)
def test_names_in_any_case(where, folder):
    result = evgrid.run(scenario(folder, **ANY_CASE[where]))
    assert result["ev_connection"].values.tolist() == ["oven", "shop"]
    if where == "households":
        assert result["connection_households"].values.tolist() == [2, 1, 0, 1]
    if where == "base load":
        np.testing.assert_allclose(result["base_load_kw"], 10.0, atol=3.0)  # of model 5 at its voltage
    if where == "record":
        assert [result[dim].values.tolist() for dim in ("bus", "line", "trafo")] == [
            ["home"],
            ["main"],
            ["t3"],
        ]
    if where == "outages":
        assert result["interrupted_min"].values.tolist() == [[20.0, 10.0, 0.0, 0.0]]


MISSES = {
    "outage of a line": ({"outages": [{"start": "1h", "duration": "1h", "out": "line Mian"}]},
        "the network has no line Mian; did you mean main?"),
    "record": ({"record": {"buses": ["HOMES"]}}, "record.buses = HOMES: .* no such bus; did you mean home?"),
    "aggregators": ({"aggregators": {"main": {"strategy": "uncontrolled", "evs": {"transformers": ["T2"]}}}},
        "no transformer T2; did you mean t"),
    "sites": ({"sites": {"homes": {"connections": ["OVENS"]}}},
        "no connection point OVENS; did you mean oven?"),
    "households": (feeder(households={"by_load": {"SHOPS": 0}}), "no such load; did you mean shop?"),
    "at": ({"fleet": {"count": 1, "at": "Ovn"}}, "no connection point Ovn; did you mean oven?"),
    "ageing": (feeder(transformer_ageing={"ambient": 20, "transformer": {"T4": {"top_oil_rise_k": 55}}}),
        "transformer.T4: the network has no such transformer; did you mean t"),
}  # fmt: skip


@pytest.mark.parametrize("where", MISSES)
def test_a_miss_gives_a_hint(where, folder):
    sections, sentence = MISSES[where]
    with pytest.raises(ScenarioError, match=sentence.replace("?", r"\?")):
        evgrid.run(scenario(folder, **sections))


def test_a_column_of_a_load_file_that_is_missed_and_one_given_twice(folder):
    (folder / "load.csv").write_text("time,LEG,leg,Oven,shops,SINGLE\n0,1,1,2,3,4\n")
    with pytest.raises(ScenarioError) as caught:
        build_world(scenario(folder, **ANY_CASE["base load"]))
    assert "column 'shops': there is no such load in the net; did you mean shop?" in str(caught.value)
    assert "columns 'LEG' and 'leg' are of the same load; give one" in str(caught.value)
