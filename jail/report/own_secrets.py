"""Whose a secret is: a tool that reads its own password, or sends it where it belongs, is no thief.

Exact paths, each with the projects that keep their own secret there.
"""

from jail.report.text import plain
from jail.watch.events import BaitRead, Finding, Phase, PhaseName, Rule, Severity
from jail.watch.world_events import Request

MAX_READ_CHARS = 300

# The projects are those whose code opens the file, as Python says: a library, mostly, and not who
# calls it. A thief who has requests read .netrc for him is known by what he sends.
OWN_SECRETS = {
    ".aws/credentials": "boto3 botocore awscli aiobotocore aioboto3 s3transfer sagemaker",
    ".pypirc": "twine setuptools flit flit-core hatch poetry keyring pip readme-renderer",
    ".docker/config.json": "docker docker-compose podman testcontainers",
    ".kube/config": "kubernetes kubernetes-asyncio openshift pykube-ng",
    ".git-credentials": "gitpython dulwich dvc",
    ".netrc": "requests httpx aiohttp niquests wandb pip twine setuptools botocore pipenv",
    ".pgpass": "asyncpg psycopg psycopg2 psycopg2-binary pg8000 pgpasslib pgcli",
    ".config/gcloud/application_default_credentials.json": "google-auth google-cloud-core gcsfs"
    " oauth2client firebase-admin",
}
# What libraries look into at every request, for the host that is asked: requests, httpx, aiohttp.
READ_AT_EACH_REQUEST = "/.netrc"
# What PostgreSQL's own library reads by itself, of which Python hears nothing.
READ_BY_COMPILED_CODE = "/.pgpass"
# Who is sent them by whoever uses them, and keeps nothing that a thief could fetch again.
OWN_SERVICES = {
    "~/.config/gcloud/application_default_credentials.json": "https://oauth2.googleapis.com/token",
}


def is_own_secret(path: str, reader: str | None) -> bool:
    """Whether the project that reads a decoy file is one that keeps its own password there."""
    names = [names for end, names in OWN_SECRETS.items() if path.endswith(f"/{end}")]
    return any(reader in tools.split() for tools in names)


# BaitRead("/home/dev/.ssh/id_rsa", ...): high secret.read "reads or touches /home/dev/.ssh/id_rsa"
# A tool that is called and reads the file that it keeps its own password in: info.
def read_bait(phase: Phase, event: BaitRead) -> Finding:
    severity, besides = severity_of_read(phase, event)
    title = plain(f"reads or touches {event.path}{besides}", MAX_READ_CHARS)
    return Finding(severity, Rule.SECRET_READ, title, event.place)


def severity_of_read(phase: Phase, event: BaitRead) -> tuple[Severity, str]:
    """How grave it is that a decoy file was read, and what is to be said of it besides."""
    is_asked = phase.name in (PhaseName.CALL, PhaseName.EXECUTE)
    if is_own_secret(event.path, event.reader):
        is_everyday = is_asked or event.path.endswith(READ_AT_EACH_REQUEST)
        return (Severity.INFO, ", its own") if is_everyday else (Severity.HIGH, "")
    if event.place is None and event.path.endswith(READ_BY_COMPILED_CODE):
        severity = Severity.INFO if is_asked else Severity.MEDIUM
        return severity, ", by no code of Python"
    return Severity.HIGH, ""


def is_for_its_service(request: Request) -> bool:
    """Whether a request carries nothing but a secret to whom it belongs."""
    services = {OWN_SERVICES.get(name) for name in request.bait}
    return services == {request.url} and not request.environment
