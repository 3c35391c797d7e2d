"""A day of a stratum 0 as the original left it: its scripts and cron jobs, unchanged, as root.

All paths are the original's: a mount namespace of its own has `/etc/cvmfs`, `/srv/cvmfs`,
`/var/spool/cvmfs`, `/var/log` and `/cvmfs` in memory, and nothing stays of it.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.original_installation import install_tools, lay_out

pytestmark = pytest.mark.system

FQRN = "basic.golden.test"

_SETUP = """
set -e -o pipefail
mount --make-rprivate /
mount -t tmpfs tmpfs "$PLACE/upper"
mkdir "$PLACE/upper/up" "$PLACE/upper/work"
mount -t overlay overlay -o "lowerdir=/etc,upperdir=$PLACE/upper/up,workdir=$PLACE/upper/work" /etc
mount -t tmpfs tmpfs /srv
mount -t tmpfs tmpfs /var/spool
mount -t tmpfs tmpfs /var/log
mount --bind "$PLACE/cvmfs" "$CVMFS"
cp -a "$PLACE/world/etc/cvmfs" /etc/
cp -a "$PLACE/world/srv/cvmfs" /srv/
cp -a "$PLACE/world/var/spool/cvmfs" /var/spool/
"""

_DAY = r"""
R=basic.golden.test
say() { echo "== $*"; }
# after a reboot
cvmfs_server mount -a
say mounted $(cat /cvmfs/$R/added/in-v1.1 2>&1)
cvmfs_server mount $R
cvmfs_server transaction $R
umount -l /cvmfs/$R; umount -l /cvmfs/$R; umount -l /var/spool/cvmfs/$R/rdonly
cvmfs_server mount -a
touch /cvmfs/$R/still-open && cvmfs_server health-check -r $R > /dev/null
say resumed $(ls /cvmfs/$R | grep still-open)
cvmfs_server abort -f
# a look without a transaction
say enter $(cvmfs_server enter $R -- sh -c "touch /cvmfs/$R/x && ls /cvmfs/$R/x") \
  $(ls /cvmfs/$R | grep -c '^x$')
# the nightly build
cvmfs_server transaction $R
say transaction $(cvmfs_server list)
echo "built tonight" > /cvmfs/$R/nightly
mkdir -p /cvmfs/$R/new/deep && echo 1 > /cvmfs/$R/new/deep/f && touch /cvmfs/$R/new/.cvmfscatalog
rm -r /cvmfs/$R/many
mv /cvmfs/$R/README.txt /cvmfs/$R/README
cvmfs_server publish -v -a nightly-1 -m "nightly build" $R > /tmp/published.$$
say publish $(grep -c '^\[' /tmp/published.$$) changes; rm /tmp/published.$$
say content $(cat /cvmfs/$R/nightly) in $(cvmfs_server tag -x -i nightly-1 | cut -d' ' -f4,6-)
# rsync of a software area, with a nested catalog that is not in the source
cvmfs_server transaction $R
mkdir -p "$PLACE/src/deep"; echo 2 > "$PLACE/src/deep/f"
command -v rsync > /dev/null || cvmfs_rsync() { cp -a "$3." "$4"; }
cvmfs_rsync -a --delete "$PLACE/src/" /cvmfs/$R/new
cvmfs_rsync -a --delete "$PLACE/src/" /cvmfs/$R/newnested
cvmfs_server publish $R > /dev/null
say rsync $(cvmfs_server list-catalogs -x $R | grep /new)
# somebody gave up
cvmfs_server transaction $R
touch /cvmfs/$R/nonsense
cvmfs_server abort -f $R
say abort $(ls /cvmfs/$R | grep -c nonsense)
# hooks
cat > /etc/cvmfs/cvmfs_server_hooks.sh <<'HOOKS'
publish_before_hook() { echo "before $1" >> /var/log/hooks; }
publish_after_hook() { echo "after $1" >> /var/log/hooks; }
HOOKS
cvmfs_server transaction -T /new=/copy $R && cvmfs_server publish $R > /dev/null
say hooks $(cat /var/log/hooks)
say template $(cvmfs_server list-catalogs -x $R | grep /copy)
# tarballs
tar -C "$PLACE/src" -cf - . | cvmfs_server ingest -t - -b tarball -c $R > /dev/null
say ingest $(cvmfs_server list-catalogs -x $R | grep /tarball)
# cron
echo CVMFS_GARBAGE_COLLECTION=true >> /etc/cvmfs/repositories.d/$R/server.conf
cvmfs_server transaction $R && cvmfs_server publish $R > /dev/null
cvmfs_server resign '*'
cvmfs_server gc -r 1 -f $R > /dev/null
cvmfs_server gc -a -f
cvmfs_server check -a
cvmfs_server check -i $R > /dev/null
say logs $(grep -c "Finished $R" /var/log/cvmfs/gc.log) \
  $(grep -c "no problems" /var/log/cvmfs/checks.log)
say status $(grep -o '"check_status": "[a-z]*"' /srv/cvmfs/$R/.cvmfs_status.json)
# an accident and its remedy
cvmfs_server transaction $R && rm -r /cvmfs/$R/new && cvmfs_server publish $R > /dev/null
cvmfs_server rollback -f $R > /dev/null
cvmfs_server transaction $R
say rollback $(cat /cvmfs/$R/new/deep/f)
cvmfs_publish abort -f $R > /dev/null
say diff $(cvmfs_server diff -m -s nightly-1 $R | grep '^A D')
say list $(cvmfs_server list)
for place in /cvmfs/$R /var/spool/cvmfs/$R/rdonly; do
  while mountpoint -q $place; do umount -l $place; done
done
"""

_SAID = f"""\
== mounted new in 1.1
== resumed still-open
== enter /cvmfs/basic.golden.test/x 0
== transaction {FQRN} (stratum0 / local - in transaction)
== publish 9 changes
== content built tonight in 8 (default) nightly build
== rsync /new
== abort 0
== hooks before {FQRN} after {FQRN}
== template /copy
== ingest /tarball
== logs 1 1
== status "check_status": "succeeded"
== rollback 2
== diff A D /copy +4096 A D /copy/deep +4096 A D /newnested/deep +4096 A D /tarball +4096 \
A D /tarball/deep +4096
== list {FQRN} (stratum0 / local)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts an overlay at /cvmfs, as the original does")
def test_scripts_and_cron_jobs_run_unchanged(tmp_path: Path) -> None:
    lay_out(tmp_path / "world", moved=False)
    install_tools(tmp_path / "bin")
    for name in ("upper", "cvmfs"):
        (tmp_path / name).mkdir()
    (tmp_path / "cvmfs" / FQRN).mkdir()
    mountpoint = Path("/cvmfs")
    is_made = not mountpoint.exists()
    mountpoint.mkdir(exist_ok=True)
    environment = {
        "PATH": f"{tmp_path}/bin:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PLACE": str(tmp_path), "CVMFS": str(mountpoint), "HOME": "/root", "LC_ALL": "C.UTF-8",
    }  # fmt: skip
    try:
        ended = subprocess.run(
            ["unshare", "-m", "bash", "-c", _SETUP + _DAY],
            env=environment, cwd="/", capture_output=True, text=True, timeout=250, check=False,
        )  # fmt: skip
    finally:
        if is_made:
            mountpoint.rmdir()
    assert ended.returncode == 0, ended.stdout + ended.stderr
    said = [line for line in ended.stdout.splitlines() if line.startswith("== ")]
    assert said == _SAID.splitlines(), ended.stderr
