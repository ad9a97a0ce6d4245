"""Events of OpenADR for tests."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np

from evgrid.core.model import Clock
from evgrid.readers.openadr import Rules, signals_of, versions_of

START = datetime(2026, 1, 15, tzinfo=UTC)


def moment(hours):
    """A time ``hours`` after START, as text."""
    return (START + timedelta(hours=hours)).isoformat().replace("+00:00", "Z")


def event(name, begin_h, hours, value, kind="PRICE", **more):
    """An event of one interval; times in hours after START."""
    return {
        "id": name,
        "programID": "p",
        "intervals": [
            {
                "id": 0,
                "intervalPeriod": {"start": moment(begin_h), "duration": f"PT{round(3600 * hours)}S"},
                "payloads": [{"type": kind, "values": [value]}],
            }
        ],
        **more,
    }


def notified(operation, at_h, content):
    """A notification, received ``at_h`` hours after START."""
    return {
        "objectType": "EVENT",
        "operation": operation,
        "receivedDateTime": moment(at_h),
        "object": content,
    }


def rules(zone="UTC", start="2026-01-15T00:00", hours=24, **more):
    """The rules of a run in a time zone."""
    return Rules(ZoneInfo(zone), Clock(np.datetime64(start), 900.0, 4 * hours), **more)


def signals(objects, given=None):
    """The signals of objects without a fault."""
    versions, faults = versions_of(objects)
    assert faults == []
    found, faults = signals_of(versions, given or rules())
    assert faults == []
    return found


def spans(winners):
    """Begin and end in hours, and value, of each span."""
    return [(begin / 3600, end / 3600, block.value) for begin, end, block in winners]
