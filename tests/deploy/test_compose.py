"""The Dockerfile and the compose file agree with the manifests and with the program."""

import re
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

import manifests
from manifests import PACKAGES, ROOT, Cluster, Program

PROGRAM = Program(manifests.built_program())
COMPOSE = manifests.load((ROOT / "deploy/compose.yaml").read_text(encoding="utf-8"))[0]
DOCKERFILE = (ROOT / "deploy/Dockerfile").read_text(encoding="utf-8")


def own_services():
    return {n: s for n, s in COMPOSE["services"].items() if s["image"].startswith("facemill:") and "entrypoint" not in s}


class Compose(unittest.TestCase):
    def test_every_stage_has_a_service(self):
        self.assertLessEqual(set(PROGRAM.stage_queues), set(COMPOSE["services"]))

    def test_images_are_the_same_as_in_the_cluster(self):
        cluster = Cluster(manifests.render(ROOT / "k8s/overlays/dev"), PROGRAM)
        in_cluster = {container["image"] for _, _, container in cluster.containers()}
        in_compose = {service["image"] for service in COMPOSE["services"].values()}
        self.assertLessEqual(in_cluster, in_compose)
        for image in in_compose:
            self.assertRegex(image, r":v?\d")

    def test_the_program_accepts_the_variables(self):
        for name, service in own_services().items():
            with self.subTest(name):
                given, command = service.get("environment", {}), service["command"]
                known = set(PROGRAM.variables[command[0]])
                if command[0] == "work":
                    self.assertEqual(set(given) - known, manifests.LIBRARY_VARIABLES)
                    values = {k: re.sub(r"\$\{\w+:-(\w+)\}", r"\1", v) for k, v in given.items()}
                    del values["FACEMILL_REDIS_URL"]
                    code, errors = PROGRAM.start(tuple(command), tuple(sorted(values.items())))
                    self.assertEqual(code, 2, errors)
                    self.assertEqual(len(re.findall(r"^  \S", errors, re.MULTILINE)), 1, errors)

    def test_workers_have_a_grace_period_and_a_read_only_root(self):
        for stage in PROGRAM.stage_queues:
            service = COMPOSE["services"][stage]
            grace = int(service["environment"]["FACEMILL_GRACE"])
            self.assertGreaterEqual(grace, PROGRAM.time_limit)
            self.assertGreater(int(service["stop_grace_period"].rstrip("s")), grace)
            self.assertTrue(service["read_only"])
            self.assertEqual(service["cap_drop"], ["ALL"])

    def test_ports_are_open_on_loopback_only(self):
        for name, service in COMPOSE["services"].items():
            for port in service.get("ports", []):
                self.assertTrue(port.startswith("127.0.0.1:"), f"{name}: {port}")

    def test_prometheus_scrapes_the_port_of_the_workers(self):
        jobs = manifests.load((ROOT / "deploy/prometheus/prometheus.yml").read_text(encoding="utf-8"))[0]["scrape_configs"]
        workers = next(job for job in jobs if job["job_name"] == "facemill")["dns_sd_configs"][0]
        self.assertEqual(set(workers["names"]), set(PROGRAM.stage_queues))
        for stage in PROGRAM.stage_queues:
            listen = COMPOSE["services"][stage]["environment"]["FACEMILL_LISTEN"]
            self.assertTrue(listen.endswith(f":{workers['port']}"))

    def test_prometheus_scrapes_the_page(self):
        jobs = manifests.load((ROOT / "deploy/prometheus/prometheus.yml").read_text(encoding="utf-8"))[0]["scrape_configs"]
        page = next(job for job in jobs if job["job_name"] == "facemill-curate")["dns_sd_configs"][0]
        self.assertEqual(page["names"], ["curate"])
        self.assertTrue(COMPOSE["services"]["curate"]["environment"]["FACEMILL_LISTEN"].endswith(f":{page['port']}"))
        self.assertEqual(set(COMPOSE["services"]["curate"]["environment"]) - set(PROGRAM.variables["curate"])
                         - set(PROGRAM.variables["work"]) - manifests.LIBRARY_VARIABLES, manifests.STANDARD_VARIABLES)

    def test_promtool_accepts_settings_and_rules(self):
        self.assertIsNotNone(shutil.which("promtool"), "promtool is not installed: run `make setup-tests`")
        command = ["promtool", "check", "config", "--lint-fatal", ROOT / "deploy/prometheus/prometheus.yml"]
        checked = subprocess.run(command, capture_output=True, text=True, check=False)
        self.assertEqual(checked.returncode, 0, checked.stdout + checked.stderr)
        self.assertRegex(checked.stdout, r"alerts\.yml\s+SUCCESS: \d+ rules found")


class Dockerfile(unittest.TestCase):
    def test_hadolint_finds_no_fault(self):
        command = [PACKAGES / "bin/hadolint", ROOT / "deploy/Dockerfile"]
        checked = subprocess.run(command, capture_output=True, text=True, check=False)
        self.assertEqual((checked.returncode, checked.stdout), (0, ""))

    def test_user_is_not_root_and_the_version_is_current(self):
        users = re.findall(r"^USER (\d+):(\d+)$", DOCKERFILE, re.MULTILINE)
        self.assertEqual(len(users), 1)
        self.assertNotIn("0", users[0])
        self.assertIn(f"ARG VERSION={PROGRAM.version}\n", DOCKERFILE)

    def test_rust_is_the_same_version_everywhere(self):
        pinned = re.search(r'channel = "(.+)"', (ROOT / "rust-toolchain.toml").read_text(encoding="utf-8"))[1]
        oldest = re.search(r'rust-version = "(.+)"', (ROOT / "Cargo.toml").read_text(encoding="utf-8"))[1]
        image = re.search(r"RUST_IMAGE=rust:([0-9.]+)-", DOCKERFILE)[1]
        self.assertEqual((oldest, image), (pinned.rsplit(".", 1)[0],) * 2)

    def test_every_model_is_copied(self):
        config = (ROOT / "src/inference/models.rs").read_text(encoding="utf-8")
        names = re.findall(r'"([\w-]+\.(?:dat|onnx|pth|so))"', config)
        self.assertGreaterEqual(len(names), 5)
        for name in names:
            self.assertIn(f"models/{name}", DOCKERFILE)

    def test_cargo_finds_every_manifest_in_the_build_context(self):
        ignore = (ROOT / "deploy/Dockerfile.dockerignore").read_text(encoding="utf-8").split()
        copies = re.findall(r"^COPY ([^-].*) \S+$", DOCKERFILE.split("cargo build")[0], re.MULTILINE)
        with tempfile.TemporaryDirectory() as folder:
            for source in " ".join(copies).split():
                self.assertIn(f"!{source}", ignore)
                target = Path(folder) / source
                target.parent.mkdir(parents=True, exist_ok=True)
                (shutil.copytree if (ROOT / source).is_dir() else shutil.copy)(ROOT / source, target)
            command = ["cargo", "metadata", "--locked", "--format-version=1"]
            checked = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
            self.assertEqual(checked.returncode, 0, checked.stderr)


if __name__ == "__main__":
    unittest.main()
