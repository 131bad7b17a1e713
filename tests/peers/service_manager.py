"""Plays systemd for one service: opens its sockets (sd_listen_fds(3)), hears its news (sd_notify(3)).

    service_manager.py WATCHDOG_USEC NEWS_FILE ADDRESS... -- COMMAND...

Each ADDRESS is tcp:IP:PORT or udp:IP:PORT. News is appended to NEWS_FILE, one line per assignment, with the sender's
process id in front. Ends with the exit code of the main process: the command, or what MAINPID= has named since.
"""

import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time


def listen(address):
    kind, ip, port = address.split(":")
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((ip, int(port)))
    if kind == "tcp":
        sock.listen(128)
    return sock


def main():
    split = sys.argv.index("--")
    watchdog, news_file, *addresses = sys.argv[1:split]
    command = sys.argv[split + 1 :]
    sockets = [listen(address) for address in addresses]
    # Descriptors of a service begin with 3: all move far away first, then to their places.
    far = [os.dup2(sock.fileno(), 100 + number) for number, sock in enumerate(sockets)]
    for sock in sockets:
        sock.close()
    for number, descriptor in enumerate(far):
        os.dup2(descriptor, 3 + number, inheritable=True)
        os.close(descriptor)
    notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    path = os.path.join(tempfile.mkdtemp(), "notify")
    notify.bind(path)
    notify.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    notify.settimeout(0.05)

    environment = dict(os.environ)
    environment.update(NOTIFY_SOCKET=path, LISTEN_FDS=str(len(sockets)), LISTEN_FDNAMES=":".join(["web"] * len(sockets)))
    environment["WATCHDOG_USEC"] = watchdog

    # LISTEN_PID and WATCHDOG_PID are the id of the process that is executed: a shell sets them and becomes it.
    shell = ["/bin/sh", "-c", 'export LISTEN_PID=$$ WATCHDOG_PID=$$; exec "$@"', "sh"]
    child = subprocess.Popen(
        shell + command, env=environment, pass_fds=[3 + number for number in range(len(sockets))]
    )
    main_pid = child.pid

    def stop(*_):
        os.kill(main_pid, signal.SIGTERM)

    signal.signal(signal.SIGTERM, stop)
    started = True
    while started:
        try:
            data, ancillary, _, _ = notify.recvmsg(4096, 256)
        except (TimeoutError, InterruptedError):
            data = b""
        if data:
            pid = struct.unpack("3i", ancillary[0][2][:12])[0] if ancillary else 0
            with open(news_file, "a", encoding="utf-8") as news:
                for line in data.decode().splitlines():
                    news.write(f"{pid} {line}\n")
                    if line.startswith("MAINPID="):
                        main_pid = int(line.removeprefix("MAINPID="))
            continue
        child.poll()
        started = os.path.exists(f"/proc/{main_pid}") and not (main_pid == child.pid and child.returncode is not None)
    deadline = time.monotonic() + 5
    while child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    sys.exit(child.returncode or 0)


main()
