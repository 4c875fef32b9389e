#!/usr/bin/env bash
# Simulated worlds, each lived through twice: a seed must not fail, and must go the same
# way both times, so that one that fails can be looked into. It is what
# `go test ./server -run TestSimulation` tells, where Go's runtime leaves some of it to
# chance: which of the timers of one moment fires first, the order of maps, and more.
#
#   simulation.sh FIRST [LAST]    default: LAST is FIRST; a seed takes a few seconds
#
#   SIM_LOG=1     show what the servers log, where a seed fails
#   SIM_ONCE=1    live once through each, in half the time
#
# It needs Go and takes all processors. What it prints of a seed is the digest of all
# that the servers told each other.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
first=${1:?which seeds? simulation.sh FIRST [LAST]}
last=${2:-$first}
((first > 0)) || { echo "seeds begin with 1" >&2; exit 2; }
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

. server/e2e/overlay.sh
# The timers of one moment.
change runtime/time.go 't\.rand = cheaprand()' 't.rand = 0'
# What is ready at once.
change runtime/select.go 'cheaprandn(uint32(norder + 1))' 'lot(norder + 1)'
# Hashes, and so the order of maps.
change runtime/rand.go 'globalRand\.state\.Init(\*seed)' 'clear(seed[:]); &'
change runtime/rand.go 'return rand()' 'return 1'
# Who is interrupted, and who has waited so long for a lock that he is the next.
change runtime/proc.go 'forcePreemptNS = 10 ' 'forcePreemptNS = 1000000000 '
change runtime/proc.go '!sysretake && int64(pd.syscalltick) != syst' '!sysretake'
change internal/sync/mutex.go 'starvationThresholdNs = 1e6' 'starvationThresholdNs = 1e12'
cat >>"$dir/src/runtime/select.go" <<'END'

var lots uint32

// lot is cheaprandn, the same in each run for what runs in virtual time.
func lot(n int) uint32 {
	if getg().bubble == nil {
		return cheaprandn(uint32(n))
	}
	lots = lots*1664525 + 1013904223
	return uint32(uint64(lots) * uint64(n) >> 32)
}
END
overlay
go test -c -overlay "$dir/overlay.json" -o "$dir/server.test" ./server

# live SEED: lives through one seed, and says what came of it.
live() {
	local seed=$1 options=(-test.v -test.run '^TestSimulation$' -sim.seed "$1") digests=() time
	[[ ! ${SIM_LOG:-} ]] || options+=(-sim.log)
	local times=(first second)
	[[ ! ${SIM_ONCE:-} ]] || times=(first)
	for time in "${times[@]}"; do
		if ! (cd server && TMPDIR=$dir GODEBUG=gcstoptheworld=2 "$dir/server.test" "${options[@]}" >"$dir/$seed.$time" 2>&1); then
			printf 'seed %s FAILS\n' "$seed"
			grep -v '^=== ' "$dir/$seed.$time"
			return 1
		fi
		digests+=("$(sed -n 's/.*digest \([0-9a-f]*\)$/\1/p' "$dir/$seed.$time")")
		rm "$dir/$seed.$time"
	done
	if [[ ! ${digests[0]} ]]; then
		printf 'seed %s was not lived through\n' "$seed"
		return 1
	fi
	if [[ ${digests[0]} != "${digests[-1]}" ]]; then
		printf 'seed %s went two ways: %s\n' "$seed" "${digests[*]}"
		return 1
	fi
	printf 'seed %s %s\n' "$seed" "${digests[0]}"
}
export -f live
export dir

seq "$first" "$last" | xargs -P "$(nproc)" -I{} bash -c 'live {}'
