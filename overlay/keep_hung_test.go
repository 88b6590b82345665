//go:build unix

package overlay

import (
	"bytes"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"weft/overlay/api"
	"weft/overlay/cert"
	"weft/overlay/internal/network"
	"weft/overlay/internal/state"
)

// A configuration takes effect although the disk hangs and the file with the release key
// cannot be read: the removal of rights must not wait.
func TestConfigOnADiskThatHangs(t *testing.T) {
	n, f, _ := listNode(t)
	ca, err := cert.NewCA("network", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	der, err := ca.SignNode(&n.held.Identity().Key.PublicKey, cert.Attributes{
		Name: "pi", FQDN: "pi.weft.internal", User: "owner", IPv4: netip.MustParseAddr("100.64.0.1"), IPv6: netip.MustParseAddr("fd00::1"),
	}, cert.NewSerial(), time.Now(), time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	pin := cert.PinOf(ca.Cert)
	id := &network.Identity{
		Network: pin.NetworkID(), ServerPins: []cert.Pin{pin}, URLs: []string{"https://weft.example"},
		Certificate: der, NetworkCAs: [][]byte{ca.Cert.Raw}, Key: n.held.Identity().Key,
	}
	config := &api.Config{
		Network: pin.NetworkID().String(), NetworkCAs: [][]byte{ca.Cert.Raw}, ServerURLs: []string{"https://weft.example"},
		Relays: []api.Relay{{ID: "r", URLs: []string{"https://weft.example"}}},
		Self:   api.Self{FQDN: "pi.weft.internal", IPv4Prefix: "100.64.0.0/10", IPv6Prefix: "fd00::/48"}, ReleaseKey: bytes.Repeat([]byte{1}, 32),
	}
	s, err := network.New(id, config, nil)
	if err != nil {
		t.Fatal(err)
	}
	n.held.Join(id, s)
	// Nobody writes to the pipe, so reading blocks.
	pipe := n.state.File(state.ReleaseFile)
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	taken := make(chan error, 1)
	go func() { taken <- f.TakeConfig(config) }()
	select {
	case err := <-taken:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(20 * time.Second):
		t.Error("the configuration waits for the disk")
	}
	// Let the blocked reader end.
	if f, err := os.OpenFile(pipe, os.O_RDWR, 0); err == nil {
		f.Close()
	}
}
