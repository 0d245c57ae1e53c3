"""A small stand-in of the Kubernetes API server: the part that kubectl uses.

It keeps objects in memory, with versions and watches. It validates them against the published schemas and declares
this, so kubectl skips its own validation. It applies the patches that kubectl sends. The kubelet serves the logs,
commands and ports of pods. There is no authentication, admission or server-side apply. `kubectl create job` sends
protobuf, `kubectl create --filename` sends JSON. The server reads only Jobs in protobuf.
"""

import base64
import copy
import datetime
import http.server
import json
import sys
import threading
import urllib.parse
import uuid
from dataclasses import dataclass

from manifests import KEDA, VERSIONS, jsonschema, kubernetes_validate

from . import patches, protobuf, remote
from .patches import field_selector, label_selector


@dataclass(frozen=True)
class Resource:
    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True
    short: tuple = ()
    scales: bool = False

    @property
    def api_version(self):
        return f"{self.group}/{self.version}" if self.group else self.version


RESOURCES = [
    Resource("", "v1", "namespaces", "Namespace", namespaced=False, short=("ns",)),
    Resource("", "v1", "nodes", "Node", namespaced=False, short=("no",)),
    Resource("", "v1", "pods", "Pod", short=("po",)),
    Resource("", "v1", "services", "Service", short=("svc",)),
    Resource("", "v1", "configmaps", "ConfigMap", short=("cm",)),
    Resource("", "v1", "secrets", "Secret"),
    Resource("", "v1", "serviceaccounts", "ServiceAccount", short=("sa",)),
    Resource("apps", "v1", "deployments", "Deployment", short=("deploy",), scales=True),
    Resource("apps", "v1", "replicasets", "ReplicaSet", short=("rs",), scales=True),
    Resource("apps", "v1", "statefulsets", "StatefulSet", short=("sts",), scales=True),
    Resource("batch", "v1", "jobs", "Job"),
    Resource("batch", "v1", "cronjobs", "CronJob", short=("cj",)),
    Resource("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget", short=("pdb",)),
    Resource("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy", short=("netpol",)),
    Resource("autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler", short=("hpa",)),
    # kubectl reads these when it does not know a kind.
    Resource("apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", namespaced=False),
]
KEDA_RESOURCES = [
    Resource("keda.sh", "v1alpha1", "scaledobjects", "ScaledObject", short=("so",)),
    Resource("keda.sh", "v1alpha1", "triggerauthentications", "TriggerAuthentication", short=("ta",)),
]
VERBS = ["create", "delete", "get", "list", "patch", "update", "watch"]
# What `kubectl get all` shows.
ALL = {"Pod", "Service", "Deployment", "ReplicaSet", "StatefulSet", "Job", "CronJob", "HorizontalPodAutoscaler"}
# Fields of an existing object's spec. In a StatefulSet, all fields except MUTABLE are immutable.
IMMUTABLE = {"Deployment": {"selector"}, "ReplicaSet": {"selector"}, "Job": {"selector", "template", "completions"}}
MUTABLE = {"StatefulSet": {"replicas", "ordinals", "template", "updateStrategy", "minReadySeconds"}}


class Refused(Exception):
    """An error response in the format of the API server."""

    def __init__(self, code, reason, message, **details):
        super().__init__(message)
        self.code = code
        self.status = {
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": message, "reason": reason, "details": details, "code": code,
        }


def missing(plural, name):
    return Refused(404, "NotFound", f'{plural} "{name}" not found', name=name, kind=plural)


def invalid(resource, name, field, message):
    return Refused(422, "Invalid", f'{resource.kind} "{name}" is invalid: {field}: {message}',
                   name=name, kind=resource.kind, group=resource.group, causes=[{"field": field, "message": message}])


def now():
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


class Store:
    """Objects by (plural, namespace, name). A stored object is never modified, only replaced."""

    def __init__(self):
        self.changed = threading.Condition()
        self.objects = {}
        # (version, ADDED | MODIFIED | DELETED, plural, object)
        self.events = []
        self.version = 0

    def get(self, plural, namespace, name):
        if (found := self.find(plural, namespace, name)) is None:
            raise missing(plural, name)
        return found

    def find(self, plural, namespace, name):
        return self.objects.get((plural, namespace, name))

    def list(self, plural, namespace=None):
        with self.changed:
            return [i for (p, n, _), i in self.objects.items() if p == plural and namespace in (None, n)]

    def everything(self):
        with self.changed:
            return list(self.objects.values())

    def create(self, plural, item):
        item = copy.deepcopy(item)
        meta = item["metadata"]
        meta |= {"uid": meta.get("uid") or str(uuid.uuid4()), "creationTimestamp": now(), "generation": 1}
        key = plural, meta.get("namespace"), meta["name"]
        with self.changed:
            if key in self.objects:
                raise Refused(409, "AlreadyExists", f'{plural} "{meta["name"]}" already exists', name=meta["name"])
            return self._put("ADDED", key, item)

    def update(self, item, change):
        """Replaces an object with the result of `change`. Returns None if the object does not exist."""
        with self.changed:
            if (key := self._key(item)) is None:
                return None
            stored = self.objects[key]
            changed = change(copy.deepcopy(stored))
            changed["metadata"]["generation"] = stored["metadata"]["generation"]
            if changed == stored:
                return stored
            changed["metadata"]["generation"] += changed.get("spec") != stored.get("spec")
            return self._put("MODIFIED", key, changed)

    def remove(self, item):
        with self.changed:
            if (key := self._key(item)) is not None:
                self._put("DELETED", key, copy.deepcopy(self.objects[key]))
                del self.objects[key]

    def _key(self, item):
        """The key of the object with this uid. A later object of the same name does not match."""
        uid = item["metadata"]["uid"]
        return next((key for key, stored in self.objects.items() if stored["metadata"]["uid"] == uid), None)

    def _put(self, event, key, item):
        self.version += 1
        item["metadata"]["resourceVersion"] = str(self.version)
        self.objects[key] = item
        self.events.append((self.version, event, key[0], item))
        self.changed.notify_all()
        return item

    def after(self, version, patience):
        """Waits up to `patience` seconds for events after this version."""
        with self.changed:
            self.changed.wait_for(lambda: self.version > version, patience)
            # Versions start at 1 and have no gaps.
            return self.events[version:]


def with_defaults(item):
    """Adds the API server's defaults that the stand-in or its tests use."""
    spec, meta = item.get("spec", {}), item["metadata"]
    match item["kind"]:
        case "Namespace":
            meta.setdefault("labels", {})["kubernetes.io/metadata.name"] = meta["name"]
            item.setdefault("status", {"phase": "Active"})
        case "Secret" if "stringData" in item:
            encoded = {key: base64.b64encode(value.encode()).decode() for key, value in item.pop("stringData").items()}
            item["data"] = item.get("data", {}) | encoded
        case "Deployment" | "StatefulSet" | "ReplicaSet":
            spec.setdefault("replicas", 1)
            pod_defaults(spec["template"]["spec"])
        case "Job":
            for name, value in (("parallelism", 1), ("completions", 1), ("backoffLimit", 6), ("suspend", False)):
                spec.setdefault(name, value)
            select_own_pods(item)
            pod_defaults(spec["template"]["spec"])
        case "CronJob":
            spec.setdefault("successfulJobsHistoryLimit", 3)
            spec.setdefault("failedJobsHistoryLimit", 1)
        case "Pod":
            pod_defaults(spec)
    return item


def pod_defaults(spec):
    spec.setdefault("restartPolicy", "Always")
    spec.setdefault("terminationGracePeriodSeconds", 30)


def select_own_pods(job):
    """A Job's selector is its own uid."""
    mark = {"batch.kubernetes.io/controller-uid": job["metadata"]["uid"]}
    job["spec"].setdefault("selector", {"matchLabels": mark})
    meta = job["spec"]["template"].setdefault("metadata", {})
    meta["labels"] = meta.get("labels", {}) | mark | {"batch.kubernetes.io/job-name": job["metadata"]["name"]}


def check(resource, item, strictly):
    """Refuses unknown fields (if strict), wrong types and invalid names, like the API server."""
    name = item["metadata"].get("name", "")
    try:
        if resource in KEDA_RESOURCES:
            known = KEDA["$defs"]["metadata"]["properties"]
            own = {key: value for key, value in item["metadata"].items() if key in known}
            schema = jsonschema.Draft202012Validator({**KEDA, "$ref": f"#/$defs/{resource.kind}"})
            schema.validate(item | {"metadata": own})
        else:
            kubernetes_validate.validate(item, VERSIONS[-1], strict=strictly)
    except jsonschema.ValidationError as error:
        raise invalid(resource, name, ".".join(map(str, error.absolute_path)), error.message) from None


def check_change(resource, before, after):
    changed = {key for key in before.get("spec", {}) | after.get("spec", {})
               if before.get("spec", {}).get(key) != after.get("spec", {}).get(key)}
    fixed = IMMUTABLE.get(resource.kind, set())
    if resource.kind in MUTABLE:
        fixed = changed - MUTABLE[resource.kind]
    if forbidden := sorted(changed & fixed):
        raise invalid(resource, after["metadata"]["name"], f"spec.{forbidden[0]}", "field is immutable")


class Api:
    """Handles the requests. `kubelet` runs the pods; it may be None."""

    def __init__(self, store, keda=False, kubelet=None):
        self.store, self.kubelet = store, kubelet
        self.resources = RESOURCES + (KEDA_RESOURCES if keda else [])
        self.schemas = patches.Schemas()
        for resource in KEDA_RESOURCES if keda else []:
            store.create("customresourcedefinitions", {
                "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
                "metadata": {"name": f"{resource.plural}.{resource.group}"},
                "spec": {"group": resource.group, "names": {"kind": resource.kind, "plural": resource.plural}},
            })

    def groups(self):
        """(group, version) in the order in which kubectl prefers them."""
        return list(dict.fromkeys((resource.group, resource.version) for resource in self.resources))

    def page(self, path):
        """Pages without an object: versions, discovery, OpenAPI."""
        parts = path.strip("/").split("/")
        if path == "/version":
            major, minor = VERSIONS[-1].split(".")
            return {"major": major, "minor": minor, "gitVersion": f"v{VERSIONS[-1]}.0-stand-in", "platform": ""}
        if path == "/api":
            return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}
        if path == "/apis":
            groups = []
            for group, version in self.groups():
                if group:
                    entry = {"groupVersion": f"{group}/{version}", "version": version}
                    groups.append({"name": group, "versions": [entry], "preferredVersion": entry})
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}
        if path == "/openapi/v3":
            names = [f"apis/{group}/{version}" if group else f"api/{version}" for group, version in self.groups()]
            return {"paths": {name: {"serverRelativeURL": f"/openapi/v3/{name}?hash=0"} for name in names}}
        if path.startswith("/openapi/v3/"):
            return self.openapi(parts[-2] if parts[2] == "apis" else "", parts[-1])
        if (parts[0], len(parts)) in (("api", 2), ("apis", 3)):
            return self.resource_list(parts[-2] if parts[0] == "apis" else "", parts[-1])
        return None

    def resource_list(self, group, version):
        listed = []
        for resource in self.resources:
            if (resource.group, resource.version) != (group, version):
                continue
            entry = {"name": resource.plural, "singularName": resource.kind.lower(), "namespaced": resource.namespaced,
                     "kind": resource.kind, "verbs": VERBS}
            categories = ["all"] if resource.kind in ALL else []
            listed.append(entry | {"shortNames": list(resource.short), "categories": categories})
            if resource.scales:
                scale = {"kind": "Scale", "group": "autoscaling", "version": "v1", "verbs": ["get", "patch", "update"]}
                listed.append(entry | {"name": f"{resource.plural}/scale"} | scale)
        if not listed:
            raise Refused(404, "NotFound", "the server could not find the requested resource")
        group_version = f"{group}/{version}" if group else version
        return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": listed}

    def openapi(self, group, version):
        """Declares field validation and dry runs, so kubectl leaves both to the server. Has no schemas."""
        known = [{"name": name, "in": "query", "schema": {"type": "string"}} for name in ("dryRun", "fieldValidation")]
        paths = {}
        for resource in self.resources:
            if (resource.group, resource.version) == (group, version):
                kind = {"group": group, "version": version, "kind": resource.kind}
                operation = {"parameters": known, "x-kubernetes-group-version-kind": kind, "responses": {}}
                paths[f"/{resource.plural}/{{name}}"] = {"patch": operation}
        return {"openapi": "3.0.0", "info": {"title": "Kubernetes", "version": "stand-in"}, "paths": paths}

    def parse(self, path):
        """The resource, namespace, name and subresource (with its rest) of a path."""
        parts = [urllib.parse.unquote(part) for part in path.strip("/").split("/")]
        group, version, rest = ("", parts[1], parts[2:]) if parts[0] == "api" else (*parts[1:3], parts[3:])
        namespace = None
        if rest[0] == "namespaces" and len(rest) > 2 and rest[2] not in ("status", "finalize"):
            namespace, rest = rest[1], rest[2:]
        for resource in self.resources:
            if (resource.group, resource.version, resource.plural) == (group, version, rest[0]):
                return resource, namespace, rest[1] if len(rest) > 1 else None, rest[2:]
        raise Refused(404, "NotFound", "the server could not find the requested resource")

    def create(self, resource, namespace, item, query):
        item = self.typed(resource, item)
        if resource.namespaced:
            item["metadata"]["namespace"] = namespace
            stored = self.store.find("namespaces", None, namespace)
            if stored is None:
                raise missing("namespaces", namespace)
            if stored["metadata"].get("deletionTimestamp"):
                raise Refused(403, "Forbidden", f"namespace {namespace} is being terminated")
        check(resource, item, query.get("fieldValidation") == "Strict")
        item["metadata"] |= {"uid": str(uuid.uuid4()), "creationTimestamp": now()}
        item = with_defaults(item)
        return item if query.get("dryRun") else self.store.create(resource.plural, item)

    def change(self, resource, stored, change, query):
        """Checks the result of `change` and stores it."""
        def checked(before):
            after = self.typed(resource, change(before))
            for name in ("name", "namespace", "uid", "creationTimestamp", "deletionTimestamp"):
                if name in before["metadata"]:
                    after["metadata"][name] = before["metadata"][name]
            wanted = after["metadata"].get("resourceVersion", before["metadata"]["resourceVersion"])
            if wanted != before["metadata"]["resourceVersion"]:
                raise Refused(409, "Conflict", "the object has been modified since you have read it")
            check(resource, after, query.get("fieldValidation") == "Strict")
            check_change(resource, before, with_defaults(after))
            return after

        if query.get("dryRun"):
            return checked(copy.deepcopy(stored))
        if (changed := self.store.update(stored, checked)) is None:
            raise missing(resource.plural, stored["metadata"]["name"])
        return changed

    def typed(self, resource, item):
        if (item.get("apiVersion"), item.get("kind")) != (resource.api_version, resource.kind):
            raise Refused(400, "BadRequest", f"the object is not a {resource.kind} of {resource.api_version}")
        return item

    def patch(self, resource, stored, kind, patch, query):
        schema = self.schemas.of(resource.api_version, resource.kind)
        patched = lambda item: patches.applied(kind, patch, item, schema, self.schemas)
        try:
            return self.change(resource, stored, patched, query)
        except ValueError as error:
            raise Refused(415, "UnsupportedMediaType", str(error)) from None

    def delete(self, resource, stored, options, query):
        """A pod is removed after its kubelet stops it, a namespace when it is empty, other objects at once."""
        if query.get("dryRun"):
            return stored
        meta = stored["metadata"]
        grace = options.get("gracePeriodSeconds", query.get("gracePeriodSeconds"))
        if resource.kind == "Pod":
            grace = int(stored["spec"]["terminationGracePeriodSeconds"] if grace is None else grace)
            lingers = grace > 0 and stored["spec"].get("nodeName")
        else:
            lingers = resource.kind == "Namespace"
        if not lingers:
            self.store.remove(stored)
            return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
                    "details": {"name": meta["name"], "kind": resource.plural, "uid": meta["uid"]}}
        return self.store.update(stored, lambda item: ended(item, grace)) or stored

    def scale(self, stored):
        kept = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
        return {
            "kind": "Scale", "apiVersion": "autoscaling/v1",
            "metadata": {key: stored["metadata"].get(key) for key in kept},
            "spec": {"replicas": stored["spec"]["replicas"]},
            "status": {"replicas": stored.get("status", {}).get("replicas", 0)},
        }


def ended(item, grace):
    """Marks an object for deletion."""
    meta = item["metadata"]
    if "deletionTimestamp" not in meta:
        meta["deletionTimestamp"] = now()
        if grace is not None:
            meta["deletionGracePeriodSeconds"] = int(grace)
    if item["kind"] == "Namespace":
        item["status"] = {"phase": "Terminating"}
    return item


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Headers and body are sent together.
    wbufsize = -1

    def log_message(self, *_):
        pass

    def answer(self, code, body, kind="application/json"):
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def begin_stream(self, kind):
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.flush()

    def chunk(self, body):
        self.wfile.write(b"%x\r\n%s\r\n" % (len(body), body))
        self.wfile.flush()

    def dispatch(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        address = urllib.parse.urlsplit(self.path)
        query = urllib.parse.parse_qs(address.query, keep_blank_values=True)
        try:
            self.respond(self.server.api, address.path, query, body)
        except Refused as refused:
            self.answer(refused.code, refused.status)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = dispatch

    def respond(self, api, path, query, body):
        first = {key: values[0] for key, values in query.items()}
        if self.command == "GET" and (page := api.page(path)) is not None:
            return self.answer(200, page)
        if path == "/openapi/v2":
            # An empty document, `swagger: "2.0"`. kubectl reads it for kinds that are not in OpenAPI v3.
            return self.answer(200, b"\x0a\x032.0", "application/com.github.proto-openapi.spec.v2.v1.0+protobuf")
        if not path.startswith(("/api/", "/apis/")):
            raise Refused(404, "NotFound", "the server could not find the requested resource")
        resource, namespace, name, rest = api.parse(path)
        if rest and resource.kind == "Pod":
            return self.respond_for_pod(api, api.store.get("pods", namespace, name), rest, query)
        given = self.given(body)
        if name is None:
            match self.command:
                case "GET" if first.get("watch") in ("true", "1"):
                    return self.watch(api.store, resource, namespace, first)
                case "GET":
                    return self.answer(200, self.listing(api.store, resource, namespace, first))
                case "POST":
                    return self.answer(201, api.create(resource, namespace, given, first))
            raise Refused(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
        stored = api.store.get(resource.plural, namespace, name)
        if rest == ["scale"] and resource.scales:
            if self.command != "GET":
                replicas = given["spec"]["replicas"]
                scaled = lambda item: item | {"spec": item["spec"] | {"replicas": replicas}}
                stored = api.change(resource, stored, scaled, first)
            return self.answer(200, api.scale(stored))
        if rest:
            raise Refused(404, "NotFound", "the server could not find the requested resource")
        match self.command:
            case "GET":
                return self.answer(200, stored)
            case "PUT":
                return self.answer(200, api.change(resource, stored, lambda _: given, first))
            case "PATCH":
                kind = self.headers["Content-Type"].split(";")[0]
                return self.answer(200, api.patch(resource, stored, kind, given, first))
            case "DELETE":
                return self.answer(200, api.delete(resource, stored, given, first))

    def given(self, body):
        """The object in the request. Responses are always JSON, which kubectl accepts."""
        kind = self.headers.get("Content-Type", "").split(";")[0]
        try:
            if kind == protobuf.MEDIA_TYPE:
                return protobuf.read(body)
        except ValueError as error:
            raise Refused(400, "BadRequest", f"this protobuf cannot be read: {error}") from None
        if body and not kind.endswith("json"):
            raise Refused(415, "UnsupportedMediaType", f"{kind} is not supported")
        return json.loads(body) if body else {}

    def wanted(self, namespace, query):
        labels, fields = label_selector(query.get("labelSelector")), field_selector(query.get("fieldSelector"))

        def holds(item):
            meta = item["metadata"]
            return namespace in (None, meta.get("namespace")) and labels(meta.get("labels", {})) and fields(item)

        return holds

    def listing(self, store, resource, namespace, query):
        version = str(store.version)
        items = list(filter(self.wanted(namespace, query), store.list(resource.plural)))
        return {"kind": f"{resource.kind}List", "apiVersion": resource.api_version,
                "metadata": {"resourceVersion": version}, "items": items}

    def watch(self, store, resource, namespace, query):
        wanted = self.wanted(namespace, query)
        send = lambda event, item: self.chunk(json.dumps({"type": event, "object": item}).encode() + b"\n")
        self.begin_stream("application/json")
        version = int(query.get("resourceVersion") or 0)
        if query.get("sendInitialEvents") == "true" or not version:
            version = store.version
            for item in filter(wanted, store.list(resource.plural)):
                send("ADDED", item)
            mark = {"resourceVersion": str(version), "annotations": {"k8s.io/initial-events-end": "true"}}
            send("BOOKMARK", {"kind": resource.kind, "apiVersion": resource.api_version, "metadata": mark})
        while True:
            for version, event, plural, item in store.after(version, patience=60):
                if plural == resource.plural and wanted(item):
                    send(event, item)

    def respond_for_pod(self, api, pod, rest, query):
        first = {key: values[0] for key, values in query.items()}
        if api.kubelet is None:
            raise Refused(503, "ServiceUnavailable", "there is no kubelet")
        match rest:
            case ["log"]:
                self.begin_stream("text/plain")
                for part in api.kubelet.log(pod, first.get("follow") == "true"):
                    self.chunk(part)
                self.chunk(b"")
            case ["exec"]:
                api.kubelet.running(pod)
                remote.execute(self, lambda: api.kubelet.execute(pod, query["command"], first.get("stdin") == "true"))
            case ["portforward"]:
                api.kubelet.running(pod)
                remote.forward(self, pod, api.kubelet.ports(pod))
            case _:
                raise Refused(404, "NotFound", f"pods/{rest[0]} is not served here")


class Server(http.server.ThreadingHTTPServer):
    """Serves requests in separate threads until it is closed."""

    daemon_threads = True

    def __init__(self, api):
        super().__init__(("127.0.0.1", 0), Handler)
        self.api = api
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, request, client_address):
        """A connection that the client closes is not an error."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)

    def kubeconfig(self, file):
        """Writes the kubeconfig for this server."""
        address = f"http://127.0.0.1:{self.server_port}"
        config = {
            "apiVersion": "v1", "kind": "Config", "current-context": "stand-in",
            "clusters": [{"name": "stand-in", "cluster": {"server": address}}],
            "users": [{"name": "stand-in", "user": {}}],
            "contexts": [{"name": "stand-in", "context": {"cluster": "stand-in", "user": "stand-in"}}],
        }
        file.write_text(json.dumps(config), encoding="utf-8")

    def close(self):
        self.shutdown()
        self.server_close()
