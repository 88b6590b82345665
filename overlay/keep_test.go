package overlay

import (
	"errors"
	"io/fs"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"weft/overlay/api"
	"weft/overlay/cert"
	"weft/overlay/internal/directory"
	"weft/overlay/status"
)

// listNode is a node that does not run, and makes revocation lists.
func listNode(t *testing.T) (n *Node, list func(number uint64) []byte) {
	t.Helper()
	ca, err := cert.NewCA("network", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	key, err := cert.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	state, err := openState(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { state.close() })
	network := cert.PinOf(ca.Cert).NetworkID()
	roots, err := cert.NewNetworkRoots(network, [][]byte{ca.Cert.Raw})
	if err != nil {
		t.Fatal(err)
	}
	n = &Node{log: slog.New(slog.DiscardHandler), state: state, keeper: newKeeper(), save: (*stateDir).save, dir: directory.New(time.Now)}
	n.id = &identity{Schema: identitySchema, Network: network, key: key}
	n.snap.set(&snapshot{self: &cert.Node{Network: network, Serial: big.NewInt(1 << 60)}, roots: roots, config: &api.Config{}})
	return n, func(number uint64) []byte {
		der, err := ca.SignCRL(number, []*big.Int{big.NewInt(int64(number))}, time.Time{}, time.Now())
		if err != nil {
			t.Error(err)
		}
		return der
	}
}

// Of many lists that come at once, in any order, the one with the highest number
// is left, in memory and on disk.
func TestListsAtOnce(t *testing.T) {
	n, list := listNode(t)
	var wg sync.WaitGroup
	for number := uint64(1); number <= 40; number++ {
		der := list(number)
		wg.Go(func() {
			if _, err := n.takeCRL(der); err != nil {
				t.Error(err)
			}
			if err := n.keepNow(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got := n.versions().CRL; got != 40 {
		t.Errorf("number %d in memory", got)
	}
	b, err := os.ReadFile(filepath.Join(n.state.path, crlFile))
	if err != nil {
		t.Fatal(err)
	}
	s, _ := n.snap.get()
	if crl, err := s.roots.VerifyCRL(b); err != nil || crl.Number != 40 {
		t.Errorf("on disk: %+v, %v", crl, err)
	}
	if newer, err := n.takeCRL(list(39)); newer || err != nil {
		t.Errorf("an older list: %v, %v", newer, err)
	}
	if newer, err := n.takeCRL([]byte("no list")); newer || err == nil {
		t.Errorf("no list: %v, %v", newer, err)
	}
}

// What could not be written is written later, with what it is to hold by then;
// and after a logout nothing of the network that was left is written.
func TestKeepLater(t *testing.T) {
	n, list := listNode(t)
	broken := errors.New("disk is full")
	n.save = func(*stateDir, string, []byte) error { return broken }
	n.takeCRL(list(1))
	if err := n.keepNow(); !errors.Is(err, broken) || !n.health.Has(status.CodeStateDirectory) {
		t.Fatalf("%v, %v", err, n.health.List())
	}
	n.takeCRL(list(2))
	n.save = (*stateDir).save
	if err := n.keepNow(); err != nil || n.health.Has(status.CodeStateDirectory) {
		t.Fatalf("%v, %v", err, n.health.List())
	}
	file := filepath.Join(n.state.path, crlFile)
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	s, _ := n.snap.get()
	if crl, err := s.roots.VerifyCRL(b); err != nil || crl.Number != 2 {
		t.Errorf("on disk: %+v, %v", crl, err)
	}
	for _, f := range keptFiles {
		n.keep(f.file)
	}
	if err := n.state.wipe(); err != nil {
		t.Fatal(err)
	}
	n.snap.clear()
	if err := n.keepNow(); err != nil {
		t.Fatal(err)
	}
	for _, f := range keptFiles {
		if _, err := os.Stat(filepath.Join(n.state.path, f.file)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", f.file, err)
		}
	}
}

// A node that has left its network owes the disk nothing of it.
func TestLeftForgetsWhatWasDue(t *testing.T) {
	n, _ := listNode(t)
	n.keepHome("relay-of-before")
	n.keep(configFile)
	n.keeper.left()
	if n.keeper.home != "" || len(n.keeper.due) != 0 {
		t.Errorf("home %q, due %v", n.keeper.home, n.keeper.due)
	}
	if err := n.keepNow(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(n.state.path, homeFile)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the home relay of before was written: %v", err)
	}
}
