package coord

import (
	"crypto/tls"
	"encoding/json"
	"io"
	"net"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"
	"weft/coord/ops"

	"weft/overlay/cert"
	"weft/overlay/link"
	"weft/overlay/relay"
)

// Thousands of nodes at the relay, none of which closes when it is told
// that the server stops, and half of which read nothing, do not hold up the
// end. WEFT_NODES is how many; scripts/test long many has 5,000.
func TestCloseWithManyNodes(t *testing.T) {
	nodes, _ := strconv.Atoi(os.Getenv("WEFT_NODES"))
	nodes = max(nodes, 100)
	s := startServer(t)
	tok, err := newToken(t.Context(), s.Service, ops.CreateKey{Reusable: true, Tags: []string{"device"}})
	if err != nil {
		t.Fatal(err)
	}
	roots, err := cert.NewServerRoots([]cert.Pin{tok.Server}, nil)
	if err != nil {
		t.Fatal(err)
	}
	conns := make(chan net.Conn, nodes)
	var joining, reading sync.WaitGroup
	for w := range 8 {
		joining.Go(func() {
			for i := w; i < nodes; i += 8 {
				d := newDevice(t, s.Service)
				if err := d.join(t, tok, "sensor"); err != nil {
					t.Error(err)
					return
				}
				shown := tls.Certificate{Certificate: [][]byte{d.res.Certificate}, PrivateKey: d.key}
				dialer := &link.Dialer{
					URLs:     func() []string { return tok.URLs },
					Roots:    func() *cert.ServerRoots { return roots },
					Identity: func() *tls.Certificate { return &shown },
				}
				c, err := dialer.DialRelay(t.Context(), s.RelayID(), tok.URLs[0])
				if err != nil {
					t.Error(err)
					return
				}
				conns <- c
				held, _ := json.Marshal(d.res.Config.Versions)
				if _, err := c.Write(relay.AppendFrame(nil, relay.TypeVersions, held)); err != nil {
					t.Error(err)
				}
				if i%2 == 0 {
					reading.Go(func() { io.Copy(io.Discard, c) })
				}
			}
		})
	}
	joining.Wait()
	for end := time.Now().Add(time.Minute); len(s.Online()) < nodes; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) || t.Failed() {
			t.Fatalf("%d of %d nodes are online", len(s.Online()), nodes)
		}
	}
	start := time.Now()
	err = s.Close()
	took := time.Since(start)
	if t.Logf("%d nodes: closed in %s", nodes, took.Round(time.Millisecond)); err != nil || took > 5*time.Second {
		t.Errorf("closed after %s: %v", took, err)
	}
	close(conns)
	for c := range conns {
		link.CloseNow(c)
	}
	reading.Wait()
}
