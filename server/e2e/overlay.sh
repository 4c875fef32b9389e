# Builds over a changed copy of single lines of Go's own code, to be sourced. `go test
# -overlay $dir/overlay.json` uses it; Go itself stays as it is. $dir is a folder of the
# caller's.

source=$(go env GOROOT)/src

# change FILE PATTERN REPLACEMENT: an edit of sed's in a file of Go's, which must be
# found there.
change() {
	local file=$dir/src/$1
	mkdir -p "${file%/*}"
	[[ -e $file ]] || cp "$source/$1" "$file"
	sed "s/$2/$3/" "$file" >"$file.changed"
	if cmp -s "$file" "$file.changed"; then
		echo "$(go version) is another one: $source/$1 has no $2" >&2
		exit 1
	fi
	mv "$file.changed" "$file"
}

# overlay writes what has changed into $dir/overlay.json.
overlay() {
	(cd "$dir/src" && find . -name '*.go' -printf '%P\n') | while read -r file; do
		printf '"%s": "%s"\n' "$source/$file" "$dir/src/$file"
	done | paste -sd, | sed 's/.*/{"Replace": {&}}/' >"$dir/overlay.json"
}
