"""Where programs keep passwords, keys and sessions: a list as data, each with its source.

`*` stands for anything, slashes included. Paths are below the home folder; those that begin with a
slash are the machine's.
"""

import fnmatch
import re
from dataclasses import dataclass

from jail.orders import HOME_IN_JAIL


@dataclass(frozen=True)
class CredentialStore:
    """The files of a kind of program, set apart by blanks in `paths` (`?` stands for a blank).

    `is_grave`: no library has a reason to look there by itself.
    """

    kind: str
    source: str
    paths: str
    is_grave: bool = False


CREDENTIAL_STORES = (
    CredentialStore(
        "npm", "npmrc(5); yarnpkg.com: yarnrc", ".npmrc .yarnrc .yarnrc.yml .config/pnpm/*"
    ),
    CredentialStore("netrc", "netrc(5); wget(1)", ".netrc _netrc .wgetrc"),
    CredentialStore(
        "Google Cloud",
        "cloud.google.com: gcloud CLI configurations, Application Default Credentials",
        # Its other files there are settings.
        ".config/gcloud/ .config/gcloud/*credentials* .config/gcloud/*tokens* .boto"
        " AppData/Roaming/gcloud/*credentials* AppData/Roaming/gcloud/*tokens*",
    ),
    CredentialStore("Azure", "learn.microsoft.com: Azure CLI configuration", ".azure/*"),
    CredentialStore(
        "AWS", "docs.aws.amazon.com: AWS CLI configuration files", ".aws/credentials .aws/sso/*"
    ),
    CredentialStore(
        "GitHub and GitLab",
        "cli.github.com: gh auth login; git-credential-store(1); hub(1); glab",
        ".config/gh/hosts.yml .config/hub .git-credentials .config/git/credentials .config/glab*",
    ),
    CredentialStore(
        "Kubernetes service account",
        "kubernetes.io: Service Accounts",
        "/var/run/secrets/kubernetes.io/*/token /run/secrets/kubernetes.io/*/token",
        is_grave=True,
    ),
    CredentialStore(
        "containers",
        "docs.docker.com: docker login; containers-auth.json(5)",
        ".docker/config.json .config/containers/auth.json /run/secrets/* /root/.docker/*",
    ),
    CredentialStore(
        "Kubernetes",
        "kubernetes.io: kubeconfig, Service Accounts",
        ".kube/* /var/run/secrets/kubernetes.io/* /run/secrets/kubernetes.io/*",
    ),
    CredentialStore(
        "Python packages",
        "packaging.python.org: .pypirc; python-poetry.org: Configuration; docs.astral.sh: uv auth",
        ".pypirc .config/pypoetry/auth.toml .local/share/uv/credentials/*",
    ),
    CredentialStore(
        "other packages",
        "doc.rust-lang.org: cargo login; RubyGems: credentials; Maven: Settings; Composer",
        ".cargo/credentials* .gem/credentials .m2/settings*.xml .config/composer/auth.json"
        " .nuget/NuGet/* .gradle/gradle.properties",
    ),
    CredentialStore(
        "hosting",
        "developer.hashicorp.com: Terraform CLI; rclone.org; s3tools.org; docs.oracle.com: OCI CLI;"
        " docs.digitalocean.com: doctl; ngrok.com; docs.databricks.com; docs.snowflake.com",
        ".terraform.d/* .config/rclone/* .s3cfg .oci/* .config/doctl/* .config/ngrok/* .ngrok2/*"
        " .databrickscfg .snowflake/* .snowsql/* .fly/config.yml .config/heroku/* .vault-token",
    ),
    CredentialStore(
        "AI services",
        "huggingface.co: Environment variables; code.claude.com: IAM; Codex: auth; geminicli.com",
        ".cache/huggingface/token .huggingface/token .claude/.credentials.json .claude.json"
        " .codex/auth.json .gemini/oauth_creds.json .config/github-copilot/* .config/openai*",
    ),
    CredentialStore(
        "ssh and gpg keys",
        "ssh(1), gpg(1): FILES",
        ".ssh/id_* .ssh/*.pem .gnupg/private*",
        is_grave=True,
    ),
    CredentialStore(
        "databases",
        "postgresql.org: libpq .pgpass; dev.mysql.com: Option Files; redis-cli",
        ".pgpass .my.cnf .mylogin.cnf .mongorc.js .rediscli_auth .odbc.ini",
    ),
    CredentialStore(
        "shell history",
        "bash(1): HISTFILE; zsh, mysql, psql, node: the same",
        ".bash_history .zsh_history .mysql_history .psql_history .node_repl_history .lesshst",
    ),
    CredentialStore(
        "browser",
        "chromium.googlesource.com: User Data Directory; support.mozilla.org: Profiles",
        ".config/google-chrome* .config/chromium* .config/BraveSoftware* .config/microsoft-edge*"
        " .config/opera* .config/vivaldi* .mozilla/* .librewolf/* .zen/* snap/firefox/*"
        " snap/chromium/* .var/app/*hrom* .var/app/*irefox* Library/Safari/* Library/Cookies/*"
        " Library/Application?Support/Google/* Library/Application?Support/Firefox/*"
        " Library/Application?Support/BraveSoftware/* AppData/Local/Google/*"
        " AppData/Local/Microsoft/Edge/* AppData/Local/BraveSoftware/* AppData/Roaming/Mozilla/*"
        " AppData/Roaming/Opera?Software/*",
        is_grave=True,
    ),
    CredentialStore(
        "chat or mail",
        "discord.com, signal.org, telegram.org, slack.com: folders of their programs",
        ".config/discord* .config/Signal/* .local/share/TelegramDesktop/* .config/Slack/*"
        " .config/Element/* .thunderbird/* .purple/* AppData/Roaming/discord*"
        " AppData/Roaming/Telegram?Desktop/* AppData/Roaming/Signal/*"
        " Library/Application?Support/discord* Library/Application?Support/Telegram*",
        is_grave=True,
    ),
    CredentialStore(
        "wallet",
        "docs.solana.com: File System Wallets; geth; electrum.org; exodus.com; bitcoin.org: Files",
        ".config/solana/* .ethereum/* .electrum/* .config/Exodus/* .bitcoin/* .config/atomic/*"
        " .config/Ledger?Live/* .monero/* .litecoin/* .dogecoin/* .zcash/* .foundry/keystores/*"
        " .near-credentials/* .sui/* .aptos/* AppData/Roaming/Exodus/* AppData/Roaming/Electrum/*"
        " AppData/Roaming/atomic/* AppData/Roaming/Bitcoin/* Library/Application?Support/Exodus/*",
        is_grave=True,
    ),
    CredentialStore(
        "password manager",
        "keepassxc.org, passwordstore.org, bitwarden.com, 1password.com; gnome-keyring; kwallet",
        ".config/keepassxc/* .password-store/* .config/Bitwarden* .config/1Password/* .config/op/*"
        " .local/share/keyrings/* .gnome2/keyrings/* .local/share/kwalletd/* Library/Keychains/*",
        is_grave=True,
    ),
    CredentialStore(
        "accounts of the machine",
        "shadow(5), sudoers(5), sshd(8); krb5.conf(5)",
        "/etc/shadow* /etc/gshadow* /etc/sudoers* /etc/krb5.keytab /etc/ssh/ssh_host* /root/.ssh/*",
        is_grave=True,
    ),
    # What runs GitHub's actions keeps their secrets in memory, and whoever is root can read it.
    CredentialStore("memory of processes", "proc(5): mem", "/proc/*/mem", is_grave=True),
    CredentialStore("variables of processes", "proc(5): environ", "/proc/*/environ"),
    CredentialStore(
        "settings of a project",
        "12factor.net: Config; docs.github.com: actions/checkout",
        "*/.env */.env.local */.env.production",
    ),
)
# Homes of other people, and of other systems that are mounted here.
#   /root/.aws/credentials   /Users/mary/Library/Keychains   /mnt/c/Users/mary/AppData/x
OTHER_HOME = re.compile(r"/(?:var/)?root/|/home/[^/]+/|(?:/mnt/\w)?/Users/[^/]+/")


def path_pattern(word: str) -> str:
    """The expression for a path in a list."""
    path = word if word.startswith(("/", "*/")) else f"{HOME_IN_JAIL}/{word}"
    return fnmatch.translate(path)


# With a slash at the end, a folder that is listed counts as what is in it.
STORE_PATTERNS = [
    (store, re.compile("|".join(path_pattern(word) for word in store.paths.split())))
    for store in CREDENTIAL_STORES
]


def store_of(path: str) -> CredentialStore | None:
    """The store that a normalised path belongs to; of a folder with a slash at its end."""
    if path.startswith("/proc/self/"):
        return None
    at_home = OTHER_HOME.sub(f"{HOME_IN_JAIL}/", path, count=1) if OTHER_HOME.match(path) else path
    for store, pattern in STORE_PATTERNS:
        if pattern.match(path) or pattern.match(at_home):
            return store
    return None
