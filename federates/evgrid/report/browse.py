"""The report of results too large for one file: the same page from a Bokeh server on this machine.

The map reads each recording interval when it is shown, and the curves have the whole time axis.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from evgrid.errors import ResultError

if TYPE_CHECKING:
    from bokeh.document import Document

LOOPBACK = "127.0.0.1"
"""Address to which the server listens: only programs of this machine reach it."""


def serve(
    paths: Sequence[Path], limits: Sequence[str] = (), port: int = 0, ready: Callable[[str], None] = print
) -> None:
    """Serve the page until the process is interrupted; ``ready`` is called with its address.

    ``port`` 0 takes a free one. Raises ResultError if a file is no result, Bokeh is not installed, or the
    port is taken.
    """
    from evgrid.report import need_bokeh
    from evgrid.report.cases import open_cases

    need_bokeh()
    from bokeh.application import Application
    from bokeh.application.handlers.function import FunctionHandler
    from bokeh.server.server import Server

    from evgrid.report.judged import Judged
    from evgrid.report.page import template, variables
    from evgrid.report.runs import page_of_judged

    with open_cases(paths) as cases:
        judged = [Judged(case, limits, 1) for case in cases]

        def show(document: Document) -> None:
            page = page_of_judged(judged, live=True)
            document.template = template()
            document.template_variables.update(variables(page, offline=False))
            document.title = page.title
            for model in page.charts:
                document.add_root(model)

        try:
            server = Server({"/": Application(FunctionHandler(show))}, port=port, address=LOOPBACK)
        except OSError as error:
            raise ResultError(f"the page can't be served at port {port}: {error.strerror}") from error
        server.start()
        ready(f"http://{LOOPBACK}:{server.port}/")
        try:
            server.io_loop.start()
        finally:
            server.stop()
