"""The feeder as a model: ports, deferral, ensembles, audit, failures."""

from __future__ import annotations

import numpy as np
import pytest

from evgrid.core.model import MemoryRecorder
from evgrid.core.ports import PORTS
from evgrid.errors import NetworkError, PowerFlowError
from evgrid.feeder.model import BATCH_CASES, VARIABLES, FeederModel
from evgrid.feeder.solvers import balance
from evgrid.scenario import scenario_from


@pytest.fixture
def run(feeder):
    """Runs a feeder alone; the EVs' power is drawn by member number and step."""

    def run(network="european_lv", fleet=True, feedback=False, members=1, first=0, hours=2, step="5min",
            factor=1.0, base=None, step_s=None, overload=None, record=None, **over):  # fmt: skip
        content = {
            "name": "test",
            "time": {"start": "2026-01-15T17:00", "duration": f"{hours}h", "step": step},
            "ensemble": {"members": members, "first": first, "seed": 7},
            "feeder": {"network": network, "base_load": base or {}, "step": step_s, **over},
            "record": record or {},
        }
        scenario = scenario_from(content)
        loaded = feeder(network)
        recorder = MemoryRecorder()
        model = FeederModel(scenario, loaded, recorder, fleet=fleet, feedback=feedback)
        shape = (len(loaded.connections), len(loaded.connections.phases))
        given, outputs = np.zeros(members), []
        for tick in range(0, scenario.clock.ticks, round(model.period_s / scenario.time.step)):
            inputs = {}
            if fleet:
                draws = [np.random.default_rng((m, tick)).random(shape) for m in scenario.members]
                inputs["fleet/p"] = factor * np.array(draws)
                if overload is not None and tick >= overload[1]:
                    inputs["fleet/p"][overload[0]] *= 1e6
                inputs["fleet/q"] = 0.1 * inputs["fleet/p"]
                given += [np.sum(one) for one in inputs["fleet/p"]]
            outputs.append(model.step(tick * scenario.time.step, inputs))
            for name, values in outputs[-1].items():
                sizes = {"member": members, **loaded.sizes}
                assert np.shape(values) == PORTS[name].array_shape(sizes)
        model.finish()
        return recorder, model, outputs, given

    return run


def assert_same(one, other, members=slice(None)):
    for variable in VARIABLES:
        if variable.timed:
            assert np.array_equal(one[0].series(variable.name)[:, members], other[0].series(variable.name))
    for name, values in one[1].audit().items():
        assert np.array_equal(values[members], other[1].audit()[name]), name


def test_deferred_is_immediate_bit_for_bit(run):
    deferred, immediate = run(members=3), run(members=3, feedback=True)
    assert_same(deferred, immediate)
    assert deferred[2] == [{}] * 24
    assert all(len(outputs) == 3 for outputs in immediate[2])


def test_deferral_in_several_batches(run, monkeypatch):
    whole = run(members=3)
    monkeypatch.setattr("evgrid.feeder.model.BATCH_CASES", 15)
    assert_same(whole, run(members=3))
    assert BATCH_CASES >= 100


def test_a_member_alone_is_the_same_as_in_an_ensemble(run):
    assert_same(run(members=4), run(first=2), slice(2, 3))


@pytest.mark.parametrize("network", ["european_lv", "case33bw", "cigre_lv"])
def test_audit_balances(run, network):
    recorder, model, _, given = run(network, members=2, first=5)
    audit = model.audit()
    assert np.array_equal(audit["power_received_kw_sum"], given)
    parts = audit["base_energy_kwh"] + audit["losses_energy_kwh"] + audit["ev_energy_kwh"]
    assert audit["head_energy_kwh"] == pytest.approx(parts, rel=1e-9)
    assert audit["ev_energy_kwh"] == pytest.approx(given / 12)
    assert np.all(audit["balance_worst"] < 1e-8)
    head = recorder.series("head_power_kw").sum(axis=(0, 2)) / 12
    assert head == pytest.approx(audit["head_energy_kwh"])


def test_outputs_are_those_recorded(run, feeder):
    recorder, _, outputs, _ = run(members=2, feedback=True)
    bus = feeder("european_lv").connections.bus
    assert outputs[-1]["feeder/voltage"] == pytest.approx(recorder.series("voltage_pu")[-1][:, bus], abs=1e-6)
    assert np.array_equal(outputs[-1]["feeder/head_p"], recorder.series("head_power_kw")[-1])
    assert np.all(outputs[-1]["feeder/voltage"] > 0)
    trafo = outputs[-1]["feeder/trafo_p"][:, 0]  # all power passes the only transformer
    assert trafo == pytest.approx(recorder.series("head_power_kw")[-1].sum(axis=1))


def test_a_slower_feeder_keeps_its_own_period(run):
    slow, fast = run(step="1min", fleet=False, step_s="15min"), run(step="1min", fleet=False)
    assert len(slow[0].series("losses_kw")) == 8
    assert len(fast[0].series("losses_kw")) == 120
    assert slow[1].audit()["base_energy_kwh"] == pytest.approx(fast[1].audit()["base_energy_kwh"])


def test_recorded_shapes_and_static_facts(run, feeder):
    recorder, _, _, _ = run("cigre_lv", members=2)
    sizes = {"member": 2, **feeder("cigre_lv").sizes}
    for variable in VARIABLES:
        shape = tuple(sizes[dim] for dim in variable.dims)
        if variable.timed:
            assert recorder.series(variable.name).shape == (24, *shape)
        else:
            assert recorder.static[variable.name].shape == shape


def test_members_without_difference_are_solved_once(run):
    recorder, _, _, _ = run("case33bw", fleet=False, members=3, base={"source": "net"})
    losses = recorder.series("losses_kw")
    assert losses.shape == (24, 3)
    assert losses == pytest.approx(202.677, abs=1e-3)


def test_fixed_generation_counts_as_base_load(run, feeder, small_net, tmp_path):
    import pandapower as pp

    path = tmp_path / "small.json"
    pp.to_json(small_net(True), str(path))
    _, model, _, _ = run(str(path), base={"source": "net"})
    audit = model.audit()
    parts = audit["base_energy_kwh"] + audit["losses_energy_kwh"] + audit["ev_energy_kwh"]
    assert audit["head_energy_kwh"] == pytest.approx(parts, rel=1e-9)


def test_pandapower_solver_runs_the_same_scenario(run):
    fast, reference = (
        run("cigre_lv", hours=1, step="15min", solver=s) for s in ("power-grid-model", "pandapower")
    )
    for name in ("voltage_pu", "trafo_loading"):
        assert fast[0].series(name) == pytest.approx(reference[0].series(name), abs=1e-5)


@pytest.mark.parametrize("feedback", [True, False])
def test_one_member_of_a_hundred_is_given_up_and_the_others_are_kept(run, feedback):
    # member 40 draws 1e6 times too much from the fourth step (17:15) on
    def run_with(**over):
        return run("case33bw", members=100, hours=0.5, feedback=feedback, **over)

    recorder, model, outputs, _ = run_with(overload=(40, 3))
    healthy, sound, _, _ = run_with()
    others = np.arange(100) != 40
    assert np.flatnonzero(np.isfinite(recorder.static["member_failed_s"])).tolist() == [40]
    assert recorder.static["member_failed_s"][40] == 900.0
    assert list(model.failures) == [40]
    assert model.failures[40].startswith("member 40 at 2026-01-15 17:15:00: ")
    for variable in VARIABLES:
        if variable.timed:
            kept, expected = recorder.series(variable.name), healthy.series(variable.name)
            assert np.array_equal(kept[:, others], expected[:, others], equal_nan=True), variable.name
            assert np.array_equal(kept[:3, 40], expected[:3, 40], equal_nan=True)
            assert np.isnan(kept[3:, 40]).all()
    for name, values in model.audit().items():
        assert np.array_equal(values[others], sound.audit()[name][others]), name
        assert np.isfinite(values).all()
    audit = model.audit()
    parts = audit["base_energy_kwh"] + audit["losses_energy_kwh"] + audit["ev_energy_kwh"]
    assert audit["head_energy_kwh"] == pytest.approx(parts, rel=1e-9)
    if feedback:
        assert np.all(outputs[-1]["feeder/voltage"][40] == 0)
        assert all(np.isfinite(values).all() for values in outputs[-1].values())


def test_power_of_a_member_that_was_given_up_is_not_known(run):
    recorder, *_ = run(
        "case33bw", members=3, hours=0.5, overload=(1, 3), record={"connections": True}, feedback=True
    )
    for name in ("connection_power_kw", "connection_ev_reactive_kvar"):
        values = recorder.series(name)
        assert values.shape == (6, 3, 32, 1)
        assert np.isnan(values[3:, 1]).all()
        assert np.isfinite(values[:3]).all()
        assert np.isfinite(values[:, [0, 2]]).all()


def test_a_diverging_member_stops_the_run_where_asked(run):
    with pytest.raises(PowerFlowError, match=r"did not converge: member 1 at 2026-01-15 17:15:00") as caught:
        run("case33bw", members=3, hours=0.5, overload=(1, 3), on_divergence="stop")
    assert caught.value.time_s == 900.0  # the step's own, not the end of its batch


@pytest.mark.parametrize("batch", [BATCH_CASES, 5])
def test_members_that_are_alike_are_given_up_together(run, tmp_path, feeder, monkeypatch, batch):
    """The load of the fourth step of 12 (17:15) has no solution; in one batch, or in several."""
    monkeypatch.setattr("evgrid.feeder.model.BATCH_CASES", batch)
    names = feeder("case33bw").connections.name
    kw = [1.0, 1.0, 1.0, 9e6, *[1.0] * 10]
    rows = [",".join([str(300 * step), *[str(each)] * len(names)]) for step, each in enumerate(kw)]
    (tmp_path / "load.csv").write_text("\n".join([",".join(["time", *names]), *rows]))
    base = {"file": str(tmp_path / "load.csv")}
    recorder, *_ = run("case33bw", fleet=False, members=2, hours=1, base=base, on_divergence="keep")
    assert recorder.static["member_failed_s"].tolist() == [900.0, 900.0]
    assert np.isnan(recorder.series("losses_kw")[3:]).all()
    assert np.isfinite(recorder.series("losses_kw")[:3]).all()
    with pytest.raises(PowerFlowError, match="members 0 to 1 at 2026-01-15 17:15:00") as caught:
        run("case33bw", fleet=False, members=2, hours=1, base=base)
    assert caught.value.time_s == 900.0


def test_unbalance_is_recorded_where_phases_are_solved_separately(run, feeder):
    recorder, model, _, _ = run(members=2, hours=0.5)
    names = {variable.name for variable in model.variables}
    assert {"voltage_unbalance", "neutral_current_a", "trafo_neutral_current_a"} <= names
    unbalance = recorder.series("voltage_unbalance")
    assert unbalance.shape == (6, 2, 907)
    assert 1e-4 < unbalance.max() < 0.02
    neutral = recorder.series("neutral_current_a")
    assert neutral.max() == pytest.approx(recorder.series("trafo_neutral_current_a").max(), rel=0.02)
    without, model, _, _ = run(members=2, hours=0.5, unbalance=False)
    assert "voltage_unbalance" not in without.timed
    assert np.array_equal(without.series("voltage_pu"), recorder.series("voltage_pu"))
    assert "voltage_unbalance" not in run("cigre_lv", hours=0.5)[0].timed


@pytest.mark.parametrize("feedback", [True, False])
def test_a_diverging_flow_names_member_and_time(run, feedback):
    with pytest.raises(
        PowerFlowError, match=r"with z-bus did not converge: member 17 at 2026-01-15 17:00:00: "
    ):
        run("case33bw", first=17, members=2, factor=1e6, feedback=feedback)


def test_a_diverging_flow_of_all_members_names_them(run, monkeypatch):
    monkeypatch.setattr("evgrid.feeder.solvers.z_bus.MOST_ITERATIONS", 1)
    monkeypatch.setattr("evgrid.feeder.solvers.power_grid_model.MAX_ITERATIONS", 1)
    with pytest.raises(PowerFlowError, match=r"members 3 to 5 at 2026-01-15 17:00:00: .*; and 19 more"):
        run("case33bw", fleet=False, first=3, members=3, base={"source": "net"})


def test_a_flow_that_does_not_balance_names_member_and_time(run, monkeypatch):
    def broken(flow, p_kw):
        residual = balance(flow, p_kw)
        residual[5] = 1e-3
        return residual

    monkeypatch.setattr("evgrid.feeder.solvers.interface.balance", broken)
    with pytest.raises(
        PowerFlowError, match=r"power flow of member 1 at 2026-01-15 17:10:00 does not balance"
    ):
        run(members=2)


def test_a_network_that_the_solver_refuses(run, small_net, tmp_path):
    import pandapower as pp

    net, path = small_net(False), tmp_path / "small.json"
    net.line.loc[3, ["r_ohm_per_km", "x_ohm_per_km"]] = 0.0
    pp.to_json(net, str(path))
    with pytest.raises(NetworkError, match="line 'line 3' can't be represented"):
        run(str(path))
