"""What EVSEs do in a coupled run when no set-point reaches them."""

import numpy as np
import pytest

import evgrid
from evgrid.scenario import scenario_from

SESSIONS = """ev,connection,arrival,departure,soc_arrival,soc_target,charge_kw
night,Load R1,2026-01-15T19:00,2026-01-16T08:00,0.5,0.8,7.4
slow,Load R11,2026-01-15T19:00,2026-01-16T08:00,0.5,0.6,2.0
late,Load R1,2026-01-16T02:10,2026-01-16T06:10,0.2,0.59,7.4
"""


def run(tmp_path, **communication):
    (tmp_path / "sessions.csv").write_text(SESSIONS)
    content = {
        "name": "fallback",
        "time": {"start": "2026-01-15T18:00", "duration": "14h", "step": "5min"},
        "feeder": {"network": "cigre_lv", "base_load": {"source": "none"}},
        "fleet": {"sessions": {"file": "sessions.csv"}, "charger": {"phases": 3}},
        "tariff": "pge_ev2a",
        "aggregators": {"main": {"strategy": "tou"}},
        "communication": {"timeout": "10min", **communication},
        "record": {"ev": True},
    }
    return evgrid.run(scenario_from(content, folder=tmp_path))


def test_with_every_set_point_lost_the_evse_follows_its_schedule(tmp_path):
    schedule = [{"from": "22:00", "until": "06:00", "power_kw": 3.7}]
    result = run(tmp_path, loss=1.0, fallback="schedule", schedule=schedule)
    power = result["ev_power_kw"].values.reshape(14, 12, 3)  # hour, tick, EV
    # night: 18 kWh in the battery are 20 at the meter; 3.7 kW from 22:00 on for 5 h 24 min 19.5 s.
    assert power[:4, :, 0] == pytest.approx(np.zeros((4, 12)))
    assert power[4:9, :, 0] == pytest.approx(np.full((5, 12), 3.7))
    assert power[9, :4, 0] == pytest.approx(np.full(4, 3.7))
    assert power[9, 4, 0] == pytest.approx(12 * (20 - 3.7 * (5 + 20 / 60)))
    assert not power[9, 5:, 0].any()
    # slow draws what it can of it
    assert power[4:7, :, 1] == pytest.approx(np.full((3, 12), 2.0))
    # late needs 26 kWh in 4 h; the guard turns from 3.7 to 7.4 kW when 26 - 3.7 t = 7.4 (4 - t): t = 0.973 h
    rest = power[8:, :, 2].reshape(-1)[2:]
    assert rest[:11] == pytest.approx(np.full(11, 3.7))
    assert rest[12:48] == pytest.approx(np.full(36, 7.4))
    assert result["session_energy_unserved_kwh"].values == pytest.approx(np.zeros(3), abs=1e-9)


@pytest.mark.parametrize(
    ("fallback", "drawn"), [("uncontrolled", True), ("stop", False), ("last", False)], ids=str
)
def test_with_every_set_point_lost_the_others_charge_at_once_or_as_late_as_they_can(
    tmp_path, fallback, drawn
):
    result = run(tmp_path, loss=1.0, fallback=fallback)
    first_hours = result["ev_power_kw"].values.reshape(14, 12, 3)[1:3, :, :2]
    assert (first_hours > 1.9).all() if drawn else not first_hours.any()
    assert result["session_energy_unserved_kwh"].values == pytest.approx(np.zeros(3), abs=1e-9)
