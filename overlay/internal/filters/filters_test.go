package filters

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"weft/overlay/api"
	"weft/overlay/cert"
	"weft/overlay/internal/filter"
	"weft/overlay/internal/state"
)

// kernelLike is a host whose connections outlive the process.
type kernelLike struct{ epoch string }

func (k kernelLike) open(f *Table, dir *state.Dir, now int64) {
	f.Open(dir, k.epoch, 32768, 60999, now)
}

func filterID(i int) (id cert.NodeID) {
	binary.BigEndian.PutUint32(id[:], uint32(i)+1)
	return id
}

var usHere = []netip.Addr{netip.MustParseAddr("100.64.0.1"), netip.MustParseAddr("fd00::1")}

func addrsOfPeer(i int) []netip.Addr {
	return []netip.Addr{netip.AddrFrom4([4]byte{100, 65, byte(i >> 8), byte(i)}), netip.MustParseAddr(fmt.Sprintf("fd00::2:%x", i))}
}

func openPorts(proto string, first, last uint16) *filter.Ports {
	return filter.Compile([]api.Rule{{From: []string{"*"}, Ports: []api.PortRange{{Proto: proto, First: first, Last: last}}}}, &cert.Node{}, filter.Terms{})
}

// segment is a TCP packet without data.
func segment(src, dst netip.Addr, from, to uint16, flags byte) []byte {
	b := make([]byte, 40)
	b[0], b[3], b[9] = 0x45, 40, 6
	copy(b[12:], src.AsSlice())
	copy(b[16:], dst.AsSlice())
	binary.BigEndian.PutUint16(b[20:], from)
	binary.BigEndian.PutUint16(b[22:], to)
	b[32], b[33] = 5<<4, flags
	return b
}

const (
	flagSYN = 0x02
	flagACK = 0x10
)

// answers reports whether the peer's answers to a connection from our port are let in.
func answers(p *filter.Peer, peer int, port uint16) bool {
	return p.CheckIn(segment(addrsOfPeer(peer)[0], usHere[0], 443, port, flagACK), 0).OK()
}

// goesOn sends, from a port, a packet in the middle of a connection.
func goesOn(p *filter.Peer, peer int, port uint16) bool {
	p.NoteOut(segment(usHere[0], addrsOfPeer(peer)[0], port, 443, flagACK), 0)
	return answers(p, peer, port)
}

func testState(t *testing.T) *state.Dir {
	t.Helper()
	s, err := state.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func stamp(t *testing.T, s *state.Dir) os.FileInfo {
	t.Helper()
	fi, err := os.Stat(s.File(state.FiltersFile))
	if err != nil {
		t.Fatal(err)
	}
	return fi
}

// A bounded number of filters without a tunnel is kept, preferably those with a
// connection of ours, and the records of the others remain.
func TestKeptFilters(t *testing.T) {
	f := New(slog.New(slog.DiscardHandler))
	f.Open(nil, "", 0, 0, 0)
	busy := f.Of(filterID(0), usHere, addrsOfPeer(0), openPorts("tcp", 22, 22))
	busy.NoteOut(segment(usHere[0], addrsOfPeer(0)[0], 40000, 443, flagSYN), 0)
	f.Release(filterID(0), 0)
	for i := 1; i <= 3*maxKept; i++ {
		p := f.Of(filterID(i), usHere, addrsOfPeer(i), openPorts("udp", 50000+uint16(i%5), 50000+uint16(i%5)))
		f.Release(filterID(i), 0)
		f.Release(filterID(i), 0)
		if p.Ports().Any() {
			t.Fatal("something is open to a peer without a tunnel")
		}
	}
	if len(f.peers) > maxKept || len(f.pasts) > maxPasts {
		t.Errorf("%d filters and %d pasts are kept", len(f.peers), len(f.pasts))
	}
	again := f.Of(filterID(0), usHere, addrsOfPeer(0), nil)
	if again != busy || !answers(again, 0, 40000) {
		t.Error("the filter with a connection of ours was not kept")
	}
	for i := 1; i <= 3*maxKept; i++ {
		p := f.Of(filterID(i), usHere, addrsOfPeer(i), nil)
		if want := uint16(50000 + i%5); !p.History().Covers(filter.History{UDP: [][2]uint16{{want, want}}}) {
			t.Fatalf("what was open to peer %d is forgotten", i)
		}
	}
	// Another node with the same address, and the same node with another.
	if p := f.Of(filterID(5000), usHere, addrsOfPeer(0), nil); p == again || answers(p, 0, 40000) {
		t.Error("a node got what belongs to the one that had its address before")
	}
	if p := f.Of(filterID(0), usHere, addrsOfPeer(6000), nil); p == again {
		t.Error("the filter was kept for another address")
	}
}

// A record is on disk before a port is opened, so the next daemon does not take a peer's
// connection for its own. Nothing is written when nothing is new.
func TestFiltersOnDisk(t *testing.T) {
	s := testState(t)
	next := func(epoch string) *Table {
		f := New(slog.New(slog.DiscardHandler))
		kernelLike{epoch: epoch}.open(f, s, 0)
		return f
	}
	f := next("boot 1")
	p := f.Of(filterID(1), usHere, addrsOfPeer(1), openPorts("tcp", 22, 22))
	if goesOn(p, 1, 40000) {
		t.Error("adopted without a memory")
	}

	f = next("boot 1")
	first := stamp(t, s)
	p = f.Of(filterID(1), usHere, addrsOfPeer(1), openPorts("tcp", 22, 22))
	f.Of(filterID(2), usHere, addrsOfPeer(2), openPorts("tcp", 80, 443))
	if !os.SameFile(first, stamp(t, s)) {
		t.Error("written though no port for clients was opened")
	}
	if !goesOn(p, 1, 40000) || goesOn(p, 1, 23) || goesOn(p, 1, 8080) {
		t.Error("a connection of ours is not adopted, or another one is")
	}
	f.Set([]Opening{{p, openPorts("tcp", 50000, 50001)}})
	if os.SameFile(first, stamp(t, s)) {
		t.Error("not written before a port was opened")
	}
	first = stamp(t, s)
	for range 3 {
		f.Set([]Opening{{p, nil}})
		f.Set([]Opening{{p, openPorts("tcp", 50001, 50001)}})
		f.Save()
		f.Note(time.Now())
	}
	if !os.SameFile(first, stamp(t, s)) {
		t.Error("written though nothing was new")
	}

	// The daemon is killed. Any node that has the address now is checked.
	f = next("boot 1")
	for _, id := range []int{1, 77} {
		p = f.Of(filterID(id), usHere, addrsOfPeer(1), nil)
		if goesOn(p, 1, 50000) || goesOn(p, 1, 50001) || !goesOn(p, 1, 50002) {
			t.Error("a connection to a port that was open is adopted, or one that is ours is not")
		}
	}
	// After too many other peers nobody knows which connections are old.
	for i := range maxKept + 1 {
		f.Of(filterID(100+i), usHere, addrsOfPeer(100+i), nil)
		f.Release(filterID(100+i), 0)
	}
	if p := f.Of(filterID(999), usHere, addrsOfPeer(999), nil); goesOn(p, 999, 40000) {
		t.Error("adopted after a filter was given up")
	}

	// Connections end with the boot. A daemon that does not know the boot adopts none.
	for _, epoch := range []string{"boot 2", "", "", "boot 1"} {
		f = next(epoch)
		if p := f.Of(filterID(1), usHere, addrsOfPeer(1), nil); goesOn(p, 1, 40000) {
			t.Errorf("adopted in epoch %q", epoch)
		}
	}
	if f = next("boot 1"); !goesOn(f.Of(filterID(1), usHere, addrsOfPeer(1), nil), 1, 40000) {
		t.Error("not adopted in the same epoch")
	}
	if err := os.WriteFile(s.File(state.FiltersFile), []byte(`{"epoch":"boot 1","peers":[{`), 0o600); err != nil {
		t.Fatal(err)
	}
	if f = next("boot 1"); goesOn(f.Of(filterID(1), usHere, addrsOfPeer(1), nil), 1, 40000) {
		t.Error("adopted with a damaged memory")
	}
}

// Ports that a peer has begun to use are written now and then.
func TestUsedPortsAreWrittenNowAndThen(t *testing.T) {
	s := testState(t)
	f := New(slog.New(slog.DiscardHandler))
	kernelLike{epoch: "boot 1"}.open(f, s, 0)
	p := f.Of(filterID(1), usHere, addrsOfPeer(1), openPorts("udp", 0, 65535))
	use := func(port uint16) {
		b := segment(addrsOfPeer(1)[0], usHere[0], 443, port, 0)
		b[9], b[24], b[25] = 17, 0, 20
		if !p.CheckIn(b, 0).OK() {
			t.Fatal("refused")
		}
	}
	now := time.Now()
	use(40000)
	if again := f.Note(now); !again.IsZero() {
		t.Error("the first is not written at once")
	}
	written := stamp(t, s)
	use(40001)
	if again := f.Note(now.Add(time.Second)); !again.Equal(now.Add(useSpacing)) || !os.SameFile(written, stamp(t, s)) {
		t.Errorf("the second is written at once, or asked for at %v", again)
	}
	if again := f.Note(now.Add(useSpacing)); !again.IsZero() || os.SameFile(written, stamp(t, s)) {
		t.Error("the second is never written")
	}
	f = New(slog.New(slog.DiscardHandler))
	kernelLike{epoch: "boot 1"}.open(f, s, 0)
	if past := f.Of(filterID(1), usHere, addrsOfPeer(1), nil).History(); !past.Covers(filter.History{Used: [][2]uint16{{40000, 40001}}}) {
		t.Errorf("the next daemon knows %v", past)
	}
}

// However many peers there are, the file is small, and soon nothing more is written.
func TestFiltersFileIsBounded(t *testing.T) {
	s := testState(t)
	f := New(slog.New(slog.DiscardHandler))
	kernelLike{epoch: "boot 1"}.open(f, s, 0)
	writes, last := 0, stamp(t, s)
	for i := range 1000 {
		f.Of(filterID(i), usHere, addrsOfPeer(i), openPorts("*", 0, 65535))
		if now := stamp(t, s); !os.SameFile(last, now) {
			last = now
			writes++
		}
	}
	if writes > maxPasts+1 || last.Size() > 64<<10 {
		t.Errorf("%d writes, %d bytes", writes, last.Size())
	}
	f = New(slog.New(slog.DiscardHandler))
	kernelLike{epoch: "boot 1"}.open(f, s, 0)
	for i := range 1000 {
		if p := f.Of(filterID(i), usHere, addrsOfPeer(i), nil); goesOn(p, i, 40000) {
			t.Fatalf("adopted from a port that was open to peer %d", i)
		}
	}
}

// A record that cannot be written does not count.
func TestFiltersThatCannotBeWritten(t *testing.T) {
	s := testState(t)
	f := New(slog.New(slog.DiscardHandler))
	kernelLike{epoch: "boot 1"}.open(f, s, 0)
	stamp(t, s)
	away := s.Path() + ".away"
	if err := os.Rename(s.Path(), away); err != nil {
		t.Fatal(err)
	}
	p := f.Of(filterID(1), usHere, addrsOfPeer(1), openPorts("tcp", 50000, 50000))
	if !p.Ports().Any() {
		t.Error("policy does not hold without a disk")
	}
	if err := os.Rename(away, s.Path()); err != nil {
		t.Fatal(err)
	}
	f.Of(filterID(2), usHere, addrsOfPeer(2), openPorts("tcp", 50002, 50002)) // the next occasion
	f = New(slog.New(slog.DiscardHandler))
	kernelLike{epoch: "boot 1"}.open(f, s, 0)
	if goesOn(f.Of(filterID(1), usHere, addrsOfPeer(1), nil), 1, 50000) {
		t.Error("what could not be written at first was not written later")
	}
}

// The records on a disk that has become read-only may be outdated, because ports were
// opened since. Nothing is adopted because of them.
func TestFiltersOnReadOnlyDisk(t *testing.T) {
	s := testState(t)
	start := func(d *disk) *Table {
		f := New(slog.New(slog.DiscardHandler))
		f.disk = d
		kernelLike{epoch: "boot 1"}.open(f, s, 0)
		return f
	}
	start(nil)
	if !goesOn(start(nil).Of(filterID(1), usHere, addrsOfPeer(1), nil), 1, 50000) {
		t.Fatal("not what this test is about")
	}
	no := func() error { return errors.New("read-only file system") }
	readOnly := &disk{write: func([]byte) error { return no() }, remove: no}
	start(readOnly).Of(filterID(1), usHere, addrsOfPeer(1), openPorts("tcp", 50000, 50000))
	if goesOn(start(readOnly).Of(filterID(1), usHere, addrsOfPeer(1), nil), 1, 50000) {
		t.Error("a connection goes on that the peer may have begun")
	}
}

// A disk that hangs delays a change of policy for a moment only, and only once. When it
// works again, the latest records are written.
func TestFiltersDiskHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := New(slog.New(slog.DiscardHandler))
		kernelLike{epoch: "boot 1"}.open(f, testState(t), 0)
		hang := make(chan struct{})
		var last []byte
		f.disk.write = func(b []byte) error { <-hang; last = b; return nil }
		start := time.Now()
		p := f.Of(filterID(1), usHere, addrsOfPeer(1), openPorts("tcp", 50000, 50000))
		if waited := time.Since(start); waited != diskPatience || !p.Ports().Any() {
			t.Errorf("open %v after %v", p.Ports().Any(), waited)
		}
		start = time.Now()
		f.Set([]Opening{{p, openPorts("tcp", 50001, 50001)}}) // cuts one port, opens another
		if r := p.CheckIn(segment(addrsOfPeer(1)[0], usHere[0], 443, 50000, flagSYN), 0); r.OK() {
			t.Error("what was withdrawn is open")
		}
		f.Release(filterID(1), 0)
		f.Of(filterID(2), usHere, addrsOfPeer(2), openPorts("tcp", 50002, 50002))
		if waited := time.Since(start); waited != 0 {
			t.Errorf("waited again: %v", waited)
		}
		want := f.disk.next
		close(hang)
		synctest.Wait()
		if f.disk.busy || want == nil || !bytes.Equal(last, want) {
			t.Errorf("on disk: %s, want %s", last, want)
		}
		if f.Note(time.Now()); f.written == nil || !bytes.Equal(last, f.written) {
			t.Errorf("on disk: %s, believed %s", last, f.written)
		}
	})
}
