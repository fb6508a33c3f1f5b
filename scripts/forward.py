#!/usr/bin/env python3
"""Makes servers of this machine's loopback reachable inside a network namespace, at the same addresses.

    forward.py NETWORK_NAMESPACE 127.0.0.1:PORT...

Listens on the namespace's own loopback and connects to that of the caller's network. Says `ready` once
it listens, and runs until it is killed.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager

CLONE_NEWNET = 0x40000000
# Connections at once, of all addresses together; more wait.
CONNECTIONS_MAX = 256
BUFFER_BYTES = 1 << 16


def enter(descriptor: int) -> None:
    # os.setns came with Python 3.12.
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, CLONE_NEWNET) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


@contextmanager
def inside(namespace: str) -> Iterator[None]:
    """Sockets made in here belong to the namespace."""
    outside = os.open("/proc/self/ns/net", os.O_RDONLY)
    target = os.open(namespace, os.O_RDONLY)
    try:
        enter(target)
        yield
        enter(outside)
    finally:
        os.close(target)
        os.close(outside)


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """All that one side says; then its end, while the other may still speak."""
    while data := await reader.read(BUFFER_BYTES):
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()


async def forward(
    address: tuple[str, int], reader: asyncio.StreamReader, writer: asyncio.StreamWriter, room: asyncio.Semaphore
) -> None:
    async with room:
        try:
            target_reader, target_writer = await asyncio.open_connection(*address)
            try:
                await asyncio.gather(copy(reader, target_writer), copy(target_reader, writer))
            finally:
                target_writer.close()
        except OSError:
            # One side is gone; so is the connection then.
            pass
        finally:
            writer.close()


async def serve(namespace: str, addresses: list[tuple[str, int]]) -> None:
    room = asyncio.Semaphore(CONNECTIONS_MAX)
    with inside(namespace):
        sockets = [(address, socket.create_server(address)) for address in addresses]
    for address, listener in sockets:
        await asyncio.start_server(lambda r, w, address=address: forward(address, r, w, room), sock=listener)
    print("ready", flush=True)
    await asyncio.Event().wait()


def loopback(text: str) -> tuple[str, int]:
    host, _, port = text.partition(":")
    if host != "127.0.0.1" or not port.isdigit():
        raise SystemExit(f"error: {text} is not 127.0.0.1:PORT")
    return host, int(port)


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], [loopback(text) for text in sys.argv[2:]]))
