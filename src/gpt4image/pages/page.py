"""HTML pages: one self-contained file each, from the templates beside this module, all text escaped and visible."""

from base64 import b64encode
from hashlib import sha256
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from gpt4image import __version__
from gpt4image.base.visible import visible
from gpt4image.pages import numbers

FILTERS = "duration memory one_line p_value percent percent_interval points points_interval sentence tied"
"""Functions of ``numbers`` that templates have."""


def digest(script: str) -> str:
    """Return the hash by which a page's policy lets its own script run, and no other."""
    return "sha256-" + b64encode(sha256(script.encode()).digest()).decode()


def _visible(value: Any) -> Any:
    return visible(value) if type(value) is str else value


def render(template: str, **context: Any) -> str:
    """Return the page of a template; values are escaped, and a name that the template lacks raises UndefinedError."""
    environment = Environment(
        loader=PackageLoader("gpt4image.pages"),
        autoescape=True,
        finalize=_visible,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    own: dict[str, Any] = {name: getattr(numbers, name) for name in FILTERS.split()}
    environment.filters.update(own | {"digest": digest})
    page = environment.get_template(template).render(version=__version__, **context)
    return page.encode("utf-8", "replace").decode()  # a file name may hold bytes that are no UTF-8
