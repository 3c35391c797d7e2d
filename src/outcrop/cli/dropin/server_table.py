"""Every command of `cvmfs_server`: its letters, what they mean, what they become."""

from collections.abc import Mapping
from typing import Final

from outcrop.cli.dropin import actions, upkeep_actions
from outcrop.cli.dropin.options import Letter, Names, Verb

_NO_APACHE = "no web server is ever configured"
_NO_UNION = "overlayfs of the kernel, or none in a namespace, is chosen by itself"
_NO_CHANNELS = "channels of tags are gone since CernVM-FS 2.9"
_NO_GATEWAY = "this is about gateways"
_NO_PROXY = "the store is reached as its settings say!"
_STRATUM_1 = "replicas (stratum 1) are not there yet; this machine publishes only"

_COMPRESSIONS: Final = {"default": "balanced"}
_TABLES: Final = {"publish_statistics": "publish", "gc_statistics": "gc"}

_PUBLISHING: Final[Mapping[str, Verb]] = {
    "transaction": Verb(
        summary="Start to edit a repository",
        names=Names.MANY,
        outcrop=("transaction",),
        letters={
            "t": Letter("wait so long for another one to end", "SECONDS", to="--wait"),
            "T": Letter("begin with a copy of a directory", "/FROM=/TO", to="--template"),
            "r": Letter("retry if there is no lease", unused=_NO_GATEWAY),
            "e": Letter("the name is exact", unused=_NO_GATEWAY),
            "f": Letter("even if one is open", unused="one that is open stays as it is!"),
        },
    ),
    "publish": Verb(
        summary="Make a new repository snapshot",
        names=Names.MANY,
        run=actions.publish,
        letters={
            "a": Letter("name the snapshot", "TAG", to="--tag"),
            "m": Letter("describe the tag", "TEXT", to="--message"),
            "n": Letter("revision number", "N", to="--revision"),
            "v": Letter("print what changes", to="--print-changes"),
            "X": Letter("force external data", to="--external"),
            "N": Letter("force native data", to="--native"),
            "Z": Letter("compression", "ALGORITHM", to="--compression", values=_COMPRESSIONS),
            "f": Letter("also while files are open", to="--force"),
            "c": Letter("tag channel", "CHANNEL", unused=_NO_CHANNELS),
            "d": Letter("direct I/O", unused="files are not marked for direct I/O!"),
            "e": Letter("no checks", unused="nothing is checked that could be left out"),
            "p": Letter("pause for tweaks", unused="catalogs cannot be edited by hand!"),
            "F": Letter("authorization", "FILE", unused="CVMFS_VOMS_AUTHZ says it!"),
        },
    ),
    "abort": Verb(
        summary="Abort transaction and return to the state before",
        names=Names.MANY,
        run=actions.abort,
        letters={"f": Letter("do not ask, mind no open files")},
    ),
    "ingest": Verb(
        summary="Extract a tarball inside a directory; delete directories in the same transaction",
        words="FQRN",
        run=actions.ingest,
        long={
            "tar_file": "t", "base_dir": "b", "delete": "d", "catalog": "c", "user": "u",
            "group": "g", "keep-ownership": "k",
        },
        letters={
            "t": Letter("tarball; - is stdin", "FILE", to="--tar-file"),
            "b": Letter("base directory", "PATH", to="--base-dir"),
            "d": Letter("what to delete first; may be repeated", "PATH", to="--delete"),
            "c": Letter("make the base directory a nested catalog", to="--catalog"),
            "u": Letter("owner of everything", "USER", to="--user"),
            "g": Letter("group of everything", "GROUP", to="--group"),
            "k": Letter("owners as in the tarball", to="--keep-ownership"),
        },
    ),
    "enter": Verb(
        summary="Open an ephemeral writable shell",
        words="FQRN [-- COMMAND...]",
        run=actions.enter,
        long={
            "stratum0": "w", "cvmfs2": "c", "cvmfs-config": "C", "root": "r",
            "keep-session": "k", "keep-logs": "l", "transaction": "t", "repo-config": "x",
        },
        letters={
            "t": Letter("publish what is changed, if one wants to, at the end"),
            "w": Letter("read it from there", "URL"),
            "C": Letter("more client settings", "FILE", unused="-o of outcrop enter sets them!"),
            "k": Letter("keep the changes", unused="outcrop enter --session DIR keeps them!"),
            "r": Letter("fake root", unused="whoever enters owns everything there"),
            "c": Letter("client to use", "PATH", unused="the client is part of this tool"),
            "l": Letter("keep logs", unused="there are none"),
            "x": Letter("gateway settings", "FILE", unused=_NO_GATEWAY),
        },
    ),
    "rollback": Verb(
        summary="Publish a tag, or what was before, as the latest revision",
        run=actions.rollback,
        letters={
            "t": Letter("tag to go back to", "TAG", to="--tag"),
            "f": Letter("do not ask"),
        },
    ),
    "tag": Verb(
        summary="Create and manage named snapshots",
        run=actions.tag,
        letters={
            "a": Letter("create (or, with -h, move) a tag", "NAME", to="--add"),
            "m": Letter("describe it", "TEXT", to="--message"),
            "h": Letter("root hash of what to name", "HASH", to="--hash"),
            "r": Letter("remove a tag; may be repeated", "NAME"),
            "f": Letter("do not ask"),
            "i": Letter("inspect a tag", "NAME", to="--inspect"),
            "b": Letter("list the branch hierarchy", to="--branches"),
            "l": Letter("list tags", to="--list"),
            "x": Letter("machine readable", to="--machine"),
            "c": Letter("channel", "CHANNEL", unused=_NO_CHANNELS),
        },
    ),
    "checkout": Verb(
        summary="Publish to a branch from now on; without options, to the trunk",
        outcrop=("checkout",),
        letters={
            "t": Letter("tag where a new branch begins", "TAG", to="--tag"),
            "b": Letter("branch", "NAME", to="--branch"),
        },
    ),
    "diff": Verb(
        summary="Show the change set between two snapshots (default: the last publish)",
        words="[FQRN|URL]",
        run=actions.diff,
        long={
            "keychain": "k", "machine-readable": "m", "from": "s", "to": "d", "worktree": "w",
            "header": "h", "ignore-timediff": "i",
        },
        letters={
            "m": Letter("machine readable", to="--machine-readable"),
            "h": Letter("header line", to="--header"),
            "s": Letter("source tag, or @HASH", "TAG"),
            "d": Letter("destination tag, or @HASH", "TAG"),
            "w": Letter("what the open transaction would publish"),
            "i": Letter("times do not matter", to="--ignore-timediff"),
            "k": Letter("where the public keys are", "DIR"),
        },
    ),
}  # fmt: skip

_UPKEEP: Final[Mapping[str, Verb]] = {
    "gc": Verb(
        summary="Remove unreferenced data from garbage collectable repositories",
        names=Names.MANY,
        all_letter="a",
        run=upkeep_actions.collect,
        letters={
            "r": Letter("revisions to preserve", "N", to="--keep"),
            "t": Letter("preserve revisions since then", "TIME", to="--since"),
            "l": Letter("print deleted objects", to="--list"),
            "L": Letter("log of deleted objects", "FILE", to="--log"),
            "f": Letter("do not ask"),
            "d": Letter("dry run", to="--dry-run"),
            "a": Letter("all collectable repositories, logged in gc.log"),
            "@": Letter("on the gateway itself", unused=_NO_GATEWAY),
        },
    ),
    "check": Verb(
        summary="Check if the repository is sane",
        all_letter="a",
        run=upkeep_actions.check,
        letters={
            "c": Letter("do not look for data objects", to="--catalogs"),
            "i": Letter("read all stored files, too"),
            "t": Letter("this tag instead of the trunk", "TAG", to="--tag"),
            "s": Letter("only below this nested catalog", "PATH", to="--subtree"),
            "r": Letter("rebuild a reflog that is missing or damaged"),
            "a": Letter("all not checked for CVMFS_CHECK_ALL_MIN_DAYS, logged in checks.log"),
        },
    ),
    "resign": Verb(
        summary="Sign the whitelist anew, or with -p .cvmfspublished",
        names=Names.MANY,
        run=upkeep_actions.resign,
        letters={
            "d": Letter("days until expiration (30; from a smart card 7)", "N"),
            "f": Letter("do not ask"),
            "p": Letter("sign .cvmfspublished"),
            "w": Letter("a whitelist on this disk instead", "FILE"),
        },
    ),
    "masterkeycard": Verb(
        summary="Keep the master key on a smart card",
        words="[FQRN]",
        run=upkeep_actions.masterkeycard,
        letters={
            "a": Letter("is there a card?"),
            "k": Letter("is there a key on it?"),
            "r": Letter("print its public key"),
            "s": Letter("store the master key of FQRN on it"),
            "d": Letter("delete the key on it"),
            "c": Letter("have FQRN use the card from now on, and remove its master key"),
            "f": Letter("do not ask"),
        },
    ),
    "list-catalogs": Verb(
        summary="Print a full list of all nested catalogs of a repository",
        run=actions.list_catalogs,
        letters={
            "s": Letter("catalog sizes"),
            "e": Letter("catalog entry counts"),
            "h": Letter("catalog hashes"),
            "x": Letter("machine readable"),
        },
    ),
    "info": Verb(
        summary="Print summary about the repository",
        words="[FQRN|URL]",
        run=actions.info,
        long={"keychain": "k", "meta-info": "m"},
        letters={
            "m": Letter("the meta information, too"),
            "k": Letter("where the public keys are", "DIR"),
        },
    ),
    "list": Verb(summary="List available repositories", names=Names.NONE, run=actions.list_all),
    "catalog-chown": Verb(
        summary="Bulk change of the ownership ids in catalogs",
        outcrop=("chown",),
        letters={
            "u": Letter("map of user ids", "FILE", to="--uid-map"),
            "g": Letter("map of group ids", "FILE", to="--gid-map"),
        },
    ),
    "eliminate-hardlinks": Verb(
        summary="Break hard links up",
        run=upkeep_actions.eliminate_hardlinks,
        letters={"f": Letter("do not ask")},
    ),
    "eliminate-bulk-hashes": Verb(
        summary="Remove hashes of whole files from chunked ones",
        run=upkeep_actions.eliminate_bulk_hashes,
        letters={"f": Letter("do not ask")},
    ),
    "fix-stats": Verb(
        summary="Count all catalogs anew",
        outcrop=("fix-stats",),
        letters={"f": Letter("do not ask", unused="nothing is asked")},
    ),
    "mount": Verb(
        summary="Mount repositories in /cvmfs, for instance after reboot",
        names=Names.MANY,
        all_letter="a",
        run=upkeep_actions.mount,
        letters={"a": Letter("all")},
    ),
    "health-check": Verb(
        summary="See whether a repository can be published to",
        run=upkeep_actions.health_check,
        letters={
            "q": Letter("print nothing"),
            "r": Letter("mount what a crash left open"),
            "g": Letter("gateway", unused=_NO_GATEWAY),
            "t": Letter("in a transaction", unused="it is found out"),
            "f": Letter("force", unused="nothing is in the way"),
        },
    ),
    "print-stats": Verb(
        summary="Print statistics of publishes and garbage collections",
        names=Names.ONE,
        run=upkeep_actions.print_statistics,
        letters={
            "o": Letter("write there", "FILE", to="--output"),
            "t": Letter("publish_statistics, gc_statistics", "TABLE", to="--table", values=_TABLES),
            "s": Letter("what is between values (|)", "CHARACTER", to="--separator"),
        },
    ),
    "merge-stats": Verb(
        summary="Merge two statistics databases",
        words="DATABASE DATABASE",
        run=upkeep_actions.merge_statistics,
        letters={"o": Letter("the new database (output.db)", "FILE")},
    ),
}

_REPOSITORIES: Final[Mapping[str, Verb]] = {
    "mkfs": Verb(
        summary="Create a new repository with a given name",
        names=Names.NEW,
        run=actions.mkfs,
        letters={
            "w": Letter("stratum 0 URL", "URL", to="--url"),
            "u": Letter("upstream storage", "UPSTREAM", to="--storage"),
            "o": Letter("who will publish", "USER", to="--owner"),
            "m": Letter("replicable (the default)", to="--replicable"),
            "f": Letter("union file system", "TYPE", unused=_NO_UNION),
            "s": Letter("S3 settings", "FILE", to="--s3-settings"),
            "g": Letter("disable auto tags", to="--no-auto-tag"),
            "G": Letter("how long auto tags are kept", "TIME", to="--auto-tag-timespan"),
            "a": Letter("hash algorithm", "ALGORITHM", to="--hash"),
            "z": Letter("enable garbage collection", to="--gc"),
            "v": Letter("volatile content", to="--volatile"),
            "Z": Letter("compression", "ALGORITHM", to="--compression", values=_COMPRESSIONS),
            "k": Letter("existing keys", "DIR", to="--keys"),
            "X": Letter("external data", to="--external"),
            "p": Letter("no Apache configuration", unused=_NO_APACHE),
            "P": Letter("no mount", unused="nothing is mounted before a transaction"),
            "x": Letter("proxy", "URL", unused=_NO_PROXY),
            "R": Letter("require a smart card: refused, see masterkeycard"),
            "V": Letter("VOMS authorization: refused, see CVMFS_VOMS_AUTHZ", "MEMBERSHIP"),
        },
    ),
    "import": Verb(
        summary="Make this machine the stratum 0 of a stored repository",
        names=Names.NEW,
        run=actions.import_stored,
        letters={
            "w": Letter("stratum 0 URL", "URL", to="--stratum0-url"),
            "o": Letter("who will publish", "USER"),
            "u": Letter("upstream storage", "UPSTREAM", to="--storage"),
            "k": Letter("where the keys are", "DIR", to="--keys"),
            "r": Letter("recreate the whitelist"),
            "t": Letter("recreate repository key and certificate"),
            "m": Letter("allow replication"),
            "g": Letter("give the stored files to the owner"),
            "l": Letter("repository of CernVM-FS 2.0: refused"),
            "R": Letter("recreate the whitelist with a smart card: refused"),
            "s": Letter("statistics of a migration", unused="nothing is migrated"),
            "c": Letter("file ownership", "UID:GID", unused="files keep their owners!"),
            "f": Letter("union file system", "TYPE", unused=_NO_UNION),
            "p": Letter("no Apache configuration", unused=_NO_APACHE),
            "x": Letter("proxy", "URL", unused=_NO_PROXY),
        },
    ),
    "rmfs": Verb(
        summary="Remove the repository; its keys stay",
        names=Names.MANY,
        run=actions.remove,
        letters={
            "p": Letter("preserve its data", to="--keep-data"),
            "f": Letter("do not ask"),
        },
    ),
    "alterfs": Verb(
        summary="Allow or forbid replication",
        outcrop=("alterfs",),
        letters={"m": Letter("on or off", "SWITCH", to="--replicable")},
    ),
    "migrate": Verb(
        summary="Migrate a repository to the current version",
        names=Names.MANY,
        run=upkeep_actions.migrate,
    ),
    "update-info": Verb(
        summary="Update repositories.json, and edit meta.json",
        names=Names.NONE,
        run=actions.update_info,
        letters={
            "e": Letter("do not edit"),
            "p": Letter("no Apache configuration", unused=_NO_APACHE),
        },
    ),
    "update-repoinfo": Verb(
        summary="Edit the meta information of a repository",
        run=actions.update_repoinfo,
        letters={"f": Letter("take it from there", "FILE", to="--from")},
    ),
    "add-replica": Verb(summary="", refused=_STRATUM_1),
    "snapshot": Verb(summary="", refused=_STRATUM_1),
    "update-geodb": Verb(summary="", refused=_STRATUM_1),
    "connect-gw": Verb(summary="", refused="gateways are not there yet"),
    "ingestsql": Verb(summary="", refused="there is nothing like it here; publish a tarball"),
    "fix-permissions": Verb(
        summary="", refused="not needed: no program of this tool has special permissions"
    ),
    "skeleton": Verb(summary="", refused="not needed: directories are made when they are used"),
}

VERBS: Final[Mapping[str, Verb]] = {**_REPOSITORIES, **_PUBLISHING, **_UPKEEP}
ALIASES: Final = {"list-tags": "tag", "lstags": "tag", "lsrepo": "list-catalogs"}
