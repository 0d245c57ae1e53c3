"""The manifests have no fault, and each check finds the faults that it is meant to find."""

import copy
import unittest
from pathlib import Path

import manifests
from manifests import ROOT, Cluster, Program, faults, template_of

PROGRAM = Program(manifests.built_program())
SECRET = manifests.load((ROOT / "k8s/overlays/production/secret.example.yaml").read_text(encoding="utf-8"))


RENDERED = {
    "dev": manifests.render(ROOT / "k8s/overlays/dev"),
    "dev with keda": manifests.combined("dev", "keda"),
    "dev with hpa": manifests.combined("dev", "hpa"),
    "dev with keda and curate": manifests.combined("dev", "keda", "curate"),
    "production": manifests.render(ROOT / "k8s/overlays/production"),
    "production with curate": manifests.combined("production", "curate"),
}


def secrets_of(name):
    return SECRET if name.startswith("production") else []


class Manifests(unittest.TestCase):
    maxDiff = None

    def test_have_no_fault(self):
        for name, items in RENDERED.items():
            with self.subTest(name):
                self.assertEqual(faults(Cluster(items, PROGRAM, secrets_of(name))), [])

    def test_base_renders_by_itself(self):
        kinds = [item["kind"] for item in manifests.render(ROOT / "k8s/base")]
        self.assertEqual(kinds.count("Deployment"), len(PROGRAM.stage_queues))

    def test_every_stage_has_a_deployment_and_an_autoscaler(self):
        for name in ("dev with keda", "production"):
            cluster = Cluster(RENDERED[name], PROGRAM)
            for stage in PROGRAM.stage_queues:
                self.assertIsNotNone(cluster.find("Deployment", stage), stage)
                self.assertIsNotNone(cluster.find("ScaledObject", stage), stage)

    def test_the_example_of_an_ingress_fits(self):
        example = manifests.load((ROOT / "k8s/components/curate/ingress.example.yaml").read_text(encoding="utf-8"))
        cluster = Cluster(RENDERED["dev with keda and curate"] + example, PROGRAM)
        self.assertEqual(faults(cluster), [])
        for path in (path for rule in example[0]["spec"]["rules"] for path in rule["http"]["paths"]):
            service = cluster.find("Service", path["backend"]["service"]["name"])["spec"]
            self.assertIn(path["backend"]["service"]["port"]["name"], [port["name"] for port in service["ports"]])

    def test_the_kustomization_of_the_manual_names_the_run_of_the_page(self):
        manual = (ROOT / "docs/curation-access.md").read_text(encoding="utf-8")
        block = next(block for block in manual.split("```yaml\n")[1:] if "components/curate" in block)
        items = manifests.render_text("namespace: facemill\n" + block.partition("```")[0])
        settings = [item for item in items if item["metadata"]["name"].startswith("curate-settings-")]
        self.assertEqual([item["data"]["FACEMILL_RUN"] for item in settings], ["faces"])
        self.assertEqual(faults(Cluster(items, PROGRAM)), [])

    def test_production_has_no_secret(self):
        self.assertEqual([i for i in RENDERED["production"] if i["kind"] == "Secret"], [])


def container(cluster, name="detect"):
    return template_of(cluster.find("Deployment", name))["spec"]["containers"][0]


def pod(cluster, name="detect"):
    return template_of(cluster.find("Deployment", name))["spec"]


def policy(cluster, name):
    return cluster.find("NetworkPolicy", name)["spec"]


def trigger(cluster, number=0):
    return cluster.find("ScaledObject", "detect")["spec"]["triggers"][number]


def settings(cluster):
    return next(i for i in cluster.of("ConfigMap") if i["metadata"]["name"].startswith("facemill-settings"))["data"]


def without_env(cluster, name):
    env = container(cluster)["env"]
    env[:] = [variable for variable in env if variable["name"] != name]


# A defect, how to cause it, and a part of the message.
MUTANTS = [
    ("a misspelt field", lambda c: pod(c).update(terminationGracePeriodSecond=1), "schemas: Deployment/detect"),
    ("a wrong type", lambda c: pod(c).update(terminationGracePeriodSeconds="140"), "schemas: Deployment/detect"),
    ("an unknown kind", lambda c: c.items[1].update(kind="Deployement"), "Couldn't find schema"),
    ("an old API", lambda c: c.find("PodDisruptionBudget", "crop").update(apiVersion="policy/v1beta1"), "schemas: "),
    ("KEDA: a misspelt field", lambda c: c.find("ScaledObject", "crop")["spec"].update(coolDownPeriod=3), "coolDownPeriod"),
    ("KEDA: a misspelt key", lambda c: trigger(c)["metadata"].update(queueLength="5"), "queueLength"),
    ("KEDA: a number instead of a text", lambda c: trigger(c)["metadata"].update(value=2000), "2000 is not of type"),
    ("KEDA: another kind", lambda c: c.find("ScaledObject", "crop").update(kind="ScaledJob"), "KEDA has no such kind"),
    ("KEDA: another queue", lambda c: trigger(c)["metadata"].update(queueName="facemill.crop"), "queries the queue"),
    ("KEDA: not all queues", lambda c: c.find("ScaledObject", "classify")["spec"]["triggers"].pop(1), "does not query the queue facemill.rescore"),
    ("KEDA: ready messages only", lambda c: trigger(c)["metadata"].update(protocol="amqp"), "messages in flight"),
    ("KEDA: another virtual host", lambda c: trigger(c)["metadata"].update(vhostName="/"), "virtual host"),
    ("KEDA: the address of AMQP", lambda c: c.find("TriggerAuthentication", "rabbitmq")["spec"]["secretTargetRef"][0].update(
        key="amqp-url"), "not the address of RabbitMQ's management API"),
    ("KEDA: a name without namespace", lambda c: c.find("Secret", "facemill-servers").update(
        stringData={"amqp-management": "http://u:p@rabbitmq:15672/"}), "the name rabbitmq does not resolve"),
    ("KEDA: short cool-down", lambda c: c.find("ScaledObject", "crop")["spec"].update(cooldownPeriod=60), "cooldownPeriod"),
    ("KEDA: never zero", lambda c: c.find("ScaledObject", "crop")["spec"].update(minReplicaCount=1), "to zero"),
    ("KEDA: length only", lambda c: c.find("ScaledObject", "detect")["spec"]["triggers"].pop(), "both length and"),
    ("KEDA: a stage without autoscaler", lambda c: c.items.remove(c.find("ScaledObject", "crop")), "this one has not"),
    ("two autoscalers", lambda c: c.items.append(
        {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
         "metadata": {"name": "detect", "namespace": "facemill"},
         "spec": {"maxReplicas": 2, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "detect"}}}
    ), "2 autoscalers"),
    ("replicas", lambda c: c.find("Deployment", "detect")["spec"].update(replicas=2), "sets replicas"),
    ("another namespace", lambda c: c.find("Deployment", "detect")["metadata"].update(namespace="default"), "not in the namespace"),
    ("a namespace without profile", lambda c: c.find("Namespace", "facemill")["metadata"].update(labels={}), "restricted profile"),
    ("rights", lambda c: c.items.append(
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "r", "namespace": "facemill"}}
    ), "may have rights"),
    ("root", lambda c: pod(c)["securityContext"].update(runAsNonRoot=False), "may run as root"),
    ("user 0", lambda c: container(c)["securityContext"].update(runAsUser=0), "may run as root"),
    ("no seccomp", lambda c: pod(c)["securityContext"].pop("seccompProfile"), "seccomp"),
    ("privileges", lambda c: container(c)["securityContext"].pop("allowPrivilegeEscalation"), "gain privileges"),
    ("capabilities", lambda c: container(c)["securityContext"]["capabilities"].update(add=["NET_RAW"]), "capabilities"),
    ("a writable root", lambda c: container(c)["securityContext"].pop("readOnlyRootFilesystem"), "root file system"),
    ("a host path", lambda c: pod(c)["volumes"].append({"name": "h", "hostPath": {"path": "/"}}), "hostPath"),
    ("the host's network", lambda c: pod(c).update(hostNetwork=True), "hostNetwork"),
    ("a token", lambda c: pod(c).pop("automountServiceAccountToken"), "token"),
    ("no tag", lambda c: container(c).update(image="facemill"), "no fixed version"),
    ("latest", lambda c: container(c).update(image="registry.example.com:5000/facemill:latest"), "no fixed version"),
    ("another version", lambda c: container(c).update(image="facemill:0.0.9"), "is not version"),
    ("no limit", lambda c: container(c)["resources"]["limits"].pop("memory"), "no limit for memory"),
    ("more than the limit", lambda c: container(c)["resources"]["requests"].update(memory="9Gi"), "requests more memory"),
    ("no probe", lambda c: container(c).pop("readinessProbe"), "no readinessProbe"),
    ("a probe of another port", lambda c: container(c)["livenessProbe"]["httpGet"].update(port="web"), "port web"),
    ("a probe of an unknown path", lambda c: container(c)["livenessProbe"]["httpGet"].update(path="/health"), "/health"),
    ("another port", lambda c: settings(c).update(FACEMILL_LISTEN="0.0.0.0:9000"), "not one of its ports"),
    ("a selector without pods", lambda c: template_of(c.find("Deployment", "detect"))["metadata"]["labels"].update(
        {"app.kubernetes.io/component": "detector"}), "does not select its own pods"),
    ("a selector too wide", lambda c: c.find("Deployment", "detect")["spec"]["selector"].update(
        matchLabels={"role": "worker"}), "selects pods of"),
    ("a budget without pods", lambda c: c.find("PodDisruptionBudget", "crop")["spec"]["selector"]["matchLabels"].update(
        {"app.kubernetes.io/component": "cut"}), "selects no pods"),
    ("no budget", lambda c: c.items.remove(c.find("PodDisruptionBudget", "crop")), "0 disruption budgets"),
    ("a service without pods", lambda c: c.find("Service", "redis")["spec"].update(selector={"a": "b"}), "selects no pods"),
    ("a service without port", lambda c: c.find("Service", "redis")["spec"]["ports"][0].update(targetPort="r"), "no port r"),
    ("no account", lambda c: c.items.remove(c.find("ServiceAccount", "facemill-worker")), "no ServiceAccount"),
    ("no secret", lambda c: c.items.remove(c.find("Secret", "facemill-servers")), "has no key amqp-url"),
    ("no settings", lambda c: [c.items.remove(i) for i in c.of("ConfigMap")], "there is no ConfigMap"),
    ("no volume", lambda c: pod(c).update(volumes=[]), "no volume tmp"),
    ("an unknown variable", lambda c: settings(c).update(FACEMILL_GRACES="1"), "does not know FACEMILL_GRACES"),
    ("no broker", lambda c: without_env(c, "FACEMILL_AMQP_URL"), "FACEMILL_AMQP_URL"),
    ("no ledger", lambda c: without_env(c, "FACEMILL_REDIS_URL"), "FACEMILL_REDIS_URL is not set"),
    ("no bucket", lambda c: settings(c).pop("FACEMILL_S3_BUCKET"), "FACEMILL_S3_BUCKET"),
    ("no key", lambda c: without_env(c, "AWS_SECRET_ACCESS_KEY"), "AWS_SECRET_ACCESS_KEY"),
    ("an invalid value", lambda c: settings(c).update(FACEMILL_GRACE="two minutes"), "environment: "),
    ("an invalid address", lambda c: c.find("Secret", "facemill-servers").update(
        stringData={"amqp-url": "rabbitmq:5672"}), "--amqp"),
    ("an unknown argument", lambda c: container(c)["args"].append("--colour"), "--colour"),
    ("an unknown stage", lambda c: container(c).update(args=["work", "detekt"]), "detekt"),
    ("a short grace", lambda c: settings(c).update(FACEMILL_GRACE="45"), "a stage may take"),
    ("a short termination", lambda c: pod(c).update(terminationGracePeriodSeconds=120), "is shorter than"),
    ("no preStop", lambda c: container(c).pop("lifecycle"), "no preStop"),
    ("an update with a gap", lambda c: c.find("Deployment", "detect")["spec"]["strategy"]["rollingUpdate"].update(
        maxUnavailable=1), "stops workers"),
    ("not blocked by default", lambda c: c.items.remove(c.find("NetworkPolicy", "nothing")), "blocks everything"),
    ("fetch reaches private networks", lambda c: policy(c, "internet")["egress"][0]["to"][0]["ipBlock"]["except"].remove("10.0.0.0/8"),
     "to reach 10.0.0.0/8"),
    ("detect reaches the internet", lambda c: policy(c, "internet").update(podSelector={"matchLabels": {"role": "worker"}}),
     "allows Deployment/detect to reach the internet"),
    ("fetch without internet", lambda c: c.items.remove(c.find("NetworkPolicy", "internet")), "cannot reach the internet"),
    ("an exception outside its block", lambda c: policy(c, "internet")["egress"][0]["to"][0]["ipBlock"]["except"].append("::/8"),
     "is not in"),
    ("two pages", lambda c: c.find("Deployment", "curate")["spec"].update(replicas=2), "is not one pod"),
    ("a page with a volume", lambda c: pod(c, "curate")["volumes"].append(
        {"name": "v", "persistentVolumeClaim": {"claimName": "v"}}), "needs the volume v"),
    ("a page on another port", lambda c: container(c, "curate")["ports"][0].update(containerPort=80), "on its port http"),
    ("a page that everybody reaches", lambda c: policy(c, "curate")["ingress"][0].pop("from"), "more than an Ingress"),
    ("a page that ends at once", lambda c: pod(c, "curate").update(terminationGracePeriodSeconds=30), "termination is"),
    ("any address", lambda c: policy(c, "servers")["egress"].append({"ports": [{"port": 1}]}), "to reach every address"),
    ("a blocked server", lambda c: policy(c, "servers")["egress"][0]["ports"].pop(2), "FACEMILL_REDIS_URL is on port"),
]


def found_in(cluster):
    """Faults by check. A check may fail because of a defect that another check finds."""
    found = {}
    for check in manifests.CHECKS:
        try:
            found[check.__name__] = [f"{check.__name__}: {fault}" for fault in check(cluster)]
        except (KeyError, TypeError, IndexError, ValueError):
            pass
    return found


class Checks(unittest.TestCase):
    def test_every_defect_is_found_and_every_check_finds_one(self):
        useful = set()
        for name, break_it, message in MUTANTS:
            with self.subTest(name):
                cluster = Cluster(copy.deepcopy(RENDERED["dev with keda and curate"]), PROGRAM)
                break_it(cluster)
                found = found_in(cluster)
                checks = {check for check, faults in found.items() if any(message in fault for fault in faults)}
                self.assertTrue(checks, found)
                useful |= checks
        self.assertEqual({check.__name__ for check in manifests.CHECKS} - useful, set(), "these checks found nothing")


if __name__ == "__main__":
    unittest.main()
