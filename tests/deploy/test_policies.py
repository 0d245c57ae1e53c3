"""The semantics of network policies; and those of k8s/overlays/dev allow and block the connections of connections.py."""

import copy
import ipaddress
import json
import subprocess
import unittest

import manifests
from connections import ALLOWED, BLOCKED, NODE, PAGE_ALLOWED, PAGE_BLOCKED, names_of, parsed
from manifests import ROOT, WORKLOADS, template_of
from policies import NFT, Policies, dropped

OUTSIDE = "192.31.196.10"
NAMESPACES = [{"metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name, "team": team}}}
              for name, team in (("here", "a"), ("there", "a"), ("far", "b"))]


def pod(name, address, namespace="here", labels=None, ports=(), phase="Running"):
    ports = [{"name": name, "containerPort": number, "protocol": protocol} for name, number, protocol in ports]
    return {"metadata": {"name": name, "namespace": namespace, "labels": {"app": name} | (labels or {})},
            "spec": {"containers": [{"ports": ports}]}, "status": {"phase": phase, "podIPs": [{"ip": address}]}}


WEB = pod("web", "10.0.0.1", ports=[("http", 8080, "TCP"), ("http", 8081, "UDP")])
DB = pod("db", "10.0.0.2", labels={"tier": "store"}, ports=[("sql", 5432, "TCP")])
CACHE = pod("cache", "10.0.0.3", labels={"tier": "store"}, ports=[("sql", 5433, "TCP")])
WEB_THERE, DB_THERE = pod("web", "10.0.1.1", "there"), pod("db", "10.0.1.2", "there")
WEB_FAR = pod("web", "10.0.2.1", "far")
OVER = pod("db", "10.0.0.9", phase="Succeeded")
STORES = {"podSelector": {"matchLabels": {"tier": "store"}}}
PODS = [WEB, DB, CACHE, WEB_THERE, DB_THERE, WEB_FAR, OVER]


def policy(direction, *rules, selector=None, namespace="here", types=None):
    spec = {"podSelector": selector or {}, "policyTypes": types or [direction], direction.lower(): list(rules)}
    return {"metadata": {"name": "p", "namespace": namespace}, "spec": spec}


def address_of(one):
    return one["status"]["podIPs"][0]["ip"]


def app(name):
    return {"podSelector": {"matchLabels": {"app": name}}}


def team(name):
    return {"namespaceSelector": {"matchLabels": {"team": name}}}


def allows(openings, address, port, protocol="tcp"):
    """Whether one of the openings allows this connection, by the definition of an opening and not by its rules."""
    address, inside = ipaddress.ip_address(address), lambda networks: any(address in network for network in networks)
    return openings is None or any(
        (one.networks is None or inside(one.networks)) and not inside(one.without) and (
            one.ports is None or any(known == protocol and (first is None or first <= port <= last)
                                     for known, first, last in one.ports))
        for one in openings
    )


class Semantics(unittest.TestCase):
    def check(self, direction, policies, allowed, blocked, of=WEB):
        openings = Policies(policies, PODS, NAMESPACES).openings(of, direction)
        for connection in allowed:
            self.assertTrue(allows(openings, *connection), f"{connection} is blocked")
        for connection in blocked:
            self.assertFalse(allows(openings, *connection), f"{connection} is allowed")

    def addresses(self, direction, *ends):
        """The addresses of the pods that a rule with these ends selects."""
        rule = {{"Ingress": "from", "Egress": "to"}[direction]: list(ends)}
        openings = Policies([policy(direction, rule)], PODS, NAMESPACES).openings(WEB, direction)
        return {address for address in map(address_of, PODS) if allows(openings, address, 1)}

    def test_a_pod_that_no_policy_selects_is_open(self):
        elsewhere = [policy("Ingress", selector={"matchLabels": {"app": "db"}}), policy("Ingress", namespace="there")]
        self.assertIsNone(Policies(elsewhere, PODS, NAMESPACES).openings(WEB, "Ingress"))

    def test_directions_are_independent(self):
        known = Policies([policy("Ingress")], PODS, NAMESPACES)
        self.assertEqual(known.openings(WEB, "Ingress"), [])
        self.assertIsNone(known.openings(WEB, "Egress"))
        known = Policies([policy("Egress", {})], PODS, NAMESPACES)
        self.assertIsNone(known.openings(WEB, "Ingress"))

    def test_without_types_a_policy_applies_to_ingress_and_to_the_rules_it_has(self):
        silent = policy("Egress", {"to": [app("db")]})
        del silent["spec"]["policyTypes"]
        known = Policies([silent], PODS, NAMESPACES)
        self.assertEqual(known.openings(WEB, "Ingress"), [])
        self.assertEqual(len(known.openings(WEB, "Egress")), 1)
        del silent["spec"]["egress"]
        self.assertIsNone(known.openings(WEB, "Egress"))

    def test_policies_add_up(self):
        both = [policy("Egress"), policy("Egress", {"to": [app("db")], "ports": [{"port": 1}]}),
                policy("Egress", {"to": [app("cache")], "ports": [{"port": 2}]})]
        self.check("Egress", both, [("10.0.0.2", 1), ("10.0.0.3", 2)],
                   [("10.0.0.2", 2), ("10.0.0.3", 1), ("10.0.1.2", 1)])

    def test_a_rule_without_ends_allows_all_and_a_policy_without_rules_allows_none(self):
        self.check("Ingress", [policy("Ingress", {})], [("10.0.2.1", 1), ("192.31.196.10", 1), ("2001:db8::1", 1)], [])
        self.check("Ingress", [policy("Ingress", {"from": [], "ports": []})], [("192.31.196.10", 1)], [])
        self.check("Ingress", [policy("Ingress")], [], [("10.0.0.2", 1)])

    def test_pod_selectors_apply_to_the_namespace_of_the_policy(self):
        self.assertEqual(self.addresses("Ingress", app("db")), {"10.0.0.2"})
        self.assertEqual(self.addresses("Ingress", {"podSelector": {}}), {"10.0.0.1", "10.0.0.2", "10.0.0.3"})

    def test_namespace_selectors_select_all_pods_or_those_that_match_the_pod_selector(self):
        self.assertEqual(self.addresses("Egress", team("b")), {"10.0.2.1"})
        self.assertEqual(self.addresses("Egress", team("a") | app("web")), {"10.0.0.1", "10.0.1.1"})
        self.assertEqual(self.addresses("Egress", {"namespaceSelector": {}} | app("db")), {"10.0.0.2", "10.0.1.2"})

    def test_ends_of_a_rule_add_up(self):
        self.assertEqual(self.addresses("Egress", team("b"), app("cache")), {"10.0.2.1", "10.0.0.3"})

    def test_expressions(self):
        select = lambda key, operator, *values: {"podSelector": {"matchExpressions": [
            {"key": key, "operator": operator, **({"values": list(values)} if values else {})}]}}
        self.assertEqual(self.addresses("Egress", select("app", "In", "db", "web")), {"10.0.0.1", "10.0.0.2"})
        self.assertEqual(self.addresses("Egress", select("app", "NotIn", "db", "web")), {"10.0.0.3"})
        self.assertEqual(self.addresses("Egress", select("tier", "Exists")), {"10.0.0.2", "10.0.0.3"})
        self.assertEqual(self.addresses("Egress", select("tier", "DoesNotExist")), {"10.0.0.1"})

    def test_address_blocks_and_their_exceptions(self):
        block = {"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8", "192.168.0.0/16"]}}
        self.check("Egress", [policy("Egress", {"to": [block]})], [("192.31.196.10", 1), ("11.0.0.0", 1)],
                   [("10.0.0.2", 1), ("10.255.255.255", 1), ("192.168.1.1", 1), ("2001:db8::1", 1)])
        # An exception applies to its own block only.
        self.check("Egress", [policy("Egress", {"to": [block, app("db")]})], [("10.0.0.2", 1)], [("10.0.0.3", 1)])

    def test_ports(self):
        ports = [{"port": 80}, {"port": 53, "protocol": "UDP"}, {"port": 1000, "endPort": 1010}, {"protocol": "SCTP"}]
        at = lambda number, protocol="tcp": ("10.0.0.2", number, protocol)
        self.check("Egress", [policy("Egress", {"to": [app("db")], "ports": ports})],
                   [at(80), at(53, "udp"), at(1000), at(1010), at(7, "sctp")],
                   [at(53), at(80, "udp"), at(999), at(1011), ("10.0.0.3", 80)])

    def test_named_ports_are_looked_up_in_the_receiver(self):
        coming = policy("Ingress", {"ports": [{"port": "http"}]})
        self.check("Ingress", [coming], [("10.0.0.2", 8080)], [("10.0.0.2", 8081), ("10.0.0.2", 8081, "udp")])
        going = policy("Egress", {"to": [STORES], "ports": [{"port": "sql"}]})
        self.check("Egress", [going], [("10.0.0.2", 5432), ("10.0.0.3", 5433)],
                   [("10.0.0.2", 5433), ("10.0.0.3", 5432)])
        outside = policy("Egress", {"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}], "ports": [{"port": "sql"}]})
        self.check("Egress", [outside], [], [("10.0.0.2", 5432)])
        unknown = policy("Ingress", {"ports": [{"port": "unknown"}]})
        self.check("Ingress", [unknown], [], [("10.0.0.2", 8080)])


class NftRules(unittest.TestCase):
    def rules(self, *policies, of=WEB):
        return Policies(policies, PODS, NAMESPACES).ruleset(of, NODE).splitlines()

    def test_rules_follow_the_openings(self):
        rules = self.rules(policy("Egress", {
            "to": [STORES, {"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8"]}},
                   {"ipBlock": {"cidr": "2000::/3", "except": ["2002::/16"]}}],
            "ports": [{"port": 80}, {"port": 90, "endPort": 99, "protocol": "UDP"}, {"protocol": "SCTP"}],
        }))
        wheres = ["meta nfproto ipv4 ip daddr != { 10.0.0.0/8 }", "ip6 daddr { 2000::/3 } ip6 daddr != { 2002::/16 }",
                  "ip daddr { 10.0.0.2/31 }"]
        ports = ["tcp dport 80", "udp dport 90-99", "meta l4proto sctp"]
        self.assertEqual([rule for rule in rules if " egress " in rule and "daddr" in rule and "@" not in rule],
                         [f"add rule inet policies egress {where} {port} accept" for where in wheres for port in ports])

    def test_chains_drop_what_no_rule_accepts(self):
        for direction, hook in (("ingress", "input"), ("egress", "output")):
            rules = [rule for rule in self.rules(policy("Ingress"), policy("Egress")) if f" {direction} " in rule]
            self.assertIn(f"hook {hook} priority 0; policy drop;", rules[0])
            accepted = [rule for rule in rules if rule.endswith("accept")]
            self.assertTrue(accepted[0].endswith(" lo accept") and "established" in accepted[1], accepted)
            of_node = [f"add rule inet policies ingress ip saddr {NODE} accept"] if hook == "input" else []
            self.assertEqual(accepted[2:], of_node)
            self.assertIn(f"add rule inet policies {direction} accept", self.rules())

    def test_nft_accepts_the_rules(self):
        alone = ["unshare", "--user", "--map-root-user", "--net"]
        if subprocess.run([*alone, "true"], capture_output=True, check=False).returncode:
            self.skipTest("this machine has no user namespaces, so nft cannot load the rules")
        for overlay in ("dev", "production"):
            pods, known = cluster(manifests.render(ROOT / "k8s/overlays" / overlay))
            for one in pods:
                # Loading the rules again replaces them.
                twice = 2 * known.ruleset(one, NODE)
                loaded = subprocess.run([*alone, NFT, "--file", "-"], input=twice, capture_output=True, text=True,
                                        check=False)
                self.assertEqual((loaded.returncode, loaded.stderr), (0, ""), one["metadata"]["name"])

    def test_dropped_connections_are_read(self):
        element = {"concat": ["10.0.0.2", "tcp", 22]}
        listing = {"nftables": [{"metainfo": {}}, {"chain": {"name": "egress"}}, {"set": {"name": "dropped_ingress"}},
                             {"set": {"name": "dropped_egress", "elem": [element]}}]}
        self.assertEqual(list(dropped(json.dumps(listing))), [("egress", "10.0.0.2", "tcp", 22)])


def cluster(items, more=()):
    """A pod for each workload of an overlay and those of neighbours.yaml, with addresses; and the policies."""
    neighbours = manifests.load((ROOT / "tests/deploy/neighbours.yaml").read_text(encoding="utf-8")) + list(more)
    pods = [item for item in neighbours if item["kind"] == "Pod"]
    for item in items:
        if item["kind"] in WORKLOADS:
            template, own = template_of(item), item["metadata"]
            meta = template["metadata"] | {"name": f"{own['name']}-1", "namespace": own["namespace"]}
            pods.append({"metadata": meta, "spec": template["spec"]})
    pods = [one | {"status": {"podIPs": [{"ip": f"10.88.1.{number}"}]}} for number, one in enumerate(pods, 1)]
    spaces = [item for item in items + neighbours if item["kind"] == "Namespace"]
    labelled = [{"metadata": {"name": n, "labels": {"kubernetes.io/metadata.name": n}}}
                for n in (space["metadata"]["name"] for space in spaces)]
    return pods, Policies([item for item in items if item["kind"] == "NetworkPolicy"], pods, labelled)


# Pods that have ended when the stand-in tries the connections.
SHORT_LIVED = "fetch prometheus keda outside -> job:9100 bucket:9100"


INGRESS = [
    {"kind": "Namespace", "metadata": {"name": "ingress-nginx"}},
    {"kind": "Pod", **pod("ingress", "", namespace="ingress-nginx")},
]


def wrong_connections(items, tables=None, neighbours=()):
    """The connections that the policies wrongly allow or block."""
    tables = tables or ((ALLOWED, True), (BLOCKED, False), (SHORT_LIVED, False))
    pods, known = cluster(items, neighbours)
    find = lambda name: next((one for one in pods if name in names_of(one)), None)
    address = lambda name: address_of(find(name)) if find(name) else {"outside": OUTSIDE}.get(name, name)
    for table, wanted in tables:
        for start, end, protocol, port in parsed(table):
            ends = ((find(start), "Egress", address(end)), (find(end), "Ingress", address(start)))
            is_open = all(allows(known.openings(one, direction), other, port, protocol)
                          for one, direction, other in ends if one)
            if is_open != wanted:
                yield f"{start} -> {end}:{port}/{protocol}"


DEV = manifests.render(ROOT / "k8s/overlays/dev")


def named(items, name):
    return next(i for i in items if i["kind"] == "NetworkPolicy" and i["metadata"]["name"] == name)


def spec(items, name):
    return named(items, name)["spec"]


def without_port(name, side, port):
    def change(items):
        for rule in spec(items, name)[side]:
            rule["ports"] = [one for one in rule["ports"] if one["port"] != port]
    return change


def without(name):
    return lambda items: items.remove(named(items, name))


def without_ports(items):
    for rule in spec(items, "servers")["egress"] + spec(items, "to-servers")["ingress"]:
        rule.pop("ports")


def without_exception(network):
    return lambda items: spec(items, "internet")["egress"][0]["to"][0]["ipBlock"]["except"].remove(network)


# A defect, how to cause it, and a connection that is wrong then.
MUTANTS = [
    ("workers cannot reach Redis", without_port("servers", "egress", 6379), "classify -> redis:6379"),
    ("Redis accepts no connection", without_port("to-servers", "ingress", 6379), "classify -> redis:6379"),
    ("no DNS", without("names"), "detect -> names:53"),
    ("DNS over UDP only", lambda items: spec(items, "names")["egress"][0]["ports"].pop(), "detect -> names:53"),
    ("DNS over TCP only", lambda items: spec(items, "names")["egress"][0]["ports"].pop(0), "redis -> names:53/udp"),
    ("no internet", without("internet"), "fetch -> outside:80"),
    ("no metrics", without("metrics"), "prometheus -> crop:9100"),
    ("not blocked by default", without("nothing"), "keda -> job:9100"),
    ("servers open to all", without("to-servers"), "prometheus -> rabbitmq:15692"),
    ("fetch reaches the cluster", without_exception("10.0.0.0/8"), f"fetch -> {NODE}:10250"),
    ("fetch reaches the metadata", without_exception("169.254.0.0/16"), "fetch -> 169.254.169.254:80"),
    ("fetch reaches carrier-grade addresses", without_exception("100.64.0.0/10"), "fetch -> 100.64.0.1:80"),
    ("all reach the internet", lambda items: spec(items, "internet").update(podSelector={}), "redis -> outside:80"),
    ("workers reach every port", without_ports, "crop -> seaweedfs:9333"),
    ("metrics open to all", lambda items: spec(items, "metrics")["ingress"][0].pop("from"), "keda -> fetch:9100"),
]


class DevOverlay(unittest.TestCase):
    def test_allows_what_is_needed_and_nothing_else(self):
        self.assertEqual(list(wrong_connections(DEV)), [])

    def test_every_defect_is_found(self):
        for name, break_it, connection in MUTANTS:
            with self.subTest(name):
                items = copy.deepcopy(DEV)
                break_it(items)
                self.assertIn(connection if "/" in connection else f"{connection}/tcp", list(wrong_connections(items)))


# A defect of the page's policy, how to cause it, and a connection that is wrong then.
PAGE_MUTANTS = [
    ("no way to the page", without("curate"), "ingress -> curate:8080/tcp"),
    ("open to all", lambda items: spec(items, "curate")["ingress"][0].pop("from"), "keda -> curate:8080/tcp"),
    ("the Ingress reaches the metrics", lambda items: spec(items, "curate")["ingress"][0].pop("ports"),
     "ingress -> curate:9100/tcp"),
    ("the page reaches the internet", lambda items: spec(items, "internet").update(podSelector={}),
     "curate -> outside:443/tcp"),
]


class Page(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.items = manifests.combined("dev", "curate")

    def wrong(self, items):
        return list(wrong_connections(items, ((PAGE_ALLOWED, True), (PAGE_BLOCKED, False)), INGRESS))

    def test_only_the_ingress_reaches_the_page(self):
        self.assertEqual(self.wrong(self.items), [])
        self.assertEqual(list(wrong_connections(self.items)), [], "nothing else changes")

    def test_every_defect_is_found(self):
        for name, break_it, connection in PAGE_MUTANTS:
            with self.subTest(name):
                items = copy.deepcopy(self.items)
                break_it(items)
                self.assertIn(connection, self.wrong(items))


if __name__ == "__main__":
    unittest.main()
