"""Plants bugs in the reader of dumps, one at a time, and counts those that the tests notice.

    tests/differential/planted.py [--only NAME] [--comparisons N] [--mutations N] [--keep FOLDER]

The sources are copied to FOLDER, all bugs of `plants.py` are planted there behind one environment variable, and the
program and its tests are built once. A bug is noticed if a test of `source` fails, or if `differential.py`
reports a failure that it does not report without the bug. Ends with 1 if more than one of twenty is not noticed.
"""

import argparse
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import reader
from plants import PLANTS

VARIABLE = "FACEMILL_PLANTED_BUG"
GUARD = f"""
/// Whether a bug is planted in this run.
pub(crate) fn planted(name: &str) -> bool {{
    static BUG: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    BUG.get_or_init(|| std::env::var("{VARIABLE}").ok()).as_deref() == Some(name)
}}
"""
# The most bugs of twenty that may stay unnoticed.
UNNOTICED = 1
PROGRAM = pathlib.Path(__file__).with_name("differential.py")
# A test program that runs longer hangs, which is noticed, too. Seconds.
TIMEOUT = 600


def plant(tree):
    """Plants all bugs in a copy of the sources."""
    for name, path, found, replacement in PLANTS:
        file = tree / "src/source" / path
        text = file.read_text()
        if text.count(found) != 1:
            raise SystemExit(f"plants.py: {name}: {text.count(found)} places in {path} are as it says, not one")
        call = f'crate::planted("{name}")'
        file.write_text(text.replace(found, re.sub(r"\bBUG\b", call, replacement)))
    # Behind the imports and what follows them.
    file = tree / "src/source/lib.rs"
    file.write_text(file.read_text() + GUARD)


def copy(tree):
    """Copies the sources; a file that is as before keeps its time, so that little is built anew."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=reader.ROOT, capture_output=True, check=True,
    )
    shutil.rmtree(tree / "src", ignore_errors=True)
    for name in filter(None, listed.stdout.decode().split("\0")):
        source, target = reader.ROOT / name, tree / name
        if source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)


def build(tree):
    """Returns the program, and the commands of the reader's unit tests and integration tests."""
    environment = {**os.environ, "CARGO_TARGET_DIR": str(tree / "target")}
    # The speed of the reader does not matter here. The integration tests bring the program along.
    cargo = ["cargo", "--config", "profile.dev.package.facemill-source.opt-level=0"]
    packages = ["--package", "facemill-source", "--package", "facemill"]
    command = [*cargo, "test", "--no-run", *packages, "--lib", "--test", "integration", "--message-format", "json"]
    done = subprocess.run(command, cwd=tree, env=environment, stdout=subprocess.PIPE, check=True)
    programs = {}
    for line in done.stdout.splitlines():
        message = json.loads(line)
        if message.get("executable") and message["profile"]["test"]:
            programs[message["target"]["name"]] = message["executable"]
    return str(tree / "target/debug/facemill"), (
        [programs["facemill_source"]], [programs["integration"], "source::", "source_rules::"],
    )


def failed_tests(program, tests, bug):
    """The unit tests and integration tests of the reader that fail."""
    environment = {
        **os.environ, VARIABLE: bug, "ORT_DISABLE_TELEMETRY": "1", "CARGO_BIN_EXE_facemill": program,
    }
    failed = set()
    for command in tests:
        try:
            done = subprocess.run(
                [*command, "--test-threads", "2"],
                cwd=reader.ROOT, env=environment, capture_output=True, text=True, timeout=TIMEOUT, check=False,
            )
        except subprocess.TimeoutExpired:
            failed.add("(no answer)")
            continue
        failed.update(re.findall(r"^test (\S+) \.\.\. FAILED", done.stdout, re.M))
    return failed


def failed_cases(program, bug, comparisons, mutations, keep):
    """The ids of the cases that `differential.py` reports."""
    environment = {**os.environ, VARIABLE: bug, "FACEMILL": program}
    command = [sys.executable, "-B", str(PROGRAM), "--seed", "1", "--comparisons", str(comparisons)]
    command += ["--mutations", str(mutations), "--keep", str(keep)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1) or "compared: " not in done.stdout:
        raise SystemExit(f"differential.py failed:\n{done.stdout}{done.stderr}")
    return set(re.findall(r"^  ((?:mutations/)?(?:postgres|mariadb|sqlite)/[0-9/]+): ", done.stdout, re.M))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", help="the name of one bug")
    parser.add_argument("--comparisons", type=int, default=160)
    parser.add_argument("--mutations", type=int, default=60)
    parser.add_argument("--keep", type=pathlib.Path, default=reader.ROOT / "target/planted")
    arguments = parser.parse_args()
    sizes = arguments.comparisons, arguments.mutations
    tree = arguments.keep / "tree"
    copy(tree)
    plant(tree)
    program, tests = build(tree)
    sound = failed_tests(program, tests, "none"), failed_cases(program, "none", *sizes, arguments.keep / "none")
    if any(sound):
        raise SystemExit(f"without a bug these fail: {sorted(sound[0] | sound[1])}")
    names = [name for name, *_ in PLANTS if arguments.only in (None, name)]
    unnoticed = []
    for name in names:
        failed = {
            "cases": failed_cases(program, name, *sizes, arguments.keep / name),
            "tests": failed_tests(program, tests, name),
        }
        shown = [f"{len(found)} {kind} ({min(found)})" for kind, found in failed.items() if found]
        print(f"{name}: {', '.join(shown) or 'NOT NOTICED'}", flush=True)
        if not shown:
            unnoticed.append(name)
    print(f"{len(names) - len(unnoticed)} of {len(names)} bugs are noticed")
    return 1 if len(unnoticed) > UNNOTICED * max(1, len(names) // 20) else 0


if __name__ == "__main__":
    sys.exit(main())
