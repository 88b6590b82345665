package netstack

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"gvisor.dev/gvisor/pkg/log"
)

// gVisor's warnings do not reach standard error. The test runs in a process of its own,
// since gVisor holds this process's standard error.
func TestGVisorIsQuiet(t *testing.T) {
	const child = "WEFT_TEST_WARN"
	if os.Getenv(child) != "" {
		log.Warningf("a segment")
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestGVisorIsQuiet$")
	cmd.Env = append(os.Environ(), child+"=1")
	out, err := cmd.CombinedOutput()
	if err != nil || strings.Contains(string(out), "a segment") {
		t.Errorf("%v: %s", err, out)
	}
}
