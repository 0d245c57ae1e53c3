"""Runs `kubectl port-forward` in the background."""

import contextlib
import re
import select
import subprocess


@contextlib.contextmanager
def forwarding(command, environment, patience=60):
    """Starts kubectl, yields the process and its local port, and stops the process at the end."""
    process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, text=True)
    try:
        if not select.select([process.stdout], [], [], patience)[0]:
            raise AssertionError(f"{command}: no output for {patience} s")
        line = process.stdout.readline()
        if (match := re.match(r"Forwarding from 127\.0\.0\.1:(\d+) -> \d+$", line)) is None:
            process.terminate()
            raise AssertionError(f"{command}: {line}{process.stdout.read()}")
        yield process, int(match[1])
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()
