"""Volt-var in equilibrium with the feeder: ``coupling: iterated`` against two independent solutions.

The chargers have rated power to spare, so that the curve alone decides; the ticks of 60 s are much longer
than the response times of 5 and 10 s, and the run lasts until nothing moves.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ruamel.yaml import YAML
from tests.support.opendss import build_circuit, solve

import evgrid
from evgrid.scenario import scenario_from

CASE = YAML(typ="safe").load((Path(__file__).parent / "volt_var_european_lv" / "case.yaml").read_text())
CURVES = list(CASE["curves"])
TICKS = 8


@pytest.fixture(scope="module")
def tables():
    """pandapower's tables of the feeder, reactive power and magnetising branch put right, without load."""
    import pandapower.networks as pn

    net = pn.ieee_european_lv_asymmetric("on_peak_566")
    net.trafo["mag0_percent"] = 1e9
    return net


@pytest.fixture(scope="module")
def houses(tables):
    """Name, bus and phase of each house."""
    loads = tables.asymmetric_load
    power = loads[["p_a_mw", "p_b_mw", "p_c_mw"]].to_numpy()
    assert ((power > 0).sum(axis=1) == 1).all()
    return loads["name"].tolist(), loads["bus"].to_numpy(), power.argmax(axis=1)


@pytest.fixture(scope="module")
def coupled(houses, tmp_path_factory):
    """Runs the case through evgrid; by curve and coupling."""
    path = tmp_path_factory.mktemp("volt-var") / "sessions.csv"
    rows = [f"car {name},{name},2026-01-15T10:00,2026-01-16T18:00,0.2,500" for name in houses[0]]
    path.write_text("\n".join(["ev,connection,arrival,departure,soc_arrival,capacity_kwh", *rows]) + "\n")
    done = {}

    def run(curve, charging_kw, coupling="iterated", minutes=TICKS):
        key = (curve, charging_kw, coupling, minutes)
        if key not in done:
            done[key] = evgrid.run(
                scenario_from(
                    {
                        "name": "volt-var",
                        "time": {"start": "2026-01-15T12:00", "duration": f"{minutes}min", "step": "60s"},
                        "feeder": {"network": CASE["network"], "base_load": {"source": CASE["base_load"]}},
                        "fleet": {
                            "sessions": {"file": str(path)},
                            "charger": {
                                "power_kw": charging_kw, "apparent_kva": CASE["rating_kva"],
                                "phases": 1, "functions": {"volt_var": curve, "nominal_hz": 50},
                            },
                        },
                        "coupling": coupling,
                    }
                )
            )  # fmt: skip
        return done[key]

    return run


def injected_kvar(curve, voltage_pu):
    """Reactive power that each charger injects, by the curve of the standard."""
    at, percent = np.array(CASE["curves"][curve]).T
    return np.interp(voltage_pu, at, percent) / 100 * CASE["rating_kva"]


def fixed_point(net, houses, curve, charging_kw):
    """Voltages of the low-voltage buses in equilibrium, (bus, phase) complex, pu, and reactive power
    injected, (house,) kvar: nodal admittances in three phases, written down from the tables.

    The source is ideal, a Dyn transformer with equal impedances in all sequences is an ideal source behind
    its impedance, and nothing draws a charging current.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.linalg import splu

    trafo = net.trafo.iloc[0]
    assert (trafo.vk_percent, trafo.vkr_percent) == (trafo.vk0_percent, trafo.vkr0_percent)
    assert not net.line[["c_nf_per_km", "c0_nf_per_km", "g_us_per_km"]].to_numpy().any()
    nominal_v = 1e3 * trafo.vn_lv_kv / np.sqrt(3)
    base_ohm = trafo.vn_lv_kv**2 / trafo.sn_mva
    r = trafo.vkr_percent / 100
    behind = 1 / (base_ohm * (r + 1j * np.sqrt((trafo.vk_percent / 100) ** 2 - r**2)))
    source = net.ext_grid.vm_pu[0] * nominal_v * np.exp(-2j * np.pi / 3 * np.arange(3))

    lines, km = net.line, net.line.length_km.to_numpy()
    z1, z0 = (
        km * (lines[f"r{k}_ohm_per_km"].to_numpy(float) + 1j * lines[f"x{k}_ohm_per_km"].to_numpy(float))
        for k in ("", "0")
    )
    own, mutual = (z0 + 2 * z1) / 3, (z0 - z1) / 3
    y = np.linalg.inv(own[:, None, None] * np.eye(3) + mutual[:, None, None] * (1 - np.eye(3)))
    first, last = (lines[end].to_numpy() - 1 for end in ("from_bus", "to_bus"))  # bus 0 is the source
    count, phases = len(net.bus) - 1, np.arange(3)
    rows, columns, values = [], [], []
    for at, to, sign in ((first, first, 1), (last, last, 1), (first, last, -1), (last, first, -1)):
        rows.append(np.broadcast_to(3 * at[:, None, None] + phases[:, None], y.shape).ravel())
        columns.append(np.broadcast_to(3 * to[:, None, None] + phases, y.shape).ravel())
        values.append(sign * y.ravel())
    rows.append(phases + 3 * (trafo.lv_bus - 1))
    columns.append(rows[-1])
    values.append(np.full(3, behind))
    entries = (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns)))
    solve = splu(coo_array(entries, (3 * count, 3 * count)).tocsc()).solve

    _, bus, phase = houses
    node = 3 * (bus - 1) + phase
    volts, kvar = np.tile(source, count), np.zeros(len(bus))
    for _ in range(400):
        current = np.zeros(3 * count, complex)
        current[3 * (trafo.lv_bus - 1) + phases] = behind * source
        current[node] -= np.conj(1e3 * (charging_kw - 1j * kvar) / volts[node])
        volts, before = solve(current), volts
        step = injected_kvar(curve, np.abs(volts[node]) / nominal_v) - kvar
        kvar = kvar + 0.2 * step
        if np.abs(step).max() < 1e-9 and np.abs(volts - before).max() < 1e-9:
            return volts.reshape(count, 3) / nominal_v, kvar
    raise AssertionError("the reference does not converge")


def opendss(dss, net, houses, curve, charging_kw):
    """The same of OpenDSS, once its controls have converged; voltages as magnitudes."""
    run, kv = dss.Text.Command, net.trafo.vn_lv_kv[0] / np.sqrt(3)
    build_circuit(dss, net)
    at, percent = np.array(CASE["curves"][curve]).T
    at = at + np.arange(len(at)) * 1e-12  # no two points at one voltage
    at, percent = np.r_[0.5, at, 1.5], np.r_[percent[0], percent, percent[-1]]  # OpenDSS extrapolates
    run(f"new xycurve.vv npts={len(at)} xarray={at.tolist()} yarray={(percent / 100).tolist()}")
    rating = CASE["rating_kva"]
    wide = "model=1 vminpu=0.5 vmaxpu=1.5"
    for place, (bus, phase) in enumerate(zip(*houses[1:], strict=True)):
        where = f"phases=1 bus1=b{bus}.{phase + 1} kv={kv}"
        run(f"new load.h{place} {where} kw={charging_kw} kvar=0 {wide}")
        run(
            f"new pvsystem.h{place} {where} kva={rating} pmpp={rating} irradiance=1e-9 %cutin=0 %cutout=0 "
            f"varfollowinverter=false kvarmax={rating} kvarmaxabs={rating} {wide}"
        )
    run(
        "new invcontrol.vv mode=voltvar vvc_curve1=vv voltage_curvex_ref=rated refreactivepower=varmax "
        "deltaq_factor=0.2 voltagechangetolerance=1e-9 varchangetolerance=1e-9"
    )
    run("set tolerance=1e-11 maxiterations=1000 maxcontroliter=5000 controlmode=static")
    volts = solve(dss, net)
    assert dss.Solution.ControlActionsDone()
    kvar = []
    for place in range(len(houses[1])):
        dss.Circuit.SetActiveElement(f"pvsystem.h{place}")
        kvar.append(-dss.CktElement.Powers()[1])
    return volts, np.array(kvar)


def last(result, net):
    """Voltages of the low-voltage buses in the last tick."""
    names = net.bus["name"].astype(str).tolist()
    return result["voltage_pu"].isel(member=0, time=-1).sel(bus=names).values[1:]


every_case = pytest.mark.parametrize(
    ("curve", "charging_kw"), [(curve, kw) for curve in CURVES for kw in CASE["charging_kw"]]
)


@every_case
def test_iterated_is_the_fixed_point(curve, charging_kw, coupled, tables, houses):
    result = coupled(curve, charging_kw)
    assert result.attrs["unconverged_members"] == "{}"
    assert float(result["coupling_residual"].max()) <= 1e-6
    assert float(result["coupling_iterations"].max()) <= 30
    volts, injected = fixed_point(tables, houses, curve, charging_kw)
    assert np.abs(last(result, tables) - np.abs(volts)).max() <= CASE["tolerance_pu"]["fixed_point"]
    assert -float(result["fleet_reactive_kvar"][0, -1]) == pytest.approx(injected.sum(), abs=1e-3)
    assert np.ptp(injected) > 0.1  # along the curve


@every_case
def test_iterated_is_what_opendss_finds(curve, charging_kw, coupled, tables, houses):
    dss = pytest.importorskip("opendssdirect")
    result = coupled(curve, charging_kw)
    volts, injected = opendss(dss, tables, houses, curve, charging_kw)
    assert np.abs(last(result, tables) - volts).max() <= CASE["tolerance_pu"]["opendss"]
    assert -float(result["fleet_reactive_kvar"][0, -1]) == pytest.approx(injected.sum(), abs=1e-3)


@pytest.mark.parametrize(("curve", "still_moves_pu"), [("vde_ar_n_4105", 0.02), ("ieee_1547_b", 1e-4)])
def test_lagged_swings_at_a_coarse_tick(curve, still_moves_pu, coupled):
    """Ticks of 60 s against 10 s and 5 s of response: each tick answers the voltage of the one before."""
    lagged, iterated = coupled(curve, 0.2, "lagged", 40), coupled(curve, 0.2)
    swing = np.abs(np.diff(lagged["voltage_pu"].values[0, -3:], axis=0)).max()
    assert swing > still_moves_pu
    assert np.abs(np.diff(iterated["voltage_pu"].values[0, -3:], axis=0)).max() < 1e-6
