"""The connections between pods that the network policies must allow and block.

An end is a worker of a stage, a server, a pod of neighbours.yaml, `outside` (the host of the photos) or an address.
"""

# The address from which the kubelet probes pods.
NODE = "10.88.0.1"

ALLOWED = """
fetch detect crop classify -> rabbitmq:5672 rabbitmq:15672 redis:6379 seaweedfs:8333 jaeger:4317 jaeger:4318
fetch detect crop classify rabbitmq redis seaweedfs jaeger -> names:53 names:53/udp
fetch -> outside:80
prometheus -> fetch:9100 detect:9100 crop:9100 classify:9100 rabbitmq:15692
keda -> rabbitmq:15672
"""
BLOCKED = f"""
fetch detect crop classify -> rabbitmq:4369 rabbitmq:15692 redis:16379 seaweedfs:9333 seaweedfs:8888 jaeger:16686
fetch detect crop classify -> names:80 prometheus:9090 {NODE}:10250 169.254.169.254:80
fetch -> detect:9100 172.16.0.1:80 192.168.0.1:80 100.64.0.1:80 198.18.0.1:80 240.0.0.1:80
detect crop classify -> outside:80 fetch:9100
rabbitmq redis seaweedfs jaeger -> outside:80 fetch:9100
rabbitmq -> redis:6379
redis -> rabbitmq:5672
seaweedfs -> redis:6379
outside -> rabbitmq:5672 redis:6379 seaweedfs:8333 jaeger:4317 jaeger:16686 fetch:9100 classify:9100
prometheus -> rabbitmq:5672 rabbitmq:15672 redis:6379 seaweedfs:8333
keda -> rabbitmq:5672 redis:6379 fetch:9100
"""
# With the component `curate` and an Ingress controller.
PAGE_ALLOWED = """
ingress -> curate:8080
prometheus -> curate:9100
curate -> rabbitmq:5672 rabbitmq:15672 redis:6379 seaweedfs:8333 jaeger:4317 names:53 names:53/udp
"""
PAGE_BLOCKED = f"""
ingress -> curate:9100 fetch:9100 redis:6379
prometheus keda outside fetch detect redis rabbitmq -> curate:8080
keda -> curate:9100
curate -> outside:80 outside:443 fetch:9100 {NODE}:10250 169.254.169.254:80
"""


def parsed(table):
    """Yields (from, to, protocol, port) of each connection."""
    for line in table.strip().splitlines():
        starts, ends = line.split(" -> ")
        for start in starts.split():
            for end, port in (end.split(":") for end in ends.split()):
                port, _, protocol = port.partition("/")
                yield start, end, protocol or "tcp", int(port)


def names_of(pod):
    """The names of a pod in the tables."""
    meta = pod["metadata"]
    labels = [meta["labels"].get(f"app.kubernetes.io/{key}") for key in ("component", "name")]
    return {meta["name"], *labels} - {"facemill", None}
