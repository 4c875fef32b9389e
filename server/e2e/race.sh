#!/usr/bin/env bash
# Tests under the race detector, without a fault of Go 1.26 in it (golang.org/issue/78156):
# all timers of a testing/synctest bubble share one context of the detector, which two
# threads may then use at once, where a timer fires in the heap and another one is read
# from its channel: the test dies of SIGSEGV, somewhere in the detector. Each firing has
# a context of its own here. That also finds more: what fires is behind what has set that
# timer, and not behind all that has set others.
#
#   race.sh [flags of go test] PACKAGE...
#
# It needs Go and a C compiler.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

. server/e2e/overlay.sh
change runtime/time.go 'tsLocal = &bubble\.timers' 'tsLocal = \&gp.m.p.ptr().timers'
change runtime/time.go 'gp\.racectx = bubble\.timers\.' 'gp.racectx = gp.m.p.ptr().timers.'
change runtime/time.go 'if tsLocal\.raceCtx == 0 {' '{'
change runtime/time.go 'racegostart(\(abi.*sys\.PCQuantum\))' 'racectxstart(\1, 0)'
change runtime/time.go 'gp\.racectx = 0$' 'racectxend(gp.racectx); gp.racectx, gp.m.p.ptr().timers.raceCtx = 0, 0'
overlay
CGO_ENABLED=1 go test -race -overlay "$dir/overlay.json" "$@"
