"""Sphinx configuration: the Markdown pages of this folder, and the API from docstrings."""

from pvapy_stream import __version__

project = "pvapy_stream"
author = "the pvapy_stream maintainers"
release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
exclude_patterns = ["_build"]
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
