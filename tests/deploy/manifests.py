"""Checks of rendered Kubernetes manifests: schemas, policies, and the variables and queues of the program.

Every check takes a `Cluster` and yields faults, one line each.
"""

import functools
import ipaddress
import json
import os
import re
import subprocess
import sys
import tempfile
import urllib.parse
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ROOT / ".cache" / "python"
sys.path.insert(0, str(PACKAGES))

import jsonschema  # noqa: E402
import kubernetes_validate  # noqa: E402
import kubernetes_validate.utils  # noqa: E402
import yaml  # noqa: E402

# The versions that docs/kubernetes.md names.
VERSIONS = [f"1.{minor}" for minor in range(29, 38)]
KEDA = json.loads((Path(__file__).parent / "keda.schema.json").read_text(encoding="utf-8"))
PROGRAM_IMAGE = re.compile(r"(^|/)facemill(:|@|$)")
WORKLOADS = ("Deployment", "StatefulSet", "Job", "CronJob")
# Seconds between the grace period of the program and SIGKILL, in which it returns the rest.
MARGIN = 10

# The package would read its schemas, a megabyte each, again for every object.
kubernetes_validate.utils.schema_contents = functools.lru_cache(None)(kubernetes_validate.utils.schema_contents)


def render(folder):
    """Renders a kustomization."""
    command = [PACKAGES / "bin" / "kubectl", "kustomize", folder]
    rendered = subprocess.run(command, capture_output=True, text=True, check=False)
    if rendered.returncode:
        raise ValueError(f"{folder}: {rendered.stderr.strip()}")
    return [item for item in yaml.safe_load_all(rendered.stdout) if item]


def combined(overlay, *components):
    """An overlay with more components."""
    paths = ", ".join(f"../../components/{component}" for component in components)
    return render_text(f"resources: [../{overlay}]\nnamespace: facemill\ncomponents: [{paths}]\n")


def render_text(kustomization):
    """Renders the text of a kustomization whose paths start in a folder beside the overlays."""
    (ROOT / ".cache").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=ROOT / ".cache") as folder:
        text = kustomization.replace("../../components/", "../../k8s/components/")
        text = re.sub(r"\[\.\./(\w+)\]", r"[../../k8s/overlays/\1]", text)
        (Path(folder) / "kustomization.yaml").write_text(text, encoding="utf-8")
        return render(folder)


class Program:
    """The built program and what its command `describe` prints."""

    def __init__(self, binary):
        self.binary = Path(binary)
        described = json.loads(subprocess.run([self.binary, "describe"], capture_output=True, check=True).stdout)
        self.variables = {command: set(names) for command, names in described["environment"].items()}
        self.stage_queues = described["stage_queues"]
        # The queues from which the workers of each stage take.
        self.worker_queues = {stage: {queue} for stage, queue in self.stage_queues.items()}
        self.worker_queues["classify"].add(described["rescore_queue"])
        self.time_limit = described["stage_time_limit_seconds"]
        self.version = described["version"]

    @functools.lru_cache(None)
    def start(self, arguments, environment):
        """The exit code and the error output of the program with these arguments and variables."""
        ended = subprocess.run(
            [self.binary, *arguments], env=dict(environment), capture_output=True, text=True, timeout=60, check=False
        )
        return ended.returncode, ended.stderr


class Cluster:
    """Rendered manifests with look-ups."""

    def __init__(self, items, program, secrets=()):
        self.items = items
        self.program = program
        # Secrets that are created separately.
        self.secrets = list(secrets)

    def of(self, *kinds):
        return [item for item in self.items if item["kind"] in kinds]

    def find(self, kind, name):
        known = self.items + self.secrets if kind == "Secret" else self.items
        return next((i for i in known if i["kind"] == kind and i["metadata"]["name"] == name), None)

    def pods(self):
        """Yields each workload with the spec and the labels of its pods."""
        for item in self.of(*WORKLOADS):
            template = template_of(item)
            yield item, template["spec"], template.get("metadata", {}).get("labels", {})

    def containers(self):
        for item, spec, _ in self.pods():
            for container in spec.get("initContainers", []) + spec["containers"]:
                yield item, spec, container

    def programs(self):
        """The containers that run the program."""
        return [found for found in self.containers() if PROGRAM_IMAGE.search(found[2]["image"])]

    def data(self, kind, name):
        item = self.find(kind, name) or {}
        if kind == "Secret":
            import base64

            plain = {key: base64.b64decode(value).decode() for key, value in (item.get("data") or {}).items()}
            return plain | (item.get("stringData") or {})
        return item.get("data") or {}

    def environment(self, container, fields=None):
        """The variables of a container with their values. A field of the pod that is not in `fields` has the value `?`."""
        found = {}
        for source in container.get("envFrom", []):
            if "configMapRef" in source:
                found |= self.data("ConfigMap", source["configMapRef"]["name"])
            if "secretRef" in source:
                found |= self.data("Secret", source["secretRef"]["name"])
        for variable in container.get("env", []):
            source = variable.get("valueFrom", {})
            value = variable.get("value", "?")
            if "fieldRef" in source:
                value = (fields or {}).get(source["fieldRef"]["fieldPath"], "?")
            for kind, key in (("Secret", "secretKeyRef"), ("ConfigMap", "configMapKeyRef")):
                if key in source:
                    value = self.data(kind, source[key]["name"]).get(source[key]["key"], "")
            found[variable["name"]] = re.sub(r"\$\((\w+)\)", lambda match: found.get(match[1], match[0]), value)
        return found


def template_of(item):
    spec = item["spec"]
    return spec["jobTemplate"]["spec"]["template"] if item["kind"] == "CronJob" else spec["template"]


def name_of(item):
    return f"{item['kind']}/{item['metadata']['name']}"


def is_worker(item):
    return template_of(item)["metadata"]["labels"].get("role") == "worker"


def matches(selector, labels):
    for key, value in (selector.get("matchLabels") or {}).items():
        if labels.get(key) != value:
            return False
    for term in selector.get("matchExpressions") or []:
        has, values = term["key"] in labels, term.get("values", [])
        holds = {
            "In": has and labels.get(term["key"]) in values,
            "NotIn": labels.get(term["key"]) not in values,
            "Exists": has,
            "DoesNotExist": not has,
        }[term["operator"]]
        if not holds:
            return False
    return True


def schemas(cluster):
    """Each object is valid for all supported versions of Kubernetes, or for KEDA."""
    for item in cluster.items:
        yield from schema_faults(json.dumps(item))


# Validation takes most of the time of a check, and the tests check the same objects again and again.
@functools.lru_cache(None)
def schema_faults(text):
    """The faults of one object, given as JSON."""
    item = json.loads(text)
    if item["apiVersion"].startswith("keda.sh/"):
        if item["kind"] not in KEDA["$defs"]:
            return [f"{name_of(item)}: KEDA has no such kind"]
        schema = {**KEDA, "$ref": f"#/$defs/{item['kind']}"}
        errors = jsonschema.Draft202012Validator(schema).iter_errors(item)
        return [f"{name_of(item)}: {error.json_path}: {error.message}" for error in errors]
    for version in VERSIONS:
        try:
            kubernetes_validate.validate(item, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            return [f"{name_of(item)}: {'.'.join(map(str, error.path))}: {error.message} (Kubernetes {version})"]
        except kubernetes_validate.utils.SchemaNotFoundError as error:
            return [f"{name_of(item)}: {error.message}"]
    return []


def namespaces(cluster):
    """All objects are in one namespace, which enforces the restricted profile."""
    for item in cluster.items:
        if item["kind"] == "Namespace":
            if item["metadata"].get("labels", {}).get("pod-security.kubernetes.io/enforce") != "restricted":
                yield f"{name_of(item)}: does not enforce the restricted profile"
        elif item["metadata"].get("namespace") != "facemill":
            yield f"{name_of(item)}: is not in the namespace facemill"
        if item["kind"] in ("Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding"):
            yield f"{name_of(item)}: no object may have rights in the cluster"


ALLOWED_VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}


def restricted(cluster):
    """The restricted profile of the Pod Security Standards; also a read-only root, no token and no service links."""
    for item, spec, _ in cluster.pods():
        name, pod = name_of(item), spec.get("securityContext", {})
        for key in ("hostNetwork", "hostPID", "hostIPC"):
            if spec.get(key):
                yield f"{name}: {key}"
        for volume in spec.get("volumes", []):
            if unknown := set(volume) - {"name"} - ALLOWED_VOLUMES:
                yield f"{name}: volume {volume['name']} has the type {', '.join(unknown)}"
            if "emptyDir" in volume and not (volume["emptyDir"] or {}).get("sizeLimit"):
                yield f"{name}: volume {volume['name']} has no size limit"
        if spec.get("automountServiceAccountToken") is not False:
            yield f"{name}: mounts the token of its account"
        if spec.get("enableServiceLinks") is not False:
            yield f"{name}: gets the addresses of all services as environment variables"
        for container in spec.get("initContainers", []) + spec["containers"]:
            own = container.get("securityContext", {})
            both = {**pod, **own}
            where = f"{name}: container {container['name']}"
            if both.get("runAsNonRoot") is not True or not both.get("runAsUser"):
                yield f"{where} may run as root"
            if both.get("seccompProfile", {}).get("type") != "RuntimeDefault":
                yield f"{where} has no seccomp profile"
            if own.get("allowPrivilegeEscalation") is not False:
                yield f"{where} may gain privileges"
            if own.get("capabilities", {}).get("drop") != ["ALL"] or own["capabilities"].get("add"):
                yield f"{where} keeps capabilities"
            if own.get("privileged"):
                yield f"{where} is privileged"
            if own.get("readOnlyRootFilesystem") is not True:
                yield f"{where} may write to its root file system"
            if any("hostPort" in port for port in container.get("ports", [])):
                yield f"{where} uses a port of the node"


def images(cluster):
    """Each image has a fixed version; that of the program is the current one."""
    for item, _, container in cluster.containers():
        image = container["image"]
        tag = image.rsplit("/", 1)[-1].partition(":")[2]
        if "@sha256:" not in image and tag in ("", "latest"):
            yield f"{name_of(item)}: the image {image} has no fixed version"
        if PROGRAM_IMAGE.search(image) and tag != cluster.program.version:
            yield f"{name_of(item)}: the image {image} is not version {cluster.program.version}"


def quantity(text):
    number, unit = re.fullmatch(r"([0-9.]+)([A-Za-z]*)", str(text)).groups()
    return float(number) * {"": 1, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}[unit]


def resources(cluster):
    for item, _, container in cluster.containers():
        given = container.get("resources", {})
        for what in ("cpu", "memory", "ephemeral-storage"):
            request, limit = (given.get(side, {}).get(what) for side in ("requests", "limits"))
            where = f"{name_of(item)}: container {container['name']}"
            if request is None or limit is None:
                yield f"{where} has no request or no limit for {what}"
            elif quantity(request) > quantity(limit):
                yield f"{where} requests more {what} than its limit"


def probes(cluster):
    for item, spec, container in cluster.containers():
        if item["kind"] not in ("Deployment", "StatefulSet"):
            continue
        where = f"{name_of(item)}: container {container['name']}"
        ports = {port.get("name") for port in container.get("ports", [])}
        for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
            probe = container.get(kind)
            if probe is None:
                yield f"{where} has no {kind}"
                continue
            port = (probe.get("httpGet") or probe.get("tcpSocket") or {}).get("port")
            if port is not None and port not in ports:
                yield f"{where}: {kind} uses the port {port}, which the container does not have"
            path = probe.get("httpGet", {}).get("path")
            if PROGRAM_IMAGE.search(container["image"]) and path not in ("/healthz", "/readyz"):
                yield f"{where}: {kind} uses the path {path}"
        if PROGRAM_IMAGE.search(container["image"]):
            listen = cluster.environment(container).get("FACEMILL_LISTEN", "")
            if not any(listen.endswith(f":{port['containerPort']}") for port in container.get("ports", [])):
                yield f"{where} listens on {listen or 'nothing'}, which is not one of its ports"


def selectors(cluster):
    """Each selector selects the intended pods."""
    pods = [(item, labels) for item, _, labels in cluster.pods()]
    for item, spec, labels in cluster.pods():
        if item["kind"] in ("Deployment", "StatefulSet"):
            selector = item["spec"]["selector"]
            for other, theirs in pods:
                if (other is item) != matches(selector, theirs):
                    yield f"{name_of(item)}: its selector {'does not select its own pods' if other is item else 'selects pods of ' + name_of(other)}"
        for constraint in spec.get("topologySpreadConstraints", []):
            if not matches(constraint.get("labelSelector", {}), labels):
                yield f"{name_of(item)}: a spread constraint does not select its own pods"
    for item in cluster.of("Service", "PodDisruptionBudget", "NetworkPolicy"):
        spec = item["spec"]
        selector = {"matchLabels": spec["selector"]} if item["kind"] == "Service" else spec.get("selector", spec.get("podSelector"))
        chosen = [other for other, labels in pods if matches(selector, labels)]
        if not chosen:
            yield f"{name_of(item)}: selects no pods"
        for side, peer in (("ingress", "from"), ("egress", "to")):
            for rule in spec.get(side) or []:
                for end in rule.get(peer, []):
                    if "podSelector" in end and "namespaceSelector" not in end:
                        if not any(matches(end["podSelector"], labels) for _, labels in pods):
                            yield f"{name_of(item)}: {side} {peer} selects no pods"
        if item["kind"] == "Service":
            for port in spec["ports"]:
                for other in chosen:
                    names = {p.get("name") for c in template_of(other)["spec"]["containers"] for p in c.get("ports", [])}
                    if port["targetPort"] not in names:
                        yield f"{name_of(item)}: {name_of(other)} has no port {port['targetPort']}"
    for item, spec, container in cluster.programs():
        if item["kind"] == "Deployment":
            budgets = [b for b in cluster.of("PodDisruptionBudget") if matches(b["spec"]["selector"], template_of(item)["metadata"]["labels"])]
            if len(budgets) != 1:
                yield f"{name_of(item)}: {len(budgets)} disruption budgets"


def references(cluster):
    """Each referenced object exists and has the referenced key."""
    for item, spec, _ in cluster.pods():
        account = spec.get("serviceAccountName")
        if account and not cluster.find("ServiceAccount", account):
            yield f"{name_of(item)}: there is no ServiceAccount {account}"
        for volume in spec.get("volumes", []):
            for key, kind, name in (("configMap", "ConfigMap", "name"), ("secret", "Secret", "secretName")):
                if key in volume and not cluster.find(kind, volume[key][name]):
                    yield f"{name_of(item)}: there is no {kind} {volume[key][name]}"
        claims = {claim["metadata"]["name"] for claim in item["spec"].get("volumeClaimTemplates", [])}
        known = claims | {volume["name"] for volume in spec.get("volumes", [])}
        for container in spec.get("initContainers", []) + spec["containers"]:
            for mount in container.get("volumeMounts", []):
                if mount["name"] not in known:
                    yield f"{name_of(item)}: there is no volume {mount['name']}"
            for source in container.get("envFrom", []):
                for key, kind in (("configMapRef", "ConfigMap"), ("secretRef", "Secret")):
                    if key in source and not cluster.find(kind, source[key]["name"]):
                        yield f"{name_of(item)}: there is no {kind} {source[key]['name']}"
            for variable in container.get("env", []):
                for key, kind in (("secretKeyRef", "Secret"), ("configMapKeyRef", "ConfigMap")):
                    wanted = variable.get("valueFrom", {}).get(key)
                    if wanted and not wanted.get("optional") and wanted["key"] not in cluster.data(kind, wanted["name"]):
                        yield f"{name_of(item)}: {kind} {wanted['name']} has no key {wanted['key']}"
    for item in cluster.of("TriggerAuthentication"):
        for wanted in item["spec"]["secretTargetRef"]:
            if wanted["key"] not in cluster.data("Secret", wanted["name"]):
                yield f"{name_of(item)}: Secret {wanted['name']} has no key {wanted['key']}"


# Without one of these the program reports all missing settings and connects to nothing.
REQUIRED = ("FACEMILL_REDIS_URL", "FACEMILL_AMQP_URL")


# Variables of native libraries, which the program does not list.
LIBRARY_VARIABLES = {"ORT_DISABLE_TELEMETRY"}
# Where programs keep what they can make again.
STANDARD_VARIABLES = {"XDG_CACHE_HOME"}


def environment(cluster):
    """The program knows each variable, gets all required ones, and accepts their values and its arguments."""
    for item, _, container in cluster.programs():
        where, arguments = name_of(item), container.get("args", [])
        given = cluster.environment(container)
        known = cluster.program.variables.get(arguments[0], set()) if arguments else set()
        if item["kind"] == "CronJob":
            # A template for several commands: a variable of any command is known.
            known = set().union(*cluster.program.variables.values())
            arguments = ["produce", "dump.sql"]
        elif not is_worker(item):
            # It has the settings of the workers, too.
            known = known | cluster.program.variables["work"]
        used = {name for variable in container.get("env", []) for name in re.findall(r"\$\((\w+)\)", variable.get("value", ""))}
        if given.get("ORT_DISABLE_TELEMETRY") != "1":
            yield f"{where}: the telemetry of onnxruntime is not disabled"
        for name in sorted(set(given) - known - used - LIBRARY_VARIABLES - STANDARD_VARIABLES):
            yield f"{where}: `facemill {' '.join(arguments)}` does not know {name}"
        # Without a ledger on a server, the page serves the run of a folder.
        can_lack = REQUIRED if item["kind"] == "CronJob" or is_worker(item) else REQUIRED[1:]
        for missing in can_lack:
            with_all_but_one = {name: value for name, value in given.items() if name != missing and value != "?"}
            code, errors = cluster.program.start(tuple(arguments), tuple(sorted(with_all_but_one.items())))
            named = set(re.findall(r"\b(?:FACEMILL|AWS)_[A-Z0-9_]+", errors))
            if code != 2 or named != {missing} or len(re.findall(r"^  \S", errors, re.MULTILINE)) != 1:
                yield f"{where}: without only {missing}, the program exits with {code}: {errors.strip()}"
        for name in REQUIRED:
            if not given.get(name):
                yield f"{where}: {name} is not set"


def shutdown(cluster):
    """A pod that is stopped has enough time to finish its photos."""
    for item, spec, container in cluster.programs():
        if item["kind"] != "Deployment" or not is_worker(item):
            continue
        hook = container.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", [])
        pause = int(hook[1]) if hook[:1] == ["sleep"] else 0
        if not pause:
            yield f"{name_of(item)}: has no preStop pause"
        grace = int(cluster.environment(container).get("FACEMILL_GRACE", "0"))
        if grace < cluster.program.time_limit:
            yield f"{name_of(item)}: FACEMILL_GRACE is {grace}, a stage may take {cluster.program.time_limit} s"
        if spec.get("terminationGracePeriodSeconds", 30) < pause + grace + MARGIN:
            yield f"{name_of(item)}: terminationGracePeriodSeconds is shorter than preStop, grace and {MARGIN} s"
        update = item["spec"].get("strategy", {}).get("rollingUpdate", {})
        if str(update.get("maxUnavailable")) != "0" or str(update.get("maxSurge", "0")) in ("0", "0%"):
            yield f"{name_of(item)}: a rolling update stops workers before new ones are ready"


def scaling(cluster):
    """Each autoscaler scales the stage whose queue it queries, and each stage has at most one."""
    scaled = []
    for item in cluster.of("ScaledObject"):
        spec, where = item["spec"], name_of(item)
        target = cluster.find("Deployment", spec["scaleTargetRef"]["name"])
        if target is None:
            yield f"{where}: there is no Deployment {spec['scaleTargetRef']['name']}"
            continue
        scaled.append(target)
        stage = template_of(target)["spec"]["containers"][0]["args"][1]
        queues = cluster.program.worker_queues[stage]
        for queue in sorted(queues - {trigger["metadata"].get("queueName") for trigger in spec["triggers"]}):
            yield f"{where}: does not query the queue {queue}, which the stage uses"
        for trigger in spec["triggers"]:
            meta = trigger["metadata"]
            if meta.get("queueName") not in queues:
                yield f"{where}: queries the queue {meta.get('queueName')}, the stage uses {', '.join(sorted(queues))}"
            if meta.get("protocol") != "http" or meta.get("excludeUnacknowledged") == "true":
                yield f"{where}: does not count messages in flight"
            reference = trigger.get("authenticationRef", {}).get("name")
            if not cluster.find("TriggerAuthentication", reference):
                yield f"{where}: there is no TriggerAuthentication {reference}"
            url = cluster.data("Secret", "facemill-servers").get("amqp-url", "")
            if urllib.parse.urlsplit(url).path != f"/{meta.get('vhostName')}":
                yield f"{where}: queries the virtual host {meta.get('vhostName')}, the program uses another"
        modes = {trigger["metadata"].get("mode") for trigger in spec["triggers"]}
        if not {"QueueLength", "ExpectedQueueConsumptionTime"} <= modes:
            yield f"{where}: does not use both length and waiting time"
        if spec.get("minReplicaCount") != 0:
            yield f"{where}: does not scale to zero"
        if spec.get("cooldownPeriod", 300) <= cluster.program.time_limit:
            yield f"{where}: cooldownPeriod is shorter than the time limit of a stage"
    for item in cluster.of("TriggerAuthentication"):
        for wanted in item["spec"]["secretTargetRef"]:
            url = urllib.parse.urlsplit(cluster.data("Secret", wanted["name"]).get(wanted["key"], ""))
            if url.scheme not in ("http", "https"):
                yield f"{name_of(item)}: {wanted['key']} is not the address of RabbitMQ's management API"
            if cluster.find("Service", url.hostname):
                yield f"{name_of(item)}: KEDA is in another namespace, where the name {url.hostname} does not resolve"
    for item in cluster.of("HorizontalPodAutoscaler"):
        target = cluster.find("Deployment", item["spec"]["scaleTargetRef"]["name"])
        if target is None:
            yield f"{name_of(item)}: there is no Deployment {item['spec']['scaleTargetRef']['name']}"
        else:
            scaled.append(target)
    for target in cluster.of("Deployment"):
        times = sum(target is other for other in scaled)
        if times > 1:
            yield f"{name_of(target)}: {times} autoscalers"
        if scaled and not times and is_worker(target) and PROGRAM_IMAGE.search(template_of(target)["spec"]["containers"][0]["image"]):
            yield f"{name_of(target)}: the other stages have an autoscaler, this one has not"
    for item, _, _ in cluster.programs():
        if item["kind"] == "Deployment" and is_worker(item) and "replicas" in item["spec"]:
            yield f"{name_of(item)}: sets replicas, so `kubectl apply` undoes scaling"


def page(cluster):
    """The page is one process that needs no volume of its own, and other pods reach it only through the Ingress."""
    target = cluster.find("Deployment", "curate")
    if target is None:
        return
    where, spec = name_of(target), target["spec"]
    if spec.get("replicas") != 1 or spec.get("strategy", {}).get("type") != "Recreate":
        yield f"{where}: is not one pod that ends before the next one starts"
    template = template_of(target)
    for volume in template["spec"].get("volumes", []):
        if set(volume) - {"name"} != {"emptyDir"}:
            yield f"{where}: needs the volume {volume['name']}"
    container = template["spec"]["containers"][0]
    given = cluster.environment(container)
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    if not given.get("FACEMILL_CURATE_LISTEN", "").endswith(f":{ports.get('http')}"):
        yield f"{where}: does not listen on its port http"
    if given.get("FACEMILL_PROXY_HEADER") and not given.get("FACEMILL_TRUSTED_PROXY"):
        yield f"{where}: trusts the header of everybody"
    hook = container.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", [])
    pause = int(hook[1]) if hook[:1] == ["sleep"] else 0
    if not pause or template["spec"].get("terminationGracePeriodSeconds", 30) < pause + LONGEST_REQUEST:
        yield f"{where}: its termination is shorter than preStop and a request of {LONGEST_REQUEST} s"
    labels = template["metadata"]["labels"]
    for policy in cluster.of("NetworkPolicy"):
        if not matches(policy["spec"]["podSelector"], labels):
            continue
        for rule in policy["spec"].get("ingress") or []:
            numbers = {port.get("port") for port in rule.get("ports", [])}
            if ports.get("http") in numbers | ({ports.get("http")} if not numbers else set()):
                if not rule.get("from") or not all("namespaceSelector" in end for end in rule["from"]):
                    yield f"{name_of(policy)}: lets more than an Ingress controller reach the page"


# Seconds of the longest request with its response, as `facemill curate` limits them.
LONGEST_REQUEST = 90


PRIVATE = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16", "127.0.0.0/8"]
PRIVATE_6 = ["fc00::/7", "fe80::/10"]


def network(cluster):
    """All traffic is blocked by default. Fetch reaches the internet but no private network, the others only the servers."""
    policies = cluster.of("NetworkPolicy")
    blocking = [
        p for p in policies
        if p["spec"]["podSelector"] == {} and set(p["spec"]["policyTypes"]) == {"Ingress", "Egress"}
        and not p["spec"].get("ingress") and not p["spec"].get("egress")
    ]
    if not blocking:
        yield "no NetworkPolicy blocks everything by default"
    for item, _, labels in cluster.pods():
        stage = labels.get("app.kubernetes.io/component")
        for policy in policies:
            if not matches(policy["spec"]["podSelector"], labels):
                continue
            for rule in policy["spec"].get("egress") or []:
                if not rule.get("to"):
                    yield f"{name_of(policy)}: allows {name_of(item)} to reach every address"
                for end in rule.get("to", []):
                    block = end.get("ipBlock")
                    if block is None:
                        continue
                    outer = ipaddress.ip_network(block["cidr"])
                    exceptions = [ipaddress.ip_network(exception) for exception in block.get("except", [])]
                    for exception in exceptions:
                        if exception.version != outer.version or not exception.subnet_of(outer):
                            yield f"{name_of(policy)}: {exception} is not in {outer}"
                    if outer.prefixlen == 0:
                        if stage != "fetch":
                            yield f"{name_of(policy)}: allows {name_of(item)} to reach the internet"
                        for private in PRIVATE if outer.version == 4 else PRIVATE_6:
                            inside = ipaddress.ip_network(private)
                            if not any(inside.subnet_of(exception) for exception in exceptions):
                                yield f"{name_of(policy)}: allows {name_of(item)} to reach {private}"
    for item, _, container in cluster.programs():
        labels = template_of(item)["metadata"]["labels"]
        ours = [p for p in policies if matches(p["spec"]["podSelector"], labels)]
        ports = {port["port"] for p in ours for rule in p["spec"].get("egress") or [] for port in rule.get("ports", [])}
        if labels.get("app.kubernetes.io/component") == "fetch":
            internet = [r for p in ours for r in p["spec"].get("egress") or [] for e in r.get("to", []) if "ipBlock" in e]
            if not any(ipaddress.ip_network(e["ipBlock"]["cidr"]).prefixlen == 0 for r in internet for e in r["to"] if "ipBlock" in e):
                yield f"{name_of(item)}: fetch cannot reach the internet"
        given = cluster.environment(container)
        standard = {"amqp": 5672, "amqps": 5671, "redis": 6379, "rediss": 6379, "http": 80, "https": 443}
        for name in ("FACEMILL_AMQP_URL", "FACEMILL_AMQP_MANAGEMENT", "FACEMILL_REDIS_URL", "FACEMILL_S3_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"):
            url = urllib.parse.urlsplit(given.get(name, "https://amazon" if name == "FACEMILL_S3_ENDPOINT" else ""))
            port = url.port or standard.get(url.scheme)
            if port is not None and port not in ports:
                yield f"{name_of(item)}: {name} is on port {port}, which no policy allows"


CHECKS = [
    schemas, namespaces, restricted, images, resources, probes, selectors, references, environment, shutdown, scaling, page,
    network,
]


def faults(cluster):
    return [f"{check.__name__}: {fault}" for check in CHECKS for fault in check(cluster)]


def load(text):
    return [item for item in yaml.safe_load_all(text) if item]


def built_program():
    """The program under test: FACEMILL_BINARY, else the debug build."""
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    return os.environ.get("FACEMILL_BINARY", target / "debug" / "facemill")
