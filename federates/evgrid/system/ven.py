"""A virtual end node (VEN) of OpenADR 3: polls a server (VTN) during a run, and reports to it.

In: at each tick the simulated time (:mod:`evgrid.system.live`). Out: signals; a record, an object a line, of
the form that ``system.openadr.file`` takes, from which the run can be repeated; reports.

Times are those of the run's clock: a VTN's events lie in the run's period. Events that the VTN no longer
lists are cancelled. Reports go to each event that asks for them by ``reportDescriptors``, every ``report``:
of the interval that has passed, whatever timing the descriptor asks for besides.

====================  =======================================================================================
``USAGE``             energy that the EVs drew in the interval, kWh
``DEMAND``            its mean power, kW
``BASELINE``          energy that they would have drawn, had all charged at once, kWh
``USAGE_FORECAST``    the same of the next interval
``SIMPLE_LEVEL``      level of the event that EVs follow; 0 if none does
``OPT_OUT``           share of the EVs that opted out of the event; a type of evgrid's own
====================  =======================================================================================
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from functools import partial
from typing import Any

import numpy as np

from evgrid.core.model import Clock
from evgrid.errors import ScenarioError
from evgrid.readers.faults import shown
from evgrid.readers.openadr import Rules, Version, signals_of, versions_of
from evgrid.readers.signals import utc_at
from evgrid.scenario.system import VTN
from evgrid.system.live import LONGEST_S, LiveSignals, LiveSource, logger, reason, stamp

_PAGE = 50
"""Events in an answer: the most that the specification allows to ask for."""
_MOST_EVENTS = 20_000
_REPORTED = {
    "USAGE": "KWH",
    "DEMAND": "KW",
    "BASELINE": "KWH",
    "USAGE_FORECAST": "KWH",
    "SIMPLE_LEVEL": None,
    "OPT_OUT": None,
}
"""Types of payloads in reports, and their units."""


class VirtualEndNode(LiveSource):
    """Keeps signals up to date by the events of a VTN, and reports to it.

    settings, rules : the VTN, and how its events become signals
    """

    def __init__(self, settings: VTN, rules: Rules, signals: LiveSignals, waits: bool) -> None:
        what = f"system.openadr: the VTN {settings.url}"
        super().__init__(what, settings.every, settings.record, signals, waits)
        self._settings, self._rules = settings, rules
        self._vtn = _Vtn(settings)
        self._versions: list[Version] = []
        self._seen: dict[str, Mapping[str, Any]] = {}
        self._sent: list[Future[None]] = []
        self._drawn_kwh, self._reported_s = 0.0, 0.0

    def ask(self) -> list[Mapping[str, Any]]:
        """See :meth:`LiveSource.ask`: the events."""
        return self._vtn.events()

    def tick(self, time_s: float, clock: Clock) -> None:
        """See :meth:`LiveSource.tick`."""
        self._check_sent(clock.stamp(time_s))
        super().tick(time_s, clock)

    def take(self, answer: list[Mapping[str, Any]], time_s: float) -> None:
        """Take the events that are new, changed, or no longer there."""
        listed = {str(given["id"]): given for given in answer}
        changes = [
            ("CREATE" if key not in self._seen else "UPDATE", given)
            for key, given in listed.items()
            if self._seen.get(key) != given
        ] + [("DELETE", given) for key, given in self._seen.items() if key not in listed]
        if not changes:
            return
        self._seen = listed
        received = stamp(utc_at(time_s, self._rules.zone, self._rules.clock))
        notified = [
            {"objectType": "EVENT", "operation": operation, "receivedDateTime": received, "object": given}
            for operation, given in changes
        ]
        self.write(json.dumps(given) for given in notified)
        versions, faults = versions_of(notified)
        self._versions += versions
        signals, more = signals_of(self._versions, self._rules)
        for fault in [*faults, *more]:
            logger.warning("system.openadr: an event of the VTN is not followed: %s", fault)
        self.signals.take(signals.blocks)

    # ---- reports ------------------------------------------------------------------------------

    def count(self, time_s: float, power_kw: float, step_s: float) -> None:
        """Count the power of the tick that ended at ``time_s``, and report where it is time to."""
        self._drawn_kwh += power_kw * step_s / 3600.0
        every = self._settings.report
        if every is None or time_s < self._reported_s + every - 1e-6:
            return
        begin_s, drawn_kwh = self._reported_s, self._drawn_kwh
        self._reported_s, self._drawn_kwh = time_s, 0.0
        for key, given in self._seen.items():
            asked = [
                d["payloadType"]
                for d in given.get("reportDescriptors") or ()
                if isinstance(d, Mapping) and d.get("payloadType") in _REPORTED
            ]
            if asked:
                report = self._report(key, asked, begin_s, time_s, drawn_kwh)
                self._sent.append(self.submit(partial(self._vtn.report, report)))
        if self.waits:
            wait(self._sent, LONGEST_S)

    def _report(
        self, key: str, asked: list[str], begin_s: float, end_s: float, drawn_kwh: float
    ) -> dict[str, Any]:
        """A report of one event about the interval from ``begin_s`` to ``end_s``."""
        span_s, known = end_s - begin_s, self.signals.known(begin_s)
        out = [by_event.get(key, 0.0) for by_event in self.signals.opted_out.values()]
        share = float(np.mean(out)) if out else 0.0
        level = max((b.value for b in known.blocks if b.kind == "level" and b.event == key
                     and b.begin_s < end_s and b.end_s > begin_s), default=0.0)  # fmt: skip
        found = {
            "USAGE": drawn_kwh,
            "DEMAND": drawn_kwh * 3600.0 / span_s,
            "BASELINE": self._at_once(begin_s, end_s) * span_s / 3600.0,
            "USAGE_FORECAST": self._at_once(end_s, end_s + span_s) * span_s / 3600.0,
            "SIMPLE_LEVEL": int(level) if share < 1.0 else 0,
            "OPT_OUT": share,
        }
        start = utc_at(begin_s, self._rules.zone, self._rules.clock)
        name = self._settings.ven
        return {
            "eventID": key,
            "clientName": name,
            "reportName": f"{name} {start:%Y-%m-%dT%H:%M:%SZ}",
            "payloadDescriptors": [
                {"objectType": "REPORT_PAYLOAD_DESCRIPTOR", "payloadType": kind, "units": _REPORTED[kind]}
                for kind in asked
                if _REPORTED[kind] is not None
            ],
            "resources": [
                {
                    "resourceName": "AGGREGATED_REPORT",
                    "intervalPeriod": {"start": f"{start:%Y-%m-%dT%H:%M:%SZ}", "duration": f"PT{span_s:g}S"},
                    "intervals": [
                        {"id": 0, "payloads": [{"type": kind, "values": [found[kind]]} for kind in asked]}
                    ],
                }
            ],
        }

    def _at_once(self, begin_s: float, end_s: float) -> float:
        return sum(baseline(begin_s, end_s) for baseline in self.signals.baselines)

    def _check_sent(self, when: str) -> None:
        for sent in [sent for sent in self._sent if sent.done()]:
            self._sent.remove(sent)
            error = sent.exception()
            if error is not None:
                self.lost(f"did not take a report at {when}: {reason(error)}")

    def close(self) -> None:
        """See :meth:`LiveSource.close`."""
        super().close()
        if self.waits:
            self._vtn.close()


class _Vtn:
    """The server, by the client of openadr3: answers within httpx's 5 s, or not at all."""

    def __init__(self, settings: VTN) -> None:
        try:
            from openadr3.api import OpenADRClient
        except ImportError:
            raise ScenarioError(
                ["system.openadr.vtn: needs the package openadr3: pip install 'evgrid[openadr]'"]
            ) from None
        self._settings = settings
        self._client = OpenADRClient(settings.url, client_type="ven", user_agent="evgrid")
        self._secret = os.environ.get(settings.secret)
        if settings.client_id is not None and self._secret is None:
            raise ScenarioError(
                [f"system.openadr.vtn.secret = {settings.secret}: there is no such environment variable"]
            )
        self._has_token = settings.client_id is None
        self._one = threading.Lock()

    def events(self) -> list[Mapping[str, Any]]:
        """All events that the VTN lists."""
        found: list[Mapping[str, Any]] = []
        while len(found) < _MOST_EVENTS:
            page = self._ask(partial(self._client.get_events, skip=len(found), limit=_PAGE)).json()
            if not isinstance(page, list) or not all(isinstance(e, dict) and e.get("id") for e in page):
                raise ValueError(f"/events is no list of events: {shown(page)}")
            found += page
            if len(page) < _PAGE:
                return found
        raise ValueError(f"/events lists more than {_MOST_EVENTS} events")

    def report(self, report: Mapping[str, Any]) -> None:
        """Send a report."""
        self._ask(lambda: self._client.create_report(dict(report)))

    def _ask(self, call: Callable[[], Any]) -> Any:
        settings = self._settings
        with self._one:
            if not self._has_token:
                self._client.fetch_token(settings.client_id, self._secret, settings.token_url)
                self._has_token = True
            answer = call()
            if answer.status_code == 401 and settings.client_id is not None:  # the token has expired
                self._client.fetch_token(settings.client_id, self._secret, settings.token_url)
                answer = call()
        answer.raise_for_status()
        return answer

    def close(self) -> None:
        """Close the connection."""
        self._client.close()
