// Package listen opens the ports of a server, or of a relay that runs alone, and
// says where they are found.
package listen

import (
	"fmt"
	"log/slog"
	"net"
	"strconv"

	"weft/overlay/cause"
)

// Address is where to listen. A port that is taken is an error when somebody
// asked for it, and a warning when it is only the default.
type Address struct {
	Addr     string // "" to not listen
	Explicit bool
}

// Optional makes a warning of an error about a port that was only a default.
func (a Address) Optional(err error, log *slog.Logger) error {
	if err == nil || a.Explicit {
		return err
	}
	log.Warn(err.Error())
	return nil
}

// TCP listens. The error names the flag that chooses another address.
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

// DefaultURL is where a listener is reached at this machine's address on its
// default route. Nothing is sent.
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
