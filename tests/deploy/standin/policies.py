"""NetworkPolicies as nftables rules for a pod's own network namespace.

As Kubernetes has them: in a direction in which no policy selects a pod, everything is open; else only what one of its
policies lets through. Both ends must agree. Established connections go on; the node reaches its pods, and a pod itself.
What is left is dropped, as most network plug-ins do, and written down in the sets `dropped_ingress` and
`dropped_egress`: a connection that the rules have ended is told from one that nobody answers.
"""

import ipaddress
import json
import shutil
from dataclasses import dataclass

from manifests import matches

# Debian has it where not everybody looks.
NFT = shutil.which("nft") or "/usr/sbin/nft"
TABLE = "inet policies"
# Hook, the other end's address, the name of a rule's list of other ends.
DIRECTIONS = {"Ingress": ("input", "saddr", "from"), "Egress": ("output", "daddr", "to")}
FAMILIES = {4: ("ip", "ipv4"), 6: ("ip6", "ipv6")}
# Loaded as one transaction, which leaves the sets as they are.
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
    """What is let through: these networks without those, at these ports as (protocol, first, last).

    None stands for every network and for every port; a protocol's `first` is None where all of its ports are meant.
    """

    networks: tuple | None
    without: tuple = ()
    ports: tuple | None = None


class Policies:
    """All policies of a cluster, with the pods and the namespaces' labels that their selectors are about."""

    def __init__(self, policies, pods, namespaces):
        self.policies = policies
        self.pods = [pod for pod in pods if addresses(pod)]
        self.namespaces = {item["metadata"]["name"]: item["metadata"].get("labels", {}) for item in namespaces}

    def openings(self, pod, direction):
        """What is open to a pod in this direction; None where everything is."""
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
        # A named port is the receiver's: for addresses outside it names nothing.
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
        """Whether one end of a rule in a policy of this namespace means that pod."""
        meta = pod["metadata"]
        if "namespaceSelector" in end:
            if not matches(end["namespaceSelector"], self.namespaces.get(meta["namespace"], {})):
                return False
        elif meta["namespace"] != namespace:
            return False
        return matches(end.get("podSelector", {}), meta.get("labels", {}))

    def ruleset(self, pod, node):
        """What `nft --file` takes; `node` is the address from which the pod is probed."""
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
    """Where none are named, a policy is about what comes in, and about what goes out if it says something of it."""
    return spec.get("policyTypes") or ["Ingress", *(["Egress"] if spec.get("egress") else [])]


def addresses(pod):
    """A pod's own, as networks of one; of a pod that is over, none."""
    status = pod.get("status", {})
    if status.get("phase") in ("Succeeded", "Failed"):
        return []
    return [ipaddress.ip_network(known["ip"]) for known in status.get("podIPs", [])]


def ports_of(rule, receiver):
    """A rule's ports, named ones as the pod that receives has them; an empty tuple opens nothing."""
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
    """An opening's rules, one for each family and range of ports."""
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
            # nft knows no set of everything.
            everything = inside[0].prefixlen == 0
            where = [f"meta nfproto {long_name}" if everything else f"{family} {side} {listed(inside)}"]
            yield where + ([f"{family} {side} != {listed(outside)}"] if outside else [])


def listed(networks):
    return f"{{ {', '.join(map(str, networks))} }}"


def dropped(told):
    """What `nft --json list table` says that was dropped: (direction, the other end's address, protocol, port) each."""
    for entry in json.loads(told)["nftables"]:
        if "set" in entry and entry["set"]["name"].startswith("dropped_"):
            for element in entry["set"].get("elem", []):
                yield entry["set"]["name"].removeprefix("dropped_"), *element["concat"]
