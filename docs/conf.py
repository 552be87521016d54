"""How Sphinx builds the pages of this folder: `make docs`."""

import sys
import warnings
from pathlib import Path

# Autodoc looks at the columns of a mixin that no model has.
warnings.filterwarnings("ignore", message="Unmanaged access of declarative attribute")
sys.path.insert(0, str(Path(__file__).parents[1]))

project = "Chrononaut"
html_title = "Chrononaut"
html_theme = "furo"
html_show_copyright = False
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx_click",
    "docs.extensions.file_names",
    "docs.extensions.rest_reference",
    "docs.extensions.offline",
]
exclude_patterns = ["_build", "extensions"]
# Pages are read in a checkout too: links lead from file to file, and headings have the anchors that a forge gives them.
myst_heading_anchors = 4
default_role = "py:obj"
# Quotes and ellipses, and no dashes: `--column` stays as it is typed.
smartquotes_action = "qe"
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
nitpick_ignore_regex = [
    # Of other libraries, whose pages would have to be asked for.
    (r"py:.*", r"(collections|datetime|flask|sqlalchemy|typing|uuid)\..*"),
]
