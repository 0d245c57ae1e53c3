"""Starts the servers and tools of the databases, with a user that owns nothing, in a temporary folder."""

import os
import shutil
import subprocess
import tempfile
import time

NOBODY = "nobody"
# Seconds. No case is large; a tool that needs longer hangs.
TOOL_TIMEOUT = 60


class ToolError(Exception):
    """A tool ended with an error: the server refuses what it got."""


def work_folder():
    """Returns a new folder that the servers' user may write to, in memory where there is room."""
    parent = None
    try:
        memory = os.statvfs("/dev/shm")
        if memory.f_bavail * memory.f_frsize > 1 << 30:
            parent = "/dev/shm"
    except OSError:
        pass
    folder = tempfile.mkdtemp(prefix="facemill-differential-", dir=parent)
    if os.geteuid() == 0:
        shutil.chown(folder, NOBODY)
    return folder


def other_user():
    """Servers and their clients do not run as root: a mutation of a dump may be a command of the client."""
    return {"user": NOBODY, "group": "nogroup", "extra_groups": []} if os.geteuid() == 0 else {}


def run(command, folder, input=None, environment=None, check=True):
    """Runs a tool and returns its standard output. A `ToolError` has its standard error."""
    done = subprocess.run(
        command,
        cwd=folder,
        input=input,
        env={**os.environ, "HOME": folder, **(environment or {})},
        capture_output=True,
        timeout=TOOL_TIMEOUT,
        check=False,
        stdin=subprocess.DEVNULL if input is None else None,
        **other_user(),
    )
    if check and done.returncode:
        raise ToolError(done.stderr.decode(errors="replace").strip() or f"{command[0]} ended with {done.returncode}")
    return done.stdout


class Server:
    """A server process. It ends with this program, even if this program is killed."""

    def __init__(self, command, folder, log, ready):
        self.log = os.path.join(folder, log)
        with open(self.log, "wb") as output:
            command = ["setpriv", "--pdeathsig=TERM", *command]
            self.process = subprocess.Popen(
                command,
                cwd=folder,
                env={**os.environ, "HOME": folder, "TZ": "UTC"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                **other_user(),
            )
        deadline = time.monotonic() + 30
        while not ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                with open(self.log, errors="replace") as log:
                    raise RuntimeError(f"{command[2]} does not start:\n{log.read()[-2000:]}")
            time.sleep(0.02)

    def stop(self):
        # What the server has written is removed with its folder.
        self.process.kill()
        self.process.wait()
