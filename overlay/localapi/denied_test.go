package localapi

import (
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// A user without access to a socket learns how to get it: through the group that has
// access, if there is one.
func TestDeniedHint(t *testing.T) {
	g, err := user.LookupGroupId(strconv.Itoa(os.Getgid()))
	if os.Getuid() == 0 {
		g, err = user.LookupGroup("nogroup") // there is no hint for root's group
	}
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "s")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	gid, _ := strconv.Atoi(g.Gid)
	if err := os.Chown(path, -1, gid); err != nil {
		t.Fatal(err)
	}
	if got := deniedHint(path); !strings.Contains(got, "sudo") || strings.Contains(got, "usermod") {
		t.Errorf("closed to all: %s", got)
	}
	if err := os.Chmod(path, 0o660); err != nil {
		t.Fatal(err)
	}
	if got := deniedHint(path); g.Name != "root" && !strings.Contains(got, "sudo usermod -aG "+g.Name+" "+userName()) {
		t.Errorf("open to a group: %s", got)
	}
	if got := deniedHint(path + "/none"); !strings.Contains(got, "sudo") {
		t.Error(got)
	}
}
