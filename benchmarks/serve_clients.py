#!/usr/bin/env python3
"""Many light clients of a server: they read bytes, note times, and parse nothing.

    python benchmarks/serve_clients.py PORT --clients 64 --seconds 60 --hang-up 0.1

Prints one JSON object: requests, hang-ups, errors, seconds to the first event of each request, the
tokens the server made in the middle of that time, and its memory every second.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import time
from typing import Any

WORDS = ("once", "upon", "a", "time", "there", "was", "bear", "who", "liked", "to", "walk", "in")
WARM_UP = 0.1  # of the time, not counted


class Load:
    """What the clients see."""

    def __init__(self, port: int, seconds: float, hang_up: float) -> None:
        self._port, self._hang_up = port, hang_up
        self._end = time.perf_counter() + seconds
        self.first: list[float] = []
        self.errors: list[str] = []
        self.requests = self.hang_ups = self.events = 0

    @property
    def over(self) -> bool:
        """Whether the time is up."""
        return time.perf_counter() >= self._end

    async def client(self, number: int) -> None:
        """One request after the other; the last one is cut short by the end."""
        rng = random.Random(number)
        while not self.over:
            leaves = rng.random() < self._hang_up
            try:
                async with asyncio.timeout(max(0.1, self._end - time.perf_counter())):
                    await self._request(rng, leaves)
            except TimeoutError:
                return
            except OSError as error:
                self.errors.append(repr(error))
            self.requests += 1
            self.hang_ups += leaves

    async def _request(self, rng: random.Random, leaves: bool) -> None:
        prompt = " ".join(rng.choices(WORDS, k=rng.randrange(4, 24)))
        body = {"prompt": prompt, "max_tokens": rng.randrange(60, 140), "temperature": 0.8,
                "seed": rng.randrange(2**32), "stream": True}  # fmt: skip
        began = time.perf_counter()
        reader, writer = await connect(self._port, "POST /v1/completions", json.dumps(body))
        try:
            status = await reader.readline()
            if b" 200 " not in status:
                self.errors.append(status.decode(errors="replace"))
                return
            await reader.readuntil(b"data: ")
            self.first.append(time.perf_counter() - began)
            stop_at = rng.randrange(500, 8000) if leaves else None
            self.events += 1
            tail, size = b"", 0
            while part := await reader.read(65536):
                tail, size = (tail + part)[-200:], size + len(part)
                self.events += part.count(b"data: ")
                if stop_at is not None and size > stop_at:
                    return
            if b"[DONE]" not in tail or b'"error"' in tail:
                self.errors.append("a stream ended early")
        except asyncio.IncompleteReadError:
            self.errors.append("no event came")
        finally:
            writer.close()


async def connect(
    port: int, what: str, body: str = ""
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection with a request on its way."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"{what} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
    kind = "Content-Type: application/json\r\n"
    writer.write(f"{head}{kind}Content-Length: {len(body)}\r\n\r\n{body}".encode())
    return reader, writer


async def counts(port: int) -> dict[str, float]:
    """The server's own figures."""
    reader, writer = await connect(port, "GET /metrics")
    text = (await reader.read()).decode()
    writer.close()
    rows = [line.rsplit(" ", 1) for line in text.splitlines() if line.startswith("phi_infer_")]
    return {name: float(value) for name, value in rows}


async def run(
    port: int, clients: int, seconds: float, hang_up: float, *, by_events: bool
) -> dict[str, Any]:
    """All clients at once; the tokens are counted without the warm-up."""
    load = Load(port, seconds, hang_up)

    async def figures() -> tuple[float, float]:
        if by_events:
            return load.events, 0.0
        found = await counts(port)
        return found["phi_infer_generated_tokens_total"], found["phi_infer_resident_memory_bytes"]

    tasks = [asyncio.create_task(load.client(number)) for number in range(clients)]
    await asyncio.sleep(WARM_UP * seconds)
    n_warm = len(load.first)
    began, memory = time.perf_counter(), []
    before, _ = await figures()
    while not load.over:
        await asyncio.sleep(min(1.0, seconds / 20))
        made, bytes_ = await figures()
        span = time.perf_counter() - began
        memory.append(bytes_)
    await asyncio.gather(*tasks)
    return {
        "requests": load.requests,
        "hang_ups": load.hang_ups,
        "errors": load.errors[:10],
        "n_errors": len(load.errors),
        "seconds_to_first": load.first[n_warm:] or load.first,
        "tokens_per_second": (made - before) / span,
        "memory": memory,
    }


def main() -> None:
    """Runs the clients, prints what they saw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("port", type=int)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--hang-up", type=float, default=0.1)
    parser.add_argument("--by-events", action="store_true", help="count events, ask no /metrics")
    o = parser.parse_args()
    seen = asyncio.run(run(o.port, o.clients, o.seconds, o.hang_up, by_events=o.by_events))
    print(json.dumps(seen))


if __name__ == "__main__":
    main()
