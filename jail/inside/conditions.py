"""What code waits for before it acts, by the names that code has for it: the date, the system, who
else is there.
"""

import re

# What is waited for, by the names that code has for it, from the right: `datetime.now`.
DATE = re.compile(
    r"(?:.*\.)?(?:datetime\.(?:now|today|utcnow)|date\.today"
    r"|time\.(?:time(?:_ns)?|localtime|gmtime|strftime|ctime|asctime|clock_gettime(?:_ns)?))"
    r"|(?:time\.)?(?:monotonic|perf_counter|process_time)(?:_ns)?"  # whether a sleep was skipped
    r"|(?:utcnow|localtime|gmtime)"
)
SYSTEM = re.compile(
    r"(?:sys\.platform|os\.name|os\.uname|sys\.getwindowsversion|pathlib\.WindowsPath"
    r"|os\.(?:sep|altsep|pathsep|linesep|devnull|fork|startfile|path\.(?:sep|__name__))"
    r"|platform\.(?:system|platform|uname|machine|release|version|win32_ver|mac_ver))"
)
MACHINE = re.compile(
    r"(?:(?:.*\.)?(?:gethostname|getfqdn|getuser|getlogin|getnode|getlocale|getdefaultlocale)"
    r"|(?:.*\.)?(?:cpu_count|getloadavg|sysconf|utcoffset|virtual_memory|disk_usage)"
    r"|(?:.*\.)?winfo_screen\w+"
    r"|(?:.*\.)?(?:GetSystemMetrics|GetTickCount\w*|IsDebuggerPresent)"
    r"|platform\.node|time\.(?:tzname|timezone))"
)
# Who has started it, and as whom.
PARENT = re.compile(r"(?:os\.)?(?:getppid|getpgid|getsid|getuid|geteuid|getgid|getpgrp)")
# The environment that it is installed in: a virtual one, a container, a person's own.
SURROUNDINGS = re.compile(
    r"sys\.(?:base_|exec_|base_exec_|real_)?prefix|sys\.executable|sys\.path"
    r"|site\.\w+|(?:os\.)?getcwd|shutil\.which|sysconfig\.get_\w+"
)
PYTHON_VERSION = re.compile(
    r"sys\.(?:version(?:_info)?|hexversion|implementation)(?:\.\w+)?"
    r"|platform\.python_(?:version\w*|implementation|build|compiler)"
)
# Who else is there: a test runner, a notebook, a person at a terminal, somebody who looks.
COMPANY = re.compile(
    r"(?:sys\.(?:modules|ps1|flags(?:\.\w+)?|frozen|gettrace|getprofile|_getframe)|(?:.*\.)?isatty"
    r"|get_ipython|inspect\.(?:stack|currentframe)|__debug__)"
)
# A variable of the environment, whatever its name.
ENVIRONMENT_NAMES = re.compile(r"(?:os\.)?(?:environ(?:b?\.\w+)?|environb|getenvb?)")
# What raises where it is not so: `sys.ps1`, `get_ipython()`, `metadata.version("x")`.
RAISES_WITHOUT = (
    ("company", re.compile(r"sys\.ps1|get_ipython")),
    ("other projects", re.compile(r"(?:importlib\.)?metadata\.(?:version|distribution|metadata)")),
)
# What else is installed, and luck.
PROJECTS = re.compile(
    r"(?:importlib\.(?:util|metadata)\.|pkgutil\.|imp\.)?"
    r"(?:find_spec|find_loader|find_module|packages_distributions|distributions?)"
)
# What lies at a place that is written there: `os.path.isdir("/var/lib/x")`.
THERE = re.compile(
    r"(?:.*\.)?(?:exists|lexists|isfile|isdir|is_file|is_dir|access|i?glob|listdir|scandir)"
)
PLACES = ("/", "~", "C:")
# The same below a folder that is put together: `os.path.join(home, ".electrum")`.
SECRET_PLACES = re.compile(
    r"id_rsa|\.(?:netrc|pgpass|npmrc|pypirc|git-credentials|electrum|thunderbird|mozilla"
    r"|ethereum)\b"
    r"|\.(?:aws|azure|kube|docker|ssh|config/gcloud)\b|Login Data|Local State|keyrings|wallet\.dat"
    r"|application_default_credentials|(?:Exodus|Ledger Live|Bitwarden|1Password|BraveSoftware)$"
)
CHANCE = re.compile(
    r"(?:numpy\.)?random\.\w+|secrets\.(?:choice|token_\w+)"
    r"|(?:.*\.)?(?:randint|randrange|randbelow|getrandbits|randbits)"
)
COMMAND_LINE = re.compile(r"sys\.(?:orig_)?argv")
CI_NAMES = re.compile(
    r"(?:CI|GITHUB_ACTIONS|GITLAB_CI|TRAVIS|CIRCLECI|JENKINS_\w+|BUILDKITE|TF_BUILD|APPVEYOR"
    r"|GITHUB_\w+|RUNNER_\w+|CODEBUILD_\w+|BITBUCKET_\w+|TEAMCITY_VERSION|ACTIONS_\w+)"
)
GATES = (
    ("date", DATE),
    ("system", SYSTEM),
    ("machine", MACHINE),
    ("command line", COMMAND_LINE),
    ("company", COMPANY),
    ("parent", PARENT),
    ("environment", SURROUNDINGS),
    ("environment", ENVIRONMENT_NAMES),
    ("Python version", PYTHON_VERSION),
    ("other projects", PROJECTS),
    ("chance", CHANCE),
)
# A file without any of each kind has no gate: most are not parsed.
WAITING_WORDS = re.compile(
    rb"monotonic|perf_counter|process_time|now\b|today\b|time\(|platform|\bname\b|uname"
    rb"|environ|getenv|argv|gethostname|getuser|getloadavg"
    rb"|sys\.modules|ps1\b|interactive|isatty|getlogin|getfqdn|getnode|locale"
    rb"|tzname|timezone|cpu_count|getwindowsversion|gmtime|getppid|getpgid|getsid|getpgrp"
    rb"|get[eu]?[ug]id|prefix|executable|sys\.path|getcwd|which|sysconfig|version"
    rb"|try:|exists|isfile|isdir|is_file|is_dir|access|time_ns|asctime|find_"
    rb"|distribution|rand|secrets|__main__|ps1|get_ipython|get(?:trace|profile|frame)|frozen"
    rb"|\bos\.(?:sep|altsep|pathsep|linesep|devnull|fork|startfile|path\.sep)|WindowsPath|flags"
    rb"|sysconf|utcoffset|_memory|disk_usage|winfo|GetSystem|GetTick|Debugger|stack\(|__debug__"
    rb"|glob|listdir|scandir|open\("
)
