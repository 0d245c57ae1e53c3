"""A test case with a kubectl in its path that answers from the rendered manifests: see fake_kubectl.py."""

import json
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import manifests
from manifests import ROOT


class WithFakeCluster(unittest.TestCase):
    """`folder` is that of the fake kubectl, and for other files of a test."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        rendered = manifests.render(ROOT / "k8s/overlays/dev")
        (self.folder / "manifests.json").write_text(json.dumps(rendered), encoding="utf-8")
        kubectl = self.folder / "kubectl"
        fake = Path(__file__).with_name("fake_kubectl.py")
        kubectl.write_text(f'#!/bin/sh\nexec "{sys.executable}" -B "{fake}" "$@"\n', encoding="utf-8")
        kubectl.chmod(0o755)

    def run_script(self, script, *arguments, **variables):
        return self.run_command(ROOT / "deploy" / script, *arguments, **variables)

    def run_command(self, *command, **variables):
        environment = os.environ | {
            "PATH": f"{self.folder}:{os.environ['PATH']}", "FAKE_KUBECTL": str(self.folder),
        } | variables
        return subprocess.run(command, env=environment, cwd=ROOT, text=True,
                              capture_output=True, timeout=60, check=False)

    def created(self):
        """The object that the script has created."""
        return json.loads((self.folder / "created.json").read_text(encoding="utf-8"))
