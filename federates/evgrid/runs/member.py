"""A process that runs one federate of a run whose broker another process hosts."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from evgrid.core.ports import CAUSAL_ORDER, kind_of
from evgrid.core.temporary import temporary_folder
from evgrid.errors import ScenarioError
from evgrid.federation.control import Member
from evgrid.federation.runtime import run_federation
from evgrid.runs.deployments import digest_of
from evgrid.runs.parts import Part
from evgrid.runs.simulation import prepare
from evgrid.scenario.federation import address_of

if TYPE_CHECKING:
    from evgrid.scenario import Scenario


def run_member(name: str, scenario: Scenario, broker: str, folder: str | None = None) -> None:
    """Run one federate of a run whose broker another process hosts, and deliver its part of the result.

    Waits until the broker listens, at most ``federation.wait``. Raises ScenarioError for a name that no
    federate has, and RunError with the first cause when the run fails, in whatever process.
    """
    if kind_of(name) not in CAUSAL_ORDER:
        raise ScenarioError([f"{name}: is no federate; there are {', '.join(CAUSAL_ORDER)}, aggregator.NAME"])
    host, port = address_of(broker)
    member = Member(name, host, port, digest_of(scenario, folder), scenario.federation.wait)
    try:
        with (
            temporary_folder() as temporary,
            prepare(scenario, Path(temporary) / "part.nc", only=(name,)) as prepared,
        ):
            report = run_federation(
                prepared.models, prepared.world.sizes, prepared.world.clock,
                message_delay_s=prepared.message_delay_s, speed=scenario.time.speed, own=(name,),
                external=scenario.federation.external, elsewhere=member,
            )  # fmt: skip
            prepared.recorder.close()
            part = Part.of(prepared.own)
            prepared.store.finish({"part": part.to_json()}).close()
            member.deliver(
                Path(temporary) / "part.nc",
                {
                    "setup_s": report.setup_s,
                    "run_s": report.run_s,
                    "steps": report.steps[name],
                    "stepping_s": report.stepping_s[name],
                    "finishing_s": report.finishing_s[name],
                    "recording_s": prepared.recorder.spent_s.get(name, 0.0),
                    "lateness": asdict(report.lateness) if report.lateness is not None else None,
                },
            )
    except BaseException as error:
        member.failed(str(error) or type(error).__name__)
        raise
    finally:
        member.close()
