"""Substitutes for the images in the manifests: programs of the host, started as the image starts them."""

import os
import shutil
import subprocess
from pathlib import Path

from manifests import ROOT


class Image:
    """User and working directory are those of the real image."""

    user, directory = 0, "/"

    def start(self, container, environment):
        """The command line, environment and files of a container with this base environment."""
        return [*container.get("command", []), *container.get("args", [])], environment, {}


class Facemill(Image):
    """Follows deploy/Dockerfile."""

    user, directory = 65532, "/tmp"

    def start(self, container, environment):
        arguments = container.get("args", [])
        environment = {
            "FACEMILL_MODELS": "/opt/facemill/models", "OPENBLAS_NUM_THREADS": "1", "ORT_DISABLE_TELEMETRY": "1",
        } | environment
        # In a real pod, the program reads its concurrency from the CPU quota. Fetch is I/O-bound and is excluded.
        if arguments[:1] == ["work"] and arguments[1:] != ["fetch"]:
            environment["FACEMILL_CONCURRENCY"] = str(container["resources"]["limits"]["cpu"])
        return [*container.get("command", ["facemill"]), *arguments], environment, {}


class RabbitMq(Image):
    """The pod's settings apply, with a low free-disk limit and statistics every second instead of every five."""

    def start(self, container, environment):
        environment = {
            "HOME": "/var/lib/rabbitmq",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 +sbwt none -rabbit quorum_tick_interval 1000",
            # Debian's version 3.10 always writes an upgrade log. "-" sends it to the same output as the main log.
            "RABBITMQ_UPGRADE_LOG": "-",
        } | environment
        return ["/usr/lib/rabbitmq/bin/rabbitmq-server"], environment, {
            "/etc/rabbitmq/conf.d/90-stand-in.conf":
                "disk_free_limit.absolute = 50MB\ncollect_statistics_interval = 1000\n",
            "/etc/rabbitmq/enabled_plugins": "[rabbitmq_management,rabbitmq_prometheus].\n",
        }


class Redis(Image):
    def start(self, container, environment):
        arguments = [text.replace("$(REDIS_PASSWORD)", environment["REDIS_PASSWORD"]) for text in container["args"]]
        return ["redis-server", *arguments], environment, {}


class SeaweedFs(Image):
    """The first leader election is faster, and the free-disk limit is low."""

    def start(self, container, environment):
        command, environment, files = super().start(container, environment)
        if command[0] == "weed":
            command += ["-master.electionTimeout=1s", "-master.heartbeatInterval=100ms", "-volume.minFreeSpace=100MiB"]
        return command, environment, files


class Images:
    """The known images. A pod with an unknown image waits in ImagePullBackOff."""

    def __init__(self, program, programs):
        """`programs`: an empty folder for programs outside the host's system folders."""
        system = Image()
        self.known = {"facemill": Facemill(), "rabbitmq": RabbitMq(), "redis": Redis(), "seaweedfs": SeaweedFs(),
                      "system": system}
        # redis-check-rdb of Debian's redis-tools is the same binary. It selects its function by its own name.
        redis = os.path.realpath(shutil.which("redis-server") or "/usr/bin/redis-check-rdb")
        sources = {"facemill": program.binary.absolute(), "weed": ROOT / ".cache/bin/weed", "redis-server": redis}
        for name, source in sources.items():
            (programs / name).touch()
            subprocess.run(["mount", "--bind", source, programs / name], check=True)
        # Repository files in each container: (source, path).
        own = Path(__file__).parent
        self.mounts = [(str(programs), "/usr/local/bin"), (str(ROOT / "models"), "/opt/facemill/models"),
                       (str(own / "names.py"), "/opt/stand-in/names.py")]

    def find(self, image):
        return self.known.get(image.rsplit("/", 1)[-1].partition(":")[0])
