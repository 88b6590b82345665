package overlay

import (
	"errors"
	"io/fs"
	"log/slog"
	"math/big"
	"os"
	"sync"
	"testing"
	"time"

	"weft/overlay/api"
	"weft/overlay/cert"
	"weft/overlay/internal/directory"
	"weft/overlay/internal/follow"
	"weft/overlay/internal/network"
	"weft/overlay/internal/state"
	"weft/overlay/status"
)

// listNode returns a node that does not run, and a function that makes revocation lists
// for it.
func listNode(t *testing.T) (n *Node, f *follow.Follower, list func(number uint64) []byte) {
	t.Helper()
	ca, err := cert.NewCA("network", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	key, err := cert.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := state.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dir.Close() })
	of := cert.PinOf(ca.Cert).NetworkID()
	roots, err := cert.NewNetworkRoots(of, [][]byte{ca.Cert.Raw})
	if err != nil {
		t.Fatal(err)
	}
	n = &Node{log: slog.New(slog.DiscardHandler), state: dir, dir: directory.New(time.Now)}
	n.disk = disk{held: &n.held, dir: n.dir, health: &n.health, open: n.stateDir, save: (*state.Dir).Save}
	n.keeper = state.NewWriter(n.disk.files(), n.disk.write, &n.health, n.log)
	n.held.Join(&network.Identity{Network: of, Key: key}, &network.Network{Self: &cert.Node{Network: of, Serial: big.NewInt(1 << 60)}, Roots: roots, Config: &api.Config{}})
	n.clock = cert.NewClock(time.Time{}, time.Now)
	sinks := network.NewSinks(&n.held, files{keep: n.keeper.Mark})
	sinks.Apply()
	f = follow.New(follow.Config{
		Held: &n.held, Directory: n.dir, Clock: n.clock, Health: &n.health, Log: n.log,
		Keep: n.keeper.Mark, Changed: sinks.Apply, NamesChanged: func() {},
	})
	return n, f, func(number uint64) []byte {
		der, err := ca.SignCRL(number, []*big.Int{big.NewInt(int64(number))}, time.Time{}, time.Now())
		if err != nil {
			t.Error(err)
		}
		return der
	}
}

// Of many lists that arrive at once, in any order, the one with the highest number
// remains, in memory and on disk.
func TestListsAtOnce(t *testing.T) {
	n, f, list := listNode(t)
	var wg sync.WaitGroup
	for number := uint64(1); number <= 40; number++ {
		der := list(number)
		wg.Go(func() {
			if _, err := f.TakeCRL(der); err != nil {
				t.Error(err)
			}
			if err := n.keeper.Flush(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got := n.Versions().CRL; got != 40 {
		t.Errorf("number %d in memory", got)
	}
	b, err := os.ReadFile(n.state.File(state.CRLFile))
	if err != nil {
		t.Fatal(err)
	}
	s, _ := n.held.Get()
	if crl, err := s.Roots.VerifyCRL(b); err != nil || crl.Number != 40 {
		t.Errorf("on disk: %+v, %v", crl, err)
	}
	if newer, err := f.TakeCRL(list(39)); newer || err != nil {
		t.Errorf("an older list: %v, %v", newer, err)
	}
	if newer, err := f.TakeCRL([]byte("no list")); newer || err == nil {
		t.Errorf("no list: %v, %v", newer, err)
	}
}

// A file that could not be written is written later, with its content at that time. After
// a logout nothing of the former network is written.
func TestKeepLater(t *testing.T) {
	n, f, list := listNode(t)
	broken := errors.New("disk is full")
	n.disk.save = func(*state.Dir, string, []byte) error { return broken }
	f.TakeCRL(list(1))
	if err := n.keeper.Flush(); !errors.Is(err, broken) || !n.health.Has(status.CodeStateDirectory) {
		t.Fatalf("%v, %v", err, n.health.List())
	}
	f.TakeCRL(list(2))
	n.disk.save = (*state.Dir).Save
	if err := n.keeper.Flush(); err != nil || n.health.Has(status.CodeStateDirectory) {
		t.Fatalf("%v, %v", err, n.health.List())
	}
	file := n.state.File(state.CRLFile)
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	s, _ := n.held.Get()
	if crl, err := s.Roots.VerifyCRL(b); err != nil || crl.Number != 2 {
		t.Errorf("on disk: %+v, %v", crl, err)
	}
	for _, f := range n.disk.files() {
		n.keeper.Mark(f.Name)
	}
	if err := n.state.Wipe(); err != nil {
		t.Fatal(err)
	}
	n.held.Leave()
	if err := n.keeper.Flush(); err != nil {
		t.Fatal(err)
	}
	for _, f := range n.disk.files() {
		if _, err := os.Stat(n.state.File(f.Name)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", f.Name, err)
		}
	}
}

// After a node has left its network nothing of it is written, even if the node has joined
// another one meanwhile.
func TestLeftForgetsWhatWasDue(t *testing.T) {
	n, _, _ := listNode(t)
	n.disk.setHome("relay-of-before")
	n.keeper.Mark(state.HomeFile)
	n.keeper.Mark(state.ConfigFile)
	n.keeper.Discard()
	if err := n.keeper.Flush(); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{state.HomeFile, state.ConfigFile} {
		if _, err := os.Stat(n.state.File(file)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s of before was written: %v", file, err)
		}
	}
}
