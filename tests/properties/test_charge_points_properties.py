"""Shared charge points, whatever comes when: never more EVs than points, in order, and nothing is lost."""

from types import SimpleNamespace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from evgrid.battery.laws import LEAST_SOC
from evgrid.core.model import ALL_PHASES, Clock, EVs
from evgrid.fleet.recording import PointsInUse
from evgrid.fleet.sessions.charge_points import queued
from evgrid.fleet.sessions.sessions import COLUMNS, TEXTS, Sessions
from evgrid.scenario.fleet import ChargePoints

HOUR = 3600.0
END_S = 48 * HOUR
PLACES = ("here", "there", "upstream")


@st.composite
def tables(draw):
    """EVs of two members at two connection points, with up to three sessions each that do not overlap."""
    count = draw(st.integers(1, 12))
    ev, begin, end, drive = [], [], [], []
    for row in range(count):
        times = sorted(draw(st.lists(st.integers(0, 190), unique=True, min_size=2, max_size=6)))
        for k, (a, b) in enumerate(zip(times[::2], times[1::2], strict=False)):
            ev.append(row)
            begin.append(a * 900.0)
            end.append(b * 900.0)
            drive.append(np.nan if k == 0 else draw(st.sampled_from([np.nan, 2.0, 9.0])))
    n = len(ev)
    number = np.ones(n)
    columns = dict.fromkeys(COLUMNS, number)
    columns |= {name: np.full(n, "") for name in TEXTS}
    losses = np.tile([0.0, 0.1, 0.0], (n, 1))
    columns |= {
        "ev": np.array(ev, np.int32), "arrival_s": np.array(begin), "departure_s": np.array(end),
        "soc_arrival": 0.3 + 0.01 * np.arange(n), "soc_target": 0.9 * number, "soc_floor": 0.2 * number,
        "capacity_kwh": 40 * number, "charge_kw": 11 * number, "discharge_kw": 0 * number,
        "charge_loss": losses, "discharge_loss": losses, "taper_soc": 0.8 * number,
        "drive_kwh": np.array(drive),
    }  # fmt: skip
    at = np.array([draw(st.integers(0, 1)) for _ in range(count)])
    member = np.array(sorted(draw(st.integers(0, 1)) for _ in range(count)))
    names = np.array([f"e{row}" for row in range(count)])
    return EVs(member, at, np.full(count, ALL_PHASES, np.int8), names), Sessions(**columns)


class Places:
    """Two connection points, and upstream."""

    name, phase, on_feeder = np.array(PLACES), np.full(3, ALL_PHASES), 2
    phases = ("a", "b", "c")

    def __len__(self):
        return len(PLACES)


def run(points, evs, sessions):
    fleet = SimpleNamespace(charge_points=points)
    clock = SimpleNamespace(duration_s=END_S)
    scenario = SimpleNamespace(fleet=fleet, clock=clock, members=range(2))
    return queued(scenario, Places(), evs, sessions)


@settings(max_examples=80, deadline=None)
@given(
    tables(), st.integers(1, 4), st.sampled_from(["queue", "leave"]),
    st.sampled_from([None, 900.0, 2 * HOUR]), st.sampled_from(["until_departure", "as_long"]),
)  # fmt: skip
def test_first_come_first_served(drawn, each, waiting, patience, stay):
    evs, sessions = drawn
    patience = patience if waiting == "queue" else None
    points = ChargePoints(each=each, waiting=waiting, patience=patience, stay=stay)
    found = run(points, evs, sessions)
    queue = found.queue
    came = found.arrival_s - queue.waited_s
    # every session is served, has left, or waits at the end; each as it came
    key = {
        (int(e), float(a)): k for k, (e, a) in enumerate(zip(sessions.ev, sessions.arrival_s, strict=True))
    }
    served = [key[int(e), float(a)] for e, a in zip(found.ev, came, strict=True)]
    still = int((queue.waiting_s[:, 1] >= END_S).sum())
    assert len(set(served)) == len(served)
    assert len(served) + len(queue.left_ev) <= len(sessions) <= len(served) + len(queue.left_ev) + still
    assert (queue.waited_s >= 0).all()
    assert (found.departure_s > found.arrival_s).all()
    if waiting == "leave":
        assert not queue.waited_s.any()
    if patience is not None:
        assert (queue.waited_s <= patience).all()
    original = sessions.departure_s[served]
    if stay == "until_departure":
        np.testing.assert_array_equal(found.departure_s, original)
    else:
        assert (found.departure_s <= original + queue.waited_s + 1e-6).all()
    # no EV is at two points, or has changed its order
    same = found.ev[1:] == found.ev[:-1]
    assert (found.arrival_s[1:][same] >= found.departure_s[:-1][same]).all()
    for member in range(2):
        for place in range(2):
            here = (evs.member[found.ev] == member) & (evs.connection[found.ev] == place)
            begins, ends = found.arrival_s[here], found.departure_s[here]
            for now in begins:  # never more than there are points
                assert ((begins <= now) & (ends > now)).sum() <= each
            # who comes first begins first
            order = np.argsort(came[here], kind="stable")
            assert (np.diff(begins[order]) >= 0).all()
            # nobody waits while a point is free
            for k in np.flatnonzero(queue.waited_s[here] > 0):
                at = (came[here][k] + begins[k]) / 2
                assert ((begins <= at) & (ends > at)).sum() == each


@settings(max_examples=60, deadline=None)
@given(tables(), st.sampled_from(["queue", "leave"]))
def test_as_many_points_as_evs_change_nothing(drawn, waiting):
    evs, sessions = drawn
    found = run(ChargePoints(each=len(evs), waiting=waiting), evs, sessions)
    for name in COLUMNS:
        np.testing.assert_array_equal(getattr(found, name), getattr(sessions, name))
    assert not len(found.queue.left_ev)


def arrivals(sessions, served):
    """State of charge with which an EV comes to each session, if those that are served fill it to 0.9."""
    soc, last, found = np.nan, -1, []
    for row in range(len(sessions)):
        drive = sessions.drive_kwh[row]
        if sessions.ev[row] != last or np.isnan(drive):
            soc = sessions.soc_arrival[row]
        else:
            soc = max(soc - drive / 40.0, min(LEAST_SOC, soc))
        last = sessions.ev[row]
        found.append(soc)
        soc = 0.9 if served[row] else soc
    return np.array(found)


@settings(max_examples=60, deadline=None)
@given(tables())
def test_who_was_not_served_comes_next_with_what_both_drives_left(drawn):
    evs, sessions = drawn
    found = run(ChargePoints(each=1, waiting="leave"), evs, sessions)
    kept = {(int(e), float(a)) for e, a in zip(found.ev, found.arrival_s, strict=True)}
    served = [(int(e), float(a)) in kept for e, a in zip(sessions.ev, sessions.arrival_s, strict=True)]
    expected = arrivals(sessions, served)[served]
    np.testing.assert_allclose(arrivals(found, np.ones(len(found))), expected, rtol=1e-12)


@settings(max_examples=60, deadline=None)
@given(tables(), st.sampled_from(["until_departure", "as_long"]), st.sampled_from([450.0, 3600.0, 5400.0]))
def test_occupied_and_waiting_are_means_over_ticks(drawn, stay, step_s):
    """Summed up span by span, in blocks of any length."""
    evs, sessions = drawn
    found = run(ChargePoints(each=1, stay=stay), evs, sessions)
    clock = Clock(np.datetime64("2026-01-15"), step_s, round(END_S / step_s))
    points = PointsInUse(found, found.queue, evs, clock, 2)
    blocks = [points.block(first, min(7, clock.ticks - first)) for first in range(0, clock.ticks, 7)]
    waits = [(evs.member[e], *s) for e, s in zip(found.queue.waiting_ev, found.queue.waiting_s, strict=True)]
    pairs = zip(found.ev, found.arrival_s, found.departure_s, strict=True)
    stays = [(evs.member[e], a, d) for e, a, d in pairs]
    for which, spans in enumerate((stays, waits)):
        mean = np.concatenate([block[which] for block in blocks])
        expected = np.zeros((clock.ticks, 2))
        for member, begin, end in spans:
            for tick in range(clock.ticks):
                first, last = max(begin, tick * step_s), min(end, (tick + 1) * step_s)
                expected[tick, member] += max(last - first, 0.0) / step_s
        np.testing.assert_allclose(mean, expected, atol=1e-8)
