"""A stand-in for a Kubernetes cluster, for machines without one. A module knows only those above it:

    patches  protobuf  websocket  spdy        what goes over the wire
    remote                                    commands and ports of pods, from afar
    apiserver                                 the objects, served to kubectl
    controllers  autoscaler                   what follows from the objects
    container  names  images                  roots, names and programs of pods
    kubelet                                   runs the pods
"""

import sys
from pathlib import Path

# manifests.py and policies.py.
sys.path.append(str(Path(__file__).resolve().parents[2] / "deploy"))
