"""Runs the tests of cargo, and says at the end what a reader of the log needs: which tests did not run, and the slowest.

Tests that need the reference data are ignored. They run where the data is present. Other ignored tests never run here. Every
ignored test must be in tests/ignored.txt with its reason, so that no test is left out unnoticed.

    tests/run.py [FILTER...]

The tests run in a mixed order that is the same each time; FACEMILL_TEST_ORDER=7 gives another one.
"""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading

ROOT = pathlib.Path(__file__).resolve().parent.parent
IGNORED = ROOT / "tests" / "ignored.txt"
RESULT = re.compile(r"^test (\S+) \.\.\. (ok|FAILED|ignored)(?:, (.*?))?(?: <([0-9.]+)s>)?$")
SLOWEST = 10
# No test takes as long without a line of output. Compilation is over by then.
SILENCE_SECONDS = 900
NEEDS_DATA = "needs the reference data"


def reference_data():
    """The folder of the reference data, if it is present."""
    folder = pathlib.Path(os.environ.get("FACEMILL_TEST_DATA") or ROOT / "../shared/data")
    return folder if (folder / "photos/manifest.tsv").is_file() else None


def expected():
    """Names of the tests that may be ignored, with their reasons."""
    lines = [line.strip() for line in IGNORED.read_text().splitlines()]
    pairs = [line.split(": ", 1) for line in lines if line and not line.startswith("#")]
    return dict(pairs)


def environment():
    """The times of tests are an unstable option of the test harness. The runner sets the variable that permits it for the
    test programs alone: set for cargo, it would build everything anew."""
    host = subprocess.run(["rustc", "-vV"], capture_output=True, text=True, check=True).stdout
    target = re.search(r"^host: (.*)$", host, re.MULTILINE).group(1)
    name = "CARGO_TARGET_" + target.upper().replace("-", "_").replace(".", "_") + "_RUNNER"
    return {**os.environ, name: "env RUSTC_BOOTSTRAP=1"}


class Watchdog:
    """Kills the tests after a long silence, so that one which hangs does not hold up the log for ever."""

    def __init__(self, tests, seconds):
        self.tests, self.seconds, self.timer = tests, seconds, None

    def reset(self):
        self.stop()
        self.timer = threading.Timer(self.seconds, self.kill)
        self.timer.daemon = True
        self.timer.start()

    def stop(self):
        if self.timer:
            self.timer.cancel()

    def kill(self):
        print(f"no output for {self.seconds} s: a test hangs. The processes:", file=sys.stderr, flush=True)
        if shutil.which("ps"):
            subprocess.run(["ps", "-e", "--forest", "-o", "pid,stat,etime,wchan:20,args"], stdout=sys.stderr)
        kill(self.tests)


class Chaos:
    """The chaos suite. It waits for servers most of the time, so it runs beside the tests. Its output is printed
    afterwards."""

    def __init__(self, cargo, filters, silence):
        self.silence = silence
        self.output = tempfile.TemporaryFile()
        started = {"cwd": ROOT, "stdout": self.output, "stderr": subprocess.STDOUT, "start_new_session": True}
        self.process = subprocess.Popen([self.build(cargo), *filters], **started)

    @staticmethod
    def build(cargo):
        """Builds the suite. Returns the path of the program."""
        # Alone it would have other features of the packages, and all would be built once more.
        command = [*cargo, "--no-run", "--lib", "--bins", "--test", "*", "--message-format", "json"]
        built = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        if built.returncode:
            sys.exit(built.returncode)
        messages = [json.loads(line) for line in built.stdout.splitlines() if line.startswith("{")]
        return next(m["executable"] for m in messages if m.get("executable") and m["target"]["name"] == "chaos")

    def end(self):
        """Waits for the end, and prints the output. Returns the exit code."""
        try:
            self.process.wait(self.silence)
        except subprocess.TimeoutExpired:
            print(f"the chaos suite does not end within {self.silence} s after the other tests", file=sys.stderr, flush=True)
            kill(self.process)
        self.output.seek(0)
        sys.stdout.write(self.output.read().decode(errors="replace"))
        sys.stdout.flush()
        return self.process.wait()


def kill(tests):
    """Kills a process that leads a session, with all that it has started there."""
    try:
        os.killpg(tests.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def run(filters):
    """Runs the tests and prints their output as it comes. Returns the exit code, the times and the ignored tests.

    The chaos suite runs beside them. The examples in docstrings run on their own afterwards: rustdoc does not know the
    unstable options."""
    # Many tests wait for a server to start or to answer.
    threads = 3 * len(os.sched_getaffinity(0))
    # In the order of the names, tests that wait for the same server would stand beside each other.
    order = f"--shuffle-seed={os.environ.get('FACEMILL_TEST_ORDER') or 1}"
    arguments = ["-Zunstable-options", "--report-time", f"--test-threads={threads}", order]
    times, ignored = {}, {}
    if reference_data():
        arguments.append("--include-ignored")
        ignored = {name: reason for name, reason in expected().items() if reason != NEEDS_DATA}
        for name in ignored:
            arguments += ["--skip", name]
    cargo = [os.environ.get("CARGO", "cargo"), "test", "--locked"]
    command = [*cargo, "--lib", "--bins", "--tests", "--", *arguments, *filters]
    silence = float(os.environ.get("FACEMILL_TEST_SILENCE") or SILENCE_SECONDS)
    started = {"cwd": ROOT, "env": environment(), "stdout": subprocess.PIPE, "text": True, "start_new_session": True}
    chaos = Chaos(cargo, filters, silence)
    with subprocess.Popen(command, **started) as tests:
        watchdog = Watchdog(tests, silence)
        watchdog.reset()
        try:
            for line in tests.stdout:
                watchdog.reset()
                print(line, end="", flush=True)
                found = RESULT.match(line.strip())
                if found and found[2] == "ignored":
                    ignored[found[1]] = found[3] or "no reason"
                elif found:
                    times[found[1]] = float(found[4] or 0)
        except KeyboardInterrupt:
            kill(tests)
            kill(chaos.process)
            raise
        finally:
            watchdog.stop()
    code = chaos.end()
    code = tests.returncode or code or subprocess.run([*cargo, "--doc", "--", *filters], cwd=ROOT).returncode
    return code, times, ignored


def main():
    filters = sys.argv[1:]
    code, times, ignored = run(filters)
    if code == 0 and not times:
        print("no test ran", file=sys.stderr)
        return 1
    print("the slowest tests:")
    for name, seconds in sorted(times.items(), key=lambda item: -item[1])[:SLOWEST]:
        print(f"{seconds:8.1f} s  {name}")
    print(f"{len(ignored)} tests were ignored")
    for name, reason in sorted(ignored.items()):
        print(f"  {name}: {reason}")
    known = expected()
    surprises = sorted(ignored.keys() - known.keys())
    for name in surprises:
        print(f"{name} is ignored and is not in {IGNORED.relative_to(ROOT)}", file=sys.stderr)
    return code or (1 if surprises else 0)


if __name__ == "__main__":
    sys.exit(main())
