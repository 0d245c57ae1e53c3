"""What `setpriv` is told of a security context, and that a container has nothing more than that."""

import json
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from standin import container
from standin.container import CAPABILITIES, security_of, setpriv

RESTRICTED = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}


class Powers(unittest.TestCase):
    def setpriv(self, pod=None, own=None, only_root=False):
        security = security_of({"securityContext": pod or {}}, {"securityContext": own or {}}, 7)
        return setpriv(security, only_root)

    def test_of_the_restricted_profile_are_none(self):
        self.assertEqual(self.setpriv({"runAsUser": 65532, "runAsGroup": 65533, "fsGroup": 3}, RESTRICTED)[1:], [
            "--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all", "--no-new-privs", "--reuid=65532",
            "--regid=65533", "--groups=3", "--",
        ])

    def test_of_nothing_said_are_the_images_user_and_what_containers_keep(self):
        bounding, *others = self.setpriv()[1:]
        self.assertEqual(set(bounding.lower().split(",")[1:]), {f"+{name.lower()}" for name in CAPABILITIES})
        self.assertEqual(others[2:], ["--reuid=7", "--regid=7", "--clear-groups", "--"])

    def test_are_what_is_added_and_not_what_is_dropped(self):
        bounding = lambda told: self.setpriv(own={"capabilities": told})[1]
        self.assertEqual(bounding({"drop": ["ALL"], "add": ["NET_RAW"]}), "--bounding-set=-all,+net_raw")
        self.assertNotIn("chown", bounding({"drop": ["CHOWN"]}))

    def test_the_containers_word_is_above_the_pods(self):
        self.assertIn("--reuid=2", self.setpriv({"runAsUser": 1}, {"runAsUser": 2}))

    def test_where_there_is_but_one_user_only_the_rest(self):
        command = self.setpriv({"runAsUser": 65532, "fsGroup": 3}, RESTRICTED, only_root=True)
        self.assertFalse([word for word in command if "uid" in word or "gid" in word or "group" in word])
        self.assertIn("--no-new-privs", command)


class Root(unittest.TestCase):
    """In namespaces of its own, as cluster.py would start it."""

    def run_inside(self, script, read_only, before=()):
        alone = ["unshare", "--mount", *(["--user", "--map-root-user"] if os.geteuid() else [])]
        if subprocess.run([*alone, "true"], capture_output=True, check=False).returncode:
            self.skipTest("no namespaces here")
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
                command = [*alone, sys.executable, "-B", "-I", container.__file__, folder / "specification.json"]
                done = subprocess.run([*command, str(fd.fileno())], pass_fds=(fd.fileno(),), capture_output=True,
                                      text=True, env={"PATH": os.environ["PATH"], "LC_ALL": "C"}, check=False)
            left = sorted(path.name for path in (folder / "data").iterdir())
        return done.stdout + done.stderr, left

    def test_is_written_to_in_volumes_alone(self):
        script = "touch here; for f in /it /etc/it /usr/it /etc/a/a.conf; do touch $f; done; ls /etc/a; hostname"
        said, left = self.run_inside(script, read_only=True)
        self.assertEqual(said.count("Read-only file system"), 4, said)
        self.assertEqual(said.splitlines()[:2], ["a.conf", "a-pod"])
        self.assertEqual(left, ["here"])

    def test_that_may_be_written_to_still_spares_the_machine(self):
        said, _ = self.run_inside("for f in /it /etc/it /usr/it; do touch $f; done; ls /it", read_only=False)
        self.assertEqual(said.count("Read-only file system"), 1, said)
        self.assertIn("/it\n", said)

    def test_is_a_users_without_powers(self):
        before = setpriv({"runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532} | RESTRICTED, os.geteuid() != 0)
        said, _ = self.run_inside("cat /proc/self/status", read_only=True, before=before)
        told = {name: value.split() for name, _, value in (line.partition(":") for line in said.splitlines())}
        for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb"):
            self.assertEqual(told[f"Cap{kind}"], ["0" * 16])
        self.assertEqual(told["NoNewPrivs"], ["1"])
        if os.geteuid() == 0:
            self.assertEqual((told["Uid"], told["Gid"], told["Groups"]), (4 * ["65532"], 4 * ["65532"], ["65532"]))

    def test_has_nothing_of_the_machine_but_its_programs(self):
        said, _ = self.run_inside("ls -A /root /home /var/lib /etc /dev 2>&1; ls /tmp; cat /etc/hosts", read_only=True)
        for name in ("shadow", "dpkg", "sda", "vda", "facemill"):
            self.assertNotIn(name, said)
        self.assertTrue(said.endswith("127.0.0.1 localhost\n"), said)


if __name__ == "__main__":
    unittest.main()
