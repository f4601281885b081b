# Functions that init.sh and, in a Debian, the units of handover.py share. For busybox's shell.
# The ports' numbers are assigned in domain.py (Port); the last two are for the scripts of handover.py.

MARKS=/dev/vport0p1
ORDERS=/dev/vport0p2
OUTPUT=/dev/vport0p3
ERRORS=/dev/vport0p4
SESSIONS=/dev/vport0p5
INPUT=/dev/vport0p6 # there only when somebody types to the application

fail() { # MESSAGE: say so on the console and die; the kernel then panics, which ends the machine
    echo "lab: failed: $1" >/dev/console
    exit 1
}

mark() { # WORDS: the host stamps the line when it arrives. Another mark's writer may have the port, which opens only once
    until echo "$1" >$MARKS; do usleep 1000; done 2>/dev/null
}

# The kernel measures the processor's timer for a tenth of a second. Where the host stands still for all of it, it gives
# that timer up; a machine without another one (TIMER) would never end a sleep from here on.
require_timer() {
    [ -n "$TIMER" ] || return 0
    read -r timer </sys/devices/system/clockevents/clockevent0/current_device
    case $timer in
    "$TIMER"*) ;;
    *) fail "the host stood still while the kernel measured the processor's timer, and there is no other: start it again" ;;
    esac
}

await_ports() { # the device announces its ports one by one after its driver was loaded
    until set -- /dev/vport*p$PORTS && [ -c "$1" ]; do usleep 500; done
    # In vportMpN the M counts virtio devices, and on PCI a network card comes before the ports.
    for port in $(seq 1 "$PORTS"); do
        [ -c "/dev/vport0p$port" ] || ln -s "${1%p*}p$port" "/dev/vport0p$port"
    done
}

disk() { # SERIAL: print the device of the disk that carries it
    for block in /sys/block/vd*; do
        if [ "$(cat "$block/serial")" = "$1" ]; then
            echo "/dev/${block##*/}"
            return
        fi
    done
    fail "no disk $1"
}

mount_image() { # LAYER: the image below the writable layer in LAYER, at /run/lab/image
    cd /run/lab || exit 1
    mkdir -p lower image
    . ./machine/settings
    mount -t "$IMAGE_TYPE" -o ro "$(disk lab-image)" lower || fail "the image's disk can't be mounted"
    # The merged root shows the upper directory's own mode and owner.
    layer=$1
    set -- $(stat -c "%a %u:%g" lower)
    chmod "$1" "$layer/upper"
    chown "$2" "$layer/upper"
    mount -t overlay -o "lowerdir=lower,upperdir=$layer/upper,workdir=$layer/work" overlay image ||
        fail "the image can't be mounted"
    mkdir -p image/proc image/sys image/dev image/.lab
    mount -t proc -o nosuid,nodev,noexec proc image/proc
    mount -t sysfs -o nosuid,nodev,noexec sys image/sys
    mount -t devtmpfs dev image/dev
    mkdir -p image/dev/pts image/dev/shm
    mount -t devpts -o mode=620,gid=5,ptmxmode=666 devpts image/dev/pts
    mount -t tmpfs -o mode=1777,nosuid,nodev shm image/dev/shm
    for name in fd:/proc/self/fd stdin:/proc/self/fd/0 stdout:/proc/self/fd/1 stderr:/proc/self/fd/2; do
        [ -e "image/dev/${name%%:*}" ] || ln -s "${name#*:}" "image/dev/${name%%:*}"
    done
    mount -o bind helper image/.lab
    mount -o remount,bind,ro image/.lab
    if [ -d image/etc ]; then # through the overlay, so that /etc keeps its mode and owner
        rm -f image/etc/hostname image/etc/hosts image/etc/resolv.conf # a link may lead out of the image
        cp machine/etc/hostname machine/etc/hosts machine/etc/resolv.conf image/etc
    fi
}

# The application writes to FIFOs, not to the ports: a port opens only once, but /dev/stdout may be opened again.
start_relay() {
    cd /run/lab || exit 1
    mkfifo output errors
    chown "$OWNER" output errors
    helper/inside relay output errors $OUTPUT $ERRORS >relayed &
    echo $! >relay
}

drain_relay() { # until the ports have all output, or after a second, if a stray process keeps a FIFO open, what is in it
    tries=0
    while [ $tries -lt 100 ] && lives relay; do
        usleep 10000
        tries=$((tries + 1))
    done
    ! lives relay || kill "$(cat relay)"
    while lives relay; do usleep 10000; done
}

lives() { # NAME of the file that has its process id
    kill -0 "$(cat "/run/lab/$1")" 2>/dev/null
}

# Only the host knows what the ports' queues still hold, which the machine's end would empty: it is told how many bytes
# of output there are, and orders the end when it has them.
tell_end() { # EXIT-CODE
    cd /run/lab || exit 1
    drain_relay
    touch ended
    mark "exited $1 $(cat relayed)"
    while lives orders; do usleep 1000; done
}

# The application's init holds this FIFO open until the execve(2) has happened: then comes end-of-file, or before it
# the errno of why it has not.
await_executed() {
    mkfifo /run/lab/status
    (
        read -r errno </run/lab/status
        if [ -z "$errno" ]; then mark executed; else mark "failed $errno"; fi
        obey_orders
    ) &
    echo $! >/run/lab/orders
}

# The host's orders, a line each. They break off when lab is killed, until another lab takes over; if the application
# has ended by then, there is nothing to take over.
obey_orders() {
    while :; do
        while read -r order argument; do
            case $order in
            signal) signal_application "$argument" ;;
            sessions) start_sessions "$argument" ;;
            wake) wake $argument ;;
            end) return ;;
            esac
        done <$ORDERS
        [ ! -e /run/lab/ended ] || return
        sleep 1
    done
}

wake() { # ADDRESS MAC HOSTNAME NANOSECONDS SEED: saved as another machine, this one goes on; "-": has none
    printf %s "$5" | /run/lab/helper/inside renew "$4"
    hostname "$3"
    if [ -d /run/lab/image/etc ]; then
        echo "$3" >/run/lab/image/etc/hostname
        sed -i "3s/.*/${1%/*}\t$3/" /run/lab/image/etc/hosts
    fi
    mark woken
    [ "$1" != - ] || return
    for card in /sys/class/net/*; do card=${card##*/} && [ "$card" != lo ] && break; done
    ip address flush dev "$card"
    ip link set "$card" address "$2"
    ip address add "$1" dev "$card"
}

signal_application() { # NUMBER: to its init, which passes it on, unless it has just ended
    kill "-$1" "$(cat /run/lab/pid)" 2>/dev/null
}

start_sessions() { # WORD: serve commands, and begin with that word, when somebody first asks: nothing is in the boot path
    echo "$1" >/run/lab/word
    if [ -d /run/systemd/system ]; then
        systemctl restart --no-block lab-sessions.service </dev/null # standard input is the host's orders
    else
        [ -z "$sessions" ] || kill -9 "$sessions" 2>/dev/null # it has ended, if its client has
        sh /run/lab/machine/serve </dev/null >/dev/null 2>&1 &
        sessions=$!
    fi
}

tell_exit() { # what systemd says of the application's end (systemd.exec(5), "$MONITOR_EXIT_CODE"), as an exit code
    case $MONITOR_EXIT_CODE:$MONITOR_EXIT_STATUS in
    exited:*) code=$MONITOR_EXIT_STATUS ;;
    killed:* | dumped:*) code=$((128 + $(kill -l "$MONITOR_EXIT_STATUS"))) ;;
    *) code=125 ;; # it was never started
    esac
    tell_end "$code"
}
