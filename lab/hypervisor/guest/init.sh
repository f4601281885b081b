#!/bin/busybox sh
# The first process of every guest (initramfs.py packs it as /init). What it does next its user space decides:
#
# image:  stays PID 1, makes the image the application's root, starts it.
# debian: mounts Debian's disk and hands over to its systemd, as any distribution's initramfs does.
#
# Once /proc is there busybox's shell finds its own applets without a PATH. The host times the lines that begin with
# "lab:" on the console and the words written to the marks port; nothing here reads a clock.

echo "lab: init"
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
cd /run/lab || exit 1
. ./machine/settings
. ./lab.sh

/bin/busybox mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
require_timer
for module in $MODULES; do
    insmod "modules/$module.ko" || fail "module $module can't be loaded"
done
rm -r modules
await_ports

if [ "$USER_SPACE" = debian ]; then
    mount -t ext4 "$(disk lab-os)" /root || fail "Debian's disk can't be mounted"
    mount -t tmpfs -o mode=755,nosuid,nodev run /root/run
    cp -a /run/lab /root/run/lab
    mkdir -p /root/run/systemd
    cp -a machine/systemd/. /root/run/systemd
    echo "$MACHINE_ID" >/root/etc/machine-id
    echo "$HOSTNAME" >/root/etc/hostname
    mount --move /dev /root/dev
    umount /proc /sys
    exec /bin/busybox switch_root /root /sbin/init
    fail "Debian's init can't be executed"
fi

hostname "$HOSTNAME"
mkdir -p scratch
mount -t ext4 "$(disk lab-scratch)" scratch || fail "the scratch disk can't be mounted"
mount_image /run/lab/scratch
ip link set lo up
if [ -n "$ADDRESS" ]; then
    ip address add "$ADDRESS" dev eth0
    ip link set eth0 up
fi
if [ -n "$PIDS_MAX" ]; then
    mkdir -p cgroup
    mount -t cgroup2 cgroup cgroup
    echo +pids >cgroup/cgroup.subtree_control
    mkdir cgroup/application
    echo "$PIDS_MAX" >cgroup/application/pids.max
fi

start_relay
await_executed
# In the foreground, for a shell's background jobs ignore SIGINT. handover.py wrote the application's whole command,
# with its environment and user.
sh machine/application </dev/null >output 2>errors
tell_end $?
reboot -f # which ends QEMU: without the application the machine has no purpose
