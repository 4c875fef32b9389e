#!/usr/bin/env bash
# The story of three servers, told calmly and then with kills: Hearth and two real
# Synapses on loopback, each with a TLS certificate of a CA made for it.
#
#   run.sh [calm|killed]...     default: calm killed
#
#   E2E_BIN=FILE           take this binary instead of building one; "synapse" has a
#                          third Synapse in its place, to check the story itself
#   SYNAPSE_SCRIPT=FILE    the script that installs and runs a Synapse
#                          (default: peers/synapse.sh of the shared folder)
#   SYNAPSE_ROOT=DIR       where it is installed; made if missing
#   E2E_KEEP=1             keep the logs and the data of stories that passed
#
# It needs root, Node.js and what the script needs (debootstrap, openssl, curl).
# Without the script, or where it cannot run, it says so and ends with 3.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
tree=$(cd "$here/../../.." && pwd)
export SYNAPSE_SCRIPT=${SYNAPSE_SCRIPT:-$tree/../shared/peers/synapse.sh}
export SYNAPSE_ROOT=${SYNAPSE_ROOT:-${XDG_CACHE_HOME:-$HOME/.cache}/hearth-synapse}

[[ -x $SYNAPSE_SCRIPT ]] || { echo "no script to run a Synapse: set SYNAPSE_SCRIPT" >&2; exit 3; }
[[ $(id -u) == 0 ]] || { echo "running a Synapse needs root" >&2; exit 3; }
[[ -e $SYNAPSE_ROOT/usr/share/doc/matrix-synapse ]] || "$SYNAPSE_SCRIPT" install "$SYNAPSE_ROOT"

work=$(mktemp -d "${TMPDIR:-/tmp}/hearth-federation.XXXXXX")
passed=
clean() {
	for data in "$work"/*/{first,second,hearth}; do
		[[ ! -e $data/synapse.pid ]] || "$SYNAPSE_SCRIPT" stop "$data" >/dev/null || true
	done
	[[ $passed && ! ${E2E_KEEP:-} ]] && rm -rf "$work"
	return 0
}
trap clean EXIT

if ! cmp -s "$here/../package-lock.json" "$here/../node_modules/.installed-lock"; then
	npm --prefix "$here/.." ci --no-audit --no-fund --loglevel=error
	cp "$here/../package-lock.json" "$here/../node_modules/.installed-lock"
fi
if [[ ! ${E2E_BIN:-} ]]; then
	E2E_BIN=$work/hearth
	(cd "$tree" && CGO_ENABLED=0 go build -o "$E2E_BIN" .)
fi
[[ $E2E_BIN == synapse ]] || E2E_BIN=$(realpath "$E2E_BIN")
export E2E_BIN

for telling in "${@:-calm killed}"; do
	for how in $telling; do
		folder=$work/$how
		mkdir "$folder"
		echo "three servers, $how"
		kills=
		[[ $how == calm ]] || kills=1
		if ! E2E_FOLDER=$folder E2E_KILLS=$kills timeout --kill-after=30 3600 \
			node --test-force-exit --test-reporter=spec "$here/story.mjs"; then
			if [[ -s $folder/hearth/server.log ]]; then
				echo "the end of Hearth's log:"
				tail -n 40 "$folder/hearth/server.log"
			fi
			echo "three servers, $how: FAILED; logs and data in $folder"
			exit 1
		fi
	done
done
passed=1
echo "three servers: passed"
