"""A repository laid out as CernVM-FS 2.12 has it on its stratum 0, from a golden one.

The golden private keys are nowhere, so it gets keys of its own: the manifest is signed again and a
whitelist for them is written; everything else is as upstream's tools left it.
"""

import contextlib
import io
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from tests.support import golden
from tests.support.command_line import Ended
from tests.support.keys import repository_keys

from outcrop.formats.hashes import HashAlgorithm, Suffix
from outcrop.formats.manifest import Manifest
from outcrop.formats.reflog import Ref, RefType
from outcrop.formats.signed import SignedText
from outcrop.formats.whitelist import Whitelist
from outcrop.publisher.compression import CompressionChoice
from outcrop.repository.object_writer import ObjectWriter
from outcrop.repository.reflog import Reflog
from outcrop.storage.local import LocalStore
from outcrop.trust.keys import Certificate
from outcrop.trust.signing import key_signer, sign_manifest, sign_whitelist

DAY = 86400
_LAUNCHER = """#!{python}
from outcrop.cli.dropin.{module} import main
main()
"""


@dataclass(frozen=True)
class Installation:
    """A stratum 0 below `root`, which is `/` for whoever runs its tools."""

    root: Path
    fqrn: str

    @property
    def storage(self) -> Path:
        return self.root / "srv/cvmfs" / self.fqrn

    @property
    def spool(self) -> Path:
        return self.root / "var/spool/cvmfs" / self.fqrn

    @property
    def config(self) -> Path:
        return self.root / "etc/cvmfs/repositories.d" / self.fqrn

    @property
    def keys(self) -> Path:
        return self.root / "etc/cvmfs/keys"


def lay_out(
    root: Path, name: str = "basic", *, moved: bool = True, **parameters: str
) -> Installation:
    """Lay it out. `moved`: paths in the settings are below `root`; else they are the original's.

    `parameters` are added to server.conf.
    """
    made = Installation(root, golden.fqrn(name))
    source = golden.directory(name)
    shutil.copytree(source / "repo", made.storage)
    for number in range(256):
        (made.storage / f"data/{number:02x}").mkdir(exist_ok=True)
    (made.storage / "data/txn").mkdir()
    for directory in (
        "cache",
        "rdonly",
        "scratch/current",
        "scratch/wastebin",
        "tmp",
        "ofs_workdir",
    ):
        (made.spool / directory).mkdir(parents=True)
    shutil.copy(source / "keys/reflog.chksum", made.spool)
    manifest = _sign_anew(made)
    (made.spool / "client.local").write_text(f"CVMFS_ROOT_HASH={manifest.root_catalog}\n")
    _write_settings(made, source / "keys/server.conf", moved=moved, parameters=parameters)
    info = root / "srv/cvmfs/info/v1"
    info.mkdir(parents=True, exist_ok=True)
    (info / "meta.json").write_text('{\n  "administrator": "Your Name"\n}\n')
    (root / "cvmfs" / made.fqrn).mkdir(parents=True)
    return made


def _write_settings(
    made: Installation, server_conf: Path, *, moved: bool, parameters: dict[str, str]
) -> None:
    text = server_conf.read_text()
    client = f"CVMFS_CACHE_BASE=/var/spool/cvmfs/{made.fqrn}/cache\n"
    client += f"CVMFS_RELOAD_SOCKETS=/var/spool/cvmfs/{made.fqrn}/cache\nCVMFS_QUOTA_LIMIT=4000\n"
    client += f"CVMFS_MOUNT_DIR=/cvmfs\nCVMFS_SERVER_URL=http://localhost/cvmfs/{made.fqrn}\n"
    client += f"CVMFS_HTTP_PROXY=DIRECT\nCVMFS_PUBLIC_KEY=/etc/cvmfs/keys/{made.fqrn}.pub\n"
    if moved:
        for place in ("/srv/cvmfs", "/var/spool", "/etc/cvmfs"):
            text = text.replace(place, f"{made.root}{place}")
            client = client.replace(place, f"{made.root}{place}")
        text = text.replace("_DIR=/cvmfs", f"_DIR={made.root}/cvmfs")
    text += "".join(f"{name}={value}\n" for name, value in parameters.items())
    made.config.mkdir(parents=True)
    (made.config / "server.conf").write_text(text)
    (made.config / "client.conf").write_text(client)


def _sign_anew(made: Installation) -> Manifest:
    """Keys of its own, in the key directory; manifest and whitelist signed with them."""
    keys = repository_keys(made.fqrn)
    made.keys.mkdir(parents=True, exist_ok=True)
    for suffix, pem, mode in (
        ("masterkey", keys.master_key_pem, 0o400),
        ("pub", keys.master_public_pem, 0o444),
        ("key", keys.repository_key_pem, 0o400),
        ("crt", keys.certificate_pem, 0o444),
    ):
        file = made.keys / f"{made.fqrn}.{suffix}"
        file.write_bytes(pem)
        file.chmod(mode)
    published = made.storage / ".cvmfspublished"
    manifest = Manifest.parse(SignedText.parse(published.read_bytes()).body)
    algorithm = manifest.algorithm
    writer = ObjectWriter(
        LocalStore(made.storage), algorithm, CompressionChoice.BALANCED.compressor
    )
    certificate = writer.put(keys.certificate_pem, Suffix.CERTIFICATE).hash
    reflog = Reflog(LocalStore(made.storage), made.spool / "reflog.chksum", made.fqrn, algorithm)
    now = manifest.published_at + 1
    checksum = reflog.add([Ref(certificate, RefType.CERTIFICATE, now)])
    manifest = replace(manifest, certificate=certificate, reflog=checksum)
    published.write_bytes(sign_manifest(manifest, keys.repository_key_pem, algorithm))
    whitelist_now(made, algorithm)
    return manifest


def whitelist_now(
    made: Installation, algorithm: HashAlgorithm = HashAlgorithm.SHA1, *, days: int = 30
) -> None:
    """Write a whitelist that is good for so many days from now."""
    keys = repository_keys(made.fqrn)
    now = golden.now()
    whitelist = Whitelist(
        created_at=now - 60 * DAY,
        expires_at=now + days * DAY,
        fqrn=made.fqrn,
        fingerprints=(Certificate.parse(keys.certificate_pem).fingerprint(algorithm),),
    )
    file = made.storage / ".cvmfswhitelist"
    file.write_bytes(sign_whitelist(whitelist, key_signer(keys.master_key_pem), algorithm))


def install_tools(directory: Path) -> None:
    """Put the original's commands into a directory of programs, without installing anything."""
    directory.mkdir(parents=True, exist_ok=True)
    for tool, module in (
        ("cvmfs_server", "server"),
        ("cvmfs_swissknife", "swissknife"),
        ("cvmfs_rsync", "rsync"),
        ("cvmfs_publish", "publish"),
    ):
        file = directory / tool
        file.write_text(_LAUNCHER.format(python=sys.executable, module=module))
        file.chmod(0o755)


def run_tool(run: "object", *arguments: str | Path, stdin: str | bytes = "") -> Ended:
    """Run a tool in this process: `run` is the function of its module."""
    stdout = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
    stderr = io.StringIO()
    data = stdin.encode() if isinstance(stdin, str) else stdin
    before, sys.stdin = sys.stdin, io.TextIOWrapper(io.BytesIO(data), encoding="utf-8")
    try:
        with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
            code = run([str(argument) for argument in arguments])  # type: ignore[operator]
    finally:
        sys.stdin = before
    stdout.flush()
    return Ended(code, stdout.buffer.getvalue(), stderr.getvalue())  # type: ignore[attr-defined]
