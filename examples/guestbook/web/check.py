"""The health check that runs inside the container: does the server answer?"""

import sys
import urllib.request

with urllib.request.urlopen("http://127.0.0.1:8080/healthz", timeout=2) as answer:
    sys.exit(0 if answer.status == 200 else 1)
