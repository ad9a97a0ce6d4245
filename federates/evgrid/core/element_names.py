"""Look-up of elements by the names that a user writes.

A name means the element that is called exactly so, else the only one whose name differs from it in capital
letters: names in OpenDSS have none, and those of other networks may differ in them.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from fnmatch import fnmatchcase

import numpy as np
from numpy.typing import NDArray

_MOST_CHARACTERS = 200
"""Characters of a name that are compared with those that exist."""
_FEW = 5
"""Names that a hint lists."""

_SEVERAL = -2


class ElementNames:
    """Names of elements of one kind; of several with the same name the first is meant."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = [str(name).strip() for name in names]
        self._exact, self._folded = dict[str, int](), dict[str, int]()
        for place, name in enumerate(self._names):
            if name in self._exact:
                continue
            self._exact[name] = place
            folded = name.casefold()
            self._folded[folded] = _SEVERAL if folded in self._folded else place

    def place(self, name: str) -> int:
        """Position of an element; -1 if there is none, or several differ from the name in capitals only."""
        found = self._exact.get(name.strip())
        return max(self._folded.get(name.strip().casefold(), -1), -1) if found is None else found

    def places(self, names: Iterable[str]) -> NDArray[np.int64]:
        """Positions of several elements; -1 for each that there is not."""
        return np.array([self.place(str(name)) for name in names], np.int64)

    def matching(self, patterns: Iterable[str]) -> tuple[NDArray[np.int64], list[str]]:
        """Positions of names, or of patterns such as ``PV*``, ascending, and those that fit nothing."""
        found, missing = set[int](), list[str]()
        folded = [name.casefold() for name in self._names]
        for pattern in patterns:
            place = self.place(pattern)
            wanted = pattern.strip().casefold()
            hits = [place] if place >= 0 else [k for k, n in enumerate(folded) if fnmatchcase(n, wanted)]
            found.update(hits)
            if not hits:
                missing.append(pattern)
        return np.array(sorted(found), np.int64), missing

    def chosen(self, patterns: Iterable[str], setting: str, what: str) -> tuple[NDArray[np.int64], list[str]]:
        """As :meth:`matching`, with a fault of a setting for each that fits nothing.

        ``what`` is missing: "the network has no such load".
        """
        found, missing = self.matching(patterns)
        return found, [f"{setting} = {one}: {what}; {self.hint(one)}" for one in missing]

    def hint(self, name: str) -> str:
        """What could be meant by a name that is not there, or the first few that are."""
        by_folded = {one.casefold(): one for one in reversed(self._names)}
        near = difflib.get_close_matches(name[:_MOST_CHARACTERS].casefold(), by_folded, n=1, cutoff=0.5)
        if near:
            return f"did you mean {by_folded[near[0]]}?"
        few = ", ".join(self._exact if len(self._exact) <= _FEW else [*self._exact][:_FEW]) or "none"
        return f"it has {few}" + (f", … ({len(self._exact)} in all)" if len(self._exact) > _FEW else "")
