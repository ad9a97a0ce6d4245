"""Recorded powers of connection points and generators rebuild the snapshot of each moment.

The powers of one moment go into a fresh net of pandapower, or a fresh circuit of OpenDSS, which solves it to
the recorded voltages. Those and the powers are kept in single precision (6e-8 of their value).
"""

import numpy as np
import pandapower as pp
import pytest

import evgrid
from evgrid.feeder.networks import find_network
from evgrid.runs.batch import load_batch, run_batch

STIFF = {"s_sc_max_mva": 1e9, "rx_max": 0.1, "x0x_max": 1.0, "r0x0_max": 0.1}
"""Source whose voltage stands still, also in the zero sequence."""

TIME = {"start": "2026-01-15T17:00", "duration": "45min", "step": "15min"}


def run(network, record=None, fleet=None, **over):
    content = {
        "name": "powers",
        "time": TIME,
        "communication": {"telemetry": "15min"},
        "feeder": {"network": network, "base_load": {"source": "standard"}},
        "fleet": {"penetration": 0.8} if fleet is None else fleet,
        "record": {"connections": True, **(record or {})},
    }
    return evgrid.run(content | over)


def moment(result, time=-1, member=0):
    """All power drawn at each connection point, MW and Mvar, as tables by phase."""
    at = result.isel(time=time, member=member)
    found = []
    for quantity in ("power_kw", "reactive_kvar"):
        drawn = at[f"connection_{quantity}"]
        if f"connection_ev_{quantity}" in at:
            drawn = drawn + at[f"connection_ev_{quantity}"]
        found.append(drawn.to_pandas() / 1e3)
    return found


def loads_by_bus(net):
    """Buses of the loads in service, in the order of the connection points."""
    return [int(bus) for table in ("load", "asymmetric_load") for bus in net[table]["bus"]]


def give_power(net, table, buses, p, q):
    """Replace loads or generators of a net, by the phases of the tables of power."""
    for old in (table, f"asymmetric_{table}"):
        net[old] = net[old].iloc[:0].copy()
    for bus, (_, mw), (_, mvar) in zip(buses, p.iterrows(), q.iterrows(), strict=True):
        if "abc" in mw:
            getattr(pp, f"create_{table}")(net, bus, mw["abc"], mvar["abc"], type="wye")
            continue
        parts = {f"p_{x}_mw": mw[x] for x in "abc"} | {f"q_{x}_mvar": mvar[x] for x in "abc"}
        getattr(pp, f"create_asymmetric_{table}")(net, bus, type="wye", **parts)


def voltages_of(net):
    """Voltages, (bus, phase), pu, as pandapower solves the net."""
    if not len(net.asymmetric_load):
        pp.runpp(net, calculate_voltage_angles=True, tolerance_mva=1e-10)
        return net.res_bus[["vm_pu"]].to_numpy()
    net.sn_mva = 1e-3  # runpp_3ph stops at a mismatch of 3e-8 of it
    for column, value in STIFF.items():
        net.ext_grid[column] = value
    pp.runpp_3ph(net, tolerance_mva=1e-10, max_iteration=100)
    return net.res_bus_3ph[["vm_a_pu", "vm_b_pu", "vm_c_pu"]].to_numpy()


@pytest.mark.parametrize(("network", "phases"), [("european_lv", 3), ("cigre_lv", 1), ("case33bw", 1)])
def test_fresh_net_of_pandapower_has_the_recorded_voltages(network, phases):
    result = run(network, fleet={"penetration": 0.8, "charger": {"phases": 1 if phases == 3 else 3}})
    assert result.connection_power_kw.dims == ("member", "time", "connection", "phase")
    assert result.connection_power_kw.sizes["phase"] == phases
    ev = result.connection_ev_power_kw.sum(["connection", "phase"])
    assert float(ev.max()) > 5
    np.testing.assert_allclose(ev, result.fleet_power_kw, rtol=1e-6)
    base = result.connection_power_kw.sum(["connection", "phase"])
    np.testing.assert_allclose(base, result.base_load_kw, rtol=1e-6)
    assert "generator_power_kw" not in result
    net = find_network(network)[0]()
    give_power(net, "load", loads_by_bus(net), *moment(result))
    assert np.nanmax(np.abs(voltages_of(net) - result.voltage_pu[0, -1].values)) < 1e-6


@pytest.mark.parametrize("three_phase", [True, False])
def test_generators_and_loads_that_depend_on_the_voltage(three_phase, small_net, tmp_path):
    """PV inverters with volt-var; balanced, the loads depend on the voltage (runpp_3ph leaves that out)."""
    net = small_net(three_phase)
    if not three_phase:
        net.load[["const_z_p_percent", "const_z_q_percent"]] = 60.0, 30.0
    pp.to_json(net, str(tmp_path / "net.json"))
    result = run(
        str(tmp_path / "net.json"),
        feeder={
            "network": str(tmp_path / "net.json"), "base_load": {"source": "net"},
            "pv": {"functions": {"volt_var": "ieee_1547_b"}},
        },
        fleet={"count": 4, "charger": {"phases": 1 if three_phase else 3}},
    )  # fmt: skip
    power = result.generator_power_kw.isel(member=0, time=-1)
    reactive = result.generator_reactive_kvar.isel(member=0, time=-1)
    assert float(np.abs(reactive).sum()) > 0.1
    buses = net.bus.reset_index().set_index("name")["index"]
    at = [int(buses[name]) for name in result.generator_bus.values]
    mw, mvar = moment(result)
    loads = loads_by_bus(net)
    if not three_phase:  # the shares of constant impedance of the loads themselves, as shunts
        here = result.isel(member=0, time=-1)
        z_mw = 0.6 * here.connection_power_kw.to_pandas() / 1e3
        z_mvar = 0.3 * here.connection_reactive_kvar.to_pandas() / 1e3
        mw, mvar = mw - z_mw, mvar - z_mvar
        for bus, p, q in zip(loads, z_mw["abc"], z_mvar["abc"], strict=True):
            pp.create_shunt(net, bus, p_mw=p, q_mvar=q)
    give_power(net, "load", loads, mw, mvar)
    give_power(net, "sgen", at, power.to_pandas() / 1e3, reactive.to_pandas() / 1e3)
    assert np.nanmax(np.abs(voltages_of(net) - result.voltage_pu[0, -1].values)) < 1e-6


CIRCUIT = """Clear
Set DefaultBaseFrequency=60
New Circuit.c basekv=12.47 bus1=src pu=1.01 r1=0 x1=1e-6 r0=0 x0=1e-6
New Line.main bus1=src.1.2.3 bus2=mv.1.2.3 r1=0.3 x1=0.4 r0=0.9 x0=1.2 c1=0 c0=0 length=2 units=km
New Transformer.t phases=1 windings=3 xhl=2 xht=2 xlt=1.4
~ wdg=1 bus=mv.2 kv=7.2 kva=25 %r=0.6
~ wdg=2 bus=tx.1.0 kv=0.12 kva=25 %r=1.2
~ wdg=3 bus=tx.0.2 kv=0.12 kva=25 %r=1.2
New Line.drop phases=2 bus1=tx.1.2 bus2=home.1.2 r1=0.5 x1=0.2 r0=0.5 x0=0.2 c1=0 c0=0 length=0.03 units=km
New Transformer.t3 phases=3 windings=2 xhl=4
~ wdg=1 bus=mv conn=delta kv=12.47 kva=300 %r=0.5
~ wdg=2 bus=shop conn=wye kv=0.208 kva=300 %r=0.5
New Load.leg phases=1 bus1=home.1 kv=0.12 kw=1.2 kvar=0.2
New Load.oven phases=1 bus1=home.1.2 kv=0.24 kw=3 kvar=0 model=2
New Load.shop phases=3 bus1=shop kv=0.208 kw=30 kvar=9 model=8 zipv=[0.3 0.3 0.4 0.5 0.2 0.3 0.6]
New Load.delta phases=3 conn=delta bus1=mv kv=12.47 kw=90 kvar=20
New Load.single phases=1 bus1=mv.3 kv=7.2 kw=50 kvar=20 model=5
New Generator.g phases=3 bus1=shop kv=0.208 kw=12 kvar=3 model=1
New PVSystem.roof phases=1 bus1=home.1.2 kv=0.24 kva=5 pmpp=4 irradiance=0.8
New Capacitor.cap bus1=mv kvar=60 kv=12.47
Set voltagebases=[12.47 0.208]
CalcVoltageBases
"""

NODE = {"a": 1, "b": 2, "c": 3, "s1": 1, "s2": 2}


def voltages_of_engine(path, result, time=-1):
    """Voltages of a fresh circuit with the powers of a moment, by node, pu; EVs draw constant power."""
    dss = pytest.importorskip("dss").DSS.NewContext()
    dss.AllowForms = False
    dss.Text.Command = f'redirect "{path}"'
    here = result.isel(member=0, time=time)
    by_load = [here[f"connection_{q}"].sum("phase").to_series() for q in ("power_kw", "reactive_kvar")]
    for name in here.connection.values:
        kw, kvar = (power[name] for power in by_load)
        dss.Text.Command = f"edit load.{name} kw={float(kw)!r} kvar={float(kvar)!r}"
        at = here.sel(connection=name)
        ports = str(at.connection_phase.values)
        ports = ports.split() if " " in ports or "-" in ports else list(ports)
        ev_kw = at.connection_ev_power_kw.values
        ev_kw = ev_kw if len(ports) == 3 else [ev_kw.sum()]
        for slot, (port, power) in enumerate(zip(ports, ev_kw, strict=True)):
            nodes = ".".join(str(NODE[one]) for one in port.split("-"))
            kv = 1.0  # any: at constant power it says only where that ends
            dss.Text.Command = (
                f"new load.ev_{name}_{slot} phases=1 bus1={at.connection_bus.values}.{nodes} kv={kv} "
                f"kw={float(power)!r} kvar=0 model=1 vlowpu=1e-6 vminpu=1e-5 vmaxpu=1e5"
            )
    for name in here.generator.values:
        power = here.sel(generator=name)
        kw = float(power.generator_power_kw.sum())
        if name.startswith("pv "):
            dss.Text.Command = f"edit pvsystem.{name[3:]} pmpp={kw!r} irradiance=1"
        else:
            kvar = float(power.generator_reactive_kvar.sum())
            dss.Text.Command = f"edit generator.{name} kw={float(kw)!r} kvar={float(kvar)!r}"
    dss.Text.Command = "set tolerance=1e-11 maxiterations=200"
    dss.ActiveCircuit.Solution.Solve()
    assert dss.ActiveCircuit.Solution.Converged
    circuit = dss.ActiveCircuit
    return dict(zip((n.lower() for n in circuit.AllNodeNames), circuit.AllBusVmagPu, strict=True))


@pytest.mark.parametrize("solver", ["opendss", "z-bus"])
def test_fresh_circuit_of_opendss_has_the_recorded_voltages(solver, tmp_path):
    path = tmp_path / "net.dss"
    path.write_text(CIRCUIT)
    result = run(
        str(path),
        feeder={"network": str(path), "solver": solver, "base_load": {"source": "net"}},
        fleet={"count": 60, "charger": {"nominal_v": 240}},
    )
    assert result.connection_phase.values.tolist() == ["s1-s2", "s1-s2", "a-b b-c c-a", "a-b b-c c-a", "c"]
    at_evs = result.connection_ev_power_kw.isel(member=0, time=-1).values
    assert (at_evs > 0).sum() >= 5
    assert result.generator.values.tolist() == ["g", "pv roof"]
    assert result.generator_power_kw[0, -1].sum("phase").values == pytest.approx([12.0, 3.2])
    by_node = voltages_of_engine(path, result)
    names = result.bus.values.tolist()
    recorded = result.voltage_pu[0, -1].values
    worst = max(
        abs(by_node[f"{bus}.{slot + 1}"] - recorded[k, slot])
        for k, bus in enumerate(names)
        for slot in range(3)
        if f"{bus}.{slot + 1}" in by_node
    )
    assert worst < 1e-6


def test_a_batch_keeps_the_powers_of_each_network(scheduler, tmp_path):
    (tmp_path / "base.yaml").write_text(
        "name: base\ntime: {start: 2026-01-15T17:00, duration: 30min, step: 15min}\n"
        "ensemble: {members: 2, seed: 3}\ncommunication: {telemetry: 15min}\n"
        "feeder: {network: cigre_lv}\nfleet: {count: 6, charger: {phases: 3}}\nrecord: {connections: true}\n"
    )
    (tmp_path / "batch.yaml").write_text(
        "name: nets\nbase: base.yaml\nlist:\n  balanced: {}\n"
        "  three: {feeder.network: european_lv, fleet.charger.phases: 1}\n"
    )
    run_batch(load_batch(tmp_path / "batch.yaml"), tmp_path / "out", scheduler=scheduler)
    with evgrid.open_batch(tmp_path / "out") as found:
        for case, changes in enumerate(({}, {"feeder.network": "european_lv", "fleet.charger.phases": 1})):
            alone = evgrid.run(evgrid.load_scenario(tmp_path / "base.yaml", changes))
            for name in ("connection_power_kw", "connection_ev_power_kw"):
                mine = found[name].isel(case=case).sel(phase=alone.phase)
                at = np.isin(mine.connection.values, alone.connection.values)
                np.testing.assert_array_equal(mine[:, :, at], alone[name])
                assert np.isnan(mine[:, :, ~at]).all()


@pytest.mark.parametrize("members", [1, 2])
def test_without_supply_there_is_no_power_and_evs_upstream_are_counted(members):
    result = run(
        "case33bw",
        ensemble={"members": members, "seed": 2},
        fleet={"count": 5, "upstream": 3, "charger": {"phases": 3}},
        outages=[{"start": "15min", "duration": "15min", "out": "feeder"}],
    )
    power = result.connection_power_kw.sum("phase")
    assert result.connection.values[-1] == "upstream"
    assert (power.isel(connection=-1) == 0).all()
    assert float(power.isel(time=0).sum()) > 0
    assert (power.isel(time=1) == 0).all()
    ev = result.connection_ev_power_kw.sum("phase")
    np.testing.assert_allclose(ev.isel(connection=-1), result.upstream_power_kw, rtol=1e-6)
    np.testing.assert_allclose(ev.sum("connection"), result.fleet_power_kw, rtol=1e-6)


def test_only_where_it_is_asked_for_and_without_evs():
    content = {
        "name": "no EVs", "time": TIME, "ensemble": {"members": 2}, "record": {"connections": True},
        "feeder": {"network": "case33bw", "base_load": {"source": "net"}},
    }  # fmt: skip
    result = evgrid.run(content)
    assert {str(n) for n in result if str(n).startswith("connection_")} == {
        "connection_power_kw", "connection_reactive_kvar",
    }  # fmt: skip
    net = find_network("case33bw")[0]()
    expected = np.broadcast_to(1e3 * net.load["p_mw"], (2, 3, 32))
    np.testing.assert_allclose(result.connection_power_kw[..., 0], expected, rtol=1e-7)
    assert "connection_power_kw" not in evgrid.run(content | {"record": {}})
