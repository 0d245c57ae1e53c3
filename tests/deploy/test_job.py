"""deploy/job.sh runs a command in the cluster, prints its output and ends with its exit code."""

import json
import unittest

from fake_cluster import WithFakeCluster

WAITING = {"phase": "Pending", "containerStatuses": [{"state": {"waiting": {"message": "the image is being pulled"}}}]}
RUNNING = {"phase": "Running", "containerStatuses": [{"state": {"running": {}}}]}


def ended(code):
    phase = "Failed" if code else "Succeeded"
    return {"phase": phase, "containerStatuses": [{"state": {"terminated": {"exitCode": code}}}]}


class Job(WithFakeCluster):
    def job(self, *arguments, states=(), **variables):
        (self.folder / "log").write_text("312 faces\n", encoding="utf-8")
        (self.folder / "pod.json").write_text(json.dumps(states), encoding="utf-8")
        return self.run_script("job.sh", *arguments, **variables)

    def test_prints_the_log_and_ends_as_the_command_does(self):
        for code in (0, 1):
            done = self.job("faces", "--where", "size >= 512", states=[WAITING, RUNNING, ended(code)])
            self.assertEqual((done.returncode, done.stdout), (code, "312 faces\n"), done.stderr)
            job = self.created()
            container = job["spec"]["template"]["spec"]["containers"][0]
            self.assertEqual(container["args"], ["faces", "--where", "size >= 512"])
            self.assertEqual(job["spec"]["backoffLimit"], 0, "a command that fails is not repeated")
            self.assertNotIn("ownerReferences", job["metadata"], "the CronJob does not count it")
            self.assertIn({"name": "XDG_CACHE_HOME", "value": "/tmp"}, container["env"])

    def test_detached_it_ends_when_the_job_is_there(self):
        done = self.job("train", "--run", "faces", DETACH="1", states=[WAITING])
        name = self.created()["metadata"]["name"]
        self.assertRegex(name, r"^train-[0-9]+-[0-9]+$")
        self.assertEqual(done.stdout, f"kubectl --namespace facemill logs --follow job/{name}\n", done.stderr)

    def test_a_pod_that_does_not_start_is_explained(self):
        done = self.job("status", states=[WAITING], START_SECONDS="1")
        self.assertEqual(done.returncode, 3, done.stderr)
        self.assertIn("has not started within 1 s: the image is being pulled", done.stderr)

    def test_commands_that_are_no_jobs_are_refused(self):
        for arguments, message in (
            ([], "no command is given"), (["run", "x"], "facemill run does not run as a Job"),
            (["--help"], "`--help` is no command"),
        ):
            done = self.job(*arguments)
            self.assertEqual(done.returncode, 2, done.stderr)
            self.assertIn(message, done.stderr)
        self.assertFalse((self.folder / "created.json").exists())

    def ask(self, arguments):
        (self.folder / "log").write_text("312 faces\n", encoding="utf-8")
        (self.folder / "pod.json").write_text(json.dumps([RUNNING, ended(0)]), encoding="utf-8")
        return self.run_command("make", "--no-print-directory", "ask", f"ARGS={arguments}")

    def test_ask_runs_commands_that_only_read(self):
        done = self.ask("why 4711 --run faces")
        self.assertEqual((done.returncode, done.stdout), (0, "312 faces\n"), done.stderr)
        container = self.created()["spec"]["template"]["spec"]["containers"][0]
        self.assertEqual(container["args"], ["why", "4711", "--run", "faces"])

    def test_ask_refuses_commands_that_write(self):
        for command in ("train", "retry", "takedown", "produce"):
            done = self.ask(f"{command} --run faces")
            self.assertNotEqual(done.returncode, 0)
            refusal = f"make ask runs only status, why, audit, report, faces: `make job` runs facemill {command}"
            self.assertIn(refusal, done.stderr)
        self.assertFalse((self.folder / "created.json").exists())


if __name__ == "__main__":
    unittest.main()
