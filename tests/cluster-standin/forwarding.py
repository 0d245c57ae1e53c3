"""`kubectl port-forward`, as a person has it in a second terminal."""

import contextlib
import re
import select
import subprocess


@contextlib.contextmanager
def forwarding(command, environment, patience=60):
    """Starts kubectl; yields the process and the local port once it listens there, and ends it afterwards."""
    process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, text=True)
    try:
        if not select.select([process.stdout], [], [], patience)[0]:
            raise AssertionError(f"{command}: silent for {patience} s")
        said = process.stdout.readline()
        if (told := re.match(r"Forwarding from 127\.0\.0\.1:(\d+) -> \d+$", said)) is None:
            process.terminate()
            raise AssertionError(f"{command}: {said}{process.stdout.read()}")
        yield process, int(told[1])
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()
