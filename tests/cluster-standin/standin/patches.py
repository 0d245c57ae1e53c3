"""The patches and selectors that kubectl sends."""

import copy
import json
import re

from manifests import PACKAGES

STRATEGIC = "application/strategic-merge-patch+json"
MERGE = "application/merge-patch+json"
JSON = "application/json-patch+json"

SCHEMAS = PACKAGES / "kubernetes_validate" / "kubernetes-json-schema" / "v1.37.0-local"
KEY, HOW = "x-kubernetes-patch-merge-key", "x-kubernetes-patch-strategy"


class Schemas:
    """The published schemas. They name the merge key of each list."""

    def __init__(self):
        self.definitions = json.loads((SCHEMAS / "_definitions.json").read_text(encoding="utf-8"))["$defs"]

    def of(self, api_version, kind):
        group, _, version = api_version.rpartition("/")
        file = SCHEMAS / f"{kind.lower()}-{group.split('.')[0] + '-' if group else ''}{version}.json"
        return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None

    def field(self, schema, name):
        """The schema of a field of a map; empty if the schema does not define it."""
        schema = self.resolved(schema)
        if name in schema.get("properties", {}):
            return schema["properties"][name]
        more = schema.get("additionalProperties")
        return more if isinstance(more, dict) else {}

    def resolved(self, schema):
        while "$ref" in schema:
            schema = self.definitions[schema["$ref"].rsplit("/", 1)[-1]]
        return schema


def applied(kind, patch, current, schema, schemas):
    """Applies a patch of this media type to an object."""
    if kind == JSON:
        return json_patch(current, patch)
    if kind == MERGE:
        return merge(current, patch)
    if kind == STRATEGIC and schema is not None:
        return strategic(current, patch, schema, schemas)
    raise ValueError(f"a patch of the kind {kind} is not supported")


def merge(current, patch):
    """Applies a merge patch (RFC 7386)."""
    if not isinstance(patch, dict):
        return patch
    result = dict(current) if isinstance(current, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge(result.get(key), value)
    return result


def strategic(current, patch, schema, schemas):
    """Applies a strategic merge patch: lists are merged by their key, and `$` begins a directive."""
    if patch.get("$patch") == "replace":
        return {key: value for key, value in patch.items() if key != "$patch"}
    result = dict(current) if isinstance(current, dict) else {}
    for key, value in patch.items():
        if key.startswith("$deleteFromPrimitiveList/"):
            field = key.partition("/")[2]
            result[field] = [item for item in result.get(field, []) if item not in value]
    for key, value in patch.items():
        field = schemas.field(schema, key)
        if key.startswith("$"):
            continue
        if value is None or isinstance(value, dict) and value.get("$patch") == "delete":
            result.pop(key, None)
        elif isinstance(value, dict):
            result[key] = strategic(result.get(key), value, field, schemas)
        elif isinstance(value, list) and "merge" in field.get(HOW, ""):
            result[key] = merged_list(result.get(key) or [], value, field, schemas)
        else:
            result[key] = value
    for key, order in patch.items():
        if key.startswith("$setElementOrder/"):
            field = key.partition("/")[2]
            if field in result:
                result[field] = in_order(result[field], order, schemas.field(schema, field).get(KEY))
    if "$retainKeys" in patch:
        result = {key: value for key, value in result.items() if key in patch["$retainKeys"]}
    return result


def merged_list(current, patch, schema, schemas):
    key = schema.get(KEY)
    if key is None:
        return current + [item for item in patch if item not in current]
    if any(item.get("$patch") == "replace" for item in patch):
        return [item for item in patch if "$patch" not in item]
    result = list(current)
    for item in patch:
        place = next((n for n, old in enumerate(result) if old.get(key) == item.get(key)), None)
        if item.get("$patch") == "delete":
            result = [old for old in result if old.get(key) != item.get(key)]
        elif place is None:
            result.append(item)
        else:
            result[place] = strategic(result[place], item, schema["items"], schemas)
    return result


def in_order(items, order, key):
    """The items in the given order. Items that it does not name come first and keep their order."""
    names = [item[key] for item in order] if key else order
    of = (lambda item: item.get(key)) if key else (lambda item: item)
    named = sorted((item for item in items if of(item) in names), key=lambda item: names.index(of(item)))
    return [item for item in items if of(item) not in names] + named


def json_patch(current, operations):
    """Applies a JSON patch (RFC 6902): the operations that kubectl uses."""
    result = copy.deepcopy(current)
    for operation in operations:
        path = [part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")[1:]]
        place = result
        for part in path[:-1]:
            place = place[int(part)] if isinstance(place, list) else place[part]
        last = int(path[-1]) if isinstance(place, list) else path[-1]
        match operation["op"]:
            case "add" if isinstance(place, list):
                place.insert(last, operation["value"])
            case "add" | "replace":
                place[last] = operation["value"]
            case "remove":
                del place[last]
            case other:
                raise ValueError(f"the JSON patch operation {other} is not supported")
    return result


def label_selector(text):
    """A predicate on labels, from a selector such as `a=b,c!=d,e in (f, g),h,!i`."""
    terms = []
    for term in re.findall(r"(?:[^,(]|\([^)]*\))+", text or ""):
        term = term.strip()
        if listed := re.fullmatch(r"(\S+) (in|notin) \(([^)]*)\)", term):
            key, values = listed[1], {value.strip() for value in listed[3].split(",")}
            terms.append((key, values, listed[2] == "in"))
        elif pair := re.fullmatch(r"([^=!\s]+)\s*(==|=|!=)\s*(\S*)", term):
            terms.append((pair[1], {pair[3]}, pair[2] != "!="))
        else:
            terms.append((term.lstrip("!"), None, not term.startswith("!")))

    def holds(labels):
        has = lambda key, values: key in labels if values is None else labels.get(key) in values
        return all(has(key, values) == wanted for key, values, wanted in terms)

    return holds


def field_selector(text):
    """A predicate on objects, from a selector such as `metadata.name=a,spec.nodeName!=b`."""
    terms = [re.fullmatch(r"([\w.]+)(==|=|!=)(.*)", term).groups() for term in (text or "").split(",") if term]

    def holds(item):
        for path, operator, value in terms:
            found = item
            for part in path.split("."):
                found = (found or {}).get(part)
            if (str(found or "") == value) == (operator == "!="):
                return False
        return True

    return holds
