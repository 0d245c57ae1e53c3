#!/usr/bin/env python3
"""Runs an installation: apply, submit, scale, update, kill. The audit at the end accounts for every photo.

  tests/cluster-standin/cluster.py
      uses the stand-in (Linux; root or user namespaces)
  CONTEXT=kind-kind DUMP=dump.sql tests/cluster-standin/cluster.py
      uses a real cluster, k8s/overlays/dev and the given dump

All steps use kubectl and deploy/submit.sh. The stand-in (standin/) runs each pod of the manifests as processes in a
separate network namespace. It applies the policies, users and roots of the manifests. The servers are real. On the
stand-in, a second run follows: its autoscaler scales as KEDA does. Everything runs in namespaces of this process and
ends with it.
"""

import argparse
import csv
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from curator import Curator
from installation import RUN, STAGES, Installation, names, say, until
from machine import StandIn

import manifests
from manifests import ROOT, Program

INSIDE = "FACEMILL_TEST_INSIDE"


def run_scenario(installation, dump, power_off=None, photo=None):
    """Runs the scenario without KEDA. Checks the audit and the restarts."""
    say("apply")
    installation.apply()
    expected = installation.submit(dump)
    say(f"submitted: {expected} photos")
    began = time.monotonic()

    until("the first tenth", lambda: installation.ended() >= expected * 0.1)
    say("detect: 1 to 3")
    installation.scale("detect", 3)
    until("three detect workers have processed photos",
          lambda: sum(done > 0 for done in installation.share_of_work("detect")) == 3)
    say("detect: 3 to 1")
    installation.scale("detect", 1)
    say("rolling update")
    installation.update()
    for stage in STAGES:
        say(f"kill a {stage} worker")
        installation.kill(stage)
    say("remove a node")
    removed = time.monotonic()
    say(f"removed {installation.kill_node(power_off)}")
    left = expected - installation.ended()
    assert left > 0, "every photo ended before the last disturbance: use more photos"
    say(f"{left} photos left after the last disturbance")
    until("every photo has ended", lambda: installation.ended() >= expected, patience=900)
    took, since = time.monotonic() - began, time.monotonic() - removed
    say(f"all ended after {took:.0f} s, {since:.0f} s after the removal of the node: {installation.status()['ended']}")
    say(installation.as_job("audit", installation.dump, "--run", RUN).strip().replace("\n", "; "))
    if photo:
        installation.do_as_the_manual_says(dump, photo)
        judge_a_face(installation)
        make_a_dataset(installation)
    assert not (restarts := installation.restarts()), restarts
    installation.close()


def judge_a_face(installation):
    """Starts the page as docs/curation-access.md says, judges a face on it, and kills its pod."""
    password = secrets.token_urlsafe(24)
    installation.kubectl("apply", "--kustomize", ROOT / "tests/cluster-standin/overlays/curate")
    add = ("facemill", "users", "add", "ada", "--role", "curator")
    installation.kubectl("exec", "--stdin", "deployment/detect", "--", *add, input=f"{password}\n")
    installation.restart_page()
    with installation.page() as url:
        curator = Curator(url, "ada", password)
        counts, status = curator.counts(), installation.status()
        assert counts["total"] == status["ended"]["predicted"], (counts, status["ended"])
        photo = curator.judge("ok")
    pod = installation.kill_page()
    with installation.page() as url:
        curator.url = url
        assert curator.judgement(photo) == "ok", "the verdict is lost"
        assert curator.counts()["statuses"]["ok"] >= 1
    say(f"photo {photo} was judged on the page; {pod} was killed; started again, it has the verdict and the session")
    installation.kubectl("delete", "deployment/curate")
    installation.kubectl("wait", "--for=delete", "pod", "--selector=role=page", "--timeout=200s")


def make_a_dataset(installation):
    """Makes a dataset of the judged face by Jobs, as docs/kubernetes.md says."""
    say(installation.as_job("measure", "--run", RUN).strip().splitlines()[-1])
    say(installation.as_job("duplicates", "--run", RUN, "--limit", "1").strip().splitlines()[-1])
    installation.as_job("dataset", "freeze", "v1", "--run", RUN, "--size", "64")
    to = "s3://facemill/datasets/v1.zip"
    output = installation.as_job("export", "--run", RUN, "--frozen", "v1", "--size", "64", "--to", to, "--json")
    exported = json.loads(output.strip().splitlines()[-1])
    assert (exported["faces"], exported["to"]) == (1, to), output
    say(f"one face is in {to}")


def first_photos(dump, photos):
    """Writes a dump with only the first `photos` photos."""
    lines = dump.read_text(encoding="utf-8").splitlines(keepends=True)
    few = dump.with_name("few.csv")
    few.write_text("".join(lines[:1 + photos]), encoding="utf-8")
    return few


def run_keda_scenario(installation, autoscaler, dump):
    """Runs the scenario with KEDA. The number of workers is zero before the first photo and after the last one."""
    run, began = "again", time.monotonic()
    installation.kubectl("apply", "--kustomize", ROOT / "tests/cluster-standin/overlays/keda")
    autoscaler.start()
    until("no worker exists", installation.is_empty, 60)
    for stage in ("fetch", "crop"):
        installation.hold(stage)
    expected = installation.submit(dump, run)
    until("KEDA reads the queue length", lambda: autoscaler.length("fetch") == expected, 60)
    polls_before = {stage: autoscaler.of(stage).polls + 2 for stage in STAGES if stage not in ("fetch", "crop")}
    until("KEDA polls twice",
          lambda: all(autoscaler.of(stage).polls >= number for stage, number in polls_before.items()), 60, 0.1)
    assert not (early := names(installation.workers())), f"fetch is paused, but {early} exist"
    say(f"{expected} photos wait for fetch, which is paused: no worker exists")
    installation.let_go("fetch")
    until("photos wait only for crop", lambda: [autoscaler.length(stage) for stage in STAGES[:2]] == [0, 0]
          and autoscaler.length("crop") > expected / 2, 120)
    early = names(installation.workers("crop") + installation.workers("classify"))
    assert not early, f"crop is paused, but {early} exist"
    say(f"{autoscaler.length('crop'):.0f} photos wait for crop, which is paused")
    installation.let_go("crop")
    until("every stage has had workers", lambda: all(autoscaler.of(stage).steps for stage in STAGES), 120)

    def all_ended():
        if not installation.is_empty():
            return False
        return sum(json.loads(installation.as_job("status", "--run", run, "--json"))["ended"].values()) >= expected

    until("every photo has ended, and no worker exists", all_ended, 180)
    say(f"{time.monotonic() - began:.0f} s from zero workers to zero workers")
    for stage in STAGES:
        steps = autoscaler.of(stage).steps
        say(f"{stage}: " + " ".join(str(after) for _, after in steps))
        if stage in ("fetch", "crop"):
            assert max(after for _, after in steps) > 1, f"{stage} never has more than one worker"
    say(installation.as_job("audit", installation.dump, "--run", run).strip().replace("\n", "; "))


def measure(stand_in, installation, dump, folder, workers):
    """Prints the duration of a collection with these workers, and stores their metrics.

    The duration counts from the submission. It is compared with `facemill simulate`.
    """
    installation.apply()
    for stage, number in workers.items():
        installation.scale(stage, number)
    began = time.monotonic()
    expected = installation.submit(dump)
    until("every photo has ended", lambda: installation.ended() >= expected, patience=900, pause=0.2)
    took = time.monotonic() - began
    stand_in.measurements(installation, folder)
    counts = {stage: len(installation.workers(stage)) for stage in STAGES}
    print(json.dumps({"photos": expected, "seconds": round(took, 1), "workers": counts}))
    installation.close()


def inside_namespaces(arguments):
    """Starts this script again in new namespaces."""
    plain = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    as_user = [[*plain, "--map-root-user", "--map-auto"], [*plain, "--map-root-user"]]
    works = lambda command: not subprocess.run([*command, "true"], capture_output=True, check=False).returncode
    command = next(filter(works, [plain] if os.geteuid() == 0 else as_user), None)
    if command is None:
        say("this machine does not allow namespaces: set CONTEXT to use a cluster, or run as root")
        return 3
    if command is as_user[1]:
        say("NOT TRIED: the users of the manifests. Only one user exists: set up /etc/subuid and newuidmap, or be root")
    command += [sys.executable, "-B", __file__, *arguments]
    scratch = tempfile.mkdtemp(prefix="facemill-cluster-")
    try:
        return subprocess.run(command, env=os.environ | {INSIDE: scratch}, check=False).returncode
    finally:
        # The mounts in this folder end with their namespace.
        shutil.rmtree(scratch, ignore_errors=True)


def main(arguments):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    copies = "number of copies of each demonstration photo in the dump; from 10 on, faces are placeholders"
    metrics = "run one worker per stage without disturbances, and store the metrics in this folder"
    parser.add_argument("--copies", type=int, default=9, help=copies)
    parser.add_argument("--measure", type=Path, help=metrics)
    parser.add_argument("--workers", default="", help="with --measure: workers per stage, as in detect=2,crop=2")
    parser.add_argument("--keep", type=Path, help="copy the logs to this folder")
    options = parser.parse_args(arguments)
    if context := os.environ.get("CONTEXT"):
        if not os.environ.get("DUMP"):
            parser.error("CONTEXT requires DUMP")
        run_scenario(Installation(ROOT / "k8s/overlays/dev", {}, context), Path(os.environ["DUMP"]))
        return 0
    if INSIDE not in os.environ:
        return inside_namespaces(arguments)
    scratch = Path(os.environ[INSIDE])
    try:
        stand_in = StandIn(scratch, Program(manifests.built_program()))
        installation, dump = stand_in.installation(), stand_in.make_dump(options.copies)
        if options.measure:
            more = (entry.split("=") for entry in options.workers.split(",") if entry)
            workers = {stage: int(number) for stage, number in more}
            measure(stand_in, installation, dump, options.measure, workers)
        else:
            with open(dump, encoding="utf-8") as file:
                photo = next(csv.DictReader(file))["photo_id"]
            run_scenario(installation, dump, stand_in.kubelet.power_off, photo)
            run_keda_scenario(installation, stand_in.autoscaler, first_photos(dump, 100))
        stand_in.judge()
    finally:
        if options.keep:
            options.keep.mkdir(parents=True, exist_ok=True)
            for log in [*scratch.glob("*.log"), *scratch.glob("pods/*.log")]:
                shutil.copy(log, options.keep)
        # Files of users of this namespace can only be deleted inside it.
        shutil.rmtree(scratch, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
