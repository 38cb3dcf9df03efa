"""Pages: templates, filled in. Each room keeps its own; they extend this room's page.html."""

import functools
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined


@functools.cache
def _templates(package: str) -> Environment:
    loaders = [PackageLoader(name) for name in dict.fromkeys((package, "gradaudit.report"))]
    return Environment(
        loader=ChoiceLoader(loaders),
        autoescape=lambda name: name is not None and name.endswith(".html"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def rendered(package: str, template: str, **values: Any) -> str:
    """Return a template filled in; values in HTML are escaped.

    Args:
        package: whose folder `templates` has the template, such as "gradaudit.report".
        template: the name of the file.
        values: what the template reads, by name.

    Raises:
        jinja2.UndefinedError: the template reads a value that is not given.
    """
    return _templates(package).get_template(template).render(values)
