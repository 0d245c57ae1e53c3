"""A stand-in of a Kubernetes cluster, for machines where none is at hand. A module knows only those above it:

    patches  protobuf  websocket  spdy        what goes over the wire
    remote                                    commands and ports of pods, from afar
    apiserver                                 the objects, as kubectl asks for them
    controllers  autoscaler                   what follows from the objects
    policies  container  names  images        networks, roots, names and programs of pods
    kubelet                                   runs the pods
"""
