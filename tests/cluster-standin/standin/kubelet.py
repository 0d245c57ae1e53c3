"""Runs the pods of the stand-in: each is a process in a network namespace of its own, with an address of its own.

It does what a kubelet does with a container: environment and files from ConfigMaps and Secrets, security contexts and
read-only roots (container.py), probes, restarts, preStop, SIGTERM, grace period, SIGKILL. It is all nodes at once, and
the scheduler, the names of Services, and the network plug-in that enforces policies (tests/deploy/policies.py). An emptyDir is full
at its sizeLimit, where a kubelet would evict the pod a little later.

Left out: limits of CPU and memory, seccomp, process tables of their own, the size of claimed storage, probes by
command, containers beside the first, IPv6.
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

# A bridge is the cluster's network; the node's address is that of all nodes.
BRIDGE, RESOLVER = "pods", "10.88.0.10"
CLUSTER_DOMAIN = "svc.cluster.local"
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


def run(*command, **options):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, **options)
    if done.returncode:
        raise AssertionError(f"{' '.join(map(str, command))}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


class Kubelet(threading.Thread):
    """Of all nodes. Looks at the pods whenever something has changed."""

    def __init__(self, store, images, scratch, hosts, names_file):
        super().__init__(daemon=True, name="kubelet")
        self.store, self.images, self.scratch = store, images, scratch
        # Names that are not of the cluster: lines of a hosts file.
        self.hosts, self.names, self.names_file = hosts, None, names_file
        # By uid, in the order of their start; those that are over stay.
        self.runners, self.dead = {}, set()
        # Names of pods, and their ports to which somebody came through the API server.
        self.reached = set()
        # Held while rules are loaded or read, and while a network with rules goes.
        self.enforcing = threading.RLock()
        # In a user namespace of one user nobody can become another.
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
                self.store.update(pod, lambda there: there | {"spec": there["spec"] | {"nodeName": node}})
            elif uid not in self.runners and pod["spec"]["nodeName"] not in self.dead:
                self.runners[uid] = Runner(self, pod, len(self.runners) + 1)
                self.runners[uid].start()
        for uid, runner in self.runners.items():
            runner.look(pods.get(uid))
        self.write_names(pods.values())
        self.enforce()

    def enforce(self):
        """Loads the rules of every pod for which they have changed."""
        with self.enforcing:
            pods = self.store.list("pods")
            known = policies.Policies(self.store.list("networkpolicies"), pods, self.store.list("namespaces"))
            for pod in pods:
                runner = self.runners.get(pod["metadata"]["uid"])
                if runner is not None and runner.has_network:
                    runner.load(known.ruleset(pod, NODE))

    def all_runners(self):
        """Those of this moment: more may come while somebody looks."""
        return list(self.runners.values())

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
                    full = f"{name}.{service['metadata']['namespace']}.{CLUSTER_DOMAIN}"
                    lines.append(f"{pod['status']['podIP']} {name} {full}")
        if lines != self.names:
            self.names = lines
            text = "\n".join(lines) + "\n"
            # Whoever asks at this moment finds the old names or the new ones.
            self.names_file.with_suffix(".part").write_text(text, encoding="utf-8")
            self.names_file.with_suffix(".part").rename(self.names_file)
            Path("/etc/hosts").write_text(text, encoding="utf-8")

    def power_off(self, node):
        """No goodbye on any connection: the cables are out before the first process is dead; nobody tells of it."""
        self.dead.add(node)
        lost = [runner for runner in self.all_runners() if runner.node == node and runner.is_alive()]
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
            [*runner.enter(), *command], stdin=subprocess.PIPE if with_input else subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=runner.environment,
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
        if pod["metadata"].get("labels", {}).get("k8s-app") == "kube-dns":
            self.address = RESOLVER
        self.folder = kubelet.scratch / self.name
        self.folder.mkdir(parents=True, exist_ok=True)
        self.log_file = self.folder.with_suffix(".log")
        self.netns = f"pod{number}"
        # What the object in the store says: go, or gone.
        self.going, self.gone, self.powerless = False, False, False
        self.process, self.environment = None, {}
        self.has_network, self.rules, self.dropped = False, None, set()
        self.restarts, self.ready, self.started, self.start_time = 0, False, False, now()
        # How it ended: what came of the process, and whether it had to be killed at the end of its grace period.
        self.told_to_end, self.killed, self.code = False, False, None
        self.happened = threading.Condition()

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

    @property
    def lost(self):
        """Whether it went without a goodbye."""
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
        for command in (f"addr add {self.address}/16 dev eth0", "link set eth0 up", "link set lo up",
                        "route add default dev eth0"):
            run("ip", "-n", self.netns, *command.split())
        # With the address known, its own rules are there, and those of whom it talks to, before it says a word.
        self.tell("Pending", waiting("ContainerCreating", ""))
        self.has_network = True
        self.kubelet.enforce()
        if self.kubelet.images.find(self.container["image"]) is None:
            self.tell("Pending", waiting("ImagePullBackOff", "no such image on this machine"))
            while not self.going:
                self.something_happened(60)
            return False
        while not self.going:
            try:
                self.set_up()
                return True
            except KeyError as missing:
                self.tell("Pending", waiting("CreateContainerConfigError", f"there is no {missing}"))
                self.something_happened(1)
        return False

    def load(self, rules):
        """In one step: there is no moment without rules."""
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
        """What its rules have dropped so far: (direction, the other end's address, protocol, port) each."""
        with self.kubelet.enforcing:
            if self.has_network and self.rules:
                told = run(*self.in_network(), policies.NFT, "--json", "list", "table", *policies.TABLE.split())
                self.dropped |= set(policies.dropped(told))
            return self.dropped

    def enter(self):
        """The command before a command that is to run in this container, as the process there does."""
        target = ["nsenter", f"--target={self.process.pid}", "--net", "--mount", "--uts", "--wd"]
        return [*target, *container.setpriv(self.security, self.kubelet.only_root)]

    def set_up(self):
        """What the container is made of: user, volumes, environment, command."""
        image = self.kubelet.images.find(self.container["image"])
        self.security = container.security_of(self.pod["spec"], self.container, image.user)
        if self.security.get("runAsNonRoot") and self.security["runAsUser"] == 0:
            raise KeyError("user but root in the image, and runAsNonRoot")
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
        """What the kubelet writes into every container."""
        own = f"{self.pod['metadata']['namespace']}.{CLUSTER_DOMAIN}"
        search = f"{own} {CLUSTER_DOMAIN} {CLUSTER_DOMAIN.partition('.')[2]}"
        return {"/etc/hosts": f"127.0.0.1 localhost\n{self.address} {self.name}\n",
                "/etc/resolv.conf": f"nameserver {RESOLVER}\nsearch {search}\noptions ndots:5\n"}

    def known_settings(self):
        """The namespace's ConfigMaps and Secrets, when those are there that the container names."""
        namespace = self.pod["metadata"]["namespace"]
        known = Cluster([i for p in ("configmaps", "secrets") for i in self.store.list(p, namespace)], None)
        for source in self.container.get("envFrom", []):
            for key, kind in (("configMapRef", "ConfigMap"), ("secretRef", "Secret")):
                if key in source and known.find(kind, source[key]["name"]) is None:
                    raise KeyError(f"{kind}/{source[key]['name']}")
        for variable in self.container.get("env", []):
            wanted = variable.get("valueFrom", {}).get("secretKeyRef")
            if wanted and wanted["key"] not in known.data("Secret", wanted["name"]):
                raise KeyError(f"key {wanted['key']} in Secret/{wanted['name']}")
        return known

    def volumes(self):
        """Writes what is in ConfigMaps and Secrets; (source, path, whether read-only) of each mount."""
        found, told = [], {volume["name"]: volume for volume in self.pod["spec"].get("volumes", [])}
        for mount in self.container.get("volumeMounts", []):
            # What is claimed stays, whichever pod of that name comes; the folder is the name's.
            volume, folder = told.get(mount["name"], {}), self.folder / "volumes" / mount["name"]
            folder.mkdir(parents=True, exist_ok=True)
            written = bool({"configMap", "secret"} & volume.keys())
            if "hostPath" in volume:
                folder = Path(volume["hostPath"]["path"])
            elif written:
                self.write_volume(volume, folder)
            else:
                self.hand_over(volume, folder)
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

    def hand_over(self, volume, folder):
        """Makes a volume that can be written to: an emptyDir everybody's, the group of both `fsGroup`."""
        if "emptyDir" in volume and not folder.is_mount():
            limit = (volume["emptyDir"] or {}).get("sizeLimit")
            options = [f"size={quantity(limit):.0f}"] if limit else []
            run("mount", "-t", "tmpfs", "-o", ",".join(["mode=777", *options]), "tmpfs", folder)
        group = self.security.get("fsGroup")
        if group is not None and not self.kubelet.only_root:
            os.chown(folder, -1, group)
            folder.chmod(folder.stat().st_mode | 0o2070)

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
        here, there = os.pipe()
        enter = ["ip", "netns", "exec", self.netns, sys.executable, "-B", "-I", container.__file__]
        with open(self.log_file, "ab") as log, open(here, "rb") as begun:
            self.process = subprocess.Popen([*enter, self.specification, str(there)], env=self.environment, stdout=log,
                                            stderr=log, stdin=subprocess.DEVNULL, pass_fds=(there,))
            os.close(there)
            # Until the container's command runs, or could not be run: nobody may enter what is not there yet.
            begun.read()
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
            subprocess.run([*self.enter(), *hook], env=self.environment, check=False)
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
        with self.kubelet.enforcing:
            self.drops()
            self.has_network = False
            run("ip", "netns", "delete", self.netns)
        for folder in (self.folder / "volumes").glob("*"):
            if folder.is_mount():
                run("umount", folder)
        if not self.powerless:
            self.store.remove(self.pod)
