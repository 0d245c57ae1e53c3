"""Runs the pods of the stand-in. Each pod is a process with its own network namespace and address.

It implements a kubelet's handling of a container: environment and files from ConfigMaps and Secrets, security contexts
and read-only roots (container.py), probes, restarts, preStop, SIGTERM, grace period, SIGKILL. One instance serves all
nodes. It is also the scheduler, the name service for Services and the network plug-in that enforces policies
(tests/deploy/policies.py). An emptyDir is full at its sizeLimit; a real kubelet evicts the pod a little later.

Not implemented: CPU and memory limits, seccomp, PID namespaces, the size of claimed storage, exec probes, containers
after the first, IPv6.
"""

import base64
import contextlib
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import policies
from connections import NODE
from manifests import Cluster, quantity

from . import container
from .apiserver import Refused, now
from .controllers import condition, give_up, is_going, is_ready

# The cluster network is a bridge. All nodes share one address.
BRIDGE, RESOLVER = "pods", "10.88.0.10"
CLUSTER_DOMAIN = "svc.cluster.local"
# First and maximum restart delay in seconds; the delay doubles at each restart. A kubelet uses 10 and 300.
RESTART, RESTART_MOST = 1, 8
# Tests power off worker nodes only.
SERVERS, WORKERS = "servers-1", ("workers-1", "workers-2")


@contextlib.contextmanager
def inside(netns):
    """Moves this thread into a network namespace. Sockets created inside stay in that namespace."""
    system = ctypes.CDLL(None, use_errno=True)

    def enter(namespace):
        if system.setns(namespace.fileno(), 0):
            raise OSError(ctypes.get_errno(), f"setns: {os.strerror(ctypes.get_errno())}")

    with open("/proc/thread-self/ns/net", "rb") as home, open(f"/run/netns/{netns}", "rb") as target:
        enter(target)
        try:
            yield
        finally:
            enter(home)


def run(*command, **options):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, **options)
    if done.returncode:
        raise AssertionError(f"{' '.join(map(str, command))}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


class Kubelet(threading.Thread):
    """The kubelet of all nodes. Processes the pods after each change in the store."""

    def __init__(self, store, images, scratch, hosts, names_file):
        super().__init__(daemon=True, name="kubelet")
        self.store, self.images, self.scratch = store, images, scratch
        # Lines of a hosts file for names outside the cluster.
        self.hosts, self.names, self.names_file = hosts, None, names_file
        # Runners by pod uid, in start order. Finished runners stay.
        self.runners, self.dead = {}, set()
        # (pod name, port) of each connection through the API server.
        self.reached = set()
        # Held while rules are loaded or read, and while a network namespace with rules is deleted.
        self.enforcing = threading.RLock()
        # A user namespace that maps a single user cannot switch users.
        users = Path("/proc/self/uid_map").read_text(encoding="ascii").splitlines()
        self.only_root = sum(int(line.split()[2]) for line in users) == 1
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
                self.store.update(pod, lambda current: current | {"spec": current["spec"] | {"nodeName": node}})
            elif uid not in self.runners and pod["spec"]["nodeName"] not in self.dead:
                self.runners[uid] = Runner(self, pod, len(self.runners) + 1)
                self.runners[uid].start()
        for uid, runner in self.runners.items():
            runner.look(pods.get(uid))
        self.write_names(pods.values())
        self.enforce()

    def enforce(self):
        """Loads the rules of each pod whose rules have changed."""
        with self.enforcing:
            pods = self.store.list("pods")
            known = policies.Policies(self.store.list("networkpolicies"), pods, self.store.list("namespaces"))
            for pod in pods:
                runner = self.runners.get(pod["metadata"]["uid"])
                if runner is not None and runner.has_network:
                    runner.load(known.ruleset(pod, NODE))

    def all_runners(self):
        """A copy of the current runners. The kubelet thread may add more during iteration."""
        return list(self.runners.values())

    def node_for(self, pod):
        """All workers go to the first live worker node, so that a node failure affects every stage."""
        if pod["metadata"]["labels"].get("role") != "worker":
            return SERVERS
        live = {node["metadata"]["name"] for node in self.store.list("nodes")} - self.dead
        return next(name for name in WORKERS if name in live)

    def write_names(self, pods):
        """A Service name resolves to its ready pods."""
        lines = list(self.hosts)
        for service in self.store.list("services"):
            selector, name = service["spec"]["selector"], service["metadata"]["name"]
            for pod in pods:
                if selector.items() <= pod["metadata"]["labels"].items() and is_ready(pod):
                    full = f"{name}.{service['metadata']['namespace']}.{CLUSTER_DOMAIN}"
                    lines.append(f"{pod['status']['podIP']} {name} {full}")
        if lines != self.names:
            self.names = lines
            text = "\n".join(lines) + "\n"
            # The rename is atomic: readers get the old names or the new names.
            self.names_file.with_suffix(".part").write_text(text, encoding="utf-8")
            self.names_file.with_suffix(".part").rename(self.names_file)
            Path("/etc/hosts").write_text(text, encoding="utf-8")

    def power_off(self, node):
        """Sets all network links down before it kills processes. No connection is closed and no status is reported."""
        self.dead.add(node)
        lost = [runner for runner in self.all_runners() if runner.node == node and runner.is_alive()]
        for runner in lost:
            run("ip", "-n", runner.netns, "link", "set", "eth0", "down")
        for runner in lost:
            runner.lose_power()
        return lost

    def log(self, pod, follow):
        """Returns an iterator over chunks of a pod's log. Refused if the container has no log yet."""
        runner = self.runners.get(pod["metadata"]["uid"])
        if runner is None or not runner.log_file.exists():
            container, name = pod["spec"]["containers"][0]["name"], pod["metadata"]["name"]
            message = f'container "{container}" in pod "{name}" is waiting to start: ContainerCreating'
            raise Refused(400, "BadRequest", message)

        def parts():
            with open(runner.log_file, "rb") as file:
                while True:
                    over = not follow or not runner.is_running()
                    while part := file.read(60_000):
                        yield part
                    if over:
                        return
                    runner.wait_for_change(0.2)

        return parts()

    def running(self, pod):
        """The runner of a pod; Refused if the container is not running."""
        runner = self.runners.get(pod["metadata"]["uid"])
        if runner is None or not runner.is_running():
            raise Refused(500, "InternalError", "the container is not running")
        return runner

    def execute(self, pod, command, with_input):
        runner = self.running(pod)
        return subprocess.Popen(
            [*runner.enter(), *command], stdin=subprocess.PIPE if with_input else subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=runner.environment,
        )

    def ports(self, pod):
        """Returns a function that connects to a pod port as a container runtime does: to 127.0.0.1 inside the pod."""
        runner = self.running(pod)

        def connect(port):
            self.reached.add((runner.name, port))
            with inside(runner.netns):
                return socket.create_connection(("127.0.0.1", port))

        return connect


class Probe:
    """One probe of a container, and the time of its next run."""

    def __init__(self, kind, container, address):
        spec = container[kind]
        self.kind, self.address = kind, address
        self.period, self.timeout = spec.get("periodSeconds", 10), spec.get("timeoutSeconds", 1)
        self.threshold, self.failures = spec.get("failureThreshold", 3), 0
        self.how = spec.get("httpGet") or spec.get("tcpSocket")
        if self.how:
            ports = {port["name"]: port["containerPort"] for port in container.get("ports", []) if "name" in port}
            self.port = ports.get(self.how["port"], self.how["port"])
        self.due = time.monotonic() + spec.get("initialDelaySeconds", 0)

    def succeeds(self):
        self.due = time.monotonic() + self.period
        try:
            if self.how is None:
                # Exec probes do not run. They count as successful.
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
        """Runs the probe: True for success, False at the failure threshold, None for a failure below it."""
        if self.succeeds():
            self.failures = 0
            return True
        self.failures += 1
        return False if self.failures >= self.threshold else None


def waiting(reason, message):
    return {"waiting": {"reason": reason, "message": message}}


class Runner(threading.Thread):
    """Runs one pod from start to deletion."""

    def __init__(self, kubelet, pod, number):
        self.kubelet, self.pod, self.store = kubelet, pod, kubelet.store
        super().__init__(daemon=True, name=pod["metadata"]["name"])
        self.node = pod["spec"]["nodeName"]
        self.container = pod["spec"]["containers"][0]
        self.address = f"10.88.{1 + number // 250}.{1 + number % 250}"
        if pod["metadata"].get("labels", {}).get("k8s-app") == "kube-dns":
            self.address = RESOLVER
        self.folder = kubelet.scratch / self.name
        self.folder.mkdir(parents=True, exist_ok=True)
        self.log_file = self.folder.with_suffix(".log")
        self.netns = f"pod{number}"
        # going: the pod is being deleted or is deleted. gone: the pod is not in the store. powerless: the node is off.
        self.going, self.gone, self.powerless = False, False, False
        self.process, self.environment = None, {}
        self.has_network, self.rules, self.dropped = False, None, set()
        self.last_state = {}
        self.restarts, self.ready, self.started, self.start_time = 0, False, False, now()
        # How the pod ended. killed: SIGKILL at the end of the grace period. code: the exit code.
        self.told_to_end, self.killed, self.code = False, False, None
        self.changed = threading.Condition()

    def look(self, pod):
        """Applies the pod's state from the store. None is a removed pod."""
        gone = pod is None
        going = gone or is_going(pod)
        if (going, gone) != (self.going, self.gone):
            self.gone, self.going = gone, going
            if gone and self.is_running():
                self.kill()
            self.notify()

    def notify(self):
        with self.changed:
            self.changed.notify_all()

    def wait_for_change(self, patience):
        with self.changed:
            self.changed.wait(max(0, patience))

    @property
    def lost(self):
        """Whether the pod ended without a graceful termination."""
        return self.powerless or self.gone and not self.told_to_end

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

    def report(self, phase, state):
        """Writes the pod's status to the store, unless the node is off."""
        if self.powerless:
            return
        status = {
            "phase": phase, "podIP": self.address, "podIPs": [{"ip": self.address}], "startTime": self.start_time,
            "conditions": [condition("PodScheduled", True, "Scheduled"), condition("Ready", self.ready, "Probed"),
                           condition("ContainersReady", self.ready, "Probed")],
            "containerStatuses": [{
                "name": self.container["name"], "image": self.container["image"], "imageID": "", "state": state,
                "ready": self.ready, "started": self.started, "restartCount": self.restarts,
                "lastState": self.last_state,
            }],
        }
        if phase in ("Succeeded", "Failed"):
            status["finishedAt"] = time.time()
        self.store.update(self.pod, lambda current: current | {"status": status})

    def prepare(self):
        """Creates network and files, and waits for missing objects. False if the pod is deleted first."""
        run("ip", "netns", "add", self.netns)
        run("ip", "link", "add", f"v{self.netns}", "type", "veth", "peer", "name", "eth0", "netns", self.netns)
        run("ip", "link", "set", f"v{self.netns}", "master", BRIDGE, "up")
        for command in (f"addr add {self.address}/16 dev eth0", "link set eth0 up", "link set lo up",
                        "route add default dev eth0"):
            run("ip", "-n", self.netns, *command.split())
        # Rules need the address. The rules of this pod and of its peers are loaded before its process starts.
        self.report("Pending", waiting("ContainerCreating", ""))
        self.has_network = True
        self.kubelet.enforce()
        if self.kubelet.images.find(self.container["image"]) is None:
            self.report("Pending", waiting("ImagePullBackOff", "no such image on this machine"))
            while not self.going:
                self.wait_for_change(60)
            return False
        while not self.going:
            try:
                self.set_up()
                return True
            except KeyError as missing:
                self.report("Pending", waiting("CreateContainerConfigError", f"missing or invalid: {missing}"))
                self.wait_for_change(1)
        return False

    def load(self, rules):
        """Replaces all rules in one transaction."""
        if rules != self.rules:
            run(*self.in_network(), policies.NFT, "--file", "-", input=rules)
            self.rules = rules

    def in_network(self):
        return ["nsenter", f"--net=/run/netns/{self.netns}"]

    def forget_drops(self):
        with self.kubelet.enforcing:
            self.dropped = set()
            for direction in policies.DIRECTIONS if self.has_network and self.rules else ():
                name = f"{policies.TABLE} dropped_{direction.lower()}"
                run(*self.in_network(), policies.NFT, "flush", "set", *name.split())

    def drops(self):
        """The set of dropped connections: (direction, peer address, protocol, port)."""
        with self.kubelet.enforcing:
            if self.has_network and self.rules:
                table = run(*self.in_network(), policies.NFT, "--json", "list", "table", *policies.TABLE.split())
                self.dropped |= set(policies.dropped(table))
            return self.dropped

    def enter(self):
        """The command prefix that runs a command in this container with the privileges of its process."""
        target = ["nsenter", f"--target={self.process.pid}", "--net", "--mount", "--uts", "--wd"]
        return [*target, *container.setpriv(self.security, self.kubelet.only_root)]

    def set_up(self):
        """Writes the container's specification: user, volumes, environment, command."""
        image = self.kubelet.images.find(self.container["image"])
        self.security = container.security_of(self.pod["spec"], self.container, image.user)
        if self.security.get("runAsNonRoot") and self.security["runAsUser"] == 0:
            raise KeyError("runAsNonRoot with root as the user")
        volumes = self.volumes()
        known = self.known_settings()
        fields = {"metadata.name": self.name, "metadata.namespace": self.pod["metadata"]["namespace"],
                  "spec.nodeName": self.node, "status.podIP": self.address}
        command, environment, files = image.start(self.container, known.environment(self.container, fields))
        self.environment = {"PATH": "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/"} | environment
        self.specification = self.folder / "container.json"
        root = self.folder / "root"
        root.mkdir(exist_ok=True)
        self.specification.write_text(json.dumps({
            "name": self.name, "root": str(root), "read_only": self.security.get("readOnlyRootFilesystem", False),
            "image": self.kubelet.images.mounts, "files": files | self.own_files(), "volumes": volumes,
            "directory": self.container.get("workingDir", image.directory),
            "command": [*container.setpriv(self.security, self.kubelet.only_root), *command],
        }), encoding="utf-8")

    def own_files(self):
        """The files that the kubelet writes into each container."""
        own = f"{self.pod['metadata']['namespace']}.{CLUSTER_DOMAIN}"
        search = f"{own} {CLUSTER_DOMAIN} {CLUSTER_DOMAIN.partition('.')[2]}"
        return {"/etc/hosts": f"127.0.0.1 localhost\n{self.address} {self.name}\n",
                "/etc/resolv.conf": f"nameserver {RESOLVER}\nsearch {search}\noptions ndots:5\n"}

    def known_settings(self):
        """The namespace's ConfigMaps and Secrets. KeyError if one that the container references is missing."""
        namespace = self.pod["metadata"]["namespace"]
        known = Cluster([i for p in ("configmaps", "secrets") for i in self.store.list(p, namespace)], None)
        for source in self.container.get("envFrom", []):
            for key, kind in (("configMapRef", "ConfigMap"), ("secretRef", "Secret")):
                if key in source and known.find(kind, source[key]["name"]) is None:
                    raise KeyError(f"{kind}/{source[key]['name']}")
        for variable in self.container.get("env", []):
            wanted = variable.get("valueFrom", {}).get("secretKeyRef")
            if wanted and not wanted.get("optional") and wanted["key"] not in known.data("Secret", wanted["name"]):
                raise KeyError(f"key {wanted['key']} in Secret/{wanted['name']}")
        return known

    def volumes(self):
        """Prepares the volumes. Returns (source, path, read-only) of each mount."""
        found, declared = [], {volume["name"]: volume for volume in self.pod["spec"].get("volumes", [])}
        for mount in self.container.get("volumeMounts", []):
            # The folder belongs to the pod name, so claimed storage persists for the next pod of that name.
            volume, folder = declared.get(mount["name"], {}), self.folder / "volumes" / mount["name"]
            folder.mkdir(parents=True, exist_ok=True)
            written = bool({"configMap", "secret"} & volume.keys())
            if "hostPath" in volume:
                folder = Path(volume["hostPath"]["path"])
            elif written:
                self.write_volume(volume, folder)
            else:
                self.prepare_writable(volume, folder)
            read_only = written or mount.get("readOnly", False)
            found.append((str(folder / mount.get("subPath", "")), mount["mountPath"], read_only))
        return found

    def write_volume(self, volume, folder):
        for key, plural, field in (("configMap", "configmaps", "name"), ("secret", "secrets", "secretName")):
            if key in volume:
                source = self.store.find(plural, self.pod["metadata"]["namespace"], volume[key][field])
                if source is None:
                    raise KeyError(f"{plural}/{volume[key][field]}")
                for name, value in source["data"].items():
                    (folder / name).write_bytes(base64.b64decode(value) if key == "secret" else value.encode())

    def prepare_writable(self, volume, folder):
        """Prepares a writable volume: an emptyDir is a tmpfs with mode 777; the group of any volume is `fsGroup`."""
        if "emptyDir" in volume and not folder.is_mount():
            limit = (volume["emptyDir"] or {}).get("sizeLimit")
            options = [f"size={quantity(limit):.0f}"] if limit else []
            run("mount", "-t", "tmpfs", "-o", ",".join(["mode=777", *options]), "tmpfs", folder)
        group = self.security.get("fsGroup")
        if group is not None and not self.kubelet.only_root:
            os.chown(folder, -1, group)
            folder.chmod(folder.stat().st_mode | 0o2070)

    def live(self):
        """Runs the process, and restarts it per restartPolicy, until the pod is deleted."""
        policy, pause = self.pod["spec"].get("restartPolicy", "Always"), RESTART
        while not self.going and not self.powerless:
            self.begin()
            if not self.supervise():
                break
            self.code, self.ready, self.started = self.process.wait(), False, False
            well = self.code == 0
            if policy == "Never" or policy == "OnFailure" and well:
                over = {"exitCode": self.code, "reason": "Completed" if well else "Error", "finishedAt": now()}
                self.report("Succeeded" if well else "Failed", {"terminated": over})
                while not self.going:
                    self.wait_for_change(60)
                return
            self.restarts += 1
            # As shells do: 137 after SIGKILL.
            code = self.code if self.code >= 0 else 128 - self.code
            self.last_state = {"terminated": {"exitCode": code, "reason": "Error", "finishedAt": now()}}
            self.report("Running", waiting("CrashLoopBackOff", f"exit {self.code}"))
            wake = time.monotonic() + pause
            while not self.going and time.monotonic() < wake:
                self.wait_for_change(wake - time.monotonic())
            pause = min(2 * pause, RESTART_MOST)

    def begin(self):
        reader, writer = os.pipe()
        enter = ["ip", "netns", "exec", self.netns, sys.executable, "-B", "-I", container.__file__]
        with open(self.log_file, "ab") as log, open(reader, "rb") as begun:
            self.process = subprocess.Popen([*enter, self.specification, str(writer)], env=self.environment,
                                            stdout=log, stderr=log, stdin=subprocess.DEVNULL, pass_fds=(writer,))
            os.close(writer)
            # Waits until the command runs or fails to start. Entering the container is not possible before.
            begun.read()
        threading.Thread(target=self.notify_after, args=(self.process,), daemon=True).start()

    def notify_after(self, process):
        process.wait()
        self.notify()

    def supervise(self):
        """Runs the probes until the process ends (True). Ends the process (False) if the pod is deleted.

        The result is also False if the node is off.
        """
        probes = {kind: Probe(kind, self.container, self.address)
                  for kind in ("startupProbe", "readinessProbe", "livenessProbe") if kind in self.container}
        self.started, self.ready = "startupProbe" not in probes, not probes
        running = {"running": {"startedAt": now()}}
        self.report("Running", running)
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
                self.report("Running", running)
                continue
            due = [probe.due for kind, probe in probes.items() if (kind == "startupProbe") != self.started]
            self.wait_for_change(min(due, default=time.monotonic() + 60) - time.monotonic())
        return not self.gone and not self.powerless

    def take(self, kind, result):
        if kind == "startupProbe" and result:
            self.started = True
        elif kind == "readinessProbe" and result is not None:
            self.ready = result
        elif result is False:
            # The startup or liveness probe failed.
            self.process.terminate()

    def end(self):
        """Ends the process: preStop, SIGTERM, the rest of the grace period, SIGKILL."""
        if self.gone:
            return
        self.told_to_end, self.ready = True, False
        self.report("Running", {"running": {"startedAt": now()}})
        deadline = time.monotonic() + self.pod["spec"]["terminationGracePeriodSeconds"]
        hook = self.container.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command")
        if hook:
            subprocess.run([*self.enter(), *hook], env=self.environment, check=False)
        self.process.send_signal(signal.SIGTERM)
        while self.is_running() and not self.gone and not self.powerless:
            if (left := deadline - time.monotonic()) <= 0:
                self.killed = True
                break
            self.wait_for_change(left)
        if self.is_running():
            self.kill()
        self.code = self.process.wait()

    def kill(self):
        """Kills all processes of the pod, as the end of a container's first process does."""
        for pid in run("ip", "netns", "pids", self.netns).split():
            try:
                os.kill(int(pid), signal.SIGKILL)
            except ProcessLookupError:
                pass

    def clean(self):
        self.kill()
        if self.process is not None:
            self.process.wait()
        with self.kubelet.enforcing:
            self.drops()
            self.has_network = False
            run("ip", "netns", "delete", self.netns)
        for folder in (self.folder / "volumes").glob("*"):
            if folder.is_mount():
                run("umount", folder)
        if not self.powerless:
            self.store.remove(self.pod)
