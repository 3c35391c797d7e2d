"""Sphinx: the pages are Markdown (MyST), warnings are errors (`make docs`)."""

from importlib.metadata import version as installed_version

project = "Outcrop"
author = "The Outcrop developers"
copyright = "2026, The Outcrop developers"
version = release = installed_version("outcrop")

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
myst_heading_anchors = 3
nitpicky = True
nitpick_ignore_regex = [("py:.*", ".*")]

html_theme = "furo"
html_title = "Outcrop"
html_copy_source = False

autodoc_member_order = "bysource"
autodoc_typehints = "description"
