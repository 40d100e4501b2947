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
# How far memory, open files and the 99th percentiles may grow from the first to the last quarter. Short runs are still filling
# caches, and the broker opens the 128 files of its views that it keeps open in its first three minutes or so.
memory=${SOAK_MEMORY_GROWTH:-1.25}
files=${SOAK_FILES_GROWTH:-1.05}
latency=${SOAK_LATENCY_GROWTH:-3}
# Messages a second, should half of what it can do be more.
rate_max=${SOAK_RATE_MAX:-}
# Seconds in which a week passes for the broker, which keeps eight days then: half of what it can do for an hour is more than most
# disks have room for. Its wall clock leaps, by the library of the fault campaigns.
week=${SOAK_WEEK_S:-}
# What a message of soak.toml takes on the disk once it is in the views (323 bytes, measured over 5 million), and what the journal
# keeps beside them.
message_bytes=350
journal_kib=$((2 << 20))
if ! [[ $week =~ ^([1-9][0-9]*)?$ ]]; then
  echo "soak: SOAK_WEEK_S=$week is no whole number of seconds from 1 on" >&2
  exit 2
elif [ -n "$week" ] && ! command -v cc >/dev/null; then
  echo "soak: SOAK_WEEK_S needs a C compiler: apt-get install build-essential" >&2
  exit 3
fi
mkdir -p "$out"
# Beside the reports, unless TMPDIR says where: what there is for temporary files is memory on many machines.
work=$(mktemp -d "${TMPDIR:-$out}/soak.XXXXXX")
broker=
clock=
trap '[ -z "$clock" ] || { kill "$clock"; wait "$clock"; } 2>/dev/null || true; [ -z "$broker" ] || kill -9 "$broker" 2>/dev/null || true; rm -rf "$work"' EXIT

# Everything is kept, or what came in three weeks: no more than four fifths of what the disk has room for.
free_kib=$(df -k --output=avail "$work" | tail -n 1)
room=$(awk -v duration="$duration" -v week="$week" -v free="$((free_kib - journal_kib))" -v bytes="$message_bytes" 'BEGIN {
  match(duration, /^[0-9.]+/)
  unit = substr(duration, RLENGTH + 1)
  scale = unit == "us" ? 1e-6 : unit == "ms" ? 1e-3 : unit == "" || unit == "s" ? 1 : unit == "m" || unit == "min" ? 60 : unit == "h" ? 3600 : 0
  seconds = substr(duration, 1, RLENGTH) * scale
  # Tokens of loadgen are good for 57 weeks.
  if (week != "" && seconds > 55 * week) { print "weeks"; exit }
  if (week != "" && seconds > 3 * week) seconds = 3 * week
  print (seconds > 0 ? int(free * 1024 * 0.8 / bytes / seconds) : "none")
}')
if [ "$room" = none ]; then
  echo "soak: \`$duration\` is no duration such as 500ms, 10s, 5m or 1h" >&2
  exit 2
elif [ "$room" = weeks ]; then
  echo "soak: more than 55 weeks of $week seconds are in $duration: set a longer SOAK_WEEK_S" >&2
  exit 2
elif [ "$room" -lt 1 ]; then
  echo "soak: $work has no room for anything: free some, set TMPDIR to a larger disk, or say a shorter DURATION or SOAK_WEEK_S" >&2
  exit 3
fi

serve=("$rialto" serve --data "$work/data" --tcp 127.0.0.1:0 --tls 127.0.0.1:0 --quic 127.0.0.1:0 --ops 127.0.0.1:0)
if [ -n "$week" ]; then
  cc -O2 -shared -fPIC -o "$work/shim.so" "$root/faults/shim/shim.c" -ldl
  # The page that they share, as faults/src/shim.rs says. Without a folder whose files go wrong, the clock is all that is off.
  truncate -s 262400 "$work/page"
  serve=(env LD_PRELOAD="$work/shim.so" FAULTS_CONTROL="$work/page" "${serve[@]}" --set storage.retention_days=8)
fi
"${serve[@]}" >"$out/broker.log" 2>&1 &
broker=$!
until [ -s "$work/data/addresses.json" ]; do
  kill -0 "$broker" 2>/dev/null || { tail -n 20 "$out/broker.log" >&2; exit 1; }
  sleep 0.05
done
if [ -n "$week" ] && ! grep -q "$work/shim.so" "/proc/$broker/maps"; then
  echo "soak: the broker has not loaded $work/shim.so, so that no week would pass: see $out/broker.log" >&2
  exit 3
fi
target=tcp://$(sed -n 's/.*"tcp": *"\([^"]*\)".*/\1/p' "$work/data/addresses.json")

# Tokens that are good for longer than weeks that pass in minutes.
key=$work/data/keys/signing.pem

echo "== what it can do"
"$loadgen" run --target "$target" --token-key "$key" --scenario "$root/loadgen/scenarios/capacity.toml" --duration "${CAPACITY_DURATION:-20s}" \
  --broker-pid "$broker" --report "$out/capacity.json"
half=$(awk -F '[:,]' '/"published_per_s"/ { print int($2 / 2); exit }' "$out/capacity.json")
rate=$half
if [ "$room" -lt "$half" ]; then
  rate=$room
  echo "== not half of it, $half messages a second: the disk has no room for so many. A shorter DURATION has, TMPDIR on a larger disk, or SOAK_WEEK_S=100"
fi
[ -z "$rate_max" ] || [ "$rate" -le "$rate_max" ] || rate=$rate_max
# Eight bytes, the least first, behind the first eight: nanoseconds by which the clock is off.
leap() {
  local bytes='' shift
  for shift in 0 8 16 24 32 40 48 56; do
    bytes+=$(printf '\\x%02x' $(($1 * 7 * 86400 * 1000000000 >> shift & 255)))
  done
  printf "$bytes" | dd of="$work/page" bs=8 seek=1 conv=notrunc status=none
}
if [ -n "$week" ]; then
  echo "== a week passes in $week seconds"
  (
    begun=$SECONDS
    while kill -0 "$broker" && sleep 1; do leap $(((SECONDS - begun) / week)); done
  ) &
  clock=$!
fi
echo "== $rate messages a second for $duration"
"$loadgen" run --target "$target" --token-key "$key" --scenario "$root/loadgen/scenarios/soak.toml" --rate "$rate" --duration "$duration" \
  --broker-pid "$broker" --fail-if "growth.rss>$memory" --fail-if "growth.open_files>$files" \
  --fail-if "growth.ack_p99>$latency" --fail-if "growth.delivery_p99>$latency" --report "$out/soak.json" --html "$out/soak.html"
if [ -n "$clock" ] && ! kill -0 "$clock"; then
  echo "soak: no week passed any more: the clock's loop has ended" >&2
  exit 1
fi
echo "nothing grew; the report with its plots is $out/soak.html"
