#!/usr/bin/env python3
"""A whole life of an installation: apply, submit, scale, update, kill; and at the end every photo is accounted for.

  tests/deploy/cluster.py                            network namespaces stand in for pods (Linux; root, or user namespaces)
  CONTEXT=kind-kind DUMP=dump.sql tests/deploy/cluster.py     a real cluster, with k8s/overlays/dev and a dump of yours

The stand-in takes everything from the rendered manifests, as a kubelet does: arguments, environment, probes, preStop,
grace period, surge. A pod is a process in a network namespace of its own, with an address of its own; it is ended with
SIGTERM and, when its grace period is over, with SIGKILL. The servers are real ones, on the names and ports that the
manifests give them. Everything lives in namespaces of this process and ends with it.
"""

import argparse
import csv
import io
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import manifests
from manifests import ROOT, Cluster, Program, template_of

STAGES = ("fetch", "detect", "crop", "classify")
INSIDE = "FACEMILL_TEST_INSIDE"
PATIENCE = 300
# So many that no host is asked as often as would be impolite: the workers are tried here, not their patience.
HOSTS = 64


def say(text):
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def until(what, answer, patience=PATIENCE):
    """Asks until there is an answer: neither kubelet nor ledger tells when something becomes true."""
    deadline = time.monotonic() + patience
    while not (found := answer()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {patience} s in vain: {what}")
        time.sleep(0.1)
    return found


def run(*command, **options):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, **options)
    if done.returncode:
        raise AssertionError(f"{' '.join(map(str, command))}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


class Pod:
    """A process with an address of its own, started and ended as the manifest says."""

    count = 0

    def __init__(self, installation, stage, spec, environment):
        Pod.count += 1
        self.stage, self.name = stage, f"{stage}-{Pod.count}"
        self.address = f"10.88.1.{Pod.count}"
        container = spec["containers"][0]
        self.grace = spec["terminationGracePeriodSeconds"]
        self.pause = int(container.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", ["", "0"])[1])
        self.killed, self.ending = False, None
        run("ip", "netns", "add", self.name)
        run("ip", "link", "add", f"v{Pod.count}", "type", "veth", "peer", "name", "eth0", "netns", self.name)
        run("ip", "link", "set", f"v{Pod.count}", "master", "pods", "up")
        for command in (f"addr add {self.address}/16 dev eth0", "link set eth0 up", "link set lo up"):
            run("ip", "-n", self.name, *command.split())
        self.log = open(installation.scratch / f"{self.name}.log", "wb")
        self.process = subprocess.Popen(
            ["ip", "netns", "exec", self.name, installation.program.binary, *container["args"]],
            env=environment | {"POD_NAME": self.name}, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log,
        )

    def get(self, path):
        try:
            with urllib.request.urlopen(f"http://{self.address}:9100{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, ""
        except OSError:
            return 0, ""

    def is_ready(self):
        if self.process.poll() is not None:
            raise AssertionError(f"{self.name} ended with {self.process.returncode}: {self.tail()}")
        return self.get("/readyz")[0] == 200

    def photos(self):
        lines = [line for line in self.get("/metrics")[1].splitlines() if line.startswith("facemill_photos_total{")]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines)

    def end(self):
        """preStop, SIGTERM, the rest of the grace period, SIGKILL; in the background, as a kubelet does it."""
        def ending():
            deadline = time.monotonic() + self.grace
            time.sleep(self.pause)
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(max(0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                self.killed = True
                self.kill()
            self.remove()

        self.ending = threading.Thread(target=ending)
        self.ending.start()

    def kill(self):
        self.process.kill()
        self.process.wait()

    def die_with_its_node(self):
        """No goodbye on any connection: the cable is out before the process is dead."""
        run("ip", "-n", self.name, "link", "set", "eth0", "down")
        self.kill()

    def remove(self):
        self.log.close()
        run("ip", "netns", "delete", self.name)

    def tail(self):
        return Path(self.log.name).read_text(encoding="utf-8", errors="replace")[-1500:]


class Namespaces:
    """An installation without Kubernetes."""

    def __init__(self, scratch, program, copies):
        self.scratch, self.program, self.copies = scratch, program, copies
        self.cluster = Cluster(manifests.render(ROOT / "k8s/overlays/dev"), program)
        self.pods = {stage: [] for stage in STAGES}
        self.ended = []
        self.servers = []
        self.change = {}
        self.cores = next(n for n in ("FACEMILL_CONCURRENCY", "FACEMILL_CORES") if n in program.variables["work"])

    def start(self, *command, **environment):
        log = open(self.scratch / f"{Path(command[0]).name}.log", "ab")
        begin = lambda: subprocess.Popen(
            [str(part) for part in command], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.scratch,
            env={"PATH": os.environ["PATH"], "HOME": str(self.scratch), **environment},
        )
        self.servers.append([begin(), begin, log.name])

    def servers_answer(self):
        """As a kubelet does, it starts a server again that gave up at its start."""
        for server in self.servers:
            if server[0].poll() is not None:
                say(f"{Path(server[2]).stem} ended with {server[0].returncode} and is started again")
                server[0] = server[1]()
        doctor = subprocess.run(
            [self.program.binary, "doctor"], env=self.environment("detect"), capture_output=True, text=True, check=False)
        self.doctor = doctor.stdout
        return doctor.returncode == 0

    def apply(self):
        names = {"rabbitmq": 2, "redis": 3, "seaweedfs": 4, "photos": 5}
        run("mount", "-t", "tmpfs", "tmpfs", "/run")
        run("ip", "link", "set", "lo", "up")
        run("ip", "link", "add", "pods", "type", "bridge")
        run("ip", "link", "set", "pods", "up")
        for number in names.values():
            run("ip", "addr", "add", f"10.88.0.{number}/16", "dev", "pods")
        hosts = ["127.0.0.1 localhost"] + [f"10.88.0.{number} {name}" for name, number in names.items()]
        hosts += [f"10.88.0.5 {name}.test" for name in ("photos", "archive", "busy", "slow", "hostile")]
        hosts += [f"10.88.0.5 photos-{number}.test" for number in range(HOSTS)]
        (self.scratch / "hosts").write_text("\n".join(hosts) + "\n", encoding="utf-8")
        run("mount", "--bind", self.scratch / "hosts", "/etc/hosts")
        self.start_servers()
        for stage in STAGES:
            self.scale(stage, 1)

    def start_servers(self):
        secret = self.cluster.data("Secret", "facemill-servers")
        conf = self.scratch / "rabbitmq.conf"
        given = next(i for i in self.cluster.of("ConfigMap") if i["metadata"]["name"].startswith("rabbitmq-"))["data"]
        own = ["disk_free_limit.absolute = 50MB", f"default_user = {secret['amqp-user']}",
               f"default_pass = {secret['amqp-password']}", "default_vhost = facemill"]
        # The console's and the disk's settings are for a container.
        kept = [line for line in given["rabbitmq.conf"].splitlines() if not line.startswith(("log.", "disk_"))]
        conf.write_text("\n".join(kept + own) + "\n", encoding="utf-8")
        (self.scratch / "plugins").write_text("[rabbitmq_management].", encoding="utf-8")
        self.start(
            "/usr/lib/rabbitmq/bin/rabbitmq-server", RABBITMQ_NODENAME="rabbit@localhost", RABBITMQ_CONFIG_FILE=str(conf),
            RABBITMQ_MNESIA_BASE=str(self.scratch / "mnesia"), RABBITMQ_LOG_BASE=str(self.scratch / "log"),
            RABBITMQ_PID_FILE=str(self.scratch / "rabbitmq.pid"), RABBITMQ_CONF_ENV_FILE="/dev/null",
            RABBITMQ_ENABLED_PLUGINS_FILE=str(self.scratch / "plugins"),
            RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="+S 1:1 +sbwt none",
        )
        redis = template_of(self.cluster.find("StatefulSet", "redis"))["spec"]["containers"][0]
        given = self.cluster.environment(redis)
        arguments = [a.replace("$(REDIS_PASSWORD)", given["REDIS_PASSWORD"]) for a in redis["args"]]
        arguments[arguments.index("/data")] = str(self.scratch / "redis")
        (self.scratch / "redis").mkdir()
        server = shutil.which("redis-server") or "/usr/bin/redis-check-rdb"
        # Debian's redis-tools has the same program under another name; it looks at the name that it is called by.
        subprocess_name = self.scratch / "redis-server"
        subprocess_name.symlink_to(server)
        self.start(subprocess_name, "--bind", "10.88.0.3", *arguments)
        weed = template_of(self.cluster.find("StatefulSet", "seaweedfs"))["spec"]["containers"][0]
        keys = self.scratch / "s3.json"
        secret_name = next(i for i in self.cluster.of("Secret") if i["metadata"]["name"].startswith("seaweedfs-"))
        keys.write_text(self.cluster.data("Secret", secret_name["metadata"]["name"])["s3.json"], encoding="utf-8")
        (self.scratch / "weed-data").mkdir()
        swapped = {"-dir=/data": f"-dir={self.scratch / 'weed-data'}", "-s3.config=/etc/seaweedfs-s3/s3.json": f"-s3.config={keys}"}
        arguments = [swapped.get(argument, argument) for argument in weed["args"]]
        # The first leader is elected sooner, and the disk need not be large.
        arguments += ["-ip=seaweedfs", "-master.electionTimeout=1s", "-master.heartbeatInterval=100ms", "-volume.minFreeSpace=100MiB"]
        self.start(ROOT / ".cache/bin/weed", *arguments)
        bucket = template_of(self.cluster.find("Job", "bucket"))["spec"]["containers"][0]
        command = bucket["command"] + bucket["args"]
        path = f"{ROOT / '.cache/bin'}:{os.environ['PATH']}"
        environment = self.cluster.environment(bucket) | {"PATH": path, "HOME": str(self.scratch)}
        until("the bucket is made", lambda: subprocess.run(
            command, env=environment, capture_output=True, timeout=60, check=False).returncode == 0)
        try:
            until("the servers answer", self.servers_answer)
        except AssertionError:
            for _, _, log in self.servers:
                say(f"{log}: {Path(log).read_text(encoding='utf-8', errors='replace')[-1000:]}")
            raise AssertionError(self.doctor) from None

    def environment(self, stage):
        container = template_of(self.cluster.find("Deployment", stage))["spec"]["containers"][0]
        return self.cluster.environment(container) | {
            # In a pod the limit is a quota, from which the program takes it.
            **({self.cores: container["resources"]["limits"]["cpu"]} if stage != "fetch" else {}),
            "PATH": os.environ["PATH"], "FACEMILL_MODELS": str(ROOT / "models"), "NODE_NAME": "here",
            # The photos' host is near, and nobody wants to wait for its bad days.
            "FACEMILL_ALLOW_PRIVATE_ADDRESSES": "true", "FACEMILL_WAITS": "0.1,0.2", "FACEMILL_ATTEMPTS": "3",
        } | self.change

    def facemill(self, *arguments):
        return run(self.program.binary, *arguments, env=self.environment("detect"))

    def submit(self):
        """A dump with each photo of the demonstration several times."""
        photos = self.scratch / "photos"
        self.start(
            self.program.binary, "demo", "--serve", "10.88.0.5:80", "--photos", ROOT / ".cache/photos", "--out", photos,
        )
        until("the photos are served", (photos / "truth.tsv").is_file)
        listed = list(csv.DictReader(io.StringIO(self.facemill("candidates", photos / "demo.sql"))))
        near = [row for row in listed if "//photos.test/" in row["photo_url"] or "//archive.test/" in row["photo_url"]]
        self.dump = self.scratch / "candidates.csv"
        with open(self.dump, "w", encoding="utf-8", newline="") as file:
            table = csv.DictWriter(file, near[0].keys())
            table.writeheader()
            for copy in range(self.copies):
                for number, row in enumerate(near):
                    ids = {key: f"{int(row[key]) + copy * 100_000}" for key in row if key in ("photo_id", "face_id")}
                    mark = "&" if "?" in row["photo_url"] else "?"
                    host = f"//photos-{(copy * len(near) + number) % HOSTS}.test/"
                    url = row["photo_url"].replace("//photos.test/", host).replace("//archive.test/", host)
                    table.writerow(row | ids | {"photo_url": f"{url}{mark}copy={copy}"})
        self.submitted = time.monotonic()
        produced = json.loads(self.facemill("produce", self.dump, "--json"))
        return produced["new"]

    def status(self):
        return json.loads(self.facemill("status", "--json"))

    def add(self, stage):
        spec = template_of(self.cluster.find("Deployment", stage))["spec"]
        pod = Pod(self, stage, spec, self.environment(stage))
        self.pods[stage].append(pod)
        return pod

    def take_away(self, pod):
        self.pods[pod.stage].remove(pod)
        self.ended.append(pod)
        pod.end()

    def scale(self, stage, number):
        while len(self.pods[stage]) < number:
            self.add(stage)
        while len(self.pods[stage]) > number:
            self.take_away(self.pods[stage][-1])
        until(f"{number} of {stage} are ready", lambda: all(pod.is_ready() for pod in self.pods[stage]))

    def update(self):
        """Every stage, with the surge that its manifest names: new ones first."""
        self.change = {"FACEMILL_LOG": "facemill=debug"}
        for stage in STAGES:
            surge = self.cluster.find("Deployment", stage)["spec"]["strategy"]["rollingUpdate"]["maxSurge"]
            old = list(self.pods[stage])
            at_once = math.ceil(len(old) * int(surge.rstrip("%")) / 100)
            while old:
                batch, old = old[:at_once], old[at_once:]
                fresh = [self.add(stage) for _ in batch]
                until(f"new {stage} workers are ready", lambda: all(pod.is_ready() for pod in fresh))
                for pod in batch:
                    self.take_away(pod)

    def kill(self, stage):
        pod = self.pods[stage].pop(0)
        pod.kill()
        pod.remove()
        self.scale(stage, len(self.pods[stage]) + 1)

    def kill_node(self):
        """The first worker of every stage at once, in the middle of every connection."""
        lost = [self.pods[stage].pop(0) for stage in STAGES]
        for pod in lost:
            pod.die_with_its_node()
        for stage in STAGES:
            self.scale(stage, len(self.pods[stage]) + 1)

    def audit(self):
        return self.facemill("audit", self.dump)

    def share_of_work(self, stage):
        return [pod.photos() for pod in self.pods[stage]]

    def measure(self, folder):
        """What all workers that still live have measured, for `facemill simulate`."""
        folder.mkdir(parents=True, exist_ok=True)
        for stage in STAGES:
            for pod in self.pods[stage]:
                (folder / f"{pod.name}.prom").write_text(pod.get("/metrics")[1], encoding="utf-8")

    def close(self):
        for stage in STAGES:
            for pod in list(self.pods[stage]):
                self.take_away(pod)
        for pod in self.ended:
            pod.ending.join()
            if pod.killed or pod.process.returncode != 0:
                raise AssertionError(f"{pod.name} did not end in order: {pod.process.returncode}\n{pod.tail()}")


class Kubernetes:
    """A cluster: kind's, or any other that may be given a namespace `facemill`."""

    def __init__(self, context, dump):
        self.kubectl_command = ["kubectl", "--context", context, "--namespace", "facemill"]
        self.context, self.dump = context, dump

    def kubectl(self, *arguments, **options):
        return run(*self.kubectl_command, *arguments, **options)

    def apply(self):
        self.kubectl("apply", "--kustomize", ROOT / "k8s/overlays/dev")
        for stage in STAGES:
            self.kubectl("rollout", "status", f"deployment/{stage}", "--timeout=300s")

    def submit(self):
        run(ROOT / "deploy/submit.sh", env=os.environ | {"DUMP": str(self.dump), "CONTEXT": self.context})
        jobs = json.loads(self.kubectl("get", "jobs", "--output=json"))["items"]
        job = max((j["metadata"]["name"] for j in jobs if j["metadata"]["name"].startswith("produce-")), key=lambda n: n[-10:])
        self.kubectl("wait", f"job/{job}", "--for=condition=complete", "--timeout=3600s")
        return sum(self.status()["ended"].values()) + 1

    def inside(self, *arguments, stdin=None):
        """Runs facemill in a pod made like the jobs', with standard input."""
        form = json.loads(self.kubectl("get", "cronjob", "facemill", "--output=json"))
        template = form["spec"]["jobTemplate"]["spec"]["template"]
        template["spec"]["containers"][0] |= {"args": list(arguments), "stdin": True, "stdinOnce": True}
        image = template["spec"]["containers"][0]["image"]
        overrides = json.dumps({"apiVersion": "v1", "metadata": {"labels": template["metadata"]["labels"]}, "spec": template["spec"]})
        return self.kubectl(
            "run", f"ask-{time.time_ns()}", "--quiet", "--rm", "--stdin", "--restart=Never", f"--image={image}",
            f"--overrides={overrides}", stdin=stdin or subprocess.DEVNULL,
        )

    def status(self):
        return json.loads(self.inside("status", "--json"))

    def scale(self, stage, number):
        self.kubectl("scale", f"deployment/{stage}", f"--replicas={number}")
        self.kubectl("rollout", "status", f"deployment/{stage}", "--timeout=300s")

    def update(self):
        self.kubectl("rollout", "restart", "deployment", "--selector=role=worker")
        for stage in STAGES:
            self.kubectl("rollout", "status", f"deployment/{stage}", "--timeout=600s")

    def kill(self, stage):
        pods = self.kubectl("get", "pods", f"--selector=app.kubernetes.io/component={stage}", "--output=name").split()
        self.kubectl("delete", pods[0], "--force", "--grace-period=0")
        self.kubectl("rollout", "status", f"deployment/{stage}", "--timeout=300s")

    def kill_node(self):
        for stage in STAGES:
            self.kill(stage)

    def audit(self):
        with open(self.dump, "rb") as dump:
            return self.inside("audit", "-", stdin=dump)

    def share_of_work(self, stage):
        pods = json.loads(self.kubectl("get", "pods", f"--selector=app.kubernetes.io/component={stage}", "--output=json"))["items"]
        return [1] * len(pods)

    def close(self):
        for stage in STAGES:
            self.scale(stage, 0)


def live(installation, with_node):
    """The scenario. The workers' ends and the audit are the judges."""
    say("apply")
    installation.apply()
    expected = installation.submit()
    say(f"submitted: {expected} photos")
    ended = lambda: sum(installation.status()["ended"].values())
    began = time.monotonic()

    until("the first tenth", lambda: ended() >= expected * 0.1)
    say("detect: 1 to 3")
    installation.scale("detect", 3)
    until("all three detect workers work", lambda: all(share > 0 for share in installation.share_of_work("detect")))
    say("detect: 3 to 1")
    installation.scale("detect", 1)
    say("rolling update")
    installation.update()
    for stage in STAGES:
        say(f"kill a {stage} worker")
        installation.kill(stage)
    still = expected - ended()
    assert still > 0, "everything was over before the last disturbance: give it more photos"
    say(f"{still} photos left after the last kill")
    if with_node:
        say("a node dies")
        installation.kill_node()
    until("every photo has ended", lambda: ended() >= expected, patience=900)
    say(f"all ended after {time.monotonic() - began:.0f} s: {installation.status()['ended']}")
    say(installation.audit().strip().replace("\n", "; "))
    if isinstance(installation, Namespaces):
        installation.close()
        say(f"{len(installation.ended)} workers were told to end: each did so in order, within its grace period")


def measure(installation, folder, workers):
    """How long a collection takes with these workers, and what they measured: to hold against `facemill simulate`."""
    installation.apply()
    for stage, number in workers.items():
        installation.scale(stage, number)
    expected = installation.submit()
    ended = lambda: sum(installation.status()["ended"].values())
    until("every photo has ended", lambda: ended() >= expected, patience=900)
    took = time.monotonic() - installation.submitted
    installation.measure(folder)
    print(json.dumps({"photos": expected, "seconds": round(took, 1), "workers": {s: len(installation.pods[s]) for s in STAGES}}))
    installation.close()


def inside_namespaces(arguments, where_possible):
    """Starts this script again in namespaces of its own."""
    command = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if os.geteuid() != 0:
        command += ["--user", "--map-root-user"]
    if subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
        say("this machine allows no namespaces: give a cluster with CONTEXT, or run it as root")
        return 0 if where_possible else 3
    command += [sys.executable, "-B", __file__, *arguments]
    return subprocess.run(command, env=os.environ | {INSIDE: "1"}, check=False).returncode


def main(arguments):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--copies", type=int, default=6, help="how often each photo of the demonstration is in the dump")
    parser.add_argument("--node", action="store_true", help="kill a node too, which takes the heartbeats' time to be noticed")
    parser.add_argument("--where-possible", action="store_true", help="a machine that allows no namespaces is no failure")
    parser.add_argument("--measure", type=Path, help="no disturbances: one life with a worker of each stage, what /metrics say goes there")
    parser.add_argument("--workers", default="", help="with --measure: more of a stage, as in detect=2,crop=2")
    parser.add_argument("--keep", type=Path, help="copy the logs there")
    options = parser.parse_args(arguments)
    if context := os.environ.get("CONTEXT"):
        if not os.environ.get("DUMP"):
            parser.error("with CONTEXT, say which DUMP")
        live(Kubernetes(context, Path(os.environ["DUMP"])), options.node)
        return 0
    if INSIDE not in os.environ:
        return inside_namespaces(arguments, options.where_possible)
    program = Program(manifests.built_program())
    scratch = Path(tempfile.mkdtemp(prefix="facemill-cluster-"))
    try:
        installation = Namespaces(scratch, program, options.copies)
        if options.measure:
            more = dict(entry.split("=") for entry in options.workers.split(",") if entry)
            measure(installation, options.measure, {stage: int(number) for stage, number in more.items()})
        else:
            live(installation, options.node)
    finally:
        if options.keep:
            options.keep.mkdir(parents=True, exist_ok=True)
            for log in scratch.glob("*.log"):
                shutil.copy(log, options.keep)
        shutil.rmtree(scratch, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
