"""What stands in for the images that the manifests name: programs of this machine, started as the image starts them."""

import os
import shutil
import subprocess
from pathlib import Path

from manifests import ROOT


class Image:
    """User and working directory as the real image names them."""

    user, directory = 0, "/"

    def start(self, container, environment):
        """The command line, the environment and the files of a container that is given this environment."""
        return [*container.get("command", []), *container.get("args", [])], environment, {}


class Facemill(Image):
    """As deploy/Dockerfile has it."""

    user, directory = 65532, "/tmp"

    def start(self, container, environment):
        arguments = container.get("args", [])
        environment = {"FACEMILL_MODELS": "/opt/facemill/models", "OPENBLAS_NUM_THREADS": "1", "ORT_DISABLE_TELEMETRY": "1"} | environment
        # In a pod the limit is a quota, from which the program takes it. Fetch waits more than it computes.
        if arguments[:1] == ["work"] and arguments[1:] != ["fetch"]:
            environment["FACEMILL_CONCURRENCY"] = str(container["resources"]["limits"]["cpu"])
        return [*container.get("command", ["facemill"]), *arguments], environment, {}


class RabbitMq(Image):
    """Its settings are the pod's, but the disk need not be large, and its figures are a second old instead of five."""

    def start(self, container, environment):
        environment = {
            "HOME": "/var/lib/rabbitmq",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 +sbwt none -rabbit quorum_tick_interval 1000",
            # Debian's 3.10 has a second log, for upgrades, whatever the settings say; it goes the first one's way.
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
    """The first leader is elected sooner, and the disk need not be large."""

    def start(self, container, environment):
        command, environment, files = super().start(container, environment)
        if command[0] == "weed":
            command += ["-master.electionTimeout=1s", "-master.heartbeatInterval=100ms", "-volume.minFreeSpace=100MiB"]
        return command, environment, files


class Images:
    """Without one, pods wait as for an image that cannot be pulled."""

    def __init__(self, program, programs):
        """`programs`: an empty folder, for what is not where the machine's other programs are."""
        system = Image()
        self.known = {"facemill": Facemill(), "rabbitmq": RabbitMq(), "redis": Redis(), "seaweedfs": SeaweedFs(),
                      "system": system}
        # Debian's redis-tools has the same program under another name; it looks at the name that it is called by.
        redis = os.path.realpath(shutil.which("redis-server") or "/usr/bin/redis-check-rdb")
        sources = {"facemill": program.binary.absolute(), "weed": ROOT / ".cache/bin/weed", "redis-server": redis}
        for name, source in sources.items():
            (programs / name).touch()
            subprocess.run(["mount", "--bind", source, programs / name], check=True)
        # What of this repository is in every container: (source, path) each.
        own = Path(__file__).parent
        self.mounts = [(str(programs), "/usr/local/bin"), (str(ROOT / "models"), "/opt/facemill/models"),
                       (str(own / "names.py"), "/opt/stand-in/names.py")]

    def find(self, image):
        return self.known.get(image.rsplit("/", 1)[-1].partition(":")[0])
