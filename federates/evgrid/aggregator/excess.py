"""Why the power of groups passed a limit: what was asked, beside what came of it.

In: of each tick the base load that the aggregator was told, what it asked of its EVs, and what of that could
not wait (:func:`evgrid.aggregator.kernels.bounds`); then, a tick later, the group's power and that of its
EVs. Out: the energy beyond the limit, by reason, and the time in which each reason was the largest.

With the power ``P``, the EVs' part ``E`` of it, the base load told ``B``, and ``A`` asked, the excess above
a limit ``L`` is ``(B + A - L) + (P - E - B) + (E - A)``. The first part was foreseen: what of it EVs could
not put off is the departure guard's, then come the EVs of others, then the base load itself. The second is
the lag: the base load (with losses and the EVs of others) rose since it was told. The third are the
chargers: of those whose laxity is used up by then it is the guard again, of the rest set-points that are
late or lost, or functions of their own. Parts that lessen the excess are spread over those that make it.
Below the least power the same holds with all signs changed.

What the last tick of a run came to is told to nobody, so it has no reason.
"""

from __future__ import annotations

import numpy as np

from evgrid.core.model import Array

REASONS = ("base_load", "lag", "guard", "others", "chargers")
"""Why a limit is passed, in the order of the dimension ``reason``."""
REASON_TEXTS = {
    "base_load": "base load alone",
    "lag": "base load changed since it was measured",
    "guard": "departure guard",
    "others": "EVs of others",
    "chargers": "chargers that did not follow",
}
"""The reasons in words."""
_SLACK = 1e-6
"""Excess that still counts as none, relative to 1 kW and the limit."""


class Excess:
    """Adds up what groups draw beyond a limit, (group,) each.

    least_kw, most_kw : the limit, kW; infinite for none
    over_s : interval over whose mean the limit holds; 0: each tick
    """

    def __init__(self, least_kw: float, most_kw: float, over_s: float, groups: int) -> None:
        self.least_kw, self.most_kw, self._over_s = least_kw, most_kw, over_s
        self.energy_kwh, self.time_h = np.zeros((2, groups, len(REASONS)))
        self.owed_kw = np.zeros(groups)
        """(group,) kW: how much less than the limit each is to draw for what it drew beyond it in this
        interval; negative: how much less is to be fed back."""
        self._drawn_kws = np.zeros(groups)
        self._interval = -1
        self._told = (np.zeros(groups),) * 4

    def asked(self, base: Array, asked: Array, must: Array, others: Array) -> None:
        """Take what is decided at a tick: base load told, asked of the EVs, of that what can't wait, and the
        part of the base load that is the EVs of others; (group,) kW each.
        """
        self._told = base.copy(), asked, must, others

    def measured(self, time_s: float, step_s: float, power: Array, own: Array, guarded: Array) -> None:
        """Take what came of it in the tick of ``step_s`` that ends at ``time_s``, (group,) kW each.

        power : of the whole group
        own : of the EVs that were asked
        guarded : of those of them whose laxity is used up by now, beyond what was asked of them
        """
        base, asked, must, others = self._told
        up = power - self.most_kw > self.least_kw - power
        sign = np.where(up, 1.0, -1.0)
        bound = np.where(up, self.most_kw, self.least_kw)
        excess = np.where(np.isfinite(bound), np.maximum(sign * (power - bound), 0.0), 0.0)
        excess[excess <= _SLACK * np.maximum(1.0, np.abs(bound))] = 0.0
        at = np.flatnonzero(excess > 0.0)
        if len(at):
            sign, bound = sign[at], bound[at]
            foreseen = np.maximum(sign * (base + asked)[at] - sign * bound, 0.0)
            parts = np.zeros((len(at), len(REASONS)))
            guard = np.minimum(foreseen, np.where(sign > 0, must[at], 0.0))
            foreign = np.minimum(foreseen - guard, np.maximum(sign * others[at], 0.0))
            astray = np.maximum(sign * (own - asked)[at], 0.0)
            of_guard = np.minimum(astray, np.where(sign > 0, guarded[at], 0.0))
            parts[:, 0] = foreseen - guard - foreign
            parts[:, 1] = np.maximum(sign * (power - own - base)[at], 0.0)
            parts[:, 2] = guard + of_guard
            parts[:, 3] = foreign
            parts[:, 4] = astray - of_guard
            parts *= (excess[at] / np.maximum(parts.sum(axis=1), 1e-12))[:, None]
            self.energy_kwh[at] += parts * step_s / 3600.0
            self.time_h[at, parts.argmax(axis=1)] += step_s / 3600.0
        self._owe(time_s, step_s, power)

    def _owe(self, time_s: float, step_s: float, power: Array) -> None:
        """What is to be made up for in the rest of the interval that goes on at ``time_s``."""
        if not self._over_s:
            return
        interval = int((time_s - step_s) / self._over_s + 1e-9)
        if interval != self._interval:
            self._interval, self._drawn_kws = interval, np.zeros(len(power))
        self._drawn_kws += power * step_s
        since_s = time_s - interval * self._over_s
        left_s = self._over_s - since_s
        self.owed_kw = np.zeros(len(power))
        if left_s > 1e-6:
            for bound, sign in ((self.most_kw, 1.0), (self.least_kw, -1.0)):
                if np.isfinite(bound):
                    beyond = sign * (self._drawn_kws - bound * since_s) / left_s
                    self.owed_kw += sign * np.maximum(beyond, 0.0)
