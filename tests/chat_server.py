"""An OpenAI-compatible endpoint on asyncio that misbehaves as told. As a program it answers after a fixed latency."""

from __future__ import annotations

import asyncio
import json
import math
import sys
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Act:
    """What the server does with one call: wait, then answer, slowly or not at all."""

    body: Any = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0
    dribble: float = 0.0
    """Seconds over which the body is sent, bit by bit."""
    reset: bool = False


def completion(
    text: str | None = "A",
    preference: float | None = None,
    *,
    finish: str = "stop",
    usage: tuple[int, int] | None = (11, 1),
    **message: Any,
) -> dict[str, Any]:
    """A chat completion; with a preference, its first token's log-probabilities put it on "A" against "B"."""
    logprobs = None
    if preference is not None:
        top = [
            {"token": token, "logprob": math.log(p), "bytes": None}
            for token, p in (("A", preference), ("B", 1 - preference))
        ]
        logprobs = {"content": [{"token": "A", "logprob": -0.1, "bytes": None, "top_logprobs": top}]}
    made = {
        "id": "x",
        "object": "chat.completion",
        "created": 0,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "finish_reason": finish,
                "message": {"role": "assistant", "content": text, **message},
                "logprobs": logprobs,
            }
        ],
    }
    if usage:
        made["usage"] = {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": sum(usage)}
    return made


class ChatServer:
    """Answers by `script(words, tries, body) -> Act`: the last message, or the state, and which call about these words
    this is.

    `calls` counts calls by words; `most` is how many were ever in flight at once; `bodies` and `headers` are kept.
    `hello` is what it does when greeted, which `greetings` counts and no other figure.
    """

    def __init__(self, script: Callable[[str, int, dict[str, Any]], Act], *, keep: bool = True) -> None:
        self.script, self.keep = script, keep
        self.calls: Counter[str] = Counter()
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[str] = []
        self.hello = Act(completion("Hi"))
        self.most = self.in_flight = self.greetings = 0
        self.loop = asyncio.new_event_loop()
        self.ready = threading.Event()

    def __enter__(self) -> ChatServer:
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()
        self.ready.wait()
        return self

    def __exit__(self, *exception: object) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def total(self) -> int:
        return self.calls.total()

    async def start(self) -> asyncio.Server:
        server = await asyncio.start_server(self._connection, "127.0.0.1", 0, backlog=512)
        self.port = server.sockets[0].getsockname()[1]
        return server

    def _serve(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.set_exception_handler(lambda *_: None)  # clients that hang up are part of the tests
        server = self.loop.run_until_complete(self.start())
        self.ready.set()
        self.loop.run_forever()
        server.close()
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.loop.run_until_complete(asyncio.sleep(0.01))
        self.loop.close()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._call(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _call(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        length = next(int(line[15:]) for line in head.split("\r\n") if line.lower().startswith("content-length:"))
        body = json.loads(await reader.readexactly(length))
        asked = body.get("messages") or body.get("input") or [{"content": body.get("state")}]
        words = asked[-1]["content"]
        if words == "Hello":
            self.greetings += 1
            return await self._act(writer, self.hello)
        self.calls[words] += 1
        if self.keep:
            self.bodies.append(body)
            self.headers.append(head)
        self.in_flight += 1
        self.most = max(self.most, self.in_flight)
        try:
            return await self._act(writer, self.script(words, self.calls[words], body))
        finally:
            self.in_flight -= 1

    async def _act(self, writer: asyncio.StreamWriter, act: Act) -> bool:
        await asyncio.sleep(act.delay)
        if act.reset:
            writer.transport.abort()
            return False
        payload = (act.body if isinstance(act.body, str) else json.dumps(act.body)).encode()
        lines = {"content-type": "application/json", "content-length": str(len(payload)), **act.headers}
        head = f"HTTP/1.1 {act.status} X\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        writer.write(f"{head}\r\n".encode())
        pieces = 10 if act.dribble else 1
        size = -(-len(payload) // pieces)
        for start in range(0, len(payload), size):
            await asyncio.sleep(act.dribble / pieces)
            writer.write(payload[start : start + size])
            await writer.drain()
        return True


async def main(latency: float) -> None:
    """Serves for ever and prints the URL first."""
    server = ChatServer(lambda *_: Act(completion("A", 0.75), delay=latency), keep=False)
    running = await server.start()
    print(server.url, flush=True)
    await running.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(float(sys.argv[1])))
