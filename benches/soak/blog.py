"""Debian's WordPress, unmodified, installed and used over HTTP through dbproxy while the replicas are late."""

import os
import re
import shutil
import struct
import time
import zlib

from browser import Browser
from endpoints import Endpoint
from processes import Failure, accepts, free_port, wait_for

LATE = "2s"
USER, PASSWORD = "admin", "correct horse battery"
VIEWS = 100
WEB_WORKERS = "4"
SALTS = ("AUTH_KEY", "SECURE_AUTH_KEY", "LOGGED_IN_KEY", "NONCE_KEY", "AUTH_SALT", "SECURE_AUTH_SALT", "LOGGED_IN_SALT", "NONCE_SALT")


def _package():
    """Where the package's files are."""
    cache = os.environ.get("DBPROXY_SERVERS", "/var/cache/dbproxy")
    for root in (os.path.join(cache, "wordpress"), "/"):
        if os.path.exists(path := os.path.join(root, "usr/share/wordpress/wp-load.php")):
            return os.path.dirname(path)
    raise Failure("WordPress is missing; run: compose/install-servers --soak")


def _version(package):
    with open(os.path.join(package, "wp-includes/version.php")) as file:
        return re.search(r"\$wp_version = '(.*?)'", file.read())[1]


def _serve(rig, database):
    """Starts PHP's web server with a WordPress that is not installed yet; nothing of it is changed but its configuration."""
    home = rig.processes.path("wordpress", "")
    shutil.rmtree(home, ignore_errors=True)
    shutil.copytree(_package(), home, symlinks=False, ignore_dangling_symlinks=True)
    salts = "\n".join(f"define('{name}', '{os.urandom(24).hex()}');" for name in SALTS)
    rig.processes.write("wordpress/wp-config.php", f"""<?php
define('DB_NAME', 'wordpress');
define('DB_USER', 'wordpress');
define('DB_PASSWORD', 'wordpress');
define('DB_HOST', '127.0.0.1:{database.port}');
define('DB_CHARSET', 'utf8mb4');
define('DB_COLLATE', '');
define('WP_HTTP_BLOCK_EXTERNAL', true);
define('AUTOMATIC_UPDATER_DISABLED', true);
define('WP_DEBUG', true);
define('WP_DEBUG_DISPLAY', false);
define('WP_DEBUG_LOG', __DIR__ . '/debug.log');
{salts}
$table_prefix = 'wp_';
if (!defined('ABSPATH')) define('ABSPATH', __DIR__ . '/');
require_once ABSPATH . 'wp-settings.php';
""")
    port = free_port()
    command = ["php", "-d", "opcache.enable_cli=1", "-S", f"127.0.0.1:{port}", "-t", home]
    process = rig.processes.start(f"web-{port}", command, {"PHP_CLI_SERVER_WORKERS": WEB_WORKERS})
    wait_for("the web server to accept connections", lambda: accepts(port), 20)
    return Endpoint("web", port, process), os.path.join(home, "debug.log")


def _picture():
    """A PNG of one pixel."""
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0\x7f\x10\x20")) + chunk(b"IEND", b"")


class Site:
    """Somebody who is logged in, and a visitor; what they do and what was wrong with what they saw."""

    def __init__(self, base):
        self.admin, self.visitor = Browser(base), Browser(base)
        self.nonce, self.wrong, self.checks = "", [], 0

    def check(self, what, right, page=None):
        self.checks += 1
        if not right:
            text = " ".join(re.sub(r"<(style|script).*?</\1>|<[^>]*>", " ", page.text, flags=re.S).split()) if page else ""
            self.wrong.append(f"{what}" + (f" ({page.status} {page.url}): {text[:300]}" if page else ""))
        return right

    def sees(self, who, path, text, what):
        page = who.get(path)
        self.check(what, page.status == 200 and text in page.text, page)
        return page

    def install(self):
        page = self.visitor.post("/wp-admin/install.php?step=2", {
            "weblog_title": "Soak", "user_name": USER, "admin_password": PASSWORD, "admin_password2": PASSWORD,
            "admin_email": "admin@example.org", "blog_public": "0", "Submit": "Install WordPress", "language": "",
        })
        if not self.check("installation", "Success!" in page.text, page):
            raise Failure(f"WordPress was not installed: {self.wrong[-1]}")

    def login(self):
        self.admin.get("/wp-login.php")
        page = self.admin.post("/wp-login.php", {"log": USER, "pwd": PASSWORD, "testcookie": "1", "redirect_to": "/wp-admin/"})
        self.check("login", "wp-admin-bar-my-account" in page.text, page)
        self.nonce = self.admin.get("/wp-admin/admin-ajax.php?action=rest-nonce").text.strip()

    def rest(self, route, fields=None, method=None):
        """A call of the REST API by the one who is logged in."""
        path = f"/index.php?rest_route={route}"
        if fields is None and method is None:
            return self.admin.get(path, X_WP_Nonce=self.nonce)
        body = "&".join(f"{key}={value}" for key, value in (fields or {}).items()).replace(" ", "+").encode()
        return self.admin.send(path, body, method or "POST", X_WP_Nonce=self.nonce, Content_Type="application/x-www-form-urlencoded")

    def settings(self):
        """The form of the general settings, saved and read back."""
        for title in ("A first title", "A second title"):
            action, fields = self.admin.get("/wp-admin/options-general.php").form("blogname")
            page = self.admin.post(action, {**fields, "blogname": title})
            self.check("settings after saving them", f'value="{title}"' in page.text and "settings-updated" in page.url, page)
            self.sees(self.visitor, "/", title, "the new title on the front page")

    def categories(self):
        """The form of the categories, which shows them beside it."""
        for number in range(5):
            action, fields = self.admin.get("/wp-admin/edit-tags.php?taxonomy=category").form("tag-name")
            self.admin.post(action, {**fields, "tag-name": f"Category {number}", "description": "", "parent": "-1"})
            self.sees(self.admin, "/wp-admin/edit-tags.php?taxonomy=category", f"Category {number}", "the category in the list")

    def drafts(self):
        """The dashboard's form for a quick draft, then publishing it by the list's form."""
        for number in range(5):
            action, fields = self.admin.get("/wp-admin/").form("post_ID")
            self.admin.post(action, {**fields, "post_title": f"Draft {number}", "content": f"Drafted {number}."})
            page = self.sees(self.admin, "/wp-admin/edit.php?post_status=draft", f"Draft {number}", "the draft in the list")
            post = fields["post_ID"]
            _, listed = page.form("_inline_edit")
            self.admin.post("/wp-admin/admin-ajax.php", {
                "action": "inline-save", "post_type": "post", "post_ID": post, "edit_date": "true", "post_view": "list",
                "screen": "edit-post",
                "post_title": f"Published {number}", "post_name": f"published-{number}", "post_author": "1", "_status": "publish",
                "comment_status": "open", "mm": "01", "jj": "02", "aa": "2024", "hh": "03", "mn": "04", "ss": "05",
                "_inline_edit": listed["_inline_edit"],
            })
            self.sees(self.visitor, f"/?p={post}", f"Published {number}", "the published draft")

    def comment(self):
        """A visitor's comment is held back, shown to the visitor, approved, and then shown to everybody."""
        created = self.rest("/wp/v2/posts", {"title": "To be commented", "content": "Text", "status": "publish"}).json
        action, fields = self.visitor.get(f"/?p={created['id']}").form("comment_post_ID")
        said = f"Said at {time.time_ns()}"
        page = self.visitor.post(action, {**fields, "author": "Visitor", "email": "visitor@example.org", "url": "", "comment": said})
        self.check("the comment, shown to who wrote it", said in page.text and "moderation" in page.text, page)
        held = self.rest("/wp/v2/comments&status=hold").json
        if not self.check("the comment to be approved", len(held) == 1):
            return
        approved = self.rest(f"/wp/v2/comments/{held[0]['id']}", {"status": "approved"})
        self.check("approval", approved.status == 200, approved)
        self.sees(Browser(self.visitor.base), f"/?p={created['id']}", said, "the approved comment")

    def media(self):
        """A picture by the form and one by the REST API."""
        action, fields = self.admin.get("/wp-admin/media-new.php").form("post_id")
        fields.update({"html-upload": "Upload"})
        self.admin.upload(action, fields, "async-upload", "by-form.png", _picture())
        self.sees(self.admin, "/wp-admin/upload.php?mode=list", "by-form", "the picture in the list")
        page = self.admin.send("/index.php?rest_route=/wp/v2/media", _picture(), X_WP_Nonce=self.nonce, Content_Type="image/png",
                               Content_Disposition='attachment; filename="by-rest.png"')
        if not self.check("an upload", page.status == 201, page):
            return
        url = page.json["source_url"]
        self.check("the picture itself", self.visitor.get(url).body == _picture())
        self.check("the picture by the REST API", self.rest(f"/wp/v2/media/{page.json['id']}").json.get("source_url") == url)

    def rapid(self, cycles):
        """Creates, changes and deletes by the REST API, each read back at once, by turns by one who is logged in and by visitors."""
        for number in range(cycles):
            created = self.rest("/wp/v2/posts", {"title": f"Rapid {number}", "content": f"Token {number}.", "status": "publish"})
            if not self.check("creation of a post", created.status == 201, created):
                continue
            post = created.json["id"]
            if number % 4 == 0:
                self.sees(self.visitor, f"/?p={post}", f"Token {number}.", "the new post, by a visitor")
            elif number % 4 == 1:
                self.check("the new post, first of the list", self.rest("/wp/v2/posts&per_page=1").json[0]["id"] == post)
            elif number % 4 == 2:
                self.rest(f"/wp/v2/posts/{post}", {"content": f"Changed {number}."})
                self.sees(self.visitor, f"/?p={post}", f"Changed {number}.", "the changed post, by a visitor")
            else:
                self.rest(f"/wp/v2/posts/{post}", {"force": "true"}, "DELETE")
                gone = self.visitor.get(f"/?p={post}")
                self.check("a deleted post", gone.status == 404, gone)

    def views(self, count):
        """Visitors who only read."""
        for number in range(count):
            path = ("/", "/?p=1", "/index.php?rest_route=/wp/v2/posts", "/?s=Rapid")[number % 4]
            page = self.visitor.get(path)
            self.check("a page", page.status == 200, page)


def _shares(rig, what):
    """The share of SELECTs that replicas got while `what` ran, without the monitor's own; and how many there were."""
    def counted(run):
        before, started = rig.reads(), time.monotonic()
        run()
        return [b - a for a, b in zip(before, rig.reads())], time.monotonic() - started

    monitor, quiet = counted(lambda: time.sleep(2))
    found, took = counted(what)
    found = [max(0, n - m * took / quiet) for n, m in zip(found, monitor)]
    return sum(found[1:]) / max(1, sum(found)), round(sum(found))


def wordpress(rig, args, report):
    """Everything above with late replicas, and then visitors who only read."""
    with rig.late(LATE), rig.proxied(args.dbproxy, "wordpress") as database:
        web, log = _serve(rig, database)
        site = Site(f"http://127.0.0.1:{web.port}")

        def use():
            for step in (site.install, site.login, site.settings, site.categories, site.drafts, site.comment, site.media):
                step()
            site.rapid(args.posts)

        started = time.monotonic()
        used, used_count = _shares(rig, use)
        took = time.monotonic() - started
        rig.settle()
        viewed, viewed_count = _shares(rig, lambda: site.views(VIEWS))
        rig.processes.stop(web.process)
        errors = []
        if os.path.exists(log):
            with open(log, errors="replace") as file:
                errors = [line.strip() for line in file if "WordPress database error" in line]
    rig.primary.sql("DROP DATABASE wordpress; CREATE DATABASE wordpress;")
    report.say(f"  WordPress {_version(_package())}, replicas {LATE}: {site.checks} checks, {len(site.wrong)} wrong, "
               f"{len(errors)} database errors, in {took:.0f} s")
    report.say(f"  replicas served {used:.0%} of {used_count:,} reads in use, {viewed:.0%} of {viewed_count:,} of {VIEWS} pages "
               "that are only looked at")
    for text in (site.wrong + errors)[:8]:
        report.say(f"    {text}")
    report.promise(f"{rig.flavor}: WordPress shows everything at once", not site.wrong and not errors)
