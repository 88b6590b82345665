package dns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
)

type netConn = net.Conn

var dialer net.Dialer

// writeConf writes a resolv.conf.
func writeConf(t testing.TB, servers ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "resolv.conf")
	setConf(t, path, servers...)
	return path
}

func setConf(t testing.TB, path string, servers ...string) {
	t.Helper()
	var b []byte
	for _, s := range servers {
		b = fmt.Appendf(b, "nameserver %s\n", s)
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// nobodyDials fails the test when an upstream is dialled.
func nobodyDials(t testing.TB) func(context.Context, string, string) (net.Conn, error) {
	return func(_ context.Context, network, address string) (net.Conn, error) {
		t.Errorf("dialled %s %s", network, address)
		return nil, errors.New("not here")
	}
}
