# ruff: noqa: E501
"""Resources of IEEE 2030.5 for tests."""

from datetime import datetime

SEP = 'xmlns="urn:ieee:std:2030.5:ns" xmlns:csipaus="https://csipaus.org/ns"'


def at(text):
    """A time in UTC as seconds from 1970."""
    return round(datetime.fromisoformat(f"{text}+00:00").timestamp())


def watts(mode, kw):
    """A control mode in W."""
    space = "csipaus:" if mode in ("opModExpLimW", "opModImpLimW", "opModGenLimW", "opModLoadLimW") else ""
    return f"<{space}{mode}><multiplier>1</multiplier><value>{round(kw * 100)}</value></{space}{mode}>"


def control(
    mrid, start, duration, base, created="2026-01-15T00:00", status=0, since=None, program=0, more=""
):
    """A DERControl; times in UTC, ``duration`` in s."""
    created = at(created)
    return f"""<DERControl href="/derp/{program}/derc/{mrid}"><mRID>{mrid}</mRID><creationTime>{created}</creationTime>
<EventStatus><currentStatus>{status}</currentStatus><dateTime>{created if since is None else at(since)}</dateTime>
<potentiallySuperseded>true</potentiallySuperseded></EventStatus>
<interval><duration>{duration}</duration><start>{at(start)}</start></interval>{more}
<DERControlBase>{base}</DERControlBase></DERControl>"""


def controls(*given, program=0):
    """A DERControlList."""
    return f'<DERControlList {SEP} href="/derp/{program}/derc" all="{len(given)}" results="{len(given)}">{"".join(given)}</DERControlList>'


def programs(*primacies):
    """A DERProgramList."""
    given = "".join(
        f"""<DERProgram href="/derp/{n}"><mRID>F{n}</mRID><DefaultDERControlLink href="/derp/{n}/dderc"/>
<DERControlListLink all="1" href="/derp/{n}/derc"/><primacy>{primacy}</primacy></DERProgram>"""
        for n, primacy in enumerate(primacies)
    )
    return f'<DERProgramList {SEP} href="/derp" all="{len(primacies)}" results="{len(primacies)}">{given}</DERProgramList>'


def default(base, program=0):
    """A DefaultDERControl."""
    return f'<DefaultDERControl {SEP} href="/derp/{program}/dderc"><mRID>D{program}</mRID><DERControlBase>{base}</DERControlBase></DefaultDERControl>'


def curve(kind, points, reference, x_power=0, y_power=0, more=""):
    """A DERCurve; ``more``: elements before the multipliers."""
    data = "".join(f"<CurveData><xvalue>{x}</xvalue><yvalue>{y}</yvalue></CurveData>" for x, y in points)
    return f"""<DERCurve {SEP} href="/dc/{kind}"><mRID>C{kind:X}</mRID><creationTime>0</creationTime>{data}
<curveType>{kind}</curveType>{more}<xMultiplier>{x_power}</xMultiplier><yMultiplier>{y_power}</yMultiplier>
<yRefType>{reference}</yRefType></DERCurve>"""
