"""Network policies of Kubernetes as nftables rules for the network namespace of a pod.

If no policy selects a pod in a direction, everything is allowed; otherwise only what one of its policies allows. Both
ends must allow a connection. Established connections, connections from the node and a pod's connections to itself are
always allowed. Everything else is dropped, as most network plug-ins do, and noted in the sets `dropped_ingress` and
`dropped_egress`, so that a dropped connection can be distinguished from one without an answer.
"""

import ipaddress
import json
import shutil
from dataclasses import dataclass

from manifests import matches

# Debian installs nft outside the PATH of ordinary users.
NFT = shutil.which("nft") or "/usr/sbin/nft"
TABLE = "inet policies"
# Hook, address of the other end, key of a rule's list of other ends.
DIRECTIONS = {"Ingress": ("input", "saddr", "from"), "Egress": ("output", "daddr", "to")}
FAMILIES = {4: ("ip", "ipv4"), 6: ("ip6", "ipv6")}
# Loaded as one transaction, which keeps the sets.
FRAME = """\
add table inet policies
add set inet policies dropped_{direction} {{ type ipv4_addr . inet_proto . inet_service; size 4096; flags dynamic; }}
add chain inet policies {direction} {{ type filter hook {hook} priority 0; policy drop; }}
flush chain inet policies {direction}
add rule inet policies {direction} {interface} lo accept
add rule inet policies {direction} ct state established,related accept
{rules}
add rule inet policies {direction} tcp flags & (fin | syn | rst | ack) == syn \
add @dropped_{direction} {{ ip {side} . meta l4proto . tcp dport }}
add rule inet policies {direction} ct state new add @dropped_{direction} {{ ip {side} . meta l4proto . udp dport }}
"""


@dataclass(frozen=True)
class Opening:
    """What is allowed: networks, without the excluded ones, at ports given as (protocol, first, last).

    None means every network or every port. `first` is None for all ports of a protocol.
    """

    networks: tuple | None
    without: tuple = ()
    ports: tuple | None = None


class Policies:
    """All policies of a cluster, with the pods and the labels of namespaces that their selectors refer to."""

    def __init__(self, policies, pods, namespaces):
        self.policies = policies
        self.pods = [pod for pod in pods if addresses(pod)]
        self.namespaces = {item["metadata"]["name"]: item["metadata"].get("labels", {}) for item in namespaces}

    def openings(self, pod, direction):
        """What is allowed for a pod in this direction; None if everything is."""
        meta, found = pod["metadata"], None
        for policy in self.policies:
            spec = policy["spec"]
            if policy["metadata"]["namespace"] == meta["namespace"] and direction in directions(spec) \
                    and matches(spec.get("podSelector", {}), meta.get("labels", {})):
                found = found or []
                for rule in spec.get(direction.lower()) or []:
                    found += self.opened(rule, pod, direction)
        return found

    def opened(self, rule, pod, direction):
        ends = rule.get(DIRECTIONS[direction][2])
        # A named port is defined by the receiver, so it has no meaning for addresses outside the cluster.
        receiver = pod if direction == "Ingress" else None
        if not ends:
            return [Opening(None, (), ports_of(rule, receiver))]
        found, by_ports = [], {}
        for end in ends:
            if block := end.get("ipBlock"):
                without = tuple(map(ipaddress.ip_network, block.get("except", [])))
                found.append(Opening((ipaddress.ip_network(block["cidr"]),), without, ports_of(rule, receiver)))
                continue
            for other in self.pods:
                if self.selected(end, other, pod["metadata"]["namespace"]):
                    by_ports.setdefault(ports_of(rule, receiver or other), []).extend(addresses(other))
        return found + [Opening(tuple(networks), (), ports) for ports, networks in by_ports.items()]

    def selected(self, end, pod, namespace):
        """Whether an end of a rule in a policy of this namespace selects the pod."""
        meta = pod["metadata"]
        if "namespaceSelector" in end:
            if not matches(end["namespaceSelector"], self.namespaces.get(meta["namespace"], {})):
                return False
        elif meta["namespace"] != namespace:
            return False
        return matches(end.get("podSelector", {}), meta.get("labels", {}))

    def ruleset(self, pod, node):
        """The input of `nft --file`. `node`: the address from which the pod is probed."""
        parts = []
        for direction, (hook, side, _) in DIRECTIONS.items():
            openings = self.openings(pod, direction)
            rules = [f"ip {side} {node} accept"] if direction == "Ingress" else []
            rules += ["accept"] if openings is None else [rule for one in openings for rule in rendered(one, side)]
            name, interface = direction.lower(), "iif" if direction == "Ingress" else "oif"
            rules = "\n".join(f"add rule {TABLE} {name} {rule}" for rule in rules)
            parts.append(FRAME.format(direction=name, hook=hook, side=side, interface=interface, rules=rules))
        return "".join(parts)


def directions(spec):
    """The directions of a policy: by default ingress, and egress if the policy has such rules."""
    return spec.get("policyTypes") or ["Ingress", *(["Egress"] if spec.get("egress") else [])]


def addresses(pod):
    """The addresses of a pod as networks. A pod that has ended has none."""
    status = pod.get("status", {})
    if status.get("phase") in ("Succeeded", "Failed"):
        return []
    return [ipaddress.ip_network(known["ip"]) for known in status.get("podIPs", [])]


def ports_of(rule, receiver):
    """The ports of a rule. Named ports are looked up in the receiving pod. An empty tuple allows nothing."""
    if not rule.get("ports"):
        return None
    found = []
    for port in rule["ports"]:
        protocol, first = port.get("protocol", "TCP"), port.get("port")
        if isinstance(first, str):
            known = [p for c in (receiver["spec"]["containers"] if receiver else []) for p in c.get("ports", [])]
            found += [(protocol.lower(), p["containerPort"], p["containerPort"]) for p in known
                      if (p.get("name"), p.get("protocol", "TCP")) == (first, protocol)]
        else:
            found.append((protocol.lower(), first, port.get("endPort", first)))
    return tuple(found)


def rendered(opening, side):
    """The rules of an opening, one for each address family and range of ports."""
    for where in [[]] if opening.networks is None else list(places(opening, side)):
        for protocol, first, last in [("", None, None)] if opening.ports is None else opening.ports:
            ports = f"{protocol} dport {first}-{last}" if first != last else f"{protocol} dport {first}"
            if first is None:
                ports = protocol and f"meta l4proto {protocol}"
            yield " ".join([*where, *([ports] if ports else []), "accept"])


def places(opening, side):
    for version, (family, long_name) in FAMILIES.items():
        inside, outside = (
            list(ipaddress.collapse_addresses(n for n in networks if n.version == version))
            for networks in (opening.networks, opening.without)
        )
        if inside:
            # nft has no set of all addresses.
            everything = inside[0].prefixlen == 0
            where = [f"meta nfproto {long_name}" if everything else f"{family} {side} {listed(inside)}"]
            yield where + ([f"{family} {side} != {listed(outside)}"] if outside else [])


def listed(networks):
    return f"{{ {', '.join(map(str, networks))} }}"


def dropped(listing):
    """Yields (direction, other address, protocol, port) of each entry of `nft --json list table` that was dropped."""
    for entry in json.loads(listing)["nftables"]:
        if "set" in entry and entry["set"]["name"].startswith("dropped_"):
            for element in entry["set"].get("elem", []):
                yield entry["set"]["name"].removeprefix("dropped_"), *element["concat"]
