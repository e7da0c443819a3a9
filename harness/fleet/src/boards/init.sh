#!/usr/bin/busybox sh
# The first program of an emulated board: mounts, modules, network; then busybox's init keeps the SSH server running
# (/etc/inittab).
export PATH=/usr/sbin:/usr/bin
/usr/bin/busybox mount -t devtmpfs devtmpfs /dev
/usr/bin/busybox --install -s /usr/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs -o mode=1777 shm /dev/shm
mount -t tmpfs -o size=32m,mode=1777 tmp /tmp
# A disk that is full almost at once.
mount -t tmpfs -o size=2m tiny /mnt/tiny
# For runners and models: a file system of its own, so that `df` shows what is free there.
mount -t tmpfs -o size=80%,mode=700 root /root
mkdir -m 700 /root/.ssh
cp /etc/dropbear/authorized_keys /root/.ssh/authorized_keys
for module in /usr/lib/modules/*.ko; do
    insmod "$module" || echo "espalier: cannot load $module"
done
ip link set lo up
ip link set eth0 up
# The address that qemu's network expects.
ip addr add 10.0.2.15/24 dev eth0
ip route add default via 10.0.2.2
echo "espalier: ready after $(cut -d ' ' -f 1 /proc/uptime) s"
exec /usr/bin/busybox init
