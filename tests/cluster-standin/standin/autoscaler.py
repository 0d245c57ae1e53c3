"""Simulates KEDA and its HPAs for the ScaledObjects of the stand-in. KEDA itself does not run.

Written after their sources: KEDA's pkg/scalers/rabbitmq_scaler.go and pkg/scaling/executor with what 2.21 changed in
them, and Kubernetes' pkg/controller/podautoscaler. RabbitMQ is asked over HTTP by the very addresses that KEDA would
ask; names are those that a pod in the namespace `keda` knows. Left out, and refused: other triggers, AMQP, regular
expressions, `fallback`, `idleReplicaCount`, scaling modifiers. All seconds are those of the manifests; `speed` says how
many of them go by in one of ours.
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


class Trouble(Exception):
    """KEDA reports this error and has no value for the trigger."""


@dataclass(frozen=True)
class Reading:
    """A trigger's value and target. The value is None if the query fails."""

    target: float
    average: bool
    value: float | None = None
    active: bool = False


class Trigger:
    """One trigger of the kind rabbitmq. Refuses invalid settings like KEDA, before any request."""

    def __init__(self, spec, secrets):
        if spec["type"] != "rabbitmq":
            raise Trouble(f"no scaler found for type: {spec['type']}")
        meta = spec["metadata"]
        both = secrets | meta
        self.average = spec.get("metricType", "AverageValue") == "AverageValue"
        self.mode, self.value = meta.get("mode"), float(meta.get("value", 0))
        self.activation = float(meta.get("activationValue", 0))
        self.only_ready = meta.get("excludeUnacknowledged") == "true"
        if not both.get("host"):
            raise Trouble("missing required parameter host")
        scheme, protocol = urllib.parse.urlsplit(both["host"]).scheme, both.get("protocol", "auto")
        if protocol == "auto":
            protocol = "http" if scheme in ("http", "https") else "amqp"
        if self.mode not in MODES or not self.value:
            raise Trouble("mode and value must be specified")
        if protocol != "http" and (self.mode != "QueueLength" or self.only_ready):
            raise Trouble(f"protocol {protocol} not supported; must be HTTP to use trigger mode {self.mode}")
        if protocol != "http":
            may = "it is not asked for here" if scheme in ("amqp", "amqps") else "AMQP scheme must be amqp or amqps"
            raise Trouble(f"error establishing connection to RabbitMQ: {may}")
        self.url = queue_url(both["host"], both.get("vhostName"), meta["queueName"], both.get("username"),
                             both.get("password"))

    def read(self, get):
        """Queries RabbitMQ. `get` takes a URL and returns the JSON."""
        info = get(self.url)
        rate = lambda name: info.get("message_stats", {}).get(f"{name}_details", {}).get("rate", 0)
        messages = info.get("messages_ready" if self.only_ready else "messages", 0)
        value, active = self.judge(messages, rate("publish"), rate("deliver_get"))
        # Thousandths are all that the metrics' API carries.
        return Reading(self.value, self.average, int(value * 1000) / 1000, active)

    def judge(self, messages, published, delivered):
        """The metric, and whether there is anything to do. Rates are per second, over RabbitMQ's last interval."""
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
        # The time that the last message has to wait. An empty queue is idle since 2.21, whatever consumes it.
        if not messages:
            return 0, over(0)
        expected = (published - delivered + messages) / delivered if delivered else idle
        return expected, over(expected) or not delivered


def queue_url(host, vhost, queue, user=None, password=None):
    """The path of a queue in the management API. The virtual host is the last part of the host's path, or is named."""
    url = urllib.parse.urlsplit(host)
    *folders, last = url.path.split("/")
    last = urllib.parse.quote_plus(vhost) if vhost else last or "%2F"
    where = url.netloc
    if user and password:
        quoted = ":".join(urllib.parse.quote(part, safe="") for part in (user, password))
        where = f"{quoted}@{where.rpartition('@')[2]}"
    folder = "".join(f"/{part}" for part in folders if part)
    return f"{url.scheme}://{where}{folder}/api/queues/{last}/{urllib.parse.quote_plus(queue)}"


class Hpa:
    """A HorizontalPodAutoscaler: its arithmetic, and its history."""

    def __init__(self, least, most, behavior, now, current):
        self.least, self.most = max(1, least), most
        self.up, self.down = UP | behavior.get("scaleUp", {}), DOWN | behavior.get("scaleDown", {})
        # (when, how many it had found right), and (when, how many more it had made).
        self.recommended, self.changed = [(now, current)], []

    def wanted(self, now, current, there, ready, readings):
        """How many there should be. `there` are the pods that the Deployment has, of which so many are `ready`."""
        if current == 0:
            return 0
        if not self.least <= current <= self.most:
            return self.note(now, current, min(max(current, self.least), self.most))
        proposals = [proposal(reading, current, there, ready) for reading in readings if reading.value is not None]
        if not proposals or len(proposals) < len(readings) and max(proposals) < current:
            # Without readings nothing changes. With only some readings there is no scale-down.
            return current
        return self.note(now, current, self.limited(now, current, self.stabilized(now, current, max(proposals))))

    def note(self, now, current, wanted):
        if wanted != current:
            self.changed.append((now, wanted - current))
        return wanted

    def stabilized(self, now, current, found):
        """Up only as far as all that was found in the window agrees, and down likewise."""
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
        """How far it may go, counted from where it was when a policy's period began."""
        if (select := rules.get("selectPolicy", "Max")) == "Disabled":
            return current
        ends = []
        for policy in rules["policies"]:
            start = current - sum(more for when, more in self.changed if when > now - policy["periodSeconds"])
            share = start * policy["value"] / 100 if policy["type"] == "Percent" else policy["value"]
            ends.append(math.ceil(start + share) if sign > 0 else math.trunc(start - share))
        return max(ends) if (select == "Max") == (sign > 0) else min(ends)


def proposal(reading, current, there, ready):
    """How many one metric asks for: a sum is shared out, a value is for those who work now to bring down."""
    ratio = reading.value / reading.target
    if reading.average:
        return there if there and is_close(ratio / there) else math.ceil(ratio)
    return current if is_close(ratio) else math.ceil(ratio * ready)


def is_close(ratio):
    """Whether the ratio is within the tolerance, so nothing changes."""
    return 1 - TOLERANCE <= ratio <= 1 + TOLERANCE


@dataclass
class Scaled:
    """The state of a ScaledObject."""

    ask_at: float = 0
    sync_at: float = 0
    last_active: float | None = None
    hpa: Hpa | None = None
    trouble: str = ""
    # The number of KEDA's polls.
    looks: int = 0
    # (how many it was, how many it became), in their order.
    steps: list = field(default_factory=list)


class Autoscaler(threading.Thread):
    """KEDA's operator and the HPA controller of the stand-in.

    `place` is entered to ask RabbitMQ from there; `tell` is called with each new error.
    """

    def __init__(self, store, speed=1, place=contextlib.nullcontext, tell=lambda _: None):
        super().__init__(daemon=True, name="autoscaler")
        self.store, self.speed, self.place, self.tell = store, speed, place, tell
        self.scaled, self.stopped = {}, threading.Event()

    def stop(self):
        self.stopped.set()
        self.join()

    def run(self):
        try:
            while not self.stopped.is_set():
                now = time.monotonic() * self.speed
                due = [self.look(item, now) for item in self.store.list("scaledobjects")]
                self.stopped.wait(max(0.02, min(due, default=now + SYNC) / self.speed - time.monotonic()))
        except Exception:
            give_up()

    def of(self, name):
        return next((scaled for (_, known), scaled in list(self.scaled.items()) if known == name), Scaled())

    def length(self, name):
        """What the first trigger of a ScaledObject finds, be it held or not."""
        found = [item for item in self.store.list("scaledobjects") if item["metadata"]["name"] == name]
        return next((reading.value for item in found for reading in self.read(self.of(name), item)), None) or 0

    def look(self, item, now):
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
        if now >= scaled.ask_at:
            scaled.ask_at = now + spec.get("pollingInterval", POLLING)
            current = self.scale(scaled, target, current, self.switched(scaled, item, now, current))
            scaled.looks += 1
        least, most = spec.get("minReplicaCount", 0), spec.get("maxReplicaCount", MOST)
        if scaled.hpa is None:
            behavior = spec.get("advanced", {}).get("horizontalPodAutoscalerConfig", {}).get("behavior", {})
            scaled.hpa, scaled.sync_at = Hpa(least, most, behavior, now, current), now
        if now >= scaled.sync_at:
            scaled.sync_at = now + SYNC
            if current:
                there, ready = self.pods_of(target)
                readings = self.read(scaled, item)
                self.scale(scaled, target, current, scaled.hpa.wanted(now, current, there, ready, readings))
        return min(scaled.ask_at, scaled.sync_at)

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
        trouble, readings = "", []
        try:
            if unknown := sorted(set(spec) - KNOWN):
                raise Trouble(f"{unknown[0]} is not known here")
            triggers = [Trigger(entry, self.secrets(entry, namespace)) for entry in spec["triggers"]]
        except Trouble as error:
            trouble, triggers = str(error), []
        for trigger in triggers:
            try:
                readings.append(trigger.read(self.get))
            except (Trouble, OSError, http.client.HTTPException, ValueError) as error:
                trouble = f"error inspecting RabbitMQ: {error}"
                readings.append(Reading(trigger.value, trigger.average))
        if trouble not in ("", scaled.trouble):
            self.tell(f"scaledobject/{item['metadata']['name']}: {trouble}")
        scaled.trouble = trouble
        return readings

    def secrets(self, trigger, namespace):
        """The parameters that a TriggerAuthentication takes from Secrets. A missing key is as good as an empty one."""
        if (reference := trigger.get("authenticationRef")) is None:
            return {}
        if (found := self.store.find("triggerauthentications", namespace, reference["name"])) is None:
            raise Trouble(f"there is no TriggerAuthentication {reference['name']}")
        given = {}
        for wanted in found["spec"]["secretTargetRef"]:
            secret = self.store.find("secrets", namespace, wanted["name"]) or {"data": {}}
            given[wanted["parameter"]] = base64.b64decode(secret["data"].get(wanted["key"], "")).decode()
        return given

    def get(self, url):
        """The JSON that is there. The user's name and password are in the address."""
        url = urllib.parse.urlsplit(url)
        kinds = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}
        if url.scheme not in kinds:
            raise Trouble(f"unsupported protocol scheme {url.scheme}")
        user = ":".join(urllib.parse.unquote(part or "") for part in (url.username, url.password))
        headers = {"Authorization": f"Basic {base64.b64encode(user.encode()).decode()}"} if url.username else {}
        with self.place():
            connection = kinds[url.scheme](self.address_of(url.hostname), url.port, timeout=HTTP_TIMEOUT)
            with contextlib.closing(connection):
                connection.request("GET", url.path, headers=headers | {"Host": url.netloc.rpartition("@")[2]})
                answer = connection.getresponse()
                body = answer.read()
        if answer.status != 200:
            raise Trouble(f"{answer.status} {answer.reason}: {body.decode(errors='replace')}, from: {url.path}")
        return json.loads(body)

    def address_of(self, host):
        """Where a name leads to. KEDA has a namespace of its own: there a Service's name alone means nothing."""
        with contextlib.suppress(ValueError):
            return str(ipaddress.ip_address(host))
        name, _, rest = host.partition(".")
        namespace, _, domain = rest.partition(".")
        service = self.store.find("services", namespace or "keda", name)
        if service is None or domain not in ("", "svc", "svc.cluster.local"):
            raise Trouble(f"lookup {host}: no such host")
        for pod in self.store.list("pods", namespace):
            if service["spec"]["selector"].items() <= pod["metadata"]["labels"].items() and is_ready(pod):
                return pod["status"]["podIP"]
        raise Trouble(f"lookup {host}: no such host, since no pod is ready")

    def pods_of(self, deployment):
        """How many it has, and how many of them are ready."""
        pods = [pod for pod in self.store.list("pods", deployment["metadata"]["namespace"])
                if matches(deployment["spec"]["selector"], pod["metadata"]["labels"])]
        return deployment.get("status", {}).get("replicas", 0), sum(map(is_ready, pods))

    def scale(self, scaled, target, current, wanted):
        """Sets the replicas of the Deployment. Returns the new number."""
        if wanted != current:
            scaled.steps.append((current, wanted))
            self.store.update(target, lambda there: there | {"spec": there["spec"] | {"replicas": wanted}})
        return wanted
