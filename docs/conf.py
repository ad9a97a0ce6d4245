"""Configuration of the documentation, built by ``make docs``.

The notebooks are executed once and kept in a cache; ``EVGRID_DOCS_NOTEBOOKS=off`` shows them without results.
Keys of scenarios, batches, studies and tariffs, result variables and ports are generated from the code by
``generate.py`` into ``reference/generated``.
"""

import os
import re
import sys
from importlib import metadata
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import generate  # noqa: E402 (beside this file)

project = "evgrid"
author = "the evgrid developers"
copyright = author
release = version = metadata.version("evgrid")

extensions = [
    "myst_nb",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx_click",
    "sphinx_design",
]
exclude_patterns = ["build", "reference/generated"]
source_suffix = {".md": "myst-nb", ".ipynb": "myst-nb"}

highlight_language = "text"
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
nb_execution_mode = os.environ.get("EVGRID_DOCS_NOTEBOOKS", "cache")
nb_execution_timeout = 600
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_merge_streams = True

nitpicky = True
autodoc_typehints = "none"
autodoc_member_order = "bysource"
autoclass_content = "class"
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False

html_theme = "pydata_sphinx_theme"
html_title = "evgrid"
html_static_path = ["static"]
html_css_files = ["evgrid.css"]
html_show_sourcelink = False
html_copy_source = False
toc_object_entries = False
html_theme_options = {
    "header_links_before_dropdown": 8,
    "show_prev_next": False,
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "secondary_sidebar_items": {  # none beside wide tables
        "**": ["page-toc"],
        "background/validation": [],
        "development/how_it_is_built": [],
    },
    "footer_start": ["copyright"],
    "footer_end": [],
    "pygments_light_style": "tango",
}
html_sidebars = {"start": [], "tutorials": [], "index": []}


def fields_as_list(app, what, name, obj, options, lines):
    """Make a field list of lines such as ``soc : (ev,) 0 to 1``, but for sections that numpydoc reads."""
    if not any(set(line) == {"-"} for line in lines):
        lines[:] = [re.sub(r"^(\w[\w, ]*) : ", r":\1: ", line) for line in lines]


def setup(app):
    """Write the generated pages before Sphinx reads the sources."""
    generate.write(HERE / "reference" / "generated")
    app.connect("autodoc-process-docstring", fields_as_list, priority=400)
