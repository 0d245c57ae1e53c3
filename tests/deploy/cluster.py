#!/usr/bin/env python3
"""A whole life of an installation: apply, submit, scale, update, kill; and at the end every photo is accounted for.

  tests/deploy/cluster.py                                   a stand-in of a cluster (Linux; root, or user namespaces)
  CONTEXT=kind-kind DUMP=dump.sql tests/deploy/cluster.py   a real one, with k8s/overlays/dev and a dump of yours

Everything is done as a person would do it: with kubectl and deploy/submit.sh. The stand-in is an API server for kubectl
(apiserver.py), the controllers (controllers.py) and a kubelet (kubelet.py), which runs the manifests' pods as processes
in network namespaces of their own, with the policies, users and roots that the manifests name. The servers are real
ones. There, a second life follows in which nobody scales by hand: autoscaler.py does what KEDA would. All of it lives
in namespaces of this process and ends with it.
"""

import argparse
import csv
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import manifests
from standin.apiserver import Api, Server, Store
from standin.autoscaler import PAUSED_REPLICAS, Autoscaler
from standin.controllers import Controllers, is_going, is_ready
from forwarding import forwarding
from standin.images import Images
from standin.kubelet import BRIDGE, NODE, Kubelet, inside, run as shell
from manifests import PACKAGES, ROOT, Program
from ways import Ways

STAGES = ("fetch", "detect", "crop", "classify")
# Who each of them is, and where it may write.
USERS = {f"deployment/{stage}": (65532, "/tmp") for stage in STAGES} | {
    "statefulset/rabbitmq": (999, "/var/lib/rabbitmq"), "statefulset/redis": (999, "/data"),
    "statefulset/seaweedfs": (1000, "/data"),
}
INSIDE = "FACEMILL_TEST_INSIDE"
PATIENCE = 300
RUN = "faces"
# So many that no host is asked as often as would be impolite: the workers are tried here, not their patience.
HOSTS = 64
# So many seconds of KEDA and HPA go by in one: the cool-down takes five, and RabbitMQ's figures are two old.
HASTE = 60
# The photos' host: a network namespace, and an address that is public by its number, but nobody's (AS112, RFC 7535).
OUTSIDE = "outside", "192.31.196.10"


def say(text):
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def until(what, answer, patience=PATIENCE, pause=1):
    """Asks until there is an answer: nobody tells when something becomes true."""
    deadline = time.monotonic() + patience
    while not (found := answer()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {patience} s in vain: {what}")
        time.sleep(pause)
    return found


class Installation:
    """An installation in a cluster, as a person sees it."""

    def __init__(self, overlay, environment, context=None, check_ways=lambda: None, has_users=True):
        self.overlay, self.environment, self.context = overlay, os.environ | environment, context
        self.check_ways, self.has_users = check_ways, has_users
        self.to_cluster = ["kubectl", *(["--context", context] if context else [])]

    def run(self, *command, more=None, **options):
        environment = self.environment | (more or {})
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False,
                              env=environment, **options)
        if done.returncode:
            raise AssertionError(f"{shlex.join(map(str, command))}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def kubectl(self, *arguments, **options):
        return self.run(*self.to_cluster, "--namespace", "facemill", *arguments, **options)

    def get(self, *arguments):
        return json.loads(self.kubectl("get", *arguments, "--output=json"))["items"]

    def apply(self):
        self.kubectl("apply", "--kustomize", self.overlay)
        # Before anybody is waited for: what is shut out starts again and again.
        self.check_ways()
        self.kubectl("wait", "--for=condition=complete", "job/bucket", "--timeout=300s")
        self.settle()
        self.check_powers()

    def settle(self):
        for stage in STAGES:
            self.kubectl("rollout", "status", f"deployment/{stage}", "--timeout=600s")

    def check_powers(self):
        """Everybody is who the manifests say, has no powers, and writes where a volume is and nowhere else."""
        faults = []
        for target, (user, writable) in USERS.items():
            script = f"cat /proc/self/status; touch {writable}/it; rm {writable}/it; touch /it /usr/it 2>&1 || true"
            said = self.kubectl("exec", target, "--", "sh", "-ec", script)
            told = {name: value.split() for name, _, value in (line.partition(":") for line in said.splitlines())}
            wanted = {"NoNewPrivs": ["1"]} | {f"Cap{kind}": ["0" * 16] for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")}
            if self.has_users:
                wanted |= {"Uid": 4 * [str(user)], "Gid": 4 * [str(user)]}
                if str(user) not in told["Groups"] or "0" in told["Groups"]:
                    faults.append(f"{target}: its other groups are {told['Groups']}")
            faults += [f"{target}: {key} is {told[key]}" for key in wanted if told[key] != wanted[key]]
            if said.count("Read-only file system") != 2:
                faults.append(f"{target}: its root can be written to")
        assert not faults, "\n".join(faults)
        say(f"{len(USERS)} containers run without powers on a read-only root")

    def submit(self, dump, run=RUN):
        """Returns how many photos were enqueued."""
        more = {"DUMP": str(dump), "RUN": run, "CONTEXT": self.context or ""}
        said = self.run(ROOT / "deploy/submit.sh", more=more)
        self.dump = re.search(r"s3://\S+", said)[0]
        # The last line is the command that shows the log.
        shows_log = shlex.split(said.splitlines()[-1])
        self.kubectl("wait", "--for=condition=complete", shows_log[-1], "--timeout=3600s")
        new, known = re.search(r"(\d+) enqueued, (\d+) known", self.run(*shows_log)).groups()
        return int(new) + int(known)

    def as_job(self, *arguments):
        """Runs facemill in a Job made from the cluster's form, and returns what it says."""
        name = f"{arguments[0]}-{time.time_ns()}"
        filled_in = ("--from=cronjob/facemill", "--dry-run=client", "--output=json")
        job = json.loads(self.kubectl("create", "job", name, *filled_in))
        job["spec"]["template"]["spec"]["containers"][0]["args"] = list(arguments)
        job["spec"]["backoffLimit"] = 0
        self.kubectl("create", "--filename=-", input=json.dumps(job))
        return self.said_by(name)

    def said_by(self, name):
        """What a Job says, once it has ended. Then it is deleted."""
        ends = until(f"job {name} ends", lambda: self.conditions(name) & {"Complete", "Failed"})
        said = self.kubectl("logs", f"job/{name}")
        assert "Complete" in ends, said
        self.kubectl("delete", f"job/{name}")
        return said

    def conditions(self, job):
        found = self.kubectl("get", "job", job, "--output=jsonpath={.status.conditions[?(@.status=='True')].type}")
        return set(found.split())

    def status(self):
        said = self.kubectl("exec", "deployment/detect", "--", "facemill", "status", "--run", RUN, "--json")
        return json.loads(said)

    def ended(self):
        return sum(self.status()["ended"].values())

    def workers(self, stage=None):
        """The pods of workers that have not been told to end."""
        component = f",app.kubernetes.io/component={stage}" if stage else ""
        return [pod for pod in self.get("pods", f"--selector=role=worker{component}") if not is_going(pod)]

    def is_empty(self):
        """No worker is there, not even one that has been told to end."""
        return not self.get("pods", "--selector=role=worker")

    def share_of_work(self, stage):
        return [worker["done"] for worker in self.status()["workers"] if worker["stages"] == [stage]]

    def scale(self, stage, number):
        self.kubectl("scale", f"deployment/{stage}", f"--replicas={number}")
        self.kubectl("rollout", "status", f"deployment/{stage}", "--timeout=300s")

    def update(self):
        self.kubectl("rollout", "restart", "deployment", "--selector=role=worker")
        self.settle()

    def kill(self, stage):
        """Without a warning; and waits for the one that takes its place."""
        lost = self.workers(stage)[0]["metadata"]["name"]
        self.kubectl("delete", "pod", lost, "--force", "--grace-period=0")
        until(f"another {stage} worker is ready",
              lambda: any(is_ready(pod) and pod["metadata"]["name"] != lost for pod in self.workers(stage)))

    def kill_node(self, power_off=None):
        """One that has workers, at once and without a goodbye. With kubectl alone, it is all of its workers."""
        in_work = sum(worker["in_flight"] for worker in self.status()["workers"])
        node = self.workers("fetch")[0]["spec"]["nodeName"]
        lost = names(pod for pod in self.workers() if pod["spec"]["nodeName"] == node)
        if power_off:
            power_off(node)
            # What a cloud's node controller does when the machine is gone. Kubernetes alone waits for five minutes.
            self.kubectl("delete", "node", node)
        else:
            self.kubectl("delete", "pod", *lost, "--force", "--grace-period=0")
        for stage in STAGES:
            until(f"another {stage} worker is ready",
                  lambda: any(is_ready(pod) and pod["metadata"]["name"] not in lost for pod in self.workers(stage)))
        return f"{node} with {len(lost)} workers, which had said that they work on {in_work} photos"

    def do_as_the_manual_says(self, dump, photo):
        """Every `kubectl exec` and `port-forward` of docs/kubernetes.md, and its doctor."""
        for line in (ROOT / "docs/kubernetes.md").read_text(encoding="utf-8").splitlines():
            line = line.partition("#")[0].rstrip()
            command = shlex.join(self.to_cluster) + line.removeprefix("kubectl")
            if line.startswith("kubectl -n facemill exec "):
                command = command.replace("4711", photo).replace("< dump.sql", f"< {shlex.quote(str(dump))}")
                self.run("bash", "-c", command)
                say(line)
            elif line.startswith("kubectl -n facemill create job doctor "):
                self.run("bash", "-c", command)
                say(f"{line}: {self.said_by('doctor').strip()}".replace("\n", "; "))
            elif line.startswith("kubectl -n facemill port-forward "):
                say(f"{line}: {self.page_through(command)}")

    def page_through(self, command):
        """What a browser shows of a forwarded port."""
        service = re.search(r" service/(\S+)", command)[1]
        if not any(is_ready(pod) for pod in self.get("pods", f"--selector=app.kubernetes.io/name={service}")):
            assert service == "jaeger", f"no pod of {service} is ready"
            return "not tried, since its pod waits for an image"
        with forwarding(shlex.split(command), self.environment) as (_, port):
            with urllib.request.urlopen(f"http://localhost:{port}/", timeout=30) as answer:
                title = re.search(r"<title>(.*?)</title>", answer.read().decode())[1]
        assert service in title.lower(), f"{service}'s page is {title!r}"
        return title

    def hold(self, stage):
        """KEDA is to leave it with nobody, as docs/kubernetes.md has it."""
        self.kubectl("annotate", f"scaledobject/{stage}", f"{PAUSED_REPLICAS}=0")

    def let_go(self, stage):
        self.kubectl("annotate", f"scaledobject/{stage}", f"{PAUSED_REPLICAS}-")

    def restarts(self):
        """Workers whose container was started more than once."""
        return [f"{pod['metadata']['name']}: {container['restartCount']} restarts" for pod in self.workers()
                for container in pod["status"].get("containerStatuses", []) if container["restartCount"]]

    def close(self):
        self.kubectl("scale", "deployment", "--selector=role=worker", "--replicas=0")
        self.kubectl("wait", "--for=delete", "pod", "--selector=role=worker", "--timeout=200s")


class StandIn:
    """A cluster without Kubernetes: for one process in namespaces of its own."""

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
        # From the pod of KEDA's namespace.
        self.autoscaler = Autoscaler(store, HASTE, lambda: inside(self.ways.runner("keda").netns), say)
        self.api.kubeconfig(scratch / "kubeconfig")

    def connect_outside(self):
        """What is not in the cluster, on the same wire: nobody needs to route."""
        name, address = OUTSIDE
        shell("ip", "netns", "add", name)
        shell("ip", "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name)
        shell("ip", "link", "set", name, "master", BRIDGE, "up")
        shell("ip", "route", "add", f"{address}/32", "dev", BRIDGE)
        for command in (f"addr add {address}/32 dev eth0", "link set eth0 up", "link set lo up",
                        "route add default dev eth0"):
            shell("ip", "-n", name, *command.split())

    def installation(self):
        # Its names lead to pods, too, but the dump is to go through the API server.
        installation = Installation(ROOT / "tests/deploy/overlays/stand-in", {
            "S3_URL": "", "KUBECONFIG": str(self.scratch / "kubeconfig"), "KUBECACHEDIR": str(self.scratch / "cache"),
            "PATH": f"{PACKAGES / 'bin'}:{os.environ['PATH']}",
        }, check_ways=self.check_ways, has_users=not self.kubelet.only_root)
        around = (ROOT / "tests/deploy/overlays/stand-in/around.yaml").read_text(encoding="utf-8")
        installation.run("kubectl", "apply", "--filename=-", input=around.replace("NAMES", str(self.names)))
        ready = ("--for=condition=Ready", "pod", "--all", "--all-namespaces", "--timeout=60s")
        installation.run("kubectl", "wait", *ready)
        return installation

    def check_ways(self):
        """What was dropped while policies came one by one is not their fault."""
        until("every pod has its network", self.ways.are_there, pause=0.1)
        self.kubelet.enforce()
        for runner in self.kubelet.all_runners():
            runner.forget_drops()
        say(self.ways.check())

    def make_dump(self, copies):
        """A dump with each photo of the demonstration several times, and the host that serves them."""
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
        """Who was told to end did so in order; policies were in nobody's way; `port-forward` was the dump's."""
        assert ("seaweedfs-0", 8333) in self.kubelet.reached, self.kubelet.reached
        faults = []
        told = [runner for runner in self.kubelet.all_runners() if runner.told_to_end and not runner.powerless]
        for runner in told:
            if runner.killed or runner.code != 0:
                tail = runner.log_file.read_text(encoding="utf-8", errors="replace")[-1500:]
                faults.append(f"{runner.name} did not end in order: {runner.code}\n{tail}")
        faults += [f"dropped by the policies: {surprise}" for surprise in self.ways.surprises()]
        assert not faults, "\n".join(faults)
        say(f"{len(told)} workers were told to end: each did so in order, within its grace period")
        say("the policies have dropped nothing that anybody needed")

    def measurements(self, installation, folder):
        """What all workers have measured, for `facemill simulate`."""
        folder.mkdir(parents=True, exist_ok=True)
        for pod in installation.workers():
            with urllib.request.urlopen(f"http://{pod['status']['podIP']}:9100/metrics", timeout=5) as answer:
                (folder / f"{pod['metadata']['name']}.prom").write_bytes(answer.read())


def live(installation, dump, power_off=None, photo=None):
    """The scenario. The workers' ends, the audit, and what the policies have dropped are the judges."""
    say("apply")
    installation.apply()
    expected = installation.submit(dump)
    say(f"submitted: {expected} photos")
    began = time.monotonic()

    until("the first tenth", lambda: installation.ended() >= expected * 0.1)
    say("detect: 1 to 3")
    installation.scale("detect", 3)
    until("all three detect workers work", lambda: sum(done > 0 for done in installation.share_of_work("detect")) == 3)
    say("detect: 3 to 1")
    installation.scale("detect", 1)
    say("rolling update")
    installation.update()
    for stage in STAGES:
        say(f"kill a {stage} worker")
        installation.kill(stage)
    say("a node dies")
    died = time.monotonic()
    say(f"it was {installation.kill_node(power_off)}")
    still = expected - installation.ended()
    assert still > 0, "everything was over before the last disturbance: give it more photos"
    say(f"{still} photos left after the last disturbance")
    until("every photo has ended", lambda: installation.ended() >= expected, patience=900)
    took, since = time.monotonic() - began, time.monotonic() - died
    say(f"all ended after {took:.0f} s, {since:.0f} s after the node's death: {installation.status()['ended']}")
    say(installation.as_job("audit", installation.dump, "--run", RUN).strip().replace("\n", "; "))
    if photo:
        installation.do_as_the_manual_says(dump, photo)
    assert not (restarts := installation.restarts()), restarts
    installation.close()


def names(items):
    return [item["metadata"]["name"] for item in items]


def first_of(dump, photos):
    """A dump of so many of them: enough for a queue, and soon done."""
    lines = dump.read_text(encoding="utf-8").splitlines(keepends=True)
    few = dump.with_name("few.csv")
    few.write_text("".join(lines[:1 + photos]), encoding="utf-8")
    return few


def live_with_keda(installation, autoscaler, dump):
    """Nobody works until there are photos, and nobody when there are none left. The audit is the judge here, too."""
    run, began = "again", time.monotonic()
    installation.kubectl("apply", "--kustomize", ROOT / "tests/deploy/overlays/keda")
    autoscaler.start()
    until("nobody works", installation.is_empty, 60)
    for stage in ("fetch", "crop"):
        installation.hold(stage)
    expected = installation.submit(dump, run)
    until("KEDA sees the photos", lambda: autoscaler.length("fetch") == expected, 60)
    looked = {stage: autoscaler.of(stage).looks + 2 for stage in STAGES if stage not in ("fetch", "crop")}
    until("KEDA looks twice", lambda: all(autoscaler.of(s).looks >= number for s, number in looked.items()), 60, 0.1)
    assert not (early := names(installation.workers())), f"fetch was held, and {early} work"
    say(f"{expected} photos wait for fetch, which is held: nobody works")
    installation.let_go("fetch")
    until("photos wait for crop alone", lambda: [autoscaler.length(stage) for stage in STAGES[:2]] == [0, 0]
          and autoscaler.length("crop") > expected / 2, 120)
    early = names(installation.workers("crop") + installation.workers("classify"))
    assert not early, f"crop was held, and {early} work"
    say(f"{autoscaler.length('crop'):.0f} photos wait for crop, which is held")
    installation.let_go("crop")
    until("every stage has worked", lambda: all(autoscaler.of(stage).steps for stage in STAGES), 120)

    def all_ended():
        if not installation.is_empty():
            return False
        return sum(json.loads(installation.as_job("status", "--run", run, "--json"))["ended"].values()) >= expected

    until("every photo has ended, and nobody works", all_ended, 180)
    say(f"{time.monotonic() - began:.0f} s from nobody to nobody")
    for stage in STAGES:
        steps = autoscaler.of(stage).steps
        say(f"{stage}: " + " ".join(str(after) for _, after in steps))
        if stage in ("fetch", "crop"):
            assert max(after for _, after in steps) > 1, f"{stage} had one worker, however many photos waited"
    say(installation.as_job("audit", installation.dump, "--run", run).strip().replace("\n", "; "))


def measure(stand_in, installation, dump, folder, workers):
    """How long a collection takes with these workers, from its submission, and what they measured.

    To hold against `facemill simulate`.
    """
    installation.apply()
    for stage, number in workers.items():
        installation.scale(stage, number)
    began = time.monotonic()
    expected = installation.submit(dump)
    until("every photo has ended", lambda: installation.ended() >= expected, patience=900, pause=0.2)
    took = time.monotonic() - began
    stand_in.measurements(installation, folder)
    counts = {stage: len(installation.workers(stage)) for stage in STAGES}
    print(json.dumps({"photos": expected, "seconds": round(took, 1), "workers": counts}))
    installation.close()


def inside_namespaces(arguments, where_possible):
    """Starts this script again in namespaces of its own."""
    plain = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    as_user = [[*plain, "--map-root-user", "--map-auto"], [*plain, "--map-root-user"]]
    works = lambda command: not subprocess.run([*command, "true"], capture_output=True, check=False).returncode
    command = next(filter(works, [plain] if os.geteuid() == 0 else as_user), None)
    if command is None:
        say("this machine allows no namespaces: give a cluster with CONTEXT, or run it as root")
        return 0 if where_possible else 3
    if command is as_user[1]:
        say("NOT TRIED: the manifests' users. There is but one here: give it more (newuidmap, /etc/subuid), or be root")
    command += [sys.executable, "-B", __file__, *arguments]
    scratch = tempfile.mkdtemp(prefix="facemill-cluster-")
    try:
        return subprocess.run(command, env=os.environ | {INSIDE: scratch}, check=False).returncode
    finally:
        # What was mounted there has ended with its namespace.
        shutil.rmtree(scratch, ignore_errors=True)


def main(arguments):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    copies, possible = "how often each photo of the demonstration is in the dump", "no namespaces here is no failure"
    calm = "no disturbances: one life with a worker of each stage, what /metrics say goes there"
    parser.add_argument("--copies", type=int, default=6, help=copies)
    parser.add_argument("--where-possible", action="store_true", help=possible)
    parser.add_argument("--measure", type=Path, help=calm)
    parser.add_argument("--workers", default="", help="with --measure: more of a stage, as in detect=2,crop=2")
    parser.add_argument("--keep", type=Path, help="copy the logs there")
    options = parser.parse_args(arguments)
    if context := os.environ.get("CONTEXT"):
        if not os.environ.get("DUMP"):
            parser.error("with CONTEXT, say which DUMP")
        live(Installation(ROOT / "k8s/overlays/dev", {}, context), Path(os.environ["DUMP"]))
        return 0
    if INSIDE not in os.environ:
        return inside_namespaces(arguments, options.where_possible)
    scratch = Path(os.environ[INSIDE])
    try:
        stand_in = StandIn(scratch, Program(manifests.built_program()))
        installation, dump = stand_in.installation(), stand_in.make_dump(options.copies)
        if options.measure:
            more = (entry.split("=") for entry in options.workers.split(",") if entry)
            workers = {stage: int(number) for stage, number in more}
            measure(stand_in, installation, dump, options.measure, workers)
        else:
            with open(dump, encoding="utf-8") as file:
                photo = next(csv.DictReader(file))["photo_id"]
            live(installation, dump, stand_in.kubelet.power_off, photo)
            live_with_keda(installation, stand_in.autoscaler, first_of(dump, 100))
        stand_in.judge()
    finally:
        if options.keep:
            options.keep.mkdir(parents=True, exist_ok=True)
            for log in [*scratch.glob("*.log"), *scratch.glob("pods/*.log")]:
                shutil.copy(log, options.keep)
        # What belongs to users of this namespace, nobody can take away later.
        shutil.rmtree(scratch, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
