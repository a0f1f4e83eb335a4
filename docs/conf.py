"""The site: ``make docs`` builds it, without a network, and every warning is an error."""

import os
import re
import sys
from importlib.metadata import version as installed_version
from pathlib import Path

from docutils import nodes

sys.path.insert(0, str(Path(__file__).parent))  # for _gallery_hooks
os.environ["SKTRANSFER_PROGRESS"] = "0"  # no bars on the pages

project = "sktransfer"
author = "the sktransfer developers"
copyright = author
release = version = installed_version("sktransfer")

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_templates", "tests", "**/.*"]
templates_path = ["_templates"]

# Pages are Markdown, and read well without the site: links between them are relative paths, and
# anchors are those that viewers of Markdown make of headings.
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4

# Each public name is in reference.md; its page is written from its docstring.
autosummary_generate = True
autodoc_typehints = "none"  # numpydoc says them in words
autodoc_default_options = {"members": True, "inherited-members": "tuple, Sequence, BaseException"}
numpydoc_show_class_members = False
nitpicky = True
add_module_names = False
smartquotes = False  # they change the quotes of types and defaults
toc_object_entries_show_parents = "hide"

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "gallery",
    "filename_pattern": r"plot_",
    "ignore_pattern": r"(^|[\\/])(?!plot_)\w+\.py$",  # scripts, and what examples share
    "abort_on_example_error": True,
    "doc_module": ("sktransfer",),
    "backreferences_dir": "gallery/uses",
    "download_all_examples": False,
    "plot_gallery": "True",
    "remove_config_comments": True,
    "reset_modules": ("matplotlib", "_gallery_hooks.empty_store"),
    "show_memory": False,
    "log_level": {"backreference_missing": "debug"},  # no example uses some names
    "show_signature": False,
    "write_computation_times": False,  # a page that loads scripts from elsewhere
    "within_subsection_order": "_gallery_hooks.ByLesson",
}

html_theme = "pydata_sphinx_theme"
html_title = "sktransfer"
html_logo = html_favicon = "_static/logo.svg"
html_context = {"default_mode": "auto"}
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
html_show_copyright = False
html_theme_options = {
    "logo": {"text": "sktransfer"},
    "header_links_before_dropdown": 6,
    "navbar_align": "left",
    "navigation_with_keys": False,
    "search_as_you_type": False,
    "secondary_sidebar_items": ["page-toc"],
    "show_prev_next": True,
    "footer_start": ["sphinx-version"],
    "footer_end": ["theme-version"],
}
WITHOUT_NEIGHBOURS = ("index", "install", "glossary", "changelog", "contributing")
html_sidebars = {page: [] for page in (*WITHOUT_NEIGHBOURS, "coming_from/*", "gallery/*")}
copybutton_exclude = ".linenos, .gp, .go"


def link_to_scikit_learn(app, env, node, contnode):
    """Link a name of scikit-learn to its page, which needs no inventory of that site."""
    target = node.get("reftarget", "")
    if not target.startswith("sklearn."):
        return None
    parts = target.split(".")
    # a class or function is the last part; a method has a class before it
    owner = next((i for i, part in enumerate(parts) if part[0].isupper()), len(parts) - 1)
    page = ".".join(parts[: owner + 1])
    anchor = f"#{target}" if owner + 1 < len(parts) else ""
    address = f"https://scikit-learn.org/stable/modules/generated/{page}.html{anchor}"
    return nodes.reference("", "", contnode, internal=False, refuri=address)


# In docstrings that are inherited from scikit-learn, `:ref:` and `:term:` point into its own pages,
# and `:math:` needs MathJax, which would be loaded from elsewhere.
_ROLE = re.compile(r":(?:ref|term):`([^`<]+?)(?:\s*<[^`>]*>)?`")
_MATH = re.compile(r":math:(`[^`]+`)")


def keep_the_text_of_foreign_roles(app, what, name, obj, options, lines):
    text = _MATH.sub(r"`\1`", "\n".join(lines))
    lines[:] = _ROLE.sub(r"`\1`", text).split("\n")


def skip_fields_without_words(app, what, name, obj, skip, options):
    """Leave out the fields of named tuples that the class has described already."""
    return True if (getattr(obj, "__doc__", None) or "").startswith("Alias for field") else None


def setup(app):
    app.connect("missing-reference", link_to_scikit_learn)
    app.connect("autodoc-process-docstring", keep_the_text_of_foreign_roles, priority=600)
    app.connect("autodoc-skip-member", skip_fields_without_words)
