#!/usr/bin/env bash
# A world of three to eight servers, each a process of the built binary in a network
# namespace of its own: links are cut and mended, servers are killed and come back,
# users join, write, invite, kick and ban. In the end all have the same state in every
# room, and nothing that was acknowledged is lost. It is the world that
# `go test ./server -run TestSimulation` tells in memory and virtual time.
#
#   namespaces.sh [SEEDS]    default: 3; a world takes about a minute
#
#   SEED=N         this world alone
#   SIM_LOG=1      the servers log more; a failed world keeps its folder and says where
#
# It needs Linux, root, Go and iproute2. Where the kernel has netem, links are slow.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
seeds=${1:-3}
options=(-sim.namespaces "$seeds")
[[ ! ${SEED:-} ]] || options+=(-sim.seed "$SEED")
[[ ! ${SIM_LOG:-} ]] || options+=(-sim.log)
go test ./server -count=1 -timeout "$((10 + 10 * seeds))m" -v -run '^TestNamespaces$' "${options[@]}"
