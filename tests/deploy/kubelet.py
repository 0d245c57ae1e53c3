"""Runs the pods of the stand-in: each is a process in a network namespace of its own, with an address of its own.

It does what a kubelet does with a container: environment and files from ConfigMaps and Secrets, probes, restarts,
preStop, SIGTERM, grace period, SIGKILL. It is all nodes at once, and the scheduler, and the names of Services. Left
out: limits, security contexts, read-only roots, network policies, probes by command, containers beside the first.
"""

import base64
import contextlib
import ctypes
import os
import re
import signal
import socket
import subprocess
import threading
import time
import urllib.request

from apiserver import Refused, now
from controllers import condition, give_up, is_going, is_ready
from manifests import Cluster

BRIDGE = "pods"
# Seconds before a container is started again, doubled up to the second figure; a kubelet takes 10 and 300.
RESTART, RESTART_MOST = 1, 8
# The servers are not on the nodes that may die.
SERVERS, WORKERS = "servers-1", ("workers-1", "workers-2")


@contextlib.contextmanager
def inside(netns):
    """This thread is in a network namespace: what sockets it makes there stay there."""
    system = ctypes.CDLL(None, use_errno=True)

    def enter(namespace):
        if system.setns(namespace.fileno(), 0):
            raise OSError(ctypes.get_errno(), f"setns: {os.strerror(ctypes.get_errno())}")

    with open("/proc/thread-self/ns/net", "rb") as home, open(f"/run/netns/{netns}", "rb") as there:
        enter(there)
        try:
            yield
        finally:
            enter(home)


def run(*command):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    if done.returncode:
        raise AssertionError(f"{' '.join(map(str, command))}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


class Kubelet(threading.Thread):
    """Of all nodes. Looks at the pods whenever something has changed."""

    def __init__(self, store, images, scratch, hosts):
        super().__init__(daemon=True, name="kubelet")
        self.store, self.images, self.scratch = store, images, scratch
        # Names that are not of the cluster: lines of a hosts file.
        self.hosts, self.names = hosts, None
        # By uid, in the order of their start; those that are over stay.
        self.runners, self.dead = {}, set()
        # Names of pods, and their ports to which somebody came through the API server.
        self.reached = set()
        self.stopping = False
        for name in (SERVERS, *WORKERS):
            store.create("nodes", {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "spec": {},
                                   "status": {"conditions": [condition("Ready", True, "KubeletReady")]}})
        self.start()

    def run(self):
        while not self.stopping:
            seen = self.store.version
            try:
                self.look()
            except Exception:
                give_up()
            self.store.after(seen, 1)

    def look(self):
        pods = {pod["metadata"]["uid"]: pod for pod in self.store.list("pods")}
        for uid, pod in pods.items():
            if "nodeName" not in pod["spec"]:
                node = self.node_for(pod)
                self.store.update(pod, lambda there: there | {"spec": there["spec"] | {"nodeName": node}})
            elif uid not in self.runners and pod["spec"]["nodeName"] not in self.dead:
                self.runners[uid] = Runner(self, pod, len(self.runners) + 1)
        for uid, runner in self.runners.items():
            runner.look(pods.get(uid))
        self.write_names(pods.values())

    def node_for(self, pod):
        """Workers fill one node, then the next: what dies with a node is to be one of each stage."""
        if pod["metadata"]["labels"].get("role") != "worker":
            return SERVERS
        there = {node["metadata"]["name"] for node in self.store.list("nodes")} - self.dead
        return next(name for name in WORKERS if name in there)

    def write_names(self, pods):
        """A Service's name leads to its ready pods."""
        lines = list(self.hosts)
        for service in self.store.list("services"):
            selector, name = service["spec"]["selector"], service["metadata"]["name"]
            for pod in pods:
                if selector.items() <= pod["metadata"]["labels"].items() and is_ready(pod):
                    lines.append(f"{pod['status']['podIP']} {name} {name}.{service['metadata']['namespace']}.svc")
        if lines != self.names:
            self.names = lines
            with open("/etc/hosts", "w", encoding="utf-8") as file:
                file.write("\n".join(lines) + "\n")

    def power_off(self, node):
        """No goodbye on any connection: the cables are out before the first process is dead; nobody tells of it."""
        self.dead.add(node)
        lost = [runner for runner in self.runners.values() if runner.node == node and runner.is_alive()]
        for runner in lost:
            run("ip", "-n", runner.netns, "link", "set", "eth0", "down")
        for runner in lost:
            runner.lose_power()
        return lost

    def log(self, pod, follow):
        """The parts of a pod's log."""
        runner = self.runners.get(pod["metadata"]["uid"])
        if runner is None or not runner.log_file.exists():
            container, name = pod["spec"]["containers"][0]["name"], pod["metadata"]["name"]
            waits = f'container "{container}" in pod "{name}" is waiting to start: ContainerCreating'
            raise Refused(400, "BadRequest", waits)

        def parts():
            with open(runner.log_file, "rb") as file:
                while True:
                    over = not follow or not runner.is_running()
                    while part := file.read(60_000):
                        yield part
                    if over:
                        return
                    runner.something_happened(0.2)

        return parts()

    def running(self, pod):
        """Whoever runs it."""
        runner = self.runners.get(pod["metadata"]["uid"])
        if runner is None or not runner.is_running():
            raise Refused(500, "InternalError", "the container is not running")
        return runner

    def execute(self, pod, command, with_input):
        runner = self.running(pod)
        return subprocess.Popen(
            ["ip", "netns", "exec", runner.netns, *command], env=runner.environment, cwd=runner.folder,
            stdin=subprocess.PIPE if with_input else subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )

    def ports(self, pod):
        """Connects to a port of the pod as a container runtime does: to 127.0.0.1, from inside."""
        runner = self.running(pod)

        def connect(port):
            self.reached.add((runner.name, port))
            with inside(runner.netns):
                return socket.create_connection(("127.0.0.1", port))

        return connect


class Probe:
    """One of a container's probes, and when it is next due."""

    def __init__(self, kind, container, address):
        told = container[kind]
        self.kind, self.address = kind, address
        self.period, self.timeout = told.get("periodSeconds", 10), told.get("timeoutSeconds", 1)
        self.threshold, self.failures = told.get("failureThreshold", 3), 0
        self.how = told.get("httpGet") or told.get("tcpSocket")
        if self.how:
            ports = {port["name"]: port["containerPort"] for port in container.get("ports", []) if "name" in port}
            self.port = ports.get(self.how["port"], self.how["port"])
        self.due = time.monotonic() + told.get("initialDelaySeconds", 0)

    def succeeds(self):
        self.due = time.monotonic() + self.period
        try:
            if self.how is None:
                # A command of the image.
                return True
            if "path" not in self.how:
                socket.create_connection((self.address, self.port), self.timeout).close()
                return True
            url = f"http://{self.address}:{self.port}{self.how['path']}"
            with urllib.request.urlopen(url, timeout=self.timeout) as answer:
                return answer.status < 400
        except (OSError, ValueError):
            return False

    def look(self):
        """Whether it holds; None where it failed, but not often enough to mean anything."""
        if self.succeeds():
            self.failures = 0
            return True
        self.failures += 1
        return False if self.failures >= self.threshold else None


def waiting(reason, message):
    return {"waiting": {"reason": reason, "message": message}}


class Runner(threading.Thread):
    """One pod's life."""

    def __init__(self, kubelet, pod, number):
        self.kubelet, self.pod, self.store = kubelet, pod, kubelet.store
        super().__init__(daemon=True, name=pod["metadata"]["name"])
        self.node = pod["spec"]["nodeName"]
        self.container = pod["spec"]["containers"][0]
        self.address = f"10.88.{1 + number // 250}.{1 + number % 250}"
        self.folder = kubelet.scratch / self.name
        self.folder.mkdir(parents=True, exist_ok=True)
        self.log_file = self.folder.with_suffix(".log")
        self.netns = f"pod{number}"
        # What the object in the store says: go, or gone.
        self.going, self.gone, self.powerless = False, False, False
        self.process, self.environment = None, {}
        self.restarts, self.ready, self.started, self.start_time = 0, False, False, now()
        # How it ended: what came of the process, and whether it had to be killed at the end of its grace period.
        self.told_to_end, self.killed, self.code = False, False, None
        self.happened = threading.Condition()
        self.start()

    def look(self, pod):
        """Takes notice of what the API server now has."""
        gone = pod is None
        going = gone or is_going(pod)
        if (going, gone) != (self.going, self.gone):
            self.gone, self.going = gone, going
            if gone and self.is_running():
                self.kill()
            self.notify()

    def notify(self):
        with self.happened:
            self.happened.notify_all()

    def something_happened(self, patience):
        with self.happened:
            self.happened.wait(max(0, patience))

    def is_running(self):
        return self.process is not None and self.process.poll() is None

    def lose_power(self):
        self.powerless = True
        self.kill()
        self.notify()

    def run(self):
        try:
            if self.prepare():
                self.live()
        except Exception:
            give_up()
        finally:
            self.clean()

    def tell(self, phase, state):
        """The pod's status. Of a node without power nobody hears."""
        if self.powerless:
            return
        status = {
            "phase": phase, "podIP": self.address, "podIPs": [{"ip": self.address}], "startTime": self.start_time,
            "conditions": [condition("PodScheduled", True, "Scheduled"), condition("Ready", self.ready, "Probed"),
                           condition("ContainersReady", self.ready, "Probed")],
            "containerStatuses": [{
                "name": self.container["name"], "image": self.container["image"], "imageID": "", "state": state,
                "ready": self.ready, "started": self.started, "restartCount": self.restarts, "lastState": {},
            }],
        }
        if phase in ("Succeeded", "Failed"):
            status["finishedAt"] = time.time()
        self.store.update(self.pod, lambda there: there | {"status": status})

    def prepare(self):
        """Network and files; waits for what is not there yet. False: it ended before."""
        run("ip", "netns", "add", self.netns)
        run("ip", "link", "add", f"v{self.netns}", "type", "veth", "peer", "name", "eth0", "netns", self.netns)
        run("ip", "link", "set", f"v{self.netns}", "master", BRIDGE, "up")
        for command in (f"addr add {self.address}/16 dev eth0", "link set eth0 up", "link set lo up"):
            run("ip", "-n", self.netns, *command.split())
        if self.kubelet.images.find(self.container["image"]) is None:
            self.tell("Pending", waiting("ImagePullBackOff", "no such image on this machine"))
            while not self.going:
                self.something_happened(60)
            return False
        while not self.going:
            try:
                self.mount()
                return True
            except KeyError as missing:
                self.tell("Pending", waiting("CreateContainerConfigError", f"there is no {missing}"))
                self.something_happened(1)
        return False

    def mount(self):
        namespace, spec = self.pod["metadata"]["namespace"], self.pod["spec"]
        self.mounts = {}
        kinds = {"configMap": ("configmaps", "name"), "secret": ("secrets", "secretName")}
        for volume in spec.get("volumes", []):
            folder = self.folder / "volumes" / volume["name"]
            folder.mkdir(parents=True, exist_ok=True)
            for key in kinds.keys() & volume.keys():
                plural, field = kinds[key]
                if (source := self.store.find(plural, namespace, volume[key][field])) is None:
                    raise KeyError(f"{plural}/{volume[key][field]}")
                for name, value in source["data"].items():
                    (folder / name).write_bytes(base64.b64decode(value) if key == "secret" else value.encode())
        for mount in self.container.get("volumeMounts", []):
            # What is claimed stays, whichever pod of that name comes; the folder is the name's.
            folder = self.folder / "volumes" / mount["name"]
            folder.mkdir(parents=True, exist_ok=True)
            self.mounts[mount["mountPath"]] = folder / mount.get("subPath", "")
        known = Cluster([i for p in ("configmaps", "secrets") for i in self.store.list(p, namespace)], None)
        for source in self.container.get("envFrom", []):
            for key, kind in (("configMapRef", "ConfigMap"), ("secretRef", "Secret")):
                if key in source and known.find(kind, source[key]["name"]) is None:
                    raise KeyError(f"{kind}/{source[key]['name']}")
        for variable in self.container.get("env", []):
            wanted = variable.get("valueFrom", {}).get("secretKeyRef")
            if wanted and wanted["key"] not in known.data("Secret", wanted["name"]):
                raise KeyError(f"key {wanted['key']} in Secret/{wanted['name']}")
        fields = {"metadata.name": self.name, "metadata.namespace": namespace, "spec.nodeName": self.node,
                  "status.podIP": self.address}
        given = known.environment(self.container, fields)
        self.command, self.environment = self.kubelet.images.start(self, self.container, given)

    def local(self, argument):
        """An argument with the folders that stand in for mounted ones."""
        for path, folder in sorted(self.mounts.items(), reverse=True):
            argument = re.sub(rf"(^|=){re.escape(path)}(?=/|$)", lambda match: f"{match[1]}{folder}", argument)
        return argument

    def live(self):
        """Starts the process, again and again where its pod's policy says so, until it is told to end."""
        policy, pause = self.pod["spec"].get("restartPolicy", "Always"), RESTART
        while not self.going and not self.powerless:
            self.begin()
            if not self.supervise():
                break
            self.code, self.ready, self.started = self.process.wait(), False, False
            well = self.code == 0
            if policy == "Never" or policy == "OnFailure" and well:
                over = {"exitCode": self.code, "reason": "Completed" if well else "Error", "finishedAt": now()}
                self.tell("Succeeded" if well else "Failed", {"terminated": over})
                while not self.going:
                    self.something_happened(60)
                return
            self.restarts += 1
            self.tell("Running", waiting("CrashLoopBackOff", f"exit {self.code}"))
            wake = time.monotonic() + pause
            while not self.going and time.monotonic() < wake:
                self.something_happened(wake - time.monotonic())
            pause = min(2 * pause, RESTART_MOST)

    def begin(self):
        directory = self.local(self.container["workingDir"]) if "workingDir" in self.container else self.folder
        with open(self.log_file, "ab") as log:
            self.process = subprocess.Popen(
                ["ip", "netns", "exec", self.netns, *self.command], env=self.environment, cwd=directory,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )
        threading.Thread(target=self.notify_after, args=(self.process,), daemon=True).start()

    def notify_after(self, process):
        process.wait()
        self.notify()

    def supervise(self):
        """Probes until the process ends (True), or it is time to end it; then it is ended (False)."""
        probes = {kind: Probe(kind, self.container, self.address)
                  for kind in ("startupProbe", "readinessProbe", "livenessProbe") if kind in self.container}
        self.started, self.ready = "startupProbe" not in probes, not probes
        running = {"running": {"startedAt": now()}}
        self.tell("Running", running)
        while self.is_running():
            if self.going:
                self.end()
                return False
            before = self.started, self.ready
            for kind in ("readinessProbe", "livenessProbe") if self.started else ("startupProbe",):
                if kind in probes and time.monotonic() >= probes[kind].due:
                    self.take(kind, probes[kind].look())
            if "readinessProbe" not in probes:
                self.ready = self.started
            if (self.started, self.ready) != before:
                self.tell("Running", running)
                continue
            due = [probe.due for kind, probe in probes.items() if (kind == "startupProbe") != self.started]
            self.something_happened(min(due, default=time.monotonic() + 60) - time.monotonic())
        return not self.gone and not self.powerless

    def take(self, kind, result):
        if kind == "startupProbe" and result:
            self.started = True
        elif kind == "readinessProbe" and result is not None:
            self.ready = result
        elif result is False:
            # It did not start, or does not live.
            self.process.terminate()

    def end(self):
        """preStop, SIGTERM, the rest of the grace period, SIGKILL."""
        if self.gone:
            return
        self.told_to_end, self.ready = True, False
        self.tell("Running", {"running": {"startedAt": now()}})
        deadline = time.monotonic() + self.pod["spec"]["terminationGracePeriodSeconds"]
        hook = self.container.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command")
        if hook:
            subprocess.run(["ip", "netns", "exec", self.netns, *hook], env=self.environment, check=False)
        self.process.send_signal(signal.SIGTERM)
        while self.is_running() and not self.gone and not self.powerless:
            if (left := deadline - time.monotonic()) <= 0:
                self.killed = True
                break
            self.something_happened(left)
        if self.is_running():
            self.kill()
        self.code = self.process.wait()

    def kill(self):
        """Everything in it, as when a container's first process dies."""
        for pid in run("ip", "netns", "pids", self.netns).split():
            try:
                os.kill(int(pid), signal.SIGKILL)
            except ProcessLookupError:
                pass

    def clean(self):
        self.kill()
        if self.process is not None:
            self.process.wait()
        run("ip", "netns", "delete", self.netns)
        if not self.powerless:
            self.store.remove(self.pod)
