package limited

import (
	"testing"
	"testing/fstest"
)

func TestMemory(t *testing.T) {
	const (
		total = "MemTotal:       1000000 kB\nMemFree:  5 kB\n"
		v1    = "4:cpu,cpuacct:/x\n3:memory:/box/weft\n0::/\n"
		v1At  = "30 20 0:26 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n31 20 0:27 / /sys/fs/cgroup/memory rw,nosuid shared:9 - cgroup cgroup rw,memory\n"
		v2    = "0::/system.slice/weft.service\n"
		v2At  = "25 20 0:22 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
	)
	for _, c := range []struct {
		name  string
		files map[string]string
		want  int64
	}{
		{"nothing is known", nil, 0},
		{"no control group", map[string]string{"proc/meminfo": total}, 1000000 << 10},
		{"version 1", map[string]string{"proc/meminfo": total, "proc/self/cgroup": v1, "proc/self/mountinfo": v1At,
			"sys/fs/cgroup/memory/box/weft/memory.limit_in_bytes": "67108864\n"}, 64 << 20},
		{"version 1, a group above", map[string]string{"proc/meminfo": total, "proc/self/cgroup": v1, "proc/self/mountinfo": v1At,
			"sys/fs/cgroup/memory/box/weft/memory.limit_in_bytes": "9223372036854771712\n",
			"sys/fs/cgroup/memory/box/memory.limit_in_bytes":      "33554432\n"}, 32 << 20},
		{"version 1, none", map[string]string{"proc/meminfo": total, "proc/self/cgroup": v1, "proc/self/mountinfo": v1At,
			"sys/fs/cgroup/memory/box/weft/memory.limit_in_bytes": "9223372036854771712\n"}, 1000000 << 10},
		{"version 2", map[string]string{"proc/meminfo": total, "proc/self/cgroup": v2, "proc/self/mountinfo": v2At,
			"sys/fs/cgroup/system.slice/weft.service/memory.max":  "max\n",
			"sys/fs/cgroup/system.slice/weft.service/memory.high": "50331648\n",
			"sys/fs/cgroup/system.slice/memory.max":               "67108864\n"}, 48 << 20},
		{"version 2, a container's own part", map[string]string{"proc/meminfo": total, "proc/self/cgroup": "0::/../../elsewhere\n",
			"proc/self/mountinfo": v2At, "sys/fs/cgroup/memory.max": "67108864\n"}, 64 << 20},
		{"version 1, a part of the tree is mounted", map[string]string{"proc/meminfo": total, "proc/self/cgroup": "3:memory:/docker/abc\n",
			"proc/self/mountinfo":                        "31 20 0:27 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "67108864\n"}, 64 << 20},
	} {
		root := fstest.MapFS{}
		for name, content := range c.files {
			root[name] = &fstest.MapFile{Data: []byte(content)}
		}
		if got := memory(root); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
	for _, c := range []struct {
		memory int64
		want   int
	}{{0, 8 << 20}, {1 << 30, 8 << 20}, {64 << 20, 4 << 20}} {
		if got := ShareOf(c.memory, 8<<20, 1./16); got != c.want {
			t.Errorf("of %d: %d, want %d", c.memory, got, c.want)
		}
	}
}
