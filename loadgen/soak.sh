#!/usr/bin/env bash
# A broker of its own on a folder that is thrown away, at half of what it can do on this machine, for DURATION. Ends with 0 only
# when nothing was lost and nothing grew: not its memory, its open files, its latencies.
#   loadgen/soak.sh [DURATION] [OUT]     DURATION: 1h when not given; OUT: folder of the reports, target/soak when not given
set -euo pipefail
duration=${1:-1h}
root=$(cd "$(dirname "$0")/.." && pwd)
out=${2:-$root/target/soak}
rialto=${RIALTO_BIN:-$root/target/release/rialto}
loadgen=${LOADGEN_BIN:-$root/target/release/loadgen}
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
rate=$(awk -F '[:,]' '/"published_per_s"/ { print int($2 / 2); exit }' "$out/capacity.json")
echo "== half of it, $rate messages a second, for $duration"
"$loadgen" run --target "$target" --scenario "$root/loadgen/scenarios/soak.toml" --rate "$rate" --duration "$duration" \
  --broker-pid "$broker" --fail-if "growth.rss>$memory" \
  --fail-if "growth.ack_p99>$latency" --fail-if "growth.delivery_p99>$latency" --report "$out/soak.json" --html "$out/soak.html"
echo "nothing grew; the report with its plots is $out/soak.html"
