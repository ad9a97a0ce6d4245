"""Feeders that can't be solved, through the command line: one clear sentence each, nothing left behind."""

from __future__ import annotations

import numpy as np
import pandapower as pp
import pytest
from click.testing import CliRunner

import evgrid
from evgrid.cli import main

SCENARIO = """
name: bad
time: {start: 2026-07-01T16:00, duration: 15min, step: 5min}
feeder: {network: net.json, base_load: {source: net}}
"""


def call(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def islanded(net):
    pp.create_load(net, pp.create_bus(net, 0.4, name="far"), 0.001, name="hut")


def islanded_by_a_switch(net):
    pp.create_switch(net, 7, 6, "l", closed=False)  # the line to B7, which B8 hangs on


def without_impedance(net):
    net.line.loc[3, ["r_ohm_per_km", "x_ohm_per_km"]] = 0.0
    net.line.loc[3, "name"] = "short one"


def without_zero_sequence(net):
    net.line.loc[2, "r0_ohm_per_km"] = np.nan


def without_vector_group(net):
    net.trafo["vector_group"] = None


def of_unknown_type(net):
    net.asymmetric_load["type"] = "PV"


BAD = {
    "islanded bus with load": (islanded, "load 'hut' is at bus 'far', which no source feeds"),
    "islanded by an open switch": (islanded_by_a_switch, "load 'asym' is at bus 'B8', which no source feeds"),
    "line without impedance": (
        without_impedance,
        "line 'short one' can't be represented with the solver power-grid-model: it has no impedance; "
        "use a bus-bus switch",
    ),
    "missing zero sequence": (
        without_zero_sequence,
        "line 2 has no r0_ohm_per_km, needed in three phases; give it, or choose "
        "feeder.zero_sequence: {recipe: four_wire}",
    ),
    "transformer without vector group": (
        without_vector_group,
        "trafo 0 'T1' has no vector_group, needed in three phases; give it, or choose "
        "feeder.zero_sequence: {recipe: four_wire}",
    ),
    "unbalanced load of unknown type": (
        of_unknown_type,
        "asymmetric_load 0 'asym' can't be represented with the solver power-grid-model: its type is 'PV', "
        "must be 'wye' or 'delta'",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_one_clear_sentence(case, tmp_path, small_net):
    spoil, sentence = BAD[case]
    net = small_net(True)
    spoil(net)
    pp.to_json(net, str(tmp_path / "net.json"))
    (tmp_path / "bad.yaml").write_text(SCENARIO)
    done = call("run", tmp_path / "bad.yaml", "-o", tmp_path / "out.nc", "--no-plot")
    assert done.exit_code == 1, done.output
    said = [line for line in done.stderr.splitlines() if line]
    assert said == [f"evgrid: network {tmp_path / 'net.json'}: 1 fault", f"  {sentence}"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.yaml", "net.json"]


@pytest.mark.parametrize("case", ["missing zero sequence", "transformer without vector group"])
def test_the_recipe_that_the_sentence_names_helps(case, tmp_path, small_net):
    net = small_net(True)
    BAD[case][0](net)
    pp.to_json(net, str(tmp_path / "net.json"))
    (tmp_path / "bad.yaml").write_text(SCENARIO)
    recipe = ("--set", "feeder.zero_sequence={recipe: four_wire}")
    done = call("run", tmp_path / "bad.yaml", "-o", tmp_path / "out.nc", "--no-plot", *recipe)
    assert done.exit_code == 0, done.output


def test_one_member_of_a_hundred_has_no_solution_and_the_others_are_kept(tmp_path):
    def row(member):
        size = "1e5,1e5" if member == 40 else "60,7"
        return f"ev{member},load 5,300,900,0.1,{member},{size}"

    table = [
        "ev,connection,arrival,departure,soc_arrival,member,capacity_kwh,charge_kw",
        *map(row, range(100)),
    ]
    (tmp_path / "sessions.csv").write_text("\n".join(table))
    (tmp_path / "bad.yaml").write_text(
        SCENARIO.replace("net.json", "case33bw")
        + "ensemble: {members: 100}\ncommunication: {telemetry: 5min}\n"
        + "fleet: {sessions: {file: sessions.csv}, charger: {phases: 3, power_kw: 1e5}}\n"
    )
    done = call("run", tmp_path / "bad.yaml", "-o", tmp_path / "out.nc", "--no-plot")
    assert done.exit_code == 0, done.output
    assert "given up: 1 of 100 members" in done.stdout
    assert "member 40 at 2026-07-01 16:05:00: " in done.stdout
    with evgrid.open_results(tmp_path / "out.nc") as result:
        lost = np.isnan(result["voltage_min_pu"].transpose("member", "time").values)
        assert np.flatnonzero(lost.any(axis=1)).tolist() == [40]
        assert lost[40].tolist() == [False, True, True]
        kept = result["voltage_pu"].drop_sel(member=40)
        assert kept.notnull().all()
        assert result["session_energy_delivered_kwh"].values[41] == pytest.approx(7 / 6, rel=1e-3)
    stopped = call(
        "run", tmp_path / "bad.yaml", "-o", tmp_path / "other.nc", "--set", "feeder.on_divergence=stop"
    )
    assert stopped.exit_code == 1
    assert "did not converge: member 40 at 2026-07-01 16:05:00" in stopped.stderr
    assert not (tmp_path / "other.nc").exists()
