"""As much of a browser as WordPress needs: cookies, forms, redirects that are followed."""

import html.parser
import http.cookiejar
import json
import urllib.error
import urllib.parse
import urllib.request
import uuid

from processes import Failure


class _Forms(html.parser.HTMLParser):
    """The forms of a page with the fields that are sent along unchanged."""

    def __init__(self):
        super().__init__()
        self.forms = []

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        if tag == "form":
            self.forms.append((values.get("action") or "", {}))
        elif tag == "input" and self.forms and values.get("name"):
            kind = values.get("type", "text")
            if kind not in ("submit", "button", "file", "image") and (kind not in ("checkbox", "radio") or "checked" in values):
                self.forms[-1][1][values["name"]] = values.get("value") or ""


class Page:
    def __init__(self, url, status, body):
        self.url, self.status, self.body = url, status, body

    @property
    def text(self):
        return self.body.decode(errors="replace")

    @property
    def json(self):
        try:
            return json.loads(self.body)
        except ValueError:
            raise Failure(f"{self.url} is no JSON: {self.text[:500]}") from None

    def form(self, field):
        """The address and the fields of the form that has this field."""
        parser = _Forms()
        parser.feed(self.text)
        for action, fields in parser.forms:
            if field in fields:
                return urllib.parse.urljoin(self.url, action), dict(fields)
        raise Failure(f"{self.url} has no form with {field}: {self.text[:500]}")


class Browser:
    def __init__(self, base):
        self.base = base
        self.opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
        )

    def get(self, path, **headers):
        return self._open(path, None, headers)

    def post(self, path, fields, **headers):
        return self._open(path, urllib.parse.urlencode(fields).encode(), headers)

    def send(self, path, body, method="POST", **headers):
        return self._open(path, body, headers, method)

    def upload(self, path, fields, name, filename, content):
        """A form with a file."""
        mark = uuid.uuid4().hex
        parts = [f'--{mark}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'.encode() for key, value in fields.items()]
        parts.append(f'--{mark}\r\nContent-Disposition: form-data; name="{name}"; filename="{filename}"\r\n'
                     f"Content-Type: image/png\r\n\r\n".encode() + content + b"\r\n")
        parts.append(f"--{mark}--\r\n".encode())
        return self._open(path, b"".join(parts), {"Content-Type": f"multipart/form-data; boundary={mark}"})

    def _open(self, path, body, headers, method=None):
        url = urllib.parse.urljoin(self.base, path)
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(url, data=body, headers=headers, method=method)
        try:
            with self.opener.open(request, timeout=60) as answer:
                return Page(answer.url, answer.status, answer.read())
        except urllib.error.HTTPError as error:
            return Page(url, error.code, error.read())
