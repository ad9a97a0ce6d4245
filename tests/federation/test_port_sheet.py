"""The port sheet says what the run's own federates register, and HELICS takes its files."""

import json
from contextlib import chdir

import helics as h
import pytest
from click.testing import CliRunner
from tests.support.waiting import wait_until

from evgrid.cli import main
from evgrid.federation.adapter import Adapter
from evgrid.federation.port_sheet import port_sheets
from evgrid.federation.wiring import wire

SCENARIO = """
name: sheet-case
time: {start: 2026-07-01T16:00, duration: 2h, step: 60s}
ensemble: {members: 2}
feeder: {network: cigre_lv, base_load: {source: net}, step: 5min}
fleet: {count: 6, charger: {phases: 3}}
aggregators: {main: {strategy: peak_limit, group: transformer, limit_kw: 45}}
tariff: pge_ev2a
communication: {delay: 0s}
"""
QUERIES = ("subscriptions", "endpoints", "publication_details", "endpoint_details", "timeconfig")


@pytest.fixture
def models(toy):
    return [
        toy("feeder", ["fleet/p"], ["feeder/voltage"], period_s=12.0),
        toy("fleet", ["aggregator/setpoint", "feeder/voltage"], ["fleet/p", "fleet/soc"]),
        toy("aggregator", ["fleet/soc"], ["aggregator/setpoint"]),
    ]


def test_times_and_order_are_those_of_the_run(models, sizes, clock):
    sheets = port_sheets(models, sizes, clock(12))
    assert [sheet.name for sheet in sheets] == ["aggregator", "fleet", "feeder"]
    assert [sheet.times for sheet in sheets] == [
        (0.001, 4.001, 44.001), (0.002, 4.002, 44.002), (0.003, 12.003, 36.003),
    ]  # fmt: skip
    assert sheets[1].waits_for == ("aggregator", "feeder")
    voltage = sheets[1].inputs[1]
    assert (voltage.port.name, voltage.sizes, voltage.length) == ("feeder/voltage", (2, 3, 3), 18)
    assert sheets[2].outputs[0].subscribers == ("fleet",)


def answer(query, federate):
    """HELICS' answer about a federate, without tags, as text; its core registers in a thread of its own."""

    def plain(one):
        return {key: value for key, value in one.items() if key != "tags"}

    return json.dumps(json.loads(json.dumps(h.helicsQueryExecute(query, federate)), object_hook=plain))


@pytest.mark.timeout(60)
def test_files_register_what_evgrid_registers(models, sizes, clock, tmp_path):
    places = wire(models, sizes, clock(12), 6.0)
    cores = [
        h.helicsCreateCore("inproc", name, f"--federates=9 --broker={h.helicsBrokerGetIdentifier(broker)}")
        for name in ("sheet-own", "sheet-files")
        for broker in [h.helicsCreateBroker("inproc", f"{name}-broker", "--federates=9")]
    ]
    own = [Adapter(place, sizes, clock(12), "sheet-own", 6.0).federate for place in places]
    files = []
    for sheet in port_sheets(models, sizes, clock(12), 6.0):
        path = tmp_path / f"{sheet.name}.json"
        path.write_text(
            json.dumps(sheet.helics_config("inproc", "sheet-files-broker") | {"core_name": "sheet-files"})
        )
        files.append(h.helicsCreateCombinationFederateFromConfig(str(path)))
    try:
        for made, read in zip(own, files, strict=True):
            for query in (h.helicsCreateQuery("", text) for text in QUERIES):
                wait_until(lambda pair=(made, read), query=query: len({answer(query, f) for f in pair}) == 1)
        counts = [[h.helicsFederateGetFilterCount(federate) for federate in side] for side in (own, files)]
        assert counts == [[0, 1, 0], [0, 1, 0]]
        voltage = h.helicsFederateGetInputByTarget(files[1], "feeder/voltage")
        assert h.helicsInputGetVector(voltage) == [1.0] * 18
        assert h.helicsInputGetUnits(h.helicsFederateGetInputByTarget(files[2], "fleet/p")) == "kW"
    finally:
        for core in cores:
            h.helicsCoreDisconnect(core)


def call(*arguments, cwd):
    with chdir(cwd):
        return CliRunner().invoke(main, ["ports", "case.yaml", *arguments])


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "case.yaml").write_text(SCENARIO)
    return tmp_path


def test_printed_sheet(folder):
    done = call(cwd=folder)
    assert done.exit_code == 0, done.output
    assert "other programs: none (federation.external); can be: aggregator, fleet, feeder" in done.stdout
    assert "broker at a free port, which the run prints" in done.stdout
    assert "feeder steps 24 times, every 300 s, at 0.003, 300.003, … 6900.003 s" in done.stdout
    assert "gives  feeder/trafo_p  kW    member 2 × trafo 3" in done.stdout
    assert "ev0001, 0, " in done.stdout


def test_json_has_the_names_of_all_elements(folder):
    sheet = json.loads(call("--json", "--federate", "aggregator", cwd=folder).stdout)
    assert list(sheet["federates"]) == ["aggregator"]
    own = sheet["federates"]["aggregator"]
    assert (own["period_s"], own["offset_s"], own["steps"]) == (60.0, 0.001, 120)
    (setpoint,) = own["outputs"]
    assert setpoint["key"] == setpoint["endpoint"] == "aggregator/setpoint"
    assert setpoint["unit"] == "kW"
    assert setpoint["shape"] == [len(sheet["elements"]["ev"]["name"])] == [12]
    assert set(sheet["elements"]["ev"]["connection"]) <= {
        f"Load {kind}{n}" for kind in "RIC" for n in range(25)
    }
    assert "connection" in sheet["elements"]  # of fleet/p
    assert sheet["elements"]["member"]["name"] == [0, 1]


def test_each_aggregator_has_its_own_evs(folder):
    (folder / "case.yaml").write_text(
        SCENARIO.replace("{main: ", "{rest: {strategy: tou}, some: ").replace(
            "peak_limit,", "peak_limit, evs: {share: 0.5},"
        )
    )
    sheet = json.loads(call("--json", cwd=folder).stdout)
    assert list(sheet["federates"]) == ["aggregator.rest", "aggregator.some", "fleet", "feeder"]
    every, some = sheet["elements"]["ev"], sheet["elements"]["ev.some"]
    assert [every["name"][row] for row in some["ev"]] == some["name"]
    assert sorted(some["ev"] + sheet["elements"]["ev.rest"]["ev"]) == list(range(12))
    (setpoint,) = sheet["federates"]["aggregator.some"]["outputs"]
    assert (setpoint["key"], setpoint["shape"]) == ("aggregator.some/setpoint", [len(some["ev"])])


def test_helics_files(folder):
    broker = "federation.broker=tcp://127.0.0.1:23500"
    done = call("--helics", "configs", "--set", broker, "--set", "federation.external=[feeder]", cwd=folder)
    assert done.stdout.split()[1::2] == [f"configs/{name}.json" for name in ("aggregator", "fleet", "feeder")]
    config = json.loads((folder / "configs" / "feeder.json").read_text())
    assert (config["name"], config["period"], config["offset"]) == ("feeder", 300.0, 0.003)
    assert config["dependencies"] == ["aggregator", "fleet"]
    assert config["core_init_string"] == "--broker_address=tcp://127.0.0.1:23500"
    assert config["tags"] == {"steps": "24", "start": "2026-07-01T16:00:00"}


def test_helics_files_need_an_address(folder):
    done = call("--helics", "configs", cwd=folder)
    assert done.exit_code == 2
    assert "name one, here and in the run, such as --set federation.broker=tcp://" in done.stderr


def test_federates_that_iterate_are_not_replaceable(folder):
    charger = "fleet.charger.functions={volt_var: ieee_1547_b}"
    settings = ("--set", charger, "--set", "fleet.charger.apparent_kva=12", "--set", "feeder.step=60s")
    done = call("--json", "--set", "coupling=iterated", *settings, cwd=folder)
    sheet = json.loads(done.stdout)
    assert sheet["replaceable"] == ["aggregator"]
    assert sheet["federates"]["feeder"]["iterates_on"] == ["fleet/p", "fleet/q"]


def test_unknown_federate(folder):
    done = call("--federate", "sites", cwd=folder)
    assert done.exit_code == 2
    assert "sites: the run has aggregator, fleet, feeder" in done.stderr
