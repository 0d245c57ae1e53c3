#!/usr/bin/env python3
"""Runs an installation: apply, submit, scale, update, kill. At the end every photo must be accounted for.

  tests/cluster-standin/cluster.py                                   a stand-in for a cluster (Linux; root, or user namespaces)
  CONTEXT=kind-kind DUMP=dump.sql tests/cluster-standin/cluster.py   a real one, with k8s/overlays/dev and a dump of yours

All steps use kubectl and deploy/submit.sh. The stand-in (standin/) runs the pods of the manifests as processes in network
namespaces of their own, with the policies, users and roots of the manifests. The servers are real. On the stand-in, a
second run follows in which its autoscaler scales as KEDA does. Everything runs in namespaces of this process and ends
with it.
"""

import argparse
import csv
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from installation import RUN, STAGES, Installation, names, say, until
from machine import StandIn

import manifests
from manifests import ROOT, Program

INSIDE = "FACEMILL_TEST_INSIDE"


def live(installation, dump, power_off=None, photo=None):
    """The scenario. The workers' ends, the audit, and what the policies have dropped are the judges."""
    say("apply")
    installation.apply()
    expected = installation.submit(dump)
    say(f"submitted: {expected} photos")
    began = time.monotonic()

    until("the first tenth", lambda: installation.ended() >= expected * 0.1)
    say("detect: 1 to 3")
    installation.scale("detect", 3)
    until("all three detect workers work", lambda: sum(done > 0 for done in installation.share_of_work("detect")) == 3)
    say("detect: 3 to 1")
    installation.scale("detect", 1)
    say("rolling update")
    installation.update()
    for stage in STAGES:
        say(f"kill a {stage} worker")
        installation.kill(stage)
    say("a node dies")
    died = time.monotonic()
    say(f"it was {installation.kill_node(power_off)}")
    still = expected - installation.ended()
    assert still > 0, "everything was over before the last disturbance: give it more photos"
    say(f"{still} photos left after the last disturbance")
    until("every photo has ended", lambda: installation.ended() >= expected, patience=900)
    took, since = time.monotonic() - began, time.monotonic() - died
    say(f"all ended after {took:.0f} s, {since:.0f} s after the node's death: {installation.status()['ended']}")
    say(installation.as_job("audit", installation.dump, "--run", RUN).strip().replace("\n", "; "))
    if photo:
        installation.do_as_the_manual_says(dump, photo)
    assert not (restarts := installation.restarts()), restarts
    installation.close()


def first_of(dump, photos):
    """A dump of so many of them: enough for a queue, and soon done."""
    lines = dump.read_text(encoding="utf-8").splitlines(keepends=True)
    few = dump.with_name("few.csv")
    few.write_text("".join(lines[:1 + photos]), encoding="utf-8")
    return few


def live_with_keda(installation, autoscaler, dump):
    """Nobody works until there are photos, and nobody when there are none left. The audit is the judge here, too."""
    run, began = "again", time.monotonic()
    installation.kubectl("apply", "--kustomize", ROOT / "tests/cluster-standin/overlays/keda")
    autoscaler.start()
    until("nobody works", installation.is_empty, 60)
    for stage in ("fetch", "crop"):
        installation.hold(stage)
    expected = installation.submit(dump, run)
    until("KEDA sees the photos", lambda: autoscaler.length("fetch") == expected, 60)
    looked = {stage: autoscaler.of(stage).looks + 2 for stage in STAGES if stage not in ("fetch", "crop")}
    until("KEDA looks twice", lambda: all(autoscaler.of(s).looks >= number for s, number in looked.items()), 60, 0.1)
    assert not (early := names(installation.workers())), f"fetch was held, and {early} work"
    say(f"{expected} photos wait for fetch, which is held: nobody works")
    installation.let_go("fetch")
    until("photos wait for crop alone", lambda: [autoscaler.length(stage) for stage in STAGES[:2]] == [0, 0]
          and autoscaler.length("crop") > expected / 2, 120)
    early = names(installation.workers("crop") + installation.workers("classify"))
    assert not early, f"crop was held, and {early} work"
    say(f"{autoscaler.length('crop'):.0f} photos wait for crop, which is held")
    installation.let_go("crop")
    until("every stage has worked", lambda: all(autoscaler.of(stage).steps for stage in STAGES), 120)

    def all_ended():
        if not installation.is_empty():
            return False
        return sum(json.loads(installation.as_job("status", "--run", run, "--json"))["ended"].values()) >= expected

    until("every photo has ended, and nobody works", all_ended, 180)
    say(f"{time.monotonic() - began:.0f} s from nobody to nobody")
    for stage in STAGES:
        steps = autoscaler.of(stage).steps
        say(f"{stage}: " + " ".join(str(after) for _, after in steps))
        if stage in ("fetch", "crop"):
            assert max(after for _, after in steps) > 1, f"{stage} had one worker, however many photos waited"
    say(installation.as_job("audit", installation.dump, "--run", run).strip().replace("\n", "; "))


def measure(stand_in, installation, dump, folder, workers):
    """How long a collection takes with these workers, from its submission, and what they measured.

    To hold against `facemill simulate`.
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
    """Starts this script again in namespaces of its own."""
    plain = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    as_user = [[*plain, "--map-root-user", "--map-auto"], [*plain, "--map-root-user"]]
    works = lambda command: not subprocess.run([*command, "true"], capture_output=True, check=False).returncode
    command = next(filter(works, [plain] if os.geteuid() == 0 else as_user), None)
    if command is None:
        say("this machine allows no namespaces: give a cluster with CONTEXT, or run it as root")
        return 3
    if command is as_user[1]:
        say("NOT TRIED: the manifests' users. There is but one here: give it more (newuidmap, /etc/subuid), or be root")
    command += [sys.executable, "-B", __file__, *arguments]
    scratch = tempfile.mkdtemp(prefix="facemill-cluster-")
    try:
        return subprocess.run(command, env=os.environ | {INSIDE: scratch}, check=False).returncode
    finally:
        # What was mounted there has ended with its namespace.
        shutil.rmtree(scratch, ignore_errors=True)


def main(arguments):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    copies = "how often the dump contains each photo of the demonstration"
    calm = "without disturbances, one worker a stage: stores the metrics in this folder"
    parser.add_argument("--copies", type=int, default=6, help=copies)
    parser.add_argument("--measure", type=Path, help=calm)
    parser.add_argument("--workers", default="", help="with --measure: more of a stage, as in detect=2,crop=2")
    parser.add_argument("--keep", type=Path, help="copy the logs there")
    options = parser.parse_args(arguments)
    if context := os.environ.get("CONTEXT"):
        if not os.environ.get("DUMP"):
            parser.error("with CONTEXT, say which DUMP")
        live(Installation(ROOT / "k8s/overlays/dev", {}, context), Path(os.environ["DUMP"]))
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
            live(installation, dump, stand_in.kubelet.power_off, photo)
            live_with_keda(installation, stand_in.autoscaler, first_of(dump, 100))
        stand_in.judge()
    finally:
        if options.keep:
            options.keep.mkdir(parents=True, exist_ok=True)
            for log in [*scratch.glob("*.log"), *scratch.glob("pods/*.log")]:
                shutil.copy(log, options.keep)
        # What belongs to users of this namespace, nobody can take away later.
        shutil.rmtree(scratch, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
