package ops

import (
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"weft/coord/store"
	"weft/overlay/cert"
)

// alter changes a device's row, as renewals do.
func (s *site) alter(d *device, f func(*store.Node)) {
	s.t.Helper()
	if err := s.store.Write(s.t.Context(), func(tx *store.Tx) error {
		n, err := tx.Node(s.network, d.id)
		if err != nil {
			return err
		}
		f(&n)
		return tx.UpdateNode(s.network, n)
	}); err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) foundNames(a Actor, q DeviceQuery) string {
	s.t.Helper()
	list, err := s.Devices(Passive(s.t.Context()), a, q)
	if err != nil {
		s.t.Errorf("%+v: %v", q, err)
		return err.Error()
	}
	var names []string
	for _, d := range list.Devices {
		names = append(names, d.Name)
	}
	return strings.Join(names, " ")
}

// fleet is six devices that differ in everything.
func fleet(t *testing.T) *site {
	s := openSite(t)
	for _, name := range []string{"anna", "bob"} {
		if _, err := s.CreateUser(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	tagged := func(name string, tags ...string) *device { return s.joined(CreateKey{Tags: tags}, name) }
	cam1, cam2, pi := tagged("cam-1", "device", "camera", "site-berlin"), tagged("cam-2", "device", "camera"), tagged("pi", "device", "sensor")
	mac, pc, old := s.joined(CreateKey{User: "anna"}, "mac"), s.joined(CreateKey{User: "bob"}, "pc"), tagged("old", "device")
	if _, err := s.RenameDevice(t.Context(), pi.id, "Küche"); err != nil {
		t.Fatal(err)
	}
	for d, v := range map[*device][2]string{cam1: {"linux/arm64", "1.2.0"}, cam2: {"linux/arm64", "1.10.0"}, pi: {"linux/mipsle", "1.2.1"}, mac: {"darwin/arm64", "1.3.0-rc1"}, pc: {"windows/amd64", "v1.3.0"}, old: {"linux/arm", "dev"}} {
		s.alter(d, func(n *store.Node) { n.OS, n.Software = v[0], v[1] })
	}
	now := s.clock.Now()
	for i, d := range []*device{cam1, mac, pc} {
		s.Presence(d.id, uint64(i)+1, true, now, netip.MustParseAddr("192.0.2.9"))
	}
	s.Presence(pc.id, 9, false, now, netip.Addr{})
	for d, ago := range map[*device]time.Duration{cam2: 2 * time.Hour, pi: 10 * 24 * time.Hour} {
		if err := s.store.Write(t.Context(), func(tx *store.Tx) error { return tx.SetSeen(s.network, map[cert.NodeID]time.Time{d.id: now.Add(-ago)}) }); err != nil {
			t.Fatal(err)
		}
	}
	s.clock.Add(2 * time.Minute) // nobody may be connected unknown any more
	s.alter(old, func(n *store.Node) { n.Expires = s.clock.Now().Add(-time.Hour) })
	return s
}

// A device is found by what a list shows of it, and by each kind of term and its opposite.
func TestDeviceFilter(t *testing.T) {
	s := fleet(t)
	const kitchen = "xn--kche-0ra"
	for filter, want := range map[string]string{
		"":                                    "cam-1 cam-2 mac old pc " + kitchen,
		"is:online":                           "cam-1 mac",
		"is:offline":                          "cam-2 old pc " + kitchen,
		"-is:online":                          "cam-2 old pc " + kitchen,
		"is:online,offline":                   "cam-1 cam-2 mac old pc " + kitchen,
		"is:attention":                        "old",
		"is:expired":                          "old",
		"is:ephemeral":                        "",
		"IS:Online tag:camera":                "cam-1",
		"tag:camera":                          "cam-1 cam-2",
		"tag:camera tag:site-berlin":          "cam-1",
		"tag:#site-berlin,sensor":             "cam-1 " + kitchen,
		"-tag:camera":                         "mac old pc " + kitchen,
		"tag:":                                "mac pc",
		"-tag:":                               "cam-1 cam-2 old " + kitchen,
		"owner:anna,BOB":                      "mac pc",
		"user:anna":                           "mac",
		"-owner:admin":                        "mac pc",
		"os:linux":                            "cam-1 cam-2 old " + kitchen,
		"os:macos":                            "mac",
		"os:darwin":                           "mac",
		"system:arm64 -os:macOS":              "cam-1 cam-2",
		"version:<1.3":                        "cam-1 mac old " + kitchen,
		"version:<1.3 -version:<1.2.1":        "mac " + kitchen,
		"version:>=1.3":                       "cam-2 pc",
		"version:>1.3.0 version:<=2":          "cam-2",
		"version:1.2":                         "cam-1 " + kitchen,
		"version:1.3.0":                       "mac pc",
		"version:=v1.1":                       "",
		"seen:<1h":                            "cam-1 mac pc",
		"seen:>1h":                            "cam-2 old " + kitchen,
		"seen:>7d -seen:never":                kitchen,
		"seen:>1w":                            "old " + kitchen,
		"seen:never":                          "old",
		"relay:" + relayName:                  "cam-1 mac",
		"-relay:" + relayName + " owner:anna": "",
		"Küche":                               kitchen,
		"KÜCHE":                               kitchen,
		"Ku\u0308che":                         kitchen, // as a Mac writes it
		"küche.weft.internal":                 kitchen,
		"#site-berlin":                        "cam-1",
		"berlin":                              "cam-1",
		"macOS":                               "mac",
		"darwin":                              "mac",
		"anna":                                "mac",
		"camera 1.10":                         "cam-2",
		"cam -cam-1":                          "cam-2",
		`"linux, arm64" -"cam-2"`:             "cam-1",
		`"tag:camera"`:                        "",
		"zzz":                                 "",
		"-zzz":                                "cam-1 cam-2 mac old pc " + kitchen,
	} {
		if got := s.foundNames(s.owner(), DeviceQuery{Filter: filter, Limit: 100}); got != want {
			t.Errorf("%s\n got %s\nwant %s", filter, got, want)
		}
	}
	list, err := s.Devices(t.Context(), s.owner(), DeviceQuery{Filter: "pc"})
	if err != nil || len(list.Devices) != 1 {
		t.Fatal(list, err)
	}
	for _, word := range []string{list.Devices[0].IPv4.String(), list.Devices[0].IPv6.String(), strings.ToUpper(list.Devices[0].IPv6.String()[:9])} {
		if got := s.foundNames(s.owner(), DeviceQuery{Filter: word}); !strings.Contains(got, "pc") {
			t.Errorf("by address %s: %s", word, got)
		}
	}
	for filter, want := range map[string]string{
		"colour:red":              "there is no filter \"colour:\"",
		"is:green":                "is:green: a device is online, offline,",
		"is:":                     "a device is online",
		"owner:":                  "owner: want a value, such as owner:anna",
		"version:<":               "want a version",
		"version:1 x:c":           `there is no filter "x:"`,
		"seen:7d":                 "want seen:>7d",
		"seen:>7y":                "want seen:>7d",
		"seen:>999999999d":        "want seen:>7d",
		strings.Repeat("a ", 41):  "at most 40 terms",
		strings.Repeat("a", 1001): "at most 1000 bytes",
	} {
		_, err := s.Devices(t.Context(), s.owner(), DeviceQuery{Filter: filter})
		if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40s: %v, want %s", filter, err, want)
		}
	}
}

// Each column sorts both ways, what is alike by name, and pages by cursor or offset hold
// each device once.
func TestDevicesSorted(t *testing.T) {
	s := fleet(t)
	const kitchen = "xn--kche-0ra"
	for by, want := range map[string]string{
		"":         "cam-1 cam-2 mac old pc " + kitchen,
		"-name":    kitchen + " pc old mac cam-2 cam-1",
		"status":   "old cam-2 pc " + kitchen + " cam-1 mac",
		"-status":  "cam-1 mac cam-2 pc " + kitchen + " old",
		"tags":     "cam-2 cam-1 " + kitchen + " mac old pc",
		"-tags":    "mac old pc " + kitchen + " cam-1 cam-2",
		"address":  "cam-1 cam-2 " + kitchen + " mac pc old",
		"-address": "old pc mac " + kitchen + " cam-2 cam-1",
		"relay":    "cam-1 mac cam-2 old pc " + kitchen,
		"version":  "old cam-1 " + kitchen + " mac pc cam-2",
		"-version": "cam-2 pc mac " + kitchen + " cam-1 old",
		"owner":    "cam-1 cam-2 old " + kitchen + " mac pc",
		"-owner":   "pc mac cam-1 cam-2 old " + kitchen,
		"system":   "old cam-1 cam-2 " + kitchen + " mac pc",
		"seen":     "cam-1 mac pc cam-2 " + kitchen + " old",
		"-seen":    "old " + kitchen + " cam-2 pc cam-1 mac",
	} {
		if got := s.foundNames(s.owner(), DeviceQuery{Sort: by}); got != want && !strings.HasSuffix(by, "address") {
			t.Errorf("by %s:\n got %s\nwant %s", by, got, want)
		}
		for limit := 1; limit < 6; limit += 3 {
			var byCursor, byOffset []string
			q := DeviceQuery{Sort: by, Limit: limit}
			for range 10 {
				list, err := s.Devices(t.Context(), s.owner(), q)
				if err != nil {
					t.Fatal(err)
				}
				for _, d := range list.Devices {
					byCursor = append(byCursor, d.Name)
				}
				if q.After = list.Next; q.After == "" {
					break
				}
			}
			q.After = ""
			for q.Offset = 0; q.Offset < 6; q.Offset += limit {
				byOffset = append(byOffset, s.foundNames(s.owner(), q))
			}
			all := s.foundNames(s.owner(), DeviceQuery{Sort: by})
			if got := strings.Join(byCursor, " "); got != all {
				t.Errorf("by %s, %d at a time: %s, want %s", by, limit, got, all)
			}
			if got := strings.Join(byOffset, " "); got != all {
				t.Errorf("by %s, %d at a time by offset: %s, want %s", by, limit, got, all)
			}
		}
	}
	// The device that a cursor names may be gone.
	list, err := s.Devices(t.Context(), s.owner(), DeviceQuery{Sort: "-version", Limit: 2})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.DeleteDevice(t.Context(), list.Devices[1].ID); err != nil {
		t.Fatal(err)
	}
	if got := s.foundNames(s.owner(), DeviceQuery{Sort: "-version", After: list.Next}); got != "mac "+kitchen+" cam-1 old" {
		t.Error(got)
	}
	for _, q := range []DeviceQuery{{Sort: "colour"}, {Sort: "--name"}, {State: "green"}} {
		if _, err := s.Devices(t.Context(), s.owner(), q); !errors.Is(err, ErrInvalid) {
			t.Errorf("%+v: %v", q, err)
		}
	}
	for _, after := range []string{"x", "1 2 3", "\x00", strings.Repeat("9", 30)} { // of nobody's
		if _, err := s.Devices(t.Context(), s.owner(), DeviceQuery{Sort: "seen", After: after, Limit: 2}); err != nil {
			t.Errorf("%q: %v", after, err)
		}
	}
}

// Whatever the query: nobody finds, counts, exports or gets ids of what is not theirs to
// see, nor the values of it.
func TestDeviceQueryAuthorized(t *testing.T) {
	s := fleet(t)
	anna, err := s.Login(t.Context(), "anna")
	if err != nil {
		t.Fatal(err)
	}
	member := ConsoleActor(anna, netip.MustParseAddr("192.0.2.51"))
	narrowed := s.owner()
	narrowed.Role, narrowed.Tags = RoleOperator, []string{"camera"}
	for _, c := range []struct {
		who  string
		a    Actor
		want string
	}{{"a member", member, "mac"}, {"somebody narrowed to a tag", narrowed, "cam-1 cam-2"}} {
		for _, q := range []DeviceQuery{{}, {Sort: "-seen"}, {Filter: "-zzz"}, {Filter: "is:online,offline,attention"}, {Filter: "-owner:zzz", Limit: 1000}} {
			got := strings.Fields(s.foundNames(c.a, q))
			slices.Sort(got)
			if strings.Join(got, " ") != c.want {
				t.Errorf("%s with %+v: %v", c.who, q, got)
			}
			var each []string
			if err := s.EachDeviceOf(t.Context(), c.a, q, func(d Device) error { each = append(each, d.Name); return nil }); err != nil {
				t.Fatal(err)
			}
			slices.Sort(each)
			ids, total, err := s.DeviceIDs(t.Context(), c.a, q)
			if !slices.Equal(each, got) || len(ids) != len(got) || total != len(got) || err != nil {
				t.Errorf("%s with %+v: exports %v, ids %v of %d, %v", c.who, q, each, ids, total, err)
			}
		}
		for _, hidden := range []string{"pc", "old", "küche", "windows"} {
			if got := s.foundNames(c.a, DeviceQuery{Filter: hidden}); got != "" {
				t.Errorf("%s finds %s by %s", c.who, got, hidden)
			}
		}
		f, err := s.DeviceFacets(t.Context(), c.a)
		if err != nil {
			t.Fatal(err)
		}
		if text := fmt.Sprint(f); strings.Contains(text, "sensor") || strings.Contains(text, "bob") || strings.Contains(text, "Windows") || strings.Contains(text, "dev") {
			t.Errorf("%s: %s", c.who, text)
		}
	}
	weak := s.owner()
	weak.Weak = true
	for _, a := range []Actor{{}, weak} {
		for name, f := range map[string]func() error{
			"list":   func() error { _, err := s.Devices(t.Context(), a, DeviceQuery{}); return err },
			"ids":    func() error { _, _, err := s.DeviceIDs(t.Context(), a, DeviceQuery{}); return err },
			"facets": func() error { _, err := s.DeviceFacets(t.Context(), a); return err },
			"each": func() error {
				return s.EachDeviceOf(t.Context(), a, DeviceQuery{}, func(Device) error { t.Error("a device"); return nil })
			},
		} {
			if err := f(); err == nil {
				t.Errorf("%s for %+v", name, a)
			}
		}
	}
}

// What was written is in the next answer, and an open page does not read the database.
func TestDeviceRows(t *testing.T) {
	s := fleet(t)
	owner := s.owner()
	online := DeviceQuery{Filter: "is:online"}
	if got := s.foundNames(owner, online); got != "cam-1 mac" {
		t.Fatal(got)
	}
	held := s.lists.held
	mac, err := s.Device(Passive(t.Context()), owner, "mac")
	if err != nil {
		t.Fatal(err)
	}
	s.Presence(mac.ID, 7, false, s.clock.Now(), netip.Addr{})
	if got := s.foundNames(owner, DeviceQuery{Filter: "-is:online owner:anna"}); got != "mac" {
		t.Errorf("after it went: %s", got)
	}
	if held == nil || s.lists.held != held {
		t.Error("the rows were read again though nothing was written")
	}
	if _, err := s.RenameDevice(t.Context(), mac.ID, "book"); err != nil {
		t.Fatal(err)
	}
	if got := s.foundNames(owner, DeviceQuery{Filter: "book"}); got != "book" {
		t.Errorf("after it was renamed: %s", got)
	}
	s.lists.forget()
	if s.lists.held == nil {
		t.Error("forgotten in the minute of its use")
	}
	if s.lists.forget(); s.lists.held != nil {
		t.Error("held although nobody looks")
	}
}

// Whatever was written to rows of devices, a list has them as the database has; what was not
// written is not read again.
func TestDeviceRowsFollow(t *testing.T) {
	s := fleet(t)
	node := func(d *device) store.Node { return mustNode(t, s, d.id) }
	rows := func() []*heldRow {
		t.Helper()
		h, err := s.deviceRows(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var stored []store.Node
		err = s.store.Read(t.Context(), func(r *store.Reader) error {
			return r.EachListed(s.network, store.NodePage{Ending: s.asksIssued()}, func(n store.Node) error { stored = append(stored, n); return nil })
		})
		if err != nil {
			t.Fatal(err)
		}
		if len(stored) != len(h.rows) {
			t.Errorf("%d rows, the database has %d", len(h.rows), len(stored))
			return h.rows
		}
		for i, n := range stored {
			if !reflect.DeepEqual(h.rows[i].Node, n) {
				t.Errorf("held %+v, the database has %+v", h.rows[i].Node, n)
			}
		}
		return h.rows
	}
	var many []*device
	for i := range 20 { // so many that a few are read by themselves
		many = append(many, s.camera(fmt.Sprint("many-", i)))
	}
	anna, ofAnna := s.joined(CreateKey{User: "anna"}, "anna-1"), s.joined(CreateKey{User: "anna"}, "anna-2")
	if err := s.flushSeen(false); err != nil {
		t.Fatal(err)
	}
	last := rows()
	for _, step := range []struct {
		name   string
		change func()
		read   int // rows that are other ones than before
	}{
		{"nothing", func() { s.member("carol") }, 0},
		{"joined", func() { s.camera("aa-first") }, 1},
		{"renamed", func() { s.RenameDevice(t.Context(), many[3].id, "zz-last") }, 1},
		{"moved", func() { s.mustAssign(many[4], []string{"door"}, "") }, 1},
		{"renewed", func() { s.clock.Add(nodeLife * 3 / 4); s.renewal(many[5]) }, -1}, // the others need renewal
		{"deleted", func() { s.DeleteDevice(t.Context(), many[6].id) }, 0},
		{"name passes on", func() {
			s.DeleteDevice(t.Context(), many[7].id)
			s.camera("many-7")
		}, 1},
		{"seen", func() {
			s.Presence(many[8].id, 1, true, s.clock.Now(), netip.Addr{})
			if err := s.flushSeen(false); err != nil {
				t.Error(err)
			}
		}, 1},
		{"wildcard", func() {
			if _, err := Do(t.Context(), s.Service, Root(), SetDeviceDNS{many[9].id, DeviceDNS{Wildcard: pointer(true)}}); err != nil {
				t.Error(err)
			}
		}, 1},
		{"overdue", func() {
			if err := s.store.Write(t.Context(), func(tx *store.Tx) error { return s.in(tx).setOverdue([]store.Node{overdue(node(anna))}) }); err != nil {
				t.Error(err)
			}
		}, 3}, // all that anna reaches have another config: mac is hers, too
		{"a write that fails", func() {
			n := node(many[10])
			n.Name = "undone"
			s.store.Write(t.Context(), func(tx *store.Tx) error {
				return errors.Join(tx.UpdateNode(s.network, n), errors.New("undo it"))
			})
		}, 0},
		{"certificates that come to end", func() { s.clock.Add(nodeLife / 2) }, -1},
		{"more than is noted", func() {
			s.lists.wrote(make([]store.Rows, 1))
			for i := range maxWritten + 1 {
				s.lists.wrote([]store.Rows{{Class: fmt.Sprint(i)}})
			}
		}, -1},
		{"a thousand seconds later", func() { s.clock.Add(1000 * time.Second); s.RenameDevice(t.Context(), ofAnna.id, "ann") }, 1},
	} {
		was := map[*heldRow]bool{}
		for _, row := range last {
			was[row] = true
		}
		step.change()
		last = rows()
		read := 0
		for _, row := range last {
			if !was[row] {
				read++
			}
		}
		if step.read >= 0 && read != step.read {
			t.Errorf("%s: %d rows were read again, want %d", step.name, read, step.read)
		}
	}
}

func overdue(n store.Node) store.Node { n.Overdue = true; return n }

// Lists that are asked for while devices change have what was written before they were.
func TestDeviceRowsMeanwhile(t *testing.T) {
	s := openSite(t)
	owner := s.owner()
	var ids []cert.NodeID
	for i := range 30 {
		ids = append(ids, s.camera(fmt.Sprint("d-", i)).id)
	}
	var all sync.WaitGroup
	for w := range 3 {
		all.Go(func() {
			for i := range 20 {
				name := fmt.Sprintf("w%d-%d", w, i)
				if _, err := s.RenameDevice(t.Context(), ids[w*10+i%10], name); err != nil {
					t.Error(err)
				}
				l, err := s.Devices(Passive(t.Context()), owner, DeviceQuery{Filter: name})
				if err != nil || !slices.ContainsFunc(l.Devices, func(d Device) bool { return d.Name == name }) {
					t.Errorf("%s was not found: %v", name, err)
				}
				if i%7 == w {
					s.lists.forget()
				}
			}
		})
	}
	all.Wait()
}

// A device that has not fetched what its new tags made necessary is pending.
func TestDevicePending(t *testing.T) {
	s := openSite(t)
	pi := s.tagged("pi", "camera")
	if got := s.foundNames(s.owner(), DeviceQuery{Filter: "is:pending"}); got != "" {
		t.Error(got)
	}
	s.mustAssign(pi, []string{"camera", "door"}, "")
	if got := s.foundNames(s.owner(), DeviceQuery{Filter: "is:pending"}); got != "pi" {
		t.Error(got)
	}
	s.Holds(pi.id, s.Versions(pi.id))
	if got := s.foundNames(s.owner(), DeviceQuery{Filter: "is:pending"}); got != "" {
		t.Error(got)
	}
}

func FuzzDeviceFilter(f *testing.F) {
	for _, s := range []string{"", "is:online tag:x -tag:y owner:anna version:<1.2 seen:>7d os:linux relay:name words", `"a b" -"-x" tag:"a ""b"""`, `"`, `--`, `-"`, "fd00::1", "tag:a:b", `"tag":x`, "is:", "-", "user:x,", "\xff", "Ü:x", `a"b c"d`, "is:\"online\""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		a, err := ParseDeviceFilter(text)
		if err != nil {
			if !errors.Is(err, ErrInvalid) || len(err.Error()) > 500 {
				t.Fatalf("%q: %v", text, err)
			}
			return
		}
		written := a.String()
		if len(written) > maxFilter {
			return
		}
		b, err := ParseDeviceFilter(written)
		if err != nil || !reflect.DeepEqual(a, b) || b.String() != written {
			t.Fatalf("%q is written %q\nread as %+v\nand then %+v, %v", text, written, a, b, err)
		}
	})
}
