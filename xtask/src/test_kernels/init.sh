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
memprof tree /tmp/python.bin
echo "===="
poweroff -f
