package server

import (
	"bufio"
	"io/fs"
	"path"
	"runtime/debug"
	"strconv"
	"strings"
)

// The default of --memory where no cgroup sets a limit: a quarter of RAM between
// these bounds.
const (
	leastDefaultMemory = 64 << 20
	mostDefaultMemory  = 256 << 20
)

// defaultMemory returns the ceiling for a process that was not told one. fsys is
// the root of the file system.
func defaultMemory(fsys fs.FS) Bytes {
	ram := totalMemory(fsys)
	if limit := cgroupLimit(fsys); limit > 0 && (ram == 0 || limit < ram) {
		return max(limit, minMemory)
	}
	return min(max(ram/4, leastDefaultMemory), mostDefaultMemory)
}

// holdMemory tells Go's collector the limit that it works against. It is below
// the ceiling, as the limit counts neither the binary nor what the kernel keeps
// for the process.
func holdMemory(ceiling Bytes) {
	debug.SetMemoryLimit(int64(ceiling - max(ceiling/8, 8<<20)))
}

// totalMemory returns the machine's RAM, 0 if nobody tells.
func totalMemory(fsys fs.FS) Bytes {
	f, err := fsys.Open("proc/meminfo")
	if err != nil {
		return 0
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		fields := strings.Fields(lines.Text()) // MemTotal: 948304 kB
		if len(fields) == 3 && fields[0] == "MemTotal:" {
			n, _ := strconv.ParseInt(fields[1], 10, 64)
			return Bytes(n << 10)
		}
	}
	return 0
}

// cgroupLimit returns the smallest memory limit of the process's cgroup and those
// above it, 0 if there is none. Both hierarchies are looked at: version 2
// ("0::/path") and version 1 ("4:memory:/path").
func cgroupLimit(fsys fs.FS) Bytes {
	content, err := fs.ReadFile(fsys, "proc/self/cgroup")
	if err != nil {
		return 0
	}
	var least Bytes
	for line := range strings.Lines(string(content)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 {
			continue
		}
		var found Bytes
		switch {
		case parts[0] == "0" && parts[1] == "":
			found = leastUpwards(fsys, "sys/fs/cgroup", parts[2], "memory.max")
		case strings.Contains(","+parts[1]+",", ",memory,"):
			found = leastUpwards(fsys, "sys/fs/cgroup/memory", parts[2], "memory.limit_in_bytes")
		}
		if found > 0 && (least == 0 || found < least) {
			least = found
		}
	}
	return least
}

// leastUpwards returns the smallest number in the files called name from the
// cgroup up to the root of its hierarchy. In a container the upper part of the
// path may not be there: what is missing limits nothing.
func leastUpwards(fsys fs.FS, root, cgroup, name string) Bytes {
	const unlimited = 1 << 62 // version 1 writes a huge number for "no limit"
	var least Bytes
	for dir := path.Join("/", cgroup); ; dir = path.Dir(dir) {
		content, err := fs.ReadFile(fsys, path.Join(root, dir, name))
		if err == nil {
			n, err := strconv.ParseInt(strings.TrimSpace(string(content)), 10, 64)
			if err == nil && n > 0 && n < unlimited && (least == 0 || Bytes(n) < least) {
				least = Bytes(n)
			}
		}
		if dir == "/" {
			return least
		}
	}
}
