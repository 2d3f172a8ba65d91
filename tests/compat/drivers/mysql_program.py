"""How MySQL's own programs are run: they belong to an unpacked newer system, which brings its loader and libraries."""

import os

ROOT = os.environ["COMPAT_MYSQL"]


def mysql_program(name):
    """The words that run a client program, or nothing if it is not there."""
    if not os.path.exists(f"{ROOT}/usr/bin/{name}"):
        return None
    directory = next(d for d in ("lib64", "lib") if os.path.isdir(f"{ROOT}/{d}") and any(f.startswith("ld-linux") for f in os.listdir(f"{ROOT}/{d}")))
    loader = next(f for f in sorted(os.listdir(f"{ROOT}/{directory}")) if f.startswith("ld-linux"))
    triplet = next(f for f in os.listdir(f"{ROOT}/usr/lib") if f.endswith("-linux-gnu"))
    return [f"{ROOT}/{directory}/{loader}", "--library-path", f"{ROOT}/usr/lib/{triplet}:{ROOT}/usr/lib/mysql/private", f"{ROOT}/usr/bin/{name}", "--no-defaults", "--get-server-public-key", f"--character-sets-dir={ROOT}/usr/share/mysql/charsets"]
