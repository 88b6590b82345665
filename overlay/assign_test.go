package overlay_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"weft/coord/ops"
	"weft/overlay/cert"
	"weft/overlay/status"
)

func (w *world) policy(text string) {
	w.t.Helper()
	if _, err := ops.Do(w.t.Context(), w.svc, ops.Root(), ops.SetPolicy{Text: text}); err != nil {
		w.t.Fatal(err)
	}
}

// tag gives a device these tags and no others.
func (w *world) tag(id cert.NodeID, tags ...string) {
	w.t.Helper()
	if _, err := ops.Do(w.t.Context(), w.svc, ops.Root(), ops.AssignDevice{ID: id, Tags: &tags}); err != nil {
		w.t.Fatal(err)
	}
}

// assigned waits until a node's certificate has these tags.
func (n *node) assigned(tags ...string) {
	n.w.t.Helper()
	eventually(n.w.t, 20*time.Second, fmt.Sprintf("%s has the tags %v", n.cfg.Hostname, tags), func() bool { return slices.Equal(n.Tags(), tags) })
}

// isCut waits until nothing comes back over a connection.
func isCut(t *testing.T, c net.Conn) {
	t.Helper()
	eventually(t, 20*time.Second, "the connection is cut", func() bool {
		c.SetDeadline(time.Now().Add(200 * time.Millisecond))
		io.WriteString(c, "x")
		_, err := io.ReadFull(c, make([]byte, 1))
		return err != nil
	})
}

// canReach waits until an echo answers: the device called may be about to fetch the rules
// that go with its tags.
func (n *node) canReach(address string) {
	n.w.t.Helper()
	eventually(n.w.t, 20*time.Second, n.cfg.Hostname+" reaches "+address, func() bool {
		ctx, cancel := context.WithTimeout(n.w.t.Context(), 5*time.Second)
		defer cancel()
		c, err := n.Dial(ctx, "tcp", address)
		if err != nil {
			return false
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(5 * time.Second))
		io.WriteString(c, "x")
		_, err = io.ReadFull(c, make([]byte, 1))
		return err == nil
	})
}

func (n *node) mayReach(peer string) bool {
	_, err := n.Resolve(n.w.t.Context(), peer)
	return err == nil
}

// A device gets other tags while it is connected. A connection that the policy allows
// before and after goes on; one that it no longer allows ends. The device never believes
// that it was deleted.
func TestTagsOfAConnectedDevice(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.policy(`{"rules":[{"from":["user:admin"],"to":["tag:door"],"ports":["tcp:7"]}]}`)
	pi, laptop := w.node("kitchen-pi", "door"), w.node("laptop")
	watchRevoked(t, pi)
	pi.echo()
	c := laptop.dial("tcp", "kitchen-pi:7")
	say(t, c, "before")
	w.tag(pi.id(), "camera", "door")
	pi.assigned("camera", "door")
	say(t, c, "with one more tag")
	w.tag(pi.id(), "camera")
	isCut(t, c)
	pi.assigned("camera")
	eventually(t, 20*time.Second, "the laptop forgets it", func() bool { return !laptop.mayReach("kitchen-pi") })
	wantKind(t, laptop.dialFails("kitchen-pi:7", 3*time.Second), status.KindUnknown)
	w.tag(pi.id(), "door")
	pi.assigned("door")
	laptop.canReach("kitchen-pi:7")
}

// watchRevoked fails the test if a device believes that it was deleted.
func watchRevoked(t *testing.T, n *node) {
	done := make(chan struct{})
	t.Cleanup(sync.OnceFunc(func() { close(done) }))
	running := n.Node
	go func() {
		for {
			for _, h := range running.Status().Health {
				if h.Code == status.CodeRevoked {
					t.Errorf("%s believes that it was deleted: %s", h.Code, h.Message)
					return
				}
			}
			select {
			case <-done:
				return
			case <-time.After(5 * time.Millisecond):
			}
		}
	}()
}

// What a device may reach follows its tags, and its owner when it has none. Its directory
// is whole afterwards: what its new class sees is older than the directory that it had.
func TestTagsOfTheCaller(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	if _, err := ops.Do(t.Context(), w.svc, ops.Root(), ops.CreateUser{Name: "bob"}); err != nil {
		t.Fatal(err)
	}
	w.policy(`{"rules":[
		{"from":["tag:robot"],"to":["tag:door"],"ports":["tcp:7"]},
		{"from":["tag:eye"],"to":["tag:camera"],"ports":["tcp:7"]},
		{"from":["user:bob"],"to":["tag:door"],"ports":["tcp:7"]}]}`)
	door, camera, robot := w.node("door", "door"), w.node("camera", "camera"), w.node("robot", "robot")
	door.echo()
	camera.echo()
	sees := func(what string, names ...string) {
		t.Helper()
		eventually(t, 20*time.Second, fmt.Sprintf("%s: it sees %v", what, names), func() bool {
			var seen []string
			for _, p := range robot.Status().Peers {
				seen = append(seen, p.Name)
			}
			slices.Sort(seen)
			return slices.Equal(seen, names)
		})
	}
	sees("robot", "door")
	c := robot.dial("tcp", "door:7")
	say(t, c, "before")
	w.tag(robot.id(), "eye")
	robot.assigned("eye")
	isCut(t, c)
	sees("eye", "camera")
	robot.canReach("camera:7")
	none, bob := []string{}, "bob"
	if _, err := ops.Do(t.Context(), w.svc, ops.Root(), ops.AssignDevice{ID: robot.id(), Tags: &none, User: &bob}); err != nil {
		t.Fatal(err)
	}
	robot.assigned()
	sees("bob's", "door")
	robot.canReach("door:7")
	wantKind(t, robot.dialFails("camera:7", 3*time.Second), status.KindUnknown)
}

// A device that was switched off, or that cannot reach the server when it hears of the
// list, is neither let in with its former certificate nor taken for a deleted one, and
// goes on by itself once the server answers.
func TestTagsOfAnAbsentDevice(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	pi, laptop := w.node("kitchen-pi", "door"), w.node("laptop")
	pi.echo()
	say(t, laptop.dial("tcp", "kitchen-pi:7"), "before")
	pi.stop()
	w.tag(pi.id(), "camera")
	pi.start()
	watchRevoked(t, pi)
	pi.echo()
	pi.assigned("camera")
	laptop.canReach("kitchen-pi:7")

	w.away.Store(true) // only the relay answers
	w.tag(pi.id(), "hall")
	eventually(t, 20*time.Second, "it says what is wrong", func() bool { return strings.Contains(pi.health(status.CodeRenewal), "tags or the owner") })
	laptop.dialFails("kitchen-pi:7", 3*time.Second)
	pi.restart() // the list is on its disk
	watchRevoked(t, pi)
	pi.echo()
	w.away.Store(false)
	pi.assigned("hall")
	eventually(t, 20*time.Second, "it is well again", func() bool { return pi.health(status.CodeRenewal) == "" })
	laptop.canReach("kitchen-pi:7")
}

// Deleting a device whose tags were changed before still deletes it, also for one that
// hears of both at once.
func TestDeletedAfterItsTagsChanged(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	pi, laptop := w.node("kitchen-pi", "door"), w.node("laptop")
	pi.echo()
	say(t, laptop.dial("tcp", "kitchen-pi:7"), "before")
	pi.stop()
	w.tag(pi.id(), "camera")
	w.deletes("kitchen-pi")
	pi.begin()
	eventually(t, 20*time.Second, "it knows", func() bool { return pi.health(status.CodeRevoked) != "" })
	eventually(t, 20*time.Second, "the laptop forgets it", func() bool { return !laptop.mayReach("kitchen-pi") })
}

// Tags change while the device renews its certificate all the time, and a hundred times
// at once: in the end the certificate says what the server does, and nothing else is in
// force.
func TestTagsWhileRenewing(t *testing.T) {
	t.Parallel()
	w := newWorldOf(t, setup{life: 4 * time.Second})
	pi, laptop := w.node("kitchen-pi", "door"), w.node("laptop")
	watchRevoked(t, pi)
	pi.echo()
	var edits sync.WaitGroup
	var done atomic.Int64
	for i := range 100 {
		edits.Go(func() {
			tags := []string{fmt.Sprint("t", i)}
			_, err := ops.Do(t.Context(), w.svc, ops.Root(), ops.AssignDevice{ID: pi.id(), Tags: &tags})
			if err == nil {
				done.Add(1)
			} else if !errors.Is(err, ops.ErrTooOften) {
				t.Error(err)
			}
		})
	}
	edits.Wait()
	if n := done.Load(); n == 0 || n == 100 {
		t.Errorf("%d of 100 changes were made; so many certificates are not to be in the list", n)
	}
	d, err := w.svc.FindDevice(t.Context(), "kitchen-pi")
	if err != nil {
		t.Fatal(err)
	}
	pi.assigned(d.Tags...)
	laptop.canReach("kitchen-pi:7")
}
