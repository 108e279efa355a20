"""A guestbook: a small WSGI application, served by gunicorn, that keeps its entries in Redis.

GET / shows the entries and a form, GET /entries gives them as JSON, POST /entries adds one (a form or JSON), and
GET /healthz says that this server answers, whatever the database does.
"""

import datetime
import html
import json
import os
import socket
import urllib.parse

import redis

TITLE = os.environ.get("GUESTBOOK_TITLE", "Guestbook")
SHOWN = 100
KEPT = 1_000
MAX_BODY_BYTES = 8 * 1024
MAX_NAME, MAX_MESSAGE = 60, 500
KEY = "guestbook:entries"

# Short timeouts, and a ping before use: a connection that broke meanwhile is made anew before a command is sent, so
# that no command needs to be sent twice (an entry would then appear twice).
database = redis.Redis(
    host=os.environ.get("REDIS_HOST", "db"),
    port=int(os.environ.get("REDIS_PORT", "6379")),
    socket_timeout=3,
    socket_connect_timeout=3,
    health_check_interval=1,
    decode_responses=True,
)

PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 40rem; margin: 3rem auto; padding: 0 1rem; color: #223; }}
form {{ display: grid; gap: .5rem; margin: 1.5rem 0; }}
input, textarea, button {{ font: inherit; padding: .5rem; border: 1px solid #bbc; border-radius: .4rem; }}
button {{ background: #2456b3; color: white; border: 0; }}
li {{ margin: .8rem 0; }} small {{ color: #667; }} ol {{ padding-left: 1.2rem; }}
</style>
<h1>{title}</h1>
<form method="post" action="/entries">
<input name="name" maxlength="60" placeholder="Your name" required>
<textarea name="message" maxlength="500" rows="3" placeholder="What would you like to say?" required></textarea>
<button>Sign the guestbook</button>
</form>
<ol reversed>{entries}</ol>
<small>served by {host}</small>
</html>
"""


class BadRequestError(Exception):
    """The visitor's input is not an entry."""


def read_entries():
    """The newest entries, newest first."""
    return [json.loads(text) for text in database.lrange(KEY, 0, SHOWN - 1)]


def add_entry(name, message):
    """Keep one entry; it is on the database's disk when this returns."""
    name, message = " ".join(str(name).split()), str(message).strip()
    if not 1 <= len(name) <= MAX_NAME or not 1 <= len(message) <= MAX_MESSAGE:
        raise BadRequestError(f"a name of 1 to {MAX_NAME} and a message of 1 to {MAX_MESSAGE} characters")
    at = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    entry = {"name": name, "message": message, "at": at}
    with database.pipeline() as batch:
        batch.lpush(KEY, json.dumps(entry))
        batch.ltrim(KEY, 0, KEPT - 1)
        batch.execute()
    return entry


def read_body(environ):
    """The posted fields, and whether they came as JSON."""
    try:
        length = int(environ.get("CONTENT_LENGTH") or 0)
    except ValueError:
        length = -1
    if not 0 < length <= MAX_BODY_BYTES:
        raise BadRequestError(f"a body of 1 to {MAX_BODY_BYTES} bytes")
    body = environ["wsgi.input"].read(length)
    is_json = environ.get("CONTENT_TYPE", "").startswith("application/json")
    try:
        fields = json.loads(body) if is_json else dict(urllib.parse.parse_qsl(body.decode(), max_num_fields=8))
    except ValueError as error:
        raise BadRequestError("neither a form nor JSON") from error
    if not isinstance(fields, dict):
        raise BadRequestError("an object with name and message")
    return fields, is_json


def page():
    """The page with the form and the entries."""
    rows = [
        f"<li><b>{html.escape(entry['name'])}</b> <small>{html.escape(entry['at'])}</small>"
        f"<br>{html.escape(entry['message'])}</li>"
        for entry in read_entries()
    ]
    text = PAGE.format(title=html.escape(TITLE), entries="\n".join(rows), host=html.escape(socket.gethostname()))
    return "200 OK", "text/html; charset=utf-8", text, []


def as_json(status, value, headers=()):
    """A JSON answer."""
    return status, "application/json", json.dumps(value) + "\n", list(headers)


def respond(environ):
    """Choose the answer to one request."""
    method, path = environ["REQUEST_METHOD"], environ.get("PATH_INFO", "/")
    if path == "/healthz" and method in ("GET", "HEAD"):
        return as_json("200 OK", {"ok": True, "host": socket.gethostname()})
    if path == "/" and method in ("GET", "HEAD"):
        return page()
    if path == "/entries" and method in ("GET", "HEAD"):
        return as_json("200 OK", {"host": socket.gethostname(), "entries": read_entries()})
    if path == "/entries" and method == "POST":
        fields, is_json = read_body(environ)
        entry = add_entry(fields.get("name", ""), fields.get("message", ""))
        return as_json("201 Created" if is_json else "303 See Other", entry, [] if is_json else [("Location", "/")])
    if path in ("/", "/entries", "/healthz"):
        return as_json("405 Method Not Allowed", {"error": "not allowed here"})
    return as_json("404 Not Found", {"error": "no such page"})


def app(environ, start_response):
    """The WSGI application."""
    try:
        status, kind, text, headers = respond(environ)
    except BadRequestError as error:
        status, kind, text, headers = as_json("400 Bad Request", {"error": str(error)})
    except redis.exceptions.RedisError as error:
        status, kind, text, headers = as_json(
            "503 Service Unavailable", {"error": f"the database does not answer: {error}"}, [("Retry-After", "2")]
        )
    body = text.encode()
    start_response(status, [("Content-Type", kind), ("Content-Length", str(len(body))), *headers])
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]
