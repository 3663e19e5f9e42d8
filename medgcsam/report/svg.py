"""Matplotlib's SVG made fit to stand inside a page: no prolog, no repeated ids, colours of the page's theme."""

from __future__ import annotations

import re

from markupsafe import Markup, escape

# Light values of the figure palette (Okabe-Ito's blue and vermilion; told apart by line style too) and the CSS
# variables of the page that stand for them, so that the same figure is readable in dark mode.
PALETTE = {
    "ink": "#1c2733",
    "muted": "#5b6875",
    "grid": "#dfe4ea",
    "first": "#0067a5",
    "second": "#c04f00",
    "paper": "#fdfdfe",
}


def inline_svg(text: str, *, name: str, label: str) -> Markup:
    """An ``<svg>`` element for HTML from the SVG document that matplotlib wrote.

    Args:
        text: the whole SVG document.
        name: unique name of the figure on its page; prefix of its ids.
        label: what a screen reader says instead of the picture.
    """
    body = text[text.index("<svg") :]
    view_box = re.search(r'viewBox="([^"]+)"', body).group(1)
    body = re.sub(r"^<svg[^>]*>", "", body)
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.S)
    body = re.sub(r'<defs>\s*<style type="text/css">.*?</style>\s*</defs>', "", body, flags=re.S)
    body = body.replace("xlink:href", "href")
    body = re.sub(r"font-family: [^;\"]+;? ?", "", body)
    body = re.sub(r' transform="rotate\(-0 [^)]*\)"', "", body)
    body = _unique_ids(body, name)
    body = re.sub(r"\s*\n\s*", " ", body).replace("> <", "><")
    for colour, value in PALETTE.items():
        body = body.replace(value, f"var(--figure-{colour})")
    opening = Markup('<svg role="img" aria-label="{}" viewBox="{}" focusable="false">').format(escape(label), view_box)
    return opening + Markup(body.strip())


def _unique_ids(body: str, name: str) -> str:
    used = set(re.findall(r'href="#([^"]+)"', body)) | set(re.findall(r"url\(#([^)]+)\)", body))

    def rename(match: re.Match[str]) -> str:
        return f' id="{name}-{match.group(1)}"' if match.group(1) in used else ""

    body = re.sub(r' id="([^"]+)"', rename, body)
    body = re.sub(r'href="#([^"]+)"', rf'href="#{name}-\1"', body)
    return re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", body)
