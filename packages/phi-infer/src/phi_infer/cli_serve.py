"""phi-infer serve: the model for other programs, and a page for people."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Annotated

import typer

import phi_infer
from phi_infer.errors import PhiInferError

__all__ = ["serve"]

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
KEY_VARIABLE = "PHI_API_KEY"


def serve(
    checkpoint: Annotated[Path, typer.Argument(help="A model file, e.g. runs/first/best.phi.")],
    host: Annotated[
        str, typer.Option(help="Where to listen; 0.0.0.0: the whole network may ask.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0: any free one.")] = 8000,
    name: Annotated[
        str | None, typer.Option(help="The model's name for clients; else the file's.")
    ] = None,
    slots: Annotated[int, typer.Option(help="Texts made side by side; each takes memory.")] = 16,
    workers: Annotated[
        int, typer.Option(help="Processes that share the slots: one for each core, at most.")
    ] = 1,
    max_waiting: Annotated[
        int, typer.Option(help="Texts that may wait for a slot; further ones get status 429.")
    ] = 64,
    max_tokens: Annotated[int, typer.Option(help="The most that one text may ask for.")] = 4096,
    max_prompt_tokens: Annotated[int, typer.Option(help="The longest prompt.")] = 8192,
    timeout: Annotated[
        float, typer.Option(help="Seconds for a request, its wait for a slot included.")
    ] = 300.0,
    grace: Annotated[
        float, typer.Option(help="Seconds for running requests after Ctrl-C or SIGTERM.")
    ] = 20.0,
    api_key: Annotated[
        str | None,
        typer.Option(
            help="Clients must send it. Better set in the environment.",
            envvar=KEY_VARIABLE,
            show_envvar=True,
        ),
    ] = None,
    cors_origin: Annotated[
        list[str] | None,
        typer.Option(help="A site whose pages may ask, e.g. https://example.org; repeatable."),
    ] = None,
) -> None:
    """Serve a model over HTTP, as OpenAI's interface: /v1/completions and the like.

    A page to try it is at the address itself; /health and /metrics are for
    machines. Many clients are served side by side. Needs an extra:
    pip install 'phi-infer\\[server]'

    Only this machine may ask unless --host says otherwise; then set an API
    key too. Traffic is not encrypted: put a proxy with TLS in front.

    Example: phi-infer serve runs/first/best.phi --port 8000

    Then, with OpenAI's Python client: OpenAI(base_url="http://127.0.0.1:8000/v1", api_key="-")
    """  # fmt: skip
    for module in ("starlette", "uvicorn"):
        if importlib.util.find_spec(module) is None:
            raise PhiInferError("serve needs an extra: pip install 'phi-infer[server]'")
    from phi_infer.server.run import serve as run  # noqa: PLC0415 (an extra)
    from phi_infer.server.settings import Settings  # noqa: PLC0415

    settings = Settings(
        name=name or checkpoint.resolve().stem,
        slots=slots,
        workers=workers,
        max_waiting=max_waiting,
        max_tokens=max_tokens,
        max_prompt_tokens=max_prompt_tokens,
        request_seconds=timeout,
        grace_seconds=grace,
        api_key=api_key or None,
        cors_origins=tuple(origin.rstrip("/") for origin in cors_origin or ()),
        hosts=LOOPBACK if host in ("127.0.0.1", "localhost", "::1") else None,
    )
    if not 0 <= port < 2**16:
        raise PhiInferError(f"--port is {port}; it must be between 0 and 65535")
    if settings.hosts is None and settings.api_key is None:
        print(
            f"Without an API key everyone who reaches {host} may ask: see --api-key",
            file=sys.stderr,
        )
    shown = f"[{host}]" if ":" in host else host

    def announce(port: int) -> None:
        print(f"{settings.name} at http://{shown}:{port} (Ctrl-C ends it)", flush=True)

    run(phi_infer.load(checkpoint), settings, host, port, announce=announce)
