package link

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
)

// The error names what could not be reached once, and the address only if the URL does
// not contain it.
func TestUnreachableInWords(t *testing.T) {
	to := net.TCPAddrFromAddrPort(netip.MustParseAddrPort("203.0.113.7:8443"))
	refused := &net.OpError{Op: "dial", Net: "tcp", Addr: to, Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	for _, c := range []struct {
		url  string
		err  error
		want string
	}{
		{"https://203.0.113.7:8443", refused, "dial https://203.0.113.7:8443: connection refused"},
		{"https://weft.example", refused, "dial https://weft.example: 203.0.113.7:8443: connection refused"},
		{"https://weft.example", errors.New("no such host"), "dial https://weft.example: no such host"},
	} {
		err := error(&UnreachableError{c.url, c.err})
		if err.Error() != c.want || !errors.Is(err, c.err) {
			t.Errorf("%v, want %s", err, c.want)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	base := "https://" + l.Addr().String()
	l.Close()
	_, err = dialer(t, newCA(t, "x")).Dial(t.Context(), base)
	if want := fmt.Sprintf("dial %s: connection refused", base); err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}
