"""Tap changers, capacitors and PV inverters in a run: when they operate, and what they see."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandapower as pp
import pytest

from evgrid.core.model import MemoryRecorder
from evgrid.errors import PowerFlowError, ScenarioError
from evgrid.feeder.model import FeederModel
from evgrid.feeder.networks import load_network
from evgrid.scenario import scenario_from

R_OHM, X_OHM = 0.02, 0.01
"""Of the line between the transformer and the load."""


def street(load_kw=200.0, sgen_kw=0.0, capacitor_kvar=0.0, tap_side="hv", step_percent=1.5):
    """A source, a transformer with a tap changer, a line, a load at its end."""
    net = pp.create_empty_network(f_hz=50)
    grid, low, end = (pp.create_bus(net, kv, name=n) for kv, n in ((20, "grid"), (0.4, "low"), (0.4, "end")))
    pp.create_ext_grid(net, grid)
    pp.create_transformer_from_parameters(
        net, grid, low, 0.4, 20.0, 0.4, 2.0, 8.0, 0.0, 0.0, name="T", tap_side=tap_side, tap_neutral=0,
        tap_pos=0, tap_min=-4, tap_max=4, tap_step_percent=step_percent, tap_changer_type="Ratio",
        vector_group="Dyn", shift_degree=30.0,
    )  # fmt: skip
    pp.create_line_from_parameters(net, low, end, 1.0, R_OHM, X_OHM, 0.0, 1.0, name="L")
    pp.create_load(net, end, load_kw / 1e3, load_kw / 3e3, name="house")
    if sgen_kw:
        pp.create_sgen(net, end, sgen_kw / 1e3, 0.0, name="roof")
    if capacitor_kvar:
        pp.create_shunt(net, end, -capacitor_kvar / 1e3, step=0, max_step=3, name="C")
    return net


@pytest.fixture
def run(tmp_path):
    """Runs a feeder with the load of its net, or with kW of ``house`` by interval of ``every`` seconds."""

    def run(
        net, load_kw=None, every=60.0, step=60.0, seconds=None, members=1, first=0, fleet_kw=None, **feeder
    ):
        path = tmp_path / "net.json"
        pp.to_json(net, str(path))
        base = {"source": "net"}
        if load_kw is not None:
            stamps = np.datetime64("2026-01-15T12:00") + (np.arange(len(load_kw)) * every).astype(
                "timedelta64[s]"
            )
            rows = [f"{stamp},{kw}" for stamp, kw in zip(stamps, load_kw, strict=True)]
            (tmp_path / "load.csv").write_text("\n".join(["time,house", *rows]))
            base = {"file": str(tmp_path / "load.csv")}
            seconds = seconds or every * len(load_kw)
        scenario = scenario_from(
            {
                "name": "test",
                "time": {"start": "2026-01-15T12:00", "duration": seconds or step, "step": step},
                "ensemble": {"members": members, "first": first},
                "feeder": {"network": str(path), "base_load": base, **feeder},
            }
        )
        recorder = MemoryRecorder()
        network = load_network(scenario.feeder)
        model = FeederModel(scenario, network, recorder, fleet=fleet_kw is not None, feedback=False)
        for tick in range(scenario.clock.ticks):
            inputs = {}
            if fleet_kw is not None:
                inputs["fleet/p"] = np.array([[[fleet_kw(member, tick)]] for member in scenario.members])
                inputs["fleet/q"] = 0.0 * inputs["fleet/p"]
            model.step(tick * step, inputs)
        model.finish()
        return recorder

    return run


def tap_changer(**over):
    return [{"trafo": "T", "target_pu": 1.0, "deadband_pu": 0.03, "delay": "30s", **over}]


# ---------------------------------------------------------------------------------------- time


def test_operations_part_a_step_where_they_happen(run):
    # 300 kW need two taps: after 30 s and 10 s later; means of the minute: (10 * 1 + 20 * 2) / 60 taps
    held = run(street(300.0), tap_changers=tap_changer(next_delay="10s"), seconds=120)
    assert held.series("trafo_tap")[:, 0, 0] == pytest.approx([-50 / 60, -2.0])
    assert held.static["trafo_operations"].tolist() == [[2]]
    free, one, two = (
        run(net, seconds=60).series("voltage_pu")[0, 0]
        for net in (street(300.0), *(_at(street(300.0), tap) for tap in (-1, -2)))
    )
    assert held.series("voltage_pu")[0, 0] == pytest.approx((30 * free + 10 * one + 20 * two) / 60, abs=1e-6)
    assert held.series("voltage_pu")[1, 0] == pytest.approx(two, abs=1e-6)


def _at(net, tap):
    net.trafo["tap_pos"] = tap
    return net


def test_positions_do_not_depend_on_the_step(run):
    rng = np.random.default_rng(4)
    load = rng.uniform(0, 380, 30).round()
    load[::3] = load[1::3]  # some last two minutes
    devices = {
        "tap_changers": tap_changer(delay="45s", next_delay="10s"),
        "capacitors": [{"shunt": "C", "deadband_pu": 0.02, "delay": "70s", "next_delay": "20s"}],
    }
    net = street(capacitor_kvar=30.0)
    minutes = [run(net, load, step=step, **devices) for step in (60.0, 20.0, 10.0, 5.0)]
    assert minutes[0].static["trafo_operations"].sum() > 5
    assert minutes[0].static["shunt_operations"].sum() >= 3
    for other in minutes[1:]:
        for name in ("trafo_operations", "shunt_operations"):
            assert other.static[name].tolist() == minutes[0].static[name].tolist()
        for name in ("trafo_tap", "shunt_step", "losses_kw", "head_power_kw"):
            fine = other.series(name).reshape(30, -1, *minutes[0].series(name).shape[1:]).mean(axis=1)
            assert fine == pytest.approx(minutes[0].series(name), rel=1e-9, abs=1e-9), name


def test_the_time_starts_again_in_the_band(run):
    # 40 s outside, 20 s inside: never 45 s in a row
    load = [300, 300, 60] * 4
    assert run(street(), load, 20.0, 20.0, tap_changers=tap_changer(delay="45s")).static[
        "trafo_operations"
    ].tolist() == [[0]]
    assert (
        run(street(), load, 20.0, 20.0, tap_changers=tap_changer(delay="35s"))
        .static["trafo_operations"]
        .sum()
    )


def test_without_delay_it_is_in_the_band_at_once_and_stops_at_the_end_of_its_range(run):
    held = run(street(300.0), tap_changers=tap_changer(delay=0))
    assert held.series("trafo_tap").item() == -2.0
    assert abs(held.series("voltage_pu")[0, 0, 1, 0] - 1) < 0.015
    far = run(street(300.0), tap_changers=tap_changer(target_pu=1.3, delay=0))
    assert far.series("trafo_tap").item() == -4.0


def test_a_capacitor_that_hunts_without_delay_turns_back_once_a_step(run):
    # a step raises the voltage by more than the band is wide: in, out at the next step, in again …
    net = street(250.0, capacitor_kvar=400.0)
    hunts = run(net, capacitors=[{"shunt": "C", "deadband_pu": 0.01, "delay": 0}], seconds=600)
    assert 5 <= hunts.static["shunt_operations"].item() <= 11
    with pytest.raises(
        PowerFlowError, match=r"the regulator of 'C' hunts: more than 1000 operations in a step"
    ):
        run(net, capacitors=[{"shunt": "C", "deadband_pu": 0.01, "delay": 0.01}])


# ------------------------------------------------------------------------------- what they see


@pytest.mark.parametrize("solver", ["power-grid-model", "pandapower"])
def test_line_drop_compensation_sees_the_end_of_its_line(run, solver):
    # the line's own impedance: the load's voltage, measured or compensated, is the same
    line = {"r_ohm": R_OHM, "x_ohm": X_OHM}
    for load_kw in (50.0, 330.0):
        seen = run(street(load_kw), solver=solver, tap_changers=tap_changer(delay=0, line_drop=line))
        told = run(street(load_kw), solver=solver, tap_changers=tap_changer(delay=0, bus="end"))
        assert np.array_equal(seen.series("trafo_tap"), told.series("trafo_tap"))
    assert seen.series("trafo_tap").item() < run(street(330.0), tap_changers=tap_changer(delay=0)).series(
        "trafo_tap"
    )


@pytest.mark.parametrize(("phases", "load_kw"), [(1, 250.0), (3, 250.0)])
def test_compensated_voltage_is_that_of_the_end(tmp_path, phases, load_kw):
    from evgrid.feeder.solvers import make_solver
    from evgrid.feeder.voltage_regulators import VoltageRegulators, devices
    from evgrid.scenario.feeder import Feeder

    pp.to_json(street(load_kw), str(tmp_path / "net.json"))
    line = {"r_ohm": R_OHM, "x_ohm": X_OHM}
    settings = Feeder.model_validate(
        {
            "network": str(tmp_path / "net.json"), "phases": phases,
            "zero_sequence": {"recipe": "four_wire", "r0_per_r1": 1, "x0_per_x1": 1},
            "tap_changers": tap_changer(line_drop=line),
        }
    )  # fmt: skip
    network = load_network(settings)
    regulation = VoltageRegulators(devices(settings, network), network, 1)
    loads = network.grid.loads
    unequal = np.array([1.3, 1.0, 0.7])[:phases]
    for solver in ("power-grid-model", "pandapower"):
        flow = make_solver(network, solver).solve(loads.p_kw[None] * unequal, loads.q_kvar[None] * unequal)
        assert regulation.measured(flow).item() == pytest.approx(flow.voltage_pu[0, 2].mean(), abs=2e-6)
        assert flow.trafo_lv_p_kw.sum() == pytest.approx(
            (loads.p_kw * unequal).sum() + flow.losses_kw.item() * _line_share(flow, network), rel=1e-3
        )


def _line_share(flow, network):
    """Share of the losses in the line: its resistance per that of line and transformer."""
    trafo_ohm = network.grid.trafos.vkr_percent[0] / 100 * 0.4**2 / 0.4
    return R_OHM / (R_OHM + trafo_ohm)


def test_a_tap_changer_at_the_other_side_or_with_a_negative_step_goes_the_other_way(run):
    low = run(street(300.0, tap_side="lv"), tap_changers=tap_changer(delay=0))
    negative = run(street(300.0, step_percent=-1.5), tap_changers=tap_changer(delay=0))
    assert low.series("trafo_tap").item() == 2.0
    assert negative.series("trafo_tap").item() == 2.0
    expected = run(street(300.0), tap_changers=tap_changer(delay=0)).series("voltage_pu")
    assert negative.series("voltage_pu") == pytest.approx(expected, abs=1e-7)


def test_members_have_devices_of_their_own(run):
    def power(member, tick):
        return 250.0 * np.random.default_rng((member, tick)).random()

    both = {
        "tap_changers": tap_changer(),
        "capacitors": [{"shunt": "C", "deadband_pu": 0.04, "delay": "90s"}],
    }
    net = street(100.0, capacitor_kvar=30.0)
    together = run(net, members=4, seconds=1200, fleet_kw=power, **both)
    taps = together.series("trafo_tap")[:, :, 0]
    assert (taps != taps[:, :1]).any()
    for member in (0, 2):
        alone = run(net, first=member, seconds=1200, fleet_kw=power, **both)
        for name in ("trafo_tap", "shunt_step", "voltage_pu", "losses_kw"):
            assert np.array_equal(alone.series(name)[:, 0], together.series(name)[:, member]), name
        assert alone.static["trafo_operations"][0] == together.static["trafo_operations"][member]


def test_a_member_that_is_given_up_leaves_the_others_alone(run):
    def power(member, tick):
        return 1e7 if member == 1 and tick >= 3 else 200.0

    kept = run(street(100.0), members=3, seconds=600, fleet_kw=power, tap_changers=tap_changer())
    sound = run(street(100.0), members=3, seconds=600, fleet_kw=lambda *_: 200.0, tap_changers=tap_changer())
    assert kept.static["member_failed_s"][1] == 180.0
    assert np.isnan(kept.series("trafo_tap")[3:, 1]).all()
    for name in ("trafo_tap", "voltage_pu"):
        assert np.array_equal(kept.series(name)[:, ::2], sound.series(name)[:, ::2])


# -------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("feeder", "message"),
    [
        ({"tap_changers": tap_changer(trafo="X")},
         r"tap_changers\.0\.trafo = X: the network has no such transformer; it has T"),
        ({"tap_changers": tap_changer(deadband_pu=0.01)},
         r"tap_changers\.0\.deadband_pu = 0\.01: must be at least a tap step of 'T', 0\.015, or it hunts"),
        ({"tap_changers": tap_changer(side="mv")}, r"side = mv: 'T' has no such winding"),
        ({"tap_changers": tap_changer(bus="far")}, r"bus = far: the network has no such bus"),
        ({"tap_changers": tap_changer() * 2}, r"two regulators move 'T'"),
        ({"capacitors": [{"shunt": "C2", "deadband_pu": 0.02}]},
         r"capacitors\.0\.shunt = C2: the network has no such shunt; did you mean C"),
        ({"tap_changers": tap_changer(bus="end", line_drop={"r_ohm": 1})}, r"line_drop needs .* give no bus"),
        ({"pv": {"functions": {"volt_var": "ieee_1547_b"}, "at": ["house"]}},
         r"feeder\.pv\.at = house: the network has no such sgen"),
        ({"pv": {"functions": {"frequency_watt": "ieee_1547"}}}, r"the feeder sees no frequency"),
    ],
)  # fmt: skip
def test_what_cannot_be_regulated_is_said(run, feeder, message):
    with pytest.raises(ScenarioError, match=message):
        run(street(capacitor_kvar=10.0, sgen_kw=5.0), **feeder)


def test_a_transformer_without_tap_changer_is_refused(run):
    net = street()
    net.trafo["tap_step_percent"] = np.nan
    with pytest.raises(
        ScenarioError, match=r"trafo = T: has no tap changer that can be regulated: the network"
    ):
        run(net, tap_changers=tap_changer())


# ------------------------------------------------------------------------------------- inverters

VOLT_VAR = {"volt_var": {"points": [[0.9, 44], [0.98, 0], [1.02, 0], [1.08, -44]], "response_s": 60}}


def test_pv_answers_the_voltage_of_the_step_before_with_its_exact_response(run):
    net = street(0.0, sgen_kw=300.0)
    plain = run(net, seconds=60).series("voltage_pu")[0, 0, 2, 0]
    assert plain > 1.03
    recorder = run(net, seconds=3600, pv={"functions": VOLT_VAR})
    q, volts = recorder.series("pv_reactive_kvar")[:, 0], recorder.series("voltage_pu")[:, 0, 2, 0]
    assert q[0] == 0.0  # it has seen nothing yet
    s_kva = 1.1 * 300
    expected, at_end = [], 0.0
    x = np.log(10.0)  # 60 s of 60 s: 90 %
    for volt in volts[:-1]:
        target = s_kva * 0.44 * np.clip((volt - 1.02) / 0.06, 0, 1)
        expected.append(target + (at_end - target) * (1 - np.exp(-x)) / x)
        at_end = target + (at_end - target) * np.exp(-x)
    assert q[1:] == pytest.approx(expected, abs=1e-3)  # recorded voltages are single precision
    assert volts[-1] < plain - 0.005
    assert recorder.series("pv_power_kw") == pytest.approx(300.0)


def test_pv_volt_watt_curtails_and_the_balance_holds(run):
    net = street(0.0, sgen_kw=390.0)
    curve = {"volt_watt": {"points": [[1.0, 100], [1.06, 20]], "response_s": 30}}
    recorder = run(net, seconds=1800, pv={"functions": curve})
    given, could = recorder.series("pv_power_kw")[:, 0], recorder.series("pv_available_kw")[:, 0]
    assert could == pytest.approx(390.0)
    assert given[-1] < 380.0
    head = recorder.series("head_power_kw")[:, 0, 0]
    assert head == pytest.approx(recorder.series("losses_kw")[:, 0] - given)
    assert recorder.series("base_load_kw")[:, 0] == pytest.approx(-given)


def test_pv_of_unequal_phases_and_what_is_no_pv(tmp_path, small_net):
    from evgrid.feeder.inverters import Inverters
    from evgrid.scenario.devices import PvInverters
    from evgrid.scenario.feeder import Feeder

    net = small_net(True)
    pp.create_storage(net, 4, -0.01, 1.0, name="battery", type="wye")
    pp.to_json(net, str(tmp_path / "net.json"))
    network = load_network(Feeder(network=str(tmp_path / "net.json")))
    inverters = Inverters(PvInverters.model_validate({"functions": VOLT_VAR}), network, range(2))
    fixed = network.grid.fixed
    assert fixed.gen_kind.tolist() == ["sgen", "storage", "sgen"]
    given = np.repeat(fixed.gen_p_kw[None], 2, axis=0), np.repeat(fixed.gen_q_kvar[None], 2, axis=0)
    power = []

    def solve(generation):
        power.append(generation)
        volts = np.ones((2, len(network.grid.buses.name), 3))
        return SimpleNamespace(voltage_pu=volts, generator_pu=None)

    inverters.solve(given, 60.0, solve, np.zeros(2, bool))
    [(p_kw, q_kvar)] = power
    assert p_kw == pytest.approx(given[0])
    assert q_kvar[:, [0, 2]] == pytest.approx(0.0)
    assert np.array_equal(q_kvar[:, 1], given[1][:, 1])


# ---------------------------------------------------------------------------------------- ageing


def test_transformer_ageing_is_that_of_the_result(run):
    import xarray as xr

    from evgrid.results.transformer_ageing import transformer_ageing
    from evgrid.scenario.devices import TransformerThermal

    load = [100, 300, 380, 200, 50, 300]
    over = {"transformer": {"oil_time_constant_min": 30}, "ambient": 12.5}
    recorder = run(street(), load, 600.0, 600.0, transformer_ageing=over)
    result = xr.Dataset(
        {"trafo_loading": (("time", "member", "trafo"), recorder.series("trafo_loading"))},
        coords={"time": np.datetime64("2026-01-15T12:00", "ns") + np.arange(6) * np.timedelta64(600, "s")},
    )
    expected = transformer_ageing(result, TransformerThermal(oil_time_constant_min=30), 12.5)
    assert recorder.series("trafo_hot_spot_c")[:, 0, 0] == pytest.approx(
        expected["trafo_hot_spot_c"].values[0, :, 0]
    )
    for name in ("trafo_life_h", "trafo_hot_spot_highest_c", "trafo_loss_of_life_percent"):
        assert recorder.static[name] == pytest.approx(expected[name].values)
    with pytest.raises(ScenarioError, match=r"transformer_ageing\.transformer: has no constants for T"):
        run(street(), transformer_ageing={"transformer": {"T2": {}}})


def test_ambient_of_a_day(tmp_path):
    from evgrid.core.model import Clock
    from evgrid.scenario.ambient import AmbientTemperature, Sinusoid

    clock = Clock(np.datetime64("2026-01-15T12:00"), 60.0, 1440)
    day = AmbientTemperature(Sinusoid(mean_c=10.0, amplitude_c=6.0, warmest_h=15.0), clock)
    assert day.mean(0.0, 86400.0) == pytest.approx(10.0)
    assert day.mean(3 * 3600 - 1, 3 * 3600 + 1) == pytest.approx(16.0, abs=1e-6)
    assert day.mean(15 * 3600 - 1, 15 * 3600 + 1) == pytest.approx(4.0, abs=1e-6)
