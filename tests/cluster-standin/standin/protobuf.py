"""Decodes the Jobs that kubectl sends in protobuf. The result is the same object in JSON.

Numbers and types are from generated.proto in k8s.io/api and k8s.io/apimachinery. Only the fields that a Job of this
project can have are listed. An unlisted field is an error, so nothing is lost silently.
"""

import datetime
import functools
import re
from dataclasses import dataclass

MEDIA_TYPE = "application/vnd.kubernetes.protobuf"
MAGIC = b"k8s\0"
VARINT, BYTES = 0, 2

# Number, name and type of each field. In JSON, the fields of a message with the name "." belong to its parent. A type
# with [] is a list, with {} a map with string keys. A zero value means that the field is not set, except for types with
# =: these fields are pointers in kubectl, or are always written.
MESSAGES = {
    "Unknown": "1 typeMeta TypeMeta, 2 raw bytes, 3 contentEncoding string, 4 contentType string",
    "TypeMeta": "1 apiVersion string, 2 kind string",
    "Job": "1 metadata ObjectMeta, 2 spec JobSpec, 3 status JobStatus",
    "ObjectMeta":
        "1 name string, 2 generateName string, 3 namespace string, 4 selfLink string, 5 uid string, "
        "6 resourceVersion string, 7 generation int, 8 creationTimestamp Time, 11 labels {}string, "
        "12 annotations {}string, 13 ownerReferences []OwnerReference, 14 finalizers []string",
    "JobSpec":
        "1 parallelism =int, 2 completions =int, 3 activeDeadlineSeconds =int, 4 selector LabelSelector, "
        "5 manualSelector =bool, 6 template PodTemplateSpec, 7 backoffLimit =int, 8 ttlSecondsAfterFinished =int, "
        "9 completionMode =string, 10 suspend =bool, 14 podReplacementPolicy =string, 15 managedBy =string",
    "JobStatus": "4 active int, 5 succeeded int, 6 failed int, 7 completedIndexes string",
    "OwnerReference":
        "1 kind =string, 3 name =string, 4 uid =string, 5 apiVersion =string, 6 controller =bool, "
        "7 blockOwnerDeletion =bool",
    "LabelSelector": "1 matchLabels {}string, 2 matchExpressions []LabelSelectorRequirement",
    "PodTemplateSpec": "1 metadata ObjectMeta, 2 spec PodSpec",
    "LabelSelectorRequirement": "1 key =string, 2 operator =string, 3 values []string",
    "PodSpec":
        "1 volumes []Volume, 2 containers []Container, 3 restartPolicy string, "
        "4 terminationGracePeriodSeconds =int, 5 activeDeadlineSeconds =int, 6 dnsPolicy string, "
        "7 nodeSelector {}string, 8 serviceAccountName string, 9 serviceAccount string, 10 nodeName string, "
        "11 hostNetwork bool, 12 hostPID bool, 13 hostIPC bool, 14 securityContext PodSecurityContext, "
        "15 imagePullSecrets []LocalObjectReference, 16 hostname string, 17 subdomain string, "
        "19 schedulerName string, 20 initContainers []Container, 21 automountServiceAccountToken =bool, "
        "22 tolerations []Toleration, 24 priorityClassName string, 25 priority =int, "
        "27 shareProcessNamespace =bool, 30 enableServiceLinks =bool, "
        "33 topologySpreadConstraints []TopologySpreadConstraint, 37 hostUsers =bool",
    "Volume": "1 name =string, 2 . VolumeSource",
    "Container":
        "1 name =string, 2 image string, 3 command []string, 4 args []string, 5 workingDir string, "
        "6 ports []ContainerPort, 7 env []EnvVar, 8 resources ResourceRequirements, 9 volumeMounts []VolumeMount, "
        "10 livenessProbe Probe, 11 readinessProbe Probe, 12 lifecycle Lifecycle, 13 terminationMessagePath string, "
        "14 imagePullPolicy string, 15 securityContext SecurityContext, 16 stdin bool, 17 stdinOnce bool, "
        "18 tty bool, 19 envFrom []EnvFromSource, 20 terminationMessagePolicy string, 22 startupProbe Probe",
    "PodSecurityContext":
        "2 runAsUser =int, 3 runAsNonRoot =bool, 4 supplementalGroups []int, 5 fsGroup =int, 6 runAsGroup =int, "
        "9 fsGroupChangePolicy =string, 10 seccompProfile SeccompProfile",
    "LocalObjectReference": "1 name string",
    "Toleration": "1 key string, 2 operator string, 3 value string, 4 effect string, 5 tolerationSeconds =int",
    "TopologySpreadConstraint":
        "1 maxSkew =int, 2 topologyKey =string, 3 whenUnsatisfiable =string, 4 labelSelector LabelSelector, "
        "5 minDomains =int, 6 nodeAffinityPolicy =string, 7 nodeTaintsPolicy =string, 8 matchLabelKeys []string",
    "VolumeSource":
        "2 emptyDir EmptyDirVolumeSource, 6 secret SecretVolumeSource, "
        "10 persistentVolumeClaim PersistentVolumeClaimVolumeSource, 19 configMap ConfigMapVolumeSource",
    "ContainerPort": "1 name string, 2 hostPort int, 3 containerPort =int, 4 protocol string, 5 hostIP string",
    "EnvVar": "1 name =string, 2 value string, 3 valueFrom EnvVarSource",
    "ResourceRequirements": "1 limits {}Quantity, 2 requests {}Quantity",
    "VolumeMount":
        "1 name =string, 2 readOnly bool, 3 mountPath =string, 4 subPath string, 5 mountPropagation =string, "
        "6 subPathExpr string, 7 recursiveReadOnly =string, 8 bindMountOptions []string",
    "Probe":
        "1 . ProbeHandler, 2 initialDelaySeconds int, 3 timeoutSeconds int, 4 periodSeconds int, "
        "5 successThreshold int, 6 failureThreshold int, 7 terminationGracePeriodSeconds =int",
    "Lifecycle": "1 postStart LifecycleHandler, 2 preStop LifecycleHandler",
    "SecurityContext":
        "1 capabilities Capabilities, 2 privileged =bool, 4 runAsUser =int, 5 runAsNonRoot =bool, "
        "6 readOnlyRootFilesystem =bool, 7 allowPrivilegeEscalation =bool, 8 runAsGroup =int, "
        "11 seccompProfile SeccompProfile",
    "EnvFromSource": "1 prefix string, 2 configMapRef ConfigMapEnvSource, 3 secretRef SecretEnvSource",
    "SeccompProfile": "1 type =string, 2 localhostProfile =string",
    "EmptyDirVolumeSource": "1 medium string, 2 sizeLimit Quantity, 3 mode =int",
    "SecretVolumeSource":
        "1 secretName string, 2 items []KeyToPath, 3 defaultMode =int, 4 optional =bool, 5 defaultUser =int",
    "PersistentVolumeClaimVolumeSource": "1 claimName =string, 2 readOnly bool",
    "ConfigMapVolumeSource":
        "1 . LocalObjectReference, 2 items []KeyToPath, 3 defaultMode =int, 4 optional =bool, 5 defaultUser =int",
    "EnvVarSource":
        "1 fieldRef ObjectFieldSelector, 2 resourceFieldRef ResourceFieldSelector, "
        "3 configMapKeyRef ConfigMapKeySelector, 4 secretKeyRef SecretKeySelector",
    "ProbeHandler": "1 exec ExecAction, 2 httpGet HTTPGetAction, 3 tcpSocket TCPSocketAction",
    "LifecycleHandler": "1 exec ExecAction, 2 httpGet HTTPGetAction, 3 tcpSocket TCPSocketAction, 4 sleep SleepAction",
    "Capabilities": "1 add []string, 2 drop []string",
    "ConfigMapEnvSource": "1 . LocalObjectReference, 2 optional =bool",
    "SecretEnvSource": "1 . LocalObjectReference, 2 optional =bool",
    "KeyToPath": "1 key =string, 2 path =string, 3 mode =int, 4 user =int",
    "ObjectFieldSelector": "1 apiVersion string, 2 fieldPath =string",
    "ResourceFieldSelector": "1 containerName string, 2 resource =string, 3 divisor Quantity",
    "ConfigMapKeySelector": "1 . LocalObjectReference, 2 key =string, 3 optional =bool",
    "SecretKeySelector": "1 . LocalObjectReference, 2 key =string, 3 optional =bool",
    "ExecAction": "1 command []string",
    "HTTPGetAction":
        "1 path string, 2 port =IntOrString, 3 host string, 4 scheme string, 5 httpHeaders []HTTPHeader, "
        "6 protocol =string",
    "TCPSocketAction": "1 port =IntOrString, 2 host string",
    "SleepAction": "1 seconds =int",
    "HTTPHeader": "1 name =string, 2 value =string",
}
FIELD = re.compile(r"(?P<number>\d+) (?P<name>[\w.]+) (?P<how>\[\]|\{\}|=|)(?P<kind>\w+)")


@dataclass(frozen=True)
class Field:
    number: int
    name: str
    how: str
    kind: str


@functools.lru_cache(None)
def fields_of(message):
    found = (FIELD.fullmatch(text).groupdict() for text in MESSAGES[message].split(", "))
    return {int(field["number"]): Field(**field | {"number": int(field["number"])}) for field in found}


def read(body):
    """Decodes an object. Raises a ValueError if the data is invalid or is not a Job."""
    if not body.startswith(MAGIC):
        raise ValueError("the Kubernetes prefix is missing")
    unknown = message("Unknown", body[len(MAGIC) :])
    if unknown.keys() != {"typeMeta", "raw"}:
        raise ValueError("the type is missing, or there is another encoding")
    if (kind := unknown["typeMeta"].get("kind")) != "Job":
        raise ValueError(f"the stand-in knows the fields of a Job, and not of a {kind}")
    return unknown["typeMeta"] | message(kind, unknown["raw"])


def message(name, data):
    item = {}
    for number, wire, value in parts(name, data):
        if (field := fields_of(name).get(number)) is None:
            raise ValueError(f"{name} has a field {number}, which the stand-in does not know")
        if wire != (VARINT if field.kind in ("int", "bool") and field.how != "{}" else BYTES):
            raise ValueError(f"{name}.{field.name} is written in another way than its type is")
        if field.how == "{}":
            key, value = entry(field, value)
            item.setdefault(field.name, {})[key] = value
            continue
        value = converted(field.kind, value)
        if field.how == "[]":
            item.setdefault(field.name, []).append(value)
        elif field.name == ".":
            item |= value
        elif field.how == "=" or value not in (None, "", 0):
            item[field.name] = value
    return item


def entry(field, data):
    """Decodes an entry of a map, which is a message: field 1 is the key, field 2 the value."""
    found = {number: value for number, _, value in parts(field.name, data)}
    return found.get(1, b"").decode(), converted(field.kind, found.get(2, b""))


def converted(kind, value):
    match kind:
        case "int":
            # Negative numbers are encoded with 64 bits.
            return value - (1 << 64) if value >> 63 else value
        case "bool":
            return bool(value)
        case "string":
            return value.decode()
        case "bytes":
            return value
        case "Quantity":
            return next((text.decode() for _, _, text in parts(kind, value)), "")
        case "IntOrString":
            found = {number: part for number, _, part in parts(kind, value)}
            return found[3].decode() if found.get(1) else converted("int", found.get(2, 0))
        case "Time":
            seconds = next((part for number, _, part in parts(kind, value) if number == 1), None)
            utc = datetime.timezone.utc
            return seconds and datetime.datetime.fromtimestamp(seconds, utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    return message(kind, value)


def parts(name, data):
    """Yields the number, the wire type and the value of each field of a message."""
    offset = 0
    while offset < len(data):
        tag, offset = varint(name, data, offset)
        number, wire = tag >> 3, tag & 7
        if wire == VARINT:
            value, offset = varint(name, data, offset)
        elif wire == BYTES:
            size, offset = varint(name, data, offset)
            value, offset = data[offset : offset + size], offset + size
        else:
            raise ValueError(f"{name}'s field {number} is written in a way that is not known here, {wire}")
        if offset > len(data):
            raise ValueError(f"{name} ends within its field {number}")
        yield number, wire, value


def varint(name, data, offset):
    """Decodes a varint (groups of seven bits, lowest first). Returns the number and the offset after it."""
    value = shift = 0
    while offset < len(data) and shift < 70:
        byte = data[offset]
        value |= (byte & 0x7F) << shift
        offset, shift = offset + 1, shift + 7
        if byte < 0x80:
            return value, offset
    raise ValueError(f"{name} ends within a number")
