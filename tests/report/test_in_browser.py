"""The report as a browser shows it: nothing requested, no error, and what its controls do."""

import json
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
import xarray as xr
from tests.support.chromium import open_tab
from tests.support.waiting import wait_until

import evgrid
from evgrid.errors import ResultError
from evgrid.report import write_report
from evgrid.report.pdf import print_pdf

EVIL = "<img src=x onerror=console.error(1)>"

FIND = """
(() => {
  const doc = Bokeh.documents[0];
  window.named = name => [...doc._all_models.values()].find(m => m.name === name);
  return true;
})()
"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory, results):
    """Reports of a run whose second bus has an evil name, and of two runs."""
    folder = tmp_path_factory.mktemp("pages")
    with xr.open_dataset(results[0]) as result:
        names = result["bus"].values.copy()
        names[1] = EVIL
        evil = result.load().assign_coords(bus=names)
    evil.to_netcdf(folder / "evil.nc")
    one = write_report([folder / "evil.nc"], folder / "one.html")
    two = write_report(results, folder / "two.html")
    return one, two, evil


@pytest.fixture(scope="module")
def tab():
    with open_tab() as opened:
        yield opened


def opened(tab, page):
    """Open a page; its requests but for itself and for pictures in itself."""
    tab.messages.clear()
    tab.requests.clear()
    tab.open(page.as_uri())
    tab.run(FIND)
    return [url for url in tab.requests if not url.startswith(("data:", "blob:")) and url != page.as_uri()]


def test_a_page_requests_nothing_and_its_controls_show_the_result(tab, pages):
    page, _, result = pages
    assert opened(tab, page) == []
    assert tab.messages == []

    tab.run("named('quantity').value = 'lowest voltage'")
    lowest = result["voltage_pu"].where(result["voltage_pu"] > 0).min(["member", "time", "phase"]).values
    shown = tab.run("Array.from(named('buses').data.value)")
    np.testing.assert_allclose(shown, lowest, atol=2e-5)

    tab.run("named('interval').value = 3")
    start, end = tab.run("named('shown').text").removeprefix("<b>").removesuffix("</b>").split(" to ")
    of = result["voltage_pu"].sel(time=slice(start, f"{start[:10]} {end}")).isel(time=slice(0, -1))
    np.testing.assert_allclose(
        tab.run("Array.from(named('buses').data.value)"),
        of.min(["member", "time", "phase"]).values,
        atol=2e-5,
    )

    tab.run("named('interval').value = 0, named('quantity').value = 'loading'")
    loading = 100 * result["line_loading"].max(["member", "time"]).values
    np.testing.assert_allclose(tab.run("Array.from(named('lines').data.value)"), loading, atol=0.01)
    assert tab.run("named('buses').data.text.every(text => text === '')")
    assert tab.messages == []


def test_the_map_is_drawn_in_the_colours_of_its_values_and_hover_shows_names_as_they_are(tab, pages):
    page, _, _ = pages
    opened(tab, page)
    at = tab.run("""(() => {
      const find = (views) => {
        for (const view of views) {
          if (view.model.type === 'Figure' && view.model.renderers.some(r => r.data_source.name === 'buses'))
            return view;
          const below = find(view.child_views ?? []);
          if (below) return below;
        }
      };
      const view = find(Object.values(Bokeh.index.roots ?? Bokeh.index));
      view.el.scrollIntoView();
      const glyph = view.model.renderers.find(r => r.data_source.name === 'buses');
      const of = view.views.get_one(glyph).glyph, box = view.canvas_view.el.getBoundingClientRect();
      return [box.left + of.sx[1], box.top + of.sy[1]];
    })()""")
    tab.move_to(at[0] + 1, at[1] + 1)
    tab.move_to(*at)
    seen = tab.run("""new Promise(done => setTimeout(() => {
      const texts = [];
      const walk = node => {
        if (node.shadowRoot) walk(node.shadowRoot);
        for (const child of node.children ?? []) walk(child);
        if (node.classList?.contains('bk-tooltip-content')) texts.push(node.innerText);
      };
      walk(document.documentElement);
      done(texts.join(' '));
    }, 300))""")
    assert EVIL in seen
    assert tab.messages == []  # the name ran nothing


def test_two_results_share_a_slider_and_their_colours(tab, pages):
    _, page, _ = pages
    assert opened(tab, page) == []
    ends = """JSON.stringify([...Bokeh.documents[0]._all_models.values()]
      .filter(m => m.type === 'LinearColorMapper').map(m => [m.low, m.high]))"""
    low_high = json.loads(tab.run(ends))
    assert len(low_high) == 2
    assert low_high[0] == low_high[1]
    tab.run("named('quantity').value = 'loading', named('interval').value = 5")
    both = json.loads(
        tab.run("""JSON.stringify([...Bokeh.documents[0]._all_models.values()]
      .filter(m => m.name === 'lines').map(m => Array.from(m.data.value)))""")
    )
    assert len(both) == 2
    assert both[0] != both[1]
    assert tab.messages == []
    assert len(tab.screenshot()) > 50_000


@pytest.mark.slow
def test_on_paper_each_chart_is_a_picture(tab, pages, tmp_path):
    page, _, _ = pages
    made = print_pdf(page, tmp_path / "r.pdf").read_bytes()
    assert made.startswith(b"%PDF")
    charts = page.read_text().count('<div class="chart">')
    sizes = set(re.findall(rb"/Width (\d+)", made))
    assert b"1040" in sizes  # as wide as the page's charts
    assert made.count(b"/Subtype /Image") >= charts


def test_without_a_browser_the_page_is_made_and_the_pdf_refused(pages, tmp_path, monkeypatch):
    monkeypatch.setattr("evgrid.report.pdf.PROGRAMS", ())
    monkeypatch.delenv("EVGRID_CHROMIUM", raising=False)
    with pytest.raises(ResultError, match="no PDF was made: it needs Chromium or Chrome"):
        print_pdf(pages[0], tmp_path / "r.pdf")
    monkeypatch.setenv("EVGRID_CHROMIUM", str(tmp_path / "none"))
    with pytest.raises(ResultError, match="no PDF was made by .*none: "):
        print_pdf(pages[0], tmp_path / "r.pdf")


@pytest.mark.slow
def test_browse_serves_the_same_page_with_every_interval_on_this_machine_only(tab, results):
    command = [sys.executable, "-m", "evgrid.cli", "browse", str(results[0])]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        address = process.stdout.readline().split()[1]
        assert address.startswith("http://127.0.0.1:")
        tab.messages.clear()
        tab.requests.clear()
        tab.open(address, ready="window.Bokeh && Bokeh.documents[0]?.is_idle")
        tab.run(FIND)
        assert {url for url in tab.requests if not url.startswith(("data:", "blob:", address))} == set()
        with evgrid.open_results(results[0]) as result:
            assert tab.run("named('interval').end") == result.sizes["time"]
            lowest = result["voltage_pu"].isel(time=40).min(["member", "phase"]).values
            loading = 100 * result["line_loading"].isel(time=40).max("member").values
        tab.run("named('interval').value = 41")

        def values(source):
            return np.array(tab.run(f"Array.from(named('{source}').data.value)"), float)  # null is NaN

        wait_until(lambda: np.allclose(values("buses"), lowest, atol=1e-6))
        tab.run("named('quantity').value = 'loading'")
        wait_until(lambda: np.allclose(values("lines"), loading, atol=1e-4))
        assert tab.messages == []
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
