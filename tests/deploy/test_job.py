"""deploy/job.sh runs a command in the cluster, prints its output and ends with its exit code."""

import json
import subprocess
import unittest

import manifests
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

    def test_the_program_takes_the_arguments_of_each_kind_of_job(self):
        """Without servers the program ends with 3; arguments that it does not know would end it with 2."""
        program = manifests.built_program()
        unreachable = {
            "FACEMILL_AMQP_URL": "amqp://u:p@127.0.0.1:1/", "FACEMILL_AMQP_MANAGEMENT": "http://u:p@127.0.0.1:1",
            "FACEMILL_REDIS_URL": "redis://127.0.0.1:1/0", "FACEMILL_S3_ENDPOINT": "http://127.0.0.1:1",
            "FACEMILL_S3_BUCKET": "b", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b",
        }
        for command in (
            "measure --run faces", "duplicates --run faces", "identities --run faces", "train --run faces --use",
            "dataset freeze v1 --run faces --where status=ok", "takedown --run faces --photo 4711 --yes",
            "export --run faces --where status=ok --to s3://sets/v1.zip", "recrop --run faces --as wide --align ffhq",
            "rescore --run faces --model new", "evaluate new --run faces",
        ):
            with self.subTest(command):
                done = self.job(*command.split(), states=[WAITING], DETACH="1")
                self.assertEqual(done.returncode, 0, done.stderr)
                container = self.created()["spec"]["template"]["spec"]["containers"][0]
                self.assertEqual(container["args"], command.split())
                environment = {"HOME": str(self.folder)} | unreachable
                ended = subprocess.run([program, *container["args"]], env=environment, cwd=self.folder, text=True,
                                       capture_output=True, timeout=60, check=False)
                self.assertEqual(ended.returncode, 3, ended.stderr)
                self.assertIn("cannot reach", ended.stderr)

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
