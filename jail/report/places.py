"""Where code waits for the next login, start, build or commit: lists by kind of program.

`*` stands for anything, slashes included. Paths of HOME_PLACES are below the home folder; those of
PROJECT_PLACES anywhere below it, since a victim's projects lie there; the endings of
PLACES_ANYWHERE count everywhere.
"""

import fnmatch
import re
from collections.abc import Sequence
from dataclasses import dataclass

from jail.orders import HOME_IN_JAIL
from jail.report.techniques import technique_of
from jail.watch.events import Severity


@dataclass(frozen=True)
class Places:
    """Files that a kind of program executes or obeys, set apart by blanks in `paths`.

    `source` says where that is written.
    """

    kind: str
    source: str
    paths: str


HOME_PLACES = (
    Places(
        "shell start",
        "bash(1), zsh(1), tcsh(1), ksh(1), readline(3); fish: Configuration files; oh-my-zsh",
        """
        .bash* .zsh* .zprofile* .zlog* .zprezto* .k*shrc* .c*shrc* .t*shrc* .profile* .login*
        .logout .inputrc .config/fish* .config/zsh/* .oh-my-zsh/* .oh-my-bash/*
        .config/starship.toml .local/share/bash-completion/completions/* .xonshrc .config/xonsh/*
        .config/nushell/* .elvish/rc.elv .config/elvish/* .local/share/fish/vendor_conf.d/*
        """,
    ),
    Places(
        "login session",
        "freedesktop.org: Desktop Entry, Autostart; systemd.unit(5); environment.d(5); pam_env(8);"
        " Xsession(5); dbus-daemon(1)",
        """
        .config/autostart* .config/systemd* .config/environment.d* .config/plasma-workspace/*
        .local/share/applications* .local/share/systemd* .local/share/dbus-1/services/*
        .xprofile* .xinit* .xsession* .pam* .config/i3/* .config/sway/* .config/hypr/*
        .config/openbox/* .config/mimeapps.list
        """,
    ),
    Places(
        "on the command path",
        "file-hierarchy(7): ~/.local/bin; /etc/skel/.profile: ~/bin; cargo, go and npm: install",
        "bin/* .local/bin* .cargo/bin/* go/bin/* .npm-global/bin/*",
    ),
    Places(
        "remote access and keys",
        "ssh(1), ssh_config(5): ProxyCommand; gpg-agent(1)",
        ".ssh/* .gnupg*",
    ),
    Places(
        "Python start",
        "docs.python.org: site, PYTHONSTARTUP, pdb; pip, uv, conda, poetry, hatch: Configuration",
        """
        .local/lib/python* .pythonrc* .pythonstartup* .pdbrc* .pip/* .config/pip* .config/uv/*
        .pydistutils.cfg .condarc .config/pypoetry/* .config/hatch/*
        """,
    ),
    Places(
        "notebook start",
        "ipython.readthedocs.io: Configuration; docs.jupyter.org: Common directories",
        """
        .ipython/*/startup/*.py .ipython/*/startup/*.ipy .ipython/extensions/*
        .ipython/*ipython_config.py .ipython/*ipython_config.json
        .jupyter/*_config.py .jupyter/*_config.json .jupyter/custom/*
        .local/share/jupyter/kernels/* .local/share/jupyter/*extensions/*
        """,
    ),
    Places(
        "editor",
        "vim: starting.txt; neovim: stdpath; GNU Emacs: Init File; code.visualstudio.com: Settings,"
        " Tasks, Extensions; zed.dev, helix-editor.com: Configuration; Sublime Text: Packages",
        """
        .vimrc* .vim/* .gvimrc* .exrc .config/nvim* .local/share/nvim/* .emacs* .config/emacs/*
        .vscode/extensions* .vscode-server/extensions* .cursor/extensions* .config/Code*/User/*.json
        .config/Cursor/User/*.json .config/Windsurf/User/*.json .config/VSCodium/User/*.json
        .windsurf/extensions* .vscode-oss/extensions* .config/Code*/User/prompts/*
        .config/zed/* .config/helix/* .config/sublime-text*/Packages/* .config/JetBrains/*
        .local/share/JetBrains/* .config/spyder-py3/* .spyder-py3/* .nanorc .config/micro/*
        """,
    ),
    Places(
        "coding agent",
        "code.claude.com: Settings, Hooks, MCP; cursor.com: MCP, Hooks; geminicli.com: Settings;"
        " Codex: config.toml; Windsurf: MCP; opencode.ai, kiro.dev, aider.chat: Configuration;"
        " agentskills.io; ampcode.com, docs.factory.ai, docs.augmentcode.com: Settings",
        """
        .claude/* .claude.json .config/Claude/*.json .cursor/mcp.json .cursor/hooks* .gemini/*
        .codex/* .codeium/*mcp_config.json .config/opencode/* .continue/* .config/goose/*
        .aider.conf.yml .qwen/* .kiro/* .aws/amazonq/* .copilot/* .config/github-copilot/*
        .windsurf/* .codeium/*.md .amp/* .config/amp/* .factory/* .augment/* .agents/* .cline/*
        Documents/Cline/* .roo/* .junie/* .trae/* .lmstudio/mcp.json .warp/* .config/crush/*
        .openclaw/*
        """,
    ),
    Places(
        "terminal or debugger",
        "tmux(1), screen(1), gdb(1), lldb(1), direnv(1), lesskey(1), mailcap(5)",
        """
        .tmux* .config/tmux/* .screenrc .gdbinit* .config/gdb/* .lldbinit* .direnvrc
        .config/direnv/* .lesskey .lessfilter .mailcap .forward .wezterm.lua .config/wezterm/*
        .config/kitty/* .config/alacritty/* .alacritty* .config/ghostty/* .config/mise/*
        """,
    ),
    Places(
        "version control",
        "git-config(1): alias, core.hooksPath, credential.helper; hgrc(5): hooks; gh-extension(1)",
        """
        .gitconfig* .config/git/* .git-templates/* .hgrc .config/hg/* .local/share/gh/extensions/*
        .config/gh/config.yml
        """,
    ),
    Places(
        "cloud or container tool",
        "AWS CLI: credential_process, alias; docs.docker.com: CLI plug-ins, credHelpers;"
        " Kubernetes: client-go credential plug-ins; Terraform: CLI config; Ansible: Settings",
        """
        .aws/config .aws/credentials .aws/cli/alias .docker/cli-plugins/* .docker/config.json
        .kube/config .krew/* .terraformrc .terraform.d/plugins/* .ansible.cfg .ansible/plugins/*
        """,
    ),
    Places(
        "build tool or other language",
        "doc.rust-lang.org: cargo Configuration; docs.gradle.org: Initialization Scripts; Maven:"
        " Settings; npmrc(5); yarnpkg.com: yarnrc; PowerShell: about_Profiles; R: ?Startup; julia:"
        " startup.jl; irb(1); GHCi: The .ghci files; go help env; sbt: Global Settings",
        """
        .cargo/config* .cargo/env* .gradle/init* .gradle/gradle.properties .m2/settings.xml
        .mavenrc .npmrc* .node_modules/* .config/pnpm/rc .yarnrc* .yarn/plugins/* .yarn/releases/*
        .config/powershell/* .local/share/powershell/Modules/* .Rprofile* .Renviron* R/*
        .julia/config/* .irbrc .pryrc .gemrc .bundle/config .ghci .config/go/env .sbt/*
        .config/composer/*
        """,
    ),
    Places(
        "browser's helper program",
        "developer.mozilla.org, developer.chrome.com: Native messaging",
        ".mozilla/native-messaging-hosts/* .config/*/NativeMessagingHosts/*",
    ),
)

PROJECT_PLACES = (
    Places(
        "project's automation",
        "docs.github.com: Workflow syntax; docs.gitlab.com: .gitlab-ci.yml; circleci.com;"
        " pre-commit.com; githooks(5); husky; direnv(1); mise.jdx.dev; lefthook.dev; jenkins.io;"
        " Azure, Bitbucket, Buildkite, Drone, Travis, Woodpecker: pipelines; hgrc(5): hooks",
        """
        .github/workflows/* .github/actions/* .gitlab-ci.yml .circleci/* .git/hooks/* .git/config
        .pre-commit-config.yaml .husky/* .envrc .githooks/* .hg/hgrc lefthook.yml .lefthook/*
        .gitea/workflows/* .forgejo/workflows/* .travis.yml azure-pipelines.yml Jenkinsfile
        bitbucket-pipelines.yml .drone.yml .woodpecker.yml .woodpecker/* .buildkite/* appveyor.yml
        .mise.toml mise.toml .mise/* .cargo/config .cargo/config.toml .bazelrc
        """,
    ),
    Places(
        "editor's or agent's rules of a project",
        "code.visualstudio.com: Tasks, Dev Containers; agents.md; code.claude.com: Memory, Hooks,"
        " MCP; cursor.com: Rules, MCP; geminicli.com: GEMINI.md; docs.github.com: Copilot;"
        " agentskills.io; zed.dev: Tasks; neovim: exrc; opencode.ai, docs.continue.dev: Settings",
        """
        .vscode/tasks.json .vscode/settings.json .vscode/launch.json .vscode/mcp.json
        .devcontainer/* .devcontainer.json AGENTS.md CLAUDE.md CLAUDE.local.md .claude/* .mcp.json
        .cursor/* .cursorrules .windsurf/* .windsurfrules .clinerules .clinerules/* GEMINI.md
        .gemini/* .github/copilot-instructions.md .github/instructions/* .idea/workspace.xml
        .idea/runConfigurations/* .roo/* .kiro/* .agents/* .agent/* AGENT.md .codex/* .opencode/*
        opencode.json opencode.jsonc .continue/* .zed/* .rules .junie/* .trae/* .augment/*
        .augment-guidelines .amazonq/* .goosehints .aider.conf.yml .kilocode/* .roomodes .qwen/*
        QWEN.md .factory/* mcp.json .github/prompts/* .github/chatmodes/* .github/agents/*
        .github/hooks/* .exrc .nvim.lua
        """,
    ),
)

# Outside of the home nobody in the jail can write: there a try is all that shows. A path that
# begins with a star is in any folder.
MACHINE_PLACES = (
    Places(
        "scheduled jobs",
        "cron(8), at(1), anacron(8)",
        "/etc/cron* /etc/anacrontab /var/spool/cron/* /var/spool/at/* /var/spool/anacron/*",
    ),
    Places(
        "loaded into every program",
        "ld.so(8): /etc/ld.so.preload, FILES; ldconfig(8)",
        """
        /etc/ld.so.preload /etc/ld.so.conf* /etc/ld.so.cache /lib/lib*.so* /lib/*/lib*.so*
        /lib64/*.so* /usr/lib/*-linux-gnu/lib*.so* /usr/lib64/lib*.so* /usr/local/lib/lib*.so*
        """,
    ),
    Places(
        "machine's services",
        "systemd.unit(5); sysvinit: init(8); udev(7); modules-load.d(5); logrotate(8);"
        " NetworkManager-dispatcher(8); interfaces(5); dbus-daemon(1); kubernetes.io: Static Pods",
        """
        /etc/systemd/* /lib/systemd/* /usr/lib/systemd/* /usr/local/lib/systemd/* /run/systemd/*
        /etc/init.d/* /etc/rc* /etc/udev/* /lib/udev/* /etc/modules* /etc/inittab /etc/init/*
        /etc/logrotate* /etc/NetworkManager/* /etc/network/* /etc/dbus-1/* /usr/share/dbus-1/*
        /etc/acpi/* /etc/kubernetes/* /etc/docker/*
        """,
    ),
    Places(
        "login of everybody",
        "bash(1): FILES; zsh(1); pam.conf(5); motd(5); environment(5); XDG Autostart",
        """
        /etc/profile* /etc/bash.bashrc /etc/bashrc /etc/zsh* /etc/environment* /etc/pam.d/*
        /etc/update-motd.d/* /etc/xdg/autostart/* /etc/skel/* /etc/security/* /etc/X11/*
        /etc/fish/* /etc/csh* /etc/inputrc
        """,
    ),
    Places(
        "accounts and rights",
        "passwd(5), shadow(5), sudoers(5), sshd_config(5)",
        """
        /etc/passwd* /etc/shadow* /etc/group* /etc/gshadow* /etc/sudoers* /etc/ssh/* /root/*
        /etc/doas.conf /etc/polkit-1/*
        """,
    ),
    Places(
        "names and certificates of the machine",
        "hosts(5), resolv.conf(5), nsswitch.conf(5); update-ca-certificates(8)",
        """
        /etc/hosts* /etc/resolv.conf /etc/nsswitch.conf /etc/ssl/certs/*
        /usr/local/share/ca-certificates/* /etc/ca-certificates* /etc/apt/* /etc/pip.conf
        """,
    ),
    Places(
        "programs of the machine",
        "hier(7)",
        "/bin/* /sbin/* /usr/bin/* /usr/sbin/* /usr/local/bin/* /usr/local/sbin/*",
    ),
    Places(
        "agent's or editor's rules for everybody",
        "code.claude.com: managed settings; geminicli.com: system settings; git-config(1): system",
        "/etc/claude-code/* /etc/gemini-cli/* /etc/codex/* /etc/gitconfig /etc/vim/* /etc/emacs/*",
    ),
    Places(
        "settings of the kernel",
        "core(5): piping core dumps to a program; proc(5); cgroups(7): release_agent",
        "/proc/sys/* /proc/sysrq-trigger /sys/fs/cgroup/* /sys/kernel/*",
    ),
    Places(
        "installed code",
        "docs.python.org: site, sysconfig",
        "*/site-packages/* */dist-packages/* */sitecustomize.py */lib/python3*/*.py",
    ),
)
# Where a try is worth a look, though nothing is executed from there.
MACHINE_FOLDERS = (
    *("/etc/", "/var/", "/usr/", "/opt/", "/srv/", "/boot/", "/lib/", "/lib64/", "/sys/"),
)

# docs.python.org: site. The kind is "Python start". A .pth file acts in a folder for libraries.
PLACES_ANYWHERE = ("/sitecustomize.py", "/usercustomize.py")
LIBRARY_PLACE = re.compile(r".*/(?:site|dist)-packages/[^/]+\.pth", re.DOTALL)
# Nobody works on a project there; tools keep clones in it.
CACHE_FOLDER = ".cache/"


def compiled(lists: Sequence[Places]) -> list[tuple[str, re.Pattern[str]]]:
    """Each kind with one expression for all of its paths."""
    found = []
    for places in lists:
        paths = "|".join(fnmatch.translate(path) for path in places.paths.split())
        found.append((places.kind, re.compile(paths)))
    return found


HOME_PATTERNS = compiled(HOME_PLACES)
PROJECT_PATTERNS = compiled(PROJECT_PLACES)
MACHINE_PATTERNS = compiled(MACHINE_PLACES)
# The first names of the paths of PROJECT_PLACES. They are looked for before any pattern is tried: a
# package can make very many files with very long paths, and every one of them is judged.
PROJECT_NAMES = {
    path.partition("/")[0] for places in PROJECT_PLACES for path in places.paths.split()
}


def what_waits_at(path: str) -> str | None:
    """The kind of program that executes or obeys the file at a normalised path, if one does."""
    if path.endswith(PLACES_ANYWHERE) or LIBRARY_PLACE.fullmatch(path):
        return "Python start"
    if not path.startswith(f"{HOME_IN_JAIL}/"):
        return None
    below_home = path.removeprefix(f"{HOME_IN_JAIL}/")
    for kind, paths in HOME_PATTERNS:
        if paths.match(below_home):
            return kind
    names = below_home.split("/")
    if PROJECT_NAMES.isdisjoint(names) or below_home.startswith(CACHE_FOLDER):
        return None
    for number, name in enumerate(names):
        below_project = "/".join(names[number:]) if name in PROJECT_NAMES else ""
        for kind, paths in PROJECT_PATTERNS:
            if below_project and paths.match(below_project):
                return kind
    return None


def what_is_refused_at(path: str) -> tuple[str, Severity, str]:
    """What a file outside of the scratch is, had the write not been refused: its kind ("" for what
    is nobody's news), how grave that is, and the technique in MITRE ATT&CK.
    """
    for kind, paths in MACHINE_PATTERNS:
        if paths.match(path):
            return kind, Severity.HIGH, technique_of(kind)
    if path.startswith(MACHINE_FOLDERS):
        return "outside of what is its own", Severity.MEDIUM, ""
    return "", Severity.INFO, ""
