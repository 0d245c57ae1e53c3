"""Sets up a pod's container in this process: its own root and host name. Then it executes the container's command.

  ip netns exec NETNS python3 container.py SPECIFICATION.json FD

The root is a tmpfs. The host's programs are mounted into it read-only, and so are the image's files. The pod's volumes
are mounted as specified. `setpriv` sets user, groups, capabilities and no-new-privs from the manifests. FD closes when
the command starts. Not implemented: PID namespaces, seccomp, limits.
"""

import ctypes
import json
import os
import socket
import sys
from pathlib import Path

AT_FDCWD, AT_RECURSIVE, MOUNT_ATTR_RDONLY = -100, 0x8000, 1
MS_BIND, MS_REC, MNT_DETACH = 0x1000, 0x4000, 2
CLONE_NEWUTS = 0x04000000
libc = ctypes.CDLL(None, use_errno=True)

# Host paths that are mounted into each root. Of /etc, only the paths that programs need.
SYSTEM = ["/usr", "/etc/alternatives", "/etc/ld.so.cache", "/etc/ssl"]
USR_MERGED = ["/bin", "/lib", "/lib32", "/lib64", "/sbin"]
DEVICES = ["null", "zero", "full", "random", "urandom"]
# Default capabilities of a container: containerd's list.
CAPABILITIES = {
    "AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "NET_RAW",
    "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT",
}


def security_of(pod, container, image_user):
    """Merges the security contexts of pod and container. The default user is the image's user."""
    return {"runAsUser": image_user, "runAsGroup": image_user} | pod.get("securityContext", {}) | (
        container.get("securityContext", {}))


def setpriv(security, only_root):
    """The command prefix that sets user and groups and drops capabilities.

    `only_root`: the user namespace maps a single user, so user and groups stay unchanged.
    """
    changes = {key: set(names) for key, names in security.get("capabilities", {}).items()}
    dropped = changes.get("drop", set())
    kept = (set() if "ALL" in dropped else CAPABILITIES - dropped) | changes.get("add", set())
    bounding = ",".join(["-all", *(f"+{name.lower()}" for name in sorted(kept))])
    command = ["/usr/bin/setpriv", f"--bounding-set={bounding}", "--inh-caps=-all", "--ambient-caps=-all"]
    if security.get("allowPrivilegeEscalation") is False:
        command.append("--no-new-privs")
    if not only_root:
        groups = sorted({*security.get("supplementalGroups", []), *filter(None, [security.get("fsGroup")])})
        command += [f"--reuid={security['runAsUser']}", f"--regid={security['runAsGroup']}"]
        command += [f"--groups={','.join(map(str, groups))}" if groups else "--clear-groups"]
    return [*command, "--"]


def checked(result, what):
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(what))


def mount(source, target, kind=None, flags=0, options=None):
    encode = lambda text: None if text is None else os.fsencode(text)
    checked(libc.mount(encode(source), encode(target), encode(kind), flags, encode(options)), target)


def bind(source, target):
    """Bind-mounts a file or folder. Creates the target if it is missing."""
    if os.path.isdir(source):
        target.mkdir(parents=True, exist_ok=True)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()
    mount(source, target, flags=MS_BIND | MS_REC)


def make_read_only(target, with_mounts=True):
    attributes = (ctypes.c_uint64 * 4)(MOUNT_ATTR_RDONLY)
    flags = AT_RECURSIVE if with_mounts else 0
    checked(libc.mount_setattr(AT_FDCWD, os.fsencode(target), flags, attributes, ctypes.sizeof(attributes)), target)


def build(root, specification):
    """Builds the file tree below the new root. Programs of the host and files of the image are always read-only."""
    mount("tmpfs", root, "tmpfs", options="mode=755,size=16m")
    at = lambda path: root / path.lstrip("/")
    for path in USR_MERGED:
        if os.path.islink(path):
            at(path).symlink_to(os.readlink(path))
    existing = [path for path in [*SYSTEM, *USR_MERGED] if os.path.exists(path) and not at(path).is_symlink()]
    for source, path in [*((path, path) for path in existing), *specification["image"]]:
        bind(source, at(path))
        make_read_only(at(path))
    for path in ("/run", "/tmp", "/var/lib", "/var/log", "/etc", "/dev"):
        at(path).mkdir(parents=True, exist_ok=True)
    for path, text in specification["files"].items():
        at(path).parent.mkdir(parents=True, exist_ok=True)
        at(path).write_text(text, encoding="utf-8")
    mount("tmpfs", at("/dev"), "tmpfs", options="mode=755,size=64k")
    for name in DEVICES:
        bind(f"/dev/{name}", at(f"/dev/{name}"))
    for name, path in (("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")):
        at(f"/dev/{name}").symlink_to(f"/proc/self/fd{path}")
    at("/dev/shm").mkdir()
    mount("tmpfs", at("/dev/shm"), "tmpfs", options="mode=1777,size=64m")
    bind("/proc", at("/proc"))
    bind("/sys", at("/sys"))
    make_read_only(at("/sys"))
    for source, path, read_only in specification["volumes"]:
        bind(source, at(path))
        if read_only:
            make_read_only(at(path))
    if specification["read_only"]:
        make_read_only(root, with_mounts=False)


def main(file, descriptor):
    # The descriptor closes at exec. The parent process waits for that.
    os.set_inheritable(int(descriptor), False)
    specification = json.loads(Path(file).read_text(encoding="utf-8"))
    checked(libc.unshare(CLONE_NEWUTS), "unshare the host name")
    socket.sethostname(specification["name"])
    root = Path(specification["root"])
    build(root, specification)
    os.chdir(root)
    checked(libc.pivot_root(b".", b"."), "pivot_root")
    checked(libc.umount2(b".", MNT_DETACH), "unmount the old root")
    os.chdir(specification["directory"])
    command = specification["command"]
    os.execv(command[0], command)


if __name__ == "__main__":
    main(*sys.argv[1:])
