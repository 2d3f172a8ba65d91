"""Fetches sources: Debian's source packages, from the mirror that this machine's apt uses, and Python's sdists."""

import subprocess
import tarfile
import tempfile
from pathlib import Path

from suite import store

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


def debian(package, target, *folders):
    """Unpacks a source package's original sources, or only the named folders and files of it, into `target`."""
    options = apt()
    with tempfile.TemporaryDirectory(dir=store()) as scratch:
        # Only the original sources are wanted, and a mirror may have lost the rest.
        command = ["apt-get", *options, "source", "--print-uris", package]
        lines = output(command).splitlines()
        address = next(line.split("'")[1] for line in lines if ".orig.tar." in line and not line.endswith(".asc"))
        checksum = next(line.split()[-1] for line in lines if address in line)
        archive = Path(scratch) / "archive"
        # apt's own downloader checks the sum that the signed list of sources has.
        output(["/usr/lib/apt/apt-helper", *options, "download-file", address, str(archive), checksum])
        unpack(archive, target, folders)


def sdist(python, requirement, target):
    """Unpacks the source distribution of a Python package into `target`, by the pip of that Python."""
    with tempfile.TemporaryDirectory(dir=store()) as scratch:
        output([
            str(python), "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
            "--no-binary=:all:", "--dest", scratch, requirement,
        ])
        unpack(next(Path(scratch).iterdir()), target, ())


def unpack(archive, target, folders):
    """Unpacks an archive without its first folder. It appears whole or not at all."""
    unfinished = target.with_name(target.name + ".unfinished")
    output(["rm", "-rf", str(unfinished)])
    unfinished.mkdir(parents=True)
    with tarfile.open(archive) as tar:
        for member in tar:
            _, _, name = member.name.partition("/")
            wanted = not folders or any(name == folder or name.startswith(folder + "/") for folder in folders)
            if name and wanted:
                member.name = name
                tar.extract(member, unfinished, filter="data")
    output(["rm", "-rf", str(target)])
    unfinished.rename(target)


def apt():
    """Options that make apt read a list of sources of our own; the system's stays as it is."""
    home = store() / ".apt"
    (home / "lists/partial").mkdir(parents=True, exist_ok=True)
    (home / "cache/archives/partial").mkdir(parents=True, exist_ok=True)
    sources = home / "sources.list"
    options = [
        "-o", f"Dir::Etc::SourceList={sources}", "-o", "Dir::Etc::SourceParts=/dev/null",
        "-o", f"Dir::State::Lists={home / 'lists'}", "-o", f"Dir::Cache={home / 'cache'}",
    ]
    mirror, suite = system_mirror()
    line = f"deb-src [signed-by={KEYRING}] {mirror} {suite} main\n"
    if not sources.exists() or sources.read_text() != line or not any((home / "lists").glob("*Sources*")):
        sources.write_text(line)
        output(["apt-get", *options, "update", "-q"])
    return options


def system_mirror():
    """The mirror of Debian and the suite that apt is set up with here."""
    wanted = ["--format", "$(REPO_URI) $(CODENAME) $(ORIGIN) $(COMPONENT)", "Created-By: Packages"]
    for line in output(["apt-get", "indextargets", *wanted]).splitlines():
        address, codename, origin, component = (line.split() + [""] * 4)[:4]
        if origin == "Debian" and component == "main" and codename.isalpha():
            return address.rstrip("/"), codename
    raise SystemExit("apt knows no mirror of Debian; the suites come from there")


def output(command):
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout
