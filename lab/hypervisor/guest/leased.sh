#!/bin/busybox sh
# What udhcpc calls when it got an address (bootdisk.py packs it as /lab/leased): the variables are its own.

[ "$1" = bound ] || exit 0
ip address add "$ip/$mask" dev "$interface"
for each in $router; do
    ip route add default via "$each"
    break
done
[ -z "$dns" ] || for each in $dns; do echo "nameserver $each"; done >/lab/resolv.conf
