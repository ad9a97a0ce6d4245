"""Tap changers with a tap of its own in each phase: their matrices, OpenDSS' RegControls, and runs."""

from __future__ import annotations

import numpy as np
import pandapower as pp
import pytest

from evgrid.errors import PowerFlowError, ScenarioError
from evgrid.feeder.networks import load_network
from evgrid.feeder.reduction import circuit
from evgrid.feeder.solvers import Positions, check_balance, make_solver
from evgrid.feeder.solvers.sequence_network import TO_PHASES, tapped_by_phase, trafo_branches
from evgrid.feeder.voltage_regulators import VoltageRegulators, devices
from evgrid.runs.simulation import run
from evgrid.scenario import scenario_from
from evgrid.scenario.feeder import Feeder

KV, KVA = 4.16, 1666.0
"""Nominal voltage, and rated power of one of three regulators."""

LOADS = ((0.40, 0.16), (0.12, 0.04), (0.25, 0.08))
"""Power at the end of the line by phase, MW and Mvar."""


def street(side="lv", group="YNyn", shift=0.0, loads=LOADS):
    """A source, a line, regulators R, a line, loads at its end::

    source ==IN== in -R- out ==OUT== end
    """
    net = pp.create_empty_network(f_hz=60)
    bus = [pp.create_bus(net, KV, name=name) for name in ("source", "in", "out", "end")]
    pp.create_ext_grid(net, bus[0])
    for name, ends in (("IN", bus[:2]), ("OUT", bus[2:])):
        zero = {"r0_ohm_per_km": 0.7, "x0_ohm_per_km": 1.9, "c0_nf_per_km": 0.0}
        pp.create_line_from_parameters(net, *ends, 1.0, 0.3, 0.6, 0.0, 0.6, **zero, name=name)
    pp.create_transformer_from_parameters(
        net, bus[1], bus[2], 3 * KVA / 1e3, KV, KV, 0.1, 1.0, 0.0, 0.0, shift_degree=shift,
        vector_group=group, vk0_percent=1.0, vkr0_percent=0.1, mag0_percent=1e9, mag0_rx=0.0,
        si0_hv_partial=0.5, tap_side=side, tap_neutral=0, tap_pos=0, tap_min=-16, tap_max=16,
        tap_step_percent=0.625, tap_changer_type="Ratio", name="R",
    )  # fmt: skip
    powers = {f"{kind}_{phase}_{unit}": loads[k][place] for k, phase in enumerate("abc")
              for place, (kind, unit) in enumerate((("p", "mw"), ("q", "mvar")))}  # fmt: skip
    pp.create_asymmetric_load(net, bus[3], **powers, type="wye", name="town")
    return net


def held(network, members=1, **over):
    """The regulators of all phases, and the solver."""
    changer = {"trafo": "R", "deadband_pu": 0.02, "delay": 0, "phases": "each", **over}
    settings = Feeder.model_validate({"network": "european_lv", "tap_changers": [changer]})
    found = devices(settings, network)
    return VoltageRegulators(found, network, members), make_solver(network, "z-bus")


@pytest.mark.parametrize(("group", "shift", "sides"), [("YNyn", 0.0, ("hv", "lv")), ("Dyn", 30.0, ("lv",))])
def test_equal_taps_are_those_of_one_tap_changer(feeder, small_net, group, shift, sides):
    for side in sides:
        net = small_net(True, group, shift, no_load=True)
        net.trafo["tap_side"], net.trafo["tap_pos"], net.trafo["mag0_percent"] = side, 0, 120.0
        network = feeder(net)
        c, one = circuit(network.grid, network.topology, True), np.zeros(1, np.int64)
        for tap in (-2, 1):
            factor = np.full((3, 1), 1 + tap * 0.025)
            found = tapped_by_phase(
                trafo_branches(network.grid, c, 3, one), one, factor, np.array([side == "lv"])
            )
            b = trafo_branches(network.grid, c, 3, np.array([tap]))
            for end, parts in enumerate(((b.y_ss, b.y_st), (b.y_tt, b.y_ts))):
                for far, part in enumerate(parts):
                    expected = TO_PHASES @ np.diag(part[:, 0]) @ TO_PHASES.conj().T
                    np.testing.assert_allclose(found[end, far, ..., 0], expected, rtol=1e-12, atol=1e-6)


@pytest.mark.parametrize("side", ["hv", "lv"])
def test_without_load_each_phase_has_its_ratio(feeder, side):
    network = feeder(street(side))
    none = np.zeros((1, 1, 3))
    taps = np.array([[[3, -16, 0]]])
    flow = make_solver(network).solve(none, none, positions=Positions(taps, np.zeros((1, 0), np.int64)))
    ratio = 1 + np.array([3, -16, 0]) * 0.00625
    expected = ratio if side == "lv" else 1 / ratio
    np.testing.assert_allclose(flow.voltage_pu[0, 2:], [expected, expected], rtol=0, atol=1e-9)
    np.testing.assert_allclose(flow.losses_kw, 0.0, atol=1e-9)


def test_each_case_has_its_own_taps_and_depends_on_no_other(feeder):
    """Joint and single taps in one batch, loads of both signs; powers balance."""
    network = feeder(street())
    rng = np.random.default_rng(5)
    count = 30
    loads = network.grid.loads
    scale = rng.uniform(-1.0, 1.0, (count, 1, 1))
    p, q = loads.p_kw * scale, loads.q_kvar * np.abs(scale)
    taps = rng.integers(-8, 9, (count, 1, 3))
    taps[::3] = taps[::3, :, :1]
    none = np.zeros((count, 0), np.int64)
    solver = make_solver(network)
    flow = solver.solve(p, q, positions=Positions(taps, none))
    check_balance(flow, p, 1e-9)
    assert not np.allclose(flow.voltage_pu[0], flow.voltage_pu[1])
    joint = solver.solve(p[::3], q[::3], positions=Positions(taps[::3, :, 0], none[::3]))
    for name, values in joint.tables().items():
        assert np.array_equal(values, getattr(flow, name)[::3]), name
    for case in (1, 17):
        one = slice(case, case + 1)
        alone = solver.solve(p[one], q[one], positions=Positions(taps[one], none[one]))
        for name, values in alone.tables().items():
            assert np.array_equal(values[0], getattr(flow, name)[case]), name


@pytest.mark.parametrize(
    ("sign", "line_drop"), [(1.0, None), (-0.6, None), (1.0, (3.0, 9.0)), (-0.4, (2.0, 4.0))]
)
def test_three_regcontrols_of_opendss_come_to_the_same_taps(feeder, sign, line_drop):
    dss = pytest.importorskip("opendssdirect")
    loads = [(sign * p, abs(sign) * q) for p, q in LOADS]
    network = feeder(street(loads=loads))
    vreg, band, pt, ct = 120.0, 2.0, 20.0, 700.0
    command = dss.Text.Command
    command("clear")
    command(
        f"new circuit.street basekv={KV} pu=1.0 bus1=source phases=3 basefreq=60 z1=[1e-9 1e-9] "
        "z0=[1e-9 1e-9] z2=[1e-9 1e-9]"
    )
    command("set defaultbasefrequency=60")
    for name, ends in (("in", ("source", "in")), ("out", ("out", "end"))):
        command(
            f"new line.{name} bus1={ends[0]} bus2={ends[1]} phases=3 length=1 units=km r1=0.3 x1=0.6 "
            "r0=0.7 x0=1.9 c1=0 c0=0 basefreq=60"
        )
    phase_kv = KV / np.sqrt(3)
    drop = "" if line_drop is None else f" r={line_drop[0]} x={line_drop[1]}"
    for phase, (p, q) in enumerate(loads, 1):
        command(
            f"new transformer.reg{phase} phases=1 windings=2 buses=[in.{phase} out.{phase}] "
            f"kvs=[{phase_kv} {phase_kv}] kvas=[{KVA} {KVA}] xhl={np.sqrt(1 - 0.01)} %loadloss=0.1 "
            "ppm_antifloat=0 wdg=2 numtaps=32 maxtap=1.1 mintap=0.9"
        )
        command(
            f"new regcontrol.reg{phase} transformer=reg{phase} winding=2 vreg={vreg} band={band} "
            f"ptratio={pt} ctprim={ct} maxtapchange=1{drop}"
        )
        command(
            f"new load.town{phase} phases=1 bus1=end.{phase} kv={phase_kv} kw={p * 1e3} kvar={q * 1e3} "
            "model=1 vminpu=0.1 vmaxpu=3"
        )
    command(f"set voltagebases=[{KV}]")
    command("calcvoltagebases")
    command("set maxcontroliter=200 tolerance=1e-9")
    command("solve")
    assert dss.Solution.Converged()
    taps = []
    for phase in range(1, 4):
        dss.Transformers.Name(f"reg{phase}")
        dss.Transformers.Wdg(2)
        taps.append((dss.Transformers.Tap() - 1) / 0.00625)
    volts = np.empty((4, 3))
    for place, name in enumerate(("source", "in", "out", "end")):
        dss.Circuit.SetActiveBus(name)
        volts[place] = np.abs(np.array(dss.Bus.Voltages()).view(complex)) / (phase_kv * 1e3)

    volt = pt / (phase_kv * 1e3)  # pu of a volt at the control
    over = {"target_pu": vreg * volt, "deadband_pu": band * volt}
    if line_drop is not None:
        over["line_drop"] = {"r_ohm": line_drop[0] * pt / ct, "x_ohm": line_drop[1] * pt / ct}
    regulators, solver = held(network, **over)
    p, q = network.grid.loads.p_kw[np.newaxis], network.grid.loads.q_kvar[np.newaxis]

    def solve(some, at):
        return solver.solve(p[some], q[some], positions=at)

    _, _, after = regulators.step(solve, 60.0)
    assert after.tap[0, 0].tolist() == pytest.approx(taps, abs=1e-9)
    assert len(set(taps)) > 1
    at_last = solver.solve(p, q, positions=Positions(after.tap, after.shunt))
    np.testing.assert_allclose(at_last.voltage_pu[0], volts, rtol=0, atol=2e-6)
    assert after.tap_operations[0, 0] == np.abs(after.tap[0, 0]).sum()


def test_members_have_their_own_taps_and_none_depends_on_another(feeder):
    network = feeder(street())
    loads = network.grid.loads
    factors = np.array([0.2, 1.0, -0.5, 0.7])[:, np.newaxis, np.newaxis]
    p, q = loads.p_kw * factors, loads.q_kvar * factors

    def after(some):
        regulators, solver = held(network, len(some), target_pu=1.01)
        return regulators.step(
            lambda rows, at: solver.solve(p[some][rows], q[some][rows], positions=at), 60.0
        )

    flow, mean, state = after([0, 1, 2, 3])
    assert state.tap.shape == mean["tap"].shape == (4, 1, 3)
    assert len(np.unique(state.tap.reshape(4, 3), axis=0)) == 4
    assert (np.abs(flow.voltage_pu[:, 2] - 1.01) <= 0.01 + 1e-12).all()
    for member in range(4):
        alone, _, of_one = after([member])
        assert np.array_equal(of_one.tap[0], state.tap[member])
        assert np.array_equal(alone.voltage_pu[0], flow.voltage_pu[member])


def test_a_run_records_the_taps_of_each_phase(tmp_path):
    path = tmp_path / "net.json"
    pp.to_json(street(), str(path))
    scenario = {
        "name": "street",
        "time": {"start": "2026-01-12T00:00", "duration": "10min", "step": "1min"},
        "feeder": {
            "network": str(path), "base_load": {"source": "net"},
            "tap_changers": [{"trafo": "R", "deadband_pu": 0.02, "delay": "60s", "phases": "each"}],
        },
    }  # fmt: skip
    result = run(scenario_from(scenario))
    taps = result["trafo_phase_tap"].values[0, :, 0]
    assert taps[0].tolist() == [0, 0, 0]
    assert taps[-1, 0] > taps[-1, 2] > taps[-1, 1]
    assert result["trafo_tap"].values[0, :, 0] == pytest.approx(taps.mean(axis=1))
    assert result["trafo_operations"].values.item() == np.abs(taps[-1]).sum()
    scenario["feeder"]["tap_changers"][0]["phases"] = "all"
    assert "trafo_phase_tap" not in run(scenario_from(scenario))


REFUSED = {
    "balanced": ({"phases": 1}, {}, "needs a network solved in three phases"),
    "solver": ({"solver": "pandapower"}, {}, "phases = each: needs the solver z-bus, not pandapower"),
    "delta": ({}, {"side": "hv", "group": "Dyn", "shift": 30.0},
              "the tap changer of 'R' is at the high voltage of a transformer Dyn of 30 degrees; must be"),
    "turned": ({}, {"shift": 120.0}, "at the low voltage of a transformer YNyn of 120 degrees; must be on"),
    "twice": ({"more": [{"trafo": "R", "deadband_pu": 0.02}]}, {}, "two regulators move 'R'"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_has_no_taps_of_its_own_is_refused(case, tmp_path):
    settings, network, message = REFUSED[case]
    path = tmp_path / "net.json"
    pp.to_json(street(**network), str(path))
    changers = [{"trafo": "R", "deadband_pu": 0.02, "phases": "each"}, *settings.pop("more", [])]
    feeder = Feeder.model_validate({"network": str(path), "tap_changers": changers, **settings})
    with pytest.raises(ScenarioError, match=message):
        devices(feeder, load_network(feeder))


def test_a_case_beyond_the_limit_has_no_other_solver(feeder):
    network = feeder(street())
    p, q = (50 * power[np.newaxis] for power in (network.grid.loads.p_kw, network.grid.loads.q_kvar))
    taps = np.array([[[1, 2, 3]]])
    with pytest.raises(PowerFlowError, match="neither power-grid-model nor pandapower, the next ones"):
        make_solver(network).solve(p, q, positions=Positions(taps, np.zeros((1, 0), np.int64)))
