"""Tests that protobuf from kubectl decodes to the same object as its JSON, or is an error."""

import json
import unittest
import unittest.mock
from pathlib import Path

from standin import protobuf
from manifests import yaml
from test_apiserver import WithKubectl

EVERYTHING = Path(__file__).parent / "everything.yaml"


class JobFromCronJob(WithKubectl):
    """`kubectl create job` sends protobuf, and prints the same Job as JSON with --dry-run=client."""

    def setUp(self):
        super().setUp()
        self.kubectl("apply -k k8s/overlays/dev")

    def of(self, form):
        """Returns the Job from the protobuf request and the Job from the JSON output."""
        line = f"--namespace facemill create job one --from=cronjob/{form} --dry-run"
        with unittest.mock.patch.object(protobuf, "read", wraps=protobuf.read) as read:
            self.kubectl(f"{line}=server")
        self.assertEqual(read.call_count, 1, "the request is not protobuf")
        return protobuf.read(read.call_args.args[0]), json.loads(self.kubectl(f"{line}=client --output json"))

    def test_own_job_is_the_same(self):
        sent, shown = self.of("facemill")
        self.assertEqual(sent, shown)
        self.assertEqual(sent["spec"]["template"]["spec"]["containers"][0]["args"], ["doctor"])

    def test_job_with_all_supported_fields_is_the_same(self):
        self.kubectl(f"--namespace facemill create --filename {EVERYTHING}")
        sent, shown = self.of("everything")
        self.assertEqual(sent, shown)
        form = yaml.safe_load(EVERYTHING.read_text(encoding="utf-8"))["spec"]["jobTemplate"]["spec"]
        for container in form["template"]["spec"]["containers"] + form["template"]["spec"]["initContainers"]:
            container.setdefault("resources", {})
        self.assertEqual(sent["spec"], form)

    def test_unsupported_field_is_an_error(self):
        more = {"backoffLimitPerIndex": 0}
        patch = json.dumps({"spec": {"jobTemplate": {"spec": more}}}, separators=(",", ":"))
        self.kubectl(f"--namespace facemill patch cronjob facemill --patch {patch}")
        code, output = self.kubectl.run("--namespace facemill create job one --from=cronjob/facemill")
        self.assertEqual(code, 1)
        self.assertIn("JobSpec has a field 12, which the stand-in does not know", output)

    def test_other_kind_is_an_error(self):
        code, output = self.kubectl.run("--namespace facemill create configmap one --from-literal=a=b")
        self.assertEqual(code, 1)
        self.assertIn("not of a ConfigMap", output)


class InvalidInput(unittest.TestCase):
    def test_is_an_error(self):
        envelope = lambda job: b"k8s\0\x0a\x05\x12\x03Job\x12" + bytes([len(job)]) + job
        self.assertEqual(protobuf.read(envelope(b"\x0a\x03\x0a\x01n")), {"kind": "Job", "metadata": {"name": "n"}})
        for job, fault in (
            (b"\x0a\x03\x0a\x01", "Job ends within its field 1"),
            (b"\x0a\x03\x0a\x02n", "ObjectMeta ends within its field 1"),
            (b"\x0a\x02\x08\x01", "ObjectMeta.name is written in another way"),
            (b"\x0a\x01\x8a", "ObjectMeta ends within a number"),
            (b"\x0a" + b"\x80" * 11, "Job ends within a number"),
            (b"\x0a\x05\x0d0000", "ObjectMeta's field 1 is written in a way that is not known here, 5"),
            (b"\x0a\x03\x0a\x01\xff", "can't decode"),
        ):
            with self.assertRaisesRegex(ValueError, fault):
                protobuf.read(envelope(job))
        for body in (b"", b"{}", b"k8s\0", b"k8s\0\x0a\x05\x12\x03Job"):
            with self.assertRaises(ValueError):
                protobuf.read(body)


if __name__ == "__main__":
    unittest.main()
