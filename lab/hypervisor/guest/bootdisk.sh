#!/bin/busybox sh
# The first process of a machine that boots from a disk lab made (bootdisk.py packs it as /init): makes the image's
# partition the root, starts the image's command on the console, and switches the machine off when that ends.

export PATH=/usr/sbin:/usr/bin:/sbin:/bin
/bin/busybox mkdir -p /proc /sys /dev /root /bin
/bin/busybox mount -t proc proc /proc
/bin/busybox --install -s /bin
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
cd /lab || exit 1
. ./settings

fail() {
    echo "lab: failed: $1" >/dev/console
    sleep 1
    poweroff -f
}

for module in $MODULES; do
    insmod "modules/$module.ko" || fail "module $module can't be loaded"
done
for module in $POWER_BUTTON_MODULES; do
    insmod "modules/$module.ko" 2>/dev/null # not every machine has a button
done
acpid -f -c /lab/acpi -l /dev/null 2>/dev/null &
tries=0
until root=$(findfs LABEL=image 2>/dev/null); do
    tries=$((tries + 1))
    [ $tries -lt 100 ] || fail "the image's partition is on no virtio disk: -drive file=DISK,if=virtio"
    usleep 100000
done
mount -t ext4 -o rw "$root" /root || fail "the image's partition can't be mounted"

mkdir -p /root/proc /root/sys /root/dev /root/tmp /root/run
mount -t proc -o nosuid,nodev,noexec proc /root/proc
mount -t sysfs -o nosuid,nodev,noexec sys /root/sys
mount --move /dev /root/dev
mkdir -p /root/dev/pts /root/dev/shm
mount -t devpts -o mode=620,gid=5,ptmxmode=666 devpts /root/dev/pts
mount -t tmpfs -o mode=1777,nosuid,nodev shm /root/dev/shm
for name in fd:/proc/self/fd stdin:/proc/self/fd/0 stdout:/proc/self/fd/1 stderr:/proc/self/fd/2; do
    [ -e "/root/dev/${name%%:*}" ] || ln -s "${name#*:}" "/root/dev/${name%%:*}"
done
mkdir -p /root/.lab
mount -t tmpfs -o mode=755 lab /root/.lab
cp inside /root/.lab/inside
mount -o remount,ro /root/.lab

hostname "$HOSTNAME"
ip link set lo up
echo "nameserver 10.0.2.3" >resolv.conf
if [ -e /sys/class/net/eth0 ]; then
    ip link set eth0 up
    # Where nobody answers: what QEMU's user network, without its own DHCP, gives to everybody (qemu(1), -nic user).
    udhcpc -i eth0 -n -q -t 3 -T 1 -s /lab/leased >/dev/null 2>&1 || {
        ip address add 10.0.2.15/24 dev eth0
        ip route add default via 10.0.2.2
    }
fi
if [ -d /root/etc ]; then
    [ -s /root/etc/resolv.conf ] || { rm -f /root/etc/resolv.conf; cp resolv.conf /root/etc/resolv.conf; }
    [ -s /root/etc/hosts ] || { rm -f /root/etc/hosts; printf '127.0.0.1\tlocalhost\n' >/root/etc/hosts; }
    [ -s /root/etc/hostname ] || { rm -f /root/etc/hostname; echo "$HOSTNAME" >/root/etc/hostname; }
fi

echo "lab: starting $NAME" >/root/dev/console
# The terminal behind /dev/console, which itself can't be a controlling one: a shell wants job control.
tty=$(sed 's/.* //' /sys/class/tty/console/active)
[ "$tty" != tty0 ] || tty=tty1
setsid sh -c "echo \$\$ >/lab/starting; mv /lab/starting /lab/pid; exec sh /lab/application <>/root/dev/$tty >&0 2>&0"
echo "lab: $NAME ended with $?" >/root/dev/console
kill -s KILL -1 # whoever still writes to the image's files
sync
umount /root/.lab /root/dev/shm /root/dev/pts /root/proc /root/sys 2>/dev/null
mount -o remount,ro /root
poweroff -f
