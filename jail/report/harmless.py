"""What popular packages do that only looks bad: exact forms, each with who does it."""

import ast
import re

# From where everybody fetches the installer of a language, whole. Who does: pre-commit.
INSTALLERS = {"https://sh.rustup.rs/", "https://sh.rustup.rs"}

# Looks at the system that tell nobody anything; of those that the machine does not have, the look
# comes to nothing.
#   py-cpuinfo                     cat /proc/cpuinfo
#   platform, psutil, py-cpuinfo   uname -p     sw_vers      sysctl -n hw.ncpu     arch
#   ctypes.util.find_library       ldconfig -p  gcc -Wl,-t -o /tmp/x -lfoo         ld -t -lfoo
#   psycopg, docutils               pg_config --libdir           paperconf -s
#   matplotlib                     fc-list --format=%{file}\n                      gs --version
#   sympy, pytensor                g++ -v       gcc -dumpversion
#   lsb_release is a script         getopt --name lsb_release -o hvidrcas -l help,id -- -a
HARMLESS_LOOKS = re.compile(
    r"(?:/bin/sh -c |sh -c )?(?:uname( -[a-z])?|arch|machine|sw_vers( -\w+)?"
    r"|sysctl( -n)? (hw|machdep|kern)(\.[\w.]+)?|file -b( -L)? \S+|(cmd /c )?ver|ldconfig -p"
    r"|fc-list( \S+)?|(gs|gswin32c|gswin64c) --version|lsb_release( -\w+)?|getconf \w+"
    r"|(gcc|cc|ld)( \S+){0,20} -l\S+( \S+)?|which \w+|locale -a|lscpu|nproc|tput \w+"
    r"|(gcc|g\+\+|cc|c\+\+|clang|clang\+\+) (-v|--version|-dumpversion|-dumpmachine)"
    r"|getopt --name lsb_release -o \w+ -l [\w,]+ --( -\w+)*"
    r"|cat /proc/(?:cpuinfo|meminfo|version|loadavg)"
    r"|stty size|pg_config --\w+|paperconf -s|system_profiler -xml \w+)( 2> ?/dev/null)?",
    re.ASCII,
)

# Lines of .pth files that many have, whole: what they lead to runs when an interpreter starts, and
# is seen. setuptools: distutils-precedence.pth; future-fstrings; coverage; pytest-cov.
STARTUP_LINES = {
    "import os; var = 'SETUPTOOLS_USE_DISTUTILS'; enabled = os.environ.get(var, 'local') =="
    " 'local'; enabled and __import__('_distutils_hack').add_shim();",
    "import os; var = 'SETUPTOOLS_USE_DISTUTILS'; enabled = os.environ.get(var, 'stdlib') =="
    " 'local'; enabled and __import__('_distutils_hack').add_shim();",
    "import sys; exec('try:\\n    import future_fstrings\\nexcept ImportError:\\n    pass\\n"
    "else:\\n    future_fstrings.register()\\n')",
    r"import sys; exec('import os\n\nif os.getenv(\"COVERAGE_PROCESS_START\") or "
    r'os.getenv("COVERAGE_PROCESS_CONFIG"):\n try:\n  import coverage\n except:\n  pass\n else:'
    r"""\n  coverage.process_startup(slug="pth")')""",
    "import os, sys;exec('if \\'COV_CORE_SOURCE\\' in os.environ:\\n try:\\n"
    r"  from pytest_cov.embed import init\n  init()\n except Exception as exc:\n"
    r'  sys.stderr.write(\n   "pytest-cov: Failed to setup subprocess coverage. "\n'
    r'   "Environ: {0!r} "\n   "Exception: {1!r}\\n".format(\n'
    r"    dict((k, v) for k, v in os.environ.items() if k.startswith(\'COV_CORE\')),\n"
    r"    exc\n   )\n  )\n')",
    # coverage: a1_coverage.pth
    'import sys; exec(\'import os\\n\\nif os.getenv("COVERAGE_PROCESS_START") or'
    ' os.getenv("COVERAGE_PROCESS_CONFIG"):\\n try:\\n  import coverage\\n except:\\n  pass\\n'
    ' else:\\n  coverage.process_startup(slug="pth")\')',
}
# What these execute is written out in them: `exec('...')`.
WRITTEN_OUT = re.compile(r"exec\((.+)\)", re.DOTALL)
# A namespace package of setuptools (x-nspkg.pth): NAME stands for its name, PARTS for those of a
# tuple.
NAMESPACE_LINE = (
    "import sys, types, os;has_mfs = sys.version_info > (3, 5);p = os.path.join("
    "sys._getframe(1).f_locals['sitedir'], *(PARTS));importlib = has_mfs and"
    " __import__('importlib.util');has_mfs and __import__('importlib.machinery');m = has_mfs and"
    " sys.modules.setdefault('NAME', importlib.util.module_from_spec("
    "importlib.machinery.PathFinder.find_spec('NAME', [os.path.dirname(p)])));m = m or"
    " sys.modules.setdefault('NAME', types.ModuleType('NAME'));mp = (m or []) and"
    " m.__dict__.setdefault('__path__',[]);(p not in mp) and mp.append(p)"
)
# The same, as older installers write it.
OLD_NAMESPACE_LINE = (
    "import sys, types, os;p = os.path.join(sys._getframe(1).f_locals['sitedir'], *(PARTS));"
    "ie = os.path.exists(os.path.join(p,'__init__.py'));m = not ie and"
    " sys.modules.setdefault('NAME', types.ModuleType('NAME'));mp = (m or []) and"
    " m.__dict__.setdefault('__path__',[]);(p not in mp) and mp.append(p)"
)
# The same of later versions of setuptools, which do not ask for the Python of old.
LATER_NAMESPACE_LINE = (
    "import sys, types, os;p = os.path.join(sys._getframe(1).f_locals['sitedir'], *(PARTS));"
    "importlib = __import__('importlib.util');__import__('importlib.machinery');"
    "m = sys.modules.setdefault('NAME', importlib.util.module_from_spec("
    "importlib.machinery.PathFinder.find_spec('NAME', [os.path.dirname(p)])));m = m or"
    " sys.modules.setdefault('NAME', types.ModuleType('NAME'));mp = (m or []) and"
    " m.__dict__.setdefault('__path__',[]);(p not in mp) and mp.append(p)"
)
NAMESPACE_CHILD = ";m and setattr(sys.modules['NAME'], 'NAME', m)"


def as_pattern(line: str) -> str:
    """A pattern for a line with the words NAME and PARTS in it."""
    return re.escape(line).replace("NAME", r"[\w.]+").replace("PARTS", r"'\w+'(?:, '\w+'|,)*")


NAMESPACES = (NAMESPACE_LINE, OLD_NAMESPACE_LINE, LATER_NAMESPACE_LINE)
NAMESPACE_LINES = "|".join(as_pattern(line) for line in NAMESPACES)
NAMESPACE = re.compile(f"(?:{NAMESPACE_LINES})(?:{as_pattern(NAMESPACE_CHILD)})?", re.ASCII)


# What a package keeps beside Python's own cache: no import reads it. numba does so:
#   /srv/site/x-1.0/lib/python3.11/site-packages/x/__pycache__/y.add-21.py311.nbi
CACHE_DATA = re.compile(r".*/__pycache__/[^/]+\.(?!pyc?$|so$|pth$|pyd$)\w+", re.DOTALL)


def is_cache_data(path: str) -> bool:
    """Whether a file lies in a folder of Python's cache and is nothing that Python executes."""
    return CACHE_DATA.fullmatch(path) is not None


def is_harmless_look(argv: tuple[str, ...]) -> bool:
    """Whether a command only looks at the system."""
    first, *others = argv or ("",)
    shell = first if " ".join(others).startswith("-c ") else first.rpartition("/")[2]
    return HARMLESS_LOOKS.fullmatch(" ".join([shell, *others])) is not None


def startup_texts() -> frozenset[str]:
    """The code that stands in STARTUP_LINES as a text."""
    found = (WRITTEN_OUT.search(line) for line in STARTUP_LINES)
    return frozenset(ast.literal_eval(match[1]).strip() for match in found if match)


STARTUP_TEXTS = startup_texts()


def is_known_startup(line: str) -> bool:
    """Whether a line that every interpreter executes is one of those that many have, or the code
    that such a line executes.
    """
    plain = line.strip()
    return plain in STARTUP_LINES | STARTUP_TEXTS or NAMESPACE.fullmatch(plain) is not None
