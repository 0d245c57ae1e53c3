"""Tests the `setpriv` options for a security context, and the root and capabilities of a container."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from installation import KILL
from standin import container
from standin.container import CAPABILITIES, security_of, setpriv

RESTRICTED = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}


class Capabilities(unittest.TestCase):
    def setpriv(self, pod=None, own=None, only_root=False):
        security = security_of({"securityContext": pod or {}}, {"securityContext": own or {}}, 7)
        return setpriv(security, only_root)

    def test_restricted_profile_has_no_capabilities(self):
        self.assertEqual(self.setpriv({"runAsUser": 65532, "runAsGroup": 65533, "fsGroup": 3}, RESTRICTED)[1:], [
            "--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all", "--no-new-privs", "--reuid=65532",
            "--regid=65533", "--groups=3", "--",
        ])

    def test_default_is_the_image_user_and_the_default_capabilities(self):
        bounding, *others = self.setpriv()[1:]
        self.assertEqual(set(bounding.lower().split(",")[1:]), {f"+{name.lower()}" for name in CAPABILITIES})
        self.assertEqual(others[2:], ["--reuid=7", "--regid=7", "--clear-groups", "--"])

    def test_added_and_dropped_capabilities(self):
        bounding = lambda changes: self.setpriv(own={"capabilities": changes})[1]
        self.assertEqual(bounding({"drop": ["ALL"], "add": ["NET_RAW"]}), "--bounding-set=-all,+net_raw")
        self.assertNotIn("chown", bounding({"drop": ["CHOWN"]}))

    def test_container_context_overrides_pod_context(self):
        self.assertIn("--reuid=2", self.setpriv({"runAsUser": 1}, {"runAsUser": 2}))

    def test_single_user_omits_user_and_group_options(self):
        command = self.setpriv({"runAsUser": 65532, "fsGroup": 3}, RESTRICTED, only_root=True)
        self.assertFalse([word for word in command if "uid" in word or "gid" in word or "group" in word])
        self.assertIn("--no-new-privs", command)


class Root(unittest.TestCase):
    """Runs container.py in new namespaces, as cluster.py does."""

    def run_inside(self, script, read_only, before=()):
        unshare = ["unshare", "--mount", *(["--user", "--map-root-user"] if os.geteuid() else [])]
        if subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode:
            self.skipTest("namespaces are not available")
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            for part in ("root", "data", "settings"):
                (folder / part).mkdir()
            file = folder / "settings/a.conf"
            file.write_text("a", encoding="utf-8")
            (folder / "specification.json").write_text(json.dumps({
                "name": "a-pod", "root": str(folder / "root"), "read_only": read_only, "directory": "/data",
                "image": [], "volumes": [[str(folder / "data"), "/data", False], [str(file), "/etc/a/a.conf", True]],
                "files": {"/etc/hosts": "127.0.0.1 localhost\n"}, "command": [*before, "/bin/sh", "-c", script],
            }), encoding="utf-8")
            with open(os.devnull, encoding="ascii") as fd:
                command = [*unshare, sys.executable, "-B", "-I", container.__file__, folder / "specification.json"]
                done = subprocess.run([*command, str(fd.fileno())], pass_fds=(fd.fileno(),), capture_output=True,
                                      text=True, env={"PATH": os.environ["PATH"], "LC_ALL": "C"}, check=False)
            left = sorted(path.name for path in (folder / "data").iterdir())
        return done.stdout + done.stderr, left

    def test_only_volumes_are_writable(self):
        script = "touch here; for f in /it /etc/it /usr/it /etc/a/a.conf; do touch $f; done; ls /etc/a; hostname"
        output, left = self.run_inside(script, read_only=True)
        self.assertEqual(output.count("Read-only file system"), 4, output)
        self.assertEqual(output.splitlines()[:2], ["a.conf", "a-pod"])
        self.assertEqual(left, ["here"])

    def test_writable_root_does_not_change_the_machine(self):
        output, _ = self.run_inside("for f in /it /etc/it /usr/it; do touch $f; done; ls /it", read_only=False)
        self.assertEqual(output.count("Read-only file system"), 1, output)
        self.assertIn("/it\n", output)

    def test_process_has_the_user_and_no_capabilities(self):
        before = setpriv({"runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532} | RESTRICTED, os.geteuid() != 0)
        output, _ = self.run_inside("cat /proc/self/status", read_only=True, before=before)
        fields = {name: value.split() for name, _, value in (line.partition(":") for line in output.splitlines())}
        for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb"):
            self.assertEqual(fields[f"Cap{kind}"], ["0" * 16])
        self.assertEqual(fields["NoNewPrivs"], ["1"])
        if os.geteuid() == 0:
            ids = fields["Uid"], fields["Gid"], fields["Groups"]
            self.assertEqual(ids, (4 * ["65532"], 4 * ["65532"], ["65532"]))

    def test_kill_ends_the_program_of_its_own_container_only(self):
        with tempfile.TemporaryDirectory() as name:
            elsewhere = Path(name) / "facemill"
            shutil.copy("/usr/bin/sleep", elsewhere)
            with subprocess.Popen([elsewhere, "60"]) as other:
                self.addCleanup(other.kill)
                runs = 'until [ "$(cat /proc/$!/comm)" = facemill ]; do :; done'
                script = f"cp /usr/bin/sleep /tmp/facemill; /tmp/facemill 60 & {runs}\n{KILL}\nwait $!; echo $?"
                output, _ = self.run_inside(script, read_only=False)
                survives = other.poll() is None
                other.kill()
            self.assertTrue(survives, output)
            # The shell may say "Killed" before or after it.
            self.assertIn("137", output.splitlines())

    def test_root_contains_only_programs_of_the_machine(self):
        script = "ls -A /root /home /var/lib /etc /dev 2>&1; ls /tmp; cat /etc/hosts"
        output, _ = self.run_inside(script, read_only=True)
        for name in ("shadow", "dpkg", "sda", "vda", "facemill"):
            self.assertNotIn(name, output)
        self.assertTrue(output.endswith("127.0.0.1 localhost\n"), output)


if __name__ == "__main__":
    unittest.main()
