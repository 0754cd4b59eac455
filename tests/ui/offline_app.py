"""The app with no way out of this machine: `python -m tests.ui.offline_app LOG`; what it tried is noted in LOG.

Every connection and every look-up of a name goes through an audit hook, whichever library asks.
"""

from __future__ import annotations

import socket
import sys
import traceback
from pathlib import Path
from typing import Any

HERE = {None, "", "127.0.0.1", "::1", "localhost", "0.0.0.0"}


def refuse(log: Path) -> None:
    """From now on nothing but this machine can be reached by this process."""

    def watch(event: str, args: tuple[Any, ...]) -> None:
        if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
            address = args[1]
            host = address[0] if isinstance(address, tuple) else None  # a path is a socket of this machine
        elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
            host = args[0].decode() if isinstance(args[0], bytes) else args[0]
        else:
            return
        if host not in HERE:
            with log.open("a", encoding="utf-8") as file:
                file.write(f"{event} {host}\n{''.join(traceback.format_stack(limit=12))}\n")
            raise OSError(f"{host} is not this machine")

    sys.addaudithook(watch)


def main() -> None:
    """Shut the way out, see that it is shut, and start the app."""
    log = Path(sys.argv[1])
    refuse(log)
    for host in ("192.0.2.1", "example.org"):  # the first is kept free for documentation
        try:
            socket.create_connection((host, 80), timeout=5)
        except OSError:
            continue
        raise RuntimeError(f"{host} could be reached")
    log.write_text("", encoding="utf-8")

    import app

    app.main()


if __name__ == "__main__":
    main()
