package ops

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"weft/coord/store"
	"weft/overlay/api"
	"weft/overlay/api/client"
	"weft/overlay/cert"
	"weft/overlay/link"
)

// preload makes n nodes, as fast as the store takes them.
func preload(b testing.TB, s *site, n int) {
	b.Helper()
	var tokens []cert.Token
	for range n/maxHourUses + 1 {
		_, tok, err := s.CreateKey(context.Background(), CreateKey{Reusable: true, Tags: []string{"device"}})
		if err != nil {
			b.Fatal(err)
		}
		tokens = append(tokens, tok)
	}
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := w; i < n; i += 8 * 50 {
				err := s.store.Write(context.Background(), func(tx *store.Tx) error {
					for j := i; j < n && j < i+8*50; j += 8 {
						key, err := cert.NewKey()
						if err != nil {
							return err
						}
						spki, err := cert.SPKI(&key.PublicKey)
						if err != nil {
							return err
						}
						c := &caller{id: cert.NodeIDOf(s.network, spki), key: &key.PublicKey, spki: spki}
						hash := sha(tokens[j/maxHourUses].Secret)
						if _, err := s.joinIn(tx, c, &api.JoinRequest{Hostname: "sensor", OS: "linux/arm64", Software: "1.0"}, hash); err != nil {
							return err
						}
					}
					return nil
				})
				if err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// BenchmarkJoin makes devices: key, request, join, answer, with
// synchronous=FULL, and the load generator on the same cores; once without
// and once through the listener (TLS with ML-KEM).
func BenchmarkJoin(b *testing.B) {
	for _, tls := range []bool{false, true} {
		for _, present := range []int{0, 50_000} {
			b.Run(fmt.Sprintf("tls=%v/present=%d", tls, present), func(b *testing.B) {
				s := openSite(b, func(o *Options) { o.Log = nil })
				preload(b, s, present)
				s.benchJoin(b, tls)
				s.Close() // its memory is not the next one's
			})
		}
	}
}

// BenchmarkRename and BenchmarkDelete change each of many devices once, several at a
// time.
func BenchmarkRename(b *testing.B) {
	benchEach(b, "renames/s", func(s *site, i int, id cert.NodeID) error {
		_, err := s.RenameDevice(b.Context(), id, fmt.Sprint("renamed-", i))
		return err
	})
}

func BenchmarkDelete(b *testing.B) {
	benchEach(b, "deletions/s", func(s *site, _ int, id cert.NodeID) error {
		_, err := s.DeleteDevice(b.Context(), id)
		return err
	})
}

func benchEach(b *testing.B, unit string, do func(s *site, i int, id cert.NodeID) error) {
	s := openSite(b, func(o *Options) { o.Log = nil })
	preload(b, s, b.N)
	var ids []cert.NodeID
	err := s.store.Read(b.Context(), func(r *store.Reader) error {
		return r.EachNode(s.network, "", func(n store.Node) error { ids = append(ids, n.ID); return nil })
	})
	if err != nil || len(ids) != b.N {
		b.Fatalf("%d devices, %v", len(ids), err)
	}
	var next atomic.Int64
	b.SetParallelism(16)
	before := cpu()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			i := int(next.Add(1)) - 1
			if err := do(s, i, ids[i]); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.StopTimer()
	b.ReportMetric(float64((cpu()-before).Microseconds())/float64(b.N), "cpu-us/op")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), unit)
}

// cpu is how long this process has run on all cores: on a machine that others use, too,
// it says more than the clock does.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func (s *site) benchJoin(b *testing.B, overTLS bool) {
	join := func(d *device, tok cert.Token) error { return d.join(b, tok, "bench") }
	if overTLS {
		join = s.joinOverTLS(b)
	}
	tok := s.token(CreateKey{Reusable: true})
	runtime.GC()
	debug.FreeOSMemory()
	before := rss()
	b.SetParallelism(16)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := join(newDevice(b, s.Service), tok); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "joins/s")
	b.ReportMetric(float64(before)/1e6, "MB-idle")
	b.ReportMetric(float64(rss())/1e6, "MB-busy")
}

// joinOverTLS starts a listener and returns how to join through it.
func (s *site) joinOverTLS(b *testing.B) func(*device, cert.Token) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	srv := link.NewServer(link.ServerConfig{
		Certificate: func() *tls.Certificate { c, _ := s.auth.Leaf(s.now()); return c },
		API:         s.API(),
	})
	go srv.Serve(l)
	b.Cleanup(func() { srv.Shutdown(context.Background()) })
	roots, err := cert.NewServerRoots([]cert.Pin{cert.PinOf(s.auth.Server.Cert)}, nil)
	if err != nil {
		b.Fatal(err)
	}
	url := "https://" + l.Addr().String()
	return func(d *device, tok cert.Token) error {
		dialer := &link.Dialer{
			URLs:  func() []string { return []string{url} },
			Roots: func() *cert.ServerRoots { return roots },
			Identity: func() *tls.Certificate {
				return &tls.Certificate{Certificate: [][]byte{d.shown.Raw}, PrivateKey: d.key}
			},
		}
		c := client.New(dialer.Transport(), nil)
		defer c.CloseIdleConnections()
		_, err := c.Join(context.Background(), d.request(b, tok, "bench"))
		return err
	}
}

// BenchmarkBackup is a whole backup of a server with 100,000 devices, and
// restoring it, as the verbs do both: needed 10 s and 30 s.
func BenchmarkBackup(b *testing.B) {
	const devices = 100_000
	s := openSite(b, func(o *Options) { o.Log = nil })
	preload(b, s, devices)
	passphrase := []byte("a key that is long enough")
	for b.Loop() {
		path := filepath.Join(b.TempDir(), "backup")
		f, err := os.Create(path)
		if err != nil {
			b.Fatal(err)
		}
		start := time.Now()
		_, err = Backup(b.Context(), snapshotOf(s.Service), s.data, passphrase, f)
		if err := errors.Join(err, f.Sync()); err != nil {
			b.Fatal(err)
		}
		backup := time.Since(start)
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			b.Fatal(err)
		}
		data := filepath.Join(b.TempDir(), "restored")
		start = time.Now()
		if err := Restore(b.Context(), f, passphrase, data, time.Now()); err != nil {
			b.Fatal(err)
		}
		restored := time.Since(start)
		start = time.Now()
		again, err := OpenService(b.Context(), Options{Data: data})
		if err != nil {
			b.Fatal(err)
		}
		opened := time.Since(start)
		if _, all := again.index.counts(""); all != devices {
			b.Errorf("%d devices are restored", all)
		}
		again.Close()
		fi, _ := f.Stat()
		f.Close()
		b.ReportMetric(backup.Seconds(), "s-backup")
		b.ReportMetric(restored.Seconds(), "s-restore")
		b.ReportMetric(opened.Seconds(), "s-open")
		b.ReportMetric(float64(fi.Size())/1e6, "MB")
	}
}

// BenchmarkVersions is what the relay asks for each client.
func BenchmarkVersions(b *testing.B) {
	s := openSite(b)
	d := s.laptop("laptop")
	b.ReportAllocs()
	for b.Loop() {
		s.Versions(d.id)
	}
}

func sha(b []byte) [32]byte { return sha256.Sum256(b) }

// rss is the resident memory of this process in bytes.
func rss() int {
	text, _ := os.ReadFile("/proc/self/statm")
	fields := strings.Fields(string(text))
	if len(fields) < 2 {
		return 0
	}
	pages, _ := strconv.Atoi(fields[1])
	return pages * os.Getpagesize()
}
