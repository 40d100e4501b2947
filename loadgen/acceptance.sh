#!/usr/bin/env bash
# Replays a whole log against a real broker: over every transport, then with the broker killed again and again, then once
# more after a restart without publishing anything. Ends with 0 only when every verdict is clean and the broker was killed.
#   loadgen/acceptance.sh FILE [KILLS]     FILE: JSON lines as loadgen replay reads them; KILLS: 20 when not given
set -euo pipefail
file=${1:?which log? usage: loadgen/acceptance.sh FILE [KILLS]}
kills=${2:-20}
command -v curl >/dev/null || { echo "acceptance: curl is missing: on Debian and Ubuntu, sudo apt-get install curl" >&2; exit 1; }
bin=$(cd "$(dirname "$0")/.." && pwd)/target/release
work=$(mktemp -d)
broker=
player=
gone() { [ -z "$1" ] || { kill -9 "$1" && wait "$1"; } 2>/dev/null || true; }
trap 'gone "$player"; gone "$broker"; rm -rf "$work"' EXIT

address() { sed -n "s/.*\"$1\": *\"\([^\"]*\)\".*/\1/p" "$work/data/addresses.json"; }

start() { # the ports of the first start are kept: clients find the broker again where it was
  "$bin/rialto" serve --data "$work/data" --tcp "$tcp" --tls "$tls" --quic "$quic" --ops "$ops" >>"$work/broker.log" 2>&1 &
  broker=$!
  until curl -sf "http://$(address ops)/health/ready" >/dev/null 2>&1; do
    kill -0 "$broker" 2>/dev/null || { tail -n 20 "$work/broker.log" >&2; exit 1; }
    sleep 0.05
  done
}

tcp=127.0.0.1:0 tls=127.0.0.1:0 quic=127.0.0.1:0 ops=127.0.0.1:0
start
tcp=$(address tcp) tls=$(address tls) quic=$(address quic) ops=$(address ops)
for target in "tcp://$tcp" "tls://$tls" "quic://$quic"; do
  echo "== $target"
  "$bin/loadgen" replay "$file" --target "$target" --report "$work/report.json"
done

# A new process, so that its counters tell when the replay has begun: there is nothing to survive before that.
{ kill "$broker" && wait "$broker"; } 2>/dev/null || true
start
echo "== tcp://$tcp, killed $kills times"
"$bin/loadgen" replay "$file" --target "tcp://$tcp" --run killed --report "$work/report.json" &
player=$!
until curl -s "http://$(address ops)/metrics" | grep -qE '^rialto_events_appended_total [1-9][0-9]{3}'; do
  kill -0 "$player" 2>/dev/null || { echo "the replay did not begin" >&2; exit 1; }
  sleep 0.05
done
killed=0
for kill in $(seq "$kills"); do
  sleep "0.$((RANDOM % 9))5"
  kill -0 "$player" 2>/dev/null || { echo "the replay ended before kill $kill" >&2; break; }
  { kill -9 "$broker" && wait "$broker"; } 2>/dev/null || true
  start
  killed=$((killed + 1))
done
wait "$player"
player=
[ "$killed" -gt 0 ] || { echo "the broker was never killed while it was played: give a longer log" >&2; exit 1; }

echo "== read again after another kill, nothing published"
{ kill -9 "$broker" && wait "$broker"; } 2>/dev/null || true
start
"$bin/loadgen" replay "$file" --target "tcp://$tcp" --run killed --report "$work/again.json"
grep -q '"published": 0,' "$work/again.json" || { echo "something was published again" >&2; exit 1; }
echo "all clean, killed $killed of $kills times"
