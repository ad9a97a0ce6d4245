"""The smallest implementation of each kind that one line makes known."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd

from evgrid.core.model import Clock
from evgrid.core.units import DAY_S
from evgrid.errors import NetworkError
from evgrid.fleet.sessions.importers.imported import Imported, Tally
from evgrid.fleet.sessions.importers.recorded import ImportedFile
from evgrid.fleet.sessions.travel import SampledSessions, Slot
from evgrid.readers.series import Series
from evgrid.runs.batch import Batch, Run, plan
from evgrid.scenario import Scenario
from evgrid.scenario.fields import ExistingFile
from evgrid.scenario.tariffs import Steps, Tariff
from evgrid.studies.study import Answer, BatchOptions, Option, Progress, Study


class ToySource(SampledSessions):
    """EVs that leave at 8:00 and return at an hour."""

    source: Literal["toy"] = "toy"
    """The name of this source."""
    return_h: float = 18.0
    """Hour of the return, h."""

    def slots_of(self, seed: int, member: int, day: int, index: int, count: int) -> Iterator[Slot]:
        """One trip of 20 miles."""
        leave, back = (np.full(count, DAY_S * index + 3600.0 * hour) for hour in (8.0, self.return_h))
        yield Slot(index, leave, np.full(count, 20.0), back, None)


class ToyFile(ImportedFile):
    """A file with a number a line: kWh of a session from 18:00 to 20:00 on the day of the run."""

    toy: ExistingFile
    """The file."""

    def read(self, scenario: Scenario) -> Imported:
        """A session a line."""
        tally, day = Tally(self.toy), pd.Timestamp(scenario.start).normalize()
        kwh = [float(line) for line in self.toy.read_text().split()]
        tally.read = len(kwh)
        table = pd.DataFrame({"ev": [f"ev{i}" for i in range(len(kwh))], "energy_kwh": kwh})
        table["evse"] = table["ev"]
        table["arrival"], table["departure"] = day + pd.Timedelta(hours=18), day + pd.Timedelta(hours=20)
        return tally.imported(table)


def read_toy_net(path: Path) -> Any:
    """A line of a length in km, which the file holds, from the source to a load of 2 kW."""
    import pandapower as pp

    try:
        length_km = float(path.read_text())
    except ValueError:
        raise NetworkError.of(str(path), ["must hold a length in km"]) from None
    net = pp.create_empty_network()
    source, end = pp.create_bus(net, 0.4), pp.create_bus(net, 0.4)
    pp.create_ext_grid(net, source)
    pp.create_line_from_parameters(net, source, end, length_km, 0.2, 0.08, 0.0, 0.3)
    pp.create_load(net, end, 0.002, name="House")
    return net


class ToyTariff(Tariff):
    """One price at all times."""

    flat: float
    """Currency per kWh."""

    def drawn(self, clock: Clock) -> tuple[Steps, float]:
        """The price, of which there is always more."""
        series = Series(np.array([0.0, 1.0]), np.array([self.flat]))
        return lambda begin_s, end_s: series, np.inf


class ToyStudy(Study):
    """EVs of a scenario, with so many more."""

    kind: ClassVar[str] = "toy-study"
    question: ClassVar[str] = "How many EVs there are."
    options: ClassVar[tuple[Option, ...]] = (Option("--more", "more", "EVs besides.", int),)

    more: int = 0
    """EVs besides."""

    def plans(self) -> list[Run]:
        """The scenario's own run."""
        return plan(Batch.model_validate({"name": self.name, "base": self.scenario, "list": [{}]}))

    def answers(self, folder: Path, progress: Progress, options: BatchOptions) -> Iterator[Answer]:
        """The number, and a file with it."""
        fleet = self.plans()[0].scenario.fleet
        assert fleet is not None
        number = (fleet.count or 0) + self.more

        def save() -> list[Path]:
            folder.mkdir(parents=True)
            (folder / "number.txt").write_text(str(number))
            return [folder / "number.txt"]

        yield Answer(self.name, [("EVs", str(number))], save)
