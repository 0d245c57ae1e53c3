"""The few kubectl commands that deploy/submit.sh and deploy/job.sh use, answered from rendered manifests.

FAKE_KUBECTL names a folder: `manifests.json` has the objects, `port` the local port of a forwarded Service, `error` what
port-forward prints after a connection failed; `created.json` is written by `create --filename -`. `pod.json` has the
states of the Job's pod, one after the other, `log` its log.
"""

import json
import os
import re
import signal
import sys
from pathlib import Path

FOLDER = Path(os.environ["FAKE_KUBECTL"])


def find(kind, name):
    kinds = {"configmap": "ConfigMap", "secret": "Secret", "cronjob": "CronJob"}
    for item in json.loads((FOLDER / "manifests.json").read_text(encoding="utf-8")):
        if (item["kind"], item["metadata"]["name"]) == (kinds[kind], name):
            return item
    sys.exit(f'Error from server (NotFound): {kind} "{name}" not found')


def json_path(item, path):
    """A path like `{.a.b[0].c}`. A missing field is an empty text, as in kubectl."""
    for key in re.findall(r"[\w-]+", path):
        item = item[int(key)] if isinstance(item, list) else item.get(key, "")
    return item


def port_forward(service, ports):
    port, error = (FOLDER / "port").read_text(encoding="utf-8"), FOLDER / "error"
    print(f"Forwarding from 127.0.0.1:{port} -> {ports.lstrip(':')}", flush=True)
    if error.exists():
        print(error.read_text(encoding="utf-8"), flush=True)
    signal.pause()


def create_job(name, template):
    job = find("cronjob", template.removeprefix("--from=cronjob/"))["spec"]["jobTemplate"]
    owner = {"apiVersion": "batch/v1", "kind": "CronJob", "name": "facemill", "uid": "1", "controller": True}
    metadata = {"name": name, "ownerReferences": [owner]}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": job["spec"]}


def pod_field(path):
    """A field of the pod of the Job. Each question about its phase moves it to its next state."""
    file = FOLDER / "pod.json"
    states = json.loads(file.read_text(encoding="utf-8"))
    value = json_path({"items": [{"status": states[0]}]}, path)
    if path.endswith("phase}") and len(states) > 1:
        file.write_text(json.dumps(states[1:]), encoding="utf-8")
    return value


def main(arguments):
    (namespace_flag, namespace), rest = arguments[:2], arguments[2:]
    assert (namespace_flag, namespace) == ("--namespace", "facemill"), arguments
    match rest:
        case ["get", kind, name, "--output", output]:
            print(json_path(find(kind, name), output.removeprefix("jsonpath=")), end="")
        case ["get", "pods", "--selector", selector, "--output", output]:
            created = json.loads((FOLDER / "created.json").read_text(encoding="utf-8"))
            assert selector == f"batch.kubernetes.io/job-name={created['metadata']['name']}", selector
            print(pod_field(output.removeprefix("jsonpath=")), end="")
        case ["logs", "--follow", _]:
            print((FOLDER / "log").read_text(encoding="utf-8"), end="")
        case ["port-forward", service, ports]:
            port_forward(service, ports)
        case ["create", "job", name, template, "--dry-run=client", "--output", "json"]:
            print(json.dumps(create_job(name, template)))
        case ["create", "--filename", "-"]:
            created = json.load(sys.stdin)
            (FOLDER / "created.json").write_text(json.dumps(created), encoding="utf-8")
            print(f"job.batch/{created['metadata']['name']} created")
        case _:
            sys.exit(f"error: unknown command {rest}")


if __name__ == "__main__":
    main(sys.argv[1:])
