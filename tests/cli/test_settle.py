"""``evgrid settle``: the books of a run, and against the same uncontrolled."""

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import evgrid
from evgrid.cli import main
from evgrid.scenario import scenario_from

CONTENT = {
    "name": "street",
    "time": {"start": "2026-07-01T16:00", "duration": "20h", "step": "15min"},
    "feeder": {"network": "cigre_lv", "base_load": {"source": "net"}},
    "fleet": {"count": 6, "charger": {"phases": 3}},
    "communication": {"telemetry": "15min"},
    "tariff": "pge_ev2a",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("settle")
    for strategy in ("uncontrolled", "tou"):
        scenario = scenario_from({**CONTENT, "aggregators": {"main": {"strategy": strategy}}})
        evgrid.run(scenario, folder / f"{strategy}.nc").close()
    scenario = scenario_from(CONTENT, {"ensemble.seed": 1})
    evgrid.run(scenario, folder / "other.nc").close()
    return folder


def settle(*arguments):
    return CliRunner().invoke(main, ["settle", *map(str, arguments)])


def test_the_books_against_uncontrolled(folder):
    (folder / "rates.yaml").write_text("demand_charge: 10\n")
    done = settle(
        folder / "tou.nc", "--against", folder / "uncontrolled.nc", "--rates", folder / "rates.yaml",
        "--set", "demand_charge=0", "-o", folder / "evs.csv", "--fleet", folder / "fleet.csv",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "saved, of the uncontrolled cost" in done.output
    evs, fleet = pd.read_csv(folder / "evs.csv"), pd.read_csv(folder / "fleet.csv")
    with evgrid.open_results(folder / "tou.nc") as result:
        customers = len(np.unique(result["ev_connection"]))
    fixed = 0.79343 * 20 / 24 * customers
    assert evs["energy_cost"].sum() + fixed == pytest.approx(fleet["net_cost"].sum())
    assert fleet.loc[0, "saved"] == pytest.approx(fleet.loc[0, "uncontrolled"] - fleet.loc[0, "net_cost"])
    assert 0.3 < fleet.loc[0, "saved"] / fleet.loc[0, "uncontrolled"] < 0.6
    assert f"{fleet.loc[0, 'saved']:,.2f} USD" in done.output


def test_what_is_wrong_is_reported_in_a_sentence(folder):
    cases = {
        ("none.nc",): "evgrid: there is no result none.nc",
        (folder / "tou.nc", "--against", folder / "other.nc"): "it has other sessions; both must be of the",
        (folder / "tou.nc", "--rates", folder / "no.yaml"): "there is no file",
        (folder / "tou.nc", "--set", "demand=3"): "demand: unknown key; did you mean 'demand_charge'?",
        (folder / "tou.nc", "-o", folder / "tou.nc" / "t.csv"): "the table can't be written to",
    }
    for arguments, sentence in cases.items():
        done = settle(*arguments)
        assert done.exit_code in (1, 2)
        assert sentence in " ".join(done.output.split())
        assert "Traceback" not in done.output
