package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"weft/netstack/loopback"
	"weft/overlay/cert"
)

var (
	network = cert.NetworkID{1}
	day     = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
)

func open(t testing.TB, path string, o Options) *Store {
	t.Helper()
	o.Path = path
	s, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// fresh opens a new database with a network and a user.
func fresh(t testing.TB, o Options) (*Store, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "weft.db")
	s := open(t, path, o)
	err := s.Write(t.Context(), func(tx *Tx) error {
		err := tx.CreateNetwork(Network{ID: network, Created: day, Epoch: 1, N: 1, ConfigN: 1, CRL: []byte{0},
			IPv4: netip.MustParsePrefix("100.64.0.0/10"), IPv6: netip.MustParsePrefix("fd00::/48"), Suffix: "weft.internal"})
		return errors.Join(err, tx.CreateUser(network, User{ID: "u", Name: "alice", Owner: true, Kind: Person, Role: "owner", Created: day}))
	})
	if err != nil {
		t.Fatal(err)
	}
	return s, path
}

func idOf(i int) (id cert.NodeID) {
	copy(id[:], fmt.Sprintf("%016d", i))
	return id
}

// addNode stores a node with this number.
func addNode(tx *Tx, i int) error {
	n, err := tx.Bump(network)
	if err != nil {
		return err
	}
	return tx.InsertNode(network, Node{ID: idOf(i), SPKI: []byte{1}, Name: fmt.Sprintf("n%d", i), UserID: "u", IPv4: fromUint32(100<<24 | uint32(i)),
		Created: day, Expires: day, Certificate: []byte{1}, N: n, ConfigN: n})
}

// What the pragmas must be, on the writer and the readers.
func TestPragmas(t *testing.T) {
	s, _ := fresh(t, Options{})
	check := func(r *Reader) error {
		for pragma, want := range map[string]string{"journal_mode": "wal", "synchronous": "2", "foreign_keys": "1"} {
			var got string
			if err := r.conn.QueryRowContext(t.Context(), "PRAGMA "+pragma).Scan(&got); err != nil || got != want {
				t.Errorf("%s = %q, %v", pragma, got, err)
			}
		}
		return nil
	}
	if err := s.Write(t.Context(), func(tx *Tx) error { return check(&tx.Reader) }); err != nil {
		t.Fatal(err)
	}
	if err := s.Read(t.Context(), func(r *Reader) error {
		if err := r.exec("DELETE FROM users"); err == nil {
			t.Error("a reader can write")
		}
		return check(r)
	}); err != nil {
		t.Fatal(err)
	}
}

func TestEveryTableHasNetworkID(t *testing.T) {
	s, _ := fresh(t, Options{})
	err := s.Read(t.Context(), func(r *Reader) error {
		return r.each(`SELECT name, EXISTS (SELECT 1 FROM pragma_table_info(m.name) WHERE name = 'network_id') FROM sqlite_master m WHERE type = 'table'`, nil,
			func(scan func(...any) error) error {
				var name string
				var has bool
				err := scan(&name, &has)
				if !has {
					t.Errorf("table %s has no network_id", name)
				}
				return err
			})
	})
	if err != nil {
		t.Fatal(err)
	}
}

// The zero time is never stored.
func TestZeroTime(t *testing.T) {
	s, _ := fresh(t, Options{})
	err := s.Write(t.Context(), func(tx *Tx) error {
		return tx.CreateUser(network, User{ID: "z", Name: "zero", Kind: Person, Role: "member"})
	})
	if err == nil {
		t.Error("a user made at the zero time was stored")
	}
	err = s.Write(t.Context(), func(tx *Tx) error {
		if err := addNode(tx, 1); err != nil {
			return err
		}
		return tx.SetSeen(network, map[cert.NodeID]time.Time{idOf(1): {}})
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Read(t.Context(), func(r *Reader) error {
		n, err := r.NodeByName(network, "n1")
		if err != nil || !n.Seen.IsZero() {
			t.Errorf("seen %v, %v", n.Seen, err)
		}
		return nil
	})
}

func TestForeignKeys(t *testing.T) {
	s, _ := fresh(t, Options{})
	err := s.Write(t.Context(), func(tx *Tx) error {
		return tx.CreateKey(network, Key{ID: "k", UserID: "nobody", Created: day, Expires: day})
	})
	if err == nil {
		t.Error("a key of nobody was stored")
	}
}

// Writes share a transaction; one that fails undoes itself alone; what was
// registered for after the commit runs in order, and not for the failed ones.
func TestBatch(t *testing.T) {
	var commits atomic.Int32
	hold, holding := make(chan struct{}), make(chan struct{})
	var sealed [][]any
	s, _ := fresh(t, Options{
		BeforeCommit: func() error { commits.Add(1); return nil },
		Seal:         func(_ *Tx, notes []any) error { sealed = append(sealed, notes); return nil },
	})
	commits.Store(0)
	go s.Write(context.Background(), func(*Tx) error { close(holding); <-hold; return nil })
	<-holding // the next ones queue up behind it
	boom := errors.New("boom")
	var order []int
	var wg sync.WaitGroup
	for i := range 100 {
		wg.Go(func() {
			err := s.Write(context.Background(), func(tx *Tx) error {
				if err := addNode(tx, i); err != nil {
					return err
				}
				tx.After(func() { order = append(order, i) })
				tx.Note(i)
				switch {
				case i%10 == 3:
					return boom
				case i%10 == 7:
					panic("bug")
				}
				return nil
			})
			if (err != nil) != (i%10 == 3 || i%10 == 7) {
				t.Errorf("write %d: %v", i, err)
			}
		})
	}
	for len(s.ops) < 100 {
		time.Sleep(time.Millisecond)
	}
	close(hold)
	wg.Wait()
	if n := commits.Load(); n > 3 || len(sealed) > 2 {
		t.Errorf("%d commits, %d of them sealed, for 100 writes", n, len(sealed))
	}
	var noted []any
	for _, notes := range sealed {
		noted = append(noted, notes...)
	}
	if len(noted) != len(order) {
		t.Fatalf("%d notes of %d writes", len(noted), len(order))
	}
	for i, n := range order {
		if noted[i] != n {
			t.Fatalf("note %d is of write %v, want %d: those of the writes that were kept, in their order", i, noted[i], n)
		}
	}
	var stored []string
	s.Read(t.Context(), func(r *Reader) error {
		return r.EachNode(network, "", func(n Node) error { stored = append(stored, n.Name); return nil })
	})
	if len(stored) != 80 || len(order) != 80 {
		t.Errorf("%d stored, %d told", len(stored), len(order))
	}
}

func TestWriteHonoursContext(t *testing.T) {
	s, _ := fresh(t, Options{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	ran := false
	if err := s.Write(ctx, func(*Tx) error { ran = true; return nil }); !errors.Is(err, context.Canceled) || ran {
		t.Errorf("%v, ran %v", err, ran)
	}
	s.Close()
	if err := s.Write(t.Context(), func(*Tx) error { return nil }); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	if err := s.Read(t.Context(), func(*Reader) error { return nil }); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	s.Close() // twice is fine
}

// Power cuts. At random moments the files are copied as a crash would
// leave them: what was acknowledged is there whole, whatever the tail of the
// log looks like.
func TestPowerCut(t *testing.T) {
	path := filepath.Join(t.TempDir(), "weft.db")
	var mu sync.Mutex // held while files are copied, and while a commit happens
	var acked atomic.Int64
	s := open(t, path, Options{})
	err := s.Write(t.Context(), func(tx *Tx) error {
		err := tx.CreateNetwork(Network{ID: network, Created: day, N: 1, CRL: []byte{0}, IPv4: netip.MustParsePrefix("100.64.0.0/10"), IPv6: netip.MustParsePrefix("fd00::/48")})
		return errors.Join(err, tx.CreateUser(network, User{ID: "u", Name: "alice", Owner: true, Kind: Person, Role: "owner", Created: day}))
	})
	if err != nil {
		t.Fatal(err)
	}
	// Without checkpoints the main file stands still and the log only grows,
	// so two reads of a running database are one crash image.
	if err := s.Write(t.Context(), func(tx *Tx) error { return nil }); err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	done := make(chan struct{})
	var walAtAck atomic.Int64
	go func() {
		defer close(done)
		for i := 1; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			mu.Lock()
			err := s.Write(context.Background(), func(tx *Tx) error { return addNode(tx, i) })
			if err != nil {
				t.Error(err)
			}
			if fi, err := os.Stat(path + "-wal"); err == nil {
				walAtAck.Store(fi.Size())
			}
			acked.Store(int64(i))
			mu.Unlock()
		}
	}()
	cuts := 40
	if rounds, _ := strconv.Atoi(os.Getenv("WEFT_CRASH_ROUNDS")); rounds > 0 {
		cuts = max(cuts, rounds*5/2) // 500 in scripts/test long crash
	}
	for cut := range cuts {
		time.Sleep(time.Duration(rand.IntN(3)) * time.Millisecond)
		mu.Lock()
		n, size := acked.Load(), walAtAck.Load()
		db, err1 := os.ReadFile(path)
		wal, err2 := os.ReadFile(path + "-wal")
		mu.Unlock()
		if err := errors.Join(err1, err2); err != nil {
			t.Fatal(err)
		}
		// After the last acknowledged byte: garbage, as of a torn write.
		if int64(len(wal)) > size {
			wal = wal[:size]
		}
		junk := make([]byte, rand.IntN(9000))
		for i := range junk {
			junk[i] = byte(rand.Uint32())
		}
		dir := filepath.Join(t.TempDir(), fmt.Sprint(cut))
		os.Mkdir(dir, 0o700)
		image := filepath.Join(dir, "weft.db")
		if err := errors.Join(os.WriteFile(image, db, 0o600), os.WriteFile(image+"-wal", append(wal, junk...), 0o600)); err != nil {
			t.Fatal(err)
		}
		after := open(t, image, Options{Readers: 1})
		after.Read(t.Context(), func(r *Reader) error {
			var check string
			if err := r.row("PRAGMA integrity_check", nil, &check); err != nil || check != "ok" {
				t.Errorf("cut %d: integrity %q, %v", cut, check, err)
			}
			var have int64
			if err := r.row("SELECT COUNT(*) FROM nodes", nil, &have); err != nil || have < n {
				t.Errorf("cut %d: %d nodes, %d acknowledged, %v", cut, have, n, err)
			}
			return nil
		})
		after.Close()
	}
	close(stop)
	<-done
	if acked.Load() < 10 {
		t.Errorf("only %d writes", acked.Load())
	}
}

// Many writers, long readers and backups at once; nobody hears of a locked
// database, and nobody waits for long. WEFT_CONTENTION is how long it goes on
// (default 2s), and held to the figures from a minute on; scripts/test long crash
// has 10 minutes.
func TestContention(t *testing.T) {
	long, _ := time.ParseDuration(os.Getenv("WEFT_CONTENTION"))
	long = max(long, 2*time.Second)
	const grow = 20_000 // nodes; writes go on with updates
	s, path := fresh(t, Options{})
	var next atomic.Int64
	var took [30_000]atomic.Int64 // writes by milliseconds
	var wg sync.WaitGroup
	deadline := time.Now().Add(long)
	for range 100 {
		wg.Go(func() {
			for time.Now().Before(deadline) {
				i := int(next.Add(1))
				start := time.Now()
				err := s.Write(context.Background(), func(tx *Tx) error {
					if i <= grow {
						return addNode(tx, i)
					}
					return tx.SetSeen(network, map[cert.NodeID]time.Time{idOf(1 + i%grow): day})
				})
				if err != nil {
					t.Errorf("write: %v", err)
					return
				}
				took[min(time.Since(start).Milliseconds(), int64(len(took)-1))].Add(1)
			}
		})
	}
	for range 5 {
		wg.Go(func() {
			for time.Now().Before(deadline) {
				err := s.Read(context.Background(), func(r *Reader) error {
					var a, b int
					if err := r.row("SELECT COUNT(*) FROM nodes", nil, &a); err != nil {
						return err
					}
					time.Sleep(20 * time.Millisecond) // a long reader
					if err := r.row("SELECT COUNT(*) FROM nodes", nil, &b); err != nil || a != b {
						return fmt.Errorf("the state moved under a reader: %d, %d, %w", a, b, err)
					}
					return nil
				})
				if err != nil {
					t.Errorf("read: %v", err)
				}
			}
		})
	}
	var log int64 // the largest
	backups := 0
	for first := true; first || time.Now().Before(deadline); first = false {
		copyPath := filepath.Join(filepath.Dir(path), fmt.Sprintf("backup-%d.db", backups))
		if err := s.Backup(t.Context(), copyPath); err != nil {
			t.Errorf("backup: %v", err)
			break
		}
		backups++
		b := open(t, copyPath, Options{Readers: 1})
		b.Read(t.Context(), func(r *Reader) error {
			var check string
			if err := r.row("PRAGMA integrity_check", nil, &check); err != nil || check != "ok" {
				t.Errorf("backup: %q, %v", check, err)
			}
			return nil
		})
		b.Close()
		os.Remove(copyPath)
		if fi, err := os.Stat(path + "-wal"); err == nil {
			log = max(log, fi.Size())
		}
	}
	wg.Wait()
	var all int64
	for i := range took {
		all += took[i].Load()
	}
	quantile := func(per1000 int64) (ms int) {
		seen := int64(0)
		for ms = range took {
			if seen += took[ms].Load(); seen*1000 >= all*per1000 {
				break
			}
		}
		return ms
	}
	p99 := quantile(990)
	t.Logf("%s: %d writes, median %d ms, p99 %d ms, longest %d ms; %d backups; the log had up to %d MB", long, all, quantile(500), p99, quantile(1000), backups, log>>20)
	if long >= time.Minute && p99 >= 500 {
		t.Errorf("p99 of a write is %d ms", p99)
	}
}

// A database of a newer program is refused and not touched.
func TestNewerSchema(t *testing.T) {
	s, path := fresh(t, Options{})
	s.Close()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec("PRAGMA user_version = 1000"); err != nil {
		t.Fatal(err)
	}
	db.Close()
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), Options{Path: path}); !errors.Is(err, ErrNewer) {
		t.Errorf("got %v", err)
	}
	after, _ := os.ReadFile(path)
	files, _ := os.ReadDir(filepath.Dir(path))
	if !slices.Equal(before, after) || len(files) != 1 {
		t.Errorf("something was written: %v", files)
	}
	other := filepath.Join(t.TempDir(), "x")
	os.WriteFile(other, []byte(strings.Repeat("not a database ", 100)), 0o600)
	if _, err := Open(t.Context(), Options{Path: other}); err == nil {
		t.Error("a file of another kind was opened")
	}
}

// Killed between two migrations, or opened twice: the schema is the same.
func TestMigrateAgain(t *testing.T) {
	s, path := fresh(t, Options{})
	s.Close()
	fi, err := os.Stat(path)
	if err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", fi.Mode(), err)
	}
	s = open(t, path, Options{})
	if err := s.Read(t.Context(), func(r *Reader) error { _, err := r.Network(); return err }); err != nil {
		t.Error(err)
	}
}

// A nearly full pool finds its last gaps, and the search never leaves it.
func TestAllocAll(t *testing.T) {
	s, _ := fresh(t, Options{})
	pool := netip.MustParsePrefix("100.64.4.0/25")
	seen := map[netip.Addr]bool{}
	for i := 0; ; i++ {
		err := s.Write(t.Context(), func(tx *Tx) error {
			a, err := tx.AllocIPv4(network, pool, day)
			if err != nil {
				return err
			}
			if seen[a] || !pool.Contains(a) {
				t.Errorf("address %s", a)
			}
			seen[a] = true
			return tx.InsertNode(network, Node{ID: idOf(i), SPKI: []byte{1}, Name: fmt.Sprintf("n%d", i), UserID: "u", IPv4: a, Created: day, Expires: day, Certificate: []byte{1}})
		})
		if errors.Is(err, ErrFull) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if len(seen) != 126 {
		t.Errorf("%d addresses", len(seen))
	}
}

// However large a range is, no two nodes have addresses that programs on a node
// see as one (package loopback).
func TestAllocDistinctSources(t *testing.T) {
	s, _ := fresh(t, Options{})
	pool := netip.MustParsePrefix("10.0.0.0/8")
	seen := map[netip.Addr]netip.Addr{}
	for i, next := range []string{"10.0.0.1", "10.63.255.254", "10.64.0.1", "10.128.0.2", "10.255.255.250"} {
		err := s.Write(t.Context(), func(tx *Tx) error {
			if err := tx.exec(`UPDATE networks SET next_ipv4=$2 WHERE network_id=$1`, network[:], toUint32(netip.MustParseAddr(next))); err != nil {
				return err
			}
			for j := range 3 {
				a, err := tx.AllocIPv4(network, pool, day)
				if err != nil {
					return err
				}
				from := loopback.Source(a)
				if other, ok := seen[from]; ok || !pool.Contains(a) {
					t.Errorf("%s after %s comes from %s, as %s does", a, next, from, other)
				}
				seen[from] = a
				if v6 := IPv6Of(netip.MustParsePrefix("fd00::/48"), a); loopback.Source(v6) != from {
					t.Errorf("%s comes from %s, but %s from %s", a, from, v6, loopback.Source(v6))
				}
				id := 10*i + j
				if err := tx.InsertNode(network, Node{ID: idOf(id), SPKI: []byte{1}, Name: fmt.Sprintf("n%d", id), UserID: "u", IPv4: a, Created: day, Expires: day, Certificate: []byte{1}}); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}
