"""Settings of sites: what is accepted, and the sentence about what isn't."""

from __future__ import annotations

import json

import pytest

from evgrid.errors import ScenarioError
from evgrid.scenario import scenario_from
from evgrid.scenario.sites import CONTROLS, Site
from evgrid.sites.controls import Cost, Peak

PV = {"kwp": 5, "latitude": 52.5, "longitude": 13.4, "timezone": "Europe/Berlin"}
BATTERY = {"capacity_kwh": 10, "charge_kw": 5}
ALL = {"connections": "all"}


def scenario(sites, folder=".", **more):
    content = {
        "name": "sites",
        "time": {"start": "2026-06-01T00:00", "duration": "1h"},
        "feeder": {"network": "european_lv"},
        "sites": sites,
    }
    return scenario_from(content | more, folder=folder)


def test_a_home_with_everything_is_kept_by_a_result_and_read_again():
    given = scenario(
        {
            "homes": {
                "connections": {"share": 0.3}, "critical": {"share": 0.4}, "pv": PV, "battery": BATTERY,
                "generator": {"power_kw": 3, "fuel_hours": 8}, "breaker_a": 63, "backup": "critical",
                "interconnection": {"export_kw": 5}, "island": {"kva": 6},
                "control": {"strategy": "cost", "reserve_soc": 0.2, "forecast": "naive"},
            },
            "fridge": {"connections": "none", "circuits": {"fridge": {"kw": 0.1}}, "battery": BATTERY},
        },
        tariff="pge_ev2a",
    )  # fmt: skip
    again = scenario_from(json.loads(given.model_dump_json()))
    assert again.sites == given.sites
    assert isinstance(again.sites["homes"].control, Cost)
    assert again.sites["homes"].control.reserve_soc == 0.2


def test_an_override_chooses_another_control_as_a_whole():
    content = {
        "name": "sites", "time": {"start": "2026-06-01"}, "feeder": {"network": "european_lv"},
        "sites": {"homes": ALL | {"control": {"strategy": "cost", "horizon": "12h"}}},
    }  # fmt: skip
    found = scenario_from(content, {"sites.homes.control": {"strategy": "peak", "limit_kw": 4}})
    assert found.sites["homes"].control == Peak(limit_kw=4)
    assert scenario_from(content, {"sites.homes": None}).sites == {}


def test_every_control_has_its_name():
    for name in CONTROLS.names():
        assert CONTROLS.find(name).model_fields["strategy"].default == name


def test_circuits_are_served_critical_first_then_by_order_then_as_named():
    site = Site.model_validate(
        ALL
        | {
            "circuits": {
                "pool": {"share": 0.1, "order": 9},
                "oven": {"share": 0.2},
                "light": {"share": 0.1, "critical": True, "order": 1},
                "fridge": {"share": 0.1, "critical": True},
                "hob": {"share": 0.1},
            }
        }
    )
    assert list(site.parts) == ["fridge", "light", "oven", "hob", "pool"]


def test_the_black_start_takes_seconds_with_a_battery():
    assert Site.model_validate(ALL | {"battery": BATTERY}).black_start_s == 2.0
    assert Site.model_validate(ALL).black_start_s == 10.0
    assert (
        Site.model_validate(ALL | {"island": {"black_start": "1min"}, "backup": "whole"}).black_start_s
        == 60.0
    )


BAD = [
    ({"critical": {"share": 1.4}}, r"sites\.homes\.critical\.share = 1\.4: must be at most 1"),
    ({"critical": {"share": -0.1}}, r"sites\.homes\.critical\.share = -0\.1: must be at least 0"),
    ({"critical": {}}, r"sites\.homes\.critical: give one of share, kw and file"),
    ({"critical": {"kw": 1, "column": "a"}}, r"column: is of a file: give a file, or leave it out"),
    ({"critical": {"kw": 1}, "circuits": {"a": {"kw": 1}}}, r"give either critical or circuits"),
    ({"circuits": {"a": {"share": 0.7}, "b": {"share": 0.4}}}, r"circuits: the shares add up to 1\.1"),
    ({"load": {"kw": 1}, "critical": {"kw": 2}}, r"critical: 2 kW in all: must be at most load\.kw = 1"),
    ({"load": {}}, r"sites\.homes\.load: give either kw or file"),
    ({"load": "circuits", "circuits": {"a": {"share": 0.5}}}, r"circuits\.a: needs kw or file"),
    ({"pv": {"kwp": 5, "timezone": "Europe/Berlin"}}, r"pv: latitude and longitude are required"),
    ({"pv": PV | {"latitude": None}}, r"sites\.homes\.pv: give both latitude and longitude"),
    ({"pv": {"kwp": 5, "latitude": 1, "longitude": 2}}, r"sites\.homes\.pv\.timezone: is required"),
    ({"pv": PV | {"timezone": "Berlin"}}, r"pv\.timezone = Berlin: must be the name of a time zone"),
    ({"pv": PV | {"kwp": -1}}, r"pv\.kwp = -1: must be greater than 0"),
    ({"pv": PV | {"slot": "1s"}}, r"pv\.slot = 1s: must be at least 60"),
    ({"connections": "none", "count": 10**9, "load": {"kw": 1}}, r"count = 1000000000: must be at most"),
    ({"pv": PV | {"slot": "7min"}}, r"pv: slot = 420s: must divide a day"),
    ({"pv": PV | {"time_format": "%Y-%m-%d"}}, r"time_format is of a weather file"),
    ({"pv": PV | {"weather": "none.epw"}}, r"pv\.weather = none\.epw: there is no file"),
    ({"battery": BATTERY | {"charge_kw": 0}}, r"battery\.charge_kw = 0: must be greater than 0"),
    ({"battery": BATTERY | {"soc_start": 0.05}}, r"soc_start = 0\.05: must be at least soc_min = 0\.1"),
    ({"generator": {"power_kw": 5}}, r"generator: give either fuel_hours .* or fuel_kwh"),
    ({"breaker_a": -5}, r"breaker_a = -5: must be greater than 0"),
    ({"nominal_v": 120}, r"nominal_v = 120: has no meaning without breaker_a"),
    ({"discharge_order": "ev_first"}, r"discharge_order = ev_first: has no meaning without a battery"),
    ({"interconnection": {"export_kw": 3, "approval": "non_export"}}, r"export_kw is given without approval"),
    ({"backup": "critical", "battery": BATTERY}, r"backup = critical: needs critical, or a circuit"),
    ({"backup": "whole"}, r"backup = whole: needs a battery, a generator, or EVs that can discharge"),
    ({"backup": "whole", "pv": PV}, r"backup = whole: needs a battery, a generator, or EVs"),
    ({"backup": "whole", "battery": BATTERY, "island": {"former": "ev"}}, r"former = ev: needs EVs that can"),
    ({"backup": "whole", "battery": BATTERY, "island": {"former": "generator"}}, r"there is no generator"),
    ({"island": {"kva": 5}}, r"island has no meaning without backup"),
    ({"count": 3}, r"count is for sites off grid"),
    ({"evs_each": 2}, r"evs_each is for sites off grid"),
    ({"connections": ["LOAD1", "LOAD2", "LOAD1"]}, r"connections: LOAD1 is there twice"),
    ({"connections": []}, r"sites\.homes\.connections: .*at least 1"),
    ({"connections": {"share": 0}}, r"connections\.share = 0: must be greater than 0"),
    ({"connections": {"share": 0.5, "with_ev": True}}, r"connections\.with_ev: there is no fleet"),
    ({"connections": "some"}, r"connections = some: must be 'all' or 'none'"),
    ({"connections": "none"}, r"load is required off grid"),
    ({"connections": "none", "load": {"kw": 1}}, r"a site off grid needs a battery, a generator, or EVs"),
    ({"connections": "none", "load": {"kw": 1}, "breaker_a": 16}, r"breaker_a has no meaning without"),
    ({"control": "thrifty"}, r"control\.strategy = thrifty: must be one of cost, peak, requests"),
    ({"control": "cost"}, r"control\.strategy = cost: needs a tariff or system\.energy_price"),
    ({"control": "peak"}, r"control\.strategy = peak: needs limit_kw, or a tariff with a demand charge"),
    ({"control": "reserve"}, r"sites\.homes\.control: needs reserve_soc above 0, or storms"),
    ({"control": {"strategy": "cost", "every": "7min"}}, r"every = 420s: must be a multiple of slot"),
    ({"control": {"strategy": "peak", "limit_kw": 1, "slot": 3}}, r"control\.slot: unknown key"),
    ({"control": {"strategy": "peak", "limit_kw": 1, "horizon": "3h"}},
     r"control: horizon has no meaning with limit_kw"),
    ({"control": 3}, r"control = 3: must be a name such as self_consumption"),
    ({"batery": BATTERY}, r"sites\.homes\.batery: unknown key; did you mean 'battery'\?"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "sentence"), BAD, ids=[sentence for _, sentence in BAD])
def test_bad_input_gets_one_sentence(change, sentence):
    with pytest.raises(ScenarioError, match=sentence) as caught:
        scenario({"homes": ALL | change})
    assert len(caught.value.faults) == 1


STORM = {"warning": "2026-06-01T06:00", "begin": "2026-06-01T12:00", "end": "2026-06-02T00:00", "soc": 0.9}


def test_a_storm_is_in_order():
    with pytest.raises(ScenarioError, match=r"storms\.0: warning, begin and end must follow in this order"):
        scenario(
            {"homes": ALL | {"control": {"strategy": "requests", "storms": [STORM | {"end": "2026-06-01"}]}}}
        )


@pytest.mark.parametrize(
    ("sites", "sentence"),
    [
        (
            {"a": {"connections": ["LOAD1"]}, "b": {"connections": ["LOAD2", "LOAD1"]}},
            r"sites: a and b both have the connection LOAD1: a connection point has one site",
        ),
        (
            {"a": {"connections": {"share": 0.7}}, "b": ALL},
            r"sites: the shares of the connections of a, b add up to 1\.7: must be at most 1",
        ),
        ({"a b": ALL}, r"sites: a b can't be a name"),
        ({"a": 3}, r"sites\.a = 3: must be a mapping"),
        (["a"], r"sites: must be a mapping of names to groups of sites"),
    ],
)
def test_groups_that_do_not_fit_together(sites, sentence):
    with pytest.raises(ScenarioError, match=sentence) as caught:
        scenario(sites)
    assert len(caught.value.faults) == 1


def test_backup_by_evs_needs_bidirectional_chargers():
    fleet = {"penetration": 1.0, "charger": {"bidirectional": 0}}
    with pytest.raises(
        ScenarioError, match=r"EVs that can discharge \(fleet\.charger\.bidirectional above 0\)"
    ):
        scenario({"homes": ALL | {"backup": "whole"}}, fleet=fleet)
    fleet["charger"]["bidirectional"] = 0.1
    assert scenario({"homes": ALL | {"backup": "whole"}}, fleet=fleet).sites


def test_all_faults_are_reported_at_once():
    with pytest.raises(ScenarioError) as caught:
        scenario({"a": ALL | {"breaker_a": 0, "pv": {"kwp": 0}}, "b": {}})
    assert len(caught.value.faults) == 4
