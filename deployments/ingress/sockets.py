"""Addresses that the replicas of a node share by SO_REUSEPORT, and what is said where one cannot be had."""

import asyncio
import errno
import socket

from chroma_models.errors import ChromaError


class CannotListen(ChromaError):
    """The address cannot be had; the message says why."""

    code = "cannot_listen"


async def listen(host: str, port: int, backlog: int, send_buffer_bytes: int, give_up_s: float) -> socket.socket:
    """A listening socket that shares its port with others of its kind. Raises CannotListen.

    send_buffer_bytes: that the kernel holds of a connection; where it is full, whoever writes is told to wait.
    give_up_s: its connections are cut when nothing that was sent is acknowledged, or taken, for so long. The servers
    above can close a connection whose client never reads, but not end it: what waits in the kernel would stay there.
    """
    listener = await bound(host, port, "http_port")
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(give_up_s * 1000))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer_bytes)
    listener.listen(backlog)
    listener.setblocking(False)
    return listener


async def bound(host: str, port: int, setting: str) -> socket.socket:
    """A socket that holds its shared port and takes no connection yet. Raises CannotListen.

    setting: where another port is chosen.
    """
    where = f"{host}:{port}"
    try:
        found = await asyncio.get_running_loop().getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except OSError as error:
        raise CannotListen(f"The address {where} is not one of this machine: {error.strerror}.") from None
    family, kind, protocol, _, address = found[0]
    holder = socket.socket(family, kind, protocol)
    try:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.bind(address)
    except OSError as error:
        holder.close()
        if error.errno == errno.EADDRINUSE:
            raise CannotListen(f"Port {port} is taken by another program; choose another {setting}.") from None
        if error.errno == errno.EADDRNOTAVAIL:
            raise CannotListen(f"The address {where} is not one of this machine; choose another host.") from None
        if error.errno in (errno.EACCES, errno.EPERM):
            raise CannotListen(f"Listening on {where} is not permitted; choose a port of 1024 or above.") from None
        raise CannotListen(f"Cannot listen on {where}: {error.strerror}.") from None
    return holder
