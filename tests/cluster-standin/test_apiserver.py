"""Tests the stand-in of the API server with kubectl: the commands of docs/kubernetes.md that need no pods."""

import json
import os
import subprocess
import tempfile
import time
import unittest
from pathlib import Path

from standin import patches
from standin.apiserver import Api, Server, Store
from standin.controllers import Controllers, condition
from manifests import PACKAGES, ROOT

SCHEMAS = patches.Schemas()


class Kubectl:
    """A server without nodes, and kubectl for it. All pods stay pending."""

    def __init__(self, keda=False, kubelet=None):
        self.store = Store()
        self.controllers = Controllers(self.store, patience=0.1)
        self.server = Server(Api(self.store, keda, kubelet))
        self.folder = tempfile.TemporaryDirectory()
        folder = Path(self.folder.name)
        self.server.kubeconfig(folder / "kubeconfig")
        self.environment = {"KUBECONFIG": str(folder / "kubeconfig"), "KUBECACHEDIR": str(folder / "cache"),
                            "HOME": str(folder), "PATH": f"{PACKAGES / 'bin'}:{os.environ['PATH']}"}

    def run(self, line, stdin=None):
        """Returns the exit code and the output."""
        done = subprocess.run(["kubectl", *line.split()], env=self.environment, cwd=ROOT, input=stdin, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60, check=False)
        return done.returncode, done.stdout

    def __call__(self, line, stdin=None):
        code, output = self.run(line, stdin)
        assert code == 0, f"kubectl {line}: exit {code}: {output}"
        return output

    def get(self, line):
        return json.loads(self(f"-n facemill get {line} -o json"))

    def close(self):
        self.server.close()
        self.controllers.stop()
        self.folder.cleanup()


def finish(store, job):
    """Sets the status of a Job to complete."""
    done = {"finishedAt": time.time(), "conditions": [condition("Complete", True, "Completed")]}
    store.update(store.get("jobs", "facemill", job), lambda item: item | {"status": done})


class WithKubectl(unittest.TestCase):
    keda, kubelet = False, None

    def setUp(self):
        self.kubectl = Kubectl(self.keda, self.kubelet)
        self.addCleanup(self.kubectl.close)

    def until(self, line, wanted):
        """Polls until the condition holds. Controllers act with a delay, and kubectl cannot wait for this."""
        for _ in range(200):
            if wanted(self.kubectl.get(line)):
                return
        self.fail(f"{line}: {self.kubectl.get(line)}")


class DevOverlay(WithKubectl):
    def test_second_apply_changes_nothing(self):
        first = self.kubectl("apply -k k8s/overlays/dev").splitlines()
        self.assertEqual(first[0], "namespace/facemill created")
        self.assertTrue(all(line.endswith(" created") for line in first), first)
        second = self.kubectl("apply -k k8s/overlays/dev").splitlines()
        # kubectl sends the selector of a disruption budget each time.
        changed = [line for line in second if not line.endswith(" unchanged") and "disruptionbudget" not in line]
        self.assertEqual((len(second), changed), (len(first), []))

    def test_apply_changes_settings_and_keeps_replicas(self):
        self.kubectl("apply -k k8s/overlays/dev")
        self.kubectl("-n facemill scale deployment/detect --replicas=3")
        before = self.kubectl.get("deployment/detect")
        # No kubelet runs the Job. The deletion of the completed Job frees its name.
        self.kubectl("-n facemill patch job bucket -p {\"spec\":{\"ttlSecondsAfterFinished\":0}}")
        finish(self.kubectl.store, "bucket")
        self.until("jobs", lambda found: not found["items"])
        self.kubectl("apply -k tests/cluster-standin/overlays/stand-in")
        after = self.kubectl.get("deployment/detect")
        settings = lambda item: item["spec"]["template"]["spec"]["containers"][0]["envFrom"][0]["configMapRef"]["name"]
        self.assertNotEqual(settings(before), settings(after))
        self.assertEqual(after["spec"]["replicas"], 3, "apply keeps the number of replicas")

    def test_image_update_and_rollback(self):
        self.kubectl("apply -k k8s/overlays/dev")
        image = lambda item: item["spec"]["template"]["spec"]["containers"][0]["image"]
        old = image(self.kubectl.get("deployment/detect"))
        self.until("replicasets", lambda found: len(found["items"]) == 5)
        self.kubectl("-n facemill set image deployment -l role=worker facemill=registry.example.com/facemill:0.1.1")
        self.assertEqual(image(self.kubectl.get("deployment/detect")), "registry.example.com/facemill:0.1.1")
        self.assertEqual(image(self.kubectl.get("deployment/jaeger")), "jaegertracing/jaeger:2.10.0")
        self.until("replicasets", lambda found: len(found["items"]) == 9)
        self.kubectl("-n facemill rollout undo deployment/detect")
        self.assertEqual(image(self.kubectl.get("deployment/detect")), old)
        self.kubectl("-n facemill rollout restart deployment -l role=worker")
        annotations = self.kubectl.get("deployment/crop")["spec"]["template"]["metadata"]["annotations"]
        self.assertEqual(annotations.keys() - {"kubectl.kubernetes.io/restartedAt"},
                         {"prometheus.io/scrape", "prometheus.io/port", "prometheus.io/path"})

    def test_jobs_from_the_cron_job_are_kept_up_to_the_limit(self):
        self.kubectl("apply -k k8s/overlays/dev")
        for number in range(5):
            self.kubectl(f"-n facemill create job doctor-{number} --from=cronjob/facemill")
            finish(self.kubectl.store, f"doctor-{number}")
        kept = lambda: self.kubectl.get("jobs -l app.kubernetes.io/component=job")["items"]
        self.kubectl.controllers.cron_jobs()
        self.assertEqual(len(kept()), 5, "the default limit keeps finished Jobs")
        self.assertEqual(kept()[0]["spec"]["template"]["spec"]["containers"][0]["args"], ["doctor"])
        for limit, left in ((6, 5), (3, 3)):
            patch = json.dumps({"spec": {"successfulJobsHistoryLimit": limit}}, separators=(",", ":"))
            self.kubectl(f"-n facemill patch cronjob facemill -p {patch}")
            self.kubectl.controllers.cron_jobs()
            self.assertEqual(len(kept()), left)

    def test_delete_removes_all_objects(self):
        self.kubectl("apply -k k8s/overlays/dev")
        self.kubectl("delete -k k8s/overlays/dev --ignore-not-found")
        self.assertEqual([key for key in self.kubectl.store.objects if key[0] != "nodes"], [])

    def test_unknown_and_immutable_fields_are_errors(self):
        self.kubectl("apply -f k8s/base/namespace.yaml")
        policy = (ROOT / "k8s/base/network.yaml").read_text(encoding="utf-8")
        code, output = self.kubectl.run("-n facemill apply -f -", policy.replace("policyTypes", "policyType"))
        self.assertEqual(code, 1, output)
        self.assertIn("policyType", output)
        self.kubectl("apply -k k8s/overlays/dev")
        label = {"metadata": {"labels": {"app.kubernetes.io/component": "other"}}}
        patch = json.dumps({"spec": {"selector": {"matchLabels": label["metadata"]["labels"]}, "template": label}})
        code, output = self.kubectl.run(f"-n facemill patch deployment detect -p {patch.replace(' ', '')}")
        self.assertEqual(code, 1, output)
        self.assertIn("field is immutable", output)


class ProductionOverlay(WithKubectl):
    keda = True

    def test_apply_after_namespace_and_secret(self):
        self.kubectl("apply -f k8s/base/namespace.yaml")
        self.kubectl("--namespace facemill create -f k8s/overlays/production/secret.example.yaml")
        code, output = self.kubectl.run("diff -k k8s/overlays/production")
        self.assertEqual(code, 1, "diff finds a difference")
        self.assertIn("+kind: ScaledObject", output)
        self.kubectl("apply -k k8s/overlays/production")
        code, output = self.kubectl.run("diff -k k8s/overlays/production")
        self.assertEqual((code, output), (0, ""))
        self.kubectl("-n facemill annotate scaledobject/detect autoscaling.keda.sh/paused-replicas=0")
        paused = self.kubectl.get("scaledobject/detect")["metadata"]["annotations"]
        self.assertEqual(paused["autoscaling.keda.sh/paused-replicas"], "0")
        self.kubectl("-n facemill annotate scaledobject/detect autoscaling.keda.sh/paused-replicas-")
        resumed = self.kubectl.get("scaledobject/detect")["metadata"]["annotations"]
        self.assertNotIn("autoscaling.keda.sh/paused-replicas", resumed)
        self.kubectl("delete -k k8s/overlays/production --ignore-not-found")


class WithoutKeda(WithKubectl):
    def test_production_overlay_fails_without_the_keda_kinds(self):
        code, output = self.kubectl.run("apply -k k8s/overlays/production")
        self.assertEqual(code, 1, output)
        self.assertIn('no matches for kind "ScaledObject"', output)


class Patches(unittest.TestCase):
    def test_merge_patch_removes_null_fields(self):
        merged = patches.merge({"a": 1, "b": {"c": 2, "d": 3}, "e": [1]}, {"a": None, "b": {"c": None}, "e": [2]})
        self.assertEqual(merged, {"b": {"d": 3}, "e": [2]})
        self.assertEqual(patches.merge({"a": "text"}, {"a": {"b": None, "c": 1}}), {"a": {"c": 1}})

    def test_strategic_patch_matches_list_items_by_name(self):
        def patched(current, patch):
            wrap = lambda spec: {"spec": {"template": {"spec": spec}}}
            done = patches.strategic(wrap(current), wrap(patch), SCHEMAS.of("apps/v1", "Deployment"), SCHEMAS)
            return done["spec"]["template"]["spec"]

        two = {"containers": [{"name": "a", "args": ["1", "2"], "env": [{"name": "X", "value": "1"}]}, {"name": "b"}]}
        more = {"containers": [{"name": "a", "args": ["3"], "env": [{"name": "Y", "value": "2"}]}]}
        env = [{"name": "X", "value": "1"}, {"name": "Y", "value": "2"}]
        self.assertEqual(patched(two, more)["containers"], [{"name": "a", "args": ["3"], "env": env}, {"name": "b"}])
        fewer = patched(two, {"containers": [{"name": "a", "$patch": "delete"}]})
        self.assertEqual(fewer, {"containers": [{"name": "b"}]})
        order = [{"name": "b"}, {"name": "a"}]
        ordered = patched(two, {"$setElementOrder/containers": order, "containers": [{"name": "b", "image": "i"}]})
        self.assertEqual([container["name"] for container in ordered["containers"]], ["b", "a"])
        volume = {"volumes": [{"name": "v", "emptyDir": {}}]}
        other = {"volumes": [{"$retainKeys": ["name", "secret"], "name": "v", "secret": {"secretName": "s"}}]}
        self.assertEqual(patched(volume, other), {"volumes": [{"name": "v", "secret": {"secretName": "s"}}]})

    def test_selectors(self):
        holds = patches.label_selector("a=b,c!=d,e in (f, g),h,!i")
        self.assertTrue(holds({"a": "b", "e": "g", "h": ""}))
        for wrong in ({"a": "c"}, {"c": "d"}, {"e": "h"}, {"i": ""}):
            self.assertFalse(holds({"a": "b", "e": "g", "h": ""} | wrong), wrong)
        self.assertTrue(patches.label_selector("")({}))
        holds = patches.field_selector("metadata.name=x,spec.nodeName!=n")
        self.assertTrue(holds({"metadata": {"name": "x"}}))
        self.assertFalse(holds({"metadata": {"name": "x"}, "spec": {"nodeName": "n"}}))


if __name__ == "__main__":
    unittest.main()
