"""The documentation site: `make docs` builds it into docs/_build/html.

Sphinx with MyST-NB, as JAX, Flax and Optax use it: autodoc reads the docstrings as they stand, and a page is the same
Markdown file on GitHub, in the doctests and on the site. Nothing is fetched, at build or at view: equations are MathML
in a font that the site brings.
"""

import os
import re
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "docs")]
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Most of the time of a build is compilation; the flags are those of tests/conftest.py.
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "true"
if metadata.version("jaxlib").startswith("0.10."):
    quick = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
    os.environ["XLA_FLAGS"] = f"{quick} {os.environ.get('XLA_FLAGS', '')}"
# Notebooks run in kernels of their own, which import this checkout too.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))

import catalog  # noqa: E402
import docstrings  # noqa: E402
import equations  # noqa: E402
from sphinx.util.nodes import make_refnode  # noqa: E402

import jaxrnn  # noqa: E402

project, copyright = "jaxrnn", "the authors of jaxrnn"
release = version = jaxrnn.__version__
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
exclude_patterns = ["_build"]
highlight_language = "none"
html_theme, html_title = "furo", "jaxrnn"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_favicon = "_static/icon.svg"
html_copy_source = False

# Pages.
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]
nb_execution_mode = "cache"
nb_execution_cache_path = str(ROOT / "docs/_build/notebooks")
nb_execution_raise_on_error = True
nb_execution_timeout = 240
nb_merge_streams = True
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

# Docstrings.
autosummary_generate = False
autodoc_member_order = "bysource"
napoleon_use_rtype = False
napoleon_custom_sections = [("Reference", "References")]
toc_object_entries_show_parents = "hide"
maximum_signature_line_length = 80
python_use_unqualified_type_names = True
# The `Cell` of a signature is the core's or one of the Flax modules of this name.
suppress_warnings = ["ref.python"]


def read(app: Any, page: str, source: list[str]) -> None:
    """Links out of docs/ lead to the pages made of these files; blocks lose the empty line that ends a doctest."""
    if page.split("/")[0] not in catalog.FOLDERS:
        source[0] = catalog.relinked(source[0], f"docs/{page}.md")
    source[0] = source[0].replace("\n\n```\n", "\n```\n")


def link(app: Any, env: Any, node: Any, content: Any) -> Any:
    """A name in a docstring leads to the one thing in the library that has it."""
    target = node["reftarget"]
    if node.get("refdomain") != "py" or not re.fullmatch(r"[\w.]+", target):
        return None
    own = target.removeprefix("jaxrnn.").rpartition(".")[2] if target.startswith("jaxrnn.") else target
    objects = env.get_domain("py").objects
    found = [name for name, thing in objects.items() if f".{name}".endswith(f".{own}") and thing.objtype in KINDS]
    if len(found) != 1:
        return None
    thing = objects[found[0]]
    return make_refnode(app.builder, node["refdoc"], thing.docname, thing.node_id, content, found[0])


KINDS = ("class", "function", "exception", "data")


def setup(app: Any) -> None:
    # Docstrings are read anew where their conversion changed.
    newest = max(os.path.getmtime(module.__file__) for module in (docstrings, equations))
    app.add_config_value("conversion", newest, "env")
    app.connect("builder-inited", lambda app: catalog.write())
    app.connect("source-read", read)
    app.connect("missing-reference", link)
    app.connect("autodoc-process-docstring", docstrings.process_docstring, priority=100)
    app.connect("autodoc-process-signature", docstrings.process_signature)
    app.connect("autodoc-skip-member", docstrings.skip_member)
