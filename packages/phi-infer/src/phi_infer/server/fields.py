"""One field of a request's JSON at a time, checked: a wrong one is a RequestError that names it.

>>> Fields({"n": 3, "stream": None}).integer("n", 1, 8, default=1)
3
>>> Fields({"n": True}).integer("n", 1, 8, default=1)
Traceback (most recent call last):
    ...
phi_infer.server.errors.RequestError: n is of the wrong type: it must be an integer
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from phi_infer.server.errors import RequestError

__all__ = ["Fields", "clean_text"]


class Fields:
    """A JSON object; null means the same as nothing."""

    def __init__(self, content: Mapping[str, Any]) -> None:
        self._content = content

    def get(self, name: str) -> Any:
        """The value as it is, None without one."""
        return self._content.get(name)

    def number(self, name: str, low: float, high: float, *, default: float) -> float:
        """A finite number from low to high."""
        value = self.get(name)
        if value is None:
            return default
        if type(value) not in (int, float):
            raise _wrong_type(name, "a number")
        if not low <= value <= high:
            raise _outside(name, low, high)
        return float(value)

    def integer(self, name: str, low: int, high: int, *, default: int) -> int:
        """A whole number from low to high."""
        value = self.get(name)
        if value is None:
            return default
        if type(value) is not int:
            raise _wrong_type(name, "an integer")
        if not low <= value <= high:
            raise _outside(name, low, high)
        return value

    def flag(self, name: str) -> bool:
        """True or false; false without one."""
        value = self.get(name)
        if value is not None and type(value) is not bool:
            raise _wrong_type(name, "true or false")
        return bool(value)

    def object(self, name: str) -> Mapping[str, Any]:
        """A JSON object; an empty one without one."""
        value = self.get(name)
        if value is not None and type(value) is not dict:
            raise _wrong_type(name, "an object")
        return value or {}

    def texts(self, name: str, n_most: int, longest: int) -> list[str]:
        """A string or a list of them, none of them empty or longer than so many characters."""
        value = self.get(name)
        texts = [] if value is None else value if type(value) is list else [value]
        if len(texts) > n_most:
            raise RequestError(400, f"{name} has more than {n_most} strings", param=name)
        for text in texts:
            if not 0 < len(clean_text(name, text)) <= longest:
                raise RequestError(
                    400, f"{name}: a string is empty or longer than {longest}", param=name
                )
        return texts

    def refuse(self, *names: str) -> None:
        """Raises for what this server cannot do, when it is asked for."""
        for name in names:
            if self.get(name) not in (None, False, "", [], {}):
                raise RequestError(
                    400, f"{name} is not supported by this server: leave it out", param=name
                )


def clean_text(name: str, value: Any) -> str:
    """A string that is text: JSON can also spell halves of characters."""
    if type(value) is not str:
        raise _wrong_type(name, "a string")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise RequestError(
            400, f"{name} has half a surrogate pair, which is no character", param=name
        ) from None
    return value


def _wrong_type(name: str, wanted: str) -> RequestError:
    return RequestError(400, f"{name} is of the wrong type: it must be {wanted}", param=name)


def _outside(name: str, low: float, high: float) -> RequestError:
    return RequestError(400, f"{name} must be between {low} and {high}", param=name)
