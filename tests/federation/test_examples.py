"""The shipped programs of others, each a process of its own in a federate's place."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandapower as pp
import pytest
from tests.support.outside import EXAMPLES, HELICS, example, run_beside

import evgrid
from evgrid.federation.adapter import Adapter
from evgrid.results.metrics import summary
from evgrid.scenario import load_scenario, scenario_from

SCENARIOS = Path(__file__).parents[2] / "scenarios"


def assert_same(result, expected, without):
    """All that evgrid records itself, bit for bit; the federate outside would have recorded ``without``."""
    assert set(result.data_vars) == set(expected.data_vars) - set(without)
    for name in result.data_vars:
        np.testing.assert_array_equal(result[name].values, expected[name].values, err_msg=name)


@pytest.fixture
def voltages(monkeypatch):
    """The voltages that the fleet has taken so far, a list of (member, connection, phase)."""
    taken, take = [], Adapter._take

    def spy(self, receivers):
        fresh = take(self, receivers)
        if self.name == "fleet":
            taken.append(self._inputs["feeder/voltage"].copy())
        return fresh

    monkeypatch.setattr(Adapter, "_take", spy)
    return taken


@pytest.fixture
def compiled(tmp_path):
    """The controller in C."""
    compiler = shutil.which("gcc") or shutil.which("clang")
    if compiler is None or not (HELICS / "include").is_dir():
        pytest.skip("needs a C compiler and the headers of HELICS' wheel")
    made, library = tmp_path / "tou_controller", HELICS / "lib64"
    subprocess.run(
        [
            compiler, "-O2", "-Wall", "-Wextra", "-Werror", "-ffp-contract=off", "-o", made,
            EXAMPLES / "tou_controller.c",
            f"-I{HELICS / 'include'}", f"-L{library}", "-lhelics", f"-Wl,-rpath,{library}", "-lm",
        ],
        check=True,
    )  # fmt: skip
    return [str(made), "aggregator.json"]


@pytest.mark.parametrize("language", ["python", "c"])
@pytest.mark.parametrize("start", ["2026-01-15T20:00", "2026-07-01T14:45"])
def test_controller_does_what_tou_does(language, start, tmp_path, request):
    command = example("tou_controller.py", "aggregator.json")
    if language == "c":
        command = request.getfixturevalue("compiled")
    scenario = load_scenario(
        SCENARIOS / "european_lv_tou.yaml",
        {"time.start": start, "time.duration": "6h", "time.step": "5min", "communication.telemetry": "5min",
         "ensemble.members": 2, "feeder.base_load": {"source": "none"}},
    )  # fmt: skip
    expected = evgrid.run(scenario)
    result = run_beside(scenario, {"aggregator": command}, tmp_path)
    assert float(expected["fleet_power_kw"].max()) > 20
    uncontrolled = evgrid.run(scenario.model_copy(update={"aggregators": {}}))
    assert not np.array_equal(expected["fleet_power_kw"], uncontrolled["fleet_power_kw"])
    assert_same(result, expected, without=("setpoint_kw", "uncontrolled_peak_kw"))


def coupled_voltages(scenario, voltages, command, folder, prepare=()):
    """The voltages that the fleet sees with evgrid's own feeder, and with another in its place."""
    expected = evgrid.run(scenario, folder / "own.nc")
    own = np.array(voltages)
    voltages.clear()
    if prepare:
        subprocess.run(prepare, cwd=folder, check=True)
    result = run_beside(scenario, {"feeder": command}, folder)
    np.testing.assert_allclose(
        result["fleet_reactive_kvar"].values, expected["fleet_reactive_kvar"].values, atol=1e-2
    )
    assert float(abs(expected["fleet_reactive_kvar"]).max()) > 1.0  # the chargers respond to the voltage
    expected.close()
    rows = dict(summary(result))
    assert rows["other programs"] == "feeder: what they compute is not recorded"
    assert "fleet power" in rows
    assert "voltage, lowest" not in rows
    return own, np.array(voltages)


@pytest.mark.parametrize("duration", ["1h", pytest.param("24h", marks=pytest.mark.slow)])
def test_opendss_in_the_feeders_place(duration, voltages, tmp_path):
    pytest.importorskip("dss")
    scenario = load_scenario(
        SCENARIOS / "european_lv_volt_var.yaml", {"time.duration": duration, "record.connections": True}
    )
    prepare = example("european_lv_circuit.py", "own.nc", "circuit")
    command = example("opendss_feeder.py", "feeder.json", "sheet.json", "circuit/circuit.dss")
    own, other = coupled_voltages(scenario, voltages, command, tmp_path, prepare)
    assert own.shape == other.shape == (scenario.clock.ticks, 1, 55, 3)
    assert np.ptp(own) > 0.01
    assert np.abs(own - other).max() <= 1e-6


@pytest.mark.slow
def test_two_programs_at_once(tmp_path):
    pytest.importorskip("dss")
    scenario = load_scenario(
        SCENARIOS / "european_lv_volt_var.yaml",
        {"time.start": "2026-01-15T20:00", "time.duration": "6h", "aggregators.main": {"strategy": "tou"},
         "record.connections": True},
    )  # fmt: skip
    with evgrid.run(scenario, tmp_path / "own.nc") as expected:
        subprocess.run(example("european_lv_circuit.py", "own.nc", "circuit"), cwd=tmp_path, check=True)
        feeder = example("opendss_feeder.py", "feeder.json", "sheet.json", "circuit/circuit.dss")
        controller = example("tou_controller.py", "aggregator.json")
        result = run_beside(scenario, {"feeder": feeder, "aggregator": controller}, tmp_path)
        assert float(expected["fleet_power_kw"].max()) > 20
        for name in ("fleet_power_kw", "fleet_reactive_kvar"):
            np.testing.assert_allclose(result[name].values, expected[name].values, atol=1e-5)


def street(folder, start):
    """A balanced street of three houses, as a net of pandapower and as a model of GridLAB-D."""
    r, x, nominal_v = 0.32, 0.083, 400 / 3**0.5
    net = pp.create_empty_network()
    before = pp.create_bus(net, 0.4, "head")
    pp.create_ext_grid(net, before)
    z = f"{1.609344 * r}+{1.609344 * x}j"  # ohm per mile
    model = [
        f"clock {{ timezone UTC0; starttime '{start.replace('T', ' ')}:00'; "
        "stoptime '2030-01-01 00:00:00'; }",
        "module powerflow { solver_method NR; };",
        f"object line_configuration {{ name cable; z11 {z}; z22 {z}; z33 {z}; }}",
        f"object meter {{ name head; bustype SWING; phases ABCN; nominal_voltage {nominal_v}; }}",
    ]
    for number, (p_kw, q_kvar) in enumerate([(12.0, 2.0), (5.0, 1.0), (9.0, 3.0)], 1):
        bus, name, length_m = pp.create_bus(net, 0.4, f"bus{number}"), f"House{number}", 150 * number
        pp.create_load(net, bus, p_kw / 1e3, q_kvar / 1e3, name=name)
        pp.create_line_from_parameters(
            net, before, bus, length_m / 1e3, r_ohm_per_km=r, x_ohm_per_km=x, c_nf_per_km=0, max_i_ka=0.3
        )
        power = f"{1e3 * p_kw / 3}+{1e3 * q_kvar / 3}j"
        own = " ".join(f"constant_power_{phase} {power};" for phase in "ABC")
        upstream = f"House{number - 1}" if number > 1 else "head"
        model += [
            f"object load {{ name {name}; phases ABCN; nominal_voltage {nominal_v}; {own} }}",
            f"object overhead_line {{ phases ABC; from {upstream}; to {name}; length {length_m} m; "
            "configuration cable; }",
        ]
        before = bus
    pp.to_json(net, str(folder / "net.json"))
    (folder / "feeder.glm").write_text("\n".join(model))


def test_gridlabd_in_the_feeders_place(voltages, tmp_path):
    pytest.importorskip("gridlabd")
    start = "2026-01-15T16:00"
    street(tmp_path, start)
    charger = {"power_kw": 11, "phases": 3, "apparent_kva": 12.5, "functions": {"volt_var": "ieee_1547_b"}}
    scenario = scenario_from(
        {
            "name": "street",
            "time": {"start": start, "duration": "1h", "step": "60s"},
            "feeder": {"network": "net.json", "base_load": {"source": "net"}},
            "fleet": {"count": 6, "charger": charger},
        },
        folder=tmp_path,
    )
    command = example("gridlabd_feeder.py", "feeder.json", "sheet.json", "feeder.glm")
    own, other = coupled_voltages(scenario, voltages, command, tmp_path)
    assert own.shape == other.shape == (60, 1, 3, 1)
    assert np.ptp(own) > 0.01
    assert np.abs(own - other).max() <= 1e-3


def test_player_of_recorded_frequency_in_the_systems_place(tmp_path):
    times_s = 4.0 * np.arange(151)
    frequency = 60.0 + np.round(32 * 0.5 * np.sin(times_s / 40)) / 32  # short numbers: CSV readers differ in
    regulation = np.round(32 * np.cos(times_s / 30)) / 32  # the last bit of long ones
    np.savetxt(
        tmp_path / "recorded.csv", np.column_stack([times_s, frequency, regulation]), "%.17g", delimiter=",",
        header="time,frequency,regulation", comments="",
    )  # fmt: skip
    scenario = scenario_from(
        {
            "name": "recorded",
            "time": {"start": "2026-01-15T19:00", "duration": "10min", "step": "4s"},
            "ensemble": {"members": 2},
            "feeder": {"network": "cigre_lv", "step": "60s", "base_load": {"source": "net"}},
            "fleet": {
                "count": 20,
                "charger": {"phases": 3, "bidirectional": 1.0, "functions": {"frequency_watt": "ieee_1547"}},
            },
            "system": {key: {"file": "recorded.csv", "column": key} for key in ("frequency", "regulation")},
            "record": {"step": "60s"},
        },
        folder=tmp_path,
    )
    expected = evgrid.run(scenario)
    assert np.ptp(expected["fleet_power_kw"].values) > 5.0
    player = tmp_path / "player"
    player.write_text(
        f"#!/bin/sh\n{' '.join(example('recorded_player.py', 'system.json', 'recorded.csv', 'player.json'))} "
        f"&& exec {HELICS / 'bin' / 'helics_player'} --config-file=player.json\n"
    )
    player.chmod(0o755)
    result = run_beside(scenario, {"system": [str(player)]}, tmp_path)
    assert_same(result, expected, without=("frequency_hz", "regulation_signal"))
