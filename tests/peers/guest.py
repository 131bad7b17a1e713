"""An application under a sidecar: writes down the signals that it gets. SIGTERM and SIGINT end it with exit code 5, after
it has called the URL that it was given.

usage: guest.py NOTES [URL]
"""

import signal
import sys
import urllib.request

notes = open(sys.argv[1], "a", buffering=1)
awaited = {signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM, signal.SIGINT}
signal.pthread_sigmask(signal.SIG_BLOCK, awaited)
print("ready", file=notes)
while True:
    number = signal.sigwait(awaited)
    print(signal.Signals(number).name, file=notes)
    if number in (signal.SIGTERM, signal.SIGINT):
        if len(sys.argv) > 2:
            print(urllib.request.urlopen(sys.argv[2]).status, file=notes)
        sys.exit(5)
