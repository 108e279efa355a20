"""Small programs that services of `test_compose_keys` run: each tells in one line of JSON what it found."""

import json
from typing import Any

# `tell` prints a line of JSON, `attempt` gives "ok" or an error's name, `rest` waits to be stopped.
PRELUDE = """
import errno, json, os, signal, socket, subprocess, sys, time
def tell(**found): print(json.dumps(found), flush=True)
def attempt(work):
    try:
        work()
        return "ok"
    except OSError as error:
        return errno.errorcode.get(error.errno, type(error).__name__)
def write(path, data=b"x"):
    with open(path, "wb", buffering=0) as file:
        for start in range(0, len(data), 1 << 16):
            if file.write(data[start:start + (1 << 16)]) < min(1 << 16, len(data) - start):
                raise OSError(errno.ENOSPC, "short")
def fill(path, mib):
    found = attempt(lambda: write(path, bytes(mib << 20)))
    size = os.path.getsize(path)
    os.remove(path)
    return [found, size >> 20]
def rest():
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    while True: signal.pause()
"""

# What a process sees of its own surroundings.
SURROUNDINGS = """
tell(argv=sys.argv[1:], env=dict(os.environ), cwd=os.getcwd(), uid=os.getuid(), gid=os.getgid(),
     hostname=socket.gethostname(), resolved=socket.gethostbyname(socket.gethostname()),
     secrets={name: open("/run/secrets/" + name).read() for name in sorted(os.listdir("/run/secrets"))}
         if os.path.isdir("/run/secrets") else None,
     root=attempt(lambda: write("/made")), tmp=attempt(lambda: write("/tmp/made")),
     tmp_mode=oct(os.stat("/tmp").st_mode & 0o7777))
rest()
"""

# The first run fills what it can and fails; the second, after `restart: always`, looks at what stayed.
STORAGE = """
first = not os.path.exists("/data/marker")
for folder in ("/data", "/cache", "/memory"):
    if first: write(folder + "/marker")
mode = lambda path: oct(os.stat(path).st_mode & 0o7777)
tell(first=first, kept={folder: os.path.exists(folder + "/marker") for folder in ("/data", "/cache", "/memory")},
     data=fill("/data/big", 40), cache=fill("/cache/big", 10), memory=fill("/memory/big", 10),
     cache_mode=mode("/cache"), memory_mode=mode("/memory"),
     fixed=attempt(lambda: write("/fixed/x")), seed=open("/data/seed").read())
if first: sys.exit(1)
rest()
"""

# Processor share over two seconds, how many processes fit, and whether a child may take more memory than the limit.
LIMITS = """
start, used = time.monotonic(), time.process_time()
while time.monotonic() - start < 2: pass
share = (time.process_time() - used) / (time.monotonic() - start)
children, refused = [], "none"
for _ in range(60):
    try: pid = os.fork()
    except OSError as error:
        refused = errno.errorcode[error.errno]
        break
    if pid == 0:
        signal.pause()
        os._exit(0)
    children.append(pid)
for pid in children:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
hog = subprocess.run([sys.executable or "/bin/python3", "-IS", "-c", "x = bytearray(200 << 20); print(len(x))"],
                     capture_output=True)
tell(share=share, processes=1 + len(children), refused=refused, hog=hog.returncode)
rest()
"""

# Reaches the service `web` by its name, as soon as this one has been started.
CLIENT = """
def connect(port):
    with socket.create_connection(("web", port), 5) as connection: connection.sendall(b"x")
request = b"GET / HTTP/1.0\\r\\n\\r\\n"
with socket.create_connection(("web", 8080), 10) as connection:
    connection.sendall(request)
    answer = b"".join(iter(lambda: connection.recv(4096), b""))
code = b"import os; print(os.path.exists('/tmp/ready'))"
with socket.create_connection(("web", 8080), 10) as connection:
    connection.sendall(b"POST /python HTTP/1.0\\r\\nContent-Length: %d\\r\\n\\r\\n%s" % (len(code), code))
    ready = b"".join(iter(lambda: connection.recv(4096), b""))
tell(answer=answer.decode().splitlines()[-1], ready=ready.decode().split()[-1],
     exposed=attempt(lambda: connect(9000)), closed=attempt(lambda: connect(9001)))
rest()
"""

# A server that becomes ready after three seconds and also listens on 9000 (exposed) and 9001 (not).
WEB = """
import threading
listeners = [socket.create_server(("", port)) for port in (9000, 9001)]
threading.Timer(3, lambda: write("/tmp/ready")).start()
sys.argv = ["serve.py"]
exec(open("/srv/serve.py").read())
"""

# Tells every connection that is made to its port.
DOOR = """
server = socket.create_server(("", 9100))
while True:
    connection, _ = server.accept()
    print("knock", flush=True)
    connection.close()
"""

POLITE = """
signal.signal(signal.SIGTERM, lambda *_: print("got SIGTERM", flush=True))
signal.signal(signal.SIGUSR1, lambda *_: (print("got SIGUSR1", flush=True), os._exit(0)))
tell(ready=True)
while True: signal.pause()
"""
DEAF = """
signal.signal(signal.SIGTERM, lambda *_: print("got SIGTERM", flush=True))
tell(ready=True)
while True: signal.pause()
"""


def python(code: str) -> list[str]:
    """The command that runs a program; compose takes `$$` for a dollar."""
    return ["/bin/python3", "-IS", "-c", (PRELUDE + code).replace("$", "$$")]


def service(code: str | None = None, **keys: Any) -> dict[str, Any]:
    """A service of the test image without standbys, with small limits."""
    base: dict[str, Any] = {"image": "test-image:1", "cpus": 0.5, "mem_limit": "64m", "x-freehold": {"standbys": 0}}
    return base | ({"command": python(code)} if code else {}) | keys


def compose(name: str, services: dict[str, Any], **top: Any) -> str:
    """A compose file; JSON is YAML."""
    return json.dumps({"name": name, "services": services, **top})
