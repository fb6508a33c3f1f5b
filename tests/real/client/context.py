"""Files that a build copies: section 11 of the client's contract, item 3, and the blob flow."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

from nullspace import Template
from nullspace.types import TemplateBuildStatus, UploadProgress, UploadProgressPhase

from common import build, equal, holds, http, is_error, is_whole_log, main, unique

MAIN = 'print("main")\n'
# Not ASCII, and a blank: what a path may hold.
ODD_FOLDER, ODD_FILE = "sub folder", "naïve ü.txt"

# Runs in the build, after the copies; a shell's `set -e` makes each line an assertion.
LOOK = f"""set -eu
test "$(cat /app/main.py)" = 'print("main")'
cmp /app/main.py /app/duplicate.py
test "$(stat -c %a /app/main.py)" = 644
test "$(stat -c %s /app/empty.txt)" = 0
test -d /app/emptydir
test "$(ls -A /app/emptydir)" = ""
test "$(cat '/app/{ODD_FOLDER}/{ODD_FILE}')" = odd
test ! -e /app/debug.log
cmp /app/main.py /m/main.py
cmp /app/main.py /n/renamed.py
test "$(stat -c %a /n/renamed.py)" = 755
echo all-there
"""


def announced(content: bytes) -> dict[str, object]:
    """One file as preflight is told of it."""
    return {
        "path": "a.txt",
        "entry_type": "file",
        "mode": "0644",
        "sha256": hashlib.sha256(content).hexdigest(),
        "size_bytes": len(content),
    }


def make_context(folder: Path, salt: str) -> None:
    """The folder of section 11: `salt` keeps its blobs apart from those of other runs."""
    source = folder / "src"
    (source / "emptydir").mkdir(parents=True)
    (source / ODD_FOLDER).mkdir()
    (source / "main.py").write_text(MAIN)
    (source / "duplicate.py").write_text(MAIN)
    (source / "empty.txt").touch()
    (source / "salt.txt").write_text(salt)
    (source / ODD_FOLDER / ODD_FILE).write_text("odd")
    (source / "debug.log").write_text("not for the build")
    (folder / "Dockerfile").write_text("FROM debian:bookworm\n")
    (folder / ".dockerignore").write_text("*.log\n")


def definition(context: Path, force_upload: bool) -> Template:
    return (
        Template.from_debian_image()
        .set_file_context(str(context))
        .copy("src", "/app/", mode=0o644, force_upload=force_upload)
        .copy_items([("src/main.py", "/m/"), {"src": "src/main.py", "dst": "/n/renamed.py", "mode": "0755"}])
        .run(LOOK)
    )


def item_3_copied_files() -> None:
    name = unique("copies")
    with tempfile.TemporaryDirectory() as folder:
        context = Path(folder)
        make_context(context, name)

        def upload(force_upload: bool) -> tuple[list[UploadProgress], list[str]]:
            progress: list[UploadProgress] = []
            builder = definition(context, force_upload)
            result, entries = build(builder, name, on_upload_progress=progress.append)
            is_whole_log(entries)
            equal(result.status, TemplateBuildStatus.READY, "status")
            return progress, [e.message for e in entries]

        first, messages = upload(force_upload=True)
        holds("all-there" in messages, "the copied files were looked at")
        forced = {p.target_path for p in first if p.phase == UploadProgressPhase.COMPLETED}
        # Every file of the forced source, the duplicate and the empty one included; not the ignored one.
        for file in ("main.py", "duplicate.py", "empty.txt", "salt.txt", f"{ODD_FOLDER}/{ODD_FILE}"):
            holds(f"builder-context/step-0/src-0/src/{file}" in forced, f"{file} was uploaded: {sorted(forced)}")
        holds(not any("debug.log" in path for path in forced), "an ignored file is not uploaded")

        again, _ = upload(force_upload=True)
        ids = [{p.upload_id for p in run if "step-0" in (p.target_path or "")} for run in (first, again)]
        equal(ids[0] & ids[1], set(), "blob ids that both forced uploads share")

        equal(upload(force_upload=False)[0], [], "uploads of content that is already there")


def a_blob_is_uploaded_once() -> None:
    content = unique("blob").encode()
    file = announced(content)
    folder = {"path": "d", "entry_type": "dir", "mode": "0755"}
    with http() as client:
        answer = client.post("/v1/templates/blobs/preflight", json={"files": [folder, file]})
        equal(answer.status_code, 200, "status")
        results = answer.json()["files"]
        equal([(r["path"], r["entry_type"]) for r in results], [("d", "dir"), ("a.txt", "file")], "results")
        equal(results[1]["missing"], True, "missing before the upload")
        blob = results[1]["blob_id"]
        holds(all(c.isalnum() or c in "_-" for c in blob), f"the id needs no escapes: {blob}")
        stored = client.put(
            f"/v1/templates/blobs/{blob}", content=content, headers={"Content-Type": "application/octet-stream"}
        )
        equal((stored.status_code, stored.content), (204, b""), "answer to the upload")
        results = client.post("/v1/templates/blobs/preflight", json={"files": [file]}).json()["files"]
        equal((results[0]["blob_id"], results[0]["missing"]), (blob, False), "after the upload")


def a_blob_with_the_wrong_content_is_refused() -> None:
    content = unique("blob").encode()
    file = announced(content)
    with http() as client:
        preflight = {"files": [file]}
        blob = client.post("/v1/templates/blobs/preflight", json=preflight).json()["files"][0]["blob_id"]
        for wrong in (content[::-1], content + b"more", content[:-1], b""):
            refused = client.put(
                f"/v1/templates/blobs/{blob}", content=wrong, headers={"Content-Type": "application/octet-stream"}
            )
            body = is_error(refused, 400, "file_upload_error")
            equal(body["error_detail"]["phase"], "blob_upload", "phase")
            holds("reason" in body["error_detail"]["details"], "the detail gives a reason")
        results = client.post("/v1/templates/blobs/preflight", json=preflight).json()["files"]
        equal(results[0]["missing"], True, "still missing after wrong uploads")


if __name__ == "__main__":
    main(
        [
            item_3_copied_files,
            a_blob_is_uploaded_once,
            a_blob_with_the_wrong_content_is_refused,
        ]
    )
