"""Each name of a table of implementations stands on the page about its kind."""

from pathlib import Path

import pytest

from evgrid.scenario.aggregators import STRATEGIES
from evgrid.scenario.feeder import NETWORK_FILES
from evgrid.scenario.sessions import SESSION_FILES, SOURCES
from evgrid.scenario.sites import CONTROLS
from evgrid.studies.study import STUDIES

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize(
    ("registry", "page", "written"),
    [
        (STRATEGIES, "guide/strategies.md", "| `{}` |"),
        (CONTROLS, "guide/sites.md", "| `{}` |"),
        (SOURCES, "how_to/own_sessions.md", "`{}`"),
        (SESSION_FILES, "how_to/own_sessions.md", "`{{{}: "),
        (SESSION_FILES, "how_to/files.md", ".{}`"),
        (NETWORK_FILES, "how_to/files.md", "`{}`"),
        (STUDIES, "guide/studies.md", "evgrid study {} "),
    ],
)
def test_each_name_stands_on_its_page(registry, page, written):
    text = (DOCS / page).read_text(encoding="utf-8")
    missing = [name for name in registry.names() if written.format(name) not in text]
    assert not missing, f"docs/{page} says nothing of {', '.join(missing)}"
