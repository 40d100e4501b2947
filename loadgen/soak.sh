#!/usr/bin/env bash
# A broker of its own on a folder that is thrown away, at half of what it can do on this machine (or at what the disk has room for,
# if that is less) for DURATION. Ends with 0 only when nothing was lost and nothing grew: not its memory, its open files, its
# latencies.
#   loadgen/soak.sh [DURATION] [OUT]     DURATION: 1h when not given; OUT: folder of the reports, target/soak when not given
set -euo pipefail
duration=${1:-1h}
root=$(cd "$(dirname "$0")/.." && pwd)
out=${2:-$root/target/soak}
rialto=${RIALTO_BIN:-$root/target/release/rialto}
loadgen=${LOADGEN_BIN:-$root/target/release/loadgen}
# A duration in seconds, such as 3s, 10m or 1h.
seconds() {
  local number=${1%[smh]}
  case $1 in *h) echo $((number * 3600)) ;; *m) echo $((number * 60)) ;; *) echo "$number" ;; esac
}
# How far memory and the 99th percentiles may grow from the first to the last quarter. Short runs are still filling caches.
memory=${SOAK_MEMORY_GROWTH:-1.25}
latency=${SOAK_LATENCY_GROWTH:-3}
work=$(mktemp -d)
broker=
trap '[ -z "$broker" ] || kill -9 "$broker" 2>/dev/null || true; rm -rf "$work"' EXIT
mkdir -p "$out"

"$rialto" serve --data "$work/data" --tcp 127.0.0.1:0 --tls 127.0.0.1:0 --quic 127.0.0.1:0 --ops 127.0.0.1:0 >"$out/broker.log" 2>&1 &
broker=$!
until [ -s "$work/data/addresses.json" ]; do
  kill -0 "$broker" 2>/dev/null || { tail -n 20 "$out/broker.log" >&2; exit 1; }
  sleep 0.05
done
target=tcp://$(sed -n 's/.*"tcp": *"\([^"]*\)".*/\1/p' "$work/data/addresses.json")

echo "== what it can do"
"$loadgen" run --target "$target" --scenario "$root/loadgen/scenarios/capacity.toml" --duration "${CAPACITY_DURATION:-20s}" \
  --broker-pid "$broker" --report "$out/capacity.json"
figure() { awk -F '[:,]' -v name="\"$1\"" '$1 ~ name { print int($2); exit }' "$out/capacity.json"; }
rate=$(($(figure published_per_s) / 2))
# Everything is kept: no more than four fifths of the disk, by what a message took while the broker's capacity was found.
sleep 2
each=$(($(du -sk "$work/data/views" | cut -f 1) * 1024 / $(figure published) + 1))
room=$(($(df -k --output=avail "$work" | tail -n 1) * 1024 / 5 * 4 / each / $(seconds "$duration")))
what="half of it"
if [ "$room" -lt "$rate" ]; then
  what="as much as the disk has room for at $each bytes a message, instead of half of it ($rate); DURATION=$((room * $(seconds "$duration") / rate))s has room for that, or TMPDIR on a larger disk"
  rate=$room
fi
echo "== $rate messages a second, $what, for $duration"
"$loadgen" run --target "$target" --scenario "$root/loadgen/scenarios/soak.toml" --rate "$rate" --duration "$duration" \
  --broker-pid "$broker" --fail-if "growth.rss>$memory" \
  --fail-if "growth.ack_p99>$latency" --fail-if "growth.delivery_p99>$latency" --report "$out/soak.json" --html "$out/soak.html"
echo "nothing grew; the report with its plots is $out/soak.html"
