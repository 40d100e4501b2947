#!/usr/bin/env bash
# Shows that the campaigns find mistakes: each is planted, and the campaign that is for it has to report violations.
#   faults/planted.sh BROKER     BROKER: `rialto-planted`
set -euo pipefail
broker=${1:?which broker? usage: faults/planted.sh BROKER}
faults=$(cd "$(dirname "$0")/.." && pwd)/target/release/faults
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
missed=0

finds() { # CAMPAIGN MISTAKE ROUNDS
  status=0
  "$faults" "$1" --short --seed 1 --rounds "$3" --planted "$2" --rialto "$broker" --scratch "$work" >"$work/log" 2>&1 || status=$?
  if [ "$status" = 1 ] && grep -q VIOLATION "$work/log"; then
    echo "$1 finds $2:$(grep VIOLATION "$work/log" | sed 's/^ *VIOLATION//' | paste -sd,)"
  elif [ "$status" = 130 ]; then
    echo "interrupted" >&2
    exit 130
  elif [ "$status" = 3 ]; then
    echo "$1 cannot run here, so nobody looked for $2" >&2
    [ "$missed" = 1 ] || missed=3
  else
    echo "$1 does NOT find $2 (status $status):" >&2
    tail -n 20 "$work/log" >&2
    missed=1
  fi
}

finds kill skip-dedupe 10
finds kill resume-off-by-one 10
finds kill lost-wake-up 10
finds power ack-before-sync 10
finds power lying-disk 10
exit "$missed"
