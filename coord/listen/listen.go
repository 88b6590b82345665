// Package listen opens the ports of a server or of a standalone relay, and returns the
// addresses at which nodes reach them.
package listen

import (
	"fmt"
	"log/slog"
	"net"
	"strconv"

	"weft/overlay/cause"
)

// Address is an address to listen on. That its port is taken is an error if the address was given
// by a flag, and only a warning if it is a default.
type Address struct {
	Addr     string // "" for not to listen
	Explicit bool   // given by a flag
}

// Optional returns err if the address is explicit. Otherwise it logs err as a warning and returns
// nil.
func (a Address) Optional(err error, log *slog.Logger) error {
	if err == nil || a.Explicit {
		return err
	}
	log.Warn(err.Error())
	return nil
}

// TCP listens on a TCP address. The error names the flag with which to choose another address.
func TCP(a Address, flag string) (net.Listener, error) {
	l, err := net.Listen("tcp", a.Addr)
	if err != nil {
		return nil, a.failed(flag, err)
	}
	return l, nil
}

func (a Address) failed(flag string, err error) error {
	return fmt.Errorf("listen on %s: %w; choose another with %s", a.Addr, cause.Of(err), flag)
}

// DefaultURL returns the URL of a listener. If it listens on all addresses, the URL has the
// address of this machine's default route. To find that address it sends no packet.
func DefaultURL(at net.Addr) string {
	host := "127.0.0.1"
	for _, to := range []string{"192.0.2.1:9", "[2001:db8::1]:9"} {
		if c, err := net.Dial("udp", to); err == nil {
			host = c.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap().WithZone("").String()
			c.Close()
			break
		}
	}
	a := at.(*net.TCPAddr)
	if !a.IP.IsUnspecified() {
		host = a.IP.String()
	}
	return "https://" + net.JoinHostPort(host, strconv.Itoa(a.Port))
}
