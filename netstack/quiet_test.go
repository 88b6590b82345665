package netstack

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"gvisor.dev/gvisor/pkg/log"
)

// What gVisor warns of does not get to standard error, which is looked at in a
// process of its own: gVisor has taken hold of this one's.
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
