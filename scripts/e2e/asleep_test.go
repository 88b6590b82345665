//go:build e2e

package e2e

import (
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"weft/scripts/e2e/lab"
)

// TestIdleAsleep: a machine does nothing for WEFT_ASLEEP (default 15s; ten minutes in the long
// tests), and on waking its tunnel works at once, whichever side slept, with both suites.
// The clocks go on meanwhile, as in a paused virtual machine that is set right; how keys fare
// when they jump is in TestFreshKeysAfterSleep of package overlay.
func TestIdleAsleep(t *testing.T) {
	d, err := time.ParseDuration(os.Getenv("WEFT_ASLEEP"))
	if err != nil {
		d = 15 * time.Second
	}
	for _, suite := range []string{"aes", "wireguard"} {
		for _, who := range []string{"laptop", "kitchen-pi", "both"} {
			t.Run(suite+", "+who, func(t *testing.T) {
				t.Parallel()
				m := lab.NewMeshNoNodes(t, bin)
				m.Device.Join(m.Server.Token, "--suite", suite)
				m.Laptop.Up(m.Server.NewKey().Token, "--suite", suite)
				fetch(t, m.Laptop, "http://kitchen-pi/", 5*time.Second)
				if out := m.Laptop.Must("status", "--json", "kitchen-pi"); !strings.Contains(out, `"suite": "`+suite+`"`) {
					t.Errorf("status:\n%s", out)
				}
				nodes := []*lab.Node{m.Laptop, m.Device}
				switch who {
				case "laptop":
					nodes = nodes[:1]
				case "kitchen-pi":
					nodes = nodes[1:]
				}
				for _, n := range nodes {
					n.Signal(syscall.SIGSTOP)
				}
				time.Sleep(d)
				for _, n := range nodes {
					n.Signal(syscall.SIGCONT)
				}
				// The relay may have given up the connection of who slept. Programs try again.
				woken := time.Now()
				m.Until(20*time.Second, "the page comes", func() bool {
					_, err := m.Laptop.Get("http://kitchen-pi/", 10*time.Second)
					return err == nil
				})
				t.Logf("%v after waking", time.Since(woken).Round(time.Millisecond))
			})
		}
	}
}
