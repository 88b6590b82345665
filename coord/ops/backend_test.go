package ops

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"weft/coord/console"
)

// One link signs in once, however many use it at once; it sets the password
// and ends every other session and link.
func TestUseLink(t *testing.T) {
	s := openSite(t)
	b := &backend{s.Service}
	hash := func() console.Hash {
		t.Helper()
		path, err := s.LoginLink(t.Context(), "")
		if err != nil {
			t.Fatal(err)
		}
		return console.HashToken(path[len("/welcome?link="):])
	}
	link, second := hash(), hash()
	u, err := b.Link(t.Context(), link)
	if err != nil || u.Name != "admin" {
		t.Fatalf("%+v, %v", u, err)
	}
	now := s.clock.Now()
	old := console.Session{ID: console.HashToken("old"), UserID: u.ID, Created: now, Seen: now, Agent: "a\x1b[31mb", Addr: netip.MustParseAddr("192.0.2.1")}
	if err := b.CreateSession(t.Context(), old); err != nil {
		t.Fatal(err)
	}
	if got, _, err := b.Session(t.Context(), old.ID); err != nil || got.Addr != old.Addr || !got.Created.Equal(now) || got.Agent != "a[31mb" {
		t.Errorf("%+v, %v", got, err)
	}
	var ok atomic.Int32
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			if _, err := b.UseLink(t.Context(), link, "$argon2id$x"); err == nil {
				ok.Add(1)
			} else if !errors.Is(err, console.ErrNotFound) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if ok.Load() != 1 {
		t.Errorf("%d uses of one link", ok.Load())
	}
	if _, _, err := b.Session(t.Context(), old.ID); !errors.Is(err, console.ErrNotFound) {
		t.Errorf("an old session lives: %v", err)
	}
	if _, err := b.Link(t.Context(), second); !errors.Is(err, console.ErrNotFound) {
		t.Errorf("an old link lives: %v", err)
	}
	if _, password, err := b.Login(t.Context(), "admin"); err != nil || password != "$argon2id$x" {
		t.Errorf("%q, %v", password, err)
	}
	if _, _, err := b.Login(t.Context(), "nobody"); !errors.Is(err, console.ErrNotFound) {
		t.Errorf("nobody: %v", err)
	}
	expired := hash()
	s.clock.Add(console.LinkLife)
	if _, err := b.UseLink(t.Context(), expired, "x"); !errors.Is(err, console.ErrNotFound) {
		t.Errorf("an expired link: %v", err)
	}
}

// A11 at the console's storage: nobody touches another user's things.
func TestBackendOwners(t *testing.T) {
	s := openSite(t)
	b := &backend{s.Service}
	bob, err := s.CreateUser(t.Context(), "bob")
	if err != nil {
		t.Fatal(err)
	}
	alice, err := s.CreateUser(t.Context(), "alice")
	if err != nil {
		t.Fatal(err)
	}
	laptop := s.joined(CreateKey{UserID: alice.ID}, "laptop")
	keys, err := s.Keys(t.Context(), Root(), 1)
	bobs := s.joined(CreateKey{UserID: bob.ID}, "bobs")
	if err != nil {
		t.Fatal(err)
	}
	id, key := laptop.id.String(), keys[0].ID
	now := s.clock.Now()
	admin := alice.ID
	session := console.Session{ID: console.HashToken("s"), UserID: admin, Created: now, Seen: now}
	if err := b.CreateSession(t.Context(), session); err != nil {
		t.Fatal(err)
	}
	for name, f := range map[string]func() error{
		"device":   func() error { _, err := b.Device(t.Context(), bob.ID, id); return err },
		"rename":   func() error { _, err := b.RenameDevice(t.Context(), bob.ID, id, "x"); return err },
		"delete":   func() error { return b.DeleteDevice(t.Context(), bob.ID, id) },
		"named":    func() error { _, err := b.DeviceNamed(t.Context(), bob.ID, "laptop"); return err },
		"replace":  func() error { _, err := b.ReplaceDevice(t.Context(), bob.ID, bobs.id.String(), id); return err },
		"replaced": func() error { _, err := b.ReplaceDevice(t.Context(), admin, id, bobs.id.String()); return err },
		"test":     func() error { _, err := b.TestConnection(t.Context(), bob.ID, id); return err },
		"key":      func() error { _, err := b.Key(t.Context(), bob.ID, key); return err },
		"revoke":   func() error { return b.RevokeKey(t.Context(), bob.ID, key) },
		"session":  func() error { return b.DeleteSession(t.Context(), bob.ID, session.ID) },
		"junk id":  func() error { return b.DeleteDevice(t.Context(), admin, "../x") },
		"no id":    func() error { _, err := b.Device(t.Context(), admin, ""); return err },
		"no owner": func() error { _, err := b.Device(t.Context(), "", id); return err },
	} {
		if err := f(); !errors.Is(err, console.ErrNotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
	list, err := b.Devices(t.Context(), bob.ID, console.DeviceQuery{Limit: 10})
	if err != nil || list.All != 1 || len(list.Devices) != 1 || list.Devices[0].Name != "bobs" {
		t.Errorf("%+v, %v", list, err)
	}
	if d, err := b.Device(t.Context(), admin, id); err != nil || d.Name != "laptop" {
		t.Errorf("%+v, %v", d, err)
	}
	fresh := s.joined(CreateKey{UserID: alice.ID}, "laptop")
	d, err := b.ReplaceDevice(t.Context(), admin, fresh.id.String(), id)
	if err != nil || d.Name != "laptop" || d.ID != fresh.id.String() {
		t.Errorf("%+v, %v", d, err)
	}
	if _, err := b.Device(t.Context(), admin, id); !errors.Is(err, console.ErrNotFound) {
		t.Errorf("the replaced device: %v", err)
	}
}

func TestBackendDevices(t *testing.T) {
	s := openSite(t)
	b := &backend{s.Service}
	laptop := s.laptop("laptop")
	cams := []*device{s.camera("cam"), s.camera("cam"), s.camera("door")}
	keys, _ := s.Keys(t.Context(), Root(), 10)
	user := keys[0].UserID
	s.Presence(laptop.id, 1, true, s.clock.Now(), netip.MustParseAddr("::ffff:192.0.2.9"))
	for _, c := range []struct {
		q     console.DeviceQuery
		names []string
		total int
	}{
		{console.DeviceQuery{Limit: 10}, []string{"cam", "cam-1", "door", "laptop"}, 4},
		{console.DeviceQuery{Limit: 2, Offset: 1}, []string{"cam-1", "door"}, 4},
		{console.DeviceQuery{Limit: 10, Text: "CAM device"}, []string{"cam", "cam-1"}, 2},
		{console.DeviceQuery{Limit: 1, Offset: 1, Text: "cam"}, []string{"cam-1"}, 2},
		{console.DeviceQuery{Limit: 10, Text: cams[2].res.Config.Self.IPv4}, []string{"door"}, 1},
		{console.DeviceQuery{Limit: 10, State: "online"}, []string{"laptop"}, 1},
		{console.DeviceQuery{Limit: 10, State: "offline", Text: "o"}, []string{"door"}, 1},
		{console.DeviceQuery{Limit: 10, Text: "%"}, nil, 0},
		{console.DeviceQuery{Limit: 10, Offset: 99}, nil, 4},
	} {
		list, err := b.Devices(t.Context(), user, c.q)
		if err != nil || list.Total != c.total || list.All != 4 || list.Online != 1 || len(list.Devices) != len(c.names) {
			t.Errorf("%+v: %+v, %v", c.q, list, err)
			continue
		}
		for i, d := range list.Devices {
			if d.Name != c.names[i] {
				t.Errorf("%+v: %d is %s", c.q, i, d.Name)
			}
		}
	}
	if d, _ := b.Device(t.Context(), user, laptop.id.String()); !d.Online || d.Addr != "192.0.2.9" || d.Relay == "" {
		t.Errorf("%+v", d)
	}
}

// What an open console hears, in order; one that does not listen is let go.
// Devices are asked whether they are there when somebody looks, and not for a page
// that was left open.
func TestAsksDevicesForPeopleOnly(t *testing.T) {
	s := openSite(t)
	b := &backend{s.Service}
	laptop := s.laptop("laptop")
	keys, err := s.Keys(t.Context(), Root(), 1)
	if err != nil {
		t.Fatal(err)
	}
	owner := keys[0].UserID
	show := func(ctx context.Context) (looks int) {
		t.Helper()
		before := s.told.looks
		if _, err := b.Devices(ctx, owner, console.DeviceQuery{Limit: 10}); err != nil {
			t.Fatal(err)
		}
		if _, err := b.Device(ctx, owner, laptop.id.String()); err != nil {
			t.Fatal(err)
		}
		return s.told.looks - before
	}
	if n := show(t.Context()); n != 2 {
		t.Errorf("asked for %d of two pages that somebody opened", n)
	}
	if n := show(console.Passive(t.Context())); n != 0 {
		t.Errorf("asked for %d of two pages that were left open", n)
	}
}

func TestSubscribe(t *testing.T) {
	s := openSite(t)
	b := &backend{s.Service}
	s.laptop("first")
	keys, _ := s.Keys(t.Context(), Root(), 1)
	user := keys[0].UserID
	events, cancel := b.Subscribe(user)
	lagging, cancelLagging := b.Subscribe(user)
	defer cancelLagging()
	d := s.camera("cam")
	s.RenameDevice(t.Context(), d.id, "hall")
	s.DeleteDevice(t.Context(), d.id)
	for _, want := range []struct {
		kind console.EventKind
		name string
	}{{console.EventJoined, "cam"}, {console.EventRenamed, "hall"}, {console.EventDeleted, "hall"}} {
		select {
		case e := <-events:
			if e.Kind != want.kind || e.Device.Name != want.name || e.Device.ID != d.id.String() {
				t.Errorf("%+v, want %+v", e, want)
			}
		case <-time.After(5 * time.Second):
			t.Fatal("nothing came")
		}
	}
	cancel()
	cancel() // twice is fine
	preload(t, s, 3*lag)
	n := 0
	for range lagging {
		n++
	}
	if n > 2*lag+64 {
		t.Errorf("%d events were kept for a reader that did not read", n)
	}
}
