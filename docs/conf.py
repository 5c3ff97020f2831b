"""The site of the notebooks, built from what is committed, without running anything.

pip install -e ".[docs]"
sphinx-build -c docs -W --keep-going . site
"""

import resnet_kit as rk

project, author = "resnet_kit", "the resnet_kit authors"
version = release = rk.__version__
copyright = "2026, the resnet_kit authors"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "docs/index"
include_patterns = ["README*.md", "*.md", "docs/*.md", "notebooks/*.ipynb", "data/README.md",
                    "results/README.md", "resnet_kit/README.md"]  # fmt: skip
html_theme = "furo"
html_title = "resnet_kit"
html_static_path, html_css_files = ["static"], ["site.css"]
html_extra_path = ["top/index.html"]  # leads from the top to docs/index.html
nb_execution_mode = "off"  # the committed outputs are shown
nb_merge_streams = True
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
default_role = "code"  # names in docstrings stand between single backticks
add_module_names = False
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
