#!/bin/sh
# First process of fresh namespaces: lays a throw-away overlay over the host's root, then becomes systemd.
#
# Given by machine.py in the environment:
#   M_SCRATCH   an empty folder: here the new root is put together
#   M_CGROUPS   "DIRECTORY=HIERARCHY" words, one for each cgroup hierarchy of the host
#   M_BINDS     "SOURCE=DESTINATION" words, mounted read-only
#   M_WRITABLE  the same, mounted as they are
set -eu

if [ "${1:-}" != inside ]; then
    # systemd moves all it finds in its root cgroup elsewhere, so it gets one of its own in every
    # hierarchy, and only then a cgroup namespace, whose root these become.
    for pair in $M_CGROUPS; do echo 0 > "${pair%%=*}/cgroup.procs"; done
    exec unshare --cgroup sh "$0" inside
fi

mount --make-rprivate /
mount -t tmpfs -o mode=755,size=1g machine "$M_SCRATCH"
cd "$M_SCRATCH"
mkdir upper work root
mount -t overlay -o "lowerdir=/,upperdir=$PWD/upper,workdir=$PWD/work" machine root
cd root

mount -t proc -o nosuid,nodev,noexec proc proc
mount -t sysfs -o ro,nosuid,nodev,noexec sysfs sys
for pair in $M_CGROUPS; do
    name=${pair#*=}
    if [ "$name" = pure ]; then mount -t cgroup2 cgroup2 sys/fs/cgroup; continue; fi
    [ -e sys/fs/cgroup/.v1 ] || { mount -t tmpfs -o mode=755 tmpfs sys/fs/cgroup; : > sys/fs/cgroup/.v1; }
    place=sys/fs/cgroup/${name#name=}
    mkdir "$place"
    case $name in
        unified) mount -t cgroup2 cgroup2 "$place" ;;
        name=*) mount -t cgroup -o "none,$name" cgroup "$place" ;;
        *) mount -t cgroup -o "$name" cgroup "$place" ;;
    esac
done

# A /dev of its own: the harmless nodes of the host's, its own terminals and shared memory.
mount -t tmpfs -o mode=755,nosuid,size=4m tmpfs dev
for node in null zero full random urandom tty; do : > dev/$node; mount --bind /dev/$node dev/$node; done
mkdir dev/pts dev/shm dev/mqueue
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts dev/pts
mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs dev/shm
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
for n in 0:stdin 1:stdout 2:stderr; do ln -s "/proc/self/fd/${n%:*}" "dev/${n#*:}"; done
: > dev/console
mount --bind /dev/null dev/console

mount -t tmpfs -o mode=755,nosuid,nodev tmpfs run
mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs tmp
mkdir run/lock

for pair in $M_BINDS $M_WRITABLE; do
    to=.${pair#*=}
    mkdir -p "$to"
    mount --bind "${pair%%=*}" "$to"
done
for pair in $M_BINDS; do mount -o remount,bind,ro ".${pair#*=}"; done

# Nothing of the host's own services, nothing that reaches for the kernel's settings.
rm -f .dockerenv          # systemd would think itself in docker, and leave / unshared
: > etc/fstab
: > etc/machine-id
units=etc/systemd/system
rm -rf "$units"/*.wants "$units"/*.service "$units"/*.timer "$units"/*.socket "$units"/atlas*
mkdir -p "$units" etc/systemd/journald.conf.d etc/systemd/system.conf.d
for unit in systemd-remount-fs.service systemd-sysctl.service systemd-modules-load.service \
    kmod-static-nodes.service systemd-binfmt.service proc-sys-fs-binfmt_misc.automount \
    sys-kernel-config.mount sys-kernel-debug.mount sys-kernel-tracing.mount \
    sys-fs-fuse-connections.mount dev-hugepages.mount dev-mqueue.mount systemd-timesyncd.service \
    systemd-logind.service systemd-udevd.service systemd-udev-trigger.service \
    systemd-udevd-kernel.socket systemd-udevd-control.socket systemd-initctl.socket \
    systemd-ask-password-wall.path systemd-ask-password-console.path systemd-networkd.service \
    systemd-resolved.service systemd-journald-audit.socket systemd-update-utmp.service \
    systemd-random-seed.service systemd-machine-id-commit.service systemd-firstboot.service \
    systemd-pstore.service systemd-tmpfiles-setup-dev.service timers.target; do
    ln -sfn /dev/null "$units/$unit"
done
printf '[Journal]\nStorage=volatile\nReadKMsg=no\nAudit=no\nRateLimitIntervalSec=0\n' \
    > etc/systemd/journald.conf.d/machine.conf
printf '[Manager]\nShowStatus=no\n' > etc/systemd/system.conf.d/machine.conf
hostname machine

mkdir .host
pivot_root . .host
systemd=/usr/lib/systemd/systemd
[ -x $systemd ] || systemd=/lib/systemd/systemd
exec chroot . /bin/sh -c '
    umount -l /.host
    rmdir /.host
    mount --make-rshared /    # as a container manager would: LoadCredential= and the like need it
    exec setpriv --bounding-set=-sys_time,-sys_module,-sys_rawio,-sys_boot,-wake_alarm \
        env -i container=atlasd-tests LANG=C.UTF-8 \
        PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        "$0" --system --unit=basic.target --log-target=journal' "$systemd"
