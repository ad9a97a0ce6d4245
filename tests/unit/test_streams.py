"""Random streams: no two purposes share one."""

from itertools import combinations

from evgrid.core.random_streams import Purpose, stream


def test_every_purpose_has_a_number_and_a_stream_of_its_own():
    assert len({int(purpose) for purpose in Purpose.__members__.values()}) == len(Purpose.__members__)
    first = {name: stream(1, 0, purpose).random() for name, purpose in Purpose.__members__.items()}
    for one, other in combinations(first, 2):
        assert first[one] != first[other], f"{one} and {other}"
