"""One self-contained HTML page from a list of sections: templates and styles of this package, every string escaped."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from medgcsam.report.numbers import tagged, tagged_count, tagged_interval
from medgcsam.report.sections import Section


def render_page(page: dict[str, Any], sections: Sequence[Section]) -> str:
    """The page as text.

    Args:
        page: what stands above the sections: title, testing, testing_words, description, synthetic, version.
        sections: in the order in which they are read; their ids must differ.
    """
    text = _environment().get_template("page.html.j2").render(page=page, sections=sections)
    return "\n".join(line.rstrip() for line in text.splitlines() if line.strip()) + "\n"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("medgcsam.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(number=tagged, count=tagged_count, interval=tagged_interval)
    return environment
