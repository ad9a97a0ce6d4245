"""Importers: recorded sessions and travel diaries as session tables.

==============  ============================================================
``read_acn``    ACN-Data, JSON as its API and its web interface return it
``read_elaad``  ElaadNL open transactions, CSV
``read_nhts``   US National Household Travel Survey, trippub.csv
``read_plain``  evgrid's own session table, of which bad rows are left out
==============  ============================================================

Each gives an :class:`Imported`: the sessions, and a :class:`Report` that says how many rows were
read, which were dropped and why, what was changed in those kept, and what was assumed. No row is
dropped silently. A file that is not in the format at all is a ``ScenarioError``.

``Imported.at`` puts the sessions at connection points of a network and ``Imported.save`` writes
them as a file for ``fleet.sessions: {file: ...}``::

    week = read_acn("acn.json")
    print(week.report)
    week.at("car_park").save("sessions.csv")

Left out: the time series of current in ACN-Data, ElaadNL's meter values, prices.
"""

from evgrid.fleet.sessions.importers.acn import read_acn
from evgrid.fleet.sessions.importers.elaad import read_elaad
from evgrid.fleet.sessions.importers.imported import Imported, Report, undeliverable
from evgrid.fleet.sessions.importers.nhts import read_nhts
from evgrid.fleet.sessions.importers.plain import read_plain

__all__ = ["Imported", "Report", "read_acn", "read_elaad", "read_nhts", "read_plain", "undeliverable"]
