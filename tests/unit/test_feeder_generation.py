"""What generators and storages give under profiles of the load, and what profiles are scaled to."""

import re

import numpy as np
import pandapower as pp
import pytest

from evgrid.errors import ScenarioError
from evgrid.feeder.base_load import base_load, base_load_notes, load_by_trafo
from evgrid.feeder.describe import describe_network
from evgrid.feeder.networks import load_network
from evgrid.runs.simulation import build_world, run
from evgrid.scenario import scenario_from
from evgrid.scenario.feeder import Households

NIGHT, NOON = np.array([0.0]), np.array([12 * 3600.0])


@pytest.fixture
def net(tmp_path):
    """A house of 3 kW with 20 kW of PV and a battery that draws 5 kW, a motor of 4 kW beside."""
    net = pp.create_empty_network(f_hz=50)
    mv, lv = pp.create_bus(net, 10.0), pp.create_bus(net, 0.4)
    pp.create_ext_grid(net, mv)
    pp.create_transformer_from_parameters(net, mv, lv, 0.1, 10.0, 0.4, 1.0, 4.0, 0.0, 0.0, shift_degree=150.0)
    pp.create_load(net, lv, 0.003, name="house")
    pp.create_sgen(net, lv, 0.02, q_mvar=-0.004, name="roof")
    pp.create_storage(net, lv, 0.005, max_e_mwh=0.01, name="battery")
    pp.create_motor(net, lv, pn_mech_mw=0.004, cos_phi=1.0, efficiency_percent=100, name="pump")
    path = tmp_path / "net.json"
    pp.to_json(net, str(path))
    return path


def scenario(net, hours=24, **base):
    return scenario_from(
        {
            "name": "roof",
            "time": {"start": "2026-01-12T00:00", "duration": f"{hours}h", "step": "1h"},
            "feeder": {"network": str(net), "base_load": base},
        }
    )


def given(net, times_s=NOON, **base):
    """Active power of roof, battery and pump."""
    settings = scenario(net, **base)
    network = load_network(settings.feeder)
    found = base_load(settings, network).generation(times_s)
    return network.grid.fixed.gen_p_kw[:, 0].tolist() if found is None else found[0][0, 0, :, 0].tolist()


def test_nothing_runs_at_its_nameplate_through_the_night_unasked(net):
    sentence = (
        f"feeder.base_load.generation is not given: {net} has 1 generator of 20 kW and 1 storage of -5 kW "
        "without a profile, which would run day and night; must be none, nameplate or {file: pv.csv}, "
        "or give them feeder.profiles"
    )
    for base in ({}, {"source": "none"}, {"source": "standard", "annual_kwh": 5000}):
        with pytest.raises(ScenarioError, match=re.escape(sentence)):
            build_world(scenario(net, **base))  # so validate says it, too


def test_none_leaves_generators_and_storages_at_zero_and_motors_alone(net):
    assert given(net, generation="none") == [0, 0, -4]
    result = run(scenario(net, hours=3, source="none", generation="none"))
    assert result["base_load_kw"].values.tolist() == [pytest.approx([4, 4, 4])]
    world = build_world(scenario(net, generation="none"))
    assert "feeder.base_load: 1 generator of 20 kW and 1 storage of -5 kW in the network, left at 0." in (
        world.notes
    )
    assert "feeder.base_load: 1 motors and wards of the network draw 4 kW, day and night." in world.notes


def test_nameplate_and_the_snapshot_of_the_net(net):
    assert given(net, NIGHT, generation="nameplate") == [20, -5, -4]
    assert given(net, NIGHT, source="net") == [20, -5, -4]
    assert given(net, NIGHT, source="net", generation="none") == [0, 0, -4]
    told = build_world(scenario(net, source="net")).notes[-1]
    assert told == (
        "feeder.base_load: 1 generator of 20 kW and 1 storage of -5 kW as the network has it, day and night."
    )


def daily(path, **columns):
    """A file by minute of the day: 0 but from 11:00 to 13:00."""
    minute = np.arange(1, 1441)
    sunny = (minute > 660) & (minute <= 780)
    rows = [",".join(["minute", *columns])]
    rows += [
        ",".join([str(m), *(str(kw if s else 0) for kw in columns.values())])
        for m, s in zip(minute, sunny, strict=True)
    ]
    path.write_text("\n".join(rows) + "\n")
    return {"file": str(path)}


def test_a_load_without_households_is_named_with_its_power(net):
    settings = scenario(net, source="standard", generation="none")
    for households, kw in ((0, "house (3 kW)"), (1, "")):
        given = settings.feeder.model_copy(update={"households": Households(by_load={"house": households})})
        one = settings.model_copy(update={"feeder": given})
        network = load_network(given)
        notes = [
            n for n in base_load_notes(one, network, base_load(one, network)) if "without households" in n
        ]
        assert len(notes) == bool(kw)
        assert not kw or f"without a load: {kw}; feeder.customers or feeder.profiles" in notes[0]


def test_a_summary_of_a_network_names_generation_without_a_profile(net):
    for base, said in (
        ({}, True),
        ({"source": "standard"}, True),
        ({"source": "net"}, False),
        ({"generation": "none"}, False),
    ):
        found = describe_network(scenario(net, **base).feeder).missing
        text = "power over time of 1 generator of 20 kW and 1 storage of -5 kW: a run refuses it without"
        assert any(one.startswith(text) for one in found) == said


def test_a_file_has_a_column_for_each_in_kw(net, tmp_path):
    file = daily(tmp_path / "pv.csv", roof=15, battery=-3)
    assert given(net, NIGHT, generation=file) == [0, 0, -4]
    assert given(net, NOON, generation=file) == pytest.approx([15, -3, -4])
    settings = scenario(net, generation=file)
    reactive = base_load(settings, load_network(settings.feeder)).generation(NOON)[1][0, 0, :, 0]
    assert reactive.tolist() == pytest.approx([-3, 0, 0])  # as 20 kW have -4 kvar
    by_trafo = load_by_trafo(
        scenario(net, source="none", generation=file), load_network(settings.feeder), NOON
    )
    assert by_trafo[0, :, 0] == pytest.approx([-15 + 3 + 4, 0])


def test_a_file_with_a_share_is_of_the_generators_alone(net, tmp_path):
    file = daily(tmp_path / "pv.csv", share=0.5)
    assert given(net, NOON, generation=file) == pytest.approx([10, 0, -4])
    assert given(net, NIGHT, generation=file) == [0, 0, -4]


def test_a_file_without_one_of_them_is_refused(net, tmp_path):
    file = daily(tmp_path / "pv.csv", roof=15)
    with pytest.raises(
        ScenarioError, match="column 'battery' is missing: must have one for each generator and"
    ):
        build_world(scenario(net, generation=file))


def test_it_splits_over_the_phases_as_the_network_does(tmp_path):
    path = tmp_path / "net.json"
    net = pp.create_empty_network()
    bus = pp.create_bus(net, 0.4)
    pp.create_ext_grid(net, bus)
    pp.create_asymmetric_load(net, bus, p_a_mw=0.001, type="wye", name="house")
    pp.create_asymmetric_sgen(net, bus, p_b_mw=0.002, p_c_mw=0.006, type="wye", name="roof")
    pp.to_json(net, str(path))
    settings = scenario(path, generation=daily(tmp_path / "pv.csv", roof=4))
    power = base_load(settings, load_network(settings.feeder)).generation(NOON)[0]
    assert power[0, 0, 0].tolist() == pytest.approx([0, 1, 3])


def test_a_generator_that_holds_a_voltage_has_a_profile_and_holds_it_without_power(net, tmp_path):
    feeder = pp.from_json(str(net))
    pp.create_gen(feeder, 1, 0.010, vm_pu=1.01, name="mill")
    pp.to_json(feeder, str(net))
    assert given(net, generation=daily(tmp_path / "pv.csv", share=0.5)) == pytest.approx([10, 0, -4, 5])
    file = daily(tmp_path / "pv.csv", roof=15, battery=-3, mill=8)
    for generation, noon_kw in ((file, -15 + 3 + 4 - 8), ("none", 4)):
        result = run(scenario(net, hours=13, source="none", generation=generation))
        assert result["base_load_kw"].values[0, 12] == pytest.approx(noon_kw)
        assert result["voltage_pu"].values[0, :, 1, 0] == pytest.approx(1.01, abs=1e-6)  # recorded in 32 bits
        assert "1 of the network's gens hold the voltage of their buses by" in result.attrs["notes"]


# ---- what profiles stand for


def test_scaled_to_the_net_a_load_reaches_its_own_power_in_the_highest_quarter_hour():
    from demandlib.bdew import ElecSlp

    # 18 loads of the CIGRE MV network, 44.7 MW; the profile's highest quarter-hour of 2026 by hand
    plain, scaled = (
        scenario_from(
            {
                "name": "mv",
                "time": {"start": "2026-01-12T00:00", "duration": "24h", "step": "15min"},
                "feeder": {
                    "network": "cigre_mv", "households": {"kw_each": 2.0}, "base_load": {"scale": scale},
                },
            }
        )
        for scale in ("households", "net")
    )  # fmt: skip
    network = load_network(plain.feeder)
    own_kw = network.grid.loads.p_kw.sum(axis=1)
    load = base_load(scaled, network)
    slp = ElecSlp(2026).slp_frame["h0_dyn"].to_numpy()
    kwh = load._weight_kwh.sum(axis=(0, 1))  # a year of each load
    assert kwh * slp.max() / slp.sum() * 4 == pytest.approx(own_kw, rel=1e-9)
    told = base_load_notes(scaled, network, load)[0]
    assert f"in place of the network's own load of {own_kw.sum():.4g} kW, to which they are scaled." in told
    assert "standard profiles of" in base_load_notes(plain, network, base_load(plain, network))[0]


@pytest.mark.parametrize(
    ("base", "sentence"),
    [
        ({"scale": "net", "source": "net"}, "scale = net: is for standard profiles, not for net"),
        ({"scale": "net", "annual_kwh": 5000}, "annual_kwh = 5000: has no meaning with scale = net"),
        ({"source": "simbench", "generation": "none"}, "generation has no meaning with source = simbench"),
        ({"generation": "some"}, "generation"),
    ],
)
def test_settings_without_effect_are_refused(base, sentence):
    with pytest.raises(ScenarioError, match=re.escape(sentence)):
        scenario("case33bw", **base)
