//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"weft/scripts/e2e/lab"
)

// Server, device and laptop are killed with SIGKILL at random moments while keys are
// created and devices join and are deleted. Acknowledged changes survive, and every
// node reconnects.
//
// WEFT_CRASH_ROUNDS (default 5) is the number of rounds; WEFT_CRASH_SEED repeats a run.
func TestCrash(t *testing.T) {
	t.Parallel()
	rounds, _ := strconv.Atoi(os.Getenv("WEFT_CRASH_ROUNDS"))
	if rounds == 0 {
		rounds = 5
	}
	seed, err := strconv.ParseUint(os.Getenv("WEFT_CRASH_SEED"), 10, 64)
	if err != nil {
		seed = rand.Uint64()
	}
	t.Logf("WEFT_CRASH_SEED=%d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))

	m := lab.NewMesh(t, bin)
	keys := map[string]bool{}     // acknowledged
	joined := map[string]string{} // name -> id, acknowledged
	deleted := map[string]bool{}  // ids, acknowledged
	joined["kitchen-pi"], joined["laptop"] = m.Device.Status().Self.ID, m.Laptop.Status().Self.ID
	var extra []*lab.Node

	for round := range rounds {
		victim := []string{"server", "server", "device", "laptop", "new"}[rng.IntN(5)]
		delay := time.Duration(rng.IntN(250)) * time.Millisecond
		name := fmt.Sprintf("round-%d", round)
		fresh := m.Node(m.LaptopHome.Namespace, name)
		token := m.WriteFile(name, m.Server.NewKey().Token)
		fresh.RunNoWait("--token-file", token, "--proxy", "off", "--dns", "off")

		acked := make(chan func(), 64)
		go func() { // work in the meantime; it ends with the first failure
			defer close(acked)
			for range 8 {
				r := m.Server.Admin("keys", "create", "--json")
				var k lab.Key
				if r.Code != 0 || json.Unmarshal([]byte(r.Out), &k) != nil {
					return
				}
				acked <- func() { keys[k.ID] = true }
				if len(extra) > 0 {
					old := extra[0]
					extra = extra[1:]
					r := m.Server.Admin("devices", "delete", old.Name)
					acked <- func() {
						old.Kill()
						// Without an acknowledgement the change may exist or not.
						if r.Code == 0 {
							deleted[joined[old.Name]] = true
						}
						delete(joined, old.Name)
					}
				}
			}
		}()
		time.Sleep(delay)
		switch victim {
		case "server":
			m.Server.Kill()
		case "device":
			m.Device.Kill()
		case "laptop":
			m.Laptop.Kill()
		case "new":
			fresh.Kill()
		}
		var acks []func()
		for ack := range acked {
			acks = append(acks, ack)
		}
		for _, ack := range acks { // now that no other goroutine uses the maps
			ack()
		}
		switch victim {
		case "server":
			m.Server.Start()
		case "device":
			m.Device.Run()
		case "laptop":
			m.Laptop.Run()
		case "new":
			fresh.RunNoWait("--token-file", token, "--proxy", "off", "--dns", "off")
		}

		// Every node reconnects, including the one that was joining, once.
		m.Until(40*time.Second, fmt.Sprintf("%s joined and connected (%s killed after %v)", name, victim, delay), func() bool {
			select {
			case <-fresh.Done():
				t.Fatalf("round %d, %s killed after %v: the joining daemon ended:\n%s", round, victim, delay, fresh.Err())
			default:
			}
			return fresh.Weft("wait", "--timeout", "1s").Code == 0
		})
		joined[name] = fresh.Status().Self.ID
		extra = append(extra, fresh)
		start := time.Now()
		m.Until(30*time.Second, fmt.Sprintf("the page after %s was killed after %v", victim, delay), func() bool {
			body, err := m.Laptop.Get("http://kitchen-pi/", 3*time.Second)
			return err == nil && strings.HasPrefix(body, "kitchen")
		})
		t.Logf("round %d: %s killed after %v; the page came within %v", round, victim, delay, time.Since(start).Round(time.Millisecond))

		have := map[string]string{}
		for _, d := range m.Server.Devices() {
			if deleted[d.ID] {
				t.Errorf("round %d: %s was deleted and is back", round, d.Name)
			}
			if strings.HasPrefix(d.Name, name) && d.Name != name {
				t.Errorf("round %d: one join made two devices: %s", round, d.Name)
			}
			have[d.Name] = d.ID
		}
		for n, id := range joined {
			if have[n] != id {
				t.Errorf("round %d: %s joined as %s, the server has %q", round, n, id, have[n])
			}
		}
		list := m.Server.Admin("keys", "list", "--json").Out
		for id := range keys {
			if !strings.Contains(list, id) {
				t.Errorf("round %d: key %s was acknowledged and is lost", round, id)
			}
		}
		if t.Failed() {
			t.FailNow()
		}
	}
	// If the list of keys was never long enough to reach its bounds, this proves
	// nothing.
	if len(keys) == 0 {
		t.Error("no key was ever acknowledged")
	}
	if st := m.Device.Status(); st.Self.ID != joined["kitchen-pi"] {
		t.Errorf("the device became %s", st.Self.ID)
	}
}
