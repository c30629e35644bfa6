"""What a client is told when a request cannot be answered: a status and one line, in JSON."""

from __future__ import annotations

from typing import Any

from phi_infer.errors import PhiInferError

__all__ = ["RequestError"]

TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


class RequestError(PhiInferError):
    """An answer other than 200. The text is for the client: no path, no traceback.

    status: of HTTP. param: the field at fault. code: for programs.
    """

    def __init__(
        self, status: int, message: str, *, param: str | None = None, code: str | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.param, self.code = status, param, code

    @property
    def json(self) -> dict[str, Any]:
        """The object that OpenAI's clients expect."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {
            "error": {
                "message": str(self),
                "type": TYPES.get(self.status, kind),
                "param": self.param,
                "code": self.code,
            }
        }
