"""`cvmfs_swissknife`: those of the original's low-level commands that scripts call."""

import sys
from collections.abc import Mapping, Sequence
from typing import Final

from outcrop.cli.dropin import storage_actions, swissknife_actions
from outcrop.cli.dropin.call import Tool
from outcrop.cli.dropin.options import Letter, Names, Verb
from outcrop.cli.dropin.repositories import use_existing_installation

_PLACE: Final = Letter("repository URL, or the directory it is stored in", "PLACE")
_FQRN: Final = Letter("fully qualified repository name", "FQRN")
_KEYS: Final = Letter("public keys: files joined by colons, or a directory", "KEYS")
_PROXY: Final = Letter("proxy", "URL")
_TEMPORARY: Final = Letter("temporary directory", "DIR", unused="it is chosen by itself")
_LOG_LEVEL: Final = Letter("log level", "N", unused="there is nothing to choose")
_CERTIFICATES: Final = Letter("trusted certificates", "DIR", unused="keys are given with -k")
_REDIRECTS: Final = Letter("follow redirects", unused="CVMFS_FOLLOW_REDIRECTS says so")
_UPSTREAM: Final = Letter("upstream storage", "UPSTREAM")

_READING: Final[Mapping[str, Verb]] = {
    "check": Verb(
        summary="Check the catalogs of a repository",
        words="-r PLACE",
        run=swissknife_actions.check,
        letters={
            "r": _PLACE, "N": _FQRN, "k": _KEYS, "@": _PROXY, "t": _TEMPORARY, "l": _LOG_LEVEL,
            "z": _CERTIFICATES, "L": _REDIRECTS,
            "n": Letter("this tag instead of the trunk", "TAG"),
            "s": Letter("only below this nested catalog", "PATH"),
            "c": Letter("look for data objects"),
            "R": Letter("check the reflog by this checksum", "FILE"),
        },
    ),
    "lsrepo": Verb(
        summary="List the catalogs of a repository",
        words="-r PLACE",
        run=swissknife_actions.list_catalogs,
        letters={
            "r": _PLACE, "n": _FQRN, "k": _KEYS, "@": _PROXY, "l": _TEMPORARY,
            "h": Letter("root hash of another revision", "HASH"),
            "t": Letter("as a tree"),
            "d": Letter("with hashes"),
            "s": Letter("with sizes"),
            "e": Letter("with numbers of entries"),
        },
    ),
    "info": Verb(
        summary="Show what a manifest says; nothing of it is verified",
        words="-r PLACE",
        run=swissknife_actions.info,
        letters={
            "r": _PLACE, "u": Letter("mount point", "DIR"), "l": _LOG_LEVEL, "@": _PROXY,
            "L": _REDIRECTS,
            "c": Letter("root catalog hash"),
            "C": Letter("root catalog hash of the mount point"),
            "n": Letter("name"),
            "t": Letter("time stamp"),
            "m": Letter("may it be replicated?"),
            "v": Letter("revision"),
            "g": Letter("is it garbage collectable?"),
            "o": Letter("does it have a reflog?"),
            "e": Letter("is it empty?"),
            "X": Letter("is there external data at the mount point?"),
            "M": Letter("meta information"),
            "R": Letter("the manifest as it is"),
            "h": Letter("for people"),
        },
    ),
    "list_reflog": Verb(
        summary="List the hashes of all objects that the reflog leads to",
        words="-r PLACE -n FQRN",
        run=swissknife_actions.list_reflog,
        letters={
            "r": _PLACE, "n": _FQRN, "k": _KEYS, "@": _PROXY, "t": _TEMPORARY,
            "R": Letter("checksum of the reflog", "FILE"),
            "o": Letter("write there", "FILE"),
        },
    ),
    "filestats": Verb(
        summary="Make a database of what the files are made of",
        words="-r PLACE -o FILE",
        run=swissknife_actions.file_statistics,
        letters={
            "r": _PLACE, "n": _FQRN, "k": _KEYS, "@": _PROXY, "l": _TEMPORARY,
            "h": Letter("root hash of another revision", "HASH"),
            "o": Letter("the database", "FILE"),
        },
    ),
    "scrub": Verb(
        summary="Hash every stored file",
        words="-r DIR",
        run=storage_actions.scrub,
        letters={
            "r": Letter("the data directory", "DIR", to="--directory"),
            "m": Letter("machine readable", unused="there is one format"),
        },
    ),
    "tag_list": Verb(
        summary="List the tags",
        words="-w URL -f FQRN",
        run=swissknife_actions.list_tags,
        letters={
            "w": _PLACE, "f": _FQRN, "p": _KEYS, "@": _PROXY, "t": _TEMPORARY, "L": _REDIRECTS,
            "z": _CERTIFICATES,
            "x": Letter("machine readable"),
            "B": Letter("branches"),
        },
    ),
    "tag_info": Verb(
        summary="Show one tag",
        words="-w URL -f FQRN -n TAG",
        run=swissknife_actions.show_tag,
        letters={
            "w": _PLACE, "f": _FQRN, "p": _KEYS, "@": _PROXY, "t": _TEMPORARY, "L": _REDIRECTS,
            "z": _CERTIFICATES,
            "n": Letter("the tag", "TAG"),
            "x": Letter("machine readable"),
        },
    ),
}  # fmt: skip

_FILES: Final[Mapping[str, Verb]] = {
    "zpipe": Verb(
        summary="Compress stdin to stdout, in the format of objects",
        words=" ",
        run=storage_actions.zpipe,
        letters={"d": Letter("decompress")},
    ),
    "hash": Verb(
        summary="Hash stdin",
        words="-a ALGORITHM",
        run=storage_actions.hash_stdin,
        letters={
            "a": Letter("sha1, rmd160, shake128 or md5", "ALGORITHM"),
            "i": Letter("hash this text", "TEXT"),
            "f": Letter("as a fingerprint"),
            "s": Letter("also as two numbers (md5)"),
        },
    ),
    "graft": Verb(
        summary="Make a graft file",
        words="-i FILE",
        run=storage_actions.graft,
        letters={
            "i": Letter("what to graft: a file, a directory, - for stdin", "FILE"),
            "o": Letter("where it goes; without, the graft is printed", "FILE"),
            "v": Letter("tell what is done"),
            "Z": Letter("compression (none)", "ALGORITHM"),
            "c": Letter("chunk size in MB (24)", "N"),
            "a": Letter("hash algorithm (sha1)", "ALGORITHM"),
            "b": Letter("the hash of the whole, too, of a file in chunks"),
        },
    ),
    "letter": Verb(
        summary="Sign a text with a repository key, or verify one",
        words="-s|-v -f FQRN -k KEY",
        run=swissknife_actions.letter,
        letters={
            "s": Letter("sign"), "v": Letter("verify"), "f": _FQRN, "r": _PLACE, "@": _PROXY,
            "k": Letter("private key to sign, public master keys to verify", "FILE"),
            "c": Letter("certificate of the key", "FILE"),
            "a": Letter("hash algorithm (sha1)", "ALGORITHM"),
            "m": Letter("how old it may be (300)", "SECONDS"),
            "t": Letter("the text; else a line of stdin", "TEXT"),
            "p": Letter("password of the key", "TEXT"),
            "e": Letter("stay active"),
            "z": _CERTIFICATES,
        },
    ),
    "peek": Verb(
        summary="See whether a file is stored",
        words="-d NAME -r UPSTREAM",
        run=storage_actions.peek,
        letters={"d": Letter("its name", "NAME"), "r": _UPSTREAM},
    ),
    "upload": Verb(
        summary="Store a file",
        words="-i FILE -o NAME -r UPSTREAM",
        run=storage_actions.upload,
        letters={
            "i": Letter("local file", "FILE"), "o": Letter("its name", "NAME"), "r": _UPSTREAM,
            "a": Letter("hash algorithm", "ALGORITHM", unused="names are given"),
        },
    ),
    "remove": Verb(
        summary="Delete a stored file",
        words="-o NAME -r UPSTREAM",
        run=storage_actions.remove,
        letters={"o": Letter("its name", "NAME"), "r": _UPSTREAM},
    ),
    "version": Verb(
        summary="Print the version", names=Names.NONE, run=swissknife_actions.version
    ),
}  # fmt: skip

_REFUSED: Final[Mapping[str, str]] = {
    "create": "cvmfs_server mkfs",
    "sync": "cvmfs_server publish",
    "ingest": "cvmfs_server ingest",
    "dirtab": "cvmfs_server publish, which applies .cvmfsdirtab itself",
    "tag_edit": "cvmfs_server tag",
    "tag_rollback": "cvmfs_server rollback",
    "tag_empty_bin": "cvmfs_server gc",
    "sign": "cvmfs_server resign -p",
    "migrate": "cvmfs_server catalog-chown, eliminate-hardlinks, fix-stats",
    "gc": "cvmfs_server gc",
    "reconstruct_reflog": "cvmfs_server check -r",
    "diff": "cvmfs_server diff",
}
_LATER: Final = ("pull", "lease", "notify")

TOOL: Final = Tool(
    name="cvmfs_swissknife",
    title="CernVM-FS repository storage management commands",
    verbs={
        **_READING,
        **_FILES,
        **{
            name: Verb(summary="", refused=f"there is no such step here; use {instead}")
            for name, instead in _REFUSED.items()
        },
        **{name: Verb(summary="", refused="not there yet") for name in _LATER},
    },
    no_command=1,
    wrong_usage=1,
    version=swissknife_actions.VERSION,
)


def run(arguments: Sequence[str]) -> int:
    """Run a command line to its end and return the exit code; errors are printed."""
    return TOOL.run(arguments)


def main() -> None:
    """Entry point of the `cvmfs_swissknife` script."""
    use_existing_installation()
    sys.exit(run(sys.argv[1:]))
