"""Tests autoscaler.py against a server with the RabbitMQ management API."""

import base64
import copy
import http.server
import json
import threading
import unittest

from standin.apiserver import Store
from standin.autoscaler import (PAUSED, PAUSED_REPLICAS, Autoscaler, Hpa, Reading, ScalerError, Trigger, proposal,
                                queue_url)
from standin.controllers import condition
from manifests import ROOT, load

PASSWORD = "p:w/d"


class RabbitMq(http.server.ThreadingHTTPServer):
    """A management API with one virtual host and one user."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answer)
        self.queues, self.asked = {}, []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def host(self):
        return f"http://facemill:{PASSWORD.replace(':', '%3A').replace('/', '%2F')}@127.0.0.1:{self.server_port}/"

    def has(self, queue, ready=0, in_work=0, published=0.0, delivered=0.0):
        rates = {"publish_details": {"rate": published}, "deliver_get_details": {"rate": delivered}}
        self.queues[f"/api/queues/facemill/{queue}"] = {
            "name": queue, "messages": ready + in_work, "messages_ready": ready, "messages_unacknowledged": in_work,
            "message_stats": rates,
        }

    def close(self):
        self.shutdown()
        self.server_close()


class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append(self.path)
        user = f"Basic {base64.b64encode(f'facemill:{PASSWORD}'.encode()).decode()}"
        found = self.server.queues.get(self.path)
        code = 401 if self.headers["Authorization"] != user else 404 if found is None else 200
        body = json.dumps(found or {"error": "Object Not Found", "reason": "Not Found"}).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def objects(name):
    return load((ROOT / f"k8s/components/keda/{name}.yaml").read_text(encoding="utf-8"))[0]


def trigger(mode, **more):
    meta = {"host": "http://127.0.0.1:1/", "protocol": "http", "queueName": "q", "mode": mode, "value": "10"} | more
    return Trigger({"type": "rabbitmq", "metadata": meta}, {})


class TriggerTests(unittest.TestCase):
    def test_queue_url_is_the_one_of_keda(self):
        for host, vhost, wanted in (
            ("http://u:p@rabbitmq.ns:15672/", "facemill", "http://u:p@rabbitmq.ns:15672/api/queues/facemill/q.a"),
            ("http://h:15672", None, "http://h:15672/api/queues/%2F/q.a"),
            ("https://h/", "/", "https://h/api/queues/%2F/q.a"),
            ("https://h/below/here", None, "https://h/below/api/queues/here/q.a"),
            ("https://h/below/here", "there", "https://h/below/api/queues/there/q.a"),
            ("https://h/%2F", None, "https://h/api/queues/%2F/q.a"),
        ):
            self.assertEqual(queue_url(host, vhost, "q.a"), wanted)
        self.assertEqual(queue_url("http://a:b@h/", "v", "q", "u", "p@"), "http://u:p%40@h/api/queues/v/q")

    def test_each_mode_computes_value_and_activity(self):
        for mode, figures, wanted in (
            ("QueueLength", (3, 0, 0), (3, True)),
            ("QueueLength", (0, 9, 9), (0, False)),
            ("MessageRate", (0, 2.5, 0), (2.5, True)),
            ("MessageRate", (1, 0, 0), (0, True)),
            ("MessageRate", (0, 0, 1), (0, False)),
            ("DeliverGetRate", (1, 1, 4), (4, True)),
            ("PublishedToDeliveredRatio", (0, 3, 2), (1.5, True)),
            ("PublishedToDeliveredRatio", (0, 3, 0), (0, True)),
            ("PublishedToDeliveredRatio", (9, 0, 0), (0, False)),
            ("ExpectedQueueConsumptionTime", (100, 2, 4), (24.5, True)),
            # Without deliveries the time is unknown, but the trigger is active.
            ("ExpectedQueueConsumptionTime", (100, 2, 0), (0, True)),
            # Before KEDA 2.21, an empty queue is always active.
            ("ExpectedQueueConsumptionTime", (0, 0, 0), (0, False)),
            ("ExpectedQueueConsumptionTime", (0, 0, 5), (0, False)),
            # The last message is in work.
            ("ExpectedQueueConsumptionTime", (1, 0, 5), (-0.8, False)),
        ):
            self.assertEqual(trigger(mode).judge(*figures), wanted, (mode, figures))
        self.assertEqual(trigger("QueueLength", activationValue="5").judge(5, 0, 0), (5, False))
        late = trigger("ExpectedQueueConsumptionTime", activationValue="5")
        self.assertEqual(late.judge(10, 0, 0), (5, True))

    def test_queue_length_includes_photos_in_work_by_default(self):
        info = {"messages": 7, "messages_ready": 4}
        self.assertEqual(trigger("QueueLength").read(lambda _: info).value, 7)
        self.assertEqual(trigger("QueueLength", excludeUnacknowledged="true").read(lambda _: info).value, 4)
        # Without figures from RabbitMQ, the queue counts as empty.
        self.assertEqual(trigger("QueueLength").read(lambda _: {}), Reading(10, True, 0, False))

    def test_invalid_metadata_is_an_error(self):
        for more, error in (
            ({"protocol": "amqp"}, "must be amqp"),
            ({"protocol": "amqp", "mode": "ExpectedQueueConsumptionTime"}, "must be HTTP"),
            ({"protocol": "auto", "host": "amqp://h/"}, "not asked for here"),
            ({"mode": "QueueLenght"}, "must be specified"),
            ({"value": "0"}, "must be specified"),
            ({"host": ""}, "missing required parameter host"),
        ):
            with self.subTest(more), self.assertRaisesRegex(ScalerError, error):
                trigger(**{"mode": "QueueLength"} | more)
        self.assertEqual(trigger("QueueLength", protocol="auto").url, "http://127.0.0.1:1/api/queues/%2F/q")


class HpaTests(unittest.TestCase):
    def setUp(self):
        self.behavior = objects("detect")["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
        self.hpa = Hpa(0, 50, self.behavior, 0, 1)

    def desired(self, now, current, *values, ready=None):
        """Returns the replicas for a queue length and an age, with the targets of detect. None is a failed trigger."""
        readings = [Reading(target, target == 2000, value) for target, value in zip((2000, 600), values)]
        return self.hpa.desired(now, current, current, current if ready is None else ready, readings)

    def test_queue_length_is_divided_by_the_target(self):
        length = lambda value, replicas: proposal(Reading(2000, True, value), replicas, replicas, replicas)
        self.assertEqual([length(value, 1) for value in (0, 1, 2000, 2200, 2201, 9000)], [0, 1, 1, 1, 2, 5])
        self.assertEqual([length(value, 4) for value in (7199, 7201, 8800, 8801)], [4, 4, 4, 5])
        self.assertEqual(length(5, 0), 1)

    def test_age_scales_the_ready_pods(self):
        age = lambda value, ready=4: proposal(Reading(600, False, value), 4, 4, ready)
        self.assertEqual([age(value) for value in (0, 10, 539, 541, 660, 661, 1200, -1)], [0, 1, 4, 4, 4, 5, 8, 0])
        self.assertEqual(age(1200, 1), 2, "pods that are not ready do not count")

    def test_largest_proposal_applies(self):
        self.assertEqual(self.desired(0, 2, 6000, 0), 3)
        self.assertEqual(self.desired(15, 3, 6000, 800), 4)

    def test_scale_up_policies_limit_growth(self):
        self.assertEqual(self.desired(0, 1, 1_000_000, 0), 5, "at most four more in 30 s")
        self.assertEqual(self.desired(15, 5, 1_000_000, 0), 5)
        self.assertEqual(self.desired(31, 5, 1_000_000, 0), 10, "or at most double")
        self.assertEqual(self.desired(62, 10, 1_000_000, 0), 20)
        self.assertEqual(self.desired(93, 20, 1_000_000, 0), 40)
        self.assertEqual(self.desired(124, 40, 1_000_000, 0), 50, "the maximum")

    def test_scale_down_waits_five_minutes_and_halves_per_minute(self):
        self.hpa = Hpa(0, 50, self.behavior, 0, 8)
        self.assertEqual(self.desired(10, 8, 15_000, 0), 8)
        self.assertEqual(self.desired(305, 8, 100, 0), 8)
        self.assertEqual(self.desired(311, 8, 100, 0), 4)
        self.assertEqual(self.desired(326, 4, 100, 0), 4)
        self.assertEqual(self.desired(372, 4, 0, 0), 2)
        self.assertEqual(self.desired(433, 2, 0, 0), 1)
        self.assertEqual(self.desired(500, 1, 0, 0), 1, "only KEDA removes the last replica")

    def test_failed_triggers_prevent_scale_down(self):
        self.assertEqual(self.desired(0, 4, None, None), 4)
        self.assertEqual(self.desired(400, 4, 100, None), 4, "one of two readings does not allow a scale-down")
        self.assertEqual(self.desired(415, 4, 20_000, None), 8)
        self.assertEqual(self.desired(430, 0, 20_000, 0), 0, "only KEDA adds the first replica")
        self.assertEqual(self.desired(445, 60, 0, 0), 50)

    def test_other_policies_apply(self):
        for up, wanted in (({"selectPolicy": "Min"}, 4), ({"selectPolicy": "Disabled"}, 2),
                           ({"stabilizationWindowSeconds": 60}, 2)):
            behavior = copy.deepcopy(self.behavior)
            behavior["scaleUp"] |= up
            self.hpa = Hpa(0, 50, behavior, 0, 2)
            self.assertEqual(self.desired(15, 2, 1_000_000, 0), wanted, up)


class ScaledObjectTests(unittest.TestCase):
    """The ScaledObject of detect from the component, with a Deployment and a RabbitMQ server."""

    def setUp(self):
        self.rabbitmq = RabbitMq()
        self.addCleanup(self.rabbitmq.close)
        self.rabbitmq.has("facemill.detect")
        self.store, self.now = Store(), 0
        secret = {"amqp-management": base64.b64encode(self.rabbitmq.host.encode()).decode()}
        self.make("secrets", {"kind": "Secret", "metadata": {"name": "facemill-servers"}, "data": secret})
        self.make("triggerauthentications", objects("authentication"))
        self.item = self.make("scaledobjects", objects("detect"))
        labels = {"app": "detect"}
        self.deployment = self.make("deployments", {
            "kind": "Deployment", "metadata": {"name": "detect"},
            "spec": {"replicas": 0, "selector": {"matchLabels": labels}}, "status": {"replicas": 0},
        })
        ready = {"podIP": "127.0.0.1", "conditions": [condition("Ready", True, "")]}
        self.make("pods", {"kind": "Pod", "metadata": {"name": "a", "labels": labels}, "status": ready})
        self.autoscaler = Autoscaler(self.store)

    def make(self, plural, item):
        item["metadata"]["namespace"] = "facemill"
        return self.store.create(plural, item)

    def change(self, item, change):
        found = self.store.list(item)[0]
        self.store.update(found, lambda stored: change(stored) or stored)

    def annotate(self, **annotations):
        self.change("scaledobjects", lambda item: item["metadata"].update(annotations=annotations))

    def after(self, seconds=15):
        """Returns the replicas after a time with a poll every 15 s."""
        for _ in range(seconds // 15):
            self.now += 15
            self.autoscaler.check(self.store.list("scaledobjects")[0], self.now)
        return self.store.list("deployments")[0]["spec"]["replicas"]

    def trouble(self):
        return self.autoscaler.of("detect").error

    def test_first_photo_adds_a_replica_and_idle_queue_removes_the_last(self):
        self.assertEqual(self.after(60), 0)
        self.rabbitmq.has("facemill.detect", ready=1)
        self.assertEqual(self.after(), 1)
        self.rabbitmq.has("facemill.detect", in_work=1)
        self.assertEqual(self.after(900), 1, "a photo in work keeps the replica")
        self.rabbitmq.has("facemill.detect")
        self.assertEqual(self.after(300), 1)
        self.assertEqual(self.after(), 0)
        self.assertEqual(set(self.rabbitmq.asked), {"/api/queues/facemill/facemill.detect"})

    def test_each_photo_restarts_the_cool_down(self):
        self.rabbitmq.has("facemill.detect", ready=1)
        self.assertEqual(self.after(), 1)
        for _ in range(3):
            self.rabbitmq.has("facemill.detect")
            self.assertEqual(self.after(285), 1)
            self.rabbitmq.has("facemill.detect", ready=1)
            self.assertEqual(self.after(), 1)

    def test_manual_replicas_without_photos_are_removed_at_once(self):
        self.change("deployments", lambda item: item["spec"].update(replicas=3))
        self.assertEqual(self.after(), 0)

    def test_replicas_follow_the_queue(self):
        self.rabbitmq.has("facemill.detect", ready=5000)
        self.assertEqual(self.after(), 3)

    def test_replicas_stay_unchanged_without_rabbitmq(self):
        self.change("deployments", lambda item: item["spec"].update(replicas=2))
        for name, fail in (
            ("404", lambda: self.rabbitmq.queues.clear()),
            ("refused", lambda: self.rabbitmq.server_close()),
        ):
            fail()
            self.assertEqual(self.after(900), 2)
            self.assertIn(name, self.trouble())

    def test_wrong_secret_is_an_error(self):
        right = copy.deepcopy(self.store.list("secrets")[0]["data"])
        rabbitmq = f"http://facemill:{{}}@{{}}:{self.rabbitmq.server_port}/"
        self.rabbitmq.has("facemill.detect", ready=1)
        selector = {"selector": {"app": "detect"}}
        self.make("services", {"kind": "Service", "metadata": {"name": "rabbitmq"}, "spec": selector})
        user = PASSWORD.replace(":", "%3A").replace("/", "%2F")
        for data, error in (
            ({}, "missing required parameter host"),
            ({"amqp-management": rabbitmq.format("guest", "127.0.0.1")}, "401"),
            ({"amqp-management": "amqp://127.0.0.1/facemill"}, "unsupported protocol scheme amqp"),
            # The short name is a Service in the namespace of KEDA, which has none.
            ({"amqp-management": rabbitmq.format(user, "rabbitmq")}, "no such host"),
            ({"amqp-management": rabbitmq.format(user, "rabbitmq.facemill.example")}, "no such host"),
            ({"amqp-management": rabbitmq.format(user, "rabbitmq.facemill.svc")}, ""),
            (right, ""),
        ):
            plain = {key: value if value in right.values() else base64.b64encode(value.encode()).decode()
                     for key, value in data.items()}
            self.change("secrets", lambda item: item.update(data=plain))
            self.change("deployments", lambda item: item["spec"].update(replicas=0))
            self.assertEqual(self.after(), 0 if error else 1, error)
            self.assertIn(error, self.trouble())
            self.assertEqual(bool(error), bool(self.trouble()))

    def test_one_invalid_trigger_stops_the_scaling(self):
        self.rabbitmq.has("facemill.detect", ready=1)
        self.change("scaledobjects", lambda item: item["spec"]["triggers"][1]["metadata"].update(protocol="amqp"))
        self.assertEqual(self.after(60), 0)
        self.assertIn("must be HTTP", self.trouble())
        self.assertEqual(self.rabbitmq.asked, [])

    def test_unsupported_field_is_an_error(self):
        self.change("scaledobjects", lambda item: item["spec"].update(fallback={"failureThreshold": 3, "replicas": 1}))
        self.after()
        self.assertIn("fallback is not known here", self.trouble())

    def test_pause_and_resume(self):
        self.rabbitmq.has("facemill.detect", ready=5000)
        self.annotate(**{PAUSED_REPLICAS: "0"})
        self.assertEqual(self.after(3600), 0)
        self.annotate(**{PAUSED_REPLICAS: "7"})
        self.assertEqual(self.after(), 7)
        self.annotate(**{PAUSED: "true"})
        self.change("deployments", lambda item: item["spec"].update(replicas=4))
        self.assertEqual(self.after(3600), 4)
        self.annotate(**{PAUSED: "false"})
        self.rabbitmq.has("facemill.detect")
        self.assertEqual(self.after(30), 0)


if __name__ == "__main__":
    unittest.main()
