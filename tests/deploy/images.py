"""What stands in for the images that the manifests name: programs of this machine, started as the image starts them."""

import os
import shutil
import subprocess
from pathlib import Path

from manifests import ROOT


class Images:
    """Each image's command and environment. Without one, pods wait as for an image that cannot be pulled."""

    def __init__(self, program, extra_path):
        self.program, self.extra_path = program, extra_path
        self.starts = {
            "facemill": self.facemill, "rabbitmq": self.rabbitmq, "redis": self.redis, "seaweedfs": self.seaweedfs,
        }
        (extra_path / "facemill").symlink_to(os.path.abspath(program.binary))
        # Debian's redis-tools has the same program under another name; it looks at the name that it is called by.
        (extra_path / "redis-server").symlink_to(shutil.which("redis-server") or "/usr/bin/redis-check-rdb")
        # Reachable even where /tmp, which the repository may be in, is another one.
        (extra_path / "weed").touch()
        subprocess.run(["mount", "--bind", ROOT / ".cache/bin/weed", extra_path / "weed"], check=True)

    def find(self, image):
        return self.starts.get(image.rsplit("/", 1)[-1].partition(":")[0])

    def start(self, pod, container, environment):
        """The command line and the environment of a container whose folders are `pod.folder`."""
        arguments = [pod.local(argument) for argument in container.get("args", [])]
        command = container.get("command", [])
        environment = {"PATH": f"{self.extra_path}:{os.environ['PATH']}", "HOME": str(pod.folder)} | environment
        return self.find(container["image"])(pod, container, command, arguments, environment)

    def facemill(self, pod, container, command, arguments, environment):
        environment["FACEMILL_MODELS"] = str(ROOT / "models")
        # In a pod the limit is a quota, from which the program takes it. Fetch waits more than it computes.
        if arguments[:1] == ["work"] and arguments[1:] != ["fetch"]:
            environment["FACEMILL_CONCURRENCY"] = str(container["resources"]["limits"]["cpu"])
        return [*(command or ["facemill"]), *arguments], environment

    def rabbitmq(self, pod, container, command, arguments, environment):
        given = Path(pod.local("/etc/rabbitmq/conf.d/20-facemill.conf")).read_text(encoding="utf-8").splitlines()
        # The console's and the disk's settings are for a container.
        kept = [line for line in given if not line.startswith(("log.", "disk_"))]
        own = ["disk_free_limit.absolute = 50MB", f"default_user = {environment.pop('RABBITMQ_DEFAULT_USER')}",
               f"default_pass = {environment.pop('RABBITMQ_DEFAULT_PASS')}",
               f"default_vhost = {environment.pop('RABBITMQ_DEFAULT_VHOST')}"]
        (pod.folder / "rabbitmq.conf").write_text("\n".join(kept + own) + "\n", encoding="utf-8")
        (pod.folder / "plugins").write_text("[rabbitmq_management].", encoding="utf-8")
        return ["/usr/lib/rabbitmq/bin/rabbitmq-server"], environment | {
            "RABBITMQ_CONFIG_FILE": str(pod.folder / "rabbitmq.conf"), "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_MNESIA_BASE": pod.local("/var/lib/rabbitmq"), "RABBITMQ_LOG_BASE": str(pod.folder / "log"),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_PID_FILE": str(pod.folder / "rabbitmq.pid"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(pod.folder / "plugins"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 +sbwt none",
        }

    def redis(self, pod, container, command, arguments, environment):
        arguments = [argument.replace("$(REDIS_PASSWORD)", environment["REDIS_PASSWORD"]) for argument in arguments]
        return ["redis-server", *arguments], environment

    def seaweedfs(self, pod, container, command, arguments, environment):
        if command == ["weed"]:
            # The first leader is elected sooner, and the disk need not be large.
            arguments += ["-master.electionTimeout=1s", "-master.heartbeatInterval=100ms"]
            arguments += ["-volume.minFreeSpace=100MiB"]
        # It has sockets there, whose names are always the same.
        own_tmp = ["sh", "-c", 'mount -t tmpfs tmpfs /tmp && exec "$@"', "sh"]
        return [*own_tmp, *command, *arguments], environment
