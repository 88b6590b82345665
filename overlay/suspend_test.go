package overlay_test

import (
	"io"
	"testing"
	"time"

	"weft/coord/ops"
)

// Devices of somebody who is suspended are cut from what they reach, on nodes that know
// nothing of that but their rules; those that carry a tag are not, and all can be reached.
// Resumed, they reach again what they did. How long it took is in the log.
func TestSuspendedIsCut(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	pi, laptop, cam := w.node("kitchen-pi", "device"), w.node("laptop"), w.node("cam", "camera")
	pi.echo()
	laptop.echo()
	for _, do := range []func() error{
		func() error {
			_, err := ops.Do(t.Context(), w.svc, ops.Root(), ops.SetPolicy{Text: `{"rules":[{"from":["*"],"to":["*"],"ports":["*"]}]}`})
			return err
		},
		func() error {
			_, err := ops.Do(t.Context(), w.svc, ops.Root(), ops.CreateUser{Name: "boss", Role: ops.RoleOwner})
			return err
		},
	} {
		if err := do(); err != nil {
			t.Fatal(err)
		}
	}
	haveRules := func() {
		t.Helper()
		eventually(t, 20*time.Second, "all have the rules", func() bool {
			for _, n := range []*node{pi, laptop, cam} {
				if n.Versions().Config != w.svc.Versions(n.id()).Config {
					return false
				}
			}
			return true
		})
	}
	haveRules()
	type conn interface {
		io.ReadWriteCloser
		SetDeadline(time.Time) error
	}
	dial := func(n *node, to string) conn {
		t.Helper()
		eventually(t, 20*time.Second, "a path there", func() bool { _, err := n.Resolve(t.Context(), to); return err == nil })
		c := n.dial("tcp4", to+":7")
		say(t, c, "before")
		return c.(conn)
	}
	echoes := func(c conn, wait time.Duration) bool {
		c.SetDeadline(time.Now().Add(wait))
		if _, err := io.WriteString(c, "x"); err != nil {
			return false
		}
		_, err := io.ReadFull(c, make([]byte, 1))
		return err == nil
	}
	hers, tagged := dial(laptop, "kitchen-pi"), dial(cam, "kitchen-pi")
	start := time.Now()
	if _, err := ops.Do(t.Context(), w.svc, ops.Root(), ops.SuspendUser{Name: "admin"}); err != nil {
		t.Fatal(err)
	}
	eventually(t, 20*time.Second, "the laptop is cut off", func() bool { return !echoes(hers, 200*time.Millisecond) })
	t.Logf("cut %s after that", time.Since(start).Round(time.Millisecond))
	if !echoes(tagged, 20*time.Second) {
		t.Error("a device with a tag is cut off")
	}
	dial(cam, "laptop") // can be reached
	if _, err := ops.Do(t.Context(), w.svc, ops.Root(), ops.ResumeUser{Name: "admin"}); err != nil {
		t.Fatal(err)
	}
	haveRules()
	dial(laptop, "kitchen-pi")
}
