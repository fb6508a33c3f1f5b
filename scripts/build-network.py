#!/usr/bin/env python3
"""How build steps reach package mirrors: the way this machine does.

    build-network.py FILE            write the service's `[build_network]` settings to FILE
    build-network.py --apt-options   print this machine's apt settings that matter, one a line

A step sees nothing of this machine. Behind a proxy, a private mirror or an own certificate authority
its apt, pip and npm would fail where the machine's own succeed; so the service binds the files named here
into networked steps and gives them these variables. Nothing of it ends up in a template. Proxies that
listen on this machine's loopback are left out: steps cannot reach it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

# Where the files appear inside a step.
STEP_FOLDER = "/run/nullspace-build"
# The certificate bundle of this machine, where Debian and others keep it.
CA_BUNDLES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt")
# Variables by which programs find a certificate bundle.
CA_VARIABLES = (
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "NODE_EXTRA_CA_CERTS",
    "PIP_CERT",
    "REQUESTS_CA_BUNDLE",
    "SSL_CERT_FILE",
)
PROXY_VARIABLES = ("http_proxy", "https_proxy", "ftp_proxy", "all_proxy", "no_proxy")
# pip's settings that say where packages come from and how patiently.
PIP_SETTINGS = (
    "default-timeout",
    "disable-pip-version-check",
    "extra-index-url",
    "index-url",
    "proxy",
    "retries",
    "timeout",
    "trusted-host",
)
# apt's settings that say how it fetches; the rest (caches, languages, hooks) is the image's own.
APT_SETTINGS = re.compile(
    r'^Acquire::(?:(?:https?|ftp)::.*|Retries|Check-Valid-Until|Check-Date|ForceIPv4|ForceIPv6) ".+";$', re.IGNORECASE
)
APT_CERTIFICATE = re.compile(r"::(?:CaInfo|CaPath|SslCert|SslKey) ", re.IGNORECASE)


def is_loopback(url: str) -> bool:
    host = urlsplit(url if "//" in url else f"//{url}").hostname or ""
    return host == "localhost" or host == "::1" or host.startswith("127.")


def apt_options() -> list[str]:
    """This machine's apt settings about fetching, without its certificate paths."""
    dump = subprocess.run(["apt-config", "dump"], check=True, capture_output=True, text=True).stdout
    kept = [line for line in dump.splitlines() if APT_SETTINGS.match(line) and not APT_CERTIFICATE.search(line)]
    return [line for line in kept if not ("::proxy" in line.lower() and is_loopback(line.split('"')[1]))]


def pip_variables() -> dict[str, str]:
    """This machine's pip settings as the variables that pip reads."""
    listing = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], check=True, capture_output=True, text=True
    ).stdout
    variables = {}
    # Later lines (the environment) win over earlier ones (files), as in pip itself.
    for line in sorted(listing.splitlines(), key=lambda line: line.startswith(":env:")):
        key, _, value = line.partition("=")
        setting = key.rsplit(".", 1)[-1]
        value = value.strip("'\"")
        if setting in PIP_SETTINGS and not (setting == "proxy" and is_loopback(value)):
            variables[f"PIP_{setting.upper().replace('-', '_')}"] = value.replace("\\n", " ")
    return variables


def npm_variables() -> dict[str, str]:
    """Where this machine's npm gets packages from, as the variable that npm reads; nothing without npm."""
    if shutil.which("npm") is None:
        registry = os.environ.get("npm_config_registry", "")
    else:
        asked = subprocess.run(["npm", "config", "get", "registry"], check=True, capture_output=True, text=True)
        registry = asked.stdout.strip()
    return {"npm_config_registry": registry} if registry and not is_loopback(registry) else {}


def proxy_variables() -> dict[str, str]:
    found = {}
    for name in (v for lower in PROXY_VARIABLES for v in (lower, lower.upper())):
        value = os.environ.get(name, "")
        if value and not (name.lower() != "no_proxy" and is_loopback(value)):
            found[name] = value
    return found


def settings(state: Path) -> str:
    variables = proxy_variables() | pip_variables() | npm_variables()
    files = []
    options = apt_options()
    bundle = next((b for b in CA_BUNDLES if os.path.isfile(b)), None)
    if bundle is not None:
        # Not over the image's own bundle: a step that installs ca-certificates replaces that file.
        target = f"{STEP_FOLDER}/ca-certificates.crt"
        files.append({"source": bundle, "target": target})
        variables |= dict.fromkeys(CA_VARIABLES, target)
        options.append(f'Acquire::https::CaInfo "{target}";')
    if options:
        # The root of a step is another user here, so the file is readable by all, in a folder that is not.
        folder = state / "build-network"
        folder.mkdir(mode=0o700, exist_ok=True)
        conf = folder / "apt.conf"
        replace(conf, "".join(f"{line}\n" for line in options), 0o644)
        target = f"{STEP_FOLDER}/apt.conf"
        files.append({"source": str(conf), "target": target})
        variables["APT_CONFIG"] = target
    # JSON strings are TOML strings, apart from escapes that paths and URLs do not hold.
    lines = ["# How build steps reach package mirrors; written by make setup.", "[build_network]", "files = ["]
    lines += [f"  {{ source = {json.dumps(f['source'])}, target = {json.dumps(f['target'])} }}," for f in files]
    lines += ["]", "", "[build_network.env]"]
    lines += [f"{name} = {json.dumps(value)}" for name, value in sorted(variables.items())]
    return "\n".join(lines) + "\n"


def replace(file: Path, text: str, mode: int) -> None:
    """Writes the file whole or not at all."""
    temporary = file.with_name(file.name + ".tmp")
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w", encoding="utf-8") as out:
        out.write(text)
    os.replace(temporary, file)


def main() -> None:
    if sys.argv[1:] == ["--apt-options"]:
        print("\n".join(apt_options()))
        return
    target = Path(sys.argv[1])
    # Readable by root alone: a proxy or index URL may hold a password.
    replace(target, settings(target.parent), 0o600)


if __name__ == "__main__":
    main()
