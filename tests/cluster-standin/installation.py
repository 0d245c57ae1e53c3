"""Controls an installation in a cluster through kubectl and deploy/submit.sh."""

import collections
import contextlib
import json
import os
import re
import shlex
import subprocess
import sys
import time
import urllib.request

from forwarding import forwarding
from standin.autoscaler import PAUSED_REPLICAS
from standin.controllers import is_going, is_ready

from manifests import ROOT

STAGES = ("fetch", "detect", "crop", "classify")
# The user of each workload, and a path that it can write to.
USERS = {f"deployment/{stage}": (65532, "/tmp") for stage in STAGES} | {
    "statefulset/rabbitmq": (999, "/var/lib/rabbitmq"), "statefulset/redis": (999, "/data"),
    "statefulset/seaweedfs": (1000, "/data"),
}
# Kills the program in a container with SIGKILL. The process with number 1 cannot be killed from inside: `update` lets
# the containers of a pod share process numbers. On the stand-in all pods share them, so the roots are compared.
KILL = '''own=$(readlink /proc/self/ns/mnt)
for process in /proc/[0-9]*; do
    if [ "$(cat "$process/comm" 2>/dev/null)" = facemill ] && [ "$(readlink "$process/ns/mnt")" = "$own" ]; then
        kill -9 "${process#/proc/}"
    fi
done'''
KILLED = 128 + 9
PATIENCE = 300
RUN = "faces"


def say(text):
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def until(what, answer, patience=PATIENCE, pause=1):
    """Polls until `answer` returns a true value, and returns that value."""
    deadline = time.monotonic() + patience
    while not (found := answer()):
        if time.monotonic() > deadline:
            raise AssertionError(f"timeout after {patience} s: {what}")
        time.sleep(pause)
    return found


def names(items):
    return [item["metadata"]["name"] for item in items]


class Installation:
    """One installation. `check_ways` checks the connections between its pods."""

    def __init__(self, overlay, environment, context=None, check_ways=lambda: None, has_users=True):
        self.overlay, self.environment, self.context = overlay, os.environ | environment, context
        self.check_ways, self.has_users = check_ways, has_users
        self.killed = collections.Counter()
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
        # This comes before the waits: a pod that a policy blocks restarts repeatedly.
        self.check_ways()
        self.kubectl("wait", "--for=condition=complete", "job/bucket", "--timeout=300s")
        self.settle()
        self.check_powers()

    def settle(self):
        for stage in STAGES:
            self.kubectl("rollout", "status", f"deployment/{stage}", "--timeout=600s")

    def check_powers(self):
        """Checks that each container has the user of the manifest, no capabilities, and only volumes to write to."""
        faults = []
        for target, (user, writable) in USERS.items():
            script = f"cat /proc/self/status; touch {writable}/it; rm {writable}/it; touch /it /usr/it 2>&1 || true"
            output = self.kubectl("exec", target, "--", "sh", "-ec", script)
            fields = {name: value.split() for name, _, value in (line.partition(":") for line in output.splitlines())}
            wanted = {"NoNewPrivs": ["1"]} | {f"Cap{kind}": ["0" * 16] for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")}
            if self.has_users:
                wanted |= {"Uid": 4 * [str(user)], "Gid": 4 * [str(user)]}
                if str(user) not in fields["Groups"] or "0" in fields["Groups"]:
                    faults.append(f"{target}: the supplementary groups are {fields['Groups']}")
            faults += [f"{target}: {key} is {fields[key]}" for key in wanted if fields[key] != wanted[key]]
            if output.count("Read-only file system") != 2:
                faults.append(f"{target}: the root is writable")
        assert not faults, "\n".join(faults)
        say(f"{len(USERS)} containers run without capabilities on a read-only root")

    def submit(self, dump, run=RUN):
        """Submits a dump. Returns the number of enqueued and known photos."""
        more = {"DUMP": str(dump), "RUN": run, "CONTEXT": self.context or ""}
        output = self.run(ROOT / "deploy/submit.sh", more=more)
        self.dump = re.search(r"s3://\S+", output)[0]
        # The last line is the command that prints the log.
        log_command = shlex.split(output.splitlines()[-1])
        self.kubectl("wait", "--for=condition=complete", log_command[-1], "--timeout=3600s")
        new, known = re.search(r"(\d+) enqueued, (\d+) known", self.run(*log_command)).groups()
        return int(new) + int(known)

    def as_job(self, *arguments):
        """Runs facemill by deploy/job.sh. Returns the output."""
        return self.run(ROOT / "deploy/job.sh", *arguments, more={"CONTEXT": self.context or ""})

    def job_output(self, name):
        """Waits for the end of a Job, deletes it, and returns its output."""
        ends = until(f"job {name} ends", lambda: self.conditions(name) & {"Complete", "Failed"})
        output = self.kubectl("logs", f"job/{name}")
        assert "Complete" in ends, output
        self.kubectl("delete", f"job/{name}")
        return output

    def conditions(self, job):
        found = self.kubectl("get", "job", job, "--output=jsonpath={.status.conditions[?(@.status=='True')].type}")
        return set(found.split())

    def status(self):
        output = self.kubectl("exec", "deployment/detect", "--", "facemill", "status", "--run", RUN, "--json")
        return json.loads(output)

    def ended(self):
        return sum(self.status()["ended"].values())

    def workers(self, stage=None):
        """Returns the worker pods that are not terminating."""
        component = f",app.kubernetes.io/component={stage}" if stage else ""
        return [pod for pod in self.get("pods", f"--selector=role=worker{component}") if not is_going(pod)]

    def is_empty(self):
        """Returns whether no worker pod exists. A terminating pod counts as existing."""
        return not self.get("pods", "--selector=role=worker")

    def share_of_work(self, stage):
        return [worker["done"] for worker in self.status()["workers"] if worker["stages"] == [stage]]

    def scale(self, stage, number):
        self.kubectl("scale", f"deployment/{stage}", f"--replicas={number}")
        self.kubectl("rollout", "status", f"deployment/{stage}", "--timeout=300s")

    def update(self):
        """Changes the pods of all workers, one after the other: their containers share process numbers from then on."""
        shared = json.dumps({"spec": {"template": {"spec": {"shareProcessNamespace": True}}}})
        for stage in STAGES:
            self.kubectl("patch", f"deployment/{stage}", "--patch", shared)
        self.settle()

    def kill(self, stage):
        """Kills the program of a worker. Waits until it runs again."""
        self.kill_inside(self.workers(stage)[0])

    def kill_inside(self, pod):
        """Kills the program in a pod with SIGKILL from inside. Waits until its container runs again."""
        name = pod["metadata"]["name"]
        before = pod["status"]["containerStatuses"][0]["restartCount"]
        # The shell may end together with the container.
        with contextlib.suppress(AssertionError):
            self.kubectl("exec", name, "--", "sh", "-c", KILL)
        self.killed[name] += 1

        def again():
            found = [pod for pod in self.get("pods") if pod["metadata"]["name"] == name and is_ready(pod)]
            return [status for pod in found for status in pod["status"]["containerStatuses"]
                    if status["restartCount"] > before]

        code = until(f"{name} runs again", again)[0]["lastState"]["terminated"]["exitCode"]
        assert code == KILLED, f"{name}: exit code {code}"

    def kill_node(self, power_off=None):
        """Removes a node with workers. Without `power_off`, deletes only its workers, which may end in order."""
        in_work = sum(worker["in_flight"] for worker in self.status()["workers"])
        node = self.workers("fetch")[0]["spec"]["nodeName"]
        lost = names(pod for pod in self.workers() if pod["spec"]["nodeName"] == node)
        if power_off:
            power_off(node)
            # The node controller of a cloud deletes the node of a lost machine. Kubernetes alone waits for 5 min.
            self.kubectl("delete", "node", node)
        else:
            self.kubectl("delete", "pod", *lost, "--force", "--grace-period=0")
        for stage in STAGES:
            until(f"another {stage} worker is ready",
                  lambda: any(is_ready(pod) and pod["metadata"]["name"] not in lost for pod in self.workers(stage)))
        return f"{node} with {len(lost)} workers; all workers report {in_work} photos in work"

    def do_as_the_manual_says(self, dump, photo):
        """Runs every `kubectl exec`, every `port-forward` and the doctor Job of docs/kubernetes.md."""
        for line in (ROOT / "docs/kubernetes.md").read_text(encoding="utf-8").splitlines():
            line = line.partition("#")[0].rstrip()
            command = shlex.join(self.to_cluster) + line.removeprefix("kubectl")
            if line.startswith("kubectl -n facemill exec "):
                command = command.replace("4711", photo).replace("< dump.sql", f"< {shlex.quote(str(dump))}")
                self.run("bash", "-c", command)
                say(line)
            elif line.startswith("kubectl -n facemill create job doctor "):
                self.run("bash", "-c", command)
                say(f"{line}: {self.job_output('doctor').strip()}".replace("\n", "; "))
            elif line.startswith("kubectl -n facemill port-forward "):
                say(f"{line}: {self.forwarded_page(command)}")

    def forwarded_page(self, command):
        """Returns the page title that a forwarded port serves."""
        service = re.search(r" service/(\S+)", command)[1]
        if not any(is_ready(pod) for pod in self.get("pods", f"--selector=app.kubernetes.io/name={service}")):
            assert service == "jaeger", f"no pod of {service} is ready"
            return "not tried: the pod waits for an image"
        with forwarding(shlex.split(command), self.environment) as (_, port):
            with urllib.request.urlopen(f"http://localhost:{port}/", timeout=30) as answer:
                title = re.search(r"<title>(.*?)</title>", answer.read().decode())[1]
        assert service in title.lower(), f"the page title of {service} is {title!r}"
        return title

    def restart_page(self):
        """Restarts the page, which does not start without users."""
        self.kubectl("rollout", "restart", "deployment/curate")
        self.kubectl("rollout", "status", "deployment/curate", "--timeout=300s")
        until("one page is left", lambda: len(self.get("pods", "--selector=role=page")) == 1)

    @contextlib.contextmanager
    def page(self):
        """Forwards a port to the page, and yields its URL."""
        command = [*self.to_cluster, "--namespace", "facemill", "port-forward", "service/curate", ":80"]
        with forwarding(command, self.environment) as (_, port):
            yield f"http://127.0.0.1:{port}"

    def kill_page(self):
        """Kills the program of the page. Waits until it serves again. Returns the name of its pod."""
        page, = self.pages()
        self.kill_inside(page)
        return page["metadata"]["name"]

    def pages(self):
        """Returns the pods of the page that are not terminating."""
        return [pod for pod in self.get("pods", "--selector=role=page") if not is_going(pod)]

    def hold(self, stage):
        """Pauses a stage at zero workers, as described in docs/kubernetes.md."""
        self.kubectl("annotate", f"scaledobject/{stage}", f"{PAUSED_REPLICAS}=0")

    def let_go(self, stage):
        self.kubectl("annotate", f"scaledobject/{stage}", f"{PAUSED_REPLICAS}-")

    def restarts(self):
        """Returns the workers with a container restart that no kill of this test has caused."""
        return [f"{pod['metadata']['name']}: {container['restartCount']} restarts" for pod in self.workers()
                for container in pod["status"].get("containerStatuses", [])
                if container["restartCount"] != self.killed[pod["metadata"]["name"]]]

    def close(self):
        self.kubectl("scale", "deployment", "--selector=role=worker", "--replicas=0")
        self.kubectl("wait", "--for=delete", "pod", "--selector=role=worker", "--timeout=200s")
