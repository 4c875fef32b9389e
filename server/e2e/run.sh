#!/usr/bin/env bash
# The end-to-end story, N times in a row (default 1), each against a new server
# with no data. Prints one line per chapter; ends with 1 at the first failure.
#
#   run.sh [N]
#
#   E2E_BIN=FILE      take this binary instead of building one
#   HOMESERVER_URL=URL   tell the story to a server that runs already; it is
#                        restarted only if there are shell commands for it in
#                        HOMESERVER_STOP, HOMESERVER_KILL and HOMESERVER_START
#   E2E_TIME_LIMIT=SECS  the longest that one story may take (default 300)
#   E2E_KEEP=1           keep the logs and the data of stories that passed
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
times=${1:-1}
[[ $times =~ ^[1-9][0-9]*$ ]] || { echo "usage: run.sh [N]" >&2; exit 2; }

work=$(mktemp -d "${TMPDIR:-/tmp}/hearth-e2e.XXXXXX")
passed=
clean() {
	[[ $passed && ! ${E2E_KEEP:-} ]] && rm -rf "$work"
	return 0
}
trap clean EXIT

# The modules that package-lock.json names, installed once per lock file.
if ! cmp -s "$here/package-lock.json" "$here/node_modules/.installed-lock"; then
	npm --prefix "$here" ci --no-audit --no-fund --loglevel=error
	cp "$here/package-lock.json" "$here/node_modules/.installed-lock"
fi

if [[ ! ${HOMESERVER_URL:-} && ! ${E2E_BIN:-} ]]; then
	E2E_BIN=$work/hearth
	(cd "$here/../.." && CGO_ENABLED=0 go build -o "$E2E_BIN" .)
fi
[[ ! ${E2E_BIN:-} ]] || export E2E_BIN=$(realpath "$E2E_BIN")

for ((n = 1; n <= times; n++)); do
	folder=$work/$n
	mkdir "$folder"
	echo "story $n of $times"
	status=0
	E2E_FOLDER=$folder timeout --kill-after=20 "${E2E_TIME_LIMIT:-300}" \
		node --test-force-exit --test-reporter=spec "$here/story.mjs" || status=$?
	if ((status)); then
		((status == 124)) && echo "story $n took longer than ${E2E_TIME_LIMIT:-300} s"
		if [[ -s $folder/server.log ]]; then
			echo "the end of the server's log:"
			tail -n 30 "$folder/server.log"
		fi
		echo "story $n of $times FAILED: logs and data in $folder"
		exit 1
	fi
	[[ ${E2E_KEEP:-} ]] || rm -rf "$folder"
done
passed=1
echo "$times of $times stories passed"
