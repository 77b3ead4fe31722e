"""The course as a site: README, lessons as stored, docstrings, cards. `make book` builds it, without a network.

Sphinx's source folder is the repository, not this one: files are read where they lie, and their links to each other hold.
"""

import re
import shutil
from importlib.util import find_spec
from pathlib import Path
from pkgutil import iter_modules

import edgeconnect_kernels
from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.util import logging

import edgeconnect_lite

project, author, release = "edgeconnect-lite", "the edgeconnect-lite authors", edgeconnect_lite.__version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
root_doc = "README"
include_patterns = ["*.md", "docs/**.md", "notebooks/*.ipynb", "kernels/*.md", "edgeconnect_lite/assets/**.md"]
exclude_patterns = [".*", "docs/contents.md", "docs/_build", "results", "runs", "tests"]
nb_execution_mode = "off"
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
smartquotes = False

html_theme, html_title = "furo", project
pygments_dark_style = "github-dark"
html_static_path = html_css_files = ["book.css"]
html_copy_source = html_show_copyright = html_use_index = html_domain_indices = False
html_math_renderer = "mathml"

autodoc_default_options = {"members": True, "member-order": "bysource", "ignore-module-all": True}
autodoc_inherit_docstrings = add_module_names = False
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 110
toc_object_entries = False  # they would be carried through every page's navigation
autodoc_mock_imports = [] if find_spec("triton") else ["triton"]

MODULES = {  # in the order of reading
    edgeconnect_lite: re.findall(r"\w+", re.search(r"order of the data: (.*?)\.", edgeconnect_lite.__doc__, re.S)[1]),
    edgeconnect_kernels: [
        "gated_elu",
        "triton_gated_elu",
        "cpu_gated_elu",
        "traffic",
        "interpreter",
        "report",
        "roofline",
        "stored",
        "ptx",
    ],
}
PAGES_OF_FOLDERS = {"notebooks": "notebooks/00_start_here", "notebooks/solutions": "docs/code/solutions"}
TEX = {  # what docutils lacks or takes wrongly, in words that it knows
    r"\\dots\b": r"\\ldots",
    r"\\iff\b": r"\\;\\Longleftrightarrow\\;",
    r"\\([bB]ig)(?![a-z])": r"\\\1l",
    r"\\tfrac(\d)(\d)": r"\\tfrac{\1}{\2}",
    r"(\\hat{\w})_": r"\1{}_",
}
BAR = '<mo stretchy="false">|</mo>', '<mo stretchy="false" lspace="0" rspace="0">|</mo>'
AUTOMODULE = "\n```{{eval-rst}}\n.. automodule:: {}\n{}\n```\n"


def add_text(app, docname, source):
    """What no file holds: the contents behind the front page, modules and solutions behind their pages' titles."""
    if docname == root_doc:
        source[0] += "\n" + Path(app.confdir, "contents.md").read_text()
    if docname == "docs/code/solutions":
        for path in sorted(Path(app.srcdir, "notebooks/solutions").glob("*.py")):
            source[0] += f"\n## {path.stem}\n\n```{{literalinclude}} /notebooks/solutions/{path.name}\n```\n"
    for package, names in MODULES.items():
        if docname == f"docs/code/{package.__name__}":
            source[0] += AUTOMODULE.format(package.__name__, "   :no-members:")
            for name in names:
                inner = iter_modules([str(Path(package.__file__).with_name(name))])
                for module in [name, *(f"{name}.{part.name}" for part in inner)]:
                    source[0] += f"\n## {module}\n" + AUTOMODULE.format(f"{package.__name__}.{module}", "")


def link_code(app, doctree):
    """Links to a folder lead to its page, those to a module to its source's page. Other files are copied and linked."""
    for node in [node for node in doctree.findall(nodes.Element) if node.get("reftype") == "myst"]:
        path, _ = app.env.relfn2path(node["reftarget"])
        if path in PAGES_OF_FOLDERS:
            node.attributes |= {"refdomain": "doc", "reftarget": PAGES_OF_FOLDERS[path], "reftargetid": None}
        elif module := re.fullmatch(r"(?:kernels/)?(edgeconnect_(?:lite|kernels)/.*)\.py", path):
            uri = app.builder.get_relative_uri(app.env.docname, f"_modules/{module[1]}")
            node.replace_self(nodes.reference("", "", *node.children, refuri=uri, internal=True))


def take_literally(app, what, name, obj, options, lines):
    """Docstrings are plain text: `code`, indented blocks and "Args:" have a meaning, no other sign has one."""
    paragraphs = "\n".join(lines).split("\n\n")
    for i, text in enumerate(paragraphs):
        if text.startswith("    "):
            paragraphs[i] = ".. code-block:: none\n\n" + text
        else:
            paragraphs[i] = re.sub(r"`([^`]+)`|([\\*|_])", lambda m: f"``{m[1]}``" if m[1] else "\\" + m[2], text)
    lines[:] = "\n\n".join(paragraphs).split("\n")


def skip_fields(app, what, name, obj, skip, options):
    return skip or str(getattr(obj, "__doc__", None)).startswith("Alias for field number")  # a NamedTuple's own words


def write_math(self, node, as_block):
    text = node.astext()
    for lacking, known in TEX.items():
        text = re.sub(lacking, known, text)
    try:
        self.body.append(tex2mathml(text, as_block).replace(*BAR))
    except MathError as error:
        logging.getLogger(__name__).warning("formula not understood: %s", error, location=node)
    raise nodes.SkipNode


def write_front_page(app, error):
    if not error:
        shutil.copy(Path(app.outdir, "README.html"), Path(app.outdir, "index.html"))


def setup(app):
    app.connect("source-read", add_text)
    app.connect("doctree-read", link_code, priority=400)  # before files are copied
    app.connect("autodoc-process-docstring", take_literally, priority=400)  # before napoleon
    app.connect("autodoc-skip-member", skip_fields)
    app.connect("build-finished", write_front_page)
    app.add_html_math_renderer(
        "mathml",
        inline_renderers=(lambda self, node: write_math(self, node, False), None),
        block_renderers=(lambda self, node: write_math(self, node, True), None),
    )
