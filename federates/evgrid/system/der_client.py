"""A client of a server of IEEE 2030.5: reads DERPrograms and their DERControls during a run.

In: at each tick the simulated time (:mod:`evgrid.system.live`). Out: signals; a record, an object a line with
the documents that were read, of the form that ``system.ieee2030_5.files`` takes, from which the run can be
repeated.

A control counts from the tick at which it came; one that the server no longer lists, from then on no more.
Left out: registration, function set assignments (the list of programs is a setting), subscriptions,
responses.
"""

from __future__ import annotations

import asyncio
import json

from evgrid.errors import ScenarioError
from evgrid.readers.ieee2030_5 import DerRules, Snapshot, signals_of, snapshot_of
from evgrid.readers.signals import utc_at
from evgrid.scenario.system import DerServer
from evgrid.system.live import LiveSignals, LiveSource, logger, stamp

_TIMEOUT_S = 5.0


class DerClient(LiveSource):
    """Keeps signals up to date by the DERControls of a server.

    settings, rules : the server, and how its controls become signals
    """

    def __init__(self, settings: DerServer, rules: DerRules, signals: LiveSignals, waits: bool) -> None:
        what = f"system.ieee2030_5: the server {settings.url}"
        super().__init__(what, settings.every, settings.record, signals, waits)
        self._settings, self._rules = settings, rules
        self._snapshots: list[Snapshot] = []
        self._last: list[str] = []
        self._faults: set[str] = set()
        try:  # takes seconds, which are not the server's
            import py20305.client.http
            import py20305.models.sep.sep  # noqa: F401
        except ImportError:
            text = "system.ieee2030_5: needs the package py20305: pip install 'evgrid[ieee2030_5]'"
            raise ScenarioError([text]) from None

    def ask(self) -> list[str]:
        """See :meth:`LiveSource.ask`: the programs, their controls and defaults, as XML."""
        return asyncio.run(asyncio.wait_for(self._documents(), _TIMEOUT_S))

    async def _documents(self) -> list[str]:
        from py20305.client.http import Sep2Client
        from py20305.client.retry import RetryPolicy
        from py20305.client.tls import TlsConfig
        from py20305.models.sep import sep
        from py20305.xml.serialization import to_xml

        given, tls = self._settings, None
        if given.certificate is not None and given.key is not None and given.authority is not None:
            tls = TlsConfig(given.certificate, given.key, given.authority)
        async with Sep2Client(given.url, tls, RetryPolicy(max_transient=0, max_tls=0)) as client:
            found = await client.get_list(given.programs, sep.DerprogramList)
            for program in [program for page in found for program in page.derprogram]:
                if (link := program.dercontrol_list_link) is not None:
                    found += await client.get_list(link.href, sep.DercontrolList)
                if (link := program.default_dercontrol_link) is not None:
                    found.append(await client.get(link.href, sep.DefaultDercontrol))
            return [to_xml(document, include_csipaus=True).decode() for document in found]

    def take(self, answer: list[str], time_s: float) -> None:
        """See :meth:`LiveSource.take`."""
        if answer == self._last:
            return
        self._last = answer
        received = utc_at(time_s, self._rules.zone, self._rules.clock)
        self.write([json.dumps({"receivedDateTime": stamp(received), "resources": answer})])
        self._snapshots.append(snapshot_of(answer, received, self.what))
        signals, faults = signals_of(self._snapshots, self._rules)
        for fault in [fault for fault in faults if fault not in self._faults]:
            self._faults.add(fault)
            logger.warning("%s: a control is not followed: %s", self.what, fault)
        self.signals.take(signals.blocks)
