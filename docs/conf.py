"""Configuration of the documentation: ``sphinx-build -W docs docs/_build/html``.

Nothing is fetched while building or reading: formulas become MathML while building, no font or
script comes from another server, and there is no inventory of other projects.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

# Examples that train take turns between torch's threads and ours. On two shared cores torch's,
# which spin while they wait, made a step of 7 ms one of 160; asleep they are in nobody's way.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS / "_ext"))

import slipstick  # noqa: E402  after the path: the package that is documented is the installed one

project = "slipstick"
author = "the slipstick developers"
copyright = "the slipstick developers, Apache-2.0"
version = release = slipstick.__version__


def _missing(module: str) -> bool:
    """Whether a bridge, or the package that it stands on, is not installed."""
    try:
        return importlib.util.find_spec(module) is None
    except ImportError:
        return True


# Bridges whose package is large are documented where it is installed.
BRIDGES = {
    "torch": ("slipstick.torch", "torch"),
    "transformers": ("slipstick.transformers", "transformers"),
    "distributed": ("slipstick.distributed", "torch"),
}
absent = [name for name, modules in BRIDGES.items() if any(map(_missing, modules))]

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "myst_parser",
    "sphinx_design",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
    "matplotlib.sphinxext.plot_directive",
    "mathml",
    "bench_table",
    "api_members",
    "trim_code",
    "repository_links",
]
highlight_language = "none"  # of a fence that names none
exclude_patterns = ["_build", "gallery/**", "api/backreferences/**", "**/*.py.md5"]
exclude_patterns += [f"api/bridges/{name}.rst" for name in absent]
templates_path = ["_templates"]

# --- Checks: -W makes errors of warnings, nitpicky reports each reference that leads nowhere ---

nitpicky = True
# `name` in a docstring is a link where the documentation has such an object, and code elsewhere.
default_role = "py:obj"
nitpick_ignore_regex = [("py:obj", r".*")]

# --- API ---

autosummary_generate = True
autosummary_ignore_module_all = False
autosummary_imported_members = True
autodoc_typehints = "none"  # numpydoc's sections say more than Any does
autodoc_member_order = "bysource"
numpydoc_show_class_members = False  # autodoc lists them
numpydoc_xref_param_type = False

# --- Pages in Markdown ---

myst_enable_extensions = ["dollarmath", "colon_fence", "deflist"]
myst_heading_anchors = 3
math_numfig = False
html_math_renderer = "mathml"

# --- Gallery ---

# Not the letters of `training` alone: the folder is there with the examples that need torch.
runs = r"plot_" if "torch" not in absent else r"(?<!training/)plot_"
sphinx_gallery_conf = {
    "examples_dirs": "gallery",
    "gallery_dirs": "examples",
    "filename_pattern": runs,
    "reset_modules": ("matplotlib", "picture_style.reset"),
    "doc_module": ("slipstick",),
    "backreferences_dir": "api/backreferences",
    "reference_url": {"slipstick": None},
    "image_srcset": ["2x"],
    "capture_repr": (),
    "subsection_order": ["gallery/mitchell", "gallery/attention", "gallery/projection", "*"],
    "within_subsection_order": "FileNameSortKey",
    "download_all_examples": False,
    "remove_config_comments": True,
    "show_memory": False,
    "show_signature": False,
    "write_computation_times": False,  # its page wants a script from elsewhere
}

# --- Plots of committed results ---

plot_html_show_formats = False
plot_html_show_source_link = False
plot_formats = [("png", 160)]
plot_include_source = False

# --- HTML ---

html_theme = "pydata_sphinx_theme"
html_title = "slipstick"
html_static_path = ["_static"]
html_css_files = ["slipstick.css"]
html_favicon = "_static/logo.svg"
html_show_sourcelink = False
html_copy_source = False
html_theme_options = {
    "logo": {
        "text": "slipstick",
        "image_light": "_static/logo.svg",
        "image_dark": "_static/logo-dark.svg",
    },
    "navbar_align": "left",
    "header_links_before_dropdown": 6,
    "show_nav_level": 1,
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "footer_start": ["copyright"],
    "footer_end": [],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
html_sidebars = {"index": [], "install": [], "speed": [], "testing": [], "changelog": []}
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
