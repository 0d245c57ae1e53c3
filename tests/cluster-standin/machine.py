"""A stand-in for a cluster on this machine, without Kubernetes, and the photo hosts outside it."""

import csv
import io
import os
import subprocess
import urllib.request
from pathlib import Path

from standin.apiserver import Api, Server, Store
from standin.autoscaler import Autoscaler
from standin.controllers import Controllers
from standin.images import Images
from standin.kubelet import BRIDGE, NODE, Kubelet, inside, run as shell
from installation import Installation, say, until
from ways import Ways

from manifests import PACKAGES, ROOT

# The number of photo hosts. With this many, the rate limit per host does not slow the workers.
HOSTS = 64
# KEDA and HPA run this many times faster. The cool-down takes 5 s. The RabbitMQ figures are 2 s old.
SPEED_UP = 60
# The photo host: a network namespace and a public address without an owner (AS112, RFC 7535).
OUTSIDE = "outside", "192.31.196.10"


class StandIn:
    """A cluster without Kubernetes. It needs a process in separate namespaces."""

    def __init__(self, scratch, program):
        self.scratch, self.program = scratch, program
        shell("mount", "-t", "tmpfs", "tmpfs", "/run")
        pods = Path("/run/facemill")
        pods.mkdir()
        shell("mount", "--bind", scratch, pods)
        shell("ip", "link", "set", "lo", "up")
        shell("ip", "link", "add", BRIDGE, "type", "bridge")
        shell("ip", "link", "set", BRIDGE, "up")
        shell("ip", "addr", "add", f"{NODE}/16", "dev", BRIDGE)
        self.connect_outside()
        names = ["photos", "archive", "busy", "slow", "hostile"] + [f"photos-{number}" for number in range(HOSTS)]
        (scratch / "hosts").touch()
        shell("mount", "--bind", scratch / "hosts", "/etc/hosts")
        for folder in ("bin", "names"):
            (pods / folder).mkdir()
        store = Store()
        self.controllers = Controllers(store)
        hosts = ["127.0.0.1 localhost", *(f"{OUTSIDE[1]} {name}.test" for name in names)]
        self.names = pods / "names"
        self.kubelet = Kubelet(store, Images(program, pods / "bin"), pods / "pods", hosts, self.names / "hosts")
        self.ways = Ways(self.kubelet, OUTSIDE)
        self.api = Server(Api(store, keda=True, kubelet=self.kubelet))
        # The autoscaler connects from the pod in the namespace of KEDA.
        self.autoscaler = Autoscaler(store, SPEED_UP, lambda: inside(self.ways.runner("keda").netns), say)
        self.api.kubeconfig(scratch / "kubeconfig")

    def connect_outside(self):
        """Connects the photo host to the bridge of the pods, so that no router is necessary."""
        name, address = OUTSIDE
        shell("ip", "netns", "add", name)
        shell("ip", "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name)
        shell("ip", "link", "set", name, "master", BRIDGE, "up")
        shell("ip", "route", "add", f"{address}/32", "dev", BRIDGE)
        for command in (f"addr add {address}/32 dev eth0", "link set eth0 up", "link set lo up",
                        "route add default dev eth0"):
            shell("ip", "-n", name, *command.split())

    def installation(self):
        # An empty S3_URL sends the dump through the API server. The host names also resolve to pods.
        installation = Installation(ROOT / "tests/cluster-standin/overlays/stand-in", {
            "S3_URL": "", "KUBECONFIG": str(self.scratch / "kubeconfig"), "KUBECACHEDIR": str(self.scratch / "cache"),
            "PATH": f"{PACKAGES / 'bin'}:{os.environ['PATH']}",
        }, check_ways=self.check_ways, has_users=not self.kubelet.only_root)
        neighbours = (ROOT / "tests/deploy/neighbours.yaml").read_text(encoding="utf-8")
        installation.run("kubectl", "apply", "--filename=-", input=neighbours.replace("NAMES", str(self.names)))
        ready = ("--for=condition=Ready", "pod", "--all", "--all-namespaces", "--timeout=60s")
        installation.run("kubectl", "wait", *ready)
        return installation

    def check_ways(self):
        """Checks the connections. Ignores drops from before all policies are in force."""
        until("every pod has a network", self.ways.are_there, pause=0.1)
        self.kubelet.enforce()
        for runner in self.kubelet.all_runners():
            runner.forget_drops()
        say(self.ways.check())

    def make_dump(self, copies):
        """Writes a dump with several copies of each demonstration photo. Starts the photo host."""
        photos = self.scratch / "photos"
        with open(self.scratch / "photos.log", "wb") as log:
            name, address = OUTSIDE
            command = ["demo", "--serve", f"{address}:80", "--photos", ROOT / ".cache/photos", "--out", photos]
            self.photo_host = subprocess.Popen(["ip", "netns", "exec", name, self.program.binary, *command], stdout=log,
                                               stderr=log, stdin=subprocess.DEVNULL, cwd=self.scratch)
        until("the photos are served", (photos / "truth.tsv").is_file, pause=0.1)
        listed = list(csv.DictReader(io.StringIO(shell(self.program.binary, "candidates", photos / "demo.sql"))))
        near = [row for row in listed if "//photos.test/" in row["photo_url"] or "//archive.test/" in row["photo_url"]]
        dump = self.scratch / "candidates.csv"
        with open(dump, "w", encoding="utf-8", newline="") as file:
            table = csv.DictWriter(file, near[0].keys())
            table.writeheader()
            for copy in range(copies):
                for number, row in enumerate(near):
                    ids = {key: f"{int(row[key]) + copy * 100_000}" for key in row if key in ("photo_id", "face_id")}
                    mark = "&" if "?" in row["photo_url"] else "?"
                    host = f"//photos-{(copy * len(near) + number) % HOSTS}.test/"
                    url = row["photo_url"].replace("//photos.test/", host).replace("//archive.test/", host)
                    table.writerow(row | ids | {"photo_url": f"{url}{mark}copy={copy}"})
        return dump

    def judge(self):
        """Checks the worker exits, the drops of the policies, and that the dump used `port-forward`."""
        assert ("seaweedfs-0", 8333) in self.kubelet.reached, self.kubelet.reached
        faults = []
        stopped = [runner for runner in self.kubelet.all_runners() if runner.told_to_end and not runner.powerless]
        for runner in stopped:
            if runner.killed or runner.code != 0:
                tail = runner.log_file.read_text(encoding="utf-8", errors="replace")[-1500:]
                # The page refuses to start before the first user is added, and was told to end while it did.
                if runner.code == 3 and "there are no users" in tail:
                    continue
                faults.append(f"{runner.name} did not exit cleanly: {runner.code}\n{tail}")
        faults += [f"the policies dropped {surprise}" for surprise in self.ways.surprises()]
        assert not faults, "\n".join(faults)
        say(f"{len(stopped)} workers received a stop signal: each exited cleanly within its grace period")
        say("the policies dropped only the connections of this test")

    def measurements(self, installation, folder):
        """Stores the metrics of all workers for `facemill simulate`."""
        folder.mkdir(parents=True, exist_ok=True)
        for pod in installation.workers():
            with urllib.request.urlopen(f"http://{pod['status']['podIP']}:9100/metrics", timeout=5) as answer:
                (folder / f"{pod['metadata']['name']}.prom").write_bytes(answer.read())
