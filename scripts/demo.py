#!/usr/bin/env python3
"""The demo as a client sees it: build, restore, build again. Called by scripts/demo.

demo.py NULLSPACED      with NULLSPACE_API_URL, NULLSPACE_API_KEY, NULLSPACED_DATA_DIR set
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from nullspace import Template, TemplateBuild, default_build_logger, wait_for_port
from nullspace.types import TemplateBuildCacheKind, TemplateBuildCacheStatus, TemplateBuildLogEntry

REF = "demo"
DISK_MB = 2048
PAGE = "Hello from a machine that was never started, only resumed.\n"
PORT = 8000
# What runs inside the restored machine: ask the server that the start command left running, use the
# installed package, and look at the disk.
LOOK = f"""python3 - <<'PYTHON'
import urllib.request
import six
print("page:", urllib.request.urlopen("http://127.0.0.1:{PORT}/").read().decode(), end="")
print("six:", six.__version__)
PYTHON
df -h /"""


def heading(text: str) -> None:
    print(f"\n==> {text}", flush=True)


def definition(context: Path) -> Template:
    return (
        Template.from_python_image("3.11")
        .set_file_context(str(context))
        .pip_install("six")
        .copy("index.html", "/srv/www/")
        .set_start_cmd(f"python3 -m http.server {PORT} --directory /srv/www", wait_for_port(PORT))
    )


def build(context: Path) -> tuple[TemplateBuild, float, bool]:
    """Builds the template; how long it took, and whether the finished artifact was reused."""
    log = default_build_logger()
    reused = False

    def on_log_entry(entry: TemplateBuildLogEntry) -> None:
        nonlocal reused
        reused |= (
            entry.cache_kind == TemplateBuildCacheKind.FINAL_ARTIFACT
            and entry.cache_status == TemplateBuildCacheStatus.HIT
        )
        log(entry)

    started = time.monotonic()
    result = Template.build(definition(context), REF, disk_mb=DISK_MB, on_log_entry=on_log_entry)
    return result, time.monotonic() - started, reused


def restore(nullspaced: str, config: str) -> dict[str, Any]:
    place = ["--data-dir", os.environ["NULLSPACED_DATA_DIR"], "--config", config]
    command = [nullspaced, "restore", REF, "--exec", LOOK, "--json", *place]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"restore failed with exit code {done.returncode}:\n{done.stdout}{done.stderr}")
    seen: dict[str, Any] = json.loads(done.stdout)
    return seen


def check(holds: bool, claim: str) -> None:
    if not holds:
        sys.exit(f"error: {claim}: not so")
    print(f"    {claim}")


def main() -> None:
    nullspaced, config = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        context = Path(folder)
        (context / "index.html").write_text(PAGE)

        heading(f"Building template '{REF}' from python:3.11 (one package, one file, an HTTP server)")
        first, first_seconds, reused = build(context)
        check(not reused, f"built {first.build_id} in {first_seconds:.1f} s")

        heading("Restoring it with 'nullspaced restore' and looking inside")
        seen = restore(nullspaced, config)
        print("".join(f"    | {line}\n" for line in seen["stdout"].splitlines()), end="")
        check(seen["exit_code"] == 0, f"resumed and answering after {seen['boot_to_agent_ms']} ms")
        check(f"page: {PAGE}" in seen["stdout"], "the server inside was already running")
        disk_mib = seen["disk_bytes"] >> 20
        check(disk_mib >= DISK_MB, f"its disk has {disk_mib} MiB; {DISK_MB} were asked for")

        heading("Building the same definition again")
        second, second_seconds, reused = build(context)
        check(reused, f"built {second.build_id} in {second_seconds:.1f} s from the finished artifact")

    heading("Done")
    print(f"    first build  {first_seconds:7.1f} s")
    print(f"    second build {second_seconds:7.1f} s")


if __name__ == "__main__":
    main()
