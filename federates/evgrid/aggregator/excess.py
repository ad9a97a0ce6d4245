"""Reasons why the power of groups exceeded a limit: set-points compared with the resulting power.

In: of each tick the base load reported to the aggregator, the power requested of its EVs, and the part of
it that can't wait (:func:`evgrid.aggregator.kernels.bounds`); then, a tick later, the group's power and that
of its EVs. Out: the energy beyond the limit, by reason, and the time in which each reason was the largest, of
the ticks in which the limit did not count as kept (:data:`KEPT`).

With the power ``P``, the EVs' part ``E`` of it, the reported base load ``B``, and the requested power ``A``,
the excess above a limit ``L`` is ``(B + A - L) + (P - E - B) + (E - A)``. The first term was foreseen:
charging that EVs could not defer is attributed to the departure guard, then come the EVs of other
aggregators, then the base load itself. The second is the lag: the base load (with losses and the EVs of
others) rose since it was reported. The third are the chargers: where laxity is used up by then it is the
guard again, else set-points that are late or lost, or local functions. Negative terms are spread over the
positive ones. Below the least power the same holds with all signs changed.

The outcome of a run's last tick is never reported, so it has no reason.
"""

from __future__ import annotations

import numpy as np

from evgrid.core.model import Array

REASONS = ("base_load", "lag", "guard", "others", "chargers")
"""Reasons of an excess, in the order of the dimension ``reason``."""
REASON_TEXTS = {
    "base_load": "base load only",
    "lag": "base load changed since it was measured",
    "guard": "departure guard",
    "others": "EVs of others",
    "chargers": "chargers that did not follow",
}
"""The reasons in words."""
KEPT = 1e-3
"""Excess with which a limit counts as kept, the tolerance of a control; relative to 1 kW and the limit."""
KEPT_KW = 0.05
"""The least such excess, kW: what is printed with one decimal."""
_SLACK = 1e-6
"""Excess that is neglected, relative to 1 kW and the limit."""


class Excess:
    """Sums of the energy of groups beyond a limit, (group,) each.

    least_kw, most_kw : the limit, kW; infinite for none
    over_s : interval over whose mean the limit holds; 0: each tick
    """

    def __init__(self, least_kw: float, most_kw: float, over_s: float, groups: int) -> None:
        self.least_kw, self.most_kw, self._over_s = least_kw, most_kw, over_s
        sizes = [abs(kw) for kw in (least_kw, most_kw) if np.isfinite(kw)]
        self._kept_kw = max(KEPT * max(sizes, default=0.0), KEPT_KW)
        self.energy_kwh, self.time_h = np.zeros((2, groups, len(REASONS)))
        self.carry_over_kw = np.zeros(groups)
        """(group,) kW by which each is to draw less than the limit, to compensate for its excess in this
        interval; negative: by which it is to feed back less."""
        self._drawn_kws = np.zeros(groups)
        self._interval = -1
        self._requested = (np.zeros(groups),) * 4

    def record_request(self, base: Array, asked: Array, must: Array, others: Array) -> None:
        """Record the decision of a tick: reported base load, power requested of the EVs, the part of it that
        can't wait, and the part of the base load that is EVs of other aggregators; (group,) kW each.
        """
        self._requested = base.copy(), asked, must, others

    def record_outcome(self, time_s: float, step_s: float, power: Array, own: Array, guarded: Array) -> None:
        """Record the outcome of the tick of ``step_s`` that ends at ``time_s``, (group,) kW each.

        power : of the whole group
        own : of the aggregator's EVs
        guarded : of those of them whose laxity is used up by now, beyond the power requested of them
        """
        base, asked, must, others = self._requested
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
            of_others = np.minimum(foreseen - guard, np.maximum(sign * others[at], 0.0))
            deviation = np.maximum(sign * (own - asked)[at], 0.0)
            of_guard = np.minimum(deviation, np.where(sign > 0, guarded[at], 0.0))
            parts[:, 0] = foreseen - guard - of_others
            parts[:, 1] = np.maximum(sign * (power - own - base)[at], 0.0)
            parts[:, 2] = guard + of_guard
            parts[:, 3] = of_others
            parts[:, 4] = deviation - of_guard
            parts *= (excess[at] / np.maximum(parts.sum(axis=1), 1e-12))[:, None]
            self.energy_kwh[at] += parts * step_s / 3600.0
            passed = np.where(excess[at] > self._kept_kw, step_s / 3600.0, 0.0)
            self.time_h[at, parts.argmax(axis=1)] += passed
        self._update_carry_over(time_s, step_s, power)

    def _update_carry_over(self, time_s: float, step_s: float, power: Array) -> None:
        """Update the power to compensate in the rest of the interval from ``time_s`` on."""
        if not self._over_s:
            return
        interval = int((time_s - step_s) / self._over_s + 1e-9)
        if interval != self._interval:
            self._interval, self._drawn_kws = interval, np.zeros(len(power))
        self._drawn_kws += power * step_s
        since_s = time_s - interval * self._over_s
        left_s = self._over_s - since_s
        self.carry_over_kw = np.zeros(len(power))
        if left_s > 1e-6:
            for bound, sign in ((self.most_kw, 1.0), (self.least_kw, -1.0)):
                if np.isfinite(bound):
                    beyond = sign * (self._drawn_kws - bound * since_s) / left_s
                    self.carry_over_kw += sign * np.maximum(beyond, 0.0)
