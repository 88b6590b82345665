package follow

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"math/big"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"weft/overlay/api"
	"weft/overlay/api/client"
	"weft/overlay/cert"
	"weft/overlay/internal/directory"
	"weft/overlay/internal/network"
	"weft/overlay/status"
)

// fakeServer is the HTTP transport of a Follower and answers its requests.
type fakeServer struct {
	mu sync.Mutex
	// mu guards the following.
	config *api.Config
	list   []byte
	asked  []string // paths
	renew  func() (der []byte)
}

func (s *fakeServer) RoundTrip(req *http.Request) (*http.Response, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, req.URL.Path)
	code, body := http.StatusNotFound, []byte(`{"code":"not-found","message":"no"}`)
	switch req.URL.Path {
	case "/v1/config":
		code = http.StatusOK
		body, _ = json.Marshal(s.config)
	case "/v1/crl":
		code, body = http.StatusOK, s.list
	case "/v1/renew":
		code = http.StatusOK
		body, _ = json.Marshal(api.RenewResponse{Certificate: s.renew()})
	}
	return &http.Response{StatusCode: code, Header: http.Header{}, Body: io.NopCloser(bytes.NewReader(body)), Request: req}, nil
}

// member makes a network with one device. sign makes another certificate for the device.
func member(t *testing.T) (ca *cert.CA, id *network.Identity, sign func() []byte) {
	t.Helper()
	ca, err := cert.NewCA("network", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	pin := cert.PinOf(ca.Cert)
	id, err = network.NewIdentity(pin.NetworkID(), pin, []string{"https://weft.example"})
	if err != nil {
		t.Fatal(err)
	}
	sign = func() []byte {
		der, err := ca.SignNode(&id.Key.PublicKey, cert.Attributes{
			Name: "pi", FQDN: "pi.weft.internal", User: "owner", IPv4: netip.MustParseAddr("100.64.0.1"), IPv6: netip.MustParseAddr("fd00::1"),
		}, cert.NewSerial(), time.Now(), time.Now().Add(90*24*time.Hour))
		if err != nil {
			t.Error(err)
		}
		return der
	}
	id.NetworkCAs, id.Certificate = [][]byte{ca.Cert.Raw}, sign()
	return ca, id, sign
}

// A Follower works without a node. When new versions are reported it fetches them,
// applies them, makes others follow and sends its versions, in this order. Answers of
// another network change nothing.
func TestFollowsWithoutANode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, id, _ := member(t)
		config := func(n uint64) *api.Config {
			c := id.BareConfig()
			c.Version = api.Version{Epoch: 1, N: n}
			c.Versions = api.Versions{Config: c.Version, CRL: n}
			c.Self = api.Self{FQDN: "pi.weft.internal", IPv4Prefix: "100.64.0.0/10", IPv6Prefix: "fd00::/48"}
			return c
		}
		first, err := network.New(id, config(1), nil)
		if err != nil {
			t.Fatal(err)
		}
		var held network.Holder
		held.Join(id, first)
		list, err := ca.SignCRL(2, []*big.Int{big.NewInt(7)}, time.Time{}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		server := &fakeServer{config: config(2), list: list}
		var health status.Warnings
		var current, told atomic.Int64
		var seen api.Versions // at the last call of Changed; owned by Run's goroutine
		dir := directory.New(time.Now)
		f := New(Config{
			Client: client.New(server, func(time.Time) {}),
			Held:   &held, Directory: dir, Clock: cert.NewClock(time.Time{}, time.Now), Health: &health, Log: slog.New(slog.DiscardHandler),
			Keep:         func(file string) {},
			Changed:      func() { seen = Versions(&held, dir) },
			NamesChanged: func() {}, Removed: func() { t.Error("removed") },
			Tell: func() {
				if now := Versions(&held, dir); now != seen {
					t.Errorf("the relay is told of %+v when %+v was followed", now, seen)
				}
				told.Add(1)
			},
			Current: func() { current.Add(1) },
		})
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { f.Run(ctx) })
		f.Announce(api.Versions{Config: api.Version{Epoch: 1, N: 2}, CRL: 2})
		time.Sleep(10 * time.Second)
		now, _ := held.Get()
		if now.Config.Version.N != 2 || now.CRL == nil || now.CRL.Number != 2 || told.Load() == 0 || current.Load() == 0 {
			t.Errorf("holds %+v, told %d times, current %d times; %v", Versions(&held, dir), told.Load(), current.Load(), health.List())
		}
		if f.Behind() {
			t.Error("it is behind what it holds")
		}

		server.mu.Lock()
		server.config = config(3)
		server.config.Network = strings.Repeat("0", 32)
		server.mu.Unlock()
		f.Nudge(api.Versions{Config: api.Version{Epoch: 1, N: 3}, CRL: 2}, 0, nil)
		time.Sleep(time.Minute)
		if after, _ := held.Get(); after != now {
			t.Error("a configuration of another network was taken")
		}
		if !health.Has(status.CodeConfig) {
			t.Errorf("nobody is told; %v", health.List())
		}
		asked := 0
		server.mu.Lock()
		for _, path := range server.asked {
			if path == "/v1/config" {
				asked++
			}
		}
		server.mu.Unlock()
		if asked != 2 {
			t.Errorf("the configuration was asked for %d times, want 2: what was refused is not asked for again", asked)
		}
		if newer, err := f.TakeCRL(list); newer || err != nil {
			t.Errorf("the list that is held: %v, %v", newer, err)
		}
		cancel()
		wg.Wait()
	})
}

// A relay that keeps announcing configurations that the server does not have makes the
// node count as behind for a few seconds of each minute only.
func TestBehindAtTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := directory.New(time.Now)
		f := New(Config{Held: &network.Holder{}, Directory: dir})
		behind := 0
		for n := range uint64(600) { // seconds
			f.Announce(api.Versions{Config: api.Version{Epoch: 1, N: n + 1}})
			if n == 0 && !f.Behind() {
				t.Error("not behind what was announced just now")
			}
			time.Sleep(time.Second)
			if f.Behind() {
				behind++
			}
		}
		if behind < 9*4 || behind > 10*5 {
			t.Errorf("behind in %d seconds of 600", behind)
		}
	})
}

// A certificate that the revocation list no longer covers is renewed once for each list,
// even if the second list comes while the first renewal is in progress.
func TestRenewsForEachListThatOmits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, id, sign := member(t)
		list := func(number uint64) []byte { // that does not cover certificates that expire within five years
			der, err := ca.SignCRL(number, []*big.Int{}, time.Now().AddDate(5, 0, 0).Truncate(time.Second), time.Now())
			if err != nil {
				t.Error(err)
			}
			return der
		}
		config := id.BareConfig()
		config.Self = api.Self{FQDN: "pi.weft.internal", IPv4Prefix: "100.64.0.0/10", IPv6Prefix: "fd00::/48"}
		first, err := network.New(id, config, list(1))
		if err != nil {
			t.Fatal(err)
		}
		var held network.Holder
		held.Join(id, first)
		var f *Follower
		renewals := 0
		server := &fakeServer{renew: func() []byte {
			if renewals++; renewals == 1 {
				if newer, err := f.TakeCRL(list(2)); !newer || err != nil {
					t.Errorf("the second list: %v, %v", newer, err)
				}
			}
			return sign()
		}}
		nothing := func() {}
		f = New(Config{
			Client: client.New(server, func(time.Time) {}),
			Held:   &held, Directory: directory.New(time.Now), Clock: cert.NewClock(time.Time{}, time.Now), Health: &status.Warnings{}, Log: slog.New(slog.DiscardHandler),
			Keep: func(string) {}, Changed: nothing, NamesChanged: nothing, Removed: nothing, Tell: nothing, Current: nothing,
		})
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { f.Run(ctx) })
		time.Sleep(time.Hour)
		cancel()
		wg.Wait()
		if renewals != 2 {
			t.Errorf("%d renewals for two lists", renewals)
		}
	})
}
