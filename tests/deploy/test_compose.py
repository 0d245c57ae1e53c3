"""The image's recipe and the compose file agree with the manifests and with the program."""

import re
import shutil
import subprocess
import unittest

import manifests
from manifests import PACKAGES, ROOT, Cluster, Program

PROGRAM = Program(manifests.built_program())
COMPOSE = manifests.load((ROOT / "deploy/compose.yaml").read_text(encoding="utf-8"))[0]
RECIPE = (ROOT / "deploy/Dockerfile").read_text(encoding="utf-8")


def ours():
    return {n: s for n, s in COMPOSE["services"].items() if s["image"].startswith("facemill:") and "entrypoint" not in s}


class Compose(unittest.TestCase):
    def test_every_stage_is_there(self):
        self.assertLessEqual(set(PROGRAM.stage_queues), set(COMPOSE["services"]))

    def test_images_are_those_of_the_cluster(self):
        cluster = Cluster(manifests.render(ROOT / "k8s/overlays/dev"), PROGRAM)
        there = {container["image"] for _, _, container in cluster.containers()}
        here = {service["image"] for service in COMPOSE["services"].values()}
        self.assertLessEqual(there, here)
        for image in here:
            self.assertRegex(image, r":v?\d")

    def test_the_program_knows_its_variables_and_takes_them(self):
        for name, service in ours().items():
            with self.subTest(name):
                given, command = service.get("environment", {}), service["command"]
                known = set(PROGRAM.variables[command[0]])
                if command[0] == "work":
                    self.assertEqual(set(given) - known, set())
                    values = {k: re.sub(r"\$\{\w+:-(\w+)\}", r"\1", v) for k, v in given.items()}
                    del values["FACEMILL_REDIS_URL"]
                    code, said = PROGRAM.complaint(tuple(command), tuple(sorted(values.items())))
                    self.assertEqual(code, 3, said)
                    self.assertEqual(len(re.findall(r"^  \S", said, re.MULTILINE)), 1, said)

    def test_workers_have_time_to_end_and_cannot_write(self):
        for stage in PROGRAM.stage_queues:
            service = COMPOSE["services"][stage]
            grace = int(service["environment"]["FACEMILL_GRACE"])
            self.assertGreaterEqual(grace, PROGRAM.time_limit)
            self.assertGreater(int(service["stop_grace_period"].rstrip("s")), grace)
            self.assertTrue(service["read_only"])
            self.assertEqual(service["cap_drop"], ["ALL"])

    def test_ports_are_open_to_this_machine_only(self):
        for name, service in COMPOSE["services"].items():
            for port in service.get("ports", []):
                self.assertTrue(port.startswith("127.0.0.1:"), f"{name}: {port}")

    def test_prometheus_asks_the_port_that_workers_listen_on(self):
        jobs = manifests.load((ROOT / "deploy/prometheus/prometheus.yml").read_text(encoding="utf-8"))[0]["scrape_configs"]
        workers = next(job for job in jobs if job["job_name"] == "facemill")["dns_sd_configs"][0]
        self.assertEqual(set(workers["names"]), set(PROGRAM.stage_queues))
        for stage in PROGRAM.stage_queues:
            listen = COMPOSE["services"][stage]["environment"]["FACEMILL_LISTEN"]
            self.assertTrue(listen.endswith(f":{workers['port']}"))

    def test_prometheus_takes_its_settings_and_rules(self):
        self.assertIsNotNone(shutil.which("promtool"), "promtool is not installed: run `make setup-tests`")
        command = ["promtool", "check", "config", "--lint-fatal", ROOT / "deploy/prometheus/prometheus.yml"]
        told = subprocess.run(command, capture_output=True, text=True, check=False)
        self.assertEqual(told.returncode, 0, told.stdout + told.stderr)
        self.assertRegex(told.stdout, r"alerts\.yml\s+SUCCESS: \d+ rules found")


class Recipe(unittest.TestCase):
    def test_has_no_fault(self):
        told = subprocess.run([PACKAGES / "bin/hadolint", ROOT / "deploy/Dockerfile"], capture_output=True, text=True, check=False)
        self.assertEqual((told.returncode, told.stdout), (0, ""))

    def test_runs_as_nobody_and_is_this_version(self):
        users = re.findall(r"^USER (\d+):(\d+)$", RECIPE, re.MULTILINE)
        self.assertEqual(len(users), 1)
        self.assertNotIn("0", users[0])
        self.assertIn(f"ARG VERSION={PROGRAM.version}\n", RECIPE)

    def test_brings_every_model(self):
        config = (ROOT / "src/config.rs").read_text(encoding="utf-8")
        names = re.findall(r'"([\w-]+\.(?:dat|onnx|pth|so))"', config)
        self.assertGreaterEqual(len(names), 5)
        for name in names:
            self.assertIn(f"models/{name}", RECIPE)


if __name__ == "__main__":
    unittest.main()
