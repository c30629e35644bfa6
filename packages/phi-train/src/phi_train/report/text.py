"""Text on its way into the page: everything that comes from a run is escaped."""

from __future__ import annotations

import html

__all__ = ["escape", "tag"]

# control characters are no text in HTML; a browser would show nothing, or something else
CONTROLS = {code: "\N{REPLACEMENT CHARACTER}" for code in range(32) if chr(code) not in "\n\t"}
CONTROLS[127] = "\N{REPLACEMENT CHARACTER}"


def escape(value: object) -> str:
    r"""The text of `value`, safe between tags and in quoted attributes.

    >>> escape("<script>"), escape("a\x00b")
    ('&lt;script&gt;', 'a�b')
    """
    return html.escape(str(value).translate(CONTROLS), quote=True)


def tag(name: str, content: str = "", **attributes: object) -> str:
    """An element around `content`, which is HTML already; attributes are escaped.

    A trailing or inner underscore of an attribute's name stands for Python's sake: class_,
    stroke_width. None leaves an attribute out.

    >>> tag("p", "x &amp; y", class_="note")
    '<p class="note">x &amp; y</p>'
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    return f"<{name}{written}>{content}</{name}>"
