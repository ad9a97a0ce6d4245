"""Battery ageing against plain Python: the same steps, and rainflow over the whole history."""

from itertools import pairwise
from math import exp, expm1, log

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from evgrid.fleet import degradation as ageing

OPEN_CIRCUIT_V = [
    3.3310, 3.4197, 3.4910, 3.5436, 3.5812, 3.6079, 3.6267, 3.6411, 3.6552, 3.6726, 3.6974,
    3.7322, 3.7747, 3.8209, 3.8688, 3.9154, 3.9649, 4.0194, 4.0730, 4.1183, 4.1620,
]  # fmt: skip


def open_circuit_v(soc):
    at = min(int(soc * 20 + 1e-9), 19)
    return OPEN_CIRCUIT_V[at] + (soc * 20 - at) * (OPEN_CIRCUIT_V[at + 1] - OPEN_CIRCUIT_V[at])


def log_rate_at(chemistry, soc, kelvin):
    if chemistry == "nmc":
        return (log((7.543 * open_circuit_v(soc) - 23.75) * 1e6) - 6976 / kelvin) / 0.75
    return (log(8.37e4) - (5210 + 3560 * float(ageing.anode_potential_v(soc))) / kelvin) / 0.526


def log_rate(chemistry, soc, kelvin):
    """The law at multiples of 0.01, a straight line between."""
    low = min(int(soc * 100), 99)
    first, last = (log_rate_at(chemistry, (low + i) / 100, kelvin) for i in (0, 1))
    return first + (soc * 100 - low) * (last - first)


def mean_rate(chemistry, soc_from, soc_to, kelvin):
    low, high = sorted((soc_from, soc_to))
    if high - low < 1e-9:
        return exp(log_rate(chemistry, low, kelvin))
    edges = [low, *(i / 100 for i in range(101) if low < i / 100 < high), high]
    total = 0.0
    for a, b in pairwise(edges):
        first, last = log_rate(chemistry, a, kelvin), log_rate(chemistry, b, kelvin)
        rise = last - first
        total += (b - a) * exp(first) * (expm1(rise) / rise if rise else 1.0)
    return total / (high - low)


def mean_square(low, high):
    """Of the voltage from low to high, by the straight pieces of its curve."""
    edges = [low, *(i / 20 for i in range(21) if low < i / 20 < high), high]
    total = 0.0
    for a, b in pairwise(edges):
        u, v = open_circuit_v(a), open_circuit_v(b)
        total += (b - a) * (u * u + u * v + v * v) / 3
    return total / (high - low)


def cycle_share(chemistry, low, high, halves, c_travelled, weight):
    depth = high - low
    if chemistry == "nmc":
        rms = mean_square(low, high) ** 0.5
        return (7.348e-3 * (rms - 3.667) ** 2 + 7.6e-4 + 4.081e-3 * depth) ** 2 * 2.15 * weight
    c_rate = c_travelled / (halves * depth)
    return (4.38e-8 + 1.55e-8 * depth + 1.68e-7 * c_rate) ** (1 / 0.828) * 0.5 * weight


def temperature_factor(chemistry, kelvin):
    if chemistry == "nmc":
        return 1.0
    return (exp(2190 / kelvin) + exp(-1.55e5 / kelvin)) ** (1 / 0.828)


class Twin:
    """The kernels in plain Python: a list of (point, C-rate to it and weight to it over SOC)."""

    power = {"nmc": (0.75, 0.5), "lfp": (0.526, 0.828)}

    def __init__(self, chemistry, most=ageing.POINTS):
        self.chemistry, self.most = chemistry, most
        self.calendar = self.cycle = 0.0
        self.open = []
        self.deepest = 0

    def share(self, i, halves=1.0, c_travelled=None, weight=None):
        (a, _, _), (b, s, w) = self.open[i], self.open[i + 1]
        return cycle_share(
            self.chemistry, min(a, b), max(a, b), halves,
            s if c_travelled is None else c_travelled, w if weight is None else weight,
        )  # fmt: skip

    def drop_oldest(self):
        self.cycle += self.share(0)
        self.open.pop(0)

    def make_room(self, way, s, w):
        """The newest range becomes a cycle, its second half of the movement that comes, so far as it goes."""
        (start, _, _), (turn, older_s, older_w), (end, new_s, new_w) = self.open[-3:]
        depth, before = abs(end - turn), abs(turn - start)
        coming, missing = min(depth, way), max(depth - way, 0.0)
        self.cycle += self.share(
            len(self.open) - 2, 2.0, new_s + s * coming / way + older_s * missing / before,
            new_w + w * coming / way + older_w * missing / before,
        )  # fmt: skip
        del self.open[-2:]
        return (
            older_s * (1 - missing / before) + s * (1 - coming / way),
            older_w * (1 - missing / before) + w * (1 - coming / way),
        )

    def rest(self, soc, seconds, kelvin):
        self.calendar += exp(log_rate(self.chemistry, soc, kelvin)) * seconds / 86400

    def advance(self, soc_from, soc_to, seconds, kelvin):
        self.calendar += mean_rate(self.chemistry, soc_from, soc_to, kelvin) * seconds / 86400
        if not self.open:
            self.open.append((float(np.float32(soc_from)), 0.0, 0.0))
        new, (present, s, w) = float(np.float32(soc_to)), self.open[-1]
        if new == present:
            return
        weight = abs(new - present) * temperature_factor(self.chemistry, kelvin)
        c_travelled = 3600 * (new - present) ** 2 / seconds if seconds > 1e-3 else 0.0
        if len(self.open) > 1 and (new > present) == (present > self.open[-2][0]):
            self.open[-1] = (new, s + c_travelled, w + weight)
        else:
            if len(self.open) == self.most:
                c_travelled, weight = self.make_room(abs(new - present), c_travelled, weight)
            elif len(self.open) > 1:
                self.open[-1] = (present, float(np.float32(s)), float(np.float32(w)))
            self.open.append((new, c_travelled, weight))
        self.deepest = max(self.deepest, len(self.open))
        while len(self.open) >= 3:
            (a, before_c, before_w), (b, older_c, older_w), (c, c_here, w) = self.open[-3:]
            if abs(c - b) < abs(b - a):
                break
            if len(self.open) == 3:
                self.drop_oldest()
                continue
            part = abs(b - a) / abs(c - b)
            self.cycle += self.share(
                len(self.open) - 3, 2.0, older_c + part * c_here, older_w + part * w
            )  # fmt: skip
            self.open[-3:] = [(c, before_c + (1 - part) * c_here, before_w + (1 - part) * w)]

    def losses(self):
        total = self.cycle + sum(self.share(i) for i in range(len(self.open) - 1))
        calendar_power, cycle_power = self.power[self.chemistry]
        return self.calendar**calendar_power, total**cycle_power


def rainflow(history):
    """ASTM E1049-85, 5.4.4, over a whole history: (low, high, count)."""
    points = [history[0]]
    for i in range(1, len(history)):
        here = history[i]
        if here == points[-1]:
            continue
        if len(points) > 1 and (here > points[-1]) == (points[-1] > points[-2]):
            points[-1] = here
        else:
            points.append(here)
    counts, stack = [], []
    for point in points:
        stack.append(point)
        while len(stack) >= 3:
            newest, before = abs(stack[-1] - stack[-2]), abs(stack[-2] - stack[-3])
            if newest < before:
                break
            pair = (min(stack[-3], stack[-2]), max(stack[-3], stack[-2]))
            if len(stack) == 3:
                counts.append((*pair, 0.5))
                stack.pop(0)
            else:
                counts.append((*pair, 1.0))
                del stack[-3:-1]
    counts += [(min(p), max(p), 0.5) for p in pairwise(stack)]
    return counts


chemistries = st.sampled_from(ageing.CHEMISTRIES)
# States of charge that 4-byte numbers hold, so that plain ones compare alike.
socs = st.integers(0, 4096).map(lambda i: i / 4096)
kelvins = st.floats(263.15, 323.15)
spans = st.floats(1.0, 1e6)
steps = st.lists(st.tuples(st.floats(0.0, 1.0), st.floats(0.0, 1e5), kelvins), min_size=1, max_size=40)


def losses(state):
    return ageing.calendar_loss(state)[0], ageing.cycle_loss(state)[0]


def loss_of(chemistry, history, c_rate=0.2):
    state = ageing.new_state(chemistry)
    for a, b in pairwise(history):
        ageing.advance(state, a, b, 3600.0 * abs(b - a) / c_rate, 298.15)
    return losses(state)


def zigzag(depths, start=0.5):
    """A history that nests: ranges that shrink, then ranges that grow past them."""
    history = [start]
    for i, depth in enumerate(depths):
        history.append(start + (depth / 2 if i % 2 else -depth / 2))
    return history


@settings(deadline=None)
@given(chemistries, st.floats(0.0, 1.0), steps)
@example("nmc", 1.401298464324817e-45, [(0.0, 0.0, 264.0), (1.0, 0.0, 264.0)])
@example("nmc", 0.0, [(1.2e-7, 264.0, 264.0)])  # a voltage of its own, not one of 1e-6 around it
def test_kernel_equals_its_plain_python_twin(chemistry, soc, steps):
    state, twin = ageing.new_state(chemistry), Twin(chemistry)
    for i, (then, seconds, kelvin) in enumerate(steps):
        if i % 5 == 4:
            ageing.rest(state, soc, seconds, kelvin)
            twin.rest(soc, seconds, kelvin)
        ageing.advance(state, soc, then, seconds, kelvin)
        twin.advance(soc, then, seconds, kelvin)
        soc = then
        np.testing.assert_array_equal(state[0]["point"][: state[0]["points"]], [p for p, _, _ in twin.open])
    np.testing.assert_allclose(losses(state), twin.losses(), rtol=1e-12, atol=1e-12)
    # the state carries loss**(1/p): below 1e-40 (a move of 1e-45 of the charge) only rounding is left
    np.testing.assert_allclose(
        [state["calendar"][0], state["cycle"][0]], [twin.calendar, twin.cycle], rtol=1e-9, atol=1e-40
    )


@settings(deadline=None)
@given(chemistries, st.lists(socs, min_size=2, max_size=60), st.floats(0.05, 1.0))
def test_streaming_count_equals_rainflow_of_the_whole_history(chemistry, history, c_rate):
    twin = Twin(chemistry, most=10**9)
    for a, b in pairwise(history):
        twin.advance(a, b, 1.0, 298.15)
    assume(twin.deepest <= ageing.POINTS)
    _, got = loss_of(chemistry, history, c_rate=c_rate)
    assert got == pytest.approx(rainflow_loss(chemistry, history, c_rate), rel=1e-6)


@settings(deadline=None)
@given(
    st.lists(st.integers(1, 4096).map(lambda i: i / 4096), min_size=1, max_size=30, unique=True),
    st.booleans(),
)
def test_a_history_too_deep_keeps_its_throughput(depths, grow):
    """With a law of nothing but throughput, the loss is the throughput, however deep the nest is."""
    laws = ageing.LAWS.copy()
    for name in ("cycle_voltage", "cycle_depth", "cycle_c_rate", "thermal"):
        laws[name] = 0
    laws["cycle_base"] = laws["cycle_power"] = laws["per_soc"] = 1.0
    depths = sorted(depths, reverse=True)
    history = zigzag(depths + depths[::-1] if grow else depths)
    state = ageing.new_state("nmc")
    for a, b in pairwise(history):
        ageing.advance_ev(state[0], laws, a, b, 3600.0, 298.15)
    assert state["points"][0] <= ageing.POINTS
    assert ageing.cycle_loss_ev(state[0], laws) == pytest.approx(np.abs(np.diff(history)).sum(), rel=1e-6)


def rainflow_loss(chemistry, history, c_rate):
    """The law over the whole history's cycles, at one C-rate and 25 °C."""
    expected = 0.0
    for low, high, count in rainflow(history):
        travelled = 2 * count * (high - low)
        factor = temperature_factor(chemistry, 298.15)
        expected += cycle_share(chemistry, low, high, 2 * count, travelled * c_rate, travelled * factor)
    return expected ** Twin.power[chemistry][1]


@settings(deadline=None, max_examples=60)
@given(
    chemistries, st.integers(0, 2**32 - 1), st.sampled_from([1e-4, 1e-3, 1e-2]), st.floats(0.0, 0.995),
    st.integers(2, 3000),
)  # fmt: skip
def test_a_signal_that_nests_deeper_than_the_stack_is_counted_within_a_percent(
    chemistry, seed, size, memory, ticks
):
    """Power as a random walk pulled to zero, as regulation asks for; its nests are up to 14 deep."""
    rng = np.random.default_rng(seed)
    power, moves = 0.0, []
    for step in rng.normal(size=ticks):
        power = memory * power + step
        moves.append(power * size * (1 - memory))
    history = np.float32(np.abs((0.5 + np.cumsum(moves)) % 2 - 1)).tolist()  # mirrored at empty and full
    assert loss_of(chemistry, history, 0.1)[1] == pytest.approx(
        rainflow_loss(chemistry, history, 0.1), rel=0.01
    )


@settings(deadline=None)
@given(chemistries, socs, socs, spans, kelvins, st.lists(st.floats(0.01, 1.0), min_size=1, max_size=20))
def test_steps_add_up(chemistry, soc_from, soc_to, seconds, kelvin, parts):
    """One even movement in one step or in many."""
    whole, cut = ageing.new_state(chemistry), ageing.new_state(chemistry)
    ageing.advance(whole, soc_from, soc_to, seconds, kelvin)
    ends = np.cumsum(parts) / np.sum(parts)
    ends[-1] = 1.0
    done, here = 0.0, soc_from
    for end in ends:
        there = soc_from + end * (soc_to - soc_from) if end < 1.0 else soc_to
        ageing.advance(cut, here, there, (end - done) * seconds, kelvin)
        done, here = end, there
    np.testing.assert_allclose(losses(cut), losses(whole), rtol=1e-8)


@settings(deadline=None)
@given(chemistries, st.lists(st.tuples(st.floats(0.0, 1.0), spans, kelvins), min_size=2, max_size=8))
def test_rests_add_up_in_any_order(chemistry, rests):
    forth, back = ageing.new_state(chemistry), ageing.new_state(chemistry)
    for soc, seconds, kelvin in rests:
        ageing.rest(forth, soc, seconds, kelvin)
    for soc, seconds, kelvin in rests[::-1]:
        ageing.rest(back, soc, seconds / 2, kelvin)
        ageing.rest(back, soc, seconds / 2, kelvin)
    np.testing.assert_allclose(losses(back), losses(forth), rtol=1e-12)


@settings(deadline=None)
@given(chemistries, st.lists(socs, min_size=2, max_size=ageing.POINTS), st.floats(0.05, 1.0))
def test_loss_never_falls(chemistry, history, c_rate):
    """Of histories that the stack holds: of deeper nests the innermost range is closed before its time."""
    state = ageing.new_state(chemistry)
    before = (0.0, 0.0)
    for a, b in pairwise(history):
        for i in range(4):
            here, there = (a + (b - a) * j / 4 for j in (i, i + 1))
            ageing.advance(state, here, there, max(3600.0 * abs(there - here) / c_rate, 1.0), 298.15)
            after = losses(state)
            assert after[0] > before[0]
            assert after[1] >= before[1] * (1 - 1e-7)
            before = after
    assert np.isfinite(before).all()


@settings(deadline=None)
@given(chemistries, st.tuples(socs, socs), st.tuples(kelvins, kelvins))
def test_storage_is_worse_when_fuller_and_when_warmer(chemistry, two_socs, two_kelvins):
    low, high = sorted(two_socs)
    cool, warm = sorted(two_kelvins)
    states = ageing.new_state([chemistry] * 3)
    ageing.rest(states, [low, high, high], 1e7, [cool, cool, warm])
    loss = ageing.calendar_loss(states)
    assert loss[0] <= loss[1] * (1 + 1e-12)
    assert loss[1] <= loss[2] * (1 + 1e-12)


@settings(deadline=None)
@given(chemistries, st.tuples(st.floats(0.01, 0.4), st.floats(0.01, 0.4)))
def test_a_deeper_cycle_about_the_same_middle_is_worse(chemistry, halves):
    small, large = sorted(halves)
    assume(large - small > 1e-3)
    narrow = loss_of(chemistry, [0.5 - small, 0.5 + small, 0.5 - small])[1]
    wide = loss_of(chemistry, [0.5 - large, 0.5 + large, 0.5 - large])[1]
    assert wide > narrow


@settings(deadline=None)
@given(st.lists(st.tuples(chemistries, socs, socs, spans, kelvins), min_size=1, max_size=10), st.randoms())
def test_an_ev_alone_ages_as_among_others(evs, random):
    order = list(range(len(evs)))
    random.shuffle(order)
    chemistry, *values = (list(column) for column in zip(*(evs[i] for i in order), strict=True))
    together = ageing.new_state(chemistry)
    ageing.advance(together, *values)
    for place, i in enumerate(order):
        alone = ageing.new_state(evs[i][0])
        ageing.advance(alone, *evs[i][1:])
        assert alone.tobytes() == together[place : place + 1].tobytes()
