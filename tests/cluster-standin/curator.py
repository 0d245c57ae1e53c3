"""A curator who judges faces through the page's API."""

import json
import urllib.request


class Curator:
    """A signed-in client of the page at `url`."""

    def __init__(self, url, name, password):
        self.url, self.cookie = url, None
        answer = self.send("POST", "/api/session", {"name": name, "password": password})
        self.cookie = answer.headers["Set-Cookie"].partition(";")[0]

    def send(self, method, path, body=None):
        headers = {"Content-Type": "application/json", "Origin": self.url}
        if self.cookie:
            headers["Cookie"] = self.cookie
        data = None if body is None else json.dumps(body).encode()
        return urllib.request.urlopen(urllib.request.Request(self.url + path, data, headers, method=method), timeout=60)

    def ask(self, method, path, body=None):
        with self.send(method, path, body) as answer:
            return json.load(answer)

    def counts(self):
        return self.ask("GET", "/api/counts")

    def judge(self, judgement):
        """Judges a random face that an export would take. Returns its photo id. Its picture is read first, as a browser
        does."""
        client = "stand-in-curator"
        wanted = {"where": "not placeholder", "sort": "random", "view": "single"}
        opened = self.ask("POST", "/api/lists", {"client": client, **wanted})
        path = f"/api/lists/{opened['list']}/entries"
        entry = self.ask("POST", path, {"client": client, "limit": 1})["entries"][0]
        with self.send("GET", entry["picture"]) as picture:
            assert picture.read()[:4] in (b"\x89PNG", b"\xff\xd8\xff\xe0"), "the crop is no picture"
        verdict = {"id": f"stand-in-{entry['photo_id']}", "ticket": entry["ticket"], "judgement": judgement,
                   "view": "single", "replaces": []}
        results = self.ask("POST", "/api/verdicts", {"client": client, "verdicts": [verdict]})["results"]
        assert results[0]["result"] == "stored", results
        return entry["photo_id"]

    def judgement(self, photo):
        return self.ask("GET", f"/api/faces/{photo}")["judgement"]
