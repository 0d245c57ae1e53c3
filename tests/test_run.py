"""Tests of run.py, with a script in place of cargo."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

RUN = pathlib.Path(__file__).resolve().parent / "run.py"


class Run(unittest.TestCase):
    def run_with(self, output, code=0, data=None, silence="", last="true", chaos="echo chaos"):
        with tempfile.TemporaryDirectory() as folder:
            cargo = pathlib.Path(folder) / "cargo"
            suite = pathlib.Path(folder) / "suite"
            suite.write_text(f"#!/bin/sh\n{chaos}\n")
            built = json.dumps({"target": {"name": "chaos"}, "executable": str(suite)})
            build = f"case \"$*\" in *--message-format*) echo '{built}'; exit;; esac\n"
            cargo.write_text(f"#!/bin/sh\n{build}echo \"$@\"\ncat <<'END'\n{output}\nEND\n{last}\nexit {code}\n")
            cargo.chmod(0o755)
            suite.chmod(0o755)
            environment = {**os.environ, "CARGO": str(cargo), "FACEMILL_TEST_DATA": data or folder,
                           "FACEMILL_TEST_SILENCE": silence}
            command = [sys.executable, "-B", str(RUN), "worker"]
            return subprocess.run(command, env=environment, capture_output=True, text=True)

    def test_the_slowest_tests_are_printed_first(self):
        done = self.run_with("test a::fast ... ok <0.010s>\ntest b::slow ... ok <61.500s>")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("    61.5 s  b::slow\n     0.0 s  a::fast\n0 tests were ignored", done.stdout)
        threads = f"--test-threads={3 * len(os.sched_getaffinity(0))}"
        command = f"test --locked --lib --bins --tests -- -Zunstable-options --report-time {threads} --shuffle-seed=1 worker"
        self.assertIn(command, done.stdout)
        self.assertIn("test --locked --doc -- worker", done.stdout)

    def test_an_ignored_test_must_be_in_the_list(self):
        known = "source::truncated_reference_dumps_are_errors"
        done = self.run_with(f"test a::b ... ok <0.010s>\ntest {known} ... ignored, needs the reference data")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn(f"1 tests were ignored\n  {known}: needs the reference data", done.stdout)
        done = self.run_with("test a::b ... ok <0.010s>\ntest c::d ... ignored")
        self.assertEqual(done.returncode, 1)
        self.assertIn("c::d is ignored and is not in tests/ignored.txt", done.stderr)

    def test_a_failure_and_an_empty_run_are_failures(self):
        self.assertEqual(self.run_with("test a::b ... FAILED <0.010s>", code=101).returncode, 101)
        self.assertEqual(self.run_with("nothing").returncode, 1)

    def test_the_chaos_suite_counts_and_its_output_is_printed(self):
        done = self.run_with("test a::b ... ok <0.010s>", chaos="echo photos are lost; exit 1")
        self.assertEqual(done.returncode, 1)
        self.assertIn("photos are lost\nthe slowest tests:", done.stdout)
        done = self.run_with("test a::b ... ok <0.010s>", silence="0.5", chaos="sleep 600")
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("the chaos suite does not end", done.stderr)

    def test_a_test_that_hangs_is_killed_with_all_it_has_started(self):
        # The inner shell would hold the pipe open.
        done = self.run_with("test a::b ... ok <0.010s>", silence="0.5", last="sh -c 'sleep 600'; true")
        self.assertEqual(done.returncode, -9 % 256, done.stdout)
        self.assertIn("no output for 0.5 s: a test hangs", done.stderr)
        self.assertIn("     0.0 s  a::b", done.stdout)

    def test_reference_data_includes_the_ignored_tests(self):
        with tempfile.TemporaryDirectory() as data:
            (pathlib.Path(data) / "photos").mkdir()
            (pathlib.Path(data) / "photos/manifest.tsv").write_text("")
            done = self.run_with("test a::b ... ok <0.010s>", data=data)
        command = next(line for line in done.stdout.splitlines() if "--include-ignored" in line)
        self.assertTrue(command.endswith(" worker"), command)
        measures = "browser::latency::time_from_key_to_painted_picture"
        self.assertIn(f"--skip {measures} ", command)
        self.assertNotIn("--skip source::", command)
        self.assertIn(f"  {measures}: measures", done.stdout)


if __name__ == "__main__":
    unittest.main()
