package limited

import (
	"bytes"
	"io/fs"
	"math"
	"os"
	"path"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// Memory is how many bytes of memory this process may use: the machine's memory, or
// less if a control group or GOMEMLIMIT sets a limit; 0 if unknown. It is determined
// once.
var Memory = sync.OnceValue(func() int64 {
	n := memory(os.DirFS("/"))
	if limit := debug.SetMemoryLimit(-1); limit < math.MaxInt64 && (n == 0 || limit < n) {
		return limit // GOMEMLIMIT
	}
	return n
})

// Short reports whether this much memory in bytes, 0 if unknown, is so little that
// queues and buffers need a common bound.
func Short(memory int64) bool { return memory > 0 && memory < 1<<30 }

// Share returns most, or on a small machine that share of its memory. It bounds one of
// the queues and tables that must fit into memory together. 0 < share < 1.
func Share(most int, share float64) int { return ShareOf(Memory(), most, share) }

// ShareOf is Share for a machine with this much memory in bytes, 0 if unknown.
func ShareOf(memory int64, most int, share float64) int {
	if memory <= 0 {
		return most
	}
	return int(min(float64(most), float64(memory)*share))
}

// memory is Memory on a Linux machine with the files of root.
func memory(root fs.FS) int64 {
	least := int64(math.MaxInt64)
	take := func(n int64) {
		if n > 0 {
			least = min(least, n)
		}
	}
	info, _ := fs.ReadFile(root, "proc/meminfo")
	for line := range bytes.Lines(info) {
		if f := strings.Fields(string(line)); len(f) == 3 && f[0] == "MemTotal:" {
			kb, _ := strconv.ParseInt(f[1], 10, 64)
			take(kb << 10)
		}
	}
	groups, _ := fs.ReadFile(root, "proc/self/cgroup")
	mounts, _ := fs.ReadFile(root, "proc/self/mountinfo")
	for _, g := range memoryGroups(string(groups), string(mounts)) {
		// The limits of all parent groups apply, too.
		for dir := g.dir; ; dir = path.Dir(dir) {
			for _, file := range g.files {
				b, err := fs.ReadFile(root, path.Join(dir, file)[1:])
				if err == nil {
					// "max", and a value beyond any memory, means no limit.
					n, _ := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
					take(n)
				}
			}
			if dir == g.top || dir == "/" {
				break
			}
		}
	}
	if least == math.MaxInt64 {
		return 0
	}
	return least
}

// memoryGroup locates the limits of the process's control group.
type memoryGroup struct {
	dir, top string // the group's directory, at or below the mount point
	files    []string
}

// memoryGroups parses /proc/self/cgroup and mountinfo, for both versions.
func memoryGroups(groups, mounts string) (found []memoryGroup) {
	for line := range strings.Lines(groups) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(f) != 3 {
			continue
		}
		kind, files := "", []string(nil)
		switch {
		case f[0] == "0" && f[1] == "":
			kind, files = "cgroup2", []string{"memory.max", "memory.high"}
		case hasWord(f[1], "memory"):
			kind, files = "cgroup", []string{"memory.limit_in_bytes"}
		default:
			continue
		}
		for line := range strings.Lines(mounts) {
			// ID parent major:minor root mountpoint options... - type source superoptions
			before, after, ok := strings.Cut(line, " - ")
			m, t := strings.Fields(before), strings.Fields(after)
			if !ok || len(m) < 5 || len(t) < 3 || t[0] != kind || kind == "cgroup" && !hasWord(t[2], "memory") {
				continue
			}
			// In a container the mount may be only a part of the tree.
			rel, inside := strings.CutPrefix(f[2], strings.TrimSuffix(m[3], "/"))
			if !inside || strings.Contains(rel, "..") {
				rel = ""
			}
			found = append(found, memoryGroup{path.Join(m[4], rel), m[4], files})
		}
	}
	return found
}

// hasWord reports whether a comma-separated list contains a word.
func hasWord(list, word string) bool { return slices.Contains(strings.Split(list, ","), word) }
