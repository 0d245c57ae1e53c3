"""The controllers of the stand-in: Deployments, ReplicaSets, StatefulSets, Jobs, CronJobs and garbage collection.

They follow Kubernetes' rules for rolling updates, scaling, lost pods and deletion. Not implemented: proportional
scaling during an update, progress deadlines, parallel Jobs, disruption budgets, schedules, back-off except a Job's.
"""

import hashlib
import json
import math
import os
import random
import signal
import string
import threading
import time
import traceback

from .apiserver import ended, now

REVISION = "deployment.kubernetes.io/revision"
HASH = "pod-template-hash"
# Seconds before a Job's first retry; the delay doubles at each retry. Kubernetes uses 10.
JOB_BACKOFF = 1


def give_up():
    """Ends the whole program, as Ctrl-C does, after an error in the stand-in. Other threads would wait forever."""
    traceback.print_exc()
    os.kill(os.getpid(), signal.SIGINT)


def owned_by(item, owner):
    return owner["metadata"]["uid"] in (reference["uid"] for reference in item["metadata"].get("ownerReferences", []))


def is_going(item):
    return "deletionTimestamp" in item["metadata"]


def is_ready(pod):
    conditions = pod.get("status", {}).get("conditions", [])
    return not is_going(pod) and any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def is_over(pod):
    return pod.get("status", {}).get("phase") in ("Succeeded", "Failed")


def condition(kind, holds, reason, message=""):
    return {"type": kind, "status": "True" if holds else "False", "reason": reason, "message": message}


def share(value, of, rounding):
    """Resolves a number or percentage such as `2` or `25%` of a total."""
    return rounding(of * int(value[:-1]) / 100) if str(value).endswith("%") else int(value)


def random_name(length=5):
    return "".join(random.choices(string.ascii_lowercase + string.digits, k=length))


class Controllers(threading.Thread):
    """Runs one step of each controller after each change in the store."""

    def __init__(self, store, patience=1):
        super().__init__(daemon=True, name="controllers")
        self.store, self.patience = store, patience
        self.stopping = False
        self.start()

    def stop(self):
        self.stopping = True
        self.join()

    def run(self):
        steps = (self.deployments, self.replica_sets, self.stateful_sets, self.jobs, self.cron_jobs,
                 self.collect_garbage)
        while not self.stopping:
            seen = self.store.version
            for step in steps:
                try:
                    step()
                except Exception:
                    give_up()
            self.store.after(seen, self.patience)

    def set_status(self, item, status):
        self.store.update(item, lambda current: current | {"status": current.get("status", {}) | status})

    def pods_of(self, owner):
        return [p for p in self.store.list("pods", owner["metadata"]["namespace"]) if owned_by(p, owner)]

    def alive(self, owner):
        return [p for p in self.pods_of(owner) if not is_going(p) and not is_over(p)]

    def make(self, plural, owner, name, labels, body, annotations=None):
        kind = {"replicasets": ("apps/v1", "ReplicaSet"), "pods": ("v1", "Pod")}[plural]
        reference = {"apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": owner["metadata"]["name"],
                     "uid": owner["metadata"]["uid"], "controller": True, "blockOwnerDeletion": True}
        meta = {"name": name, "namespace": owner["metadata"]["namespace"], "labels": labels,
                "annotations": annotations or {}, "ownerReferences": [reference]}
        return self.store.create(plural, {"apiVersion": kind[0], "kind": kind[1], "metadata": meta, **body})

    def make_pod(self, owner, name, template, labels=None):
        meta = template.get("metadata", {})
        status = {"phase": "Pending", "conditions": [condition("Ready", False, "Pending")]}
        body = {"spec": template["spec"], "status": status}
        return self.make("pods", owner, name, meta.get("labels", {}) | (labels or {}), body, meta.get("annotations"))

    def end(self, pod):
        """Removes a pod without a node at once. Marks any other pod for deletion."""
        if not pod["spec"].get("nodeName"):
            self.store.remove(pod)
        else:
            self.store.update(pod, lambda current: ended(current, current["spec"]["terminationGracePeriodSeconds"]))

    def deployments(self):
        for deployment in self.store.list("deployments"):
            sets = self.store.list("replicasets", deployment["metadata"]["namespace"])
            sets = [s for s in sets if owned_by(s, deployment)]
            template = deployment["spec"]["template"]
            new = next((s for s in sets if without_hash(s["spec"]["template"]) == template), None)
            revision = max((int(s["metadata"]["annotations"][REVISION]) for s in sets), default=0)
            if new is None:
                self.new_replica_set(deployment, revision + 1)
                continue
            if int(new["metadata"]["annotations"][REVISION]) < revision:
                # A rollback to an old template gets a new revision number.
                self.store.update(new, lambda current: with_annotation(current, REVISION, str(revision + 1)))
                continue
            if deployment["metadata"].get("annotations", {}).get(REVISION) != str(revision):
                self.store.update(deployment, lambda current: with_annotation(current, REVISION, str(revision)))
            old = [s for s in sets if s is not new]
            self.roll(deployment, new, old)
            self.deployment_status(deployment, new, old)
            empty = sorted((s for s in old if not s["spec"]["replicas"] and not s.get("status", {}).get("replicas")),
                           key=lambda s: int(s["metadata"]["annotations"][REVISION]))
            for expired in all_but_last(empty, deployment["spec"].get("revisionHistoryLimit", 10)):
                self.store.remove(expired)

    def new_replica_set(self, deployment, revision):
        template = deployment["spec"]["template"]
        mark = {HASH: hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()[:10]}
        meta = template["metadata"]
        template = template | {"metadata": meta | {"labels": meta["labels"] | mark}}
        selector = deployment["spec"]["selector"]
        selector = selector | {"matchLabels": selector["matchLabels"] | mark}
        name, spec = deployment["metadata"]["name"], {"replicas": 0, "selector": selector, "template": template}
        self.make("replicasets", deployment, f"{name}-{mark[HASH]}", template["metadata"]["labels"], {"spec": spec},
                  {REVISION: str(revision)})

    def roll(self, deployment, new, old):
        """One step of an update: scales the new set up to the surge, and old sets down to the minimum.

        With the strategy Recreate, the new set starts when no pod of the old ones is left.
        """
        wanted = deployment["spec"]["replicas"]
        if deployment["spec"].get("strategy", {}).get("type") == "Recreate":
            for s in old:
                self.resize(s, 0)
            return None if any(self.pods_of(s) for s in old) else self.resize(new, wanted)
        rolling = deployment["spec"].get("strategy", {}).get("rollingUpdate", {})
        surge = share(rolling.get("maxSurge", "25%"), wanted, math.ceil)
        gap = share(rolling.get("maxUnavailable", "25%"), wanted, math.floor)
        if not surge and not gap:
            gap = 1
        total = sum(s["spec"]["replicas"] for s in [new, *old])
        size = new["spec"]["replicas"]
        if not old or size > wanted:
            return self.resize(new, wanted)
        if size < wanted:
            self.resize(new, min(wanted, size + max(0, wanted + surge - total)))
        ready = lambda s: sum(is_ready(pod) for pod in self.alive(s))
        unready_new = size - ready(new)
        spare = total - (wanted - gap) - max(0, unready_new)
        for s in old:
            broken = min(spare, s["spec"]["replicas"] - ready(s))
            if broken > 0:
                spare -= broken
                s = self.resize(s, s["spec"]["replicas"] - broken)
        spare = sum(ready(s) for s in [new, *old]) - (wanted - gap)
        for s in old:
            fewer = max(0, min(spare, ready(s), s["spec"]["replicas"]))
            spare -= fewer
            self.resize(s, s["spec"]["replicas"] - fewer)

    def resize(self, replica_set, number):
        resized = lambda current: current | {"spec": current["spec"] | {"replicas": number}}
        return self.store.update(replica_set, resized) or replica_set

    def deployment_status(self, deployment, new, old):
        pods, updated = [p for s in [new, *old] for p in self.alive(s)], self.alive(new)
        ready, wanted = sum(map(is_ready, pods)), deployment["spec"]["replicas"]
        complete = len(updated) == len(pods) == ready == wanted
        self.set_status(deployment, {
            "observedGeneration": deployment["metadata"]["generation"], "replicas": len(pods),
            "updatedReplicas": len(updated), "readyReplicas": ready, "availableReplicas": ready,
            "unavailableReplicas": max(0, wanted - ready),
            "conditions": [
                condition("Available", ready >= wanted, "MinimumReplicasAvailable"),
                condition("Progressing", True, "NewReplicaSetAvailable" if complete else "ReplicaSetUpdated"),
            ],
        })

    def replica_sets(self):
        for replica_set in self.store.list("replicasets"):
            wanted, pods = replica_set["spec"]["replicas"], self.alive(replica_set)
            for _ in range(wanted - len(pods)):
                name = f"{replica_set['metadata']['name']}-{random_name()}"
                self.make_pod(replica_set, name, replica_set["spec"]["template"])
            # Order of removal: unready pods, then ready pods, the youngest first in each group.
            pods.sort(key=lambda pod: (not is_ready(pod), pod["status"].get("startTime", "~")))
            for pod in pods[wanted:]:
                self.end(pod)
            ready = sum(map(is_ready, pods))
            self.set_status(replica_set, {
                "observedGeneration": replica_set["metadata"]["generation"], "replicas": len(pods),
                "readyReplicas": ready, "availableReplicas": ready,
            })

    def stateful_sets(self):
        for item in self.store.list("statefulsets"):
            template, pods = item["spec"]["template"], self.pods_of(item)
            revision = hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()[:10]
            names = {f"{item['metadata']['name']}-{number}" for number in range(item["spec"]["replicas"])}
            for name in sorted(names - {pod["metadata"]["name"] for pod in pods}):
                self.make_pod(item, name, template, {"controller-revision-hash": revision})
            current = [pod for pod in pods if pod["metadata"]["labels"].get("controller-revision-hash") == revision]
            for pod in pods:
                if not is_going(pod) and (pod["metadata"]["name"] not in names or pod not in current):
                    self.end(pod)
            ready = sum(map(is_ready, pods))
            self.set_status(item, {
                "observedGeneration": item["metadata"]["generation"], "replicas": len(pods), "readyReplicas": ready,
                "availableReplicas": ready, "currentReplicas": len(current), "updatedReplicas": len(current),
                "currentRevision": revision, "updateRevision": revision,
            })

    def jobs(self):
        for job in self.store.list("jobs"):
            status, pods = job.get("status", {}), self.pods_of(job)
            if "finishedAt" in status:
                limit = job["spec"].get("ttlSecondsAfterFinished")
                if limit is not None and time.time() > status["finishedAt"] + limit:
                    self.store.remove(job)
                continue
            failed = sum(pod["status"]["phase"] == "Failed" for pod in pods)
            status = {"active": len(self.alive(job)), "ready": sum(map(is_ready, pods)), "failed": failed,
                      "startTime": status.get("startTime", now())}
            if any(pod["status"]["phase"] == "Succeeded" for pod in pods):
                met = [condition(kind, True, "CompletionsReached") for kind in ("SuccessCriteriaMet", "Complete")]
                status |= {"succeeded": 1, "completionTime": now(), "finishedAt": time.time(), "conditions": met}
            elif failed > job["spec"]["backoffLimit"]:
                status |= {"finishedAt": time.time(), "conditions": [condition("Failed", True, "BackoffLimitExceeded")]}
            elif not status["active"] and not job["spec"]["suspend"]:
                last = max((pod["status"].get("finishedAt", 0) for pod in pods), default=0)
                if time.time() > last + JOB_BACKOFF * 2 ** failed or not failed:
                    self.make_pod(job, f"{job['metadata']['name']}-{random_name()}", job["spec"]["template"])
            self.set_status(job, status)

    def cron_jobs(self):
        """Removes finished Jobs beyond the history limits. Schedules are not implemented."""
        for form in self.store.list("cronjobs"):
            jobs = [job for job in self.store.list("jobs", form["metadata"]["namespace"]) if owned_by(job, form)]
            for kind, limit in (("Complete", "successfulJobsHistoryLimit"), ("Failed", "failedJobsHistoryLimit")):
                over = [j for j in jobs if any(c["type"] == kind for c in j.get("status", {}).get("conditions", []))]
                over.sort(key=lambda job: job["status"]["finishedAt"])
                for job in all_but_last(over, form["spec"][limit]):
                    self.store.remove(job)

    def collect_garbage(self):
        """Removes objects without a remaining owner, pods on removed nodes and objects in namespaces under deletion."""
        uids = {item["metadata"]["uid"] for item in self.store.everything()}
        nodes = {node["metadata"]["name"] for node in self.store.list("nodes")}
        going = {n["metadata"]["name"] for n in self.store.list("namespaces") if is_going(n)}
        for item in self.store.everything():
            owners = item["metadata"].get("ownerReferences", [])
            orphaned = owners and not any(owner["uid"] in uids for owner in owners)
            is_pod = item["kind"] == "Pod"
            if is_pod and (node := item["spec"].get("nodeName")) and node not in nodes:
                self.store.remove(item)
            elif (orphaned or item["metadata"].get("namespace") in going) and not is_going(item):
                self.end(item) if is_pod else self.store.remove(item)
        for name in going:
            if not any(item["metadata"].get("namespace") == name for item in self.store.everything()):
                self.store.remove(self.store.get("namespaces", None, name))


def all_but_last(items, number):
    return items[:max(0, len(items) - number)]


def without_hash(template):
    labels = {key: value for key, value in template["metadata"]["labels"].items() if key != HASH}
    return template | {"metadata": template["metadata"] | {"labels": labels}}


def with_annotation(item, key, value):
    item["metadata"].setdefault("annotations", {})[key] = value
    return item
