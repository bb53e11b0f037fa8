"""How Sphinx builds the documentation."""

import atlasd

project = "atlasd"
version = release = atlasd.__version__
copyright = "the atlasd contributors"  # noqa: A001  Sphinx reads it under this name

extensions = ["myst_parser"]
exclude_patterns = ["_build"]
nitpicky = True
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = "atlasd"
# Pages are read from disk and over loopback as well: nothing is fetched from elsewhere.
html_theme_options: dict[str, list[str]] = {"top_of_page_buttons": []}
html_show_sourcelink = False
html_copy_source = False
