#!/usr/bin/env bash
# `loadgen idle` in a virtual machine of its own, where a process may open more files than some machines allow: what each of so many
# idle connections takes of the broker's memory. The processor is emulated, so what they take of it says nothing.
#   loadgen/idle-vm.sh [CONNECTIONS] [TRANSPORTS] [SECONDS]     50000, tcp,tls and 30 when not given; ends with the reports
# Debian packages: qemu-system-x86 busybox-static cpio, and a kernel, which is fetched and not installed (or KERNEL=vmlinuz).
set -euo pipefail
connections=${1:-50000}
transports=${2:-tcp,tls}
seconds=${3:-30}
root=$(cd "$(dirname "$0")/.." && pwd)
rialto=${RIALTO_BIN:-$root/target/release/rialto}
loadgen=${LOADGEN_BIN:-$root/target/release/loadgen}
memory_mib=${VM_MEMORY_MIB:-16384}
missing=
for program in qemu-system-x86_64 busybox cpio strip; do command -v "$program" >/dev/null || missing="$missing $program"; done
if [ -n "$missing" ]; then
  echo "idle-vm:$missing is missing: apt-get install qemu-system-x86 busybox-static cpio binutils" >&2
  exit 3
fi
for program in "$rialto" "$loadgen"; do
  [ -x "$program" ] || { echo "idle-vm: there is no $program: cargo build --release" >&2; exit 3; }
done
work=$(mktemp -d "${TMPDIR:-/tmp}/idle-vm.XXXXXX")
machine=
trap '[ -z "$machine" ] || kill "$machine" 2>/dev/null || true; rm -rf "$work"' EXIT

kernel=${KERNEL:-}
if [ -z "$kernel" ]; then
  (cd "$work" && package=$(apt-cache depends linux-image-cloud-amd64 | awk '/Depends: linux-image-/ { print $2 }') &&
    apt-get download "$package" >&2 && dpkg -x ./*.deb kernel) || {
    echo "idle-vm: no kernel from apt-get: name one, KERNEL=vmlinuz" >&2
    exit 3
  }
  kernel=$(echo "$work"/kernel/boot/vmlinuz-*)
fi

mkdir -p "$work"/image/{bin,dev,proc,sys,data}
cp "$(command -v busybox)" "$work/image/bin/busybox"
for program in "$rialto" "$loadgen"; do
  strip -o "$work/image/bin/$(basename "$program")" "$program"
  { ldd "$program" | grep -o '/[^ ]*\.so[^ ]*' || true; } | while read -r library; do
    mkdir -p "$work/image$(dirname "$library")"
    cp -L "$library" "$work/image$library"
  done
done
cat >"$work/image/init" <<EOF
#!/bin/busybox sh
export PATH=/bin
busybox mount -t proc proc /proc
busybox mount -t sysfs sys /sys
busybox mount -t devtmpfs dev /dev
busybox mount -t tmpfs data /data
busybox ip link set lo up
echo 1000000 > /proc/sys/fs/nr_open
ulimit -n 1000000
for transport in $(tr , ' ' <<<"$transports"); do
  $(basename "$rialto") serve --data /data/\$transport --tcp 127.0.0.1:0 --tls 127.0.0.1:0 --quic 127.0.0.1:0 --ops 127.0.0.1:0 > /data/log 2>&1 &
  broker=\$!
  until [ -s /data/\$transport/addresses.json ]; do
    [ -d /proc/\$broker ] || { busybox cat /data/log; busybox poweroff -f; }
    busybox sleep 0.2
  done
  target=\$transport://\$(busybox sed -n "s/.*\"\$transport\": *\"\([^\"]*\)\".*/\1/p" /data/\$transport/addresses.json)
  $(basename "$loadgen") idle --target \$target --connections $connections --broker-pid \$broker --duration $seconds --report /data/\$transport.json
  busybox cat /data/\$transport.json
  busybox kill \$broker
  wait \$broker
done
busybox poweroff -f
EOF
chmod +x "$work/image/init"
(cd "$work/image" && find . | cpio -o -H newc 2>/dev/null | gzip -1) >"$work/initrd.gz"

qemu-system-x86_64 -accel tcg,thread=multi,tb-size=512 -cpu max -smp 2 -m "$memory_mib" -nographic -no-reboot -nic none \
  -kernel "$kernel" -initrd "$work/initrd.gz" -append "console=ttyS0 quiet panic=-1" </dev/null >"$work/out" &
machine=$!
tail -f --pid="$machine" "$work/out"
wait "$machine"
machine=
for transport in $(tr , ' ' <<<"$transports"); do
  grep -q "\"target\": \"$transport:" "$work/out" || { echo "idle-vm: no report of $transport: see above" >&2; exit 1; }
done
if grep '"lost": [1-9]' "$work/out"; then
  echo "idle-vm: connections were lost" >&2
  exit 1
fi
