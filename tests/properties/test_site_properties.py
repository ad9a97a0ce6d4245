"""Sites over drawn loads, PV, stores, sessions, outages and controls: what holds whatever is drawn."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.support.fleet import HOUR, car
from tests.support.sites import SiteRun, home

HOURS = 3
MOMENT = st.floats(0.0, HOURS).map(lambda h: round(h * 3600.0, 1) / 3600.0)


@st.composite
def moments(draw, most):
    """Ascending moments, h, apart from each other by more than a minute."""
    found = sorted(draw(st.lists(MOMENT, max_size=most)))
    apart = [m for m, before in zip(found, [-1.0, *found], strict=False) if m - before > 0.02]
    return [m for m in apart if 0.02 < m < HOURS - 0.02]


@st.composite
def power(draw, most):
    edges = [0.0, *draw(moments(3))]
    return edges, [round(draw(st.floats(0.0, most)), 3) for _ in edges]


@st.composite
def sessions(draw):
    edges = draw(moments(4))
    edges = edges[: len(edges) // 2 * 2]
    capacity, most = draw(st.sampled_from([20.0, 60.0])), draw(st.sampled_from([3.7, 11.0]))
    discharge = draw(st.sampled_from([0.0, 3.7, 11.0]))
    floor = draw(st.sampled_from([0.0, 0.2]))
    loss = draw(st.sampled_from([(0.0, 0.0, 0.0), (0.05, 0.05, 1e-3)]))
    made = []
    for arrival, departure in zip(edges[::2], edges[1::2], strict=True):
        drive = draw(st.sampled_from([np.nan, 3.0]))
        soc, target = draw(st.floats(0.05, 1.0)), draw(st.sampled_from([0.5, 0.8, 1.0]))
        made.append(
            car(
                arrival * HOUR, departure * HOUR, soc, target=target, charge=most, capacity=capacity,
                discharge_kw=discharge, soc_floor=floor, charge_loss=loss, discharge_loss=loss,
                drive_kwh=drive,
            )
        )  # fmt: skip
    return made


@st.composite
def drawn_home(draw):
    spans = draw(moments(4))
    spans = spans[: len(spans) // 2 * 2]
    chosen = {
        "critical": {"share": draw(st.sampled_from([0.3, 1.0]))},
        "control": draw(
            st.sampled_from(
                ["requests", "self_consumption", {"strategy": "peak", "limit_kw": 4.0},
                 {"strategy": "self_consumption", "reserve_soc": 0.4},
                 {"strategy": "reserve", "reserve_soc": 0.7}]
            )
        ),
        "interconnection": draw(
            st.sampled_from(
                [{"approval": "none"}, {"approval": "non_export"}, {"approval": "export"},
                 {"approval": "export", "export_kw": 2.0, "import_kw": 9.0}]
            )
        ),
        "island": {
            "detection": draw(st.sampled_from([0, 2])), "black_start": draw(st.sampled_from([0, 17])),
            "return_wait": draw(st.sampled_from([0, 300])), "ramp": draw(st.sampled_from([0, 300])),
            "former": "auto",
        },
        "backup": draw(st.sampled_from(["critical", "whole"])),
        "breaker_a": draw(st.sampled_from([None, 30.0])),
    }  # fmt: skip
    if draw(st.booleans()):
        chosen["battery"] = {"capacity_kwh": 5.0, "charge_kw": 3.0, "soc_start": draw(st.floats(0.1, 1.0))}
        chosen["discharge_order"] = draw(st.sampled_from(["battery_first", "ev_first"]))
    if draw(st.booleans()):
        chosen["generator"] = {"power_kw": 3.0, "fuel_kwh": draw(st.floats(0.0, 5.0)), "start": 10}
    evs = draw(st.lists(sessions().filter(bool), max_size=2))
    return home(
        evs, load=draw(power(6.0)), pv=draw(power(8.0)),
        outages=list(zip(spans[::2], spans[1::2], strict=True)), **chosen,
    )  # fmt: skip


def integral_kwh(given_power):
    edges, values = given_power
    return float(np.sum(np.array(values) * np.diff([*edges, HOURS])))


BELOW_ITS_FLOOR = home(
    evs=[[car(0.75 * HOUR, 1.5 * HOUR, 0.140625, 0.5, 3.7, capacity=20.0, discharge_kw=3.7, soc_floor=0.2)]],
    load=([0.0], [0.0]), pv=([0.0], [1.0]), outages=[(1.0, 2.0)], critical={"share": 0.3}, control="requests",
    interconnection={"approval": "none"},
    island={"detection": 0, "black_start": 0, "return_wait": 0, "ramp": 0, "former": "auto"},
    backup="critical", breaker_a=None,
)  # fmt: skip
"""An EV that an island's PV charges from below its floor: within a tick it could give what is asked."""


@settings(max_examples=60)
@example(one=BELOW_ITS_FLOOR, asked=-11.0)
@given(one=drawn_home(), asked=st.sampled_from([None, -11.0, -2.0, 0.0, 3.0]))
def test_what_holds_whatever_is_drawn(one, asked):
    evs = len(one["evs"])
    if not evs:
        one = one | {"evs": [[car(HOURS * 2.0 * HOUR, HOURS * 3.0 * HOUR, 0.5)]]}  # one that never comes
        evs = 1
    requests = None if asked is None else [asked] * evs
    coarse = SiteRun(one, step=900.0, hours=HOURS, asked=requests)
    fine = SiteRun(one, step=180.0, hours=HOURS, asked=requests)

    # the same energies, times and unserved load at any tick
    for name in coarse.recorder.static:
        if name.startswith("site_"):
            assert coarse.total(name[5:]) == pytest.approx(fine.total(name[5:]), rel=1e-6, abs=1e-6), name
    for name in ("soc_departure", "energy_delivered_kwh", "energy_discharged_kwh"):
        assert coarse.session(name) == pytest.approx(fine.session(name), rel=1e-6, abs=1e-6, nan_ok=True), (
            name
        )

    for run in (coarse, fine):
        audit, of_fleet = run.sites.audit(), run.fleet.audit()
        for name in ("busbar", "battery", "dead"):
            assert abs(audit[f"site_{name}_kwh"][0]) < 1e-9
        for way in ("drawn", "given"):
            assert audit[f"site_ev_{way}_kwh"] == pytest.approx(of_fleet[f"site_ev_{way}_kwh"], abs=1e-9)
        load, sun = integral_kwh(one["load"]), integral_kwh(one["pv"])
        assert run.total("served_kwh") + run.total("unserved_kwh") == pytest.approx(load, abs=1e-7)
        assert run.total("pv_kwh") + run.total("pv_curtailed_kwh") == pytest.approx(sun, abs=1e-7)
        assert run.total("served_kwh") <= load + 1e-9
        assert min(run.total(name[5:]) for name in run.recorder.static if name.startswith("site_")) >= 0.0
        meter = run.series("power_kw")
        approval = one["interconnection"]
        most_out = {"export": approval.get("export_kw", np.inf)}.get(approval["approval"], 0.0)
        assert meter.min() >= -most_out - 1e-9
        breaker_kw = one["breaker_a"] * 0.23 if one["breaker_a"] else np.inf
        most_in = min(breaker_kw, approval.get("import_kw", np.inf))
        if max(one["load"][1]) <= most_in:  # what the site does not control is not its fault
            assert meter.max() <= most_in + 1e-9
        if "battery" in one:
            assert run.series("battery_soc").min() >= 0.1 - 1e-9
        everyone = [session for sessions_of in one["evs"] for session in sessions_of]
        left = run.session("soc_departure")
        for session, soc in zip(everyone, left, strict=True):
            started = session.soc_arrival if np.isnan(session.drive_kwh) else 0.05
            assert np.isnan(soc) or soc >= min(session.soc_floor, started) - 1e-9


@settings(max_examples=20, deadline=None)
@given(
    begin=st.integers(2, 160).map(lambda minute: minute + 0.37), minutes=st.integers(1, 40),
    wait=st.sampled_from([0.0, 120.0]), ramp=st.sampled_from([0.0, 300.0]),
    asked=st.sampled_from([99.0, -99.0]),
)  # fmt: skip
def test_evs_at_sites_report_what_they_can_do_on_the_grid(begin, minutes, wait, ramp, asked):
    """The limit that is reported is what an EV draws or gives in the tick after, unless something changes in
    it; nothing in an island. On the ramp it reports that it gives nothing, which the site would let it do in
    part.
    """
    step = 60.0
    end = begin + minutes
    one = home(
        [[car(departure=500 * HOUR, charge=11.0, capacity=1000.0, discharge_kw=7.0)]], backup="whole",
        outages=[(begin / 60.0, end / 60.0)],
        island={"detection": 0, "black_start": 0, "return_wait": wait, "ramp": ramp},
    )  # fmt: skip
    run = SiteRun(one, step=step, hours=HOURS, asked=[asked])
    heard = run.sender.heard
    back = 60.0 * end + wait
    edges = [60.0 * begin, 60.0 * end, *(back + ramp * k / 10 for k in range(11))]
    limit = heard["fleet/p_max" if asked > 0 else "fleet/p_min"]
    for tick in range(1, len(limit) - 1):
        now = tick * step
        if any(now - 1e-3 < edge < now + step for edge in edges):
            continue
        drawn = heard["fleet/p"][tick + 1]
        if asked < 0 and back - step < now < back + ramp:
            assert limit[tick] == 0.0
        else:
            assert drawn == pytest.approx(limit[tick], abs=1e-6), tick
