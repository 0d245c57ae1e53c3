"""Simulates KEDA and its HPAs for the ScaledObjects of the stand-in. KEDA itself does not run.

It follows their sources: KEDA 2.21's pkg/scalers/rabbitmq_scaler.go and pkg/scaling/executor, and Kubernetes'
pkg/controller/podautoscaler. It queries RabbitMQ over HTTP at the URLs that KEDA uses, and resolves host names as a pod
in the namespace `keda` does. It rejects other triggers, AMQP, regular expressions, `fallback`, `idleReplicaCount` and
scaling modifiers. All durations are in seconds of the manifests; `speed` is the number of them in a real second.
"""

import base64
import contextlib
import http.client
import ipaddress
import json
import math
import threading
import time
import urllib.parse
from dataclasses import dataclass, field

from manifests import matches

from .controllers import give_up, is_ready

# Defaults of KEDA and Kubernetes.
POLLING, COOLDOWN, MOST = 30, 300, 100
SYNC, TOLERANCE, HTTP_TIMEOUT = 15, 0.1, 3
UP = {"stabilizationWindowSeconds": 0, "policies": [
    {"type": "Pods", "value": 4, "periodSeconds": 15}, {"type": "Percent", "value": 100, "periodSeconds": 15}]}
DOWN = {"stabilizationWindowSeconds": 300, "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}]}
MODES = ("QueueLength", "MessageRate", "DeliverGetRate", "PublishedToDeliveredRatio", "ExpectedQueueConsumptionTime")
KNOWN = {"scaleTargetRef", "minReplicaCount", "maxReplicaCount", "pollingInterval", "cooldownPeriod", "advanced",
         "triggers"}
PAUSED, PAUSED_REPLICAS = "autoscaling.keda.sh/paused", "autoscaling.keda.sh/paused-replicas"


class ScalerError(Exception):
    """KEDA reports this error and has no value for the trigger."""


@dataclass(frozen=True)
class Reading:
    """A trigger's value and target. The value is None if the query fails."""

    target: float
    average: bool
    value: float | None = None
    active: bool = False


class Trigger:
    """One trigger of the kind rabbitmq. Rejects invalid settings as KEDA does, before any request."""

    def __init__(self, spec, secrets):
        if spec["type"] != "rabbitmq":
            raise ScalerError(f"no scaler found for type: {spec['type']}")
        meta = spec["metadata"]
        both = secrets | meta
        self.average = spec.get("metricType", "AverageValue") == "AverageValue"
        self.mode, self.value = meta.get("mode"), float(meta.get("value", 0))
        self.activation = float(meta.get("activationValue", 0))
        self.only_ready = meta.get("excludeUnacknowledged") == "true"
        if not both.get("host"):
            raise ScalerError("missing required parameter host")
        scheme, protocol = urllib.parse.urlsplit(both["host"]).scheme, both.get("protocol", "auto")
        if protocol == "auto":
            protocol = "http" if scheme in ("http", "https") else "amqp"
        if self.mode not in MODES or not self.value:
            raise ScalerError("mode and value must be specified")
        if protocol != "http" and (self.mode != "QueueLength" or self.only_ready):
            raise ScalerError(f"protocol {protocol} not supported; must be HTTP to use trigger mode {self.mode}")
        if protocol != "http":
            reason = "it is not asked for here" if scheme in ("amqp", "amqps") else "AMQP scheme must be amqp or amqps"
            raise ScalerError(f"error establishing connection to RabbitMQ: {reason}")
        self.url = queue_url(both["host"], both.get("vhostName"), meta["queueName"], both.get("username"),
                             both.get("password"))

    def read(self, get):
        """Queries RabbitMQ. `get` takes a URL and returns the JSON."""
        info = get(self.url)
        rate = lambda name: info.get("message_stats", {}).get(f"{name}_details", {}).get("rate", 0)
        messages = info.get("messages_ready" if self.only_ready else "messages", 0)
        value, active = self.judge(messages, rate("publish"), rate("deliver_get"))
        # The metrics API has a resolution of a thousandth.
        return Reading(self.value, self.average, int(value * 1000) / 1000, active)

    def judge(self, messages, published, delivered):
        """The metric, and whether the queue is active. Rates are per second, over RabbitMQ's last interval."""
        over, idle = lambda value: value > self.activation, self.activation
        match self.mode:
            case "QueueLength":
                return messages, over(messages)
            case "MessageRate":
                return published, over(published) or over(messages)
            case "DeliverGetRate":
                return delivered, over(delivered)
            case "PublishedToDeliveredRatio":
                ratio = 0 if not published else published / delivered if delivered else idle
                return ratio, over(ratio) or published > 0 and not delivered
        # The expected wait of the last message. Since KEDA 2.21, an empty queue is idle also if it has consumers.
        if not messages:
            return 0, over(0)
        expected = (published - delivered + messages) / delivered if delivered else idle
        return expected, over(expected) or not delivered


def queue_url(host, vhost, queue, user=None, password=None):
    """A queue's URL in the management API. The virtual host is `vhost`, or else the last part of the host's path."""
    url = urllib.parse.urlsplit(host)
    *folders, last = url.path.split("/")
    last = urllib.parse.quote_plus(vhost) if vhost else last or "%2F"
    authority = url.netloc
    if user and password:
        quoted = ":".join(urllib.parse.quote(part, safe="") for part in (user, password))
        authority = f"{quoted}@{authority.rpartition('@')[2]}"
    folder = "".join(f"/{part}" for part in folders if part)
    return f"{url.scheme}://{authority}{folder}/api/queues/{last}/{urllib.parse.quote_plus(queue)}"


class Hpa:
    """The algorithm and the history of a HorizontalPodAutoscaler."""

    def __init__(self, least, most, behavior, now, current):
        self.least, self.most = max(1, least), most
        self.up, self.down = UP | behavior.get("scaleUp", {}), DOWN | behavior.get("scaleDown", {})
        # Pairs of (time, recommended replicas) and (time, change of replicas).
        self.recommended, self.changed = [(now, current)], []

    def desired(self, now, current, pods, ready, readings):
        """The desired number of replicas. `pods` is the number of pods of the Deployment, `ready` of them are ready."""
        if current == 0:
            return 0
        if not self.least <= current <= self.most:
            return self.note(now, current, min(max(current, self.least), self.most))
        proposals = [proposal(reading, current, pods, ready) for reading in readings if reading.value is not None]
        if not proposals or len(proposals) < len(readings) and max(proposals) < current:
            # Without readings nothing changes. With only some readings there is no scale-down.
            return current
        return self.note(now, current, self.limited(now, current, self.stabilized(now, current, max(proposals))))

    def note(self, now, current, wanted):
        if wanted != current:
            self.changed.append((now, wanted - current))
        return wanted

    def stabilized(self, now, current, found):
        """Limits the change to what all recommendations within the stabilization window support."""
        up, down = (now - rules["stabilizationWindowSeconds"] for rules in (self.up, self.down))
        least = min([found, *(number for when, number in self.recommended if when > up)])
        most = max([found, *(number for when, number in self.recommended if when > down)])
        self.recommended = [old for old in self.recommended if old[0] > min(up, down)] + [(now, found)]
        return min(max(current, least), most)

    def limited(self, now, current, wanted):
        """Applies the policies and the limits."""
        if wanted > current:
            return min(wanted, self.most, max(current, self.furthest(now, current, self.up, 1)))
        if wanted < current:
            return max(wanted, self.least, min(current, self.furthest(now, current, self.down, -1)))
        return wanted

    def furthest(self, now, current, rules, sign):
        """The furthest permitted number of replicas, counted from the number at the start of each policy's period."""
        if (select := rules.get("selectPolicy", "Max")) == "Disabled":
            return current
        ends = []
        for policy in rules["policies"]:
            start = current - sum(more for when, more in self.changed if when > now - policy["periodSeconds"])
            share = start * policy["value"] / 100 if policy["type"] == "Percent" else policy["value"]
            ends.append(math.ceil(start + share) if sign > 0 else math.trunc(start - share))
        return max(ends) if (select == "Max") == (sign > 0) else min(ends)


def proposal(reading, current, pods, ready):
    """The number of replicas for one metric: an average is over the pods, a value is for the ready pods together."""
    ratio = reading.value / reading.target
    if reading.average:
        return pods if pods and is_close(ratio / pods) else math.ceil(ratio)
    return current if is_close(ratio) else math.ceil(ratio * ready)


def is_close(ratio):
    """Whether the ratio is within the tolerance, so nothing changes."""
    return 1 - TOLERANCE <= ratio <= 1 + TOLERANCE


@dataclass
class Scaled:
    """The state of a ScaledObject."""

    poll_at: float = 0
    sync_at: float = 0
    last_active: float | None = None
    hpa: Hpa | None = None
    error: str = ""
    # The number of KEDA's polls.
    polls: int = 0
    # Pairs of (replicas before, replicas after), in order.
    steps: list = field(default_factory=list)


class Autoscaler(threading.Thread):
    """KEDA's operator and the HPA controller of the stand-in.

    `place` is a context in which the requests to RabbitMQ are made. `report` is called with each new error.
    """

    def __init__(self, store, speed=1, place=contextlib.nullcontext, report=lambda _: None):
        super().__init__(daemon=True, name="autoscaler")
        self.store, self.speed, self.place, self.report = store, speed, place, report
        self.scaled, self.stopped = {}, threading.Event()

    def stop(self):
        self.stopped.set()
        self.join()

    def run(self):
        try:
            while not self.stopped.is_set():
                now = time.monotonic() * self.speed
                due = [self.check(item, now) for item in self.store.list("scaledobjects")]
                self.stopped.wait(max(0.02, min(due, default=now + SYNC) / self.speed - time.monotonic()))
        except Exception:
            give_up()

    def of(self, name):
        return next((scaled for (_, known), scaled in list(self.scaled.items()) if known == name), Scaled())

    def length(self, name):
        """The value of the first trigger of a ScaledObject, paused or not."""
        found = [item for item in self.store.list("scaledobjects") if item["metadata"]["name"] == name]
        return next((reading.value for item in found for reading in self.read(self.of(name), item)), None) or 0

    def check(self, item, now):
        """Handles one ScaledObject. Returns the time of the next check."""
        meta, spec = item["metadata"], item["spec"]
        scaled = self.scaled.setdefault((meta["uid"], meta["name"]), Scaled())
        target = self.store.find("deployments", meta["namespace"], spec["scaleTargetRef"]["name"])
        if target is None:
            return now + POLLING
        current = target["spec"]["replicas"]
        paused = meta.get("annotations", {})
        if PAUSED_REPLICAS in paused or paused.get(PAUSED, "false") != "false":
            # KEDA deletes the HPA, so its history is lost.
            scaled.hpa = None
            self.scale(scaled, target, current, int(paused.get(PAUSED_REPLICAS, current)))
            return now + SYNC
        if now >= scaled.poll_at:
            scaled.poll_at = now + spec.get("pollingInterval", POLLING)
            current = self.scale(scaled, target, current, self.switched(scaled, item, now, current))
            scaled.polls += 1
        least, most = spec.get("minReplicaCount", 0), spec.get("maxReplicaCount", MOST)
        if scaled.hpa is None:
            behavior = spec.get("advanced", {}).get("horizontalPodAutoscalerConfig", {}).get("behavior", {})
            scaled.hpa, scaled.sync_at = Hpa(least, most, behavior, now, current), now
        if now >= scaled.sync_at:
            scaled.sync_at = now + SYNC
            if current:
                pods, ready = self.pods_of(target)
                readings = self.read(scaled, item)
                self.scale(scaled, target, current, scaled.hpa.desired(now, current, pods, ready, readings))
        return min(scaled.poll_at, scaled.sync_at)

    def switched(self, scaled, item, now, current):
        """KEDA's own scaling: from zero to the first replica, and to zero after the cool-down."""
        readings, spec = self.read(scaled, item), item["spec"]
        least, failed = spec.get("minReplicaCount", 0), any(reading.value is None for reading in readings)
        if any(reading.active for reading in readings):
            if current == 0 or not failed:
                scaled.last_active = now
            return current or max(1, least)
        if failed or not readings:
            return current
        cooled = scaled.last_active is None or now > scaled.last_active + spec.get("cooldownPeriod", COOLDOWN)
        return 0 if current and not least and cooled else max(current, least)

    def read(self, scaled, item):
        """The readings of all triggers. Empty if KEDA cannot create its scalers."""
        spec, namespace = item["spec"], item["metadata"]["namespace"]
        problem, readings = "", []
        try:
            if unknown := sorted(set(spec) - KNOWN):
                raise ScalerError(f"{unknown[0]} is not known here")
            triggers = [Trigger(entry, self.secrets(entry, namespace)) for entry in spec["triggers"]]
        except ScalerError as error:
            problem, triggers = str(error), []
        for trigger in triggers:
            try:
                readings.append(trigger.read(self.get))
            except (ScalerError, OSError, http.client.HTTPException, ValueError) as error:
                problem = f"error inspecting RabbitMQ: {error}"
                readings.append(Reading(trigger.value, trigger.average))
        if problem not in ("", scaled.error):
            self.report(f"scaledobject/{item['metadata']['name']}: {problem}")
        scaled.error = problem
        return readings

    def secrets(self, trigger, namespace):
        """The parameters that a TriggerAuthentication takes from Secrets. A missing key counts as empty."""
        if (reference := trigger.get("authenticationRef")) is None:
            return {}
        if (found := self.store.find("triggerauthentications", namespace, reference["name"])) is None:
            raise ScalerError(f"there is no TriggerAuthentication {reference['name']}")
        parameters = {}
        for wanted in found["spec"]["secretTargetRef"]:
            secret = self.store.find("secrets", namespace, wanted["name"]) or {"data": {}}
            parameters[wanted["parameter"]] = base64.b64decode(secret["data"].get(wanted["key"], "")).decode()
        return parameters

    def get(self, url):
        """Fetches JSON. The user name and the password are part of the URL."""
        url = urllib.parse.urlsplit(url)
        kinds = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}
        if url.scheme not in kinds:
            raise ScalerError(f"unsupported protocol scheme {url.scheme}")
        user = ":".join(urllib.parse.unquote(part or "") for part in (url.username, url.password))
        headers = {"Authorization": f"Basic {base64.b64encode(user.encode()).decode()}"} if url.username else {}
        with self.place():
            connection = kinds[url.scheme](self.address_of(url.hostname), url.port, timeout=HTTP_TIMEOUT)
            with contextlib.closing(connection):
                connection.request("GET", url.path, headers=headers | {"Host": url.netloc.rpartition("@")[2]})
                answer = connection.getresponse()
                body = answer.read()
        if answer.status != 200:
            raise ScalerError(f"{answer.status} {answer.reason}: {body.decode(errors='replace')}, from: {url.path}")
        return json.loads(body)

    def address_of(self, host):
        """Resolves a host name. KEDA is in its own namespace, so the name of a Service alone does not resolve."""
        with contextlib.suppress(ValueError):
            return str(ipaddress.ip_address(host))
        name, _, rest = host.partition(".")
        namespace, _, domain = rest.partition(".")
        service = self.store.find("services", namespace or "keda", name)
        if service is None or domain not in ("", "svc", "svc.cluster.local"):
            raise ScalerError(f"lookup {host}: no such host")
        for pod in self.store.list("pods", namespace):
            if service["spec"]["selector"].items() <= pod["metadata"]["labels"].items() and is_ready(pod):
                return pod["status"]["podIP"]
        raise ScalerError(f"lookup {host}: no such host, since no pod is ready")

    def pods_of(self, deployment):
        """The number of pods, and the number of ready pods."""
        pods = [pod for pod in self.store.list("pods", deployment["metadata"]["namespace"])
                if matches(deployment["spec"]["selector"], pod["metadata"]["labels"])]
        return deployment.get("status", {}).get("replicas", 0), sum(map(is_ready, pods))

    def scale(self, scaled, target, current, wanted):
        """Sets the replicas of the Deployment. Returns the new number."""
        if wanted != current:
            scaled.steps.append((current, wanted))
            self.store.update(target, lambda item: item | {"spec": item["spec"] | {"replicas": wanted}})
        return wanted
