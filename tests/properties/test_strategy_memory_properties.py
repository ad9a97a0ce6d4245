"""What a strategy keeps: saved and loaded, it goes on as if it had not been interrupted."""

import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from evgrid.aggregator.strategy import Strategy
from evgrid.core.model import EVs


class Learner(Strategy):
    """Set-points from weights that change with what it sees, a credit an EV and a level a member."""

    keeps = {"weights": "run", "credit": "ev", "level": "member", "ticks": "run"}

    def __init__(self, settings, context):
        super().__init__(settings, context)
        self.weights = np.zeros(2)
        self.credit = np.zeros(len(context.evs))
        self.level = np.zeros((context.members, 2))
        self.ticks = np.array(0)

    def setpoints(self, seen):
        member = self.context.evs.member
        self.ticks = self.ticks + 1
        self.credit = 0.5 * self.credit + seen
        self.level[:, 0] += np.bincount(member, self.credit, self.context.members)
        self.weights += [seen.mean(), self.credit.max()]
        return self.weights.sum() + self.credit * self.ticks + self.level[member, 0]


def context_of(counts, first=0):
    member = np.repeat(np.arange(len(counts)), counts)
    names = np.concatenate([np.arange(n) for n in counts]).astype(str) if len(member) else np.zeros(0, "<U1")
    evs = EVs(member, member, member.astype(np.int8), names)
    return SimpleNamespace(evs=evs, members=len(counts), numbers=range(first, first + len(counts)))


@given(
    counts=st.lists(st.integers(0, 4), min_size=1, max_size=3).filter(any),
    ticks=st.integers(2, 6),
    cut=st.integers(0, 6),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_loaded_strategy_goes_on_as_the_saved_one(counts, ticks, cut, seed):
    seen = np.random.default_rng(seed).normal(size=(ticks, sum(counts)))
    context, cut = context_of(counts), min(cut, ticks)
    through = Learner(None, context)
    whole = [through.setpoints(values) for values in seen]
    first = Learner(None, context)
    for values in seen[:cut]:
        first.setpoints(values)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "state.npz")
        first.save(path)
        assert [file.name for file in path.parent.iterdir()] == ["state.npz"]
        then = Learner(None, context)
        then.load(path)
    for values, expected in zip(seen[cut:], whole[cut:], strict=True):
        np.testing.assert_array_equal(then.setpoints(values), expected)


@given(counts=st.lists(st.integers(0, 4), min_size=2, max_size=4).filter(any), data=st.data())
def test_a_member_takes_what_is_its_own(counts, data):
    everyone = Learner(None, context_of(counts))
    everyone.credit = np.arange(float(sum(counts)))
    everyone.level = np.arange(2.0 * len(counts)).reshape(-1, 2)
    number = data.draw(st.integers(0, len(counts) - 1))
    alone = Learner(None, context_of(counts[number : number + 1], first=number))
    with tempfile.TemporaryDirectory() as folder:
        everyone.save(Path(folder, "state.npz"))
        alone.load(Path(folder, "state.npz"))
    begin = sum(counts[:number])
    np.testing.assert_array_equal(alone.credit, everyone.credit[begin : begin + counts[number]])
    np.testing.assert_array_equal(alone.level, everyone.level[number : number + 1])
