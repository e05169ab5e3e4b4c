#!/bin/busybox sh
# The first program of a machine that tests memprof on its kernel. Its steps are judged by whoever reads the serial line.
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tracefs tracefs /sys/kernel/tracing
echo 1 > /proc/sys/kernel/printk
export PATH=/bin:/usr/bin HOME=/tmp

echo "==== kernel"
uname -r
echo "==== doctor"
memprof doctor
echo "==== ledger"
memprof run -o /tmp/ledger.bin -- ledger 300 2>&1
echo "==== ledger stats"
memprof stats --json /tmp/ledger.bin
echo "==== python"
cat > /tmp/work.py <<'END'
def inner():
    return [bytearray(100_000) for _ in range(20)]
def outer():
    return inner()
kept = outer()
END
memprof run -q --native -o /tmp/python.bin -- python3 -S -E /tmp/work.py 2>&1
memprof tree /tmp/python.bin | cat

# Every process of the host: two that are there, of two users, and one that comes later.
echo "==== host"
mkfifo /tmp/a.in /tmp/b.in /tmp/c.in
exec 5<>/tmp/a.in 6<>/tmp/b.in 7<>/tmp/c.in
start() {
    python3 -S -E -c "import os; os.setuid($2); os.execv('/bin/allocators', ['allocators', '20'])" <&$3 >/tmp/$1.out &
    eval "pid_$1=$!"
    said /tmp/$1.out ready
}
# Waits until a file says something, but not for ever: what has failed is then seen in what was printed.
said() {
    for second in $(seq 60); do
        grep -q "$2" "$1" && return
        sleep 1
    done
    echo "nothing says $2:"
    cat "$1"
    echo "===="
    poweroff -f
}
start a 0 5
start b 1000 6
memprof attach --all --no-stacks -o /captures >/tmp/memprof.out 2>&1 &
memprof=$!
said /tmp/memprof.out "of those selected"
start c 1000 7
said /tmp/memprof.out "tracing process $pid_c"
for fd in 5 6 7; do echo begin >&$fd; done
for name in a b c; do said /tmp/$name.out blocks; done
for fd in 5 6 7; do echo end >&$fd; done
wait $pid_a $pid_b $pid_c
kill -INT $memprof
wait $memprof
for name in a b c; do
    eval "pid=\$pid_$name"
    tail -n 1 /tmp/$name.out
    memprof stats --json /captures/*.$pid.bin | tr -d '\n'
    echo
done
echo "own: $$ $memprof"
ls /captures

# Those of a user, and those of a name: of two processes, one of each user.
choose() {
    mkdir /chosen
    start a 0 5
    start b 1000 6
    memprof attach "$1" "$2" --no-stacks -o /chosen >/tmp/memprof.out 2>&1 &
    memprof=$!
    said /tmp/memprof.out "of those selected"
    for fd in 5 6; do echo begin >&$fd; done
    for name in a b; do said /tmp/$name.out blocks; done
    for fd in 5 6; do echo end >&$fd; done
    wait $pid_a $pid_b
    kill -INT $memprof
    wait $memprof
    echo "first memprof-allocators.$pid_a.bin second memprof-allocators.$pid_b.bin chosen $(echo $(ls /chosen))"
    rm -r /chosen
}
echo "==== uid"
choose --uid 1000
echo "==== comm"
choose --comm allocators

# A process with filters of system calls, which return probes could kill on some kernels.
echo "==== sandbox"
faults sandboxed <&5 >/tmp/sandbox.out &
sandbox=$!
said /tmp/sandbox.out begin
memprof attach --duration 2 --no-native -o /tmp/sandbox.bin $sandbox 2>&1
echo >&5
said /tmp/sandbox.out "[.]"
kill -0 $sandbox && echo "it lives"
kill $sandbox
echo "===="
poweroff -f
